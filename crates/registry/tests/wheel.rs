//! The wheel against a map of deadlines.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidegate_registry::{BATCH, TICK_MS, Wheel};

const ROUND_MS: u64 = 4096 * TICK_MS;

#[derive(Clone, Debug)]
enum Step {
    /// In so many milliseconds from now; negative ones have passed.
    Schedule(u32, i64),
    Cancel(u32),
    Advance(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = 0u32..40;
    let delay = prop_oneof![
        -100i64..100,
        0i64..2000,
        0i64..70_000,
        0i64..400_000,
        // Exactly on ticks and rounds, and next to them.
        (0i64..4, -1i64..2).prop_map(|(rounds, next)| rounds * ROUND_MS as i64 + next),
        (0i64..5000, -1i64..2).prop_map(|(ticks, next)| ticks * TICK_MS as i64 + next),
    ];
    let advance = prop_oneof![
        4 => 0u64..40,
        4 => 0u64..3000,
        1 => 0u64..200_000,
        1 => (0u64..3, 0u64..3).prop_map(|(rounds, more)| (rounds * ROUND_MS + more).saturating_sub(1)),
    ];
    let step = prop_oneof![
        5 => (index.clone(), delay).prop_map(|(index, delay)| Step::Schedule(index, delay)),
        1 => index.prop_map(Step::Cancel),
        4 => advance.prop_map(Step::Advance),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_the_map_does(steps in steps(), start in prop_oneof![0u64..100_000, Just(u64::MAX / 2)]) {
        let mut now = start;
        let mut wheel = Wheel::new(now, 4);
        // By index: the deadline, and the first tick at which it can be due.
        let mut model: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        // The first tick that has not been looked at.
        let mut fresh = now / TICK_MS;
        for step in steps {
            match step {
                Step::Schedule(index, delay) => {
                    let deadline = now.saturating_add_signed(delay);
                    wheel.schedule(index, deadline);
                    model.insert(index, (deadline, deadline.div_ceil(TICK_MS).max(fresh)));
                }
                Step::Cancel(index) => {
                    wheel.cancel(index);
                    model.remove(&index);
                }
                Step::Advance(ms) => {
                    now += ms;
                    let today = now / TICK_MS;
                    let long = today.saturating_sub(fresh) >= ROUND_MS / TICK_MS;
                    let mut due = Vec::new();
                    wheel.expire(now, &mut due);
                    let mut last_tick = 0;
                    for index in due {
                        let fired = model.remove(&index);
                        prop_assert!(fired.is_some(), "{index} is due twice or never was");
                        let (deadline, tick) = fired.unwrap();
                        prop_assert!(deadline <= now, "{index} is early by {}", deadline - now);
                        prop_assert!(long || tick >= last_tick, "tick {tick} after {last_tick}");
                        last_tick = tick;
                    }
                    for (index, (deadline, tick)) in &model {
                        prop_assert!(*tick > today, "{index} with {deadline} is late at {now}");
                    }
                    fresh = fresh.max(today + 1);
                    if let Some(next) = wheel.next_deadline() {
                        prop_assert!(next > now, "nothing to do before {next}, so no busy loop at {now}");
                    }
                }
            }
            prop_assert_eq!(wheel.len(), model.len());
            prop_assert_eq!(wheel.is_empty(), model.is_empty());
            for index in 0..41 {
                prop_assert_eq!(wheel.deadline(index), model.get(&index).map(|(deadline, _)| *deadline));
            }
            let first = model.values().map(|(_, tick)| tick * TICK_MS).min();
            match (wheel.next_deadline(), first) {
                (None, None) => {}
                (Some(next), Some(first)) => prop_assert!(next <= first, "{next} is after {first}"),
                (next, first) => prop_assert!(false, "{next:?} but {first:?}"),
            }
        }
    }
}

#[test]
fn a_deadline_is_never_early_and_at_most_a_tick_late() {
    for deadline in 1000..1200 {
        let mut wheel = Wheel::new(1000, 1);
        wheel.schedule(0, deadline);
        let mut due = Vec::new();
        let fired = (1000..).find(|&now| {
            wheel.expire(now, &mut due);
            !due.is_empty()
        });
        let late = fired.unwrap() - deadline;
        assert!(late < TICK_MS || deadline < 1000 + TICK_MS, "{deadline} came {late} ms late");
    }
}

#[test]
fn waking_at_the_next_deadline_is_enough_and_rarely_for_nothing() {
    let hour = 3_600_000;
    let mut wheel = Wheel::new(0, 1);
    wheel.schedule(7, hour);
    let (mut now, mut wakes, mut due) = (0, 0, Vec::new());
    while due.is_empty() {
        now = wheel.next_deadline().unwrap();
        wheel.expire(now, &mut due);
        wakes += 1;
    }
    assert!((hour..hour + TICK_MS).contains(&now), "came at {now}");
    assert!(wakes <= hour / ROUND_MS + 2, "{wakes} wakes, one for each round");
}

#[test]
fn a_stall_comes_in_batches_in_order() {
    let sessions = 10_000_u32;
    let mut wheel = Wheel::new(0, sessions);
    for index in 0..sessions {
        wheel.schedule(index, 1000 + u64::from(index % 500));
    }
    let now = 50_000;
    let mut all = Vec::new();
    let mut due = Vec::new();
    while wheel.next_deadline().is_some_and(|next| next <= now) {
        due.clear();
        wheel.expire(now, &mut due);
        assert!(!due.is_empty() && due.len() <= BATCH, "{} due at once", due.len());
        all.extend_from_slice(&due);
    }
    assert_eq!(all.len(), sessions as usize);
    let ticks: Vec<u64> = all.iter().map(|index| (1000 + u64::from(index % 500)).div_ceil(TICK_MS)).collect();
    assert!(ticks.is_sorted());
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), sessions as usize);
}

