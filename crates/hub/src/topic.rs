//! Names of topics, patterns over them, and positions in them.
//!
//! Invariant: a [`TopicName`] and a [`Pattern`] are valid from their making on; nothing else checks them again.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    str::FromStr,
    sync::{Arc, LazyLock},
};

use foldhash::{
    SharedSeed,
    fast::{FixedState, FoldHasher},
};

/// The most bytes of a name or a pattern.
pub const NAME_BYTES: usize = 256;
/// The most segments of a name or a pattern.
pub const NAME_SEGMENTS: usize = 16;

/// The most segments `*` of a pattern that somebody subscribes to. What a publication to a name of [`NAME_SEGMENTS`] costs at
/// most, however many patterns there are, is in the tests of the index of patterns: 9,401 steps, not 131,071.
pub const PATTERN_STARS: usize = 4;

/// What says where a topic lives: the same in each shard and each process.
fn home_hash(text: &str) -> u64 {
    FixedState::with_seed(0x7469_6465_6761_7465).hash_one(text)
}

/// The hash for tables of what peers name: whoever could tell it would choose names that all have the same.
pub(crate) fn hash(text: &str) -> u64 {
    static SEED: LazyLock<Seed> = LazyLock::new(Seed::draw);
    SEED.hash(text)
}

/// What hashes depend on that nobody outside of the process knows. Nothing that is said or sent depends on it: tables that
/// have it are searched, or their entries sorted.
struct Seed {
    own: u64,
    shared: SharedSeed,
}

impl Seed {
    fn draw() -> Self {
        // The standard library has it from the system.
        let random = RandomState::new();
        Self { own: random.hash_one(0), shared: SharedSeed::from_u64(random.hash_one(1)) }
    }

    fn hash(&self, text: &str) -> u64 {
        use std::hash::{Hash, Hasher};
        let mut hasher = FoldHasher::with_seed(self.own, &self.shared);
        text.hash(&mut hasher);
        hasher.finish()
    }
}

/// The name of a topic: segments between `/`. Cloning makes another reference.
#[derive(Clone)]
pub struct TopicName {
    text: Arc<str>,
    /// The upper half of what says where it lives.
    home: u32,
    hash: u32,
}

impl TopicName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// What is wrong with it. A pattern is not a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check(text)?;
        if let Some(at) = text.find('*') {
            return Err(NameError::Pattern { at });
        }
        // Half of each is enough, and names stay as small as they were.
        Ok(Self { home: (home_hash(text) >> 25) as u32, hash: folded(hash(text)), text: text.into() })
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The shard that gives its offsets and keeps its history, of so many.
    ///
    /// # Panics
    /// If there are no shards.
    #[must_use]
    pub fn home(&self, shards: u16) -> u16 {
        assert!(shards > 0, "a topic lives somewhere");
        // By multiplication.
        ((u64::from(self.home) * u64::from(shards)) >> 32) as u16
    }

    pub(crate) fn hash(&self) -> u64 {
        doubled(self.hash)
    }

    /// What [`TopicName::hash`] says of this name, were it one.
    pub(crate) fn hash_of(text: &str) -> u64 {
        doubled(folded(hash(text)))
    }
}

fn folded(hash: u64) -> u32 {
    (hash ^ hash >> 32) as u32
}

/// Tables use the lower bits and the topmost seven.
fn doubled(half: u32) -> u64 {
    u64::from(half) << 32 | u64::from(half)
}

impl PartialEq for TopicName {
    fn eq(&self, other: &Self) -> bool {
        (self.hash, self.home) == (other.hash, other.home)
            && (Arc::ptr_eq(&self.text, &other.text) || self.text == other.text)
    }
}

impl Eq for TopicName {}

impl std::hash::Hash for TopicName {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash());
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicName({})", self.text)
    }
}

