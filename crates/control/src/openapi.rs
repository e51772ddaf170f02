//! The API's description.

use serde_json::{Value, json};

/// What may be answered to any request, by the names of components.
const ANYWHERE: [(&str, &str); 4] =
    [("401", "NoToken"), ("403", "NotHere"), ("405", "OtherMethod"), ("429", "TooMany")];

/// And to one with a body.
const WITH_BODY: [(&str, &str); 1] = [("413", "TooLong")];

/// The OpenAPI 3.1 document of the admin listener, as `/openapi.json` answers it.
///
/// # Panics
/// Never: the document is part of the program, and a test reads it.
#[must_use]
pub fn document() -> Value {
    let mut document: Value =
        serde_json::from_str(include_str!("openapi.json")).expect("the document is JSON");
    let paths = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    let methods = paths.filter_map(Value::as_object_mut);
    for operation in methods.flat_map(|methods| methods.values_mut()) {
        let with_body = if operation.get("requestBody").is_some() { &WITH_BODY[..] } else { &[] };
        for (status, name) in ANYWHERE.iter().chain(with_body) {
            operation["responses"][status] = json!({ "$ref": format!("#/components/responses/{name}") });
        }
    }
    document
}
