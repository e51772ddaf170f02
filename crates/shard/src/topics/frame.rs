//! From a publication to the bytes on the wire, for each class of subscribers.

use tidegate_hub::{Class, Envelope, Format, GapReason, Kind, Publication, protocol};
use tidegate_registry::Frame;
use tidegate_wire::{
    Role,
    deflate::{Codecs, Compression},
    extension::DeflateParams,
    frame::{Head, MAX_HEADER, Opcode, encode_header},
    message::Spares,
};

use crate::echo::{DEFLATE_FROM, deflated_frame};

/// What makes frames.
#[derive(Default)]
pub(crate) struct Frames {
    /// The message before it is framed.
    scratch: Vec<u8>,
    /// By window: deflates without context, for all sessions that agreed to this window.
    deflaters: [Option<Compression>; 16],
}

/// What they are made with.
pub(crate) struct Tools<'a> {
    pub(crate) codecs: &'a mut Codecs,
    pub(crate) spares: &'a mut Spares,
}

impl Frames {
    /// Appends what subscribers of a class get of a publication: nothing where they get nothing. What is deflated is deflated
    /// once, whoever asks.
    pub(crate) fn write(
        &mut self,
        publication: &Publication,
        class: Class,
        tools: &mut Tools<'_>,
        out: &mut Vec<u8>,
    ) {
        if class.window_bits().is_none() {
            self.encode(publication, class, tools, out);
        } else if let Some(frame) = self.frame(publication, class, tools) {
            out.extend_from_slice(frame);
        }
    }

    /// The publication's own frame of a class, which whoever is slow refers to.
    pub(crate) fn frame<'p>(
        &mut self,
        publication: &'p Publication,
        class: Class,
        tools: &mut Tools<'_>,
    ) -> Option<&'p Frame> {
        publication.frame(class, |publication| {
            let mut out = Vec::new();
            self.encode(publication, class, tools, &mut out);
            (!out.is_empty()).then_some(out)
        })
    }

    /// Makes the frame. Asks for none of the publication's: it may be making that.
    fn encode(&mut self, publication: &Publication, class: Class, tools: &mut Tools<'_>, out: &mut Vec<u8>) {
        let (opcode, payload): (Opcode, &[u8]) = match class.envelope() {
            Envelope::Protocol => {
                self.scratch.clear();
                write_json(publication, &mut self.scratch);
                (Opcode::Text, &self.scratch)
            }
            Envelope::Raw => match publication.kind() {
                Kind::Message { format: Format::Binary, payload, .. } => (Opcode::Binary, payload),
                Kind::Message { payload, .. } => (Opcode::Text, payload),
                Kind::Join { .. } | Kind::Leave { .. } | Kind::PresenceGap | Kind::Gap { .. } => return,
            },
            Envelope::Events | Envelope::Poll => return,
        };
        if let Some(bits) = class.window_bits().filter(|_| payload.len() >= DEFLATE_FROM) {
            let compression = self.deflaters[usize::from(bits)].get_or_insert_with(|| {
                // Without context: the same bytes are for all.
                let params = DeflateParams { server_max_window_bits: bits, ..DeflateParams::default() };
                Compression::new(params, Role::Server, tools.codecs)
            });
            let (bytes, start) = deflated_frame(compression, tools.codecs, tools.spares, opcode, payload);
            out.extend_from_slice(&bytes[start..]);
            tools.spares.give(bytes);
            return;
        }
        put_frame(out, opcode, payload);
    }
}

/// Appends an unmasked frame.
pub(crate) fn put_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let head = Head { fin: true, rsv1: false, opcode, len: payload.len() as u64, mask: None };
    let mut header = [0; MAX_HEADER];
    let len = encode_header(&mut header, &head);
    out.extend_from_slice(&header[..len]);
    out.extend_from_slice(payload);
}

/// What a message holds, as the protocol wraps it; nothing for other publications.
pub(super) fn content(publication: &Publication) -> Option<protocol::Content<'_>> {
    let Kind::Message { format, payload, .. } = publication.kind() else { return None };
    Some(protocol::Content { format: *format, bytes: payload })
}

/// A gap in the protocol's terms.
pub(super) fn gap(publication: &Publication, from: u64, reason: GapReason) -> protocol::Gap<'_> {
    protocol::Gap { topic: publication.topic().as_str(), from, to: publication.offset(), reason }
}

/// Appends what the protocol says of a publication.
fn write_json(publication: &Publication, out: &mut Vec<u8>) {
    let topic = publication.topic().as_str();
    match publication.kind() {
        Kind::Message { .. } => {
            if let Some(content) = content(publication) {
                protocol::write::message(out, topic, publication.offset(), content);
            }
        }
        Kind::Join { client, info } => {
            let info = info.as_deref().map(str::as_bytes);
            protocol::write::join(out, topic, &protocol::Present { client, info });
        }
        Kind::Leave { client } => protocol::write::leave(out, topic, client),
        Kind::PresenceGap => protocol::write::presence_gap(out, topic),
        Kind::Gap { from, reason } => protocol::write::gap(out, &gap(publication, *from, *reason)),
    }
}
