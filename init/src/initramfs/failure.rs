//! Why a boot stops before the host's own init runs.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::disk::gpt::GptError;

/// The cause, in one line that ends on every console.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// A file system of the kernel or the root could not be mounted.
    #[error("cannot mount {what} at {at}: {error}")]
    Mount { what: String, at: String, error: io::Error },
    /// No device events.
    #[error("cannot listen to device events: {0}")]
    Uevents(io::Error),
    /// The initramfs lacks its list of modules.
    #[error("cannot read /modules/order in the initramfs: {0}")]
    ModuleOrder(io::Error),
    /// The command line has no root hash.
    #[error("no valid roothash= on the kernel command line: this UKI belongs to no image")]
    NoRootHash,
    /// The disk or one of its partitions did not appear.
    #[error("waited in vain for {wanted}; disks seen: {seen}")]
    DiskMissing { wanted: String, seen: String },
    /// Two disks carry the same image and the loader did not say which was booted.
    #[error("{0} carry this image and the boot loader did not say which one it started from: detach one")]
    AmbiguousDisk(String),
    /// The hash partition does not fit the image.
    #[error("the verity partition {device} is not usable: {reason}")]
    Superblock { device: PathBuf, reason: String },
    /// The device mapper refused.
    #[error("cannot open the root through dm-verity: {0}")]
    Verity(io::Error),
    /// Starts fail again and again, and the root is not what it was.
    #[error("{0}, and the root is damaged")]
    DamagedRoot(String),
    /// Moving into the root failed.
    #[error("cannot switch to the root: {step}: {error}")]
    SwitchRoot { step: &'static str, error: io::Error },
    /// There is no state partition.
    #[error("no state partition on {disk}: partition 6 is {found}, neither `state` nor `state-new`")]
    NoState { disk: PathBuf, found: String },
    /// The partition table could not be changed for the first boot.
    #[error("cannot prepare the state partition's entry on {disk}: {error}")]
    StateEntry { disk: PathBuf, error: GptError },
    /// mkfs failed.
    #[error("cannot format {device}: {reason}")]
    Format { device: PathBuf, reason: String },
    /// e2fsck could not repair state.
    #[error("the file system on {device} needs repair by hand: {reason}")]
    Check { device: PathBuf, reason: String },
    /// State does not look like ext4.
    #[error("{0} is labelled `state` and holds no ext4; it is never formatted by itself")]
    NotExt4(PathBuf),
    /// A device could not be read.
    #[error("cannot read {device}: {error}")]
    Read { device: PathBuf, error: io::Error },
    /// A directory of state could not be made or filled.
    #[error("cannot prepare {path} on the state partition: {error}")]
    StateTree { path: PathBuf, error: io::Error },
}
