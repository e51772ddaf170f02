//! One measurement: a fresh server (and its upstream), one run of the load against it, and their end.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Pid;
use serde_json::Value;

use super::{
    metric::Metric,
    process::{Affinity, Folder, Launch, Process, find_program, show_status, sweep},
    signals::Interrupts,
    suite::{Ready, Scenario, Server, Suite},
    template::{Names, Unknown, expand},
};

/// Between two looks at a server that starts.
const STARTING: Duration = Duration::from_millis(20);
/// Between two looks at a load that runs: seldom, as this shares a processor with it.
const RUNNING: Duration = Duration::from_millis(50);
/// How long a server has the same processes before it counts as started.
const STEADY: Duration = Duration::from_millis(100);
/// The longest that is waited for an answer to an upgrade before the next is sent.
const ANSWER: Duration = Duration::from_secs(1);
/// The longest that a server may take to tell its version.
const VERSION: Duration = Duration::from_secs(5);
/// Lines of a server's that are shown when it fails.
const LAST_LINES: usize = 5;
/// Ports that are tried.
const FIRST_PORT: u16 = 10_240;
const PORTS: u16 = 22_000;

/// The figures of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) values: BTreeMap<Metric, f64>,
    /// The load was at its limit, and the server was not.
    pub(crate) was_generator_the_limit: bool,
    /// Threads of the server ended, and took CPU time that is in no value.
    pub(crate) misses_threads: bool,
    pub(crate) processes: usize,
}

/// Why there is no sample.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It did not start, died, hung, or answered wrongly.
    Server { what: String, last_lines: Vec<String> },
    /// A signal came.
    Interrupted,
    /// This machine refuses something.
    System(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { what, last_lines } => {
                f.write_str(what)?;
                last_lines.iter().try_for_each(|line| write!(f, "\n      | {line}"))
            }
            Self::Interrupted => f.write_str("interrupted"),
            Self::System(error) => write!(f, "{error}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// What all measurements share.
pub(crate) struct Bench<'a> {
    pub(crate) suite: &'a Suite,
    pub(crate) interrupts: &'a Interrupts,
    pub(crate) affinity: Affinity,
    next_port: u16,
}

/// A server that runs.
struct Running<'a> {
    server: &'a Server,
    process: Process,
    folder: Folder,
    port: u16,
}

impl<'a> Bench<'a> {
    /// # Errors
    /// Where the system refuses.
    pub(crate) fn new(suite: &'a Suite, interrupts: &'a Interrupts, affinity: Affinity) -> io::Result<Self> {
        // Two comparisons on one machine begin at different ports.
        let offset = (getrandom::u64().map_err(io::Error::other)? % u64::from(PORTS)) as u16;
        Ok(Self { suite, interrupts, affinity, next_port: FIRST_PORT + offset })
    }

