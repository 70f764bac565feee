//! Why something asked for was not done, with names that do not change.

use std::io;

use disk_layout::Version;
use thiserror::Error;

use super::ESP_LOCK;
use crate::commit::CommitError;
use crate::download::DownloadError;
use crate::fetch::FetchError;
use crate::floor::Older;
use crate::host::HostError;
use crate::policy::ETCD_MEMBERS;
use crate::slots::SlotError;
use crate::state::StateError;
use crate::trust::{STATE_FULL, TrustError};
use crate::verity::VerityError;

/// Why something asked for was not done. [`AgentError::kind`] is stable.
#[derive(Debug, Error)]
pub enum AgentError {
    /// This is no host that can be updated.
    #[error(transparent)]
    Host(#[from] HostError),
    /// State.
    #[error(transparent)]
    State(#[from] StateError),
    /// Metadata.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Fetching.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Download.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// Commit.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// No server is set.
    #[error("no update server is set: set garboard.update.server in the cloud-config")]
    NoServer,
    /// The version is older than the one that runs.
    #[error("version {version} is older than {running}, which runs: say --downgrade to go back")]
    Downgrade {
        /// The version.
        version: Version,
        /// What runs.
        running: Version,
    },
    /// What the newer version did to state cannot be undone.
    #[error("version {version} has {} {}, and this host's state has been used with {}: going back is not possible", older.what, older.release, older.state)]
    StateFloor {
        /// The version.
        version: Version,
        /// In what.
        older: Older,
    },
    /// Its etcd is more than one minor version newer than the one that runs here.
    #[error(
        "version {version} skips a minor version of etcd, which goes up by one at a time: a release with etcd {first} comes first \
         (publish it, and this one with --stepping-stone); with etcd.service stopped and disabled this one is taken"
    )]
    StateSkip {
        /// The version.
        version: Version,
        /// What has to come first.
        first: String,
    },
    /// The other members of the cluster are not as far as its etcd wants them, or nobody knows. It may be taken later.
    #[error(
        "version {version} brings the next etcd and waits for the members of the etcd cluster: {reason}; with etcd.service stopped and \
         disabled this one is taken"
    )]
    EtcdMembers {
        /// The version.
        version: Version,
        /// Why not now.
        reason: String,
    },
    /// etcd runs, and its data are not saved.
    #[error(
        "version {version} brings another etcd, and there is no snapshot of its data: {reason}; with etcd.service stopped none is needed"
    )]
    Snapshot {
        /// The version.
        version: Version,
        /// Why not.
        reason: String,
    },
    /// It failed, or was set aside.
    #[error("version {version} is not taken: {reason}")]
    NotTaken {
        /// The version.
        version: Version,
        /// Why not.
        reason: String,
    },
    /// There is nothing to go back to.
    #[error("nothing to go back to: {0}")]
    NoRollback(String),
    /// The lock of the ESP.
    #[error("{ESP_LOCK}: {0}")]
    Lock(io::Error),
    /// The text is no version.
    #[error(transparent)]
    Version(#[from] disk_layout::VersionError),
}

impl AgentError {
    /// The stable name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Host(_) => "host",
            Self::State(StateError::Layout { .. }) => "state-layout",
            Self::State(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => STATE_FULL,
            Self::State(_) => "state",
            Self::Trust(error) => error.kind(),
            Self::Fetch(error) | Self::Download(DownloadError::Fetch(error)) => error.kind(),
            Self::Download(DownloadError::Format(error)) => error.kind(),
            // A partition of the disk is never full; the journal and the copy of the UKI are on state.
            Self::Download(DownloadError::Sink(error)) if error.source.kind() == io::ErrorKind::StorageFull => STATE_FULL,
            Self::Download(DownloadError::Sink(_)) => "disk-write",
            Self::Commit(error) => error.kind(),
            Self::NoServer => "no-server",
            Self::Downgrade { .. } => "downgrade",
            Self::StateFloor { .. } => "state-floor",
            Self::StateSkip { .. } => "etcd-skip",
            Self::EtcdMembers { .. } => ETCD_MEMBERS,
            Self::Snapshot { .. } => "etcd-snapshot",
            Self::NotTaken { .. } => "not-taken",
            Self::NoRollback(_) => "no-rollback",
            Self::Lock(_) => "lock",
            Self::Version(_) => "version",
        }
    }

    /// Whether a server that is there did not give something, and did not ask to be left alone for a while.
    #[must_use]
    pub fn is_failed_answer(&self) -> bool {
        let (Self::Fetch(error) | Self::Download(DownloadError::Fetch(error))) = self else { return false };
        error.is_passing() && !matches!(error, FetchError::Busy { .. })
    }

    /// How long the server asked to be left alone, in seconds.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Fetch(error) | Self::Download(DownloadError::Fetch(error)) => error.retry_after(),
            Self::Trust(TrustError::Fetch(error)) => error.retry_after(),
            Self::Trust(TrustError::Metadata { retry_after, .. }) => *retry_after,
            _ => None,
        }
        .map(|after| after.as_secs())
    }
}

impl From<SlotError> for AgentError {
    fn from(error: SlotError) -> Self {
        Self::Commit(error.into())
    }
}

impl From<VerityError> for AgentError {
    fn from(error: VerityError) -> Self {
        Self::Commit(error.into())
    }
}
