//! `replay`: when messages are due and how long they are, from a file.
//!
//! ```text
//! gap_us,size,kind        optional; names the columns, in any order
//! 0,120,text              the first message, as soon as a session begins
//! 1500.5,64               1.5 ms after it; the kind is optional
//! ```
//!
//! Nothing is quoted. Empty lines and those that begin with `#` are left out.

use std::{cmp::Reverse, collections::BinaryHeap, fmt, sync::Arc};

use tidegate_wire::message::Kind;

use crate::{
    payload::Sizes,
    random::of_message,
    schedule::{Key, count_due},
};

/// The longest gap: a day.
const MOST_GAP_US: f64 = 86_400e6;

/// A message of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    /// After the message before it.
    gap_ns: u64,
    /// After the beginning of the file.
    at_ns: u64,
    size: usize,
    kind: Kind,
}

/// Where each session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    First,
    /// At a message of its own.
    Anywhere,
}

/// What sessions play.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    rows: Vec<Row>,
    start: Start,
    /// Whether it begins again after its end.
    loops: bool,
}

/// Where a file is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadTrace {
    /// From 1; 0 where no line is wrong.
    line: usize,
    /// From 1, in characters.
    column: usize,
    what: &'static str,
}

impl fmt::Display for BadTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}, column {}: ", self.line, self.column)?;
        }
        f.write_str(self.what)
    }
}

/// Which cell of a line is what.
struct Columns {
    gap: usize,
    size: usize,
    kind: Option<usize>,
    /// Cells that a line may have.
    count: usize,
}

impl Trace {
    /// Reads a file. `kind`: of messages that name none; `most`: the longest message.
    ///
    /// # Errors
    /// Where it is wrong.
    pub(crate) fn parse(
        text: &str,
        kind: Kind,
        most: usize,
        start: Start,
        loops: bool,
    ) -> Result<Self, BadTrace> {
        // Some spreadsheets begin UTF-8 with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut columns = None;
        let mut rows = Vec::new();
        let mut at_ns = 0;
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let cells = cells(line);
            let bad = |column: usize, what| BadTrace { line: number + 1, column, what };
            if columns.is_none() {
                let starts_with_number = cells[0].1.starts_with(|c: char| c.is_ascii_digit() || c == '.');
                let found = if starts_with_number {
                    Ok(Columns { gap: 0, size: 1, kind: Some(2), count: 3 })
                } else {
                    header(&cells)
                };
                columns = Some(found.map_err(|(column, what)| bad(column, what))?);
                if !starts_with_number {
                    continue;
                }
            }
            let Some(Columns { gap, size, kind: kind_at, count }) = &columns else { continue };
            if let Some((column, _)) = cells.get(*count) {
                return Err(bad(*column, "there are more cells than columns: gap_us,size,kind"));
            }
            let end = line.chars().count() + 1;
            let cell = |at: usize, what| cells.get(at).copied().ok_or_else(|| bad(end, what));
            let (column, text) = cell(*gap, "the gap is missing: gap_us,size")?;
            let gap_us: f64 =
                text.parse().map_err(|_| bad(column, "the gap is no number of microseconds"))?;
            if !(0.0..=MOST_GAP_US).contains(&gap_us) {
                return Err(bad(column, "the gap is not between 0 and a day"));
            }
            let (column, text) = cell(*size, "the size is missing: gap_us,size")?;
            let size: usize = text.parse().map_err(|_| bad(column, "the size is no number of bytes"))?;
            if size > most {
                return Err(bad(column, "the size is more than a message may have"));
            }
            let kind = match kind_at.and_then(|at| cells.get(at)) {
                None | Some((_, "")) => kind,
                Some((_, "text")) => Kind::Text,
                Some((_, "binary")) => Kind::Binary,
                Some((column, _)) => return Err(bad(*column, "the kind is neither text nor binary")),
            };
            let gap_ns = (gap_us * 1e3) as u64;
            at_ns += gap_ns;
            rows.push(Row { gap_ns, at_ns, size, kind });
        }
        let none = |what| BadTrace { line: 0, column: 0, what };
        if rows.is_empty() {
            return Err(none("there is no message in it"));
        }
        if loops && at_ns == 0 {
            return Err(none("without any gap it cannot be played in a loop"));
        }
        Ok(Self { rows, start, loops })
    }

    /// The shortest and the longest message.
    pub(crate) fn bounds(&self) -> Sizes {
        let sizes = || self.rows.iter().map(|row| row.size);
        Sizes { min: sizes().min().unwrap_or(0), max: sizes().max().unwrap_or(0) }
    }

    /// The kind of all messages, where it is one.
    pub(crate) fn kind(&self) -> Option<Kind> {
        let first = self.rows[0].kind;
        self.rows.iter().all(|row| row.kind == first).then_some(first)
    }

    /// From the beginning to the last message.
    pub(crate) fn length_ns(&self) -> u64 {
        self.rows.last().map_or(0, |row| row.at_ns)
    }

    /// Messages of a session.
    pub(crate) fn messages(&self) -> u64 {
        if self.loops { u64::MAX } else { self.len() }
    }

    /// Whether it begins again after its end.
    pub(crate) fn loops(&self) -> bool {
        self.loops
    }

    /// Messages of the file.
    pub(crate) fn len(&self) -> u64 {
        self.rows.len() as u64
    }

    fn begin(&self, serial: u32) -> u64 {
        match self.start {
            Start::First => 0,
            Start::Anywhere => of_message(0, serial, 0) % self.len(),
        }
    }

    /// Of any number: what a server sends may stand for one that was never sent.
    fn row(&self, serial: u32, number: u64) -> &Row {
        &self.rows[((self.begin(serial) + number % self.len()) % self.len()) as usize]
    }

    pub(crate) fn size_of(&self, serial: u32, number: u64) -> usize {
        self.row(serial, number).size
    }

    pub(crate) fn kind_of(&self, serial: u32, number: u64) -> Kind {
        self.row(serial, number).kind
    }

    /// When a message is due, after its session began.
    pub(crate) fn due_ns(&self, serial: u32, number: u64) -> u64 {
        let begin = self.begin(serial);
        let first = &self.rows[begin as usize];
        let place = begin + number;
        let rounds = place / self.len();
        let at_ns = rounds * self.length_ns() + self.rows[(place % self.len()) as usize].at_ns;
        at_ns - (first.at_ns - first.gap_ns)
    }
}

