//! From what is armed to what the shard is told.

use tidegate_io::ReceiveEnd;

use super::{
    super::{
        faults::Fault,
        net::{Conn, ConnId, Net, Way},
    },
    Life, Pending, Stream, What,
};

impl Net {
    pub(super) fn complete(&mut self, stream: Stream, what: What) {
        let late = match self.strikes(Fault::LateCompletion) {
            true if self.random.chance(100) => self.random.range(1..=150_000),
            true => self.random.range(1..=2_000),
            false => 0,
        };
        let mut ready = self.now + late;
        let last = match stream {
            Stream::Receive(conn) => &mut self.conns[conn].gate.last_ready,
            Stream::Accept(id) => &mut self.listeners.get_mut(&id).expect("it is known").last_ready,
            Stream::Poll(_) | Stream::Connect(_) => &mut 0,
        };
        ready = ready.max(*last);
        *last = ready;
        let number = self.operations;
        self.operations += 1;
        self.pending.push(Pending { ready, number, stream, what });
    }

    /// Looks at every socket where something may have changed, and completes what can complete.
    pub(crate) fn run_operations(&mut self) {
        self.run_accepts();
        while let Some(conn) = self.touched.pop() {
            self.conns[conn].gate.touched = false;
            if self.conns[conn].gate.is_open() {
                self.run_poll(conn);
                self.run_receive(conn);
            }
        }
    }

    fn run_poll(&mut self, conn: ConnId) {
        let state = &mut self.conns[conn];
        let pipe = &state.outbound;
        let room = pipe.room() > 0 && pipe.room() >= pipe.send_room / 3;
        let gate = &mut state.gate;
        let dead = gate.broken.is_some() || gate.shut_both || gate.shut_write;
        let Some(poll) = gate.poll.as_mut().filter(|poll| !poll.ended) else { return };
        if !(room || dead || poll.spurious) {
            return;
        }
        poll.ended = true;
        let token = poll.token;
        if !(room || dead) {
            self.fired.count(Fault::SpuriousWritable);
        }
        self.complete(Stream::Poll(conn), What::Writable(conn, token));
    }

    fn run_receive(&mut self, conn: ConnId) {
        for shot in 0..8 {
            let Some(receive) = self.conns[conn].gate.receive.filter(|receive| !receive.ended) else {
                return;
            };
            // A late cancellation is no licence to go on for ever: some buffers, as from a real ring.
            let cancelled = receive.cancel.is_some_and(|when| when <= self.now || receive.late_shots >= 4);
            let Conn { inbound, gate, .. } = &mut self.conns[conn];
            let (has_bytes, eof, broken) = (!inbound.arrived.is_empty(), inbound.fin_arrived, gate.broken);
            let (fresh, shut) = (receive.fresh, gate.shut_both);
            if let Some(receive) = &mut gate.receive {
                receive.fresh = false;
            }
            let more = shot == 0 && has_bytes && cancelled && self.strikes(Fault::BytesAfterCancel);
            if cancelled && !more {
                if self.strikes(Fault::CancelRace) {
                    let end = *self.random.pick(&[ReceiveEnd::Rearm, ReceiveEnd::Starved]);
                    return self.end_receive(conn, receive.token, end);
                }
                let end = match (broken, has_bytes, eof || shut) {
                    (Some(errno), _, _) if self.random.chance(512) => ReceiveEnd::Error(errno),
                    (None, false, true) if self.random.chance(512) => ReceiveEnd::Eof,
                    _ => ReceiveEnd::Cancelled,
                };
                return self.end_receive(conn, receive.token, end);
            }
            let empty = self.pool.lent().lent == self.pool.lent().total;
            if has_bytes {
                if empty {
                    return self.starve(conn, receive.token);
                }
                self.receive_some(conn, receive.token);
                if receive.cancel.is_some() {
                    if !more {
                        self.fired.count(Fault::BytesAfterCancel);
                    }
                    if let Some(receive) = &mut self.gate(conn).receive {
                        receive.late_shots += 1;
                    }
                }
                if self.strikes(Fault::Rearm) {
                    return self.end_receive(conn, receive.token, ReceiveEnd::Rearm);
                }
                continue;
            }
            if let Some(errno) = broken {
                return self.end_receive(conn, receive.token, ReceiveEnd::Error(errno));
            }
            if eof || shut {
                return self.end_receive(conn, receive.token, ReceiveEnd::Eof);
            }
            if fresh && empty {
                self.fired.count(Fault::StarvedAtOnce);
                return self.starve(conn, receive.token);
            }
            return;
        }
        // Eight shots for one socket are enough for one look: others have bytes, too.
        self.touch_at(self.now, conn);
    }

