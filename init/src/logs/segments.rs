//! The files of the log store: their names, their order, reading one whole.
//!
//! A segment is `/var/log/garboard/<20 digits>.log`; the digits only grow. The newest is the one being written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the store is, below the root directory.
pub const STORE: &str = "var/log/garboard";

/// One segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its number, by which segments are ordered.
    pub number: u64,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes when it was listed.
    pub size: u64,
}

/// The file name of segment `number`.
pub fn file_name(number: u64) -> String {
    format!("{number:020}.log")
}

/// The number in a segment's file name, or `None` for other files.
pub fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// All segments, oldest first. A store that is not there yet is empty.
pub fn list(store: &Path) -> io::Result<Vec<Segment>> {
    let entries = match fs::read_dir(store) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut segments = Vec::new();
    for entry in entries {
        let entry = entry?;
        // One removed by rotation meanwhile is no error.
        if let (Some(number), Ok(metadata)) = (entry.file_name().to_str().and_then(number_of), entry.metadata()) {
            segments.push(Segment { number, path: entry.path(), size: metadata.len() });
        }
    }
    segments.sort_by_key(|segment| segment.number);
    Ok(segments)
}

/// A segment's bytes; empty when rotation has removed it meanwhile.
pub fn read(segment: &Segment) -> io::Result<Vec<u8>> {
    match fs::read(&segment.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}
