//! Rows S: what is wrong with TLS itself. Those whose clients are no clients at all stand in `tests/tls.rs`.

use std::{io::Write, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    AlertDescription, ClientConfig, Error, HandshakeKind,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
        Tls13ClientSessionValue,
    },
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    version::{TLS12, TLS13},
};

use crate::{
    Company, Row,
    harness::{
        client::{ACCEPT, Client, End},
        frame::{BINARY, TEXT},
        secure::Secure,
    },
    http::each,
    reaction::{Due, Observed, Reaction},
    world::{Req, World},
};

pub(crate) const ROWS: &[Row] = &[
    ("S08", Company::Any, s08_the_preface_of_http_2),
    ("S11", Company::Any, s11_early_data),
    ("S15", Company::Alone, s15_chains_that_lead_nowhere),
];

fn s08_the_preface_of_http_2(world: &World) -> Vec<Observed> {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // Its settings, as a client sends them at once.
    let settings = [&preface[..], &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0]].concat();
    each(world, [("the preface", preface), ("and settings", settings)])
}

/// Keeps tickets, and takes each for one that allows early data.
#[derive(Debug)]
struct Eager(ClientSessionMemoryCache);

impl ClientSessionStore for Eager {
    fn set_kx_hint(&self, name: ServerName<'static>, group: rustls::NamedGroup) {
        self.0.set_kx_hint(name, group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<rustls::NamedGroup> {
        self.0.kx_hint(name)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(name, value);
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(name)
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.0.remove_tls12_session(name);
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, mut value: Tls13ClientSessionValue) {
        assert_eq!(value.max_early_data_size(), 0, "no ticket allows early data");
        value._private_set_max_early_data_size(16 << 10);
        self.0.insert_tls13_ticket(name, value);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(name)
    }
}

fn s11_early_data(world: &World) -> Vec<Observed> {
    let mut target = world.address();
    let mut config = target.tls.as_deref().expect("TLS").clone();
    config.resumption = Resumption::store(Arc::new(Eager(ClientSessionMemoryCache::new(8))));
    config.enable_early_data = true;
    let config = Arc::new(config);
    target.tls = Some(Arc::clone(&config));
    let early = |client: &mut Secure, padding: usize| {
        let head = Req::at("/up/S11?early").with("X", "x".repeat(padding)).bytes();
        client.connection.early_data().expect("the ticket allows it").write_all(&head).expect("it fits");
        client.shake()
    };
    // It comes by a ticket.
    let mut before = Client::open(target.clone(), "/ws");
    before.exchange(TEXT, b"a ticket");
    before.close(1000);
    let mut client = Secure::connect(target.address, &config, "gw.test");
    early(&mut client, 0).expect("a handshake");
    assert_eq!(client.connection.handshake_kind(), Some(HandshakeKind::Resumed));
    assert!(!client.connection.is_early_data_accepted());
    // As if nothing had been: what is answered is the first request behind the handshake.
    client.send(&Req::at("/up/S11").bytes());
    let head = client.head().unwrap_or_else(|| panic!("{:?}", client.fault));
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT), "{head}");
    client.exchange(BINARY, b"and it works");
    assert_eq!(world.scripts().heads_of("/up/S11").len(), 1);
    let peer = client.stream.local_addr().expect("a connected socket");
    client.close();

    // More of it than is skipped for anybody (RFC 8446 §4.2.10), which no ticket has allowed.
    let mut client = Secure::connect(target.address, &config, "gw.test");
    let shaken = early(&mut client, 12 << 10);
    assert!(shaken.is_ok() || client.end() == Some(End::Fin), "{shaken:?}");
    assert!(world.scripts().heads_of("/up/S11?early").is_empty(), "the upstream was asked");
    vec![Observed::new("a request", peer, Reaction::Ok)]
}

