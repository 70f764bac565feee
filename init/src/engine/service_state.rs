//! The life of a service as a state machine: events in, actions out.
//!
//! Pure: no process is touched here, the time and whether the control group has processes are handed in. The states and
//! the transitions are systemd's, so that `systemctl` shows what people know and unit files mean what they say.

use unit_files::exec::ExecCommand;
use unit_files::service::ServiceConfig;

use super::protocol::ActiveState;
use super::restart::{Exit, ServiceResult, Usec, usec};
use super::service_step::Step;

/// Where a service is.
#[allow(missing_docs)] // The sub-states of systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    #[default]
    Dead,
    Condition,
    StartPre,
    Start,
    StartPost,
    Running,
    Exited,
    Reload,
    /// The service said, or was asked by a signal, that it reads its configuration again.
    ReloadNotify,
    Stop,
    StopWatchdog,
    StopSigterm,
    StopSigkill,
    StopPost,
    FinalSigterm,
    FinalSigkill,
    Failed,
    AutoRestart,
}

impl State {
    /// systemd's name of the sub-state.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Condition => "condition",
            Self::StartPre => "start-pre",
            Self::Start => "start",
            Self::StartPost => "start-post",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Reload => "reload",
            Self::ReloadNotify => "reload-notify",
            Self::Stop => "stop",
            Self::StopWatchdog => "stop-watchdog",
            Self::StopSigterm => "stop-sigterm",
            Self::StopSigkill => "stop-sigkill",
            Self::StopPost => "stop-post",
            Self::FinalSigterm => "final-sigterm",
            Self::FinalSigkill => "final-sigkill",
            Self::Failed => "failed",
            Self::AutoRestart => "auto-restart",
        }
    }

    /// As units of all kinds say it.
    #[must_use]
    pub fn active(self) -> ActiveState {
        match self {
            Self::Dead => ActiveState::Inactive,
            Self::Failed => ActiveState::Failed,
            Self::Condition | Self::StartPre | Self::Start | Self::StartPost | Self::AutoRestart => ActiveState::Activating,
            Self::Running | Self::Exited => ActiveState::Active,
            Self::Reload | Self::ReloadNotify => ActiveState::Reloading,
            _ => ActiveState::Deactivating,
        }
    }
}

/// Which command lines a process belongs to.
#[allow(missing_docs)] // The directives of the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Condition,
    StartPre,
    Start,
    StartPost,
    Reload,
    Stop,
    StopPost,
}

impl Phase {
    /// Its command lines.
    #[must_use]
    pub fn commands(self, config: &ServiceConfig) -> &[ExecCommand] {
        match self {
            Self::Condition => &config.exec_condition,
            Self::StartPre => &config.exec_start_pre,
            Self::Start => &config.exec_start,
            Self::StartPost => &config.exec_start_post,
            Self::Reload => &config.exec_reload,
            Self::Stop => &config.exec_stop,
            Self::StopPost => &config.exec_stop_post,
        }
    }
}

/// What a process is to its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The service itself.
    Main,
    /// A helper: `ExecStartPre=` and the like, and the first process of `Type=forking`.
    Control,
    /// Some other process of its control group.
    Other,
}

/// What a service says of itself through the notify socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notice {
    /// `READY=1`.
    pub ready: bool,
    /// `RELOADING=1`.
    pub reloading: bool,
    /// `MONOTONIC_USEC=`: when the reload that it speaks of began.
    pub monotonic_usec: Option<Usec>,
    /// `STOPPING=1`.
    pub stopping: bool,
    /// `STATUS=`.
    pub status: Option<String>,
    /// `ERRNO=`.
    pub errno: Option<i32>,
    /// `MAINPID=`, already known to be one of the unit's processes.
    pub main_pid: Option<i32>,
    /// `WATCHDOG=1`.
    pub watchdog: bool,
    /// `WATCHDOG=trigger`.
    pub watchdog_trigger: bool,
    /// `WATCHDOG_USEC=`.
    pub watchdog_usec: Option<Usec>,
    /// `EXTEND_TIMEOUT_USEC=`.
    pub extend_timeout: Option<Usec>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Its start job runs.
    Start,
    /// Its stop job runs.
    Stop,
    /// Its reload job runs.
    Reload,
    /// A process was started for [`Action::Run`].
    Spawned(Role, i32),
    /// None could be.
    SpawnFailed(Role),
    /// The program of the main process was executed.
    Executed,
    /// A process ended.
    Exited(i32, Exit),
    /// The kernel killed one of its processes for want of memory.
    OutOfMemory,
    /// The last process of the control group is gone.
    Empty,
    /// What [`Action::FindMain`] found.
    FoundMain(Option<i32>),
    /// A message.
    Notify(Role, Notice),
    /// Time has passed.
    Tick,
}

