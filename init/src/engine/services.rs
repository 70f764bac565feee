//! Services: carries out what their state machines decide.

use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use unit_files::exec::PreserveMode;
use unit_files::service::{FdStorePreserve, NotifyAccess, ServiceConfig};

use super::graph::{Dep, UnitId};
use super::manager::{Kind, Manager, now};
use super::notify;
use super::protocol::Verb;
use super::restart::Exit;
use super::service_state::{Action, Env, Event, Phase, Role, Service, State};
use super::spawn::Process;
use super::transaction::JobKind;
use crate::sys::process;

/// fds that a unit may store without asking for more.
const MAX_STORED_FDS: u32 = 8192;

impl Manager {
    /// Feeds an event to a service, and its actions' answers, until it is at rest.
    pub fn service_event(&mut self, unit: UnitId, event: Event) {
        let Some(runtime) = self.units.get(&unit) else { return };
        let def = Rc::clone(&runtime.def);
        let Some(config) = def.service() else { return };
        let before = runtime.active();
        let before_state = self.service(unit).map(|service| service.state);
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let populated = self.is_populated(unit);
            let restarts = self.job_kind(unit) == Some(JobKind::Restart);
            let Some(service) = self.service_mut(unit) else { return };
            let actions = service.handle(config, event, Env { now: now(), populated, restarts });
            let main = service.main;
            if let Some(pid) = main {
                self.pids.insert(pid, unit);
            }
            for action in actions {
                if let Some(answer) = self.service_action(unit, config, action) {
                    events.push_back(answer);
                }
            }
        }
        if self.service(unit).map(|service| service.state) != before_state {
            self.unit_changed(unit, before);
        }
    }

    pub fn service(&self, unit: UnitId) -> Option<&Service> {
        match &self.units.get(&unit)?.kind {
            Kind::Service(service) => Some(service),
            _ => None,
        }
    }

    pub fn service_mut(&mut self, unit: UnitId) -> Option<&mut Service> {
        match &mut self.units.get_mut(&unit)?.kind {
            Kind::Service(service) => Some(service),
            _ => None,
        }
    }

    pub fn is_populated(&self, unit: UnitId) -> bool {
        self.units.get(&unit).and_then(|runtime| runtime.cgroup.as_deref()).is_some_and(|relative| self.cgroups.populated(relative))
    }

    fn service_action(&mut self, unit: UnitId, config: &ServiceConfig, action: Action) -> Option<Event> {
        match action {
            Action::Run(role, phase, index) => Some(self.run_command(unit, config, role, phase, index)),
            Action::Kill { main, control, group, signal, hangup } => {
                self.kill_service(unit, main, control, group, signal);
                if hangup {
                    self.kill_service(unit, main, control, group, libc::SIGHUP);
                }
                None
            }
            Action::FindMain => Some(Event::FoundMain(self.find_main(unit, config))),
            Action::Restart => self.auto_restart(unit),
            Action::Release(again) => {
                self.release_service(unit, config, again);
                None
            }
        }
    }

    fn run_command(&mut self, unit: UnitId, config: &ServiceConfig, role: Role, phase: Phase, index: usize) -> Event {
        let Some(command) = phase.commands(config).get(index) else { return Event::SpawnFailed(role) };
        let Some(service) = self.service(unit) else { return Event::SpawnFailed(role) };
        let mut process = Process::new(command, &config.exec);
        process.main = role == Role::Main;
        process.keep_identity = config.permissions_start_only && phase != Phase::Start;
        let mut set = |name: &str, value: String| process.environment.push((name.to_owned(), value));
        if let Some(main) = service.main {
            set("MAINPID", main.to_string());
        }
        let heard = match config.notify_access {
            NotifyAccess::None => false,
            NotifyAccess::Main => role == Role::Main || phase == Phase::Start,
            NotifyAccess::Exec | NotifyAccess::All => true,
        };
        if heard {
            set("NOTIFY_SOCKET", self.paths.notify().to_string_lossy().into_owned());
        }
        if matches!(phase, Phase::Stop | Phase::StopPost) {
            set("SERVICE_RESULT", service.result.as_str().to_owned());
            if let Some(exit) = service.main_exit {
                set("EXIT_CODE", exit.code_word().to_owned());
                let (Exit::Code(number) | Exit::Signal(number) | Exit::Dumped(number)) = exit;
                set("EXIT_STATUS", number.to_string());
            }
        }
        if let Some(peer) = self.connection_peer(unit) {
            set("REMOTE_ADDR", peer.ip().to_string());
            set("REMOTE_PORT", peer.port().to_string());
        }
        if phase == Phase::Start {
            process.watchdog = service.watchdog(config);
            process.idle = config.service_type == unit_files::service::ServiceType::Idle;
            process.listen = true;
            process.non_blocking = config.non_blocking;
            process.sockets = self.fds_for(unit, config);
        }
        let leftover = phase == Phase::Start && index == 0 && role == Role::Main && service.main.is_none() && self.is_populated(unit);
        if leftover {
            let name = self.name(unit);
            let count =
                self.units.get(&unit).and_then(|runtime| runtime.cgroup.as_deref()).map_or(0, |group| self.cgroups.processes(group).len());
            self.reporter.unit(&name, 4, &format!("{count} process(es) of an earlier run are still there and are left alone"));
        }
        match self.spawn(unit, &process) {
            Ok(pid) => Event::Spawned(role, pid),
            Err(why) => {
                let name = self.name(unit);
                self.reporter.problem(&name, &format!("cannot start {}: {why}", command.path));
                Event::SpawnFailed(role)
            }
        }
    }

    /// Sockets of the units that start it, then the fds that it stored.
    fn fds_for(&self, unit: UnitId, config: &ServiceConfig) -> Vec<(String, OwnedFd)> {
        let mut units: Vec<UnitId> = self.graph.of(unit, Dep::TriggeredBy).collect();
        units.extend(config.sockets.iter().filter_map(|name| self.graph.find(name.as_str())));
        units.sort_unstable();
        units.dedup();
        let mut out = Vec::new();
        // A service of one connection has no business with the listening sockets.
        match self.connection_fd(unit) {
            Some(connection) => out.push(connection),
            None => out.extend(units.into_iter().flat_map(|unit| self.socket_fds(unit))),
        }
        let stored = self.units.get(&unit).map(|runtime| runtime.stored_fds.as_slice()).unwrap_or_default();
        out.extend(stored.iter().filter_map(|(name, fd)| Some((name.clone(), fd.try_clone().ok()?))));
        out
    }

    fn kill_service(&mut self, unit: UnitId, main: bool, control: bool, group: bool, signal: i32) {
        let Some(service) = self.service(unit) else { return };
        let mut pids = Vec::new();
        pids.extend(service.main.filter(|_| main));
        pids.extend(service.control.filter(|_| control));
        for pid in &pids {
            if process::kill(*pid, signal).is_ok() && signal != libc::SIGKILL {
                process::wake(*pid);
            }
        }
        if group && let Some(relative) = self.units.get(&unit).and_then(|runtime| runtime.cgroup.clone()) {
            let except = if signal == libc::SIGKILL { Vec::new() } else { pids };
            self.cgroups.kill(&relative, signal, &except);
        }
    }

    fn find_main(&self, unit: UnitId, config: &ServiceConfig) -> Option<i32> {
        let relative = self.units.get(&unit)?.cgroup.as_deref()?;
        let inside = self.cgroups.processes(relative);
        match &config.pid_file {
            Some(path) => {
                // O_NONBLOCK: whoever writes the file may have made it a FIFO.
                let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
                let fd = rustix::fs::open(path.as_str(), flags, rustix::fs::Mode::empty()).ok()?;
                let mut text = String::new();
                std::fs::File::from(fd).take(32).read_to_string(&mut text).ok()?;
                let pid = text.trim().parse::<i32>().ok()?;
                inside.contains(&pid).then_some(pid)
            }
            None if config.guess_main_pid => match inside.as_slice() {
                [only] => Some(*only),
                _ => None,
            },
            None => None,
        }
    }

    /// What kind of job waits for the unit or runs.
    fn job_kind(&self, unit: UnitId) -> Option<JobKind> {
        self.queue.get(unit).map(|job| job.kind)
    }

    /// Starts it again; where that may not or cannot be, the answer ends it.
    fn auto_restart(&mut self, unit: UnitId) -> Option<Event> {
        let name = self.name(unit);
        if !self.power.is_none() {
            // A wrapper of a container that was just told to stop must not bring it back.
            self.reporter.unit(&name, 6, "not restarted: the machine is going down");
            return Some(Event::Stop);
        }
        let count = self.service(unit).map_or(0, |service| service.restarts.saturating_add(1));
        self.reporter.unit(&name, 5, &format!("restarting, for the {count}. time"));
        // With `RestartMode=direct` the job that started it still waits.
        if self.queue.get(unit).is_some_and(|job| job.running && job.kind == JobKind::Start) {
            self.queue.restart_to_start(unit);
            return None;
        }
        if let Err(why) = self.enqueue(Verb::Start, &[unit], super::protocol::JobMode::Replace) {
            self.reporter.problem(&name, &format!("cannot be restarted: {why}"));
            return Some(Event::Stop);
        }
        None
    }

    fn release_service(&mut self, unit: UnitId, config: &ServiceConfig, again: bool) {
        let preserve = match config.exec.runtime_directory_preserve {
            PreserveMode::No => false,
            PreserveMode::Yes => true,
            PreserveMode::Restart => again || self.job_kind(unit) == Some(JobKind::Restart),
        };
        if !preserve {
            let root = self.paths.directories.first().cloned().unwrap_or_default();
            for directory in &config.exec.runtime_directory.paths {
                let plain = std::path::Path::new(&directory.path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
                if plain && !directory.path.is_empty() {
                    let _ = std::fs::remove_dir_all(format!("{root}/{}", directory.path));
                }
            }
        }
        if let Some(path) = &config.pid_file {
            let _ = std::fs::remove_file(path);
        }
        self.remove_leftovers(unit, &config.exec);
        let keep_fds = match config.fd_store_preserve {
            FdStorePreserve::Yes => true,
            FdStorePreserve::No => false,
            FdStorePreserve::Restart => again || matches!(self.job_kind(unit), Some(JobKind::Restart | JobKind::Start)),
        };
        if !keep_fds && let Some(runtime) = self.units.get_mut(&unit) {
            runtime.stored_fds.clear();
        }
        self.release_cgroup(unit);
    }

    /// Whether the kernel has killed something in the unit since it was last asked.
    pub fn was_out_of_memory(&mut self, unit: UnitId) -> bool {
        let Some(runtime) = self.units.get_mut(&unit) else { return false };
        let kills = runtime.cgroup.as_deref().map_or(0, |group| self.cgroups.oom_kills(group));
        let more = kills > runtime.oom_kills;
        runtime.oom_kills = kills;
        more
    }

    // ---- what processes say

    /// Empties the notify socket.
    pub fn drain_notify(&mut self) {
        // Bounded: someone who floods it must not keep PID 1 from everything else.
        for _ in 0..512 {
            let Some(message) = notify::receive(&self.notify) else { return };
            self.notified(message);
        }
    }

    fn notified(&mut self, message: notify::Message) {
        let Some(unit) = self.unit_of_process(message.pid) else { return };
        let Some(service) = self.service(unit) else { return };
        let role = service.role(message.pid);
        let mut words = message.words;
        if let Some(claimed) = words.notice.main_pid
            && self.unit_of_process(claimed) != Some(unit)
        {
            let name = self.name(unit);
            self.reporter.unit(&name, 4, &format!("said MAINPID={claimed}, which is no process of it: ignored"));
            words.notice.main_pid = None;
        }
        self.store_fds(unit, &words, message.fds);
        self.service_event(unit, Event::Notify(role, words.notice));
    }

    fn store_fds(&mut self, unit: UnitId, words: &notify::Words, fds: Vec<OwnedFd>) {
        let Some(runtime) = self.units.get_mut(&unit) else { return };
        let name = words.name.clone().unwrap_or_else(|| "stored".to_owned());
        if words.remove {
            runtime.stored_fds.retain(|(have, _)| *have != name);
        }
        if words.store {
            let max = runtime.def.service().map_or(0, |config| config.fd_store_max).min(MAX_STORED_FDS) as usize;
            for fd in fds {
                if runtime.stored_fds.len() < max {
                    runtime.stored_fds.push((name.clone(), fd));
                }
            }
        }
    }

    /// The unit that a process belongs to: as one that we know, else by its control group.
    pub fn unit_of_process(&self, pid: i32) -> Option<UnitId> {
        if let Some(unit) = self.pids.get(&pid) {
            return Some(*unit);
        }
        let group = self.cgroups.of_process(pid)?;
        // The innermost part that is a unit: a delegated group has others below it.
        group.split('/').rev().find_map(|part| {
            let unit = self.graph.find(part)?;
            let own = self.units.get(&unit)?.cgroup.as_deref()?;
            group.starts_with(own).then_some(unit)
        })
    }

    /// The control group of a unit got its first or lost its last process.
    pub fn cgroup_changed(&mut self, unit: UnitId) {
        if self.is_populated(unit) {
            return;
        }
        // Ends that were not reaped yet say more than that the group is empty.
        let stale = self.service(unit).and_then(|service| service.main).filter(|pid| process::kill(*pid, 0).is_err());
        if let Some(pid) = stale {
            // A main process that was somebody else's child: its end is never reported to us.
            self.pids.remove(&pid);
            self.service_event(unit, Event::Exited(pid, Exit::Code(0)));
        }
        self.service_event(unit, Event::Empty);
        if matches!(self.service(unit).map(|service| service.state), Some(State::Dead | State::Failed | State::AutoRestart)) {
            self.release_cgroup(unit);
        }
    }
}
