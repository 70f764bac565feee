//! The audit trail: each change of a group's semaphore writes one record in the same transaction, into a ring of the last [`KEPT`]; the end of a lock, which
//! changes no semaphore, into a second ring. etcd's revisions say which came first.

use serde::{Deserialize, Serialize};

use crate::keys::shortened;
use crate::store::Entry;

/// So many records are kept for each group, and shown.
pub const KEPT: u64 = 512;
const MAX_TEXT: usize = 200;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// A host got a slot.
    Lock,
    /// A host that has a slot asked again.
    Relock,
    /// A slot was given back.
    Unlock,
    /// The number of slots was changed.
    SetMax,
    /// A lock ended since its time ran out.
    Expire,
    /// A version was quarantined.
    Quarantine,
    /// A quarantine was lifted.
    ClearQuarantine,
    /// The reservation of a host that does not come back was given back for it.
    Unreserve,
}

/// Who changed something, by what and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The host it was done on, or its id.
    pub host: String,
    /// The program, with the user where it was a person: `reboot-locksmith`, `locksmithctl (core)`, `fleet-lock 10.0.0.7`.
    pub by: String,
    /// For people.
    pub why: String,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The generation that it made; for the end of a lock, that lock's fence.
    pub generation: u64,
    /// Seconds since 1970 by the clock of the host that did it.
    pub time: u64,
    /// What was done.
    pub act: Act,
    /// To whose lock, or to which version, or the new number of slots.
    pub subject: String,
    /// Where it was done.
    pub host: String,
    /// By what program and user.
    pub by: String,
    /// Why.
    pub why: String,
}

impl Record {
    /// A record of `act` on `subject`.
    #[must_use]
    pub fn new(generation: u64, time: u64, act: Act, subject: &str, actor: &Actor) -> Self {
        Self {
            generation,
            time,
            act,
            subject: shortened(subject, MAX_TEXT),
            host: shortened(&actor.host, 64),
            by: shortened(&actor.by, MAX_TEXT),
            why: shortened(&actor.why, MAX_TEXT),
        }
    }

    /// As it is stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// The last [`KEPT`] records, oldest first. What cannot be read is left out: the trail tells, it decides nothing.
#[must_use]
pub fn in_order(mut entries: Vec<Entry>) -> Vec<Record> {
    entries.sort_by_key(|entry| entry.mod_revision);
    let mut records: Vec<Record> = entries.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect();
    let kept = usize::try_from(KEPT).unwrap_or(usize::MAX);
    records.split_off(records.len().saturating_sub(kept))
}
