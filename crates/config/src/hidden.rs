//! What is not shown of a file: what may be a secret on a line, and in what is said of it.
//!
//! Invariant: of a line nothing is shown that is not known to be harmless ([`unknown`]), nor what may be a secret though it stands where none
//! should ([`secrets`]).

use std::{iter, ops::Range};

use toml::de::DeValue;

use crate::schema::{NAMES, Names};

/// Where secrets may stand on a line of a file that is about to be shown: the values of `key`, also misspelt, what stands in the place
/// of the tables of `keys`, and parts of URLs. It need not be a line that can be read otherwise. In order, and none over another.
pub(crate) fn secrets(row: &str) -> Vec<Range<usize>> {
    let mut found = values(row);
    found.extend(pieces(row, ['"', '\'']).chain(quoted(row)).flat_map(of_url));
    united(found)
}

/// What of a line may be shown only where it is known to be no secret: texts, comments and whatever else is neither a mark nor a key's
/// name. `is_harmless` tells that of what stands there, as far as the whole file could be read; of a line that could not, the values behind
/// `name =` are known by the name alone. In order, and none over another.
pub(crate) fn unknown(row: &str, is_harmless: impl Fn(&Range<usize>) -> bool) -> Vec<Range<usize>> {
    const MARKS: [char; 11] = ['=', ',', '.', ':', '[', ']', '{', '}', ' ', '\t', '\r'];
    let mut found = Vec::new();
    // The last name, while nothing but spaces stands behind it; and whether a value of a harmless one comes next.
    let (mut name, mut known, mut at) = ("", false, 0);
    while let Some(c) = row[at..].chars().next() {
        if MARKS.contains(&c) {
            match c {
                '=' => known = has_harmless_values(name),
                ' ' | '\t' => {}
                _ => known = false,
            }
            if !matches!(c, ' ' | '\t') {
                name = "";
            }
            at += c.len_utf8();
            continue;
        }
        let text = &row[at..];
        let length = match c {
            '"' | '\'' => value_length(text),
            '#' => text.len(),
            _ if known => text.find([',', ']', '}', '#', ' ', '\t', '"', '\'']).unwrap_or(text.len()),
            _ => text.find(|c| MARKS.contains(&c) || matches!(c, '"' | '\'' | '#')).unwrap_or(text.len()),
        };
        let token = at..at + length;
        // What is said in a comment is nobody's key, and its mark stays where it is.
        let shown = match c {
            '#' => false,
            '"' | '\'' => known || is_harmless(&token),
            _ => known || is_known(&row[token.clone()]) || is_harmless(&token),
        };
        if !shown {
            found.push(if c == '#' { at + 1..token.end } else { token.clone() });
        }
        (name, known, at) = (row[token.clone()].trim_matches(['"', '\'']), false, token.end);
    }
    found
}

fn is_known(name: &str) -> bool {
    NAMES.iter().any(|names| names.keys.contains(&name))
}

/// Whether no secret stands behind a name, whatever does.
fn has_harmless_values(name: &str) -> bool {
    is_known(name) && !is_secret(name) && !names_file(name) && !matches!(name, "keys" | "token")
}

/// Whether what stands behind a key that its table has is no secret, and may be shown.
pub(crate) fn is_harmless(name: &str, value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(_) => false,
        DeValue::Array(list) => {
            let is_plain = |item: &DeValue<'_>| item.as_table().is_none() && item.as_array().is_none();
            (has_harmless_values(name) || name == "token") && list.iter().all(|item| is_plain(item.get_ref()))
        }
        DeValue::String(text) => has_harmless_values(name) || (names_file(name) && is_path(text)),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            has_harmless_values(name)
        }
    }
}

/// In order, and none over another.
pub(crate) fn united(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut united = Vec::<Range<usize>>::with_capacity(ranges.len());
    for range in ranges {
        match united.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => united.push(range),
        }
    }
    united
}

/// The values that may be secrets by the names before them.
fn values(row: &str) -> Vec<Range<usize>> {
    let mut found = Vec::<Range<usize>>::new();
    for (equals, _) in row.match_indices('=') {
        if found.last().is_some_and(|last| equals < last.end) {
            continue;
        }
        let name = row[..equals].trim_end().trim_end_matches(['"', '\'']);
        let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let name = &name[name.trim_end_matches(bare).len()..];
        let value = row.len() - row[equals + 1..].trim_start().len();
        let text = &row[value..];
        let end = match name {
            "keys" => {
                // A list of tables holds no text of its own.
                let listed = text.trim_start_matches(['[', ' ', '\t']);
                if listed.starts_with(['"', '\'']) { row.len() } else { continue }
            }
            // Elsewhere it is a list of places.
            "token" if text.starts_with(['"', '\'']) => value + value_length(text),
            _ if names_file(name) && !is_path(text) => value + value_length(text),
            _ if may_be_key(name) => value + value_length(text),
            _ => continue,
        };
        found.push(value..end);
    }
    found
}

