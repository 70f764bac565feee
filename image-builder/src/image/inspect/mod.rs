//! Reads an image back: partitions, slots, versions, UKIs, root hashes, and how they fit together.
//!
//! What does not fit is a [`Report::problems`] line, not an error, so that a damaged image can still be looked at. Whether the
//! root file systems are what their root hashes say is only known after [`inspect`] with `verify`, which reads them whole.

mod boot;
mod disk;
mod qcow2;
mod render;
mod slots;

use std::fmt;
use std::path::{Path, PathBuf};

use disk_layout::{PartitionRole, STATE_LABEL, STATE_NEW_LABEL, SlotName, partition_type};
use serde::Serialize;
use thiserror::Error;
use uuid::Uuid;

pub use boot::{UkiReport, UkiTries};
pub use disk::{Disk, Window};
pub use slots::{FileSystemReport, SlotReport};

use super::gpt::SECTOR;
use crate::progress::Progress;

/// Why an image cannot be looked at.
#[derive(Debug, Error)]
pub enum InspectError {
    /// The file could not be opened or read.
    #[error("cannot read '{path}': {error}")]
    Read {
        /// The image.
        path: PathBuf,
        /// What happened.
        error: std::io::Error,
    },
    /// It is a qcow2 file that only QEMU can read.
    #[error("cannot read '{path}': it is a qcow2 file with {feature}; convert it with 'qemu-img convert -O raw'")]
    Qcow2 {
        /// The image.
        path: PathBuf,
        /// What it uses.
        feature: &'static str,
    },
    /// There is no partition table.
    #[error("'{path}' is not a disk image: {reason}")]
    NoTable {
        /// The image.
        path: PathBuf,
        /// What is wrong with its partition table.
        reason: String,
    },
    /// No unified kernel image has one.
    #[error("there is no kernel in '{path}': no unified kernel image of ours is on its ESP")]
    NoKernel {
        /// The image.
        path: PathBuf,
    },
}

/// What is in an image.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The file.
    pub path: PathBuf,
    /// `raw`, `raw.zst` or `qcow2`.
    pub format: &'static str,
    /// Bytes of the disk.
    pub size: u64,
    /// The disk's GUID.
    pub guid: Uuid,
    /// All partitions in order.
    pub partitions: Vec<PartitionReport>,
    /// Both slots.
    pub slots: Vec<SlotReport>,
    /// The version of systemd-boot, as it names itself.
    pub boot_loader: Option<String>,
    /// The boot loader's configuration file.
    pub loader_conf: Option<String>,
    /// The unified kernel images on the ESP, by file name.
    pub ukis: Vec<UkiReport>,
    /// `new` (will be formatted at first boot), `in use` or `none`.
    pub state: &'static str,
    /// Whether everything was hashed again.
    pub verified: bool,
    /// What does not fit together, one line each.
    pub problems: Vec<String>,
}

impl Report {
    /// Whether nothing was found wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        render::report(self, f)
    }
}

/// A partition.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionReport {
    /// Its number, from 1.
    pub number: u32,
    /// Its label.
    pub label: String,
    /// What it is for, when it is where we would put it: `esp`, `root-a`, `verity-a`, `root-b`, `verity-b`, `state`.
    pub role: Option<&'static str>,
    /// Its own GUID.
    pub guid: Uuid,
    /// The GUID of its type.
    pub type_guid: Uuid,
    /// Where it starts, in bytes.
    pub offset: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// Looks at an image; with `verify`, hashes both slots again.
