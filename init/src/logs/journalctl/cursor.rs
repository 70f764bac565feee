//! Cursors: the place of an entry, as text that outlives this process and the removal of old segments.

use crate::logs::query::Line;
use std::fmt;

/// Where an entry is, and when it was logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Number of its segment.
    pub segment: u64,
    /// Offset in the segment.
    pub offset: u64,
    /// Microseconds since 1970.
    pub realtime: u64,
    /// Whether the entry itself is meant too, and not only what follows it.
    pub inclusive: bool,
}

impl Cursor {
    /// The one of an entry.
    pub fn of(line: &Line) -> Cursor {
        Cursor { segment: line.place.0, offset: line.place.1, realtime: line.realtime, inclusive: true }
    }

    /// Reads one that was printed.
    pub fn parse(text: &str, inclusive: bool) -> Option<Cursor> {
        let mut parts = text.split(';');
        let mut number = |prefix: &str| parts.next()?.strip_prefix(prefix)?.parse().ok();
        let cursor = Cursor { segment: number("s=")?, offset: number("o=")?, realtime: number("t=")?, inclusive };
        parts.next().is_none().then_some(cursor)
    }

    /// Whether an entry at a place is to be shown.
    pub fn admits(&self, place: (u64, u64)) -> bool {
        let own = (self.segment, self.offset);
        if self.inclusive { place >= own } else { place > own }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s={};o={};t={}", self.segment, self.offset, self.realtime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_and_nothing_else() {
        let cursor = Cursor { segment: 3, offset: 32, realtime: 5, inclusive: true };
        assert_eq!(Cursor::parse(&cursor.to_string(), true), Some(cursor));
        assert!(cursor.admits((3, 32)) && !cursor.admits((3, 31)) && cursor.admits((4, 0)));
        assert!(!Cursor { inclusive: false, ..cursor }.admits((3, 32)));
        for text in ["", "s=1", "s=1;o=2", "s=1;o=x;t=3", "s=1;o=2;t=3;z=4", "s=0639000c99814b2d9b40ed9fef3e9a6d;i=1"] {
            assert_eq!(Cursor::parse(text, true), None, "{text}");
        }
    }
}
