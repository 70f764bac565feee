//! `.timer` units: elapsed against the monotonic clock, or the calendar against the wall clock.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use unit_files::Config;
use unit_files::calendar::{CalendarZone, Zone};
use unit_files::timer::TimerTrigger;

use super::graph::{Dep, UnitId};
use super::manager::{Kind, Manager, now, random_id, wall};
use super::poller::Source;
use super::protocol::{ActiveState, JobMode, Verb};
use super::restart::{Usec, usec};
use super::timer_schedule::{Bases, coalesce, delay, hash, next_run};

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
    /// Wall clock of the last run, which may lie before this boot.
    pub last: Option<u64>,
    /// Monotonic time of the last run in this boot.
    pub last_run: Option<Usec>,
}

/// The rules of a time zone as the host has them; `None` when it has not.
pub(super) fn zone(zone: &CalendarZone) -> Option<Zone> {
    let read = |name: &str, path: &str| Zone::from_tzif(name, &std::fs::read(path).ok()?).ok();
    match zone {
        CalendarZone::Utc => Some(Zone::utc()),
        // A host without a zone of its own has UTC.
        CalendarZone::Local => Some(read("local", "/etc/localtime").unwrap_or_else(Zone::utc)),
        CalendarZone::Named(name) => read(name, &format!("/usr/share/zoneinfo/{name}")),
    }
}

/// An fd that becomes readable when somebody sets the wall clock.
fn clock_watch() -> std::io::Result<OwnedFd> {
    let fd = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    arm(&fd)?;
    Ok(fd)
}

fn arm(fd: &OwnedFd) -> std::io::Result<()> {
    // It never elapses; only its being cancelled matters.
    let never = Timespec { tv_sec: i64::MAX / 2_000_000_000, tv_nsec: 0 };
    let times = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: never };
    timerfd_settime(fd, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &times)?;
    Ok(())
}

impl Manager {
    fn timer(&mut self, unit: UnitId) -> Option<&mut TimerUnit> {
        match &mut self.units.get_mut(&unit)?.kind {
            Kind::Timer(timer) => Some(timer),
            _ => None,
        }
    }

    fn timer_config(&self, unit: UnitId) -> Option<Rc<unit_files::Unit>> {
        let def = Rc::clone(&self.units.get(&unit)?.def);
        matches!(def.config, Config::Timer(_)).then_some(def)
    }

    fn stamp(&self, unit: UnitId) -> std::path::PathBuf {
        self.paths.timer_stamps.join(self.graph.name(unit))
    }

    fn touch_stamp(&self, unit: UnitId) {
        let stamp = self.stamp(unit);
        let _ = stamp.parent().map(std::fs::create_dir_all);
        if let Err(why) = std::fs::write(&stamp, "") {
            self.reporter.unit(
                self.graph.name(unit),
                4,
                &format!("{}: {why}: a run that is missed will not be made up for", stamp.display()),
            );
        }
    }

