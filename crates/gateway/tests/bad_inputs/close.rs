//! Rows C: the closing handshake.

use std::{thread, time::Instant};

use crate::{
    Company, Row,
    frame::each,
    harness::{
        client::{Client, Received},
        frame::{BINARY, CLOSE, FIN, close, hex, masked},
    },
    reaction::{Due, Observed, Reaction, fails, read_close},
    world::{CLOSE_TIMEOUT, World},
};

pub(crate) const ROWS: &[Row] = &[
    ("C01", Company::Any, |w| each(w, &[("one byte", "88 81 00000000 03")])),
    ("C04", Company::Any, c04_codes_are_echoed),
    ("C05", Company::Any, c05_reasons_are_text),
    ("C06", Company::Any, |w| vec![fails(w.session(), "126 bytes", &masked(FIN | CLOSE, &[3; 126]))]),
    ("C07", Company::Any, c07_one_close_is_answered),
    ("C09", Company::Any, c09_the_close_is_never_answered),
    ("C10", Company::Any, c10_reasons_from_the_upstream),
];

fn c04_codes_are_echoed(world: &World) -> Vec<Observed> {
    let mut seen = Vec::new();
    for path in ["/ws", "/up/echo"] {
        for code in [3000, 4000, 4999, 1000, 1001, 1003] {
            let mut client = Client::open(world.address(), path);
            let peer = client.local();
            client.send(&close(code, b"bye"));
            let (frames, reaction) = read_close(&mut client);
            assert_eq!((frames.len(), reaction), (0, Reaction::Close(code)));
            seen.push(Observed::new(format!("{code} at {path}"), peer, Reaction::CloseEchoed));
        }
    }
    seen
}

fn c05_reasons_are_text(world: &World) -> Vec<Observed> {
    let bytes = hex("88 85 00000000 03e8 c0af ff");
    vec![
        fails(world.session(), "echo", &bytes),
        fails(Client::open(world.address(), "/up/echo"), "proxied", &bytes),
        fails(world.session(), "unfinished", &close(1000, b"a\xe2\x82")),
    ]
}

fn c07_one_close_is_answered(world: &World) -> Vec<Observed> {
    ["/ws", "/up/echo"]
        .into_iter()
        .map(|path| {
            let mut client = Client::open(world.address(), path);
            let peer = client.local();
            client.send(&[close(1000, b""), close(1000, b""), close(1001, b"")].concat());
            let (frames, reaction) = read_close(&mut client);
            assert_eq!((frames.len(), reaction), (0, Reaction::Close(1000)));
            let next = client.next();
            assert!(matches!(next, Received::End(_)), "one answer only, got {next:?}");
            Observed::new(path, peer, Reaction::CloseEchoed)
        })
        .collect()
}

fn c09_the_close_is_never_answered(world: &World) -> Vec<Observed> {
    let mut client = Client::open(world.address(), "/idle");
    let peer = client.local();
    let (frames, reaction) = read_close(&mut client);
    assert_eq!((frames.len(), reaction), (0, Reaction::Close(1001)));
    let began = Instant::now();
    // Data all the time, but never the Close that is due: the FIN comes, and then nothing is taken any more.
    let mut end = None;
    while client.try_send(&masked(FIN | BINARY, &[5; 100])).is_ok() {
        end = end.or(client.end_within(CLOSE_TIMEOUT / 20));
        thread::sleep(CLOSE_TIMEOUT / 50);
        assert!(began.elapsed() < CLOSE_TIMEOUT * 5, "it never ends");
    }
    let end = end.expect("the server ends the connection");
    vec![Observed::new("data instead", peer, Reaction::Tcp(end))]
}

fn c10_reasons_from_the_upstream(world: &World) -> Vec<Observed> {
    // `read_close` sees to it that a reason is text, and a body 125 bytes at most.
    [("long", 1000), ("longer", 1011), ("no-text", 1011)]
        .into_iter()
        .map(|(variant, code)| {
            let mut client = Client::open(world.address(), &format!("/up/C10/{variant}"));
            let peer = client.local();
            let Received::Frame(frame) = client.next() else { panic!("{variant}: no Close") };
            assert_eq!((frame.opcode, frame.close_code()), (CLOSE, code), "{variant}");
            let reason = std::str::from_utf8(frame.close_reason()).expect("text");
            assert!(reason.len() <= 123);
            if variant == "long" {
                assert_eq!(reason, "\u{20ac}".repeat(41));
            }
            let due = if code == 1011 { Due::Number(1011) } else { Due::Silence };
            Observed::new(variant, peer, Reaction::Close(code)).with_due(due)
        })
        .collect()
}
