//! Generations of the configuration that change nothing for any session, and ends that take their time: drawn by seed.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use tidegate_config::{Action, PathPattern};
use tidegate_shard::{Answers, Departure, Generation, Mail, Pace, Plan, Sender, Whom};
use tidegate_wire::close::CloseCode;

use super::{backend::SimWaker, net::Net, random::Random};

/// In half of the seeds other generations come while sessions are open. What sessions have agreed to stays; a route that nobody
/// uses comes and goes.
pub(super) fn come(net: &mut Net, seed: u64, plan: &Arc<Plan>, span: u64, letters: &Sender<SimWaker>) {
    // Of its own: what else a seed draws must not depend on it.
    let mut random = Random::new(seed ^ 0x6765_6e73);
    if random.below(2) == 0 {
        return;
    }
    let newest = Rc::new(RefCell::new(Arc::clone(plan)));
    let mut times: Vec<u64> = (0..1 + random.below(5)).map(|_| net.now + random.below(2 * span)).collect();
    times.sort_unstable();
    for time in times {
        let (newest, letters) = (Rc::clone(&newest), letters.clone());
        let letter = move || {
            let mut newest = newest.borrow_mut();
            let plan = next(&newest);
            let generation =
                Generation { plan: Arc::clone(&plan), servers: Arc::new([]), answers: Answers::default() };
            *newest = plan;
            letters.send(Mail::Plan(generation)).expect("the mailbox has room");
        };
        net.post_at(time, Box::new(letter));
    }
}

fn next(plan: &Plan) -> Arc<Plan> {
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

/// The letter that drains: at once, or over a while in half of the seeds.
pub(super) fn drain(seed: u64, letters: &Sender<SimWaker>) -> Box<dyn FnOnce()> {
    // Of its own: what else a seed draws must not depend on it.
    let mut random = Random::new(seed ^ 0x7061_6365);
    let code = CloseCode::GOING_AWAY;
    let letters = letters.clone();
    if random.below(2) == 0 {
        return Box::new(move || letters.send(Mail::Drain(code)).expect("the mailbox has room"));
    }
    let pace = Pace {
        code,
        window_ms: random.below(5_000),
        // Nobody is cut off: each session has its end as in a drain at once.
        deadline_ms: 100 * 3_600_000,
        reconnect_delay_ms: *random.pick(&[0, 5_000]),
    };
    Box::new(move || {
        letters.send(Mail::Depart(Departure { whom: Whom::All, pace })).expect("the mailbox has room");
    })
}
