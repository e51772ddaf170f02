//! Histories that keep every promise, and one for each that is broken.

use super::*;

const A: Epoch = Epoch(0xa);
const B: Epoch = Epoch(0xb);

fn at(epoch: Epoch, offset: u64) -> Position {
    Position { epoch, offset }
}

fn publish(publisher: u64, topic: &str, id: u64, key: Option<&str>) -> Event {
    Event::Publish { publisher, topic: topic.into(), id, key: key.map(Into::into) }
}

fn subscribed(session: u64, position: Position, recovered: Option<(Position, bool)>) -> Event {
    Event::Subscribed { session, topic: "t".into(), position, recovered }
}

fn receipt(session: u64, offset: u64, id: u64) -> Event {
    Event::Receipt { session, topic: "t".into(), epoch: Some(A), offset, id }
}

fn gap(session: u64, from: u64, to: u64) -> Event {
    Event::Gap { session, topic: "t".into(), from, to }
}

fn check(events: &[Event], conflates: bool, newest: Option<Position>) -> Result<Summary, Violation> {
    let mut checker = Checker::new(move |_| conflates);
    let read = events.iter().try_for_each(|event| checker.observe(event));
    read.and_then(|()| checker.finish(|_| newest)).map_err(|broken| broken.violation)
}

fn broken(events: &[Event]) -> Violation {
    check(events, false, Some(at(A, 99))).unwrap_err()
}

#[test]
fn a_history_that_keeps_every_promise() {
    let mut events: Vec<Event> = (1..=6).map(|id| publish(id % 2, "t", id, None)).collect();
    events.push(subscribed(1, at(A, 1), None));
    // One from the history, then live; a gap; a second session recovers all.
    events.extend([receipt(1, 1, 1), receipt(1, 2, 2), gap(1, 3, 4), receipt(1, 5, 5)]);
    events.push(subscribed(2, at(A, 5), Some((at(A, 1), true))));
    events.extend((2..=5).map(|offset| receipt(2, offset, offset)));
    events.extend([receipt(1, 6, 6), receipt(2, 6, 6)]);
    events.push(Event::Published { id: 6, position: at(A, 6) });
    let summary = check(&events, false, Some(at(A, 6))).unwrap();
    let wanted =
        Summary { published: 1, receipts: 9, gaps: 1, recovered: 1, converged: 2, ..Summary::default() };
    assert_eq!(summary, wanted);
}

#[test]
fn each_broken_promise_is_found() {
    let p = |id| publish(1, "t", id, None);
    let s = subscribed(1, at(A, 0), None);
    assert_eq!(broken(&[s.clone(), receipt(1, 1, 7)]), Violation::Phantom);
    assert_eq!(broken(&[p(1), s.clone(), Event::Refused { id: 1 }, receipt(1, 1, 1)]), Violation::Phantom);
    assert_eq!(broken(&[publish(1, "u", 1, None), s.clone(), receipt(1, 1, 1)]), Violation::CrossDelivery);
    assert_eq!(broken(&[p(1), p(2), s.clone(), receipt(1, 1, 2), receipt(1, 2, 1)]), Violation::OutOfOrder);
    assert_eq!(broken(&[p(1), s.clone(), receipt(1, 1, 1), receipt(1, 2, 1)]), Violation::TwoTruths);
    assert_eq!(broken(&[p(1), s.clone(), receipt(1, 1, 1), receipt(1, 1, 1)]), Violation::Repeated);
    assert_eq!(broken(&[p(1), p(2), s.clone(), receipt(1, 2, 2)]), Violation::Hole);
    assert_eq!(broken(&[p(1), s.clone(), gap(1, 3, 4)]), Violation::WrongGap);
    let wrong_epoch = Event::Receipt { session: 1, topic: "t".into(), epoch: Some(B), offset: 1, id: 1 };
    assert_eq!(broken(&[p(1), s.clone(), wrong_epoch]), Violation::WrongEpoch);
    assert_eq!(broken(&[p(1), s.clone(), Event::Restart, receipt(1, 1, 1)]), Violation::NotSubscribed);
    let restart = [s.clone(), Event::Restart, subscribed(2, at(A, 0), None)];
    assert_eq!(broken(&restart), Violation::WrongEpoch);
    assert_eq!(broken(&[p(1), s, receipt(1, 1, 1)]), Violation::NotConverged);

    let two = [p(1), p(2), subscribed(1, at(A, 0), None), subscribed(2, at(A, 0), None)];
    let other = [receipt(1, 1, 1), receipt(2, 1, 2)];
    assert_eq!(broken(&[&two[..], &other].concat()), Violation::TwoTruths);
}

#[test]
fn a_recovery_is_whole_or_not_claimed() {
    let p = |id| publish(1, "t", id, None);
    let published = [p(1), p(2), p(3)];
    let claim = |from, position| subscribed(1, position, Some((from, true)));
    for claim in [claim(at(B, 1), at(A, 3)), claim(at(A, 4), at(A, 3))] {
        assert_eq!(broken(&[&published[..], &[claim]].concat()), Violation::FalseRecovery);
    }
    for bad in [receipt(1, 3, 3), gap(1, 2, 2)] {
        let events = [&published[..], &[claim(at(A, 1), at(A, 3)), bad]].concat();
        assert_eq!(broken(&events), Violation::FalseRecovery);
    }
    let nothing = [&published[..], &[claim(at(A, 1), at(A, 3))]].concat();
    assert_eq!(check(&nothing, false, Some(at(A, 3))), Err(Violation::NotConverged), "nothing came");
    let honest = [&published[..], &[subscribed(1, at(A, 3), Some((at(A, 1), false)))]].concat();
    assert!(check(&honest, false, Some(at(A, 3))).is_ok());
}

