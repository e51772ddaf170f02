//! The PROXY protocol's header: what it says, what is refused, and that no split of the bytes changes either.

use std::net::SocketAddr;

use proptest::prelude::*;
use tidegate_wire::proxy_protocol::{BadHeader, Header, Progress, V1_BYTES, V2_BYTES, parse};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(version: u8, family: u8, length: u16, body: &[u8]) -> Vec<u8> {
    [SIGNATURE, &[version, family], &length.to_be_bytes(), body].concat()
}

/// A header of version 2 whose length is that of its body.
fn whole_v2(version: u8, family: u8, body: &[u8]) -> Vec<u8> {
    v2(version, family, body.len() as u16, body)
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// The verdict on bytes that come one at a time: it never changes once it is there.
fn verdict(bytes: &[u8]) -> Result<Progress, BadHeader> {
    let mut last = parse(&[]);
    for end in 1..=bytes.len() {
        last = parse(&bytes[..end]);
        if last != Ok(Progress::Partial) {
            let all = parse(bytes);
            match (&last, &all) {
                (Ok(_), _) => assert_eq!(last, all, "after {end} of {bytes:?}"),
                // Which of several mistakes is told may depend on what came.
                (Err(_), _) => assert!(all.is_err(), "after {end} of {bytes:?}"),
            }
            return last;
        }
    }
    last
}

fn complete(bytes: &[u8], source: Option<&str>) {
    for behind in [&b""[..], b"GET / HTTP/1.1\r\n", b"\n", b"\0\0\0"] {
        let all = [bytes, behind].concat();
        let header = Header { len: bytes.len(), source: source.map(address) };
        assert_eq!(verdict(&all), Ok(Progress::Complete(header)), "{:?}", String::from_utf8_lossy(&all));
        assert_eq!(parse(&all), Ok(Progress::Complete(header)));
    }
}

#[test]
fn version_1_names_the_client() {
    complete(b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n", Some("192.0.2.1:4711"));
    complete(b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Some("255.255.255.255:65535"));
    complete(b"PROXY TCP4 192.0.2.1 10.0.0.1 0 0\r\n", Some("192.0.2.1:0"));
    complete(b"PROXY TCP6 2001:db8::1 ::1 4711 443\r\n", Some("[2001:db8::1]:4711"));
    complete(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 4711 443\r\n", Some("192.0.2.1:4711"));
    let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    complete(
        format!("PROXY TCP6 {longest} {longest} 65535 65535\r\n").as_bytes(),
        Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
    );
}

#[test]
fn what_is_unknown_or_local_names_nobody() {
    complete(b"PROXY UNKNOWN\r\n", None);
    complete(b"PROXY UNKNOWN whatever 1 2 3 is said here\r\n", None);
    let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let line = format!("PROXY UNKNOWN {longest} {longest} 65535 65535\r\n");
    assert_eq!(line.len(), V1_BYTES);
    complete(line.as_bytes(), None);
    complete(&whole_v2(0x20, 0x00, b""), None);
    complete(&whole_v2(0x20, 0x11, b"\x01\x02\x03\x04\x0a\0\0\x01\0\x01\0\x02"), None);
    // Of a LOCAL header nothing but the length counts.
    complete(&whole_v2(0x20, 0xff, b"\x04\xff\xff"), None);
    complete(&whole_v2(0x21, 0x00, b"any bytes"), None);
    complete(&whole_v2(0x21, 0x31, &[0; 216]), None);
}

#[test]
fn version_2_names_the_client() {
    let v4 = b"\xc0\x00\x02\x01\x0a\0\0\x01\x12\x67\x01\xbb";
    complete(&whole_v2(0x21, 0x11, v4), Some("192.0.2.1:4711"));
    let source = [&[0x20, 0x01, 0x0d, 0xb8][..], &[0; 11], &[1]].concat();
    let v6 = [&source[..], &source, b"\x12\x67\x01\xbb"].concat();
    complete(&whole_v2(0x21, 0x21, &v6), Some("[2001:db8::1]:4711"));
    let mapped = [&[0; 10][..], b"\xff\xff\xc0\0\x02\x01"].concat();
    let v6 = [&mapped[..], &mapped, b"\x12\x67\x01\xbb"].concat();
    complete(&whole_v2(0x21, 0x21, &v6), Some("192.0.2.1:4711"));
}

#[test]
fn extensions_are_skipped_within_the_header() {
    let v4 = &b"\xc0\x00\x02\x01\x0a\0\0\x01\x12\x67\x01\xbb"[..];
    for extensions in [&b"\x04\0\0"[..], b"\x01\0\x08http/1.1", b"\x04\0\x02\0\0\x03\0\x04\x01\x02\x03\x04"] {
        complete(&whole_v2(0x21, 0x11, &[v4, extensions].concat()), Some("192.0.2.1:4711"));
    }
    for extensions in [&b"\x04"[..], b"\x04\0", b"\x04\0\x01", b"\x04\0\0\x04\xff\xff", b"\x01\0\x09http/1.1"]
    {
        let bytes = whole_v2(0x21, 0x11, &[v4, extensions].concat());
        // What follows is not the rest of an extension.
        let bytes = [&bytes[..], &[b'x'; 70_000]].concat();
        assert_eq!(parse(&bytes), Err(BadHeader::Extension), "{extensions:?}");
    }
    let long = [v4, b"\x04", &(V2_BYTES as u16 - 16 - 12 - 3).to_be_bytes(), &[0; V2_BYTES - 31]].concat();
    complete(&whole_v2(0x21, 0x11, &long), Some("192.0.2.1:4711"));
}

#[test]
fn what_is_not_exactly_right_is_refused() {
    for (line, error) in [
        ("PROXY TCP4 999.1.1.1 10.0.0.1 1 2\r\n", BadHeader::Address),
        ("PROXY TCP4 01.1.1.1 10.0.0.1 1 2\r\n", BadHeader::Address),
        ("PROXY TCP4 1.1.1.1 10.0.0 1 2\r\n", BadHeader::Address),
        ("PROXY TCP4 ::1 ::1 1 2\r\n", BadHeader::Address),
        ("PROXY TCP6 1.1.1.1 1.1.1.1 1 2\r\n", BadHeader::Address),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", BadHeader::Address),
        ("PROXY TCP4  1.1.1.1 1.1.1.1 1 2\r\n", BadHeader::Address),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 65536 2\r\n", BadHeader::Port),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 01 2\r\n", BadHeader::Port),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 +1 2\r\n", BadHeader::Port),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 -2\r\n", BadHeader::Port),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n", BadHeader::Line),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 2 \r\n", BadHeader::Line),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 2 3\r\n", BadHeader::Line),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 2\n", BadHeader::Line),
        ("PROXY TCP4 1.1.1.1\t1.1.1.1 1 2\r\n", BadHeader::Line),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 2\r\r\n", BadHeader::Line),
        ("PROXY tcp4 1.1.1.1 1.1.1.1 1 2\r\n", BadHeader::Line),
        ("PROXY UDP4 1.1.1.1 1.1.1.1 1 2\r\n", BadHeader::Line),
        ("PROXY \r\n", BadHeader::Line),
        ("PROXY\r\n", BadHeader::NotAHeader),
        ("POST / HTTP/1.1\r\n", BadHeader::NotAHeader),
        ("GET / HTTP/1.1\r\n", BadHeader::NotAHeader),
        ("\r\nPROXY TCP4 1.1.1.1 1.1.1.1 1 2\r\n", BadHeader::NotAHeader),
        (" PROXY UNKNOWN\r\n", BadHeader::NotAHeader),
    ] {
        assert_eq!(verdict(line.as_bytes()), Err(error), "{line:?}");
    }
    let long = format!("PROXY UNKNOWN {}", "x".repeat(V1_BYTES - 14));
    assert_eq!(verdict(long.as_bytes()), Err(BadHeader::LineTooLong));
    assert_eq!(parse(&long.as_bytes()[..V1_BYTES - 1]), Ok(Progress::Partial));
    // A client's TLS.
    assert_eq!(verdict(b"\x16\x03\x01\x02\0"), Err(BadHeader::NotAHeader));
}

