//! What the stage mounts.

use std::ffi::CStr;
use std::fs;
use std::path::Path;

use rustix::mount::{MountFlags, mount};

use super::failure::Failure;

/// Mounts `source` at `at`, which is made when missing.
pub(super) fn at(source: &str, at: &str, kind: &str, flags: MountFlags, data: &CStr) -> Result<(), Failure> {
    let _ = fs::create_dir_all(at);
    mount(source, at, kind, flags, data).map_err(|error| Failure::Mount {
        what: format!("{kind} {source}"),
        at: at.to_owned(),
        error: error.into(),
    })
}

/// `/proc`, `/sys`, `/dev` and `/run`.
pub(super) fn kernel_file_systems() -> Result<(), Failure> {
    let strict = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    at("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID | MountFlags::STRICTATIME, c"mode=755")?;
    at("proc", "/proc", "proc", strict, c"")?;
    at("sysfs", "/sys", "sysfs", strict, c"")?;
    at("tmpfs", "/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::STRICTATIME, c"mode=755,size=20%,nr_inodes=800k")
}

/// The firmware's variables, when it is UEFI and the module is there: only the search for the disk wants them.
pub(super) fn efi_variables() {
    let path = "/sys/firmware/efi/efivars";
    if Path::new(path).is_dir() {
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
        if let Err(failure) = at("efivarfs", path, "efivarfs", flags, c"") {
            crate::kmsg::warn(&failure.to_string());
        }
    }
}

/// The root, read-only.
pub(super) fn root(device: &Path, at_path: &str) -> Result<(), Failure> {
    at(&device.to_string_lossy(), at_path, "erofs", MountFlags::RDONLY, c"")
}
