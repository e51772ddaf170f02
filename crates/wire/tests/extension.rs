//! Negotiation of permessage-deflate: RFC 6455 §9.1, RFC 7692 §5 and §7.1.

use proptest::prelude::*;
use tidegate_wire::extension::{
    BadAnswer, DeflateOffer, DeflateParams, DeflatePolicy, ExtensionOffers, ParamValue, negotiate,
};

const TAKEOVER: DeflatePolicy = DeflatePolicy { context_takeover: true, max_window_bits: 15 };

/// The answer to one field, as its text.
fn answer(value: &str, policy: &DeflatePolicy) -> Option<String> {
    negotiate(&ExtensionOffers::new(vec![value]), policy).map(|params| params.to_string())
}

fn taken(value: &str) -> Option<String> {
    answer(value, &TAKEOVER)
}

#[test]
fn rfc7692_7_1_each_parameter_is_answered() {
    for (offer, expected) in [
        ("permessage-deflate", "permessage-deflate"),
        ("permessage-deflate; server_no_context_takeover", "permessage-deflate; server_no_context_takeover"),
        ("permessage-deflate; client_no_context_takeover", "permessage-deflate; client_no_context_takeover"),
        ("permessage-deflate; server_max_window_bits=10", "permessage-deflate; server_max_window_bits=10"),
        // A server that takes the offer names the parameter, even where it limits nothing.
        ("permessage-deflate; server_max_window_bits=15", "permessage-deflate; server_max_window_bits=15"),
        ("permessage-deflate; client_max_window_bits", "permessage-deflate"),
        ("permessage-deflate; client_max_window_bits=15", "permessage-deflate"),
        ("permessage-deflate; client_max_window_bits=9", "permessage-deflate; client_max_window_bits=9"),
        ("permessage-deflate; client_max_window_bits=8", "permessage-deflate; client_max_window_bits=8"),
        (
            "permessage-deflate; client_max_window_bits=11; server_max_window_bits=9; client_no_context_takeover; \
             server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9; \
             client_max_window_bits=11",
        ),
    ] {
        assert_eq!(taken(offer).as_deref(), Some(expected), "{offer}");
    }
}

#[test]
fn rfc7692_7_1_1_without_takeover_both_sides_are_told() {
    let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for offer in ["permessage-deflate", both, "permessage-deflate; client_max_window_bits"] {
        assert_eq!(answer(offer, &DeflatePolicy::default()).as_deref(), Some(both));
    }
}

#[test]
fn rfc7692_7_1_2_1_the_server_may_name_a_smaller_window() {
    let policy = DeflatePolicy { context_takeover: true, max_window_bits: 11 };
    for (offer, bits) in [("", 11), ("; server_max_window_bits=15", 11), ("; server_max_window_bits=9", 9)] {
        let expected = format!("permessage-deflate; server_max_window_bits={bits}");
        assert_eq!(answer(&format!("permessage-deflate{offer}"), &policy), Some(expected));
    }
    for (max_window_bits, bits) in [(0, 9), (8, 9), (200, 15)] {
        let policy = DeflatePolicy { max_window_bits, ..TAKEOVER };
        let params = negotiate(&ExtensionOffers::new(vec!["permessage-deflate"]), &policy).expect("taken");
        assert_eq!(params.server_max_window_bits, bits);
    }
}

/// Row D01.
#[test]
fn rfc7692_7_1_2_only_numbers_from_8_to_15_are_windows() {
    for name in ["client_max_window_bits", "server_max_window_bits"] {
        for value in [
            "7",
            "16",
            "08",
            "015",
            "\"\"",
            "-1",
            "9x",
            "0",
            "1",
            "150",
            "1e1",
            "+9",
            "0x9",
            "99999999999999999999",
        ] {
            assert_eq!(taken(&format!("permessage-deflate; {name}={value}")), None, "{name}={value}");
        }
        for bits in 9..=15 {
            assert!(taken(&format!("permessage-deflate; {name}={bits}")).is_some());
        }
    }
    // zlib cannot deflate into 256 bytes, and a parameter without its value is invalid.
    assert_eq!(taken("permessage-deflate; server_max_window_bits=8"), None);
    assert_eq!(taken("permessage-deflate; server_max_window_bits"), None);
}

