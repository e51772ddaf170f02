//! The command line from outside: exit codes, what goes to which stream, which setting beats which, and the life of
//! a running gateway from its start to its signals.

use std::{
    fs,
    io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write, pipe},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::ioctl_fionbio,
    process::{Pid, Signal, kill_process},
};
use serde_json::Value;
use tempfile::TempDir;

/// How long something may take that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

const BINARY: &str = env!("CARGO_BIN_EXE_tidegate");

/// A configuration on a port that the kernel chooses; `rest` goes on in `[limits]`.
fn config(rest: &str) -> String {
    format!(
        "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[[route]]\npath = '/echo'\necho = {{}}\n\
         [[route]]\npath = '/'\npage = {{}}\n[limits]\n{rest}\n"
    )
}

/// A folder with a configuration file in it.
fn folder(config: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    fs::write(&path, config).unwrap();
    (folder, path)
}

/// The binary, with nothing of this process's environment that it would heed.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    clean(&mut command);
    command.args(arguments);
    command
}

fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEGATE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
}

/// Exit code, standard output, standard error of a command that ends by itself.
fn finish(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    finish(command(arguments))
}

/// A running gateway; dropped, it is killed.
struct Gateway {
    child: Child,
    lines: Receiver<String>,
    /// The log so far.
    log: Vec<Value>,
}

impl Gateway {
    /// Starts one and waits until it listens.
    fn start(command: Command) -> Self {
        let mut gateway = Self::spawn(command);
        gateway.wait_for("listening on");
        gateway
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines, log: Vec::new() }
    }

    /// The first line of the log with this in its message, now or later.
    fn wait_for(&mut self, message: &str) -> Value {
        let of = |line: &Value| line["message"].as_str().is_some_and(|text| text.contains(message));
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.log.iter().find(|line| of(line)) {
                return line.clone();
            }
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.log.push(serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}")));
                }
                Err(_) => panic!("no `{message}` in {:#?}", self.log),
            }
        }
    }

    fn address(&mut self) -> SocketAddr {
        let line = self.wait_for("listening on");
        let text = line["message"].as_str().unwrap();
        let address = text.split("ws://").nth(1).unwrap().split(' ').next().unwrap();
        address.parse().unwrap_or_else(|_| panic!("{text}"))
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Waits for the end: exit code, standard output, the log's messages.
    fn end(mut self) -> (Option<i32>, String, Vec<String>) {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "it does not end: {:#?}", self.log);
            thread::sleep(Duration::from_millis(5));
        };
        let mut stdout = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        self.log.extend(self.lines.iter().map(|line| serde_json::from_str(&line).unwrap()));
        let message = |line: &Value| line["message"].as_str().unwrap_or_default().to_owned();
        (status.code(), stdout, self.log.iter().map(message).collect())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An opened WebSocket session: RFC 6455's own key and answer.
fn open<S: Read + Write>(mut stream: S, path: &str) -> S {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: gw.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream
            .read_exact(&mut byte)
            .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(&head)));
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    stream
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a masked text of "tide" and reads it back.
fn echo(stream: &mut (impl Read + Write)) {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![0x81, 0x84, 1, 2, 3, 4];
    frame.extend(b"tide".iter().zip(mask).map(|(byte, key)| byte ^ key));
    stream.write_all(&frame).unwrap();
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"\x81\x04tide");
}

/// Reads an unmasked Close; gives its code.
fn read_close(stream: &mut impl Read) -> u16 {
    let mut header = [0; 2];
    stream.read_exact(&mut header).unwrap();
    assert_eq!(header[0], 0x88, "{header:x?}");
    let mut payload = vec![0; usize::from(header[1])];
    stream.read_exact(&mut payload).unwrap();
    u16::from_be_bytes([payload[0], payload[1]])
}

#[test]
fn help_and_version_are_data() {
    for (arguments, expected) in [
        (&["--help"][..], "Usage: tidegate"),
        (&["-h"], "Usage: tidegate"),
        (&["help", "run"], "--shards <N>"),
        (&["run", "--help"], "TIDEGATE_IO"),
        (&["--version"], concat!("tidegate ", env!("CARGO_PKG_VERSION"), "\n")),
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(stdout.contains(expected), "{arguments:?}: {stdout}");
    }
}

