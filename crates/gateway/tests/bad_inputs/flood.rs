//! Rows F that send a lot: what they cost is bounded, and the others do not notice.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    Company, Row,
    harness::{
        client::Client,
        frame::{BINARY, FIN, PING, PONG, TEXT, hex, masked, masked_with},
        gateway::is_optimised,
    },
    reaction::{Observed, fails, read_close},
    world::{CONTROL_FRAMES, MESSAGE_TIMEOUT, World},
};

pub(crate) const ROWS: &[Row] = &[
    ("F09", Company::Alone, f09_a_declared_length_is_no_reason_to_allocate),
    ("F16", Company::Alone, f16_many_fragments_held),
    ("F18", Company::Alone, f18_small_messages_at_line_rate),
    ("F19", Company::Alone, f19_pings_without_end),
    ("F20", Company::Alone, f20_pongs_without_end),
];

fn f09_a_declared_length_is_no_reason_to_allocate(world: &World) -> Vec<Observed> {
    let before = world.gateway().resident_kib();
    let huge = hex("82 ff 7fffffffffffffff 00000000");
    let mut seen: Vec<_> = (0..50).map(|_| fails(world.session(), "2^63 - 1", &huge)).collect();
    seen.push(fails(Client::open(world.address(), "/up/echo"), "proxied", &huge));
    // A length that is allowed, of which nothing comes.
    let mut declared: Vec<_> = (0..200).map(|_| world.session()).collect();
    declared.iter_mut().for_each(|client| client.send(&hex("82 ff 0000000000100000 00000000")));
    world.assert_others_unharmed();
    let grown = world.gateway().resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "200 MiB were declared, and {grown} KiB taken");
    seen
}

fn f16_many_fragments_held(world: &World) -> Vec<Observed> {
    const FRAGMENTS: usize = 131_000;
    // Thirteen million frames are too many for a build that is not optimised.
    let sessions = if is_optimised() { 100 } else { 10 };
    let before = world.gateway().resident_kib();
    let began = Instant::now();
    let mut clients: Vec<_> = (0..sessions).map(|_| Client::open(world.address(), "/fragments")).collect();
    let fragments = hex("00 81 00000000 61").repeat(FRAGMENTS);
    thread::scope(|scope| {
        for chunk in clients.chunks_mut(sessions / 2) {
            scope.spawn(|| {
                for client in chunk {
                    client.send(&hex("01 81 00000000 61"));
                    client.send(&fragments);
                }
            });
        }
    });
    let sent = began.elapsed();
    // Payload twice and 4 KiB for each session, and 8 MiB for all that goes on beside them.
    let grown = world.gateway().resident_kib().saturating_sub(before) as usize;
    let allowed = sessions * (2 * FRAGMENTS / 1024 + 4) + 8 * 1024 + world.tls_kib(sessions);
    assert!(grown < allowed, "{grown} KiB more, {allowed} are allowed");
    let seen = clients
        .iter_mut()
        .map(|client| {
            let (frames, reaction) = read_close(client);
            assert!(frames.is_empty());
            Observed::new("held open", client.local(), reaction)
        })
        .collect();
    let took = began.elapsed();
    assert!(took >= MESSAGE_TIMEOUT - Duration::from_millis(100), "too early: {took:?}");
    assert!(
        took < sent + MESSAGE_TIMEOUT + Duration::from_secs(5),
        "too late: {took:?}, sent after {sent:?}"
    );

    // The count has its limit, too: empty fragments are fragments.
    let mut counted = world.session();
    let peer = counted.local();
    let _ = counted.try_send(&[hex("01 80 00000000"), hex("00 80 00000000").repeat(1024)].concat());
    let (_, reaction) = read_close(&mut counted);
    let mut seen: Vec<Observed> = seen;
    seen.push(Observed::new("1,025 empty fragments", peer, reaction));
    seen
}

fn f18_small_messages_at_line_rate(world: &World) -> Vec<Observed> {
    const MESSAGES: usize = 100_000;
    // Where a rate is configured, and on the routes that publish as well.
    let seen = ["/rated", "/up/rated", "/topics-rated"].map(|path| {
        let mut client = Client::open(world.address(), path);
        let peer = client.local();
        let one = match path {
            "/topics-rated" => masked(FIN | TEXT, br#"{"op":"publish","topic":"a","data":1}"#),
            _ => masked(FIN | BINARY, b"x"),
        };
        // It ends on the way.
        let _ = client.try_send(&one.repeat(MESSAGES));
        world.assert_others_unharmed();
        let (frames, reaction) = read_close(&mut client);
        if path == "/rated" {
            // The burst, and what the rate allows while they come.
            assert!((200..1000).contains(&frames.len()), "{} answers", frames.len());
        }
        Observed::new(path, peer, reaction)
    });

    // Where none is, all are answered, in order, while the others go on. So many are under way that both sides always
    // have something to read, and so few that the sockets hold them.
    const UNDER_WAY: usize = 8_000;
    let mut client = world.session();
    let (mut answers, mut bytes) = (0..MESSAGES, Vec::new());
    let mut take = |client: &mut Client, until: usize| {
        while answers.start < until {
            let round = answers.next().expect("so many were sent");
            assert_eq!(client.message(BINARY), [(round % 251) as u8], "message {round}");
        }
    };
    for round in 0..MESSAGES {
        bytes.extend(masked(FIN | BINARY, &[(round % 251) as u8]));
        if bytes.len() > 8000 {
            client.send(&bytes);
            bytes.clear();
            take(&mut client, round.saturating_sub(UNDER_WAY));
        }
        if round == MESSAGES / 2 {
            world.assert_others_unharmed();
        }
    }
    client.send(&bytes);
    take(&mut client, MESSAGES);
    client.close(1000);
    seen.into()
}

fn f19_pings_without_end(world: &World) -> Vec<Observed> {
    let flood = |path: &str| {
        let mut client = Client::open(world.address(), path);
        let peer = client.local();
        let ping = masked_with(FIN | PING, &[7; 125], [0; 4]);
        // It may end the connection as soon as the count is passed.
        let _ = client.try_send(&ping.repeat(100_000));
        let (frames, reaction) = read_close(&mut client);
        assert!(frames.iter().all(|frame| frame.opcode == PONG && frame.payload == [7; 125]));
        assert!(frames.len() <= CONTROL_FRAMES, "{} pongs", frames.len());
        Observed::new(path, peer, reaction)
    };
    // The pool of receive buffers, once all of it was in use, does not count.
    let mut seen = vec![flood("/ws"), flood("/up/echo")];
    let before = world.gateway().resident_kib();
    world.gateway().reset_peak();
    seen.extend([flood("/ws"), flood("/up/echo")]);
    let grown = world.gateway().peak_kib().saturating_sub(before);
    assert!(grown < 4 * 1024, "{grown} KiB more at the peak");
    seen
}

fn f20_pongs_without_end(world: &World) -> Vec<Observed> {
    ["/ws", "/up/echo"]
        .into_iter()
        .map(|path| {
            let mut client = Client::open(world.address(), path);
            let peer = client.local();
            let pong = masked_with(FIN | PONG, b"unasked", [0; 4]);
            // As many as are allowed are ignored.
            client.send(&pong.repeat(CONTROL_FRAMES));
            client.exchange(BINARY, b"still here");
            let _ = client.try_send(&pong.repeat(100_000));
            let (frames, reaction) = read_close(&mut client);
            assert!(frames.is_empty(), "{frames:?}");
            Observed::new(path, peer, reaction)
        })
        .collect()
}
