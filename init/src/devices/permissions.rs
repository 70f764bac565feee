//! Modes and groups of device nodes that others than root may use. The kernel makes every node 0600 root unless its
//! driver says otherwise.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use crate::accounts;
use crate::glob;

/// Pattern below `/dev`, mode, group. The first that matches counts.
const RULES: [(&str, u32, &str); 21] = [
    ("kvm", 0o660, "kvm"),
    ("vhost-net", 0o660, "kvm"),
    ("vhost-vsock", 0o660, "kvm"),
    ("fuse", 0o666, "root"),
    ("net/tun", 0o666, "root"),
    ("loop-control", 0o660, "disk"),
    ("rtc*", 0o600, "root"),
    ("ptmx", 0o666, "tty"),
    ("tty", 0o666, "tty"),
    ("tty[0-9]*", 0o620, "tty"),
    ("vcs*", 0o620, "tty"),
    ("ttyS[0-9]*", 0o660, "dialout"),
    ("ttyUSB[0-9]*", 0o660, "dialout"),
    ("ttyACM[0-9]*", 0o660, "dialout"),
    ("hvc[0-9]*", 0o660, "dialout"),
    ("dri/card*", 0o660, "video"),
    ("dri/renderD*", 0o666, "render"),
    ("nvidia*", 0o666, "root"),
    ("snd/*", 0o660, "audio"),
    ("kmsg", 0o644, "root"),
    ("vsock", 0o666, "root"),
];

/// Mode and group of a node below `/dev`; `None` leaves the driver's.
#[must_use]
pub fn of_node(name: &str) -> Option<(u32, u32)> {
    let (_, mode, group) = RULES.iter().find(|(pattern, ..)| glob::matches(pattern, name))?;
    Some((*mode, group_id(group)))
}

/// Of a block device, whatever its name.
#[must_use]
pub fn of_block_device() -> (u32, u32) {
    (0o660, group_id("disk"))
}

fn group_id(name: &str) -> u32 {
    accounts::group_id(Path::new("/"), name).unwrap_or(0)
}

/// Sets what the rules say about a node; a node that is gone again is fine.
pub fn apply(name: &str, is_block: bool) {
    if let Some((mode, group)) = of_node(name).or_else(|| is_block.then(of_block_device)) {
        let path = Path::new("/dev").join(name);
        let _ = chown(&path, Some(0), Some(group));
        let _ = fs::set_permissions(&path, fs::Permissions::from_mode(mode));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_counts() {
        assert_eq!(of_node("fuse").map(|(mode, _)| mode), Some(0o666));
        assert_eq!(of_node("tty").map(|(mode, _)| mode), Some(0o666));
        assert_eq!(of_node("tty1").map(|(mode, _)| mode), Some(0o620));
        assert_eq!(of_node("mem"), None);
    }
}
