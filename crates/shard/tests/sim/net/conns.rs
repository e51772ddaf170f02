//! Connections: segments, FINs and resets on their way, and what a peer does with its end.

use super::{
    super::{fairness::Asked, faults::Fault, kernel::Gate},
    ActorId, Conn, ConnId, Due, Excuse, Far, MILLIS, Net, Pipe, Read, SECONDS, Way, libc_errno,
};

/// The buffers of a peer that reads very slowly.
const NARROW: usize = 4_096;

impl Net {
    /// A connection that nobody knows yet.
    pub(crate) fn add_conn(&mut self, actor: Option<ActorId>, gate: Gate) -> ConnId {
        let longest = if self.random.below(4) == 0 { self.latency * 3 } else { self.latency };
        let sizes = [300, 2_000, 16_384, 100_000, 1 << 20];
        // Small buffers over a long way would make any message too slow for its deadline.
        let sizes = if longest > MILLIS { &sizes[2..] } else { &sizes[..] };
        let mut pipe = || Pipe {
            send_room: *self.random.pick(sizes),
            window: *self.random.pick(sizes),
            latency: (longest / 4, longest),
            ..Pipe::default()
        };
        let (inbound, outbound) = (pipe(), pipe());
        self.conns.push(Conn {
            actor,
            inbound,
            outbound,
            far: Far::default(),
            gate,
            established: false,
            asked: Asked::default(),
        });
        self.conns.len() - 1
    }

    /// Small buffers towards a peer that reads very slowly: else what is with the kernel alone would take it longer than
    /// a pong may take.
    pub(crate) fn narrow(&mut self, conn: ConnId) {
        let pipe = &mut self.conns[conn].outbound;
        pipe.send_room = pipe.send_room.min(NARROW);
        pipe.window = pipe.window.min(NARROW);
    }

    /// A client connects to a listener of the gateway.
    pub(crate) fn dial(&mut self, actor: ActorId, listener: u8) -> ConnId {
        let conn = self.add_conn(Some(actor), Gate::unborn());
        let time = self.now + self.travel(conn, Way::In);
        self.at(time, Due::Syn(conn, listener));
        conn
    }

    pub(super) fn syn_arrives(&mut self, conn: ConnId, listener: u8) {
        let Some(listening) = self.listeners.get_mut(&listener).filter(|listening| listening.open) else {
            self.conns[conn].far.reset = true;
            self.poke_soon(self.conns[conn].actor);
            return;
        };
        if listening.backlog.len() >= listening.limit {
            // RFC 9293 §3.8.1: the SYN is sent again after about a second.
            self.fired.count(Fault::BacklogFull);
            self.at(self.now + SECONDS, Due::Syn(conn, listener));
            return;
        }
        listening.backlog.push_back(conn);
        self.conns[conn].established = true;
        if self.strikes(Fault::DeadAccept) {
            self.excuse(self.conns[conn].actor, Excuse::Reset);
            self.reset_arrives(conn, true);
            self.reset_arrives(conn, false);
        }
        self.poke_soon(self.conns[conn].actor);
    }

    pub(crate) fn connect_at(&mut self, time: u64, conn: ConnId, errno: i32) {
        self.at(time, Due::Connected(conn, errno));
    }

    pub(crate) fn touch_at(&mut self, time: u64, conn: ConnId) {
        self.at(time, Due::Touch(conn));
    }

    pub(super) fn travel(&mut self, conn: ConnId, way: Way) -> u64 {
        let conn = &self.conns[conn];
        let (low, high) = match way {
            Way::In => conn.inbound.latency,
            Way::Out => conn.outbound.latency,
        };
        let slow = match self.strikes(Fault::SlowSegment) {
            true if self.random.below(16) == 0 => self.random.range(0..=300 * MILLIS),
            true => self.random.range(0..=10 * MILLIS),
            false => 0,
        };
        self.random.range(low..=high) + slow
    }

    pub(super) fn pipe(&mut self, conn: ConnId, way: Way) -> &mut Pipe {
        let conn = &mut self.conns[conn];
        match way {
            Way::In => &mut conn.inbound,
            Way::Out => &mut conn.outbound,
        }
    }

    /// Sends a segment on its way, where there is one and the receiver has room.
    pub(crate) fn start_pump(&mut self, conn: ConnId, way: Way) {
        let pipe = self.pipe(conn, way);
        let has_room = pipe.arrived.len() < pipe.window;
        let wants = (!pipe.flying.is_empty() && has_room)
            || (pipe.flying.is_empty() && pipe.fin && !pipe.fin_arrived);
        if pipe.pumping || !wants {
            return;
        }
        pipe.pumping = true;
        let time = self.now + self.travel(conn, way);
        self.at(time, Due::Pump(conn, way == Way::In));
    }

