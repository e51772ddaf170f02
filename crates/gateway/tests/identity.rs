//! Who may come: tokens at the handshake, wherever they stand, what upstreams and topics learn of them, and the end of
//! sessions whose tokens have expired. Over real sockets, on both backends.

mod harness;

use std::sync::mpsc::Receiver;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    BACKENDS,
    client::{Client, End, Received, Response, request},
    frame::{BINARY, CLOSE, FIN, TEXT, close, masked},
    gateway::{Gateway, config_file, run_to_end},
    request::{ask, body, get, post},
    tokens::Signer,
    unix_seconds,
    upstream::{Upstream, field},
    web::{Reply, Web},
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Where `UPSTREAM` and `FOLDER` stand, there are an upstream's address and a folder with `jwks.json`.
const CONFIG: &str = r#"
version = 1
[limits]
# Longer than the second within which each session ends at a time of its own behind its token's end.
close_timeout = "5s"
[[listener]]
bind = "127.0.0.1:0"
[[topic]]
name = "chat/**"
history = 10
presence = true
[[identity]]
name = "users"
jwks_file = "FOLDER/jwks.json"
algorithms = ["ES256"]
leeway = "0s"
token = ["authorization", "cookie:session", "query:access_token", "subprotocol:token."]
headers = { X-User = "sub", X-Plan = "plan" }
permissions = { subscribe = "topics.read", publish = "topics.write", presence = "topics.see" }
[[identity]]
name = "devices"
secret = "SECRET"
algorithms = ["HS256"]
leeway = "0s"
expired_code = 4001
forward_token = true
token = ["query:t", "subprotocol:t."]
[[route]]
path = "/echo"
identity = "users"
echo = {}
[[route]]
path = "/listed"
identity = "users"
origins = ["https://page.example"]
subprotocols = ["v1"]
echo = {}
[[route]]
path = "/up"
identity = "users"
proxy = { upstreams = ["UPSTREAM"] }
[[route]]
path = "/forwarded"
identity = "devices"
proxy = { upstreams = ["UPSTREAM"] }
[[route]]
path = "/topics/*"
identity = "users"
topics = { subscribe = ["chat/*", "news"], publish = ["chat/*", "news"], presence = ["chat/*"] }
[[route]]
path = "/events"
identity = "users"
origins = ["https://page.example"]
events = { subscribe = ["chat/*", "news"] }
[[route]]
path = "/poll"
identity = "users"
poll = { subscribe = ["chat/*", "news"] }
[[route]]
path = "/publish/*"
identity = "users"
publish = { publish = ["chat/*", "news"] }
"#;

/// A gateway whose upstream answers with a correct 101, echoes, and tells the heads that it has seen.
struct Scene {
    gateway: Gateway,
    upstream: Upstream,
    heads: Receiver<String>,
    users: Signer,
    _folder: TempDir,
}

impl Scene {
    fn start(io: &str) -> Scene {
        let folder = tempfile::tempdir().expect("a folder");
        let users = Signer::p256();
        let keys = json!({ "keys": [users.jwk("2026"), Signer::p256().jwk("2025")] });
        std::fs::write(folder.path().join("jwks.json"), keys.to_string()).expect("a file");
        let (upstream, heads) = Upstream::telling();
        let config = CONFIG
            .replace("FOLDER", folder.path().to_str().expect("a path"))
            .replace("UPSTREAM", &upstream.url())
            .replace("SECRET", SECRET);
        let gateway = Gateway::start_with(&config, &["--io", io, "--shards", "1", "--log-level", "trace"]);
        Scene { gateway, upstream, heads, users, _folder: folder }
    }

    /// A token of the users' issuer.
    fn token(&self, claims: &Value) -> String {
        self.users.token("ES256", Some("2026"), claims)
    }

    /// One that is valid for a minute.
    fn valid(&self) -> String {
        self.token(&ada())
    }

    /// Opens a session with a token in `Authorization`.
    fn open(&self, path: &str, token: &str) -> Client {
        Client::open_with(self.gateway.address(), path, &bearer(token)).0
    }

    /// What a request for an upgrade is answered with, where it is not let in.
    fn refused(&self, path: &str, fields: &str) -> Response {
        self.asked(&request(path, fields))
    }

    fn asked(&self, request: &[u8]) -> Response {
        ask(&self.gateway, request)
    }

