//! Deliberate bugs, to prove that the simulator finds them.
//!
//! A hook stands where the bug would be: `if planted::is(Bug::LoseRemainder) { … }`. Without the feature
//! `planted-bugs` it is `false` at compile time, and nothing of it is left in the program.

/// A bug that can be switched on for the shards of the calling thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Where a session is over: the slot is freed and its socket closed though an operation is still armed.
    FreeSlotEarly,
    /// Where bytes of a receive buffer are queued as a send of this turn: the buffer is recycled before the turn,
    /// and what was to be sent from it is replaced by the bytes of the next one (or left out).
    ReturnBufferEarly,
    /// Where an event's token is looked up: only its index counts, whatever its generation.
    SkipGenerationCheck,
    /// Where a remainder is taken up: what the kernel did not take is dropped.
    LoseRemainder,
    /// Where a remainder is taken up: one byte too few counts as sent (it is sent twice).
    RepeatRemainder,
    /// Where a receive is armed again after its end: it is armed twice.
    RearmTwice,
    /// Where a receive ended for want of a buffer: the session is not put on the list of those to be armed again.
    IgnoreStarved,
    /// Where an outbox falls below its low mark: the paused reader on the far side is not resumed.
    ForgetResume,
    /// Where bytes are queued for a session: they are sent in this turn though older ones wait in its outbox.
    SendAroundOutbox,
    /// Where a control frame of the gateway or a Close is put into a proxied stream: not only at a boundary.
    ControlInsideFrame,
    /// Where a head was complete and bytes follow it in the same buffer: they are dropped.
    DropEarlyData,
    /// Where an event's token is stale: its buffer is not recycled but dropped.
    LeakStaleBuffer,
    /// Where the closing handshake begins: no deadline is set for its end.
    ForgetDeadline,
    /// Where an outbox is cleared: the counter of retained bytes keeps them.
    LeakRetained,
    /// Where a session ends in the middle of a message, a body or a head: what it held of that counts on.
    LeakIncomplete,
    /// Where the last bytes were sent: the socket is closed at once, without FIN first and without reading on.
    CloseWithoutLinger,
    /// Where a FIN is wanted: it is sent though the outbox is not empty.
    FinBeforeOutbox,
    /// Where an accept ended by an error: it is not armed again.
    ForgetAccept,
    /// Where the client's early data wait for the upstream's 101: they are forwarded as soon as it is connected.
    ForwardBeforeVerify,
    /// Where the inspector names the range to forward: one byte less at the end of a buffer.
    ForwardShort,
    /// Where a poll for room ended: nothing is sent until something else makes the session dirty.
    IgnoreWritable,
    /// Where a turn was filled before its input was read to the end: the next one waits for an event.
    SleepOnRest,
    /// Where a turn has taken up what was kept: what that has filled stays full for the turn's own events.
    GrantNothing,
    /// Where the shard is told to end at once: it goes on.
    IgnoreStop,
    /// Where the shard ends: the receive buffers that it still holds are not given back.
    LeakAtEnd,
    /// Where a paused session goes on: what was kept of it meanwhile is not read.
    ForgetParked,
    /// Where the last kept bytes of a session that is not read meanwhile were read: its receive stays unarmed.
    ForgetSheltered,
    /// Where a laggard's outbox is about to empty: the turn waits for another event before the rest comes.
    SleepOnLaggard,
    /// Where a laggard's rest went past its outbox: it is not gone on with.
    ForgetLaggard,
    /// Where a socket took a part of a frame that all share: the rest of it is dropped.
    LoseSharedRest,
    /// Where a socket took a part of a batch: the frames behind the one it is in are dropped.
    LoseSharedFrames,
    /// Where a generation comes: sessions of routes that go on are asked to go, too.
    AskEverybody,
    /// Where what was drained takes sessions again: it takes none.
    ForgetReadmit,
    /// Where a drain keeps the sessions that are there: they are asked to go.
    AskTheKept,
    /// Where a batch is given to a subscriber that is behind: it gets it twice.
    BatchTwice,
    /// Where a batch is given to a subscriber that came in its middle: it gets all of it.
    IgnoreSkip,
    /// Where letters come back from a full mailbox: they are dropped.
    ForgetLetters,
    /// Where a session or request ends: the hub is not told.
    LeaveMember,
    /// Where a topic's news goes to subscribers: those whose outbox is not empty are left out.
    SkipBehind,
    /// Where a poll is answered: its position moves past what was left out on the way.
    PassOverGap,
    /// Where what comes first goes to a new subscriber: the newest of it is left out.
    ShortFirst,
    /// Where something is newer than what comes first to a subscriber, and not all of that was sent: it goes past it.
    PassFirst,
    /// Where a queue to another shard has room again: those who wait to publish there are not gone on with.
    ForgetPublisher,
    /// Where topics hold more memory than they may, and a subscriber has the most of it: it does not end.
    SpareTheWorst,
}

