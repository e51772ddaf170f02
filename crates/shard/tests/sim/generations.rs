//! Generations of the configuration, and ends that take their time: drawn by seed. Routes that sessions use are taken away and
//! come back, at numbers that others had; one that nobody uses comes and goes.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use tidegate_config::{Action, PathPattern, Route};
use tidegate_shard::{Answers, Departure, Generation, Mail, Pace, Plan, Sender, Whom};
use tidegate_wire::close::CloseCode;

use super::{
    backend::SimWaker,
    facts::Shared,
    net::{Net, SECONDS},
    random::Random,
    removals::{self, Numbers},
};

/// The page's place among the routes: it always stays.
const PAGE: usize = 0;

/// What all generations of a seed know.
struct Course {
    newest: Rc<RefCell<Arc<Plan>>>,
    /// Of the first one.
    all: Vec<Route>,
    /// By their places there, behind the page.
    has: RefCell<Vec<bool>>,
    numbers: RefCell<Numbers>,
    /// Of those that are there, which an operator has drained, or upstreams of them.
    drained: RefCell<Vec<Vec<Whom>>>,
    facts: Shared,
    random: RefCell<Random>,
    /// Generations that are still to come.
    left: Cell<usize>,
}

/// In half of the seeds other generations come while sessions are open. Most change nothing for any session: what these have agreed
/// to stays. In half of these seeds they take routes away and bring them back instead. Gives the newest.
pub(super) fn come(
    net: &mut Net,
    seed: u64,
    plan: &Arc<Plan>,
    span: u64,
    letters: &Sender<SimWaker>,
    facts: &Shared,
    named: &[bool],
) -> Rc<RefCell<Arc<Plan>>> {
    // Of its own: what else a seed draws must not depend on it.
    let mut random = Random::new(seed ^ 0x6765_6e73);
    let newest = Rc::new(RefCell::new(Arc::clone(plan)));
    if random.below(2) == 0 {
        return newest;
    }
    let mut times: Vec<u64> = (0..1 + random.below(5)).map(|_| net.now + random.below(2 * span)).collect();
    times.sort_unstable();
    let departs = random.below(2) == 0 && !facts.terms.contest;
    facts.departs.set(departs);
    if departs {
        let count = 2 + random.below(8);
        times = removals::draw_times(&mut random, count, span, net.now);
        // What names are resolved to is said of the first generation's upstreams alone.
        for (proxy, _) in named.iter().enumerate().filter(|(_, named)| **named) {
            facts.route_failed(proxy + 1);
        }
    }
    let course = Rc::new(Course {
        newest: Rc::clone(&newest),
        all: plan.config().routes.clone(),
        has: RefCell::new(vec![true; facts.routes.len()]),
        drained: RefCell::new(vec![Vec::new(); facts.routes.len()]),
        numbers: RefCell::new(Numbers::of(plan)),
        facts: Rc::clone(facts),
        random: RefCell::new(random),
        left: Cell::new(times.len()),
    });
    for time in times {
        let (course, letters) = (Rc::clone(&course), letters.clone());
        let letter = move |net: &mut Net| {
            let plan = if departs { course.next(net) } else { unchanged(&course.newest.borrow()) };
            *course.newest.borrow_mut() = Arc::clone(&plan);
            let generation = Generation { plan, servers: Arc::new([]), answers: Answers::default() };
            letters.order(Mail::Plan(generation));
        };
        net.do_at(time, Box::new(letter));
    }
    if departs {
        operate(net, &course, seed, span, letters);
    }
    newest
}

/// An operator drains routes and upstreams meanwhile, and readmits them. In the end nothing is drained.
fn operate(net: &mut Net, course: &Rc<Course>, seed: u64, span: u64, letters: &Sender<SimWaker>) {
    // Of its own: what else a seed draws must not depend on it.
    let mut random = Random::new(seed ^ 0x6472_6169_6e73);
    let count = 2 + random.below(8);
    let times = removals::draw_times(&mut random, count, span, net.now);
    let random = Rc::new(RefCell::new(random));
    for (number, time) in (1..).zip(times) {
        let (course, letters, random) = (Rc::clone(course), letters.clone(), Rc::clone(&random));
        let act = move |net: &mut Net| {
            course.operate(net, &letters, &mut random.borrow_mut(), number == count);
        };
        net.do_at(time, Box::new(act));
    }
}

fn unchanged(plan: &Plan) -> Arc<Plan> {
    let mut config = plan.config().clone();
    config.limits.head_fields += 1;
    config.drain.window_ms = 300;
    config.drain.deadline_ms = 600;
    for route in &mut config.routes {
        if let Action::Proxy(proxy) = &mut route.action {
            proxy.resolve_interval_ms += 1;
        }
    }
    let unused = PathPattern::Exact("/unused".to_owned());
    let count = config.routes.len();
    config.routes.retain(|route| route.path != unused);
    if config.routes.len() == count {
        let mut route = config.routes[count - 1].clone();
        route.path = unused;
        config.routes.push(route);
    }
    plan.next(config).expect("nothing stands in its way")
}

