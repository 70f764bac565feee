//! Jobs at work: from a request to the queue, and from a job to its unit.

use std::rc::Rc;

use unit_files::{Config, LoadState};

use super::conditions;
use super::graph::{Dep, Graph, UnitId};
use super::manager::{Kind, Manager, now, random_id};
use super::power;
use super::protocol::{ActiveState, JobMode, JobResult, Verb};
use super::service_state::{Event, State};
use super::transaction::{JobKind, Queued, TransactionError, Unloadable, World, plan};

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
        let started = units.iter().filter(|unit| plan.jobs.get(unit) == Some(&JobKind::Start));
        // Before anything else that an isolation would stop in an order of its own, and with nothing to bound it.
        if let Some(kind) = started.into_iter().find_map(|unit| power::of_target(self.graph.name(*unit))) {
            self.begin_power(kind, power::TARGET_STARTED);
            return Ok(Vec::new());
        }
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
            self.weigh_units(false);
            if self.paths.machine {
                crate::rcu::relax();
            }
            self.store_record();
            crate::sys::memory::give_back();
        }
    }

    /// `StartupCPUWeight=` and its siblings hold while the machine comes up and while it goes down.
    pub fn weigh_units(&mut self, starting: bool) {
        self.cgroups.set_starting(starting);
        for (unit, runtime) in &self.units {
            let up = !matches!(runtime.active(), ActiveState::Inactive | ActiveState::Failed);
            if let Some(config) = runtime.def.cgroup().filter(|_| up) {
                self.cgroups.weigh(&super::cgroups::Cgroups::relative(self.graph.name(*unit), Some(config)), config);
            }
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
            Config::Path(_) => self.path_start(unit),
            Config::Target | Config::Scope(_) => {
                self.set_simple(unit, true);
                // Another unit has pulled it in.
                if let Some(kind) = power::of_target(&name) {
                    self.begin_power(kind, power::TARGET_STARTED);
                }
            }
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
            Config::Automount(_) | Config::Swap(_) => {
                self.reporter.problem(&name, "units of this kind are not run here");
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
            Some(Kind::Path(_)) => self.path_stop(unit),
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
}
