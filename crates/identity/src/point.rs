//! Points of Ed25519, as public keys are: 32 bytes with the y, the least significant first, and the sign of x in the last bit.
//!
//! The library judges none of this where it reads a key, and under one that is no point no signature is ever right. What is known of a
//! key is public, so that nothing here need take the same time for all of them.

/// Of a number below 2^256, the least significant first, 16 bits each. It stands for its rest by the prime, 2^255 - 19.
type Number = [u64; 16];

const ONE: Number = small(1);

const PRIME: Number = {
    let mut prime = [0xffff; 16];
    (prime[0], prime[15]) = (0xffed, 0x7fff);
    prime
};

/// The curve: -x² + y² = 1 + dx²y² (RFC 8032 §5.1).
const D: Number = [
    0x78a3, 0x1359, 0x4dca, 0x75eb, 0xd8ab, 0x4141, 0x0a4d, 0x0070, 0xe898, 0x7779, 0x4079, 0x8cc7, 0xfe73,
    0x2b6f, 0x6cee, 0x5203,
];

/// Whether there is an x that makes it a point of the curve (RFC 8032 §5.1.3).
pub(crate) fn is_on_curve(point: &[u8; 32]) -> bool {
    let mut y = [0; 16];
    for (limb, bytes) in y.iter_mut().zip(point.chunks_exact(2)) {
        *limb = u64::from(bytes[0]) | u64::from(bytes[1]) << 8;
    }
    // The sign of x.
    y[15] &= 0x7fff;
    let square = product(&y, &y);
    // x² = u/v. It is a square where uv is one, as that is v² times it; v is never 0, as -1/d is no square.
    let u = sum(&square, &difference(&PRIME, &ONE));
    let v = sum(&product(&D, &square), &ONE);
    let uv = product(&u, &v);
    // By Euler: of squares the power (p - 1)/2 = 2^254 - 10 is 1, and of 0 it is 0.
    let mut power = ONE;
    for bit in (0..254).rev() {
        power = product(&power, &power);
        if bit != 0 && bit != 3 {
            power = product(&power, &uv);
        }
    }
    let power = rest(power);
    power == ONE || power == small(0)
}

/// Whether it has an order of 8 or less, so that a signature made without any key can fit, or its y is not below the prime (RFC 8032
/// §5.1.3).
pub(crate) fn is_weak(point: &[u8; 32]) -> bool {
    /// The y of all points of such an order, the least significant byte first: 0, 1, those two of order 8, and -1.
    const Y: [[u8; 32]; 5] = [
        [0; 32],
        {
            let mut one = [0; 32];
            one[0] = 1;
            one
        },
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
            0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
            0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
        {
            let mut minus_one = [0xff; 32];
            (minus_one[0], minus_one[31]) = (0xec, 0x7f);
            minus_one
        },
    ];
    let mut y = *point;
    // The sign of x.
    y[31] &= 0x7f;
    let is_too_large = y[0] >= 0xed && y[31] == 0x7f && y[1..31].iter().all(|byte| *byte == 0xff);
    is_too_large || Y.contains(&y)
}

const fn small(number: u64) -> Number {
    let mut limbs = [0; 16];
    limbs[0] = number;
    limbs
}

fn sum(a: &Number, b: &Number) -> Number {
    let mut sum = *a;
    sum.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    carried(sum)
}

/// Of what is not less.
fn difference(a: &Number, b: &Number) -> Number {
    let (mut difference, mut borrow) = (*a, 0);
    for (limb, b) in difference.iter_mut().zip(b) {
        let least = *limb + 0x1_0000 - b - borrow;
        (*limb, borrow) = (least & 0xffff, 1 - (least >> 16));
    }
    difference
}

fn product(a: &Number, b: &Number) -> Number {
    let mut wide = [0; 31];
    for (place, a) in a.iter().enumerate() {
        for (sum, b) in wide[place..].iter_mut().zip(b) {
            *sum += a * b;
        }
    }
    // 2^256 is 38 by the prime.
    let mut low = [0; 16];
    low.copy_from_slice(&wide[..16]);
    low.iter_mut().zip(&wide[16..]).for_each(|(low, high)| *low += 38 * high);
    carried(low)
}

/// The same with limbs of 16 bits.
fn carried(mut number: Number) -> Number {
    // Behind the first round what goes over is little, and behind the second it is 1 at most, where little is left.
    for _ in 0..3 {
        let mut carry = 0;
        for limb in &mut number {
            *limb += carry;
            (*limb, carry) = (*limb & 0xffff, *limb >> 16);
        }
        number[0] += 38 * carry;
    }
    number
}

/// What is left by the prime, of which there are two in it at most.
fn rest(mut number: Number) -> Number {
    for _ in 0..2 {
        if number.iter().rev().ge(PRIME.iter().rev()) {
            number = difference(&number, &PRIME);
        }
    }
    number
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
            assert!(is_on_curve(&point) && !is_weak(&point), "{point:x?}");
            point[31] ^= 0x80;
            assert!(is_on_curve(&point), "the other x: {point:x?}");
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
            assert_eq!(is_on_curve(&point), on.contains(&y), "{y}");
        }
        for y in 1..=20 {
            let mut point = [0xff; 32];
            (point[0], point[31]) = (0xed - y, 0x7f);
            assert_eq!(is_on_curve(&point), minus_on.contains(&y), "-{y}");
        }
        // As large as can be written: 18.
        assert!(is_on_curve(&[0xff; 32]));
    }
}
