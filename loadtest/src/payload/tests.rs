use super::*;

fn payloads(min: usize, max: usize, kind: Kind) -> Payloads {
    Payloads::new(Sizes { min, max }, kind, 7)
}

fn message(number: u64) -> Message {
    Message { serial: 0x0102_0304, number, due_ns: 0x1122_3344_5566 + number }
}

/// The whole frame, unmasked by the rules of RFC 6455 §5.3 written out.
fn payload(payloads: &Payloads, message: &Message) -> Vec<u8> {
    let len = payloads.frame_len(message.serial, message.number);
    let mut frame = vec![0; len + 9];
    assert_eq!(payloads.write(&mut frame, message, 0), len);
    assert_eq!(frame[len..], [0; 9], "nothing behind the frame");
    frame.truncate(len);
    let size = payloads.size(message.serial, message.number);
    let header = len - size;
    let key: [u8; 4] = frame[header - 4..header].try_into().unwrap();
    frame[header..].iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect()
}

const SIZES: [usize; 16] = [1, 2, 3, 4, 5, 6, 7, 19, 20, 26, 27, 64, 126, 4096, 65_535, 200_000];

#[test]
fn what_was_written_is_read() {
    for kind in [Kind::Binary, Kind::Text] {
        for size in SIZES {
            let payloads = payloads(size, size, kind);
            for number in [0, 1, 63, 64, 255, 256, 70_000, u64::from(u32::MAX), 1 << 33] {
                let message = message(number);
                let bytes = payload(&payloads, &message);
                assert!(kind == Kind::Binary || bytes.iter().all(u8::is_ascii_graphic));
                let due_ns = payloads.tell_time().then_some(message.due_ns);
                assert_eq!(payloads.owner(&bytes), due_ns.map(|_| message.serial), "{kind:?} {size}");
                for expected in [number, number.saturating_sub(3), number + 3] {
                    let read = payloads.read(message.serial, expected, kind, &bytes);
                    assert_eq!(read, Ok(Answer { number, due_ns }), "{kind:?} {size} {number} {expected}");
                }
            }
        }
    }
}

#[test]
fn whatever_a_server_sends_is_judged() {
    let text = "0,3,text\n5,1,binary\n9,40,text\n9,7,binary";
    let trace = Trace::parse(text, Kind::Text, 100, crate::trace::Start::Anywhere, true).unwrap();
    let played = payloads(0, 0, Kind::Binary).with_trace(Arc::new(trace));
    let mut random = Random::new(11);
    for payloads in [played, payloads(0, 64, Kind::Binary), payloads(0, 64, Kind::Text)] {
        for len in (0..48).cycle().take(5_000) {
            let bytes: Vec<u8> = (0..len).map(|_| b'0' + (random.next() % 80) as u8).collect();
            for kind in [Kind::Binary, Kind::Text] {
                let answer = payloads.read(random.next() as u32 & 0xff, 0, kind, &bytes);
                // Where it tells of no session, its number may be any; what is longer is never taken for ours.
                assert!(answer.is_err() || layout(kind, len) != Layout::Fields, "{bytes:?}");
            }
        }
    }
}

#[test]
fn any_cut_of_a_frame_gives_the_same_bytes() {
    for kind in [Kind::Binary, Kind::Text] {
        for size in SIZES {
            let payloads = payloads(size, size, kind);
            let message = message(9);
            let mut whole = vec![0; payloads.frame_len(message.serial, 9)];
            payloads.write(&mut whole, &message, 0);
            for step in [1, 3, 17, 1000, 65_000] {
                if whole.len() / step > 5000 {
                    continue;
                }
                let mut again = Vec::new();
                while again.len() < whole.len() {
                    let mut piece = vec![0; step];
                    let count = payloads.write(&mut piece, &message, again.len());
                    assert!(count > 0);
                    again.extend_from_slice(&piece[..count]);
                }
                assert!(again == whole, "{kind:?} {size} by {step}");
            }
        }
    }
}

#[test]
fn each_flipped_bit_is_found_where_the_message_has_room() {
    for (kind, size) in [(Kind::Binary, 20), (Kind::Binary, 64), (Kind::Text, 27), (Kind::Text, 64)] {
        let payloads = payloads(size, size, kind);
        let bytes = payload(&payloads, &message(5));
        for bit in 0..size * 8 {
            let mut wrong = bytes.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let read = payloads.read(message(5).serial, 5, kind, &wrong);
            assert!(matches!(read, Err(Wrong::Corrupt(_))), "{kind:?} {size} bit {bit}: {read:?}");
        }
        for len in 0..size {
            assert!(matches!(
                payloads.read(message(5).serial, 5, kind, &bytes[..len]),
                Err(Wrong::Corrupt(_))
            ));
        }
    }
}

#[test]
fn another_sessions_message_is_told_apart() {
    let payloads = payloads(64, 64, Kind::Binary);
    let bytes = payload(&payloads, &message(5));
    assert_eq!(payloads.read(1, 5, Kind::Binary, &bytes), Err(Wrong::Misdelivered));
}

#[test]
fn sizes_spread_from_the_least_to_the_most() {
    let payloads = payloads(10, 13, Kind::Binary);
    let mut seen = [0; 4];
    (0..4000).for_each(|number| seen[payloads.size(1, number) - 10] += 1);
    assert!(seen.iter().all(|count| (850..1150).contains(count)), "{seen:?}");
}

#[test]
fn shares_come_as_often_as_they_weigh() {
    let share = |weight, min, max| Share { weight, sizes: Sizes { min, max } };
    let payloads = payloads(64, 4000, Kind::Binary).with_shares(&[
        share(0.7, 64, 64),
        share(0.25, 100, 200),
        share(0.05, 4000, 4000),
    ]);
    let sizes: Vec<usize> = (0..20_000).map(|number| payloads.size(3, number)).collect();
    let count = |min, max| sizes.iter().filter(|size| (min..=max).contains(*size)).count();
    assert!((13_700..14_300).contains(&count(64, 64)), "{}", count(64, 64));
    assert!((4_700..5_300).contains(&count(100, 200)), "{}", count(100, 200));
    assert!((850..1_150).contains(&count(4000, 4000)), "{}", count(4000, 4000));
    assert!((1_100..1_400).contains(&count(100, 125)), "evenly within a share");
}

#[test]
fn a_payload_is_that_of_its_frame_with_any_fill() {
    for kind in [Kind::Binary, Kind::Text] {
        for fill in [Fill::Random, Fill::Json] {
            for (size, deflates) in [(5, false), (64, true), (4096, false), (200_000, true)] {
                let payloads = payloads(size, size, kind).with_fill(fill, deflates);
                let message = message(9);
                let mut alone = Vec::new();
                payloads.put_payload(&mut alone, &message);
                let framed = payload(&payloads, &message);
                assert!(alone == framed, "{kind:?} {fill:?} {size}");
                assert!(kind == Kind::Binary || framed.is_ascii());
                assert!(payloads.read(message.serial, 9, kind, &framed).is_ok());
            }
        }
    }
}

#[test]
fn masks_are_fresh() {
    let payloads = payloads(64, 64, Kind::Binary);
    let mask = |number| {
        let mut frame = [0; 70];
        payloads.write(&mut frame, &message(number), 0);
        [frame[2], frame[3], frame[4], frame[5]]
    };
    let masks: std::collections::HashSet<_> = (0..1000).map(mask).collect();
    assert!(masks.len() > 998);
}
