//! The real shard in the simulator: its configuration, clients and upstreams drawn by seed.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    io,
    rc::Rc,
    sync::Arc,
};

use tidegate_io::{Address, BUFFER_BYTES, Backend, ListenerId};
use tidegate_shard::{
    Departing, Environment, Mail, Plan, Progress, Question, Sender, Shard,
    log::{Cause, Entry, What},
    mailbox,
};

use super::{
    backend::{SimBackend, SimListener, SimWaker},
    client::Client,
    facts::{Deflate, Facts, Full, Promise, RoutePlan, Shared, Terms},
    fitting::Demands,
    generations,
    hooks::Hooks,
    kernel::Armed,
    net::{Connect, Destination, MILLIS, Net, PROXIED, SECONDS, Trace},
    random::Random,
    removals,
    upstream::{Mode, Upstream},
    world::{Bounds, Inspection, Outcome, Subject, World},
};

/// A shard's surroundings, from the seed.
pub(crate) struct Surroundings {
    random: Random,
    trace: Trace,
    /// Sessions that were logged as slow.
    slow: BTreeSet<u64>,
    /// Where routes have some.
    hooks: Option<Hooks>,
}

impl Surroundings {
    pub(crate) fn new(random: Random, trace: Trace) -> Surroundings {
        Surroundings { random, trace, slow: BTreeSet::new(), hooks: None }
    }
}

impl Environment for Surroundings {
    fn random(&mut self, out: &mut [u8]) {
        self.random.fill(out);
    }

    fn unix_seconds(&self) -> u64 {
        784_111_777
    }

    fn ask(&mut self, question: Question) {
        self.hooks.as_ref().expect("a route with a hook").ask(question);
    }

    fn log(&mut self, entry: Entry) {
        if self.trace == Trace::Print {
            println!("              log: {:?} {:x?} {:?}", entry.level, entry.session, entry.what);
        }
        if let What::Ended { reason, .. } | What::Closed { cause: Cause { reason, .. }, .. } = entry.what
            && reason.starts_with("slow consumer")
        {
            let session = entry.session.expect("it has ended");
            assert!(self.slow.insert(session), "session {session:x} is logged as slow more than once");
        }
    }
}

/// The real shard as a world's subject.
pub(crate) struct Gateway {
    pub(crate) shard: Shard<SimBackend, Surroundings>,
    /// Without pings an open session may have no deadline.
    pings: bool,
    /// The most that there were of each at once.
    departing: Cell<Departing>,
}

impl Gateway {
    pub(crate) fn new(shard: Shard<SimBackend, Surroundings>, pings: bool) -> Gateway {
        Gateway { shard, pings, departing: Cell::default() }
    }

    fn note(&self, now: Departing) {
        let most = self.departing.get();
        self.departing.set(Departing {
            deciding: most.deciding.max(now.deciding),
            waiting: most.waiting.max(now.waiting),
            open: most.open.max(now.open),
            paired: most.paired.max(now.paired),
            streams: most.streams.max(now.streams),
            polls: most.polls.max(now.polls),
            publications: most.publications.max(now.publications),
        });
    }
}

impl Subject for Gateway {
    fn turn(&mut self) -> io::Result<bool> {
        Ok(self.shard.step()? == Progress::Running)
    }

    fn inspect(&self) -> Inspection {
        let seen = self.shard.inspect();
        self.note(seen.departing);
        let legs = seen.legs;
        Inspection {
            slots: seen.slots,
            legs: legs.head
                + legs.deciding
                + legs.waiting
                + legs.open
                + legs.closing
                + legs.lingering
                + legs.ending
                + legs.exchanges
                + legs.dialing,
            armed: Armed {
                sockets: seen.sockets,
                receives: seen.receives,
                polls: seen.polls,
                connects: seen.connects,
            },
            buffers: seen.buffers,
            retained: seen.retained,
            retained_sum: seen.retained_sum,
            outbox_bytes: seen.outbox_bytes,
            outbox_most: seen.outbox_most,
            partial_bytes: seen.partial_bytes,
            timed: seen.wheel,
            untimed: seen.untimed,
            // A leg that only awaits its final events needs no deadline: the kernel owes them. A client that waits for a
            // leg that dials has that one's.
            excused_untimed: legs.ending
                + legs.waiting.min(legs.dialing)
                + if self.pings { 0 } else { legs.open + legs.exchanges },
            inflaters: seen.inflaters,
            sends: seen.sends,
            turn_bytes: seen.turn_bytes,
            listeners: seen.listeners,
            kept: seen.kept,
            overdue: seen.overdue,
            miscounted: seen.miscounted,
        }
    }

