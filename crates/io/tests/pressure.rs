//! Full buffers, empty pools, small queues, floods: no byte is lost, none comes twice, nothing spins.

mod rig;

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
};

use tidegate_io::{BUFFER_BYTES, Event, ReceiveEnd, Token, UringOptions};

use self::rig::{Out, Rig, Subject, pattern, read_exactly};

on_both!(
    a_flood_is_cancelled_and_resumed_without_loss,
    a_full_socket_takes_the_rest_later,
    a_small_completion_queue_loses_nothing,
    a_sudden_flood_of_all_sockets_loses_nothing,
    an_empty_pool_starves_and_recovers_without_loss,
    idle_sockets_starve_only_while_the_pool_is_empty,
    lost_buffers_are_counted_and_the_others_go_on,
);

fn a_full_socket_takes_the_rest_later<B: Subject>() {
    const BYTES: usize = 16 << 20;
    let mut rig = Rig::<B>::new();
    let (socket, mut far) = rig.pair();
    let (other, mut other_far) = rig.pair();
    let bytes = pattern(BYTES, 0);
    let mut sent = 0;
    let (mut partial, mut none) = (0, 0);
    let reader = thread::spawn(move || {
        let mut received = Vec::new();
        let mut piece = vec![0; 70_001];
        while received.len() < BYTES {
            let count = far.read(&mut piece).unwrap();
            received.extend_from_slice(&piece[..count]);
            if received.len() % 3 == 0 {
                thread::yield_now();
            }
        }
        received
    });
    let mut turn = 0;
    while sent < BYTES {
        turn += 1;
        let rest = &bytes[sent..];
        // Now in one piece, now in several of uneven lengths; a small send beside it must not be touched.
        let pieces: Vec<&[u8]> = if turn % 2 == 0 { vec![rest] } else { rest.chunks(BYTES / 29).collect() };
        let out = Out(vec![(&socket, pieces), (&other, vec![b"beside"])]);
        let remainders = rig.poll(&out);
        assert_eq!(read_exactly(&mut other_far, 6), b"beside");
        match remainders.as_slice() {
            [] => sent = BYTES,
            [remainder] => {
                assert_eq!(remainder.index, 0);
                assert!(matches!(remainder.errno, 0 | libc::EAGAIN), "{remainder:?}");
                assert!(remainder.sent < rest.len());
                sent += remainder.sent;
                if remainder.sent == 0 {
                    none += 1;
                } else {
                    partial += 1;
                }
                if turn % 3 != 0 {
                    rig.backend.poll_writable(&socket, Token(4));
                    rig.writable(Token(4));
                }
            }
            more => panic!("{more:?}"),
        }
    }
    assert!(reader.join().unwrap() == bytes, "byte for byte");
    assert!(partial > 0, "{none} full, {partial} partial");
    assert_eq!(rig.backend.counters().partial_sends, none + partial);
    rig.finish();
}

