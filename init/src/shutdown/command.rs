//! `shutdown`, `reboot`, `poweroff` and `halt`, with the options that people and the kernel have always given them.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use plain_output::say;

use super::ShutdownKind;
use super::inhibit;
use super::schedule::{self, When};
use crate::sys::power::{signal_process, sigrtmin};

const CONTROL: &str = "/run/garboard/control";
/// How much of an orderly end is skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Force {
    #[default]
    No,
    /// Units are not stopped; processes are ended and file systems unmounted.
    Units,
    /// The system call at once.
    Everything,
}

#[derive(Debug, PartialEq, Eq)]
enum Act {
    /// At once, or later.
    GoDown {
        kind: ShutdownKind,
        force: Force,
        sync: bool,
        /// Whether inhibitors are minded.
        mind: bool,
        when: When,
        message: String,
    },
    /// Only say that it would.
    Rehearse {
        kind: ShutdownKind,
        when: When,
    },
    Cancel,
    Help,
}

/// The front-end under one of its names.
pub fn main(name: &str, args: &[String]) -> ExitCode {
    let parsed = if name == "shutdown" { parse_shutdown(args, schedule::clock_time) } else { parse_direct(name, args) };
    let result = match parsed {
        Err(message) => {
            eprintln!("{name}: {message}");
            return ExitCode::from(2);
        }
        Ok(Act::Help) => {
            say!(
                "usage: {name} [--force] [--no-sync] [-i]\n       shutdown [-r|-P|-H|-k|-c] [-i] [now|+MINUTES|HH:MM] [MESSAGE]\n\n  -i: whatever inhibitors say"
            );
            Ok(())
        }
        Ok(Act::Cancel) => schedule::cancel(),
        Ok(Act::Rehearse { kind, when }) => {
            say!("{name}: would {} {}", verb(kind), when.describe());
            Ok(())
        }
        Ok(Act::GoDown { kind, when: When::Now, force, sync, mind, .. }) => {
            let minded = if mind && force == Force::No { inhibit::mind(verb(kind)) } else { Ok(()) };
            minded.and_then(|()| go_down(kind, force, sync))
        }
        Ok(Act::GoDown { kind, when, mind, message, .. }) => schedule::schedule(kind, when, mind, &message),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{name}: {message}");
            ExitCode::FAILURE
        }
    }
}

pub(super) fn verb(kind: ShutdownKind) -> &'static str {
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
    let (mut force, mut sync, mut rehearse, mut mind) = (0_u32, true, false, true);
    for arg in args {
        match arg.as_str() {
            "--help" => return Ok(Act::Help),
            "--force" => force += 1,
            "--poweroff" => kind = ShutdownKind::Poweroff,
            "--reboot" => kind = ShutdownKind::Reboot,
            "--halt" => kind = ShutdownKind::Halt,
            "--no-sync" => sync = false,
            "--wtmp-only" => rehearse = true,
            "--ignore-inhibitors" => mind = false,
            "--no-wall" | "--no-wtmp" => {}
            long if long.starts_with("--") => return Err(format!("unknown option {long}")),
            short if short.starts_with('-') => {
                for letter in short.chars().skip(1) {
                    match letter {
                        'f' => force += 1,
                        'p' => kind = ShutdownKind::Poweroff,
                        'n' => sync = false,
                        'w' => rehearse = true,
                        'i' => mind = false,
                        // Old programs write records and flush drives: nothing to do here.
                        'd' | 'h' => {}
                        other => return Err(format!("unknown option -{other}")),
                    }
                }
            }
            other => return Err(format!("unexpected '{other}'")),
        }
    }
    if rehearse {
        return Ok(Act::Rehearse { kind, when: When::Now });
    }
    let force = match force {
        0 => Force::No,
        1 => Force::Units,
        _ => Force::Everything,
    };
    Ok(Act::GoDown { kind, force, sync, mind, when: When::Now, message: String::new() })
}

