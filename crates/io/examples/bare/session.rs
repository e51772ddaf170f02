//! The least of WebSocket that an echo needs: the upgrade, and whole frames that go back as they came.
//!
//! No limits, no UTF-8, no fragments, no control frames but as data: what a server may cost at the least, not how one
//! is written.

use tidegate_wire::handshake::accept_key;

/// One session's state.
#[derive(Debug, Default)]
pub struct Session {
    is_open: bool,
    /// Of a frame or head that has not come whole.
    rest: Vec<u8>,
    /// What is to be sent.
    pub output: Vec<u8>,
    /// A Close was echoed: nothing follows.
    pub is_closing: bool,
}

impl Session {
    /// Takes received bytes, and appends what they ask for to [`Session::output`].
    pub fn receive(&mut self, bytes: &mut [u8]) {
        if !self.is_open {
            self.rest.extend_from_slice(bytes);
            self.open();
        } else if self.rest.is_empty() {
            let taken = echo(bytes, &mut self.output, &mut self.is_closing);
            self.rest.extend_from_slice(&bytes[taken..]);
        } else {
            self.rest.extend_from_slice(bytes);
            let taken = echo(&mut self.rest, &mut self.output, &mut self.is_closing);
            self.rest.drain(..taken);
            if self.rest.is_empty() {
                // A session that waits has no memory of its own.
                self.rest = Vec::new();
            }
        }
    }

    /// Answers the upgrade, once its head is whole. What is no upgrade gets no answer.
    fn open(&mut self) {
        let Some(end) = self.rest.windows(4).position(|window| window == b"\r\n\r\n") else { return };
        let head = String::from_utf8_lossy(&self.rest[..end]);
        let key = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
        });
        let accept = accept_key(key.unwrap_or_default());
        let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
        self.output.extend_from_slice(head);
        self.output.extend_from_slice(&accept);
        self.output.extend_from_slice(b"\r\n\r\n");
        self.rest = Vec::new();
        self.is_open = true;
    }
}

/// Unmasks whole frames, and appends them without their masks; how many bytes they were.
fn echo(bytes: &mut [u8], output: &mut Vec<u8>, is_closing: &mut bool) -> usize {
    let mut taken = 0;
    loop {
        let frame = &mut bytes[taken..];
        if frame.len() < 2 {
            return taken;
        }
        let (mut header_len, len): (usize, usize) = match frame[1] & 0x7f {
            126 if frame.len() < 4 => return taken,
            126 => (4, usize::from(u16::from_be_bytes([frame[2], frame[3]]))),
            127 if frame.len() < 10 => return taken,
            127 => {
                let mut len = [0; 8];
                len.copy_from_slice(&frame[2..10]);
                (10, u64::from_be_bytes(len) as usize)
            }
            len => (2, usize::from(len)),
        };
        let is_masked = frame[1] & 0x80 != 0;
        if is_masked {
            header_len += 4;
        }
        if frame.len() < header_len.saturating_add(len) {
            return taken;
        }
        if is_masked {
            let key =
                [frame[header_len - 4], frame[header_len - 3], frame[header_len - 2], frame[header_len - 1]];
            unmask(&mut frame[header_len..header_len + len], key);
        }
        *is_closing |= frame[0] & 0x0f == 8;
        output.push(frame[0]);
        match len {
            0..126 => output.push(len as u8),
            126..=0xffff => {
                output.push(126);
                output.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                output.push(127);
                output.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        output.extend_from_slice(&frame[header_len..header_len + len]);
        taken += header_len + len;
    }
}

/// RFC 6455 §5.3, eight bytes at a time.
fn unmask(payload: &mut [u8], key: [u8; 4]) {
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    tail.iter_mut().zip(key.into_iter().cycle()).for_each(|(byte, key)| *byte ^= key);
}
