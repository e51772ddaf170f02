//! What joins an answer to its command.

/// A command's `id`. It is given back byte by byte as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Id<'b> {
    /// A whole number: it has only one form.
    Number(u64),
    /// What stands between the quotes of a string, escapes and all: at most [`MAX_ID_BYTES`](super::MAX_ID_BYTES).
    Text(&'b str),
}

/// An [`Id`] that outlives the buffer that it came in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeptId {
    /// As [`Id::Number`].
    Number(u64),
    /// As [`Id::Text`].
    Text(Box<str>),
}

impl Id<'_> {
    /// A copy that can wait for its answer.
    #[must_use]
    pub fn keep(self) -> KeptId {
        match self {
            Self::Number(number) => KeptId::Number(number),
            Self::Text(text) => KeptId::Text(text.into()),
        }
    }
}

impl KeptId {
    /// The id.
    #[must_use]
    pub fn id(&self) -> Id<'_> {
        match self {
            Self::Number(number) => Id::Number(*number),
            Self::Text(text) => Id::Text(text),
        }
    }
}
