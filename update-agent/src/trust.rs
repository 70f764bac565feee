//! Whom the agent believes: TUF, by `tough`. A root key that came with the image vouches for the others; what was seen last is kept on
//! state, so that nobody can go back to older metadata, or hold the host on metadata that has expired.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use release_format::{Channel, FormatError, Name, channel_target, limits};
use thiserror::Error;
use tough::error::Error as TufError;
use tough::{
    ExpirationEnforcement, IntoVec, Limits, RepositoryLoader, TargetName, Transport, TransportError, TransportErrorKind, TransportStream,
};
use url::Url;

use crate::fetch::{FetchError, Source};
use crate::roots;

/// A base for the names of metadata; only the paths behind it are used.
const BASE: &str = "repository:///";
/// More than any kind of metadata may have; each kind's own limit is below.
const MAX_METADATA: u64 = 4 << 20;

/// The kind of errors of a full state partition.
pub const STATE_FULL: &str = "state-full";

/// Why metadata is not believed. [`TrustError::kind`] is stable.
#[derive(Debug, Error)]
pub enum TrustError {
    /// No root came with the image.
    #[error("{}: {source}: this image was built without an update root, so it cannot tell good releases from bad ones", path.display())]
    NoRoot {
        /// Where it was looked for.
        path: PathBuf,
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// The metadata did not come.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It is not to be believed.
    #[error("{kind}: {message}")]
    Metadata {
        /// The stable name.
        kind: &'static str,
        /// What `tough` says.
        message: String,
        /// How long the server asked to be left alone.
        retry_after: Option<std::time::Duration>,
    },
    /// What was seen cannot be kept.
    #[error("{}: {source}", path.display())]
    Keep {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The channel is not what it should be.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The repository has no such channel.
    #[error("the repository has no channel {0} for this image and architecture")]
    NoChannel(Name),
}

impl TrustError {
    /// The error's stable name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoRoot { .. } => "no-update-root",
            Self::Fetch(error) => error.kind(),
            Self::Metadata { kind, .. } => kind,
            Self::Keep { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => STATE_FULL,
            Self::Keep { .. } => "state",
            Self::Format(error) => error.kind(),
            Self::NoChannel(_) => "no-channel",
        }
    }
}

/// What trust rests on.
#[derive(Clone, Debug)]
pub struct Trust {
    /// `root.json` of the image.
    pub root: PathBuf,
    /// Where `tough` keeps what it has seen.
    pub datastore: PathBuf,
}

/// Which channel.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The channel.
    pub channel: Name,
    /// The image that runs here.
    pub image: Name,
    /// The architecture of this host.
    pub architecture: Name,
}

/// Root metadata as they came.
type Seen = Arc<Mutex<Vec<Vec<u8>>>>;

#[derive(Clone, Debug)]
struct SourceTransport {
    source: Source,
    roots: Seen,
}

#[async_trait]
impl Transport for SourceTransport {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let path = url.as_str().strip_prefix(BASE).unwrap_or_default();
        let failed = |error: FetchError| {
            let kind = if matches!(error, FetchError::NotFound(_)) { TransportErrorKind::FileNotFound } else { TransportErrorKind::Other };
            TransportError::new_with_cause(kind, url.as_str(), error)
        };
        // Read here and bounded, since the stream that tough wants must be shareable between threads.
        let bytes = self.source.get(path, MAX_METADATA).await.map_err(failed)?;
        if path.ends_with(".root.json")
            && let Ok(mut roots) = self.roots.lock()
        {
            roots.push(bytes.clone());
        }
        Ok(Box::pin(futures_util::stream::once(std::future::ready(Ok(bytes::Bytes::from(bytes))))))
    }
}

