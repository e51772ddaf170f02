//! The client's side of `wire` over `io`: echoes what Autobahn's fuzzing server sends, case by case.
//!
//! ```text
//! autobahn_client --url ws://127.0.0.1:PORT --agent NAME [--io epoll|uring] [--cases FIRST-LAST]
//! ```
//! The server is told to write its reports at the end and to shut down.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

use std::{
    error::Error,
    net::SocketAddr,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tidegate_io::{
    Address, Backend, ConnectOptions, Epoll, EpollOptions, Event as IoEvent, ReceiveEnd, Sends, Token, Uring,
    UringOptions,
};
use tidegate_wire::{
    Limits, Role,
    close::CloseCode,
    deflate::{CodecLimits, Codecs, Compression},
    extension::DeflateOffer,
    frame::{self, ControlFrame, Head, MAX_HEADER, Opcode},
    handshake::{Offer, client_request, verify_response},
    http::{HeadLimits, HeadScanner, ResponseHead, Scan},
    message::{Cursor, DecodeContext, Decoder, Event, Spares},
};

/// Autobahn's largest messages are 16 MiB, in up to 65,536 fragments.
const LIMITS: Limits = Limits { message_bytes: 16 << 20, message_fragments: 131_072 };

/// A case that takes longer has failed.
const CASE_TIMEOUT: Duration = Duration::from_secs(100);

struct Arguments {
    address: SocketAddr,
    agent: String,
    epoll: bool,
    cases: Option<(u32, u32)>,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut address = None;
    let mut parsed = Arguments {
        address: ([127, 0, 0, 1], 9001).into(),
        agent: "tidegate".into(),
        epoll: false,
        cases: None,
    };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let value = given.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--url" => {
                let place = value.strip_prefix("ws://").ok_or("only ws:// is spoken")?;
                address = Some(place.trim_end_matches('/').parse()?);
            }
            "--agent" => parsed.agent = value,
            "--io" => parsed.epoll = value == "epoll",
            "--cases" => {
                let (first, last) = value.split_once('-').ok_or("--cases FIRST-LAST")?;
                parsed.cases = Some((first.parse()?, last.parse()?));
            }
            _ => return Err(format!("unknown argument {name}").into()),
        }
    }
    parsed.address = address.ok_or("--url is missing")?;
    Ok(parsed)
}

/// SplitMix64: masks and keys that differ are enough against a test server.
struct Random(u64);

impl Random {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }

    fn mask(&mut self) -> [u8; 4] {
        let mut mask = [0; 4];
        self.fill(&mut mask);
        mask
    }
}

/// The one send of a turn, if there is any.
struct One<'a, S> {
    socket: &'a S,
    bytes: &'a [u8],
}

impl<S> Sends<S> for One<'_, S> {
    fn len(&self) -> usize {
        usize::from(!self.bytes.is_empty())
    }

    fn socket(&self, _: usize) -> &S {
        self.socket
    }

    fn pieces(&self, _: usize) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.bytes)
    }
}

/// A session with the fuzzing server.
struct Session {
    scanner: HeadScanner,
    head: Vec<u8>,
    nonce: [u8; 16],
    offer: DeflateOffer,
    open: bool,
    decoder: Decoder,
    compression: Option<Compression>,
    out: Vec<u8>,
    /// The last message, for the questions that have an answer.
    last: Vec<u8>,
    closing: bool,
    done: bool,
}

struct Client<B: Backend> {
    backend: B,
    random: Random,
    codecs: Codecs,
    spares: Spares,
    connections: u64,
}

impl<B: Backend> Client<B> {
    /// Opens `path`, echoes until the server ends, and gives the last message.
    fn run(&mut self, address: SocketAddr, path: &str) -> Result<Vec<u8>, Box<dyn Error>> {
        self.connections += 1;
        let token = Token(self.connections);
        let mut session = Session {
            scanner: HeadScanner::for_response(),
            head: Vec::new(),
            nonce: [0; 16],
            offer: DeflateOffer { client_max_window_bits: Some(15), ..DeflateOffer::default() },
            open: false,
            decoder: Decoder::new(Role::Client),
            compression: None,
            out: Vec::new(),
            last: Vec::new(),
            closing: false,
            done: false,
        };
        self.random.fill(&mut session.nonce);
        client_request(
            &mut session.out,
            path,
            &address.to_string(),
            &session.nonce,
            &[],
            Offer::Deflate(&session.offer),
            [],
        );
        let socket = self.backend.connect(&Address::Tcp(address), &ConnectOptions::default(), token)?;
        let deadline = self.backend.now() + CASE_TIMEOUT;
        let (mut events, mut remainders) = (Vec::new(), Vec::new());
        // Connecting, then sending whenever there is something and room.
        let (mut connected, mut room, mut receiving, mut polling) = (false, false, false, false);
        while !session.done || receiving || polling || !connected {
            let bytes: &[u8] = if room && !session.done { &session.out } else { &[] };
            let sent = bytes.len();
            let sends = One { socket: &socket, bytes };
            self.backend.turn(&sends, Some(deadline), &mut events, &mut remainders)?;
            match remainders.pop() {
                None => drop(session.out.drain(..sent)),
                Some(remainder) => {
                    session.out.drain(..remainder.sent);
                    room = false;
                    if !polling && !session.done {
                        polling = true;
                        self.backend.poll_writable(&socket, token);
                    }
                }
            }
            for event in events.drain(..) {
                match event {
                    IoEvent::Connected { errno: 0, .. } => {
                        (connected, room, receiving) = (true, true, true);
                        self.backend.receive(&socket, token);
                    }
                    IoEvent::Connected { errno, .. } => {
                        self.backend.close(socket);
                        return Err(std::io::Error::from_raw_os_error(errno).into());
                    }
                    IoEvent::Received { mut buffer, .. } => {
                        self.read(&mut session, &mut buffer)?;
                        self.backend.recycle(buffer);
                    }
                    IoEvent::ReceiveEnded { end: ReceiveEnd::Rearm | ReceiveEnd::Starved, .. } => {
                        self.backend.receive(&socket, token);
                    }
                    IoEvent::ReceiveEnded { .. } => (receiving, session.done) = (false, true),
                    IoEvent::Writable { .. } => (polling, room) = (false, true),
                    IoEvent::Accepted { .. } | IoEvent::AcceptEnded { .. } | IoEvent::Woken => {}
                }
            }
            // The server ends the connection first (RFC 6455 §7.1.1); after a fault this end does.
            let given_up = self.backend.now() >= deadline;
            if given_up || (session.done && (receiving || polling)) {
                self.backend.shutdown(&socket, false);
                session.done = true;
            }
        }
        session.decoder.abandon(&mut self.codecs);
        if let Some(compression) = session.compression.take() {
            compression.release(&mut self.codecs);
        }
        self.backend.close(socket);
        Ok(session.last)
    }

