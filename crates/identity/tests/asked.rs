//! Keys that are fetched, and answers of hooks: what is believed of them, and what is not.

// Shared with the gateway's tests.
#[allow(dead_code)]
#[path = "../../gateway/tests/harness/tokens.rs"]
mod tokens;

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_config::RequiredClaim;
use tidegate_identity::{Answer, Caller, Identity, Invalid, identities, identities_after};

use crate::tokens::Signer;

const NOW: u64 = 1_800_000_000;

fn config(identities: &str) -> tidegate_config::Config {
    let text = format!(
        "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n{identities}\n[[route]]\npath = '/echo'\necho = {{}}\n"
    );
    tidegate_config::parse(&text, "t.toml").unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn fetched(name: &str, url: &str, says: &str) -> String {
    format!("[[identity]]\nname = '{name}'\nalgorithms = ['ES256']\njwks_url = '{url}'\n{says}\n")
}

fn one(identities_text: &str) -> Arc<Identity> {
    identities(&config(identities_text)).expect("nothing is wrong").remove(0)
}

fn set(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

fn token(signer: &Signer, name: &str) -> Vec<u8> {
    signer.token("ES256", Some(name), &json!({ "sub": "ada", "exp": NOW + 60 })).into_bytes()
}

#[test]
fn before_keys_came_nobody_knows_and_bad_ones_change_nothing() {
    let identity = one(&fetched("a", "https://a.test/keys", ""));
    let keys = identity.fetched().expect("they are fetched");
    let (old, new) = (Signer::p256(), Signer::p256());
    assert_eq!(identity.verify(&token(&old, "old"), NOW), Err(Invalid::NoKeys));
    assert_eq!(identity.verify(b"no token", NOW), Err(Invalid::Form), "what is none needs no keys");
    let put = keys.put(&set(&[old.jwk("old")]), NOW).expect("a right set");
    assert_eq!((put.keys, put.warnings.len()), (1, 0));
    assert!(identity.verify(&token(&old, "old"), NOW).is_ok());
    for bad in [&b"{"[..], b"[]", b"{\"keys\":[]}", b"\xff", &set(&[json!({"kty": "EC", "kid": "x"})])] {
        assert!(keys.put(bad, NOW).is_err(), "{}", String::from_utf8_lossy(bad));
        assert!(identity.verify(&token(&old, "old"), NOW).is_ok());
    }
    let private = json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "s" });
    let error = keys.put(&set(&[private]), NOW).expect_err("nothing that can be used");
    assert!(!error.contains("c2VjcmV0"), "{error}");
    assert_eq!(keys.fetches().fetched_unix_seconds, NOW);
    keys.put(&set(&[new.jwk("new")]), NOW + 7).expect("a right set");
    assert_eq!(identity.verify(&token(&old, "old"), NOW), Err(Invalid::Key));
    assert!(identity.verify(&token(&new, "new"), NOW).is_ok());
    let fetches = keys.fetches();
    assert_eq!((fetches.keys, fetches.fetched, fetches.fetched_unix_seconds), (1, 2, NOW + 7));
}

#[test]
fn what_is_wanted_is_wanted_once_until_it_is_looked_for() {
    let identity = one(&fetched("a", "https://a.test/keys", ""));
    let keys = identity.fetched().expect("they are fetched");
    assert_eq!([keys.want(), keys.want()], [true, false]);
    keys.begin();
    assert_eq!([keys.want(), keys.want()], [true, false]);
}

#[test]
fn keys_outlive_what_leaves_their_url_and_algorithms_alone() {
    let before = identities(&config(&fetched("a", "https://a.test/keys", ""))).expect("nothing is wrong");
    let signer = Signer::p256();
    before[0].fetched().expect("they are fetched").put(&set(&[signer.jwk("one")]), NOW).expect("a right set");
    for (next, stays) in [
        (fetched("b", "https://a.test/keys", "leeway = '9s'\njwks_interval = '1m'"), true),
        (fetched("a", "https://a.test/other", ""), false),
        (fetched("a", "https://a.test/keys", "").replace("'ES256'", "'ES256', 'ES384'"), false),
    ] {
        let next = identities_after(&config(&next), &before).expect("nothing is wrong").remove(0);
        let judged = next.verify(&token(&signer, "one"), NOW);
        assert_eq!(judged.map(|_| ()), if stays { Ok(()) } else { Err(Invalid::NoKeys) });
    }
}

