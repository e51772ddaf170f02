//! The same streams through another implementation, in both roles.

mod frames_support;

use std::io::{self, Read, Write};

use frames_support::{End, Item, ROLES, Seen, Setup, assemble, control, items, peer, sizes};
use proptest::prelude::*;
use tidegate_wire::Role;
use tidegate_wire::frame::ControlFrame;
use tidegate_wire::message::{Kind, Violation};
use tungstenite::protocol::{WebSocket, WebSocketConfig};
use tungstenite::{Error, Message};

/// A connection in memory: what is to be read, what was written.
#[derive(Default)]
struct Pipe {
    input: Vec<u8>,
    read: usize,
    output: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.input[self.read..];
        if rest.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.read += len;
        Ok(len)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn socket(role: Role, input: Vec<u8>) -> WebSocket<Pipe> {
    let role = match role {
        Role::Server => tungstenite::protocol::Role::Server,
        Role::Client => tungstenite::protocol::Role::Client,
    };
    let limit = Some(frames_support::LIMITS.message_bytes);
    let config = WebSocketConfig::default().max_message_size(limit).max_frame_size(limit);
    WebSocket::from_raw_socket(Pipe { input, ..Pipe::default() }, role, Some(config))
}

/// How the other implementation's reading ended.
#[derive(Debug)]
enum Ended {
    Starved,
    Closed,
    #[expect(dead_code, reason = "shown where a property fails")]
    Refused(Error),
}

fn read_all(socket: &mut WebSocket<Pipe>) -> (Vec<Seen>, Ended) {
    let mut seen = Vec::new();
    loop {
        seen.push(match socket.read() {
            Ok(Message::Text(text)) => Seen::text(&text),
            Ok(Message::Binary(bytes)) => Seen::binary(&bytes),
            Ok(Message::Ping(payload)) => Seen::Ping(payload.to_vec()),
            Ok(Message::Pong(payload)) => Seen::Pong(payload.to_vec()),
            Ok(Message::Close(None)) => Seen::Close(None, String::new()),
            Ok(Message::Close(Some(close))) => Seen::Close(Some(close.code.into()), close.reason.to_string()),
            Ok(Message::Frame(frame)) => panic!("reading gives no frames: {frame:?}"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return (seen, Ended::Starved);
            }
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => return (seen, Ended::Closed),
            Err(error) => return (seen, Ended::Refused(error)),
        });
        if matches!(seen.last(), Some(Seen::Close(..))) {
            return (seen, Ended::Closed);
        }
    }
}

/// The message that tungstenite is to send.
fn outgoing(item: &Item) -> Option<Message> {
    match item {
        Item::Message { kind: Kind::Text, bytes, .. } => {
            Some(Message::text(String::from_utf8(bytes.clone()).unwrap()))
        }
        Item::Message { kind: Kind::Binary, bytes, .. } => Some(Message::binary(bytes.clone())),
        Item::Control(Seen::Ping(payload)) => Some(Message::Ping(payload.clone().into())),
        Item::Control(_) => None,
    }
}

proptest! {
    #[test]
    fn both_read_the_same_from_valid_streams(server: bool, items in items(), sizes in sizes(), keys: u32) {
        let role = if server { Role::Server } else { Role::Client };
        let (stream, events) = assemble(&Setup::new(role), &items, keys);
        let (theirs, ended) = read_all(&mut socket(role, stream.clone()));
        prop_assert!(!matches!(ended, Ended::Refused(_)), "{:?}", ended);
        let (ours, violation) = Setup::new(role).decode(&stream, &sizes);
        prop_assert_eq!(violation, None);
        prop_assert_eq!(&ours, &theirs);
        prop_assert_eq!(&ours, &events);
    }

    #[test]
    fn what_they_refuse_is_refused(
        server: bool, items in items(), sizes in sizes(), keys: u32,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let (mut stream, _) = assemble(&Setup::new(role), &items, keys);
        for (at, byte) in edits {
            if !stream.is_empty() {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
        }
        let (theirs, ended) = read_all(&mut socket(role, stream.clone()));
        let (ours, violation) = Setup::new(role).decode(&stream, &sizes);
        let lenient = matches!(
            violation,
            // They let lengths be long-winded and replace forbidden close codes.
            Some(Violation::LengthNotMinimal | Violation::LengthOverflow | Violation::CloseCodeForbidden)
        );
        match (violation, ended) {
            (None, Ended::Starved | Ended::Closed) => prop_assert_eq!(ours, theirs),
            (Some(_), Ended::Refused(_)) if !lenient => prop_assert_eq!(ours, theirs),
            // They wait for whole frames.
            (Some(_), Ended::Starved) => prop_assert!(theirs.starts_with(&ours)),
            (Some(_), _) if lenient => prop_assert!(theirs.starts_with(&ours)),
            (violation, ended) => prop_assert!(false, "we say {violation:?}, they say {ended:?}"),
        }
    }

    #[test]
    fn what_they_send_is_read(server: bool, items in items(), sizes in sizes()) {
        let role = if server { Role::Server } else { Role::Client };
        let mut sender = socket(peer(role), Vec::new());
        let mut sent = Vec::new();
        for message in items.iter().filter_map(outgoing) {
            sent.push(match &message {
                Message::Text(text) => Seen::text(text),
                Message::Binary(bytes) => Seen::binary(bytes),
                Message::Ping(payload) => Seen::Ping(payload.to_vec()),
                other => panic!("{other:?}"),
            });
            sender.send(message).unwrap();
        }
        sender.close(None).unwrap();
        sent.push(Seen::Close(None, String::new()));
        let (ours, violation) = Setup::new(role).decode(&sender.get_ref().output, &sizes);
        prop_assert_eq!((ours, violation), (sent, None));
    }

    #[test]
    fn the_echo_of_a_buffer_is_read_by_their_client(items in items(), sizes in sizes(), compact: bool) {
        let mut client = socket(Role::Client, Vec::new());
        let mut sent = Vec::new();
        for message in items.iter().filter_map(outgoing) {
            match &message {
                Message::Text(text) => sent.push(Seen::text(text)),
                Message::Binary(bytes) => sent.push(Seen::binary(bytes)),
                _ => {}
            }
            client.send(message).unwrap();
        }
        let mut end = End::new(Setup { compact, ..Setup::new(Role::Server) });
        let stream = std::mem::take(&mut client.get_mut().output);
        prop_assert_eq!(end.feed_all(&stream, &sizes), None);
        client.get_mut().input = end.answers;
        let (echoed, ended) = read_all(&mut client);
        prop_assert!(matches!(ended, Ended::Starved));
        prop_assert_eq!(echoed, sent);
    }
}

#[test]
fn our_control_frames_are_read_by_both_their_roles() {
    for role in ROLES {
        let mask = (role == Role::Server).then_some([0x11, 0x22, 0x33, 0x44]);
        let code = tidegate_wire::close::CloseCode::new(4001);
        let stream = [
            ControlFrame::ping(b"are you there", mask).as_ref(),
            ControlFrame::pong(&[0xff; 125], mask).as_ref(),
            ControlFrame::close(code, "für heute genug", mask).as_ref(),
        ]
        .concat();
        let expected = [
            Seen::Ping(b"are you there".into()),
            Seen::Pong(vec![0xff; 125]),
            Seen::Close(Some(4001), "für heute genug".into()),
        ];
        let (theirs, _) = read_all(&mut socket(role, stream.clone()));
        assert_eq!(theirs, expected);
        assert_eq!(Setup::new(role).decode(&stream, &[1]), (expected.to_vec(), None));
        let naive: Vec<u8> =
            expected.iter().flat_map(|seen| control(role, seen, mask.unwrap_or_default())).collect();
        assert_eq!(stream, naive);
    }
}
