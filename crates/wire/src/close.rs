//! Close codes and the bodies of Close frames (RFC 6455 §5.5.1, §7.4).
//!
//! Invariant: a [`CloseCode`] may stand in a Close frame; the codes that only a local API may show (1005,
//! 1006, 1015) and the unassigned ones have no value of this type.

use std::fmt;
use std::ops::Deref;

use crate::frame::MAX_CONTROL_PAYLOAD;
use crate::message::Violation;

/// The longest reason of a Close frame, in bytes: a control frame's 125 less the code's two.
pub const MAX_REASON: usize = MAX_CONTROL_PAYLOAD - 2;

/// A status code that may stand in a Close frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose was fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1001: a server goes down, or a browser has left the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: a kind of data that cannot be accepted here.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// 1007: data that does not fit the message's kind, such as text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// 1008: against a policy.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// 1009: the message is too big.
    pub const TOO_BIG: Self = Self(1009);
    /// 1010: the client misses an extension that it needs.
    pub const MANDATORY_EXTENSION: Self = Self(1010);
    /// 1011: an unexpected condition on this side.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the service restarts (IANA registry).
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: try again later (IANA registry).
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// 1014: a gateway had a bad answer from its upstream (IANA registry).
    pub const BAD_GATEWAY: Self = Self(1014);

    /// The code, if it may stand in a Close frame.
    #[must_use]
    pub const fn new(code: u16) -> Option<Self> {
        if Self::may_be_received(code) { Some(Self(code)) } else { None }
    }

    /// Whether a peer may send `code`: 1000 to 1003 and 1007 to 1014 as registered, 3000 to 4999 for
    /// libraries and applications. RFC 6455 §7.4.1 reserves 1004, and forbids 1005, 1006 and 1015 in a
    /// frame; §7.4.2 leaves below 1000 unused, 1016 to 2999 to future revisions, and 5000 up undefined.
    #[must_use]
    pub const fn may_be_received(code: u16) -> bool {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }

    /// Whether this end may send `code`: what it would accept, so that an echoed code is always legal. A
    /// server does not send 1010 on its own account: that code is the client's (RFC 6455 §7.4.1).
    #[must_use]
    pub const fn may_be_sent(code: u16) -> bool {
        Self::may_be_received(code)
    }

    /// The code's number.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        self.0
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The reason in a Close frame: UTF-8 of at most [`MAX_REASON`] bytes, inline.
#[derive(Clone, Copy)]
pub struct Reason {
    len: u8,
    bytes: [u8; MAX_REASON],
}

impl Reason {
    /// No reason.
    pub const EMPTY: Self = Self { len: 0, bytes: [0; MAX_REASON] };

    /// As much of `text` as fits, cut between characters.
    #[must_use]
    pub fn truncated(text: &str) -> Self {
        let text = &text[..text.floor_char_boundary(MAX_REASON)];
        let mut reason = Self::EMPTY;
        reason.bytes[..text.len()].copy_from_slice(text.as_bytes());
        // At most 123.
        reason.len = text.len() as u8;
        reason
    }

    /// The reason as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.len)]).expect("a reason is made from a str")
    }
}

impl Deref for Reason {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq for Reason {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Reason {}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// What a peer's Close frame said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    /// The code; `None` where the frame's body was empty (an API shows that as 1005).
    pub code: Option<CloseCode>,
    /// The reason, empty where there was none.
    pub reason: Reason,
}

impl CloseFrame {
    /// Reads the unmasked body of a Close frame.
    ///
    /// # Errors
    /// The RFC 6455 §5.5.1 and §7.4 rules: a body of one byte, a code that may not be in a frame, a reason
    /// that is not UTF-8.
    pub fn parse(body: &[u8]) -> Result<Self, Violation> {
        match *body {
            [] => Ok(Self { code: None, reason: Reason::EMPTY }),
            [_] => Err(Violation::CloseBodyTooShort),
            [high, low, ref reason @ ..] => {
                let code =
                    CloseCode::new(u16::from_be_bytes([high, low])).ok_or(Violation::CloseCodeForbidden)?;
                let reason = str::from_utf8(reason).map_err(|_| Violation::CloseReasonNotUtf8)?;
                Ok(Self { code: Some(code), reason: Reason::truncated(reason) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 §7.4 and the IANA registry, written out.
    fn allowed(code: u16) -> bool {
        [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014].contains(&code)
            || (3000..5000).contains(&code)
    }

    #[test]
    fn rfc6455_7_4_every_code() {
        for code in 0..=u16::MAX {
            assert_eq!(CloseCode::may_be_received(code), allowed(code), "{code}");
            assert_eq!(CloseCode::may_be_sent(code), allowed(code), "{code}");
            assert_eq!(CloseCode::new(code).map(CloseCode::as_u16), allowed(code).then_some(code));
            let body = code.to_be_bytes();
            let expected =
                if allowed(code) { Ok(CloseCode(code)) } else { Err(Violation::CloseCodeForbidden) };
            assert_eq!(CloseFrame::parse(&body).map(|frame| frame.code.unwrap()), expected);
        }
    }

    #[test]
    fn rfc6455_5_5_1_a_body_is_empty_or_starts_with_a_code() {
        assert_eq!(CloseFrame::parse(&[]), Ok(CloseFrame { code: None, reason: Reason::EMPTY }));
        assert_eq!(CloseFrame::parse(&[3]), Err(Violation::CloseBodyTooShort));
        let frame = CloseFrame::parse(b"\x03\xe8bye \xe2\x82\xac").unwrap();
        assert_eq!((frame.code, &*frame.reason), (Some(CloseCode::NORMAL), "bye €"));
    }

    #[test]
    fn rfc6455_5_5_1_a_reason_is_utf8() {
        assert_eq!(CloseFrame::parse(b"\x03\xe8\xc0\xaf\xff"), Err(Violation::CloseReasonNotUtf8));
        assert_eq!(CloseFrame::parse(b"\x03\xe8\xe2\x82"), Err(Violation::CloseReasonNotUtf8));
        // The code counts first.
        assert_eq!(CloseFrame::parse(b"\x03\xed\xff"), Err(Violation::CloseCodeForbidden));
    }

    #[test]
    fn the_longest_reason_is_kept_whole() {
        let body = [b"\x0f\xa0".as_slice(), &[b'r'; MAX_REASON]].concat();
        let frame = CloseFrame::parse(&body).unwrap();
        assert_eq!((frame.code.map(u16::from), frame.reason.len()), (Some(4000), MAX_REASON));
    }
}
