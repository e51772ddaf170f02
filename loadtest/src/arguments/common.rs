//! What all scenarios but `compare` are told, and how it becomes a plan.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, ValueEnum};
use rustix::process::Pid;
use tidegate_io::Choice;
use tidegate_tls::{ClientConfig, ClientOptions, Trust};
use tidegate_wire::{extension::DeflateOffer, message::Kind};

use super::{
    NoPlan, usage,
    values::{Mix, header, mix, pid, some_duration, token},
};
use crate::{
    assertion::Assertion,
    output::Sink,
    part::Part,
    payload::{Fill, Sizes},
    plan::{Load, Plan, Scenario},
    target::{Scheme, Target},
    units,
};

/// The most threads of all processes: their number is in a session's.
const MOST_THREADS: u32 = 255;
/// The most messages under way for a session where it must remember when each was due.
const MOST_REMEMBERED: u32 = 64;

#[derive(Args, Debug)]
pub(super) struct Common {
    /// The server: ws://HOST, ws://HOST:PORT/PATH, wss://...
    #[arg(value_name = "URL", value_parser = Target::parse)]
    pub(super) url: Target,
    /// Sessions
    #[arg(short, long, value_name = "N", default_value_t = 100, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub(super) connections: u32,
    /// Threads, with a part of the sessions each
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=255))]
    pub(super) threads: u32,
    /// Processes, with so many threads and a part of the sessions each: for more sessions than one may have descriptors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=255))]
    pub(super) processes: u32,
    /// Which part of a run this process has: given by the first one
    #[arg(long, hide = true, value_parser = Part::parse)]
    pub(super) part: Option<Part>,
    /// How long an answer may take, be it to a connect, an upgrade or a message
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::duration)]
    pub(super) timeout: Duration,
    /// Connections that come up at once, so that the server's queue does not overflow [default: 100; storm: 400]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) pending: Option<u32>,
    /// A field of the upgrade request: 'Name: value'; repeatable
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = header)]
    pub(super) headers: Vec<(String, String)>,
    /// With wss://, take any certificate
    #[arg(short = 'k', long)]
    pub(super) insecure: bool,
    /// With wss://, trust the certificates in this PEM file, and no others [default: the system's]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub(super) ca: Option<PathBuf>,
    /// With wss://, make each TLS handshake a full one; else sessions resume earlier ones where the server lets them
    #[arg(long)]
    pub(super) no_resumption: bool,
    /// Offer permessage-deflate, as browsers do; messages go compressed where the server takes it
    #[arg(long)]
    pub(super) deflate: bool,
    /// With --deflate: offer that neither side looks back at earlier messages
    #[arg(long, requires = "deflate")]
    pub(super) no_context_takeover: bool,
    /// With --deflate: offer that neither side looks back further than 2 to the power of this many bytes
    #[arg(long, value_name = "9..15", requires = "deflate", value_parser = clap::value_parser!(u8).range(9..=15))]
    pub(super) window_bits: Option<u8>,
    /// A subprotocol to offer; repeatable
    #[arg(long = "subprotocol", value_name = "NAME", value_parser = token)]
    pub(super) subprotocols: Vec<String>,
    /// Addresses to connect from, in turn; each has ports of its own
    #[arg(long = "source", value_name = "ADDRESS,...", value_delimiter = ',')]
    pub(super) sources: Vec<IpAddr>,
    /// A process of the server on this machine, for its CPU time and memory; repeatable
    #[arg(long = "pid", value_name = "PID", value_parser = pid)]
    pub(super) pids: Vec<Pid>,
    /// What must hold, as 'p99<5ms', 'rate>=10k', 'errors=0'; repeatable
    #[arg(long = "assert", value_name = "CONDITION", value_parser = Assertion::parse)]
    pub(super) assertions: Vec<Assertion>,
    /// Write the results as JSON; `-`: to standard output, in place of the table
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Write the results as one HTML page with plots, for a browser without network; `-`: to standard output, in place of the table
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// No line each second, and no progress
    #[arg(long)]
    pub(super) quiet: bool,
    /// Repeats the payloads, masks and jitter of a run [default: random]
    #[arg(long, value_name = "NUMBER")]
    pub(super) seed: Option<u64>,
    /// How to talk to the kernel
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    io: Io,
}

#[derive(Args, Debug)]
pub(super) struct Messages {
    /// Messages of a session that are under way at once, without -R
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) depth: u32,
    /// Bytes of a message: a number; MIN..MAX for any of these, equally likely; or shares, as 64:70%,1KiB..2KiB:25%,16KiB:5%
    #[arg(short, long, value_name = "BYTES", default_value = "64", value_parser = mix)]
    pub(super) size: Mix,
    /// What messages hold
    #[arg(long, value_name = "FILL", default_value = "random")]
    pub(super) fill: Fill,
    /// Send text instead of binary
    #[arg(long, conflicts_with = "binary")]
    pub(super) text: bool,
    /// Send binary (the default)
    #[arg(long)]
    pub(super) binary: bool,
}

#[derive(Args, Debug)]
pub(super) struct Timing {
    /// How long to measure
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = some_duration)]
    pub(super) duration: Duration,
    /// How long to do it before that
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::duration)]
    pub(super) warmup: Duration,
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

impl Messages {
    pub(super) fn kind(&self) -> Kind {
        if self.text { Kind::Text } else { Kind::Binary }
    }
}

impl Common {
    pub(super) fn plan(
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
        let (json, html) = (self.json.clone().map(Sink::of), self.html.clone().map(Sink::of));
        if let (Some(json), Some(html)) = (&json, &html)
            && json.is_same(html)
        {
            return Err(usage("--json and --html are one file: each has one of its own"));
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
            pids: each_once(self.pids),
            assertions: self.assertions,
            json,
            html,
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

/// A process that is named twice does not take twice as much.
fn each_once(pids: Vec<Pid>) -> Vec<Pid> {
    let mut once = Vec::new();
    for pid in pids {
        if !once.contains(&pid) {
            once.push(pid);
        }
    }
    once
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
