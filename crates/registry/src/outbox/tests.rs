//! The outbox against a list of byte strings that does everything the slow way.

use proptest::prelude::*;

use super::*;
use crate::Total;

const LIMITS: OutboxLimits = OutboxLimits::new(900, 300, 1800);

/// Different bytes wherever one looks, so that a lost, doubled or exchanged byte shows.
static SEA: [u8; 4096] = {
    let mut sea = [0; 4096];
    let mut state = 0x9e37_79b9_u32;
    let mut at = 0;
    while at < sea.len() {
        state = state.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
        sea[at] = (state >> 24) as u8;
        at += 1;
    }
    sea
};

/// A piece of [`SEA`] that differs from the others of the same test.
fn slice(serial: usize, len: usize) -> &'static [u8] {
    let start = serial * 101 % (SEA.len() - len);
    &SEA[start..start + len]
}

#[derive(Clone, Debug)]
enum Shape {
    Owned { start: usize, spare: usize },
    Shared,
    Static,
}

#[derive(Clone, Debug)]
enum Step {
    Push(Shape, usize, FullPolicy),
    Append(usize, End),
    Remainder(Vec<usize>, prop::sample::Index, End, FullPolicy),
    Rest(usize, prop::sample::Index),
    Control(Control, usize),
    Consume(prop::sample::Index),
    ConsumeSendable,
    DropUnsent(Streams),
    Clear,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let shape = prop_oneof![
        (0usize..20, 0usize..50).prop_map(|(start, spare)| Shape::Owned { start, spare }),
        Just(Shape::Shared),
        Just(Shape::Static),
    ];
    let policy = prop_oneof![
        1 => Just(FullPolicy::DropNew),
        4 => Just(FullPolicy::DropOld),
        1 => Just(FullPolicy::Disconnect),
        1 => Just(FullPolicy::Pause),
    ];
    let end = prop_oneof![Just(End::Inside), Just(End::Boundary)];
    let control = prop_oneof![Just(Control::Ping), Just(Control::Pong), Just(Control::Close)];
    // Short ones often, one above the hard limit now and then.
    let len = prop_oneof![0usize..3, 1usize..300, 1usize..300, 1000usize..2500];
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        10 => (shape, len.clone(), policy.clone()).prop_map(|(shape, len, policy)| Step::Push(shape, len, policy)),
        4 => (len, end.clone()).prop_map(|(len, end)| Step::Append(len, end)),
        2 => (prop::collection::vec(1usize..200, 1..4), index(), end, policy)
            .prop_map(|(lens, sent, end, policy)| Step::Remainder(lens, sent, end, policy)),
        3 => (1usize..300, index()).prop_map(|(len, sent)| Step::Rest(len, sent)),
        4 => (control, 2usize..131).prop_map(|(control, len)| Step::Control(control, len)),
        8 => index().prop_map(Step::Consume),
        4 => Just(Step::ConsumeSendable),
        1 => prop_oneof![Just(Streams::Kept), Just(Streams::Cut)].prop_map(Step::DropUnsent),
        1 => Just(Step::Clear),
    ];
    prop::collection::vec(step, 1..120)
}

/// One thing that was queued, as the model sees it.
#[derive(Clone, Debug)]
struct Item {
    bytes: Vec<u8>,
    sent: usize,
    kind: ItemKind,
    /// Whether streamed bytes may be copied behind it without a charge for another chunk.
    room: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum ItemKind {
    Message { droppable: bool },
    Stream(End),
    Control(Control),
}

impl Item {
    fn new(bytes: &[u8], kind: ItemKind) -> Self {
        let room = if matches!(kind, ItemKind::Stream(_)) { 16 * 1024 - bytes.len() } else { 0 };
        Self { bytes: bytes.to_vec(), sent: 0, kind, room }
    }

    fn left(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }
}

#[derive(Debug, Default)]
struct Model {
    items: Vec<Item>,
    paused: bool,
}

impl Model {
    fn buffered(&self) -> usize {
        self.items.iter().map(|item| item.left().len()).sum()
    }

    fn cost(&self) -> usize {
        self.items.iter().map(|item| item.left().len() + CHUNK_COST).sum()
    }

    fn at_boundary(&self) -> bool {
        self.items.last().is_none_or(|item| item.kind != ItemKind::Stream(End::Inside))
    }

