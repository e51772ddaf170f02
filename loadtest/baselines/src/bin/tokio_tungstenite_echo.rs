//! `tokio-tungstenite-echo PORT`: on tokio-tungstenite, one thread.
#![forbid(unsafe_code)]

use std::io;

use futures_util::{SinkExt, StreamExt};
use tidegate_baselines::serve_all;
use tokio::net::TcpStream;
use tokio_tungstenite::{accept_async, tungstenite};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> io::Result<()> {
    serve_all("tokio-tungstenite-echo PORT", |stream| async {
        // A client that leaves ends its session, and no more.
        let _ = serve(stream).await;
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
