//! What both backends promise of a connection, on real sockets.

mod rig;

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    thread,
    time::Duration,
};

use proptest::prelude::*;
use rustix::net::sockopt;
use tidegate_io::{Event, ListenerId, MAX_PIECES, ReceiveEnd, Remainder, Token, UringOptions, Wake};

use self::rig::{Out, Rig, Subject, pattern, read_exactly};

on_both!(
    a_client_that_has_gone_has_an_address_or_is_not_accepted,
    a_reset_is_an_error,
    a_shutdown_ends_a_receive_and_a_poll,
    a_shutdown_with_reset_sends_a_reset_and_no_fin,
    accepts_from_a_unix_socket,
    accepts_receives_sends_and_closes,
    an_unlistened_port_refuses,
    any_pieces_arrive_in_order,
    cancelling_nothing_does_nothing,
    cancels_a_receive_and_arms_it_again,
    dropping_with_operations_in_flight_is_sound,
    listeners_are_told_apart,
    many_sends_in_a_turn_all_go_out,
    one_send_of_many_pieces_arrives_in_order,
    sends_to_the_dead_leave_an_error,
    turns_end_at_their_deadline,
    wakes_arrive_from_another_thread,
);

fn accepts_receives_sends_and_closes<B: Subject>() {
    let mut rig = Rig::<B>::new();
    let address = rig.listen();
    let mut far = TcpStream::connect(address).unwrap();
    let (socket, peer) = rig.accepted();
    assert_eq!(peer, Some(far.local_addr().unwrap()));
    assert!(sockopt::tcp_nodelay(&socket).unwrap(), "inherited from the listener");
    let token = Token(7);
    rig.backend.receive(&socket, token);
    far.write_all(b"hello").unwrap();
    assert_eq!(rig.received(token), b"hello");
    assert!(rig.poll(&Out(vec![(&socket, vec![b"well met"])])).is_empty());
    assert_eq!(read_exactly(&mut far, 8), b"well met");
    rig.backend.shutdown_write(&socket);
    assert_eq!(far.read(&mut [0]).unwrap(), 0, "a FIN");
    far.write_all(b"still here").unwrap();
    assert_eq!(rig.received(token), b"still here", "half closed");
    far.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rig.ended(token), ReceiveEnd::Eof);
    rig.backend.close(socket);
    rig.finish();
}

fn listeners_are_told_apart<B: Subject>() {
    let mut rig = Rig::<B>::new();
    let mut addresses = Vec::new();
    for id in [0, 3, 255] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        addresses.push((ListenerId(id), listener.local_addr().unwrap()));
        rig.backend.listen(ListenerId(id), listener.into()).unwrap();
        rig.backend.accept(ListenerId(id));
    }
    for (id, address) in addresses {
        let far = TcpStream::connect(address).unwrap();
        rig.turn(&Out::default());
        let [Event::Accepted { listener, peer, .. }] = rig.events.as_slice() else {
            panic!("{:?}", rig.events)
        };
        assert_eq!((*listener, *peer), (id, Some(far.local_addr().unwrap())));
        rig.events.clear();
    }
    rig.finish();
}

fn accepts_from_a_unix_socket<B: Subject>() {
    let mut rig = Rig::<B>::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("listener");
    rig.backend.listen(ListenerId(1), UnixListener::bind(&path).unwrap().into()).unwrap();
    rig.backend.accept(ListenerId(1));
    let mut far = UnixStream::connect(&path).unwrap();
    let (socket, peer) = rig.accepted();
    assert_eq!(peer, None);
    rig.backend.receive(&socket, Token(1));
    far.write_all(b"from afar").unwrap();
    assert_eq!(rig.received(Token(1)), b"from afar");
    drop(far);
    assert_eq!(rig.ended(Token(1)), ReceiveEnd::Eof);
    rig.backend.close(socket);
    // Here nobody has an address, also who has gone already: what it has said is heard.
    let mut gone = UnixStream::connect(&path).unwrap();
    gone.write_all(b"last words").unwrap();
    drop(gone);
    let (socket, _) = rig.accepted();
    rig.backend.receive(&socket, Token(2));
    assert_eq!(rig.received(Token(2)), b"last words");
    assert_eq!(rig.ended(Token(2)), ReceiveEnd::Eof);
    rig.backend.close(socket);
    rig.finish();
}

