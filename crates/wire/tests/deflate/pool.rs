//! Inflaters and deflaters on loan; work and memory by the limit.

use tidegate_wire::Role;
use tidegate_wire::deflate::{CodecLimits, Codecs, Compression, InflateError, Inflation};
use tidegate_wire::extension::DeflateParams;

use crate::{LARGE, Receiver, hex, noise};

const MIB: usize = 1 << 20;

/// 10 MiB of zeros in some 10 KiB.
fn bomb() -> Vec<u8> {
    let mut codecs = Codecs::new(CodecLimits { level: 9, ..CodecLimits::default() });
    let mut bomb = Vec::new();
    codecs.deflate(15, &vec![0; 10 * MIB], &mut bomb);
    assert!(bomb.len() < 11_000, "{}", bomb.len());
    bomb
}

/// Row D06.
#[test]
fn a_bomb_is_inflated_to_the_limit_and_one_byte() {
    let bomb = bomb();
    let mut receiver = Receiver::new(false);
    assert_eq!(receiver.pieces(&bomb, bomb.len(), MIB), Err(InflateError::TooBig));
    let stats = receiver.codecs.stats();
    assert_eq!(stats.inflated_bytes, MIB as u64 + 1);
    assert!(stats.inflate_calls <= (MIB / (16 * 1024)) as u64 + 8, "{stats:?}");
    assert_eq!((stats.inflaters_lent, stats.bytes), (0, 0), "the inflater is destroyed");
}

/// Row D07: the limit is the message's, not a piece's.
#[test]
fn a_bomb_in_single_bytes_is_no_dearer() {
    let bomb = bomb();
    let mut receiver = Receiver::new(false);
    assert_eq!(receiver.pieces(&bomb, 1, MIB), Err(InflateError::TooBig));
    let stats = receiver.codecs.stats();
    assert_eq!(stats.inflated_bytes, MIB as u64 + 1);
    assert!(stats.inflate_calls <= 6 * bomb.len() as u64, "{stats:?} for {} bytes", bomb.len());
}

/// Row D07: many at once share the pool; who gets no inflater waits with its compressed bytes.
#[test]
fn bombs_on_a_thousand_sessions_share_the_pool() {
    let bomb = bomb();
    let mut codecs = Codecs::new(CodecLimits { inflaters: 8, ..CodecLimits::default() });
    let mut sessions: Vec<_> =
        (0..1000).map(|_| Compression::new(DeflateParams::default(), Role::Server, &mut codecs)).collect();
    let mut lent = Vec::new();
    let mut waiting = Vec::new();
    for session in &mut sessions {
        match session.begin(&mut codecs) {
            Some(inflation) => lent.push((inflation, Vec::new())),
            None => waiting.push(session),
        }
    }
    assert_eq!((lent.len(), waiting.len()), (8, 992));
    assert_eq!(codecs.stats().inflaters_refused, 992);
    for session in waiting {
        let mut out = Vec::new();
        assert_eq!(codecs.inflate_whole(session, &bomb, &mut out, 4096), Err(InflateError::TooBig));
    }
    for (inflation, out) in &mut lent {
        assert_eq!(inflation.feed(&bomb, out, 4096), Err(InflateError::TooBig));
    }
    lent.into_iter().for_each(|(inflation, _)| inflation.abandon(&mut codecs));
    let stats = codecs.stats();
    assert_eq!(stats.inflated_bytes, 1000 * 4097);
    assert_eq!((stats.inflaters_lent, stats.bytes), (0, 0));
}

/// A final block takes two bytes: they must not cost more than that.
#[test]
fn work_is_linear_in_final_blocks() {
    let payload = [0x03, 0x00].repeat(50_000);
    let mut receiver = Receiver::new(true);
    assert_eq!(receiver.message(&payload).expect("empty blocks"), b"");
    assert!(receiver.codecs.stats().inflate_calls <= 50_000 + 8);
}

