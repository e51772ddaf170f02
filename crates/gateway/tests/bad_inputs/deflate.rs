//! Rows D: permessage-deflate.

use std::thread;

use crate::{
    Company, Row,
    harness::{
        client::Client,
        deflate::{Deflater, Inflater, compress, inflate},
        frame::{BINARY, FIN, RSV1, TEXT, hex, masked},
        gateway::is_optimised,
    },
    reaction::{Observed, Reaction, fails, read_close, respond},
    world::{Req, World},
};

pub(crate) const ROWS: &[Row] = &[
    ("D01", Company::Any, d01_window_bits_out_of_range),
    ("D03", Company::Any, d03_the_next_offer_is_tried),
    ("D04", Company::Any, d04_fifty_offers),
    ("D05", Company::Any, d05_offered_twice),
    ("D06", Company::Alone, d06_a_bomb),
    ("D07", Company::Alone, d07_bombs_in_pieces_and_in_numbers),
    ("D08", Company::Any, |w| deflated(w, "BTYPE 11", "c1 81 00000000 06")),
    ("D09", Company::Any, |w| deflated(w, "LEN and NLEN differ", "c1 85 00000000 0005000000")),
    ("D12", Company::Any, d12_an_empty_message_then_hello),
    ("D14", Company::Any, d14_a_reference_to_the_message_before),
    ("D16", Company::Any, d16_rsv1_on_a_continuation),
    ("D17", Company::Any, d17_plain_messages_stay_plain),
    ("D18", Company::Any, d18_utf8_counts_after_inflating),
    ("D20", Company::Any, d20_nothing_is_left_of_a_broken_stream),
    ("D21", Company::Any, d21_nothing_is_learnt_from_lengths),
];

const OFFER: &str = "permessage-deflate";

fn deflated(world: &World, variant: &str, bytes: &str) -> Vec<Observed> {
    let edge = fails(world.deflated("/up/echo", OFFER), format!("{variant}, proxied"), &hex(bytes));
    let takeover = fails(world.deflated("/takeover", OFFER), format!("{variant}, takeover"), &hex(bytes));
    vec![fails(world.deflated("/ws", OFFER), variant, &hex(bytes)), edge, takeover]
}

/// An upgrade with offers; gives what was agreed to.
fn offer(world: &World, variant: &str, offers: &str) -> (Option<String>, Observed) {
    let head = Req::new().with("Sec-WebSocket-Extensions", offers).bytes();
    let (response, observed) = respond(world.address(), variant, &head);
    let response = response.expect("a response");
    (response.field("sec-websocket-extensions").map(str::to_owned), observed)
}

fn d01_window_bits_out_of_range(world: &World) -> Vec<Observed> {
    let mut seen = Vec::new();
    for parameter in ["client_max_window_bits", "server_max_window_bits"] {
        for value in ["7", "16", "08", "\"\"", "-1", "9x", "99999999999999999999", "010"] {
            let variant = format!("{parameter}={value}");
            seen.push(offer(world, &variant, &format!("{OFFER}; {variant}")).1);
        }
    }
    // A server's window must be said (RFC 7692 §7.1.2.1).
    seen.push(offer(world, "no value", &format!("{OFFER}; server_max_window_bits")).1);
    seen
}

fn d03_the_next_offer_is_tried(world: &World) -> Vec<Observed> {
    let bad = [
        "client_no_context_takeover; client_no_context_takeover",
        "client_max_window_bits=10; client_max_window_bits=11",
        "unknown_parameter",
        "server_no_context_takeover=1",
        "client_no_context_takeover=\"\"",
    ];
    let mut seen = Vec::new();
    for parameters in bad {
        let (agreed, observed) = offer(world, parameters, &format!("{OFFER}; {parameters}"));
        assert_eq!(agreed, None, "{parameters}");
        seen.push(observed);
        let (agreed, observed) = offer(world, parameters, &format!("{OFFER}; {parameters}, {OFFER}"));
        assert!(agreed.is_some_and(|agreed| agreed.starts_with(OFFER)), "the offer behind {parameters}");
        seen.push(observed);
    }
    seen
}

