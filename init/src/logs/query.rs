//! Reads the log store: forwards, backwards from the end, and what is added later.
//!
//! Needs no daemon: whoever may read the files may read the logs. Damaged stretches are stepped over.
#![deny(clippy::indexing_slicing)]

use super::format::{self, BootId, Entry, Record, Source, Step};
use super::segments::{self, STORE, Segment};
use crate::glob;
use std::io;
use std::ops::{ControlFlow, RangeInclusive};
use std::path::Path;

/// Which entries are wanted; an empty list stands for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Unit names or patterns.
    pub units: Vec<String>,
    /// Identifiers.
    pub identifiers: Vec<String>,
    /// Levels.
    pub priorities: Option<RangeInclusive<u8>>,
    /// One boot only.
    pub boot: Option<BootId>,
    /// Not before, microseconds since 1970.
    pub since: Option<u64>,
    /// Not after.
    pub until: Option<u64>,
    /// How it came in, by [`Source::transport`]'s names.
    pub transports: Vec<String>,
    /// Processes.
    pub pids: Vec<u32>,
    /// Users.
    pub uids: Vec<u32>,
    /// Text in the message.
    pub grep: Option<Grep>,
}

/// Text to look for.
#[derive(Clone, Debug)]
pub struct Grep {
    text: String,
    case_sensitive: bool,
    pattern: regex_lite::Regex,
}

impl PartialEq for Grep {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, self.case_sensitive) == (&other.text, other.case_sensitive)
    }
}

impl Eq for Grep {}

impl Filter {
    /// Whether an entry of `boot` is wanted.
    pub fn wants(&self, entry: &Entry<'_>, boot: &BootId) -> bool {
        self.boot.is_none_or(|wanted| wanted == *boot)
            && self.since.is_none_or(|since| entry.realtime >= since)
            && self.until.is_none_or(|until| entry.realtime <= until)
            && self.priorities.as_ref().is_none_or(|range| range.contains(&entry.priority))
            && (self.units.is_empty() || self.units.iter().any(|unit| unit_matches(unit, entry.unit)))
            && (self.identifiers.is_empty() || self.identifiers.iter().any(|identifier| identifier == entry.identifier))
            && (self.transports.is_empty() || self.transports.iter().any(|name| name == entry.source.transport()))
            && (self.pids.is_empty() || self.pids.contains(&entry.pid))
            && (self.uids.is_empty() || entry.uid.is_some_and(|uid| self.uids.contains(&uid)))
            && self.grep.as_ref().is_none_or(|grep| grep.is_in(entry.message))
    }
}

impl Grep {
    /// A regular expression.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(text: &str, case_sensitive: bool) -> Result<Grep, regex_lite::Error> {
        let pattern = regex_lite::RegexBuilder::new(text).case_insensitive(!case_sensitive).build()?;
        Ok(Grep { text: text.to_owned(), case_sensitive, pattern })
    }

    fn is_in(&self, message: &[u8]) -> bool {
        self.pattern.is_match(&String::from_utf8_lossy(message))
    }
}

fn unit_matches(wanted: &str, unit: &str) -> bool {
    wanted == unit || (glob::is_pattern(wanted) && glob::matches(wanted, unit))
}

/// An entry that outlives the bytes it was read from, with where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Microseconds since 1970.
    pub realtime: u64,
    /// Microseconds of the monotonic clock.
    pub monotonic: u64,
    /// Process, or 0.
    pub pid: u32,
    /// User.
    pub uid: Option<u32>,
    /// Level.
    pub priority: u8,
    /// How it came in.
    pub source: Source,
    /// Unit, or empty.
    pub unit: String,
    /// Identifier, or empty.
    pub identifier: String,
    /// Text.
    pub message: Vec<u8>,
    /// Invocation id, or empty.
    pub invocation: String,
    /// The boot.
    pub boot: BootId,
    /// Segment and offset.
    pub place: (u64, u64),
}

impl Line {
    fn new(entry: &Entry<'_>, boot: BootId, place: (u64, u64)) -> Line {
        Line {
            realtime: entry.realtime,
            monotonic: entry.monotonic,
            pid: entry.pid,
            uid: entry.uid,
            priority: entry.priority,
            source: entry.source,
            unit: entry.unit.to_owned(),
            identifier: entry.identifier.to_owned(),
            message: entry.message.to_owned(),
            invocation: entry.invocation.to_owned(),
            boot,
            place,
        }
    }
}

