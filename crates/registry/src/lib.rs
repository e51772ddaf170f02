//! Sessions by key, their outboxes and their deadlines.
//!
//! No kernel, clock, thread or random source: time, bytes and seeds are arguments, and what a session carries is
//! the caller's.
//!
//! ```text
//! Key ──► Registry<T> ──► T ── Outbox ──► pieces to send
//!             ▲                  ▲
//!  index ─────┘                  └── Frame (shared, counted once in Retained)
//!    │
//!  Wheel ── expire ──► Batch { pings, others }
//! ```
//!
//! An idle session costs its slab entry and [`OVERHEAD_BYTES`]; its outbox owns nothing while it is empty.
//!
//! Deadlines are lazy: a message only changes a field of the session, and when the [`Wheel`] yields the session, the
//! caller looks at that field and answers [`Verdict::Later`]. So the wheel is touched once per interval, not once
//! per message.
//!
//! ```
//! use tidegate_registry::{Admission, Chunk, FullPolicy, Outbox, OutboxLimits, Registry, Retained, Total};
//!
//! struct Session {
//!     outbox: Outbox,
//! }
//!
//! let mut retained = Retained::new(&Total::default());
//! let mut sessions = Registry::with_capacity(10_000);
//! let key = sessions.insert(Session { outbox: Outbox::new() }).ok().unwrap();
//!
//! let limits = OutboxLimits::new(1 << 20, 1 << 19, 1 << 22);
//! let outbox = &mut sessions.get_mut(key).unwrap().outbox;
//! let whole = Chunk::Static(b"\x81\x02hi");
//! assert_eq!(outbox.push(whole, &limits, FullPolicy::Pause, &mut retained), Admission::Queued);
//! outbox.consume(3, &limits, &mut retained);
//! assert_eq!(outbox.pieces().collect::<Vec<_>>(), [b"i"]);
//!
//! sessions.remove(key).unwrap().outbox.clear(&mut retained);
//! assert!(sessions.get(key).is_none(), "a stale key is normal, not an error");
//! ```
#![forbid(unsafe_code)]

mod chunk;
mod key;
mod outbox;
mod retained;
mod slots;
mod timer;
mod wheel;

pub use chunk::{Chunk, Frame};
pub use key::Key;
pub use outbox::{
    Admission, CHUNK_COST, Control, End, FullPolicy, MAX_PIECES, Outbox, OutboxLimits, Streams,
};
pub use retained::{Charge, Retained, Total};
pub use slots::{Full, Registry};
pub use timer::{Batch, Timer, Verdict, jitter};
pub use wheel::{BATCH, TICK_MS, Wheel};

/// The most that a session costs beside the caller's `T`: the slab's tag (with padding; none where `T` has a niche),
/// its generation, and its links in the [`Wheel`].
pub const OVERHEAD_BYTES: usize = size_of::<usize>() + slots::GENERATION_BYTES + wheel::NODE_BYTES;
