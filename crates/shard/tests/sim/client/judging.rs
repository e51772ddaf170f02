//! What a client insists on when its connection ends, unless it was excused.

use super::{
    super::{
        facts::{Full, Promise},
        link::End,
        net::Net,
        script::{Act, Asking, Mistake},
    },
    Client, LINGER_BYTES, Phase,
};

impl Client {
    /// Whether the echo drops messages when it cannot get rid of them.
    pub(super) fn may_drop(&self) -> bool {
        *self.promise() == Promise::Echo && matches!(self.facts.terms.full, Full::DropNew | Full::DropOld)
    }

    /// Whether the echo ends its session when it cannot get rid of its answers.
    pub(super) fn may_be_too_slow(&self) -> bool {
        *self.promise() == Promise::Echo && self.facts.terms.full == Full::Disconnect
    }

    /// Closes that the gateway may send on its own account.
    pub(super) fn may_be_closed(&self, code: Option<u16>) -> bool {
        (self.may_be_too_slow() && code == Some(1013))
            || (self.facts.terms.idle_timeout > 0 && code == Some(1001))
    }

    pub(super) fn judge_end(&self, now: u64, end: End) {
        if self.is_excused() {
            if !self.may_be_cut(now) {
                self.judge_drained(end);
            }
            return;
        }
        let reset = end == End::Reset;
        let much = self.link.as_ref().is_some_and(|link| link.moved > LINGER_BYTES);
        match self.phase {
            Phase::Asking => match self.script.asking {
                _ if self.is_unannounced() && (!reset || much) => {}
                Asking::Wrong(Mistake::CutOff | Mistake::Endless) => {}
                _ if self.facts.terms.may_be_full => {}
                // A session that was cut off before it has read its 101.
                _ if reset && self.may_be_cut(now) => {}
                _ if reset && matches!(self.promise(), Promise::Breaks(_)) => {}
                _ if reset && self.may_be_too_slow() => {}
                _ if reset && much && matches!(self.promise(), Promise::Source { .. }) => {}
                _ => self.fail(&format!("{end:?} without an answer")),
            },
            Phase::Answered { missing, .. } => {
                let destroyed = reset && much;
                if (reset || missing > 0) && !destroyed {
                    self.fail(&format!("{end:?} with {missing} bytes of the answer missing"));
                }
            }
            Phase::Open if self.is_departed() => self.judge_departed(now, end, much),
            Phase::Open => self.judge_session(end, much),
            Phase::Waiting | Phase::Gone { .. } | Phase::Done => self.fail("an end after the end"),
        }
    }

    /// What it has gone through without an excuse.
    pub(super) fn cover(&self, net: &mut Net) {
        if self.is_excused() {
            return;
        }
        if self.is_departed() {
            match (self.phase, self.close_got) {
                (Phase::Answered { status: 404, .. }, _) => net.cover("departed: not found".to_string()),
                (Phase::Answered { status: 503, .. }, _) => net.cover("departed: refused".to_string()),
                (Phase::Open, Some(Some(1012))) => net.cover("departed: told".to_string()),
                (Phase::Open, None) => net.cover("departed: cut off".to_string()),
                _ => {}
            }
            return;
        }
        let served = match self.promise() {
            Promise::Echo => "echo",
            Promise::Proxied { .. } => "proxy",
            Promise::Source { .. } => "source",
            Promise::Refused(_) => "refused",
            Promise::Breaks(_) => "breaks",
        };
        if let Some(header) = &self.header {
            net.cover(format!("PROXY header: {}", header.name));
        }
        match (self.phase, self.script.asking, &self.last) {
            (Phase::Asking | Phase::Answered { .. }, Asking::Wrong(mistake), _) => {
                net.cover(format!("{mistake:?}"));
            }
            (Phase::Answered { status, .. }, Asking::Right | Asking::PageFirst, _)
                if self.unfit.is_some() =>
            {
                net.cover(format!("unfit: {served}, status {status}"));
            }
            (Phase::Answered { status, .. }, _, _) => net.cover(format!("{served}: status {status}")),
            (Phase::Open, _, last) => {
                let act = match last {
                    Some(Act::Violate(violation)) => format!("{violation:?}"),
                    Some(Act::Close(_)) => "Close".to_string(),
                    Some(act) => format!("{act:?}"),
                    None => "no end of its own".to_string(),
                };
                net.cover(format!("{served}: {act}"));
                if self.facts.had_bad_text(self.id) && self.close_got == Some(Some(1007)) {
                    net.cover("utf8: refused by the upstream".to_string());
                }
                if self.facts.terms.ping_interval == 0 {
                    net.cover(format!("no pings: {act}"));
                }
                let demands = &self.facts.routes[self.route].demands;
                if !demands.subprotocols.is_empty() {
                    net.cover(format!("subprotocol: {served}"));
                }
                if !demands.origins.is_empty() && self.asks.origin.is_some() {
                    net.cover(format!("origin: {served}"));
                }
                if self.listener == 1 {
                    net.cover(format!("records: {served}"));
                    self.cover_records(net);
                }
                if self.inbox.inflated > 0 {
                    net.cover(format!("inflated: {:?}", self.facts.routes[self.route].deflate));
                }
            }
            _ => {}
        }
    }

