//! The command line.

mod fanout;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, error::ErrorKind};
use rustix::process::Pid;
use tidegate_io::Choice;
use tidegate_tls::{ClientConfig, ClientOptions, Trust};
use tidegate_wire::{close::CloseCode, extension::DeflateOffer, http, message::Kind};

use self::fanout::FanoutArguments;
use crate::{
    assertion::Assertion,
    compare::CompareArguments,
    part::Part,
    payload::{Fill, Share, Sizes},
    plan::{Json, Load, Plan, Scenario},
    target::{Scheme, Target},
    trace::{Start, Trace},
    units,
};

/// The longest message.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// The most threads of all processes: their number is in a session's.
const MOST_THREADS: u32 = 255;
/// The most messages under way for a session where it must remember when each was due.
const MOST_REMEMBERED: u32 = 64;

/// Load for WebSocket servers: echo, idle sessions, connection storms, churn, slow readers, fan-out.
///
/// Latencies count from when a message was due, so that a server that stalls cannot hide it (with -R).
#[derive(Debug, Parser)]
#[command(
    name = "tidegate-loadtest",
    version,
    args_override_self = true,
    after_help = "Exit codes: 0; 1 a fault, or no session came up; 2 usage; 99 an assertion does not hold; 130 ended \
                  by Ctrl-C, 143 by TERM (with the results so far)."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send messages and check what comes back: rates and latencies
    Echo(EchoArguments),
    /// Bring sessions up and hold them: what one costs, and which are lost
    Idle(IdleArguments),
    /// Bring sessions up as fast as they can: handshakes for each second
    Storm(StormArguments),
    /// Sessions that come, send a few messages, close, and are followed by others
    Churn(ChurnArguments),
    /// Some sessions stop reading: what becomes of the others, and of the server's memory
    Slow(SlowArguments),
    /// Send messages with the sizes and gaps of a file
    Replay(ReplayArguments),
    /// Start servers in turn under the same loads, and compare what they cost
    Compare(CompareArguments),
    /// Publish to many: when each message reached the first, the median and the last of its subscribers
    Fanout(FanoutArguments),
}

#[derive(Args, Debug)]
struct Common {
    /// The server: ws://HOST, ws://HOST:PORT/PATH, wss://...
    #[arg(value_name = "URL", value_parser = Target::parse)]
    url: Target,
    /// Sessions
    #[arg(short, long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    connections: u32,
    /// Threads, with a part of the sessions each
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=255))]
    threads: u32,
    /// Processes, with so many threads and a part of the sessions each: for more sessions than one may have descriptors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=255))]
    processes: u32,
    /// Which part of a run this process has: given by the first one
    #[arg(long, hide = true, value_parser = Part::parse)]
    part: Option<Part>,
    /// How long an answer may take, be it to a connect, an upgrade or a message
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::duration)]
    timeout: Duration,
    /// Connections that come up at once, so that the server's queue does not overflow [default: 100; storm: 400]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pending: Option<u32>,
    /// A field of the upgrade request: 'Name: value'; repeatable
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = header)]
    headers: Vec<(String, String)>,
    /// With wss://, take any certificate
    #[arg(short = 'k', long)]
    insecure: bool,
    /// With wss://, trust the certificates in this PEM file, and no others [default: the system's]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// With wss://, make each TLS handshake a full one; else sessions resume earlier ones where the server lets them
    #[arg(long)]
    no_resumption: bool,
    /// Offer permessage-deflate, as browsers do; messages go compressed where the server takes it
    #[arg(long)]
    deflate: bool,
    /// With --deflate: offer that neither side looks back at earlier messages
    #[arg(long, requires = "deflate")]
    no_context_takeover: bool,
    /// With --deflate: offer that neither side looks back further than 2 to the power of this many bytes
    #[arg(long, value_name = "9..15", requires = "deflate", value_parser = clap::value_parser!(u8).range(9..=15))]
    window_bits: Option<u8>,
    /// A subprotocol to offer; repeatable
    #[arg(long = "subprotocol", value_name = "NAME", value_parser = token)]
    subprotocols: Vec<String>,
    /// Addresses to connect from, in turn; each has ports of its own
    #[arg(long = "source", value_name = "ADDRESS,...", value_delimiter = ',')]
    sources: Vec<IpAddr>,
    /// A process of the server on this machine, for its CPU time and memory; repeatable
    #[arg(long = "pid", value_name = "PID", value_parser = pid)]
    pids: Vec<Pid>,
    /// What must hold, as 'p99<5ms', 'rate>=10k', 'errors=0'; repeatable
    #[arg(long = "assert", value_name = "CONDITION", value_parser = Assertion::parse)]
    assertions: Vec<Assertion>,
    /// Write the results as JSON; `-`: to standard output, in place of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the results as one HTML page with plots, for a browser without network
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// No line each second, and no progress
    #[arg(long)]
    quiet: bool,
    /// Repeats the payloads, masks and jitter of a run [default: random]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// How to talk to the kernel
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    io: Io,
}

