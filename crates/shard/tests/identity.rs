//! Tokens in a shard that a test plays by hand, in virtual time: when sessions end with theirs, and that a storm of them does
//! not hold others up.

// Shared with the gateway's tests.
#[allow(dead_code)]
#[path = "../../gateway/tests/harness/tokens.rs"]
mod tokens;

mod stage;

use serde_json::{Value, json};
use tidegate_shard::Plan;

use stage::{Socket, Stage, UNIX_SECONDS, close_frame, frame};
use tokens::Signer;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

const ECHO: &str = "echo = {}";
const PROXY: &str = "proxy = { upstreams = [\"ws://127.0.0.1:2\"] }";

/// A route at `/r` that takes whoever has a token, which is over 2 seconds behind its `exp`.
fn stage(route: &str) -> Stage {
    Stage::of(
        &format!(
            "[limits]\nclose_timeout = \"3s\"\nping_interval = \"0s\"\n[[identity]]\nname = \"a\"\nsecret = \"{SECRET}\"\n\
             algorithms = [\"HS256\"]\nleeway = \"2s\"\n[[route]]\npath = \"/r\"\nidentity = \"a\"\n{route}\n"
        ),
        1,
    )
}

/// The field with a token that expires in so many seconds.
fn bearer(seconds: u64) -> String {
    signed(&json!({ "sub": "ada", "exp": UNIX_SECONDS + seconds }))
}

fn signed(claims: &Value) -> String {
    format!("Authorization: Bearer {}\r\n", Signer::secret(SECRET).token("HS256", None, claims))
}

/// A client and its upstream, with that token.
fn pair(stage: &mut Stage, seconds: u64) -> (Socket, Socket) {
    let client = stage.client(&bearer(seconds));
    stage.upgrade(client + 1);
    for socket in [client, client + 1] {
        stage.socket(socket, |kernel| kernel.sent.clear());
    }
    (client, client + 1)
}

const EXPIRED: &str = "the token has expired";

#[test]
fn a_session_ends_with_its_token() {
    let mut stage = stage(ECHO);
    let (short, long) = (stage.open_with(&bearer(10)), stage.open_with(&bearer(100)));
    stage.pass(11);
    stage.send(short, &frame(0x82, b"still here", true));
    assert_eq!(stage.sent(short), frame(0x82, b"still here", false));
    stage.socket(short, |kernel| kernel.sent.clear());
    stage.pass(2);
    assert_eq!(stage.sent(short), close_frame(4401, EXPIRED));
    assert!(stage.socket(short, |kernel| kernel.fin), "nothing follows");
    assert!(stage.log.borrow().iter().any(|line| line.contains("code=4401") && line.contains(EXPIRED)));
    assert_eq!((stage.sent(long), stage.down(long)), (Vec::new(), None));
    stage.pass(100);
    assert_eq!(stage.sent(long), close_frame(4401, EXPIRED));
    assert_eq!(stage.shard.counters().tokens_expired, 2);
}

/// Its time runs by the shard's clock: that of the system stands still here, and so would never be there.
#[test]
fn a_token_that_is_over_lets_nobody_in() {
    let mut stage = stage(ECHO);
    stage.pass(1_000);
    let socket = stage.client(&signed(&json!({ "exp": UNIX_SECONDS - 2 })));
    assert!(stage.sent(socket).starts_with(b"HTTP/1.1 401"), "its leeway is over, too");
    stage.open_with(&signed(&json!({ "exp": UNIX_SECONDS - 1 })));
    // No time is too late to be counted.
    let far = stage.open_with(&signed(&json!({ "exp": u64::MAX })));
    stage.pass(100);
    assert_eq!(stage.down(far), None);
}

#[test]
fn both_legs_of_a_pair_end_with_the_clients_token() {
    let mut stage = stage(PROXY);
    let (client, upstream) = pair(&mut stage, 10);
    stage.pass(13);
    assert_eq!(stage.sent(client), close_frame(4401, EXPIRED));
    assert_eq!(stage.sent(upstream), frame(0x88, &1001_u16.to_be_bytes(), true));
    // What the client says now goes nowhere; that both have answered ends it.
    stage.send(client, &frame(0x82, b"too late", true));
    assert_eq!(stage.sent(upstream), frame(0x88, &1001_u16.to_be_bytes(), true));
    stage.send(client, &frame(0x88, &4401_u16.to_be_bytes(), true));
    stage.pass(4);
    assert!(stage.down(client).is_some() && stage.down(upstream).is_some());
    assert!(stage.log.borrow().iter().any(|line| line.contains("code=4401")));
}

