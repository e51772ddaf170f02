//! Runs that cannot measure what was asked for: each says so, and states no rate that nobody had.

mod harness;

use std::{
    fs,
    io::Write,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use harness::{Server, command, encode, finish, run, start};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[test]
fn a_file_played_once_counts_answers_that_come_later() {
    let server = Server::echo(|_, frame, _| {
        thread::sleep(Duration::from_millis(20));
        vec![(frame.opcode, frame.payload)]
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.csv");
    fs::write(&path, "0,64\n10,64\n10,64\n").unwrap();
    let run = run(&format!("replay {} {} -c 2 --quiet --json -", path.display(), server.url()));
    let report = run.json();
    let messages = &report["messages"];
    assert_eq!((&messages["answered"], &messages["received"]), (&6.into(), &6.into()), "{report:#}");
    // The third answer comes 60 ms after its message was due, or later.
    let measured_s = report["measured_s"].as_f64().unwrap();
    assert!(measured_s >= 0.06, "{measured_s}");
    assert!((messages["rate_per_s"].as_f64().unwrap() - 6.0 / measured_s).abs() < 1e-6, "{report:#}");
    assert!(report["generator"]["system_calls_per_message"].as_f64().unwrap() > 0.3, "{report:#}");
}

#[test]
fn what_a_file_played_once_gets_no_answer_to_takes_its_time() {
    // The last message of each session is not answered.
    let server = Server::echo(|n, frame, _| match n {
        2 => vec![],
        _ => vec![(frame.opcode, frame.payload)],
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.csv");
    fs::write(&path, "0,64\n10,64\n10,64\n").unwrap();
    let run =
        run(&format!("replay {} {} -c 2 --timeout 300ms --quiet --json -", path.display(), server.url()));
    let report = run.json();
    assert_eq!((&report["messages"]["received"], run.errors("unanswered")), (&4.into(), 2), "{report:#}");
    assert!(report["measured_s"].as_f64().unwrap() >= 0.3, "{report:#}");
}

#[test]
fn a_run_without_sessions_states_no_rate_of_its_short_life() {
    for with_garbage in [true, false] {
        let server = Server::new(move |mut peer| {
            for _ in 0..3 {
                let frame = peer.read()?;
                peer.stream.write_all(&encode(frame.opcode, &frame.payload))?;
            }
            peer.read()?;
            if with_garbage {
                peer.stream.write_all(&[0xff; 300])?;
                peer.read()?;
            }
            Ok(())
        });
        let arguments = format!(
            "echo {} -c 4 -d 40s --warmup 0 --quiet --assert rate>=0.01 --assert errors>0",
            server.url()
        );
        let told = run(&format!("{arguments} --json -"));
        let report = told.json();
        assert_eq!(told.code(), 99, "{}", told.stderr);
        assert!(told.took < Duration::from_secs(20), "without sessions a run is over");
        let received = report["messages"]["received"].as_f64().unwrap();
        assert_eq!((received, &report["measured_s"]), (12.0, &40.0.into()), "{report:#}");
        assert_eq!(report["messages"]["rate_per_s"].as_f64(), Some(received / 40.0));
        assert!(report["ended_early_s"].as_f64().unwrap() < 20.0, "{report:#}");
        assert_eq!(report["generator"]["was_the_limit"], false);
        let [rate, errors] = report["assertions"].as_array().unwrap().as_slice() else {
            panic!("{report:#}")
        };
        assert_eq!((&rate["holds"], &rate["shown"]), (&false.into(), &"not measured".into()));
        assert_eq!(errors["holds"], true);
        let table = run(&arguments).stdout;
        assert!(table.contains("ended early: no session was left after "), "{table}");
        assert!(table.contains(" of 40.0 s") && !table.contains("was the limit"), "{table}");
    }
}

/// Runs that, and interrupts it once a session has sent something.
fn interrupt(arguments: &str) -> Value {
    let (sender, sent) = mpsc::channel();
    let server = Server::echo(move |_, frame, _| {
        let _ = sender.send(());
        vec![(frame.opcode, frame.payload)]
    });
    let child = start(command(&arguments.replace("URL", &server.url())));
    sent.recv().unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let run = finish(child);
    assert_eq!(run.code(), 130, "{}", run.stderr);
    run.json()
}

#[test]
fn an_interruption_leaves_no_rate_of_an_instant() {
    for scenario in ["echo URL", "churn URL --messages 1"] {
        let report = interrupt(&format!("{scenario} -c 4 -d 40s --warmup 40s --quiet --json -"));
        assert_eq!((&report["measured_s"], &report["messages"]["rate_per_s"]), (&0.0.into(), &Value::Null));
        assert_eq!(report["generator"]["cpu_ns_per_message"], Value::Null);
        // When a signal arrives is not ours to say; but a rate is never that of less than 10 ms.
        let report = interrupt(&format!("{scenario} -c 4 -d 40s --warmup 0 --quiet --json -"));
        let measured_s = report["measured_s"].as_f64().unwrap();
        let has_rate = report["messages"]["rate_per_s"].is_number();
        assert!(if has_rate { measured_s >= 0.01 } else { measured_s == 0.0 }, "{report:#}");
    }
}

#[test]
fn a_storm_does_not_come_again_where_nobody_is_let_in() {
    let is_gone = AtomicBool::new(false);
    let server = Server::raw(move |stream, deeds| {
        // The second storm finds nobody.
        if deeds.fetch_add(1, Ordering::SeqCst) >= 5 {
            is_gone.store(true, Ordering::SeqCst);
        }
        if is_gone.load(Ordering::SeqCst) {
            return;
        }
        let peer = harness::accept(stream, AtomicU64::new(0).into());
        let _ = peer.and_then(|mut peer| peer.read());
    });
    let run = run(&format!("storm {} -c 5 --again=4000000000 --quiet --json -", server.url()));
    let report = run.json();
    let storms = report["storms"].as_array().unwrap();
    assert_eq!((storms.len(), &storms[0]["up"], &storms[1]["up"]), (2, &5.into(), &0.into()), "{report:#}");
}

#[test]
fn more_than_can_be_sent_is_counted_and_the_run_ends_in_time() {
    let server = Server::honest();
    let run =
        run(&format!("echo {} -c 2 -R 100M -d 1s --warmup 0 --timeout 500ms --quiet --json -", server.url()));
    let report = run.json();
    let answered = report["messages"]["answered"].as_u64().unwrap();
    let accounted = answered + run.errors("unanswered") + run.errors("unsent");
    assert!(accounted.abs_diff(100_000_000) <= 2, "{accounted}: {report:#}");
    assert!(run.took < Duration::from_secs(10), "{:?}", run.took);
}

#[test]
fn a_loop_has_a_highest_rate_and_states_the_one_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.csv");
    fs::write(&path, "0.001,10\n").unwrap();
    let refused = run(&format!("replay {} ws://127.0.0.1:9/ -c 2 --loop", path.display()));
    assert_eq!(refused.code(), 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("2,000,000,000 messages/s over 2 sessions, but 100M"),
        "{}",
        refused.stderr
    );
    fs::write(&path, "1000,10\n").unwrap();
    let server = Server::honest();
    let run =
        run(&format!("replay {} {} -c 2 --loop -d 200ms --quiet --json -", path.display(), server.url()));
    assert_eq!(run.json()["settings"]["rate_per_s"].as_f64(), Some(2000.0));
}

#[test]
fn numbers_below_nothing_are_told_to_be_that() {
    for (arguments, reason) in [
        ("echo ws://127.0.0.1:9/ -R -5", "\"-5\" is no number"),
        ("churn ws://127.0.0.1:9/ -R -5k", "\"-5k\" is no number"),
        ("echo ws://127.0.0.1:9/ -R 1G", "is not a rate from 0.001 to 100M"),
        ("echo ws://127.0.0.1:9/ -c -1", "-1 is not in 1..=4000000"),
    ] {
        let run = run(arguments);
        assert_eq!(run.code(), 2, "{}", run.stderr);
        assert!(run.stderr.contains(reason), "{arguments}: {}", run.stderr);
    }
}

#[test]
fn a_run_in_which_nothing_is_due_passes_nothing() {
    let server = Server::honest();
    let arguments = format!("echo {} -c 1 -R 0.001 -d 200ms --warmup 0 --seed 3 --quiet", server.url());
    let run = |more: &str| run(&format!("{arguments} {more}"));
    let told = run("--json - --assert rate<1 --assert errors=0 --assert lost=0");
    let report = told.json();
    assert_eq!((told.code(), &report["nothing_was_due"]), (99, &true.into()), "{report:#}");
    let assertions = report["assertions"].as_array().unwrap();
    assert!(assertions.iter().all(|checked| checked["shown"] == "not measured"), "{report:#}");
    let table = run("").stdout;
    assert!(table.contains("no message was due in the measured time"), "{table}");
}