    /// A record that is longer than a receive buffer was opened over several, in turns that hold next to nothing.
    fn cover_records(&self, net: &mut Net) {
        let longest = self.link.as_ref().map_or(0, |link| link.record_most);
        let Some((bytes, buffers)) = net.turns.filter(|_| longest > net.buffer_bytes) else { return };
        if bytes == 1 {
            net.cover("records over buffers: turns of 1 byte".to_string());
        }
        if buffers == 1 {
            net.cover("records over buffers: turns of 1 buffer".to_string());
        }
        if (bytes, buffers) == (1, 1) {
            net.cover("records over buffers: turns of 1 byte and 1 buffer".to_string());
        }
    }

    /// Who reads as fast as it can gets its Close from a gateway that is drained.
    pub(super) fn judge_drained(&self, end: End) {
        let fast = self.pace.read.0 == usize::MAX;
        let much = self.link.as_ref().is_some_and(|link| link.moved > LINGER_BYTES);
        let reads = !matches!(self.last, Some(Act::HalfClose | Act::Mute));
        let echo =
            matches!(self.promise(), Promise::Echo | Promise::Proxied { .. }) && !self.may_be_too_slow();
        if self.phase == Phase::Open && fast && reads && echo && self.facts.is_only_drained(self.id) {
            let clean = end == End::Eof && self.close_got.is_some();
            if !(clean || (end == End::Reset && much)) {
                self.fail(&format!("{end:?} in a drain"));
            }
        }
    }

    /// Who reads as fast as it can gets its Close from a route that goes, unless the deadline comes before it.
    fn judge_departed(&self, now: u64, end: End, much: bool) {
        let fast = self.pace.read.0 == usize::MAX;
        let reads = !matches!(self.last, Some(Act::HalfClose | Act::Mute));
        let echo =
            matches!(self.promise(), Promise::Echo | Promise::Proxied { .. }) && !self.may_be_too_slow();
        if fast && reads && echo && !self.may_be_cut(now) {
            let clean = end == End::Eof && self.close_got.is_some();
            if !(clean || (end == End::Reset && much)) {
                self.fail(&format!("{end:?}, though its route has time to go"));
            }
        }
    }

    pub(super) fn judge_session(&self, end: End, much: bool) {
        let clean = end == End::Eof && self.close_got.is_some();
        let proxied = *self.promise() != Promise::Echo;
        match (self.promise(), &self.last) {
            (Promise::Breaks(_), _) => {}
            // What waits in a pair for its slower side takes longer than the end may.
            (Promise::Source { .. }, _) | (_, Some(Act::Close(_) | Act::Violate(_) | Act::Stall))
                if self.facts.crawls(self.id) => {}
            _ if self.close_got.is_some_and(|code| self.may_be_closed(code)) && (clean || much) => {}
            // In the middle of a message there is no place for a Close.
            _ if self.may_be_too_slow() && end == End::Reset => {}
            (Promise::Source { messages, .. }, _) if self.close_sent.is_some() && self.violated.is_none() => {
                let all = self.from_upstream == *messages || self.closed_first;
                if !(clean || (end == End::Reset && much)) || !all {
                    self.fail(&format!("{end:?} after {} messages of its upstream", self.from_upstream));
                }
            }
            (_, Some(Act::HalfClose)) if end == End::Eof || proxied => {}
            (_, Some(Act::Mute)) => {}
            (_, Some(Act::Stall)) if clean => {}
            // Where the upstream's answer was under way, a Close could not be put in.
            (_, Some(Act::Violate(_)))
                if clean || (proxied && (end != End::Eof || self.inbox.is_inside_frame())) => {}
            (_, Some(Act::Close(_))) if clean => {
                if !self.expected.is_empty() && !self.may_drop() {
                    self.fail(&format!("{} messages did not come back", self.expected.len()));
                }
                if !self.pings.is_empty() {
                    self.fail("its last ping was not answered");
                }
            }
            _ => self.fail(&format!("{end:?}")),
        }
    }
}
