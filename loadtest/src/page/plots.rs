//! Which plots a page has: columns of the report's seconds over time, percentiles, and memory over sessions.

use serde_json::{Map, Value};

use super::{
    axis::{Axis, Unit, nines},
    chart::{Across, Band, Chart, Series},
    markup::{label, title},
    spectra::{Spectrum, spectra},
};
use crate::units::show_count;

/// Columns of the seconds that share a plot.
struct Columns {
    title: &'static str,
    about: &'static str,
    unit: Unit,
    /// Names of the fields, and of the lines.
    lines: &'static [(&'static str, &'static str)],
}

const COLUMNS: [Columns; 7] = [
    Columns {
        title: "Latency",
        about: "of messages, by the second",
        unit: Unit::Micros,
        lines: &[("p50_us", "p50"), ("p99_us", "p99"), ("max_us", "greatest")],
    },
    Columns {
        title: "Messages",
        about: "for each second",
        unit: Unit::Count,
        lines: &[("messages", "messages")],
    },
    Columns {
        title: "Handshakes",
        about: "for each second",
        unit: Unit::Count,
        lines: &[("handshakes", "handshakes")],
    },
    Columns {
        title: "Sessions",
        about: "up, and coming up",
        unit: Unit::Count,
        lines: &[("open", "up"), ("pending", "coming up")],
    },
    Columns { title: "Errors", about: "for each second", unit: Unit::Count, lines: &[("errors", "errors")] },
    Columns {
        title: "Server CPU",
        about: "% of a core",
        unit: Unit::Cores,
        lines: &[("server_cores", "CPU")],
    },
    Columns {
        title: "Server memory",
        about: "anonymous (RssAnon)",
        unit: Unit::Bytes,
        lines: &[("server_memory_bytes", "memory")],
    },
];

/// All plots that the report has something for.
pub(super) fn plots(report: &Value) -> String {
    let seconds = report["seconds"].as_array().map_or(&[][..], Vec::as_slice);
    let bands = bands(seconds);
    let mut over_time = over_time(seconds, &bands);
    let spectra = spectra(report);
    let mut groups: Vec<&str> = Vec::new();
    for spectrum in &spectra {
        if !groups.contains(&spectrum.group()) {
            groups.push(spectrum.group());
        }
    }
    let mut percentiles: Vec<String> = groups.into_iter().map(|group| percentiles(group, &spectra)).collect();
    let mut out = String::from("<div class=\"charts\">\n");
    if seconds.len() < 2 {
        out +=
            "<p class=\"note\">The run was over within two seconds: there is nothing to plot over time.</p>";
    }
    // Latency, over time and by percentiles, comes first.
    out.extend(over_time.drain(..over_time.len().min(1)));
    out.extend(percentiles.drain(..percentiles.len().min(1)));
    out.extend(over_time);
    out += &session_memory(report);
    out.extend(percentiles);
    if !bands.is_empty() {
        out += "<p class=\"note\">Shaded: outside the measured time.</p>";
    }
    out + "</div>\n"
}

fn over_time(seconds: &[Value], bands: &[Band]) -> Vec<String> {
    if seconds.len() < 2 {
        return Vec::new();
    }
    let end_s = seconds.last().and_then(|second| second["at_s"].as_f64()).unwrap_or(1.0);
    let plot = |title: &str, about: &str, unit: Unit, lines: &[(&str, &str)]| {
        let line = |(field, name): &(&str, &str)| Series {
            name: (*name).to_owned(),
            points: seconds
                .iter()
                .map(|second| (second["at_s"].as_f64().unwrap_or(0.0), second[*field].as_f64()))
                .collect(),
        };
        let series = lines.iter().filter(|(field, _)| tells(seconds, field)).map(line).collect();
        let horizontal = Axis::seconds(end_s);
        Chart { title, about, across: Across::Time, horizontal, unit, series, bands }.render()
    };
    let mut plots: Vec<String> = COLUMNS
        .iter()
        .map(|columns| plot(columns.title, columns.about, columns.unit, columns.lines))
        .collect();
    // Columns that came with a scenario of their own.
    let known = |name: &str| {
        ["at_s", "phase"].contains(&name)
            || COLUMNS.iter().any(|columns| columns.lines.iter().any(|(field, _)| *field == name))
    };
    let fields = seconds.iter().filter_map(Value::as_object).flat_map(Map::keys);
    let mut others: Vec<&str> = fields.map(String::as_str).filter(|name| !known(name)).collect();
    others.sort_unstable();
    others.dedup();
    for name in others {
        let unit = match name {
            name if name.ends_with("_us") => Unit::Micros,
            name if name.ends_with("_bytes") => Unit::Bytes,
            _ => Unit::Count,
        };
        plots.push(plot(&title(name), "by the second", unit, &[(name, &label(name))]));
    }
    plots
}

