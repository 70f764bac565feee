//! `.timer` units: elapsed against the monotonic clock, or the calendar against the wall clock.

use std::rc::Rc;
use std::time::Duration;

use unit_files::Config;
use unit_files::timer::{TimerConfig, TimerTrigger};

use super::graph::{Dep, UnitId};
use super::manager::{Kind, Manager, now, wall};
use super::protocol::{ActiveState, JobMode, Verb};
use super::restart::{Usec, usec};

/// Where a timer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum TimerState {
    #[default]
    Dead,
    Waiting,
    Running,
    Elapsed,
}

impl TimerState {
    pub fn active(self) -> ActiveState {
        if self == Self::Dead { ActiveState::Inactive } else { ActiveState::Active }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Elapsed => "elapsed",
        }
    }
}

/// A timer at run time.
#[derive(Debug, Default)]
pub(super) struct TimerUnit {
    pub state: TimerState,
    /// When it was started, monotonic.
    pub started: Usec,
    /// Monotonic time of the next run.
    pub next: Option<Usec>,
    /// Wall clock of the last run.
    pub last: Option<u64>,
}

/// What a timer's triggers are counted from.
#[derive(Debug, Clone, Copy, Default)]
struct Bases {
    now: Usec,
    wall: u64,
    timer_started: Usec,
    engine_started: Usec,
    unit_active: Option<Usec>,
    unit_inactive: Option<Usec>,
    last_run: Option<u64>,
}

/// The next run in monotonic time; pure.
fn next_run(config: &TimerConfig, bases: Bases) -> Option<Usec> {
    let after = |base: Usec, delay: Duration| Some(base.saturating_add(usec(delay)));
    let ran = bases.last_run.is_some();
    config
        .triggers
        .iter()
        .filter_map(|trigger| match trigger {
            // A base in the past fires once, at once.
            TimerTrigger::Active(delay) => after(bases.timer_started, *delay).filter(|at| !ran || *at > bases.now),
            TimerTrigger::Boot(delay) => after(0, *delay).filter(|at| !ran || *at > bases.now),
            TimerTrigger::Startup(delay) => after(bases.engine_started, *delay).filter(|at| !ran || *at > bases.now),
            TimerTrigger::UnitActive(delay) => bases.unit_active.and_then(|base| after(base, *delay)),
            TimerTrigger::UnitInactive(delay) => bases.unit_inactive.and_then(|base| after(base, *delay)),
            TimerTrigger::Calendar(spec) => {
                let from = if config.persistent { bases.last_run.unwrap_or(bases.wall) } else { bases.wall };
                let at = super::calendar::next(spec, from)?;
                Some(bases.now.saturating_add(at.saturating_sub(bases.wall)))
            }
        })
        .min()
}

impl Manager {
    fn timer(&mut self, unit: UnitId) -> Option<&mut TimerUnit> {
        match &mut self.units.get_mut(&unit)?.kind {
            Kind::Timer(timer) => Some(timer),
            _ => None,
        }
    }

    fn stamp(&self, unit: UnitId) -> std::path::PathBuf {
        self.paths.timer_stamps.join(self.graph.name(unit))
    }

    pub fn timer_start(&mut self, unit: UnitId) {
        let before = self.active_state(unit);
        let stamp = self.stamp(unit);
        let persistent =
            matches!(self.units.get(&unit).map(|runtime| &runtime.def.config), Some(Config::Timer(config)) if config.persistent);
        let last = persistent.then(|| {
            use std::os::unix::fs::MetadataExt;
            std::fs::metadata(&stamp)
                .ok()
                .and_then(|data| u64::try_from(data.mtime()).ok())
                .map(|seconds| seconds.saturating_mul(1_000_000))
        });
        if let Some(timer) = self.timer(unit) {
            timer.started = now();
            timer.state = TimerState::Waiting;
            timer.last = last.flatten();
        }
        self.timer_schedule(unit);
        self.unit_changed(unit, before);
    }

    pub fn timer_stop(&mut self, unit: UnitId) {
        let before = self.active_state(unit);
        if let Some(timer) = self.timer(unit) {
            timer.state = TimerState::Dead;
            timer.next = None;
        }
        self.unit_changed(unit, before);
    }

