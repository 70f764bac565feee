//! Users and groups, read from `/etc/passwd` and `/etc/group` as files: this binary has no NSS.

use std::path::Path;

/// A user as `/etc/passwd` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Number.
    pub uid: u32,
    /// Number of the primary group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
    /// Shell.
    pub shell: String,
}

fn lines(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
}

/// Finds a user by name or number; a number without an entry is a user all the same.
#[must_use]
pub fn user(etc: &Path, wanted: &str) -> Option<User> {
    let number = wanted.parse::<u32>().ok();
    for line in lines(&etc.join("passwd")) {
        let mut fields = line.split(':');
        let (Some(name), _, Some(uid), Some(gid)) = (fields.next(), fields.next(), fields.next(), fields.next()) else { continue };
        let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else { continue };
        if name == wanted || number == Some(uid) {
            let _gecos = fields.next();
            let home = fields.next().filter(|home| !home.is_empty()).unwrap_or("/").to_owned();
            let shell = fields.next().filter(|shell| !shell.is_empty()).unwrap_or("/bin/sh").to_owned();
            return Some(User { name: name.to_owned(), uid, gid, home, shell });
        }
    }
    match number {
        Some(0) => Some(User { name: "root".into(), uid: 0, gid: 0, home: "/root".into(), shell: "/bin/sh".into() }),
        Some(uid) => Some(User { name: wanted.to_owned(), uid, gid: uid, home: "/".into(), shell: "/bin/sh".into() }),
        None if wanted == "root" => user(etc, "0"),
        None => None,
    }
}

/// The number of a group.
#[must_use]
pub fn group(etc: &Path, wanted: &str) -> Option<u32> {
    if let Ok(number) = wanted.parse() {
        return Some(number);
    }
    let found = lines(&etc.join("group")).into_iter().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(wanted)).then(|| fields.nth(1).and_then(|gid| gid.parse().ok())).flatten()
    });
    found.or_else(|| (wanted == "root").then_some(0))
}

/// Numbers of the groups that list a user as member.
#[must_use]
pub fn groups_of(etc: &Path, user: &str) -> Vec<u32> {
    lines(&etc.join("group"))
        .into_iter()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let gid = fields.nth(2)?.parse().ok()?;
            fields.next()?.split(',').any(|member| member == user).then_some(gid)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found_in_the_files() {
        let etc = tempfile::tempdir().unwrap();
        std::fs::write(etc.path().join("passwd"), "root:x:0:0::/root:/bin/bash\nbroken\ncore:x:500:501:Core,,:/home/core:\n").unwrap();
        std::fs::write(etc.path().join("group"), "root:x:0:\ndocker:x:233:other,core\nsudo:x:27:core\ncore:x:501:\n").unwrap();
        let core = user(etc.path(), "core").unwrap();
        assert_eq!((core.uid, core.gid, core.home.as_str(), core.shell.as_str()), (500, 501, "/home/core", "/bin/sh"));
        assert_eq!(user(etc.path(), "500").unwrap().name, "core");
        assert_eq!(user(etc.path(), "777").unwrap().gid, 777);
        assert_eq!(user(etc.path(), "nobody"), None);
        assert_eq!(group(etc.path(), "docker"), Some(233));
        assert_eq!(group(etc.path(), "none"), None);
        assert_eq!(groups_of(etc.path(), "core"), [233, 27]);
    }
}
