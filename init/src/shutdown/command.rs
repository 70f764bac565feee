//! `shutdown`, `reboot`, `poweroff` and `halt`, with the options that people and the kernel have always given them.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use super::ShutdownKind;
use crate::sys::power::{signal_process, sigrtmin};

const CONTROL: &str = "/run/garboard/control";
/// Holds the process id of a `shutdown` that waits for its time.
const SCHEDULED: &str = "/run/garboard/shutdown-scheduled";

/// How much of an orderly end is skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Force {
    #[default]
    No,
    /// Units are not stopped; processes are ended and file systems unmounted.
    Units,
    /// The system call at once.
    Everything,
}

#[derive(Debug, PartialEq, Eq)]
enum Act {
    /// At once, or after so many seconds.
    GoDown {
        kind: ShutdownKind,
        force: Force,
        sync: bool,
        delay: u64,
    },
    /// Only say that it would.
    Rehearse {
        kind: ShutdownKind,
        delay: u64,
    },
    Cancel,
    Help,
}

/// The front-end under one of its names.
pub fn main(name: &str, args: &[String]) -> ExitCode {
    let parsed = if name == "shutdown" { parse_shutdown(args, seconds_of_day()) } else { parse_direct(name, args) };
    let result = match parsed {
        Err(message) => {
            eprintln!("{name}: {message}");
            return ExitCode::from(2);
        }
        Ok(Act::Help) => {
            println!("usage: {name} [--force] [--no-sync]\n       shutdown [-r|-P|-H|-k|-c] [now|+MINUTES|HH:MM] [MESSAGE]");
            Ok(())
        }
        Ok(Act::Cancel) => cancel(),
        Ok(Act::Rehearse { kind, delay }) => {
            println!("{name}: would {} in {delay} seconds", verb(kind));
            Ok(())
        }
        Ok(Act::GoDown { kind, delay, .. }) if delay > 0 => schedule(kind, delay),
        Ok(Act::GoDown { kind, force, sync, .. }) => go_down(kind, force, sync),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{name}: {message}");
            ExitCode::FAILURE
        }
    }
}

fn verb(kind: ShutdownKind) -> &'static str {
    match kind {
        ShutdownKind::Poweroff => "poweroff",
        ShutdownKind::Reboot => "reboot",
        ShutdownKind::Halt => "halt",
        ShutdownKind::Kexec => "kexec",
    }
}

fn parse_direct(name: &str, args: &[String]) -> Result<Act, String> {
    let mut kind = match name {
        "reboot" => ShutdownKind::Reboot,
        "halt" => ShutdownKind::Halt,
        _ => ShutdownKind::Poweroff,
    };
    let (mut force, mut sync, mut rehearse) = (0_u32, true, false);
    for arg in args {
        match arg.as_str() {
            "--help" => return Ok(Act::Help),
            "--force" => force += 1,
            "--poweroff" => kind = ShutdownKind::Poweroff,
            "--reboot" => kind = ShutdownKind::Reboot,
            "--halt" => kind = ShutdownKind::Halt,
            "--no-sync" => sync = false,
            "--wtmp-only" => rehearse = true,
            "--no-wall" | "--no-wtmp" => {}
            long if long.starts_with("--") => return Err(format!("unknown option {long}")),
            short if short.starts_with('-') => {
                for letter in short.chars().skip(1) {
                    match letter {
                        'f' => force += 1,
                        'p' => kind = ShutdownKind::Poweroff,
                        'n' => sync = false,
                        'w' => rehearse = true,
                        // Old programs write records, take interfaces down, flush drives: nothing to do here.
                        'd' | 'h' | 'i' => {}
                        other => return Err(format!("unknown option -{other}")),
                    }
                }
            }
            other => return Err(format!("unexpected '{other}'")),
        }
    }
    if rehearse {
        return Ok(Act::Rehearse { kind, delay: 0 });
    }
    let force = match force {
        0 => Force::No,
        1 => Force::Units,
        _ => Force::Everything,
    };
    Ok(Act::GoDown { kind, force, sync, delay: 0 })
}

/// `now` is the time of day in seconds, for `HH:MM`.
fn parse_shutdown(args: &[String], now: u64) -> Result<Act, String> {
    let mut kind = ShutdownKind::Poweroff;
    let mut rehearse = false;
    let mut time = None;
    for arg in args {
        match arg.as_str() {
            "--help" => return Ok(Act::Help),
            "-c" => return Ok(Act::Cancel),
            "-h" | "-P" | "--poweroff" => kind = ShutdownKind::Poweroff,
            "-r" | "--reboot" => kind = ShutdownKind::Reboot,
            "-H" | "--halt" => kind = ShutdownKind::Halt,
            "-k" => rehearse = true,
            "--no-wall" | "-f" | "-F" | "-n" => {}
            option if option.starts_with('-') => return Err(format!("unknown option {option}")),
            text if time.is_none() => time = Some(parse_time(text, now)?),
            // What follows the time is a message for those who are logged in.
            _ => {}
        }
    }
    // As everywhere: without a time it is in one minute.
    let delay = time.unwrap_or(60);
    Ok(if rehearse { Act::Rehearse { kind, delay } } else { Act::GoDown { kind, force: Force::No, sync: true, delay } })
}

