//! The EFI system partition: what the loader chooses from.
//!
//! It is changed through [`EspFiles`] (the kernel's vfat on a host, `fatfs` on a recorded disk in tests) and looked at, unmounted, by
//! [`fat`], which sees what the firmware will see. vfat promises nothing at a power cut: after a rename both names may be
//! there and share their clusters, or none. So [`fat::mend`] comes before any unlink.

pub mod fat;
pub mod mounted;

use std::cmp::Reverse;
use std::io::{self, Read};

use disk_layout::{BootCounter, UkiName, Version};

/// The directory of unified kernel images.
pub const UKI_DIR: &str = "EFI/Linux";
/// Ending of a UKI that is being written; the loader looks at `.efi` only.
pub const PART_SUFFIX: &str = ".part";
/// The first bytes of a UKI, `MZ`. While they are zero the loader does not take the file for a program. Writing them is what commits an
/// update: a sector of which nothing but these two bytes changes, so even one that is torn leaves a whole UKI or none.
pub const HEAD: usize = 2;

/// A file of [`UKI_DIR`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspFile {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
}

/// Changes of [`UKI_DIR`]. Each is durable when it returns; none is atomic.
pub trait EspFiles {
    /// All files there.
    ///
    /// # Errors
    /// When the file system cannot be read.
    fn list(&mut self) -> io::Result<Vec<EspFile>>;
    /// Writes a new file.
    ///
    /// # Errors
    /// When there is no room or the device fails.
    fn create(&mut self, name: &str, content: &mut dyn Read) -> io::Result<()>;
    /// Overwrites the first [`HEAD`] bytes in place.
    ///
    /// # Errors
    /// When the device fails.
    fn write_head(&mut self, name: &str, head: &[u8; HEAD]) -> io::Result<()>;
    /// Renames; the new name must be free.
    ///
    /// # Errors
    /// When the device fails.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes.
    ///
    /// # Errors
    /// When the device fails.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Bytes that are free.
    ///
    /// # Errors
    /// When the file system cannot be read.
    fn free(&mut self) -> io::Result<u64>;
    /// Lets go of the file system, so that it can be read raw.
    ///
    /// # Errors
    /// When it cannot be unmounted.
    fn finish(&mut self) -> io::Result<()>;
}

/// The name under which a version's UKI is written.
#[must_use]
pub fn part_name(version: &Version) -> String {
    format!("{}_{version}{PART_SUFFIX}", disk_layout::IMAGE_ID)
}

/// A UKI's name on its first trial.
#[must_use]
pub fn trial_name(version: &Version) -> UkiName {
    UkiName { version: version.clone(), counter: Some(BootCounter { left: 3, done: 0 }) }
}

/// A UKI's name when it must not be chosen: set aside, or failed.
#[must_use]
pub fn spent_name(version: &Version) -> UkiName {
    UkiName { version: version.clone(), counter: Some(BootCounter { left: 0, done: 0 }) }
}

/// Whether a name is that of a UKI that was set aside by us; `+0-3` is a trial's last try instead.
#[must_use]
pub fn is_spent(name: &UkiName) -> bool {
    matches!(name.counter, Some(BootCounter { left: 0, done: 0 }))
}

/// Of two names that a torn rename left for one file, the one that the rename was to end with has the greater rank:
/// set aside, then settled, then the trial that has come further.
#[must_use]
pub fn rank(name: &str) -> (u8, Reverse<u32>) {
    match name.parse::<UkiName>() {
        Ok(name) if is_spent(&name) => (4, Reverse(0)),
        Ok(UkiName { counter: None, .. }) => (3, Reverse(0)),
        Ok(UkiName { counter: Some(BootCounter { left, .. }), .. }) => (2, Reverse(left)),
        // An entry that has lost its long name.
        Err(_) if name.to_ascii_lowercase().ends_with(".efi") => (1, Reverse(0)),
        Err(_) => (0, Reverse(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_names_the_later_one_wins() {
        let order = [
            "garboard_1.part",
            "GARBOA~1.EFI",
            "garboard_1+3.efi",
            "garboard_1+2-1.efi",
            "garboard_1+0-3.efi",
            "garboard_1.efi",
            "garboard_1+0.efi",
        ];
        for pair in order.windows(2) {
            assert!(rank(pair[0]) < rank(pair[1]), "{} {}", pair[0], pair[1]);
        }
    }
}
