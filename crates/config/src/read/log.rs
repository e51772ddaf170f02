//! `[log]`.

use crate::{
    DEFAULT_LOG_ENTRIES, Log, LogFormat, LogLevel, NamedPath,
    report::{Mistake, Report},
    schema,
    section::Section,
};

/// Most lines in a second that may be asked for: more than any disk wants.
const MOST_ENTRIES: u64 = 1_000_000;

pub(super) fn read(report: &mut Report<'_>, top: &Section<'_>) -> Log {
    let Some(section) = top.table(report, "log", schema::LOG) else { return Log::default() };
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let file = section.text(report, "file").and_then(|path| {
        if path.value.starts_with('/') && !path.value.contains('\0') && !path.value.ends_with('/') {
            return Some(NamedPath::new(path.value, report.place(&path.span)));
        }
        report.wrong(
            path.span,
            Mistake::new("the path of the log begins with /, like /var/log/tidegate/tidegate.log"),
        );
        None
    });
    let entries = section.integer(report, "entries_per_second", 1..=MOST_ENTRIES);
    Log {
        level: section.word(report, "level", &levels).map(|level| level.value),
        format: section.word(report, "format", &formats).map(|format| format.value),
        file,
        entries_per_second: entries.map_or(DEFAULT_LOG_ENTRIES, |entries| entries.value as u32),
        sessions: section.boolean(report, "sessions").map(|sessions| sessions.value),
    }
}
