//! The steps about people: groups, users, passwords, homes and keys.

use super::files::{self, Meta};
use super::{Ended, Outcome, Run, changed};
use crate::accounts::{self, Account, Database};
use crate::config::users::User;
use std::fs;
use std::path::Path;

impl Run<'_> {
    /// Changes the database under its lock.
    fn database<T>(&mut self, change: impl FnOnce(&mut Database) -> Result<T, String>) -> Result<(T, bool), String> {
        let root = self.system.root();
        let _lock = accounts::Lock::take(root).map_err(|e| e.to_string())?;
        let before = accounts::load(root).map_err(|e| e.to_string())?;
        let mut after = before.clone();
        let value = change(&mut after)?;
        let stored = accounts::store(root, &before, &after).map_err(|e| e.to_string())?;
        Ok((value, stored))
    }

    fn days(&self) -> u64 {
        self.system.now() / 86_400
    }

    pub(super) fn owner(&self, owner: &str, group: Option<&str>) -> Result<(u32, u32), String> {
        // Almost everything is root's: no need to read two files for it.
        if owner == "root" && group.is_none_or(|g| g == "root") {
            return Ok((0, 0));
        }
        let database = accounts::load(self.system.root()).map_err(|e| e.to_string())?;
        let uid = database.uid(owner).ok_or_else(|| format!("there is no user {owner}; add it under `users`"))?;
        let gid = match group {
            Some(group) => database.gid(group).ok_or_else(|| format!("there is no group {group}; add it under `groups`"))?,
            None => database.account(owner).map_or(uid, |a| a.gid),
        };
        Ok((uid, gid))
    }

    pub(super) fn group(&mut self, name: &str, members: &[String]) -> Ended {
        let (missing, stored) = self.database(|db| {
            db.ensure_group(name, false, None).map_err(|e| e.to_string())?;
            let (present, missing): (Vec<_>, Vec<_>) = members.iter().partition(|m| db.account(m).is_some());
            present.into_iter().for_each(|m| db.join(name, m));
            Ok(missing.into_iter().map(String::as_str).collect::<Vec<_>>().join(", "))
        })?;
        if missing.is_empty() { Ok(changed(stored)) } else { Err(format!("the group is there, but there is no user {missing}")) }
    }

    pub(super) fn user(&mut self, user: &User) -> Ended {
        let days = self.days();
        let ((account, note), stored) = self.database(|db| {
            let note = db.ensure_user(user, days).map_err(|e| e.to_string())?;
            Ok((db.account(&user.name), note))
        })?;
        let account = account.ok_or_else(|| format!("{} is not in /etc/passwd after it was added", user.name))?;
        let made = if user.no_create_home || user.system { false } else { self.home(&account)? };
        let (mut outcome, _) = changed(stored || made);
        let mut note = note;
        if let Some(shell) = &user.shell
            && !self.path(shell).exists()
        {
            note = Some(format!("its shell {shell} is not in this image, so it cannot log in"));
            outcome = Outcome::Changed;
        }
        Ok((outcome, note))
    }

    /// Makes a home directory that is missing; whether it was.
    fn home(&self, account: &Account) -> Result<bool, String> {
        let home = self.path(&account.home);
        if home.is_dir() {
            return Ok(false);
        }
        let meta = Meta { mode: 0o700, uid: account.uid, gid: account.gid };
        files::make_parents(&home, Meta { mode: 0o755, uid: 0, gid: 0 }).map_err(|e| e.to_string())?;
        files::make_directory(&home, meta).map_err(|e| e.to_string())?;
        files::copy_skeleton(&self.path("/etc/skel"), &home, meta).map_err(|e| e.to_string())?;
        Ok(true)
    }

    pub(super) fn password(&mut self, user: &str, hash: &str) -> Ended {
        let days = self.days();
        let ((), stored) = self.database(|db| {
            db.account(user).ok_or_else(|| format!("there is no user {user}; add it under `users`"))?;
            db.set_password(user, hash, days);
            Ok(())
        })?;
        Ok(changed(stored))
    }

    /// Adds keys that are not there; what a person added stays.
    pub(super) fn authorized_keys(&mut self, user: &str, keys: &[String]) -> Ended {
        let database = accounts::load(self.system.root()).map_err(|e| e.to_string())?;
        let account = database.account(user).ok_or_else(|| format!("there is no user {user}; add it under `users`"))?;
        self.home(&account)?;
        let dir = self.path(&account.home).join(".ssh");
        let meta = Meta { mode: 0o700, uid: account.uid, gid: account.gid };
        own_directory(&dir, meta)?;
        files::make_directory(&dir, meta).map_err(|e| e.to_string())?;
        let path = dir.join("authorized_keys");
        let mut text = match fs::symlink_metadata(&path) {
            Ok(found) if !found.is_file() => return Err(format!("{} is not a plain file", path.display())),
            Ok(_) => fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?,
            Err(_) => String::new(),
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        for key in keys.iter().map(|k| k.trim()).filter(|k| !k.is_empty() && !k.contains('\n')) {
            if !text.lines().any(|line| line.trim() == key) {
                text.push_str(key);
                text.push('\n');
            }
        }
        files::write_atomic(&path, text.as_bytes(), Meta { mode: 0o600, ..meta }).map(changed).map_err(|e| e.to_string())
    }
}

/// The home is its user's: root must not be led elsewhere by a link in it.
fn own_directory(dir: &Path, meta: Meta) -> Result<(), String> {
    match fs::symlink_metadata(dir) {
        Ok(found) if !found.is_dir() => Err(format!("{} is not a directory; no key was added", dir.display())),
        Ok(found) if !files::has_owner(&found, meta) => {
            Err(format!("{} does not belong to its user; sshd would not read it, no key was added", dir.display()))
        }
        _ => Ok(()),
    }
}
