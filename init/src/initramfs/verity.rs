//! The root through dm-verity.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use disk_layout::{PartitionRole, VERITY_BLOCK_SIZE, VERITY_SUPERBLOCK_LEN, VeritySuperblock};

use super::boot_disk::BootDisk;
use super::failure::Failure;
use crate::cmdline::CommandLine;
use crate::disk::block;
use crate::sys::dm::{DeviceMapper, Target};
use crate::sys::uevent::UeventSocket;

/// `roothash=` from the command line.
pub(super) fn root_hash(cmdline: &CommandLine) -> Result<[u8; 32], Failure> {
    cmdline.value("roothash").and_then(from_hex).ok_or(Failure::NoRootHash)
}

/// Opens the slot's root and returns its device node.
pub(super) fn open(boot_disk: &BootDisk, root_hash: &[u8; 32], uevents: &UeventSocket, deadline: Instant) -> Result<PathBuf, Failure> {
    let data = partition_node(boot_disk, PartitionRole::Root(boot_disk.slot), uevents, deadline)?;
    let hashes = partition_node(boot_disk, PartitionRole::Verity(boot_disk.slot), uevents, deadline)?;
    let mut bytes = [0; VERITY_SUPERBLOCK_LEN];
    File::open(&hashes)
        .and_then(|file| file.read_exact_at(&mut bytes, 0))
        .map_err(|error| Failure::Read { device: hashes.clone(), error })?;
    let superblock =
        VeritySuperblock::parse(&bytes).map_err(|error| Failure::Superblock { device: hashes.clone(), reason: error.to_string() })?;
    let name = format!("root-{}", boot_disk.slot);
    let uuid = format!("CRYPT-VERITY-{}-{name}", superblock.uuid.simple());
    let minor = DeviceMapper::open()
        .and_then(|mapper| mapper.create_read_only(&name, &uuid, &target(&superblock, &data, &hashes, root_hash)))
        .map_err(Failure::Verity)?;
    Ok(PathBuf::from(format!("/dev/dm-{minor}")))
}

/// Whether the image in the other slot is whole, by reading all of it through a device that reports errors instead of panicking.
pub(super) fn other_slot_verifies(boot_disk: &BootDisk) -> Result<bool, String> {
    let slot = boot_disk.slot.other();
    let entry =
        |role: PartitionRole| boot_disk.gpt.partition(role.number()).ok_or_else(|| format!("partition {} is missing", role.number()));
    let node = |role: PartitionRole| {
        let name = boot_disk.disk.partition_name(role.number());
        name.map(|name| block::node(&name)).ok_or_else(|| format!("the kernel does not know partition {}", role.number()))
    };
    let (root, verity) = (PartitionRole::Root(slot), PartitionRole::Verity(slot));
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(entry(root)?.id.as_bytes().iter().chain(entry(verity)?.id.as_bytes())) {
        *to = *from;
    }
    let (data, hashes) = (node(root)?, node(verity)?);
    let mut bytes = [0; VERITY_SUPERBLOCK_LEN];
    File::open(&hashes).and_then(|file| file.read_exact_at(&mut bytes, 0)).map_err(|error| format!("{}: {error}", hashes.display()))?;
    let Ok(superblock) = VeritySuperblock::parse(&bytes) else { return Ok(false) };
    let mut checked = target(&superblock, &data, &hashes, &hash);
    checked.params = checked.params.trim_end_matches(" 1 panic_on_corruption").to_owned();
    let name = format!("check-{slot}");
    let opened = DeviceMapper::open().and_then(|mapper| mapper.create_read_only(&name, &format!("CRYPT-VERITY-{}", name), &checked));
    let Ok(minor) = opened else { return Ok(false) };
    let device = File::open(format!("/dev/dm-{minor}")).map_err(|error| format!("/dev/dm-{minor}: {error}"))?;
    let mut buffer = vec![0; 1 << 20];
    let (mut at, end) = (0, superblock.data_blocks.saturating_mul(VERITY_BLOCK_SIZE));
    while at < end {
        let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..count) else { break };
        if device.read_exact_at(part, at).is_err() {
            return Ok(false);
        }
        at += count as u64;
    }
    Ok(true)
}

/// Waits for the kernel's device of a partition.
pub(super) fn partition_node(
    boot_disk: &BootDisk,
    role: PartitionRole,
    uevents: &UeventSocket,
    deadline: Instant,
) -> Result<PathBuf, Failure> {
    loop {
        if let Some(name) = boot_disk.disk.partition_name(role.number()) {
            return Ok(block::node(&name));
        }
        if uevents.next(deadline).map_err(Failure::Uevents)?.is_none() {
            let wanted = format!("partition {} of {}", role.number(), boot_disk.disk.name);
            return Err(Failure::DiskMissing { wanted, seen: boot_disk.disk.name.clone() });
        }
    }
}

fn target(superblock: &VeritySuperblock, data: &Path, hashes: &Path, root_hash: &[u8; 32]) -> Target {
    let salt = if superblock.salt.is_empty() { "-".to_owned() } else { to_hex(&superblock.salt) };
    Target {
        kind: "verity",
        sectors: superblock.data_blocks.saturating_mul(VERITY_BLOCK_SIZE / 512),
        // The hash tree starts one block behind the superblock.
        params: format!(
            "1 {} {} {VERITY_BLOCK_SIZE} {VERITY_BLOCK_SIZE} {} 1 sha256 {} {salt} 1 panic_on_corruption",
            data.display(),
            hashes.display(),
            superblock.data_blocks,
            to_hex(root_hash),
        ),
    }
}

/// Lower-case hexadecimal.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (to, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *to = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn root_hashes_are_64_digits() {
        let text = "00ff".repeat(16);
        assert_eq!(to_hex(&from_hex(&text).unwrap()), text);
        for bad in ["", "00", &"0g".repeat(32), &"00".repeat(33)] {
            assert!(from_hex(bad).is_none(), "{bad}");
        }
        assert!(root_hash(&CommandLine::parse("quiet")).is_err());
    }

    #[test]
    fn the_table_panics_on_corruption() {
        let superblock = VeritySuperblock { uuid: Uuid::nil(), data_blocks: 10, salt: vec![] };
        let target = target(&superblock, Path::new("/dev/vda2"), Path::new("/dev/vda3"), &[0xab; 32]);
        assert_eq!(target.sectors, 80);
        assert!(target.params.ends_with(" 1 panic_on_corruption"));
        assert_eq!(target.params, format!("1 /dev/vda2 /dev/vda3 4096 4096 10 1 sha256 {} - 1 panic_on_corruption", "ab".repeat(32)));
    }
}
