//! Who may come by the certificate of their connection, and for how long that speaks for its requests.

use tidegate_hub::RouteId;
use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::http::Refusal;

use crate::{environment::Environment, shard::Shard, transport::Transport};

/// A client cannot be asked again in this connection (RFC 8446 §4.6.2 is not for HTTP with upgrades): no 401.
const NO_CERTIFICATE: Refusal =
    Refusal { status: 403, reason: "this route wants a client certificate", close: true, fields: &[] };

const FOREIGN_CERTIFICATE: Refusal =
    Refusal { status: 403, reason: "this certificate may not come here", close: true, fields: &[] };

/// A new connection is told in its handshake what is wrong, and may show another one.
const PAST_CERTIFICATE: Refusal =
    Refusal::new(403, "the certificate of this connection is not good any more");

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Lets a request pass whose connection would be let in now. It is kept alive for as long as its client likes, and the handshake is
    /// long over: the client's certificate may have expired since, or its listener asks for others.
    ///
    /// # Errors
    /// 403 where it would not.
    pub(crate) fn look_at_certificate(&mut self, key: Key) -> Result<(), Refusal> {
        let Self { registry, environment, listening, closed, turn, .. } = self;
        let Some(session) = registry.get_mut(key) else { return Ok(()) };
        let Transport::Tls(tls) = &mut session.transport else { return Ok(()) };
        let Some(listener) = tls.doubtful(|| environment.unix_seconds()) else { return Ok(()) };
        // It takes as long as a part of a handshake does.
        turn.handshakes += 1;
        let server = listening.iter().chain(&*closed).find(|l| l.id == listener).and_then(|l| l.tls.as_ref());
        let now = environment.unix_seconds();
        if server.is_some_and(|server| tls.judge_anew(server, now)) { Ok(()) } else { Err(PAST_CERTIFICATE) }
    }

    /// Whether the certificate of a connection has expired: then an answer is its last.
    pub(crate) fn has_past_certificate(&mut self, key: Key) -> bool {
        let Self { registry, environment, .. } = self;
        match registry.get_mut(key).map(|session| &mut session.transport) {
            Some(Transport::Tls(tls)) => tls.is_over(|| environment.unix_seconds()),
            _ => false,
        }
    }

    /// Lets those through whose certificate the route takes, and of others who show none where it wants none.
    pub(super) fn admit_certificate(&self, key: Key, id: RouteId) -> Result<(), Refusal> {
        let Some(rule) = &self.plan.route(id).route.client_certificate else { return Ok(()) };
        let subject = self.registry.get(key).and_then(|session| session.transport.subject());
        match subject {
            None if rule.required => Err(NO_CERTIFICATE),
            Some(subject) if !rule.takes(subject.dns_names(), subject.other_names()) => {
                Err(FOREIGN_CERTIFICATE)
            }
            None | Some(_) => Ok(()),
        }
    }
}
