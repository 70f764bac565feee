//! What decides about reboots and more than one program has to know: the settings (cloud-config checks them, the reboot daemon follows
//! them), windows in which reboots may happen, inhibitors (the daemon minds them), and who is logged in.
//!
//! Small on purpose: PID 1's `shutdown` is to mind inhibitors by it, which it does not yet. `settings` does no I/O, `windows` reads the rules
//! of time zones; `inhibitors`, `persistent`, `sessions` and `scheduled` read and write the few files that they name. No text, whatever its
//! bytes, makes it panic; what cannot be understood forbids reboots, never allows them.

#![deny(unsafe_code, clippy::indexing_slicing, clippy::panic)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, clippy::expect_used))]

pub mod file;
pub mod inhibitors;
pub mod persistent;
pub mod scheduled;
pub mod sessions;
pub mod settings;
mod settings_values;
pub mod windows;

/// Seconds since 1970.
pub type Seconds = u64;

/// The system's clock, in seconds since 1970.
#[must_use]
pub fn system_clock() -> Seconds {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A time for people: `2026-11-22 17:30 UTC`.
#[must_use]
pub fn show_time(at: Seconds) -> String {
    let timestamp = i64::try_from(at).ok().and_then(|at| jiff::Timestamp::from_second(at).ok());
    timestamp.map_or_else(|| format!("{at} seconds since 1970"), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

/// A span for people, in its two largest units: `2d 3h`, `45s`.
#[must_use]
pub fn show_span(seconds: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];
    let mut left = seconds;
    let mut words: Vec<String> = Vec::new();
    for (name, unit) in UNITS {
        if left >= unit && words.len() < 2 {
            words.push(format!("{}{name}", left / unit));
            left %= unit;
        }
    }
    if words.is_empty() { "0s".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_and_spans_for_people() {
        assert_eq!(super::show_time(1_795_368_600), "2026-11-22 17:30 UTC");
        assert_eq!((super::show_span(0), super::show_span(93_784), super::show_span(61)), ("0s".into(), "1d 2h".into(), "1min 1s".into()));
    }
}
