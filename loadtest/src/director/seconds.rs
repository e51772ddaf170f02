//! A run second by second, once all workers have told of each.

use std::collections::VecDeque;

use crate::{
    processes::{Look, Servers},
    report::Second,
    tally::{Parcel, Times},
};

/// A second that is not whole yet.
#[derive(Debug)]
struct Part {
    open: u32,
    pending: u32,
    handshakes: u64,
    messages: u64,
    errors: u64,
    latency: Option<Times>,
}

/// The seconds of a run.
#[derive(Debug)]
pub(super) struct Seconds {
    /// How many each worker has told.
    told: Vec<u64>,
    /// Sessions of each worker, up and coming up.
    open: Vec<(u32, u32)>,
    parts: VecDeque<Part>,
    whole: Vec<Second>,
    look: Look,
    looked_ns: u64,
}

impl Seconds {
    pub(super) fn new(workers: usize, now_ns: u64, look: Look) -> Self {
        Self {
            told: vec![0; workers],
            open: vec![(0, 0); workers],
            parts: VecDeque::new(),
            whole: Vec::new(),
            look,
            looked_ns: now_ns,
        }
    }

    /// A worker tells nothing more.
    pub(super) fn retire(&mut self, worker: usize) {
        self.told[worker] = u64::MAX;
        self.open[worker] = (0, 0);
    }

    /// A worker tells of its second.
    pub(super) fn add(&mut self, worker: usize, second: u64, open: u32, pending: u32, parcel: &Parcel) {
        let first = self.whole.len() as u64;
        // A worker that was held up tells of several as one; those that are whole are not changed any more.
        let place = second.saturating_sub(first) as usize;
        while self.parts.len() <= place {
            self.parts.push_back(Part {
                open: 0,
                pending: 0,
                handshakes: 0,
                messages: 0,
                errors: 0,
                latency: None,
            });
        }
        self.told[worker] = second + 1;
        self.open[worker] = (open, pending);
        let part = &mut self.parts[place];
        part.open = self.open.iter().map(|(open, _)| open).sum();
        part.pending = self.open.iter().map(|(_, pending)| pending).sum();
        part.handshakes += parcel.counts.opened;
        part.messages += parcel.counts.received;
        part.errors += parcel.counts.faults.total();
        if let Some(latency) = &parcel.latency {
            part.latency.get_or_insert_with(Times::new).merge(latency);
        }
    }

    /// The next second that all workers have told of.
    pub(super) fn poll_whole(
        &mut self,
        phase: &'static str,
        now_ns: u64,
        servers: &Servers,
    ) -> Option<&Second> {
        if self.told.iter().min().is_none_or(|told| *told <= self.whole.len() as u64) {
            return None;
        }
        let part = self.parts.pop_front()?;
        let look = servers.look();
        let elapsed_ns = now_ns.saturating_sub(self.looked_ns) as f64;
        // Seconds that are told together leave no time between two looks.
        let cpu = look.cpu_since(&self.look).filter(|_| elapsed_ns > 1e8);
        let us = |percentile| Some(part.latency.as_ref()?.percentile_ns(percentile)? / 1e3);
        let second = Second {
            at_s: self.whole.len() as u64 + 1,
            phase,
            open: part.open,
            pending: part.pending,
            handshakes: part.handshakes,
            messages: part.messages,
            errors: part.errors,
            p50_us: us(50.0),
            p99_us: us(99.0),
            max_us: us(100.0),
            server_cores: cpu.map(|cpu| cpu.all_ns as f64 / elapsed_ns),
            server_memory_bytes: look.memory_bytes,
        };
        (self.look, self.looked_ns) = (look, now_ns);
        self.whole.push(second);
        self.whole.last()
    }

    pub(super) fn all(self) -> Vec<Second> {
        self.whole
    }
}
