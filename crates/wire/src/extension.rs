//! `Sec-WebSocket-Extensions`: its grammar (RFC 6455 §9.1) and the negotiation of permessage-deflate
//! (RFC 7692 §5 to §7.1) for both roles.
//!
//! The parser borrows, goes over each byte at most three times, and allocates nothing. A field that breaks the
//! grammar negotiates nothing at all; an offer that is well formed but that this side cannot or may not honour is
//! declined, and the next one is tried.

use std::fmt;
use std::iter::FusedIterator;

/// The registered name of the extension (RFC 7692 §7).
pub const PERMESSAGE_DEFLATE: &str = "permessage-deflate";

const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// The smallest window that zlib can deflate into: RFC 7692 §7.1.2 lets 8 be named, which in a raw stream zlib refuses.
const MIN_DEFLATE_WINDOW_BITS: u8 = 9;
/// What holds where no window was named (RFC 7692 §7.1.2).
const MAX_WINDOW_BITS: u8 = 15;

/// What was agreed about permessage-deflate. Its `Display` is the element of the server's
/// `Sec-WebSocket-Extensions` answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeflateParams {
    /// The server forgets its window after each message.
    pub server_no_context_takeover: bool,
    /// The client forgets its window after each message.
    pub client_no_context_takeover: bool,
    /// log2 of the window that the server may look back, 8 to 15. As a server this side agrees to 9 or more.
    pub server_max_window_bits: u8,
    /// log2 of the window that the client may look back, 8 to 15. As a client this side agrees to 9 or more.
    pub client_max_window_bits: u8,
    /// The offer named `server_max_window_bits`, so the answer must name it too, even when it is 15
    /// (RFC 7692 §7.1.2.1).
    pub server_max_window_bits_named: bool,
}

impl DeflateParams {
    /// The same without context takeover, which a server may answer whatever was offered (RFC 7692 §7.1.1).
    #[must_use]
    pub fn without_takeover(self) -> Self {
        Self { server_no_context_takeover: true, client_no_context_takeover: true, ..self }
    }
}

/// No context takeover in either direction, the largest windows.
impl Default for DeflateParams {
    fn default() -> Self {
        Self {
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            server_max_window_bits: MAX_WINDOW_BITS,
            client_max_window_bits: MAX_WINDOW_BITS,
            server_max_window_bits_named: false,
        }
    }
}

impl fmt::Display for DeflateParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PERMESSAGE_DEFLATE)?;
        if self.server_no_context_takeover {
            write!(f, "; {SERVER_NO_CONTEXT_TAKEOVER}")?;
        }
        if self.client_no_context_takeover {
            write!(f, "; {CLIENT_NO_CONTEXT_TAKEOVER}")?;
        }
        if self.server_max_window_bits_named || self.server_max_window_bits < MAX_WINDOW_BITS {
            write!(f, "; {SERVER_MAX_WINDOW_BITS}={}", self.server_max_window_bits)?;
        }
        // Below 15 only where the offer allowed it to be named (RFC 7692 §7.1.2.2).
        if self.client_max_window_bits < MAX_WINDOW_BITS {
            write!(f, "; {CLIENT_MAX_WINDOW_BITS}={}", self.client_max_window_bits)?;
        }
        Ok(())
    }
}

/// What this side is willing to do as a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeflatePolicy {
    /// Let both sides keep their windows from message to message, where the client does not forbid it. It costs
    /// memory for each session: ask [`crate::deflate::Codecs::takeover_available`] first.
    pub context_takeover: bool,
    /// log2 of the largest window that this side deflates into, 9 to 15; values outside are taken as the nearest.
    /// Smaller windows compress less and let the client save memory.
    pub max_window_bits: u8,
}

/// No context takeover, the largest window.
impl Default for DeflatePolicy {
    fn default() -> Self {
        Self { context_takeover: false, max_window_bits: MAX_WINDOW_BITS }
    }
}