    fn cover(&self, covered: &mut BTreeMap<String, u64>) {
        let departing = self.departing.get();
        for (what, count) in [
            ("for a hook", departing.deciding),
            ("for an upstream", departing.waiting),
            ("sessions", departing.open),
            ("pairs", departing.paired),
            ("streams", departing.streams),
            ("polls", departing.polls),
            ("publications", departing.publications),
        ] {
            if count > 0 {
                *covered.entry(format!("departing: {what}")).or_default() += u64::from(count);
            }
        }
        let counters = self.shard.counters();
        for (what, count) in [
            ("kept for a later turn", counters.kept),
            ("reader paused", counters.pauses),
            ("publisher held back", counters.held_back),
            ("ended for memory", counters.relieved),
            ("subscriber fell behind", counters.fell_behind),
            ("slow session ended", counters.slow),
        ] {
            if count > 0 {
                *covered.entry(format!("shard: {what}")).or_default() += count;
            }
        }
    }
}

/// Sessions of a seed at most.
const MOST_CLIENTS: usize = 200;

/// What a seed configures.
struct Setup {
    terms: Terms,
    outbox_soft: usize,
    outbox_hard: usize,
    max_sessions: usize,
    clients: u64,
    /// By route behind the echo: the modes of its upstreams, and what a connect to each meets.
    proxies: Vec<Vec<(Mode, Connect)>>,
    /// Proxies whose last upstream is given by name.
    named: Vec<bool>,
    proxy_settings: String,
    /// By route, the echo first.
    deflate: Vec<Deflate>,
    demands: Vec<Demands>,
    /// Where the upstream judges texts.
    any_text: Vec<bool>,
    codecs: String,
    inflaters: u32,
}

impl Setup {
    fn draw(random: &mut Random, seed: u64) -> Setup {
        let clients = *random.pick(&[4, 40, 100, 200]);
        let clients = random.range(1..=clients);
        let clients = if is_contest(seed) { clients.clamp(8, 24) } else { clients };
        let max_sessions = if random.below(6) == 0 { random.size(1..=6) } else { MOST_CLIENTS };
        let message_bytes = *random.pick(&[16 << 10, 64 << 10, 256 << 10]);
        let outbox_soft = *random.pick(&[4 << 10, 64 << 10, 256 << 10]);
        let full = match random.below(8) {
            0 => Full::DropNew,
            1 => Full::DropOld,
            2 => Full::Disconnect,
            _ => Full::Pause,
        };
        // Of its own: what else a seed draws must not depend on it.
        let contest = is_contest(seed);
        let pings = Random::new(seed ^ 0x7069_6e67).below(6) > 0;
        let terms = Terms {
            idle_timeout: if random.below(4) == 0 { 45 * SECONDS } else { 0 },
            full,
            head_timeout: 10 * SECONDS,
            message_timeout: 30 * SECONDS,
            ping_interval: random.range(5..=25) * SECONDS * u64::from(pings),
            pong_timeout: 10 * SECONDS,
            close_timeout: 5 * SECONDS,
            write_timeout: 30 * SECONDS,
            connect_timeout: 5 * SECONDS,
            handshake_timeout: 10 * SECONDS,
            message_bytes,
            contest,
            may_be_full: max_sessions < MOST_CLIENTS,
        };
        let proxies: Vec<_> = (0..random.below(4)).map(|_| draw_upstreams(random)).collect();
        let deflate = (0..=proxies.len()).map(|route| draw_deflate(random, route > 0)).collect();
        // Of its own: what else a seed draws must not depend on it.
        let mut fitting = Random::new(seed ^ 0x6669_7473);
        // Of its own: what else a seed draws must not depend on it.
        let mut asking = Random::new(seed ^ 0x686f_6f6b);
        let has_hooks = asking.below(3) == 0 && !contest;
        let demands = (0..=proxies.len()).map(|_| {
            let demands = Demands::draw(&mut fitting);
            if has_hooks { demands.with_hook(&mut asking) } else { demands }
        });
        let demands = demands.collect();
        let mut texts = Random::new(seed ^ 0x7574_6638);
        let any_text = (0..=proxies.len()).map(|route| route > 0 && texts.below(2) == 0).collect();
        let inflaters = *random.pick(&[1, 2, 64]);
        let codecs = format!(
            "inflaters = {}\ndeflaters = {}\ntakeover_bytes = {}\n",
            inflaters,
            random.pick(&[1, 8]),
            random.pick(&[400 << 10, 64 << 20])
        );
        let balances = ["\"round_robin\"", "\"least_sessions\"", "\"hash\"\nhash_on = \"client_address\""];
        let balance = *random.pick(&balances);
        Setup {
            terms,
            outbox_soft,
            outbox_hard: outbox_soft + 2 * message_bytes + (512 << 10),
            max_sessions,
            clients,
            deflate,
            demands,
            any_text,
            codecs,
            inflaters,
            named: proxies.iter().map(|_| random.below(4) == 0).collect(),
            proxies,
            proxy_settings: format!("balance = {balance}\nretries = 2\n"),
        }
    }

