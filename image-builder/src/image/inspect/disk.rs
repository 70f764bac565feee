//! An image file of any format, read as the disk that it holds.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::InspectError;
use super::qcow2::Qcow2Disk;
use crate::image::source::{Source, past_end};
use crate::tree::Body;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// An open image.
pub struct Disk {
    source: Arc<dyn Source>,
    format: &'static str,
}

/// Opens an image; its first bytes say of which format it is.
///
/// # Errors
/// When the file cannot be read, or is a qcow2 file with features that we do not write.
pub fn open(path: &Path) -> Result<Disk, InspectError> {
    let fail = |error| InspectError::Read { path: path.to_owned(), error };
    let mut file = File::open(path).map_err(fail)?;
    let mut magic = [0; 4];
    // A shorter file is no image; what it lacks is said later.
    let _ = file.read_exact_at(&mut magic, 0);
    if magic == *b"QFI\xfb" {
        let disk = Qcow2Disk::open(file).map_err(fail)?;
        let disk = disk.map_err(|feature| InspectError::Qcow2 { path: path.to_owned(), feature })?;
        return Ok(Disk { source: Arc::new(disk), format: "qcow2" });
    }
    let format = if magic == ZSTD_MAGIC {
        file = unpack(file).map_err(fail)?;
        "raw.zst"
    } else {
        "raw"
    };
    // Seeking, since a block device has no length of its own.
    let len = file.seek(SeekFrom::End(0)).map_err(fail)?;
    Ok(Disk { source: Arc::new(Body::Range { file: Arc::new(file), offset: 0, len }), format })
}

/// Unpacks into a temporary file without a name, leaving zeros as holes.
fn unpack(file: File) -> io::Result<File> {
    let mut decoder = zstd::Decoder::new(file)?;
    let output = tempfile::tempfile()?;
    let mut buffer = vec![0; 1 << 16];
    let mut at = 0;
    loop {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match decoder.read(rest)? {
                0 => break,
                len => filled += len,
            }
        }
        let (data, _) = buffer.split_at(filled);
        if data.iter().any(|&byte| byte != 0) {
            output.write_all_at(data, at)?;
        }
        at += filled as u64;
        if filled < buffer.len() {
            output.set_len(at)?;
            return Ok(output);
        }
    }
}

impl Disk {
    /// The file's format.
    #[must_use]
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// Bytes of the disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.source.size()
    }

    /// All of it.
    #[must_use]
    pub fn whole(&self) -> Window {
        self.window(0, self.size())
    }

    /// A part of it, which ends with the disk at the latest.
    #[must_use]
    pub fn window(&self, offset: u64, len: u64) -> Window {
        let offset = offset.min(self.size());
        Window { source: Arc::clone(&self.source), offset, len: len.min(self.size() - offset), position: 0 }
    }
}

/// A part of a disk, to read only. Crates that read partition tables and file systems want to be able to write, too;
/// writing is an error here.
#[derive(Clone)]
pub struct Window {
    source: Arc<dyn Source>,
    offset: u64,
    len: u64,
    position: u64,
}

impl Window {
    /// The first bytes of it.
    ///
    /// # Errors
    /// When there are more.
    pub fn shortened(mut self, len: u64) -> io::Result<Self> {
        if len > self.len {
            return Err(past_end());
        }
        self.len = len;
        Ok(self)
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {} to {}", self.offset, self.offset + self.len)
    }
}

impl Source for Window {
    fn size(&self) -> u64 {
        self.len
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len) {
            return Err(past_end());
        }
        self.source.read_at(buffer, self.offset + offset)
    }
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let (part, _) = buffer.split_at_mut(left.min(buffer.len()));
        if !part.is_empty() {
            self.read_at(part, self.position)?;
        }
        self.position += part.len() as u64;
        Ok(part.len())
    }
}

impl Write for Window {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.len.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}
