//! From text to a [`CalendarSpec`].

use super::elapse::civil_from_days;
use super::field::{Field, Part, SECOND};
use super::{CalendarError, CalendarSpec, CalendarZone, LAST_YEAR};

/// How long a list may be, so that nobody keeps PID 1 busy with a long one.
const MAX_PARTS: usize = 240;

type Wrong = &'static str;

/// What is left to read.
struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.rest.bytes().next()
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.rest.strip_prefix(word);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn digits(&mut self) -> &'a str {
        let rest = self.rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = self.rest.get(..self.rest.len() - rest.len()).unwrap_or_default();
        self.rest = rest;
        digits
    }

    /// A number; with `seconds` in microseconds, and with a fraction.
    fn number(&mut self, seconds: bool) -> Result<u32, Wrong> {
        const TOO_LARGE: Wrong = "a number is too large";
        let digits = self.digits();
        if digits.is_empty() {
            return Err("a number is missing");
        }
        let number: u32 = digits.parse().ok().filter(|number| *number <= i32::MAX as u32).ok_or(TOO_LARGE)?;
        if !seconds {
            return Ok(number);
        }
        let whole = number.checked_mul(SECOND).ok_or(TOO_LARGE)?;
        // Two dots are a range.
        if !self.rest.starts_with('.') || self.rest.starts_with("..") {
            return Ok(whole);
        }
        self.eat(".");
        let fraction = self.digits();
        if fraction.is_empty() {
            return Err("there is no fraction after the point");
        }
        let kept = fraction.get(..6).unwrap_or(fraction);
        let round_up = fraction.as_bytes().get(6).is_some_and(|digit| *digit >= b'5');
        let usec: u32 = format!("{kept:0<6}").parse().map_err(|_| TOO_LARGE)?;
        whole.checked_add(usec + u32::from(round_up)).ok_or(TOO_LARGE)
    }

    /// `*`, or a list of numbers and ranges with steps.
    fn field(&mut self, seconds: bool) -> Result<Field, Wrong> {
        if self.eat("*") {
            let every_second = Part { start: 0, stop: None, step: SECOND };
            return Ok(Field { parts: if seconds { vec![every_second] } else { Vec::new() } });
        }
        let mut parts = Vec::new();
        loop {
            let unit = if seconds { SECOND } else { 1 };
            let mut part = Part::only(self.number(seconds)?);
            if self.eat("..") {
                part.stop = Some(self.number(seconds)?);
                part.step = unit;
            }
            if self.eat("/") {
                part.step = self.number(seconds)?;
                if part.step == 0 {
                    return Err("a step of zero");
                }
            } else if seconds && part.stop.is_some_and(|stop| part.start.saturating_add(unit) > stop) {
                return Err("a range of seconds shorter than one second");
            }
            parts.push(part);
            if parts.len() > MAX_PARTS {
                return Err("a list is too long");
            }
            if !self.eat(",") {
                break;
            }
        }
        match self.peek() {
            None | Some(b' ' | b'-' | b'~' | b':') => Ok(Field { parts }),
            Some(_) => Err("there is something else after a number"),
        }
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_start_matches(' ');
    }
}

fn empty(text: &str, zone: CalendarZone) -> CalendarSpec {
    let zero = || Field::only(0);
    CalendarSpec {
        text: text.to_owned(),
        weekdays: None,
        years: Field::default(),
        months: Field::default(),
        days: Field::default(),
        from_month_end: false,
        hours: zero(),
        minutes: zero(),
        microseconds: zero(),
        zone,
    }
}

pub(super) fn parse(text: &str) -> Result<CalendarSpec, CalendarError> {
    if text.trim().is_empty() {
        return Err(CalendarError::Empty);
    }
    let wrong = |what: Wrong| CalendarError::Syntax { text: text.to_owned(), what };
    let (body, zone) = split_zone(text);
    if body.is_empty() {
        return Err(wrong("there is only a time zone"));
    }
    let mut spec = empty(text, zone);
    if !shorthand(&mut spec, body) {
        written_out(&mut spec, body).map_err(wrong)?;
    }
    finish(spec)
}

/// The last word is a zone when it is a name that nothing else can be.
fn split_zone(text: &str) -> (&str, CalendarZone) {
    if let Some((body, last)) = text.rsplit_once(' ')
        && weekday(last).is_none()
    {
        if last.eq_ignore_ascii_case("UTC") {
            return (body, CalendarZone::Utc);
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '/');
        let name = last.starts_with(|c: char| c.is_ascii_alphabetic()) && last.chars().all(plain);
        if name && !last.ends_with('/') && !last.contains("//") && last.len() <= 255 {
            return (body, CalendarZone::Named(last.to_owned()));
        }
    }
    (text, CalendarZone::Local)
}

fn shorthand(spec: &mut CalendarSpec, word: &str) -> bool {
    match word.to_ascii_lowercase().as_str() {
        "minutely" => {
            spec.hours = Field::default();
            spec.minutes = Field::default();
        }
        "hourly" => spec.hours = Field::default(),
        "daily" => {}
        "weekly" => spec.weekdays = Some(1),
        "monthly" => spec.days = Field::only(1),
        "quarterly" => {
            spec.months = Field::of(&[1, 4, 7, 10]);
            spec.days = Field::only(1);
        }
        "biannually" | "bi-annually" | "semiannually" | "semi-annually" => {
            spec.months = Field::of(&[1, 7]);
            spec.days = Field::only(1);
        }
        "yearly" | "annually" | "anually" => {
            spec.months = Field::only(1);
            spec.days = Field::only(1);
        }
        _ => return false,
    }
    true
}

