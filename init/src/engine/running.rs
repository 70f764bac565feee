//! Jobs at work: what is queued, what runs, and what a change of a unit's state means for the others.

use std::rc::Rc;

use unit_files::unit::EmergencyAction;
use unit_files::{Config, LoadState};

use super::conditions;
use super::graph::{Dep, Graph, UnitId};
use super::jobs::Finished;
use super::manager::{Kind, Manager, now, random_id, wall};
use super::protocol::{ActiveState, JobMode, JobResult, Verb};
use super::restart::{ServiceResult, Usec, usec};
use super::service_state::{Event, State};
use super::transaction::{JobKind, Queued, TransactionError, Unloadable, World, plan};
use crate::shutdown::ShutdownKind;

impl World for Manager {
    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn active(&self, unit: UnitId) -> ActiveState {
        self.active_state(unit)
    }

    fn loadable(&self, unit: UnitId) -> Result<(), Unloadable> {
        let name = || self.name(unit);
        let Some(runtime) = self.units.get(&unit) else { return Err(Unloadable::NotFound(name())) };
        match runtime.def.load_state {
            LoadState::Masked => Err(Unloadable::Masked(name())),
            LoadState::NotFound => Err(Unloadable::NotFound(name())),
            LoadState::BadSetting | LoadState::Error => {
                Err(Unloadable::BadSetting(name(), runtime.def.load_error.clone().unwrap_or_else(|| "it cannot be read".to_owned())))
            }
            LoadState::Loaded => match runtime.def.refusal() {
                Some(refusal) => Err(Unloadable::BadSetting(name(), refusal.to_string())),
                None => Ok(()),
            },
        }
    }

    fn queued(&self, unit: UnitId) -> Option<Queued> {
        self.queue.queued(unit)
    }

    fn ignore_on_isolate(&self, unit: UnitId) -> bool {
        self.units.get(&unit).is_some_and(|runtime| runtime.def.ignore_on_isolate)
    }

    fn can_reload(&self, unit: UnitId) -> bool {
        let Some(service) = self.units.get(&unit).and_then(|runtime| runtime.def.service()) else { return false };
        !service.exec_reload.is_empty() || service.service_type == unit_files::service::ServiceType::NotifyReload
    }
}

impl Manager {
    /// Queues the jobs for a request, and returns the numbers of those for the named units themselves.
    pub fn enqueue(&mut self, verb: Verb, units: &[UnitId], mode: JobMode) -> Result<Vec<u32>, TransactionError> {
        let plan = plan(&*self, verb, units, mode)?;
        for line in &plan.dropped {
            self.reporter.warn(line);
        }
        let replaced = self.queue.install(&plan, mode == JobMode::ReplaceIrreversibly);
        let now = now();
        for (unit, job) in self.queue.iter() {
            let _ = unit;
            self.job_since.entry(job.id).or_insert(now);
        }
        let ids = plan.anchors.iter().filter_map(|unit| self.queue.get(*unit)).map(|job| job.id).collect();
        self.ended(&replaced);
        Ok(ids)
    }

    /// Starts a unit by name on PID 1's own account.
    pub fn start_named(&mut self, name: &str) {
        let Some(unit) = self.load(name) else { return };
        if let Err(why) = self.enqueue(Verb::Start, &[unit], JobMode::Replace) {
            self.reporter.problem(name, &why.to_string());
        }
    }

