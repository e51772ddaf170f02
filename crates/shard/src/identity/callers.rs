//! What is kept of callers while their sessions last.

use std::sync::Arc;

use tidegate_identity::Permissions;
use tidegate_registry::Key;

/// Those of this shard, by slot. Where no route asks who its callers are nothing is kept, and a look finds that at once.
#[derive(Default)]
pub(crate) struct Callers(Vec<Option<Box<Known>>>);

/// Who a session's caller is.
pub(crate) struct Known {
    key: Key,
    /// The name that the token has for the user.
    pub(crate) user: Option<Box<str>>,
    /// When the token is over, in the shard's time; `u64::MAX`: never.
    pub(crate) ends_ms: u64,
    /// What may be done with topics; `None`: all that the route allows.
    pub(crate) permissions: Option<Arc<Permissions>>,
    /// Fields for an upstream that has not been asked yet.
    pub(crate) fields: Vec<(String, String)>,
}

impl Known {
    pub(super) fn new(key: Key, caller: tidegate_identity::Caller, ends_ms: u64) -> Self {
        let tidegate_identity::Caller { user, permissions, fields, .. } = caller;
        Self { key, user, ends_ms, permissions, fields }
    }
}

impl Callers {
    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&Known> {
        self.0.get(key.index() as usize)?.as_deref().filter(|known| known.key == key)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Known> {
        self.0.get_mut(key.index() as usize)?.as_deref_mut().filter(|known| known.key == key)
    }

    /// What a session's caller may do with topics; `None`: all that its route allows.
    #[inline]
    pub(crate) fn permissions(&self, key: Key) -> Option<Arc<Permissions>> {
        self.get(key)?.permissions.clone()
    }

    pub(super) fn put(&mut self, known: Known) {
        let slot = known.key.index() as usize;
        if self.0.len() <= slot {
            self.0.resize_with(slot + 1, || None);
        }
        self.0[slot] = Some(Box::new(known));
    }

    /// A session is over, or another request comes over its connection.
    #[inline]
    pub(crate) fn forget(&mut self, key: Key) {
        if let Some(place) = self.0.get_mut(key.index() as usize) {
            place.take_if(|known| known.key == key);
        }
    }
}
