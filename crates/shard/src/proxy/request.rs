//! The request as the upstream gets it, and what its answer becomes.

use std::net::{IpAddr, SocketAddr};

use tidegate_config::{Balance, Deflate, HashKey};
use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::{
    extension::negotiate,
    handshake::{self, Offer, Upgrade},
    http::{Refusal, Request},
};

use super::{Waiting, upstreams::client_hash};
use crate::{
    environment::Environment, identity::forwarded_target, plan::ProxyPlan, session::State, shard::Shard,
};

/// Fields that are written here.
const WRITTEN: [&str; 3] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];

/// What the names of fields begin with that say who the client is, and how it came.
const CLAIMS: &str = "x-forwarded-";

/// More of them.
const MORE_CLAIMS: [&str; 2] = ["forwarded", "x-real-ip"];

/// Whether a field of the request goes along: what says who the client is does from trusted networks only.
fn goes_along(name: &str, trusted: bool) -> bool {
    let is_written = WRITTEN.iter().any(|known| is_alike(known, name.as_bytes()));
    !is_written && (trusted || !is_claim(name))
}

/// Whether a field says who the client is, or how it came.
pub(crate) fn is_claim(name: &str) -> bool {
    let name = name.as_bytes();
    name.get(..CLAIMS.len()).is_some_and(|start| is_alike(CLAIMS, start))
        || MORE_CLAIMS.iter().any(|known| is_alike(known, name))
}

/// Whether two names of fields are one to servers that put these into an environment (RFC 3875 §4.1.18): case is none, and they
/// cannot tell `-` from `_`.
fn is_alike(known: &str, name: &[u8]) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == known.len()
        && name.iter().zip(known.bytes()).all(|(one, known)| plain(*one) == plain(known))
}

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
                edge = route.deflate.as_ref().and_then(|policy| negotiate(&upgrade.offers, policy));
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
        let scheme = if session.transport.is_tls() { "https" } else { "http" };
        let forwarded = forwarded_fields(request, peer, trusted, scheme);
        let identity = route.identity.as_ref();
        let known = self.callers.get_mut(key).map(|known| std::mem::take(&mut known.fields));
        let mut known = known.unwrap_or_default();
        let by_token = identity.map_or(&[][..], |identity| &identity.rules().headers);
        let by_certificate =
            route.route.client_certificate.as_ref().and_then(|certificate| certificate.header.as_deref());
        if let (Some(field), Some(subject)) =
            (by_certificate, by_certificate.and_then(|_| session.transport.subject()))
            && !subject.distinguished_name().is_empty()
        {
            known.push((field.to_owned(), subject.distinguished_name().to_owned()));
        }
        let claimed: Vec<&str> =
            by_token.iter().map(|(name, _)| name.as_str()).chain(by_certificate).collect();
        // What a token or a certificate says nobody else does, whether it says it or not.
        let is_claimed = |name: &str| claimed.iter().any(|own| is_alike(own, name.as_bytes()));
        let fields = handshake::forwarded_fields(&request.fields)
            .filter(|(name, _)| goes_along(name, trusted) && !is_claimed(name));
        let offer = if passed_offers.is_empty() { Offer::None } else { Offer::Raw(&passed_offers) };
        handshake::client_request(
            &mut out,
            &forwarded_target(identity, &request.target),
            request.host,
            &nonce,
            &upgrade.protocols,
            offer,
            fields
                .chain(forwarded.iter().map(|(name, value)| (*name, value.as_slice())))
                .chain(known.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))),
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
            hash: balance_hash(request, proxy, &claimed, &known, || {
                client_address(request, peer, |ip| plan.trusts(ip))
            }),
            tried: Vec::new(),
            current: None,
            local_fault: 0,
            limit_ms: u64::MAX,
            deadline_ms: u64::MAX,
        };
        let Some(session) = self.registry.get_mut(key) else { return Ok(()) };
        let holds = waiting.held_bytes();
        session.state = State::Waiting(Box::new(waiting));
        self.recount(0, holds);
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
    scheme: &str,
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
    fields.push(("X-Forwarded-Proto", claimed("x-forwarded-proto").unwrap_or_else(|| scheme.into())));
    let host = claimed("x-forwarded-host").unwrap_or_else(|| request.host.as_bytes().to_vec());
    fields.push(("X-Forwarded-Host", host));
    fields
}

/// Where the request comes from: the last address that is not a trusted proxy's, from the connection's back through
/// `X-Forwarded-For`. What stands before that is the client's own word. Where a hop has no address, the one behind it counts.
pub(crate) fn client_address(
    request: &Request<'_>,
    peer: Option<IpAddr>,
    trusts: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let mut client = peer?;
    let lines: Vec<&[u8]> = request.fields.all("x-forwarded-for").collect();
    let hops = lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
    for hop in hops.map(<[u8]>::trim_ascii).filter(|hop| !hop.is_empty()) {
        if !trusts(client) {
            break;
        }
        let Some(address) = std::str::from_utf8(hop).ok().and_then(hop_address) else { break };
        client = address;
    }
    Some(client)
}

