//! Certificates of tests: an authority, and those that it signs, in files that go with it.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use tempfile::TempDir;

/// An authority and its folder.
pub(crate) struct Authority {
    folder: TempDir,
    certificate: CertificateDer<'static>,
    name: DistinguishedName,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) struct Issued {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key_der: Vec<u8>,
}

impl Issued {
    /// As a listener names it.
    pub(crate) fn setting(&self) -> String {
        format!("certificate_file = {:?}\nkey_file = {:?}\n", self.chain, self.key)
    }
}

impl Authority {
    /// A new one.
    pub(crate) fn new() -> Authority {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // An authority of another name is not taken for this one.
        params.distinguished_name.push(DnType::CommonName, folder.path().to_string_lossy().into_owned());
        let certificate = params.self_signed(&key).expect("a certificate");
        fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("write it");
        let (certificate, name) = (certificate.der().clone(), params.distinguished_name.clone());
        Authority { folder, certificate, name, issuer: Issuer::new(params, key) }
    }

    /// A file in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its own certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// A certificate for names, in `stem.pem` and `stem.key`.
    pub(crate) fn issue(&self, stem: &str, names: &[&str]) -> Issued {
        self.issue_with(stem, names, |_| {})
    }

    /// One whose subject has this common name.
    pub(crate) fn issue_to(&self, stem: &str, common_name: &str, names: &[&str]) -> Issued {
        self.issue_with(stem, names, |params| params.distinguished_name.push(DnType::CommonName, common_name))
    }

    /// One whose subject has this common name, which is good until `end`, to the second.
    pub(crate) fn issue_until(&self, stem: &str, common_name: &str, end: SystemTime) -> Issued {
        self.issue_with(stem, &["client.test"], |params| {
            params.distinguished_name.push(DnType::CommonName, common_name);
            let end = end.duration_since(SystemTime::UNIX_EPOCH).expect("a time of today");
            params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(end.as_secs());
        })
    }

    /// One that has expired years ago.
    pub(crate) fn issue_expired(&self, stem: &str, names: &[&str]) -> Issued {
        self.issue_with(stem, names, |params| {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 2, 3);
        })
    }

    /// A certificate that nobody has signed but itself.
    pub(crate) fn issue_alone(&self, stem: &str, names: &[&str]) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(owned(names)).expect("names");
        let certificate = params.self_signed(&key).expect("a certificate");
        self.keep(stem, &certificate, &key)
    }

    fn issue_with(&self, stem: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(owned(names)).expect("names");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        self.keep(stem, &certificate, &key)
    }

    fn keep(&self, stem: &str, certificate: &rcgen::Certificate, key: &KeyPair) -> Issued {
        let issued = Issued {
            chain: self.path(&format!("{stem}.pem")),
            key: self.path(&format!("{stem}.key")),
            certificate: certificate.der().clone(),
            key_der: key.serialize_der(),
        };
        fs::write(&issued.chain, certificate.pem()).expect("write it");
        fs::write(&issued.key, key.serialize_pem()).expect("write it");
        issued
    }

    /// A server with this certificate; with `clients`, for those alone that this authority has signed.
    pub(crate) fn server(&self, own: &Issued, clients: bool) -> Arc<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("versions");
        let builder = if clients {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(own.key_der.clone()).expect("a key");
        let mut config = builder.with_single_cert(vec![own.certificate.clone()], key).expect("a pair");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// Its name.
    pub(crate) fn name(&self) -> DistinguishedName {
        self.name.clone()
    }

    /// What a client that trusts it alone knows.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        roots
    }

    /// A client that trusts it.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        self.client_with(&[&TLS13, &TLS12], &[b"http/1.1"], None)
    }

    /// The same with these versions, these protocols and a certificate of its own.
    pub(crate) fn client_with(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&[u8]],
        own: Option<&Issued>,
    ) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(self.roots());
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::try_from(own.key_der.clone()).expect("a key");
                builder.with_client_auth_cert(vec![own.certificate.clone()], key).expect("a pair")
            }
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
