//! `.mount` units: the programs `mount` and `umount` do the work, `/proc/self/mountinfo` says what is so.

use std::collections::BTreeSet;
use std::rc::Rc;

use unit_files::Config;
use unit_files::exec::{ExecCommand, ExecContext};

use super::graph::UnitId;
use super::manager::{Kind, Manager, now};
use super::poller::Source;
use super::protocol::ActiveState;
use super::restart::{Exit, Usec, usec};
use super::spawn::Process;
use crate::sys::process;

/// Where a mount unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum MountState {
    #[default]
    Dead,
    Mounting,
    Mounted,
    Unmounting,
    Failed,
}

impl MountState {
    pub fn active(self) -> ActiveState {
        match self {
            Self::Dead => ActiveState::Inactive,
            Self::Mounting => ActiveState::Activating,
            Self::Mounted => ActiveState::Active,
            Self::Unmounting => ActiveState::Deactivating,
            Self::Failed => ActiveState::Failed,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Mounting => "mounting",
            Self::Mounted => "mounted",
            Self::Unmounting => "unmounting",
            Self::Failed => "failed",
        }
    }
}

/// A mount unit at run time.
#[derive(Debug, Default)]
pub(super) struct MountUnit {
    pub state: MountState,
    /// Where.
    pub path: String,
    pub control: Option<i32>,
    pub deadline: Option<Usec>,
}

impl MountUnit {
    pub fn new(path: &str) -> Self {
        Self { path: path.to_owned(), ..Self::default() }
    }
}

/// Every mount point.
fn mounted() -> BTreeSet<String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let unescape = |field: &str| field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
    text.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect()
}

impl Manager {
    fn mount(&mut self, unit: UnitId) -> Option<&mut MountUnit> {
        match &mut self.units.get_mut(&unit)?.kind {
            Kind::Mount(mount) => Some(mount),
            _ => None,
        }
    }

    /// Hears of every change of the mount table.
    pub fn watch_mounts(&mut self) {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        match rustix::fs::open("/proc/self/mountinfo", flags, rustix::fs::Mode::empty()) {
            Ok(fd) => {
                if self.poller.add(&fd, Source::Mounts).is_ok() {
                    // Kept open for the life of PID 1: closing it would end the watch.
                    let file = std::fs::File::from(fd);
                    self.mount_table = Some(file);
                }
            }
            Err(why) => self.reporter.warn(&format!("cannot watch the mount table: {why}")),
        }
    }

    /// A newly loaded mount unit may be mounted already.
    pub fn adopt_mount(&mut self, unit: UnitId) {
        if let Some(mount) = self.mount(unit)
            && mounted().contains(&mount.path)
        {
            mount.state = MountState::Mounted;
        }
    }

    pub fn mount_start(&mut self, unit: UnitId) {
        let Some(def) = self.units.get(&unit).map(|runtime| Rc::clone(&runtime.def)) else { return };
        let Config::Mount(config) = &def.config else { return };
        if mounted().contains(&config.mount_point) {
            self.set_mount(unit, MountState::Mounted, None);
            return;
        }
        if let Err(why) = std::fs::create_dir_all(&config.mount_point) {
            let name = self.name(unit);
            self.reporter.unit(&name, 4, &format!("cannot make {}: {why}", config.mount_point));
        }
        let mut argv = vec!["mount".to_owned()];
        // Without it, mount(8) mounts a device that cannot be written to read-only.
        argv.extend(config.read_write_only.then(|| "-w".to_owned()));
        if let Some(kind) = &config.file_system {
            argv.extend(["-t".to_owned(), kind.clone()]);
        }
        if !config.options.is_empty() {
            argv.extend(["-o".to_owned(), config.options.clone()]);
        }
        argv.extend([config.what.clone(), config.mount_point.clone()]);
        self.run_mount(unit, argv, MountState::Mounting, config.timeout.map(usec));
    }