/// Fetches and verifies the metadata and returns the channel. With `waive_expiry`, for bundles, the expiry of timestamp and snapshot does
/// not count; that of root and targets does, and so do all signatures and versions.
///
/// # Errors
/// When anything is not as it should be.
pub async fn channel(source: &Source, trust: &Trust, wanted: &Wanted, waive_expiry: bool, now: u64) -> Result<Channel, TrustError> {
    let root = tokio::fs::read(&trust.root).await.map_err(|source| TrustError::NoRoot { path: trust.root.clone(), source })?;
    let root = roots::newest(root, &trust.datastore);
    let seen = Seen::default();
    let url = |path: &str| Url::parse(&format!("{BASE}{path}")).map_err(|_| FetchError::Address(path.to_owned()));
    let enforcement = if waive_expiry { ExpirationEnforcement::Unsafe } else { ExpirationEnforcement::Safe };
    let limits = Limits {
        max_root_size: 1 << 20,
        max_targets_size: 4 << 20,
        max_timestamp_size: 64 << 10,
        max_snapshot_size: 1 << 20,
        max_root_updates: 256,
    };
    let loaded = RepositoryLoader::new(&root, url("metadata/")?, url("targets/")?)
        .transport(SourceTransport { source: source.clone(), roots: Arc::clone(&seen) })
        .limits(limits)
        .datastore(&trust.datastore)
        .expiration_enforcement(enforcement)
        .load()
        .await;
    // New keys count from when they are known, whatever is wrong with the rest.
    let seen = seen.lock().map(|mut seen| std::mem::take(&mut *seen)).unwrap_or_default();
    roots::keep(&root, &seen, &trust.datastore).map_err(|source| TrustError::Keep { path: trust.datastore.clone(), source })?;
    let repository = loaded.map_err(distrust)?;
    if waive_expiry {
        for (role, expires) in [("root", repository.root().signed.expires), ("targets", repository.targets().signed.expires)] {
            if u64::try_from(expires.as_second()).unwrap_or(0) <= now {
                return Err(TrustError::Metadata {
                    kind: "metadata-expired",
                    message: format!("the {role} metadata of the bundle has expired"),
                    retry_after: None,
                });
            }
        }
    }
    let name = TargetName::new(channel_target(&wanted.channel, &wanted.image, &wanted.architecture)).map_err(distrust)?;
    let targets = &repository.targets().signed.targets;
    // Names are a single part of a path; only the channel's is ever asked for, but who signs others means harm.
    if let Some(bad) = targets.keys().find(|name| name.raw() != name.resolved() || name.raw().contains('/')) {
        return Err(TrustError::Metadata {
            kind: "metadata-path",
            message: format!("the target '{}' leads out of its directory", bad.raw()),
            retry_after: None,
        });
    }
    if targets.get(&name).is_some_and(|target| target.length > limits::MAX_CHANNEL) {
        return Err(FetchError::TooLarge { url: name.raw().to_owned(), limit: limits::MAX_CHANNEL }.into());
    }
    let stream = repository.read_target(&name).await.map_err(distrust)?.ok_or_else(|| TrustError::NoChannel(wanted.channel.clone()))?;
    let bytes = stream.into_vec().await.map_err(distrust)?;
    let channel = Channel::decode(&bytes)?;
    channel.expect(&wanted.channel, &wanted.image, &wanted.architecture)?;
    Ok(channel)
}

/// Gives tough's errors the names that ours have. Ours, of the transport, lie below tough's, and so do some of its own.
fn distrust(error: TufError) -> TrustError {
    let mut found: Option<(&'static str, String)> = None;
    let mut retry_after = None;
    let mut below: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = below {
        if let Some(fetch) = inner.downcast_ref::<FetchError>() {
            let kind = if matches!(fetch, FetchError::TooLarge { .. }) { "metadata-too-large" } else { fetch.kind() };
            found = Some((kind, fetch.to_string()));
            retry_after = fetch.retry_after();
        } else if inner.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull) {
            found = Some((STATE_FULL, plain_output::causes(&error)));
        } else if let Some(kind) = inner.downcast_ref::<TufError>().and_then(kind_of) {
            found = Some((kind, inner.to_string()));
        }
        below = inner.source();
    }
    let (kind, message) = found.unwrap_or_else(|| ("metadata", error.to_string()));
    TrustError::Metadata { kind, message, retry_after }
}

fn kind_of(error: &TufError) -> Option<&'static str> {
    Some(match error {
        TufError::ExpiredMetadata { .. } => "metadata-expired",
        TufError::OlderMetadata { .. } | TufError::OlderSnapshotInTimestamp { .. } | TufError::SnapshotRoleRollback { .. } => {
            "metadata-rolled-back"
        }
        TufError::VerifyMetadata { .. } | TufError::VerifyRoleMetadata { .. } | TufError::VerifyTrustedMetadata { .. } => {
            "metadata-signature"
        }
        TufError::MaxSizeExceeded { .. } => "metadata-too-large",
        TufError::HashMismatch { .. } => "metadata-digest",
        TufError::VersionMismatch { .. } | TufError::SnapshotRoleMissing { .. } | TufError::SnapshotTargetsMetaMissing { .. } => {
            "metadata-mixed"
        }
        TufError::SystemTimeSteppedBackward { .. } => "clock",
        TufError::ParseMetadata { .. } | TufError::ParseTrustedMetadata { .. } => "metadata-syntax",
        TufError::UnsafeTargetNameDotDot { .. } | TufError::UnsafeTargetNameEmpty { .. } | TufError::UnsafeTargetNameSlash { .. } => {
            "metadata-path"
        }
        _ => return None,
    })
}
