//! The partition table of an image: where the six partitions lie, and the GPT that says so, in both its copies.

use std::collections::BTreeMap;
use std::ops::Range;

use disk_layout::{ESP_LABEL, PartitionLabel, PartitionRole, STATE_NEW_LABEL, SlotName, VerityPartUuids, Version, partition_type};
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::partition_types::{OperatingSystem, Type};
use uuid::Uuid;

use super::seed::Seed;
use super::sparse::SparseMemory;
use super::{ImageError, MIB};

/// Bytes of a sector.
pub const SECTOR: u64 = 512;

/// "Read-only", from the Discoverable Partitions Specification.
const READ_ONLY: u64 = 1 << 60;

/// Sizes that a recipe may choose, in bytes; they are rounded up to whole MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionSizes {
    /// EFI system partition.
    pub esp: u64,
    /// Each of the two root partitions.
    pub root: u64,
    /// State partition in the image; it grows to the disk when the host boots.
    pub state: u64,
}

impl Default for PartitionSizes {
    fn default() -> Self {
        Self { esp: 512 * MIB, root: 2048 * MIB, state: 64 * MIB }
    }
}

/// Where the partitions lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskLayout {
    partitions: Vec<(PartitionRole, Range<u64>)>,
    size: u64,
}

impl DiskLayout {
    /// Lays out partitions, one after the other from 1 MiB on. The last MiB is the backup table's.
    #[must_use]
    pub fn new(sizes: &PartitionSizes) -> Self {
        let mut at = MIB;
        let partitions = PartitionRole::ALL
            .into_iter()
            .map(|role| {
                let size = match role {
                    PartitionRole::Esp => sizes.esp,
                    PartitionRole::Root(_) => sizes.root,
                    // The tree itself is 1/127 of the data, so 1 % always holds it and its superblock.
                    PartitionRole::Verity(_) => (sizes.root.next_multiple_of(MIB) / 100).max(1),
                    PartitionRole::State => sizes.state.max(1),
                };
                let range = at..at + size.next_multiple_of(MIB);
                at = range.end;
                (role, range)
            })
            .collect();
        Self { partitions, size: at + MIB }
    }

    /// Bytes of the disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where a partition lies, in bytes.
    #[must_use]
    pub fn range(&self, role: PartitionRole) -> Range<u64> {
        self.partitions.iter().find(|(other, _)| *other == role).map_or(0..0, |(_, range)| range.clone())
    }
}

/// Makes protective MBR and both GPTs of a new image: slot a filled, slot b empty, state to be formatted.
///
/// # Errors
/// When the table cannot be expressed.
pub fn build(layout: &DiskLayout, version: &Version, slot_a: VerityPartUuids, seed: &Seed) -> Result<SparseMemory, ImageError> {
    let fail = |error: &dyn std::fmt::Display| ImageError::Gpt(error.to_string());
    let mut disk = SparseMemory::new(layout.size());
    let sectors = u32::try_from(layout.size() / SECTOR - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(&mut disk).map_err(|error| fail(&error))?;
    let config = gpt::GptConfig::new().writable(true).logical_block_size(LogicalBlockSize::Lb512);
    let mut table = config.create_from_device(disk, Some(seed.uuid("disk"))).map_err(|error| fail(&error))?;
    let partitions: BTreeMap<u32, Partition> =
        layout.partitions.iter().map(|(role, range)| (role.number(), partition(*role, range, version, slot_a, seed))).collect();
    table.update_partitions(partitions).map_err(|error| fail(&error))?;
    table.write().map_err(|error| fail(&error))
}

fn partition(role: PartitionRole, range: &Range<u64>, version: &Version, slot_a: VerityPartUuids, seed: &Seed) -> Partition {
    let (name, guid, flags): (String, Uuid, u64) = match role {
        PartitionRole::Esp => (ESP_LABEL.to_owned(), seed.uuid("esp"), 0),
        PartitionRole::Root(SlotName::A) => (PartitionLabel::Root(version.clone()).to_string(), slot_a.root, READ_ONLY),
        PartitionRole::Verity(SlotName::A) => (PartitionLabel::Verity(version.clone()).to_string(), slot_a.verity, READ_ONLY),
        PartitionRole::Root(SlotName::B) => (PartitionLabel::Empty.to_string(), seed.uuid("root-b"), READ_ONLY),
        PartitionRole::Verity(SlotName::B) => (PartitionLabel::Empty.to_string(), seed.uuid("verity-b"), READ_ONLY),
        PartitionRole::State => (STATE_NEW_LABEL.to_owned(), seed.uuid("state"), 0),
    };
    Partition {
        part_type_guid: Type { guid: partition_type(role), os: OperatingSystem::Linux },
        part_guid: guid,
        first_lba: range.start / SECTOR,
        last_lba: range.end / SECTOR - 1,
        flags,
        name,
    }
}

#[cfg(test)]
mod tests {
    use disk_layout::{VERITY_BLOCK_SIZE, hash_area_blocks, partuuids_of_root_hash};

    use super::*;

    #[test]
    fn partitions_are_aligned_and_in_order() {
        let layout = DiskLayout::new(&PartitionSizes { esp: 33 * MIB + 1, ..PartitionSizes::default() });
        let ranges: Vec<_> = PartitionRole::ALL.into_iter().map(|role| layout.range(role)).collect();
        assert_eq!(ranges[0], MIB..35 * MIB);
        assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start && pair[1].start % MIB == 0));
        assert_eq!(layout.size(), ranges[5].end + MIB);
    }

    #[test]
    fn the_hash_partition_holds_the_tree_of_any_slot() {
        for mib in (1..5000).chain([1 << 14, 1 << 20]) {
            let layout = DiskLayout::new(&PartitionSizes { root: mib * MIB, ..PartitionSizes::default() });
            let range = layout.range(PartitionRole::Verity(SlotName::A));
            assert!(hash_area_blocks(mib * MIB / VERITY_BLOCK_SIZE) * VERITY_BLOCK_SIZE <= range.end - range.start, "{mib}");
        }
    }

    #[test]
    fn reads_back() {
        let layout = DiskLayout::new(&PartitionSizes::default());
        let ids = partuuids_of_root_hash(&[0x5a; 32]);
        let seed = Seed::from_content(b"test");
        let disk = build(&layout, &"1.2".parse().unwrap(), ids, &seed).unwrap();
        let table = gpt::GptConfig::new().open_from_device(disk).unwrap();
        assert_eq!(*table.guid(), seed.uuid("disk"));
        let names: Vec<&str> = table.partitions().values().map(|partition| partition.name.as_str()).collect();
        assert_eq!(names, ["esp", "garboard_1.2", "garboard_1.2_verity", "_empty", "_empty", "state-new"]);
        assert_eq!(table.partitions()[&2].part_guid, ids.root);
        assert_eq!(table.partitions()[&3].part_guid, ids.verity);
        table.backup_header().unwrap();
    }
}
