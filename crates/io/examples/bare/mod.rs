//! What the bare servers share.
#![allow(dead_code, reason = "each server uses a part")]
#![allow(unreachable_pub, reason = "another package has two of these files as its own")]

pub(crate) mod listener;
pub(crate) mod ring;
pub(crate) mod session;
