//! Text into HTML: the one place where what others wrote is made harmless, and tables of what JSON has.

use std::fmt::Write;

use serde_json::{Map, Value};

use crate::units::{show_bytes, show_count, show_ns};

/// The most rows of a table that is not ours.
const MOST_ROWS: usize = 200;

/// Text that stands for itself, be it between tags or within the quotes of an attribute.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // These would turn what follows them around, or hide it.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => safe.push('\u{fffd}'),
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// A field's name for people: without its unit.
pub(super) fn label(name: &str) -> String {
    let units = ["_bytes_per_s", "_ns_per_message", "_per_message", "_per_s", "_bytes", "_us", "_ns", "_s"];
    let bare = units.iter().find_map(|unit| name.strip_suffix(unit)).unwrap_or(name);
    let text = match name {
        name if name.ends_with("_per_message") => format!("{bare} for each message"),
        _ => bare.to_owned(),
    };
    text.replace('_', " ").replace("cpu", "CPU")
}

/// A field's name at the head of something.
pub(super) fn title(name: &str) -> String {
    let mut text = label(name);
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

/// A field's value with the unit that its name ends with; `None` where there is nothing to show in a line.
pub(super) fn shown(name: &str, value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("\u{2013}".to_owned()),
        Value::Bool(yes) => Some(if *yes { "yes" } else { "no" }.to_owned()),
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => {
            Some(number.as_f64().map_or_else(|| number.to_string(), |value| with_unit(name, value, number)))
        }
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn with_unit(name: &str, value: f64, number: &serde_json::Number) -> String {
    match name {
        name if name.ends_with("_bytes_per_s") => format!("{}/s", show_bytes(value)),
        name if name.ends_with("_per_s") => format!("{}/s", show_count(value)),
        name if name.ends_with("_bytes") => show_bytes(value),
        name if name.ends_with("_us") => show_ns(value * 1e3),
        name if name.contains("_ns") => show_ns(value),
        name if name.ends_with("_s") => show_ns(value * 1e9),
        "busiest_thread" | "busiest_thread_with_waits" => format!("{:.0} %", value * 100.0),
        // A number that is only a name: commas would be wrong.
        "seed" | "code" | "status" => number.to_string(),
        _ if value.fract() != 0.0 => format!("{value:.3}"),
        _ => show_count(value),
    }
}

/// A section of fields and values, with what lies deeper below it.
pub(super) fn section(title: &str, fields: &Map<String, Value>) -> String {
    let mut rows = String::new();
    let mut tables = String::new();
    fill(&mut rows, &mut tables, "", fields);
    if rows.is_empty() && tables.is_empty() {
        return String::new();
    }
    let mut out = format!("<section><h2>{}</h2>", escape(title));
    if !rows.is_empty() {
        let _ = write!(out, "<div class=\"wide\"><table class=\"fields\">{rows}</table></div>");
    }
    out + &tables + "</section>\n"
}

fn fill(rows: &mut String, tables: &mut String, above: &str, fields: &Map<String, Value>) {
    for (name, value) in fields {
        let label = format!("{above}{}", label(name));
        match value {
            // Their percentiles are in a table of their own.
            Value::Object(inner) if inner.contains_key("spectrum") => {}
            Value::Object(inner) => fill(rows, tables, &format!("{label}: "), inner),
            Value::Array(items) => *tables += &list(Some(&label), items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                let shown = shown(name, value).unwrap_or_default();
                let _ = write!(
                    rows,
                    "<tr><th scope=\"row\">{}</th><td>{}</td></tr>",
                    escape(&label),
                    escape(&shown)
                );
            }
        }
    }
}

/// A list of objects as a table, a column for each field of the first one; of plain values as one row each.
pub(super) fn list(title: Option<&str>, items: &[Value]) -> String {
    let Some(first) = items.first() else { return String::new() };
    let columns: Vec<&str> = match first {
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, value)| shown(name, value).is_some())
            .map(|(name, _)| &**name)
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => vec![""],
    };
    let mut out = String::from("<div class=\"wide\"><table>");
    if let Some(title) = title {
        let _ = write!(out, "<caption>{}</caption>", escape(title));
    }
    out += "<tr>";
    for column in &columns {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(&label(column)));
    }
    out += "</tr>";
    for item in items.iter().take(MOST_ROWS) {
        out += "<tr>";
        for column in &columns {
            let value = if column.is_empty() { Some(item) } else { item.get(*column) };
            let text = value.and_then(|value| shown(column, value)).unwrap_or_default();
            let _ = write!(out, "<td>{}</td>", escape(&text));
        }
        out += "</tr>";
    }
    out += "</table></div>";
    if items.len() > MOST_ROWS {
        let _ =
            write!(out, "<p class=\"note\">and {} more</p>", show_count((items.len() - MOST_ROWS) as f64));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_that_is_written_becomes_markup() {
        assert_eq!(escape("<a href='x' b=\"y\">&"), "&lt;a href=&#39;x&#39; b=&quot;y&quot;&gt;&amp;");
        assert_eq!(escape("a\u{202e}b\u{7}c\n"), "a\u{fffd}b\u{fffd}c\u{fffd}");
        assert_eq!(escape("ποταμός"), "ποταμός");
    }

    #[test]
    fn names_tell_the_unit_of_values() {
        for (name, value, expected_label, expected) in [
            ("cpu_ns_per_message", json!(1234.0), "CPU for each message", "1.23 µs"),
            ("payload_bytes_per_s", json!(2048), "payload", "2.00 KiB/s"),
            ("rate_per_s", json!(20_000.0), "rate", "20,000/s"),
            ("duration_s", json!(1.5), "duration", "1.50 s"),
            ("p99_9_us", json!(20.5), "p99 9", "20.5 µs"),
            ("memory_up_bytes", json!(1 << 20), "memory up", "1.00 MiB"),
            ("seed", json!(18_446_744_073_709_551_615_u64), "seed", "18446744073709551615"),
            ("depth", json!(null), "depth", "–"),
            ("was_the_limit", json!(false), "was the limit", "no"),
            ("system_calls_per_message", json!(0.0123), "system calls for each message", "0.012"),
        ] {
            assert_eq!(
                (label(name), shown(name, &value)),
                (expected_label.to_owned(), Some(expected.to_owned()))
            );
        }
    }

    #[test]
    fn fields_that_lie_deeper_are_shown_too() {
        let value = json!({"a_s": 1, "<b>": {"c_bytes": 2048}, "lag": {"count": 77, "spectrum": [1]}, "runs": [{"x": 1, "y": "<i>"}, {"x": 2}]});
        let html = section("T", value.as_object().unwrap());
        for part in [
            "<th scope=\"row\">a</th><td>1.00 s</td>",
            "&lt;b&gt;: c</th><td>2.00 KiB",
            "<td>1</td><td>&lt;i&gt;</td>",
            "<td>2</td><td></td>",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
        assert!(!html.contains("77") && !html.contains("<i>"));
        assert_eq!(section("T", &Map::new()), "");
        let many = vec![json!(7); MOST_ROWS + 5];
        assert!(list(None, &many).contains("and 5 more"));
    }
}
