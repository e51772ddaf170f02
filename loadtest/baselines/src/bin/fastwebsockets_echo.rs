//! `fastwebsockets-echo PORT`: on fastwebsockets and tokio, one thread.
//!
//! The upgrade is answered without hyper, so that its stream is the socket itself.
#![forbid(unsafe_code)]

use std::io;

use fastwebsockets::{FragmentCollector, OpCode, Role, WebSocket, WebSocketError};
use tidegate_baselines::{serve_all, session::Session};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> io::Result<()> {
    // As its own example has it: tokio's budget does not cut in.
    serve_all("fastwebsockets-echo PORT", |stream| {
        task::unconstrained(async {
            // A client that leaves ends its session, and no more.
            let _ = serve(stream).await;
        })
    })
}

async fn serve(mut stream: TcpStream) -> Result<(), WebSocketError> {
    let mut session = Session::default();
    let mut head = [0; 4096];
    while session.output.is_empty() {
        match stream.read(&mut head).await? {
            0 => return Ok(()),
            len => session.receive(&mut head[..len]),
        }
    }
    stream.write_all(&session.output).await?;
    let mut socket = WebSocket::after_handshake(stream, Role::Server);
    // It answers Close and pings by itself.
    socket.set_auto_close(true);
    socket.set_auto_pong(true);
    let mut socket = FragmentCollector::new(socket);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            OpCode::Continuation | OpCode::Ping | OpCode::Pong => {}
        }
    }
}
