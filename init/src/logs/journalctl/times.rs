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
    if let Some(seconds) = text.strip_prefix('@') {
        let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
        return whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(fraction_micros(fraction)?);
    }
    let (text, utc) = match text.strip_suffix(" UTC") {
        Some(text) => (text, true),
        None => (text, utc),
    };
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
        time.year = parts.next().filter(|year| year.len() == 4)?.parse().ok()?;
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
    seconds_to_micros(localtime::seconds(&time, utc))?.checked_add(micros)
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
        ] {
            assert_eq!(utc(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "noon", "2026-13-01", "2026-11-22 25:00", "26-11-22", "2026-11-22 03:00:05:07", "1 parsec ago", "@x", "+"] {
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
