//! What becomes due when, and who waits for whom: a shard on a backend that a test plays by hand, in virtual time.

mod stage;

use tidegate_io::{BUFFER_BYTES, Event, ReceiveEnd};
use tidegate_shard::Progress;
use tidegate_wire::deflate::{CodecLimits, Codecs};

use stage::{Socket, Stage, close_frame, frame};

const ECHO: &str = "echo = {}";
const PROXY: &str = "proxy = { upstreams = [\"ws://127.0.0.1:2\"] }";

#[test]
fn a_shard_that_never_waits_still_ends_what_is_late() {
    let mut stage = Stage::new("head_timeout = \"5s\"", ECHO);
    let (starved, silent) = (stage.accept(), stage.accept());
    // One waits for a receive buffer, and there is an event in every turn: no turn waits.
    let token = stage.socket(starved, |kernel| kernel.receive.take()).expect("armed");
    stage.world.borrow_mut().empty = true;
    stage.world.borrow_mut().complete(Event::ReceiveEnded { token, end: ReceiveEnd::Starved });
    for _ in 0..100 {
        stage.world.borrow_mut().now_ms += 100;
        stage.world.borrow_mut().complete(Event::Woken);
        stage.turn();
    }
    assert!(stage.sent(silent).starts_with(b"HTTP/1.1 408"), "it has had ten seconds of five");
}

