//! `init watchdog`: keeps the hardware watchdog quiet as long as PID 1 answers.
//!
//! Off unless `RuntimeWatchdogSec=` in `[Manager]` of `/etc/systemd/system.conf` or `system.conf.d/*.conf` says otherwise. A process of
//! its own, so that PID 1 has no work with it, and a PID 1 that hangs gets the machine reset as well as a kernel that does.
//! When it is stopped at shutdown it leaves the watchdog armed with `RebootWatchdogSec=`: a shutdown that hangs ends in a reset, too.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify;

use crate::engine::client;
use crate::engine::protocol::Request;
use crate::logs::config::time_span;
use crate::sys;

/// How long a device may be missing at a start before a word is said of it.
const SILENT_WAIT: Duration = Duration::from_secs(60);

/// What the files say.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settings {
    /// `RuntimeWatchdogSec=`; `None` is off.
    runtime: Option<Duration>,
    /// `RebootWatchdogSec=`.
    reboot: Duration,
    /// `WatchdogDevice=`.
    device: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self { runtime: None, reboot: Duration::from_secs(600), device: "/dev/watchdog0".into() }
    }
}

impl Settings {
    fn load(root: &Path) -> Settings {
        let mut settings = Settings::default();
        let etc = root.join("etc/systemd");
        let mut drop_ins: Vec<PathBuf> = std::fs::read_dir(etc.join("system.conf.d"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "conf"))
            .collect();
        drop_ins.sort();
        for path in std::iter::once(etc.join("system.conf")).chain(drop_ins) {
            settings.apply(&std::fs::read_to_string(&path).unwrap_or_default(), &path);
        }
        settings
    }

    fn apply(&mut self, text: &str, path: &Path) {
        let mut ours = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                ours = line == "[Manager]";
            }
            let Some((key, value)) = line.split_once('=').filter(|_| ours && !line.starts_with(['#', ';'])) else { continue };
            let (key, value) = (key.trim(), value.trim());
            let span = || match value {
                "off" | "infinity" | "" | "0" => Some(None),
                text => time_span(text).map(|micros| Some(Duration::from_micros(micros))),
            };
            match (key, span()) {
                ("RuntimeWatchdogSec", Some(span)) => self.runtime = span,
                ("RebootWatchdogSec", Some(Some(span))) => self.reboot = span,
                ("RuntimeWatchdogSec" | "RebootWatchdogSec", None) => {
                    eprintln!("<4>{}: cannot read '{value}' as a value of {key}=, ignored", path.display());
                }
                ("WatchdogDevice", _) if value.starts_with('/') => self.device = value.into(),
                _ => {}
            }
        }
    }
}

/// Runs until told to end; ends at once when there is nothing to do.
pub fn main(_args: &[String]) -> ExitCode {
    let settings = Settings::load(Path::new("/"));
    let Some(runtime) = settings.runtime else { return ExitCode::SUCCESS };
    let Ok(signals) = sys::process::signal_fd(&[libc::SIGTERM, libc::SIGINT]) else { return ExitCode::FAILURE };
    let mut device = match open_once_there(&settings.device, &signals, SILENT_WAIT) {
        Ok(Some(device)) => device,
        Ok(None) => return ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("<3>watchdog: cannot open {}: {why}; RuntimeWatchdogSec= has no effect", settings.device.display());
            return ExitCode::FAILURE;
        }
    };
    let granted = set_timeout(&device, runtime);
    eprintln!("<6>watchdog: {} resets the machine when PID 1 is silent for {} s", settings.device.display(), granted.as_secs());
    let _ = crate::notify::notify("READY=1", None);
    let told = keep_quiet(&mut device, granted, pid1_answers, |longest| readable(&[&signals], Some(longest)) == Some(0));
    // Closed without the letter that would switch it off: it goes on, and the shutdown has this long.
    let left = set_timeout(&device, settings.reboot);
    let _ = device.write_all(&[0]);
    eprintln!("<6>watchdog: {} s are left for the shutdown", left.as_secs());
    if told { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Opens the device as soon as there is one: its driver is loaded while others already start. `None`: told to end before that.
/// After `silent` it says once that it waits.
fn open_once_there(path: &Path, signals: &OwnedFd, silent: Duration) -> std::io::Result<Option<File>> {
    let created = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&created, path.parent().unwrap_or(Path::new("/")), inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO)?;
    let mut timeout = Some(silent);
    loop {
        match OpenOptions::new().write(true).open(path) {
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {}
            opened => return opened.map(Some),
        }
        match readable(&[signals, &created], timeout) {
            Some(0) => return Ok(None),
            Some(_) => {
                let _ = rustix::io::read(&created, &mut [0; 4096]);
            }
            None => {
                timeout = None;
                eprintln!("<4>watchdog: there is no {} yet: RuntimeWatchdogSec= has no effect until its driver is loaded", path.display());
            }
        }
    }
}

