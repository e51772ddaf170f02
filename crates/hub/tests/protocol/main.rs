//! The protocol of topics: against its documentation, against serde_json, and there and back again.

mod document;
mod limits;
mod oracle;
mod properties;