    pub(super) fn starve(&mut self, conn: ConnId, token: u64) {
        // Buffers in completions are told of with the next turn, as a real ring does: nobody could wait for them else.
        let now = self.now;
        for pending in self.pending.iter_mut().filter(|pending| matches!(pending.what, What::Received(..))) {
            pending.ready = pending.ready.min(now);
        }
        self.fired.count(Fault::Starved);
        self.counters.starved += 1;
        self.end_receive(conn, token, ReceiveEnd::Starved);
    }

    pub(super) fn end_receive(&mut self, conn: ConnId, token: u64, end: ReceiveEnd) {
        if let Some(receive) = &mut self.gate(conn).receive {
            receive.ended = true;
        }
        self.complete(Stream::Receive(conn), What::ReceiveEnded(conn, token, end));
    }

    pub(super) fn receive_some(&mut self, conn: ConnId, token: u64) {
        let mut buffer = self.pool.take().expect("one is free");
        let available = self.conns[conn].inbound.arrived.len().min(buffer.capacity());
        let mut count = available;
        if available > 1 && self.strikes(Fault::SplitReceive) {
            let most = *self.random.pick(&[1, 4, 20, 200, available]);
            count = self.random.size(1..=most.min(available));
        }
        let pipe = &mut self.conns[conn].inbound;
        let bytes: Vec<u8> = pipe.arrived.drain(..count).collect();
        buffer.fill(&bytes);
        self.start_pump(conn, Way::In);
        self.complete(Stream::Receive(conn), What::Received(conn, token, buffer));
    }

    /// When the next completion can be told.
    pub(crate) fn next_ready(&self) -> Option<u64> {
        self.pending.iter().map(|pending| pending.ready).min()
    }

    /// The completions that are told by this turn, in their order.
    pub(crate) fn take_ready(&mut self) -> Vec<What> {
        let now = self.now;
        let mut ready: Vec<Pending> = self.pending.extract_if(.., |pending| pending.ready <= now).collect();
        if ready.is_empty() {
            return Vec::new();
        }
        ready.sort_by_key(|pending| pending.number);
        if ready.len() > 1 && self.strikes(Fault::ShuffledBatch) {
            self.shuffle(&mut ready);
        }
        if ready.len() > 1 && self.strikes(Fault::ShortBatch) {
            let count = self.random.size(1..=ready.len() - 1);
            self.pending.extend(ready.drain(count..));
        }
        ready.into_iter().map(|pending| pending.what).collect()
    }

    /// Another order that keeps each stream's own.
    fn shuffle(&mut self, ready: &mut Vec<Pending>) {
        let mut keyed: Vec<(u64, Pending)> = Vec::with_capacity(ready.len());
        for pending in ready.drain(..) {
            let before = keyed
                .iter()
                .rev()
                .find(|(_, other)| other.stream == pending.stream)
                .map_or(0, |(key, _)| *key);
            let key = before.max(self.random.below(1 << 20));
            keyed.push((key, pending));
        }
        keyed.sort_by_key(|(key, _)| *key);
        ready.extend(keyed.into_iter().map(|(_, pending)| pending));
    }

    /// Notes that a completion is told now, behind so many events of the turn.
    pub(crate) fn told(&mut self, what: &What, before: usize) {
        match *what {
            What::Received(conn, _, ref buffer) => self.told_bytes(conn, buffer.len(), before),
            What::ReceiveEnded(conn, _, end) => {
                let recycled = self.recycled;
                let is_empty = self.lent().lent == self.lent().total;
                let gate = self.gate(conn);
                let receive = gate.receive.take();
                // Where there are buffers, it may be armed at once.
                gate.starved = (end == ReceiveEnd::Starved && is_empty).then_some(recycled);
                if receive.is_some_and(|receive| receive.cancel.is_some()) && end != ReceiveEnd::Cancelled {
                    self.fired.count(Fault::CancelRace);
                }
            }
            What::Writable(conn, _) => self.gate(conn).poll = None,
            What::Connected(conn, ..) => self.gate(conn).connect = None,
            What::Accepted(listener, conn, _) => {
                self.gate(conn).life = Life::Open;
                if !self.listeners[&listener].open {
                    self.fired.count(Fault::LateAccept);
                }
            }
            What::AcceptEnded(listener, errno) => {
                let now = self.now;
                let listening = self.listeners.get_mut(&listener).expect("it is known");
                listening.armed = false;
                listening.failed = (errno != 0).then_some(now);
            }
        }
    }

    /// Which of (receive, poll, connect) are armed for a live token.
    pub(crate) fn armed_for(&self, token: u64) -> Option<(bool, bool, bool)> {
        let gate = &self.conns[*self.tokens.get(&token)?].gate;
        Some((gate.receive.is_some(), gate.poll.is_some(), gate.connect.is_some()))
    }
}