fn d04_fifty_offers(world: &World) -> Vec<Observed> {
    let bad = format!("{OFFER}; client_max_window_bits=7, ").repeat(49);
    let (agreed, last) = offer(world, "the last", &format!("{bad}{OFFER}"));
    assert!(agreed.is_some());
    let (agreed, all) = offer(world, "all", &[OFFER; 50].join(", "));
    assert_eq!(agreed.expect("the first").matches(OFFER).count(), 1);
    vec![last, all]
}

fn d05_offered_twice(world: &World) -> Vec<Observed> {
    let head = Req::new()
        .with("Sec-WebSocket-Extensions", OFFER)
        .with("Sec-WebSocket-Extensions", "permessage-deflate; client_no_context_takeover");
    let (response, fields) = respond(world.address(), "in two fields", &head.bytes());
    let response = response.expect("a response");
    assert_eq!(response.field("sec-websocket-extensions").expect("one of them").matches(OFFER).count(), 1);
    let (agreed, list) = offer(world, "in a list", "permessage-deflate, permessage-deflate");
    assert_eq!(agreed.expect("one of them").matches(OFFER).count(), 1);
    vec![fields, list]
}

/// 10 MiB of zeros in about 10 KiB.
fn bomb() -> Vec<u8> {
    let bomb = compress(&vec![0; 10 << 20]);
    assert!(bomb.len() < 12_000);
    bomb
}

fn d06_a_bomb(world: &World) -> Vec<Observed> {
    let frame = masked(FIN | RSV1 | BINARY, &bomb());
    // What the first one needs of the allocator for good does not count.
    fails(world.deflated("/ws", OFFER), "warm-up", &frame);
    world.gateway().reset_peak();
    let before = world.gateway().resident_kib();
    let seen = vec![
        fails(world.deflated("/ws", OFFER), "echo", &frame),
        fails(world.deflated("/takeover", OFFER), "takeover", &frame),
        fails(world.deflated("/up/echo", OFFER), "proxied", &frame),
    ];
    // The limit (1 MiB), its growth by doubling, and an inflater: far from 10 MiB each.
    let grown = world.gateway().peak_kib().saturating_sub(before);
    assert!(grown < 4 * 1024, "{grown} KiB more at the peak");
    seen
}

fn d07_bombs_in_pieces_and_in_numbers(world: &World) -> Vec<Observed> {
    let bomb = bomb();
    let mut pieces = Vec::new();
    for (at, byte) in bomb.iter().enumerate() {
        let first = if at == 0 { RSV1 | BINARY } else { 0 };
        pieces.extend(masked(first | if at + 1 == bomb.len() { FIN } else { 0 }, &[*byte]));
    }
    // The limit falls inside the row of fragments, and the rest is more than is read after a Close.
    let mut client = world.deflated("/fragments", OFFER);
    let peer = client.local();
    let _ = client.try_send(&pieces);
    let (frames, reaction) = read_close(&mut client);
    assert!(frames.is_empty());
    let mut seen = vec![Observed::new("fragments of one byte", peer, reaction)];

    let before = world.gateway().resident_kib();
    world.gateway().reset_peak();
    // All but the last byte first: all are in the middle of it at the same time.
    let frame = masked(FIN | RSV1 | BINARY, &bomb);
    let sessions = if is_optimised() { 1000 } else { 200 };
    let mut clients: Vec<_> = (0..sessions).map(|_| world.deflated("/ws", OFFER)).collect();
    let part = 600;
    for client in &mut clients {
        client.send(&frame[..part]);
    }
    thread::scope(|scope| {
        for chunk in clients.chunks_mut(250) {
            scope.spawn(|| chunk.iter_mut().for_each(|client| drop(client.try_send(&frame[part..]))));
        }
    });
    for client in &mut clients {
        let (frames, reaction) = read_close(client);
        assert!(frames.is_empty());
        seen.push(Observed::new("one of a thousand", client.local(), reaction));
    }
    // A thousand partial messages of half a megabyte each would be 600 MiB; a pool of 64 inflaters bounds it.
    let grown = world.gateway().peak_kib().saturating_sub(before);
    assert!(grown < 128 * 1024, "{grown} KiB more at the peak");
    seen
}