#[test]
fn a_message_that_just_fits_is_whole() {
    let mut codecs = Codecs::new(CodecLimits::default());
    for len in [1, 255, 256, 257, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 100_000] {
        let message = vec![7; len];
        let mut payload = Vec::new();
        codecs.deflate(15, &message, &mut payload);
        let mut receiver = Receiver::new(false);
        for piece in [1, payload.len()] {
            assert_eq!(receiver.pieces(&payload, piece, len).expect("fits"), message);
            assert_eq!(receiver.pieces(&payload, piece, len - 1), Err(InflateError::TooBig));
        }
    }
    // What stands in the buffer already counts: `max_len` is its length.
    let mut receiver = Receiver::new(false);
    let mut out = vec![0; 14];
    let hello = hex("f248cdc9c90700");
    receiver.codecs.inflate_whole(&mut receiver.compression, &hello, &mut out, 19).expect("fits");
    assert_eq!(&out[14..], b"Hello");
    let mut out = vec![0; 14];
    let result = receiver.codecs.inflate_whole(&mut receiver.compression, &hello, &mut out, 18);
    assert_eq!(result, Err(InflateError::TooBig));
    // A limit that is passed already lets nothing through, not even without a byte of room.
    let result = receiver.codecs.inflate_whole(&mut receiver.compression, &hello, &mut vec![0; 14], 3);
    assert_eq!(result, Err(InflateError::TooBig));
}

#[test]
fn an_inflater_is_lent_back_and_forth() {
    let mut codecs = Codecs::new(CodecLimits { inflaters: 1, ..CodecLimits::default() });
    let mut sessions = [0; 2].map(|_| Compression::new(DeflateParams::default(), Role::Server, &mut codecs));
    let hello = hex("f248cdc9c90700");
    for turn in 0..10 {
        let [one, other] = &mut sessions;
        let (one, other) = if turn % 2 == 0 { (one, other) } else { (other, one) };
        let mut out = Vec::new();
        let mut inflation = one.begin(&mut codecs).expect("free");
        inflation.feed(&hello[..3], &mut out, LARGE).expect("a piece");
        assert!(other.begin(&mut codecs).is_none(), "lent");
        let mut whole = Vec::new();
        codecs.inflate_whole(other, &hello, &mut whole, LARGE).expect("the one kept back");
        inflation.feed(&hello[3..], &mut out, LARGE).expect("a piece");
        inflation.finish(one, &mut codecs, &out, LARGE).expect("the end");
        assert_eq!((&out[..], &whole[..]), (&b"Hello"[..], &b"Hello"[..]));
    }
    let stats = codecs.stats();
    assert_eq!((stats.inflaters_lent, stats.inflaters_idle), (0, 2));
}

/// How a message of the victim ends.
type Ending<'e> = &'e dyn Fn(&mut Codecs, &mut Compression);