    /// Why a server cannot be compared here, or its version.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn look_at(&self, server: &Server) -> Result<Option<String>, String> {
        let mut names = self.suite.names.clone();
        names.extend(["port", "upstream_port", "dir"].map(|name| (name.to_owned(), String::new())));
        let text = |text: &String| expand(text, &names, Unknown::Keep).unwrap_or_default();
        for file in server.requires.iter().map(text) {
            if !Path::new(&file).exists() {
                return Err(format!("{file} is not there"));
            }
        }
        let program = server.command.first().map(text).unwrap_or_default();
        if find_program(&program).is_none() {
            return Err(format!("{program} is not installed"));
        }
        let words: Vec<String> = server.version.iter().map(text).collect();
        if words.is_empty() {
            return Ok(None);
        }
        let environment =
            server.environment.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        Ok(self
            .version(&words, &environment)
            .unwrap_or_else(|error| Some(format!("version not known: {error}"))))
    }

    fn version(
        &self,
        words: &[String],
        environment: &BTreeMap<String, String>,
    ) -> io::Result<Option<String>> {
        let folder = Folder::new()?;
        let path = folder.path().join("version");
        let file = File::create(&path)?;
        let launch = Launch {
            words,
            environment,
            folder: folder.path(),
            stdout: file.try_clone()?,
            stderr: file,
            pins: &self.suite.pins.server,
        };
        let mut process = Process::start(launch, &self.affinity, &self.suite.pins.generator)?;
        let began = Instant::now();
        while process.ended().is_none() && began.elapsed() < VERSION && self.interrupts.first().is_none() {
            thread::sleep(STARTING);
        }
        process.stop(self.interrupts);
        let text = read_end(&path)?;
        Ok(text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned))
    }

    /// Measures one server once. Whatever comes of it, nothing of it is left.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(crate) fn measure(&mut self, server: &Server, scenario: &Scenario) -> Result<Sample, Failure> {
        let sample = self.measure_upstream(server, scenario);
        sweep();
        sample
    }

    fn measure_upstream(&mut self, server: &Server, scenario: &Scenario) -> Result<Sample, Failure> {
        let Some(name) = &server.upstream else { return self.measure_server(server, scenario, None) };
        let suite = self.suite;
        let upstream = suite.upstreams.iter().find(|upstream| upstream.name == *name);
        let upstream = upstream.expect("a suite names upstreams that it has");
        let mut upstream = self.start(upstream, &suite.pins.upstream, None)?;
        let sample = self.measure_server(server, scenario, Some(&mut upstream));
        upstream.process.stop(self.interrupts);
        sample
    }

    fn measure_server(
        &mut self,
        server: &Server,
        scenario: &Scenario,
        mut upstream: Option<&mut Running<'_>>,
    ) -> Result<Sample, Failure> {
        let suite = self.suite;
        let upstream_port = upstream.as_ref().map(|upstream| upstream.port);
        let mut running = self.start(server, &suite.pins.server, upstream_port)?;
        let pids = running.process.members();
        let mut sample = self.load(&mut running, scenario, &pids, upstream_port);
        // What a server did wrong comes before what the load saw of it.
        if let Some(status) = running.process.ended() {
            sample = Err(running.failed(format!("ended {} while it was measured", show_status(status))));
        } else if let Some(upstream) = upstream.as_mut()
            && let Some(status) = upstream.process.ended()
        {
            sample = Err(upstream.failed(format!("ended {} while it was used", show_status(status))));
        } else if sample.is_ok() && running.process.members() != pids {
            sample =
                Err(running
                    .failed("its processes changed while it was measured: not all are counted".to_owned()));
        }
        running.process.stop(self.interrupts);
        sample
    }

    /// Starts a server or an upstream, and waits until it is ready.
    fn start<'s>(
        &mut self,
        server: &'s Server,
        pins: &[usize],
        upstream_port: Option<u16>,
    ) -> Result<Running<'s>, Failure> {
        let folder = Folder::new()?;
        let port = self.free_port()?;
        let names = self.names(port, upstream_port, folder.path());
        for (file, text) in &server.files {
            fs::write(folder.path().join(file), text_of(text, &names, Unknown::Keep))?;
        }
        let words: Vec<String> =
            server.command.iter().map(|text| text_of(text, &names, Unknown::Refuse)).collect();
        let environment = server.environment.iter();
        let environment =
            environment.map(|(name, text)| (name.clone(), text_of(text, &names, Unknown::Refuse))).collect();
        let log = File::create(folder.path().join(LOG))?;
        let launch = Launch {
            words: &words,
            environment: &environment,
            folder: folder.path(),
            stdout: log.try_clone()?,
            stderr: log,
            pins,
        };
        let process =
            Process::start(launch, &self.affinity, &self.suite.pins.generator).map_err(|error| {
                Failure::Server {
                    what: format!("{}: cannot be started: {error}", server.name),
                    last_lines: Vec::new(),
                }
            })?;
        let mut running = Running { server, process, folder, port };
        if let Err(failure) =
            self.wait_until_ready(&mut running, &text_of(&server.url, &names, Unknown::Refuse))
        {
            running.process.stop(self.interrupts);
            return Err(failure);
        }
        Ok(running)
    }

    fn names(&self, port: u16, upstream_port: Option<u16>, folder: &Path) -> Names {
        let mut names = self.suite.names.clone();
        names.insert("port".to_owned(), port.to_string());
        names.insert("dir".to_owned(), folder.display().to_string());
        if let Some(port) = upstream_port {
            names.insert("upstream_port".to_owned(), port.to_string());
        }
        names
    }

    /// A port on which nobody listens, below those that the kernel gives to clients, and not used by this comparison
    /// before.
    fn free_port(&mut self) -> io::Result<u16> {
        for _ in 0..PORTS {
            let port = self.next_port;
            self.next_port = if port >= FIRST_PORT + PORTS { FIRST_PORT } else { port + 1 };
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return Ok(port);
            }
        }
        Err(io::Error::other("no port of 127.0.0.1 is free"))
    }

    fn wait_until_ready(&self, running: &mut Running<'_>, url: &str) -> Result<(), Failure> {
        let began = Instant::now();
        let address = SocketAddr::from(([127, 0, 0, 1], running.port));
        let mut problem = "takes no connections".to_owned();
        let mut last = Vec::new();
        let mut is_ready = false;
        loop {
            if self.interrupts.first().is_some() {
                return Err(Failure::Interrupted);
            }
            if let Some(status) = running.process.ended() {
                return Err(running.failed(format!("ended {} instead of starting", show_status(status))));
            }
            if is_ready {
                // A server may listen before all its processes are there.
                let members = running.process.members();
                if members == last {
                    return Ok(());
                }
                last = members;
                "its processes come and go".clone_into(&mut problem);
            } else {
                match probe(address, url, running.server.ready) {
                    Ok(()) => {
                        is_ready = true;
                        continue;
                    }
                    Err(why) => problem = why.unwrap_or(problem),
                }
            }
            if began.elapsed() > self.suite.ready_timeout {
                let what = format!("did not start within {:?}: {problem}", self.suite.ready_timeout);
                return Err(running.failed(what));
            }
            thread::sleep(if is_ready { STEADY } else { STARTING });
        }
    }

    /// Runs the load as a process of this program.
    fn load(
        &self,
        running: &mut Running<'_>,
        scenario: &Scenario,
        pids: &[Pid],
        upstream_port: Option<u16>,
    ) -> Result<Sample, Failure> {
        let names = self.names(running.port, upstream_port, running.folder.path());
        let server = running.server;
        // This very program, even where its file was replaced meanwhile.
        let mut words = vec!["/proc/self/exe".to_owned()];
        words.extend(scenario.words.iter().cloned());
        words.extend(server.arguments.iter().map(|text| text_of(text, &names, Unknown::Refuse)));
        words.push(text_of(&server.url, &names, Unknown::Refuse));
        words.extend(["--quiet", "--json", "-"].map(str::to_owned));
        for pid in pids {
            words.extend(["--pid".to_owned(), pid.to_string()]);
        }
        let folder = Folder::new()?;
        let (report, complaints) = (folder.path().join("report.json"), folder.path().join("complaints"));
        let launch = Launch {
            words: &words,
            environment: &BTreeMap::new(),
            // Where its words were looked at: a path in them is that of the same file.
            folder: Path::new("."),
            stdout: File::create(&report)?,
            stderr: File::create(&complaints)?,
            pins: &self.suite.pins.generator,
        };
        let mut load = Process::start(launch, &self.affinity, &self.suite.pins.generator)?;
        let began = Instant::now();
        let status = loop {
            if let Some(status) = load.ended() {
                break status;
            }
            let is_late = began.elapsed() > scenario.run_timeout;
            let is_interrupted = self.interrupts.first().is_some();
            if is_late || is_interrupted || running.process.ended().is_some() {
                load.stop(self.interrupts);
                if is_interrupted {
                    return Err(Failure::Interrupted);
                }
                let limit = scenario.run_timeout;
                return Err(running.failed(format!("the load did not end within {limit:?}")));
            }
            thread::sleep(RUNNING);
        };
        // With --processes, it may have others.
        load.stop(self.interrupts);
        if !status.success() {
            let text = read_end(&complaints)?;
            let said =
                text.lines().last().unwrap_or("it said nothing").trim_start_matches("tidegate-loadtest: ");
            return Err(running.failed(format!("the load ended {}: {said}", show_status(status))));
        }
        let text = fs::read_to_string(&report)?;
        let report: Value = serde_json::from_str(&text)
            .map_err(|error| running.failed(format!("the load wrote no report: {error}")))?;
        if let Some(errors) = errors(&report).filter(|_| !scenario.allows_errors) {
            return Err(running.failed(format!("met errors: {errors}")));
        }
        let values = Metric::ALL.into_iter().filter_map(|metric| Some((metric, metric.of(&report)?)));
        let limit = report.pointer("/generator/was_the_limit").and_then(Value::as_bool);
        Ok(Sample {
            values: values.collect(),
            was_generator_the_limit: limit.unwrap_or(false),
            misses_threads: report.pointer("/server/ended_threads_cpu_s").is_some_and(Value::is_number),
            processes: pids.len(),
        })
    }
}

