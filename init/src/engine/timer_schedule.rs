//! When a timer is due: pure, all times handed in.

use std::time::Duration;

use unit_files::calendar::{CalendarZone, Zone};
use unit_files::timer::{TimerConfig, TimerTrigger};

use super::restart::{Usec, usec};

/// What a timer's triggers are counted from; monotonic except where it says wall.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bases {
    pub now: Usec,
    pub wall: u64,
    pub timer_started: Usec,
    pub engine_started: Usec,
    pub unit_active: Option<Usec>,
    pub unit_inactive: Option<Usec>,
    pub last_run: Option<Usec>,
    pub last_wall: Option<u64>,
    /// What is added to every time: `RandomizedDelaySec=`, `RandomizedOffsetSec=`.
    pub delay: Usec,
}

/// The next run in monotonic time, before [`coalesce`]; `None`: never again. `zone` finds the rules of time zones.
pub(super) fn next_run(config: &TimerConfig, bases: Bases, zone: impl Fn(&CalendarZone) -> Option<Zone>) -> Option<Usec> {
    let after = |base: Usec, delay: Duration| base.saturating_add(usec(delay)).saturating_add(bases.delay);
    // Counted from something that happens once: over when it has run and the time is past.
    let ran = bases.last_run.is_some() || bases.last_wall.is_some();
    let once = |base: Usec, delay: Duration| Some(after(base, delay)).filter(|at| !ran || *at > bases.now);
    let repeated = |base: Option<Usec>, delay: Duration| base.max(bases.last_run).map(|base| after(base, delay));
    let due = config.triggers.iter().filter_map(|trigger| match trigger {
        TimerTrigger::Active(delay) => once(bases.timer_started, *delay),
        TimerTrigger::Boot(delay) => once(0, *delay),
        TimerTrigger::Startup(delay) => once(bases.engine_started, *delay),
        TimerTrigger::UnitActive(delay) => repeated(bases.unit_active, *delay),
        TimerTrigger::UnitInactive(delay) => repeated(bases.unit_inactive, *delay),
        TimerTrigger::Calendar(spec) => {
            // From the last run on, so that what was missed while the machine was off, asleep or busy is made up for, once.
            let from = bases.last_wall.unwrap_or(bases.wall);
            let at = spec.next_after(from, &zone(&spec.zone)?)?;
            let at = bases.now.saturating_add(at.saturating_sub(bases.wall));
            // What was missed before this boot is spread too, counted from its beginning.
            Some(if at <= bases.now { bases.engine_started } else { at }.saturating_add(bases.delay))
        }
    });
    due.min().map(|at| at.max(bases.now))
}

/// A time within `accuracy` after `at`, the same for all timers of a host (so that it wakes up once for many) and another one on
/// another host (so that not all of them act in the same second). `shift` is the host's own number; `wall` is `at` by the wall clock.
pub(super) fn coalesce(at: Usec, wall: u64, accuracy: Usec, shift: u64) -> Usec {
    const PERIODS: [u64; 4] = [60_000_000, 10_000_000, 1_000_000, 250_000];
    if accuracy == 0 {
        return at;
    }
    let end = wall.saturating_add(accuracy);
    for period in PERIODS {
        let mut slot = end - end % period + shift % period;
        if slot > end {
            slot = slot.saturating_sub(period);
        }
        if slot >= wall {
            return at.saturating_add(slot - wall);
        }
    }
    at.saturating_add(accuracy)
}

/// A number for a text: spreads well enough, needs nothing (FNV-1a).
pub(super) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What `RandomizedDelaySec=` and `RandomizedOffsetSec=` add: `random` once per run, or the host's own if it is to be fixed.
pub(super) fn delay(config: &TimerConfig, unit: &str, machine: &str, random: u64) -> Usec {
    let own = hash(&format!("{machine}{unit}"));
    let pick = |spread: Duration, number: u64| number.checked_rem(usec(spread)).unwrap_or(0);
    let moving = pick(config.randomized_delay, if config.fixed_random_delay { own } else { random });
    moving.saturating_add(pick(config.randomized_offset, own))
}

#[cfg(test)]
mod tests {
    use unit_files::calendar::CalendarSpec;

    use super::*;

    const SECOND: u64 = 1_000_000;
    const MINUTE: u64 = 60 * SECOND;

    fn config(triggers: Vec<TimerTrigger>) -> TimerConfig {
        TimerConfig { triggers, ..TimerConfig::default() }
    }

    fn next(config: &TimerConfig, bases: Bases) -> Option<Usec> {
        next_run(config, bases, |_| Some(Zone::utc()))
    }

