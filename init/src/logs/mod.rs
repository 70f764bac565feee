//! The log daemon, its store, and `journalctl`.

use std::process::ExitCode;

/// `init log-daemon`.
pub fn daemon(_args: &[String]) -> ExitCode {
    eprintln!("init log-daemon: not in this build");
    ExitCode::FAILURE
}

/// The front-end `journalctl`.
pub fn journalctl(_args: &[String]) -> ExitCode {
    eprintln!("journalctl: not in this build");
    ExitCode::FAILURE
}
