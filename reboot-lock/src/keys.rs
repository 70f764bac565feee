//! Names of groups, and where everything is in etcd. Groups and ids are escaped as locksmith escaped groups (`prod/database` is
//! `prod%2Fdatabase`), so that nobody's name reaches into another's keys.

use std::fmt;
use std::str::FromStr;

use crate::error::LockError;

/// What all keys begin with, unless the configuration says otherwise.
pub const DEFAULT_PREFIX: &str = "/garboard/reboot-lock/v1";
const MAX_NAME: usize = 128;
const MAX_ID: usize = 256;

/// A group of hosts that share one semaphore: 1 to 128 bytes, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(String);

impl Group {
    /// Its name as people write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Group {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Group {
    type Err = LockError;

    fn from_str(name: &str) -> Result<Self, LockError> {
        match wrong(name, MAX_NAME) {
            None => Ok(Self(name.to_owned())),
            Some(reason) => Err(LockError::BadGroup { name: shortened(name, 64), reason }),
        }
    }
}

/// Whether `id` can name a host: 1 to 256 bytes, no control characters.
///
/// # Errors
/// When it cannot.
pub fn check_id(id: &str) -> Result<(), LockError> {
    match wrong(id, MAX_ID) {
        None => Ok(()),
        Some(reason) => Err(LockError::BadId { id: shortened(id, 64), reason }),
    }
}

fn wrong(name: &str, most: usize) -> Option<&'static str> {
    if name.is_empty() {
        Some("is empty")
    } else if name.len() > most {
        Some("is too long")
    } else if name.chars().any(char::is_control) {
        Some("has control characters")
    } else {
        None
    }
}

/// `text` without control characters and of at most `most` characters: for what others wrote and we store or show.
#[must_use]
pub fn shortened(text: &str, most: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
}

/// Escapes as Go's `url.QueryEscape` does.
#[must_use]
pub fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The keys of one group, and those that all groups of an etcd cluster share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
    group: String,
}

impl Keys {
    /// Below `prefix`, which has no slash at its end.
    #[must_use]
    pub fn new(prefix: &str, group: &Group) -> Self {
        Self { prefix: prefix.trim_end_matches('/').to_owned(), group: escape(group.as_str()) }
    }

    /// Prefix of the semaphore and its holders: what the first of those who wait watches.
    #[must_use]
    pub fn lock(&self) -> String {
        format!("{}/groups/{}/lock/", self.prefix, self.group)
    }

    /// The semaphore's slots and generation.
    #[must_use]
    pub fn semaphore(&self) -> String {
        format!("{}semaphore", self.lock())
    }

    /// Prefix of the holders.
    #[must_use]
    pub fn holders(&self) -> String {
        format!("{}holder/", self.lock())
    }

    /// A host's record: there as long as it holds a slot.
    #[must_use]
    pub fn holder(&self, id: &str) -> String {
        format!("{}{}", self.holders(), escape(id))
    }

    /// Prefix of the notes below.
    #[must_use]
    pub fn expirings(&self) -> String {
        format!("{}expiring/", self.lock())
    }

    /// Says that the lock of this fence is on a lease. It outlives the lease, so that its end gets into the audit trail.
    #[must_use]
    pub fn expiring(&self, fence: u64) -> String {
        format!("{}{fence:020}", self.expirings())
    }

    /// Prefix of the places in the queue.
    #[must_use]
    pub fn queue(&self) -> String {
        format!("{}/groups/{}/queue/", self.prefix, self.group)
    }

    /// The place of a host that came when etcd was at `revision`. Later places sort first, so that "the next key after mine" is the one before me:
    /// a range with limit 1, which costs etcd the same however long the queue is.
    #[must_use]
    pub fn place(&self, revision: i64, id: &str) -> String {
        format!("{}{:016x}-{}", self.queue(), i64::MAX.saturating_sub(revision), escape(id))
    }

    /// Where the place of a host is noted.
    #[must_use]
    pub fn waiter(&self, id: &str) -> String {
        format!("{}/groups/{}/waiters/{}", self.prefix, self.group, escape(id))
    }

    /// Prefix of the audit trail.
    #[must_use]
    pub fn audits(&self) -> String {
        format!("{}/groups/{}/audit/", self.prefix, self.group)
    }

    /// The audit record of one generation: a ring of [`crate::audit::KEPT`].
    #[must_use]
    pub fn audit(&self, generation: u64) -> String {
        format!("{}{:04}", self.audits(), generation % crate::audit::KEPT)
    }

    /// The audit record of the end of the lock with this fence, which makes no generation: a ring of its own, as large.
    #[must_use]
    pub fn audit_end(&self, fence: u64) -> String {
        format!("{}end-{:04}", self.audits(), fence % crate::audit::KEPT)
    }

    /// Prefix of the quarantined versions of all groups.
    #[must_use]
    pub fn quarantines(&self) -> String {
        format!("{}/quarantine/", self.prefix)
    }

    /// The quarantine of a version.
    #[must_use]
    pub fn quarantine(&self, version: &str) -> String {
        format!("{}{}", self.quarantines(), escape(version))
    }

    /// The reservation to take one member of the etcd cluster down, for all groups.
    #[must_use]
    pub fn reservation(&self) -> String {
        format!("{}/etcd/reservation", self.prefix)
    }

    /// Where a host notes that it asks for the reservation.
    #[must_use]
    pub fn asking(&self, id: &str) -> String {
        format!("{}/etcd/asking/{}", self.prefix, escape(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_escaped_as_locksmith_did() {
        let keys = Keys::new(DEFAULT_PREFIX, &"prod/database".parse().unwrap());
        assert_eq!(keys.semaphore(), "/garboard/reboot-lock/v1/groups/prod%2Fdatabase/lock/semaphore");
        assert_eq!(escape("a b%\u{fc}~"), "a+b%25%C3%BC~");
        assert!("".parse::<Group>().is_err());
        assert!("a\nb".parse::<Group>().is_err());
        assert!("x".repeat(129).parse::<Group>().is_err());
    }

    #[test]
    fn the_one_before_me_is_the_next_key() {
        let keys = Keys::new(DEFAULT_PREFIX, &Group::default());
        let mut places = [keys.place(9, "a"), keys.place(100, "b"), keys.place(11, "c")];
        places.sort();
        assert_eq!(places, [keys.place(100, "b"), keys.place(11, "c"), keys.place(9, "a")]);
        assert!(places.iter().all(|place| place.starts_with(&keys.queue())));
    }
}
