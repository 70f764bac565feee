//! Windows: spans of time, coming back, in which a reboot may happen.
//!
//! A window is a start, written as for a timer's `OnCalendar=` (`Sat,Sun 02:00`, `*-*~1 23:30 Europe/Berlin`), and a length in elapsed
//! time. A window is open from its start on, up to its end but not at it. A start that the clocks skip does not happen that day; one that
//! they show twice happens once. CoreOS's own form, `[Sun..Sat ]H:MM` and a Go duration, is read by [`Window::locksmith`].

use std::fmt;

use unit_files::calendar::{CalendarSpec, CalendarZone, Zone};
use unit_files::value::{parse_bool, parse_finite_span};

use crate::Seconds;

const DAY: u64 = 86_400;
/// The longest window: beyond a month it is none.
const LONGEST: u64 = 31 * DAY;
/// How many windows that touch each other are looked at to say when they are all over.
const CHAIN: usize = 64;

/// Clocks are put back by less than this.
const NEAR: Seconds = 3 * 3600;
/// As many starts as can lie within [`NEAR`], one a second.
const MANY: u64 = NEAR;

/// Finds the rules of a time zone; the text says why there are none.
pub type Zones<'a> = &'a dyn Fn(&CalendarZone) -> Result<Zone, String>;

/// A span that comes back.
#[derive(Clone, Debug)]
pub struct Window {
    text: String,
    start: CalendarSpec,
    zone: Zone,
    length: Seconds,
}

impl fmt::Display for Window {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl PartialEq for Window {
    fn eq(&self, other: &Self) -> bool {
        self.start == other.start && self.length == other.length
    }
}

/// How windows stand at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// There are no windows: any time will do.
    Always,
    /// One is open.
    Open {
        /// Since when.
        since: Seconds,
        /// Until when, windows that touch or overlap taken together.
        until: Seconds,
    },
    /// None is open.
    Closed {
        /// When the next one opens; never, when all named times are past.
        next: Option<Seconds>,
    },
}

impl Opening {
    /// Whether a reboot may happen.
    #[must_use]
    pub fn is_open(self) -> bool {
        !matches!(self, Self::Closed { .. })
    }
}

impl Window {
    /// A start as for `OnCalendar=` and a length such as `1h30m`.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn new(start: &str, length: &str, zones: Zones<'_>) -> Result<Self, String> {
        let start_spec = CalendarSpec::parse(start.trim()).map_err(|error| error.to_string())?;
        let zone = zones(&start_spec.zone)?;
        let length = parse_length(length, LONGEST)?;
        Ok(Self { text: format!("{} for {}", start.trim(), crate::show_span(length)), start: start_spec, zone, length })
    }

    /// `START for LENGTH`.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn parse(text: &str, zones: Zones<'_>) -> Result<Self, String> {
        let Some((start, length)) = text.rsplit_once(" for ") else {
            return Err(format!("'{text}' is no window: write START for LENGTH, such as 'Sat,Sun 02:00 Europe/Berlin for 2h'"));
        };
        Self::new(start, length, zones)
    }

    /// CoreOS's form: `[Sun..Sat ]H:MM`, and a Go duration shorter than the time until it comes back.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn locksmith(start: &str, length: &str, zones: Zones<'_>) -> Result<Self, String> {
        const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
        let wrong = || format!("'{start}' is no start of a window: write [DAY ]H:MM, such as 'Thu 23:00'");
        let words: Vec<&str> = start.split_whitespace().collect();
        let (day, time) = match words.as_slice() {
            [time] => (None, *time),
            [day, time] if DAYS.contains(&day.to_ascii_lowercase().as_str()) => (Some(*day), *time),
            _ => return Err(wrong()),
        };
        let (hour, minute) = time.split_once(':').ok_or_else(wrong)?;
        let number = |text: &str, below: u8| {
            let digits = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u8>().ok().filter(|number| digits && *number < below).ok_or_else(wrong)
        };
        let time = format!("{:02}:{:02}", number(hour, 24)?, number(minute, 60)?);
        if length.trim().parse::<f64>().is_ok() {
            return Err(format!("'{length}' is no length of a window: write it with a unit, such as '1h30m'"));
        }
        let (most, said) = if day.is_some() { (7 * DAY, "a week") } else { (DAY, "a day") };
        if parse_length(length, LONGEST)? >= most {
            return Err(format!("'{length}' is no length of a window that starts every time after {said}: make it shorter"));
        }
        Self::new(&day.map_or_else(|| time.clone(), |day| format!("{day} {time}")), length, zones)
    }

    /// Whether its start is meant in the host's own time zone.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.start.zone == CalendarZone::Local
    }

    fn next_start(&self, after: Seconds) -> Option<Seconds> {
        // A start with a fraction of a second counts from the next whole one.
        let next = |after: Seconds| Some(self.start.next_after(after.saturating_mul(1_000_000), &self.zone)?.div_ceil(1_000_000));
        let offset = |at: Seconds| self.zone.offset(at.saturating_mul(1_000_000)).0;
        // Asked right after clocks were put back, the calendar names a time that they show for the second time, for those who come too late
        // for the first. A window has had its start then: counting from before, it is not named again.
        let mut at = after.saturating_sub(NEAR);
        if offset(at) == offset(after) {
            return next(after);
        }
        for _ in 0..MANY {
            at = next(at)?;
            if at > after {
                return Some(at);
            }
        }
        next(after)
    }

    /// Since when it is open, and until when.
    fn period(&self, now: Seconds) -> Option<(Seconds, Seconds)> {
        let since = self.next_start(now.saturating_sub(self.length)).filter(|start| *start <= now)?;
        let mut last = since;
        for _ in 0..CHAIN {
            match self.next_start(last).filter(|next| *next <= last.saturating_add(self.length)) {
                Some(next) => last = next,
                None => break,
            }
        }
        Some((since, last.saturating_add(self.length)))
    }
}

