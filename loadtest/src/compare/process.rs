//! Processes that a comparison starts, pinned and in groups of their own, and their end.
//!
//! Nothing that was started outlives [`sweep`]: what a process leaves behind becomes a child of this one (it is a
//! "subreaper"), wherever it put itself. Where this one is killed, what it started is ended by the kernel ([`bound`]).

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io,
    os::unix::{
        fs::PermissionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    process::{
        Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, set_child_subreaper, waitpid,
    },
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

use super::{bound, signals::Interrupts};

/// How long a process may take to end by itself.
const GRACE: Duration = Duration::from_secs(3);
/// How long the kernel may take to end one.
const KILLED: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// A process and those that it starts.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: Pid,
    status: Option<ExitStatus>,
}

/// How one is started.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) words: &'a [String],
    pub(crate) environment: &'a BTreeMap<String, String>,
    pub(crate) folder: &'a Path,
    pub(crate) stdout: File,
    pub(crate) stderr: File,
    /// Processors that it may use; empty: those of this process at its start.
    pub(crate) pins: &'a [usize],
}

/// The processors that this process was started with.
#[derive(Debug)]
pub(crate) struct Affinity(CpuSet);

/// A process of this machine, as `/proc` tells.
#[derive(Clone, Copy, Debug)]
struct Seen {
    pid: i32,
    parent: i32,
    group: i32,
    is_dead: bool,
}

impl Affinity {
    /// # Errors
    /// Where the kernel does not tell.
    pub(crate) fn of_this_process() -> io::Result<Self> {
        Ok(Self(sched_getaffinity(None)?))
    }

    /// The processors named that this process may not use.
    pub(crate) fn lacks(&self, pins: &[usize]) -> Vec<usize> {
        pins.iter().copied().filter(|cpu| *cpu >= CpuSet::MAX_CPU || !self.0.is_set(*cpu)).collect()
    }

    /// Lets this thread, and what it starts from now on, use these alone; with none, all.
    pub(crate) fn apply(&self, pins: &[usize]) -> io::Result<()> {
        let mut set = CpuSet::new();
        for cpu in pins {
            set.set(*cpu);
        }
        Ok(sched_setaffinity(None, if pins.is_empty() { &self.0 } else { &set })?)
    }
}

impl Process {
    /// Starts one, in a group of its own, so that a terminal's Ctrl-C does not reach it.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub(crate) fn start(launch: Launch<'_>, affinity: &Affinity, own_pins: &[usize]) -> io::Result<Self> {
        let [program, arguments @ ..] = launch.words else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"));
        };
        let found = find_program(program).unwrap_or_else(|| program.into());
        let mut command = bound::command(&found);
        command.args(arguments).envs(launch.environment).current_dir(launch.folder);
        command.stdin(Stdio::null()).stdout(launch.stdout).stderr(launch.stderr).process_group(0);
        // Inherited by the child.
        affinity.apply(launch.pins)?;
        let child = command.spawn();
        affinity.apply(own_pins)?;
        let child = child?;
        Ok(Self { pid: Pid::from_child(&child), child, status: None })
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            // It can fail only where the child was not ours.
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// It, and all that live and descend from it or belong to its group.
    pub(crate) fn members(&self) -> Vec<Pid> {
        let own = self.pid.as_raw_pid();
        members(&all(), own).into_iter().filter_map(Pid::from_raw).collect()
    }

    /// Ends it and its members: asks them to, waits, kills.
    pub(crate) fn stop(&mut self, interrupts: &Interrupts) {
        self.ended();
        if self.members().is_empty() {
            return;
        }
        let began = Instant::now();
        let mut is_killed = false;
        // It may end meanwhile.
        let _ = kill_process_group(self.pid, Signal::TERM);
        loop {
            self.ended();
            let members = self.members();
            if members.is_empty() || began.elapsed() > GRACE + KILLED {
                return;
            }
            if !is_killed && (began.elapsed() > GRACE || interrupts.hurry()) {
                is_killed = true;
            }
            if is_killed {
                members.into_iter().for_each(kill);
            }
            thread::sleep(LOOK);
        }
    }
}

/// Where a program is: a path, or a name in `PATH` or in `/usr/sbin`, where Debian has nginx and haproxy and the `PATH` of
/// users does not look.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let runs = |path: &PathBuf| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if program.is_empty() || program.contains('/') {
        return Some(PathBuf::from(program)).filter(runs);
    }
    let paths = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&paths).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).find(runs)
}

