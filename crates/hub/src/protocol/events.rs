//! Server-sent events (HTML Standard §9.2), and the chunks of HTTP/1.1 that carry them.
//!
//! A message's event is two parts, so that many streams can share the second: [`id`] says how far this stream is with
//! all of its topics, [`message`] is the same for everybody.

use memchr::memchr2;

use super::content::push_message;
use super::write::{push_gap, push_standing};
use super::{Content, Gap, Position, Standing, push_positions};

/// Nothing to say: keeps the connection, and whatever stands between, awake.
pub const HEARTBEAT: &[u8] = b":\n\n";

/// The end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends the line that says how far the stream is once what follows it has come: a position for each topic of the
/// request, in its order; none for a pattern.
pub fn id(out: &mut Vec<u8>, positions: impl IntoIterator<Item = Option<Position>>) {
    out.extend_from_slice(b"id: ");
    push_positions(out, positions);
    out.push(b'\n');
}

/// Appends the rest of a message's event, behind its [`id`].
pub fn message(out: &mut Vec<u8>, topic: &str, offset: u64, content: Content<'_>) {
    data(out, |out| {
        out.push(b'{');
        push_message(out, topic, offset, content);
    });
}

/// Appends the event with which a stream begins, behind its [`id`].
pub fn subscribed<'t>(out: &mut Vec<u8>, standings: impl IntoIterator<Item = Standing<'t>>) {
    out.extend_from_slice(b"event: subscribed\n");
    data(out, |out| {
        out.push(b'{');
        push_standings(out, standings);
        out.push(b'}');
    });
}

/// Appends the event of a gap, behind its [`id`].
pub fn gap(out: &mut Vec<u8>, gap: &Gap<'_>) {
    out.extend_from_slice(b"event: gap\n");
    data(out, |out| {
        out.push(b'{');
        push_gap(out, gap);
        out.push(b'}');
    });
}

/// Appends `"topics":[…]`.
pub(super) fn push_standings<'t>(out: &mut Vec<u8>, standings: impl IntoIterator<Item = Standing<'t>>) {
    out.extend_from_slice(br#""topics":["#);
    for (index, standing) in standings.into_iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{" } else { b",{" });
        push_standing(out, &standing);
        out.push(b'}');
    }
    out.push(b']');
}

/// Appends one line of data, or several, and the end of the event.
fn data(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    const PREFIX: &[u8] = b"data: ";
    out.extend_from_slice(PREFIX);
    let start = out.len();
    write(out);
    // Only a publisher's own JSON can have line ends, and only where they are white space. A line of data cannot, so
    // each begins another one; the receiver joins them with LF.
    if memchr2(b'\n', b'\r', &out[start..]).is_some() {
        let lines = out.split_off(start);
        let mut rest = &lines[..];
        while let Some(at) = memchr2(b'\n', b'\r', rest) {
            out.extend_from_slice(&rest[..at]);
            out.push(b'\n');
            out.extend_from_slice(PREFIX);
            rest = &rest[at + if rest[at..].starts_with(b"\r\n") { 2 } else { 1 }..];
        }
        out.extend_from_slice(rest);
    }
    out.extend_from_slice(b"\n\n");
}

/// Appends `body` as a chunk (RFC 9112 §7.1). Nothing is appended for an empty one, which would end the body.
pub fn chunk(out: &mut Vec<u8>, body: &[u8]) {
    if body.is_empty() {
        return;
    }
    out.reserve(body.len() + 20);
    chunk_head(out, body.len());
    out.extend_from_slice(body);
    out.extend_from_slice(b"\r\n");
}

/// Appends what stands before a chunk of so many bytes, which are not none; behind them stands a line end.
pub fn chunk_head(out: &mut Vec<u8>, len: usize) {
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
    out.extend((0..digits).rev().map(|digit| b"0123456789abcdef"[len >> (4 * digit) & 15]));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Format;

    fn event(json: &str) -> String {
        let mut out = Vec::new();
        message(&mut out, "a", 1, Content { format: Format::Json, bytes: json.as_bytes() });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn line_ends_in_data_begin_lines_of_data() {
        assert_eq!(event("[1]"), "data: {\"topic\":\"a\",\"offset\":1,\"data\":[1]}\n\n");
        for end in ["\n", "\r", "\r\n"] {
            assert_eq!(
                event(&format!("[{end}1]")),
                "data: {\"topic\":\"a\",\"offset\":1,\"data\":[\ndata: 1]}\n\n"
            );
        }
        assert_eq!(
            event("[\n\n\r1\r\n]"),
            "data: {\"topic\":\"a\",\"offset\":1,\"data\":[\ndata: \ndata: \ndata: 1\ndata: ]}\n\n"
        );
    }

    #[test]
    fn rfc9112_7_1_a_chunk_states_its_length() {
        for (len, head) in [(1, "1"), (15, "f"), (16, "10"), (255, "ff"), (256, "100"), (70_000, "11170")] {
            let mut out = Vec::new();
            chunk(&mut out, &vec![b'x'; len]);
            assert_eq!(out, format!("{head}\r\n{}\r\n", "x".repeat(len)).as_bytes());
        }
        let mut out = Vec::new();
        chunk(&mut out, b"");
        assert!(out.is_empty());
    }
}