/// How all windows together stand.
#[must_use]
pub fn opening(windows: &[Window], now: Seconds) -> Opening {
    if windows.is_empty() {
        return Opening::Always;
    }
    let open = |at: Seconds| windows.iter().filter_map(move |window| window.period(at));
    let Some((since, mut until)) = open(now).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else {
        return Opening::Closed { next: windows.iter().filter_map(|window| window.next_start(now)).min() };
    };
    for _ in 0..CHAIN {
        match open(until).map(|period| period.1).max() {
            Some(later) if later > until => until = later,
            _ => break,
        }
    }
    Opening::Open { since, until }
}

/// From when on this host reboots: `jitter` spreads the hosts of a fleet over the window's first part, and never over its end. `wanted`
/// is since when a reboot is wanted, `number` the host's own.
#[must_use]
pub fn spread(opening: Opening, wanted: Seconds, jitter: Seconds, number: u64) -> Option<Seconds> {
    let (from, most) = match opening {
        Opening::Always => (wanted, jitter),
        Opening::Open { since, until } => {
            let from = since.max(wanted);
            // Half of what is left stays for the work itself.
            (from, jitter.min(until.saturating_sub(from) / 2))
        }
        Opening::Closed { .. } => return None,
    };
    Some(from.saturating_add(number % most.saturating_add(1)))
}

/// A length of time that is not zero; also Go's durations.
fn parse_length(text: &str, most: Seconds) -> Result<Seconds, String> {
    let wrong = |what: &str| format!("'{text}' is no length of time: {what} (such as '1h30m')");
    let span = parse_finite_span(text.trim()).map_err(|_| wrong("a number and a unit are needed"))?;
    match span.as_secs() {
        0 => Err(wrong("it is shorter than a second")),
        seconds if seconds > most => Err(wrong(&format!("it is longer than {}", crate::show_span(most)))),
        seconds => Ok(seconds),
    }
}

/// A length of time that may be zero, as settings have them.
///
/// # Errors
/// One line that says what is wrong.
pub(crate) fn parse_span(text: &str) -> Result<Seconds, String> {
    if parse_bool(text) == Ok(false) {
        return Ok(0);
    }
    parse_finite_span(text.trim())
        .map(|span| span.as_secs())
        .map_err(|_| format!("'{text}' is no length of time, such as '90s' or '1h30m'"))
}

