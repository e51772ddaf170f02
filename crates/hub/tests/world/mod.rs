//! Several hubs with queues between them that a seed delays and fills; sessions, publishers, slow readers, kills, restarts and
//! a clock that jumps. All that sessions see goes to the delivery checker.

pub(crate) mod random;
mod sessions;
mod store;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use tidegate_hub::{
    Ask, CatchUp, Class, ClientId, Envelope, Fate, Filter, Format, Hub, Kind, Letter, Limits, MemberRules,
    PUBLICATION_COST, Pattern, Position, Publication, Publish, Refused, Reply, Rule, Slow, Stay,
    SubscriptionId, Ticket, TopicName, TopicRules, TopicSettings,
    delivery::{Broken, Checker, Event, Summary, story},
};
use tidegate_registry::{Key, Total};

use self::{random::Random, sessions::Session, store::Forgetful};

/// Topics by policy; `plain` has no history.
const TOPICS: [&str; 14] = [
    "plain/a", "plain/b", "kept/a", "kept/b", "kept/c/d", "old/a", "old/b", "new/a", "new/b", "conf/a",
    "conf/b", "sync/a", "sync/b", "kept/c",
];
const PATTERNS: [&str; 6] = ["plain/*", "old/**", "**", "*/a", "conf/*", "kept/**"];
/// Whose answers nobody waits for.
const POLLER: Ticket = Ticket { key: Key::from_bits(2 << 32), request: 0 };
/// Until then a poller of the model is present.
const POLL_MS: u64 = 30_000;

fn settings(topic: &str) -> TopicSettings {
    let kept = TopicSettings { history: 12, history_age_ms: 60_000, ..TopicSettings::default() };
    match topic {
        "plain" => TopicSettings::default(),
        "kept" => TopicSettings { presence: true, ..kept },
        "old" => TopicSettings {
            slow: Slow::DropOld,
            presence: true,
            backlog_bytes: 5 * (PUBLICATION_COST + 40),
            ..kept
        },
        "new" => TopicSettings { slow: Slow::DropNew, ..TopicSettings::default() },
        "conf" => TopicSettings { slow: Slow::Conflate, keys: 4, ..kept },
        "sync" => TopicSettings { slow: Slow::Resync, history: 3, ..kept },
        other => panic!("{other} has no rule"),
    }
}

fn conflates(topic: &str) -> bool {
    topic.starts_with("conf/")
}

/// What a request was, for when its answer comes.
enum Asked {
    Publish {
        id: u64,
        once: Option<(String, String)>,
    },
    Subscribe {
        session: u64,
        topic: String,
        recover: Option<Position>,
    },
    /// In the end: where the topic is, who is there.
    State(String),
    Presence(String),
    History {
        before: Option<u64>,
    },
}

