//! Requests that wait for a hook, in a shard that a test plays by hand: answers that come, come late, twice or never, clients
//! that go away, and what they send meanwhile.

mod stage;

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
};

use tidegate_identity::Answer;
use tidegate_io::ReceiveEnd;
use tidegate_shard::{
    Decision, Denial, Ended, Mail, Outcome, Question,
    report::{Cell, Reply},
};
use tidegate_wire::close::CloseCode;

use stage::{Socket, Stage, close_frame, frame, request};

/// The system's clock, which stands still here.
const UNIX_SECONDS: u64 = 784_111_777;

/// A route at `/r` whose callers a hook is asked about, for two seconds, and at most three at a time.
fn stage(route: &str) -> Stage {
    Stage::of(
        &format!(
            "[limits]\nclose_timeout = \"3s\"\nping_interval = \"0s\"\n[[identity]]\nname = \"a\"\nleeway = \"0s\"\n\
             hook = {{ url = \"https://a.test/\", timeout = \"2s\", max_in_flight = 3 }}\n\
             [[route]]\npath = \"/r\"\nidentity = \"a\"\n{route}\n[[route]]\npath = \"/free\"\necho = {{}}\n"
        ),
        1,
    )
}

fn question(stage: &Stage) -> Question {
    stage.questions.borrow_mut().pop_front().expect("the hook is asked")
}

/// What a hook says whose answer has this body.
fn allowed(question: &Question, body: &str) -> Outcome {
    match question.identity.judge_answer(body.as_bytes(), UNIX_SECONDS).expect("a right answer") {
        Answer::Allowed(caller) => Outcome::Allowed(Box::new(caller)),
        Answer::Denied => panic!("{body}"),
    }
}

