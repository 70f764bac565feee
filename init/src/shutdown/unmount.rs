//! Taking down file systems, swap and loop devices until nothing more can be done.

use std::ffi::CString;
use std::fs::{self, File};

use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};

use super::mount_table::{self, Mount};
use crate::kmsg;
use crate::sys::power::{detach_loop, swap_off};

/// Enough for any stack of loops on loops.
const PASSES: usize = 8;

/// Unmounts what can be unmounted, the last mounted first (so overlays go before the state below them), and makes
/// read-only what cannot.
pub(super) fn everything() {
    let _ = std::env::set_current_dir("/");
    for _ in 0..PASSES {
        let changed = unmount_all() | stop_swap() | detach_loops();
        if !changed {
            break;
        }
    }
    let left: Vec<Mount> = to_unmount(&table());
    for mount in left.iter().filter(|mount| !mount.read_only) {
        kmsg::warn(&format!("{} ({}) stays mounted: something uses it", mount.at, mount.kind));
        // Network file systems whose server is gone would block here; detaching does not.
        let detached =
            matches!(mount.kind.as_str(), "nfs" | "nfs4" | "cifs" | "9p") && unmount(mount.at.as_str(), UnmountFlags::DETACH).is_ok();
        if !detached && let Err(error) = mount_remount(mount.at.as_str(), MountFlags::RDONLY, c"") {
            kmsg::error(&format!("{} cannot be made read-only: {error}", mount.at));
        }
    }
}

fn table() -> Vec<Mount> {
    mount_table::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// What has to go, in order. The root is verified and read-only; the kernel's own trees hold nothing.
fn to_unmount(table: &[Mount]) -> Vec<Mount> {
    let stays = |mount: &Mount| {
        let kernel = ["/proc", "/sys", "/dev"]
            .iter()
            .any(|top| mount.at.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        kernel || mount.at == "/" || mount.at == "/run"
    };
    table.iter().rev().filter(|mount| !stays(mount)).cloned().collect()
}

fn unmount_all() -> bool {
    let mut changed = false;
    for mount in to_unmount(&table()) {
        changed |= unmount(mount.at.as_str(), UnmountFlags::NOFOLLOW).is_ok();
    }
    changed
}

fn stop_swap() -> bool {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let mut changed = false;
    for path in swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()) {
        changed |= CString::new(path).is_ok_and(|path| swap_off(&path).is_ok());
    }
    changed
}

fn detach_loops() -> bool {
    let mut changed = false;
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("loop") && entry.path().join("loop/backing_file").exists() {
            changed |= File::open(crate::disk::block::node(&name)).and_then(|device| detach_loop(&device)).is_ok();
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlays_go_before_state_and_the_kernel_s_trees_stay() {
        let table = mount_table::parse(
            "1 0 0:1 / / ro - erofs /dev/dm-0 ro\n\
             2 1 0:2 / /proc rw - proc proc rw\n\
             3 1 0:3 / /dev/shm rw - tmpfs tmpfs rw\n\
             4 1 0:4 / /run rw - tmpfs tmpfs rw\n\
             5 1 8:6 / /media/state rw - ext4 /dev/vda6 rw\n\
             6 1 0:5 / /etc rw - overlay overlay rw\n\
             7 1 8:6 /var /var rw - ext4 /dev/vda6 rw\n\
             8 4 0:6 / /run/docker/netns/x rw - nsfs nsfs rw\n\
             9 1 0:9 / /device rw - tmpfs tmpfs rw\n",
        );
        let order: Vec<String> = to_unmount(&table).into_iter().map(|mount| mount.at).collect();
        assert_eq!(order, ["/device", "/run/docker/netns/x", "/var", "/etc", "/media/state"]);
    }
}
