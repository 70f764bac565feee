//! What PID 1 answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// The request was carried out; the last line.
    Done {
        /// What a person should know nevertheless.
        #[serde(default)]
        warnings: Vec<String>,
    },
    /// The request was not carried out; the last line.
    Error {
        /// For programs.
        code: ErrorCode,
        /// For people: one line.
        message: String,
    },
    /// A job was queued.
    JobQueued(JobInfo),
    /// A job that was waited for is over.
    JobDone {
        /// The job.
        #[serde(flatten)]
        job: JobInfo,
        /// How it ended.
        result: JobResult,
    },
    /// A queued job.
    Job(JobInfo),
    /// A unit.
    Unit(Box<UnitStatus>),
    /// A unit's properties under systemd's names.
    Properties {
        /// Full unit name; empty for PID 1 itself.
        unit: String,
        /// Name and value.
        properties: BTreeMap<String, String>,
    },
    /// An edge of a dependency tree.
    Dependency {
        /// Depth below the asked unit, from 1.
        depth: u32,
        /// Full unit name.
        unit: String,
        /// Its state.
        active: ActiveState,
    },
    /// A listening socket unit.
    Socket {
        /// The `.socket` unit.
        unit: String,
        /// Path or address.
        listen: Vec<String>,
        /// What it starts.
        activates: String,
    },
    /// A timer unit.
    Timer {
        /// The `.timer` unit.
        unit: String,
        /// Next run, microseconds since the epoch.
        next_usec: Option<u64>,
        /// Last run, microseconds since the epoch.
        last_usec: Option<u64>,
        /// What it starts.
        activates: String,
    },
    /// The machine as a whole.
    System(SystemStatus),
    /// Times of the boot.
    Analysis(Analysis),
}

impl Reply {
    /// Whether nothing follows this line.
    #[must_use]
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Error { .. })
    }
}

/// Why a request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// No such unit file.
    NotFound,
    /// The unit is masked.
    Masked,
    /// The unit file cannot be used as it is.
    BadSetting,
    /// Only root may do this.
    AccessDenied,
    /// The request makes no sense.
    BadRequest,
    /// The jobs contradict each other or queued ones.
    Conflict,
    /// The unit refuses it (`RefuseManualStart=`, no `AllowIsolate=`, no `ExecReload=`).
    Refused,
    /// A shutdown is under way.
    ShuttingDown,
    /// Something else went wrong.
    Failed,
}

/// A job in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobInfo {
    /// Its number.
    pub id: u32,
    /// Full unit name.
    pub unit: String,
    /// `start`, `stop`, `restart`, `reload`.
    pub kind: String,
    /// Whether it runs already, or waits for others.
    pub running: bool,
    /// While it waits: the units whose jobs come first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobResult {
    /// As asked.
    Done,
    /// Replaced or cancelled.
    Canceled,
    /// Took too long.
    Timeout,
    /// The unit failed.
    Failed,
    /// Something that it needs failed.
    Dependency,
    /// A condition did not hold, or there was nothing to do.
    Skipped,
    /// An `Assert…=` did not hold.
    Assert,
    /// The unit cannot do this kind of job.
    Unsupported,
}

/// systemd's `ActiveState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActiveState {
    /// Started.
    Active,
    /// Started, reading its configuration again.
    Reloading,
    /// Not started.
    Inactive,
    /// Not started, and the last try went wrong.
    Failed,
    /// Starting.
    Activating,
    /// Stopping.
    Deactivating,
}

impl ActiveState {
    /// As `systemctl is-active` prints it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Reloading => "reloading",
            Self::Inactive => "inactive",
            Self::Failed => "failed",
            Self::Activating => "activating",
            Self::Deactivating => "deactivating",
        }
    }
}

/// systemd's `LoadState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoadState {
    /// Read and usable.
    Loaded,
    /// There is no file of this name.
    NotFound,
    /// The file cannot be used; [`UnitStatus::load_error`] says why.
    BadSetting,
    /// A link to `/dev/null`.
    Masked,
}

impl LoadState {
    /// As `systemctl show -p LoadState` prints it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::NotFound => "not-found",
            Self::BadSetting => "bad-setting",
            Self::Masked => "masked",
        }
    }
}

