//! The control socket: who asks, what, and the lines that go back. Nobody who asks can make PID 1 wait.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::graph::UnitId;
use super::jobs::Finished;
use super::manager::{Manager, now};
use super::pattern;
use super::poller::{Ready, Source};
use super::protocol::{ErrorCode, JobInfo, JobMode, JobResult, MAX_REQUEST, PowerAction, Reply, Request, Verb, Whom};
use super::restart::Usec;
use super::transaction::{TransactionError, Unloadable};
use crate::shutdown::ShutdownKind;

/// How many may be connected.
const MAX_CLIENTS: usize = 128;
/// How long one may take to say what it wants.
const PATIENCE: Usec = 5_000_000;
/// How much may wait to be read by one.
const MAX_BACKLOG: usize = 8 * 1024 * 1024;

/// The listening socket and those who are connected.
#[derive(Debug)]
pub(super) struct Control {
    listener: OwnedFd,
    clients: BTreeMap<u32, Client>,
    last: u32,
}

#[derive(Debug)]
struct Client {
    fd: OwnedFd,
    uid: u32,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Jobs that it waits for.
    jobs: BTreeSet<u32>,
    waits_for_idle: bool,
    asked: bool,
    /// Nothing comes after what is in `output`.
    finished: bool,
    deadline: Usec,
}

