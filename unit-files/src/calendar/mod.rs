//! `OnCalendar=` expressions: `[weekdays] [year-month-day] [hour:minute[:second]] [zone]`, when one comes round next, and how it is
//! written in full.
//!
//! Pure: the rules of a time zone are handed in as a [`Zone`], the present as a number. What is accepted, what it means, also on the
//! days when clocks change, and the normalised form are systemd's; `tests/differential.rs` compares. Promises to end quickly for any
//! expression and any time: nothing is tried second by second.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

mod elapse;
mod field;
mod parse;
mod zone;

pub use field::Field;
pub use zone::{Zone, ZoneError};

/// Microseconds since 1970-01-01 00:00:00 UTC.
pub type WallUsec = u64;

/// The last year that an expression may name.
pub const LAST_YEAR: u32 = 2199;

/// A calendar expression.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalendarSpec {
    /// As written.
    pub text: String,
    /// One bit for each day, Monday lowest; none: every day.
    weekdays: Option<u8>,
    years: Field,
    months: Field,
    days: Field,
    /// Days are counted from the month's end: `~`.
    from_month_end: bool,
    hours: Field,
    minutes: Field,
    /// Microseconds of the minute.
    microseconds: Field,
    /// In which zone the above is meant.
    pub zone: CalendarZone,
}

/// The time zone of an expression.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CalendarZone {
    /// That of the host: `/etc/localtime`.
    #[default]
    Local,
    /// `UTC`.
    Utc,
    /// A name below `/usr/share/zoneinfo`; whether there is such a file is not known here.
    Named(String),
}

/// Why a text is no calendar expression.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CalendarError {
    /// Nothing there.
    #[error("the calendar expression is empty")]
    Empty,
    /// A part of it cannot be read.
    #[error("{text:?} is no calendar expression: {what} (such as \"Mon..Fri 04:30\", \"*-*-01 00:00 Europe/Berlin\", \"daily\")")]
    Syntax {
        /// The whole expression.
        text: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A number that its place cannot have.
    #[error("{text:?} is no calendar expression: a {place} out of range")]
    Range {
        /// The whole expression.
        text: String,
        /// Year, month, day, hour, minute or second.
        place: &'static str,
    },
}

const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

impl CalendarSpec {
    /// Reads an expression.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, CalendarError> {
        parse::parse(text)
    }

    /// The first time after `after` at which the expression comes round; `None` when it never does again. `zone` has to be the
    /// one that [`CalendarSpec::zone`] names. A time that the clocks skip does not exist; one that they show twice counts once.
    #[must_use]
    pub fn next_after(&self, after: WallUsec, zone: &Zone) -> Option<WallUsec> {
        elapse::next_after(self, after, zone)
    }
}

/// The normalised form, every part written out.
impl fmt::Display for CalendarSpec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(days) = self.weekdays {
            write_weekdays(days, out)?;
            out.write_str(" ")?;
        }
        self.years.write(out, 4)?;
        out.write_str("-")?;
        self.months.write(out, 2)?;
        out.write_str(if self.from_month_end { "~" } else { "-" })?;
        self.days.write(out, 2)?;
        out.write_str(" ")?;
        self.hours.write(out, 2)?;
        out.write_str(":")?;
        self.minutes.write(out, 2)?;
        out.write_str(":")?;
        self.microseconds.write_seconds(out)?;
        match &self.zone {
            CalendarZone::Local => Ok(()),
            CalendarZone::Utc => out.write_str(" UTC"),
            CalendarZone::Named(name) => write!(out, " {name}"),
        }
    }
}

