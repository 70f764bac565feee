//! Versions that failed on a host: nobody takes a lock for one until a person clears it. Another version, newer or older, is not affected.
//! Quarantine holds for all groups of an etcd cluster, so that a group of canaries protects the others. Who failed keeps its lock until then, too.

use serde::{Deserialize, Serialize};

use crate::audit::{Act, Actor};
use crate::backoff::Backoff;
use crate::error::LockError;
use crate::keys::shortened;
use crate::lock::{Change, RebootLock, Snapshot, Step};
use crate::store::{self, StoreError, Watch, Write};

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

impl RebootLock {
    /// Quarantines a version: nobody takes a lock for it from now on. The first record stays.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn quarantine(&self, record: &Quarantine, actor: &Actor) -> Result<(), LockError> {
        let key = self.keys.quarantine(&record.version);
        if !self.store.range(&store::Keys::One(key.clone()), 1).await?.entries.is_empty() {
            return Ok(());
        }
        let step = |read: &Snapshot| {
            let writes = vec![Write::Put { key: key.clone(), value: record.encode(), lease: 0 }];
            let (next, subject) = (read.semaphore.touched(), record.version.clone());
            Ok(Step::Write(Box::new(Change {
                next,
                act: Act::Quarantine,
                subject,
                compares: Vec::new(),
                without: vec![key.clone()],
                writes,
                outcome: (),
            })))
        };
        match self.change(actor, None, None, step).await {
            // Another host was first.
            Err(LockError::Quarantined { .. }) => Ok(()),
            other => other,
        }
    }

    /// Lifts the quarantine of a version; whether there was one.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn clear_quarantine(&self, version: &str, actor: &Actor) -> Result<bool, LockError> {
        let key = self.keys.quarantine(version);
        if self.store.range(&store::Keys::One(key.clone()), 1).await?.entries.is_empty() {
            return Ok(false);
        }
        let step = |read: &Snapshot| {
            let writes = vec![Write::Delete(key.clone())];
            Ok(Step::write(read.semaphore.touched(), Act::ClearQuarantine, version, writes, true))
        };
        self.change(actor, None, None, step).await
    }

    /// The quarantined versions.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn quarantines(&self) -> Result<Vec<Quarantine>, LockError> {
        let prefix = self.keys.quarantines();
        let page = self.store.range(&store::Keys::Prefix(prefix.clone()), 0).await?;
        let record = |entry: &store::Entry| Quarantine::decode(entry.key.strip_prefix(&prefix).unwrap_or_default(), &entry.value);
        Ok(page.entries.iter().map(record).collect())
    }

    /// What a quarantine's key holds, and the store's revision when it was looked at.
    async fn quarantine_at(&self, key: &str) -> Result<(Option<Quarantine>, i64), LockError> {
        let page = self.store.range(&store::Keys::One(key.to_owned()), 1).await?;
        let version = key.strip_prefix(&self.keys.quarantines()).unwrap_or(key);
        Ok((page.entries.first().map(|entry| Quarantine::decode(version, &entry.value)), page.revision))
    }

    /// Refuses when that quarantine is there.
    pub(crate) async fn check_absent(&self, key: &str) -> Result<(), LockError> {
        let (found, _) = self.quarantine_at(key).await?;
        found.map_or(Ok(()), |quarantine| Err(quarantine.refusal()))
    }

    /// Refuses a claim for a quarantined version.
    pub(crate) async fn check_quarantine(&self, version: Option<&str>) -> Result<(), LockError> {
        match version {
            Some(version) => self.check_absent(&self.keys.quarantine(version)).await,
            None => Ok(()),
        }
    }

    /// Whether a version is quarantined.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn is_quarantined(&self, version: &str) -> Result<bool, LockError> {
        Ok(self.quarantine_at(&self.keys.quarantine(version)).await?.0.is_some())
    }

    /// Ends when a version is quarantined, with the refusal that says so. For who waits in the queue, which looks again only when its turn comes.
    pub async fn until_quarantined(&self, version: &str) -> LockError {
        self.until(version, |found| found.map(|quarantine| quarantine.refusal())).await
    }

    /// Ends when a version is not quarantined, or no longer.
    pub async fn until_cleared(&self, version: &str) {
        self.until(version, |found| found.is_none().then_some(())).await;
    }

    /// Looks at the quarantine of a version each time that it changes, until that tells something.
    async fn until<T>(&self, version: &str, tells: impl Fn(Option<Quarantine>) -> Option<T>) -> T {
        let key = self.keys.quarantine(version);
        let mut outages = Backoff::outages();
        loop {
            let look = async {
                let (found, revision) = self.quarantine_at(&key).await?;
                let told = tells(found);
                if told.is_none() {
                    self.store.watch(&store::Keys::One(key.clone()), revision.saturating_add(1)).await?.next().await?;
                }
                Ok::<_, LockError>(told)
            };
            match look.await {
                Ok(Some(told)) => return told,
                Ok(None) => outages.reset(),
                Err(_) => tokio::time::sleep(outages.wait()).await,
            }
        }
    }

    /// Tells when quarantines change after `revision`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn watch_quarantines(&self, revision: i64) -> Result<Box<dyn Watch>, StoreError> {
        self.store.watch(&store::Keys::Prefix(self.keys.quarantines()), revision.saturating_add(1)).await
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
