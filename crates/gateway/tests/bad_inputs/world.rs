//! One gateway, the upstream behind it, and sessions that must not notice anything.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustls::ClientConfig;

use crate::{
    harness::{
        PATIENCE,
        certificates::Authority,
        client::{Client, KEY, Target},
        eventually,
        frame::{BINARY, TEXT},
        gateway::{Gateway, raise_descriptor_limit},
        upstream::Upstream,
        web::{Reply, Web},
    },
    upstream::Scripts,
};

/// The waits that the test shortens.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_millis(1500);
/// A Close must be answered within this.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// A fragmented message must be complete within this on `/fragments`.
pub(crate) const MESSAGE_TIMEOUT: Duration = Duration::from_secs(8);
/// Longest message.
pub(crate) const MESSAGE_BYTES: usize = 1 << 20;
/// Control frames that are allowed in the window.
pub(crate) const CONTROL_FRAMES: usize = 50;

/// What tokens are signed with.
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// With this hook, these settings of its listeners' TLS, these listeners beside them, and these settings for all that is
/// proxied.
fn config(upstream: &str, hook: &str, tls: &str, more_listeners: &str, to_upstream: &str) -> String {
    format!(
        r#"
version = 1

# Each row looks for its own line, and some of them end a thousand sessions at once.
[log]
entries_per_second = 1_000_000

[limits]
head_bytes = "16KiB"
request_line_bytes = "8KiB"
head_fields = 100
head_timeout = "1500ms"
message_bytes = "1MiB"
message_fragments = 1024
message_timeout = "3s"
control_frames = 50
control_window = "10s"
outbox_soft = "1MiB"
outbox_hard = "4MiB"
close_timeout = "1s"
write_timeout = "2s"
# Each of a row's thousand refusals has a line that is looked for.
log_entries = 0
# Those of PROXY headers: this machine's own are not counted.
sessions_per_address = 3
# More than any flood here: past it a reset may overtake the Close that the peer is to see.
linger_bytes = "16MiB"

[[listener]]
bind = "127.0.0.1:0"
{tls}
[[listener]]
bind = "127.0.0.1:0"
proxy_protocol = ["127.0.0.0/8"]
{tls}
[[listener]]
bind = "127.0.0.1:0"
proxy_protocol = ["192.0.2.0/24"]
{tls}{more_listeners}
[[identity]]
name = "users"
secret = "{SECRET}"
algorithms = ["HS256"]
token = ["authorization", "query:access_token"]

[[identity]]
name = "callers"
hook = {{ url = "{hook}", timeout = "1m" }}

[admin]
bind = "127.0.0.1:0"

[[route]]
path = "/ws"
echo = {{}}

[[route]]
path = "/token"
identity = "users"
echo = {{}}

[[route]]
path = "/up/W19"
identity = "users"
proxy = {{ upstreams = ["{upstream}"], retries = 0, fail_timeout = "0s"{to_upstream} }}

[[route]]
path = "/up/W19-hook"
identity = "callers"
proxy = {{ upstreams = ["{upstream}"], retries = 0, fail_timeout = "0s"{to_upstream} }}

[[route]]
path = "/rated"
limits = {{ messages_per_second = 100, burst_messages = 200, excess = "close" }}
echo = {{}}

[[route]]
path = "/up/rated"
limits = {{ messages_per_second = 100, burst_messages = 200, excess = "close" }}
proxy = {{ upstreams = ["{upstream}"], retries = 0, fail_timeout = "0s"{to_upstream} }}

[[route]]
path = "/topics-rated"
limits = {{ messages_per_second = 100, burst_messages = 200, excess = "close" }}
topics = {{ subscribe = ["*"], publish = ["*"] }}

[[route]]
path = "/up/capped"
limits = {{ max_sessions = 1 }}
proxy = {{ upstreams = ["{upstream}"], retries = 0, fail_timeout = "0s"{to_upstream} }}

[[route]]
path = "/fragments"
limits = {{ message_fragments = 200000, message_timeout = "8s" }}
echo = {{}}

[[route]]
path = "/plain"
echo = {{ deflate = "off" }}

[[route]]
path = "/takeover"
echo = {{ context_takeover = true }}

[[route]]
path = "/origin"
origins = ["https://chat.example.com"]
echo = {{}}

[[route]]
path = "/idle"
limits = {{ idle_timeout = "500ms" }}
echo = {{}}

[[route]]
path = "/pushed"
limits = {{ message_bytes = "64MiB" }}
proxy = {{ upstreams = ["{upstream}"], retries = 0, fail_timeout = "0s"{to_upstream} }}

[[route]]
path = "/topics/*"
limits = {{ message_bytes = "2MiB" }}
topics = {{ subscribe = ["many/*", "*"], publish = ["*"] }}

[[route]]
path = "/keyed"
publish = {{ publish = ["*"], keys = [{{ name = "service", key = "{PUBLISHING_KEY}", publish = ["guessed"] }}] }}

[[route]]
host = "other.test"
path = "/hosted"
echo = {{}}

[[route]]
path = "/up/origin"
origins = ["https://chat.example.com"]
proxy = {{ upstreams = ["{upstream}"], retries = 0, fail_timeout = "0s"{to_upstream} }}

[[route]]
path = "/up/U08/*"
proxy = {{ upstreams = ["{upstream}"], retries = 0, fail_timeout = "0s", handshake_timeout = "1s"{to_upstream} }}

[[route]]
path = "/up/*"
proxy = {{ upstreams = ["{upstream}"], retries = 0, fail_timeout = "0s"{to_upstream} }}
"#
    )
}