/// Row D03.
#[test]
fn rfc7692_7_1_an_invalid_offer_is_declined_and_the_next_one_tried() {
    for invalid in [
        "client_no_context_takeover; client_no_context_takeover",
        "server_no_context_takeover; server_no_context_takeover",
        "server_max_window_bits=10; server_max_window_bits=10",
        "client_max_window_bits; client_max_window_bits",
        "client_max_window_bits; client_max_window_bits=10",
        "client_no_context_takeover=1",
        "server_no_context_takeover=\"\"",
        "unknown",
        "unknown=1",
        "Server_no_context_takeover",
    ] {
        let offer = format!("permessage-deflate; {invalid}");
        assert_eq!(taken(&offer), None, "{offer}");
        let next = format!("{offer}, permessage-deflate; server_max_window_bits=12");
        assert_eq!(taken(&next).as_deref(), Some("permessage-deflate; server_max_window_bits=12"), "{next}");
    }
}

/// Rows D04 and D05.
#[test]
fn rfc7692_5_1_the_first_acceptable_of_many_offers_is_answered_once() {
    let mut offers = vec!["permessage-deflate; server_max_window_bits=8"; 49];
    offers.push("permessage-deflate; server_max_window_bits=13");
    offers.push("permessage-deflate; server_max_window_bits=14");
    let expected = "permessage-deflate; server_max_window_bits=13";
    assert_eq!(taken(&offers.join(", ")).as_deref(), Some(expected));
    let fields = negotiate(&ExtensionOffers::new(offers), &TAKEOVER).expect("taken");
    assert_eq!(fields.to_string(), expected);
    assert_eq!(taken("permessage-deflate, permessage-deflate").as_deref(), Some("permessage-deflate"));
}

/// Rows W17 and W25.
#[test]
fn unknown_extensions_are_ignored() {
    for other in [
        "constructor",
        "__proto__",
        ",;constructor",
        "deflate-frame",
        "x-webkit-deflate-frame",
        "Permessage-Deflate",
    ] {
        assert_eq!(taken(other), None);
    }
    for offers in [
        "mux; max=4; x=\"a,b;\\\"c\", permessage-deflate",
        "a,,b ,\t, permessage-deflate;client_max_window_bits,,",
    ] {
        assert_eq!(taken(offers).as_deref(), Some("permessage-deflate"), "{offers}");
    }
    assert_eq!(taken(""), None);
    assert!(ExtensionOffers::new(vec![]).is_empty());
    assert_eq!(negotiate(&ExtensionOffers::new(vec![]), &TAKEOVER), None);
}

#[test]
fn rfc6455_9_1_values_may_be_quoted() {
    for value in ["\"10\"", "\"1\\0\"", "\"\\1\\0\"", " 10", "\"10\" "] {
        let offer = format!("permessage-deflate ;\tserver_max_window_bits ={value}");
        assert_eq!(
            taken(&offer).as_deref(),
            Some("permessage-deflate; server_max_window_bits=10"),
            "{offer}"
        );
    }
    for value in ["\" 10\"", "\"10 \"", "\"\\\\10\"", "\"1\"0"] {
        assert_eq!(taken(&format!("permessage-deflate; server_max_window_bits={value}")), None, "{value}");
    }
}

#[test]
fn rfc6455_9_1_a_malformed_list_negotiates_nothing() {
    for malformed in [
        ";",
        "permessage-deflate;",
        "permessage-deflate; ;",
        "permessage-deflate; =1",
        "permessage-deflate; a=",
        "permessage-deflate; a=, b",
        "permessage-deflate; a=\"",
        "permessage-deflate; a=\"\\\"",
        "permessage-deflate; a=\"1\"2",
        "permessage-deflate a",
        "permessage-deflate; a b",
        "permessage-deflate, permessage-deflate; client_max_window_bits=\"10",
        "permessage-deflate, @",
        "permessage-deflate, é",
    ] {
        let offers = ExtensionOffers::new(vec![malformed]);
        assert!(offers.check().is_err(), "{malformed}");
        assert_eq!(negotiate(&offers, &TAKEOVER), None, "{malformed}");
        // A quote does not reach into the next field.
        assert!(ExtensionOffers::new(vec![malformed, "a\", permessage-deflate"]).check().is_err());
    }
}

