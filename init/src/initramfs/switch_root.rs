//! From the initramfs into the verified root: the kernel's file systems move along, the initramfs is freed.

use std::convert::Infallible;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::mount::mount_move;

use super::failure::Failure;

/// Where the root is mounted before it becomes `/`.
pub(super) const NEW_ROOT: &str = "/sysroot";
const INIT: &str = "/usr/sbin/init";

/// Makes the mounted root `/` for this process (and for every kernel thread, which share its root).
pub(super) fn enter() -> Result<(), Failure> {
    let step = |step: &'static str| move |error: rustix::io::Errno| Failure::SwitchRoot { step, error: error.into() };
    for (name, act) in [("/proc", "move /proc"), ("/sys", "move /sys"), ("/dev", "move /dev"), ("/run", "move /run")] {
        mount_move(name, format!("{NEW_ROOT}{name}")).map_err(step(act))?;
    }
    rustix::process::chdir(NEW_ROOT).map_err(step("enter the root"))?;
    free_initramfs();
    mount_move(".", "/").map_err(step("move the root"))?;
    rustix::process::chroot(".").map_err(step("change root"))?;
    rustix::process::chdir("/").map_err(step("enter the new root"))
}

/// Deletes what the kernel unpacked, since a ramfs cannot be unmounted. Whatever is a mount point stays.
fn free_initramfs() {
    for entry in fs::read_dir("/").into_iter().flatten().flatten() {
        let path = entry.path();
        if path == Path::new(NEW_ROOT) {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = fs::remove_dir_all(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Becomes the root's init.
pub(super) fn execute_init() -> Result<Infallible, Failure> {
    let error = Command::new(INIT).env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin").env("TERM", "linux").exec();
    Err(Failure::SwitchRoot { step: "execute /usr/sbin/init", error })
}
