//! `[Timer]` and `[Path]`.

use std::time::Duration;

use crate::calendar::CalendarSpec;
use crate::path::{PathConfig, PathWatch, PathWatchKind};
use crate::timer::{TimerConfig, TimerTrigger};
use crate::value::{self, expected};

use super::setters::{boolean, clean_path, expand, mode, optional_number, optional_span, optional_unit, span};
use super::{Effect, Input, Outcome, Table, warn, yes};

/// An empty value of any kind resets all triggers.
fn monotonic(config: &mut TimerConfig, input: &Input<'_>, make: fn(Duration) -> TimerTrigger) -> Outcome {
    if input.value.is_empty() {
        config.triggers.clear();
        return Ok(Effect::None);
    }
    config.triggers.push(make(value::parse_finite_span(&expand(input)?)?));
    Ok(Effect::Active)
}

fn calendar(config: &mut TimerConfig, input: &Input<'_>) -> Outcome {
    if input.value.is_empty() {
        config.triggers.clear();
        return Ok(Effect::None);
    }
    let text = expand(input)?;
    let spec = CalendarSpec::parse(&text)?;
    config.triggers.push(TimerTrigger::Calendar(spec));
    Ok(Effect::Active)
}

fn triggered(slot: &mut Option<crate::UnitName>, own: crate::UnitKind, input: &Input<'_>) -> Outcome {
    let outcome = optional_unit(slot, input)?;
    match slot.take_if(|unit| unit.kind() == own) {
        Some(unit) => Err(expected(unit.as_str(), "a unit of another kind")),
        None => Ok(outcome),
    }
}

pub(super) static TIMER: Table<TimerConfig> = Table::new(&[
    yes("OnCalendar", calendar),
    yes("OnActiveSec", |c, i| monotonic(c, i, TimerTrigger::Active)),
    yes("OnBootSec", |c, i| monotonic(c, i, TimerTrigger::Boot)),
    yes("OnStartupSec", |c, i| monotonic(c, i, TimerTrigger::Startup)),
    yes("OnUnitActiveSec", |c, i| monotonic(c, i, TimerTrigger::UnitActive)),
    yes("OnUnitInactiveSec", |c, i| monotonic(c, i, TimerTrigger::UnitInactive)),
    yes("AccuracySec", |c, i| span(&mut c.accuracy, i)),
    yes("RandomizedDelaySec", |c, i| span(&mut c.randomized_delay, i)),
    yes("RandomizedOffsetSec", |c, i| span(&mut c.randomized_offset, i)),
    yes("FixedRandomDelay", |c, i| boolean(&mut c.fixed_random_delay, i)),
    yes("DeferReactivation", |c, i| boolean(&mut c.defer_reactivation, i)),
    yes("OnClockChange", |c, i| boolean(&mut c.on_clock_change, i)),
    warn("OnTimezoneChange", |c, i| boolean(&mut c.on_timezone_change, i)),
    yes("Unit", |c, i| triggered(&mut c.unit, crate::UnitKind::Timer, i)),
    yes("Persistent", |c, i| boolean(&mut c.persistent, i)),
    warn("WakeSystem", |c, i| boolean(&mut c.wake_system, i)),
    yes("RemainAfterElapse", |c, i| boolean(&mut c.remain_after_elapse, i)),
]);

fn watch(config: &mut PathConfig, kind: PathWatchKind, input: &Input<'_>) -> Outcome {
    if input.value.is_empty() {
        config.watches.clear();
        return Ok(Effect::None);
    }
    config.watches.push(PathWatch { kind, path: clean_path(&expand(input)?)? });
    Ok(Effect::Active)
}

pub(super) static PATH: Table<PathConfig> = Table::new(&[
    yes("PathExists", |c, i| watch(c, PathWatchKind::Exists, i)),
    yes("PathExistsGlob", |c, i| watch(c, PathWatchKind::ExistsGlob, i)),
    yes("PathChanged", |c, i| watch(c, PathWatchKind::Changed, i)),
    yes("PathModified", |c, i| watch(c, PathWatchKind::Modified, i)),
    yes("DirectoryNotEmpty", |c, i| watch(c, PathWatchKind::DirectoryNotEmpty, i)),
    yes("Unit", |c, i| triggered(&mut c.unit, crate::UnitKind::Path, i)),
    yes("MakeDirectory", |c, i| boolean(&mut c.make_directory, i)),
    yes("DirectoryMode", |c, i| mode(&mut c.directory_mode, i)),
    yes("TriggerLimitIntervalSec", |c, i| optional_span(&mut c.trigger_limit_interval, i)),
    yes("TriggerLimitBurst", |c, i| optional_number(&mut c.trigger_limit_burst, i, 0..=u32::MAX, "a number")),
]);
