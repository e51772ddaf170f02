//! Which requests a route takes: its subprotocols and origins, what clients ask with, and what they may hope for then.

use super::random::Random;

/// What a route asks of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demands {
    /// Where not empty, one of them must be offered.
    pub(crate) subprotocols: &'static [&'static str],
    /// Where not empty, a request with an origin must name one of them, or the gateway's own.
    pub(crate) origins: &'static [&'static str],
}

/// What a request offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asks {
    pub(crate) subprotocols: Vec<&'static str>,
    /// In a field for each instead of in a list.
    pub(crate) apart: bool,
    pub(crate) origin: Option<&'static str>,
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
        }
    }

    /// The lines of a route's configuration.
    pub(crate) fn text(&self) -> String {
        format!("subprotocols = {:?}\norigins = {:?}\n", self.subprotocols, self.origins)
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
        self.origins.is_empty() || self.origins.contains(&bare) || origin == OWN
    }

    /// The status that refuses a request; a route that does not take its offers is none for it.
    pub(crate) fn refusal(&self, asks: &Asks) -> Option<u16> {
        if !self.takes(&asks.subprotocols) { Some(404) } else { (!self.admits(asks.origin)).then_some(403) }
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
