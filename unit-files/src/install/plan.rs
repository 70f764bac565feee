//! What is to be done to links, and why it cannot be done.

use thiserror::Error;

use crate::name::{UnitKind, UnitName};
use crate::source::SourceError;

/// One change of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkOperation {
    /// Make a symbolic link, in place of a link that is there.
    Create {
        /// Where.
        path: String,
        /// To what.
        target: String,
    },
    /// Remove a link, and its directory when that is empty then.
    Remove {
        /// Where.
        path: String,
    },
}

/// What to do and what to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Links to change, in order.
    pub operations: Vec<LinkOperation>,
    /// What to tell, besides the changes themselves (see [`Plan::lines`]).
    pub notes: Vec<String>,
    /// Whether any unit had something to install; when not, `enable` says so in a note.
    pub carries_install_info: bool,
}

impl Plan {
    /// The changes in `systemctl`'s words.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |operation: &LinkOperation| match operation {
            LinkOperation::Create { path, target } => format!("Created symlink '{path}' → '{target}'."),
            LinkOperation::Remove { path } => format!("Removed '{path}'."),
        };
        self.operations.iter().map(line).collect()
    }

    pub(super) fn create(&mut self, path: String, target: &str) {
        let operation = LinkOperation::Create { path, target: target.to_owned() };
        if !self.operations.contains(&operation) {
            self.operations.push(operation);
        }
    }

    pub(super) fn remove(&mut self, path: String) {
        let operation = LinkOperation::Remove { path };
        if !self.operations.contains(&operation) {
            self.operations.push(operation);
        }
    }
}

/// Why a plan cannot be made.
#[derive(Debug, Error)]
pub enum InstallError {
    /// No file of this name.
    #[error("Unit {0} does not exist")]
    NotFound(UnitName),
    /// It is masked.
    #[error("Unit {0} is masked")]
    Masked(UnitName),
    /// The name is a link to another unit.
    #[error("Refusing to operate on alias name or linked unit file: {0}")]
    Alias(UnitName),
    /// A template with neither instance nor `DefaultInstance=`.
    #[error("Unit {0} is a template without DefaultInstance=: name an instance, such as {1}@NAME.{2}")]
    NoInstance(UnitName, String, UnitKind),
    /// Something else is in the way.
    #[error("File '{path}' already exists and is a symlink to {target}.")]
    LinkExists {
        /// Where.
        path: String,
        /// What is there.
        target: String,
    },
    /// A file is in the way.
    #[error("File '{0}' already exists.")]
    FileExists(String),
    /// The unit file cannot be used.
    #[error("Unit {0} has a bad unit file: {1}")]
    Bad(UnitName, String),
    /// `[Install]` says something impossible.
    #[error("Unit {unit}: {key}={value} in [Install] is not possible: {why}")]
    Install {
        /// The unit.
        unit: UnitName,
        /// The directive.
        key: &'static str,
        /// Its value.
        value: String,
        /// Why not.
        why: String,
    },
    /// `link` needs an absolute path to a unit file.
    #[error("'{0}' is not an absolute path to a unit file")]
    NotAPath(String),
    /// `set-default` needs a target.
    #[error("{0} is not a target")]
    NotATarget(UnitName),
    /// Something could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
}
