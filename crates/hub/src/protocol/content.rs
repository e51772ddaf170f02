//! What a message carries.

use super::text::{push_base64, push_string, push_whole};
use crate::publication::Format;

/// What a publication carries. It was checked when it came in, so it is encoded without another look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content<'p> {
    /// What the bytes are.
    pub format: Format,
    /// The JSON value as it was sent; the text; the bytes.
    pub bytes: &'p [u8],
}

/// Room for names and digits around a topic and a content.
const AROUND: usize = 80;

/// Appends `"topic":…,"offset":…,"data":…}`: how a message ends, whatever it comes over.
#[inline]
pub(super) fn push_message(out: &mut Vec<u8>, topic: &str, offset: u64, content: Content<'_>) {
    out.reserve(content.bytes.len() + topic.len() + AROUND);
    out.extend_from_slice(b"\"topic\":");
    push_string(out, topic.as_bytes());
    out.push(b',');
    push_offset(out, offset, content);
}

/// Appends `"offset":…,"data":…}`.
#[inline]
pub(super) fn push_offset(out: &mut Vec<u8>, offset: u64, content: Content<'_>) {
    out.extend_from_slice(b"\"offset\":");
    push_whole(out, offset);
    match content.format {
        Format::Json => {
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(content.bytes);
        }
        Format::Text => {
            out.extend_from_slice(b",\"text\":");
            push_string(out, content.bytes);
        }
        Format::Binary => {
            out.extend_from_slice(b",\"base64\":");
            push_base64(out, content.bytes);
        }
    }
    out.push(b'}');
}
