//! Starting processes: each is `init exec-helper` in the unit's control group, which becomes the unit's program.
//!
//! PID 1 only makes a memory file, a pipe and one `clone3`; the pid is known before anything can be reaped, since reaping is
//! done by the same thread.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};
use unit_files::exec::{ExecCommand, ExecContext, PrivateTmp};

use super::cgroups::Cgroups;
use super::exec::spec::{Failure, Spec};
use super::exec::{identity, private_tmp_name};
use super::graph::UnitId;
use super::manager::{Manager, Watch};
use super::poller::Source;
use super::service_state::Event;
use crate::sys::process;

/// The pipe on which an exec helper says why it failed.
#[derive(Debug)]
pub(super) struct ExecPipe {
    unit: Option<UnitId>,
    fd: File,
    text: Vec<u8>,
    main: bool,
}

/// What is to be run.
pub(super) struct Process<'a> {
    pub command: &'a ExecCommand,
    pub context: &'a ExecContext,
    pub environment: Vec<(String, String)>,
    pub sockets: Vec<(String, OwnedFd)>,
    pub listen: bool,
    pub non_blocking: bool,
    pub watchdog: Option<u64>,
    pub idle: bool,
    pub main: bool,
    pub keep_identity: bool,
}

impl<'a> Process<'a> {
    /// A plain helper process.
    pub fn new(command: &'a ExecCommand, context: &'a ExecContext) -> Self {
        Self {
            command,
            context,
            environment: Vec::new(),
            sockets: Vec::new(),
            listen: false,
            non_blocking: false,
            watchdog: None,
            idle: false,
            main: false,
            keep_identity: false,
        }
    }
}

impl Manager {
    /// Starts a process of a unit.
    pub fn spawn(&mut self, unit: UnitId, process: &Process<'_>) -> std::io::Result<i32> {
        let name = self.name(unit);
        let relative = self.unit_cgroup(unit)?;
        let relative = self.process_cgroup(unit, relative)?;
        let invocation = self.units.get(&unit).map(|runtime| runtime.invocation.clone()).unwrap_or_default();
        let pid = self.spawn_in(&name, &relative, &invocation, process)?;
        self.pids.insert(pid, unit);
        if let Some(pipe) = self.pipes.get_mut(&pid) {
            pipe.unit = Some(unit);
        }
        Ok(pid)
    }

    /// Starts this program under one of its other names.
    pub fn spawn_self(&mut self, name: &str, args: &[&str]) -> std::io::Result<i32> {
        let path = std::env::current_exe()?.display().to_string();
        let argv = std::iter::once("init").chain(args.iter().copied()).map(str::to_owned).collect();
        let command = ExecCommand { path, argv, no_expansion: true, ..ExecCommand::default() };
        self.spawn_in(name, &format!("system.slice/{name}"), "", &Process::new(&command, &ExecContext::default()))
    }