#[test]
fn what_came_while_the_process_stood_still_is_read_first() {
    let mut stage = Stage::new("head_timeout = \"5s\"", ECHO);
    let (late, silent) = (stage.accept(), stage.accept());
    stage.world.borrow_mut().now_ms += 60_000;
    stage.send(
        late,
        b"GET /r HTTP/1.1\r\nHost: gw.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    assert!(stage.sent(late).starts_with(b"HTTP/1.1 101"));
    assert!(stage.sent(silent).starts_with(b"HTTP/1.1 408"), "the turn behind that one judges");
}

/// Sessions at `/r` that have been silent for longer than they may, each with a message that waits to be read.
fn behind_a_standstill(sessions: usize) -> (Stage, Vec<Socket>) {
    let mut stage = Stage::new("ping_interval = \"0s\"\nidle_timeout = \"3s\"", ECHO);
    let sockets: Vec<Socket> = (0..sessions).map(|_| stage.open()).collect();
    stage.world.borrow_mut().now_ms += 5_000;
    (stage, sockets)
}

#[test]
fn a_wait_that_was_cut_short_by_the_standstill_is_no_proof_that_nothing_came() {
    let (mut stage, sockets) = behind_a_standstill(1);
    // A process that is stopped and goes on comes back from its wait with nothing (signal(7): `EINTR`).
    stage.turn();
    stage.send(sockets[0], &frame(0x82, b"here", true));
    stage.turns(3);
    assert_eq!(stage.sent(sockets[0]), frame(0x82, b"here", false));
}

#[test]
fn what_came_meanwhile_is_read_however_many_turns_that_takes() {
    let (mut stage, sockets) = behind_a_standstill(40);
    // The kernel reports some of it in each turn (an epoll backend 256 at most, a ring as few as 20).
    for &socket in &sockets {
        stage.arrive(socket, &frame(0x82, b"here", true));
        stage.turn();
    }
    stage.turns(3);
    for socket in sockets {
        assert_eq!(stage.sent(socket), frame(0x82, b"here", false), "{socket}");
    }
}

#[test]
fn who_goes_on_talking_puts_off_nobodys_end_behind_a_standstill() {
    let (mut stage, sockets) = behind_a_standstill(2);
    for _ in 0..150 {
        stage.world.borrow_mut().now_ms += 100;
        stage.arrive(sockets[0], &frame(0x82, b"here", true));
        stage.turn();
    }
    assert!(
        stage.sent(sockets[1]).ends_with(&close_frame(1001, "idle for too long")),
        "{:?}",
        stage.sent(sockets[1])
    );
}

#[test]
fn a_process_that_always_comes_late_judges_in_every_other_turn() {
    let mut stage = Stage::new("head_timeout = \"5s\"", ECHO);
    let silent = stage.accept();
    for _ in 0..2 {
        stage.world.borrow_mut().now_ms += 60_000;
        stage.world.borrow_mut().complete(Event::Woken);
        stage.turn();
    }
    stage.turn();
    assert!(stage.sent(silent).starts_with(b"HTTP/1.1 408"));
}

#[test]
fn who_waits_for_buffers_first_is_armed_first() {
    let mut stage = Stage::new("", ECHO);
    let sockets: Vec<Socket> = (0..4).map(|_| stage.accept()).collect();
    stage.world.borrow_mut().empty = true;
    for &socket in &sockets {
        let token = stage.socket(socket, |kernel| kernel.receive.take()).expect("armed");
        stage.world.borrow_mut().complete(Event::ReceiveEnded { token, end: ReceiveEnd::Starved });
    }
    stage.turn();
    stage.world.borrow_mut().armed.clear();
    stage.world.borrow_mut().empty = false;
    stage.turns(2);
    assert_eq!(stage.world.borrow().armed, sockets);
}

#[test]
fn a_drain_bounds_a_linger_that_waits_for_a_slow_reader() {
    let mut stage = Stage::new("close_timeout = \"2s\"\nwrite_timeout = \"30s\"", ECHO);
    let socket = stage.open();
    stage.socket(socket, |kernel| kernel.room = 10);
    stage.send(socket, &[frame(0x82, &[7; 5_000], true), frame(0x88, b"", true)].concat());
    stage.pass(5);
    stage.drain();
    for _ in 0..30 {
        stage.pass(1);
        if stage.turn() == Progress::Ended {
            return;
        }
        stage.make_room(socket, 1);
    }
    panic!("thirty seconds, and a byte of 5,000 in each: the drain waits for a reader without end");
}

#[test]
fn a_routes_own_close_timeout_counts() {
    // Where the peer does not answer a Close, and where it does not end behind it.
    let limits = "close_timeout = \"20s\"\nwrite_timeout = \"60s\"";
    let route = "limits = { close_timeout = \"2s\" }";
    let mut stage = Stage::new(limits, &format!("{route}\n{ECHO}"));
    let socket = stage.open();
    stage.send(socket, &frame(0x88, b"", true));
    stage.pass(3);
    assert_eq!(stage.down(socket), Some(true), "it does not end");

    let mut stage = Stage::new(limits, &format!("{route}\n{ECHO}"));
    let socket = stage.open();
    stage.drain();
    assert_eq!(stage.down(socket), None);
    stage.pass(3);
    assert_eq!(stage.down(socket), Some(true), "it does not answer a drain's Close");

    let mut stage = Stage::new(limits, &format!("{route}\n{PROXY}"));
    let (client, upstream) = stage.pair();
    stage.send(client, &frame(0x88, b"", true));
    stage.pass(3);
    assert_eq!(stage.down(upstream), Some(true), "the upstream does not answer");
    assert_eq!(stage.sent(client), frame(0x88, b"", false));

    // What is refused before it had a route goes by that of all.
    let mut stage = Stage::new(limits, &format!("{route}\n{ECHO}"));
    let socket = stage.accept();
    stage.send(socket, b"GET /other HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    stage.pass(10);
    assert_eq!(stage.down(socket), None);
    stage.pass(11);
    assert_eq!(stage.down(socket), Some(true));
}

/// What a test needs to see nothing of: pings each five seconds, pongs and messages within three.
const HURRY: &str = "limits = { ping_interval = \"5s\", pong_timeout = \"3s\", message_timeout = \"3s\", \
                     idle_timeout = \"10s\", outbox_soft = \"16KiB\" }";
const WRITE: &str = "write_timeout = \"20s\"";

#[test]
fn a_slow_reader_of_an_echo_is_not_silent() {
    let mut stage = Stage::new(WRITE, &format!("{HURRY}\n{ECHO}"));
    let socket = stage.open();
    stage.socket(socket, |kernel| kernel.room = 0);
    // More than its outbox takes: it is not read any more, and half a message of it stands open.
    let half = frame(0x82, &[8; 2_000], true);
    stage.send(socket, &[&frame(0x82, &[7; 40_000], true)[..], &half[..1_000]].concat());
    assert!(stage.socket(socket, |kernel| kernel.receive.is_none()), "it is paused");
    let mut seconds = 0;
    while stage.socket(socket, |kernel| kernel.receive.is_none()) {
        stage.make_room(socket, 1_000);
        stage.pass(1);
        assert_eq!(stage.down(socket), None, "{:?}", stage.log.borrow());
        seconds += 1;
        assert!(seconds < 40, "it is read again once it has taken nearly all");
    }
    // From now on its half message has three seconds.
    stage.pass(2);
    stage.send(socket, &half[1_000..]);
    for _ in seconds..40 {
        stage.make_room(socket, 1_000);
        stage.pass(1);
        assert_eq!(stage.down(socket), None, "{:?}", stage.log.borrow());
    }
    stage.make_room(socket, usize::MAX);
    assert_eq!(stage.sent(socket).len(), 40_004 + 2_004);
    // All it was sent are its messages: a ping comes when it has been silent since then.
    stage.pass(6);
    assert_eq!(stage.sent(socket)[42_008..][..2], [0x89, 12]);
    stage.pass(4);
    assert_eq!(stage.down(socket), Some(true), "a silent one is ended as ever: {:?}", stage.log.borrow());
}

#[test]
fn a_slow_reader_of_an_upstream_is_not_silent() {
    let mut stage = Stage::new(WRITE, &format!("{HURRY}\n{PROXY}"));
    let (client, upstream) = stage.pair();
    stage.socket(client, |kernel| kernel.room = 0);
    let message = frame(0x82, &[7; 40_000], false);
    for part in message.chunks(10_000) {
        stage.send(upstream, part);
        if stage.socket(upstream, |kernel| kernel.receive.is_none()) {
            break;
        }
    }
    assert!(
        stage.socket(upstream, |kernel| kernel.receive.is_none()),
        "it is paused in the middle of a message"
    );
    for _ in 0..10 {
        stage.make_room(client, 1_000);
        stage.pass(2);
        assert_eq!((stage.down(client), stage.down(upstream)), (None, None), "{:?}", stage.log.borrow());
    }
    // The upstream has three seconds for the rest from now on, and the client its time for a pong.
    stage.make_room(client, usize::MAX);
    stage.pass(2);
    assert_eq!((stage.down(client), stage.down(upstream)), (None, None), "{:?}", stage.log.borrow());
    stage.pass(2);
    let close = stage.sent(upstream);
    assert_eq!((close[0], &close[6..8]), (0x88, &1008_u16.to_be_bytes()[..]), "the rest never came");
}

#[test]
fn a_reader_that_takes_nothing_is_ended_by_the_write_timeout() {
    let mut stage = Stage::new(WRITE, &format!("{HURRY}\n{ECHO}"));
    let socket = stage.open();
    stage.socket(socket, |kernel| kernel.room = 0);
    stage.send(socket, &frame(0x82, &[7; 1_000], true));
    stage.pass(19);
    assert_eq!(stage.down(socket), None, "{:?}", stage.log.borrow());
    stage.pass(2);
    assert_eq!(stage.down(socket), Some(true));
}

#[test]
fn a_slow_client_of_an_upstream_is_told_to_try_again_later() {
    let mut stage = Stage::new(WRITE, &format!("{HURRY}\n{PROXY}"));
    let (client, upstream) = stage.pair();
    stage.socket(client, |kernel| kernel.room = 1_000);
    // Whole messages that do not end where receives do, then the beginning of one.
    let message = frame(0x82, &[7; 6_000], false);
    for part in message.repeat(4)[..20_000].chunks(5_000) {
        stage.send(upstream, part);
    }
    assert!(stage.socket(upstream, |kernel| kernel.receive.is_none()), "it is paused");
    stage.pass(21);
    assert_eq!((stage.down(client), stage.down(upstream)), (None, None), "{:?}", stage.log.borrow());
    let close = stage.sent(upstream);
    assert_eq!((close[0], &close[6..8]), (0x88, &1001_u16.to_be_bytes()[..]));
    // What it was in the middle of is completed: the first boundary that the outbox knows.
    stage.make_room(client, usize::MAX);
    let sent = stage.sent(client);
    let told = close_frame(1013, "slow consumer");
    let whole = sent.len() - told.len();
    assert!(whole.is_multiple_of(message.len()) && sent.starts_with(&message), "{} bytes", sent.len());
    assert_eq!(sent[whole..], told);
    assert!(stage.socket(client, |kernel| kernel.fin));
    assert_eq!(stage.down(client), None);
}

#[test]
fn a_slow_client_inside_a_long_frame_is_reset() {
    let mut stage = Stage::new(WRITE, &format!("{HURRY}\n{PROXY}"));
    let (client, upstream) = stage.pair();
    stage.socket(client, |kernel| kernel.room = 1_000);
    stage.send(upstream, &frame(0x82, &[7; 9_000], false)[..5_000]);
    // And it is itself inside a frame towards the upstream.
    stage.send(client, &frame(0x82, &[7; 9_000], true)[..5_000]);
    stage.pass(21);
    assert_eq!((stage.down(client), stage.down(upstream)), (Some(true), Some(true)));
}

#[test]
fn a_slow_client_that_takes_nothing_more_is_cut_off() {
    let mut stage = Stage::new(WRITE, &format!("{HURRY}\n{PROXY}"));
    let (client, upstream) = stage.pair();
    stage.socket(client, |kernel| kernel.room = 1_000);
    // So much that the upstream is not read any more.
    for part in frame(0x82, &[7; 19_000], false).chunks(5_000) {
        stage.send(upstream, part);
    }
    stage.pass(21);
    assert_eq!(stage.down(client), None, "{:?}", stage.log.borrow());
    stage.pass(20);
    assert_eq!(stage.down(client), Some(true));
}

#[test]
fn what_had_arrived_before_the_pause_waits_for_the_reader_and_takes_no_buffers() {
    let mut stage = Stage::new(
        "message_bytes = \"16KiB\"\nwrite_timeout = \"60s\"\noutbox_soft = \"64KiB\"\noutbox_hard = \"128KiB\"",
        "full = \"pause\"\necho = {}",
    );
    let (slow, other) = (stage.open(), stage.open());
    stage.socket(slow, |kernel| kernel.room = 0);
    // 50 of the 64 buffers: several times the hard limit of the outbox that they are for.
    let sent: Vec<u8> =
        (0..50 * BUFFER_BYTES / 1_100).flat_map(|n| frame(0x82, &[n as u8; 1_000], true)).collect();
    stage.send_at_once(slow, &sent);
    stage.pass(5);
    assert_eq!(*stage.log.borrow(), [""; 0], "nobody is ended");
    let lent = stage.world.borrow().pool.lent();
    assert_eq!(lent.lent, 0, "of {}: what waits for a peer has left them", lent.total);
    assert!(stage.socket(slow, |kernel| kernel.receive.is_none()), "it is not read meanwhile");
    let seen = stage.shard.inspect();
    assert_eq!(seen.retained, seen.retained_sum);
    assert!(seen.retained > sent.len() && seen.outbox_most <= 128 << 10, "{seen:?}");
    stage.send(other, &frame(0x81, b"still here", true));
    assert_eq!(stage.sent(other), frame(0x81, b"still here", false));
    for _ in 0..200 {
        stage.make_room(slow, 10_000);
    }
    let echoed: Vec<u8> =
        (0..50 * BUFFER_BYTES / 1_100).flat_map(|n| frame(0x82, &[n as u8; 1_000], false)).collect();
    assert!(stage.sent(slow) == echoed, "{} of {} bytes", stage.sent(slow).len(), echoed.len());
    assert!(stage.socket(slow, |kernel| kernel.receive.is_some()), "it is read again");
    assert_eq!(stage.shard.inspect().retained, 0);
}

#[test]
fn who_sent_little_does_not_wait_for_all_that_others_sent() {
    let mut stage = Stage::new("", "echo = {}");
    let (busy, other) = (stage.open(), stage.open());
    stage.shard.bound_turns(usize::MAX, 2);
    let message = frame(0x82, &[7; BUFFER_BYTES - 8], true);
    stage.send_at_once(busy, &message.repeat(40));
    let before = stage.sent(busy).len();
    stage.send_at_once(other, &frame(0x81, b"a word", true));
    // What was read is sent with the turn behind it.
    stage.turn();
    assert_eq!(stage.sent(other), frame(0x81, b"a word", false));
    let meanwhile = stage.sent(busy).len() - before;
    assert!((1..=3 * 2 * message.len()).contains(&meanwhile), "each has its part: {meanwhile} bytes");
    stage.turns(30);
    assert_eq!(stage.sent(busy).len(), 40 * (message.len() - 4));
}

#[test]
fn pages_and_refusals_are_dated() {
    let mut stage = Stage::new("", "page = {}");
    // RFC 9110 §6.6.1.
    for (target, status) in [("/r", "200 OK"), ("/nowhere", "404 Not Found")] {
        let client = stage.accept();
        stage.send(client, format!("GET {target} HTTP/1.1\r\nHost: gw.test\r\n\r\n").as_bytes());
        let answer = String::from_utf8(stage.sent(client)).expect("a head and a page of text");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        assert_eq!(answer.matches("\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n").count(), 1, "{answer}");
    }
}

#[test]
fn a_reader_that_may_lose_messages_does_not_pause_its_producer() {
    for (full, read_on) in [("drop_new", true), ("drop_old", true), ("disconnect", true), ("pause", false)] {
        let mut stage = Stage::new(
            "message_bytes = \"128KiB\"\noutbox_soft = \"64KiB\"\noutbox_hard = \"128KiB\"",
            &format!("full = \"{full}\"\necho = {{}}"),
        );
        let slow = stage.open();
        stage.socket(slow, |kernel| kernel.room = 1_000);
        // What the kernel leaves of it is more than `outbox_soft`.
        stage.send(slow, &frame(0x82, &[7; 100_000], true));
        assert_eq!(stage.socket(slow, |kernel| kernel.receive.is_some()), read_on, "{full}");
    }
}

/// A mebibyte of zeros in about 1 KiB.
fn bomb() -> Vec<u8> {
    let mut bomb = Vec::new();
    Codecs::new(CodecLimits::default()).deflate(15, &vec![0; 1 << 20], &mut bomb);
    frame(0xc2, &bomb, true)
}

#[test]
fn a_turn_inflates_a_mebibyte_or_two() {
    let mut stage = Stage::new("", "echo = {}");
    let bomber = stage.open_with("Sec-WebSocket-Extensions: permessage-deflate\r\n");
    let sent = bomb().repeat(30);
    // One that is inflated and deflated is more than a turn's part for what it has kept.
    stage.send_at_once(bomber, &sent);
    assert!(stage.shard.counters().messages <= 2);
    assert!(stage.most_read_in_a_turn() <= 2);
    assert_eq!(stage.shard.counters().messages, 30);
    assert!(stage.socket(bomber, |kernel| kernel.receive.is_some()));
}

#[test]
fn an_answer_that_waits_takes_no_more_memory_than_it_needs() {
    let mut stage = Stage::new("", "echo = {}");
    let bomber = stage.open_with("Sec-WebSocket-Extensions: permessage-deflate\r\n");
    stage.socket(bomber, |kernel| kernel.room = 100);
    stage.send_at_once(bomber, &bomb().repeat(30));
    stage.turns(200);
    assert_eq!(stage.shard.counters().messages, 30);
    let seen = stage.shard.inspect();
    assert!(seen.outbox_bytes > 25_000, "{seen:?}");
    assert!(seen.retained < 2 * seen.outbox_bytes + (100 << 10), "{seen:?}");
}

#[test]
fn what_did_not_fit_into_a_turn_is_not_waited_for() {
    let mut stage = Stage::new("", "echo = {}");
    let client = stage.open_with("Sec-WebSocket-Extensions: permessage-deflate\r\n");
    // The first of them fills the turn, and its answer leaves without any event that would tell.
    stage.send_at_once(client, &[bomb(), frame(0x81, b"a word", true)].concat());
    for _ in 0..3 {
        if stage.sent(client).ends_with(b"a word") {
            return;
        }
        stage.turn();
        let now_ms = stage.world.borrow().now_ms;
        let waits = stage.world.borrow().deadline.is_none_or(|deadline| deadline.as_millis() as u64 > now_ms);
        assert!(!waits || stage.sent(client).ends_with(b"a word"), "it waits with bytes that it has");
    }
    panic!("{} bytes", stage.sent(client).len());
}

#[test]
fn a_late_turn_is_followed_by_one_that_judges_where_nothing_has_come() {
    let mut stage = Stage::new("head_timeout = \"5s\"", ECHO);
    let silent = stage.accept();
    stage.world.borrow_mut().now_ms += 60_000;
    stage.turns(3);
    assert!(stage.sent(silent).starts_with(b"HTTP/1.1 408"));
}

#[test]
fn reading_slowly_puts_off_no_message_that_is_incomplete() {
    let mut stage = Stage::new("message_timeout = \"5s\"", ECHO);
    let client = stage.open();
    // Its answers trickle, and between them the outbox is empty.
    stage.socket(client, |kernel| kernel.room = 0);
    stage.send(client, &frame(0x01, b"a part", true));
    for _ in 0..8 {
        stage.send(client, &frame(0x89, b"are you there", true));
        stage.pass(1);
        stage.make_room(client, 15);
        stage.socket(client, |kernel| kernel.room = 0);
    }
    stage.make_room(client, usize::MAX);
    let close = close_frame(1008, "a message took too long to complete");
    assert!(stage.sent(client).ends_with(&close), "{:?}", stage.log.borrow());
}

#[test]
fn of_a_refusal_that_is_too_long_the_status_alone_is_relayed() {
    for (body, whole) in [(60_000, true), (70_000, false)] {
        let mut stage = Stage::new("", PROXY);
        let client = stage.client("");
        let upstream = client + 1;
        stage.connect(upstream);
        let answer = [b"HTTP/1.1 403 No\r\n\r\n", &vec![b'x'; body][..]].concat();
        for part in answer.chunks(10_000) {
            if stage.socket(upstream, |kernel| kernel.receive.is_some()) {
                stage.send(upstream, part);
            }
        }
        if let Some(token) = stage.socket(upstream, |kernel| kernel.receive.take()) {
            stage.world.borrow_mut().complete(Event::ReceiveEnded { token, end: ReceiveEnd::Eof });
        }
        stage.turns(3);
        let sent = stage.sent(client);
        assert!(sent.starts_with(b"HTTP/1.1 403 "));
        let bytes = sent.iter().rev().take_while(|byte| **byte == b'x').count();
        assert_eq!(bytes, if whole { body } else { 0 });
        let alone = String::from_utf8_lossy(&sent).contains("\r\nContent-Length: 0\r\n");
        assert_eq!(alone, !whole, "one that is cut does not look complete");
        assert!(stage.socket(client, |kernel| kernel.fin));
    }
}

#[test]
fn what_looks_back_at_a_dropped_message_goes_with_it_though_a_close_follows() {
    let mut stage = Stage::new(
        "takeover_bytes = \"16MiB\"\nmessage_bytes = \"16KiB\"\noutbox_soft = \"4KiB\"\noutbox_hard = \"8KiB\"",
        "full = \"drop_new\"\necho = { context_takeover = true }",
    );
    let client = stage.open_with("Sec-WebSocket-Extensions: permessage-deflate\r\n");
    stage.socket(client, |kernel| kernel.room = 0);
    // Nothing that deflating makes smaller (a linear congruence, Knuth), so that it does not fit.
    let noise: Vec<u8> = (0..9_000_u32)
        .scan(1_u32, |state, _| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some((*state >> 24) as u8)
        })
        .collect();
    stage.send(client, &frame(0x82, &noise[..500], true));
    let goodbye = frame(0x88, &1_000_u16.to_be_bytes(), true);
    stage.send(
        client,
        &[frame(0x82, &noise, true), frame(0x82, &noise[8_000..8_200], true), goodbye].concat(),
    );
    stage.make_room(client, usize::MAX);
    let sent = stage.sent(client);
    let first = 4 + usize::from(u16::from_be_bytes([sent[2], sent[3]]));
    assert_eq!((sent[0], sent[1]), (0xc2, 126));
    assert_eq!(sent[first..], frame(0x88, &1_000_u16.to_be_bytes(), false));
}

#[test]
fn a_turn_inflates_only_so_many_blocks_that_hold_nothing() {
    let mut stage = Stage::new("", "echo = {}");
    let client = stage.open_with("Sec-WebSocket-Extensions: permessage-deflate\r\n");
    // RFC 7692 §7.2.3.4: blocks that end the stream, each of them empty.
    let hollow = frame(0xc2, &[3, 0].repeat(8_000), true);
    stage.send_at_once(client, &hollow.repeat(10));
    assert!(stage.shard.counters().messages <= 2);
    assert!(stage.most_read_in_a_turn() <= 2);
    assert_eq!(stage.shard.counters().messages, 10);
}

#[test]
fn early_bytes_are_read_with_the_turns_as_others_are() {
    let mut stage = Stage::new("", &PROXY.replace(" }", ", deflate = \"edge\" }"));
    let client = stage.client("Sec-WebSocket-Extensions: permessage-deflate\r\n");
    let upstream = client + 1;
    // RFC 6455 §4.1 has clients wait; those that do not shall not cost more.
    stage.send_at_once(client, &bomb().repeat(30));
    stage.turns(3);
    assert!(stage.socket(client, |kernel| kernel.receive.is_none()), "it is paused");
    stage.upgrade(upstream);
    assert!(stage.shard.counters().relayed <= 2);
    assert!(stage.most_read_in_a_turn() <= 2);
    assert_eq!(stage.shard.counters().relayed, 30);
    assert!(stage.socket(client, |kernel| kernel.receive.is_some()));
}

#[test]
fn requests_that_are_sent_ahead_wait_for_their_reader() {
    let mut stage =
        Stage::new("outbox_soft = \"64KiB\"\noutbox_hard = \"1MiB\"\nhead_timeout = \"5s\"", "page = {}");
    let client = stage.accept();
    stage.socket(client, |kernel| kernel.room = 1_000);
    stage.send_at_once(client, &b"GET /r HTTP/1.1\r\nHost: gw.test\r\n\r\n".repeat(400));
    // Longer than a connection that is kept open may wait for its next request.
    for _ in 0..20 {
        stage.make_room(client, 1_000);
        stage.pass(1);
        assert_eq!((stage.down(client), stage.socket(client, |kernel| kernel.fin)), (None, false));
    }
    for _ in 0..200 {
        stage.make_room(client, 100_000);
    }
    let sent = stage.sent(client);
    let answers = sent.windows(12).filter(|window| *window == b"HTTP/1.1 200").count();
    assert_eq!(answers, 400, "{:?}", stage.log.borrow());
    assert!(sent.ends_with(b"</html>\n"));
    // Only now its next request has five seconds.
    stage.pass(4);
    assert_eq!(stage.down(client), None);
    stage.pass(2);
    assert_eq!(stage.down(client), Some(false));
}

/// Topics at `/r`, `/events` and `/poll` that know who is there.
const PRESENT: &str = "topics = { subscribe = [\"**\"], presence = [\"**\"] }\n\
    [[route]]\npath = \"/events\"\nevents = { subscribe = [\"**\"], presence = [\"**\"] }\n\
    [[route]]\npath = \"/poll\"\npoll = { subscribe = [\"**\"], presence = [\"**\"] }\n\
    [[topic]]\nname = \"**\"\npresence = true\n";

impl Stage {
    /// A stage with somebody who watches who is in a topic.
    fn watched() -> (Stage, Socket) {
        let mut stage = Stage::new("ping_interval = \"0s\"", PRESENT);
        let watcher = stage.open();
        stage.send(watcher, &frame(0x81, br#"{"op":"subscribe","id":1,"topic":"a","presence":true}"#, true));
        assert_eq!(stage.moves(watcher), [""; 0]);
        (stage, watcher)
    }

    fn get(&mut self, socket: Socket, target: &str) {
        self.send(socket, format!("GET {target} HTTP/1.1\r\nHost: gw.test\r\n\r\n").as_bytes());
        let sent = self.socket(socket, |kernel| std::mem::take(&mut kernel.sent));
        assert!(sent.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&sent));
    }

    fn reset(&mut self, socket: Socket) {
        let token = self.socket(socket, |kernel| kernel.receive.take()).expect("it is read");
        self.world.borrow_mut().complete(Event::ReceiveEnded { token, end: ReceiveEnd::Error(104) });
        self.turns(3);
    }

    /// Who has come (`+`) and gone (`-`) since the last time, as a watcher was told.
    fn moves(&self, watcher: Socket) -> Vec<String> {
        let sent = self.socket(watcher, |kernel| std::mem::take(&mut kernel.sent));
        let told = String::from_utf8_lossy(&sent);
        let moves = told.split(r#"{"op":""#).filter_map(|told| {
            let sign = match told.split('"').next()? {
                "join" => '+',
                "leave" => '-',
                _ => return None,
            };
            let (_, client) = told.split_once(r#""client":""#)?;
            Some(format!("{sign}{}", client.split('"').next()?))
        });
        moves.collect()
    }
}

#[test]
fn the_reader_of_a_stream_leaves_half_a_minute_behind_its_end() {
    let (mut stage, watcher) = Stage::watched();
    let stream = stage.accept();
    stage.get(stream, "/events?topic=a&client=reader-1");
    assert_eq!(stage.moves(watcher), ["+reader-1"]);
    stage.pass(60);
    stage.reset(stream);
    stage.pass(20);
    assert_eq!(stage.moves(watcher), [""; 0], "a browser comes back");
    let again = stage.accept();
    stage.get(again, "/events?topic=a&client=reader-1&info=2");
    assert_eq!(stage.moves(watcher), ["+reader-1"], "what it says of itself now");
    stage.pass(60);
    assert_eq!(stage.moves(watcher), [""; 0]);
    stage.reset(again);
    stage.pass(29);
    assert_eq!(stage.moves(watcher), [""; 0]);
    stage.pass(2);
    assert_eq!(stage.moves(watcher), ["-reader-1"]);
}

#[test]
fn a_poller_leaves_half_a_minute_behind_its_last_request() {
    let (mut stage, watcher) = Stage::watched();
    for round in 0..3 {
        let poll = stage.accept();
        stage.get(poll, "/poll?topic=a&client=poller-1&wait=0");
        assert_eq!(stage.moves(watcher), if round == 0 { vec!["+poller-1"] } else { vec![] });
        stage.pass(29);
        assert_eq!(stage.moves(watcher), [""; 0]);
    }
    stage.pass(2);
    assert_eq!(stage.moves(watcher), ["-poller-1"]);
    // However long an answer might have taken that came at once.
    let poll = stage.accept();
    stage.get(poll, "/poll?topic=a&client=poller-2&wait=25");
    stage.pass(29);
    assert_eq!(stage.moves(watcher), ["+poller-2"]);
    stage.pass(2);
    assert_eq!(stage.moves(watcher), ["-poller-2"]);
    // Where it is not to be it is not.
    let poll = stage.accept();
    stage.get(poll, "/poll?topic=a&topic=b&client=poller-1&wait=0&attend=b");
    assert_eq!(stage.moves(watcher), [""; 0]);
}

#[test]
fn a_connection_that_polls_under_many_names_keeps_sixteen_of_them_present() {
    let (mut stage, watcher) = Stage::watched();
    let (one, other) = (stage.accept(), stage.accept());
    let poll = |stage: &mut Stage, socket, n| {
        stage.get(socket, &format!("/poll?topic=a&client=poller-{n}&wait=0"));
    };
    for n in 0..16 {
        poll(&mut stage, one, n);
    }
    assert_eq!(stage.moves(watcher).len(), 16);
    // As behind a proxy: this one comes over another connection now, and is that one's.
    poll(&mut stage, other, 1);
    for n in 16..19 {
        poll(&mut stage, one, n);
    }
    assert_eq!(stage.moves(watcher), ["-poller-0", "+poller-16", "+poller-17", "-poller-2", "+poller-18"]);
    // Who is asked for again is the last to go.
    poll(&mut stage, one, 3);
    poll(&mut stage, one, 19);
    assert_eq!(stage.moves(watcher), ["-poller-4", "+poller-19"]);
}