/// Nobody must take what is cut off for whole, nor a check for one that was told.
#[test]
fn output_that_cannot_be_written_is_a_fault_and_one_that_nobody_reads_is_none() {
    let (_folder, path) = folder(&config(""));
    let path = path.to_str().unwrap();
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    for arguments in [
        &["check", "-c", path][..],
        &["-t", "-c", path],
        &["doctor"],
        &["completions", "bash"],
        &["--help"],
        &["help", "run"],
        &["--version"],
    ] {
        let mut unwritten = command(arguments);
        unwritten.stdout(full());
        let (code, _, stderr) = finish(unwritten);
        assert_eq!(code, Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("tidegate: standard output cannot be written: No space"), "{stderr}");
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let mut unread = command(arguments);
        unread.stdout(writer);
        let (code, _, stderr) = finish(unread);
        // What the machine lacks is a fault of its own.
        assert!(code == Some(0) || arguments == ["doctor"], "{arguments:?}: {code:?} {stderr}");
        assert_eq!(stderr, "", "{arguments:?}");
    }
}

#[test]
fn every_flag_is_documented() {
    let document = include_str!("../../../docs/CONFIG.md");
    let (_, help, _) = run(&["run", "--help"]);
    let words = help.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_')));
    let flags: Vec<&str> = words
        .filter(|word| word.starts_with("--") && word.len() > 2 || word.starts_with("TIDEGATE_"))
        .collect();
    assert!(flags.len() >= 12, "{flags:?}");
    for flag in flags {
        assert!(flag == "--help" || document.contains(&format!("{flag} ")), "{flag}");
    }
}

#[test]
fn usage_is_exit_code_2() {
    for (arguments, expected) in [
        (&["serve"][..], "unrecognized subcommand"),
        (&["run", "--io", "kqueue"], "possible values"),
        (&["--shards", "many"], "1 to 1024"),
        (&["--bind", "localhost:80"], "did you mean `127.0.0.1:80`?"),
        (&["--bind", "[::1]:80", "--bind", "[::]:80"], "overlaps with --bind [::1]:80"),
        (&["check"], "--config <FILE>"),
        (&["-t"], "-c FILE"),
        (&["run", "--nonsense"], "--nonsense"),
        (
            &["sessions", "kill"],
            "<ID|--route <ROUTE>|--upstream <UPSTREAM>|--address <ADDRESS>|--user <NAME>>",
        ),
        (&["sessions", "kill", "0-1", "--user", "ada"], "cannot be used with"),
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
}

#[test]
fn check_says_what_is_valid_and_binds_nothing() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = config("").replace("127.0.0.1:0", &holder.local_addr().unwrap().to_string());
    let (_folder, path) = folder(&taken);
    let path = path.to_str().unwrap();
    let mut by_environment = command(&["check"]);
    by_environment.env("TIDEGATE_CONFIG", path);
    for checked in [run(&["check", "-c", path]), run(&["-t", "-c", path]), finish(by_environment)] {
        assert_eq!(checked, (Some(0), format!("{path} is valid: 1 listener, 2 routes\n"), String::new()));
    }
}

#[test]
fn check_names_every_mistake() {
    let (_folder, path) =
        folder("version = 1\n[limits]\nhead_byte = 1\n[[listener]]\nbind = '127.0.0.1:0'\n");
    let path = path.to_str().unwrap();
    let (code, stdout, stderr) = run(&["check", "-c", path]);
    let expected = format!(
        "{path}:1:1: there is no route: add a [[route]] with `path = \"/echo\"` and `echo = {{}}`\n\
         1 | version = 1\n  | ^\n\
         {path}:3:1: unknown key `head_byte` in [limits] (did you mean `head_bytes`?)\n\
         3 | head_byte = 1\n  | ^^^^^^^^^\n"
    );
    assert_eq!((code, stdout, stderr), (Some(78), String::new(), expected));
    let (code, stdout, stderr) = run(&["check", "-c", "/nonexistent/t.toml"]);
    assert_eq!((code, stdout.as_str()), (Some(78), ""));
    assert_eq!(stderr, "/nonexistent/t.toml: there is no such file\n");
}

#[test]
fn check_looks_whether_there_can_be_a_log_and_makes_none() {
    let (folder, path) = folder("");
    let log = folder.path().join("none/log");
    fs::write(&path, format!("{}[log]\nfile = '{}'\n", config(""), log.display())).unwrap();
    let path = path.to_str().unwrap();
    let (code, stdout, stderr) = run(&["check", "-c", path]);
    assert_eq!((code, stdout.as_str()), (Some(78), ""));
    let headline = format!("{path}:13:8: {}: its folder does not exist\n13 | file = '", log.display());
    assert!(stderr.starts_with(&headline), "{stderr}");
    fs::create_dir(folder.path().join("none")).unwrap();
    let checked = run(&["check", "-c", path]);
    assert_eq!(checked, (Some(0), format!("{path} is valid: 1 listener, 2 routes\n"), String::new()));
    assert!(!log.exists());
}

