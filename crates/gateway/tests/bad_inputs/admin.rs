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
    let mut seen = Vec::new();
    for _ in 0..100 {
        let mut many: Vec<Client> = (0..100).map(|_| Client::connect(admin)).collect();
        // All are looked at; one of them stands for all in what is compared with the log.
        let each: Vec<Observed> =
            many.iter_mut().map(|client| ended("one too many", client, HEAD_TIMEOUT)).collect();
        seen.extend(each.into_iter().next());
        world.assert_others_unharmed();
    }
    let began = Instant::now();
    seen.extend(slow.iter_mut().map(|client| ended("slow", client, HEAD_TIMEOUT)));
    assert!(began.elapsed() < HEAD_TIMEOUT, "{:?}", began.elapsed());
    // There is room again.
    let mut client = Client::connect(admin);
    client.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.response().expect("an answer").status, 200);
    seen
}

fn slow_client(admin: SocketAddr) -> Client {
    let mut client = Client::connect(admin);
    client.send(b"G");
    client
}
