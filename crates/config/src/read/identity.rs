//! `[[identity]]`.

mod asked;

use std::{collections::HashMap, ops::Range};

use super::Files;
use crate::{
    Algorithm, Identity, MAX_IDENTITIES, PemFile, PermissionClaims, Secret, TokenKeys, TokenSource, name,
    report::{At, Mistake, Report},
    schema,
    secret::Exposure,
    section::{Section, nearest, shown},
};

const SECOND_MS: u64 = 1_000;

/// How much clocks may differ where nothing is said: those that are kept by NTP differ by less.
const LEEWAY_MS: u64 = 5 * SECOND_MS;

/// Beyond it a clock is wrong, and so is what it says of tokens.
const MOST_LEEWAY_MS: u64 = 300 * SECOND_MS;

/// The Close of a session whose token has expired, where nothing is said.
const EXPIRED_CODE: u16 = 4401;

/// Most entries of the lists of an identity.
const MAX_ENTRIES: usize = 64;

/// Fields that the gateway writes itself, or by which messages are framed.
const RESERVED_FIELDS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "forwarded",
    "x-real-ip",
];

/// All identities of a file that can be read, and whether there are more.
pub(super) fn read(report: &mut Report<'_>, top: &Section<'_>, files: Files) -> (Vec<Identity>, bool) {
    let sections = top.tables(report, "identity", schema::IDENTITY);
    if let Some(beyond) = sections.get(MAX_IDENTITIES) {
        report.relation(beyond.span.clone(), format!("there are more than {MAX_IDENTITIES} identities"));
        return (Vec::new(), true);
    }
    let mut names = HashMap::new();
    let identities: Vec<Identity> =
        sections.iter().filter_map(|section| identity(report, section, files, &mut names)).collect();
    let lacks = identities.len() < sections.len() || (sections.is_empty() && top.has("identity"));
    (identities, lacks)
}

fn identity<'d>(
    report: &mut Report<'_>,
    section: &Section<'d>,
    files: Files,
    names: &mut HashMap<&'d str, Range<usize>>,
) -> Option<Identity> {
    let name = own_name(report, section, names);
    let has_hook = section.has("hook");
    let algorithms = if has_hook { Vec::new() } else { algorithms(report, section) };
    let keys = keys(report, section, files, &algorithms);
    let issuers = texts(report, section, "issuers");
    let audiences = texts(report, section, "audiences");
    let leeway_ms = leeway_ms(report, section);
    let words = [("required", true), ("optional", false)];
    // A hook is asked for each session anew.
    let requires_expiry = section.word(report, "expiry", &words).map_or(!has_hook, |word| word.value);
    let expired_code = expired_code(report, section);
    let sources = sources(report, section);
    let forward_token = section.boolean(report, "forward_token").is_some_and(|forward| forward.value);
    let user = section.text(report, "user").map_or("sub", |claim| claim.value).to_owned();
    let headers = headers(report, section);
    let permissions = permissions(report, section);
    Some(Identity {
        name: name?.to_owned(),
        keys: keys?,
        algorithms: algorithms.into_iter().map(|algorithm| algorithm.value).collect(),
        issuers,
        audiences,
        leeway_ms,
        requires_expiry,
        expired_code,
        sources,
        forward_token,
        user,
        headers,
        permissions,
    })
}

fn own_name<'d>(
    report: &mut Report<'_>,
    section: &Section<'d>,
    names: &mut HashMap<&'d str, Range<usize>>,
) -> Option<&'d str> {
    if section.lacks("name") {
        report.relation(section.span.clone(), "an identity needs a `name`, by which routes ask for it");
    }
    let At { value, span } = section.text(report, "name")?;
    if !name::is_token(value) {
        let message =
            format!("{} is not the name of an identity: a token without spaces, like users", shown(value));
        report.wrong(span, Mistake::new(message));
        return None;
    }
    if let Some(earlier) = names.get(value) {
        let message = format!("the identity at line {} has this name already", report.line(earlier));
        report.relation(span, message);
        return None;
    }
    names.insert(value, span);
    Some(value)
}

