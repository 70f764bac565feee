//! What there is to say about units and the machine, for `systemctl`.

use std::collections::{BTreeMap, BTreeSet};

use unit_files::Config;
use unit_files::DependencyKind;

use super::graph::{Dep, UnitId};
use super::jobs::Job;
use super::manager::{Kind, Manager};
use super::pattern;
use super::protocol::{ActiveState, Analysis, JobInfo, LoadState, Order, Reply, SystemStatus, UnitStatus, UnitTiming};
use super::restart::Exit;
use super::sockets::describe;

impl Manager {
    pub fn job_info(&self, unit: UnitId, job: Job) -> JobInfo {
        let waits_for = self.queue.waits_for(&self.graph, unit).into_iter().map(|other| self.name(other)).collect();
        JobInfo { id: job.id, unit: self.name(unit), kind: job.kind.as_str().to_owned(), running: job.running, waits_for }
    }

    fn connections_text(&self, unit: UnitId) -> Option<String> {
        let runtime = self.units.get(&unit)?;
        let (Kind::Socket(socket), Config::Socket(config)) = (&runtime.kind, &runtime.def.config) else { return None };
        config.accept.then(|| format!("Accepted: {}; Connected: {}", socket.accepted, self.connection_count(unit)))
    }

    pub fn sub_state(&self, unit: UnitId) -> String {
        let Some(runtime) = self.units.get(&unit) else { return "dead".to_owned() };
        let text = match &runtime.kind {
            Kind::Service(service) => service.state.as_str(),
            Kind::Socket(socket) => socket.state.as_str(),
            Kind::Mount(mount) => mount.state.as_str(),
            Kind::Timer(timer) => timer.state.as_str(),
            Kind::Path(path) => path.state.as_str(),
            Kind::Simple(false) => "dead",
            Kind::Simple(true) => match &runtime.def.config {
                Config::Device => "plugged",
                Config::Scope(_) => "running",
                _ => "active",
            },
        };
        text.to_owned()
    }

    fn load_state(&self, unit: UnitId) -> LoadState {
        match self.units.get(&unit).map(|runtime| runtime.def.load_state) {
            Some(unit_files::LoadState::Loaded) => LoadState::Loaded,
            Some(unit_files::LoadState::Masked) => LoadState::Masked,
            Some(unit_files::LoadState::BadSetting | unit_files::LoadState::Error) => LoadState::BadSetting,
            Some(unit_files::LoadState::NotFound) | None => LoadState::NotFound,
        }
    }

    /// `processes`: also look into the control group.
    pub fn unit_status(&self, unit: UnitId, processes: bool) -> UnitStatus {
        let name = self.name(unit);
        let runtime = self.units.get(&unit);
        let def = runtime.map(|runtime| &*runtime.def);
        let service = self.service(unit);
        let group = runtime.and_then(|runtime| runtime.cgroup.clone());
        let number = |file: &str| group.as_deref().filter(|_| processes).and_then(|group| self.cgroups.number(group, file));
        let pids = group.as_deref().filter(|_| processes).map(|group| self.cgroups.processes(group)).unwrap_or_default();
        let exit = service.and_then(|service| service.main_exit);
        UnitStatus {
            description: def.map_or_else(|| name.clone(), |def| def.description.clone()),
            load: self.load_state(unit),
            load_error: def.and_then(|def| def.load_error.clone().or_else(|| def.refusal().map(ToString::to_string))),
            path: def.and_then(|def| def.fragment.clone()),
            drop_ins: def.map(|def| def.drop_ins.clone()).unwrap_or_default(),
            warnings: def.map(|def| def.diagnostics.iter().map(ToString::to_string).collect()).unwrap_or_default(),
            active: self.active_state(unit),
            sub: self.sub_state(unit),
            result: service.map_or("success", |service| service.result.as_str()).to_owned(),
            since_usec: runtime.map_or(0, |runtime| runtime.since.1),
            job: self.queue.get(unit).map(|job| self.job_info(unit, job)),
            main_pid: service.and_then(|service| service.main).unwrap_or(0),
            control_pid: service.and_then(|service| service.control).unwrap_or(0),
            exit_code: exit.and_then(|exit| if let Exit::Code(code) = exit { Some(code) } else { None }),
            exit_signal: exit.and_then(|exit| if let Exit::Signal(signal) | Exit::Dumped(signal) = exit { Some(signal) } else { None }),
            restarts: service.map_or(0, |service| service.restarts),
            status_text: service.and_then(|service| service.status_text.clone()).or_else(|| self.connections_text(unit)),
            condition_failed: runtime.and_then(|runtime| runtime.condition_failed.clone()),
            triggered_by: self.graph.of(unit, Dep::TriggeredBy).map(|other| self.name(other)).collect(),
            triggers: self.graph.of(unit, Dep::Triggers).map(|other| self.name(other)).collect(),
            next_usec: runtime
                .and_then(|runtime| match &runtime.kind {
                    Kind::Timer(timer) => timer.next,
                    _ => None,
                })
                .map(|at| super::manager::wall().saturating_add(at.saturating_sub(super::manager::now()))),
            documentation: def.map(|def| def.documentation.clone()).unwrap_or_default(),
            memory: number("memory.current"),
            tasks: number("pids.current").or_else(|| (processes && group.is_some()).then_some(pids.len() as u64)),
            cpu_usec: group.as_deref().filter(|_| processes).and_then(|group| self.cgroups.cpu_usec(group)),
            processes: pids.into_iter().take(200).map(|pid| (pid, command_line(pid))).collect(),
            cgroup: group.map(|group| format!("/{group}")),
            name,
        }
    }

