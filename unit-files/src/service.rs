//! `[Service]`, and how processes of any unit are killed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exec::{ExecCommand, ExecContext};
use crate::name::UnitName;
use crate::resources::CgroupConfig;

/// `Type=`: when a service counts as up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceType {
    /// After the fork.
    #[default]
    Simple,
    /// After the program was executed.
    Exec,
    /// When the first process has ended.
    Forking,
    /// When all commands have ended.
    Oneshot,
    /// When it says so by `READY=1`.
    Notify,
    /// Like `Notify`, and reloads by a signal.
    NotifyReload,
    /// Like `Simple`, after the other jobs.
    Idle,
    /// When it owns a bus name: there is no bus, so it is refused at load.
    Dbus,
}

/// `Restart=`: after which endings it is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "systemd's own values")]
pub enum Restart {
    #[default]
    No,
    Always,
    OnSuccess,
    OnFailure,
    OnAbnormal,
    OnAbort,
    OnWatchdog,
}

/// `RestartMode=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartMode {
    /// Through the failed or inactive state, so that dependents notice.
    #[default]
    Normal,
    /// Straight to starting again.
    Direct,
    /// Straight, and without `ExecStartPre=`.
    Debug,
}

/// `NotifyAccess=`: whose notifications count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotifyAccess {
    /// Nobody's.
    #[default]
    None,
    /// The main process's.
    Main,
    /// The main and control processes'.
    Exec,
    /// Any process of the unit's cgroup.
    All,
}

/// `OOMPolicy=`: what happens when the kernel kills a process of the unit for want of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OomPolicy {
    /// The rest runs on.
    Continue,
    /// The unit is stopped.
    #[default]
    Stop,
    /// The kernel kills the whole cgroup (`memory.oom.group`).
    Kill,
}

/// `ExitType=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitType {
    /// The service is over when its main process is.
    #[default]
    Main,
    /// The service is over when its cgroup is empty.
    Cgroup,
}

/// `KillMode=`: which processes are signalled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KillMode {
    /// All of the cgroup.
    #[default]
    ControlGroup,
    /// The main one gets the first signal, all get the last.
    Mixed,
    /// Only the main one.
    Process,
    /// None.
    None,
}

/// `TimeoutStartFailureMode=`, `TimeoutStopFailureMode=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeoutFailureMode {
    /// The ordinary way of stopping.
    #[default]
    Terminate,
    /// With the watchdog signal.
    Abort,
    /// SIGKILL at once.
    Kill,
}

/// `FileDescriptorStorePreserve=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "systemd's own values")]
pub enum FdStorePreserve {
    No,
    Yes,
    #[default]
    Restart,
}

/// Exit codes and signals, as in `SuccessExitStatus=`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatusSet {
    /// Exit codes.
    pub codes: BTreeSet<u8>,
    /// Signal numbers.
    pub signals: BTreeSet<i32>,
}

/// `[Service]`'s, `[Socket]`'s, `[Mount]`'s ways to end processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillConfig {
    /// `KillMode=`.
    pub mode: KillMode,
    /// `KillSignal=`, SIGTERM by default.
    pub signal: i32,
    /// `RestartKillSignal=`, else `signal`.
    pub restart_signal: Option<i32>,
    /// `FinalKillSignal=`, SIGKILL by default.
    pub final_signal: i32,
    /// `WatchdogSignal=`, SIGABRT by default.
    pub watchdog_signal: i32,
    /// `SendSIGHUP=`: SIGHUP right after the first signal.
    pub send_sighup: bool,
    /// `SendSIGKILL=`: kill what is left after the timeout.
    pub send_sigkill: bool,
}

impl Default for KillConfig {
    fn default() -> Self {
        Self {
            mode: KillMode::ControlGroup,
            signal: 15,
            restart_signal: None,
            final_signal: 9,
            watchdog_signal: 6,
            send_sighup: false,
            send_sigkill: true,
        }
    }
}

/// `OpenFile=`: a file opened by PID 1 and passed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFile {
    /// The path.
    pub path: String,
    /// Its name in `LISTEN_FDNAMES`.
    pub name: String,
    /// `read-only`.
    pub read_only: bool,
    /// `append`.
    pub append: bool,
    /// `truncate`.
    pub truncate: bool,
    /// `graceful`: go on without it.
    pub graceful: bool,
}

/// How long a start or stop may take when nothing is written.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(90);