/// Whether the value of a key that its table does not have may be a secret: there are some in such tables, or the name says so.
pub(crate) fn may_be_secret(schema: Names, name: &str) -> bool {
    schema.keys.iter().any(|key| is_secret(key)) || looks_secret(name)
}

fn is_secret(key: &str) -> bool {
    matches!(key, "key" | "secret")
}

/// Whether a secret was probably meant to stand behind this name.
fn may_be_key(name: &str) -> bool {
    if NAMES.iter().any(|names| names.keys.contains(&name)) {
        return is_secret(name);
    }
    looks_secret(name)
}

/// Whether a name that is not known sounds like a secret's. What is hidden needlessly does no harm.
pub(crate) fn looks_secret(name: &str) -> bool {
    const WORDS: [&str; 8] =
        ["key", "secret", "token", "password", "passwd", "passphrase", "credential", "bearer"];
    let name = name.to_lowercase();
    let misspells = |word: &str| strsim::osa_distance(&name, word) <= if word.len() > 5 { 2 } else { 1 };
    WORDS.iter().any(|word| name.contains(word) || misspells(word))
}

/// Whether it is a key for the path of a file that holds a secret, which may be put there itself.
fn names_file(name: &str) -> bool {
    matches!(name, "key_file" | "secret_file" | "token_file" | "jwks_file")
}

fn is_path(value: &str) -> bool {
    let text = value.trim_start_matches(['"', '\'']);
    ["/", "./", "../", "~"].iter().any(|begin| text.starts_with(begin))
}

/// How long a value is at most that stands at the beginning of a text.
fn value_length(text: &str) -> usize {
    let mut chars = text.char_indices();
    match chars.next() {
        Some((_, quote @ ('"' | '\''))) => {
            // Three quotes, and what follows on the same line.
            if text.len() > 2 && text[1..].starts_with([quote]) && text[2..].starts_with([quote]) {
                return text.len();
            }
            let mut escaped = false;
            for (at, c) in chars {
                if c == quote && !escaped {
                    return at + 1;
                }
                escaped = c == '\\' && quote == '"' && !escaped;
            }
            text.len()
        }
        // Where a list or a table ends is not told from what is in it.
        Some((_, '[' | '{')) => text.len(),
        _ => text.find([',', '}', ']', '#']).unwrap_or(text.len()),
    }
}

/// The pieces of a text between these, each with where it begins.
fn pieces(text: &str, between: [char; 2]) -> impl Iterator<Item = (usize, &str)> {
    text.split(between).scan(0, |next, piece| {
        let begin = *next;
        // All that stands between is ASCII.
        *next += piece.len() + 1;
        Some((begin, piece))
    })
}

/// The texts in quotes, each with where it begins. The other quote is a part of them, as it may be one of a password.
fn quoted(row: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    iter::from_fn(move || {
        let begin = at + row[at..].find(['"', '\''])?;
        at = begin + value_length(&row[begin..]);
        let (quote, text) = row[begin..at].split_at(1);
        Some((begin + 1, text.strip_suffix(quote).unwrap_or(text)))
    })
}

/// What may be secret in a URL that begins at `at`: whom it names before its host, and all behind `?` or `#`. It need not be a valid one.
fn of_url((at, text): (usize, &str)) -> impl Iterator<Item = Range<usize>> {
    let begin =
        text.find("//").or_else(|| text.find(":/").filter(|_| !text.starts_with("unix:"))).map(|at| at + 2);
    let authority = begin.unwrap_or(0);
    let rest = &text[authority..];
    let slash = rest.find('/').unwrap_or(rest.len());
    let query = rest.find(['?', '#']).filter(|_| begin.is_some());
    // A password may hold anything.
    let user = rest.rfind('@').filter(|user| match begin {
        None => rest[..*user].contains(':') && !rest[..*user].contains([' ', '/']),
        Some(_) => *user < slash || rest[..slash].contains(':'),
    });
    let user = user.map(|user| 0..user);
    let query = query.map(|query| query + 1..rest.len());
    user.into_iter().chain(query).map(move |range| at + authority + range.start..at + authority + range.end)
}

/// What is said of a file, without parts of URLs that may be secret. What stands in backticks is of the file.
pub(crate) fn without_secrets(text: &str) -> String {
    let of_file = iter::successors(Some(false), |of_file| Some(!of_file));
    let mut found = Vec::new();
    for ((at, piece), of_file) in pieces(text, ['`', '`']).zip(of_file) {
        let inner = if of_file { ['"', '"'] } else { [' ', '"'] };
        found.extend(pieces(piece, inner).map(|(begin, piece)| (at + begin, piece)).flat_map(of_url));
    }
    without(text, found)
}