    /// systemd's names, as far as programs ask for them.
    pub fn unit_properties(&self, unit: UnitId) -> BTreeMap<String, String> {
        let status = self.unit_status(unit, true);
        let mut out = BTreeMap::new();
        let mut set = |name: &str, value: String| {
            out.insert(name.to_owned(), value);
        };
        set("Id", status.name.clone());
        set("Description", status.description);
        set("LoadState", status.load.as_str().to_owned());
        set("LoadError", status.load_error.unwrap_or_default());
        set("ActiveState", status.active.as_str().to_owned());
        set("SubState", status.sub);
        set("Result", status.result);
        set("MainPID", status.main_pid.to_string());
        set("ControlPID", status.control_pid.to_string());
        set("NRestarts", status.restarts.to_string());
        set("StatusText", status.status_text.unwrap_or_default());
        set("FragmentPath", status.path.unwrap_or_default());
        set("DropInPaths", status.drop_ins.join(" "));
        set("Documentation", status.documentation.join(" "));
        set("ControlGroup", status.cgroup.unwrap_or_default());
        set("Job", status.job.map_or(0, |job| job.id).to_string());
        set("ConditionResult", if status.condition_failed.is_none() { "yes" } else { "no" }.to_owned());
        set("MemoryCurrent", status.memory.map_or_else(|| "[not set]".to_owned(), |value| value.to_string()));
        set("TasksCurrent", status.tasks.map_or_else(|| "[not set]".to_owned(), |value| value.to_string()));
        set("CPUUsageNSec", status.cpu_usec.map_or_else(|| "[not set]".to_owned(), |value| value.saturating_mul(1000).to_string()));
        let (code, number) = match (status.exit_code, status.exit_signal) {
            (Some(code), _) => (1, code),
            (None, Some(signal)) => (2, signal),
            (None, None) => (0, 0),
        };
        set("ExecMainCode", code.to_string());
        set("ExecMainStatus", number.to_string());
        if let Some(runtime) = self.units.get(&unit) {
            let def = &runtime.def;
            let mut names: BTreeSet<&str> = def.aliases.iter().map(|alias| alias.as_str()).collect();
            names.insert(def.name.as_str());
            set("Names", names.into_iter().collect::<Vec<_>>().join(" "));
            set("InvocationID", runtime.invocation.clone());
            set("StateChangeTimestampMonotonic", runtime.since.0.to_string());
            set("InactiveExitTimestampMonotonic", runtime.activating_at.unwrap_or(0).to_string());
            set("ActiveEnterTimestampMonotonic", runtime.active_at.unwrap_or(0).to_string());
            set("InactiveEnterTimestampMonotonic", runtime.inactive_at.unwrap_or(0).to_string());
            set("AllowIsolate", yes(def.allow_isolate));
            set("RefuseManualStart", yes(def.refuse_manual_start));
            set("RefuseManualStop", yes(def.refuse_manual_stop));
            set("DefaultDependencies", yes(def.default_dependencies));
            set("CanStart", yes(!def.refuse_manual_start));
            set("CanStop", yes(!def.refuse_manual_stop));
            set("CanReload", yes(super::transaction::World::can_reload(self, unit)));
            set("NeedDaemonReload", "no".to_owned());
            for kind in DependencyKind::ALL {
                let names: Vec<&str> = def.dependencies.get(kind).map(|name| name.as_str()).collect();
                set(kind.as_str(), names.join(" "));
            }
            for (property, dep) in [
                ("WantedBy", Dep::WantedBy),
                ("RequiredBy", Dep::RequiredBy),
                ("BoundBy", Dep::BoundBy),
                ("ConsistsOf", Dep::ConsistsOf),
                ("TriggeredBy", Dep::TriggeredBy),
                ("Before", Dep::Before),
                ("After", Dep::After),
                ("ConflictedBy", Dep::ConflictedBy),
            ] {
                let names: Vec<&str> = self.graph.of(unit, dep).map(|other| self.graph.name(other)).collect();
                set(property, names.join(" "));
            }
            if let Kind::Timer(timer) = &runtime.kind {
                let (now, wall) = (super::manager::now(), super::manager::wall());
                let next = timer.next.map_or(0, |at| wall.saturating_add(at.saturating_sub(now)));
                set("NextElapseUSecRealtime", next.to_string());
                set("LastTriggerUSec", timer.last.unwrap_or(0).to_string());
            }
            if let Kind::Socket(socket) = &runtime.kind {
                set("NAccepted", socket.accepted.to_string());
                set("NConnections", self.connection_count(unit).to_string());
            }
            if let Some(config) = def.service() {
                let word = |value: Result<serde_json::Value, serde_json::Error>| {
                    value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
                };
                set("Type", word(serde_json::to_value(config.service_type)));
                set("Restart", word(serde_json::to_value(config.restart)));
                set("NotifyAccess", word(serde_json::to_value(config.notify_access)));
                set("KillMode", word(serde_json::to_value(config.kill.mode)));
                set("RemainAfterExit", yes(config.remain_after_exit));
                set("RestartUSec", config.restart_delay.as_micros().to_string());
                set("PIDFile", config.pid_file.clone().unwrap_or_default());
                set("User", config.exec.user.clone().unwrap_or_default());
                set("Group", config.exec.group.clone().unwrap_or_default());
                set("ExecStart", config.exec_start.iter().map(|command| command.argv.join(" ")).collect::<Vec<_>>().join(" ; "));
                set("Slice", config.cgroup.slice.as_ref().map_or("system.slice", |slice| slice.as_str()).to_owned());
            }
        }
        out
    }

