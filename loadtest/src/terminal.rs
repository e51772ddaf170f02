//! What a terminal can do, and how large it is.

use std::{
    env,
    ffi::OsStr,
    io::{IsTerminal, stderr, stdout},
};

use rustix::termios::tcgetwinsize;

/// Columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

/// Whether standard error is a terminal on which the cursor can be moved.
pub(crate) fn can_redraw() -> bool {
    stderr().is_terminal() && !is_dumb(env::var_os("TERM").as_deref())
}

/// Whether what goes to standard error is to have colours.
pub(crate) fn error_has_colours() -> bool {
    stderr().is_terminal()
        && wants_colours(env::var_os("NO_COLOR").as_deref(), env::var_os("TERM").as_deref())
}

/// Whether what goes to standard output is to have colours.
pub(crate) fn output_has_colours() -> bool {
    stdout().is_terminal()
        && wants_colours(env::var_os("NO_COLOR").as_deref(), env::var_os("TERM").as_deref())
}

fn is_dumb(term: Option<&OsStr>) -> bool {
    term.is_none_or(|term| term.is_empty() || term == "dumb")
}

fn wants_colours(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    // no-color.org: set to anything but nothing.
    no_color.is_none_or(OsStr::is_empty) && !is_dumb(term)
}

impl Size {
    /// Of the terminal on standard error, as it is now.
    pub(crate) fn now() -> Self {
        let size = tcgetwinsize(stderr());
        let (columns, rows) = size.map_or((0, 0), |size| (size.ws_col, size.ws_row));
        Self::of(columns, rows)
    }

    /// A terminal that does not know its size says 0.
    fn of(columns: u16, rows: u16) -> Self {
        let or = |known: u16, usual| if known == 0 { usual } else { usize::from(known) };
        Self { columns: or(columns, 80), rows: or(rows, 24) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_have_them_and_people_who_want_them() {
        let wants = |no_color: Option<&str>, term: Option<&str>| {
            wants_colours(no_color.map(OsStr::new), term.map(OsStr::new))
        };
        assert!(wants(None, Some("xterm-256color")) && wants(Some(""), Some("xterm")));
        assert!(!wants(Some("1"), Some("xterm")) && !wants(Some("0"), Some("xterm")));
        assert!(!wants(None, Some("dumb")) && !wants(None, None));
    }

    #[test]
    fn a_terminal_without_a_size_has_the_usual_one() {
        assert_eq!(Size::of(0, 0), Size { columns: 80, rows: 24 });
        assert_eq!(Size::of(40, 7), Size { columns: 40, rows: 7 });
    }
}
