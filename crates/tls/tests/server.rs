//! What a server is made of, seen from its clients.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tidegate_tls::{
    Authorities, Cause, ClientConfig, ClientOptions, Error, Identity, Part, ServerConfig, ServerOptions,
    Session, Trust,
};

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate and its key in PEM.
    fn issue(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2030, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// One that is valid whenever the test runs.
    fn identity(&self, names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let chain = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap().pem();
        Identity::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes(), SystemTime::now()).unwrap()
    }

    fn client(&self, alpn: &[&[u8]]) -> ClientConfig {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, &self.pem).unwrap();
        let alpn = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        ClientConfig::new(&ClientOptions { trust: Trust::File(path), alpn, resumes: true }).unwrap()
    }
}

/// Some day of a year.
fn day(year: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_557_600 + 86_400)
}

/// Both sides until neither has anything to say; what the client, or else the server, found wrong.
fn shake(client: &mut Session, server: &mut Session) -> Result<(), Error> {
    loop {
        let there = client.take_transmit();
        let verdict = server.handle_ciphertext(&mut there.clone(), &mut Vec::new());
        let back = server.take_transmit();
        // The client hears of it.
        client.handle_ciphertext(&mut back.clone(), &mut Vec::new())?;
        verdict?;
        if there.is_empty() && back.is_empty() {
            return Ok(());
        }
    }
}

#[test]
fn an_identity_knows_its_names_and_its_end() {
    let (chain, key) = Authority::new().issue(&["b.example.com", "*.Example.COM", "a.example.com"]);
    let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes(), day(2026)).unwrap();
    assert_eq!(identity.names(), ["*.example.com", "a.example.com", "b.example.com"]);
    // 2030-01-01 00:00:00.
    assert_eq!(identity.not_after(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000));
    let shown = format!("{identity:?}");
    assert!(shown.contains("a.example.com") && !shown.to_lowercase().contains("key"), "{shown}");
}

#[test]
fn what_is_no_identity_is_told_with_its_part() {
    let authority = Authority::new();
    let (chain, key) = authority.issue(&["localhost"]);
    let (_, foreign) = authority.issue(&["localhost"]);
    let sealed = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let torn = chain.replace("-----END", "-----AND");
    let bad = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let bad_key = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
    for (chain, key, now, part, why) in [
        ("", &*key, 2026, Part::Chain, "there is no certificate in it"),
        (&torn, &key, 2026, Part::Chain, "it is not PEM: "),
        (bad, &key, 2026, Part::Chain, "its first certificate cannot be used: "),
        (&chain, &key, 2031, Part::Chain, "its certificate has expired on Tue, 01 Jan 2030 00:00:00 GMT"),
        (
            &chain,
            &key,
            2019,
            Part::Chain,
            "its certificate is not valid before Wed, 01 Jan 2020 00:00:00 GMT",
        ),
        (&chain, "", 2026, Part::Key, "there is no private key in it"),
        (&chain, sealed, 2026, Part::Key, "its key wants a passphrase, and nobody can be asked for one"),
        (&chain, bad_key, 2026, Part::Key, "its key cannot be used: "),
        (&chain, &foreign, 2026, Part::Key, "its key is not that of the certificate"),
    ] {
        let error = Identity::from_pem(chain.as_bytes(), key.as_bytes(), day(now)).unwrap_err();
        assert_eq!(error.part(), part, "{error}");
        assert!(error.to_string().starts_with(why), "{error}");
    }
    assert!(Identity::from_pem(chain.as_bytes(), key.as_bytes(), day(2026)).is_ok());
}

#[test]
fn a_certificate_of_ones_own_is_an_identity() {
    // As `openssl req -x509` makes it: signed by itself, and an authority.
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let chain = params.self_signed(&key).unwrap().pem();
    let now = SystemTime::now();
    let identity = Identity::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes(), now).unwrap();
    assert_eq!(identity.names(), ["localhost"]);
}

#[test]
fn rfc7301_3_2_a_client_that_speaks_something_else_is_told() {
    let authority = Authority::new();
    let options = ServerOptions { alpn: vec![b"http/1.1".to_vec()], ..ServerOptions::default() };
    let config = ServerConfig::new(&options, vec![authority.identity(&["localhost"])]).unwrap();
    for (offered, expected) in [(&[&b"h2"[..], b"http/1.1"][..], Some(&b"http/1.1"[..])), (&[][..], None)] {
        let mut client = Session::client(&authority.client(offered), "localhost").unwrap();
        let mut server = Session::server(&config);
        shake(&mut client, &mut server).unwrap();
        assert_eq!((client.alpn(), server.alpn()), (expected, expected));
        assert!(!server.is_handshaking() && server.is_open());
    }
    let mut client = Session::client(&authority.client(&[b"h2"]), "localhost").unwrap();
    let mut server = Session::server(&config);
    let error = shake(&mut client, &mut server).unwrap_err();
    // RFC 7301 §3.2: no_application_protocol, 120.
    assert_eq!(error.cause(), Cause::Alert(120), "{error}");
    assert!(!server.is_handshaking() && !server.is_open());
}

#[test]
fn each_name_gets_its_own_certificate_and_others_the_first() {
    let authority = Authority::new();
    let identities = vec![
        authority.identity(&["first.test"]),
        authority.identity(&["*.example.com"]),
        authority.identity(&["www.example.com"]),
    ];
    let server = ServerConfig::new(&ServerOptions::default(), identities).unwrap();
    let client = authority.client(&[]);
    for (host, is_good) in [
        ("first.test", true),
        ("FIRST.test", true),
        ("www.example.com", true),
        ("api.example.com", true),
        ("example.com", false),
        ("a.b.example.com", false),
        ("other.test", false),
    ] {
        let mut client = Session::client(&client, host).unwrap();
        match shake(&mut client, &mut Session::server(&server)) {
            Ok(()) => assert!(is_good, "{host}"),
            Err(error) => assert!(!is_good && error.cause() == Cause::Certificate, "{host}: {error}"),
        }
    }
}

#[test]
fn a_server_needs_an_identity_and_authorities_a_certificate() {
    assert!(ServerConfig::new(&ServerOptions::default(), Vec::new()).is_err());
    let authority = Authority::new();
    assert!(Authorities::from_pem(authority.pem.as_bytes()).is_ok());
    for text in ["", "nothing", &authority.issue(&["a"]).1] {
        let error = Authorities::from_pem(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "there is no certificate in it");
    }
}
