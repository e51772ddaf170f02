//! The few rules of the house that a machine can keep.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Lines of a file without its tests: past this it splits by noun.
const MOST_LINES: usize = 800;

/// Which of the project's crates a crate may use (docs/ARCHITECTURE.md).
const ARROWS: [(&str, &[&str]); 11] = [
    ("simd", &[]),
    ("registry", &[]),
    ("config", &[]),
    ("io", &[]),
    ("tls", &[]),
    ("wire", &["simd"]),
    ("hub", &["config", "registry"]),
    ("identity", &["config"]),
    ("shard", &["config", "hub", "identity", "io", "registry", "simd", "tls", "wire"]),
    ("control", &["config", "shard", "wire"]),
    ("gateway", &["config", "control", "hub", "identity", "io", "shard", "tls", "wire"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace is there")
}

/// All files below `folder` with this ending, sorted; nothing that git ignores.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with("target")
                    && !name.starts_with('.')
                    && name != "node_modules"
                    && name != "corpus"
                {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no {ending} below {}", folder.display());
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned()
}

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn files_stay_below_800_lines_without_their_tests() {
    let mut long = Vec::new();
    for path in files(&root().join("crates"), ".rs") {
        if relative(&path).contains("/tests") {
            continue;
        }
        let text = read(&path);
        let code = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        if code > MOST_LINES {
            long.push(format!("{} has {code} lines", relative(&path)));
        }
    }
    assert_none("these files split by noun", &long);
}

#[test]
fn unsafe_stands_in_simd_and_io_alone() {
    let mut found = Vec::new();
    for folder in ["crates", "benches", "fuzz", "loadtest"] {
        for path in files(&root().join(folder), ".rs") {
            let name = relative(&path);
            // This file has the word in its names.
            if ["crates/simd/", "crates/io/"].iter().any(|own| name.starts_with(own))
                || name.ends_with("/tidy.rs")
            {
                continue;
            }
            let code = |line: &&str| !line.trim_start().starts_with("//") && !line.contains("unsafe_code");
            if read(&path).lines().filter(code).any(|line| {
                line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
            }) {
                found.push(name);
            }
        }
    }
    for (name, _) in ARROWS {
        if ["simd", "io"].contains(&name) {
            continue;
        }
        let source = root().join("crates").join(name).join("src");
        let top = ["lib.rs", "main.rs"].map(|file| source.join(file)).into_iter().find(|file| file.exists());
        let top = top.expect("a crate has a root");
        if !read(&top).contains("#![forbid(unsafe_code)]") {
            found.push(format!("{} does not forbid unsafe code", relative(&top)));
        }
    }
    assert_none("unsafe code", &found);
}

#[test]
fn each_file_of_a_crate_says_what_it_is() {
    let mut silent = Vec::new();
    for (name, _) in ARROWS {
        for path in files(&root().join("crates").join(name).join("src"), ".rs") {
            if !read(&path).starts_with("//!") {
                silent.push(relative(&path));
            }
        }
    }
    assert_none("files that do not begin with `//!`", &silent);
}

#[test]
fn arrows_between_crates_point_downward() {
    let mut wrong = Vec::new();
    for (name, allowed) in ARROWS {
        let manifest = read(&root().join("crates").join(name).join("Cargo.toml"));
        let (_, used) = manifest.split_once("[dependencies]").unwrap_or_default();
        let used = used.split("\n[").next().unwrap_or_default();
        let used = used.lines().filter_map(|line| line.strip_prefix("tidegate-")?.split(['.', ' ']).next());
        for used in used {
            if !allowed.contains(&used) {
                wrong.push(format!("{name} uses {used}"));
            }
        }
    }
    assert_none("arrows that docs/ARCHITECTURE.md does not have", &wrong);
}

#[test]
fn each_dependency_has_its_reason() {
    let manifest = read(&root().join("Cargo.toml"));
    let (_, dependencies) = manifest.split_once("[workspace.dependencies]").expect("the section");
    let section = dependencies.split("\n[").next().unwrap_or_default();
    let bare: Vec<String> = section
        .lines()
        .filter(|line| line.contains(" = ") && !line.starts_with("tidegate-") && !line.starts_with('#'))
        .filter(|line| !line.contains("# "))
        .map(str::to_owned)
        .collect();
    assert_none("dependencies without a reason", &bare);
}

#[test]
fn nothing_is_left_lying_about() {
    let mut found = Vec::new();
    let tidy = Path::new(file!()).file_name().expect("this file").to_owned();
    // Split, so that this file does not find itself.
    let marks =
        [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X "].concat(), ["db", "g!("].concat()];
    let places = [["/ro", "ot/"].concat(), ["/wo", "rk/"].concat(), ["/ho", "me/"].concat()];
    for (folder, ending) in [
        ("crates", ".rs"),
        ("benches", ".rs"),
        ("fuzz", ".rs"),
        ("loadtest", ".rs"),
        ("loadtest", ".md"),
        ("scripts", ".sh"),
        ("scripts", ".py"),
        ("docs", ".md"),
        ("conformance", ".py"),
        ("conformance", ".mjs"),
        ("conformance", ".toml"),
        (".", "README.md"),
        (".", "CONTRIBUTING.md"),
        (".", "CHANGELOG.md"),
    ] {
        let folder = root().join(folder);
        if !folder.exists() {
            continue;
        }
        for path in files(&folder, ending) {
            if path.file_name() == Some(&tidy) {
                continue;
            }
            for (number, line) in read(&path).lines().enumerate() {
                let place = format!("{}:{}", relative(&path), number + 1);
                if line.ends_with([' ', '\t']) {
                    found.push(format!("{place}: white space at the end"));
                }
                if ending == ".rs" && marks.iter().any(|mark| line.contains(mark.as_str())) {
                    found.push(format!("{place}: {}", line.trim()));
                }
                if places.iter().any(|machine| line.contains(machine.as_str())) {
                    found.push(format!("{place}: a path of some machine"));
                }
            }
        }
    }
    assert_none("left lying about", &found);
}

#[test]
fn links_in_the_docs_lead_somewhere() {
    let mut broken = Vec::new();
    let mut pages = files(&root().join("docs"), ".md");
    pages.extend(
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "loadtest/README.md"].map(|page| root().join(page)),
    );
    for page in pages {
        let text = read(&page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            if !page.parent().expect("a page lies in a folder").join(path).exists() {
                broken.push(format!("{} -> {link}", relative(&page)));
            }
        }
    }
    assert_none("links to nowhere", &broken);
}
