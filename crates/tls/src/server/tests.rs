//! Clients' certificates over sessions that are resumed, by a clock that is moved.

use std::time::SystemTime;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    AlertDescription, NamedGroup,
    client::{ClientSessionMemoryCache, ClientSessionStore, Resumption},
    crypto::{ActiveKeyExchange, CryptoProvider, SharedSecret, SupportedKxGroup, aws_lc_rs::kx_group},
    sign::SingleCertAndKey,
};

use super::*;
use crate::{Cause, ClientConfig, Session, tickets::tests::Clock};

/// 2031-01-01 00:00:00, when the client's certificate ends, and the year in which it begins.
const END: u64 = 1_924_992_000;
const BEGINS_AND_ENDS: [i32; 2] = [2030, 2031];
const DAY: u64 = 86_400;
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// An authority, a server that asks for certificates of it, and the client that has one.
struct World {
    clock: Arc<Clock>,
    authorities: Authorities,
    server: ServerConfig,
    client: Identity,
    /// Of a client's sessions.
    resumption: Resumption,
}

impl World {
    fn new(clients: fn(Authorities) -> Clients) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authorities = Authorities::from_pem(params.self_signed(&key).unwrap().pem().as_bytes()).unwrap();
        let issuer = Issuer::new(params, key);
        let issue = |change: fn(&mut CertificateParams), now| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            change(&mut params);
            let chain = params.signed_by(&key, &issuer).unwrap().pem();
            Identity::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes(), now).unwrap()
        };
        let client = issue(
            |params| {
                let [begin, end] = BEGINS_AND_ENDS;
                (params.not_before, params.not_after) =
                    (date_time_ymd(begin, 1, 1), date_time_ymd(end, 1, 1));
            },
            SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(END - DAY),
        );
        let options = ServerOptions { clients: clients(authorities.clone()), ..ServerOptions::default() };
        let clock = Clock::at(END - DAY);
        let own = issue(|_| {}, SystemTime::now());
        let server = ServerConfig::at(&options, vec![own], clock.clone()).unwrap();
        Self { clock, authorities, server, client, resumption: Resumption::in_memory_sessions(8) }
    }

    /// A client that shows its certificate, or has none.
    fn client(
        &self,
        provider: CryptoProvider,
        version: &'static SupportedProtocolVersion,
        is_known: bool,
    ) -> ClientConfig {
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(Arc::clone(&self.authorities.0));
        let mut config = if is_known {
            let own = SingleCertAndKey::from(Arc::clone(&self.client.certified));
            builder.with_client_cert_resolver(Arc::new(own))
        } else {
            builder.with_no_client_auth()
        };
        config.resumption = self.resumption.clone();
        ClientConfig(Arc::new(config))
    }

    fn usual(&self, version: &'static SupportedProtocolVersion) -> ClientConfig {
        self.client((*provider()).clone(), version, true)
    }

    /// Whether this client's next session resumes one, or why the server, and then the client, would not have it.
    fn resumes(&self, client: &ClientConfig) -> Result<bool, (&'static str, Cause)> {
        let mut client = Session::client(client, "localhost").unwrap();
        let mut server = Session::server(&self.server);
        loop {
            let mut there = client.take_transmit();
            let verdict = server.handle_ciphertext(&mut there, &mut Vec::new());
            let mut back = server.take_transmit();
            let heard = client.handle_ciphertext(&mut back, &mut Vec::new());
            if let Err(error) = verdict {
                assert!(!server.is_open() && !server.is_handshaking() && server.peer_subject().is_none());
                return Err((error.reason(), heard.expect_err("it is told").cause()));
            }
            heard.unwrap();
            if there.is_empty() && back.is_empty() {
                assert_eq!(client.is_resumed(), server.is_resumed());
                return Ok(server.is_resumed().unwrap());
            }
        }
    }
}

fn alert(alert: AlertDescription) -> Cause {
    Cause::Alert(u8::from(alert))
}

