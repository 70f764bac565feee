//! Users and groups: the base system's, what `sysusers.d` of the packages declare, what their scripts would add with
//! `adduser`, and the recipe's. Numbers come from the recipe, then the lock, then a fixed table, and only then from what
//! is free; the state of a host outlives many images, so a number must never change.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{PackageRecord, StepsError, origin, text};
use crate::tree::Tree;

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

const NOLOGIN: &str = "/usr/sbin/nologin";

/// What a package's script would ask of `adduser` or `addgroup`.
struct FromScript {
    package: &'static str,
    user: Option<(&'static str, &'static str, &'static str)>,
    group: &'static str,
}

const FROM_SCRIPTS: &[FromScript] = &[
    FromScript { package: "chrony", user: Some(("_chrony", "Chrony daemon", "/var/lib/chrony")), group: "_chrony" },
    FromScript { package: "docker.io", user: None, group: "docker" },
    FromScript { package: "etcd-server", user: Some(("etcd", "", "/var/lib/etcd")), group: "etcd" },
    FromScript { package: "openssh-client", user: None, group: "_ssh" },
];

/// Numbers of well-known system accounts, so that two recipes agree without sharing a lock. `core`, `etcd` and `docker`
/// have the numbers that they have on Container Linux.
const WELL_KNOWN: &[(&str, u32)] = &[("sshd", 204), ("_ssh", 205), ("_chrony", 206), ("etcd", 232), ("docker", 233), ("core", 500)];

/// Where numbers are taken from for accounts that nobody knows yet.
const FREE_IDS: std::ops::Range<u32> = 300..500;

/// Works out all accounts of the image.
///
/// # Errors
/// When a file of the packages cannot be understood, or two accounts want one number.
pub fn build(tree: &Tree, packages: &[PackageRecord], groups: &[GroupSpec], users: &[UserSpec], ids: &Ids) -> Result<Accounts, StepsError> {
    let mut wanted = Wanted::default();
    wanted.read_masters(tree)?;
    let (base_users, base_groups) = (wanted.users.keys().cloned().collect(), wanted.groups.keys().cloned().collect());
    let sysusers: Vec<String> =
        tree.below("usr/lib/sysusers.d").map(|(path, _)| path.to_owned()).filter(|path| path.ends_with(".conf")).collect();
    for path in sysusers {
        let text = text::read(tree, &path)?.unwrap_or_default();
        wanted.read_sysusers(&path, &text)?;
    }
    for entry in FROM_SCRIPTS.iter().filter(|entry| packages.iter().any(|package| package.name == entry.package)) {
        wanted.group(entry.group, None);
        if let Some((name, gecos, home)) = entry.user {
            let user = WantedUser {
                uid: None,
                group: Some(entry.group.to_owned()),
                gecos: gecos.into(),
                home: home.into(),
                shell: NOLOGIN.into(),
            };
            wanted.users.entry(name.to_owned()).or_insert(user);
        }
    }
    for group in groups {
        wanted.group(&group.name, group.gid);
    }
    for user in users {
        wanted.recipe_user(user);
    }
    wanted.number(ids, base_users, base_groups)
}

#[derive(Default)]
struct Wanted {
    users: BTreeMap<String, WantedUser>,
    groups: BTreeMap<String, Option<u32>>,
    /// Pairs of user and group.
    memberships: BTreeSet<(String, String)>,
}

struct WantedUser {
    uid: Option<u32>,
    /// Name or number of the primary group; none for one of the user's own.
    group: Option<String>,
    gecos: String,
    home: String,
    shell: String,
}

impl Wanted {
    fn group(&mut self, name: &str, gid: Option<u32>) {
        let there = self.groups.entry(name.to_owned()).or_default();
        *there = gid.or(*there);
    }

