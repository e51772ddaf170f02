//! The simulator: whole shards on a simulated kernel and network, in virtual time, from a seed.
//!
//! ```text
//! World ── runs ──► Subject (the shard, or the toy) ──► SimBackend ──► Net: kernel │ network │ clients, upstreams
//!   └── checks after every turn: what the shard believes = what the kernel knows; bounds ┘
//! ```
//! Clients and upstreams check every byte that they get; faults are drawn by seed ([`faults::Swarm`]).

pub(crate) mod backend;
pub(crate) mod client;
pub(crate) mod codec;
pub(crate) mod deflate;
pub(crate) mod facts;
pub(crate) mod fairness;
pub(crate) mod faults;
pub(crate) mod fitting;
pub(crate) mod gateway;
pub(crate) mod generations;
pub(crate) mod hooks;
pub(crate) mod kernel;
pub(crate) mod link;
pub(crate) mod net;
pub(crate) mod proxy_header;
pub(crate) mod random;
pub(crate) mod raw;
pub(crate) mod record;
pub(crate) mod removals;
pub(crate) mod runner;
pub(crate) mod script;
pub(crate) mod topics;
pub(crate) mod toy;
pub(crate) mod upstream;
pub(crate) mod world;
