//! What needs a process or a thread of its own: descriptor limits, and a kernel that refuses rings.

mod rig;

use std::{
    env, io,
    process::Command,
    ptr, thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use tidegate_io::{Choice, Event, Failure, Kind, ListenerId, Rung, choose, diagnose};

use self::rig::{Out, PATIENCE, Rig, Subject};

on_both!(accepting_without_descriptors_ends_and_can_be_resumed);

/// Set in a process that a test has started for itself.
const CHILD: &str = "TIDEGATE_IO_TEST_CHILD";

fn accepting_without_descriptors_ends_and_can_be_resumed<B: Subject>() {
    if env::var_os(CHILD).is_none() {
        let backend = if B::IS_URING { "uring" } else { "epoll" };
        let test = format!("{backend}::accepting_without_descriptors_ends_and_can_be_resumed");
        let mut child = Command::new(env::current_exe().unwrap());
        let output = child.args([&test, "--exact", "--nocapture"]).env(CHILD, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the test was found");
        return;
    }
    const ROOM: u64 = 5;
    const CLIENTS: usize = 12;
    let mut rig = Rig::<B>::new();
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        rig.backend.listen(ListenerId(0), listener.into()).unwrap();
        address
    };
    let new_client = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let clients: Vec<Socket> = (0..CLIENTS).map(|_| new_client()).collect();
    // The limit is on numbers, and the lowest free one is given next.
    let free = std::os::fd::AsRawFd::as_raw_fd(&new_client()) as u64;
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(free + ROOM), ..before }).unwrap();
    rig.backend.accept(ListenerId(0));
    for client in &clients {
        client.connect(&address.into()).unwrap();
    }
    let mut accepted = Vec::new();
    let mut rounds = 0;
    while accepted.len() < CLIENTS {
        rounds += 1;
        let errno = loop {
            rig.turn(&Out::default());
            let mut ended = None;
            for event in rig.events.drain(..) {
                match event {
                    Event::Accepted { socket, .. } => accepted.push(socket),
                    Event::AcceptEnded { listener: ListenerId(0), errno } => ended = Some(errno),
                    other => panic!("unexpected {other:?}"),
                }
            }
            if accepted.len() == CLIENTS {
                return;
            }
            if let Some(errno) = ended {
                break errno;
            }
        };
        assert_eq!(errno, libc::EMFILE);
        assert_eq!(accepted.len() as u64, ROOM * rounds, "as many as there was room for");
        // It waits for us, and does not spin.
        let seen = rig.backend.counters().events;
        for _ in 0..5 {
            rig.poll(&Out::default());
        }
        assert_eq!(rig.backend.counters().events, seen);
        let room = Rlimit { current: Some(free + ROOM * (rounds + 1)), ..before };
        setrlimit(Resource::Nofile, room).unwrap();
        rig.backend.accept(ListenerId(0));
    }
}

/// Runs `body` on a thread on which `io_uring_setup` fails with `EPERM`, as the default profiles of containers
/// have it.
fn without_rings<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(|| {
        refuse(libc::SYS_io_uring_setup, libc::EPERM);
        body()
    });
    thread.join().unwrap()
}

/// Makes a system call fail on this thread, for good.
fn refuse(call: libc::c_long, errno: i32) {
    const fn statement(code: u32, jump: u8, otherwise: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt: jump, jf: otherwise, k }
    }
    let mut filter = [
        // The number of the call is the first word of what the filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: it takes numbers only.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    let program = ptr::from_ref(&program);
    // SAFETY: the program and its statements outlive the call, which copies them.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, program) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

#[test]
fn a_refused_ring_means_epoll_and_says_so() {
    let chosen = without_rings(|| choose(Choice::Auto)).unwrap();
    assert_eq!(chosen.kind, Kind::Epoll);
    assert!(chosen.reason.contains("seccomp"), "{}", chosen.reason);
}

#[test]
fn a_refused_ring_that_was_asked_for_is_an_error() {
    let refused = without_rings(|| choose(Choice::Uring)).unwrap_err();
    let Failure::Setup(error) = &refused.failure else { panic!("{refused:?}") };
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    assert!(refused.to_string().contains("seccomp"), "{refused}");
}

#[test]
fn epoll_needs_no_ring() {
    let chosen = without_rings(|| choose(Choice::Epoll)).unwrap();
    assert_eq!(chosen.kind, Kind::Epoll);
}

#[test]
fn the_diagnosis_names_the_rung() {
    let diagnosis = without_rings(diagnose);
    assert_eq!(diagnosis.kind, Kind::Epoll);
    assert_eq!(diagnosis.held, []);
    assert_eq!(diagnosis.failure.as_ref().unwrap().rung(), Rung::Setup);
    assert_eq!(diagnosis.surroundings.seccomp, Some(2));
    let text = diagnosis.to_string();
    assert!(text.contains("ring set-up       failed"), "{text}");
    assert!(text.contains("self-test         not reached"), "{text}");
}

#[test]
fn here_the_ladder_holds_and_is_climbed_quickly() {
    let started = Instant::now();
    let diagnosis = diagnose();
    assert!(started.elapsed() < PATIENCE + Duration::from_secs(1));
    assert!(diagnosis.failure.is_none(), "{diagnosis}");
    assert_eq!(diagnosis.held, Rung::ALL);
    assert_eq!(choose(Choice::Auto).unwrap().kind, Kind::Uring);
    assert_eq!(choose(Choice::Uring).unwrap().kind, Kind::Uring);
}
