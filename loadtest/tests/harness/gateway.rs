//! The gateway itself, as `TIDEGATE_BIN` names it.

use std::{
    ffi::OsStr,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A gateway that goes with its test.
pub(crate) struct Gateway(Child);

impl Gateway {
    /// Starts it with these arguments, and waits until it listens on the port.
    pub(crate) fn start(port: u16, arguments: &[&OsStr]) -> Gateway {
        let binary = std::env::var("TIDEGATE_BIN").expect("TIDEGATE_BIN names the gateway");
        let mut command = Command::new(binary);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        let mut gateway = Gateway(command.spawn().unwrap());
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(gateway.0.try_wait().unwrap().is_none(), "the gateway does not start");
            assert!(began.elapsed() < Duration::from_secs(20), "the gateway does not listen");
            thread::sleep(Duration::from_millis(10));
        }
        gateway
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
