//! The PROXY protocol's header, versions 1 and 2: who the client is that a proxy in front has accepted.
//!
//! Source: "The PROXY protocol, versions 1 & 2" (HAProxy's `doc/proxy-protocol.txt`, 2020-03-05). The header is all that stands
//! before a connection's own bytes, TLS included, and is read strictly: what is not exactly right is refused, as any guess
//! would let somebody choose an address.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// §2.1: the longest line of version 1, its CRLF included.
pub const V1_BYTES: usize = 107;

/// The longest header of version 2 that is taken. The format allows 65,551; addresses take 52 at most, and what is known as
/// extensions some hundreds. nginx has the same bound.
pub const V2_BYTES: usize = 4096;

/// What version 1 begins with.
const V1: &[u8] = b"PROXY ";

/// §2.2: what version 2 begins with.
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// §2.2: the signature, version and command, family and transport, length.
const V2_FIXED: usize = 16;

/// How far a header has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// What is there may be the front of a header.
    Partial,
    /// It is whole.
    Complete(Header),
}

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its length in bytes: the connection's own begin behind them.
    pub len: usize,
    /// The client's address; `None` where the header names none (`LOCAL`, `UNKNOWN`, a unix socket): then it is the
    /// connection's own.
    pub source: Option<SocketAddr>,
}

/// Why a header was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// It begins like neither version.
    NotAHeader,
    /// §2.1: version 1 has no line end within [`V1_BYTES`].
    LineTooLong,
    /// Version 1 is not the words that it has to be, each behind one space.
    Line,
    /// An address of version 1 is none, or not of the family that was named.
    Address,
    /// A port of version 1 is no number up to 65535, or has a zero before it.
    Port,
    /// The version of the binary header is not 2.
    Version,
    /// The command is neither `LOCAL` nor `PROXY`.
    Command,
    /// The family or transport is not known, or none that leads here.
    Family,
    /// The header would be longer than [`V2_BYTES`].
    TooLong,
    /// The length leaves no room for the addresses.
    TooShort,
    /// An extension is longer than what is left of the header.
    Extension,
}

impl BadHeader {
    /// What is wrong, for logs.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotAHeader => "no PROXY header",
            Self::LineTooLong => "PROXY header: the line is longer than 107 bytes",
            Self::Line => "PROXY header: not the words that are due",
            Self::Address => "PROXY header: not an address of its family",
            Self::Port => "PROXY header: not a port",
            Self::Version => "PROXY header: a version that is not known",
            Self::Command => "PROXY header: a command that is not known",
            Self::Family => "PROXY header: a family or transport that cannot be",
            Self::TooLong => "PROXY header: longer than 4096 bytes",
            Self::TooShort => "PROXY header: too short for its addresses",
            Self::Extension => "PROXY header: an extension is longer than the header",
        }
    }
}

impl fmt::Display for BadHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for BadHeader {}

/// Reads the header at the front of what has come so far. The verdict does not depend on how the bytes were split, and no
/// byte behind the header is looked at. Needs at most [`V2_BYTES`]; each call costs time in proportion to the header.
///
/// # Errors
/// What is wrong, as soon as no further bytes can mend it.
pub fn parse(bytes: &[u8]) -> Result<Progress, BadHeader> {
    match bytes.first() {
        None => Ok(Progress::Partial),
        Some(b'P') => parse_v1(bytes),
        Some(_) => parse_v2(bytes),
    }
}

/// §2.1: `PROXY TCP4 SOURCE DESTINATION PORT PORT` and CRLF.
fn parse_v1(bytes: &[u8]) -> Result<Progress, BadHeader> {
    let front = bytes.len().min(V1.len());
    if bytes[..front] != V1[..front] {
        return Err(BadHeader::NotAHeader);
    }
    let within = &bytes[..bytes.len().min(V1_BYTES)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        if within.len() == V1_BYTES {
            return Err(BadHeader::LineTooLong);
        }
        // Only the line feed may follow a carriage return.
        let text = within.strip_suffix(b"\r").unwrap_or(within);
        return if is_text(text) { Ok(Progress::Partial) } else { Err(BadHeader::Line) };
    };
    let line = within[..end].strip_suffix(b"\r").ok_or(BadHeader::Line)?;
    if !is_text(line) {
        return Err(BadHeader::Line);
    }
    let line = std::str::from_utf8(line).map_err(|_| BadHeader::Line)?;
    let complete = |source| Ok(Progress::Complete(Header { len: end + 1, source }));
    let mut words = line[V1.len()..].split(' ');
    let source = match words.next() {
        // §2.1: the rest of the line is to be ignored.
        Some("UNKNOWN") => return complete(None),
        Some("TCP4") => addresses::<Ipv4Addr>(&mut words)?,
        Some("TCP6") => addresses::<Ipv6Addr>(&mut words)?,
        _ => return Err(BadHeader::Line),
    };
    let (source_port, _) = (port(words.next())?, port(words.next())?);
    match words.next() {
        None => complete(Some(SocketAddr::new(source, source_port))),
        Some(_) => Err(BadHeader::Line),
    }
}

fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

/// The source's address; the destination's must be one, too.
fn addresses<'l, A: FromStr + Into<IpAddr>>(
    words: &mut impl Iterator<Item = &'l str>,
) -> Result<IpAddr, BadHeader> {
    let mut address = || -> Result<IpAddr, BadHeader> {
        let word = words.next().ok_or(BadHeader::Line)?;
        word.parse::<A>().map(Into::into).map_err(|_| BadHeader::Address)
    };
    let source = address()?;
    address()?;
    Ok(source.to_canonical())
}

/// §2.1: a decimal number without leading zeros.
fn port(word: Option<&str>) -> Result<u16, BadHeader> {
    let word = word.ok_or(BadHeader::Line)?;
    if !word.bytes().all(|byte| byte.is_ascii_digit()) || (word.len() > 1 && word.starts_with('0')) {
        return Err(BadHeader::Port);
    }
    word.parse().map_err(|_| BadHeader::Port)
}

/// §2.2: sixteen bytes, addresses, extensions.
fn parse_v2(bytes: &[u8]) -> Result<Progress, BadHeader> {
    let front = bytes.len().min(V2.len());
    if bytes[..front] != V2[..front] {
        return Err(BadHeader::NotAHeader);
    }
    let Some(&version) = bytes.get(12) else { return Ok(Progress::Partial) };
    if version >> 4 != 2 {
        return Err(BadHeader::Version);
    }
    let is_proxied = match version & 0xf {
        0 => false,
        1 => true,
        _ => return Err(BadHeader::Command),
    };
    let Some(&family) = bytes.get(13) else { return Ok(Progress::Partial) };
    // §2.2: connections are streams. What a LOCAL header says of addresses is to be ignored.
    let addresses = match family {
        _ if !is_proxied => 0,
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ => return Err(BadHeader::Family),
    };
    let Some(length) = bytes.get(14..V2_FIXED) else { return Ok(Progress::Partial) };
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let len = V2_FIXED + length;
    if len > V2_BYTES {
        return Err(BadHeader::TooLong);
    }
    if length < addresses {
        return Err(BadHeader::TooShort);
    }
    let Some(body) = bytes.get(V2_FIXED..len) else { return Ok(Progress::Partial) };
    let (addresses, extensions) = body.split_at(addresses);
    // §2.2: of an unspecified family and of LOCAL all that follows is to be skipped, whatever it is.
    if !addresses.is_empty() {
        check_extensions(extensions)?;
    }
    let source = match addresses {
        [a, b, c, d, _, _, _, _, high, low, _, _] => {
            let ip = IpAddr::from([*a, *b, *c, *d]);
            Some(SocketAddr::new(ip, u16::from_be_bytes([*high, *low])))
        }
        long if long.len() == 36 => {
            let ip = long.first_chunk::<16>().map(|octets| IpAddr::from(*octets).to_canonical());
            ip.map(|ip| SocketAddr::new(ip, u16::from_be_bytes([long[32], long[33]])))
        }
        _ => None,
    };
    Ok(Progress::Complete(Header { len, source }))
}

/// §2.2.1: type, length, value, one behind the other up to the header's end. None of them is used.
fn check_extensions(mut extensions: &[u8]) -> Result<(), BadHeader> {
    while let [_, rest @ ..] = extensions {
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(BadHeader::Extension)?;
        extensions = rest.get(usize::from(u16::from_be_bytes(*length))..).ok_or(BadHeader::Extension)?;
    }
    Ok(())
}
