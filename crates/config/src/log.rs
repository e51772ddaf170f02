//! The log: how much, in which form, and where.

use crate::NamedPath;

/// `[log]`. What the command line says goes before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How much is written.
    pub level: Option<LogLevel>,
    /// How it is written.
    pub format: Option<LogFormat>,
    /// The file that it goes to; `None`: standard error.
    pub file: Option<NamedPath>,
    /// Most lines of sessions and peers in a second.
    pub entries_per_second: u32,
    /// Whether each session's end is a line with what it has done; `None`: where there is an admin listener.
    pub sessions: Option<bool>,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What keeps the gateway from its work.
    Error,
    /// What an operator should look at.
    Warn,
    /// The course of things.
    Info,
    /// The course of single sessions.
    Debug,
    /// Everything.
    Trace,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Lines of sessions and peers in a second where the configuration sets none: some 300 KiB.
pub const DEFAULT_LOG_ENTRIES: u32 = 1_000;

impl Default for Log {
    fn default() -> Self {
        Self {
            level: None,
            format: None,
            file: None,
            entries_per_second: DEFAULT_LOG_ENTRIES,
            sessions: None,
        }
    }
}