/// The cells of a line, and the column where each begins.
fn cells(line: &str) -> Vec<(usize, &str)> {
    let mut column = 1;
    line.split(',')
        .map(|cell| {
            let blank = cell.chars().take_while(|c| c.is_whitespace()).count();
            let found = (column + blank, cell.trim());
            column += cell.chars().count() + 1;
            found
        })
        .collect()
}

fn header(cells: &[(usize, &str)]) -> Result<Columns, (usize, &'static str)> {
    let place = |name: &str| cells.iter().position(|(_, cell)| *cell == name);
    let known = ["gap_us", "size", "kind"];
    if let Some((column, _)) = cells.iter().find(|(_, cell)| !known.contains(cell)) {
        return Err((*column, "columns are gap_us, size and kind"));
    }
    let gap = place("gap_us").ok_or((1, "there is no column gap_us"))?;
    let size = place("size").ok_or((1, "there is no column size"))?;
    Ok(Columns { gap, size, kind: place("kind"), count: cells.len() })
}

/// Whose next message is due when.
#[derive(Debug, Default)]
pub(crate) struct Playback {
    trace: Option<Arc<Trace>>,
    start_ns: u64,
    end_ns: u64,
    /// When, who, which message of theirs.
    next: BinaryHeap<Reverse<(u64, u32, u32, u64)>>,
}

impl Playback {
    /// Every session begins at `start_ns`; nothing is due from `end_ns` on.
    pub(crate) fn new(trace: Arc<Trace>, keys: &[Key], start_ns: u64, end_ns: u64) -> Self {
        let next = keys
            .iter()
            .map(|key| Reverse((start_ns + trace.due_ns(key.serial, 0), key.index, key.serial, 0)))
            .collect();
        Self { trace: Some(trace), start_ns, end_ns, next }
    }

    /// When the next message is due; `None` after the end.
    #[inline]
    pub(crate) fn next_ns(&self) -> Option<u64> {
        let Reverse((due_ns, ..)) = self.next.peek()?;
        (*due_ns < self.end_ns).then_some(*due_ns)
    }

    /// Whose message is due by `now_ns`; each is told once.
    #[inline]
    pub(crate) fn poll_due(&mut self, now_ns: u64) -> Option<Key> {
        if self.next_ns()? > now_ns {
            return None;
        }
        let Reverse((_, index, serial, number)) = self.next.pop()?;
        if let Some(trace) = &self.trace
            && number + 1 < trace.messages()
        {
            let due_ns = self.start_ns + trace.due_ns(serial, number + 1);
            self.next.push(Reverse((due_ns, index, serial, number + 1)));
        }
        Some(Key { index, serial })
    }

    /// What is due before the end and was not told: whose, and how many. Nothing is due after that.
    pub(crate) fn take_rest(&mut self) -> Vec<(Key, u64)> {
        let Some(trace) = &self.trace else { return Vec::new() };
        let (start_ns, end_ns) = (self.start_ns, self.end_ns);
        // Each round is played once for its length, and wherever a session begins, one round more than that is too much.
        let rounds = end_ns.saturating_sub(start_ns) / trace.length_ns().max(1) + 2;
        let most = trace.messages().min(rounds.saturating_mul(trace.len()));
        let rest = std::mem::take(&mut self.next).into_iter().map(|Reverse((_, index, serial, told))| {
            let is_due = |number: u64| start_ns + trace.due_ns(serial, number) < end_ns;
            (Key { index, serial }, count_due(told, most, is_due))
        });
        rest.filter(|(_, count)| *count > 0).collect()
    }

