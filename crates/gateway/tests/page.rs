//! The page stands alone: it loads nothing, and its own policy (which names its style and its script by their hashes)
//! lets it run.

use base64::{Engine, prelude::BASE64_STANDARD};

const PAGE: &str = include_str!("../../shard/assets/index.html");

/// FIPS 180-4 §6.2, word for word: fit for one page.
fn sha256(message: &[u8]) -> [u8; 32] {
    // §4.2.2 and §5.3.3: fractional parts of the cube and square roots of the first primes.
    let primes: Vec<u64> = (2..312_u64).filter(|n| (2..*n).all(|d| n % d != 0)).collect();
    let fraction = |prime: u64, power: u32| {
        // The 32 bits behind the point of the root: the largest r with r^power <= prime * 2^(32 * power).
        let target = u128::from(prime) << 96 >> (96 - 32 * power);
        let (mut low, mut high) = (0_u128, 1_u128 << 40);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if middle.pow(power) <= target { low = middle } else { high = middle }
        }
        low as u32
    };
    let k: Vec<u32> = primes[..64].iter().map(|prime| fraction(*prime, 3)).collect();
    let mut h: Vec<u32> = primes[..8].iter().map(|prime| fraction(*prime, 2)).collect();
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize((padded.len() + 8).next_multiple_of(64) - 8, 0);
    padded.extend((message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let mut w: Vec<u32> =
            block.chunks_exact(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
        for t in 16..64 {
            let s0 = w[t - 15].rotate_right(7) ^ w[t - 15].rotate_right(18) ^ (w[t - 15] >> 3);
            let s1 = w[t - 2].rotate_right(17) ^ w[t - 2].rotate_right(19) ^ (w[t - 2] >> 10);
            w.push(w[t - 16].wrapping_add(s0).wrapping_add(w[t - 7]).wrapping_add(s1));
        }
        let mut v: [u32; 8] = h.clone().try_into().unwrap();
        for t in 0..64 {
            let [a, b, c, d, e, f, g, last] = v;
            let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let t1 =
                last.wrapping_add(s1).wrapping_add((e & f) ^ (!e & g)).wrapping_add(k[t]).wrapping_add(w[t]);
            let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
            let t2 = s0.wrapping_add((a & b) ^ (a & c) ^ (b & c));
            v = [t1.wrapping_add(t2), a, b, c, d.wrapping_add(t1), e, f, g];
        }
        h.iter_mut().zip(v).for_each(|(h, v)| *h = h.wrapping_add(v));
    }
    let bytes: Vec<u8> = h.iter().flat_map(|word| word.to_be_bytes()).collect();
    bytes.try_into().unwrap()
}

fn between<'p>(open: &str, close: &str) -> &'p str {
    let (_, rest) = PAGE.split_once(open).unwrap();
    assert!(!rest.contains(open), "two of {open}");
    rest.split_once(close).unwrap().0
}

#[test]
fn the_hash_is_the_standard_one() {
    let hex = |text: &str| sha256(text.as_bytes()).map(|byte| format!("{byte:02x}")).concat();
    assert_eq!(hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(
        hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    );
}

#[test]
fn the_policy_names_style_and_script() {
    let policy = between("http-equiv=\"Content-Security-Policy\" content=\"", "\">");
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    for (directive, content) in
        [("style-src", between("<style>", "</style>")), ("script-src", between("<script>", "</script>"))]
    {
        let expected = format!("{directive} 'sha256-{}'", BASE64_STANDARD.encode(sha256(content.as_bytes())));
        assert!(policy.contains(&expected), "after a change of the page its policy says {expected}");
    }
    // Neither is covered by these hashes, so neither would work.
    assert!(!PAGE.contains(" style=\"") && !PAGE.contains(" onclick=\""));
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    for reference in ["src=\"", "@import", "url(", "https://", "//cdn", "fetch(", "import("] {
        assert!(!PAGE.contains(reference), "{reference}");
    }
    let links: Vec<&str> = PAGE.split("href=\"").skip(1).collect();
    assert!(links.iter().all(|link| link.starts_with("data:")), "{links:?}");
    assert!(PAGE.contains("location.host"));
    assert!(PAGE.len() < 16 << 10, "{} bytes: it is answered from one buffer", PAGE.len());
}
