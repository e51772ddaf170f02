//! The hot paths as a shard runs them, but for the system calls: what is measured by the clock and in instructions.

use tidegate_wire::{
    HeadLimits, Limits, Role,
    deflate::{CodecLimits, Codecs, Compression},
    extension::{DeflatePolicy, negotiate},
    frame::{Head, MAX_HEADER, Opcode, encode_header, encode_header_before},
    handshake::{Accepted, origin_allowed, switching_protocols, upgrade},
    http::{HeadScanner, Request, Scan},
    message::{Cursor, DecodeContext, Decoder, Event, Payload, Spares},
};

/// The longest message.
pub const MESSAGE_BYTES: usize = 1 << 20;
const LIMITS: Limits = Limits { message_bytes: MESSAGE_BYTES, message_fragments: 64 };

/// An upgrade request as Chrome 140 sends it.
pub const HEAD: &[u8] = b"GET /ws?room=1 HTTP/1.1\r\n\
    Host: gw.test:9001\r\n\
    Connection: Upgrade\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
    Upgrade: websocket\r\n\
    Origin: http://gw.test:9001\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    Accept-Language: en-US,en;q=0.9\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

/// What tidegate's shard does with a receive buffer, but for the system calls.
pub struct Echo {
    decoder: Decoder,
    codecs: Codecs,
    spares: Spares,
    buffer: Vec<u8>,
}

impl Echo {
    /// With a receive buffer of so many bytes.
    #[must_use]
    pub fn new(buffer_bytes: usize) -> Self {
        Self {
            decoder: Decoder::new(Role::Server),
            codecs: Codecs::new(CodecLimits::default()),
            spares: Spares::new(1 << 20),
            buffer: vec![0; buffer_bytes],
        }
    }

    /// What lies in a receive buffer is parsed, unmasked and checked, and nothing is answered. Gives the bytes of payload.
    ///
    /// # Panics
    /// If it is not a good stream of whole messages.
    pub fn parse(&mut self, input: &mut [u8]) -> usize {
        let Self { decoder, codecs, spares, .. } = self;
        let mut cursor = Cursor { read: 0, write: 0, compact: false };
        let mut cx = DecodeContext { limits: &LIMITS, compression: None, codecs, spares };
        let mut payload_bytes = 0;
        while let Some(event) = decoder.next(input, &mut cursor, &mut cx).expect("a good stream") {
            let Event::Message { payload, .. } = event else { panic!("only messages were sent") };
            payload_bytes += payload.len();
        }
        payload_bytes
    }

    /// A stream comes, so many bytes at each read, and what is answered to it is sent.
    ///
    /// # Panics
    /// If it is not a good stream of whole messages, or a piece is larger than the buffer.
    pub fn echo(&mut self, stream: &[u8], piece: usize, mut send: impl FnMut(&[u8])) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for piece in stream.chunks(piece) {
            let input = &mut buffer[..piece.len()];
            input.copy_from_slice(piece);
            self.answer(input, &mut send);
        }
        self.buffer = buffer;
    }

    /// What lies in a receive buffer is answered, in place where it can be.
    ///
    /// # Panics
    /// If it is not a good stream of messages.
    pub fn answer(&mut self, input: &mut [u8], mut send: impl FnMut(&[u8])) {
        let Self { decoder, codecs, spares, .. } = self;
        let mut cursor = Cursor { read: 0, write: 0, compact: true };
        // The answers since the last one sent.
        let mut start = 0;
        let mut cx = DecodeContext { limits: &LIMITS, compression: None, codecs, spares };
        loop {
            decoder.answer_short(input, &mut cursor, &LIMITS, usize::MAX);
            let Some(event) = decoder.next(input, &mut cursor, &mut cx).expect("a good stream") else {
                break;
            };
            let Event::Message { kind, payload, .. } = event else { panic!("only messages were sent") };
            let opcode = Opcode::from(kind);
            let head = Head { fin: true, rsv1: false, opcode, len: payload.len() as u64, mask: None };
            match payload {
                Payload::InPlace(range) => {
                    let begin = encode_header_before(input, range.start, &head);
                    if begin != cursor.write {
                        if start < cursor.write {
                            send(&input[start..cursor.write]);
                        }
                        start = begin;
                    }
                    cursor.write = range.end;
                }
                Payload::Owned(mut owned) => {
                    if start < cursor.write {
                        send(&input[start..cursor.write]);
                    }
                    let begin = encode_header_before(&mut owned.buffer, owned.start, &head);
                    send(&owned.buffer[begin..]);
                    cx.spares.give(owned.buffer);
                    (start, cursor.write) = (cursor.read, cursor.read);
                }
            }
        }
        if start < cursor.write {
            send(&input[start..cursor.write]);
        }
    }
}

/// Appends a whole frame, masked with the key if there is one.
pub fn push(out: &mut Vec<u8>, opcode: Opcode, mask: Option<[u8; 4]>, payload: &[u8]) {
    let mut header = [0; MAX_HEADER];
    let head = Head { fin: true, rsv1: false, opcode, len: payload.len() as u64, mask };
    let len = encode_header(&mut header, &head);
    out.extend_from_slice(&header[..len]);
    let key = mask.unwrap_or_default();
    out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ key[i & 3]));
}

/// The answer to an upgrade, as the shard makes it: the scan, the parse, every rule of RFC 6455 §4.2.1, the origin, the
/// extension.
///
/// # Panics
/// If the upgrade is not a good one.
pub fn switch(head: &[u8], out: &mut Vec<u8>) {
    let limits = HeadLimits::default();
    let scan = HeadScanner::new().scan(head, &limits);
    assert_eq!(scan, Ok(Scan::Complete(head.len())));
    let request = Request::parse(head, &limits, false).expect("a good request");
    let asked = upgrade(&request).expect("a good upgrade");
    assert!(origin_allowed(&[], asked.origin, request.host, false));
    let agreed = negotiate(&asked.offers, &DeflatePolicy::default());
    switching_protocols(out, &Accepted { key: asked.key, protocol: None, extension: agreed.as_ref() });
}

/// What a busy feed sends: the same names, other values.
#[must_use]
pub fn json(len: usize) -> Vec<u8> {
    let mut random = 0x2545_f491_u32;
    let mut text = String::from("[");
    while text.len() < len {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let (id, price) = (random % 100_000, f64::from(random >> 12) / 100.0);
        text += &format!(r#"{{"id":{id},"symbol":"TIDE","price":{price},"side":"buy","open":true}},"#);
    }
    text.truncate(len);
    text.into_bytes()
}

/// A message that was deflated, in full.
///
/// # Panics
/// If it is not a good one.
pub fn inflate(session: &mut Compression, codecs: &mut Codecs, wire: &[u8], out: &mut Vec<u8>) {
    const LIMIT: usize = 1 << 20;
    out.clear();
    let mut inflation = session.begin(codecs).expect("one is free");
    inflation.feed(wire, out, LIMIT).expect("a good message");
    inflation.finish(session, codecs, out, LIMIT).expect("a good message");
}
