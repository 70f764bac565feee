//! Devices: loading modules by modalias, links below `/dev/disk`, permissions of known nodes.

use std::process::ExitCode;

pub mod permissions;

/// `init coldplug`: one sweep over the devices that are there, then whatever appears.
pub fn coldplug(_args: &[String]) -> ExitCode {
    eprintln!("init coldplug: not in this build");
    ExitCode::FAILURE
}
