//! Keys of publishers: read with the configuration, and told where others may read them.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tidegate_config::{Action, Config, Problem, PublishKey, load, parse};

/// A folder with a configuration whose one route has these keys.
fn folder(keys: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys.replace("FOLDER", folder.path().to_str().unwrap());
    let text = format!(
        "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[[route]]\npath = '/publish/*'\n\
         [route.publish]\npublish = ['**']\n{keys}\n"
    );
    let path = folder.path().join("t.toml");
    write(&path, &text, 0o600);
    (folder, path)
}

fn write(path: &Path, content: &str, mode: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn keys(config: Config) -> Vec<PublishKey> {
    match config.routes.into_iter().next().map(|route| route.action) {
        Some(Action::Publish(publish)) => publish.keys,
        other => panic!("{other:?}"),
    }
}

fn headlines(path: &Path, problems: &[Problem]) -> Vec<String> {
    let folder = path.parent().unwrap().display().to_string();
    problems.iter().map(|problem| problem.headline().replace(&folder, "FOLDER")).collect()
}

const TWO: &str = "[[route.publish.keys]]\nname = 'one'\nkey_file = 'FOLDER/one'\n\
                   [[route.publish.keys]]\nname = 'two'\nkey_file = 'FOLDER/two'";

#[test]
fn key_files_are_read_with_the_file_alone() {
    let (folder, path) = folder(TWO);
    let problems = load(&path).unwrap_err();
    let expected = [
        "FOLDER/t.toml:10:12: the key file does not exist",
        "FOLDER/t.toml:13:12: the key file does not exist",
    ];
    assert_eq!(headlines(&path, &problems), expected);

    // Its text alone opens nothing, and believes nobody.
    let text = fs::read_to_string(&path).unwrap();
    let unread = keys(parse(&text, "t.toml").unwrap());
    assert!(unread.iter().all(|key| !key.secret.is(b"0123456789abcdef") && !key.secret.is(b"")));

    write(&folder.path().join("one"), "0123456789abcdef\n", 0o600);
    write(&folder.path().join("two"), "fedcba9876543210", 0o640);
    let config = load(&path).unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let both = keys(config);
    assert!(both[0].secret.is(b"0123456789abcdef") && both[1].secret.is(b"fedcba9876543210"));
    assert!(!both[0].secret.is(b"fedcba9876543210") && !both[1].secret.is(b"fedcba9876543210\n"));
    assert!(!format!("{both:?}").contains("abcdef"), "{both:?}");
}

#[test]
fn files_with_the_same_key_are_told() {
    let (folder, path) =
        folder(&format!("{TWO}\n[[route.publish.keys]]\nname = 'three'\nkey = '0123456789abcdef'"));
    write(&folder.path().join("one"), "0123456789abcdef\n", 0o600);
    write(&folder.path().join("two"), "  0123456789abcdef", 0o600);
    let expected = [
        "FOLDER/t.toml:13:12: the key at line 10 is the same",
        "FOLDER/t.toml:16:7: the key at line 10 is the same",
    ];
    assert_eq!(headlines(&path, &load(&path).unwrap_err()), expected);
}

#[test]
fn what_others_may_read_is_warned_of() {
    let (folder, path) = folder(TWO);
    write(&folder.path().join("one"), "0123456789abcdef", 0o644);
    write(&folder.path().join("two"), "fedcba9876543210", 0o600);
    let config = load(&path).unwrap();
    let expected =
        ["FOLDER/t.toml:10:12: the key file's mode 0644 lets others read or change it: chmod 600, or 640"];
    assert_eq!(headlines(&path, &config.warnings), expected);

    // The file itself, only where a key stands in it.
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(headlines(&path, &load(&path).unwrap().warnings), expected);
    let (_folder, path) = self::folder("[[route.publish.keys]]\nname = 'one'\nkey = '0123456789abcdef'");
    assert!(load(&path).unwrap().warnings.is_empty());
    fs::set_permissions(&path, Permissions::from_mode(0o604)).unwrap();
    let warnings = load(&path).unwrap().warnings;
    let expected = "FOLDER/t.toml:10:7: this file holds a key, and its mode 0604 lets others read or change it: \
                    use `key_file`, or chmod 640";
    assert_eq!(headlines(&path, &warnings), [expected]);
    assert!(!warnings[0].to_string().contains("abcdef"), "{}", warnings[0]);
}

#[test]
fn presence_that_no_topic_keeps_is_warned_of() {
    let config = |rule: &str| {
        let text = format!(
            "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[[topic]]\nname = 'a'\n{rule}\n\
             [[route]]\npath = '/t'\ntopics = {{ subscribe = ['**'], presence = ['**'] }}\n\
             [[route]]\npath = '/p'\npoll = {{ subscribe = ['**'], presence = ['a'] }}\n"
        );
        parse(&text, "t.toml").unwrap().warnings
    };
    assert!(config("presence = true").is_empty());
    let warnings: Vec<String> = config("presence = false").iter().map(Problem::headline).collect();
    let expected = [
        "t.toml:9:32: no topic keeps presence: that needs a [[topic]] with `presence = true`",
        "t.toml:12:30: no topic keeps presence: that needs a [[topic]] with `presence = true`",
    ];
    assert_eq!(warnings, expected);
}
