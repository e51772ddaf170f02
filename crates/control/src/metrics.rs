//! Prometheus' text format 0.0.4 and OpenMetrics 1.0, written by hand: numbers lie in shards, and no library's registry is fed.

use std::fmt::{Display, Write};

use tidegate_shard::report::{BOUNDS_US, Histogram};

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus' own, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What the fields `Accept` prefer: OpenMetrics where they name it.
    pub(crate) fn accepted<'a>(accepts: impl Iterator<Item = &'a str>) -> Self {
        let mut types = accepts.flat_map(|accept| accept.split(','));
        let refuses = |parameter: &str| {
            parameter.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok()) == Some(0.0)
        };
        let openmetrics = types.any(|range| {
            let mut parts = range.split(';');
            let named = parts.next().is_some_and(|name| name.trim() == "application/openmetrics-text");
            named && !parts.any(refuses)
        });
        if openmetrics { Self::OpenMetrics } else { Self::Text }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Metrics as they are written, family by family.
pub(crate) struct Writer {
    format: Format,
    text: String,
}

/// A family's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It only grows: its samples' names end in `_total`.
    Counter,
    /// It has a value now.
    Gauge,
}

/// Labels: names and values.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Writer {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, text: String::with_capacity(16 << 10) }
    }

    /// A family of samples, each with its labels. `name` is without the ending of counters.
    pub(crate) fn family(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        write: impl FnOnce(&mut Samples<'_>),
    ) {
        let kind_name = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let full = match kind {
            Kind::Counter => format!("{name}_total"),
            Kind::Gauge => name.to_owned(),
        };
        // OpenMetrics names the family, Prometheus' text its samples.
        let named = if self.format == Format::OpenMetrics { name } else { &full };
        self.head(named, kind_name, help);
        write(&mut Samples { text: &mut self.text, name: &full });
    }

    /// A single sample without labels.
    pub(crate) fn single(&mut self, kind: Kind, name: &str, help: &str, value: impl Display) {
        self.family(kind, name, help, |samples| samples.add(&[], value));
    }

    /// A histogram in seconds.
    pub(crate) fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let mut so_far = 0;
        for (place, count) in histogram.counts.iter().enumerate() {
            so_far += count;
            let bound = match BOUNDS_US.get(place) {
                Some(us) => format!("{:?}", *us as f64 / 1e6),
                None => "+Inf".to_owned(),
            };
            line(&mut self.text, &format!("{name}_bucket"), &[("le", &bound)], so_far);
        }
        line(&mut self.text, &format!("{name}_sum"), &[], histogram.sum_us as f64 / 1e6);
        line(&mut self.text, &format!("{name}_count"), &[], so_far);
    }

    pub(crate) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String never fails.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
}

/// The samples of one family.
pub(crate) struct Samples<'w> {
    text: &'w mut String,
    name: &'w str,
}

impl Samples<'_> {
    pub(crate) fn add(&mut self, labels: Labels<'_>, value: impl Display) {
        line(self.text, self.name, labels, value);
    }
}

fn line(text: &mut String, name: &str, labels: Labels<'_>, value: impl Display) {
    text.push_str(name);
    for (place, (label, value)) in labels.iter().enumerate() {
        text.push(if place == 0 { '{' } else { ',' });
        text.push_str(label);
        text.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    if !labels.is_empty() {
        text.push('}');
    }
    let _ = writeln!(text, " {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_what_is_accepted() {
        let accepted = |accept: &str| Format::accepted([accept].into_iter());
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert_eq!(accepted(prometheus), Format::OpenMetrics);
        assert_eq!(accepted("text/plain, application/openmetrics-text; q=0"), Format::Text);
        assert_eq!(accepted("*/*"), Format::Text);
        assert_eq!(Format::accepted([].into_iter()), Format::Text);
    }

    #[test]
    fn a_counter_is_named_as_its_format_has_it_and_labels_are_escaped() {
        let write = |format| {
            let mut writer = Writer::new(format);
            writer.family(Kind::Counter, "tidegate_x", "X.", |samples| {
                samples.add(&[("route", "a\"b\\c\nd"), ("leg", "client")], 7);
            });
            writer.finish()
        };
        let sample = "tidegate_x_total{route=\"a\\\"b\\\\c\\nd\",leg=\"client\"} 7\n";
        assert_eq!(
            write(Format::Text),
            format!("# HELP tidegate_x_total X.\n# TYPE tidegate_x_total counter\n{sample}")
        );
        let openmetrics = format!("# HELP tidegate_x X.\n# TYPE tidegate_x counter\n{sample}# EOF\n");
        assert_eq!(write(Format::OpenMetrics), openmetrics);
    }

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let mut histogram = Histogram::default();
        histogram.counts[0] = 2;
        histogram.counts[12] = 1;
        histogram.sum_us = 1_500_000;
        let mut writer = Writer::new(Format::Text);
        writer.histogram("t_seconds", "T.", &histogram);
        let text = writer.finish();
        assert!(text.contains("t_seconds_bucket{le=\"0.0001\"} 2\n"), "{text}");
        assert!(
            text.contains("t_seconds_bucket{le=\"10.0\"} 2\nt_seconds_bucket{le=\"+Inf\"} 3\n"),
            "{text}"
        );
        assert!(text.ends_with("t_seconds_sum 1.5\nt_seconds_count 3\n"), "{text}");
    }
}
