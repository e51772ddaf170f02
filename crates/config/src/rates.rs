//! What a client address may have, and how fast a session may speak. Zero means no limit.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What each client address may have of the process; an IPv6 address counts with all others of its /64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressLimits {
    /// Most connections at a time; 0: as many as there are.
    pub sessions: u32,
    /// How many connections may come in a second; 0: as many as do.
    pub handshakes_per_second: u32,
    /// How many may come at once; at least 1.
    pub burst_handshakes: u32,
    /// Who is not counted.
    pub exempt: Vec<IpNet>,
}

impl AddressLimits {
    /// Whether anything is limited.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.sessions != 0 || self.handshakes_per_second != 0
    }
}

impl Default for AddressLimits {
    fn default() -> Self {
        let v4 = Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8).map(IpNet::V4);
        let v6 = Ipv6Net::new(Ipv6Addr::LOCALHOST, 128).map(IpNet::V6);
        Self {
            sessions: 1_000,
            handshakes_per_second: 100,
            burst_handshakes: 1_000,
            exempt: v4.into_iter().chain(v6).collect(),
        }
    }
}

/// How fast the client of a session may send messages: two token buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionRates {
    /// Messages in a second; 0: any number.
    pub messages_per_second: u32,
    /// How many may come at once; at least 1 where there is a rate.
    pub burst_messages: u32,
    /// Bytes of messages in a second; 0: any number.
    pub bytes_per_second: u64,
    /// How many may come at once; at least 1 where there is a rate.
    pub burst_bytes: u64,
    /// What becomes of what is too fast.
    pub excess: Excess,
}

impl SessionRates {
    /// Whether anything is limited.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.messages_per_second != 0 || self.bytes_per_second != 0
    }
}

/// What becomes of messages beyond the rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Excess {
    /// They are read later.
    #[default]
    Delay,
    /// They are left out.
    Drop,
    /// The session ends with 1008.
    Close,
}