    /// Nothing of a token is in the log; all of them begin alike.
    fn stop(self) {
        assert_eq!(self.upstream.failures(), [""; 0]);
        let log = self.gateway.stop();
        let told = log.iter().find(|line| line.contains("eyJ") || line.contains(SECRET));
        assert_eq!(told, None, "a token, or a part of one");
        assert!(log.iter().any(|line| line.contains("\"DEBUG\"")), "the log is as long as it can be");
    }
}

fn everywhere(test: impl Fn(&Scene)) {
    for io in BACKENDS {
        let scene = Scene::start(io);
        test(&scene);
        scene.stop();
    }
}

fn ada() -> Value {
    json!({
        "sub": "ada", "exp": unix_seconds() + 60, "plan": 3,
        "topics": { "read": ["chat/**"], "write": ["chat/lobby"], "see": ["chat/lobby"] },
    })
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[test]
fn a_token_lets_in_from_each_place_where_it_may_stand() {
    everywhere(|scene| {
        let (address, token) = (scene.gateway.address(), scene.valid());
        for (path, fields) in [
            ("/echo".to_owned(), bearer(&token)),
            ("/echo".to_owned(), format!("Cookie: a=b; session={token}\r\n")),
            (format!("/echo?a=b&access_token={token}"), String::new()),
            (format!("/echo?access%5ftoken={}", token.replace('.', "%2e")), String::new()),
        ] {
            let (mut client, response) = Client::open_with(address, &path, &fields);
            assert_eq!(response.field("sec-websocket-protocol"), None);
            client.exchange(BINARY, b"hello");
            client.close(1000);
        }
        // A token in the list is chosen by nobody.
        for (path, chosen) in [("/echo", None), ("/listed", Some("v1"))] {
            let fields = format!("Sec-WebSocket-Protocol: v1, token.{token}\r\n");
            let (mut client, response) = Client::open_with(address, path, &fields);
            assert_eq!(response.field("sec-websocket-protocol"), chosen);
            client.exchange(TEXT, b"hello");
        }
        let fields = format!("Sec-WebSocket-Protocol: tidegate.v1, token.{token}\r\n");
        let (_, response) = Client::open_with(address, "/topics", &fields);
        assert_eq!(response.field("sec-websocket-protocol"), Some("tidegate.v1"));
    });
}

#[test]
fn without_a_valid_token_nobody_is_let_in_and_no_upstream_asked() {
    everywhere(|scene| {
        let expired = scene.token(&json!({ "sub": "ada", "exp": unix_seconds() - 1 }));
        let early = scene.token(&json!({ "exp": unix_seconds() + 60, "nbf": unix_seconds() + 50 }));
        let unsigned = scene.valid().rsplit_once('.').map(|(signed, _)| format!("{signed}.")).expect("a dot");
        let confused = Signer::secret(SECRET).token("HS256", Some("2026"), &ada());
        let other = Signer::p256().token("ES256", Some("2026"), &ada());
        let retired = scene.users.token("ES256", Some("2025"), &ada());
        let long = scene.token(&json!({ "exp": unix_seconds() + 60, "pad": "x".repeat(7_000) }));
        let bad = [&expired, &early, &unsigned, &confused, &other, &retired, &long, "x", "a.b.c", "\"\""];
        for path in ["/echo", "/up", "/topics", "/topics/chat/lobby"] {
            for fields in
                [String::new(), "Authorization: Basic YTpi\r\n".to_owned(), "Cookie: session=\r\n".to_owned()]
            {
                let response = scene.refused(path, &fields);
                assert_eq!(
                    (response.status, response.field("www-authenticate")),
                    (401, Some("Bearer")),
                    "{path} {fields}"
                );
            }
            for token in bad {
                let response = scene.refused(path, &bearer(token));
                let challenge = response.field("www-authenticate");
                assert_eq!(
                    (response.status, challenge),
                    (401, Some("Bearer error=\"invalid_token\"")),
                    "{path} {token}"
                );
                let told = String::from_utf8_lossy(&response.body).into_owned();
                assert!(!told.contains("expired") && !told.contains("signature"), "{told}");
            }
        }
        for fields in [
            format!("{}{}", bearer(&scene.valid()), bearer(&expired)),
            format!("Cookie: session={}; session=x\r\n", scene.valid()),
        ] {
            assert_eq!(scene.refused("/up", &fields).status, 401);
        }
        for query in ["%0d%0a", "x%0d%0aX-User:%20root", &"x".repeat(7_500)] {
            let response = scene.refused(&format!("/up?access_token={query}"), "");
            assert_eq!(response.status, 401);
            assert!(response.field("x-user").is_none());
        }
        scene.gateway.wait_for_log("why a token is refused", |line| line.contains("the token has expired"));
        assert!(scene.heads.try_recv().is_err(), "an upstream was asked");
    });
}

#[test]
fn an_upstream_gets_what_the_token_says_and_not_the_token() {
    everywhere(|scene| {
        let token = scene.valid();
        let address = scene.gateway.address();
        let spoofed = "X-User: root\r\nx_user: root\r\nX-PLAN: 9\r\nX-Other: 1\r\n";
        let next = || scene.heads.recv_timeout(harness::PATIENCE).expect("the upstream is asked");
        let fields = format!("{spoofed}Sec-WebSocket-Protocol: v1, token.{token}\r\nCookie: a=b\r\n");
        let (mut client, _) = Client::open_with(address, "/up?a=b&access_token=&c=d", &fields);
        client.exchange(BINARY, b"through");
        let head = next();
        assert!(head.starts_with("GET /up?a=b&c=d HTTP/1.1\r\n"), "{head}");
        assert!(!head.contains("eyJ") && !head.contains("root"), "{head}");
        assert_eq!((field(&head, "x-user"), field(&head, "x-plan")), (Some("ada"), Some("3")));
        assert_eq!(field(&head, "sec-websocket-protocol"), Some("v1"));
        assert_eq!((field(&head, "x-other"), field(&head, "cookie")), (Some("1"), Some("a=b")));
        // A claim that is not there leaves no field, and the client's own does not stand in for it.
        let bare = scene.token(&json!({ "exp": unix_seconds() + 60 }));
        let (_client, _) = Client::open_with(address, "/up", &format!("{spoofed}{}", bearer(&bare)));
        let head = next();
        assert_eq!((field(&head, "x-user"), field(&head, "x-plan")), (None, None), "{head}");
        assert!(
            field(&head, "authorization").is_some_and(|value| value.starts_with("Bearer ")),
            "as other fields"
        );

        // Where the configuration wants it.
        let device = Signer::secret(SECRET).token("HS256", None, &ada());
        let fields = format!("{spoofed}Sec-WebSocket-Protocol: t.{device}, v1\r\n");
        let (_client, _) = Client::open_with(address, &format!("/forwarded?t={device}"), &fields);
        let head = next();
        assert!(head.starts_with(&format!("GET /forwarded?t={device} HTTP/1.1\r\n")));
        assert_eq!(field(&head, "sec-websocket-protocol"), Some(&*format!("t.{device}, v1")));
        assert_eq!(field(&head, "x-user"), Some("root"), "no claim is mapped there");
    });
}

#[test]
fn pages_of_other_origins_are_refused_unless_they_are_listed() {
    everywhere(|scene| {
        let token = scene.valid();
        let status = |path: &str, origin: &str| {
            let fields =
                format!("Origin: {origin}\r\nCookie: session={token}\r\nSec-WebSocket-Protocol: v1\r\n");
            scene.refused(path, &fields).status
        };
        // The host of these requests is gw.test.
        for (path, origin, expected) in [
            ("/echo", "http://gw.test", 101),
            ("/echo", "https://gw.test", 403),
            ("/echo", "http://evil.test", 403),
            ("/echo", "null", 403),
            ("/listed", "https://page.example", 101),
            ("/listed", "http://gw.test", 101),
            ("/listed", "http://evil.test", 403),
            ("/up", "http://evil.test", 403),
            ("/topics", "http://evil.test", 403),
        ] {
            assert_eq!(status(path, origin), expected, "{path} from {origin}");
        }
        // Who has no origin is no browser.
        scene.open("/echo", &token).close(1000);
        assert!(scene.heads.try_recv().is_err(), "an upstream was asked");
    });
}

/// Says something over the protocol of topics; gives the next answer.
fn says(client: &mut Client, message: &Value) -> Value {
    client.send(&masked(FIN | TEXT, message.to_string().as_bytes()));
    serde_json::from_slice(&client.message(TEXT)).expect("JSON")
}

fn on_topics(scene: &Scene, token: &str) -> Client {
    let mut client = scene.open("/topics", token);
    let hello: Value = serde_json::from_slice(&client.message(TEXT)).expect("JSON");
    assert_eq!(hello["op"], "hello");
    client
}

#[test]
fn a_token_narrows_what_may_be_done_with_topics() {
    everywhere(|scene| {
        let mut client = on_topics(scene, &scene.valid());
        for (op, topic, expected) in [
            ("subscribe", "chat/lobby", "subscribed"),
            ("subscribe", "chat/*", "subscribed"),
            // The token's alone, the route's alone.
            ("subscribe", "chat/a/b", "error"),
            ("subscribe", "news", "error"),
            ("subscribe", "**", "error"),
            ("publish", "chat/other", "error"),
            ("publish", "news", "error"),
            ("presence", "chat/lobby", "presence"),
            ("presence", "chat/other", "error"),
            ("history", "chat/other", "history"),
            ("history", "news", "error"),
        ] {
            let answer = says(&mut client, &json!({ "op": op, "topic": topic, "id": 1, "data": 1 }));
            assert_eq!(answer["op"], expected, "{op} {topic}: {answer}");
            assert!(expected != "error" || answer["code"] == "not_allowed", "{answer}");
        }
        // Without its claims a token allows nothing.
        let mut nobody = on_topics(scene, &scene.token(&json!({ "exp": unix_seconds() + 60 })));
        let answer = says(&mut nobody, &json!({ "op": "subscribe", "topic": "chat/lobby", "id": 1 }));
        assert_eq!(answer["code"], "not_allowed");

        // Raw topics.
        assert_eq!(scene.refused("/topics/news", &bearer(&scene.valid())).status, 403);
        let mut raw = scene.open("/topics/chat/lobby", &scene.valid());
        raw.send(&masked(FIN | TEXT, b"raw"));
        assert_eq!(raw.message(TEXT), b"raw");
        let mut reader = scene.open("/topics/chat/other", &scene.valid());
        reader.send(&masked(FIN | TEXT, b"not allowed"));
        assert_eq!((reader.frame().opcode, reader.next()), (CLOSE, Received::End(End::Fin)));

        // Over HTTP.
        let token = bearer(&scene.valid());
        let status = |request: Vec<u8>| scene.asked(&request).status;
        let post = |path: &str, fields: &str| post(path, fields, b"1");
        for (path, with, without) in [
            ("/poll?topic=chat/lobby&wait=0", 200, 401),
            ("/poll?topic=news&wait=0", 403, 401),
            ("/events?topic=chat/lobby", 200, 401),
            ("/events?topic=news", 403, 401),
            ("/topics/chat/lobby", 200, 401),
            ("/topics/news", 403, 401),
        ] {
            assert_eq!((status(get(path, &token)), status(get(path, ""))), (with, without), "{path}");
        }
        // Wherever a token may stand; what a query has besides is not disturbed by it.
        let valid = scene.valid();
        for (path, fields) in [
            (format!("/poll?topic=chat/lobby&access_token={valid}&wait=0"), String::new()),
            (format!("/events?access_token={valid}&topic=chat/lobby"), String::new()),
            ("/poll?topic=chat/lobby&wait=0".to_owned(), format!("Cookie: session={valid}\r\n")),
            ("/topics/chat/lobby".to_owned(), format!("Cookie: session={valid}\r\n")),
        ] {
            assert_eq!(status(get(&path, &fields)), 200, "{path}");
        }
        for (path, with, without) in [
            ("/publish/chat/lobby", 200, 401),
            ("/publish/chat/other", 403, 401),
            ("/publish/news", 403, 401),
        ] {
            assert_eq!((status(post(path, &token)), status(post(path, ""))), (with, without), "{path}");
        }
    });
}

#[test]
fn http_is_refused_as_json_that_allowed_pages_can_read() {
    everywhere(|scene| {
        let from = "Origin: https://page.example\r\n";
        let response = scene.asked(&get("/events?topic=chat/lobby", from));
        assert_eq!((response.status, &body(&response)["error"]["code"]), (401, &json!("not_allowed")));
        assert_eq!(response.field("access-control-allow-origin"), Some("https://page.example"));
        assert_eq!(response.field("www-authenticate"), Some("Bearer"));
        // What a browser asks before it shows a token.
        let preflight = format!("OPTIONS /events HTTP/1.1\r\nHost: gw.test\r\n{from}\r\n");
        let response = scene.asked(preflight.as_bytes());
        assert_eq!(response.status, 200);
        assert!(
            response
                .field("access-control-allow-headers")
                .is_some_and(|names| names.contains("Authorization"))
        );
        let evil = scene.asked(&get("/poll?topic=chat/lobby", "Origin: https://page.example\r\n"));
        assert_eq!(evil.status, 403, "nothing is listed there");
    });
}

/// A connection that is kept belongs to nobody: each request shows its own token.
#[test]
fn each_request_of_a_connection_shows_its_own_token() {
    everywhere(|scene| {
        let mut client = Client::connect(scene.gateway.address());
        let path = "/poll?topic=chat/lobby&wait=0";
        client.send(&get(path, &bearer(&scene.valid())));
        assert_eq!(client.response().expect("an answer").status, 200);
        let nothing = scene.token(&json!({ "exp": unix_seconds() + 60 }));
        client.send(&get(path, &bearer(&nothing)));
        assert_eq!(client.response().expect("an answer").status, 403);
        client.send(&get(path, ""));
        assert_eq!(client.response().expect("an answer").status, 401);
    });
}

#[test]
fn what_is_wrong_with_keys_is_told_by_check_and_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, "{\"keys\": []}").expect("a file");
    let text = format!(
        "version = 1\n[[listener]]\nbind = \"127.0.0.1:0\"\n[[identity]]\nname = \"users\"\n\
         jwks_file = \"{}\"\nalgorithms = [\"ES256\"]\n[[route]]\npath = \"/echo\"\nidentity = \"users\"\necho = {{}}\n",
        path.display()
    );
    let file = config_file(&text);
    let name = file.path().to_str().expect("a path");
    let expected = format!("{name}:6:13: {}: none of its keys is for any of the algorithms", path.display());
    for command in ["check", "run"] {
        let (code, _, errors) = run_to_end(&[command, "-c", name]);
        assert_eq!(code, Some(78), "{errors}");
        assert!(errors.contains(&expected), "{command}: {errors}");
    }
    let mut other = Signer::p256().jwk("other");
    other["use"] = json!("enc");
    let keys = json!({ "keys": [Signer::p256().jwk("one"), other] });
    std::fs::write(&path, keys.to_string()).expect("a file");
    let (code, _, errors) = run_to_end(&["check", "-c", name]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("key 2 (\"other\") is passed over: its `use` is \"enc\""), "{errors}");
}

