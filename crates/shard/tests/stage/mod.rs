//! A shard on a backend that a test plays by hand, in virtual time.

// Each test binary uses its own part of this module.
#![allow(dead_code)]

mod neighbour;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tidegate_hub::TopicName;
use tidegate_io::{
    Address, BUFFER_BYTES, Backend, Buffer, ConnectOptions, Counters, Event, Lent, ListenerId, Pool,
    ReceiveEnd, Remainder, Sends, Token, Wake,
};
use tidegate_shard::{
    Answers, Environment, Generation, Mail, Mailbox, Plan, Progress, Question, Sender, Shard,
    log::{Entry, Fields, What},
    mailbox,
};
use tidegate_tls::ServerConfig;
use tidegate_wire::close::CloseCode;

#[allow(unused_imports)] // As above.
pub(crate) use self::neighbour::Neighbour;

/// A socket's number: those that were accepted and those that were made to connect, in one row.
pub(crate) type Socket = usize;

/// Where connections speak records, with the feature for that.
pub(crate) const RECORDS: ListenerId = ListenerId(1);

/// Linux's `EAGAIN`.
const EAGAIN: i32 = 11;
/// Linux's `ECONNRESET`.
const ECONNRESET: i32 = 104;

/// Topics below a name that live on this shard of two.
pub(crate) fn topics_at(below: &str, shard: u16) -> impl Iterator<Item = String> {
    let names = (0..).map(move |n| format!("{below}/{n}"));
    names.filter(move |name| TopicName::parse(name).expect("a name").home(2) == shard)
}

/// What the kernel knows of a socket.
#[derive(Default)]
pub(crate) struct Kernel {
    /// Whose receive is armed.
    pub(crate) receive: Option<Token>,
    pub(crate) poll: Option<Token>,
    pub(crate) connect: Option<Token>,
    /// How many bytes its sends take before it is full.
    pub(crate) room: usize,
    pub(crate) sent: Vec<u8>,
    pub(crate) fin: bool,
    /// Shut down, and whether by a reset.
    pub(crate) down: Option<bool>,
    /// Its peer has reset the connection.
    pub(crate) broken: bool,
}

pub(crate) struct World {
    pub(crate) now_ms: u64,
    pub(crate) sockets: Vec<Kernel>,
    pub(crate) events: VecDeque<Event<Socket>>,
    pub(crate) pool: Pool,
    /// No buffer is there.
    pub(crate) empty: bool,
    /// How long the last turn would have waited.
    pub(crate) deadline: Option<Duration>,
    /// In the order in which they were armed.
    pub(crate) armed: Vec<Socket>,
}

