//! Bounds on what a peer's certificates cost before it is known who it is.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

/// Certificates that a peer may show beside its own: webpki goes no way that is longer.
const MOST_INTERMEDIATES: usize = 6;

/// Refuses a chain that is longer than any good one, and has another verifier judge the rest.
///
/// webpki looks for a way from the peer's certificate to an authority among all that the peer has sent. It gives up
/// after 200,000 steps, which nine certificates of one name reach: a sixth of a second in which no session of the shard
/// is served. With six of them there are fewer than two thousand.
#[derive(Debug)]
pub(crate) struct ShortChains<V: ?Sized>(pub(crate) Arc<V>);

/// Its alert is bad_certificate (RFC 8446 §6.2).
fn bounded(intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
    if intermediates.len() > MOST_INTERMEDIATES {
        return Err(CertificateError::BadEncoding.into());
    }
    Ok(())
}

impl ClientCertVerifier for ShortChains<dyn ClientCertVerifier> {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        bounded(intermediates)?;
        self.0.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.0.requires_raw_public_keys()
    }
}

impl ServerCertVerifier for ShortChains<WebPkiServerVerifier> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        bounded(intermediates)?;
        self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::{RootCertStore, server::WebPkiClientVerifier};

    use super::*;
    use crate::client::provider;

    /// An authority that is trusted, and a certificate for this name that it has signed.
    fn issued(name: &str) -> (Arc<RootCertStore>, CertificateDer<'static>) {
        let (key, own) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut roots = RootCertStore::empty();
        roots.add(params.self_signed(&key).unwrap().der().clone()).unwrap();
        let issuer = Issuer::new(params, key);
        let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();
        (Arc::new(roots), leaf.der().clone())
    }

    #[test]
    fn a_chain_of_seven_is_judged_and_a_longer_one_refused() {
        let (roots, client) = issued("client.test");
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
        let chains = ShortChains(verifier.build().unwrap());
        let judge = |beside: usize| {
            chains.verify_client_cert(&client, &vec![client.clone(); beside], UnixTime::now()).map(|_| ())
        };
        assert_eq!((judge(0), judge(6)), (Ok(()), Ok(())));
        assert_eq!(judge(7), Err(CertificateError::BadEncoding.into()));
        assert!(chains.offer_client_auth() && chains.client_auth_mandatory());
        assert_eq!(chains.root_hint_subjects().len(), 1);
    }

    #[test]
    fn so_it_is_with_a_server() {
        let (roots, server) = issued("server.test");
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider());
        let chains = ShortChains(verifier.build().unwrap());
        let name = ServerName::try_from("server.test").unwrap();
        let judge = |beside: usize| {
            let beside = vec![server.clone(); beside];
            chains.verify_server_cert(&server, &beside, &name, &[], UnixTime::now()).map(|_| ())
        };
        assert_eq!((judge(0), judge(6)), (Ok(()), Ok(())));
        assert_eq!(judge(7), Err(CertificateError::BadEncoding.into()));
    }
}
