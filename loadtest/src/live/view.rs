//! The view of several lines: what stands in it, and the bytes that put it in the place of the one before.
//!
//! A frame is one write. It moves the cursor up over the last frame, writes each line over the old one and erases only
//! what is left of it: nothing flickers. The cursor stays visible below the view, and nothing of the terminal is
//! changed; so whatever ends the process leaves nothing to be restored.

use std::{collections::VecDeque, fmt::Write};

use crate::{
    fault::Faults,
    report::Second,
    terminal::Size,
    tone::Tone,
    units::{show_bytes, show_count, show_ns},
};

/// Characters of the bar, where there is room.
const BAR: usize = 30;
/// Seconds of which the rate is drawn.
const SPARKS: usize = 30;

/// A line in pieces.
type Row = Vec<(Tone, String)>;

/// What the view tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rate {
    Messages,
    Handshakes,
}

/// How far a phase has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Progress {
    /// Seconds, and how many there will be.
    Time { elapsed_s: f64, total_s: f64 },
    /// Sessions that are up, and how many are to be.
    Sessions { up: u32, total: u32 },
}

/// The view.
#[derive(Debug)]
pub(super) struct View {
    /// What is run.
    title: String,
    rate: Rate,
    has_colours: bool,
    /// The last seconds' rates.
    rates: VecDeque<u64>,
    /// How wide each line of the last frame was.
    drawn: Vec<usize>,
}

impl View {
    pub(super) fn new(title: String, rate: Rate, has_colours: bool) -> Self {
        Self { title, rate, has_colours, rates: VecDeque::new(), drawn: Vec::new() }
    }

    /// The bytes that show one more second.
    pub(super) fn frame(
        &mut self,
        second: &Second,
        progress: Progress,
        faults: &Faults,
        size: Size,
    ) -> String {
        self.rates.push_back(match self.rate {
            Rate::Messages => second.messages,
            Rate::Handshakes => second.handshakes,
        });
        if self.rates.len() > SPARKS {
            self.rates.pop_front();
        }
        let mut out = self.back(size);
        self.drawn.clear();
        // The cursor's own line is below the view.
        let room = size.rows.saturating_sub(1).max(1);
        for row in self.rows(second, progress, faults, size.columns).into_iter().take(room) {
            // A line as wide as the terminal would wrap on some.
            let row = cut(row, size.columns.saturating_sub(1).max(1));
            self.drawn.push(row.iter().map(|(_, text)| text.chars().count()).sum());
            for (tone, text) in row {
                out += &tone.paint(&text, self.has_colours);
            }
            out.push_str("\x1b[K\n");
        }
        out + "\x1b[J"
    }

    /// The bytes that take the view away.
    pub(super) fn end(&mut self, size: Size) -> String {
        let out = self.back(size) + "\x1b[J";
        self.drawn.clear();
        out
    }

    /// To the first line of the last frame. In a window that has become narrower, its lines have become more.
    fn back(&self, size: Size) -> String {
        let rows: usize = self.drawn.iter().map(|width| width.div_ceil(size.columns.max(1)).max(1)).sum();
        match rows.min(size.rows.saturating_sub(1)) {
            0 => "\r".to_owned(),
            rows => format!("\r\x1b[{rows}A"),
        }
    }

    fn rows(&self, second: &Second, progress: Progress, faults: &Faults, columns: usize) -> Vec<Row> {
        let mut rows = vec![vec![(Tone::Bold, self.title.clone())], bar(second.phase, progress, columns)];
        let mut sessions = format!("{} up", show_count(f64::from(second.open)));
        if second.pending > 0 {
            let _ = write!(sessions, ", {} coming", show_count(f64::from(second.pending)));
        }
        if self.rate == Rate::Messages && second.handshakes > 0 {
            let _ = write!(sessions, ", {} handshakes/s", show_count(second.handshakes as f64));
        }
        rows.push(named("sessions", sessions));
        let name = match self.rate {
            Rate::Messages => "messages",
            Rate::Handshakes => "handshakes",
        };
        let rate = self.rates.back().copied().unwrap_or(0);
        let mut row = named(name, format!("{:<12}", format!("{}/s", show_count(rate as f64))));
        row.push((Tone::Good, sparks(&self.rates)));
        rows.push(row);
        if self.rate == Rate::Messages {
            let us = |us: Option<f64>| us.map_or_else(|| "\u{2013}".to_owned(), |us| show_ns(us * 1e3));
            let (p50, p99, max) = (us(second.p50_us), us(second.p99_us), us(second.max_us));
            rows.push(named("latency", format!("p50 {p50}  p99 {p99}  max {max}")));
        }
        let mut row = named("errors", String::new());
        if faults.total() == 0 {
            row.push((Tone::Plain, "none".to_owned()));
        } else {
            row.push((Tone::Bad, show_count(faults.total() as f64)));
            let mut kinds: Vec<_> = faults.met().collect();
            kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            let kinds: Vec<String> = kinds
                .iter()
                .map(|(fault, count)| format!("{} {}", fault.name(), show_count(*count as f64)))
                .collect();
            row.push((Tone::Plain, format!(": {}", kinds.join(", "))));
        }
        rows.push(row);
        let mut server = Vec::new();
        server.extend(second.server_cores.map(|cores| format!("{:.0} % of a core", cores * 100.0)));
        server.extend(second.server_memory_bytes.map(|bytes| show_bytes(bytes as f64)));
        if !server.is_empty() {
            rows.push(named("server", server.join(", ")));
        }
        rows
    }
}

