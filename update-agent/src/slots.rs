//! The two slots as the partition table describes them.

use disk_layout::gpt::{Gpt, GptError};
use disk_layout::{EMPTY_LABEL, PartitionLabel, PartitionRole, SlotName, VerityPartUuids, Version, partuuids_of_root_hash};
use thiserror::Error;
use uuid::Uuid;

use crate::target::{Target, read_table, write_table};

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing that may be booted.
    Empty,
    /// A whole image.
    Image {
        /// By its label.
        version: Version,
        /// By its GUIDs, which are the halves of the root hash.
        root_hash: [u8; 32],
    },
    /// Labels that contradict each other, or are not ours.
    Unknown,
}

/// Why the slots cannot be read or changed.
#[derive(Debug, Error)]
pub enum SlotError {
    /// The partition table cannot be used.
    #[error("the partition table: {0}")]
    Table(#[from] GptError),
    /// It is not that of a Garboard disk.
    #[error("the partition table has no partition {0}: this is no disk that Garboard made")]
    Missing(u32),
}

/// The content of both slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Partitions 2 and 3.
    pub a: Content,
    /// Partitions 4 and 5.
    pub b: Content,
}

impl Slots {
    /// Reads them from the disk.
    ///
    /// # Errors
    /// When there is no usable partition table.
    pub fn read(target: &dyn Target) -> Result<Self, SlotError> {
        let table = read_table(target)?;
        Ok(Self { a: content(&table, SlotName::A)?, b: content(&table, SlotName::B)? })
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, slot: SlotName) -> &Content {
        match slot {
            SlotName::A => &self.a,
            SlotName::B => &self.b,
        }
    }

    /// The slot that holds the image with a root hash.
    #[must_use]
    pub fn find(&self, wanted: &[u8; 32]) -> Option<SlotName> {
        [SlotName::A, SlotName::B]
            .into_iter()
            .find(|&slot| matches!(self.get(slot), Content::Image { root_hash, .. } if root_hash == wanted))
    }

    /// The slot that holds a version.
    #[must_use]
    pub fn find_version(&self, wanted: &Version) -> Option<SlotName> {
        [SlotName::A, SlotName::B].into_iter().find(|&slot| matches!(self.get(slot), Content::Image { version, .. } if version == wanted))
    }
}

fn content(table: &Gpt, slot: SlotName) -> Result<Content, SlotError> {
    let get = |role: PartitionRole| table.partition(role.number()).ok_or(SlotError::Missing(role.number()));
    let (root, verity) = (get(PartitionRole::Root(slot))?, get(PartitionRole::Verity(slot))?);
    if root.label == EMPTY_LABEL || verity.label == EMPTY_LABEL {
        return Ok(Content::Empty);
    }
    let (Ok(PartitionLabel::Root(version)), Ok(PartitionLabel::Verity(of_verity))) = (root.label.parse(), verity.label.parse()) else {
        return Ok(Content::Unknown);
    };
    if version != of_verity {
        return Ok(Content::Unknown);
    }
    let mut root_hash = [0; 32];
    for (to, from) in root_hash.iter_mut().zip(root.id.as_bytes().iter().chain(verity.id.as_bytes())) {
        *to = *from;
    }
    Ok(Content::Image { version, root_hash })
}

/// Takes a slot's image away from the loader and the kernel: labels `_empty`, GUIDs that belong to no root hash.
///
/// # Errors
/// When the table cannot be written.
pub fn mark_empty(target: &dyn Target, slot: SlotName, fresh: &mut dyn FnMut() -> Uuid) -> Result<(), SlotError> {
    let ids = VerityPartUuids { root: fresh(), verity: fresh() };
    change(target, slot, ids, &PartitionLabel::Empty, &PartitionLabel::Empty)
}

/// Declares that a slot holds an image.
///
/// # Errors
/// When the table cannot be written.
pub fn mark_filled(target: &dyn Target, slot: SlotName, version: &Version, root_hash: &[u8; 32]) -> Result<(), SlotError> {
    let labels = (PartitionLabel::Root(version.clone()), PartitionLabel::Verity(version.clone()));
    change(target, slot, partuuids_of_root_hash(root_hash), &labels.0, &labels.1)
}

fn change(
    target: &dyn Target,
    slot: SlotName,
    ids: VerityPartUuids,
    root: &PartitionLabel,
    verity: &PartitionLabel,
) -> Result<(), SlotError> {
    let mut table = read_table(target)?;
    for (role, id, label) in [(PartitionRole::Root(slot), ids.root, root), (PartitionRole::Verity(slot), ids.verity, verity)] {
        let number = role.number();
        table.partition(number).ok_or(SlotError::Missing(number))?;
        table.set_id(number, id);
        table.set_label(number, &label.to_string());
    }
    Ok(write_table(target, &mut table)?)
}

/// Writes both copies of the table again when one of them is damaged. Returns whether that was so.
///
/// # Errors
/// When neither copy is valid, or writing fails.
pub fn mend_table(target: &dyn Target) -> Result<bool, SlotError> {
    let mut table = read_table(target)?;
    if table.is_whole() {
        return Ok(false);
    }
    write_table(target, &mut table)?;
    Ok(true)
}
