//! The gateway as a process: start, look at from outside, stop.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit, setrlimit},
};
use tempfile::NamedTempFile;

use super::{PATIENCE, eventually};

/// The binary under test: `TIDEGATE_BIN`, else the one that Cargo built for this test.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("TIDEGATE_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_tidegate")), PathBuf::from)
}

/// Whether the binary under test is a release build: what `TIDEGATE_BIN` names is, what Cargo builds for tests is not
/// unless they are.
pub(crate) fn is_optimised() -> bool {
    std::env::var_os("TIDEGATE_BIN").is_some() || !cfg!(debug_assertions)
}

/// Lets this process, and gateways that it starts from now on, have as many descriptors as the hard limit allows.
pub(crate) fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
}

/// A running gateway; dropped, it is killed.
pub(crate) struct Gateway {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    addresses: Vec<SocketAddr>,
    config: Option<NamedTempFile>,
}

impl Gateway {
    /// Starts the binary with `config` on one shard and waits until all its listeners accept.
    pub(crate) fn start(config: &str, io: &str) -> Gateway {
        Gateway::start_with(config, &["--io", io, "--shards", "1"])
    }

    /// Starts the binary with `config` and arguments for `run`.
    pub(crate) fn start_with(config: &str, arguments: &[&str]) -> Gateway {
        Gateway::start_in(config, arguments, &[])
    }

    /// The same with these variables in its environment.
    pub(crate) fn start_in(config: &str, arguments: &[&str], environment: &[(&str, &OsStr)]) -> Gateway {
        let file = config_file(config);
        let mut command = Command::new(binary());
        command.arg("run").arg("-c").arg(file.path()).args(["--log", "json"]).args(arguments);
        command.envs(environment.iter().copied());
        Gateway::spawn(command, config.matches("[[listener]]").count(), Some(file))
    }

