//! One table of a file: its values by key, with their types, units and ranges checked, and its unknown keys reported.

use std::{
    borrow::Cow,
    ops::{Range, RangeInclusive},
};

use toml::de::{DeInteger, DeTable, DeValue};

use crate::{
    hidden::{is_harmless, looks_secret, may_be_secret},
    report::{At, Mistake, Report},
    schema::{LATER, NAMES, Names, TOPIC, TOPICS},
    secret::LEAST_BYTES,
    units,
};

/// A table that is being read. Every getter gives `None` where the key is absent, and also where its value is wrong,
/// which it has then reported.
pub(crate) struct Section<'d> {
    schema: Names,
    table: &'d DeTable<'d>,
    /// Of its header, or of the whole where it is inline.
    pub(crate) span: Range<usize>,
}

/// A name that is free, and its texts.
type Listed<'d> = (At<&'d str>, Option<At<Vec<At<&'d str>>>>);

/// Longest time that any key may hold: a week. It fits 32 bits of milliseconds.
pub(crate) const LONGEST_MS: u64 = 7 * 24 * 3_600_000;

impl<'d> Section<'d> {
    /// Begins to read a table, and reports its unknown keys.
    pub(crate) fn new(
        report: &mut Report<'_>,
        schema: Names,
        table: &'d DeTable<'d>,
        span: Range<usize>,
    ) -> Self {
        for (key, value) in table.iter() {
            let name = key.get_ref().as_ref();
            let is_known = schema.keys.contains(&name);
            report.show(key.span());
            let may_show = match value.get_ref() {
                _ if is_known => is_harmless(name, value.get_ref()),
                // Too short for a secret.
                DeValue::Integer(_) | DeValue::Boolean(_) => value.span().len() < LEAST_BYTES,
                _ => false,
            };
            if may_show {
                report.show(value.span());
            }
            if !is_known {
                if may_be_secret(schema, name) {
                    report.hide(value.span());
                }
                report.unknown(key.span(), unknown(schema, name));
            }
        }
        Self { schema, table, span }
    }

    /// Whether the key is there, whatever its value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Whether a key that must be there is not, and not misspelt either (which has been told).
    pub(crate) fn lacks(&self, key: &str) -> bool {
        let misspelt =
            |name: &str| !self.schema.keys.contains(&name) && nearest(name, self.schema.keys) == Some(key);
        !self.has(key) && !self.table.keys().any(|name| misspelt(name.get_ref()))
    }

    /// Whether one of the tables that are listed under `list` has, in its table `inner`, what [`lacks`](Self::lacks) looks for. What else
    /// is wrong with them is not told here.
    pub(crate) fn lists_within(&self, list: &str, inner: (&str, Names), key: &str) -> bool {
        let (name, schema) = inner;
        let has = |table: &DeTable<'_>| !Section { schema, table, span: 0..0 }.lacks(key);
        let tables = self.value(list).and_then(|tables| tables.value.as_array());
        let tables = tables.into_iter().flat_map(|tables| tables.iter());
        tables.filter_map(|table| table.get_ref().as_table()?.get(name)?.get_ref().as_table()).any(has)
    }

    /// Whether the key is there with an empty list.
    pub(crate) fn lists_nothing(&self, key: &str) -> bool {
        self.value(key).is_some_and(|value| value.value.as_array().is_some_and(|list| list.is_empty()))
    }

    /// Whether a key is there that is planned.
    pub(crate) fn is_ahead(&self) -> bool {
        self.table.keys().any(|name| LATER.contains(&name.get_ref().as_ref()))
    }

    /// Where the key itself stands.
    pub(crate) fn key_span(&self, key: &str) -> Option<Range<usize>> {
        self.entry(key).map(|(name, _)| name)
    }

    /// A whole number within a range.
    pub(crate) fn integer(
        &self,
        report: &mut Report<'_>,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Option<At<u64>> {
        let value = self.value(key)?;
        let checked = match &value.value {
            DeValue::Integer(number) => whole(key, number, &range, u64::to_string),
            other => Err(unlike(key, "a whole number", other)),
        };
        Some(At { value: report.check(&value.span, checked)?, span: value.span })
    }

