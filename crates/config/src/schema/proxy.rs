//! Routes that carry sessions to upstreams, and TLS with those.

use super::Key;

pub(super) const PROXY: &[Key] = &[
    Key {
        name: "upstreams",
        default: "required",
        unit: "",
        reason: "`\"ws://10.0.0.5:9000\"`, `\"ws://chat.internal\"` (port 80; the name is resolved again and \
                 again, sessions begin with each of its addresses in turn, or with `\"hash\"` each with that \
                 of its key, and go on with the others where that cannot be reached) or \
                 `\"unix:/run/app.sock\"`. No path: the request's target is forwarded, and so is its `Host`: \
                 the upstream sees the name that the client asked for. `\"wss://chat.internal\"` (port 443) \
                 speaks TLS, as [`[route.proxy.tls]`](#upstream-tls) says. At most 1024.",
    },
    Key {
        name: "balance",
        default: r#"`"round_robin"`"#,
        unit: "",
        reason: "`\"round_robin\"`: each in turn. `\"least_sessions\"`: the one with the fewest sessions of \
                 the shard, for sessions that last. `\"hash\"`: the same key goes to the same upstream while \
                 that is there, and only its own keys move when it is not.",
    },
    Key {
        name: "hash_on",
        default: r#"required for `"hash"`"#,
        unit: "",
        reason: "`\"client_address\"` (without its port; behind `trusted` proxies the last address in \
                 `X-Forwarded-For` that is not one of theirs), `\"header:NAME\"` or `\"cookie:NAME\"`. A \
                 request without that field or cookie, or with an empty one, is hashed on its address.",
    },
    Key {
        name: "deflate",
        default: r#"`"edge"`"#,
        unit: "",
        reason: "`\"edge\"`: the gateway compresses towards the client, and the upstream sees plain \
                 messages. `\"pass\"`: the two ends negotiate, and UTF-8 and inflated sizes are the \
                 upstream's business. `\"off\"`: nobody.",
    },
    Key {
        name: "utf8",
        default: r#"`"check"`"#,
        unit: "",
        reason: "`\"check\"`: the gateway refuses text that is not UTF-8 (1007) before it reaches the \
                 upstream. `\"upstream\"`: it does not look, which saves a pass over the bytes where the \
                 upstream checks anyhow; messages that are inflated here (`deflate = \"edge\"`) are checked \
                 all the same.",
    },
    Key {
        name: "context_takeover",
        default: "`false`",
        unit: "",
        reason: r#"As for `echo`; only with `deflate = "edge"`."#,
    },
    Key {
        name: "resolve_timeout",
        default: r#"`"5s"`"#,
        unit: "duration",
        reason: "How long a session waits for a name that was not resolved yet.",
    },
    Key {
        name: "resolve_interval",
        default: r#"`"30s"`"#,
        unit: "duration",
        reason: "How often a name is resolved again, apart from the sessions. A name that cannot be resolved \
                 keeps its last addresses. At least 100 ms.",
    },
    Key {
        name: "connect_timeout",
        default: r#"`"5s"`"#,
        unit: "duration",
        reason: "How long one connect may take. Longer than one lost SYN (1 s, then 3 s).",
    },
    Key {
        name: "handshake_timeout",
        default: r#"`"10s"`"#,
        unit: "duration",
        reason: "From the connection to the end of the upstream's response head, a handshake of TLS \
                 included: the application may ask its database first. Beyond it the client gets 504 at \
                 once, and no other is tried: the request may be at work. Where it is over before the TLS \
                 stands, the request was not sent, and another is tried.",
    },
    Key {
        name: "retries",
        default: "`2`",
        unit: "upstreams",
        reason: "How many other upstreams are tried after one of which no address could be connected to, \
                 none showed a certificate that is good, or all hung up before the first byte of an answer. \
                 Not tried again: a handshake time-out (504), an answer that is cut off or breaks the \
                 protocol (502), and a refusal, which is the upstream's answer and is passed on.",
    },
    Key {
        name: "max_fails",
        default: "`1`",
        unit: "failures",
        reason: "Failures in a row after which an upstream is left out for `fail_timeout`; below that it is \
                 used as ever. Each shard counts its own.",
    },
    Key {
        name: "fail_timeout",
        default: r#"`"10s"`"#,
        unit: "duration",
        reason: "How long it is left out; then the next request probes it, one at a time until one succeeds. \
                 Where all are left out, they are tried all the same. `\"0s\"`: never left out.",
    },
    Key {
        name: "failure_code",
        default: "`1011`",
        unit: "Close code",
        reason: "What the client is told when the upstream fails in mid-session: 1011 (internal error), \
                 which every client knows, or 1014 (bad gateway), which is more precise.",
    },
    Key {
        name: "source",
        default: "`[]`",
        unit: "addresses",
        reason: "Local addresses to connect from, in turn; one that has no port left (or is not there) is \
                 followed by the next. One address has some 28,000 ports towards one upstream; each further \
                 one adds as many.",
    },
    Key {
        name: "tls",
        default: "none",
        unit: "",
        reason: "[`[route.proxy.tls]`](#upstream-tls): how upstreams with `wss://` are verified. Means \
                 nothing where there are none.",
    },
];

pub(super) const UPSTREAM_TLS: &[Key] = &[
    Key {
        name: "ca_file",
        default: "none",
        unit: "",
        reason: "Certificates of authorities in PEM, of which one must have signed an upstream's. Without it \
                 those that the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others); services \
                 within a network of one's own should have an authority of their own here. Another file, or \
                 another content, is another route to a reload: sessions with whom is trusted no more must \
                 not go on. The system's are read at the start and for routes that a reload changes.",
    },
    Key {
        name: "server_name",
        default: "none",
        unit: "",
        reason: "The name that certificates must be for, and that is asked for (SNI), instead of the host in \
                 each URL: for upstreams given by address, or behind one balancer.",
    },
    Key {
        name: "certificate_file",
        default: "none",
        unit: "",
        reason: "Who the gateway is, for upstreams that ask: its certificate in PEM, and behind it those \
                 that it was signed with. Needs `key_file`. May change over a reload while sessions go on.",
    },
    Key {
        name: "key_file",
        default: "none",
        unit: "",
        reason: "The private key of that certificate, in PEM.",
    },
    Key {
        name: "min_version",
        default: r#"`"1.2"`"#,
        unit: "",
        reason: r#"`"1.2"` or `"1.3"`: the lowest version that is spoken."#,
    },
];
