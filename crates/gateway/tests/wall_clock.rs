//! Somebody sets the system's clock by an hour while the gateway runs. What has been judged stays so, what is due comes in its own
//! time, and what is judged from then on goes by the new time. The shard's own test of the same name looks at each deadline.
//!
//! No test may set the machine's clock: a library that is preloaded (ld.so(8)) shows the gateway another one, which the test moves.

mod harness;

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use harness::{
    BACKENDS,
    certificates::Authority,
    client::{Client, End, Received, request},
    frame::{BINARY, CLOSE},
    gateway::Gateway,
    secure::Secure,
    tokens::Signer,
    unix_seconds,
    upstream::Upstream,
};
use rustix::process::Signal;
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};
use tempfile::TempDir;

const HOUR: i64 = 3_600;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// All that waits longer than the test takes, and less than the hour: nothing of it may become due by the step.
const CONFIG: &str = r#"
version = 1
[limits]
head_timeout = "20m"
message_timeout = "20m"
ping_interval = "20m"
pong_timeout = "20m"
idle_timeout = "30m"
write_timeout = "20m"
[drain]
window = "100ms"
[[listener]]
bind = "127.0.0.1:0"
[[listener]]
bind = "127.0.0.1:0"
[listener.tls]
TLS
[[identity]]
name = "users"
secret = "0123456789abcdef0123456789abcdef"
algorithms = ["HS256"]
leeway = "0s"
[[route]]
path = "/echo"
echo = {}
[[route]]
path = "/token"
identity = "users"
echo = {}
[[route]]
path = "/certificate"
client_certificate = {}
echo = {}
[[route]]
path = "/up"
proxy = { upstreams = ["UPSTREAM"] }
[[route]]
path = "/soon"
limits = { idle_timeout = "1s" }
echo = {}
"#;

/// Where the system's clock is read, by so many seconds another one: those in the file that `CLOCK_AHEAD` names, eight bytes.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile long *ahead;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_AHEAD");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *at = mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (at == MAP_FAILED) abort();
    close(file);
    ahead = at;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int status = syscall(SYS_clock_gettime, clock, now);
    if (status == 0 && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *ahead;
    return status;
}
"#;

/// A clock that can be set, for processes that are started with its environment.
struct Clock {
    folder: TempDir,
    ahead: File,
}

impl Clock {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("clock.c");
        fs::write(&source, LIBRARY).expect("write it");
        let ahead = File::create(folder.path().join("ahead")).expect("a file");
        let clock = Self { folder, ahead };
        clock.set(0);
        // What builds the gateway's own dependencies.
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(clock.library()).arg(source);
        assert!(compiler.status().expect("a C compiler").success());
        clock
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("clock.so")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ahead")
    }

    /// So many seconds ahead of the machine's.
    fn set(&self, seconds: i64) {
        self.ahead.write_all_at(&seconds.to_ne_bytes(), 0).expect("write it");
    }

    fn start(&self, config: &str, io: &str) -> Gateway {
        let (library, file) = (self.library(), self.file());
        let environment: [(&str, &OsStr); 2] =
            [("LD_PRELOAD", library.as_os_str()), ("CLOCK_AHEAD", file.as_os_str())];
        Gateway::start_in(config, &["--io", io, "--shards", "1"], &environment)
    }
}

/// A field with a token that is good from `from` to `to`, in seconds from the machine's now.
fn bearer(from: i64, to: i64) -> String {
    let now = i64::try_from(unix_seconds()).expect("a time of today");
    let claims = json!({ "sub": "ada", "nbf": now + from, "exp": now + to });
    format!("Authorization: Bearer {}\r\n", Signer::secret(SECRET).token("HS256", None, &claims))
}

fn status(gateway: &Gateway, fields: &str) -> u16 {
    let mut client = Client::connect(gateway.address());
    client.send(&request("/token", fields));
    client.response().expect("an answer").status
}

/// By how many seconds the log's last line is ahead of the machine's clock.
fn log_is_ahead(line: &str) -> i64 {
    let line: Value = serde_json::from_str(line).expect("a line of JSON");
    let time = line["timestamp"].as_str().expect("a time");
    let of = |date: &str| {
        let output = Command::new("date").args(["-u", "-d", date, "+%s"]).output().expect("date(1)");
        String::from_utf8_lossy(&output.stdout).trim().parse::<i64>().expect("seconds")
    };
    of(time) - of("now")
}

