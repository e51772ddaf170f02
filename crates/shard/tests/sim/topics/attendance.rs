//! Who is present where, as those who are know it, against what the gateway tells of it.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(crate) struct Attendance {
    /// The client of each session that is subscribed by name, by topic and session.
    present: BTreeMap<(String, u64), String>,
    /// Who goes by a name of its own, and may be there for a while behind its last request.
    named: BTreeSet<(String, String)>,
    /// Of each who watches, by topic and session: the last word of each client, whether it is there.
    told: BTreeMap<(String, u64), BTreeMap<String, bool>>,
    /// How many the gateway says are there.
    pub(crate) counted: BTreeMap<String, u64>,
    /// Grows with each who comes or goes.
    pub(crate) changes: u64,
}

impl Attendance {
    /// A life of the gateway begins.
    pub(crate) fn begin(&mut self) {
        *self = Self { changes: self.changes, ..Self::default() };
    }

    /// A session is subscribed to a topic by its name.
    pub(crate) fn come(&mut self, topic: &str, session: u64, client: &str, watches: bool) {
        self.changes += 1;
        let place = (topic.to_owned(), session);
        self.present.insert(place.clone(), client.to_owned());
        if watches {
            self.told.insert(place, BTreeMap::new());
        }
    }

    pub(crate) fn go(&mut self, topic: &str, session: u64) {
        self.changes += 1;
        let place = (topic.to_owned(), session);
        self.present.remove(&place);
        self.told.remove(&place);
    }

    /// A session is over.
    pub(crate) fn end(&mut self, session: u64) {
        self.changes += 1;
        self.present.retain(|(_, own), _| *own != session);
        self.told.retain(|(_, own), _| *own != session);
    }

    /// Somebody asks for a topic by a name of its own.
    pub(crate) fn name(&mut self, topic: &str, name: &str) {
        self.named.insert((topic.to_owned(), name.to_owned()));
    }

    /// A session is told who came or went; without a client, that something of it was left out.
    pub(crate) fn tell(&mut self, topic: &str, session: u64, client: Option<&str>, is_there: bool) {
        let told = self.told.get_mut(&(topic.to_owned(), session)).expect("it watches");
        match client {
            Some(client) => drop(told.insert(client.to_owned(), is_there)),
            None => told.clear(),
        }
    }

    /// Nobody comes or goes: how many are counted and what was told last must be so. Without memory who comes may be left out
    /// (`may_lack`). Gives how much was judged.
    ///
    /// # Panics
    /// Where it is not so.
    pub(crate) fn check(&self, may_lack: bool) -> u64 {
        let mut judged = 0;
        for (topic, &counted) in &self.counted {
            let sessions = self.present.keys().filter(|(own, _)| own == topic).count() as u64;
            let named = self.named.iter().filter(|(own, _)| own == topic).count() as u64;
            let least = if may_lack { 0 } else { sessions };
            assert!(
                (least..=sessions + named).contains(&counted),
                "{counted} are said to be in {topic}: {sessions} sessions, {named} who go by a name"
            );
            judged += 1;
        }
        for ((topic, session), told) in &self.told {
            // Names with a hyphen are their bearers' own, and nobody knows when those are forgotten.
            for (client, &is_there) in told.iter().filter(|(client, _)| !client.contains('-')) {
                let is = self.present.iter().any(|((own, _), other)| own == topic && other == client);
                assert!(
                    is == is_there || (may_lack && is),
                    "session {session} was told last that {client} is there in {topic}: {is_there}; it is: {is}"
                );
                judged += 1;
            }
        }
        judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sessions, of which one watches; the other is said to have come, and then to have gone or not.
    fn told(leaves: bool, is_told: bool, counted: u64) -> Attendance {
        let mut attendance = Attendance::default();
        attendance.come("a", 1, "watcher1", true);
        attendance.come("a", 2, "another2", false);
        attendance.tell("a", 1, Some("another2"), true);
        if leaves {
            attendance.end(2);
        }
        if is_told {
            attendance.tell("a", 1, Some("another2"), false);
        }
        attendance.counted.insert("a".to_owned(), counted);
        attendance
    }

    #[test]
    fn what_is_so_is_so() {
        assert_eq!(told(false, false, 2).check(false), 2);
        assert_eq!(told(true, true, 1).check(false), 2);
        // Without memory somebody who is there may be left out.
        assert_eq!(told(false, true, 1).check(true), 2);
    }

    #[test]
    #[should_panic(expected = "was told last that another2 is there in a: true; it is: false")]
    fn a_leave_that_nobody_was_told_of_is_found() {
        told(true, false, 1).check(false);
    }

    #[test]
    #[should_panic(expected = "was told last that another2 is there in a: false; it is: true")]
    fn a_leave_of_nobody_is_found() {
        told(false, true, 2).check(false);
    }

    #[test]
    #[should_panic(expected = "2 are said to be in a")]
    fn who_is_counted_though_it_has_left_is_found() {
        told(true, true, 2).check(false);
    }

    #[test]
    #[should_panic(expected = "1 are said to be in a")]
    fn who_is_not_counted_is_found() {
        told(false, false, 1).check(false);
    }
}
