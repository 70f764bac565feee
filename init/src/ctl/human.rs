//! Numbers, times and colours for people.

use std::io::IsTerminal;
use std::time::Duration;

use plain_output::say;

use crate::engine::protocol::ActiveState;
use crate::sys::localtime;

/// Writes one JSON document.
pub(super) fn emit_json(value: &impl serde::Serialize) -> super::Outcome {
    match serde_json::to_string(value) {
        Ok(text) => {
            say!("{text}");
            Ok(0)
        }
        Err(error) => Err(super::Failure::new(format!("systemctl: {error}"))),
    }
}

/// Whether colours are wanted.
pub(super) fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() && std::env::var("TERM").is_ok_and(|term| term != "dumb")
}

/// `96.5M`, as systemd writes bytes.
pub(super) fn bytes(value: u64) -> String {
    const UNITS: [(&str, u64); 6] = [("E", 1 << 60), ("P", 1 << 50), ("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];
    for (suffix, unit) in UNITS {
        if value >= unit {
            let (whole, tenth) = (value / unit, (value % unit) * 10 / unit);
            return if tenth > 0 { format!("{whole}.{tenth}{suffix}") } else { format!("{whole}{suffix}") };
        }
    }
    format!("{value}B")
}

/// `1min 30s` in the two largest units that matter.
pub(super) fn span(micros: u64) -> String {
    let accuracy = if micros >= 60_000_000 { Duration::from_secs(1) } else { Duration::from_millis(1) };
    unit_files::value::format_time_span(Some(Duration::from_micros(micros)), accuracy)
}

/// `5min ago`, `in 2h`.
pub(super) fn distance(then: u64, now: u64) -> String {
    const UNITS: [(&str, u64); 6] =
        [("year", 31_557_600), ("month", 2_629_800), ("week", 604_800), ("day", 86_400), ("h", 3_600), ("min", 60)];
    let (past, micros) = if then <= now { (true, now - then) } else { (false, then - now) };
    let seconds = micros / 1_000_000;
    let position = UNITS.iter().position(|(_, unit)| seconds >= *unit);
    let text = match position.and_then(|at| UNITS.get(at).map(|unit| (at, unit))) {
        None if seconds == 0 => format!("{}ms", micros / 1000),
        None => format!("{seconds}s"),
        Some((at, (name, unit))) => {
            let whole = seconds / unit;
            let first =
                if *unit >= 86_400 { format!("{whole} {name}{}", if whole == 1 { "" } else { "s" }) } else { format!("{whole}{name}") };
            match UNITS.get(at + 1) {
                Some((next_name, next)) => match (seconds % unit) / next {
                    0 => first,
                    rest if *next >= 86_400 => format!("{first} {rest} {next_name}{}", if rest == 1 { "" } else { "s" }),
                    rest => format!("{first} {rest}{next_name}"),
                },
                // Minutes and seconds.
                None => match seconds % unit {
                    0 => first,
                    rest if whole < 10 => format!("{first} {rest}s"),
                    _ => first,
                },
            }
        }
    };
    if past { format!("{text} ago") } else { format!("in {text}") }
}

/// `Sun 2026-11-22 03:11:00 UTC`.
pub(super) fn timestamp(micros: u64) -> String {
    let seconds = i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX);
    let time = localtime::civil(seconds, false);
    // 1970 began on a Thursday.
    let days = (seconds.saturating_add(time.offset)).div_euclid(86_400);
    let day = match (days + 4).rem_euclid(7) {
        0 => "Sun",
        1 => "Mon",
        2 => "Tue",
        3 => "Wed",
        4 => "Thu",
        5 => "Fri",
        _ => "Sat",
    };
    let zone = if time.offset == 0 {
        "UTC".to_owned()
    } else {
        let sign = if time.offset < 0 { '-' } else { '+' };
        format!("{sign}{:02}:{:02}", time.offset.abs() / 3600, time.offset.abs() % 3600 / 60)
    };
    format!("{day} {:04}-{:02}-{:02} {:02}:{:02}:{:02} {zone}", time.year, time.month, time.day, time.hour, time.minute, time.second)
}

/// Microseconds since 1970.
pub(super) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The dot before a unit, and its colour.
pub(super) fn dot(state: ActiveState, colour: bool) -> String {
    let (dot, code) = match state {
        ActiveState::Active => ("●", "32"),
        ActiveState::Reloading => ("↻", "32"),
        ActiveState::Failed => ("×", "31"),
        ActiveState::Inactive => ("○", ""),
        ActiveState::Activating | ActiveState::Deactivating => ("●", ""),
    };
    paint(dot, code, colour)
}

/// Text in a colour, when colours are wanted.
pub(super) fn paint(text: &str, code: &str, colour: bool) -> String {
    if colour && !code.is_empty() { format!("\x1b[0;1;{code}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(bytes(512), "512B");
        assert_eq!(bytes(1 << 20), "1M");
        assert_eq!(bytes(101_187_584), "96.5M");
        assert_eq!(span(1_234_000), "1.234s");
        assert_eq!(span(90_000_000), "1min 30s");
    }

    #[test]
    fn distances_have_two_units_at_most() {
        const SECOND: u64 = 1_000_000;
        for (seconds, text) in [
            (0, "0ms ago"),
            (42, "42s ago"),
            (90, "1min 30s ago"),
            (700, "11min ago"),
            (3700, "1h 1min ago"),
            (90_000, "1 day 1h ago"),
            (5_300_000, "2 months ago"),
        ] {
            assert_eq!(distance(10_000_000 * SECOND - seconds * SECOND, 10_000_000 * SECOND), text);
        }
        assert_eq!(distance(120 * SECOND, 0), "in 2min");
    }

    #[test]
    fn weekdays_are_right() {
        assert!(timestamp(1_795_316_400 * 1_000_000).starts_with("Sun 2026-11-22"), "{}", timestamp(1_795_316_400 * 1_000_000));
    }
}
