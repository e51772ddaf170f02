//! The log and the sockets that a configuration names: what speaks against their paths, as far as it is seen without making anything.

use std::{
    fmt, fs, io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use tidegate_config::{Bind, Config, NamedPath, Problem};

use crate::log_file;

/// What `run` would not start with. What belongs to services that run is a warning of the configuration: systemd makes their folders
/// and takes them away. So is what `running` has already, for which nothing is made until the next start.
pub(crate) fn problems(config: &mut Config, file: Option<&Path>, running: Option<&Config>) -> Vec<Problem> {
    const AGAIN: &str = ": the gateway would not start again";
    let mut problems = clashes(config, file);
    let mut warnings = Vec::new();
    if let Some(log) = &config.log.file
        && let Some(obstacle) = log_file::obstacle(log.path())
    {
        match running.is_some_and(|running| running.log.file.as_ref() == Some(log)) {
            true => warnings.push(log.problem(&(obstacle + AGAIN))),
            false => problems.push(log.problem(&obstacle)),
        }
    }
    for socket in sockets(config) {
        let Some(obstacle) = Obstacle::of(socket.path()) else { continue };
        let is_fleeting = ["/run", "/var/run"].iter().any(|run| socket.path().starts_with(run));
        if running.is_some_and(|running| sockets(running).any(|runs| runs == socket)) {
            warnings.push(socket.problem(&format!("{obstacle}{AGAIN}")));
        } else if is_fleeting && matches!(obstacle, Obstacle::NoFolder) {
            let message = "its folder does not exist now: the gateway does not start without it";
            warnings.push(socket.problem(message));
        } else {
            problems.push(socket.problem(&obstacle.to_string()));
        }
    }
    config.warnings.extend(warnings);
    problems
}

/// Where two of them are one, or the log is the configuration itself (`file`), which it would be written behind.
pub(crate) fn clashes(config: &Config, file: Option<&Path>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut earlier = Vec::new();
    for socket in sockets(config) {
        let place = place(socket.path());
        if earlier.contains(&place) {
            problems.push(
                socket.problem(
                    "an earlier listener, or the admin listener, has this socket: each needs its own",
                ),
            );
        }
        earlier.push(place);
    }
    if let Some(log) = &config.log.file {
        let real = log.path().canonicalize().unwrap_or_else(|_| place(log.path()));
        let listeners = config.listeners.iter().map(|listener| &listener.bind);
        let mut binds = listeners.chain(config.admin.as_ref().map(|admin| &admin.bind));
        if binds.any(|bind| matches!(bind, Bind::Unix(path) if place(path) == real)) {
            problems.push(log.problem("it is the socket of a listener: the log needs a file of its own"));
        }
        if file.and_then(|file| file.canonicalize().ok()).is_some_and(|file| file == real) {
            problems.push(log.problem("it is the configuration itself: the log needs a file of its own"));
        }
    }
    problems
}

/// Those of listeners, and the admin listener's; what the command line names is in no line of a file.
fn sockets(config: &Config) -> impl Iterator<Item = &NamedPath> {
    let listeners = config.listeners.iter().filter_map(|listener| listener.socket.as_ref());
    let admin = config.admin.as_ref().and_then(|admin| admin.socket.as_ref());
    listeners.chain(admin)
}

/// Where a path leads, links of its folder followed: a socket that is made there has no other.
fn place(path: &Path) -> PathBuf {
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    match (folder, path.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}

/// Why no socket can be made somewhere.
enum Obstacle {
    NoFolder,
    NoSocket,
    Other(io::Error),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFolder => formatter.write_str("its folder does not exist"),
            Self::NoSocket => formatter.write_str("there is a file that is not a socket"),
            Self::Other(error) => write!(formatter, "it cannot be had: {error}"),
        }
    }
}

impl Obstacle {
    fn of(path: &Path) -> Option<Self> {
        if path.parent().is_some_and(|folder| !folder.is_dir()) {
            return Some(Self::NoFolder);
        }
        match fs::symlink_metadata(path) {
            // One that nobody listens on any more is taken away.
            Ok(found) if found.file_type().is_socket() => None,
            Ok(_) => Some(Self::NoSocket),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(Self::Other(error)),
        }
    }
}
