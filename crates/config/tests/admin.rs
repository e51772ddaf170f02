//! `[admin]` alone: what is wrong elsewhere in the file keeps nobody from asking the gateway that runs.

use std::fs;

use tidegate_config::{Admin, Problem, load, load_admin};

/// What is read of `text` as a file; `FOLDER` in it is that file's.
fn read(text: &str) -> Result<Option<Admin>, Vec<Problem>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    fs::write(folder.path().join("token"), "0123456789abcdef").unwrap();
    fs::write(&path, text.replace("FOLDER", folder.path().to_str().unwrap())).unwrap();
    assert_eq!(load(&path).is_err(), text.contains("# bad"), "{text}");
    load_admin(&path)
}

const LISTENER: &str = "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n";
const ADMIN: &str = "[admin]\nbind = '127.0.0.1:7'\ntoken_file = 'FOLDER/token'\n";
const ROUTE: &str = "[[route]]\npath = '/'\necho = {}\n";

#[test]
fn the_rest_of_the_file_may_have_any_mistakes() {
    for text in [
        format!("{LISTENER}{ADMIN}{ROUTE}"),
        format!("{LISTENER}{ADMIN}[[route]]\npth = '/'  # bad\necho = {{}}\n"),
        format!("{LISTENER}{ADMIN}[[route]]\npath = /  # bad\necho = {{}}\n"),
        format!("{LISTENER}{ROUTE}path = '/b'  # bad\n{ADMIN}"),
        format!("{ROUTE}# bad: neither a version nor a listener\n{ADMIN}"),
        format!(
            "verson = 1  # bad\n{LISTENER}tls = {{ certificate_file = '/none', key_file = '/none' }}\n{ADMIN}"
        ),
        format!(
            "# bad\nadmin = {{ bind = '127.0.0.1:7', token_file = 'FOLDER/token' }}\nshards = x\n{ROUTE}"
        ),
    ] {
        let admin = read(&text).unwrap_or_else(|problems| panic!("{text}: {problems:#?}"));
        let admin = admin.unwrap_or_else(|| panic!("{text}"));
        assert_eq!(admin.bind.to_string(), "127.0.0.1:7");
        assert!(admin.token.is_some_and(|token| token.is(b"0123456789abcdef")), "{text}");
    }
}

#[test]
fn what_is_wrong_with_the_section_itself_is_told() {
    for (admin, told) in [
        ("[admin]  # bad\nbnd = '127.0.0.1:7'\n", &["unknown key `bnd`"][..]),
        ("[admin]  # bad\ntoken_file = 'FOLDER/none'\n", &["does not exist"]),
        ("[admin]  # bad\nbind = '0.0.0.0:7'\n", &["needs `token_file`"]),
        // Not TOML: what stands there may be something else.
        ("[admin]\nbind = unix:/x  # bad\n", &["t.toml:5:"]),
        ("[ admin ]\nbind = 'unix:/x'\nbind = 'unix:/y'  # bad\n", &["t.toml:6:"]),
        ("admin = 7  # bad\n", &["unknown key `admin`"]),
        // It may be what is meant.
        ("[admn]  # bad\n", &["did you mean `admin`"]),
        ("[admin  # bad\n", &["t.toml:4:"]),
    ] {
        let text = format!("{LISTENER}{admin}{ROUTE}");
        let problems = read(&text).expect_err(&text);
        let headlines: Vec<String> = problems.iter().map(Problem::headline).collect();
        let all = headlines.join("\n");
        assert!(told.iter().all(|told| all.contains(told)), "{text}{all}");
    }
    // Its own mistakes alone, where that is certain.
    let bad = "[[route]]\npth = '/'\n";
    let problems = read(&format!("{LISTENER}[admin]  # bad\nbnd = '127.0.0.1:7'\n{bad}")).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
}

#[test]
fn a_sound_file_need_not_have_one() {
    assert_eq!(read(&format!("{LISTENER}{ROUTE}")), Ok(None));
}