#[test]
fn a_pair_ends_at_the_boundaries_of_its_frames_or_at_the_deadline() {
    let mut stage = stage(PROXY);
    let (client, upstream) = pair(&mut stage, 10);
    // The upstream is in the middle of a frame to the client.
    let down = frame(0x82, b"abcdef", false);
    stage.send(upstream, &down[..4]);
    stage.pass(13);
    assert_eq!(stage.sent(client), down[..4]);
    stage.send(upstream, &down[4..]);
    assert_eq!(stage.sent(client), [down, close_frame(4401, EXPIRED)].concat());

    let (client, upstream) = pair(&mut stage, 10);
    let up = frame(0x82, b"abcdef", true);
    stage.send(client, &up[..8]);
    stage.pass(13);
    assert_eq!(stage.sent(client), close_frame(4401, EXPIRED));
    assert_eq!(stage.sent(upstream), up[..8]);
    stage.pass(4);
    assert_eq!(stage.down(upstream), Some(true), "a frame that was cut off never looks whole");
}

#[test]
fn a_pair_that_ends_already_ends_as_it_does() {
    let mut stage = stage(PROXY);
    let (client, upstream) = pair(&mut stage, 10);
    stage.pass(11);
    stage.send(client, &frame(0x88, &1000_u16.to_be_bytes(), true));
    stage.pass(2);
    stage.send(upstream, &frame(0x88, &1000_u16.to_be_bytes(), false));
    assert_eq!(stage.sent(client), frame(0x88, &1000_u16.to_be_bytes(), false));
    assert_eq!(stage.shard.counters().tokens_expired, 0);
}

/// A session whose client waits for its upstream when its token is over ends once it is there.
#[test]
fn a_token_that_is_over_during_a_dial_ends_the_session_behind_it() {
    let mut stage = stage(
        "proxy = { upstreams = [\"ws://127.0.0.1:2\"], connect_timeout = \"60s\", handshake_timeout = \"60s\" }",
    );
    let client = stage.client(&bearer(10));
    stage.pass(20);
    assert_eq!(stage.sent(client), b"");
    stage.upgrade(client + 1);
    stage.pass(3);
    assert!(stage.sent(client).ends_with(&close_frame(4401, EXPIRED)));
}

const DEMANDING: &str = "claims = { role = [\"admin\", \"ops\"] }";

/// The field with a token that has this role.
fn role(role: &str) -> String {
    signed(&json!({ "sub": "ada", "exp": UNIX_SECONDS + 60, "role": role }))
}

#[test]
fn who_lacks_a_claim_of_the_route_is_refused_before_an_upstream_is_asked() {
    for action in [ECHO, PROXY] {
        let mut stage = stage(&format!("{DEMANDING}\n{action}"));
        for fields in [role("guest"), bearer(60)] {
            let client = stage.client(&fields);
            let sent = String::from_utf8_lossy(&stage.sent(client)).into_owned();
            assert!(sent.starts_with("HTTP/1.1 403 "), "{sent}");
            assert!(sent.contains("\r\nWWW-Authenticate: Bearer error=\"insufficient_scope\"\r\n"), "{sent}");
            assert!(stage.socket(client, |kernel| kernel.fin), "nothing follows");
        }
        let counters = stage.shard.counters();
        let seen = (counters.claims_refused, counters.tokens_refused, counters.refused, counters.dialed);
        assert_eq!(seen, (2, 0, 2, 0));
        let told = |line: &String| line.contains("token refused") && line.contains("lacks a claim");
        assert_eq!(stage.log.borrow().iter().filter(|line| told(line)).count(), 2);
        assert!(!stage.log.borrow().iter().any(|line| line.contains("eyJ")), "a token, or a part of one");
        // A token that is not valid is told so, whatever it claims.
        let client = stage.client(&signed(&json!({ "exp": UNIX_SECONDS - 60, "role": "admin" })));
        assert!(stage.sent(client).starts_with(b"HTTP/1.1 401 "));
        let client = stage.client(&role("ops"));
        if action == ECHO {
            assert!(stage.sent(client).starts_with(b"HTTP/1.1 101 "));
        }
        assert_eq!(stage.shard.counters().dialed, u64::from(action == PROXY));
    }
}