/// The model.
pub(crate) struct World {
    random: Random,
    shards: u16,
    hubs: Vec<Hub<Forgetful>>,
    rules: Arc<TopicRules>,
    total: Total,
    /// By sender and receiver.
    queues: Vec<Vec<VecDeque<Vec<Letter>>>>,
    queue_most: usize,
    now_ms: u64,
    sessions: BTreeMap<u64, Session>,
    /// Sessions by the key that their hub knows.
    keys: HashMap<Key, u64>,
    next: u64,
    asked: HashMap<u64, Asked>,
    publishers: Vec<u64>,
    /// Positions that sessions had when they were cut.
    memories: Vec<(String, Position)>,
    /// Where something with an idempotency key was published, and was said to have been, in this life of the gateway.
    once: HashMap<(String, String), (Vec<Position>, Vec<Position>)>,
    pollers: HashMap<(String, String), u64>,
    positions: HashMap<String, Position>,
    presence: HashMap<String, u64>,
    checker: Checker,
    log: Vec<Event>,
    pub(crate) restarts: u64,
    pub(crate) disconnects: u64,
    /// Subscriptions that were ended before they were answered.
    pub(crate) withdrawn: u64,
    /// What hubs have counted, of each kind.
    pub(crate) counts: [u64; 13],
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let shards = 1 + random.below(3) as u16;
        let queue_most = 1 + random.below(3);
        let mut world = Self {
            shards,
            hubs: Vec::new(),
            rules: rules(&mut random),
            total: Total::default(),
            queues: Vec::new(),
            queue_most,
            now_ms: random.next() % 100_000,
            sessions: BTreeMap::new(),
            keys: HashMap::new(),
            next: 1,
            asked: HashMap::new(),
            publishers: vec![1, 2, 3],
            memories: Vec::new(),
            once: HashMap::new(),
            pollers: HashMap::new(),
            positions: HashMap::new(),
            presence: HashMap::new(),
            checker: Checker::new(conflates),
            log: Vec::new(),
            restarts: 0,
            withdrawn: 0,
            disconnects: 0,
            counts: [0; 13],
            random,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        for shard in 0..self.shards {
            let seed = self.random.next();
            let store = Forgetful::new(seed, *self.random.pick(&[0, 20, 200]));
            let rules = Arc::clone(&self.rules);
            self.hubs.push(Hub::with_store(shard, self.shards, rules, seed, &self.total, store));
        }
        let row = || (0..self.shards).map(|_| VecDeque::new()).collect();
        self.queues = (0..self.shards).map(|_| row()).collect();
    }

    /// Runs so many turns and then the end.
    pub(crate) fn run(&mut self, turns: usize) -> Result<Summary, Broken> {
        for _ in 0..turns {
            let shard = self.random.below(usize::from(self.shards));
            self.turn(shard, false)?;
        }
        self.settle()?;
        self.check_end()
    }

    /// One turn of a shard. Where it is `calm`, all letters come and nothing is asked for.
    fn turn(&mut self, shard: usize, calm: bool) -> Result<(), Broken> {
        for from in 0..usize::from(self.shards) {
            let there = self.queues[from][shard].len();
            let come = if calm { there } else { self.random.below(there + 1) };
            for _ in 0..come {
                let letters = self.queues[from][shard].pop_front().expect("it is there");
                self.hubs[shard].receive(from as u16, letters, self.now_ms);
            }
        }
        self.read_answers(shard)?;
        if !calm {
            for _ in 0..self.random.below(6) {
                self.act(shard)?;
                // A session's next command comes behind the answer to its last one.
                self.read_answers(shard)?;
            }
            self.pass_time();
        }
        self.read_outboxes(shard, calm)?;
        if calm || self.random.one_in(3) {
            self.hubs[shard].expire(self.now_ms);
        }
        self.read_answers(shard)?;
        self.fan_out(shard)?;
        while let Some((to, letters)) = self.hubs[shard].poll_letters() {
            assert!(!letters.is_empty() && usize::from(to) != shard);
            let queue = &mut self.queues[shard][usize::from(to)];
            if queue.len() < self.queue_most {
                queue.push_back(letters);
            } else {
                self.hubs[shard].undelivered(to, letters);
            }
        }
        Ok(())
    }

    fn observe(&mut self, event: Event) -> Result<(), Broken> {
        let result = self.checker.observe(&event);
        self.log.push(event);
        result
    }

    /// What the last session of the log saw of the last topic, for a broken promise's report.
    pub(crate) fn story(&self) -> String {
        self.log.last().map_or_else(String::new, |last| story(&self.log, last, 20))
    }

    fn read_answers(&mut self, shard: usize) -> Result<(), Broken> {
        while let Some((ticket, reply)) = self.hubs.get_mut(shard).and_then(Hub::poll_reply) {
            self.answered(ticket, reply)?;
        }
        Ok(())
    }

    fn pass_time(&mut self) {
        if self.random.one_in(4) {
            self.now_ms += self.random.next() % 40;
        }
        if self.random.one_in(150) {
            self.now_ms += self.random.next() % 90_000;
        }
        if self.random.one_in(1_500) {
            self.now_ms += 400_000;
        }
    }