#[test]
fn rfc8446_4_6_1_no_session_is_resumed_beyond_the_end_of_its_certificate() {
    let expired = Err(("the peer's certificate has expired", alert(AlertDescription::CertificateExpired)));
    for clients in [Clients::SignedBy, Clients::SignedByOrNone] {
        for version in VERSIONS {
            let world = World::new(clients);
            let client = world.usual(version);
            assert_eq!(world.resumes(&client), Ok(false));
            // Each time by the ticket of the time before.
            for seconds in [END - DAY + 1, END - DAY / 2, END - 1, END] {
                world.clock.set(seconds);
                assert_eq!(world.resumes(&client), Ok(true), "{} s before", END - seconds);
            }
            world.clock.set(END + 1);
            assert_eq!(world.resumes(&client), expired);
            // As it would be without a ticket.
            let fresh = World { resumption: Resumption::disabled(), ..world };
            assert_eq!(fresh.resumes(&fresh.usual(version)), expired);
        }
    }
}

#[test]
fn a_certificate_that_is_not_valid_yet_resumes_nothing() {
    for version in VERSIONS {
        let world = World::new(Clients::SignedBy);
        let client = world.usual(version);
        assert_eq!(world.resumes(&client), Ok(false));
        // The clock was wrong: the ticket is of the future, and so the certificate is asked for again.
        world.clock.set(END - 365 * DAY - 1);
        let early =
            Err(("the peer's certificate is not valid yet", alert(AlertDescription::CertificateExpired)));
        assert_eq!(world.resumes(&client), early);
    }
}

#[test]
fn who_has_shown_no_certificate_resumes_for_twelve_hours() {
    for version in VERSIONS {
        let world = World::new(Clients::SignedByOrNone);
        let client = world.client((*provider()).clone(), version, false);
        assert_eq!(world.resumes(&client), Ok(false));
        world.clock.set(END - DAY / 2);
        assert_eq!(world.resumes(&client), Ok(true));
        world.clock.set(END + 1);
        assert_eq!(world.resumes(&client), Ok(false), "twelve hours and a second later");
    }
}

/// A group that the server does not know: it asks for another hello.
#[derive(Debug)]
struct Unknown(&'static dyn SupportedKxGroup);

struct UnknownShare(Box<dyn ActiveKeyExchange>);

impl SupportedKxGroup for Unknown {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        Ok(Box::new(UnknownShare(self.0.start()?)))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

impl ActiveKeyExchange for UnknownShare {
    fn complete(self: Box<Self>, peer_pub_key: &[u8]) -> Result<SharedSecret, rustls::Error> {
        self.0.complete(peer_pub_key)
    }

    fn pub_key(&self) -> &[u8] {
        self.0.pub_key()
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

#[test]
fn rfc8446_4_1_4_a_hello_that_is_asked_for_again_does_not_get_an_expired_certificate_in() {
    static UNKNOWN: Unknown = Unknown(kx_group::SECP384R1);
    let memory = Arc::new(ClientSessionMemoryCache::new(8));
    let world = World { resumption: Resumption::store(memory.clone()), ..World::new(Clients::SignedBy) };
    let kx_groups = vec![&UNKNOWN as &dyn SupportedKxGroup, kx_group::SECP256R1];
    let client = world.client(CryptoProvider { kx_groups, ..(*provider()).clone() }, &TLS13, true);
    world.clock.set(END);
    assert_eq!(world.resumes(&client), Ok(false));
    world.clock.set(END + 1);
    // Which group the server wanted is forgotten.
    memory.set_kx_hint("localhost".try_into().unwrap(), NamedGroup::secp521r1);
    let mut client = Session::client(&client, "localhost").unwrap();
    let mut server = Session::server(&world.server);
    let carry = |from: &mut Session, to: &mut Session| {
        to.handle_ciphertext(&mut from.take_transmit(), &mut Vec::new())
    };
    carry(&mut client, &mut server).unwrap();
    assert_eq!(server.is_resumed(), Some(false), "it is not known yet");
    carry(&mut server, &mut client).unwrap();
    let error = carry(&mut client, &mut server).unwrap_err();
    assert_eq!((server.is_resumed(), error.reason()), (Some(true), "the peer's certificate has expired"));
    let error = carry(&mut server, &mut client).unwrap_err();
    assert_eq!(error.cause(), alert(AlertDescription::CertificateExpired));
}
