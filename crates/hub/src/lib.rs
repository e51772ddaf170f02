//! Where a request goes.
//!
//! [`Routes`] is built once from a valid configuration and shared; [`Routes::lookup`] is a pure function of the
//! request's authority, path and subprotocols. It knows no kernel, no clock and no bytes of a message.
//!
//! ```
//! use tidegate_hub::Routes;
//!
//! let config = tidegate_config::embedded();
//! let routes = Routes::new(&config);
//! let (id, route) = routes.lookup("localhost:9001", "/echo", std::iter::empty()).unwrap();
//! assert_eq!(routes.route(id), route);
//! assert!(routes.lookup("localhost:9001", "/other", std::iter::empty()).is_none());
//! ```
#![forbid(unsafe_code)]

pub mod protocol;
mod routes;

pub use self::routes::{MAX_OFFERS, RouteId, Routes};
