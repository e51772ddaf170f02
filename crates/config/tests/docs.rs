//! `docs/CONFIG.md` says what the code does: its tables of keys are made from the schema, their defaults are the
//! defaults, its examples are valid.

use std::{collections::BTreeSet, env, fs, ops::Range, path::Path, sync::LazyLock};

use tidegate_config::{Config, Key, SCHEMA, Table, parse};

/// Makes the page's tables anew.
const COMMAND: &str = "TIDEGATE_WRITE_DOCS=1 cargo test -p tidegate-config --test docs";

/// The page; its tables are first made anew where that is asked for.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/CONFIG.md");
    let page = fs::read_to_string(&path).unwrap();
    if env::var_os("TIDEGATE_WRITE_DOCS").is_none() {
        return page;
    }
    let anew = with_tables_anew(&page);
    if anew != page {
        fs::write(&path, &anew).unwrap();
    }
    anew
});

const BEGIN: &str = "<!-- keys: ";
const END: &str = "<!-- end of keys -->";
const HEADER: &str = "| key | default | unit | what it is, and why |";

/// Where a table of keys stands in the page.
struct Place {
    table: &'static Table,
    /// That it stands under.
    heading: String,
    /// Its lines, between the two marks.
    lines: Range<usize>,
}

/// How a mark calls a table.
fn title(table: &Table) -> &'static str {
    if table.name.is_empty() { "top of the file" } else { table.name }
}

fn places(page: &str) -> Vec<Place> {
    let mut places = Vec::new();
    let mut heading = "";
    let mut begun = None;
    for (at, line) in page.lines().enumerate() {
        let here = format!("docs/CONFIG.md:{}", at + 1);
        if line.starts_with("## ") {
            heading = line;
        } else if let Some(name) = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(" -->")) {
            assert!(begun.is_none(), "{here}: the table before this has no `{END}`");
            let table = SCHEMA.iter().find(|table| title(table) == name);
            let table = table.unwrap_or_else(|| panic!("{here}: the schema has no table {name}"));
            begun = Some((table, at + 1));
        } else if line == END {
            let (table, first) =
                begun.take().unwrap_or_else(|| panic!("{here}: no table begins before this"));
            places.push(Place { table, heading: heading.to_owned(), lines: first..at });
        } else {
            let is_of_keys = line == HEADER || line.starts_with("| `");
            assert!(!is_of_keys || begun.is_some(), "{here}: a table of keys needs `{BEGIN}… -->` before it");
        }
    }
    assert!(begun.is_none(), "docs/CONFIG.md: the last table has no `{END}`");
    places
}

/// A table of keys as it stands in the page.
fn lines(table: &Table) -> Vec<String> {
    let cell = |text: &str| if text.is_empty() { " |".to_owned() } else { format!(" {text} |") };
    let row = |key: &Key| {
        let name = format!("`{}`", key.name);
        format!("|{}{}{}{}", cell(&name), cell(key.default), cell(key.unit), cell(key.reason))
    };
    [HEADER.to_owned(), "|---|---|---|---|".to_owned()]
        .into_iter()
        .chain(table.keys.iter().map(row))
        .collect()
}

fn with_tables_anew(page: &str) -> String {
    let mut anew: Vec<String> = page.lines().map(str::to_owned).collect();
    for place in places(page).into_iter().rev() {
        anew.splice(place.lines, lines(place.table));
    }
    anew.join("\n") + "\n"
}

/// What two lines say from a little before they begin to differ.
fn apart(one: &str, other: &str) -> [String; 2] {
    let same = one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count();
    [one, other].map(|line| line.chars().skip(same.saturating_sub(40)).take(120).collect())
}

