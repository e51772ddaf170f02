//! What a client does, drawn by seed, and what it may hope for in return.

use super::{
    codec::{BINARY, TEXT},
    facts::Terms,
    net::{MILLIS, SECONDS},
    random::Random,
};

/// Longer than all that a session may be silent for where there are pings.
pub(crate) const SILENCE: u64 = 70 * SECONDS;

/// One act of a client whose session is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Pause(u64),
    /// A message in so many frames.
    Message {
        opcode: u8,
        len: usize,
        frames: usize,
        ping_between: bool,
    },
    Ping(usize),
    /// RFC 6455 §5.5.3: a pong that nobody asked for.
    Pong,
    /// Waits until all its messages have come back.
    AwaitEchoes,
    Close(Option<u16>),
    /// Waits for the gateway's Close.
    AwaitClose,
    Violate(Violation),
    /// A FIN without a Close; reads on.
    HalfClose,
    /// Gone: FIN without Close, or a reset, and nobody reads any more.
    Vanish {
        reset: bool,
    },
    /// Half a message, and then nothing but pongs.
    Stall,
    /// Reads and writes nothing any more.
    Freeze,
    /// Reads nothing any more, but sends on as long as it can.
    StopReading,
    /// Answers no pings any more.
    Mute,
}

/// A rule that the client breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    Unmasked,
    ReservedBit,
    ReservedOpcode,
    LoneContinuation,
    LongPing,
    FragmentedPing,
    CloseCode,
    CloseByte,
    BadText,
    TooBig,
    LongLength,
    MessageInMessage,
    TooManyPings,
    /// Compressed data that are none; without compression a reserved bit.
    BadDeflate,
    /// A message that is too big only when inflated; without compression too big as it stands.
    Bomb,
}

impl Violation {
    pub(crate) const ALL: [Violation; 15] = [
        Violation::Unmasked,
        Violation::ReservedBit,
        Violation::ReservedOpcode,
        Violation::LoneContinuation,
        Violation::LongPing,
        Violation::FragmentedPing,
        Violation::CloseCode,
        Violation::CloseByte,
        Violation::BadText,
        Violation::TooBig,
        Violation::LongLength,
        Violation::MessageInMessage,
        Violation::TooManyPings,
        Violation::BadDeflate,
        Violation::Bomb,
    ];

    /// RFC 6455 §7.4.1.
    pub(crate) fn code(self, compressed: bool) -> u16 {
        match self {
            Violation::BadText => 1007,
            Violation::BadDeflate if compressed => 1007,
            Violation::TooBig | Violation::Bomb => 1009,
            Violation::TooManyPings => 1008,
            _ => 1002,
        }
    }
}

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asking {
    Right,
    /// A page, not a session.
    Page,
    /// A page, and a session on the same connection.
    PageFirst,
    Wrong(Mistake),
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    NoKey,
    ShortKey,
    OldVersion,
    NoUpgrade,
    NoConnection,
    NoHost,
    UnknownPath,
    Post,
    Rubbish,
    LongHead,
    /// It never ends.
    Endless,
    /// It ends by a FIN.
    CutOff,
}

impl Mistake {
    pub(crate) const ALL: [Mistake; 12] = [
        Mistake::NoKey,
        Mistake::ShortKey,
        Mistake::OldVersion,
        Mistake::NoUpgrade,
        Mistake::NoConnection,
        Mistake::NoHost,
        Mistake::UnknownPath,
        Mistake::Post,
        Mistake::Rubbish,
        Mistake::LongHead,
        Mistake::Endless,
        Mistake::CutOff,
    ];

    /// The statuses that answer it; none where the connection may just end.
    pub(crate) fn statuses(self) -> &'static [u16] {
        match self {
            Mistake::NoKey
            | Mistake::ShortKey
            | Mistake::NoConnection
            | Mistake::NoHost
            | Mistake::Rubbish => &[400],
            Mistake::OldVersion => &[426, 400],
            Mistake::NoUpgrade => &[426],
            Mistake::UnknownPath => &[404],
            Mistake::Post => &[405, 400],
            Mistake::LongHead => &[431, 414],
            Mistake::Endless => &[408],
            Mistake::CutOff => &[],
        }
    }
}

/// What a client will do.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) asking: Asking,
    pub(crate) acts: Vec<Act>,
    /// So many acts are sent behind the head, without waiting for its answer.
    pub(crate) early: usize,
}

