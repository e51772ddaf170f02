//! Several processes are one run, and none outlives it.

mod harness;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use harness::{Server, accept, command, finish, run, start};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

/// The processes that this one has started.
fn children(of: u32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn is_there(pid: i32) -> bool {
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok()
}

/// Waits until something is so; it must be, some time.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A run of ten minutes in two processes that is well under way, and these processes.
fn under_way(arguments: &str) -> (Child, Vec<i32>) {
    let mut child = start(command(&format!("{arguments} -d 10m --json - --processes 2")));
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // Told each second; by the second line it is well under way.
    lines.by_ref().take(2).for_each(|line| assert!(line.unwrap().contains(" up")));
    thread::spawn(move || lines.for_each(drop));
    let all = children(child.id());
    assert_eq!(all.len(), 2);
    (child, all)
}

fn end(child: Child) -> (Option<i32>, Value) {
    let output = child.wait_with_output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), report)
}

#[test]
fn two_processes_are_one_run() {
    let server = Server::honest();
    for (arguments, sessions) in [
        ("echo -c 9 -d 1500ms --warmup 0 -t 2", 9),
        ("echo -c 9 -R 300 -d 1500ms --warmup 0", 9),
        ("echo -c 3 -d 500ms --warmup 0 --text -s 8 --source 127.0.0.2,127.0.0.3", 3),
        ("idle -c 9 -d 300ms", 9),
        ("storm -c 20 --again", 40),
        ("slow -c 8 --share 25% -d 500ms --warmup 0 -s 1000", 8),
        ("slow -c 16 --share 10% -t 4 -d 500ms --warmup 0 -s 1000", 16),
    ] {
        let (scenario, more) = arguments.split_once(' ').unwrap();
        let run = run(&format!("{scenario} {} {more} --processes 2 --quiet --json -", server.url()));
        assert_eq!((run.code(), &*run.stderr), (0, ""), "{arguments}: {}", run.stderr);
        let report = run.json();
        assert_eq!(report["errors"]["total"], 0, "{arguments}: {report:#}");
        assert_eq!(report["sessions"]["opened"], sessions, "{arguments}: {report:#}");
        assert_eq!(report["settings"]["processes"], 2, "{arguments}");
        if arguments.contains("-R") {
            let answered = report["messages"]["answered"].as_u64().unwrap();
            assert!((447..=453).contains(&answered), "{answered} of 450: {report:#}");
        }
        if scenario == "echo" {
            let answered = report["messages"]["answered"].as_u64().unwrap();
            assert!(answered > 0 && report["latency"]["count"] == answered, "{report:#}");
            assert!(report["generator"]["cpu_s"].as_f64().unwrap() > 0.0);
        }
        if scenario == "slow" {
            // A quarter of all, not of each process.
            assert_eq!(report["sessions"]["slow"], 2, "{arguments}: {report:#}");
        }
        if arguments.contains("1500ms") {
            assert_eq!(report["seconds"][0]["open"], 9, "{arguments}: {report:#}");
        }
    }
    // No more processes than there is work for.
    let report = run(&format!("idle {} -c 1 -d 100ms --processes 4 --quiet --json -", server.url())).json();
    assert_eq!(
        (report["settings"]["processes"].as_u64(), report["sessions"]["closed"].as_u64()),
        (Some(1), Some(1))
    );
    let usage = run(&format!("idle {} --processes 16 -t 16", server.url()));
    assert_eq!(usage.code(), 2, "{}", usage.stderr);
}

#[test]
fn more_sessions_than_one_process_may_have() {
    let server = Server::honest();
    let binary = env!("CARGO_BIN_EXE_tidegate-loadtest");
    let limited = |more: &str| {
        let mut limited = Command::new("sh");
        let url = server.url();
        limited.args([
            "-c",
            &format!("ulimit -n 80 && exec {binary} idle {url} -c 100 -d 100ms --quiet {more}"),
        ]);
        finish(start(limited))
    };
    let run = limited("");
    assert_eq!(run.code(), 1);
    assert!(run.stderr.contains("--processes"), "{}", run.stderr);
    let run = limited("--processes 3 --json - --assert sessions=100 --assert errors=0");
    assert_eq!(run.code(), 0, "{}", run.stderr);
}

