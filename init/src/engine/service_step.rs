//! The transitions of a service by request: up, down, and the killing in between.

use unit_files::service::{ExitType, KillMode, OomPolicy, ServiceConfig, ServiceType};

use super::restart::{ServiceResult, Usec, restart_delay, should_restart, usec};
use super::service_state::{Action, Env, Event, Phase, Role, Service, State};

/// One event being handled.
pub(super) struct Step<'a> {
    pub service: &'a mut Service,
    pub config: &'a ServiceConfig,
    pub env: Env,
    pub actions: Vec<Action>,
}

impl Step<'_> {
    pub fn event(&mut self, event: Event) {
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

    pub fn start(&mut self) {
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

    pub fn stop(&mut self) {
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

    pub fn reload(&mut self) {
        if !matches!(self.service.state, State::Running | State::Exited) {
            return;
        }
        self.service.reload_result = ServiceResult::Success;
        if self.config.service_type == ServiceType::NotifyReload && self.service.main.is_some() {
            self.service.reload_seen = false;
            self.service.reload_asked = self.env.now;
            self.actions.push(Action::Kill { main: true, control: false, group: false, signal: self.config.reload_signal, hangup: false });
            self.set(State::ReloadNotify, self.start_timeout());
        } else if self.run_phase(Phase::Reload) {
            self.set(State::Reload, self.start_timeout());
        }
    }

    // ---- the way up

    pub fn enter_start_pre(&mut self) {
        if self.run_phase(Phase::StartPre) {
            self.set(State::StartPre, self.start_timeout());
        } else {
            self.enter_start();
        }
    }

    pub fn enter_start(&mut self) {
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

    pub fn spawned_main(&mut self) {
        if self.service.state == State::Start && matches!(self.config.service_type, ServiceType::Simple | ServiceType::Idle) {
            self.enter_start_post();
        }
    }

    pub fn enter_start_post(&mut self) {
        self.pet_watchdog();
        if self.run_phase(Phase::StartPost) {
            self.set(State::StartPost, self.start_timeout());
        } else {
            self.enter_running(ServiceResult::Success);
        }
    }

    pub fn enter_running(&mut self, result: ServiceResult) {
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
    pub fn good(&self) -> bool {
        if self.service.main.is_some() {
            return true;
        }
        let leaderless = self.config.service_type == ServiceType::Forking && self.service.main_exit.is_none();
        (leaderless || self.config.exit_type == ExitType::Cgroup) && self.env.populated
    }

    // ---- the way down

    pub fn enter_stop(&mut self, result: ServiceResult) {
        self.note(result);
        if self.run_phase(Phase::Stop) {
            self.set(State::Stop, self.stop_timeout());
        } else {
            self.enter_signal(State::StopSigterm, ServiceResult::Success);
        }
    }

    /// Enters one of the killing states, or goes on when there is nothing to kill.
    pub fn enter_signal(&mut self, state: State, result: ServiceResult) {
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
    pub fn kill(&mut self, state: State) -> bool {
        let kill = &self.config.kill;
        let hard = matches!(state, State::StopSigkill | State::FinalSigkill);
        let signal = match state {
            State::StopSigkill | State::FinalSigkill => kill.final_signal,
            State::StopWatchdog => kill.watchdog_signal,
            _ if self.env.restarts => kill.restart_signal.unwrap_or(kill.signal),
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

    pub fn enter_stop_post(&mut self, result: ServiceResult) {
        self.note(result);
        if self.run_phase(Phase::StopPost) {
            self.set(State::StopPost, self.stop_timeout());
        } else {
            self.enter_signal(State::FinalSigterm, ServiceResult::Success);
        }
    }

    pub fn enter_dead(&mut self, result: ServiceResult, allow_restart: bool) {
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

    // ---- small things

    /// Keeps the first thing that went wrong.
    pub fn note(&mut self, result: ServiceResult) {
        if self.service.result == ServiceResult::Success {
            self.service.result = result;
        }
    }

    pub fn set(&mut self, state: State, timeout: Option<Usec>) {
        self.service.state = state;
        self.service.deadline = timeout.map(|timeout| self.env.now.saturating_add(timeout));
    }

    pub fn start_timeout(&self) -> Option<Usec> {
        self.config.timeout_start.map(usec)
    }

    pub fn stop_timeout(&self) -> Option<Usec> {
        self.config.timeout_stop.map(usec)
    }

    pub fn abort_timeout(&self) -> Option<Usec> {
        self.config.timeout_abort.map(usec).or_else(|| self.stop_timeout())
    }
}
