//! `tokio-tungstenite-echo PORT`: on tokio-tungstenite, one thread.
#![forbid(unsafe_code)]

use std::io;

use futures_util::{SinkExt, StreamExt};
use tidegate_baselines::{
    listener::{listen, ports},
    one_thread,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{accept_async, tungstenite};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> io::Result<()> {
    let [port] = ports("tokio-tungstenite-echo PORT")?;
    let listener = listen(port)?;
    listener.set_nonblocking(true)?;
    one_thread()?.block_on(async move {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async {
                // A client that leaves ends its session, and no more.
                let _ = serve(stream).await;
            });
        }
    })
}

async fn serve(stream: TcpStream) -> Result<(), tungstenite::Error> {
    let mut socket = accept_async(stream).await?;
    while let Some(message) = socket.next().await {
        let message = message?;
        // It answers Close and pings by itself.
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}
