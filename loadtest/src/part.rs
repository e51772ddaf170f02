//! Several processes: each has a part of the workers, and so descriptors of its own.
//!
//! ```text
//!  Director ── Command ──► standard input  ┐ process ┌ Switchboard ──► Workers
//!      ▲                                   │ 0, 1, … │                   │
//!      └───── Note ◄── standard output ◄───┘         └──────◄────────────┘
//! ```
//!
//! One value in a line, as JSON. Workers have the same numbers as threads of one process would, and all times are of
//! the one monotonic clock of the machine, so the director need not know where a worker runs. A process of a part ends
//! when its standard input does: none outlives the first.

use std::{
    env,
    io::{self, BufRead, BufReader, BufWriter, Write},
    ops::Range,
    os::unix::process::CommandExt,
    process::{self, Child, ChildStdin, ChildStdout, Stdio},
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use rustix::process::Pid;
use tidegate_io::Kind;

use crate::{
    link::{Command, Failure, Note, What},
    plan::Plan,
    switchboard::Switchboard,
    worker::{choose_backend, start_worker},
};

/// Which part of a run a process has, in place of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    index: u32,
    /// From when seconds are counted.
    epoch_ns: u64,
    pub(crate) seed: u64,
}

impl Part {
    /// As [`Parts::start`] writes it.
    ///
    /// # Errors
    /// That it is not that.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut numbers = text.split(':').map(str::parse);
        let mut next = || numbers.next().and_then(Result::ok).ok_or("a part is INDEX:EPOCH:SEED");
        let (index, epoch_ns, seed) = (next()?, next()?, next()?);
        let index = u32::try_from(index).map_err(|_| "there is no such part")?;
        Ok(Self { index, epoch_ns, seed })
    }
}

/// Carries out one part: the workers, at the director's orders, until they have ended.
///
/// # Errors
/// Where they cannot be started, or the director does not listen.
pub(crate) fn run(plan: Plan, part: Part) -> Result<(), Failure> {
    let kind: Kind = choose_backend(&plan)?;
    let (sender, notes) = mpsc::channel();
    let switchboard = Arc::new(Switchboard::default());
    let workers = plan.workers_of(part.index);
    let plan = Arc::new(plan);
    for index in workers.clone() {
        start_worker(kind, index, &plan, &sender, &switchboard, part.epoch_ns)?;
    }
    drop(sender);
    thread::Builder::new()
        .name("orders".to_owned())
        .spawn(move || obey(&switchboard))
        .map_err(|error| Failure(format!("cannot start a thread: {error}")))?;
    tell(&notes, workers.len()).map_err(|error| Failure(format!("cannot tell the first process: {error}")))
}

/// Gives the workers their orders. Without a first process there is nobody to work for.
fn obey(switchboard: &Switchboard) {
    for line in io::stdin().lock().lines() {
        let order = line.ok().and_then(|line| serde_json::from_str::<(usize, Command)>(&line).ok());
        let Some((worker, command)) = order else { break };
        // It speaks to those alone that have told of themselves, and so can be reached.
        let _ = switchboard.send(worker, command);
    }
    process::exit(1);
}

