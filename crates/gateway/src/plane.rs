//! The control plane of this process: what `tidegate-control` shows is put together here, and told when it changes.

use std::{
    io,
    sync::{Arc, atomic::AtomicU64},
    time::SystemTime,
};

use tidegate_control::{Control, Gateway, RouteNames, ShardWay};
use tidegate_io::Kind;
use tidegate_shard::Plan;
use tracing::info;

use crate::{
    listeners::{AdminSocket, UnixPath},
    secure,
    serve::Start,
    shards::Shards,
};

/// The admin listener at work.
pub(crate) struct Plane {
    control: Control,
    gateway: Arc<Gateway>,
    _path: Option<UnixPath>,
}

impl Plane {
    /// Begins to answer; not ready yet.
    ///
    /// # Errors
    /// Where its thread cannot be made.
    pub(crate) fn start(
        AdminSocket { listener, bound, path }: AdminSocket,
        plan: &Arc<Plan>,
        shards: &Shards,
        start: &Start<'_>,
        kind: Kind,
        names: RouteNames,
        lost: &Arc<AtomicU64>,
    ) -> io::Result<Self> {
        let ways = start.cells().iter().zip(shards.ways()).map(|(cell, sender)| {
            let (cell, sender) = (Arc::clone(cell), sender.clone());
            ShardWay { cell, send: Box::new(move |mail| sender.send(mail).is_ok()) }
        });
        let gateway = Arc::new(Gateway::new(
            env!("CARGO_PKG_VERSION"),
            kind.to_string(),
            Arc::clone(plan),
            names,
            ways.collect(),
            secure::certificates(plan.config(), SystemTime::now()),
            Arc::clone(lost),
        ));
        let control = tidegate_control::start(listener, Arc::clone(&gateway), kind == Kind::Uring)?;
        info!("admin listener at {bound}");
        Ok(Self { control, gateway, _path: path })
    }

    /// What it shows.
    pub(crate) fn gateway(&self) -> Arc<Gateway> {
        Arc::clone(&self.gateway)
    }

    pub(crate) fn stop(self) {
        self.control.stop();
    }
}
