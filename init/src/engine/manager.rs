//! PID 1's state and its loop: one thread, one epoll, nothing that waits.
//!
//! The decisions are made by the pure parts (`transaction`, `jobs`, `service_state`); this and its siblings, each an
//! `impl Manager` with one concern, carry them out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use unit_files::Unit;

use super::cgroups::Cgroups;
use super::conditions::{Facts, virtualization};
use super::connections::Connection;
use super::control::Control;
use super::graph::{Graph, UnitId};
use super::health::Health;
use super::jobs::Queue;
use super::loading::Files;
use super::mounts::MountUnit;
use super::notify;
use super::path_units::PathUnit;
use super::paths::Paths;
use super::poller::{Poller, Ready, Source};
use super::power::PowerState;
use super::protocol::ActiveState;
use super::report::{Reporter, consoles};
use super::restart::{Exit, StartLimiter, Usec};
use super::service_state::{Event, Service};
use super::sockets::SocketUnit;
use super::spawn::ExecPipe;
use super::timers::TimerUnit;
use crate::boot::{BootContext, BootRecord};
use crate::shutdown::ShutdownKind;
use crate::sys::process;

/// What only a kind of unit has at run time.
#[derive(Debug)]
pub(super) enum Kind {
    Service(Box<Service>),
    Socket(Box<SocketUnit>),
    Mount(Box<MountUnit>),
    Timer(Box<TimerUnit>),
    Path(Box<PathUnit>),
    /// Targets, slices, devices: on or off.
    Simple(bool),
}

/// A unit at run time.
#[derive(Debug)]
pub(super) struct Runtime {
    pub def: Rc<Unit>,
    pub kind: Kind,
    /// When it entered its state: monotonic and wall clock.
    pub since: (Usec, u64),
    pub activating_at: Option<Usec>,
    pub active_at: Option<Usec>,
    pub inactive_at: Option<Usec>,
    pub invocation: String,
    pub condition_failed: Option<String>,
    pub limiter: StartLimiter,
    pub cgroup: Option<String>,
    /// Of its control group's `cgroup.events` and `memory.events`.
    pub watches: Vec<i32>,
    pub stored_fds: Vec<(String, OwnedFd)>,
    pub oom_kills: u64,
    /// What it serves, with `Accept=yes`.
    pub connection: Option<Box<Connection>>,
    /// Made for one connection: forgotten when it is over.
    pub transient: bool,
}

impl Runtime {
    pub fn active(&self) -> ActiveState {
        match &self.kind {
            Kind::Service(service) => service.state.active(),
            Kind::Socket(socket) => socket.state.active(),
            Kind::Mount(mount) => mount.state.active(),
            Kind::Timer(timer) => timer.state.active(),
            Kind::Path(path) => path.state.active(),
            Kind::Simple(true) => ActiveState::Active,
            Kind::Simple(false) => ActiveState::Inactive,
        }
    }
}

/// What an inotify watch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// Whether there are processes in a unit's control group.
    Processes(UnitId),
    /// What happens to its memory.
    Memory(UnitId),
}

/// The engine.
pub(super) struct Manager {
    pub paths: Paths,
    pub record: BootRecord,
    pub facts: Facts,
    pub graph: Graph,
    pub units: BTreeMap<UnitId, Box<Runtime>>,
    pub loaded: BTreeSet<UnitId>,
    pub queue: Queue,
    pub job_since: BTreeMap<u32, Usec>,
    pub poller: Poller,
    pub cgroups: Cgroups,
    pub reporter: Reporter,
    pub files: Files,
    pub pids: HashMap<i32, UnitId>,
    pub pipes: BTreeMap<i32, ExecPipe>,
    pub inotify: OwnedFd,
    pub watches: HashMap<i32, Watch>,
    pub notify: OwnedFd,
    pub signals: OwnedFd,
    pub control: Control,
    pub environment: Vec<(String, String)>,
    pub power: PowerState,
    pub health: Health,
    pub started_at: Usec,
    /// Start-up jobs that are not over.
    pub startup: BTreeSet<u32>,
    pub finished_at: Option<Usec>,
    /// Held open while jobs are queued: `Type=idle` services wait for its end.
    pub idle_pipe: Option<OwnedFd>,
    /// Open while the mount table is watched.
    pub mount_table: Option<std::fs::File>,
    /// There once a timer depends on the wall clock.
    pub clock_watch: Option<OwnedFd>,
    pub power_button: Option<crate::shutdown::power_button::PowerButton>,
    pub ctrl_alt_del: StartLimiter,
    /// Units to be forgotten when nothing uses them any more.
    pub garbage: Vec<UnitId>,
    more_children: bool,
}