    fn recipe_user(&mut self, spec: &UserSpec) {
        let old = self.users.remove(&spec.name);
        let pick = |new: &Option<String>, old: Option<String>, default: &str| new.clone().or(old).unwrap_or_else(|| default.to_owned());
        let (old_uid, old_group, gecos, home, shell) = match old {
            Some(old) => (old.uid, old.group, Some(old.gecos), Some(old.home), Some(old.shell)),
            None => (None, None, None, None, None),
        };
        let user = WantedUser {
            uid: spec.uid.or(old_uid),
            group: spec.group.clone().or(old_group),
            gecos: pick(&spec.gecos, gecos, ""),
            home: pick(&spec.home, home, "/"),
            shell: pick(&spec.shell, shell, NOLOGIN),
        };
        self.users.insert(spec.name.clone(), user);
        self.memberships.extend(spec.groups.iter().map(|group| (spec.name.clone(), group.clone())));
    }

    fn read_masters(&mut self, tree: &Tree) -> Result<(), StepsError> {
        const GROUPS: &str = "usr/share/base-passwd/group.master";
        const USERS: &str = "usr/share/base-passwd/passwd.master";
        for (index, line) in text::read(tree, GROUPS)?.unwrap_or_default().lines().enumerate() {
            let fields: Vec<&str> = line.split(':').collect();
            let (Some(name), Some(Ok(gid))) = (fields.first(), fields.get(2).map(|gid| gid.parse())) else {
                return Err(bad_line(GROUPS, index, "not a line of the group file"));
            };
            self.group(name, Some(gid));
        }
        for (index, line) in text::read(tree, USERS)?.unwrap_or_default().lines().enumerate() {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, gecos, home, shell] = fields.as_slice() else {
                return Err(bad_line(USERS, index, "not a line of the user file"));
            };
            let uid = uid.parse().map_err(|_| bad_line(USERS, index, "the user's number is not one"))?;
            let user = WantedUser {
                uid: Some(uid),
                group: Some((*gid).to_owned()),
                gecos: (*gecos).to_owned(),
                home: (*home).to_owned(),
                shell: (*shell).to_owned(),
            };
            self.users.insert((*name).to_owned(), user);
        }
        Ok(())
    }

    fn read_sysusers(&mut self, path: &str, text: &str) -> Result<(), StepsError> {
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fields = split_quoted(line);
            let field = |n: usize| fields.get(n).map(String::as_str).filter(|field| !field.is_empty() && *field != "-");
            let name = field(1).ok_or_else(|| bad_line(path, index, "the name is missing"))?;
            if name.contains('%') {
                return Err(bad_line(path, index, "specifiers in names are not supported"));
            }
            match field(0) {
                Some("u" | "u!") => {
                    let (id, group) = match field(2) {
                        None => (None, None),
                        Some(text) => match text.split_once(':') {
                            Some((id, group)) => (Some(id).filter(|id| *id != "-"), Some(group.to_owned())),
                            None => (Some(text), None),
                        },
                    };
                    let uid = match id {
                        None => None,
                        Some(id) => Some(id.parse().map_err(|_| bad_line(path, index, "a number taken from a path is not supported"))?),
                    };
                    let user = WantedUser {
                        uid,
                        group,
                        gecos: field(3).unwrap_or_default().to_owned(),
                        home: field(4).unwrap_or("/").to_owned(),
                        shell: field(5).unwrap_or(NOLOGIN).to_owned(),
                    };
                    self.users.entry(name.to_owned()).or_insert(user);
                }
                Some("g") => {
                    let gid = match field(2) {
                        None => None,
                        Some(id) => Some(id.parse().map_err(|_| bad_line(path, index, "a number taken from a path is not supported"))?),
                    };
                    self.group(name, gid);
                }
                Some("m") => {
                    let group = field(2).ok_or_else(|| bad_line(path, index, "the group is missing"))?;
                    self.group(group, None);
                    self.memberships.insert((name.to_owned(), group.to_owned()));
                }
                Some("r") => {}
                _ => return Err(bad_line(path, index, "the type is none of u, g, m, r")),
            }
        }
        Ok(())
    }

    fn number(mut self, ids: &Ids, base_users: BTreeSet<String>, base_groups: BTreeSet<String>) -> Result<Accounts, StepsError> {
        // A user without a group gets one of its own name, with its own number where that is free.
        let own: Vec<(String, Option<u32>)> = self
            .users
            .iter()
            .filter(|(name, user)| user.group.as_ref().is_none_or(|group| group == *name))
            .map(|(name, user)| (name.clone(), user.uid))
            .collect();
        for (name, uid) in own {
            self.group(&name, self.groups.get(&name).copied().flatten().or(uid));
        }
        let group_ids = assign("group", &self.groups, &ids.groups, &BTreeMap::new())?;
        let wanted_uids = self.users.iter().map(|(name, user)| (name.clone(), user.uid)).collect();
        let user_ids = assign("user", &wanted_uids, &ids.users, &group_ids)?;

        let mut groups: BTreeMap<&str, Group> =
            group_ids.iter().map(|(name, &gid)| (name.as_str(), Group { name: name.clone(), gid, members: BTreeSet::new() })).collect();
        for (user, group) in &self.memberships {
            let there = groups.get_mut(group.as_str()).ok_or_else(|| StepsError::UnknownOwner {
                path: format!("etc/passwd, user {user}"),
                kind: "group",
                name: group.clone(),
            })?;
            there.members.insert(user.clone());
        }
        let mut users = Vec::new();
        for (name, user) in self.users {
            let group = user.group.as_deref().unwrap_or(&name);
            let gid = match group.parse() {
                Ok(gid) => gid,
                Err(_) => *group_ids.get(group).ok_or_else(|| StepsError::UnknownOwner {
                    path: format!("etc/passwd, user {name}"),
                    kind: "group",
                    name: group.to_owned(),
                })?,
            };
            let uid = user_ids.get(&name).copied().unwrap_or_default();
            users.push(User { uid, gid, gecos: user.gecos, home: user.home, shell: user.shell, name });
        }
        let mut groups: Vec<Group> = groups.into_values().collect();
        users.sort_by(|a, b| (a.uid, &a.name).cmp(&(b.uid, &b.name)));
        groups.sort_by(|a, b| (a.gid, &a.name).cmp(&(b.gid, &b.name)));
        Ok(Accounts { users, groups, base_users, base_groups })
    }
}

