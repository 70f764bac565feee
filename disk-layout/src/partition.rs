//! The GPT of an image: six partitions in fixed order, by the Discoverable Partitions Specification
//! (<https://uapi-group.org/specifications/specs/discoverable_partitions_specification/>).

use std::fmt;
use std::str::FromStr;

use uuid::{Uuid, uuid};

use crate::Version;

/// Prefix of slot labels and UKI names.
pub const IMAGE_ID: &str = "garboard";
/// Label of the EFI system partition.
pub const ESP_LABEL: &str = "esp";
/// Label of a slot's partitions that hold nothing bootable.
pub const EMPTY_LABEL: &str = "_empty";
/// Label of a state partition that was never formatted; only this one may be formatted.
pub const STATE_NEW_LABEL: &str = "state-new";
/// Label of the state partition in use.
pub const STATE_LABEL: &str = "state";

/// One of the two halves of the disk that hold a root file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlotName {
    /// Partitions 2 and 3.
    A,
    /// Partitions 4 and 5.
    B,
}

impl SlotName {
    /// The slot that is not this one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}

/// What a partition is for. The order of the variants is the order on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PartitionRole {
    /// systemd-boot and the UKIs, FAT32.
    Esp,
    /// A slot's EROFS.
    Root(SlotName),
    /// A slot's dm-verity superblock and hash tree.
    Verity(SlotName),
    /// ext4, everything that may change.
    State,
}

impl PartitionRole {
    /// All partitions in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Esp, Self::Root(SlotName::A), Self::Verity(SlotName::A), Self::Root(SlotName::B), Self::Verity(SlotName::B), Self::State];

    /// The partition's number in the GPT, from 1.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Esp => 1,
            Self::Root(SlotName::A) => 2,
            Self::Verity(SlotName::A) => 3,
            Self::Root(SlotName::B) => 4,
            Self::Verity(SlotName::B) => 5,
            Self::State => 6,
        }
    }
}

/// The partition type GUID of a role. Root types are those of x86-64.
#[must_use]
pub fn partition_type(role: PartitionRole) -> Uuid {
    match role {
        PartitionRole::Esp => uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
        PartitionRole::Root(_) => uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
        PartitionRole::Verity(_) => uuid!("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"),
        PartitionRole::State => uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4"),
    }
}

/// The label of one of a slot's two partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionLabel {
    /// `_empty`
    Empty,
    /// `garboard_<version>`
    Root(Version),
    /// `garboard_<version>_verity`
    Verity(Version),
}

impl fmt::Display for PartitionLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str(EMPTY_LABEL),
            Self::Root(version) => write!(f, "{IMAGE_ID}_{version}"),
            Self::Verity(version) => write!(f, "{IMAGE_ID}_{version}_verity"),
        }
    }
}

impl FromStr for PartitionLabel {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == EMPTY_LABEL {
            return Ok(Self::Empty);
        }
        let rest = text.strip_prefix(IMAGE_ID).and_then(|rest| rest.strip_prefix('_')).ok_or(())?;
        match rest.strip_suffix("_verity") {
            Some(version) => version.parse().map(Self::Verity).map_err(|_| ()),
            None => rest.parse().map(Self::Root).map_err(|_| ()),
        }
    }
}

/// The unique GUIDs of a slot's partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerityPartUuids {
    /// First half of the root hash: the root partition's.
    pub root: Uuid,
    /// Second half: the hash partition's.
    pub verity: Uuid,
}

/// The partition GUIDs that belong to a verity root hash: its two halves, as the Discoverable Partitions
/// Specification has them, so that a UKI finds its own slot by `roothash=` alone.
#[must_use]
pub fn partuuids_of_root_hash(root_hash: &[u8; 32]) -> VerityPartUuids {
    let half = |offset: usize| {
        let mut bytes = [0_u8; 16];
        for (to, from) in bytes.iter_mut().zip(root_hash.iter().skip(offset)) {
            *to = *from;
        }
        Uuid::from_bytes(bytes)
    };
    VerityPartUuids { root: half(0), verity: half(16) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_order() {
        let numbers: Vec<u32> = PartitionRole::ALL.iter().map(|role| role.number()).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn labels_round_trip() {
        for text in ["_empty", "garboard_1.2~rc1", "garboard_1.2~rc1_verity"] {
            assert_eq!(text.parse::<PartitionLabel>().unwrap().to_string(), text);
        }
        for text in ["", "garboard", "garboard_", "other_1", "garboard_A"] {
            assert!(text.parse::<PartitionLabel>().is_err(), "{text}");
        }
    }

    #[test]
    fn root_hash_halves() {
        let mut hash = [0x11; 32];
        hash[16..].fill(0x22);
        let ids = partuuids_of_root_hash(&hash);
        assert_eq!(ids.root.to_string(), "11111111-1111-1111-1111-111111111111");
        assert_eq!(ids.verity.to_string(), "22222222-2222-2222-2222-222222222222");
    }
}
