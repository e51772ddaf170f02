//! Every mistake has its line, its column and its words: `problems.txt` holds bad configurations with exactly what is
//! said about them. After a deliberate change of words, `TIDEGATE_BLESS=1 cargo test -p tidegate-config` writes them anew.

use std::{fmt::Write as _, fs, path::Path};

/// The least number of cases: none gets lost unseen.
const CASES: usize = 150;

struct Case<'t> {
    name: &'t str,
    text: &'t str,
    expected: &'t str,
}

/// `=== name`, the file, `---`, the headlines.
fn cases(table: &str) -> Vec<Case<'_>> {
    let (_, table) = table.split_once("=== ").expect("at least one case");
    let case = |part| {
        let (name, rest) = str::split_once(part, '\n').expect("a name");
        let (text, expected) = rest.split_once("---\n").expect("a file and what is said about it");
        Case { name, text, expected }
    };
    table.split("\n=== ").map(case).collect()
}

/// Lines of a file are written as they are, but for what a text file cannot show.
fn unescape(text: &str) -> String {
    text.replace("<TAB>", "\t").replace("<ESC>", "\u{1b}").replace("<CR>", "\r").replace("<NUL>", "\0")
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/problems.txt");
    let table = fs::read_to_string(&path).unwrap();
    let cases = cases(&table);
    assert!(cases.len() >= CASES, "{} cases", cases.len());

    let mut blessed = table.split("=== ").next().unwrap().to_owned();
    let mut wrong = String::new();
    for (number, Case { name, text, expected }) in cases.iter().enumerate() {
        let got = match tidegate_config::parse(&unescape(text), "t.toml") {
            Ok(_) => "valid\n".to_owned(),
            Err(problems) => {
                assert!(!problems.is_empty(), "{name}: refused without a problem");
                problems.iter().map(|problem| problem.headline() + "\n").collect()
            }
        };
        let gap = if number == 0 { "" } else { "\n" };
        write!(blessed, "{gap}=== {name}\n{text}---\n{got}").unwrap();
        if got.trim_end() != expected.trim_end() {
            write!(wrong, "\n{name}:\nexpected\n{expected}\ngot\n{got}").unwrap();
        }
    }
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        fs::write(&path, blessed).unwrap();
    } else {
        assert!(wrong.is_empty(), "{wrong}");
    }
    let mut names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "two cases of one name");
}

#[test]
fn the_line_is_shown_with_a_caret_under_the_mistake() {
    let text = "version = 1\n[limits]\n\thead_byte = \"16KiB\" # ü\nmax_sessions = \"många\"\n";
    let problems = tidegate_config::parse(text, "dir/t.toml").unwrap_err();
    let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let head = "dir/t.toml:3:2: unknown key `head_byte` in [limits] (did you mean `head_bytes`?)\n\
                3 |  head_byte = ******* #**\n  |  ^^^^^^^^^";
    let sessions = "dir/t.toml:4:16: `max_sessions` must be a whole number, not a string\n\
                    4 | max_sessions = \"många\"\n  |                ^^^^^^^";
    assert!(shown.contains(&head.to_owned()), "{shown:#?}");
    assert!(shown.contains(&sessions.to_owned()), "{shown:#?}");
}

#[test]
fn a_long_line_is_cut_round_the_mistake() {
    let text = format!("version = 1\ntrusted = [{}\"10.0.0.1/8\"]\n", "\"10.0.0.0/8\", ".repeat(40));
    let problems = tidegate_config::parse(&text, "t.toml").unwrap_err();
    let problem = problems.iter().find(|problem| problem.message.contains("bits")).unwrap();
    assert_eq!((problem.line, problem.column), (2, 12 + 40 * 14));
    let shown = problem.to_string();
    let rows: Vec<&str> = shown.lines().collect();
    assert!(rows[1].chars().count() <= 130, "{shown}");
    let caret = rows[2].find('^').unwrap();
    assert!(rows[1][caret..].starts_with("\"10.0.0.1/8\""), "{shown}");
    assert_eq!(rows[2].matches('^').count(), "\"10.0.0.1/8\"".len());
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let headline = |name: &str| {
        let problems = tidegate_config::load(folder.path().join(name)).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert_eq!((problems[0].line, problems[0].column), (0, 0));
        assert_eq!(problems[0].to_string(), problems[0].headline());
        problems[0].headline().replace(&format!("{}/", folder.path().display()), "")
    };
    assert_eq!(headline("none.toml"), "none.toml: there is no such file");
    fs::create_dir(folder.path().join("folder")).unwrap();
    assert_eq!(headline("folder"), "folder: is not a regular file");
    fs::write(folder.path().join("file"), "").unwrap();
    assert!(headline("file/t.toml").starts_with("file/t.toml: cannot be read: "));
    fs::write(folder.path().join("long.toml"), "#".repeat((4 << 20) + 1)).unwrap();
    assert_eq!(headline("long.toml"), "long.toml: is longer than 4 MiB");
    fs::write(folder.path().join("good.toml"), tidegate_config::EMBEDDED).unwrap();
    assert_eq!(tidegate_config::load(folder.path().join("good.toml")).unwrap(), tidegate_config::embedded());
}