#[derive(Args, Debug)]
struct Messages {
    /// Messages of a session that are under way at once, without -R
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    depth: u32,
    /// Bytes of a message: a number; MIN..MAX for any of these, equally likely; or shares, as 64:70%,1KiB..2KiB:25%,16KiB:5%
    #[arg(short, long, value_name = "BYTES", default_value = "64", value_parser = mix)]
    size: Mix,
    /// What messages hold
    #[arg(long, value_name = "FILL", default_value = "random")]
    fill: Fill,
    /// Send text instead of binary
    #[arg(long, conflicts_with = "binary")]
    text: bool,
    /// Send binary (the default)
    #[arg(long)]
    binary: bool,
}

/// How long messages are.
#[derive(Clone, Debug, PartialEq)]
struct Mix {
    /// The bounds of all.
    sizes: Sizes,
    /// Empty where there is one share.
    shares: Vec<Share>,
}

#[derive(Args, Debug)]
struct ReplayArguments {
    /// A file of messages, one a line: `gap_us,size[,kind]` (README.md)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    common: Common,
    /// The longest to play [default: all of it once; with --loop: 10s]
    #[arg(short, long, value_name = "TIME", value_parser = some_duration)]
    duration: Option<Duration>,
    /// Begin again after the end
    #[arg(long = "loop", id = "loop")]
    loops: bool,
    /// Each session begins at a message of its own, and goes round
    #[arg(long)]
    anywhere: bool,
    /// Send text where the file does not say it, instead of binary
    #[arg(long)]
    text: bool,
    /// What messages hold
    #[arg(long, value_name = "FILL", default_value = "random")]
    fill: Fill,
}

#[derive(Args, Debug)]
struct Timing {
    /// How long to measure
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = some_duration)]
    duration: Duration,
    /// How long to do it before that
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::duration)]
    warmup: Duration,
}

#[derive(Args, Debug)]
struct EchoArguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    messages: Messages,
    #[command(flatten)]
    timing: Timing,
    /// Messages for each second over all sessions, whether answers come or not (open loop)
    #[arg(short = 'R', long, value_name = "RATE", value_parser = units::rate, conflicts_with = "depth")]
    rate: Option<f64>,
}

#[derive(Args, Debug)]
struct IdleArguments {
    #[command(flatten)]
    common: Common,
    /// How long to hold them
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = some_duration)]
    duration: Duration,
}

#[derive(Args, Debug)]
struct StormArguments {
    #[command(flatten)]
    common: Common,
    /// The longest that one storm may take
    #[arg(short, long, value_name = "TIME", default_value = "60s", value_parser = some_duration)]
    duration: Duration,
    /// Cut all sessions once they are up, and let them come again; so many times
    #[arg(long, value_name = "TIMES", num_args = 0..=1, require_equals = true, default_value_t = 0, default_missing_value = "1")]
    again: u32,
}

