//! Limits: those of the process, and those that a route sets for its own sessions.

use super::Key;

pub(super) const LIMITS: &[Key] = &[
    Key {
        name: "max_sessions",
        default: "100,000 or what fits",
        unit: "sessions",
        reason: "Client sessions of the process, divided over the shards. Slots are reserved at the start, \
                 so that nothing grows under load. Descriptors must suffice for all of them (`tidegate \
                 doctor` shows the sum): where the number stands here and they do not, the gateway does not \
                 start; where it does not, it takes as many as fit, and says so. An upstream leg uses one \
                 slot and one descriptor more, which is not counted here.",
    },
    Key {
        name: "memory",
        default: "1 GiB, and what topics may take",
        unit: "size",
        reason: "Output that waits for slow readers, input that waits for it, what is held of messages, \
                 bodies, heads and records of TLS that have not come whole, and what topics hold, over the \
                 whole process. Beyond it new sessions are refused with 503 and `Retry-After`, before any \
                 upstream hears of them; those that are open, and requests without a session, go on. Only \
                 where what has not come whole takes more than a quarter of it (of a shard's part of it) does \
                 some of that end, until an eighth of `memory` is free or the quarter is kept to: sessions \
                 with Close 1013, requests with 503 (publications under way with 504), and with a reset where \
                 most of it is half a record. First go those that have held the most bytes for the longest time, so that a message that \
                 arrives as fast as others do outlives those that were begun to stay. No allocator's count: \
                 what sessions, buffers and codecs take is bounded by their own numbers. At least `memory` of \
                 [`[topics]`](#topics), up to 1 TiB.",
    },
    Key {
        name: "sessions_per_address",
        default: "`1_000`",
        unit: "connections",
        reason: "Most connections of one client address at a time, and of one /64 with IPv6, as a subscriber \
                 has all of it. Beyond it 429 with `Retry-After`. The default is more than the phones behind \
                 most carriers' shared addresses, and one address can never take more than a hundredth of \
                 the default slots. `0`: no limit. The address is that of the PROXY header where the \
                 listener has one. Networks that are `trusted` are not counted, as one of their addresses \
                 stands for many clients; nor are clients of a unix socket.",
    },
    Key {
        name: "handshakes_per_second",
        default: "`100`",
        unit: "connections per second",
        reason: "How many connections one client address may begin in a second, on average; those that were \
                 refused for their number count too. Beyond it 429 with `Retry-After`, and on a listener \
                 with TLS the end of the connection before its handshake costs anything. `0`: no limit.",
    },
    Key {
        name: "burst_handshakes",
        default: "`1_000`, or the rate",
        unit: "connections",
        reason: "How many of them may come at once: all that one address may have come back together when \
                 their network does.",
    },
    Key {
        name: "exempt_addresses",
        default: r#"`["127.0.0.0/8", "::1"]`"#,
        unit: "networks",
        reason: "Whose connections these do not count: by default this machine's own, where tests, health \
                 checks and a proxy without a PROXY header come from. The table of addresses is one for the \
                 process and has 262,144 places; where all are taken by addresses that have connections or \
                 owe for some, further ones are not counted rather than these forgotten.",
    },
    Key {
        name: "head_bytes",
        default: r#"`"16KiB"`"#,
        unit: "size",
        reason: "Longest request head. Cookies and tokens of real clients fit; beyond it the answer is 431. \
                 256 B to 1 MiB.",
    },
    Key {
        name: "request_line_bytes",
        default: r#"`"8KiB"`"#,
        unit: "size",
        reason: "Longest request line, a part of the head; RFC 9112 asks for at least 8000. Beyond it the \
                 answer is 414.",
    },
    Key {
        name: "head_fields",
        default: "`100`",
        unit: "fields",
        reason: "Most fields in a head, as in most servers; beyond it 431. 1 to 1000.",
    },
    Key {
        name: "head_timeout",
        default: r#"`"10s"`"#,
        unit: "duration",
        reason: "From the accepted connection to the last byte of the head, against clients that send a byte \
                 now and then (Slowloris) or none at all; on a connection that is kept behind a page, from \
                 its answer on.",
    },
    Key {
        name: "message_bytes",
        default: r#"`"1MiB"`"#,
        unit: "size",
        reason: "Longest message, after inflating. Enforced from the frame headers, before the bytes have \
                 arrived. Beyond it Close 1009. Up to 512 MiB.",
    },
    Key {
        name: "message_fragments",
        default: "`131072`",
        unit: "frames",
        reason: "Most frames in one message, empty ones too: each costs time whatever it carries. Beyond it \
                 Close 1008.",
    },
    Key {
        name: "message_timeout",
        default: r#"`"30s"`"#,
        unit: "duration",
        reason: "From the first byte of a message to its last, as a half message holds memory. Beyond it \
                 Close 1008.",
    },
    Key {
        name: "control_frames",
        default: "`100`",
        unit: "frames",
        reason: "Most pings, pongs and such that a peer may send within `control_window`: each wants an \
                 answer. Beyond it Close 1008. Answers to an upstream's pings do not count; those that have waited while \
                 a client was delayed (`excess`) count when they are read. Up to 65535.",
    },
    Key { name: "control_window", default: r#"`"10s"`"#, unit: "duration", reason: "See `control_frames`." },
    Key {
        name: "outbox_soft",
        default: r#"`"1MiB"`"#,
        unit: "size",
        reason: "Output that waits for a slow reader before whoever produces it is paused, where the route's \
                 `full` is `\"pause\"`. Large enough for some round trips, small enough for many slow \
                 readers. What had arrived before the pause is kept besides until it can go on: at most what \
                 one turn received of the session. Up to 512 MiB.",
    },
    Key {
        name: "outbox_hard",
        default: r#"`"4MiB"`"#,
        unit: "size",
        reason: "Waiting output above which no more is taken: then the route's `full` decides, and \
                 `\"pause\"`, having failed to hold the producer back, closes with 1013. Beyond it go only a \
                 message of any size into an outbox without data, control frames and the answer that opens or refuses a \
                 session, and what the kernel did not take of one turn's output, which ends above twice the \
                 larger of `outbox_soft` and 64 KiB with what one received buffer still gives (a compressed \
                 one at most 1 MiB and a message). Where it is not set, it grows with the message: at least \
                 `outbox_soft` + `message_bytes` + 1 MiB. Up to 1 GiB.",
    },
    Key {
        name: "ping_interval",
        default: r#"`"25s"`"#,
        unit: "duration",
        reason: "A ping after this much silence. Below the 30 s after which the strictest mobile networks \
                 forget a connection. `\"0s\"`: never.",
    },
    Key {
        name: "pong_timeout",
        default: r#"`"10s"`"#,
        unit: "duration",
        reason: "How long a peer may stay silent after a ping before it counts as gone (1006).",
    },
    Key {
        name: "close_timeout",
        default: r#"`"5s"`"#,
        unit: "duration",
        reason: "How long a peer may take to answer a Close before its connection is cut.",
    },
    Key {
        name: "idle_timeout",
        default: r#"`"0s"`"#,
        unit: "duration",
        reason: "Close 1001 after this long without a data message in either direction; pings do not count. \
                 `\"0s\"`: never, as many services are silent for hours.",
    },
    Key {
        name: "messages_per_second",
        default: "`0`",
        unit: "messages per second",
        reason: "How many messages a client may send in a second, on average, on routes with `echo`, `proxy` \
                 or `topics`; what upstreams send does not count. `0`: any number, as only the service knows \
                 what is too fast.",
    },
    Key {
        name: "burst_messages",
        default: "a second's worth",
        unit: "messages",
        reason: "How many of them may come at once.",
    },
    Key {
        name: "bytes_per_second",
        default: "`0`",
        unit: "size per second",
        reason: "Bytes of messages that a client may send in a second, on average: payloads after inflating, \
                 and where they are forwarded as they come (`proxy`, but for compressed ones with `deflate = \
                 \"edge\"`) what came, frames and all. A message that is longer than the burst is taken once \
                 nothing is owed, and paid for by those behind it. `0`: any number.",
    },
    Key {
        name: "burst_bytes",
        default: "a second's worth",
        unit: "size",
        reason: "How many of them may come at once.",
    },
    Key {
        name: "excess",
        default: r#"`"delay"`"#,
        unit: "",
        reason: "What becomes of messages that come too fast. `\"delay\"`: the session is not read until \
                 they are due, so that the client's own sending stalls and nothing is lost. `\"drop\"`: they \
                 are left out and counted, and the protocol of topics does not answer them; not on proxied \
                 routes, which lose no message. `\"close\"`: the session ends with 1008. Where messages are \
                 forwarded as they come, one received buffer (17 KiB) is judged as a whole, after it was \
                 forwarded.",
    },
    Key {
        name: "write_timeout",
        default: r#"`"30s"`"#,
        unit: "duration",
        reason: "How long a peer may take nothing at all while output waits for it. Then its connection is \
                 cut. What counts is what the kernel takes: it takes more only once a third of its send \
                 buffer is acknowledged, up to 1.3 MiB on a fast path, and a peer's kernel announces room in \
                 steps of a sixteenth of its receive buffer; so a limit of a few seconds also ends readers \
                 that are merely slow. On the TCP connections of clients it is also the kernel's limit for \
                 data that is not acknowledged (`TCP_USER_TIMEOUT`), so that one whose network has gone is \
                 not retried for a quarter of an hour.",
    },
    Key {
        name: "linger_bytes",
        default: r#"`"1MiB"`"#,
        unit: "size",
        reason: "What is read and discarded behind a refusal or a Close: closing a socket with unread input \
                 sends a reset, which can destroy the answer on its way. On a route that publishes its \
                 `body_bytes` are added, so that who sends a body that is somewhat too long has its 413.",
    },
    Key {
        name: "receive_buffers",
        default: "`1024`",
        unit: "buffers per shard",
        reason: "About 17 KiB each, lent only while bytes are looked at; memory is used as they are. More of \
                 them bridge larger bursts. A power of two, 16 to 32768.",
    },
    Key {
        name: "inflaters",
        default: "`64`",
        unit: "per shard",
        reason: "48 KiB each, lent while a compressed message is incomplete. Where all are lent, messages \
                 wait in their compressed form.",
    },
    Key {
        name: "deflaters",
        default: "`8`",
        unit: "per shard",
        reason: "How many are kept between messages: one serves all messages of a shard with its window \
                 size, and is made when that is first used. There are seven sizes (9 to 15 bits), 148 to 274 \
                 KiB each, so that more than seven have no effect and fewer are made anew in turns.",
    },
    Key {
        name: "takeover_bytes",
        default: r#"`"64MiB"`"#,
        unit: "size",
        reason: "Memory of the process for sessions with context takeover, divided over the shards: up to \
                 322 KiB for each. Where it is used up, further sessions get compression without takeover. \
                 `0`: takeover is never agreed to.",
    },
    Key {
        name: "compression_level",
        default: "`1`",
        unit: "zlib's level",
        reason: "1 to 9. Of a feed of 1 KiB of JSON each, level 1 leaves 28 %, level 3 22 %, level 6 21 %, \
                 and both of these take about three times as long (`cargo bench -p tidegate-benches --bench \
                 deflate -- level`). Where bandwidth is dearer than time take 3.",
    },
    Key {
        name: "log_entries",
        default: "`100`",
        unit: "entries per second and shard",
        reason: "How many entries of one cause (a refusal, a broken rule, an upstream's fault) are written \
                 to the log; further ones are counted, and their number is told. Under attack the log must \
                 not cost more than the refusals. Entries of the level `debug` are not counted. `0`: all of \
                 them.",
    },
];

pub(super) const ROUTE_LIMITS: &[Key] = &[
    Key {
        name: "message_bytes",
        default: "from `[limits]`",
        unit: "size",
        reason: "Longest message, after inflating.",
    },
    Key {
        name: "message_fragments",
        default: "from `[limits]`",
        unit: "frames",
        reason: "Most frames in one message.",
    },
    Key {
        name: "message_timeout",
        default: "from `[limits]`",
        unit: "duration",
        reason: "From a message's first byte to its last.",
    },
    Key {
        name: "control_frames",
        default: "from `[limits]`",
        unit: "frames",
        reason: "Most control frames within `control_window`.",
    },
    Key {
        name: "control_window",
        default: "from `[limits]`",
        unit: "duration",
        reason: "See `control_frames`.",
    },
    Key {
        name: "outbox_soft",
        default: "from `[limits]`",
        unit: "size",
        reason: "Waiting output above which the producer is paused.",
    },
    Key {
        name: "outbox_hard",
        default: "from `[limits]`",
        unit: "size",
        reason: "Waiting output above which no more is taken. Where neither is set, it grows with the \
                 route's own `message_bytes`.",
    },
    Key {
        name: "ping_interval",
        default: "from `[limits]`",
        unit: "duration",
        reason: r#"A ping after this much silence; `"0s"`: never."#,
    },
    Key {
        name: "pong_timeout",
        default: "from `[limits]`",
        unit: "duration",
        reason: "How long a peer may stay silent after a ping.",
    },
    Key {
        name: "close_timeout",
        default: "from `[limits]`",
        unit: "duration",
        reason: "How long a peer may take to answer a Close.",
    },
    Key {
        name: "idle_timeout",
        default: "from `[limits]`",
        unit: "duration",
        reason: r#"Close 1001 after this long without a data message; `"0s"`: never."#,
    },
    Key {
        name: "messages_per_second",
        default: "from `[limits]`",
        unit: "messages per second",
        reason: "How many messages a client may send in a second.",
    },
    Key {
        name: "burst_messages",
        default: "from `[limits]`, or a second's worth",
        unit: "messages",
        reason: "How many of them may come at once. Where the route sets `messages_per_second` alone, as \
                 many as that.",
    },
    Key {
        name: "bytes_per_second",
        default: "from `[limits]`",
        unit: "size per second",
        reason: "Bytes of messages that a client may send in a second.",
    },
    Key {
        name: "burst_bytes",
        default: "from `[limits]`, or a second's worth",
        unit: "size",
        reason: "How many of them may come at once. Where the route sets `bytes_per_second` alone, as many \
                 as that.",
    },
    Key {
        name: "excess",
        default: "from `[limits]`",
        unit: "",
        reason: "What becomes of messages that come too fast.",
    },
    Key {
        name: "max_sessions",
        default: "none",
        unit: "sessions",
        reason: "Most sessions of this route at a time in the whole process, streams of events included. \
                 Beyond it 503 with `Retry-After`, before any upstream hears of it. It reserves nothing: \
                 `max_sessions` of `[limits]` counts for all routes together.",
    },
];
