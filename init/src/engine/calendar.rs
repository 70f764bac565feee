//! When an `OnCalendar=` expression comes round next, in UTC.
//!
//! The common part of the grammar: shorthands, weekdays, `*`, lists, ranges and repetitions. An expression beyond that never
//! elapses, and loading it said so.

use unit_files::calendar::CalendarSpec;

const SECOND: u64 = 1_000_000;
const DAY: u64 = 86_400;

/// The first time after `from` (microseconds since the epoch) that matches.
#[must_use]
pub fn next(spec: &CalendarSpec, from: u64) -> Option<u64> {
    let pattern = Pattern::parse(&spec.text)?;
    let start = from / SECOND + 1;
    // Day by day, then the times of that day; eight years see every leap day.
    for day in start / DAY..start / DAY + 8 * 366 {
        let (year, month, date) = civil(day);
        let weekday = (day + 3) % 7;
        if !(pattern.weekdays.has(weekday) && pattern.years.has(year) && pattern.months.has(month) && pattern.days.has(date)) {
            continue;
        }
        for hour in (0..24).filter(|hour| pattern.hours.has(*hour)) {
            for minute in (0..60).filter(|minute| pattern.minutes.has(*minute)) {
                for second in (0..60).filter(|second| pattern.seconds.has(*second)) {
                    let at = day * DAY + hour * 3600 + minute * 60 + second;
                    if at >= start {
                        return Some(at * SECOND);
                    }
                }
            }
        }
    }
    None
}

/// Which numbers of a field match.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field(Vec<(u64, u64, u64)>);

impl Field {
    fn any() -> Self {
        Self(vec![(0, u64::MAX, 1)])
    }

    fn only(number: u64) -> Self {
        Self(vec![(number, number, 1)])
    }

    fn has(&self, number: u64) -> bool {
        self.0.iter().any(|(low, high, step)| number >= *low && number <= *high && (number - low).is_multiple_of(*step))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, step.parse().ok().filter(|step| *step > 0)?),
                None => (part, 1),
            };
            let (low, high) = match range.split_once("..") {
                Some((low, high)) => (low.parse().ok()?, high.parse().ok()?),
                None if range == "*" => (0, u64::MAX),
                None => {
                    let number = range.parse().ok()?;
                    (number, if step == 1 { number } else { u64::MAX })
                }
            };
            parts.push((low, high, step));
        }
        Some(Self(parts))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    weekdays: Field,
    years: Field,
    months: Field,
    days: Field,
    hours: Field,
    minutes: Field,
    seconds: Field,
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let long = match text.trim() {
            "minutely" => "*-*-* *:*:00",
            "hourly" => "*-*-* *:00:00",
            "daily" => "*-*-* 00:00:00",
            "weekly" => "Mon *-*-* 00:00:00",
            "monthly" => "*-*-01 00:00:00",
            "quarterly" => "*-01,04,07,10-01 00:00:00",
            "semiannually" => "*-01,07-01 00:00:00",
            "yearly" | "annually" => "*-01-01 00:00:00",
            other => other,
        };
        let mut pattern = Self {
            weekdays: Field::any(),
            years: Field::any(),
            months: Field::any(),
            days: Field::any(),
            hours: Field::only(0),
            minutes: Field::only(0),
            seconds: Field::only(0),
        };
        for word in long.split_whitespace() {
            if word == "UTC" {
                continue;
            } else if word.contains(':') {
                let mut fields = word.split(':');
                pattern.hours = Field::parse(fields.next()?)?;
                pattern.minutes = Field::parse(fields.next()?)?;
                pattern.seconds = fields.next().map_or_else(|| Some(Field::only(0)), Field::parse)?;
            } else if word.starts_with(|c: char| c.is_ascii_alphabetic()) {
                pattern.weekdays = weekdays(word)?;
            } else {
                let fields: Vec<&str> = word.split('-').collect();
                match fields.as_slice() {
                    [year, month, day] => {
                        pattern.years = Field::parse(year)?;
                        pattern.months = Field::parse(month)?;
                        pattern.days = Field::parse(day)?;
                    }
                    [month, day] => {
                        pattern.months = Field::parse(month)?;
                        pattern.days = Field::parse(day)?;
                    }
                    _ => return None,
                }
            }
        }
        Some(pattern)
    }
}

fn weekdays(text: &str) -> Option<Field> {
    const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let number = |word: &str| -> Option<u64> {
        let word = word.to_ascii_lowercase();
        NAMES.iter().position(|name| word.starts_with(name)).and_then(|at| u64::try_from(at).ok())
    };
    let mut parts = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let range = part.split_once("..").or_else(|| part.split_once('-'));
        let (low, high) = match range {
            Some((low, high)) => (number(low)?, number(high)?),
            None => (number(part)?, number(part)?),
        };
        parts.push((low, high, 1));
    }
    Some(Field(parts))
}

/// Year, month and day of a day since the epoch (Howard Hinnant's method).
fn civil(day: u64) -> (u64, u64, u64) {
    let z = day + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let date = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_come_round_when_systemd_says() {
        // 2026-07-15 13:45:10 UTC, a Wednesday.
        let from = 1_784_123_110 * SECOND;
        let table = [
            ("minutely", "2026-07-15 13:46:00"),
            ("hourly", "2026-07-15 14:00:00"),
            ("daily", "2026-07-16 00:00:00"),
            ("weekly", "2026-07-20 00:00:00"),
            ("monthly", "2026-08-01 00:00:00"),
            ("yearly", "2027-01-01 00:00:00"),
            ("*:0/15", "2026-07-15 14:00:00"),
            ("Sat,Sun 04:30", "2026-07-18 04:30:00"),
            ("Mon..Fri *-*-* 12:00", "2026-07-16 12:00:00"),
            ("02-29", "2028-02-29 00:00:00"),
            ("2026-07-15 13:45:11", "2026-07-15 13:45:11"),
        ];
        for (text, expected) in table {
            let at = next(&CalendarSpec { text: text.into() }, from).unwrap() / SECOND;
            let (year, month, day) = civil(at / DAY);
            let time = at % DAY;
            let got = format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60);
            assert_eq!(got, expected, "{text}");
        }
        assert_eq!(next(&CalendarSpec { text: "2020-01-01".into() }, from), None);
        assert_eq!(next(&CalendarSpec { text: "whenever".into() }, from), None);
    }
}
