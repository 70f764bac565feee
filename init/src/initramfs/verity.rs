//! The root through dm-verity.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use disk_layout::{PartitionRole, SlotName, VERITY_BLOCK_SIZE, VERITY_SUPERBLOCK_LEN, VeritySuperblock};

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

/// The open root.
#[derive(Debug)]
pub(super) struct Root {
    /// Its device.
    pub(super) device: PathBuf,
    name: String,
    target: Target,
}

impl Root {
    /// From now on the kernel panics when it reads anything that is damaged. Before, while this stage can still do something
    /// about it, a damaged block is an error of whoever reads it.
    pub(super) fn panic_on_corruption(&self) -> Result<(), Failure> {
        let params = format!("{} 1 panic_on_corruption", self.target.params);
        let target = Target { params, ..self.target.clone() };
        DeviceMapper::open().and_then(|mapper| mapper.load_read_only(&self.name, &target)).map_err(Failure::Verity)
    }
}

/// Opens the slot's root.
pub(super) fn open(boot_disk: &BootDisk, root_hash: &[u8; 32], uevents: &UeventSocket, deadline: Instant) -> Result<Root, Failure> {
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
    let target = target(&superblock, &data, &hashes, root_hash);
    let minor = DeviceMapper::open().and_then(|mapper| mapper.create_read_only(&name, &uuid, &target)).map_err(Failure::Verity)?;
    Ok(Root { device: PathBuf::from(format!("/dev/dm-{minor}")), name, target })
}

/// Whether the image in a slot is whole, by reading all of it.
pub(super) fn slot_verifies(boot_disk: &BootDisk, slot: SlotName) -> Result<bool, String> {
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
    let name = format!("check-{slot}");
    let checked = target(&superblock, &data, &hashes, &hash);
    let mapper = DeviceMapper::open().map_err(|error| format!("the device mapper: {error}"))?;
    let Ok(minor) = mapper.create_read_only(&name, &format!("CRYPT-VERITY-{name}"), &checked) else { return Ok(false) };
    let whole = read_all(Path::new(&format!("/dev/dm-{minor}")), superblock.data_blocks.saturating_mul(VERITY_BLOCK_SIZE));
    let _ = mapper.remove(&name);
    Ok(whole)
}

fn read_all(device: &Path, end: u64) -> bool {
    let Ok(device) = File::open(device) else { return false };
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < end {
        let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..count) else { return false };
        if device.read_exact_at(part, at).is_err() {
            return false;
        }
        at += count as u64;
    }
    true
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
            "1 {} {} {VERITY_BLOCK_SIZE} {VERITY_BLOCK_SIZE} {} 1 sha256 {} {salt}",
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
    fn the_table_is_the_kernels() {
        let superblock = VeritySuperblock { uuid: Uuid::nil(), data_blocks: 10, salt: vec![] };
        let target = target(&superblock, Path::new("/dev/vda2"), Path::new("/dev/vda3"), &[0xab; 32]);
        assert_eq!(target.sectors, 80);
        assert_eq!(target.params, format!("1 /dev/vda2 /dev/vda3 4096 4096 10 1 sha256 {} -", "ab".repeat(32)));
    }
}
