//! Counting starts that were never called good: spent tries alone stop nothing in systemd-boot, so a host that resets
//! before it can report would loop for ever. After three such starts the entry is spent, if the other slot is any better; if not,
//! the boot goes no further than rescue, or nowhere at all when its own root is damaged.

use std::fs;
use std::io::Write;
use std::path::Path;

use disk_layout::{BootCounter, PartitionLabel, PartitionRole, SlotName, UkiName, Version};

use super::boot_disk::BootDisk;
use super::failure::Failure;
use super::verity;
use crate::boot::{BootRecord, STARTS};
use crate::kmsg;
use crate::trial::{self, Verdict};

/// Starts in a row that may fail.
const LIMIT: u32 = 3;

/// Adds this start to the counter on state. Starts of another version do not count against this one.
///
/// # Errors
/// When it goes no further: there were too many, and not even rescue could be relied on.
pub(super) fn count(record: &mut BootRecord, boot_disk: &BootDisk) -> Result<(), Failure> {
    let before = fs::read_to_string(STARTS).ok().map_or(0, |text| unfinished(&text, &record.version));
    record.unfinished_starts = before.saturating_add(1);
    if before >= LIMIT {
        too_many(record, boot_disk)?;
    }
    let text = format!("{} {}\n", record.unfinished_starts, record.version);
    let written = fs::create_dir_all(Path::new(STARTS).parent().unwrap_or(Path::new("/"))).and_then(|()| {
        let mut file = fs::File::create(STARTS)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    if let Err(error) = written {
        record.warnings.push(format!("cannot count this start in {STARTS}: {error}"));
    }
    Ok(())
}

/// Goes to the other slot when it is whole and this one has not been given up before; else has the boot stop in rescue, which would
/// only crash again from a damaged root.
fn too_many(record: &mut BootRecord, boot_disk: &BootDisk) -> Result<(), Failure> {
    let reason = format!("{} starts in a row ended before they were healthy", record.unfinished_starts.saturating_sub(1));
    match spend_if_better(boot_disk) {
        Ok(other) => {
            let stored = Verdict::new(record, false, &reason).store();
            if let Err(error) = stored {
                kmsg::error(&error.to_string());
            }
            kmsg::log(kmsg::Level::Emergency, &format!("{reason}: version {} is given up, rebooting into {other}", record.version));
            rustix::fs::sync();
            let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
            // The kernel refused; what is left is to look at the machine.
            record.rescue = reason;
        }
        Err(_) if verity::slot_verifies(boot_disk, boot_disk.slot) == Ok(false) => return Err(Failure::DamagedRoot(reason)),
        Err(why) => record.rescue = format!("{reason}, and there is nothing better to start: {why}"),
    }
    record.warnings.push(format!("stopping in rescue: {}", record.rescue));
    Ok(())
}

/// Spends the entry that was booted; gives the version that will be started instead.
pub(super) fn spend_if_better(boot_disk: &BootDisk) -> Result<Version, String> {
    let own = version_of(boot_disk, boot_disk.slot).ok_or("this image has no version")?;
    let names = trial::entries(&boot_disk.disk)?;
    let other = better(&own, &names, version_of(boot_disk, boot_disk.slot.other()).as_ref())?;
    if !verity::slot_verifies(boot_disk, boot_disk.slot.other())? {
        return Err(format!("the root of version {other} in the other slot is damaged"));
    }
    trial::spend(&boot_disk.disk, own.as_str())?;
    Ok(other)
}

/// Makes an entry whose tries are spent the loader's choice again: of two spent ones it would take the newer, which is damaged.
pub(super) fn make_choice(boot_disk: &BootDisk, version: &Version) -> Result<(), String> {
    let spent = |name: &UkiName| name.version == *version && matches!(name.counter, Some(BootCounter { left: 0, .. }));
    if trial::entries(&boot_disk.disk)?.iter().any(spent) { trial::settle(&boot_disk.disk, version.as_str()) } else { Ok(()) }
}

/// The version in a slot, by its label.
pub(super) fn version_of(boot_disk: &BootDisk, slot: SlotName) -> Option<Version> {
    let number = PartitionRole::Root(slot).number();
    match boot_disk.gpt.partition(number)?.label.parse() {
        Ok(PartitionLabel::Root(version)) => Some(version),
        _ => None,
    }
}

/// Whether going to the other slot makes sense, by the names on the ESP.
fn better(own: &Version, names: &[UkiName], other: Option<&Version>) -> Result<Version, String> {
    let spent = |name: &&UkiName| matches!(name.counter, Some(BootCounter { left: 0, done: 0 }));
    if names.iter().filter(|name| name.version == *own).any(|name| spent(&name)) {
        return Err(format!("version {own} was given up before"));
    }
    let other = other.ok_or("the other slot is empty")?;
    if names.iter().any(|name| name.version == *other) { Ok(other.clone()) } else { Err(format!("version {other} has no UKI")) }
}

fn unfinished(text: &str, version: &str) -> u32 {
    match text.trim().split_once(' ') {
        Some((count, of)) if of == version => count.parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_given_up_once_and_only_for_another_one() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        let names = |list: &[&str]| list.iter().map(|name| name.parse().unwrap()).collect::<Vec<UkiName>>();
        let (own, other) = (version("1.1"), version("1.0"));
        assert_eq!(better(&own, &names(&["garboard_1.1.efi", "garboard_1.0.efi"]), Some(&other)), Ok(other.clone()));
        assert_eq!(better(&own, &names(&["garboard_1.1+0-3.efi", "garboard_1.0+0.efi"]), Some(&other)), Ok(other.clone()));
        assert!(better(&own, &names(&["garboard_1.1+0.efi", "garboard_1.0.efi"]), Some(&other)).unwrap_err().contains("before"));
        assert!(better(&own, &names(&["garboard_1.1.efi"]), Some(&other)).unwrap_err().contains("no UKI"));
        assert!(better(&own, &names(&["garboard_1.1.efi"]), None).unwrap_err().contains("empty"));
    }

    #[test]
    fn only_starts_of_this_version_count() {
        assert_eq!(unfinished("2 1.0\n", "1.0"), 2);
        assert_eq!(unfinished("2 1.0\n", "1.1"), 0);
        assert_eq!(unfinished("", "1.1"), 0);
        assert_eq!(unfinished("x 1.1", "1.1"), 0);
    }
}
