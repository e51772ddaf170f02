//! Rows W: the upgrade.

use crate::{
    Company, Row,
    harness::{client::Client, tokens::Signer},
    http::each,
    reaction::{Observed, Reaction, react, read_response, respond, respond_to},
    world::{Req, SECRET, World},
};

pub(crate) const ROWS: &[Row] = &[
    ("W01", Company::Any, w01_no_upgrade),
    ("W02", Company::Any, w02_h2c),
    ("W04", Company::Any, w04_connection_without_upgrade),
    ("W06", Company::Any, |w| each(w, [("no key", Req::new().without("Sec-WebSocket-Key").bytes())])),
    ("W08", Company::Any, w08_two_keys),
    ("W09", Company::Any, w09_no_version),
    ("W11", Company::Any, |w| each(w, [("twice", Req::new().with("Sec-WebSocket-Version", "13").bytes())])),
    ("W12", Company::Any, w12_foreign_origin),
    ("W14", Company::Any, w14_spaces_in_a_list),
    ("W15", Company::Any, w15_bad_subprotocols),
    ("W17", Company::Any, w17_names_of_prototypes),
    ("W18", Company::Any, w18_unknown_route),
    ("W19", Company::Any, w19_tokens),
    ("W20", Company::Any, w20_forged_addresses),
    ("W21", Company::Any, w21_too_many),
    ("W23", Company::Any, w23_absolute_form),
    ("W24", Company::Any, w24_keys_that_are_no_nonce),
    ("W25", Company::Any, w25_older_extensions),
    ("W26", Company::Any, w26_null_origin),
];

fn w01_no_upgrade(world: &World) -> Vec<Observed> {
    let (response, observed) = respond(world.address(), "no Upgrade", &Req::new().without("Upgrade").bytes());
    let response = response.expect("a response");
    assert_eq!(response.field("upgrade"), Some("websocket"));
    let connection = response.field("connection").expect("a Connection field").to_ascii_lowercase();
    assert!(connection.split(',').any(|option| option.trim() == "upgrade"), "{connection}");
    vec![observed]
}

fn w02_h2c(world: &World) -> Vec<Observed> {
    let h2c = |path| {
        Req::at(path)
            .replace("Upgrade", "h2c")
            .replace("Connection", "Upgrade, HTTP2-Settings")
            .with("HTTP2-Settings", "AAMAAABkAAQAAP__")
            .bytes()
    };
    let seen = each(world, [("echo", h2c("/ws")), ("proxied", h2c("/up/W02"))]);
    assert!(world.scripts().heads_of("/up/W02").is_empty(), "the upstream was asked");
    seen
}

fn w04_connection_without_upgrade(world: &World) -> Vec<Observed> {
    each(
        world,
        [
            ("close", Req::new().replace("Connection", "close").bytes()),
            ("none", Req::new().without("Connection").bytes()),
            ("keep-alive", Req::new().replace("Connection", "keep-alive").bytes()),
            ("a longer word", Req::new().replace("Connection", "xupgradex").bytes()),
        ],
    )
}

fn w08_two_keys(world: &World) -> Vec<Observed> {
    let same = Req::new().with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let other = Req::new().with("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==");
    each(world, [("the same", same.bytes()), ("another", other.bytes())])
}

fn w09_no_version(world: &World) -> Vec<Observed> {
    let head = Req::new().without("Sec-WebSocket-Version").bytes();
    let (response, observed) = respond(world.address(), "no version", &head);
    assert_eq!(response.expect("a response").field("sec-websocket-version"), Some("13"));
    vec![observed]
}

fn w12_foreign_origin(world: &World) -> Vec<Observed> {
    let from = |path: &str, origin: &str| Req::at(path).with("Origin", origin).bytes();
    let evil = ["https://evil.test", "https://chat.example.com.evil.test", "http://chat.example.com"];
    let mut seen: Vec<_> =
        evil.iter().map(|origin| react(world.address(), *origin, &from("/origin", origin))).collect();
    seen.push(react(world.address(), "proxied", &from("/up/origin", "https://evil.test")));
    assert!(world.scripts().heads_of("/up/origin").is_empty(), "the upstream was asked");
    // Whom the route lists may come.
    Client::open_with(world.address(), "/origin", "Origin: https://chat.example.com\r\n").0.close(1000);
    seen
}

fn w14_spaces_in_a_list(world: &World) -> Vec<Observed> {
    let with =
        |spaces| Req::new().with("Sec-WebSocket-Protocol", format!("b{}x", " ".repeat(spaces))).bytes();
    // As many as fit into a head reach the parser.
    each(world, [("32000", with(32_000)), ("15000", with(15_000)), ("within a list", spaced_list(15_000))])
}

fn spaced_list(spaces: usize) -> Vec<u8> {
    Req::new().with("Sec-WebSocket-Protocol", format!("b,{}x", " ".repeat(spaces))).bytes()
}

