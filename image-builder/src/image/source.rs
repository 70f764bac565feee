//! Bytes that can be read anywhere, by any thread, without all being in memory.

use std::io;
use std::sync::Arc;

use crate::tree::Body;

/// A fixed sequence of bytes.
pub trait Source: Send + Sync {
    /// Length in bytes.
    fn size(&self) -> u64;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// When the range lies outside, or what it comes from cannot be read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Source for Body {
    fn size(&self) -> u64 {
        self.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

impl Source for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| past_end())?;
        let bytes = start.checked_add(buffer.len()).and_then(|end| self.get(start..end)).ok_or_else(past_end)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

impl<T: Source + ?Sized> Source for Arc<T> {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_at(buffer, offset)
    }
}

/// The error for a range outside of a source.
pub(crate) fn past_end() -> io::Error {
    io::Error::from(io::ErrorKind::UnexpectedEof)
}
