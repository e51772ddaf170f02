//! What the echoes of this package share: `fastwebsockets-echo`, `tokio-tungstenite-echo` and `tokio-uring-echo PORT`.
//!
//! Each is what its library offers at its best for an echo on one thread: no compression, no limits of their own,
//! TCP without delay. They print where they listen; port 0 is one of the system's choice.
#![forbid(unsafe_code)]

#[path = "../../../crates/io/examples/bare/listener.rs"]
pub mod listener;
#[path = "../../../crates/io/examples/bare/session.rs"]
pub mod session;

use std::io;

use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
};

/// Listens on the port of the arguments, and serves each connection on one thread until the program is ended. `usage`: what
/// the arguments are, for who gives others.
///
/// # Errors
/// Where the port cannot be listened on, or nothing more can be accepted.
pub fn serve_all<F>(usage: &str, serve: impl Fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let [port] = listener::ports(usage)?;
    let listener = listener::listen(port)?;
    listener.set_nonblocking(true)?;
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve(stream));
        }
    })
}
