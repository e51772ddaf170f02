//! The oracle's own WebSocket: frames, messages, heads, SHA-1 and base64, written from the RFCs and apart from
//! `tidegate-wire`, so that a fault there does not hide itself. Slow and strict: what is not right panics.

use super::{deflate::Inflater, random::splitmix64};

/// RFC 6455 §5.2.
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// What a frame's first byte says besides its opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct First {
    pub(crate) fin: bool,
    /// The reserved bits, the first one on top.
    pub(crate) rsv: u8,
    pub(crate) opcode: u8,
}

impl First {
    pub(crate) fn whole(opcode: u8) -> First {
        First { fin: true, rsv: 0, opcode }
    }
}

/// Appends a frame's header for a payload of `len` bytes.
pub(crate) fn header(out: &mut Vec<u8>, first: First, len: usize, mask: Option<[u8; 4]>) {
    out.push(u8::from(first.fin) << 7 | first.rsv << 4 | first.opcode);
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match len {
        0..=125 => out.push(masked | len as u8),
        126..=0xFFFF => {
            out.push(masked | 126);
            out.extend((len as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(mask.into_iter().flatten());
}

/// Appends a frame.
pub(crate) fn frame(out: &mut Vec<u8>, first: First, payload: &[u8], mask: Option<[u8; 4]>) {
    header(out, first, payload.len(), mask);
    let key = mask.unwrap_or_default();
    out.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ key[index % 4]));
}

/// A Close frame's payload.
pub(crate) fn close_payload(code: Option<u16>, reason: &str) -> Vec<u8> {
    code.map_or_else(Vec::new, |code| [&code.to_be_bytes()[..], reason.as_bytes()].concat())
}

/// What a peer of the gateway has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Message { opcode: u8, payload: Vec<u8> },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

/// Reads the gateway's frames.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Whether the gateway is the client here, so that it must mask.
    masked: bool,
    bytes: Vec<u8>,
    read: usize,
    message: Option<Message>,
    closed: bool,
    /// Texts need not be UTF-8.
    pub(crate) any_text: bool,
    /// Where compression was agreed upon.
    inflater: Option<Inflater>,
    /// Compressed messages so far.
    pub(crate) inflated: u64,
}

#[derive(Debug)]
struct Message {
    opcode: u8,
    compressed: bool,
    payload: Vec<u8>,
}

impl Inbox {
    pub(crate) fn new(masked: bool) -> Inbox {
        Inbox {
            masked,
            bytes: Vec::new(),
            read: 0,
            message: None,
            closed: false,
            any_text: false,
            inflater: None,
            inflated: 0,
        }
    }

    /// Compressed messages may come from now on.
    pub(crate) fn inflate(&mut self, inflater: Inflater) {
        self.inflater = Some(inflater);
    }

    /// Whether a frame is incomplete.
    pub(crate) fn is_inside_frame(&self) -> bool {
        self.read < self.bytes.len()
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.read == self.bytes.len() {
            self.bytes.clear();
            self.read = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole item.
    ///
    /// # Panics
    /// Where the gateway breaks RFC 6455.
    pub(crate) fn next(&mut self) -> Option<Item> {
        loop {
            let rest = &self.bytes[self.read..];
            if rest.is_empty() {
                return None;
            }
            assert!(!self.closed, "bytes behind a Close: {:02x?}", &rest[..rest.len().min(16)]);
            let [first, second, ..] = *rest else { return None };
            let (fin, rsv, opcode) = (first & 0x80 != 0, first >> 4 & 7, first & 15);
            // RFC 7692 §6: the first frame of a compressed message.
            let compressed = rsv == 4 && self.inflater.is_some() && matches!(opcode, TEXT | BINARY);
            assert!(rsv == 0 || compressed, "reserved bits in a frame: {first:#04x}");
            assert!((second & 0x80 != 0) == self.masked, "a frame is masked the wrong way: {second:#04x}");
            let short = usize::from(second & 0x7F);
            let extra = match short {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let mask_at = 2 + extra;
            let start = mask_at + if self.masked { 4 } else { 0 };
            if rest.len() < start {
                return None;
            }
            let len = match extra {
                0 => short,
                _ => rest[2..mask_at].iter().fold(0, |len, byte| len << 8 | usize::from(*byte)),
            };
            // RFC 6455 §5.2: the minimal number of bytes must be used.
            assert!(extra != 2 || len > 125, "a length of {len} in two bytes");
            assert!(extra != 8 || (len > 0xFFFF && len >> 63 == 0), "a length of {len} in eight bytes");
            assert!(opcode < 8 || (fin && len <= 125), "a control frame of {len} bytes, FIN {fin}");
            assert!(len <= 1 << 30, "a frame of {len} bytes");
            if rest.len() < start + len {
                return None;
            }
            let mut payload = rest[start..start + len].to_vec();
            if self.masked {
                let key = &rest[mask_at..start];
                payload.iter_mut().enumerate().for_each(|(index, byte)| *byte ^= key[index % 4]);
            }
            self.read += start + len;
            if let Some(item) = self.frame(fin, opcode, compressed, payload) {
                return Some(item);
            }
        }
    }

    fn frame(&mut self, fin: bool, opcode: u8, compressed: bool, payload: Vec<u8>) -> Option<Item> {
        match opcode {
            TEXT | BINARY => {
                assert!(self.message.is_none(), "a message begins inside of another");
                self.message = Some(Message { opcode, compressed, payload });
            }
            CONTINUATION => {
                let message = self.message.as_mut().expect("a continuation of nothing");
                message.payload.extend(payload);
            }
            PING => return Some(Item::Ping(payload)),
            PONG => return Some(Item::Pong(payload)),
            CLOSE => {
                self.closed = true;
                return Some(Item::Close(close_code(&payload)));
            }
            _ => panic!("opcode {opcode}"),
        }
        if !fin {
            return None;
        }
        let Message { opcode, compressed, mut payload } = self.message.take().expect("it was put there");
        if compressed {
            payload = self.inflater.as_mut().expect("it was agreed upon").message(&payload);
            self.inflated += 1;
        }
        assert!(
            self.any_text || opcode != TEXT || std::str::from_utf8(&payload).is_ok(),
            "text that is not UTF-8"
        );
        Some(Item::Message { opcode, payload })
    }
}

/// RFC 6455 §5.5.1, §7.4.
fn close_code(payload: &[u8]) -> Option<u16> {
    let [high, low, reason @ ..] = payload else {
        assert!(payload.is_empty(), "a Close with one byte");
        return None;
    };
    let code = u16::from_be_bytes([*high, *low]);
    let allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    assert!(allowed, "a Close with code {code}");
    assert!(std::str::from_utf8(reason).is_ok(), "a Close with a reason that is not UTF-8");
    Some(code)
}

/// The content of message `seq` from `sender`: known to both ends without being told.
pub(crate) fn content(sender: u64, seq: u64, opcode: u8, len: usize) -> Vec<u8> {
    let mut state = splitmix64(sender << 32 ^ seq << 1 ^ u64::from(opcode == TEXT));
    let mut step = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        splitmix64(state)
    };
    let mut out = Vec::with_capacity(len + 8);
    // Half of the messages repeat themselves, so that there is something to compress.
    let word = step();
    let period = if word & 1 == 0 { 3 + (word >> 8) as usize % 60 } else { usize::MAX };
    if len > period {
        let phrase = content(sender, seq ^ 1 << 40, opcode, period);
        while out.len() + period <= len {
            out.extend_from_slice(&phrase);
        }
        out.resize(len, b'.');
        return out;
    }
    if opcode == BINARY {
        while out.len() < len {
            out.extend(step().to_le_bytes());
        }
        out.truncate(len);
        return out;
    }
    // Now and then characters of two, three and four bytes; most messages are ASCII.
    let foreign = step() & 3 == 0;
    while out.len() < len {
        let word = step();
        for byte in word.to_le_bytes() {
            let wide: &[u8] = match byte {
                0..=9 => "é".as_bytes(),
                10..=19 => "€".as_bytes(),
                20..=29 => "𝄞".as_bytes(),
                _ => &[],
            };
            if foreign && !wide.is_empty() && out.len() + wide.len() <= len {
                out.extend(wide);
            } else if out.len() < len {
                out.push(b' ' + byte % 95);
            }
        }
    }
    out
}

/// A head, split into its first line and its fields (names in lower case).
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) line: String,
    pub(crate) fields: Vec<(String, String)>,
    /// Where it ends.
    pub(crate) len: usize,
}

impl Head {
    /// `None` while it is incomplete.
    ///
    /// # Panics
    /// Where it is not a head.
    pub(crate) fn read(bytes: &[u8]) -> Option<Head> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let text = std::str::from_utf8(&bytes[..end]).expect("a head of the gateway is ASCII here");
        let mut lines = text.split("\r\n");
        let line = lines.next().expect("split gives one").to_string();
        let fields = lines.map(|field| {
            let (name, value) =
                field.split_once(':').unwrap_or_else(|| panic!("a field without a colon: {field:?}"));
            assert!(!name.is_empty() && !name.contains(' '), "a field name {name:?}");
            (name.to_ascii_lowercase(), value.trim().to_string())
        });
        Some(Head { line, fields: fields.collect(), len: end + 4 })
    }

    /// The only value of a field; `None` where it is missing.
    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        let mut values =
            self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "two fields {name}");
        value
    }

    pub(crate) fn status(&self) -> u16 {
        let mut words = self.line.split(' ');
        assert!(words.next() == Some("HTTP/1.1"), "a status line {:?}", self.line);
        words
            .next()
            .and_then(|status| status.parse().ok())
            .unwrap_or_else(|| panic!("a status line {:?}", self.line))
    }
}

