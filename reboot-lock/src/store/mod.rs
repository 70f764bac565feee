//! The key-value store under the lock, as much of etcd v3 as the lock needs: ranges, transactions that compare revisions, watches, leases.
//! `memory` is one for tests, with faults; `crate::etcd` is the real one.

mod memory;

use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;

pub use memory::{Fault, Memory};

/// What can go wrong between us and the store.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// No endpoint could be reached, or none answered well.
    #[error("no etcd endpoint answers: {reason}")]
    Unreachable {
        /// What each said.
        reason: String,
    },
    /// The answer did not come in time: what was asked may have been done.
    #[error("etcd did not answer within {} s{detail}", after.as_secs())]
    Deadline {
        /// How long we waited.
        after: Duration,
        /// More, for people.
        detail: String,
    },
    /// The connection broke after the request was sent: what was asked may have been done.
    #[error("the connection to etcd at {endpoint} broke: {reason}")]
    Broken {
        /// Which endpoint.
        endpoint: String,
        /// How.
        reason: String,
    },
    /// etcd answers, and cannot do it now: no leader, no quorum, no space, too busy.
    #[error("etcd at {endpoint} cannot do it: {reason}")]
    Unavailable {
        /// Which endpoint.
        endpoint: String,
        /// Its words.
        reason: String,
    },
    /// User, password, certificate or rights are wrong.
    #[error("etcd at {endpoint} refuses us: {reason}; check user, password, certificates and the rights on the prefix")]
    Denied {
        /// Which endpoint.
        endpoint: String,
        /// Its words.
        reason: String,
    },
    /// The lease is not there (any more).
    #[error("the lease has run out")]
    LeaseGone,
    /// A watch cannot start that far back.
    #[error("the revisions asked for are compacted")]
    Compacted,
    /// The answer is not etcd's, or we asked nonsense.
    #[error("{endpoint} does not answer as etcd v3.4 or newer does: {reason}")]
    Protocol {
        /// Which endpoint.
        endpoint: String,
        /// What was wrong.
        reason: String,
    },
    /// Certificates, URLs: the configuration cannot be used.
    #[error("{0}")]
    Configuration(String),
}

impl StoreError {
    /// A stable word for each case.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "etcd_unreachable",
            Self::Deadline { .. } => "etcd_deadline",
            Self::Broken { .. } => "etcd_broken",
            Self::Unavailable { .. } => "etcd_unavailable",
            Self::Denied { .. } => "etcd_denied",
            Self::LeaseGone => "etcd_lease_gone",
            Self::Compacted => "etcd_compacted",
            Self::Protocol { .. } => "etcd_protocol",
            Self::Configuration(_) => "etcd_configuration",
        }
    }

    /// Whether a transaction that ended so may have been done all the same, now or soon.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::Deadline { .. } | Self::Broken { .. } | Self::Unavailable { .. })
    }

    /// Whether the same may work later without anybody changing the configuration.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Deadline { .. } | Self::Broken { .. } | Self::Unavailable { .. } | Self::Compacted)
    }
}

/// Keys that a range or watch is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// This one.
    One(String),
    /// All that begin so.
    Prefix(String),
    /// All after this one that begin so.
    After {
        /// Not itself.
        key: String,
        /// What they begin with.
        prefix: String,
    },
}

impl Keys {
    /// Whether `key` is among them.
    #[must_use]
    pub fn contain(&self, key: &str) -> bool {
        match self {
            Self::One(one) => key == one,
            Self::Prefix(prefix) => key.starts_with(prefix.as_str()),
            Self::After { key: after, prefix } => key.starts_with(prefix.as_str()) && key > after.as_str(),
        }
    }
}

/// One key as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// The revision that made it.
    pub create_revision: i64,
    /// The revision that wrote it last.
    pub mod_revision: i64,
}

/// What a range gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of their keys.
    pub entries: Vec<Entry>,
    /// How many there are without the limit.
    pub count: u64,
    /// The store's revision when it was read.
    pub revision: i64,
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key was last written at this revision; 0: it is not there.
    ModRevision(String, i64),
    /// The key was made at this revision; 0: it is not there.
    CreateRevision(String, i64),
}

/// What a transaction does when its conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Writes a key.
    Put {
        /// Which.
        key: String,
        /// What.
        value: Vec<u8>,
        /// It goes with this lease; 0: it stays.
        lease: i64,
    },
    /// Removes a key, if it is there.
    Delete(String),
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Whether the conditions held.
    pub succeeded: bool,
    /// The store's revision after it.
    pub revision: i64,
}

/// A change that a watch saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key was written.
    Put(Entry),
    /// A key was removed at this revision.
    Delete {
        /// Which.
        key: String,
        /// When.
        revision: i64,
    },
}

/// A running watch.
#[async_trait]
pub trait Watch: Send {
    /// The next changes; waits for them without waking up. After an error the watch is over: read what is, and watch from there.
    ///
    /// # Errors
    /// When the store went away or no longer can tell.
    async fn next(&mut self) -> Result<Vec<Event>, StoreError>;
}

/// A store. All calls end within a deadline of the implementation's, watches apart. Reads are linearizable.
#[async_trait]
pub trait Store: Send + Sync {
    /// Reads keys; `limit` 0 is none.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn range(&self, keys: &Keys, limit: u32) -> Result<Page, StoreError>;

    /// Counts keys without reading them.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn count(&self, keys: &Keys) -> Result<u64, StoreError>;

    /// Writes all or nothing. It is not tried again after an error that leaves open whether it was done.
    ///
    /// # Errors
    /// See [`StoreError`], and [`StoreError::may_have_happened`] above all.
    async fn txn(&self, compares: &[Compare], writes: &[Write]) -> Result<Committed, StoreError>;

    /// Changes of keys from a revision on.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn watch(&self, keys: &Keys, from: i64) -> Result<Box<dyn Watch>, StoreError>;

    /// A lease that ends after `ttl` unless kept alive.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn grant_lease(&self, ttl: Duration) -> Result<i64, StoreError>;

    /// Begins the lease's time again.
    ///
    /// # Errors
    /// [`StoreError::LeaseGone`] when it has ended.
    async fn keep_alive(&self, lease: i64) -> Result<(), StoreError>;

    /// Ends a lease, and the keys that go with it. One that is gone is fine.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn revoke_lease(&self, lease: i64) -> Result<(), StoreError>;
}
