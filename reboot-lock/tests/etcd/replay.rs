//! The lock as etcd's own history tells of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use reboot_lock::audit::{Act, Record};
use reboot_lock::store::{Event, Keys, Store, Write};
use reboot_lock::{Holder, Semaphore};

pub const LOCK: &str = "/garboard/reboot-lock/v1/groups/default/lock/";

/// What etcd tells of the semaphore and its holders: what was there at each revision.
#[derive(Default)]
pub struct Replay {
    pub revision: i64,
    pub generation: u64,
    pub changes: u64,
    /// Ids, by their keys.
    pub holders: BTreeMap<String, String>,
    /// The most at any revision.
    pub most: usize,
    pub turns: BTreeSet<String>,
    /// Locks whose time ran out, as the audit trail noted them; it forgets the older ones, etcd's history does not.
    pub expired: u32,
}

impl Replay {
    pub fn hear(&mut self, event: Event) {
        let revision = match &event {
            Event::Put(entry) => entry.mod_revision,
            Event::Delete { revision, .. } => *revision,
        };
        // All changes of a revision happen at once: they count when the next one comes.
        if revision != self.revision {
            self.most = self.most.max(self.holders.len());
        }
        self.revision = revision;
        match event {
            Event::Put(entry) if entry.key.ends_with("/semaphore") => {
                let value = Semaphore::decode(&entry.value).unwrap();
                assert!(self.changes == 0 || self.generation + 1 == value.generation, "a change without its generation");
                (self.generation, self.changes) = (value.generation, self.changes + 1);
            }
            Event::Put(entry) if entry.key.contains("/holder/") => {
                let id = Holder::decode(&entry.value).unwrap().id;
                self.turns.insert(id.clone());
                self.holders.insert(entry.key, id);
            }
            Event::Put(entry) if entry.key.contains("/audit/") => {
                let record: Record = serde_json::from_slice(&entry.value).unwrap();
                self.expired += u32::from(record.act == Act::Expire);
            }
            Event::Delete { key, .. } => {
                assert!(!key.ends_with("/semaphore"), "the semaphore was deleted");
                self.holders.remove(&key);
            }
            Event::Put(_) => {}
        }
    }
}

/// All that etcd tells of the lock from its beginning up to a revision.
pub async fn history(store: &Arc<dyn Store>) -> Replay {
    let end = store.txn(&[], &[Write::Put { key: format!("{LOCK}end"), value: Vec::new(), lease: 0 }]).await.unwrap().revision;
    let mut watch = store.watch(&Keys::Prefix(LOCK.to_owned()), 1).await.unwrap();
    let mut replay = Replay::default();
    while replay.revision < end {
        watch.next().await.unwrap().into_iter().for_each(|event| replay.hear(event));
    }
    replay
}
