//! `publish = { … }` and its keys.

use std::{collections::HashMap, ops::Range};

use super::{
    Files, Surroundings,
    limits::{MESSAGE_MOST, MIB},
    topics::{Permission, permission},
};
use crate::{
    MAX_PUBLISH_KEYS, PublishAction, PublishKey, Secret, name,
    report::{At, Mistake, Report},
    schema,
    secret::Exposure,
    section::{Section, shown},
};

pub(super) fn read(
    report: &mut Report<'_>,
    section: &Section<'_>,
    around: &Surroundings<'_>,
) -> PublishAction {
    let publish = permission(report, section, "publish");
    if publish.is_empty {
        report.relation(section.span.clone(), "this allows nothing: list patterns in `publish`");
    }
    let keys = keys(report, section, around, &publish);
    let body_bytes = section.size(report, "body_bytes", 1..=MESSAGE_MOST).map_or(MIB, |size| size.value);
    let rate = section.integer(report, "rate", 1..=10_000_000).map_or(1000, |rate| rate.value);
    PublishAction { publish: publish.patterns, keys, body_bytes: body_bytes as usize, rate: rate as u32 }
}

fn keys(
    report: &mut Report<'_>,
    section: &Section<'_>,
    around: &Surroundings<'_>,
    publish: &Permission,
) -> Vec<PublishKey> {
    let sections = section.tables(report, "keys", schema::PUBLISH_KEY);
    if let Some(span) = section.key_span("keys")
        && section.lists_nothing("keys")
    {
        report.relation(span, "without a key everyone may publish: leave `keys` out, or list one");
    }
    if let Some(beyond) = sections.get(MAX_PUBLISH_KEYS) {
        report.relation(beyond.span.clone(), format!("there are more than {MAX_PUBLISH_KEYS} keys"));
        return Vec::new();
    }
    let mut names = HashMap::<&str, Range<usize>>::new();
    let mut secrets = Vec::<At<Secret>>::new();
    let mut keys = Vec::new();
    for section in &sections {
        let name = name(report, section, &mut names);
        let secret = secret(report, section, around);
        if let Some(At { value, span }) = &secret {
            if let Some(earlier) = secrets.iter().find(|earlier| earlier.value == *value) {
                let message = format!("the key at line {} is the same", report.line(&earlier.span));
                report.relation(span.clone(), message);
            }
            secrets.push(At { value: value.clone(), span: span.clone() });
        }
        let own = scope(report, section, publish);
        if let (Some(name), Some(At { value: secret, .. })) = (name, secret) {
            keys.push(PublishKey { name: name.to_owned(), secret, publish: own });
        }
    }
    keys
}

fn name<'d>(
    report: &mut Report<'_>,
    section: &Section<'d>,
    names: &mut HashMap<&'d str, Range<usize>>,
) -> Option<&'d str> {
    if section.lacks("name") {
        report.relation(section.span.clone(), "a key needs a `name`, which logs tell instead of it");
    }
    let At { value, span } = section.text(report, "name")?;
    if !name::is_token(value) {
        let message =
            format!("{} is not the name of a key: a token without spaces, like billing-2", shown(value));
        report.wrong(span, Mistake::new(message));
        return None;
    }
    if let Some(earlier) = names.get(value) {
        let message = format!("the key at line {} has this name already", report.line(earlier));
        report.relation(span, message);
        return None;
    }
    names.insert(value, span);
    Some(value)
}

fn secret(report: &mut Report<'_>, section: &Section<'_>, around: &Surroundings<'_>) -> Option<At<Secret>> {
    let (text, file) = (section.text(report, "key"), section.text(report, "key_file"));
    match (section.key_span("key"), section.key_span("key_file")) {
        (Some(_), Some(span)) => {
            report.relation(
                span,
                "a key stands in the file itself (`key`) or in its own (`key_file`), not in both",
            );
        }
        (None, None) if section.lacks("key") && section.lacks("key_file") => {
            report
                .relation(section.span.clone(), "a key needs `key`, or `key_file` with the path of its file");
        }
        _ => {}
    }
    if let Some(At { value, span }) = text {
        let value = report.check(&span, Secret::parse(value))?;
        if let Files::Open(Exposure::Open(mode)) = around.files {
            let message = format!(
                "this file holds a key, and its mode {mode:04o} lets others read or change it: use `key_file`, or chmod 640"
            );
            report.warn(span.clone(), message);
        }
        return Some(At { value, span });
    }
    let At { value: path, span } = file?;
    if !path.starts_with('/') || path.contains('\0') {
        report.wrong(
            span,
            Mistake::new("the path of a key file begins with /, like /etc/tidegate/billing.key"),
        );
        return None;
    }
    let value = match around.files {
        Files::Closed => Secret::unread(path),
        Files::Open(_) => {
            let (secret, exposure) = report.check(&span, Secret::read(path))?;
            if let Exposure::Open(mode) = exposure {
                let message = format!(
                    "the key file's mode {mode:04o} lets others read or change it: chmod 600, or 640"
                );
                report.warn(span.clone(), message);
            }
            secret
        }
    };
    Some(At { value, span })
}

/// What a key allows: what it lists, within what the route lists; that where it lists nothing.
fn scope(report: &mut Report<'_>, section: &Section<'_>, route: &Permission) -> crate::TopicPatterns {
    let own = permission(report, section, "publish");
    if !section.has("publish") {
        return route.patterns.clone();
    }
    if own.is_empty {
        let span = section.key_span("publish").unwrap_or_else(|| section.span.clone());
        report
            .relation(span, "this key allows nothing: list patterns, or leave `publish` out for the route's");
    }
    for At { value, span } in &own.listed {
        if !route.patterns.covers(value) {
            let message = format!("{} is not within the route's own `publish`", shown(value.as_str()));
            report.relation(span.clone(), message);
        }
    }
    own.patterns
}