#[test]
fn check_looks_whether_the_admin_sockets_folder_is_there_and_what_runs_may_make_it() {
    let (folder, path) = folder("");
    let socket = folder.path().join("none/a.sock");
    let checked = |socket: &Path| {
        fs::write(&path, format!("{}[admin]\nbind = 'unix:{}'\n", config(""), socket.display())).unwrap();
        run(&["check", "-c", path.to_str().unwrap()])
    };
    let headline =
        |socket: &Path, why: &str| format!("{}:13:8: {}: {why}\n13 | ", path.display(), socket.display());
    let (code, stdout, stderr) = checked(&socket);
    assert_eq!((code, stdout.as_str()), (Some(78), ""));
    assert!(stderr.starts_with(&headline(&socket, "its folder does not exist")), "{stderr}");
    fs::create_dir(folder.path().join("none")).unwrap();
    let valid = format!("{} is valid: 1 listener, 2 routes\n", path.display());
    assert_eq!(checked(&socket), (Some(0), valid.clone(), String::new()));
    assert!(!socket.exists());
    let runtime = Path::new("/run/of a service that does not run/a.sock");
    let (code, stdout, stderr) = checked(runtime);
    assert_eq!((code, stdout), (Some(0), valid));
    let why = "its folder does not exist now: the gateway does not start without it";
    assert!(stderr.contains(&headline(runtime, why)), "{stderr}");
}

#[test]
fn check_refuses_the_sockets_and_logs_that_run_refuses() {
    let (folder, path) = folder("");
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("file"), "precious").unwrap();
    fs::create_dir(at("sub")).unwrap();
    symlink(folder.path(), at("link")).unwrap();
    let listener = |name: &str| format!("[[listener]]\nbind = 'unix:{}'\n", at(name));
    let admin = |name: &str| format!("[admin]\nbind = 'unix:{}'\n", at(name));
    let log = |name: &str| format!("[log]\nfile = '{}'\n", at(name));
    let own = path.file_name().and_then(|name| name.to_str()).unwrap();
    for (rest, why) in [
        (listener("none/a.sock"), "none/a.sock: its folder does not exist"),
        (listener("file"), "file: there is a file that is not a socket"),
        (listener("sub"), "sub: there is a file that is not a socket"),
        (admin("file"), "file: there is a file that is not a socket"),
        (listener("a.sock") + &listener("sub/../a.sock"), "sub/../a.sock: an earlier listener"),
        (listener("a.sock") + &listener("link/a.sock"), "link/a.sock: an earlier listener"),
        (listener("a.sock") + &admin("sub/../a.sock"), "sub/../a.sock: an earlier listener"),
        ("[[listener]]\nbind = '[fe80::1]:8080'\n".to_owned(), "like [fe80::1%2]:8080"),
        (admin("a.sock") + &log("a.sock"), "a.sock: it is the socket of a listener"),
        (listener("a.sock") + &log("link/a.sock"), "link/a.sock: it is the socket of a listener"),
        (log(own), "it is the configuration itself"),
        (log(&format!("link/{own}")), "it is the configuration itself"),
    ] {
        let text = config("") + &rest;
        fs::write(&path, &text).unwrap();
        let path = path.to_str().unwrap();
        let (code, stdout, stderr) = run(&["check", "-c", path]);
        assert_eq!((code, stdout.as_str()), (Some(78), ""), "{rest}{stderr}");
        assert!(stderr.contains(why) && stderr.lines().count() == 3, "{rest}{stderr}");
        let (code, _, stderr) = run(&["run", "-c", path]);
        assert!(matches!(code, Some(1 | 78)) && stderr.contains("\"ERROR\""), "{rest}{stderr}");
        assert_eq!((fs::read_to_string(path).unwrap(), Path::new(&at("a.sock")).exists()), (text, false));
    }
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "precious");
    // What is in another folder is another socket.
    fs::write(&path, config("") + &listener("a.sock") + &admin("sub/a.sock") + &log("sub/log")).unwrap();
    let (code, _, stderr) = run(&["check", "-c", path.to_str().unwrap()]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_bad_configuration_is_not_run() {
    let (_folder, path) = folder(&config("head_byte = 1"));
    let path = path.to_str().unwrap();
    let headline = format!("{path}:11:1: unknown key `head_byte` in [limits] (did you mean `head_bytes`?)");
    for arguments in [&["-c", path][..], &["run", "-c", path], &["run", "-c", path, "--log", "json"]] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(78), "", 1), "{stderr}");
        let line: Value = serde_json::from_str(&stderr).unwrap();
        assert_eq!(
            (&line["level"], &line["line"], &line["column"]),
            (&"ERROR".into(), &11.into(), &1.into())
        );
        assert!(line["message"].as_str().unwrap().ends_with(&headline), "{line}");
    }
    let (code, _, stderr) = run(&["-c", path, "--log", "text"]);
    assert_eq!((code, stderr), (Some(78), format!("{headline}\n11 | head_byte = 1\n   | ^^^^^^^^^\n")));
}

