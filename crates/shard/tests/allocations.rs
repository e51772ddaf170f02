//! No heap allocation per message in steady state, and what an idle session takes of the heap: whole shards on real
//! sockets, under an allocator that counts.
//!
//! One test function: the counters are the process's. The client uses arrays only.

#![allow(clippy::print_stdout)]

mod running;

use std::{
    alloc::System,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    sync::Arc,
};

use cap::Cap;
use tidegate_io::{Backend, Epoll, EpollOptions, Uring, UringOptions};
use tidegate_shard::Plan;

use crate::running::Running;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

fn plan(config: &str) -> Arc<Plan> {
    Plan::new(tidegate_config::parse(config, "test.toml").expect("a valid configuration"), 1)
}

fn connect(address: SocketAddr, offer: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).expect("the shard listens");
    socket.set_nodelay(true).expect("TCP");
    socket
        .write_all(
            format!(
                "GET /echo HTTP/1.1\r\nHost: gw.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n"
            )
            .as_bytes(),
        )
        .expect("the shard reads");
    let mut head = [0; 1024];
    let mut len = 0;
    while !head[..len].ends_with(b"\r\n\r\n") {
        len += socket.read(&mut head[len..]).expect("the shard answers");
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    let agreed = head[..len].windows(18).any(|part| part == b"permessage-deflate");
    assert_eq!(agreed, !offer.is_empty());
    socket
}

