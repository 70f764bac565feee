//! `shutdown`, `reboot`, `poweroff` and `halt`.

use std::process::ExitCode;

/// The front-end under one of its names.
pub fn main(name: &str, _args: &[String]) -> ExitCode {
    eprintln!("{name}: not in this build");
    ExitCode::FAILURE
}
