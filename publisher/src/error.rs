//! Why something cannot be published. Every message says what, where, and what to do.

use std::io;
use std::path::{Path, PathBuf};

use disk_layout::Version;
use release_format::FormatError;
use thiserror::Error;

use crate::metadata::Role;

/// Why keys or a repository cannot be made or changed. Nothing that hosts see has been changed.
#[derive(Debug, Error)]
pub enum PublishError {
    /// A file cannot be read, written or locked.
    #[error("cannot {act} {}: {source}", path.display())]
    File {
        /// Read, write and so on.
        act: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that people write is not what it should be.
    #[error("{}: {reason}", path.display())]
    Text {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// There are keys already.
    #[error("{} has keys already: 'garboard keys rotate' replaces keys, and another directory holds others", .0.display())]
    KeysExist(PathBuf),
    /// There are no keys.
    #[error("{} has no root.json: 'garboard keys init --dir {}' makes keys", .0.display(), .0.display())]
    NoKeys(PathBuf),
    /// Not enough keys for a role.
    #[error(
        "{role} metadata need {need} signatures, and {have} of the keys are here: put the missing .pem or .signer.toml files into {}",
        directory.display()
    )]
    MissingKeys {
        /// The role.
        role: Role,
        /// Signatures needed.
        need: u64,
        /// Keys there are.
        have: u64,
        /// Where they are looked for.
        directory: PathBuf,
    },
    /// An external signer failed.
    #[error("the signer {}: {reason}", path.display())]
    Signer {
        /// Its description.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// A repository's metadata are not valid under these keys.
    #[error("the repository {} is not valid under these keys: {reason}", path.display())]
    Metadata {
        /// The repository.
        path: PathBuf,
        /// What the client says.
        reason: String,
    },
    /// Nothing was ever published there.
    #[error("{} is no repository yet: publish a release into it first", .0.display())]
    NoRepository(PathBuf),
    /// Somebody else is changing the repository.
    #[error("another publication into {} is going on: wait for it to end", .0.display())]
    Locked(PathBuf),
    /// Metadata cannot be expressed.
    #[error("cannot write {what}: {reason}")]
    Encode {
        /// Of what.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// No release parts in a directory.
    #[error("{} has no release parts: 'garboard build' writes them as NAME-VERSION-ARCHITECTURE.release/", .0.display())]
    NoParts(PathBuf),
    /// The image is not the one that was built.
    #[error("{} is not what was built: its verity root hash is {found}, and not {expected}; build the version again", path.display())]
    Changed {
        /// The image.
        path: PathBuf,
        /// As built.
        expected: String,
        /// As found.
        found: String,
    },
    /// The version is there, with other bytes.
    #[error("version {version} was published before with other bytes: hosts may have it, so give these bytes another version")]
    Republished {
        /// The version.
        version: Version,
    },
    /// The version was taken back.
    #[error(
        "version {version} was withdrawn from channel {channel}: remove its release parts, and publish a repaired image as another version"
    )]
    Withdrawn {
        /// The version.
        version: Version,
        /// From where.
        channel: String,
    },
    /// A version that a command names is not in the channel.
    #[error("channel {channel} has no version {version}")]
    NoVersion {
        /// The channel.
        channel: String,
        /// The version.
        version: Version,
    },
    /// There is no such channel, or several.
    #[error("{0}")]
    NoChannel(String),
    /// Pruning cannot tell what a release needs.
    #[error("nothing is deleted, since what version {version} needs is not known: {source}; restore the repository from a copy")]
    Unprunable {
        /// The release.
        version: Version,
        /// Why.
        source: Box<PublishError>,
    },
    /// The release cannot be expressed in the format.
    #[error("{what}: {source}")]
    Format {
        /// What.
        what: String,
        /// Why.
        source: FormatError,
    },
}

impl PublishError {
    pub(crate) fn file(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { act, path, source }
    }

    pub(crate) fn format(what: &str) -> impl FnOnce(FormatError) -> Self + use<> {
        let what = what.to_owned();
        move |source| Self::Format { what, source }
    }
}
