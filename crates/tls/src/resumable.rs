//! What a client can resume, and for how long.
//!
//! rustls judges a server's certificates in full handshakes alone, and each session that resumes another one brings tickets for the next.
//! RFC 8446 §4.6.1 would have it depend on how long the certificates are good: so no session is offered beyond their end, and a server
//! that has others by then is met as by who has never been there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    DigitallySignedStruct, Error, NamedGroup, SignatureScheme,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    time_provider::TimeProvider,
};

use crate::identity::not_after;

/// Sessions that can be resumed: the last ones. Some for each server, of which there are fewer.
pub(crate) const RESUMABLE: usize = 1024;

/// Sessions by server, while the certificates are good that the server was known by.
#[derive(Debug)]
pub(crate) struct Resumable {
    sessions: ClientSessionMemoryCache,
    /// The first end of the certificates that were found good, in time since 1970.
    ends: Mutex<HashMap<ServerName<'static>, Duration>>,
    clock: Arc<dyn TimeProvider>,
}

impl Resumable {
    pub(crate) fn new(clock: Arc<dyn TimeProvider>) -> Self {
        Self { sessions: ClientSessionMemoryCache::new(RESUMABLE), ends: Mutex::default(), clock }
    }

    /// These certificates of a server were found good at `now`.
    fn found_good(&self, name: &ServerName<'_>, certificates: &[&CertificateDer<'_>], now: UnixTime) {
        let now = Duration::from_secs(now.as_secs());
        let ends = certificates.iter().filter_map(|certificate| not_after(certificate));
        // It was not by those that have ended that it was found good: servers send what they do not need.
        let Some(end) = ends.filter(|end| *end >= now).min() else { return };
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        // Sessions with others of that name, or with its certificate of before, may be there yet.
        let end = match ends.get(name) {
            Some(before) if *before >= now => end.min(*before),
            _ => end,
        };
        if ends.len() < RESUMABLE || ends.contains_key(name) {
            ends.insert(name.to_owned(), end);
        }
    }

    /// Whether sessions with this server may be resumed. Where they may not, there are none any more.
    fn is_good(&self, name: &ServerName<'_>) -> bool {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let end = ends.get(name).copied();
        let now = self.clock.current_time().map(|now| Duration::from_secs(now.as_secs()));
        let is_good = end.zip(now).is_some_and(|(end, now)| now <= end);
        if !is_good {
            let name = name.to_owned();
            self.sessions.remove_tls12_session(&name);
            while self.sessions.take_tls13_ticket(&name).is_some() {}
        }
        is_good
    }
}

impl ClientSessionStore for Resumable {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.sessions.set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.sessions.kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.sessions.set_tls12_session(server_name, value);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.is_good(server_name).then(|| self.sessions.tls12_session(server_name)).flatten()
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.sessions.remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.sessions.insert_tls13_ticket(server_name, value);
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.is_good(server_name).then(|| self.sessions.take_tls13_ticket(server_name)).flatten()
    }
}

/// Has another verifier judge a server's certificates, and has it remembered for how long they are good.
#[derive(Debug)]
pub(crate) struct Remembered<V> {
    pub(crate) verifier: V,
    pub(crate) resumable: Arc<Resumable>,
}

impl<V: ServerCertVerifier> ServerCertVerifier for Remembered<V> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let certificates: Vec<_> = std::iter::once(end_entity).chain(intermediates).collect();
        self.resumable.found_good(server_name, &certificates, now);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
