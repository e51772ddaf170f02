//! Keys of tokens that are fetched from a URL: before they are there, when they change, and when they cannot be had.

mod harness;

use std::{
    net::TcpListener,
    sync::{Arc, Mutex, mpsc::sync_channel},
    time::Instant,
};

use serde_json::{Value, json};

use crate::harness::{
    BACKENDS,
    certificates::Authority,
    client::{Client, Response, request},
    eventually,
    frame::BINARY,
    gateway::Gateway,
    tokens::Signer,
    unix_seconds,
    web::{Reply, Web, secure_web},
};

/// One route for each identity, and one for everybody; an identity is its name and its lines.
fn config(identities: &[(&str, String)]) -> String {
    let own = identities.iter().map(|(name, keys)| {
        format!(
            "[[identity]]\nname = {name:?}\nalgorithms = [\"ES256\"]\nleeway = \"0s\"\n{keys}\n[[route]]\npath = \"/{name}\"\n\
             identity = {name:?}\necho = {{}}\n"
        )
    });
    format!(
        "version = 1\n[[listener]]\nbind = \"127.0.0.1:0\"\n[[route]]\npath = \"/free\"\necho = {{}}\n{}",
        own.collect::<String>()
    )
}

fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn token(signer: &Signer, name: &str) -> String {
    signer.token("ES256", Some(name), &json!({ "sub": "ada", "exp": unix_seconds() + 600 }))
}

fn ask(gateway: &Gateway, path: &str, token: &str) -> Response {
    let mut client = Client::connect(gateway.address());
    client.send(&request(path, &format!("Authorization: Bearer {token}\r\n")));
    client.response().expect("an answer")
}

/// Waits until a token is answered so.
fn until(gateway: &Gateway, path: &str, token: &str, status: u16) {
    eventually("another status", || (ask(gateway, path, token).status == status).then_some(()));
}

/// A server whose key set can be changed.
fn keys(first: String) -> (Web, Arc<Mutex<Reply>>) {
    let reply = Arc::new(Mutex::new(Reply::Status(200, first)));
    let given = Arc::clone(&reply);
    (Web::start(move |_| given.lock().expect("a lock").clone()), reply)
}

fn nothing_of(gateway: Gateway, token: &str) {
    let log = gateway.stop();
    let (_, signature) = token.rsplit_once('.').expect("three parts");
    assert!(log.iter().all(|line| !line.contains(signature)), "a token is in the log");
}

#[test]
fn before_the_first_keys_nobody_is_believed_and_the_rest_goes_on() {
    for io in BACKENDS {
        let signer = Signer::p256();
        let (release, released) = sync_channel::<()>(0);
        let (released, body) = (Mutex::new(released), set(&[signer.jwk("one")]));
        let web = Web::start(move |_| {
            // The test has ended where nobody releases it.
            let _ = released.lock().expect("a lock").recv();
            Reply::Status(200, body.clone())
        });
        let lines = format!("jwks_url = {:?}\njwks_timeout = \"1m\"", web.url("/keys"));
        let gateway = Gateway::start_with(
            &config(&[("a", lines)]),
            &["--io", io, "--shards", "2", "--log-level", "trace"],
        );
        let token = token(&signer, "one");
        let refused = ask(&gateway, "/a", &token);
        assert_eq!((refused.status, refused.field("retry-after")), (503, Some("2")), "{refused:?}");
        Client::open(gateway.address(), "/free").exchange(BINARY, b"goes on");
        // Who shows none is told so, whatever the keys are.
        let mut nobody = Client::connect(gateway.address());
        nobody.send(&request("/a", ""));
        assert_eq!(nobody.response().expect("an answer").status, 401);
        release.send(()).expect("it waits");
        until(&gateway, "/a", &token, 101);
        gateway
            .wait_for_log("the keys", |line| line.contains("key set fetched") && line.contains("\"keys\":1"));
        let asked = web.asked();
        assert!(asked[0].head.starts_with("GET /keys HTTP/1.1\r\n"), "{}", asked[0].head);
        nothing_of(gateway, &token);
    }
}

