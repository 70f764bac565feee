//! `users`, `groups`, `user`, `chpasswd`.

use super::keys::{CHPASSWD, CHPASSWD_USER, USER};
use super::reader::{Placed, Reader};
use crate::diagnostics::Place;
use crate::yaml::{Node, Value};

/// A user to be made, or to be given a password, keys, groups and sudo rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Where it was written.
    pub place: Place,
    /// Login name.
    pub name: String,
    /// Comment field.
    pub gecos: String,
    /// Crypt hash.
    pub password: Option<String>,
    /// `lock_passwd`, if written.
    pub lock: Option<bool>,
    /// Home directory; `/home/NAME` if absent.
    pub home: Option<String>,
    /// Whether the home directory is left out.
    pub no_create_home: bool,
    /// Primary group; one of the user's name if absent.
    pub primary_group: Option<String>,
    /// More groups.
    pub groups: Vec<String>,
    /// Whether no group of the user's name is made.
    pub no_user_group: bool,
    /// Public keys.
    pub keys: Vec<String>,
    /// Whether it is a system user.
    pub system: bool,
    /// Login shell.
    pub shell: Option<String>,
    /// User id; the first free from 1000 if absent.
    pub uid: Option<u32>,
    /// Lines for sudoers, without the user's name.
    pub sudo: Vec<String>,
}

/// A group to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Where it was written.
    pub place: Place,
    /// Its name.
    pub name: String,
    /// Users that join it.
    pub members: Vec<String>,
}

/// A crypt hash for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Password {
    /// Where it was written.
    pub place: Place,
    /// Whose.
    pub user: String,
    /// The hash.
    pub hash: String,
}

/// Names that the user database and every tool can hold.
pub fn valid_name(name: &str) -> bool {
    let mut chars = name.chars();
    name.len() <= 32
        && chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$'))
}

