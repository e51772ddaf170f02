//! The request as the upstream gets it, and what its answer becomes.

use std::net::IpAddr;

use tidegate_config::{Balance, Deflate, HashKey};
use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::{
    extension::negotiate,
    handshake::{self, Offer, Upgrade},
    http::{Refusal, Request},
};

use super::{Waiting, upstreams::client_hash};
use crate::{environment::Environment, plan::ProxyPlan, session::State, shard::Shard};

/// Fields that say who the client is: believed only from trusted networks.
const CLAIMS: [&str; 5] =
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "x-real-ip"];

impl<B: Backend, E: Environment> Shard<B, E> {
    /// The client waits from here on; its upstream is dialed.
    ///
    /// # Errors
    /// Where the request must be refused before any upstream hears of it.
    pub(crate) fn begin_proxy(
        &mut self,
        key: Key,
        request: &Request<'_>,
        upgrade: &Upgrade<'_>,
    ) -> Result<(), Refusal> {
        let plan = std::sync::Arc::clone(&self.plan);
        let Some(session) = self.registry.get(key) else { return Ok(()) };
        let route = plan.route(session.route);
        let Some(proxy) = &route.proxy else { return Ok(()) };
        let peer = session.peer.address().map(|address| address.ip());
        let mut nonce = [0; 16];
        self.environment.random(&mut nonce);
        let mut passed_offers = String::new();
        let mut edge = None;
        match proxy.settings.deflate {
            Deflate::Edge => {
                edge = route.deflate.as_ref().and_then(|policy| {
                    let mut policy = *policy;
                    policy.context_takeover &= self.codecs.takeover_available();
                    negotiate(&upgrade.offers, &policy)
                });
            }
            Deflate::Pass => {
                // Other extensions are nobody's here: the gateway could not check their frames.
                let offers: Vec<String> =
                    upgrade.offers.deflate_offers().map(|offer| offer.to_string()).collect();
                passed_offers = offers.join(", ");
            }
            Deflate::Off => {}
        }
        let trusted = peer.is_some_and(|ip| plan.trusts(ip));
        let mut out = Vec::with_capacity(1024);
        let forwarded = forwarded_fields(request, peer, trusted);
        let fields = handshake::forwarded_fields(&request.fields)
            .filter(|(name, _)| !CLAIMS.iter().any(|claim| name.eq_ignore_ascii_case(claim)));
        let offer = if passed_offers.is_empty() { Offer::None } else { Offer::Raw(&passed_offers) };
        handshake::client_request(
            &mut out,
            request.target.raw,
            request.host,
            &nonce,
            &upgrade.protocols,
            offer,
            fields.chain(forwarded.iter().map(|(name, value)| (*name, value.as_slice()))),
        );
        let waiting = Waiting {
            leg: None,
            request: out,
            nonce,
            client_key: upgrade.key.to_owned(),
            protocols: upgrade.protocols.iter().map(|p| (*p).to_owned()).collect(),
            edge,
            passed_offers,
            early: Vec::new(),
            hash: balance_hash(request, proxy, peer),
            tried: Vec::new(),
            current: None,
            local_fault: 0,
            limit_ms: u64::MAX,
            deadline_ms: u64::MAX,
        };
        let Some(session) = self.registry.get_mut(key) else { return Ok(()) };
        session.state = State::Waiting(Box::new(waiting));
        self.begin_dial(key);
        Ok(())
    }
}

/// Who the client is, told to the upstream: what a trusted proxy said, with its own address behind it, or the address
/// that the kernel knows.
fn forwarded_fields(
    request: &Request<'_>,
    peer: Option<IpAddr>,
    trusted: bool,
) -> Vec<(&'static str, Vec<u8>)> {
    let claimed = |name: &str| -> Option<Vec<u8>> {
        if !trusted {
            return None;
        }
        let values: Vec<&[u8]> = request.fields.all(name).filter(|value| !value.is_empty()).collect();
        (!values.is_empty()).then(|| values.join(&b", "[..]))
    };
    let own = peer.map(|ip| ip.to_string());
    let mut chain = claimed("x-forwarded-for").unwrap_or_default();
    if let Some(own) = own {
        if !chain.is_empty() {
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(own.as_bytes());
    }
    let mut fields = Vec::with_capacity(3);
    if !chain.is_empty() {
        fields.push(("X-Forwarded-For", chain));
    }
    fields.push(("X-Forwarded-Proto", claimed("x-forwarded-proto").unwrap_or_else(|| b"http".to_vec())));
    let host = claimed("x-forwarded-host").unwrap_or_else(|| request.host.as_bytes().to_vec());
    fields.push(("X-Forwarded-Host", host));
    fields
}

/// What the balancer hashes of a request; a client without the named field goes by its address.
fn balance_hash(request: &Request<'_>, proxy: &ProxyPlan, peer: Option<IpAddr>) -> u64 {
    let address = || peer.map_or(0, |ip| client_hash(ip.to_string().as_bytes()));
    match &proxy.settings.balance {
        Balance::RoundRobin | Balance::LeastSessions => 0,
        Balance::Hash(HashKey::ClientAddress) => address(),
        Balance::Hash(HashKey::Header(name)) => {
            request.fields.all(name).next().map_or_else(address, client_hash)
        }
        Balance::Hash(HashKey::Cookie(name)) => cookie(request, name).map_or_else(address, client_hash),
    }
}

/// The value of a cookie (RFC 6265 §5.4): the first of that name.
fn cookie<'b>(request: &Request<'b>, name: &str) -> Option<&'b [u8]> {
    request.fields.all("cookie").find_map(|field| {
        field.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).find_map(|pair| {
            let (key, value) = pair.split_at(pair.iter().position(|byte| *byte == b'=')?);
            (key == name.as_bytes()).then(|| &value[1..])
        })
    })
}