/// A boot that the store knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootSpan {
    /// Its id.
    pub id: BootId,
    /// Time of its first entry.
    pub first: u64,
    /// Time of its last entry.
    pub last: u64,
}

/// All boots in the order in which they were logged.
pub fn boots(store: &Path) -> io::Result<Vec<BootSpan>> {
    let mut boots: Vec<BootSpan> = Vec::new();
    let _ = forward(store, &Filter::default(), &mut Position::default(), |entry, boot, _| {
        match boots.last_mut() {
            Some(last) if last.id == *boot => last.last = entry.realtime,
            _ => boots.push(BootSpan { id: *boot, first: entry.realtime, last: entry.realtime }),
        }
        ControlFlow::Continue(())
    })?;
    Ok(boots)
}

/// How far a reader has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    segment: u64,
    offset: usize,
    boot: BootId,
}

impl Position {
    /// Whether an entry at `place` (segment and offset) was read already.
    pub fn is_behind(&self, place: (u64, u64)) -> bool {
        place < (self.segment, self.offset as u64)
    }

    /// The beginning of a segment.
    pub fn at_segment(segment: u64) -> Position {
        Position { segment, ..Position::default() }
    }

    /// The end of what is stored now.
    pub fn end(store: &Path) -> io::Result<Position> {
        let mut position = Position::default();
        let none = Filter { since: Some(u64::MAX), ..Filter::default() };
        // Only the newest segment needs reading: each begins with its boot.
        if let Some(newest) = segments::list(store)?.last() {
            position.segment = newest.number;
        }
        let _ = forward(store, &none, &mut position, |_, _, _| ControlFlow::Continue(()))?;
        Ok(position)
    }
}