/// The first acceptable permessage-deflate offer, answered (RFC 7692 §5, §7.1). `None`: the session goes on without
/// compression, because nothing fitting was offered or because the field breaks the grammar.
#[must_use]
pub fn negotiate(offers: &ExtensionOffers<'_>, policy: &DeflatePolicy) -> Option<DeflateParams> {
    offers.check().ok()?;
    offers.deflate_offers().find_map(|offer| answer(&offer, policy))
}

/// How a server answers `offer`. `None`: it declines.
fn answer(offer: &DeflateOffer, policy: &DeflatePolicy) -> Option<DeflateParams> {
    let own = policy.max_window_bits.clamp(MIN_DEFLATE_WINDOW_BITS, MAX_WINDOW_BITS);
    let server_max_window_bits = own.min(offer.server_max_window_bits.unwrap_or(MAX_WINDOW_BITS));
    if server_max_window_bits < MIN_DEFLATE_WINDOW_BITS {
        return None;
    }
    Some(DeflateParams {
        // Both may be answered without having been offered (RFC 7692 §7.1.1), and say what memory will be kept.
        server_no_context_takeover: offer.server_no_context_takeover || !policy.context_takeover,
        client_no_context_takeover: offer.client_no_context_takeover || !policy.context_takeover,
        server_max_window_bits,
        // A hint to this side; inflating a smaller window costs nothing, so it is confirmed as it stands.
        client_max_window_bits: offer.client_max_window_bits.unwrap_or(MAX_WINDOW_BITS),
        server_max_window_bits_named: offer.server_max_window_bits.is_some(),
    })
}

/// A permessage-deflate offer of a client. Its `Display` is the element of the request's `Sec-WebSocket-Extensions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeflateOffer {
    /// Ask the server to forget its window after each message.
    pub server_no_context_takeover: bool,
    /// Tell the server that the client will forget its window after each message.
    pub client_no_context_takeover: bool,
    /// Ask the server to look back at most this far (log2), 8 to 15.
    pub server_max_window_bits: Option<u8>,
    /// Allow the server to name the client's window, and tell it how far (log2) the client looks back at most:
    /// 8 to 15, where 15 is the same as no value. `None`: the server may not name it.
    pub client_max_window_bits: Option<u8>,
}

impl fmt::Display for DeflateOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PERMESSAGE_DEFLATE)?;
        if self.server_no_context_takeover {
            write!(f, "; {SERVER_NO_CONTEXT_TAKEOVER}")?;
        }
        if self.client_no_context_takeover {
            write!(f, "; {CLIENT_NO_CONTEXT_TAKEOVER}")?;
        }
        if let Some(bits) = self.server_max_window_bits {
            write!(f, "; {SERVER_MAX_WINDOW_BITS}={bits}")?;
        }
        match self.client_max_window_bits {
            None => Ok(()),
            Some(MAX_WINDOW_BITS) => write!(f, "; {CLIENT_MAX_WINDOW_BITS}"),
            Some(bits) => write!(f, "; {CLIENT_MAX_WINDOW_BITS}={bits}"),
        }
    }
}

impl DeflateOffer {
    /// Checks a server's answer to this offer: `values` are the response's `Sec-WebSocket-Extensions` fields.
    /// `None`: the server declined.
    ///
    /// # Errors
    /// Everything that makes a client fail the connection (RFC 6455 §4.1, RFC 7692 §5 and §7.1).
    pub fn verify<'r>(
        &self,
        values: impl IntoIterator<Item = &'r str>,
    ) -> Result<Option<DeflateParams>, BadAnswer> {
        let Some(answer) = the_answer(values)? else { return Ok(None) };
        let params = self.accept(&answer)?;
        if params.client_max_window_bits < MIN_DEFLATE_WINDOW_BITS {
            return Err(BadAnswer::Unsupported);
        }
        Ok(Some(params))
    }

    fn accept(&self, answer: &Answer) -> Result<DeflateParams, BadAnswer> {
        // RFC 7692 §7.1.1.1: a server that takes such an offer says so.
        if self.server_no_context_takeover && !answer.server_no_context_takeover {
            return Err(BadAnswer::Ignored);
        }
        // RFC 7692 §7.1.2.1: the same or a smaller value; unasked it may name any.
        let server_max_window_bits = match (self.server_max_window_bits, answer.server_max_window_bits) {
            (Some(_), None) => return Err(BadAnswer::Ignored),
            (Some(asked), Some(bits)) if bits > asked => return Err(BadAnswer::Widened),
            (_, bits) => bits.unwrap_or(MAX_WINDOW_BITS),
        };
        // RFC 7692 §7.1.2.2: only where the offer allowed it.
        let client_max_window_bits = match (self.client_max_window_bits, answer.client_max_window_bits) {
            (None, Some(_)) => return Err(BadAnswer::NotOffered),
            (Some(hint), Some(bits)) if bits > hint => return Err(BadAnswer::Widened),
            (hint, bits) => bits.or(hint).unwrap_or(MAX_WINDOW_BITS),
        };
        Ok(DeflateParams {
            server_no_context_takeover: answer.server_no_context_takeover,
            client_no_context_takeover: self.client_no_context_takeover || answer.client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits,
            server_max_window_bits_named: answer.server_max_window_bits.is_some(),
        })
    }
}

