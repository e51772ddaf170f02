//! What stands at the top of a file, and how the process as a whole is run: `[drain]`, `[admin]`, `[log]`.

use super::Key;

pub(super) const TOP: &[Key] = &[
    Key {
        name: "version",
        default: "required",
        unit: "",
        reason: "The version of this schema: `1`. A later schema will be refused by an older gateway instead \
                 of being misread.",
    },
    Key {
        name: "shards",
        default: "one per core",
        unit: "threads",
        reason: "Each shard is one thread with its own sockets, ring and sessions, pinned to a core where \
                 there is one for each (which cores, say `taskset` and cpusets). More shards than cores only \
                 cost; fewer leave cores to others. 1 to 1024.",
    },
    Key {
        name: "io",
        default: r#"`"auto"`"#,
        unit: "",
        reason: "`\"uring\"`, `\"epoll\"`, or `\"auto\"`: io_uring where its self-test passes, else epoll \
                 (old kernels; containers whose seccomp profile forbids it). With `\"uring\"` the gateway \
                 ends with an error rather than being slower than planned.",
    },
    Key {
        name: "trusted",
        default: "`[]`",
        unit: "networks",
        reason: "Who may say on whose behalf a request comes, in `X-Forwarded-*`, `Forwarded` and \
                 `X-Real-IP`: networks (`\"10.0.0.0/8\"`) or addresses. From everyone else these fields are \
                 dropped, since anyone can send them. See [`proxy`](#proxy). One connection from there may \
                 poll for many clients.",
    },
    Key { name: "limits", default: "see below", unit: "", reason: "[`[limits]`](#limits)" },
    Key { name: "drain", default: "see below", unit: "", reason: "[`[drain]`](#drain)" },
    Key {
        name: "listener",
        default: "required",
        unit: "",
        reason: "[`[[listener]]`](#listener), at least one",
    },
    Key {
        name: "admin",
        default: "none",
        unit: "",
        reason: "[`[admin]`](#admin): without it there is no admin listener.",
    },
    Key { name: "log", default: "see below", unit: "", reason: "[`[log]`](#log)" },
    Key { name: "topics", default: "see below", unit: "", reason: "[`[topics]`](#topics)" },
    Key { name: "topic", default: "none", unit: "", reason: "[`[[topic]]`](#topic)" },
    Key { name: "identity", default: "none", unit: "", reason: "[`[[identity]]`](#identity)" },
    Key { name: "route", default: "required", unit: "", reason: "[`[[route]]`](#route), at least one" },
];

pub(super) const DRAIN: &[Key] = &[
    Key {
        name: "window",
        default: r#"`"30s"`"#,
        unit: "duration",
        reason: r#"Closes are spread evenly over this time, in no order. `"0s"`: all at once."#,
    },
    Key {
        name: "deadline",
        default: r#"`"45s"`"#,
        unit: "duration",
        reason: "From the beginning: what is left then is cut off. Where only `window` is set it is 15 \
                 seconds behind its end; it cannot be before that. Whoever ends the gateway must wait longer \
                 (systemd's `TimeoutStopSec`, `docker stop -t`, Kubernetes' \
                 `terminationGracePeriodSeconds`).",
    },
    Key {
        name: "code",
        default: "`1001`",
        unit: "",
        reason: "What sessions are told when the gateway ends: 1001 (going away), or 1012 (service restart), \
                 which some clients take as a reason to come back.",
    },
    Key {
        name: "route_code",
        default: "`1012`",
        unit: "",
        reason: "What they are told where their route or upstream has changed or is drained: 1012 or 1001.",
    },
    Key {
        name: "reconnect_delay",
        default: r#"`"5s"`"#,
        unit: "duration",
        reason: "Each Close tells a delay of its own, up to this, in its [reason](PROTOCOL.md#coming-back): \
                 `{\"retry_ms\":3482,\"reason\":\"going away\"}`. tidegate.js obeys. `\"0s\"`: none is told. \
                 At most an hour.",
    },
];

pub(super) const ADMIN: &[Key] = &[
    Key {
        name: "bind",
        default: r#"`"unix:/run/tidegate/admin.sock"`"#,
        unit: "",
        reason: "Where: a unix socket (mode 0600; root and the gateway's own user may use it, as the kernel \
                 tells who is at the other end) or an address. On loopback every process of this machine may \
                 then ask; anything else needs `token_file`. The folder of a unix socket must exist (under \
                 systemd `RuntimeDirectory=tidegate`); `tidegate check` refuses one that does not, and warns \
                 of one in `/run`, which may be made with the service.",
    },
    Key {
        name: "token_file",
        default: "none",
        unit: "",
        reason: "The path of a file that holds a secret, 16 to 512 bytes of printable ASCII: each request \
                 then needs it in `Authorization: Bearer TOKEN`, else 401. A reload reads the file again, and \
                 another secret holds from then on, at once and alone. Send HUP for it (`systemctl reload \
                 tidegate`): `tidegate reload` would present the new one already. Over plain TCP anybody in \
                 between can read it: stay within a network that you trust.",
    },
    Key {
        name: "allow_uids",
        default: "`[]`",
        unit: "numbers",
        reason: "Users, by number, whose processes may use the unix socket, too. With some its mode is 0666, \
                 and the kernel's word for who is at the other end alone decides: everybody else is answered \
                 403.",
    },
];

pub(super) const LOG: &[Key] = &[
    Key {
        name: "level",
        default: "info",
        unit: "",
        reason: r#"`"error"`, `"warn"`, `"info"`, `"debug"` or `"trace"`."#,
    },
    Key {
        name: "format",
        default: "see above",
        unit: "",
        reason: r#"`"text"` or `"json"`; else text on a terminal, JSON elsewhere."#,
    },
    Key {
        name: "file",
        default: "standard error",
        unit: "",
        reason: "An absolute path of a regular file or a character device, which is neither the \
                 configuration nor a listener's socket; what is written is added to it. USR1 opens it anew, \
                 for those who move it away (logrotate: `postrotate kill -USR1 PID`). `check` says where it could not be written, \
                 and writes nothing.",
    },
    Key {
        name: "entries_per_second",
        default: "`1000`",
        unit: "lines",
        reason: "Most lines about sessions and peers in a second, over all shards, warnings twice as many: \
                 under an attack the log must not cost more than the answers. A line tells how many were \
                 left out. 1 to 1,000,000.",
    },
    Key {
        name: "sessions",
        default: "on where there is `[admin]`",
        unit: "",
        reason: "`true`: each session's end is a line with its route, bytes and messages each way, duration, \
                 code and reason (`session ended`), and the gateway counts by session and route as with \
                 `[admin]`. `false`: ends are logged without numbers, the usual ones (1000, 1001, 1005) at \
                 the level `debug`.",
    },
];
