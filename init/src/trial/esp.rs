//! Renames of UKIs: the ESP is mounted only while that takes, and unmounted with everything on the disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use disk_layout::{PartitionRole, UkiName, Version};
use rustix::fs::FlockOperation;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use thiserror::Error;

use crate::disk::block::{self, Disk};

/// Below `/run`, which there is before there is a root, and without one that can be read.
const MOUNT_AT: &str = "/run/garboard/esp";
const UKI_DIR: &str = "/run/garboard/esp/EFI/Linux";
/// Held by whoever mounts or rewrites the ESP: this program and the update agent.
const LOCK: &str = "/run/garboard/esp.lock";

/// Why the ESP could not be changed.
#[derive(Debug, Error)]
pub enum EspError {
    /// The kernel knows no first partition.
    #[error("{} has no partition 1", .0.display())]
    Missing(PathBuf),
    /// It cannot be mounted.
    #[error("cannot mount {} at {MOUNT_AT}: {source}", device.display())]
    Mount {
        /// The partition.
        device: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file operation failed.
    #[error("{act} {name}: {source}")]
    File {
        /// What was tried.
        act: &'static str,
        /// With what.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// The version has no UKI.
    #[error("no UKI of version {0} on the ESP")]
    NoUki(Version),
}

/// The mounted file system; unmounted when dropped.
struct Mounted {
    _lock: File,
}

impl Mounted {
    fn new(disk: &Disk) -> Result<Self, EspError> {
        let name = disk.partition_name(PartitionRole::Esp.number()).ok_or_else(|| EspError::Missing(disk.node()))?;
        let device = block::node(&name);
        let fail = |source: io::Error| EspError::Mount { device: device.clone(), source };
        let _ = fs::create_dir_all(MOUNT_AT);
        let lock = File::create(LOCK).map_err(fail)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|error| fail(error.into()))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
        mount(&device, MOUNT_AT, "vfat", flags, c"umask=0077,shortname=mixed,errors=remount-ro").map_err(|error| fail(error.into()))?;
        Ok(Self { _lock: lock })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = unmount(MOUNT_AT, UnmountFlags::empty()) {
            crate::kmsg::warn(&format!("cannot unmount {MOUNT_AT}: {error}"));
        }
    }
}

fn list() -> Result<Vec<UkiName>, EspError> {
    let fail = |source| EspError::File { act: "cannot list", name: UKI_DIR.to_owned(), source };
    let entries: io::Result<Vec<_>> = fs::read_dir(UKI_DIR).map_err(fail)?.collect();
    Ok(entries.map_err(fail)?.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Names of all UKIs.
pub fn names(disk: &Disk) -> Result<Vec<UkiName>, EspError> {
    let _mounted = Mounted::new(disk)?;
    list()
}

/// Gives a version's UKI another name, durably. Nothing to do when it has it already.
pub fn rename(disk: &Disk, version: &Version, to: &UkiName) -> Result<(), EspError> {
    let _mounted = Mounted::new(disk)?;
    let ours: Vec<UkiName> = list()?.into_iter().filter(|name| name.version == *version).collect();
    if ours.contains(to) {
        return Ok(());
    }
    let from = ours.first().ok_or_else(|| EspError::NoUki(version.clone()))?.to_string();
    let directory = Path::new(UKI_DIR);
    let fail = |act| {
        let name = from.clone();
        move |source| EspError::File { act, name, source }
    };
    fs::rename(directory.join(&from), directory.join(to.to_string())).map_err(fail("cannot rename"))?;
    let directory = File::open(directory).map_err(fail("cannot open the directory of"))?;
    directory.sync_all().map_err(fail("cannot write the directory of"))?;
    rustix::fs::syncfs(&directory).map_err(|error| fail("cannot write out")(error.into()))
}