/// Why a server's `Sec-WebSocket-Extensions` fails the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadAnswer {
    /// It breaks the grammar of RFC 6455 §9.1.
    Malformed,
    /// An extension or a parameter that was not offered.
    NotOffered,
    /// permessage-deflate twice, or a parameter twice.
    Repeated,
    /// An unknown parameter, or a value that the parameter may not have.
    Invalid,
    /// A parameter of the offer that a server taking it has to confirm is missing.
    Ignored,
    /// A larger window than was offered.
    Widened,
    /// A window of 256 bytes, into which this side cannot deflate.
    Unsupported,
}

impl fmt::Display for BadAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed Sec-WebSocket-Extensions",
            Self::NotOffered => "an extension or parameter that was not offered",
            Self::Repeated => "an extension or parameter named twice",
            Self::Invalid => "an invalid permessage-deflate parameter",
            Self::Ignored => "a permessage-deflate parameter of the offer is not confirmed",
            Self::Widened => "a larger window than offered",
            Self::Unsupported => "a window of 256 bytes is not supported",
        })
    }
}

impl std::error::Error for BadAnswer {}

/// The `Sec-WebSocket-Extensions` of a request, in the client's order of preference. Parsed on demand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtensionOffers<'b> {
    values: Vec<&'b str>,
}

impl<'b> ExtensionOffers<'b> {
    /// `values`: the request's `Sec-WebSocket-Extensions` fields, in order. Several fields are one list (RFC 6455
    /// §9.1).
    #[must_use]
    pub fn new(values: Vec<&'b str>) -> Self {
        Self { values }
    }

    /// The request had no such field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The fields as received.
    #[must_use]
    pub fn values(&self) -> &[&'b str] {
        &self.values
    }

    /// Every extension offered, known or not.
    #[must_use]
    pub fn extensions(&self) -> Extensions<'_, 'b> {
        Extensions { values: self.values.iter(), rest: "", broken: false }
    }

    /// Does the list follow the grammar?
    ///
    /// # Errors
    /// [`Malformed`] where it does not: RFC 6455 §9.1 lets a server refuse such a request.
    pub fn check(&self) -> Result<(), Malformed> {
        self.extensions().try_for_each(|extension| extension.map(|_| ()))
    }

    /// The permessage-deflate offers whose parameters RFC 7692 §7.1 allows, in order. Others are skipped.
    pub fn deflate_offers(&self) -> impl Iterator<Item = DeflateOffer> {
        self.extensions()
            .map_while(Result::ok)
            .filter(|extension| extension.name == PERMESSAGE_DEFLATE)
            .filter_map(|extension| Answer::of(extension.params(), Side::Offer).ok())
            .map(|read| DeflateOffer {
                server_no_context_takeover: read.server_no_context_takeover,
                client_no_context_takeover: read.client_no_context_takeover,
                server_max_window_bits: read.server_max_window_bits,
                client_max_window_bits: read.client_max_window_bits,
            })
    }

