//! permessage-deflate: agreed on in every way, declined, and abused.

mod harness;

use std::{
    io::{self, BufReader, Write},
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
};

use harness::{Run, Server, encode, read_raw, read_request, run, switching};
use tidegate_wire::{
    Role,
    deflate::{CodecLimits, Codecs, Compression},
    extension::{DeflatePolicy, ExtensionOffers, negotiate},
};

/// One connection, before its messages.
struct Side {
    reader: BufReader<TcpStream>,
    stream: TcpStream,
    codecs: Codecs,
    compression: Compression,
}

/// Reads the request, answers with what `answer` makes of the offer, and gives what was agreed.
fn accept(
    stream: &TcpStream,
    answer: impl FnOnce(&str) -> Option<String>,
) -> io::Result<BufReader<TcpStream>> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let request = read_request(&mut reader)?;
    let mut head = switching(&request.key);
    if let Some(answer) = answer(&request.extensions) {
        head.insert_str(head.len() - 2, &format!("Sec-WebSocket-Extensions: {answer}\r\n"));
    }
    (&*stream).write_all(head.as_bytes())?;
    Ok(reader)
}

/// Agrees by this policy, and gives each connection to `serve`.
fn agreeing(
    policy: DeflatePolicy,
    serve: impl Fn(Side, &AtomicU64) -> io::Result<()> + Send + Sync + 'static,
) -> Server {
    Server::raw(move |stream, deeds| {
        let mut agreed = None;
        let reader = accept(&stream, |offer| {
            agreed = negotiate(&ExtensionOffers::new(vec![offer]), &policy);
            agreed.map(|params| params.to_string())
        });
        let (Ok(reader), Some(params)) = (reader, agreed) else { return };
        let mut codecs = Codecs::new(CodecLimits { takeover_bytes: 64 << 20, ..CodecLimits::default() });
        let compression = Compression::new(params, Role::Server, &mut codecs);
        // Its peer may go at any time.
        let _ = serve(Side { reader, stream, codecs, compression }, deeds);
    })
}

impl Side {
    /// A message, inflated; `None` for a Close, which is answered.
    fn read(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        let (first, payload) = read_raw(&mut self.reader)?;
        if first & 0x0f == 8 {
            self.stream.write_all(&encode(8, &payload))?;
            self.stream.shutdown(Shutdown::Write)?;
            return Ok(None);
        }
        assert_eq!(first & 0xc0, 0xc0, "deflated");
        let mut message = Vec::new();
        self.codecs.inflate_whole(&mut self.compression, &payload, &mut message, 1 << 26).unwrap();
        Ok(Some((first & 0x0f, message)))
    }

    fn write(&mut self, opcode: u8, message: &[u8]) -> io::Result<()> {
        let mut deflated = Vec::new();
        self.compression.deflate(&mut self.codecs, message, &mut deflated);
        self.stream.write_all(&encode(0x40 | opcode, &deflated))
    }
}

/// Echoes, and counts the messages.
fn echo(policy: DeflatePolicy) -> Server {
    agreeing(policy, |mut side, deeds| {
        while let Some((opcode, message)) = side.read()? {
            deeds.fetch_add(1, Ordering::SeqCst);
            side.write(opcode, &message)?;
        }
        Ok(())
    })
}

fn short(server: &Server, more: &str) -> Run {
    run(&format!("echo {} -c 4 -d 300ms --warmup 0 --quiet --json - --deflate {more}", server.url()))
}