/// Now, in microseconds of the monotonic clock.
pub(super) fn now() -> Usec {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec / 1000).unwrap_or(0)
}

/// Now, in microseconds since the epoch.
pub(super) fn wall() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec / 1000).unwrap_or(0)
}

/// 128 random bits in hexadecimal.
pub(super) fn random_id() -> String {
    let mut bytes = [0_u8; 16];
    if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK).is_err() {
        // Before the pool is ready; these ids only have to differ from each other.
        bytes = (u128::from(now()) << 64 | u128::from(std::process::id())).to_le_bytes();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const SIGRTMIN: i32 = 34;

impl Manager {
    /// Opens everything that the loop needs.
    ///
    /// # Errors
    /// When one of the few things without which there is no engine cannot be had.
    pub fn new(context: BootContext, paths: Paths) -> std::io::Result<Self> {
        std::fs::create_dir_all(&paths.runtime)?;
        // The log daemon alone may store thousands of streams here. The exec helper gives programs the usual limit.
        let _ = process::set_limit(libc::RLIMIT_NOFILE, Some(65_536), Some(1_048_576));
        let mut signals: Vec<i32> = vec![
            libc::SIGCHLD,
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGHUP,
            libc::SIGPWR,
            libc::SIGWINCH,
            libc::SIGUSR1,
            libc::SIGUSR2,
            libc::SIGPIPE,
        ];
        signals.extend(SIGRTMIN..=SIGRTMIN + 30);
        let signals = process::signal_fd(&signals)?;
        let notify = notify::listen(&paths.notify())?;
        let inotify = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC | rustix::fs::inotify::CreateFlags::NONBLOCK)?;
        let control = Control::listen(&paths.control())?;
        let mut poller = Poller::new()?;
        poller.add(&signals, Source::Signals)?;
        poller.add(&notify, Source::Notify)?;
        poller.add(&inotify, Source::Inotify)?;
        poller.add(control.listener(), Source::ControlListener)?;
        let facts = Facts {
            cmdline: context.cmdline.clone(),
            first_boot: context.record.first_boot,
            virtualization: virtualization(),
            machine_id: context.machine_id.clone(),
        };
        let consoles = if context.consoles.is_empty() { consoles() } else { context.consoles.iter().map(Into::into).collect() };
        let files = Files::new(&paths, &context);
        let health = Health::new(&paths.health);
        let mut manager = Self {
            cgroups: Cgroups::new(&paths.cgroups),
            reporter: Reporter::new(&paths.log_socket, consoles, paths.machine),
            files,
            paths,
            record: context.record,
            facts,
            graph: Graph::default(),
            units: BTreeMap::new(),
            loaded: BTreeSet::new(),
            queue: Queue::default(),
            job_since: BTreeMap::new(),
            poller,
            pids: HashMap::new(),
            pipes: BTreeMap::new(),
            inotify,
            watches: HashMap::new(),
            notify,
            signals,
            control,
            environment: Vec::new(),
            power: PowerState::default(),
            health,
            started_at: now(),
            startup: BTreeSet::new(),
            finished_at: None,
            idle_pipe: None,
            mount_table: None,
            clock_watch: None,
            power_button: context.power_button,
            ctrl_alt_del: StartLimiter::default(),
            garbage: Vec::new(),
            more_children: true,
        };
        if let Some(button) = &manager.power_button {
            let _ = manager.poller.add(button, Source::PowerButton);
        }
        manager.watch_mounts();
        Ok(manager)
    }

    /// Runs until the machine is to go down.
    pub fn run(&mut self) -> ShutdownKind {
        self.start_default();
        loop {
            self.run_jobs();
            self.collect_garbage();
            // After the jobs: the last of them may be what the gate waited for, and no event comes after it.
            self.health_step(now());
            if let Some(kind) = self.power_step() {
                return kind;
            }
            let wait = if self.more_children { Some(0) } else { self.next_deadline().map(|at| at.saturating_sub(now())) };
            let ready = self.poller.wait(wait);
            for event in ready {
                self.dispatch(event);
            }
            if self.more_children {
                self.reap();
            }
            self.tick();
        }
    }

    fn dispatch(&mut self, event: Ready) {
        match event.source {
            Source::Signals => self.read_signals(),
            Source::Notify => self.drain_notify(),
            Source::ControlListener => self.accept_control(),
            Source::ControlClient(id) => self.serve_control(id, event),
            Source::Inotify => self.read_inotify(),
            Source::ExecPipe(pid) => self.read_exec_pipe(pid),
            Source::Socket(unit, _) => self.socket_ready(unit),
            Source::PowerButton => {
                if self.power_button.as_ref().is_some_and(crate::shutdown::power_button::PowerButton::pressed) {
                    self.power_key(ShutdownKind::Poweroff, "the power button was pressed");
                }
            }
            Source::Mounts => self.read_mounts(),
            Source::ClockChange => self.clock_changed(),
            Source::Path(unit) => self.path_ready(unit),
        }
    }

    // ---- signals and children

    fn read_signals(&mut self) {
        let mut buffer = [0_u8; 128 * 16];
        while let Ok(length) = rustix::io::read(&self.signals, &mut buffer) {
            if length == 0 {
                break;
            }
            for record in buffer.get(..length).unwrap_or_default().chunks_exact(128) {
                let number = record.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                self.signal(number);
            }
        }
    }

    fn signal(&mut self, number: i32) {
        match number {
            libc::SIGCHLD => self.more_children = true,
            libc::SIGHUP => self.daemon_reload(),
            libc::SIGINT => {
                if !self.ctrl_alt_del.allow(now(), std::time::Duration::from_secs(2), 7) {
                    self.power.immediate(ShutdownKind::Reboot);
                }
                self.power_key(ShutdownKind::Reboot, "ctrl-alt-del was pressed");
            }
            libc::SIGPWR => self.begin_power(ShutdownKind::Poweroff, "the power is failing"),
            libc::SIGTERM if !self.paths.machine => self.begin_power(ShutdownKind::Halt, "asked by a signal"),
            _ if number < SIGRTMIN => {}
            _ => match number - SIGRTMIN {
                0 => self.start_named("default.target"),
                1 => self.start_named("rescue.target"),
                2 => self.start_named("emergency.target"),
                3 => self.begin_power(ShutdownKind::Halt, "asked by a signal"),
                4 => self.begin_power(ShutdownKind::Poweroff, "asked by a signal"),
                5 => self.begin_power(ShutdownKind::Reboot, "asked by a signal"),
                6 => self.begin_power(ShutdownKind::Kexec, "asked by a signal"),
                13 => self.power.immediate(ShutdownKind::Halt),
                14 => self.power.immediate(ShutdownKind::Poweroff),
                15 => self.power.immediate(ShutdownKind::Reboot),
                16 => self.power.immediate(ShutdownKind::Kexec),
                _ => {}
            },
        }
    }

    /// Takes ended processes away, ours and orphans, a bounded number at a time so that a storm of them does not starve the rest.
    fn reap(&mut self) {
        for _ in 0..256 {
            let Some(ended) = process::peek_ended() else {
                self.more_children = false;
                return;
            };
            // Its last words first: they are attributed by its /proc entry, which goes with the reaping.
            self.drain_notify();
            self.read_exec_pipe(ended.pid);
            let _ = process::reap(ended.pid);
            self.process_ended(ended);
        }
    }

    fn process_ended(&mut self, ended: process::Ended) {
        let exit = match ended.code {
            libc::CLD_EXITED => Exit::Code(ended.status),
            libc::CLD_DUMPED => Exit::Dumped(ended.status),
            _ => Exit::Signal(ended.status),
        };
        self.drop_exec_pipe(ended.pid);
        if self.power.helper_ended(ended.pid)
            || self.power_key_answered(ended.pid, exit)
            || self.health_process_ended(ended.pid, exit == Exit::Code(0))
        {
            return;
        }
        let Some(unit) = self.pids.remove(&ended.pid) else { return };
        match self.units.get(&unit).map(|runtime| &runtime.kind) {
            Some(Kind::Service(_)) => {
                if exit == Exit::Signal(libc::SIGKILL) && self.was_out_of_memory(unit) {
                    self.service_event(unit, Event::OutOfMemory);
                }
                self.service_event(unit, Event::Exited(ended.pid, exit));
            }
            Some(Kind::Mount(_)) => self.mount_ended(unit, ended.pid, exit),
            _ => {}
        }
    }

    // ---- time

    fn next_deadline(&self) -> Option<Usec> {
        let mut next =
            [self.control.next_deadline(), self.power.next_deadline(), self.health_deadline(), self.next_timer(), self.next_job_timeout()]
                .into_iter()
                .flatten()
                .min();
        for runtime in self.units.values() {
            let at = match &runtime.kind {
                Kind::Service(service) => service.next_tick(),
                Kind::Mount(mount) => mount.deadline,
                Kind::Socket(socket) => socket.resume_at,
                _ => None,
            };
            next = [next, at].into_iter().flatten().min();
        }
        next
    }

    fn tick(&mut self) {
        let now = now();
        let due = |at: Option<Usec>| at.is_some_and(|at| at <= now);
        let units: Vec<UnitId> = self
            .units
            .iter()
            .filter(|(_, runtime)| match &runtime.kind {
                Kind::Service(service) => due(service.next_tick()),
                Kind::Mount(mount) => due(mount.deadline),
                Kind::Socket(socket) => due(socket.resume_at),
                _ => false,
            })
            .map(|(unit, _)| *unit)
            .collect();
        for unit in units {
            match self.units.get(&unit).map(|runtime| &runtime.kind) {
                Some(Kind::Service(_)) => self.service_event(unit, Event::Tick),
                Some(Kind::Mount(_)) => self.mount_timeout(unit),
                Some(Kind::Socket(_)) => self.socket_resume(unit),
                _ => {}
            }
        }
        self.timers_step(now);
        self.job_timeouts(now);
        self.control_timeouts(now);
    }

    // ---- small things that all parts use

    pub fn name(&self, unit: UnitId) -> String {
        self.graph.name(unit).to_owned()
    }

    pub fn active_state(&self, unit: UnitId) -> ActiveState {
        self.units.get(&unit).map_or(ActiveState::Inactive, |runtime| runtime.active())
    }

    fn read_inotify(&mut self) {
        use rustix::fs::inotify::Reader;
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut hit = BTreeSet::new();
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            hit.insert(event.wd());
        }
        for descriptor in hit {
            match self.watches.get(&descriptor).copied() {
                Some(Watch::Processes(unit)) => self.cgroup_changed(unit),
                // Not only a process that PID 1 started may be the one that was killed.
                Some(Watch::Memory(unit)) if self.was_out_of_memory(unit) => self.service_event(unit, Event::OutOfMemory),
                Some(Watch::Memory(_)) | None => {}
            }
        }
    }
}
