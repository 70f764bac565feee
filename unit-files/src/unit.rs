//! A loaded unit: what every kind has in common, and the enum of what each kind has of its own.
//!
//! These are plain data; the [`loader`](crate::loader) fills them in from files, the unit engine acts on them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::condition::Condition;
pub use crate::dependencies::{Dependencies, DependencyKind};
use crate::diagnostic::{Diagnostic, Severity};
use crate::mount::{AutomountConfig, MountConfig, SwapConfig};
use crate::name::{UnitKind, UnitName};
use crate::path::PathConfig;
use crate::resources::CgroupConfig;
use crate::service::ServiceConfig;
use crate::socket::SocketConfig;
use crate::timer::TimerConfig;

/// What came of reading the unit's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoadState {
    /// Read, and can be started.
    Loaded,
    /// No file of this name, and none is needed by its kind.
    NotFound,
    /// Switched off by a link to `/dev/null` or an empty file.
    Masked,
    /// Read, but a setting makes it impossible to run; `load_error` says which.
    BadSetting,
    /// A file could not be read; `load_error` says which.
    Error,
}

impl LoadState {
    /// As `systemctl` prints it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::NotFound => "not-found",
            Self::Masked => "masked",
            Self::BadSetting => "bad-setting",
            Self::Error => "error",
        }
    }
}

/// What a start limit, a failure or a success may trigger for the whole machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EmergencyAction {
    /// Nothing.
    #[default]
    None,
    /// Orderly reboot.
    Reboot,
    /// Reboot without stopping units.
    RebootForce,
    /// Reboot at once.
    RebootImmediate,
    /// Orderly power-off.
    Poweroff,
    /// Power off without stopping units.
    PoweroffForce,
    /// Power off at once.
    PoweroffImmediate,
    /// Orderly halt.
    Halt,
    /// Halt without stopping units.
    HaltForce,
    /// Halt at once.
    HaltImmediate,
    /// For PID 1 the same as `Poweroff`.
    Exit,
    /// For PID 1 the same as `PoweroffForce`.
    ExitForce,
}

/// How a job that a unit causes treats the jobs that are there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobMode {
    /// Fails when it would cancel another job.
    Fail,
    /// Cancels what is in the way.
    #[default]
    Replace,
    /// Like `Replace`, and cannot be replaced itself.
    ReplaceIrreversibly,
    /// Stops everything that is not needed.
    Isolate,
    /// Cancels all queued jobs.
    Flush,
    /// Ignores every dependency.
    IgnoreDependencies,
    /// Ignores requirements, keeps order.
    IgnoreRequirements,
}

/// How often a unit may be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartLimit {
    /// The window; zero switches the limit off.
    pub interval: Duration,
    /// Starts within the window; zero switches the limit off.
    pub burst: u32,
    /// What else happens when it is hit.
    pub action: EmergencyAction,
}

impl Default for StartLimit {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), burst: 5, action: EmergencyAction::None }
    }
}

/// `[Install]`: what enabling a unit means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallInfo {
    /// Units that get a `.wants/` link here.
    pub wanted_by: Vec<String>,
    /// Units that get a `.requires/` link here.
    pub required_by: Vec<String>,
    /// Units that get an `.upholds/` link here.
    pub upheld_by: Vec<String>,
    /// Other names.
    pub alias: Vec<String>,
    /// Units enabled and disabled along with this one.
    pub also: Vec<String>,
    /// Instance to enable when the template is enabled.
    pub default_instance: Option<String>,
}

impl InstallInfo {
    /// Whether enabling would do anything at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wanted_by.is_empty()
            && self.required_by.is_empty()
            && self.upheld_by.is_empty()
            && self.alias.is_empty()
            && self.also.is_empty()
    }
}

/// `X-Health=`: what a unit means for the verdict on a boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Nothing.
    #[default]
    Ignored,
    /// The boot is not healthy while an enabled unit so marked is not active.
    Required,
}

/// A unit and everything that its files say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unit {
    /// Its own name, links resolved.
    pub name: UnitName,
    /// Other names that lead here by symbolic links.
    pub aliases: BTreeSet<UnitName>,
    /// What kind it is.
    pub kind: UnitKind,
    /// What came of loading it.
    pub load_state: LoadState,
    /// Why it cannot be started, when the state says so.
    pub load_error: Option<String>,
    /// `Description=`, or the name.
    pub description: String,
    /// `Documentation=`.
    pub documentation: Vec<String>,
    /// The unit file, as a path on the host; `None` for units that need none.
    pub fragment: Option<String>,
    /// Drop-ins, in the order in which they were applied.
    pub drop_ins: Vec<String>,
    /// `SourcePath=`.
    pub source_path: Option<String>,
    /// Everything it depends on, default dependencies included.
    pub dependencies: Dependencies,
    /// `DefaultDependencies=`.
    pub default_dependencies: bool,
    /// `Condition...=`: not met, the start is skipped and counts as done.
    pub conditions: Vec<Condition>,
    /// `Assert...=`: not met, the start fails.
    pub asserts: Vec<Condition>,
    /// `RequiresMountsFor=`: the paths themselves (their mount units are in `dependencies`).
    pub requires_mounts_for: Vec<String>,
    /// `WantsMountsFor=`.
    pub wants_mounts_for: Vec<String>,
    /// `[Install]`.
    pub install: InstallInfo,
    /// `StartLimit...=`, wherever it was written.
    pub start_limit: StartLimit,
    /// `FailureAction=`.
    pub failure_action: EmergencyAction,
    /// `SuccessAction=`.
    pub success_action: EmergencyAction,
    /// `OnFailureJobMode=`.
    pub on_failure_job_mode: JobMode,
    /// `OnSuccessJobMode=`; systemd's default is `fail`.
    pub on_success_job_mode: JobMode,
    /// `JobTimeoutSec=`: how long a job may stay queued and running; `None` is for ever.
    pub job_timeout: Option<Duration>,
    /// `JobRunningTimeoutSec=`: how long it may run; `None` is for ever.
    pub job_running_timeout: Option<Duration>,
    /// `JobTimeoutAction=`.
    pub job_timeout_action: EmergencyAction,
    /// `RefuseManualStart=`.
    pub refuse_manual_start: bool,
    /// `RefuseManualStop=`.
    pub refuse_manual_stop: bool,
    /// `AllowIsolate=`.
    pub allow_isolate: bool,
    /// `IgnoreOnIsolate=`.
    pub ignore_on_isolate: bool,
    /// `StopWhenUnneeded=`.
    pub stop_when_unneeded: bool,
    /// `SurviveFinalKillSignal=`.
    pub survive_final_kill_signal: bool,
    /// `X-Health=`.
    pub health: Health,
    /// `X-Init-Allow-Unsupported=`: directives (or `yes` for all) that may go unenforced.
    pub allow_unsupported: Vec<String>,
    /// What is wrong or not done, with file and line.
    pub diagnostics: Vec<Diagnostic>,
    /// What only this kind has.
    pub config: Config,
}