    fn timer_schedule(&mut self, unit: UnitId) {
        let Some(runtime) = self.units.get(&unit) else { return };
        let def = Rc::clone(&runtime.def);
        let (Config::Timer(config), Kind::Timer(timer)) = (&def.config, &runtime.kind) else { return };
        let target = self.graph.of(unit, Dep::Triggers).next().and_then(|unit| self.units.get(&unit));
        let bases = Bases {
            now: now(),
            wall: wall(),
            timer_started: timer.started,
            engine_started: self.started_at,
            unit_active: target.and_then(|target| target.activating_at),
            unit_inactive: target.and_then(|target| target.inactive_at),
            last_run: timer.last,
        };
        let next = next_run(config, bases).map(|at| at.max(bases.now));
        let spread = usec(config.randomized_delay);
        let name = self.name(unit);
        let next = next.map(|at| {
            if spread == 0 { at } else { at.saturating_add(jitter(&name, &self.facts.machine_id, spread, config.fixed_random_delay)) }
        });
        if let Some(timer) = self.timer(unit) {
            timer.next = next;
            timer.state = if next.is_some() { TimerState::Waiting } else { TimerState::Elapsed };
        }
    }

    pub fn next_timer(&self) -> Option<Usec> {
        self.units
            .values()
            .filter_map(|runtime| match &runtime.kind {
                Kind::Timer(timer) => timer.next,
                _ => None,
            })
            .min()
    }

    pub fn timers_step(&mut self, now: Usec) {
        let due: Vec<UnitId> = self
            .units
            .iter()
            .filter(|(_, runtime)| matches!(&runtime.kind, Kind::Timer(timer) if timer.next.is_some_and(|at| at <= now)))
            .map(|(unit, _)| *unit)
            .collect();
        for unit in due {
            let stamp = self.stamp(unit);
            if let Some(timer) = self.timer(unit) {
                timer.next = None;
                timer.last = Some(wall());
                timer.state = TimerState::Running;
            }
            let persistent =
                matches!(self.units.get(&unit).map(|runtime| &runtime.def.config), Some(Config::Timer(config)) if config.persistent);
            if persistent {
                let _ = stamp.parent().map(std::fs::create_dir_all);
                let _ = std::fs::write(&stamp, "");
            }
            let Some(target) = self.graph.of(unit, Dep::Triggers).next() else { continue };
            if self.power.is_none()
                && let Err(why) = self.enqueue(Verb::Start, &[target], JobMode::Replace)
            {
                let name = self.name(unit);
                self.reporter.problem(&name, &format!("cannot start {}: {why}", self.name(target)));
            }
            if self.queue.get(target).is_none() {
                self.timer_schedule(unit);
            }
        }
    }

    /// The unit that a timer starts is done: when is the next run?
    pub fn timer_again(&mut self, trigger: UnitId, state: ActiveState) {
        let waiting = self.timer(trigger).is_some_and(|timer| timer.state == TimerState::Running);
        if waiting && matches!(state, ActiveState::Inactive | ActiveState::Failed | ActiveState::Active) {
            self.timer_schedule(trigger);
        }
    }
}

/// A delay below `spread`; always the same on one host if it is to be fixed.
fn jitter(name: &str, machine: &str, spread: Usec, fixed: bool) -> Usec {
    let random = super::manager::random_id();
    let seed = if fixed { format!("{machine}{name}") } else { random };
    // FNV-1a: spreads well enough, needs nothing.
    let hash = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash.checked_rem(spread).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(triggers: Vec<TimerTrigger>) -> TimerConfig {
        TimerConfig { triggers, ..TimerConfig::default() }
    }

    #[test]
    fn the_earliest_trigger_counts() {
        let minute = Duration::from_secs(60);
        let config = config(vec![TimerTrigger::Boot(minute), TimerTrigger::UnitActive(Duration::from_secs(10))]);
        let bases = Bases { now: 5_000_000, ..Bases::default() };
        assert_eq!(next_run(&config, bases), Some(60_000_000), "the unit has never run");
        let bases = Bases { now: 70_000_000, last_run: Some(1), unit_active: Some(65_000_000), ..Bases::default() };
        assert_eq!(next_run(&config, bases), Some(75_000_000), "OnBootSec= is over");
    }

    #[test]
    fn a_boot_delay_in_the_past_fires_at_once() {
        let config = config(vec![TimerTrigger::Boot(Duration::from_secs(1))]);
        assert_eq!(next_run(&config, Bases { now: 9_000_000, ..Bases::default() }), Some(1_000_000));
    }

    #[test]
    fn a_fixed_delay_is_the_same_every_time() {
        assert_eq!(jitter("a.timer", "m", 1000, true), jitter("a.timer", "m", 1000, true));
        assert!(jitter("a.timer", "m", 1000, false) < 1000);
    }
}