    /// One thing that somebody does on this shard.
    fn act(&mut self, shard: usize) -> Result<(), Broken> {
        match self.random.below(40) {
            0 | 1 => self.enter(shard),
            2..=5 => self.subscribe(shard)?,
            6 => self.subscribe_pattern(shard)?,
            7 => self.unsubscribe(shard)?,
            8 if self.random.one_in(4) => {
                if let Some(session) = self.any_session(shard) {
                    self.cut(session)?;
                }
            }
            9 => {
                let now_ms = self.now_ms;
                let topic = self.any_topic();
                let before = self.random.one_in(2).then(|| self.random.next() % 50);
                let ticket = self.ticket(Asked::History { before });
                let limit = self.random.below(20) as u32;
                self.hubs[shard].history(ticket, &topic, limit, before, now_ms);
            }
            10 => {
                let topic = self.any_topic();
                let client = format!("poller-{}", self.random.below(3));
                let until_ms = self.now_ms + POLL_MS;
                self.poll(shard, &topic, &client, until_ms);
                self.pollers.insert((topic.to_string(), client), until_ms);
            }
            11 if self.random.one_in(60) => self.restart()?,
            12 | 13 => {
                if let Some(session) = self.any_session(shard) {
                    let session = self.sessions.get_mut(&session).expect("it is there");
                    session.reads = !session.reads;
                }
            }
            _ => self.publish(shard)?,
        }
        Ok(())
    }

    /// Somebody asks for a topic under a name, and does not wait.
    fn poll(&mut self, shard: usize, topic: &TopicName, client: &str, until_ms: u64) {
        let hub = &mut self.hubs[shard];
        let class = Class::plain(Envelope::Poll);
        let member = hub.enter(POLLER.key, class, ClientId::from_bits(0), MemberRules::default());
        let stay = Some(Stay { client: client.into(), key: POLLER.key, until_ms });
        let ask = Ask { stay, ..Ask::default() };
        hub.subscribe(member, POLLER, topic, ask, self.now_ms).expect("its only one");
        hub.leave(member);
    }

    fn any_topic(&mut self) -> TopicName {
        TopicName::parse(self.random.pick::<&str>(&TOPICS)).expect("a name")
    }

    fn ticket(&mut self, asked: Asked) -> Ticket {
        self.next += 1;
        self.asked.insert(self.next, asked);
        Ticket { key: Key::from_bits(1 << 32), request: self.next }
    }

    fn publish(&mut self, shard: usize) -> Result<(), Broken> {
        // A publisher stays on its shard: its publications take one way.
        let topic = self.any_topic();
        let publisher = shard as u64 * 10 + *self.random.pick(&self.publishers);
        let id = self.next + 1;
        let key = self.random.one_in(2).then(|| format!("k{}", self.random.below(6)));
        let once = self.random.one_in(8).then(|| format!("o{}", self.random.below(40)));
        let mut publish = Publish::new(Format::Binary, id.to_le_bytes().to_vec());
        publish.payload.resize(8 + self.random.below(60), 0);
        publish.key = key.as_deref().map(Into::into);
        publish.once = once.as_deref().map(Into::into);
        let once = once.map(|once| (topic.to_string(), once));
        let ticket = self.ticket(Asked::Publish { id, once });
        assert_eq!(ticket.request, id);
        self.observe(Event::Publish { publisher, topic: topic.to_string(), id, key })?;
        if let Err(why) = self.hubs[shard].publish(Some(ticket), &topic, publish, self.now_ms) {
            self.asked.remove(&id);
            assert!(matches!(why, Refused::Busy | Refused::TooManyTopics), "{why:?}");
            self.observe(Event::Refused { id })?;
        }
        Ok(())
    }

