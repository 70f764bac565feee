//! Scalar values: booleans, time spans, sizes, percentages, signals, exit statuses, limits, modes.

use thiserror::Error;

use crate::calendar::CalendarError;
use crate::command::CommandError;
use crate::name::NameError;
use crate::specifier::SpecifierError;
use crate::words::WordError;

mod address;
mod capability;
mod status;
mod time_span;

pub use address::{AddressRange, parse_address_ranges};
pub use capability::{ALL_CAPABILITIES, capability_name, parse_capability};
pub use status::{SIGRTMAX, SIGRTMIN, exit_code_name, parse_exit_code, parse_signal, signal_name};
pub use time_span::{format_time_span, parse_finite_span, parse_nanoseconds, parse_time_span, parse_timeout};

/// Why a value is of no use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ValueError {
    /// Not of the kind that the directive takes.
    #[error("{found:?} is not {expected}")]
    Expected {
        /// What was written.
        found: String,
        /// What should have been.
        expected: &'static str,
    },
    /// It cannot be split into words.
    #[error(transparent)]
    Words(#[from] WordError),
    /// A specifier is wrong.
    #[error(transparent)]
    Specifier(#[from] SpecifierError),
    /// A unit name is wrong.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A command line is wrong.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A calendar expression is wrong.
    #[error(transparent)]
    Calendar(#[from] CalendarError),
}

/// An error that says what should have been written.
pub(crate) fn expected(found: &str, expected: &'static str) -> ValueError {
    ValueError::Expected { found: found.to_owned(), expected }
}

/// `yes`, `no` and their other spellings.
///
/// # Errors
/// When it is none.
pub fn parse_bool(text: &str) -> Result<bool, ValueError> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Ok(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Ok(false),
        _ => Err(expected(text, "a boolean (yes or no)")),
    }
}

/// A number with a factor: `512M`, `1.5G`. The base is 1024 for memory and disk space, 1000 for rates.
///
/// # Errors
/// When it is none.
pub fn parse_size(text: &str, base: u64) -> Result<u64, ValueError> {
    let bad = || expected(text, "a size (such as 512M)");
    let mut total = 0_u64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    let mut largest = 7_u32;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (whole_text, mut after) = rest.split_at_checked(digits).ok_or_else(bad)?;
        let whole: u64 = whole_text.parse().map_err(|_| bad())?;
        let mut fraction = "";
        if let Some(tail) = after.strip_prefix('.') {
            let digits = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            (fraction, after) = tail.split_at_checked(digits).ok_or_else(bad)?;
        }
        let after = after.trim_start();
        let (power, tail) = match after.chars().next() {
            None => (0, after),
            Some(letter) => match "BKMGTPE".find(letter) {
                Some(power) => (u32::try_from(power).unwrap_or_default(), after.get(1..).unwrap_or_default()),
                None => return Err(bad()),
            },
        };
        if power >= largest {
            return Err(bad());
        }
        largest = power;
        let factor = base.checked_pow(power).ok_or_else(bad)?;
        let mut part = u128::from(whole) * u128::from(factor);
        if !fraction.is_empty() {
            // More digits than this are finer than a byte.
            let fraction = fraction.get(..18).unwrap_or(fraction);
            let numerator: u64 = fraction.parse().map_err(|_| bad())?;
            let denominator = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(18));
            part += u128::from(numerator) * u128::from(factor) / denominator;
        }
        total = u64::try_from(part).ok().and_then(|part| total.checked_add(part)).ok_or_else(bad)?;
        // Optional `iB`/`B` after a factor is what people write; systemd takes it not, so neither do we.
        rest = tail.trim_start();
    }
    Ok(total)
}

/// Percent with up to two decimals, in hundredths of a percent.
///
/// # Errors
/// When it is none.
pub fn parse_per_myriad(text: &str) -> Result<u32, ValueError> {
    let bad = || expected(text, "a percentage");
    let number = text.strip_suffix('%').ok_or_else(bad)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 2 || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let whole: u32 = whole.parse().map_err(|_| bad())?;
    let fraction: u32 = if fraction.is_empty() { 0 } else { format!("{fraction:0<2}").parse().map_err(|_| bad())? };
    whole.checked_mul(100).and_then(|value| value.checked_add(fraction)).ok_or_else(bad)
}

