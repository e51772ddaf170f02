//! What is published, and the frames that it becomes.
//!
//! Invariant: a publication never changes once its home has given it a position. Its bytes, its fixed cost and each of its
//! frames count in the process's totals once, from their making until the last reference is gone.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tidegate_registry::{Charge, Frame, Key, Total};

use crate::topic::{Position, TopicName};

/// How a publication is wrapped for its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Envelope {
    /// A message of the topics' protocol in a WebSocket frame.
    Protocol = 0,
    /// The bare content in a WebSocket frame.
    Raw = 1,
    /// A server-sent event.
    Events = 2,
    /// A piece of a long-polling answer.
    Poll = 3,
}

/// Subscribers of one class get the same bytes: an envelope, and deflated with a window of so many bits or not at all.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Class(u8);

/// Envelopes.
const ENVELOPES: usize = 4;
/// The smallest window; RFC 7692's 8 is not offered by the codec.
const LEAST_WINDOW_BITS: u8 = 9;
/// Windows of 9 to 15 bits.
const WINDOWS: usize = 7;

impl Class {
    /// Not deflated.
    #[must_use]
    pub const fn plain(envelope: Envelope) -> Self {
        Self(envelope as u8)
    }

    /// Deflated without context, with a window of so many bits.
    ///
    /// # Panics
    /// Unless `window_bits` is 9 to 15.
    #[must_use]
    pub const fn deflated(envelope: Envelope, window_bits: u8) -> Self {
        assert!(window_bits >= LEAST_WINDOW_BITS && window_bits <= 15, "9 to 15 bits");
        Self(envelope as u8 | (window_bits - LEAST_WINDOW_BITS + 1) << 2)
    }

    /// How it is wrapped.
    #[must_use]
    pub const fn envelope(self) -> Envelope {
        match self.0 & 3 {
            0 => Envelope::Protocol,
            1 => Envelope::Raw,
            2 => Envelope::Events,
            _ => Envelope::Poll,
        }
    }

    /// The window to deflate with, if any.
    #[must_use]
    pub const fn window_bits(self) -> Option<u8> {
        match self.0 >> 2 {
            0 => None,
            more => Some(more - 1 + LEAST_WINDOW_BITS),
        }
    }
}

impl fmt::Debug for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Class({:?}, {:?})", self.envelope(), self.window_bits())
    }
}

/// What kind of bytes a message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// A JSON value, handed on byte by byte: raw subscribers get it as a text message, all others as `data`.
    Json,
    /// UTF-8: a text message, or `text`.
    Text,
    /// Any bytes: a binary message, or `base64`.
    Binary,
}

/// What somebody wants to publish.
#[derive(Clone, Debug)]
pub struct Publish {
    /// What kind of bytes.
    pub format: Format,
    /// The bytes. A capacity of more than twice the length is given back.
    pub payload: Vec<u8>,
    /// Where the topic conflates: what this takes the place of.
    pub key: Option<Box<str>>,
    /// The idempotency key.
    pub once: Option<Box<str>>,
    /// Whose it is.
    pub publisher: Publisher,
}

/// Who publishes: what is known of it, for its idempotency keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Publisher {
    /// Nobody in particular.
    #[default]
    Anybody,
    /// A session of the hub's shard. Its keys are in the name space of all, as it may come back as another one; what they take
    /// is counted apart.
    Session(Key),
    /// Who holds this key of the configuration: its idempotency keys are known to be its own, wherever it comes from.
    Holder(u64),
}

impl Publish {
    /// Bytes without keys.
    #[must_use]
    pub fn new(format: Format, payload: Vec<u8>) -> Self {
        Self { format, payload, key: None, once: None, publisher: Publisher::Anybody }
    }
}

/// Why offsets are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The session is too slow for what its topic allows.
    Slow,
    /// The gateway is too busy.
    Busy,
}

impl GapReason {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Busy => "busy",
        }
    }
}

/// What can come to a subscriber.
#[derive(Debug)]
pub enum Kind {
    /// A message.
    Message {
        /// What kind of bytes.
        format: Format,
        /// The bytes.
        payload: Vec<u8>,
        /// The conflation key.
        key: Option<Box<str>>,
    },
    /// Somebody came. For subscribers that watch presence; has no offset of its own.
    Join {
        /// Who.
        client: Box<str>,
        /// What they say of themselves: JSON.
        info: Option<Box<str>>,
    },
    /// Somebody went. As [`Kind::Join`].
    Leave {
        /// Who.
        client: Box<str>,
    },
    /// Joins and leaves will not come: who is there is to be asked anew. As [`Kind::Join`].
    PresenceGap,
    /// Offsets up to the publication's own will not come.
    Gap {
        /// The first of them.
        from: u64,
        /// Why.
        reason: GapReason,
    },
}

