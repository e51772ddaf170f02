//! Properties over messages, window sizes, contexts, roles and divisions.

use proptest::prelude::*;
use proptest::sample::Index;
use tidegate_wire::Role;
use tidegate_wire::deflate::{CodecLimits, Codecs, Compression, InflateError};
use tidegate_wire::extension::DeflateParams;

use crate::puff::Puff;
use crate::{LARGE, Receiver, noise};

/// Part of a message.
#[derive(Clone, Debug)]
enum Part {
    Noise(usize, u32),
    Run(usize, u8),
    /// Repeats `len` bytes of the session so far, from a distance.
    Back(Index, usize),
    Words(usize, u32),
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        (0..600_usize, any::<u32>()).prop_map(|(len, seed)| Part::Noise(len, seed)),
        (0..9000_usize, any::<u8>()).prop_map(|(len, byte)| Part::Run(len, byte)),
        (any::<Index>(), 1..400_usize).prop_map(|(from, len)| Part::Back(from, len)),
        (0..300_usize, any::<u32>()).prop_map(|(len, seed)| Part::Words(len, seed)),
    ]
}

fn messages() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(part(), 0..6), 1..6).prop_map(|messages| {
        let mut session = Vec::new();
        let write = |parts: Vec<Part>| {
            let start = session.len();
            for part in parts {
                match part {
                    Part::Noise(len, seed) => session.extend(noise(len, seed)),
                    Part::Run(len, byte) => session.extend(std::iter::repeat_n(byte, len)),
                    Part::Back(..) if session.is_empty() => {}
                    Part::Back(from, len) => {
                        let from = from.index(session.len());
                        let to = session.len().min(from + len);
                        session.extend_from_within(from..to);
                    }
                    Part::Words(len, seed) => {
                        for byte in noise(len, seed) {
                            session.extend(
                                ["the ", "quick ", "{\"id\":", "},", "tide"][usize::from(byte % 5)].bytes(),
                            );
                        }
                    }
                }
            }
            session[start..].to_vec()
        };
        messages.into_iter().map(write).collect()
    })
}

fn agreed() -> impl Strategy<Value = DeflateParams> {
    (any::<bool>(), any::<bool>(), 9..=15_u8, 9..=15_u8).prop_map(
        |(server, client, server_bits, client_bits)| DeflateParams {
            server_no_context_takeover: server,
            client_no_context_takeover: client,
            server_max_window_bits: server_bits,
            client_max_window_bits: client_bits,
            server_max_window_bits_named: false,
        },
    )
}

fn pieces<'p>(payload: &'p [u8], cuts: &[Index]) -> Vec<&'p [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
    at.extend([0, payload.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &payload[pair[0]..pair[1]]).collect()
}

/// The message, or what came of it before it failed.
type Verdict = Result<Vec<u8>, (InflateError, Vec<u8>)>;