    pub fn mount_stop(&mut self, unit: UnitId) {
        let Some(def) = self.units.get(&unit).map(|runtime| Rc::clone(&runtime.def)) else { return };
        let Config::Mount(config) = &def.config else { return };
        if !mounted().contains(&config.mount_point) {
            self.set_mount(unit, MountState::Dead, None);
            return;
        }
        let mut argv = vec!["umount".to_owned()];
        argv.extend(config.lazy_unmount.then(|| "-l".to_owned()));
        argv.extend(config.force_unmount.then(|| "-f".to_owned()));
        argv.push(config.mount_point.clone());
        self.run_mount(unit, argv, MountState::Unmounting, config.timeout.map(usec));
    }

    fn run_mount(&mut self, unit: UnitId, argv: Vec<String>, state: MountState, timeout: Option<Usec>) {
        let program = argv.first().cloned().unwrap_or_default();
        let command = ExecCommand { path: program.clone(), argv, no_expansion: true, ..ExecCommand::default() };
        let context = ExecContext::default();
        match self.spawn(unit, &Process::new(&command, &context)) {
            Ok(pid) => {
                self.set_mount(unit, state, Some(pid));
                if let Some(mount) = self.mount(unit) {
                    mount.deadline = timeout.map(|timeout| now().saturating_add(timeout));
                }
            }
            Err(why) => {
                let name = self.name(unit);
                self.reporter.problem(&name, &format!("cannot run {program}: {why}"));
                self.set_mount(unit, MountState::Failed, None);
            }
        }
    }

    fn set_mount(&mut self, unit: UnitId, state: MountState, control: Option<i32>) {
        let before = self.active_state(unit);
        if let Some(mount) = self.mount(unit) {
            mount.state = state;
            mount.control = control;
            mount.deadline = None;
        }
        if matches!(state, MountState::Dead | MountState::Failed | MountState::Mounted) {
            self.release_cgroup(unit);
        }
        self.unit_changed(unit, before);
    }

    pub fn mount_ended(&mut self, unit: UnitId, pid: i32, exit: Exit) {
        let Some(mount) = self.mount(unit).filter(|mount| mount.control == Some(pid)) else { return };
        let there = mounted().contains(&mount.path);
        let state = match (mount.state, exit) {
            (MountState::Mounting, Exit::Code(0)) if there => MountState::Mounted,
            (MountState::Unmounting, Exit::Code(0)) if !there => MountState::Dead,
            // It could not be unmounted: it is still what it was.
            (MountState::Unmounting, _) if there => {
                let name = self.name(unit);
                self.reporter.problem(&name, "cannot be unmounted");
                self.set_mount(unit, MountState::Mounted, None);
                self.finish_job(unit, super::protocol::JobResult::Failed);
                return;
            }
            (MountState::Unmounting, _) => MountState::Dead,
            _ => MountState::Failed,
        };
        self.set_mount(unit, state, None);
    }

    pub fn mount_timeout(&mut self, unit: UnitId) {
        let Some(mount) = self.mount(unit) else { return };
        mount.deadline = None;
        if let Some(pid) = mount.control {
            let _ = process::kill(pid, libc::SIGKILL);
        }
    }

    /// The mount table has changed: somebody else may have mounted or unmounted something of ours.
    pub fn read_mounts(&mut self) {
        let table = mounted();
        let changed: Vec<(UnitId, MountState)> = self
            .units
            .iter()
            .filter_map(|(unit, runtime)| match &runtime.kind {
                Kind::Mount(mount) if mount.control.is_none() => {
                    let there = table.contains(&mount.path);
                    match (mount.state, there) {
                        (MountState::Mounted, false) => Some((*unit, MountState::Dead)),
                        (MountState::Dead | MountState::Failed, true) => Some((*unit, MountState::Mounted)),
                        _ => None,
                    }
                }
                _ => None,
            })
            .collect();
        for (unit, state) in changed {
            self.set_mount(unit, state, None);
        }
    }
}