#[test]
fn a_process_that_dies_is_named_and_ends_the_run() {
    let server = Server::honest();
    for scenario in ["echo", "idle", "churn"] {
        let (mut child, all) = under_way(&format!("{scenario} {} -c 4", server.url()));
        // Its lines were read; what is told from now on is not.
        child.stderr = None;
        kill_process(Pid::from_raw(all[1]).unwrap(), Signal::KILL).unwrap();
        let (code, report) = end(child);
        assert_eq!(code, Some(1), "{scenario}");
        assert!(report["sessions"]["opened"].as_u64().unwrap() >= 2, "{report:#}");
        assert_eq!(report["interrupted"], true, "{scenario}");
        until("the other one ends too", || !is_there(all[0]));
    }
}

/// A run in two processes, as soon as a line of its has this in it.
fn seen(arguments: &str, told: &str) -> (Child, Vec<i32>) {
    let mut child = start(command(&format!("{arguments} --json - --processes 2")));
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(told)), "{told}");
    thread::spawn(move || lines.for_each(drop));
    let all = children(child.id());
    assert_eq!(all.len(), 2);
    (child, all)
}

#[test]
fn a_process_that_dies_while_the_others_come_up_ends_the_run() {
    // The second process's sessions never come up.
    let server = Server::raw(|stream, deeds| {
        if stream.peer_addr().unwrap().ip().to_string() == "127.0.0.2" {
            let _ = accept(stream, Arc::clone(deeds)).map(|mut peer| while peer.read().is_ok() {});
        } else {
            let _ = (&stream).read_to_end(&mut Vec::new());
        }
    });
    let arguments =
        format!("echo {} -c 2 -d 10m --timeout 10m --source 127.0.0.2,127.0.0.3 --io epoll", server.url());
    let (child, all) = seen(&arguments, " 1 up");
    kill_process(Pid::from_raw(all[1]).unwrap(), Signal::KILL).unwrap();
    ends_cut_short(child);
}

#[test]
fn a_process_that_dies_in_the_warm_up_ends_the_run() {
    let server = Server::honest();
    let (child, all) = seen(&format!("echo {} -c 4 -d 10m --warmup 10m", server.url()), "warm-up");
    kill_process(Pid::from_raw(all[1]).unwrap(), Signal::KILL).unwrap();
    let report = ends_cut_short(child);
    assert_eq!(report["messages"]["answered"], 0, "nothing was measured: {report:#}");
}

/// It must be over at once, with what there is.
fn ends_cut_short(mut child: Child) -> Value {
    child.stderr = None;
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the run goes on without one of its processes");
        }
        thread::sleep(Duration::from_millis(5));
    }
    let (code, report) = end(child);
    assert_eq!((code, &report["interrupted"]), (Some(1), &Value::Bool(true)), "{report:#}");
    report
}

#[test]
fn the_process_that_died_stands_in_the_complaint() {
    let server = Server::honest();
    let child = start(command(&format!("idle {} -c 4 -d 10m --quiet --processes 3", server.url())));
    until("three processes", || children(child.id()).len() == 3);
    let victim = children(child.id())[1];
    kill_process(Pid::from_raw(victim).unwrap(), Signal::KILL).unwrap();
    let run = finish(child);
    assert_eq!(run.code(), 1);
    let complaint = format!("process 2 of 3 ({victim}) has died: signal: 9");
    assert!(run.stderr.contains(&complaint), "{}", run.stderr);
}

#[test]
fn ctrl_c_ends_all_of_them_with_the_results() {
    let server = Server::honest();
    for scenario in ["echo", "slow"] {
        let (mut child, all) = under_way(&format!("{scenario} {} -c 4", server.url()));
        child.stderr = None;
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let (code, report) = end(child);
        assert_eq!(code, Some(130), "{scenario}");
        assert_eq!(report["interrupted"], true);
        assert_eq!(report["sessions"]["closed"], if scenario == "slow" { 3 } else { 4 }, "{report:#}");
        assert!(all.iter().all(|pid| !is_there(*pid)), "they are waited for");
    }
}

#[test]
fn none_outlives_the_first_process() {
    let server = Server::honest();
    let (child, all) = under_way(&format!("echo {} -c 4", server.url()));
    let mut child = child;
    child.kill().unwrap();
    child.wait().unwrap();
    until("all have ended", || all.iter().all(|pid| !is_there(*pid)));
    // Nor one whose first process never says a word.
    let mut part = command(&format!("echo {} --part 0:0:0 --processes 2 -c 4", server.url()));
    let mut part = part.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    drop(part.stdin.take());
    until("it has ended", || part.try_wait().unwrap().is_some());
}