/// Makes orphans of what is started the children of this process.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Kills whatever descends from this process. No [`Process`] may be in use any more.
pub(crate) fn sweep() {
    let own = getpid();
    let began = Instant::now();
    while began.elapsed() < KILLED {
        let seen = all();
        // Not its group: there may be what started this process.
        let left = seen.iter().filter(|one| !one.is_dead && descends(&seen, one.pid, own.as_raw_pid()));
        let left: Vec<Pid> = left.filter_map(|one| Pid::from_raw(one.pid)).collect();
        reap(&seen, own.as_raw_pid());
        if left.is_empty() {
            return;
        }
        left.into_iter().for_each(kill);
        thread::sleep(LOOK);
    }
}

fn kill(pid: Pid) {
    // It may have ended meanwhile.
    let _ = kill_process(pid, Signal::KILL);
}

/// Takes leave of dead children.
fn reap(seen: &[Seen], own: i32) {
    for dead in seen.iter().filter(|one| one.is_dead && one.parent == own) {
        if let Some(pid) = Pid::from_raw(dead.pid) {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// All processes.
fn all() -> Vec<Seen> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            // It may end in between.
            parse(pid, &fs::read_to_string(entry.path().join("stat")).ok()?)
        })
        .collect()
}

/// The line of `/proc/PID/stat`: the name, which may hold anything, ends at the last parenthesis.
fn parse(pid: i32, stat: &str) -> Option<Seen> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let is_dead = matches!(fields.next()?, "Z" | "X");
    Some(Seen { pid, parent: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()?, is_dead })
}

/// Those that live and descend from `root`, or belong to its group, with it.
fn members(seen: &[Seen], root: i32) -> Vec<i32> {
    let belongs = |one: &&Seen| one.group == root || one.pid == root || descends(seen, one.pid, root);
    seen.iter().filter(|one| !one.is_dead).filter(belongs).map(|one| one.pid).collect()
}

fn descends(seen: &[Seen], pid: i32, root: i32) -> bool {
    let parent = |pid: i32| seen.iter().find(|one| one.pid == pid).map(|one| one.parent);
    let mut at = pid;
    // No deeper than there are processes: the list is not of one moment.
    for _ in 0..seen.len() {
        match parent(at) {
            Some(parent) if parent == root => return true,
            Some(parent) if parent > 1 => at = parent,
            Some(_) | None => return false,
        }
    }
    false
}

/// How a process ended, for people.
pub(crate) fn show_status(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("with code {code}"),
        (None, Some(signal)) => format!("by signal {signal}"),
        (None, None) => "in an unknown way".to_owned(),
    }
}

/// A folder that goes with its value.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// An empty one, for this user alone.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub(crate) fn new() -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;

        let number = getrandom::u64().map_err(io::Error::other)?;
        let path = env::temp_dir().join(format!("tidegate-compare-{number:016x}"));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A process that was killed may have had a file there still.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_is_read_behind_any_name() {
        let seen = parse(7, "7 (a) b (c) S 5 6 6 0 -1").unwrap();
        assert_eq!((seen.pid, seen.parent, seen.group, seen.is_dead), (7, 5, 6, false));
        assert!(parse(7, "7 (x) Z 5 6").unwrap().is_dead);
        assert!(parse(7, "nonsense").is_none());
    }

    #[test]
    fn members_are_descendants_and_those_of_the_group() {
        let one = |pid, parent, group, is_dead| Seen { pid, parent, group, is_dead };
        let seen = [
            one(10, 2, 10, false),
            one(11, 10, 10, false),
            // A daemon of its own group, and one that has lost its parent.
            one(12, 11, 12, false),
            one(13, 1, 10, false),
            one(14, 10, 10, true),
            one(15, 2, 2, false),
            one(16, 17, 17, false),
            one(17, 16, 17, false),
        ];
        assert_eq!(members(&seen, 10), [10, 11, 12, 13]);
    }

    #[test]
    fn a_program_is_a_path_or_a_name_in_path() {
        assert!(find_program("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find_program("/bin/sh"), Some("/bin/sh".into()));
        for no_program in ["", "no-such-program", "/bin", "/etc/passwd", "../sh"] {
            assert_eq!(find_program(no_program), None, "{no_program}");
        }
    }

    #[test]
    fn a_folder_goes_with_its_value() {
        let folder = Folder::new().unwrap();
        let path = folder.path().to_path_buf();
        fs::write(path.join("x"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
