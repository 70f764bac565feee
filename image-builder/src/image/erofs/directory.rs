//! Directory blocks: an array of fixed entries, then their names. Each block stands alone, names do not cross blocks,
//! and all entries are sorted, since the kernel searches them by bisection, first for the block, then in it.

use super::format::FileType;
use super::{BLOCK, usize_of};

/// Bytes of `struct erofs_dirent`.
const DIRENT: usize = 12;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// Index of its inode in the list of all inodes.
    pub inode: usize,
    /// What the name is of.
    pub file_type: FileType,
}

/// Bytes of a directory: whole blocks, but the last one only as far as it is used.
pub fn size(entries: &[Entry]) -> u64 {
    let blocks = split(entries);
    let last: usize = blocks.last().map_or(0, |block| block.iter().map(need).sum());
    (blocks.len() as u64).saturating_sub(1) * BLOCK + last as u64
}

/// The bytes of a directory; `nid_of` gives an inode's number by its index.
pub fn encode(entries: &[Entry], nid_of: impl Fn(usize) -> u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in split(entries) {
        bytes.resize(bytes.len().next_multiple_of(usize_of(BLOCK)), 0);
        let mut name_offset = block.len() * DIRENT;
        for entry in block {
            bytes.extend(nid_of(entry.inode).to_le_bytes());
            bytes.extend(u16::try_from(name_offset).unwrap_or(0).to_le_bytes());
            bytes.extend([entry.file_type as u8, 0]);
            name_offset += entry.name.len();
        }
        for entry in block {
            bytes.extend(entry.name.as_bytes());
        }
    }
    bytes
}

fn need(entry: &Entry) -> usize {
    DIRENT + entry.name.len()
}

/// The entries of each block.
fn split(entries: &[Entry]) -> Vec<&[Entry]> {
    let mut blocks = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let mut used = 0;
        let fits = rest.iter().take_while(|entry| {
            used += need(entry);
            used <= usize_of(BLOCK)
        });
        let (block, later) = rest.split_at(fits.count().max(1));
        blocks.push(block);
        rest = later;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: String) -> Entry {
        Entry { name, inode: 7, file_type: FileType::Regular }
    }

    #[test]
    fn one_block() {
        let entries = [entry("a".to_owned()), entry("bc".to_owned())];
        let bytes = encode(&entries, |index| index as u64 + 1);
        assert_eq!(bytes.len() as u64, size(&entries));
        assert_eq!(bytes, b"\x08\0\0\0\0\0\0\0\x18\0\x01\0\x08\0\0\0\0\0\0\0\x19\0\x01\0abc");
    }

    #[test]
    fn names_do_not_cross_blocks() {
        // 41 entries of 100 bytes fit only 40 to a block, 96 bytes stay unused.
        let entries: Vec<Entry> = (0..41).map(|number| entry(format!("{number:088}"))).collect();
        let bytes = encode(&entries, |_| 1);
        assert_eq!(bytes.len() as u64, size(&entries));
        assert_eq!(size(&entries), 4096 + 100);
        assert!(bytes[4000..4096].iter().all(|&byte| byte == 0));
        assert_eq!(bytes[4096 + 8], 12);
    }
}