#[test]
fn elements_and_parameters_are_read_as_they_stand() {
    let offers = ExtensionOffers::new(vec!["a, b ; c;d = e ; f=\"g,\\\";h\" ,", "i"]);
    let read: Vec<_> = offers.extensions().map(|extension| extension.expect("well formed")).collect();
    assert_eq!(read.iter().map(|e| e.raw).collect::<Vec<_>>(), ["a", "b ; c;d = e ; f=\"g,\\\";h\"", "i"]);
    let params: Vec<_> = read[1].params().map(|param| (param.name, param.value)).collect();
    let expected =
        [("c", ParamValue::Absent), ("d", ParamValue::Token("e")), ("f", ParamValue::Quoted("g,\\\";h"))];
    assert_eq!(params, expected);
}

#[test]
fn a_client_checks_every_parameter_of_the_answer() {
    let plain = DeflateOffer::default();
    let snct = DeflateOffer { server_no_context_takeover: true, ..plain };
    let cnct = DeflateOffer { client_no_context_takeover: true, ..plain };
    let server_12 = DeflateOffer { server_max_window_bits: Some(12), ..plain };
    let client_12 = DeflateOffer { client_max_window_bits: Some(12), ..plain };
    let client_any = DeflateOffer { client_max_window_bits: Some(15), ..plain };
    for (offer, response, expected) in [
        (plain, "permessage-deflate", Ok("permessage-deflate")),
        (
            plain,
            "permessage-deflate; server_no_context_takeover",
            Ok("permessage-deflate; server_no_context_takeover"),
        ),
        (
            plain,
            "permessage-deflate; client_no_context_takeover",
            Ok("permessage-deflate; client_no_context_takeover"),
        ),
        (
            plain,
            "permessage-deflate; server_max_window_bits=8",
            Ok("permessage-deflate; server_max_window_bits=8"),
        ),
        (plain, "permessage-deflate; client_max_window_bits=12", Err(BadAnswer::NotOffered)),
        (plain, "permessage-deflate; client_max_window_bits", Err(BadAnswer::Invalid)),
        (plain, "permessage-deflate; x", Err(BadAnswer::Invalid)),
        (plain, "permessage-deflate; server_no_context_takeover=1", Err(BadAnswer::Invalid)),
        (plain, "permessage-deflate; server_max_window_bits=16", Err(BadAnswer::Invalid)),
        (
            plain,
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            Err(BadAnswer::Repeated),
        ),
        (plain, "permessage-deflate, permessage-deflate", Err(BadAnswer::Repeated)),
        (plain, "permessage-deflate, mux", Err(BadAnswer::NotOffered)),
        (plain, "mux", Err(BadAnswer::NotOffered)),
        (plain, "permessage-deflate;", Err(BadAnswer::Malformed)),
        (snct, "permessage-deflate", Err(BadAnswer::Ignored)),
        (
            snct,
            "permessage-deflate; server_no_context_takeover",
            Ok("permessage-deflate; server_no_context_takeover"),
        ),
        // A hint that a server may pass over; this side keeps to it all the same.
        (cnct, "permessage-deflate", Ok("permessage-deflate; client_no_context_takeover")),
        (server_12, "permessage-deflate", Err(BadAnswer::Ignored)),
        (server_12, "permessage-deflate; server_max_window_bits=13", Err(BadAnswer::Widened)),
        (
            server_12,
            "permessage-deflate; server_max_window_bits=12",
            Ok("permessage-deflate; server_max_window_bits=12"),
        ),
        (
            server_12,
            "permessage-deflate; server_max_window_bits=9",
            Ok("permessage-deflate; server_max_window_bits=9"),
        ),
        (client_12, "permessage-deflate", Ok("permessage-deflate; client_max_window_bits=12")),
        (client_12, "permessage-deflate; client_max_window_bits=13", Err(BadAnswer::Widened)),
        (
            client_12,
            "permessage-deflate; client_max_window_bits=\"9\"",
            Ok("permessage-deflate; client_max_window_bits=9"),
        ),
        (
            client_any,
            "permessage-deflate; client_max_window_bits=9",
            Ok("permessage-deflate; client_max_window_bits=9"),
        ),
        (client_any, "permessage-deflate; client_max_window_bits=8", Err(BadAnswer::Unsupported)),
        (client_any, "permessage-deflate", Ok("permessage-deflate")),
    ] {
        let verdict = offer.verify([response]).map(|params| params.expect("an answer").to_string());
        assert_eq!(verdict.as_deref(), expected.as_ref().copied(), "{offer} / {response}");
    }
    assert_eq!(plain.verify([]), Ok(None));
    assert_eq!(plain.verify([" ", ","]), Ok(None));
    assert_eq!(plain.verify(["permessage-deflate", "permessage-deflate"]), Err(BadAnswer::Repeated));
}

