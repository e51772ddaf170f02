//! Why a token is not believed.

use std::fmt;

/// Why a token is not believed: one variant per cause, for logs. Who has sent it learns only that it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Invalid {
    /// It is longer than [`crate::MAX_TOKEN_BYTES`].
    TooLong,
    /// It is not three texts in base64url between two dots (RFC 7515 §7.1).
    Form,
    /// Its header is not an object with `alg`, or has something twice.
    Header,
    /// Its header wants what is not known here (`crit`, RFC 7515 §4.1.11).
    Critical,
    /// It is a token for something else (`typ`, RFC 8725 §3.11).
    Type,
    /// Its algorithm is not believed here.
    Algorithm,
    /// No keys have come yet: whether it is valid nobody knows.
    NoKeys,
    /// No key fits what it names.
    Key,
    /// It names no key, and several fit.
    AnyKey,
    /// Its signature is not its key's.
    Signature,
    /// Its claims are not an object, or one stands twice, there or in an object below.
    Claims,
    /// A time in it is no number of seconds.
    Time,
    /// It does not say when it expires.
    NoExpiry,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYet,
    /// It is by another issuer, or does not say by whom.
    Issuer,
    /// It is for another audience, or does not say for whom, or is for one where none is configured.
    Audience,
    /// What names the user is neither a short text nor a number.
    User,
    /// A number that names the user, or is to be in a field, cannot be told exactly.
    Number,
    /// What is to be in a field cannot be.
    Field,
    /// What it allows is not a list of patterns of topics.
    Permissions,
}

impl Invalid {
    /// One line for logs; nothing of the token is in it.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "the token is longer than 8 KiB",
            Self::Form => "it is not a token: three parts in base64url",
            Self::Header => "the token's header is not what it should be",
            Self::Critical => "the token's header has `crit`",
            Self::Type => "the token is for something else (`typ`)",
            Self::Algorithm => "the token's algorithm is not in the list",
            Self::NoKeys => "no keys have been fetched yet",
            Self::Key => "no key is the one that the token names, for its algorithm",
            Self::AnyKey => "the token names no key, and several fit",
            Self::Signature => "the token's signature is wrong",
            Self::Claims => "the token's claims are not an object, or one stands twice",
            Self::Time => "a time in the token is no number of seconds",
            Self::NoExpiry => "the token does not expire (`exp`)",
            Self::Expired => "the token has expired",
            Self::NotYet => "the token is not valid yet (`nbf`)",
            Self::Issuer => "the token is not by a known issuer (`iss`)",
            Self::Audience => "the token is not for this audience (`aud`)",
            Self::User => "the claim that names the user is no short text",
            Self::Number => {
                "a number in the token is too large, or has a fraction, and cannot be told exactly"
            }
            Self::Field => "a claim cannot stand in a field",
            Self::Permissions => "a claim of permissions is not a list of patterns",
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Invalid {}