#[test]
fn a_binary_header_is_refused_at_its_first_wrong_byte() {
    for (bytes, error) in [
        (v2(0x11, 0x11, 12, b""), BadHeader::Version),
        (v2(0x31, 0x11, 12, b""), BadHeader::Version),
        (v2(0x22, 0x11, 12, b""), BadHeader::Command),
        // Datagrams lead to no listener.
        (v2(0x21, 0x12, 12, b""), BadHeader::Family),
        (v2(0x21, 0x22, 36, b""), BadHeader::Family),
        (v2(0x21, 0x41, 12, b""), BadHeader::Family),
        (v2(0x21, 0x01, 12, b""), BadHeader::Family),
        (v2(0x21, 0x11, 11, b""), BadHeader::TooShort),
        (v2(0x21, 0x21, 35, b""), BadHeader::TooShort),
        (v2(0x21, 0x31, 215, b""), BadHeader::TooShort),
        (v2(0x21, 0x11, 65_535, b""), BadHeader::TooLong),
        (v2(0x20, 0x00, (V2_BYTES - 15) as u16, b""), BadHeader::TooLong),
    ] {
        assert_eq!(verdict(&bytes), Err(error), "{bytes:?}");
    }
}

proptest! {
    /// Whatever comes: the verdict is the same however it was split, and what is behind a header does not count.
    #[test]
    fn any_split_gives_the_same_verdict(
        head in prop_oneof![
            Just(b"PROXY TCP4 1.2.3.4 10.0.0.1 1 2\r\n".to_vec()),
            Just(b"PROXY TCP6 ::1 ::2 1 2\r\n".to_vec()),
            Just(whole_v2(0x21, 0x11, b"\x01\x02\x03\x04\x0a\0\0\x01\0\x01\0\x02\x04\0\x01x")),
            Just(SIGNATURE.to_vec()),
            Just(Vec::new()),
        ],
        change in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        behind in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = [&head[..], &behind].concat();
        if let Some((at, byte)) = change && !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(Progress::Complete(Header { len, .. })) = verdict(&bytes) {
            prop_assert_eq!(parse(&bytes[..len]), parse(&bytes));
            prop_assert_eq!(parse(&bytes[..len - 1]), Ok(Progress::Partial));
        }
    }

    /// What a proxy writes is read.
    #[test]
    fn what_is_written_is_read(source: SocketAddr, destination_port: u16) {
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        let (family, both) = match source {
            SocketAddr::V4(_) => (0x11, "10.0.0.1"),
            SocketAddr::V6(_) => (0x21, "::1"),
        };
        let name = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let (ip, port) = (source.ip(), source.port());
        let line = format!("PROXY {name} {ip} {both} {port} {destination_port}\r\n");
        let header = Header { len: line.len(), source: Some(source) };
        prop_assert_eq!(parse(line.as_bytes()), Ok(Progress::Complete(header)));
        let octets = match ip {
            std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
            std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let ports = [port.to_be_bytes(), destination_port.to_be_bytes()].concat();
        let bytes = whole_v2(0x21, family, &[&octets[..], &octets, &ports].concat());
        let header = Header { len: bytes.len(), source: Some(source) };
        prop_assert_eq!(parse(&bytes), Ok(Progress::Complete(header)));
    }
}