/// Whether a column is worth its line: a count that stays at nothing is not, nor are handshakes at the start alone.
fn tells(seconds: &[Value], field: &str) -> bool {
    let some =
        seconds.iter().filter(|second| second[field].as_f64().is_some_and(|value| value > 0.0)).count();
    match field {
        "handshakes" => some > seconds.len() / 4,
        "pending" | "errors" | "messages" => some > 0,
        _ => true,
    }
}

/// The percentiles of one group.
fn percentiles(group: &str, spectra: &[Spectrum<'_>]) -> String {
    let of: Vec<&Spectrum<'_>> = spectra.iter().filter(|spectrum| spectrum.group() == group).collect();
    let most = of.iter().map(|spectrum| spectrum.count).max().unwrap_or(1);
    let horizontal = Axis::percentiles(most);
    let end = horizontal.high();
    let series = of.iter().map(|spectrum| Series {
        name: match spectrum.path[..] {
            ["generator", "lag"] => "lag of the generator".to_owned(),
            [.., last] => label(last),
            [] => String::new(),
        },
        points: spectrum.steps.iter().map(|step| (nines(step.0).min(end), Some(step.1))).collect(),
    });
    Chart {
        title: &format!("{}, percentiles", title(group)),
        about: &format!("of {} times", show_count(most as f64)),
        across: Across::Percentiles,
        horizontal,
        unit: Unit::Micros,
        series: series.collect(),
        bands: &[],
    }
    .render()
}

/// What a session costs, as a line through the quarters.
fn session_memory(report: &Value) -> String {
    let points = report["session_memory"]["points"].as_array().map_or(&[][..], Vec::as_slice);
    let sessions = |point: &Value| point["sessions"].as_f64().unwrap_or(0.0);
    let most = points.iter().map(sessions).fold(0.0, f64::max);
    // What the machine and the server had before would make the slope too flat to be seen.
    let line = |field: &str, name: &str| {
        let least = points.iter().filter_map(|point| point[field].as_f64()).fold(f64::INFINITY, f64::min);
        let above = |point: &Value| Some(point[field].as_f64()? - least);
        Series {
            name: name.to_owned(),
            points: points.iter().map(|point| (sessions(point), above(point))).collect(),
        }
    };
    Chart {
        title: "Memory by sessions",
        about: "above the least; the slope is what one more costs",
        across: Across::Sessions,
        horizontal: Axis::counts(most),
        unit: Unit::Bytes,
        series: vec![line("user_bytes", "server"), line("kernel_bytes", "kernel slabs, both ends")],
        bands: &[],
    }
    .render()
}

/// The parts of the time that are not measured; none where nothing is marked as measured.
fn bands(seconds: &[Value]) -> Vec<Band> {
    let phase = |second: &Value| second["phase"].as_str().unwrap_or("").to_owned();
    let is_measured = |phase: &str| ["measuring", "holding"].contains(&phase);
    let mut bands: Vec<Band> = Vec::new();
    if !seconds.iter().any(|second| is_measured(&phase(second))) {
        return bands;
    }
    for second in seconds {
        let (phase, at_s) = (phase(second), second["at_s"].as_f64().unwrap_or(0.0));
        if is_measured(&phase) {
            continue;
        }
        match bands.last_mut() {
            Some(last) if last.until_s == at_s - 1.0 && last.phase == phase => last.until_s = at_s,
            Some(_) | None => bands.push(Band { from_s: at_s - 1.0, until_s: at_s, phase }),
        }
    }
    bands
}
