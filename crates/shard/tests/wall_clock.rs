//! The system's clock is set, by an hour or more, while sessions go on. All that becomes due does so by the shard's own clock, which
//! nobody sets; the other one is for dates and for tokens at the moment when they are judged.

// Shared with the gateway's tests.
#[allow(dead_code)]
#[path = "../../gateway/tests/harness/tokens.rs"]
mod tokens;

mod stage;

use serde_json::json;
use tidegate_shard::{Departure, Mail, Pace};

use stage::{Socket, Stage, UNIX_SECONDS, close_frame, frame, request};
use tokens::Signer;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

const HOUR: i64 = 3_600;

const CONFIG: &str = r#"
[limits]
head_timeout = "5s"
message_timeout = "6s"
ping_interval = "4s"
pong_timeout = "3s"
close_timeout = "2s"
write_timeout = "9s"
[drain]
window = "8s"
deadline = "12s"
[[identity]]
name = "a"
secret = "0123456789abcdef0123456789abcdef"
algorithms = ["HS256"]
leeway = "0s"
[[route]]
path = "/r"
identity = "a"
echo = {}
[[route]]
path = "/token"
identity = "a"
limits = { ping_interval = "0s" }
echo = {}
[[route]]
path = "/idle"
limits = { idle_timeout = "7s", ping_interval = "0s" }
echo = {}
[[route]]
path = "/rated"
limits = { messages_per_second = 1, burst_messages = 1, ping_interval = "0s" }
echo = {}
[[route]]
path = "/drained"
limits = { ping_interval = "0s" }
echo = {}
[[route]]
path = "/up"
proxy = { upstreams = ["ws://127.0.0.1:2"], retries = 0, handshake_timeout = "3s" }
[[route]]
path = "/events"
events = { subscribe = ["a"] }
[[route]]
path = "/poll"
poll = { subscribe = ["a"] }
"#;

fn bearer(seconds: u64) -> String {
    let token =
        Signer::secret(SECRET).token("HS256", None, &json!({ "sub": "ada", "exp": UNIX_SECONDS + seconds }));
    format!("Authorization: Bearer {token}\r\n")
}

/// All that each socket was sent, and when, but for the dates; and how it ended.
type Trace = Vec<(u64, Socket, String, Option<bool>)>;

/// Everything that can become due, at once, for so many seconds. `set`: the clock is moved by so many seconds, a second after the
/// beginning.
fn play(set: i64) -> Trace {
    let mut stage = Stage::of(CONFIG, 1);
    let mut all = Vec::new();
    // A token that is over, a ping that is not answered, an idle one, a message that is not complete.
    all.push(stage.client_at("/token", &bearer(10)));
    all.push(stage.client(&bearer(1_000)));
    all.push(stage.client_at("/idle", ""));
    let partial = stage.client(&bearer(1_000));
    stage.send(partial, &frame(0x02, b"begun", true));
    all.push(partial);
    // A head that is not complete, one that is too fast, an upstream that does not answer, a stream with its heartbeats, a poll.
    let head = stage.accept();
    stage.send(head, &request("/r", "")[..20]);
    all.push(head);
    let fast = stage.client_at("/rated", "");
    stage.send(fast, &frame(0x82, b"much", true).repeat(4));
    all.push(fast);
    all.push(stage.client_at("/up", ""));
    all.push(stage.client_at("/events?topic=a", ""));
    all.push(stage.client_at("/poll?topic=a", ""));
    for _ in 0..6 {
        all.push(stage.client_at("/drained", ""));
    }
    let whom = stage.plan.named("/drained")[0];
    let pace = Pace::of_some(&stage.plan.config().drain);
    stage.deliver(Mail::Depart(Departure { whom, pace }));
    let mut trace = Trace::new();
    for step in 0..350 {
        if step == 10 {
            stage.unix_seconds.set(UNIX_SECONDS.checked_add_signed(set).expect("a time"));
        }
        stage.world.borrow_mut().now_ms += 100;
        stage.turns(3);
        for socket in all.iter().copied() {
            let (sent, down) = stage.socket(socket, |kernel| (std::mem::take(&mut kernel.sent), kernel.down));
            let sent = String::from_utf8_lossy(&sent).into_owned();
            let dateless: Vec<&str> = sent.split("\r\n").filter(|line| !line.starts_with("Date: ")).collect();
            let seen = (step, socket, dateless.join("\r\n"), down);
            let is_new =
                trace.iter().rev().find(|(_, other, ..)| *other == socket).is_none_or(|last| last.3 != down);
            if !seen.2.is_empty() || is_new {
                trace.push(seen);
            }
        }
    }
    trace
}

#[test]
fn what_becomes_due_does_not_depend_on_the_systems_clock() {
    let steady = play(0);
    for (name, part) in [
        ("an expired token", "the token has expired"),
        ("an idle session", "idle for too long"),
        ("a message that took too long", "a message took too long"),
        ("a head that took too long", "HTTP/1.1 408"),
        ("an upstream that does not answer", "HTTP/1.1 50"),
        ("a departure", "the service has moved"),
    ] {
        assert!(steady.iter().any(|(_, _, sent, _)| sent.contains(part)), "{name} is among it: {steady:#?}");
    }
    assert!(steady.iter().filter(|(.., down)| down.is_some()).count() > 5, "{steady:#?}");
    for set in [HOUR, -HOUR, 24 * HOUR, -24 * 365 * HOUR] {
        let stepped = play(set);
        for (one, other) in steady.iter().zip(&stepped) {
            assert_eq!(one, other, "set by {set} s");
        }
        assert_eq!(steady.len(), stepped.len());
    }
}

#[test]
fn a_token_is_judged_by_the_systems_clock_once() {
    let mut stage = Stage::of(CONFIG, 1);
    let open = stage.open_with(&bearer(100));
    let set = |stage: &Stage, by: i64| {
        stage.unix_seconds.set(UNIX_SECONDS.checked_add_signed(by).expect("a time"));
    };
    set(&stage, HOUR);
    let late = stage.client(&bearer(100));
    assert!(stage.sent(late).starts_with(b"HTTP/1.1 401"), "its time is over by this clock");
    stage.send(open, &frame(0x82, b"still here", true));
    assert_eq!(stage.sent(open), frame(0x82, b"still here", false));
    stage.socket(open, |kernel| kernel.sent.clear());
    // Set back, whoever comes now has as much longer as the clock is behind.
    set(&stage, -HOUR);
    stage.open_with(&bearer(100));
    let whole = |stage: &mut Stage, seconds: u64| {
        for _ in 0..seconds {
            stage.pass(1);
            stage.send(open, &frame(0x8a, b"", true));
        }
    };
    whole(&mut stage, 98);
    assert_eq!(stage.down(open), None);
    whole(&mut stage, 3);
    assert!(stage.sent(open).ends_with(&close_frame(4401, "the token has expired")));
}