    /// Starts any command that becomes a gateway with `listeners` TCP listeners.
    pub(crate) fn spawn(mut command: Command, listeners: usize, config: Option<NamedTempFile>) -> Gateway {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDEGATE_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = child.stderr.take().expect("stderr is piped");
        let reader = std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in BufReader::new(stderr).lines() {
                    let Ok(line) = line else { return };
                    log.lock().expect("the log's lock").push(line);
                }
            }
        });
        let mut gateway = Gateway { child, log, reader: Some(reader), addresses: Vec::new(), config };
        gateway.addresses = eventually("the gateway's listeners", || {
            let log = gateway.log();
            if let Ok(Some(status)) = gateway.child.try_wait() {
                panic!("the gateway ended with {status}:\n{}", log.join("\n"));
            }
            let found: Vec<_> = log
                .iter()
                .filter(|line| line.contains("listening"))
                .filter_map(|line| address_in(line))
                .collect();
            (found.len() >= listeners).then_some(found)
        });
        gateway
    }

    /// Where its first listener listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Where its listeners listen, in the order of its log.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where its admin listener is, if that speaks TCP.
    pub(crate) fn admin(&self) -> SocketAddr {
        let line =
            self.wait_for_log("the admin listener's address", |line| line.contains("admin listener at"));
        address_in(&line).expect("an address")
    }

    /// The lines of its standard error so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().expect("the log's lock").clone()
    }

    /// How many lines there are so far.
    pub(crate) fn log_len(&self) -> usize {
        self.log.lock().expect("the log's lock").len()
    }

    /// Waits for a line of the log.
    pub(crate) fn wait_for_log(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.wait_for_log_behind(0, what, wanted)
    }

    /// Waits for a line of the log behind so many lines.
    pub(crate) fn wait_for_log_behind(
        &self,
        lines: usize,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        let until = Instant::now() + PATIENCE;
        let mut judged = lines;
        loop {
            // A copy: a judgement that panics must not leave the log locked for ever.
            let new = self.log.lock().expect("the log's lock")[judged..].to_vec();
            if let Some(line) = new.iter().find(|line| wanted(line)) {
                return line.clone();
            }
            judged += new.len();
            assert!(Instant::now() < until, "no log line with {what}; the last ones:\n{}", tail(&self.log()));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the process runs").count()
    }

    /// From now on it gets so many descriptors more, and then `EMFILE`.
    pub(crate) fn leave_descriptors(&self, free: u64) {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the process runs");
        let open: Vec<u64> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        // The lowest free numbers are given out first, and the limit is on the numbers.
        let limit = (0..).filter(|number| !open.contains(number)).nth(free as usize).expect("numbers go on");
        self.limit_descriptors(limit);
    }

    /// Sets its soft limit of descriptors.
    pub(crate) fn limit_descriptors(&self, limit: u64) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        let maximum = getrlimit(Resource::Nofile).maximum;
        prlimit(Some(id), Resource::Nofile, Rlimit { current: Some(limit), maximum })
            .expect("the process is this test's own child");
    }

    /// Its resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// Its resident memory that is backed by no file, in KiB.
    pub(crate) fn heap_kib(&self) -> u64 {
        self.status_kib("RssAnon:")
    }

    /// The most that was resident since [`reset_peak`](Gateway::reset_peak), in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    /// The peak begins anew (proc(5), clear_refs).
    pub(crate) fn reset_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("a process of this user");
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process runs");
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line of status");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
    }

    /// Processor time that it has used, user and system, in clock ticks (1/100 s).
    pub(crate) fn processor_ticks(&self) -> u64 {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the process runs");
        let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
        let ticks = |index: usize| fields.split_whitespace().nth(index).and_then(|n| n.parse::<u64>().ok());
        ticks(11).zip(ticks(12)).map(|(user, system)| user + system).expect("utime and stime")
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its configuration file.
    pub(crate) fn file(&self) -> &Path {
        self.config.as_ref().expect("it was started with a file").path()
    }

    /// Puts `config` in its file, and does not tell it.
    pub(crate) fn rewrite(&self, config: &str) {
        std::fs::write(self.file(), config).expect("write the configuration");
    }

    /// Puts `config` in its file and has it read again; gives what the log says of that.
    pub(crate) fn reload(&self, config: &str) -> String {
        self.rewrite(config);
        let says = |line: &&String| line.contains("taken over");
        let before = self.log().iter().filter(says).count();
        self.signal(Signal::HUP);
        eventually("the end of the reload", || self.log().iter().filter(says).nth(before).cloned())
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(id, signal).expect("the process is this test's own child");
    }

    /// Waits for its end; gives the status and the whole log.
    pub(crate) fn wait(mut self) -> (ExitStatus, Vec<String>) {
        let status =
            eventually("the gateway's end", || self.child.try_wait().expect("a child of this process"));
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log's reader");
        }
        (status, self.log())
    }

    /// Stops it with Ctrl-C's signal; it must end cleanly.
    pub(crate) fn stop(self) -> Vec<String> {
        self.signal(Signal::INT);
        let (status, log) = self.wait();
        assert!(status.success(), "after SIGINT the gateway ended with {status}:\n{}", tail(&log));
        let panics: Vec<_> = log.iter().filter(|line| line.contains("panicked")).collect();
        assert!(panics.is_empty(), "{panics:#?}");
        log
    }
}

impl Drop for Gateway {
    #[allow(clippy::print_stderr)]
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A test that fails only now and then, somewhere else, is understood by this.
            eprintln!("the gateway's log:\n{}", tail(&self.log()));
        }
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A temporary configuration file.
pub(crate) fn config_file(text: &str) -> NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("write the configuration");
    file
}

/// Makes a pipe that has a name.
pub(crate) fn make_pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a pipe");
}

/// Runs the binary to its end: exit code, standard output, standard error.
pub(crate) fn run_to_end(arguments: &[impl AsRef<OsStr>]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    command.args(arguments);
    output_of(command)
}

/// Runs a command to its end, at most [`PATIENCE`]: exit code, standard output, standard error.
pub(crate) fn output_of(mut command: Command) -> (Option<i32>, String, String) {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let until = Instant::now() + PATIENCE;
    while child.try_wait().expect("a child of this process").is_none() {
        if Instant::now() > until {
            child.kill().expect("a child of this process");
            panic!("{command:?} did not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().expect("a child of this process");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The first `ip:port` in a line.
fn address_in(line: &str) -> Option<SocketAddr> {
    line.split(|c: char| !(c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '[' | ']')))
        .find_map(|word| word.trim_matches(':').parse().ok())
}

/// The last lines of a log, for messages.
pub(crate) fn tail(log: &[String]) -> String {
    log[log.len().saturating_sub(25)..].join("\n")
}