    pub fn system_status(&self) -> SystemStatus {
        let failed: Vec<String> =
            self.units.keys().filter(|unit| self.active_state(**unit) == ActiveState::Failed).map(|unit| self.name(*unit)).collect();
        let maintenance = ["rescue.target", "emergency.target"]
            .iter()
            .any(|name| self.graph.find(name).is_some_and(|unit| self.active_state(unit) == ActiveState::Active));
        let state = if !self.power.is_none() {
            "stopping"
        } else if maintenance {
            "maintenance"
        } else if self.finished_at.is_none() {
            "starting"
        } else if failed.is_empty() {
            "running"
        } else {
            "degraded"
        };
        SystemStatus {
            state: state.to_owned(),
            failed,
            jobs: u32::try_from(self.queue.len()).unwrap_or(u32::MAX),
            units: u32::try_from(self.units.len()).unwrap_or(u32::MAX),
            version: self.record.version.clone(),
            slot: self.record.slot.clone(),
            boot: self.health.verdict.map(str::to_owned),
            uptime: crate::sys::time::uptime(),
        }
    }

    pub fn system_properties(&self) -> BTreeMap<String, String> {
        let status = self.system_status();
        BTreeMap::from([
            ("Version".to_owned(), status.version),
            ("SystemState".to_owned(), status.state),
            ("NFailedUnits".to_owned(), status.failed.len().to_string()),
            ("NJobs".to_owned(), status.jobs.to_string()),
            ("NNames".to_owned(), status.units.to_string()),
            ("Virtualization".to_owned(), self.facts.virtualization.clone()),
            (
                "Environment".to_owned(),
                self.environment.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "),
            ),
        ])
    }

    pub fn list_units(&self, all: bool, patterns: &[String]) -> Vec<Reply> {
        let mut found: Vec<UnitId> = self
            .units
            .keys()
            .copied()
            .filter(|unit| patterns.is_empty() || patterns.iter().any(|text| pattern::matches(text, self.graph.name(*unit))))
            .filter(|unit| {
                let idle = self.active_state(*unit) == ActiveState::Inactive && self.queue.get(*unit).is_none();
                // A unit that could not be loaded although its file is there is worth seeing.
                all || !idle || self.load_state(*unit) == LoadState::BadSetting
            })
            .collect();
        found.sort_by(|a, b| self.graph.name(*a).cmp(self.graph.name(*b)));
        let mut lines: Vec<Reply> = found.into_iter().map(|unit| Reply::Unit(Box::new(self.unit_status(unit, false)))).collect();
        lines.push(Reply::Done { warnings: Vec::new() });
        lines
    }

