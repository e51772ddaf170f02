//! The routes of topics: generations of the configuration take them away under their sessions, and bring them back at numbers that
//! others had.

use std::{
    cell::{OnceCell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tidegate_config::{Drain, Route};
use tidegate_shard::{Answers, Generation, Mail, Plan};

use super::{
    super::{
        net::{MILLIS, SECONDS},
        random::Random,
        removals::{self, Numbers, Removals, Seen},
    },
    cluster::Cluster,
    society::Society,
};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Topics,
    Events,
    Poll,
    Publish,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Topics, Kind::Events, Kind::Poll, Kind::Publish];

    /// What an operator calls it.
    fn name(self) -> &'static str {
        match self {
            Kind::Topics => "/topics/*",
            Kind::Events => "/events",
            Kind::Poll => "/poll",
            Kind::Publish => "/publish/*",
        }
    }
}

#[derive(Debug, Default)]
struct Standing {
    removals: Removals,
    presence: Presence,
}

#[derive(Debug, Default)]
enum Presence {
    #[default]
    Gone,
    /// Back where so many shards have said so.
    Coming(Answers, usize),
    Here,
}

/// How all of them stand.
#[derive(Default)]
pub(crate) struct Routes {
    standings: [Standing; 4],
    /// The generation at hand, where there was another one.
    pub(crate) newest: Option<Arc<Plan>>,
    pub(crate) covered: BTreeMap<&'static str, u64>,
}

impl Routes {
    /// A life of the gateway begins, with all of them.
    pub(crate) fn begin(&mut self) {
        self.newest = None;
        for standing in &mut self.standings {
            standing.removals.begin();
            standing.presence = Presence::Here;
        }
    }

    pub(crate) fn seen(&self, kind: Kind) -> Seen {
        let standing = &self.standings[kind as usize];
        let here = match &standing.presence {
            Presence::Gone => false,
            Presence::Coming(answers, shards) => answers.wait(*shards, Duration::ZERO),
            Presence::Here => true,
        };
        Seen { removals: standing.removals.count(), here }
    }

    /// When those who came when the route stood so may have been cut off, where it may be gone for them.
    pub(crate) fn cut(&self, kind: Kind, seen: Seen) -> Option<u64> {
        self.standings[kind as usize].removals.cut(seen, true)
    }

    pub(crate) fn cover(&mut self, what: &'static str) {
        *self.covered.entry(what).or_default() += 1;
    }
}

/// What all generations of a life know.
struct Course {
    society: Rc<Society>,
    newest: RefCell<Arc<Plan>>,
    numbers: RefCell<Numbers>,
    all: Vec<Route>,
    shards: usize,
}

/// What a generation makes of the one before.
#[derive(Clone)]
struct Change {
    time: u64,
    /// By kind.
    has: [bool; 4],
    order: Vec<usize>,
    drain: Drain,
}

/// Draws generations for half of the lives: from when on nothing changes any more.
pub(crate) fn come(
    cluster: &mut Cluster,
    society: &Rc<Society>,
    plan: &Arc<Plan>,
    seed: u64,
    start: u64,
) -> u64 {
    // Of its own: what else a seed draws must not depend on it.
    let mut random = Random::new(seed ^ 0x726f_6164_7321);
    if society.setup.stays || random.below(2) == 0 {
        return start;
    }
    let all = plan.config().routes.clone();
    let shards = cluster.places.len();
    let course = Rc::new(Course {
        society: Rc::clone(society),
        newest: RefCell::new(Arc::clone(plan)),
        numbers: RefCell::new(Numbers::of(plan)),
        all,
        shards,
    });
    let mut arrivals = vec![start; shards];
    let skew = *random.pick(&[0, MILLIS, 150 * MILLIS]);
    for change in draw(&mut random, society.setup.span, start) {
        let generation = Rc::new(OnceCell::new());
        for (place, arrival) in cluster.places.iter_mut().zip(&mut arrivals) {
            *arrival = (*arrival).max(change.time + random.range(0..=skew));
            let (course, change, generation) = (Rc::clone(&course), change.clone(), Rc::clone(&generation));
            let letters = place.letters.clone();
            let letter = move || {
                let generation: &Generation = generation.get_or_init(|| course.next(&change));
                letters.order(Mail::Plan(generation.clone()));
            };
            place.world.net.borrow_mut().post_at(*arrival, Box::new(letter));
        }
    }
    arrivals.into_iter().max().unwrap_or(start) + SECONDS
}

fn draw(random: &mut Random, span: u64, start: u64) -> Vec<Change> {
    let count = 2 + random.below(8);
    let mut has = [true; 4];
    let mut changes = Vec::new();
    for (number, time) in (1..).zip(removals::draw_times(random, count, span, start)) {
        for has in &mut has {
            *has = removals::draw_presence(random, *has, number == count);
        }
        let (order, drain) = (removals::draw_order(random, 4), removals::draw_drain(random));
        changes.push(Change { time, has, order, drain });
    }
    changes
}

impl Course {
    fn next(&self, change: &Change) -> Generation {
        let mut newest = self.newest.borrow_mut();
        let mut config = newest.config().clone();
        config.drain = change.drain.clone();
        // It changes nothing.
        config.limits.head_fields += 1;
        let present = change.order.iter().filter(|place| change.has[**place]);
        config.routes = present.map(|place| self.all[*place].clone()).collect();
        let plan = newest.next(config).expect("nothing stands in its way");
        let answers = Answers::default();
        let mut routes = self.society.routes.borrow_mut();
        for kind in Kind::ALL {
            let had = !newest.named(kind.name()).is_empty();
            let standing = &mut routes.standings[kind as usize];
            match (had, change.has[kind as usize]) {
                (true, false) => {
                    standing.removals.add(change.time, &change.drain);
                    standing.presence = Presence::Gone;
                    routes.cover("route: taken away");
                }
                (false, true) => {
                    standing.presence = Presence::Coming(answers.clone(), self.shards);
                }
                (true, true) | (false, false) => {}
            }
        }
        for what in self.numbers.borrow_mut().follow(&newest, &plan) {
            routes.cover(what);
        }
        *newest = Arc::clone(&plan);
        routes.newest = Some(Arc::clone(&plan));
        Generation { plan, servers: Arc::new([]), answers }
    }
}
