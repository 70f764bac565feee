//! Going down at a time: `shutdown -r 02:00`, `+15`, `-c`. A process is left behind that sleeps until then (one timer of the kernel, no
//! polling), tells who is logged in, and minds inhibitors when the time has come. No daemon has to live for that.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use plain_output::say;
use reboot_rules::scheduled::Scheduled;
use reboot_rules::sessions::wall;
use reboot_rules::{show_span, show_time, system_clock};
use rustix::thread::{ClockId, clock_nanosleep_absolute};
use rustix::time::Timespec;

use super::ShutdownKind;
use super::command::{Force, go_down, verb};
use super::inhibit::{self, Inhibitors};
use crate::sys::localtime::{CivilTime, civil, seconds};
use crate::sys::power::signal_process;

/// What is scheduled, for the reboot daemon and for `-c`.
const SCHEDULED: &str = "/run/garboard/shutdown-scheduled";
/// The word under which this program waits.
const WAIT: &str = "shutdown-wait";
/// Seconds before the end at which people are reminded.
const REMINDERS: [u64; 3] = [600, 300, 60];

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Now,
    /// After so many seconds, however the clock is set meanwhile.
    In(u64),
    /// When the clock shows so many seconds since 1970.
    At(u64),
}

impl When {
    pub fn describe(self) -> String {
        match self {
            Self::Now => "now".to_owned(),
            Self::In(seconds) => format!("in {}", show_span(seconds)),
            Self::At(at) => format!("at {}", show_time(at)),
        }
    }

    /// Seconds since 1970, by the clock of now.
    fn wall_clock(self) -> u64 {
        match self {
            Self::Now => system_clock(),
            Self::In(seconds) => system_clock().saturating_add(seconds),
            Self::At(at) => at,
        }
    }
}

/// When the host's clocks (`/etc/localtime`) next show this time of day.
pub(super) fn clock_time(hour: u32, minute: u32) -> u64 {
    let now = i64::try_from(system_clock()).unwrap_or(0);
    let field = |number: u32| i32::try_from(number).unwrap_or(0);
    let today = CivilTime { hour: field(hour), minute: field(minute), second: 0, ..civil(now, false) };
    let at = match seconds(&today, false) {
        at if at > now => at,
        _ => seconds(&CivilTime { day: today.day + 1, ..today }, false),
    };
    u64::try_from(at).unwrap_or(0)
}

/// Leaves a process behind that goes down when the time has come.
pub(super) fn schedule(kind: ShutdownKind, when: When, mind: bool, message: &str) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err(format!("only root may {} this host", verb(kind)));
    }
    let _ = end_scheduled();
    let (clock, number) = match when {
        When::In(seconds) => ("in", uptime().saturating_add(seconds)),
        other => ("at", other.wall_clock()),
    };
    let child = Command::new("/proc/self/exe")
        .arg0("init")
        .args([WAIT, verb(kind), clock, &number.to_string(), if mind { "mind" } else { "ignore" }])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot leave a process behind to wait: {error}"))?;
    let who = std::env::var("SUDO_USER").unwrap_or_else(|_| "root".to_owned());
    let at = when.wall_clock();
    let scheduled = Scheduled { kind: verb(kind).to_owned(), at, who, message: message.to_owned(), pid: child.id() };
    if let Err(error) = scheduled.write(Path::new(SCHEDULED)) {
        let _ = signal_process(-i32::try_from(child.id()).unwrap_or(0), libc::SIGTERM);
        return Err(format!("cannot write {SCHEDULED}: {error}"));
    }
    say!("{} {}; `shutdown -c` calls it off", verb(kind), When::At(at).describe());
    if mind {
        for line in Inhibitors::of_host().blocking() {
            say!("unless that ends before, it waits: {line}");
        }
    }
    wall(&format!("{} {} {message}", verb(kind), When::At(at).describe()));
    Ok(())
}

