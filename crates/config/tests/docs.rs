//! `docs/CONFIG.md` says what the code does: each key of the schema and no other, defaults that are the defaults,
//! examples that are valid.

use std::{collections::BTreeSet, fs, path::Path};

use tidegate_config::{Config, SCHEMA, parse};

fn document() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/CONFIG.md")).unwrap()
}

/// A row of a table of keys.
struct Row {
    table: &'static str,
    key: String,
    default: String,
    unit: String,
    reason: String,
}

/// The rows of all tables of keys, under the headings that bear the tables' names.
fn rows(document: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut table = None;
    for line in document.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            let named = |name: &str| {
                if name.is_empty() { heading == "Top of the file" } else { heading == format!("`{name}`") }
            };
            table = SCHEMA.iter().map(|table| table.name).find(|name| named(name));
        }
        let Some(cells) = line.strip_prefix("| `").and_then(|row| row.strip_suffix(" |")) else { continue };
        let (key, cells) = cells.split_once("` | ").unwrap_or_else(|| panic!("{line}"));
        let cells: Vec<&str> = cells.split('|').map(str::trim).collect();
        let [default, unit, reason] = cells.as_slice() else { panic!("four cells: {line}") };
        let table = table.unwrap_or_else(|| panic!("a key under no heading of the schema: {line}"));
        let (key, default) = (key.to_owned(), (*default).to_owned());
        rows.push(Row { table, key, default, unit: (*unit).to_owned(), reason: (*reason).to_owned() });
    }
    rows
}

/// What a key means nothing without.
fn needed(table: &str, key: &str) -> &'static str {
    match (table, key) {
        ("[[topic]]", "history_age" | "history_bytes") => "history = 3",
        ("[[topic]]", "keys") => "slow = 'conflate'",
        ("[[topic]]", "backlog_bytes") => "slow = 'drop_old'",
        ("[[identity]]", "jwks_interval" | "jwks_timeout") => "jwks_url = 'https://a'",
        ("topics = {}", "subscribe") => "publish = ['a']",
        ("topics = {}", _) => "subscribe = ['a']",
        _ => "",
    }
}

/// A valid configuration that says `setting` in a table.
fn config_with(table: &str, setting: &str) -> Config {
    let place = |name: &str| if name == table { setting } else { "" };
    let topics = if table == "topics = {}" { setting } else { "subscribe = ['a']" };
    let keys = if setting.contains("jwks_url") { "" } else { "jwks_file = '/j'" };
    let files = "certificate_file = '/c'\nkey_file = '/k'";
    let asks = "client_ca_file = '/a'";
    let tls = match table {
        "tls = {}" if setting.contains("client_ca_file") => format!("{files}\n{setting}"),
        "tls = {}" => format!("{files}\n{asks}\n{setting}"),
        "certificates = [{}]" => format!("{asks}\n[[listener.tls.certificates]]\n{files}\n{setting}"),
        _ => format!("{files}\n{asks}"),
    };
    let text = format!(
        "version = 1\n{}\n[limits]\n{}\n[[listener]]\nbind = '127.0.0.1:0'\n{}\n[listener.https_redirect]\n{}\n\
         [drain]\n{}\n[[listener]]\nbind = '127.0.0.1:1'\n[listener.tls]\n{tls}\n\
         [admin]\n{}\n[log]\n{}\n[topics]\n{}\n[[topic]]\nname = 'a/*'\n{}\n\
         [[identity]]\nname = 'a'\nalgorithms = ['ES256']\n{keys}\n{}\n[identity.permissions]\nsubscribe = 'a'\n{}\n\
         [[identity]]\nname = 'b'\n[identity.hook]\nurl = 'https://a'\n{}\n\
         [[route]]\npath = '/echo'\n{}\n[route.client_certificate]\n{}\n[route.limits]\n{}\n[route.echo]\n{}\n\
         [[route]]\npath = '/'\n[route.page]\n{}\n\
         [[route]]\npath = '/proxy'\n[route.proxy]\nupstreams = ['wss://a']\n{}\n[route.proxy.tls]\n{}\n\
         [[route]]\npath = '/topics'\n[route.topics]\n{topics}\n\
         [[route]]\npath = '/events'\n[route.events]\nsubscribe = ['a']\n{}\n\
         [[route]]\npath = '/poll'\n[route.poll]\nsubscribe = ['a']\n{}\n\
         [[route]]\npath = '/publish'\n[route.publish]\npublish = ['a/**']\n{}\n\
         [[route.publish.keys]]\nname = 'a'\nkey = '0123456789abcdef'\n{}\n",
        place(""),
        place("[limits]"),
        place("[[listener]]"),
        place("https_redirect = {}"),
        place("[drain]"),
        place("[admin]"),
        place("[log]"),
        place("[topics]"),
        place("[[topic]]"),
        place("[[identity]]"),
        place("permissions = {}"),
        place("hook = {}"),
        place("[[route]]"),
        place("[route.client_certificate]"),
        place("[route.limits]"),
        place("echo = {}"),
        place("page = {}"),
        place("proxy = {}"),
        place("[route.proxy.tls]"),
        place("events = {}"),
        place("poll = {}"),
        place("publish = {}"),
        place("keys = [{}]"),
    );
    parse(&text, "t.toml").unwrap_or_else(|problems| panic!("{table} {setting}: {problems:#?}"))
}

