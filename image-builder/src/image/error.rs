//! Why an image cannot be made.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// One way in which making an image fails.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A node that the file system cannot express.
    #[error("cannot put '/{path}' into the root file system: {reason}")]
    Node {
        /// Path in the tree.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The root file system leaves no room for its successors.
    #[error(
        "the root file system needs {needed} MiB, which is {percent} % of its {slot} MiB slot; at most 75 % may be used: \
         remove packages or enlarge [partitions] root"
    )]
    RootTooLarge {
        /// Size of the file system, in MiB.
        needed: u64,
        /// Size of the slot, in MiB.
        slot: u64,
        /// Their ratio.
        percent: u64,
    },
    /// The ESP could not hold an update beside what runs and one more.
    #[error("the ESP of {esp} MiB holds {fits} unified kernel images of {uki} KiB, and must hold 3: enlarge [partitions] esp")]
    EspTooSmall {
        /// Size of the ESP, in MiB.
        esp: u64,
        /// Size of the UKI, in KiB.
        uki: u64,
        /// How many fit.
        fits: u64,
    },
    /// A size that no partition of this kind can have.
    #[error("a {partition} partition of {size} bytes is not possible: {reason}")]
    PartitionSize {
        /// Which.
        partition: &'static str,
        /// The size asked for.
        size: u64,
        /// Why.
        reason: &'static str,
    },
    /// The boot stub or the kernel is not what it should be.
    #[error("cannot build the unified kernel image: {0}")]
    Uki(#[from] super::uki::PeError),
    /// The FAT file system could not be made.
    #[error("cannot write '{path}' into the ESP: {error}")]
    Esp {
        /// The file in the ESP.
        path: String,
        /// What happened.
        error: io::Error,
    },
    /// The partition table could not be made.
    #[error("cannot make the partition table: {0}")]
    Gpt(String),
    /// Two parts would lie over each other; a fault of the builder.
    #[error("two parts of the disk overlap at byte {0}: please report this")]
    Overlap(u64),
    /// A file that goes into the image could not be read.
    #[error("cannot read {what}: {error}")]
    Read {
        /// What was read.
        what: String,
        /// What happened.
        error: io::Error,
    },
    /// An output file could not be written.
    #[error("cannot write '{path}': {error}")]
    Write {
        /// The output.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
}

impl ImageError {
    /// For `map_err` on reading.
    pub(crate) fn read(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Read { what, error }
    }
}
