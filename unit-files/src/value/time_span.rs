//! Time spans: `90s`, `5min 20s`, `1h`, `infinity`.

use std::time::Duration;

use super::{ValueError, expected};

const NANOS_PER_USEC: u64 = 1_000;
const USEC_PER_SEC: u64 = 1_000_000;
const MINUTE: u64 = 60 * USEC_PER_SEC;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Longest first where one begins with the other.
const TIME_UNITS: [(&str, u64); 29] = [
    ("seconds", USEC_PER_SEC),
    ("second", USEC_PER_SEC),
    ("sec", USEC_PER_SEC),
    ("s", USEC_PER_SEC),
    ("minutes", MINUTE),
    ("minute", MINUTE),
    ("min", MINUTE),
    ("months", 2_629_800 * USEC_PER_SEC),
    ("month", 2_629_800 * USEC_PER_SEC),
    ("M", 2_629_800 * USEC_PER_SEC),
    ("msec", 1_000),
    ("ms", 1_000),
    ("m", MINUTE),
    ("hours", HOUR),
    ("hour", HOUR),
    ("hr", HOUR),
    ("h", HOUR),
    ("days", DAY),
    ("day", DAY),
    ("d", DAY),
    ("weeks", 7 * DAY),
    ("week", 7 * DAY),
    ("w", 7 * DAY),
    ("years", 31_557_600 * USEC_PER_SEC),
    ("year", 31_557_600 * USEC_PER_SEC),
    ("y", 31_557_600 * USEC_PER_SEC),
    ("usec", 1),
    ("us", 1),
    ("\u{b5}s", 1),
];

const NOT_A_SPAN: &str = "a time span (such as 90s, 5min 20s, 1h, infinity)";

/// A time span of microseconds; `None` is infinity. A bare number counts `default_unit` microseconds.
fn parse_usec(text: &str, default_unit: u64) -> Result<Option<u64>, ValueError> {
    let bad = || expected(text, NOT_A_SPAN);
    let trimmed = text.trim();
    if trimmed == "infinity" {
        return Ok(None);
    }
    if trimmed.is_empty() {
        return Err(bad());
    }
    let mut total = 0_u64;
    let mut rest = trimmed;
    while !rest.is_empty() {
        let unsigned = rest.strip_prefix('+').unwrap_or(rest);
        let digits = unsigned.len() - unsigned.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (whole_text, mut after) = unsigned.split_at_checked(digits).ok_or_else(bad)?;
        let mut fraction = None;
        if let Some(tail) = after.strip_prefix('.') {
            let digits = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (fraction_text, tail) = tail.split_at_checked(digits).ok_or_else(bad)?;
            if fraction_text.is_empty() {
                return Err(bad());
            }
            fraction = Some(fraction_text);
            after = tail;
        } else if whole_text.is_empty() {
            return Err(bad());
        }
        let whole: u64 = if whole_text.is_empty() { 0 } else { whole_text.parse().map_err(|_| bad())? };
        let spaced = after.trim_start();
        let unit = TIME_UNITS.iter().chain(&[("\u{3bc}s", 1)]).find(|(name, _)| spaced.starts_with(name));
        let (multiplier, tail) = match unit {
            Some((name, multiplier)) => (*multiplier, spaced.get(name.len()..).unwrap_or_default()),
            // `12.34.56` is wrong, `12.34 .56` is right.
            None if after.len() == spaced.len() && !spaced.is_empty() => return Err(bad()),
            None => (default_unit, spaced),
        };
        let mut part = whole.checked_mul(multiplier).ok_or_else(bad)?;
        let mut place = multiplier / 10;
        for digit in fraction.unwrap_or_default().bytes() {
            part = part.checked_add(u64::from(digit.saturating_sub(b'0')) * place).ok_or_else(bad)?;
            place /= 10;
        }
        total = total.checked_add(part).filter(|&sum| sum != u64::MAX).ok_or_else(bad)?;
        rest = tail.trim_start();
    }
    Ok(Some(total))
}

/// A time span, a bare number counting seconds; `None` is infinity.
///
/// # Errors
/// When it is none.
pub fn parse_time_span(text: &str) -> Result<Option<Duration>, ValueError> {
    Ok(parse_usec(text, USEC_PER_SEC)?.map(Duration::from_micros))
}

/// A time span in which zero means infinity, as the timeouts of services have it.
///
/// # Errors
/// When it is none.
pub fn parse_timeout(text: &str) -> Result<Option<Duration>, ValueError> {
    Ok(parse_time_span(text)?.filter(|span| !span.is_zero()))
}

/// A time span that cannot be infinite.
///
/// # Errors
/// When it is none.
pub fn parse_finite_span(text: &str) -> Result<Duration, ValueError> {
    parse_time_span(text)?.ok_or_else(|| expected(text, "a time span other than infinity"))
}

/// A time span for kernel knobs in microseconds or nanoseconds, where a bare number counts that unit.
///
/// # Errors
/// When it is none.
pub fn parse_nanoseconds(text: &str) -> Result<Duration, ValueError> {
    if let Ok(nanoseconds) = text.trim_end_matches("nsec").trim_end_matches("ns").trim().parse() {
        return Ok(Duration::from_nanos(nanoseconds));
    }
    let micros = parse_usec(text, 1)?.ok_or_else(|| expected(text, NOT_A_SPAN))?;
    Ok(Duration::from_nanos(micros.saturating_mul(NANOS_PER_USEC)))
}

/// How a time span is written, as systemd does: `1min 30s`, `1.500s`, `infinity`.
#[must_use]
pub fn format_time_span(span: Option<Duration>, accuracy: Duration) -> String {
    const UNITS: [(&str, u64); 9] = [
        ("y", 31_557_600 * USEC_PER_SEC),
        ("month", 2_629_800 * USEC_PER_SEC),
        ("w", 7 * DAY),
        ("d", DAY),
        ("h", HOUR),
        ("min", MINUTE),
        ("s", USEC_PER_SEC),
        ("ms", 1_000),
        ("us", 1),
    ];
    let Some(span) = span else { return "infinity".to_owned() };
    let mut left = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0".to_owned();
    }
    let accuracy = u64::try_from(accuracy.as_micros()).unwrap_or(u64::MAX).max(1);
    let mut parts: Vec<String> = Vec::new();
    for (name, unit) in UNITS {
        if left == 0 || (left < accuracy && !parts.is_empty()) {
            break;
        }
        if left < unit {
            continue;
        }
        let (whole, rest) = (left / unit, left % unit);
        // Below a minute the rest becomes a fraction, unless it is whole or finer than asked.
        if left < MINUTE && rest > 0 {
            let mut digits = 0_usize;
            let mut scale = 1_u64;
            while scale < unit {
                scale *= 10;
                digits += 1;
            }
            let mut fraction = rest;
            let mut finest = accuracy;
            while finest > 1 && digits > 0 {
                fraction /= 10;
                finest /= 10;
                digits -= 1;
            }
            if digits > 0 {
                parts.push(format!("{whole}.{fraction:0digits$}{name}"));
                left = 0;
                continue;
            }
        }
        parts.push(format!("{whole}{name}"));
        left = rest;
    }
    parts.join(" ")
}