fn receive(compression: &mut Compression, codecs: &mut Codecs, pieces: &[&[u8]], max_len: usize) -> Verdict {
    let mut out = Vec::new();
    let mut inflation = compression.begin(codecs).expect("an inflater");
    for piece in pieces {
        let result = inflation.feed(piece, &mut out, max_len);
        assert!(out.len() <= max_len && out.capacity() <= max_len + 64 * 1024);
        if let Err(error) = result {
            assert!(inflation.feed(piece, &mut out, max_len).is_err(), "an error stays");
            inflation.abandon(codecs);
            return Err((error, out));
        }
    }
    match inflation.finish(compression, codecs, &out, max_len) {
        Ok(()) => Ok(out),
        Err(error) => Err((error, out)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// What one end deflates the other reads, in any pieces, and so does the oracle, never looking back further than
    /// was agreed.
    #[test]
    fn what_is_deflated_is_read(
        messages in messages(),
        params in agreed(),
        level in 1..=9_u8,
        server_sends in any::<bool>(),
        shared in prop::collection::vec(any::<bool>(), 6),
        cuts in prop::collection::vec(any::<Index>(), 0..12),
    ) {
        let limits = CodecLimits { takeover_bytes: 1 << 22, level, ..CodecLimits::default() };
        let mut codecs = Codecs::new(limits);
        let (from, to) = if server_sends { (Role::Server, Role::Client) } else { (Role::Client, Role::Server) };
        let mut sender = Compression::new(params, from, &mut codecs);
        let mut receiver = Compression::new(params, to, &mut codecs);
        let (takeover, bits) = if server_sends {
            (!params.server_no_context_takeover, params.server_max_window_bits)
        } else {
            (!params.client_no_context_takeover, params.client_max_window_bits)
        };
        prop_assert_eq!(sender.window_bits(), bits);
        let mut oracle = Puff::new(takeover);
        for (message, shared) in messages.iter().zip(shared) {
            let mut payload = Vec::new();
            if shared {
                codecs.deflate(bits, message, &mut payload);
                sender.reset_deflater();
            } else {
                sender.deflate(&mut codecs, message, &mut payload);
            }
            prop_assert_eq!(&oracle.message(&payload).expect("the oracle"), message);
            let read = receive(&mut receiver, &mut codecs, &pieces(&payload, &cuts), message.len());
            prop_assert_eq!(&read.expect("a message"), message);
        }
        prop_assert!(oracle.furthest <= 1 << bits, "looked back {} of {bits} bits", oracle.furthest);
        sender.release(&mut codecs);
        receiver.release(&mut codecs);
        prop_assert_eq!(codecs.stats().takeover_bytes, 0);
        prop_assert_eq!(codecs.stats().inflaters_lent, 0);
    }

    /// A message fits if it is not longer than the limit, in any pieces, and no byte more than the limit and one is
    /// ever produced.
    #[test]
    fn the_limit_is_exact(
        messages in messages(),
        cuts in prop::collection::vec(any::<Index>(), 0..12),
        short in 1..2000_usize,
    ) {
        let mut codecs = Codecs::new(CodecLimits::default());
        let mut compression = Compression::new(DeflateParams::default(), Role::Server, &mut codecs);
        for message in messages {
            let mut payload = Vec::new();
            codecs.deflate(15, &message, &mut payload);
            let pieces = pieces(&payload, &cuts);
            let fits = receive(&mut compression, &mut codecs, &pieces, message.len());
            prop_assert_eq!(&fits.expect("fits"), &message);
            if let Some(limit) = message.len().checked_sub(short) {
                let before = codecs.stats().inflated_bytes;
                let verdict = receive(&mut compression, &mut codecs, &pieces, limit);
                prop_assert_eq!(verdict, Err((InflateError::TooBig, message[..limit].to_vec())));
                prop_assert!(codecs.stats().inflated_bytes - before <= limit as u64 + 1);
            }
        }
    }
}

/// Bytes near enough to deflate to get somewhere.
fn nearly_deflate() -> impl Strategy<Value = Vec<u8>> {
    let header =
        prop_oneof![Just(0x00), Just(0x02), Just(0x03), Just(0x04), Just(0x05), Just(0xf2), any::<u8>()];
    let random = (header, prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(header, mut bytes)| {
        bytes.insert(0, header);
        bytes
    });
    let broken =
        (messages(), 1..=9_u8, prop::collection::vec((any::<Index>(), 0..8_u8), 0..3), any::<Index>())
            .prop_map(|(messages, level, flips, end)| {
                let mut bytes = Vec::new();
                Codecs::new(CodecLimits { level, ..CodecLimits::default() }).deflate(
                    15,
                    &messages.concat(),
                    &mut bytes,
                );
                for (at, bit) in flips {
                    let at = at.index(bytes.len());
                    bytes[at] ^= 1 << bit;
                }
                if end.index(3) == 0 {
                    bytes.truncate(end.index(bytes.len() + 1));
                }
                bytes
            });
    prop_oneof![random, broken]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Any bytes: no panic, bounded output, the oracle's verdict, the same for any division; and the next message is
    /// right, whatever came before.
    #[test]
    fn any_bytes_have_the_oracles_verdict(
        first in nearly_deflate(),
        second in nearly_deflate(),
        takeover in any::<bool>(),
        cuts in prop::collection::vec(any::<Index>(), 0..12),
    ) {
        let mut whole = Receiver::new(takeover);
        let mut divided = Receiver::new(takeover);
        let mut oracle = Puff::new(takeover);
        for payload in [&first, &second] {
            let verdict = receive(&mut whole.compression, &mut whole.codecs, &[payload], LARGE);
            prop_assert_eq!(verdict.clone().ok(), oracle.message(payload).ok());
            let again = receive(&mut divided.compression, &mut divided.codecs, &pieces(payload, &cuts), LARGE);
            prop_assert_eq!(&verdict, &again);
            if verdict.is_err() {
                // The session would be closed now.
                break;
            }
        }
        let bounded = receive(&mut Receiver::new(false).compression, &mut divided.codecs, &pieces(&first, &cuts), 1000);
        prop_assert!(bounded.map_or(0, |out| out.len()) <= 1000);
        // The pool that served the broken message serves others.
        let mut other = Compression::new(DeflateParams::default(), Role::Server, &mut whole.codecs);
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        prop_assert_eq!(receive(&mut other, &mut whole.codecs, &[&hello], LARGE), Ok(b"Hello".to_vec()));
        prop_assert_eq!(whole.codecs.stats().inflaters_lent, 0);
    }
}