/// The file that a server writes into.
const LOG: &str = ".output";

impl Running<'_> {
    /// With the last that it said.
    fn failed(&self, what: String) -> Failure {
        let text = read_end(&self.folder.path().join(LOG)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines.iter().skip(lines.len().saturating_sub(LAST_LINES));
        Failure::Server { what, last_lines: last.map(|line| line.chars().take(200).collect()).collect() }
    }
}

/// A text of the suite with its values.
fn text_of(text: &str, names: &Names, unknown: Unknown) -> String {
    expand(text, names, unknown).expect("a suite's placeholders were looked at when it was read")
}

/// What kinds of errors a report has, if any. How sessions end comes behind what is measured, but in `churn`.
fn errors(report: &Value) -> Option<String> {
    let kinds = report.pointer("/errors/by_kind")?.as_object()?;
    let is_churn = report.get("scenario").is_some_and(|scenario| scenario == "churn");
    let comes_behind = |kind: &str| ["close_timeout", "close_cut"].contains(&kind);
    let kinds = kinds.iter().filter(|(kind, _)| is_churn || !comes_behind(kind));
    let met: Vec<String> = kinds.map(|(kind, count)| format!("{kind} {count}")).collect();
    (!met.is_empty()).then(|| met.join(", "))
}

/// Whether a server is ready; why it is not, where it said something.
fn probe(address: SocketAddr, url: &str, ready: Ready) -> Result<(), Option<String>> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER).map_err(|_| None)?;
    match ready {
        Ready::Connect => Ok(()),
        Ready::Upgrade => upgrade(&mut stream, url).map_err(Some),
    }
}

