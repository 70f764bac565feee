//! `init exec-helper`: the process between PID 1 and a unit's program.
//!
//! PID 1 starts it in the unit's control group with a [`Spec`](spec::Spec); it sets up everything that the unit file asks for and
//! becomes the program. It reads files and waits where PID 1 must not, and what goes wrong here cannot harm PID 1: it comes back
//! as one line on a pipe and one of systemd's exit codes.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use unit_files::exec::{EXEC_SEARCH_PATH, LimitKind, Privilege};

use self::rights::Identity;
use self::spec::{ERROR_FD, EXTRA_FD, Failure, SPEC_FD, Spec, exit};
use crate::sys::process;

mod credentials;
mod directories;
mod dynamic_user;
mod environment;
pub mod identity;
mod rights;
mod sandbox;
mod scheduling;
mod seccomp;
pub mod spec;
mod streams;

/// Runs the helper; returns only when the program could not be executed.
pub fn main(_args: &[String]) -> ExitCode {
    let error_pipe = process::take_passed_fd(ERROR_FD);
    let failure = match read_spec() {
        Ok(spec) => {
            // Out of the way of the sockets that go to 3, 4, ...
            let minimum = EXTRA_FD + 2 + i32::try_from(spec.fd_names.len()).unwrap_or(0);
            let error_pipe = error_pipe.and_then(|fd| Ok(rustix::io::fcntl_dupfd_cloexec(&fd, minimum.max(64))?));
            let failure = match become_program(&spec) {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            report(error_pipe.ok(), &failure);
            failure
        }
        Err(message) => {
            let failure = Failure { code: exit::FDS, message };
            report(error_pipe.ok(), &failure);
            failure
        }
    };
    ExitCode::from(u8::try_from(failure.code).unwrap_or(255))
}

fn report(pipe: Option<OwnedFd>, failure: &Failure) {
    let text = serde_json::to_vec(failure).unwrap_or_default();
    if let Some(pipe) = pipe {
        let _ = File::from(pipe).write_all(&text);
    }
}

fn read_spec() -> Result<Spec, String> {
    let fd = process::take_passed_fd(SPEC_FD).map_err(|why| format!("no spec was passed: {why}"))?;
    let mut text = Vec::new();
    File::from(fd).read_to_end(&mut text).map_err(|why| format!("cannot read the spec: {why}"))?;
    serde_json::from_slice(&text).map_err(|why| format!("cannot understand the spec: {why}"))
}

fn fail<E: std::fmt::Display>(code: i32, what: impl Into<String>) -> impl FnOnce(E) -> Failure {
    let what = what.into();
    move |why| Failure { code, message: format!("{what}: {why}") }
}

/// The directory below `/tmp` and `/var/tmp` that one run of a unit with `PrivateTmp=` has for its own; PID 1 removes it afterwards.
#[must_use]
pub fn private_tmp_name(unit: &str, invocation: &str) -> String {
    // A unit's name may be longer than a file's, with the rest.
    let unit: String = unit.chars().take(100).collect();
    format!("garboard-private-{invocation}-{unit}")
}

/// `init map-ids`: the other half of `PrivateUsers=`.
pub fn map_ids(args: &[String]) -> ExitCode {
    sandbox::map_ids(args)
}

enum Never {}

fn become_program(spec: &Spec) -> Result<Never, Failure> {
    let context = &spec.context;
    process::reset_signals(context.ignore_sigpipe);
    process::new_session();
    if let Some(path) = &spec.join_cgroup {
        std::fs::write(path, "0").map_err(fail(exit::CGROUP, path))?;
    }
    let mut first = EXTRA_FD;
    if spec.idle {
        wait_until_idle(first);
        first += 1;
    }
    let mut sockets = Vec::new();
    for (offset, name) in (0..).zip(&spec.fd_names) {
        let fd = process::take_passed_fd(first + offset).map_err(fail(exit::FDS, "a passed socket is missing"))?;
        let flags = rustix::fs::fcntl_getfl(&fd).map_err(fail(exit::FDS, "a passed socket"))?;
        let flags = if spec.non_blocking { flags | rustix::fs::OFlags::NONBLOCK } else { flags - rustix::fs::OFlags::NONBLOCK };
        rustix::fs::fcntl_setfl(&fd, flags).map_err(fail(exit::FDS, "a passed socket"))?;
        let high = rustix::io::fcntl_dupfd_cloexec(&fd, 128).map_err(fail(exit::FDS, "a passed socket"))?;
        sockets.push((name.clone(), high));
    }
    let identity = Identity::find(spec)?;
    streams::set_up(spec, &sockets)?;
    scheduling::apply(spec)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(context.umask));
    let made = directories::make(spec, identity.user.as_ref().map(|user| (user.uid, identity.gid)))?;
    let made_credentials = credentials::make(spec, identity.user.as_ref().map(|user| (user.uid, identity.gid)))?;
    let mut variables = environment::collect(spec, identity.user.as_ref(), &made)?;
    if let Some(directory) = made_credentials {
        variables.insert("CREDENTIALS_DIRECTORY".into(), directory);
    }
    if !context.limits.contains_key(&LimitKind::Nofile) {
        // PID 1's own is higher; programs that use select() break with more than this, those that want more may raise it.
        let _ = process::set_limit(LimitKind::Nofile as u32, Some(1024), Some(524_288));
    }
    for (kind, limit) in &context.limits {
        process::set_limit(*kind as u32, limit.soft, limit.hard).map_err(fail(exit::LIMITS, format!("cannot set Limit{kind:?}=")))?;
    }
    if spec.command.privilege != Privilege::Full {
        sandbox::enter(spec)?;
    }
    working_directory(spec, identity.user.as_ref())?;
    let argv = spec.command.expand(&variables);
    let program = find_program(spec)?;
    identity.assume(spec)?;
    for (number, (_, fd)) in (process::FIRST_PASSED_FD..).zip(&sockets) {
        if spec.listen {
            process::place_fd(fd.as_fd(), number).map_err(fail(exit::FDS, "cannot pass a socket"))?;
        }
    }
    if spec.listen && !sockets.is_empty() {
        variables.insert("LISTEN_PID".into(), std::process::id().to_string());
        variables.insert("LISTEN_FDS".into(), sockets.len().to_string());
        variables.insert("LISTEN_FDNAMES".into(), spec.fd_names.join(":"));
    }
    if let Some(interval) = spec.watchdog {
        variables.insert("WATCHDOG_USEC".into(), interval.to_string());
        variables.insert("WATCHDOG_PID".into(), std::process::id().to_string());
    }
    let text = |value: String| CString::new(value).map_err(fail(exit::EXEC, "a zero byte in the command line"));
    let argv: Vec<CString> = argv.into_iter().map(text).collect::<Result<_, _>>()?;
    let variables: Vec<CString> = variables.into_iter().map(|(name, value)| text(format!("{name}={value}"))).collect::<Result<_, _>>()?;
    let path = text(program.clone())?;
    // A filter may forbid what it takes to report that there is no such program, so that is seen before.
    rustix::fs::access(program.as_str(), rustix::fs::Access::EXEC_OK).map_err(fail(exit::EXEC, format!("cannot execute {program}")))?;
    rights::filter_calls(spec)?;
    let why = process::execute(&path, &argv, &variables);
    Err(Failure { code: exit::EXEC, message: format!("cannot execute {program}: {why}") })
}