    /// Starts a process that belongs to no unit, in a control group of its own.
    pub fn spawn_in(&mut self, name: &str, relative: &str, invocation: &str, process: &Process<'_>) -> std::io::Result<i32> {
        let mut environment = self.environment.clone();
        environment.extend(process.context.pass_environment.iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?))));
        environment.extend(process.environment.iter().cloned());
        let mut spec = Spec {
            unit: name.to_owned(),
            command: process.command.clone(),
            context: process.context.clone(),
            environment,
            fd_names: process.sockets.iter().map(|(name, _)| name.clone()).collect(),
            listen: process.listen,
            non_blocking: process.non_blocking,
            watchdog: process.watchdog,
            idle: process.idle,
            invocation: invocation.to_owned(),
            log_stream: self.paths.log_stream.clone(),
            roots: self.paths.directories.clone(),
            join_cgroup: None,
            keep_identity: process.keep_identity,
        };
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        let idle = if process.idle { Some(self.idle_reader()?) } else { None };
        let attempt = |spec: &Spec, cgroup: Option<BorrowedFd<'_>>| -> std::io::Result<i32> {
            let memory = memory_file(spec)?;
            let mut fds = vec![memory.as_fd(), writer.as_fd()];
            fds.extend(idle.as_ref().map(AsFd::as_fd));
            fds.extend(process.sockets.iter().map(|(_, fd)| fd.as_fd()));
            let args = [c"init".to_owned(), c"exec-helper".to_owned()];
            process::spawn(&CString::from(c"/proc/self/exe"), &args, &[], &fds, cgroup)
        };
        let group = self.cgroups.make(relative, None, None);
        let pid = match group.as_ref().map_or(Err(std::io::ErrorKind::NotFound.into()), |group| attempt(&spec, Some(group.as_fd()))) {
            Ok(pid) => pid,
            Err(_) => {
                // A group whose controllers were passed on by the service itself takes no processes; one below it does.
                let below = format!("{relative}/supervisor");
                match self.cgroups.make(&below, None, None).and_then(|group| attempt(&spec, Some(group.as_fd()))) {
                    Ok(pid) => pid,
                    Err(_) => {
                        spec.join_cgroup = group.is_ok().then(|| self.cgroups.procs(relative).to_string_lossy().into_owned());
                        attempt(&spec, None)?
                    }
                }
            }
        };
        drop(writer);
        if self.poller.add(&reader, Source::ExecPipe(pid)).is_ok() {
            self.pipes.insert(pid, ExecPipe { unit: None, fd: File::from(reader), text: Vec::new(), main: process.main });
        }
        Ok(pid)
    }

    /// Where in the unit's control group its processes go: `DelegateSubgroup=` keeps those of a delegated group out of its inner node.
    fn process_cgroup(&self, unit: UnitId, relative: String) -> std::io::Result<String> {
        let Some(runtime) = self.units.get(&unit) else { return Ok(relative) };
        let Some(config) = runtime.def.cgroup().filter(|config| config.delegate.is_on()) else { return Ok(relative) };
        let Some(subgroup) = &config.delegate_subgroup else { return Ok(relative) };
        let below = format!("{relative}/{subgroup}");
        self.cgroups.make_delegated(&below, cgroup_owner(&runtime.def))?;
        Ok(below)
    }

    /// The unit's control group, made and watched.
    fn unit_cgroup(&mut self, unit: UnitId) -> std::io::Result<String> {
        let name = self.name(unit);
        let Some(runtime) = self.units.get_mut(&unit) else { return Err(std::io::ErrorKind::NotFound.into()) };
        let config = runtime.def.cgroup();
        let relative = Cgroups::relative(&name, config);
        if !runtime.watches.is_empty() && runtime.cgroup.as_deref() == Some(relative.as_str()) {
            return Ok(relative);
        }
        self.cgroups.make(&relative, config, cgroup_owner(&runtime.def))?;
        runtime.cgroup = Some(relative.clone());
        for (file, watch) in
            [(self.cgroups.events(&relative), Watch::Processes(unit)), (self.cgroups.memory_events(&relative), Watch::Memory(unit))]
        {
            if let Ok(descriptor) = rustix::fs::inotify::add_watch(&self.inotify, &file, rustix::fs::inotify::WatchFlags::MODIFY) {
                runtime.watches.push(descriptor);
                self.watches.insert(descriptor, watch);
            }
        }
        runtime.oom_kills = self.cgroups.oom_kills(&relative);
        Ok(relative)
    }

    /// Removes what a run of a unit has left: its credentials, and its private `/tmp`, which may be large and on a slow disk.
    pub fn remove_leftovers(&mut self, unit: UnitId, context: &ExecContext) {
        let name = self.name(unit);
        if !context.credentials.is_empty() {
            let [runtime, ..] = &self.paths.directories;
            let _ = std::fs::remove_dir_all(format!("{runtime}/credentials/{name}"));
        }
        if context.private_tmp != PrivateTmp::Connected {
            return;
        }
        let invocation = self.units.get(&unit).map(|runtime| runtime.invocation.clone()).unwrap_or_default();
        let own = private_tmp_name(&name, &invocation);
        let left: Vec<String> = ["/tmp", "/var/tmp"]
            .iter()
            .map(|place| format!("{place}/{own}"))
            .filter(|path| !invocation.is_empty() && std::path::Path::new(path).exists())
            .collect();
        if left.is_empty() {
            return;
        }
        let words = ["rm", "-rf", "--one-file-system", "--"].into_iter().map(str::to_owned);
        let command = ExecCommand { path: "rm".into(), argv: words.chain(left).collect(), no_expansion: true, ..ExecCommand::default() };
        if let Err(why) = self.spawn_in("private-tmp-removal", "init.scope", "", &Process::new(&command, &ExecContext::default())) {
            self.reporter.unit(&name, 4, &format!("its private /tmp cannot be removed: {why}"));
        }
    }

    /// Forgets and removes the control group of a unit that is down, unless something is left in it.
    pub fn release_cgroup(&mut self, unit: UnitId) {
        let Some(runtime) = self.units.get_mut(&unit) else { return };
        let Some(relative) = runtime.cgroup.clone() else { return };
        if self.cgroups.populated(&relative) {
            return;
        }
        for descriptor in std::mem::take(&mut runtime.watches) {
            self.watches.remove(&descriptor);
            let _ = rustix::fs::inotify::remove_watch(&self.inotify, descriptor);
        }
        runtime.cgroup = None;
        self.cgroups.remove(&relative);
    }

    /// An end of the pipe whose other end PID 1 holds while jobs are queued.
    fn idle_reader(&mut self) -> std::io::Result<OwnedFd> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        // Earlier waiters go on when the old writer is dropped; they have waited for what was queued then.
        self.idle_pipe = Some(writer);
        Ok(reader)
    }

    /// Reads what an exec helper says: an error, or, by closing the pipe, that the program was executed.
    pub fn read_exec_pipe(&mut self, pid: i32) {
        let Some(pipe) = self.pipes.get_mut(&pid) else { return };
        let mut buffer = [0_u8; 4096];
        let ended = loop {
            match pipe.fd.read(&mut buffer) {
                Ok(0) => break true,
                Ok(length) if pipe.text.len() < 64 * 1024 => pipe.text.extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Ok(_) => {}
                Err(why) if why.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };
        if !ended {
            return;
        }
        let Some(pipe) = self.drop_exec_pipe(pid) else { return };
        let Some(unit) = pipe.unit else { return };
        if pipe.text.is_empty() {
            if pipe.main {
                self.service_event(unit, Event::Executed);
            }
            return;
        }
        let message =
            serde_json::from_slice::<Failure>(&pipe.text).map_or_else(|_| "the exec helper failed".to_owned(), |failure| failure.message);
        let name = self.name(unit);
        self.reporter.unit(&name, 3, &message);
    }

    /// Closes the pipe of a process.
    pub fn drop_exec_pipe(&mut self, pid: i32) -> Option<ExecPipe> {
        let pipe = self.pipes.remove(&pid)?;
        self.poller.remove(&pipe.fd, Source::ExecPipe(pid));
        Some(pipe)
    }
}

/// Who may rule the unit's group: the service's user, if it is delegated.
fn cgroup_owner(def: &unit_files::Unit) -> Option<(u32, u32)> {
    def.cgroup().filter(|config| config.delegate.is_on())?;
    let user = def.service()?.exec.user.as_deref()?;
    let user = identity::user(std::path::Path::new("/etc"), user)?;
    Some((user.uid, user.gid))
}

fn memory_file(spec: &Spec) -> std::io::Result<OwnedFd> {
    let mut file = File::from(rustix::fs::memfd_create("exec-spec", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(spec).map_err(std::io::Error::from)?)?;
    file.rewind()?;
    Ok(file.into())
}