/// The key with which `/keyed` publishes.
pub(crate) const PUBLISHING_KEY: &str = "3ZcWvT0mX8q1Lr5uYb7nKd";

/// What a row plays with.
pub(crate) struct World {
    gateway: Gateway,
    /// Where its listeners speak TLS.
    tls: Option<(Authority, Arc<ClientConfig>)>,
    upstream: Upstream,
    scripts: Arc<Scripts>,
    /// Says who callers are: it believes nobody.
    hook: Web,
    others: Vec<Bystander>,
}

impl World {
    /// On this backend, over TLS or without.
    pub(crate) fn start(io: &str, over_tls: bool) -> World {
        // A thousand sessions of a row, and both their ends of some, are more than the usual soft limit.
        raise_descriptor_limit();
        let scripts = Arc::new(Scripts::default());
        let hook = Web::start(|_| Reply::Status(401, String::new()));
        let (mut setting, mut for_known_clients, mut to_upstream) = <(String, String, String)>::default();
        let tls = over_tls.then(|| {
            let authority = Authority::new();
            setting = format!("[listener.tls]\n{}", authority.issue("gw", &["gw.test"]).setting());
            for_known_clients = format!(
                "[[listener]]\nbind = \"127.0.0.1:0\"\n{setting}client_ca_file = {:?}\n",
                authority.ca()
            );
            to_upstream = format!(", tls = {{ ca_file = {:?} }}", authority.ca());
            let client = authority.client();
            (authority, client)
        });
        // Behind listeners that speak TLS it speaks TLS, too.
        let secure = tls.as_ref().map(|(own, _)| own.server(&own.issue("upstream", &["127.0.0.1"]), false));
        let upstream = Upstream::start_with(secure, {
            let scripts = Arc::clone(&scripts);
            move |connection| scripts.play(connection)
        });
        let gateway = Gateway::start(
            &config(&upstream.url(), &hook.url("/"), &setting, &for_known_clients, &to_upstream),
            io,
        );
        let mut world = World { gateway, tls, upstream, scripts, hook, others: Vec::new() };
        world.others = [("/ws", BINARY), ("/ws", TEXT), ("/takeover", TEXT), ("/up/echo", BINARY)]
            .map(|(path, opcode)| Bystander::start(world.address(), path, opcode))
            .into();
        world.assert_others_unharmed();
        world
    }

    /// How often its hook was asked.
    pub(crate) fn hook_asked(&self) -> usize {
        self.hook.asked().len()
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Its first listener, for all who come without a PROXY header.
    pub(crate) fn address(&self) -> Target {
        self.target(0)
    }

    fn target(&self, listener: usize) -> Target {
        let tls = self.tls.as_ref().map(|(_, client)| Arc::clone(client));
        Target { address: self.gateway.addresses()[listener], tls }
    }

    /// Whether its listeners speak TLS.
    pub(crate) fn is_over_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Who signed the certificate of its listeners.
    pub(crate) fn authority(&self) -> &Authority {
        &self.tls.as_ref().expect("a gateway over TLS").0
    }

    /// The listener for clients whose certificates that authority has signed; only over TLS there is one.
    pub(crate) fn for_known_clients(&self) -> SocketAddr {
        self.gateway.addresses()[3]
    }

    /// What so many sessions over TLS may take in KiB beside what they take without: 17 KiB for a record that is being
    /// received, and the keys and counters of both directions.
    pub(crate) fn tls_kib(&self, sessions: usize) -> usize {
        if self.is_over_tls() { sessions * 24 } else { 0 }
    }

    /// Where its admin listener is.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.gateway.admin()
    }

    /// The listener whose connections from here begin with a PROXY header.
    pub(crate) fn behind_proxy(&self) -> Target {
        self.target(1)
    }

    /// The listener where that is so of connections from elsewhere.
    pub(crate) fn beside_proxy(&self) -> Target {
        self.target(2)
    }

    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    pub(crate) fn scripts(&self) -> &Scripts {
        &self.scripts
    }

    /// A session at `/ws`.
    pub(crate) fn session(&self) -> Client {
        Client::open(self.address(), "/ws")
    }

    /// A session with permessage-deflate, as the header value offers it.
    pub(crate) fn deflated(&self, path: &str, offer: &str) -> Client {
        let offer = format!("Sec-WebSocket-Extensions: {offer}\r\n");
        let (client, response) = Client::open_with(self.address(), path, &offer);
        let agreed = response.field("sec-websocket-extensions").expect("an agreed extension");
        assert!(agreed.starts_with("permessage-deflate"), "{agreed}");
        client
    }