/// Whether nobody waits for its answer any more.
fn is_abandoned(question: &mut Question) -> bool {
    pin!(question.abandoned()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

fn allow(stage: &mut Stage) -> Decision {
    let question = question(stage);
    let outcome = allowed(&question, "");
    let decision = question.answered(outcome);
    stage.deliver(Mail::Decided(decision.clone()));
    decision
}

fn status(stage: &Stage, socket: Socket) -> String {
    String::from_utf8_lossy(&stage.sent(socket)).chars().take(12).collect()
}

#[test]
fn a_request_waits_for_its_answer_and_nobody_else_does() {
    let mut stage = stage("echo = {}");
    let client = stage.client("Cookie: a=b\r\n");
    assert_eq!((stage.sent(client), stage.shard.inspect().legs.deciding), (Vec::new(), 1));
    let other = stage.client_at("/free", "");
    assert_eq!(status(&stage, other), "HTTP/1.1 101");
    stage.send(client, &frame(0x82, b"early", true));
    assert_eq!(stage.questions.borrow().len(), 1, "asked once");
    assert_eq!(stage.questions.borrow()[0].asked.fields, [("cookie".to_owned(), b"a=b".to_vec())]);
    stage.pass(1);
    allow(&mut stage);
    stage.turns(3);
    assert!(stage.sent(client).starts_with(b"HTTP/1.1 101"));
    assert!(stage.sent(client).ends_with(&frame(0x82, b"early", false)));
    assert_eq!(stage.shard.counters().hooks_allowed, 1);
    stage.pass(100);
    assert_eq!(stage.down(client), None, "its time is not limited any more");
}

#[test]
fn a_denial_is_told_and_a_failure_too() {
    let mut stage = stage("echo = {}");
    for (outcome, expected) in [
        (Outcome::Denied(Denial::Unauthorized), "HTTP/1.1 401"),
        (Outcome::Denied(Denial::Forbidden), "HTTP/1.1 403"),
        (Outcome::Failed, "HTTP/1.1 503"),
    ] {
        let client = stage.client("");
        let decision = question(&stage).answered(outcome);
        stage.deliver(Mail::Decided(decision));
        assert_eq!(status(&stage, client), expected);
        stage.turns(3);
        assert!(stage.socket(client, |kernel| kernel.fin), "nothing follows");
    }
    let counters = stage.shard.counters();
    assert_eq!((counters.hooks_denied, counters.hooks_failed), (2, 1));
}

#[test]
fn who_asks_and_never_answers_lets_nobody_in_and_later_answers_are_for_nobody() {
    let mut stage = stage("echo = {}");
    let client = stage.client("");
    stage.pass(4);
    assert_eq!(stage.sent(client), b"");
    assert!(!is_abandoned(&mut stage.questions.borrow_mut()[0]));
    stage.pass(2);
    assert_eq!(status(&stage, client), "HTTP/1.1 503");
    assert!(is_abandoned(&mut stage.questions.borrow_mut()[0]), "it was told that it is in vain");
    let sent = stage.sent(client);
    allow(&mut stage);
    assert_eq!(stage.sent(client), sent);
    assert_eq!(stage.shard.counters().hooks_late, 1);
    let told =
        stage.log.borrow().iter().any(|line| line.contains("hook failed") && line.contains("no answer"));
    assert!(told, "{:?}", stage.log.borrow());
}

#[test]
fn an_answer_that_comes_twice_counts_once() {
    let mut stage = stage("echo = {}");
    let client = stage.client("");
    let decision = allow(&mut stage);
    let sent = stage.sent(client);
    stage.deliver(Mail::Decided(decision));
    assert_eq!(stage.sent(client), sent);
    assert_eq!((stage.shard.counters().opened, stage.shard.counters().hooks_late), (1, 1));
}

/// Its slot is another's when its answer comes.
#[test]
fn a_client_that_went_away_leaves_its_answer_to_nobody() {
    let mut stage = stage("echo = {}");
    let gone = stage.client("");
    stage.end(gone, ReceiveEnd::Error(104));
    stage.turns(3);
    assert_eq!(stage.shard.inspect().legs.deciding, 0);
    assert!(is_abandoned(&mut stage.questions.borrow_mut()[0]), "nobody needs to ask on");
    let other = stage.client("");
    assert!(!is_abandoned(&mut stage.questions.borrow_mut()[1]));
    allow(&mut stage);
    assert_eq!((stage.sent(other), stage.shard.counters().hooks_late), (Vec::new(), 1));
    allow(&mut stage);
    assert_eq!(status(&stage, other), "HTTP/1.1 101");
}

#[test]
fn a_place_is_taken_until_its_question_is_over() {
    let mut stage = stage("echo = {}");
    let clients: Vec<Socket> = (0..4).map(|_| stage.client("")).collect();
    assert_eq!(status(&stage, clients[3]), "HTTP/1.1 503");
    assert_eq!((stage.questions.borrow().len(), stage.shard.counters().hooks_busy), (3, 1));
    // Whoever asks has lost it.
    drop(question(&stage));
    let client = stage.client("");
    assert_eq!((stage.sent(client), stage.questions.borrow().len()), (Vec::new(), 3));
    stage.pass(6);
    assert_eq!(status(&stage, clients[0]), "HTTP/1.1 503");
}

#[test]
fn what_comes_meanwhile_is_kept_and_is_not_without_bound() {
    let mut stage = stage("echo = {}\nlimits = { message_bytes = \"1MiB\" }");
    let client = stage.client("");
    let message = frame(0x82, &vec![7; 60_000], true);
    let mut at = 0;
    while stage.socket(client, |kernel| kernel.receive.is_some()) {
        assert!(at < message.len(), "it is read on and on");
        let part = &message[at..message.len().min(at + 8_000)];
        stage.send(client, part);
        at += part.len();
    }
    assert!(stage.shard.inspect().partial_bytes < 40_000, "{:?}", stage.shard.inspect());
    allow(&mut stage);
    stage.turns(4);
    while at < message.len() {
        let part = &message[at..message.len().min(at + 8_000)];
        stage.send(client, part);
        at += part.len();
    }
    assert!(stage.sent(client).ends_with(&frame(0x82, &vec![7; 60_000], false)), "nothing is lost");
}

#[test]
fn a_drain_ends_requests_that_wait() {
    let mut stage = stage("echo = {}");
    let client = stage.client("");
    stage.drain();
    assert_eq!(status(&stage, client), "HTTP/1.1 503");
    allow(&mut stage);
    assert_eq!(stage.shard.counters().hooks_late, 1);
}

#[test]
fn a_request_that_an_operator_ends_is_not_told_that_the_gateway_ends() {
    let mut stage = stage("echo = {}");
    let client = stage.client("");
    let keys = vec![stage.tokens[&client].0];
    stage.deliver(Mail::End(Ended { keys, code: CloseCode::GOING_AWAY, reply: Reply::new(|_| {}) }));
    let sent = String::from_utf8_lossy(&stage.sent(client)).into_owned();
    assert!(sent.starts_with("HTTP/1.1 503 ") && sent.contains("\r\nRetry-After: 1\r\n"), "{sent}");
    assert!(sent.contains("ended by an operator") && !sent.contains("shutting down"), "{sent}");
    allow(&mut stage);
    assert_eq!(stage.shard.counters().hooks_late, 1);
}

/// As every refusal of such a route: pages of the origins that may come there can read it.
#[test]
fn a_drain_tells_requests_of_topics_in_their_own_terms() {
    for route in ["poll = { subscribe = [\"a\"] }", "events = { subscribe = [\"a\"] }"] {
        let mut stage = stage(&format!("origins = [\"https://page.test\"]\n{route}"));
        let client = stage.accept();
        stage.send(client, b"GET /r?topic=a HTTP/1.1\r\nHost: gw.test\r\nOrigin: https://page.test\r\n\r\n");
        assert_eq!(stage.shard.inspect().legs.deciding, 1);
        stage.drain();
        let sent = String::from_utf8_lossy(&stage.sent(client)).into_owned();
        assert!(sent.starts_with("HTTP/1.1 503 "), "{sent}");
        assert!(sent.contains("\r\nAccess-Control-Allow-Origin: https://page.test\r\n"), "{sent}");
        assert!(sent.contains("\r\nConnection: close\r\n"), "{sent}");
        let body = "{\"error\":{\"code\":\"busy\",\"message\":\"the gateway is shutting down\"}}";
        assert!(sent.ends_with(body), "{sent}");
        allow(&mut stage);
        assert_eq!(stage.shard.counters().hooks_late, 1);
        assert_eq!(stage.sent(client).len(), sent.len(), "one answer");
    }
}

#[test]
fn a_session_ends_when_its_hook_has_said() {
    let mut stage = stage("echo = {}");
    let client = stage.client("");
    let question = question(&stage);
    let outcome = allowed(&question, &format!("{{\"exp\":{}}}", UNIX_SECONDS + 10));
    stage.deliver(Mail::Decided(question.answered(outcome)));
    stage.socket(client, |kernel| kernel.sent.clear());
    stage.pass(9);
    assert_eq!(stage.sent(client), b"");
    stage.pass(2);
    assert_eq!(stage.sent(client), close_frame(4401, "the token has expired"));
}

#[test]
fn whom_a_hook_lets_in_still_has_the_claims_of_the_route_or_is_refused() {
    let mut stage = stage("claims = { role = \"admin\", level = [\"4\", \"5\"] }\necho = {}");
    for (body, expected) in [
        ("", "HTTP/1.1 403"),
        (r#"{"role":"admin"}"#, "HTTP/1.1 403"),
        (r#"{"role":["guest","admin"],"level":6}"#, "HTTP/1.1 403"),
        (r#"{"role":["guest","admin"],"level":5}"#, "HTTP/1.1 101"),
    ] {
        let client = stage.client("");
        let question = question(&stage);
        let outcome = allowed(&question, body);
        stage.deliver(Mail::Decided(question.answered(outcome)));
        assert_eq!(status(&stage, client), expected, "{body}");
    }
    let counters = stage.shard.counters();
    let seen = (counters.hooks_allowed, counters.claims_refused, counters.refused, counters.opened);
    assert_eq!(seen, (4, 3, 3, 1));
}

/// On a connection that is kept each request is asked about by itself.
#[test]
fn each_request_on_a_connection_is_asked_about() {
    let mut stage = Stage::of(
        "[[topic]]\nname = \"a\"\n[[identity]]\nname = \"a\"\nhook = { url = \"https://a.test/\" }\n\
         [[route]]\npath = \"/publish/*\"\nidentity = \"a\"\npublish = { publish = [\"a\"] }\n",
        1,
    );
    let client = stage.accept();
    let post = b"POST /publish/a HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 10\r\n\r\n{\"data\":1}";
    // Both at once: the second waits behind the first.
    stage.send(client, &[&post[..], &post[..]].concat());
    for count in 1..=2 {
        assert_eq!(stage.questions.borrow().len(), 1);
        allow(&mut stage);
        stage.turns(4);
        let sent = String::from_utf8_lossy(&stage.sent(client)).into_owned();
        assert_eq!(sent.matches("HTTP/1.1 200").count(), count, "{sent}");
    }
    // Who has sent all still gets an answer.
    stage.send(client, post);
    stage.end(client, ReceiveEnd::Eof);
    stage.turns(4);
    allow(&mut stage);
    stage.turns(4);
    let sent = String::from_utf8_lossy(&stage.sent(client)).into_owned();
    assert_eq!(sent.matches("HTTP/1.1 200").count(), 3, "{sent}");
    // A session's request that is no more is gone.
    let other = stage.accept();
    stage.send(other, &request("/nowhere", ""));
    assert_eq!(status(&stage, other), "HTTP/1.1 404");
}

#[test]
fn who_has_sent_all_has_the_answer_to_each_request() {
    let mut stage = stage("poll = { subscribe = [\"a\"] }");
    let client = stage.accept();
    stage.send(client, &b"GET /r?topic=a HTTP/1.1\r\nHost: gw.test\r\n\r\n".repeat(3));
    stage.end(client, ReceiveEnd::Eof);
    stage.turns(4);
    for count in 1..=3 {
        allow(&mut stage);
        stage.turns(4);
        let sent = String::from_utf8_lossy(&stage.sent(client)).into_owned();
        assert_eq!(sent.matches("HTTP/1.1 200").count(), count, "{sent}");
    }
    assert!(
        stage.socket(client, |kernel| kernel.fin || kernel.down == Some(false)),
        "it ends behind the last"
    );
}

/// Whoever asks stood still as well, and has as long as ever from then on.
#[test]
fn a_process_that_stood_still_gives_nobody_up_for_it() {
    for answers in [true, false] {
        let mut stage = stage("echo = {}");
        let client = stage.client("");
        stage.world.borrow_mut().now_ms += 6_000;
        stage.turns(5);
        assert_eq!(stage.sent(client), b"");
        stage.pass(2);
        assert_eq!(stage.sent(client), b"");
        if answers {
            allow(&mut stage);
            assert_eq!(status(&stage, client), "HTTP/1.1 101");
        } else {
            stage.pass(1);
            assert_eq!(status(&stage, client), "HTTP/1.1 503");
        }
    }
}

/// The shard wakes before anything of its own is due: whoever asks has lost as much of its time.
#[test]
fn a_process_that_stood_still_for_less_than_the_time_out_gives_nobody_up_for_it() {
    let mut stage = stage("echo = {}");
    let client = stage.client("");
    stage.world.borrow_mut().now_ms += 1_900;
    stage.turns(5);
    stage.pass(1);
    assert_eq!(stage.sent(client), b"", "whoever asks has until 3.9 s");
    allow(&mut stage);
    assert_eq!(status(&stage, client), "HTTP/1.1 101");
}

/// Its path is another route's when its hook has said.
#[test]
fn who_has_waited_takes_nothing_of_a_route_that_is_gone_along() {
    let config = |routes: &str| {
        format!(
            "[drain]\nwindow = \"30s\"\ndeadline = \"60s\"\n\
             [[topic]]\nname = \"a\"\n[[identity]]\nname = \"a\"\nhook = {{ url = \"https://a.test/\" }}\n{routes}"
        )
    };
    let parse = |routes: &str| {
        let text = format!("version = 1\n{}[[listener]]\nbind = \"127.0.0.1:1\"\n", config(routes));
        tidegate_config::parse(&text, "test.toml").expect("it is valid")
    };
    let poll = "[[route]]\npath = \"/x\"\nidentity = \"a\"\npoll = { subscribe = [\"a\"] }\n";
    let page = "[[route]]\npath = \"/x\"\npage = {}\n";
    let mut stage = Stage::of(&config(poll), 1);
    let cell = Arc::new(Cell::default());
    stage.shard.account_to(Arc::clone(&cell));
    let client = stage.accept();
    stage.send(client, b"GET /x?topic=a HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert_eq!(stage.questions.borrow().len(), 1);
    stage.adopt(parse(page));
    allow(&mut stage);
    assert_eq!(status(&stage, client), "HTTP/1.1 200");
    let counts = |stage: &mut Stage| {
        stage.pass(2);
        cell.read().routes[0]
    };
    let before = counts(&mut stage);
    stage.send(client, b"GET /x HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert_eq!(String::from_utf8_lossy(&stage.sent(client)).matches("HTTP/1.1 200").count(), 2);
    assert_eq!(counts(&mut stage), before, "it is none of its own");
}

/// It is not the fault of who is refused what still waits before that.
#[test]
fn a_refusal_behind_a_page_that_fills_the_outbox_takes_nothing_of_it() {
    let config = "[limits]\noutbox_soft = \"4KiB\"\noutbox_hard = \"8KiB\"\n\
                  [[identity]]\nname = \"a\"\nhook = { url = \"https://a.test/\" }\n\
                  [[route]]\npath = \"/page\"\npage = {}\n\
                  [[route]]\npath = \"/r\"\nidentity = \"a\"\necho = {}\n";
    let mut stage = Stage::of(config, 1);
    let client = stage.accept();
    stage.socket(client, |kernel| kernel.room = 300);
    let page = b"GET /page HTTP/1.1\r\nHost: gw.test\r\n\r\n";
    stage.send(client, &[page, &request("/r", "")[..]].concat());
    stage.turns(4);
    assert!(stage.sent(client).len() <= 300);
    let decision = question(&stage).answered(Outcome::Denied(Denial::Unauthorized));
    stage.deliver(Mail::Decided(decision));
    for _ in 0..4 {
        stage.make_room(client, 100_000);
    }
    let sent = String::from_utf8_lossy(&stage.sent(client)).into_owned();
    let answers = (sent.matches("HTTP/1.1 200 ").count(), sent.matches("HTTP/1.1 401 ").count());
    assert_eq!((answers, stage.shard.counters().slow), ((1, 1), 0), "{} bytes", sent.len());
}

/// Anyone can send fields that say who the client is.
#[test]
fn a_hook_is_told_who_the_client_is_by_those_alone_who_are_trusted() {
    let names =
        ["x-forwarded-for", "x-forwarded-client-cert", "forwarded", "x-real-ip", "x_real_ip", "x-other"];
    for (trusted, told) in [("10.0.0.0/8", &["x-other"][..]), ("192.0.2.0/24", &names[..])] {
        let mut stage = Stage::of(
            &format!(
                "trusted = [\"{trusted}\"]\n[[identity]]\nname = \"a\"\n\
                 hook = {{ url = \"https://a.test/\", forward = {names:?} }}\n\
                 [[route]]\npath = \"/r\"\nidentity = \"a\"\necho = {{}}\n"
            ),
            1,
        );
        let client = stage.accept_from(tidegate_io::ListenerId(0), Some("192.0.2.7:1000".parse().unwrap()));
        let fields: String = names.iter().map(|name| format!("{name}: 203.0.113.9\r\n")).collect();
        stage.send(client, &request("/r", &fields));
        let question = question(&stage);
        let seen: Vec<&str> = question.asked.fields.iter().map(|(name, _)| &**name).collect();
        assert_eq!(seen, told);
    }
}
