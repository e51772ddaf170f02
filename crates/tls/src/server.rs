//! What the sessions of a server have in common: who it is, by name, and whom it lets in.

use std::{collections::HashMap, sync::Arc};

use rustls::{
    RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, pem::PemObject},
    server::{
        ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
    time_provider::{DefaultTimeProvider, TimeProvider},
    version::{TLS12, TLS13},
};

use crate::{
    Error, Identity,
    chains::ShortChains,
    client::{provider, system_roots},
    tickets::DatedTickets,
};

/// The lowest version of the protocol that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lowest {
    /// 1.2, with suites that encrypt with authentication and keep earlier sessions secret (RFC 9325 §4.2).
    #[default]
    Tls12,
    /// 1.3 alone.
    Tls13,
}

impl Lowest {
    pub(crate) fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static FROM_12: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        match self {
            Self::Tls12 => &FROM_12,
            Self::Tls13 => &FROM_12[..1],
        }
    }
}

/// Whose certificates a server wants to see.
#[derive(Clone, Debug, Default)]
pub enum Clients {
    /// Nobody's.
    #[default]
    Anyone,
    /// Those that an authority has signed; nobody else gets in.
    SignedBy(Authorities),
    /// Those that an authority has signed, and those who show none.
    SignedByOrNone(Authorities),
}

/// Authorities whose signatures count.
#[derive(Clone, Debug)]
pub struct Authorities(pub(crate) Arc<RootCertStore>);

/// What a server is made of besides its identities.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// The protocols that it speaks (RFC 7301), the best first. A client that offers others alone is told
    /// `no_application_protocol`; one that offers none is let in.
    pub alpn: Vec<Vec<u8>>,
    /// The lowest version.
    pub lowest: Lowest,
    /// Whose certificates it wants to see.
    pub clients: Clients,
}

/// The server's side of many sessions. Cheap to clone; clones share the keys of tickets, so that each can resume what
/// another began.
#[derive(Clone, Debug)]
pub struct ServerConfig(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    tls: Arc<rustls::ServerConfig>,
    /// Judges the certificates of clients, where any are wanted.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl ServerConfig {
    /// A server that is each of `identities`: the first for clients that name none of them, or nobody.
    ///
    /// Tickets let clients resume a session. Each is good for twelve hours from its issue, and no longer than the certificates of the
    /// client are: these are judged again whenever a session is resumed. Their keys are this configuration's alone, made at random,
    /// and change when one is used that is older than six hours. Early data is not taken (RFC 8446 §8: it can be replayed).
    ///
    /// # Errors
    /// Where there is no identity, or the system gives no random bytes.
    pub fn new(options: &ServerOptions, identities: Vec<Identity>) -> Result<Self, Error> {
        Self::at(options, identities, Arc::new(DefaultTimeProvider))
    }

    /// The same by a clock.
    pub(crate) fn at(
        options: &ServerOptions,
        identities: Vec<Identity>,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, Error> {
        let tickets = DatedTickets::new(Arc::clone(&clock))?;
        Self::with_tickets(options, identities, Arc::new(tickets), clock)
    }

    /// Another server in the place of this one, in the same trust domain: what this one's clients have tickets for, they may resume
    /// there. Whoever lets clients in by other authorities must not use it, since who resumes shows no certificate again, and who has
    /// shown none before is not asked for one.
    ///
    /// # Errors
    /// As [`ServerConfig::new`].
    pub fn succeeded_by(&self, options: &ServerOptions, identities: Vec<Identity>) -> Result<Self, Error> {
        let before = &self.0.tls;
        let (tickets, clock) = (Arc::clone(&before.ticketer), Arc::clone(&before.time_provider));
        Self::with_tickets(options, identities, tickets, clock)
    }

    /// Whether one of the two has [succeeded](Self::succeeded_by) the other, at whatever remove: who was let in by one of them may
    /// stay with the other.
    #[must_use]
    pub fn shares_trust_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.tls.ticketer, &other.0.tls.ticketer)
    }

    /// What rustls makes sessions of.
    pub(crate) fn tls(&self) -> &Arc<rustls::ServerConfig> {
        &self.0.tls
    }

    /// Judges the certificates that a resumed session has from the one before: they may have expired since. RFC 8446 §4.6.1: for how
    /// long a session is resumed depends on how long they are good.
    ///
    /// # Errors
    /// As a full handshake with them would fail.
    pub(crate) fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let (Some(verifier), [first, others @ ..]) = (&self.0.verifier, chain) else { return Ok(()) };
        let now = self.0.tls.time_provider.current_time().ok_or(rustls::Error::FailedToGetCurrentTime)?;
        verifier.verify_client_cert(first, others, now).map(|_| ())
    }

    /// Judges what a client of another server has shown: whether this one would take it, and as what it stands.
    ///
    /// # Errors
    /// As a full handshake with it would fail; and where this server asks for no certificate, so that nobody has one.
    pub(crate) fn judge_shown(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        match &self.0.verifier {
            None if !chain.is_empty() => Err(rustls::CertificateError::UnknownIssuer.into()),
            Some(verifier) if chain.is_empty() && verifier.client_auth_mandatory() => {
                Err(rustls::Error::NoCertificatesPresented)
            }
            None | Some(_) => self.judge(chain),
        }
    }

    fn with_tickets(
        options: &ServerOptions,
        identities: Vec<Identity>,
        tickets: Arc<dyn ProducesTickets>,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, Error> {
        let builder = rustls::ServerConfig::builder_with_details(provider(), clock)
            .with_protocol_versions(options.lowest.versions())?;
        let verifier = options.clients.verifier()?;
        let builder = match &verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        };
        let names = Names::new(identities).ok_or(Error::NO_IDENTITY)?;
        let mut config = builder.with_cert_resolver(Arc::new(names));
        config.alpn_protocols.clone_from(&options.alpn);
        // What is resumed is in the tickets, and nothing of it here.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = tickets;
        Ok(Self(Arc::new(Parts { tls: Arc::new(config), verifier })))
    }
}

