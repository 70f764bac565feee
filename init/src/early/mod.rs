//! PID 1 before its unit engine: mounts, cgroups, identity, seed, clock.

use crate::boot::{BootContext, BootRecord};
use crate::cmdline::CommandLine;

pub mod host_keys;
pub mod sysctl;

/// Prepares the host; nothing in here may fail the boot.
pub fn main() -> BootContext {
    BootContext {
        record: BootRecord::load(),
        cmdline: CommandLine::of_kernel(),
        boot_id: String::new(),
        machine_id: String::new(),
        consoles: Vec::new(),
        power_button: None,
    }
}