impl Control {
    pub fn listen(path: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let _ = std::fs::remove_file(path);
        let listener = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        net::bind(&listener, &SocketAddrUnix::new(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        net::listen(&listener, 64)?;
        Ok(Self { listener, clients: BTreeMap::new(), last: 0 })
    }

    pub fn listener(&self) -> &OwnedFd {
        &self.listener
    }

    pub fn next_deadline(&self) -> Option<Usec> {
        self.clients.values().filter(|client| !client.asked || client.finished).map(|client| client.deadline).min()
    }
}

/// What a request leads to.
enum Outcome {
    /// These lines, the last one last.
    Lines(Vec<Reply>),
    /// These lines now, and more when jobs end.
    Wait(Vec<Reply>, BTreeSet<u32>),
    /// A line when the queue is empty.
    WaitIdle,
}

fn done() -> Reply {
    Reply::Done { warnings: Vec::new() }
}

fn refuse(code: ErrorCode, message: impl Into<String>) -> Outcome {
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
    pub fn accept_control(&mut self) {
        while let Ok(fd) = net::accept_with(&self.control.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            if self.control.clients.len() >= MAX_CLIENTS {
                continue;
            }
            let Ok(who) = sockopt::socket_peercred(&fd) else { continue };
            self.control.last = self.control.last.wrapping_add(1);
            let id = self.control.last;
            if self.poller.add(&fd, Source::ControlClient(id)).is_err() {
                continue;
            }
            let client = Client {
                fd,
                uid: who.uid.as_raw(),
                input: Vec::new(),
                output: Vec::new(),
                jobs: BTreeSet::new(),
                waits_for_idle: false,
                asked: false,
                finished: false,
                deadline: now().saturating_add(PATIENCE),
            };
            self.control.clients.insert(id, client);
        }
    }

    pub fn serve_control(&mut self, id: u32, ready: Ready) {
        if ready.writable {
            self.flush_control(id);
        }
        let Some(client) = self.control.clients.get_mut(&id) else { return };
        let mut buffer = [0_u8; 4096];
        let mut gone = ready.hangup;
        loop {
            match net::recv(&client.fd, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    gone = true;
                    break;
                }
                // What comes after the request is nobody's business.
                Ok((length, _)) if !client.asked && client.input.len() < MAX_REQUEST => {
                    client.input.extend_from_slice(buffer.get(..length).unwrap_or_default());
                }
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(_) => {
                    gone = true;
                    break;
                }
            }
        }
        let line = client.input.iter().position(|byte| *byte == b'\n').filter(|_| !client.asked);
        if let Some(end) = line {
            client.asked = true;
            let text = client.input.get(..end).unwrap_or_default().to_vec();
            client.input = Vec::new();
            let uid = client.uid;
            let outcome = match serde_json::from_slice::<Request>(&text) {
                Err(why) => refuse(ErrorCode::BadRequest, format!("not a request: {why}")),
                Ok(request) if request.changes() && uid != 0 && uid != rustix::process::getuid().as_raw() => {
                    refuse(ErrorCode::AccessDenied, "only root may do this")
                }
                Ok(request) => self.answer(request),
            };
            self.deliver(id, outcome);
        } else if !client.asked && client.input.len() >= MAX_REQUEST {
            client.asked = true;
            self.deliver(id, refuse(ErrorCode::BadRequest, "the request is too long"));
        }
        let waiting = self.control.clients.get(&id).is_some_and(|client| !client.output.is_empty());
        if gone && !waiting {
            self.drop_client(id);
        }
    }

    fn deliver(&mut self, id: u32, outcome: Outcome) {
        match outcome {
            Outcome::Lines(lines) => self.send(id, &lines),
            Outcome::Wait(lines, jobs) => {
                if let Some(client) = self.control.clients.get_mut(&id) {
                    client.jobs = jobs;
                }
                self.send(id, &lines);
            }
            Outcome::WaitIdle => {
                if let Some(client) = self.control.clients.get_mut(&id) {
                    client.waits_for_idle = true;
                }
            }
        }
    }

    fn send(&mut self, id: u32, lines: &[Reply]) {
        let Some(client) = self.control.clients.get_mut(&id) else { return };
        for line in lines {
            if let Ok(text) = serde_json::to_vec(line) {
                client.output.extend(text);
                client.output.push(b'\n');
            }
            if line.is_last() {
                client.finished = true;
                client.deadline = now().saturating_add(PATIENCE);
            }
        }
        self.flush_control(id);
    }

    fn flush_control(&mut self, id: u32) {
        let Some(client) = self.control.clients.get_mut(&id) else { return };
        while !client.output.is_empty() {
            match net::send(&client.fd, &client.output, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(length) => {
                    client.output.drain(..length.min(client.output.len()));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) if client.output.len() < MAX_BACKLOG => {
                    self.poller.set_writable(client.fd.as_fd(), Source::ControlClient(id), true);
                    return;
                }
                Err(_) => {
                    self.drop_client(id);
                    return;
                }
            }
        }
        if client.finished {
            self.drop_client(id);
        } else {
            self.poller.set_writable(client.fd.as_fd(), Source::ControlClient(id), false);
        }
    }

    fn drop_client(&mut self, id: u32) {
        if let Some(client) = self.control.clients.remove(&id) {
            self.poller.remove(&client.fd, Source::ControlClient(id));
        }
    }

    pub fn control_timeouts(&mut self, now: Usec) {
        let late: Vec<u32> = self
            .control
            .clients
            .iter()
            .filter(|(_, client)| (!client.asked || client.finished) && client.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.drop_client(id);
        }
    }

    /// A job is over: whoever waits for it hears of it.
    pub fn control_job_done(&mut self, end: &Finished) {
        let waiting: Vec<u32> =
            self.control.clients.iter().filter(|(_, client)| client.jobs.contains(&end.job.id)).map(|(id, _)| *id).collect();
        let job = JobInfo {
            id: end.job.id,
            unit: self.name(end.unit),
            kind: end.job.kind.as_str().to_owned(),
            running: end.job.running,
            waits_for: Vec::new(),
        };
        for id in waiting {
            let Some(client) = self.control.clients.get_mut(&id) else { continue };
            client.jobs.remove(&end.job.id);
            let last = client.jobs.is_empty();
            let mut lines = vec![Reply::JobDone { job: job.clone(), result: end.result }];
            if last {
                lines.push(done());
            }
            self.send(id, &lines);
        }
    }

    /// The queue is empty.
    pub fn control_idle(&mut self) {
        let waiting: Vec<u32> = self.control.clients.iter().filter(|(_, client)| client.waits_for_idle).map(|(id, _)| *id).collect();
        if waiting.is_empty() {
            return;
        }
        let lines = [Reply::System(self.system_status()), done()];
        for id in waiting {
            if let Some(client) = self.control.clients.get_mut(&id) {
                client.waits_for_idle = false;
            }
            self.send(id, &lines);
        }
    }

    // ---- requests

    fn answer(&mut self, request: Request) -> Outcome {
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
