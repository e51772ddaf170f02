//! A fast client under the default configuration: bursts are held back, not cut off. On both backends.

mod harness;

use std::{io::Read, io::Write, thread};

use crate::harness::{
    BACKENDS, PATIENCE,
    client::Client,
    frame::{BINARY, FIN, masked, plain},
    gateway::Gateway,
    upstream::Upstream,
};

/// Sends `rounds` times `question` as fast as it goes and demands `answer` as often.
fn burst(client: &Client, question: &[u8], answer: &[u8], rounds: usize) {
    let mut writer = client.stream().try_clone().expect("a socket can be shared");
    let mut reader = client.stream().try_clone().expect("a socket can be shared");
    reader.set_read_timeout(Some(PATIENCE)).expect("a read time-out");
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..rounds {
                writer
                    .write_all(question)
                    .unwrap_or_else(|error| panic!("round {round} of {rounds}: {error}"));
            }
        });
        let mut got = vec![0; answer.len()];
        for round in 0..rounds {
            reader.read_exact(&mut got).unwrap_or_else(|error| panic!("answer {round} of {rounds}: {error}"));
            assert!(got == answer, "answer {round} of {rounds} is another");
        }
    });
}

/// 1 MiB of small messages, and their echoes.
fn small_messages() -> (Vec<u8>, Vec<u8>) {
    let payload = [0x5a; 122];
    let question = masked(FIN | BINARY, &payload).repeat((1 << 20) / 128);
    let answer = plain(FIN | BINARY, &payload).repeat((1 << 20) / 128);
    (question, answer)
}

#[test]
fn thirty_two_mebibytes_of_small_messages_are_all_answered() {
    let (question, answer) = small_messages();
    for io in BACKENDS {
        let upstream = Upstream::echo();
        let config = format!(
            "version = 1\n[[listener]]\nbind = \"127.0.0.1:0\"\n[[route]]\npath = \"/echo\"\necho = {{}}\n\
             [[route]]\npath = \"/p\"\nproxy = {{ upstreams = [{:?}] }}\n",
            upstream.url()
        );
        let gateway = Gateway::start(&config, io);
        for (path, rounds) in [("/echo", 32), ("/p", 4)] {
            let mut client = Client::open(gateway.address(), path);
            burst(&client, &question, &answer, rounds);
            client.exchange(BINARY, b"and goes on");
            client.close(1000);
        }
        gateway.stop();
    }
}
