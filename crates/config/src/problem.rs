//! What is wrong in a file, and where: told with the line itself and a caret under it.

use std::{fmt, ops::Range};

/// One mistake in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name, as given.
    pub file: String,
    /// Line, from 1; 0 where the problem is with the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 where the problem is with the file as a whole.
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

    /// The first line of what [`fmt::Display`] writes: `file:line:column: message (did you mean …?)`.
    #[must_use]
    pub fn headline(&self) -> String {
        let mut text = self.file.clone();
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
}

impl<'t> Source<'t> {
    pub(crate) fn new(text: &'t str, name: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name, text, starts }
    }

    /// The line of a byte offset, from 1. An offset behind the text is on its last line.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    pub(crate) fn problem(
        &self,
        span: &Range<usize>,
        message: String,
        suggestion: Option<String>,
    ) -> Problem {
        let line = self.line(span.start);
        let start = self.starts[line - 1];
        let end = self.starts.get(line).map_or(self.text.len(), |next| next - 1);
        let row = self.text[start..end].trim_end_matches('\r');
        let chars = |bytes: usize| row.char_indices().take_while(|(at, _)| *at < bytes).count();
        let from = chars(span.start - start);
        let to = chars(span.end.max(span.start) - start);
        let excerpt = Excerpt::new(row, from, to);
        let (file, column) = (self.name.to_owned(), from + 1);
        Problem { file, line, column, message, suggestion, excerpt: Some(excerpt) }
    }
}

impl Excerpt {
    /// Shows the characters `from..to` of `row`.
    fn new(row: &str, from: usize, to: usize) -> Self {
        let skipped = if from < EXCERPT_CHARS { 0 } else { from - EXCERPT_CHARS / 2 };
        let shown = row.chars().skip(skipped).take(EXCERPT_CHARS);
        // Anything that would move the caret or talk to the terminal takes one visible place instead.
        let text: String = shown
            .map(|c| if c.is_control() { if c == '\t' { ' ' } else { '\u{fffd}' } } else { c })
            .collect();
        let before = from - skipped;
        let room = text.chars().count().saturating_sub(before);
        Self { text, before, width: to.saturating_sub(from).min(room).max(1) }
    }
}
