//! What is asked over the control socket, and what is said to it: jobs, status, signals, power, the environment. Lines alone; `control` sends them.

use std::collections::BTreeSet;

use super::graph::UnitId;
use super::manager::Manager;
use super::pattern;
use super::protocol::{ErrorCode, JobMode, JobResult, PowerAction, Reply, Request, Verb, Whom};
use super::transaction::{TransactionError, Unloadable};
use crate::shutdown::ShutdownKind;

/// What a request leads to.
pub(super) enum Outcome {
    /// These lines, the last one last.
    Lines(Vec<Reply>),
    /// These lines now, and more when jobs end.
    Wait(Vec<Reply>, BTreeSet<u32>),
    /// A line when the queue is empty.
    WaitIdle,
}

pub(super) fn done() -> Reply {
    Reply::Done { warnings: Vec::new() }
}

pub(super) fn refuse(code: ErrorCode, message: impl Into<String>) -> Outcome {
    Outcome::Lines(vec![Reply::Error { code, message: message.into() }])
}

fn code_of(error: &TransactionError) -> ErrorCode {
    match error {
        TransactionError::Unloadable(Unloadable::NotFound(_)) => ErrorCode::NotFound,
        TransactionError::Unloadable(Unloadable::Masked(_)) => ErrorCode::Masked,
        TransactionError::Unloadable(Unloadable::BadSetting(..)) => ErrorCode::BadSetting,
        TransactionError::CannotReload { .. } => ErrorCode::Refused,
        _ => ErrorCode::Conflict,
    }
}

impl Manager {
    /// What a request leads to; what it asks for is begun.
    pub(super) fn answer(&mut self, request: Request) -> Outcome {
        match request {
            Request::Job { verb, units, mode, wait } => self.answer_job(verb, &units, mode, wait),
            Request::Status { units } => self.about(&units, |manager, unit| Some(Reply::Unit(Box::new(manager.unit_status(unit, true))))),
            Request::Show { units } if units.is_empty() => {
                let lines = vec![Reply::Properties { unit: String::new(), properties: self.system_properties() }, done()];
                Outcome::Lines(lines)
            }
            Request::Show { units } => self.about(&units, |manager, unit| {
                Some(Reply::Properties { unit: manager.name(unit), properties: manager.unit_properties(unit) })
            }),
            Request::SystemStatus => Outcome::Lines(vec![Reply::System(self.system_status()), done()]),
            Request::ListUnits { all, patterns } => Outcome::Lines(self.list_units(all, &patterns)),
            Request::ListJobs => {
                let mut lines: Vec<Reply> = self.queue.iter().map(|(unit, job)| Reply::Job(self.job_info(unit, job))).collect();
                lines.push(done());
                Outcome::Lines(lines)
            }
            Request::ListDependencies { unit, reverse, order, all } => {
                let Some(unit) = self.load(&unit) else { return refuse(ErrorCode::BadRequest, format!("{unit} is no unit name")) };
                let mut lines = self.dependency_tree(unit, reverse, order, all);
                lines.push(done());
                Outcome::Lines(lines)
            }
            Request::ListSockets => Outcome::Lines(self.list_sockets()),
            Request::ListTimers => Outcome::Lines(self.list_timers()),
            Request::DaemonReload | Request::DaemonReexec => {
                self.daemon_reload();
                Outcome::Lines(vec![done()])
            }
            Request::ResetFailed { units } => self.reset_failed(&units),
            Request::Kill { units, signal, whom } => self.answer_kill(&units, signal, whom),
            Request::Cancel { jobs } => {
                let jobs = if jobs.is_empty() { self.queue.iter().map(|(_, job)| job.id).collect() } else { jobs };
                self.cancel_jobs(&jobs);
                Outcome::Lines(vec![done()])
            }
            Request::WaitIdle if self.queue.is_empty() => Outcome::Lines(vec![Reply::System(self.system_status()), done()]),
            Request::WaitIdle => Outcome::WaitIdle,
            Request::Power { action, force } => {
                let kind = match action {
                    PowerAction::Poweroff => ShutdownKind::Poweroff,
                    PowerAction::Reboot => ShutdownKind::Reboot,
                    PowerAction::Halt => ShutdownKind::Halt,
                    PowerAction::Kexec => ShutdownKind::Kexec,
                };
                if force > 0 {
                    self.power.immediate(kind);
                } else {
                    self.begin_power(kind, "asked by a user");
                }
                Outcome::Lines(vec![done()])
            }
            Request::Analyze => Outcome::Lines(vec![Reply::Analysis(self.analysis()), done()]),
            Request::SetEnvironment { variables } => {
                for variable in variables {
                    let Some((name, value)) = unit_files::environment::split_assignment(&variable) else {
                        return refuse(ErrorCode::BadRequest, format!("{variable} is not NAME=value"));
                    };
                    self.environment.retain(|(have, _)| have != name);
                    self.environment.push((name.to_owned(), value.to_owned()));
                }
                Outcome::Lines(vec![done()])
            }
            Request::UnsetEnvironment { names } => {
                self.environment.retain(|(have, _)| !names.contains(have));
                Outcome::Lines(vec![done()])
            }
        }
    }

