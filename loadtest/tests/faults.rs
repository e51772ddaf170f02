//! Servers that misbehave: each misdeed is found, counted by its kind, and no run hangs.

mod harness;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use harness::{Frame, Run, Server, accept, encode, read_request, run, switching};

/// A short run of four sessions with four messages under way each.
fn short(server: &Server, more: &str) -> Run {
    run(&format!(
        "echo {} -c 4 --depth 4 -d 400ms --warmup 0 --timeout 1s --quiet --json - {more}",
        server.url()
    ))
}

/// Every tenth message.
fn is_tenth(n: u64) -> bool {
    n % 10 == 9
}

fn count(deeds: &AtomicU64) {
    deeds.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn an_honest_server_has_no_errors() {
    let server = Server::honest();
    for more in [
        "",
        "--text",
        "-s 0",
        "-s 1",
        "-s 5 --text",
        "-s 19",
        "-s 0..300",
        "-s 100000",
        "-s 10..70000 --text",
        "--io epoll",
        "-t 2",
    ] {
        let run = short(&server, more);
        let report = run.json();
        assert_eq!((run.code(), report["errors"]["total"].as_u64()), (0, Some(0)), "{more}: {report:#}");
        let answered = report["latency"]["count"].as_u64().unwrap();
        assert!(answered >= 16, "{more}: {answered}");
        assert_eq!(report["sessions"]["closed"], 4, "{more}");
    }
}

#[test]
fn corrupt_echoes_are_found() {
    for more in ["", "--text", "-s 20", "-s 200..400"] {
        let server = Server::echo(|n, frame, deeds| {
            let Frame { opcode, mut payload } = frame;
            if is_tenth(n) {
                count(deeds);
                // Each byte in its turn; the lowest bit keeps text text.
                let at = n as usize / 10 % payload.len();
                payload[at] ^= 1;
            }
            vec![(opcode, payload)]
        });
        let run = short(&server, more);
        assert!(server.deeds() > 0);
        assert_eq!(run.errors("corrupt"), server.deeds(), "{more}: {}", run.stdout);
        assert_eq!(run.json()["errors"]["total"], server.deeds(), "{more}: {}", run.stdout);
    }
}

#[test]
fn truncated_echoes_are_corrupt() {
    let server = Server::echo(|n, frame, deeds| {
        let Frame { opcode, mut payload } = frame;
        if is_tenth(n) {
            count(deeds);
            payload.pop();
        }
        vec![(opcode, payload)]
    });
    let run = short(&server, "-s 64");
    assert!(server.deeds() > 0);
    assert_eq!(run.errors("corrupt"), server.deeds(), "{}", run.stdout);
}

#[test]
fn dropped_messages_are_lost() {
    for size in ["64", "6"] {
        let server = Server::echo(|n, frame, deeds| {
            if is_tenth(n) {
                count(deeds);
                return vec![];
            }
            vec![(frame.opcode, frame.payload)]
        });
        let run = short(&server, &format!("-s {size}"));
        assert!(run.errors("lost") > 0);
        // One that nothing followed is not known to be passed over.
        assert_eq!(run.errors("lost") + run.errors("unanswered"), server.deeds(), "{}", run.stdout);
        assert!(run.errors("unanswered") <= 4);
        assert_eq!(run.errors("corrupt") + run.errors("reordered") + run.errors("duplicate"), 0);
    }
}

#[test]
fn doubled_messages_are_duplicates() {
    for size in ["64", "6"] {
        let server = Server::echo(|n, frame, deeds| {
            let answer = (frame.opcode, frame.payload);
            if is_tenth(n) {
                count(deeds);
                return vec![answer.clone(), answer];
            }
            vec![answer]
        });
        let run = short(&server, &format!("-s {size}"));
        assert!(server.deeds() > 0);
        assert_eq!(run.errors("duplicate"), server.deeds(), "{}", run.stdout);
        assert_eq!(run.json()["errors"]["total"], server.deeds(), "{}", run.stdout);
    }
}

#[test]
fn swapped_messages_are_reordered() {
    for size in ["64", "6"] {
        let server = Server::new(|mut peer| {
            let mut held = None;
            for n in 0.. {
                let frame = peer.read()?;
                if frame.opcode == 8 {
                    return peer.close(&frame);
                }
                let answer = encode(frame.opcode, &frame.payload);
                if is_tenth(n) {
                    held = Some(answer);
                    continue;
                }
                peer.stream.write_all(&answer)?;
                if let Some(held) = held.take() {
                    peer.did();
                    peer.stream.write_all(&held)?;
                }
            }
            Ok(())
        });
        let run = short(&server, &format!("-s {size}"));
        assert!(server.deeds() > 0);
        assert_eq!(run.errors("reordered"), server.deeds(), "{}", run.stdout);
        assert_eq!(run.errors("lost") + run.errors("duplicate") + run.errors("corrupt"), 0);
    }
}

#[test]
fn another_sessions_messages_are_misdelivered() {
    static LAST: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
    let server = Server::echo(|n, frame, deeds| {
        let mut answers = vec![(frame.opcode, frame.payload.clone())];
        // The first four bytes are the session.
        let mut last = LAST.lock().unwrap();
        let other = last.iter().find(|other| other[..4] != frame.payload[..4]).cloned();
        if let (true, Some(other)) = (is_tenth(n), other) {
            count(deeds);
            answers.push((frame.opcode, other));
        }
        if last.len() < 100 {
            last.push(frame.payload);
        }
        answers
    });
    let run = short(&server, "");
    assert!(server.deeds() > 0);
    assert_eq!(run.errors("misdelivered"), server.deeds(), "{}", run.stdout);
}

#[test]
fn another_kind_of_message_is_told() {
    let server = Server::echo(|_, frame, deeds| {
        count(deeds);
        vec![(3 - frame.opcode, frame.payload)]
    });
    let run = short(&server, "--text");
    assert_eq!(run.errors("wrong_kind"), server.deeds(), "{}", run.stdout);
}

#[test]
fn a_message_to_nothing_is_unexpected() {
    let server = Server::new(|mut peer| {
        peer.stream.write_all(&encode(2, b"welcome"))?;
        loop {
            let frame = peer.read()?;
            if frame.opcode == 8 {
                return peer.close(&frame);
            }
            peer.stream.write_all(&encode(frame.opcode, &frame.payload))?;
        }
    });
    assert_eq!(short(&server, "").errors("unexpected"), 4);
}

#[test]
fn garbage_ends_a_session() {
    let server = Server::echo(|n, frame, _| {
        let opcode = if n == 5 { 3 } else { frame.opcode };
        vec![(opcode, frame.payload)]
    });
    let run = short(&server, "");
    assert_eq!((run.code(), run.errors("garbage")), (0, 4), "{}", run.stdout);
    assert_eq!(run.json()["sessions"]["lost"], 4);
    assert_eq!(run.json()["errors"]["reasons"]["garbage"], "reserved opcode");
    // Kinds that were not met are there.
    assert_eq!(run.json()["errors"]["by_kind"]["corrupt"], 0);
    assert!(run.stderr.contains("garbage: reserved opcode"), "{}", run.stderr);
    let table = harness::run(&format!("echo {} -c 1 -d 400ms --warmup 0 --quiet", server.url())).stdout;
    let lines: Vec<&str> = table.lines().filter(|line| line.contains("garbage")).map(str::trim).collect();
    assert!(lines[0].contains("garbage 1") && !lines[0].contains("corrupt"), "{table}");
    assert_eq!(lines[1], "garbage: reserved opcode", "{table}");
}

#[test]
fn a_close_is_counted_with_its_code() {
    let server = Server::echo(|n, frame, _| match n {
        5 => vec![(8, 1011u16.to_be_bytes().to_vec())],
        6.. => vec![],
        _ => vec![(frame.opcode, frame.payload)],
    });
    let run = short(&server, "-d 30s");
    assert_eq!((run.code(), run.errors("closed")), (0, 4), "{}", run.stdout);
    assert_eq!(run.json()["errors"]["close_codes"]["1011"], 4);
    assert!(run.took < Duration::from_secs(20), "without sessions a run is over");
}

#[test]
fn an_end_without_a_close_is_told() {
    let server = Server::new(|mut peer| {
        let frame = peer.read()?;
        peer.stream.write_all(&encode(frame.opcode, &frame.payload))?;
        peer.stream.shutdown(Shutdown::Write)?;
        // Unread bytes would make a reset of it.
        peer.reader.read_to_end(&mut Vec::new()).map(|_| ())
    });
    let run = short(&server, "");
    assert_eq!((run.code(), run.errors("eof")), (0, 4), "{}", run.stdout);
}

#[test]
fn a_reset_is_told() {
    let server = Server::new(|mut peer| {
        peer.read()?;
        rustix::net::sockopt::set_socket_linger(&peer.stream, Some(Duration::ZERO))?;
        Ok(())
    });
    let run = short(&server, "");
    assert_eq!((run.code(), run.errors("reset")), (0, 4), "{}", run.stdout);
}

#[test]
fn a_server_that_says_nothing_stalls_no_run() {
    let server = Server::echo(|_, _, _| vec![]);
    let run = short(&server, "-d 10s");
    assert_eq!((run.errors("stalled"), run.errors("unanswered")), (4, 16), "{}", run.stdout);
    assert!(run.took < Duration::from_secs(8), "{:?}", run.took);
}

#[test]
fn what_could_not_be_sent_is_told() {
    // Nothing is read, so that the sockets fill up.
    let (sender, receiver) = mpsc::channel();
    let server = Server::new(move |peer| {
        let _ = sender.send(peer);
        Ok(())
    });
    let run = run(&format!(
        "echo {} -c 2 -R 200 -s 1MiB -d 500ms --warmup 0 --timeout 1s --quiet --json -",
        server.url()
    ));
    assert!(run.errors("unsent") > 0, "{}", run.stdout);
    drop(receiver);
}

#[test]
fn a_close_that_is_not_answered_is_told() {
    let server = Server::new(|mut peer| {
        loop {
            let frame = peer.read()?;
            if frame.opcode != 8 {
                peer.stream.write_all(&encode(frame.opcode, &frame.payload))?;
            }
        }
    });
    assert_eq!(short(&server, "").errors("close_timeout"), 4);
}

#[test]
fn an_end_instead_of_an_answer_to_a_close_is_no_loss() {
    let server = Server::new(|mut peer| {
        loop {
            let frame = peer.read()?;
            if frame.opcode == 8 {
                return Ok(());
            }
            peer.stream.write_all(&encode(frame.opcode, &frame.payload))?;
        }
    });
    let run = short(&server, "");
    let report = run.json();
    assert_eq!((run.errors("close_cut"), &report["errors"]["total"]), (4, &4.into()), "{report:#}");
    assert_eq!(report["sessions"]["lost"], 0, "{report:#}");
}

#[test]
fn who_goes_before_all_are_up_is_none_that_was_lost() {
    // The first that comes goes at once; the second is answered when that has been seen.
    let (gone, is_gone) = mpsc::channel();
    let (gone, is_gone) = (Mutex::new(gone), Mutex::new(is_gone));
    let count = AtomicU64::new(0);
    let server = Server::raw(move |stream, deeds| match count.fetch_add(1, Ordering::SeqCst) {
        0 => {
            let mut peer = accept(stream, Arc::clone(deeds)).unwrap();
            peer.stream.shutdown(Shutdown::Write).unwrap();
            // Until the other side has gone too.
            let _ = peer.reader.read_to_end(&mut Vec::new());
            gone.lock().unwrap().send(()).unwrap();
        }
        _ => {
            is_gone.lock().unwrap().recv().unwrap();
            let Ok(mut peer) = accept(stream, Arc::clone(deeds)) else { return };
            while let Ok(frame) = peer.read() {
                if frame.opcode == 8 {
                    let _ = peer.close(&frame);
                    return;
                }
                let _ = peer.stream.write_all(&encode(frame.opcode, &frame.payload));
            }
        }
    });
    let run = run(&format!("echo {} -c 2 -d 300ms --warmup 0 --quiet --json -", server.url()));
    let report = run.json();
    assert_eq!((run.errors("eof"), &report["sessions"]["at_start"]), (1, &1.into()), "{report:#}");
    assert_eq!(report["sessions"]["lost"], 0, "{report:#}");
}

/// A server that answers upgrades as `answer` says, and then waits for the other side to go.
fn handshakes(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Server {
    Server::raw(move |mut stream: TcpStream, _| {
        let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
        let Ok(request) = read_request(&mut reader) else { return };
        let _ = stream.write_all(answer(&request.key).as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
        let _ = reader.read_to_end(&mut Vec::new());
    })
}

#[test]
fn refused_upgrades_are_counted_by_status() {
    let server = handshakes(|_| "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".into());
    let run = short(&server, "");
    assert_eq!((run.code(), run.errors("refused")), (1, 4), "{}", run.stdout);
    assert_eq!(run.json()["errors"]["statuses"]["503"], 4);
    assert!(run.stderr.contains("no session came up"));
}

#[test]
fn wrong_answers_to_the_upgrade_are_told() {
    let other = |key: &str| switching(key).replace("Accept: ", "Accept: x");
    for (server, why) in
        [(handshakes(other), "does not answer the key"), (handshakes(|_| "SSH-2.0-x\r\n".into()), "")]
    {
        let run = short(&server, "");
        let told = run.json()["errors"]["reasons"]["handshake_invalid"].clone();
        assert!(told.as_str().is_some_and(|told| told.contains(why)), "{told}");
        assert_eq!((run.code(), run.errors("handshake_invalid")), (1, 4), "{}", run.stdout);
    }
    let server = handshakes(|key| switching(key)[..40].to_owned());
    assert_eq!(short(&server, "").errors("handshake_closed"), 4);
}

#[test]
fn an_answer_in_pieces_with_a_message_behind_it_is_read() {
    let server = Server::raw(|mut stream, _| {
        let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
        let Ok(request) = read_request(&mut reader) else { return };
        stream.set_nodelay(true).unwrap();
        let mut bytes = switching(&request.key).into_bytes();
        bytes.extend_from_slice(&encode(9, b"are you there"));
        for byte in bytes {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            thread::yield_now();
        }
        let _ = reader.read_to_end(&mut Vec::new());
    });
    let run = run(&format!("idle {} -c 3 -d 300ms --timeout 2s --quiet --json -", server.url()));
    let report = run.json();
    assert_eq!((run.code(), report["sessions"]["pings_answered"].as_u64()), (0, Some(3)), "{report:#}");
}

#[test]
fn an_upgrade_without_an_answer_times_out() {
    let server = Server::raw(|mut stream, _| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let run = short(&server, "-c 300 --pending 50");
    assert_eq!(run.code(), 1);
    assert_eq!(run.errors("handshake_timeout") + run.errors("not_up"), 300, "{}", run.stdout);
    assert!(run.took < Duration::from_secs(20), "it is given up after one time-out: {:?}", run.took);
}

#[test]
fn without_a_server_connects_are_refused() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for scenario in ["echo", "idle", "storm", "churn -d 500ms --warmup 0", "slow"] {
        let run = run(&format!("{scenario} ws://{gone} -c 5 --quiet --json -"));
        assert_eq!(run.code(), 1, "{scenario}: {}", run.stdout);
        assert!(run.errors("connect_refused") >= 5, "{scenario}: {}", run.stdout);
    }
}
