//! `tidegate sessions` and `tidegate status`: asking a running gateway over its admin listener.

use std::{
    fmt::Write as _,
    io::{self, Write},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use tidegate_config::{Admin, Secret, printable};
use tidegate_control::{
    api::{KillRequest, Killed, SessionEntry, Sessions, Status},
    client::{Client, Failure},
};

use crate::{
    Outcome,
    arguments::{AdminArguments, KillArguments, ListArguments, SessionsArguments, SessionsCommand},
    logs,
    output::show,
};

/// Most sessions that one answer holds.
const PAGE: usize = 1_000;

/// Why nothing can be shown.
pub(crate) enum Fault {
    /// It was told.
    Told(Outcome),
    /// The gateway cannot be asked, or refuses.
    Failure(Failure),
    /// What was given is of no use.
    Usage(String),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(400, why) => Self::Usage(why),
            failure => Self::Failure(failure),
        }
    }
}

/// Lists or ends sessions.
pub(crate) fn sessions(arguments: &SessionsArguments) -> Outcome {
    outcome(match &arguments.command {
        SessionsCommand::List(arguments) => list(arguments),
        SessionsCommand::Kill(arguments) => kill(arguments),
    })
}

/// Shows the gateway at a glance.
pub(crate) fn status(arguments: &AdminArguments) -> Outcome {
    outcome(client(arguments).and_then(|client| {
        let status: Status = client.get("/status", &[])?;
        Ok(match arguments.json {
            true => json(&status),
            false => show(&status_text(&status)),
        })
    }))
}

pub(crate) fn outcome(result: Result<Outcome, Fault>) -> Outcome {
    let (outcome, why) = match result {
        Ok(outcome) | Err(Fault::Told(outcome)) => return outcome,
        Err(Fault::Failure(failure)) => (Outcome::Fault, format!("{failure}{}", hint(&failure))),
        Err(Fault::Usage(why)) => (Outcome::Usage, why),
    };
    // Where standard error is gone, there is nobody to tell.
    let _ = writeln!(io::stderr(), "tidegate: {}", printable(&why));
    outcome
}

/// What may help whoever is refused.
fn hint(failure: &Failure) -> &'static str {
    match failure {
        // Nobody can ask for a reload with a token that only the reload would bring.
        Failure::Refused(401, _) => {
            "; a gateway knows the token that its last reload has read: where `token_file` holds another one since, \
             send it HUP (systemctl reload tidegate)"
        }
        _ => "",
    }
}

/// The gateway that is meant.
pub(crate) fn client(arguments: &AdminArguments) -> Result<Client, Fault> {
    let configured = match &arguments.config {
        // Where both are given the file is not needed, and may be another user's.
        Some(path) if arguments.admin.is_none() => {
            let admin = tidegate_config::load_admin(path).map_err(|problems| {
                logs::print_problems(&problems);
                Fault::Told(Outcome::BadConfig)
            })?;
            let without =
                || Fault::Usage(format!("{} has no `[admin]`: that gateway cannot be asked", path.display()));
            Some(admin.ok_or_else(without)?)
        }
        _ => None,
    };
    let token = match (&arguments.token_file, &configured) {
        (Some(path), _) => Some(read_token(path)?),
        (None, Some(admin)) => admin.token.clone(),
        (None, None) => None,
    };
    let bind =
        arguments.admin.clone().or(configured.map(|admin| admin.bind)).unwrap_or_else(Admin::default_bind);
    Ok(Client { bind, token })
}

fn read_token(path: &Path) -> Result<Secret, Fault> {
    let name = path.display().to_string();
    Secret::from_file(&name).map_err(|why| Fault::Usage(format!("{name}: {why}")))
}

fn list(arguments: &ListArguments) -> Result<Outcome, Fault> {
    let client = client(&arguments.gateway)?;
    let mut all = Sessions::default();
    while all.sessions.len() < arguments.limit {
        let limit = (arguments.limit - all.sessions.len()).min(PAGE).to_string();
        let wanted = [
            ("route", arguments.which.route.as_deref()),
            ("upstream", arguments.which.upstream.as_deref()),
            ("address", arguments.which.address.as_deref()),
            ("user", arguments.which.user.as_deref()),
            ("state", arguments.state.as_deref()),
            ("limit", Some(limit.as_str())),
            ("after", all.next.as_deref()),
        ];
        let query: Vec<(&str, &str)> =
            wanted.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let page: Sessions = client.get("/sessions", &query)?;
        all.sessions.extend(page.sessions);
        all.next = page.next;
        if all.next.is_none() {
            break;
        }
    }
    if arguments.gateway.json {
        return Ok(json(&all));
    }
    let outcome = show(&table(&all.sessions));
    if all.next.is_some() {
        // Where standard error is gone, there is nobody to tell.
        let _ =
            writeln!(io::stderr(), "tidegate: there may be more than these {}: --limit", all.sessions.len());
    }
    Ok(outcome)
}

