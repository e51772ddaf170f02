//! What is wrong in a file, and where: told with the line itself and a caret under it.

use std::{collections::BTreeMap, fmt, ops::Range, path::Path};

use crate::{
    hidden::{secrets, united, unknown, value_without_secrets, without_secrets},
    section::cut,
};

/// One mistake in a configuration file, or one thing in it that is hardly meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name, as given.
    pub file: String,
    /// Line, from 1; 0 where the problem is with the file as a whole, or where
    /// it stands is not known.
    pub line: usize,
    /// Column in characters, from 1; 0 where `line` is.
    pub column: usize,
    /// What is wrong: one line.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
    /// The line in question, cut to what fits a screen, and the caret's place in it.
    excerpt: Option<Excerpt>,
}

/// A line of the file, made printable.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    text: String,
    /// Characters before the caret.
    before: usize,
    /// Carets.
    width: usize,
}

/// Most characters of a line that are shown.
const EXCERPT_CHARS: usize = 120;

impl Problem {
    /// A problem with the file as a whole: it cannot be read, or is too long.
    pub(crate) fn whole_file(file: &str, message: String) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, message, suggestion: None, excerpt: None }
    }

    /// A problem that is in no line of the file: `what` stands there as it should, and cannot be had.
    #[must_use]
    pub fn without_place(what: &str, message: String) -> Self {
        Self::whole_file(what, message)
    }

    /// The same place, with what is wrong with a file that is named there.
    pub(crate) fn about(&self, path: &Path, why: &str) -> Self {
        let message = printable(&format!("{}: {why}", cut(&path.display().to_string())));
        Self { message, ..self.clone() }
    }

    /// The first line of what [`fmt::Display`] writes: `file:line:column: message (did you mean …?)`.
    #[must_use]
    pub fn headline(&self) -> String {
        let mut text = printable(&self.file);
        if self.line > 0 {
            text.push_str(&format!(":{}:{}", self.line, self.column));
        }
        text.push_str(": ");
        text.push_str(&self.message);
        if let Some(suggestion) = &self.suggestion {
            text.push_str(&format!(" (did you mean `{suggestion}`?)"));
        }
        text
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline())?;
        if let Some(Excerpt { text, before, width }) = &self.excerpt {
            let number = self.line.to_string();
            let margin = number.len();
            write!(f, "\n{number} | {text}\n{:margin$} | {:before$}{}", "", "", "^".repeat(*width))?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// A text that problems point into.
pub(crate) struct Source<'t> {
    name: &'t str,
    text: &'t str,
    /// Where each line begins.
    starts: Vec<usize>,
    /// Where values begin and end that are not shown; none is in another.
    hidden: BTreeMap<usize, usize>,
    /// Where keys and values begin and end that may be shown; none is in another.
    harmless: BTreeMap<usize, usize>,
    /// Where texts over several lines begin and end, by their quotes.
    quotes: [Vec<usize>; 2],
}

impl<'t> Source<'t> {
    pub(crate) fn new(text: &'t str, name: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let quotes = ["\"\"\"", "'''"].map(|quotes| text.match_indices(quotes).map(|(at, _)| at).collect());
        Self { name, text, starts, hidden: BTreeMap::new(), harmless: BTreeMap::new(), quotes }
    }

    /// A problem somewhere in the text.
    pub(crate) fn whole(&self, message: String) -> Problem {
        Problem::whole_file(self.name, message)
    }

    /// From now on this is not shown.
    pub(crate) fn hide(&mut self, span: Range<usize>) {
        self.hidden.insert(span.start, span.end);
    }

    /// This may be shown.
    pub(crate) fn show(&mut self, span: Range<usize>) {
        self.harmless.insert(span.start, span.end);
    }

    fn may_show(&self, span: Range<usize>) -> bool {
        self.harmless.range(..=span.start).next_back().is_some_and(|(_, end)| *end >= span.end)
    }

    /// What is not shown of a row that begins there.
    fn secrets(&self, row: &str, start: usize) -> Vec<Range<usize>> {
        let mut found = secrets(row);
        found.extend(unknown(row, |token| self.may_show(start + token.start..start + token.end)));
        // A text over several lines has begun above, and nothing on this one says what it is.
        if self.quotes.iter().any(|quotes| quotes.partition_point(|at| *at < start) % 2 == 1) {
            found.push(0..row.len());
        }
        let hidden = self.hidden.range(..start + row.len()).rev().take_while(|(_, end)| **end > start);
        found.extend(hidden.map(|(from, to)| from.saturating_sub(start)..(to - start).min(row.len())));
        united(found)
    }

    /// The line of a byte offset, from 1. An offset behind the text is on its last line.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    /// The problem there. `reached` is where the one before it began.
    pub(crate) fn problem(
        &self,
        reached: &mut Place,
        span: &Range<usize>,
        message: String,
        suggestion: Option<String>,
    ) -> Problem {
        let line = self.line(span.start);
        let start = self.starts[line - 1];
        let end = self.starts.get(line).map_or(self.text.len(), |next| next - 1);
        let row = self.text[start..end].trim_end_matches('\r');
        let from = row.ceil_char_boundary(span.start - start);
        let to = row.ceil_char_boundary(span.end.max(span.start) - start);
        if reached.line != line || reached.byte > from {
            *reached = Place { line, byte: 0, chars: 0, secrets: self.secrets(row, start) };
        }
        reached.chars += row[reached.byte..from].chars().count();
        reached.byte = from;
        let excerpt = Some(Excerpt::new(row, from..to, reached));
        let (file, column) = (self.name.to_owned(), reached.chars + 1);
        let message = without_secrets(&message);
        let suggestion = suggestion.as_deref().map(value_without_secrets);
        Problem { file, line, column, message, suggestion, excerpt }
    }
}

/// A place in the text: what is before it need not be counted again.
#[derive(Default)]
pub(crate) struct Place {
    line: usize,
    /// Bytes of the line before it, and the characters that these are.
    byte: usize,
    chars: usize,
    /// What is not shown of the line.
    secrets: Vec<Range<usize>>,
}

impl Place {
    /// Whether what is there on the line is not shown.
    fn hides(&self, at: usize) -> bool {
        let next = self.secrets.partition_point(|secret| secret.end <= at);
        self.secrets.get(next).is_some_and(|secret| secret.contains(&at))
    }
}

impl Excerpt {
    /// Shows these bytes of `row`, which begin at `place`.
    fn new(row: &str, bytes: Range<usize>, place: &Place) -> Self {
        let before = if place.chars < EXCERPT_CHARS { place.chars } else { EXCERPT_CHARS / 2 };
        let first = row[..bytes.start].char_indices().rev().take(before).last();
        let first = first.map_or(bytes.start, |(at, _)| at);
        let shown = row[first..].char_indices().take(EXCERPT_CHARS);
        // What is not printable takes one visible place instead.
        let text: String = shown
            .map(|(at, c)| match c {
                _ if place.hides(first + at) => '*',
                '\t' => ' ',
                c if is_printable(c) => c,
                _ => char::REPLACEMENT_CHARACTER,
            })
            .collect();
        let room = text.chars().count().saturating_sub(before);
        Self { text, before, width: row[bytes].chars().take(room).count().max(1) }
    }
}

/// Whether a character is neither one that talks to the terminal nor one that hides or moves others (UAX #9 §2).
fn is_printable(c: char) -> bool {
    let moves = matches!(
        c,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    );
    !c.is_control() && !moves
}

/// One line that does not talk to the terminal, whatever stands in it: what is not printable is escaped.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if is_printable(c) { line.push(c) } else { line.extend(c.escape_debug()) }
    }
    line
}
