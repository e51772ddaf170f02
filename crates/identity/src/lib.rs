//! Who a caller is: a token (JWT, RFC 7519) is verified, or the answer of a hook is judged, and what follows from the claims is
//! said.
//!
//! No I/O, no clock, no threads: tokens and the time come in, a [`Caller`] or the reason why not comes out. Where in a
//! request a token stands, and what is refused without one, is others' business.
//!
//! ```text
//! config::Identity ──► Identity: keys by algorithm
//!                          │
//! token, time ──► size ──► three parts ──► header: algorithm, key ──► signature ──► claims ──► Caller
//! ```
//! Invariants: nothing of a token is parsed before its length was judged, and nothing of its claims before its
//! signature was. A key is only ever used with algorithms of its own kind, and of the configuration's list: a token's word
//! on its algorithm chooses among these, and nothing else.
//!
//! ```
//! let text = "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n\
//!     [[identity]]\nname = 'users'\nalgorithms = ['HS256']\nsecret = '0123456789abcdef0123456789abcdef'\n\
//!     [[route]]\npath = '/echo'\nidentity = 'users'\necho = {}\n";
//! let config = tidegate_config::parse(text, "tidegate.toml").expect("it is valid");
//! let users = tidegate_identity::identities(&config).expect("its keys are, too").remove(0);
//! assert_eq!(users.verify(b"no token", 0).unwrap_err(), tidegate_identity::Invalid::Form);
//! ```
#![forbid(unsafe_code)]

mod answer;
mod caller;
mod claims;
mod fetched;
mod identity;
mod invalid;
mod jwk;
mod key;
mod point;
mod token;

pub use self::{
    answer::{Answer, Place},
    caller::{Caller, Permissions},
    fetched::{FetchedKeys, Fetches, Put},
    identity::{Identity, identities, identities_after, warnings},
    invalid::Invalid,
    token::MAX_TOKEN_BYTES,
};
