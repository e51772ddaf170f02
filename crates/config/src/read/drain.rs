//! `[drain]`.

use crate::{
    Drain,
    drain::GRACE_MS,
    report::{Mistake, Report},
    schema,
    section::Section,
    units::duration_text,
};

/// Longest delay that a client may be told: a client that waits longer has gone.
const LONGEST_DELAY_MS: u64 = 3_600_000;

pub(super) fn read(report: &mut Report<'_>, top: &Section<'_>) -> Drain {
    let mut drain = Drain::default();
    let Some(section) = top.table(report, "drain", schema::DRAIN) else { return drain };
    let window = section.duration(report, "window", 0);
    if let Some(window) = &window {
        drain.window_ms = window.value;
        drain.deadline_ms = window.value + GRACE_MS;
    }
    // A window that is wrong has been told, and the default in its place was not meant.
    let has_window = window.is_some() || !section.has("window");
    if let Some(deadline) = section.duration(report, "deadline", 0) {
        drain.deadline_ms = deadline.value;
        if has_window && deadline.value < drain.window_ms {
            let (deadline_text, window) = (duration_text(deadline.value), duration_text(drain.window_ms));
            let message = format!("deadline ({deadline_text}) is before the end of the window ({window})");
            report.relation(deadline.span, message);
        }
    }
    drain.code = code(report, &section, "code").unwrap_or(drain.code);
    drain.route_code = code(report, &section, "route_code").unwrap_or(drain.route_code);
    if let Some(delay) = section.duration(report, "reconnect_delay", 0) {
        drain.reconnect_delay_ms = delay.value;
        if delay.value > LONGEST_DELAY_MS {
            report.wrong(delay.span, Mistake::new("`reconnect_delay` is at most an hour"));
        }
    }
    drain
}

fn code(report: &mut Report<'_>, section: &Section<'_>, key: &str) -> Option<u16> {
    let code = section.integer(report, key, 0..=u64::from(u16::MAX))?;
    if !matches!(code.value, 1001 | 1012) {
        let message = format!("`{key}` is 1001 (going away) or 1012 (service restart), not {}", code.value);
        report.wrong(code.span, Mistake::new(message));
    }
    Some(code.value as u16)
}