    /// Queues the boot.
    pub fn start_default(&mut self) {
        let wanted = self.facts.cmdline.value("systemd.unit").map(str::to_owned);
        let short = [("single", "rescue.target"), ("rescue", "rescue.target"), ("emergency", "emergency.target")];
        let short = short.iter().find(|(word, _)| self.paths.machine && self.facts.cmdline.flag(word)).map(|(_, unit)| (*unit).to_owned());
        let rescue = (self.paths.machine && !self.record.rescue.is_empty()).then(|| "garboard-rescue.target".to_owned());
        let default = rescue.or(wanted).filter(|_| self.paths.machine).or(short).unwrap_or_else(|| self.paths.default_unit.clone());
        for name in [default.as_str(), "multi-user.target", "rescue.target", "emergency.target"] {
            let Some(unit) = self.load(name) else { continue };
            match self.enqueue(Verb::Start, &[unit], JobMode::Replace) {
                Ok(_) => {
                    self.startup = self.queue.iter().map(|(_, job)| job.id).collect();
                    return;
                }
                Err(why) => self.reporter.problem(name, &format!("cannot be started at boot: {why}")),
            }
        }
        self.reporter.problem(&default, "nothing can be started");
    }

    /// Runs every job that may, until none may.
    pub fn run_jobs(&mut self) {
        // Each round ends or begins a job; the bound is against a fault in that reasoning, not for normal life.
        for _ in 0..10_000 {
            let mut progress = false;
            for unit in self.queue.runnable(&self.graph) {
                progress |= self.run_job(unit);
            }
            if !progress {
                break;
            }
        }
        if self.queue.is_empty() {
            self.idle_pipe = None;
            self.control_idle();
        }
        if self.finished_at.is_none() && self.startup.is_empty() {
            self.finished_at = Some(now());
            self.record.phase("units");
            if self.paths.machine {
                crate::rcu::relax();
            }
            self.store_record();
        }
    }

    /// Begins a job; false when it has to wait for its unit.
    fn run_job(&mut self, unit: UnitId) -> bool {
        let Some(job) = self.queue.get(unit).filter(|job| !job.running) else { return false };
        let state = self.active_state(unit);
        let restarting = self.service(unit).is_some_and(|service| service.state == State::AutoRestart);
        match job.kind {
            JobKind::Start => match state {
                ActiveState::Active | ActiveState::Reloading => self.finish_job(unit, JobResult::Done),
                ActiveState::Activating if !restarting => {
                    self.queue.begin(unit);
                }
                ActiveState::Deactivating => return false,
                _ => return self.begin_start(unit),
            },
            JobKind::VerifyActive => match state {
                ActiveState::Active | ActiveState::Reloading => self.finish_job(unit, JobResult::Done),
                ActiveState::Activating => return false,
                _ => self.finish_job(unit, JobResult::Failed),
            },
            JobKind::Stop => {
                self.queue.begin(unit);
                match state {
                    ActiveState::Inactive | ActiveState::Failed => self.finish_job(unit, JobResult::Done),
                    ActiveState::Deactivating => {
                        // It must not come back by itself.
                        self.service_event(unit, Event::Stop);
                    }
                    _ => self.stop_unit(unit),
                }
            }
            JobKind::Restart => {
                if matches!(state, ActiveState::Inactive | ActiveState::Failed) {
                    self.queue.restart_to_start(unit);
                    return true;
                }
                self.queue.begin(unit);
                if state != ActiveState::Deactivating {
                    self.stop_unit(unit);
                }
            }
            JobKind::Reload => match state {
                ActiveState::Active => {
                    self.queue.begin(unit);
                    self.service_event(unit, Event::Reload);
                    if self.active_state(unit) == ActiveState::Active {
                        self.finish_job(unit, JobResult::Done);
                    }
                }
                ActiveState::Reloading | ActiveState::Activating => return false,
                _ => self.finish_job(unit, JobResult::Failed),
            },
        }
        true
    }