/// What is hardly meant is told, and neither refused nor shown with its key.
#[test]
fn warnings_are_told_and_stop_nothing() {
    let keys = "[[route]]\npath = '/publish'\n\
                publish = { publish = ['**'], keys = [{ name = 'a', key = 's3cret-s3cret-s3cret' }] }\n";
    let (_folder, path) = folder(&format!("{}{keys}", config("")));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let path = path.to_str().unwrap();
    let headline = format!(
        "{path}:14:59: this file holds a key, and its mode 0644 lets others read or change it: use `key_file`, or chmod 640"
    );
    let (code, stdout, stderr) = run(&["check", "-c", path]);
    assert_eq!((code, stdout), (Some(0), format!("{path} is valid: 1 listener, 3 routes\n")));
    assert!(stderr.starts_with(&format!("warning: {headline}\n14 | publish = ")), "{stderr}");
    assert!(!stderr.contains("s3cret") && stderr.contains("key = **********************"), "{stderr}");

    let mut gateway = Gateway::start(command(&["-c", path]));
    let warning = gateway.wait_for("configuration: ");
    assert_eq!(warning["message"], format!("configuration: {headline}"));
    assert_eq!((&warning["level"], &warning["line"]), (&"WARN".into(), &14.into()));
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.end().0, Some(0));
}

/// A standard error that takes nothing, and that nobody reads: a pipe that is full.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    ioctl_fionbio(&writer, true).unwrap();
    for length in [4096, 1] {
        while writer.write(&vec![b'.'; length]).is_ok() {}
    }
    ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

#[test]
fn what_is_not_run_ends_though_nobody_reads_why() {
    let (_folder, bad) = folder(&config("head_byte = 1"));
    let (_folder, small) = folder(&config("max_sessions = 2"));
    let (bad, small) = (bad.to_str().unwrap(), small.to_str().unwrap());
    for (arguments, expected) in [
        (&["run", "-c", bad, "--log", "text"][..], 78),
        (&["run", "-c", bad, "--log", "json"], 78),
        (&["run", "-c", small, "--shards", "3"], 2),
        (&["run", "--bind", "192.0.2.1:0", "--log", "text"], 1),
    ] {
        let (_unread, writer) = full_pipe();
        let mut command = command(arguments);
        let child = command.stderr(writer).spawn().unwrap();
        let gateway = Gateway { child, lines: channel().1, log: Vec::new() };
        assert_eq!(gateway.end().0, Some(expected), "{arguments:?}");
    }
}

#[test]
fn problems_are_told_up_to_20() {
    let (_folder, path) = folder(&config(&"colour = 1\n".repeat(1000)));
    let path = path.to_str().unwrap();
    for arguments in
        [&["check", "-c", path][..], &["doctor", "-c", path], &["run", "-c", path, "--log", "text"]]
    {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stdout.as_str()), (Some(78), ""), "{arguments:?}");
        assert_eq!(stderr.matches(path).count(), 20, "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().last(), Some("... and 980 more"), "{arguments:?}");
    }
    let (_, _, stderr) = run(&["run", "-c", path, "--log", "json"]);
    assert_eq!(stderr.lines().count(), 21, "{stderr}");
    assert!(stderr.lines().last().unwrap().contains("bad configuration: ... and 980 more"), "{stderr}");
}

#[test]
fn a_file_does_not_talk_to_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("\u{1b}[31m\u{9b}.toml");
    let bad = config("colour = '\u{9b}31m\u{202e}' # \u{1b}[31m");
    for (name, text) in [("check", &config("")), ("check", &bad), ("doctor", &bad), ("run", &bad)] {
        fs::write(&path, text).unwrap();
        let mut command = command(&[name, "-c", path.to_str().unwrap()]);
        command.env("TIDEGATE_LOG", "text");
        let (_, stdout, stderr) = finish(command);
        let said = stdout + &stderr;
        assert!(said.contains("\\u{1b}[31m\\u{9b}.toml"), "{name}: {said:?}");
        let raw = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!said.contains(raw), "{name}: {said:?}");
    }
}

