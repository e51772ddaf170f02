//! Fan-out by the protocol tidegate.v1: against servers that drop, double, swap, renumber, refuse and announce gaps, and
//! against the gateway itself.

mod harness;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use harness::{
    Peer, Run, Server, encode,
    gateway::{Gateway, free_port},
    run,
};
use serde_json::{Value, json};

#[derive(Default)]
struct Topic {
    offset: u64,
    /// The first of them is treated badly.
    subscribers: Vec<TcpStream>,
}

/// One message to one subscriber.
struct Delivery {
    topic: String,
    offset: u64,
    /// `text` or `base64`.
    field: &'static str,
    content: Value,
    is_victim: bool,
}

impl Delivery {
    /// As the gateway writes it.
    fn message(&self) -> String {
        self.numbered(self.offset)
    }

    /// The same under another offset.
    fn numbered(&self, offset: u64) -> String {
        let Self { topic, field, content, .. } = self;
        format!(r#"{{"op":"message","topic":"{topic}","offset":{offset},"{field}":{content}}}"#)
    }

    fn gap(&self, from: u64, to: u64) -> String {
        format!(r#"{{"op":"gap","topic":"{}","from":{from},"to":{to},"reason":"slow"}}"#, self.topic)
    }

    /// A third of the messages, to the victim: some of them however slow the machine is.
    fn is_chosen(&self) -> bool {
        self.is_victim && self.offset.is_multiple_of(3)
    }
}

/// What the server does with commands.
enum Answer {
    /// What it is asked for.
    Done,
    Refused,
}

type Topics = BTreeMap<String, Topic>;

/// Speaks the protocol. `fate` says what is sent for a delivery, `judge` what is done of what is asked for.
fn speaker(
    judge: impl Fn(&Value, &AtomicU64) -> Answer + Send + Sync + 'static,
    fate: impl Fn(&Delivery, &AtomicU64) -> Vec<String> + Send + Sync + 'static,
) -> Server {
    let topics: Mutex<Topics> = Mutex::default();
    Server::new(move |mut peer| serve(&mut peer, &topics, &judge, &fate))
}

/// Does all that it is asked for.
fn publisher(fate: impl Fn(&Delivery, &AtomicU64) -> Vec<String> + Send + Sync + 'static) -> Server {
    speaker(|_, _| Answer::Done, fate)
}

fn serve(
    peer: &mut Peer,
    topics: &Mutex<Topics>,
    judge: &impl Fn(&Value, &AtomicU64) -> Answer,
    fate: &impl Fn(&Delivery, &AtomicU64) -> Vec<String>,
) -> io::Result<()> {
    let mut out = peer.stream.try_clone()?;
    let mut tell = |text: &str| out.write_all(&encode(1, text.as_bytes()));
    tell(r#"{"op":"hello","client":"pX3v9aK2","version":1,"ping":25}"#)?;
    loop {
        let frame = peer.read()?;
        let mut topics = topics.lock().unwrap();
        if frame.opcode == 8 {
            return peer.close(&frame);
        }
        assert_eq!(frame.opcode, 1, "the protocol is text");
        let said: Value = serde_json::from_slice(&frame.payload).unwrap();
        if let Answer::Refused = judge(&said, &peer.deeds) {
            tell(
                &json!({"op": "error", "id": said["id"], "code": "busy", "message": "come again"})
                    .to_string(),
            )?;
            continue;
        }
        let name = said["topic"].as_str().unwrap().to_owned();
        let topic = topics.entry(name.clone()).or_default();
        match said["op"].as_str().unwrap() {
            "subscribe" => {
                topic.subscribers.push(peer.stream.try_clone()?);
                let (id, offset) = (&said["id"], topic.offset);
                tell(&format!(
                    r#"{{"op":"subscribed","id":{id},"topic":"{name}","epoch":"9f86d081","offset":{offset}}}"#
                ))?;
            }
            "publish" => {
                topic.offset += 1;
                let field = if said["text"].is_string() { "text" } else { "base64" };
                for (place, stream) in topic.subscribers.iter_mut().enumerate() {
                    let delivery = Delivery {
                        topic: name.clone(),
                        offset: topic.offset,
                        field,
                        content: said[field].clone(),
                        is_victim: place == 0,
                    };
                    for text in fate(&delivery, &peer.deeds) {
                        // It may have gone.
                        let _ = stream.write_all(&encode(1, text.as_bytes()));
                    }
                }
            }
            other => panic!("{other}"),
        }
    }
}

fn did(deeds: &AtomicU64) {
    deeds.fetch_add(1, Ordering::SeqCst);
}

fn short(server: &Server, more: &str) -> Run {
    run(&format!(
        "fanout {}topics --adapter tidegate -c 8 -d 500ms --warmup 0 --timeout 30s --quiet --json - {more}",
        server.url()
    ))
}

fn count(report: &Value, name: &str) -> u64 {
    report["fanout"][name].as_u64().unwrap_or_else(|| panic!("{name}: {report:#}"))
}

/// Without a warm-up, to all subscribers, with nothing else wrong than so much of one kind.
fn assert_only(run: &Run, kind: &str, expected: u64) {
    let report = run.json();
    assert!(expected > 0, "{report:#}");
    assert_eq!(
        (run.errors(kind), report["errors"]["total"].as_u64()),
        (expected, Some(expected)),
        "{report:#}"
    );
}

const LOADS: [&str; 11] = [
    "",
    "--text --depth 4",
    "-R 200",
    "--text -R 200 -t 2",
    "--topics 4",
    "--topics 8 --text -R 400 -s 27..300",
    "--topics 8 --publishers 3 --depth 3 -t 2",
    "--topics 2 --publishers 4 -t 3 --depth 2",
    "--topics 8 --publishers 3 --processes 2 -R 400",
    "--text --fill json -s 60..900 --depth 2",
    "-s 20..70000 --io epoll",
];

/// That all of it came, as one publisher (or some) of `run` wants it.
fn assert_all_came(run: &Run, more: &str) {
    let report = run.json();
    assert_eq!((run.code(), report["errors"]["total"].as_u64()), (0, Some(0)), "{more}: {report:#}");
    let (topics, publishers) = (count(&report, "topics"), count(&report, "publishers"));
    let (expected, published) = (count(&report, "expected"), count(&report, "published"));
    let each = 8 / topics;
    // What a closed loop sent at its end, of each stream as much as it may have under way.
    let at_the_end = report["settings"]["depth"].as_u64().unwrap_or(0) * publishers.max(topics);
    assert!(published > 0, "{more}: {report:#}");
    assert!((published * each..=(published + at_the_end) * each).contains(&expected), "{more}: {report:#}");
    assert!(count(&report, "complete").abs_diff(published) <= 2, "{more}: {report:#}");
    assert_eq!(report["latency"]["count"], count(&report, "complete") * each, "{more}: {report:#}");
    assert_eq!(count(&report, "to_senders") + count(&report, "to_publishers"), 0, "{more}");
}

#[test]
fn all_that_is_published_reaches_all() {
    let heard = Arc::new(Mutex::new(BTreeMap::<String, u64>::new()));
    let seen = Arc::clone(&heard);
    let server = publisher(move |delivery, _| {
        *seen.lock().unwrap().entry(delivery.topic.clone()).or_default() += 1;
        vec![delivery.message()]
    });
    for more in LOADS {
        heard.lock().unwrap().clear();
        let run = short(&server, more);
        assert_all_came(&run, more);
        let heard = heard.lock().unwrap();
        assert_eq!(heard.len() as u64, count(&run.json(), "topics"), "{more}");
        assert_eq!(heard.values().sum::<u64>(), count(&run.json(), "expected"), "{more}");
    }
}

#[test]
fn the_order_of_fields_is_the_servers() {
    let server = publisher(|delivery, _| {
        let mut message =
            json!({"op": "message", "topic": delivery.topic, "offset": delivery.offset, "new": [1]});
        message[delivery.field] = delivery.content.clone();
        vec![json!({"op": "brandnew"}).to_string(), message.to_string()]
    });
    for more in ["--depth 4", "--text -R 300 --topics 2"] {
        assert_all_came(&short(&server, more), more);
    }
}

#[test]
fn what_is_dropped_in_silence_is_lost() {
    let server = publisher(|delivery, deeds| {
        if delivery.is_chosen() {
            did(deeds);
            return Vec::new();
        }
        vec![delivery.message()]
    });
    for more in ["-R 400", "--text", "-R 800 --topics 2 -t 2"] {
        let before = server.deeds();
        let run = short(&server, &format!("{more} --timeout 2s"));
        assert_only(&run, "lost", server.deeds() - before);
        assert!(count(&run.json(), "incomplete") >= run.errors("lost"), "{}", run.stdout);
        assert_eq!(count(&run.json(), "gap"), 0);
    }
}

#[test]
fn what_is_announced_not_to_come_is_a_gap_and_nobody_waits_for_it() {
    let server = publisher(|delivery, deeds| {
        if delivery.is_chosen() {
            did(deeds);
            return vec![delivery.gap(delivery.offset, delivery.offset)];
        }
        vec![delivery.message()]
    });
    for more in ["--depth 4", "--text --topics 2 -t 2", "-R 400"] {
        let before = server.deeds();
        let run = short(&server, &format!("{more} --assert lost=0"));
        assert_eq!(run.code(), 0, "{more}: {}", run.stdout);
        assert_eq!(count(&run.json(), "incomplete"), 0, "{more}: {}", run.stdout);
        assert_only(&run, "gap", server.deeds() - before);
        assert_eq!(count(&run.json(), "gap"), run.errors("gap"));
    }
    // Of several publishers on a topic nobody knows whose messages they were: the others are waited for.
    let before = server.deeds();
    let run = short(&server, "--publishers 2 --timeout 2s");
    assert_only(&run, "gap", server.deeds() - before);
}

#[test]
fn a_gap_of_several_is_told_when_it_is_over() {
    let server = publisher(|delivery, deeds| match delivery.offset % 10 {
        5..8 if delivery.is_victim => {
            did(deeds);
            Vec::new()
        }
        8 if delivery.is_victim => {
            vec![delivery.gap(delivery.offset - 3, delivery.offset - 1), delivery.message()]
        }
        _ => vec![delivery.message()],
    });
    let run = short(&server, "-R 400 --timeout 2s");
    // The last of them may not be told of any more.
    let (gap, lost) = (run.errors("gap"), run.errors("lost"));
    assert_eq!(
        (gap + lost, run.json()["errors"]["total"].as_u64()),
        (server.deeds(), Some(server.deeds())),
        "{}",
        run.stdout
    );
    assert!(gap > 9 && gap.is_multiple_of(3) && lost <= 3, "{}", run.stdout);
}

#[test]
fn doubled_deliveries_are_duplicates_whatever_their_offset() {
    let server = publisher(|delivery, deeds| {
        let mut all = vec![delivery.message()];
        if delivery.is_chosen() {
            did(deeds);
            all.push(delivery.message());
        }
        all
    });
    assert_only(&short(&server, "--depth 4"), "duplicate", server.deeds());
}

#[test]
fn deliveries_out_of_order_are_found_and_not_lost() {
    let held = Mutex::new(None::<String>);
    let server = publisher(move |delivery, deeds| {
        if !delivery.is_victim {
            return vec![delivery.message()];
        }
        let mut held = held.lock().unwrap();
        if delivery.offset % 10 == 8 {
            *held = Some(delivery.message());
            return Vec::new();
        }
        let after = held.take();
        after.iter().for_each(|_| did(deeds));
        std::iter::once(delivery.message()).chain(after).collect()
    });
    let run = short(&server, "-R 400 --timeout 2s");
    assert!(server.deeds() > 0);
    assert_eq!(run.errors("reordered"), server.deeds(), "{}", run.stdout);
    // The last one may be held for ever.
    let lost = run.errors("lost");
    assert!(lost <= 1, "{}", run.stdout);
    assert_eq!(run.json()["errors"]["total"], server.deeds() + lost, "{}", run.stdout);
}

#[test]
fn numbers_that_contradict_what_comes_are_found() {
    // One offset for two messages.
    let server = publisher(|delivery, deeds| {
        if delivery.is_chosen() {
            did(deeds);
            return vec![delivery.numbered(delivery.offset - 1)];
        }
        vec![delivery.message()]
    });
    let run = short(&server, "-R 400");
    // The offset that no message has counts too, where a later one shows it.
    assert!(server.deeds() > 0 && run.errors("lost") == 0, "{}", run.stdout);
    let wrong = run.errors("misnumbered");
    assert!((server.deeds()..=2 * server.deeds()).contains(&wrong), "{}", run.stdout);
    assert_eq!(run.json()["errors"]["total"], wrong, "{}", run.stdout);
    // Offsets that no message has, and gaps about what has come.
    for is_gap in [false, true] {
        let skipped = AtomicU64::new(0);
        let server = publisher(move |delivery, deeds| {
            if !delivery.is_victim {
                return vec![delivery.message()];
            }
            let is_chosen = delivery.is_chosen();
            if is_chosen {
                did(deeds);
            }
            if is_gap {
                let gap = is_chosen.then(|| delivery.gap(delivery.offset, delivery.offset));
                return std::iter::once(delivery.message()).chain(gap).collect();
            }
            let more = u64::from(is_chosen);
            vec![delivery.numbered(delivery.offset + skipped.fetch_add(more, Ordering::SeqCst) + more)]
        });
        assert_only(&short(&server, "-R 400"), "misnumbered", server.deeds());
    }
}

#[test]
fn payloads_and_envelopes_are_checked() {
    type Spoil = fn(&str) -> String;
    let spoils: [(&str, Spoil); 4] = [
        // Behind the fields, so that the number is known.
        ("--text --depth 4", |message| message.replacen("\"}", "x\"}", 1)),
        ("--text -R 400", |message| message.replace("\"text\"", "\"data\"")),
        ("-R 400", |message| message.replace('}', "")),
        ("-R 400", |message| message.replace("offset", "place")),
    ];
    for (more, spoil) in spoils {
        let server = publisher(move |delivery, deeds| {
            if delivery.is_chosen() {
                did(deeds);
                return vec![spoil(&delivery.message())];
            }
            vec![delivery.message()]
        });
        assert_only(&short(&server, &format!("{more} --timeout 2s")), "corrupt", server.deeds());
    }
    // Another topic's name on it: it is not counted as come.
    let server = publisher(|delivery, deeds| {
        if delivery.is_chosen() {
            did(deeds);
            return vec![delivery.message().replace("\"topic\":\"t", "\"topic\":\"u")];
        }
        vec![delivery.message()]
    });
    let run = short(&server, "-R 400 --timeout 2s");
    let deeds = server.deeds();
    assert_eq!((run.errors("misdelivered"), run.errors("lost")), (deeds, deeds), "{}", run.stdout);
    assert_eq!(run.json()["errors"]["total"], 2 * deeds, "{}", run.stdout);
}

#[test]
fn what_the_server_refuses_is_told_with_its_words() {
    let server = speaker(
        |said, _| if said["op"] == "subscribe" { Answer::Refused } else { Answer::Done },
        |delivery, _| vec![delivery.message()],
    );
    let run = short(&server, "");
    assert_eq!((run.code(), run.errors("rejected")), (1, 8), "{}", run.stdout);
    assert!(run.took < Duration::from_secs(20), "nothing waits for them: {:?}", run.took);
    assert!(run.stderr.contains("the server says: ") && run.stderr.contains("come again"), "{}", run.stderr);

    // Of publications, each tenth.
    let asked = AtomicU64::new(0);
    let server = speaker(
        move |said, deeds| {
            if said["op"] == "publish" && asked.fetch_add(1, Ordering::SeqCst) % 10 == 9 {
                did(deeds);
                return Answer::Refused;
            }
            Answer::Done
        },
        |delivery, _| vec![delivery.message()],
    );
    let run = short(&server, "-R 400 --timeout 2s");
    let deeds = server.deeds();
    assert_eq!((run.errors("rejected"), run.errors("lost")), (deeds, 8 * deeds), "{}", run.stdout);
    assert_eq!(run.json()["errors"]["total"], 9 * deeds, "{}", run.stdout);
}

#[test]
#[ignore = "needs the gateway: TIDEGATE_BIN names it"]
fn the_gateway_itself_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for shards in [1, 3] {
        let port = free_port();
        let file = folder.path().join("tidegate.toml");
        let text = format!(
            "version = 1\nshards = {shards}\n[[listener]]\nbind = \"127.0.0.1:{port}\"\n[[route]]\npath = \"/topics/*\"\n\
             topics = {{ subscribe = [\"**\"], publish = [\"**\"] }}\n"
        );
        fs::write(&file, text).unwrap();
        let _gateway = Gateway::start(port, &["run".as_ref(), "-c".as_ref(), file.as_ref()]);
        let load = |more: &str| {
            run(&format!(
                "fanout ws://127.0.0.1:{port}/topics --adapter tidegate -c 8 -d 500ms --warmup 0 --timeout 30s --quiet \
                 --json - {more}"
            ))
        };
        for more in LOADS {
            assert_all_came(&load(more), more);
        }
        // Where it does not let anybody subscribe, it says so.
        let run = run(&format!(
            "fanout ws://127.0.0.1:{port}/nowhere --adapter tidegate -c 2 -d 500ms --quiet --json -"
        ));
        assert_eq!((run.code(), run.errors("refused")), (1, 3), "{}", run.stdout);
    }
}
