//! TLS on an upstream leg: between the connection and the request.
//!
//! Nothing of the request is sent, and nothing that comes is read as an answer, before the upstream has shown a certificate for
//! the configured name. From then on the leg's transport seals and opens as a client's does.

use tidegate_io::Backend;
use tidegate_registry::Key;

use super::Phase;
use crate::{
    environment::Environment,
    plan::ProxyPlan,
    session::State,
    shard::Shard,
    transport::{Transport, tls::Tls},
};

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Whether a leg's connection is not spoken on as it is.
    pub(super) fn is_secure(&self, proxy: &ProxyPlan, upstream: u16) -> bool {
        #[cfg(feature = "record-transport")]
        if self.dials_records {
            return true;
        }
        proxy.speaks_tls(upstream)
    }

    /// A connected leg begins to speak TLS, now or in a later turn: to make keys takes as long as to answer a client's handshake.
    pub(super) fn secure(&mut self, key: Key) {
        if self.turn.is_full_of_handshakes() {
            self.counters.tls_waited += 1;
            self.securing.push_back(key);
        } else {
            self.begin_securing(key);
        }
    }

    /// Legs that waited for this turn.
    pub(crate) fn secure_waiting(&mut self) {
        while !self.turn.is_full_of_handshakes() {
            let Some(key) = self.securing.pop_front() else { break };
            self.begin_securing(key);
            self.flush_spans();
        }
    }

    fn begin_securing(&mut self, key: Key) {
        let plan = std::sync::Arc::clone(&self.plan);
        let Some(session) = self.registry.get_mut(key) else { return };
        let State::Dialing(dialing) = &session.state else { return };
        #[cfg(feature = "record-transport")]
        if self.dials_records {
            session.transport = Transport::Record(Box::new(crate::transport::record::Record::client()));
            self.turn.handshakes += 1;
            self.send_request(key);
            return;
        }
        let proxy = plan.route(session.route).proxy.as_ref();
        // A route that has changed meanwhile has another number, or the same upstreams at their places.
        let Some((config, name)) = proxy.and_then(|proxy| proxy.tls(dialing.upstream)) else {
            self.dial_failed(key, "it speaks TLS no more", 0);
            return;
        };
        let Some(tls) = Tls::client(config, name) else {
            self.dial_failed(key, "TLS: a fault on this side", 0);
            return;
        };
        session.transport = Transport::Tls(Box::new(tls));
        self.turn.handshakes += 1;
        self.say_sealed(key);
        self.arm_receive(key);
    }

    /// An upstream has shown who it is: the request goes out.
    pub(crate) fn has_secured(&mut self, key: Key) {
        // Its certificates and signature were judged.
        self.turn.handshakes += 1;
        let Some(session) = self.registry.get_mut(key) else { return };
        let Transport::Tls(tls) = &session.transport else { return };
        let State::Dialing(dialing) = &session.state else { return };
        if tls.is_open() && matches!(dialing.phase, Phase::Securing) {
            self.counters.upstream_tls_opened += 1;
            self.counters.upstream_tls_resumed += u64::from(tls.is_resumed());
            self.send_request(key);
        }
    }

    /// What an upstream sent cannot be opened, or is not what it should be: the leg ends with the alert that says so.
    pub(crate) fn leg_unsealable(&mut self, key: Key, reason: &'static str) {
        let Some(session) = self.registry.get_mut(key) else { return };
        session.marks.ended = true;
        match &session.state {
            State::Dialing(_) => self.dial_failed(key, reason, 0),
            State::Paired(paired) => {
                let (far, upstream) = (paired.far.unwrap_or(key), paired.upstream);
                self.log_upstream(far, upstream, reason, 0);
                self.leg_vanished(key, 0);
            }
            _ => {}
        }
    }
}
