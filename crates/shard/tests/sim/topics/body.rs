//! Answers of HTTP as a client reads them: a head, then a body by its length, in chunks, or until the end.

use super::super::codec::Head;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// So many bytes are still to come.
    Length(usize),
    Chunked,
    /// The last chunk was there.
    Over,
    Endless,
}

/// Reads one answer after the other.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    bytes: Vec<u8>,
    head: Option<(u16, Framing)>,
    body: Vec<u8>,
}

impl Answers {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.head.is_none()
            && let Some(head) = Head::read(&self.bytes)
        {
            let length = head.one("content-length").map(|length| length.parse().expect("digits"));
            let chunked = head.one("transfer-encoding") == Some("chunked");
            let framing = match (length, chunked) {
                (Some(length), false) => Framing::Length(length),
                (None, true) => Framing::Chunked,
                (None, false) => Framing::Endless,
                (Some(_), true) => panic!("a length and chunks"),
            };
            self.head = Some((head.status(), framing));
            self.bytes.drain(..head.len);
        }
        if let Some((_, framing)) = &mut self.head {
            match framing {
                Framing::Length(missing) => {
                    let count = self.bytes.len().min(*missing);
                    *missing -= count;
                    self.body.extend(self.bytes.drain(..count));
                }
                Framing::Chunked => {
                    while let Some(end) = self.bytes.windows(2).position(|window| window == b"\r\n") {
                        let text = std::str::from_utf8(&self.bytes[..end]).expect("a chunk's length");
                        let len = usize::from_str_radix(text, 16).expect("a chunk's length");
                        if self.bytes.len() < end + 2 + len + 2 {
                            break;
                        }
                        assert_eq!(&self.bytes[end + 2 + len..end + 4 + len], b"\r\n", "the end of a chunk");
                        self.body.extend_from_slice(&self.bytes[end + 2..end + 2 + len]);
                        self.bytes.drain(..end + 4 + len);
                        if len == 0 {
                            *framing = Framing::Over;
                            break;
                        }
                    }
                }
                Framing::Over => {}
                Framing::Endless => self.body.append(&mut self.bytes),
            }
        }
    }

    /// The status of the answer at hand.
    pub(crate) fn status(&self) -> Option<u16> {
        self.head.map(|(status, _)| status)
    }

    /// Whether the last chunk was there.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.head, Some((_, Framing::Over)))
    }

    /// A whole answer with a length.
    pub(crate) fn next(&mut self) -> Option<(u16, Vec<u8>)> {
        let (status, Framing::Length(0)) = self.head? else { return None };
        self.head = None;
        Some((status, std::mem::take(&mut self.body)))
    }

    /// What has come of a body without a length.
    pub(crate) fn body(&mut self) -> &mut Vec<u8> {
        &mut self.body
    }
}
