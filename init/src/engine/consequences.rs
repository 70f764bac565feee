//! What a change of one unit's state, or the end of its job, means for the others.

use std::rc::Rc;

use unit_files::unit::EmergencyAction;

use super::graph::{Dep, UnitId};
use super::jobs::Finished;
use super::manager::{Kind, Manager, now, wall};
use super::protocol::{ActiveState, JobMode, JobResult, Verb};
use super::restart::ServiceResult;
use super::service_state::State;
use super::transaction::JobKind;
use crate::shutdown::ShutdownKind;

fn restarts_direct(def: &unit_files::Unit) -> bool {
    def.service().is_some_and(|service| service.restart_mode == unit_files::service::RestartMode::Direct)
}

impl Manager {
    /// A unit's state is not what it was.
    pub fn unit_changed(&mut self, unit: UnitId, before: ActiveState) {
        let Some(runtime) = self.units.get_mut(&unit) else { return };
        let after = runtime.active();
        let def = Rc::clone(&runtime.def);
        let restarting = matches!(&runtime.kind, Kind::Service(service) if service.state == State::AutoRestart);
        // `RestartMode=direct`: nobody else is to notice that it was down.
        let direct = restarting && restarts_direct(&def);
        let was_up = matches!(before, ActiveState::Active | ActiveState::Reloading);
        let is_up = matches!(after, ActiveState::Active | ActiveState::Reloading);
        let down = matches!(after, ActiveState::Inactive | ActiveState::Failed) || restarting;
        let now = now();
        if before != after {
            runtime.since = (now, wall());
        }
        if is_up && !was_up {
            runtime.active_at = Some(now);
        }
        if down {
            runtime.inactive_at = Some(now);
        }
        if before != after || restarting {
            self.report_change(unit, before, after, restarting);
        }
        self.complete_job(unit);
        self.connection_changed(unit, down);
        if before != after && after == ActiveState::Failed {
            self.trigger(unit, Dep::OnFailure, def.on_failure_job_mode);
            let name = self.name(unit);
            self.emergency(&name, def.failure_action);
        }
        let finished_well = after == ActiveState::Inactive && before != ActiveState::Inactive;
        if finished_well {
            self.trigger(unit, Dep::OnSuccess, def.on_success_job_mode);
            let name = self.name(unit);
            self.emergency(&name, def.success_action);
        }
        let left = was_up || before == ActiveState::Deactivating || before == ActiveState::Activating;
        if down && left && !direct && self.queue.get(unit).is_none_or(|job| job.kind != JobKind::Stop) {
            self.stop_bound(unit);
        }
        for socket in self.graph.of(unit, Dep::TriggeredBy).collect::<Vec<_>>() {
            self.triggered_changed(socket, unit);
        }
        if down && before != after {
            self.stop_unneeded(unit);
        }
        // Its job may have been given up while it started; then nothing else asks whether it may be up.
        if is_up && !was_up {
            self.stop_unbound(unit);
        }
    }

    fn report_change(&mut self, unit: UnitId, before: ActiveState, after: ActiveState, restarting: bool) {
        let Some(runtime) = self.units.get(&unit) else { return };
        let name = self.name(unit);
        let description = runtime.def.description.clone();
        let result = match &runtime.kind {
            Kind::Service(service) => service.result,
            _ => ServiceResult::Success,
        };
        let service = matches!(runtime.kind, Kind::Service(_));
        let how = self.service(unit).and_then(|service| service.main_exit).map(|exit| match exit {
            super::restart::Exit::Code(code) => format!(", exit code {code}"),
            super::restart::Exit::Signal(signal) => format!(", signal {signal}"),
            super::restart::Exit::Dumped(signal) => format!(", signal {signal} with a core dump"),
        });
        let how = how.unwrap_or_default();
        match after {
            ActiveState::Failed => self.reporter.problem(&name, &format!("failed ({}{how})", result.as_str())),
            ActiveState::Active if before != ActiveState::Reloading => self.reporter.unit(&name, 6, &format!("Started {description}.")),
            ActiveState::Inactive if service && before == ActiveState::Activating => {
                self.reporter.unit(&name, 6, &format!("Finished {description}."));
            }
            ActiveState::Inactive => self.reporter.unit(&name, 6, &format!("Stopped {description}.")),
            ActiveState::Activating if restarting => {
                let priority = if result == ServiceResult::Success { 6 } else { 4 };
                self.reporter.unit(&name, priority, &format!("ended ({}{how}); it will be restarted", result.as_str()));
            }
            _ => {}
        }
    }