    fn routes(&self) -> Vec<RoutePlan> {
        let mut routes = vec![RoutePlan {
            prefix: "/echo".to_string(),
            promise: Promise::Echo,
            deflate: self.deflate[0],
            demands: self.demands[0],
            any_text: false,
        }];
        for (place, upstreams) in self.proxies.iter().enumerate() {
            // The last one serves where several stand in a row: those before it cannot be reached.
            let (mode, connect) = *upstreams.last().expect("at least one");
            let promise = match connect {
                Connect::Accept => mode.promise(),
                Connect::Refuse | Connect::Silent => Promise::Refused(&[502, 504]),
            };
            routes.push(RoutePlan {
                prefix: format!("/p/{place}"),
                promise,
                deflate: self.deflate[place + 1],
                demands: self.demands[place + 1],
                any_text: self.has_any_text(place + 1),
            });
        }
        routes
    }

    /// Upstreams that fail do not judge texts.
    fn has_any_text(&self, route: usize) -> bool {
        let (mode, _) = self.proxies[route - 1].last().expect("at least one");
        self.any_text[route] && matches!(mode, Mode::Echo { .. } | Mode::Source { .. })
    }

    fn text(&self) -> String {
        let Setup { terms, .. } = self;
        let seconds = |time: u64| format!("\"{}ms\"", time / MILLIS);
        let mut text = format!(
            "version = 1\n[limits]\nmax_sessions = {}\nmessage_bytes = {}\noutbox_soft = {}\noutbox_hard = {}\n\
             head_timeout = {}\nmessage_timeout = {}\nping_interval = {}\npong_timeout = {}\nclose_timeout = {}\n\
             write_timeout = {}\nidle_timeout = {}\n{}{}[[listener]]\nbind = \"127.0.0.1:9001\"\n\
             [[listener]]\nbind = \"127.0.0.1:9002\"\n[[listener]]\nbind = \"127.0.0.1:9003\"\n\
             proxy_protocol = [\"192.0.2.3\"]\n\
             [[route]]\npath = \"/\"\npage = {{}}\n[[route]]\npath = \"/echo\"\n{}echo = {{ {} }}\nfull = \"{}\"\n",
            self.max_sessions,
            terms.message_bytes,
            self.outbox_soft,
            self.outbox_hard,
            seconds(terms.head_timeout),
            seconds(terms.message_timeout),
            seconds(terms.ping_interval),
            seconds(terms.pong_timeout),
            seconds(terms.close_timeout),
            seconds(terms.write_timeout),
            seconds(terms.idle_timeout),
            self.codecs,
            Demands::identities(),
            self.demands[0].text(),
            match self.deflate[0] {
                Deflate::Nobody | Deflate::Ends => "deflate = \"off\"",
                Deflate::Gateway { takeover: true } => "context_takeover = true",
                Deflate::Gateway { takeover: false } => "",
            },
            match terms.full {
                Full::Pause => "pause",
                Full::DropNew => "drop_new",
                Full::DropOld => "drop_old",
                Full::Disconnect => "disconnect",
            },
        );
        if terms.full != Full::Pause {
            // Where a full outbox is what is to be seen it must be a small one.
            let (soft, hard) = (self.outbox_soft, self.outbox_soft * 2);
            text += &format!("[route.limits]\noutbox_soft = {soft}\noutbox_hard = {hard}\n");
        }
        for (route, upstreams) in self.proxies.iter().enumerate() {
            let urls: Vec<String> = (0..upstreams.len())
                .map(|place| match self.named[route] && place == upstreams.len() - 1 {
                    true => format!("\"ws://upstream-{route}.test:{}\"", port(route, place)),
                    false => format!("\"{}\"", url(route, place)),
                })
                .collect();
            text += &format!(
                "[[route]]\npath = \"/p/{route}/*\"\n{}[route.proxy]\nupstreams = [{}]\nconnect_timeout = {}\n\
                 handshake_timeout = {}\n{}{}{}",
                self.demands[route + 1].text(),
                urls.join(", "),
                seconds(terms.connect_timeout),
                seconds(terms.handshake_timeout),
                self.proxy_settings,
                if self.has_any_text(route + 1) { "utf8 = \"upstream\"\n" } else { "" },
                match self.deflate[route + 1] {
                    Deflate::Nobody => "deflate = \"off\"\n",
                    Deflate::Ends => "deflate = \"pass\"\n",
                    Deflate::Gateway { takeover: true } => "deflate = \"edge\"\ncontext_takeover = true\n",
                    Deflate::Gateway { takeover: false } => "deflate = \"edge\"\n",
                },
            );
        }
        text
    }
}