    fn answered(&mut self, ticket: Ticket, reply: Reply) -> Result<(), Broken> {
        if ticket == POLLER {
            return Ok(());
        }
        let Some(asked) = self.asked.remove(&ticket.request) else {
            // Of a subscription that was ended before it was answered, by a session that has ended since.
            let withdrawn = matches!(reply, Reply::Refused { why: Refused::Withdrawn, .. });
            assert!(withdrawn, "each ticket comes back once: {reply:?}");
            return Ok(());
        };
        match (asked, reply) {
            (Asked::Publish { id, once }, Reply::Published { position, duplicate: false, .. }) => {
                self.observe(Event::Published { id, position })?;
                if let Some(once) = once {
                    self.once.entry(once).or_default().0.push(position);
                }
            }
            (Asked::Publish { id, once }, Reply::Published { position, duplicate: true, .. }) => {
                let once = once.expect("only with a key it can be a duplicate");
                self.once.entry(once).or_default().1.push(position);
                self.observe(Event::Refused { id })?;
            }
            (Asked::Publish { id, .. }, Reply::Refused { why, .. }) => {
                assert!(matches!(why, Refused::Busy | Refused::TooManyTopics), "{why:?}");
                self.observe(Event::Refused { id })?;
            }
            (Asked::Subscribe { session, topic, recover }, reply) => {
                self.subscribed(session, &topic, recover, reply)?;
            }
            (Asked::State(topic), Reply::State { position, .. }) => {
                self.positions.insert(topic, position);
            }
            (Asked::Presence(topic), Reply::Presence { count, clients, .. }) => {
                assert_eq!(count, clients.len() as u64);
                self.presence.insert(topic, count);
            }
            (Asked::History { before }, Reply::History { messages, position, .. }) => {
                let offsets: Vec<u64> = messages.iter().map(|message| message.offset()).collect();
                assert!(offsets.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{offsets:?}");
                let end =
                    before.map_or(position.offset, |before| position.offset.min(before.saturating_sub(1)));
                assert!(offsets.last().is_none_or(|last| *last == end), "{offsets:?} before {before:?}");
            }
            (Asked::History { .. } | Asked::Presence(_), Reply::Refused { why, .. }) => {
                assert!(matches!(why, Refused::NoHistory | Refused::NoPresence));
            }
            (_, reply) => panic!("another answer than was asked for: {reply:?}"),
        }
        Ok(())
    }

    fn fan_out(&mut self, shard: usize) -> Result<(), Broken> {
        while let Some(batch) = self.hubs[shard].poll_batch() {
            let items = self.hubs[shard].publications(batch).to_vec();
            let audience = self.hubs[shard].audience(batch).to_vec();
            assert!(!items.is_empty() && !audience.is_empty());
            let mut behind: Vec<(u64, SubscriptionId, usize)> = Vec::new();
            for subscriber in &audience {
                let session = self.keys[&subscriber.key];
                if subscriber.lags() {
                    continue;
                }
                for (taken, item) in items.iter().enumerate().skip(usize::from(subscriber.skip)) {
                    if !subscriber.takes(item) {
                        continue;
                    }
                    if self.sessions[&session].is_full() {
                        behind.push((session, subscriber.subscription, taken));
                        break;
                    }
                    self.give(session, item)?;
                }
            }
            let mut cut = Vec::new();
            for (session, subscription, taken) in behind {
                match self.hubs[shard].fell_behind(batch, subscription, taken) {
                    Fate::Disconnect => cut.push(session),
                    Fate::Waits => {}
                }
            }
            self.hubs[shard].finish_batch(batch);
            self.disconnects += cut.len() as u64;
            for session in cut {
                self.cut(session)?;
            }
        }
        Ok(())
    }

    /// Everything is started anew; publishers do not know what became of what they had sent.
    fn restart(&mut self) -> Result<(), Broken> {
        self.restarts += 1;
        self.count();
        for session in self.sessions.values() {
            session.remember(&mut self.memories);
        }
        self.sessions.clear();
        self.keys.clear();
        self.asked.clear();
        self.once.clear();
        self.pollers.clear();
        self.hubs.clear();
        self.queues.clear();
        assert_eq!((self.rules.topics(), self.rules.subscriptions()), (0, 0));
        assert_eq!((self.rules.held_bytes(), self.total.bytes()), (0, 0));
        self.observe(Event::Restart)?;
        self.start();
        Ok(())
    }

    fn count(&mut self) {
        for hub in &self.hubs {
            let counts = *hub.counts();
            let single = [counts.refused_busy, counts.left_out, counts.trimmed];
            let all = single.into_iter().chain(counts.fell_behind).chain(counts.gaps);
            self.counts.iter_mut().zip(all).for_each(|(sum, count)| *sum += count);
        }
    }

    /// Nothing new is done until nothing is on its way any more.
    fn settle(&mut self) -> Result<(), Broken> {
        for session in self.sessions.values_mut() {
            session.reads = true;
        }
        for _ in 0..10_000 {
            self.now_ms += 1;
            for shard in 0..usize::from(self.shards) {
                self.turn(shard, true)?;
            }
            let quiet = self.queues.iter().flatten().all(VecDeque::is_empty)
                && self.sessions.values().all(|session| !self.hubs[session.shard].lags(session.member))
                && self.hubs.iter().all(|hub| hub.next_deadline_ms().is_none_or(|ms| ms > self.now_ms + 1));
            if quiet {
                return Ok(());
            }
        }
        panic!("it does not come to rest");
    }

    fn check_end(&mut self) -> Result<Summary, Broken> {
        assert!(self.asked.is_empty(), "each ticket is answered");
        for name in TOPICS {
            let topic = TopicName::parse(name).expect("a name");
            let state = self.ticket(Asked::State(name.into()));
            let presence = self.ticket(Asked::Presence(name.into()));
            self.hubs[0].state(state, &topic, None, self.now_ms);
            self.hubs[0].presence(presence, &topic, self.now_ms);
        }
        self.settle()?;
        let positions = std::mem::take(&mut self.positions);
        let newest = |topic: &str| positions.get(topic).copied().filter(|at| *at != Position::NOWHERE);
        let summary = self.checker.finish(newest)?;
        for (once, (published, duplicates)) in &self.once {
            assert!(duplicates.iter().all(|position| published.contains(position)), "{once:?}");
        }
        self.check_presence();
        self.check_sights();
        let sessions: Vec<u64> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.cut(session)?;
        }
        for _ in 0..40 {
            self.now_ms += 60_000;
            self.settle()?;
        }
        for hub in &self.hubs {
            assert!(hub.is_empty(), "{hub:?}");
        }
        self.count();
        assert_eq!((self.rules.topics(), self.rules.subscriptions()), (0, 0));
        assert_eq!((self.rules.held_bytes(), self.total.bytes()), (0, 0));
        Ok(summary)
    }

