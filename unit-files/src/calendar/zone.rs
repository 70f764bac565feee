//! Time zones: what clocks on the wall show at a moment, and the other way round.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

use super::WallUsec;
use super::elapse::Date;

/// The rules of a time zone.
#[derive(Clone, Debug)]
pub struct Zone(TimeZone);

/// A zone's file is not one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{name}: not a time zone file (TZif)")]
pub struct ZoneError {
    /// The zone.
    pub name: String,
}

/// What a clock on the wall shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Local {
    pub date: Date,
    /// Microseconds of the day.
    pub usec: u64,
}

/// When a clock on the wall shows something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    At(WallUsec),
    Twice(WallUsec, WallUsec),
    /// It never does; this is what it shows first after the jump.
    Never(Local),
}

fn usec(timestamp: Timestamp) -> WallUsec {
    u64::try_from(timestamp.as_microsecond()).unwrap_or(0)
}

fn local(at: DateTime) -> Local {
    let part = |number: i8| u32::try_from(number).unwrap_or_default();
    let date = Date { year: u32::try_from(at.year()).unwrap_or_default(), month: part(at.month()), day: part(at.day()) };
    let seconds = (part(at.hour()) * 60 + part(at.minute())) * 60 + part(at.second());
    let fraction = u64::try_from(at.subsec_nanosecond()).unwrap_or_default() / 1000;
    Local { date, usec: u64::from(seconds) * 1_000_000 + fraction }
}

fn date_time(at: Local) -> Option<DateTime> {
    let seconds = at.usec / 1_000_000;
    let small = |number: u64| i8::try_from(number).ok();
    DateTime::new(
        i16::try_from(at.date.year).ok()?,
        small(at.date.month.into())?,
        small(at.date.day.into())?,
        small(seconds / 3600)?,
        small(seconds / 60 % 60)?,
        small(seconds % 60)?,
        i32::try_from(at.usec % 1_000_000 * 1000).ok()?,
    )
    .ok()
}

impl Zone {
    /// UTC.
    #[must_use]
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// The zone in a file of `/usr/share/zoneinfo`.
    ///
    /// # Errors
    /// When that is none.
    pub fn from_tzif(name: &str, bytes: &[u8]) -> Result<Self, ZoneError> {
        TimeZone::tzif(name, bytes).map(Self).map_err(|_| ZoneError { name: name.to_owned() })
    }

    /// A zone by its rule, for tests.
    #[cfg(test)]
    pub(crate) fn posix(rule: &str) -> Self {
        Self(TimeZone::posix(rule).unwrap())
    }

    /// Seconds east of Greenwich, and the abbreviation, at a moment.
    #[must_use]
    pub fn offset(&self, at: WallUsec) -> (i32, String) {
        let timestamp = i64::try_from(at).ok().and_then(|at| Timestamp::from_microsecond(at).ok()).unwrap_or(Timestamp::UNIX_EPOCH);
        let info = self.0.to_offset_info(timestamp);
        (info.offset().seconds(), info.abbreviation().to_owned())
    }

    pub(super) fn local(&self, at: WallUsec) -> Option<Local> {
        let timestamp = Timestamp::from_microsecond(i64::try_from(at).ok()?).ok()?;
        Some(local(self.0.to_datetime(timestamp)))
    }

    /// `None` beyond the end of time.
    pub(super) fn moment(&self, at: Local) -> Option<Moment> {
        let at = date_time(at)?;
        Some(match self.0.to_ambiguous_timestamp(at).offset() {
            AmbiguousOffset::Unambiguous { offset } => Moment::At(usec(offset.to_timestamp(at).ok()?)),
            AmbiguousOffset::Fold { before, after } => {
                Moment::Twice(usec(before.to_timestamp(at).ok()?), usec(after.to_timestamp(at).ok()?))
            }
            AmbiguousOffset::Gap { before, .. } => {
                // With the old offset the moment lies after the jump; the jump is the last one before it.
                let later = before.to_timestamp(at).ok()?.checked_add(SignedDuration::from_micros(1)).ok()?;
                let jump = self.0.preceding(later).next()?.timestamp();
                Moment::Never(local(self.0.to_datetime(jump)))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::calendar::{CalendarSpec, Zone};

    /// Berlin's rules of today, for all times.
    fn berlin() -> Zone {
        Zone::posix("CET-1CEST,M3.5.0,M10.5.0/3")
    }

    fn utc(text: &str) -> u64 {
        CalendarSpec::parse(&format!("{text} UTC")).unwrap().next_after(0, &Zone::utc()).unwrap()
    }

    /// Each line: an expression, from when, and the next times; all in UTC.
    #[test]
    fn days_when_the_clocks_change() {
        let table = [
            ("02:30", "2026-03-28 23:10", "2026-03-30 00:30", "2026-03-31 00:30"),
            ("02,03:00", "2026-03-29 00:10", "2026-03-29 01:00", "2026-03-30 00:00"),
            ("*:0/15", "2026-03-29 00:40", "2026-03-29 00:45", "2026-03-29 01:00"),
            ("02:*:*", "2026-03-29 00:00", "2026-03-30 00:00", "2026-03-30 00:00:01"),
            ("02:30", "2026-10-24 12:00", "2026-10-25 00:30", "2026-10-26 01:30"),
            ("02:30", "2026-10-25 01:00", "2026-10-25 01:30", "2026-10-26 01:30"),
            ("*:0/30", "2026-10-25 00:00", "2026-10-25 00:30", "2026-10-25 02:00"),
        ];
        for (text, from, first, second) in table {
            let spec = CalendarSpec::parse(text).unwrap();
            let next = spec.next_after(utc(from), &berlin());
            assert_eq!(next, Some(utc(first)), "{text} from {from}");
            assert_eq!(spec.next_after(next.unwrap(), &berlin()), Some(utc(second)), "{text} after {first}");
        }
    }

    #[test]
    fn a_skipped_hour_is_not_searched_microsecond_by_microsecond() {
        let begin = std::time::Instant::now();
        let spec = CalendarSpec::parse("02:*:0/0.000001").unwrap();
        assert_eq!(spec.next_after(utc("2026-03-29 00:59"), &berlin()), Some(utc("2026-03-30 00:00")));
        assert!(begin.elapsed().as_millis() < 500);
    }

    #[test]
    fn a_file_that_is_no_zone_is_refused() {
        assert!(Zone::from_tzif("x", b"nonsense").is_err());
    }
}
