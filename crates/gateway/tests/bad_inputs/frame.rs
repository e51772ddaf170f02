//! Rows F: frames. Rows that flood stand in `flood`.

use std::time::Duration;

use crate::{
    Company, Row,
    harness::{
        client::Client,
        frame::{BINARY, FIN, PING, PONG, TEXT, header, hex, masked, masked_with},
    },
    reaction::{Due, Observed, Reaction, fails, read_close},
    world::{CLOSE_TIMEOUT, MESSAGE_BYTES, World},
};

pub(crate) const ROWS: &[Row] = &[
    ("F01", Company::Any, |w| {
        each(w, &[("text", "81 05 48656c6c6f"), ("ping", "89 00"), ("close", "88 02 03e8")])
    }),
    ("F02", Company::Any, |w| {
        each_plain(w, &[("text", "c1 80 00000000"), ("continuation", "01 80 00000000 c0 80 00000000")])
    }),
    ("F03", Company::Any, f03_reserved_bits),
    ("F04", Company::Any, f04_reserved_opcodes),
    ("F05", Company::Any, f05_long_control_frames),
    ("F06", Company::Any, |w| {
        each(w, &[("ping", "09 80 00000000"), ("pong", "0a 80 00000000"), ("close", "08 80 00000000")])
    }),
    ("F07", Company::Any, f07_compressed_control_frames),
    ("F10", Company::Any, f10_the_limit_and_one_more),
    ("F12", Company::Any, f12_lengths_that_are_not_minimal),
    ("F13", Company::Any, |w| each(w, &[("final", "80 80 00000000"), ("not final", "00 80 00000000")])),
    ("F14", Company::Any, f14_a_message_inside_a_message),
    ("F21", Company::Any, f21_pings_between_fragments_and_bytes),
    ("F22", Company::Any, f22_every_split),
    ("F23", Company::Any, f23_bad_utf8),
    ("F24", Company::Any, f24_a_code_point_over_fragments),
    ("F26", Company::Any, f26_an_unfinished_code_point),
    ("F27", Company::Any, f27_frames_after_the_close),
    ("F29", Company::Any, f29_http_in_the_tunnel),
    ("F30", Company::Any, f30_one_masking_key),
];

/// One session at `/ws` for each variant.
pub(crate) fn each(world: &World, variants: &[(&str, &str)]) -> Vec<Observed> {
    variants.iter().map(|(name, bytes)| fails(world.session(), *name, &hex(bytes))).collect()
}

/// The same where permessage-deflate was not agreed to because the route does not have it.
fn each_plain(world: &World, variants: &[(&str, &str)]) -> Vec<Observed> {
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let plain = variants.iter().map(|(name, bytes)| {
        let (client, response) = Client::open_with(world.address(), "/plain", offer);
        assert_eq!(response.field("sec-websocket-extensions"), None);
        fails(client, format!("{name}, declined"), &hex(bytes))
    });
    plain.chain(each(world, variants)).collect()
}

fn f03_reserved_bits(world: &World) -> Vec<Observed> {
    let mut seen = Vec::new();
    for (name, bits) in [("RSV2", 0x20), ("RSV3", 0x10), ("RSV2 and RSV3", 0x30), ("all", 0x70)] {
        let bytes = masked(FIN | bits | TEXT, b"x");
        seen.push(fails(world.session(), name, &bytes));
        seen.push(fails(world.deflated("/ws", "permessage-deflate"), format!("{name}, deflated"), &bytes));
        seen.push(fails(Client::open(world.address(), "/up/echo"), format!("{name}, proxied"), &bytes));
    }
    seen
}

fn f04_reserved_opcodes(world: &World) -> Vec<Observed> {
    let opcodes = (3..=7).chain(11..=15);
    opcodes
        .flat_map(|opcode| {
            let bytes = masked(FIN | opcode, b"");
            let echo = fails(world.session(), format!("opcode {opcode}"), &bytes);
            let proxied =
                fails(Client::open(world.address(), "/up/echo"), format!("opcode {opcode}, proxied"), &bytes);
            [echo, proxied]
        })
        .collect()
}

fn f05_long_control_frames(world: &World) -> Vec<Observed> {
    let mut seen = Vec::new();
    for opcode in [PING, PONG] {
        seen.push(fails(world.session(), format!("opcode {opcode}"), &masked(FIN | opcode, &[0; 126])));
        // Two bytes say it all.
        seen.push(fails(world.session(), format!("opcode {opcode}, two bytes"), &[FIN | opcode, 0xfe]));
        seen.push(fails(world.session(), format!("opcode {opcode}, 64 bits"), &[FIN | opcode, 0xff]));
    }
    seen
}