/// RFC 6455 §4.2.2 (5.4).
pub(crate) fn accept_value(key: &str) -> String {
    base64(&sha1(&[key.as_bytes(), b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat()))
}

/// RFC 4648 §4.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .enumerate()
            .fold(0u32, |word, (index, byte)| word | u32::from(*byte) << (16 - 8 * index));
        for place in 0..4 {
            let sextet = (word >> (18 - 6 * place)) & 63;
            out.push(if place <= chunk.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    out
}

/// RFC 3174.
pub(crate) fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut message = bytes.to_vec();
    message.push(0x80);
    while message.len() % 64 != 56 {
        message.push(0);
    }
    message.extend((bytes.len() as u64 * 8).to_be_bytes());
    let mut h: [u32; 5] = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476, 0xC3D2_E1F0];
    for block in message.chunks(64) {
        let mut w = [0u32; 80];
        for (word, bytes) in w.iter_mut().zip(block.chunks(4)) {
            *word = u32::from_be_bytes(bytes.try_into().expect("chunks of four"));
        }
        for t in 16..80 {
            w[t] = (w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = h;
        for (t, word) in w.iter().enumerate() {
            let (f, k) = match t {
                0..=19 => (b & c | !b & d, 0x5A82_7999),
                20..=39 => (b ^ c ^ d, 0x6ED9_EBA1),
                40..=59 => (b & c | b & d | c & d, 0x8F1B_BCDC),
                _ => (b ^ c ^ d, 0xCA62_C1D6),
            };
            let next = a.rotate_left(5).wrapping_add(f).wrapping_add(e).wrapping_add(k).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, word) in h.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(word);
        }
    }
    let mut out = [0; 20];
    for (bytes, word) in out.chunks_mut(4).zip(h) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    out
}
