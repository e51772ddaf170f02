//! What a connection is owed goes out before it ends: answers to requests, whoever ends it and whenever.

mod stage;

use tidegate_io::{Event, ReceiveEnd};

use crate::stage::{Socket, Stage};

const REQUEST: &[u8] = b"GET /r HTTP/1.1\r\nHost: gw.test\r\n\r\n";

fn finish(stage: &Stage, socket: Socket) {
    let token = stage.tokens[&socket];
    stage.world.borrow_mut().complete(Event::ReceiveEnded { token, end: ReceiveEnd::Eof });
}

/// Its one answer is all there, and the connection has ended behind it.
fn assert_answered(stage: &mut Stage, socket: Socket) {
    for _ in 0..200 {
        stage.make_room(socket, 100_000);
    }
    let sent = String::from_utf8(stage.sent(socket)).expect("a page");
    assert!(sent.starts_with("HTTP/1.1 200 ") && sent.ends_with("</html>\n"), "{} bytes", sent.len());
    assert!(stage.socket(socket, |kernel| kernel.fin || kernel.down == Some(false)), "it ends");
}

/// Who sends a request and closes that side reads on (RFC 9112 §9.6).
#[test]
fn a_fin_right_behind_a_request_takes_nothing_of_its_answer() {
    for room in [usize::MAX, 1_000, 0] {
        for at_once in [true, false] {
            let mut stage = Stage::new("", "page = {}");
            let client = stage.accept();
            stage.socket(client, |kernel| kernel.room = room);
            stage.arrive(client, REQUEST);
            if !at_once {
                stage.turns(3);
            }
            finish(&stage, client);
            stage.turns(3);
            assert_answered(&mut stage, client);
        }
    }
}

#[test]
fn who_has_not_read_all_of_an_answer_when_the_gateway_ends_gets_the_rest() {
    let mut stage = Stage::new("", "page = {}");
    let (reads, idle) = (stage.accept(), stage.accept());
    stage.socket(reads, |kernel| kernel.room = 1_000);
    stage.send(reads, REQUEST);
    stage.send(idle, REQUEST);
    stage.drain();
    assert_eq!(stage.down(idle), Some(false), "it has its answer, and is not waited for");
    assert_answered(&mut stage, reads);
}

/// Nor does a request behind it that is not whole, or has to wait.
#[test]
fn a_fin_behind_a_request_that_cannot_be_answered_takes_nothing_of_the_answer_before() {
    let config = "[[topic]]\nname = \"**\"\n[[route]]\npath = \"/r\"\npage = {}\n\
                  [[route]]\npath = \"/publish\"\npublish = { publish = [\"**\"] }\n\
                  [[route]]\npath = \"/up\"\nproxy = { upstreams = [\"ws://127.0.0.1:2\"] }\n";
    let half = b"POST /publish?topic=a HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 9\r\n\r\n{".to_vec();
    for second in [half, stage::request("/up", "")] {
        for room in [usize::MAX, 1_000] {
            let mut stage = Stage::of(config, 1);
            let client = stage.accept();
            stage.socket(client, |kernel| kernel.room = room);
            stage.arrive(client, &[REQUEST, &second].concat());
            finish(&stage, client);
            stage.turns(3);
            assert_answered(&mut stage, client);
        }
    }
}