/// What publications of one hub count in.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// All that the process retains.
    total: Total,
    /// What topics hold of it: bounded by the setting `memory`.
    topics: Total,
    /// What idempotency keys hold of that.
    keys: Total,
}

impl Ledger {
    pub(crate) fn new(total: &Total, topics: &Total, keys: &Total) -> Arc<Self> {
        Arc::new(Self { total: total.clone(), topics: topics.clone(), keys: keys.clone() })
    }

    /// Encoded bytes that many are sent.
    pub(crate) fn frame(&self, bytes: Vec<u8>) -> Frame {
        Frame::with_part(bytes, &self.total, &self.topics)
    }

    /// Encoded bytes that somebody has asked for.
    pub(crate) fn answer(&self, bytes: Vec<u8>) -> Frame {
        Frame::new(bytes, &self.total)
    }

    /// So many bytes more are held beside publications.
    pub(crate) fn hold(&self, bytes: usize) {
        self.total.add(bytes);
        self.topics.add(bytes);
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.total.subtract(bytes);
        self.topics.subtract(bytes);
    }

    /// The same for idempotency keys.
    pub(crate) fn hold_keys(&self, bytes: usize) {
        self.hold(bytes);
        self.keys.add(bytes);
    }

    pub(crate) fn release_keys(&self, bytes: usize) {
        self.release(bytes);
        self.keys.subtract(bytes);
    }
}

/// One message of a topic, or one event in it. Shared by histories, shards and batches.
pub struct Publication {
    topic: TopicName,
    position: Position,
    at_ms: u64,
    kind: Kind,
    plain: [OnceLock<Option<Frame>>; ENVELOPES],
    deflated: OnceLock<Box<[OnceLock<Option<Frame>>; ENVELOPES * WINDOWS]>>,
    /// What the table of deflated frames adds to the topics' memory, where there is one; frames count for themselves.
    frame_bytes: AtomicUsize,
    ledger: Arc<Ledger>,
    _retained: Charge,
    _held: Charge,
}

/// What a publication takes beside its bytes: itself, the counts of its `Arc`, its place in a history, and the allocator's
/// share for it and its payload.
pub const PUBLICATION_COST: usize = size_of::<Publication>() + 64;

impl Publication {
    pub(crate) fn new(topic: TopicName, mut kind: Kind, ledger: &Arc<Ledger>) -> Arc<Self> {
        if let Kind::Message { payload, .. } = &mut kind
            && payload.capacity() > 2 * payload.len()
        {
            payload.shrink_to_fit();
        }
        let bytes = PUBLICATION_COST + kind_bytes(&kind);
        Arc::new(Self {
            topic,
            position: Position::NOWHERE,
            at_ms: 0,
            kind,
            plain: [const { OnceLock::new() }; ENVELOPES],
            deflated: OnceLock::new(),
            frame_bytes: AtomicUsize::new(0),
            _retained: Charge::new(&ledger.total, bytes),
            _held: Charge::new(&ledger.topics, bytes),
            ledger: Arc::clone(ledger),
        })
    }

    /// Its home gives it its place. Nobody else may have it yet.
    ///
    /// # Panics
    /// If somebody has.
    pub(crate) fn place(this: &mut Arc<Self>, topic: &TopicName, position: Position, at_ms: u64) {
        let own = Arc::get_mut(this).expect("a publication without a position is nobody else's");
        // All publications of a topic share its name's bytes.
        own.topic = topic.clone();
        own.position = position;
        own.at_ms = at_ms;
    }

    /// Offsets that will not come.
    pub(crate) fn gap(
        topic: &TopicName,
        from: u64,
        to: Position,
        reason: GapReason,
        ledger: &Arc<Ledger>,
    ) -> Arc<Self> {
        let mut gap = Self::new(topic.clone(), Kind::Gap { from, reason }, ledger);
        Self::place(&mut gap, topic, to, 0);
        gap
    }

    /// Joins and leaves that will not come.
    pub(crate) fn presence_gap(topic: &TopicName, ledger: &Arc<Ledger>) -> Arc<Self> {
        Self::new(topic.clone(), Kind::PresenceGap, ledger)
    }

    /// Makes a gap longer that nobody else has yet; whether it is one.
    pub(crate) fn extend_gap(this: &mut Arc<Self>, to: Position) -> bool {
        let own = Arc::get_mut(this);
        let Some(own) = own.filter(|own| matches!(own.kind, Kind::Gap { .. })) else { return false };
        let follows = own.position.epoch == to.epoch;
        if follows {
            own.position = to;
        }
        follows
    }

