//! The unit engine: jobs, processes, sockets, timers, the control socket and the health gate.

use std::process::ExitCode;

use crate::boot::BootContext;
use crate::shutdown::ShutdownKind;

/// Starts the default target and runs until the machine is to go down; by then every unit is stopped.
pub fn run(_context: BootContext) -> ShutdownKind {
    crate::kmsg::error("the unit engine is not in this build");
    loop {
        std::thread::park();
    }
}

/// `init exec-helper`: becomes the program of a unit.
pub fn exec_helper(_args: &[String]) -> ExitCode {
    eprintln!("init exec-helper: not in this build");
    ExitCode::FAILURE
}