    #[test]
    fn the_earliest_trigger_counts() {
        let config = config(vec![TimerTrigger::Boot(Duration::from_secs(60)), TimerTrigger::UnitActive(Duration::from_secs(10))]);
        let bases = Bases { now: 5 * SECOND, ..Bases::default() };
        assert_eq!(next(&config, bases), Some(MINUTE), "the unit has never run");
        let bases = Bases { now: 70 * SECOND, last_run: Some(1), unit_active: Some(65 * SECOND), ..Bases::default() };
        assert_eq!(next(&config, bases), Some(75 * SECOND), "OnBootSec= is over");
    }

    #[test]
    fn a_boot_delay_in_the_past_fires_at_once_and_once() {
        let config = config(vec![TimerTrigger::Boot(Duration::from_secs(1))]);
        let bases = Bases { now: 9 * SECOND, ..Bases::default() };
        assert_eq!(next(&config, bases), Some(9 * SECOND));
        assert_eq!(next(&config, Bases { last_run: Some(9 * SECOND), ..bases }), None);
    }

    #[test]
    fn each_trigger_counts_from_its_own_base() {
        let ten = Duration::from_secs(10);
        let bases = Bases {
            now: 50 * SECOND,
            timer_started: 45 * SECOND,
            engine_started: 42 * SECOND,
            unit_active: Some(47 * SECOND),
            unit_inactive: Some(48 * SECOND),
            ..Bases::default()
        };
        let table = [
            (TimerTrigger::Active(ten), Some(55)),
            (TimerTrigger::Boot(ten), Some(50)),
            (TimerTrigger::Startup(ten), Some(52)),
            (TimerTrigger::UnitActive(ten), Some(57)),
            (TimerTrigger::UnitInactive(ten), Some(58)),
        ];
        for (trigger, seconds) in table {
            assert_eq!(next(&config(vec![trigger.clone()]), bases), seconds.map(|seconds: u64| seconds * SECOND), "{trigger:?}");
        }
        let never = Bases { unit_active: None, unit_inactive: None, ..bases };
        assert_eq!(next(&config(vec![TimerTrigger::UnitInactive(ten)]), never), None, "the unit was never up");
    }

    #[test]
    fn a_run_that_was_missed_is_made_up_for_once() {
        let daily = config(vec![TimerTrigger::Calendar(CalendarSpec::parse("daily").unwrap())]);
        let day = 24 * 60 * MINUTE;
        let bases = Bases { now: 30 * SECOND, engine_started: 5 * SECOND, wall: 100 * day + MINUTE, ..Bases::default() };
        assert_eq!(next(&daily, bases), Some(30 * SECOND + day - MINUTE), "without a last run nothing was missed");
        let missed = Bases { last_wall: Some(98 * day), ..bases };
        assert_eq!(next(&daily, missed), Some(30 * SECOND));
        let spread = Bases { delay: 2 * MINUTE, ..missed };
        assert_eq!(next(&daily, spread), Some(5 * SECOND + 2 * MINUTE), "the delay counts from the start of PID 1");
        assert_eq!(next(&daily, Bases { last_wall: Some(bases.wall), ..bases }), Some(30 * SECOND + day - MINUTE));
    }

    #[test]
    fn timers_of_one_host_wake_together_and_within_their_accuracy() {
        for (accuracy, shift) in [(MINUTE, 17 * SECOND), (SECOND, 123_456), (10 * MINUTE, 59 * SECOND), (1, 5), (0, 9)] {
            for at in [0, 1, SECOND, 59 * SECOND, 61 * SECOND + 5] {
                let found = coalesce(at, at, accuracy, shift);
                assert!(found >= at && found <= at + accuracy, "{at} {accuracy} {shift}: {found}");
            }
        }
        assert_eq!(coalesce(5, 1_000_000_005, MINUTE, 3), coalesce(905, 1_000_000_905, MINUTE, 3));
        assert_ne!(coalesce(5, 1_000_000_005, MINUTE, 3), coalesce(5, 1_000_000_005, MINUTE, 4_000_000));
    }

    #[test]
    fn a_fixed_delay_is_the_same_every_time() {
        let config = TimerConfig { randomized_delay: Duration::from_millis(1), fixed_random_delay: true, ..TimerConfig::default() };
        assert_eq!(delay(&config, "a.timer", "m", 1), delay(&config, "a.timer", "m", 2));
        let config = TimerConfig { fixed_random_delay: false, ..config };
        assert_eq!((delay(&config, "a.timer", "m", 7), delay(&config, "a.timer", "m", 1_008)), (7, 8));
    }
}