    pub(super) fn pump(&mut self, conn: ConnId, way: Way) {
        let split = self.strikes(Fault::SplitSegment);
        let receiver_gone = match way {
            Way::In => self.conns[conn].gate.is_closed(),
            Way::Out => self.conns[conn].far.closed,
        };
        let pipe = self.pipe(conn, way);
        pipe.pumping = false;
        let mut count = pipe.flying.len().min(pipe.window.saturating_sub(pipe.arrived.len()));
        if receiver_gone {
            if !pipe.flying.is_empty() {
                // RFC 1122 §4.2.2.13: data for a closed socket is answered by a reset.
                pipe.flying.clear();
                let back = way == Way::Out;
                let time = self.now + self.travel(conn, way);
                self.at(time, Due::Reset(conn, back));
            }
            return;
        }
        if split && count > 1 {
            count = self.random.size(1..=count - 1);
        }
        let pipe = self.pipe(conn, way);
        let (arrived, flying) = (&mut pipe.arrived, &mut pipe.flying);
        arrived.extend(flying.drain(..count));
        if pipe.flying.is_empty() && pipe.fin {
            pipe.fin_arrived = true;
        }
        let (arrived, flying, fin) = (pipe.arrived.len(), pipe.flying.len(), pipe.fin_arrived);
        self.say(|| {
            format!(
                "  #{conn} {way:?}: {count} arrive, {arrived} wait, {flying} fly{}",
                if fin { ", FIN" } else { "" }
            )
        });
        self.start_pump(conn, way);
        self.poke_soon(self.conns[conn].actor);
        self.touch(conn);
    }

    /// Has a reset on its way to the gateway or to the peer.
    pub(crate) fn send_reset(&mut self, conn: ConnId, to_gateway: bool) {
        let way = if to_gateway { Way::In } else { Way::Out };
        // What was on its way is lost, the FIN behind it, too.
        let pipe = self.pipe(conn, way);
        pipe.flying.clear();
        pipe.fin = false;
        let time = self.now + self.travel(conn, way);
        self.at(time, Due::Reset(conn, to_gateway));
    }

    pub(super) fn reset_arrives(&mut self, conn: ConnId, gateway: bool) {
        let destroys = self.strikes(Fault::ResetDestroys);
        let state = &mut self.conns[conn];
        if gateway {
            if state.gate.is_closed() || state.gate.broken.is_some() {
                return;
            }
            state.gate.broken = Some(libc_errno::ECONNRESET);
            state.inbound.destroy(destroys);
            state.outbound.destroy(false);
            self.touch(conn);
        } else {
            if state.far.closed || state.far.reset {
                return;
            }
            state.far.reset = true;
            state.outbound.destroy(destroys);
            state.inbound.destroy(false);
            self.poke_peer(conn);
        }
    }

    /// The gateway's kernel must look at this socket.
    pub(crate) fn touch(&mut self, conn: ConnId) {
        if !self.conns[conn].gate.touched {
            self.conns[conn].gate.touched = true;
            self.touched.push(conn);
        }
    }

    pub(crate) fn poke_peer(&mut self, conn: ConnId) {
        self.poke_soon(self.conns[conn].actor);
    }

    // ---- what a peer does with its end

    /// Reads up to `most` bytes behind what `into` holds.
    pub(crate) fn read(&mut self, conn: ConnId, most: usize, into: &mut Vec<u8>) -> Read {
        let state = &mut self.conns[conn];
        let pipe = &mut state.outbound;
        let count = most.min(pipe.arrived.len());
        if count > 0 {
            into.extend(pipe.arrived.drain(..count));
            self.start_pump(conn, Way::Out);
            return Read::Bytes(count);
        }
        if most == 0 && !pipe.arrived.is_empty() {
            return Read::Nothing;
        }
        if state.far.reset {
            Read::Reset
        } else if state.outbound.fin_arrived {
            Read::Eof
        } else {
            Read::Nothing
        }
    }

    /// Whether bytes, a FIN or a reset wait for the peer.
    pub(crate) fn readable(&self, conn: ConnId) -> bool {
        let conn = &self.conns[conn];
        !conn.outbound.arrived.is_empty() || conn.outbound.fin_arrived || conn.far.reset
    }

    /// Sends as much as fits, and says how much that was.
    pub(crate) fn write(&mut self, conn: ConnId, bytes: &[u8]) -> usize {
        let state = &mut self.conns[conn];
        if state.far.reset || state.far.closed || state.inbound.fin || !state.established {
            return 0;
        }
        let count = bytes.len().min(state.inbound.room());
        state.inbound.flying.extend(&bytes[..count]);
        state.asked.written += count as u64;
        self.start_pump(conn, Way::In);
        count
    }

    pub(crate) fn finish_writing(&mut self, conn: ConnId) {
        if !self.conns[conn].inbound.fin {
            self.conns[conn].inbound.fin = true;
            self.start_pump(conn, Way::In);
        }
    }

    /// The peer closes its end: a FIN, or a reset where input was not read.
    pub(crate) fn close_peer(&mut self, conn: ConnId, reset: bool) {
        let state = &mut self.conns[conn];
        if state.far.closed {
            return;
        }
        state.far.closed = true;
        let unread = !state.outbound.arrived.is_empty();
        state.outbound.arrived.clear();
        if state.far.reset {
            return;
        }
        if reset || unread {
            self.send_reset(conn, true);
        } else {
            self.finish_writing(conn);
        }
        self.start_pump(conn, Way::Out);
    }
}
