//! The initramfs stage: from the kernel's first process to the verified root with its state mounted.
//!
//! It trusts the command line of the (signed or measured) UKI, in it `roothash=`, and what the verified root holds. It
//! promises never to format anything but a partition labelled `state-new`, never to go on without state, and to say
//! the cause on the consoles when it stops. As soon as the root is mounted it becomes `/`, so that the root's own
//! mkfs and e2fsck run where they belong; the stage itself then goes on from memory until it executes the root's init.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use crate::boot::BootRecord;
use crate::cmdline::CommandLine;
use crate::kmsg;
use crate::rcu;
use crate::sys::uevent::UeventSocket;

mod boot_disk;
mod damaged_root;
mod emergency;
mod etc;
mod failure;
mod load;
mod mounts;
mod starts;
mod state;
mod switch_root;
mod user_database;
mod verity;

use boot_disk::BootDisk;
use damaged_root::Next;
use failure::Failure;

/// Runs the stage; ends by becoming the root's init.
pub fn main() -> ! {
    let mut record = BootRecord::default();
    record.phase("kernel");
    let mut boot_disk = None;
    let failure = match run(&mut record, &mut boot_disk) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    emergency::stop(&failure, || boot_disk.map_or(Next::Reboot, |boot_disk| damaged_root::next(&record, &boot_disk)))
}

fn run(record: &mut BootRecord, found: &mut Option<BootDisk>) -> Result<Infallible, Failure> {
    mounts::kernel_file_systems()?;
    rcu::hurry();
    let cmdline = CommandLine::of_kernel();
    let root_hash = verity::root_hash(&cmdline)?;
    let uevents = UeventSocket::open().map_err(Failure::Uevents)?;
    let mut drivers = load::Drivers::read(&cmdline)?;
    drivers.load_common();
    record.phase("modules");

    let timeout =
        cmdline.value("garboard.disk-timeout").and_then(|text| text.parse().ok()).map_or(Duration::from_secs(60), Duration::from_secs);
    let deadline = Instant::now() + timeout;
    mounts::efi_variables();
    let boot_disk = found.insert(boot_disk::find(&root_hash, &mut drivers, &uevents, deadline)?);
    record.warnings.append(&mut drivers.warnings);
    record.disk = boot_disk.disk.node().display().to_string();
    record.slot = boot_disk.slot.to_string();
    record.root_hash = verity::to_hex(&root_hash);
    record.uki = boot_disk::booted_uki();
    if crate::trial::is_trial(&record.uki) {
        crate::trial::panic_on_hangs(true);
    }
    record.phase("disk");

    let root = verity::open(boot_disk, &root_hash, &uevents, deadline)?;
    mounts::root(&root.device, switch_root::NEW_ROOT)?;
    // The way back to the other slot must not depend on files of a root that may be damaged.
    drivers.load_for_esp();
    switch_root::enter()?;
    record.version = image_version();
    record.phase("root");

    state::prepare(boot_disk, record)?;
    record.phase("state");
    starts::count(record, boot_disk)?;
    // This start is counted: from here on a damaged block may end it.
    root.panic_on_corruption()?;
    etc::assemble(record)?;
    record.phase("initramfs");
    for warning in &record.warnings {
        kmsg::warn(warning);
    }
    if let Err(error) = record.store() {
        kmsg::warn(&error.to_string());
    }
    switch_root::execute_init()
}

/// `IMAGE_VERSION` of the root that is `/` now.
fn image_version() -> String {
    let text = std::fs::read_to_string("/etc/os-release").or_else(|_| std::fs::read_to_string("/usr/lib/os-release")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("IMAGE_VERSION="))
        .map_or_else(String::new, |value| value.trim_matches(['"', '\'']).to_owned())
}
