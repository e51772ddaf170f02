//! `proxy = { … }`.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    net::IpAddr,
};

use super::{Files, limits::ProcessLimits, tls};
use crate::{
    Balance, Deflate, HashKey, MAX_UPSTREAMS, Proxy, Target, Upstream, Utf8, address, name,
    report::{At, Mistake, Report},
    section::{Section, nearest, shown},
};

/// The proxy; `None` where there is no upstream.
pub(super) fn read(
    report: &mut Report<'_>,
    section: &Section<'_>,
    process: &ProcessLimits,
    files: Files,
) -> Option<Proxy> {
    let upstreams = upstreams(report, section);
    let balance = balance(report, section);
    let words = [("edge", Deflate::Edge), ("pass", Deflate::Pass), ("off", Deflate::Off)];
    let deflate = section.word(report, "deflate", &words).map(|deflate| deflate.value).unwrap_or_default();
    let words = [("check", Utf8::Check), ("upstream", Utf8::Upstream)];
    let utf8 = section.word(report, "utf8", &words).map(|utf8| utf8.value).unwrap_or_default();
    let takeover = section.boolean(report, "context_takeover");
    if let Some(At { value: true, span }) = &takeover {
        if deflate != Deflate::Edge {
            let message =
                "context takeover is the gateway's only where it compresses: with deflate = \"edge\"";
            report.relation(span.clone(), message);
        }
        process.check_takeover(report, span);
    }
    let mut time = |key: &str, shortest_ms: u64, default_ms: u64| {
        section.duration(report, key, shortest_ms).map_or(default_ms, |time| time.value)
    };
    let resolve_timeout_ms = time("resolve_timeout", 1, 5_000);
    let resolve_interval_ms = time("resolve_interval", 100, 30_000);
    let connect_timeout_ms = time("connect_timeout", 1, 5_000);
    let handshake_timeout_ms = time("handshake_timeout", 1, 10_000);
    let fail_timeout_ms = time("fail_timeout", 0, 10_000);
    let mut count = |key: &str, least: u64, most: u64, default: u32| {
        section.integer(report, key, least..=most).map_or(default, |count| count.value as u32)
    };
    let retries = count("retries", 0, 100, 2);
    let max_fails = count("max_fails", 1, 1_000_000, 1);
    let failure_code = failure_code(report, section);
    let source = sources(report, section, &upstreams);
    // Where the upstreams are wrong, that has been told.
    let some_speak_tls = upstreams.is_empty() || upstreams.iter().any(|upstream| upstream.value.tls);
    let tls = Box::new(tls::read_upstream(report, section, some_speak_tls, files));

    let context_takeover = takeover.is_some_and(|takeover| takeover.value);
    let upstreams: Vec<Upstream> = upstreams.into_iter().map(|upstream| upstream.value).collect();
    (!upstreams.is_empty()).then_some(Proxy {
        upstreams,
        balance,
        deflate,
        utf8,
        context_takeover,
        resolve_timeout_ms,
        resolve_interval_ms,
        connect_timeout_ms,
        handshake_timeout_ms,
        retries,
        max_fails,
        fail_timeout_ms,
        failure_code,
        source,
        tls,
    })
}

fn upstreams(report: &mut Report<'_>, section: &Section<'_>) -> Vec<At<Upstream>> {
    let Some(texts) = section.texts(report, "upstreams") else {
        if section.lacks("upstreams") {
            let message = "a proxy needs `upstreams`, like [\"ws://10.0.0.5:9000\"]";
            report.relation(section.span.clone(), message);
        }
        return Vec::new();
    };
    if texts.value.is_empty() {
        report.relation(texts.span.clone(), "a proxy needs at least one upstream");
    }
    if let Some(beyond) = texts.value.get(MAX_UPSTREAMS) {
        report.relation(beyond.span.clone(), format!("there are more than {MAX_UPSTREAMS} upstreams"));
        return Vec::new();
    }
    let mut upstreams = Vec::<At<Upstream>>::new();
    let mut seen = HashMap::<Target, String>::new();
    for text in texts.value {
        let Some(upstream) = report.check(&text.span, address::upstream(text.value)) else { continue };
        match seen.entry(upstream.target.clone()) {
            Entry::Occupied(earlier) => {
                let message = format!("{} is in the list already", shown(earlier.get()));
                report.wrong(text.span, Mistake::new(message));
            }
            Entry::Vacant(first) => {
                first.insert(upstream.text.clone());
                upstreams.push(At { value: upstream, span: text.span });
            }
        }
    }
    upstreams
}

