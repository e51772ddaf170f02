//! Ctrl-C and TERM, looked at between the steps of a comparison.

use std::{cell::RefCell, io};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

/// Signals that have come.
pub(crate) struct Interrupts {
    signals: RefCell<Signals>,
    came: RefCell<Vec<i32>>,
}

impl Interrupts {
    /// # Errors
    /// Where the system refuses.
    pub(crate) fn watch() -> io::Result<Self> {
        let signals = Signals::new([SIGINT, SIGTERM])?;
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
        self.came.borrow_mut().extend(self.signals.borrow_mut().pending());
    }
}
