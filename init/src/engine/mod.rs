//! The unit engine: jobs, processes, sockets, timers, the control socket and the health gate.

#![deny(clippy::panic, clippy::indexing_slicing)]
#![allow(dead_code)] // Removed when the engine runs.

use std::process::ExitCode;

use crate::boot::BootContext;
use crate::shutdown::ShutdownKind;

pub mod client;
mod graph;
mod jobs;
pub mod protocol;
mod transaction;

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
