//! What the system does not give: threads and locked memory. The gateway says so and ends with 1.
//!
//! Root is not bound by these limits; there the gateway is run as a user without a name. Where neither that nor a limit
//! that binds can be had, a line says what was not looked at.
#![allow(clippy::print_stderr)]

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_tidegate");

/// Users that have no other process, no memory that the kernel still has to give back, and no capability of root's.
struct Nobody {
    folder: TempDir,
}

/// How a run went: it listened and was ended, or it ended by itself.
#[derive(Debug)]
enum Run {
    Listened,
    Ended(Option<i32>, String),
}

impl Nobody {
    /// `None` where this process is not root's.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let open = |path: PathBuf| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        open(folder.path().to_owned());
        fs::copy(BINARY, folder.path().join("tidegate")).unwrap();
        open(folder.path().join("tidegate"));
        Some(Self { folder })
    }

    fn config(&self, config: &str) -> String {
        let path = self.folder.path().join("t.toml");
        fs::write(&path, config).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs the gateway with limits of prlimit(1), which root may set.
    fn run(&self, limits: &[&str], arguments: &[&str]) -> Run {
        static USERS: AtomicU32 = AtomicU32::new(0);
        // Another one each time.
        let id = 20_000 + (std::process::id() * 16 + USERS.fetch_add(1, Ordering::Relaxed)) % 40_000;
        let id = id.to_string();
        let mut command = Command::new("prlimit");
        command.args(limits).args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
        command.arg(self.folder.path().join("tidegate")).args(["run", "--log", "json"]).args(arguments);
        run(command)
    }
}

fn run(mut command: Command) -> Run {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEGATE_") {
            command.env_remove(name);
        }
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut log = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        log.push_str(&line);
        log.push('\n');
        // A later thread may still be missing: only what the signals' thread answers has started whole.
        if line.contains("listening on") {
            let pid = rustix::process::Pid::from_child(&child);
            // Where it has ended meanwhile, that is what counts.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
    let code = child.wait().unwrap().code();
    if code == Some(0) { Run::Listened } else { Run::Ended(code, log) }
}

const ONE_NAME: &str = "version = 1\nio = 'epoll'\nshards = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[[route]]\npath = '/a'\n\
    proxy = { upstreams = ['ws://localhost:9'] }\n";

#[test]
fn without_a_thread_for_the_log_it_says_so_and_ends() {
    let mut command = Command::new(BINARY);
    // No address space holds such a stack: no thread can be started by anybody.
    command.args(["run", "--bind", "127.0.0.1:0"]).env("RUST_MIN_STACK", (1_u64 << 60).to_string());
    let Run::Ended(code, log) = run(command) else { panic!("it has started") };
    assert_eq!(code, Some(1), "{log}");
    assert!(log.starts_with("tidegate: no thread can be started to write the log: "), "{log}");
    assert_eq!(log.lines().count(), 1, "{log}");
}

#[test]
fn whichever_thread_cannot_be_started_it_says_so_and_ends() {
    let Some(nobody) = Nobody::new() else {
        eprintln!("NOT LOOKED AT: only root can run the gateway as a user without other processes");
        return;
    };
    let config = nobody.config(ONE_NAME);
    // The process itself, the threads of log, journal, shard, resolver, reload and signals: one more each time.
    for threads in 1..=7 {
        let limit = format!("--nproc={threads}");
        match nobody.run(&[&limit], &["-c", &config]) {
            Run::Listened => assert_eq!(threads, 7, "so few were enough"),
            Run::Ended(code, log) => {
                assert_eq!(code, Some(1), "{threads}: {log}");
                assert!(threads < 7 && log.contains("no thread can be started"), "{threads}: {log}");
            }
        }
    }
}

#[test]
fn rings_beyond_the_limit_of_locked_memory_are_told_with_that_limit() {
    let Some(nobody) = Nobody::new() else {
        eprintln!("NOT LOOKED AT: what happens at this limit; only root can shed what exempts from it");
        return;
    };
    let config = nobody.config(&format!("{ONE_NAME}[limits]\nreceive_buffers = 32_768\n"));
    let arguments = ["-c", &config, "--io", "uring"];
    match nobody.run(&[], &arguments) {
        Run::Listened => {}
        Run::Ended(_, log) => {
            assert!(log.contains("io_uring was asked for and cannot be used: "), "{log}");
            eprintln!("NOT LOOKED AT: io_uring is refused here: {log}");
            return;
        }
    }
    // Room for the self-test's small ring, and not for so many buffers.
    let limit = format!("--memlock={}", 256 << 10);
    match nobody.run(&[&limit], &arguments) {
        // Linux 5.12 to 6.13 does not charge rings to this limit.
        Run::Listened => eprintln!("NOT LOOKED AT: this kernel does not count rings as locked memory"),
        Run::Ended(code, log) => {
            assert_eq!(code, Some(1), "{log}");
            let told = log.lines().find(|line| line.contains("shard 0 cannot set up uring: "));
            let told = told.unwrap_or_else(|| panic!("not told: {log}"));
            for part in
                ["bytes of locked memory", "may have 262144: raise it", "ulimit -l", "receive_buffers"]
            {
                assert!(told.contains(part), "{part}: {told}");
            }
            // Who has not asked for the ring gets what works.
            let automatic = nobody.run(&[&limit], &["-c", &config, "--io", "auto"]);
            assert!(matches!(automatic, Run::Listened), "{automatic:?}");
        }
    }
}
