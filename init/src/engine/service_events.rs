//! The transitions of a service by what happens to it: ends of processes, messages, time.

use unit_files::service::{ExitType, KillMode, NotifyAccess, ServiceType, TimeoutFailureMode};

use super::restart::{Exit, ServiceResult, Usec, is_daemon, judge};
use super::service_state::{Action, Notice, Phase, Role, State};
use super::service_step::Step;

const POLL_PID_FILE: Usec = 50_000;

#[allow(clippy::collapsible_match, reason = "a guard that starts the next command would hide that it does")]
impl Step<'_> {
    // ---- processes

    /// Starts the first command of a phase as control process; false when it has none.
    pub fn run_phase(&mut self, phase: Phase) -> bool {
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
    pub fn run_next(&mut self, role: Role) -> bool {
        let Some(phase) = self.service.phase else { return false };
        let next = self.service.index.saturating_add(1);
        if phase.commands(self.config).len() <= next {
            return false;
        }
        self.service.index = next;
        self.actions.push(Action::Run(role, phase, next));
        true
    }

    pub fn ignores_failure(&self) -> bool {
        self.service
            .phase
            .and_then(|phase| phase.commands(self.config).get(self.service.index))
            .is_some_and(|command| command.ignore_failure)
    }

    pub fn spawn_failed(&mut self, role: Role) {
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

    pub fn exited(&mut self, pid: i32, exit: Exit) {
        match self.service.role(pid) {
            Role::Main => self.main_exited(exit),
            Role::Control => self.control_exited(exit),
            Role::Other => {}
        }
    }

    pub fn main_exited(&mut self, exit: Exit) {
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

    pub fn control_exited(&mut self, exit: Exit) {
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

    pub fn final_gone(&mut self) {
        let group = self.config.kill.mode == KillMode::ControlGroup || self.config.kill.mode == KillMode::Mixed;
        if self.service.main.is_none() && self.service.control.is_none() && !(group && self.env.populated) {
            self.enter_dead(ServiceResult::Success, true);
        }
    }

    pub fn empty(&mut self) {
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

    pub fn found_main(&mut self, pid: Option<i32>) {
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

    pub fn notify(&mut self, role: Role, notice: Notice) {
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
        // A word about an earlier reload does not answer this one.
        let stale = self.config.service_type == ServiceType::NotifyReload
            && self.service.state == State::ReloadNotify
            && notice.monotonic_usec.is_some_and(|at| at < self.service.reload_asked);
        if notice.reloading && !stale {
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

    pub fn pet_watchdog(&mut self) {
        let watched = matches!(self.service.state, State::Start | State::StartPost | State::Running | State::Reload | State::ReloadNotify);
        self.service.watchdog_deadline =
            self.service.watchdog(self.config).filter(|_| watched).map(|interval| self.env.now.saturating_add(interval));
    }

    pub fn watchdog_expired(&mut self) {
        self.service.watchdog_deadline = None;
        if matches!(self.service.state, State::Start | State::StartPost | State::Running | State::Reload | State::ReloadNotify) {
            self.enter_signal(State::StopWatchdog, ServiceResult::Watchdog);
        }
    }

    pub fn tick(&mut self) {
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

    pub fn timed_out(&mut self) {
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
}
