//! A gateway without descriptors pauses accepting. Alone in its process, as what a gateway inherits has the numbers that it has here.

mod harness;

use std::time::{Duration, Instant};

use crate::harness::{
    BACKENDS, PATIENCE,
    client::{Client, request},
    eventually,
    frame::TEXT,
    scene::Scene,
};

const ECHO: &str = "[[route]]\npath = '/echo'\necho = {}\n";

#[test]
fn without_descriptors_accepting_pauses_and_goes_on_within_a_second() {
    /// As many as are reserved for so many sessions; most of them are taken by somebody else.
    const MOST: u64 = 300;
    const TAKEN: usize = 244;
    const SESSIONS: usize = 60;
    const LOOK: Duration = Duration::from_secs(2);
    for io in BACKENDS {
        let limits =
            format!("[limits]\nmax_sessions = {SESSIONS}\nping_interval = '0s'\nhead_timeout = '300s'");
        let scene = Scene::scarce(io, MOST, TAKEN, &limits, ECHO);
        let address = scene.gateway.address();
        let mut session = Client::open(address, "/echo");
        let turns = || scene.metrics().value("tidegate_turns_total{shard=\"0\"}");
        let turned = turns();
        let mut waiting: Vec<Client> = Vec::new();
        for _ in 1..SESSIONS {
            let mut client = Client::connect(address);
            client.send(&request("/echo", ""));
            waiting.push(client);
        }
        let told = |line: &str| line.contains("Too many open files");
        scene.gateway.wait_for_log("that there is no descriptor", told);
        // All that could be accepted are served.
        let mut served = Vec::new();
        let take = |waiting: &mut Vec<Client>, served: &mut Vec<Client>| {
            let before = served.len();
            served.extend(waiting.extract_if(.., |client| client.has_data()));
            for client in &mut served[before..] {
                assert_eq!(client.response().expect("an answer").status, 101);
            }
            served.len() - before
        };
        eventually("no more answers", || {
            (take(&mut waiting, &mut served) == 0 && served.len() > 3).then_some(())
        });
        assert!(waiting.len() > 5, "{io}: there was room for all but {}", waiting.len());
        let (ticks, begun) = (scene.gateway.processor_ticks(), Instant::now());
        while begun.elapsed() < LOOK {
            session.exchange(TEXT, b"still here");
            std::thread::sleep(Duration::from_millis(50));
        }
        let used = Duration::from_millis(10) * (scene.gateway.processor_ticks() - ticks) as u32;
        assert!(used < begun.elapsed() / 4, "{io}: {used:?} of processor time while nothing can be accepted");
        // Each that leaves makes room for another. A machine that does other things may hold some of them up.
        take(&mut waiting, &mut served);
        let mut fastest = PATIENCE;
        for _ in 0..5 {
            drop(served.pop());
            let begun = Instant::now();
            eventually("an answer in the place of another", || {
                (take(&mut waiting, &mut served) > 0).then_some(())
            });
            fastest = fastest.min(begun.elapsed());
        }
        assert!(fastest < Duration::from_secs(1), "{io}: {fastest:?}");
        drop(served);
        drop(waiting);
        let turned = eventually("a descriptor for who asks", || {
            scene.asker().ask("GET", "/livez", None).ok().filter(|answer| answer.status == 200)?;
            Some(turns() - turned)
        });
        // Ten times in a second, and what was said meanwhile; without a pause it would be tens of thousands.
        assert!(turned < 5_000.0, "{io}: {turned} turns");
        let times = scene.gateway.log().iter().filter(|line| told(line)).count();
        assert!(times < 1_000, "{io}: it is told {times} times");
        session.exchange(TEXT, b"still here");
        scene.gateway.stop();
    }
}