#[test]
fn a_file_that_is_not_utf8_is_told_with_its_first_wrong_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    let shown = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let problems = tidegate_config::load(&path).unwrap_err();
        assert_eq!(problems.len(), 1);
        problems[0].to_string().replace(&format!("{}/", folder.path().display()), "")
    };
    let told = |byte: &str, at: usize| {
        format!("the file is UTF-8, and the byte {byte} here is not (byte {at} of the line)")
    };
    assert_eq!(
        shown(b"version = 1\n# \xc3\xbc gr\xfcn, \xfc\n"),
        format!("t.toml:2:7: {}\n2 | #**********\n  |       ^", told("0xfc", 8))
    );
    // The first byte, the last one, and a character that is cut off.
    assert!(shown(b"\xff\xfev\0e\0r\0").starts_with(&format!("t.toml:1:1: {}", told("0xff", 1))));
    assert!(shown(b"version = 1\r\n\xe2\x82").starts_with(&format!("t.toml:2:1: {}", told("0xe2", 1))));
    assert!(shown(b"version = 1\n\n \x80").starts_with(&format!("t.toml:3:2: {}", told("0x80", 2))));
    // A key on that line is still nobody's to see.
    let key = shown(b"version = 1\n[identity.hook]\nsecret = 's3cret-s3cret-\xfc-s3cret'\n");
    assert!(key.starts_with("t.toml:3:25: ") && !key.contains("s3cret"), "{key}");
}

/// A mistake beside a key is shown with its line, and that goes into logs.
#[test]
fn no_key_is_shown() {
    let keys = |keys: &str| {
        let text =
            format!("version = 1\n[[route]]\npath = '/p'\npublish = {{ publish = ['**'], keys = {keys} }}\n");
        let problems = tidegate_config::parse(&text, "t.toml").unwrap_err();
        let shown: Vec<String> = problems.iter().map(|problem| format!("{problem} {problem:?}")).collect();
        assert!(shown.iter().any(|shown| shown.contains("t.toml:4:")), "{shown:#?}");
        assert!(!shown.iter().any(|shown| shown.contains("s3cret")), "{shown:#?}");
    };
    for key in ["s3cret", "s3cret-s3cret-s3cret", "s3cret s3cret s3cret"] {
        keys(&format!("[{{ name = 'a', key = '{key}', publish = ['a//b'] }}]"));
        keys(&format!("[{{ name = 'a', kye = '{key}' }}]"));
        keys(&format!("[{{ name = 'a', key = \"{key}\" publish = [] }}]"));
        keys(&format!("[{{ name = 'a', key = \"{key} }}]"));
        keys(&format!("[{{ name = 'a', key = ['{key}'] }}]"));
        keys(&format!("['{key}']"));
        keys(&format!("'{key}'"));
        keys(&format!("[{{ name = 'a', key = '{key}' }}, {{ name = 'b', key = '{key}' }}]"));
    }
}

#[test]
fn what_talks_to_a_terminal_is_shown_in_its_place() {
    let text = "version = 1\n[limits]\ncolour = '\u{1b}[31m\u{9b}\u{202e}\u{200b}' \0\n";
    let problems = tidegate_config::parse(text, "\u{1b}[2J.toml").unwrap_err();
    for problem in &problems {
        assert!(!problem.to_string().contains(|c: char| c.is_control() && c != '\n'), "{problem:?}");
        assert!(problem.headline().starts_with("\\u{1b}[2J.toml:3:"), "{problem:?}");
        assert_eq!(problem.file, "\u{1b}[2J.toml");
    }
    // Each character keeps its place, so that the caret is below the right one.
    let text = "version = 1\ntrusted = ['\u{9b}\u{202e}\u{200b}', 'x']\n";
    let problems = tidegate_config::parse(text, "t.toml").unwrap_err();
    let shown =
        problems.iter().find(|problem| (problem.line, problem.column) == (2, 19)).unwrap().to_string();
    let row = "2 | trusted = ['\u{fffd}\u{fffd}\u{fffd}', 'x']";
    assert!(shown.ends_with(&format!("\n{row}\n  | {}^^^", " ".repeat(18))), "{shown}");
}