/// What only one kind of unit has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Config {
    /// A service.
    Service(Box<ServiceConfig>),
    /// A socket unit.
    Socket(Box<SocketConfig>),
    /// A timer.
    Timer(Box<TimerConfig>),
    /// A path unit.
    Path(Box<PathConfig>),
    /// A mount.
    Mount(Box<MountConfig>),
    /// An automount.
    Automount(Box<AutomountConfig>),
    /// Swap.
    Swap(Box<SwapConfig>),
    /// A slice.
    Slice(Box<CgroupConfig>),
    /// A scope.
    Scope(Box<CgroupConfig>),
    /// A target.
    Target,
    /// A device.
    Device,
}

impl Config {
    /// An empty configuration of a kind.
    #[must_use]
    pub fn new(kind: UnitKind) -> Self {
        match kind {
            UnitKind::Service => Self::Service(Box::default()),
            UnitKind::Socket => Self::Socket(Box::default()),
            UnitKind::Timer => Self::Timer(Box::default()),
            UnitKind::Path => Self::Path(Box::default()),
            UnitKind::Mount => Self::Mount(Box::default()),
            UnitKind::Automount => Self::Automount(Box::default()),
            UnitKind::Swap => Self::Swap(Box::default()),
            UnitKind::Slice => Self::Slice(Box::default()),
            UnitKind::Scope => Self::Scope(Box::default()),
            UnitKind::Target => Self::Target,
            UnitKind::Device => Self::Device,
        }
    }
}

impl Unit {
    /// A unit of which nothing is known yet but its name.
    #[must_use]
    pub fn new(name: UnitName, load_state: LoadState) -> Self {
        let kind = name.kind();
        Self {
            description: name.as_str().to_owned(),
            name,
            aliases: BTreeSet::new(),
            kind,
            load_state,
            load_error: None,
            documentation: Vec::new(),
            fragment: None,
            drop_ins: Vec::new(),
            source_path: None,
            dependencies: Dependencies::default(),
            default_dependencies: true,
            conditions: Vec::new(),
            asserts: Vec::new(),
            requires_mounts_for: Vec::new(),
            wants_mounts_for: Vec::new(),
            install: InstallInfo::default(),
            start_limit: StartLimit::default(),
            failure_action: EmergencyAction::None,
            success_action: EmergencyAction::None,
            on_failure_job_mode: JobMode::Replace,
            on_success_job_mode: JobMode::Fail,
            job_timeout: None,
            job_running_timeout: None,
            job_timeout_action: EmergencyAction::None,
            refuse_manual_start: false,
            refuse_manual_stop: false,
            allow_isolate: false,
            ignore_on_isolate: !matches!(kind, UnitKind::Service | UnitKind::Socket | UnitKind::Target | UnitKind::Timer | UnitKind::Path),
            stop_when_unneeded: false,
            survive_final_kill_signal: false,
            health: Health::Ignored,
            allow_unsupported: Vec::new(),
            diagnostics: Vec::new(),
            config: Config::new(kind),
        }
    }

    /// Why the unit must not be started although it loaded: it would run with more rights than written.
    #[must_use]
    pub fn refusal(&self) -> Option<&Diagnostic> {
        self.diagnostics.iter().find(|diagnostic| diagnostic.severity == Severity::Refused)
    }

    /// The service part, if it is a service.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceConfig> {
        match &self.config {
            Config::Service(service) => Some(service),
            _ => None,
        }
    }

    /// The resource knobs, for kinds that have a cgroup.
    #[must_use]
    pub fn cgroup(&self) -> Option<&CgroupConfig> {
        match &self.config {
            Config::Service(config) => Some(&config.cgroup),
            Config::Socket(config) => Some(&config.cgroup),
            Config::Mount(config) => Some(&config.cgroup),
            Config::Swap(config) => Some(&config.cgroup),
            Config::Slice(config) | Config::Scope(config) => Some(config),
            _ => None,
        }
    }
}