fn d12_an_empty_message_then_hello(world: &World) -> Vec<Observed> {
    let mut client = world.deflated("/ws", OFFER);
    let peer = client.local();
    client.send(&hex("c1 81 00000000 00 c1 87 00000000 f248cdc9c90700"));
    assert_eq!(text(&mut client), b"");
    assert_eq!(text(&mut client), b"Hello");
    // RFC 7692 §7.2.3.4: a final block is allowed; what follows it begins anew.
    client.send(&hex("c1 88 00000000 f348cdc9c9070000"));
    assert_eq!(text(&mut client), b"Hello");
    // §7.2.3.3: a stored block.
    client.send(&hex("c1 8b 00000000 000500faff48656c6c6f00"));
    assert_eq!(text(&mut client), b"Hello");
    client.close(1000);
    vec![Observed::new("empty, Hello, final, stored", peer, Reaction::Ok)]
}

/// A text message, inflated where it is compressed.
fn text(client: &mut Client) -> Vec<u8> {
    let frame = client.frame();
    assert_eq!((frame.fin, frame.opcode, frame.rsv & 3), (true, TEXT, 0), "{frame:?}");
    if frame.rsv == 0 { frame.payload } else { inflate(&frame.payload) }
}

/// Text that does not compress by itself, so that its repetition must refer to it.
fn noise() -> Vec<u8> {
    let mut state = 1_u32;
    (0..400)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b'!' + (state >> 24) as u8 % 90
        })
        .collect()
}

fn d14_a_reference_to_the_message_before(world: &World) -> Vec<Observed> {
    ["/ws", "/up/echo"]
        .into_iter()
        .map(|path| {
            let mut client = world.deflated(path, "permessage-deflate; client_no_context_takeover");
            let peer = client.local();
            let mut deflater = Deflater::new(15);
            let (first, second) = (deflater.message(&noise()), deflater.message(&noise()));
            assert!(second.len() < first.len() / 4, "the second refers to the first");
            client.send(&masked(FIN | RSV1 | TEXT, &first));
            assert_eq!(text(&mut client), noise());
            client.send(&masked(FIN | RSV1 | TEXT, &second));
            let (frames, reaction) = read_close(&mut client);
            assert!(frames.is_empty(), "{frames:?}");
            Observed::new(path, peer, reaction)
        })
        .collect()
}

fn d16_rsv1_on_a_continuation(world: &World) -> Vec<Observed> {
    let compressed = deflated(world, "compressed", "41 82 00000000 f248 c0 82 00000000 cdc9");
    let plain = deflated(world, "plain", "01 82 00000000 4141 c0 82 00000000 4141");
    [compressed, plain].concat()
}

fn d17_plain_messages_stay_plain(world: &World) -> Vec<Observed> {
    ["/ws", "/takeover", "/up/echo"]
        .into_iter()
        .map(|path| {
            let mut client = world.deflated(path, OFFER);
            let peer = client.local();
            // The answers may be compressed, at `/takeover` with one window for all of them.
            let mut inflater = Inflater::new();
            for len in [0, 1, 10, 1000, 70_000] {
                let payload = b"ab".repeat(len);
                client.send(&masked(FIN | TEXT, &payload));
                let frame = client.frame();
                assert_eq!((frame.fin, frame.opcode, frame.rsv & 3), (true, TEXT, 0));
                if path != "/takeover" {
                    inflater = Inflater::new();
                }
                let plain = if frame.rsv == 0 { frame.payload } else { inflater.message(&frame.payload) };
                assert_eq!(plain, payload);
            }
            client.close(1000);
            Observed::new(path, peer, Reaction::Ok)
        })
        .collect()
}

