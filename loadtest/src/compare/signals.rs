//! Ctrl-C, TERM and HUP, looked at between the steps of a comparison.

use std::{cell::RefCell, io};

use signal_hook::iterator::Signals;

use crate::signals::{is_echo, watched};

/// Signals that have come.
pub(crate) struct Interrupts {
    signals: RefCell<Signals>,
    came: RefCell<Vec<i32>>,
}

impl Interrupts {
    /// # Errors
    /// Where the system refuses.
    pub(crate) fn watch() -> io::Result<Self> {
        let signals = Signals::new(watched())?;
        Ok(Self { signals: RefCell::new(signals), came: RefCell::default() })
    }

    /// The first that came.
    pub(crate) fn first(&self) -> Option<i32> {
        self.look();
        self.came.borrow().first().copied()
    }

    /// Whether there was a second one.
    pub(crate) fn hurry(&self) -> bool {
        self.look();
        self.came.borrow().len() > 1
    }

    fn look(&self) {
        let mut came = self.came.borrow_mut();
        for signal in self.signals.borrow_mut().pending() {
            if came.is_empty() || !is_echo(signal) {
                came.push(signal);
            }
        }
    }
}