/// Names that begin or look alike: `*` stands for one segment, `**` at the end for one or more.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Checks and takes a pattern.
    ///
    /// # Errors
    /// What is wrong with it. A name is not a pattern.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check(text)?;
        let mut at = 0;
        let mut stars = false;
        let mut segments = text.split('/').peekable();
        while let Some(segment) = segments.next() {
            match segment {
                "*" => stars = true,
                "**" if segments.peek().is_none() => stars = true,
                "**" => return Err(NameError::NotLast { at }),
                segment => {
                    if let Some(star) = segment.find('*') {
                        return Err(NameError::PartOfSegment { at: at + star });
                    }
                }
            }
            at += segment.len() + 1;
        }
        if stars { Ok(Self(text.into())) } else { Err(NameError::NotAPattern) }
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for this name.
    #[must_use]
    pub fn matches(&self, name: &TopicName) -> bool {
        let mut names = name.as_str().split('/');
        let mut segments = self.0.split('/');
        loop {
            match (segments.next(), names.next()) {
                (Some("**"), Some(_)) | (None, None) => return true,
                (Some("*"), Some(_)) => {}
                (Some(segment), Some(name)) if segment == name => {}
                (Some(_), _) | (None, Some(_)) => return false,
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({})", self.0)
    }
}

/// What a subscription may be to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// One topic.
    Topic(TopicName),
    /// All topics that match.
    Pattern(Pattern),
}

impl Filter {
    /// A pattern where the text has a `*`, else a name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.contains('*') {
            Pattern::parse(text).map(Self::Pattern)
        } else {
            TopicName::parse(text).map(Self::Topic)
        }
    }

    /// The same, for what somebody subscribes to, whose patterns have at most [`PATTERN_STARS`].
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_subscription(text: &str) -> Result<Self, NameError> {
        let filter = Self::parse(text)?;
        let stars = text.split('/').filter(|segment| *segment == "*").count();
        if stars > PATTERN_STARS { Err(NameError::TooManyStars { stars }) } else { Ok(filter) }
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Topic(name) => name.as_str(),
            Self::Pattern(pattern) => pattern.as_str(),
        }
    }

    /// Whether it is, or stands for, this name.
    #[must_use]
    pub fn matches(&self, name: &TopicName) -> bool {
        match self {
            Self::Topic(topic) => topic == name,
            Self::Pattern(pattern) => pattern.matches(name),
        }
    }
}

/// What names and patterns have in common. All of what is a name can stand in the path of a URL, percent-encoded where it must be:
/// what the paths of requests never have, as others could read it in another way (`;`, `\`, segments of dots), names have not either.
fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_BYTES {
        return Err(NameError::TooLong { bytes: text.len() });
    }
    let refused = |(_, c): &(usize, char)| c.is_control() || matches!(c, '?' | '#' | ';' | '\\');
    if let Some((at, found)) = text.char_indices().find(refused) {
        return Err(NameError::Character { at, found });
    }
    let mut at = 0;
    let mut segments = 0;
    for segment in text.split('/') {
        if segment.is_empty() {
            return Err(NameError::EmptySegment { at });
        }
        if matches!(segment, "." | "..") {
            return Err(NameError::DotSegment { at });
        }
        at += segment.len() + 1;
        segments += 1;
    }
    if segments > NAME_SEGMENTS {
        return Err(NameError::TooManySegments { segments });
    }
    Ok(())
}