fn d18_utf8_counts_after_inflating(world: &World) -> Vec<Observed> {
    // A byte that is no text, in compressed bytes that are not text either way; then one at a message's end.
    let mut seen = Vec::new();
    for (variant, payload) in [("a bad byte", &b"abc\xffdef"[..]), ("an unfinished one", b"abc\xe2\x82")] {
        let frame = masked(FIN | RSV1 | TEXT, &compress(payload));
        seen.push(fails(world.deflated("/ws", OFFER), variant, &frame));
        seen.push(fails(world.deflated("/up/echo", OFFER), format!("{variant}, proxied"), &frame));
        // As a binary message it is none of anybody's business.
        let mut client = world.deflated("/ws", OFFER);
        client.send(&masked(FIN | RSV1 | BINARY, &compress(payload)));
        let frame = client.frame();
        assert_eq!(if frame.rsv == 0 { frame.payload } else { inflate(&frame.payload) }, payload);
        client.close(1000);
    }
    seen
}

fn d20_nothing_is_left_of_a_broken_stream(world: &World) -> Vec<Observed> {
    let mut seen = Vec::new();
    for round in 0..20 {
        let mut client = world.deflated("/takeover", OFFER);
        let peer = client.local();
        let mut deflater = Deflater::new(15);
        client.send(&masked(FIN | RSV1 | TEXT, &deflater.message(&noise())));
        assert_eq!(client.frame().opcode, TEXT);
        // A good beginning, then a reserved block type.
        let broken = [deflater.message(b"the secret of another session"), vec![0x06]].concat();
        client.send(&masked(FIN | RSV1 | TEXT, &broken));
        let (frames, reaction) = read_close(&mut client);
        assert!(frames.is_empty());
        seen.push(Observed::new(format!("round {round}"), peer, reaction));

        // Whoever comes next has a fresh window: a reference to the secret is one to nothing.
        let mut next = world.deflated(["/takeover", "/ws"][round % 2], OFFER);
        let peer = next.local();
        let mut probe = Deflater::new(15);
        probe.message(&noise());
        next.send(&masked(FIN | RSV1 | TEXT, &probe.message(&noise())));
        let (frames, reaction) = read_close(&mut next);
        assert!(frames.is_empty(), "{frames:?}");
        seen.push(Observed::new(format!("after round {round}"), peer, reaction));
        let mut sound = world.deflated("/takeover", OFFER);
        sound.send(&masked(FIN | RSV1 | TEXT, &compress(&noise())));
        assert_eq!(text(&mut sound), noise());
        sound.close(1000);
    }
    seen
}

fn d21_nothing_is_learnt_from_lengths(world: &World) -> Vec<Observed> {
    let mut client = world.deflated("/ws", OFFER);
    let peer = client.local();
    let length = |client: &mut Client, payload: &[u8]| {
        client.send(&masked(FIN | TEXT, payload));
        let frame = client.frame();
        assert_eq!(frame.rsv, 4, "long enough to be compressed: {frame:?}");
        frame.payload.len()
    };
    let secret = noise();
    let guess: Vec<u8> = secret.iter().rev().copied().collect();
    // The right guess behind the secret is as long as without it: no window is shared between messages.
    let alone = length(&mut client, &secret);
    let right = length(&mut client, &secret);
    let wrong = length(&mut client, &guess);
    let again = length(&mut client, &secret);
    assert_eq!((right, again), (alone, alone));
    assert!(wrong.abs_diff(right) < 16, "both are noise of the same length: {wrong}, {right}");
    client.close(1000);

    // A route can do without.
    let (mut plain, response) =
        Client::open_with(world.address(), "/plain", "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    assert_eq!(response.field("sec-websocket-extensions"), None);
    plain.exchange(TEXT, &secret);
    plain.close(1000);
    vec![Observed::new("guesses", peer, Reaction::Ok)]
}
