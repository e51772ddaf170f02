use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::*;

fn about() -> About {
    About { command: "tidegate-loadtest echo ws://h/".into(), ended: "today".into(), machine: "here".into() }
}

fn spread() -> Value {
    let steps = [(0.0, 20.0), (50.0, 40.0), (90.0, 60.0), (99.0, 200.0), (99.9, 900.0), (100.0, 4000.0)];
    let steps: Vec<Value> =
        steps.iter().map(|(percentile, us)| json!({"percentile": percentile, "us": us})).collect();
    json!({"count": 5000, "min_us": 20.0, "mean_us": 44.0, "p50_us": 40.0, "p90_us": 60.0, "p99_us": 200.0,
           "p99_9_us": 900.0, "max_us": 4000.0, "spectrum": steps})
}

/// A report with a bit of everything.
fn report(seconds: u32) -> Value {
    let second = |at: u32| {
        json!({"at_s": at, "phase": if at < 3 { "warm-up" } else { "measuring" }, "open": 100, "pending": 0,
               "handshakes": 0, "messages": 5000 + at % 7, "errors": u32::from(at == 4), "p50_us": 40.0, "p99_us": 150.0,
               "max_us": 1000.0, "server_cores": 0.5, "server_memory_bytes": 1 << 24})
    };
    json!({
        "format": 1, "tool": "tidegate-loadtest", "version": "1.2.3", "scenario": "echo", "unit": "message", "url": "ws://h/",
        "address": "127.0.0.1:9", "interrupted": true,
        "settings": {"connections": 100, "duration_s": 20.0, "rate_per_s": 5000.0, "depth": null, "kind": "binary", "seed": 18_446_744_073_709_551_615_u64},
        "measured_s": 5.0, "ended_early_s": 4.5,
        "sessions": {"opened": 100},
        "messages": {"answered": 5000, "received": 5000, "rate_per_s": 5000.0, "payload_bytes_per_s": 320_000.0},
        "latency": spread(),
        "handshake": spread(),
        "storms": [{"up": 10, "until_up_s": 0.5, "handshakes_per_s": 20.0}],
        "errors": {"total": 1, "by_kind": {"lost": 1, "garbage": 0}, "reasons": {"lost": "<why>"}, "statuses": {"503": 2}, "close_codes": {"1011": 3}},
        "server": {"cpu_ns_per_message": 1234.0, "memory_most_bytes": 1 << 24},
        "session_memory": {"user_bytes": 400.0, "points": [{"sessions": 25, "user_bytes": 4096, "kernel_bytes": null},
                                                           {"sessions": 50, "user_bytes": 16_384, "kernel_bytes": null}]},
        "generator": {"was_the_limit": true, "lag": spread()},
        "seconds": (1..=seconds).map(second).collect::<Vec<_>>(),
        "assertions": [{"condition": "p99<5ms", "holds": false, "value": 2e5, "shown": "200 µs"}],
    })
}

#[test]
fn the_policy_names_the_script_and_forbids_all_else() {
    let hash = format!("sha256-{}", STANDARD.encode(Sha256::digest(SCRIPT)));
    assert_eq!(SCRIPT_HASH, hash, "the script has changed");
    let html = Page::of(&report(10), &about());
    assert!(html.contains("default-src 'none'") && html.contains(&format!("script-src '{hash}'")));
    for fetched in ["http:", "https:", "//", "src=", "@import", "url(", "<link rel=\"stylesheet\""] {
        let known = html.replace(SCRIPT, "").replace("ws://", "");
        assert!(!known.contains(fetched), "{fetched}");
    }
}

