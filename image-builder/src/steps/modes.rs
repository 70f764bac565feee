//! Owners and modes that scripts set after unpacking, and the list of files that may run with more rights than their
//! caller. A set-id file or file capability that is not on the list is reported, so that none comes in unseen.

use super::StepsError;
use super::accounts::Accounts;
use crate::tree::{Kind, Tree};

/// What scripts `chmod` and `chgrp`.
const SET_BY_SCRIPTS: &[(&str, &str, u16)] = &[
    // openssh-client: keeps other processes of the user from reading the agent's memory.
    ("usr/bin/ssh-agent", "_ssh", 0o2755),
    // sudo: it refuses to run otherwise.
    ("etc/sudoers", "root", 0o440),
    // chrony: the daemon reads it after it has dropped root.
    ("etc/chrony/chrony.keys", "_chrony", 0o640),
    // dbus: only the bus may start it.
    ("usr/lib/dbus-1.0/dbus-daemon-launch-helper", "messagebus", 0o4754),
];

/// Set-id files that we know, with why they need it.
const EXPECTED: &[&str] = &[
    // A user changes identity or own account.
    "usr/bin/chfn",
    "usr/bin/chsh",
    "usr/bin/gpasswd",
    "usr/bin/newgrp",
    "usr/bin/passwd",
    "usr/bin/su",
    "usr/bin/sudo",
    // Reads /etc/shadow as group shadow.
    "usr/bin/chage",
    "usr/bin/expiry",
    "usr/sbin/unix_chkpwd",
    // Lets users mount what fstab allows.
    "usr/bin/mount",
    "usr/bin/umount",
    // Reads the host keys for host-based authentication; off by default.
    "usr/lib/openssh/ssh-keysign",
    "usr/bin/ssh-agent",
    "usr/lib/dbus-1.0/dbus-daemon-launch-helper",
];

/// Sets the modes; returns a warning for each unexpected privileged file.
///
/// # Errors
/// When a group does not exist.
pub fn apply(tree: &mut Tree, accounts: &Accounts) -> Result<Vec<String>, StepsError> {
    for &(path, group, mode) in SET_BY_SCRIPTS {
        let Some(node) = tree.get_mut(path).filter(|node| matches!(node.kind, Kind::File(_))) else { continue };
        let unknown = || StepsError::UnknownOwner { path: path.to_owned(), kind: "group", name: group.to_owned() };
        node.gid = if group == "root" { 0 } else { accounts.gid(group).ok_or_else(unknown)? };
        node.mode = mode;
    }
    let mut warnings = Vec::new();
    for (path, node) in tree.iter() {
        let set_id = matches!(node.kind, Kind::File(_) | Kind::HardLink(_)) && node.mode & 0o6000 != 0;
        let capable = node.xattrs.contains_key("security.capability");
        if (set_id || capable) && !EXPECTED.contains(&path) {
            let what = if capable { "has file capabilities" } else { "is set-id" };
            warnings.push(format!("'/{path}' of {} {what} (mode {:04o}), which nobody has reviewed", node.origin, node.mode));
        }
        if matches!(node.kind, Kind::File(_)) && node.mode & 0o002 != 0 {
            warnings.push(format!("'/{path}' of {} may be written by everybody (mode {:04o})", node.origin, node.mode));
        }
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::accounts::{self, GroupSpec, Ids};
    use crate::steps::origin;
    use crate::tree::Node;

    #[test]
    fn scripts_modes_are_set_and_strangers_reported() {
        let mut tree = Tree::new();
        let from = origin("test");
        for (path, mode) in [("usr/bin/ssh-agent", 0o755), ("usr/bin/sudo", 0o4755), ("usr/bin/odd", 0o4755), ("etc/open", 0o666)] {
            tree.put(path, Node::file(*b"", mode, &from)).unwrap();
        }
        let mut able = Node::file(*b"", 0o755, &from);
        able.xattrs.insert("security.capability".into(), vec![1]);
        tree.put("usr/bin/able", able).unwrap();
        let group = GroupSpec { name: "_ssh".into(), gid: None };
        let accounts = accounts::build(&tree, &[], &[group], &[], &Ids::default()).unwrap();
        let warnings = apply(&mut tree, &accounts).unwrap();
        let agent = tree.get("usr/bin/ssh-agent").unwrap();
        assert_eq!((agent.mode, agent.gid), (0o2755, 205));
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        for (path, warning) in ["/etc/open", "/usr/bin/able", "/usr/bin/odd"].iter().zip(&warnings) {
            assert!(warning.contains(path), "{warning}");
        }
    }
}
