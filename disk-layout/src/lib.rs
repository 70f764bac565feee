//! What the disk of a Garboard host looks like: partition names and types, slots, UKI file names with
//! their boot counters, versions and their order, the dm-verity superblock, and the partition table itself.
//!
//! The builder writes this layout, `init` boots from it and the update agent rewrites half of it, so the
//! facts live here once. The crate opens nothing (a partition table is read from
//! and written to whatever the caller passes) and promises that everything it formats it can parse back.

#[deny(clippy::indexing_slicing)]
pub mod gpt;
mod partition;
mod uki;
mod verity;
mod version;

pub use partition::{
    EMPTY_LABEL, ESP_LABEL, IMAGE_ID, PartitionLabel, PartitionRole, STATE_LABEL, STATE_NEW_LABEL, SlotName, VerityPartUuids,
    partition_type, partuuids_of_root_hash,
};
pub use uki::{BootCounter, UkiName, UkiNameError};
pub use verity::{SuperblockError, VERITY_BLOCK_SIZE, VERITY_SUPERBLOCK_LEN, VeritySuperblock, hash_area_blocks};
pub use version::{MAX_VERSION_LEN, Version, VersionError};
