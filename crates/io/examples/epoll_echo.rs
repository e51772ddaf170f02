//! `epoll_echo PORT`: a bare WebSocket echo on epoll, as the floor that servers are measured against.
//!
//! One receive into a buffer that all share, one send for all that it brought.

mod bare;

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use bare::{
    listener::{listen, ports},
    session::Session,
};
use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, epoll, poll},
    io::Errno,
    net::{
        RecvFlags, SendFlags, Shutdown, SocketFlags, accept_with, recv, send, shutdown,
        sockopt::set_tcp_nodelay,
    },
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BUFFER_LEN: usize = 512 * 1024;
const EVENTS: usize = 1024;

fn main() -> io::Result<()> {
    let [port] = ports("epoll_echo PORT")?;
    let listener = listen(port)?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let listening = listener.as_raw_fd() as u64;
    epoll::add(&epoll, &listener, epoll::EventData::new_u64(listening), epoll::EventFlags::IN)?;
    let mut sessions: Vec<Option<(OwnedFd, Session)>> = Vec::new();
    let mut buffer = vec![0; BUFFER_LEN];
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let number = event.data.u64();
            if number == listening {
                while let Ok(socket) = accept_with(&listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                    // It may have gone already: its receive tells.
                    let _ = set_tcp_nodelay(&socket, true);
                    let place = socket.as_raw_fd() as usize;
                    if sessions.len() <= place {
                        sessions.resize_with(place + 1024, || None);
                    }
                    epoll::add(
                        &epoll,
                        &socket,
                        epoll::EventData::new_u64(place as u64),
                        epoll::EventFlags::IN,
                    )?;
                    sessions[place] = Some((socket, Session::default()));
                }
                continue;
            }
            let place = &mut sessions[number as usize];
            let Some((socket, session)) = place else { continue };
            match recv(&*socket, &mut buffer, RecvFlags::empty()) {
                Err(Errno::AGAIN | Errno::INTR) => continue,
                Err(_) | Ok((_, 0)) => {
                    *place = None;
                    continue;
                }
                Ok((_, len)) => session.receive(&mut buffer[..len]),
            }
            let is_sent = send_all(socket, &session.output);
            session.output.clear();
            if is_sent.is_err() {
                *place = None;
            } else if session.is_closing {
                // The server ends the connection, RFC 6455 §7.1.1. It may have gone already.
                let _ = shutdown(&*socket, Shutdown::Write);
            }
        }
    }
}

/// Sends all, and waits for room where there is none.
fn send_all(socket: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match send(socket, bytes, SendFlags::NOSIGNAL) {
            Ok(len) => bytes = &bytes[len..],
            Err(Errno::AGAIN) => {
                let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
                let room = poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&second))?;
                if room == 0 {
                    return Err(Errno::TIMEDOUT);
                }
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
