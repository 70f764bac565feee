//! `timedatectl`: the clock, the time zone, and whether the clock is kept in step.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::time::{ClockId, Timespec};

use super::args::Options;
use super::{files, hostnamectl, human, pid1};
use crate::engine::protocol::{ActiveState, LoadState, Reply, Request};
use crate::logs::journalctl::times;
use crate::sys::localtime;

const HELP: &str = "\
usage: timedatectl [status | show [-p NAME] | set-time TIME | set-timezone ZONE | list-timezones | set-ntp yes|no | timesync-status]
";
const ZONES: &str = "/usr/share/zoneinfo";
const LOCALTIME: &str = "/etc/localtime";
/// The service that keeps the clock in step.
const NTP: &str = "chrony.service";

type Outcome = Result<(), (u8, String)>;

/// The front-end `timedatectl`.
pub fn timedatectl(args: &[String]) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            eprintln!("timedatectl: {message}");
            ExitCode::from(code)
        }
    }
}

fn run(args: &[String]) -> Outcome {
    let mut properties: Vec<String> = Vec::new();
    let mut value_only = false;
    let mut words: Vec<&str> = Vec::new();
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        match arg {
            "-h" | "--help" => {
                plain_output::print(HELP);
                return Ok(());
            }
            "--no-pager" | "--no-ask-password" | "-a" | "--all" => {}
            "--value" => value_only = true,
            "-p" | "-P" | "--property" => {
                value_only |= arg == "-P";
                properties.push(args.next().ok_or((2, "-p needs a name".to_owned()))?.to_owned());
            }
            option if option.starts_with("--property=") => properties.extend(option.split_once('=').map(|(_, name)| name.to_owned())),
            "--adjust-system-clock" | "--monitor" => return Err((2, format!("{arg} is not supported"))),
            option if option.starts_with('-') => return Err((2, format!("unknown option {option}"))),
            word => words.push(word),
        }
    }
    match words.as_slice() {
        [] | ["status"] => {
            plain_output::print(&render(&facts()));
            Ok(())
        }
        ["show"] => {
            plain_output::print(&show(&facts(), &properties, value_only));
            Ok(())
        }
        ["list-timezones"] => {
            for zone in zones(Path::new(ZONES)) {
                plain_output::print(&format!("{zone}\n"));
            }
            Ok(())
        }
        ["set-timezone", zone] => set_timezone(zone),
        ["set-time", time @ ..] if !time.is_empty() => set_time(&time.join(" ")),
        ["set-ntp", answer] => set_ntp(answer),
        ["set-local-rtc", "0" | "no" | "false"] => Ok(()),
        ["set-local-rtc", ..] => Err((1, "the hardware clock runs in UTC here".to_owned())),
        ["timesync-status" | "show-timesync"] => timesync(),
        [verb @ ("ntp-servers" | "revert"), ..] => Err((2, format!("'{verb}' is not supported: servers stand in /etc/chrony"))),
        [verb, ..] => Err((2, format!("unknown verb '{verb}' or wrong number of words; 'timedatectl --help' lists them"))),
    }
}

/// What `status` and `show` say.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Facts {
    /// Microseconds since 1970.
    now: u64,
    /// Seconds since 1970 by the hardware clock, if there is one.
    rtc: Option<i64>,
    zone: String,
    /// Whether the kernel knows the clock to be right.
    synchronized: bool,
    /// Whether the time service is there, and runs.
    ntp: Option<bool>,
}

fn facts() -> Facts {
    let rtc = fs::read_to_string("/sys/class/rtc/rtc0/since_epoch").ok().and_then(|text| text.trim().parse().ok());
    Facts { now: human::now(), rtc, zone: zone_name(), synchronized: crate::sys::time::is_synchronized(), ntp: ntp_state() }
}

fn zone_name() -> String {
    let target = fs::read_link(LOCALTIME).ok();
    let name = target.as_deref().and_then(Path::to_str).and_then(|path| path.split_once("zoneinfo/")).map(|(_, name)| name.to_owned());
    name.unwrap_or_else(|| "UTC".to_owned())
}

