//! Rows U, and the scripted upstream behind the gateway: it plays by the path of the request.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::{
    Company, Row,
    harness::{
        client::{Client, End, Received},
        eventually,
        frame::{BINARY, CLOSE, FIN, TEXT, masked, plain},
        upstream::{Connection, switching_protocols},
    },
    http::each,
    reaction::{Due, Observed, Reaction, read_close, respond},
    world::{Req, World},
};

pub(crate) const ROWS: &[Row] = &[
    ("U01", Company::Any, u01_refusals_are_relayed),
    ("U02", Company::Any, u02_only_upgrades_are_forwarded),
    ("U03", Company::Any, |w| bad_answers(w, &["U03/no-accept", "U03/wrong-accept"])),
    ("U05", Company::Any, |w| {
        bad_answers(w, &["U05/h2c", "U05/no-connection", "U05/two-accepts", "U05/protocol", "U05/extension"])
    }),
    ("U07", Company::Any, u07_frames_behind_the_101),
    ("U08", Company::Any, u08_heads_without_end),
    ("U10", Company::Any, u10_masked_frames),
    ("U12", Company::Any, |w| {
        bad_answers(
            w,
            &["U12/nul", "U12/cr", "U12/lf", "U12/cookie", "U12/refusal-nul", "U12/refusal-cookie"],
        )
    }),
];

/// What the upstream was asked, and what its scripts have to say.
#[derive(Default)]
pub(crate) struct Scripts {
    heads: Mutex<Vec<(String, String)>>,
    notes: Mutex<Vec<(&'static str, &'static str)>>,
}

impl Scripts {
    /// The heads of all requests for a target.
    pub(crate) fn heads_of(&self, target: &str) -> Vec<String> {
        let heads = self.heads.lock().expect("a lock");
        heads.iter().filter(|(asked, _)| asked == target).map(|(_, head)| head.clone()).collect()
    }

    /// Waits for a script's note, and takes it.
    pub(crate) fn wait_for(&self, script: &'static str, note: &'static str) {
        eventually(&format!("{script}: {note}"), || {
            let mut notes = self.notes.lock().expect("a lock");
            let found = notes.iter().position(|entry| *entry == (script, note))?;
            notes.swap_remove(found);
            Some(())
        });
    }

    fn note(&self, script: &'static str, note: &'static str) {
        self.notes.lock().expect("a lock").push((script, note));
    }

    /// Plays one connection.
    pub(crate) fn play(&self, mut connection: Connection) {
        let Some(head) = connection.head() else { return };
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        self.heads.lock().expect("a lock").push((target.clone(), head.clone()));
        if let Some(answer) = answer(&target, &head) {
            connection.send(&answer);
            if target.starts_with("/up/U") {
                // Whatever the answer was: it was no session, so nothing follows and the leg ends.
                let end = connection.end_within(Duration::from_secs(15));
                assert!(end.is_some(), "{target}: the gateway keeps the connection");
            }
            return;
        }
        match target.as_str() {
            "/up/U07" => {
                let head = switching_protocols(&head, "").into_bytes();
                connection.send(&[head, plain(FIN | TEXT, b"early"), plain(FIN | BINARY, b"bird")].concat());
                connection.echo();
            }
            "/up/U08/unended" => {
                connection.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n");
                assert!(
                    connection.end_within(Duration::from_secs(15)).is_some(),
                    "the gateway keeps the connection"
                );
            }
            "/up/U08/slow" => {
                for byte in switching_protocols(&head, "").as_bytes().chunks(1) {
                    if !connection.send(byte) || connection.end_within(Duration::from_millis(125)).is_some() {
                        return;
                    }
                }
                panic!("the gateway waited for a head of a byte each eighth of a second");
            }
            "/pushed" => {
                connection.send(switching_protocols(&head, "").as_bytes());
                connection.stall_after(Duration::from_millis(500));
                let message = plain(FIN | BINARY, &vec![9; 256 << 10]);
                while connection.send(&message) {}
                self.note("pushed", "the gateway takes no more");
            }
            _ => {
                connection.send(switching_protocols(&head, "").as_bytes());
                self.play_session(&target, &mut connection);
            }
        }
    }