    /// Nothing is due from `end_ns` on.
    pub(crate) fn end(&mut self, end_ns: u64) {
        self.end_ns = self.end_ns.min(end_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(text: &str, start: Start, loops: bool) -> Result<Trace, BadTrace> {
        Trace::parse(text, Kind::Binary, 1000, start, loops)
    }

    #[test]
    fn columns_come_in_any_order_with_a_header_and_without() {
        let plain = trace("0,5\r\n10.5, 7 ,text\n\n# a word\n2,9,binary\n", Start::First, false).unwrap();
        let named = trace("kind,size,gap_us\n,5,0\ntext,7,10.5\nbinary,9,2", Start::First, false).unwrap();
        let marked = trace("\u{feff}gap_us,size,kind\n0,5\n10.5,7,text\n2,9,binary", Start::First, false);
        assert_eq!((&plain, Ok(&plain)), (&named, marked.as_ref()));
        assert!(trace("\u{feff}0,5", Start::First, false).is_ok());
        assert_eq!(
            (plain.bounds(), plain.kind(), plain.length_ns()),
            (Sizes { min: 5, max: 9 }, None, 12_500)
        );
        assert_eq!((plain.size_of(3, 1), plain.kind_of(3, 1), plain.due_ns(3, 2)), (7, Kind::Text, 12_500));
    }

    #[test]
    fn what_is_wrong_is_told_with_line_and_column() {
        for (text, place) in [
            ("gap_us,size\n1,2\n1,x", "line 3, column 3: the size is no"),
            ("1, 2,texts", "line 1, column 6: the kind"),
            ("1", "line 1, column 2: the size is missing"),
            ("0,1\n-1,2", "line 2, column 1: the gap is not"),
            ("0,1\nNaN,2", "line 2, column 1: the gap is not"),
            ("1,1001", "line 1, column 3: the size is more"),
            ("0,1\n0,1,text,9", "line 2, column 10: there are more cells than columns"),
            ("gap_us,size\n0,1\n0,1,text", "line 3, column 5: there are more cells than columns"),
            ("gap,size", "line 1, column 1: columns are"),
            ("size,kind", "line 1, column 1: there is no column gap_us"),
            ("", "there is no message"),
        ] {
            let error = trace(text, Start::First, false).unwrap_err().to_string();
            assert!(error.starts_with(place), "{text:?}: {error}");
        }
        assert!(trace("0,1", Start::First, true).is_err());
    }

    #[test]
    fn each_session_plays_all_of_it_wherever_it_begins() {
        let once = trace("5,1\n10,2\n20,3", Start::Anywhere, false).unwrap();
        let starts: std::collections::HashSet<u64> = (0..50).map(|serial| once.begin(serial)).collect();
        assert_eq!(starts.len(), 3);
        for serial in 0..50 {
            let mut sizes: Vec<usize> = (0..3).map(|number| once.size_of(serial, number)).collect();
            sizes.sort_unstable();
            assert_eq!(sizes, [1, 2, 3]);
            assert_eq!(once.due_ns(serial, 2), 35_000, "all gaps, each once");
        }
    }

    #[test]
    fn messages_are_due_in_order_and_a_loop_goes_on_until_the_end() {
        let keys: Vec<Key> = (0..5).map(|index| Key { index, serial: index }).collect();
        for (loops, expected) in [(false, 15), (true, 5 * (2 * 3 + 1))] {
            let trace = Arc::new(trace("5,1\n10,2\n20,3", Start::First, loops).unwrap());
            // Two rounds, and the first message of the third.
            let mut playback = Playback::new(trace, &keys, 1000, 1000 + 75_001);
            let mut times = Vec::new();
            while let Some(due_ns) = playback.next_ns() {
                assert_eq!(playback.poll_due(due_ns - 1), None);
                assert!(playback.poll_due(due_ns).is_some());
                times.push(due_ns);
            }
            assert!(times.is_sorted());
            assert_eq!(times.len(), expected);
        }
    }

    #[test]
    fn the_rest_is_what_would_have_been_told() {
        let keys: Vec<Key> = (0..5).map(|index| Key { index, serial: index }).collect();
        for (start, loops) in
            [(Start::First, false), (Start::Anywhere, false), (Start::First, true), (Start::Anywhere, true)]
        {
            for told in [0, 1, 4, 9] {
                let trace = Arc::new(trace("5,1\n0,2\n10,2\n20,3", start, loops).unwrap());
                let new = || Playback::new(Arc::clone(&trace), &keys, 1000, 1000 + 75_001);
                let (mut playback, mut walked) = (new(), new());
                for _ in 0..told {
                    assert_eq!(playback.poll_due(u64::MAX), walked.poll_due(u64::MAX));
                }
                let mut counts = [0; 5];
                while let Some(key) = walked.poll_due(u64::MAX) {
                    counts[key.index as usize] += 1;
                }
                let mut rest = [0; 5];
                for (key, count) in playback.take_rest() {
                    rest[key.index as usize] = count;
                }
                assert_eq!(rest, counts, "{start:?} {loops} {told}");
                assert!(playback.next_ns().is_none() && playback.take_rest().is_empty());
            }
        }
    }
}
