//! The results for people: as text and as Markdown.

use std::fmt::Write;

use super::{
    bar::Judgement,
    measure::Sample,
    metric::Metric,
    results::{Judged, Part, Row, Table},
    suite::{Interleave, Pins},
};
use crate::tone::Tone;

/// What others wrote, with what a terminal would act upon shown in its place.
pub(crate) fn plain(text: &str) -> String {
    let show = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(show).collect()
}

/// One run, on one line.
pub(crate) fn sample(sample: &Sample) -> String {
    let shown = [Metric::Cpu, Metric::Throughput, Metric::P99, Metric::SessionMemory];
    let shown = shown.into_iter().filter_map(|metric| {
        Some(format!("{} {}", metric.name(), metric.show(*sample.values.get(&metric)?)))
    });
    let mut line = shown.collect::<Vec<_>>().join(", ");
    if sample.was_generator_the_limit {
        line += " (the load was the limit)";
    }
    line
}

/// For a terminal.
pub(crate) fn text(table: &Table<'_>, has_colours: bool) -> String {
    let tone = |tone: Tone, text: &str| tone.paint(text, has_colours);
    let mut out = String::new();
    for line in preamble(table) {
        let _ = writeln!(out, "{line}");
    }
    for part in &table.scenarios {
        let _ = writeln!(out, "\n{}", tone(Tone::Bold, &part.scenario.title));
        let _ = writeln!(out, "  {}", part.scenario.load.join(" "));
        let grid = grid(table, part);
        let columns = grid.first().map_or(0, Vec::len);
        let width = |column: usize| grid.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &grid {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = if column == 0 {
                    write!(line, "  {cell:<width$}")
                } else {
                    write!(line, "  {cell:>width$}")
                };
            }
            let _ = writeln!(out, "{}", line.trim_end());
        }
        for line in &part.verdicts {
            let _ = writeln!(out, "  {line}");
        }
        for line in &part.warnings {
            let _ = writeln!(out, "  {}", tone(Tone::Warning, &format!("warning: {line}")));
        }
        for judged in &part.bars {
            let (word, colour) = match judged.judgement {
                Judgement::Holds(_) => ("holds", Tone::Good),
                Judgement::Broken(_) => ("does NOT hold", Tone::Bad),
                Judgement::TooFew(_) => ("no verdict, too few rounds", Tone::Warning),
                Judgement::LoadLimited(_) => ("no verdict, the load was the limit", Tone::Warning),
                Judgement::NotMeasured => ("not measured", Tone::Warning),
            };
            let _ = writeln!(out, "  bar {} {}{}", judged.bar.text, tone(colour, word), value(judged));
        }
    }
    out
}

/// For a page.
pub(crate) fn markdown(table: &Table<'_>) -> String {
    let mut out = String::new();
    for line in preamble(table) {
        let _ = writeln!(out, "- {line}");
    }
    for part in &table.scenarios {
        let _ = writeln!(out, "\n### {}\n\n`{}`\n", part.scenario.title, part.scenario.load.join(" "));
        for (place, row) in grid(table, part).iter().enumerate() {
            let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
            let _ = writeln!(out, "| {} |", cells.join(" | "));
            if place == 0 {
                let _ = writeln!(out, "|---{}", "|---:".repeat(row.len() - 1) + "|");
            }
        }
        let _ = writeln!(out);
        for line in part.verdicts.iter().chain(&part.warnings) {
            // The lines of a server that failed stand below, as code.
            let _ = writeln!(out, "- {}", line.replace("\n      | ", "\n      "));
        }
        for judged in &part.bars {
            let word = match judged.judgement {
                Judgement::Holds(_) => "holds",
                Judgement::Broken(_) => "**does not hold**",
                Judgement::TooFew(_) => "no verdict, too few rounds",
                Judgement::LoadLimited(_) => "no verdict, the load was the limit",
                Judgement::NotMeasured => "not measured",
            };
            let _ = writeln!(out, "- `{}` {word}{}", judged.bar.text, value(judged));
        }
    }
    out
}

