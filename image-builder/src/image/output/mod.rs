//! Output files. Every format sees the same [`DiskPlan`] and writes it once, to a temporary file that gets its name
//! only when it is complete and on the disk: whatever goes wrong, no half-written image is ever there under the final name.

mod qcow2;
mod raw;
mod raw_zst;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::ImageError;
use super::plan::DiskPlan;
use crate::progress::{Event, Phase, Progress};
use crate::whole_file;

/// A kind of output file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// The disk byte for byte, in a sparse file.
    Raw,
    /// The same, compressed for transport.
    RawZst,
    /// What QEMU and many clouds take.
    Qcow2,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 3] = [Self::Raw, Self::RawZst, Self::Qcow2];

    /// The name on the command line, which is the file name's ending too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::RawZst => "raw.zst",
            Self::Qcow2 => "qcow2",
        }
    }

    fn writer(self) -> &'static dyn Writer {
        match self {
            Self::Raw => &raw::Raw,
            Self::RawZst => &raw_zst::RawZst,
            Self::Qcow2 => &qcow2::Qcow2,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| format!("there is no image format '{text}': use {}", known()))
    }
}

/// Writes a disk in one format.
trait Writer {
    /// Writes the whole disk to a new, empty file. `done` hears of every so many bytes of the disk's data.
    fn write(&self, plan: &DiskPlan, output: &mut File, done: &(dyn Fn(u64) + Sync)) -> io::Result<()>;
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its format.
    pub format: Format,
    /// Where it is.
    pub path: PathBuf,
    /// Its length in bytes, holes counted.
    pub size: u64,
}

/// Writes `<base>.<format>` into a directory.
///
/// # Errors
/// When a source cannot be read or the file cannot be written; nothing is left behind then.
pub fn write(plan: &DiskPlan, format: Format, directory: &Path, base: &str, progress: &dyn Progress) -> Result<Output, ImageError> {
    let path = directory.join(format!("{base}.{format}"));
    let fail = |error| ImageError::Write { path: path.clone(), error };
    let total = plan.segments().iter().map(|segment| segment.disk.end - segment.disk.start).sum();
    progress.event(Event::Begin { phase: Phase::Write, total: Some(total) });
    let mut file = whole_file::begin(&path).map_err(fail)?;
    format.writer().write(plan, file.as_file_mut(), &|bytes| progress.event(Event::Advance { bytes })).map_err(fail)?;
    let size = file.as_file().metadata().map_err(fail)?.len();
    whole_file::finish(file, &path).map_err(fail)?;
    progress.event(Event::End { phase: Phase::Write, summary: format!("{} ({} MiB)", path.display(), size.div_ceil(super::MIB)) });
    Ok(Output { format, path, size })
}