/// Passes the workers' notes on until each has ended.
fn tell(notes: &Receiver<Note>, workers: usize) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut ended = 0;
    while ended < workers {
        let note = match notes.try_recv() {
            Ok(note) => note,
            Err(_) => {
                out.flush()?;
                match notes.recv() {
                    Ok(note) => note,
                    Err(_) => break,
                }
            }
        };
        ended += usize::from(matches!(note.what, What::Ended { .. } | What::Failed(_)));
        serde_json::to_writer(&mut out, &note)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// The processes of the parts, as the first process has them. They end with it.
#[derive(Debug, Default)]
pub(crate) struct Parts(Vec<Child>);

impl Parts {
    /// Starts them all.
    ///
    /// # Errors
    /// Where the system refuses.
    pub(crate) fn start(
        plan: &Plan,
        epoch_ns: u64,
        notes: &Sender<Note>,
        switchboard: &Switchboard,
    ) -> io::Result<Self> {
        let mut parts = Self::default();
        for index in 0..plan.processes {
            let mut arguments = env::args_os().skip(1);
            let mut command = process::Command::new(env::current_exe()?);
            // Behind the scenario's name, as what follows may hold `--`.
            command.args(arguments.next());
            command.arg(format!("--part={index}:{epoch_ns}:{}", plan.seed)).args(arguments);
            // Ctrl-C is the first process's to heed.
            command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn()?;
            let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
            parts.0.push(child);
            let (Some(stdin), Some(stdout)) = (stdin, stdout) else { continue };
            let (orders, written) = mpsc::channel();
            let workers = plan.workers_of(index);
            for worker in workers.clone() {
                switchboard.enter_process(worker, orders.clone());
            }
            drop(orders);
            let notes = notes.clone();
            thread::Builder::new().name(format!("to-{index}")).spawn(move || write(stdin, &written))?;
            thread::Builder::new()
                .name(format!("from-{index}"))
                .spawn(move || read(stdout, workers, &notes))?;
        }
        Ok(parts)
    }

    pub(crate) fn pids(&self) -> impl Iterator<Item = Pid> {
        self.0.iter().map(Pid::from_child)
    }

    /// How the process of a part that says nothing more has ended, in words.
    pub(crate) fn obituary(&mut self, plan: &Plan, worker: usize) -> String {
        let index = (0..plan.processes).find(|index| plan.workers_of(*index).contains(&worker)).unwrap_or(0);
        let Some(child) = self.0.get_mut(index as usize) else { return "a process has ended".into() };
        let pid = child.id();
        // Its output has ended, so that it has ended, or will at once.
        let how = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        format!("process {} of {} ({pid}) has died: {how}", index + 1, plan.processes)
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended is not there to be ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Writes orders to a process. Where it reads no more, its output tells.
fn write(stdin: ChildStdin, orders: &Receiver<(usize, Command)>) {
    let mut out = BufWriter::new(stdin);
    for order in orders {
        let written = serde_json::to_writer(&mut out, &order).map_err(io::Error::from);
        if written.and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

/// Passes a process's notes on, and tells of its end.
fn read(stdout: ChildStdout, workers: Range<usize>, notes: &Sender<Note>) {
    for line in BufReader::new(stdout).lines() {
        let note = line.ok().and_then(|line| serde_json::from_str::<Note>(&line).ok());
        let Some(note) = note.filter(|note| workers.contains(&note.worker)) else { break };
        // The director has ended: there is nobody to tell.
        let _ = notes.send(note);
    }
    for worker in workers {
        let _ = notes.send(Note { worker, what: What::Gone });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_read_as_it_was_written() {
        assert_eq!(
            Part::parse(&format!("3:77:{}", u64::MAX)),
            Ok(Part { index: 3, epoch_ns: 77, seed: u64::MAX })
        );
        for wrong in ["", "1", "1:2", "x:1:2", "-1:2:3"] {
            assert!(Part::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn orders_and_notes_go_over_a_pipe() {
        let begin =
            crate::link::Begin { start_ns: 1, measured_ns: u64::MAX, end_ns: 3, interval_ns: 1e9 / 3.0 };
        let orders = [
            Command::Connect { more: 7 },
            Command::Begin(begin),
            Command::Meet { audiences: vec![1, 2], begin },
            Command::Quit,
        ];
        for command in orders {
            let text = serde_json::to_string(&(4_usize, &command)).unwrap();
            assert_eq!(serde_json::from_str::<(usize, Command)>(&text).unwrap(), (4, command));
        }
        let mut tally = crate::tally::Tally::new();
        tally.fault(crate::fault::Fault::Corrupt);
        tally.counts.statuses.insert(503, 2);
        tally.latency.record(1_000_000);
        let parcel = Box::new(tally.take());
        let note = Note { worker: 3, what: What::Second { second: 5, open: 6, pending: 0, parcel } };
        let text = serde_json::to_string(&note).unwrap();
        assert!(!text.contains('\n'));
        let again: Note = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), text);
    }
}
