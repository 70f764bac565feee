//! The state partition: made at the first boot, checked and grown at the others, and mounted at `/media/state`.
//!
//! Runs when the verified root is `/` already, so the tools are the root's own.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use disk_layout::{PartitionRole, STATE_LABEL, STATE_NEW_LABEL};
use rustix::mount::MountFlags;
use uuid::Uuid;

use super::boot_disk::BootDisk;
use super::failure::Failure;
use super::mounts;
use crate::boot::BootRecord;
use crate::disk::block::{self, Disk};
use crate::disk::gpt::{Gpt, GptError, Partition};
use crate::disk::superblock::{ExtState, PROBE_LEN, ext_size, ext_state};
use crate::sys;

/// Where state is mounted.
pub(super) const STATE: &str = "/media/state";

/// Brings the state partition into order and mounts it.
pub(super) fn prepare(boot_disk: &mut BootDisk, record: &mut BootRecord) -> Result<(), Failure> {
    let BootDisk { disk, gpt, .. } = boot_disk;
    let number = PartitionRole::State.number();
    let is_new = match gpt.partition(number) {
        Some(Partition { label, .. }) if label == STATE_NEW_LABEL => true,
        Some(Partition { label, .. }) if label == STATE_LABEL => false,
        other => {
            let found = other.map_or_else(|| "missing".to_owned(), |partition| format!("labelled `{}`", partition.label));
            return Err(Failure::NoState { disk: disk.node(), found });
        }
    };
    let entry_error = |error| Failure::StateEntry { disk: disk.node(), error };
    let handle = OpenOptions::new().read(true).write(true).open(disk.node()).map_err(|error| entry_error(GptError::Io(error)))?;

    let grown = gpt.grow_last(number);
    if is_new {
        // Copies of one image are not the same machine.
        gpt.disk_id = random_id();
        gpt.set_id(number, random_id());
    }
    if grown || is_new {
        let written = write_table(gpt, &handle).and_then(|()| tell_kernel(gpt, disk, &handle, number));
        match written {
            Err(error) if is_new => return Err(entry_error(error)),
            Err(error) => record.warnings.push(format!("cannot grow the state partition on {}: {error}", disk.node().display())),
            Ok(()) => {}
        }
    }
    let node = disk
        .partition_name(number)
        .map(|name| block::node(&name))
        .ok_or_else(|| Failure::NoState { disk: disk.node(), found: "unknown to the kernel".to_owned() })?;
    if is_new {
        format(&node)?;
        gpt.set_label(number, STATE_LABEL);
        write_table(gpt, &handle).map_err(entry_error)?;
        record.first_boot = true;
    } else {
        check(&node, record)?;
    }
    mounts::at(&node.to_string_lossy(), STATE, "ext4", MountFlags::NOATIME, c"errors=remount-ro")?;
    if !is_new {
        grow_file_system(&node, record);
    }
    Ok(())
}

fn random_id() -> Uuid {
    let mut bytes = [0; 16];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

fn write_table(gpt: &mut Gpt, disk: &File) -> Result<(), GptError> {
    gpt.write(disk, || block::flush(disk))
}

fn tell_kernel(gpt: &Gpt, disk: &Disk, handle: &File, number: u32) -> Result<(), GptError> {
    let Some(partition) = gpt.partition(number) else { return Ok(()) };
    let block_size = disk.geometry().block_size;
    let length = (partition.last + 1).saturating_sub(partition.first) * block_size;
    Ok(sys::block::resize_partition(handle, number, partition.first * block_size, length)?)
}

/// Makes the file system and has it on the disk before anybody calls the partition `state`.
fn format(node: &Path) -> Result<(), Failure> {
    let failure = |reason: String| Failure::Format { device: node.to_owned(), reason };
    let output = Command::new("/usr/sbin/mkfs.ext4")
        .args(["-q", "-F", "-L", STATE_LABEL, "-m", "1", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"])
        .arg(node)
        .output()
        .map_err(|error| failure(format!("/usr/sbin/mkfs.ext4: {error}")))?;
    if !output.status.success() {
        return Err(failure(format!("mkfs.ext4: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    File::open(node).and_then(|device| device.sync_all()).map_err(|error| failure(format!("flush: {error}")))
}

/// Runs e2fsck unless the superblock says that there is nothing to do, which is all e2fsck would find out.
fn check(node: &Path, record: &mut BootRecord) -> Result<(), Failure> {
    let superblock = read_start(node)?;
    match ext_state(&superblock) {
        None => return Err(Failure::NotExt4(node.to_owned())),
        Some(ExtState::Clean) => return Ok(()),
        Some(ExtState::Dirty) => {}
    }
    let failure = |reason: String| Failure::Check { device: node.to_owned(), reason };
    let started = Instant::now();
    let output =
        Command::new("/usr/sbin/e2fsck").arg("-p").arg(node).output().map_err(|error| failure(format!("/usr/sbin/e2fsck: {error}")))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().replace('\n', "; ");
    // 1: repaired; 2: repaired, reboot if it was mounted, which it was not.
    match output.status.code() {
        Some(0..=3) => {
            if output.status.code() != Some(0) || started.elapsed() > Duration::from_secs(5) {
                record.warnings.push(format!("e2fsck of {}: {said}", node.display()));
            }
            Ok(())
        }
        _ => Err(failure(format!("e2fsck ended with {}: {said}", output.status))),
    }
}

/// Lets a mounted ext4 use all of its partition.
fn grow_file_system(node: &Path, record: &mut BootRecord) {
    const WORTH_IT: u64 = 1 << 20;
    let result = (|| -> Result<(), String> {
        let superblock = read_start(node).map_err(|failure| failure.to_string())?;
        let (block_size, blocks) = ext_size(&superblock).ok_or("no superblock")?;
        let device = File::open(node).map_err(|error| error.to_string())?;
        let available = rustix::fs::seek(&device, rustix::fs::SeekFrom::End(0)).map_err(|error| error.to_string())?;
        if available < blocks.saturating_mul(block_size).saturating_add(WORTH_IT) {
            return Ok(());
        }
        let mount = File::open(STATE).map_err(|error| error.to_string())?;
        sys::block::resize_ext4(&mount, available / block_size).map_err(|error| error.to_string())
    })();
    if let Err(reason) = result {
        record.warnings.push(format!("cannot grow the file system on {}: {reason}", node.display()));
    }
}

fn read_start(node: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = vec![0; PROBE_LEN];
    File::open(node)
        .and_then(|device| device.read_exact_at(&mut bytes, 0))
        .map_err(|error| Failure::Read { device: node.to_owned(), error })?;
    Ok(bytes)
}