fn draw_deflate(random: &mut Random, proxied: bool) -> Deflate {
    match random.below(4) {
        0 => Deflate::Nobody,
        1 => Deflate::Gateway { takeover: true },
        2 if proxied => Deflate::Ends,
        _ => Deflate::Gateway { takeover: false },
    }
}

fn draw_upstreams(random: &mut Random) -> Vec<(Mode, Connect)> {
    let mode = Mode::draw(random);
    match random.below(8) {
        0 => vec![(mode, Connect::Refuse)],
        1 => vec![(mode, Connect::Silent)],
        2 | 3 => vec![(mode, Connect::Refuse), (mode, Connect::Accept)],
        4 => vec![(mode, Connect::Silent), (mode, Connect::Refuse), (mode, Connect::Accept)],
        _ => vec![(mode, Connect::Accept)],
    }
}

fn port(route: usize, place: usize) -> usize {
    9_100 + 10 * route + place
}

fn url(route: usize, place: usize) -> String {
    match (route + place) % 2 {
        0 => format!("ws://127.0.0.1:{}", port(route, place)),
        _ => format!("unix:/run/upstream-{}.sock", port(route, place)),
    }
}

fn address(route: usize, place: usize) -> Address {
    match (route + place) % 2 {
        0 => Address::Tcp(format!("127.0.0.1:{}", port(route, place)).parse().expect("an address")),
        _ => Address::Unix(format!("/run/upstream-{}.sock", port(route, place)).into()),
    }
}