fn ntp_state() -> Option<bool> {
    let answer = pid1::ask(&Request::Status { units: vec![NTP.to_owned()] }, false).ok()?;
    answer.replies.into_iter().find_map(|reply| match reply {
        Reply::Unit(unit) if unit.load != LoadState::NotFound => Some(unit.active == ActiveState::Active),
        _ => None,
    })
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn in_utc(seconds: i64) -> String {
    let time = localtime::civil(seconds, true);
    let day = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let weekday = usize::try_from(seconds.div_euclid(86_400).rem_euclid(7)).ok().and_then(|at| day.get(at)).copied().unwrap_or_default();
    format!("{weekday} {:04}-{:02}-{:02} {:02}:{:02}:{:02}", time.year, time.month, time.day, time.hour, time.minute, time.second)
}

fn render(facts: &Facts) -> String {
    let seconds = i64::try_from(facts.now / 1_000_000).unwrap_or(i64::MAX);
    let offset = localtime::civil(seconds, false).offset;
    let sign = if offset < 0 { '-' } else { '+' };
    let zone = format!("{} ({sign}{:02}{:02})", facts.zone, offset.abs() / 3600, offset.abs() % 3600 / 60);
    let rows = [
        ("Local time", human::timestamp(facts.now)),
        ("Universal time", format!("{} UTC", in_utc(seconds))),
        ("RTC time", facts.rtc.map_or_else(|| "n/a".to_owned(), in_utc)),
        ("Time zone", zone),
        ("System clock synchronized", yes(facts.synchronized).to_owned()),
        ("NTP service", facts.ntp.map_or("n/a", |runs| if runs { "active" } else { "inactive" }).to_owned()),
        ("RTC in local TZ", "no".to_owned()),
    ];
    rows.iter().map(|(title, value)| format!("{title:>25}: {value}\n")).collect()
}

fn show(facts: &Facts, wanted: &[String], value_only: bool) -> String {
    let all = [
        ("Timezone", facts.zone.clone()),
        ("LocalRTC", "no".to_owned()),
        ("CanNTP", yes(facts.ntp.is_some()).to_owned()),
        ("NTP", yes(facts.ntp == Some(true)).to_owned()),
        ("NTPSynchronized", yes(facts.synchronized).to_owned()),
        ("TimeUSec", human::timestamp(facts.now)),
    ];
    let shown = all.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|asked| asked == name));
    shown.map(|(name, value)| if value_only { format!("{value}\n") } else { format!("{name}={value}\n") }).collect()
}

/// Whether a file is one of time zone rules.
fn is_zone(path: &Path) -> bool {
    let mut magic = [0_u8; 4];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"TZif"
}

/// Every zone below a directory, sorted.
fn zones(root: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(root.join(&directory)).into_iter().flatten().flatten() {
            let relative = directory.join(entry.file_name());
            let Some(name) = relative.to_str() else { continue };
            let path = entry.path();
            if matches!(name, "posix" | "right" | "localtime" | "posixrules") {
                continue;
            }
            if path.is_dir() {
                todo.push(relative);
            } else if is_zone(&path) {
                out.push(name.to_owned());
            }
        }
    }
    out.sort();
    out
}

fn valid_name(zone: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+' | b'/');
    !zone.is_empty() && zone.bytes().all(plain) && !zone.starts_with('/') && !zone.ends_with('/') && !zone.contains("//")
}

