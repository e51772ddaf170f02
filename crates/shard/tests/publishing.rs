//! What is known of who publishes, over generations of the configuration: it goes on with its route, and a route that gets the number
//! of one before has nothing of it.

mod stage;

use crate::stage::Stage;

const KEYS: &str = "keys = [{ name = \"k\", key = \"0123456789abcdef\" }]";

fn publish(path: &str, says: &str) -> String {
    format!("[[route]]\npath = \"{path}\"\npublish = {{ publish = [\"**\"], {says} }}\n")
}

/// With a route that stays, and a deadline of two seconds for those that do not.
fn config(routes: &str) -> String {
    let drain = "[drain]\nwindow = \"1s\"\ndeadline = \"2s\"\nreconnect_delay = \"1s\"\n";
    format!("{drain}{routes}[[route]]\npath = \"/stays\"\necho = {{}}\n")
}

fn adopt(stage: &mut Stage, routes: &str) {
    let text = format!("version = 1\n{}[[listener]]\nbind = \"127.0.0.1:1\"\n", config(routes));
    stage
        .adopt(tidegate_config::parse(&text, "test.toml").unwrap_or_else(|problems| panic!("{problems:#?}")));
}

/// Another route comes to be at the number of one.
fn replace(stage: &mut Stage, old: &str, new: &str, says: &str) {
    let number = stage.plan.named(old);
    adopt(stage, "");
    stage.pass(3);
    adopt(stage, &publish(new, says));
    assert_eq!(stage.plan.named(new), number);
}

/// Publishes so many messages in one request with these fields; gives what was answered.
fn post(stage: &mut Stage, path: &str, fields: &str, count: usize) -> String {
    let body = format!("[{}]", vec![r#"{"topic":"a","data":1,"once":"order-7"}"#; count].join(","));
    let client = stage.accept();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: gw.test\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{fields}\r\n{body}",
        body.len()
    );
    stage.send(client, request.as_bytes());
    stage.turns(3);
    String::from_utf8(stage.sent(client)).expect("UTF-8")
}

fn status(stage: &mut Stage, path: &str, count: usize) -> String {
    let answer = post(stage, path, "", count);
    answer.split(' ').nth(1).expect("a status").to_owned()
}

/// Whether a message is taken for one that was published before.
fn is_known(stage: &mut Stage, path: &str) -> bool {
    let answer = post(stage, path, "Authorization: Bearer 0123456789abcdef\r\n", 1);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    answer.contains("\"duplicate\":true")
}

#[test]
fn idempotency_keys_are_those_of_a_route_and_not_of_its_number() {
    let mut stage = Stage::of(&config(&publish("/a", KEYS)), 1);
    assert_eq!([is_known(&mut stage, "/a"), is_known(&mut stage, "/a")], [false, true]);
    // With another rate and one key more it is the same route.
    let more = KEYS.replace("}]", "}, { name = \"l\", key = \"fedcba9876543210\" }], rate = 9");
    adopt(&mut stage, &publish("/a", &more));
    assert!(is_known(&mut stage, "/a"));
    replace(&mut stage, "/a", "/b", KEYS);
    assert_eq!([is_known(&mut stage, "/b"), is_known(&mut stage, "/b")], [false, true]);
    // Several at a time have several.
    adopt(&mut stage, &(publish("/b", KEYS) + &publish("/c", KEYS)));
    assert_eq!([is_known(&mut stage, "/c"), is_known(&mut stage, "/b")], [false, true]);
}

#[test]
fn what_a_route_owes_at_its_rate_is_nothing_to_the_next_one_with_its_number() {
    let mut stage = Stage::of(&config(&publish("/a", "rate = 10")), 1);
    // More than what it takes in the seconds of its departure.
    assert_eq!([1_000, 1].map(|count| status(&mut stage, "/a", count)), ["200", "429"]);
    replace(&mut stage, "/a", "/b", "rate = 10");
    assert_eq!([10, 1].map(|count| status(&mut stage, "/b", count)), ["200", "429"]);
}

#[test]
fn what_was_published_at_another_rate_is_not_paid_for_at_the_new_one() {
    let mut stage = Stage::of(&config(&publish("/a", "rate = 1_000")), 1);
    assert_eq!([1_000, 1].map(|count| status(&mut stage, "/a", count)), ["200", "429"]);
    adopt(&mut stage, &publish("/a", "rate = 1"));
    // Two seconds at the old rate, a thousand at the new one.
    stage.pass(2);
    assert_eq!([1, 1].map(|count| status(&mut stage, "/a", count)), ["200", "429"]);
}

/// As the token of an identity is: two readers of one request must not see two callers.
#[test]
fn a_key_is_read_out_of_a_request_as_a_token_is() {
    let mut stage = Stage::of(&config(&publish("/a", KEYS)), 1);
    let (right, wrong) = ("Bearer 0123456789abcdef", "Bearer fedcba9876543210");
    for (values, expected) in [
        (&[right][..], "200"),
        (&["bEARER  0123456789abcdef \t"], "200"),
        (&["Basic YTpi", right], "200"),
        (&[right, right], "200"),
        (&[right, "Bearer "], "200"),
        (&[], "401"),
        (&[wrong], "401"),
        (&[wrong, right], "401"),
        (&[right, wrong], "401"),
        (&["0123456789abcdef"], "401"),
        (&["Bearer"], "401"),
        (&["Bearer\t0123456789abcdef"], "401"),
        (&["Basic 0123456789abcdef"], "401"),
        (&["Bearer 0123456789abcdef 0123456789abcdef"], "401"),
        (&["Bearer \u{fc}"], "401"),
    ] {
        let fields: String = values.iter().map(|value| format!("Authorization: {value}\r\n")).collect();
        let answer = post(&mut stage, "/a", &fields, 1);
        assert_eq!(answer.split(' ').nth(1), Some(expected), "{values:?} {answer}");
    }
}