/// Whose settings a reload leaves alone is judged by the identity of before: its keys must be those that are fetched from then on.
#[test]
fn identities_with_one_url_have_one_key_set_from_the_start_on() {
    let url = "https://a.test/keys";
    let other_algorithms = fetched("c", url, "").replace("'ES256'", "'ES384'");
    let text = config(&(fetched("a", url, "") + &fetched("b", url, "leeway = '9s'") + &other_algorithms));
    let before = identities(&text).expect("nothing is wrong");
    let after = identities_after(&text, &before).expect("nothing is wrong");
    let keys = |identity: &Arc<Identity>| Arc::clone(identity.fetched().expect("they are fetched"));
    for (before, after) in before.iter().zip(&after) {
        assert!(Arc::ptr_eq(&keys(before), &keys(after)), "{}", before.rules().name);
    }
    assert!(Arc::ptr_eq(&keys(&before[0]), &keys(&before[1])));
    assert!(!Arc::ptr_eq(&keys(&before[0]), &keys(&before[2])), "they are for something else");
}

const HOOK: &str = "[[identity]]\nname = 'a'\nleeway = '5s'\nheaders = { X-User = 'sub' }\n\
    permissions = { subscribe = 'topics' }\nhook = { url = 'https://a.test/', max_in_flight = 2 }\n";

/// What a route demands that has these claims.
fn demands(claims: &str) -> Vec<RequiredClaim> {
    let text = format!(
        "{HOOK}[[route]]\npath = '/demanding'\nidentity = 'a'\necho = {{}}\nclaims = {{ {claims} }}\n"
    );
    config(&text).routes.remove(0).claims
}

