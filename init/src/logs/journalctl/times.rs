//! The times that people give to `--since` and `--until`.

use crate::logs::config::time_span;
use crate::sys::localtime::{self, CivilTime};

/// Microseconds since 1970 of `2026-11-22`, `2026-11-22 03:00[:00]`, `03:00[:00]`, `now`, `today`, `yesterday`, `tomorrow`, `@SECONDS`,
/// `-1h`, `+5min` or `1 hour ago`; a trailing ` UTC` or the flag says which zone is meant. `None` when it is none of them.
pub fn parse(text: &str, now: u64, utc: bool) -> Option<u64> {
    let text = text.trim();
    if let Some(span) = text.strip_prefix('-') {
        return Some(now.saturating_sub(time_span(span)?));
    }
    if let Some(span) = text.strip_prefix('+') {
        return now.checked_add(time_span(span)?);
    }
    if let Some(span) = text.strip_suffix(" ago") {
        return Some(now.saturating_sub(time_span(span)?));
    }
    if let Some(span) = text.strip_suffix(" left") {
        return now.checked_add(time_span(span)?);
    }
    if let Some(seconds) = text.strip_prefix('@') {
        let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
        return whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(fraction_micros(fraction)?);
    }
    // The weekday is for people; journald checks that it is right, which nobody misses.
    let text = match text.split_once(' ') {
        Some((day, rest)) if WEEKDAYS.iter().any(|known| day.trim_end_matches(',').eq_ignore_ascii_case(known)) => rest.trim_start(),
        _ => text,
    };
    let (text, offset) = zone(text)?;
    let utc = utc || offset.is_some();
    let shift = offset.unwrap_or(0);
    let today = CivilTime { hour: 0, minute: 0, second: 0, ..localtime::civil(i64::try_from(now / 1_000_000).ok()?, utc) };
    let day = |offset: i32| seconds_to_micros(localtime::seconds(&CivilTime { day: today.day + offset, ..today }, utc));
    match text {
        "now" => return Some(now),
        "today" => return day(0),
        "yesterday" => return day(-1),
        "tomorrow" => return day(1),
        _ => {}
    }
    let (date, clock) = match text.split_once([' ', 'T']) {
        Some((date, clock)) => (Some(date), Some(clock)),
        None if text.contains(':') => (None, Some(text)),
        None => (Some(text), None),
    };
    let mut time = today;
    if let Some(date) = date {
        let mut parts = date.split('-');
        let year = parts.next()?;
        time.year = match (year.len(), year.parse::<i32>().ok()?) {
            (4, year) => year,
            // As journald has it: 69 and later is the last century.
            (2, year @ 69..) => 1900 + year,
            (2, year) => 2000 + year,
            _ => return None,
        };
        time.month = in_range(parts.next()?, 1, 12)?;
        time.day = in_range(parts.next()?, 1, 31)?;
        if parts.next().is_some() {
            return None;
        }
    }
    let mut micros = 0;
    if let Some(clock) = clock {
        let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        micros = fraction_micros(fraction)?;
        let mut parts = clock.split(':');
        time.hour = in_range(parts.next()?, 0, 23)?;
        time.minute = in_range(parts.next()?, 0, 59)?;
        time.second = parts.next().map_or(Some(0), |second| in_range(second, 0, 60))?;
        if parts.next().is_some() {
            return None;
        }
    }
    seconds_to_micros(localtime::seconds(&time, utc) - shift)?.checked_add(micros)
}

const WEEKDAYS: [&str; 14] =
    ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Takes a zone off the end: ` UTC`, `Z`, `+02:00`, `+0200`; with it come its seconds east of Greenwich.
fn zone(text: &str) -> Option<(&str, Option<i64>)> {
    if let Some(text) = text.strip_suffix("UTC").map(str::trim_end) {
        return Some((text, Some(0)));
    }
    if let Some(text) = text.strip_suffix('Z').filter(|text| text.contains(':')) {
        return Some((text, Some(0)));
    }
    let Some((clock, offset)) = text.rsplit_once(['+', '-']).filter(|(clock, _)| clock.contains(':')) else { return Some((text, None)) };
    let sign = if text.get(clock.len()..=clock.len()) == Some("-") { -1 } else { 1 };
    let digits: String = offset.chars().filter(|c| *c != ':').collect();
    let (hours, minutes) = digits.split_at_checked(2).filter(|(_, minutes)| matches!(minutes.len(), 0 | 2))?;
    let seconds =
        i64::from(in_range(hours, 0, 15)?) * 3600 + if minutes.is_empty() { 0 } else { i64::from(in_range(minutes, 0, 59)?) * 60 };
    Some((clock.trim_end(), Some(sign * seconds)))
}

fn in_range(text: &str, low: i32, high: i32) -> Option<i32> {
    let value = text.parse().ok().filter(|value| (low..=high).contains(value))?;
    text.bytes().all(|b| b.is_ascii_digit()).then_some(value)
}

fn fraction_micros(digits: &str) -> Option<u64> {
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    format!("{digits:0<6}").get(..6)?.parse().ok()
}

fn seconds_to_micros(seconds: i64) -> Option<u64> {
    u64::try_from(seconds).ok()?.checked_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Sunday, 2026-11-22 03:00:05 UTC
    const NOW: u64 = 1_795_316_405_000_000;

    fn utc(text: &str) -> Option<u64> {
        parse(text, NOW, true)
    }

    #[test]
    fn absolute_and_relative_times() {
        let midnight = NOW - (3 * 3600 + 5) * 1_000_000;
        for (text, expected) in [
            ("now", NOW),
            ("today", midnight),
            ("yesterday", midnight - 86_400_000_000),
            ("2026-11-22", midnight),
            ("2026-11-22 03:00", NOW - 5_000_000),
            ("2026-11-22 03:00:05", NOW),
            ("2026-11-22T03:00:05.25", NOW + 250_000),
            ("03:00:05", NOW),
            ("-1h", NOW - 3_600_000_000),
            ("1 hour ago", NOW - 3_600_000_000),
            ("5min 20s ago", NOW - 320_000_000),
            ("@1795316405", NOW),
            ("2026-11-22 03:00:05 UTC", NOW),
            ("Sun 2026-11-22 03:00:05 UTC", NOW),
            ("26-11-22 03:00:05", NOW),
            ("2026-11-22T03:00:05Z", NOW),
            ("2026-11-22T05:00:05.5+02:00", NOW + 500_000),
            ("2026-11-21 22:00:05 -0500", NOW),
            ("5min left", NOW + 300_000_000),
        ] {
            assert_eq!(utc(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "noon", "2026-13-01", "2026-11-22 25:00", "6-11-22", "2026-11-22 03:00:05:07", "1 parsec ago", "@x", "+"] {
            assert_eq!(utc(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[-+@0-9a-z:T. ]{0,30}") {
            parse(&text, NOW, true);
        }
    }
}