#[test]
fn messages_go_deflated_both_ways_and_are_checked() {
    for context_takeover in [true, false] {
        let server = echo(DeflatePolicy { context_takeover, ..DeflatePolicy::default() });
        for more in [
            "--fill json -s 1KiB --depth 4",
            "--fill json -s 1KiB --text --depth 4",
            "--no-context-takeover -s 1KiB --fill json",
            "--window-bits 9 -s 1KiB --fill json",
            "-s 0..300 --text --depth 4",
            "-s 300000 --depth 4 --io epoll",
            "-s 64:50%,2KiB:50% -R 200 -t 2",
        ] {
            let before = server.deeds();
            let run = short(&server, more);
            let report = run.json();
            assert_eq!((run.code(), report["errors"]["total"].as_u64()), (0, Some(0)), "{more}: {report:#}");
            let deflate = &report["deflate"];
            assert_eq!((&deflate["outcome"], &deflate["agreed"]), (&"agreed".into(), &4.into()));
            let looks_back = context_takeover && !more.contains("--no-context");
            assert_eq!(deflate["look_back"], if looks_back { 4 } else { 0 }, "{more}");
            let (sent, received) = (&deflate["sent"], &deflate["received"]);
            assert!(server.deeds() > before);
            assert_eq!(sent["payload_bytes"], received["payload_bytes"], "{more}");
            for flow in [sent, received] {
                let ratio = flow["ratio"].as_f64().unwrap();
                if more.contains("json") {
                    assert!(ratio < 0.7, "{more}: {ratio}");
                } else if !more.contains("--text") {
                    assert!((0.95..1.6).contains(&ratio), "{more}: {ratio}");
                }
            }
        }
    }
}

#[test]
fn who_declines_is_sent_plain_messages_and_that_is_told() {
    let server = Server::honest();
    let declined = short(&server, "--fill json");
    let report = declined.json();
    assert_eq!((declined.code(), report["errors"]["total"].as_u64()), (0, Some(0)), "{report:#}");
    assert_eq!(
        (&report["deflate"]["outcome"], &report["deflate"]["declined"]),
        (&"declined".into(), &4.into())
    );
    assert_eq!(report["deflate"]["sent"]["payload_bytes"], 0);
    assert!(report["latency"]["count"].as_u64().unwrap() > 0);
    let table = run(&format!("idle {} -c 2 -d 100ms --quiet --deflate", server.url()));
    assert!(table.stdout.contains("declined by the server"), "{}", table.stdout);
}

#[test]
fn corrupt_echoes_are_found_within_what_was_deflated() {
    let server = agreeing(DeflatePolicy::default(), |mut side, deeds| {
        let mut n = 0;
        while let Some((opcode, mut message)) = side.read()? {
            n += 1;
            if n % 5 == 0 {
                deeds.fetch_add(1, Ordering::SeqCst);
                let last = message.len() - 1;
                message[last] ^= 1;
            }
            side.write(opcode, &message)?;
        }
        Ok(())
    });
    let run = short(&server, "--fill json -s 200");
    assert!(server.deeds() > 0);
    assert_eq!(run.errors("corrupt"), server.deeds(), "{}", run.stdout);
    assert_eq!(run.json()["errors"]["total"], server.deeds());
}

#[test]
fn what_cannot_be_inflated_is_garbage() {
    let broken = agreeing(DeflatePolicy::default(), |mut side, _| {
        side.read()?;
        side.stream.write_all(&encode(0x42, &[0xff; 20]))
    });
    let run = short(&broken, "");
    assert_eq!(run.errors("garbage"), 4, "{}", run.stdout);
    // RFC 6455 §5.2: RSV1 is for those who agreed on it.
    let unasked = Server::echo(|_, frame, _| vec![(0x40 | frame.opcode, frame.payload)]);
    let run = short(&unasked, "");
    assert_eq!(run.errors("garbage"), 4, "{}", run.stdout);
}

#[test]
fn an_answer_that_does_not_fit_the_offer_fails_the_handshake() {
    for answer in ["permessage-deflate; server_max_window_bits=7", "permessage-bzip", "permessage-deflate; x"]
    {
        let server = Server::raw(move |stream, _| {
            let _ = accept(&stream, |_| Some(answer.to_owned())).and_then(|mut reader| read_raw(&mut reader));
        });
        let run = short(&server, "");
        assert_eq!((run.code(), run.errors("handshake_invalid")), (1, 4), "{answer}: {}", run.stdout);
    }
}