#[test]
fn keys_change_under_open_sessions_and_what_is_wrong_changes_nothing() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let (web, reply) = keys(set(&[old.jwk("old")]));
    let put = |next: Reply| {
        *reply.lock().expect("a lock") = next;
        let before = web.asked().len();
        eventually("two fetches", || (web.asked().len() > before + 1).then_some(()));
    };
    let lines =
        format!("jwks_url = {:?}\njwks_interval = \"1s\"\njwks_timeout = \"300ms\"", web.url("/keys"));
    let gateway = Gateway::start(&config(&[("a", lines)]), "epoll");
    let (old, new) = (token(&old, "old"), (token(&new, "new"), new));
    until(&gateway, "/a", &old, 101);
    let (mut session, _) =
        Client::open_with(gateway.address(), "/a", &format!("Authorization: Bearer {old}\r\n"));
    let same = reply.lock().expect("a lock").clone();
    put(same);
    let told = gateway.log().iter().filter(|line| line.contains("key set fetched")).count();
    assert_eq!(told, 1, "the same again is no news");
    for wrong in [
        Reply::Status(500, String::new()),
        Reply::Status(200, "{\"keys\":[]}".to_owned()),
        Reply::Status(302, String::new()),
        Reply::Silence,
    ] {
        put(wrong.clone());
        assert_eq!(ask(&gateway, "/a", &old).status, 101, "{wrong:?}");
        assert_eq!(ask(&gateway, "/a", &new.0).status, 401, "{wrong:?}");
    }
    assert!(web.asked().iter().all(|asked| asked.target() == "/keys"), "no redirect is followed");
    let told: Vec<String> =
        gateway.log().into_iter().filter(|line| line.contains("cannot be fetched")).collect();
    assert_eq!(told.len(), 1, "told once a minute: {told:#?}");
    assert!(told[0].contains("500") && told[0].contains("\"kept\":1"), "{told:?}");
    put(Reply::Status(200, set(&[new.1.jwk("new")])));
    until(&gateway, "/a", &new.0, 101);
    assert_eq!(ask(&gateway, "/a", &old).status, 401);
    session.exchange(BINARY, b"its key is gone, and it goes on");
    nothing_of(gateway, &old);
}

#[test]
fn a_key_that_is_not_known_is_looked_for_and_a_storm_of_them_is_not() {
    let (one, two) = (Signer::p256(), Signer::p256());
    let (web, reply) = keys(set(&[one.jwk("one")]));
    let begun = Instant::now();
    let lines = format!("jwks_url = {:?}\njwks_interval = \"24h\"", web.url("/keys"));
    let gateway = Gateway::start(&config(&[("a", lines)]), "epoll");
    until(&gateway, "/a", &token(&one, "one"), 101);
    *reply.lock().expect("a lock") = Reply::Status(200, set(&[one.jwk("one"), two.jwk("two")]));
    for number in 0..50 {
        assert_eq!(ask(&gateway, "/a", &token(&two, &format!("odd-{number}"))).status, 401);
    }
    until(&gateway, "/a", &token(&two, "two"), 101);
    gateway.wait_for_log("that they are others", |line| {
        line.contains("key set fetched") && line.contains("\"keys\":2")
    });
    // One in ten seconds, and the first was at the start.
    let most = 2 + begun.elapsed().as_secs() as usize / 10;
    assert!((2..=most).contains(&web.asked().len()), "{} fetches", web.asked().len());
    gateway.stop();
}