/// Row D20: what one session has sent cannot be looked back at by another, however its message ended.
#[test]
fn nothing_of_another_session_can_be_seen() {
    // A match of 258 bytes at each distance that deflate can name, as the first thing in a message, and a stored
    // block before it whose own bytes do not reach as far.
    let secret = noise(40_000, 0x5ec2e7);
    let mut codecs = Codecs::new(CodecLimits { inflaters: 1, ..CodecLimits::default() });
    let mut deflated = Vec::new();
    codecs.deflate(15, &secret, &mut deflated);
    let mut victim = Compression::new(DeflateParams::default(), Role::Server, &mut codecs);
    let mut spy = Compression::new(DeflateParams::default(), Role::Server, &mut codecs);

    let whole = |codecs: &mut Codecs, victim: &mut Compression| {
        let mut inflation = victim.begin(codecs).expect("the inflater");
        let mut out = Vec::new();
        inflation.feed(&deflated, &mut out, LARGE).expect("the secret");
        inflation.finish(victim, codecs, &out, LARGE).expect("the secret");
    };
    let abandoned = |codecs: &mut Codecs, victim: &mut Compression| {
        let mut inflation = victim.begin(codecs).expect("the inflater");
        inflation.feed(&deflated[..20_000], &mut Vec::new(), LARGE).expect("half the secret");
        inflation.abandon(codecs);
    };
    let too_big = |codecs: &mut Codecs, victim: &mut Compression| {
        let mut inflation: Inflation = victim.begin(codecs).expect("the inflater");
        assert_eq!(inflation.feed(&deflated, &mut Vec::new(), 33_000), Err(InflateError::TooBig));
        inflation.abandon(codecs);
    };
    let corrupt = |codecs: &mut Codecs, victim: &mut Compression| {
        let mut inflation = victim.begin(codecs).expect("the inflater");
        let mut out = Vec::new();
        inflation.feed(&deflated, &mut out, LARGE).expect("the secret");
        assert_eq!(
            inflation.feed(&[0x00, 0x00, 0xff, 0xff, 0x07], &mut out, LARGE),
            Err(InflateError::Corrupt)
        );
        assert_eq!(inflation.finish(victim, codecs, &out, LARGE), Err(InflateError::Corrupt));
    };
    let endings: [Ending<'_>; 4] = [&whole, &abandoned, &too_big, &corrupt];
    for ending in endings {
        for symbol in 0..30_u32 {
            ending(&mut codecs, &mut victim);
            // Fixed codes: the literals "A" and "B", then length code 285 (258) at this distance code, extra bits zero.
            let mut bits = Bits::default();
            bits.put(0b010, 3);
            bits.code(0x30 + u32::from(b'A'), 8);
            bits.code(0x30 + u32::from(b'B'), 8);
            bits.code(0b1100_0101, 8);
            bits.code(symbol, 5);
            bits.put(0, (symbol / 2).saturating_sub(1));
            bits.code(0, 7);
            bits.put(0, 3);
            let mut out = Vec::new();
            let result = codecs.inflate_whole(&mut spy, &bits.bytes, &mut out, LARGE);
            match symbol {
                0 => assert_eq!(out, [&b"A"[..], &b"B".repeat(259)].concat()),
                1 => assert_eq!(out, b"AB".repeat(130)),
                _ => {
                    assert_eq!(
                        (result, &out[..]),
                        (Err(InflateError::Corrupt), &b"AB"[..]),
                        "symbol {symbol}"
                    );
                }
            }
        }
    }
}

/// The same for what is sent.
#[test]
fn a_lent_deflater_has_seen_nothing() {
    for level in 1..=9 {
        let mut codecs = Codecs::new(CodecLimits { level, ..CodecLimits::default() });
        let mut deflate = |payload: &[u8]| {
            let mut out = Vec::new();
            codecs.deflate(15, payload, &mut out);
            out
        };
        let (secret, message) = (noise(2000, 1), noise(500, 1));
        assert_eq!(secret[..500], message);
        let fresh = deflate(&message);
        deflate(&secret);
        assert_eq!(deflate(&message), fresh, "level {level}");
    }
}

#[test]
fn deflaters_are_kept_by_window_and_capped() {
    let mut codecs = Codecs::new(CodecLimits { deflaters: 2, ..CodecLimits::default() });
    let mut bytes = Vec::new();
    for window_bits in [15, 9, 15, 12, 15, 9, 10, 11, 12, 13, 14, 15] {
        let mut out = Vec::new();
        codecs.deflate(window_bits, b"Hello", &mut out);
        assert_eq!(Receiver::new(false).message(&out).expect("a message"), b"Hello");
        assert!(codecs.stats().deflaters <= 2);
        bytes.push(codecs.stats().bytes);
    }
    assert!(bytes.iter().all(|bytes| *bytes < 600 * 1024), "{bytes:?}");
    assert_eq!(codecs.stats().deflated_messages, 12);
}

/// Writes deflate's bits.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn put(&mut self, value: u32, count: u32) {
        for at in 0..count {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().expect("just pushed") |= ((value >> at & 1) as u8) << (self.used % 8);
            self.used += 1;
        }
    }

    /// Huffman codes stand with their first bit first.
    fn code(&mut self, value: u32, count: u32) {
        self.put(value.reverse_bits() >> (32 - count), count);
    }
}
