//! The results as one page of HTML that needs nothing else: no network and no font, nor the small script that it has.
//!
//! It is made of the report as JSON has it. What it knows best it plots; each other field that a report has, now or
//! later, is in a table. A policy in its head forbids it to fetch anything, and any script but its own.

mod about;
mod axis;
mod chart;
mod markup;
mod plots;
mod spectra;

use std::fmt::Write;

use serde_json::Value;

pub(crate) use self::about::About;
use self::{
    markup::{escape, label, list, section, title},
    plots::plots,
    spectra::spectra,
};
use crate::units::{show_bytes, show_count, show_ns};

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
/// What the page may do: nothing but its own style and script.
const POLICY: &str = include_str!("page/policy.txt");
/// SHA-256 of the script, as the policy names it.
const SCRIPT_HASH: &str = "sha256-dins9MNjWZl+tISNO9Q0h81tmoymBn9m8kf/bqWoWsg=";
/// What each kind of error means, in a table of its own.
const README: &str = include_str!("../README.md");
/// Percentiles whose exact values are told.
const EXACT: [f64; 11] = [50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 99.999, 100.0];
/// Fields of a report that have a place of their own on the page, or would say nothing there.
const PLACED: [&str; 13] = [
    "format",
    "tool",
    "version",
    "scenario",
    "unit",
    "url",
    "address",
    "interrupted",
    "seconds",
    "assertions",
    "errors",
    "latency",
    "handshake",
];

/// The sections that come first.
const FIRST: [&str; 5] = ["settings", "sessions", "messages", "server", "generator"];

/// A page in the making.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    report: &'a Value,
    about: &'a About,
    out: String,
}

impl<'a> Page<'a> {
    /// The whole page.
    pub(crate) fn of(report: &'a Value, about: &'a About) -> String {
        let mut page = Self { report, about, out: String::new() };
        page.head();
        page.notices();
        page.tiles();
        page.out += &plots(report);
        page.percentiles();
        page.assertions();
        page.errors();
        page.sections();
        page.foot();
        page.out
    }

