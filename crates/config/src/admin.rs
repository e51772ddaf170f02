//! The admin listener: who may ask what the gateway does, and tell it what to do.

use std::path::PathBuf;

use crate::{Bind, NamedPath, Secret};

/// `[admin]`: a listener of its own, which no route reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where. Beyond loopback only with a token.
    pub bind: Bind,
    /// What each request has to present; the system's own check of a unix socket's peer does without.
    pub token: Option<Secret>,
    /// The path of a unix socket, as the configuration names it.
    pub socket: Option<NamedPath>,
    /// Users, besides root and the gateway's own, whose processes may use a unix socket.
    pub allow_uids: Vec<u32>,
}

/// Where the admin listener is unless the configuration says otherwise.
pub const DEFAULT_ADMIN_PATH: &str = "/run/tidegate/admin.sock";

impl Admin {
    /// Where it is unless the configuration says otherwise.
    #[must_use]
    pub fn default_bind() -> Bind {
        Bind::Unix(PathBuf::from(DEFAULT_ADMIN_PATH))
    }
}
