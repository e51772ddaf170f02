//! Origins that browsers may come from (RFC 6454 §6.2).

use crate::{name, report::Mistake};

/// `scheme://host[:port]` in lower case, without the port that is the scheme's own; or `null`.
pub(crate) fn origin(text: &str) -> Result<String, Mistake> {
    const FORM: &str =
        "an origin is like https://chat.example.com, with a port where it is not the scheme's own";
    match text {
        "null" => return Ok(text.to_owned()),
        "*" => return Err(Mistake::new("leave `origins` out to take every origin")),
        _ => {}
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        let suggestion = name::authority(text).is_ok().then(|| format!("https://{text}"));
        return Err(Mistake { message: FORM.to_owned(), suggestion });
    };
    let first = scheme.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    if !first || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
        return Err(Mistake::new(FORM));
    }
    if rest.contains('*') {
        return Err(Mistake::new("an origin has no wildcard: list each one"));
    }
    if let Some(at) = rest.find(['/', '?', '#']) {
        return Err(Mistake::suggesting("an origin has no path", format!("{scheme}://{}", &rest[..at])));
    }
    let scheme = scheme.to_ascii_lowercase();
    let own = match scheme.as_str() {
        "https" => Some(443),
        "http" => Some(80),
        // The Origin of a page is never one of these: a browser names the page's scheme, not the socket's.
        "ws" => return Err(Mistake::suggesting("an origin is that of the page", format!("http://{rest}"))),
        "wss" => return Err(Mistake::suggesting("an origin is that of the page", format!("https://{rest}"))),
        _ => None,
    };
    let (host, port) = name::authority(rest)?;
    Ok(match port.filter(|port| Some(*port) != own) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}
