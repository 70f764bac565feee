//! The control socket: who is connected, and the lines that come and go; what the answers are, is in `answers`. Nobody who asks can make PID 1 wait.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::answers::{Outcome, done, refuse};
use super::jobs::Finished;
use super::manager::{Manager, now};
use super::poller::{Ready, Source};
use super::protocol::{ErrorCode, JobInfo, MAX_REQUEST, Reply, Request};
use super::restart::Usec;

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
}