#[test]
fn the_embedded_default_serves_page_and_echo_until_a_signal() {
    for backend in ["uring", "epoll"] {
        let mut gateway = Gateway::start(command(&["--bind", "127.0.0.1:0", "--io", backend]));
        let chosen = gateway.wait_for("backend chosen");
        assert_eq!(chosen["backend"], backend);
        assert!(!chosen["reason"].as_str().unwrap().is_empty());
        assert!(gateway.wait_for("shards start")["shards"].as_u64().unwrap() >= 1);
        let address = gateway.address();

        let mut page = connect(address);
        write!(page, "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        page.read_to_string(&mut response).unwrap();
        assert!(
            response.starts_with("HTTP/1.1 200 ") && response.contains("<title>Tidegate</title>"),
            "{response}"
        );
        drop(page);

        let mut session = open(connect(address), "/echo");
        echo(&mut session);
        gateway.signal(Signal::INT);
        assert_eq!(read_close(&mut session), 1001);
        // Its answer, masked with zeros, and the end of the connection: then nothing holds the gateway any more.
        session.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]).unwrap();
        drop(session);
        let (code, stdout, log) = gateway.end();
        assert_eq!((code, stdout.as_str()), (Some(0), ""), "{log:#?}");
        assert_eq!(log.last().unwrap(), "tidegate has ended");
    }
}

#[test]
fn a_hangup_without_a_file_is_told_and_changes_nothing() {
    let mut gateway = Gateway::start(command(&["--bind", "127.0.0.1:0"]));
    let mut session = open(connect(gateway.address()), "/echo");
    gateway.signal(Signal::HUP);
    let told = gateway.wait_for("HUP, and there is no configuration file");
    assert_eq!(told["level"], "WARN");
    echo(&mut session);
    echo(&mut open(connect(gateway.address()), "/echo"));
    gateway.signal(Signal::INT);
    assert_eq!(read_close(&mut session), 1001);
    drop(session);
    assert_eq!(gateway.end().0, Some(0));
}

#[test]
fn the_second_signal_does_not_wait() {
    let (_folder, path) = folder(&config("close_timeout = '10m'\nping_interval = '0s'"));
    let mut gateway = Gateway::start(command(&["-c", path.to_str().unwrap()]));
    let mut session = open(connect(gateway.address()), "/echo");
    gateway.signal(Signal::INT);
    gateway.wait_for("asked to end");
    // A peer that does not answer the Close: the gateway goes on waiting.
    assert_eq!(read_close(&mut session), 1001);
    assert!(gateway.child.try_wait().unwrap().is_none());
    // Not at once: such a signal would count as the first one, passed on.
    thread::sleep(Duration::from_millis(350));
    gateway.signal(Signal::INT);
    let (code, _, log) = gateway.end();
    assert_eq!(code, Some(0), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("ending at once")));
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let file = format!("io = 'uring'\nshards = 2\n{}", config("")).replace("version = 1\n", "");
    let (_folder, path) = folder(&format!("version = 1\n{file}"));
    let path = path.to_str().unwrap();
    let start = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = command(arguments);
        command.envs(environment.iter().copied());
        let mut gateway = Gateway::start(command);
        let backend = gateway.wait_for("backend chosen")["backend"].as_str().unwrap().to_owned();
        let shards = gateway.wait_for("shards start")["shards"].as_u64().unwrap();
        (backend, shards)
    };
    let set = |io, shards| [("TIDEGATE_CONFIG", path), ("TIDEGATE_IO", io), ("TIDEGATE_SHARDS", shards)];
    assert_eq!(start(&["-c", path], &[]), ("uring".to_owned(), 2));
    assert_eq!(start(&["run"], &set("epoll", "1")), ("epoll".to_owned(), 1));
    assert_eq!(start(&["run", "--shards", "3"], &set("epoll", "1")), ("epoll".to_owned(), 3));
    assert_eq!(start(&["--io", "epoll"], &set("uring", "2")), ("epoll".to_owned(), 2));
    assert_eq!(start(&["-c", path], &set("", "")), ("uring".to_owned(), 2));
}

#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    let (_, help, _) = run(&["run", "--help"]);
    let words = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names: Vec<&str> = words.filter(|word| word.starts_with("TIDEGATE_")).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    let empty = |arguments: &[&str]| {
        let mut command = command(arguments);
        command.envs(names.iter().map(|name| (name, "")));
        command
    };
    let mut gateway = Gateway::start(empty(&["--bind", "127.0.0.1:0"]));
    echo(&mut open(connect(gateway.address()), "/echo"));
    let (code, _, stderr) = finish(empty(&["doctor"]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let (code, _, stderr) = finish(empty(&["check"]));
    assert!(code == Some(2) && stderr.contains("--config <FILE>"), "{stderr}");
    // An argument that is empty is a mistake nevertheless.
    assert_eq!(finish(empty(&["run", "--log", ""])).0, Some(2));
}

#[test]
fn a_port_in_use_is_a_fault_though_it_could_be_shared() {
    let (_folder, path) = folder(&config(""));
    let path = path.to_str().unwrap();
    let mut first = Gateway::start(command(&["-c", path, "--shards", "2"]));
    let address = first.address().to_string();
    for shards in ["1", "2"] {
        let (code, stdout, stderr) = run(&["-c", path, "--shards", shards, "--bind", &address]);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
        let expected = format!("cannot listen on {address}: Address already in use (os error 98); ");
        assert!(stderr.contains(&expected) && stderr.contains("`ss -ltnp`"), "{stderr}");
    }
    echo(&mut open(connect(first.address()), "/echo"));
}

/// Connections whose refusals are logged.
fn make_it_log(address: SocketAddr, lines: usize) {
    for _ in 0..lines {
        let mut stream = connect(address);
        stream.write_all(b"GET /nowhere HTTP/1.1\r\nHost: gw.test\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 404 "), "{}", String::from_utf8_lossy(&answer));
    }
}