/// Why a text is no name of a topic, or no pattern. Places are in bytes from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// There is nothing.
    Empty,
    /// More than [`NAME_BYTES`].
    TooLong {
        /// How many there are.
        bytes: usize,
    },
    /// More than [`NAME_SEGMENTS`].
    TooManySegments {
        /// How many there are.
        segments: usize,
    },
    /// A segment without a character: `//`, or a `/` at the begin or the end.
    EmptySegment {
        /// Where it would be.
        at: usize,
    },
    /// A segment `.` or `..`, which clients take out of URLs (RFC 3986 §5.2.4).
    DotSegment {
        /// Where.
        at: usize,
    },
    /// A control character, `?`, `#`, `;` or `\`.
    Character {
        /// Where.
        at: usize,
        /// Which.
        found: char,
    },
    /// A `*` in what has to be a name.
    Pattern {
        /// Where.
        at: usize,
    },
    /// A `*` beside something else in its segment.
    PartOfSegment {
        /// Where.
        at: usize,
    },
    /// A `**` before the end.
    NotLast {
        /// Where.
        at: usize,
    },
    /// More than [`PATTERN_STARS`] segments `*` in what somebody subscribes to.
    TooManyStars {
        /// How many there are.
        stars: usize,
    },
    /// No `*` in what has to be a pattern.
    NotAPattern,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::TooLong { bytes } => write!(f, "it has {bytes} bytes; {NAME_BYTES} are allowed"),
            Self::TooManySegments { segments } => {
                write!(f, "it has {segments} segments; {NAME_SEGMENTS} are allowed")
            }
            Self::EmptySegment { at } => write!(f, "the segment at byte {at} is empty"),
            Self::DotSegment { at } => write!(f, "the segment at byte {at} is `.` or `..`"),
            Self::Character { at, found } if found.is_control() => {
                write!(f, "there is a control character (U+{:04X}) at byte {at}", u32::from(*found))
            }
            Self::Character { at, found } => write!(f, "`{found}` at byte {at} is not allowed"),
            Self::Pattern { at } => write!(f, "`*` at byte {at}: a name is wanted, not a pattern"),
            Self::PartOfSegment { at } => write!(f, "`*` at byte {at} must be a segment of its own"),
            Self::NotLast { at } => write!(f, "`**` at byte {at} must be the last segment"),
            Self::TooManyStars { stars } => {
                write!(f, "it has {stars} segments `*`; {PATTERN_STARS} are allowed")
            }
            Self::NotAPattern => f.write_str("it has no `*`: a pattern is wanted"),
        }
    }
}

impl std::error::Error for NameError {}

/// One life of a topic: 32 random bits, never 0 for a topic that is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Epoch(pub u32);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The text is not eight hexadecimal digits in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnEpoch;

impl FromStr for Epoch {
    type Err = NotAnEpoch;

    fn from_str(text: &str) -> Result<Self, NotAnEpoch> {
        let digits = text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let value = if digits { u32::from_str_radix(text, 16).ok() } else { None };
        value.map(Self).ok_or(NotAnEpoch)
    }
}

/// A place in a topic: behind the publication with this offset, in this epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which life of the topic.
    pub epoch: Epoch,
    /// How many publications this life has had.
    pub offset: u64,
}

