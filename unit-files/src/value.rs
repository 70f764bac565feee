//! Scalar values: booleans, time spans, sizes, percentages, signals, exit statuses, limits, modes.

use std::time::Duration;

use thiserror::Error;

use crate::calendar::CalendarError;
use crate::command::CommandError;
use crate::name::NameError;
use crate::specifier::SpecifierError;
use crate::words::WordError;

/// Why a value is of no use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ValueError {
    /// Not of the kind that the directive takes.
    #[error("{found:?} is not {expected}")]
    Expected {
        /// What was written.
        found: String,
        /// What should have been.
        expected: &'static str,
    },
    /// It cannot be split into words.
    #[error(transparent)]
    Words(#[from] WordError),
    /// A specifier is wrong.
    #[error(transparent)]
    Specifier(#[from] SpecifierError),
    /// A unit name is wrong.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A command line is wrong.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A calendar expression is wrong.
    #[error(transparent)]
    Calendar(#[from] CalendarError),
}

/// An error that says what should have been written.
pub(crate) fn expected(found: &str, expected: &'static str) -> ValueError {
    ValueError::Expected { found: found.to_owned(), expected }
}

/// `yes`, `no` and their other spellings.
///
/// # Errors
/// When it is none.
pub fn parse_bool(text: &str) -> Result<bool, ValueError> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Ok(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Ok(false),
        _ => Err(expected(text, "a boolean (yes or no)")),
    }
}

const NANOS_PER_USEC: u64 = 1_000;
const USEC_PER_SEC: u64 = 1_000_000;
const MINUTE: u64 = 60 * USEC_PER_SEC;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Longest first where one begins with the other.
const TIME_UNITS: [(&str, u64); 29] = [
    ("seconds", USEC_PER_SEC),
    ("second", USEC_PER_SEC),
    ("sec", USEC_PER_SEC),
    ("s", USEC_PER_SEC),
    ("minutes", MINUTE),
    ("minute", MINUTE),
    ("min", MINUTE),
    ("months", 2_629_800 * USEC_PER_SEC),
    ("month", 2_629_800 * USEC_PER_SEC),
    ("M", 2_629_800 * USEC_PER_SEC),
    ("msec", 1_000),
    ("ms", 1_000),
    ("m", MINUTE),
    ("hours", HOUR),
    ("hour", HOUR),
    ("hr", HOUR),
    ("h", HOUR),
    ("days", DAY),
    ("day", DAY),
    ("d", DAY),
    ("weeks", 7 * DAY),
    ("week", 7 * DAY),
    ("w", 7 * DAY),
    ("years", 31_557_600 * USEC_PER_SEC),
    ("year", 31_557_600 * USEC_PER_SEC),
    ("y", 31_557_600 * USEC_PER_SEC),
    ("usec", 1),
    ("us", 1),
    ("\u{b5}s", 1),
];

const NOT_A_SPAN: &str = "a time span (such as 90s, 5min 20s, 1h, infinity)";

/// A time span of microseconds; `None` is infinity. A bare number counts `default_unit` microseconds.
fn parse_usec(text: &str, default_unit: u64) -> Result<Option<u64>, ValueError> {
    let bad = || expected(text, NOT_A_SPAN);
    let trimmed = text.trim();
    if trimmed == "infinity" {
        return Ok(None);
    }
    if trimmed.is_empty() {
        return Err(bad());
    }
    let mut total = 0_u64;
    let mut rest = trimmed;
    while !rest.is_empty() {
        let unsigned = rest.strip_prefix('+').unwrap_or(rest);
        let digits = unsigned.len() - unsigned.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (whole_text, mut after) = unsigned.split_at_checked(digits).ok_or_else(bad)?;
        let mut fraction = None;
        if let Some(tail) = after.strip_prefix('.') {
            let digits = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (fraction_text, tail) = tail.split_at_checked(digits).ok_or_else(bad)?;
            if fraction_text.is_empty() {
                return Err(bad());
            }
            fraction = Some(fraction_text);
            after = tail;
        } else if whole_text.is_empty() {
            return Err(bad());
        }
        let whole: u64 = if whole_text.is_empty() { 0 } else { whole_text.parse().map_err(|_| bad())? };
        let spaced = after.trim_start();
        let unit = TIME_UNITS.iter().chain(&[("\u{3bc}s", 1)]).find(|(name, _)| spaced.starts_with(name));
        let (multiplier, tail) = match unit {
            Some((name, multiplier)) => (*multiplier, spaced.get(name.len()..).unwrap_or_default()),
            // `12.34.56` is wrong, `12.34 .56` is right.
            None if after.len() == spaced.len() && !spaced.is_empty() => return Err(bad()),
            None => (default_unit, spaced),
        };
        let mut part = whole.checked_mul(multiplier).ok_or_else(bad)?;
        let mut place = multiplier / 10;
        for digit in fraction.unwrap_or_default().bytes() {
            part = part.checked_add(u64::from(digit.saturating_sub(b'0')) * place).ok_or_else(bad)?;
            place /= 10;
        }
        total = total.checked_add(part).filter(|&sum| sum != u64::MAX).ok_or_else(bad)?;
        rest = tail.trim_start();
    }
    Ok(Some(total))
}

/// A time span, a bare number counting seconds; `None` is infinity.
///
/// # Errors
/// When it is none.
pub fn parse_time_span(text: &str) -> Result<Option<Duration>, ValueError> {
    Ok(parse_usec(text, USEC_PER_SEC)?.map(Duration::from_micros))
}

/// A time span in which zero means infinity, as the timeouts of services have it.
///
/// # Errors
/// When it is none.
pub fn parse_timeout(text: &str) -> Result<Option<Duration>, ValueError> {
    Ok(parse_time_span(text)?.filter(|span| !span.is_zero()))
}

/// A time span that cannot be infinite.
///
/// # Errors
/// When it is none.
pub fn parse_finite_span(text: &str) -> Result<Duration, ValueError> {
    parse_time_span(text)?.ok_or_else(|| expected(text, "a time span other than infinity"))
}

/// A time span for kernel knobs in microseconds or nanoseconds, where a bare number counts that unit.
///
/// # Errors
/// When it is none.
pub fn parse_nanoseconds(text: &str) -> Result<Duration, ValueError> {
    if let Ok(nanoseconds) = text.trim_end_matches("nsec").trim_end_matches("ns").trim().parse() {
        return Ok(Duration::from_nanos(nanoseconds));
    }
    let micros = parse_usec(text, 1)?.ok_or_else(|| expected(text, NOT_A_SPAN))?;
    Ok(Duration::from_nanos(micros.saturating_mul(NANOS_PER_USEC)))
}

/// How a time span is written, as systemd does: `1min 30s`, `1.500s`, `infinity`.
#[must_use]
pub fn format_time_span(span: Option<Duration>, accuracy: Duration) -> String {
    const UNITS: [(&str, u64); 9] = [
        ("y", 31_557_600 * USEC_PER_SEC),
        ("month", 2_629_800 * USEC_PER_SEC),
        ("w", 7 * DAY),
        ("d", DAY),
        ("h", HOUR),
        ("min", MINUTE),
        ("s", USEC_PER_SEC),
        ("ms", 1_000),
        ("us", 1),
    ];
    let Some(span) = span else { return "infinity".to_owned() };
    let mut left = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0".to_owned();
    }
    let accuracy = u64::try_from(accuracy.as_micros()).unwrap_or(u64::MAX).max(1);
    let mut parts: Vec<String> = Vec::new();
    for (name, unit) in UNITS {
        if left == 0 || (left < accuracy && !parts.is_empty()) {
            break;
        }
        if left < unit {
            continue;
        }
        let (whole, rest) = (left / unit, left % unit);
        // Below a minute the rest becomes a fraction, unless it is whole or finer than asked.
        if left < MINUTE && rest > 0 {
            let mut digits = 0_usize;
            let mut scale = 1_u64;
            while scale < unit {
                scale *= 10;
                digits += 1;
            }
            let mut fraction = rest;
            let mut finest = accuracy;
            while finest > 1 && digits > 0 {
                fraction /= 10;
                finest /= 10;
                digits -= 1;
            }
            if digits > 0 {
                parts.push(format!("{whole}.{fraction:0digits$}{name}"));
                left = 0;
                continue;
            }
        }
        parts.push(format!("{whole}{name}"));
        left = rest;
    }
    parts.join(" ")
}