impl Course {
    fn next(&self, net: &mut Net) -> Arc<Plan> {
        let mut random = self.random.borrow_mut();
        self.left.set(self.left.get() - 1);
        let is_last = self.left.get() == 0;
        let newest = self.newest.borrow();
        let mut config = newest.config().clone();
        config.drain = removals::draw_drain(&mut random);
        config.limits.head_fields += 1;
        let mut has = self.has.borrow_mut();
        config.routes = vec![self.all[PAGE].clone()];
        for route in removals::draw_order(&mut random, has.len()) {
            let had = has[route];
            has[route] = removals::draw_presence(&mut random, had, is_last);
            if had && !has[route] {
                self.facts.take_away(route, net.now, &config.drain);
                // What is gone is not drained when it is back.
                self.drained.borrow_mut()[route].clear();
                net.cover("route: taken away".to_string());
            }
            if has[route] {
                config.routes.push(self.all[PAGE + 1 + route].clone());
            }
            if has[route] && !had {
                // The letter has to be read yet.
                self.facts.bring_back(route, net.now + SECONDS);
            }
        }
        let plan = newest.next(config).expect("nothing stands in its way");
        plan.forget_drains();
        for what in self.numbers.borrow_mut().follow(&newest, &plan) {
            net.cover(what.to_string());
        }
        plan
    }
    /// An operator drains some of the routes that are there, or an upstream of theirs, and readmits others.
    fn operate(&self, net: &mut Net, letters: &Sender<SimWaker>, random: &mut Random, is_last: bool) {
        let plan = self.newest.borrow();
        let has = self.has.borrow();
        for (route, drained) in self.drained.borrow_mut().iter_mut().enumerate() {
            let (begins, ends) = (random.below(4) == 0, random.below(2) == 0);
            let (keeps, drain) = (random.below(3) == 0, removals::draw_drain(random));
            if !has[route] {
                continue;
            }
            if drained.is_empty() && begins && !is_last {
                *drained = self.draw_drained(random, &plan, route);
                plan.set_drained(drained, true);
                for whom in drained.iter().copied() {
                    net.cover(format!("{}: drained", kind(whom)));
                    letters.order(match keeps {
                        true => Mail::Withhold(whom),
                        false => Mail::Depart(Departure { whom, pace: Pace::of_some(&drain) }),
                    });
                }
                match keeps {
                    true => self.facts.withhold(route),
                    false => self.facts.take_away(route, net.now, &drain),
                }
            } else if !drained.is_empty() && (ends || is_last) {
                plan.set_drained(drained, false);
                for whom in drained.drain(..) {
                    net.cover(format!("{}: readmitted", kind(whom)));
                    letters.order(Mail::Readmit(whom));
                }
                // The letter has to be read yet.
                self.facts.bring_back(route, net.now + SECONDS);
            }
        }
    }

    /// The route, or one of its upstreams.
    fn draw_drained(&self, random: &mut Random, plan: &Plan, route: usize) -> Vec<Whom> {
        let configured = &self.all[PAGE + 1 + route];
        match &configured.action {
            Action::Proxy(proxy) if random.below(2) == 0 => {
                // Those that are left may be the ones that fail.
                self.facts.route_failed(route);
                plan.named(&random.pick(&proxy.upstreams).text)
            }
            _ => plan.named(&configured.path.to_string()),
        }
    }
}

fn kind(whom: Whom) -> &'static str {
    match whom {
        Whom::Upstream(..) => "upstream",
        Whom::Route(_) | Whom::All => "route",
    }
}

/// The letter that drains: at once, or over a while in half of the seeds.
pub(super) fn drain(seed: u64, letters: &Sender<SimWaker>) -> Box<dyn FnOnce()> {
    // Of its own: what else a seed draws must not depend on it.
    let mut random = Random::new(seed ^ 0x7061_6365);
    let code = CloseCode::GOING_AWAY;
    let letters = letters.clone();
    if random.below(2) == 0 {
        return Box::new(move || letters.order(Mail::Drain(code)));
    }
    let pace = Pace {
        code,
        window_ms: random.below(5_000),
        // Nobody is cut off: each session has its end as in a drain at once.
        deadline_ms: 100 * 3_600_000,
        reconnect_delay_ms: *random.pick(&[0, 5_000]),
    };
    Box::new(move || {
        letters.order(Mail::Depart(Departure { whom: Whom::All, pace }));
    })
}
