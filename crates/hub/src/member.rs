//! Who subscribes.

use std::fmt;

use tidegate_registry::Key;

use crate::publication::{Class, Publication};

/// A session, or an HTTP stream, that subscribes. Valid from [`Hub::enter`](crate::Hub::enter) to
/// [`Hub::leave`](crate::Hub::leave): then it may become another one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemberId(pub(crate) u32);

/// A subscription of this shard. Valid from [`Hub::poll_batch`](crate::Hub::poll_batch) to
/// [`Hub::finish_batch`](crate::Hub::finish_batch).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubscriptionId(pub(crate) u32);

/// The name of a connection, as others see it: eight letters and digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientId([u8; 8]);

impl ClientId {
    /// A name made of random bits (it uses 48 of them).
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        // 62 letters and digits and two for the rest of 64: the names carry 47.6 bits.
        const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyzAz";
        Self(std::array::from_fn(|place| DIGITS[(bits >> (place * 6)) as usize & 63]))
    }

    /// Whether a text looks like the name of a connection: no client may give itself such a one.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only letters and digits are in it.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much a member may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberRules {
    /// Subscriptions, to topics and patterns together.
    pub subscriptions: u32,
    /// Of these, to patterns.
    pub patterns: u32,
}

impl Default for MemberRules {
    fn default() -> Self {
        Self { subscriptions: 128, patterns: 16 }
    }
}

/// One entry of a batch's audience.
#[derive(Clone, Copy, Debug)]
pub struct Subscriber {
    /// The session.
    pub key: Key,
    /// For [`Hub::fell_behind`](crate::Hub::fell_behind).
    pub subscription: SubscriptionId,
    /// What its frames are like.
    pub class: Class,
    pub(crate) flags: u8,
    /// Leave out so many of the batch: it had them with its answer.
    pub skip: u16,
}

const _: () = assert!(size_of::<Subscriber>() == 16, "the fan-out's inner loop walks over these");

impl Subscriber {
    pub(crate) const WATCHES: u8 = 1;
    pub(crate) const LAGS: u8 = 2;
    /// By a pattern: the entry is only of this batch.
    pub(crate) const PATTERN: u8 = 4;

    /// Leave it out: it catches up later.
    #[must_use]
    pub const fn lags(&self) -> bool {
        self.flags & Self::LAGS != 0
    }

    /// Joins and leaves are for it, too.
    #[must_use]
    pub const fn watches(&self) -> bool {
        self.flags & Self::WATCHES != 0
    }

    /// Whether this item of the batch is for it. Lagging and `skip` are looked at before.
    #[must_use]
    pub fn takes(&self, publication: &Publication) -> bool {
        self.watches() || !publication.is_presence()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_named_by_letters_and_digits() {
        for bits in [0, u64::MAX, 0x0123_4567_89ab_cdef] {
            let client = ClientId::from_bits(bits);
            assert_eq!(client.as_str().len(), 8);
            assert!(ClientId::is_one(client.as_str()));
        }
        assert_ne!(ClientId::from_bits(1), ClientId::from_bits(2));
    }
}
