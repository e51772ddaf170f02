//! A browser's upgrade request in, the 101 out. Against a naive version of strings and a map, and tungstenite's
//! `accept` on a socket in memory (which also makes its session's state).
//! fastwebsockets leaves HTTP to hyper and has nothing to compare.
//!
//! Expected: a 101 with the key of that request, accepted by the client's side.

use std::{
    collections::HashMap,
    hint::black_box,
    io::{self, Read, Write},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};
use tidegate_benches::paths::{HEAD, switch};
use tidegate_wire::{
    HeadLimits,
    extension::DeflateParams,
    handshake::{Offer, verify_response},
    http::ResponseHead,
};

const KEY: [u8; 16] = *b"the sample nonce";

fn main() {
    let mut criterion = tidegate_benches::criterion();
    let mut group = criterion.benchmark_group("handshake");

    check(&naive(HEAD), None);
    group.bench_function("naive", |bencher| bencher.iter(|| naive(black_box(HEAD))));

    let mut socket = Memory { rest: HEAD, out: Vec::new() };
    drop(tungstenite::accept(&mut socket).expect("a good request"));
    check(&socket.out, None);
    group.bench_function("tungstenite", |bencher| {
        bencher.iter(|| {
            socket.rest = black_box(HEAD);
            socket.out.clear();
            drop(black_box(tungstenite::accept(&mut socket).expect("a good request")));
        });
    });

    let mut out = Vec::with_capacity(256);
    switch(HEAD, &mut out);
    check(&out, Some(DeflateParams::default()));
    group.bench_function("tidegate", |bencher| {
        bencher.iter(|| {
            out.clear();
            switch(black_box(HEAD), &mut out);
        });
    });
    group.finish();
    criterion.final_summary();
}

/// A client takes the answer, and the two agree.
fn check(answer: &[u8], extension: Option<DeflateParams>) {
    let head = ResponseHead::parse(answer, &HeadLimits::default()).expect("one head and nothing else");
    let offer = Offer::Raw("permessage-deflate; client_max_window_bits");
    let agreed = verify_response(&head, &KEY, &[], offer).expect("a good answer");
    assert_eq!(agreed.extension, extension);
}

/// As one writes it in ten minutes, and checks next to nothing.
fn naive(head: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(head.to_vec()).expect("text");
    let (line, rest) = text.split_once("\r\n").expect("a line");
    assert!(line.starts_with("GET ") && line.ends_with(" HTTP/1.1"));
    let fields: HashMap<String, String> = rest
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    assert!(fields["upgrade"].eq_ignore_ascii_case("websocket") && fields["sec-websocket-version"] == "13");
    let text = fields["sec-websocket-key"].clone() + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let accept = STANDARD.encode(Sha1::digest(text));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

/// A socket in memory.
#[derive(Debug)]
struct Memory<'h> {
    rest: &'h [u8],
    out: Vec<u8>,
}

impl Read for Memory<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.rest.read(buffer)
    }
}

impl Write for Memory<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
