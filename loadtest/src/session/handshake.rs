//! The upgrade: what is asked for, and the answer.

use tidegate_wire::{
    HeadLimits, Role,
    deflate::Compression,
    extension::DeflateParams,
    handshake::{Offer, verify_response},
    http::{BadResponse, HeadScanner, ResponseHead, Scan},
};

use super::{Context, Session, State};
use crate::fault::Fault;

pub(super) struct Handshake {
    pub(super) key: [u8; 16],
    pub(super) request: Vec<u8>,
    /// Bytes of it that the kernel took.
    pub(super) sent: usize,
    pub(super) scanner: HeadScanner,
    /// The answer so far, unless it came at once.
    pub(super) head: Vec<u8>,
}

impl Session {
    /// The connection is made: `request` goes out, with this key in it.
    pub(crate) fn handle_connected(&mut self, request: Vec<u8>, key: [u8; 16]) {
        let scanner = HeadScanner::for_response();
        self.state =
            State::Handshake(Box::new(Handshake { key, request, sent: 0, scanner, head: Vec::new() }));
    }

    /// Reads the answer to the upgrade; where it is whole and good, tells where in `bytes` it ended.
    pub(super) fn read_head(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Option<usize> {
        let State::Handshake(handshake) = &mut self.state else { return None };
        let before = handshake.head.len();
        if before > 0 {
            handshake.head.extend_from_slice(bytes);
        }
        let limits = HeadLimits::default();
        let whole = if before > 0 { &*handshake.head } else { bytes };
        let verdict = match handshake.scanner.scan(whole, &limits) {
            Ok(Scan::Partial) => {
                if before == 0 {
                    handshake.head.extend_from_slice(bytes);
                }
                return None;
            }
            Ok(Scan::Complete(end)) => ResponseHead::parse(&whole[..end], &limits).and_then(|head| {
                let offered: Vec<&str> = cx.rules.subprotocols.iter().map(String::as_str).collect();
                let offer = cx.rules.offer.as_ref().map_or(Offer::None, Offer::Deflate);
                let agreed = verify_response(&head, &handshake.key, &offered, offer)?;
                Ok((end, agreed.extension))
            }),
            Err(refusal) => Err(refusal.into()),
        };
        match verdict {
            Ok((end, extension)) => {
                self.state = State::Open;
                self.agree(extension, cx);
                self.progress_ns = cx.now_ns;
                let is_measured = cx.window.contains(self.begun_ns);
                cx.tally.counts.opened += 1;
                cx.tally.counts.opened_in_window += u64::from(is_measured);
                if is_measured || cx.rules.messages.is_none() {
                    cx.tally.handshake.record(cx.now_ns.saturating_sub(self.begun_ns));
                }
                self.close_after_last(cx);
                if let Some(seat) = &mut self.seat {
                    seat.handle_up(cx);
                }
                Some(end - before)
            }
            Err(BadResponse::Status(status)) => {
                *cx.tally.counts.statuses.entry(status).or_default() += 1;
                self.end(Some(Fault::Refused), cx);
                None
            }
            Err(reason) => {
                cx.tally.give_reason(Fault::HandshakeInvalid, reason.to_string().as_bytes());
                self.end(Some(Fault::HandshakeInvalid), cx);
                None
            }
        }
    }

    /// What the server made of the offer.
    pub(super) fn agree(&mut self, params: Option<DeflateParams>, cx: &mut Context<'_>) {
        if cx.rules.offer.is_none() {
            return;
        }
        let Some(params) = params else {
            cx.tally.counts.deflate.declined += 1;
            return;
        };
        let compression = Compression::new(params, Role::Client, cx.codecs);
        cx.tally.counts.deflate.agreed(&params, compression.looks_back());
        self.compression = Some(compression);
    }
}
