//! Users and groups as what they are: four files. Text in, text out; nothing here asks NSS or runs a program.
//!
//! Lines that are not understood are kept as they are. Ids that exist are never changed: files on the state partition
//! belong to them.

mod files;

pub use files::{AccountsError, Lock, load, store};

use crate::config::users::User;

/// People's ids.
const PEOPLE: std::ops::RangeInclusive<u32> = 1000..=59_999;
/// System ids, taken from the top, away from the image's own.
const SYSTEM: std::ops::RangeInclusive<u32> = 800..=999;

/// Rows of colon-separated fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table(Vec<Vec<String>>);

impl Table {
    /// Reads a file.
    pub fn parse(text: &str) -> Table {
        Table(text.lines().map(|l| l.split(':').map(str::to_owned).collect()).collect())
    }

    /// Writes it.
    pub fn format(&self) -> String {
        self.0.iter().map(|row| row.join(":") + "\n").collect()
    }

    fn row(&self, name: &str) -> Option<&Vec<String>> {
        self.0.iter().find(|row| row.len() > 1 && row.first().is_some_and(|n| n == name))
    }

    fn row_mut(&mut self, name: &str) -> Option<&mut Vec<String>> {
        self.0.iter_mut().find(|row| row.len() > 1 && row.first().is_some_and(|n| n == name))
    }

    fn field(&self, name: &str, index: usize) -> Option<&str> {
        self.row(name)?.get(index).map(String::as_str)
    }

    fn ids(&self) -> impl Iterator<Item = u32> {
        self.0.iter().filter_map(|row| row.get(2)?.parse().ok())
    }

    fn push(&mut self, fields: &[&str]) {
        self.0.push(fields.iter().map(|f| (*f).to_owned()).collect());
    }

    fn set(&mut self, name: &str, index: usize, value: &str) {
        if let Some(field) = self.row_mut(name).and_then(|row| row.get_mut(index)) {
            value.clone_into(field);
        }
    }

    /// Adds a name to a comma-separated field.
    fn add_to_list(&mut self, name: &str, index: usize, member: &str) {
        if let Some(field) = self.row_mut(name).and_then(|row| row.get_mut(index))
            && !field.split(',').any(|m| m == member)
        {
            if !field.is_empty() {
                field.push(',');
            }
            field.push_str(member);
        }
    }
}

/// The user database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Database {
    /// /etc/passwd
    pub passwd: Table,
    /// /etc/group
    pub group: Table,
    /// /etc/shadow
    pub shadow: Table,
    /// /etc/gshadow
    pub gshadow: Table,
}

/// A user as files need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
}

/// Why a user or group cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// Two users would share files.
    #[error("uid {0} belongs to {1} already; choose another")]
    UidTaken(u32, String),
    /// All ids of the range are in use.
    #[error("no free id is left")]
    NoFreeId,
    /// A password for nobody.
    #[error("there is no user {0}; add it under `users`")]
    NoUser(String),
    /// The primary group cannot be found although it was made; the group file is damaged.
    #[error("the group {0} has no id in /etc/group")]
    NoGroupId(String),
}

impl Database {
    /// A user by name.
    pub fn account(&self, name: &str) -> Option<Account> {
        let row = self.passwd.row(name)?;
        Some(Account { uid: row.get(2)?.parse().ok()?, gid: row.get(3)?.parse().ok()?, home: row.get(5)?.clone() })
    }

    /// A user's id by name or number.
    pub fn uid(&self, name: &str) -> Option<u32> {
        self.account(name).map(|a| a.uid).or_else(|| name.parse().ok())
    }

    /// A group's id by name or number.
    pub fn gid(&self, name: &str) -> Option<u32> {
        self.group.field(name, 2).and_then(|id| id.parse().ok()).or_else(|| name.parse().ok())
    }

    /// Makes a group unless it exists. `wanted` is taken if it is free.
    pub fn ensure_group(&mut self, name: &str, system: bool, wanted: Option<u32>) -> Result<u32, AccountError> {
        if self.group.row(name).is_some() {
            return self.group.field(name, 2).and_then(|id| id.parse().ok()).ok_or_else(|| AccountError::NoGroupId(name.to_owned()));
        }
        let used: Vec<u32> = self.group.ids().collect();
        let gid = match wanted.filter(|id| !used.contains(id)) {
            Some(id) => id,
            None => free(&used, system)?,
        };
        self.group.push(&[name, "x", &gid.to_string(), ""]);
        self.gshadow.push(&[name, "!", "", ""]);
        Ok(gid)
    }