/// The same of what could stand in a file.
pub(crate) fn value_without_secrets(value: &str) -> String {
    without(value, pieces(value, ['"', '"']).flat_map(of_url).collect())
}

fn without(text: &str, found: Vec<Range<usize>>) -> String {
    let (mut shown, mut reached) = (String::with_capacity(text.len()), 0);
    for secret in united(found) {
        if !secret.is_empty() {
            shown.push_str(&text[reached..secret.start]);
            shown.push_str("***");
            reached = secret.end;
        }
    }
    shown + &text[reached..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_without_its_secrets() {
        let shown = |row: &str| {
            let secrets = secrets(row);
            let hide = |(at, c)| if secrets.iter().any(|secret| secret.contains(&at)) { '*' } else { c };
            row.char_indices().map(hide).collect::<String>()
        };
        for (row, expected) in [
            ("key = \"s3cret\" # a", "key = ******** # a"),
            ("key='s3cret', name = 'a'", "key=********, name = 'a'"),
            (
                "{ name = \"a\", \"key\" = \"s3\\\"cret\", publish = [] }",
                "{ name = \"a\", \"key\" = **********, publish = [] }",
            ),
            ("key = \"s3cret", "key = *******"),
            ("key = s3cret, a", "key = ******, a"),
            ("key = \"\"\"s3cret\"\"\" # a", "key = ****************"),
            (
                "kee = 's3' api_key = 's3' Token = 's3' kye = 's3'",
                "kee = **** api_key = **** Token = **** kye = ****",
            ),
            ("keys = ['s3cret', 'b']", "keys = ***************"),
            ("keys = 's3cret'", "keys = ********"),
            ("keys = [{ name = 'a', key = 's3cret' }]", "keys = [{ name = 'a', key = ******** }]"),
            ("key_file = '/etc/key', key = 's3'", "key_file = '/etc/key', key = ****"),
            ("key_file = 's3cret', token_file = 's3/c'", "key_file = ********, token_file = ******"),
            ("jwks_file = '../keys' # s", "jwks_file = '../keys' # s"),
            ("sercet = 's3' pasword = 's3' tokn = 's3'", "sercet = **** pasword = **** tokn = ****"),
            ("credentials = ['s3', 's4'] # a", "credentials = ****************"),
            ("token = 's3'", "token = ****"),
            ("token = ['cookie:sid']", "token = ['cookie:sid']"),
            ("upstreams = ['ws://u:s3@h:1', 'ws://h:2']", "upstreams = ['ws://****@h:1', 'ws://h:2']"),
            ("upstreams = ['u:s3@h:1']", "upstreams = ['****@h:1']"),
            ("url = 'https://u:s/3?4@h/'", "url = 'https://**********'"),
            ("url = \"https://a.test/k?s3=4 5@6\", b = 1", "url = \"https://a.test/k?********\", b = 1"),
            ("url = 'htps:/a.test/?s3", "url = 'htps:/a.test/?**"),
            ("a = ['b'], url = \"https://u:s'3@h/?k='4'\"", "a = ['b'], url = \"https://*****@h/?*****\""),
            ("url = 'https://u:s\"3@h/' # don't", "url = 'https://*****@h/' # don't"),
            (
                "a = 'https://a.test/@b', c = 'unix:/d@e', f = 'g@h'",
                "a = 'https://a.test/@b', c = 'unix:/d@e', f = 'g@h'",
            ),
            ("path = '/a?b', host = '*.a.test'", "path = '/a?b', host = '*.a.test'"),
            ("keys = 10_000", "keys = 10_000"),
            ("hash_on = \"header:X-Key\"", "hash_on = \"header:X-Key\""),
            ("head_byte = \"16KiB\"", "head_byte = \"16KiB\""),
            ("key", "key"),
            ("key =", "key ="),
            ("= = 'ü'", "= = 'ü'"),
        ] {
            assert_eq!(shown(row), expected, "{row}");
        }
    }

    #[test]
    fn what_is_said_is_said_without_secrets() {
        for (text, expected) in [
            ("https://a.test/?k=s3", "https://a.test/?***"),
            ("ws://u:s3@h:1", "ws://***@h:1"),
            ("[\"ws://u:s3@h:1\"]", "[\"ws://***@h:1\"]"),
            ("`https://u:s 3@h/` is none, http:// is? a@b", "`https://***@h/` is none, http:// is? a@b"),
            ("unknown key `a` (like https://a.test/keys)", "unknown key `a` (like https://a.test/keys)"),
            ("", ""),
        ] {
            assert_eq!(without_secrets(text), expected);
        }
        assert_eq!(value_without_secrets("ws://u:s 3@h:1"), "ws://***@h:1");
        assert_eq!(value_without_secrets("[\"ws://u:s 3@h:1\", \"a b\"]"), "[\"ws://***@h:1\", \"a b\"]");
    }
}
