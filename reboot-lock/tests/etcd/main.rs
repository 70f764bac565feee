//! The lock on real etcd, the version that images ship: one member and three, with TLS and users, with members that are killed, cut off, frozen
//! and slow.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "all of this is test code")]

mod basics;
mod faults;
mod hosts;
mod lab;
mod many;
mod members;
mod secured;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use reboot_lock::audit::{Act, Actor, Record};
use reboot_lock::store::{Event, Keys, Store, Write};
use reboot_lock::{Claim, Group, Holder, Options, Purpose, RebootLock, Semaphore};

fn claim(id: &str) -> Claim {
    Claim {
        id: id.to_owned(),
        hostname: format!("host-{id}.example"),
        boot_id: "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0".to_owned(),
        purpose: Purpose::Update,
        reason: "update to 1.1.0".to_owned(),
        version: Some("1.1.0".to_owned()),
    }
}

fn actor() -> Actor {
    Actor { host: "test".to_owned(), by: "test".to_owned(), why: "to see".to_owned() }
}

fn lock(store: &Arc<dyn Store>, options: Options) -> RebootLock {
    RebootLock::new(Arc::clone(store), Group::default(), options)
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

const LOCK: &str = "/garboard/reboot-lock/v1/groups/default/lock/";

/// What etcd tells of the semaphore and its holders: what was there at each revision.
#[derive(Default)]
struct Replay {
    revision: i64,
    generation: u64,
    changes: u64,
    /// Ids, by their keys.
    holders: BTreeMap<String, String>,
    /// The most at any revision.
    most: usize,
    turns: BTreeSet<String>,
    /// Locks whose time ran out, as the audit trail noted them; it forgets the older ones, etcd's history does not.
    expired: u32,
}

impl Replay {
    fn hear(&mut self, event: Event) {
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
async fn history(store: &Arc<dyn Store>) -> Replay {
    let end = store.txn(&[], &[Write::Put { key: format!("{LOCK}end"), value: Vec::new(), lease: 0 }]).await.unwrap().revision;
    let mut watch = store.watch(&Keys::Prefix(LOCK.to_owned()), 1).await.unwrap();
    let mut replay = Replay::default();
    while replay.revision < end {
        watch.next().await.unwrap().into_iter().for_each(|event| replay.hear(event));
    }
    replay
}