    /// Ends the unit's running job if its state says so.
    pub fn complete_job(&mut self, unit: UnitId) {
        let Some(job) = self.queue.get(unit).filter(|job| job.running) else { return };
        let state = self.active_state(unit);
        let service = self.service(unit).map(|service| (service.state, service.result, service.reload_result));
        let restarting = matches!(service, Some((State::AutoRestart, ..)));
        let direct = self.units.get(&unit).is_some_and(|runtime| restarts_direct(&runtime.def));
        let result = match (job.kind, state) {
            (JobKind::Start | JobKind::VerifyActive, ActiveState::Active | ActiveState::Reloading) => JobResult::Done,
            (JobKind::Start, ActiveState::Failed) => match service {
                Some((_, ServiceResult::Timeout, _)) => JobResult::Timeout,
                _ => JobResult::Failed,
            },
            (JobKind::Start, ActiveState::Inactive) => match service {
                Some((_, ServiceResult::ExecCondition, _)) => JobResult::Skipped,
                _ => JobResult::Done,
            },
            (JobKind::Start, _) if restarting && direct => return,
            (JobKind::Start, _) if restarting => JobResult::Failed,
            (JobKind::VerifyActive, ActiveState::Inactive | ActiveState::Failed) => JobResult::Failed,
            (JobKind::Stop, ActiveState::Inactive | ActiveState::Failed) => JobResult::Done,
            (JobKind::Restart, ActiveState::Inactive | ActiveState::Failed) => {
                self.queue.restart_to_start(unit);
                return;
            }
            (JobKind::Reload, ActiveState::Active) => match service {
                Some((_, _, ServiceResult::Success)) | None => JobResult::Done,
                Some((_, _, ServiceResult::Timeout)) => JobResult::Timeout,
                Some(_) => JobResult::Failed,
            },
            (JobKind::Reload, ActiveState::Inactive | ActiveState::Failed | ActiveState::Deactivating) => JobResult::Failed,
            _ => return,
        };
        self.finish_job(unit, result);
    }

    /// Ends a job and those that depend on its success.
    pub fn finish_job(&mut self, unit: UnitId, result: JobResult) {
        let ended = self.queue.finish(&self.graph, unit, result);
        self.ended(&ended);
    }

    pub fn ended(&mut self, ended: &[Finished]) {
        for end in ended {
            self.job_since.remove(&end.job.id);
            self.startup.remove(&end.job.id);
            if end.result == JobResult::Dependency {
                let name = self.name(end.unit);
                self.reporter.problem(&name, "not started: something that it requires has failed");
                let mode = self.units.get(&end.unit).map_or_else(Default::default, |runtime| runtime.def.on_failure_job_mode);
                self.trigger(end.unit, Dep::OnFailure, mode);
            }
            if end.result == JobResult::Timeout {
                let name = self.name(end.unit);
                self.reporter.problem(&name, &format!("its {} job took too long", end.job.kind.as_str()));
            }
            if end.result != JobResult::Done && end.job.kind == JobKind::Start {
                // A start that was skipped changes no state, but whoever triggered it has to hear of it.
                for trigger in self.graph.of(end.unit, Dep::TriggeredBy).collect::<Vec<_>>() {
                    self.triggered_changed(trigger, end.unit);
                }
            }
            // What a unit is bound to may have gone while it started; and a unit that did not come up is as good as gone for
            // those bound to it that came up meanwhile.
            self.stop_unbound(end.unit);
            if end.result != JobResult::Done {
                for other in self.graph.of(end.unit, Dep::BoundBy).collect::<Vec<_>>() {
                    self.stop_unbound(other);
                }
            }
            // A start that was skipped or given up leaves the state as it was.
            if self.active_state(end.unit) == ActiveState::Inactive {
                self.connection_changed(end.unit, true);
            }
            self.control_job_done(end);
        }
    }

    fn trigger(&mut self, unit: UnitId, dep: Dep, mode: unit_files::unit::JobMode) {
        let units: Vec<UnitId> = self.graph.of(unit, dep).collect();
        let isolate = mode == unit_files::unit::JobMode::Isolate;
        let mode = match mode {
            unit_files::unit::JobMode::Fail => JobMode::Fail,
            unit_files::unit::JobMode::ReplaceIrreversibly => JobMode::ReplaceIrreversibly,
            unit_files::unit::JobMode::IgnoreDependencies | unit_files::unit::JobMode::IgnoreRequirements => JobMode::IgnoreDependencies,
            _ => JobMode::Replace,
        };
        for other in units {
            let verb = if isolate { Verb::Isolate } else { Verb::Start };
            if let Err(why) = self.enqueue(verb, &[other], mode) {
                let name = self.name(unit);
                self.reporter.problem(&name, &format!("cannot start {}: {why}", self.name(other)));
            }
        }
    }

