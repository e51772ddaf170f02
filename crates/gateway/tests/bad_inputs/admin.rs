//! Rows A: the admin listener, and what looks like it elsewhere.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    Company, Row,
    harness::client::{Client, Received},
    reaction::{Due, Observed, Reaction, react},
    world::{Req, World},
};

pub(crate) const ROWS: &[Row] = &[
    ("A02", Company::Any, a02_paths_of_the_admin_listener),
    ("A03", Company::Any, a03_too_many_and_too_slow),
];

/// As the admin listener has it, with what a loaded machine adds.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5 + 10);

fn a02_paths_of_the_admin_listener(world: &World) -> Vec<Observed> {
    let paths =
        ["/metrics", "/admin", "//admin", "/ADMIN", "/sessions", "/sessions/kill", "/livez", "/openapi.json"];
    let plain = paths.map(|path| Req::new().line(&format!("GET {path} HTTP/1.1")).without("Upgrade").bytes());
    let upgrades = paths.map(|path| Req::at(path).bytes());
    let heads = paths.iter().chain(&paths).zip(plain.into_iter().chain(upgrades));
    heads.map(|(path, head)| react(world.address(), *path, &head)).collect()
}

fn a03_too_many_and_too_slow(world: &World) -> Vec<Observed> {
    const AT_A_TIME: usize = 32;
    let admin = world.admin();
    let ended = |variant: &str, client: &mut Client, patience: Duration| {
        let end = match client.next_within(patience) {
            Received::End(end) => end,
            other => panic!("{variant}: {other:?}"),
        };
        Observed {
            variant: variant.to_owned(),
            reaction: Reaction::Tcp(end),
            peer: client.local(),
            due: Due::Silence,
        }
    };
    // Ten thousand in all. Each of the first says a byte, and then nothing.
    let mut slow: Vec<Client> = (0..AT_A_TIME).map(|_| slow_client(admin)).collect();
    let mut many: Vec<Client> = (0..100).map(|_| Client::connect(admin)).collect();
    // All are looked at; one of them stands for all in what is compared with the log.
    let each: Vec<Observed> =
        many.iter_mut().map(|client| ended("one too many", client, HEAD_TIMEOUT)).collect();
    let mut seen: Vec<Observed> = each.into_iter().next().into_iter().collect();
    // Some of the others find the room that the slow ones leave; none of them stays to be answered.
    for batch in 1..100 {
        many = (0..100).map(|_| Client::connect(admin)).collect();
        if batch % 10 == 0 {
            world.assert_others_unharmed();
        }
    }
    drop(many);
    let began = Instant::now();
    seen.extend(slow.iter_mut().map(|client| ended("slow", client, HEAD_TIMEOUT)));
    assert!(began.elapsed() < HEAD_TIMEOUT, "{:?}", began.elapsed());
    // There is room again, once the listener has seen all of them go.
    let answered = || {
        let mut client = Client::connect(admin);
        client.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.response().is_ok_and(|response| response.status == 200)
    };
    while !answered() {
        assert!(began.elapsed() < 2 * HEAD_TIMEOUT, "nobody is answered any more");
        std::thread::sleep(Duration::from_millis(50));
    }
    seen
}

fn slow_client(admin: SocketAddr) -> Client {
    let mut client = Client::connect(admin);
    client.send(b"G");
    client
}
