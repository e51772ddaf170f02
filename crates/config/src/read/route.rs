//! `[[route]]`, its one action, and the small ones among these.

use std::{collections::HashSet, ops::Range};

use super::{
    Surroundings, certificate, claims, feeds, identity::same_field, limits::ProcessLimits, proxy, publish,
};
use crate::{
    Action, Echo, EchoDeflate, Excess, FullAction, HostPattern, Page, PathPattern, Route, RouteLimits,
    TokenSource, name,
    origin::origin,
    report::{At, Mistake, Report},
    schema,
    section::{Section, nearest, shown},
};

const ACTIONS: [&str; 7] = ["echo", "page", "proxy", "topics", "events", "poll", "publish"];

/// What has the say instead of a route's `full`.
const SLOW: &str = "topics: each [[topic]] says with `slow` what becomes of slow subscribers";

/// A route, and where it stands; `None` where it has no pattern to compare with others.
pub(super) fn read(
    report: &mut Report<'_>,
    section: &Section<'_>,
    around: &Surroundings<'_>,
) -> Option<(Route, Range<usize>)> {
    if section.lacks("path") {
        report.relation(section.span.clone(), "a route needs a `path`; \"/*\" takes every one");
    }
    let host = section.text(report, "host");
    let host_pattern = host.as_ref().map(|text| report.check(&text.span, HostPattern::parse(text.value)));
    let path = section.text(report, "path");
    let path_pattern =
        path.as_ref().and_then(|text| report.check(&text.span, PathPattern::parse(text.value)));
    let subprotocols = subprotocols(report, section);
    let origins = origins(report, section);
    let words = [
        ("pause", FullAction::Pause),
        ("drop_new", FullAction::DropNew),
        ("drop_old", FullAction::DropOld),
        ("disconnect", FullAction::Disconnect),
    ];
    let full = section.word(report, "full", &words);

    let identity = identity(report, section, around, &subprotocols);
    let claims = claims::read(report, section);

    let client_certificate = certificate::read(report, section, around);
    if let Some(header) = client_certificate.as_ref().and_then(|own| own.header.as_deref())
        && let Some(place) = identity
        && around.identities[place].headers.iter().any(|(name, _)| same_field(name, header))
    {
        let span = section.key_span("client_certificate").unwrap_or(section.span.clone());
        let message = format!("the route's identity writes the field {} already", shown(header));
        report.relation(span, message);
    }

    let own = section.table(report, "limits", schema::ROUTE_LIMITS);
    let limits = around.limits.route(report, own.as_ref());
    let action = action(report, section, around, &limits);

    let mut without = |keys: &[&str], why: &str| {
        for key in keys {
            if let Some(span) = section.key_span(key) {
                report.relation(span, format!("`{key}` means nothing for {why}"));
            }
        }
    };
    match &action {
        // A page is answered to any GET and holds no session.
        Some(Action::Page(_)) => {
            without(
                &["subprotocols", "origins", "identity", "claims", "client_certificate", "limits", "full"],
                "a page, which is no WebSocket",
            );
        }
        Some(Action::Topics(_)) => without(&["full"], SLOW),
        Some(Action::Events(_)) => {
            without(&["subprotocols"], "events, which are no WebSocket");
            without(&["full"], SLOW);
        }
        Some(Action::Poll(_)) => without(&["subprotocols", "full"], "polling, which is no WebSocket"),
        Some(Action::Publish(publish)) => {
            without(&["subprotocols", "full"], "publishing, which is no WebSocket");
            if !publish.keys.is_empty()
                && let Some(span) = section.key_span("identity")
            {
                let message = "callers show a key or a token: leave out `identity`, or the route's `keys`";
                report.relation(span, message);
            }
        }
        Some(Action::Proxy(_)) => {
            if let Some(At { value: FullAction::DropNew | FullAction::DropOld, span }) = &full {
                let message =
                    "a proxied session loses no message: `full` is \"pause\" or \"disconnect\" here";
                report.relation(span.clone(), message);
            }
            if limits.rates.is_on() && limits.rates.excess == Excess::Drop {
                let span = own.as_ref().and_then(|own| own.key_span("excess"));
                let message = "a proxied session loses no message: `excess` is \"delay\" or \"close\" here, in [route.limits]";
                report.relation(span.unwrap_or(section.span.clone()), message);
            }
        }
        Some(Action::Echo(_)) | None => {}
    }

    let place = path.map(|text| text.span)?;
    let host = match host_pattern {
        Some(parsed) => Some(parsed?),
        None if section.has("host") => return None,
        None => None,
    };
    let full = full.map(|full| full.value).unwrap_or_default();
    let path = path_pattern?;
    // Without an action there is a problem anyhow; the pattern still counts for those behind.
    let action = action.unwrap_or(Action::Page(Page::Index));
    Some((
        Route {
            host,
            path,
            subprotocols,
            origins,
            identity,
            claims,
            client_certificate,
            limits,
            full,
            action,
        },
        place,
    ))
}

fn subprotocols(report: &mut Report<'_>, section: &Section<'_>) -> Vec<String> {
    let mut subprotocols = Vec::<String>::new();
    let mut seen = HashSet::new();
    for text in section.texts(report, "subprotocols").into_iter().flat_map(|texts| texts.value) {
        if !name::is_token(text.value) {
            // RFC 6455 §4.1: subprotocols are tokens.
            let message =
                format!("{} is not a subprotocol: a token of RFC 9110 without spaces", shown(text.value));
            report.wrong(text.span, Mistake::new(message));
        } else if !seen.insert(text.value) {
            report.wrong(text.span, Mistake::new(format!("{} is in the list already", shown(text.value))));
        } else {
            subprotocols.push(text.value.to_owned());
        }
    }
    subprotocols
}