#[test]
fn plots_and_tables_show_what_was_measured() {
    let html = Page::of(&report(10), &about());
    for plot in [
        "Latency",
        "Messages",
        "Sessions",
        "Errors",
        "Server CPU",
        "Server memory",
        "Latency, percentiles",
        "Handshake, percentiles",
        "Memory by sessions",
    ] {
        assert_eq!(html.matches(&format!("<figcaption><b>{plot}</b>")).count(), 1, "{plot}");
    }
    for text in [
        "interrupted",
        "not the server, was the limit",
        "no session was left after 4.50 s of 20.0 s",
        "Does not hold: p99&lt;5ms",
        "200 µs</td><td class=\"bad\">no",
        "no answer, though later messages were answered",
        "503",
        "1011",
        "1.23 µs",
        "18446744073709551615",
        "<th scope=\"row\">99.9 %</th><td>900 µs</td>",
        "lag of the generator",
        "tidegate-loadtest 1.2.3",
        "<pre>tidegate-loadtest echo ws://h/</pre>",
        "warm-up",
        "Storms",
    ] {
        assert!(html.contains(text), "{text}");
    }
}

#[test]
fn what_a_report_has_besides_is_shown_too() {
    let mut report = report(3);
    report["fanout"] = json!({"deliveries_per_s": 9000.0, "first": spread(), "last": spread(), "topics": [{"name": "a", "lost": 3}]});
    report["cipher"] = json!("TLS13");
    report["seconds"][0]["deliveries"] = json!(7);
    report["seconds"][1]["deliveries"] = json!(9);
    let html = Page::of(&report, &about());
    for text in [
        "<b>Fanout, percentiles</b>",
        "data-name=\"first\"",
        "<h2>Fanout</h2>",
        "9,000/s",
        "<h2>Cipher</h2><p>TLS13",
        "<b>Deliveries</b>",
        "<caption>topics</caption>",
        "fanout first",
    ] {
        assert!(html.contains(text), "{text}");
    }
}

#[test]
fn a_report_that_says_little_makes_a_page_all_the_same() {
    for report in [
        json!({}),
        json!(null),
        json!({"seconds": [], "latency": null, "errors": {}}),
        json!({"seconds": [{}], "latency": {"spectrum": []}}),
    ] {
        let html = Page::of(&report, &about());
        assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"), "{report}");
        assert!(!html.contains("NaN") && !html.contains("inf"), "{report}: {html}");
    }
}

/// Puts `evil` in place of all text in the report, the names of its fields too where others could choose them.
fn poison(value: &mut Value, evil: &str) {
    match value {
        Value::String(text) => *text = evil.to_owned(),
        Value::Array(items) => items.iter_mut().for_each(|item| poison(item, evil)),
        Value::Object(fields) => {
            fields.values_mut().for_each(|item| poison(item, evil));
            fields.insert(evil.to_owned(), json!(1));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[test]
fn nothing_that_others_wrote_becomes_markup() {
    let evil = "'\"><script>alert(1)</script><img src=x onerror=alert(1)>]]>";
    let mut report = report(5);
    poison(&mut report, evil);
    let about = About { command: evil.into(), ended: evil.into(), machine: evil.into() };
    let html = Page::of(&report, &about);
    assert!(html.contains("alert(1)"));
    assert!(!html.contains("<script>alert") && !html.contains("<img"));
    // One script, which is the page's own; and no quote of theirs is left to end an attribute.
    assert!(!html.contains("\"&gt;"));
    assert_eq!(html.matches("<script").count(), 1);
}

#[test]
fn six_hours_make_no_large_page() {
    let short = Page::of(&report(60), &about()).len();
    let long = Page::of(&report(21_600), &about()).len();
    assert!(short < 60_000, "{short}");
    assert!(long < 400_000, "{long}");
}

#[test]
fn each_kind_of_error_has_its_meaning_in_the_readme() {
    for fault in crate::fault::Fault::ALL {
        assert!(meaning(fault.name()).is_some_and(|text| text.len() > 10), "{}", fault.name());
    }
    assert_eq!(
        meaning("handshake_timeout").unwrap(),
        "no whole answer to the upgrade within <code>--timeout</code>"
    );
    assert_eq!(meaning("nonsense"), None);
}
