//! `ring_echo PORT`: a bare WebSocket echo on io_uring, as the floor that servers are measured against.
//!
//! One multishot receive each from shared buffers, one send for all that a receive brought, done while it is
//! submitted. A peer that does not read its answers is cut: there is no queue for them.

mod bare;

use std::{
    io::{self, Write},
    mem,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
};

use bare::{
    listener::{listen, ports},
    ring::{Completion, Operation, Ring},
    session::Session,
};
use rustix::net::{Shutdown, shutdown, sockopt::set_tcp_nodelay};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BUFFER_LEN: usize = 16_384;
/// Outputs that were larger are not kept.
const MOST_KEPT: usize = 65_536;

fn main() -> io::Result<()> {
    let [port] = ports("ring_echo PORT")?;
    let listener = listen(port)?;
    let mut ring = Ring::new(BUFFER_LEN)?;
    ring.accept(listener.as_raw_fd());
    let mut sessions: Vec<Option<Session>> = Vec::new();
    let mut completions: Vec<Completion> = Vec::new();
    // Outputs that are being sent, and empty ones.
    let (mut sent, mut pool): (Vec<Vec<u8>>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
    let mut closing: Vec<RawFd> = Vec::new();
    loop {
        ring.wait(&mut completions)?;
        for mut output in sent.drain(..) {
            output.clear();
            if output.capacity() <= MOST_KEPT {
                pool.push(output);
            }
        }
        // The server ends the connection, RFC 6455 §7.1.1, once its Close was sent.
        closing.drain(..).for_each(|fd| end(fd, Shutdown::Write));
        let mut has_buffers = false;
        for completion in completions.drain(..) {
            let Completion { fd, result, .. } = completion;
            match completion.operation {
                Some(Operation::Accept) => {
                    if result >= 0 {
                        let place = result as usize;
                        if sessions.len() <= place {
                            sessions.resize_with(place + 1024, || None);
                        }
                        sessions[place] = Some(Session::default());
                        // It may have gone already: its receive tells.
                        let _ = set_tcp_nodelay(borrow(result), true);
                        ring.receive(result);
                    }
                    if !completion.has_more {
                        ring.accept(fd);
                    }
                }
                Some(Operation::Receive) => {
                    if result <= 0 && result != -libc::ENOBUFS {
                        sessions[fd as usize] = None;
                        ring.close(fd);
                        continue;
                    }
                    if let (Some(buffer), Some(session)) = (completion.buffer, &mut sessions[fd as usize]) {
                        session.receive(ring.bytes(buffer, result as usize));
                        ring.give_back(buffer);
                        has_buffers = true;
                        if !session.output.is_empty() {
                            let output = mem::replace(&mut session.output, pool.pop().unwrap_or_default());
                            ring.send(fd, &output);
                            sent.push(output);
                            if session.is_closing {
                                closing.push(fd);
                            }
                        }
                    }
                    if !completion.has_more {
                        ring.receive(fd);
                    }
                }
                Some(Operation::Send) => {
                    writeln!(io::stderr(), "a send fell short ({result}): its session ends")?;
                    end(fd, Shutdown::Both);
                }
                Some(Operation::Close) | None => {}
            }
        }
        if has_buffers {
            ring.publish();
        }
    }
}

fn end(fd: RawFd, how: Shutdown) {
    // It may have gone already.
    let _ = shutdown(borrow(fd), how);
}

fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: it is closed by the ring alone, behind the last use of its number here.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
