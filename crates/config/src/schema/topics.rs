//! Topics: what is kept of them, and the actions of routes that serve them.

use super::Key;

pub(super) const TOPICS: &[Key] = &[
    Key {
        name: "memory",
        default: r#"`"256MiB"`"#,
        unit: "size",
        reason: "Messages and the frames that they become, each once, as long as anything holds them: \
                 histories, the newest of each key, backlogs, and what waits for sessions (which \
                 `session_bytes` bounds for each). What each takes beside its bytes counts too, and \
                 idempotency keys, which take a quarter at most, of which one connection gets a fifth at \
                 most, and who holds a key of a route one half. So does who is present, up to a quarter \
                 (names that pollers and readers of streams give themselves up to an eighth): beyond it \
                 whoever comes is subscribed but not present; some hundred connections with many \
                 subscriptions and a long `info` may fill it. Above `memory` the home of a message that \
                 comes gives up the oldest of all that its shard's topics keep, then its backlogs, the \
                 largest first; then the other shards do, one after the other, until there is room. Recovery \
                 and gaps say so; of a topic that conflates, new subscribers are not told which keys are \
                 missing. Meanwhile messages are refused (`busy`), and where no shard has anything more the \
                 session that has most of it ends (1013), one every 10 ms at most. What is a session's own \
                 does not count here: answers to what it asked, and what TLS has encrypted for it. 1 MiB to \
                 1 TiB.",
    },
    Key {
        name: "max_topics",
        default: "`1_000_000`",
        unit: "topics",
        reason: "Most topics at a time. Whoever may publish or subscribe makes topics by naming them; beyond \
                 it a new one is refused (`too_many`), and the others go on. One that nobody uses counts \
                 until nothing of it is to be remembered: without `history` and presence no longer than its \
                 last subscriber; with `history` until what it keeps is older than `history_age`, and at \
                 least for a minute behind its last subscriber, so that who comes back can recover (of such \
                 empty ones each shard remembers 4,096, and forgets the oldest for a new one); with \
                 `conflate` and `resync` until their state is older than `history_age`; where a pattern has \
                 had something of it five minutes behind that.",
    },
    Key {
        name: "max_subscriptions",
        default: "`10_000_000`",
        unit: "subscriptions",
        reason: "Most subscriptions at a time, up to 128 bytes each, beyond which a new one is refused \
                 (`too_many`).",
    },
];

pub(super) const TOPIC: &[Key] = &[
    Key { name: "name", default: "required", unit: "", reason: "A name, or a pattern of names." },
    Key {
        name: "history",
        default: "`0`",
        unit: "messages",
        reason: "How many messages are kept for those who come later, or come back and say where they were. \
                 `0`: none, so that nothing can be recovered. Up to 1,000,000.",
    },
    Key {
        name: "history_age",
        default: r#"`"5m"`"#,
        unit: "duration",
        reason: "How long each is kept: as long as a client may be away and miss nothing. So long, too, a \
                 topic that conflates or resyncs remembers its newest messages when nobody is subscribed any \
                 more; without such and without `history` it means nothing. At least 1 s: a history is \
                 always bounded by number, bytes and age, since a topic that keeps something is never \
                 forgotten.",
    },
    Key {
        name: "history_bytes",
        default: r#"`"1MiB"`"#,
        unit: "size",
        reason: "Most bytes of its history, which loses its oldest messages first. At most `memory`, at \
                 least `message_bytes` where that is set here.",
    },
    Key {
        name: "presence",
        default: "`false`",
        unit: "",
        reason: "Whether it knows who is there and tells of joins and leaves. Each join is a message to all \
                 who watch, so that large audiences are better off without. Whoever is there takes about 200 \
                 bytes of `memory`, and under a name of its own about 450, and beside that its name and its \
                 `info` of up to 1 KiB.",
    },
    Key {
        name: "slow",
        default: r#"`"disconnect"`"#,
        unit: "",
        reason: "What becomes of a subscriber with more than its `session_bytes` waiting. `\"disconnect\"`: \
                 closed with 1013, it comes back and recovers. `\"drop_new\"`: it gets nothing until its \
                 output has gone, then a gap is announced. `\"drop_old\"`: the newest messages wait for it \
                 (`backlog_bytes`), a gap is announced for the others. `\"conflate\"`: of each key it gets \
                 the newest message, for values of which only the last counts. `\"resync\"`: a gap is \
                 announced, and it gets the newest message, for snapshots. Where a topic conflates or \
                 resyncs, new subscribers get its newest messages first. Subscribers of [raw \
                 topics](PROTOCOL.md#raw-topics) cannot be told of gaps: with anything but `\"disconnect\"` \
                 they lose messages in silence.",
    },
    Key {
        name: "keys",
        default: "`10_000`",
        unit: "keys",
        reason: "How many keys are remembered with `slow = \"conflate\"`; beyond it the one that has not \
                 changed for longest is forgotten, and for a slow subscriber that is a gap. Up to \
                 10,000,000.",
    },
    Key {
        name: "backlog_bytes",
        default: r#"`"1MiB"`"#,
        unit: "size",
        reason: "What waits in the topic for all of its slow subscribers together with `slow = \
                 \"drop_old\"`. At most `memory`, at least `message_bytes` where that is set here.",
    },
    Key {
        name: "message_bytes",
        default: "the route's",
        unit: "size",
        reason: "Longest message that may be published, where that is less than the route's `message_bytes`. \
                 Up to 512 MiB.",
    },
];

