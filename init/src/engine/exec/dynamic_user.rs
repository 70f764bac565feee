//! `DynamicUser=`: a number that no other unit has while the machine runs, without an entry in `/etc/passwd`.
//!
//! The number comes from the unit's name, so that what the unit keeps in its state directory is its own after the next boot, too.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::identity::User;

/// systemd's range for such users (`systemd.exec(5)`).
const FIRST: u32 = 61_184;
const COUNT: u32 = 65_520 - FIRST;

/// The user of a unit; `directory` remembers who has which number.
///
/// # Errors
/// When the directory cannot be used, or all numbers are taken.
pub fn claim(directory: &Path, unit: &str) -> io::Result<User> {
    std::fs::create_dir_all(directory)?;
    let start = hash(unit) % COUNT;
    for uid in (0..COUNT).map(|step| FIRST + (start + step) % COUNT) {
        let place = directory.join(uid.to_string());
        // A link is there whole or not at all, whoever else is asking at the same time.
        let taken = match symlink(unit, &place) {
            Ok(()) => true,
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => std::fs::read_link(&place)?.as_os_str() == unit,
            Err(why) => return Err(why),
        };
        if taken {
            let name = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem).to_owned();
            return Ok(User { name, uid, gid: uid, home: "/".to_owned(), shell: "/usr/sbin/nologin".to_owned() });
        }
    }
    Err(io::Error::other("every number for dynamic users is taken"))
}

/// FNV-1a, which gives the same on every machine.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_keeps_its_number_and_shares_it_with_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let uid = |unit: &str| claim(directory.path(), unit).unwrap().uid;
        let first = uid("a.service");
        assert!((FIRST..FIRST + COUNT).contains(&first));
        assert_eq!(uid("a.service"), first);
        std::fs::remove_file(directory.path().join(first.to_string())).unwrap();
        symlink("other.service", directory.path().join(first.to_string())).unwrap();
        assert_eq!(uid("a.service"), (first - FIRST + 1) % COUNT + FIRST, "the number is somebody else's");
        let all: std::collections::BTreeSet<u32> = (0..500).map(|number| uid(&format!("u{number}.service"))).collect();
        assert_eq!(all.len(), 500);
    }
}
