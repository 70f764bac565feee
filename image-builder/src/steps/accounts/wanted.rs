//! Who is to be in the image, before everyone has a number: the base system's masters, the lines of `sysusers.d`
//! (sysusers.d(5)), what scripts of packages would add, the recipe.

use std::collections::{BTreeMap, BTreeSet};

use super::numbers::assign;
use super::{Accounts, Group, GroupSpec, Ids, User, UserSpec};
use crate::steps::{PackageRecord, StepsError, text};
use crate::tree::Tree;

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

/// All accounts that somebody asks for.
#[derive(Default)]
pub(super) struct Wanted {
    users: BTreeMap<String, WantedUser>,
    groups: BTreeMap<String, Option<u32>>,
    /// Pairs of user and group.
    memberships: BTreeSet<(String, String)>,
    /// What the base system has, whose numbers Debian fixes.
    base_users: BTreeSet<String>,
    base_groups: BTreeSet<String>,
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
    /// Asks everybody, the recipe last: its word counts most.
    pub fn gather(tree: &Tree, packages: &[PackageRecord], groups: &[GroupSpec], users: &[UserSpec]) -> Result<Self, StepsError> {
        let mut wanted = Self::default();
        wanted.read_masters(tree)?;
        wanted.base_users = wanted.users.keys().cloned().collect();
        wanted.base_groups = wanted.groups.keys().cloned().collect();
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
        Ok(wanted)
    }

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

    /// Gives everyone a number.
    pub fn number(mut self, ids: &Ids) -> Result<Accounts, StepsError> {
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
        Ok(Accounts { users, groups, base_users: self.base_users, base_groups: self.base_groups })
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
