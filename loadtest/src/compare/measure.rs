//! One measurement: a fresh server (and its upstream), one run of the load against it, and their end.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, Read},
    net::TcpListener,
    path::Path,
};

use super::{
    metric::Metric,
    process::{Affinity, Folder, Launch, Process, show_status, sweep},
    show::plain,
    signals::Interrupts,
    suite::{Scenario, Server, Suite},
    template::{Names, Unknown, expand},
};

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
pub(super) struct Running<'a> {
    pub(super) server: &'a Server,
    pub(super) process: Process,
    pub(super) folder: Folder,
    pub(super) port: u16,
}

impl<'a> Bench<'a> {
    /// # Errors
    /// Where the system refuses.
    pub(crate) fn new(suite: &'a Suite, interrupts: &'a Interrupts, affinity: Affinity) -> io::Result<Self> {
        // Two comparisons on one machine begin at different ports.
        let offset = (getrandom::u64().map_err(io::Error::other)? % u64::from(PORTS)) as u16;
        Ok(Self { suite, interrupts, affinity, next_port: FIRST_PORT + offset })
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

    pub(super) fn names(&self, port: u16, upstream_port: Option<u16>, folder: &Path) -> Names {
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
}

/// The file that a server writes into.
const LOG: &str = ".output";

impl Running<'_> {
    /// With the last that it said.
    pub(super) fn failed(&self, what: String) -> Failure {
        let text = read_end(&self.folder.path().join(LOG)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines.iter().skip(lines.len().saturating_sub(LAST_LINES));
        Failure::Server {
            what,
            last_lines: last.map(|line| plain(&line.chars().take(200).collect::<String>())).collect(),
        }
    }
}

/// A text of the suite with its values.
pub(super) fn text_of(text: &str, names: &Names, unknown: Unknown) -> String {
    expand(text, names, unknown).expect("a suite's placeholders were looked at when it was read")
}

/// The last of a file, however long it is.
pub(super) fn read_end(path: &Path) -> io::Result<String> {
    use std::io::{Seek, SeekFrom};

    const MOST: u64 = 16 * 1024;
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(MOST)))?;
    let mut text = Vec::new();
    file.take(MOST).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
