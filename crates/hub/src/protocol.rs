//! The protocol of topics, as `docs/PROTOCOL.md` describes it: what clients send is read, what they get is written.
//!
//! No I/O, no clock, no state: [`Scratch`] is memory alone. Reading gives values that borrow from the buffer that was
//! received, in which nothing is changed; JSON is read by serde_json, and by simd-json where it is long. Writing appends
//! to a `Vec<u8>`. What a topic is called is not judged here: topics come out as texts.
//!
//! | | read | written |
//! |---|---|---|
//! | WebSocket | [`parse`] | [`write`](mod@write) |
//! | server-sent events | [`EventsQuery`] | [`events`] |
//! | long-polling | [`PollQuery`] | [`push_poll`] |
//! | publishing over HTTP | [`publications`], [`publication`] | [`Results`], [`push_error`] |
//! | a topic's state | [`topic_of_path`], [`StateQuery`] | [`push_state`] |
//!
//! ```
//! use tidegate_hub::{
//!     Format,
//!     protocol::{Command, Id, Scratch, parse, write},
//! };
//!
//! let sent = br#"{"op":"publish","id":3,"topic":"chat/lobby","data":{"text": "Hello"}}"#;
//! for request in parse(sent, &mut Scratch::new()) {
//!     assert_eq!(request.id, Some(Id::Number(3)));
//!     let Ok(Command::Publish(publish)) = request.command else { panic!() };
//!     assert_eq!((&*publish.topic, publish.payload.format), ("chat/lobby", Format::Json));
//!
//!     let mut out = Vec::new();
//!     write::message(&mut out, &publish.topic, 42, publish.payload.content());
//!     assert_eq!(out, br#"{"op":"message","topic":"chat/lobby","offset":42,"data":{"text": "Hello"}}"#);
//! }
//! ```
//!
//! # Where parsers differ
//! - A field that the protocol knows and that stands twice in an object is an error: some parsers take the first, some
//!   the last. In what is only passed on (`data`, `info`) nobody looks.
//! - Numbers that are passed on may be of any size and precision. Those with a meaning here are whole, from 0 to
//!   [`MAX_WHOLE`], and written as digits: not `1.0`, not `1e3`.
//! - Half of a surrogate pair (`"\ud800"`) is not JSON here, wherever it stands: parsers that give UTF-8 (simd-json, and
//!   serde_json for what it decodes) refuse it, so it would break subscribers. NUL is a character like any other, if it is escaped.
//! - `null` is as if the field were not there, but for `data`, which it then is.

mod answer;
mod body;
mod code;
mod command;
mod content;
pub mod events;
mod id;
mod json;
mod object;
mod position;
mod query;
mod structure;
mod text;
pub mod write;

pub use self::answer::{Results, State, push_error, push_poll, push_poll_message, push_state};
pub use self::body::{PublishFields, publication, publications};
pub use self::code::{Code, Problem};
pub use self::command::{Command, Commands, Payload, Publish, Request, Subscribe, parse, places};
pub use self::content::Content;
pub use self::id::{Id, KeptId};
pub use self::position::{Position, Positions, Recover, push_positions};
pub use self::query::{EventsQuery, PollQuery, StateQuery, topic_of_path};
pub use self::structure::Scratch;
pub use self::write::{Acceptance, Gap, Present, Standing};
pub use crate::publication::{Format, GapReason};

/// The subprotocol of the WebSocket protocol.
pub const SUBPROTOCOL: &str = "tidegate.v1";
/// What `hello` says.
pub const VERSION: u32 = 1;

/// From this length on simd-json reads a message, below it serde_json.
pub const VECTORS_FROM_BYTES: usize = 4096;
/// Up to this length, and no further: simd-json can take 60 bytes of memory for one of a message.
pub const VECTORS_TO_BYTES: usize = 256 << 10;
/// Most commands in one message.
pub const MAX_COMMANDS: usize = 64;
/// Most publications in one HTTP body.
pub const MAX_PUBLICATIONS: usize = 1000;
/// Most containers open at once in a message, its own included.
pub const MAX_NESTING: u32 = 64;
/// The greatest number: 2^53 - 1, as JavaScript has no exact ones beyond.
pub const MAX_WHOLE: u64 = (1 << 53) - 1;
/// Longest `id` that is a string, between its quotes.
pub const MAX_ID_BYTES: usize = 64;
/// Longest `info`.
pub const MAX_INFO_BYTES: usize = 1024;
/// Longest `key`.
pub const MAX_KEY_BYTES: usize = 256;
/// Longest `once`.
pub const MAX_ONCE_BYTES: usize = 128;
/// Most messages that can be asked for at once.
pub const MAX_HISTORY: u32 = 1000;
/// Most clients that can be asked for by name.
pub const MAX_CLIENTS: u32 = crate::PRESENCE_LISTED as u32;
/// Most topics of an event stream or a poll.
pub const MAX_TOPICS: usize = 16;
/// Longest time in which a poll is not answered.
pub const MAX_WAIT_SECONDS: u32 = 25;
