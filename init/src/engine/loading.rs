//! From unit files to units and edges, at boot, on demand and at `daemon-reload`.
//!
//! A broken file makes a unit that cannot be started and says why; it never keeps others from loading.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use unit_files::defaults::orders_after;
use unit_files::loader::Loader;
use unit_files::shared::Shared;
use unit_files::specifier::HostFacts;
use unit_files::{Config, DependencyKind, FsSource, LoadState, UnitName};

use super::graph::{Dep, UnitId};
use super::manager::{Kind, Manager, Runtime};
use super::mounts::MountUnit;
use super::path_units::PathUnit;
use super::paths::Paths;
use super::protocol::ActiveState;
use super::restart::StartLimiter;
use super::sockets::SocketUnit;
use super::timers::TimerUnit;
use crate::boot::BootContext;

/// Targets that default dependencies name: they are there even when an image ships no file for them, since without them nothing at
/// all could be started.
const BUILT_IN: [&str; 17] = [
    "basic.target",
    "default.target",
    "emergency.target",
    "local-fs-pre.target",
    "local-fs.target",
    "multi-user.target",
    "network-online.target",
    "network.target",
    "paths.target",
    "remote-fs.target",
    "rescue.target",
    "shutdown.target",
    "sockets.target",
    "swap.target",
    "sysinit.target",
    "timers.target",
    "umount.target",
];

/// The unit files of this host as they were when they were last read.
#[derive(Debug)]
pub(super) struct Files {
    directories: Vec<String>,
    facts: HostFacts,
    loader: Loader<FsSource>,
    shared: Shared,
}

impl Files {
    pub fn new(paths: &Paths, context: &BootContext) -> Self {
        let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        let mut facts = HostFacts {
            host_name,
            machine_id: context.machine_id.clone(),
            boot_id: context.boot_id.clone(),
            kernel_release: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            ..HostFacts::default()
        };
        if let Ok(bytes) = std::fs::read("/etc/os-release").or_else(|_| std::fs::read("/usr/lib/os-release")) {
            facts.set_os_release(&bytes);
        }
        let directories = paths.units.clone();
        let loader = Loader::new(disk(&directories), facts.clone());
        Self { directories, facts, loader, shared: Shared::default() }
    }

    /// Sees what has changed on disk.
    fn refresh(&mut self) {
        self.facts.host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        self.loader = Loader::new(disk(&self.directories), self.facts.clone());
        self.shared = Shared::default();
    }
}

fn disk(directories: &[String]) -> FsSource {
    FsSource::with_search_path(Path::new("/"), directories.to_vec())
}

fn edge(kind: DependencyKind) -> Option<Dep> {
    Some(match kind {
        DependencyKind::Requires => Dep::Requires,
        DependencyKind::Requisite => Dep::Requisite,
        DependencyKind::Wants => Dep::Wants,
        DependencyKind::BindsTo => Dep::BindsTo,
        DependencyKind::PartOf => Dep::PartOf,
        DependencyKind::Upholds => Dep::Upholds,
        DependencyKind::Conflicts => Dep::Conflicts,
        DependencyKind::Before => Dep::Before,
        DependencyKind::After => Dep::After,
        DependencyKind::OnFailure => Dep::OnFailure,
        DependencyKind::OnSuccess => Dep::OnSuccess,
        DependencyKind::PropagatesReloadTo => Dep::PropagatesReloadTo,
        DependencyKind::ReloadPropagatedFrom => Dep::ReloadPropagatedFrom,
        DependencyKind::PropagatesStopTo => Dep::PropagatesStopTo,
        DependencyKind::StopPropagatedFrom => Dep::StopPropagatedFrom,
        DependencyKind::Triggers => Dep::Triggers,
        DependencyKind::TriggeredBy => Dep::TriggeredBy,
        DependencyKind::JoinsNamespaceOf => return None,
    })
}

impl Manager {
    /// The unit of this name, with everything that it leads to; `None` when it is no unit name.
    pub fn load(&mut self, name: &str) -> Option<UnitId> {
        let name = UnitName::parse(name).ok()?;
        let mut todo = Vec::new();
        let mut unit = self.ensure(&name, &mut todo);
        self.load_all(todo);
        let unknown = |manager: &Self, unit| manager.units.get(&unit).is_none_or(|runtime| runtime.def.load_state == LoadState::NotFound);
        if unknown(self, unit) {
            // Its file may be newer than our list of files.
            self.files.refresh();
            self.loaded.remove(&unit);
            let mut todo = Vec::new();
            unit = self.ensure(&name, &mut todo);
            self.load_all(todo);
        }
        Some(unit)
    }

    fn load_all(&mut self, mut todo: Vec<UnitId>) {
        let mut fresh = Vec::new();
        while let Some(unit) = todo.pop() {
            fresh.push(unit);
            let Some(def) = self.units.get(&unit).map(|runtime| Rc::clone(&runtime.def)) else { continue };
            for (kind, other) in def.dependencies.iter() {
                let Some(dep) = edge(kind) else { continue };
                // What is stopped when this starts does not have to exist.
                if other.is_template() {
                    continue;
                }
                let other = self.ensure(other, &mut todo);
                self.graph.add(unit, dep, other);
            }
        }
        for unit in fresh {
            self.target_order(unit);
        }
    }

