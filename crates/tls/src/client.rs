//! What the sessions of a client have in common.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    sign::SingleCertAndKey,
    time_provider::{DefaultTimeProvider, TimeProvider},
};

use crate::{
    Authorities, Error, Identity, Lowest,
    chains::ShortChains,
    resumable::{RESUMABLE, Remembered, Resumable},
};

/// Whom a client trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Whom this system trusts.
    System,
    /// The certificates in a PEM file, and none else.
    File(PathBuf),
    /// Anybody: the peer only has to own the key of its certificate, whichever that is. For tests.
    Nothing,
}

/// What a client is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// Whom it trusts.
    pub trust: Trust,
    /// The protocols that it offers (RFC 7301), the best first.
    pub alpn: Vec<Vec<u8>>,
    /// Whether sessions resume earlier ones with the same host, as browsers do.
    pub resumes: bool,
}

/// The client's side of many sessions. Cheap to clone; clones share what can be resumed.
#[derive(Clone, Debug)]
pub struct ClientConfig(pub(crate) Arc<rustls::ClientConfig>);

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// As browsers offer it: keys of 128 bits first, which are enough and cost less. Most servers leave the choice to the client.
fn client_provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| !suite.suite().as_str().is_some_and(|name| name.contains("AES_128")));
    Arc::new(provider)
}

impl ClientConfig {
    /// TLS 1.2 and 1.3. Reads certificates, so it may take some milliseconds.
    ///
    /// # Errors
    /// Where the certificates to be trusted cannot be read.
    pub fn new(options: &ClientOptions) -> Result<Self, Error> {
        let builder = rustls::ClientConfig::builder_with_provider(client_provider())
            .with_safe_default_protocol_versions()?;
        let builder = match &options.trust {
            Trust::System => builder.with_root_certificates(system_roots()?),
            Trust::File(path) => builder.with_root_certificates(roots_of(path)?),
            Trust::Nothing => {
                let verifier = Arc::new(AnyCertificate(provider()));
                builder.dangerous().with_custom_certificate_verifier(verifier)
            }
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols.clone_from(&options.alpn);
        config.resumption =
            if options.resumes { Resumption::in_memory_sessions(RESUMABLE) } else { Resumption::disabled() };
        Ok(Self(Arc::new(config)))
    }

    /// A client that trusts servers whose certificates one of `authorities` has signed, for the name that it wants to speak with.
    /// `own`: who it is itself, for servers that ask. Sessions resume earlier ones with the same name, while the certificates are good
    /// by which the name was known (RFC 8446 §4.6.1).
    ///
    /// # Errors
    /// Where the library refuses the versions, or no authority is given.
    pub fn trusting(
        authorities: &Authorities,
        own: Option<&Identity>,
        lowest: Lowest,
        alpn: Vec<Vec<u8>>,
    ) -> Result<Self, Error> {
        Self::trusting_at(authorities, own, lowest.versions(), alpn, Arc::new(DefaultTimeProvider))
    }

    /// The same by a clock, with these versions.
    fn trusting_at(
        authorities: &Authorities,
        own: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
        alpn: Vec<Vec<u8>>,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, Error> {
        // What the library makes of authorities by itself, with a bound on what it looks at.
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&authorities.0), provider());
        let verifier = verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?;
        let resumable = Arc::new(Resumable::new(Arc::clone(&clock)));
        let verifier = Remembered { verifier: ShortChains(verifier), resumable: Arc::clone(&resumable) };
        let builder = rustls::ClientConfig::builder_with_details(client_provider(), clock)
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match own {
            Some(own) => {
                let own = SingleCertAndKey::from(Arc::clone(&own.certified));
                builder.with_client_cert_resolver(Arc::new(own))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn;
        config.resumption = Resumption::store(resumable);
        Ok(Self(Arc::new(config)))
    }
}

pub(crate) fn system_roots() -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    // A store may well hold some that cannot be used; without any, nobody is trusted.
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 { Err(Error::NO_ROOTS) } else { Ok(roots) }
}

fn roots_of(path: &std::path::Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| Error::file(path, error))?;
    if found.is_empty() { Err(Error::no_certificate(path)) } else { Ok(found) }
}

/// Takes any certificate, but has the peer prove that the key is its own.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::version::{TLS12, TLS13};

    use super::*;
    use crate::{ServerConfig, ServerOptions, Session, tickets::tests::Clock};

    const HOUR: u64 = 3_600;

    /// An authority, and servers whose certificates end.
    struct World {
        issuer: Issuer<'static, KeyPair>,
        authorities: Authorities,
        clock: Arc<Clock>,
        begun: u64,
    }

    impl World {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let authorities =
                Authorities::from_pem(params.self_signed(&key).unwrap().pem().as_bytes()).unwrap();
            let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            Self { issuer: Issuer::new(params, key), authorities, clock: Clock::at(begun), begun }
        }

        /// A certificate that is good for so many hours from the beginning on.
        fn issue(&self, hours: u64) -> Identity {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["up.test".to_owned()]).unwrap();
            let end = SystemTime::UNIX_EPOCH + Duration::from_secs(self.begun + hours * HOUR);
            params.not_after = end.into();
            let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
            Identity::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes(), SystemTime::now()).unwrap()
        }

        fn client(&self, version: &'static SupportedProtocolVersion) -> ClientConfig {
            let clock = self.clock.clone();
            ClientConfig::trusting_at(&self.authorities, None, &[version], Vec::new(), clock).unwrap()
        }

        fn server(&self, hours: u64) -> ServerConfig {
            let options = ServerOptions::default();
            ServerConfig::at(&options, vec![self.issue(hours)], self.clock.clone()).unwrap()
        }
    }

    /// Whether this client's next session resumes one, or why it is not begun.
    fn resumes(client: &ClientConfig, server: &ServerConfig) -> Result<bool, &'static str> {
        let mut client = Session::client(client, "up.test").unwrap();
        let mut server = Session::server(server);
        loop {
            let mut there = client.take_transmit();
            server.handle_ciphertext(&mut there, &mut Vec::new()).unwrap();
            let mut back = server.take_transmit();
            client.handle_ciphertext(&mut back, &mut Vec::new()).map_err(|error| error.reason())?;
            if there.is_empty() && back.is_empty() {
                return Ok(client.is_resumed().unwrap());
            }
        }
    }

    #[test]
    fn rfc8446_4_6_1_no_session_is_resumed_beyond_the_end_of_the_servers_certificate() {
        for version in [&TLS13, &TLS12] {
            let world = World::new();
            let (client, old) = (world.client(version), world.server(24));
            assert_eq!(resumes(&client, &old), Ok(false));
            // Each time by the ticket of the time before.
            for hours in [1, 8, 16, 23] {
                world.clock.set(world.begun + hours * HOUR);
                assert_eq!(resumes(&client, &old), Ok(true), "after {hours} h");
            }
            world.clock.set(world.begun + 24 * HOUR + 1);
            assert_eq!(resumes(&client, &old), Err("the peer's certificate has expired"));
            // With its next certificate the server is known again, at once, and from then on resumed.
            let new = world.server(48);
            assert_eq!(resumes(&client, &new), Ok(false));
            assert_eq!(resumes(&client, &new), Ok(true));
        }
    }
}
