//! What a session keeps of permessage-deflate.

use super::Codecs;
use super::deflater::Deflater;
use super::inflation::{INFLATER_BYTES, Inflater, Inflation, Owner};
use crate::Role;
use crate::extension::DeflateParams;

/// permessage-deflate on one session. Sixteen bytes and no heap, unless contexts are taken over.
///
/// It must end in [`release`](Self::release): dropping it keeps its share of the takeover budget reserved.
#[must_use]
pub struct Compression {
    params: DeflateParams,
    role: Role,
    takeover: Option<Box<Takeover>>,
}

/// Contexts that outlive a message. Made when first used.
struct Takeover {
    inflater: Context<Box<Inflater>>,
    deflater: Context<Deflater>,
    /// The peer and the deflater have not seen the same messages: what it would look back at is not there.
    deflater_is_stale: bool,
    /// Of the budget.
    reserved: usize,
}

enum Context<T> {
    /// This direction borrows from the pool.
    None,
    /// Nothing was sent this way yet.
    Unused,
    Kept(T),
    /// A message holds it, or took it with it.
    Away,
}

impl Compression {
    /// `params` as agreed, `role` of this end. Reserves the memory of the contexts to be taken over.
    ///
    /// What the peer may look back at must be kept even if the budget is used up meanwhile: ask
    /// [`Codecs::takeover_available`] when negotiating. This side's own context is then given up, which needs no
    /// agreement.
    pub fn new(params: DeflateParams, role: Role, codecs: &mut Codecs) -> Self {
        let (own_forgotten, peers_forgotten) = match role {
            Role::Server => (params.server_no_context_takeover, params.client_no_context_takeover),
            Role::Client => (params.client_no_context_takeover, params.server_no_context_takeover),
        };
        let mut compression = Self { params, role, takeover: None };
        let inflater_bytes = if peers_forgotten { 0 } else { INFLATER_BYTES };
        let deflater_bytes = Deflater::bytes(compression.window_bits());
        let keep_own = !own_forgotten && codecs.takeover_left() >= inflater_bytes + deflater_bytes;
        if keep_own || !peers_forgotten {
            let reserved = inflater_bytes + if keep_own { deflater_bytes } else { 0 };
            codecs.reserve_takeover(reserved);
            compression.takeover = Some(Box::new(Takeover {
                inflater: if peers_forgotten { Context::None } else { Context::Unused },
                deflater: if keep_own { Context::Unused } else { Context::None },
                deflater_is_stale: false,
                reserved,
            }));
        }
        compression
    }

    /// What was agreed.
    #[must_use]
    pub fn params(&self) -> &DeflateParams {
        &self.params
    }

    /// log2 of the window that this side may look back: what shared messages must keep to
    /// ([`Codecs::deflate`]).
    #[must_use]
    pub fn window_bits(&self) -> u8 {
        match self.role {
            Role::Server => self.params.server_max_window_bits,
            Role::Client => self.params.client_max_window_bits,
        }
    }

    /// Heap bytes reserved for this session's contexts.
    #[must_use]
    pub fn retained_bytes(&self) -> usize {
        self.takeover.as_ref().map_or(0, |takeover| takeover.reserved)
    }

    /// Appends `payload` to `out` as the payload of one compressed message, without the `00 00 ff ff` at the end. It
    /// has to be sent then, in this order: with context takeover the next message may look back at it. An empty message
    /// gives one 0x00 byte (RFC 7692 §7.2.3.6).
    pub fn deflate(&mut self, codecs: &mut Codecs, payload: &[u8], out: &mut Vec<u8>) {
        let window_bits = self.window_bits();
        let Some(takeover) = &mut self.takeover else { return codecs.deflate(window_bits, payload, out) };
        let stale = std::mem::take(&mut takeover.deflater_is_stale);
        match &mut takeover.deflater {
            Context::None | Context::Away => codecs.deflate(window_bits, payload, out),
            Context::Kept(deflater) => {
                if stale {
                    deflater.clear();
                }
                codecs.count_deflated(payload.len());
                deflater.message(payload, out);
            }
            unused @ Context::Unused => {
                let mut deflater = Deflater::new(window_bits, codecs.level());
                codecs.count_deflated(payload.len());
                deflater.message(payload, out);
                *unused = Context::Kept(deflater);
            }
        }
    }

    /// Whether a message that [`deflate`](Self::deflate) has made may look back at earlier ones: then none of them can be
    /// left out without spoiling those behind it.
    #[must_use]
    pub fn looks_back(&self) -> bool {
        self.takeover.as_ref().is_some_and(|takeover| !matches!(takeover.deflater, Context::None))
    }

    /// To be called after the session was sent a compressed message that [`deflate`](Self::deflate) has not made, such
    /// as a shared broadcast, or was not sent one that it has: the next one looks back at nothing. Costs nothing until
    /// then.
    pub fn reset_deflater(&mut self) {
        if let Some(takeover) = &mut self.takeover {
            takeover.deflater_is_stale = true;
        }
    }

    /// An inflater for a message whose first compressed frame has arrived. `None`: all that may be lent are; keep the
    /// compressed bytes and call [`Codecs::inflate_whole`] when the message is complete.
    pub fn begin(&mut self, codecs: &mut Codecs) -> Option<Inflation> {
        self.begin_own().or_else(|| codecs.lend())
    }

    /// The session's own inflater, where it has one.
    pub(super) fn begin_own(&mut self) -> Option<Inflation> {
        let context = &mut self.takeover.as_mut()?.inflater;
        match std::mem::replace(context, Context::Away) {
            Context::None => {
                *context = Context::None;
                None
            }
            Context::Kept(inflater) => Some(Inflation(inflater)),
            // After an abandoned message the context is gone: what looks back at it will be found corrupt.
            Context::Unused | Context::Away => Some(Inflation(Inflater::new(Owner::Session))),
        }
    }

    pub(super) fn keep(&mut self, inflater: Box<Inflater>) {
        if let Some(takeover) = &mut self.takeover {
            takeover.inflater = Context::Kept(inflater);
        }
    }

    /// Gives everything back. An [`Inflation`] still held must be abandoned as well.
    pub fn release(self, codecs: &mut Codecs) {
        codecs.return_takeover(self.retained_bytes());
    }
}
