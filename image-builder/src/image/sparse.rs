//! A disk in memory that holds only what is not zero, for file systems and tables that other crates write.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use super::source::{Source, past_end};

const BLOCK: usize = 4096;

/// Bytes of a fixed length, all zero at first, that cost memory only where something else was written.
#[derive(Clone, Debug)]
pub struct SparseMemory {
    size: u64,
    position: u64,
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl SparseMemory {
    /// So many zero bytes.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self { size, position: 0, blocks: BTreeMap::new() }
    }

    /// The ranges that were written, in order, as long as possible, rounded to 4 KiB.
    #[must_use]
    pub fn extents(&self) -> Vec<Range<u64>> {
        let mut extents: Vec<Range<u64>> = Vec::new();
        for (&block, bytes) in &self.blocks {
            if bytes.iter().all(|&byte| byte == 0) {
                continue;
            }
            let start = block * BLOCK as u64;
            let end = (start + BLOCK as u64).min(self.size);
            match extents.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => extents.push(start..end),
            }
        }
        extents
    }
}

/// The block that holds `position`, where in it, and how many of `len` bytes it covers.
fn locate(position: u64, len: usize) -> (u64, usize, usize) {
    let inside = usize::try_from(position % BLOCK as u64).unwrap_or(0);
    (position / BLOCK as u64, inside, len.min(BLOCK - inside))
}

impl Source for SparseMemory {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.size) {
            return Err(past_end());
        }
        let (mut rest, mut at) = (buffer, offset);
        while !rest.is_empty() {
            let (block, inside, len) = locate(at, rest.len());
            let (part, later) = rest.split_at_mut(len);
            match self.blocks.get(&block).and_then(|bytes| bytes.get(inside..inside + len)) {
                Some(bytes) => part.copy_from_slice(bytes),
                None => part.fill(0),
            }
            at += len as u64;
            rest = later;
        }
        Ok(())
    }
}

impl Read for SparseMemory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let (part, _) = buffer.split_at_mut(left.min(buffer.len()));
        self.read_at(part, self.position)?;
        self.position += part.len() as u64;
        Ok(part.len())
    }
}

impl Write for SparseMemory {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let (data, _) = data.split_at(left.min(data.len()));
        let mut rest = data;
        while !rest.is_empty() {
            let (block, inside, len) = locate(self.position, rest.len());
            let (part, later) = rest.split_at(len);
            // Formatting writes many zeros over zeros.
            if self.blocks.contains_key(&block) || part.iter().any(|&byte| byte != 0) {
                let bytes = self.blocks.entry(block).or_insert_with(|| vec![0; BLOCK].into_boxed_slice());
                if let Some(to) = bytes.get_mut(inside..inside + len) {
                    to.copy_from_slice(part);
                }
            }
            self.position += len as u64;
            rest = later;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for SparseMemory {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_was_written_across_blocks() {
        let mut memory = SparseMemory::new(1 << 40);
        memory.seek(SeekFrom::Start((1 << 39) + 4090)).unwrap();
        memory.write_all(b"0123456789").unwrap();
        memory.seek(SeekFrom::Current(-10)).unwrap();
        let mut back = [0; 12];
        memory.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"0123456789\0\0");
        assert_eq!(memory.extents(), vec![(1 << 39)..(1 << 39) + 8192; 1]);
    }

    #[test]
    fn zeros_cost_nothing_and_the_end_is_the_end() {
        let mut memory = SparseMemory::new(5000);
        assert_eq!(memory.write(&[0; 6000]).unwrap(), 5000);
        assert!(memory.extents().is_empty());
        memory.seek(SeekFrom::End(-1)).unwrap();
        assert_eq!(memory.write(b"xy").unwrap(), 1);
        assert_eq!(memory.extents(), vec![4096..5000; 1]);
        assert!(memory.read_at(&mut [0; 2], 4999).is_err());
    }
}