///
/// # Errors
/// When the file cannot be read or has no partition table.
pub fn inspect(path: &Path, verify: bool, progress: &dyn Progress) -> Result<Report, InspectError> {
    let disk = disk::open(path)?;
    let mut problems = Vec::new();
    let table = gpt::GptConfig::new().open_from_device(disk.whole());
    let table = table.map_err(|error| InspectError::NoTable { path: path.to_owned(), reason: error.to_string() })?;
    if table.primary_header().is_err() {
        problems.push("the partition table at the start of the disk is damaged".to_owned());
    }
    if table.backup_header().is_err() {
        problems.push("the backup of the partition table at the end of the disk is damaged".to_owned());
    }
    let partitions: Vec<PartitionReport> = table
        .partitions()
        .iter()
        .map(|(&number, partition)| {
            let type_guid = partition.part_type_guid.guid;
            let role = PartitionRole::ALL.into_iter().find(|role| role.number() == number && partition_type(*role) == type_guid);
            let sectors = (partition.last_lba + 1).saturating_sub(partition.first_lba);
            PartitionReport {
                number,
                label: partition.name.clone(),
                role: role.map(role_name),
                guid: partition.part_guid,
                type_guid,
                offset: partition.first_lba.saturating_mul(SECTOR),
                size: sectors.saturating_mul(SECTOR),
            }
        })
        .collect();
    for role in PartitionRole::ALL {
        if !partitions.iter().any(|partition| partition.role == Some(role_name(role))) {
            problems.push(format!("partition {} ({}) is missing or has another type", role.number(), role_name(role)));
        }
    }
    let find = |role| partitions.iter().find(|partition| partition.role == Some(role_name(role)));
    let window = |partition: &PartitionReport| disk.window(partition.offset, partition.size);

    let boot = find(PartitionRole::Esp).map_or_else(boot::Esp::default, |esp| boot::read(window(esp), &mut problems));
    let mut ukis = boot.ukis;
    let mut slots = Vec::new();
    for slot in [SlotName::A, SlotName::B] {
        let (Some(root), Some(verity)) = (find(PartitionRole::Root(slot)), find(PartitionRole::Verity(slot))) else { continue };
        let parts = slots::Parts { slot, root, verity, root_data: window(root), verity_data: window(verity) };
        let report = slots::read(&parts, verify.then_some(progress), &mut problems);
        for uki in ukis.iter_mut().filter(|uki| uki.root_hash.is_some() && uki.root_hash == report.root_hash) {
            uki.slot = Some(report.slot.clone());
            if report.version.as_ref() != Some(&uki.version) {
                problems.push(format!("{} boots slot {slot}, which has version {}", uki.file, report.version.as_deref().unwrap_or("none")));
            }
        }
        slots.push(report);
    }
    problems.extend(ukis.iter().filter(|uki| uki.slot.is_none()).map(|uki| format!("{} boots no slot of this disk", uki.file)));
    let orphans = slots.iter().filter(|slot| slot.version.is_some() && !ukis.iter().any(|uki| uki.slot.as_ref() == Some(&slot.slot)));
    problems.extend(orphans.map(|slot| format!("slot {} is filled, but no unified kernel image boots it", slot.slot)));

    let state = match find(PartitionRole::State).map(|partition| partition.label.as_str()) {
        Some(STATE_NEW_LABEL) => "new",
        Some(STATE_LABEL) => "in use",
        _ => "none",
    };
    Ok(Report {
        path: path.to_owned(),
        format: disk.format(),
        size: disk.size(),
        guid: *table.guid(),
        partitions,
        slots,
        boot_loader: boot.loader,
        loader_conf: boot.loader_conf,
        ukis,
        state,
        verified: verify,
        problems,
    })
}

/// The kernel that an image boots: that of its newest unified kernel image.
///
/// # Errors
/// When the file cannot be read or has none.
pub fn kernel(path: &Path) -> Result<Vec<u8>, InspectError> {
    let disk = disk::open(path)?;
    let table = gpt::GptConfig::new().open_from_device(disk.whole());
    let table = table.map_err(|error| InspectError::NoTable { path: path.to_owned(), reason: error.to_string() })?;
    let esp = table.partitions().get(&PartitionRole::Esp.number());
    let kernel = esp.and_then(|esp| {
        let sectors = (esp.last_lba + 1).saturating_sub(esp.first_lba);
        boot::newest_kernel(disk.window(esp.first_lba.saturating_mul(SECTOR), sectors.saturating_mul(SECTOR)))
    });
    kernel.ok_or_else(|| InspectError::NoKernel { path: path.to_owned() })
}

fn role_name(role: PartitionRole) -> &'static str {
    match role {
        PartitionRole::Esp => "esp",
        PartitionRole::Root(SlotName::A) => "root-a",
        PartitionRole::Verity(SlotName::A) => "verity-a",
        PartitionRole::Root(SlotName::B) => "root-b",
        PartitionRole::Verity(SlotName::B) => "verity-b",
        PartitionRole::State => "state",
    }
}