#[derive(Args, Debug)]
struct ChurnArguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    messages: Messages,
    #[command(flatten)]
    timing: Timing,
    /// Sessions that begin for each second, at most -c at once [default: as soon as one ends]
    #[arg(short = 'R', long, value_name = "RATE", value_parser = units::rate)]
    rate: Option<f64>,
    /// Messages of a session
    #[arg(long = "messages", id = "count", value_name = "N", default_value_t = 3)]
    count: u32,
    /// The code to close with
    #[arg(long, value_name = "CODE", default_value_t = 1000, value_parser = close_code)]
    close_code: u16,
}

#[derive(Args, Debug)]
struct SlowArguments {
    #[command(flatten)]
    echo: EchoArguments,
    /// The share of sessions that stops reading: 0.1 or 10%
    #[arg(long, value_name = "SHARE", default_value = "10%", value_parser = share)]
    share: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Io {
    /// io_uring where it works, else epoll
    Auto,
    /// io_uring or not at all
    Uring,
    /// epoll
    Epoll,
}

/// What this process is for.
#[derive(Debug)]
pub(crate) enum Job {
    /// One run.
    Run(Box<Plan>),
    /// Runs against several servers, each with a plan of its own.
    Compare(CompareArguments),
}

/// Why there is no plan.
#[derive(Debug)]
pub(crate) enum NoPlan {
    /// The arguments do not fit together.
    Usage(clap::Error),
    /// The server's name has no address.
    Fault(String),
}

impl Arguments {
    /// Those of this process. Ends it where they are not known, or ask for help.
    pub(crate) fn read() -> Self {
        Self::parse()
    }

    /// What is to be done.
    ///
    /// # Errors
    /// See [`NoPlan`].
    pub(crate) fn job(self) -> Result<Job, NoPlan> {
        let plan = match self.command {
            Command::Compare(compare) => return Ok(Job::Compare(compare)),
            Command::Echo(echo) => echo.plan(Scenario::Echo),
            Command::Replay(replay) => replay.plan(),
            Command::Slow(slow) => slow.echo.plan(Scenario::Slow { share: slow.share }),
            Command::Fanout(fanout) => fanout.plan(),
            Command::Idle(idle) => {
                idle.common.plan(Scenario::Idle, None, Load::Closed, idle.duration, Duration::ZERO)
            }
            Command::Storm(storm) => {
                let scenario = Scenario::Storm { again: storm.again };
                storm.common.plan(scenario, None, Load::Closed, storm.duration, Duration::ZERO)
            }
            Command::Churn(churn) => {
                let scenario = Scenario::Churn { messages: churn.count, code: churn.close_code };
                let messages = Some(&churn.messages);
                let load = Load::from_rate(churn.rate);
                churn.common.plan(scenario, messages, load, churn.timing.duration, churn.timing.warmup)
            }
        };
        plan.map(|plan| Job::Run(Box::new(plan)))
    }
}

impl ReplayArguments {
    fn plan(self) -> Result<Plan, NoPlan> {
        let kind = if self.text { Kind::Text } else { Kind::Binary };
        let start = if self.anywhere { Start::Anywhere } else { Start::First };
        let name = self.file.display();
        let text = fs::read_to_string(&self.file).map_err(|error| usage(&format!("{name}: {error}")))?;
        let trace = Trace::parse(&text, kind, MOST_BYTES, start, self.loops)
            .map_err(|bad| usage(&format!("{name}: {bad}")))?;
        // The last message is due before the end.
        let once = Duration::from_nanos(trace.length_ns()) + Duration::from_millis(1);
        let duration = match self.duration {
            Some(duration) if self.loops => duration,
            Some(duration) => duration.min(once),
            None if self.loops => Duration::from_secs(10),
            None => once,
        };
        let rate = trace.len() as f64 * f64::from(self.common.connections) / once.as_secs_f64();
        let size = Mix { sizes: trace.bounds(), shares: Vec::new() };
        let messages = Messages { depth: 1, size, fill: self.fill, text: self.text, binary: false };
        let load = Load::Open { rate };
        let plan = self.common.plan(Scenario::Replay, Some(&messages), load, duration, Duration::ZERO)?;
        Ok(Plan { trace: Some(Arc::new(trace)), ..plan })
    }
}

/// Whether these are the words of one run.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn accepts<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    let parsed = Arguments::try_parse_from(["tidegate-loadtest"].into_iter().chain(words));
    let error = match parsed.map(Arguments::job) {
        Ok(Ok(Job::Run(_))) => return Ok(()),
        Ok(Ok(Job::Compare(_))) => return Err("a comparison is no load".to_owned()),
        Ok(Err(NoPlan::Fault(message))) => return Err(message),
        Ok(Err(NoPlan::Usage(error))) | Err(error) => error.to_string(),
    };
    // The first paragraph: what follows is how to use it.
    let lines = error.trim_start_matches("error: ").lines().take_while(|line| !line.is_empty());
    Err(lines.map(str::trim).collect::<Vec<_>>().join(" "))
}