/// The first of these that can be read; `None` after the time.
fn readable(fds: &[&OwnedFd], within: Option<Duration>) -> Option<usize> {
    let timeout = within.and_then(|time| Timespec::try_from(time).ok());
    let mut fds: Vec<PollFd> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    rustix::event::poll(&mut fds, timeout.as_ref()).ok()?;
    fds.iter().position(|fd| !fd.revents().is_empty())
}

/// Writes while `alive`, and ends when `wait`, which waits for a time, says that a signal has come; false when the device is gone.
fn keep_quiet(device: &mut impl Write, timeout: Duration, alive: impl Fn(Duration) -> bool, wait: impl Fn(Duration) -> bool) -> bool {
    // Thrice in the time, so that one late answer does no harm.
    let pause = timeout / 3;
    loop {
        if alive(pause) {
            if let Err(why) = device.write_all(&[0]) {
                eprintln!("<3>watchdog: cannot write: {why}");
                return false;
            }
        } else {
            crate::kmsg::error("watchdog: PID 1 does not answer; the machine will be reset unless it does");
        }
        if wait(pause) {
            return true;
        }
    }
}

fn pid1_answers(within: Duration) -> bool {
    client::ask_all(Path::new(client::CONTROL_SOCKET), &Request::SystemStatus, Some(within)).is_ok()
}

/// Asks for a time; hardware gives what it can.
fn set_timeout(device: &File, wanted: Duration) -> Duration {
    let seconds = i32::try_from(wanted.as_secs().max(1)).unwrap_or(i32::MAX);
    match sys::watchdog::set_timeout(device, seconds) {
        Ok(granted) => Duration::from_secs(u64::try_from(granted).unwrap_or(0).max(1)),
        Err(why) => {
            eprintln!("<4>watchdog: its time cannot be set to {seconds} s: {why}");
            wanted
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn it_is_off_unless_switched_on() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Settings::load(root.path()), Settings::default());
        let directory = root.path().join("etc/systemd/system.conf.d");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(root.path().join("etc/systemd/system.conf"), "[Manager]\nRuntimeWatchdogSec=20s\n[Other]\nRebootWatchdogSec=1\n")
            .unwrap();
        std::fs::write(directory.join("10.conf"), "[Manager]\nRebootWatchdogSec=5min\nWatchdogDevice=/dev/watchdog1\n").unwrap();
        let settings = Settings::load(root.path());
        assert_eq!((settings.runtime, settings.reboot), (Some(Duration::from_secs(20)), Duration::from_secs(300)));
        assert_eq!(settings.device, Path::new("/dev/watchdog1"));
        std::fs::write(directory.join("20.conf"), "[Manager]\nRuntimeWatchdogSec=off\n").unwrap();
        assert_eq!(Settings::load(root.path()).runtime, None);
    }

    #[test]
    fn a_device_that_comes_late_is_opened_then_and_an_end_is_heard_meanwhile() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("watchdog0");
        let signals = || rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        let late = path.clone();
        let driver = std::thread::spawn(move || {
            std::fs::write(late.with_extension("other"), "").unwrap();
            std::thread::sleep(Duration::from_millis(50));
            std::fs::write(late, "").unwrap();
        });
        assert!(open_once_there(&path, &signals(), Duration::from_millis(5)).unwrap().is_some());
        driver.join().unwrap();
        std::fs::remove_file(&path).unwrap();
        let told = signals();
        rustix::io::write(&told, &1_u64.to_ne_bytes()).unwrap();
        assert!(open_once_there(&path, &told, Duration::from_secs(60)).unwrap().is_none());
        assert!(open_once_there(&directory.path().join("no/such"), &told, Duration::from_secs(60)).is_err());
    }

    #[test]
    fn a_pid_1_that_does_not_answer_is_not_covered_for() {
        let (asked, rounds) = (Cell::new(0), Cell::new(0));
        let mut device = Vec::new();
        let alive = |within: Duration| {
            assert_eq!(within, Duration::from_secs(10));
            asked.set(asked.get() + 1);
            asked.get() <= 2
        };
        let told = keep_quiet(&mut device, Duration::from_secs(30), alive, |_| {
            rounds.set(rounds.get() + 1);
            rounds.get() == 5
        });
        assert!(told);
        assert_eq!((device.len(), asked.get()), (2, 5));
        assert!(!device.contains(&b'V'), "that letter would switch it off");
    }
}