fn upgrade(stream: &mut TcpStream, url: &str) -> Result<(), String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').map_or("/", |at| &rest[at..]);
    let address = stream.peer_addr().map_err(|error| error.to_string())?;
    // The key of RFC 6455 §1.3.
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    let answer = (|| {
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut part = [0; 256];
        while !answer.contains(&b'\n') && answer.len() < 4096 {
            match stream.read(&mut part)? {
                0 => break,
                len => answer.extend_from_slice(&part[..len]),
            }
        }
        io::Result::Ok(answer)
    })();
    match answer {
        Ok(answer) if answer.starts_with(b"HTTP/1.1 101") => Ok(()),
        Ok(answer) if answer.is_empty() => Err("ends connections instead of answering an upgrade".to_owned()),
        Ok(answer) => {
            let line = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
            Err(format!("answers an upgrade with {line:?}"))
        }
        Err(_) => Err("does not answer an upgrade".to_owned()),
    }
}

/// The last of a file, however long it is.
fn read_end(path: &Path) -> io::Result<String> {
    use std::io::{Seek, SeekFrom};

    const MOST: u64 = 16 * 1024;
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(MOST)))?;
    let mut text = Vec::new();
    file.take(MOST).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_fail_a_run_but_those_that_come_behind_it() {
        let of = |scenario: &str, kinds: Value| {
            errors(&json!({"scenario": scenario, "errors": {"by_kind": kinds}}))
        };
        assert_eq!(of("echo", json!({})), None);
        assert_eq!(of("echo", json!({"close_timeout": 2, "close_cut": 1})), None);
        assert_eq!(of("churn", json!({"close_cut": 2})).as_deref(), Some("close_cut 2"));
        assert_eq!(of("churn", json!({"close_timeout": 2})).as_deref(), Some("close_timeout 2"));
        assert_eq!(of("echo", json!({"close_timeout": 2, "lost": 3})).as_deref(), Some("lost 3"));
    }

    #[test]
    fn what_does_not_upgrade_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(probe(address, "ws://x/", Ready::Connect), Ok(()));
        for (answer, told) in [
            (&b"HTTP/1.1 101 Switching Protocols\r\n\r\n"[..], None),
            (
                b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
                Some("answers an upgrade with \"HTTP/1.1 502 Bad Gateway\""),
            ),
            (b"", Some("ends connections instead of answering an upgrade")),
        ] {
            let prober = thread::spawn(move || probe(address, "ws://127.0.0.1:1/some/path", Ready::Upgrade));
            let head = loop {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = Vec::new();
                let mut part = [0; 512];
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut part).unwrap() {
                        0 => break,
                        len => head.extend_from_slice(&part[..len]),
                    }
                }
                // The first one was that of `Connect`.
                if !head.is_empty() {
                    stream.write_all(answer).unwrap();
                    break head;
                }
            };
            assert!(head.starts_with(b"GET /some/path HTTP/1.1\r\n"));
            assert_eq!(prober.join().unwrap().err(), told.map(|told| Some(told.to_owned())));
        }
        drop(listener);
        assert_eq!(probe(address, "ws://x/", Ready::Upgrade), Err(None));
    }
}