/// Each would take as long as all before it, if its place were counted from the start of its line: minutes.
#[test]
fn many_mistakes_on_one_line_take_no_longer_than_on_many() {
    let count = 100_000;
    let text = format!("version = 1\ntrusted = [{}]\n", "'ü', ".repeat(count));
    let problems = tidegate_config::parse(&text, "t.toml").unwrap_err();
    let last = problems.iter().rfind(|problem| problem.line == 2).unwrap();
    assert_eq!(last.column, 12 + 5 * (count - 1));
    let shown = last.to_string();
    assert!(shown.ends_with(&format!(" | {}^^^", " ".repeat(60))), "{shown}");
}

/// A value may be as long as the file: what is told of it is not.
#[test]
fn a_long_value_is_not_repeated() {
    let route = "[[route]]\npath = '/e'\necho = {}\n";
    let long = "7".repeat(100_000);
    let words = (0..20_000).map(|n| format!("'s{n}'")).collect::<Vec<_>>().join(", ");
    let files = [
        format!("shards = {long}\n[[listener]]\nbind = '{long}'\n{route}"),
        format!("io = '{long}'\ntrusted = '{long}'\n{route}"),
        format!("trusted = ['{long}']\n{long} = 1\n{route}"),
        format!("[limits]\nping_interval = {long}\nhead_bytes = '{long}B'\nclose_timeout = '{long} sec'\n"),
        format!("[limits]\nmessage_bytes = '{long}kb'\nidle_timeout = 0x{long}\n"),
        format!("[[listener]]\nbind = '/{long}'\n[[listener]]\nbind = 'unix:{long}'\n{route}"),
        format!("[[route]]\nhost = 'http://{long}'\npath = '{long}'\n[[route]]\npath = '/{long}*'\n"),
        format!("[[route]]\npath = '/{long}?a'\norigins = ['{long}', 'ws://{long}', '{long}.test:{long}']\n"),
        format!("[[route]]\npath = '/{long}'\necho = {{}}\n[[route]]\npath = '/{long}'\npage = {{}}\n"),
        format!("[[route]]\npath = '/e'\nsubprotocols = [{words}]\necho = {{}}\n").repeat(2),
        format!("[[topic]]\nname = '{long}'\nslow = '{long}'\n[topics]\nmemory = '{long}'\n"),
        (0..500).map(|n| format!("[[topic]]\nname = 'x/{n}/*'\n")).collect::<String>()
            + &(0..500).map(|n| format!("[[topic]]\nname = 'x/{n}/y'\n")).collect::<String>(),
        format!(
            "[[route]]\npath = '/t'\ntopics = {{ subscribe = ['{long}', {words}], deflate = '{long}' }}\n"
        ),
        format!(
            "[[route]]\npath = '/p'\npublish = {{ publish = ['a'], keys = [{{ name = ' {long}', key = '{long}' }}] }}\n"
        ),
        format!(
            "[[route]]\npath = '/p'\npublish = {{ publish = ['a'], keys = [{{ name = '{long}', key_file = '{long}' }}] }}\n"
        ),
        words
            .split(", ")
            .map(|word| format!("[[route]]\npath = '/e'\nsubprotocols = [{word}]\n"))
            .take(1000)
            .collect::<String>()
            + &format!(
                "[[route]]\npath = '/e'\nsubprotocols = [{}]\n",
                words.split(", ").take(1000).collect::<Vec<_>>().join(", ")
            ),
        format!(
            "[[route]]\npath = '/p'\nproxy = {{ upstreams = ['{long}', 'http://{long}', 'ws://{long}/x', 'unix:{long}', 'unix://{long}', 'ws://a:{long}'] }}\n"
        ),
        format!(
            "[[route]]\npath = '/p'\nproxy = {{ upstreams = ['ws://a'], balance = 'hash', hash_on = 'headre:{long}', source = ['{long}'] }}\n"
        ),
    ];
    for file in files {
        let problems = tidegate_config::parse(&format!("version = 1\n{file}"), "t.toml").unwrap_err();
        for problem in problems {
            let headline = problem.headline();
            assert!(headline.chars().count() <= 1500, "{} characters: {headline:.2000}", headline.len());
        }
    }
    let number = tidegate_config::parse(&format!("shards = {long}\n"), "t.toml").unwrap_err();
    let told = format!("not {}…", "7".repeat(80));
    assert!(number.iter().any(|problem| problem.message.ends_with(&told)), "{number:.2000?}");
}

