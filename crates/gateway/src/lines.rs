//! A thread that writes lines, so that who leaves one with it never waits for the reader.
//!
//! Up to a bound of lines wait; those beyond it are left out and counted, and so is what cannot be written.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tracing::warn;

/// How long the end waits for what has not been written.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where lines go.
pub(crate) trait Sink: Write + Send + 'static {
    /// Lines were lost before what was just written: to be said by a line of its own. It is called by the thread that writes.
    fn lost(&mut self, lines: u64) {
        warn!(lines, "lines of the log are lost: they could not be written, or nobody took them");
    }

    /// Looks after itself; how soon it wants to again, though nothing is to be written.
    fn look(&mut self) -> Option<Duration> {
        None
    }
}

impl Sink for io::Stderr {}

/// The way to the thread; each text written to it is written whole or left out.
#[derive(Clone)]
pub(crate) struct Lines(Arc<Queue>);

/// The thread's end: dropped, it waits until all is written, or for a second.
pub(crate) struct Writer(Arc<Queue>);

struct Queue {
    state: Mutex<State>,
    /// A line came, or the end.
    bell: Condvar,
    /// The thread is through.
    done: Condvar,
    most: usize,
    /// Lines that were left out, or could not be written.
    lost: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    ending: bool,
    done: bool,
}

impl Lines {
    /// Starts a thread that writes to `out`; at most `most` lines wait for it. What is lost is counted in `lost`.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(crate) fn start(out: impl Sink, most: usize, lost: Arc<AtomicU64>) -> io::Result<(Self, Writer)> {
        let (state, bell, done) = Default::default();
        let queue = Arc::new(Queue { state, bell, done, most, lost });
        let own = Arc::clone(&queue);
        thread::Builder::new().name("logs".to_owned()).spawn(move || own.write(out))?;
        Ok((Self(Arc::clone(&queue)), Writer(queue)))
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.lines.len() < self.0.most {
            state.lines.push_back(line.to_vec());
            self.0.bell.notify_one();
        } else {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut out: impl Sink) {
        let mut told = 0;
        let mut state = self.lock();
        loop {
            if let Some(line) = state.lines.pop_front() {
                drop(state);
                // Where nobody can read it, there is nobody to tell.
                let written = out.write_all(&line).and_then(|()| out.flush());
                if written.is_err() {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
                state = self.lock();
                // Not while the queue is full of what would be lost for it.
                let lost = self.lost.load(Ordering::Relaxed);
                if written.is_ok()
                    && lost > told
                    && state.lines.len() < self.most.div_ceil(2)
                    && !state.ending
                {
                    drop(state);
                    out.lost(lost - told);
                    told = lost;
                    state = self.lock();
                }
            } else if state.ending {
                state.done = true;
                self.done.notify_all();
                return;
            } else {
                drop(state);
                let look = out.look();
                state = self.lock();
                // What came meanwhile has rung already.
                if state.lines.is_empty() && !state.ending {
                    state = match look {
                        None => self.bell.wait(state).unwrap_or_else(PoisonError::into_inner),
                        Some(soon) => {
                            self.bell.wait_timeout(state, soon).unwrap_or_else(PoisonError::into_inner).0
                        }
                    };
                }
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ending = true;
        self.0.bell.notify_one();
        // A thread that hangs in a write is left behind.
        drop(self.0.done.wait_timeout_while(state, PATIENCE, |state| !state.done));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::AtomicBool,
        mpsc::{Receiver, Sender, channel},
    };

    use super::*;

    /// Passes on what is written, once it is let.
    struct Gate {
        open: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Sink for Gate {}

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.open.recv();
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_beyond_the_bound_are_left_out_and_the_end_waits_for_the_rest() {
        let (key, open) = channel();
        let (written, writings) = channel();
        let (mut lines, writer) = Lines::start(Gate { open, written }, 2, Arc::default()).unwrap();
        lines.write_all(b"0").unwrap();
        key.send(()).unwrap();
        // From here on the thread holds none or one line, and two may wait.
        assert_eq!(writings.recv().unwrap(), b"0");
        for line in 1..=9_u8 {
            lines.write_all(&[line]).unwrap();
        }
        drop(key);
        drop(writer);
        let rest: Vec<u8> = writings.try_iter().flatten().collect();
        assert!(rest.starts_with(&[1, 2]) && (2..=3).contains(&rest.len()), "{rest:?}");
        lines.write_all(b"behind the end").unwrap();
    }

    /// A disk that is full until it is not; what is lost on it is told beside what is written.
    struct Disk {
        full: Arc<AtomicBool>,
        written: Sender<String>,
    }

    impl Sink for Disk {
        fn lost(&mut self, lines: u64) {
            let _ = self.written.send(format!("{lines} lost"));
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.full.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let _ = self.written.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_was_lost_is_told_once_it_is_possible_again() {
        let (full, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (written, writings) = channel();
        let disk = Disk { full: Arc::clone(&full), written };
        let (mut lines, writer) = Lines::start(disk, 8, Arc::clone(&lost)).unwrap();
        let mut write = |text: &str| lines.write_all(text.as_bytes()).unwrap();
        let next = || writings.recv().unwrap();
        let until_lost = |count: u64| {
            while lost.load(Ordering::Relaxed) < count {
                thread::sleep(Duration::from_millis(1));
            }
        };
        for (round, before) in [(1, 0), (2, 3)] {
            write("before");
            assert_eq!(next(), "before", "{round}");
            full.store(true, Ordering::SeqCst);
            for line in 1..=3 {
                write("lost");
                until_lost(before + line);
            }
            full.store(false, Ordering::SeqCst);
            write("behind");
            assert_eq!((next(), next()), ("behind".to_owned(), "3 lost".to_owned()), "{round}");
        }
        drop(writer);
        assert_eq!(writings.try_iter().count(), 0, "it is told once");
    }

    #[test]
    fn what_cannot_be_written_stops_nothing() {
        let (key, open) = channel();
        let (written, writings) = channel();
        let lost = Arc::default();
        let (mut lines, writer) = Lines::start(Gate { open, written }, 8, Arc::clone(&lost)).unwrap();
        drop((key, writings));
        for _ in 0..100 {
            lines.write_all(b"gone").unwrap();
        }
        drop(writer);
        assert_eq!(lost.load(Ordering::Relaxed), 100, "each of them is counted once");
    }
}