/// Everything in `[Service]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceConfig {
    /// `Type=`; when not written, what systemd infers (oneshot without `ExecStart=`, else simple).
    pub service_type: ServiceType,
    /// `ExitType=`.
    pub exit_type: ExitType,
    /// `ExecCondition=`.
    pub exec_condition: Vec<ExecCommand>,
    /// `ExecStartPre=`.
    pub exec_start_pre: Vec<ExecCommand>,
    /// `ExecStart=`.
    pub exec_start: Vec<ExecCommand>,
    /// `ExecStartPost=`.
    pub exec_start_post: Vec<ExecCommand>,
    /// `ExecReload=`.
    pub exec_reload: Vec<ExecCommand>,
    /// `ExecReloadPost=`.
    pub exec_reload_post: Vec<ExecCommand>,
    /// `ExecStop=`.
    pub exec_stop: Vec<ExecCommand>,
    /// `ExecStopPost=`.
    pub exec_stop_post: Vec<ExecCommand>,
    /// `Restart=`.
    pub restart: Restart,
    /// `RestartMode=`.
    pub restart_mode: RestartMode,
    /// `RestartSec=`.
    pub restart_delay: Duration,
    /// `RestartSteps=`; zero is no backoff.
    pub restart_steps: u32,
    /// `RestartMaxDelaySec=`; needed with `restart_steps`, else neither counts.
    pub restart_max_delay: Option<Duration>,
    /// `TimeoutStartSec=`; `None` is for ever, which is also the default of oneshot services.
    pub timeout_start: Option<Duration>,
    /// `TimeoutStopSec=`; `None` is for ever.
    pub timeout_stop: Option<Duration>,
    /// `TimeoutAbortSec=`; `None` when not written: then `timeout_stop` counts.
    pub timeout_abort: Option<Duration>,
    /// `TimeoutStartFailureMode=`.
    pub timeout_start_failure_mode: TimeoutFailureMode,
    /// `TimeoutStopFailureMode=`.
    pub timeout_stop_failure_mode: TimeoutFailureMode,
    /// `RuntimeMaxSec=`; `None` is for ever.
    pub runtime_max: Option<Duration>,
    /// `RuntimeRandomizedExtraSec=`.
    pub runtime_randomized_extra: Duration,
    /// `WatchdogSec=`; `None` is none.
    pub watchdog: Option<Duration>,
    /// `RemainAfterExit=`.
    pub remain_after_exit: bool,
    /// `PIDFile=`, absolute (a relative one was put under `/run`).
    pub pid_file: Option<String>,
    /// `GuessMainPID=`.
    pub guess_main_pid: bool,
    /// `SuccessExitStatus=`.
    pub success_exit_status: ExitStatusSet,
    /// `RestartPreventExitStatus=`.
    pub restart_prevent_exit_status: ExitStatusSet,
    /// `RestartForceExitStatus=`.
    pub restart_force_exit_status: ExitStatusSet,
    /// `NotifyAccess=`, already `main` at least where the type needs it.
    pub notify_access: NotifyAccess,
    /// `Sockets=`.
    pub sockets: Vec<UnitName>,
    /// `OpenFile=`.
    pub open_files: Vec<OpenFile>,
    /// `FileDescriptorStoreMax=`.
    pub fd_store_max: u32,
    /// `FileDescriptorStorePreserve=`.
    pub fd_store_preserve: FdStorePreserve,
    /// `OOMPolicy=`.
    pub oom_policy: OomPolicy,
    /// `BusName=`.
    pub bus_name: Option<String>,
    /// `NonBlocking=`: sockets are passed with `O_NONBLOCK`.
    pub non_blocking: bool,
    /// `RootDirectoryStartOnly=`.
    pub root_directory_start_only: bool,
    /// `PermissionsStartOnly=` (old): only `ExecStart=` runs as `User=`.
    pub permissions_start_only: bool,
    /// `ReloadSignal=`, SIGHUP by default.
    pub reload_signal: i32,
    /// `RebootArgument=`.
    pub reboot_argument: Option<String>,
    /// How processes are killed.
    pub kill: KillConfig,
    /// What processes run in.
    pub exec: Arc<ExecContext>,
    /// Resource knobs.
    pub cgroup: Arc<CgroupConfig>,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            service_type: ServiceType::Simple,
            exit_type: ExitType::Main,
            exec_condition: Vec::new(),
            exec_start_pre: Vec::new(),
            exec_start: Vec::new(),
            exec_start_post: Vec::new(),
            exec_reload: Vec::new(),
            exec_reload_post: Vec::new(),
            exec_stop: Vec::new(),
            exec_stop_post: Vec::new(),
            restart: Restart::No,
            restart_mode: RestartMode::Normal,
            restart_delay: Duration::from_millis(100),
            restart_steps: 0,
            restart_max_delay: None,
            timeout_start: Some(DEFAULT_TIMEOUT),
            timeout_stop: Some(DEFAULT_TIMEOUT),
            timeout_abort: None,
            timeout_start_failure_mode: TimeoutFailureMode::Terminate,
            timeout_stop_failure_mode: TimeoutFailureMode::Terminate,
            runtime_max: None,
            runtime_randomized_extra: Duration::ZERO,
            watchdog: None,
            remain_after_exit: false,
            pid_file: None,
            guess_main_pid: true,
            success_exit_status: ExitStatusSet::default(),
            restart_prevent_exit_status: ExitStatusSet::default(),
            restart_force_exit_status: ExitStatusSet::default(),
            notify_access: NotifyAccess::None,
            sockets: Vec::new(),
            open_files: Vec::new(),
            fd_store_max: 0,
            fd_store_preserve: FdStorePreserve::Restart,
            oom_policy: OomPolicy::Stop,
            bus_name: None,
            non_blocking: false,
            root_directory_start_only: false,
            permissions_start_only: false,
            reload_signal: 1,
            reboot_argument: None,
            kill: KillConfig::default(),
            exec: Arc::default(),
            cgroup: Arc::default(),
        }
    }
}