/// The parser refuses a key of so many parts without its place, which then is not told as 1:1.
#[test]
fn a_place_that_is_not_known_is_not_made_up() {
    let deep = vec!["a"; 100].join(".");
    let text = format!("version = 1\n[limits]\nmax_sessions = 'x'\n{deep} = 1\n");
    let problems = tidegate_config::parse(&text, "t.toml").unwrap_err();
    let headlines: Vec<String> = problems.iter().map(tidegate_config::Problem::headline).collect();
    assert_eq!(
        headlines,
        [
            "t.toml: recursion limit (the TOML parser does not tell where)",
            "t.toml:3:16: `max_sessions` must be a whole number, not a string",
        ]
    );
    // Where the parser tells the place, it is told.
    let text = format!("version = 1\ntrusted = {}\n", "[".repeat(200));
    let problems = tidegate_config::parse(&text, "t.toml").unwrap_err();
    assert!(problems[0].headline().starts_with("t.toml:2:9"), "{}", problems[0].headline());
}

#[test]
fn no_mistake_is_told_with_what_may_be_a_secret() {
    const SECRET: &str = "Zq7Zq7Zq7Zq7Zq7Zq7Zq7Zq7Zq7Zq7Zq7Zq7";
    let listener = "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[[route]]\npath = '/'\n";
    let route = |rest: &str| format!("{listener}{rest}\n");
    let identity = |rest: &str| format!("{listener}echo = {{}}\n[[identity]]\nname = 'u'\n{rest}\n");
    for text in [
        identity("sercet = '%'"),
        identity("Secret = '%'"),
        identity("sekret = [\n '%',\n '%']"),
        identity("shared = '%'"),
        identity("shared = { value = '%', other = ['%'] }"),
        identity("secret_file = '%'"),
        identity("key_file = '%'"),
        identity("token = '%'"),
        identity("pass = 'a'\nsercet = '%"),
        identity("hook = { url = 'https://u:%@a/' }"),
        identity("hook = { url = 'https://a/', token = '%' }"),
        identity("hook = { url = 'http://a.test/?k=%' }"),
        identity("hook = { url = 'htps://a.test/?k=%&l=% %' }"),
        identity("jwks_url = 'http://a.test/?k=%'"),
        identity("jwks_url = 'https://a.test/#%'"),
        route("proxy = { upstreams = ['ws://u:%@h:1', 'http://u:%@h', 'u:%@h:1', 'wss://%@h'] }"),
        route("proxy = { upstreams = 'ws://u:%@h:1' }"),
        // Whatever is in a password, and where its `@` is missing or its text ends in it.
        route("proxy = { upstreams = [\"ws://u:a'%@h:1/\", 'ws://u:a\"%@h:1/', 'ws://u:a %@h:1/'] }"),
        route("proxy = { upstreams = ['ws://u:%', 'ws://u:%:1', 'ws://u:%.h:1/', 'ws://u:%/'] }"),
        route("proxy = { upstreams = [\"ws://u:%\"a@h:1\"] }"),
        identity("jwks_url = 'https://u:%.test/'"),
        identity("hook = { url = 'https://u:%"),
        identity("issuer = 7\nidentity = 1\n[[route]]\npath = '/b'\nidentity = '''u'\nsecret = '%'\n'''"),
        route("publish = { publish = ['**'], keys = [{ name = 'a', kye = '%', publsh = '%' }] }"),
        route("publish = { publish = ['**'], keys = [\n '%',\n 7, '%' ] }"),
        route("publish = { publish = ['**'], keys = \"\"\"\n%\n\"\"\" }"),
        route("publish = { publish = ['**'], keys = [{ name = 'a', key = \"\"\"\n%\n\\q% \"\"\" }] }"),
        identity("secret = '''\n%\n%\u{1}'''"),
        // Where the `=` is wrong, nothing says what a text is.
        identity("secret: \"%\""),
        identity("secret \"%\""),
        identity("secret '% %' 7"),
        identity("secret: %"),
        identity("secret %"),
        identity("secret => '%'"),
        identity("secret == '%'"),
        identity("secret: '%', name = 'a', algorithms = ['%']"),
        identity("\"secret: '%'\""),
        identity("- secret: '%'"),
        identity("{ \"secret\": \"%\" }"),
        identity("\"secr\\u0065t\" = \"% x\""),
        identity("\"key_f\\u0069le\" = \"%\" 7"),
        identity("secret\n\"%\""),
        identity("secret = \"\n%\""),
        identity("secret = \"\n%=\""),
        identity("secret = \"\n%==\""),
        identity("secret = 'a' '%'"),
        identity("secret = 'a', '%'"),
        identity("algorithms = ['HS256'], secret: '%'"),
        identity("algorithms = ['HS256' secret: '%']"),
        identity("algorithms = ['HS256', { secret = '%' }]"),
        identity("algorithms = ['HS256', ['%'] ]"),
        identity("name '%'\n\"%\" = 1 2"),
        identity("sercet = 1 # '%'"),
        identity("foo = '%'"),
        identity("issuer = 7 # secret = '%'"),
        identity("algorithms = [ # %\n 7, # '%'\n ]"),
        identity("# secret = '%' \u{1}"),
        identity("[identity.hook]\nurl: 'https://a/'\nsecret: '%'"),
        route("echo = {}\n[admin]\nauth = '%'"),
        route("echo = {}\n[admin]\nauth = ['%', '%']\nbind: '%'"),
        route("echo = {}\nclaims = { secret = ['%'], a = [{ b = '%' }], '%'\n}"),
        route("publish = { publish = ['**'], keys = [{ name = 'a', key: '%' }, { name: '%' }] }"),
        route("publish = { publish = ['**'], keys = [\n{ name = 'a', key: '%' },\n{ '%' } ] }"),
        route("echo = { token = '%', api_key = '%', password = '%' }"),
        route("echo = {}\n[admin]\ntoken = '%'"),
        route("echo = {}\n[admin]\nbind = '127.0.0.1:1'\ntoken_file = '%'"),
        route("echo = {}\n[admin]\ntoken = '%'\nbind = 1 2"),
    ] {
        let problems = tidegate_config::parse(&text.replace('%', SECRET), "t.toml").unwrap_err();
        for problem in &problems {
            let shown = format!("{problem}{}{:?}", problem.headline(), problem.suggestion);
            assert!(!shown.contains(&SECRET[..8]), "{shown}");
        }
    }
    // What is none is shown.
    let problems = tidegate_config::parse(
        &route("proxy = { upstreams = ['http://a.test:80'], balance = 'S', balanse = 'S' }"),
        "t.toml",
    );
    let shown: Vec<String> = problems.unwrap_err().iter().map(ToString::to_string).collect();
    assert!(shown.iter().any(|shown| shown.contains("did you mean `ws://a.test:80`?")), "{shown:#?}");
    for (rest, shown) in [
        (
            "proxy = { upstreams = [\n'http://a.test:80', # a\n'ws://b.test:80', 7]}",
            " | 'http://a.test:80', #**\n",
        ),
        ("origins = [\n'https://a.test/b']\necho = {}", " | 'https://a.test/b']\n"),
        ("echo = {}\nbind = 127.0.0.1:80", " | bind = 127.0.0.1:80\n"),
        ("echo = {}\nsubprotocols = [\"a\" ]]", " | subprotocols = [*** ]]\n"),
        ("echo = {}\nhost: a.test", " | host: *.****\n"),
        ("echo = {}\nclaims = { role = [7, 'a'] }", " | claims = { role = [*, 'a'] }\n"),
        ("echo = {}\n[route.limits]\nhead_byte = 7", " | head_byte = 7\n"),
        ("echo = {}\n[route.limit]\nhead_byte = 7", " | [route.limit]\n"),
    ] {
        let problems = tidegate_config::parse(&route(rest), "t.toml").unwrap_err();
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(told.iter().any(|told| told.contains(shown)), "{shown} {told:#?}");
    }
    assert!(
        shown.iter().all(|shown| shown.contains("'http://a.test:80'], balance = 'S', balanse = *** }")),
        "{shown:#?}"
    );
}