/// Waits for a session's Close with this code, and the end behind it.
fn assert_closed(mut client: Client, code: u16) {
    loop {
        let frame = client.frame();
        if frame.opcode == CLOSE {
            assert_eq!((frame.close_code(), frame.close_reason()), (code, &b"the token has expired"[..]));
            break;
        }
    }
    client.send(&close(code, b""));
    assert_eq!(client.next(), Received::End(End::Fin));
}

#[test]
fn what_is_open_ends_with_its_token() {
    everywhere(|scene| {
        let address = scene.gateway.address();
        let soon = |seconds: u64| {
            let mut claims = ada();
            claims["exp"] = json!(unix_seconds() + seconds);
            claims
        };
        let token = scene.token(&soon(3));
        let mut echo = scene.open("/echo", &token);
        let mut proxied = scene.open("/up", &token);
        let topics = on_topics(scene, &token);
        let raw = scene.open("/topics/chat/lobby", &token);
        let device = Signer::secret(SECRET).token("HS256", None, &soon(3));
        let (device, _) = Client::open_with(address, &format!("/forwarded?t={device}"), "");
        let mut lasting = scene.open("/echo", &scene.valid());
        let mut stream = Client::connect(address);
        stream.send(&get("/events?topic=chat/lobby", &bearer(&token)));
        assert_eq!(stream.response().expect("an answer").status, 200);
        assert!(!stream.chunk().is_empty(), "where it begins");
        let mut poll = Client::connect(address);
        let path = "/poll?topic=chat/lobby&position=-&wait=25";
        poll.send(&get(path, &bearer(&token)));
        echo.exchange(BINARY, b"before");
        proxied.exchange(BINARY, b"before");

        for client in [echo, proxied, topics, raw] {
            assert_closed(client, 4401);
        }
        assert_closed(device, 4001);
        while !stream.chunk().is_empty() {}
        assert_eq!(stream.next(), Received::End(End::Fin), "behind the last chunk");
        let answer = poll.response().expect("an answer");
        assert_eq!((answer.status, &body(&answer)["messages"]), (200, &json!([])));
        // Its connection is kept, and its token is not.
        poll.send(&get(path, &bearer(&token)));
        assert_eq!(poll.response().expect("an answer").status, 401);
        lasting.exchange(BINARY, b"behind");
        lasting.close(1000);
    });
}

