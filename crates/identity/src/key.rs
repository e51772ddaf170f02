//! Keys, each with the algorithms that it may be used with.
//!
//! Invariant: a secret serves HMAC alone and a public key its own kind of signature alone (RFC 8725 §3.1).

use std::fmt;

use aws_lc_rs::{
    hmac, rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
        RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
        RsaPublicKeyComponents,
    },
};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use tidegate_config::Algorithm;

use crate::{Invalid, point, token::Token};

/// One key, ready for use with some algorithms.
pub(crate) struct Key {
    /// The name that tokens have for it.
    pub(crate) name: Option<String>,
    uses: Vec<(Algorithm, Use)>,
}

enum Use {
    Secret(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

/// Why bytes are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadKey {
    /// They are not in PEM, or no `PUBLIC KEY` is among them.
    Pem,
    /// There is more than one.
    Several,
    /// It is the private one.
    Private,
    /// It is not of a kind that is known, or broken.
    Unknown,
    /// RFC 7518 §3.3: an RSA key has 2048 bits or more; beyond 8192 a check takes too long.
    RsaSize,
    /// RFC 8017 §3.1: it is odd, and 3 or more: with 1 everything is its own signature. With more than 33 bits none is ever checked.
    RsaExponent,
    /// A point of Ed25519 under which anybody can sign, or that is not encoded as RFC 8032 §5.1.3 has it.
    WeakPoint,
    /// A key of Ed25519 that is no point of its curve: no signature is ever right.
    NoPoint,
    /// RFC 7518 §3.2.
    Short(Algorithm),
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem => f.write_str("there is no public key in PEM in it (-----BEGIN PUBLIC KEY-----)"),
            Self::Several => f.write_str("there is more than one key in it: use `jwks_file` for several"),
            Self::Private => f.write_str(
                "it holds a private key: the public one is enough, and nobody else's is safe here",
            ),
            Self::Unknown => f.write_str("the key is broken, or of a kind that no algorithm here is for"),
            Self::RsaSize => f.write_str("an RSA key has 2048 to 8192 bits"),
            Self::RsaExponent => {
                f.write_str("the exponent of an RSA key is odd, 3 or more, and has at most 33 bits")
            }
            Self::WeakPoint => f.write_str("the key is no point under which one alone can sign"),
            Self::NoPoint => f.write_str("the key is no point of the curve of Ed25519"),
            Self::Short(algorithm) => {
                let least = algorithm.least_secret_bytes().unwrap_or_default();
                write!(f, "a secret for {} has at least {least} bytes", algorithm.name())
            }
        }
    }
}

impl Key {
    /// A shared secret.
    pub(crate) fn secret(bytes: &[u8], algorithms: &[Algorithm]) -> Result<Self, BadKey> {
        let mut uses = Vec::new();
        for algorithm in algorithms {
            let hash = match algorithm {
                Algorithm::Hs256 => hmac::HMAC_SHA256,
                Algorithm::Hs384 => hmac::HMAC_SHA384,
                Algorithm::Hs512 => hmac::HMAC_SHA512,
                _ => continue,
            };
            if algorithm.least_secret_bytes().is_some_and(|least| bytes.len() < least) {
                return Err(BadKey::Short(*algorithm));
            }
            uses.push((*algorithm, Use::Secret(Box::new(hmac::Key::new(hash, bytes)))));
        }
        Ok(Self { name: None, uses })
    }

    /// An RSA key of its modulus and exponent, both without a sign.
    pub(crate) fn rsa(n: &[u8], e: &[u8], algorithms: &[Algorithm]) -> Result<Self, BadKey> {
        let strip = |bytes: &[u8]| {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            bytes[zeros..].to_vec()
        };
        let (n, e) = (strip(n), strip(e));
        let bits_of = |number: &[u8]| {
            number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
        };
        let is_even = |number: &[u8]| number.last().is_none_or(|last| last % 2 == 0);
        if !(2048..=8192).contains(&bits_of(&n)) {
            return Err(BadKey::RsaSize);
        }
        if *e == [1] || is_even(&e) || bits_of(&e) > 33 {
            return Err(BadKey::RsaExponent);
        }
        if is_even(&n) {
            return Err(BadKey::Unknown);
        }
        let components = RsaPublicKeyComponents { n, e };
        Self::of(algorithms, |algorithm| {
            let parameters = rsa_parameters(algorithm)?;
            Some(components.to_parsed_public_key(parameters).map_err(|_| BadKey::Unknown))
        })
    }

