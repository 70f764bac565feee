//! Users and groups: the base system's, what `sysusers.d` of the packages declare, what their scripts would add with
//! `adduser`, and the recipe's. Numbers come from the recipe, then the lock, then a fixed table, and only then from what
//! is free; the state of a host outlives many images, so a number must never change.

mod numbers;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{PackageRecord, StepsError, origin, text};
use crate::tree::Tree;
use wanted::Wanted;

/// The numbers of all accounts that have no number of their own, as the lock keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// User name to uid.
    #[serde(default)]
    pub users: BTreeMap<String, u32>,
    /// Group name to gid.
    #[serde(default)]
    pub groups: BTreeMap<String, u32>,
}

/// A group that a recipe asks for.
#[derive(Clone, Debug, Default)]
pub struct GroupSpec {
    /// Its name.
    pub name: String,
    /// Its number, if the recipe gives one.
    pub gid: Option<u32>,
}

/// A user that a recipe asks for.
#[derive(Clone, Debug, Default)]
pub struct UserSpec {
    /// Its name.
    pub name: String,
    /// Its number, if the recipe gives one.
    pub uid: Option<u32>,
    /// Primary group; one of the same name and number when left out.
    pub group: Option<String>,
    /// Further groups.
    pub groups: Vec<String>,
    /// Home directory; default `/`.
    pub home: Option<String>,
    /// Login shell; default `/usr/sbin/nologin`.
    pub shell: Option<String>,
    /// Full name.
    pub gecos: Option<String>,
}

/// One line of `passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Number.
    pub uid: u32,
    /// Primary group's number.
    pub gid: u32,
    /// Full name.
    pub gecos: String,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// One line of `group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Name.
    pub name: String,
    /// Number.
    pub gid: u32,
    /// Users that are members beside those whose primary group it is.
    pub members: BTreeSet<String>,
}

/// The whole user database of the image, in order of numbers.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
    base_users: BTreeSet<String>,
    base_groups: BTreeSet<String>,
}

/// Works out all accounts of the image.
///
/// # Errors
/// When a file of the packages cannot be understood, or two accounts want one number.
pub fn build(tree: &Tree, packages: &[PackageRecord], groups: &[GroupSpec], users: &[UserSpec], ids: &Ids) -> Result<Accounts, StepsError> {
    Wanted::gather(tree, packages, groups, users)?.number(ids)
}

impl Accounts {
    /// The number of a user, by name or by decimal number.
    #[must_use]
    pub fn uid(&self, name: &str) -> Option<u32> {
        self.users.iter().find(|user| user.name == name).map(|user| user.uid).or_else(|| name.parse().ok())
    }

    /// The number of a group, by name or by decimal number.
    #[must_use]
    pub fn gid(&self, name: &str) -> Option<u32> {
        self.groups.iter().find(|group| group.name == name).map(|group| group.gid).or_else(|| name.parse().ok())
    }

    /// The name of the user with a number.
    #[must_use]
    pub fn user_name(&self, uid: u32) -> Option<&str> {
        self.users.iter().find(|user| user.uid == uid).map(|user| user.name.as_str())
    }

    /// The name of the group with a number.
    #[must_use]
    pub fn group_name(&self, gid: u32) -> Option<&str> {
        self.groups.iter().find(|group| group.gid == gid).map(|group| group.name.as_str())
    }

    /// The users of the image.
    #[must_use]
    pub fn users(&self) -> &[User] {
        &self.users
    }

    /// The numbers to pin: all but the base system's, which Debian fixes.
    #[must_use]
    pub fn ids(&self) -> Ids {
        let users = self.users.iter().filter(|user| !self.base_users.contains(&user.name));
        let groups = self.groups.iter().filter(|group| !self.base_groups.contains(&group.name));
        Ids {
            users: users.map(|user| (user.name.clone(), user.uid)).collect(),
            groups: groups.map(|group| (group.name.clone(), group.gid)).collect(),
        }
    }

