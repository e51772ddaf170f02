//! Servers side by side: who is called the cheaper one and who is not, what is skipped and what fails, and that nothing
//! is left behind.
//!
//! The servers are this very file, started again as the test `serve`.

mod harness;

use std::{
    env,
    ffi::OsStr,
    fs, io,
    io::Write,
    net::TcpListener,
    path::PathBuf,
    process::{self, Child, Command},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use harness::{Run, accept, command, encode, finish, start};
use rustix::{
    process::{Pid, Signal, kill_process},
    time::{ClockId, clock_gettime},
};
use serde_json::Value;
use tempfile::TempDir;

/// What a server is told to do, and where.
const BEHAVIOUR: &str = "TIDEGATE_TEST_BEHAVIOUR";
const PORT: &str = "TIDEGATE_TEST_PORT";

/// Who holds it ends the server.
static LAST_WORDS: Mutex<()> = Mutex::new(());

/// The longest that a test waits for what must come.
const LONG: Duration = Duration::from_secs(30);

#[test]
#[ignore = "a server for the other tests, which start it"]
fn serve() {
    let behaviour = env::var(BEHAVIOUR).unwrap();
    match &*behaviour {
        "ends" => {
            writeln!(io::stderr(), "no such option").unwrap();
            process::exit(3);
        }
        "never" => loop {
            thread::park();
        },
        "garish" => {
            writeln!(io::stderr(), "\u{1b}[2J\u{7}red | wine").unwrap();
            process::exit(3);
        }
        _ => {}
    }
    let port: u16 = env::var(PORT).unwrap().parse().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let deeds = Arc::new(AtomicU64::new(0));
    for mut stream in listener.incoming().flatten() {
        let (deeds, behaviour) = (Arc::clone(&deeds), behaviour.clone());
        thread::spawn(move || {
            if behaviour == "refuses" {
                return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
            }
            let mut peer = accept(stream, deeds)?;
            loop {
                let frame = peer.read()?;
                if frame.opcode == 8 {
                    peer.close(&frame)?;
                    return io::Result::Ok(());
                }
                match &*behaviour {
                    "busy" => spin(Duration::from_millis(2)),
                    "lazy" => thread::sleep(Duration::from_millis(100)),
                    "dies" => {
                        // Of two sessions one says so, and ends both.
                        let _last = LAST_WORDS.lock().unwrap();
                        writeln!(io::stderr(), "out of cheese").unwrap();
                        process::exit(7);
                    }
                    "hangs" => continue,
                    _ => {}
                }
                peer.stream.write_all(&encode(frame.opcode, &frame.payload))?;
            }
        });
    }
}

/// Takes so much CPU time, whatever else the machine does.
fn spin(time: Duration) {
    let used = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let end = used() + time;
    while used() < end {
        std::hint::spin_loop();
    }
}

/// A suite in a folder of its own, in which its servers' folders are too.
struct Bench {
    folder: TempDir,
    /// In the command line of all that is started, and of nothing else.
    mark: String,
    suite: String,
}

impl Bench {
    fn new(head: &str) -> Self {
        static BENCHES: AtomicU64 = AtomicU64::new(0);
        let mark = format!("mark-{}-{}", process::id(), BENCHES.fetch_add(1, Ordering::SeqCst));
        Self { folder: tempfile::tempdir().unwrap(), mark, suite: format!("{head}\n") }
    }

    /// With a server that behaves so.
    fn server(self, name: &str, behaviour: &str) -> Self {
        let exe = env::current_exe().unwrap();
        let command = format!(r#"["{}", "serve", "--exact", "--ignored", "--nocapture"]"#, exe.display());
        self.server_by(name, behaviour, &command)
    }

    fn server_by(mut self, name: &str, behaviour: &str, command: &str) -> Self {
        let mark = &self.mark;
        self.suite += &format!(
            "[[server]]\nname = \"{name}\"\ncommand = {command}\nurl = \"ws://127.0.0.1:{{port}}/{mark}\"\n\
             environment = {{ {BEHAVIOUR} = \"{behaviour}\", {PORT} = \"{{port}}\", MARK = \"{mark}\" }}\n"
        );
        self
    }

    fn scenario(mut self, name: &str, load: &str, more: &str) -> Self {
        self.suite += &format!("[[scenario]]\nname = \"{name}\"\nload = \"{load}\"\n{more}\n");
        self
    }

    fn start(&self, arguments: &str) -> Child {
        let path = self.folder.path().join("suite.toml");
        fs::write(&path, &self.suite).unwrap();
        let temporary = self.folder.path().join("temporary");
        fs::create_dir_all(&temporary).unwrap();
        let mut command: Command = command(&format!("compare {} {arguments}", path.display()));
        command.env("TMPDIR", temporary);
        start(command)
    }

    fn run(&self, arguments: &str) -> Run {
        let run = finish(self.start(arguments));
        self.assert_nothing_is_left();
        run
    }

    fn assert_nothing_is_left(&self) {
        assert_eq!(self.processes(|_| true), [], "processes");
        let left: Vec<_> = fs::read_dir(self.folder.path().join("temporary")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// What runs of this bench, with command lines of this kind.
    fn processes(&self, is_kind: impl Fn(&str) -> bool) -> Vec<Pid> {
        let has_mark = |path: PathBuf| {
            let text =
                |file| fs::read(path.join(file)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            let (line, environment) =
                (text("cmdline").unwrap_or_default(), text("environ").unwrap_or_default());
            (line.contains(&self.mark) || environment.contains(&self.mark)) && is_kind(&line)
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            has_mark(entry.path()).then(|| Pid::from_raw(pid).unwrap())
        });
        pids.collect()
    }

    /// Waits until its load runs.
    fn load(&self) -> Pid {
        let began = Instant::now();
        loop {
            if let Some(pid) = self.processes(|line| line.contains("--json")).first() {
                return *pid;
            }
            assert!(began.elapsed() < LONG, "no load was started");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

const SHORT: &str = "echo -c 2 -d 200ms --warmup 0 --timeout 2s";

fn verdicts(report: &Value) -> Vec<&str> {
    strings(&report["scenarios"][0]["verdicts"])
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect()
}

#[test]
fn the_cheaper_one_is_called_and_bars_are_held() {
    let bars = "bars = [\"cpu <= 0.5 of busy\", \"busy: cpu > 1ms\", \"cpu <= 0.001 of busy\", \"cpu <= 1 of absent\"]";
    let bench = Bench::new("")
        .server("plain", "plain")
        .server("busy", "busy")
        .server_by("absent", "plain", "[\"/nowhere/absent\"]")
        .scenario("s", SHORT, bars);
    let markdown = bench.folder.path().join("out.md");
    let run = bench.run(&format!("--check --json - --markdown {}", markdown.display()));
    assert_eq!(run.code(), 99, "{}", run.stderr);
    let report = run.json();
    assert_eq!(report["skipped"]["absent"], "/nowhere/absent is not installed");
    assert!(run.stderr.contains("absent: skipped"), "{}", run.stderr);
    let verdicts = verdicts(&report);
    assert!(verdicts[0].starts_with("plain is cheaper than busy: 0."), "{verdicts:?}");
    assert!(!verdicts[0].contains("SLOWER"), "{verdicts:?}");
    let bars = report["scenarios"][0]["bars"].as_array().unwrap().iter();
    let judgements: Vec<&str> = bars.map(|bar| bar["judgement"].as_str().unwrap()).collect();
    assert_eq!(judgements, ["holds", "holds", "does not hold", "not measured"]);
    let servers = report["scenarios"][0]["servers"].as_array().unwrap();
    assert_eq!(servers.len(), 2, "what is missing is no row");
    let busy = &servers[1];
    assert_eq!(busy["runs"].as_array().unwrap().len(), 5);
    // 2 ms of spinning each; where the machine has other work a run has few messages, and one more or less counts.
    assert!(busy["values"]["cpu"]["min"].as_f64().unwrap() > 1e6, "{busy}");
    assert!(busy["ratios"]["cpu"]["median"].as_f64().unwrap() > 2.0, "{busy}");
    let markdown = fs::read_to_string(markdown).unwrap();
    assert!(markdown.contains("| busy |") && markdown.contains("**does not hold**"), "{markdown}");
}

#[test]
fn growth_is_measured_with_scenarios_in_turns() {
    let bars = "bars = [\"cpu / small <= 0.001\", \"busy: cpu / small > 0.001 of plain\"]";
    let bench = Bench::new("interleave = \"scenarios\"\nrounds = 5")
        .server("plain", "plain")
        .server("busy", "busy")
        .scenario("small", SHORT, "")
        .scenario("large", "echo -c 4 -d 200ms --warmup 0 --timeout 2s", bars);
    let run = bench.run("--check --json -");
    assert_eq!(run.code(), 99, "{}", run.stderr);
    let order: Vec<&str> = run.stderr.lines().filter_map(|line| Some(line.split_once(": cpu ")?.0)).collect();
    let expected: Vec<String> = (1..=5)
        .flat_map(|round| ["small", "large"].map(|name| (round, name)))
        .flat_map(|(round, name)| ["plain", "busy"].map(|server| format!("{name} {round}/5 {server}")))
        .collect();
    assert_eq!(order, expected);
    let bars = run.json()["scenarios"][1]["bars"].clone();
    assert_eq!((&bars[0]["judgement"], &bars[1]["judgement"]), (&"does not hold".into(), &"holds".into()));
    assert!(bars[0]["value"].as_f64().unwrap() > 0.05, "{bars}");
    // Without what it grows from a bar is none.
    let run = bench.run("--rounds 1 --scenario large --json -");
    assert_eq!(run.json()["scenarios"][0]["bars"].as_array().unwrap().len(), 0, "{}", run.stdout);
}

#[test]
fn the_cheaper_one_that_is_slower_is_told_to_be() {
    // So long that the lazy one has several answers, and so figures, where the machine has other work for most of it.
    let load = "echo -c 2 -d 1s --warmup 0";
    let bench =
        Bench::new("title = \"T\"").server("lazy", "lazy").server("busy", "busy").scenario("s", load, "");
    let run = bench.run("--quiet");
    assert_eq!((run.code(), &*run.stderr), (0, ""), "{}", run.stderr);
    let line = run.stdout.lines().find(|line| line.contains("lazy is cheaper than busy")).expect(&run.stdout);
    assert!(line.contains("BUT IT IS THE SLOWER ONE") && line.contains("throughput"), "{line}");
}

#[test]
fn of_the_same_server_none_is_called() {
    // By chance alone, two times eight values lie apart once in 6,000 times.
    let bench =
        Bench::new("rounds = 8").server("one", "plain").server("other", "plain").scenario("s", SHORT, "");
    let run = bench.run("--quiet");
    assert_eq!(run.code(), 0, "{}", run.stderr);
    assert!(run.stdout.contains("one and other: no winner by cpu, as the spreads overlap"), "{}", run.stdout);
    assert!(!run.stdout.contains("cheap"), "{}", run.stdout);
}

#[test]
fn a_server_that_fails_is_named_and_not_counted() {
    let bench = Bench::new("rounds = 3\nready_timeout = \"2s\"\nrun_timeout = \"5s\"")
        .server("plain", "plain")
        .server("ends", "ends")
        .server("never", "never")
        .server("refuses", "refuses")
        .server("dies", "dies")
        .server("hangs", "hangs")
        .scenario("s", "echo -c 2 -d 200ms --warmup 0 --timeout 300ms", "bars = [\"cpu <= 1 of dies\"]");
    let run = bench.run("--json -");
    assert_eq!(run.code(), 0, "{}", run.stderr);
    let report = run.json();
    let scenario = &report["scenarios"][0];
    assert!(verdicts(&report).is_empty(), "there is nothing to compare: {:?}", verdicts(&report));
    assert_eq!(scenario["bars"][0]["judgement"], "not measured");
    for (place, what) in [
        (1, "ended with code 3 instead of starting\n      | running 1 test\n      | no such option"),
        (2, "did not start within 2s: takes no connections"),
        (3, "answers an upgrade with \"HTTP/1.1 404 Not Found\""),
        (4, "ended with code 7 while it was measured\n"),
        (5, "met errors: "),
    ] {
        let runs = scenario["servers"][place]["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 2, "after two failures it is not started again");
        let why = runs[0]["failed"].as_str().unwrap_or_else(|| panic!("{place}: {runs:?}"));
        assert!(why.contains(what), "{why}");
    }
    let warnings = strings(&scenario["warnings"]);
    assert!(
        warnings.iter().any(|line| line.starts_with("dies: 2 runs failed") && line.contains("out of cheese")),
        "{warnings:?}"
    );
    assert_eq!(scenario["servers"][0]["runs"].as_array().unwrap().len(), 3);
}

#[test]
fn what_a_server_says_is_shown_plain() {
    let mut bench = Bench::new("rounds = 1").server("plain", "plain").server("a|b", "garish");
    bench.suite += "version = [\"printf\", 'v\\033[31m1 | 2\\007\\n']\n";
    let bench = bench.scenario("s", SHORT, "");
    let markdown = bench.folder.path().join("out.md");
    let run = bench.run(&format!("--markdown {}", markdown.display()));
    assert_eq!(run.code(), 0, "{}", run.stderr);
    let markdown = fs::read_to_string(markdown).unwrap();
    for told in [&run.stdout, &run.stderr, &markdown] {
        assert!(!told.contains(['\u{1b}', '\u{7}']), "{told:?}");
    }
    for told in [&run.stdout, &markdown] {
        assert!(
            told.contains("v\\u{1b}[31m1 | 2\\u{7}") && told.contains("\\u{1b}[2J\\u{7}red | wine"),
            "{told}"
        );
    }
    assert!(markdown.contains("| a\\|b |"), "{markdown}");
}

#[test]
fn where_no_run_counts_it_is_a_fault() {
    let bench = Bench::new("rounds = 1").server("ends", "ends").scenario("s", SHORT, "");
    let run = bench.run("");
    assert_eq!(run.code(), 1, "{}", run.stderr);
    assert!(
        run.stderr.contains("no run counts") && run.stdout.contains("| no such option"),
        "{}",
        run.stdout
    );
    let bench = Bench::new("[pin]\nserver = [1000]").server("plain", "plain").scenario("s", SHORT, "");
    let run = bench.run("");
    assert_eq!(run.code(), 1, "{}", run.stderr);
    assert!(
        run.stderr.contains("suite.toml:2:11: [pin] server: this process may not use processor 1000"),
        "{}",
        run.stderr
    );
}

#[test]
fn results_are_told_though_a_file_cannot_be_written() {
    let exe = env::current_exe().unwrap();
    let folder = tempfile::tempdir().unwrap();
    // The folder goes while the first server is measured.
    let gone = folder.path().join("gone");
    let script = format!("rm -r {}; exec \\\"$0\\\" serve --exact --ignored --nocapture", gone.display());
    let bench = Bench::new("rounds = 1")
        .server_by("plain", "plain", &format!("[\"sh\", \"-c\", \"{script}\", \"{}\"]", exe.display()))
        .scenario("s", SHORT, "");
    fs::create_dir(&gone).unwrap();
    let run = bench.run(&format!("--json {0}/x.json --markdown {0}/x.md", gone.display()));
    assert_eq!(run.code(), 1, "{}", run.stderr);
    assert!(run.stdout.contains("1/1"), "the table is there: {}", run.stdout);
    assert!(run.stderr.contains("x.json: No such file"), "{}", run.stderr);
    // Where that is known before the start, nothing is measured.
    let run = bench.run("--json /nowhere/x.json");
    assert_eq!((run.code(), &*run.stdout), (1, ""), "{}", run.stderr);
    assert!(run.stderr.contains("/nowhere/x.json: No such file"), "{}", run.stderr);
}

#[test]
fn a_load_without_end_is_ended() {
    let bench = Bench::new("rounds = 1").server("plain", "plain").scenario(
        "s",
        "echo -c 1 -d 10m",
        "run_timeout = \"500ms\"",
    );
    let run = bench.run("");
    assert_eq!(run.code(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("the load did not end within 500ms"), "{}", run.stderr);
}

#[test]
fn files_and_variables_reach_the_server_and_its_upstream() {
    let exe = env::current_exe().unwrap();
    // The servers say in what they were given that they were given it.
    let script = "test \\\"$(cat {dir}/greeting)\\\" = \\\"{word} {upstream_port}\\\" || exit 9; exec \\\"$0\\\" serve \
                  --exact --ignored --nocapture";
    let mut bench = Bench::new("rounds = 1\n[variables]\nword = \"hello\"").server_by(
        "plain",
        "plain",
        &format!("[\"sh\", \"-c\", \"{script}\", \"{}\"]", exe.display()),
    );
    bench.suite += "upstream = \"up\"\n[server.files]\ngreeting = \"{word} {upstream_port}\"\n";
    let mark = bench.mark.clone();
    bench = bench.scenario("s", SHORT, "");
    bench.suite += &format!(
        "[[upstream]]\nname = \"up\"\ncommand = [\"{}\", \"serve\", \"--exact\", \"--ignored\", \"--nocapture\"]\n\
         environment = {{ {BEHAVIOUR} = \"plain\", {PORT} = \"{{port}}\", MARK = \"{mark}\" }}\n",
        exe.display()
    );
    for set in ["", "--set word=good-day"] {
        let run = bench.run(&format!("--json - {set}"));
        assert_eq!(run.code(), 0, "{}", run.stderr);
        let report = run.json();
        let runs = &report["scenarios"][0]["servers"][0]["runs"];
        // Not the upstream's.
        assert_eq!(runs[0]["processes"], 1, "{runs}");
    }
}

#[test]
fn a_load_can_have_files() {
    let bench = Bench::new("rounds = 1\n[variables]\nname = \"trace\"").server("plain", "plain").scenario(
        "s",
        "replay {suite}/{name}.csv -c 2",
        "",
    );
    fs::write(bench.folder.path().join("trace.csv"), "0,64\n1000,64\n").unwrap();
    let run = bench.run("--json -");
    assert_eq!(run.code(), 0, "{}", run.stderr);
    let report = run.json();
    assert_eq!(report["scenarios"][0]["servers"][0]["runs"].as_array().unwrap().len(), 1, "{report:#}");
    // As the suite has it: no folder of this machine.
    assert_eq!(report["scenarios"][0]["load"][1], "{suite}/{name}.csv");
    // A relative path is that of the folder where the comparison was started, for whoever reads it.
    let mut bench = bench;
    bench.suite = bench.suite.replace("{suite}/", "./");
    fs::write(bench.folder.path().join("suite.toml"), &bench.suite).unwrap();
    let mut command = command("compare suite.toml --json -");
    let run = finish(start({
        command.current_dir(bench.folder.path());
        command
    }));
    assert_eq!(run.code(), 0, "{}", run.stderr);
    bench.suite = bench.suite.replace("{name}", "other");
    let run = bench.run("");
    assert_eq!(run.code(), 2);
    assert!(run.stderr.contains("./other.csv: No such file"), "{}", run.stderr);
}

#[test]
fn all_processes_of_a_server_count_and_end() {
    let exe = env::current_exe().unwrap();
    let script = "trap '' TERM; setsid sleep 1000 & sh -c 'sleep 1000' & \\\"$0\\\" serve --exact --ignored --nocapture; \
                  wait";
    let bench = Bench::new("rounds = 1")
        .server_by("many", "plain", &format!("[\"sh\", \"-c\", \"{script}\", \"{}\"]", exe.display()))
        .scenario("s", SHORT, "");
    let run = bench.run("--json -");
    assert_eq!(run.code(), 0, "{}", run.stderr);
    let processes = run.json()["scenarios"][0]["servers"][0]["runs"][0]["processes"].as_u64().unwrap();
    // The shell, the sleeper with a session of its own, the other (and its shell, where that stays), the server.
    assert!((4..=5).contains(&processes), "{processes}");
}

#[test]
fn a_server_whose_processes_come_and_go_has_not_started() {
    let exe = env::current_exe().unwrap();
    let script = "while :; do sleep 0.03; done & exec \\\"$0\\\" serve --exact --ignored --nocapture";
    let bench = Bench::new("rounds = 1\nready_timeout = \"2s\"")
        .server_by("restless", "plain", &format!("[\"sh\", \"-c\", \"{script}\", \"{}\"]", exe.display()))
        .scenario("s", SHORT, "");
    let run = bench.run("");
    assert_eq!(run.code(), 1, "{}", run.stderr);
    // Where the machine has other work, they may stay long enough to be looked at, and go then.
    let told = [
        "did not start within 2s: its processes come and go",
        "its processes changed while it was measured",
        "cannot look at this process",
    ];
    assert!(told.iter().any(|told| run.stderr.contains(told)), "{}", run.stderr);
}

#[test]
fn ctrl_c_ends_it_with_the_results_so_far() {
    let bench = Bench::new("").server("plain", "plain").scenario("first", SHORT, "").scenario(
        "second",
        "echo -c 1 -d 10m",
        "",
    );
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        if !harness::is_heeded(signal) {
            continue;
        }
        let child = bench.start("--rounds 1 --json -");
        let own = Pid::from_child(&child);
        let began = Instant::now();
        while bench.processes(|line| line.contains("10m") && line.contains("--json")).is_empty() {
            assert!(began.elapsed() < LONG, "no load was started");
            thread::sleep(Duration::from_millis(5));
        }
        kill_process(own, signal).unwrap();
        let run = finish(child);
        assert_eq!(run.code(), code, "{}", run.stderr);
        let report = run.json();
        assert_eq!(report["interrupted"], true);
        assert_eq!(report["scenarios"][0]["servers"][0]["runs"].as_array().unwrap().len(), 1);
        assert_eq!(report["scenarios"][1]["servers"][0]["runs"].as_array().unwrap().len(), 0);
        bench.assert_nothing_is_left();
    }
}

#[test]
fn where_it_is_killed_its_server_and_its_load_end() {
    let bench = Bench::new("").server("plain", "plain").scenario("s", "echo -c 1 -d 10m", "");
    let mut child = bench.start("--rounds 1");
    bench.load();
    let began = Instant::now();
    // A look at all processes may miss one while others come and go.
    while bench.processes(|_| true).len() < 2 {
        assert!(began.elapsed() < LONG, "the server and the load");
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let began = Instant::now();
    // The kernel asks them to end, which they may take their time for.
    while !bench.processes(|_| true).is_empty() {
        assert!(began.elapsed() < LONG, "{:?}", bench.processes(|_| true));
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_load_that_is_killed_leaves_nothing_behind() {
    let bench = Bench::new("").server("plain", "plain").scenario("s", "echo -c 1 -d 10m", "");
    let child = bench.start("--rounds 1");
    kill_process(bench.load(), Signal::KILL).unwrap();
    let run = finish(child);
    assert_eq!(run.code(), 1, "{}", run.stderr);
    assert!(run.stdout.contains("the load ended by signal 9"), "{}", run.stdout);
    bench.assert_nothing_is_left();
}

#[test]
fn mistakes_are_matters_of_usage() {
    let bench =
        Bench::new("").server("plain", "plain").scenario("s", SHORT, "bars = [\"cpu <= 1 of nobody\"]");
    let run = bench.run("");
    assert_eq!(run.code(), 2);
    assert!(run.stderr.contains("suite.toml:10:9: there is no server \"nobody\": plain"), "{}", run.stderr);
    let bench = Bench::new("").server("plain", "plain").scenario("s", SHORT, "");
    for (arguments, message) in [
        ("--only nobody", "no server \"nobody\""),
        ("--scenario none", "no scenario \"none\" in this suite: s"),
        ("--set x=1", "--set x"),
        ("--rounds 0", "--rounds"),
        ("--check", "--check: there is no bar"),
        ("--json x --markdown x", "--json and --markdown are one file"),
    ] {
        let run = bench.run(arguments);
        assert_eq!(run.code(), 2, "{arguments}");
        assert!(run.stderr.contains(message), "{}", run.stderr);
    }
    let nowhere = OsStr::new("/nowhere/suite.toml");
    let mut command = command("compare");
    command.arg(nowhere);
    let run = finish(start(command));
    assert_eq!(run.code(), 2);
    assert!(run.stderr.contains("/nowhere/suite.toml"), "{}", run.stderr);
}

#[test]
fn the_suites_of_the_repository_are_sound() {
    for entry in fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("suites")).unwrap() {
        let path = entry.unwrap().path();
        // What they share is in a folder.
        if path.is_dir() {
            continue;
        }
        let run = harness::run(&format!("compare {} --only nobody", path.display()));
        assert!(run.stderr.contains("there is no server \"nobody\" in this suite"), "{}", run.stderr);
    }
}
