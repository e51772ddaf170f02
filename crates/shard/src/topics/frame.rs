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
    /// Appends what subscribers of a class get of a publication: nothing where they get nothing.
    pub(crate) fn write(
        &mut self,
        publication: &Publication,
        class: Class,
        tools: &mut Tools<'_>,
        out: &mut Vec<u8>,
    ) {
        let Self { scratch, deflaters } = self;
        let Some((opcode, payload)) = payload(publication, class, scratch) else { return };
        match deflates(class, payload) {
            Some(bits) => {
                // Deflated once, wherever it goes.
                let frame =
                    publication.frame(class, |_| Some(deflate(deflaters, bits, tools, opcode, payload)));
                out.extend_from_slice(frame.map_or(&[][..], |frame| frame));
            }
            None => put_frame(out, opcode, payload),
        }
    }

    /// The publication's own frame for a class, which all share for whom it waits; nothing where they get nothing.
    pub(crate) fn shared<'p>(
        &mut self,
        publication: &'p Publication,
        class: Class,
        tools: &mut Tools<'_>,
    ) -> Option<&'p Frame> {
        let Self { scratch, deflaters } = self;
        // Nothing in here may ask for this frame again: it would wait for itself.
        publication.frame(class, |publication| {
            let (opcode, payload) = payload(publication, class, scratch)?;
            Some(match deflates(class, payload) {
                Some(bits) => deflate(deflaters, bits, tools, opcode, payload),
                None => {
                    let mut out = Vec::new();
                    put_frame(&mut out, opcode, payload);
                    out
                }
            })
        })
    }
}

/// What goes into a frame for a class; nothing where it gets nothing.
fn payload<'p>(
    publication: &'p Publication,
    class: Class,
    scratch: &'p mut Vec<u8>,
) -> Option<(Opcode, &'p [u8])> {
    match class.envelope() {
        Envelope::Protocol => {
            scratch.clear();
            write_json(publication, scratch);
            Some((Opcode::Text, scratch))
        }
        Envelope::Raw => match publication.kind() {
            Kind::Message { format: Format::Binary, payload, .. } => Some((Opcode::Binary, payload)),
            Kind::Message { payload, .. } => Some((Opcode::Text, payload)),
            Kind::Join { .. } | Kind::Leave { .. } | Kind::Gap { .. } => None,
        },
        Envelope::Events | Envelope::Poll => None,
    }
}

/// With which window a class gets a payload deflated, if it does.
fn deflates(class: Class, payload: &[u8]) -> Option<u8> {
    class.window_bits().filter(|_| payload.len() >= DEFLATE_FROM)
}

fn deflate(
    deflaters: &mut [Option<Compression>; 16],
    bits: u8,
    tools: &mut Tools<'_>,
    opcode: Opcode,
    payload: &[u8],
) -> Vec<u8> {
    let compression = deflaters[usize::from(bits)].get_or_insert_with(|| {
        // Without context: the same bytes are for all.
        let params = DeflateParams { server_max_window_bits: bits, ..DeflateParams::default() };
        Compression::new(params, Role::Server, tools.codecs)
    });
    let (bytes, start) = deflated_frame(compression, tools.codecs, tools.spares, opcode, payload);
    let frame = bytes[start..].to_vec();
    tools.spares.give(bytes);
    frame
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
    let kind = match format {
        Format::Json => protocol::Kind::Json,
        Format::Text => protocol::Kind::Text,
        Format::Binary => protocol::Kind::Bytes,
    };
    Some(protocol::Content { kind, bytes: payload })
}

/// A gap in the protocol's terms.
pub(super) fn gap(publication: &Publication, from: u64, reason: GapReason) -> protocol::Gap<'_> {
    let reason = match reason {
        GapReason::Slow => protocol::GapReason::Slow,
        GapReason::Busy => protocol::GapReason::Busy,
    };
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
        Kind::Gap { from, reason } => protocol::write::gap(out, &gap(publication, *from, *reason)),
    }
}