#[test]
fn what_is_scheduled_between_batches_is_not_lost() {
    let mut wheel = Wheel::new(0, 3000);
    for index in 0..2000 {
        wheel.schedule(index, 500);
    }
    let mut due = Vec::new();
    wheel.expire(10_000, &mut due);
    assert_eq!(due.len(), BATCH);
    // In the past, today, and exactly where the cursor stands.
    wheel.schedule(2000, 1);
    wheel.schedule(2001, 10_000);
    wheel.schedule(2002, 512);
    for _ in 0..3 {
        wheel.expire(10_000, &mut due);
    }
    due.sort_unstable();
    assert_eq!(due, (0..2003).collect::<Vec<_>>());
}

#[test]
fn a_clock_that_goes_back_is_waited_for() {
    let mut wheel = Wheel::new(10_000, 1);
    wheel.schedule(0, 10_500);
    let mut due = Vec::new();
    for now in [9_000, 0, 10_400] {
        wheel.expire(now, &mut due);
        assert!(due.is_empty());
    }
    wheel.expire(10_512, &mut due);
    assert_eq!(due, [0]);
}

#[test]
fn a_deadline_at_the_end_of_time_waits_until_then() {
    let mut wheel = Wheel::new(0, 1);
    wheel.schedule(0, u64::MAX);
    let mut due = Vec::new();
    wheel.expire(u64::MAX - TICK_MS, &mut due);
    assert!(due.is_empty());
    assert_eq!(wheel.deadline(0), Some(u64::MAX));
}

#[test]
fn what_is_always_due_keeps_nothing_else_from_its_time() {
    let stubborn = 2 * BATCH as u32;
    let mut wheel = Wheel::new(0, stubborn + 1);
    for index in 0..stubborn {
        wheel.schedule(index, 1);
    }
    wheel.schedule(stubborn, 160);
    let mut due = Vec::new();
    let mut served = vec![0_u32; stubborn as usize];
    let came = (0..100).find(|tick| {
        due.clear();
        wheel.expire(tick * TICK_MS, &mut due);
        for &index in due.iter().filter(|&&index| index < stubborn) {
            served[index as usize] += 1;
            wheel.schedule(index, 1);
        }
        due.contains(&stubborn)
    });
    // Each of its ticks took two batches more than it should have.
    assert!(came.is_some_and(|tick| (10..40).contains(&tick)), "came at tick {came:?}");
    // Nor one of them another: at each slot each comes once, or is put into the one behind it.
    let (least, most) = (served.iter().min().copied(), served.iter().max().copied());
    assert!(
        least.zip(most).is_some_and(|(least, most)| least > 0 && most <= 2 * least),
        "{least:?} {most:?}"
    );
    assert_eq!(wheel.len(), stubborn as usize);
}
