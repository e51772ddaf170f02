use super::*;

const SMALL: &str = r#"
[variables]
tool = "{bin}/tool"
[[upstream]]
name = "up"
command = ["up", "{port}"]
[[server]]
name = "a"
command = ["{tool}", "{port}", "{upstream_port}", "{dir}/a.conf"]
upstream = "up"
[server.files]
"a.conf" = "{port} {braces}"
[[server]]
name = "b"
command = ["b"]
[[scenario]]
name = "s"
load = "echo -c 2"
bars = ["cpu <= 0.7 of b"]
"#;

fn parse(text: &str) -> Result<Suite, String> {
    Suite::parse(text, Path::new("/folder"), &[]).map_err(|mistake| mistake.at("s.toml", text).to_string())
}

#[test]
fn what_is_left_out_has_a_default() {
    let suite = parse(SMALL).unwrap();
    assert_eq!((&*suite.reference, suite.rounds, &suite.pins), ("a", ROUNDS, &Pins::default()));
    assert_eq!((&*suite.scenarios[0].title, suite.scenarios[0].allows_errors), ("s", false));
    assert_eq!((&*suite.servers[1].url, suite.servers[1].ready), ("ws://127.0.0.1:{port}/", Ready::Upgrade));
    assert!(suite.names["tool"].ends_with("/tool") && suite.names["suite"] == "/folder");
}

#[test]
fn a_mistake_is_told_with_its_line_and_column() {
    for (old, new, place, message) in [
        ("\"up\", \"{port}\"", "\"up\", \"{prot}\"", "6:18", "no {prot}"),
        ("name = \"b\"", "name = \"a\"", "14:8", "another server"),
        ("name = \"b\"", "nmae = \"b\"", "14:1", "unknown field `nmae`"),
        ("[\"b\"]", "[]", "14:8", "command is empty"),
        ("[\"b\"]", "[\"{upstream_port}\"]", "15:12", "no {upstream_port}"),
        ("upstream = \"up\"", "upstream = \"b\"", "10:12", "no server \"b\": up"),
        ("\"a.conf\"", "\"../a\"", "12:10", "without a folder"),
        ("echo -c 2", "echo -c none", "18:8", "none"),
        ("echo -c 2", "eko", "18:8", "eko"),
        ("echo -c 2", "echo -c {port}", "18:8", "no {port}"),
        ("echo -c 2", "echo --pid 1", "18:8", "--pid is given by the comparison"),
        ("echo -c 2", "echo --json=x.json", "18:8", "--json is given by the comparison"),
        ("echo -c 2", "echo --html x.html", "18:8", "--html is given by the comparison"),
        ("echo -c 2", "echo --quiet", "18:8", "--quiet is given by the comparison"),
        ("command = [\"b\"]", "command = [\"b\"]\narguments = [\"--pid=1\"]", "16:14", "--pid is given"),
        ("echo -c 2", "replay {suite}/none.csv", "18:8", "/none.csv: No such file"),
        ("of b", "of c", "19:9", "no server \"c\": a, b"),
        ("cpu <=", "speed <=", "19:9", "no metric \"speed\""),
        ("tool = \"{bin}/tool\"", "port = \"1\"", "3:8", "no name for a variable"),
        ("[variables]", "reference = \"x\"\n[variables]", "2:13", "no server \"x\""),
        ("[variables]", "rounds = 0\n[variables]", "2:10", "at least one"),
        ("[variables]", "run_timeout = \"5kg\"\n[variables]", "2:15", "no duration"),
        ("load =", "errors = \"some\"\nload =", "18:10", "\"fail\" or \"allow\""),
        ("command = [\"b\"]", "command = [\"b\"]\nready = \"now\"", "16:9", "\"connect\" or"),
        ("[[server]]\nname = \"b\"", "[[server]\nname = \"b\"", "13:", ""),
    ] {
        assert!(SMALL.contains(old), "{old}");
        let error = parse(&SMALL.replace(old, new)).map(|_| ()).unwrap_err();
        assert!(error.starts_with(&format!("s.toml:{place}")) && error.contains(message), "{new}: {error}");
    }
    assert!(parse("").map(|_| ()).unwrap_err().contains("[[server]]"));
}

const GROWING: &str = r#"
interleave = "scenarios"
[[server]]
name = "a"
command = ["a"]
[[server]]
name = "b"
command = ["b"]
[[scenario]]
name = "small"
load = "echo -c 2"
[[scenario]]
name = "large"
load = "echo -c 20"
bars = ["cpu / small <= 1.3", "cpu / small <= 1.0 of b", "b: p99 / small <= 2"]
"#;

#[test]
fn growth_is_from_a_scenario_of_the_same_round() {
    let suite = parse(GROWING).unwrap();
    assert_eq!(suite.interleave, Interleave::Scenarios);
    assert_eq!(parse(SMALL).unwrap().interleave, Interleave::Servers);
    for (old, new, place, message) in [
        ("\"scenarios\"", "\"rounds\"", "2:14", "\"servers\" or \"scenarios\""),
        ("\"scenarios\"", "\"servers\"", "15:9", "interleave = \"scenarios\""),
        ("cpu / small <= 1.3", "cpu / tiny <= 1.3", "15:9", "no scenario \"tiny\": small, large"),
        ("cpu / small <= 1.3", "cpu / large <= 1.3", "15:9", "from another scenario"),
        ("cpu / small <= 1.3", "cpu / small <= 1.3ms", "15:9", "is a ratio"),
        (
            "load = \"echo -c 2\"",
            "load = \"echo -c 2\"\nservers = [\"a\"]",
            "16:31",
            "\"b\" does not run \"small\"",
        ),
        (
            "load = \"echo -c 2\"",
            "load = \"echo -c 2\"\nservers = [\"b\"]",
            "16:9",
            "\"a\" does not run \"small\"",
        ),
    ] {
        assert!(GROWING.contains(old), "{old}");
        let error = parse(&GROWING.replace(old, new)).map(|_| ()).unwrap_err();
        assert!(error.starts_with(&format!("s.toml:{place}")) && error.contains(message), "{new}: {error}");
    }
}

