//! Two crates read the same things and share no code: what the configuration takes, the protocol must take too.

use proptest::prelude::*;
use tidegate_config::{
    Action, Config, HostPattern, PathPattern, SESSION_TAKEOVER_BYTES, TopicPattern, bare_host, parse,
};
use tidegate_hub::{TopicName, protocol::topic_of_path};
use tidegate_tls::{ClientConfig, ClientOptions, Trust};
use tidegate_wire::{
    HeadLimits,
    deflate::{CodecLimits, Codecs},
    handshake::{OriginRule, origin_allowed},
    http::Request,
};

const LIMITS: HeadLimits = HeadLimits { head_bytes: 16 << 10, request_line_bytes: 8 << 10, fields: 100 };

fn config(route: &str) -> Option<Config> {
    let text = format!("version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[[route]]\n{route}\necho = {{}}\n");
    parse(&text, "t.toml").ok()
}

/// A literal string of TOML; `None` where it would need an escape.
fn literal(text: &str) -> Option<String> {
    text.chars().all(|c| c != '\'' && !c.is_control()).then(|| format!("'{text}'"))
}

fn pattern(path: &str) -> Option<PathPattern> {
    Some(config(&format!("path = {}", literal(path)?))?.routes.remove(0).path)
}

fn head(target: &str, host: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// Whether a request for this path passes, and is what a route would be matched with.
fn passes(path: &str) -> bool {
    let head = head(path, "a.test");
    Request::parse(&head, &LIMITS, false).is_ok_and(|request| request.target.path == path)
}

fn paths() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zA-Z0-9._~!$&()+,=:@-]{1,4}",
        4 => Just("/".to_owned()),
        1 => Just("%C3%A4".to_owned()),
        1 => "%[0-9a-fA-F]{2}",
        1 => "[ -~ä]",
        1 => Just("..".to_owned()),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn hosts() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9_-]{1,6}(\\.[a-zA-Z0-9-]{1,5}){0,3}\\.?",
        "\\[[0-9a-f:]{2,9}\\]",
        "[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}",
        "[ -~]{0,8}",
    ]
}