/// A file mode, octal.
///
/// # Errors
/// When it is none.
pub fn parse_mode(text: &str) -> Result<u32, ValueError> {
    u32::from_str_radix(text, 8).ok().filter(|&mode| mode <= 0o7777).ok_or_else(|| expected(text, "an octal file mode"))
}

/// A set of small numbers: `0-3 5,7`.
///
/// # Errors
/// When it is none.
pub fn parse_number_set(text: &str) -> Result<Vec<u32>, ValueError> {
    const MOST: u32 = 8192;
    let bad = || expected(text, "a list of numbers and ranges (such as 0-3 5)");
    let mut set = std::collections::BTreeSet::new();
    for word in text.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let first: u32 = first.trim().parse().map_err(|_| bad())?;
        let last: u32 = last.trim().parse().map_err(|_| bad())?;
        if first > last || last >= MOST {
            return Err(bad());
        }
        set.extend(first..=last);
    }
    Ok(set.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn usec(text: &str) -> Option<u64> {
        parse_time_span(text).ok().flatten().map(|span| u64::try_from(span.as_micros()).unwrap())
    }

    #[test]
    fn time_spans_add_up() {
        assert_eq!(usec("5min 20s"), Some(320_000_000));
        assert_eq!(usec("1y 2month3w"), Some(38_631_600_000_000));
        assert_eq!(usec("1.5h .5 s"), Some(5_400_500_000));
        assert_eq!(usec("55s500ms"), Some(55_500_000));
        assert_eq!(usec("3"), Some(3_000_000));
        assert_eq!(parse_time_span("infinity"), Ok(None));
        for bad in ["", "-1", "5x", "1.s", "12.34.56", "infinity 1s", "99999999999y", "s"] {
            assert!(parse_time_span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn time_spans_are_written_as_systemd_does() {
        let text = |span: u64| format_time_span(Some(Duration::from_micros(span)), Duration::from_micros(1));
        assert_eq!(text(90_000_000), "1min 30s");
        assert_eq!(text(1_500_000), "1.500000s");
        assert_eq!(format_time_span(Some(Duration::from_millis(1_234)), Duration::from_millis(1)), "1.234s");
        assert_eq!(text(100_000), "100ms");
        assert_eq!(format_time_span(None, Duration::ZERO), "infinity");
        assert_eq!(text(0), "0");
    }

    #[test]
    fn sizes_take_one_factor_after_the_other() {
        assert_eq!(parse_size("512M", 1024), Ok(512 << 20));
        assert_eq!(parse_size("1.5G", 1024), Ok(3 << 29));
        assert_eq!(parse_size("10K", 1000), Ok(10_000));
        assert_eq!(parse_size("7", 1024), Ok(7));
        assert_eq!(parse_size("1G 500M", 1024), Ok((1 << 30) + (500 << 20)));
        for bad in ["", "M", "-1", "1X", "1M1G", "99999999999E"] {
            assert!(parse_size(bad, 1024).is_err(), "{bad}");
        }
    }

    #[test]
    fn signals_and_statuses_have_names() {
        assert_eq!(parse_signal("SIGRTMIN+3"), Ok(37));
        assert_eq!(parse_signal("TERM"), Ok(15));
        assert_eq!(parse_signal("9"), Ok(9));
        assert!(parse_signal("SIG").is_err());
        assert_eq!(signal_name(37), "RTMIN+3");
        assert_eq!(parse_exit_code("TEMPFAIL"), Ok(75));
        assert!(parse_exit_code("256").is_err());
        assert_eq!(exit_code_name(203), Some("EXEC"));
    }

    #[test]
    fn percentages_sets_and_capabilities() {
        assert_eq!(parse_per_myriad("12.5%"), Ok(1_250));
        assert!(parse_per_myriad("12").is_err());
        assert_eq!(parse_number_set("0-2 5,7"), Ok(vec![0, 1, 2, 5, 7]));
        assert!(parse_number_set("3-1").is_err());
        assert_eq!(parse_capability("CAP_NET_ADMIN"), Ok(12));
        assert_eq!(capability_name(40).as_deref(), Some("CAP_CHECKPOINT_RESTORE"));
    }
}
