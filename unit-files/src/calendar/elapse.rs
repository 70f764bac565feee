//! When an expression comes round next.

use super::zone::{Local, Moment};
use super::{CalendarSpec, LAST_YEAR, WallUsec, Zone};

const MINUTE: u64 = 60_000_000;

/// A day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Date {
    pub year: u32,
    pub month: u32,
    pub day: u32,
}

/// Year, month and day of a day since 1970 (Howard Hinnant's method).
#[allow(clippy::cast_possible_truncation)] // A year of more than 32 bits does not come out of 64 bits of microseconds.
pub(super) fn civil_from_days(day: u64) -> (u32, u32, u32) {
    let z = day + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let date = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    ((yoe + era * 400 + u64::from(month <= 2)) as u32, month as u32, date as u32)
}

impl Date {
    fn leap(self) -> bool {
        self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400))
    }

    fn month_length(self) -> u32 {
        match self.month {
            4 | 6 | 9 | 11 => 30,
            2 => 28 + u32::from(self.leap()),
            _ => 31,
        }
    }

    /// 0 is Monday (Sakamoto's method).
    fn weekday(self) -> u8 {
        const SHIFT: [u32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let year = if self.month < 3 { self.year - 1 } else { self.year };
        let shift = SHIFT.get((self.month as usize).saturating_sub(1)).copied().unwrap_or_default();
        let sunday_first = (year + year / 4 - year / 100 + year / 400 + shift + self.day) % 7;
        u8::try_from((sunday_first + 6) % 7).unwrap_or_default()
    }

    fn tomorrow(mut self) -> Self {
        self.day += 1;
        if self.day > self.month_length() {
            self = self.next_month();
        }
        self
    }

    fn next_month(self) -> Self {
        if self.month == 12 {
            Self { year: self.year + 1, month: 1, day: 1 }
        } else {
            Self { year: self.year, month: self.month + 1, day: 1 }
        }
    }
}

pub(super) fn next_after(spec: &CalendarSpec, after: WallUsec, zone: &Zone) -> Option<WallUsec> {
    let begin = zone.local(after.checked_add(1)?)?;
    let mut date = begin.date;
    let mut time = begin.usec;
    loop {
        let found = next_date(spec, date)?;
        if found != date {
            date = found;
            time = 0;
        }
        let Some(usec) = next_time(spec, time) else {
            date = date.tomorrow();
            time = 0;
            continue;
        };
        match zone.moment(Local { date, usec })? {
            Moment::At(at) if at > after => return Some(at),
            // The clocks show it twice; the second time is only for those who come too late for the first.
            Moment::Twice(first, second) if second > after => return Some(if first > after { first } else { second }),
            Moment::At(_) | Moment::Twice(..) => time = usec + 1,
            // The clocks are put forward over it: go on where they go on.
            Moment::Never(resume) if resume.date > date => {
                date = resume.date;
                time = resume.usec;
            }
            Moment::Never(resume) => time = resume.usec.max(usec + 1),
        }
    }
}

/// The first day from `date` on that the expression lets pass.
fn next_date(spec: &CalendarSpec, mut date: Date) -> Option<Date> {
    loop {
        let year = spec.years.next(date.year).filter(|year| *year <= LAST_YEAR)?;
        if year != date.year {
            date = Date { year, month: 1, day: 1 };
        }
        let Some(month) = spec.months.next(date.month).filter(|month| *month <= 12) else {
            date = Date { year: date.year + 1, month: 1, day: 1 };
            continue;
        };
        if month != date.month {
            date = Date { month, day: 1, ..date };
        }
        let length = date.month_length();
        let day = if spec.from_month_end { spec.days.next_from_end(date.day, length) } else { spec.days.next(date.day) };
        let Some(day) = day.filter(|day| *day <= length) else {
            date = date.next_month();
            continue;
        };
        date.day = day;
        if spec.weekdays.is_none_or(|days| days & (1 << date.weekday()) != 0) {
            return Some(date);
        }
        date = date.tomorrow();
    }
}

/// The first microsecond of a day from `from` on that the expression lets pass.
#[allow(clippy::cast_possible_truncation)] // Parts of a day fit.
fn next_time(spec: &CalendarSpec, from: u64) -> Option<u64> {
    if from >= 24 * 60 * MINUTE {
        return None;
    }
    let (mut hour, mut minute, mut usec) = ((from / MINUTE / 60) as u32, (from / MINUTE % 60) as u32, (from % MINUTE) as u32);
    loop {
        let found = spec.hours.next(hour).filter(|hour| *hour < 24)?;
        if found != hour {
            (hour, minute, usec) = (found, 0, 0);
        }
        let Some(found) = spec.minutes.next(minute).filter(|minute| *minute < 60) else {
            (hour, minute, usec) = (hour + 1, 0, 0);
            continue;
        };
        if found != minute {
            (minute, usec) = (found, 0);
        }
        let Some(found) = spec.microseconds.next(usec).filter(|usec| u64::from(*usec) < MINUTE) else {
            (minute, usec) = (minute + 1, 0);
            continue;
        };
        return Some((u64::from(hour) * 60 + u64::from(minute)) * MINUTE + u64::from(found));
    }
}
