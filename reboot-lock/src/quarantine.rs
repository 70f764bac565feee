//! Versions that failed on a host: nobody takes a lock for one until a person clears it. Another version, newer or older, is not affected.
//! Quarantine holds for all groups of an etcd cluster, so that a group of canaries protects the others.

use serde::{Deserialize, Serialize};

use crate::error::LockError;
use crate::keys::shortened;

const FORMAT: u32 = 1;

/// That a version failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantine {
    format: u32,
    /// The version.
    pub version: String,
    /// Identity of the first host that it failed on.
    pub id: String,
    /// Its name.
    pub hostname: String,
    /// Its group.
    pub group: String,
    /// How it failed.
    pub reason: String,
    /// When, in seconds since 1970 by that host's clock.
    pub since: u64,
}

impl Quarantine {
    /// A record that `version` failed on a host.
    #[must_use]
    pub fn new(version: &str, id: &str, hostname: &str, group: &str, reason: &str, since: u64) -> Self {
        Self {
            format: FORMAT,
            version: shortened(version, 64),
            id: id.to_owned(),
            hostname: shortened(hostname, 64),
            group: group.to_owned(),
            reason: shortened(reason, 200),
            since,
        }
    }

    /// As it is stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a stored record. One that cannot be read still forbids its version: its key is what counts.
    #[must_use]
    pub fn decode(version: &str, bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes)
            .ok()
            .filter(|read: &Self| read.format == FORMAT && read.version == version)
            .unwrap_or_else(|| Self::new(version, "", "an unknown host", "", "its record cannot be read", 0))
    }

    /// The refusal that it makes.
    #[must_use]
    pub fn refusal(&self) -> LockError {
        let host = if self.hostname.is_empty() { &self.id } else { &self.hostname };
        LockError::Quarantined { version: self.version.clone(), host: host.clone(), reason: self.reason.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_record_still_forbids() {
        let record = Quarantine::new("1.1.0", "a", "host-a", "default", "docker.service failed\n", 7);
        assert_eq!(Quarantine::decode("1.1.0", &record.encode()), record);
        assert_eq!(record.reason, "docker.service failed ");
        for bytes in [&b"junk"[..], &Quarantine { format: 2, ..record.clone() }.encode()] {
            assert_eq!(Quarantine::decode("1.1.0", bytes).refusal().kind(), "version_quarantined");
        }
    }
}