/// Runs a seed with the real shard.
pub(crate) fn run(seed: u64, trace: Trace) -> Outcome {
    let mut world = World::new(seed, trace);
    let setup = Setup::draw(&mut world.random, seed);
    let text = setup.text();
    world.net.borrow().say(|| text.clone());
    let config = tidegate_config::parse(&text, "seed.toml").unwrap_or_else(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        panic!("{}", problems.join("\n"))
    });
    let plan = Plan::new(config, 1);
    let backend = world.backend();
    let (letters, letterbox) = mailbox(backend.waker());
    let mut surroundings = Surroundings::new(world.random.fork(), trace);
    // Of its own: what else a seed draws must not depend on it.
    surroundings.hooks = Some(Hooks::new(&world.net, &letters, Random::new(seed ^ 0x6465_6369)));
    let mut shard = Shard::new(0, backend, surroundings, Arc::clone(&plan), letterbox, setup.max_sessions);
    // What is counted besides must change nothing.
    if seed % 2 == 1 {
        shard.account_to(Arc::default());
    }
    let turn_bytes = bound_turns(&mut shard, &mut world.net.borrow_mut(), seed);
    let backlog = *world.random.pick(&[1, 4, 128]);
    shard.listen(ListenerId(0), SimListener { backlog }).expect("it is the first one");
    listen_again(&mut shard, SimListener { backlog });
    shard.listen(ListenerId(PROXIED), SimListener { backlog }).expect("it is the third one");
    let facts = Facts::new(setup.terms, setup.routes());
    let records = dial_records(&mut shard, seed);
    add_upstreams(&mut world.net.borrow_mut(), &setup, &facts, records);
    let span = add_clients(&mut world, &setup, &facts, seed);
    world.plan_faults(span);
    // One seed in four is drained while sessions are open.
    let early = (world.random.below(4) == 0).then(|| world.net.borrow().now + world.random.below(2 * span));
    world.net.borrow_mut().drain_at(early, generations::drain(seed, &letters));
    let newest =
        generations::come(&mut world.net.borrow_mut(), seed, &plan, span, &letters, &facts, &setup.named);
    let stops = stop_early(&world, seed, early, span, &letters);
    resolve_names(&mut world, &setup, &plan, &facts, &letters);
    let slots = setup.max_sessions as u32 * 2 + 64;
    let bounds = Bounds {
        slots,
        inflaters: setup.inflaters,
        outbox: setup.outbox_hard + 1_024,
        // A message twice while it grows, or early data: one buffer, and the burst behind the pause.
        partial_per_slot: (2 * setup.terms.message_bytes).max(16 * BUFFER_BYTES) + (40 << 10),
        timed: true,
        // What was kept and what came: of each the first event may add what one buffer holds, and the last one a message
        // and its sealed copy.
        turn_bytes: 2 * (turn_bytes + 2 * setup.terms.message_bytes + (256 << 10)),
        shares: false,
    };
    let pings = setup.terms.ping_interval > 0;
    let outcome = world.run(Gateway::new(shard, pings), &bounds);
    if !stops {
        removals::check_end(&newest.borrow());
    }
    assert!(plan.retained_bytes() == 0, "{} bytes count as retained after the end", plan.retained_bytes());
    outcome
}

/// One seed in eight is told to end at once: behind the drain that came early, or without one. Gives whether this is one.
fn stop_early(world: &World, seed: u64, drain: Option<u64>, span: u64, letters: &Sender<SimWaker>) -> bool {
    // Of its own: what else a seed draws must not depend on it.
    let mut random = Random::new(seed ^ 0x7374_6f70);
    if random.below(8) > 0 {
        return false;
    }
    let mut net = world.net.borrow_mut();
    let time = match drain {
        Some(drain) => drain + random.below(6 * SECONDS),
        None => net.now + random.below(2 * span),
    };
    let letters = letters.clone();
    net.stop_at(time, Box::new(move || letters.order(Mail::Stop)));
    true
}

/// In one seed of eight clients compete for the shard's turns.
fn is_contest(seed: u64) -> bool {
    Random::new(seed ^ 0x7261_6365).below(8) == 0
}

/// In half of the seeds a turn holds so little that much has to wait for later ones; gives the bytes.
fn bound_turns(shard: &mut Shard<SimBackend, Surroundings>, net: &mut Net, seed: u64) -> usize {
    // Of its own: what else a seed draws must not depend on it.
    let mut random = Random::new(seed ^ 0x7475_726e);
    if random.below(2) == 0 && !is_contest(seed) {
        return tidegate_shard::TURN_BYTES;
    }
    let bytes = *random.pick(&[1, 1_000, 64 << 10, tidegate_shard::TURN_BYTES]);
    let bytes = if is_contest(seed) { bytes.min(1_000) } else { bytes };
    let buffers = *random.pick(&[1, 2, 8, tidegate_shard::TURN_BUFFERS]);
    shard.bound_turns(bytes, buffers);
    net.turns = Some((bytes, buffers));
    bytes
}

/// The second listener speaks records where the feature is there.
fn listen_again(shard: &mut Shard<SimBackend, Surroundings>, listener: SimListener) {
    #[cfg(feature = "record-transport")]
    let listening = shard.listen_records(ListenerId(1), listener);
    #[cfg(not(feature = "record-transport"))]
    let listening = shard.listen(ListenerId(1), listener);
    listening.expect("it is the second one");
}