    fn play_session(&self, target: &str, connection: &mut Connection) {
        let closing = |payload: &[u8]| plain(FIN | CLOSE, payload);
        match target {
            "/up/T04" => {
                while connection.unread().len() < 1000 {
                    assert!(connection.receive_within(Duration::from_secs(15)), "cut-through has not begun");
                }
                self.note("T04", "bytes of the frame have come");
                while connection.receive_within(Duration::from_secs(15)) {}
                assert!(connection.unread().len() <= 14 + (32 << 10), "more than the client sent");
                assert_eq!(
                    connection.end_within(Duration::ZERO),
                    Some(End::Reset),
                    "a FIN would be a clean end"
                );
                self.note("T04", "the rest never came, and the leg was aborted");
            }
            "/up/U10" => {
                connection.send(&masked(FIN | TEXT, b"masked"));
                let next = connection.next_within(Duration::from_secs(15));
                let Received::Frame(frame) = next else { panic!("U10: {next:?} where a Close is due") };
                assert_eq!((frame.opcode, frame.close_code()), (CLOSE, 1002));
            }
            "/up/C10/long" => {
                connection.send(&closing(
                    &[&1000_u16.to_be_bytes()[..], "\u{20ac}".repeat(41).as_bytes()].concat(),
                ));
                connection.end_within(Duration::from_secs(15));
            }
            "/up/C10/longer" => {
                connection.send(&closing(&[&1000_u16.to_be_bytes()[..], &b"x".repeat(300)].concat()));
                connection.end_within(Duration::from_secs(15));
            }
            "/up/C10/no-text" => {
                connection.send(&closing(&[&1000_u16.to_be_bytes()[..], b"\xff\xfe"].concat()));
                connection.end_within(Duration::from_secs(15));
            }
            "/up/F29" | "/up/H33" => {
                // HTTP in a tunnel is not relayed: only the end comes.
                match connection.next_within(Duration::from_secs(15)) {
                    Received::Frame(frame) => assert_eq!((frame.opcode, frame.close_code()), (CLOSE, 1001)),
                    Received::End(_) => {}
                    Received::Nothing => panic!("{target}: the session goes on"),
                }
                assert!(connection.unread().is_empty(), "{target}: {:?}", connection.unread());
            }
            _ => connection.echo(),
        }
    }
}

/// Answers that are whole heads: wrong ones, and refusals.
fn answer(target: &str, request: &str) -> Option<Vec<u8>> {
    let right = switching_protocols(request, "");
    let with = |fields: &str| switching_protocols(request, fields).into_bytes();
    let refusal = |status: &str, fields: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n{fields}\r\nsorry").into_bytes()
    };
    Some(match target.strip_prefix("/up/")? {
        "U01/426" => refusal("426 Upgrade Required", "Upgrade: websocket\r\nConnection: Upgrade\r\n"),
        "U01/400" => refusal("400 Bad Request", ""),
        "U01/403" => refusal("403 Forbidden", "X-Reason: because\r\nConnection: close\r\n"),
        "U01/200" => refusal("200 OK", ""),
        "U03/no-accept" => {
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".to_vec()
        }
        "U03/wrong-accept" => {
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
                .to_vec()
        }
        "U05/h2c" => right.replace("Upgrade: websocket", "Upgrade: h2c").into_bytes(),
        "U05/no-connection" => right.replace("Connection: Upgrade\r\n", "").into_bytes(),
        "U05/two-accepts" => {
            let accept =
                right.lines().find(|line| line.starts_with("Sec-WebSocket-Accept")).expect("a field");
            with(&format!("{accept}\r\n"))
        }
        // Neither was offered.
        "U05/protocol" => with("Sec-WebSocket-Protocol: mqtt\r\n"),
        "U05/extension" => with("Sec-WebSocket-Extensions: permessage-deflate\r\n"),
        "U08/long" => with(&format!("X: {}\r\n", "a".repeat(64 << 10))),
        "U12/nul" => with("X: a\0b\r\n"),
        "U12/cr" => with("X: a\rb\r\n"),
        "U12/lf" => with("X: a\nSet-Cookie: b\r\n"),
        "U12/cookie" => with(&format!("Set-Cookie: {}\r\n", "a".repeat(64 << 10))),
        "U12/refusal-nul" => refusal("403 Forbidden", "X: a\0b\r\n"),
        "U12/refusal-cookie" => {
            refusal("403 Forbidden", &format!("Set-Cookie: {}\r\n", "a".repeat(64 << 10)))
        }
        _ => return None,
    })
}