#[test]
fn what_is_wrong_with_a_key_set_is_named_precisely() {
    let signer = Signer::p256();
    let body = set(&[signer.jwk("one")]);
    let web = Web::start(move |asked| match asked.target() {
        "/status" => Reply::Status(404, String::new()),
        "/redirect" => Reply::Status(301, String::new()),
        "/text" => Reply::Status(200, "<html>".to_owned()),
        "/none" => {
            Reply::Status(200, "{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2VjcmV0LWluLWEtc2V0\"}]}".to_owned())
        }
        "/long" => Reply::Status(200, " ".repeat((1 << 20) + 1)),
        "/nonsense" => Reply::Raw(b"SSH-2.0-OpenSSH\r\n".to_vec()),
        "/silent" => Reply::Silence,
        _ => Reply::Status(200, body.clone()),
    });
    let down = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let authority = Authority::new();
    let sealed = secure_web(&authority.issue("keys", &["localhost"]), set(&[signer.jwk("one")]));
    let url = |path: &str| format!("jwks_url = {:?}\njwks_timeout = \"2s\"", web.url(path));
    let cases = [
        ("status", url("/status"), "the answer is 404"),
        ("redirect", url("/redirect"), "redirects are not followed"),
        ("text", url("/text"), "it is not JSON: line 1, column 1"),
        ("none", url("/none"), "none of its keys is for any of the algorithms"),
        ("long", url("/long"), "longer than 1048576 bytes"),
        ("nonsense", url("/nonsense"), "invalid HTTP version parsed"),
        ("silent", url("/silent"), "no answer within 2s"),
        ("down", format!("jwks_url = \"http://{down}/\""), "Connection refused"),
        ("sealed", format!("jwks_url = \"https://localhost:{sealed}/\""), "invalid peer certificate"),
    ];
    let mut identities: Vec<(&str, String)> =
        cases.iter().map(|(name, lines, _)| (*name, lines.clone())).collect();
    identities.push(("good", url("/good")));
    let gateway = Gateway::start(&config(&identities), "epoll");
    for (name, _, told) in &cases {
        let named = format!("\"identity\":\"{name}\"");
        let line =
            gateway.wait_for_log(told, |line| line.contains(&named) && line.contains("cannot be fetched"));
        assert!(line.contains(told) && line.contains("WARN"), "{name}: {line}");
    }
    let token = token(&signer, "one");
    until(&gateway, "/good", &token, 101);
    for (name, ..) in &cases {
        assert_eq!(ask(&gateway, &format!("/{name}"), &token).status, 503, "{name}");
    }
    let log = gateway.stop();
    assert!(log.iter().all(|line| !line.contains("c2VjcmV0")), "a secret is in the log");
}

#[test]
fn keys_come_by_tls_from_whom_the_system_trusts() {
    let (signer, authority) = (Signer::p256(), Authority::new());
    let issued = authority.issue("keys", &["localhost"]);
    let port = secure_web(&issued, set(&[signer.jwk("one")]));
    let lines = format!("jwks_url = \"https://localhost:{port}/\"");
    let trusted = authority.ca();
    let gateway = Gateway::start_in(
        &config(&[("a", lines)]),
        &["--io", "epoll", "--shards", "1"],
        &[("SSL_CERT_FILE", trusted.as_os_str())],
    );
    until(&gateway, "/a", &token(&signer, "one"), 101);
    gateway.stop();
}

#[test]
fn keys_outlive_a_reload_that_leaves_their_url_alone() {
    let signer = Signer::p256();
    let (web, reply) = keys(set(&[signer.jwk("one")]));
    let (other, _) = keys(set(&[signer.jwk("two")]));
    let lines = |web: &Web, more: &str| format!("jwks_url = {:?}\n{more}", web.url("/keys"));
    let gateway = Gateway::start(&config(&[("a", lines(&web, ""))]), "epoll");
    let (one, two) = (token(&signer, "one"), token(&signer, "two"));
    until(&gateway, "/a", &one, 101);
    let (mut session, _) =
        Client::open_with(gateway.address(), "/a", &format!("Authorization: Bearer {one}\r\n"));
    *reply.lock().expect("a lock") = Reply::Silence;
    gateway.reload(&config(&[("a", lines(&web, "jwks_interval = \"20m\"")), ("b", lines(&web, ""))]));
    for path in ["/a", "/b"] {
        assert_eq!(ask(&gateway, path, &one).status, 101, "{path}");
    }
    gateway.reload(&config(&[("a", lines(&other, ""))]));
    until(&gateway, "/a", &two, 101);
    assert_eq!(ask(&gateway, "/a", &one).status, 401);
    session.exchange(BINARY, b"its route goes on");
    gateway.stop();
}

/// Who withdraws a key has it withdrawn on every route, also behind a reload that changes nothing.
#[test]
fn identities_with_one_url_have_its_keys_on_all_their_routes_behind_a_reload() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let (web, reply) = keys(set(&[old.jwk("old")]));
    let lines = format!("jwks_url = {:?}\njwks_interval = \"1s\"", web.url("/keys"));
    let config = config(&[("a", lines.clone()), ("b", lines)]);
    let gateway = Gateway::start(&config, "epoll");
    let (old, new) = (token(&old, "old"), (token(&new, "new"), new));
    for path in ["/a", "/b"] {
        until(&gateway, path, &old, 101);
    }
    gateway.reload(&config);
    *reply.lock().expect("a lock") = Reply::Status(200, set(&[new.1.jwk("new")]));
    for path in ["/a", "/b"] {
        until(&gateway, path, &old, 401);
        assert_eq!(ask(&gateway, path, &new.0).status, 101, "{path}");
    }
    gateway.stop();
}