impl Script {
    /// Asks one small thing after the other.
    pub(crate) fn modest(random: &mut Random, often: bool) -> Script {
        let mut acts = Vec::new();
        let pauses = if often { &[0, MILLIS / 10][..] } else { &[0, MILLIS, 10 * MILLIS, SECONDS] };
        for _ in 0..random.range(1..=40) {
            let (opcode, len) = (*random.pick(&[TEXT, BINARY]), random.size(0..=60));
            acts.push(Act::Message { opcode, len, frames: 1, ping_between: false });
            acts.push(Act::AwaitEchoes);
            acts.push(Act::Pause(*random.pick(pauses)));
        }
        acts.append(&mut vec![Act::Close(draw_code(random)), Act::AwaitClose]);
        Script { asking: Asking::Right, acts, early: 0 }
    }

    /// Sends a great many small messages without waiting for their answers: in two frames, so that a turn owns each.
    pub(crate) fn greedy(random: &mut Random) -> Script {
        let mut acts = Vec::new();
        for _ in 0..random.range(100..=800) {
            let (opcode, len) = (*random.pick(&[TEXT, BINARY]), random.size(1..=20));
            acts.push(Act::Message { opcode, len, frames: 2, ping_between: false });
        }
        acts.append(&mut vec![Act::AwaitEchoes, Act::Close(draw_code(random)), Act::AwaitClose]);
        Script { asking: Asking::Right, acts, early: 0 }
    }

    pub(crate) fn draw(random: &mut Random, terms: &Terms, proxied: bool) -> Script {
        let asking = match random.below(20) {
            0 => Asking::Page,
            1 => Asking::PageFirst,
            2 | 3 => Asking::Wrong(*random.pick(&Mistake::ALL)),
            _ => Asking::Right,
        };
        let mut acts = Vec::new();
        let most = *random.pick(&[3, 10, 30, 120]);
        let big = *random.pick(&[125, 300, 2_100, 5_000, terms.message_bytes]);
        let mut budget = 400_000usize;
        for _ in 0..random.below(most) {
            let act = draw_act(random, big.min(budget));
            if let Act::Message { len, .. } = act {
                budget -= len.min(budget);
            }
            acts.push(act);
        }
        let early = if random.below(4) == 0 { random.size(0..=acts.len()) } else { 0 };
        acts.append(&mut draw_end(random, proxied));
        if terms.ping_interval == 0 {
            be_silent(&mut acts, terms);
        }
        Script { asking, acts, early }
    }
}

/// Without pings a silence is no fault: whoever is about to fall silent has all its answers first, so that nothing but
/// the idle time-out may end its session, and where there is none, it ends it itself.
fn be_silent(acts: &mut Vec<Act>, terms: &Terms) {
    let Some(at) = acts.iter().position(|act| matches!(act, Act::Freeze | Act::Mute)) else { return };
    if terms.bear_silence() && acts[at] == Act::Mute {
        acts.splice(at.., [Act::Pause(SILENCE), Act::Close(Some(1000)), Act::AwaitClose]);
    }
    acts.insert(at, Act::AwaitEchoes);
}

fn draw_act(random: &mut Random, most: usize) -> Act {
    match random.below(24) {
        0..=2 => Act::Pause(*random.pick(&[MILLIS, 50 * MILLIS, SECONDS, 40 * SECONDS])),
        3 => Act::Ping(random.size(0..=125)),
        4 => Act::Pong,
        5 => Act::AwaitEchoes,
        _ => {
            let len = match random.below(6) {
                0 => *random.pick(&[0, 1, 125, 126, 2_047, 2_048, 2_049, 65_535, 65_536]),
                1 | 2 => random.size(0..=most),
                _ => random.size(0..=most.min(300)),
            };
            Act::Message {
                opcode: *random.pick(&[TEXT, BINARY]),
                len: len.min(most),
                frames: *random.pick(&[1, 1, 1, 2, 3, 9]),
                ping_between: random.below(8) == 0,
            }
        }
    }
}

fn draw_end(random: &mut Random, proxied: bool) -> Vec<Act> {
    let polite = if proxied { 8 } else { 7 };
    match random.below(18) {
        0 => vec![Act::Vanish { reset: random.below(2) == 0 }],
        1 => vec![Act::HalfClose],
        2 => vec![Act::Stall],
        3 => vec![Act::Freeze],
        4 => vec![Act::StopReading],
        5 => vec![Act::Mute, Act::AwaitClose],
        6 => vec![Act::Violate(*random.pick(&Violation::ALL))],
        7 => vec![Act::AwaitEchoes, Act::Violate(*random.pick(&Violation::ALL))],
        8 if !proxied => vec![Act::Close(draw_code(random)), Act::AwaitClose],
        end if end > polite => vec![Act::AwaitEchoes, Act::Close(draw_code(random)), Act::AwaitClose],
        _ => vec![Act::Close(draw_code(random)), Act::AwaitClose],
    }
}

fn draw_code(random: &mut Random) -> Option<u16> {
    *random.pick(&[None, Some(1000), Some(1001), Some(1003), Some(3000), Some(4999)])
}