    fn text(&self, name: &str) -> &'a str {
        self.report.get(name).and_then(Value::as_str).unwrap_or("")
    }

    fn number(&self, pointer: &str) -> Option<f64> {
        self.report.pointer(pointer)?.as_f64()
    }

    fn items(&self, pointer: &str) -> &'a [Value] {
        self.report.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn head(&mut self) {
        let policy = POLICY.replace("SCRIPT", SCRIPT_HASH);
        let (scenario, url) = (escape(self.text("scenario")), escape(self.text("url")));
        let _ = write!(
            self.out,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\"><link rel=\"icon\" href=\"data:,\">\
             <title>{scenario} {url}</title>\n<style>{STYLE}</style></head><body><main>\n<header><h1><b>{scenario}</b> {url}</h1>"
        );
        let mut how = Vec::new();
        if let Some(sessions) = self.number("/settings/connections") {
            how.push(format!("{} sessions", show_count(sessions)));
        }
        match (self.number("/settings/rate_per_s"), self.number("/settings/depth")) {
            (Some(rate), _) => how.push(format!("open loop at {}/s", show_count(rate))),
            (None, Some(depth)) if self.report.get("messages").is_some_and(Value::is_object) => {
                how.push(format!("closed loop, {} under way", show_count(depth)));
            }
            (None, _) => {}
        }
        if let Some(measured) = self.number("/measured_s") {
            how.push(format!("{} measured", show_ns(measured * 1e9)));
        }
        how.push(format!("ended {}", self.about.ended));
        let _ = writeln!(self.out, "<p>{}</p></header>", escape(&how.join(" \u{b7} ")));
    }

    /// What must not be overlooked.
    fn notices(&mut self) {
        let ended_threads = self.number("/server/ended_threads_cpu_s");
        let (early, asked) = (self.number("/ended_early_s"), self.number("/settings/duration_s"));
        let mut notice = |kind: &str, text: &str| {
            let _ = writeln!(self.out, "<p class=\"notice {kind}\">{}</p>", escape(text));
        };
        let is = |pointer: &str| self.report.pointer(pointer).and_then(Value::as_bool).unwrap_or(false);
        if is("/interrupted") {
            notice("warning", "The run was interrupted: these are the results until then.");
        }
        if let (Some(early), Some(asked)) = (early, asked) {
            let (early, asked) = (show_ns(early * 1e9), show_ns(asked * 1e9));
            notice("warning", &format!("The run ended early: no session was left after {early} of {asked}."));
        }
        if is("/nothing_was_due") {
            notice("warning", "Nothing was due in the measured time, so that nothing was measured.");
        }
        if is("/generator/was_the_limit") {
            notice(
                "warning",
                "The load generator, not the server, was the limit: rates and latencies are its own. Give it more threads \
                 or cores.",
            );
        }
        if let Some(seconds) = ended_threads {
            let seconds = show_ns(seconds * 1e9);
            notice(
                "warning",
                &format!(
                    "Threads of the server that ended took {seconds} of CPU time more, which is in none of the figures."
                ),
            );
        }
        let assertions =
            self.report.get("assertions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let broken: Vec<&str> = assertions
            .iter()
            .filter(|checked| !checked["holds"].as_bool().unwrap_or(false))
            .filter_map(|checked| checked["condition"].as_str())
            .collect();
        if !broken.is_empty() {
            notice("bad", &format!("Does not hold: {}", broken.join(", ")));
        } else if !assertions.is_empty() {
            notice("good", "All assertions hold.");
        }
    }

    /// The figures that one looks for first.
    fn tiles(&mut self) {
        let mut tiles: Vec<(String, String)> = Vec::new();
        let mut tile =
            |name: &str, shown: Option<String>| tiles.extend(shown.map(|shown| (name.to_owned(), shown)));
        let storms = self.items("/storms").iter().filter_map(|storm| storm["handshakes_per_s"].as_f64());
        if let Some(rate) = self.number("/churn/rate_per_s") {
            tile("sessions for each second", Some(show_count(rate)));
        } else if let Some(rate) = self.number("/messages/rate_per_s") {
            tile("messages for each second", Some(show_count(rate)));
        } else {
            tile("handshakes for each second", storms.reduce(f64::min).map(show_count));
        }
        tile(
            "of the server\u{2019}s memory for a session",
            self.number("/session_memory/user_bytes").map(show_bytes),
        );
        let of = if self.number("/latency/p99_us").is_some() { "latency" } else { "handshake" };
        for (name, field) in [("p50", "p50_us"), ("p99", "p99_us"), ("greatest", "max_us")] {
            let us = self.number(&format!("/{of}/{field}"));
            tile(&format!("{of}, {name}"), us.map(|us| show_ns(us * 1e3)));
        }
        let cpu = self.number("/server/cpu_ns_per_message").map(show_ns);
        tile(&format!("server CPU for each {}", self.text("unit")), cpu);
        tile("server memory, at the most", self.number("/server/memory_most_bytes").map(show_bytes));
        tile("errors", Some(show_count(self.number("/errors/total").unwrap_or(0.0))));
        self.out += "<dl class=\"tiles\">";
        for (name, shown) in tiles {
            let bad = if name == "errors" && shown != "0" { " class=\"bad\"" } else { "" };
            let _ = write!(self.out, "<div><dt>{}</dt><dd{bad}>{}</dd></div>", escape(&name), escape(&shown));
        }
        self.out += "</dl>\n";
    }

    /// The exact values.
    fn percentiles(&mut self) {
        let found = spectra(self.report);
        if found.is_empty() {
            return;
        }
        self.out +=
            "<section><h2>Percentiles</h2><div class=\"wide\"><table><tr><th scope=\"col\">at or below</th>";
        for spectrum in &found {
            let _ = write!(self.out, "<th scope=\"col\">{}</th>", escape(&label(&spectrum.path.join(" "))));
        }
        self.out += "</tr>";
        for percentile in EXACT {
            let values: Vec<Option<f64>> = found
                .iter()
                .map(|spectrum| spectrum.steps.iter().find(|step| step.0 == percentile).map(|step| step.1))
                .collect();
            if values.iter().all(Option::is_none) {
                continue;
            }
            let name =
                if percentile == 100.0 { "all (the greatest)".to_owned() } else { format!("{percentile} %") };
            let _ = write!(self.out, "<tr><th scope=\"row\">{name}</th>");
            for value in values {
                let shown = value.map_or_else(|| "\u{2013}".to_owned(), |us| show_ns(us * 1e3));
                let _ = write!(self.out, "<td>{shown}</td>");
            }
            self.out += "</tr>";
        }
        for (name, field) in [("mean", "mean_us"), ("least", "min_us"), ("times counted", "count")] {
            let _ = write!(self.out, "<tr><th scope=\"row\">{name}</th>");
            for spectrum in &found {
                let shown = spectrum
                    .fields
                    .get(field)
                    .and_then(|value| markup::shown(field, value))
                    .unwrap_or_default();
                let _ = write!(self.out, "<td>{}</td>", escape(&shown));
            }
            self.out += "</tr>";
        }
        self.out += "</table></div></section>\n";
    }

    fn assertions(&mut self) {
        let assertions = self.items("/assertions");
        if assertions.is_empty() {
            return;
        }
        self.out += "<section><h2>Assertions</h2><div class=\"wide\"><table><tr><th scope=\"col\">condition</th>\
                     <th scope=\"col\">measured</th><th scope=\"col\">holds</th></tr>";
        for checked in assertions {
            let text = |name: &str| escape(checked[name].as_str().unwrap_or("\u{2013}"));
            let (class, verdict) =
                if checked["holds"].as_bool().unwrap_or(false) { ("good", "yes") } else { ("bad", "no") };
            let _ = write!(
                self.out,
                "<tr><th scope=\"row\"><code>{}</code></th><td>{}</td><td class=\"{class}\">{verdict}</td></tr>",
                text("condition"),
                text("shown")
            );
        }
        self.out += "</table></div></section>\n";
    }

    fn errors(&mut self) {
        let counts = |pointer: &str| {
            self.report
                .pointer(pointer)
                .and_then(Value::as_object)
                .filter(|counts| counts.values().any(|count| *count != 0))
        };
        let why = |kind: &str| {
            let why = self.report["errors"]["reasons"][kind].as_str()?;
            Some(format!("<br>{}", escape(why)))
        };
        let mut out = String::from("<section><h2>Errors</h2>");
        match counts("/errors/by_kind") {
            None => out += "<p>None.</p>",
            Some(kinds) => {
                out += "<div class=\"wide\"><table class=\"errors\"><tr><th scope=\"col\">kind</th><th scope=\"col\">count</th>\
                        <th scope=\"col\">what it is</th></tr>";
                for (kind, count) in kinds.iter().filter(|(_, count)| **count != 0) {
                    let _ = write!(
                        out,
                        "<tr><th scope=\"row\"><code>{}</code></th><td>{}</td><td>{}{}</td></tr>",
                        escape(kind),
                        show_count(count.as_f64().unwrap_or(0.0)),
                        meaning(kind).unwrap_or_default(),
                        why(kind).unwrap_or_default()
                    );
                }
                out += "</table></div>";
            }
        }
        for (pointer, title, column) in [
            ("/errors/statuses", "Refused upgrades", "status"),
            ("/errors/close_codes", "The server\u{2019}s Closes", "code"),
        ] {
            let Some(counts) = counts(pointer) else { continue };
            let _ = write!(
                out,
                "<div class=\"wide\"><table><caption>{title}</caption><tr><th scope=\"col\">{column}</th><th scope=\"col\">count</th></tr>"
            );
            for (number, count) in counts {
                let _ = write!(
                    out,
                    "<tr><th scope=\"row\">{}</th><td>{}</td></tr>",
                    escape(number),
                    show_count(count.as_f64().unwrap_or(0.0))
                );
            }
            out += "</table></div>";
        }
        self.out += &out;
        self.out += "</section>\n";
    }

    /// Everything else, whatever it is.
    fn sections(&mut self) {
        self.out += "<div class=\"sections\">\n";
        let Some(fields) = self.report.as_object() else { return };
        let mut fields: Vec<(&String, &Value)> =
            fields.iter().filter(|(name, _)| !PLACED.contains(&name.as_str())).collect();
        fields.sort_by_key(|(name, _)| FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()));
        for (name, value) in fields {
            let title = title(name);
            match value {
                Value::Object(inner) => self.out += &section(&title, inner),
                Value::Array(items) if !items.is_empty() => {
                    let _ = write!(
                        self.out,
                        "<section><h2>{}</h2>{}</section>",
                        escape(&title),
                        list(None, items)
                    );
                }
                Value::Array(_) | Value::Null => {}
                Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                    let _ = write!(
                        self.out,
                        "<section><h2>{}</h2><p>{}</p></section>",
                        escape(&title),
                        escape(&markup::shown(name, value).unwrap_or_default())
                    );
                }
            }
        }
        self.out += "</div>\n";
    }

    fn foot(&mut self) {
        let About { command, ended, machine } = self.about;
        let _ = write!(
            self.out,
            "<section><h2>The run</h2><pre>{}</pre><div class=\"wide\"><table class=\"fields\">",
            escape(command)
        );
        let tool = format!("{} {}", self.text("tool"), self.text("version"));
        for (name, value) in [
            ("tool", &*tool),
            ("address", self.text("address")),
            ("ended", ended),
            ("generator\u{2019}s machine", machine),
        ] {
            let _ = write!(self.out, "<tr><th scope=\"row\">{name}</th><td>{}</td></tr>", escape(value));
        }
        let _ =
            write!(self.out, "</table></div></section>\n</main><script>{SCRIPT}</script></body></html>\n");
    }
}

/// What a kind of error is, from the table of README.md, as HTML.
fn meaning(kind: &str) -> Option<String> {
    let start = format!("| `{kind}` | ");
    let text = README.lines().find_map(|line| line.strip_prefix(&start)?.strip_suffix(" |"))?;
    let parts = text.split('`').enumerate();
    Some(
        parts
            .map(
                |(place, part)| {
                    if place % 2 == 1 { format!("<code>{}</code>", escape(part)) } else { escape(part) }
                },
            )
            .collect(),
    )
}

#[cfg(test)]
mod tests;
