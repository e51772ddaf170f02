//! Sessions whose bytes are not those on the wire.

use std::mem;

use tidegate_io::{Backend, Waker};
use tidegate_tls::Error;

use super::Worker;
use crate::{
    fault::Fault,
    link::What,
    session::Stage,
    transport::{Sealed, Transport},
};

impl<B: Backend<Waker = Waker>> Worker<B> {
    /// The transport of a session whose connection is made.
    pub(super) fn transport(&self) -> Result<Transport, Error> {
        let Some(config) = &self.plan.tls else {
            return Ok(match self.rules.offer {
                None => Transport::Plain,
                Some(_) => Transport::Sealed(Sealed::Kept(Box::default())),
            });
        };
        let tls = tidegate_tls::Session::client(config, &self.plan.target.host)?;
        Ok(Transport::Sealed(Sealed::Tls(Box::new(tls))))
    }

    /// Seals what a session wants to send, unless something waits already, and adds what waits to the turn's sends.
    pub(super) fn write_sealed(&mut self, index: usize) {
        let mut staging = mem::take(&mut self.staging);
        let (time_ns, mut verdict, mut has_more) = (self.visits.time_ns, Ok(()), false);
        // Until its send is settled it must not write again.
        self.slots[index].queued = true;
        self.act(index, |slot, cx| {
            let Transport::Sealed(sealed) = &mut slot.transport else { return };
            if sealed.waiting().is_empty() && sealed.is_open() {
                let bytes = slot.session.transmit(&mut staging, time_ns, cx);
                verdict = sealed.seal(bytes);
                if verdict.is_err() {
                    slot.session.fail(Fault::TlsBroken, cx);
                }
                has_more = slot.session.wants_to_send(cx.traffic);
            }
        });
        self.staging = staging;
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.queued = false;
        if let Err(error) = verdict {
            self.tell_reason(Fault::TlsBroken, &error);
            return;
        }
        if let Transport::Sealed(sealed) = &slot.transport {
            let waiting = sealed.waiting();
            let count = self.visits.add_kept(index, waiting);
            self.visits.is_hurried |= has_more || count < waiting.len();
        }
    }

    /// The kernel took so much of what waited.
    pub(super) fn sealed_sent(&mut self, index: usize, count: usize) {
        self.act(index, |slot, _| {
            if let Transport::Sealed(sealed) = &mut slot.transport {
                sealed.handle_sent(count);
            }
        });
    }

    /// Bytes came that are to be opened.
    pub(super) fn received_sealed(&mut self, index: usize, bytes: &mut [u8]) {
        let mut plaintext = mem::take(&mut self.plaintext);
        plaintext.clear();
        let mut failed = None;
        self.act(index, |slot, cx| {
            let Transport::Sealed(sealed) = &mut slot.transport else { return };
            let tls = match sealed {
                Sealed::Tls(tls) => tls,
                Sealed::Kept(_) => return slot.session.handle_bytes(bytes, cx),
            };
            let was_open = tls.is_open();
            let verdict = tls.handle_ciphertext(bytes, &mut plaintext);
            if !was_open && tls.is_open() {
                cx.tally.tls_came_up(tls);
            }
            if !plaintext.is_empty() {
                slot.session.handle_bytes(&mut plaintext, cx);
            }
            if let Err(error) = verdict {
                let fault = if was_open { Fault::TlsBroken } else { Fault::TlsHandshake };
                slot.session.fail(fault, cx);
                failed = Some((fault, error));
            } else if tls.peer_has_closed() {
                // RFC 8446 §6.1: nothing more will come. A session that is closing says so as well, and waits for the FIN.
                if slot.session.stage() != Stage::Closing || tls.close().is_err() {
                    slot.session.handle_eof(cx);
                }
            }
        });
        self.plaintext = plaintext;
        if let Some((fault, error)) = failed {
            self.tell_reason(fault, &error);
        }
    }

    /// Tells why a session failed; the director shows each reason once.
    fn tell_reason(&self, fault: Fault, error: &Error) {
        self.tell(What::Reason { fault, why: error.to_string() });
    }
}