    fn begin_start(&mut self, unit: UnitId) -> bool {
        let Some(def) = self.units.get(&unit).map(|runtime| Rc::clone(&runtime.def)) else { return false };
        let name = self.name(unit);
        // A unit bound to another that it comes after needs that one up, not only started once.
        let unbound = self.graph.of(unit, Dep::BindsTo).find(|other| {
            self.graph.has(unit, Dep::After, *other) && !matches!(self.active_state(*other), ActiveState::Active | ActiveState::Reloading)
        });
        if let Some(other) = unbound {
            self.reporter.unit(&name, 4, &format!("not started: bound to {}, which is not active", self.name(other)));
            self.finish_job(unit, JobResult::Dependency);
            return true;
        }
        if let Err(why) = conditions::check(&def.conditions, &self.facts) {
            if let Some(runtime) = self.units.get_mut(&unit) {
                runtime.condition_failed = Some(why.clone());
            }
            self.reporter.unit(&name, 6, &format!("skipped: {why} does not hold"));
            if self.service(unit).is_some_and(|service| service.state == State::AutoRestart) {
                self.service_event(unit, Event::Stop);
            }
            self.finish_job(unit, JobResult::Skipped);
            return true;
        }
        if let Err(why) = conditions::check(&def.asserts, &self.facts) {
            self.reporter.problem(&name, &format!("not started: {} does not hold", why.replacen("Condition", "Assert", 1)));
            self.finish_job(unit, JobResult::Assert);
            return true;
        }
        let now = now();
        let Some(runtime) = self.units.get_mut(&unit) else { return false };
        runtime.condition_failed = None;
        let before = runtime.active();
        if !runtime.limiter.allow(now, def.start_limit.interval, def.start_limit.burst) {
            self.queue.begin(unit);
            if let Some(service) = self.service_mut(unit) {
                service.start_limit_hit();
            }
            self.reporter.unit(
                &name,
                3,
                &format!("started {} times in {:?}: not started again", def.start_limit.burst, def.start_limit.interval),
            );
            self.unit_changed(unit, before);
            self.finish_job(unit, JobResult::Failed);
            self.emergency(&name, def.start_limit.action);
            return true;
        }
        runtime.invocation = random_id();
        runtime.activating_at = Some(now);
        self.queue.begin(unit);
        match &def.config {
            Config::Service(_) => {
                self.reporter.unit(&name, 6, &format!("Starting {}...", def.description));
                self.service_event(unit, Event::Start);
            }
            Config::Socket(_) => self.socket_start(unit),
            Config::Mount(_) => self.mount_start(unit),
            Config::Timer(_) => self.timer_start(unit),
            Config::Target | Config::Scope(_) => self.set_simple(unit, true),
            Config::Slice(config) => {
                let relative = super::cgroups::Cgroups::relative(&name, Some(config));
                let _ = self.cgroups.make(&relative, Some(config), None);
                self.set_simple(unit, true);
            }
            Config::Device => {
                if self.device_is_there(unit) {
                    self.set_simple(unit, true);
                }
            }
            Config::Path(_) | Config::Automount(_) | Config::Swap(_) => {
                self.reporter.problem(&name, "units of this kind are not run yet");
                self.finish_job(unit, JobResult::Unsupported);
            }
        }
        true
    }

    fn stop_unit(&mut self, unit: UnitId) {
        match self.units.get(&unit).map(|runtime| &runtime.kind) {
            Some(Kind::Service(_)) => {
                self.service_event(unit, Event::Stop);
                // Nothing may be left that a state change would report: the job is done then.
                if matches!(self.active_state(unit), ActiveState::Inactive | ActiveState::Failed) {
                    self.complete_job(unit);
                }
            }
            Some(Kind::Socket(_)) => self.socket_stop(unit),
            Some(Kind::Mount(_)) => self.mount_stop(unit),
            Some(Kind::Timer(_)) => self.timer_stop(unit),
            Some(Kind::Simple(_)) => self.set_simple(unit, false),
            None => {}
        }
    }

    pub fn set_simple(&mut self, unit: UnitId, active: bool) {
        let before = self.active_state(unit);
        if let Some(runtime) = self.units.get_mut(&unit) {
            runtime.kind = Kind::Simple(active);
        }
        self.unit_changed(unit, before);
    }

