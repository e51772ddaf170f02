//! What is asked for over HTTP: key sets, and hooks.

use super::{Files, MAX_ENTRIES, any_secret};
use crate::{
    Hook, HttpUrl, KeySetUrl,
    http_url::http_url,
    name,
    report::{At, Mistake, Report},
    schema,
    section::{Section, shown},
};

/// How often a key set is fetched where nothing is said: who changes keys announces them an hour or a day ahead.
const INTERVAL_MS: u64 = 600_000;

/// How long a key set may take.
const KEY_SET_TIMEOUT_MS: u64 = 5_000;

/// How long a hook may take: a client waits meanwhile.
const HOOK_TIMEOUT_MS: u64 = 2_000;

/// Longest time that either may take: clients wait meanwhile.
const MOST_TIMEOUT_MS: u64 = 60_000;

/// Most requests that wait for a hook where nothing is said.
const MAX_IN_FLIGHT: usize = 256;

/// The same, whatever is said: each holds a request's head twice.
const MOST_IN_FLIGHT: u64 = 65_536;

/// `jwks_url`, and what belongs to it.
pub(super) fn key_set(report: &mut Report<'_>, section: &Section<'_>) -> Option<KeySetUrl> {
    let url = url(report, section, "jwks_url");
    let interval = section.duration(report, "jwks_interval", 1_000);
    let timeout_ms = timeout_ms(report, section, "jwks_timeout", KEY_SET_TIMEOUT_MS);
    if section.lacks("jwks_url") {
        for key in ["jwks_interval", "jwks_timeout"] {
            if let Some(span) = section.key_span(key) {
                report.relation(span, format!("`{key}` means nothing without `jwks_url`"));
            }
        }
    }
    let interval_ms = interval.map_or(INTERVAL_MS, |interval| interval.value);
    Some(KeySetUrl { url: url?, interval_ms, timeout_ms })
}

/// `hook = { … }`.
pub(super) fn hook(report: &mut Report<'_>, section: &Section<'_>, files: Files) -> Option<Hook> {
    let own = section.table(report, "hook", schema::HOOK)?;
    for key in ["algorithms", "issuers", "audiences"] {
        if let Some(span) = section.key_span(key) {
            let message =
                format!("`{key}` means nothing with a hook, which judges what callers show by itself");
            report.relation(span, message);
        }
    }
    if own.lacks("url") {
        report.relation(own.span.clone(), "a hook needs a `url`, like \"https://auth.example.com/ask\"");
    }
    let url = url(report, &own, "url");
    let timeout_ms = timeout_ms(report, &own, "timeout", HOOK_TIMEOUT_MS);
    let max_in_flight = own.integer(report, "max_in_flight", 1..=MOST_IN_FLIGHT);
    let max_in_flight = max_in_flight.map_or(MAX_IN_FLIGHT, |most| most.value as usize);
    let fields = fields(report, &own);
    let secret = any_secret(report, &own, files).map(|secret| secret.value);
    if let (Some(_), Some(span)) = (own.key_span("secret"), own.key_span("secret_file")) {
        report.relation(span, "a hook has one secret, and this one has `secret`");
    }
    Some(Hook { url: url?, timeout_ms, max_in_flight, fields, secret })
}

fn url(report: &mut Report<'_>, section: &Section<'_>, key: &str) -> Option<HttpUrl> {
    let At { value, span } = section.text(report, key)?;
    report.check(&span, http_url(value))
}

fn timeout_ms(report: &mut Report<'_>, section: &Section<'_>, key: &str, default_ms: u64) -> u64 {
    section.duration_within(report, key, 1..=MOST_TIMEOUT_MS).map_or(default_ms, |timeout| timeout.value)
}

fn fields(report: &mut Report<'_>, section: &Section<'_>) -> Vec<String> {
    let Some(texts) = section.texts(report, "forward") else {
        return ["authorization", "cookie"].map(str::to_owned).to_vec();
    };
    let mut fields = Vec::<String>::new();
    for At { value, span } in texts.value {
        let lower = value.to_ascii_lowercase();
        if !name::is_token(value) {
            let message = format!("{} is not the name of a field: a token of RFC 9110", shown(value));
            report.wrong(span, Mistake::new(message));
        } else if fields.contains(&lower) {
            report.wrong(span, Mistake::new(format!("{} is in the list already", shown(value))));
        } else if fields.len() == MAX_ENTRIES {
            report.relation(span, format!("there are more than {MAX_ENTRIES} fields"));
            break;
        } else {
            fields.push(lower);
        }
    }
    fields
}
