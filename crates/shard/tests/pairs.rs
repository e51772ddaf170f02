//! Pairs whose other side fails while a client is owed the answer to its Close, or its refusal. On a backend that a test plays by
//! hand.

mod stage;

use tidegate_io::ReceiveEnd;

use crate::stage::{Socket, Stage, close_frame, frame};

/// Nobody is waited for as long as for the answer to a Close.
const LIMITS: &str = "ping_interval = \"0s\"\nwrite_timeout = \"2s\"\nclose_timeout = \"1m\"";

const PROXY: &str = "proxy = { upstreams = [\"ws://127.0.0.1:9\"] }";

/// What an upstream does instead of answering a Close.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Fin,
    Reset,
    /// A frame that a server must not send.
    Violation,
    /// It takes nothing.
    Deaf,
}

const FAILURES: [Failure; 4] = [Failure::Fin, Failure::Reset, Failure::Violation, Failure::Deaf];

/// The last words of a client, and what it is owed then.
fn last_words() -> [(Vec<u8>, Vec<u8>); 4] {
    [
        (close(1000, "bye"), close_frame(1000, "")),
        (close(4321, ""), close_frame(4321, "")),
        (frame(0x88, b"", true), frame(0x88, b"", false)),
        (frame(0x81, b"\xff", true), close_frame(1007, "text is not UTF-8")),
    ]
}

/// A client's Close.
fn close(code: u16, reason: &str) -> Vec<u8> {
    frame(0x88, &close_frame(code, reason)[2..], true)
}

fn end(stage: &mut Stage, socket: Socket, end: ReceiveEnd) {
    stage.end(socket, end);
    stage.turns(4);
}

fn fail(stage: &mut Stage, upstream: Socket, failure: Failure) {
    match failure {
        Failure::Fin => end(stage, upstream, ReceiveEnd::Eof),
        Failure::Reset => end(stage, upstream, ReceiveEnd::Error(104)),
        Failure::Violation => stage.send(upstream, &frame(0x82, b"masked", true)),
        Failure::Deaf => stage.pass(3),
    }
}

/// It has what it is owed, and the connection ends behind that.
fn assert_told(stage: &Stage, client: Socket, owed: &[u8], case: &str) {
    let sent = stage.sent(client);
    assert!(sent.ends_with(owed) && sent.len() == owed.len(), "{case}: {sent:?}");
    assert!(stage.socket(client, |kernel| kernel.fin), "{case}: it ends");
    assert_ne!(stage.down(client), Some(true), "{case}: nothing is cut off");
}

#[test]
fn an_upstream_that_fails_takes_nothing_of_what_its_client_is_owed() {
    for failure in FAILURES {
        for (said, owed) in last_words() {
            let mut stage = Stage::new(LIMITS, PROXY);
            let (client, upstream) = stage.pair();
            if matches!(failure, Failure::Deaf) {
                stage.socket(upstream, |kernel| kernel.room = 0);
            }
            stage.send(client, &said);
            assert_eq!(stage.sent(client), b"", "what the upstream still says comes first");
            fail(&mut stage, upstream, failure);
            assert_told(&stage, client, &owed, &format!("{failure:?} {said:?}"));
        }
    }
}

/// The upstream's own answer is the client's.
#[test]
fn an_upstream_that_answers_has_its_answer_passed_on() {
    let [(said, _), .., (fault, verdict)] = last_words();
    for (said, owed) in [(said, close_frame(1001, "later")), (fault, verdict)] {
        let mut stage = Stage::new(LIMITS, PROXY);
        let (client, upstream) = stage.pair();
        stage.send(client, &said);
        stage.send(upstream, &close_frame(1001, "later"));
        assert_told(&stage, client, &owed, &format!("{said:?}"));
    }
}

/// Who has sent its Close may end its side behind it, and reads on.
#[test]
fn a_client_that_ends_its_side_behind_its_last_words_has_all_that_it_would_have_had() {
    for (said, owed) in last_words() {
        for answers in [true, false] {
            for at_once in [true, false] {
                let mut stage = Stage::new(LIMITS, PROXY);
                let (client, upstream) = stage.pair();
                stage.arrive(client, &said);
                if !at_once {
                    stage.turns(3);
                }
                end(&mut stage, client, ReceiveEnd::Eof);
                let case = format!("{said:?}, answers: {answers}, at once: {at_once}");
                let message = frame(0x82, b"on its way", false);
                stage.send(upstream, &message);
                match answers {
                    true => stage.send(upstream, &owed),
                    false => stage.pass(61),
                }
                assert_told(&stage, client, &[message, owed.clone()].concat(), &case);
                assert!(stage.down(client).is_some(), "{case}: nobody waits for a FIN that came");
            }
        }
    }
}

/// What waits for it may be dropped, and its answer is not.
#[test]
fn a_client_that_is_slow_when_it_says_its_last_is_answered() {
    for (said, owed) in last_words() {
        let mut stage = Stage::new(LIMITS, PROXY);
        let (client, upstream) = stage.pair();
        stage.socket(client, |kernel| kernel.room = 0);
        // Up to the first boundary that is known it is kept.
        let message = frame(0x82, b"nobody takes it", false);
        stage.send(upstream, &message);
        stage.send(client, &said);
        stage.pass(3);
        assert_eq!(stage.down(client), None, "{said:?}: it may take its last bytes");
        stage.make_room(client, usize::MAX);
        assert_told(&stage, client, &[message, owed].concat(), &format!("{said:?}"));
        assert!(stage.sent(upstream).starts_with(&[0x88]), "{said:?}");
    }
}

/// An upstream's half messages use memory up.
#[test]
fn a_pair_that_is_given_up_for_want_of_memory_takes_nothing_of_what_its_client_is_owed() {
    let config = format!(
        "[limits]\nmemory = \"4MiB\"\nmessage_bytes = \"16MiB\"\n{LIMITS}\n[topics]\nmemory = \"1MiB\"\n[[route]]\npath = \"/r\"\n\
         proxy = {{ upstreams = [\"ws://127.0.0.1:9\"], deflate = \"edge\" }}\n"
    );
    for (said, owed) in last_words() {
        let mut stage = Stage::of(&config, 1);
        let client = stage.client("Sec-WebSocket-Extensions: permessage-deflate\r\n");
        let upstream = client + 1;
        stage.upgrade(upstream);
        stage.socket(client, |kernel| kernel.sent.clear());
        stage.send(client, &said);
        for part in frame(0x82, &vec![7; 8 << 20], false).chunks(64 << 10) {
            if stage.socket(upstream, |kernel| kernel.receive.is_some()) {
                stage.send(upstream, part);
            }
        }
        assert_told(&stage, client, &owed, &format!("{said:?}"));
    }
}
