//! Why a connection is failed.

use std::fmt;

use crate::close::CloseCode;

/// What a peer did wrong, one variant per cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A client's frame is not masked (RFC 6455 §5.1).
    Unmasked,
    /// A server's frame is masked (RFC 6455 §5.1).
    Masked,
    /// RSV2 or RSV3 is set (RFC 6455 §5.2).
    ReservedBits,
    /// RSV1 is set and compression was not agreed upon (RFC 6455 §5.2).
    CompressionNotAgreed,
    /// RSV1 is set on a continuation or a control frame (RFC 7692 §6).
    CompressionMisplaced,
    /// An opcode that has no meaning (RFC 6455 §5.2).
    ReservedOpcode,
    /// A control frame without FIN (RFC 6455 §5.5).
    ControlFragmented,
    /// A control frame of more than 125 bytes (RFC 6455 §5.5).
    ControlTooLong,
    /// A length that is not in its shortest form (RFC 6455 §5.2).
    LengthNotMinimal,
    /// A 64-bit length whose most significant bit is set (RFC 6455 §5.2).
    LengthOverflow,
    /// A continuation with no message open (RFC 6455 §5.4).
    UnexpectedContinuation,
    /// A new message inside an open one (RFC 6455 §5.4).
    UnfinishedMessage,
    /// More frames in one message than the limit.
    TooManyFragments,
    /// More bytes in one message than the limit (RFC 6455 §7.4.1).
    TooBig,
    /// Text that is not UTF-8 (RFC 6455 §8.1).
    TextNotUtf8,
    /// A compressed message that does not inflate (RFC 7692 §7.2.2).
    DeflateCorrupt,
    /// A Close frame with a body of one byte (RFC 6455 §5.5.1).
    CloseBodyTooShort,
    /// A Close frame with a code that may not be in a frame (RFC 6455 §7.4).
    CloseCodeForbidden,
    /// A Close frame whose reason is not UTF-8 (RFC 6455 §5.5.1).
    CloseReasonNotUtf8,
}

impl Violation {
    /// The code to close the connection with (RFC 6455 §7.4.1).
    #[must_use]
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::Unmasked
            | Self::Masked
            | Self::ReservedBits
            | Self::CompressionNotAgreed
            | Self::CompressionMisplaced
            | Self::ReservedOpcode
            | Self::ControlFragmented
            | Self::ControlTooLong
            | Self::LengthNotMinimal
            | Self::LengthOverflow
            | Self::UnexpectedContinuation
            | Self::UnfinishedMessage
            | Self::CloseBodyTooShort
            | Self::CloseCodeForbidden => CloseCode::PROTOCOL_ERROR,
            Self::TextNotUtf8 | Self::DeflateCorrupt | Self::CloseReasonNotUtf8 => CloseCode::INVALID_PAYLOAD,
            Self::TooManyFragments => CloseCode::POLICY_VIOLATION,
            Self::TooBig => CloseCode::TOO_BIG,
        }
    }

    /// A short constant text, fit for a log line and for a Close frame's reason.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unmasked => "frame is not masked",
            Self::Masked => "frame is masked",
            Self::ReservedBits => "reserved bit is set",
            Self::CompressionNotAgreed => "compression was not agreed upon",
            Self::CompressionMisplaced => "compression bit is misplaced",
            Self::ReservedOpcode => "reserved opcode",
            Self::ControlFragmented => "control frame is fragmented",
            Self::ControlTooLong => "control frame is too long",
            Self::LengthNotMinimal => "length is not minimal",
            Self::LengthOverflow => "length overflows",
            Self::UnexpectedContinuation => "unexpected continuation",
            Self::UnfinishedMessage => "message is unfinished",
            Self::TooManyFragments => "too many fragments",
            Self::TooBig => "message is too big",
            Self::TextNotUtf8 => "text is not UTF-8",
            Self::DeflateCorrupt => "compressed data is corrupt",
            Self::CloseBodyTooShort => "close body of one byte",
            Self::CloseCodeForbidden => "forbidden close code",
            Self::CloseReasonNotUtf8 => "close reason is not UTF-8",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Violation {}
