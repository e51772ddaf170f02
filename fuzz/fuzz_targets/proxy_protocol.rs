//! Any split of a PROXY header gives the same verdict; nothing behind it is looked at, and none is longer than it may be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::{Source, pieces};
use tidegate_wire::proxy_protocol::{BadHeader, Progress, V2_BYTES, parse};

fuzz_target!(|data: &[u8]| {
    let mut source = Source(data);
    let cuts = source.pair();
    let bytes = source.0;
    let whole = parse(bytes);
    for cuts in [1, cuts] {
        match (read(bytes, cuts), whole) {
            // Of two mistakes the first to be seen may depend on the cuts.
            (Err(_), Err(_)) => {}
            (read, whole) => assert_eq!(read, whole, "cut by {cuts}"),
        }
    }
    match whole {
        Ok(Progress::Complete(header)) => {
            assert!(header.len <= V2_BYTES.min(bytes.len()));
            assert_eq!(parse(&bytes[..header.len]), whole, "what is behind it does not count");
            assert_eq!(parse(&bytes[..header.len - 1]), Ok(Progress::Partial));
            let behind = [&bytes[..header.len], b"\0\r\n\xff".as_slice()].concat();
            assert_eq!(parse(&behind), whole, "what is behind it does not count");
        }
        Ok(Progress::Partial) => assert!(bytes.len() < V2_BYTES, "it may not wait for ever"),
        Err(bad) => assert!(!bad.text().is_empty()),
    }
});

/// The verdict on bytes that come in pieces.
fn read(bytes: &[u8], cuts: u16) -> Result<Progress, BadHeader> {
    for piece in pieces(bytes.len(), cuts) {
        match parse(&bytes[..piece.end])? {
            Progress::Partial => {}
            complete => return Ok(complete),
        }
    }
    Ok(Progress::Partial)
}