/// All keys of the schema, each with the name of its table.
fn keys() -> impl Iterator<Item = (&'static str, &'static Key)> {
    SCHEMA.iter().flat_map(|table| table.keys.iter().map(|key| (table.name, key)))
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
fn each_table_of_the_page_is_made_from_the_schema() {
    let page: Vec<&str> = PAGE.lines().collect();
    let mut differing = Vec::new();
    for Place { table, lines: between, .. } in places(&PAGE) {
        let (found, made) = (&page[between.clone()], lines(table));
        if found == made {
            continue;
        }
        let same = found.iter().zip(&made).take_while(|(found, made)| found == made).count();
        let found = found.get(same).copied().unwrap_or("(the end of the table)");
        let made = made.get(same).map_or("(the end of the table)", String::as_str);
        let number = between.start + same + 1;
        let [found, made] = apart(found, made);
        let table = title(table);
        differing
            .push(format!("docs/CONFIG.md:{number}: {table}\n    page:   {found}\n    schema: {made}\n"));
    }
    assert!(
        differing.is_empty(),
        "tables of keys that are not the schema's, each with the first row that differs:\n{}\
         change keys in crates/config/src/schema alone, then make the tables anew: {COMMAND}\n",
        differing.concat()
    );
}

#[test]
fn each_table_of_the_schema_has_its_place_in_the_page() {
    let places = places(&PAGE);
    for table in SCHEMA {
        let title = title(table);
        let heading =
            if table.name.is_empty() { "## Top of the file".to_owned() } else { format!("## `{title}`") };
        let places: Vec<&str> = places
            .iter()
            .filter(|place| place.table.name == table.name)
            .map(|place| place.heading.as_str())
            .collect();
        assert_eq!(
            places,
            [&heading],
            "the headings in docs/CONFIG.md under which {title} stands: there must be `{BEGIN}{title} -->` and \
             `{END}` under its own, once; then {COMMAND}"
        );
    }
    let order = |tables: Vec<&'static Table>| tables.into_iter().map(title).collect::<Vec<_>>();
    assert_eq!(
        order(places.iter().map(|place| place.table).collect()),
        order(SCHEMA.iter().collect()),
        "the order of tables, in docs/CONFIG.md and in the schema"
    );
}

#[test]
fn every_key_is_described_once_in_texts_that_fit_a_row() {
    let mut names = BTreeSet::new();
    for (table, key) in keys() {
        assert!(names.insert((table, key.name)), "{table} {} stands there twice", key.name);
        for text in [key.name, key.default, key.unit, key.reason] {
            let odd = text.contains(['|', '\n', '\t']) || text.contains("  ") || text.trim() != text;
            assert!(!odd, "{table} {}: not a cell of a table: {text:?}", key.name);
        }
        assert!(key.reason.len() >= 10, "{table} {}: what is it?", key.name);
        assert!(key.reason.starts_with('[') || key.reason.ends_with('.'), "{}", key.reason);
    }
}

#[test]
fn documented_defaults_are_the_defaults() {
    let mut tested = 0;
    for (table, &Key { name: key, default, .. }) in keys() {
        let Some(value) = default.strip_prefix('`').and_then(|default| default.strip_suffix('`')) else {
            continue;
        };
        let needed = needed(table, key);
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
        ("[log]", "sessions = false"),
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
    for (_, &Key { name: key, default, unit, .. }) in keys() {
        let timed = key.ends_with("_timeout")
            || key.ends_with("_interval")
            || key.ends_with("_window")
            || key.ends_with("_age")
            || key.ends_with("_delay")
            || ["window", "deadline", "leeway", "timeout"].contains(&key);
        assert_eq!(timed, unit == "duration", "{key}");
        let sized = key.ends_with("_bytes") || key.starts_with("outbox_") || key == "memory";
        assert_eq!(sized, unit == "size", "{key}");
        let in_units = default.ends_with("s\"`") || default.ends_with("m\"`");
        assert!(!timed || default == "from `[limits]`" || in_units, "{key} {default}");
    }
}

#[test]
fn the_examples_are_valid() {
    let examples: Vec<&str> =
        PAGE.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
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
