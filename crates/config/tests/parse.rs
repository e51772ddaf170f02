//! What valid files become, and that no file makes the reader panic.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use tidegate_config::{
    Action, AddressLimits, Algorithm, Balance, Bind, CertificateName, ClientCertificate, Config, Deflate,
    Drain, Echo, EchoDeflate, EventsAction, Excess, FullAction, HashKey, HostPattern, HttpsRedirect,
    Identity, IoChoice, Limits, Listener, Log, LogFormat, LogLevel, NamedPath, Page, PathPattern, PemFile,
    PermissionClaims, PollAction, Proxy, PublishAction, RequiredClaim, Route, RouteLimits, SCHEMA, Secret,
    SessionRates, SlowPolicy, Target, TlsVersion, TokenKeys, TokenSource, TopicPattern, TopicPatterns,
    TopicRule, TopicSettings, Topics, TopicsAction, Upstream, Utf8, embedded, parse,
};

const EVERY_KEY: &str = include_str!("every_key.toml");

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn valid(text: &str) -> Config {
    parse(text, "t.toml").unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn pattern(text: &str) -> TopicPattern {
    TopicPattern::parse(text).unwrap()
}

fn patterns(texts: &[&str]) -> TopicPatterns {
    TopicPatterns::new(texts.iter().copied().map(pattern).collect())
}

#[test]
fn every_key_arrives() {
    let limits = Limits {
        max_sessions: Some(5000),
        head_bytes: 12 << 10,
        request_line_bytes: 4096,
        memory_bytes: Some(3 << 30),
        addresses: AddressLimits {
            sessions: 20,
            handshakes_per_second: 3,
            burst_handshakes: 7,
            exempt: vec!["10.1.0.0/16".parse().unwrap(), "::1/128".parse().unwrap()],
        },
        head_fields: 64,
        head_timeout_ms: 9_000,
        message_bytes: 2 << 20,
        message_fragments: 77,
        message_timeout_ms: 31_000,
        control_frames: 55,
        control_window_ms: 1_500,
        outbox_soft_bytes: 3 << 20,
        outbox_hard_bytes: 9 << 20,
        ping_interval_ms: 60_000,
        pong_timeout_ms: 11_000,
        close_timeout_ms: 6_000,
        idle_timeout_ms: 7_200_000,
        rates: SessionRates {
            messages_per_second: 50,
            burst_messages: 60,
            bytes_per_second: 70 << 10,
            burst_bytes: 80 << 10,
            excess: Excess::Close,
        },
        write_timeout_ms: 33_000,
        linger_bytes: 32 << 10,
        receive_buffers: 512,
        inflaters: 7,
        deflaters: 3,
        takeover_bytes: 1 << 30,
        compression_level: 6,
        log_entries: 55,
    };
    let drain = Drain {
        window_ms: 20_000,
        deadline_ms: 50_000,
        code: 1012,
        route_code: 1001,
        reconnect_delay_ms: 3_000,
    };
    let own = RouteLimits {
        message_bytes: 64 << 10,
        message_fragments: 8,
        message_timeout_ms: 3_000,
        control_frames: 5,
        control_window_ms: 2_000,
        outbox_soft_bytes: 100 << 10,
        outbox_hard_bytes: 200 << 10,
        ping_interval_ms: 0,
        pong_timeout_ms: 4_000,
        close_timeout_ms: 2_000,
        idle_timeout_ms: 90_000,
        rates: SessionRates {
            messages_per_second: 5,
            burst_messages: 5,
            bytes_per_second: 0,
            burst_bytes: 0,
            excess: Excess::Delay,
        },
        max_sessions: Some(77),
    };
    let upstream =
        |target, text: &str| Upstream { target, text: text.to_owned(), tls: text.starts_with("wss") };
    let proxy = Proxy {
        upstreams: vec![
            upstream(Target::Address(address("10.0.0.5:9000")), "ws://10.0.0.5:9000"),
            upstream(Target::Name { host: "app.internal".to_owned(), port: 80 }, "WS://App.internal"),
            upstream(Target::Unix(PathBuf::from("/run/app.sock")), "unix:/run/app.sock"),
            upstream(Target::Address(address("[2001:db8::1]:80")), "ws://[2001:db8::1]"),
            upstream(Target::Name { host: "tls.internal".to_owned(), port: 443 }, "wss://TLS.internal"),
        ],
        balance: Balance::Hash(HashKey::Header("x-user".to_owned())),
        deflate: Deflate::Edge,
        utf8: Utf8::Upstream,
        context_takeover: true,
        resolve_timeout_ms: 1_000,
        resolve_interval_ms: 15_000,
        connect_timeout_ms: 2_000,
        handshake_timeout_ms: 3_000,
        retries: 1,
        max_fails: 4,
        fail_timeout_ms: 20_000,
        failure_code: 1014,
        source: vec!["10.0.0.2".parse().unwrap(), "2001:db8::2".parse().unwrap()],
        tls: Box::default(),
    };
    let plain = |path: &str, full, action| Route {
        host: None,
        path: PathPattern::Exact(path.to_owned()),
        subprotocols: Vec::new(),
        origins: Vec::new(),
        identity: None,
        claims: Vec::new(),
        client_certificate: None,
        limits: limits.route_limits(),
        full,
        action,
    };
    let echo = Action::Echo(Echo { deflate: EchoDeflate::On, context_takeover: true });
    let rules = vec![
        TopicRule {
            name: pattern("scores/*/live"),
            settings: TopicSettings {
                history: 50,
                history_bytes: 2 << 20,
                history_age_ms: 600_000,
                presence: true,
                slow: SlowPolicy::Conflate { keys: 300 },
                message_bytes: Some(8 << 10),
            },
        },
        TopicRule {
            name: pattern("scores/**"),
            settings: TopicSettings {
                slow: SlowPolicy::DropOld { backlog_bytes: 3 << 20 },
                ..TopicSettings::default()
            },
        },
        TopicRule {
            name: pattern("chat/lobby"),
            settings: TopicSettings {
                history: 7,
                history_age_ms: 60_000,
                slow: SlowPolicy::DropNew,
                ..TopicSettings::default()
            },
        },
    ];
    let topics = TopicsAction {
        subscribe: patterns(&["**"]),
        publish: patterns(&["chat/**", "votes/*"]),
        presence: patterns(&["chat/**"]),
        max_subscriptions: 9,
        max_patterns: 0,
        session_bytes: 99 << 10,
        deflate: EchoDeflate::Off,
    };
    let events = EventsAction {
        subscribe: patterns(&["scores/**"]),
        presence: patterns(&["scores/*"]),
        session_bytes: 98 << 10,
    };
    let poll = PollAction {
        subscribe: patterns(&["scores/**", "chat/*"]),
        presence: patterns(&["chat/*"]),
        session_bytes: 97 << 10,
    };
    let mut got = valid(EVERY_KEY);
    // Files are made by reading them alone: what is in it is looked at below.
    let Some(Action::Proxy(Proxy { tls: upstream_tls, .. })) = got.routes.first().map(|route| &route.action)
    else {
        panic!("{:?}", got.routes.first());
    };
    let upstream_tls = upstream_tls.clone();
    // Secrets are compared, and cannot be made here.
    let Some(Action::Publish(action)) = got.routes.last_mut().map(|route| &mut route.action) else {
        panic!("{:?}", got.routes.last());
    };
    let keys: Vec<_> = action.keys.drain(..).map(|key| (key.name, key.secret, key.publish)).collect();
    let [(referee, inline, scope), (desk, file, all)] = keys.as_slice() else { panic!("{keys:?}") };
    assert_eq!((referee.as_str(), desk.as_str()), ("referee", "desk"));
    assert_eq!((scope, all), (&patterns(&["scores/*/live"]), &patterns(&["scores/**", "news"])));
    assert!(inline.is(b"0123456789abcdef-referee") && !inline.is(b"0123456789abcdef-refereE"));
    assert!(!file.is(b"") && !file.is(b"/etc/tidegate/desk.key"), "nothing was read");
    let identities = std::mem::take(&mut got.identities);
    let publish = PublishAction {
        publish: patterns(&["scores/**", "news"]),
        keys: Vec::new(),
        body_bytes: 512 << 10,
        rate: 250,
    };
    let expected = Config {
        version: 1,
        shards: Some(3),
        io: IoChoice::Epoll,
        limits: limits.clone(),
        drain,
        listeners: vec![
            Listener {
                bind: Bind::Tcp(address("0.0.0.0:8080")),
                backlog: 100,
                tls: None,
                proxy_protocol: vec!["10.0.0.0/8".parse().unwrap(), "fd00::1/128".parse().unwrap()],
                https_redirect: Some(HttpsRedirect {
                    host: Some("www.example.com".to_owned()),
                    hosts: vec![
                        HostPattern::Exact("example.com".to_owned()),
                        HostPattern::Below("example.com".to_owned()),
                    ],
                    port: 8443,
                }),
                socket: None,
            },
            Listener {
                bind: Bind::Unix(PathBuf::from("/run/tidegate.sock")),
                backlog: 4096,
                tls: None,
                proxy_protocol: Vec::new(),
                https_redirect: None,
                socket: got.listeners[1].socket.clone(),
            },
            // What is in it is looked at below: a file is made by reading it alone.
            Listener {
                bind: Bind::Tcp(address("0.0.0.0:8443")),
                backlog: 4096,
                tls: got.listeners[2].tls.clone(),
                proxy_protocol: Vec::new(),
                https_redirect: None,
                socket: None,
            },
        ],
        routes: vec![
            Route {
                host: Some(HostPattern::Exact("chat.example.com".to_owned())),
                path: PathPattern::Prefix("/app".to_owned()),
                subprotocols: vec!["graphql-transport-ws".to_owned(), "v1.chat".to_owned()],
                origins: vec![
                    "https://chat.example.com".to_owned(),
                    "http://localhost:3000".to_owned(),
                    "null".to_owned(),
                ],
                identity: None,
                claims: Vec::new(),
                client_certificate: Some(ClientCertificate {
                    required: false,
                    names: vec![
                        CertificateName::Exact("device 7".to_owned()),
                        CertificateName::Below(HostPattern::Below("devices.example.com".to_owned())),
                    ],
                    header: Some("X-Client-Subject".to_owned()),
                }),
                limits: own,
                full: FullAction::Disconnect,
                action: Action::Proxy(Proxy { tls: upstream_tls.clone(), ..proxy }),
            },
            plain("/echo", FullAction::DropOld, echo),
            plain("/", FullAction::Pause, Action::Page(Page::Index)),
            plain("/chat.html", FullAction::Pause, Action::Page(Page::Chat)),
            Route {
                path: PathPattern::Prefix("/topics".to_owned()),
                subprotocols: vec!["tidegate.v1".to_owned()],
                origins: vec!["https://chat.example.com".to_owned()],
                ..plain("", FullAction::Pause, Action::Topics(topics))
            },
            plain("/events", FullAction::Pause, Action::Events(events)),
            Route {
                identity: Some(3),
                claims: vec![
                    RequiredClaim {
                        name: "realm.roles".to_owned(),
                        values: vec!["admin".to_owned(), "ops".to_owned()],
                    },
                    RequiredClaim { name: "plan".to_owned(), values: vec!["gold".to_owned()] },
                ],
                limits: RouteLimits { message_timeout_ms: 7_000, ..limits.route_limits() },
                ..plain("/poll", FullAction::Pause, Action::Poll(poll))
            },
            Route {
                path: PathPattern::Prefix("/publish".to_owned()),
                ..plain("", FullAction::Pause, Action::Publish(publish))
            },
        ],
        topics: Topics { memory_bytes: 64 << 20, max_topics: 20_000, max_subscriptions: 30_000, rules },
        identities: Vec::new(),
        // As keys are, its token is read from a file.
        admin: got.admin.clone(),
        log: Log {
            level: Some(LogLevel::Debug),
            format: Some(LogFormat::Text),
            file: got.log.file.clone(),
            entries_per_second: 77,
            sessions: Some(true),
        },
        warnings: Vec::new(),
        trusted: ["10.0.0.0/8", "fd00::/8", "192.0.2.7/32"].map(|network| network.parse().unwrap()).to_vec(),
    };
    assert_eq!(got, expected);
    let log = got.log.file.as_ref().map(NamedPath::path);
    assert_eq!(log, Some(Path::new("/var/log/tidegate.log")));
    let own = upstream_tls.certificate.as_ref().expect("it was read");
    let paths =
        [upstream_tls.ca.as_ref().expect("it was read"), &own.certificate, &own.key].map(PemFile::path);
    assert_eq!(paths, ["/etc/upstreams.pem", "/etc/gateway.pem", "/etc/gateway.key"].map(Path::new));
    assert_eq!(upstream_tls.server_name.as_deref(), Some("app.internal"));
    assert_eq!(upstream_tls.min_version, TlsVersion::Tls13);
    let admin = got.admin.as_ref().expect("it was read");
    assert_eq!(admin.bind, Bind::Unix(PathBuf::from("/run/tidegate/other.sock")));
    assert_eq!(admin.allow_uids, [1000, 1001]);
    assert!(admin.token.as_ref().is_some_and(|token| !token.is(b"/etc/tidegate/admin.token")));
    assert_identities(&identities);
    let tls = got.listeners[2].tls.as_ref().expect("it was read");
    let paths = tls.certificates.iter().flat_map(|files| [files.certificate.path(), files.key.path()]);
    let paths: Vec<&Path> = paths.chain(tls.client_ca.as_ref().map(PemFile::path)).collect();
    let expected =
        ["/etc/one.pem", "/etc/one.key", "/etc/two.pem", "/etc/two.key", "/etc/clients.pem"].map(Path::new);
    assert_eq!((paths, tls.min_version), (expected.to_vec(), TlsVersion::Tls13));
    assert!(tls.client_certificate_optional);
}

/// Secrets and files are made by reading them alone, so that these are looked at one by one.
fn assert_identities(identities: &[Identity]) {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let [users, services, devices, meters, guests, callers, visitors] = identities else {
        panic!("{identities:?}")
    };
    let expected = Identity {
        name: "users".to_owned(),
        keys: users.keys.clone(),
        algorithms: vec![Algorithm::Es256, Algorithm::EdDsa],
        issuers: owned(&["https://login.example.com"]),
        audiences: owned(&["chat", "live"]),
        leeway_ms: 30_000,
        requires_expiry: false,
        expired_code: 3000,
        sources: vec![
            TokenSource::Cookie("session".to_owned()),
            TokenSource::Query("access_token".to_owned()),
            TokenSource::Subprotocol("token.".to_owned()),
            TokenSource::Authorization,
        ],
        forward_token: true,
        user: "name".to_owned(),
        headers: [("X-User", "sub"), ("X-Roles", "realm.roles")]
            .map(|(name, claim)| (name.to_owned(), claim.to_owned()))
            .to_vec(),
        permissions: Some(PermissionClaims {
            subscribe: Some("topics.read".to_owned()),
            publish: Some("topics.write".to_owned()),
            presence: Some("topics.see".to_owned()),
        }),
    };
    assert_eq!(*users, expected);
    let path = |identity: &Identity| match &identity.keys {
        TokenKeys::Set(file) | TokenKeys::Public(file) => file.path().display().to_string(),
        TokenKeys::Secret(_) | TokenKeys::Url(_) | TokenKeys::Hook(_) => String::new(),
    };
    assert_eq!(
        (path(users), path(services)),
        ("/etc/tidegate/jwks.json".into(), "/etc/tidegate/services.pem".into())
    );
    let secret = |identity: &Identity| match &identity.keys {
        TokenKeys::Secret(secret) => secret.bytes().map(<[u8]>::to_vec),
        TokenKeys::Set(_) | TokenKeys::Public(_) | TokenKeys::Url(_) | TokenKeys::Hook(_) => {
            panic!("{identity:?}")
        }
    };
    assert_eq!(secret(devices).as_deref(), Some(&b"0123456789abcdef0123456789abcdef"[..]));
    assert_eq!(secret(meters), None, "nothing was read");
    assert_eq!(meters.algorithms, [Algorithm::Hs512, Algorithm::Hs384]);
    assert_eq!((services.leeway_ms, services.requires_expiry, services.expired_code), (5_000, true, 4401));
    assert_eq!((&services.sources[..], services.forward_token), (&[TokenSource::Authorization][..], false));
    assert_eq!((services.user.as_str(), &services.permissions), ("sub", &None));
    let TokenKeys::Url(set) = &guests.keys else { panic!("{guests:?}") };
    assert_eq!(set.url.as_str(), "https://login.example.com:443/keys?tenant=a");
    assert_eq!((set.interval_ms, set.timeout_ms, guests.requires_expiry), (420_000, 3_000, true));
    let hook = callers.hook().expect("a hook");
    assert_eq!((hook.url.as_str(), hook.timeout_ms), ("http://127.0.0.1:9000/ask", 700));
    assert_eq!((hook.max_in_flight, &hook.fields), (70, &owned(&["authorization", "x-ticket"])));
    assert_eq!(hook.secret.as_ref().and_then(Secret::present), Some("0123456789abcdef-hook"));
    assert_eq!((&callers.algorithms[..], callers.requires_expiry), (&[][..], false));
    assert_eq!(callers.sources, [TokenSource::Query("ticket".to_owned())]);
    let hook = visitors.hook().expect("a hook");
    assert_eq!(
        (hook.url.as_str(), hook.timeout_ms, hook.max_in_flight),
        ("https://auth.internal/", 2_000, 256)
    );
    assert_eq!(hook.fields, owned(&["authorization", "cookie"]));
    assert!(hook.secret.as_ref().is_some_and(|secret| secret.present().is_none()), "nothing was read");
    assert_eq!(visitors.sources, []);
}

#[test]
fn every_key_of_the_schema_is_in_the_file_that_proves_it() {
    for table in SCHEMA {
        for key in table.keys {
            let written = ["KEY = ", "[KEY]", "[route.KEY]", "[listener.KEY]"]
                .map(|form| form.replace("KEY", key.name));
            assert!(written.iter().any(|text| EVERY_KEY.contains(text)), "{} {}", table.name, key.name);
        }
    }
}

/// A value other than the default for every word that a key takes.
#[test]
fn every_word_arrives() {
    let route = |own: &str| {
        let text =
            format!("version = 1\nlistener = [{{ bind = '[::1]:0' }}]\n[[route]]\npath = '/*'\n{own}\n");
        valid(&text).routes.remove(0)
    };
    let proxy = |own: &str| match route(&format!("proxy = {{ upstreams = ['ws://a'], {own} }}")).action {
        Action::Proxy(proxy) => proxy,
        action => panic!("{action:?}"),
    };
    assert_eq!(proxy("balance = 'round_robin'").balance, Balance::RoundRobin);
    assert_eq!(proxy("balance = 'least_sessions'").balance, Balance::LeastSessions);
    let hash = |key: &str| proxy(&format!("balance = 'hash', hash_on = '{key}'")).balance;
    assert_eq!(hash("client_address"), Balance::Hash(HashKey::ClientAddress));
    assert_eq!(hash("cookie:Session"), Balance::Hash(HashKey::Cookie("Session".to_owned())));
    for (word, deflate) in [("edge", Deflate::Edge), ("pass", Deflate::Pass), ("off", Deflate::Off)] {
        assert_eq!(proxy(&format!("deflate = '{word}'")).deflate, deflate);
    }
    assert_eq!(proxy("utf8 = 'check'").utf8, Utf8::Check);
    assert_eq!(proxy("failure_code = 1011").failure_code, 1011);
    for (word, full) in
        [("pause", FullAction::Pause), ("drop_new", FullAction::DropNew), ("drop_old", FullAction::DropOld)]
    {
        assert_eq!(route(&format!("echo = {{}}\nfull = '{word}'")).full, full);
    }
    let off = Action::Echo(Echo { deflate: EchoDeflate::Off, context_takeover: false });
    assert_eq!(route("echo = { deflate = 'off' }").action, off);
    for (word, io) in [("auto", IoChoice::Auto), ("uring", IoChoice::Uring)] {
        let text = format!(
            "version = 1\nio = '{word}'\n[[listener]]\nbind = '[::1]:0'\n[[route]]\npath = '/'\npage = {{}}"
        );
        assert_eq!(valid(&text).io, io);
    }
}

#[test]
fn the_embedded_configuration_is_the_defaults() {
    let config = embedded();
    assert_eq!(
        config.listeners,
        [Listener {
            bind: Bind::Tcp(address("127.0.0.1:9001")),
            backlog: 4096,
            tls: None,
            proxy_protocol: Vec::new(),
            https_redirect: None,
            socket: None,
        }]
    );
    assert_eq!((config.shards, config.io, config.limits), (None, IoChoice::Auto, Limits::default()));
    assert!(config.routes.iter().all(|route| route.limits == RouteLimits::default()));
    assert!(config.routes.iter().all(|route| route.host.is_none() && route.origins.is_empty()));
    let all = || patterns(&["**"]);
    let topics = TopicsAction {
        subscribe: all(),
        publish: all(),
        presence: all(),
        max_subscriptions: 128,
        max_patterns: 16,
        session_bytes: 256 << 10,
        deflate: EchoDeflate::On,
    };
    let events = EventsAction { subscribe: all(), presence: all(), session_bytes: 256 << 10 };
    let poll = PollAction { subscribe: all(), presence: all(), session_bytes: 256 << 10 };
    let publish = PublishAction { publish: all(), keys: Vec::new(), body_bytes: 1 << 20, rate: 1000 };
    let expected = [
        ("/", Action::Page(Page::Index)),
        ("/echo", Action::Echo(Echo::default())),
        ("/topics/*", Action::Topics(topics)),
        ("/events", Action::Events(events)),
        ("/poll", Action::Poll(poll)),
        ("/publish/*", Action::Publish(publish)),
        ("/chat.html", Action::Page(Page::Chat)),
        ("/websocket.html", Action::Page(Page::WebSocket)),
        ("/broadcast.html", Action::Page(Page::Broadcast)),
        ("/tidegate.js", Action::Page(Page::Client)),
    ];
    let routes: Vec<_> = config.routes.iter().map(|route| (route.path.to_string(), &route.action)).collect();
    let expected: Vec<_> = expected.iter().map(|(path, action)| ((*path).to_owned(), action)).collect();
    assert_eq!(routes, expected);

    assert_eq!(config.topics, Topics { rules: config.topics.rules.clone(), ..Topics::default() });
    let kept = |history_age_ms| TopicSettings { history: 100, history_age_ms, ..TopicSettings::default() };
    assert_eq!(config.topics.settings("chat/lobby"), &TopicSettings { presence: true, ..kept(3_600_000) });
    let conflating = TopicSettings { slow: SlowPolicy::Conflate { keys: 10_000 }, ..kept(3_600_000) };
    assert_eq!(config.topics.settings("state/board/7"), &conflating);
    assert_eq!(config.topics.settings("chat"), &kept(300_000));
    assert!(config.warnings.is_empty());
}

/// Below the soft limit a producer goes on; then one message more may come, and what had arrived by then.
#[test]
fn a_larger_message_gets_the_room_that_it_needs() {
    let hard = |limits: &str, own: &str| {
        let text = format!(
            "version = 1\nlimits = {{ {limits} }}\nlistener = [{{ bind = '[::1]:0' }}]\n\
             [[route]]\npath = '/*'\necho = {{}}\nlimits = {{ {own} }}\n"
        );
        let config = valid(&text);
        (config.limits.outbox_hard_bytes >> 20, config.routes[0].limits.outbox_hard_bytes >> 20)
    };
    assert_eq!(hard("", ""), (4, 4));
    assert_eq!(hard("message_bytes = '2MiB'", ""), (4, 4));
    assert_eq!(hard("message_bytes = '16MiB'", ""), (18, 18));
    assert_eq!(hard("", "message_bytes = '16MiB'"), (4, 18));
    assert_eq!(hard("message_bytes = '16MiB'", "message_bytes = '1MiB'"), (18, 4));
    assert_eq!(hard("outbox_soft = '8MiB'", ""), (10, 10));
    assert_eq!(hard("outbox_hard = '5MiB'", ""), (5, 5));
    assert_eq!(hard("outbox_hard = '5MiB'", "outbox_hard = '6MiB', message_bytes = '6MiB'"), (5, 6));
}

#[test]
fn hosts_match_without_case_port_and_final_dot() {
    let exact = HostPattern::Exact("a.test".to_owned());
    let below = HostPattern::Below("a.test".to_owned());
    let six = HostPattern::Exact("::1".to_owned());
    let matches = |pattern: &HostPattern, authority| pattern.matches(tidegate_config::bare_host(authority));
    for authority in ["a.test", "A.Test", "a.test:80", "a.test.", "A.test.:8080"] {
        assert!(matches(&exact, authority), "{authority}");
        assert!(!matches(&below, authority), "{authority}");
    }
    for authority in ["x.a.test", "X.A.Test:1", "y.x.a.test.", "a.a.test"] {
        assert!(matches(&below, authority), "{authority}");
        assert!(!matches(&exact, authority), "{authority}");
    }
    for authority in
        ["", ".a.test", "xa.test", "a.test.evil", "test", "a.tes", "ä.test", ":80", "[", "[a.test"]
    {
        assert!(!matches(&below, authority), "{authority}");
    }
    for authority in ["", "ba.test", "a.tes", ":a.test", "a.test..", "[::1]"] {
        assert!(!matches(&exact, authority), "{authority}");
    }
    assert!(matches(&six, "[::1]:9001") && matches(&six, "[::1]") && !matches(&six, "[::2]"));
}

#[test]
fn prefixes_end_at_a_slash() {
    let prefix = PathPattern::Prefix("/app".to_owned());
    let all = PathPattern::Prefix(String::new());
    let exact = PathPattern::Exact("/app/".to_owned());
    for (path, by_prefix, by_exact) in
        [("/app", true, false), ("/app/", true, true), ("/app/x/y", true, false), ("/apple", false, false)]
    {
        assert_eq!(prefix.matches(path), by_prefix, "{path}");
        assert_eq!(exact.matches(path), by_exact, "{path}");
        assert!(all.matches(path), "{path}");
    }
    assert!(!prefix.matches("/") && !prefix.matches("/App"));
    assert!(all.matches("/"));
}

/// One route serves the path itself and the names below it.
#[test]
fn what_is_below_a_prefix_is_a_name() {
    let prefix = PathPattern::Prefix("/topics".to_owned());
    let all = PathPattern::Prefix(String::new());
    for (path, by_prefix, by_all) in [
        ("/topics", None, Some("topics")),
        ("/topics/", None, Some("topics/")),
        ("/topics/chat", Some("chat"), Some("topics/chat")),
        ("/topics/chat/lobby", Some("chat/lobby"), Some("topics/chat/lobby")),
        ("/topics/chat/", Some("chat/"), Some("topics/chat/")),
        ("/topic", None, Some("topic")),
        ("/topicsy/chat", None, Some("topicsy/chat")),
        ("/", None, None),
    ] {
        assert_eq!((prefix.below(path), all.below(path)), (by_prefix, by_all), "{path}");
        assert!(prefix.below(path).is_none() || prefix.matches(path));
        assert_eq!(PathPattern::Exact(path.to_owned()).below(path), None);
    }
}

/// The first rule that matches, or the defaults.
#[test]
fn a_topic_has_the_settings_of_its_first_rule() {
    let topics = valid(EVERY_KEY).topics;
    assert_eq!(topics.settings("scores/football/live"), &topics.rules[0].settings);
    assert_eq!(topics.settings("scores/football"), &topics.rules[1].settings);
    assert_eq!(topics.settings("chat/lobby"), &topics.rules[2].settings);
    assert_eq!(topics.settings("chat"), &TopicSettings::DEFAULT);
    assert_eq!(Topics::default().settings("chat"), &TopicSettings::default());
}

/// Every word of `slow`, and what is not said of it.
#[test]
fn every_policy_arrives() {
    let slow = |own: &str| {
        let text = format!(
            "version = 1\nlistener = [{{ bind = '[::1]:0' }}]\n[[topic]]\nname = '**'\n{own}\n\
             [[route]]\npath = '/'\nevents = {{ subscribe = ['*'] }}\n"
        );
        valid(&text).topics.rules.remove(0).settings.slow
    };
    assert_eq!(slow(""), SlowPolicy::Disconnect);
    assert_eq!(slow("slow = 'disconnect'"), SlowPolicy::Disconnect);
    assert_eq!(slow("slow = 'drop_new'"), SlowPolicy::DropNew);
    assert_eq!(slow("slow = 'drop_old'"), SlowPolicy::DropOld { backlog_bytes: 1 << 20 });
    assert_eq!(slow("slow = 'conflate'"), SlowPolicy::Conflate { keys: 10_000 });
    assert_eq!(slow("slow = 'resync'"), SlowPolicy::Resync);
    for (word, page) in [
        ("index", Page::Index),
        ("chat", Page::Chat),
        ("websocket", Page::WebSocket),
        ("broadcast", Page::Broadcast),
        ("client", Page::Client),
    ] {
        let text = format!(
            "version = 1\nlistener = [{{ bind = '[::1]:0' }}]\n[[route]]\npath = '/'\npage = {{ name = '{word}' }}"
        );
        assert_eq!(valid(&text).routes[0].action, Action::Page(page));
    }
}

/// What a session may have is within what its route and the process may.
#[test]
fn defaults_of_topics_fit_smaller_limits() {
    let text = "version = 1\nlistener = [{ bind = '[::1]:0' }]\n[topics]\nmax_subscriptions = 9\n\
                [[route]]\npath = '/'\nlimits = { outbox_soft = '8KiB', outbox_hard = '9KiB' }\n\
                topics = { subscribe = ['*'] }\n";
    match valid(text).routes.remove(0).action {
        Action::Topics(TopicsAction { max_subscriptions, max_patterns, session_bytes, .. }) => {
            assert_eq!((max_subscriptions, max_patterns, session_bytes), (9, 9, 9 << 10));
        }
        action => panic!("{action:?}"),
    }
}

/// A line of a file that may be nearly right.
fn line() -> impl Strategy<Value = String> {
    let keys: Vec<&str> =
        SCHEMA.iter().flat_map(|table| table.keys.iter().map(|key| key.name)).chain(["x"]).collect();
    let values = prop_oneof![
        Just("\"16KiB\"".to_owned()),
        Just("\"10s\"".to_owned()),
        Just("{}".to_owned()),
        Just("[[[".to_owned()),
        Just("[\"ws://a:1\", 1, {}]".to_owned()),
        Just("1979-05-27".to_owned()),
        Just("nan".to_owned()),
        Just("'''\n'''".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        "\"[ -~äß€😀]{0,12}\"",
        "\\[\"[a-z*/]{0,6}\"(, \"[a-z*/#?]{0,6}\"){0,3}\\]",
        "\"(unix:|ws://|https://|/|\\\\*\\\\.)[a-z0-9.:/*%@-]{0,12}\"",
    ];
    let setting =
        (proptest::sample::select(keys), values).prop_map(|(key, value)| format!("{key} = {value}"));
    let headers = [
        "[limits]",
        "[[listener]]",
        "[topics]",
        "[[topic]]",
        "[[route]]",
        "[route.limits]",
        "[route.proxy]",
        "[route.topics]",
        "[route.events]",
        "[route.poll]",
        "[route.publish]",
        "[[route.publish.keys]]",
        "[route]",
        "[[limits]]",
        "[",
    ];
    prop_oneof![4 => setting, 2 => proptest::sample::select(headers.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,20}"]
}

/// No panic, and problems that can be shown: on one line of the file each, in order, without control bytes.
fn told(text: &str) {
    let Err(problems) = parse(text, "t.toml") else { return };
    assert!(!problems.is_empty());
    let mut last = (0, 0);
    for problem in &problems {
        let rows = text.split('\n').count();
        assert!((1..=rows).contains(&problem.line), "{problem:?}");
        let row = text.split('\n').nth(problem.line - 1).unwrap();
        assert!((1..=row.chars().count() + 1).contains(&problem.column), "{problem:?}");
        assert!(last <= (problem.line, problem.column), "{problems:?}");
        last = (problem.line, problem.column);
        let shown = problem.to_string();
        assert_eq!(shown.lines().count(), 3, "{shown}");
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_text_makes_the_reader_panic(text in "(?s).{0,200}") {
        told(&text);
    }

    #[test]
    fn no_file_of_lines_makes_the_reader_panic(lines in proptest::collection::vec(line(), 0..24)) {
        told(&lines.join("\n"));
        told(&format!("version = 1\r\n{}", lines.join("\r\n")));
    }

    /// A valid file with one stretch of it replaced.
    #[test]
    fn no_damage_makes_the_reader_panic(
        at in 0..EVERY_KEY.len(), length in 0usize..40, patch in prop_oneof!["(?s).{0,6}", "[\\[\\]{}\"'=#,.\n0-9a-z*]{0,6}"],
    ) {
        let end = (at + length).min(EVERY_KEY.len());
        told(&format!("{}{patch}{}", &EVERY_KEY[..at], &EVERY_KEY[end..]));
    }
}
