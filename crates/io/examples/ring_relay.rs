//! `ring_relay PORT UPSTREAM_PORT`: relays bytes on io_uring, as the floor that proxies are measured against.
//!
//! It does not know WebSocket. What is received goes out of the very buffer that it came in. A peer that does not
//! read is cut: there is no queue.

mod bare;

use std::{
    io::{self, Write},
    net::{Ipv4Addr, TcpStream},
    os::fd::{AsRawFd, BorrowedFd, IntoRawFd, RawFd},
};

use bare::{
    listener::{listen, ports},
    ring::{Completion, Operation, Ring},
};
use rustix::net::{Shutdown, shutdown, sockopt::set_tcp_nodelay};

const BUFFER_LEN: usize = 32_768;

fn main() -> io::Result<()> {
    let [port, upstream_port] = ports("ring_relay PORT UPSTREAM_PORT")?;
    let listener = listen(port)?;
    let mut ring = Ring::new(BUFFER_LEN)?;
    ring.accept(listener.as_raw_fd());
    // The other end of each connection, by descriptor.
    let mut others: Vec<Option<RawFd>> = Vec::new();
    let mut completions: Vec<Completion> = Vec::new();
    let mut lent: Vec<u16> = Vec::new();
    let mut ended: Vec<RawFd> = Vec::new();
    loop {
        ring.wait(&mut completions)?;
        lent.drain(..).for_each(|buffer| ring.give_back(buffer));
        ring.publish();
        // Behind what was sent there before.
        ended.drain(..).for_each(end);
        for completion in completions.drain(..) {
            let Completion { fd, result, .. } = completion;
            match completion.operation {
                Some(Operation::Accept) => {
                    if result >= 0 {
                        match connect(result, upstream_port) {
                            Ok(upstream) => {
                                let places = result.max(upstream) as usize + 1;
                                if others.len() < places {
                                    others.resize(places + 1024, None);
                                }
                                others[result as usize] = Some(upstream);
                                others[upstream as usize] = Some(result);
                                ring.receive(result);
                                ring.receive(upstream);
                            }
                            Err(error) => {
                                writeln!(io::stderr(), "upstream: {error}")?;
                                ring.close(result);
                            }
                        }
                    }
                    if !completion.has_more {
                        ring.accept(fd);
                    }
                }
                Some(Operation::Receive) => {
                    let other = others[fd as usize];
                    if result <= 0 && result != -libc::ENOBUFS {
                        if let Some(other) = other {
                            ended.push(other);
                            others[other as usize] = None;
                        }
                        others[fd as usize] = None;
                        ring.close(fd);
                        continue;
                    }
                    if let Some(buffer) = completion.buffer {
                        lent.push(buffer);
                        if let Some(other) = other {
                            ring.send_buffer(other, buffer, result as usize);
                        }
                    }
                    if !completion.has_more {
                        ring.receive(fd);
                    }
                }
                Some(Operation::Send) => {
                    writeln!(io::stderr(), "a send fell short ({result}): its session ends")?;
                    end(fd);
                }
                Some(Operation::Close) | None => {}
            }
        }
    }
}

/// Connects a client to the upstream.
fn connect(client: RawFd, upstream_port: u16) -> io::Result<RawFd> {
    let upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream_port))?;
    upstream.set_nodelay(true)?;
    set_tcp_nodelay(borrow(client), true)?;
    Ok(upstream.into_raw_fd())
}

fn end(fd: RawFd) {
    // It may have gone already.
    let _ = shutdown(borrow(fd), Shutdown::Both);
}

fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: it is closed by the ring alone, behind the last use of its number here.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