#[test]
fn requests_for_topics_are_refused_for_a_claim_in_their_own_terms() {
    for (action, line) in [
        ("poll = { subscribe = [\"a\"] }", "GET /r?topic=a&wait=0"),
        ("events = { subscribe = [\"a\"] }", "GET /r?topic=a"),
        ("publish = { publish = [\"a\"] }", "POST /r"),
    ] {
        let mut stage = stage(&format!("origins = [\"https://page.test\"]\n{DEMANDING}\n{action}"));
        let ask = |stage: &mut Stage, fields: &str| {
            let client = stage.accept();
            let body = r#"{"topic":"a","data":1}"#;
            let body = if line.starts_with("POST") { body } else { "" };
            let request = format!(
                "{line} HTTP/1.1\r\nHost: gw.test\r\nOrigin: https://page.test\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n{fields}\r\n{body}",
                body.len()
            );
            stage.send(client, request.as_bytes());
            stage.turns(4);
            String::from_utf8_lossy(&stage.sent(client)).into_owned()
        };
        let refused = ask(&mut stage, &role("guest"));
        assert!(refused.starts_with("HTTP/1.1 403 "), "{line}: {refused}");
        assert!(refused.contains("\r\nAccess-Control-Allow-Origin: https://page.test\r\n"), "{refused}");
        assert!(
            refused.contains("{\"error\":{\"code\":\"not_allowed\",\"message\":\"the caller lacks a claim"),
            "{refused}"
        );
        let taken = ask(&mut stage, &role("admin"));
        assert!(taken.starts_with("HTTP/1.1 200 "), "{line}: {taken}");
        assert_eq!(stage.shard.counters().claims_refused, 1);
    }
}

#[test]
fn a_newer_token_without_the_claims_of_the_route_leaves_the_old_one_in_force() {
    let mut stage = stage(&format!("{DEMANDING}\ntopics = {{ subscribe = [\"a\"] }}"));
    let client = stage.open_with(&role("admin"));
    let mut renew = |field: String| {
        stage.socket(client, |kernel| kernel.sent.clear());
        let token = field.trim_end().rsplit_once(' ').expect("a token").1.to_owned();
        let message = json!({ "op": "auth", "id": 1, "token": token }).to_string();
        stage.send(client, &frame(0x81, message.as_bytes(), true));
        stage.turns(2);
        let refused = stage.shard.counters().claims_refused;
        (String::from_utf8_lossy(&stage.sent(client)).into_owned(), refused)
    };
    let long = |role: &str| signed(&json!({ "sub": "ada", "exp": UNIX_SECONDS + 600, "role": role }));
    let (answer, refused) = renew(long("guest"));
    assert!(answer.contains("\"code\":\"invalid_token\"") && answer.contains("lacks a claim"), "{answer}");
    assert_eq!(refused, 1);
    // Another user's is told so, whatever it claims.
    let (answer, refused) = renew(signed(&json!({ "sub": "bob", "exp": UNIX_SECONDS + 600, "role": "ops" })));
    assert!(answer.contains("\"code\":\"invalid_token\"") && answer.contains("another user's"), "{answer}");
    assert_eq!(refused, 1);
    let (answer, _) = renew(long("ops"));
    assert!(answer.contains("\"op\":\"authenticated\""), "{answer}");
    let (answer, _) = renew(long("guest"));
    assert!(answer.contains("lacks a claim"), "{answer}");
    // It ends neither with its first token nor with one that was refused.
    stage.socket(client, |kernel| kernel.sent.clear());
    stage.pass(70);
    assert_eq!(stage.down(client), None);
    stage.pass(533);
    assert!(stage.sent(client).ends_with(&close_frame(4401, EXPIRED)));
}

/// Presence is seen and taken part in where the newest token says so.
#[test]
fn a_newer_token_that_allows_no_presence_ends_it() {
    let config = format!(
        "[limits]\nping_interval = \"0s\"\n[[topic]]\nname = \"**\"\npresence = true\n[[identity]]\nname = \"a\"\n\
         secret = \"{SECRET}\"\nalgorithms = [\"HS256\"]\npermissions = {{ presence = \"sees\" }}\n\
         [[route]]\npath = \"/r\"\nidentity = \"a\"\ntopics = {{ subscribe = [\"**\"], presence = [\"**\"] }}\n"
    );
    let token =
        |user: &str, sees: &[&str]| signed(&json!({ "sub": user, "exp": UNIX_SECONDS + 600, "sees": sees }));
    let mut stage = Stage::of(&config, 1);
    let [watcher, ada, bob] =
        ["eve", "ada", "bob"].map(|user| stage.open_with(&token(user, &["room", "hall"])));
    let mut say = |who: Socket, message: Value| {
        stage.socket(who, |kernel| kernel.sent.clear());
        stage.send(who, &frame(0x81, message.to_string().as_bytes(), true));
        stage.turns(3);
        String::from_utf8_lossy(&stage.sent(who)).into_owned()
    };
    let subscribe = |topic: &str, watches: bool| json!({ "op": "subscribe", "id": 1, "topic": topic, "presence": watches, "info": "here" });
    let count = json!({ "op": "presence", "id": 2, "topic": "room" });
    for topic in ["room", "hall"] {
        say(watcher, subscribe(topic, true));
        say(ada, subscribe(topic, false));
    }
    say(bob, subscribe("room", true));
    assert!(say(watcher, count.clone()).contains("\"count\":3"));
    for (who, user, left) in [(ada, "ada", 2), (bob, "bob", 1)] {
        let field = token(user, &["hall"]);
        let newer = field.trim_end().rsplit_once(' ').expect("a token").1;
        let answer = say(who, json!({ "op": "auth", "id": 3, "token": newer }));
        assert!(answer.contains("\"authenticated\""), "{answer}");
        // Whoever sees others by its subscription has that no more; who only subscribes is still subscribed.
        assert_eq!(answer.contains("\"unsubscribed\""), who == bob, "{answer}");
        assert!(say(watcher, count.clone()).contains(&format!("\"count\":{left}")), "{user}");
        assert!(say(who, count.clone()).contains("not_allowed"));
    }
    assert!(say(ada, subscribe("room", false)).contains("already_subscribed"));
    let hall = say(watcher, json!({ "op": "presence", "id": 4, "topic": "hall" }));
    assert!(hall.contains("\"count\":2"), "where it may it is present as before: {hall}");
}