/// Whose address nobody knows, no limit of addresses would hold.
fn a_client_that_has_gone_has_an_address_or_is_not_accepted<B: Subject>() {
    let mut rig = Rig::<B>::new();
    let address = rig.listen();
    for _ in 0..10 {
        let mut gone = TcpStream::connect(address).unwrap();
        gone.write_all(b"do this").unwrap();
        // It is reset, and what it has said can be read nonetheless.
        sockopt::set_socket_linger(&gone, Some(Duration::ZERO)).unwrap();
    }
    let far = TcpStream::connect(address).unwrap();
    loop {
        let (socket, peer) = rig.accepted();
        assert!(peer.is_some(), "a connection of nobody");
        rig.backend.close(socket);
        if peer == Some(far.local_addr().unwrap()) {
            break;
        }
    }
    rig.finish();
}

fn an_unlistened_port_refuses<B: Subject>() {
    let mut rig = Rig::<B>::new();
    let address = rig.listen();
    rig.backend.unlisten(ListenerId(0));
    rig.poll(&Out::default());
    rig.poll(&Out::default());
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    rig.events.clear();
    // The number can be used again at once.
    let again = rig.listen();
    let _far = TcpStream::connect(again).unwrap();
    rig.accepted();
    rig.finish();
}

fn a_reset_is_an_error<B: Subject>() {
    let mut rig = Rig::<B>::new();
    let (socket, far) = rig.pair();
    rig.backend.receive(&socket, Token(2));
    rig.poll(&Out::default());
    sockopt::set_socket_linger(&far, Some(Duration::ZERO)).unwrap();
    drop(far);
    assert_eq!(rig.ended(Token(2)), ReceiveEnd::Error(libc::ECONNRESET));
    rig.backend.close(socket);
    rig.finish();
}

fn sends_to_the_dead_leave_an_error<B: Subject>() {
    let mut rig = Rig::<B>::new();
    let (socket, far) = rig.pair();
    let (healthy, mut healthy_far) = rig.pair();
    rig.backend.receive(&socket, Token(2));
    sockopt::set_socket_linger(&far, Some(Duration::ZERO)).unwrap();
    drop(far);
    assert!(matches!(rig.ended(Token(2)), ReceiveEnd::Error(_)));
    let out = Out(vec![(&socket, vec![b"anybody?".as_slice()]), (&healthy, vec![b"one", b"two"])]);
    assert_eq!(rig.poll(&out), [Remainder { index: 0, sent: 0, errno: libc::EPIPE }]);
    assert_eq!(read_exactly(&mut healthy_far, 6), b"onetwo");
    rig.finish();
}

fn a_shutdown_ends_a_receive_and_a_poll<B: Subject>() {
    let mut rig = Rig::<B>::new();
    let (socket, mut far) = rig.pair();
    let bytes = pattern(8 << 20, 0);
    assert_eq!(rig.poll(&Out(vec![(&socket, vec![&bytes])])).len(), 1, "the far end does not read");
    rig.backend.receive(&socket, Token(5));
    rig.backend.poll_writable(&socket, Token(5));
    rig.poll(&Out::default());
    assert!(rig.events.is_empty(), "{:?}", rig.events);
    rig.backend.shutdown(&socket, false);
    assert_eq!(rig.ended(Token(5)), ReceiveEnd::Eof);
    rig.writable(Token(5));
    rig.backend.close(socket);
    rig.finish();
    let mut received = Vec::new();
    far.read_to_end(&mut received).unwrap();
    assert_eq!(received, bytes[..received.len()], "all that was taken, and then a FIN");
}

