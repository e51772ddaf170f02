//! What is wrong, in words that programs compare and in words that people read.

/// The codes of errors. Their names are part of the protocol and stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Not JSON, nested too deep, or neither an object nor an array of objects.
    InvalidJson,
    /// A field is missing, stands twice, or has a wrong type or value.
    InvalidRequest,
    /// No such `op`.
    UnknownOp,
    /// Not a name, or a pattern where a name is wanted.
    InvalidTopic,
    /// The route, the key or the token does not allow it.
    NotAllowed,
    /// The token is not valid.
    InvalidToken,
    /// Subscriptions, commands of an array, topics.
    TooMany,
    /// Data, `info`, a key.
    TooLarge,
    /// This session is subscribed to this topic already.
    AlreadySubscribed,
    /// It is not.
    NotSubscribed,
    /// The topic keeps no history.
    NoHistory,
    /// The topic keeps no presence.
    NoPresence,
    /// Not now: try again.
    Busy,
    /// Over HTTP: nobody here knows whether it was done.
    Unknown,
    /// A binary message where JSON is spoken.
    Binary,
    /// Over HTTP: a body of a type that is not read here.
    UnsupportedType,
}

impl Code {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 16] = [
        Self::InvalidJson,
        Self::InvalidRequest,
        Self::UnknownOp,
        Self::InvalidTopic,
        Self::NotAllowed,
        Self::InvalidToken,
        Self::TooMany,
        Self::TooLarge,
        Self::AlreadySubscribed,
        Self::NotSubscribed,
        Self::NoHistory,
        Self::NoPresence,
        Self::Busy,
        Self::Unknown,
        Self::Binary,
        Self::UnsupportedType,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidRequest => "invalid_request",
            Self::UnknownOp => "unknown_op",
            Self::InvalidTopic => "invalid_topic",
            Self::NotAllowed => "not_allowed",
            Self::InvalidToken => "invalid_token",
            Self::TooMany => "too_many",
            Self::TooLarge => "too_large",
            Self::AlreadySubscribed => "already_subscribed",
            Self::NotSubscribed => "not_subscribed",
            Self::NoHistory => "no_history",
            Self::NoPresence => "no_presence",
            Self::Busy => "busy",
            Self::Unknown => "unknown",
            Self::Binary => "binary",
            Self::UnsupportedType => "unsupported_type",
        }
    }

    /// The status of an HTTP answer that says nothing but this. 429 and 503 ask for `Retry-After`.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidJson | Self::InvalidRequest | Self::UnknownOp | Self::InvalidTopic => 400,
            Self::InvalidToken => 401,
            Self::NotAllowed => 403,
            Self::NoHistory | Self::NoPresence => 404,
            Self::AlreadySubscribed | Self::NotSubscribed => 409,
            Self::TooLarge => 413,
            Self::UnsupportedType | Self::Binary => 415,
            Self::TooMany => 429,
            Self::Busy => 503,
            Self::Unknown => 504,
        }
    }
}

/// An error that this module finds by itself. Its text is constant: nothing that a peer sent is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What programs compare.
    pub code: Code,
    /// What people read.
    pub message: &'static str,
}

impl Problem {
    pub(super) const fn new(code: Code, message: &'static str) -> Self {
        Self { code, message }
    }

    pub(super) const fn request(message: &'static str) -> Self {
        Self::new(Code::InvalidRequest, message)
    }
}
