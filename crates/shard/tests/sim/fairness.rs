//! How soon small questions are answered, whatever others send.
//!
//! A modest client asks one small thing at a time and reads as fast as it can: nothing but the shard's turns stands between
//! its bytes and their answer. Where its bytes are the first that a turn brings, the shard answers them before what earlier
//! turns have kept of others; else they stand in one queue with that.

use super::net::{ConnId, Net};

/// Turns on top of the events in the queue.
const SLACK: u64 = 8;

/// A modest client's question, as the gateway's kernel sees it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    /// Bytes that its peer has written.
    pub(crate) written: u64,
    /// Bytes that the shard was told of.
    told: u64,
    /// Where the question begins and ends among them.
    question: Option<(u64, u64)>,
    due: Option<Due>,
}

/// The shard has a whole question.
#[derive(Clone, Copy, Debug)]
struct Due {
    /// It was told of it by this turn.
    turn: u64,
    /// The turn had nothing before it.
    first: bool,
    /// What the queue may have held by then; each turn takes up one of it, or more.
    queue: u64,
}

impl Net {
    /// All between these places of what a peer has written is one question, and nothing else of it is under way.
    pub(crate) fn ask(&mut self, conn: ConnId, from: u64, to: u64) {
        self.conns[conn].asked.question = Some((from, to));
    }

    /// The shard is told of bytes, behind so many events of the turn.
    pub(crate) fn told_bytes(&mut self, conn: ConnId, len: usize, before: usize) {
        let first = before == 0;
        let turn = self.counters.turns;
        let excused = self.ending || !self.conns[conn].gate.takes_all();
        let kept = self.kept;
        let queue = u64::from(kept) + before as u64 + SLACK;
        let asked = &mut self.conns[conn].asked;
        let whole = asked.question == Some((asked.told, asked.told + len as u64));
        asked.told += len as u64;
        if whole && !excused {
            asked.due = Some(Due { turn, first, queue });
            self.asking.push(conn);
            if kept > 0 {
                self.cover(format!("fair: {} others", if first { "before" } else { "among" }));
            }
        }
    }

    /// The shard sends to this peer.
    pub(crate) fn answers(&mut self, conn: ConnId) {
        self.conns[conn].asked.due = None;
    }

    /// After a turn: none that was due may be missing among its sends.
    ///
    /// # Panics
    /// Where somebody waits for too long.
    pub(crate) fn check_fairness(&mut self) {
        let turn = self.counters.turns;
        let mut asking = std::mem::take(&mut self.asking);
        asking.retain(|&conn| {
            let conn_state = &self.conns[conn];
            let Some(due) = conn_state.asked.due else { return false };
            if self.ending || !conn_state.gate.takes_all() {
                return false;
            }
            let waits = turn - due.turn;
            let most = if due.first { 0 } else { due.queue };
            assert!(
                waits <= most,
                "{} waits for {waits} turns, not {most}, first of its turn: {}",
                self.describe(conn),
                due.first
            );
            true
        });
        self.asking = asking;
    }
}