impl Bug {
    /// All of them but those of topics.
    pub const ALL: &[Bug] = &[
        Bug::FreeSlotEarly,
        Bug::ReturnBufferEarly,
        Bug::SkipGenerationCheck,
        Bug::LoseRemainder,
        Bug::RepeatRemainder,
        Bug::RearmTwice,
        Bug::IgnoreStarved,
        Bug::ForgetResume,
        Bug::SendAroundOutbox,
        Bug::ControlInsideFrame,
        Bug::DropEarlyData,
        Bug::LeakStaleBuffer,
        Bug::ForgetDeadline,
        Bug::LeakRetained,
        Bug::LeakIncomplete,
        Bug::CloseWithoutLinger,
        Bug::FinBeforeOutbox,
        Bug::ForgetAccept,
        Bug::ForwardBeforeVerify,
        Bug::ForwardShort,
        Bug::IgnoreWritable,
        Bug::SleepOnRest,
        Bug::GrantNothing,
        Bug::IgnoreStop,
        Bug::LeakAtEnd,
        Bug::ForgetParked,
        Bug::ForgetSheltered,
        Bug::AskEverybody,
        Bug::ForgetReadmit,
        Bug::AskTheKept,
    ];

    /// Those of topics.
    pub const TOPICS: &[Bug] = &[
        Bug::SleepOnLaggard,
        Bug::ForgetLaggard,
        Bug::LoseSharedRest,
        Bug::LoseSharedFrames,
        Bug::BatchTwice,
        Bug::IgnoreSkip,
        Bug::ForgetLetters,
        Bug::LeaveMember,
        Bug::SkipBehind,
        Bug::PassOverGap,
        Bug::ShortFirst,
        Bug::PassFirst,
        Bug::ForgetPublisher,
    ];

    /// Those of what is done where topics have no memory.
    pub const RELIEF: &[Bug] = &[Bug::SpareTheWorst];
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
        static MET: Cell<u64> = const { Cell::new(0) };
    }

    /// Plants a bug in the shards of this thread, or none, and forgets how often one was met.
    pub fn set(bug: Option<Bug>) {
        PLANTED.set(bug);
        MET.set(0);
    }

    /// How often the planted bug's hook was passed on this thread since [`set`]. 0 after many seeds: there is no hook.
    #[must_use]
    pub fn met() -> u64 {
        MET.get()
    }

    pub(crate) fn is(bug: Bug) -> bool {
        let planted = PLANTED.get() == Some(bug);
        if planted {
            MET.set(MET.get() + 1);
        }
        planted
    }
}

#[cfg(feature = "planted-bugs")]
pub(crate) use switch::is;
#[cfg(feature = "planted-bugs")]
pub use switch::{met, set};

/// Whether this bug is planted: never, without the feature.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub(crate) const fn is(_: Bug) -> bool {
    false
}
