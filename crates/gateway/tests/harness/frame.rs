//! Frames as bytes, right or wrong as a test wants them. Written independently of `wire`, as its oracle.

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

pub(crate) const FIN: u8 = 0x80;
pub(crate) const RSV1: u8 = 0x40;

/// A frame as received, its payload unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    pub(crate) rsv: u8,
    pub(crate) opcode: u8,
    pub(crate) masked: bool,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The code of a Close frame; 1005 where it has none.
    pub(crate) fn close_code(&self) -> u16 {
        assert_eq!(self.opcode, CLOSE);
        self.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))
    }

    /// The reason of a Close frame.
    pub(crate) fn close_reason(&self) -> &[u8] {
        assert_eq!(self.opcode, CLOSE);
        self.payload.get(2..).unwrap_or_default()
    }
}

/// A masked frame; `first` is its whole first byte (FIN, RSV, opcode). The key is not zero, so that unmasking counts.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    masked_with(first, payload, [0x37, 0xfa, 0x21, 0x3d])
}

/// A masked frame with a given key.
pub(crate) fn masked_with(first: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut bytes = header(first, payload.len(), Some(key));
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// An unmasked frame.
pub(crate) fn plain(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len(), None);
    bytes.extend_from_slice(payload);
    bytes
}

/// The header with the shortest length.
pub(crate) fn header(first: u8, len: usize, key: Option<[u8; 4]>) -> Vec<u8> {
    let mask = if key.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match len {
        0..=125 => bytes.push(mask | len as u8),
        126..=0xffff => {
            bytes.push(mask | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(key.into_iter().flatten());
    bytes
}

/// A masked Close with a code and a reason.
pub(crate) fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    masked(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// Takes one frame off the front of `bytes`; `None` where it is not complete.
pub(crate) fn take(bytes: &mut Vec<u8>) -> Option<Frame> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (mut at, len) = match second & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        len => (2, usize::from(len)),
    };
    let masked = second & 0x80 != 0;
    let mut key = [0; 4];
    if masked {
        key.copy_from_slice(bytes.get(at..at + 4)?);
        at += 4;
    }
    let mut payload = bytes.get(at..at.checked_add(len)?)?.to_vec();
    if masked {
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    }
    bytes.drain(..at + len);
    Some(Frame { fin: first & FIN != 0, rsv: (first >> 4) & 7, opcode: first & 15, masked, payload })
}

/// Bytes from hexadecimal digits; spaces do not count.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).expect("a digit") as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
