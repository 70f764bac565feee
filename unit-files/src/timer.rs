//! `[Timer]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::calendar::CalendarSpec;
use crate::name::UnitName;

/// When a timer elapses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimerTrigger {
    /// `OnActiveSec=`: after the timer was activated.
    Active(Duration),
    /// `OnBootSec=`: after the kernel started.
    Boot(Duration),
    /// `OnStartupSec=`: after PID 1 started.
    Startup(Duration),
    /// `OnUnitActiveSec=`: after the unit was last activated.
    UnitActive(Duration),
    /// `OnUnitInactiveSec=`: after the unit was last deactivated.
    UnitInactive(Duration),
    /// `OnCalendar=`.
    Calendar(CalendarSpec),
}

/// Everything in `[Timer]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerConfig {
    /// `On...=`.
    pub triggers: Vec<TimerTrigger>,
    /// `AccuracySec=`.
    pub accuracy: Duration,
    /// `RandomizedDelaySec=`.
    pub randomized_delay: Duration,
    /// `RandomizedOffsetSec=`.
    pub randomized_offset: Duration,
    /// `FixedRandomDelay=`.
    pub fixed_random_delay: bool,
    /// `DeferReactivation=`.
    pub defer_reactivation: bool,
    /// `OnClockChange=`.
    pub on_clock_change: bool,
    /// `OnTimezoneChange=`.
    pub on_timezone_change: bool,
    /// `Unit=`; else the service of the same name.
    pub unit: Option<UnitName>,
    /// `Persistent=`.
    pub persistent: bool,
    /// `WakeSystem=`.
    pub wake_system: bool,
    /// `RemainAfterElapse=`.
    pub remain_after_elapse: bool,
}

impl Default for TimerConfig {
    fn default() -> Self {
        Self {
            triggers: Vec::new(),
            accuracy: Duration::from_secs(60),
            randomized_delay: Duration::ZERO,
            randomized_offset: Duration::ZERO,
            fixed_random_delay: false,
            defer_reactivation: false,
            on_clock_change: false,
            on_timezone_change: false,
            unit: None,
            persistent: false,
            wake_system: false,
            remain_after_elapse: true,
        }
    }
}