fn parse_time(text: &str, now: u64) -> Result<u64, String> {
    const DAY: u64 = 24 * 60 * 60;
    let wrong = || format!("'{text}' is no time: expected now, +MINUTES or HH:MM");
    if text == "now" {
        return Ok(0);
    }
    if let Some((hours, minutes)) = text.split_once(':') {
        let (hours, minutes): (u64, u64) = (hours.parse().map_err(|_| wrong())?, minutes.parse().map_err(|_| wrong())?);
        if hours > 23 || minutes > 59 {
            return Err(wrong());
        }
        return Ok((hours * 3600 + minutes * 60 + DAY - now % DAY) % DAY);
    }
    text.trim_start_matches('+').parse::<u64>().ok().and_then(|minutes| minutes.checked_mul(60)).ok_or_else(wrong)
}

fn seconds_of_day() -> u64 {
    // The host's time zone is UTC unless somebody linked another; HH:MM is understood as UTC.
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs() % (24 * 60 * 60))
}

fn go_down(kind: ShutdownKind, force: Force, sync: bool) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err(format!("only root may {} this host", verb(kind)));
    }
    if force == Force::Everything {
        if sync {
            rustix::fs::sync();
        }
        super::end(kind);
    }
    ask_pid1(kind, force).or_else(|error| {
        // A PID 1 that does not answer may still listen to signals.
        let base = if force == Force::No { 3 } else { 13 };
        let offset = match kind {
            ShutdownKind::Halt => 0,
            ShutdownKind::Poweroff => 1,
            ShutdownKind::Reboot => 2,
            ShutdownKind::Kexec => 3,
        };
        eprintln!("PID 1 does not answer ({error}); sending it a signal");
        signal_process(1, sigrtmin() + base + offset).map_err(|error| format!("cannot signal PID 1: {error}"))
    })
}

fn ask_pid1(kind: ShutdownKind, force: Force) -> Result<(), String> {
    let force = u8::from(force != Force::No);
    let request = serde_json::json!({ "request": "power", "action": verb(kind), "force": force });
    let io = |error: std::io::Error| error.to_string();
    let mut stream = UnixStream::connect(CONTROL).map_err(io)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(io)?;
    stream.write_all(format!("{request}\n").as_bytes()).map_err(io)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map_err(io)?;
    let reply: serde_json::Value = serde_json::from_str(&line).map_err(|error| error.to_string())?;
    match reply.get("reply").and_then(|kind| kind.as_str()) {
        Some("error") => Err(reply.get("message").and_then(|text| text.as_str()).unwrap_or("refused").to_owned()),
        _ => Ok(()),
    }
}

/// Leaves a process behind that goes down when the time has come.
fn schedule(kind: ShutdownKind, delay: u64) -> Result<(), String> {
    let _ = cancel();
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let child = Command::new("/bin/sh")
        .args(["-c", "sleep \"$1\" && exec \"$2\" \"$3\"", "shutdown"])
        .arg(delay.to_string())
        .arg(program)
        .arg(verb(kind))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot leave a process behind to wait: {error}"))?;
    std::fs::write(SCHEDULED, child.id().to_string()).map_err(|error| format!("cannot write {SCHEDULED}: {error}"))?;
    println!("{} in {delay} seconds; `shutdown -c` calls it off", verb(kind));
    Ok(())
}

fn cancel() -> Result<(), String> {
    let text = std::fs::read_to_string(SCHEDULED).map_err(|_| "no shutdown is scheduled".to_owned())?;
    std::fs::remove_file(SCHEDULED).map_err(|error| format!("cannot remove {SCHEDULED}: {error}"))?;
    let pid: i32 = text.trim().parse().map_err(|_| format!("{SCHEDULED} holds no process id"))?;
    // The group: the shell and its sleep.
    signal_process(-pid, libc::SIGTERM).map_err(|error| format!("the scheduled shutdown is gone already: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn direct(name: &str, line: &str) -> Result<Act, String> {
        parse_direct(name, &words(line))
    }

    #[test]
    fn force_once_and_twice() {
        let go = |kind, force, sync| Ok(Act::GoDown { kind, force, sync, delay: 0 });
        assert_eq!(direct("reboot", ""), go(ShutdownKind::Reboot, Force::No, true));
        assert_eq!(direct("reboot", "-f"), go(ShutdownKind::Reboot, Force::Units, true));
        assert_eq!(direct("poweroff", "-ffn"), go(ShutdownKind::Poweroff, Force::Everything, false));
        assert_eq!(direct("halt", "-p"), go(ShutdownKind::Poweroff, Force::No, true));
        assert!(direct("halt", "-z").is_err() && direct("halt", "--zap").is_err() && direct("halt", "now").is_err());
    }

    #[test]
    fn times_of_shutdown() {
        let delay = |line: &str| match parse_shutdown(&words(line), 23 * 3600) {
            Ok(Act::GoDown { kind, delay, .. }) => Some((kind, delay)),
            _ => None,
        };
        assert_eq!(delay("-h now"), Some((ShutdownKind::Poweroff, 0)));
        assert_eq!(delay("-r +5 going down"), Some((ShutdownKind::Reboot, 300)));
        assert_eq!(delay("-H 01:00"), Some((ShutdownKind::Halt, 2 * 3600)));
        assert_eq!(delay(""), Some((ShutdownKind::Poweroff, 60)));
        assert_eq!(delay("25:00"), None);
        assert_eq!(parse_shutdown(&words("-c"), 0), Ok(Act::Cancel));
    }
}