impl EchoArguments {
    fn plan(self, scenario: Scenario) -> Result<Plan, NoPlan> {
        let Timing { duration, warmup } = self.timing;
        self.common.plan(scenario, Some(&self.messages), Load::from_rate(self.rate), duration, warmup)
    }
}

impl Messages {
    fn kind(&self) -> Kind {
        if self.text { Kind::Text } else { Kind::Binary }
    }
}

impl Common {
    fn plan(
        self,
        scenario: Scenario,
        messages: Option<&Messages>,
        load: Load,
        duration: Duration,
        warmup: Duration,
    ) -> Result<Plan, NoPlan> {
        let sizes = messages.map_or(Sizes { min: 0, max: 0 }, |messages| messages.size.sizes);
        let kind = messages.map_or(Kind::Binary, Messages::kind);
        let depth = messages.map_or(1, |messages| messages.depth);
        let closed = load == Load::Closed || matches!(scenario, Scenario::Churn { .. });
        if closed && depth > MOST_REMEMBERED && !sizes.tell_time(kind) {
            return Err(usage(&format!(
                "messages of {} bytes do not tell when they were sent, so --depth is at most {MOST_REMEMBERED}; with \
                 -s 27 or more it may be {depth}",
                sizes.min
            )));
        }
        if self.timeout.is_zero() {
            return Err(usage("--timeout must be more than 0"));
        }
        let tls = self.tls()?;
        let host = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = host.map_or_else(|| self.url.authority.clone(), |(_, value)| value.clone());
        let headers = self.headers.into_iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host"));
        let address: SocketAddr =
            self.url.resolve().map_err(|error| NoPlan::Fault(format!("{}: {error}", self.url)))?;
        if let Some(source) = self.sources.iter().find(|source| source.is_ipv4() != address.is_ipv4()) {
            return Err(usage(&format!(
                "--source {source} is of another family than the server's {address}"
            )));
        }
        let pending = self.pending.unwrap_or(match scenario {
            Scenario::Storm { .. } => 400,
            Scenario::Echo
            | Scenario::Idle
            | Scenario::Churn { .. }
            | Scenario::Slow { .. }
            | Scenario::Fanout(_)
            | Scenario::Replay => 100,
        });
        let all = self.threads.saturating_mul(self.processes);
        if all > MOST_THREADS {
            return Err(usage(&format!("--threads times --processes is at most {MOST_THREADS}")));
        }
        let threads = match scenario {
            Scenario::Slow { .. } if self.connections < 2 => {
                return Err(usage("slow needs two sessions at least: one that reads, and one that does not"));
            }
            // Each thread has a session.
            Scenario::Fanout(fanout) => all.min(fanout.publishers.max(fanout.subscribers)),
            Scenario::Echo
            | Scenario::Slow { .. }
            | Scenario::Idle
            | Scenario::Storm { .. }
            | Scenario::Churn { .. }
            | Scenario::Replay => all.min(self.connections),
        };
        let seed = match self.part.map(|part| part.seed).or(self.seed) {
            Some(seed) => seed,
            None => getrandom::u64().map_err(|error| NoPlan::Fault(format!("no random seed: {error}")))?,
        };
        Ok(Plan {
            scenario,
            target: self.url,
            address,
            connections: self.connections,
            threads,
            // No process is without a thread.
            processes: threads.div_ceil(threads.div_ceil(self.processes)),
            part_of_run: self.part,
            duration,
            warmup,
            timeout: self.timeout,
            pending: pending.max(threads),
            tls,
            load,
            depth,
            sizes,
            shares: messages.map_or_else(Vec::new, |messages| messages.size.shares.clone()),
            fill: messages.map_or(Fill::Random, |messages| messages.fill),
            trace: None,
            deflate: self.deflate.then_some(DeflateOffer {
                server_no_context_takeover: self.no_context_takeover,
                client_no_context_takeover: self.no_context_takeover,
                server_max_window_bits: self.window_bits,
                // Browsers let the server name it, and name none.
                client_max_window_bits: Some(self.window_bits.unwrap_or(15)),
            }),
            kind,
            host,
            headers: headers.collect(),
            subprotocols: self.subprotocols,
            sources: self.sources,
            pids: self.pids,
            assertions: self.assertions,
            json: self
                .json
                .map(|path| if path.as_os_str() == "-" { Json::StandardOutput } else { Json::File(path) }),
            html: self.html,
            quiet: self.quiet,
            seed,
            io: match self.io {
                Io::Auto => Choice::Auto,
                Io::Uring => Choice::Uring,
                Io::Epoll => Choice::Epoll,
            },
        })
    }
}

