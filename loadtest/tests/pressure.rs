//! A server that reads nothing for a while. Apart from tests/latency.rs, whose percentiles its work would disturb.

mod harness;

use std::{io::Write, thread, time::Duration};

use harness::{Server, encode, run};

#[test]
fn what_cannot_be_sent_counts_from_when_it_was_due() {
    const STALL: Duration = Duration::from_secs(2);
    // After its first message nothing is read for two seconds: 40 MiB come due, far more than sockets hold.
    let server = Server::new(|mut peer| {
        for n in 0.. {
            let frame = peer.read()?;
            if frame.opcode == 8 {
                return peer.close(&frame);
            }
            if n == 0 {
                thread::sleep(STALL);
            }
            peer.stream.write_all(&encode(frame.opcode, &frame.payload))?;
        }
        Ok(())
    });
    // Message `n` is due 50 ms times `n` after the first one, and is not read before the stall is over: the ninth longest
    // of 80 takes 1,550 ms at the least, the 21st 950 ms. From when they were sent the latter would be what the sockets
    // hold, some ten messages.
    let run = run(&format!(
        "echo {} -c 1 -R 20 -s 1MiB -d 4s --warmup 0 --timeout 30s --quiet --json - --assert errors=0 \
         --assert p90>=1545ms --assert p75>=945ms",
        server.url()
    ));
    let report = run.json();
    assert_eq!(run.code(), 0, "{}: {report:#}", run.stderr);
    // Nor is it this program's fault that they were late.
    let (lag, answered) = (&report["generator"]["lag"]["count"], &report["messages"]["answered"]);
    assert!(lag.as_u64() < answered.as_u64(), "{report:#}");
}