/// What there is to say about a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitStatus {
    /// Full name; for an alias, the name it leads to.
    pub name: String,
    /// `Description=`, else the name.
    pub description: String,
    /// Whether the file could be used.
    pub load: LoadState,
    /// Why not.
    #[serde(default)]
    pub load_error: Option<String>,
    /// The file.
    #[serde(default)]
    pub path: Option<String>,
    /// Its drop-ins.
    #[serde(default)]
    pub drop_ins: Vec<String>,
    /// What PID 1 did not understand or ignores in them.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// State.
    pub active: ActiveState,
    /// State in the words of the unit's type: `running`, `exited`, `listening`.
    pub sub: String,
    /// Why it is as it is: `success`, `exit-code`, `signal`, `core-dump`, `timeout`, `watchdog`, `start-limit-hit`, `resources`, `protocol`.
    pub result: String,
    /// When it entered `active`, microseconds since the epoch; 0 when it is not known.
    #[serde(default)]
    pub since_usec: u64,
    /// Job in the queue, if any.
    #[serde(default)]
    pub job: Option<JobInfo>,
    /// Main process, 0 when there is none.
    #[serde(default)]
    pub main_pid: i32,
    /// Control process, 0 when there is none.
    #[serde(default)]
    pub control_pid: i32,
    /// Exit code of the last main process, when it has ended by itself.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// Signal that ended the last main process.
    #[serde(default)]
    pub exit_signal: Option<i32>,
    /// Times restarted by `Restart=`.
    #[serde(default)]
    pub restarts: u32,
    /// What the service last said of itself (`STATUS=`).
    #[serde(default)]
    pub status_text: Option<String>,
    /// Why the start was skipped: the condition, as written.
    #[serde(default)]
    pub condition_failed: Option<String>,
    /// Units that start it: sockets, timers.
    #[serde(default)]
    pub triggered_by: Vec<String>,
    /// What it starts: the other way round.
    #[serde(default)]
    pub triggers: Vec<String>,
    /// When a timer elapses next, microseconds since the epoch.
    #[serde(default)]
    pub next_usec: Option<u64>,
    /// `Documentation=`.
    #[serde(default)]
    pub documentation: Vec<String>,
    /// Control group below the root of the hierarchy, if it has one now.
    #[serde(default)]
    pub cgroup: Option<String>,
    /// Bytes of memory, if accounted.
    #[serde(default)]
    pub memory: Option<u64>,
    /// Number of tasks, if accounted.
    #[serde(default)]
    pub tasks: Option<u64>,
    /// Microseconds of processor time, if accounted.
    #[serde(default)]
    pub cpu_usec: Option<u64>,
    /// Processes: pid and command line.
    #[serde(default)]
    pub processes: Vec<(i32, String)>,
}

/// The machine as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SystemStatus {
    /// `starting`, `running`, `degraded`, `maintenance`, `stopping`.
    pub state: String,
    /// Units that failed.
    pub failed: Vec<String>,
    /// Number of queued jobs.
    pub jobs: u32,
    /// Number of loaded units.
    pub units: u32,
    /// `IMAGE_VERSION` of the running system.
    pub version: String,
    /// Slot, `a` or `b`; empty when it was not started from one.
    pub slot: String,
    /// `boot-complete`, `boot-degraded` or `boot-failed`, once it is known.
    #[serde(default)]
    pub boot: Option<String>,
    /// Seconds since the kernel started.
    pub uptime: f64,
}

/// Times of the boot; all in microseconds since the kernel started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Analysis {
    /// Phases in order: name and when it ended.
    pub phases: Vec<(String, u64)>,
    /// When the default target's start-up jobs were done.
    pub finished_usec: Option<u64>,
    /// When `boot-complete` was said.
    pub complete_usec: Option<u64>,
    /// Units that were started.
    pub units: Vec<UnitTiming>,
}

/// When a unit started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitTiming {
    /// Full name.
    pub name: String,
    /// When its start began.
    pub activating_usec: u64,
    /// When it was active.
    pub active_usec: Option<u64>,
    /// What it was ordered after, for `critical-chain`.
    pub after: Vec<String>,
}
