//! Users and groups by name, from the files themselves: a static program has no name service.

use std::fs;
use std::path::Path;

/// The numeric id of a user, given by name or number.
#[must_use]
pub fn user_id(root: &Path, name: &str) -> Option<u32> {
    name.parse().ok().or_else(|| lookup(&fs::read_to_string(root.join("etc/passwd")).ok()?, name))
}

/// The numeric id of a group, given by name or number.
#[must_use]
pub fn group_id(root: &Path, name: &str) -> Option<u32> {
    name.parse().ok().or_else(|| lookup(&fs::read_to_string(root.join("etc/group")).ok()?, name))
}

/// Both files have the id in their third field.
fn lookup(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let text = "root:x:0:0::/root:/bin/sh\ncore:x:500:500::/home/core:/bin/sh\nbroken\n";
        assert_eq!(lookup(text, "core"), Some(500));
        assert_eq!(lookup(text, "nobody"), None);
        assert_eq!(user_id(Path::new("/nonexistent"), "42"), Some(42));
        assert_eq!(user_id(Path::new("/nonexistent"), "x"), None);
    }
}