pub(super) const ROUTE_TOPICS: &[Key] = &[
    Key {
        name: "subscribe",
        default: "`[]`",
        unit: "patterns",
        reason: "What may be subscribed to, and whose history and state may be asked for.",
    },
    Key { name: "publish", default: "`[]`", unit: "patterns", reason: "What may be published to." },
    Key {
        name: "presence",
        default: "`[]`",
        unit: "patterns",
        reason: "Who is where may be asked, by `GET` too, and one's own presence told, in these. Only topics \
                 with `presence = true` know it; a file that has none is warned about.",
    },
    Key {
        name: "max_subscriptions",
        default: "`128`",
        unit: "subscriptions",
        reason: "Most subscriptions of one session, since each costs memory and a look at each publication. \
                 1 to 1,000,000, at most those of [`[topics]`](#topics).",
    },
    Key {
        name: "max_patterns",
        default: "`16`",
        unit: "subscriptions",
        reason: "How many of these may be to patterns, which every new topic is held against. 0 to 10,000.",
    },
    Key {
        name: "session_bytes",
        default: r#"`"256KiB"`"#,
        unit: "size",
        reason: "Output of topics that waits for a session before it counts as slow: a burst that a phone \
                 takes in a second or two. At most `outbox_hard`. Where answers to its own commands are more \
                 than this, the next ones wait until they have left, and the session is not read. What a \
                 subscription brings first is sent in parts of about this size, and as much again may wait \
                 behind it.",
    },
    Key {
        name: "deflate",
        default: r#"`"on"`"#,
        unit: "",
        reason: "As for `echo`. Each message is compressed once for all who can share it, so that there is \
                 no context takeover.",
    },
];

pub(super) const EVENTS: &[Key] = &[
    Key { name: "subscribe", default: "required", unit: "patterns", reason: "What may be subscribed to." },
    Key {
        name: "presence",
        default: "`[]`",
        unit: "patterns",
        reason: "In which topics a reader may be present, while its stream is open and 30 seconds longer.",
    },
    Key {
        name: "session_bytes",
        default: r#"`"256KiB"`"#,
        unit: "size",
        reason: "Output that waits for a stream before it counts as slow. What was published before it began \
                 is sent in parts of about this size. At most `outbox_hard`.",
    },
];

pub(super) const POLL: &[Key] = &[
    Key { name: "subscribe", default: "required", unit: "patterns", reason: "What may be polled." },
    Key {
        name: "presence",
        default: "`[]`",
        unit: "patterns",
        reason: "In which topics a poller may be present, from one request to the next. A connection keeps \
                 up to 16 names and topics present.",
    },
    Key {
        name: "session_bytes",
        default: r#"`"256KiB"`"#,
        unit: "size",
        reason: "Messages of one answer, about; the next has what follows. At most `outbox_hard`.",
    },
];

pub(super) const PUBLISH: &[Key] = &[
    Key {
        name: "publish",
        default: "required",
        unit: "patterns",
        reason: "What may be published to here, whatever the key.",
    },
    Key {
        name: "keys",
        default: "none",
        unit: "",
        reason: "[`keys = [{}]`](#keys), unless the route has an `identity`: where there are some, each \
                 request needs one in `Authorization: Bearer KEY`, else 401. An empty list is an error, as \
                 it is unclear who may then publish. At most 256.",
    },
    Key {
        name: "body_bytes",
        default: r#"`"1MiB"`"#,
        unit: "size",
        reason: "Longest body of a request, with one message or many; beyond it 413. Up to 512 MiB.",
    },
    Key {
        name: "rate",
        default: "`1000`",
        unit: "messages per second and shard",
        reason: "How many messages a shard takes over this route; as many as fit a second may come at once, \
                 and beyond it the answer is 429. One request with more than that is taken where nothing is \
                 owed, and the following seconds pay for it: with `rate = 1` a thousand messages in one \
                 request shut the route for a thousand seconds. Each shard counts its own, as each has its \
                 own time to lose.",
    },
];

pub(super) const PUBLISH_KEY: &[Key] = &[
    Key { name: "name", default: "required", unit: "", reason: r#"A token for logs, like `"billing"`."# },
    Key {
        name: "key",
        default: "this or `key_file`",
        unit: "",
        reason: "The secret: 16 to 512 bytes of printable ASCII without spaces. `openssl rand -base64 24` \
                 makes one.",
    },
    Key {
        name: "key_file",
        default: "this or `key`",
        unit: "",
        reason: "The path of a file that holds the secret and nothing else; white space round it is left \
                 out. Read by `check`, at the start of `run` and at each reload. A warning tells where \
                 others than its owner and group may read it, or others than its owner change it.",
    },
    Key {
        name: "publish",
        default: "the route's",
        unit: "patterns",
        reason: "What may be published with it: some of what the route lists, since anything else would be \
                 refused.",
    },
];
