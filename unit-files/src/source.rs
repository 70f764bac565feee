//! Where unit files come from: the one interface through which this crate sees directories.

use std::io;

use thiserror::Error;

/// Where units are looked for on a host; the first wins. `/run/systemd/system` is not among them and must never exist:
/// it tells programs that systemd is PID 1.
pub const SEARCH_PATH: [&str; 5] =
    ["/etc/systemd/system", "/media/state/units", "/run/garboard/units", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"];

/// The directory whose units count as enabled by their own `[Install]`.
pub const OPERATOR_UNITS: &str = "/media/state/units";

/// A directory that could not be read, or a file.
#[derive(Debug, Error)]
#[error("{path}: {cause}")]
pub struct SourceError {
    /// What could not be read.
    pub path: String,
    /// Why.
    #[source]
    pub cause: io::Error,
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Anything else.
    Other,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it is; a link is not followed.
    pub kind: EntryKind,
}

/// A file system as the loader sees it. Paths are absolute, as on the host; an implementation may prefix a root.
pub trait UnitSource {
    /// The unit directories, first wins.
    fn search_path(&self) -> &[String];
    /// The entries of a directory in any order; empty when it does not exist.
    ///
    /// # Errors
    /// When it exists and cannot be read.
    fn list(&self, directory: &str) -> Result<Vec<Entry>, SourceError>;
    /// The bytes of a file, links followed; `None` when it does not exist.
    ///
    /// # Errors
    /// When it exists and cannot be read, or is larger than anyone's unit file.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, SourceError>;
    /// The target of a symbolic link as it is written; `None` when the path is no link.
    ///
    /// # Errors
    /// When it cannot be looked at.
    fn read_link(&self, path: &str) -> Result<Option<String>, SourceError>;
}