#[test]
fn every_key_is_described_and_every_described_key_exists() {
    let document = document();
    let described: Vec<(String, String)> =
        rows(&document).into_iter().map(|row| (row.table.to_owned(), row.key)).collect();
    let schema: Vec<(String, String)> = SCHEMA
        .iter()
        .flat_map(|table| table.keys.iter().map(|key| (table.name.to_owned(), (*key).to_owned())))
        .collect();
    assert_eq!(described, schema, "the tables of docs/CONFIG.md and of the schema, in order");
    let distinct: BTreeSet<_> = described.iter().collect();
    assert_eq!(distinct.len(), described.len());
    for row in rows(&document) {
        assert!(row.reason.len() >= 10, "{} {}: what is it?", row.table, row.key);
        assert!(row.reason.starts_with('[') || row.reason.ends_with('.'), "{}", row.reason);
    }
    for table in SCHEMA {
        let heading = if table.name.is_empty() {
            "## Top of the file".to_owned()
        } else {
            format!("## `{}`", table.name)
        };
        assert!(document.lines().any(|line| line == heading), "no heading {heading}");
    }
}

#[test]
fn documented_defaults_are_the_defaults() {
    let mut tested = 0;
    for Row { table, key, default, .. } in rows(&document()) {
        let Some(value) = default.strip_prefix('`').and_then(|default| default.strip_suffix('`')) else {
            continue;
        };
        let needed = needed(table, &key);
        assert_eq!(
            config_with(table, &format!("{needed}\n{key} = {value}")),
            config_with(table, needed),
            "{table} {key} = {value}"
        );
        tested += 1;
    }
    // 22 limits, 4 of a drain, 1 of a listener, 1 of its redirect, 2 of TLS, 1 of a client's certificate, 3 of a route, 2 of an echo, 12 of a proxy, 1 of TLS with upstreams, 2 of the top, 3 of all topics, 7 of a
    // topic, 6 of an identity, 1 of a page, 7 of topics over a WebSocket, 1 of events, 2 of polling, 2 of publishing.
    assert!(tested >= 80, "{tested} defaults");
}

/// The test above could not fail if keys had no effect.
#[test]
fn other_values_make_another_configuration() {
    for (table, setting) in [
        ("", "io = 'epoll'"),
        ("[limits]", "ping_interval = '26s'"),
        ("[drain]", "code = 1012"),
        ("[[listener]]", "backlog = 4097"),
        ("https_redirect = {}", "host = 'a'"),
        ("https_redirect = {}", "hosts = ['a']"),
        ("https_redirect = {}", "port = 444"),
        ("tls = {}", "min_version = '1.3'"),
        ("tls = {}", "client_ca_file = '/ca'"),
        ("tls = {}", "client_certificate = 'optional'"),
        ("[[route]]", "full = 'disconnect'"),
        ("[route.client_certificate]", "required = false"),
        ("[route.client_certificate]", "names = ['a']"),
        ("[route.limits]", "message_bytes = 1"),
        ("echo = {}", "deflate = 'off'"),
        ("proxy = {}", "retries = 3"),
        ("[route.proxy.tls]", "ca_file = '/ca'"),
        ("[route.proxy.tls]", "server_name = 'b'"),
        ("[route.proxy.tls]", "certificate_file = '/c'\nkey_file = '/k'"),
        ("[admin]", "bind = '127.0.0.1:1234'"),
        ("[log]", "file = '/l'"),
        ("[log]", "entries_per_second = 3"),
        ("[topics]", "max_topics = 3"),
        ("[[topic]]", "presence = true"),
        ("[[identity]]", "expiry = 'optional'"),
        ("[[identity]]", "jwks_url = 'https://a'\njwks_interval = '1s'"),
        ("hook = {}", "max_in_flight = 3"),
        ("permissions = {}", "publish = 'b'"),
        ("page = {}", "name = 'chat'"),
        ("topics = {}", "subscribe = ['a']\nmax_patterns = 3"),
        ("events = {}", "session_bytes = '3KiB'"),
        ("poll = {}", "presence = ['a']"),
        ("publish = {}", "rate = 3"),
        ("keys = [{}]", "publish = ['a/b']"),
    ] {
        let bare = needed(table, setting);
        assert_ne!(config_with(table, setting), config_with(table, bare), "{setting}");
    }
}

#[test]
fn durations_and_sizes_have_their_unit() {
    for Row { key, default, unit, .. } in rows(&document()) {
        let timed = key.ends_with("_timeout")
            || key.ends_with("_interval")
            || key.ends_with("_window")
            || key.ends_with("_age")
            || key.ends_with("_delay")
            || ["window", "deadline", "leeway", "timeout"].contains(&key.as_str());
        assert_eq!(timed, unit == "duration", "{key}");
        let sized = key.ends_with("_bytes") || key.starts_with("outbox_") || key == "memory";
        assert_eq!(sized, unit == "size", "{key}");
        let in_units = default.ends_with("s\"`") || default.ends_with("m\"`");
        assert!(!timed || default == "from `[limits]`" || in_units, "{key} {default}");
    }
}

#[test]
fn the_examples_are_valid() {
    let document = document();
    let examples: Vec<&str> =
        document.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 4, "{} examples", examples.len());
    for example in &examples {
        let mut text = (*example).to_owned();
        if !text.contains("version = ") {
            text.insert_str(0, "version = 1\n");
        }
        if !text.contains("[[listener]]") {
            text.push_str("[[listener]]\nbind = '127.0.0.1:0'\n");
        }
        parse(&text, "CONFIG.md").unwrap_or_else(|problems| panic!("{example}\n{problems:#?}"));
    }
    assert_eq!(parse(examples.last().unwrap(), "CONFIG.md").unwrap(), tidegate_config::embedded());
}