    /// Units bound to one that went down go down too.
    fn stop_bound(&mut self, unit: UnitId) {
        let bound: Vec<UnitId> = self
            .graph
            .of(unit, Dep::BoundBy)
            .filter(|other| matches!(self.active_state(*other), ActiveState::Active | ActiveState::Reloading | ActiveState::Activating))
            .filter(|other| self.queue.get(*other).is_none_or(|job| !matches!(job.kind, JobKind::Stop | JobKind::Start)))
            .collect();
        for other in bound {
            self.stop_for(other);
        }
        let upheld: Vec<UnitId> =
            self.graph.of(unit, Dep::UpheldBy).filter(|other| self.active_state(*other) == ActiveState::Active).collect();
        if !upheld.is_empty() && self.power.is_none() && self.queue.get(unit).is_none() {
            let _ = self.enqueue(Verb::Start, &[unit], JobMode::Fail);
        }
    }

    /// Stops a unit that has come up while what it is bound to has not, and will not. Devices do not count: nobody starts those of
    /// mounts that were there before PID 1 looked.
    fn stop_unbound(&mut self, unit: UnitId) {
        let up = matches!(self.active_state(unit), ActiveState::Active | ActiveState::Reloading);
        if !up || self.queue.get(unit).is_some() {
            return;
        }
        let gone = self.graph.of(unit, Dep::BindsTo).find(|other| {
            let down = matches!(self.active_state(*other), ActiveState::Inactive | ActiveState::Failed);
            let device = self.units.get(other).is_some_and(|runtime| matches!(runtime.def.config, unit_files::Config::Device));
            down && !device && !self.queue.brings_up(*other)
        });
        if let Some(other) = gone {
            let name = self.name(unit);
            self.reporter.unit(&name, 4, &format!("stopped: bound to {}, which is not active", self.name(other)));
            self.stop_for(unit);
        }
    }

    /// Stops a unit because of what became of another.
    fn stop_for(&mut self, unit: UnitId) {
        if let Err(why) = self.enqueue(Verb::Stop, &[unit], JobMode::Replace) {
            let name = self.name(unit);
            self.reporter.problem(&name, &format!("what it is bound to is down, but it cannot be stopped: {why}"));
        }
    }

    /// `StopWhenUnneeded=`.
    fn stop_unneeded(&mut self, unit: UnitId) {
        let kinds = [Dep::Requires, Dep::Wants, Dep::BindsTo, Dep::Requisite, Dep::Upholds];
        let candidates: Vec<UnitId> = kinds.into_iter().flat_map(|dep| self.graph.of(unit, dep)).collect();
        for other in candidates {
            let asks = self.units.get(&other).is_some_and(|runtime| runtime.def.stop_when_unneeded);
            if !asks || self.active_state(other) != ActiveState::Active || self.queue.get(other).is_some() {
                continue;
            }
            let by = [Dep::RequiredBy, Dep::WantedBy, Dep::BoundBy, Dep::RequisiteOf, Dep::UpheldBy];
            let needed = by.into_iter().flat_map(|dep| self.graph.of(other, dep)).any(|user| {
                !matches!(self.active_state(user), ActiveState::Inactive | ActiveState::Failed) || self.queue.get(user).is_some()
            });
            if !needed {
                let _ = self.enqueue(Verb::Stop, &[other], JobMode::Fail);
            }
        }
    }

    pub fn emergency(&mut self, unit: &str, action: EmergencyAction) {
        let (kind, immediate) = match action {
            EmergencyAction::None => return,
            EmergencyAction::Reboot => (ShutdownKind::Reboot, false),
            EmergencyAction::RebootForce | EmergencyAction::RebootImmediate => (ShutdownKind::Reboot, true),
            EmergencyAction::Poweroff | EmergencyAction::Exit => (ShutdownKind::Poweroff, false),
            EmergencyAction::PoweroffForce | EmergencyAction::PoweroffImmediate | EmergencyAction::ExitForce => {
                (ShutdownKind::Poweroff, true)
            }
            EmergencyAction::Halt => (ShutdownKind::Halt, false),
            EmergencyAction::HaltForce | EmergencyAction::HaltImmediate => (ShutdownKind::Halt, true),
        };
        let why = format!("{unit} asks for it by its unit file");
        if immediate { self.power_at_once(kind, &why) } else { self.begin_power(kind, &why) }
    }
}