fn an_empty_pool_starves_and_recovers_without_loss<B: Subject>() {
    const PAIRS: usize = 8;
    const BYTES: usize = 6 * BUFFER_BYTES + 123;
    let mut rig = Rig::<B>::with(&UringOptions { buffers: 4, sq_entries: 64, cq_entries: 256 });
    let mut pairs = rig.pairs(PAIRS);
    for (index, (_, far)) in pairs.iter_mut().enumerate() {
        far.write_all(&pattern(BYTES, index)).unwrap();
        far.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let mut streams = vec![Vec::new(); PAIRS];
    let mut held = Vec::new();
    let mut starved: Vec<Token> = Vec::new();
    let (mut eofs, mut starvations) = (0, 0);
    while eofs < PAIRS {
        if held.is_empty() {
            assert!(starved.is_empty() || rig.backend.buffers().lent == 0);
        }
        // Everything that came is kept until nothing more can come: then all of it is given back at once.
        let empty = rig.backend.buffers().lent == 4;
        if empty || !starved.is_empty() {
            held.drain(..).for_each(|buffer| rig.backend.recycle(buffer));
            for token in starved.drain(..) {
                rig.backend.receive(&pairs[token.0 as usize].0, token);
            }
        }
        rig.turn(&Out::default());
        for event in rig.events.drain(..) {
            match event {
                Event::Received { token, buffer } => {
                    streams[token.0 as usize].extend_from_slice(&buffer);
                    held.push(buffer);
                }
                Event::ReceiveEnded { token, end: ReceiveEnd::Starved } => {
                    starvations += 1;
                    starved.push(token);
                }
                Event::ReceiveEnded { token, end: ReceiveEnd::Rearm } => starved.push(token),
                Event::ReceiveEnded { end: ReceiveEnd::Eof, .. } => eofs += 1,
                other => panic!("unexpected {other:?}"),
            }
        }
    }
    held.drain(..).for_each(|buffer| rig.backend.recycle(buffer));
    for (index, stream) in streams.iter().enumerate() {
        assert!(*stream == pattern(BYTES, index), "stream {index}");
    }
    assert!(starvations > 0);
    assert_eq!(rig.backend.counters().starved, starvations);
    rig.finish();
}

fn a_sudden_flood_of_all_sockets_loses_nothing<B: Subject>() {
    const PAIRS: usize = 60;
    const BYTES: usize = 20 * BUFFER_BYTES + 77;
    let mut rig = Rig::<B>::with(&UringOptions { buffers: 1024, sq_entries: 64, cq_entries: 256 });
    let mut pairs = rig.pairs(PAIRS);
    let mut expected = Vec::new();
    for (index, (_, far)) in pairs.iter_mut().enumerate() {
        far.set_nonblocking(true).unwrap();
        let mut bytes = pattern(BYTES, index);
        let written = far.write(&bytes).unwrap();
        bytes.truncate(written);
        expected.push(bytes);
    }
    let mut streams = vec![Vec::new(); PAIRS];
    let mut ends = Vec::new();
    while streams != expected {
        rig.turn(&Out::default());
        rig.sort(&mut streams, &mut ends);
        for (token, end) in ends.drain(..) {
            assert_eq!(end, ReceiveEnd::Rearm, "there is always a buffer");
            rig.backend.receive(&pairs[token.0 as usize].0, token);
        }
    }
    assert_eq!(rig.backend.counters().starved, 0);
    rig.poll(&Out::default());
    rig.sort(&mut streams, &mut ends);
    rig.finish();
}

fn idle_sockets_starve_only_while_the_pool_is_empty<B: Subject>() {
    let mut rig = Rig::<B>::with(&UringOptions { buffers: 2, sq_entries: 64, cq_entries: 256 });
    let mut pairs = rig.pairs(3);
    let mut held = Vec::new();
    for (_, far) in &mut pairs[..2] {
        far.write_all(b"x").unwrap();
        rig.turn(&Out::default());
        let Some(Event::Received { buffer, .. }) = rig.events.pop() else { panic!("{:?}", rig.events) };
        held.push(buffer);
    }
    pairs[2].1.write_all(b"hungry").unwrap();
    assert_eq!(rig.ended(Token(2)), ReceiveEnd::Starved);
    // It does not spin: there is nothing to report until it is armed again.
    let before = rig.backend.counters().events;
    for _ in 0..5 {
        rig.poll(&Out::default());
    }
    assert_eq!(rig.backend.counters().events, before);
    held.into_iter().for_each(|buffer| rig.backend.recycle(buffer));
    rig.backend.receive(&pairs[2].0, Token(2));
    assert_eq!(rig.received(Token(2)), b"hungry");
    rig.poll(&Out::default());
    rig.finish();
}

fn lost_buffers_are_counted_and_the_others_go_on<B: Subject>() {
    let mut rig = Rig::<B>::with(&UringOptions { buffers: 3, sq_entries: 8, cq_entries: 16 });
    let mut pairs = rig.pairs(1);
    for lost in 0..2 {
        assert_eq!(rig.backend.buffers().lent, lost);
        pairs[0].1.write_all(b"lost").unwrap();
        rig.turn(&Out::default());
        rig.events.clear();
    }
    for _ in 0..10 {
        pairs[0].1.write_all(b"kept").unwrap();
        assert_eq!(rig.received(Token(0)), b"kept");
    }
    assert_eq!(rig.backend.buffers().lent, 2);
}

fn a_small_completion_queue_loses_nothing<B: Subject>() {
    const PAIRS: usize = 100;
    const ROUNDS: usize = 30;
    let mut rig = Rig::<B>::with(&UringOptions { buffers: 256, sq_entries: 4, cq_entries: 4 });
    let mut pairs = rig.pairs(PAIRS);
    // Their far ends never read.
    let clogged: Vec<_> = (0..12).map(|_| rig.pair()).collect();
    let small = pattern(10, 0);
    let large = pattern(8 << 20, 0);
    let mut streams = vec![Vec::new(); PAIRS];
    let mut expected = vec![Vec::new(); PAIRS];
    let mut ends = Vec::new();
    for round in 0..ROUNDS {
        for (index, (_, far)) in pairs.iter_mut().enumerate() {
            let bytes = pattern(50 + round, index + round);
            far.write_all(&bytes).unwrap();
            expected[index].extend(bytes);
        }
        // Sends that fall short among those that do not: the completion of each must be found.
        let mut out = Out::default();
        let mut clogged_indices = Vec::new();
        for (index, (socket, _)) in pairs.iter().enumerate() {
            out.0.push((socket, vec![&small]));
            if index % 8 == 0
                && let Some((socket, _)) = clogged.get(index / 8)
            {
                clogged_indices.push(out.0.len() as u32);
                out.0.push((socket, vec![&large]));
            }
        }
        let mut short: Vec<u32> = rig.poll(&out).iter().map(|remainder| remainder.index).collect();
        short.sort_unstable();
        assert_eq!(short, clogged_indices);
        loop {
            rig.sort(&mut streams, &mut ends);
            for (token, end) in ends.drain(..) {
                assert_eq!(end, ReceiveEnd::Rearm);
                rig.backend.receive(&pairs[token.0 as usize].0, token);
            }
            for (stream, expected) in streams.iter().zip(&expected) {
                assert!(expected.starts_with(stream), "round {round}");
            }
            if streams == expected {
                break;
            }
            rig.turn(&Out::default());
        }
        for (_, far) in &mut pairs {
            assert_eq!(read_exactly(far, small.len()), small);
        }
    }
    if B::IS_URING {
        assert!(rig.backend.counters().overflows > 0, "or this test means nothing");
    }
    rig.poll(&Out::default());
    rig.sort(&mut streams, &mut ends);
    rig.finish();
}

fn a_flood_is_cancelled_and_resumed_without_loss<B: Subject>() {
    const BYTES: usize = 12 << 20;
    let mut rig = Rig::<B>::with(&UringOptions { buffers: 64, sq_entries: 16, cq_entries: 64 });
    let (socket, mut far) = rig.pair();
    let writer = thread::spawn(move || {
        far.write_all(&pattern(BYTES, 0)).unwrap();
        far
    });
    let token = Token(11);
    let mut received = 0;
    let (mut cancelled, mut cancels) = (0, 0);
    let mut armed = false;
    let mut cancelling = false;
    let mut held = Vec::new();
    while received < BYTES {
        if !armed {
            held.drain(..).for_each(|buffer| rig.backend.recycle(buffer));
            rig.backend.receive(&socket, token);
            armed = true;
            cancelling = false;
        } else if !cancelling {
            rig.backend.cancel_receive(&socket, token);
            cancels += 1;
            cancelling = true;
        }
        rig.turn(&Out::default());
        for event in rig.events.drain(..) {
            match event {
                Event::Received { buffer, .. } => {
                    assert!(armed, "bytes after the end");
                    let expected = |index| ((received + index) % 251) as u8;
                    assert!(buffer.iter().enumerate().all(|(index, byte)| *byte == expected(index)));
                    received += buffer.len();
                    held.push(buffer);
                }
                Event::ReceiveEnded { end, .. } => {
                    assert!(armed, "two ends of one receive");
                    armed = false;
                    assert!(
                        matches!(end, ReceiveEnd::Cancelled | ReceiveEnd::Starved | ReceiveEnd::Rearm),
                        "{end:?}"
                    );
                    cancelled += u32::from(end == ReceiveEnd::Cancelled);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }
    assert!(cancelled > 0, "{cancels} cancels");
    held.drain(..).for_each(|buffer| rig.backend.recycle(buffer));
    let far: TcpStream = writer.join().unwrap();
    drop(far);
    if armed && cancelling {
        assert!(matches!(rig.ended(token), ReceiveEnd::Cancelled | ReceiveEnd::Eof));
    } else if armed {
        assert_eq!(rig.ended(token), ReceiveEnd::Eof);
    }
    rig.finish();
}
