//! The API's description.

/// The OpenAPI 3.1 document of the admin listener, as `/openapi.json` answers it.
///
/// # Panics
/// Never: the document is part of the program, and a test reads it.
#[must_use]
pub fn document() -> serde_json::Value {
    serde_json::from_str(include_str!("openapi.json")).expect("the document is JSON")
}
