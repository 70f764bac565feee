//! The kernel's file systems and the temporary ones.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

struct Entry {
    at: &'static str,
    kind: &'static str,
    flags: MountFlags,
    /// Tried in turn: an older kernel may not know the first.
    options: &'static [&'static CStr],
    /// Its absence is worth a line.
    expected: bool,
}

const STRICT: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC).union(MountFlags::NODEV);

const TABLE: [Entry; 13] = [
    Entry { at: "/proc", kind: "proc", flags: STRICT, options: &[c""], expected: true },
    Entry { at: "/sys", kind: "sysfs", flags: STRICT, options: &[c""], expected: true },
    Entry { at: "/dev", kind: "devtmpfs", flags: MountFlags::NOSUID, options: &[c"mode=755"], expected: true },
    Entry { at: "/dev/shm", kind: "tmpfs", flags: MountFlags::NOSUID.union(MountFlags::NODEV), options: &[c"mode=1777"], expected: true },
    Entry {
        at: "/dev/pts",
        kind: "devpts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        options: &[c"mode=620,gid=5,ptmxmode=666"],
        expected: true,
    },
    Entry {
        at: "/run",
        kind: "tmpfs",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        options: &[c"mode=755,size=20%,nr_inodes=800k"],
        expected: true,
    },
    Entry {
        at: "/tmp",
        kind: "tmpfs",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        options: &[c"mode=1777,size=50%,nr_inodes=1m"],
        expected: true,
    },
    Entry {
        at: "/sys/fs/cgroup",
        kind: "cgroup2",
        flags: STRICT,
        options: &[c"nsdelegate,memory_recursiveprot", c"nsdelegate", c""],
        expected: true,
    },
    Entry { at: "/sys/fs/bpf", kind: "bpf", flags: STRICT, options: &[c"mode=700"], expected: false },
    Entry { at: "/sys/fs/pstore", kind: "pstore", flags: STRICT, options: &[c""], expected: false },
    Entry { at: "/sys/kernel/security", kind: "securityfs", flags: STRICT, options: &[c""], expected: false },
    Entry { at: "/sys/kernel/debug", kind: "debugfs", flags: STRICT, options: &[c""], expected: false },
    Entry { at: "/sys/kernel/tracing", kind: "tracefs", flags: STRICT, options: &[c""], expected: false },
];

/// Made when their directory can be made.
const IN_DEV: [Entry; 2] = [
    Entry { at: "/dev/mqueue", kind: "mqueue", flags: STRICT, options: &[c""], expected: false },
    Entry { at: "/dev/hugepages", kind: "hugetlbfs", flags: MountFlags::NOSUID.union(MountFlags::NODEV), options: &[c""], expected: false },
];

/// Mounts what is not mounted yet and makes the whole tree shared, which containers' mount propagation needs.
pub(super) fn all() -> Vec<String> {
    let mut notes = Vec::new();
    // Without /proc nothing is known to be mounted; it is the first of the table then.
    let mounted: HashSet<String> = fs::read_to_string("/proc/self/mountinfo")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split(' ').nth(4).map(str::to_owned))
        .collect();
    for entry in TABLE.iter().chain(&IN_DEV) {
        if mounted.contains(entry.at) {
            continue;
        }
        let _ = fs::create_dir(entry.at);
        let mut result = Ok(());
        for options in entry.options {
            result = mount(entry.kind, entry.at, entry.kind, entry.flags, *options);
            if result.is_ok() {
                break;
            }
        }
        if let Err(error) = result
            && entry.expected
        {
            notes.push(format!("cannot mount {} at {}: {error}", entry.kind, entry.at));
        }
    }
    if let Err(error) = mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC) {
        notes.push(format!("cannot make the mounts shared: {error}"));
    }
    notes
}