/// RFC 8725 §3.1: which algorithms are believed is never the token's word.
fn algorithms(report: &mut Report<'_>, section: &Section<'_>) -> Vec<At<Algorithm>> {
    let texts = section.texts(report, "algorithms");
    if section.lacks("algorithms") || texts.as_ref().is_some_and(|texts| texts.value.is_empty()) {
        let span = section.key_span("algorithms").unwrap_or_else(|| section.span.clone());
        report.relation(span, "an identity needs `algorithms` that are believed, like [\"ES256\"]");
    }
    let mut algorithms = Vec::<At<Algorithm>>::new();
    for At { value: text, span } in texts.into_iter().flat_map(|texts| texts.value) {
        let Some(algorithm) = Algorithm::named(text) else {
            let names = Algorithm::ALL.map(Algorithm::name);
            let lower = names.map(str::to_lowercase);
            let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
            let near = nearest(text, &lower).and_then(|near| lower.iter().position(|name| *name == near));
            let message = match text.eq_ignore_ascii_case("none") {
                true => "a token without a signature is believed by nobody".to_owned(),
                false => {
                    format!("{} is no algorithm that is known here: {}", shown(text), names.join(", "))
                }
            };
            let suggestion = near.map(|near| names[near].to_owned());
            report.wrong(span, Mistake { message, suggestion });
            continue;
        };
        if algorithms.iter().any(|earlier| earlier.value == algorithm) {
            report.wrong(span, Mistake::new(format!("{} is in the list already", algorithm.name())));
            continue;
        }
        // Whoever has the public key could sign with it as a secret, if a key were ever taken for the other kind.
        if let Some(first) = algorithms.first()
            && first.value.least_secret_bytes().is_some() != algorithm.least_secret_bytes().is_some()
        {
            let message = format!(
                "{} and {} do not go together: one is with a shared secret, the other with a public key",
                first.value.name(),
                algorithm.name()
            );
            report.relation(span, message);
            continue;
        }
        algorithms.push(At { value: algorithm, span });
    }
    algorithms
}

fn keys(
    report: &mut Report<'_>,
    section: &Section<'_>,
    files: Files,
    algorithms: &[At<Algorithm>],
) -> Option<TokenKeys> {
    const KEYS: [&str; 6] = ["jwks_file", "jwks_url", "key_file", "secret", "secret_file", "hook"];
    let mut named: Vec<(&str, Range<usize>)> =
        KEYS.iter().filter_map(|key| section.key_span(key).map(|span| (*key, span))).collect();
    named.sort_by_key(|(_, span)| span.start);
    if named.is_empty() && KEYS.iter().all(|key| section.lacks(key)) {
        let message = "an identity needs keys (`jwks_file`, `jwks_url`, `key_file`, `secret` or `secret_file`), or a `hook`";
        report.relation(section.span.clone(), message);
    }
    for (_, span) in named.iter().skip(1) {
        let message = match named[0].0 {
            "hook" => "a hook stands in the place of keys: leave out one of both".to_owned(),
            key => format!("an identity has one source of keys, and this one has `{key}`"),
        };
        report.relation(span.clone(), message);
    }
    let shared = algorithms.first().is_some_and(|first| first.value.least_secret_bytes().is_some());
    for (key, span) in &named {
        let wrong = match *key {
            "jwks_url" if shared => {
                "the algorithms are with a shared secret, which nobody publishes at a URL"
            }
            "key_file" if shared => "the algorithms are with a shared secret, and `key_file` is a public key",
            "secret" | "secret_file" if !shared && !algorithms.is_empty() => {
                "the algorithms are with a public key, which a secret is not"
            }
            _ => continue,
        };
        report.relation(span.clone(), wrong);
    }
    let fetched = asked::key_set(report, section);
    let hook = asked::hook(report, section, files);
    let jwks = file(report, section, "jwks_file", files);
    let public = file(report, section, "key_file", files);
    let secret = secret(report, section, files, algorithms);
    let here = jwks.map(TokenKeys::Set).or(public.map(TokenKeys::Public)).or(secret.map(TokenKeys::Secret));
    here.or(fetched.map(TokenKeys::Url)).or(hook.map(|hook| TokenKeys::Hook(Box::new(hook))))
}

/// A path of a file.
fn path<'d>(report: &mut Report<'_>, section: &Section<'d>, key: &str, like: &str) -> Option<At<&'d str>> {
    let text = section.text(report, key)?;
    if !text.value.starts_with('/') || text.value.contains('\0') {
        let message = format!("the path in `{key}` begins with /, like {like}");
        report.wrong(text.span, Mistake::new(message));
        return None;
    }
    Some(text)
}

fn file(report: &mut Report<'_>, section: &Section<'_>, key: &str, files: Files) -> Option<PemFile> {
    let At { value: path, span } = path(report, section, key, "/etc/tidegate/jwks.json")?;
    let place = report.place(&span);
    match files {
        Files::Closed => Some(PemFile::unread(path, place)),
        Files::Open(_) => report.check(&span, PemFile::read(path, place)).map(|(file, _)| file),
    }
}

