//! How text is shown on a terminal.

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Bold,
    Dim,
    Good,
    Warning,
    Bad,
}

impl Tone {
    /// The text so, where there are colours.
    pub(crate) fn paint(self, text: &str, has_colours: bool) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Bold => 1,
            Self::Dim => 2,
            Self::Good => 32,
            Self::Warning => 33,
            Self::Bad => 31,
        };
        if has_colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
