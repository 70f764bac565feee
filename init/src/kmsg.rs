//! Lines into the kernel's log, where they are seen on the consoles (by level) and found by the log daemon.

use std::io::Write;

/// How important a line is, as syslog counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Level {
    /// The machine cannot go on.
    Emergency = 0,
    /// Something failed.
    Error = 3,
    /// Something is odd.
    Warning = 4,
    /// Worth a line on the console unless `quiet`.
    Notice = 5,
    /// Only for the log.
    Info = 6,
}

/// Writes one line, prefixed with `init: `. Losing it is no error: there may be nobody to tell.
pub fn log(level: Level, message: &str) {
    let line = format!("<{}>init: {}\n", level as u8 | 3 << 3, message.replace('\n', " "));
    let written = std::fs::OpenOptions::new().write(true).open("/dev/kmsg").and_then(|mut kmsg| kmsg.write_all(line.as_bytes()));
    if written.is_err() {
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// Logs at [`Level::Warning`].
pub fn warn(message: &str) {
    log(Level::Warning, message);
}

/// Logs at [`Level::Error`].
pub fn error(message: &str) {
    log(Level::Error, message);
}

/// Logs at [`Level::Info`].
pub fn info(message: &str) {
    log(Level::Info, message);
}
