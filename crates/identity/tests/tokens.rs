//! What is believed and what is not: every algorithm, every kind of key, and the ways in which tokens are wrong.

// Shared with the gateway's tests.
#[allow(dead_code)]
#[path = "../../gateway/tests/harness/tokens.rs"]
mod tokens;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use std::{fs, path::Path, sync::Arc};

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_config::{Config, RequiredClaim, TopicPatterns};
use tidegate_identity::{Identity, Invalid, MAX_TOKEN_BYTES, identities, warnings};

use crate::tokens::Signer;

const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The time of all tests but those that say another.
const NOW: u64 = 1_800_000_000;

/// A folder with a configuration of one identity, which says this; FOLDER stands for the folder's path.
fn config(folder: &TempDir, says: &str) -> Config {
    let says = says.replace("FOLDER", folder.path().to_str().unwrap());
    let text = format!(
        "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[[identity]]\nname = 'users'\n{says}\n\
         [[route]]\npath = '/echo'\nidentity = 'users'\necho = {{}}\n"
    );
    let path = folder.path().join("t.toml");
    fs::write(&path, text).unwrap();
    tidegate_config::load(&path).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn identity(says: &str, files: &[(&str, &str)]) -> Arc<Identity> {
    judged(says, files).unwrap_or_else(|problem| panic!("{problem}"))
}

/// The identity, or the headline of what is wrong with it.
fn judged(says: &str, files: &[(&str, &str)]) -> Result<Arc<Identity>, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    let config = config(&folder, says);
    let all = identities(&config);
    all.map(|mut all| all.remove(0)).map_err(|problems| plain(folder.path(), &problems[0].headline()))
}

fn plain(folder: &Path, text: &str) -> String {
    text.replace(folder.to_str().unwrap(), "FOLDER")
}

/// One with a shared secret, which says this besides.
fn shared(says: &str) -> Arc<Identity> {
    identity(&format!("algorithms = ['HS256']\nsecret = '{SECRET}'\n{says}"), &[])
}