/// Reads time zones from a directory such as `/usr/share/zoneinfo`, and the host's own from a file such as `/etc/localtime` (UTC without).
pub fn zones_from<'a>(
    directory: &'a std::path::Path,
    localtime: &'a std::path::Path,
) -> impl Fn(&CalendarZone) -> Result<Zone, String> + 'a {
    move |zone| {
        let (name, path) = match zone {
            CalendarZone::Utc => return Ok(Zone::utc()),
            CalendarZone::Local if !localtime.exists() => return Ok(Zone::utc()),
            CalendarZone::Local => ("localtime", localtime.to_owned()),
            CalendarZone::Named(name) if name.split('/').any(|part| part.starts_with('.') || part.is_empty()) => {
                return Err(format!("there is no time zone '{name}'"));
            }
            CalendarZone::Named(name) => (name.as_str(), directory.join(name)),
        };
        let bytes = std::fs::read(&path).map_err(|error| format!("there is no time zone '{name}' ({}: {error})", path.display()))?;
        Zone::from_tzif(name, &bytes).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn host_zones(zone: &CalendarZone) -> Result<Zone, String> {
        zones_from(Path::new("/usr/share/zoneinfo"), Path::new("/nonexistent"))(zone)
    }

    fn utc(text: &str) -> Seconds {
        let at: jiff::civil::DateTime = text.parse().unwrap();
        u64::try_from(at.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_second()).unwrap()
    }

    fn windows(texts: &[&str]) -> Vec<Window> {
        texts.iter().map(|text| Window::parse(text, &host_zones).unwrap()).collect()
    }

    /// Each line: windows, a moment, since when and until when they are open, or when they open next.
    #[test]
    fn across_midnight_week_ends_leap_days_and_clock_changes() {
        let open = |since: &str, until: &str| Opening::Open { since: utc(since), until: utc(until) };
        let closed = |next: &str| Opening::Closed { next: Some(utc(next)) };
        let table: [(&[&str], &str, Opening); 18] = [
            // Across midnight, the month's and the year's end.
            (&["23:00 UTC for 2h"], "2026-12-31T23:30", open("2026-12-31T23:00", "2027-01-01T01:00")),
            (&["23:00 UTC for 2h"], "2027-01-01T00:59:59", open("2026-12-31T23:00", "2027-01-01T01:00")),
            (&["23:00 UTC for 2h"], "2027-01-01T01:00", closed("2027-01-01T23:00")),
            (&["23:00 UTC for 2h"], "2026-12-31T23:00", open("2026-12-31T23:00", "2027-01-01T01:00")),
            // Across the week's end: 2026-11-22 is a Sunday.
            (&["Sun 22:00 UTC for 4h"], "2026-11-23T01:00", open("2026-11-22T22:00", "2026-11-23T02:00")),
            (&["Sun 22:00 UTC for 4h"], "2026-11-24T01:00", closed("2026-11-29T22:00")),
            (&["Fri 18:00 UTC for 62h"], "2026-11-23T07:59", open("2026-11-20T18:00", "2026-11-23T08:00")),
            // Several: the union counts.
            (&["Sat 02:00 UTC for 1h", "Sun 02:00 UTC for 1h"], "2026-11-21T03:00", closed("2026-11-22T02:00")),
            (&["02:00 UTC for 1h", "03:00 UTC for 1h"], "2026-11-21T02:10", open("2026-11-21T02:00", "2026-11-21T04:00")),
            (&["02:00 UTC for 3h", "03:00 UTC for 1h"], "2026-11-21T03:10", open("2026-11-21T02:00", "2026-11-21T05:00")),
            // Leap day.
            (&["*-02-29 02:00 UTC for 1h"], "2026-11-21T02:10", closed("2028-02-29T02:00")),
            (&["*-*~1 23:30 UTC for 1h"], "2028-03-01T00:10", open("2028-02-29T23:30", "2028-03-01T00:30")),
            // Clocks go forward in Berlin on 2026-03-29 at 01:00 UTC, from 02:00 to 03:00: one that starts there does not happen,
            // one that spans it is as long as ever.
            (&["02:30 Europe/Berlin for 30m"], "2026-03-29T01:00", closed("2026-03-30T00:30")),
            (&["01:30 Europe/Berlin for 1h"], "2026-03-29T01:20", open("2026-03-29T00:30", "2026-03-29T01:30")),
            // Back on 2026-10-25 at 01:00 UTC, from 03:00 to 02:00: it happens once.
            (&["02:30 Europe/Berlin for 1h"], "2026-10-25T01:20", open("2026-10-25T00:30", "2026-10-25T01:30")),
            (&["02:30 Europe/Berlin for 30m"], "2026-10-25T01:40", closed("2026-10-26T01:30")),
            (&["Mon..Fri 04:00 America/New_York for 1h"], "2026-07-17T08:30", open("2026-07-17T08:00", "2026-07-17T09:00")),
            (&["hourly UTC for 30m"], "2026-07-17T08:45", closed("2026-07-17T09:00")),
        ];
        for (texts, now, expected) in table {
            assert_eq!(opening(&windows(texts), utc(now)), expected, "{texts:?} at {now}");
        }
        assert_eq!(opening(&[], 5), Opening::Always);
        assert_eq!(opening(&windows(&["2020-01-01 00:00 UTC for 1h"]), utc("2026-01-01T00:00")), Opening::Closed { next: None });
        let Opening::Open { until, .. } = opening(&windows(&["minutely UTC for 1h"]), 100 * DAY) else { panic!() };
        assert!(until > 100 * DAY + 3600, "one that never closes");
    }

    #[test]
    fn the_form_of_coreos() {
        for (start, length, text) in [
            ("14:00", "1h", "14:00 for 1h"),
            ("Thu 23:00", "1h30m", "Thu 23:00 for 1h 30min"),
            ("sat 4:05", "1.5h", "sat 04:05 for 1h 30min"),
        ] {
            assert_eq!(Window::locksmith(start, length, &host_zones).unwrap().to_string(), text);
        }
        for (start, length) in [
            ("25:00", "1h"),
            ("23:61", "1h"),
            ("14", "1h"),
            ("foo 14:00", "1h"),
            ("14:00", "1j"),
            ("14:00", "-1h"),
            ("sat", "1h"),
            ("sat 14:00 x", "1h"),
            ("14:00", "24h"),
            ("Thu 14:00", "168h"),
            ("14:00", "0s"),
            ("14:00", "60"),
            ("+1:00", "1h"),
            ("", ""),
        ] {
            let message = Window::locksmith(start, length, &host_zones).unwrap_err();
            assert!(!message.is_empty() && !message.contains('\n'), "{start} {length}");
        }
        assert!(Window::locksmith("Thu 14:00", "167h", &host_zones).is_ok());
    }

    #[test]
    fn what_is_no_window_is_refused_in_one_line() {
        for text in
            ["", "02:00", "02:00 for", "02:00 for ever", "02:00 Mars/Olympus for 1h", "for 1h", "02:00 for 32d", "02:00 ../etc for 1h"]
        {
            let message = Window::parse(text, &host_zones).unwrap_err();
            assert!(!message.is_empty() && !message.contains('\n'), "{text}: {message}");
        }
    }

    proptest::proptest! {
        #[test]
        fn hosts_are_spread_within_the_window(now in 0_u64..4_000_000_000, back in 0_u64..200_000, jitter in 0_u64..1_000_000, number: u64) {
            let window = windows(&["Sat,Sun 22:00 Europe/Berlin for 5h", "Wed 03:00 UTC for 1h"]);
            match opening(&window, now) {
                state @ Opening::Open { since, until } => {
                    proptest::prop_assert!(since <= now && now < until);
                    let wanted = now - back.min(now);
                    let at = spread(state, wanted, jitter, number).unwrap();
                    proptest::prop_assert!(at >= since && at >= wanted && at < until);
                    proptest::prop_assert!(opening(&window, at).is_open());
                }
                Opening::Closed { next } => {
                    let next = next.unwrap();
                    proptest::prop_assert!(next > now && opening(&window, next).is_open() && !opening(&window, next - 1).is_open());
                }
                Opening::Always => proptest::prop_assert!(false),
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-0-9*~/.,: a-zA-Z]{0,40}", length in "[0-9a-z. ]{0,8}", now in 0_u64..4_000_000_000) {
            if let Ok(window) = Window::new(&text, &length, &|_| Ok(Zone::utc())) {
                let _ = opening(&[window], now);
            }
            let _ = Window::locksmith(&text, &length, &|_| Ok(Zone::utc()));
        }
    }
}
