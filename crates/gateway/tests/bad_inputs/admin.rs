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
    /// As many as may be there without having asked.
    const AT_A_TIME: usize = 64;
    const MANY: usize = 100;
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
    let answered = || {
        let mut client = Client::connect(admin);
        client.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.response().is_ok_and(|response| response.status == 200)
    };
    // Ten thousand in all. Each of the first says a byte, and then nothing.
    let mut slow: Vec<Client> = (0..AT_A_TIME).map(|_| slow_client(admin)).collect();
    let mut many: Vec<Client> = (0..MANY).map(|_| Client::connect(admin)).collect();
    // Those that were there give way, the oldest first; one of them stands for all in what is compared with the log.
    let began = Instant::now();
    let oldest = slow.iter_mut().map(|client| ("slow", client));
    let next = many[..MANY - AT_A_TIME].iter_mut().map(|client| ("one too many", client));
    let each: Vec<Observed> =
        oldest.chain(next).map(|(variant, client)| ended(variant, client, HEAD_TIMEOUT)).collect();
    let mut seen: Vec<Observed> = each.into_iter().step_by(AT_A_TIME).collect();
    // Whoever asks at once is answered beside them.
    assert!(answered());
    for batch in 1..100 {
        many = (0..MANY).map(|_| Client::connect(admin)).collect();
        if batch % 10 == 0 {
            world.assert_others_unharmed();
            assert!(answered());
        }
    }
    // And those that need not give way have their time.
    drop(many);
    let mut alone = slow_client(admin);
    seen.push(ended("alone", &mut alone, HEAD_TIMEOUT));
    assert!(began.elapsed() < 2 * HEAD_TIMEOUT, "{:?}", began.elapsed());
    seen
}

fn slow_client(admin: SocketAddr) -> Client {
    let mut client = Client::connect(admin);
    client.send(b"G");
    client
}