fn claims() -> Value {
    json!({ "sub": "ada", "exp": NOW + 60 })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

/// What is said of these claims, signed with the secret.
fn outcome(identity: &Identity, claims: &Value) -> Result<(), Invalid> {
    let token = Signer::secret(SECRET).token("HS256", None, claims);
    identity.verify(token.as_bytes(), NOW).map(|_| ())
}

fn signers() -> Vec<(&'static str, Signer)> {
    vec![
        ("secret", Signer::secret(SECRET)),
        ("rsa", Signer::rsa()),
        ("p256", Signer::p256()),
        ("p384", Signer::p384()),
        ("ed", Signer::ed25519()),
    ]
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

#[test]
fn every_algorithm_is_verified_by_every_kind_of_key() {
    for (name, signer) in signers() {
        let all = signer.algorithms();
        let jwks = json!({ "keys": [signer.jwk(name)] }).to_string();
        let set =
            identity(&format!("algorithms = [{}]\njwks_file = 'FOLDER/jwks'", list(all)), &[("jwks", &jwks)]);
        let alone = match &signer {
            Signer::Secret(_) => identity(&format!("algorithms = [{}]\nsecret = '{SECRET}'", list(all)), &[]),
            _ => identity(
                &format!("algorithms = [{}]\nkey_file = 'FOLDER/key'", list(all)),
                &[("key", &signer.pem())],
            ),
        };
        for algorithm in all {
            for key in [Some(name), None] {
                let token = signer.token(algorithm, key, &claims());
                for identity in [&set, &alone] {
                    let caller = identity.verify(token.as_bytes(), NOW);
                    let caller = caller.unwrap_or_else(|why| panic!("{algorithm} {key:?}: {why}"));
                    assert_eq!((caller.user.as_deref(), caller.ends), (Some("ada"), Some(NOW + 65)));
                }
            }
            // Of the same kind, and by another key.
            let other = match name {
                "secret" => Signer::secret(&SECRET.replace('0', "1")),
                "rsa" => Signer::rsa(),
                "p256" => Signer::p256(),
                "p384" => Signer::p384(),
                _ => Signer::ed25519(),
            };
            let token = other.token(algorithm, Some(name), &claims());
            assert_eq!(set.verify(token.as_bytes(), NOW), Err(Invalid::Signature), "{algorithm}");
        }
    }
}

/// RFC 8725 §2.1: an algorithm of the token's own choice, none among them.
#[test]
fn rfc8725_2_1_the_list_of_algorithms_counts_and_not_the_token() {
    let signers = signers();
    let keys: Vec<Value> = signers.iter().skip(1).map(|(name, signer)| signer.jwk(name)).collect();
    let jwks = json!({ "keys": keys }).to_string();
    let every = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
    for allowed in every {
        let identity =
            identity(&format!("algorithms = ['{allowed}']\njwks_file = 'FOLDER/jwks'"), &[("jwks", &jwks)]);
        for (name, signer) in &signers {
            for algorithm in signer.algorithms() {
                let token = signer.token(algorithm, Some(name), &claims());
                let outcome = identity.verify(token.as_bytes(), NOW).map(|_| ());
                let expected = if *algorithm == allowed { Ok(()) } else { Err(Invalid::Algorithm) };
                assert_eq!(outcome, expected, "{algorithm} where {allowed} is believed");
            }
        }
    }
    let shared = shared("");
    for algorithm in ["none", "None", "NONE", "", "hs256", "HS257"] {
        let header = json!({ "alg": algorithm }).to_string();
        let signed = Signer::secret(SECRET).token_of("HS256", &header, &claims().to_string());
        assert_eq!(shared.verify(signed.as_bytes(), NOW), Err(Invalid::Algorithm), "{algorithm}");
        let bare = format!("{}.", &signed[..signed.rfind('.').unwrap()]);
        assert_eq!(shared.verify(bare.as_bytes(), NOW), Err(Invalid::Form), "without a signature");
    }
}

/// RFC 8725 §2.1: a public key is known to everyone, so it must never be taken for a shared secret.
#[test]
fn rfc8725_2_1_a_public_key_is_no_secret() {
    let rsa = Signer::rsa();
    let jwks = json!({ "keys": [rsa.jwk("one")] }).to_string();
    let n = rsa.jwk("one")["n"].as_str().unwrap().to_owned();
    let by_file = identity("algorithms = ['RS256']\nkey_file = 'FOLDER/key'", &[("key", &rsa.pem())]);
    let by_set = identity("algorithms = ['RS256']\njwks_file = 'FOLDER/jwks'", &[("jwks", &jwks)]);
    for secret in [rsa.pem(), rsa.pem().trim().to_owned(), jwks.clone(), n] {
        for algorithm in ["HS256", "HS384", "HS512", "RS256"] {
            let forger = Signer::secret(&secret);
            let header = json!({ "alg": algorithm, "kid": "one" }).to_string();
            let token = forger.token_of("HS256", &header, &claims().to_string());
            assert!(by_file.verify(token.as_bytes(), NOW).is_err());
            assert!(by_set.verify(token.as_bytes(), NOW).is_err());
        }
    }
    // Not even where somebody lists both, which the configuration refuses: a set with a key of each kind.
    let both = json!({ "keys": [rsa.jwk("one"), Signer::secret(SECRET).jwk("two")] }).to_string();
    let shared = identity("algorithms = ['HS256']\njwks_file = 'FOLDER/jwks'", &[("jwks", &both)]);
    let token = Signer::secret(SECRET).token("HS256", Some("one"), &claims());
    assert_eq!(shared.verify(token.as_bytes(), NOW), Err(Invalid::Key));
}

#[test]
fn keys_are_chosen_by_name_and_algorithm() {
    let (one, two, curve) = (Signer::rsa(), Signer::rsa(), Signer::p256());
    let keys = json!({ "keys": [one.jwk("one"), two.jwk("two"), curve.jwk("one")] }).to_string();
    let set = identity("algorithms = ['RS256', 'ES256']\njwks_file = 'FOLDER/jwks'", &[("jwks", &keys)]);
    let says = |signer: &Signer, algorithm: &str, name: Option<&str>| {
        set.verify(signer.token(algorithm, name, &claims()).as_bytes(), NOW).map(|_| ())
    };
    assert_eq!(says(&one, "RS256", Some("one")), Ok(()));
    assert_eq!(says(&two, "RS256", Some("two")), Ok(()));
    assert_eq!(says(&curve, "ES256", Some("one")), Ok(()));
    assert_eq!(says(&one, "RS256", Some("two")), Err(Invalid::Signature));
    assert_eq!(says(&one, "RS256", Some("three")), Err(Invalid::Key));
    assert_eq!(says(&curve, "ES256", Some("two")), Err(Invalid::Key));
    assert_eq!(says(&one, "RS256", None), Err(Invalid::AnyKey));
    // The only one for its algorithm.
    assert_eq!(says(&curve, "ES256", None), Ok(()));
    // The only key of a file has no name that a token could get wrong.
    let alone = identity("algorithms = ['RS256']\nkey_file = 'FOLDER/key'", &[("key", &one.pem())]);
    assert!(alone.verify(one.token("RS256", Some("x"), &claims()).as_bytes(), NOW).is_ok());
}

#[test]
fn times_are_held_against_the_clock_with_some_leeway() {
    let seconds = |identity: &Identity, claims: Value| outcome(identity, &claims);
    let strict = shared("leeway = '0s'");
    assert_eq!(seconds(&strict, json!({ "exp": NOW + 1 })), Ok(()));
    assert_eq!(seconds(&strict, json!({ "exp": NOW })), Err(Invalid::Expired));
    assert_eq!(seconds(&strict, with("nbf", json!(NOW))), Ok(()));
    assert_eq!(seconds(&strict, with("nbf", json!(NOW + 1))), Err(Invalid::NotYet));
    let lenient = shared("leeway = '30s'");
    assert_eq!(seconds(&lenient, json!({ "exp": NOW - 29 })), Ok(()));
    assert_eq!(seconds(&lenient, json!({ "exp": NOW - 30 })), Err(Invalid::Expired));
    assert_eq!(seconds(&lenient, with("nbf", json!(NOW + 30))), Ok(()));
    assert_eq!(seconds(&lenient, with("nbf", json!(NOW + 31))), Err(Invalid::NotYet));
    // RFC 7519 §2: a NumericDate may have a fraction.
    assert_eq!(seconds(&strict, json!({ "exp": NOW as f64 + 1.5 })), Ok(()));
    assert_eq!(seconds(&strict, json!({ "exp": NOW as f64 + 0.5 })), Err(Invalid::Expired));
    for wrong in [json!("soon"), json!(-1), json!(null), json!([NOW + 60]), json!(true), json!(1e300)] {
        assert_eq!(seconds(&strict, with("exp", wrong.clone())), Err(Invalid::Time), "{wrong}");
        assert_eq!(seconds(&strict, with("nbf", wrong.clone())), Err(Invalid::Time), "{wrong}");
    }
    assert_eq!(seconds(&strict, with("exp", json!(u64::MAX))), Ok(()));
    assert_eq!(seconds(&strict, json!({ "sub": "ada" })), Err(Invalid::NoExpiry));
    let endless = shared("expiry = 'optional'");
    assert_eq!(seconds(&endless, json!({ "sub": "ada" })), Ok(()));
    assert_eq!(seconds(&endless, json!({ "exp": NOW - 60 })), Err(Invalid::Expired));
}

#[test]
fn issuer_and_audience_are_those_of_the_configuration() {
    let any = shared("");
    assert_eq!(outcome(&any, &with("iss", json!("https://a.test"))), Ok(()));
    // RFC 7519 §4.1.3: nobody here is named.
    assert_eq!(outcome(&any, &with("aud", json!("chat"))), Err(Invalid::Audience));
    let some = shared("issuers = ['https://a.test', 'b']\naudiences = ['chat', 'live']");
    let says = |issuer: Value, audience: Value| {
        let mut claims = with("iss", issuer);
        claims["aud"] = audience;
        outcome(&some, &claims)
    };
    assert_eq!(says(json!("https://a.test"), json!("chat")), Ok(()));
    assert_eq!(says(json!("b"), json!(["other", "live"])), Ok(()));
    for issuer in [json!("https://a.test/"), json!("B"), json!(["b"]), json!(1), json!(null), json!("")] {
        assert_eq!(says(issuer.clone(), json!("chat")), Err(Invalid::Issuer), "{issuer}");
    }
    for audience in
        [json!("chat "), json!([]), json!(["other"]), json!(["chat", 1]), json!({ "chat": 1 }), json!(null)]
    {
        assert_eq!(says(json!("b"), audience.clone()), Err(Invalid::Audience), "{audience}");
    }
    assert_eq!(outcome(&some, &with("iss", json!("b"))), Err(Invalid::Audience));
    assert_eq!(outcome(&some, &with("aud", json!("chat"))), Err(Invalid::Issuer));
}

#[test]
fn a_header_is_what_it_should_be() {
    let identity = shared("");
    let says = |header: &str| {
        let token = Signer::secret(SECRET).token_of("HS256", header, &claims().to_string());
        identity.verify(token.as_bytes(), NOW).map(|_| ())
    };
    for header in [
        r#"{"alg":"HS256"}"#,
        r#"{"alg":"HS256","typ":"jwt","more":[1]}"#,
        r#"{"typ":"at+JWT","alg":"HS256"}"#,
        r#"{"typ":"application/at+jwt","alg":"HS256"}"#,
        r#"{"alg":"HS\u0032\u00356"}"#,
    ] {
        assert_eq!(says(header), Ok(()), "{header}");
    }
    for (header, why) in [
        ("", Invalid::Form),
        ("{}", Invalid::Header),
        ("[]", Invalid::Header),
        ("\"HS256\"", Invalid::Header),
        (r#"{"alg":null}"#, Invalid::Header),
        (r#"{"alg":["HS256"]}"#, Invalid::Header),
        (r#"{"alg":"HS256","alg":"HS256"}"#, Invalid::Header),
        (r#"{"alg":"HS256"} {}"#, Invalid::Header),
        (r#"{"alg":"HS256","kid":1}"#, Invalid::Header),
        (r#"{"alg":"HS256","crit":["exp"]}"#, Invalid::Critical),
        (r#"{"alg":"HS256","crit":[]}"#, Invalid::Critical),
        (r#"{"alg":"HS256","crit":null}"#, Invalid::Critical),
        (r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#, Invalid::Critical),
        (r#"{"alg":"HS256","typ":"logout+jwt"}"#, Invalid::Type),
        (r#"{"alg":"HS256","typ":"dpop+jwt"}"#, Invalid::Type),
        (r#"{"alg":"HS256","typ":"application/"}"#, Invalid::Type),
        (r#"{"alg":"HS256","typ":""}"#, Invalid::Type),
    ] {
        assert_eq!(says(header), Err(why), "{header}");
    }
}

#[test]
fn claims_are_one_object_in_which_nothing_stands_twice() {
    let identity = shared("");
    let says = |claims: &str| {
        let token = Signer::secret(SECRET).token_of("HS256", r#"{"alg":"HS256"}"#, claims);
        identity.verify(token.as_bytes(), NOW).map(|_| ())
    };
    let later = NOW + 60;
    assert_eq!(says(&format!("{{\"exp\":{later}}}")), Ok(()));
    let deep = format!("{{\"exp\":{later},\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    for claims in [
        "[]",
        "null",
        "x",
        "\u{1}",
        &format!("{{\"exp\":{later}"),
        &format!("{{\"exp\":{later}}}}}"),
        &format!("{{\"exp\":{later},\"exp\":{later}}}"),
        &format!("{{\"sub\":\"ada\",\"exp\":{later},\"sub\":\"root\"}}"),
        // RFC 8259 §4: nor does anything in an object below.
        &format!("{{\"exp\":{later},\"realm\":{{\"roles\":[\"user\"],\"roles\":[\"admin\"]}}}}"),
        &format!("{{\"exp\":{later},\"realm\":{{\"roles\":1,\"\\u0072oles\":1}}}}"),
        &format!("{{\"exp\":{later},\"a\":[[{{\"b\":{{\"c\":null,\"d\":0,\"c\":null}}}}]]}}"),
        &deep,
    ] {
        assert_eq!(says(claims), Err(Invalid::Claims), "{claims:.60}");
    }
}

#[test]
fn a_token_is_three_parts_of_strict_base64url_of_bounded_length() {
    let identity = shared("");
    let good = Signer::secret(SECRET).token("HS256", None, &claims());
    assert!(identity.verify(good.as_bytes(), NOW).is_ok());
    let says = |token: &str| identity.verify(token.as_bytes(), NOW).map(|_| ());
    for bad in ["", ".", "..", "...", "a.b", "a.b.c.d", "a..c", "\r\n", "eyJ.eyJ.%0d%0a"] {
        assert_eq!(says(bad), Err(Invalid::Form), "{bad:?}");
    }
    for bad in [
        format!("{good}="),
        format!("{good}."),
        format!("{good}\r\n"),
        format!(" {good}"),
        format!("{good}\0"),
        good.replace('.', ".\n"),
        format!("{good}é"),
    ] {
        assert_eq!(says(&bad), Err(Invalid::Form), "{bad:?}");
    }
    // Bits behind the last byte: two texts for one signature.
    let last = good.chars().last().unwrap();
    let alike: Vec<String> = ('A'..='Z')
        .chain('a'..='z')
        .filter(|other| *other != last)
        .map(|other| format!("{}{other}", &good[..good.len() - 1]))
        .collect();
    assert!(alike.iter().all(|token| says(token).is_err()));

    let long = |bytes: usize| with("pad", json!("x".repeat(bytes)));
    let sign = |bytes| Signer::secret(SECRET).token("HS256", None, &long(bytes));
    let most = (0..8000).rev().find(|bytes| sign(*bytes).len() <= MAX_TOKEN_BYTES).unwrap();
    assert_eq!(says(&sign(most)), Ok(()));
    assert_eq!(says(&sign(most + 3)), Err(Invalid::TooLong));
    assert_eq!(says(&"x".repeat(1 << 24)), Err(Invalid::TooLong));
}

#[test]
fn claims_become_a_user_fields_and_permissions() {
    let says = "headers = { X-User = 'sub', X-Roles = 'realm.roles', 'X-Plan' = 'https://a.test/plan' }\n\
                permissions = { subscribe = 'topics.subscribe', publish = 'pub' }\nuser = 'name'";
    let identity = shared(says);
    let claims = json!({
        "exp": NOW + 60, "sub": "ada", "name": "Ada Lovelace", "realm": { "roles": ["a", "b,c"] },
        "https://a.test/plan": 3, "topics": { "subscribe": ["chat/*", "news"] }, "pub": "chat/lobby",
    });
    let token = Signer::secret(SECRET).token("HS256", None, &claims);
    let caller = identity.verify(token.as_bytes(), NOW).unwrap();
    assert_eq!(caller.user.as_deref(), Some("Ada Lovelace"));
    let fields: Vec<(&str, &str)> = caller.fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(fields, [("X-User", "ada"), ("X-Roles", r#"["a","b,c"]"#), ("X-Plan", "3")]);
    let permissions = caller.permissions.clone().unwrap();
    let subscribe = permissions.subscribe.as_ref().unwrap();
    assert!(subscribe.matches("chat/x") && subscribe.matches("news") && !subscribe.matches("other"));
    let publish = permissions.publish.as_ref().unwrap();
    assert!(publish.matches("chat/lobby") && !publish.matches("chat/x"));
    assert_eq!(permissions.presence, None);
    let shown = format!("{caller:?} {identity:?}");
    assert!(!shown.contains("Ada") && !shown.contains("chat/lobby"), "{shown}");

    // Without a claim its field is not there, and nothing is allowed.
    let token = Signer::secret(SECRET).token("HS256", None, &json!({ "exp": NOW + 60 }));
    let caller = identity.verify(token.as_bytes(), NOW).unwrap();
    assert!(caller.user.is_none() && caller.fields.is_empty());
    let permissions = caller.permissions.unwrap();
    assert!(permissions.subscribe.as_ref().is_some_and(TopicPatterns::is_empty));

    for (name, value, why) in [
        ("name", json!("a\nb"), Invalid::User),
        ("name", json!(""), Invalid::User),
        ("name", json!("x".repeat(257)), Invalid::User),
        ("name", json!(["a"]), Invalid::User),
        ("name", json!(true), Invalid::User),
        ("sub", json!("ada\r\nX-Admin: 1"), Invalid::Field),
        ("sub", json!("ada "), Invalid::Field),
        ("pub", json!(7), Invalid::Permissions),
        ("pub", json!(["a//b"]), Invalid::Permissions),
        ("pub", json!(["a", 1]), Invalid::Permissions),
        ("pub", json!(vec!["a"; 257]), Invalid::Permissions),
        ("topics", json!({ "subscribe": { "a": 1 } }), Invalid::Permissions),
    ] {
        assert_eq!(outcome(&identity, &with(name, value.clone())), Err(why), "{name} {value}");
    }
    assert_eq!(outcome(&identity, &with("name", json!(42))), Ok(()));
}

#[test]
fn every_kind_of_value_comes_through() {
    let identity = shared("headers = { X-All = 'all' }");
    let all = r#"{"b":true,"f":1.5,"i":-3,"l":["é\n",{},[]],"n":null,"u":18446744073709551615}"#;
    let claims = format!("{{\"exp\":{},\"all\":{all}}}", NOW + 60);
    let token = Signer::secret(SECRET).token_of("HS256", r#"{"alg":"HS256"}"#, &claims);
    let caller = identity.verify(token.as_bytes(), NOW).unwrap();
    assert_eq!(caller.fields, [("X-All".to_owned(), all.to_owned())]);
}

/// Two numbers beyond 64 bits may be read as one.
#[test]
fn a_number_that_cannot_be_told_exactly_is_nobodys_name() {
    let identity = shared("headers = { X-User = 'sub', X-More = 'more' }");
    let says = |claims: &str| {
        let claims = format!("{{\"exp\":{},{claims}}}", NOW + 60);
        let token = Signer::secret(SECRET).token_of("HS256", r#"{"alg":"HS256"}"#, &claims);
        identity.verify(token.as_bytes(), NOW).map(|caller| (caller.user.map(String::from), caller.fields))
    };
    for exact in ["0", "-9223372036854775808", "9007199254740993", "18446744073709551615"] {
        let (user, fields) = says(&format!("\"sub\":{exact}")).unwrap();
        assert_eq!(
            (user.as_deref(), &*fields),
            (Some(exact), &[("X-User".to_owned(), exact.to_owned())][..])
        );
    }
    for inexact in [
        "18446744073709551616",
        "18446744073709551617",
        "-9223372036854775809",
        "1e3",
        "42.0",
        "42.00000000000000000001",
    ] {
        assert_eq!(says(&format!("\"sub\":{inexact}")), Err(Invalid::Number), "{inexact}");
    }
    // In a field that is no name fractions are as good as doubles are.
    assert_eq!(says("\"sub\":\"ada\",\"more\":0.25").unwrap().1[1].1, "0.25");
    for inexact in ["18446744073709551617", "[{\"id\":18446744073709551617}]", "-9007199254740993.0"] {
        assert_eq!(says(&format!("\"sub\":\"ada\",\"more\":{inexact}")), Err(Invalid::Number), "{inexact}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_path() {
    let rsa = Signer::rsa();
    let set = |keys: Value| json!({ "keys": keys }).to_string();
    let says = |algorithms: &str, content: &str| {
        let text = format!("algorithms = [{algorithms}]\njwks_file = 'FOLDER/jwks'");
        judged(&text, &[("jwks", content)]).map(|_| ()).unwrap_err()
    };
    let at = |why: &str| format!("FOLDER/t.toml:7:13: FOLDER/jwks: {why}");
    let mut short = rsa.jwk("short");
    short["n"] = json!(short["n"].as_str().unwrap()[..168]);
    let (mut one, mut even) = (rsa.jwk("one"), rsa.jwk("even"));
    (one["e"], even["e"]) = (json!("AAE"), json!("AQAA"));
    let exponent = "the exponent of an RSA key is odd, 3 or more, and has at most 33 bits";
    let mut long = rsa.jwk("long");
    long["e"] = json!("AQAAAAAAAAAB");
    let mut halved = rsa.jwk("halved");
    let all = halved["n"].as_str().unwrap();
    halved["n"] = json!(format!("{}A", &all[..all.len() - 1]));
    // Neutral, of order 8, and 1 written as more than the prime; each with either sign.
    let weak = ["01", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85", "ee"];
    let weak = weak.map(|hex| {
        let mut point = [if hex == "ee" { 0xff } else { 0 }; 32];
        for (byte, digits) in point.iter_mut().zip(hex.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        }
        let mut key = Signer::ed25519().jwk("weak");
        key["x"] = json!(URL_SAFE_NO_PAD.encode(point));
        set(json!([key]))
    });
    for key in &weak {
        let why = "key 1 (\"weak\"): the key is no point under which one alone can sign";
        assert_eq!(says("'EdDSA'", key), at(why));
    }
    // There is no point with the y 2.
    let (mut off, two) = (Signer::ed25519().jwk("off"), [&[2][..], &[0; 31]].concat());
    off["x"] = json!(URL_SAFE_NO_PAD.encode(&two));
    let why = "key 1 (\"off\"): the key is no point of the curve of Ed25519";
    assert_eq!(says("'EdDSA'", &set(json!([off]))), at(why));
    let mut odd = Signer::p256().jwk("odd");
    odd["y"] = odd["x"].clone();
    let mut bad = Signer::ed25519().jwk("bad");
    bad["x"] = json!("a=");
    for (content, why) in [
        ("", "it is not JSON: line 1, column 0"),
        ("{\"keys\": [}", "it is not JSON: line 1, column 11"),
        ("\"s3cret\"", "it is no JSON Web Key Set: an object with a list `keys`"),
        ("{}", "it is no JSON Web Key Set: an object with a list `keys`"),
        (&set(json!([])), "none of its keys is for any of the algorithms"),
        (&set(json!([short])), "key 1 (\"short\"): an RSA key has 2048 to 8192 bits"),
        (&set(json!([one])), &format!("key 1 (\"one\"): {exponent}")),
        (&set(json!([long])), &format!("key 1 (\"long\"): {exponent}")),
        (
            &set(json!([halved])),
            "key 1 (\"halved\"): the key is broken, or of a kind that no algorithm here is for",
        ),
        (&set(json!([even])), &format!("key 1 (\"even\"): {exponent}")),
        (
            &set(json!([rsa.jwk("a"), odd])),
            "key 2 (\"odd\"): the key is broken, or of a kind that no algorithm here is for",
        ),
        (&set(json!([bad])), "`x` of key 1 (\"bad\") is not base64url"),
        (&set(json!([{ "kty": "EC", "kid": "c" }])), "key 1 (\"c\") has no `crv`"),
        (&set(json!([{ "kty": "RSA" }])), "key 1 has no `n`"),
        (
            &set(json!([rsa.jwk("a"), rsa.jwk("a")])),
            "key 2 (\"a\") has the name of key 1 (\"a\"), and both are for RS256",
        ),
        (&set(json!(vec![rsa.jwk("a"); 101])), "it has more than 100 keys"),
    ] {
        assert_eq!(says("'RS256', 'ES256', 'EdDSA'", content), at(why), "{content:.80}");
    }
    let weak = set(json!([Signer::secret("short").jwk("w")]));
    assert_eq!(says("'HS256'", &weak), at("key 1 (\"w\"): a secret for HS256 has at least 32 bytes"));

    let says = |algorithms: &str, content: &str| {
        let text = format!("algorithms = [{algorithms}]\nkey_file = 'FOLDER/key'");
        judged(&text, &[("key", content)]).map(|_| ()).unwrap_err()
    };
    let at = |why: &str| format!("FOLDER/t.toml:7:12: FOLDER/key: {why}");
    let both = rsa.pem() + &rsa.pem();
    for (content, why) in [
        ("nothing", "there is no public key in PEM in it (-----BEGIN PUBLIC KEY-----)"),
        (&both, "there is more than one key in it: use `jwks_file` for several"),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "it holds a private key: the public one is enough, and nobody else's is safe here",
        ),
        (
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "the key is broken, or of a kind that no algorithm here is for",
        ),
        (&Signer::p384().pem(), "the key is not for RS256"),
    ] {
        assert_eq!(says("'RS256'", content), at(why), "{content:.80}");
    }
    assert_eq!(says("'RS256', 'ES256'", &rsa.pem()), at("the key is not for ES256"));
    let info = [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], &two].concat();
    let body = base64::engine::general_purpose::STANDARD.encode(info);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    assert_eq!(says("'EdDSA'", &pem), at("the key is no point of the curve of Ed25519"));
}

#[test]
fn keys_for_something_else_are_passed_over_with_a_word() {
    let rsa = Signer::rsa();
    let change = |name: &str, member: &str, value: Value| {
        let mut key = rsa.jwk(name);
        key[member] = value;
        key
    };
    let keys = json!({ "keys": [
        rsa.jwk("good"),
        change("enc", "use", json!("enc")),
        change("ops", "key_ops", json!(["sign"])),
        change("alg", "alg", json!("RS512")),
        change("kty", "kty", json!("AKP")),
        { "kid": "none" },
        change("private", "d", json!("AAAA")),
        Signer::p384().jwk("curve"),
        change("signs", "use", json!("sig")),
    ], "more": 1 });
    let users = identity(
        "algorithms = ['RS256', 'PS256']\njwks_file = 'FOLDER/jwks'",
        &[("jwks", &keys.to_string())],
    );
    let told: Vec<String> = warnings(std::slice::from_ref(&users))
        .iter()
        .map(|problem| problem.headline().split("jwks: ").nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(
        told,
        [
            "key 2 (\"enc\") is passed over: its `use` is \"enc\", not \"sig\"",
            "key 3 (\"ops\") is passed over: \"verify\" is not among its `key_ops`",
            "key 4 (\"alg\") is passed over: its `alg` is \"RS512\", which is not in the list",
            "key 5 (\"kty\") is passed over: its `kty` is \"AKP\"",
            "key 6 is passed over: it has no `kty`, or something that is not the text it should be",
            "key 7 (\"private\") is a private key: whoever reads the file can sign with it",
            "key 8 (\"curve\") is passed over: none of the algorithms is for it",
        ]
    );
    for (name, outcome) in [("good", Ok(())), ("signs", Ok(())), ("enc", Err(Invalid::Key))] {
        let token = rsa.token("RS256", Some(name), &claims());
        assert_eq!(users.verify(token.as_bytes(), NOW).map(|_| ()), outcome, "{name}");
    }
    // A key's own algorithm is the only one that it is for.
    let own = json!({ "keys": [change("own", "alg", json!("PS256"))] }).to_string();
    let users = identity("algorithms = ['RS256', 'PS256']\njwks_file = 'FOLDER/jwks'", &[("jwks", &own)]);
    assert!(users.verify(rsa.token("PS256", Some("own"), &claims()).as_bytes(), NOW).is_ok());
    let other = rsa.token("RS256", Some("own"), &claims());
    assert_eq!(users.verify(other.as_bytes(), NOW), Err(Invalid::Key));
}

#[test]
fn files_that_were_not_read_believe_nobody() {
    for keys in ["jwks_file = '/none'", "key_file = '/none'"] {
        let text = format!(
            "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[[identity]]\nname = 'users'\n\
             algorithms = ['ES256']\n{keys}\n[[route]]\npath = '/'\nidentity = 'users'\necho = {{}}\n"
        );
        let config = tidegate_config::parse(&text, "t.toml").unwrap();
        let users = identities(&config).unwrap().remove(0);
        let token = Signer::p256().token("ES256", None, &claims());
        assert_eq!(users.verify(token.as_bytes(), NOW), Err(Invalid::Key));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever comes: it is judged, and only what was signed is believed.
    #[test]
    fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(shared("").verify(&bytes, NOW).is_err());
    }

    #[test]
    fn a_token_that_was_tampered_with_is_not_believed(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let identity = shared("");
        let good = Signer::secret(SECRET).token("HS256", None, &claims()).into_bytes();
        let mut bad = good.clone();
        let place = place.index(bad.len());
        bad[place] = byte;
        prop_assert_eq!(identity.verify(&bad, NOW).is_ok(), bad == good, "{} at {}", byte, place);
    }

    #[test]
    fn any_claims_are_judged(text in "\\PC{0,60}", number in any::<f64>()) {
        let identity = shared("headers = { X-A = 'a' }\npermissions = { publish = 'a' }");
        for value in [json!(text), json!(number), json!([text, number]), json!({ "a": text })] {
            for name in ["exp", "nbf", "sub", "aud", "iss", "a"] {
                let _ = outcome(&identity, &with(name, value.clone()));
            }
        }
    }
}

/// As [`tidegate_config::RequiredClaim`] says; the answers of hooks are tested with all ways in which claims differ.
#[test]
fn a_token_has_what_a_route_demands_once_it_is_valid() {
    let demanded = RequiredClaim { name: "realm.roles".to_owned(), values: vec!["admin".to_owned()] };
    let identity = shared("");
    for (claims, meets) in [
        (with("realm", json!({ "roles": ["guest", "admin"] })), true),
        (with("realm", json!({ "roles": ["guest"] })), false),
        (claims(), false),
    ] {
        let token = Signer::secret(SECRET).token("HS256", None, &claims);
        let caller = identity.verify(token.as_bytes(), NOW).expect("a valid token");
        assert_eq!(caller.meets(std::slice::from_ref(&demanded)), meets, "{claims}");
        assert!(!format!("{caller:?}").contains("admin"), "claims are not for logs");
    }
}