/// An address that nobody else has for now, for a gateway whose log is not read.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Waits until the gateway accepts, and opens a session.
fn open_soon(address: SocketAddr) -> TcpStream {
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < until, "it does not listen");
        thread::sleep(Duration::from_millis(5));
    }
    open(connect(address), "/echo")
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let (_folder, path) = folder(&config(""));
    for gone in [true, false] {
        let address = free_address();
        let mut child =
            command(&["-c", path.to_str().unwrap(), "--bind", &address.to_string()]).spawn().unwrap();
        let mut session = open_soon(address);
        // Either nobody can read any more, or nobody does until the pipe is full (64 KiB).
        let stderr = child.stderr.take().unwrap();
        let _unread = (!gone).then_some(stderr);
        make_it_log(address, 1000);
        echo(&mut session);
        let gateway = Gateway { child, lines: channel().1, log: Vec::new() };
        gateway.signal(Signal::INT);
        assert_eq!(read_close(&mut session), 1001, "gone: {gone}");
        session.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(gateway.end().0, Some(0), "gone: {gone}");
    }
}

/// The kernel lets go of a killed ring's sockets a little after the process is gone.
#[test]
fn a_killed_gateway_is_followed_by_another_at_once() {
    let (_folder, path) = folder(&config(""));
    let path = path.to_str().unwrap();
    for io in ["uring", "epoll"] {
        let mut first = Gateway::start(command(&["-c", path, "--io", io, "--shards", "2"]));
        let address = first.address();
        let mut sessions: Vec<TcpStream> = (0..500).map(|_| open(connect(address), "/echo")).collect();
        sessions.iter_mut().for_each(echo);
        first.signal(Signal::KILL);
        assert_eq!(first.end().0, None);
        let bind = address.to_string();
        let mut next = Gateway::start(command(&["-c", path, "--io", io, "--bind", &bind]));
        assert_eq!(next.address(), address);
        echo(&mut open(connect(address), "/echo"));
    }
}

#[test]
fn every_listener_is_logged_and_serves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.sock");
    let bind = format!("unix:{}", path.display());
    let arguments = ["--bind", "127.0.0.1:0", "--bind", "[::1]:0", "--bind", &bind, "--shards", "2"];
    let mut gateway = Gateway::start(command(&arguments));
    gateway.wait_for(&format!("listening on {bind}"));
    let six = gateway.wait_for("ws://[::1]:")["message"].as_str().unwrap().to_owned();
    let six = six.split("ws://").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    echo(&mut open(connect(gateway.address()), "/echo"));
    echo(&mut open(connect(six), "/echo"));
    // Both shards accept from the one unix socket.
    for _ in 0..8 {
        echo(&mut open(UnixStream::connect(&path).unwrap(), "/echo"));
    }
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.end().0, Some(0));
    assert!(!path.exists());
}

/// Runs the gateway below a limit of this many descriptors.
fn limited(descriptors: u32, path: &Path, arguments: &str) -> Command {
    let mut command = Command::new("sh");
    clean(&mut command);
    let script = format!("ulimit -n {descriptors} && exec \"$0\" -c \"$1\" {arguments}");
    command.args(["-c", &script, BINARY, path.to_str().unwrap()]);
    command
}

#[test]
fn descriptors_must_suffice_for_the_sessions_that_are_asked_for() {
    let (_folder, path) = folder(&config("max_sessions = 1000"));
    let (code, stdout, stderr) = finish(limited(500, &path, "--shards 1"));
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("max_sessions = 1000 needs 1113 descriptors (one each"), "{stderr}");
    assert!(stderr.contains("limit of this process is 500") && stderr.contains("at most 387"), "{stderr}");

    // As many as fit, where no number was asked for.
    let (_folder, path) = folder(&config(""));
    let mut gateway = Gateway::start(limited(500, &path, "--shards 1"));
    let warning = gateway.wait_for("fewer sessions than the default");
    assert_eq!((&warning["sessions"], &warning["level"]), (&387.into(), &"WARN".into()));

    let proxied =
        format!("{}[[route]]\npath = '/p'\nproxy = {{ upstreams = ['ws://127.0.0.1:1'] }}\n", config(""));
    let (_folder, path) = folder(&proxied);
    let mut gateway = Gateway::start(limited(500, &path, "--shards 1"));
    assert_eq!(gateway.wait_for("fewer sessions than the default")["sessions"], 193);
}