impl Reader<'_> {
    fn name(&mut self, node: &Node, path: &str) -> Option<String> {
        let name = self.line(node, path)?;
        if valid_name(&name) {
            return Some(name);
        }
        self.error(
            node.place,
            format!("`{path}` is not a valid name: letters, digits, `_`, `-` and `.`, at most 32, not beginning with a digit"),
        );
        None
    }

    /// `users`: a list of names and maps, a map of maps, or names with commas.
    pub fn users(&mut self, node: &Node) -> Vec<User> {
        let mut users = Vec::new();
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    users.extend(self.item(|r| r.user(&entry.node, &format!("users.{}", entry.key), Some(&entry.key))));
                }
            }
            Value::Str(_) => {
                for name in self.names(node, "users") {
                    users.extend(self.plain_user(name, "users"));
                }
            }
            _ => {
                for (path, item) in self.list(node, "users") {
                    if matches!(item.value, Value::Str(_)) {
                        for name in self.names(item, &path) {
                            users.extend(self.plain_user(name, &path));
                        }
                    } else if item.value != Value::Null {
                        users.extend(self.item(|r| r.user(item, &path, None)));
                    }
                }
            }
        }
        users
    }

    /// `default` is the user `core`, which the image has.
    fn plain_user(&mut self, name: Placed<String>, path: &str) -> Option<User> {
        if name.value == "default" {
            return None;
        }
        if !valid_name(&name.value) {
            self.error(name.place, format!("`{path}` is not a valid user name"));
            return None;
        }
        Some(User { place: name.place, name: name.value, ..User::default() })
    }

    /// One user's map.
    pub fn user(&mut self, node: &Node, path: &str, key: Option<&str>) -> Option<User> {
        let fields = self.fields(node, path, USER)?;
        let name = match (fields.get("name"), key) {
            (Some(name), _) => self.name(name, &fields.path("name"))?,
            (None, Some("default")) => "core".to_owned(),
            (None, Some(key)) if valid_name(key) => key.to_owned(),
            _ => {
                self.error(node.place, format!("`{path}` has no `name`"));
                return None;
            }
        };
        let hash_key = if fields.get("hashed_passwd").is_some() { "hashed_passwd" } else { "passwd" };
        let password = fields.get(hash_key).and_then(|n| self.hash(n, &fields.path(hash_key)));
        let mut user = User {
            place: node.place,
            name,
            gecos: self.opt_line(&fields, "gecos").unwrap_or_default(),
            password,
            lock: self.opt_bool(&fields, "lock_passwd"),
            home: self.opt_line(&fields, "homedir"),
            no_create_home: self.opt_bool(&fields, "no_create_home").unwrap_or(false),
            primary_group: fields.get("primary_group").and_then(|n| self.name(n, &fields.path("primary_group"))),
            no_user_group: self.opt_bool(&fields, "no_user_group").unwrap_or(false),
            system: self.opt_bool(&fields, "system").unwrap_or(false),
            shell: self.opt_line(&fields, "shell"),
            ..User::default()
        };
        for (key, value) in [("homedir", &user.home), ("shell", &user.shell)] {
            if value.as_deref().is_some_and(|v| !v.starts_with('/')) {
                self.error(node.place, format!("`{}` must begin with `/`", fields.path(key)));
            }
        }
        for (key, value) in [("gecos", Some(&user.gecos)), ("homedir", user.home.as_ref()), ("shell", user.shell.as_ref())] {
            if value.is_some_and(|v| v.contains(':')) {
                self.error(node.place, format!("`{}` must not contain `:`", fields.path(key)));
            }
        }
        if let Some(node) = fields.get("groups") {
            for group in self.names(node, &fields.path("groups")) {
                if valid_name(&group.value) {
                    user.groups.push(group.value);
                } else {
                    self.error(group.place, format!("`{}` has a name that is not valid", fields.path("groups")));
                }
            }
        }
        if let Some(node) = fields.get("ssh_authorized_keys") {
            user.keys = self.ssh_keys(node, &fields.path("ssh_authorized_keys")).into_iter().map(|k| k.value).collect();
        }
        if let Some(node) = fields.get("uid") {
            user.uid = self.line(node, &fields.path("uid")).and_then(|t| t.parse().ok()).filter(|uid| *uid < 65534);
            if user.uid.is_none() {
                self.error(node.place, format!("`{}` must be a number below 65534", fields.path("uid")));
            }
        }
        if let Some(node) = fields.get("sudo") {
            user.sudo = self.sudo(node, &fields.path("sudo"));
        }
        Some(user)
    }

    fn sudo(&mut self, node: &Node, path: &str) -> Vec<String> {
        match &node.value {
            Value::Bool(false) => Vec::new(),
            Value::Bool(true) => {
                self.error(node.place, format!("`{path}` must be a rule such as `ALL=(ALL) NOPASSWD:ALL`, or false"));
                Vec::new()
            }
            Value::Str(s) if s.eq_ignore_ascii_case("false") => Vec::new(),
            _ => {
                let rules = self.lines(node, path);
                for rule in &rules {
                    if !rule.value.contains('=') {
                        self.error(rule.place, format!("`{path}` is not a sudoers rule; it needs a `=`, as in `ALL=(ALL) NOPASSWD:ALL`"));
                    }
                }
                rules.into_iter().map(|r| r.value).collect()
            }
        }
    }

    /// Public keys, each one line with a known beginning.
    pub fn ssh_keys(&mut self, node: &Node, path: &str) -> Vec<Placed<String>> {
        let mut keys = self.lines(node, path);
        keys.retain(|key| {
            let plausible = ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| key.value.split_whitespace().any(|word| word.starts_with(kind)));
            if !plausible {
                self.diagnostics.warning(key.place, format!("`{path}` has something that does not look like a public key; left out"));
            }
            plausible
        });
        keys
    }

    fn hash(&mut self, node: &Node, path: &str) -> Option<String> {
        let hash = self.line(node, path)?;
        let marker = matches!(hash.as_str(), "*" | "!" | "!!" | "");
        if hash.contains([':', ' ', '\t']) || !(marker || hash.trim_start_matches('!').starts_with('$') || hash.len() == 13) {
            self.error(node.place, format!("`{path}` is not a crypt hash (they begin with `$`); `mkpasswd -m sha-512` makes one"));
            return None;
        }
        if hash.is_empty() {
            self.error(node.place, format!("`{path}` is empty, which would let anyone in"));
            return None;
        }
        Some(hash)
    }

    /// `groups`: a list of names and `{name: members}` maps, such a map, or names with commas.
    pub fn groups(&mut self, node: &Node) -> Vec<Group> {
        let mut groups = Vec::new();
        let items = match &node.value {
            Value::Seq(_) => self.list(node, "groups"),
            _ => vec![("groups".to_owned(), node)],
        };
        for (path, item) in items {
            match &item.value {
                Value::Map(entries) => {
                    for entry in entries {
                        let members = match &entry.node.value {
                            Value::Null => Vec::new(),
                            _ => self.names(&entry.node, &format!("{path}.{}", entry.key)),
                        };
                        groups.push(Group {
                            place: entry.place,
                            name: entry.key.clone(),
                            members: members.into_iter().map(|m| m.value).collect(),
                        });
                    }
                }
                Value::Null => {}
                _ => {
                    let names = self.names(item, &path);
                    groups.extend(names.into_iter().map(|n| Group { place: n.place, name: n.value, members: Vec::new() }));
                }
            }
        }
        groups.retain(|group| {
            let valid = valid_name(&group.name) && group.members.iter().all(|m| valid_name(m));
            if !valid {
                self.error(group.place, "`groups` has a name that is not valid: letters, digits, `_`, `-` and `.`, at most 32");
            }
            valid
        });
        groups
    }

    /// `chpasswd`: hashes only.
    pub fn chpasswd(&mut self, node: &Node) -> Vec<Password> {
        let mut passwords = Vec::new();
        let Some(fields) = self.fields(node, "chpasswd", CHPASSWD) else { return passwords };
        if let Some(node) = fields.get("users") {
            for (path, item) in self.list(node, "chpasswd.users") {
                passwords.extend(self.item(|r| {
                    let fields = r.fields(item, &path, CHPASSWD_USER)?;
                    let user = fields.get("name").and_then(|n| r.name(n, &fields.path("name")));
                    match r.opt_line(&fields, "type").as_deref() {
                        Some("hash") => {}
                        _ => r.error(item.place, format!("`{path}`: only `type: hash` is read by this release")),
                    }
                    let hash = fields.get("password").and_then(|n| r.hash(n, &fields.path("password")));
                    Some(Password { place: item.place, user: user?, hash: hash? })
                }));
            }
        }
        if let Some(node) = fields.get("list") {
            let text = match &node.value {
                Value::Seq(_) => self.lines(node, "chpasswd.list").into_iter().map(|l| l.value).collect::<Vec<_>>().join("\n"),
                _ => self.text(node, "chpasswd.list").unwrap_or_default(),
            };
            for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
                match line.split_once(':') {
                    Some((user, hash)) if valid_name(user) && hash.starts_with('$') => {
                        passwords.push(Password { place: node.place, user: user.to_owned(), hash: hash.to_owned() });
                    }
                    _ => self.error(node.place, "`chpasswd.list`: only `user:$hash` lines are read by this release"),
                }
            }
        }
        passwords
    }
}