/// A number with a factor: `512M`, `1.5G`. The base is 1024 for memory and disk space, 1000 for rates.
///
/// # Errors
/// When it is none.
pub fn parse_size(text: &str, base: u64) -> Result<u64, ValueError> {
    let bad = || expected(text, "a size (such as 512M)");
    let mut total = 0_u64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    let mut largest = 7_u32;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (whole_text, mut after) = rest.split_at_checked(digits).ok_or_else(bad)?;
        let whole: u64 = whole_text.parse().map_err(|_| bad())?;
        let mut fraction = "";
        if let Some(tail) = after.strip_prefix('.') {
            let digits = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            (fraction, after) = tail.split_at_checked(digits).ok_or_else(bad)?;
        }
        let after = after.trim_start();
        let (power, tail) = match after.chars().next() {
            None => (0, after),
            Some(letter) => match "BKMGTPE".find(letter) {
                Some(power) => (u32::try_from(power).unwrap_or_default(), after.get(1..).unwrap_or_default()),
                None => return Err(bad()),
            },
        };
        if power >= largest {
            return Err(bad());
        }
        largest = power;
        let factor = base.checked_pow(power).ok_or_else(bad)?;
        let mut part = u128::from(whole) * u128::from(factor);
        if !fraction.is_empty() {
            // More digits than this are finer than a byte.
            let fraction = fraction.get(..18).unwrap_or(fraction);
            let numerator: u64 = fraction.parse().map_err(|_| bad())?;
            let denominator = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(18));
            part += u128::from(numerator) * u128::from(factor) / denominator;
        }
        total = u64::try_from(part).ok().and_then(|part| total.checked_add(part)).ok_or_else(bad)?;
        // Optional `iB`/`B` after a factor is what people write; systemd takes it not, so neither do we.
        rest = tail.trim_start();
    }
    Ok(total)
}