/// Sessions stay where those of the route before are let in by it, too.
#[test]
fn a_route_that_demands_more_is_another_one() {
    let settings = |claims: &str| {
        format!(
            "version = 1\n[[listener]]\nbind = \"127.0.0.1:0\"\n[[identity]]\nname = \"a\"\nsecret = \"{SECRET}\"\n\
             algorithms = [\"HS256\"]\n[[route]]\npath = \"/r\"\nidentity = \"a\"\n{claims}\necho = {{}}\n"
        )
    };
    let config = |claims: &str| tidegate_config::parse(&settings(claims), "test.toml").expect("a valid one");
    let [none, admin, both] =
        ["", "claims = { role = \"admin\" }", "claims = { role = [\"ops\", \"admin\"] }"];
    let plan = "claims = { role = \"admin\", plan = \"gold\" }";
    for (old, new, goes_on) in [
        (none, admin, false),
        (admin, none, true),
        (admin, both, true),
        (both, admin, false),
        (admin, plan, false),
        (plan, admin, true),
        (plan, both, true),
        (admin, "claims = { role = \"ops\" }", false),
        (admin, "claims = { roles = \"admin\" }", false),
    ] {
        let before = Plan::new(config(old), 1);
        let after = before.next(config(new)).expect("a configuration that can follow");
        let changes = after.changes_since(&before);
        let seen =
            (changes.changed.len(), changes.replaced.len(), changes.added.len(), changes.removed.len());
        let expected = if goes_on { (1, 0, 0, 0) } else { (0, 1, 0, 0) };
        assert_eq!(seen, expected, "{old} {new}");
    }
    let before = Plan::new(config(both), 1);
    let after = before.next(config(both)).expect("a configuration that can follow");
    assert_eq!(after.changes_since(&before), tidegate_shard::Changes::default());
}

/// As with TLS: eight in a turn, and whoever has a session is read in each of them.
#[test]
fn a_storm_of_tokens_does_not_hold_sessions_up() {
    let config = |algorithm: &str, keys: &str| {
        format!(
            "[[identity]]\nname = \"a\"\nalgorithms = [\"{algorithm}\"]\n{keys}\n[[route]]\npath = \"/r\"\nidentity = \"a\"\n\
             {ECHO}\n[[route]]\npath = \"/free\"\n{ECHO}\n"
        )
    };
    let storm = |stage: &mut Stage| {
        let session = stage.client_at("/free", "");
        stage.socket(session, |kernel| kernel.sent.clear());
        let crowd: Vec<Socket> = (0..40).map(|_| stage.accept()).collect();
        for socket in &crowd {
            let request = format!(
                "GET /r HTTP/1.1\r\nHost: gw.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{}\r\n",
                bearer(10)
            );
            stage.arrive(*socket, request.as_bytes());
        }
        let mut judged = Vec::new();
        let mut answered = 0;
        while judged.iter().sum::<u64>() < 40 {
            let before = stage.shard.counters().refused + stage.shard.counters().opened;
            stage.arrive(session, &frame(0x82, b"x", true));
            stage.turn();
            judged.push(stage.shard.counters().refused + stage.shard.counters().opened - before);
            answered += 1;
            assert_eq!(stage.shard.counters().messages, answered, "the session is read in this turn");
        }
        judged
    };
    // A public key's: of a file that was not read, so that all are refused, which takes as long to this shard.
    let mut slow = Stage::of(&config("ES256", "jwks_file = \"/none\""), 1);
    assert_eq!(storm(&mut slow), [8; 5]);
    let mut fast = Stage::of(&config("HS256", &format!("secret = \"{SECRET}\"")), 1);
    assert_eq!(storm(&mut fast), [40]);
}
