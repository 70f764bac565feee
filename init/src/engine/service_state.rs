//! The life of a service as a state machine: events in, actions out.
//!
//! Pure: no process is touched here, the time and whether the control group has processes are handed in. The states and
//! the transitions are systemd's, so that `systemctl` shows what people know and unit files mean what they say.

use unit_files::exec::ExecCommand;
use unit_files::service::{ExitType, KillMode, NotifyAccess, OomPolicy, ServiceConfig, ServiceType, TimeoutFailureMode};

use super::protocol::ActiveState;
use super::restart::{Exit, ServiceResult, Usec, is_daemon, judge, restart_delay, should_restart, usec};

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
    deadline: Option<Usec>,
    watchdog_deadline: Option<Usec>,
    watchdog_usec: Option<Usec>,
    /// `RuntimeMaxSec=`.
    runtime_deadline: Option<Usec>,
    /// When to look for the PID file again.
    poll_at: Option<Usec>,
    phase: Option<Phase>,
    index: usize,
    /// Someone asked for the stop: no automatic restart.
    forbid_restart: bool,
    /// The next start is an automatic one.
    restarting: bool,
    ready_seen: bool,
    reload_seen: bool,
}

const POLL_PID_FILE: Usec = 50_000;

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

struct Step<'a> {
    service: &'a mut Service,
    config: &'a ServiceConfig,
    env: Env,
    actions: Vec<Action>,
}

