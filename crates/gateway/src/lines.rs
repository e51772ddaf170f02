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

/// How long the end waits for what has not been written.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where lines go.
pub(crate) trait Sink: Write + Send + 'static {
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
        let mut state = self.lock();
        loop {
            if let Some(line) = state.lines.pop_front() {
                drop(state);
                // Where nobody can read it, there is nobody to tell.
                if out.write_all(&line).and_then(|()| out.flush()).is_err() {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
                state = self.lock();
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
    use std::sync::mpsc::{Receiver, Sender, channel};

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