fn kill(arguments: &KillArguments) -> Result<Outcome, Fault> {
    let client = client(&arguments.gateway)?;
    let request = KillRequest {
        ids: arguments.ids.clone(),
        route: arguments.which.route.clone(),
        upstream: arguments.which.upstream.clone(),
        address: arguments.which.address.clone(),
        user: arguments.which.user.clone(),
        code: arguments.code,
        per_second: arguments.per_second,
    };
    let killed: Killed = client.post("/sessions/kill", &request)?;
    let Killed { matched, ended, per_second } = killed;
    let outcome = if arguments.gateway.json {
        json(&killed)
    } else {
        let step = per_second as usize;
        let rest = match matched.checked_sub(ended) {
            Some(rest) if matched > step.div_ceil(10).max(1) => {
                format!(", the rest in {} s", rest.div_ceil(step))
            }
            _ => String::new(),
        };
        show(&format!("ended {ended} of {matched}{rest}\n"))
    };
    // Like pkill: whoever meant a session that is not there should know.
    Ok(if ended == 0 { Outcome::Fault } else { outcome })
}

pub(crate) fn json(answer: &impl Serialize) -> Outcome {
    let text = serde_json::to_string(answer).unwrap_or_default();
    show(&(text + "\n"))
}

fn status_text(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String never fails.
        let _ = writeln!(text, "{name:<15} {}", printable(&value));
    };
    let started = UNIX_EPOCH + Duration::from_secs(status.started_unix_seconds);
    let age = SystemTime::now().duration_since(started).unwrap_or_default().as_secs_f64();
    line("version", format!("{} ({}, process {})", status.version, status.backend, status.pid));
    line("running for", duration(age));
    line("ready", status.ready.clone());
    line("live", format!("{} ({} shards)", status.live, status.shards.len()));
    line("configuration", format!("number {}", status.generation));
    line("connections", status.connections.to_string());
    line("sessions", status.sessions.to_string());
    line("buffered", bytes(status.buffered_bytes));
    let rows = status.routes.iter().map(|route| {
        [
            route.route.clone(),
            route.sessions.to_string(),
            route.opened.to_string(),
            route.received_messages.to_string(),
            route.sent_messages.to_string(),
            if route.drained { "drained" } else { "" }.to_owned(),
        ]
    });
    text.push('\n');
    text += &columns(["ROUTE", "SESSIONS", "OPENED", "MESSAGES IN", "OUT", "STATE"], rows);
    if !status.upstreams.is_empty() {
        let rows = status.upstreams.iter().map(|upstream| {
            [
                upstream.upstream.clone(),
                upstream.route.clone(),
                upstream.sessions.to_string(),
                upstream.failures.to_string(),
                [(upstream.drained, "drained"), (!upstream.up, "failing")]
                    .into_iter()
                    .find_map(|(is, state)| is.then_some(state))
                    .unwrap_or_default()
                    .to_owned(),
            ]
        });
        text.push('\n');
        text += &columns(["UPSTREAM", "ROUTE", "SESSIONS", "FAILURES", "STATE"], rows);
    }
    text
}

fn table(sessions: &[SessionEntry]) -> String {
    let rows = sessions.iter().map(|session| {
        [
            session.id.clone(),
            session.state.clone(),
            session.route.clone().unwrap_or_else(|| "-".to_owned()),
            session.upstream.clone().unwrap_or_else(|| "-".to_owned()),
            session.address.clone().unwrap_or_else(|| "-".to_owned()),
            session.user.clone().unwrap_or_else(|| "-".to_owned()),
            duration(session.age_seconds),
            duration(session.silent_seconds),
            format!("{} / {}", session.received_messages, bytes(session.received_bytes)),
            format!("{} / {}", session.sent_messages, bytes(session.sent_bytes)),
            bytes(session.buffered_bytes),
        ]
    });
    let heads =
        ["ID", "STATE", "ROUTE", "UPSTREAM", "ADDRESS", "USER", "AGE", "SILENT", "IN", "OUT", "WAITING"];
    columns(heads, rows)
}

/// Some lines as they are, each printable.
pub(crate) fn printed(text: &str) -> String {
    text.lines().map(|line| printable(line) + "\n").collect()
}

/// Rows under their heads, each column as wide as it needs.
fn columns<const N: usize>(heads: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.map(|row| row.map(|cell| printable(&cell))).collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in [&heads.map(str::to_owned)].into_iter().chain(&rows) {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// So many seconds in the two largest units.
fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1}s"),
        60..3_600 => format!("{}m{}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h{}m", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{}d{}h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

fn bytes(bytes: u64) -> String {
    let scaled = |unit: u32| bytes as f64 / f64::from(1_u32 << unit);
    match bytes {
        0..1_024 => format!("{bytes}B"),
        1_024..0x10_0000 => format!("{:.1}KiB", scaled(10)),
        0x10_0000..0x4000_0000 => format!("{:.1}MiB", scaled(20)),
        _ => format!("{:.1}GiB", scaled(30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_durations_and_sizes() {
        assert_eq!(
            [0.04, 59.0, 61.0, 7_260.0, 90_000.0].map(duration),
            ["0.0s", "59.0s", "1m1s", "2h1m", "1d1h"]
        );
        assert_eq!(
            [0, 1_023, 1_536, 3 << 20, 5 << 30].map(bytes),
            ["0B", "1023B", "1.5KiB", "3.0MiB", "5.0GiB"]
        );
    }

    #[test]
    fn columns_are_as_wide_as_they_need_and_show_no_control_characters() {
        let rows = [["a".to_owned(), "bb\u{1b}".to_owned()]];
        let text = columns(["LONG", "X"], rows.into_iter());
        assert!(text.starts_with("LONG  X\na     bb"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
