//! What the sessions of a client have in common.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    sign::SingleCertAndKey,
};

use crate::{Authorities, Error, Identity, Lowest, chains::ShortChains};

/// Sessions of a client that can be resumed: the last ones.
const RESUMABLE: usize = 1024;

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
    /// `own`: who it is itself, for servers that ask. Sessions resume earlier ones with the same name.
    ///
    /// # Errors
    /// Where the library refuses the versions, or no authority is given.
    pub fn trusting(
        authorities: &Authorities,
        own: Option<&Identity>,
        lowest: Lowest,
        alpn: Vec<Vec<u8>>,
    ) -> Result<Self, Error> {
        // What the library makes of authorities by itself, with a bound on what it looks at.
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&authorities.0), provider());
        let verifier = verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?;
        let builder = rustls::ClientConfig::builder_with_provider(client_provider())
            .with_protocol_versions(lowest.versions())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ShortChains(verifier)));
        let mut config = match own {
            Some(own) => {
                let own = SingleCertAndKey::from(Arc::clone(&own.certified));
                builder.with_client_cert_resolver(Arc::new(own))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn;
        config.resumption = Resumption::in_memory_sessions(RESUMABLE);
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
