//! A source's disk, mounted read-only for as long as it is read.

use super::SourceError;
use super::block::Labelled;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where, below the root.
const MOUNT_POINT: &str = "run/garboard/config-drive";

/// Unmounted when dropped.
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts a disk, loading the file system's module first where it is one.
    pub fn new(root: &Path, disk: &Labelled) -> Result<Mounted, SourceError> {
        let failed = |source| SourceError::Mount { device: disk.device.clone(), filesystem: disk.filesystem, source };
        let point = root.join(MOUNT_POINT);
        std::fs::create_dir_all(&point).map_err(failed)?;
        load_modules(disk.filesystem);
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount(&disk.device, &point, disk.filesystem, flags, None::<&std::ffi::CStr>).map_err(|e| failed(e.into()))?;
        Ok(Mounted(point))
    }

    /// Its top directory.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: the disk is read-only, and a boot must not hang on it.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// What is built in, or loaded already, is no error; a module that is really missing shows when mounting.
fn load_modules(filesystem: &str) {
    if std::fs::read_to_string("/proc/filesystems").is_ok_and(|f| f.split_whitespace().any(|w| w == filesystem)) {
        return;
    }
    let module = if filesystem == "iso9660" { "isofs" } else { "vfat" };
    modprobe(module);
}

/// Loads a module, if it can be loaded.
pub fn modprobe(module: &str) {
    let _ = Command::new("/usr/sbin/modprobe").arg(module).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}
