//! One plot: lines in SVG that stretch to the width there is, with labels in HTML that do not.
//!
//! It is whole without the script, which only adds what the pointer is over.

use std::fmt::Write;

use super::{
    axis::{Axis, Unit},
    markup::escape,
};

/// Width and height of a plot's own coordinates; what is seen stretches.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 200.0;
/// The most points of a line. A longer one keeps the least and the greatest value of each part.
const MOST_POINTS: usize = 1000;

/// A line; a point without a value is a gap.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, Option<f64>)>,
}

impl Series {
    fn values(&self) -> impl Iterator<Item = f64> {
        self.points.iter().filter_map(|(_, value)| *value)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values().next().is_none()
    }
}

/// What the horizontal axis tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Across {
    /// Seconds of the run.
    Time,
    /// Nines of percentiles.
    Percentiles,
    Sessions,
}

/// A part of the time that is not measured.
#[derive(Clone, Debug)]
pub(super) struct Band {
    pub(super) from_s: f64,
    pub(super) until_s: f64,
    pub(super) phase: String,
}

/// A plot.
#[derive(Debug)]
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    /// What its vertical axis tells, for those who hear it.
    pub(super) about: &'a str,
    pub(super) across: Across,
    pub(super) horizontal: Axis,
    pub(super) unit: Unit,
    pub(super) series: Vec<Series>,
    pub(super) bands: &'a [Band],
}

impl Chart<'_> {
    /// The figure; nothing where no line has a value.
    pub(super) fn render(mut self) -> String {
        self.series.retain(|series| !series.is_empty());
        if self.series.is_empty() {
            return String::new();
        }
        let vertical = Axis::values(self.unit, self.series.iter().flat_map(Series::values));
        let mut out = String::from("<figure class=\"chart\">");
        let _ = write!(out, "<figcaption><b>{}</b> <span>", escape(self.title));
        let _ = write!(out, "{}{}", escape(self.about), if vertical.is_log() { ", logarithmic" } else { "" });
        out += "</span>";
        if self.series.len() > 1 {
            out += "<span class=\"legend\">";
            for (place, series) in self.series.iter().enumerate() {
                let _ = write!(out, "<span><i class=\"s{place}\"></i>{}</span>", escape(&series.name));
            }
            out += "</span>";
        }
        let across = match self.across {
            Across::Time => "time",
            Across::Percentiles => "percentile",
            Across::Sessions => "sessions",
        };
        let _ = write!(
            out,
            "</figcaption><div class=\"plot\" data-across=\"{across}\" data-high=\"{}\" data-unit=\"{}\">",
            self.horizontal.high(),
            self.unit.name()
        );
        self.drawing(&mut out, &vertical);
        for (place, label) in &vertical.ticks {
            let _ = write!(
                out,
                "<span class=\"y\" style=\"top:{}%\">{label}</span>",
                short(100.0 - place * 100.0)
            );
        }
        for (index, (place, label)) in self.horizontal.ticks.iter().enumerate() {
            let class = if index % 2 == 1 { "x odd" } else { "x" };
            let _ = write!(
                out,
                "<span class=\"{class}\" style=\"left:{}%\">{label}</span>",
                short(place * 100.0)
            );
        }
        out += "</div></figure>\n";
        out
    }

    fn drawing(&self, out: &mut String, vertical: &Axis) {
        let told: Vec<String> = self
            .series
            .iter()
            .map(|series| {
                let most = series.values().fold(0.0, f64::max);
                let last = series.values().last().unwrap_or(0.0);
                format!(
                    "{}: at the most {}, last {}",
                    series.name,
                    self.unit.show(most),
                    self.unit.show(last)
                )
            })
            .collect();
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\"><title>{}</title><desc>{}</desc>",
            escape(self.title),
            escape(&told.join("; "))
        );
        for band in self.bands {
            let (from, until) = (self.horizontal.place(band.from_s), self.horizontal.place(band.until_s));
            let _ = write!(
                out,
                "<rect class=\"band\" x=\"{}\" width=\"{}\" height=\"{HEIGHT}\"><title>{}</title></rect>",
                short(from * WIDTH),
                short((until - from) * WIDTH),
                escape(&band.phase)
            );
        }
        let mut grid = String::new();
        for (place, _) in &vertical.ticks {
            let _ = write!(grid, "M0 {}H{WIDTH}", short((1.0 - place) * HEIGHT));
        }
        for (place, _) in &self.horizontal.ticks {
            let _ = write!(grid, "M{} 0V{HEIGHT}", short(place * WIDTH));
        }
        let _ = write!(out, "<path class=\"grid\" d=\"{grid}\"/>");
        for (index, series) in self.series.iter().enumerate() {
            let points = thin(&series.points);
            let (mut line, mut dots, mut told) = (String::new(), String::new(), String::new());
            for part in points.split(|(_, value)| value.is_none()) {
                let places = part.iter().filter_map(|(at, value)| {
                    let value = (*value)?;
                    let _ = write!(told, "{}:{} ", short(self.horizontal.place(*at) * WIDTH), short(value));
                    Some((self.horizontal.place(*at) * WIDTH, (1.0 - vertical.place(value)) * HEIGHT))
                });
                for (index, (x, y)) in places.enumerate() {
                    // A point between two gaps is a dot: a line of no length with round ends.
                    let (path, start, end) = match part.len() {
                        1 => (&mut dots, "M", "h0"),
                        _ => (&mut line, if index == 0 { "M" } else { "L" }, ""),
                    };
                    let _ = write!(path, "{start}{} {}{end}", short(x), short(y));
                }
            }
            let _ = write!(
                out,
                "<path class=\"s{index}\" data-name=\"{}\" data-points=\"{}\" d=\"{line}\"/>",
                escape(&series.name),
                told.trim_end()
            );
            if !dots.is_empty() {
                let _ = write!(out, "<path class=\"s{index} dots\" d=\"{dots}\"/>");
            }
        }
        out.push_str("</svg>");
    }
}

