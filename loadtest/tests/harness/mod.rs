//! Servers of the tests' own, on threads, and runs of the binary against them.
#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod gateway;

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;
use tidegate_wire::handshake::accept_key;

/// The longest that any run of these tests may take, on a machine that does much else.
const HANG: Duration = Duration::from_secs(60);

/// A server on a port of the system's choice, as long as the process lives.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// How often it has misbehaved.
    pub(crate) deeds: Arc<AtomicU64>,
}

/// A frame from a client, unmasked.
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

/// One connection after its handshake.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    pub(crate) reader: BufReader<TcpStream>,
    pub(crate) deeds: Arc<AtomicU64>,
}

impl Server {
    /// Every connection is given to `serve`, before its handshake, on a thread of its own.
    pub(crate) fn raw(serve: impl Fn(TcpStream, &Arc<AtomicU64>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let deeds = Arc::new(AtomicU64::new(0));
        let (counter, serve) = (Arc::clone(&deeds), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (serve, counter) = (Arc::clone(&serve), Arc::clone(&counter));
                thread::spawn(move || serve(stream, &counter));
            }
        });
        Self { address, deeds }
    }

    /// Every connection is given to `serve` after its handshake.
    pub(crate) fn new(serve: impl Fn(Peer) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::raw(move |stream, deeds| {
            // Its peer may go at any time.
            let _ = accept(stream, Arc::clone(deeds)).and_then(&serve);
        })
    }

    /// Echoes; `answer` says for message `n` of a connection what is sent for it, as `(opcode, payload)`.
    pub(crate) fn echo(
        answer: impl Fn(u64, Frame, &AtomicU64) -> Vec<(u8, Vec<u8>)> + Send + Sync + 'static,
    ) -> Self {
        Self::new(move |mut peer| {
            for n in 0.. {
                let frame = peer.read()?;
                if frame.opcode == 8 {
                    return peer.close(&frame);
                }
                for (opcode, payload) in answer(n, frame, &peer.deeds) {
                    peer.stream.write_all(&encode(opcode, &payload))?;
                }
            }
            Ok(())
        })
    }

    /// Echoes everything as it came.
    pub(crate) fn honest() -> Self {
        Self::echo(|_, frame, _| vec![(frame.opcode, frame.payload)])
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }

    pub(crate) fn deeds(&self) -> u64 {
        self.deeds.load(Ordering::SeqCst)
    }
}

impl Peer {
    pub(crate) fn read(&mut self) -> io::Result<Frame> {
        read_frame(&mut self.reader)
    }

    /// Answers a Close and ends the connection, as RFC 6455 §7.1.1 has it.
    pub(crate) fn close(&mut self, frame: &Frame) -> io::Result<()> {
        self.stream.write_all(&encode(8, &frame.payload))?;
        self.stream.shutdown(Shutdown::Write)
    }

    pub(crate) fn did(&self) {
        self.deeds.fetch_add(1, Ordering::SeqCst);
    }
}

/// Reads a frame of a client.
pub(crate) fn read_frame(reader: &mut impl Read) -> io::Result<Frame> {
    let (first, payload) = read_raw(reader)?;
    Ok(Frame { opcode: first & 0x0f, payload })
}

/// Reads a frame of a client: its first byte, and its payload as it came, unmasked.
pub(crate) fn read_raw(reader: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    reader.read_exact(&mut head)?;
    assert!(head[0] & 0x80 != 0 && head[1] & 0x80 != 0, "one masked frame a message: {head:?}");
    let len = match head[1] & 0x7f {
        126 => {
            let mut len = [0; 2];
            reader.read_exact(&mut len)?;
            u64::from(u16::from_be_bytes(len))
        }
        127 => {
            let mut len = [0; 8];
            reader.read_exact(&mut len)?;
            u64::from_be_bytes(len)
        }
        len => u64::from(len),
    };
    let mut mask = [0; 4];
    reader.read_exact(&mut mask)?;
    let mut payload = vec![0; len as usize];
    reader.read_exact(&mut payload)?;
    payload.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= mask[at % 4]);
    Ok((head[0], payload))
}