fn named(name: &str, text: String) -> Row {
    vec![(Tone::Dim, format!("{name:<11}")), (Tone::Plain, text)]
}

fn bar(phase: &str, progress: Progress, columns: usize) -> Row {
    let (done, told) = match progress {
        Progress::Time { elapsed_s, total_s } => {
            let elapsed_s = elapsed_s.clamp(0.0, total_s);
            (elapsed_s / total_s.max(1e-9), format!("{} of {}", time(elapsed_s), time(total_s)))
        }
        Progress::Sessions { up, total } => (
            f64::from(up) / f64::from(total.max(1)),
            format!("{} of {}", show_count(f64::from(up)), show_count(f64::from(total))),
        ),
    };
    let room = columns.saturating_sub(11 + 2 + told.len() + 1).min(BAR);
    let full = (done.clamp(0.0, 1.0) * room as f64).round() as usize;
    vec![
        (Tone::Dim, format!("{phase:<11}")),
        (Tone::Good, "\u{2588}".repeat(full)),
        (Tone::Dim, "\u{2591}".repeat(room - full)),
        (Tone::Plain, format!("  {told}")),
    ]
}

/// Whole seconds, or minutes and seconds.
fn time(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{}:{:02} min", whole / 60, whole % 60),
        _ => format!("{}:{:02} h", whole / 3600, whole % 3600 / 60),
    }
}

/// A column for each, as high as it is against the greatest.
fn sparks(rates: &VecDeque<u64>) -> String {
    const HEIGHTS: [char; 8] =
        ['\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}'];
    let most = rates.iter().copied().max().unwrap_or(0).max(1);
    rates.iter().map(|rate| HEIGHTS[(*rate as f64 / most as f64 * 7.0).round() as usize]).collect()
}

