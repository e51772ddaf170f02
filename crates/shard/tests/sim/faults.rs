//! The faults that a seed may meet, each with its rate, and how often each has fired.
//!
//! Swarm testing: a seed draws a random subset of the faults, so that rare combinations are not drowned by common
//! ones (Groce et al., "Swarm Testing", ISSTA 2012).

use super::random::Random;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What can go wrong, or happen that seldom does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Fault { $($(#[$doc])* $name,)* }

        impl Fault {
            pub(crate) const ALL: &[Fault] = &[$(Fault::$name,)*];
        }
    };
}

faults! {
    /// A receive takes less than has arrived.
    SplitReceive,
    /// The network delivers a part of what is on its way.
    SplitSegment,
    /// A segment takes much longer than its fellows on other connections.
    SlowSegment,
    /// A send takes less than fits.
    PartialSend,
    /// A send takes nothing, though it would fit.
    RefusedSend,
    /// A send found its socket's buffer full.
    FullSend,
    /// A send met a broken connection.
    BrokenSend,
    /// A poll ends though nothing fits.
    SpuriousWritable,
    /// A receive ended because no buffer was free.
    Starved,
    /// A receive was armed on an idle socket with an empty pool.
    StarvedAtOnce,
    /// A receive ended without a fault, behind its bytes or without any: the completion queue overflowed.
    Rearm,
    /// A completion comes turns later than it could.
    LateCompletion,
    /// Bytes still came after a cancellation was asked for.
    BytesAfterCancel,
    /// A cancelled receive ended for another reason.
    CancelRace,
    /// A turn delivers a part of what has completed.
    ShortBatch,
    /// Completions of one turn come in another order than they happened.
    ShuffledBatch,
    /// An event for a token that was never used.
    UnknownToken,
    /// An event for a token of a closed socket.
    OldToken,
    /// Bytes in a buffer for a token of a closed socket.
    OldTokenBytes,
    /// An event for a live token that has no such operation armed.
    Duplicate,
    /// An accept ended by EMFILE and its like.
    AcceptError,
    /// An accept ended without a fault.
    AcceptRearm,
    /// A connection came without its address.
    NoPeerAddress,
    /// A connection was reset before it was accepted.
    DeadAccept,
    /// A connection was accepted after its listener had been closed.
    LateAccept,
    /// The backlog was full, the client tries again.
    BacklogFull,
    /// A connect failed at once.
    ConnectError,
    /// A connect was refused or ended by an error of the network.
    ConnectRefused,
    /// A connect is answered late.
    ConnectSlow,
    /// A connect is never answered.
    ConnectSilent,
    /// The network resets a connection.
    Reset,
    /// A reset destroyed what had arrived and was not yet read.
    ResetDestroys,
    /// The clock jumps forward.
    ClockJump,
    /// A turn returns without an event before its deadline.
    EarlyReturn,
    /// A turn ends later than its deadline.
    LateReturn,
    /// A wake-up for nothing.
    SpuriousWake,
}

/// How often each fault fires in this seed.
#[derive(Clone, Debug)]
pub(crate) struct Swarm {
    /// Chances in 1024, by [`Fault`].
    rates: [u16; Fault::ALL.len()],
}

impl Swarm {
    pub(crate) fn draw(random: &mut Random) -> Swarm {
        let mut rates = [0; Fault::ALL.len()];
        // One seed in 16 has no faults at all: what fails there is easy to read.
        if random.below(16) == 0 {
            return Swarm { rates };
        }
        let density = random.range(1..=7);
        for (rate, fault) in rates.iter_mut().zip(Fault::ALL) {
            // What excuses clients from their demands stays rarer than the rest.
            let excuses = matches!(fault, Fault::Reset | Fault::ClockJump);
            if random.below(8) < density && !(excuses && random.below(2) == 0) {
                let &(low, high) = random.pick(&fault.rates());
                *rate = random.range(low..=high) as u16;
            }
        }
        Swarm { rates }
    }

    /// Nothing goes wrong.
    pub(crate) fn none() -> Swarm {
        Swarm { rates: [0; Fault::ALL.len()] }
    }

    pub(crate) fn rate(&self, fault: Fault) -> u16 {
        self.rates[fault as usize]
    }

    /// Faults that are drawn at all, for the trace.
    pub(crate) fn drawn(&self) -> Vec<(Fault, u16)> {
        Fault::ALL.iter().map(|&fault| (fault, self.rate(fault))).filter(|&(_, rate)| rate > 0).collect()
    }
}

impl Fault {
    /// Rates to choose from; where a fault ends a connection or costs a lot of time, lower ones.
    fn rates(self) -> [(u64, u64); 2] {
        match self {
            // How many of them a seed sees, see `World`.
            Fault::Reset | Fault::ClockJump => [(1, 2), (3, 6)],
            Fault::ConnectSilent | Fault::ConnectRefused | Fault::ConnectError => [(10, 60), (60, 250)],
            Fault::DeadAccept | Fault::AcceptError => [(10, 100), (100, 400)],
            Fault::RefusedSend | Fault::SlowSegment => [(5, 40), (40, 200)],
            Fault::UnknownToken | Fault::OldToken | Fault::OldTokenBytes | Fault::Duplicate => {
                [(10, 100), (100, 500)]
            }
            Fault::LateReturn | Fault::EarlyReturn | Fault::SpuriousWake => [(5, 50), (50, 200)],
            Fault::ResetDestroys | Fault::NoPeerAddress => [(200, 800), (1024, 1024)],
            _ => [(10, 100), (100, 600)],
        }
    }
}

/// How often each fault has fired.
#[derive(Clone, Debug)]
pub(crate) struct Fired {
    pub(crate) counts: [u64; Fault::ALL.len()],
}

impl Default for Fired {
    fn default() -> Fired {
        Fired { counts: [0; Fault::ALL.len()] }
    }
}

impl Fired {
    pub(crate) fn count(&mut self, fault: Fault) {
        self.counts[fault as usize] += 1;
    }

    pub(crate) fn add(&mut self, other: &Fired) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
    }

    /// The faults that never fired.
    pub(crate) fn missing(&self) -> Vec<Fault> {
        Fault::ALL.iter().copied().filter(|&fault| self.counts[fault as usize] == 0).collect()
    }
}