fn w15_bad_subprotocols(world: &World) -> Vec<Observed> {
    let thousand: Vec<_> = (0..1000).map(|at| format!("p{at}")).collect();
    let lists =
        ["a,a", "a,,b", "", "a,", "a b", "a(b", "a\"b\"", "a/b", "\u{e4}"].map(str::to_owned).into_iter();
    let lists = lists.chain([thousand.join(",")]);
    let mut heads: Vec<_> = lists
        .map(|list| (list.chars().take(8).collect(), Req::new().with("Sec-WebSocket-Protocol", list).bytes()))
        .collect();
    let two_fields = Req::new().with("Sec-WebSocket-Protocol", "a").with("Sec-WebSocket-Protocol", "a");
    heads.push(("a in two fields".to_owned(), two_fields.bytes()));
    each(world, heads)
}

fn w17_names_of_prototypes(world: &World) -> Vec<Observed> {
    let values =
        ["constructor", "__proto__", ",;constructor", "permessage-deflate; __proto__", ";", ",", "a;b;c=\"d"];
    each(world, values.map(|value| (value, Req::new().with("Sec-WebSocket-Extensions", value).bytes())))
}

fn w18_unknown_route(world: &World) -> Vec<Observed> {
    let (response, observed) = respond(world.address(), "unknown", &Req::at("/nowhere").bytes());
    let response = response.expect("a response");
    assert!(!response.body.is_empty(), "a body says what is wrong");
    assert!(matches!(observed.reaction, Reaction::Http { closed: true, .. }), "{observed:?}");
    assert!(world.scripts().heads_of("/nowhere").is_empty(), "the upstream was asked");
    vec![observed]
}

fn w19_tokens(world: &World) -> Vec<Observed> {
    let claims = serde_json::json!({ "sub": "w19", "exp": 1_000_000_000 });
    let expired = Signer::secret(SECRET).token("HS256", None, &claims);
    let bearer =
        |path: &str, token: &str| Req::at(path).with("Authorization", format!("Bearer {token}")).bytes();
    let query = |path: &str, token: &str| Req::at(&format!("{path}?access_token={token}")).bytes();
    let mut seen = Vec::new();
    for path in ["/token", "/up/W19", "/up/W19-hook"] {
        seen.extend(each(
            world,
            [
                ("none", Req::at(path).bytes()),
                ("another scheme", Req::at(path).with("Authorization", "Basic dzE5OncxOQ==").bytes()),
                ("expired", bearer(path, &expired)),
                ("expired, in the query", query(path, &expired)),
                ("garbled", bearer(path, &expired.replace('.', "-"))),
                ("not even that", bearer(path, "w19-garbled")),
                ("cut short", bearer(path, &expired[..expired.len() - 9])),
                ("CR LF in the query", query(path, "w19%0d%0aX-User:%20w19")),
                ("an expired one with CR LF", query(path, &format!("{expired}%0d%0a"))),
                ("9 KiB", bearer(path, &format!("w19{}", "A".repeat(9 << 10)))),
                ("16 KiB", bearer(path, &format!("w19{}", "A".repeat(16 << 10)))),
            ],
        ));
    }
    for observed in &seen {
        let Reaction::Http { status, .. } = observed.reaction else { panic!("{observed:?}") };
        assert_eq!(status == 431, observed.variant == "16 KiB", "{observed:?}");
    }
    for path in ["/up/W19", "/up/W19-hook"] {
        assert!(world.scripts().heads_of(path).is_empty(), "the upstream was asked");
    }
    // About each of them but the one that passes the head's limit.
    assert_eq!(world.hook_asked() % 10, 0, "{} questions", world.hook_asked());
    // Whoever has a token that is valid comes in.
    let claims = serde_json::json!({ "exp": 4_000_000_000_u64 });
    let valid = Signer::secret(SECRET).token("HS256", None, &claims);
    let fields = format!("Authorization: Bearer {valid}\r\n");
    Client::open_with(world.address(), "/token", &fields).0.close(1000);
    for observed in &seen {
        let peer = observed.peer.to_string();
        world.gateway().wait_for_log("a refusal", |line| line.contains(&peer));
    }
    let told = |line: &&String| ["w19-garbled", "eyJ", "AAAAAAAAAAAA"].iter().any(|part| line.contains(part));
    assert_eq!(world.gateway().log().iter().find(told), None, "a token, or a part of one");
    seen
}