/// What has to be done about it, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start a process; answer with [`Event::Spawned`] or [`Event::SpawnFailed`].
    Run(Role, Phase, usize),
    /// Signal processes.
    Kill {
        /// The main process.
        main: bool,
        /// The control process.
        control: bool,
        /// All processes of the control group.
        group: bool,
        /// The signal.
        signal: i32,
        /// SIGHUP as well.
        hangup: bool,
    },
    /// Read `PIDFile=`, or guess; answer with [`Event::FoundMain`].
    FindMain,
    /// The delay of an automatic restart is over: queue a restart.
    Restart,
    /// It is down: directories, fds and the control group can go. True when it will be started again.
    Release(bool),
}

/// What the machine has to know about the world at an event.
#[derive(Debug, Clone, Copy)]
pub struct Env {
    /// The time.
    pub now: Usec,
    /// Whether the unit's control group has processes.
    pub populated: bool,
    /// Whether it will be started again right after a stop: its job is a restart.
    pub restarts: bool,
}

/// A service's state and what belongs to it.
#[derive(Debug, Clone, Default)]
pub struct Service {
    /// Where it is.
    pub state: State,
    /// Why.
    pub result: ServiceResult,
    /// How the last reload went.
    pub reload_result: ServiceResult,
    /// Main process.
    pub main: Option<i32>,
    /// Control process.
    pub control: Option<i32>,
    /// How the last main process ended.
    pub main_exit: Option<Exit>,
    /// Automatic restarts since it was last started by request.
    pub restarts: u32,
    /// `STATUS=`.
    pub status_text: Option<String>,
    /// `ERRNO=`.
    pub errno: Option<i32>,
    /// When the present state has lasted too long, or a restart is due.
    pub(super) deadline: Option<Usec>,
    pub(super) watchdog_deadline: Option<Usec>,
    pub(super) watchdog_usec: Option<Usec>,
    /// `RuntimeMaxSec=`.
    pub(super) runtime_deadline: Option<Usec>,
    /// When to look for the PID file again.
    pub(super) poll_at: Option<Usec>,
    pub(super) phase: Option<Phase>,
    pub(super) index: usize,
    /// Someone asked for the stop: no automatic restart.
    pub(super) forbid_restart: bool,
    /// The next start is an automatic one.
    pub(super) restarting: bool,
    pub(super) ready_seen: bool,
    pub(super) reload_seen: bool,
    /// When it was last asked to reload.
    pub(super) reload_asked: Usec,
}

impl Service {
    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn next_tick(&self) -> Option<Usec> {
        [self.deadline, self.watchdog_deadline, self.runtime_deadline, self.poll_at].into_iter().flatten().min()
    }

    /// What `pid` is to this service.
    #[must_use]
    pub fn role(&self, pid: i32) -> Role {
        if self.main == Some(pid) {
            Role::Main
        } else if self.control == Some(pid) {
            Role::Control
        } else {
            Role::Other
        }
    }

    /// Notes that the start was refused for being one too many.
    pub fn start_limit_hit(&mut self) {
        self.state = State::Failed;
        self.result = ServiceResult::StartLimitHit;
        self.deadline = None;
        self.restarting = false;
    }

    /// `systemctl reset-failed`.
    pub fn reset_failed(&mut self) {
        if self.state == State::Failed {
            self.state = State::Dead;
        }
        self.result = ServiceResult::Success;
        self.restarts = 0;
    }

    /// Watchdog interval given to the process.
    #[must_use]
    pub fn watchdog(&self, config: &ServiceConfig) -> Option<Usec> {
        self.watchdog_usec.or_else(|| config.watchdog.map(usec)).filter(|interval| *interval > 0)
    }

    /// One step.
    pub fn handle(&mut self, config: &ServiceConfig, event: Event, env: Env) -> Vec<Action> {
        let mut step = Step { service: self, config, env, actions: Vec::new() };
        step.event(event);
        step.actions
    }
}

#[cfg(test)]
#[path = "service_state_tests.rs"]
mod tests;
