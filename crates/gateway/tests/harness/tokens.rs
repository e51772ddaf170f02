//! Tokens for tests: keys that are made when they run, and what is signed with them.

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    rsa::{self, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
        RSA_PSS_SHA512,
    },
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

/// Who signs tokens.
pub(crate) enum Signer {
    Secret(Vec<u8>),
    Rsa(rsa::KeyPair),
    /// P-256.
    Short(EcdsaKeyPair),
    /// P-384.
    Long(EcdsaKeyPair),
    Edwards(Ed25519KeyPair),
}

impl Signer {
    pub(crate) fn secret(text: &str) -> Signer {
        Signer::Secret(text.as_bytes().to_vec())
    }

    pub(crate) fn rsa() -> Signer {
        Signer::Rsa(rsa::KeyPair::generate(KeySize::Rsa2048).expect("a key"))
    }

    pub(crate) fn p256() -> Signer {
        Signer::Short(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
    }

    pub(crate) fn p384() -> Signer {
        Signer::Long(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key"))
    }

    pub(crate) fn ed25519() -> Signer {
        Signer::Edwards(Ed25519KeyPair::generate().expect("a key"))
    }

    /// The algorithms that its key is for.
    pub(crate) fn algorithms(&self) -> &'static [&'static str] {
        match self {
            Signer::Secret(_) => &["HS256", "HS384", "HS512"],
            Signer::Rsa(_) => &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
            Signer::Short(_) => &["ES256"],
            Signer::Long(_) => &["ES384"],
            Signer::Edwards(_) => &["EdDSA"],
        }
    }

    /// A token with these claims, signed by an algorithm of this key; `name`: the key's.
    pub(crate) fn token(&self, algorithm: &str, name: Option<&str>, claims: &Value) -> String {
        let mut header = json!({ "alg": algorithm, "typ": "JWT" });
        if let Some(name) = name {
            header["kid"] = json!(name);
        }
        self.token_of(algorithm, &header.to_string(), &claims.to_string())
    }

    /// Header and claims as they are, signed.
    pub(crate) fn token_of(&self, algorithm: &str, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.sign(algorithm, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Signer::Secret(secret) => {
                let hash = match algorithm {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(hash, secret), message).as_ref().to_vec()
            }
            Signer::Rsa(key) => {
                let encoding: &'static dyn aws_lc_rs::signature::RsaEncoding = match algorithm {
                    "RS256" => &RSA_PKCS1_SHA256,
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    _ => &RSA_PSS_SHA512,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, message, &mut signature).expect("a signature");
                signature
            }
            Signer::Short(key) | Signer::Long(key) => {
                key.sign(&random, message).expect("a signature").as_ref().to_vec()
            }
            Signer::Edwards(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// Its key as an entry of a set.
    pub(crate) fn jwk(&self, name: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let point = |key: &EcdsaKeyPair, curve: &str| {
            let point = &key.public_key().as_ref()[1..];
            let (x, y) = point.split_at(point.len() / 2);
            json!({ "kty": "EC", "crv": curve, "x": text(x), "y": text(y) })
        };
        let mut key = match self {
            Signer::Secret(secret) => json!({ "kty": "oct", "k": text(secret) }),
            Signer::Rsa(key) => {
                let public = key.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                let plain =
                    |number: aws_lc_rs::io::Positive<'_>| text(number.big_endian_without_leading_zero());
                json!({ "kty": "RSA", "n": plain(n), "e": plain(e) })
            }
            Signer::Short(key) => point(key, "P-256"),
            Signer::Long(key) => point(key, "P-384"),
            Signer::Edwards(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": text(key.public_key().as_ref()) })
            }
        };
        key["kid"] = json!(name);
        key
    }

    /// Its public key in PEM.
    pub(crate) fn pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = match self {
            Signer::Secret(_) => panic!("a secret has no public key"),
            Signer::Rsa(key) => key.public_key().as_der(),
            Signer::Short(key) | Signer::Long(key) => key.public_key().as_der(),
            Signer::Edwards(key) => key.public_key().as_der(),
        }
        .expect("a public key");
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }
}
