//! Names of signals and of exit statuses.

use super::{ValueError, expected};

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
