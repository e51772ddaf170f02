//! What cannot be provoked from outside: completions that a sound kernel does not post, and a caller's panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{ending::NoSends, *};
use crate::{BUFFER_BYTES, backend::Wake};

const OPTIONS: UringOptions = UringOptions { buffers: 4, sq_entries: 8, cq_entries: 16 };

/// Has the kernel post this user data with result 0.
fn post(uring: &mut Uring, user_data: u64) -> Vec<Event<OwnedFd>> {
    let entry = opcode::Nop::new().build().user_data(user_data);
    // SAFETY: it names no memory.
    unsafe { uring.push(&entry) }.unwrap();
    let mut events = Vec::new();
    let mut remainders = Vec::new();
    uring.turn(&NoSends, Some(Duration::ZERO), &mut events, &mut remainders).unwrap();
    assert!(remainders.is_empty(), "{remainders:?}");
    events
}

#[test]
fn completions_for_nobody_are_counted_and_passed_over() {
    let mut uring = Uring::new(&OPTIONS).unwrap();
    let nobody = [
        0,
        7,
        11 << 56,
        u64::MAX,
        user_data(Operation::Send, 0),
        user_data(Operation::Send, u64::MAX >> 8),
        user_data(Operation::Connect, 5),
    ];
    for (index, data) in nobody.into_iter().enumerate() {
        let events = post(&mut uring, data);
        assert!(events.is_empty(), "{data:#x}: {events:?}");
        assert_eq!(uring.counters().stale, index as u64 + 1, "{data:#x}");
    }
    // These come late as a matter of course.
    for operation in [Operation::Cancel, Operation::Ignored] {
        assert!(post(&mut uring, user_data(operation, 5)).is_empty());
    }
    assert_eq!(uring.counters().stale, nobody.len() as u64);
}

#[test]
fn a_buffer_is_believed_only_of_the_kernel_and_only_once() {
    let ring = Ring::new(&OPTIONS).unwrap();
    let mut provided = Provided::new(&ring, 4).unwrap();
    assert!(provided.take(4, 1).is_none(), "no such buffer");
    assert!(provided.take(u16::MAX, 1).is_none(), "no such buffer");
    assert!(provided.take(0, BUFFER_BYTES + 1).is_none(), "more than it holds");
    let buffer = provided.take(0, BUFFER_BYTES).unwrap();
    assert!(provided.take(0, 1).is_none(), "already with the caller");
    assert_eq!(provided.lent(), Lent { total: 4, lent: 1 });
    provided.give(buffer);
    assert_eq!(provided.lent(), Lent { total: 4, lent: 0 });
    assert!(provided.take(0, 1).is_none(), "with the pool");
    provided.publish();
    let again = provided.take(0, 0).unwrap();
    provided.give(again);
    // SAFETY: there was no receive.
    unsafe { provided.unmap() };
}

#[test]
fn completions_set_aside_come_first_and_in_order() {
    let mut uring = Uring::new(&OPTIONS).unwrap();
    for token in 0..9 {
        let entry = opcode::Nop::new().build().user_data(user_data(Operation::Poll, token));
        // SAFETY: it names no memory.
        unsafe { uring.start(&entry) };
        if token % 4 == 3 {
            uring.enter(Wait::Poll).unwrap();
            uring.ring.set_aside();
        }
    }
    let mut events = Vec::new();
    uring.enter(Wait::Poll).unwrap();
    uring.ring.set_aside();
    // For ever, were they forgotten.
    uring.turn(&NoSends, None, &mut events, &mut Vec::new()).unwrap();
    let tokens: Vec<u64> = events
        .iter()
        .map(|event| match event {
            Event::Writable { token } => token.0,
            other => panic!("unexpected {other:?}"),
        })
        .collect();
    assert_eq!(tokens, (0..9).collect::<Vec<_>>());
    assert_eq!(uring.in_flight, 1, "the waker");
}

#[test]
fn kernels_that_misname_accepted_sockets_are_known() {
    for release in ["6.6.1", "6.6.9-amd64", "6.7.4", "6.7-rc1", "6.8.0-rc3", "6.8-rc2"] {
        assert!(has_accept_fault(release), "{release}");
    }
    for release in
        ["6.1.0-9-amd64", "6.5.13", "6.8.0", "6.8.0-31-generic", "6.18.44", "6.60.1", "5.6.7", "7.6", "x", ""]
    {
        assert!(!has_accept_fault(release), "{release}");
    }
}

#[test]
fn a_doubtful_last_accept_is_no_session() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut uring = Uring::new(&OPTIONS).unwrap();
    uring.listen(ListenerId(0), listener.into()).unwrap();
    uring.accept(ListenerId(0));
    uring.doubts_last_accept = true;
    // A NOP's result is 0: descriptor 0.
    let events = post(&mut uring, user_data(Operation::Accept, accept_data(ListenerId(0), 1)));
    let ended = matches!(events[..], [Event::AcceptEnded { listener: ListenerId(0), errno: 0 }]);
    assert!(ended, "{events:?}");
    assert_eq!(uring.counters().stale, 1);
}