fn secret(
    report: &mut Report<'_>,
    section: &Section<'_>,
    files: Files,
    algorithms: &[At<Algorithm>],
) -> Option<Secret> {
    let At { value: secret, span } = any_secret(report, section, files)?;
    // RFC 7518 §3.2: a key of at least the hash's size.
    let least = algorithms
        .iter()
        .filter_map(|one| Some((one.value.least_secret_bytes()?, one.value)))
        .max_by_key(|least| least.0);
    if let (Some((least, algorithm)), Some(bytes)) = (least, secret.bytes())
        && bytes.len() < least
    {
        let message = format!(
            "a secret for {} has at least {least} bytes, and this has {}",
            algorithm.name(),
            bytes.len()
        );
        report.wrong(span, Mistake::new(message));
    }
    Some(secret)
}

/// `secret`, or what stands in `secret_file`.
fn any_secret(report: &mut Report<'_>, section: &Section<'_>, files: Files) -> Option<At<Secret>> {
    let text = section.text(report, "secret");
    let file = path(report, section, "secret_file", "/etc/tidegate/tokens.secret");
    let (secret, span) = match (text, file) {
        (Some(At { value, span }), _) => {
            let secret = report.check(&span, Secret::parse(value))?;
            if let Files::Open(Exposure::Open(mode)) = files {
                let message = format!(
                    "this file holds a secret, and its mode {mode:04o} lets others read or change it: use \
                     `secret_file`, or chmod 640"
                );
                report.warn(span.clone(), message);
            }
            (secret, span)
        }
        (None, Some(At { value: path, span })) => match files {
            Files::Closed => (Secret::unread(path), span),
            Files::Open(_) => {
                let (secret, exposure) = report.check(&span, Secret::read(path))?;
                if let Exposure::Open(mode) = exposure {
                    let message = format!(
                        "the secret's file has mode {mode:04o}, which lets others read or change it: chmod 600, or 640"
                    );
                    report.warn(span.clone(), message);
                }
                (secret, span)
            }
        },
        (None, None) => return None,
    };
    Some(At { value: secret, span })
}

fn texts(report: &mut Report<'_>, section: &Section<'_>, key: &str) -> Vec<String> {
    let mut texts = Vec::<String>::new();
    let listed = section.texts(report, key);
    if listed.as_ref().is_some_and(|listed| listed.value.is_empty())
        && let Some(span) = section.key_span(key)
    {
        report.relation(span, format!("`{key}` lists none: leave it out, or list one"));
    }
    for At { value, span } in listed.into_iter().flat_map(|listed| listed.value) {
        if value.is_empty() {
            report.wrong(span, Mistake::new(format!("an empty text in `{key}`")));
        } else if texts.iter().any(|earlier| earlier == value) {
            report.wrong(span, Mistake::new(format!("{} is in the list already", shown(value))));
        } else if texts.len() == MAX_ENTRIES {
            report.relation(span, format!("there are more than {MAX_ENTRIES} texts in `{key}`"));
            break;
        } else {
            texts.push(value.to_owned());
        }
    }
    texts
}

fn leeway_ms(report: &mut Report<'_>, section: &Section<'_>) -> u64 {
    let Some(At { value, span }) = section.duration(report, "leeway", 0) else { return LEEWAY_MS };
    if value > MOST_LEEWAY_MS || value % SECOND_MS != 0 {
        // RFC 7519 §2: times in tokens are seconds.
        report.wrong(span, Mistake::new("`leeway` is whole seconds, at most 5m"));
    }
    value
}

fn expired_code(report: &mut Report<'_>, section: &Section<'_>) -> u16 {
    let Some(At { value, span }) = section.integer(report, "expired_code", 0..=u64::from(u16::MAX)) else {
        return EXPIRED_CODE;
    };
    // RFC 6455 §7.4.2: 3000 to 4999 are for applications.
    if value != 1008 && !(3000..=4999).contains(&value) {
        let message = format!("`expired_code` is 1008 (policy violation) or 3000 to 4999, not {value}");
        report.wrong(span, Mistake::new(message));
    }
    value as u16
}

