//! What can go wrong with a lock. [`LockError::kind`] is stable and of low cardinality: it is the label of metrics and FleetLock's `kind`.

use thiserror::Error;

use crate::store::StoreError;

/// Why an act on the lock was not done. Nothing was changed, except where [`StoreError::may_have_happened`] says otherwise.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LockError {
    /// A group's name cannot be used.
    #[error("group '{name}' {reason}")]
    BadGroup {
        /// As it was given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A host's identity cannot be used.
    #[error("host id '{id}' {reason}")]
    BadId {
        /// As it was given.
        id: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A number of slots that makes no sense.
    #[error("the number of slots must be between 1 and {most}, not {max}: to stop all reboots use an inhibitor or strategy off", most = crate::semaphore::MAX_SLOTS)]
    BadMax {
        /// As it was asked for.
        max: u32,
    },
    /// A FleetLock client calls itself like a host that has a lock of its own, or the other way around.
    #[error("the id {id} is in use by another kind of host: FleetLock clients and others must have different ids")]
    IdInUse {
        /// The id.
        id: String,
    },
    /// All slots are taken.
    #[error("all {max} slots of group {group} are taken by {holders}")]
    Full {
        /// The group.
        group: String,
        /// Its number of slots.
        max: u32,
        /// Who has them, at most a few names.
        holders: String,
    },
    /// The version has failed on some host.
    #[error("version {version} is quarantined since it failed on {host}: {reason}")]
    Quarantined {
        /// The version.
        version: String,
        /// Where it failed.
        host: String,
        /// How.
        reason: String,
    },
    /// The host's lock has meanwhile been expired or given back by somebody.
    #[error("{id} no longer has the lock of group {group} that it took (fence {fence})")]
    Lost {
        /// The group.
        group: String,
        /// The host.
        id: String,
        /// What it thought to hold.
        fence: u64,
    },
    /// A key holds something that this program did not write or does not understand.
    #[error("{key} in etcd is not ours: {reason}; it is left as it is: look at it with etcdctl, and delete it or upgrade this host")]
    Foreign {
        /// The key in etcd.
        key: String,
        /// What is wrong with its value.
        reason: String,
    },
    /// Others changed the value each time between our reading and writing it.
    #[error("the lock of group {group} changed under us {attempts} times in a row: try again later")]
    Contended {
        /// The group.
        group: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The store did not do its part.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LockError {
    /// A stable word for each case.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::BadGroup { .. } => "bad_group",
            Self::BadId { .. } => "bad_id",
            Self::BadMax { .. } => "bad_max",
            Self::IdInUse { .. } => "id_in_use",
            Self::Full { .. } => "failed_lock_semaphore_full",
            Self::Quarantined { .. } => "version_quarantined",
            Self::Lost { .. } => "lock_lost",
            Self::Foreign { .. } => "foreign_value",
            Self::Contended { .. } => "contended",
            Self::Store(error) => error.kind(),
        }
    }
}