#[test]
fn a_waker_whose_poll_has_ended_is_armed_again() {
    let mut uring = Uring::new(&OPTIONS).unwrap();
    assert!(post(&mut uring, 0).is_empty());
    assert!(uring.is_waker_armed);
    let events = post(&mut uring, user_data(Operation::Waker, 0));
    assert!(matches!(events[..], [Event::Woken]), "{events:?}");
    assert!(!uring.is_waker_armed);
    assert!(post(&mut uring, 0).is_empty());
    assert!(uring.is_waker_armed);
    uring.waker().wake();
    let mut events = Vec::new();
    uring.turn(&NoSends, None, &mut events, &mut Vec::new()).unwrap();
    assert!(matches!(events[..], [Event::Woken]), "{events:?}");
}

#[test]
fn everything_in_flight_can_be_ended() {
    let mut uring = Uring::new(&OPTIONS).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    uring.listen(ListenerId(0), listener.into()).unwrap();
    uring.accept(ListenerId(0));
    let pairs: Vec<_> = (0..20).map(|_| std::os::unix::net::UnixStream::pair().unwrap()).collect();
    let sockets: Vec<OwnedFd> = pairs.into_iter().flat_map(|(near, far)| [near.into(), far.into()]).collect();
    for (index, socket) in sockets.iter().enumerate() {
        uring.receive(socket, Token(index as u64));
    }
    let soon = uring.now() + Duration::from_millis(1);
    let mut events = Vec::new();
    uring.turn(&NoSends, Some(soon), &mut events, &mut Vec::new()).unwrap();
    assert!(events.is_empty(), "{events:?}");
    uring.arm_timer(Some(soon + Duration::from_secs(60))).unwrap();
    uring.poll_writable(&sockets[0], Token(0));
    assert!(uring.in_flight >= 2 + sockets.len());
    assert!(uring.quiesce());
    assert_eq!(uring.in_flight, 0);
    assert_eq!(uring.counters().stale, 0);
}

