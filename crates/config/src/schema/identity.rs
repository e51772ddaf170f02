//! Identities: by tokens or by a hook, and what their claims permit.

use super::Key;

pub(super) const IDENTITY: &[Key] = &[
    Key {
        name: "name",
        default: "required",
        unit: "",
        reason: r#"How routes call it: a token like `"users"`. At most 64 identities."#,
    },
    Key {
        name: "jwks_file",
        default: "one of these six",
        unit: "",
        reason: "The path of a JSON Web Key Set (RFC 7517) of up to 100 keys. A token names its key (`kid`); \
                 one that names none is believed where a single key is for its algorithm. Keys for something \
                 else (`use`, `key_ops`, `alg`, `kty`) are passed over with a warning, broken ones are \
                 errors. Read by `check` and at the start of `run`.",
    },
    Key {
        name: "jwks_url",
        default: "or this",
        unit: "",
        reason: "The URL of such a set: `\"https://login.example.com/.well-known/jwks.json\"`, or `http://` \
                 to this machine alone (`127.0.0.1`, `[::1]`, `localhost`), where nobody else can answer. \
                 The system's authorities are believed, or those of the file that the variable \
                 `SSL_CERT_FILE` names. An answer is 200 with at most 1 MiB; redirects are not followed. \
                 `check` asks nobody.",
    },
    Key {
        name: "jwks_interval",
        default: r#"`"10m"`"#,
        unit: "duration",
        reason: "How often it is fetched, with `jwks_url`: who changes keys shows the new ones long before. \
                 At least a second.",
    },
    Key {
        name: "jwks_timeout",
        default: r#"`"5s"`"#,
        unit: "duration",
        reason: "How long an answer may take, from the name's look-up to its last byte. At most a minute.",
    },
    Key {
        name: "key_file",
        default: "or this",
        unit: "",
        reason: "The path of one public key in PEM (`-----BEGIN PUBLIC KEY-----`): RSA of 2048 to 8192 bits, \
                 P-256, P-384 or Ed25519.",
    },
    Key {
        name: "secret",
        default: "or this",
        unit: "",
        reason: "A secret that whoever signs has, too: printable ASCII without spaces, at most 512 bytes, \
                 and at least as long as the algorithm's hash (32 bytes for HS256, 48, 64). It is never \
                 shown.",
    },
    Key {
        name: "secret_file",
        default: "or this",
        unit: "",
        reason: "The path of a file that holds the secret and nothing else; white space round it is left \
                 out. A warning tells where others may read or change it.",
    },
    Key {
        name: "hook",
        default: "or this",
        unit: "",
        reason: "[`hook = {}`](#hook): who is asked in the place of keys.",
    },
    Key {
        name: "algorithms",
        default: "required",
        unit: "",
        reason: "Which are believed: `\"HS256\"`, `\"HS384\"`, `\"HS512\"`, `\"RS256\"`, `\"RS384\"`, \
                 `\"RS512\"`, `\"PS256\"`, `\"PS384\"`, `\"PS512\"`, `\"ES256\"`, `\"ES384\"`, `\"EdDSA\"`. \
                 A token's word on it only chooses among these, and a key is only used for its own kind. \
                 Those with a shared secret and those with a public key do not stand together. None with a \
                 hook.",
    },
    Key {
        name: "issuers",
        default: "any",
        unit: "",
        reason: "One of these must be the token's `iss`, letter by letter.",
    },
    Key {
        name: "audiences",
        default: "none",
        unit: "",
        reason: "One of these must be in the token's `aud`. Where none is configured, a token that has one \
                 is for somebody else, and not valid (RFC 7519 §4.1.3).",
    },
    Key {
        name: "leeway",
        default: r#"`"5s"`"#,
        unit: "duration",
        reason: "How much the clocks of issuers may differ from this machine's: `exp` and `nbf` hold so much \
                 longer and earlier. Whole seconds, at most 5 minutes.",
    },
    Key {
        name: "expiry",
        default: r#"`"required"`"#,
        unit: "",
        reason: "With a hook `\"optional\"`, as that is asked for each session. `\"required\"`: a token \
                 without `exp` is not valid, as nobody could ever take it back. `\"optional\"`: it is, and \
                 its session lasts.",
    },
    Key {
        name: "expired_code",
        default: "`4401`",
        unit: "",
        reason: "The code of the Close when a token has expired: 3000 to 4999, or 1008.",
    },
    Key {
        name: "token",
        default: r#"`["authorization"]`"#,
        unit: "places",
        reason: "With a hook none: what is named then upstreams do not hear of, as with a token. Where a \
                 token stands, in the order in which they are looked at: `\"authorization\"` (as `Bearer`), \
                 `\"cookie:NAME\"`, `\"query:NAME\"`, `\"subprotocol:PREFIX\"` (an element of \
                 `Sec-WebSocket-Protocol` behind that prefix, for browsers, which can set no other field). A \
                 query stands in logs of proxies in front: prefer the others.",
    },
    Key {
        name: "forward_token",
        default: "`false`",
        unit: "",
        reason: "Whether upstreams get tokens of the query and of the list of subprotocols, too: they could \
                 leave them in logs, or choose one as the session's subprotocol.",
    },
    Key {
        name: "user",
        default: r#"`"sub"`"#,
        unit: "",
        reason: "The claim that names the user: a text of up to 256 bytes without control characters, or a \
                 whole number of 64 bits: a larger one, or one with a fraction, would be rounded, and could \
                 be somebody else's. Anything else there makes the token invalid.",
    },
    Key {
        name: "headers",
        default: "`{}`",
        unit: "",
        reason: "Fields for upstreams, each with the claim that is in it. Not those that the gateway writes \
                 itself. A token with a number in such a claim that is too large to be told exactly is not \
                 valid.",
    },
    Key { name: "permissions", default: "none", unit: "", reason: "[`permissions = {}`](#permissions)" },
];