fn origins(report: &mut Report<'_>, section: &Section<'_>) -> Vec<String> {
    let mut origins = Vec::<String>::new();
    let mut seen = HashSet::new();
    for text in section.texts(report, "origins").into_iter().flat_map(|texts| texts.value) {
        let Some(origin) = report.check(&text.span, origin(text.value)) else { continue };
        if seen.insert(origin.clone()) {
            origins.push(origin);
        } else {
            report.wrong(text.span, Mistake::new(format!("{} is in the list already", shown(&origin))));
        }
    }
    origins
}

/// The identity that a route asks for, by its position.
fn identity(
    report: &mut Report<'_>,
    section: &Section<'_>,
    around: &Surroundings<'_>,
    subprotocols: &[String],
) -> Option<usize> {
    let At { value, span } = section.text(report, "identity")?;
    let place = around.identities.iter().position(|identity| identity.name == value);
    if place.is_none() && !around.lacks_identities {
        let names: Vec<&str> = around.identities.iter().map(|identity| identity.name.as_str()).collect();
        let message = format!("there is no [[identity]] with the name {}", shown(value));
        let suggestion = nearest(value, &names).map(str::to_owned);
        report.wrong(span, Mistake { message, suggestion });
        return None;
    }
    let sources = place.map_or(&[][..], |place| &around.identities[place].sources);
    for source in sources {
        let TokenSource::Subprotocol(prefix) = source else { continue };
        if let Some(own) = subprotocols.iter().find(|own| own.starts_with(prefix)) {
            let message = format!(
                "the route's subprotocol {} would be taken for a token, which begins with {}",
                shown(own),
                shown(prefix)
            );
            report.relation(span.clone(), message);
        }
    }
    place
}

/// The one action; `None` where there is none, or it is wrong.
fn action(
    report: &mut Report<'_>,
    section: &Section<'_>,
    around: &Surroundings<'_>,
    limits: &RouteLimits,
) -> Option<Action> {
    let mut named: Vec<(&str, Range<usize>)> =
        ACTIONS.iter().filter_map(|key| section.key_span(key).map(|span| (*key, span))).collect();
    named.sort_by_key(|(_, span)| span.start);
    match named.as_slice() {
        [] if section.is_ahead() || !ACTIONS.iter().all(|key| section.lacks(key)) => {}
        [] => report.relation(
            section.span.clone(),
            "a route needs an action: echo = {}, page = {}, proxy = { … }, topics = { … }, events = { … }, \
             poll = { … } or publish = { … }",
        ),
        [_] => {}
        [(first, at), more @ ..] => {
            let line = report.line(at);
            for (_, span) in more {
                report.relation(
                    span.clone(),
                    format!("a route has one action, and this one has `{first}` at line {line}"),
                );
            }
        }
    }
    let [(first, _), more @ ..] = named.as_slice() else { return None };
    for (key, _) in more {
        // Read for its own mistakes.
        read_action(report, section, key, around, limits);
    }
    read_action(report, section, first, around, limits)
}

fn read_action(
    report: &mut Report<'_>,
    section: &Section<'_>,
    key: &str,
    around: &Surroundings<'_>,
    limits: &RouteLimits,
) -> Option<Action> {
    let schema = match key {
        "echo" => schema::ECHO,
        "page" => schema::PAGE,
        "proxy" => schema::PROXY,
        "topics" => schema::ROUTE_TOPICS,
        "events" => schema::EVENTS,
        "poll" => schema::POLL,
        _ => schema::PUBLISH,
    };
    let own = section.table(report, key, schema)?;
    Some(match key {
        "echo" => Action::Echo(echo(report, &own, around.limits)),
        "page" => Action::Page(page(report, &own)),
        "proxy" => Action::Proxy(proxy::read(report, &own, around.limits, around.files)?),
        "topics" => Action::Topics(feeds::topics(report, &own, around, limits)),
        "events" => Action::Events(feeds::events(report, &own, around, limits)),
        "poll" => Action::Poll(feeds::poll(report, &own, around, limits)),
        _ => Action::Publish(publish::read(report, &own, around)),
    })
}

fn page(report: &mut Report<'_>, section: &Section<'_>) -> Page {
    let words = [
        ("index", Page::Index),
        ("chat", Page::Chat),
        ("websocket", Page::WebSocket),
        ("broadcast", Page::Broadcast),
        ("client", Page::Client),
    ];
    section.word(report, "name", &words).map(|name| name.value).unwrap_or_default()
}

fn echo(report: &mut Report<'_>, section: &Section<'_>, process: &ProcessLimits) -> Echo {
    let words = [("on", EchoDeflate::On), ("off", EchoDeflate::Off)];
    let deflate = section.word(report, "deflate", &words).map(|deflate| deflate.value).unwrap_or_default();
    let takeover = section.boolean(report, "context_takeover");
    if let Some(At { value: true, span }) = &takeover {
        if deflate == EchoDeflate::Off {
            report.relation(span.clone(), "without deflate there is no context to take over");
        }
        process.check_takeover(report, span);
    }
    Echo { deflate, context_takeover: takeover.is_some_and(|takeover| takeover.value) }
}