/// `clock` says when the host's clocks next show an hour and a minute.
fn parse_shutdown(args: &[String], clock: fn(u32, u32) -> u64) -> Result<Act, String> {
    let mut kind = ShutdownKind::Poweroff;
    let (mut rehearse, mut mind) = (false, true);
    let mut time = None;
    let mut message: Vec<&str> = Vec::new();
    for arg in args {
        match arg.as_str() {
            "--help" => return Ok(Act::Help),
            "-c" => return Ok(Act::Cancel),
            "-h" | "-P" | "--poweroff" => kind = ShutdownKind::Poweroff,
            "-r" | "--reboot" => kind = ShutdownKind::Reboot,
            "-H" | "--halt" => kind = ShutdownKind::Halt,
            "-k" => rehearse = true,
            "-i" | "--ignore-inhibitors" => mind = false,
            "--no-wall" | "-f" | "-F" | "-n" => {}
            option if option.starts_with('-') => return Err(format!("unknown option {option}")),
            text if time.is_none() => time = Some(parse_time(text, clock)?),
            word => message.push(word),
        }
    }
    // As everywhere: without a time it is in one minute.
    let when = time.unwrap_or(When::In(60));
    if rehearse {
        return Ok(Act::Rehearse { kind, when });
    }
    Ok(Act::GoDown { kind, force: Force::No, sync: true, mind, when, message: message.join(" ") })
}

fn parse_time(text: &str, clock: fn(u32, u32) -> u64) -> Result<When, String> {
    let wrong = || format!("'{text}' is no time: expected now, +MINUTES or HH:MM");
    if text == "now" {
        return Ok(When::Now);
    }
    if let Some((hours, minutes)) = text.split_once(':') {
        let (hours, minutes): (u32, u32) = (hours.parse().map_err(|_| wrong())?, minutes.parse().map_err(|_| wrong())?);
        if hours > 23 || minutes > 59 {
            return Err(wrong());
        }
        return Ok(When::At(clock(hours, minutes)));
    }
    // A year: what is later is a slip of the finger.
    let seconds = text.trim_start_matches('+').parse::<u64>().ok().filter(|minutes| *minutes <= 366 * 24 * 60).map(|minutes| minutes * 60);
    Ok(match seconds.ok_or_else(wrong)? {
        0 => When::Now,
        seconds => When::In(seconds),
    })
}

pub(super) fn go_down(kind: ShutdownKind, force: Force, sync: bool) -> Result<(), String> {
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
        let go = |kind, force, sync, mind| Ok(Act::GoDown { kind, force, sync, mind, when: When::Now, message: String::new() });
        assert_eq!(direct("reboot", ""), go(ShutdownKind::Reboot, Force::No, true, true));
        assert_eq!(direct("reboot", "-f"), go(ShutdownKind::Reboot, Force::Units, true, true));
        assert_eq!(direct("reboot", "-i"), go(ShutdownKind::Reboot, Force::No, true, false));
        assert_eq!(direct("poweroff", "-ffn"), go(ShutdownKind::Poweroff, Force::Everything, false, true));
        assert_eq!(direct("halt", "-p"), go(ShutdownKind::Poweroff, Force::No, true, true));
        assert!(direct("halt", "-z").is_err() && direct("halt", "--zap").is_err() && direct("halt", "now").is_err());
    }

    #[test]
    fn times_of_shutdown() {
        let parse = |line: &str| parse_shutdown(&words(line), |hour, minute| u64::from(hour * 100 + minute));
        let when = |line: &str| match parse(line) {
            Ok(Act::GoDown { kind, when, message, mind, .. }) => Some((kind, when, message, mind)),
            _ => None,
        };
        assert_eq!(when("-h now"), Some((ShutdownKind::Poweroff, When::Now, String::new(), true)));
        assert_eq!(when("-r +5 going down"), Some((ShutdownKind::Reboot, When::In(300), "going down".to_owned(), true)));
        assert_eq!(when("-r -i +0"), Some((ShutdownKind::Reboot, When::Now, String::new(), false)));
        assert_eq!(when("-H 01:00"), Some((ShutdownKind::Halt, When::At(100), String::new(), true)));
        assert_eq!(when(""), Some((ShutdownKind::Poweroff, When::In(60), String::new(), true)));
        for bad in ["25:00", "1:60", "soon", "+99999999999", "-z"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("-c"), Ok(Act::Cancel));
    }
}