impl Clients {
    /// Who judges their certificates, where any are wanted.
    fn verifier(&self) -> Result<Option<Arc<dyn ClientCertVerifier>>, Error> {
        let (Self::SignedBy(Authorities(roots)) | Self::SignedByOrNone(Authorities(roots))) = self else {
            return Ok(None);
        };
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider());
        let verifier = match self {
            Self::SignedByOrNone(_) => verifier.allow_unauthenticated(),
            Self::Anyone | Self::SignedBy(_) => verifier,
        };
        Ok(Some(Arc::new(ShortChains(verifier.build().map_err(|_| Error::NO_ROOTS)?))))
    }
}

impl Authorities {
    /// Those whose certificates a PEM text has.
    ///
    /// # Errors
    /// Where it is no PEM text, has none, or one of them cannot be used.
    pub fn from_pem(text: &[u8]) -> Result<Self, Error> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        let mut roots = RootCertStore::empty();
        for certificate in certificates.map_err(Error::pem)? {
            roots.add(certificate)?;
        }
        if roots.is_empty() { Err(Error::NO_CERTIFICATE) } else { Ok(Self(Arc::new(roots))) }
    }

    /// Those that this system trusts. Reads files, so it may take some milliseconds.
    ///
    /// # Errors
    /// Where there are none.
    pub fn of_system() -> Result<Self, Error> {
        Ok(Self(Arc::new(system_roots()?)))
    }
}

/// The identities by name.
#[derive(Debug)]
struct Names {
    /// In lower case; those of `*.example.com` under `.example.com`. Several of one name have different kinds of keys.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// For everyone else.
    first: Arc<CertifiedKey>,
}

impl Names {
    fn new(identities: Vec<Identity>) -> Option<Self> {
        let first = Arc::clone(&identities.first()?.certified);
        let mut by_name = HashMap::<String, Vec<Arc<CertifiedKey>>>::new();
        for Identity { certified, names, .. } in identities {
            for name in names {
                let name = name.strip_prefix('*').map_or(name.clone(), str::to_owned);
                by_name.entry(name).or_default().push(Arc::clone(&certified));
            }
        }
        Some(Self { by_name, first })
    }

    /// The identities of a name: its own before those of a wildcard, which stands for one label (RFC 9525 §6.3).
    fn of(&self, name: &str) -> &[Arc<CertifiedKey>] {
        let name = name.to_ascii_lowercase();
        let above = name.find('.').map(|dot| &name[dot..]);
        let found = self.by_name.get(&name).or_else(|| self.by_name.get(above?));
        found.map_or(&[], Vec::as_slice)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let own = hello.server_name().map_or(&[][..], |name| self.of(name));
        // One whose signatures the client knows; where it knows none, rustls says so.
        let usable = own.iter().find(|one| one.key.choose_scheme(hello.signature_schemes()).is_some());
        Some(Arc::clone(usable.or(own.first()).unwrap_or(&self.first)))
    }
}

#[cfg(test)]
mod tests;