fn f07_compressed_control_frames(world: &World) -> Vec<Observed> {
    [("ping", "c9 81 00000000 00"), ("pong", "ca 81 00000000 00"), ("close", "c8 82 00000000 03e8")]
        .map(|(name, bytes)| fails(world.deflated("/ws", "permessage-deflate"), name, &hex(bytes)))
        .into()
}

fn f10_the_limit_and_one_more(world: &World) -> Vec<Observed> {
    let payload: Vec<u8> = (0..MESSAGE_BYTES).map(|at| (at % 251) as u8).collect();
    for path in ["/ws", "/up/echo"] {
        let mut client = Client::open(world.address(), path);
        client.exchange(BINARY, &payload);
        // In fragments, the sum counts.
        let (front, back) = payload.split_at(MESSAGE_BYTES / 3);
        client.send(&[masked(BINARY, front), masked(FIN, back)].concat());
        if path == "/ws" {
            assert_eq!(client.message(BINARY), payload);
            client.close(1000);
        }
    }
    let fragments = [masked(BINARY, &payload), header(FIN, 1, Some([0; 4]))].concat();
    let over = header(FIN | BINARY, MESSAGE_BYTES + 1, Some([0; 4]));
    assert_eq!(over, hex("82 ff 0000000000100001 00000000"));
    vec![
        fails(world.session(), "one frame", &over),
        fails(Client::open(world.address(), "/up/echo"), "one frame, proxied", &over),
        fails(world.session(), "two frames", &fragments),
    ]
}

fn f12_lengths_that_are_not_minimal(world: &World) -> Vec<Observed> {
    let mut seen = each(
        world,
        &[
            ("5 in 64 bits", "81 ff 0000000000000005 00000000 4142434445"),
            ("5 in 16 bits", "81 fe 0005 00000000 4142434445"),
            ("125 in 16 bits", "82 fe 007d 00000000"),
            ("65535 in 64 bits", "82 ff 000000000000ffff 00000000"),
        ],
    );
    let bytes = hex("82 fe 007d 00000000");
    seen.push(fails(Client::open(world.address(), "/up/echo"), "125 in 16 bits, proxied", &bytes));
    seen
}

fn f14_a_message_inside_a_message(world: &World) -> Vec<Observed> {
    each(
        world,
        &[
            ("text in text", "01 81 00000000 61 81 81 00000000 62"),
            ("binary in text", "01 81 00000000 61 02 81 00000000 62"),
            ("text in binary", "02 80 00000000 81 81 00000000 62"),
        ],
    )
}

fn f21_pings_between_fragments_and_bytes(world: &World) -> Vec<Observed> {
    ["/ws", "/up/echo"]
        .into_iter()
        .map(|path| {
            let mut client = Client::open(world.address(), path);
            // Twenty pings between twenty fragments, each byte a segment of its own.
            for round in 0..20_u8 {
                let first = [if round == 0 { TEXT } else { 0 }, FIN][usize::from(round == 19)];
                client.send_byte_by_byte(&masked(first, &[b'a' + round, b'.']));
                if round == 19 {
                    break;
                }
                client.send_byte_by_byte(&masked(FIN | PING, &[round]));
                let mut pong = client.frame();
                while pong.opcode != PONG {
                    // The proxy forwards fragments as they come.
                    assert_eq!((path, pong.fin), ("/up/echo", false), "{pong:?}");
                    pong = client.frame();
                }
                assert_eq!(pong.payload, [round], "promptly, before the next ping");
            }
            let mut last = client.frame();
            let text: Vec<u8> = (0..20).flat_map(|round| [b'a' + round, b'.']).collect();
            if path == "/ws" {
                assert_eq!(last.payload, text);
            } else {
                while !last.fin {
                    last = client.frame();
                }
                assert_eq!(last.payload, text[38..]);
            }
            let peer = client.local();
            client.close(1000);
            Observed::new(path, peer, Reaction::Ok)
        })
        .collect()
}