/// Hands the wanted entries from `position` on to `each`, oldest first, and moves `position` behind what was read.
/// What is not whole yet at the end of the newest segment is left for the next call.
pub fn forward(
    store: &Path,
    filter: &Filter,
    position: &mut Position,
    mut each: impl FnMut(&Entry<'_>, &BootId, (u64, u64)) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let segments = segments::list(store)?;
    let newest = segments.last().map_or(0, |segment| segment.number);
    let begun = position.segment;
    for segment in segments.iter().filter(|segment| segment.number >= begun) {
        if segment.number > position.segment {
            *position = Position { segment: segment.number, offset: 0, boot: position.boot };
        }
        let bytes = read_from(segment, position.offset as u64)?;
        let base = position.offset;
        let mut at = 0;
        if base == 0 {
            match format::decode_segment_header(&bytes) {
                Some(start) => at = start,
                None => continue,
            }
        }
        loop {
            let (record, place) = match format::decode(&bytes, at) {
                Step::Record(record, next) => {
                    let place = at;
                    at = next;
                    (record, place)
                }
                Step::Incomplete if segment.number == newest => break,
                _ => match format::resynchronise(&bytes, at) {
                    Some(next) => {
                        at = next;
                        continue;
                    }
                    None => break,
                },
            };
            match record {
                Record::Boot(id) => position.boot = id,
                Record::Entry(entry) => {
                    let wanted = filter.wants(&entry, &position.boot);
                    if wanted && each(&entry, &position.boot, (segment.number, (base + place) as u64)).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Record::Unknown(_) => {}
            }
        }
        position.offset = base + at;
    }
    Ok(ControlFlow::Continue(()))
}

/// The last `count` wanted entries, newest first. `budget` bounds the bytes looked at.
pub fn backward(store: &Path, filter: &Filter, count: usize, budget: u64) -> io::Result<Vec<Line>> {
    let mut found = Vec::new();
    let mut read = 0;
    for segment in segments::list(store)?.iter().rev() {
        if found.len() >= count || read >= budget {
            break;
        }
        read += segment.size;
        let bytes = segments::read(segment)?;
        let Some(start) = format::decode_segment_header(&bytes) else { continue };
        let mut of_segment: Vec<(usize, Entry<'_>, BootId)> = Vec::new();
        let (mut boot, mut boot_seen) = (BootId::default(), false);
        for (place, record) in format::Records::new(&bytes, start) {
            match record {
                Record::Boot(id) => {
                    boot = id;
                    boot_seen |= filter.boot == Some(id);
                }
                Record::Entry(entry) if filter.wants(&entry, &boot) => of_segment.push((place, entry, boot)),
                _ => {}
            }
        }
        let wanted = count - found.len();
        found.extend(
            of_segment.iter().rev().take(wanted).map(|(place, entry, boot)| Line::new(entry, *boot, (segment.number, *place as u64))),
        );
        // Boots are in order: once the wanted one was left, nothing older is of it.
        if filter.boot.is_some() && !boot_seen && !found.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// What `systemctl status` shows: the unit's last lines of this boot, oldest first, found without reading much.
pub fn last_lines(root: &Path, unit: &str, boot: BootId, count: usize) -> io::Result<Vec<Line>> {
    let filter = Filter { units: vec![unit.to_owned()], boot: Some(boot), ..Filter::default() };
    let mut lines = backward(&root.join(STORE), &filter, count, 16 << 20)?;
    lines.reverse();
    Ok(lines)
}

/// Owned, for callers that keep entries.
pub fn to_line(entry: &Entry<'_>, boot: &BootId, place: (u64, u64)) -> Line {
    Line::new(entry, *boot, place)
}

fn read_from(segment: &Segment, offset: u64) -> io::Result<Vec<u8>> {
    use std::io::{Read, Seek, SeekFrom};
    let mut bytes = Vec::new();
    let mut file = match std::fs::File::open(&segment.path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(bytes),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(offset))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::logs::store::{Limits, Store};

    /// A line of a service.
    pub fn entry<'a>(unit: &'a str, message: &'a str, realtime: u64) -> Entry<'a> {
        Entry {
            realtime,
            monotonic: realtime,
            pid: 1,
            uid: None,
            priority: 6,
            source: Source::Stdout,
            unit,
            identifier: "x",
            message: message.as_bytes(),
            kernel_sequence: None,
            invocation: "",
        }
    }

    fn fill(directory: &Path) {
        for boot in [1u8, 2] {
            let limits = Limits { total: 1 << 20, segment: 2000, group: None };
            let mut store = Store::open(directory, limits, [boot; 16]).unwrap();
            for n in 0..100u64 {
                let unit = if n % 10 == 0 { "rare.service" } else { "often.service" };
                store.append(&entry(unit, &format!("{boot}/{n}"), u64::from(boot) * 1000 + n));
                store.flush();
            }
        }
    }

    fn texts(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|line| String::from_utf8(line.message.clone()).unwrap()).collect()
    }

    #[test]
    fn the_last_lines_of_a_unit_come_from_several_segments_but_only_this_boot() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fill(&root.join(STORE));
        let lines = last_lines(root, "rare.service", [2; 16], 3).unwrap();
        assert_eq!(texts(&lines), ["2/70", "2/80", "2/90"]);
        assert_eq!(last_lines(root, "rare.service", [2; 16], 50).unwrap().len(), 10);
        assert_eq!(last_lines(root, "never.service", [2; 16], 50).unwrap().len(), 0);
    }

    #[test]
    fn reading_forwards_gives_the_same_as_backwards() {
        let directory = tempfile::tempdir().unwrap();
        fill(directory.path());
        let filter = Filter { units: vec!["ra*".into()], ..Filter::default() };
        let mut forwards = Vec::new();
        let _ = forward(directory.path(), &filter, &mut Position::default(), |entry, boot, place| {
            forwards.push(to_line(entry, boot, place));
            ControlFlow::Continue(())
        });
        let mut backwards = backward(directory.path(), &filter, usize::MAX, u64::MAX).unwrap();
        backwards.reverse();
        assert_eq!(forwards, backwards);
        assert_eq!(forwards.len(), 20);
        let boots = boots(directory.path()).unwrap();
        assert_eq!(boots, [BootSpan { id: [1; 16], first: 1000, last: 1099 }, BootSpan { id: [2; 16], first: 2000, last: 2099 }]);
    }

    #[test]
    fn a_follower_sees_each_new_entry_once_across_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { total: 1 << 20, segment: 500, group: None };
        let mut store = Store::open(directory.path(), limits, [1; 16]).unwrap();
        store.append(&entry("a", "before", 1));
        store.flush();
        let mut position = Position::end(directory.path()).unwrap();
        let mut seen = Vec::new();
        for n in 0..50 {
            store.append(&entry("a", &n.to_string(), 1));
            store.flush();
            if n % 3 == 0 {
                let _ = forward(directory.path(), &Filter::default(), &mut position, |entry, boot, _| {
                    assert_eq!(*boot, [1; 16]);
                    seen.push(String::from_utf8(entry.message.into()).unwrap());
                    ControlFlow::Continue(())
                });
            }
        }
        assert_eq!(seen, (0..49).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}