fn write_weekdays(days: u8, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let has = |day: usize| day < 7 && days & (1 << day) != 0;
    let mut first = true;
    let mut day = 0;
    while day < 7 {
        if !has(day) {
            day += 1;
            continue;
        }
        let mut last = day;
        while has(last + 1) {
            last += 1;
        }
        if !first {
            out.write_str(",")?;
        }
        first = false;
        let name = |day: usize| WEEKDAYS.get(day).copied().unwrap_or_default();
        match last - day {
            0 => out.write_str(name(day))?,
            1 => write!(out, "{},{}", name(day), name(last))?,
            _ => write!(out, "{}..{}", name(day), name(last))?,
        }
        day = last + 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds since 1970 of a time in UTC.
    fn at(text: &str) -> WallUsec {
        let spec = CalendarSpec::parse(&format!("{text} UTC")).unwrap();
        spec.next_after(0, &Zone::utc()).unwrap()
    }

    #[test]
    fn shorthands_and_short_forms_are_written_out() {
        let table = [
            ("minutely", "*-*-* *:*:00"),
            ("Hourly", "*-*-* *:00:00"),
            ("weekly UTC", "Mon *-*-* 00:00:00 UTC"),
            ("quarterly", "*-01,04,07,10-01 00:00:00"),
            ("semi-annually", "*-01,07-01 00:00:00"),
            ("mon,TUESDAY..thu", "Mon..Thu *-*-* 00:00:00"),
            ("Sat-Sun", "Sat,Sun *-*-* 00:00:00"),
            ("12-1-1", "2012-01-01 00:00:00"),
            ("*:0/15 Europe/Berlin", "*-*-* *:00/15:00 Europe/Berlin"),
            ("*-*~7/1", "*-*~07/1 00:00:00"),
            ("*:*:1.1234567", "*-*-* *:*:01.123457"),
            ("0:0:0..59/20", "*-*-* 00:00:00..40/20"),
            ("@1800000000", "2027-01-15 08:00:00 UTC"),
        ];
        for (text, normal) in table {
            let spec = CalendarSpec::parse(text).unwrap();
            assert_eq!(spec.to_string(), normal, "{text}");
            assert_eq!(CalendarSpec::parse(normal).unwrap().to_string(), normal);
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for text in
            ["", " daily", "12", "Mon 12", "Fri..Mon", "Mon,,Tue", "*:*/5", "*-*~29", "2200-1-1", "1969-1-1", "00:60", "24:00", "UTC"]
        {
            assert!(CalendarSpec::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(CalendarSpec::parse("1:60").unwrap_err().to_string(), "\"1:60\" is no calendar expression: a minute out of range");
    }

    #[test]
    fn what_comes_round_next() {
        // A Wednesday.
        let from = at("2026-07-15 13:45:10");
        let table = [
            ("minutely", "2026-07-15 13:46:00"),
            ("weekly", "2026-07-20 00:00:00"),
            ("*:0/15", "2026-07-15 14:00:00"),
            ("Sat,Sun 04:30", "2026-07-18 04:30:00"),
            ("02-29", "2028-02-29 00:00:00"),
            ("*-*~1", "2026-07-31 00:00:00"),
            ("Mon *-05~07/1", "2027-05-31 00:00:00"),
            ("*-*-31 22:0", "2026-07-31 22:00:00"),
            ("2026-07-15 13:45:11", "2026-07-15 13:45:11"),
            ("Sun 2050-2/3-1..5 5:5:5", "2050-05-01 05:05:05"),
        ];
        for (text, expected) in table {
            let next = CalendarSpec::parse(text).unwrap().next_after(from, &Zone::utc());
            assert_eq!(next, Some(at(expected)), "{text}");
        }
        for never in ["2020-01-01", "02-30", "2026-07-15 13:45:10", "2025..2026/1-1-1"] {
            assert_eq!(CalendarSpec::parse(never).unwrap().next_after(from, &Zone::utc()), None, "{never}");
        }
        let half = CalendarSpec::parse("*:*:0/0.5").unwrap();
        assert_eq!(half.next_after(from, &Zone::utc()), Some(from + 500_000));
    }

    #[test]
    fn an_expression_that_never_comes_ends_quickly() {
        let begin = std::time::Instant::now();
        assert_eq!(CalendarSpec::parse("Mon 02-30 *:*:0/0.000001").unwrap().next_after(0, &Zone::utc()), None);
        assert!(begin.elapsed().as_millis() < 500);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-0-9*~/.,: @a-zA-Z]{0,40}", from in 0_u64..10_000_000_000_000_000) {
            if let Ok(spec) = CalendarSpec::parse(&text) {
                if let Some(next) = spec.next_after(from, &Zone::utc()) {
                    proptest::prop_assert!(next > from);
                }
                proptest::prop_assert_eq!(CalendarSpec::parse(&spec.to_string()).map(|spec| spec.to_string()), Ok(spec.to_string()));
            }
        }
    }
}
