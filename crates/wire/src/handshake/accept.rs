//! `Sec-WebSocket-Key` and `Sec-WebSocket-Accept`.

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use sha1::{Digest, Sha1};

/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Standard alphabet, padding required. The last character of 16 encoded bytes has four bits that stand for nothing;
/// RFC 4648 §3.5 lets a decoder refuse them where they are not zero. They are taken here: RFC 6455 asks for a value that
/// decodes to 16 bytes, the text itself is what is hashed, and some load generators make keys of random characters.
const KEY: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// The length of a key's text, and of the only padding that 16 bytes have.
const KEY_LEN: usize = 24;

/// The value of `Sec-WebSocket-Accept` for the text of a key (RFC 6455 §4.2.2, 5.4).
#[must_use]
pub fn accept_key(key: &str) -> [u8; 28] {
    let hash = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut text = [0; 28];
    // 20 bytes make 28 characters.
    let written = STANDARD.encode_slice(hash, &mut text);
    assert_eq!(written, Ok(text.len()));
    text
}

/// The text of a key.
pub(super) fn encode_key(key: &[u8; 16]) -> [u8; KEY_LEN] {
    let mut text = [0; KEY_LEN];
    let written = STANDARD.encode_slice(key, &mut text);
    assert_eq!(written, Ok(text.len()));
    text
}

/// RFC 6455 §4.2.1, 5: decodes to exactly 16 bytes.
pub(super) fn is_key(text: &str) -> bool {
    let mut key = [0; 18];
    text.len() == KEY_LEN && KEY.decode_slice(text, &mut key) == Ok(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc6455_1_3_the_sample_nonce() {
        assert_eq!(&accept_key("dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(&encode_key(b"the sample nonce"), b"dGhlIHNhbXBsZSBub25jZQ==");
    }

    #[test]
    fn rfc6455_4_2_1_a_key_decodes_to_sixteen_bytes() {
        for good in [
            "dGhlIHNhbXBsZSBub25jZQ==",
            "AAAAAAAAAAAAAAAAAAAAAA==",
            "////////////////////+w==",
            "dGhlIHNhbXBsZSBub25jZR==",
        ] {
            assert!(is_key(good), "{good}");
        }
        for bad in [
            "",
            "client-random-string",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ===",
            "dGhlIHNhbXBsZSBub25jZQ==a",
            "dGhlIHNhbXBsZSBub25jZTE=",
            "dGhlIHNhbXBsZSBub25jZTEy",
            "dGhlIHNhbXBsZSBub25j",
            "dGhlIHNhbXBsZSBub25jQ===",
            "dGhlIHNhbXBsZSBub25=ZQ==",
            "dGhlIHNhbXBsZSBub2 jZQ==",
            "-_hlIHNhbXBsZSBub25jZQ==",
            "dGhlIHNhbXBsZSBub25jZ\u{e9}=",
        ] {
            assert!(!is_key(bad), "{bad}");
        }
    }
}
