//! Logs on standard error: text for people on a terminal, otherwise one JSON object a line.
//!
//! A thread of its own writes them. Where standard error takes nothing for a while (a pipe that nobody reads) up to
//! [`LINES`] wait, and what comes then is left out; where it is gone, all is. Neither stops anything else.

use std::{
    env,
    io::{self, IsTerminal},
};

use tidegate_config::Problem;
use tracing::{error, level_filters::LevelFilter};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

use crate::arguments::{LogArguments, LogFormat, LogLevel};

/// Lines that wait for standard error at most.
const LINES: usize = 16_384;

/// A log that has begun. Dropped, it writes what waits, if that is possible within a second.
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    _writer: WorkerGuard,
}

/// Begins to log as the arguments say.
///
/// # Panics
/// When called twice.
pub(crate) fn begin(arguments: &LogArguments) -> Log {
    let terminal = io::stderr().is_terminal();
    let format = arguments.format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let level = match arguments.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // https://no-color.org: set and not empty.
    let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let (stderr, writer) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES)
        .thread_name("logs")
        .finish(io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_writer(stderr)
        .log_internal_errors(false)
        .with_max_level(level)
        .with_target(false)
        .with_ansi(terminal && !plain);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).init(),
    }
    Log { format, _writer: writer }
}

/// Tells the problems of a configuration that was to be run.
pub(crate) fn problems(problems: &[Problem], format: LogFormat) {
    for problem in problems {
        match format {
            LogFormat::Text => print_problem(problem),
            LogFormat::Json => {
                let Problem { file, line, column, suggestion, .. } = problem;
                error!(file, line, column, suggestion, "bad configuration: {}", problem.headline());
            }
        }
    }
}

/// Writes a problem to standard error, with its line and a caret.
pub(crate) fn print_problem(problem: &Problem) {
    use io::Write as _;

    // Where standard error is gone, there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{problem}");
}
