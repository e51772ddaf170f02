//! Which requests a route takes: its subprotocols and origins, what its hook says, what clients ask with, and what they may hope
//! for then.

use super::{
    net::{MILLIS, SECONDS},
    random::Random,
};

/// How long a hook may take.
pub(crate) const HOOK_TIMEOUT: u64 = 3 * SECONDS;

/// The field with which a request says what its hook is to answer.
pub(crate) const ASK: &str = "x-fate";

/// What a route asks of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demands {
    /// Where not empty, one of them must be offered.
    pub(crate) subprotocols: &'static [&'static str],
    /// Where not empty, a request with an origin must name one of them, or the gateway's own.
    pub(crate) origins: &'static [&'static str],
    /// Where a hook is asked, how many requests may wait for it.
    pub(crate) hook: Option<usize>,
}

/// What becomes of a request that a hook is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Allow,
    /// Allowed, and its answer comes twice.
    Twice,
    /// Allowed when it was given up.
    Late,
    Unauthorized,
    Forbidden,
    Fail,
    /// Whoever asks has forgotten it.
    Never,
}

impl Fate {
    pub(crate) const ALL: [Fate; 7] =
        [Fate::Allow, Fate::Twice, Fate::Late, Fate::Unauthorized, Fate::Forbidden, Fate::Fail, Fate::Never];

    fn draw(random: &mut Random) -> Fate {
        if random.below(3) > 0 { Fate::Allow } else { *random.pick(&Fate::ALL) }
    }

    pub(crate) fn read(value: &[u8]) -> Option<Fate> {
        Fate::ALL.into_iter().find(|fate| format!("{fate:?}").as_bytes() == value)
    }

    fn refusal(self) -> Option<u16> {
        match self {
            Fate::Allow | Fate::Twice => None,
            Fate::Unauthorized => Some(401),
            Fate::Forbidden => Some(403),
            Fate::Late | Fate::Fail | Fate::Never => Some(503),
        }
    }
}

/// What a request offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asks {
    pub(crate) subprotocols: Vec<&'static str>,
    /// In a field for each instead of in a list.
    pub(crate) apart: bool,
    pub(crate) origin: Option<&'static str>,
    /// Where the route asks a hook.
    pub(crate) fate: Option<Fate>,
}

/// The origin of the clients' `Host` on a connection without TLS.
const OWN: &str = "http://gw.test";

const LISTED: &str = "https://app.test";

const ORIGINS: [&str; 8] = [
    LISTED,
    LISTED,
    // The same with its port.
    "https://app.test:443",
    OWN,
    "https://gw.test",
    "https://app.test:444",
    "https://app.test.evil.test",
    "null",
];

/// Subprotocols are compared with their case.
const OFFERS: [&[&str]; 6] = [
    &["v1.test"],
    &["other", "v1.test"],
    &["v1.test", "v2.test"],
    &["v2.test", "other", "v1.test"],
    &["other", "V1.test"],
    &[],
];

impl Demands {
    pub(crate) fn draw(random: &mut Random) -> Demands {
        Demands {
            subprotocols: random.pick::<&[&str]>(&[&[], &[], &[], &["v1.test"], &["v2.test", "v1.test"]]),
            origins: random.pick::<&[&str]>(&[
                &[],
                &[],
                &[],
                &[LISTED],
                &["http://app.test:8080", "null", LISTED],
            ]),
            hook: None,
        }
    }

    /// Has a hook asked on every other route, which has room for all but now and then.
    pub(crate) fn with_hook(self, random: &mut Random) -> Demands {
        Demands { hook: (random.below(2) == 0).then(|| *random.pick(&[1_000, 1_000, 3])), ..self }
    }

    /// Whether requests may find no room with the hook.
    pub(crate) fn may_be_busy(&self) -> bool {
        self.hook.is_some_and(|most| most < 1_000)
    }

    /// The lines of a route's configuration.
    pub(crate) fn text(&self) -> String {
        let identity = self.hook.map(|most| format!("identity = \"hook-{most}\"\n")).unwrap_or_default();
        format!("subprotocols = {:?}\norigins = {:?}\n{identity}", self.subprotocols, self.origins)
    }

    /// The identities that routes may name.
    pub(crate) fn identities() -> String {
        let each = [3, 1_000].map(|most| {
            format!(
                "[[identity]]\nname = \"hook-{most}\"\nhook = {{ url = \"http://127.0.0.1:9/\", timeout = \"{}ms\", \
                 max_in_flight = {most}, forward = [\"{ASK}\"] }}\n",
                HOOK_TIMEOUT / MILLIS
            )
        });
        each.concat()
    }

    /// What a client asks with: mostly what fits; only that where `fits`.
    pub(crate) fn draw_asks(&self, random: &mut Random, fits: bool) -> Asks {
        let mut asks = Asks { apart: random.below(4) == 0, ..Asks::default() };
        if random.below(3) > 0 {
            asks.origin = Some(*random.pick::<&str>(&ORIGINS));
        }
        if !self.subprotocols.is_empty() || random.below(4) == 0 {
            asks.subprotocols = random.pick(&OFFERS).to_vec();
        }
        asks.fate = self.hook.map(|_| Fate::draw(random));
        let keep = !fits && random.below(2) == 0;
        if !self.admits(asks.origin) && !keep {
            asks.origin = None;
        }
        if !self.takes(&asks.subprotocols) && !keep {
            asks.subprotocols = vec!["v1.test"];
        }
        asks
    }

    fn takes(&self, offers: &[&str]) -> bool {
        self.subprotocols.is_empty() || offers.iter().any(|offer| self.subprotocols.contains(offer))
    }

    fn admits(&self, origin: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        let bare = origin.strip_suffix(":443").unwrap_or(origin);
        // Who asks who callers are takes browsers from its own pages alone, where it lists no others.
        let takes_all = self.origins.is_empty() && self.hook.is_none();
        takes_all || self.origins.contains(&bare) || origin == OWN
    }

    /// The status that refuses a request; a route that does not take its offers is none for it.
    pub(crate) fn refusal(&self, asks: &Asks) -> Option<u16> {
        if !self.takes(&asks.subprotocols) {
            Some(404)
        } else if !self.admits(asks.origin) {
            Some(403)
        } else {
            asks.fate.and_then(Fate::refusal)
        }
    }

    /// What the echo agrees to: the first of the client's that is listed.
    pub(crate) fn agreed(&self, asks: &Asks) -> Option<&'static str> {
        asks.subprotocols.iter().copied().find(|offer| self.subprotocols.contains(offer))
    }
}

impl Asks {
    /// The fields of a request.
    pub(crate) fn fields(&self) -> String {
        let mut text = String::new();
        if let Some(origin) = self.origin {
            text += &format!("Origin: {origin}\r\n");
        }
        if let Some(fate) = self.fate {
            text += &format!("{ASK}: {fate:?}\r\n");
        }
        if self.apart {
            for subprotocol in &self.subprotocols {
                text += &format!("Sec-WebSocket-Protocol: {subprotocol}\r\n");
            }
        } else if !self.subprotocols.is_empty() {
            text += &format!("Sec-WebSocket-Protocol: {}\r\n", self.subprotocols.join(", "));
        }
        text
    }

    /// What an upstream chooses, if anything.
    pub(crate) fn choice(&self, client: u64) -> Option<&'static str> {
        self.subprotocols.get(client as usize % (self.subprotocols.len() + 1)).copied()
    }
}
