//! A shard on a thread of its own, on a real backend.

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    sync::{Arc, mpsc::channel},
    thread::JoinHandle,
};

use tidegate_io::{Backend, ListenerId};
use tidegate_shard::{Environment, Mail, Plan, Sender, Shard, log::Entry, mailbox};

struct Quiet;

impl Environment for Quiet {
    fn random(&mut self, out: &mut [u8]) {
        out.fill(7);
    }

    fn unix_seconds(&self) -> u64 {
        784_111_777
    }

    fn log(&mut self, _: Entry) {}
}

pub(crate) struct Running<B: Backend> {
    pub(crate) address: SocketAddr,
    sender: Sender<B::Waker>,
    thread: JoinHandle<()>,
}

impl<B: Backend<Listener = OwnedFd> + 'static> Running<B> {
    /// It listens on a port of its own when this returns, and has room for 100 sessions.
    pub(crate) fn start(make: impl FnOnce() -> B + Send + 'static, plan: Arc<Plan>) -> Running<B> {
        Running::with_room(make, plan, 100)
    }

    /// The same with room for so many.
    pub(crate) fn with_room(
        make: impl FnOnce() -> B + Send + 'static,
        plan: Arc<Plan>,
        sessions: usize,
    ) -> Running<B> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let address = listener.local_addr().expect("it is bound");
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let backend = make();
            let (sender, inbox) = mailbox(backend.waker());
            let mut shard = Shard::new(0, backend, Quiet, plan, inbox, sessions);
            shard.listen(ListenerId(0), listener.into()).expect("a listener can be registered");
            tell.send(sender).expect("the test waits for it");
            shard.run().expect("the backend works");
        });
        Running { address, sender: told.recv().expect("the shard has started"), thread }
    }

    pub(crate) fn stop(self) {
        self.sender.send(Mail::Stop).expect("the mailbox has room");
        self.thread.join().expect("the shard ends cleanly");
    }
}