fn wait_until_idle(number: i32) {
    let Ok(pipe) = process::take_passed_fd(number) else { return };
    let mut fds = [rustix::event::PollFd::new(&pipe, rustix::event::PollFlags::IN)];
    let _ = rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 }));
}

fn working_directory(spec: &Spec, user: Option<&identity::User>) -> Result<(), Failure> {
    let path = match spec.context.working_directory.as_deref() {
        None => "/",
        Some("~") => user.map_or("/root", |user| user.home.as_str()),
        Some(path) => path,
    };
    match rustix::process::chdir(path) {
        Ok(()) => Ok(()),
        Err(_) if spec.context.working_directory_optional => rustix::process::chdir("/").map_err(fail(exit::CHDIR, "/")),
        Err(why) => Err(Failure { code: exit::CHDIR, message: format!("cannot change to {path}: {why}") }),
    }
}

fn find_program(spec: &Spec) -> Result<String, Failure> {
    let path = &spec.command.path;
    if path.contains('/') {
        return Ok(path.clone());
    }
    let mut places: Vec<&str> = spec.context.exec_search_path.iter().map(String::as_str).collect();
    if places.is_empty() {
        places.extend(EXEC_SEARCH_PATH);
    }
    let executable = |candidate: &String| rustix::fs::access(candidate.as_str(), rustix::fs::Access::EXEC_OK).is_ok();
    let found = places.iter().map(|place| format!("{place}/{path}")).find(executable);
    found.ok_or_else(|| Failure { code: exit::EXEC, message: format!("cannot find {path} in {}", places.join(":")) })
}

/// A process environment while it is put together.
type Variables = BTreeMap<String, String>;
