//! Headers of the PROXY protocol, as proxies in front of the gateway write them, and wrong ones.

use std::net::IpAddr;

use super::random::Random;

/// What stands before a connection's own bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxyHeader {
    pub(crate) bytes: Vec<u8>,
    /// The gateway takes it.
    pub(crate) is_right: bool,
    pub(crate) name: &'static str,
    /// Whom it names.
    pub(crate) source: Option<IpAddr>,
}

/// The signature of version 2.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

impl ProxyHeader {
    pub(crate) const NAMES: [&'static str; 10] = [
        "line",
        "line of IPv6",
        "unknown",
        "binary",
        "binary of IPv6",
        "local",
        "long",
        "none",
        "odd line",
        "odd version",
    ];

    pub(crate) fn draw(random: &mut Random) -> ProxyHeader {
        let name = *random.pick(&ProxyHeader::NAMES);
        let host = random.below(250);
        let binary = |command: u8, family: u8, rest: &[u8]| {
            let length = u16::try_from(rest.len()).expect("it is short").to_be_bytes();
            [V2, &[0x20 | command, family], &length, rest].concat()
        };
        let v4 = |extension: &[u8]| {
            let addresses = [203, 0, 113, host as u8, 10, 0, 0, 1, 0x12, 0x67, 0x01, 0xbb];
            [&addresses[..], extension].concat()
        };
        let bytes = match name {
            "line" => format!("PROXY TCP4 203.0.113.{host} 10.0.0.1 4711 443\r\n").into_bytes(),
            "line of IPv6" => format!("PROXY TCP6 2001:db8::{host} ::1 4711 443\r\n").into_bytes(),
            "unknown" => b"PROXY UNKNOWN\r\n".to_vec(),
            "binary" => binary(1, 0x11, &v4(&[])),
            "binary of IPv6" => binary(
                1,
                0x21,
                &[[0x20; 16], [0x11; 16]].concat().into_iter().chain([1; 4]).collect::<Vec<_>>(),
            ),
            "local" => binary(0, 0, &[]),
            "long" => {
                // With a head behind it no longer than what the slowest segments bring within `head_timeout`.
                let padding = random.size(20..=250);
                // PP2_TYPE_NOOP.
                let head = [4, (padding >> 8) as u8, padding as u8];
                binary(1, 0x11, &v4(&[&head[..], &vec![0; padding]].concat()))
            }
            "none" => Vec::new(),
            "odd line" => b"PROXY TCP4 203.0.113.7 10.0.0.1 04711 443\r\n".to_vec(),
            "odd version" => [V2, &[0x31, 0x11, 0, 12], &v4(&[])].concat(),
            other => unreachable!("{other}"),
        };
        let is_right = !matches!(name, "none" | "odd line" | "odd version");
        let source = match name {
            "line" | "binary" | "long" => Some(IpAddr::from([203, 0, 113, host as u8])),
            "line of IPv6" => Some(format!("2001:db8::{host}").parse().expect("an address")),
            "binary of IPv6" => Some(IpAddr::from([0x20; 16])),
            _ => None,
        };
        ProxyHeader { bytes, is_right, name, source }
    }
}
