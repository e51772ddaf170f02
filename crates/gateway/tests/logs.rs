//! Where the log goes, what it says of sessions, and that nothing waits for it.

mod harness;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tidegate_config::Bind;
use tidegate_control::client::Client as Asker;

use crate::harness::{
    BACKENDS,
    client::{Client, request},
    eventually,
    frame::{CLOSE, FIN, TEXT, masked},
    gateway::{Gateway, binary, config_file, make_pipe, run_to_end},
};

const ROUTE: &str = "[[route]]\npath = '/echo'\necho = {}\n";

/// A gateway whose log is a file; dropped, it is killed.
struct Filed {
    child: Child,
    folder: TempDir,
    _config: tempfile::NamedTempFile,
}

impl Filed {
    /// `log`: its file; `None`: one in its folder.
    fn start(io: &str, log: Option<&str>) -> Filed {
        let folder = TempDir::new().expect("a folder");
        let own = folder.path().join("log").display().to_string();
        let text = format!(
            "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[admin]\nbind = 'unix:{}'\n\
             [log]\nfile = '{}'\nformat = 'json'\n{ROUTE}",
            folder.path().join("admin.sock").display(),
            log.unwrap_or(&own)
        );
        let config = config_file(&text);
        let mut command = Command::new(binary());
        command.arg("run").arg("-c").arg(config.path()).args(["--io", io, "--shards", "1"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Filed { child: child.expect("the binary starts"), folder, _config: config }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn lines(&self, file: &Path) -> Vec<Value> {
        let text = fs::read_to_string(file).unwrap_or_default();
        // The last one may be on its way.
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
            .collect()
    }

    /// Where it listens.
    fn address(&self) -> SocketAddr {
        eventually("its listener", || {
            let lines = self.lines(&self.log());
            let told =
                lines.iter().find_map(|line| line["message"].as_str()?.strip_prefix("listening on ws://"));
            told.and_then(|address| address.parse().ok())
        })
    }

    fn asker(&self) -> Asker {
        Asker { bind: Bind::Unix(self.folder.path().join("admin.sock")), token: None }
    }

    /// Lines that were lost so far.
    fn lost(&self) -> u64 {
        let metrics = self.asker().ask("GET", "/metrics", None).expect("an answer").body;
        let metrics = String::from_utf8(metrics).expect("text");
        let lost = metrics.lines().find_map(|line| line.strip_prefix("tidegate_log_lines_lost_total "));
        lost.expect("the family").parse().expect("a number")
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(id, signal).expect("it is this test's own child");
    }

    fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = eventually("its end", || self.child.try_wait().expect("a child of this process"));
        assert!(status.success(), "{status}");
    }
}

impl Drop for Filed {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn each_session_is_one_line_and_usr1_opens_the_file_anew() {
    for io in BACKENDS {
        let gateway = Filed::start(io, None);
        let address = gateway.address();
        let session = |file: &Path| {
            let mut client = Client::open(address, "/echo");
            client.exchange(TEXT, b"twelve bytes");
            let local = client.local().to_string();
            client.close(1000);
            eventually("its line", || {
                let lines = gateway.lines(file);
                let own: Vec<Value> =
                    lines.into_iter().filter(|line| line["peer"] == local.as_str()).collect();
                assert!(own.len() < 2, "{own:#?}");
                own.into_iter().next()
            })
        };
        is_whole(&session(&gateway.log()));

        let moved = gateway.folder.path().join("log.1");
        fs::rename(gateway.log(), &moved).expect("it is there");
        session(&moved);
        gateway.signal(Signal::USR1);
        eventually("a new file", || gateway.log().exists().then_some(()));
        session(&gateway.log());
        gateway.stop();
    }
}

/// The line of a session that has sent twelve bytes in a message and got them back.
fn is_whole(line: &Value) {
    assert_eq!(line["message"], "session ended");
    assert_eq!(
        (&line["code"], &line["leg"], &line["route"]),
        (&1000.into(), &"client".into(), &"/echo".into())
    );
    assert_eq!(line["reason"], "closed by the client");
    assert_eq!((&line["received_messages"], &line["sent_messages"]), (&1.into(), &1.into()));
    // The request, a message with its header and mask, and a Close.
    let bytes = line["received_bytes"].as_u64().expect("a number");
    assert!((100 + 18 + 8..400).contains(&bytes), "{line}");
    assert!(line["duration_ms"].is_u64(), "{line}");
}

#[test]
fn the_line_of_each_session_is_there_without_an_admin_listener_or_not_there_with_one() {
    for io in BACKENDS {
        let folder = TempDir::new().expect("a folder");
        let admin = format!("[admin]\nbind = 'unix:{}'\n", folder.path().join("admin.sock").display());
        for (settings, told) in [
            (String::new(), false),
            ("[log]\nsessions = true\n".to_owned(), true),
            (admin.clone(), true),
            (format!("{admin}[log]\nsessions = false\n"), false),
        ] {
            let config = format!("version = 1\n{settings}[[listener]]\nbind = '127.0.0.1:0'\n{ROUTE}");
            let gateway = Gateway::start(&config, io);
            let mut client = Client::open(gateway.address(), "/echo");
            client.exchange(TEXT, b"twelve bytes");
            client.close(1000);
            // Whoever comes behind it is told of behind it.
            let mut other = Client::open(gateway.address(), "/echo");
            other.send(&masked(FIN | 3, b"no such opcode"));
            assert_eq!(other.frame().opcode, CLOSE);
            drop(other);
            let is_end = |line: &str, code: u16| {
                line.contains("\"session ended\"") && line.contains(&format!("\"code\":{code},"))
            };
            let unusual = gateway.wait_for_log("the other one's end", |line| is_end(line, 1002));
            let log = gateway.log();
            let usual = log.iter().find(|line| is_end(line, 1000));
            assert_eq!(usual.is_some(), told, "{io}: {settings}\n{}", log.join("\n"));
            assert_eq!(unusual.contains("duration_ms"), told, "{io}: {settings}\n{unusual}");
            if let Some(line) = usual {
                is_whole(&serde_json::from_str(line).expect("JSON"));
            }
            gateway.stop();
        }
    }
}

#[test]
fn what_lines_say_of_peers_is_in_fields() {
    for io in BACKENDS {
        let folder = TempDir::new().expect("a folder");
        let (socket, gone) = (folder.path().join("admin.sock"), folder.path().join("gone.sock"));
        let config = format!(
            "version = 1\n[log]\nsessions = false\n[admin]\nbind = 'unix:{}'\n\
             [[listener]]\nbind = '127.0.0.1:0'\n[[listener]]\nbind = '127.0.0.1:0'\nproxy_protocol = ['127.0.0.0/8']\n\
             {ROUTE}[[route]]\npath = '/up'\nproxy = {{ upstreams = ['unix:{}'] }}\n\
             [[identity]]\nname = 'i'\nsecret = '0123456789abcdef0123456789abcdef'\nalgorithms = ['HS256']\n\
             [[route]]\npath = '/private'\nidentity = 'i'\necho = {{}}\n",
            socket.display(),
            gone.display()
        );
        let arguments = ["--io", io, "--shards", "1", "--log-level", "debug"];
        let gateway = Gateway::start_with(&config, &arguments);
        let [address, proxied] = gateway.addresses() else { panic!("two listeners") };
        let line = |message: &str| -> Value {
            let wanted = format!("\"message\":\"{message}\"");
            serde_json::from_str(&gateway.wait_for_log(message, |line| line.contains(&wanted))).expect("JSON")
        };
        let refused = |path: &str, fields: &str, status: u16| {
            let mut client = Client::connect(*address);
            client.send(&request(path, fields));
            assert_eq!(client.response().expect("an answer").status, status, "{io} {path}");
        };

        let mut session = Client::open(*address, "/echo");
        let asker = Asker { bind: Bind::Unix(socket.clone()), token: None };
        let listed: Value = asker.get("/sessions", &[]).expect("sessions");
        let id = listed["sessions"][0]["id"].as_str().expect("its name").to_owned();
        session.send(&masked(FIN | 3, b"no such opcode"));
        assert_eq!(session.frame().opcode, CLOSE, "{io}");
        drop(session);
        let ended = line("session ended");
        assert_eq!(
            (&ended["leg"], &ended["code"], &ended["session"], &ended["shard"]),
            (&"client".into(), &1002.into(), &id.into(), &0.into()),
            "{io}: {ended}"
        );
        assert!(ended["reason"].is_string() && ended.get("received_bytes").is_none(), "{ended}");

        refused("/up", "", 502);
        let failed = line("upstream failed");
        assert!(failed["error"].as_str().is_some_and(|error| error.contains("No such file")), "{failed}");
        assert!(failed["reason"].is_string() && failed.get("status").is_none(), "{failed}");
        let refused_there = line("request refused");
        assert_eq!((&refused_there["status"], &refused_there["route"]), (&502.into(), &"/up".into()), "{io}");

        refused("/private", "Authorization: Bearer e30.e30.e30\r\n", 401);
        let token = line("token refused");
        assert!(token["reason"].is_string() && token["route"] == "/private", "{io}: {token}");
        // A refusal of each kind names the route that its request has found, and none where it has found none.
        for (path, status, route) in
            [("/private", 401, "/private".into()), ("/echo", 426, "/echo".into()), ("/no", 404, Value::Null)]
        {
            let mut client = Client::connect(*address);
            let plain = format!("GET {path} HTTP/1.1\r\nHost: gw.test\r\n\r\n");
            client.send(&if status == 426 { plain.into_bytes() } else { request(path, "") });
            assert_eq!(client.response().expect("an answer").status, status, "{io} {path}");
            let peer = format!("\"peer\":\"{}\"", client.local());
            let told = gateway
                .wait_for_log("its refusal", |line| line.contains("request refused") && line.contains(&peer));
            let told: Value = serde_json::from_str(&told).expect("JSON");
            assert_eq!((&told["status"], &told["route"]), (&status.into(), &route), "{io}: {told}");
        }

        // What is another protocol is called so, at once: it need not have lines at all.
        for (bytes, reason) in [
            (
                &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
                "this is TLS, and this listener has no `tls`",
            ),
            (
                b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\nGET",
                "this is a PROXY header, and `proxy_protocol` does not name who sent it",
            ),
            (
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
                "this is a PROXY header, and `proxy_protocol` does not name who sent it",
            ),
        ] {
            let mut client = Client::connect(*address);
            client.send(bytes);
            assert_eq!(client.response().expect("an answer").status, 400, "{io} {reason}");
            gateway.wait_for_log(reason, |line| line.contains("request refused") && line.contains(reason));
        }

        Client::connect(*proxied).send(b"GET / HTTP/1.1\r\n\r\n");
        let refused = line("connection refused");
        assert!(refused["reason"].is_string() && refused["peer"].is_string(), "{refused}");
        gateway.stop();
    }
}

#[test]
fn lines_name_routes_and_upstreams_as_operators_know_them() {
    let nobody = || {
        let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("ws://{}", held.local_addr().expect("its address"))
    };
    let (one, two) = (nobody(), nobody());
    // It takes what comes, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let hook = format!("http://{}/", silent.local_addr().expect("its address"));
    let rest = format!(
        "[[identity]]\nname = 'callers'\nhook = {{ url = '{hook}', max_in_flight = 1, timeout = '30s' }}\n\
         [[route]]\npath = '/asks'\nidentity = 'callers'\necho = {{}}\n"
    );
    let file = |first: &str, upstreams: &str| {
        format!(
            "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[[route]]\npath = '{first}'\necho = {{}}\n\
             [[route]]\nhost = 'gw.test'\npath = '/up/*'\nproxy = {{ upstreams = [{upstreams}] }}\n{rest}"
        )
    };
    for io in BACKENDS {
        let gateway = Gateway::start(&file("/first", &format!("'{one}', '{two}'")), io);
        let failed = |lines: usize, upstream: &str| {
            let mut client = Client::connect(gateway.address());
            client.send(&request("/up/x", ""));
            assert_eq!(client.response().expect("an answer").status, 502, "{io}");
            let line = gateway.wait_for_log_behind(lines, upstream, |line| {
                line.contains("upstream failed") && line.contains(upstream)
            });
            let line: Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(
                (&line["route"], &line["upstream"], &line["address"]),
                (&"gw.test/up/*".into(), &upstream.into(), &upstream["ws://".len()..].into()),
                "{io}"
            );
        };
        failed(0, &one);
        failed(0, &two);
        // What shards say comes by a thread of its own, and may come behind what the reload says.
        eventually("all of both requests", || {
            let lines = gateway.log();
            (lines.iter().filter(|line| line.contains("request refused")).count() == 2).then_some(())
        });
        // Other routes stand before it, and of its upstreams only the second is left.
        let told = gateway.reload(&file("/zero", &format!("'{two}'")));
        assert!(told.contains("\"configuration taken over\""), "{told}");
        let before = gateway.log().iter().position(|line| *line == told).expect("it was just read");
        failed(before, &two);
        assert!(!gateway.log()[before..].iter().any(|line| line.contains(&one)), "{io}");
        let mut asking: Vec<Client> = (0..2).map(|_| Client::connect(gateway.address())).collect();
        asking.iter_mut().for_each(|client| client.send(&request("/asks", "")));
        let line = gateway.wait_for_log("a hook that is busy", |line| line.contains("hook failed"));
        let line: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(line["route"], "/asks", "{io}: {line}");
        // Its number nobody needs.
        assert!(!line["message"].as_str().expect("text").contains("route"), "{io}: {line}");
        drop(asking);
        gateway.stop();
    }
}

#[test]
fn a_full_disk_stops_nothing_and_is_counted() {
    for io in BACKENDS {
        let gateway = Filed::start(io, None);
        let address = gateway.address();
        let mut open = Client::open(address, "/echo");
        fs::remove_file(gateway.log()).expect("it is there");
        // Linux's device that is always full.
        std::os::unix::fs::symlink("/dev/full", gateway.log()).expect("a link");
        gateway.signal(Signal::USR1);
        let session = || {
            let mut client = Client::open(address, "/echo");
            client.exchange(TEXT, b"meanwhile");
            client.close(1000);
        };
        let descriptors = format!("/proc/{}/fd", gateway.child.id());
        eventually("the other file", || {
            let open = fs::read_dir(&descriptors).expect("it runs").flatten();
            let mut files = open.filter_map(|entry| fs::read_link(entry.path()).ok());
            files.any(|file| file == Path::new("/dev/full")).then_some(())
        });
        let lost = gateway.lost();
        for count in 1..=3 {
            open.exchange(TEXT, b"still here");
            session();
            eventually("the line of its session", || (gateway.lost() == lost + count).then_some(()));
        }
        open.close(1000);
        gateway.stop();
    }
}

#[test]
fn what_was_lost_on_a_full_disk_is_told_once_there_is_room() {
    let folder = TempDir::new().expect("a folder");
    let log = folder.path().join("log");
    // Linux's device that is always full, until somebody puts something else there.
    std::os::unix::fs::symlink("/dev/full", &log).expect("a link");
    let gateway = Filed::start("epoll", Some(log.to_str().expect("a path")));
    eventually("its admin listener", || {
        gateway.asker().ask("GET", "/readyz", None).ok().filter(|answer| answer.status == 200)
    });
    eventually("lost lines", || (gateway.lost() >= 3).then_some(()));
    fs::remove_file(&log).expect("the link");
    gateway.signal(Signal::USR1);
    eventually("a new file", || log.exists().then_some(()));
    // Something to say.
    let killed = gateway.asker().ask("POST", "/sessions/kill", Some(br#"{"route":"/echo"}"#));
    assert_eq!(killed.expect("an answer").status, 200);
    let told = eventually("what was lost", || {
        let lines = gateway.lines(&log);
        lines.into_iter().find(|line| line["message"].as_str().is_some_and(|text| text.contains("are lost")))
    });
    assert!(told["lines"].as_u64().expect("a number") >= 3 && told["level"] == "WARN", "{told}");
    gateway.stop();
}

#[test]
fn a_file_that_cannot_be_had_is_told() {
    let config = config_file(&format!(
        "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[log]\nfile = '/proc/none/log'\n{ROUTE}"
    ));
    let (code, _, error) = run_to_end(&["run", "-c", config.path().to_str().expect("a path")]);
    assert_eq!(code, Some(1));
    assert!(error.contains("the log cannot be written to /proc/none/log"), "{error}");
}

#[test]
fn a_pipe_is_no_file_for_a_log() {
    let folder = TempDir::new().expect("a folder");
    let pipe = folder.path().join("log");
    make_pipe(&pipe);
    let config = config_file(&format!(
        "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[log]\nfile = '{}'\n{ROUTE}",
        pipe.display()
    ));
    let file = config.path().to_str().expect("a path");
    for (arguments, expected) in [(["check", "-c", file], 78), (["run", "-c", file], 1)] {
        let (code, _, error) = run_to_end(&arguments);
        assert_eq!(code, Some(expected), "{arguments:?} {error}");
        assert!(error.contains("neither a regular file nor a character device"), "{arguments:?} {error}");
    }
}

#[test]
fn under_an_attack_the_log_keeps_its_pace_and_says_what_it_left_out() {
    for io in BACKENDS {
        let config = format!(
            "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[log]\nentries_per_second = 5\n{ROUTE}"
        );
        let gateway = Gateway::start(&config, io);
        for _ in 0..200 {
            let mut client = Client::connect(gateway.address());
            client.send(b"GET /nothing HTTP/1.1\r\nHost: gw.test\r\n\r\n");
            assert_eq!(client.response().expect("an answer").status, 404);
        }
        // Told within a second, though nothing else is to be said.
        gateway.wait_for_log("what was left out", |line| line.contains("log entries left out"));
        let told = gateway.log().iter().filter(|line| line.contains("request refused")).count();
        assert!((5..100).contains(&told), "{io}: {told} lines for 200 requests");
        // Without a file USR1 changes nothing.
        gateway.signal(Signal::USR1);
        Client::open(gateway.address(), "/echo").close(1000);
        gateway.stop();
    }
}