fn a_shutdown_with_reset_sends_a_reset_and_no_fin<B: Subject>() {
    let mut rig = Rig::<B>::new();
    let (socket, mut far) = rig.pair();
    rig.backend.receive(&socket, Token(5));
    rig.poll(&Out::default());
    rig.backend.shutdown(&socket, true);
    assert!(matches!(rig.ended(Token(5)), ReceiveEnd::Error(libc::ECONNRESET) | ReceiveEnd::Eof));
    rig.backend.close(socket);
    assert_eq!(far.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    rig.finish();
}

fn cancels_a_receive_and_arms_it_again<B: Subject>() {
    let mut rig = Rig::<B>::new();
    let (socket, mut far) = rig.pair();
    for round in 0..20u8 {
        rig.backend.receive(&socket, Token(9));
        far.write_all(&[round]).unwrap();
        assert_eq!(rig.received(Token(9)), [round]);
        rig.backend.cancel_receive(&socket, Token(9));
        assert_eq!(rig.ended(Token(9)), ReceiveEnd::Cancelled);
        far.write_all(b"later").unwrap();
        rig.poll(&Out::default());
        assert!(rig.events.is_empty(), "nothing is armed: {:?}", rig.events);
        rig.backend.receive(&socket, Token(9));
        assert_eq!(rig.received(Token(9)), b"later");
        rig.backend.cancel_receive(&socket, Token(9));
        assert_eq!(rig.ended(Token(9)), ReceiveEnd::Cancelled);
    }
    // In one turn: whatever was armed first has ended before.
    rig.backend.receive(&socket, Token(9));
    rig.backend.cancel_receive(&socket, Token(9));
    assert_eq!(rig.ended(Token(9)), ReceiveEnd::Cancelled);
    rig.finish();
}

fn cancelling_nothing_does_nothing<B: Subject>() {
    let mut rig = Rig::<B>::new();
    let (socket, mut far) = rig.pair();
    rig.backend.cancel_receive(&socket, Token(9));
    for _ in 0..20 {
        rig.poll(&Out::default());
    }
    assert!(rig.events.is_empty(), "{:?}", rig.events);
    rig.backend.receive(&socket, Token(9));
    far.write_all(b"x").unwrap();
    assert_eq!(rig.received(Token(9)), b"x");
    for _ in 0..20 {
        rig.poll(&Out::default());
    }
    assert!(rig.events.is_empty(), "it stays armed: {:?}", rig.events);
    rig.backend.cancel_receive(&socket, Token(9));
    assert_eq!(rig.ended(Token(9)), ReceiveEnd::Cancelled);
    rig.finish();
}

fn many_sends_in_a_turn_all_go_out<B: Subject>() {
    let mut rig = Rig::<B>::with(&UringOptions { buffers: 4, sq_entries: 4, cq_entries: 8 });
    let mut pairs = rig.pairs(150);
    let bytes: Vec<Vec<u8>> = (0..pairs.len()).map(|index| pattern(100 + index, index)).collect();
    for pieces in [1, 3, 33] {
        let sends = pairs.iter().zip(&bytes);
        let out =
            sends.map(|((socket, _), bytes)| (socket, bytes.chunks(bytes.len().div_ceil(pieces)).collect()));
        let out = Out(out.collect());
        assert!(rig.poll(&out).is_empty());
        for ((_, far), bytes) in pairs.iter_mut().zip(&bytes) {
            assert_eq!(&read_exactly(far, bytes.len()), bytes);
        }
    }
    for (index, (socket, _)) in pairs.iter().enumerate() {
        rig.backend.cancel_receive(socket, Token(index as u64));
        assert_eq!(rig.ended(Token(index as u64)), ReceiveEnd::Cancelled);
    }
    rig.finish();
}

fn one_send_of_many_pieces_arrives_in_order<B: Subject>() {
    let mut rig = Rig::<B>::new();
    let (socket, mut far) = rig.pair();
    let bytes = pattern(MAX_PIECES * 97, 0);
    assert!(rig.poll(&Out(vec![(&socket, bytes.chunks(97).collect())])).is_empty());
    assert_eq!(read_exactly(&mut far, bytes.len()), bytes);
    rig.finish();
}

fn any_pieces_arrive_in_order<B: Subject>() {
    let turns = prop::collection::vec(prop::collection::vec(1usize..3000, 1..12), 1..20);
    let config = ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(turns in turns)| {
        let mut rig = Rig::<B>::new();
        let (socket, mut far) = rig.pair();
        let total = turns.iter().flatten().sum();
        let bytes = pattern(total, 3);
        let reader = thread::spawn(move || read_exactly(&mut far, total));
        let mut rest = bytes.as_slice();
        for turn in &turns {
            let mut pieces = Vec::new();
            for length in turn {
                let (piece, after) = rest.split_at(*length);
                pieces.push(piece);
                rest = after;
            }
            prop_assert!(rig.poll(&Out(vec![(&socket, pieces)])).is_empty(), "less than a socket's buffer");
        }
        prop_assert!(reader.join().unwrap() == bytes);
        rig.finish();
    });
}

