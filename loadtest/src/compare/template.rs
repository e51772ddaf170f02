//! Placeholders in the texts of a suite: `{port}`.

use std::collections::BTreeMap;

/// What stands for which name.
pub(crate) type Names = BTreeMap<String, String>;

/// What becomes of `{word}` where the word is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// A mistake.
    Refuse,
    /// It stands for itself: files have braces of their own.
    Keep,
}

/// Puts values in the place of names.
///
/// # Errors
/// The word that is no name.
pub(crate) fn expand(text: &str, names: &Names, unknown: Unknown) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let (before, braced) = rest.split_at(open);
        expanded += before;
        let word = braced[1..].split_once('}').map(|(word, _)| word).filter(|word| is_name(word));
        let Some(word) = word else {
            expanded.push('{');
            rest = &braced[1..];
            continue;
        };
        let whole = &braced[..word.len() + 2];
        match (names.get(word), unknown) {
            (Some(value), _) => expanded += value,
            (None, Unknown::Keep) => expanded += whole,
            (None, Unknown::Refuse) => return Err(word.to_owned()),
        }
        rest = &braced[whole.len()..];
    }
    expanded += rest;
    Ok(expanded)
}

/// Whether a word may be the name of a variable.
pub(crate) fn is_name(word: &str) -> bool {
    !word.is_empty()
        && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_and_other_braces_stay() {
        let names =
            Names::from([("port".to_owned(), "80".to_owned()), ("a".to_owned(), "{port}".to_owned())]);
        for (text, expanded) in [
            ("", ""),
            (":{port}/{port}", ":80/80"),
            // A value is not looked at again.
            ("{a}", "{port}"),
            ("{ x } {} {{port}} {X} {", "{ x } {} {80} {X} {"),
            ("echo={}", "echo={}"),
        ] {
            assert_eq!(expand(text, &names, Unknown::Refuse).as_deref(), Ok(expanded), "{text}");
        }
        assert_eq!(expand("{prot}", &names, Unknown::Refuse), Err("prot".to_owned()));
        assert_eq!(expand("{prot}{port}", &names, Unknown::Keep).as_deref(), Ok("{prot}80"));
    }
}
