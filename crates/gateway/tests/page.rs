//! The page stands alone: it loads nothing, and its own policy (which names its style and its script by their hashes)
//! lets it run.

use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("../../shard/assets/index.html");

fn between<'p>(open: &str, close: &str) -> &'p str {
    let (_, rest) = PAGE.split_once(open).unwrap();
    assert!(!rest.contains(open), "two of {open}");
    rest.split_once(close).unwrap().0
}

#[test]
fn the_policy_names_style_and_script() {
    let policy = between("http-equiv=\"Content-Security-Policy\" content=\"", "\">");
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    for (directive, content) in
        [("style-src", between("<style>", "</style>")), ("script-src", between("<script>", "</script>"))]
    {
        let expected = format!("{directive} 'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(content)));
        assert!(policy.contains(&expected), "after a change of the page its policy says {expected}");
    }
    // Neither is covered by these hashes, so neither would work.
    assert!(!PAGE.contains(" style=\"") && !PAGE.contains(" onclick=\""));
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    for reference in ["src=\"", "@import", "url(", "https://", "//cdn", "fetch(", "import("] {
        assert!(!PAGE.contains(reference), "{reference}");
    }
    let links: Vec<&str> = PAGE.split("href=\"").skip(1).collect();
    assert!(links.iter().all(|link| link.starts_with("data:")), "{links:?}");
    assert!(PAGE.contains("location.host"));
    assert!(PAGE.len() < 16 << 10, "{} bytes: it is answered from one buffer", PAGE.len());
}