    /// Where it was published.
    #[must_use]
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// Its place in its topic. Of a join or a leave: behind which it happened; of a gap: its last offset.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// [`Publication::position`]'s offset.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.position.offset
    }

    /// When its home took it.
    #[must_use]
    pub fn at_ms(&self) -> u64 {
        self.at_ms
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Whether it is a join or a leave, or says that some are missing.
    #[must_use]
    pub fn is_presence(&self) -> bool {
        matches!(self.kind, Kind::Join { .. } | Kind::Leave { .. } | Kind::PresenceGap)
    }

    /// Whether it has an offset of its own.
    #[must_use]
    pub fn is_message(&self) -> bool {
        matches!(self.kind, Kind::Message { .. })
    }

    /// The conflation key: a message without one has the topic's, which is empty.
    pub(crate) fn key(&self) -> &str {
        match &self.kind {
            Kind::Message { key: Some(key), .. } => key,
            Kind::Message { key: None, .. }
            | Kind::Join { .. }
            | Kind::Leave { .. }
            | Kind::PresenceGap
            | Kind::Gap { .. } => "",
        }
    }

    /// The first offset that it stands for.
    pub fn first_offset(&self) -> u64 {
        match self.kind {
            Kind::Gap { from, .. } => from,
            Kind::Message { .. } | Kind::Join { .. } | Kind::Leave { .. } | Kind::PresenceGap => {
                self.offset()
            }
        }
    }

    /// The bytes of its payload and its texts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        kind_bytes(&self.kind)
    }

    /// What subscribers of this class get. `encode` makes it, once for all of them on all shards; where it gives nothing, this
    /// class gets nothing (a join on a raw topic).
    ///
    /// Where two shards come at the same time, one waits for the other.
    pub fn frame(&self, class: Class, encode: impl FnOnce(&Self) -> Option<Vec<u8>>) -> Option<&Frame> {
        let envelope = class.envelope() as usize;
        let place = match class.window_bits() {
            None => &self.plain[envelope],
            Some(bits) => {
                let window = usize::from(bits - LEAST_WINDOW_BITS);
                let deflated = self.deflated.get_or_init(|| {
                    self.hold(size_of::<[OnceLock<Option<Frame>>; ENVELOPES * WINDOWS]>());
                    Box::new([const { OnceLock::new() }; ENVELOPES * WINDOWS])
                });
                &deflated[window * ENVELOPES + envelope]
            }
        };
        place.get_or_init(|| Some(self.ledger.frame(encode(self)?))).as_ref()
    }

    fn hold(&self, bytes: usize) {
        self.frame_bytes.fetch_add(bytes, Relaxed);
        self.ledger.topics.add(bytes);
    }
}

fn kind_bytes(kind: &Kind) -> usize {
    let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
    match kind {
        Kind::Message { payload, key, .. } => payload.capacity() + text(key),
        Kind::Join { client, info } => client.len() + text(info),
        Kind::Leave { client } => client.len(),
        Kind::PresenceGap | Kind::Gap { .. } => 0,
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        self.ledger.topics.subtract(*self.frame_bytes.get_mut());
    }
}

impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publication")
            .field("topic", &self.topic)
            .field("position", &self.position)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_an_envelope_and_a_window() {
        for envelope in [Envelope::Protocol, Envelope::Raw, Envelope::Events, Envelope::Poll] {
            assert_eq!(Class::plain(envelope).envelope(), envelope);
            assert_eq!(Class::plain(envelope).window_bits(), None);
            for bits in 9..=15 {
                let class = Class::deflated(envelope, bits);
                assert_eq!((class.envelope(), class.window_bits()), (envelope, Some(bits)));
            }
        }
    }

    #[test]
    fn bytes_and_frames_count_once_and_until_the_last_reference_is_gone() {
        let (total, topics) = (Total::default(), Total::default());
        let ledger = Ledger::new(&total, &topics, &Total::default());
        let mut payload = Vec::with_capacity(4096);
        payload.extend_from_slice(b"0123456789");
        let kind = Kind::Message { format: Format::Text, payload, key: None };
        let publication = Publication::new(TopicName::parse("a").unwrap(), kind, &ledger);
        let bare = PUBLICATION_COST + publication.bytes();
        assert!(publication.bytes() < 64, "a large buffer of a small message is given back");
        assert_eq!((total.bytes(), topics.bytes()), (bare, bare));

        let mut made = 0;
        for _ in 0..3 {
            let class = Class::plain(Envelope::Raw);
            let frame = publication.frame(class, |own| {
                made += 1;
                Some(format!("{}!", own.topic()).into_bytes())
            });
            assert_eq!(frame.map(|frame| frame.to_vec()), Some(b"a!".to_vec()));
        }
        assert_eq!(made, 1);
        assert!(publication.frame(Class::plain(Envelope::Events), |_| None).is_none());
        let deflated = publication.frame(Class::deflated(Envelope::Raw, 15), |_| Some(vec![1; 100])).cloned();
        assert!(total.bytes() >= bare + 102 && topics.bytes() >= bare + 102);
        drop(publication);
        assert_eq!((total.bytes(), topics.bytes()), (100, 100), "an outbox still has the frame");
        drop(deflated);
        assert_eq!((total.bytes(), topics.bytes()), (0, 0));
    }
}