/// One masked binary frame and the answer that it must get; gives the answer's length.
fn frame(payload: usize, question: &mut [u8], answer: &mut [u8]) -> (usize, usize) {
    let length = |out: &mut [u8], mask: u8| match payload {
        0..=125 => {
            out[1] = mask | payload as u8;
            2
        }
        126..=0xffff => {
            out[1] = mask | 126;
            out[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
            4
        }
        _ => {
            out[1] = mask | 127;
            out[2..10].copy_from_slice(&(payload as u64).to_be_bytes());
            10
        }
    };
    question[0] = 0x82;
    answer[0] = 0x82;
    let asked = length(question, 0x80);
    let told = length(answer, 0);
    let key = [0x37, 0xfa, 0x21, 0x3d];
    question[asked..asked + 4].copy_from_slice(&key);
    for place in 0..payload {
        let byte = (place % 251) as u8;
        question[asked + 4 + place] = byte ^ key[place % 4];
        answer[told + place] = byte;
    }
    (asked + 4 + payload, told + payload)
}

const MOST: usize = 100_100;

/// A buffer that grows because the machine let a shard wait is no cost of each message: of so many runs the least counts.
const RUNS: usize = 4;

/// The least number of bytes that the process allocated in one of some runs.
fn least_allocated(mut run: impl FnMut()) -> usize {
    let runs = (0..RUNS).map(|_| {
        let before = HEAP.total_allocated();
        run();
        HEAP.total_allocated() - before
    });
    runs.min().expect("there are runs")
}

/// Bytes that the process allocated during `rounds` messages there and back, after as many to warm up.
fn steady(socket: &mut TcpStream, payload: usize, rounds: usize) -> usize {
    let (mut question, mut expected, mut answer) =
        (Box::new([0; MOST]), Box::new([0; MOST]), Box::new([0; MOST]));
    let (asked, told) = frame(payload, &mut question[..], &mut expected[..]);
    let mut round = || {
        socket.write_all(&question[..asked]).expect("the shard reads");
        socket.read_exact(&mut answer[..told]).expect("the shard answers");
        assert_eq!(answer[..told], expected[..told]);
    };
    (0..rounds).for_each(|_| round());
    least_allocated(|| (0..rounds).for_each(|_| round()))
}

/// The same for messages that are deflated both ways. The questions are stored blocks (RFC 1951 §3.2.4); of the answers the
/// length counts, which is the same for all.
fn steady_deflated(socket: &mut TcpStream, payload: usize, rounds: usize) -> usize {
    let (mut plain, mut question, mut answer) =
        (Box::new([0; MOST]), Box::new([0; MOST]), Box::new([0; MOST]));
    let stored = payload + 5 + 1;
    let (asked, _) = frame(stored, &mut question[..], &mut plain[..]);
    let start = asked - stored;
    question[0] |= 0x40;
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let mut put = |place: usize, byte: u8| question[start + place] = byte ^ key[place % 4];
    let length = (payload as u16).to_le_bytes();
    // A block that is not the last one, its length, the complement; behind it what a flush leaves of an empty one.
    for (place, byte) in [0, length[0], length[1], !length[0], !length[1]].into_iter().enumerate() {
        put(place, byte);
    }
    for place in 0..payload {
        put(5 + place, (place % 251) as u8);
    }
    put(5 + payload, 0);
    let mut round = || {
        socket.write_all(&question[..asked]).expect("the shard reads");
        socket.read_exact(&mut answer[..2]).expect("the shard answers");
        assert_eq!(answer[0], 0xc2, "a whole, compressed message");
        let len = match answer[1] {
            126 => {
                socket.read_exact(&mut answer[..2]).expect("the shard answers");
                usize::from(u16::from_be_bytes([answer[0], answer[1]]))
            }
            len => usize::from(len),
        };
        socket.read_exact(&mut answer[..len]).expect("the shard answers");
        len
    };
    let first = round();
    assert!((64..=payload + payload / 8 + 64).contains(&first), "{first} bytes for {payload}");
    (0..rounds).for_each(|_| assert_eq!(round(), first));
    least_allocated(|| (0..rounds).for_each(|_| assert_eq!(round(), first)))
}

const ECHO: &str =
    "version = 1\n[[listener]]\nbind = \"127.0.0.1:1\"\n[[route]]\npath = \"/echo\"\necho = {}\n";

/// Carries messages one by one: compressed to the client where it asks for that, plain to the upstream.
fn edge(upstream: SocketAddr) -> String {
    format!(
        "version = 1\n[[listener]]\nbind = \"127.0.0.1:1\"\n[[route]]\npath = \"/echo\"\n\
         proxy = {{ upstreams = [\"ws://{upstream}\"], deflate = \"edge\" }}\n"
    )
}

/// What a shard reserves at its start for one more session, in bytes.
fn reserved<B>(make: fn() -> B, config: &str) -> usize
where
    B: Backend<Listener = OwnedFd> + 'static,
{
    let taken = |sessions| {
        let plan = plan(config);
        let before = HEAP.allocated();
        let shard = Running::with_room(make, plan, sessions);
        let taken = HEAP.allocated() - before;
        shard.stop();
        taken
    };
    (taken(20_000) - taken(10_000)).div_ceil(10_000)
}

/// What hangs off a session that has sent and got a message and is idle now, in bytes of the heap; of all shards that it
/// goes through. The least of some batches: a table that doubles in one of them does not belong to its sessions (epoll's
/// has 24 bytes for each descriptor).
fn beside(address: SocketAddr, offer: &str) -> usize {
    const BATCHES: usize = 4;
    const COUNT: usize = 30;
    let mut sockets = Vec::with_capacity((1 + BATCHES) * COUNT);
    let talk = |socket: &mut TcpStream| {
        let (mut question, mut expected, mut answer) = ([0; 140], [0; 140], [0; 140]);
        let (asked, told) = frame(40, &mut question, &mut expected);
        socket.write_all(&question[..asked]).expect("the shard reads");
        socket.read_exact(&mut answer[..told]).expect("the shard answers");
        assert_eq!(answer, expected);
    };
    let mut open = || {
        for _ in 0..COUNT {
            let mut socket = connect(address, offer);
            talk(&mut socket);
            sockets.push(socket);
        }
        // What a shard does behind its last answer is done when the next one comes.
        talk(&mut sockets[0]);
        HEAP.allocated()
    };
    let mut before = open();
    let mut least = usize::MAX;
    for _ in 0..BATCHES {
        let after = open();
        least = least.min(after.saturating_sub(before).div_ceil(COUNT));
        before = after;
    }
    least
}

fn prove_small<B>(name: &str, make: fn() -> B)
where
    B: Backend<Listener = OwnedFd> + 'static,
{
    let echo = Running::with_room(make, plan(ECHO), 600);
    let proxy = Running::with_room(make, plan(&edge(echo.address)), 300);
    let (slot, slots) = (reserved(make, ECHO), reserved(make, &edge(echo.address)));
    // Both are means, rounded.
    assert!(slot >= 100 && slots + 2 >= 2 * slot, "{name}: {slot} and {slots} bytes are not a slot and two");
    for offer in ["", "Sec-WebSocket-Extensions: permessage-deflate\r\n"] {
        // What hangs off the upstream's own session counts here, too.
        let (plain, proxied) = (beside(echo.address, offer), beside(proxy.address, offer));
        println!("{name} {offer:?}: {slot} + {plain} bytes, proxied {slots} + {proxied} bytes");
        assert!(slot + plain <= 192, "{name} {offer:?}: {slot} bytes reserved, {plain} beside them");
        assert!(
            slots + proxied <= 512,
            "{name} {offer:?}, both legs: {slots} bytes reserved, {proxied} beside"
        );
    }
    proxy.stop();
    echo.stop();
}

fn prove<B>(name: &str, make: fn() -> B)
where
    B: Backend<Listener = OwnedFd> + 'static,
{
    let echo = Running::start(make, plan(ECHO));
    let proxy = Running::start(make, plan(&edge(echo.address)));
    for (what, address) in [("echo", echo.address), ("proxy", proxy.address)] {
        let before = HEAP.total_allocated();
        let mut socket = connect(address, "");
        assert!(HEAP.total_allocated() > before, "a handshake allocates: the counter counts");
        // One that lies in a receive buffer many times over, one that fills it, one that spans several.
        for payload in [64, 16_384, 100_000] {
            let allocated = steady(&mut socket, payload, 200);
            assert_eq!(allocated, 0, "{name} {what}: bytes allocated for 200 messages of {payload} bytes");
        }
        let mut socket = connect(address, "Sec-WebSocket-Extensions: permessage-deflate\r\n");
        for payload in [100, 1_000, 60_000] {
            let allocated = steady_deflated(&mut socket, payload, 200);
            assert_eq!(
                allocated, 0,
                "{name} {what}: bytes allocated for 200 messages of {payload}, deflated"
            );
        }
    }
    proxy.stop();
    echo.stop();
}

// Not with the transport of tests, which takes more.
#[cfg_attr(feature = "record-transport", ignore = "counts what users have")]
#[test]
fn a_message_allocates_nothing_in_steady_state_and_an_idle_session_holds_little() {
    let epoll = || Epoll::new(&EpollOptions::default()).expect("epoll is always there");
    prove("epoll", epoll);
    prove_small("epoll", epoll);
    // Where io_uring is refused epoll alone is shown.
    if Uring::new(&UringOptions::default()).is_ok() {
        let uring = || Uring::new(&UringOptions::default()).expect("it was just there");
        prove("uring", uring);
        prove_small("uring", uring);
    }
}
