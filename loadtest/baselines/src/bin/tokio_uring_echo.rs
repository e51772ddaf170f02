//! `tokio-uring-echo PORT`: a bare echo on tokio-uring, a read and a write each.
#![forbid(unsafe_code)]

use std::{io, mem, net::Shutdown};

use tidegate_baselines::{
    listener::{listen, ports},
    session::Session,
};
use tokio_uring::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BUFFER_LEN: usize = 16_384;
/// Outputs that were larger are not kept.
const MOST_KEPT: usize = 65_536;
const ENTRIES: u32 = 4096;
const COMPLETIONS: u32 = 16_384;

fn main() -> io::Result<()> {
    let [port] = ports("tokio-uring-echo PORT")?;
    let listener = listen(port)?;
    let mut ring = tokio_uring::uring_builder();
    ring.setup_cqsize(COMPLETIONS);
    tokio_uring::builder().entries(ENTRIES).uring_builder(&ring).start(async move {
        let listener = TcpListener::from_std(listener);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio_uring::spawn(async {
                // A client that leaves ends its session, and no more.
                let _ = serve(stream).await;
            });
        }
    })
}

async fn serve(stream: TcpStream) -> io::Result<()> {
    let mut session = Session::default();
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        let (result, filled) = stream.read(buffer).await;
        buffer = filled;
        let len = result?;
        if len == 0 {
            return Ok(());
        }
        session.receive(&mut buffer[..len]);
        if session.output.is_empty() {
            continue;
        }
        let (result, mut output) = stream.write_all(mem::take(&mut session.output)).await;
        result?;
        if output.capacity() <= MOST_KEPT {
            output.clear();
            session.output = output;
        }
        if session.is_closing {
            stream.shutdown(Shutdown::Write)?;
        }
    }
}
