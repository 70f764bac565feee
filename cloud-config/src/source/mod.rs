//! Where user-data comes from. Local facts decide, nothing is waited for, and at most one source is used.
//!
//! Order: NoCloud disk, config drive, QEMU's fw_cfg, then a file on the host. A source is one type with [`Source`]; a new
//! one (the network's) is one more file here and one more line in [`all`].

mod block;
mod config_drive;
mod file;
mod fw_cfg;
mod mount;
mod nocloud;

use crate::diagnostics::Diagnostics;
use crate::plan::Metadata;
use std::path::{Path, PathBuf};

pub use file::File;

/// What a source delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Where exactly: a device, a path.
    pub place: String,
    /// User-data, as it came.
    pub user_data: Vec<u8>,
    /// The vendor's; the user's wins over it.
    pub vendor_data: Vec<u8>,
    /// What the source knows of the machine.
    pub metadata: Metadata,
    /// Network configuration, kept for the network daemon.
    pub network_config: Vec<u8>,
}

/// Why a source that is there could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be mounted.
    #[error("{device}: cannot be mounted as {filesystem}: {source}")]
    Mount {
        /// Which.
        device: PathBuf,
        /// As what.
        filesystem: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A file of it.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is too large to be what it should be.
    #[error("{0}: larger than 32 MiB; not read")]
    TooLarge(PathBuf),
}

/// Local facts, gathered once.
pub struct Detected {
    /// Everything is below this.
    pub root: PathBuf,
    /// Disks with a label that a source cares for.
    pub disks: Vec<block::Labelled>,
}

impl Detected {
    /// Looks at the disks.
    pub fn gather(root: &Path) -> Detected {
        Detected { root: root.to_owned(), disks: block::labelled(root) }
    }

    fn disk(&self, label: &str) -> Option<&block::Labelled> {
        self.disks.iter().find(|d| d.label.eq_ignore_ascii_case(label))
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

/// A way that user-data reaches a host.
pub trait Source {
    /// Its name in reports.
    fn name(&self) -> &'static str;
    /// Whether it is there, by local facts alone.
    fn is_present(&self, facts: &Detected) -> bool;
    /// Reads it.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    fn fetch(&self, facts: &Detected, diagnostics: &mut Diagnostics) -> Result<Delivered, SourceError>;
}

/// All sources, in the order in which they are preferred.
pub fn all() -> Vec<Box<dyn Source>> {
    vec![Box::new(nocloud::NoCloud), Box::new(config_drive::ConfigDrive), Box::new(fw_cfg::FwCfg), Box::new(File::default())]
}

/// Reads a file with a limit; `None` if it does not exist.
fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, SourceError> {
    use std::io::Read as _;
    const LIMIT: u64 = 32 << 20;
    let failed = |source| SourceError::Read { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LIMIT { Err(SourceError::TooLarge(path.to_owned())) } else { Ok(Some(bytes)) }
}
