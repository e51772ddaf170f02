//! The header of the PROXY protocol, before anything else of a connection: who the client is that a trusted proxy has accepted.
//!
//! It is read from the raw bytes, as TLS begins behind it. Until it has come the session stands at the head of a request, and has
//! that one's deadline.

use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::proxy_protocol::{self, Progress};

use crate::{
    environment::Environment,
    log::{Level, What},
    session::{Fact, Peer, State},
    shard::Shard,
};

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Reads the header; gives how many of `bytes` are not the connection's own: all of them where it is not whole, or was
    /// refused.
    pub(crate) fn read_proxy_header(&mut self, key: Key, bytes: &[u8]) -> usize {
        let Some(session) = self.registry.get_mut(key) else { return bytes.len() };
        let State::Head(head) = &mut session.state else { return bytes.len() };
        let (before, held) = (head.bytes.len(), head.bytes.capacity());
        if before > 0 {
            // No more than a header may be long: what is behind it is not to be copied.
            let most = proxy_protocol::V2_BYTES - before;
            head.bytes.extend_from_slice(&bytes[..bytes.len().min(most)]);
        }
        let parsed = proxy_protocol::parse(if before > 0 { &head.bytes } else { bytes });
        match &parsed {
            Ok(Progress::Partial) if before == 0 => head.bytes.extend_from_slice(bytes),
            Ok(Progress::Partial) => {}
            Ok(Progress::Complete(_)) | Err(_) => head.bytes = Vec::new(),
        }
        let holds = head.bytes.capacity();
        self.recount(held, holds);
        match parsed {
            Ok(Progress::Partial) => bytes.len(),
            Ok(Progress::Complete(header)) => {
                let Some(session) = self.registry.get_mut(key) else { return bytes.len() };
                session.marks.facts.set(Fact::ProxyHeader, false);
                if let Some(source) = header.source {
                    session.peer = Peer::new(Some(source));
                }
                self.take_in_late(key);
                header.len - before
            }
            Err(bad) => {
                self.refuse_proxy_header(key, bad.text());
                bytes.len()
            }
        }
    }

    /// Ends a connection whose header is not right or not there. It is told nothing: what would have to be said, and in which
    /// protocol, is not known.
    pub(crate) fn refuse_proxy_header(&mut self, key: Key, reason: &'static str) {
        // One in a spare slot was refused before, and is counted.
        let is_refused = self.registry.get(key).is_some_and(|session| session.marks.facts.has(Fact::Spare));
        self.counters.proxy_headers_refused += u64::from(!is_refused);
        self.log(Level::Info, Some(key), What::ConnectionRefused { reason });
        self.linger(key);
    }
}