    fn read(&mut self, session: &mut Session, mut bytes: &mut [u8]) -> Result<(), Box<dyn Error>> {
        if !session.open {
            let before = session.head.len();
            session.head.extend_from_slice(bytes);
            let Scan::Complete(end) = session.scanner.scan(&session.head, &HeadLimits::default())? else {
                return Ok(());
            };
            let response = ResponseHead::parse(&session.head[..end], &HeadLimits::default())?;
            let agreed = verify_response(&response, &session.nonce, &[], Offer::Deflate(&session.offer))?;
            session.compression =
                agreed.extension.map(|params| Compression::new(params, Role::Client, &mut self.codecs));
            session.open = true;
            bytes = &mut bytes[end - before..];
        }
        let mut cursor = Cursor { read: 0, write: 0, compact: false };
        while !session.closing {
            let mut context = DecodeContext {
                limits: &LIMITS,
                compression: session.compression.as_mut(),
                codecs: &mut self.codecs,
                spares: &mut self.spares,
            };
            let event = match session.decoder.next(bytes, &mut cursor, &mut context) {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(()),
                Err(violation) => {
                    self.close(session, Some(violation.close_code()), violation.text());
                    return Ok(());
                }
            };
            match event {
                Event::Message { kind, payload, .. } => {
                    session.last = payload.bytes(bytes).to_vec();
                    self.echo(session, kind.into());
                }
                Event::Ping(payload) => {
                    let frame = ControlFrame::pong(&payload, Some(self.random.mask()));
                    session.out.extend_from_slice(frame.as_ref());
                }
                Event::Pong(_) => {}
                Event::Close(close) => self.close(session, close.code, ""),
            }
        }
        Ok(())
    }

    /// Sends the last message back, compressed where that was agreed.
    fn echo(&mut self, session: &mut Session, opcode: Opcode) {
        let mut out = vec![0; MAX_HEADER];
        match &mut session.compression {
            Some(compression) => compression.deflate(&mut self.codecs, &session.last, &mut out),
            None => out.extend_from_slice(&session.last),
        }
        let mask = self.random.mask();
        tidegate_simd::unmask(&mut out[MAX_HEADER..], mask, 0);
        let len = (out.len() - MAX_HEADER) as u64;
        let head = Head { fin: true, rsv1: session.compression.is_some(), opcode, len, mask: Some(mask) };
        let start = frame::encode_header_before(&mut out, MAX_HEADER, &head);
        session.out.extend_from_slice(&out[start..]);
    }

    fn close(&mut self, session: &mut Session, code: Option<CloseCode>, reason: &str) {
        let frame = ControlFrame::close(code, reason, Some(self.random.mask()));
        session.out.extend_from_slice(frame.as_ref());
        session.closing = true;
    }
}

fn all_cases<B: Backend>(backend: B, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let mut client = Client {
        backend,
        random: Random(seed),
        codecs: Codecs::new(CodecLimits { takeover_bytes: 1 << 20, ..CodecLimits::default() }),
        spares: Spares::new(32 << 20),
        connections: 0,
    };
    let (address, agent) = (arguments.address, &arguments.agent);
    let count: u32 = String::from_utf8(client.run(address, "/getCaseCount")?)?.parse()?;
    let (first, last) = arguments.cases.unwrap_or((1, count));
    let mut failed = 0;
    for case in first..=last.min(count) {
        // The server judges; what goes wrong on this side is told, and the next case begins.
        if let Err(error) = client.run(address, &format!("/runCase?case={case}&agent={agent}")) {
            eprintln!("case {case}: {error}");
            failed += 1;
        }
    }
    client.run(address, &format!("/updateReports?agent={agent}&shutdownOnComplete=true"))?;
    println!("{} cases run, {failed} with an error on this side", last.min(count) + 1 - first);
    Ok(())
}

fn main() -> ExitCode {
    let outcome = arguments().and_then(|arguments| {
        if arguments.epoll {
            all_cases(Epoll::new(&EpollOptions::default())?, &arguments)
        } else {
            all_cases(Uring::new(&UringOptions::default())?, &arguments)
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("autobahn_client: {error}");
            ExitCode::FAILURE
        }
    }
}
