//! Positions: how far somebody has read.

use super::text;
pub use crate::topic::Position;

/// From where somebody wants to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recover {
    /// From behind this position, if it is one of the topic's.
    From(Position),
    /// From a position of a form that none here has: of another gateway, or damaged. Nothing can be recovered, and
    /// that is the answer rather than an error, as a client would send it again and again.
    Foreign,
}

impl Position {
    /// Reads `9f86d081-42`, in exactly the form that [`Self::push`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, offset) = text.split_once('-')?;
        Some(Self { epoch: epoch.parse().ok()?, offset: text::whole(offset)? })
    }

    /// Appends `9f86d081-42`.
    pub fn push(self, out: &mut Vec<u8>) {
        text::push_epoch(out, self.epoch);
        out.push(b'-');
        text::push_whole(out, self.offset);
    }
}

/// Positions in several topics, in the order in which a request named them. A pattern has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions(Vec<Option<Recover>>);

impl Positions {
    /// Reads `9f86d081-42,-,0badcafe-7`: one for each of `count` topics, `-` where there is none.
    #[must_use]
    pub fn parse(text: &str, count: usize) -> Option<Self> {
        let parse = |one| match one {
            "-" => Some(None),
            position => Position::parse(position).map(|position| Some(Recover::From(position))),
        };
        // One more than wanted tells that there are too many.
        let all: Vec<_> = text.split(',').take(count + 1).map(parse).collect::<Option<_>>()?;
        (all.len() == count).then_some(Self(all))
    }

    /// Positions from which nothing can be recovered.
    #[must_use]
    pub fn foreign(count: usize) -> Self {
        Self(vec![Some(Recover::Foreign); count])
    }

    /// That of the topic at this place of the request.
    #[must_use]
    pub fn of(&self, index: usize) -> Option<Recover> {
        self.0.get(index).copied().flatten()
    }
}

/// Appends what [`Positions::parse`] reads.
pub fn push_positions(out: &mut Vec<u8>, positions: impl IntoIterator<Item = Option<Position>>) {
    for (index, position) in positions.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match position {
            Some(position) => position.push(out),
            None => out.push(b'-'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    #[test]
    fn a_position_has_one_form() {
        let position = Position { epoch: Epoch(0x9f86_d081), offset: 42 };
        assert_eq!(Position::parse("9f86d081-42"), Some(position));
        assert_eq!(
            Position::parse("00000000-9007199254740991"),
            Some(Position { epoch: Epoch(0), offset: (1 << 53) - 1 })
        );
        for bad in [
            "",
            "-",
            "9f86d081",
            "9f86d081-",
            "-42",
            "9F86D081-42",
            "9f86d081-042",
            "9f86d081--1",
            "9f86d081-+1",
            "9f86d081-4 2",
            " 9f86d081-42",
            "9f86d08-42",
            "9f86d0811-42",
            "9f86d081-9007199254740992",
            "9f86d081-99999999999999999999999",
            "9f86d081-42-1",
            "+f86d081-1",
            "9f86d081-\u{661}",
        ] {
            assert_eq!(Position::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_list_has_as_many_as_topics() {
        let from = |epoch, offset| Some(Recover::From(Position { epoch: Epoch(epoch), offset }));
        let list = Positions::parse("9f86d081-42,-,0000000a-0", 3).unwrap();
        assert_eq!(
            [0, 1, 2, 3].map(|index| list.of(index)),
            [from(0x9f86_d081, 42), None, from(10, 0), None]
        );
        for (text, count) in [("-", 2), ("-,-", 1), ("", 1), ("", 0), ("-,", 2), ("-, -", 2), ("-,x", 2)] {
            assert_eq!(Positions::parse(text, count), None, "{text} {count}");
        }
        let endless = "-,".repeat(1 << 20);
        assert_eq!(Positions::parse(&endless, 16), None);
        assert_eq!(Positions::foreign(2).of(1), Some(Recover::Foreign));
    }
}
