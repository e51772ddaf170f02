//! Messages in and out of permessage-deflate (RFC 7692 §7.2), on zlib-rs.
//!
//! An inflater takes 48 KiB and a deflater up to 274 KiB, so sessions own neither. [`Codecs`], one per shard, holds a
//! capped pool of both, made on first use and cleared between messages: an inflater is lent as an [`Inflation`] while
//! a compressed message is incomplete, a deflater for one call. Only where context takeover was agreed does a session
//! keep its own, paid from a budget of bytes.
//!
//! ```text
//!               begin                    feed*                   finish
//! Compression ─────────► Inflation ───────────────► Inflation ───────────► the message is whole
//!     ▲    Codecs lends      │ Err: abandon             │ abandon               │
//!     └──────────────────────┴──────────────────────────┴───────────────────────┘
//! ```
//!
//! What the rules of RFC 7692 come to here:
//!
//! - A message is bounded while it is inflated: `max_len` bytes come out and one more is tried, never more.
//! - A block with BFINAL set ends a deflate stream, not the message (§7.2.1, §7.2.3.4): what follows in the message, or
//!   with context takeover in the next one, is a new stream that cannot look back over that end. Every sender built on
//!   zlib works that way.
//! - A message without a single byte of deflate data (a peer's `c1 80`) is empty. It is not fed `00 00 ff ff`, which
//!   would leave the inflater within a stored block and ruin the next message.
//! - After `00 00 ff ff` the stream must stand exactly between two blocks: a message cut short is corrupt, not shorter.
//! - An inflater that met an error is destroyed, never cleared and lent again.
//! - zlib-rs always looks back 32 KiB: a peer that looks back further than the smaller window it agreed to is not
//!   found out. It gains nothing by it.
//!
//! **Secrets.** Deflating a secret together with text that an attacker chooses lets the lengths tell the secret (CRIME,
//! BREACH; RFC 7692 §8). Without context takeover that needs both in one message; with it, in one session. Routes that
//! carry both must leave compression off.

mod codecs;
mod compression;
mod deflater;
mod inflation;

pub use codecs::{CodecLimits, CodecStats, Codecs};
pub use compression::Compression;
pub(crate) use inflation::first_step;
pub use inflation::{InflateError, Inflation};

/// What a sender takes off the end of each message and a receiver appends (RFC 7692 §7.2.1, §7.2.2): the body of an
/// empty stored block whose header is the message's last bits.
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