impl Common {
    /// How TLS is to be spoken, where it is.
    fn tls(&self) -> Result<Option<ClientConfig>, NoPlan> {
        if self.url.scheme == Scheme::Ws {
            if self.insecure || self.ca.is_some() || self.no_resumption {
                return Err(usage("--insecure, --ca and --no-resumption are for wss://"));
            }
            return Ok(None);
        }
        let trust = match &self.ca {
            Some(path) => Trust::File(path.clone()),
            None if self.insecure => Trust::Nothing,
            None => Trust::System,
        };
        let options = ClientOptions {
            trust,
            // What a browser offers for a WebSocket (RFC 6455 is HTTP/1.1).
            alpn: vec![b"http/1.1".to_vec()],
            resumes: !self.no_resumption,
        };
        let config = ClientConfig::new(&options).map_err(|error| match &self.ca {
            Some(_) => usage(&format!("--ca: {error}")),
            None => NoPlan::Fault(format!("{error}: give --ca FILE, or --insecure")),
        })?;
        // A host that no certificate can be for is told before the start.
        tidegate_tls::Session::client(&config, &self.url.host)
            .map_err(|error| usage(&format!("{}: {error}", self.url.host)))?;
        Ok(Some(config))
    }
}

/// An error like clap's own.
fn usage(message: &str) -> NoPlan {
    NoPlan::Usage(Arguments::command().error(ErrorKind::ValueValidation, message))
}

fn some_duration(text: &str) -> Result<Duration, String> {
    match units::duration(text)? {
        Duration::ZERO => Err("it must be more than 0".into()),
        duration => Ok(duration),
    }
}

