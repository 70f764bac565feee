//! The two slots: what they hold, and whether it is what their root hash says.

use std::io;

use disk_layout::{PartitionLabel, SlotName, VERITY_BLOCK_SIZE, VERITY_SUPERBLOCK_LEN, VeritySuperblock};
use serde::Serialize;
use uuid::Uuid;

use super::{PartitionReport, Window};
use crate::digest::hex;
use crate::image::erofs;
use crate::image::source::Source;
use crate::image::verity::hash_tree;
use crate::progress::{Event, Phase, Progress};

/// A slot.
#[derive(Clone, Debug, Serialize)]
pub struct SlotReport {
    /// `a` or `b`.
    pub slot: String,
    /// The version in its label; none when it is empty.
    pub version: Option<String>,
    /// The root hash that its two partition GUIDs spell.
    pub root_hash: Option<String>,
    /// Bytes of the slot.
    pub size: u64,
    /// Its file system.
    pub file_system: Option<FileSystemReport>,
    /// Salt of its hash tree.
    pub salt: Option<String>,
    /// Whether every byte is what the root hash says; unknown unless asked for.
    pub intact: Option<bool>,
}

/// What the superblock of a root file system says.
#[derive(Clone, Debug, Serialize)]
pub struct FileSystemReport {
    /// Always `erofs`.
    pub kind: &'static str,
    /// Its UUID.
    pub uuid: Uuid,
    /// Its bytes.
    pub size: u64,
    /// Files, directories and links.
    pub inodes: u64,
}

/// The partitions of a slot.
pub struct Parts<'a> {
    pub slot: SlotName,
    pub root: &'a PartitionReport,
    pub verity: &'a PartitionReport,
    pub root_data: Window,
    pub verity_data: Window,
}

/// Reads a slot, and hashes it when there is someone to tell the progress to.
pub fn read(parts: &Parts<'_>, verify: Option<&dyn Progress>, problems: &mut Vec<String>) -> SlotReport {
    let slot = parts.slot;
    let empty = SlotReport {
        slot: slot.to_string(),
        version: None,
        root_hash: None,
        size: parts.root.size,
        file_system: None,
        salt: None,
        intact: None,
    };
    let version = match (parts.root.label.parse(), parts.verity.label.parse()) {
        (Ok(PartitionLabel::Empty), Ok(PartitionLabel::Empty)) => return empty,
        (Ok(PartitionLabel::Root(root)), Ok(PartitionLabel::Verity(verity))) if root == verity => root,
        _ => {
            problems.push(format!("the labels of slot {slot} are '{}' and '{}'", parts.root.label, parts.verity.label));
            return empty;
        }
    };
    let root_hash = format!("{}{}", parts.root.guid.simple(), parts.verity.guid.simple());
    let mut first_block = vec![0; VERITY_BLOCK_SIZE as usize];
    let summary = parts.root_data.read_at(&mut first_block, 0).ok().and_then(|()| erofs::summary(&first_block));
    if summary.is_none() {
        problems.push(format!("slot {slot} has no EROFS"));
    }
    let superblock = verity_superblock(&parts.verity_data).map_err(|error| problems.push(format!("slot {slot}: {error}"))).ok();
    let intact = verify.and_then(|progress| {
        let result = check(parts, superblock.as_ref()?, &root_hash, progress);
        if let Err(reason) = &result {
            problems.push(format!("slot {slot} is not what its root hash says: {reason}"));
        }
        Some(result.is_ok())
    });
    SlotReport {
        version: Some(version.to_string()),
        root_hash: Some(root_hash),
        file_system: summary.map(|summary| FileSystemReport {
            kind: "erofs",
            uuid: summary.uuid,
            size: summary.size,
            inodes: summary.inodes,
        }),
        salt: superblock.map(|superblock| hex(&superblock.salt)),
        intact,
        ..empty
    }
}

fn verity_superblock(data: &Window) -> Result<VeritySuperblock, String> {
    let mut bytes = [0; VERITY_SUPERBLOCK_LEN];
    data.read_at(&mut bytes, 0).map_err(|error| error.to_string())?;
    VeritySuperblock::parse(&bytes).map_err(|error| error.to_string())
}

/// Hashes the data, and compares tree and root hash with what is there.
fn check(parts: &Parts<'_>, superblock: &VeritySuperblock, root_hash: &str, progress: &dyn Progress) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let len = superblock.data_blocks.saturating_mul(VERITY_BLOCK_SIZE);
    let data = parts.root_data.clone().shortened(len).map_err(|_| "the slot is smaller than its superblock says")?;
    progress.event(Event::Begin { phase: Phase::Root, total: Some(len) });
    let tree = hash_tree(&data, superblock, &|bytes| progress.event(Event::Advance { bytes })).map_err(text)?;
    progress.event(Event::End { phase: Phase::Root, summary: format!("slot {} hashed", parts.slot) });
    if hex(&tree.root_hash) != root_hash {
        return Err(format!("its data have the root hash {}", hex(&tree.root_hash)));
    }
    let mut there = vec![0; tree.bytes.len()];
    parts.verity_data.read_at(&mut there, 0).map_err(text)?;
    if there != tree.bytes { Err("its hash tree is damaged".to_owned()) } else { Ok(()) }
}