/// Percent with up to two decimals, in hundredths of a percent.
///
/// # Errors
/// When it is none.
pub fn parse_per_myriad(text: &str) -> Result<u32, ValueError> {
    let bad = || expected(text, "a percentage");
    let number = text.strip_suffix('%').ok_or_else(bad)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 2 || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let whole: u32 = whole.parse().map_err(|_| bad())?;
    let fraction: u32 = if fraction.is_empty() { 0 } else { format!("{fraction:0<2}").parse().map_err(|_| bad())? };
    whole.checked_mul(100).and_then(|value| value.checked_add(fraction)).ok_or_else(bad)
}

/// A file mode, octal.
///
/// # Errors
/// When it is none.
pub fn parse_mode(text: &str) -> Result<u32, ValueError> {
    u32::from_str_radix(text, 8).ok().filter(|&mode| mode <= 0o7777).ok_or_else(|| expected(text, "an octal file mode"))
}

/// Signals by Linux number, without `SIG`. The numbers are those of x86, ARM and RISC-V.
const SIGNALS: [(&str, i32); 36] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", SIGRTMIN),
    ("RTMAX", SIGRTMAX),
];

/// The first real-time signal that programs may use with glibc.
pub const SIGRTMIN: i32 = 34;
/// The last real-time signal.
pub const SIGRTMAX: i32 = 64;

/// A signal by name (with or without `SIG`, `RTMIN+3`) or number.
///
/// # Errors
/// When there is none such.
pub fn parse_signal(text: &str) -> Result<i32, ValueError> {
    let bad = || expected(text, "a signal");
    let name = text.strip_prefix("SIG").unwrap_or(text);
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=SIGRTMAX).contains(&number) { Ok(number) } else { Err(bad()) };
    }
    if let Some((_, number)) = SIGNALS.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let offset = |text: &str| text.parse::<i32>().ok().filter(|offset| (0..=SIGRTMAX - SIGRTMIN).contains(offset));
    if let Some(above) = name.strip_prefix("RTMIN+").and_then(offset) {
        return Ok(SIGRTMIN + above);
    }
    name.strip_prefix("RTMAX-").and_then(offset).map(|below| SIGRTMAX - below).ok_or_else(bad)
}

/// The name of a signal without `SIG`: `TERM`, `RTMIN+3`.
#[must_use]
pub fn signal_name(number: i32) -> String {
    match SIGNALS.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => (*name).to_owned(),
        None if (SIGRTMIN..=SIGRTMAX).contains(&number) => format!("RTMIN+{}", number - SIGRTMIN),
        None => number.to_string(),
    }
}

