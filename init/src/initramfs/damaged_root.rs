//! What follows when a boot stops in this stage. A trial reboots: the loader counts its tries. A settled entry would be started again
//! for ever, so when its root is damaged the other slot is made the choice, if that is whole; if not, the machine stops and says so.

use disk_layout::{BootCounter, UkiName};

use super::boot_disk::BootDisk;
use super::load::Drivers;
use super::{starts, verity};
use crate::boot::BootRecord;
use crate::cmdline::CommandLine;

/// What to do after the cause was said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Reboot: the cause may pass, or the loader goes on to another entry.
    Reboot,
    /// Reboot, after saying this.
    RebootInto(String),
    /// Stop for good, after saying this.
    Stop(String),
}

/// Decides, and carries out what belongs to it on the ESP.
pub(super) fn next(record: &BootRecord, boot_disk: &BootDisk) -> Next {
    if loader_counts(&record.uki) {
        return Next::Reboot;
    }
    let slot = boot_disk.slot;
    // Whatever else is wrong may pass, or is the same in the other slot.
    if verity::slot_verifies(boot_disk, slot) != Ok(false) {
        return Next::Reboot;
    }
    let name = |slot| starts::version_of(boot_disk, slot).map_or_else(|| "of no version".to_owned(), |version| version.to_string());
    let damaged = format!("the root of version {} in slot {slot} is damaged", name(slot));
    // Once the root was entered, they are loaded already.
    if let Ok(mut drivers) = Drivers::read(&CommandLine::of_kernel()) {
        drivers.load_for_esp();
    }
    match starts::spend_if_better(boot_disk).and_then(|other| starts::make_choice(boot_disk, &other).map(|()| other)) {
        Ok(other) => {
            Next::RebootInto(format!("{damaged}: it is given up, the next boot starts version {other} from slot {}", slot.other()))
        }
        Err(why) => Next::Stop(format!(
            "{damaged}, and there is nothing better to start: {why}. Nothing more happens until somebody restarts or reinstalls this machine"
        )),
    }
}

/// Whether each start of an entry brings the loader nearer to another one.
fn loader_counts(uki: &str) -> bool {
    matches!(uki.parse::<UkiName>(), Ok(UkiName { counter: Some(BootCounter { left, .. }), .. }) if left > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entries_with_tries_left_are_started_again_without_a_look() {
        assert!(loader_counts("garboard_1.1+2-1.efi"));
        for name in ["garboard_1.1.efi", "garboard_1.1+0-3.efi", "garboard_1.1+0.efi", ""] {
            assert!(!loader_counts(name), "{name}");
        }
    }
}
