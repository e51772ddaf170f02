//! Collects what is wrong with a file, or hardly meant, in one pass.

use std::{collections::BTreeSet, ops::Range};

use crate::problem::{Place, Problem, Source, printable};

/// What is wrong with one value, and what was probably meant.
#[derive(Debug)]
pub(crate) struct Mistake {
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
}

impl Mistake {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), suggestion: None }
    }

    pub(crate) fn suggesting(message: impl Into<String>, suggestion: impl Into<String>) -> Self {
        Self { message: message.into(), suggestion: Some(suggestion.into()) }
    }
}

/// Longest suggestion that is told: one may hold the value that is wrong, and that may be as long as the file. A name
/// has at most 253 bytes; this leaves room for what stands round it.
const SUGGESTION_BYTES: usize = 320;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

/// The problems found so far.
pub(crate) struct Report<'t> {
    source: Source<'t>,
    problems: Vec<(Range<usize>, Class, Mistake)>,
    warnings: Vec<(Range<usize>, String)>,
    /// Syntax errors whose place the parser does not tell.
    somewhere: Vec<String>,
    /// Lines with syntax errors.
    broken: BTreeSet<usize>,
}

/// What a problem is about; it decides what is told besides a syntax error.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Not TOML.
    Syntax,
    /// A key that does not belong where it is; behind a syntax error the header of its table may not have been read.
    Key,
    /// A value that is wrong in itself.
    Value,
    /// Something that is missing, or that contradicts something else: behind a syntax error it may just not have
    /// been read.
    Relation,
}

impl<'t> Report<'t> {
    pub(crate) fn new(source: Source<'t>) -> Self {
        Self {
            source,
            problems: Vec::new(),
            warnings: Vec::new(),
            somewhere: Vec::new(),
            broken: BTreeSet::new(),
        }
    }

    pub(crate) fn line(&self, span: &Range<usize>) -> usize {
        self.source.line(span.start)
    }

    pub(crate) fn syntax(&mut self, span: Range<usize>, message: &str) {
        self.broken.insert(self.line(&span));
        self.add(Class::Syntax, span, Mistake::new(message));
    }

    /// A syntax error without a place.
    pub(crate) fn syntax_somewhere(&mut self, message: &str) {
        self.somewhere.push(format!("{message} (the TOML parser does not tell where)"));
    }

    /// From now on what stands there is not shown.
    pub(crate) fn hide(&mut self, span: Range<usize>) {
        self.source.hide(span);
    }

    /// What stands there may be shown, unless something on its lines is not TOML: then it need not be what the parser takes it for.
    pub(crate) fn show(&mut self, span: Range<usize>) {
        let lines = self.source.line(span.start)..=self.source.line(span.end);
        if self.somewhere.is_empty() && self.broken.range(lines).next().is_none() {
            self.source.show(span);
        }
    }

    pub(crate) fn unknown(&mut self, span: Range<usize>, mistake: Mistake) {
        self.add(Class::Key, span, mistake);
    }

    pub(crate) fn wrong(&mut self, span: Range<usize>, mistake: Mistake) {
        self.add(Class::Value, span, mistake);
    }

    pub(crate) fn relation(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.add(Class::Relation, span, Mistake::new(message));
    }

    /// What is valid, but hardly meant; told only where nothing is wrong.
    pub(crate) fn warn(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.warnings.push((span, message.into()));
    }

    /// A problem there of which it is not known yet what it is.
    pub(crate) fn place(&self, span: &Range<usize>) -> Problem {
        self.source.problem(&mut Place::default(), span, String::new(), None)
    }

    /// The value, or a problem where it stands.
    pub(crate) fn check<T>(&mut self, span: &Range<usize>, checked: Result<T, Mistake>) -> Option<T> {
        checked.map_err(|mistake| self.wrong(span.clone(), mistake)).ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.problems.is_empty() && self.somewhere.is_empty()
    }

    /// The problems in the order of the file. Besides syntax errors, one a line, only that is reported which cannot be
    /// their consequence. Those without a place come first.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        let Self { source, mut problems, warnings: _, somewhere, broken: _ } = self;
        let line = |span: &Range<usize>| source.line(span.start);
        problems.sort_by_key(|(span, ..)| (span.start, span.end));
        let mut broken = Vec::new();
        problems.retain(|(span, class, _)| {
            let first = *class != Class::Syntax || broken.last() != Some(&line(span));
            if *class == Class::Syntax {
                broken.push(line(span));
            }
            first
        });
        // What is broken somewhere may be on the first line.
        let first = if somewhere.is_empty() { broken.first() } else { Some(&0) };
        if let Some(first) = first {
            problems.retain(|(span, class, _)| match class {
                Class::Syntax => true,
                Class::Key => line(span) < *first,
                // The parser puts an empty value where there was none.
                Class::Value => !span.is_empty() && broken.binary_search(&line(span)).is_err(),
                Class::Relation => false,
            });
        }
        let mut reached = Place::default();
        let problem = |(span, _, Mistake { message, suggestion })| {
            // Cut short it would suggest something else.
            let suggestion = suggestion.filter(|text| text.len() <= SUGGESTION_BYTES);
            let suggestion = suggestion.as_deref().map(printable);
            source.problem(&mut reached, &span, printable(&message), suggestion)
        };
        let placed: Vec<Problem> = problems.into_iter().map(problem).collect();
        let mut problems: Vec<Problem> =
            somewhere.into_iter().map(|message| source.whole(message)).chain(placed).collect();
        problems.dedup();
        problems
    }

    /// The warnings in the order of the file.
    pub(crate) fn into_warnings(self) -> Vec<Problem> {
        let Self { source, mut warnings, .. } = self;
        warnings.sort_by_key(|(span, _)| (span.start, span.end));
        let mut reached = Place::default();
        let warning = |(span, message): (Range<usize>, String)| {
            source.problem(&mut reached, &span, printable(&message), None)
        };
        warnings.into_iter().map(warning).collect()
    }

    fn add(&mut self, class: Class, span: Range<usize>, mistake: Mistake) {
        self.problems.push((span, class, mistake));
    }
}
