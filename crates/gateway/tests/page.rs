//! The pages stand alone: they load nothing but the client library beside them, and each one's own policy (which names
//! its style and its script by their hashes) lets it run.

use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

const PAGES: [(&str, &str); 4] = [
    ("index.html", include_str!("../../shard/assets/index.html")),
    ("chat.html", include_str!("../../shard/assets/chat.html")),
    ("websocket.html", include_str!("../../shard/assets/websocket.html")),
    ("broadcast.html", include_str!("../../shard/assets/broadcast.html")),
];

fn between<'p>(page: &'p str, open: &str, close: &str) -> &'p str {
    let (_, rest) = page.split_once(open).unwrap();
    assert!(!rest.contains(open), "two of {open}");
    rest.split_once(close).unwrap().0
}

#[test]
fn each_policy_names_style_and_script() {
    for (name, page) in PAGES {
        let policy = between(page, "http-equiv=\"Content-Security-Policy\" content=\"", "\">");
        assert!(policy.starts_with("default-src 'none';"), "{name}: {policy}");
        let (_, script) = between(page, "<script", "</script>").split_once('>').unwrap();
        // The library comes from where the page comes from.
        let own = if script.contains("from \"./tidegate.js\"") { "'self' " } else { "" };
        for (directive, own, content) in
            [("style-src", "", between(page, "<style>", "</style>")), ("script-src", own, script)]
        {
            let expected =
                format!("{directive} {own}'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(content)));
            assert!(policy.contains(&expected), "after a change of {name} its policy says {expected}");
        }
        // Neither is covered by these hashes, so neither would work.
        assert!(!page.contains(" style=\"") && !page.contains(" onclick=\""), "{name}");
    }
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    let own = ["data:", "./", "chat.html", "websocket.html", "broadcast.html", "tidegate.js"];
    for (name, page) in PAGES {
        for reference in ["src=\"", "@import", "url(", "https://", "//cdn", "import("] {
            assert!(!page.contains(reference), "{name}: {reference}");
        }
        for link in page.split("href=\"").skip(1) {
            assert!(own.iter().any(|own| link.starts_with(own)), "{name}: {}", &link[..link.len().min(40)]);
        }
        assert!(page.len() < 20 << 10, "{name}: {} bytes", page.len());
    }
}