#[test]
fn bars_about_growth_go_with_where_it_grows_from() {
    let bars = |suite: &Suite| -> Vec<String> {
        suite.scenarios.iter().flat_map(|scenario| &scenario.bars).map(|bar| bar.text.clone()).collect()
    };
    let mut suite = parse(GROWING).unwrap();
    suite.leave_scenarios(&["large".to_owned()]);
    assert!(suite.scenarios.len() == 1 && bars(&suite).is_empty());
    let mut suite = parse(GROWING).unwrap();
    suite.leave(&["a".to_owned()]);
    assert_eq!(bars(&suite), ["cpu / small <= 1.3"]);
}

#[test]
fn a_scenario_without_the_reference_has_its_own() {
    let suite = parse(&SMALL.replace("load =", "servers = [\"b\"]\nload =")).unwrap();
    assert_eq!(suite.reference_of(&suite.scenarios[0]), "b");
    let suite = parse(SMALL).unwrap();
    assert_eq!(suite.reference_of(&suite.scenarios[0]), "a");
}

#[test]
fn servers_that_are_left_out_take_their_bars_along() {
    let text = SMALL.to_owned()
        + "[[scenario]]\nname = \"t\"\nload = \"idle\"\nservers = [\"b\"]\nbars = [\"memory <= 1MiB\"]";
    let mut suite = parse(&text).unwrap();
    suite.leave(&["b".to_owned()]);
    // Of the first, its bar was about the other one.
    let bars: Vec<usize> = suite.scenarios.iter().map(|scenario| scenario.bars.len()).collect();
    assert_eq!((&*suite.reference, &*bars), ("b", &[0, 1][..]));
    let mut suite = parse(&text).unwrap();
    suite.leave(&["a".to_owned()]);
    assert_eq!((suite.servers.len(), suite.scenarios.len(), suite.scenarios[0].bars.len()), (1, 1, 0));
}

#[test]
fn suites_share_servers() {
    let folder = tempfile::tempdir().unwrap();
    let shared = "[variables]\ntool = \"x\"\nother = \"y\"\n[[upstream]]\nname = \"far\"\ncommand = [\"far\"]\n\
                  [[server]]\nname = \"a\"\ncommand = [\"theirs\"]\n\
                  [[server]]\nname = \"c\"\ncommand = [\"{other}\", \"{tool}\"]\nupstream = \"far\"\n";
    let parse = |text: &str, shared: &str| {
        fs::write(folder.path().join("shared.toml"), shared).unwrap();
        Suite::parse(text, folder.path(), &[]).map_err(|mistake| mistake.at("s.toml", text).to_string())
    };
    let names = |suite: &Suite| -> Vec<String> {
        suite.servers.iter().map(|server| format!("{} {}", server.name, server.command[0])).collect()
    };
    let include = "include = [\"shared.toml\"]\n";
    let with = |head: &str| include.to_owned() + head + SMALL;
    // All its own, but where it says which; its own come first where there are two of a name.
    assert_eq!(names(&parse(&with(""), shared).unwrap()), ["a {tool}", "b b"]);
    let suite = parse(&with("servers = [\"c\", \"b\", \"a\"]"), shared).unwrap();
    assert_eq!(names(&suite), ["c {other}", "b b", "a {tool}"]);
    assert_eq!((suite.names["other"].as_str(), suite.upstreams.len()), ("y", 2));
    assert!(suite.names["tool"].ends_with("/tool"), "its own comes first: {:?}", suite.names);
    for (head, shared, message) in [
        ("servers = [\"d\", \"b\"]", shared.to_owned(), "s.toml:2:12: there is no server \"d\": a, b, c"),
        ("servers = [\"b\", \"b\"]", shared.to_owned(), "s.toml:2:17: it is named twice"),
        (
            "servers = [\"c\", \"a\", \"b\"]",
            shared.replace("{other}", "{none}"),
            "shared.toml:12:12: there is no {none}",
        ),
        ("servers = [\"c\"]", shared.replace("[[server]]", "[[scenario]]"), "shared.toml:7:3: "),
    ] {
        let error = parse(&with(head), &shared).map(|_| ()).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
    let error = parse(&with("").replace("shared", "nothing"), shared).map(|_| ()).unwrap_err();
    assert!(error.starts_with("s.toml:1:12: ") && error.contains("nothing.toml: No such file"), "{error}");
}

#[test]
fn variables_can_be_set_from_outside() {
    let set = |name: &str| Suite::parse(SMALL, Path::new("/"), &[(name.to_owned(), "/x".to_owned())]);
    assert_eq!(set("tool").unwrap().names["tool"], "/x");
    let mistake = set("tol").map(|_| ()).unwrap_err();
    assert!(mistake.message.contains("tool"), "{mistake:?}");
}