#[test]
fn the_limit_that_is_asked_for_suffices() {
    let (_folder, path) = folder(&config(""));
    for shards in ["1", "3"] {
        let arguments = format!("--bind 127.0.0.1:0 --shards {shards}");
        let (code, _, stderr) = finish(limited(30, &path, &arguments));
        assert_eq!(code, Some(1), "{stderr}");
        assert!(!stderr.contains("at most 0"), "{stderr}");
        let least = stderr.split("raise it to at least ").nth(1).unwrap().split(' ').next().unwrap();
        let least: u32 = least.parse().unwrap();
        let mut gateway = Gateway::start(limited(least, &path, &arguments));
        echo(&mut open(connect(gateway.address()), "/echo"));
        let (code, _, stderr) = finish(limited(least - 1, &path, &arguments));
        assert_eq!(code, Some(1), "{stderr}");
    }
}

#[test]
fn the_soft_limit_of_descriptors_is_raised() {
    let mut command = Command::new("sh");
    clean(&mut command);
    command.args(["-c", "ulimit -Sn 64 && exec \"$0\" --bind 127.0.0.1:0 --shards 1", BINARY]);
    let mut gateway = Gateway::start(command);
    let limits = fs::read_to_string(format!("/proc/{}/limits", gateway.child.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
    let sessions: Vec<TcpStream> = (0..100).map(|_| open(connect(gateway.address()), "/echo")).collect();
    sessions.into_iter().for_each(|mut session| echo(&mut session));
}

#[test]
fn shards_are_pinned_to_cores_of_their_own() {
    let mut gateway = Gateway::start(command(&["--bind", "127.0.0.1:0"]));
    let started = gateway.wait_for("shards start");
    let mut cores = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", gateway.child.id())).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|value| value.trim().to_owned())
                .unwrap()
        };
        if field("Name:").starts_with("shard-") {
            cores.push(field("Cpus_allowed_list:"));
        }
    }
    assert_eq!(cores.len() as u64, started["shards"].as_u64().unwrap());
    if started["pinned"] == true {
        cores.sort();
        cores.dedup();
        assert_eq!(cores.len() as u64, started["shards"].as_u64().unwrap(), "{cores:?}");
        assert!(cores.iter().all(|core| core.parse::<usize>().is_ok()), "{cores:?}");
    }
}

/// A gateway whose upstream, another one, is given by name.
#[test]
fn upstream_names_are_resolved() {
    let mut upstream = Gateway::start(command(&["--bind", "127.0.0.1:0"]));
    let port = upstream.address().port();
    let proxied = format!(
        "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n\
         [[route]]\npath = '/echo'\nproxy = {{ upstreams = ['ws://localhost:{port}'] }}\n\
         [[route]]\npath = '/gone'\nproxy = {{ upstreams = ['ws://tidegate.invalid'] }}\n"
    );
    let (_folder, path) = folder(&proxied);
    let mut gateway = Gateway::start(command(&["-c", path.to_str().unwrap()]));
    echo(&mut open(connect(gateway.address()), "/echo"));
    let resolved = gateway.wait_for("upstream name resolved");
    assert_eq!(resolved["name"], "localhost");
    assert!(resolved["addresses"].as_str().unwrap().contains(&format!("127.0.0.1:{port}")));

    // RFC 6761 §6.4: never a name.
    assert_eq!(gateway.wait_for("cannot be resolved")["name"], "tidegate.invalid");
    let mut refused = connect(gateway.address());
    let head = "GET /gone HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    refused.write_all(head.as_bytes()).unwrap();
    let mut status = [0; 12];
    refused.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 502");
}

#[test]
fn logs_are_text_or_json_and_as_much_as_asked_for() {
    let mut quiet = Gateway::spawn(command(&["--bind", "127.0.0.1:0", "--log-level", "error"]));
    let until = Instant::now() + PATIENCE;
    // It runs and says nothing: its threads show that it has started.
    let shards = |gateway: &Gateway| {
        let tasks = fs::read_dir(format!("/proc/{}/task", gateway.child.id())).unwrap();
        let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.starts_with("signals")).count()
    };
    while shards(&quiet) == 0 {
        assert!(Instant::now() < until && quiet.child.try_wait().unwrap().is_none());
        thread::sleep(Duration::from_millis(5));
    }
    quiet.signal(Signal::INT);
    assert_eq!(quiet.end(), (Some(0), String::new(), Vec::new()));

    let mut text = command(&["--bind", "192.0.2.1:0", "--log", "text"]);
    text.env("NO_COLOR", "1");
    let (code, stdout, stderr) = finish(text);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(
        last.ends_with("ERROR cannot listen on 192.0.2.1:0: this machine has no such address"),
        "{stderr}"
    );
    assert!(!stderr.contains('\u{1b}'));
}