/// Numbers for all names: asked for, pinned, well known, the number in `like` (a user takes its group's), then free ones.
fn assign(
    kind: &'static str,
    wanted: &BTreeMap<String, Option<u32>>,
    pinned: &BTreeMap<String, u32>,
    like: &BTreeMap<String, u32>,
) -> Result<BTreeMap<String, u32>, StepsError> {
    let mut taken: BTreeMap<u32, String> = BTreeMap::new();
    let mut result = BTreeMap::new();
    let mut later = Vec::new();
    for (name, id) in wanted {
        let known = || WELL_KNOWN.iter().find(|(known, _)| known == name).map(|&(_, id)| id);
        let Some(id) = id.or_else(|| pinned.get(name).copied()).or_else(known) else {
            later.push(name);
            continue;
        };
        if let Some(other) = taken.insert(id, name.clone()) {
            return Err(StepsError::Account { kind, name: name.clone(), id, reason: format!("'{other}' has it") });
        }
        result.insert(name.clone(), id);
    }
    // Pins of accounts that are gone stay reserved: a host's files may still belong to them.
    let reserved: BTreeSet<u32> = pinned.values().copied().chain(WELL_KNOWN.iter().map(|&(_, id)| id)).collect();
    for name in later {
        let same = like.get(name).copied().filter(|id| !taken.contains_key(id));
        let free =
            || FREE_IDS.into_iter().find(|id| !taken.contains_key(id) && !reserved.contains(id) && !like.values().any(|other| other == id));
        let id = same.or_else(free).ok_or_else(|| StepsError::Account {
            kind,
            name: name.clone(),
            id: FREE_IDS.start,
            reason: "no number is free in the range for system accounts".to_owned(),
        })?;
        taken.insert(id, name.clone());
        result.insert(name.clone(), id);
    }
    Ok(result)
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

fn bad_line(path: &str, index: usize, message: &str) -> StepsError {
    StepsError::Text { path: path.to_owned(), line: index + 1, message: message.to_owned() }
}

/// Words of a line; double quotes keep blanks.
fn split_quoted(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        if c == '"' {
            quoted = !quoted;
            word.get_or_insert_default();
        } else if c.is_whitespace() && !quoted {
            words.extend(word.take());
        } else {
            word.get_or_insert_default().push(c);
        }
    }
    words.extend(word);
    words
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