/// A certificate, and what it signs with.
struct Signer {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// Authorities of one name, each signed by the one before, and a client's certificate that the last one has signed, with its key.
fn of_one_name(name: &DistinguishedName, count: usize) -> (Vec<CertificateDer<'static>>, Vec<u8>) {
    let mut signers: Vec<Signer> = Vec::new();
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = name.clone();
    for _ in 0..count {
        let key = KeyPair::generate().expect("a key");
        let certificate = match signers.last() {
            Some(before) => params.signed_by(&key, &before.issuer),
            None => params.self_signed(&key),
        };
        let certificate = certificate.expect("a certificate").der().clone();
        signers.push(Signer { certificate, issuer: Issuer::new(params.clone(), key) });
    }
    let own = KeyPair::generate().expect("a key");
    let client = CertificateParams::new(vec!["client.test".to_owned()]).expect("a name");
    let last = signers.last().expect("at least one");
    let client = client.signed_by(&own, &last.issuer).expect("a certificate").der().clone();
    let chain = std::iter::once(client).chain(signers.into_iter().map(|signer| signer.certificate));
    (chain.collect(), own.serialize_der())
}

fn s15_chains_that_lead_nowhere(world: &World) -> Vec<Observed> {
    /// As many as fit into a message of TLS.
    const MANY: usize = 150;
    const CLIENTS: usize = 10;
    /// In ticks of 1/100 s, for so many clients and what the other sessions do meanwhile.
    const MOST_TICKS: u64 = 50;
    let mut stranger = DistinguishedName::new();
    stranger.push(DnType::CommonName, "x");
    let known = world.authority().name();
    let mut seen = Vec::new();
    for (variant, name, count) in [
        ("many ways to nobody", &stranger, MANY),
        ("some ways to nobody", &stranger, 9),
        ("few ways to nobody", &stranger, 6),
        ("many ways to one of the right name", &known, MANY),
        ("few ways to one of the right name", &known, 6),
    ] {
        let (chain, key) = of_one_name(name, count);
        for version in [&TLS13, &TLS12] {
            let variant = format!("{variant}, {:?}", version.version);
            let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[version])
                .expect("a version")
                .with_root_certificates(world.authority().roots())
                .with_client_auth_cert(chain.clone(), PrivateKeyDer::try_from(key.clone()).expect("a key"));
            let config = Arc::new(config.expect("a pair"));
            let before = world.gateway().processor_ticks();
            for _ in 0..CLIENTS {
                seen.push(is_not_let_in(world, &config, &variant));
            }
            let took = world.gateway().processor_ticks() - before;
            assert!(took < MOST_TICKS, "{variant}: {took} ticks for {CLIENTS} clients");
        }
    }
    // Whoever shows a good certificate comes in.
    let own = world.authority().issue("client", &["client.test"]);
    let config = world.authority().client_with(&[&TLS13], &[b"http/1.1"], Some(&own));
    Secure::open(world.for_known_clients(), &config, "gw.test", "/ws").close();
    seen
}

/// A handshake that ends with an alert.
fn is_not_let_in(world: &World, config: &Arc<ClientConfig>, variant: &str) -> Observed {
    let lines_before = world.gateway().log_len();
    let mut client = Secure::connect(world.for_known_clients(), config, "gw.test");
    let peer = client.stream.local_addr().expect("a connected socket");
    // With TLS 1.3 the client's part of the handshake is over before it hears.
    let _ = client.shake();
    assert_eq!(client.end(), Some(End::Fin), "{variant}");
    let (what, named) = (format!("{peer} and its certificate ({variant})"), peer.to_string());
    world.gateway().wait_for_log_behind(lines_before, &what, |line| {
        line.contains(&named) && line.contains("the peer's certificate")
    });
    match client.fault {
        Some(Error::AlertReceived(alert)) => {
            Observed::new(variant, peer, Reaction::Alert(alert)).with_due(Due::Silence)
        }
        fault => panic!("{variant}: {fault:?}"),
    }
}

/// An alert as the table names it.
pub(crate) fn name_of(alert: AlertDescription) -> String {
    let mut name = String::new();
    let mut is_within = false;
    for letter in format!("{alert:?}").chars() {
        if letter.is_uppercase() && is_within {
            name.push('_');
        }
        is_within = letter.is_lowercase();
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[test]
fn alerts_are_named_as_in_the_table() {
    assert_eq!(name_of(AlertDescription::BadCertificate), "bad_certificate");
    assert_eq!(name_of(AlertDescription::UnknownCA), "unknown_ca");
}