/// Two decimals, where there are any.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// At most so many points: of each part the least and the greatest value, where they were.
fn thin(points: &[(f64, Option<f64>)]) -> Vec<(f64, Option<f64>)> {
    if points.len() <= MOST_POINTS {
        return points.to_vec();
    }
    let part = points.len().div_ceil(MOST_POINTS / 2);
    let mut kept = Vec::with_capacity(MOST_POINTS);
    for part in points.chunks(part) {
        let values = || part.iter().filter(|(_, value)| value.is_some());
        let by_value = |a: &&(f64, Option<f64>), b: &&(f64, Option<f64>)| {
            a.1.partial_cmp(&b.1).unwrap_or(std::cmp::Ordering::Equal)
        };
        match (values().min_by(by_value), values().max_by(by_value)) {
            (Some(least), Some(greatest)) => {
                let (first, second) =
                    if least.0 <= greatest.0 { (least, greatest) } else { (greatest, least) };
                kept.push(*first);
                if first.0 != second.0 {
                    kept.push(*second);
                }
            }
            (None, _) | (_, None) => kept.extend(part.first()),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, Option<f64>)>) -> String {
        Chart {
            title: "A <title>",
            about: "of nothing",
            across: Across::Time,
            horizontal: Axis::seconds(points.len() as f64),
            unit: Unit::Count,
            series: vec![Series { name: "\"x\"".to_owned(), points }],
            bands: &[Band { from_s: 0.0, until_s: 1.0, phase: "a&b".to_owned() }],
        }
        .render()
    }

    #[test]
    fn gaps_part_the_line_and_a_lonely_point_is_a_dot() {
        let values = [Some(0.0), Some(4.0), None, Some(2.0), None];
        let html = chart(values.into_iter().enumerate().map(|(at, value)| (at as f64, value)).collect());
        assert!(html.contains("d=\"M0 200L200 0\"") && html.contains("d=\"M600 100h0\""), "{html}");
        assert!(html.contains("data-points=\"0:0 200:4 600:2\""), "{html}");
        assert!(
            html.contains("A &lt;title&gt;") && html.contains("a&amp;b") && html.contains("&quot;x&quot;")
        );
        assert!(!html.contains("<title>A <title>"));
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert_eq!(chart(vec![(0.0, None)]), "");
        assert_eq!(chart(Vec::new()), "");
    }

    #[test]
    fn a_long_line_is_thinned_and_keeps_what_stands_out() {
        let mut points: Vec<_> = (0..100_000).map(|at| (f64::from(at), Some(10.0))).collect();
        points[4_321].1 = Some(99.0);
        points[77_777].1 = Some(1.0);
        points[50_000..60_000].iter_mut().for_each(|point| point.1 = None);
        let kept = thin(&points);
        assert!(kept.len() <= MOST_POINTS, "{}", kept.len());
        assert!(kept.contains(&(4_321.0, Some(99.0))) && kept.contains(&(77_777.0, Some(1.0))));
        assert!(kept.iter().any(|(_, value)| value.is_none()));
        assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
        assert!(chart(points).len() < 40_000);
    }
}