/// Exit codes with a name: the C library's, LSB's, systemd's and BSD's.
const EXIT_STATUSES: [(&str, u8); 69] = [
    ("SUCCESS", 0),
    ("FAILURE", 1),
    ("INVALIDARGUMENT", 2),
    ("NOTIMPLEMENTED", 3),
    ("NOPERMISSION", 4),
    ("NOTINSTALLED", 5),
    ("NOTCONFIGURED", 6),
    ("NOTRUNNING", 7),
    ("USAGE", 64),
    ("DATAERR", 65),
    ("NOINPUT", 66),
    ("NOUSER", 67),
    ("NOHOST", 68),
    ("UNAVAILABLE", 69),
    ("SOFTWARE", 70),
    ("OSERR", 71),
    ("OSFILE", 72),
    ("CANTCREAT", 73),
    ("IOERR", 74),
    ("TEMPFAIL", 75),
    ("PROTOCOL", 76),
    ("NOPERM", 77),
    ("CONFIG", 78),
    ("CHDIR", 200),
    ("NICE", 201),
    ("FDS", 202),
    ("EXEC", 203),
    ("MEMORY", 204),
    ("LIMITS", 205),
    ("OOM_ADJUST", 206),
    ("SIGNAL_MASK", 207),
    ("STDIN", 208),
    ("STDOUT", 209),
    ("CHROOT", 210),
    ("IOPRIO", 211),
    ("TIMERSLACK", 212),
    ("SECUREBITS", 213),
    ("SETSCHEDULER", 214),
    ("CPUAFFINITY", 215),
    ("GROUP", 216),
    ("USER", 217),
    ("CAPABILITIES", 218),
    ("CGROUP", 219),
    ("SETSID", 220),
    ("CONFIRM", 221),
    ("STDERR", 222),
    ("PAM", 224),
    ("NETWORK", 225),
    ("NAMESPACE", 226),
    ("NO_NEW_PRIVILEGES", 227),
    ("SECCOMP", 228),
    ("SELINUX_CONTEXT", 229),
    ("PERSONALITY", 230),
    ("APPARMOR", 231),
    ("ADDRESS_FAMILIES", 232),
    ("RUNTIME_DIRECTORY", 233),
    ("CHOWN", 235),
    ("SMACK_PROCESS_LABEL", 236),
    ("KEYRING", 237),
    ("STATE_DIRECTORY", 238),
    ("CACHE_DIRECTORY", 239),
    ("LOGS_DIRECTORY", 240),
    ("CONFIGURATION_DIRECTORY", 241),
    ("NUMA_POLICY", 242),
    ("CREDENTIALS", 243),
    ("BPF", 244),
    ("KSM", 245),
    ("EXCEPTION", 255),
    // Older spelling of the same code.
    ("APPARMOR_PROFILE", 231),
];

/// An exit code by number or name.
///
/// # Errors
/// When there is none such.
pub fn parse_exit_code(text: &str) -> Result<u8, ValueError> {
    if let Ok(code) = text.parse() {
        return Ok(code);
    }
    let named = EXIT_STATUSES.iter().find(|(name, _)| *name == text).map(|(_, code)| *code);
    named.ok_or_else(|| expected(text, "an exit status from 0 to 255, or its name"))
}

/// The name of an exit code, as `status=203/EXEC` has it.
#[must_use]
pub fn exit_code_name(code: u8) -> Option<&'static str> {
    EXIT_STATUSES.iter().find(|(_, known)| *known == code).map(|(name, _)| *name)
}

/// A set of small numbers: `0-3 5,7`.
///
/// # Errors
/// When it is none.
pub fn parse_number_set(text: &str) -> Result<Vec<u32>, ValueError> {
    const MOST: u32 = 8192;
    let bad = || expected(text, "a list of numbers and ranges (such as 0-3 5)");
    let mut set = std::collections::BTreeSet::new();
    for word in text.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let first: u32 = first.trim().parse().map_err(|_| bad())?;
        let last: u32 = last.trim().parse().map_err(|_| bad())?;
        if first > last || last >= MOST {
            return Err(bad());
        }
        set.extend(first..=last);
    }
    Ok(set.into_iter().collect())
}