#[test]
fn an_answer_handed_through_must_fit_an_offer() {
    let offers = ExtensionOffers::new(vec![
        "mux, permessage-deflate; server_max_window_bits=10",
        "permessage-deflate; client_max_window_bits",
    ]);
    for (response, fits) in [
        ("permessage-deflate; server_max_window_bits=10", true),
        ("permessage-deflate; client_max_window_bits=8", true),
        ("permessage-deflate", true),
        ("permessage-deflate; server_max_window_bits=15", true),
        ("permessage-deflate; server_max_window_bits=11; client_max_window_bits=16", false),
        ("mux", false),
    ] {
        assert_eq!(offers.verify([response]).is_ok(), fits, "{response}");
    }
    assert_eq!(offers.verify([]), Ok(None));
    let none = ExtensionOffers::default();
    assert_eq!(none.verify(["permessage-deflate"]), Err(BadAnswer::NotOffered));
    assert_eq!(none.verify([]), Ok(None));
}

fn offer() -> impl Strategy<Value = DeflateOffer> {
    let bits = || prop::option::of(8..=15_u8);
    (any::<bool>(), any::<bool>(), bits(), bits()).prop_map(|(server, client, server_bits, client_bits)| {
        DeflateOffer {
            server_no_context_takeover: server,
            client_no_context_takeover: client,
            server_max_window_bits: server_bits,
            client_max_window_bits: client_bits,
        }
    })
}

proptest! {
    /// Both ends come to the same understanding, or the server has a reason to decline.
    #[test]
    fn both_ends_agree(
        offers in prop::collection::vec(offer(), 1..4),
        context_takeover in any::<bool>(),
        max_window_bits in 9..=15_u8,
    ) {
        let policy = DeflatePolicy { context_takeover, max_window_bits };
        let texts: Vec<String> = offers.iter().map(ToString::to_string).collect();
        let field = texts.join(", ");
        let read = ExtensionOffers::new(vec![&field]);
        prop_assert_eq!(&read.deflate_offers().collect::<Vec<_>>(), &offers);
        let fitting = offers.iter().find(|offer| offer.server_max_window_bits != Some(8));
        let Some(server) = negotiate(&read, &policy) else {
            prop_assert_eq!(fitting, None);
            return Ok(());
        };
        let text = server.to_string();
        prop_assert!(context_takeover || server.server_no_context_takeover && server.client_no_context_takeover);
        prop_assert!((9..=max_window_bits).contains(&server.server_max_window_bits));
        prop_assert_eq!(read.verify([&text[..]]).map(|_| ()), Ok(()));
        match fitting.expect("one that was taken").verify([&text[..]]) {
            Ok(client) => {
                // How the text names the server's window is no difference.
                let named = server.server_max_window_bits_named;
                let client = DeflateParams { server_max_window_bits_named: named, ..client.expect("an answer") };
                prop_assert_eq!(client, server);
            }
            // A server inflates that window, but this client could not deflate into it.
            Err(error) => {
                prop_assert_eq!(error, BadAnswer::Unsupported);
                prop_assert_eq!(server.client_max_window_bits, 8);
            }
        }
    }

    /// Any text: no panic, and every element read stands in the field as it was.
    #[test]
    fn any_text_is_read(fields in prop::collection::vec("([a-z]{1,3}|[;,= \t\"\\\\é]|permessage-deflate|client_max_window_bits){0,30}", 0..4)) {
        let offers = ExtensionOffers::new(fields.iter().map(String::as_str).collect());
        let mut count = 0;
        for extension in offers.extensions() {
            count += 1;
            let Ok(extension) = extension else { continue };
            prop_assert!(extension.raw.starts_with(extension.name));
            prop_assert!(fields.iter().any(|field| field.contains(extension.raw)));
            for param in extension.params() {
                prop_assert!(extension.raw.contains(param.name));
            }
        }
        prop_assert!(count <= fields.iter().map(|field| field.len() + 1).sum::<usize>());
        if negotiate(&offers, &TAKEOVER).is_some() {
            prop_assert_eq!(offers.check(), Ok(()));
        }
    }
}