pub(super) const HOOK: &[Key] = &[
    Key {
        name: "url",
        default: "required",
        unit: "",
        reason: "Where it is: `https://`, or `http://` to this machine alone, as with `jwks_url`.",
    },
    Key {
        name: "timeout",
        default: r#"`"2s"`"#,
        unit: "duration",
        reason: "How long its answer may take, as a client waits meanwhile. 1 ms to a minute.",
    },
    Key {
        name: "max_in_flight",
        default: "`256`",
        unit: "requests",
        reason: "How many may wait for it at a time, in the whole process: what it can take, and what is \
                 held for them, has a bound. Each identity has its own, also where several have one `url`. 1 to 65536.",
    },
    Key {
        name: "forward",
        default: r#"`["authorization", "cookie"]`"#,
        unit: "fields",
        reason: "Fields of the request that it is told. Up to 64. `Forwarded`, `X-Forwarded-*` and \
                 `X-Real-IP` only as `trusted` networks send them: the client's address is in `address`.",
    },
    Key {
        name: "secret",
        default: "none",
        unit: "",
        reason: "By which it knows the gateway: `Authorization: Bearer SECRET`. 16 to 512 bytes of printable \
                 ASCII without spaces. It is never shown.",
    },
    Key {
        name: "secret_file",
        default: "none",
        unit: "",
        reason: "The path of a file that holds the secret and nothing else.",
    },
];

pub(super) const PERMISSIONS: &[Key] = &[
    Key {
        name: "subscribe",
        default: "as the route has it",
        unit: "",
        reason: "The claim that lists what may be subscribed to, polled and read.",
    },
    Key {
        name: "publish",
        default: "as the route has it",
        unit: "",
        reason: "The claim that lists what may be published to.",
    },
    Key {
        name: "presence",
        default: "as the route has it",
        unit: "",
        reason: "The claim that lists where presence may be seen and taken part in.",
    },
];
