//! The machine this runs on.

use super::System;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// The host below a root directory.
pub struct Host {
    root: PathBuf,
    /// A script that is not done by then is killed; none is "never".
    limit: Option<Duration>,
}

impl Host {
    /// The host below `root`; scripts may run for `limit`.
    pub fn new(root: impl Into<PathBuf>, limit: Option<Duration>) -> Host {
        Host { root: root.into(), limit }
    }
}

impl System for Host {
    fn root(&self) -> &Path {
        &self.root
    }

    fn systemctl(&mut self, args: &[&str]) -> Result<(), String> {
        let output = Command::new("/usr/bin/systemctl").args(args).stdin(Stdio::null()).output();
        let output = output.map_err(|e| format!("/usr/bin/systemctl: {e}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().lines().last().unwrap_or_default().trim();
        if said.is_empty() { Err(ended("systemctl", output.status)) } else { Err(said.to_owned()) }
    }

    fn set_hostname(&mut self, name: &str) -> Result<(), String> {
        rustix::system::sethostname(name.as_bytes()).map_err(|e| format!("cannot set the kernel's host name: {e}"))
    }

    fn run(&mut self, program: &Path, environment: &[(&str, &str)]) -> Result<(), String> {
        use std::os::unix::process::CommandExt as _;
        let shown = program.display();
        // A group of its own, so that what the script started can be ended with it.
        let mut command = Command::new(program);
        command.envs(environment.iter().copied()).stdin(Stdio::null()).process_group(0).current_dir("/");
        let mut child = match command.spawn() {
            Ok(child) => child,
            // No first line `#!`: shells run such a file themselves.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
                let mut shell = Command::new("/bin/sh");
                shell.arg(program).envs(environment.iter().copied()).stdin(Stdio::null()).process_group(0).current_dir("/");
                shell.spawn().map_err(|e| format!("{shown}: {e}"))?
            }
            Err(error) => return Err(format!("{shown}: cannot run it: {error} (is the program of its first line in this image?)")),
        };
        let begin = Instant::now();
        loop {
            let status = match self.limit {
                None => child.wait().map(Some),
                Some(_) => child.try_wait(),
            };
            match status.map_err(|e| format!("{shown}: {e}"))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(ended(&shown.to_string(), status)),
                None => {}
            }
            if let Some(limit) = self.limit.filter(|l| begin.elapsed() > *l) {
                let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
                if let Some(group) = group {
                    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                }
                let _ = child.wait();
                return Err(format!("{shown}: killed, not done after {} s", limit.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(if begin.elapsed() < Duration::from_secs(1) { 2 } else { 50 }));
        }
    }

    fn now(&self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
    }
}

fn ended(what: &str, status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("{what}: ended with code {code}"),
        (None, Some(signal)) => format!("{what}: ended by signal {signal}"),
        (None, None) => format!("{what}: {status}"),
    }
}