fn an_hour(io: &str, clock: &Clock, step: i64) {
    clock.set(0);
    let authority = Authority::new();
    let setting = authority.issue("localhost", &["localhost"]).setting();
    let upstream = Upstream::echo();
    let config = CONFIG.replace("UPSTREAM", &upstream.url()).replace(
        "TLS",
        &format!("{setting}client_ca_file = {:?}\nclient_certificate = 'optional'", authority.ca()),
    );
    let gateway = clock.start(&config, io);
    let half_an_hour = authority.issue_until("ada", "ada", SystemTime::now() + Duration::from_secs(1_800));
    let ada = || authority.client_with(&[&TLS13, &TLS12], &[], Some(&half_an_hour));

    let mut sessions: Vec<Client> = vec![
        Client::open(gateway.address(), "/echo"),
        Client::open_with(gateway.address(), "/token", &bearer(-60, HOUR / 2)).0,
        Client::open(gateway.address(), "/up"),
    ];
    let mut certified = Secure::open(gateway.addresses()[1], &ada(), "localhost", "/certificate");
    // A head and a message that are not complete.
    let head = request("/echo", "");
    let mut begun = Client::connect(gateway.address());
    begun.send(&head[..40]);
    let mut half = Client::open(gateway.address(), "/echo");
    half.send(&[0x02, 0x81, 0, 0, 0, 0, b'a']);
    half.send(&[0x89, 0x80, 0, 0, 0, 0]);
    assert_eq!(half.frame().opcode, 0x0a, "what came before the pong is taken, too");

    clock.set(step);
    let lines = gateway.log_len();
    let set = Instant::now();

    // What becomes due does so in its own time, and nothing else with it.
    let mut soon = Client::open(gateway.address(), "/soon");
    match soon.next() {
        Received::Frame(frame) => assert_eq!((frame.opcode, frame.close_code()), (CLOSE, 1001)),
        other => panic!("{other:?}"),
    }
    assert!(set.elapsed() >= Duration::from_millis(900), "{:?}", set.elapsed());
    drop(soon);
    for client in &mut sessions {
        client.exchange(BINARY, b"behind the step");
    }
    certified.exchange(BINARY, b"behind the step");
    begun.send(&head[40..]);
    assert_eq!(begun.response().expect("an answer").status, 101);
    half.send(&[0x80, 0x81, 0, 0, 0, 0, b'b']);
    assert_eq!(half.message(BINARY), b"ab");

    // What is judged from now on goes by the new time.
    let (over, not_yet) = if step > 0 { (401, 101) } else { (101, 401) };
    assert_eq!(status(&gateway, &bearer(-2 * HOUR, HOUR / 2)), over, "good for half an hour");
    assert_eq!(status(&gateway, &bearer(-60, 2 * HOUR)), not_yet, "good since a minute");
    // Another client: who has a ticket resumes.
    let mut again = Secure::connect(gateway.addresses()[1], &ada(), "localhost");
    // Over TLS 1.3 a refusal comes behind this end's handshake.
    let sent = again.try_send(&request("/certificate", ""));
    let is_in = sent.is_ok() && again.head().is_some_and(|head| head.starts_with("HTTP/1.1 101 "));
    assert_eq!(is_in, step < 0, "{:?}", again.fault);
    drop(again);
    let line = gateway.wait_for_log_behind(lines, "a session's end", |line| line.contains("session ended"));
    let ahead = log_is_ahead(&line);
    assert!((ahead - step).abs() < 60, "{ahead} s: {line}");

    // And changes go on as ever.
    assert!(gateway.reload(&config).contains("taken over"));
    for mut client in sessions {
        client.exchange(BINARY, b"behind the reload");
        client.close(1000);
    }
    certified.close();
    gateway.signal(Signal::TERM);
    for mut client in [begun, half] {
        assert_eq!(client.frame().close_code(), 1001);
        client.send(&harness::frame::close(1001, b""));
        assert_eq!(client.end_within(harness::PATIENCE), Some(End::Fin));
    }
    let (status, log) = gateway.wait();
    assert!(status.success(), "{status}: {log:#?}");
    assert!(!log.iter().any(|line| line.contains("timed out") || line.contains("panicked")), "{log:#?}");
}

#[test]
fn a_clock_that_is_set_by_an_hour_ends_nothing() {
    let clock = Clock::new();
    for io in BACKENDS {
        for step in [HOUR, -HOUR] {
            an_hour(io, &clock, step);
        }
    }
}