fn written_out(spec: &mut CalendarSpec, body: &str) -> Result<(), Wrong> {
    let mut cursor = Cursor { rest: body };
    weekdays(spec, &mut cursor)?;
    if cursor.rest.starts_with('@') {
        return timestamp(spec, &mut cursor);
    }
    date(spec, &mut cursor)?;
    time(spec, &mut cursor)?;
    if cursor.rest.is_empty() { Ok(()) } else { Err("there is something after the time") }
}

fn weekday(word: &str) -> Option<u8> {
    const LONG: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let word = word.to_ascii_lowercase();
    let day = LONG.iter().position(|long| *long == word || (word.len() == 3 && long.starts_with(&word)))?;
    u8::try_from(day).ok()
}

fn weekdays(spec: &mut CalendarSpec, cursor: &mut Cursor<'_>) -> Result<(), Wrong> {
    if !cursor.peek().is_some_and(|byte| byte.is_ascii_alphabetic()) {
        return Ok(());
    }
    let mut days = 0_u8;
    loop {
        let first = one_weekday(cursor)?;
        let mut last = first;
        if cursor.eat("..") || cursor.eat("-") {
            last = one_weekday(cursor)?;
            if last < first {
                return Err("a range of weekdays runs backwards; write the days as a list");
            }
        }
        for day in first..=last {
            days |= 1 << day;
        }
        // A comma at the end is let pass.
        if !cursor.eat(",") || matches!(cursor.peek(), None | Some(b' ')) {
            break;
        }
    }
    if !matches!(cursor.peek(), None | Some(b' ')) {
        return Err("there is something else after the weekdays");
    }
    cursor.blanks();
    spec.weekdays = Some(days).filter(|days| *days < 0x7f);
    Ok(())
}

fn one_weekday(cursor: &mut Cursor<'_>) -> Result<u8, Wrong> {
    let end = cursor.rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(cursor.rest.len());
    let (word, rest) = cursor.rest.split_at_checked(end).ok_or("not a weekday")?;
    let day = weekday(word).ok_or("not a weekday")?;
    cursor.rest = rest;
    Ok(day)
}

/// `@SECONDS`: a moment.
fn timestamp(spec: &mut CalendarSpec, cursor: &mut Cursor<'_>) -> Result<(), Wrong> {
    cursor.eat("@");
    let seconds = cursor.number(false)?;
    if !cursor.rest.is_empty() {
        return Err("there is something after the seconds since 1970");
    }
    let (year, month, day) = civil_from_days(u64::from(seconds / 86_400));
    spec.years = Field::only(year);
    spec.months = Field::only(month);
    spec.days = Field::only(day);
    spec.hours = Field::only(seconds / 3600 % 24);
    spec.minutes = Field::only(seconds / 60 % 60);
    spec.microseconds = Field::only(seconds % 60 * SECOND);
    spec.zone = CalendarZone::Utc;
    Ok(())
}

fn date(spec: &mut CalendarSpec, cursor: &mut Cursor<'_>) -> Result<(), Wrong> {
    if cursor.rest.is_empty() {
        return Ok(());
    }
    let begin = cursor.rest;
    let first = cursor.field(false)?;
    // A time, then.
    if matches!(cursor.peek(), None | Some(b':')) {
        cursor.rest = begin;
        return Ok(());
    }
    let mut from_end = separator(cursor)?;
    let second = cursor.field(false)?;
    if matches!(cursor.peek(), None | Some(b' ')) {
        spec.months = first;
        spec.days = second;
    } else {
        if from_end {
            return Err("~ stands before the day only");
        }
        from_end = separator(cursor)?;
        let third = cursor.field(false)?;
        if !matches!(cursor.peek(), None | Some(b' ')) {
            return Err("there is something else after the date");
        }
        spec.years = first;
        spec.months = second;
        spec.days = third;
    }
    spec.from_month_end = from_end && !spec.days.parts.is_empty();
    cursor.blanks();
    Ok(())
}

/// Whether days count from the end of the month.
fn separator(cursor: &mut Cursor<'_>) -> Result<bool, Wrong> {
    if cursor.eat("~") {
        Ok(true)
    } else if cursor.eat("-") {
        Ok(false)
    } else {
        Err("a date is written year-month-day or month-day")
    }
}

fn time(spec: &mut CalendarSpec, cursor: &mut Cursor<'_>) -> Result<(), Wrong> {
    if cursor.rest.is_empty() {
        return Ok(());
    }
    let hours = cursor.field(false)?;
    if !cursor.eat(":") {
        return Err("a time is written hour:minute or hour:minute:second");
    }
    let minutes = cursor.field(false)?;
    if cursor.eat(":") {
        spec.microseconds = cursor.field(true)?;
    }
    spec.hours = hours;
    spec.minutes = minutes;
    Ok(())
}

/// 12 is 2012, 89 is 1989.
fn full_year(year: u32) -> u32 {
    match year {
        0..70 => year + 2000,
        70..100 => year + 1900,
        _ => year,
    }
}

fn finish(mut spec: CalendarSpec) -> Result<CalendarSpec, CalendarError> {
    for part in &mut spec.years.parts {
        part.start = full_year(part.start);
        part.stop = part.stop.map(full_year);
    }
    let from_end = spec.from_month_end;
    let fields = [
        (&mut spec.years, 1970, LAST_YEAR, false, "year"),
        (&mut spec.months, 1, 12, false, "month"),
        (&mut spec.days, 1, 31, from_end, "day"),
        (&mut spec.hours, 0, 23, false, "hour"),
        (&mut spec.minutes, 0, 59, false, "minute"),
        (&mut spec.microseconds, 0, 60 * SECOND - 1, false, "second"),
    ];
    for (field, low, high, from_end, place) in fields {
        field.normalise();
        if !field.fits(low, high, from_end) {
            return Err(CalendarError::Range { text: spec.text, place });
        }
    }
    Ok(spec)
}
