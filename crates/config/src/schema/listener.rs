//! Listeners, their redirect, their TLS and its certificates.

use super::Key;

pub(super) const LISTENER: &[Key] = &[
    Key {
        name: "bind",
        default: "required",
        unit: "",
        reason: "`\"0.0.0.0:8080\"`, `\"[::]:8080\"` (IPv6 alone: `IPV6_V6ONLY` is set, so that both can \
                 stand side by side) or `\"unix:/run/tidegate.sock\"`. An address, not a name: a name could \
                 change under the gateway. `[fe80::1%2]:8080` names the interface of a link-local one. \
                 The folder of a unix socket must exist, with nothing but a socket at the path: `tidegate \
                 check` looks, as it does for `[admin]`. Who may write to the socket may connect, and \
                 that is as the umask says: with the 0077 of the systemd unit the gateway's own user; \
                 `UMask=0007` in a drop-in lets its group.",
    },
    Key {
        name: "backlog",
        default: "`4096`",
        unit: "connections",
        reason: "How many may wait to be accepted, on each shard's socket. The kernel caps it at \
                 `net.core.somaxconn`.",
    },
    Key {
        name: "tls",
        default: "none",
        unit: "",
        reason: "[`tls`](#tls): its connections speak TLS, and nothing else is taken on it. Beside it \
                 another listener may be plain.",
    },
    Key {
        name: "proxy_protocol",
        default: "`[]`",
        unit: "networks",
        reason: "Whose connections begin with a header of the PROXY protocol, version 1 or 2: load balancers \
                 that forward TCP. From these it is required, within `head_timeout` and before TLS, and the \
                 address in it is the client's, for limits, logs, `balance`, forwarded fields and `trusted`. \
                 One that names none (`UNKNOWN`, `LOCAL`, a unix socket) leaves the connection's. What is \
                 not exactly a header, or longer than 4 KiB, ends the connection without an answer; TLVs of \
                 version 2 are passed over, a checksum among them as well. From everyone else none is read: \
                 there it is a bad request (400), since anyone can send one. Not for unix sockets.",
    },
    Key {
        name: "https_redirect",
        default: "none",
        unit: "",
        reason: "[`https_redirect`](#https-redirect): it serves nothing and sends whoever asks to the same \
                 target over TLS. Not beside `tls`. May come, go and change over a reload. Several listeners \
                 that redirect do so alike.",
    },
];

pub(super) const HTTPS_REDIRECT: &[Key] = &[
    Key {
        name: "host",
        default: "none",
        unit: "",
        reason: "The host in `Location`. Without it the request's own, which was checked to be a host and \
                 nothing more.",
    },
    Key {
        name: "hosts",
        default: "`[]`",
        unit: "hosts",
        reason: "Hosts that are sent anywhere, like `\"example.com\"` or `\"*.example.com\"`; others get \
                 421, so that nobody is sent where nothing of this gateway is. Empty means every one.",
    },
    Key { name: "port", default: "`443`", unit: "", reason: "The port in `Location`, which leaves 443 out." },
];

pub(super) const TLS: &[Key] = &[
    Key {
        name: "certificate_file",
        default: "required",
        unit: "",
        reason: "The certificate in PEM, and behind it those that it was signed with but for the root. An \
                 absolute path.",
    },
    Key {
        name: "key_file",
        default: "required",
        unit: "",
        reason: "Its private key in PEM: PKCS #8, PKCS #1 or SEC 1, without a passphrase. An absolute path.",
    },
    Key {
        name: "certificates",
        default: "none",
        unit: "",
        reason: "[`certificates`](#certificates), instead of the two above, where there are several.",
    },
    Key {
        name: "min_version",
        default: r#"`"1.2"`"#,
        unit: "",
        reason: "`\"1.2\"` or `\"1.3\"`: the lowest version that is spoken. Older ones are not to be had \
                 (RFC 8996).",
    },
    Key {
        name: "client_ca_file",
        default: "none",
        unit: "",
        reason: "Certificates of authorities in PEM. Clients must then have a certificate that one of these \
                 has signed, and nobody else gets through the handshake. They may show at most six beside \
                 their own, so that looking for a way through them is cheap. Without it clients are not \
                 asked for one.",
    },
    Key {
        name: "client_certificate",
        default: r#"`"required"`"#,
        unit: "",
        reason: "`\"required\"`: as `client_ca_file` says. `\"optional\"`: clients without a certificate get \
                 in, too, and routes say with [`client_certificate`](#client-certificate) who may come \
                 there; one that no authority has signed ends the handshake all the same. Means nothing \
                 without `client_ca_file`.",
    },
];

pub(super) const CERTIFICATE: &[Key] = &[
    Key { name: "certificate_file", default: "required", unit: "", reason: "As in [`tls`](#tls)." },
    Key { name: "key_file", default: "required", unit: "", reason: "As in [`tls`](#tls)." },
];