#[test]
fn what_is_passed_over_has_a_newer_one_of_its_key() {
    let published = [("a", 1), ("b", 2), ("a", 3)].map(|(key, id)| publish(1, "t", id, Some(key)));
    let acked = [1, 2, 3].map(|id| Event::Published { id, position: at(A, id) });
    let begin = [&published[..], &acked, &[subscribed(1, at(A, 0), None)]].concat();
    let good = [&begin[..], &[receipt(1, 2, 2), receipt(1, 3, 3)]].concat();
    assert_eq!(check(&good, true, Some(at(A, 3))).map(|summary| summary.conflated), Ok(1));
    let lost = [&begin[..], &[receipt(1, 3, 3)]].concat();
    assert_eq!(check(&lost, true, Some(at(A, 3))), Err(Violation::NotTheNewest));
}

#[test]
fn of_a_topic_that_conflates_the_newest_of_each_key_is_recovered() {
    let keys = [("a", 1), ("b", 2), ("a", 3), ("c", 4)];
    let published = keys.map(|(key, id)| publish(1, "t", id, Some(key)));
    let acked = [1, 2, 3, 4].map(|id| Event::Published { id, position: at(A, id) });
    let begin = [&published[..], &acked, &[subscribed(1, at(A, 4), Some((at(A, 0), true)))]].concat();
    let came = |ids: &[u64]| {
        let receipts: Vec<Event> = ids.iter().map(|&id| receipt(1, id, id)).collect();
        check(&[&begin[..], &receipts].concat(), true, Some(at(A, 4)))
    };
    assert_eq!(came(&[2, 3, 4]).map(|summary| (summary.recovered, summary.conflated)), Ok((1, 1)));
    assert_eq!(came(&[3, 4]), Err(Violation::FalseRecovery), "b has nothing newer");
    assert_eq!(came(&[2, 4]), Err(Violation::FalseRecovery), "a's newest");
    assert_eq!(came(&[2, 3]), Err(Violation::NotConverged));
    let live = [publish(1, "t", 5, Some("c")), receipt(1, 2, 2), receipt(1, 3, 3), receipt(1, 5, 5)];
    let passed = check(&[&begin[..], &live].concat(), true, Some(at(A, 5)));
    assert_eq!(passed, Err(Violation::FalseRecovery), "where it begins is the newest of its key");
}

fn by_pattern() -> Event {
    Event::Patterns { session: 1, patterns: vec!["x/*".into(), "*".into()] }
}

#[test]
fn nothing_comes_to_whom_nothing_was_promised() {
    let published = publish(1, "t", 1, None);
    let got = receipt(1, 1, 1);
    let judged = |events: &[Event]| check(events, false, None).map(|_| ());
    let not_subscribed = Err(Violation::NotSubscribed);
    assert_eq!(judged(&[published.clone(), got.clone()]), not_subscribed);
    assert_eq!(judged(&[gap(1, 1, 1)]), not_subscribed);
    let other = Event::Patterns { session: 1, patterns: vec!["t/*".into()] };
    assert_eq!(judged(&[published.clone(), other, got.clone()]), not_subscribed);
    let none = Event::Patterns { session: 1, patterns: Vec::new() };
    assert_eq!(judged(&[published.clone(), by_pattern(), none, got.clone()]), not_subscribed);
    assert_eq!(judged(&[published, by_pattern(), got]), Ok(()));
}

#[test]
fn by_a_pattern_the_first_that_comes_is_the_begin() {
    let events = [
        publish(1, "t", 1, None),
        publish(1, "t", 2, None),
        publish(1, "t", 3, None),
        by_pattern(),
        receipt(1, 2, 2),
    ];
    assert!(check(&events, false, Some(at(A, 2))).is_ok());
    let missing = [&events[..], &[publish(1, "t", 4, None), receipt(1, 4, 4)]].concat();
    assert_eq!(check(&missing, false, Some(at(A, 4))), Err(Violation::Hole));
}

#[test]
fn by_a_pattern_gaps_are_where_the_subscription_is() {
    let got = |offset| Event::Receipt { session: 1, topic: "t".into(), epoch: None, offset, id: offset };
    let mut begin: Vec<Event> = (1..=9).map(|id| publish(1, "t", id, None)).collect();
    begin.push(by_pattern());
    let judged = |more: &[Event]| {
        let events = [&begin[..], more].concat();
        check(&events, false, None).map(|summary| summary.gaps)
    };
    // The first that comes, then in the middle, then what follows.
    assert_eq!(judged(&[gap(1, 3, 4), got(5), gap(1, 6, 7), got(8)]), Ok(2));
    // A hole before it, one that comes again, one that was had, and what it has announced.
    assert_eq!(judged(&[got(2), gap(1, 4, 5)]), Err(Violation::WrongGap));
    assert_eq!(judged(&[gap(1, 3, 5), gap(1, 3, 4)]), Err(Violation::WrongGap));
    assert_eq!(judged(&[got(2), got(3), got(4), gap(1, 3, 3)]), Err(Violation::WrongGap));
    assert_eq!(judged(&[got(2), gap(1, 3, 5), got(4)]), Err(Violation::Repeated));
    assert_eq!(judged(&[got(2), gap(1, 3, 5), got(7)]), Err(Violation::Hole));
    // The first of a topic again, and the first of its next life.
    assert_eq!(judged(&[got(1), got(2), got(1)]), Err(Violation::Repeated));
    let other = Event::Receipt { session: 1, topic: "t".into(), epoch: None, offset: 1, id: 9 };
    assert_eq!(judged(&[got(1), got(2), other]), Ok(0));
    assert_eq!(judged(&[got(1), got(2), gap(1, 1, 4), got(5)]), Ok(1));
}
