//! PID 1 before its unit engine: mounts, cgroups, identity, seed, clock.
//!
//! Relies on the initramfs stage for the root, `/etc`, `/var` and state; in a container it finds less and does less.
//! Nothing in here may fail the boot: what does not work is a warning in the kernel log and in `boot.json`.

use std::fmt::Display;

use crate::boot::{BootContext, BootRecord};
use crate::cmdline::CommandLine;
use crate::kmsg;
use crate::shutdown::power_button::PowerButton;

mod cgroups;
mod clock;
mod consoles;
mod devices;
pub mod host_keys;
mod identity;
mod limits;
mod mounts;
mod panic;
mod seed;
pub mod sysctl;

/// Prepares the host.
pub fn main() -> BootContext {
    panic::install_hook();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut record = BootRecord::load();
    let mut notes = Notes::default();
    notes.extend(mounts::all());
    let cmdline = CommandLine::of_kernel();
    notes.extend(cgroups::set_up());
    notes.extend(devices::links_and_nodes());
    notes.check("bring up the loopback interface", crate::sys::link::loopback_up());
    notes.check("set the clock forward", clock::raise_to_floor());
    notes.check("feed the random seed", seed::feed());
    notes.extend(limits::set());
    let hostname = identity::hostname(&std::fs::read_to_string("/etc/hostname").unwrap_or_default());
    notes.check("set the host name", rustix::system::sethostname(hostname.as_bytes()));
    let machine_id = identity::machine_id(&cmdline).unwrap_or_else(|error| {
        notes.check::<(), _>("store the machine id", Err(&error.error));
        error.id
    });
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().replace('-', "");
    record.warnings.extend(notes.0);
    record.phase("early");
    if let Err(error) = record.store() {
        kmsg::warn(&error.to_string());
    }
    BootContext { record, cmdline, boot_id, machine_id, consoles: consoles::active(), power_button: PowerButton::open().ok() }
}

/// The last chance to write to state: called by the shutdown after the units, before the file systems go.
pub fn before_unmounting() {
    // A start that ends in order was no crash, whether or not the health gate had its time.
    let counted = crate::boot::mark_good();
    for (what, result) in [("store the random seed", seed::store()), ("note the time", clock::note()), ("end the count of starts", counted)]
    {
        if let Err(error) = result {
            kmsg::warn(&format!("cannot {what}: {error}"));
        }
    }
}

/// What did not work, collected for the record and logged at once.
#[derive(Debug, Default)]
struct Notes(Vec<String>);

impl Notes {
    fn check<T, E: Display>(&mut self, what: &str, result: Result<T, E>) {
        if let Err(error) = result {
            self.extend([format!("cannot {what}: {error}")]);
        }
    }

    fn extend(&mut self, lines: impl IntoIterator<Item = String>) {
        for line in lines {
            kmsg::warn(&line);
            self.0.push(line);
        }
    }
}
