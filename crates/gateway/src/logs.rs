//! Logs on standard error, or in a file: text for people on a terminal, otherwise one JSON object a line.
//!
//! A thread of its own writes them. Where standard error takes nothing for a while (a pipe that nobody reads) up to
//! [`LINES`] wait, and what comes then is left out; where it is gone, all is. Neither stops anything else.

use std::{
    env, fmt,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
};

use signal_hook::{consts::SIGUSR1, flag};
use tidegate_config::Problem;
use tracing::{error, level_filters::LevelFilter, warn};

use crate::{
    arguments::{LogArguments, LogFormat, LogLevel},
    lines::{Lines, Sink, Writer},
    log_file::LogFile,
};

/// Lines that wait for standard error at most.
const LINES: usize = 16_384;

/// Most problems of a configuration that are told: more than a screen of them hide the first.
const PROBLEMS: usize = 20;

/// A log that has begun.
pub(crate) struct Log {
    format: LogFormat,
    colours: bool,
    lines: Lines,
    lost: Arc<AtomicU64>,
}

/// Why there is no log.
#[derive(Debug)]
pub(crate) enum NoLog {
    /// No thread can be started to write it.
    Thread(io::Error),
    /// Its file cannot be had.
    File(PathBuf, io::Error),
    /// USR1 cannot be caught.
    Signal(io::Error),
}

impl fmt::Display for NoLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thread(error) => write!(f, "no thread can be started to write the log: {error}"),
            Self::Signal(error) => write!(f, "signals cannot be caught: {error}"),
            Self::File(path, error) => write!(f, "the log cannot be written to {}: {error}", path.display()),
        }
    }
}

/// Begins to log as the arguments say, and where they do not, the configuration. The writer belongs to whoever ends the
/// process: threads that are left behind may have the log until then.
///
/// # Errors
/// Where there is no thread to write it, or no file.
///
/// # Panics
/// When called twice.
pub(crate) fn begin(
    arguments: &LogArguments,
    settings: &tidegate_config::Log,
) -> Result<(Log, Writer), NoLog> {
    let terminal = settings.file.is_none() && io::stderr().is_terminal();
    let configured = settings.format.map(LogFormat::from);
    let format =
        arguments.format.or(configured).unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let level = arguments.level.or(settings.level.map(LogLevel::from)).unwrap_or(LogLevel::Info);
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // https://no-color.org: set and not empty.
    let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = terminal && !plain;
    let lost = Arc::default();
    // On standard error it changes nothing, but would end the process.
    let moved = Arc::default();
    flag::register(SIGUSR1, Arc::clone(&moved)).map_err(NoLog::Signal)?;
    let (lines, writer) = match &settings.file {
        None => start(io::stderr(), &lost)?,
        Some(file) => {
            let path = file.path();
            let opened = LogFile::open(path, moved).map_err(|error| NoLog::File(path.to_owned(), error));
            start(opened?, &lost)?
        }
    };
    let out = lines.clone();
    let builder = tracing_subscriber::fmt()
        .with_writer(move || out.clone())
        .log_internal_errors(false)
        .with_max_level(level)
        .with_target(false)
        .with_ansi(colours);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).init(),
    }
    Ok((Log { format, colours, lines, lost }, writer))
}

fn start(out: impl Sink, lost: &Arc<AtomicU64>) -> Result<(Lines, Writer), NoLog> {
    Lines::start(out, LINES, Arc::clone(lost)).map_err(NoLog::Thread)
}

impl Log {
    /// Lines that were left out, or could not be written, so far.
    pub(crate) fn lost(&self) -> &Arc<AtomicU64> {
        &self.lost
    }

    /// Tells the problems of a configuration that was to be run.
    pub(crate) fn problems(&self, problems: &[Problem]) {
        match self.format {
            LogFormat::Text => write_problems(self.lines.clone(), problems),
            LogFormat::Json => {
                let (told, more) = told(problems);
                for problem in told {
                    let Problem { file, line, column, suggestion, .. } = problem;
                    error!(file, line, column, suggestion, "bad configuration: {}", problem.headline());
                }
                if let Some(more) = more {
                    error!("bad configuration: {more}");
                }
            }
        }
    }

    /// Tells what is valid in a configuration that is run, but hardly meant.
    pub(crate) fn warnings(&self, warnings: &[Problem]) {
        let (told, more) = told(warnings);
        for warning in told {
            let Problem { file, line, column, .. } = warning;
            warn!(file, line, column, "configuration: {}", warning.headline());
        }
        if let Some(more) = more {
            warn!("configuration: {more}");
        }
    }

    /// Tells that the arguments do not fit the configuration.
    pub(crate) fn usage(&self, error: &clap::Error) {
        let text = error.render();
        let text = if self.colours { text.ansi().to_string() } else { text.to_string() };
        // What the log does not take is left out.
        let _ = self.lines.clone().write_all(text.as_bytes());
    }
}

/// Tells on standard error why there is no log.
pub(crate) fn print_missing(error: &NoLog) {
    // Where standard error is gone, there is nobody to tell.
    let _ = writeln!(io::stderr(), "tidegate: {error}");
}

/// Writes problems to standard error, each with its line and a caret. Who asks for them waits for the reader.
pub(crate) fn print_problems(problems: &[Problem]) {
    write_problems(io::stderr().lock(), problems);
}

/// Writes warnings to standard error, as problems.
pub(crate) fn print_warnings(warnings: &[Problem]) {
    let (told, more) = told(warnings);
    let text: String =
        told.iter().map(ToString::to_string).chain(more).map(|line| format!("warning: {line}\n")).collect();
    // Where standard error is gone, there is nobody to tell.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn write_problems(mut stderr: impl Write, problems: &[Problem]) {
    let (told, more) = told(problems);
    let lines = told.iter().map(ToString::to_string).chain(more);
    let text: String = lines.map(|line| line + "\n").collect();
    // Where standard error is gone, there is nobody to tell.
    let _ = stderr.write_all(text.as_bytes());
}

/// The first problems, and what stands for the rest.
fn told(problems: &[Problem]) -> (&[Problem], Option<String>) {
    let (told, rest) = problems.split_at(problems.len().min(PROBLEMS));
    (told, (!rest.is_empty()).then(|| format!("... and {} more", rest.len())))
}
