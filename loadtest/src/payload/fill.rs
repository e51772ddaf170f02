//! What messages hold behind their fields: pieces of one table.

use tidegate_wire::message::Kind;

use super::text::character;
use crate::random::Random;

/// The table of fills repeats after this; a power of two.
pub(super) const PERIOD: usize = 64 * 1024;
/// Fills start at one of so many places.
pub(super) const STARTS: u64 = 4096;
/// Both, where messages are deflated: far more than the 32 KiB that deflate looks back, so that it finds no earlier message
/// in a later one but for what is alike in all.
pub(super) const WIDE: usize = 1 << 20;

/// What messages hold beside their fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fill {
    /// Random bytes, in text random characters: nothing to deflate, in text a quarter
    Random,
    /// Records of JSON with random values
    Json,
}

/// Two periods and the starts.
pub(super) fn table(random: &mut Random, fill: Fill, kind: Kind, period: usize, starts: u64) -> Box<[u8]> {
    let mut bytes: Vec<u8> = Vec::with_capacity(2 * period + starts as usize + 256);
    while bytes.len() < period {
        let bits = random.next();
        match (fill, kind) {
            (Fill::Random, Kind::Binary) => bytes.push(bits as u8),
            (Fill::Random, Kind::Text) => bytes.push(character(bits as u8)),
            (Fill::Json, _) => put_record(&mut bytes, random),
        }
    }
    bytes.truncate(period);
    bytes.extend_from_within(..);
    bytes.extend_from_within(..starts as usize);
    bytes.into()
}

/// A record as a feed of trades has it: half of it names, half of it values.
fn put_record(out: &mut Vec<u8>, random: &mut Random) {
    const SYMBOLS: [&str; 8] =
        ["BTC-EUR", "ETH-EUR", "SOL-USD", "XRP-USD", "ADA-EUR", "DOT-USD", "LTC-EUR", "BCH-USD"];
    let bits = random.next();
    let symbol = SYMBOLS[(bits & 7) as usize];
    let side = if bits & 8 == 0 { "buy" } else { "sell" };
    let (price, cents) = (bits >> 8 & 0xffff, (bits >> 24 & 0xff) % 100);
    let (id, quantity) = (bits >> 32, random.next() % 100_000);
    let record = format!(
        "{{\"type\":\"trade\",\"id\":{id},\"symbol\":\"{symbol}\",\"side\":\"{side}\",\
         \"price\":{price}.{cents:02},\"quantity\":{quantity}}},"
    );
    out.extend_from_slice(record.as_bytes());
}
