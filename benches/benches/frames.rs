//! Frames in, echoes out: a client's masked frames in a receive buffer are parsed, unmasked, checked and answered.
//! Against a naive version that copies byte by byte, tungstenite, and fastwebsockets.
//!
//! All read from memory by a copy, as from a socket, and give their answers as slices to a sink that keeps nothing, as to
//! a socket. fastwebsockets is polled by hand, without a runtime: its stream is always ready. It and tungstenite
//! answer message by message, each in its documented way; tungstenite flushes when the input is used up.
//! The time is that of the whole stream. Expected: the echo of every message, byte for byte.

use std::{
    cell::RefCell,
    hint::black_box,
    io::{self, ErrorKind, IoSlice, Read, Write},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use criterion::{BenchmarkId, Throughput};
use fastwebsockets::{FragmentCollector, WebSocket};
use tidegate_benches::paths::{Echo, MESSAGE_BYTES, push};
use tidegate_wire::frame::Opcode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A stream and how it comes.
struct Case {
    name: &'static str,
    messages: usize,
    payload_bytes: usize,
    /// Masked, as the client sends it.
    stream: Vec<u8>,
    /// Bytes that are there at each read.
    piece: usize,
    /// Unmasked, as the echo answers it.
    echo: Vec<u8>,
}

impl Case {
    fn new(name: &'static str, opcode: Opcode, payload: &[u8], messages: usize, pieces: usize) -> Self {
        let (mut stream, mut echo) = (Vec::new(), Vec::new());
        for _ in 0..messages {
            push(&mut stream, opcode, Some(KEY), payload);
            push(&mut echo, opcode, None, payload);
        }
        let piece = stream.len().div_ceil(pieces);
        Self { name, messages, payload_bytes: messages * payload.len(), stream, piece, echo }
    }
}

fn main() {
    let mut criterion = tidegate_benches::criterion();
    let ascii: Vec<u8> = (b' '..b'~').cycle().take(64 * 1024).collect();
    let greek: Vec<u8> = "ὁ ποταμὸς ῥεῖ, ".bytes().cycle().take(29 * 35).collect();
    let cases = [
        Case::new("32 x 64 B", Opcode::Text, &ascii[..64], 32, 1),
        Case::new("16 KiB", Opcode::Binary, &ascii[..16 * 1024], 1, 1),
        Case::new("64 KiB in 4 pieces", Opcode::Binary, &ascii, 1, 4),
        Case::new("16 x 1 KiB not ASCII", Opcode::Text, &greek, 16, 1),
    ];
    let mut group = criterion.benchmark_group("echo");
    for case in &cases {
        group.throughput(Throughput::Bytes(case.payload_bytes as u64));
        let mut out = Vec::new();

        let mut naive = Naive { received: Vec::new() };
        naive.echo(case, |piece| out.extend_from_slice(piece));
        assert!(out == case.echo, "naive, {}", case.name);
        group.bench_function(BenchmarkId::new("naive", case.name), |bencher| {
            bencher.iter(|| naive.echo(case, |piece| _ = black_box(piece)));
        });

        let record = Record::default();
        echo_by_tungstenite(&mut tungstenite_over(case, Some(&record)));
        assert!(*record.borrow() == case.echo, "tungstenite, {}", case.name);
        let mut tungstenite = tungstenite_over(case, None);
        group.bench_function(BenchmarkId::new("tungstenite", case.name), |bencher| {
            bencher.iter(|| echo_by_tungstenite(&mut tungstenite));
        });

        let record = Record::default();
        echo_by_fastwebsockets(&mut fastwebsockets_over(case, Some(&record)), case.messages);
        assert!(*record.borrow() == case.echo, "fastwebsockets, {}", case.name);
        let mut fast = fastwebsockets_over(case, None);
        group.bench_function(BenchmarkId::new("fastwebsockets", case.name), |bencher| {
            bencher.iter(|| echo_by_fastwebsockets(&mut fast, case.messages));
        });

        let mut tidegate = Echo::new(case.piece);
        let mut out = Vec::new();
        tidegate.echo(&case.stream, case.piece, |piece| out.extend_from_slice(piece));
        assert!(out == case.echo, "tidegate, {}", case.name);
        group.bench_function(BenchmarkId::new("tidegate", case.name), |bencher| {
            bencher.iter(|| tidegate.echo(&case.stream, case.piece, |piece| _ = black_box(piece)));
        });
    }
    group.finish();
    criterion.final_summary();
}

/// Everything is received, then parsed, and each message copied twice.
struct Naive {
    received: Vec<u8>,
}

impl Naive {
    fn echo(&mut self, case: &Case, mut send: impl FnMut(&[u8])) {
        for piece in case.stream.chunks(case.piece) {
            self.received.extend_from_slice(piece);
            while let Some((opcode, message)) = self.next() {
                let mut answer = vec![0x80 | opcode];
                match message.len() {
                    len @ 0..126 => answer.push(len as u8),
                    len @ 126..65_536 => {
                        answer.push(126);
                        answer.extend((len as u16).to_be_bytes());
                    }
                    len => {
                        answer.push(127);
                        answer.extend((len as u64).to_be_bytes());
                    }
                }
                answer.extend(message);
                send(&answer);
            }
        }
    }

    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let received = &self.received;
        let (opcode, short) = (received.first()? & 15, received.get(1)? & 127);
        let digits = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let length = received.get(2..2 + digits)?;
        let len = if digits == 0 {
            usize::from(short)
        } else {
            length.iter().fold(0, |len, byte| len << 8 | usize::from(*byte))
        };
        let start = 2 + digits + 4;
        let key = received.get(start - 4..start)?;
        let masked = received.get(start..start + len)?;
        let mut message = Vec::new();
        for (i, byte) in masked.iter().enumerate() {
            message.push(byte ^ key[i % 4]);
        }
        if opcode == 1 {
            std::str::from_utf8(&message).expect("text");
        }
        self.received.drain(..start + len);
        Some((opcode, message))
    }
}

