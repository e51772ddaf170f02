//! What reading the protocol takes of the heap: counted by the allocator.
//!
//! One test function: the counter is the process's.

use std::alloc::System;

use cap::Cap;
use tidegate_hub::protocol::{Code, Scratch, VECTORS_FROM_BYTES, VECTORS_TO_BYTES, parse};

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

fn publish(data: &str) -> String {
    format!(r#"{{"op":"publish","id":7,"topic":"chat/lobby","data":{data},"key":"a"}}"#)
}

#[test]
fn reading_allocates_nothing_in_steady_state_and_is_bounded_by_the_longest_message_that_vectors_read() {
    // Brackets and commas are the most tokens that a message of a length can have.
    let tokens = |bytes: usize| publish(&format!("[{}[]]", "[],".repeat(bytes / 3)));
    let prose = |bytes: usize| publish(&format!(r#""{}""#, "a caf\u{e9}\\n".repeat(bytes / 9)));

    let mut scratch = Scratch::new();
    for text in [publish("1"), prose(200), prose(2 * VECTORS_FROM_BYTES), tokens(2 * VECTORS_FROM_BYTES)] {
        assert!(parse(text.as_bytes(), &mut scratch).all(|request| request.command.is_ok()));
        let before = HEAP.total_allocated();
        assert!(parse(text.as_bytes(), &mut scratch).all(|request| request.command.is_ok()));
        assert_eq!(HEAP.total_allocated(), before, "{text:.100}");
    }

    drop(scratch);
    let before = HEAP.allocated();
    let mut scratch = Scratch::new();
    let mut bytes = VECTORS_FROM_BYTES;
    while bytes < 8 * VECTORS_TO_BYTES {
        for text in [tokens(bytes), prose(bytes), "[".repeat(bytes)] {
            assert_eq!(parse(text.as_bytes(), &mut scratch).len(), 1);
        }
        bytes += bytes / 3;
    }
    let kept = HEAP.allocated() - before;
    assert!((24 * VECTORS_TO_BYTES / 2..60 * VECTORS_TO_BYTES).contains(&kept), "{kept} bytes");

    // What is nested too deep takes nothing at all, where vectors do not read it.
    let deep = "[".repeat(8 * VECTORS_TO_BYTES);
    let before = HEAP.total_allocated();
    let problem = parse(deep.as_bytes(), &mut scratch).next().and_then(|request| request.command.err());
    assert_eq!(problem.map(|problem| problem.code), Some(Code::InvalidJson));
    assert_eq!(HEAP.total_allocated(), before);
}