    /// Makes a user a member of a group, which must exist.
    pub fn join(&mut self, group: &str, user: &str) {
        self.group.add_to_list(group, 3, user);
        self.gshadow.add_to_list(group, 3, user);
    }

    /// Makes a user, or brings an existing one up to date: its password, when one is given, and more groups. `days` is today for
    /// /etc/shadow. Returns what an existing user keeps although the configuration says otherwise.
    pub fn ensure_user(&mut self, user: &User, days: u64) -> Result<Option<String>, AccountError> {
        let note = match self.passwd.row(&user.name).is_some() {
            true => self.differences(user),
            false => {
                self.create_user(user, days)?;
                None
            }
        };
        for group in &user.groups {
            self.ensure_group(group, false, None)?;
            self.join(group, &user.name);
        }
        self.password(user, days);
        Ok(note)
    }

    fn create_user(&mut self, user: &User, days: u64) -> Result<(), AccountError> {
        let used: Vec<u32> = self.passwd.ids().collect();
        let uid = match user.uid {
            Some(uid) => match self.passwd.0.iter().find(|r| r.get(2).is_some_and(|id| *id == uid.to_string())) {
                Some(row) => return Err(AccountError::UidTaken(uid, row.first().cloned().unwrap_or_default())),
                None => uid,
            },
            None => free(&used, user.system)?,
        };
        let gid = match &user.primary_group {
            Some(group) => self.ensure_group(group, user.system, None)?,
            None if user.no_user_group => self.gid("users").ok_or_else(|| AccountError::NoGroupId("users".to_owned()))?,
            None => self.ensure_group(&user.name, user.system, Some(uid))?,
        };
        let home = user.home.clone().unwrap_or_else(|| format!("/home/{}", user.name));
        let shell = user.shell.as_deref().unwrap_or(if user.system { "/usr/sbin/nologin" } else { "/bin/bash" });
        self.passwd.push(&[&user.name, "x", &uid.to_string(), &gid.to_string(), &user.gecos, &home, shell]);
        if self.shadow.row(&user.name).is_none() {
            self.shadow.push(&[&user.name, "*", &days.to_string(), "0", "99999", "7", "", "", ""]);
        }
        Ok(())
    }

    /// A hash as it was given; locked, with `!` before it, only when that was asked for. Without a hash nothing changes but a lock.
    fn password(&mut self, user: &User, days: u64) {
        match (&user.password, user.lock) {
            (Some(hash), Some(true)) => {
                let locked = if hash.starts_with('!') { hash.clone() } else { format!("!{hash}") };
                self.set_password(&user.name, &locked, days);
            }
            (Some(hash), _) => self.set_password(&user.name, hash, days),
            (None, Some(true)) => {
                let now = self.shadow.field(&user.name, 1).unwrap_or_default().to_owned();
                if !now.starts_with(['!', '*']) {
                    self.set_password(&user.name, &format!("!{now}"), days);
                }
            }
            (None, _) => {}
        }
    }

    /// Sets a shadow password field.
    pub fn set_password(&mut self, name: &str, field: &str, days: u64) {
        match self.shadow.field(name, 1) {
            Some(now) if now == field => {}
            Some(_) => {
                self.shadow.set(name, 1, field);
                self.shadow.set(name, 2, &days.to_string());
            }
            None => self.shadow.push(&[name, field, &days.to_string(), "0", "99999", "7", "", "", ""]),
        }
    }

    fn differences(&self, user: &User) -> Option<String> {
        let mut kept = Vec::new();
        let mut compare = |what: &str, index: usize, wanted: Option<String>| {
            if let (Some(wanted), Some(now)) = (wanted, self.passwd.field(&user.name, index))
                && wanted != now
            {
                kept.push(format!("{what} {now}"));
            }
        };
        compare("uid", 2, user.uid.map(|u| u.to_string()));
        compare("home", 5, user.home.clone());
        compare("shell", 6, user.shell.clone());
        (!kept.is_empty()).then(|| format!("{} exists and keeps its {}", user.name, kept.join(", ")))
    }
}