impl Position {
    /// Where a topic is that does not exist. Nothing can be recovered from there.
    pub const NOWHERE: Position = Position { epoch: Epoch(0), offset: 0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_what_is_wrong_with_it_and_where() {
        let long = "a".repeat(257);
        let deep = ["a"; 17].join("/");
        for (text, error) in [
            ("", NameError::Empty),
            (long.as_str(), NameError::TooLong { bytes: 257 }),
            (deep.as_str(), NameError::TooManySegments { segments: 17 }),
            ("/a", NameError::EmptySegment { at: 0 }),
            ("a//b", NameError::EmptySegment { at: 2 }),
            ("a/", NameError::EmptySegment { at: 2 }),
            ("a\0", NameError::Character { at: 1, found: '\0' }),
            ("a\r\nPUB", NameError::Character { at: 1, found: '\r' }),
            ("é\u{85}", NameError::Character { at: 2, found: '\u{85}' }),
            ("a?b", NameError::Character { at: 1, found: '?' }),
            ("a#", NameError::Character { at: 1, found: '#' }),
            ("a;b", NameError::Character { at: 1, found: ';' }),
            ("a\\b", NameError::Character { at: 1, found: '\\' }),
            ("..", NameError::DotSegment { at: 0 }),
            ("a/./b", NameError::DotSegment { at: 2 }),
            ("a/..", NameError::DotSegment { at: 2 }),
            ("a/*", NameError::Pattern { at: 2 }),
        ] {
            assert_eq!(TopicName::parse(text).map(|_| ()), Err(error), "{text:?}");
            assert!(!error.to_string().is_empty());
        }
        for text in [
            "a",
            "scores/football/42",
            "é/Zürich",
            "a b>c",
            "...",
            ".a/b.",
            &["a"; 16].join("/"),
            &"a".repeat(256),
        ] {
            assert_eq!(TopicName::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_pattern_is_told_what_is_wrong_with_it_and_where() {
        for (text, error) in [
            ("a/b", NameError::NotAPattern),
            ("a/b*", NameError::PartOfSegment { at: 3 }),
            ("a/***", NameError::PartOfSegment { at: 2 }),
            ("a/**/b", NameError::NotLast { at: 2 }),
            ("*//a", NameError::EmptySegment { at: 2 }),
            ("*/../a", NameError::DotSegment { at: 2 }),
            ("*/a;b", NameError::Character { at: 3, found: ';' }),
        ] {
            assert_eq!(Pattern::parse(text).map(|_| ()), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_pattern_matches_by_segment() {
        for (pattern, name, matches) in [
            ("*", "a", true),
            ("*", "a/b", false),
            ("**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**", "a/b", true),
            ("a/**", "a/b/c", true),
            ("a/*/c", "a/b/c", true),
            ("a/*/c", "a/b/d", false),
            ("*/*", "a/b", true),
            ("*/*", "a", false),
            ("*/b/**", "a/b/c", true),
        ] {
            let name = TopicName::parse(name).unwrap();
            assert_eq!(Pattern::parse(pattern).unwrap().matches(&name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn an_epoch_is_eight_lower_case_digits() {
        assert_eq!("9f86d081".parse(), Ok(Epoch(0x9f86_d081)));
        assert_eq!(Epoch(0xab).to_string(), "000000ab");
        for text in ["", "9f86d08", "9F86D081", "+f86d081", "9f86d0811", "9f86d08é"] {
            assert_eq!(text.parse::<Epoch>(), Err(NotAnEpoch), "{text}");
        }
    }

    #[test]
    fn a_topic_lives_where_every_process_says() {
        let homes = ["a", "chat/lobby", "scores/football/42", "é/Zürich"]
            .map(|name| TopicName::parse(name).unwrap().home(1_000));
        assert_eq!(homes, [850, 495, 37, 188]);
    }

    /// Names that meet by one seed do not by another, and so by none that a process may have drawn.
    #[test]
    fn who_knows_one_seed_cannot_aim_at_another() {
        let names: Vec<String> = (0..200_000).map(|n| format!("room/{n}")).collect();
        let upper = |seed: &Seed, name: &str| (seed.hash(name) >> 32) as u32;
        let (one, other) = (Seed::draw(), Seed::draw());
        let mut by_hash = std::collections::HashMap::new();
        let mut met = Vec::new();
        for name in &names {
            if let Some(before) = by_hash.insert(upper(&one, name), name) {
                met.push((before, name));
            }
        }
        // 200,000² / 2 / 2³² of them.
        assert!(!met.is_empty(), "nobody met");
        let again = met.iter().filter(|(a, b)| upper(&other, a) == upper(&other, b)).count();
        assert_eq!(again, 0, "of {}", met.len());
        // Those of one hash by the fixed seed are found before the process is started.
        let same = names[..1_000].iter().filter(|name| hash(name) == home_hash(name)).count();
        assert_eq!(same, 0, "tables have a seed of their own");
        assert!(names[..1_000].iter().all(|name| hash(name) == hash(&name.clone())), "one for all");
    }

    #[test]
    fn topics_spread_over_all_homes() {
        for shards in [1, 2, 3, 64] {
            let mut homes = vec![0_u32; usize::from(shards)];
            for n in 0..10_000 {
                homes[usize::from(TopicName::parse(&format!("t/{n}")).unwrap().home(shards))] += 1;
            }
            let fair = 10_000 / u32::from(shards);
            assert!(homes.iter().all(|&n| n > fair / 2 && n < fair * 2), "{homes:?}");
        }
    }
}