    /// Checks an upstream's answer to these offers, for a gateway that hands them through: `values` are the
    /// response's `Sec-WebSocket-Extensions` fields. `None`: declined.
    ///
    /// # Errors
    /// Where the answer fits none of the permessage-deflate offers, the reason why it does not fit the last one.
    pub fn verify<'r>(
        &self,
        values: impl IntoIterator<Item = &'r str>,
    ) -> Result<Option<DeflateParams>, BadAnswer> {
        let Some(answer) = the_answer(values)? else { return Ok(None) };
        let mut verdict = Err(BadAnswer::NotOffered);
        for offer in self.deflate_offers() {
            verdict = offer.accept(&answer);
            if verdict.is_ok() {
                break;
            }
        }
        verdict.map(Some)
    }
}

/// A `Sec-WebSocket-Extensions` field that breaks the grammar of RFC 6455 §9.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed Sec-WebSocket-Extensions")
    }
}

impl std::error::Error for Malformed {}

/// One element of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'b> {
    /// Its name, a token.
    pub name: &'b str,
    /// The whole element as received, without the white space around it.
    pub raw: &'b str,
}

impl<'b> Extension<'b> {
    /// Its parameters, in order.
    #[must_use]
    pub fn params(&self) -> Params<'b> {
        Params { rest: self.raw.strip_prefix(self.name).unwrap_or("") }
    }
}

/// One parameter of an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'b> {
    /// Its name, a token.
    pub name: &'b str,
    /// Its value.
    pub value: ParamValue<'b>,
}

/// The value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamValue<'b> {
    /// A name alone.
    Absent,
    /// A token.
    Token(&'b str),
    /// What stands between the quotes, with its backslashes.
    Quoted(&'b str),
}

impl ParamValue<'_> {
    /// A decimal number from 8 to 15 without leading zeroes (RFC 7692 §7.1.2), quoted or not.
    fn window_bits(self) -> Option<u8> {
        let (text, quoted) = match self {
            Self::Absent => return None,
            Self::Token(text) => (text, false),
            Self::Quoted(text) => (text, true),
        };
        let mut bytes = text.bytes();
        let mut digit = || match bytes.next() {
            // The parser has seen to it that a backslash escapes something.
            Some(b'\\') if quoted => bytes.next(),
            byte => byte,
        };
        match (digit(), digit(), digit()) {
            (Some(ones @ b'8'..=b'9'), None, None) => Some(ones - b'0'),
            (Some(b'1'), Some(ones @ b'0'..=b'5'), None) => Some(10 + ones - b'0'),
            _ => None,
        }
    }
}

/// See [`ExtensionOffers::extensions`]. Ends after the first [`Malformed`].
#[derive(Clone, Debug)]
pub struct Extensions<'o, 'b> {
    values: std::slice::Iter<'o, &'b str>,
    rest: &'b str,
    broken: bool,
}

impl<'b> Iterator for Extensions<'_, 'b> {
    type Item = Result<Extension<'b>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken {
            return None;
        }
        loop {
            // RFC 7230 §7: a recipient takes empty list elements.
            let rest = self.rest.trim_start_matches([' ', '\t', ',']);
            if !rest.is_empty() {
                let element = element(rest);
                match &element {
                    Ok(extension) => self.rest = &rest[extension.raw.len()..],
                    Err(Malformed) => self.broken = true,
                }
                return Some(element);
            }
            self.rest = self.values.next()?;
        }
    }
}

impl FusedIterator for Extensions<'_, '_> {}

/// Reads the element at the start of `text`, up to its comma.
fn element(text: &str) -> Result<Extension<'_>, Malformed> {
    let (name, after) = token(text).ok_or(Malformed)?;
    let mut rest = after;
    loop {
        let raw = &text[..text.len() - rest.len()];
        let next = trim(rest);
        if next.is_empty() || next.starts_with(',') {
            return Ok(Extension { name, raw });
        }
        (_, rest) = param(next).ok_or(Malformed)?;
    }
}