fn sources(report: &mut Report<'_>, section: &Section<'_>) -> Vec<TokenSource> {
    let Some(texts) = section.texts(report, "token") else {
        // A hook is told fields of its own choice.
        return if section.has("hook") { Vec::new() } else { vec![TokenSource::Authorization] };
    };
    if texts.value.is_empty() {
        report.relation(texts.span, "a token must stand somewhere: list a place, or leave `token` out");
    }
    let mut sources = Vec::new();
    for At { value, span } in texts.value {
        let Some(source) = report.check(&span, source(value)) else { continue };
        if sources.contains(&source) {
            report.wrong(span, Mistake::new(format!("{} is in the list already", shown(value))));
        } else if sources.len() == MAX_ENTRIES {
            report.relation(span, format!("there are more than {MAX_ENTRIES} places"));
            break;
        } else {
            sources.push(source);
        }
    }
    sources
}

fn source(text: &str) -> Result<TokenSource, Mistake> {
    const KINDS: [&str; 4] = ["authorization", "cookie:NAME", "query:NAME", "subprotocol:PREFIX"];
    let (kind, name) = text.split_once(':').map_or((text, None), |(kind, name)| (kind, Some(name)));
    let named = |what: &str| match name {
        Some(name) if name::is_token(name) => Ok(name.to_owned()),
        Some(name) => Err(Mistake::new(format!("{} is not {what}: a token without spaces", shown(name)))),
        None => Err(Mistake::new(format!("`{kind}` needs {what}, like {kind}:access_token"))),
    };
    match kind {
        "authorization" if name.is_none() => Ok(TokenSource::Authorization),
        "cookie" => named("the name of a cookie").map(TokenSource::Cookie),
        "query" => named("the name of a parameter").map(TokenSource::Query),
        "subprotocol" => named("the prefix of a subprotocol").map(TokenSource::Subprotocol),
        _ => {
            let message = format!("{} is no place of a token: {}", shown(text), KINDS.join(", "));
            let near = nearest(kind, &["authorization", "cookie", "query", "subprotocol"]);
            let suggestion = near.map(|near| match name.filter(|_| near != "authorization") {
                Some(name) => format!("{near}:{name}"),
                None => near.to_owned(),
            });
            Err(Mistake { message, suggestion })
        }
    }
}

fn headers(report: &mut Report<'_>, section: &Section<'_>) -> Vec<(String, String)> {
    let mut headers = Vec::<(String, String)>::new();
    for (name, claim) in section.pairs(report, "headers") {
        if let Err(mistake) = field_name(name.value) {
            report.wrong(name.span, mistake);
        } else if headers.iter().any(|(earlier, _)| same_field(earlier, name.value)) {
            let message = format!("{} is like another field here", shown(name.value));
            report.wrong(name.span, Mistake::new(message));
        } else if claim.value.is_empty() {
            report.wrong(claim.span, Mistake::new("a claim has a name"));
        } else if headers.len() == MAX_ENTRIES {
            report.relation(name.span, format!("there are more than {MAX_ENTRIES} fields"));
            break;
        } else {
            headers.push((name.value.to_owned(), claim.value.to_owned()));
        }
    }
    headers
}

/// Servers that put fields into an environment (RFC 3875 §4.1.18) cannot tell `-` from `_`.
fn plain_field(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

/// Whether two names are of one field to an upstream.
pub(super) fn same_field(one: &str, other: &str) -> bool {
    plain_field(one) == plain_field(other)
}

/// A field that the gateway may write for upstreams.
pub(super) fn field_name(name: &str) -> Result<(), Mistake> {
    let lower = plain_field(name);
    let reserved = RESERVED_FIELDS.contains(&&*lower)
        || lower.starts_with("sec-websocket-")
        || lower.starts_with("x-forwarded-");
    if !name::is_token(name) {
        return Err(Mistake::new(format!("{} is not the name of a field: a token of RFC 9110", shown(name))));
    }
    if reserved {
        return Err(Mistake::new(format!("{} is written by the gateway itself", shown(name))));
    }
    Ok(())
}

fn permissions(report: &mut Report<'_>, section: &Section<'_>) -> Option<PermissionClaims> {
    let own = section.table(report, "permissions", schema::PERMISSIONS)?;
    let mut claim = |key| {
        let At { value, span } = own.text(report, key)?;
        if value.is_empty() {
            report.wrong(span, Mistake::new("a claim has a name"));
        }
        Some(value.to_owned())
    };
    let claims = PermissionClaims {
        subscribe: claim("subscribe"),
        publish: claim("publish"),
        presence: claim("presence"),
    };
    if claims == PermissionClaims::default()
        && ["subscribe", "publish", "presence"].iter().all(|key| own.lacks(key))
    {
        report.relation(own.span.clone(), "this names no claim: `subscribe`, `publish` or `presence`");
    }
    Some(claims)
}