#[test]
fn a_newer_token_brings_a_session_further_and_replaces_what_it_may() {
    everywhere(|scene| {
        let token = |seconds: u64, read: &[&str]| {
            let topics = json!({ "read": read, "write": ["chat/lobby"], "see": ["chat/lobby"] });
            scene.token(&json!({ "sub": "ada", "exp": unix_seconds() + seconds, "topics": topics }))
        };
        let mut client = scene.open("/topics", &token(3, &["chat/*"]));
        let hello: Value = serde_json::from_slice(&client.message(TEXT)).expect("JSON");
        assert!(hello["expires"].as_u64().is_some_and(|seconds| seconds <= 3), "{hello}");
        for topic in ["chat/lobby", "chat/other", "chat/*"] {
            let answer = says(&mut client, &json!({ "op": "subscribe", "topic": topic, "id": 1 }));
            assert_eq!(answer["op"], "subscribed");
        }
        let auth = |token: &str| json!({ "op": "auth", "id": "t", "token": token });
        for (token, code) in [
            ("x", "invalid_token"),
            (&*token(0, &[]), "invalid_token"),
            (&*scene.token(&json!({ "sub": "bob", "exp": unix_seconds() + 60 })), "invalid_token"),
            (&*Signer::secret(SECRET).token("HS256", None, &ada()), "invalid_token"),
        ] {
            let answer = says(&mut client, &auth(token));
            assert_eq!(
                (&answer["op"], &answer["id"], &answer["code"]),
                (&json!("error"), &json!("t"), &json!(code))
            );
        }
        assert_eq!(says(&mut client, &json!({ "op": "auth", "id": 1 }))["code"], "invalid_request");

        // The same again: nothing ends. Then less, and what is not allowed any more does.
        let answer = says(&mut client, &auth(&token(30, &["chat/*"])));
        assert_eq!((&answer["op"], &answer["id"]), (&json!("authenticated"), &json!("t")), "{answer}");
        assert!(answer["expires"].as_u64().is_some_and(|seconds| (20..=30).contains(&seconds)), "{answer}");
        let mut ended = vec![says(&mut client, &auth(&token(30, &["chat/lobby"])))];
        ended.extend((0..2).map(|_| serde_json::from_slice(&client.message(TEXT)).expect("JSON")));
        let told = ["chat/*", "chat/other"].map(|topic| json!({ "op": "unsubscribed", "topic": topic }));
        assert_eq!(ended[..2], told);
        assert_eq!(ended[2]["op"], "authenticated");
        let mut other = on_topics(scene, &scene.valid());
        other.send(&masked(FIN | TEXT, br#"{"op":"publish","topic":"chat/lobby","data":1}"#));
        let message: Value = serde_json::from_slice(&client.message(TEXT)).expect("JSON");
        assert_eq!((&message["op"], &message["topic"]), (&json!("message"), &json!("chat/lobby")));
        let answer = says(&mut client, &json!({ "op": "subscribe", "topic": "chat/other", "id": 1 }));
        assert_eq!(answer["code"], "not_allowed");
        // It is there behind the end of its first token, and ends with its last.
        let answer = says(&mut client, &auth(&token(4, &["chat/lobby"])));
        assert_eq!(answer["op"], "authenticated");
        std::thread::sleep(std::time::Duration::from_millis(3_100));
        assert_eq!(says(&mut client, &json!({ "op": "ping", "id": 7 })), json!({ "op": "pong", "id": 7 }));
        assert_closed(client, 4401);
    });
}

/// Where `UPSTREAM` and `HOOK` stand, there are an upstream's address and a hook's.
const DEMANDING: &str = r#"
[[identity]]
name = "users"
secret = "SECRET"
algorithms = ["HS256"]
leeway = "0s"
[[identity]]
name = "callers"
hook = { url = "HOOK" }
[[route]]
path = "/free"
identity = "users"
echo = {}
[[route]]
path = "/echo"
identity = "users"
claims = { "realm.roles" = ["admin", "ops"], plan = "gold" }
echo = {}
[[route]]
path = "/up"
identity = "users"
claims = { "realm.roles" = ["admin", "ops"], plan = "gold" }
proxy = { upstreams = ["UPSTREAM"] }
[[route]]
path = "/topics/*"
identity = "users"
claims = { "realm.roles" = ["admin", "ops"], plan = "gold" }
topics = { subscribe = ["a"], publish = ["a"] }
[[route]]
path = "/events"
identity = "users"
claims = { "realm.roles" = ["admin", "ops"], plan = "gold" }
events = { subscribe = ["a"] }
[[route]]
path = "/poll"
identity = "users"
claims = { "realm.roles" = ["admin", "ops"], plan = "gold" }
poll = { subscribe = ["a"] }
[[route]]
path = "/publish/*"
identity = "users"
claims = { "realm.roles" = ["admin", "ops"], plan = "gold" }
publish = { publish = ["a"] }
[[route]]
path = "/hook/echo"
identity = "callers"
claims = { role = "admin" }
echo = {}
[[route]]
path = "/hook/poll"
identity = "callers"
claims = { role = "admin" }
poll = { subscribe = ["a"] }
"#;

/// A gateway whose routes demand claims, with an upstream that tells what it was asked, and a hook that lets everybody in with the
/// role in their cookie.
struct Demanding {
    admin: harness::scene::Scene,
    heads: Receiver<String>,
    _upstream: Upstream,
    _hook: Web,
}

impl Demanding {
    fn start(io: &'static str) -> Demanding {
        let hook = Web::start(|asked| {
            let cookie = asked.json()["headers"]["cookie"][0].as_str().unwrap_or_default().to_owned();
            let role = cookie.strip_prefix("role=");
            Reply::Status(200, json!({ "sub": "ada", "role": role }).to_string())
        });
        let (upstream, heads) = Upstream::telling();
        let routes = DEMANDING
            .replace("SECRET", SECRET)
            .replace("HOOK", &hook.url("/"))
            .replace("UPSTREAM", &upstream.url());
        let settings = "[drain]\nwindow = '100ms'\n[log]\nlevel = 'trace'";
        let admin = harness::scene::Scene::on(io, 1, settings, &routes);
        Demanding { admin, heads, _upstream: upstream, _hook: hook }
    }

    fn status(&self, request: &[u8]) -> u16 {
        ask(&self.admin.gateway, request).status
    }

    /// Callers so far that lacked a claim, and tokens that were not valid.
    fn refused(&self) -> [f64; 2] {
        let metrics = self.admin.metrics();
        ["claims", "invalid"]
            .map(|reason| metrics.value(&format!("tidegate_tokens_refused_total{{reason=\"{reason}\"}}")))
    }

    /// Nothing of a token is in the log; all of them begin alike.
    fn stop(self) {
        let log = self.admin.gateway.stop();
        assert!(log.iter().any(|line| line.contains("lacks a claim")), "the log is as long as it can be");
        assert_eq!(log.iter().find(|line| line.contains("eyJ")), None, "a token, or a part of one");
    }
}

/// A token that is valid for so many seconds, of somebody with this role.
fn of_role(role: &str, seconds: u64) -> String {
    let claims = json!({
        "sub": "ada", "exp": unix_seconds() + seconds, "realm": { "roles": ["guest", role] }, "plan": "gold",
    });
    Signer::secret(SECRET).token("HS256", None, &claims)
}

const LACKING: Option<&str> = Some("Bearer error=\"insufficient_scope\"");

#[test]
fn a_route_takes_those_alone_who_have_the_claims_that_it_demands() {
    for io in BACKENDS {
        let scene = Demanding::start(io);
        let (admin, guest) = (bearer(&of_role("admin", 60)), bearer(&of_role("visitor", 60)));
        assert_eq!(scene.status(&request("/free", &guest)), 101, "it demands nothing");
        for path in ["/echo", "/up", "/topics", "/topics/a"] {
            let refused = ask(&scene.admin.gateway, &request(path, &guest));
            assert_eq!((refused.status, refused.field("www-authenticate")), (403, LACKING), "{io} {path}");
            let unknown = ask(&scene.admin.gateway, &request(path, ""));
            assert_eq!((unknown.status, unknown.field("www-authenticate")), (401, Some("Bearer")), "{path}");
        }
        assert!(scene.heads.try_recv().is_err(), "an upstream was asked");
        for path in ["/echo", "/up", "/topics", "/topics/a"] {
            assert_eq!(scene.status(&request(path, &admin)), 101, "{io} {path}");
        }
        let by_get = |path: &'static str| (path, get as fn(&str, &str) -> Vec<u8>);
        let publication = |path: &str, fields: &str| post(path, fields, b"1");
        for (path, request) in [
            by_get("/poll?topic=a&wait=0"),
            by_get("/events?topic=a"),
            by_get("/topics/a"),
            ("/publish/a", publication),
        ] {
            let refused = ask(&scene.admin.gateway, &request(path, &guest));
            let seen = (refused.status, refused.field("www-authenticate"), &body(&refused)["error"]["code"]);
            assert_eq!(seen, (403, LACKING, &json!("not_allowed")), "{io} {path}");
            assert_eq!(scene.status(&request(path, &admin)), 200, "{io} {path}");
        }
        assert_eq!(scene.refused(), [8.0, 0.0], "{io}");

        // Whom a hook knows.
        for (path, request) in
            [("/hook/echo", request as fn(&str, &str) -> Vec<u8>), by_get("/hook/poll?topic=a&wait=0")]
        {
            let taken = if path == "/hook/echo" { 101 } else { 200 };
            assert_eq!(scene.status(&request(path, "Cookie: role=admin\r\n")), taken, "{io} {path}");
            for fields in ["Cookie: role=guest\r\n", ""] {
                assert_eq!(scene.status(&request(path, fields)), 403, "{io} {path} {fields}");
            }
        }
        assert_eq!(scene.refused(), [12.0, 0.0], "{io}");
        let allowed = scene.admin.metrics().value("tidegate_hook_decisions_total{result=\"allowed\"}");
        assert_eq!(allowed, 6.0, "{io}: the hook has let all of them in");
        scene.stop();
    }
}

#[test]
fn a_newer_token_has_the_claims_that_the_route_demands_or_is_not_taken() {
    for io in BACKENDS {
        let scene = Demanding::start(io);
        let fields = bearer(&of_role("admin", 30));
        let mut client = Client::open_with(scene.admin.gateway.address(), "/topics", &fields).0;
        assert_eq!(client.message(TEXT).get(..13), Some(&br#"{"op":"hello""#[..]));
        let mut renew =
            |role: &str| says(&mut client, &json!({ "op": "auth", "id": 1, "token": of_role(role, 300) }));
        let refused = renew("visitor");
        assert_eq!(refused["code"], "invalid_token", "{io}: {refused}");
        assert!(refused["message"].as_str().is_some_and(|message| message.contains("claim")), "{refused}");
        assert_eq!(scene.refused(), [1.0, 0.0], "{io}");
        let taken = renew("ops");
        assert_eq!(taken["op"], "authenticated", "{io}: {taken}");
        assert_eq!(says(&mut client, &json!({ "op": "ping", "id": 7 })), json!({ "op": "pong", "id": 7 }));
        scene.stop();
    }
}

#[test]
fn sessions_stay_where_a_route_demands_less_and_go_where_it_demands_more() {
    for io in BACKENDS {
        let scene = Demanding::start(io);
        let (gateway, config) = (&scene.admin.gateway, scene.admin.config().to_owned());
        let fields = bearer(&of_role("admin", 60));
        let mut client = Client::open_with(gateway.address(), "/echo", &fields).0;
        gateway.reload(&config.replace("[\"admin\", \"ops\"]", "[\"admin\", \"ops\", \"visitor\"]"));
        client.exchange(BINARY, b"here");
        let visitor = bearer(&of_role("visitor", 60));
        let mut another = Client::open_with(gateway.address(), "/echo", &visitor).0;
        another.exchange(BINARY, b"now");
        gateway.reload(&config);
        for client in [&mut client, &mut another] {
            let frame = client.frame();
            assert_eq!((frame.opcode, frame.close_code()), (CLOSE, 1012), "{io}");
        }
        assert_eq!(scene.status(&request("/echo", &visitor)), 403, "{io}");
        Client::open_with(gateway.address(), "/echo", &fields).0.exchange(BINARY, b"again");
        scene.stop();
    }
}
