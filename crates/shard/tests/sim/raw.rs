//! A client without a protocol: it sends bytes and wants the same back, in order, and then the end. For [`super::toy`].

use super::{
    net::{Actor, ActorId, ConnId, Excuse, MILLIS, Net, Read, SECONDS},
    random::Random,
};

/// How long an honest client waits for the next byte.
const PATIENCE: u64 = 60 * SECONDS;

/// What it does with its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Sends all, finishes writing, reads all until the end.
    Polite,
    /// Resets after some bytes.
    Resets,
}

pub(crate) struct RawClient {
    name: usize,
    random: Random,
    manner: Manner,
    start: u64,
    conn: Option<ConnId>,
    bytes: Vec<u8>,
    sent: usize,
    read: usize,
    /// At most so many bytes at a time, then a pause of so many microseconds.
    pace: (usize, u64),
    may_read: u64,
    progress: u64,
    /// When it looks at its watch next.
    watched: u64,
    excused: Option<Excuse>,
    done: bool,
}

impl RawClient {
    pub(crate) fn new(name: usize, random: &mut Random, start: u64) -> RawClient {
        let mut random = random.fork();
        let len = *random.pick(&[0, 10, 1_000, 30_000, 200_000]);
        let mut bytes = vec![0; random.size(0..=len)];
        random.fill(&mut bytes);
        let pace = *random.pick(&[(usize::MAX, 0), (usize::MAX, 0), (5_000, 20 * MILLIS), (900, 5 * MILLIS)]);
        let manner = if random.below(8) == 0 { Manner::Resets } else { Manner::Polite };
        RawClient {
            name,
            random,
            manner,
            start,
            conn: None,
            bytes,
            sent: 0,
            read: 0,
            pace,
            may_read: 0,
            progress: start,
            watched: 0,
            excused: None,
            done: false,
        }
    }

    fn read(&mut self, net: &mut Net, me: ActorId, conn: ConnId) {
        while net.now >= self.may_read {
            let mut got = Vec::new();
            match net.read(conn, self.pace.0, &mut got) {
                Read::Bytes(count) => {
                    let due = &self.bytes[..self.sent];
                    let expected = due.get(self.read..self.read + count);
                    assert!(
                        expected == Some(&got[..]),
                        "client {} got bytes that are not its own at {}",
                        self.name,
                        self.read
                    );
                    self.read += count;
                    self.progress = net.now;
                    self.may_read = net.now + self.pace.1;
                    if self.pace.1 > 0 {
                        net.wake_at(me, self.may_read);
                    }
                }
                Read::Nothing => return,
                Read::Eof => {
                    let all = self.read == self.bytes.len();
                    assert!(
                        all || self.excused.is_some(),
                        "client {} got {} of {}",
                        self.name,
                        self.read,
                        self.bytes.len()
                    );
                    net.close_peer(conn, false);
                    self.done = true;
                    return;
                }
                Read::Reset => {
                    assert!(self.excused.is_some(), "client {} was reset", self.name);
                    self.done = true;
                    return;
                }
            }
        }
    }
}

impl Actor for RawClient {
    fn poke(&mut self, net: &mut Net, me: ActorId) {
        if net.now < self.start {
            return net.wake_at(me, self.start);
        }
        let conn = *self.conn.get_or_insert_with(|| net.dial(me, 0));
        self.read(net, me, conn);
        if self.done {
            return;
        }
        let most = self.random.size(1..=9_000);
        let chunk = &self.bytes[self.sent..self.bytes.len().min(self.sent + most)];
        let wrote = net.write(conn, chunk);
        self.sent += wrote;
        if wrote > 0 {
            self.progress = net.now;
            net.wake_at(me, net.now + self.random.range(0..=3 * MILLIS));
        }
        if self.manner == Manner::Resets && self.sent > self.bytes.len() / 2 {
            net.close_peer(conn, true);
            self.done = true;
            return;
        }
        if self.sent == self.bytes.len() && net.conns[conn].established {
            net.finish_writing(conn);
        }
        let patience = self.progress + PATIENCE;
        assert!(
            net.now < patience || self.excused.is_some(),
            "client {} has waited {} s for an answer: {}",
            self.name,
            PATIENCE / SECONDS,
            self.describe()
        );
        if net.now >= self.watched {
            self.watched = patience.max(net.now + SECONDS);
            net.wake_at(me, self.watched);
        }
    }

    fn excuse(&mut self, why: Excuse) {
        self.excused.get_or_insert(why);
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn describe(&self) -> String {
        format!(
            "raw {} sent {} read {} of {} {:?}",
            self.name,
            self.sent,
            self.read,
            self.bytes.len(),
            self.manner
        )
    }
}