#[test]
fn bytes_of_a_path_are_the_same_for_both() {
    for byte in 0x21..0x7f_u8 {
        let path = format!("/a{}b", char::from(byte));
        // A query is not part of a path, and an asterisk is a pattern.
        if literal(&path).is_some() && !matches!(byte, b'?' | b'*') {
            assert_eq!(pattern(&path).is_some(), passes(&path), "{path}");
        }
    }
    for byte in 0..=0xff_u8 {
        for path in [format!("/%{byte:02x}"), format!("/a%{byte:02X}b")] {
            assert_eq!(pattern(&path).is_some(), passes(&path), "{path}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A route for a path that no request can have would never be reached; and each path must be routable.
    #[test]
    fn a_path_is_valid_for_both_or_for_neither(path in paths()) {
        prop_assume!(literal(&path).is_some() && !path.contains(['?', '*']));
        prop_assert_eq!(pattern(&path), passes(&path).then(|| PathPattern::Exact(path.clone())), "{}", path);
    }

    #[test]
    fn a_host_of_the_configuration_can_be_asked_for(host in hosts()) {
        let Some(literal) = literal(&host) else { return Ok(()) };
        let Some(config) = config(&format!("host = {literal}\npath = '/'")) else { return Ok(()) };
        let name = match config.routes[0].host.as_ref().unwrap() {
            HostPattern::Exact(name) if name.contains(':') => format!("[{name}]"),
            HostPattern::Exact(name) => name.clone(),
            HostPattern::Below(parent) => format!("x.{parent}"),
        };
        for authority in [name.clone(), name.to_uppercase(), format!("{name}:8080")] {
            let head = head("/", &authority);
            let request = Request::parse(&head, &LIMITS, false);
            let request = request.unwrap_or_else(|refusal| panic!("{host}: {}", refusal.reason));
            let pattern = config.routes[0].host.as_ref().unwrap();
            prop_assert!(pattern.matches(bare_host(request.host)), "{} {}", host, authority);
        }
    }

    /// A shard takes the configuration's origins for granted.
    #[test]
    fn an_origin_of_the_configuration_is_one(
        scheme in "[a-zA-Z][a-zA-Z0-9+.-]{0,4}|https?|HTTPS", host in hosts(), port in "(:[0-9]{1,5})?",
    ) {
        let origin = format!("{scheme}://{host}{port}");
        let Some(literal) = literal(&origin) else { return Ok(()) };
        let Some(config) = config(&format!("path = '/'\norigins = [{literal}]")) else { return Ok(()) };
        let rule = OriginRule::parse(&config.routes[0].origins[0]);
        let rule = rule.unwrap_or_else(|error| panic!("{origin}: {error}"));
        prop_assert!(origin_allowed(&[rule], Some(&config.routes[0].origins[0]), "other.test", false), "{}", origin);
    }
}

/// Each segment as `encodeURIComponent` writes it, which is what the client library does.
fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!~*'()/".contains(&byte);
    name.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// What is a name on a WebSocket is one in a URL, and in a configuration.
#[test]
fn each_name_of_a_topic_is_carried_by_a_path() {
    let mut names = 0;
    let mut check = |name: &str| {
        let is_name = TopicName::parse(name).is_ok();
        assert_eq!(is_name, TopicPattern::parse(name).is_ok() && !name.contains('*'), "{name:?}");
        if is_name {
            let path = format!("/topics/{}", encoded(name));
            assert!(passes(&path), "{name:?}");
            assert_eq!(topic_of_path(&path["/topics/".len()..]).unwrap(), name);
            names += 1;
        }
    };
    for c in (0..0x3000).filter_map(char::from_u32).chain(['🌊', '\u{feff}', '\u{ffff}', '\u{10ffff}']) {
        for name in [format!("{c}"), format!("a{c}b"), format!("a/{c}"), format!("{c}/{c}{c}")] {
            check(&name);
        }
    }
    for name in
        [".", "..", "...", "a/../b", "./a", "a/.", "%2e%2e", "a%2Fb", "..;", "a b/c d", "a+b", "a&b=c"]
    {
        check(name);
    }
    assert!(names > 40_000, "{names}");
}

/// Whatever is valid makes a plan; the examples of the documentation, too.
#[test]
fn a_valid_configuration_is_a_plan() {
    let document = include_str!("../../../docs/CONFIG.md");
    let mut plans = 0;
    for example in document.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
        let Ok(config) = parse(example, "CONFIG.md") else { continue };
        let proxied = config.routes.iter().any(|route| matches!(route.action, Action::Proxy(_)));
        let plan = tidegate_shard::Plan::new(config, 2);
        assert_eq!(plan.names().next().is_some(), proxied);
        plans += 1;
    }
    assert_eq!(plans, 3, "the whole file, that with topics and the embedded one");
    let every_key = include_str!("../../config/tests/every_key.toml");
    let config = parse(every_key, "every_key.toml").unwrap();
    let options = ClientOptions { trust: Trust::Nothing, alpn: Vec::new(), resumes: false };
    let clients = vec![Some(ClientConfig::new(&options).unwrap()); config.routes.len()];
    tidegate_shard::Plan::with_clients(config, 2, &clients);
}

/// What the configuration takes for enough is enough.
#[test]
fn the_least_budget_for_takeover_lets_one_session_have_it() {
    let limits = |takeover_bytes| CodecLimits { takeover_bytes, ..CodecLimits::default() };
    assert!(Codecs::new(limits(SESSION_TAKEOVER_BYTES)).takeover_available());
    assert!(!Codecs::new(limits(SESSION_TAKEOVER_BYTES / 2)).takeover_available());
}