fn f22_every_split(world: &World) -> Vec<Observed> {
    let mut seen = Vec::new();
    for path in ["/ws", "/up/echo"] {
        let mut client = Client::open(world.address(), path);
        let peer = client.local();
        for len in [0, 1, 5, 125, 126, 200, 65_535, 65_536] {
            let payload: Vec<u8> = (0..len).map(|at| (at * 7 % 251) as u8).collect();
            let bytes = masked(FIN | BINARY, &payload);
            // All places in the header and the first and last bytes of the payload, some in its middle.
            let places = (1..bytes.len()).filter(|at| *at < 220 || *at % 9973 == 0 || *at + 5 > bytes.len());
            for at in places {
                client.send(&bytes[..at]);
                std::thread::sleep(Duration::from_micros(300));
                client.send(&bytes[at..]);
                assert_eq!(client.message(BINARY), payload, "{len} bytes split at {at} at {path}");
            }
        }
        client.close(1000);
        seen.push(Observed::new(path, peer, Reaction::Ok));
    }
    seen
}

fn f23_bad_utf8(world: &World) -> Vec<Observed> {
    let texts = ["f4908080", "c0af", "eda080", "ff", "80", "c3", "e282", "f8888080"];
    let mut seen = Vec::new();
    for text in texts {
        let payload = hex(text);
        let frame = masked(FIN | TEXT, &payload);
        seen.push(fails(world.session(), text, &frame));
        seen.push(fails(Client::open(world.address(), "/up/echo"), format!("{text}, proxied"), &frame));
        let fragments = [masked(TEXT, "κόσμε".as_bytes()), masked(FIN, &payload)].concat();
        seen.push(fails(world.session(), format!("{text} in a second fragment"), &fragments));
    }
    // At the bad byte, not at the end of a frame that never comes.
    let half = [header(FIN | TEXT, 1000, Some([0; 4])), b"abc\xff".to_vec()].concat();
    seen.push(fails(world.session(), "inside a frame", &half));
    seen
}

fn f24_a_code_point_over_fragments(world: &World) -> Vec<Observed> {
    let mut client = world.session();
    let peer = client.local();
    client.send(&hex("01 81 00000000 ce 80 81 00000000 ba"));
    assert_eq!(client.message(TEXT), b"\xce\xba");
    // With an empty fragment and a ping between its four bytes.
    client
        .send(&hex("01 82 00000000 f09f 89 80 00000000 00 80 00000000 00 81 00000000 8c 80 81 00000000 8a"));
    assert_eq!(client.frame().opcode, PONG);
    assert_eq!(client.message(TEXT), "\u{1f30a}".as_bytes());
    client.close(1000);

    let mut proxied = Client::open(world.address(), "/up/echo");
    proxied.send(&hex("01 81 00000000 ce 80 81 00000000 ba"));
    assert_eq!((proxied.frame().payload, proxied.frame().payload), (vec![0xce], vec![0xba]));
    proxied.close(1000);
    vec![Observed::new("echo and proxied", peer, Reaction::Ok)]
}

fn f26_an_unfinished_code_point(world: &World) -> Vec<Observed> {
    let fragments = [masked(TEXT, b"a\xf0\x9f"), masked(FIN, b"")].concat();
    vec![
        fails(world.session(), "one frame", &masked(FIN | TEXT, b"a\xe2\x82")),
        fails(world.session(), "an empty last fragment", &fragments),
        fails(Client::open(world.address(), "/up/echo"), "proxied", &masked(FIN | TEXT, b"a\xe2\x82")),
    ]
}

fn f27_frames_after_the_close(world: &World) -> Vec<Observed> {
    let mut client = world.session();
    let peer = client.local();
    client.send(&hex("83 80 00000000"));
    let (frames, reaction) = read_close(&mut client);
    assert_eq!((frames.len(), reaction), (0, Reaction::Close(1002)));
    for _ in 0..10 {
        let _ = client.try_send(&masked(FIN | TEXT, b"too late"));
        let _ = client.try_send(&masked(FIN | PING, b"too late"));
    }
    let end = client.end_within(CLOSE_TIMEOUT * 5).expect("an end in time");
    assert!(client.is_drained(), "no echo, no pong");
    vec![Observed::new("text and pings", peer, Reaction::Tcp(end)).with_due(Due::Number(1002))]
}

fn f29_http_in_the_tunnel(world: &World) -> Vec<Observed> {
    let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    vec![
        fails(world.session(), "echo", http),
        fails(Client::open(world.address(), "/up/F29"), "proxied", http),
    ]
}

fn f30_one_masking_key(world: &World) -> Vec<Observed> {
    let mut client = world.session();
    let peer = client.local();
    for round in 0..100_u8 {
        client.send(&masked_with(FIN | BINARY, &[round; 40], [0; 4]));
        assert_eq!(client.message(BINARY), [round; 40]);
    }
    client.close(1000);
    vec![Observed::new("a hundred frames", peer, Reaction::Ok)]
}