/// An upgrade's request, as far as servers look at it.
#[derive(Default)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) key: String,
    /// What it offers; empty: nothing.
    pub(crate) extensions: String,
}

/// Reads a request's head.
pub(crate) fn read_request(reader: &mut impl BufRead) -> io::Result<Request> {
    let mut request = Request::default();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == "\r\n" {
            assert!(!request.key.is_empty(), "a request without a key");
            return Ok(request);
        }
        if let Some(rest) = line.strip_prefix("GET ") {
            rest.split(' ').next().unwrap().clone_into(&mut request.path);
        }
        for (name, field) in [
            ("Sec-WebSocket-Key: ", &mut request.key),
            ("Sec-WebSocket-Extensions: ", &mut request.extensions),
        ] {
            if let Some(value) = line.strip_prefix(name) {
                value.trim().clone_into(field);
            }
        }
    }
}

/// The answer that a key asks for.
pub(crate) fn switching(key: &str) -> String {
    let accept = accept_key(key);
    let accept = str::from_utf8(&accept).unwrap();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// The server's side of the handshake.
pub(crate) fn accept(stream: TcpStream, deeds: Arc<AtomicU64>) -> io::Result<Peer> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut peer_stream = stream;
    let request = read_request(&mut reader)?;
    peer_stream.write_all(switching(&request.key).as_bytes())?;
    Ok(Peer { stream: peer_stream, reader, deeds })
}

/// A whole frame, unmasked.
pub(crate) fn encode(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        len @ 0..126 => frame.push(len as u8),
        len @ 126..=0xffff => {
            frame.push(126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// A run that has ended.
pub(crate) struct Run {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Run {
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("ended by a signal: {}", self.stderr))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }

    /// How often this kind of error was met.
    pub(crate) fn errors(&self, kind: &str) -> u64 {
        self.json()["errors"]["by_kind"][kind].as_u64().unwrap_or(0)
    }
}

/// The binary with these arguments, apart at spaces.
pub(crate) fn command(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-loadtest"));
    command.args(arguments.split_whitespace());
    command
}

/// Starts a command, with what it writes for us to read.
pub(crate) fn start(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Whether what is started here ends by this signal: not where these tests were started with it ignored, as by `nohup`,
/// which what they start inherits.
pub(crate) fn is_heeded(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
    mask & 1 << (signal.as_raw() - 1) == 0
}

/// Waits for the end of a run; no run may go on for ever.
pub(crate) fn finish(mut child: Child) -> Run {
    let began = Instant::now();
    let drain = |stream: Box<dyn Read + Send>| {
        thread::spawn(move || {
            let (mut stream, mut text) = (stream, String::new());
            stream.read_to_string(&mut text).unwrap();
            text
        })
    };
    let stdout = drain(Box::new(child.stdout.take().unwrap()));
    let stderr = drain(Box::new(child.stderr.take().unwrap()));
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > HANG {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the run does not end: {}", stderr.join().unwrap());
        }
        thread::sleep(Duration::from_millis(5));
    };
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    Run { status, stdout, stderr, took: began.elapsed() }
}

/// A run to its end.
pub(crate) fn run(arguments: &str) -> Run {
    finish(start(command(arguments)))
}

/// What a session takes of this program's memory, in bytes, by the slope from 500 to 3,500 of them. `load` gives the arguments
/// of a run with so many sessions against a server that accepts and keeps them, and says nothing.
pub(crate) fn memory_of_a_session(load: impl Fn(SocketAddr, u32) -> String) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    // No thread for each.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming().flatten() {
            kept.extend(accept(stream, Arc::default()).map(|peer| peer.stream));
        }
    });
    let [few, many] = [500, 3500].map(|sessions| {
        let run = run(&format!("{} --pending 20 --quiet --json -", load(address, sessions)));
        assert_eq!(run.code(), 0, "{}", run.stderr);
        run.json()["generator"]["memory_bytes"].as_u64().unwrap()
    });
    many.saturating_sub(few) / 3000
}