#[test]
fn doctor_reports_on_standard_output() {
    let (code, stdout, stderr) = run(&["doctor"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let line = |name: &str| {
        let line = stdout.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("no {name}: {stdout}")).to_owned()
    };
    for name in [
        "tidegate ",
        "kernel ",
        "self-test ",
        "seccomp ",
        "locked memory ",
        "backend ",
        "cores ",
        "sessions ",
    ] {
        line(name);
    }
    assert!(line("descriptors ").contains("raised to the hard one"));
    assert!(stdout.contains("sessions answered here") && stdout.contains("sessions proxied"));

    let (_folder, path) = folder(&config("max_sessions = 99_000_000"));
    let (code, stdout, stderr) = run(&["doctor", "-c", path.to_str().unwrap()]);
    assert_eq!((code, stderr.as_str()), (Some(1), ""), "{stdout}");
    assert!(stdout.contains("max_sessions = 99000000 needs"), "{stdout}");
    fs::write(&path, "version = 2").unwrap();
    let (code, stdout, stderr) = run(&["doctor", "-c", path.to_str().unwrap()]);
    assert_eq!((code, stdout.as_str()), (Some(78), ""), "{stderr}");
}

#[test]
fn doctor_judges_what_would_run() {
    let (_folder, path) = folder(&config("max_sessions = 1"));
    let (code, stdout, stderr) = run(&["doctor", "-c", path.to_str().unwrap()]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert!(stdout.contains(": 1 shard,") && stdout.contains(" 1 as configured: "), "{stdout}");

    // Flags and variables as those of `run`.
    let mut by_environment = command(&["doctor"]);
    by_environment.env("TIDEGATE_SHARDS", "3").env("TIDEGATE_IO", "epoll");
    for doctor in [finish(by_environment), run(&["doctor", "--shards", "3", "--io", "epoll"])] {
        assert_eq!((doctor.0, doctor.2.as_str()), (Some(0), ""), "{}", doctor.1);
        assert!(
            doctor.1.contains(": 3 shards,") && doctor.1.contains("\n  asked for       epoll"),
            "{}",
            doctor.1
        );
        assert!(!doctor.1.contains("locked by rings"), "{}", doctor.1);
    }
    let (code, stdout, stderr) = run(&["doctor", "-c", path.to_str().unwrap(), "--shards", "2"]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");

    // Without descriptors there is no ring: what asks for one would not start.
    let mut ringless = Command::new("sh");
    clean(&mut ringless);
    ringless.args(["-c", "ulimit -n 6 && exec \"$0\" doctor --io uring", BINARY]);
    let (code, stdout, _) = finish(ringless);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("\n  asked for       uring, which cannot be used: "), "{stdout}");
}

#[test]
fn a_report_that_cannot_be_written_is_a_fault_and_one_that_is_not_read_is_none() {
    for (target, expected) in [("/dev/full", Some(1)), ("/dev/null", Some(0))] {
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" doctor --io epoll > \"$1\"", BINARY, target]);
        let (code, _, stderr) = finish(command);
        assert_eq!(code, expected, "{target}: {stderr}");
        assert_eq!(stderr.contains("standard output cannot be written"), expected == Some(1), "{stderr}");
    }
}

#[test]
fn packages_get_completions_and_man_pages() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, stdout, stderr) = run(&["completions", shell]);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{shell}");
        assert!(stdout.contains("tidegate") && stdout.contains("doctor"), "{shell}: {stdout}");
    }
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = run(&["man", folder.path().to_str().unwrap()]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "", ""));
    let page = |name: &str| {
        fs::read_to_string(folder.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    assert!(page("tidegate-run.1").contains("TIDEGATE_CONFIG"));
    for name in ["tidegate", "tidegate-run", "tidegate-sessions-kill"] {
        // What stands below and above each page: no date, the program and its version, and whose manual it is.
        let title = format!("\n.TH {name} 1 \"\" \"tidegate {}\" Tidegate", env!("CARGO_PKG_VERSION"));
        let page = page(&format!("{name}.1"));
        assert!(page.contains(&title), "{page}");
    }
    let (code, _, stderr) = run(&["man", folder.path().join("none").to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("cannot be written"), "{stderr}");
}