#[test]
fn a_caller_meets_what_a_route_demands_or_does_not() {
    let identity = one(HOOK);
    for (claims, demanded, meets) in [
        (r#"{"role":"admin"}"#, "role = 'admin'", true),
        (r#"{"role":"admin"}"#, "role = ['ops', 'admin']", true),
        (r#"{"role":"Admin"}"#, "role = ['ops', 'admin']", false),
        (r#"{"role":"admin "}"#, "role = 'admin'", false),
        (r#"{"role":""}"#, "role = 'admin'", false),
        (r#"{"role":null}"#, "role = 'null'", false),
        (r#"{}"#, "role = 'admin'", false),
        ("", "role = 'admin'", false),
        // A list has one of them: more are no matter, and a text is no list between spaces.
        (r#"{"role":["guest","admin"]}"#, "role = ['ops', 'admin']", true),
        (r#"{"role":["guest",7,{},"admin"]}"#, "role = 'admin'", true),
        (r#"{"role":["guest"]}"#, "role = ['ops', 'admin']", false),
        (r#"{"role":[]}"#, "role = 'admin'", false),
        (r#"{"role":[["admin"]]}"#, "role = 'admin'", false),
        (r#"{"role":"guest admin"}"#, "role = 'admin'", false),
        (r#"{"role":{"admin":true}}"#, "role = 'admin'", false),
        // As JSON writes it.
        (r#"{"vip":true}"#, "vip = 'true'", true),
        (r#"{"vip":false}"#, "vip = 'true'", false),
        (r#"{"vip":"true"}"#, "vip = 'true'", true),
        (r#"{"level":5}"#, "level = ['4', '5']", true),
        (r#"{"level":-5}"#, "level = '-5'", true),
        (r#"{"level":5}"#, "level = ['05', '5.0', '+5']", false),
        (r#"{"level":[1,5]}"#, "level = '5'", true),
        (r#"{"level":5.0}"#, "level = ['5', '5.0']", false),
        (r#"{"level":1e3}"#, "level = ['1000', '1e3', '1000.0']", false),
        (r#"{"level":18446744073709551615}"#, "level = '18446744073709551615'", true),
        (
            r#"{"level":18446744073709551616}"#,
            "level = ['18446744073709551616', '1.8446744073709552e19']",
            false,
        ),
        // Names: as they stand there, or with dots that lead into objects.
        (r#"{"realm":{"roles":["admin"]}}"#, "'realm.roles' = 'admin'", true),
        (r#"{"realm.roles":"admin"}"#, "'realm.roles' = 'admin'", true),
        (r#"{"realm.roles":"guest","realm":{"roles":["admin"]}}"#, "'realm.roles' = 'admin'", false),
        (r#"{"realm":["admin"]}"#, "'realm.roles' = 'admin'", false),
        (r#"{"roles":["admin"]}"#, "'realm.roles' = 'admin'", false),
        (r#"{"https://a.test/role":"admin"}"#, "'https://a.test/role' = 'admin'", true),
        // All of them.
        (r#"{"role":"admin","plan":"gold"}"#, "role = 'admin', plan = ['gold', 'silver']", true),
        (r#"{"role":"admin","plan":"lead"}"#, "role = 'admin', plan = ['gold', 'silver']", false),
        (r#"{"role":"admin"}"#, "role = 'admin', plan = ['gold', 'silver']", false),
    ] {
        assert_eq!(allowed(&identity, claims).meets(&demands(demanded)), meets, "{claims} {demanded}");
    }
    assert!(allowed(&identity, "").meets(&[]), "a route that demands nothing");
}

fn allowed(identity: &Identity, body: &str) -> Caller {
    match identity.judge_answer(body.as_bytes(), NOW) {
        Ok(Answer::Allowed(caller)) => caller,
        other => panic!("{body}: {other:?}"),
    }
}

#[test]
fn an_answer_says_who_calls_as_a_token_does() {
    let identity = one(HOOK);
    for empty in ["", " \r\n", "{}", "{\"allow\":true}"] {
        let caller = allowed(&identity, empty);
        assert_eq!((caller.user, caller.ends, caller.fields.len()), (None, None, 0), "{empty}");
        let permissions = caller.permissions.expect("a claim is named");
        assert_eq!(
            permissions.subscribe,
            Some(tidegate_config::TopicPatterns::default()),
            "nothing is allowed"
        );
    }
    let body = json!({ "sub": "ada", "exp": NOW + 10, "topics": ["a/*"], "other": {} }).to_string();
    let caller = allowed(&identity, &body);
    assert_eq!((caller.user.as_deref(), caller.ends), (Some("ada"), Some(NOW + 15)));
    assert_eq!(caller.fields, [("X-User".to_owned(), "ada".to_owned())]);
    assert_eq!(identity.judge_answer(b"{\"allow\":false,\"sub\":\"ada\"}", NOW), Ok(Answer::Denied));
    for (body, why) in [
        ("[]", Invalid::Claims),
        ("\"yes\"", Invalid::Claims),
        ("{\"sub\":\"a\",\"sub\":\"b\"}", Invalid::Claims),
        ("{} {}", Invalid::Claims),
        ("{\"allow\":\"false\"}", Invalid::Claims),
        ("{\"allow\":0}", Invalid::Claims),
        ("{\"allow\":null}", Invalid::Claims),
        ("{\"exp\":\"soon\"}", Invalid::Time),
        ("{\"exp\":1}", Invalid::Expired),
        ("{\"nbf\":9999999999}", Invalid::NotYet),
        ("{\"sub\":[]}", Invalid::User),
        ("{\"topics\":\"a//b\"}", Invalid::Permissions),
    ] {
        assert_eq!(identity.judge_answer(body.as_bytes(), NOW), Err(why), "{body}");
    }
    let strict = one(&HOOK.replace("leeway", "expiry = 'required'\nleeway"));
    assert_eq!(strict.judge_answer(b"{}", NOW), Err(Invalid::NoExpiry));
}

#[test]
fn so_many_wait_for_a_hook_and_places_come_back() {
    let before = identities(&config(HOOK)).expect("nothing is wrong");
    let places: Vec<_> = (0..3).map(|_| before[0].enter_hook()).collect();
    assert_eq!(places.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false]);
    // Those who wait wait for the next generation, too.
    let next = identities_after(&config(&HOOK.replace("= 2", "= 3")), &before).expect("nothing is wrong");
    assert_eq!(next[0].in_flight(), 2);
    let one_more = next[0].enter_hook();
    assert!(one_more.is_some() && next[0].enter_hook().is_none());
    drop((places, one_more));
    assert_eq!((before[0].in_flight(), next[0].in_flight()), (0, 0));
    let tokens = one(&fetched("a", "https://a.test/keys", ""));
    assert!(tokens.enter_hook().is_none(), "it has no hook");
}

/// How many wait is told by the identity that a generation has; who was there before may judge by the one of before.
#[test]
fn hooks_with_one_url_have_places_of_their_own_in_every_generation() {
    let hook = |name: &str, url: &str, most: u32| {
        format!("[[identity]]\nname = '{name}'\nhook = {{ url = '{url}', max_in_flight = {most} }}\n")
    };
    let (u, v) = ("https://a.test/", "https://b.test/");
    let present =
        identities(&config(&(hook("a", u, 8) + &hook("b", u, 8) + &hook("v", v, 8)))).expect("right");
    // So many wait for each.
    let places: Vec<_> =
        present.iter().zip(1..).flat_map(|(of, most)| (0..most).map(|_| of.enter_hook())).collect();
    assert!(places.iter().all(Option::is_some));
    for (next, waiting) in [
        (hook("a", u, 8) + &hook("b", u, 8) + &hook("v", v, 8), &[1, 2, 3][..]),
        (hook("b", u, 9) + &hook("a", u, 9), &[2, 1]),
        // A new name beside those of before is another hook.
        (hook("c", u, 8) + &hook("a", u, 8) + &hook("b", u, 8), &[0, 1, 2]),
        // One in the place of those of before is what became of one of them, and no two are.
        (hook("b", u, 8) + &hook("c", u, 8) + &hook("d", u, 8), &[2, 1, 0]),
        // Whoever asks somebody else asks anew, under whichever name; who else asks those of before goes on with what waits for them.
        (hook("a", v, 8) + &hook("v", u, 8), &[3, 1]),
        (hook("v", u, 8), &[1]),
        (hook("a", "https://c.test/", 8), &[0]),
    ] {
        let next = identities_after(&config(&next), &present).expect("nothing is wrong");
        let counts: Vec<usize> = next.iter().map(|identity| identity.in_flight()).collect();
        assert_eq!(counts, waiting, "{:?}", next.iter().map(|one| &one.rules().name).collect::<Vec<_>>());
    }
}

proptest! {
    #[test]
    fn no_answer_and_no_set_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let identity = one(HOOK);
        let _ = identity.judge_answer(&bytes, NOW);
        let identity = one(&fetched("a", "https://a.test/keys", ""));
        let _ = identity.fetched().expect("they are fetched").put(&bytes, NOW);
    }

    #[test]
    fn what_is_no_clear_yes_lets_nobody_in(text in "[ -~]{0,40}") {
        let identity = one(HOOK);
        if let Ok(Answer::Allowed(_)) = identity.judge_answer(text.as_bytes(), NOW) {
            let object = serde_json::from_str::<serde_json::Map<String, Value>>(&text);
            prop_assert!(text.trim().is_empty() || object.is_ok_and(|object| object.get("allow").is_none_or(|yes| *yes == json!(true))));
        }
    }
}
