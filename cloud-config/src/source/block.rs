//! Which disk has which file system label, by reading the disks' first sectors: ISO 9660 and FAT are all that sources use.
//!
//! Partitions that are this system's own are not opened.

use crate::sys::is_empty_drive;
use rustix::fs::{Mode, OFlags};
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// A disk or partition with a file system label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// `/dev/vdb`.
    pub device: PathBuf,
    /// As written on it.
    pub label: String,
    /// `iso9660` or `vfat`.
    pub filesystem: &'static str,
}

/// All disks with a readable label.
pub fn labelled(root: &Path) -> Vec<Labelled> {
    let Ok(entries) = fs::read_dir(root.join("sys/class/block")) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names.into_iter().filter(|name| worth_opening(root, name)).filter_map(|name| probe(&root.join("dev").join(name))).collect()
}

fn worth_opening(root: &Path, name: &str) -> bool {
    if ["loop", "ram", "zram", "dm-", "md", "nbd", "fd"].iter().any(|p| name.starts_with(p)) {
        return false;
    }
    let dir = root.join("sys/class/block").join(name);
    let size = fs::read_to_string(dir.join("size")).ok().and_then(|s| s.trim().parse::<u64>().ok());
    if size == Some(0) {
        return false;
    }
    // The system's own partitions have these names (the crate `disk-layout` says so).
    let uevent = fs::read_to_string(dir.join("uevent")).unwrap_or_default();
    !uevent
        .lines()
        .filter_map(|l| l.strip_prefix("PARTNAME="))
        .any(|n| n == "esp" || n == "_empty" || n.starts_with("state") || n.starts_with("garboard_"))
}

fn probe(device: &Path) -> Option<Labelled> {
    // Without O_NONBLOCK, opening a drive without a medium may wait for one.
    let fd = rustix::fs::open(device, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).ok()?;
    // Other devices answer such a request with an error at once, but only these are asked.
    if device.file_name().is_some_and(|n| n.to_string_lossy().starts_with("sr")) && is_empty_drive(&fd) {
        return None;
    }
    let mut file = fs::File::from(fd);
    let mut start = vec![0_u8; 512];
    file.read_exact(&mut start).ok()?;
    let found = |label: String, filesystem| Some(Labelled { device: device.to_owned(), label, filesystem });
    if let Some(label) = fat_label(&start) {
        return found(label, "vfat");
    }
    file.seek(SeekFrom::Start(0x8000)).ok()?;
    file.read_exact(start.get_mut(..128)?).ok()?;
    iso_label(&start).and_then(|label| found(label, "iso9660"))
}

/// The volume id of a primary volume descriptor.
fn iso_label(descriptor: &[u8]) -> Option<String> {
    let is_primary = descriptor.first() == Some(&1) && descriptor.get(1..6) == Some(b"CD001".as_slice());
    is_primary.then(|| text(descriptor.get(40..72).unwrap_or_default()))
}

/// The label in a FAT boot sector: FAT32 has it at 71, FAT12 and FAT16 at 43, after the signature 0x28 or 0x29.
fn fat_label(sector: &[u8]) -> Option<String> {
    if sector.get(510..512) != Some([0x55, 0xaa].as_slice()) {
        return None;
    }
    [(66, 71, 82), (38, 43, 54)].into_iter().find_map(|(signature, label, kind)| {
        let valid = matches!(sector.get(signature), Some(0x28 | 0x29)) && sector.get(kind..kind + 3) == Some(b"FAT".as_slice());
        valid.then(|| text(sector.get(label..label + 11).unwrap_or_default()))
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches([' ', '\0']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_from_images() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("dev")).unwrap();
        for (name, bytes) in [("vdb", fat("CIDATA     ", 71, 66, 82)), ("vdc", fat("config-2   ", 43, 38, 54)), ("vdd", iso("cidata"))] {
            fs::create_dir_all(dir.path().join("sys/class/block").join(name)).unwrap();
            fs::write(dir.path().join("dev").join(name), bytes).unwrap();
        }
        fs::create_dir_all(dir.path().join("sys/class/block/vda1")).unwrap();
        fs::write(dir.path().join("sys/class/block/vda1/uevent"), "PARTNAME=esp\n").unwrap();
        fs::write(dir.path().join("dev/vda1"), fat("CIDATA     ", 71, 66, 82)).unwrap();
        let found: Vec<_> = labelled(dir.path()).into_iter().map(|l| (l.label, l.filesystem)).collect();
        assert_eq!(found, vec![("CIDATA".into(), "vfat"), ("config-2".into(), "vfat"), ("cidata".into(), "iso9660")]);
    }

    fn fat(label: &str, at: usize, signature: usize, kind: usize) -> Vec<u8> {
        let mut sector = vec![0_u8; 1024];
        sector[at..at + 11].copy_from_slice(label.as_bytes());
        sector[signature] = 0x29;
        sector[kind..kind + 5].copy_from_slice(b"FAT16");
        sector[510..512].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    fn iso(label: &str) -> Vec<u8> {
        let mut image = vec![0_u8; 0x8800];
        image[0x8000] = 1;
        image[0x8001..0x8006].copy_from_slice(b"CD001");
        image[0x8028..0x8048].fill(b' ');
        image[0x8028..0x8028 + label.len()].copy_from_slice(label.as_bytes());
        image
    }
}