/// One size, or several with their shares.
fn mix(text: &str) -> Result<Mix, String> {
    if !text.contains([':', ',']) {
        return Ok(Mix { sizes: sizes(text)?, shares: Vec::new() });
    }
    let mut shares = Vec::new();
    for part in text.split(',') {
        let (size, weight) =
            part.rsplit_once(':').ok_or_else(|| format!("{part:?} is no share: 1KiB:25%"))?;
        let weight = weight.strip_suffix('%').ok_or_else(|| format!("{weight:?} has no % behind it"))?;
        let weight = weight.parse::<f64>().map_err(|_| format!("{weight:?} is no number"))? / 100.0;
        if !(weight > 0.0 && weight <= 1.0) {
            return Err(format!("{part:?}: a share is more than 0 and at most 100%"));
        }
        shares.push(Share { weight, sizes: sizes(size)? });
    }
    let sum: f64 = shares.iter().map(|share| share.weight).sum();
    if (sum - 1.0).abs() > 1e-6 {
        return Err(format!("the shares are {:.4}% together, but must be 100%", sum * 100.0));
    }
    let min = shares.iter().map(|share| share.sizes.min).min().unwrap_or(0);
    let max = shares.iter().map(|share| share.sizes.max).max().unwrap_or(0);
    Ok(Mix { sizes: Sizes { min, max }, shares })
}

fn sizes(text: &str) -> Result<Sizes, String> {
    let (min, max) = match text.split_once("..") {
        Some((min, max)) => (units::bytes(min)?, units::bytes(max)?),
        None => (units::bytes(text)?, units::bytes(text)?),
    };
    if min > max {
        return Err(format!("{text:?}: the least is more than the most"));
    }
    if max > MOST_BYTES {
        return Err(format!("a message is at most {MOST_BYTES} bytes"));
    }
    Ok(Sizes { min, max })
}

fn share(text: &str) -> Result<f64, String> {
    let (number, factor) = match text.strip_suffix('%') {
        Some(percent) => (percent, 0.01),
        None => (text, 1.0),
    };
    let share = number.parse::<f64>().map_err(|_| format!("{text:?} is no share: 0.1 or 10%"))? * factor;
    // At the ends there would be no slow session, or nobody to be measured.
    if share > 0.0 && share < 1.0 { Ok(share) } else { Err("a share is between 0 and 100%".into()) }
}

fn pid(text: &str) -> Result<Pid, String> {
    text.parse().ok().and_then(Pid::from_raw).ok_or_else(|| format!("{text:?} is no process number"))
}

fn close_code(text: &str) -> Result<u16, String> {
    let code = text.parse().ok().filter(|code| CloseCode::may_be_sent(*code));
    code.ok_or_else(|| "not a code that may be sent (RFC 6455 §7.4): 1000, 1001, 3000 to 4999, ...".into())
}

