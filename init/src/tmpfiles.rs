//! `init tmpfiles`: files and directories from `tmpfiles.d`.

use std::process::ExitCode;

/// The program.
pub fn main(_args: &[String]) -> ExitCode {
    eprintln!("init: this program is not in this build");
    ExitCode::FAILURE
}
