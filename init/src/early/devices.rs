//! What `/dev` needs beyond what the kernel puts there.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::modules::index::{Index, StaticNode};

const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
];

/// Makes the links, and the nodes whose opening loads a module (`/dev/fuse`, `/dev/net/tun`).
pub(super) fn links_and_nodes() -> Vec<String> {
    for (link, target) in LINKS {
        // There already, in a container.
        let _ = symlink(target, link);
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut nodes = Index::static_nodes_of(Path::new("/"), &release);
    if has_virtualization(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()) {
        // Opening it loads KVM, which costs seconds on an emulated machine and is of use to few.
        nodes.push(StaticNode { module: "kvm".to_owned(), node: "kvm".to_owned(), block: false, device: (10, 232) });
    }
    nodes.iter().filter_map(make_node).collect()
}

/// Whether the processor can run virtual machines. Programs take the mere presence of `/dev/kvm` for that.
fn has_virtualization(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|flags| flags.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm")))
}

fn make_node(node: &StaticNode) -> Option<String> {
    let path = Path::new("/dev").join(&node.node);
    if path.exists() {
        return None;
    }
    let _ = path.parent().map(fs::create_dir_all);
    let (mode, group) = crate::devices::permissions::of_node(&node.node).unwrap_or((0o600, 0));
    let kind = if node.block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let made = mknodat(CWD, &path, kind, Mode::from_raw_mode(mode), makedev(node.device.0, node.device.1));
    // Group and mode again, since the umask took something off.
    let _ = chown(&path, Some(0), Some(group));
    let _ = fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode));
    made.err().map(|error| format!("cannot make {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_is_offered_by_processors_that_can() {
        assert!(has_virtualization("model name: x\nflags\t\t: fpu vmx sse\n"));
        assert!(!has_virtualization("model name: vmx\nflags\t\t: fpu sse\n"));
    }
}