/// See [`Extension::params`].
#[derive(Clone, Debug)]
pub struct Params<'b> {
    rest: &'b str,
}

impl<'b> Iterator for Params<'b> {
    type Item = Param<'b>;

    fn next(&mut self) -> Option<Self::Item> {
        // `element` has checked the grammar; anything else would end the iteration.
        let (param, rest) = param(trim(self.rest))?;
        self.rest = rest;
        Some(param)
    }
}

impl FusedIterator for Params<'_> {}

/// Reads `";" name [ "=" value ]`.
fn param(text: &str) -> Option<(Param<'_>, &str)> {
    let (name, rest) = token(trim(text.strip_prefix(';')?))?;
    // RFC 6455 takes its grammar from RFC 2616, where white space may stand between any two words.
    let Some(after) = trim(rest).strip_prefix('=').map(trim) else {
        return Some((Param { name, value: ParamValue::Absent }, rest));
    };
    let (value, rest) = match after.strip_prefix('"') {
        Some(quoted) => {
            let end = closing_quote(quoted)?;
            (ParamValue::Quoted(&quoted[..end]), &quoted[end + 1..])
        }
        None => {
            let (value, rest) = token(after)?;
            (ParamValue::Token(value), rest)
        }
    };
    Some((Param { name, value }, rest))
}

/// Where the quoted string whose opening quote was taken ends.
fn closing_quote(text: &str) -> Option<usize> {
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some(at),
            b'\\' => {
                bytes.next()?;
            }
            _ => {}
        }
    }
    None
}

/// A token (RFC 7230 §3.2.6) and what follows it.
fn token(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|byte| !is_tchar(byte)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn trim(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

/// The parameters of one permessage-deflate element, as read.
#[derive(Default)]
struct Answer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: Option<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Offer,
    Answer,
}

impl Answer {
    /// RFC 7692 §7.1: unknown, repeated or invalid parameters void the whole element.
    fn of(params: Params<'_>, side: Side) -> Result<Self, BadAnswer> {
        let mut read = Self::default();
        for Param { name, value } in params {
            let repeated = match name {
                SERVER_NO_CONTEXT_TAKEOVER if value == ParamValue::Absent => {
                    std::mem::replace(&mut read.server_no_context_takeover, true)
                }
                CLIENT_NO_CONTEXT_TAKEOVER if value == ParamValue::Absent => {
                    std::mem::replace(&mut read.client_no_context_takeover, true)
                }
                SERVER_MAX_WINDOW_BITS => {
                    let bits = value.window_bits().ok_or(BadAnswer::Invalid)?;
                    read.server_max_window_bits.replace(bits).is_some()
                }
                // RFC 7692 §7.1.2.2: only in an offer it may stand without a value.
                CLIENT_MAX_WINDOW_BITS if value == ParamValue::Absent && side == Side::Offer => {
                    read.client_max_window_bits.replace(MAX_WINDOW_BITS).is_some()
                }
                CLIENT_MAX_WINDOW_BITS => {
                    let bits = value.window_bits().ok_or(BadAnswer::Invalid)?;
                    read.client_max_window_bits.replace(bits).is_some()
                }
                _ => return Err(BadAnswer::Invalid),
            };
            if repeated {
                return Err(BadAnswer::Repeated);
            }
        }
        Ok(read)
    }
}

/// The one permessage-deflate element of a response. `None`: there is no element at all.
fn the_answer<'r>(values: impl IntoIterator<Item = &'r str>) -> Result<Option<Answer>, BadAnswer> {
    let mut answer = None;
    for value in values {
        let value = [value];
        for extension in (Extensions { values: value.iter(), rest: "", broken: false }) {
            let extension = extension.map_err(|Malformed| BadAnswer::Malformed)?;
            // RFC 6455 §4.1: an extension that was not asked for.
            if extension.name != PERMESSAGE_DEFLATE {
                return Err(BadAnswer::NotOffered);
            }
            if answer.is_some() {
                return Err(BadAnswer::Repeated);
            }
            answer = Some(Answer::of(extension.params(), Side::Answer)?);
        }
    }
    Ok(answer)
}
