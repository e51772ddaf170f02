//! `claims = { … }` of a route.

use crate::{
    RequiredClaim,
    report::{At, Mistake, Report},
    section::{Section, shown},
};

/// Most claims of a route.
const MAX_CLAIMS: usize = 16;

/// Most values of a claim.
const MAX_VALUES: usize = 64;

/// Longest name and longest value, in bytes.
const MAX_BYTES: usize = 256;

/// What a route demands of its callers' claims, in the order of the file.
pub(super) fn read(report: &mut Report<'_>, route: &Section<'_>) -> Vec<RequiredClaim> {
    if let Some(span) = route.key_span("claims")
        && route.lacks("identity")
        && !route.has("page")
    {
        let message = "claims are those of a token or of a hook's answer: the route needs an `identity`";
        report.relation(span, message);
    }
    let Some(listed) = route.lists(report, "claims") else { return Vec::new() };
    if listed.value.is_empty() {
        report.relation(listed.span, "`claims` names none: leave it out, or name one");
        return Vec::new();
    }
    let mut claims = Vec::new();
    for (place, (name, values)) in listed.value.into_iter().enumerate() {
        if place == MAX_CLAIMS {
            report.relation(name.span, format!("there are more than {MAX_CLAIMS} claims"));
            break;
        }
        if let Err(mistake) = text(name.value, "a claim has a name") {
            report.wrong(name.span, mistake);
            continue;
        }
        let Some(values) = values.and_then(|all| demanded(report, name.value, all)) else { continue };
        claims.push(RequiredClaim { name: name.value.to_owned(), values });
    }
    claims
}

/// The values that a claim may have; `None` where none of them can be one.
fn demanded(report: &mut Report<'_>, name: &str, listed: At<Vec<At<&str>>>) -> Option<Vec<String>> {
    if listed.value.is_empty() {
        let message = format!("nobody could come: {} lists no value", shown(name));
        report.relation(listed.span, message);
        return None;
    }
    let mut values = Vec::<String>::new();
    for At { value, span } in listed.value {
        if let Err(mistake) = text(value, "an empty text is no value of a claim") {
            report.wrong(span, mistake);
        } else if values.iter().any(|earlier| earlier == value) {
            report.wrong(span, Mistake::new(format!("{} is in the list already", shown(value))));
        } else if values.len() == MAX_VALUES {
            report.relation(span, format!("there are more than {MAX_VALUES} values"));
            break;
        } else {
            values.push(value.to_owned());
        }
    }
    (!values.is_empty()).then_some(values)
}

fn text(text: &str, if_empty: &str) -> Result<(), Mistake> {
    if text.is_empty() {
        return Err(Mistake::new(if_empty.to_owned()));
    }
    if text.len() > MAX_BYTES {
        let message = format!("{} is longer than {MAX_BYTES} bytes", shown(text));
        return Err(Mistake::new(message));
    }
    Ok(())
}