    fn has_data(&self) -> bool {
        !self.items.iter().all(|item| matches!(item.kind, ItemKind::Control(_)))
    }

    fn admit(&mut self, len: usize, policy: FullPolicy) -> Admission {
        let over = |model: &Self, limit: usize| model.cost() + CHUNK_COST + len > limit;
        if !over(self, LIMITS.soft()) {
            return Admission::Queued;
        }
        if !over(self, LIMITS.hard()) || !self.has_data() {
            if policy == FullPolicy::Pause {
                self.paused = true;
                return Admission::QueuedPause;
            }
            return Admission::Queued;
        }
        match policy {
            FullPolicy::DropNew => Admission::Dropped,
            FullPolicy::Disconnect | FullPolicy::Pause => Admission::Disconnect,
            FullPolicy::DropOld => {
                let saved = self.items.clone();
                let mut dropped = 0;
                while over(self, LIMITS.hard()) {
                    let oldest = self.items.iter().position(|item| {
                        item.kind == ItemKind::Message { droppable: true } && item.sent == 0
                    });
                    let Some(oldest) = oldest else {
                        self.items = saved;
                        return Admission::Dropped;
                    };
                    self.items.remove(oldest);
                    dropped += 1;
                }
                Admission::DroppedOld(dropped)
            }
        }
    }

    fn push(&mut self, bytes: &[u8], policy: FullPolicy) -> Admission {
        if bytes.is_empty() {
            return Admission::Queued;
        }
        let admission = self.admit(bytes.len(), policy);
        if !matches!(admission, Admission::Dropped | Admission::Disconnect) {
            let droppable = policy == FullPolicy::DropOld;
            self.items.push(Item::new(bytes, ItemKind::Message { droppable }));
        }
        admission
    }

    fn append(&mut self, bytes: &[u8], end: End) -> Admission {
        if bytes.is_empty() {
            return Admission::Queued;
        }
        let admission = self.admit(bytes.len(), FullPolicy::Pause);
        if admission != Admission::Disconnect {
            match self.items.last_mut() {
                Some(last)
                    if last.room >= bytes.len()
                        && (last.kind == ItemKind::Stream(End::Inside) || end == End::Boundary) =>
                {
                    last.bytes.extend_from_slice(bytes);
                    last.room -= bytes.len();
                    last.kind = ItemKind::Stream(end);
                }
                _ => self.items.push(Item::new(bytes, ItemKind::Stream(end))),
            }
        }
        admission
    }

    fn remainder(&mut self, bytes: &[u8], end: End, policy: FullPolicy) -> bool {
        if bytes.is_empty() {
            return false;
        }
        self.items.insert(0, Item::new(bytes, ItemKind::Stream(end)));
        let pauses = policy == FullPolicy::Pause && self.cost() > LIMITS.soft();
        self.paused |= pauses;
        pauses
    }

    fn control(&mut self, control: Control, bytes: &[u8]) -> bool {
        if !self.at_boundary() {
            return false;
        }
        let older =
            self.items.iter_mut().find(|item| item.kind == ItemKind::Control(control) && item.sent == 0);
        match older {
            Some(_) if control == Control::Close => {}
            Some(older) => older.bytes = bytes.to_vec(),
            None => self.items.push(Item::new(bytes, ItemKind::Control(control))),
        }
        true
    }

    fn consume(&mut self, sent: usize) -> (Vec<u8>, bool) {
        let mut wire = Vec::new();
        for _ in 0..sent {
            let item = &mut self.items[0];
            wire.push(item.bytes[item.sent]);
            item.sent += 1;
            if item.left().is_empty() {
                self.items.remove(0);
            }
        }
        let resume = self.paused && self.cost() <= LIMITS.low();
        self.paused &= !resume;
        (wire, resume)
    }