    /// A list of whole numbers within a range; those that are not are reported and left out.
    pub(crate) fn integers(
        &self,
        report: &mut Report<'_>,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Vec<u64> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Array(array) = value.value else {
            report.wrong(value.span, unlike(key, "a list of whole numbers", value.value));
            return Vec::new();
        };
        let mut numbers = Vec::new();
        for item in array.iter() {
            let checked = match item.get_ref() {
                DeValue::Integer(number) => whole(key, number, &range, u64::to_string),
                other => Err(unlike(key, "a list of whole numbers", other)),
            };
            numbers.extend(report.check(&item.span(), checked));
        }
        numbers
    }

    /// A size: bytes, or a text with a unit.
    pub(crate) fn size(
        &self,
        report: &mut Report<'_>,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Option<At<u64>> {
        let value = self.value(key)?;
        let show = |bytes: &u64| units::size_text(*bytes);
        let checked = match &value.value {
            DeValue::Integer(number) => whole(key, number, &range, show),
            DeValue::String(text) => units::size(text).and_then(|bytes| within(key, bytes, &range, show)),
            other => Err(unlike(key, "a size like \"16KiB\"", other)),
        };
        Some(At { value: report.check(&value.span, checked)?, span: value.span })
    }

    /// A duration in milliseconds, at least `shortest_ms` and at most a week.
    pub(crate) fn duration(&self, report: &mut Report<'_>, key: &str, shortest_ms: u64) -> Option<At<u64>> {
        self.duration_within(report, key, shortest_ms..=LONGEST_MS)
    }

    /// A duration within a range of milliseconds.
    pub(crate) fn duration_within(
        &self,
        report: &mut Report<'_>,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Option<At<u64>> {
        let value = self.value(key)?;
        let show = |ms: &u64| units::duration_text(*ms);
        let checked = match &value.value {
            DeValue::String(text) => units::duration(text).and_then(|ms| within(key, ms, &range, show)),
            DeValue::Integer(number) if number.radix() == 10 && !number.as_str().starts_with(['-', '+']) => {
                let meant = format!("\"{}s\"", number.as_str());
                Err(Mistake::suggesting(format!("`{key}` needs a unit: ms, s, m or h"), meant))
            }
            other => Err(unlike(key, "a duration like \"10s\"", other)),
        };
        Some(At { value: report.check(&value.span, checked)?, span: value.span })
    }

    /// true or false.
    pub(crate) fn boolean(&self, report: &mut Report<'_>, key: &str) -> Option<At<bool>> {
        let value = self.value(key)?;
        let checked = value.value.as_bool().ok_or_else(|| unlike(key, "true or false", value.value));
        Some(At { value: report.check(&value.span, checked)?, span: value.span })
    }

    /// A text.
    pub(crate) fn text(&self, report: &mut Report<'_>, key: &str) -> Option<At<&'d str>> {
        let value = self.value(key)?;
        let checked = value.value.as_str().ok_or_else(|| unlike(key, "a string", value.value));
        Some(At { value: report.check(&value.span, checked)?, span: value.span })
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(
        &self,
        report: &mut Report<'_>,
        key: &str,
        words: &[(&str, T)],
    ) -> Option<At<T>> {
        let value = self.value(key)?;
        let text = value.value.as_str();
        let checked = match words.iter().find(|(word, _)| Some(*word) == text) {
            Some((_, value)) => Ok(*value),
            None => {
                let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                let got = text.map_or_else(|| kind(value.value).to_owned(), shown);
                let message = format!("`{key}` is one of {}, not {got}", quoted(&names));
                let suggestion = text.and_then(|text| nearest(text, &names)).map(str::to_owned);
                Err(Mistake { message, suggestion })
            }
        };
        Some(At { value: report.check(&value.span, checked)?, span: value.span })
    }

    /// A list of texts; items that are not are reported and left out, and a list of nothing else is no list.
    pub(crate) fn texts(&self, report: &mut Report<'_>, key: &str) -> Option<At<Vec<At<&'d str>>>> {
        let value = self.value(key)?;
        let DeValue::Array(array) = value.value else {
            let mut mistake = unlike(key, "a list of strings", value.value);
            // A text in the place of a token's places may be a token.
            let text = value.value.as_str().filter(|_| key != "token");
            mistake.suggestion = text.map(|text| format!("[{text:?}]"));
            report.wrong(value.span, mistake);
            return None;
        };
        let mut texts = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_str() {
                Some(text) => texts.push(At { value: text, span: item.span() }),
                None => report.wrong(item.span(), unlike(key, "a list of strings", item.get_ref())),
            }
        }
        (array.is_empty() || !texts.is_empty()).then_some(At { value: texts, span: value.span })
    }

    /// A table: `[key]` or `key = { … }`.
    pub(crate) fn table(&self, report: &mut Report<'_>, key: &str, schema: Names) -> Option<Section<'d>> {
        let value = self.value(key)?;
        if let DeValue::Table(table) = value.value {
            return Some(Section::new(report, schema, table, value.span));
        }
        let written = match value.value {
            // `[[topics]]` is more like `[[topic]]`, and so are its keys.
            DeValue::Array(_) if schema == TOPICS => TOPIC.table.to_owned(),
            _ if schema.table.starts_with('[') => schema.table.to_owned(),
            _ => format!("{key} = {{}}"),
        };
        let message = format!("`{key}` must be a table, not {}", kind(value.value));
        report.wrong(value.span, Mistake::suggesting(message, written));
        None
    }

    /// A table of texts whose names are free: each name and its text, in the order of the file.
    pub(crate) fn pairs(&self, report: &mut Report<'_>, key: &str) -> Vec<(At<&'d str>, At<&'d str>)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Table(table) = value.value else {
            report.wrong(value.span, unlike(key, "a table of strings", value.value));
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (name, value) in table.iter() {
            match value.get_ref().as_str() {
                Some(text) => pairs.push((
                    At { value: name.get_ref().as_ref(), span: name.span() },
                    At { value: text, span: value.span() },
                )),
                None => report.wrong(value.span(), unlike(name.get_ref(), "a string", value.get_ref())),
            }
        }
        pairs.sort_by_key(|(name, _)| name.span.start);
        pairs
    }

    /// A table whose names are free, each with a text or a list of texts: in the order of the file. What is wrong in a
    /// list is reported and left out; `None` stands where all of it is.
    pub(crate) fn lists(&self, report: &mut Report<'_>, key: &str) -> Option<At<Vec<Listed<'d>>>> {
        let value = self.value(key)?;
        let DeValue::Table(table) = value.value else {
            report.wrong(value.span, unlike(key, "a table of strings, or of lists of them", value.value));
            return None;
        };
        let mut lists = Vec::new();
        for (name, value) in table.iter() {
            let unlike = |value: &DeValue<'_>| {
                let what = kind(value);
                let message =
                    format!("{} must be a string or a list of strings, not {what}", shown(name.get_ref()));
                // `a.b` is a table `a`.
                let quote = if what == "a table" { ": a name with a dot stands in quotes" } else { "" };
                Mistake::new(message + quote)
            };
            let mut texts = Vec::new();
            let items = value.get_ref().as_array().map_or(std::slice::from_ref(value), |list| list.as_ref());
            for item in items {
                match item.get_ref().as_str() {
                    Some(text) => texts.push(At { value: text, span: item.span() }),
                    None => report.wrong(item.span(), unlike(item.get_ref())),
                }
            }
            if !looks_secret(name.get_ref()) {
                texts.iter().for_each(|text| report.show(text.span.clone()));
            }
            report.show(name.span());
            let has_texts = items.is_empty() || !texts.is_empty();
            let name = At { value: name.get_ref().as_ref(), span: name.span() };
            lists.push((name, has_texts.then_some(At { value: texts, span: value.span() })));
        }
        lists.sort_by_key(|(name, _)| name.span.start);
        Some(At { value: lists, span: value.span })
    }

    /// A list of tables: `[[key]]`.
    pub(crate) fn tables(&self, report: &mut Report<'_>, key: &str, schema: Names) -> Vec<Section<'d>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let wrong =
            |kind| Mistake::suggesting(format!("`{key}` must be a list of tables, not {kind}"), schema.table);
        // What stands in the place of a table with a secret may be that.
        let other = |report: &mut Report<'_>, span: Range<usize>, value| {
            if may_be_secret(schema, "") {
                report.hide(span.clone());
            }
            report.wrong(span, wrong(kind(value)));
        };
        let DeValue::Array(array) = value.value else {
            other(report, value.span, value.value);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in array.iter() {
            match item.get_ref() {
                DeValue::Table(table) => sections.push(Section::new(report, schema, table, item.span())),
                value => other(report, item.span(), value),
            }
        }
        sections
    }

    fn value(&self, key: &str) -> Option<At<&'d DeValue<'d>>> {
        self.known(key);
        let table = self.table;
        let (name, value) = table.get_key_value(key)?;
        debug_assert_eq!(name.get_ref().as_ref(), key);
        Some(At { value: value.get_ref(), span: value.span() })
    }

    fn entry(&self, key: &str) -> Option<(Range<usize>, Range<usize>)> {
        self.known(key);
        self.table.get_key_value(key).map(|(name, value)| (name.span(), value.span()))
    }

    /// Whoever reads a key that the schema lacks has forgotten it there: a file that has it would be refused.
    fn known(&self, key: &str) {
        debug_assert!(self.schema.keys.contains(&key), "{key} is not in the schema of {}", self.schema.table);
    }
}

/// A whole number within a range; one that no 64 bits hold is out of it, too.
fn whole(
    key: &str,
    number: &DeInteger<'_>,
    range: &RangeInclusive<u64>,
    show: impl Fn(&u64) -> String,
) -> Result<u64, Mistake> {
    let digits = number.as_str().trim_start_matches('+');
    match u64::from_str_radix(digits, number.radix()) {
        Ok(value) => within(key, value, range, show),
        Err(_) => Err(outside(key, range, &show, &cut(number.as_str()))),
    }
}

fn within(
    key: &str,
    value: u64,
    range: &RangeInclusive<u64>,
    show: impl Fn(&u64) -> String,
) -> Result<u64, Mistake> {
    if range.contains(&value) { Ok(value) } else { Err(outside(key, range, &show, &show(&value))) }
}

fn outside(key: &str, range: &RangeInclusive<u64>, show: &impl Fn(&u64) -> String, value: &str) -> Mistake {
    let (least, most) = (show(range.start()), show(range.end()));
    Mistake::new(format!("`{key}` must be {least} to {most}, not {value}"))
}

fn unlike(key: &str, expected: &str, value: &DeValue<'_>) -> Mistake {
    Mistake::new(format!("`{key}` must be {expected}, not {}", kind(value)))
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// An unknown key: what it may have been, or where it belongs.
fn unknown(schema: Names, key: &str) -> Mistake {
    let place = if schema.table.is_empty() { String::new() } else { format!(" in {}", schema.table) };
    if LATER.contains(&key) {
        return Mistake::new(format!("`{key}`{place} is not supported yet"));
    }
    let message = format!("unknown key {}{place}", shown(key));
    if let Some(near) = nearest(key, schema.keys) {
        return Mistake::suggesting(message, near);
    }
    let home = NAMES.iter().find(|names| names.keys.contains(&key));
    match home.map(|names| names.table) {
        Some("") => Mistake::new(format!("{message}; it belongs to the top of the file")),
        Some(home) => Mistake::new(format!("{message}; it belongs to {home}")),
        None => Mistake::new(message),
    }
}

/// The word that is most like `text`, if one is much like it.
pub(crate) fn nearest<'w>(text: &str, words: &[&'w str]) -> Option<&'w str> {
    let lower = text.to_lowercase();
    let likeness = |word: &&&str| strsim::jaro_winkler(&lower, word);
    let best = words.iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(&best) >= 0.85).then_some(*best)
}

/// A text of the file inside a message: in backticks, printable, and not too long.
pub(crate) fn shown(text: &str) -> String {
    if text.is_empty() {
        return "an empty text".to_owned();
    }
    let escape = |c: char| match c {
        '\\' | '"' | '\'' => vec![c],
        _ => c.escape_debug().collect(),
    };
    let escaped: String = cut(text).chars().flat_map(escape).collect();
    format!("`{escaped}`")
}

/// As much of a text of the file as a message has room for: a value may be as long as the file. Nor is more than a line of it shown: three
/// quotes take all that follows for a part of the text, whoever's value that is.
pub(crate) fn cut(text: &str) -> Cow<'_, str> {
    const MOST: usize = 80;
    match text.char_indices().enumerate().find(|(number, (_, c))| *number == MOST || *c == '\n') {
        Some((_, (end, _))) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// `a`, `b` or `c`.
fn quoted(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