fn balance(report: &mut Report<'_>, section: &Section<'_>) -> Balance {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        RoundRobin,
        LeastSessions,
        Hash,
    }
    let words =
        [("round_robin", Kind::RoundRobin), ("least_sessions", Kind::LeastSessions), ("hash", Kind::Hash)];
    let kind = section.word(report, "balance", &words);
    let hash_on = section.text(report, "hash_on");
    let key = hash_on.as_ref().and_then(|text| report.check(&text.span, hash_key(text.value)));
    let hashing = kind.as_ref().is_some_and(|kind| kind.value == Kind::Hash);
    match (&kind, &hash_on) {
        (Some(kind), None) if hashing && section.lacks("hash_on") => {
            let message = "a hash needs `hash_on`: \"client_address\", \"header:NAME\" or \"cookie:NAME\"";
            report.relation(kind.span.clone(), message);
        }
        // A balance that is there but wrong has been told.
        (kind, Some(text)) if !hashing && kind.is_some() == section.has("balance") => {
            report.relation(text.span.clone(), "`hash_on` means something only with balance = \"hash\"");
        }
        _ => {}
    }
    match (kind.map(|kind| kind.value), key) {
        (Some(Kind::Hash), Some(key)) => Balance::Hash(key),
        (Some(Kind::LeastSessions), _) => Balance::LeastSessions,
        (Some(Kind::RoundRobin | Kind::Hash) | None, _) => Balance::RoundRobin,
    }
}

fn hash_key(text: &str) -> Result<HashKey, Mistake> {
    const FORM: &str = "`hash_on` is \"client_address\", \"header:NAME\" or \"cookie:NAME\"";
    if text == "client_address" {
        return Ok(HashKey::ClientAddress);
    }
    let Some((kind, key)) = text.split_once(':') else {
        let suggestion = nearest(text, &["client_address"]).map(str::to_owned);
        return Err(Mistake { message: format!("{FORM}, not {}", shown(text)), suggestion });
    };
    let what = match kind {
        "header" => "field",
        "cookie" => "cookie",
        _ => {
            let meant = nearest(kind, &["header", "cookie"]).map(|kind| format!("{kind}:{key}"));
            return Err(Mistake { message: format!("{FORM}, not {}", shown(text)), suggestion: meant });
        }
    };
    // RFC 9110 §5.1 and RFC 6265 §4.1.1: names of fields and of cookies are tokens.
    if !name::is_token(key) {
        return Err(Mistake::new(format!("{} is not the name of a {what}", shown(key))));
    }
    Ok(if kind == "header" {
        HashKey::Header(key.to_ascii_lowercase())
    } else {
        HashKey::Cookie(key.to_owned())
    })
}

fn failure_code(report: &mut Report<'_>, section: &Section<'_>) -> u16 {
    let Some(code) = section.integer(report, "failure_code", 0..=u64::from(u16::MAX)) else { return 1011 };
    if !matches!(code.value, 1011 | 1014) {
        let message =
            format!("`failure_code` is 1011 (internal error) or 1014 (bad gateway), not {}", code.value);
        report.wrong(code.span, Mistake::new(message));
    }
    code.value as u16
}

fn sources(report: &mut Report<'_>, section: &Section<'_>, upstreams: &[At<Upstream>]) -> Vec<IpAddr> {
    let Some(texts) = section.texts(report, "source") else { return Vec::new() };
    let mut sources = Vec::new();
    let mut seen = HashSet::new();
    for text in &texts.value {
        let Some(address) = report.check(&text.span, address::source(text.value)) else { continue };
        if seen.insert(address) {
            sources.push(address);
        } else {
            report.wrong(text.span.clone(), Mistake::new(format!("{address} is in the list already")));
        }
    }
    if sources.len() < texts.value.len() || sources.is_empty() {
        return sources;
    }
    let (has_ipv4, has_ipv6) = (sources.iter().any(IpAddr::is_ipv4), sources.iter().any(IpAddr::is_ipv6));
    let mut unix = 0;
    for upstream in upstreams {
        match &upstream.value.target {
            Target::Unix(_) => unix += 1,
            Target::Address(address) => {
                if !(if address.is_ipv4() { has_ipv4 } else { has_ipv6 }) {
                    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                    let message = format!("`source` has no {family} address to connect to {address} from");
                    report.relation(texts.span.clone(), message);
                }
            }
            Target::Name { .. } => {}
        }
    }
    if unix > 0 && unix == upstreams.len() {
        report
            .relation(texts.span, "`source` means nothing for unix sockets, and there is no other upstream");
    }
    sources
}