/// At most so many characters; what is cut ends with a mark.
fn cut(row: Row, width: usize) -> Row {
    let total: usize = row.iter().map(|(_, text)| text.chars().count()).sum();
    if total <= width {
        return row;
    }
    let mut left = width - 1;
    let mut kept: Row = Vec::new();
    for (tone, text) in row {
        let piece: String = text.chars().take(left).collect();
        left -= piece.chars().count();
        kept.push((tone, piece));
    }
    kept.push((Tone::Plain, "\u{2026}".to_owned()));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;

    const WIDE: Size = Size { columns: 80, rows: 24 };
    const HALF: Progress = Progress::Time { elapsed_s: 15.0, total_s: 30.0 };

    fn second() -> Second {
        Second {
            at_s: 3,
            phase: "measuring",
            open: 1500,
            pending: 2,
            handshakes: 7,
            messages: 95_000,
            errors: 1,
            p50_us: Some(4900.0),
            p99_us: Some(6100.0),
            max_us: None,
            server_cores: Some(0.993),
            server_memory_bytes: Some(14 << 20),
        }
    }

    fn view(has_colours: bool) -> View {
        View::new("echo ws://h/".to_owned(), Rate::Messages, has_colours)
    }

    fn faults() -> Faults {
        let mut faults = Faults::default();
        faults.add(Fault::Closed, 2);
        faults.add(Fault::Lost, 1_000);
        faults
    }

    /// What a terminal shows after these bytes: only what a frame uses is known to it.
    fn screen(bytes: &str, columns: usize) -> Vec<String> {
        let mut lines: Vec<Vec<char>> = vec![Vec::new()];
        let (mut row, mut column) = (0, 0);
        let mut rest = bytes.chars();
        while let Some(c) = rest.next() {
            match c {
                '\r' => column = 0,
                '\n' => {
                    (row, column) = (row + 1, 0);
                    if lines.len() == row {
                        lines.push(Vec::new());
                    }
                }
                '\x1b' => {
                    assert_eq!(rest.next(), Some('['));
                    let mut number = String::new();
                    let command = rest.by_ref().find(|c| {
                        number.extend(c.is_ascii_digit().then_some(*c));
                        c.is_ascii_alphabetic()
                    });
                    match command {
                        Some('A') => row -= number.parse::<usize>().unwrap(),
                        Some('K') => lines[row].truncate(column),
                        Some('J') => {
                            lines[row].truncate(column);
                            lines.truncate(row + 1);
                        }
                        Some('m') => {}
                        other => panic!("{other:?}"),
                    }
                }
                c => {
                    assert!(column < columns, "a line wraps");
                    let width = lines[row].len().max(column + 1);
                    lines[row].resize(width, ' ');
                    lines[row][column] = c;
                    column += 1;
                }
            }
        }
        lines.into_iter().map(|line| line.into_iter().collect()).collect()
    }

    #[test]
    fn a_frame_tells_all_of_a_second() {
        let shown = screen(&view(false).frame(&second(), HALF, &faults(), WIDE), 80);
        let expected = [
            "echo ws://h/",
            "measuring  ███████████████░░░░░░░░░░░░░░░  15 s of 30 s",
            "sessions   1,500 up, 2 coming, 7 handshakes/s",
            "messages   95,000/s    █",
            "latency    p50 4.90 ms  p99 6.10 ms  max –",
            "errors     1,002: lost 1,000, closed 2",
            "server     99 % of a core, 14.0 MiB",
            "",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_frame_takes_the_place_of_the_one_before() {
        let mut view = view(true);
        let mut bytes = view.frame(&second(), HALF, &faults(), WIDE);
        let mut after =
            Second { messages: 47_500, server_cores: None, server_memory_bytes: None, ..second() };
        after.phase = "draining";
        bytes +=
            &view.frame(&after, Progress::Time { elapsed_s: 99.0, total_s: 90.0 }, &Faults::default(), WIDE);
        let shown = screen(&bytes, 80);
        assert_eq!(shown.len(), 7, "{shown:?}");
        assert_eq!(shown[1], format!("draining   {}  1:30 min of 1:30 min", "█".repeat(30)));
        assert_eq!((&*shown[3], &*shown[5]), ("messages   47,500/s    █▅", "errors     none"));
        // After the end nothing of it is left.
        bytes += &view.end(WIDE);
        assert_eq!(screen(&bytes, 80), [""]);
    }

    #[test]
    fn colours_are_left_out_where_they_are_not_wanted() {
        let is_coloured =
            |has_colours| view(has_colours).frame(&second(), HALF, &faults(), WIDE).contains("m1,002");
        assert!(is_coloured(true) && !is_coloured(false));
    }

    #[test]
    fn small_windows_cut_and_never_wrap() {
        for columns in 1..90 {
            for rows in 1..10 {
                let mut view = view(true);
                for _ in 0..40 {
                    let bytes = view.frame(&second(), HALF, &faults(), Size { columns, rows });
                    let up = bytes
                        .split("\x1b[")
                        .nth(1)
                        .and_then(|text| text.strip_suffix('A'))
                        .map_or(0, |n| n.parse().unwrap());
                    assert!(up < rows.max(2), "{up} of {rows}");
                    let shown = screen(bytes.trim_start_matches(|c| c != 'e'), columns);
                    assert!(
                        shown.len() <= rows.max(2)
                            && shown.iter().all(|line| line.chars().count() < columns.max(2))
                    );
                }
            }
        }
    }

    #[test]
    fn a_window_that_became_narrower_is_left_clean() {
        let mut view = view(false);
        let _ = view.frame(&second(), HALF, &faults(), WIDE);
        // Lines of 55 and 45 and 43 characters are two each at 40, the other four one.
        let bytes = view.frame(&second(), HALF, &faults(), Size { columns: 40, rows: 24 });
        assert!(bytes.starts_with("\r\x1b[10A"), "{bytes:?}");
    }
}