    /// All other sessions have had another answer since the call began.
    pub(crate) fn assert_others_unharmed(&self) {
        let before: Vec<u64> = self.others.iter().map(Bystander::exchanges).collect();
        for (other, before) in self.others.iter().zip(before) {
            other.assert_goes_on(before);
        }
    }

    /// A complaint if more descriptors are open than before, once all has ended.
    pub(crate) fn descriptors_left(&self, before: usize) -> Option<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let now = self.gateway.descriptors();
            if now <= before {
                return None;
            }
            if Instant::now() > until {
                return Some(format!("descriptors: {now} are open, {before} were before the rows"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the other sessions, all of them regularly, and the gateway.
    pub(crate) fn stop(self) -> Vec<String> {
        self.others.into_iter().for_each(Bystander::finish);
        self.gateway.stop()
    }
}

/// A session that exchanges messages all the time.
struct Bystander {
    name: String,
    exchanges: Arc<AtomicU64>,
    failure: Arc<Mutex<Option<String>>>,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Bystander {
    fn start(target: Target, path: &'static str, opcode: u8) -> Bystander {
        let exchanges = Arc::new(AtomicU64::new(0));
        let failure = Arc::new(Mutex::new(None));
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (exchanges, failure, stopping) =
                (Arc::clone(&exchanges), Arc::clone(&failure), Arc::clone(&stopping));
            move || {
                let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    let mut client = Client::open(target, path);
                    let letters: Vec<u8> = (b'a'..=b'z').cycle().take(26 + 70_000).collect();
                    for round in 0_usize.. {
                        if stopping.load(Ordering::SeqCst) {
                            client.close(1000);
                            return;
                        }
                        let len = [0, 1, 125, 126, 1000, 20_000, 70_000][round % 7];
                        client.exchange(opcode, &letters[round % 26..][..len]);
                        exchanges.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }));
                if let Err(panic) = played {
                    let text = panic.downcast_ref::<String>().cloned();
                    *failure.lock().expect("a lock") = Some(text.unwrap_or_else(|| "a panic".to_owned()));
                }
            }
        });
        Bystander { name: format!("{path}, opcode {opcode}"), exchanges, failure, stopping, thread }
    }

    /// How many answers it has had.
    fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::SeqCst)
    }

    /// It has had another answer since it had so many.
    fn assert_goes_on(&self, before: u64) {
        // Two: the first may have begun before.
        eventually(&format!("the session at {} to go on", self.name), || {
            let failure = self.failure.lock().expect("a lock").clone();
            assert_eq!(failure, None, "the other session at {} was harmed", self.name);
            (self.exchanges() >= before + 2).then_some(())
        });
    }

    fn finish(self) {
        self.assert_goes_on(self.exchanges());
        self.stopping.store(true, Ordering::SeqCst);
        self.thread.join().expect("it catches its panics");
        let failure = self.failure.lock().expect("a lock").take();
        assert_eq!(failure, None, "the session at {} ended badly", self.name);
    }
}

/// A request to be spoilt.
#[derive(Clone, Debug)]
pub(crate) struct Req {
    line: String,
    fields: Vec<(String, String)>,
}

impl Req {
    /// REQ of the table's notation.
    pub(crate) fn new() -> Req {
        Req::at("/ws")
    }

    /// REQ at another path.
    pub(crate) fn at(path: &str) -> Req {
        let fields = [
            ("Host", "gw.test"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", KEY),
            ("Sec-WebSocket-Version", "13"),
        ];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Req { line: format!("GET {path} HTTP/1.1"), fields: fields.into() }
    }

    /// {line=…}
    pub(crate) fn line(mut self, line: &str) -> Req {
        line.clone_into(&mut self.line);
        self
    }

    /// {-H}
    pub(crate) fn without(mut self, name: &str) -> Req {
        let before = self.fields.len();
        self.fields.retain(|(key, _)| key != name);
        assert!(self.fields.len() < before, "{name} was not there");
        self
    }

    /// {+H: v}
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Req {
        self.fields.push((name.to_owned(), value.into()));
        self
    }

    /// {H=v}
    pub(crate) fn replace(mut self, name: &str, value: &str) -> Req {
        let field = self.fields.iter_mut().find(|(key, _)| key == name).expect("a field to replace");
        value.clone_into(&mut field.1);
        self
    }

    /// The head, ended by an empty line.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [self.open_bytes(), b"\r\n".to_vec()].concat()
    }

    /// The head without the empty line.
    pub(crate) fn open_bytes(&self) -> Vec<u8> {
        let fields = self.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        std::iter::once(format!("{}\r\n", self.line)).chain(fields).collect::<String>().into_bytes()
    }

    /// The head with a raw line behind its fields.
    pub(crate) fn with_raw(&self, line: &[u8]) -> Vec<u8> {
        [&self.open_bytes(), line, b"\r\n\r\n"].concat()
    }
}