fn w20_forged_addresses(world: &World) -> Vec<Observed> {
    let at = |place: usize| Req::at(&format!("/up/W20?{place}"));
    let list: Vec<_> = (0..500).map(|place| format!("10.0.{}.{}", place / 250, place % 250)).collect();
    let values = [
        r#"\"\r\ninjected"#.to_owned(),
        "\"injected".to_owned(),
        String::new(),
        list.join(", "),
        "127.0.0.9, \u{e4}".to_owned(),
    ];
    let mut seen = Vec::new();
    for (place, value) in values.iter().enumerate() {
        let head = at(place).with("X-Forwarded-For", value.as_str()).bytes();
        seen.push(react(world.address(), value.chars().take(12).collect::<String>(), &head));
        // Replaced, not appended: what stands there is the address that this side knows.
        let heads = world.scripts().heads_of(&format!("/up/W20?{place}"));
        let [head] = &heads[..] else { panic!("the upstream saw {heads:?}") };
        let claims: Vec<_> =
            head.lines().filter(|line| line.to_ascii_lowercase().starts_with("x-forwarded-for:")).collect();
        assert_eq!(claims, ["X-Forwarded-For: 127.0.0.1"], "{value}");
    }
    let long = "10.0.0.1, ".repeat(64 * 1024 / 10);
    seen.extend(each(
        world,
        [
            ("a line of its own", at(90).with_raw(b"X-Forwarded-For: \"\r\ninjected")),
            ("64 KiB", at(91).with("X-Forwarded-For", long).bytes()),
        ],
    ));
    for line in world.gateway().log() {
        let raw = line.chars().any(char::is_control);
        assert!(!raw && !line.contains("injected"), "{line:?}");
    }
    seen
}

fn w21_too_many(world: &World) -> Vec<Observed> {
    // An address that has three connections, as the PROXY header says, whatever port it comes from.
    let from = |address: &str, port: u16| {
        let mut client = Client::connect(world.behind_proxy());
        client.precede(format!("PROXY TCP4 {address} 10.0.0.1 {port} 443\r\n").as_bytes());
        client
    };
    let open: Vec<_> = (1001..1004)
        .map(|port| {
            let mut client = from("198.51.100.21", port);
            client.send(&Req::new().bytes());
            assert_eq!(read_response(&mut client).expect("a response").0.status, 101);
            client
        })
        .collect();
    let refused = |client, variant: &str, head: &[u8], status: u16| {
        let (response, observed) = respond_to(client, variant, head);
        let response = response.expect("a response");
        assert_eq!(response.status, status, "{variant}");
        let seconds = response.field("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
        assert!(seconds.is_some_and(|seconds| seconds > 0), "{}", response.head);
        observed
    };
    let fourth = from("198.51.100.21", 1004);
    let mut by_address = refused(fourth, "an address over its number", &Req::new().bytes(), 429);
    // What the log names is the client.
    by_address.peer = ([198, 51, 100, 21], 1004).into();
    let mut other = from("198.51.100.22", 1);
    other.send(&Req::new().bytes());
    assert_eq!(read_response(&mut other).expect("a response").0.status, 101, "another address");
    other.close(1000);

    let capped = Client::open(world.address(), "/up/capped");
    let second = Client::connect(world.address());
    let by_route = refused(second, "a route over its number", &Req::at("/up/capped").bytes(), 503);
    assert_eq!(world.scripts().heads_of("/up/capped").len(), 1, "no upstream hears of it");
    capped.close(1000);
    open.into_iter().for_each(|client| client.close(1000));
    vec![by_address, by_route]
}

fn w23_absolute_form(world: &World) -> Vec<Observed> {
    let absolute = |target: &str| Req::new().line(&format!("GET {target} HTTP/1.1")).bytes();
    let scheme = if world.is_over_tls() { "wss" } else { "ws" };
    let seen = each(
        world,
        [
            ("the same authority", absolute(&format!("{scheme}://gw.test/ws"))),
            // Only the authority in the target is that of the route; Host is gw.test.
            ("the target's authority wins", absolute(&format!("{scheme}://other.test/hosted"))),
            ("proxied", absolute(&format!("{scheme}://gw.test/up/W23?q=1"))),
        ],
    );
    let (refused, _) = respond(world.address(), "origin form", &Req::at("/hosted").bytes());
    assert_eq!(refused.expect("a response").status, 404, "Host says gw.test");

    let heads = world.scripts().heads_of("/up/W23?q=1");
    let [head] = &heads[..] else { panic!("the upstream saw {heads:?}") };
    assert!(head.starts_with("GET /up/W23?q=1 HTTP/1.1\r\n"), "{head}");
    let hosts = head.lines().filter(|line| line.to_ascii_lowercase().starts_with("host:")).count();
    assert_eq!(hosts, 1, "{head}");
    seen
}

fn w24_keys_that_are_no_nonce(world: &World) -> Vec<Observed> {
    let keys = [
        "client-random-string",
        "",
        // 15 and 17 bytes.
        "AAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAAA=",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ==AAAA",
    ];
    each(world, keys.map(|key| (key, Req::new().replace("Sec-WebSocket-Key", key).bytes())))
}

fn w25_older_extensions(world: &World) -> Vec<Observed> {
    let names = ["deflate-frame", "x-webkit-deflate-frame"];
    each(world, names.map(|name| (name, Req::new().with("Sec-WebSocket-Extensions", name).bytes())))
}

fn w26_null_origin(world: &World) -> Vec<Observed> {
    let at = |path| react(world.address(), path, &Req::at(path).with("Origin", "null").bytes());
    let (listed, free) = (at("/origin"), at("/ws"));
    let status = |seen: &Observed| match seen.reaction {
        Reaction::Http { status, .. } => status,
        _ => 0,
    };
    assert_eq!((status(&listed), status(&free)), (403, 101), "with and without a list of origins");
    vec![listed, free]
}