    /// A point of a curve: uncompressed (SEC 1 §2.3.3), or as it stands in a SubjectPublicKeyInfo.
    pub(crate) fn elliptic(bytes: &[u8], algorithms: &[Algorithm]) -> Result<Self, BadKey> {
        Self::of(algorithms, |algorithm| {
            let curve = match algorithm {
                Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
                Algorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
                _ => return None,
            };
            // Of the other curve: not for this algorithm.
            Some(Ok(ParsedPublicKey::new(curve, bytes).ok()?))
        })
    }

    /// A key of Ed25519: 32 bytes, or as it stands in a SubjectPublicKeyInfo.
    pub(crate) fn edwards(bytes: &[u8], algorithms: &[Algorithm]) -> Result<Self, BadKey> {
        let key = Self::of(algorithms, |algorithm| match algorithm {
            Algorithm::EdDsa => Some(ParsedPublicKey::new(&ED25519, bytes).map_err(|_| BadKey::Unknown)),
            _ => None,
        })?;
        bytes.last_chunk().map_or(Err(BadKey::Unknown), point::check)?;
        Ok(key)
    }

    /// The one public key of a PEM file, with those of the algorithms that it is for; at least one.
    pub(crate) fn pem(pem: &[u8], algorithms: &[Algorithm]) -> Result<Self, BadKey> {
        if pem.windows(12).any(|part| part == b"PRIVATE KEY-") {
            return Err(BadKey::Private);
        }
        let mut found = SubjectPublicKeyInfoDer::pem_slice_iter(pem);
        let key = found.next().and_then(Result::ok).ok_or(BadKey::Pem)?;
        if found.next().is_some() {
            return Err(BadKey::Several);
        }
        if let Ok(key) = rsa::PublicKey::from_der(&key) {
            let (n, e) = (key.modulus(), key.exponent());
            let plain = |bytes: aws_lc_rs::io::Positive<'_>| bytes.big_endian_without_leading_zero().to_vec();
            return Self::rsa(&plain(n), &plain(e), algorithms);
        }
        let known = [Algorithm::Es256, Algorithm::Es384];
        let elliptic = Self::elliptic(&key, &known).is_ok_and(|key| !key.uses.is_empty());
        match elliptic {
            true => Self::elliptic(&key, algorithms),
            // Broken, or of no kind that is known here, whatever the algorithms are.
            false => Self::edwards(&key, &[Algorithm::EdDsa]).and_then(|_| Self::edwards(&key, algorithms)),
        }
    }

    fn of(
        algorithms: &[Algorithm],
        parse: impl Fn(Algorithm) -> Option<Result<ParsedPublicKey, BadKey>>,
    ) -> Result<Self, BadKey> {
        let mut uses = Vec::new();
        for algorithm in algorithms {
            if let Some(key) = parse(*algorithm) {
                uses.push((*algorithm, Use::Public(key?)));
            }
        }
        Ok(Self { name: None, uses })
    }

    /// The same by a name.
    pub(crate) fn named(self, name: Option<String>) -> Self {
        Self { name, ..self }
    }

    /// Whether it is for this algorithm.
    pub(crate) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.uses.iter().any(|(own, _)| *own == algorithm)
    }

    /// Whether it is for none.
    pub(crate) fn is_for_none(&self) -> bool {
        self.uses.is_empty()
    }

    /// Checks a token's signature.
    pub(crate) fn check(&self, token: &Token<'_>) -> Result<(), Invalid> {
        let used = self.uses.iter().find(|(own, _)| *own == token.algorithm);
        let valid = match used.map(|(_, key)| key) {
            Some(Use::Secret(key)) => hmac::verify(key, token.signed, &token.signature).is_ok(),
            Some(Use::Public(key)) => key.verify_sig(token.signed, &token.signature).is_ok(),
            None => return Err(Invalid::Key),
        };
        if valid { Ok(()) } else { Err(Invalid::Signature) }
    }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms: Vec<&str> = self.uses.iter().map(|(algorithm, _)| algorithm.name()).collect();
        f.debug_struct("Key").field("name", &self.name).field("algorithms", &algorithms).finish()
    }
}
