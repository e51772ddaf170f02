//! `replay`: what a file says is what a server gets, and when.

mod harness;

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use harness::{Server, encode, run};

/// A file with this in it.
fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.csv");
    fs::write(&path, text).unwrap();
    (folder, path)
}

/// When a message came, its opcode and its size; by connection.
type Log = Arc<Mutex<Vec<Vec<(Instant, u8, usize)>>>>;

/// Echoes, and logs each message.
fn logging() -> (Server, Log) {
    let log = Log::default();
    let all = Arc::clone(&log);
    let server = Server::new(move |mut peer| {
        let mut own = Vec::new();
        loop {
            let frame = peer.read()?;
            if frame.opcode == 8 {
                all.lock().unwrap().push(own);
                return peer.close(&frame);
            }
            own.push((Instant::now(), frame.opcode, frame.payload.len()));
            std::io::Write::write_all(&mut peer.stream, &encode(frame.opcode, &frame.payload))?;
        }
    });
    (server, log)
}

#[test]
fn each_session_plays_the_file_in_its_time() {
    let (server, log) = logging();
    let (_folder, path) = file("gap_us,size,kind\n0,100,text\n50000,0,\n100000,30000,binary\n50000,7,text\n");
    let run = run(&format!("replay {} {} -c 3 --quiet --json -", path.display(), server.url()));
    let report = run.json();
    assert_eq!((run.code(), report["errors"]["total"].as_u64()), (0, Some(0)), "{report:#}");
    assert_eq!((&report["messages"]["answered"], &report["latency"]["count"]), (&12.into(), &12.into()));
    assert_eq!((&report["scenario"], &report["settings"]["kind"]), (&"replay".into(), &"mixed".into()));
    let log = log.lock().unwrap();
    assert_eq!(log.len(), 3);
    for session in log.iter() {
        let what: Vec<(u8, usize)> = session.iter().map(|(_, opcode, size)| (*opcode, *size)).collect();
        assert_eq!(what, [(1, 100), (2, 0), (2, 30_000), (1, 7)]);
        // A server that is held up sees a gap shrink as well, but never the whole.
        let whole = session[3].0 - session[0].0;
        assert!(whole > Duration::from_millis(150), "{whole:?}");
    }
}

#[test]
fn latency_counts_from_when_a_message_was_due() {
    // The second message of each session is answered after 300 ms; two more were due meanwhile.
    let server = Server::echo(|n, frame, _| {
        if n == 1 {
            thread::sleep(Duration::from_millis(300));
        }
        vec![(frame.opcode, frame.payload)]
    });
    let (_folder, path) = file("0,64\n10000,64\n100000,64\n100000,64\n");
    // Other work on the machine may delay a run; what is measured wrongly is wrong each time.
    let mut seen = Vec::new();
    for _ in 0..5 {
        let run = run(&format!("replay {} {} -c 1 --quiet --json -", path.display(), server.url()));
        let latency = &run.json()["latency"];
        let ms = |name: &str| latency[name].as_f64().unwrap() / 1e3;
        // 300, 200 and 100 ms, and the first at once.
        let (max, mean) = (ms("max_us"), ms("mean_us"));
        assert!(max >= 299.0 && mean >= 145.0, "{latency}");
        if max < 340.0 && mean < 200.0 {
            return;
        }
        seen.push((max, mean));
    }
    panic!("{seen:?} ms");
}

#[test]
fn a_loop_goes_round_until_its_time_is_over() {
    let (server, log) = logging();
    let (_folder, path) = file("10000,1\n20000,2\n10000,3\n");
    let run = run(&format!(
        "replay {} {} -c 8 --loop --anywhere -d 400ms --quiet --json - --assert errors=0",
        path.display(),
        server.url()
    ));
    assert_eq!(run.code(), 0, "{}", run.stdout);
    let log = log.lock().unwrap();
    for session in log.iter() {
        // Ten rounds, but for what is not due yet at a beginning in their middle.
        assert!((28..=30).contains(&session.len()), "{}", session.len());
        assert!(session.windows(2).all(|pair| pair[1].2 == pair[0].2 % 3 + 1), "in the order of the file");
    }
    let firsts: std::collections::HashSet<usize> = log.iter().map(|session| session[0].2).collect();
    assert!(firsts.len() > 1, "{firsts:?}");
}

#[test]
fn an_answer_of_the_other_kind_is_found() {
    let server = Server::echo(|_, frame, _| vec![(3 - frame.opcode, frame.payload)]);
    let (_folder, path) = file("0,0,text\n1000,0,binary\n");
    let run = run(&format!("replay {} {} -c 2 --quiet --json -", path.display(), server.url()));
    assert_eq!(run.errors("wrong_kind"), 4, "{}", run.stdout);
}

#[test]
fn a_file_that_is_wrong_is_a_matter_of_usage() {
    for (text, arguments, reason) in [
        ("gap_us,size\n5,6\n5,x\n", "", "trace.csv: line 3, column 3: the size is no number"),
        ("1,2,3\n", "", "trace.csv: line 1, column 5: the kind"),
        ("", "", "trace.csv: there is no message in it"),
        ("0,5\n", "--loop", "cannot be played in a loop"),
    ] {
        let (_folder, path) = file(text);
        let run = run(&format!("replay {} ws://127.0.0.1:9/ {arguments}", path.display()));
        assert_eq!(run.code(), 2, "{}", run.stderr);
        assert!(run.stderr.contains(reason), "{}", run.stderr);
    }
    let run = run("replay /nowhere.csv ws://127.0.0.1:9/");
    assert_eq!(run.code(), 2);
    assert!(run.stderr.contains("/nowhere.csv: No such file"), "{}", run.stderr);
}
