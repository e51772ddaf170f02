//! Who ends its side behind a request gets the answer yet, as without TLS: it has sent all of it.

use tidegate_identity::Answer;
use tidegate_io::{Event, ReceiveEnd};
use tidegate_shard::{Decision, Denial, Mail, Outcome};
use tidegate_tls::{Clients, ServerConfig};

use super::{Peer, TLS, identity, options};
use crate::{
    certificates::Authority,
    stage::{Socket, Stage, UNIX_SECONDS, close_frame, frame, request},
};

const CONFIG: &str = "[limits]\nping_interval = \"0s\"\n[[topic]]\nname = \"**\"\n[[identity]]\nname = \"a\"\n\
    hook = { url = \"https://a.test/\", timeout = \"2s\" }\n\
    [[route]]\npath = \"/asks\"\nidentity = \"a\"\npoll = { subscribe = [\"**\"] }\n\
    [[route]]\npath = \"/page\"\npage = {}\n\
    [[route]]\npath = \"/up\"\nproxy = { upstreams = [\"ws://127.0.0.1:9\"] }\n\
    [[listener]]\nbind = \"127.0.0.1:2\"\n[listener.tls]\ncertificate_file = \"/none\"\nkey_file = \"/none\"\n";

/// Between the targets of two requests.
const AND: &str = " HTTP/1.1\r\nHost: gw.test\r\n\r\nGET ";

/// How a client ends its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// TLS says so, and the connection stays as it is.
    Notify,
    /// So does TCP then.
    Both,
    /// TCP alone.
    Fin,
}

fn stage(authority: &Authority) -> Stage {
    let server = ServerConfig::new(&options(Clients::Anyone), vec![identity(authority)]).expect("a server");
    let mut stage = Stage::of(CONFIG, 1);
    stage.shard.listen_tls(TLS, (), server).expect("it takes all");
    stage
}

/// A client that has sent a request and ended its side, in one flight or one behind the other.
fn ask(stage: &mut Stage, authority: &Authority, path: &str, end: End, at_once: bool, room: usize) -> Peer {
    let mut peer = Peer::secured(stage, &authority.client());
    stage.socket(peer.socket, |kernel| kernel.room = room);
    let mut said = peer.sealed(format!("GET {path} HTTP/1.1\r\nHost: gw.test\r\n\r\n").as_bytes());
    if !at_once {
        stage.send(peer.socket, &said);
        said.clear();
    }
    if end != End::Fin {
        peer.connection.send_close_notify();
        said.extend(peer.said());
    }
    arrive_with_end(stage, peer.socket, &said, end);
    stage.turns(4);
    peer
}

/// What it has said, and the end of its connection behind that, arrive at once.
fn arrive_with_end(stage: &mut Stage, socket: Socket, said: &[u8], end: End) {
    if !said.is_empty() {
        stage.arrive(socket, said);
    }
    if end != End::Notify {
        stage.end(socket, ReceiveEnd::Eof);
    }
}

/// What the hook says, by the answer that follows from it.
fn decide(stage: &mut Stage, status: &str) -> Decision {
    let question = stage.questions.borrow_mut().pop_front().expect("the hook is asked");
    let outcome = match status {
        "200" => match question.identity.judge_answer(b"", UNIX_SECONDS).expect("a right answer") {
            Answer::Allowed(caller) => Outcome::Allowed(Box::new(caller)),
            Answer::Denied => panic!("it is a yes"),
        },
        "401" => Outcome::Denied(Denial::Unauthorized),
        _ => Outcome::Failed,
    };
    question.answered(outcome)
}

/// Its one answer is all there, and the connection has ended behind it.
fn assert_answered(stage: &mut Stage, peer: &mut Peer, expected: &str, case: &str) {
    for _ in 0..100 {
        stage.make_room(peer.socket, 100_000);
    }
    let answer = peer.read(stage);
    assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{case}: {answer:?}");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
    assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{case}: {answer}");
    assert!(stage.socket(peer.socket, |kernel| kernel.fin || kernel.down == Some(false)), "{case}: it ends");
}

#[test]
fn who_ends_its_side_behind_a_request_that_waits_for_a_hook_has_the_answer() {
    let authority = Authority::new();
    for end in [End::Notify, End::Both, End::Fin] {
        for (at_once, room) in [(true, usize::MAX), (false, usize::MAX), (true, 0), (false, 100)] {
            for expected in ["200", "401", "503", "late"] {
                let case = format!("{end:?} at once: {at_once}, room {room}, {expected}");
                let mut stage = stage(&authority);
                let mut peer = ask(&mut stage, &authority, "/asks?topic=a", end, at_once, room);
                assert_eq!(stage.shard.inspect().legs.deciding, 1, "{case}: it waits");
                assert_eq!(stage.down(peer.socket), None, "{case}");
                let expected = if expected == "late" {
                    stage.pass(6);
                    "503"
                } else {
                    let decision = decide(&mut stage, expected);
                    stage.deliver(Mail::Decided(decision));
                    expected
                };
                assert_answered(&mut stage, &mut peer, expected, &case);
            }
        }
    }
}