    fn check_presence(&self) {
        for (topic, count) in &self.presence {
            let sessions = self.sessions.values().filter(|session| session.attends(topic)).count();
            let polls = self
                .pollers
                .iter()
                .filter(|((name, _), until_ms)| name == topic && **until_ms > self.now_ms + 16)
                .count();
            // Pollers whose time is just over may or may not be gone; those that find no place, or no memory, are not there.
            let most = sessions + self.pollers.keys().filter(|(name, _)| name == topic).count();
            let limits = self.rules.limits();
            let has_memory = limits.memory_bytes > 1 << 20;
            let has_room = has_memory && limits.topics > TOPICS.len();
            let least = if has_memory { sessions } else { 0 } + if has_room { polls } else { 0 };
            assert!((least..=most).contains(&(*count as usize)), "{topic}: {count}, {least} to {most}");
        }
    }
}

fn rules(random: &mut Random) -> Arc<TopicRules> {
    let rule = |name: &str| Rule {
        filter: Filter::Pattern(Pattern::parse(&format!("{name}/**")).expect("a pattern")),
        settings: settings(name),
    };
    let rules = ["plain", "kept", "old", "new", "conf", "sync"].map(rule).to_vec();
    let limits = Limits {
        memory_bytes: if random.one_in(4) { 60 * PUBLICATION_COST } else { 256 << 20 },
        topics: if random.one_in(6) { 6 } else { 1_000 },
        letters: 2 + random.below(30),
        ..Limits::default()
    };
    Arc::new(TopicRules::new(rules, TopicSettings::default(), limits))
}