    /// Whether the node that a `.device` unit stands for exists.
    pub fn device_is_there(&self, unit: UnitId) -> bool {
        let path = unit_files::UnitName::parse(self.graph.name(unit)).ok().and_then(|name| name.to_path());
        path.is_some_and(|path| std::path::Path::new(&*String::from_utf8_lossy(&path)).exists())
    }

    // ---- what follows from a change

    /// A unit's state is not what it was.
    pub fn unit_changed(&mut self, unit: UnitId, before: ActiveState) {
        let Some(runtime) = self.units.get_mut(&unit) else { return };
        let after = runtime.active();
        let def = Rc::clone(&runtime.def);
        let restarting = matches!(&runtime.kind, Kind::Service(service) if service.state == State::AutoRestart);
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
        if down && left && self.queue.get(unit).is_none_or(|job| job.kind != JobKind::Stop) {
            self.stop_bound(unit);
        }
        for socket in self.graph.of(unit, Dep::TriggeredBy).collect::<Vec<_>>() {
            self.triggered_changed(socket, unit);
        }
        if down && before != after {
            self.stop_unneeded(unit);
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
    fn complete_job(&mut self, unit: UnitId) {
        let Some(job) = self.queue.get(unit).filter(|job| job.running) else { return };
        let state = self.active_state(unit);
        let service = self.service(unit).map(|service| (service.state, service.result, service.reload_result));
        let restarting = matches!(service, Some((State::AutoRestart, ..)));
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

    fn ended(&mut self, ended: &[Finished]) {
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
            let _ = self.enqueue(Verb::Stop, &[other], JobMode::Replace);
        }
        let upheld: Vec<UnitId> =
            self.graph.of(unit, Dep::UpheldBy).filter(|other| self.active_state(*other) == ActiveState::Active).collect();
        if !upheld.is_empty() && self.power.is_none() && self.queue.get(unit).is_none() {
            let _ = self.enqueue(Verb::Start, &[unit], JobMode::Fail);
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

    fn emergency(&mut self, unit: &str, action: EmergencyAction) {
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
        if immediate {
            self.power.immediate(kind);
        }
        self.begin_power(kind, &format!("{unit} asks for it by its unit file"));
    }

    // ---- job timeouts

    fn job_timeout(&self, unit: UnitId) -> Option<Usec> {
        let runtime = self.units.get(&unit)?;
        let device = matches!(runtime.def.config, Config::Device).then_some(90_000_000);
        runtime.def.job_running_timeout.or(runtime.def.job_timeout).map(usec).or(device)
    }

    pub fn next_job_timeout(&self) -> Option<Usec> {
        let mut next = None;
        for (unit, job) in self.queue.iter() {
            let Some(timeout) = self.job_timeout(unit) else { continue };
            let since = self.job_since.get(&job.id).copied().unwrap_or(0);
            let mut at = since.saturating_add(timeout);
            if job.running && matches!(self.units.get(&unit).map(|runtime| &runtime.def.config), Some(Config::Device)) {
                at = at.min(now() + 100_000);
            }
            next = [next, Some(at)].into_iter().flatten().min();
        }
        next
    }

    pub fn job_timeouts(&mut self, now: Usec) {
        let jobs: Vec<(UnitId, u32)> = self.queue.iter().map(|(unit, job)| (unit, job.id)).collect();
        for (unit, id) in jobs {
            let device = matches!(self.units.get(&unit).map(|runtime| &runtime.def.config), Some(Config::Device));
            if device && self.queue.get(unit).is_some_and(|job| job.running) && self.device_is_there(unit) {
                self.set_simple(unit, true);
                continue;
            }
            let Some(timeout) = self.job_timeout(unit) else { continue };
            if self.job_since.get(&id).is_some_and(|since| since.saturating_add(timeout) <= now) {
                let action = self.units.get(&unit).map_or(EmergencyAction::None, |runtime| runtime.def.job_timeout_action);
                self.finish_job(unit, JobResult::Timeout);
                let name = self.name(unit);
                self.emergency(&name, action);
            }
        }
    }
}