/// People get the first free id, system users the last.
fn free(used: &[u32], system: bool) -> Result<u32, AccountError> {
    let is_free = |id: &u32| !used.contains(id);
    let id = if system { SYSTEM.rev().find(is_free) } else { PEOPLE.clone().find(is_free) };
    id.ok_or(AccountError::NoFreeId)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Database {
        Database {
            passwd: Table::parse("root:x:0:0:root:/root:/bin/bash\ncore:x:500:500::/home/core:/bin/bash\n"),
            group: Table::parse("root:x:0:\ncore:x:500:\ndocker:x:233:core\nusers:x:100:\n"),
            shadow: Table::parse("root:*:1:0:99999:7:::\ncore:*:1:0:99999:7:::\n"),
            gshadow: Table::parse("root:*::\ncore:!::\ndocker:!::core\nusers:*::\n"),
        }
    }

    fn user(name: &str) -> User {
        User { name: name.to_owned(), ..User::default() }
    }

    #[test]
    fn a_new_user_gets_the_first_free_id_a_group_and_a_locked_password() {
        let mut db = image();
        db.ensure_user(&User { groups: vec!["docker".into(), "web".into()], ..user("ada") }, 20000).unwrap();
        assert!(db.passwd.format().ends_with("ada:x:1000:1000::/home/ada:/bin/bash\n"));
        assert!(db.shadow.format().ends_with("ada:*:20000:0:99999:7:::\n"));
        assert!(db.group.format().ends_with("docker:x:233:core,ada\nusers:x:100:\nada:x:1000:\nweb:x:1001:ada\n"));
        assert!(db.gshadow.format().ends_with("docker:!::core,ada\nusers:*::\nada:!::\nweb:!::ada\n"));
    }

    #[test]
    fn doing_it_again_changes_nothing() {
        let mut db = image();
        let ada = User { groups: vec!["docker".into()], password: Some("$6$x".into()), ..user("ada") };
        db.ensure_user(&ada, 20000).unwrap();
        let once = db.clone();
        assert_eq!(db.ensure_user(&ada, 20001).unwrap(), None);
        assert_eq!(db, once);
    }

    #[test]
    fn an_existing_user_keeps_its_ids_and_gets_password_and_groups() {
        let mut db = image();
        let core = User {
            uid: Some(1234),
            password: Some("$6$x".into()),
            shell: Some("/bin/sh".into()),
            groups: vec!["users".into()],
            ..user("core")
        };
        assert_eq!(db.ensure_user(&core, 7).unwrap().unwrap(), "core exists and keeps its uid 500, shell /bin/bash");
        assert_eq!(db.account("core").unwrap().uid, 500);
        assert_eq!(db.shadow.field("core", 1), Some("$6$x"));
        assert_eq!(db.group.field("users", 3), Some("core"));
    }

    #[test]
    fn passwords_are_locked_only_when_asked_for() {
        let mut db = image();
        let hash = Some("$6$x".to_owned());
        db.ensure_user(&User { password: hash.clone(), lock: Some(true), ..user("a") }, 1).unwrap();
        db.ensure_user(&User { password: hash.clone(), lock: Some(false), ..user("b") }, 1).unwrap();
        db.ensure_user(&User { password: hash, ..user("c") }, 1).unwrap();
        assert_eq!(["a", "b", "c"].map(|n| db.shadow.field(n, 1).unwrap()), ["!$6$x", "$6$x", "$6$x"]);
    }

    #[test]
    fn a_taken_uid_is_refused_and_system_ids_come_from_the_top() {
        let mut db = image();
        assert_eq!(db.ensure_user(&User { uid: Some(500), ..user("x") }, 1), Err(AccountError::UidTaken(500, "core".into())));
        db.ensure_user(&User { system: true, ..user("svc") }, 1).unwrap();
        assert!(db.passwd.format().ends_with("svc:x:999:999::/home/svc:/usr/sbin/nologin\n"));
    }

    #[test]
    fn strange_lines_survive() {
        let text = "# comment\n\n+::::::\nroot:x:0:0:root:/root:/bin/bash\n";
        assert_eq!(Table::parse(text).format(), text);
    }
}
