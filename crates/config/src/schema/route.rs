//! Routes, who may come to them by certificate, and the actions that need nobody else.

use super::Key;

pub(super) const ROUTE: &[Key] = &[
    Key {
        name: "host",
        default: "every host",
        unit: "",
        reason: "`\"chat.example.com\"`, or `\"*.example.com\"` for every name below it at any depth, but \
                 not itself. Compared without case, port and final dot. Set it for routes that browsers use: \
                 it is what keeps a foreign name that resolves to this gateway (DNS rebinding) from being \
                 taken for the page's own.",
    },
    Key {
        name: "path",
        default: "required",
        unit: "",
        reason: "`\"/echo\"` is this path alone. `\"/app/*\"` is `/app` and everything below it. `\"/*\"` is \
                 every path. For `topics` and `publish`, what is below is the name of a topic, \
                 percent-decoded: with `\"/topics/*\"` that of `/topics/chat/lobby` is `chat/lobby`, and \
                 `/topics` and `/topics/` are the path itself, so that one route serves both; with \
                 `\"/topics\"` there is the path itself alone. Compared byte for byte without the query: \
                 requests whose path could be read in two ways (`//`, `/../`, needless escapes, `;`) are \
                 refused before.",
    },
    Key {
        name: "subprotocols",
        default: "`[]`",
        unit: "tokens",
        reason: "Where not empty, the route only takes requests that offer one of them in \
                 `Sec-WebSocket-Protocol`. `echo` agrees to the first of the client's that is listed; \
                 `proxy` leaves the choice to the upstream; `topics` speaks `tidegate.v1` at its path \
                 itself, and below agrees as `echo` does.",
    },
    Key {
        name: "origins",
        default: "`[]`",
        unit: "origins",
        reason: "Which pages may connect, as `\"https://chat.example.com\"` (scheme, host, port) or \
                 `\"null\"`. Empty means any. Requests without `Origin` do not come from a browser and are \
                 admitted; so is the gateway's own origin. Others are refused with 403: a browser sends its \
                 user's cookies and certificate along, whichever page asks. For `events`, `poll` and \
                 `publish` the same list is what CORS answers with: pages of other origins may read what \
                 comes if they are listed here, and otherwise are refused, as with WebSockets. Where the \
                 route has an `identity` or a `client_certificate`, and for whoever has shown a \
                 certificate, empty means the gateway's own origin alone.",
    },
    Key {
        name: "identity",
        default: "none",
        unit: "",
        reason: "The `name` of the [`[[identity]]`](#identity) of which every request must bring a valid \
                 token, else 401, before any upstream or topic hears of it.",
    },
    Key {
        name: "claims",
        default: "none",
        unit: "",
        reason: "What it demands of its callers' claims: `{ role = [\"admin\", \"ops\"], plan = \"gold\" }`. Each \
                 that is named must be there and be one of the texts, else 403. One that is a list must have \
                 one of them; a number or a boolean is compared as JSON writes it (`\"5\"`, `\"true\"`), and \
                 one with a fraction or beyond 64 bits is like none. Names are as in [`[[identity]]`](#identity): \
                 `\"realm.roles\"`. Up to 16, of up to 64 values. Needs `identity`.",
    },
    Key {
        name: "client_certificate",
        default: "none",
        unit: "",
        reason: "[`[route.client_certificate]`](#client-certificate): who may come, by the certificate that \
                 a listener has verified.",
    },
    Key {
        name: "limits",
        default: "those of `[limits]`",
        unit: "",
        reason: "[`[route.limits]`](#route-limits)",
    },
    Key {
        name: "full",
        default: r#"`"pause"`"#,
        unit: "",
        reason: "What happens to a session that does not read fast enough. `\"pause\"`: above the soft limit \
                 its producer is not read from. Above the hard limit, `\"drop_new\"` drops the new message, \
                 `\"drop_old\"` the oldest that have not begun to leave (the new one where those cannot be \
                 left out any more: sealed, or compressed with context takeover), `\"disconnect\"` closes \
                 with 1013. A proxied session loses no message, so it only knows `\"pause\"` and \
                 `\"disconnect\"`. Of topics each has its own `slow` instead.",
    },
    Key { name: "echo", default: "", unit: "", reason: "[`echo = {}`](#echo), or" },
    Key { name: "page", default: "", unit: "", reason: "[`page = {}`](#page), or" },
    Key { name: "proxy", default: "", unit: "", reason: "[`proxy = {}`](#proxy), or" },
    Key { name: "topics", default: "", unit: "", reason: "[`topics = {}`](#route-topics), or" },
    Key { name: "events", default: "", unit: "", reason: "[`events = {}`](#events), or" },
    Key { name: "poll", default: "", unit: "", reason: "[`poll = {}`](#poll), or" },
    Key {
        name: "publish",
        default: "",
        unit: "",
        reason: "[`publish = {}`](#publish): a route has exactly one of these seven",
    },
];

pub(super) const CLIENT_CERTIFICATE: &[Key] = &[
    Key {
        name: "required",
        default: "`true`",
        unit: "",
        reason: "Whether nobody comes without a certificate. With `false` who shows none comes, and who \
                 shows one that `names` does not take does not.",
    },
    Key {
        name: "names",
        default: "none",
        unit: "names",
        reason: "Of which a certificate must have one: a DNS name, an address of mail, a URI (like \
                 `\"spiffe://example.com/worker\"`) or the common name, whole and without regard to case, or \
                 `\"*.devices.example.com\"` for all DNS names below. Without it every certificate that was \
                 verified will do.",
    },
    Key {
        name: "header",
        default: "none",
        unit: "field",
        reason: "The field in which upstreams get the subject: its distinguished name as RFC 4514 writes it, \
                 like `CN=device 7,O=Example\\, Inc.`, where everything but printable ASCII is escaped, and types \
                 without a short name there or in RFC 4519 (`emailAddress` is one) stand as their number and \
                 the value in hexadecimal digits. What \
                 the client itself sends in this field (a `_` counts as `-`) is always dropped, also where \
                 it has no certificate; a subject that is empty makes no field. Only beside `proxy`.",
    },
];

pub(super) const ECHO: &[Key] = &[
    Key {
        name: "deflate",
        default: r#"`"on"`"#,
        unit: "",
        reason: "`\"on\"`: permessage-deflate where the client offers it, messages under 64 bytes left \
                 plain. `\"off\"`: never.",
    },
    Key {
        name: "context_takeover",
        default: "`false`",
        unit: "",
        reason: "Whether the compression may remember earlier messages (RFC 7692 §7.1): smaller messages for \
                 up to 322 KiB of memory per session, out of `takeover_bytes`.",
    },
];

pub(super) const PAGE: &[Key] = &[Key {
    name: "name",
    default: r#"`"index"`"#,
    unit: "",
    reason: "`\"index\"`: a page that lets a browser try the echo. `\"chat\"`: a chat with rooms, over \
             topics. `\"websocket\"` and `\"broadcast\"`: the classic pair, of which one receives what \
             the other sends. `\"client\"`: the client library, a script; the other pages ask for it at \
             `/tidegate.js`.",
}];
