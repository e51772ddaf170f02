//! A peer's end of a connection: bytes queued and paced on their way out, read at a pace on their way in, and the
//! record transport in between where the connection has one.

use super::{
    net::{ActorId, ConnId, Net, Read},
    random::Random,
    record::{Direction, Open, RECORD_BYTES, Seal},
};

/// How fast a peer reads and writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Bytes at a time, and the pause behind them in microseconds.
    pub(crate) read: (usize, u64),
    pub(crate) write: (usize, u64),
}

impl Pace {
    /// About 5 KB/s: an outbox behind it is not empty for longer than any deadline but the write deadline.
    const CRAWL: (usize, u64) = (1_000, 200_000);

    pub(crate) const FULL: Pace = Pace { read: (usize::MAX, 0), write: (usize::MAX, 0) };

    pub(crate) fn draw(random: &mut Random) -> Pace {
        let full = (usize::MAX, 0);
        Pace {
            read: *random.pick(&[full, full, full, (20_000, 20_000), (700, 2_000), Pace::CRAWL]),
            write: *random.pick(&[full, full, (5_000, 1_000), (300, 500)]),
        }
    }
}

impl Pace {
    /// Whether it takes longer to read what waits than a Close may take to be answered.
    pub(crate) fn crawls(&self) -> bool {
        self.read == Pace::CRAWL
    }
}

/// How a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A FIN, behind the record that announces it where there are records.
    Eof,
    /// A FIN without that record.
    Truncated,
    Reset,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) conn: ConnId,
    pub(crate) pace: Pace,
    seal: Option<(Seal, Open)>,
    out: Vec<u8>,
    written: usize,
    /// The FIN follows what is queued.
    fin: bool,
    may_read: u64,
    /// Bytes read since the last pause.
    read_on: usize,
    may_write: u64,
    /// Bytes that went either way.
    pub(crate) moved: u64,
    /// Of the longest record that was queued.
    pub(crate) record_most: usize,
}

impl Link {
    /// A client's end.
    pub(crate) fn new(conn: ConnId, pace: Pace, records: bool) -> Link {
        Link::sealed(conn, pace, records.then_some((Direction::ToServer, Direction::ToClient)))
    }

    /// An upstream's end.
    pub(crate) fn of_upstream(conn: ConnId, pace: Pace, records: bool) -> Link {
        Link::sealed(conn, pace, records.then_some((Direction::ToClient, Direction::ToServer)))
    }

    fn sealed(conn: ConnId, pace: Pace, directions: Option<(Direction, Direction)>) -> Link {
        let seal = directions.map(|(out, back)| (Seal::new(out), Open::new(back)));
        Link {
            conn,
            pace,
            seal,
            out: Vec::new(),
            written: 0,
            fin: false,
            may_read: 0,
            read_on: 0,
            may_write: 0,
            moved: 0,
            record_most: 0,
        }
    }

    /// Whether all that was queued is with the network.
    pub(crate) fn is_flushed(&self) -> bool {
        self.written == self.out.len()
    }

    pub(crate) fn send(&mut self, random: &mut Random, plain: &[u8]) {
        if self.is_flushed() {
            self.out.clear();
            self.written = 0;
        }
        match &mut self.seal {
            None => self.out.extend_from_slice(plain),
            Some((seal, _)) => {
                let mut rest = plain;
                while !rest.is_empty() {
                    let most = *random.pick(&[RECORD_BYTES, RECORD_BYTES, 1_000, 10]);
                    // Records of some bytes are for short sends: each costs its header.
                    let most = if rest.len() > 2_000 { most.max(1_000) } else { most };
                    let (record, behind) = rest.split_at(rest.len().min(most));
                    let before = self.out.len();
                    seal.seal(record, &mut self.out);
                    self.record_most = self.record_most.max(self.out.len() - before);
                    rest = behind;
                }
            }
        }
    }

    /// The FIN follows.
    pub(crate) fn finish(&mut self) {
        if !self.fin {
            self.fin = true;
            if let Some((seal, _)) = &mut self.seal {
                seal.seal_end(&mut self.out);
            }
        }
    }

    /// Writes what its pace allows.
    pub(crate) fn flush(&mut self, net: &mut Net, me: ActorId) {
        while !self.is_flushed() && net.now >= self.may_write {
            let (most, pause) = self.pace.write;
            let end = self.out.len().min(self.written.saturating_add(most));
            let count = net.write(self.conn, &self.out[self.written..end]);
            self.written += count;
            self.moved += count as u64;
            if count == 0 {
                return;
            }
            if pause > 0 {
                self.may_write = net.now + pause;
                net.wake_at(me, self.may_write);
            }
        }
        if self.fin && self.is_flushed() {
            net.finish_writing(self.conn);
        }
    }

    /// Reads what its pace allows; the stream's end, behind its last bytes.
    pub(crate) fn receive(&mut self, net: &mut Net, me: ActorId, into: &mut Vec<u8>) -> Option<End> {
        if self.pace.crawls() {
            net.narrow(self.conn);
        }
        let mut got = Vec::new();
        let mut end = None;
        while net.now >= self.may_read {
            let (most, pause) = self.pace.read;
            match net.read(self.conn, most, &mut got) {
                Read::Bytes(count) => {
                    self.moved += count as u64;
                    self.read_on += count;
                    if pause > 0 && self.read_on >= most {
                        self.read_on = 0;
                        self.may_read = net.now + pause;
                        net.wake_at(me, self.may_read);
                    }
                }
                Read::Nothing => break,
                Read::Eof => {
                    end = Some(End::Eof);
                    break;
                }
                Read::Reset => {
                    end = Some(End::Reset);
                    break;
                }
            }
        }
        match &mut self.seal {
            None => into.append(&mut got),
            Some((_, open)) => open.push(&got, into),
        }
        match (&self.seal, end) {
            (Some((_, open)), Some(End::Eof)) if !open.ended => Some(End::Truncated),
            _ => end,
        }
    }
}
