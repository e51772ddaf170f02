//! What a public key of Ed25519 has to be: a point of the curve, of the large order.
//!
//! aws-lc-rs judges none of this where it reads a key: under one that is no point no signature is ever right, and under one of a small
//! order a signature made without any key can be.

use curve25519_dalek::edwards::CompressedEdwardsY;

use crate::key::BadKey;

/// Whether signatures under this public key say who made them.
///
/// # Errors
/// [`BadKey::NoPoint`] where the 32 bytes are no point of the curve, and [`BadKey::WeakPoint`] where its order is 8 or less, or its y
/// not below the prime (RFC 8032 §5.1.3).
pub(crate) fn check(bytes: &[u8; 32]) -> Result<(), BadKey> {
    let point = CompressedEdwardsY(*bytes).decompress().ok_or(BadKey::NoPoint)?;
    // Read with a y from the prime on, a point is written otherwise.
    let mut written = point.compress().0;
    written[31] = written[31] & 0x7f | bytes[31] & 0x80;
    if point.is_small_order() || written != *bytes {
        return Err(BadKey::WeakPoint);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    #[test]
    fn keys_are_points() {
        for _ in 0..100 {
            let key = Ed25519KeyPair::generate().expect("a key");
            let mut point: [u8; 32] = key.public_key().as_ref().try_into().expect("32 bytes");
            assert_eq!(check(&point), Ok(()), "{point:x?}");
            point[31] ^= 0x80;
            assert_eq!(check(&point), Ok(()), "the other x: {point:x?}");
        }
    }

    /// By Python's whole numbers: `pow((y*y - 1) * (d*y*y + 1) % p, (p - 1) // 2, p) in (0, 1)`.
    #[test]
    fn half_of_all_numbers_are_none() {
        let on = [
            0, 1, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 19, 21, 23, 24, 25, 26, 27, 28, 29, 30, 32, 33, 35, 37,
            39,
        ];
        let minus_on = [19, 18, 16, 15, 14, 10, 9, 6, 5, 4, 3, 1];
        for y in 0..40 {
            let mut point = [0; 32];
            point[0] = y;
            let whole = if !on.contains(&y) {
                Err(BadKey::NoPoint)
            } else if y < 2 {
                Err(BadKey::WeakPoint)
            } else {
                Ok(())
            };
            assert_eq!(check(&point), whole, "{y}");
        }
        for y in 1..=20 {
            let mut point = [0xff; 32];
            (point[0], point[31]) = (0xed - y, 0x7f);
            let whole = if !minus_on.contains(&y) {
                Err(BadKey::NoPoint)
            } else if y == 1 {
                Err(BadKey::WeakPoint)
            } else {
                Ok(())
            };
            assert_eq!(check(&point), whole, "-{y}");
        }
        // As large as can be written: 18, which is one, but is not to be written so.
        assert_eq!(check(&[0xff; 32]), Err(BadKey::WeakPoint));
    }
}