/// Of several requests each is asked about by itself, and the end waits behind the last.
#[test]
fn who_ends_its_side_behind_several_requests_has_all_answers() {
    let authority = Authority::new();
    for end in [End::Notify, End::Both, End::Fin] {
        let mut stage = stage(&authority);
        let mut peer =
            ask(&mut stage, &authority, &format!("/asks?topic=a{AND}/asks?topic=b"), end, true, usize::MAX);
        for _ in 0..2 {
            assert_eq!(stage.down(peer.socket), None, "{end:?}");
            let decision = decide(&mut stage, "200");
            stage.deliver(Mail::Decided(decision));
            stage.turns(4);
        }
        let answer = peer.read(&stage);
        assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 2, "{end:?}: {answer}");
        assert!(
            stage.socket(peer.socket, |kernel| kernel.fin || kernel.down == Some(false)),
            "{end:?}: it ends"
        );
    }
}

#[test]
fn who_ends_its_side_while_its_hook_is_asked_is_told_that_the_gateway_ends() {
    let authority = Authority::new();
    for end in [End::Notify, End::Both, End::Fin] {
        let mut stage = stage(&authority);
        let mut peer = ask(&mut stage, &authority, "/asks?topic=a", end, true, usize::MAX);
        stage.drain();
        assert_answered(&mut stage, &mut peer, "503", &format!("{end:?}"));
    }
}

#[test]
fn who_ends_its_side_right_behind_a_request_has_all_of_a_page() {
    let authority = Authority::new();
    for end in [End::Notify, End::Both, End::Fin] {
        for (at_once, room) in [(true, usize::MAX), (true, 0), (false, 100)] {
            let mut stage = stage(&authority);
            let mut peer = ask(&mut stage, &authority, "/page", end, at_once, room);
            assert_answered(
                &mut stage,
                &mut peer,
                "200",
                &format!("{end:?} at once: {at_once}, room {room}"),
            );
        }
    }
}

/// Behind its Close, too, whether its upstream answers or fails.
#[test]
fn who_ends_its_side_behind_its_close_to_an_upstream_is_answered() {
    let authority = Authority::new();
    for end in [End::Notify, End::Both, End::Fin] {
        for answers in [true, false] {
            let mut stage = stage(&authority);
            let mut peer = Peer::secured(&mut stage, &authority.client());
            let upgrade = peer.sealed(&request("/up", ""));
            stage.send(peer.socket, &upgrade);
            let upstream = peer.socket + 1;
            stage.upgrade(upstream);
            assert!(peer.read(&stage).starts_with("HTTP/1.1 101 "));
            let mut said = peer.sealed(&frame(0x88, &1000_u16.to_be_bytes(), true));
            if end != End::Fin {
                peer.connection.send_close_notify();
                said.extend(peer.said());
            }
            arrive_with_end(&mut stage, peer.socket, &said, end);
            stage.turns(4);
            stage.send(upstream, &frame(0x81, b"last words", false));
            match answers {
                true => stage.send(upstream, &close_frame(1000, "")),
                false => arrive_with_end(&mut stage, upstream, b"", End::Fin),
            }
            stage.turns(4);
            let heard = peer.read(&stage);
            let expected = [frame(0x81, b"last words", false), close_frame(1000, "")].concat();
            assert_eq!(heard, String::from_utf8_lossy(&expected), "{end:?}, answers: {answers}");
            assert!(stage.socket(peer.socket, |kernel| kernel.fin), "{end:?}, answers: {answers}");
        }
    }
}

/// It hears no answer: its hook has room for others at once.
#[test]
fn who_is_gone_behind_its_end_waits_for_no_hook() {
    let authority = Authority::new();
    for notify in [false, true] {
        let mut stage = stage(&authority);
        let mut peer = Peer::secured(&mut stage, &authority.client());
        let mut said = peer.sealed(b"GET /asks?topic=a HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        if notify {
            peer.connection.send_close_notify();
            said.extend(peer.said());
        }
        stage.send(peer.socket, &said);
        stage.turns(4);
        assert_eq!(stage.shard.inspect().legs.deciding, 1);
        let token = stage.socket(peer.socket, |kernel| kernel.receive.take()).expect("it is read");
        // ECONNRESET.
        stage.world.borrow_mut().complete(Event::ReceiveEnded { token, end: ReceiveEnd::Error(104) });
        stage.turns(4);
        assert_eq!(stage.shard.inspect().legs.deciding, 0, "close_notify before: {notify}");
    }
}