/// What was written, where that is to be looked at.
type Record = Rc<RefCell<Vec<u8>>>;

/// A socket in memory, on which the stream comes again and again.
struct Memory<'c> {
    case: &'c Case,
    at: usize,
    record: Option<Record>,
}

impl<'c> Memory<'c> {
    fn new(case: &'c Case, record: Option<&Record>) -> Self {
        Self { case, at: 0, record: record.cloned() }
    }

    /// What there is to read, at most `room` bytes and up to the end of a piece. Empty: come back later.
    fn arrive(&mut self, room: usize) -> &'c [u8] {
        let Case { stream, piece, .. } = self.case;
        if self.at == stream.len() {
            self.at = 0;
            return &[];
        }
        let end = (self.at / piece * piece + piece).min(stream.len()).min(self.at + room);
        let taken = &stream[self.at..end];
        self.at = end;
        taken
    }

    fn put(&self, bytes: &[u8]) -> usize {
        match &self.record {
            Some(record) => record.borrow_mut().extend_from_slice(bytes),
            None => _ = black_box(bytes),
        }
        bytes.len()
    }
}

impl Read for Memory<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let taken = self.arrive(buffer.len());
        buffer[..taken.len()].copy_from_slice(taken);
        if taken.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken.len()) }
    }
}

impl Write for Memory<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.put(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Memory<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut taken = self.arrive(buffer.remaining());
        if taken.is_empty() {
            taken = self.arrive(buffer.remaining());
        }
        buffer.put_slice(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(self.put(bytes)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(pieces.iter().map(|piece| self.put(piece)).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn tungstenite_over<'c>(case: &'c Case, record: Option<&Record>) -> tungstenite::WebSocket<Memory<'c>> {
    let role = tungstenite::protocol::Role::Server;
    tungstenite::WebSocket::from_raw_socket(Memory::new(case, record), role, None)
}

fn echo_by_tungstenite(socket: &mut tungstenite::WebSocket<Memory<'_>>) {
    loop {
        match socket.read() {
            Ok(message) => socket.write(message).expect("a message can be written"),
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    socket.flush().expect("a flush");
}

fn fastwebsockets_over<'c>(case: &'c Case, record: Option<&Record>) -> FragmentCollector<Memory<'c>> {
    let mut socket = WebSocket::after_handshake(Memory::new(case, record), fastwebsockets::Role::Server);
    socket.set_max_message_size(MESSAGE_BYTES);
    FragmentCollector::new(socket)
}

fn echo_by_fastwebsockets(socket: &mut FragmentCollector<Memory<'_>>, messages: usize) {
    let echo = pin!(async {
        for _ in 0..messages {
            let frame = socket.read_frame().await.expect("a good stream");
            socket.write_frame(frame).await.expect("a frame can be written");
        }
    });
    let poll = echo.poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll.is_ready(), "the stream is always ready");
}
