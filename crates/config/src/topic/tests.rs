//! Patterns against a naive matcher, and coverage against every name of a small world.

use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> TopicPattern {
    TopicPattern::parse(text).unwrap_or_else(|bad| panic!("{text}: {bad}"))
}

/// What a pattern means, word for word.
fn matches_by_definition(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        (["**"], [_, ..]) => true,
        (["*", pattern @ ..], [_, name @ ..]) => matches_by_definition(pattern, name),
        ([mine, pattern @ ..], [theirs, name @ ..]) => mine == theirs && matches_by_definition(pattern, name),
        ([], _) | (_, []) => false,
    }
}

fn split(text: &str) -> Vec<&str> {
    text.split('/').collect()
}

#[test]
fn names_match_themselves_alone() {
    for name in
        ["a", "chat/lobby", "Chat/lobby", "ä/ö ü/+", "a/.../.b", "1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16"]
    {
        let own = pattern(name);
        assert!(own.is_literal() && own.matches(name) && own.as_str() == name && own.to_string() == name);
        for other in ["b", "chat", "chat/lobby/a", "chat/lobb", "Chat", "A"] {
            assert!(!own.matches(other), "{name} {other}");
        }
        assert!(own.segments().all(|segment| matches!(segment, Segment::Literal(_))));
    }
}

#[test]
fn stars_match_whole_segments() {
    for (text, some, none) in [
        ("*", &["a", "b"][..], &["a/b"][..]),
        ("**", &["a", "a/b", "a/b/c"], &[]),
        ("a/*", &["a/b"], &["a", "a/b/c", "b/a"]),
        ("a/**", &["a/b", "a/b/c"], &["a", "b/a", "ab/c"]),
        ("*/b", &["a/b", "b/b"], &["a", "a/b/c", "a/c"]),
        ("*/b/**", &["a/b/c", "b/b/c/d"], &["a/b", "b/c/d"]),
    ] {
        let own = pattern(text);
        assert!(!own.is_literal());
        assert!(some.iter().all(|name| own.matches(name)), "{text}");
        assert!(!none.iter().any(|name| own.matches(name)), "{text}");
    }
    let own = pattern("a/*/**");
    let segments: Vec<Segment<'_>> = own.segments().collect();
    assert_eq!(segments, [Segment::Literal("a"), Segment::One, Segment::Rest]);
}

#[test]
fn what_is_no_pattern_says_why() {
    let segments = |count: usize| vec!["a"; count].join("/");
    for (text, bad) in [
        ("", BadTopic::Empty),
        (&"a".repeat(257), BadTopic::TooLong),
        (&"ä".repeat(129), BadTopic::TooLong),
        (&segments(17), BadTopic::TooManySegments),
        (&format!("{}/**", segments(16)), BadTopic::TooManySegments),
        ("/", BadTopic::EmptySegment),
        ("/a", BadTopic::EmptySegment),
        ("a/", BadTopic::EmptySegment),
        ("a//b", BadTopic::EmptySegment),
        ("a\0", BadTopic::ControlCharacter),
        ("a\r\nb", BadTopic::ControlCharacter),
        ("a\u{7f}", BadTopic::ControlCharacter),
        ("a\u{9b}", BadTopic::ControlCharacter),
        ("a?b", BadTopic::Reserved),
        ("#", BadTopic::Reserved),
        ("a;b", BadTopic::Reserved),
        ("\\", BadTopic::Reserved),
        (".", BadTopic::DotSegment),
        ("a/../b", BadTopic::DotSegment),
        ("*/..", BadTopic::DotSegment),
        ("a*", BadTopic::PartOfSegment),
        ("***", BadTopic::PartOfSegment),
        ("a/*b/c", BadTopic::PartOfSegment),
        ("**/a", BadTopic::RestInside),
        ("a/**/**", BadTopic::RestInside),
    ] {
        assert_eq!(TopicPattern::parse(text), Err(bad), "{text:?}");
    }
    for text in [
        &*"a".repeat(256),
        &"ä".repeat(128),
        &segments(16),
        &format!("{}/**", segments(15)),
        "a b",
        "\u{200b}",
    ] {
        assert!(TopicPattern::parse(text).is_ok(), "{text:?}");
    }
}