/// An address as proxies write it: some add the port, or brackets around IPv6.
fn hop_address(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse().ok().or_else(with_port).or_else(bare)?;
    Some(address.to_canonical())
}

/// What the balancer hashes of a request; a client without the named field or cookie goes by its address.
fn balance_hash(
    request: &Request<'_>,
    proxy: &ProxyPlan,
    claimed: &[&str],
    known: &[(String, String)],
    client_address: impl Fn() -> Option<IpAddr>,
) -> u64 {
    let address = || client_address().map_or(0, |ip| client_hash(ip.to_string().as_bytes()));
    let named =
        |value: Option<&[u8]>| value.filter(|value| !value.is_empty()).map_or_else(address, client_hash);
    match &proxy.settings.balance {
        Balance::RoundRobin | Balance::LeastSessions => 0,
        Balance::Hash(HashKey::ClientAddress) => address(),
        // A field that a token or a certificate fills is not the client's.
        Balance::Hash(HashKey::Header(name)) if claimed.iter().any(|own| is_alike(own, name.as_bytes())) => {
            let value = known.iter().find(|(own, _)| is_alike(own, name.as_bytes()));
            named(value.map(|(_, value)| value.as_bytes()))
        }
        Balance::Hash(HashKey::Header(name)) => named(request.fields.all(name).next()),
        Balance::Hash(HashKey::Cookie(name)) => named(cookie(request, name)),
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

#[cfg(test)]
mod tests {
    use tidegate_wire::http::HeadLimits;

    use super::*;

    /// The client's address behind the proxies 10.0.0.0/8, as hashed.
    fn client(peer: &str, fields: &str) -> String {
        let head = format!("GET / HTTP/1.1\r\nHost: gw.test\r\n{fields}\r\n");
        let request = Request::parse(head.as_bytes(), &HeadLimits::default(), false).unwrap();
        let proxies = |ip: IpAddr| ip.to_string().starts_with("10.");
        client_address(&request, Some(peer.parse().unwrap()), proxies).unwrap().to_string()
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_trusted_proxy() {
        for (peer, fields, expected) in [
            ("10.0.0.1", "", "10.0.0.1"),
            ("203.0.113.1", "X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.1"),
            ("10.0.0.1", "X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"),
            ("10.0.0.1", "X-Forwarded-For: 192.0.2.1, 203.0.113.9 ,10.0.0.2\r\n", "203.0.113.9"),
            ("10.0.0.1", "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"),
            ("10.0.0.1", "X-Forwarded-For: 203.0.113.9:4711\r\n", "203.0.113.9"),
            ("10.0.0.1", "X-Forwarded-For: [2001:db8::1]:4711\r\n", "2001:db8::1"),
            ("10.0.0.1", "X-Forwarded-For: [2001:db8::1]\r\n", "2001:db8::1"),
            ("10.0.0.1", "X-Forwarded-For: 2001:db8::1\r\n", "2001:db8::1"),
            ("10.0.0.1", "X-Forwarded-For: ::ffff:203.0.113.9\r\n", "203.0.113.9"),
            ("10.0.0.1", "X-Forwarded-For: 203.0.113.9, unknown, 10.0.0.2\r\n", "10.0.0.2"),
            ("10.0.0.1", "X-Forwarded-For: 203.0.113.9,, 10.0.0.2,\r\n", "203.0.113.9"),
            // Nobody but proxies: the first of them.
            ("10.0.0.1", "X-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n", "10.0.0.3"),
        ] {
            assert_eq!(client(peer, fields), expected, "{peer} {fields}");
        }
    }

    #[test]
    fn fields_that_are_written_here_never_go_along_and_other_claims_from_trusted_networks() {
        for (name, untrusted, trusted) in [
            ("X-Forwarded-For", false, false),
            ("x_forwarded-proto", false, false),
            ("X-FORWARDED-HOST", false, false),
            ("X-Forwarded-Port", false, true),
            ("X-Forwarded-", false, true),
            ("X_Forwarded_Ssl", false, true),
            ("Forwarded", false, true),
            ("X-Real-Ip", false, true),
            ("X_Real_IP", false, true),
            ("X-Forwarded", true, true),
            ("Forwarded-For", true, true),
            ("X-Real-IPs", true, true),
            ("Cookie", true, true),
        ] {
            assert_eq!((goes_along(name, false), goes_along(name, true)), (untrusted, trusted), "{name}");
        }
    }
}
