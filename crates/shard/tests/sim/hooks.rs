//! Hooks whose answers come when and as a request says: at once, late, never, twice, or for somebody who has gone.

use std::{cell::RefCell, rc::Rc};

use tidegate_shard::{Decision, Denial, Mail, Outcome, Question, Sender};

use super::{
    backend::SimWaker,
    fitting::{ASK, Fate, HOOK_TIMEOUT},
    net::{MILLIS, SECONDS, Shared},
    random::Random,
};

/// Who answers a seed's questions.
#[derive(Clone)]
pub(crate) struct Hooks {
    net: Shared,
    letters: Sender<SimWaker>,
    random: Rc<RefCell<Random>>,
}

impl Hooks {
    pub(crate) fn new(net: &Shared, letters: &Sender<SimWaker>, random: Random) -> Hooks {
        Hooks { net: Rc::clone(net), letters: letters.clone(), random: Rc::new(RefCell::new(random)) }
    }

    /// Answers a question, in its time.
    pub(crate) fn ask(&self, question: Question) {
        let told = question.asked.fields.iter().find(|(name, _)| name == ASK);
        let fate =
            told.and_then(|(_, value)| Fate::read(value)).expect("each request says what becomes of it");
        let mut random = self.random.borrow_mut();
        let now = self.net.borrow().now;
        let soon = now + *random.pick(&[0, 1, 20 * MILLIS, HOOK_TIMEOUT / 2]);
        let allowed = |question: &Question| {
            let caller = question.identity.judge_answer(b"{\"sub\":\"ada\"}", 784_111_777);
            match caller.expect("a right answer") {
                tidegate_identity::Answer::Allowed(caller) => Outcome::Allowed(Box::new(caller)),
                tidegate_identity::Answer::Denied => unreachable!("it says nothing against it"),
            }
        };
        let outcome = match fate {
            Fate::Allow | Fate::Twice | Fate::Late => allowed(&question),
            Fate::Unauthorized => Outcome::Denied(Denial::Unauthorized),
            Fate::Forbidden => Outcome::Denied(Denial::Forbidden),
            Fate::Fail | Fate::Never => Outcome::Failed,
        };
        self.net.borrow_mut().cover(format!("hook: {fate:?}"));
        match fate {
            Fate::Never => {}
            Fate::Late => {
                let late = now + 2 * HOOK_TIMEOUT + random.range(2 * SECONDS..=30 * SECONDS);
                self.post(late, || question.answered(outcome));
            }
            Fate::Twice => {
                let decision = question.answered(outcome);
                let again = decision.clone();
                self.post(soon, || decision);
                self.post(soon + *random.pick(&[0, MILLIS, 10 * SECONDS]), || again);
            }
            Fate::Allow | Fate::Unauthorized | Fate::Forbidden | Fate::Fail => {
                self.post(soon, || question.answered(outcome));
            }
        }
    }

    /// Its place among those that wait is free when it is answered.
    fn post(&self, time: u64, decide: impl FnOnce() -> Decision + 'static) {
        let letters = self.letters.clone();
        let letter = move || letters.send(Mail::Decided(decide())).expect("the mailbox has room");
        self.net.borrow_mut().post_at(time, Box::new(letter));
    }
}
