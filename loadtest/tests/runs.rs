//! Exit codes, output, limits, scenarios.

mod harness;

use std::{
    io::{self, BufReader, Write},
    net::TcpListener,
    process::{Command, Stdio},
    sync::{Barrier, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use harness::{
    Server, command, encode, finish,
    gateway::{Gateway, free_port},
    memory_of_a_session, run, start,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[test]
fn exit_codes_tell_what_became_of_a_run() {
    let server = Server::honest();
    let url = server.url();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (arguments, code, stderr) in [
        (format!("echo {url} -c 2 -d 200ms --warmup 0 --assert p99<30s --assert errors=0"), 0, ""),
        (format!("echo {url} -c 2 -d 200ms --warmup 0 --assert p50<1us"), 99, "does not hold: p50<1us"),
        (format!("echo {url} -c 2 -d 200ms --warmup 0 --assert rate>99M --assert p50<1m"), 99, "rate>99M"),
        // What was not measured does not hold.
        (format!("idle {url} -c 2 -d 200ms --assert p50<1m"), 99, "p50<1m"),
        (format!("echo ws://{closed} -c 2 -d 200ms --assert errors=0"), 1, "no session came up"),
        ("echo ws://host.invalid/ -c 1".into(), 1, "host.invalid"),
        (format!("echo {url} --pid 2147483647"), 1, "--pid 2147483647"),
        (
            format!("echo {url} -c 1 -d 100ms --warmup 0 --json /nowhere/x.json"),
            1,
            "cannot write the results",
        ),
        (format!("echo {url} -c 1 -d 10m --html /nowhere/x.html"), 1, "cannot write the results to /nowhere"),
        ("echo wss://127.0.0.1/ --ca /nowhere".into(), 2, "/nowhere: No such file"),
        (format!("echo {url} --assert speed>1"), 2, "no metric"),
        (format!("echo {url} -s 8 --depth 100"), 2, "--depth is at most 64"),
        ("echo".into(), 2, "Usage"),
        ("--help".into(), 0, ""),
        ("--version".into(), 0, ""),
    ] {
        let run = run(&arguments);
        assert_eq!(run.code(), code, "{arguments}: {}", run.stderr);
        assert!(run.stderr.contains(stderr), "{arguments}: {}", run.stderr);
    }
}

#[test]
fn a_signal_ends_a_run_with_its_results() {
    let server = Server::honest();
    for (scenario, signal, code) in [
        ("echo", Signal::INT, 130),
        ("idle", Signal::TERM, 143),
        ("churn", Signal::HUP, 129),
        ("slow", Signal::INT, 130),
    ] {
        if !harness::is_heeded(signal) {
            continue;
        }
        let began = Instant::now();
        let child = start(command(&format!("{scenario} {} -c 4 -d 10m --json -", server.url())));
        // Told each second; by the second line it is well under way.
        let mut child = child;
        let stderr = child.stderr.take().unwrap();
        let mut lines = io::BufRead::lines(BufReader::new(stderr));
        lines.by_ref().take(2).for_each(|line| assert!(line.unwrap().contains(" up")));
        thread::spawn(move || lines.for_each(drop));
        kill_process(Pid::from_child(&child), signal).unwrap();
        child.stderr = None;
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{scenario}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["interrupted"], true, "{scenario}");
        assert!(report["sessions"]["opened"].as_u64().unwrap() >= 4, "{report:#}");
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}

#[test]
fn json_has_the_fields_that_the_readme_names() {
    let readme = include_str!("../README.md");
    let server = Server::honest();
    let own = std::process::id();
    let mut missing = Vec::new();
    for arguments in [
        format!("echo {} -c 4 -R 200 -d 1200ms --warmup 0 --pid {own} --assert p99<1m", server.url()),
        format!("idle {} -c 8 -d 200ms --pid {own}", server.url()),
        format!("storm {} -c 8 --pid {own}", server.url()),
        format!("churn {} -c 4 -d 300ms --warmup 0", server.url()),
        format!("slow {} -c 4 -d 300ms --warmup 0 --share 25%", server.url()),
        // Each hears itself alone: none of the subscribers hears a publisher.
        format!("fanout {} -c 2 -d 300ms --warmup 0 --timeout 100ms", server.url()),
    ] {
        let run = run(&format!("{arguments} --quiet --json -"));
        assert_eq!(run.code(), 0, "{arguments}: {}", run.stderr);
        assert_eq!(run.stderr, "", "quiet: {arguments}");
        collect(&run.json(), &mut |name| {
            if !readme.contains(&format!("`{name}`")) {
                missing.push(name.to_owned());
            }
        });
    }
    missing.sort();
    missing.dedup();
    assert!(missing.is_empty(), "README.md does not tell of {missing:?}");
}

/// Every name of a field, but for those that are numbers or kinds of errors.
fn collect(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                found(name);
                if !["by_kind", "reasons", "statuses", "close_codes"].contains(&name.as_str()) {
                    collect(value, found);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

#[test]
fn results_are_a_table_and_a_file() {
    let server = Server::honest();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.json");
    let arguments = format!("echo {} -c 2 -d 1200ms --warmup 0 --json {}", server.url(), file.display());
    let run = run(&arguments);
    assert_eq!(run.code(), 0, "{}", run.stderr);
    for row in ["sessions", "handshake", "messages", "latency", "errors     none", "generator"] {
        assert!(run.stdout.contains(row), "{row}: {}", run.stdout);
    }
    // Neither is a terminal: plain lines, no colours, no bar.
    assert!(run.stderr.contains("   1s measuring  2 up"), "{}", run.stderr);
    assert!(!run.stdout.contains('\x1b') && !run.stderr.contains(['\x1b', '\r', '#']));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!((report["format"].as_u64(), report["scenario"].as_str()), (Some(1), Some("echo")));
    assert!(report["messages"]["rate_per_s"].as_f64().unwrap() > 0.0);
}

#[test]
fn results_are_told_though_a_file_cannot_be_written() {
    let server = Server::honest();
    for json in ["", "--json -"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("out.html");
        let arguments =
            format!("echo {} -c 2 -d 2s --warmup 0 {json} --html {}", server.url(), file.display());
        let mut child = start(command(&arguments));
        // It is seen to be writable before the start, and goes meanwhile.
        let mut lines = io::BufRead::lines(BufReader::new(child.stderr.take().unwrap()));
        assert!(lines.next().unwrap().unwrap().contains("measuring"));
        drop(folder);
        let complaint = lines.last().unwrap().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{complaint}");
        assert!(complaint.contains("out.html: No such file"), "{complaint}");
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(told.contains("latency"), "{told}");
    }
}

#[test]
fn a_run_that_does_not_start_leaves_what_was_there_and_nothing_new() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old.json"), folder.path().join("new.html"));
    std::fs::write(&old, "old").unwrap();
    let files = format!("--json {} --html {}", old.display(), new.display());
    let run = run(&format!("echo ws://{closed} -c 1 --pid 2147483647 {files}"));
    assert_eq!(run.code(), 1, "{}", run.stderr);
    assert_eq!(std::fs::read_to_string(&old).unwrap(), "old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_page_goes_to_standard_output_and_what_that_refuses_is_named() {
    let server = Server::honest();
    let arguments = format!("echo {} -c 1 -d 100ms --warmup 0 --quiet", server.url());
    let page = run(&format!("{arguments} --html -"));
    assert!(page.stdout.starts_with("<!doctype html>"), "{}", page.stdout);
    let mut command = command(&arguments);
    command.stdout(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let output = command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot write the results to standard output: No space"), "{stderr}");
}

#[test]
fn a_page_shows_the_run_and_needs_nothing_else() {
    let server = Server::honest();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.html");
    let url = format!("{}?a=<b>", server.url());
    let arguments = format!("echo {url} -c 4 -d 3s --warmup 0 -R 200 --html {}", file.display());
    let run = run(&format!("{arguments} --assert errors=0 --quiet -H Cookie:hunter2"));
    assert_eq!(run.code(), 0, "{}", run.stderr);
    assert!(run.stdout.contains("latency"), "the table is there too: {}", run.stdout);
    let page = std::fs::read_to_string(&file).unwrap();
    for text in
        ["<b>Latency</b>", "<b>Messages</b>", "Latency, percentiles", "All assertions hold", "?a=&lt;b&gt;"]
    {
        assert!(page.contains(text), "{text}");
    }
    let command = "<pre>tidegate-loadtest echo";
    assert!(page.contains(command) && page.contains("Cookie: (left out)") && !page.contains("hunter2"));
    assert!(!page.contains("?a=<b>") && !page.contains("http://") && !page.contains("https://"));
}

#[test]
fn an_open_loop_sends_at_its_rate() {
    let server = Server::honest();
    let run = run(&format!("echo {} -c 7 -R 300 -d 2s --warmup 100ms -t 2 --quiet --json -", server.url()));
    let report = run.json();
    let answered = report["messages"]["answered"].as_u64().unwrap();
    assert!((598..=602).contains(&answered), "{answered} of 600: {report:#}");
    assert_eq!(report["generator"]["lag"]["count"], answered);
    // By the plan's time, not by when somebody came to look.
    assert_eq!(report["measured_s"], 2.0);
    let received = report["messages"]["received"].as_f64().unwrap();
    assert!((report["messages"]["rate_per_s"].as_f64().unwrap() - received / 2.0).abs() < 1e-9);
    // Two threads, each with some calls for a message; a warm-up's are not among them.
    let calls = report["generator"]["system_calls_per_message"].as_f64().unwrap();
    assert!(calls > 0.5 && calls < 20.0, "{calls}");
}

#[test]
fn the_handshake_carries_what_was_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let child = start(command(&format!(
        "echo ws://{address}/chat?x=1 -c 1 -d 100ms --warmup 0 -H Host:example.com -H Authorization:Basic \
         --subprotocol a --subprotocol b --source 127.0.0.9"
    )));
    let (mut stream, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.9");
    let mut head = String::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while !head.ends_with("\r\n\r\n") {
        io::BufRead::read_line(&mut reader, &mut head).unwrap();
    }
    for line in [
        "GET /chat?x=1 HTTP/1.1\r\n",
        "\r\nHost: example.com\r\n",
        "\r\nAuthorization: Basic\r\n",
        "\r\nSec-WebSocket-Protocol: a, b\r\n",
        "\r\nSec-WebSocket-Version: 13\r\n",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    assert_eq!(head.matches("Host:").count(), 1);
    stream.write_all(b"HTTP/1.1 401 No\r\n\r\n").unwrap();
    drop((stream, reader));
    assert_eq!(finish(child).code(), 1);
}

#[test]
fn too_few_descriptors_are_told_before_the_start() {
    let server = Server::honest();
    let mut limited = Command::new("sh");
    let binary = env!("CARGO_BIN_EXE_tidegate-loadtest");
    limited.args(["-c", &format!("ulimit -n 64 && exec {binary} idle {} -c 100", server.url())]);
    let run = finish(start(limited));
    assert_eq!(run.code(), 1);
    assert!(run.stderr.contains("100 sessions need 140 descriptors"), "{}", run.stderr);
    assert!(run.stderr.contains("ulimit -Hn 140"), "{}", run.stderr);
}

#[test]
fn idle_sessions_answer_pings_and_losses_are_counted() {
    let all_up = Barrier::new(6);
    let server = Server::new(move |mut peer| {
        // Only those that are up when all are can be lost.
        all_up.wait();
        for n in 0..3u8 {
            peer.stream.write_all(&encode(9, &[n; 125]))?;
            let pong = peer.read()?;
            assert_eq!((pong.opcode, pong.payload), (10, vec![n; 125]));
            peer.did();
        }
        // And it goes, without a Close.
        Ok(())
    });
    let run = run(&format!("idle {} -c 6 -d 20s --quiet --json -", server.url()));
    let report = run.json();
    assert_eq!((run.code(), server.deeds()), (0, 18));
    assert_eq!(report["sessions"]["pings_answered"], 18);
    assert_eq!(report["sessions"]["lost"], 6);
    assert!(run.took < Duration::from_secs(15), "without sessions a run is over");
}

#[test]
fn a_storm_comes_again() {
    let server = Server::honest();
    let run = run(&format!(
        "storm {} -c 40 --again=2 --quiet --json - --assert all_up<30s --assert handshake_max<30s",
        server.url()
    ));
    let report = run.json();
    assert_eq!(run.code(), 0, "{}", run.stderr);
    assert_eq!(report["sessions"]["opened"], 120);
    let storms = report["storms"].as_array().unwrap();
    assert_eq!(storms.len(), 3);
    assert!(storms.iter().all(|storm| storm["up"] == 40 && storm["failed"] == 0));
    assert_eq!(report["errors"]["total"], 0, "{report:#}");
}

#[test]
fn a_storm_that_does_not_settle_ends_in_time() {
    // Nobody takes connections out of the queue.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let run = run(&format!("storm ws://{address} -c 20 -d 500ms --quiet --json - --assert all_up<30s"));
    assert_eq!(run.code(), 1);
    assert_eq!(run.errors("not_up"), 20, "{}", run.stdout);
    drop(listener);
}

#[test]
fn churned_sessions_send_close_and_follow_each_other() {
    let server = Server::echo(|n, frame, deeds| {
        assert!(n < 5, "five messages, then the Close");
        deeds.fetch_add(1, Ordering::SeqCst);
        vec![(frame.opcode, frame.payload)]
    });
    let run = run(&format!(
        "churn {} -c 32 -R 50 -d 1s --warmup 0 --messages 5 --close-code 3001 --quiet --json -",
        server.url()
    ));
    let report = run.json();
    assert_eq!(report["errors"]["total"], 0, "{report:#}");
    let opened = report["sessions"]["opened"].as_u64().unwrap();
    assert!((48..=51).contains(&opened), "50 a second: {opened}");
    assert_eq!(report["sessions"]["closed"], opened);
    assert_eq!(server.deeds(), opened * 5);
}

#[test]
fn sessions_that_were_due_and_did_not_begin_are_not_up() {
    // One at once, each for 20 ms at the least: of 1,000 that are due, most never begin.
    let server = Server::echo(|_, frame, _| {
        thread::sleep(Duration::from_millis(20));
        vec![(frame.opcode, frame.payload)]
    });
    let run =
        run(&format!("churn {} -c 1 -R 1k -d 1s --warmup 0 --messages 1 --quiet --json -", server.url()));
    let report = run.json();
    let opened = report["sessions"]["opened"].as_u64().unwrap();
    assert!((1..=51).contains(&opened), "{report:#}");
    assert!((999..=1001).contains(&(opened + run.errors("not_up"))), "{report:#}");
    assert_eq!(report["errors"]["total"], run.errors("not_up"), "{report:#}");
}

#[test]
fn what_is_due_when_its_session_is_lost_is_unsent() {
    // The first session to send goes with its first message; the others stay.
    let server = Server::echo(|_, frame, deeds| match deeds.fetch_add(1, Ordering::SeqCst) {
        0 => vec![(8, 1001u16.to_be_bytes().to_vec())],
        _ => vec![(frame.opcode, frame.payload)],
    });
    let run = run(&format!("echo {} -c 4 -R 400 -d 1s --warmup 0 --quiet --json -", server.url()));
    let report = run.json();
    let answered = report["messages"]["answered"].as_u64().unwrap();
    assert_eq!(report["sessions"]["lost"], 1, "{report:#}");
    // What was under way is unanswered; all that was due is accounted for.
    let accounted = answered + run.errors("unsent") + run.errors("unanswered");
    assert!((399..=401).contains(&accounted), "{accounted}: {report:#}");
    assert!((95..=100).contains(&run.errors("unsent")), "{report:#}");
}

#[test]
fn who_does_not_read_is_not_measured() {
    // Each session's echoes go out before its next message is read, so that who does not read is stuck.
    let server = Server::honest();
    let run = run(&format!(
        "slow {} -c 8 --share 25% -d 1s --warmup 0 -s 10000 --timeout 2s --quiet --json -",
        server.url()
    ));
    let report = run.json();
    assert_eq!((run.code(), report["errors"]["total"].as_u64()), (0, Some(0)), "{report:#}");
    assert_eq!((&report["sessions"]["closed"], &report["sessions"]["slow"]), (&6.into(), &2.into()));
    assert!(report["latency"]["count"].as_u64().unwrap() > 0);
}

#[test]
fn slow_readers_that_the_server_ends_are_counted_apart() {
    let server = Server::new(|mut peer| {
        peer.stream.set_write_timeout(Some(Duration::from_millis(50)))?;
        loop {
            let frame = peer.read()?;
            if frame.opcode == 8 {
                return peer.close(&frame);
            }
            // A slow consumer's session ends here.
            peer.stream.write_all(&encode(frame.opcode, &frame.payload))?;
        }
    });
    let run =
        run(&format!("slow {} -c 4 --share 25% -d 3s --warmup 0 -s 60000 --quiet --json -", server.url()));
    let report = run.json();
    assert_eq!(report["sessions"]["slow_ended"], 1, "{report:#}");
    assert_eq!(report["errors"]["by_kind"]["reset"], 0, "{report:#}");
}

#[test]
fn a_session_takes_at_most_a_kibibyte() {
    let each = memory_of_a_session(|address, sessions| {
        format!("idle ws://{address} -c {sessions} -d 300ms --timeout 5s --assert sessions={sessions}")
    });
    assert!(each <= 1024, "{each} bytes");
}

#[test]
#[ignore = "needs the gateway: TIDEGATE_BIN names it"]
fn the_gateway_itself_has_no_errors() {
    let port = free_port();
    let bind = format!("127.0.0.1:{port}");
    let gateway =
        Gateway::start(port, &["--shards".as_ref(), "1".as_ref(), "--bind".as_ref(), bind.as_ref()]);
    let pid = gateway.pid();
    let runs = [
        "echo -d 1s -c 50 --depth 8 -s 10..20000 --text",
        "echo -d 1s -c 50 -R 2000",
        "idle -d 500ms -c 200",
        "storm -c 200 --again",
        "churn -d 1s -c 20",
        "slow -d 1s -c 20",
    ]
    .map(|arguments| {
        let (scenario, more) = arguments.split_once(' ').unwrap();
        run(&format!(
            "{scenario} ws://127.0.0.1:{port}/echo {more} --pid {pid} --quiet --json - --assert errors=0"
        ))
    });
    for run in runs {
        assert_eq!(run.code(), 0, "{}\n{}", run.stderr, run.stdout);
    }
}