fn turns_end_at_their_deadline<B: Subject>() {
    let mut rig = Rig::<B>::new();
    // Later, earlier, none, past: whatever is left of one must not disturb the next.
    for wait_ms in [30u64, 5, 60, 1, 0, 40] {
        let wait = Duration::from_millis(wait_ms);
        let started = rig.backend.now();
        rig.backend.turn(&Out::default(), Some(started + wait), &mut rig.events, &mut Vec::new()).unwrap();
        let took = rig.backend.now() - started;
        assert!(took >= wait, "{took:?} instead of {wait:?}");
        assert!(took < wait + Duration::from_secs(5), "{took:?} instead of {wait:?}");
        assert!(rig.events.is_empty());
    }
    // A deadline of long ago, and one that moves away at each turn.
    rig.poll(&Out::default());
    let far_off = Duration::from_secs(3600);
    let (socket, mut far) = rig.pair();
    rig.backend.receive(&socket, Token(1));
    for _ in 0..10 {
        far.write_all(b"x").unwrap();
        let deadline = rig.backend.now() + far_off;
        let started = rig.backend.now();
        rig.backend.turn(&Out::default(), Some(deadline), &mut rig.events, &mut Vec::new()).unwrap();
        assert!(rig.backend.now() - started < Duration::from_secs(10));
        assert_eq!(rig.received(Token(1)), b"x");
    }
    let soon = rig.backend.now() + Duration::from_millis(20);
    rig.backend.turn(&Out::default(), Some(soon), &mut rig.events, &mut Vec::new()).unwrap();
    assert!(rig.backend.now() >= soon, "earlier than what is armed");
    assert!(rig.events.is_empty());
    // One that was left armed, because something else came first, does not end a longer wait.
    let started = rig.backend.now();
    far.write_all(b"y").unwrap();
    let first = started + Duration::from_millis(15);
    rig.backend.turn(&Out::default(), Some(first), &mut rig.events, &mut Vec::new()).unwrap();
    assert_eq!(rig.received(Token(1)), b"y");
    let second = started + Duration::from_millis(60);
    rig.backend.turn(&Out::default(), Some(second), &mut rig.events, &mut Vec::new()).unwrap();
    assert!(rig.backend.now() >= second);
    rig.backend.cancel_receive(&socket, Token(1));
    assert_eq!(rig.ended(Token(1)), ReceiveEnd::Cancelled);
    rig.finish();
}

fn wakes_arrive_from_another_thread<B: Subject>() {
    const WAKES: u32 = 2000;
    let mut rig = Rig::<B>::new();
    let (sender, receiver) = std::sync::mpsc::channel();
    let waker = rig.backend.waker();
    let thread = thread::spawn(move || {
        for number in 0..WAKES {
            sender.send(number).unwrap();
            waker.wake();
            waker.wake();
            if number % 3 == 0 {
                thread::yield_now();
            }
        }
    });
    let mut next = 0;
    let mut woken = 0;
    while next < WAKES {
        // For ever, unless a wake comes: a lost one would hang.
        rig.backend.turn(&Out::default(), None, &mut rig.events, &mut Vec::new()).unwrap();
        woken += rig.events.drain(..).map(|event| assert!(matches!(event, Event::Woken))).count() as u32;
        while let Ok(number) = receiver.try_recv() {
            assert_eq!(number, next);
            next += 1;
        }
    }
    thread.join().unwrap();
    assert!((1..=2 * WAKES).contains(&woken));
    // A wake before the turn counts as well, once.
    rig.poll(&Out::default());
    rig.events.clear();
    let (one, other) = (rig.backend.waker(), rig.backend.waker());
    one.wake();
    other.wake();
    rig.turn(&Out::default());
    assert!(matches!(rig.events.as_slice(), [Event::Woken]), "{:?}", rig.events);
    rig.events.clear();
    // A waker outlives its backend.
    rig.finish();
    one.wake();
}

fn dropping_with_operations_in_flight_is_sound<B: Subject>() {
    let large = pattern(8 << 20, 0);
    for _ in 0..20 {
        let mut rig = Rig::<B>::with(&UringOptions { buffers: 4, sq_entries: 16, cq_entries: 32 });
        rig.listen();
        let mut pairs = rig.pairs(6);
        pairs[0].1.write_all(b"lent").unwrap();
        rig.turn(&Out::default());
        let Some(Event::Received { buffer, .. }) = rig.events.pop() else { panic!("{:?}", rig.events) };
        rig.backend.poll_writable(&pairs[1].0, Token(1));
        assert_eq!(rig.poll(&Out(vec![(&pairs[2].0, vec![&large])])).len(), 1);
        rig.events.clear();
        rig.backend.poll_writable(&pairs[2].0, Token(2));
        for (_, far) in &mut pairs {
            far.write_all(b"unread").unwrap();
        }
        // Queued and not submitted.
        rig.backend.cancel_receive(&pairs[3].0, Token(3));
        drop(rig);
        assert_eq!(&buffer[..], b"lent", "a buffer outlives its backend");
        // Nothing took or takes these bytes any more but us: the sockets are free of the backend.
        let mut left = [0; 64];
        let (_, count) = rustix::net::recv(&pairs[5].0, &mut left, rustix::net::RecvFlags::DONTWAIT).unwrap();
        assert_eq!(&left[..count], b"unread");
        drop(pairs.pop().unwrap().0);
    }
}