    pub fn timer_start(&mut self, unit: UnitId) {
        let Some(def) = self.timer_config(unit) else { return };
        let Config::Timer(config) = &def.config else { return };
        let before = self.active_state(unit);
        let mut last = None;
        if config.persistent {
            use std::os::unix::fs::MetadataExt;
            let data = std::fs::metadata(self.stamp(unit));
            let seconds = data.ok().and_then(|data| u64::try_from(data.mtime()).ok());
            // A stamp from the future says nothing.
            last = seconds.map(|seconds| seconds.saturating_mul(1_000_000)).filter(|last| *last <= wall());
            if last.is_none() {
                // From now on a run can be missed.
                self.touch_stamp(unit);
            }
        }
        let wall_clock = config.on_clock_change || config.triggers.iter().any(|trigger| matches!(trigger, TimerTrigger::Calendar(_)));
        if wall_clock && self.clock_watch.is_none() {
            match clock_watch() {
                Ok(fd) => {
                    let _ = self.poller.add(&fd, Source::ClockChange);
                    self.clock_watch = Some(fd);
                }
                Err(why) => self.reporter.warn(&format!("cannot notice changes of the clock: {why}")),
            }
        }
        for trigger in &config.triggers {
            if let TimerTrigger::Calendar(spec) = trigger
                && let CalendarZone::Named(name) = &spec.zone
                && zone(&spec.zone).is_none()
            {
                let unit = self.name(unit);
                self.reporter.problem(&unit, &format!("OnCalendar={}: there is no time zone {name}, so it never elapses", spec.text));
            }
        }
        if let Some(timer) = self.timer(unit) {
            *timer = TimerUnit { state: TimerState::Waiting, started: now(), next: None, last, last_run: None };
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
        let Some(def) = self.timer_config(unit) else { return };
        let (Config::Timer(config), Some(Kind::Timer(timer))) = (&def.config, self.units.get(&unit).map(|runtime| &runtime.kind)) else {
            return;
        };
        let target = self.graph.of(unit, Dep::Triggers).next().and_then(|unit| self.units.get(&unit));
        let random = if config.randomized_delay.is_zero() { 0 } else { hash(&random_id()) };
        let bases = Bases {
            now: now(),
            wall: wall(),
            timer_started: timer.started,
            engine_started: self.started_at,
            unit_active: target.and_then(|target| target.activating_at),
            unit_inactive: target.and_then(|target| target.inactive_at),
            last_run: timer.last_run,
            last_wall: timer.last,
            delay: delay(config, self.graph.name(unit), &self.facts.machine_id, random),
        };
        let shift = hash(&self.facts.machine_id);
        let next = next_run(config, bases, zone).map(|at| {
            let wall = bases.wall.saturating_add(at - bases.now);
            coalesce(at, wall, usec(config.accuracy), shift)
        });
        let (before, remain) = (self.active_state(unit), config.remain_after_elapse);
        let waits_for_clock = config.on_clock_change;
        if let Some(timer) = self.timer(unit) {
            timer.next = next;
            timer.state = match next {
                Some(_) => TimerState::Waiting,
                None if waits_for_clock => TimerState::Waiting,
                None if remain => TimerState::Elapsed,
                None => TimerState::Dead,
            };
        }
        if self.active_state(unit) != before {
            self.unit_changed(unit, before);
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
            self.timer_elapsed(unit);
        }
    }

    fn timer_elapsed(&mut self, unit: UnitId) {
        let Some(def) = self.timer_config(unit) else { return };
        if let Some(timer) = self.timer(unit) {
            timer.next = None;
            timer.last = Some(wall());
            timer.last_run = Some(now());
            timer.state = TimerState::Running;
        }
        if matches!(&def.config, Config::Timer(config) if config.persistent) {
            self.touch_stamp(unit);
        }
        let Some(target) = self.graph.of(unit, Dep::Triggers).next() else { return };
        if self.power.is_none()
            && let Err(why) = self.enqueue(Verb::Start, &[target], JobMode::Replace)
        {
            let name = self.name(unit);
            self.reporter.problem(&name, &format!("cannot start {}: {why}", self.name(target)));
        }
        // Nothing was queued and nothing runs: no change will say that it is over.
        let idle = matches!(self.active_state(target), ActiveState::Inactive | ActiveState::Failed);
        if self.queue.get(target).is_none() && idle {
            self.timer_schedule(unit);
        }
    }

    /// The unit that a timer starts has changed: when is the next run?
    pub fn timer_again(&mut self, trigger: UnitId, state: ActiveState) {
        // `DeferReactivation=`: what came due while the unit ran is not made up for.
        let defers = self
            .units
            .get(&trigger)
            .is_some_and(|runtime| matches!(&runtime.def.config, Config::Timer(config) if config.defer_reactivation));
        let Some(timer) = self.timer(trigger) else { return };
        match (timer.state, state) {
            // It is over; what came due meanwhile is made up for.
            (TimerState::Running, ActiveState::Inactive | ActiveState::Failed) if defers => {
                timer.last = Some(wall());
                self.timer_schedule(trigger);
            }
            (TimerState::Running, ActiveState::Inactive | ActiveState::Failed)
            // Somebody else started or stopped it: some triggers count from that.
            | (TimerState::Waiting | TimerState::Elapsed, ActiveState::Inactive | ActiveState::Failed | ActiveState::Active) => {
                self.timer_schedule(trigger);
            }
            _ => {}
        }
    }

    /// Somebody has set the wall clock.
    pub fn clock_changed(&mut self) {
        if let Some(fd) = &self.clock_watch {
            let mut buffer = [0_u8; 8];
            let _ = rustix::io::read(fd, &mut buffer);
            let _ = arm(fd);
        }
        self.reporter.unit("", 6, "the clock was set: timers are counted again");
        let wall = wall();
        let running: Vec<(UnitId, bool)> = self
            .units
            .iter()
            .filter_map(|(unit, runtime)| match (&runtime.kind, &runtime.def.config) {
                (Kind::Timer(timer), Config::Timer(config)) if matches!(timer.state, TimerState::Waiting | TimerState::Elapsed) => {
                    Some((*unit, config.on_clock_change))
                }
                _ => None,
            })
            .collect();
        for (unit, fires) in running {
            if let Some(timer) = self.timer(unit) {
                // The clock went back behind the last run: what it was then may come again.
                timer.last = timer.last.map(|last| last.min(wall));
            }
            if fires {
                self.timer_elapsed(unit);
            } else {
                self.timer_schedule(unit);
            }
        }
    }

    /// Unit files or the time zone may have changed.
    pub fn timers_again(&mut self) {
        let waiting: Vec<UnitId> = self
            .units
            .iter()
            .filter(|(_, runtime)| matches!(&runtime.kind, Kind::Timer(timer) if matches!(timer.state, TimerState::Waiting | TimerState::Elapsed)))
            .map(|(unit, _)| *unit)
            .collect();
        for unit in waiting {
            self.timer_schedule(unit);
        }
    }
}