/// Capabilities by number.
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// Every capability that has a name.
pub const ALL_CAPABILITIES: u64 = (1 << CAPABILITIES.len()) - 1;

/// A capability's number, by name in any case, with or without `CAP_`.
///
/// # Errors
/// When there is none such.
pub fn parse_capability(text: &str) -> Result<u8, ValueError> {
    let lower = text.to_ascii_lowercase();
    let name = lower.strip_prefix("cap_").unwrap_or(&lower);
    let found = CAPABILITIES.iter().position(|known| *known == name).and_then(|number| u8::try_from(number).ok());
    found.ok_or_else(|| expected(text, "a capability (such as CAP_NET_ADMIN)"))
}

/// A capability's name, `CAP_NET_ADMIN` for instance.
#[must_use]
pub fn capability_name(number: u8) -> Option<String> {
    CAPABILITIES.get(usize::from(number)).map(|name| format!("CAP_{}", name.to_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usec(text: &str) -> Option<u64> {
        parse_time_span(text).ok().flatten().map(|span| u64::try_from(span.as_micros()).unwrap())
    }

    #[test]
    fn time_spans_add_up() {
        assert_eq!(usec("5min 20s"), Some(320_000_000));
        assert_eq!(usec("1y 2month3w"), Some(38_631_600_000_000));
        assert_eq!(usec("1.5h .5 s"), Some(5_400_500_000));
        assert_eq!(usec("55s500ms"), Some(55_500_000));
        assert_eq!(usec("3"), Some(3_000_000));
        assert_eq!(parse_time_span("infinity"), Ok(None));
        for bad in ["", "-1", "5x", "1.s", "12.34.56", "infinity 1s", "99999999999y", "s"] {
            assert!(parse_time_span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn time_spans_are_written_as_systemd_does() {
        let text = |span: u64| format_time_span(Some(Duration::from_micros(span)), Duration::from_micros(1));
        assert_eq!(text(90_000_000), "1min 30s");
        assert_eq!(text(1_500_000), "1.500000s");
        assert_eq!(format_time_span(Some(Duration::from_millis(1_234)), Duration::from_millis(1)), "1.234s");
        assert_eq!(text(100_000), "100ms");
        assert_eq!(format_time_span(None, Duration::ZERO), "infinity");
        assert_eq!(text(0), "0");
    }

    #[test]
    fn sizes_take_one_factor_after_the_other() {
        assert_eq!(parse_size("512M", 1024), Ok(512 << 20));
        assert_eq!(parse_size("1.5G", 1024), Ok(3 << 29));
        assert_eq!(parse_size("10K", 1000), Ok(10_000));
        assert_eq!(parse_size("7", 1024), Ok(7));
        assert_eq!(parse_size("1G 500M", 1024), Ok((1 << 30) + (500 << 20)));
        for bad in ["", "M", "-1", "1X", "1M1G", "99999999999E"] {
            assert!(parse_size(bad, 1024).is_err(), "{bad}");
        }
    }

    #[test]
    fn signals_and_statuses_have_names() {
        assert_eq!(parse_signal("SIGRTMIN+3"), Ok(37));
        assert_eq!(parse_signal("TERM"), Ok(15));
        assert_eq!(parse_signal("9"), Ok(9));
        assert!(parse_signal("SIG").is_err());
        assert_eq!(signal_name(37), "RTMIN+3");
        assert_eq!(parse_exit_code("TEMPFAIL"), Ok(75));
        assert!(parse_exit_code("256").is_err());
        assert_eq!(exit_code_name(203), Some("EXEC"));
    }

    #[test]
    fn percentages_sets_and_capabilities() {
        assert_eq!(parse_per_myriad("12.5%"), Ok(1_250));
        assert!(parse_per_myriad("12").is_err());
        assert_eq!(parse_number_set("0-2 5,7"), Ok(vec![0, 1, 2, 5, 7]));
        assert!(parse_number_set("3-1").is_err());
        assert_eq!(parse_capability("CAP_NET_ADMIN"), Ok(12));
        assert_eq!(capability_name(40).as_deref(), Some("CAP_CHECKPOINT_RESTORE"));
    }
}