/// In half of the seeds upstreams speak records, where the feature is there; whether they do.
#[cfg_attr(not(feature = "record-transport"), expect(unused_variables, reason = "then there are no records"))]
fn dial_records(shard: &mut Shard<SimBackend, Surroundings>, seed: u64) -> bool {
    #[cfg(feature = "record-transport")]
    // Of its own: what else a seed draws must not depend on it.
    if Random::new(seed ^ 0x6c65_6773).below(2) == 0 {
        shard.dial_records();
        return true;
    }
    false
}

/// Names are resolved some time after the start: to an address that refuses and to the right one.
fn resolve_names(
    world: &mut World,
    setup: &Setup,
    plan: &Arc<Plan>,
    facts: &Shared,
    letters: &Sender<SimWaker>,
) {
    for (place, upstreams) in setup.proxies.iter().enumerate().filter(|(place, _)| setup.named[*place]) {
        let last = upstreams.len() - 1;
        let dead = Address::Tcp(format!("127.0.0.1:{}", port(place, 9)).parse().expect("an address"));
        let mut net = world.net.borrow_mut();
        let failed = Rc::clone(facts);
        net.destinations.push(Destination {
            address: dead.clone(),
            serve: Rc::new(|_, _| unreachable!("nobody is there")),
            connect: Connect::Refuse,
            // That it refuses is no excuse: the name's other address serves.
            failed: Rc::new(move |_, local| {
                if local {
                    failed.route_failed(place + 1);
                }
            }),
        });
        let mut addresses = vec![dead, address(place, last)];
        if world.random.below(2) == 0 {
            addresses.reverse();
        }
        let (plan, letters) = (Arc::clone(plan), letters.clone());
        // The page and the echo stand before the proxies.
        let route = place + 2;
        let wait = *world.random.pick(&[0, SECONDS, 3 * SECONDS, 30 * SECONDS]);
        if wait > 3 * SECONDS {
            facts.route_failed(place + 1);
        }
        let letter = move || {
            plan.set_addresses(route, last, addresses);
            letters.send(Mail::Resolved).expect("the mailbox has room");
        };
        let time = net.now + wait;
        net.post_at(time, Box::new(letter));
    }
}

fn add_clients(world: &mut World, setup: &Setup, facts: &Shared, seed: u64) -> u64 {
    let span = *world.random.pick(&[SECONDS, 20 * SECONDS, 100 * SECONDS]);
    let span = if setup.terms.contest { SECONDS / 10 } else { span };
    let mut net = world.net.borrow_mut();
    for id in 0..setup.clients {
        let start = net.now + world.random.below(span);
        // Half of them at the echo, the others anywhere.
        let route = if world.random.below(2) == 0 { 0 } else { world.random.index(facts.routes.len()) };
        let listener = u8::from(world.random.below(4) == 0);
        // Of its own: what else a seed draws must not depend on it.
        let is_proxied = listener == 0 && Random::new(seed ^ id << 32 ^ 0x5052_4f58).below(6) == 0;
        let listener = if is_proxied { PROXIED } else { listener };
        // Who competes is there, and at the same place.
        let (route, listener) = if setup.terms.contest { (0, 0) } else { (route, listener) };
        let client = Client::new(id, facts, route, listener, start, world.random.fork());
        let actor = net.add_actor(Box::new(client));
        net.wake_at(actor, start);
    }
    span
}

fn add_upstreams(net: &mut Net, setup: &Setup, facts: &Shared, records: bool) {
    for (place, upstreams) in setup.proxies.iter().enumerate() {
        let route = place + 1;
        for (index, &(mode, connect)) in upstreams.iter().enumerate() {
            let last = index == upstreams.len() - 1;
            if mode.counts_as_failed() || (last && connect != Connect::Accept) {
                facts.route_failed(route);
            }
            let (served, failed) = (Rc::clone(facts), Rc::clone(facts));
            net.destinations.push(Destination {
                address: address(place, index),
                serve: Rc::new(move |net, conn| {
                    let random = net.random.fork();
                    Box::new(Upstream::new(&served, route, mode, conn, records, random))
                }),
                connect,
                // That those before the last one cannot be reached is no excuse, but for the gateway's own machine.
                failed: Rc::new(move |_, local| {
                    if last || local {
                        failed.route_failed(route);
                    }
                }),
            });
        }
    }
}
