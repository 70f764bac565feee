//! The trial of a new version: what a UKI's name says about this boot, the verdict that is kept on state for the update agent, and
//! the renames on the ESP that follow from it.
//!
//! PID 1 decides (`engine::health`) and starts `init trial good|failed` for what may block: state, then the ESP. The verdict is stored
//! first, so that after a power cut between the two the name can be put right from it.

mod checks;
mod esp;
mod verdict;

use std::path::Path;
use std::process::ExitCode;

use disk_layout::{BootCounter, UkiName, Version};

use crate::boot::BootRecord;
use crate::disk::block::Disk;
use crate::kmsg;

pub use checks::main as health_checks;
pub use verdict::Verdict;

/// Whether a boot is a trial: its UKI's name carries a counter that the loader has used. `+0` without tries used is an entry that was
/// spent or set aside and is booted since there is nothing better.
#[must_use]
pub fn is_trial(uki: &str) -> bool {
    matches!(uki.parse::<UkiName>(), Ok(UkiName { counter: Some(BootCounter { left, done }), .. }) if left > 0 || done > 0)
}

/// Has the kernel panic, and so reboot, on what would otherwise hang: a trial that nobody can reach must come back by itself.
/// Kernels without one of the checks have nothing to set.
pub fn panic_on_hangs(on: bool) {
    for name in ["hung_task_panic", "softlockup_panic", "hardlockup_panic"] {
        let _ = std::fs::write(Path::new("/proc/sys/kernel").join(name), if on { "1" } else { "0" });
    }
    if on {
        let _ = std::fs::write("/proc/sys/kernel/panic_on_oops", "1");
    }
}

/// `init trial good` and `init trial failed REASON`: stores the verdict about this boot and gives its UKI the name that goes with it.
pub fn main(args: &[String]) -> ExitCode {
    let record = BootRecord::load();
    let (good, reason) = match args {
        [word] if word == "good" => (true, String::new()),
        [word, reason] if word == "failed" => (false, reason.clone()),
        _ => {
            eprintln!("init trial: use: init trial good, or init trial failed REASON");
            return ExitCode::from(2);
        }
    };
    let stored = Verdict::new(&record, good, &reason).store();
    if let Err(error) = &stored {
        kmsg::error(&error.to_string());
    }
    if !is_trial(&record.uki) {
        return if stored.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let renamed = disk_of(&record).and_then(|disk| if good { settle(&disk, &record.version) } else { spend(&disk, &record.version) });
    match renamed {
        Ok(()) if stored.is_ok() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(reason) => {
            kmsg::error(&format!("cannot change the boot entry of version {}: {reason}", record.version));
            ExitCode::FAILURE
        }
    }
}

fn disk_of(record: &BootRecord) -> Result<Disk, String> {
    let found = Disk::all(Path::new("/sys")).into_iter().find(|disk| disk.node() == Path::new(&record.disk));
    found.ok_or_else(|| format!("the disk {} is gone", record.disk))
}

/// Gives a version's UKI its name without a counter: it is good.
///
/// # Errors
/// When the ESP cannot be changed.
pub fn settle(disk: &Disk, version: &str) -> Result<(), String> {
    let version: Version = version.parse().map_err(|error: disk_layout::VersionError| error.to_string())?;
    esp::rename(disk, &version, &UkiName::settled(version.clone())).map_err(|error| error.to_string())
}

/// Gives a version's UKI a name that the loader takes only when there is nothing else.
///
/// # Errors
/// When the ESP cannot be changed.
pub fn spend(disk: &Disk, version: &str) -> Result<(), String> {
    let version: Version = version.parse().map_err(|error: disk_layout::VersionError| error.to_string())?;
    let spent = UkiName { version: version.clone(), counter: Some(BootCounter { left: 0, done: 0 }) };
    esp::rename(disk, &version, &spent).map_err(|error| error.to_string())
}

/// Names of all UKIs on the ESP.
///
/// # Errors
/// When the ESP cannot be read.
pub fn entries(disk: &Disk) -> Result<Vec<UkiName>, String> {
    esp::names(disk).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_a_trial_while_its_uki_has_a_counter_that_the_loader_used() {
        for trial in ["garboard_1.1+2-1.efi", "garboard_1.1+0-3.efi", "garboard_1.1+3.efi"] {
            assert!(is_trial(trial), "{trial}");
        }
        for settled in ["garboard_1.1.efi", "garboard_1.1+0.efi", "", "GARBOA~1.EFI", "other+1-2.efi"] {
            assert!(!is_trial(settled), "{settled}");
        }
    }
}