/// One session for each of the upstream's wrong answers.
fn bad_answers(world: &World, names: &[&str]) -> Vec<Observed> {
    let seen = each(world, names.iter().map(|name| (*name, Req::at(&format!("/up/{name}")).bytes())));
    names
        .iter()
        .for_each(|name| assert_eq!(world.scripts().heads_of(&format!("/up/{name}")).len(), 1, "{name}"));
    seen
}

fn u01_refusals_are_relayed(world: &World) -> Vec<Observed> {
    let (ok, seen) = respond(world.address(), "200", &Req::at("/up/U01/200").bytes());
    let status = ok.expect("a response").status;
    assert!(status == 200 || status == 502, "{status} for a 200 that is no upgrade");
    assert!(
        matches!(seen.reaction, Reaction::Http { closed: true, .. } | Reaction::Tcp(End::Fin))
            || status == 200
    );
    [426, 400, 403]
        .into_iter()
        .map(|status| {
            let head = Req::at(&format!("/up/U01/{status}")).bytes();
            // What the client says behind its head must go nowhere: the script expects the end.
            let bytes = [head, masked(FIN | TEXT, b"into the tunnel")].concat();
            let (response, observed) = respond(world.address(), status.to_string(), &bytes);
            let response = response.expect("a response");
            assert_eq!(response.status, status);
            assert_eq!(response.body, b"sorry");
            if status == 403 {
                assert_eq!(response.field("x-reason"), Some("because"));
            }
            // The upstream's refusal, not the gateway's.
            observed.with_due(Due::Silence)
        })
        .collect()
}

fn u02_only_upgrades_are_forwarded(world: &World) -> Vec<Observed> {
    let post = Req::at("/up/U02").line("POST /up/U02 HTTP/1.1");
    let seen = respond(world.address(), "POST", &post.bytes()).1;
    let without_key = Req::at("/up/U02").without("Sec-WebSocket-Key");
    let other = respond(world.address(), "no key", &without_key.bytes()).1;
    assert!(world.scripts().heads_of("/up/U02").is_empty(), "the upstream was asked");
    vec![seen, other]
}

fn u07_frames_behind_the_101(world: &World) -> Vec<Observed> {
    let mut client = Client::open(world.address(), "/up/U07");
    let peer = client.local();
    assert_eq!(client.message(TEXT), b"early");
    assert_eq!(client.message(BINARY), b"bird");
    client.exchange(TEXT, b"and on");
    client.close(1000);
    vec![Observed::new("two frames", peer, Reaction::Ok)]
}

fn u08_heads_without_end(world: &World) -> Vec<Observed> {
    let began = Instant::now();
    let status = |name: &str| {
        let (response, observed) =
            respond(world.address(), name, &Req::at(&format!("/up/U08/{name}")).bytes());
        (response.expect("a response").status, observed)
    };
    let (long, unended, slow) = (status("long"), status("unended"), status("slow"));
    assert_eq!((long.0, unended.0, slow.0), (502, 504, 504));
    assert!(
        began.elapsed() < Duration::from_secs(12),
        "the deadline of a second came twice: {:?}",
        began.elapsed()
    );
    vec![long.1, unended.1, slow.1]
}

fn u10_masked_frames(world: &World) -> Vec<Observed> {
    let mut client = Client::open(world.address(), "/up/U10");
    let peer = client.local();
    let (frames, reaction) = read_close(&mut client);
    assert!(frames.is_empty(), "{frames:?}");
    vec![Observed::new("masked", peer, reaction)]
}
