//! Names of topics and patterns of names: what is well-formed, what a pattern matches, and whether some patterns
//! match all that another does.

use std::fmt;

/// Longest name, and longest pattern, in bytes.
pub const MAX_TOPIC_BYTES: usize = 256;

/// Most segments of a name and of a pattern.
pub const MAX_TOPIC_SEGMENTS: usize = 16;

/// A name, or a pattern of names: segments between `/`, of which `*` stands for any one, and `**` at the end for one
/// or more.
///
/// ```
/// use tidegate_config::TopicPattern;
///
/// let pattern = TopicPattern::parse("scores/*/live/**")?;
/// assert!(pattern.matches("scores/football/live/42") && pattern.matches("scores/golf/live/7/hole/3"));
/// assert!(!pattern.matches("scores/football/live") && !pattern.matches("scores/live/42"));
/// # Ok::<(), tidegate_config::BadTopic>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPattern(Box<str>);

/// A piece of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Segment<'p> {
    /// This segment alone.
    Literal(&'p str),
    /// `*`: any one.
    One,
    /// `**`, the last: one or more, whatever they are.
    Rest,
}

/// Why a text is no name, or no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTopic {
    /// It has no bytes.
    Empty,
    /// It has more than [`MAX_TOPIC_BYTES`].
    TooLong,
    /// It has more than [`MAX_TOPIC_SEGMENTS`].
    TooManySegments,
    /// A `/` stands at an end, or beside another.
    EmptySegment,
    /// It has a control character (Unicode Cc).
    ControlCharacter,
    /// A segment is `.` or `..`.
    DotSegment,
    /// It has a `?`, `#`, `;` or `\`.
    Reserved,
    /// A `*` stands beside something else than a `/`.
    PartOfSegment,
    /// `**` stands before another segment.
    RestInside,
}

impl TopicPattern {
    /// Reads a pattern; a name is one that matches itself alone.
    ///
    /// # Errors
    /// Where it is not well-formed.
    pub fn parse(text: &str) -> Result<Self, BadTopic> {
        let count = check(text)?;
        for (place, segment) in (1..).zip(text.split('/')) {
            match segment {
                "*" => {}
                "**" if place == count => {}
                "**" => return Err(BadTopic::RestInside),
                _ if segment.contains('*') => return Err(BadTopic::PartOfSegment),
                _ => {}
            }
        }
        Ok(Self(text.into()))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a name.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        !self.0.contains('*')
    }

    /// Its segments in order; at least one.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        self.0.split('/').map(|segment| match segment {
            "*" => Segment::One,
            "**" => Segment::Rest,
            literal => Segment::Literal(literal),
        })
    }

    /// Whether it matches `name`: a well-formed one, which could be a pattern but for its `*`.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        // Asked for each message that is published, and most often of this one.
        if &*self.0 == "**" {
            return true;
        }
        let mut names = name.split('/');
        for segment in self.segments() {
            match (segment, names.next()) {
                (_, None) => return false,
                (Segment::Rest, Some(_)) => return true,
                (Segment::One, Some(_)) => {}
                (Segment::Literal(mine), Some(theirs)) if mine == theirs => {}
                (Segment::Literal(_), Some(_)) => return false,
            }
        }
        names.next().is_none()
    }

    /// Whether it matches every name that `other` matches.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        covering(std::iter::once(self), other).is_some()
    }

    /// How many segments the names that it matches have.
    fn lengths(&self) -> std::ops::RangeInclusive<usize> {
        let count = self.segments().count();
        let Some(before) = self.0.strip_suffix("**") else { return count..=count };
        // The rest is at least `a/b/…`, within what is left of bytes and segments.
        let room = (MAX_TOPIC_BYTES - before.len()).div_ceil(2);
        count..=MAX_TOPIC_SEGMENTS.min(count - 1 + room)
    }

    /// Whether it matches all names of so many segments that `other` matches. Some such name has segments that no
    /// pattern spells out wherever `other` leaves them open, so that only `*` and `**` match those.
    fn covers_at(&self, other: &Self, length: usize) -> bool {
        let mut mine = self.segments();
        let theirs = other.segments().take_while(|segment| *segment != Segment::Rest);
        let theirs = theirs.chain(std::iter::repeat(Segment::One)).take(length);
        for theirs in theirs {
            match (mine.next(), theirs) {
                (None, _) => return false,
                (Some(Segment::Rest), _) => return true,
                (Some(Segment::One), _) => {}
                (Some(Segment::Literal(mine)), Segment::Literal(theirs)) if mine == theirs => {}
                (Some(Segment::Literal(_)), _) => return false,
            }
        }
        mine.next().is_none()
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What holds for names as well; gives the number of segments.
fn check(text: &str) -> Result<usize, BadTopic> {
    if text.is_empty() {
        return Err(BadTopic::Empty);
    }
    if text.len() > MAX_TOPIC_BYTES {
        return Err(BadTopic::TooLong);
    }
    for c in text.chars() {
        match c {
            '?' | '#' | ';' | '\\' => return Err(BadTopic::Reserved),
            _ if c.is_control() => return Err(BadTopic::ControlCharacter),
            _ => {}
        }
    }
    let mut count = 0;
    for segment in text.split('/') {
        if segment.is_empty() {
            return Err(BadTopic::EmptySegment);
        }
        if matches!(segment, "." | "..") {
            return Err(BadTopic::DotSegment);
        }
        count += 1;
    }
    if count > MAX_TOPIC_SEGMENTS { Err(BadTopic::TooManySegments) } else { Ok(count) }
}

/// The places of those that together match every name that `pattern` matches, in ascending order; `None` where they
/// do not.
///
/// Exact, but for this: where a pattern comes so near to the longest name that few segments fit its `*`, patterns
/// that spell out all of these cover it unseen.
pub(crate) fn covering<'p>(
    patterns: impl Iterator<Item = &'p TopicPattern> + Clone,
    pattern: &TopicPattern,
) -> Option<Vec<usize>> {
    let first = |length| patterns.clone().position(|one| one.covers_at(pattern, length));
    let mut covering = pattern.lengths().map(first).collect::<Option<Vec<usize>>>()?;
    covering.sort_unstable();
    covering.dedup();
    Some(covering)
}

/// What a permission allows: the names that any of some patterns match. Empty, it allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicPatterns(Vec<TopicPattern>);

impl TopicPatterns {
    /// Those patterns.
    #[must_use]
    pub fn new(patterns: Vec<TopicPattern>) -> Self {
        Self(patterns)
    }

    /// The patterns in the order of the file.
    #[must_use]
    pub fn as_slice(&self) -> &[TopicPattern] {
        &self.0
    }

    /// Whether it allows nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them matches this name.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }

    /// Whether they match every name that `pattern` matches: who may subscribe to so much may subscribe to it.
    #[must_use]
    pub fn covers(&self, pattern: &TopicPattern) -> bool {
        covering(self.0.iter(), pattern).is_some()
    }
}

impl fmt::Display for BadTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a topic has a name",
            Self::TooLong => "a topic has at most 256 bytes",
            Self::TooManySegments => "a topic has at most 16 segments",
            Self::EmptySegment => "a topic has no empty segment: no / at an end or beside another",
            Self::ControlCharacter => "a topic has no control characters",
            Self::DotSegment => "a topic has no segment that is . or ..",
            Self::Reserved => "a topic has none of ? # ; \\",
            Self::PartOfSegment => "a `*` stands for a whole segment, like chat/*",
            Self::RestInside => "a `**` can only stand at the end, like chat/**",
        })
    }
}

impl std::error::Error for BadTopic {}

#[cfg(test)]
mod tests;