    /// A target comes after what it pulls in, unless either side says otherwise.
    fn target_order(&mut self, unit: UnitId) {
        let Some(runtime) = self.units.get(&unit) else { return };
        if !matches!(runtime.def.config, Config::Target) || !runtime.def.default_dependencies {
            return;
        }
        let kinds = [Dep::Requires, Dep::Wants, Dep::BindsTo, Dep::Requisite, Dep::Upholds];
        let others: Vec<UnitId> = kinds.into_iter().flat_map(|dep| self.graph.of(unit, dep)).collect();
        for other in others {
            let (Some(target), Some(pulled)) = (self.units.get(&unit), self.units.get(&other)) else { continue };
            if orders_after(&target.def, &pulled.def) && !self.graph.has(other, Dep::After, unit) {
                self.graph.add(unit, Dep::After, other);
            }
        }
    }

    /// Loads one unit, not what it leads to; new ones are added to `todo`.
    fn ensure(&mut self, name: &UnitName, todo: &mut Vec<UnitId>) -> UnitId {
        if let Some(unit) = self.graph.find(name.as_str())
            && self.loaded.contains(&unit)
        {
            return unit;
        }
        let mut def = self.files.loader.load(name);
        self.files.shared.share(&mut def);
        if def.load_state == LoadState::NotFound && BUILT_IN.contains(&def.name.as_str()) {
            def.load_state = LoadState::Loaded;
            def.load_error = None;
            def.description = def.name.as_str().to_owned();
            def.default_dependencies = false;
            def.allow_isolate = true;
        }
        let canonical = def.name.as_str().to_owned();
        let unit = self.graph.intern(&canonical);
        self.graph.alias(name.as_str(), unit);
        for alias in &def.aliases {
            self.graph.alias(alias.as_str(), unit);
        }
        if !self.loaded.insert(unit) {
            return unit;
        }
        let unknown = def.load_state == LoadState::NotFound;
        if let Some(why) = def.load_error.as_ref().filter(|_| !unknown) {
            self.reporter.problem(&canonical, why);
        } else if let Some(refusal) = def.refusal() {
            self.reporter.problem(&canonical, &refusal.to_string());
        }
        match self.units.get_mut(&unit) {
            Some(runtime) => {
                // A unit whose file has gone while it runs is still stopped the way it was started.
                if def.load_state != LoadState::Loaded && !matches!(runtime.active(), ActiveState::Inactive | ActiveState::Failed) {
                    def.config = runtime.def.config.clone();
                }
                runtime.def = Rc::new(def);
            }
            None => {
                let kind = match &def.config {
                    Config::Service(_) => Kind::Service(Box::default()),
                    Config::Socket(_) => Kind::Socket(Box::<SocketUnit>::default()),
                    Config::Mount(config) => Kind::Mount(Box::new(MountUnit::new(&config.mount_point))),
                    Config::Timer(_) => Kind::Timer(Box::<TimerUnit>::default()),
                    Config::Path(_) => Kind::Path(Box::<PathUnit>::default()),
                    _ => Kind::Simple(false),
                };
                let runtime = Runtime {
                    def: Rc::new(def),
                    kind,
                    since: (0, 0),
                    activating_at: None,
                    active_at: None,
                    inactive_at: None,
                    invocation: String::new(),
                    condition_failed: None,
                    limiter: StartLimiter::default(),
                    cgroup: None,
                    watches: Vec::new(),
                    stored_fds: Vec::new(),
                    oom_kills: 0,
                    connection: None,
                    transient: false,
                };
                self.units.insert(unit, Box::new(runtime));
                self.adopt_mount(unit);
            }
        }
        todo.push(unit);
        unit
    }

    /// Reads all unit files again; states, processes and jobs stay.
    pub fn daemon_reload(&mut self) {
        let names: Vec<String> = self
            .units
            .iter()
            .filter(|(unit, runtime)| {
                !matches!(runtime.active(), ActiveState::Inactive)
                    || self.queue.get(**unit).is_some()
                    || runtime.def.load_state == LoadState::Loaded
            })
            .map(|(unit, _)| self.graph.name(*unit).to_owned())
            .collect();
        self.files.refresh();
        self.graph.clear_edges();
        self.loaded.clear();
        let mut todo = Vec::new();
        for name in names.iter().chain([&self.paths.default_unit.clone()]) {
            if let Ok(name) = UnitName::parse(name) {
                self.ensure(&name, &mut todo);
            }
        }
        self.load_all(todo);
        // What nothing mentions any more and does not run is forgotten.
        let loaded = &self.loaded;
        self.units.retain(|unit, runtime| loaded.contains(unit) || !matches!(runtime.active(), ActiveState::Inactive));
        self.refresh_cgroups();
        self.timers_again();
        self.reporter.unit("", 6, "unit files were read again");
    }

    fn refresh_cgroups(&mut self) {
        for runtime in self.units.values() {
            if let (Some(relative), Some(config)) = (&runtime.cgroup, runtime.def.cgroup()) {
                let path: PathBuf = self.paths.cgroups.join(relative);
                if path.is_dir() {
                    self.cgroups.apply(&path, config);
                }
            }
        }
    }
}
