//! What would boot: the firmware's view of the disk, systemd-boot's choice, and the verified root behind it.
//!
//! systemd-boot takes each `.efi` of `EFI/Linux` that is a program with a version in it, sorts entries that have no tries left
//! last, then newer versions first, then more tries left, and starts the first (seen with 258).

use std::cmp::Reverse;

use disk_layout::{BootCounter, Version};

use super::disk::Disk;
use super::fixture::{Release, uki_version};
use crate::esp::fat::Volume;
use crate::slots::Slots;
use crate::verity;

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    counter: Option<BootCounter>,
    version: Version,
    content: Vec<u8>,
}

/// The boot that a disk leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    pub version: Version,
    /// The name of its UKI.
    pub name: String,
    /// Starts that failed before.
    pub failures: usize,
}

fn counter(name: &str) -> Option<BootCounter> {
    let stem = name.get(..name.len() - 4)?;
    let (_, tries) = stem.rsplit_once('+')?;
    let (left, done) = tries.split_once('-').unwrap_or((tries, "0"));
    Some(BootCounter { left: left.parse().ok()?, done: done.parse().ok()? })
}

fn entries(disk: &Disk) -> Result<Vec<Entry>, String> {
    let volume = Volume::read(disk).map_err(|error| error.to_string())?;
    let mut entries = Vec::new();
    for file in volume.ukis().filter(|file| file.name().to_ascii_lowercase().ends_with(".efi")) {
        let mut content = Vec::new();
        // A file that ends early is still a file to the firmware.
        let _ = volume.read_file(disk, file, &mut |data| content.extend_from_slice(data));
        if let Some(version) = uki_version(&content) {
            entries.push(Entry { name: file.name().to_owned(), counter: counter(file.name()), version, content });
        }
    }
    Ok(entries)
}

/// Boots until something comes up.
pub fn boot(disk: &Disk, releases: &[Release]) -> Result<Boot, String> {
    let mut entries = entries(disk)?;
    let slots = Slots::read(disk).map_err(|error| error.to_string())?;
    for failures in 0..8 {
        entries.sort_by_key(|entry| {
            let spent = entry.counter.is_some_and(|counter| counter.left == 0);
            (spent, Reverse(entry.version.clone()), Reverse(entry.counter.map_or(u32::MAX, |counter| counter.left)), entry.name.clone())
        });
        let entry = entries.first_mut().ok_or("nothing to boot")?;
        if let Some(counter) = &mut entry.counter
            && counter.left > 0
        {
            *counter = BootCounter { left: counter.left - 1, done: counter.done + 1 };
        }
        let release = releases.iter().find(|release| release.uki == entry.content);
        let slot = release.and_then(|release| slots.find(&release.image.uki.root_hash));
        if let (Some(release), Some(slot)) = (release, slot)
            && verity::verifies(disk, slot, &release.image.uki.root_hash).map_err(|error| error.to_string())?
        {
            return Ok(Boot { version: release.image.uki.version.clone(), name: entry.name.clone(), failures });
        }
        if entry.counter.is_none_or(|counter| counter.left == 0) && entries.first().is_some_and(|entry| entry.counter.is_none()) {
            return Err(format!("a settled entry does not start: {}", entries[0].name));
        }
    }
    Err("no start succeeds".to_owned())
}