    /// Puts the four files into the tree. Passwords are `*`, which no password matches and which, unlike `!`, sshd does
    /// not take for a locked account.
    ///
    /// # Errors
    /// When the tree refuses a path.
    pub fn write(&self, tree: &mut Tree) -> Result<(), StepsError> {
        let origin = origin("accounts");
        let mut files = [String::new(), String::new(), String::new(), String::new()];
        let [passwd, shadow, group, gshadow] = &mut files;
        for user in &self.users {
            passwd.push_str(&format!("{}:x:{}:{}:{}:{}:{}\n", user.name, user.uid, user.gid, user.gecos, user.home, user.shell));
            shadow.push_str(&format!("{}:*:::::::\n", user.name));
        }
        for entry in &self.groups {
            let members = entry.members.iter().map(String::as_str).collect::<Vec<_>>().join(",");
            group.push_str(&format!("{}:x:{}:{members}\n", entry.name, entry.gid));
            gshadow.push_str(&format!("{}:*::{members}\n", entry.name));
        }
        let shadow_gid = self.gid("shadow").unwrap_or(0);
        for (path, text, mode, gid) in [
            ("etc/passwd", passwd, 0o644, 0),
            ("etc/group", group, 0o644, 0),
            ("etc/shadow", shadow, 0o640, shadow_gid),
            ("etc/gshadow", gshadow, 0o640, shadow_gid),
        ] {
            text::write(tree, path, text, mode, &origin)?;
            if let Some(node) = tree.get_mut(path) {
                node.gid = gid;
            }
        }
        for path in ["etc/subuid", "etc/subgid"] {
            text::write_if_missing(tree, path, "", 0o644, &origin)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    fn base() -> Tree {
        let mut tree = Tree::new();
        let origin = origin("test");
        let groups = "root:*:0:\nsudo:*:27:\nshadow:*:42:\nnogroup:*:65534:\n";
        let users = "root:*:0:0:root:/root:/bin/bash\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
        tree.put("usr/share/base-passwd/group.master", Node::file(groups.as_bytes(), 0o644, &origin)).unwrap();
        tree.put("usr/share/base-passwd/passwd.master", Node::file(users.as_bytes(), 0o644, &origin)).unwrap();
        tree.put(
            "usr/lib/sysusers.d/ssh.conf",
            Node::file(*b"# c\nu sshd -:nogroup \"sshd user\" /run/sshd\ng kvm - -\nu odd -\n", 0o644, &origin),
        )
        .unwrap();
        tree
    }

    fn package(name: &str) -> PackageRecord {
        PackageRecord { name: name.to_owned(), ..PackageRecord::default() }
    }

    fn core() -> UserSpec {
        UserSpec {
            name: "core".into(),
            uid: Some(500),
            groups: vec!["sudo".into(), "docker".into()],
            home: Some("/home/core".into()),
            shell: Some("/bin/bash".into()),
            ..UserSpec::default()
        }
    }

    #[test]
    fn accounts_come_from_the_base_the_packages_and_the_recipe() {
        let mut tree = base();
        let packages = [package("docker.io"), package("etcd-server")];
        let accounts = build(&tree, &packages, &[], &[core()], &Ids::default()).unwrap();
        accounts.write(&mut tree).unwrap();
        let passwd = text::read(&tree, "etc/passwd").unwrap().unwrap();
        let expected = "root:x:0:0:root:/root:/bin/bash\n\
            sshd:x:204:65534:sshd user:/run/sshd:/usr/sbin/nologin\n\
            etcd:x:232:232::/var/lib/etcd:/usr/sbin/nologin\n\
            odd:x:301:301::/:/usr/sbin/nologin\n\
            core:x:500:500::/home/core:/bin/bash\n\
            nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
        assert_eq!(passwd, expected);
        let group = text::read(&tree, "etc/group").unwrap().unwrap();
        assert!(group.contains("sudo:x:27:core\n") && group.contains("docker:x:233:core\n"), "{group}");
        let shadow = tree.get("etc/shadow").unwrap();
        assert_eq!((shadow.mode, shadow.uid, shadow.gid), (0o640, 0, 42));
        assert!(text::read(&tree, "etc/shadow").unwrap().unwrap().contains("core:*:::::::\n"));
    }

    #[test]
    fn pinned_numbers_stay_when_accounts_come_and_go() {
        let tree = base();
        let first = build(&tree, &[], &[], &[], &Ids::default()).unwrap().ids();
        assert_eq!((first.groups["kvm"], first.users["odd"]), (300, 301));
        let mut pins = first.clone();
        pins.groups.insert("gone".into(), 302);
        pins.groups.insert("kvm".into(), 310);
        let groups = [GroupSpec { name: "another".into(), gid: None }];
        let second = build(&tree, &[], &groups, &[], &pins).unwrap().ids();
        assert_eq!((second.groups["kvm"], second.groups["odd"], second.groups["another"]), (310, 301, 300));
        assert_eq!(second.users["odd"], 301);
        assert_eq!(build(&tree, &[], &groups, &[], &second).unwrap().ids(), second);
    }

    #[test]
    fn two_accounts_cannot_share_a_number() {
        let groups = [GroupSpec { name: "mine".into(), gid: Some(27) }];
        let error = build(&base(), &[], &groups, &[], &Ids::default()).unwrap_err();
        assert_eq!(error.to_string(), "group 'sudo' cannot have number 27: 'mine' has it");
        let mut user = core();
        user.groups = vec!["none".into()];
        let error = build(&base(), &[], &[], &[user], &Ids::default()).unwrap_err();
        assert!(error.to_string().contains("group 'none'"), "{error}");
    }
}