    fn answer_job(&mut self, verb: Verb, names: &[String], mode: JobMode, wait: bool) -> Outcome {
        if !self.power.is_none() && verb != Verb::Stop {
            return refuse(ErrorCode::ShuttingDown, "the machine is going down");
        }
        if names.is_empty() {
            return refuse(ErrorCode::BadRequest, "no unit was named");
        }
        let mut units = Vec::new();
        for name in names {
            if is_pattern(name) {
                units.extend(self.matching(name));
                continue;
            }
            let Some(unit) = self.load(name) else { return refuse(ErrorCode::BadRequest, format!("{name} is no unit name")) };
            let Some(runtime) = self.units.get(&unit) else { continue };
            let starts = matches!(verb, Verb::Start | Verb::Restart | Verb::Isolate);
            if starts && runtime.def.refuse_manual_start {
                return refuse(ErrorCode::Refused, format!("{name} may only be started by other units (RefuseManualStart=)"));
            }
            if matches!(verb, Verb::Stop | Verb::Restart) && runtime.def.refuse_manual_stop {
                return refuse(ErrorCode::Refused, format!("{name} may only be stopped by other units (RefuseManualStop=)"));
            }
            if verb == Verb::Isolate && !runtime.def.allow_isolate {
                return refuse(ErrorCode::Refused, format!("{name} does not allow to be isolated (AllowIsolate=)"));
            }
            let unknown = runtime.def.load_state == unit_files::LoadState::NotFound;
            if unknown && self.active_state(unit) == super::protocol::ActiveState::Inactive {
                return refuse(ErrorCode::NotFound, format!("Unit {name} not found."));
            }
            units.push(unit);
        }
        let jobs = match self.enqueue(verb, &units, mode) {
            Ok(jobs) => jobs,
            Err(why) => return refuse(code_of(&why), why.to_string()),
        };
        let mut lines: Vec<Reply> = Vec::new();
        for (unit, job) in self.queue.iter().filter(|(_, job)| jobs.contains(&job.id)) {
            lines.push(Reply::JobQueued(self.job_info(unit, job)));
        }
        if wait && !lines.is_empty() {
            return Outcome::Wait(lines, jobs.into_iter().collect());
        }
        lines.push(done());
        Outcome::Lines(lines)
    }

    fn about(&mut self, names: &[String], answer: impl Fn(&Self, UnitId) -> Option<Reply>) -> Outcome {
        let mut lines = Vec::new();
        for name in names {
            let units = if is_pattern(name) {
                self.matching(name)
            } else {
                match self.load(name) {
                    Some(unit) => vec![unit],
                    None => return refuse(ErrorCode::BadRequest, format!("{name} is no unit name")),
                }
            };
            lines.extend(units.into_iter().filter_map(|unit| answer(self, unit)));
        }
        lines.push(done());
        Outcome::Lines(lines)
    }

    /// Loaded units whose name matches.
    pub fn matching(&self, pattern_text: &str) -> Vec<UnitId> {
        self.units.keys().copied().filter(|unit| pattern::matches(pattern_text, self.graph.name(*unit))).collect()
    }

    fn reset_failed(&mut self, names: &[String]) -> Outcome {
        let mut units: Vec<UnitId> = if names.is_empty() { self.units.keys().copied().collect() } else { Vec::new() };
        for name in names {
            if is_pattern(name) {
                units.extend(self.matching(name));
            } else if let Some(unit) = self.graph.find(name) {
                units.push(unit);
            } else {
                return refuse(ErrorCode::NotFound, format!("Unit {name} not loaded."));
            }
        }
        for unit in units {
            self.reset_unit(unit);
        }
        Outcome::Lines(vec![done()])
    }

    fn reset_unit(&mut self, unit: UnitId) {
        use super::manager::Kind;
        let Some(runtime) = self.units.get_mut(&unit) else { return };
        runtime.limiter.reset();
        match &mut runtime.kind {
            Kind::Service(service) => service.reset_failed(),
            Kind::Socket(socket) => {
                socket.triggers.reset();
                if socket.state == super::sockets::SocketState::Failed {
                    socket.state = super::sockets::SocketState::Dead;
                }
            }
            Kind::Path(path) => {
                path.triggers.reset();
                if path.state == super::path_units::PathState::Failed {
                    path.state = super::path_units::PathState::Dead;
                }
            }
            Kind::Mount(mount) if mount.state == super::mounts::MountState::Failed => mount.state = super::mounts::MountState::Dead,
            _ => {}
        }
    }

    fn answer_kill(&mut self, names: &[String], signal: i32, whom: Whom) -> Outcome {
        if !(0..=64).contains(&signal) {
            return refuse(ErrorCode::BadRequest, format!("{signal} is no signal"));
        }
        for name in names {
            let units = if is_pattern(name) { self.matching(name) } else { self.graph.find(name).into_iter().collect() };
            if units.is_empty() {
                return refuse(ErrorCode::NotFound, format!("Unit {name} not loaded."));
            }
            for unit in units {
                let (main, control) = self.service(unit).map_or((None, None), |service| (service.main, service.control));
                match whom {
                    Whom::Main => {
                        let Some(pid) = main else { return refuse(ErrorCode::Failed, format!("{name} has no main process")) };
                        let _ = crate::sys::process::kill(pid, signal);
                    }
                    Whom::Control => {
                        let Some(pid) = control else { return refuse(ErrorCode::Failed, format!("{name} has no control process")) };
                        let _ = crate::sys::process::kill(pid, signal);
                    }
                    Whom::All => {
                        if let Some(group) = self.units.get(&unit).and_then(|runtime| runtime.cgroup.clone()) {
                            self.cgroups.kill(&group, signal, &[]);
                        }
                    }
                }
            }
        }
        Outcome::Lines(vec![done()])
    }

    /// Drops jobs by number.
    pub fn cancel_jobs(&mut self, jobs: &[u32]) {
        let units: Vec<UnitId> = self.queue.iter().filter(|(_, job)| jobs.contains(&job.id)).map(|(unit, _)| unit).collect();
        for unit in units {
            self.finish_job(unit, JobResult::Canceled);
        }
    }
}

fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '['])
}