impl World {
    pub(crate) fn complete(&mut self, event: Event<Socket>) {
        self.events.push_back(event);
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Waker;

impl Wake for Waker {
    fn wake(&self) {}
}

pub(crate) struct Manual(Rc<RefCell<World>>);

impl Backend for Manual {
    type Socket = Socket;
    type Listener = ();
    type Waker = Waker;

    fn waker(&self) -> Waker {
        Waker
    }

    fn listen(&mut self, _: ListenerId, (): ()) -> io::Result<()> {
        Ok(())
    }

    fn accept(&mut self, _: ListenerId) {}

    fn unlisten(&mut self, _: ListenerId) {}

    fn receive(&mut self, &socket: &Socket, token: Token) {
        let world = &mut *self.0.borrow_mut();
        assert_eq!(world.sockets[socket].receive.replace(token), None);
        world.armed.push(socket);
    }

    fn cancel_receive(&mut self, &socket: &Socket, token: Token) {
        let world = &mut *self.0.borrow_mut();
        assert_eq!(world.sockets[socket].receive.take(), Some(token));
        world.complete(Event::ReceiveEnded { token, end: ReceiveEnd::Cancelled });
    }

    fn poll_writable(&mut self, &socket: &Socket, token: Token) {
        self.0.borrow_mut().sockets[socket].poll = Some(token);
    }

    fn connect(&mut self, _: &Address, _: &ConnectOptions, token: Token) -> io::Result<Socket> {
        let world = &mut *self.0.borrow_mut();
        world.sockets.push(Kernel { connect: Some(token), room: usize::MAX, ..Kernel::default() });
        Ok(world.sockets.len() - 1)
    }

    fn shutdown_write(&mut self, &socket: &Socket) {
        self.0.borrow_mut().sockets[socket].fin = true;
    }

    fn shutdown(&mut self, &socket: &Socket, reset: bool) {
        let world = &mut *self.0.borrow_mut();
        let kernel = &mut world.sockets[socket];
        kernel.down = Some(reset);
        let (receive, poll) = (kernel.receive.take(), kernel.poll.take());
        if let Some(token) = receive {
            world.complete(Event::ReceiveEnded { token, end: ReceiveEnd::Eof });
        }
        if let Some(token) = poll {
            world.complete(Event::Writable { token });
        }
    }

    fn close(&mut self, _: Socket) {}

    fn recycle(&mut self, buffer: Buffer) {
        self.0.borrow_mut().pool.give(buffer);
    }

    fn turn<T: Sends<Socket>>(
        &mut self,
        sends: &T,
        deadline: Option<Duration>,
        events: &mut Vec<Event<Socket>>,
        remainders: &mut Vec<Remainder>,
    ) -> io::Result<()> {
        let world = &mut *self.0.borrow_mut();
        world.deadline = deadline;
        for index in 0..sends.len() {
            let kernel = &mut world.sockets[*sends.socket(index)];
            if kernel.broken {
                remainders.push(Remainder { index: index as u32, sent: 0, errno: ECONNRESET });
                continue;
            }
            let (mut total, mut sent) = (0, 0);
            for piece in sends.pieces(index) {
                let taken = piece.len().min(kernel.room);
                kernel.sent.extend_from_slice(&piece[..taken]);
                kernel.room -= taken;
                (total, sent) = (total + piece.len(), sent + taken);
            }
            if sent < total {
                remainders.push(Remainder { index: index as u32, sent, errno: EAGAIN });
            }
        }
        events.extend(world.events.drain(..));
        Ok(())
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.borrow().now_ms)
    }

    fn buffers(&self) -> Lent {
        let world = self.0.borrow();
        let lent = world.pool.lent();
        if world.empty { Lent { lent: lent.total, ..lent } } else { lent }
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

/// What was logged, as it is written, the last seed that was drawn, the system's clock, and what hooks are asked.
pub(crate) struct Surroundings(Rc<RefCell<Vec<String>>>, u64, Rc<Cell<u64>>, Rc<RefCell<VecDeque<Question>>>);

/// Where the system's clock stands unless a test sets it: shards have a clock of their own.
pub(crate) const UNIX_SECONDS: u64 = 784_111_777;

impl Environment for Surroundings {
    fn random(&mut self, out: &mut [u8]) {
        out.fill(0);
    }

    /// Clients have names of their own.
    fn draw_seed(&mut self) -> u64 {
        self.1 += 1;
        self.1
    }

    fn unix_seconds(&self) -> u64 {
        self.2.get()
    }

    fn log(&mut self, entry: Entry) {
        self.0.borrow_mut().push(line(&entry.what));
    }

    fn ask(&mut self, question: Question) {
        self.3.borrow_mut().push_back(question);
    }
}

/// An entry in one line: the words, and the fields with their names.
fn line(what: &What) -> String {
    let Fields { leg, code, status, reason, errno, address, connections, entries, totals } = what.fields();
    let reason = reason.map(|reason| format!("{reason:?}"));
    let error = errno.map(|errno| format!("{:?}", io::Error::from_raw_os_error(errno).to_string()));
    let mut line = what.message().to_owned();
    let mut field = |name: &str, value: Option<String>| {
        line.extend(value.map(|value| format!(" {name}={value}")));
    };
    field("leg", leg.map(|leg| leg.to_string()));
    field("code", code.map(|code| code.to_string()));
    field("status", status.map(|status| status.to_string()));
    field("connections", connections.map(|count| count.to_string()));
    field("entries", entries.map(|count| count.to_string()));
    field("reason", reason);
    field("error", error);
    field("address", address.map(|address| address.to_string()));
    if let Some(totals) = totals {
        field("received_bytes", Some(totals.received_bytes.to_string()));
        field("sent_bytes", Some(totals.sent_bytes.to_string()));
        field("received_messages", Some(totals.received_messages.to_string()));
        field("sent_messages", Some(totals.sent_messages.to_string()));
        field("duration_ms", Some(totals.duration_ms.to_string()));
    }
    line
}

/// A shard and the hand that plays its kernel.
pub(crate) struct Stage {
    pub(crate) world: Rc<RefCell<World>>,
    pub(crate) shard: Shard<Manual, Surroundings>,
    pub(crate) plan: Arc<Plan>,
    /// What other shards are sent.
    pub(crate) others: Vec<Mailbox>,
    pub(crate) sender: Sender<Waker>,
    pub(crate) log: Rc<RefCell<Vec<String>>>,
    /// What hooks were asked and have not answered.
    pub(crate) questions: Rc<RefCell<VecDeque<Question>>>,
    /// The system's clock, in seconds since 1970.
    pub(crate) unix_seconds: Rc<Cell<u64>>,
    /// The tokens of sockets, from when they were first armed.
    pub(crate) tokens: BTreeMap<Socket, Token>,
}

impl Stage {
    /// One route at `/r`, with these lines in its table; `limits` are those of all.
    pub(crate) fn new(limits: &str, route: &str) -> Stage {
        Stage::of(&format!("[limits]\n{limits}\n[[route]]\npath = \"/r\"\n{route}\n"), 1)
    }

    /// The first of so many shards; of the others nobody ever does anything.
    pub(crate) fn of(config: &str, shards: usize) -> Stage {
        Stage::listening(config, "", shards)
    }

    /// The same with these lines in its listener's table.
    pub(crate) fn listening(config: &str, listener: &str, shards: usize) -> Stage {
        let text = format!("version = 1\n{config}\n[[listener]]\nbind = \"127.0.0.1:1\"\n{listener}\n");
        let config = tidegate_config::parse(&text, "test.toml").expect("a valid configuration");
        let plan = Plan::new(config, shards);
        let world = Rc::new(RefCell::new(World {
            now_ms: 100_000,
            sockets: Vec::new(),
            events: VecDeque::new(),
            pool: Pool::new(64, BUFFER_BYTES).expect("a few pages"),
            empty: false,
            deadline: None,
            armed: Vec::new(),
        }));
        let log = Rc::new(RefCell::new(Vec::new()));
        let (sender, inbox) = mailbox(Waker);
        let (questions, unix_seconds) = (Rc::default(), Rc::new(Cell::new(UNIX_SECONDS)));
        let surroundings = Surroundings(Rc::clone(&log), 0, Rc::clone(&unix_seconds), Rc::clone(&questions));
        let mut shard = Shard::new(0, Manual(Rc::clone(&world)), surroundings, Arc::clone(&plan), inbox, 100);
        shard.listen(ListenerId(0), ()).expect("it takes all");
        #[cfg(feature = "record-transport")]
        shard.listen_records(RECORDS, ()).expect("it takes all");
        let (peers, others): (Vec<_>, Vec<_>) = (0..shards).map(|_| mailbox(Waker)).unzip();
        shard.meet(peers);
        Stage { world, shard, plan, others, sender, log, questions, unix_seconds, tokens: BTreeMap::new() }
    }

    pub(crate) fn turn(&mut self) -> Progress {
        let progress = self.shard.step().expect("it never breaks");
        for (socket, kernel) in self.world.borrow().sockets.iter().enumerate() {
            let token = kernel.receive.or(kernel.poll).or(kernel.connect);
            if let Some(token) = token {
                self.tokens.insert(socket, token);
            }
        }
        progress
    }

    pub(crate) fn turns(&mut self, count: usize) {
        (0..count).for_each(|_| {
            self.turn();
        });
    }

    /// The most messages, answered or relayed, that one of the next 200 turns reads.
    pub(crate) fn most_read_in_a_turn(&mut self) -> u64 {
        let read = |stage: &Stage| stage.shard.counters().messages + stage.shard.counters().relayed;
        let turns = (0..200).map(|_| {
            let before = read(self);
            self.turn();
            read(self) - before
        });
        turns.max().expect("there are some")
    }

    /// Lets this time pass in steps of 100 ms.
    pub(crate) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.world.borrow_mut().now_ms += 100;
            self.turns(3);
        }
    }

    pub(crate) fn accept(&mut self) -> Socket {
        self.accept_at(ListenerId(0))
    }

    pub(crate) fn accept_at(&mut self, listener: ListenerId) -> Socket {
        self.accept_from(listener, None)
    }

    pub(crate) fn accept_from(&mut self, listener: ListenerId, peer: Option<SocketAddr>) -> Socket {
        let socket = {
            let world = &mut *self.world.borrow_mut();
            world.sockets.push(Kernel { room: usize::MAX, ..Kernel::default() });
            let socket = world.sockets.len() - 1;
            world.complete(Event::Accepted { listener, socket, peer });
            socket
        };
        self.turns(2);
        socket
    }

    pub(crate) fn socket<T>(&self, socket: Socket, read: impl FnOnce(&mut Kernel) -> T) -> T {
        read(&mut self.world.borrow_mut().sockets[socket])
    }

    /// Bytes from the peer, where they are read at all.
    pub(crate) fn send(&mut self, socket: Socket, bytes: &[u8]) {
        for part in bytes.chunks(BUFFER_BYTES) {
            {
                let world = &mut *self.world.borrow_mut();
                let token = world.sockets[socket].receive.expect("a receive is armed");
                let mut buffer = world.pool.take().expect("there are enough");
                buffer.fill(part);
                world.complete(Event::Received { token, buffer });
            }
            self.turns(3);
        }
    }

    /// Bytes from the peer that all have arrived when they are first looked at.
    pub(crate) fn send_at_once(&mut self, socket: Socket, bytes: &[u8]) {
        self.arrive(socket, bytes);
        self.turn();
    }

    /// Bytes from the peer that the next turn reads.
    pub(crate) fn arrive(&mut self, socket: Socket, bytes: &[u8]) {
        let world = &mut *self.world.borrow_mut();
        let token = world.sockets[socket].receive.expect("a receive is armed");
        for part in bytes.chunks(BUFFER_BYTES) {
            let mut buffer = world.pool.take().expect("there are enough");
            buffer.fill(part);
            world.complete(Event::Received { token, buffer });
        }
    }

    /// The peer's end, which the next turn hears of: nothing more is received.
    pub(crate) fn end(&mut self, socket: Socket, end: ReceiveEnd) {
        let world = &mut *self.world.borrow_mut();
        let token = world.sockets[socket].receive.take().expect("a receive is armed");
        world.complete(Event::ReceiveEnded { token, end });
    }

    /// The kernel has room for so many bytes again.
    pub(crate) fn make_room(&mut self, socket: Socket, room: usize) {
        {
            let world = &mut *self.world.borrow_mut();
            world.sockets[socket].room = room;
            if let Some(token) = world.sockets[socket].poll.take() {
                world.complete(Event::Writable { token });
            }
        }
        self.turns(3);
    }

    /// A client that has asked for a session.
    pub(crate) fn client(&mut self, fields: &str) -> Socket {
        self.client_at("/r", fields)
    }

    pub(crate) fn client_at(&mut self, path: &str, fields: &str) -> Socket {
        let socket = self.accept();
        self.send(socket, &request(path, fields));
        socket
    }

    pub(crate) fn open(&mut self) -> Socket {
        self.open_with("")
    }

    /// A client whose session is open; what it was sent so far is forgotten.
    pub(crate) fn open_with(&mut self, fields: &str) -> Socket {
        let socket = self.client(fields);
        assert!(self.socket(socket, |kernel| kernel.sent.starts_with(b"HTTP/1.1 101")));
        self.socket(socket, |kernel| kernel.sent.clear());
        socket
    }

    /// An upstream that is dialed is reached.
    pub(crate) fn connect(&mut self, upstream: Socket) {
        let token = self.socket(upstream, |kernel| kernel.connect.take()).expect("it is dialed");
        self.world.borrow_mut().complete(Event::Connected { token, errno: 0 });
        self.turns(3);
    }

    /// An upstream that is dialed takes the session.
    pub(crate) fn upgrade(&mut self, upstream: Socket) {
        self.connect(upstream);
        // The nonce is of zeros here.
        self.send(
            upstream,
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n",
        );
    }

    /// A client and its upstream.
    pub(crate) fn pair(&mut self) -> (Socket, Socket) {
        let client = self.client("");
        let upstream = client + 1;
        self.upgrade(upstream);
        assert!(
            self.socket(client, |kernel| kernel.sent.starts_with(b"HTTP/1.1 101")),
            "{:?}",
            self.log.borrow()
        );
        for socket in [client, upstream] {
            self.socket(socket, |kernel| kernel.sent.clear());
        }
        (client, upstream)
    }

    pub(crate) fn down(&self, socket: Socket) -> Option<bool> {
        self.socket(socket, |kernel| kernel.down)
    }

    pub(crate) fn sent(&self, socket: Socket) -> Vec<u8> {
        self.socket(socket, |kernel| kernel.sent.clone())
    }

    pub(crate) fn drain(&mut self) {
        self.deliver(Mail::Drain(CloseCode::new(1001).expect("a code")));
    }

    /// Gives the shard the next generation, and waits until it has it.
    pub(crate) fn adopt(&mut self, config: tidegate_config::Config) -> Arc<Plan> {
        let plan = self.plan.next(config).expect("a configuration that can follow");
        self.adopt_plan(Arc::clone(&plan));
        plan
    }

    /// The same with a plan that follows.
    pub(crate) fn adopt_plan(&mut self, plan: Arc<Plan>) {
        self.adopt_all(plan, Arc::new([]));
    }

    /// The same configuration once more, with other files of its listeners.
    pub(crate) fn adopt_servers(&mut self, servers: Vec<Option<ServerConfig>>) {
        self.adopt_all(Arc::clone(&self.plan), servers.into());
    }

    fn adopt_all(&mut self, plan: Arc<Plan>, servers: Arc<[Option<ServerConfig>]>) {
        let answers = Answers::default();
        let generation = Generation { plan: Arc::clone(&plan), servers, answers: answers.clone() };
        self.deliver(Mail::Plan(generation));
        assert!(answers.wait(1, Duration::ZERO), "the shard has answered");
        self.plan = plan;
    }

    /// A letter that the shard reads at once.
    pub(crate) fn deliver(&mut self, mail: Mail) {
        self.sender.send(mail).expect("there is room");
        self.world.borrow_mut().complete(Event::Woken);
        self.turns(3);
    }
}

/// A request for a session.
pub(crate) fn request(path: &str, fields: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: gw.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    )
    .into_bytes()
}

/// A frame; `masked` by zeros, which leave the payload as it is.
pub(crate) fn frame(first: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..126 => bytes.push(mask | len as u8),
        len @ 126..0x1_0000 => {
            bytes.push(mask | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(mask | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(if masked { &[0; 4][..] } else { &[] });
    bytes.extend(payload);
    bytes
}

pub(crate) fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes()[..], reason.as_bytes()].concat(), false)
}