/// Calls off what is scheduled.
pub(super) fn cancel() -> Result<(), String> {
    let scheduled = end_scheduled()?;
    wall(&format!("the {} at {} is called off", scheduled.kind, show_time(scheduled.at)));
    Ok(())
}

fn end_scheduled() -> Result<Scheduled, String> {
    let scheduled = Scheduled::read(Path::new(SCHEDULED)).ok_or_else(|| "no shutdown is scheduled".to_owned())?;
    std::fs::remove_file(SCHEDULED).map_err(|error| format!("cannot remove {SCHEDULED}: {error}"))?;
    // The number may be another process's by now.
    let waits = std::fs::read(format!("/proc/{}/cmdline", scheduled.pid)).is_ok_and(|line| is_waiter(&line));
    if !waits {
        return Err("the scheduled shutdown is gone already".to_owned());
    }
    let group = i32::try_from(scheduled.pid).map_err(|_| format!("{SCHEDULED} holds no process id"))?;
    signal_process(-group, libc::SIGTERM).map_err(|error| format!("the scheduled shutdown is gone already: {error}"))?;
    Ok(scheduled)
}

/// Whether a command line is that of the process that [`schedule`] leaves behind.
fn is_waiter(cmdline: &[u8]) -> bool {
    cmdline.split(|byte| *byte == 0).nth(1) == Some(WAIT.as_bytes())
}

/// Seconds since the kernel started, suspended ones too.
fn uptime() -> u64 {
    u64::try_from(rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec).unwrap_or(0)
}

fn sleep_until(clock: ClockId, at: u64) {
    let until = Timespec { tv_sec: i64::try_from(at).unwrap_or(i64::MAX), tv_nsec: 0 };
    while matches!(clock_nanosleep_absolute(clock, &until), Err(rustix::io::Errno::INTR)) {}
}

/// `init shutdown-wait KIND in|at SECONDS mind|ignore`: the process that is left behind.
pub fn wait_main(args: &[String]) -> ExitCode {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let [kind, clock, at, mind] = words.as_slice() else { return ExitCode::from(2) };
    let kind = match *kind {
        "reboot" => ShutdownKind::Reboot,
        "halt" => ShutdownKind::Halt,
        "poweroff" => ShutdownKind::Poweroff,
        _ => return ExitCode::from(2),
    };
    let Ok(at) = at.parse::<u64>() else { return ExitCode::from(2) };
    let (id, now): (ClockId, fn() -> u64) = if *clock == "in" { (ClockId::Boottime, uptime) } else { (ClockId::Realtime, system_clock) };
    for before in REMINDERS {
        let reminder = at.saturating_sub(before);
        if reminder > now() {
            sleep_until(id, reminder);
            wall(&format!("{} in {}; `shutdown -c` calls it off", verb(kind), show_span(before)));
        }
    }
    sleep_until(id, at);
    if *mind == "mind" {
        let mut told = String::new();
        while let Err(why) = inhibit::respect(verb(kind), Inhibitors::of_host(), &mut |line| {
            wall(line);
        }) {
            if why != told {
                wall(&format!("the {} that was scheduled waits: {why}", verb(kind)));
                told = why;
            }
            std::thread::sleep(Duration::from_secs(2));
        }
    }
    wall(&format!("{} now", verb(kind)));
    match go_down(kind, Force::No, true) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            wall(&format!("the {} that was scheduled failed: {why}", verb(kind)));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_within_a_day_and_in_the_future() {
        let now = system_clock();
        for (hour, minute) in [(0, 0), (2, 0), (12, 30), (23, 59)] {
            let at = clock_time(hour, minute);
            assert!(at > now && at <= now + 25 * 3600, "{hour}:{minute}");
            let shown = civil(i64::try_from(at).unwrap(), false);
            assert_eq!((shown.minute, shown.second), (i32::try_from(minute).unwrap(), 0));
        }
        assert_eq!(When::In(900).describe(), "in 15min");
        assert!(is_waiter(b"init\0shutdown-wait\0reboot\0") && !is_waiter(b"vi\0x\0shutdown-wait\0") && !is_waiter(b""));
    }
}