    pub fn list_sockets(&self) -> Vec<Reply> {
        let mut lines = Vec::new();
        for (unit, runtime) in &self.units {
            let Config::Socket(config) = &runtime.def.config else { continue };
            if runtime.active() != ActiveState::Active {
                continue;
            }
            let template = || config.accept.then(|| self.name(*unit).replace(".socket", "@.service"));
            let activates = self.graph.of(*unit, Dep::Triggers).map(|other| self.name(other)).next().or_else(template).unwrap_or_default();
            lines.push(Reply::Socket { unit: self.name(*unit), listen: config.listen.iter().map(describe).collect(), activates });
        }
        lines.push(Reply::Done { warnings: Vec::new() });
        lines
    }

    pub fn list_timers(&self) -> Vec<Reply> {
        let mut lines = Vec::new();
        let (now, wall) = (super::manager::now(), super::manager::wall());
        for (unit, runtime) in &self.units {
            let Kind::Timer(timer) = &runtime.kind else { continue };
            let activates = self.graph.of(*unit, Dep::Triggers).map(|other| self.name(other)).next().unwrap_or_default();
            let next_usec = timer.next.map(|at| wall.saturating_add(at.saturating_sub(now)));
            lines.push(Reply::Timer { unit: self.name(*unit), next_usec, last_usec: timer.last, activates });
        }
        lines.push(Reply::Done { warnings: Vec::new() });
        lines
    }

    pub fn dependency_tree(&self, root: UnitId, reverse: bool, order: Option<Order>, all: bool) -> Vec<Reply> {
        let kinds: &[Dep] = match (order, reverse) {
            (Some(Order::After), _) => &[Dep::After],
            (Some(Order::Before), _) => &[Dep::Before],
            (None, false) => &[Dep::Requires, Dep::Requisite, Dep::BindsTo, Dep::Wants, Dep::Upholds],
            (None, true) => &[Dep::RequiredBy, Dep::RequisiteOf, Dep::BoundBy, Dep::WantedBy, Dep::UpheldBy],
        };
        let children = |unit: UnitId| -> Vec<UnitId> {
            let set: BTreeSet<UnitId> = kinds.iter().flat_map(|dep| self.graph.of(unit, *dep)).collect();
            let mut list: Vec<UnitId> = set.into_iter().collect();
            list.sort_by(|a, b| self.graph.name(*b).cmp(self.graph.name(*a)));
            list
        };
        let mut lines = Vec::new();
        let mut seen = BTreeSet::from([root]);
        let mut todo: Vec<(UnitId, u32)> = children(root).into_iter().map(|unit| (unit, 1)).collect();
        while let Some((unit, depth)) = todo.pop() {
            lines.push(Reply::Dependency { depth, unit: self.name(unit), active: self.active_state(unit) });
            let below = all || self.graph.name(unit).ends_with(".target");
            // Each unit's own tree is shown once: ordering especially has very many paths.
            if below && seen.insert(unit) && lines.len() < 10_000 {
                todo.extend(children(unit).into_iter().map(|unit| (unit, depth.saturating_add(1))));
            }
        }
        lines
    }

    pub fn analysis(&self) -> Analysis {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let usec = |seconds: f64| (seconds.max(0.0) * 1e6) as u64;
        let mut phases: Vec<(String, u64)> = self.record.phases.iter().map(|(name, seconds)| (name.clone(), usec(*seconds))).collect();
        phases.sort_by_key(|(_, at)| *at);
        let units = self
            .units
            .iter()
            .filter_map(|(unit, runtime)| {
                Some(UnitTiming {
                    name: self.name(*unit),
                    activating_usec: runtime.activating_at?,
                    active_usec: runtime.active_at,
                    after: self.graph.of(*unit, Dep::After).map(|other| self.name(other)).collect(),
                })
            })
            .collect();
        Analysis { phases, finished_usec: self.finished_at, complete_usec: self.health.complete_at, units }
    }
}

fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

fn command_line(pid: i32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text: Vec<String> = bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).chars().filter(|c| !c.is_control()).collect())
        .collect();
    if text.is_empty() {
        format!("[{}]", std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim())
    } else {
        text.join(" ")
    }
}