#[allow(clippy::collapsible_match, reason = "a guard that starts the next command would hide that it does")]
impl Step<'_> {
    fn event(&mut self, event: Event) {
        match event {
            Event::Start => self.start(),
            Event::Stop => self.stop(),
            Event::Reload => self.reload(),
            Event::Spawned(Role::Main, pid) => {
                self.service.main = Some(pid);
                self.spawned_main();
            }
            Event::Spawned(_, pid) => self.service.control = Some(pid),
            Event::SpawnFailed(role) => self.spawn_failed(role),
            Event::Executed => {
                if self.service.state == State::Start && self.config.service_type == ServiceType::Exec {
                    self.enter_start_post();
                }
            }
            Event::Exited(pid, exit) => self.exited(pid, exit),
            Event::OutOfMemory => {
                let up = matches!(self.service.state, State::StartPost | State::Running | State::Reload | State::ReloadNotify);
                if up && self.config.oom_policy == OomPolicy::Stop {
                    self.enter_signal(State::StopSigterm, ServiceResult::OomKill);
                } else if self.config.oom_policy != OomPolicy::Continue {
                    self.note(ServiceResult::OomKill);
                }
            }
            Event::Empty => self.empty(),
            Event::FoundMain(pid) => self.found_main(pid),
            Event::Notify(role, notice) => self.notify(role, notice),
            Event::Tick => self.tick(),
        }
    }

    // ---- requests

    fn start(&mut self) {
        if !matches!(self.service.state, State::Dead | State::Failed | State::AutoRestart) {
            return;
        }
        let service = &mut *self.service;
        service.restarts = if service.restarting { service.restarts.saturating_add(1) } else { 0 };
        service.restarting = false;
        service.forbid_restart = false;
        service.result = ServiceResult::Success;
        service.reload_result = ServiceResult::Success;
        service.main = None;
        service.control = None;
        service.main_exit = None;
        service.status_text = None;
        service.errno = None;
        service.watchdog_usec = None;
        service.watchdog_deadline = None;
        service.runtime_deadline = None;
        service.poll_at = None;
        service.ready_seen = false;
        if self.run_phase(Phase::Condition) {
            self.set(State::Condition, self.start_timeout());
        } else {
            self.enter_start_pre();
        }
    }

    fn stop(&mut self) {
        self.service.forbid_restart = true;
        match self.service.state {
            State::AutoRestart => {
                self.service.restarting = false;
                self.set(State::Dead, None);
                self.actions.push(Action::Release(false));
            }
            State::Condition | State::StartPre | State::Start | State::StartPost | State::Reload | State::ReloadNotify => {
                self.enter_signal(State::StopSigterm, ServiceResult::Success);
            }
            State::Running | State::Exited => self.enter_stop(ServiceResult::Success),
            _ => {}
        }
    }

    fn reload(&mut self) {
        if !matches!(self.service.state, State::Running | State::Exited) {
            return;
        }
        self.service.reload_result = ServiceResult::Success;
        if self.config.service_type == ServiceType::NotifyReload && self.service.main.is_some() {
            self.service.reload_seen = false;
            self.actions.push(Action::Kill { main: true, control: false, group: false, signal: self.config.reload_signal, hangup: false });
            self.set(State::ReloadNotify, self.start_timeout());
        } else if self.run_phase(Phase::Reload) {
            self.set(State::Reload, self.start_timeout());
        }
    }

    // ---- the way up

    fn enter_start_pre(&mut self) {
        if self.run_phase(Phase::StartPre) {
            self.set(State::StartPre, self.start_timeout());
        } else {
            self.enter_start();
        }
    }

    fn enter_start(&mut self) {
        if let Some(limit) = self.config.runtime_max {
            self.service.runtime_deadline = Some(self.env.now.saturating_add(usec(limit)));
        }
        if self.config.exec_start.is_empty() {
            // Only a oneshot or `ExecStop=` service has none: the start is done at once.
            self.set(State::Start, None);
            self.enter_start_post();
            return;
        }
        self.service.phase = Some(Phase::Start);
        self.service.index = 0;
        let role = if self.config.service_type == ServiceType::Forking { Role::Control } else { Role::Main };
        self.set(State::Start, self.start_timeout());
        self.actions.push(Action::Run(role, Phase::Start, 0));
    }

    fn spawned_main(&mut self) {
        if self.service.state == State::Start && matches!(self.config.service_type, ServiceType::Simple | ServiceType::Idle) {
            self.enter_start_post();
        }
    }

    fn enter_start_post(&mut self) {
        self.pet_watchdog();
        if self.run_phase(Phase::StartPost) {
            self.set(State::StartPost, self.start_timeout());
        } else {
            self.enter_running(ServiceResult::Success);
        }
    }

    fn enter_running(&mut self, result: ServiceResult) {
        self.note(result);
        if self.good() {
            let state =
                if self.service.state != State::ReloadNotify && self.service.reload_seen { State::ReloadNotify } else { State::Running };
            self.set(state, None);
        } else if self.config.remain_after_exit && self.service.result == ServiceResult::Success {
            self.set(State::Exited, None);
        } else {
            self.enter_stop(ServiceResult::Success);
        }
    }

    /// Whether there is something that runs.
    fn good(&self) -> bool {
        if self.service.main.is_some() {
            return true;
        }
        let leaderless = self.config.service_type == ServiceType::Forking && self.service.main_exit.is_none();
        (leaderless || self.config.exit_type == ExitType::Cgroup) && self.env.populated
    }

    // ---- the way down

    fn enter_stop(&mut self, result: ServiceResult) {
        self.note(result);
        if self.run_phase(Phase::Stop) {
            self.set(State::Stop, self.stop_timeout());
        } else {
            self.enter_signal(State::StopSigterm, ServiceResult::Success);
        }
    }

    /// Enters one of the killing states, or goes on when there is nothing to kill.
    fn enter_signal(&mut self, state: State, result: ServiceResult) {
        self.note(result);
        self.service.phase = None;
        self.service.watchdog_deadline = None;
        self.service.runtime_deadline = None;
        self.service.poll_at = None;
        let mut state = state;
        loop {
            if self.kill(state) {
                let timeout = if state == State::StopWatchdog { self.abort_timeout() } else { self.stop_timeout() };
                self.set(state, timeout);
                return;
            }
            let sigkill = self.config.kill.send_sigkill;
            state = match state {
                State::StopSigterm | State::StopWatchdog if sigkill => State::StopSigkill,
                State::FinalSigterm if sigkill => State::FinalSigkill,
                State::StopSigterm | State::StopWatchdog | State::StopSigkill => return self.enter_stop_post(ServiceResult::Success),
                _ => return self.enter_dead(ServiceResult::Success, true),
            };
        }
    }

    /// Sends the signal of a killing state; false when nobody has to be waited for.
    fn kill(&mut self, state: State) -> bool {
        let kill = &self.config.kill;
        let hard = matches!(state, State::StopSigkill | State::FinalSigkill);
        let signal = match state {
            State::StopSigkill | State::FinalSigkill => kill.final_signal,
            State::StopWatchdog => kill.watchdog_signal,
            _ => kill.signal,
        };
        if kill.mode == KillMode::None {
            return false;
        }
        let main = self.service.main.is_some();
        let control = self.service.control.is_some();
        let group = self.env.populated && (kill.mode == KillMode::ControlGroup || (kill.mode == KillMode::Mixed && hard));
        if !main && !control && !group {
            return false;
        }
        self.actions.push(Action::Kill { main, control, group, signal, hangup: kill.send_sighup && !hard });
        true
    }

    fn enter_stop_post(&mut self, result: ServiceResult) {
        self.note(result);
        if self.run_phase(Phase::StopPost) {
            self.set(State::StopPost, self.stop_timeout());
        } else {
            self.enter_signal(State::FinalSigterm, ServiceResult::Success);
        }
    }

    fn enter_dead(&mut self, result: ServiceResult, allow_restart: bool) {
        self.note(result);
        let service = &mut *self.service;
        service.main = None;
        service.control = None;
        service.phase = None;
        service.watchdog_deadline = None;
        service.runtime_deadline = None;
        service.poll_at = None;
        service.reload_seen = false;
        let again = allow_restart && !service.forbid_restart && should_restart(self.config, service.result, service.main_exit);
        if again {
            let delay = restart_delay(self.config, service.restarts);
            service.restarting = true;
            service.state = State::AutoRestart;
            service.deadline = Some(self.env.now.saturating_add(delay));
        } else {
            let failed = !matches!(service.result, ServiceResult::Success | ServiceResult::ExecCondition);
            service.state = if failed { State::Failed } else { State::Dead };
            service.deadline = None;
        }
        self.actions.push(Action::Release(again));
    }

    // ---- processes

    /// Starts the first command of a phase as control process; false when it has none.
    fn run_phase(&mut self, phase: Phase) -> bool {
        self.service.control = None;
        self.service.phase = None;
        if phase.commands(self.config).is_empty() {
            return false;
        }
        self.service.phase = Some(phase);
        self.service.index = 0;
        self.actions.push(Action::Run(Role::Control, phase, 0));
        true
    }

    /// Starts the next command of the running phase; false when that was the last.
    fn run_next(&mut self, role: Role) -> bool {
        let Some(phase) = self.service.phase else { return false };
        let next = self.service.index.saturating_add(1);
        if phase.commands(self.config).len() <= next {
            return false;
        }
        self.service.index = next;
        self.actions.push(Action::Run(role, phase, next));
        true
    }

    fn ignores_failure(&self) -> bool {
        self.service
            .phase
            .and_then(|phase| phase.commands(self.config).get(self.service.index))
            .is_some_and(|command| command.ignore_failure)
    }

    fn spawn_failed(&mut self, role: Role) {
        match self.service.state {
            State::Condition | State::StartPre | State::Start | State::StartPost => {
                self.enter_signal(State::StopSigterm, ServiceResult::Resources);
            }
            State::Reload => {
                self.service.reload_result = ServiceResult::Resources;
                self.enter_running(ServiceResult::Success);
            }
            State::Stop => self.enter_signal(State::StopSigterm, ServiceResult::Resources),
            State::StopPost => self.enter_signal(State::FinalSigterm, ServiceResult::Resources),
            _ if role == Role::Main => self.enter_dead(ServiceResult::Resources, true),
            _ => {}
        }
    }

    fn exited(&mut self, pid: i32, exit: Exit) {
        match self.service.role(pid) {
            Role::Main => self.main_exited(exit),
            Role::Control => self.control_exited(exit),
            Role::Other => {}
        }
    }

    fn main_exited(&mut self, exit: Exit) {
        self.service.main = None;
        self.service.main_exit = Some(exit);
        let starting = self.service.phase == Some(Phase::Start);
        let single = self.config.exec_start.first().is_some_and(|command| command.ignore_failure);
        let ignored = if starting { self.ignores_failure() } else { single };
        let mut result = judge(exit, self.config, is_daemon(self.config.service_type));
        if ignored {
            result = ServiceResult::Success;
        }
        match self.service.state {
            State::Start if self.config.service_type == ServiceType::Oneshot => {
                if result != ServiceResult::Success {
                    self.enter_signal(State::StopSigterm, result);
                } else if !self.run_next(Role::Main) {
                    self.service.phase = None;
                    self.enter_start_post();
                }
            }
            State::Start => {
                // Before READY=1, or before the exec.
                if result == ServiceResult::Success && matches!(self.config.service_type, ServiceType::Notify | ServiceType::NotifyReload) {
                    result = ServiceResult::Protocol;
                }
                self.enter_signal(State::StopSigterm, result);
            }
            State::StartPost | State::Reload => {
                if self.service.control.is_none() {
                    self.enter_stop(result);
                } else {
                    self.note(result);
                }
            }
            State::Running | State::ReloadNotify => {
                self.service.reload_seen = false;
                if self.config.exit_type == ExitType::Cgroup && self.env.populated {
                    self.note(result);
                } else {
                    self.enter_running(result);
                }
            }
            State::StopWatchdog | State::StopSigterm | State::StopSigkill => {
                self.note(result);
                if self.service.control.is_none() {
                    self.enter_stop_post(ServiceResult::Success);
                }
            }
            State::FinalSigterm | State::FinalSigkill => {
                self.note(result);
                self.final_gone();
            }
            State::Stop | State::StopPost => self.note(result),
            _ => {}
        }
    }

    fn control_exited(&mut self, exit: Exit) {
        self.service.control = None;
        let mut result = judge(exit, self.config, false);
        if self.ignores_failure() {
            result = ServiceResult::Success;
        }
        let fine = result == ServiceResult::Success;
        match self.service.state {
            State::Condition => match exit {
                Exit::Code(1..=254) if !fine => self.enter_signal(State::StopSigterm, ServiceResult::ExecCondition),
                _ if !fine => self.enter_signal(State::StopSigterm, result),
                _ => {
                    if !self.run_next(Role::Control) {
                        self.enter_start_pre();
                    }
                }
            },
            State::StartPre if !fine => self.enter_signal(State::StopSigterm, result),
            State::StartPre => {
                if !self.run_next(Role::Control) {
                    self.enter_start();
                }
            }
            State::Start if !fine => self.enter_signal(State::StopSigterm, result),
            State::Start => {
                self.service.phase = None;
                self.actions.push(Action::FindMain);
            }
            State::StartPost if !fine => self.enter_signal(State::StopSigterm, result),
            State::StartPost => {
                if !self.run_next(Role::Control) {
                    self.service.phase = None;
                    self.enter_running(ServiceResult::Success);
                }
            }
            State::Reload => {
                if !fine || !self.run_next(Role::Control) {
                    self.service.reload_result = result;
                    self.service.phase = None;
                    self.enter_running(ServiceResult::Success);
                }
            }
            State::Stop => {
                if !fine || !self.run_next(Role::Control) {
                    self.enter_signal(State::StopSigterm, result);
                }
            }
            State::StopWatchdog | State::StopSigterm | State::StopSigkill => {
                if self.service.main.is_none() {
                    self.enter_stop_post(ServiceResult::Success);
                }
            }
            State::StopPost => {
                if !fine || !self.run_next(Role::Control) {
                    self.enter_signal(State::FinalSigterm, result);
                }
            }
            State::FinalSigterm | State::FinalSigkill => self.final_gone(),
            _ => {}
        }
    }

    fn final_gone(&mut self) {
        let group = self.config.kill.mode == KillMode::ControlGroup || self.config.kill.mode == KillMode::Mixed;
        if self.service.main.is_none() && self.service.control.is_none() && !(group && self.env.populated) {
            self.enter_dead(ServiceResult::Success, true);
        }
    }

    fn empty(&mut self) {
        if self.service.main.is_some() || self.service.control.is_some() {
            return; // Their ends are reported too, and say more.
        }
        match self.service.state {
            State::Running if !self.good() => self.enter_running(ServiceResult::Success),
            State::Start if self.config.service_type == ServiceType::Forking && self.service.phase.is_none() => {
                self.enter_signal(State::StopSigterm, ServiceResult::Protocol);
            }
            State::StopWatchdog | State::StopSigterm | State::StopSigkill => self.enter_stop_post(ServiceResult::Success),
            State::FinalSigterm | State::FinalSigkill => self.enter_dead(ServiceResult::Success, true),
            _ => {}
        }
    }

    fn found_main(&mut self, pid: Option<i32>) {
        if self.service.state != State::Start || self.service.control.is_some() {
            return;
        }
        match pid {
            Some(pid) => {
                self.service.main = Some(pid);
                self.service.poll_at = None;
                self.enter_start_post();
            }
            None if self.config.pid_file.is_some() && self.env.populated => {
                self.service.poll_at = Some(self.env.now.saturating_add(POLL_PID_FILE));
            }
            None if self.config.pid_file.is_some() => self.enter_signal(State::StopSigterm, ServiceResult::Protocol),
            None => self.enter_start_post(),
        }
    }

    // ---- words and time

    fn notify(&mut self, role: Role, notice: Notice) {
        let allowed = match self.config.notify_access {
            NotifyAccess::None => false,
            NotifyAccess::Main => role == Role::Main,
            NotifyAccess::Exec => role != Role::Other,
            NotifyAccess::All => true,
        };
        if !allowed {
            return;
        }
        if let Some(pid) = notice.main_pid
            && matches!(
                self.service.state,
                State::Start | State::StartPost | State::Running | State::Reload | State::ReloadNotify | State::Stop
            )
        {
            if self.service.control == Some(pid) {
                self.service.control = None;
            }
            self.service.main = Some(pid);
        }
        if let Some(text) = notice.status {
            self.service.status_text = (!text.is_empty()).then_some(text);
        }
        if notice.errno.is_some() {
            self.service.errno = notice.errno;
        }
        if let Some(interval) = notice.watchdog_usec {
            self.service.watchdog_usec = Some(interval);
            self.pet_watchdog();
        }
        if notice.watchdog {
            self.pet_watchdog();
        }
        if let Some(extension) = notice.extend_timeout {
            let until = self.env.now.saturating_add(extension);
            for deadline in [&mut self.service.deadline, &mut self.service.runtime_deadline].into_iter().flatten() {
                *deadline = (*deadline).max(until);
            }
        }
        let notifies = matches!(self.config.service_type, ServiceType::Notify | ServiceType::NotifyReload);
        if notice.reloading {
            self.service.reload_seen = true;
            if self.service.state == State::Running {
                self.set(State::ReloadNotify, self.start_timeout());
            }
        }
        if notice.ready {
            match self.service.state {
                State::Start if notifies && self.service.main.is_some() => {
                    self.service.reload_seen = false;
                    self.enter_start_post();
                }
                State::ReloadNotify if self.service.reload_seen || self.config.service_type != ServiceType::NotifyReload => {
                    self.service.reload_seen = false;
                    if self.config.service_type == ServiceType::NotifyReload && self.run_phase(Phase::Reload) {
                        self.set(State::Reload, self.start_timeout());
                    } else {
                        self.enter_running(ServiceResult::Success);
                    }
                }
                _ => {}
            }
        }
        if notice.stopping && matches!(self.service.state, State::Running | State::ReloadNotify) {
            // It is on its way; give it the time of a stop, without a signal.
            self.service.watchdog_deadline = None;
            self.set(State::StopSigterm, self.stop_timeout());
        }
        if notice.watchdog_trigger {
            self.watchdog_expired();
        }
    }

    fn pet_watchdog(&mut self) {
        let watched = matches!(self.service.state, State::Start | State::StartPost | State::Running | State::Reload | State::ReloadNotify);
        self.service.watchdog_deadline =
            self.service.watchdog(self.config).filter(|_| watched).map(|interval| self.env.now.saturating_add(interval));
    }

    fn watchdog_expired(&mut self) {
        self.service.watchdog_deadline = None;
        if matches!(self.service.state, State::Start | State::StartPost | State::Running | State::Reload | State::ReloadNotify) {
            self.enter_signal(State::StopWatchdog, ServiceResult::Watchdog);
        }
    }

    fn tick(&mut self) {
        let now = self.env.now;
        let due = |at: Option<Usec>| at.is_some_and(|at| at <= now);
        if due(self.service.watchdog_deadline) {
            return self.watchdog_expired();
        }
        if due(self.service.runtime_deadline) {
            self.service.runtime_deadline = None;
            if matches!(self.service.state, State::Running | State::Start | State::StartPost | State::Reload | State::ReloadNotify) {
                return self.enter_stop(ServiceResult::Timeout);
            }
        }
        if due(self.service.deadline) {
            self.service.deadline = None;
            return self.timed_out();
        }
        if due(self.service.poll_at) {
            self.service.poll_at = None;
            self.actions.push(Action::FindMain);
        }
    }

    fn timed_out(&mut self) {
        let sigkill = self.config.kill.send_sigkill;
        let result = ServiceResult::Timeout;
        match self.service.state {
            State::Condition | State::StartPre | State::Start | State::StartPost => {
                let state = match self.config.timeout_start_failure_mode {
                    TimeoutFailureMode::Terminate => State::StopSigterm,
                    TimeoutFailureMode::Abort => State::StopWatchdog,
                    TimeoutFailureMode::Kill => State::StopSigkill,
                };
                self.enter_signal(state, result);
            }
            State::Reload | State::ReloadNotify => {
                if self.service.control.is_some() {
                    let signal = libc::SIGKILL;
                    self.actions.push(Action::Kill { main: false, control: true, group: false, signal, hangup: false });
                    self.service.control = None;
                }
                self.service.phase = None;
                self.service.reload_seen = false;
                self.service.reload_result = result;
                self.enter_running(ServiceResult::Success);
            }
            State::Stop => {
                let state = match self.config.timeout_stop_failure_mode {
                    TimeoutFailureMode::Terminate => State::StopSigterm,
                    TimeoutFailureMode::Abort => State::StopWatchdog,
                    TimeoutFailureMode::Kill => State::StopSigkill,
                };
                self.enter_signal(state, result);
            }
            State::StopSigterm if self.config.timeout_stop_failure_mode == TimeoutFailureMode::Abort => {
                self.enter_signal(State::StopWatchdog, result);
            }
            State::StopSigterm | State::StopWatchdog if sigkill => self.enter_signal(State::StopSigkill, result),
            State::StopSigterm | State::StopWatchdog | State::StopSigkill => self.enter_stop_post(result),
            State::StopPost => self.enter_signal(State::FinalSigterm, result),
            State::FinalSigterm if sigkill => self.enter_signal(State::FinalSigkill, result),
            State::FinalSigterm | State::FinalSigkill => self.enter_dead(result, true),
            State::AutoRestart => self.actions.push(Action::Restart),
            _ => {}
        }
    }

    // ---- small things

    /// Keeps the first thing that went wrong.
    fn note(&mut self, result: ServiceResult) {
        if self.service.result == ServiceResult::Success {
            self.service.result = result;
        }
    }

    fn set(&mut self, state: State, timeout: Option<Usec>) {
        self.service.state = state;
        self.service.deadline = timeout.map(|timeout| self.env.now.saturating_add(timeout));
    }

    fn start_timeout(&self) -> Option<Usec> {
        self.config.timeout_start.map(usec)
    }

    fn stop_timeout(&self) -> Option<Usec> {
        self.config.timeout_stop.map(usec)
    }

    fn abort_timeout(&self) -> Option<Usec> {
        self.config.timeout_abort.map(usec).or_else(|| self.stop_timeout())
    }
}

#[cfg(test)]
#[path = "service_state_tests.rs"]
mod tests;
