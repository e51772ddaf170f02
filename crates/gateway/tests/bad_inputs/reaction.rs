//! What a peer saw, and whether the table accepts it.

use std::{net::SocketAddr, time::Duration};

use rustls::AlertDescription;

use crate::{
    harness::{
        PATIENCE,
        client::{Client, End, Received, Response, Target},
        frame::{CLOSE, Frame},
        gateway::Gateway,
    },
    table::Row,
    tls::name_of,
};

/// How the gateway reacted, as a peer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// A response; `closed`: it said so, and nothing but the FIN came after it.
    Http { status: u16, closed: bool, extension: bool },
    /// A Close frame.
    Close(u16),
    /// The Close of the peer itself came back with its code.
    CloseEchoed,
    /// The connection ended, nothing came before.
    Tcp(End),
    /// An alert of TLS, and nothing else.
    Alert(AlertDescription),
    /// Nothing comes back; the log has this code.
    LogOnly(u16),
    /// An error of the protocol of topics, as a message: the session goes on.
    AppError,
    /// Served like anything valid.
    Ok,
}

impl Reaction {
    /// Whether the `code` column accepts it.
    pub(crate) fn is_accepted_by(&self, code: &str) -> bool {
        code.split(" or ").any(|code| self.is_one_of(code))
    }

    fn is_one_of(&self, code: &str) -> bool {
        let (code, closing) = code.strip_suffix(",close").map_or((code, false), |code| (code, true));
        let mut kind = "";
        code.split('|').any(|one| {
            let value = one.split_once('=').map_or(one, |(before, value)| {
                kind = before;
                value
            });
            match self {
                Reaction::Http { status, closed, extension } => {
                    let (value, plain) =
                        value.strip_suffix("(no ext)").map_or((value, false), |value| (value, true));
                    kind == "http"
                        && (value == status.to_string() || value == "4xx" && (400..500).contains(status))
                        && (*closed || !closing)
                        && !(plain && *extension)
                }
                Reaction::Close(seen) => kind == "close" && (value == seen.to_string() || value == "*"),
                Reaction::CloseEchoed => kind == "close" && (value == "same" || value == "*"),
                Reaction::Tcp(End::Fin) => kind == "tcp" && value == "fin",
                Reaction::Tcp(End::Reset) => kind == "tcp" && value == "rst",
                Reaction::LogOnly(seen) => kind == "close" && value == format!("{seen}(log only)"),
                Reaction::Alert(alert) => kind == "alert" && value == name_of(*alert),
                Reaction::AppError => one == "app-error",
                Reaction::Ok => one == "ok" || one == "ok(1-RTT)",
            }
        })
    }
}

/// What the log must say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing.
    Silence,
    /// A line with this status or close code.
    Number(u16),
}

/// One variant of a row, played.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    pub(crate) variant: String,
    pub(crate) reaction: Reaction,
    pub(crate) peer: SocketAddr,
    pub(crate) due: Due,
}

impl Observed {
    /// A reaction whose log line follows from it: a refusal by its status, a violation by its code.
    pub(crate) fn new(variant: impl Into<String>, peer: SocketAddr, reaction: Reaction) -> Observed {
        let due = match reaction {
            Reaction::Http { status, .. } if status >= 400 => Due::Number(status),
            Reaction::Close(code) | Reaction::LogOnly(code) => Due::Number(code),
            _ => Due::Silence,
        };
        Observed { variant: variant.into(), reaction, peer, due }
    }

    /// With another line due.
    pub(crate) fn with_due(self, due: Due) -> Observed {
        Observed { due, ..self }
    }

    /// What is wrong with it by the table, and by the log behind the lines that there were before.
    pub(crate) fn fault(&self, row: &Row, gateway: &Gateway, lines_before: usize) -> Option<String> {
        if !self.reaction.is_accepted_by(&row.code) {
            return Some(format!("{}: {:?} where {} is due", self.variant, self.reaction, row.code));
        }
        if let Due::Number(number) = self.due {
            let (peer, number) = (self.peer.to_string(), number.to_string());
            let what = format!("{peer}, {number} and a reason ({})", self.variant);
            gateway.wait_for_log_behind(lines_before, &what, |line| {
                names(line, &peer) && names(line, &number) && line.contains("reason")
            });
        }
        None
    }
}

/// Whether a line holds a word that no digit continues.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        !digit(line[..at].chars().next_back()) && !digit(line[at + word.len()..].chars().next())
    })
}

/// Reads a response, and what follows it where it is a refusal. `Err`: how the connection ended instead.
pub(crate) fn read_response(client: &mut Client) -> Result<(Response, Reaction), End> {
    let response = match client.response() {
        Ok(response) => response,
        Err(Some(end)) => return Err(end),
        Err(None) => panic!("neither a response nor an end within {PATIENCE:?}"),
    };
    let extension = response.field("sec-websocket-extensions").is_some();
    let mut closed = false;
    if response.status >= 300 {
        let says_so =
            response.field("connection").is_some_and(|value| value.to_ascii_lowercase().contains("close"));
        if says_so {
            let next = client.next();
            assert_eq!(next, Received::End(End::Fin), "behind {}", response.head);
            assert!(client.is_drained(), "more than one answer: {}", response.head);
            assert!(client.is_end_told(), "no close_notify behind {}", response.head);
            closed = true;
        }
    }
    let reaction = Reaction::Http { status: response.status, closed, extension };
    Ok((response, reaction))
}

