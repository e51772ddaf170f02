//! Percentiles, wherever in a report they are: each object that has a `spectrum`.

use serde_json::{Map, Value};

/// Percentiles somewhere in a report.
#[derive(Debug)]
pub(super) struct Spectrum<'a> {
    /// The names that lead there; at least one.
    pub(super) path: Vec<&'a str>,
    /// All that is told of these times.
    pub(super) fields: &'a Map<String, Value>,
    pub(super) count: u64,
    /// Percentiles and microseconds.
    pub(super) steps: Vec<(f64, f64)>,
}

impl Spectrum<'_> {
    /// What is plotted together: how late the generator was belongs to the latency that it measured.
    pub(super) fn group(&self) -> &str {
        match self.path[0] {
            "generator" => "latency",
            first => first,
        }
    }
}

/// All of them, what is asked for most first.
pub(super) fn spectra(report: &Value) -> Vec<Spectrum<'_>> {
    const FIRST: [&str; 3] = ["latency", "generator", "handshake"];
    let mut found = Vec::new();
    find(report, &mut Vec::new(), &mut found);
    found.sort_by_key(|spectrum| {
        FIRST.iter().position(|first| *first == spectrum.path[0]).unwrap_or(FIRST.len())
    });
    found
}

fn find<'a>(value: &'a Value, path: &mut Vec<&'a str>, found: &mut Vec<Spectrum<'a>>) {
    let Value::Object(fields) = value else { return };
    if let Some(steps) = fields.get("spectrum").and_then(Value::as_array).filter(|_| !path.is_empty()) {
        let step = |step: &Value| Some((step["percentile"].as_f64()?, step["us"].as_f64()?));
        found.push(Spectrum {
            path: path.clone(),
            fields,
            count: fields.get("count").and_then(Value::as_u64).unwrap_or(1),
            steps: steps.iter().filter_map(step).collect(),
        });
        return;
    }
    for (name, inner) in fields {
        path.push(name);
        find(inner, path, found);
        path.pop();
    }
}