/// Turns until `count` messages have come.
fn turns_for(uring: &mut Uring, count: usize) -> u64 {
    let before = uring.counters().turns;
    let mut come = 0;
    while come < count {
        let mut events = Vec::new();
        let late = uring.now() + Duration::from_secs(60);
        uring.turn(&NoSends, Some(late), &mut events, &mut Vec::new()).unwrap();
        assert!(uring.now() < late, "{come} of {count} came");
        for event in events {
            match event {
                Event::Received { buffer, .. } => {
                    come += 1;
                    uring.recycle(buffer);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }
    uring.counters().turns - before
}

#[test]
fn a_backlog_comes_in_few_turns_and_nothing_waits_for_more_than_a_moment() {
    let mut uring = Uring::new(&UringOptions::default()).unwrap();
    let pairs: Vec<_> = (0..100).map(|_| std::os::unix::net::UnixStream::pair().unwrap()).collect();
    let (near, far): (Vec<OwnedFd>, Vec<_>) = pairs.into_iter().map(|(near, far)| (near.into(), far)).unzip();
    for (index, socket) in near.iter().enumerate() {
        uring.receive(socket, Token(index as u64));
    }
    uring.turn(&NoSends, Some(Duration::ZERO), &mut Vec::new(), &mut Vec::new()).unwrap();
    let write = |count: usize| {
        for mut socket in &far[..count] {
            io::Write::write_all(&mut socket, b"x").unwrap();
        }
    };
    write(100);
    let turns = turns_for(&mut uring, 100);
    // 20, 40 and 40 of them where Linux runs 20 in a pass unless more are waited for; all at once where it does not.
    assert!(turns <= if uring.ring.can_gather() { 3 } else { 5 }, "{turns} turns");
    if !uring.ring.can_gather() {
        return;
    }
    // Turns that wait for many meet few, and none.
    for count in [1, 3, 0] {
        while uring.gathering.want() == 1 {
            write(20);
            turns_for(&mut uring, 20);
        }
        let before = uring.counters().system_calls;
        write(count);
        turns_for(&mut uring, count);
        if count == 0 {
            let soon = uring.now() + Duration::from_millis(5);
            let mut events = Vec::new();
            uring.turn(&NoSends, Some(soon), &mut events, &mut Vec::new()).unwrap();
            assert!(events.is_empty(), "{events:?}");
            assert!(uring.now() >= soon, "a deadline is waited for to its end");
        }
        let calls = uring.counters().system_calls - before;
        assert!(calls <= 4, "{calls} system calls for {count} messages");
        assert_eq!(uring.gathering.want(), 1);
    }
    assert!(uring.quiesce());
}

#[test]
fn the_window_of_buffers_grows_with_need_and_shrinks_with_time() {
    let ring = Ring::new(&OPTIONS).unwrap();
    let mut provided = Provided::new(&ring, 1000).unwrap();
    let drain = |provided: &mut Provided| -> Vec<Buffer> {
        (0..1000).filter_map(|id| provided.take(id, 1)).collect()
    };
    let mut offers = Vec::new();
    for _ in 0..5 {
        let taken = drain(&mut provided);
        offers.push(taken.len());
        assert_eq!(provided.ran_out(), taken.len() == 1000);
        assert_eq!(provided.ran_out(), taken.len() == 1000, "the same emptiness, met twice");
        taken.into_iter().for_each(|buffer| provided.give(buffer));
        provided.publish();
    }
    assert_eq!(offers, [128, 256, 512, 1000, 1000]);
    for _ in 0..20_000 {
        provided.publish();
    }
    drain(&mut provided).into_iter().for_each(|buffer| provided.give(buffer));
    provided.publish();
    assert_eq!(drain(&mut provided).len(), 128);
    // SAFETY: there was no receive.
    unsafe { provided.unmap() };
}

#[test]
fn buffers_must_be_a_number_that_the_kernel_takes() {
    for buffers in [0, (1 << 15) + 1, u32::MAX] {
        let options = UringOptions { buffers, ..OPTIONS };
        assert_eq!(Uring::new(&options).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    for buffers in [1, 3, 1000] {
        let options = UringOptions { buffers, ..OPTIONS };
        assert_eq!(Uring::new(&options).unwrap().buffers(), Lent { total: buffers, lent: 0 });
    }
}

#[test]
fn a_panic_in_the_callers_sends_leaves_nothing_behind_that_is_sent() {
    struct Panics<'a>(&'a OwnedFd, &'a [u8]);

    impl Sends<OwnedFd> for Panics<'_> {
        fn len(&self) -> usize {
            2
        }

        fn socket(&self, _: usize) -> &OwnedFd {
            self.0
        }

        fn pieces(&self, index: usize) -> impl Iterator<Item = &[u8]> {
            assert!(index == 0, "on purpose");
            std::iter::once(self.1)
        }
    }

    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    let near = OwnedFd::from(near);
    let mut uring = Uring::new(&OPTIONS).unwrap();
    uring.receive(&near, Token(1));
    let sends = Panics(&near, b"dangling by then");
    let turn = AssertUnwindSafe(|| {
        uring.turn(&sends, Some(Duration::ZERO), &mut Vec::new(), &mut Vec::new()).unwrap();
    });
    assert!(catch_unwind(turn).is_err());
    for _ in 0..2 * OPTIONS.sq_entries {
        uring.poll_writable(&near, Token(1));
    }
    uring.turn(&NoSends, Some(Duration::ZERO), &mut Vec::new(), &mut Vec::new()).unwrap_err();
    drop(uring);
    far.set_nonblocking(true).unwrap();
    let mut byte = [0];
    assert_eq!(
        io::Read::read(&mut &far, &mut byte).unwrap_err().kind(),
        io::ErrorKind::WouldBlock,
        "nothing was sent"
    );
}

#[test]
fn room_is_waited_for_behind_the_peers_fin() {
    use std::io::{Read, Write};

    let (mut near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let mut wrote = 0;
    while let Ok(bytes) = near.write(&[7; 4096]) {
        wrote += bytes;
    }
    far.shutdown(std::net::Shutdown::Write).unwrap();
    let near = OwnedFd::from(near);
    let mut uring = Uring::new(&OPTIONS).unwrap();
    let mut events = Vec::new();
    // Twice: what is registered stays so.
    for token in [Token(1), Token(2)] {
        uring.poll_writable(&near, token);
        let (before, soon) = (uring.counters().system_calls, uring.now() + Duration::from_millis(20));
        while uring.now() < soon {
            uring.turn(&NoSends, Some(soon), &mut events, &mut Vec::new()).unwrap();
            assert!(events.is_empty(), "{events:?}");
        }
        assert!(uring.counters().system_calls - before < 10, "it does not wait");
        let mut taken = vec![0; wrote];
        far.read_exact(&mut taken).unwrap();
        while events.is_empty() {
            uring.turn(&NoSends, None, &mut events, &mut Vec::new()).unwrap();
        }
        assert!(matches!(events[..], [Event::Writable { token: told }] if told == token), "{events:?}");
        events.clear();
        wrote = 0;
        while let Ok(bytes) = rustix::io::write(&near, &[7; 4096]) {
            wrote += bytes;
        }
    }
    // A socket that is shut down tells that it will have no room any more.
    uring.poll_writable(&near, Token(3));
    let soon = uring.now() + Duration::from_millis(5);
    uring.turn(&NoSends, Some(soon), &mut events, &mut Vec::new()).unwrap();
    socket::shutdown(&near, false);
    while events.is_empty() {
        uring.turn(&NoSends, None, &mut events, &mut Vec::new()).unwrap();
    }
    assert!(matches!(events[..], [Event::Writable { token: Token(3) }]), "{events:?}");
    assert!(uring.quiesce());
    assert_eq!((uring.in_flight, uring.counters().stale), (0, 0));
}