/// Sends a head and reads the reaction.
pub(crate) fn react(target: impl Into<Target>, variant: impl Into<String>, head: &[u8]) -> Observed {
    respond(target, variant, head).1
}

/// Sends a head and reads the response and the reaction.
pub(crate) fn respond(
    target: impl Into<Target>,
    variant: impl Into<String>,
    head: &[u8],
) -> (Option<Response>, Observed) {
    respond_to(Client::connect(target), variant, head)
}

/// The same on a connection that is there.
pub(crate) fn respond_to(
    mut client: Client,
    variant: impl Into<String>,
    head: &[u8],
) -> (Option<Response>, Observed) {
    let peer = client.local();
    // A refusal may come, and end the connection, before all is sent.
    let _ = client.try_send(head);
    match read_response(&mut client) {
        Ok((response, reaction)) => (Some(response), Observed::new(variant, peer, reaction)),
        Err(end) => (None, Observed::new(variant, peer, Reaction::Tcp(end))),
    }
}

/// Reads to the Close and the FIN behind it; gives the frames before the Close, too.
pub(crate) fn read_close(client: &mut Client) -> (Vec<Frame>, Reaction) {
    let mut frames = Vec::new();
    loop {
        match client.next() {
            Received::Frame(frame) if frame.opcode == CLOSE => {
                assert!(frame.payload.len() != 1 && frame.payload.len() <= 125, "{frame:?}");
                assert!(std::str::from_utf8(frame.close_reason()).is_ok(), "{frame:?}");
                return (frames, Reaction::Close(frame.close_code()));
            }
            Received::Frame(frame) => frames.push(frame),
            Received::End(end) => return (frames, Reaction::Tcp(end)),
            Received::Nothing => {
                panic!("neither a Close nor an end within {PATIENCE:?}; frames: {}", frames.len())
            }
        }
    }
}

/// Sends frames, and expects the failure of the connection: nothing delivered, a Close, a FIN that no reset overtakes.
pub(crate) fn fails(mut client: Client, variant: impl Into<String>, bytes: &[u8]) -> Observed {
    let variant = variant.into();
    let peer = client.local();
    client.send(bytes);
    let (frames, reaction) = read_close(&mut client);
    assert!(frames.is_empty(), "{variant}: delivered {frames:?}");
    let end = client.end_within(Duration::from_secs(5));
    assert_eq!(end, Some(End::Fin), "{variant}: after the Close");
    assert!(client.is_end_told(), "{variant}: no close_notify behind the Close");
    Observed::new(variant, peer, reaction)
}

#[test]
fn the_code_column_is_read_as_it_is_written() {
    let http = |status, closed| Reaction::Http { status, closed, extension: false };
    assert!(http(400, true).is_accepted_by("http=400|505,close"));
    assert!(http(505, true).is_accepted_by("http=400|505,close"));
    assert!(!http(505, false).is_accepted_by("http=400|505,close"));
    assert!(!http(404, true).is_accepted_by("http=400|505,close"));
    assert!(http(408, true).is_accepted_by("http=408|tcp=fin"));
    assert!(Reaction::Tcp(End::Fin).is_accepted_by("http=408|tcp=fin"));
    assert!(!Reaction::Tcp(End::Reset).is_accepted_by("http=408|tcp=fin"));
    assert!(Reaction::Tcp(End::Reset).is_accepted_by("close=1008|tcp=rst"));
    assert!(http(426, true).is_accepted_by("http=4xx,close"));
    assert!(http(426, true).is_accepted_by("close=1002 or http=4xx,close"));
    assert!(Reaction::Close(1002).is_accepted_by("close=1002 or http=4xx,close"));
    assert!(!Reaction::Close(1007).is_accepted_by("close=1002"));
    assert!(Reaction::CloseEchoed.is_accepted_by("close=same"));
    assert!(Reaction::LogOnly(1006).is_accepted_by("close=1006(log only)"));
    assert!(!Reaction::Close(1006).is_accepted_by("close=1006(log only)"));
    assert!(http(101, false).is_accepted_by("http=101(no ext)"));
    let extended = Reaction::Http { status: 101, closed: false, extension: true };
    assert!(!extended.is_accepted_by("http=101(no ext)"));
    assert!(extended.is_accepted_by("http=101"));
    assert!(Reaction::Ok.is_accepted_by("ok") && Reaction::Ok.is_accepted_by("app-error|ok"));
    assert!(Reaction::Ok.is_accepted_by("ok(1-RTT) or http=425"));
    let alert = Reaction::Alert(AlertDescription::BadCertificate);
    assert!(alert.is_accepted_by("alert=bad_certificate") && !alert.is_accepted_by("alert=unknown_ca"));
    assert!(Reaction::AppError.is_accepted_by("app-error") && !Reaction::AppError.is_accepted_by("ok"));
}

#[test]
fn a_number_in_the_log_is_a_whole_number() {
    assert!(names(r#"{"peer":"127.0.0.1:1002","code":1007}"#, "127.0.0.1:1002"));
    assert!(!names(r#"{"peer":"127.0.0.1:10021"}"#, "127.0.0.1:1002"));
    assert!(!names("port 31002", "1002"));
}