fn value(judged: &Judged<'_>) -> String {
    match judged.judgement {
        Judgement::Holds(value)
        | Judgement::Broken(value)
        | Judgement::TooFew(value)
        | Judgement::LoadLimited(value) => {
            format!(": {}", judged.bar.show(value))
        }
        Judgement::NotMeasured => String::new(),
    }
}

/// What was compared, where.
fn preamble(table: &Table<'_>) -> Vec<String> {
    let suite = table.suite;
    let title = if suite.title.is_empty() { "Comparison" } else { &suite.title };
    let interleaved = match suite.interleave {
        Interleave::Servers => "interleaved",
        Interleave::Scenarios => "each of all scenarios, interleaved",
    };
    let mut lines = vec![format!(
        "{title}: {} rounds, {interleaved}; median (least to most), × is the median of the rounds' ratios to {}",
        suite.rounds, suite.reference
    )];
    lines.push(table.machine.clone());
    if suite.pins != Pins::default() {
        let list = |pins: &[usize]| match pins {
            [] => "any".to_owned(),
            pins => pins.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
        };
        let Pins { server, upstream, generator } = &suite.pins;
        lines.push(format!(
            "processors: server {}, upstream {}, load {}",
            list(server),
            list(upstream),
            list(generator)
        ));
    }
    lines.extend(table.versions.iter().map(|(server, version)| format!("{server}: {version}")));
    lines.extend(table.skipped.iter().map(|(server, why)| format!("{server}: skipped: {why}")));
    if table.is_interrupted {
        lines.push("interrupted: what follows is what there was until then".to_owned());
    }
    lines
}

/// The heads of the columns, then a row for each server.
fn grid(table: &Table<'_>, part: &Part<'_>) -> Vec<Vec<String>> {
    let mut heads = vec!["server".to_owned()];
    for metric in shown(part) {
        heads.push(metric.title().to_owned());
        if has_ratio(metric) {
            heads.push("×".to_owned());
        }
    }
    heads.push("runs".to_owned());
    let mut grid = vec![heads];
    for row in &part.rows {
        let mut cells = vec![row.server.to_owned()];
        for metric in shown(part) {
            cells.push(cell(row, metric));
            if has_ratio(metric) {
                let ratio = row.ratios.get(&metric);
                cells.push(ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{:.2}", ratio.median)));
            }
        }
        cells.push(format!("{}/{}", row.counted(), table.suite.rounds));
        grid.push(cells);
    }
    grid
}

/// The columns: what is in the JSON alone is left out.
fn shown<'a>(part: &'a Part<'_>) -> impl Iterator<Item = Metric> + 'a {
    part.metrics.iter().copied().filter(|metric| !matches!(metric, Metric::P999 | Metric::LoadCpu))
}

/// Whether a metric is compared, and not only shown.
const fn has_ratio(metric: Metric) -> bool {
    match metric {
        Metric::Cpu | Metric::Throughput | Metric::P99 | Metric::SessionMemory => true,
        Metric::P50
        | Metric::P999
        | Metric::Memory
        | Metric::EmptyMemory
        | Metric::KernelMemory
        | Metric::GeneratorCpu
        | Metric::LoadCpu => false,
    }
}

fn cell(row: &Row<'_>, metric: Metric) -> String {
    let Some(spread) = row.spreads.get(&metric) else { return "–".to_owned() };
    let median = metric.show(spread.median);
    if !has_ratio(metric) || spread.count < 2 {
        return median;
    }
    let (least, most) = (metric.show(spread.least), metric.show(spread.most));
    let unit = |text: &str| text.rsplit_once(' ').map(|(_, unit)| unit.to_owned());
    // One unit is told once.
    if unit(&least) == unit(&median) && unit(&most) == unit(&median) {
        let number = |text: &str| {
            text.rsplit_once(' ').map_or_else(|| text.to_owned(), |(number, _)| number.to_owned())
        };
        return format!("{median} ({}–{})", number(&least), number(&most));
    }
    format!("{median} ({least}–{most})")
}
