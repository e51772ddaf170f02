//! Why something was not done, in the protocol's terms.

use std::borrow::Cow;

use tidegate_hub::{
    NameError, Refused,
    protocol::{Code, Problem},
};

/// What a client is told of a command or a request that was not done.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) code: Code,
    pub(crate) message: Cow<'static, str>,
}

impl Fault {
    pub(crate) const NOT_ALLOWED: Fault =
        Fault::new(Code::NotAllowed, "the route, the key or the token does not allow it");

    /// What was sent to a topic's home may be done yet, or was done.
    pub(crate) const UNKNOWN: Fault =
        Fault::new(Code::Unknown, "the topic did not answer in time: it may or may not have been published");

    pub(crate) const fn new(code: Code, message: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(message) }
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::new(problem.code, problem.message)
    }
}

impl From<NameError> for Fault {
    fn from(error: NameError) -> Self {
        Self { code: Code::InvalidTopic, message: format!("not the name of a topic: {error}").into() }
    }
}

impl From<Refused> for Fault {
    fn from(why: Refused) -> Self {
        let code = match why {
            Refused::AlreadySubscribed => Code::AlreadySubscribed,
            Refused::NotSubscribed | Refused::Withdrawn => Code::NotSubscribed,
            Refused::TooManySubscriptions | Refused::TooManyInProcess | Refused::TooManyTopics => {
                Code::TooMany
            }
            Refused::TooLarge => Code::TooLarge,
            Refused::NoHistory => Code::NoHistory,
            Refused::NoPresence => Code::NoPresence,
            Refused::Busy => Code::Busy,
        };
        Self { code, message: why.to_string().into() }
    }
}