fn token(text: &str) -> Result<String, String> {
    if http::is_token(text.as_bytes()) { Ok(text.to_owned()) } else { Err("not a token of HTTP".into()) }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a field is like 'Name: value'")?;
    let value = value.trim();
    if !http::is_token(name.as_bytes()) || value.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("a field is like 'Name: value', on one line".into());
    }
    let own = ["upgrade", "connection", "content-length", "transfer-encoding"];
    let name_lower = name.to_ascii_lowercase();
    if own.contains(&&*name_lower) || name_lower.starts_with("sec-websocket-") {
        return Err(format!("{name} is the handshake's own (for subprotocols: --subprotocol)"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(arguments: &[&str]) -> Plan {
        let all = [&["tidegate-loadtest"], arguments].concat();
        match Arguments::try_parse_from(all).unwrap().job().unwrap() {
            Job::Run(plan) => *plan,
            Job::Compare(_) => panic!("one run was asked for"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_make_a_plan() {
        let plan = plan(&[
            "echo",
            "ws://127.0.0.1:9/x",
            "-c",
            "7",
            "-t",
            "9",
            "-d",
            "2s",
            "-R",
            "1k",
            "-s",
            "10..1KiB",
            "--text",
            "-H",
            "host: other",
            "-H",
            "A: b",
            "--source",
            "127.0.0.2,127.0.0.3",
            "--assert",
            "p99<5ms",
        ]);
        assert_eq!((plan.connections, plan.threads, plan.load), (7, 7, Load::Open { rate: 1000.0 }));
        assert_eq!((plan.sizes, plan.kind), (Sizes { min: 10, max: 1024 }, Kind::Text));
        assert_eq!((&*plan.host, plan.headers.len(), plan.sources.len()), ("other", 1, 2));
    }

    #[test]
    fn sizes_come_in_shares() {
        let plan = plan(&["echo", "ws://127.0.0.1:9", "-s", "64:70%,1KiB..2KiB:25%,16KiB:5%"]);
        assert_eq!(plan.sizes, Sizes { min: 64, max: 16_384 });
        assert_eq!(plan.shares[1], Share { weight: 0.25, sizes: Sizes { min: 1024, max: 2048 } });
    }

    #[test]
    fn the_offer_is_a_browsers_unless_told_otherwise() {
        for (more, offer) in [
            (&[][..], "permessage-deflate; client_max_window_bits"),
            (
                &["--no-context-takeover", "--window-bits", "10"],
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                 server_max_window_bits=10; client_max_window_bits=10",
            ),
        ] {
            let plan = plan(&[&["idle", "ws://127.0.0.1:9", "--deflate"], more].concat());
            assert_eq!(plan.deflate.unwrap().to_string(), offer);
        }
    }

    #[test]
    fn a_storm_comes_again_once_unless_it_is_told_how_often() {
        for (flag, times) in [(None, 0), (Some("--again"), 1), (Some("--again=3"), 3)] {
            let arguments: Vec<&str> =
                ["storm"].into_iter().chain(flag).chain(["ws://127.0.0.1:9"]).collect();
            assert_eq!(plan(&arguments).scenario, Scenario::Storm { again: times });
        }
    }

    #[test]
    fn what_cannot_be_is_a_matter_of_usage() {
        for arguments in [
            &["echo"][..],
            &["echo", "http://a"],
            &["echo", "wss://a", "-k", "--ca", "x"],
            &["echo", "ws://127.0.0.1:9", "-R", "1", "--depth", "2"],
            &["echo", "ws://127.0.0.1:9", "-s", "9..1"],
            &["echo", "ws://127.0.0.1:9", "--text", "--binary"],
            &["echo", "ws://127.0.0.1:9", "-H", "Upgrade: x"],
            &["echo", "ws://127.0.0.1:9", "--assert", "p99"],
            &["echo", "ws://127.0.0.1:9", "-d", "0"],
            &["churn", "ws://127.0.0.1:9", "--close-code", "1005"],
            &["slow", "ws://127.0.0.1:9", "--share", "100%"],
            &["echo", "ws://127.0.0.1:9", "-s", "64:70%,128:20%"],
            &["echo", "ws://127.0.0.1:9", "-s", "64:70,128:30"],
            &["echo", "ws://127.0.0.1:9", "-s", "64:0%,128:100%"],
            &["echo", "ws://127.0.0.1:9", "--window-bits", "9"],
            &["echo", "ws://127.0.0.1:9", "--deflate", "--window-bits", "8"],
            &["replay", "file.csv"],
            &["idle", "ws://127.0.0.1:9", "--depth", "2"],
            &["ws://127.0.0.1:9"],
        ] {
            let parsed = Arguments::try_parse_from([&["tidegate-loadtest"], arguments].concat());
            assert!(parsed.is_err(), "{arguments:?}");
        }
        for arguments in [
            &["echo", "ws://127.0.0.1:9", "-s", "8", "--depth", "65"][..],
            &["echo", "ws://127.0.0.1:9", "--source", "::1"],
            &["echo", "ws://127.0.0.1:9", "--timeout", "0"],
            &["echo", "ws://127.0.0.1:9", "-k"],
            &["echo", "wss://127.0.0.1:9", "--ca", "/nowhere"],
        ] {
            let parsed = Arguments::try_parse_from([&["tidegate-loadtest"], arguments].concat()).unwrap();
            assert!(matches!(parsed.job(), Err(NoPlan::Usage(_))), "{arguments:?}");
        }
    }
}