    fn drop_unsent(&mut self, streams: Streams) -> bool {
        let mut keep = usize::from(self.items.first().is_some_and(|item| item.sent > 0));
        for (place, item) in self.items.iter().enumerate() {
            if matches!(item.kind, ItemKind::Stream(_)) && (streams == Streams::Kept || place == 0) {
                keep = place + 1;
            }
        }
        while keep > 0 && self.items[keep - 1].kind == ItemKind::Stream(End::Inside) {
            if keep == self.items.len() {
                return false;
            }
            keep += 1;
        }
        self.items.truncate(keep);
        self.paused = false;
        true
    }
}

/// What the outbox really holds on the heap, counted from nothing.
fn truth(outbox: &Outbox) -> usize {
    let Held::Many(queue) = &outbox.held else { return 0 };
    let owned = |piece: &Piece| match &piece.bytes {
        Bytes::Owned(bytes) => bytes.capacity(),
        Bytes::Shared(_) | Bytes::Static(_) | Bytes::Waiting(_) => 0,
    };
    let waiting = queue.waiting.iter().flatten().map(Vec::capacity);
    size_of::<Queue>()
        + queue.pieces.capacity() * size_of::<Piece>()
        + queue.pieces.iter().map(owned).sum::<usize>()
        + waiting.sum::<usize>()
}

fn chunk(shape: &Shape, bytes: &'static [u8], total: &Total) -> Chunk {
    match shape {
        Shape::Owned { start, spare } => {
            let mut owned = Vec::with_capacity(start + bytes.len() + spare);
            owned.resize(*start, 0xee);
            owned.extend_from_slice(bytes);
            Chunk::Owned { bytes: owned, start: *start }
        }
        Shape::Shared => Chunk::Shared(Frame::new(bytes.to_vec(), total)),
        Shape::Static => Chunk::Static(bytes),
    }
}

/// Applies a step to both, and compares what they say. Returns what was sent.
fn apply(
    step: &Step,
    serial: usize,
    outbox: &mut Outbox,
    model: &mut Model,
    retained: &mut Retained,
) -> Result<(), TestCaseError> {
    match step {
        // A whole message does not belong inside a frame: no caller does that.
        Step::Push(..) if !model.at_boundary() => {}
        Step::Push(shape, len, policy) => {
            let bytes = slice(serial, *len);
            let admission =
                outbox.push(chunk(shape, bytes, &retained.total().clone()), &LIMITS, *policy, retained);
            prop_assert_eq!(admission, model.push(bytes, *policy));
        }
        Step::Append(len, end) => {
            let bytes = slice(serial, *len);
            prop_assert_eq!(
                outbox.append_copy(bytes, *end, &LIMITS, FullPolicy::Pause, retained),
                model.append(bytes, *end)
            );
        }
        // What is left of a send comes back before anything else was sent, and a frame goes on in a stream only.
        Step::Remainder(..) if model.items.first().is_some_and(|item| item.sent > 0) => {}
        Step::Remainder(_, _, End::Inside, _)
            if !matches!(model.items.first(), None | Some(Item { kind: ItemKind::Stream(_), .. })) => {}
        Step::Remainder(lens, sent, end, policy) => {
            let pieces: Vec<&[u8]> =
                lens.iter().enumerate().map(|(n, len)| slice(serial + n, *len)).collect();
            let all = pieces.concat();
            let sent = sent.index(all.len() + 1);
            let pauses =
                outbox.push_remainder(pieces.iter().copied(), sent, *end, &LIMITS, *policy, retained);
            prop_assert_eq!(pauses, model.remainder(&all[sent..], *end, *policy));
        }
        // As a whole message.
        Step::Rest(..) if !model.at_boundary() => {}
        Step::Rest(len, sent) => {
            let bytes = slice(serial, *len);
            // Only what nothing waits before may have been begun.
            let sent = if model.items.is_empty() { sent.index(*len) } else { 0 };
            outbox.push_rest(Frame::new(bytes.to_vec(), retained.total()), sent, retained);
            let mut item = Item::new(bytes, ItemKind::Message { droppable: false });
            item.sent = sent;
            model.items.push(item);
        }
        Step::Control(control, len) => {
            let bytes = slice(serial, *len);
            prop_assert_eq!(outbox.push_control(*control, bytes, retained), model.control(*control, bytes));
        }
        Step::Consume(index) => {
            let sent = index.index(outbox.sendable() + 1);
            consume(sent, outbox, model, retained)?;
        }
        Step::ConsumeSendable => consume(outbox.sendable(), outbox, model, retained)?,
        Step::DropUnsent(streams) => {
            prop_assert_eq!(outbox.drop_unsent(*streams, retained), model.drop_unsent(*streams));
        }
        Step::Clear => {
            outbox.clear(retained);
            *model = Model::default();
        }
    }
    Ok(())
}

fn consume(
    sent: usize,
    outbox: &mut Outbox,
    model: &mut Model,
    retained: &mut Retained,
) -> Result<(), TestCaseError> {
    let wire: Vec<u8> = outbox.pieces().flatten().copied().take(sent).collect();
    let resume = outbox.consume(sent, &LIMITS, retained);
    prop_assert_eq!((wire, resume), model.consume(sent));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_the_list_does(steps in steps()) {
        let total = Total::default();
        let mut retained = Retained::new(&total);
        let (mut outbox, mut model) = (Outbox::new(), Model::default());
        for (serial, step) in steps.iter().enumerate() {
            apply(step, serial, &mut outbox, &mut model, &mut retained)?;

            let pieces: Vec<&[u8]> = outbox.pieces().collect();
            prop_assert!(pieces.len() <= MAX_PIECES && pieces.iter().all(|piece| !piece.is_empty()));
            let expected: Vec<&[u8]> = model.items.iter().map(Item::left).take(MAX_PIECES).collect();
            prop_assert_eq!(pieces, expected, "after {:?}", step);
            prop_assert_eq!(outbox.buffered(), model.buffered());
            prop_assert_eq!(outbox.is_empty(), model.items.is_empty());
            prop_assert_eq!(outbox.is_paused(), model.paused);
            prop_assert_eq!(outbox.at_boundary(), model.at_boundary());
            prop_assert_eq!(retained.bytes(), truth(&outbox));
            prop_assert!(!outbox.is_empty() || retained.bytes() == 0, "an empty outbox holds nothing");
        }
        // The total: what the outbox owns, and each shared frame once.
        retained.settle();
        let shared: usize = match &outbox.held {
            Held::Nothing => 0,
            Held::One { frame, .. } => frame.len(),
            Held::Many(queue) => queue.pieces.iter().map(|piece| match &piece.bytes {
                Bytes::Shared(frame) => frame.len(),
                Bytes::Owned(_) | Bytes::Static(_) | Bytes::Waiting(_) => 0,
            }).sum(),
        };
        prop_assert_eq!(total.bytes(), truth(&outbox) + shared);
        while !outbox.is_empty() {
            consume(outbox.sendable(), &mut outbox, &mut model, &mut retained)?;
        }
        prop_assert!(!outbox.is_paused(), "an empty outbox pauses nobody");
        retained.settle();
        prop_assert_eq!(total.bytes(), 0);
    }
}

fn fixture() -> (Outbox, Retained) {
    (Outbox::new(), Retained::new(&Total::default()))
}

#[test]
fn a_lone_shared_frame_takes_no_heap_of_the_session() {
    let (mut outbox, mut retained) = fixture();
    let total = retained.total().clone();
    let frame = Frame::new(vec![1; 100], &total);
    for _ in 0..3 {
        let _ = outbox.push(Chunk::Shared(frame.clone()), &LIMITS, FullPolicy::DropOld, &mut retained);
        assert_eq!(retained.bytes(), 0);
        assert!(!outbox.consume(40, &LIMITS, &mut retained));
        assert_eq!(outbox.pieces().map(<[u8]>::len).collect::<Vec<_>>(), [60]);
        assert!(!outbox.consume(60, &LIMITS, &mut retained));
        assert!(outbox.is_empty());
    }
}

#[test]
fn a_shared_frame_is_counted_once_and_until_its_last_reference_is_gone() {
    let total = Total::default();
    let mut retained = [Retained::new(&total), Retained::new(&total)];
    let mut outboxes: Vec<Outbox> = (0..10).map(|_| Outbox::new()).collect();
    let frame = Frame::new(vec![7; 500], &total);
    for (n, outbox) in outboxes.iter_mut().enumerate() {
        let _ = outbox.push(Chunk::Shared(frame.clone()), &LIMITS, FullPolicy::DropNew, &mut retained[n % 2]);
    }
    drop(frame);
    retained.iter_mut().for_each(Retained::settle);
    assert_eq!(total.bytes(), 500);
    for (n, outbox) in outboxes.iter_mut().enumerate() {
        assert_eq!(total.bytes(), 500, "before {n}");
        let _ = outbox.consume(500, &LIMITS, &mut retained[n % 2]);
    }
    assert_eq!(total.bytes(), 0);
}

#[test]
fn what_an_outbox_has_of_shared_frames_is_its_part_of_each() {
    let (mut outbox, mut retained) = fixture();
    let (mut other, _) = fixture();
    let total = retained.total().clone();
    let limits = OutboxLimits::new(100_000, 1_000, 100_000);
    let policy = FullPolicy::Disconnect;
    let part = Total::default();
    let alone = Frame::with_part(vec![1; 1_000], &total, &part);
    let _ = outbox.push(Chunk::Shared(alone), &limits, policy, &mut retained);
    assert_eq!(outbox.shared_bytes(), 1_000);
    let both = Frame::with_part(vec![2; 1_000], &total, &part);
    let _ = outbox.push(Chunk::Shared(both.clone()), &limits, policy, &mut retained);
    let _ = other.push(Chunk::Shared(both), &limits, policy, &mut retained);
    assert_eq!((outbox.shared_bytes(), other.shared_bytes()), (1_500, 500));
    // Its own bytes are none of that.
    let own = Chunk::Owned { bytes: vec![3; 5_000], start: 0 };
    let _ = outbox.push(own, &limits, policy, &mut retained);
    assert_eq!((outbox.shared_bytes(), outbox.buffered()), (1_500, 7_000));
    // Nor is what counts in the total alone.
    let answer = Frame::new(vec![4; 100], &total);
    let _ = outbox.push(Chunk::Shared(answer), &limits, policy, &mut retained);
    assert_eq!((outbox.shared_bytes(), outbox.buffered(), outbox.waiting_pieces()), (1_500, 7_100, 4));
    let _ = outbox.consume(600, &limits, &mut retained);
    assert_eq!(outbox.shared_bytes(), 900);
    outbox.clear(&mut retained);
    assert_eq!((outbox.shared_bytes(), other.shared_bytes()), (0, 1_000));
    other.clear(&mut retained);
}

#[test]
fn a_shard_that_ends_takes_its_bytes_out_of_the_total() {
    let total = Total::default();
    let mut retained = Retained::new(&total);
    let mut outbox = Outbox::new();
    let _ = outbox.append_copy(&[1; 100], End::Boundary, &LIMITS, FullPolicy::Pause, &mut retained);
    assert_eq!(total.bytes(), 0, "not before it is settled");
    retained.settle();
    assert_eq!(total.bytes(), retained.bytes());
    drop(retained);
    assert_eq!(total.bytes(), 0);
}

#[test]
fn a_producer_is_paused_above_soft_and_goes_on_once_at_low() {
    let (mut outbox, mut retained) = fixture();
    let mut append = |len, outbox: &mut Outbox| {
        outbox.append_copy(slice(1, len), End::Boundary, &LIMITS, FullPolicy::Pause, &mut retained)
    };
    assert_eq!(append(836, &mut outbox), Admission::Queued, "900 with its chunk's cost");
    assert_eq!(append(1, &mut outbox), Admission::QueuedPause);
    assert_eq!(append(800, &mut outbox), Admission::QueuedPause);
    assert_eq!(append(200, &mut outbox), Admission::Disconnect);
    assert_eq!(outbox.buffered(), 1637, "what was refused is not there");
    assert!(!outbox.consume(1637 - 237, &LIMITS, &mut retained), "one byte above low");
    assert!(outbox.consume(1, &LIMITS, &mut retained));
    assert!(!outbox.consume(1, &LIMITS, &mut retained), "once");
}

#[test]
fn tiny_messages_are_bounded_too() {
    let (mut outbox, mut retained) = fixture();
    let limits = OutboxLimits::new(1 << 20, 1 << 19, 4 << 20);
    let mut taken = 0_usize;
    while outbox.push(Chunk::Static(b"\x81\x00"), &limits, FullPolicy::DropNew, &mut retained)
        == Admission::Queued
    {
        taken += 1;
    }
    assert_eq!(taken, (4 << 20) / (2 + CHUNK_COST));
    assert!(retained.bytes() <= 2 * limits.hard(), "{} bytes held", retained.bytes());
}

#[test]
fn one_send_takes_so_many_pieces_and_no_more() {
    let (mut outbox, mut retained) = fixture();
    let limits = OutboxLimits::new(1 << 20, 1 << 19, 4 << 20);
    for _ in 0..MAX_PIECES + 3 {
        let _ = outbox.push(Chunk::Static(b"\x81\x02ab"), &limits, FullPolicy::Pause, &mut retained);
    }
    assert_eq!((outbox.pieces().count(), outbox.sendable()), (MAX_PIECES, 4 * MAX_PIECES));
    let _ = outbox.consume(outbox.sendable(), &limits, &mut retained);
    assert_eq!((outbox.pieces().count(), outbox.buffered()), (3, 12));
}

#[test]
fn a_bursts_storage_does_not_stay() {
    let (mut outbox, mut retained) = fixture();
    let limits = OutboxLimits::new(1 << 20, 1 << 19, 4 << 20);
    for _ in 0..5000 {
        let _ = outbox.push(Chunk::Static(b"\x81\x00"), &limits, FullPolicy::DropNew, &mut retained);
    }
    let full = retained.bytes();
    while outbox.buffered() > 2 {
        let sendable = outbox.sendable().min(outbox.buffered() - 2);
        let _ = outbox.consume(sendable, &limits, &mut retained);
    }
    assert!(retained.bytes() < full / 50, "{} of {full} bytes held for one message", retained.bytes());
}

#[test]
fn rfc6455_5_5_3_only_the_newest_pong_waits() {
    let (mut outbox, mut retained) = fixture();
    let _ = outbox.append_copy(b"stream", End::Boundary, &LIMITS, FullPolicy::Pause, &mut retained);
    for n in 0..100_u8 {
        assert!(outbox.push_control(Control::Pong, &[0x8a, 1, n], &mut retained));
    }
    assert_eq!(outbox.pieces().collect::<Vec<_>>(), [&b"stream"[..], &[0x8a, 1, 99]]);
    // One of which a byte was sent is on its way; the next one follows it.
    assert!(!outbox.consume(7, &LIMITS, &mut retained));
    assert!(outbox.push_control(Control::Pong, &[0x8a, 1, 100], &mut retained));
    assert_eq!(outbox.pieces().collect::<Vec<_>>(), [&[1, 99][..], &[0x8a, 1, 100]]);
}

#[test]
fn control_frames_are_taken_above_the_hard_limit() {
    let (mut outbox, mut retained) = fixture();
    let whole = Chunk::Owned { bytes: vec![0; 5000], start: 0 };
    assert_eq!(outbox.push(whole, &LIMITS, FullPolicy::Disconnect, &mut retained), Admission::Queued);
    for control in [Control::Ping, Control::Pong, Control::Close] {
        assert!(outbox.push_control(control, &[control as u8; 131], &mut retained));
    }
    assert_eq!(outbox.buffered(), 5000 + 3 * 131);
}

#[test]
fn sealed_bytes_are_asked_about_before_and_never_refused_or_dropped_after() {
    let (mut outbox, mut retained) = fixture();
    assert!(!outbox.is_full_for(5000, &LIMITS), "the first message may have any size");
    let sealed = outbox.append_always(&[1; 1600], End::Boundary, &LIMITS, FullPolicy::DropNew, &mut retained);
    assert_eq!(sealed, Admission::Queued, "who drops is not paused");
    assert!(!outbox.is_full_for(1800 - 1600 - 2 * CHUNK_COST, &LIMITS));
    assert!(outbox.is_full_for(1800 - 1600 - 2 * CHUNK_COST + 1, &LIMITS));
    let sealed = outbox.append_always(&[2; 200], End::Boundary, &LIMITS, FullPolicy::Pause, &mut retained);
    assert_eq!(sealed, Admission::QueuedPause);
    let message = Chunk::Owned { bytes: vec![3; 500], start: 0 };
    assert_eq!(outbox.push(message, &LIMITS, FullPolicy::DropOld, &mut retained), Admission::Dropped);
    assert_eq!(outbox.buffered(), 1800);
}

#[test]
fn a_streams_producer_is_not_paused_where_a_slow_consumer_is_disconnected() {
    let (mut outbox, mut retained) = fixture();
    let mut append = |len| {
        outbox.append_copy(&vec![1; len], End::Boundary, &LIMITS, FullPolicy::Disconnect, &mut retained)
    };
    assert_eq!(append(LIMITS.hard - 200), Admission::Queued);
    assert_eq!(append(201), Admission::Disconnect);
}

#[test]
fn nothing_is_put_inside_a_frame() {
    let (mut outbox, mut retained) = fixture();
    let _ = outbox.append_copy(b"\x81\x05he", End::Inside, &LIMITS, FullPolicy::Pause, &mut retained);
    assert!(!outbox.push_control(Control::Close, b"\x88\x00", &mut retained));
    assert!(!outbox.drop_unsent(Streams::Cut, &mut retained), "the frame does not end in here");
    let _ = outbox.append_copy(b"llo", End::Boundary, &LIMITS, FullPolicy::Pause, &mut retained);
    assert!(outbox.push_control(Control::Close, b"\x88\x00", &mut retained));
    assert_eq!(outbox.pieces().collect::<Vec<_>>().concat(), b"\x81\x05hello\x88\x00");
}

#[test]
fn a_slow_consumers_queue_is_dropped_behind_what_was_begun() {
    let (mut outbox, mut retained) = fixture();
    for message in [&b"\x81\x03one"[..], b"\x81\x03two", b"\x81\x05three"] {
        let owned = Chunk::Owned { bytes: message.to_vec(), start: 0 };
        let _ = outbox.push(owned, &LIMITS, FullPolicy::DropNew, &mut retained);
    }
    assert!(!outbox.consume(6, &LIMITS, &mut retained));
    assert!(outbox.drop_unsent(Streams::Kept, &mut retained));
    assert!(outbox.push_control(Control::Close, b"\x88\x02\x03\xf5", &mut retained));
    assert_eq!(outbox.pieces().collect::<Vec<_>>().concat(), b"\x03two\x88\x02\x03\xf5"[..].to_vec());
}

#[test]
fn the_answer_to_a_handshake_is_not_dropped_with_what_follows_it() {
    let (mut outbox, mut retained) = fixture();
    let _ = outbox.push_remainder(
        [&[1; 800][..]].into_iter(),
        0,
        End::Boundary,
        &LIMITS,
        FullPolicy::Pause,
        &mut retained,
    );
    let message = |byte| Chunk::Owned { bytes: vec![byte; 20], start: 0 };
    let _ = outbox.push(message(2), &LIMITS, FullPolicy::Disconnect, &mut retained);
    let _ = outbox.append_copy(b"HTTP/1.1 101", End::Boundary, &LIMITS, FullPolicy::Pause, &mut retained);
    let _ = outbox.push(message(3), &LIMITS, FullPolicy::Disconnect, &mut retained);
    assert!(outbox.drop_unsent(Streams::Kept, &mut retained));
    assert_eq!(outbox.pieces().map(<[u8]>::len).collect::<Vec<_>>(), [800, 20, 12]);
    assert!(outbox.drop_unsent(Streams::Cut, &mut retained));
    assert_eq!(outbox.pieces().map(<[u8]>::len).collect::<Vec<_>>(), [800]);
}

#[test]
fn what_the_kernel_left_goes_before_what_was_queued_meanwhile() {
    let (mut outbox, mut retained) = fixture();
    assert!(outbox.push_control(Control::Ping, b"\x89\x00", &mut retained));
    let pieces = [&b"\x81\x03"[..], b"one", b"\x81\x03two"];
    let _ = outbox.push_remainder(
        pieces.into_iter(),
        3,
        End::Boundary,
        &LIMITS,
        FullPolicy::Pause,
        &mut retained,
    );
    assert_eq!(outbox.pieces().collect::<Vec<_>>().concat(), b"ne\x81\x03two\x89\x00");
    assert_eq!(outbox.sendable(), outbox.buffered());
}

#[test]
fn streamed_bytes_are_copied_together_but_not_without_end() {
    let (mut outbox, mut retained) = fixture();
    let limits = OutboxLimits::new(1 << 20, 1 << 19, 4 << 20);
    for _ in 0..3000 {
        let _ = outbox.append_copy(slice(0, 32), End::Boundary, &limits, FullPolicy::Pause, &mut retained);
    }
    assert_eq!(outbox.pieces().map(<[u8]>::len).max(), Some(16 * 1024));
    assert_eq!(outbox.pieces().count(), (3000_usize * 32).div_ceil(16 * 1024));
}

#[test]
#[should_panic(expected = "more was sent than there was")]
fn more_than_there_is_cannot_be_consumed() {
    let (mut outbox, mut retained) = fixture();
    let _ = outbox.append_copy(b"abc", End::Boundary, &LIMITS, FullPolicy::Pause, &mut retained);
    let _ = outbox.consume(4, &LIMITS, &mut retained);
}