#[test]
fn together_patterns_cover_what_none_does_alone() {
    let list = |texts: &[&str]| TopicPatterns::new(texts.iter().map(|text| pattern(text)).collect());
    assert!(list(&["*", "*/**"]).covers(&pattern("**")));
    assert!(list(&["a/*", "a/*/**"]).covers(&pattern("a/**")));
    assert!(!list(&["*", "*/*", "*/*/*/**"]).covers(&pattern("**")));
    assert!(!list(&["a/*", "b/*"]).covers(&pattern("*/*")));
    assert!(!list(&[]).covers(&pattern("a")) && !list(&[]).matches("a") && list(&[]).is_empty());
    let by_length: Vec<String> = (1..=16).map(|count| vec!["*"; count].join("/")).collect();
    let by_length: Vec<&str> = by_length.iter().map(String::as_str).collect();
    assert!(list(&by_length).covers(&pattern("**")));
    assert!(!list(&by_length[..15]).covers(&pattern("**")));
    assert_eq!(
        covering(list(&["x", "**", "*", "*"]).as_slice().iter(), &pattern("**")),
        Some(vec![1]),
        "the first of those that do"
    );
}

/// No name is longer than 256 bytes, so that `**` behind a long name stands for few segments.
#[test]
fn the_longest_names_bound_what_is_left() {
    for (before, most) in [(253, 1), (252, 2), (251, 2), (250, 3)] {
        let name = "x".repeat(before);
        let rest = pattern(&format!("{name}/**"));
        let of_length = |count: usize| pattern(&format!("{name}{}", "/*".repeat(count)));
        let lengths: Vec<TopicPattern> = (1..=most).map(of_length).collect();
        assert_eq!(*rest.lengths().end(), 1 + most, "{before}");
        assert!(covering(lengths.iter(), &rest).is_some(), "{before}");
        assert!(covering(lengths[..most - 1].iter(), &rest).is_none(), "{before}");
        assert!(rest.matches(&format!("{name}/{}", vec!["a"; most].join("/"))));
        assert!(name.len() + 1 + vec!["a"; most + 1].join("/").len() > MAX_TOPIC_BYTES);
    }
}

/// Segments that patterns spell out, and some that they do not.
const SPELT: [&str; 2] = ["a", "b"];
const WORLD: [&str; 3] = ["a", "b", "c"];

fn some_pattern() -> impl Strategy<Value = String> {
    let segment = proptest::sample::select(vec!["*", SPELT[0], SPELT[1], "*"]);
    (proptest::collection::vec(segment, 0..4), any::<bool>()).prop_map(|(mut segments, rest)| {
        if rest || segments.is_empty() {
            segments.push("**");
        }
        segments.join("/")
    })
}

/// All names of up to five segments: one more than any pattern, so that none matches only shorter ones.
fn world() -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut last = vec![String::new()];
    for _ in 0..5 {
        last =
            last.iter()
                .flat_map(|start| {
                    WORLD.map(|segment| {
                        if start.is_empty() { segment.to_owned() } else { format!("{start}/{segment}") }
                    })
                })
                .collect();
        names.extend(last.iter().cloned());
    }
    names
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn matching_is_its_definition(text in some_pattern(), name in "[abc](/[abc]){0,4}") {
        let expected = matches_by_definition(&split(&text), &split(&name));
        prop_assert_eq!(pattern(&text).matches(&name), expected);
    }

    /// Names of more segments are covered if those of five are: no pattern of this world tells them apart.
    #[test]
    fn what_covers_leaves_no_name_out(texts in proptest::collection::vec(some_pattern(), 0..6), other in some_pattern()) {
        let patterns = TopicPatterns::new(texts.iter().map(|text| pattern(text)).collect());
        let other = pattern(&other);
        let names = world();
        let left_out = names.iter().find(|name| other.matches(name) && !patterns.matches(name));
        prop_assert_eq!(patterns.covers(&other), left_out.is_none(), "{:?}", left_out);
        if let Some(covering) = covering(patterns.as_slice().iter(), &other) {
            prop_assert!(!covering.is_empty() && covering.is_sorted());
            // They suffice.
            let few = TopicPatterns::new(covering.iter().map(|place| patterns.as_slice()[*place].clone()).collect());
            prop_assert!(few.covers(&other));
        }
        for one in patterns.as_slice() {
            prop_assert_eq!(one.covers(&other), TopicPatterns::new(vec![one.clone()]).covers(&other));
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,40}|[a*/?#]{0,40}|(a/){0,20}.{0,3}") {
        match TopicPattern::parse(&text) {
            Ok(own) => {
                prop_assert_eq!(own.segments().count(), split(&text).len());
                prop_assert!(own.covers(&own) && pattern("**").covers(&own));
                prop_assert!(!own.is_literal() || own.matches(&text));
            }
            Err(bad) => prop_assert!(bad.to_string().starts_with("a ")),
        }
    }
}