fn set_timezone(zone: &str) -> Outcome {
    if !valid_name(zone) || !is_zone(&Path::new(ZONES).join(zone)) {
        return Err((1, format!("there is no time zone {zone:?} in {ZONES}; 'timedatectl list-timezones' lists them")));
    }
    let temporary = Path::new("/etc/localtime.new");
    let _ = fs::remove_file(temporary);
    let fail = |why: std::io::Error| (1, format!("{LOCALTIME}: {why}"));
    std::os::unix::fs::symlink(format!("..{ZONES}/{zone}"), temporary).map_err(fail)?;
    fs::rename(temporary, LOCALTIME).map_err(fail)?;
    if Path::new("/etc/timezone").exists() {
        hostnamectl::store(Path::new("/etc/timezone"), zone).map_err(|why| (1, format!("/etc/timezone: {why}")))?;
    }
    // Timers are counted in local time.
    pid1::ask(&Request::DaemonReload, false)
        .map(|_| ())
        .map_err(|failure| (1, format!("the zone is set, but timers go on as before: {}", failure.message)))
}

fn set_time(text: &str) -> Outcome {
    if ntp_state() == Some(true) {
        return Err((1, format!("{NTP} keeps the clock in step; 'timedatectl set-ntp no' stops it first")));
    }
    let at =
        times::parse(text, human::now(), false).ok_or_else(|| (2, format!("{text:?} is no time (such as \"2026-11-22 03:04:05\")")))?;
    let seconds = i64::try_from(at / 1_000_000).map_err(|_| (2, "that time is too far away".to_owned()))?;
    let nanoseconds = i64::try_from(at % 1_000_000 * 1000).unwrap_or(0);
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    rustix::time::clock_settime(ClockId::Realtime, time).map_err(|why| (1, format!("cannot set the clock: {why}")))
}

fn set_ntp(answer: &str) -> Outcome {
    let on = unit_files::value::parse_bool(answer).map_err(|why| (2, why.to_string()))?;
    let options = Options { now: true, quiet: true, ..Options::default() };
    let verb = if on { "enable" } else { "disable" };
    files::change(verb, &options, &[NTP.to_owned()]).map(|_| ()).map_err(|failure| (1, failure.message))
}

fn timesync() -> Outcome {
    use std::os::unix::process::CommandExt;
    // It takes this process's place; coming back means that it could not.
    let why = std::process::Command::new("/usr/bin/chronyc").arg("tracking").exec();
    Err((1, format!("/usr/bin/chronyc: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_page() {
        let facts = Facts { now: 1_795_316_400_000_000, rtc: Some(1_795_316_399), zone: "UTC".into(), synchronized: true, ntp: Some(true) };
        let page = render(&facts);
        assert!(page.contains("           Universal time: Sun 2026-11-22 03:00:00 UTC\n"), "{page}");
        assert!(page.contains("                 RTC time: Sun 2026-11-22 02:59:59\n"), "{page}");
        assert!(page.contains("              NTP service: active\n"), "{page}");
        assert_eq!(show(&facts, &["NTPSynchronized".into()], true), "yes\n");
        assert!(render(&Facts::default()).contains("NTP service: n/a"));
    }

    #[test]
    fn only_zones_are_zones() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("Europe")).unwrap();
        fs::write(directory.path().join("Europe/Berlin"), "TZif2").unwrap();
        fs::write(directory.path().join("zone.tab"), "# text").unwrap();
        fs::write(directory.path().join("UTC"), "TZif2").unwrap();
        assert_eq!(zones(directory.path()), ["Europe/Berlin", "UTC"]);
        for bad in ["", "/etc/passwd", "../../etc/passwd", "a//b", "Europe/", "a b"] {
            assert!(!valid_name(bad), "{bad}");
        }
        assert!(valid_name("America/Port-au-Prince") && valid_name("Etc/GMT+1"));
    }

    #[test]
    fn what_is_not_there_says_so() {
        let run = |words: &[&str]| run(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()).unwrap_err();
        assert_eq!(run(&["ntp-servers", "eth0", "x"]).0, 2);
        assert_eq!(run(&["set-local-rtc", "1"]).0, 1);
        assert_eq!(run(&["set-timezone", "Nowhere/City"]).0, 1);
        assert_eq!(run(&["set-time"]).0, 2);
    }
}
