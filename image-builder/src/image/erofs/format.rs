//! The structures on the disk, little endian, as `fs/erofs/erofs_fs.h` declares them.

use uuid::Uuid;

use super::inodes::{Content, Inode};
use super::{BLOCK, usize_of};

/// Inodes lie at multiples of this.
pub const INODE_SLOT: u64 = 32;
/// Bytes of `struct erofs_inode_compact`.
pub const COMPACT_INODE: u64 = 32;
/// Bytes of `struct erofs_inode_extended`.
pub const EXTENDED_INODE: u64 = 64;

const SUPERBLOCK_OFFSET: usize = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
/// The superblock has a checksum; the time is a modification time.
const COMPAT: u32 = 0x1 | 0x2;

/// Where an inode's data are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// All in blocks.
    FlatPlain = 0,
    /// Whole blocks, and the rest behind the inode.
    FlatInline = 2,
}

/// File types in directory entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// A regular file.
    Regular = 1,
    /// A directory.
    Directory = 2,
    /// A symbolic link.
    Symlink = 7,
}

/// What the superblock says that is not always the same.
pub struct Superblock<'a> {
    /// Number of the root directory.
    pub root_nid: u16,
    /// Number of inodes.
    pub inodes: u64,
    /// The time of compact inodes.
    pub time: u32,
    /// Blocks of the file system.
    pub blocks: u32,
    /// The volume's UUID.
    pub uuid: Uuid,
    /// The volume's label.
    pub label: &'a str,
}

/// Writes the superblock into an image's first block, with the checksum over that block.
pub fn put_superblock(image: &mut [u8], superblock: &Superblock<'_>) {
    let label: Vec<u8> = superblock.label.bytes().chain(std::iter::repeat(0)).take(16).collect();
    let mut bytes = Vec::with_capacity(128);
    bytes.extend(MAGIC.to_le_bytes());
    bytes.extend(0_u32.to_le_bytes()); // checksum
    bytes.extend(COMPAT.to_le_bytes());
    bytes.extend([12, 0]); // block size as a power of two; no further slots
    bytes.extend(superblock.root_nid.to_le_bytes());
    bytes.extend(superblock.inodes.to_le_bytes());
    bytes.extend(u64::from(superblock.time).to_le_bytes());
    bytes.extend(0_u32.to_le_bytes()); // nanoseconds
    bytes.extend(superblock.blocks.to_le_bytes());
    bytes.extend(0_u32.to_le_bytes()); // inode numbers count from block 0
    bytes.extend(0_u32.to_le_bytes()); // no shared extended attributes
    bytes.extend(superblock.uuid.as_bytes());
    bytes.extend(label);
    bytes.resize(128, 0); // no incompatible feature, no device, no compression
    let Some(block) = image.get_mut(SUPERBLOCK_OFFSET..usize_of(BLOCK)) else { return };
    for (to, from) in block.iter_mut().zip(&bytes) {
        *to = *from;
    }
    let checksum = crc32c(block);
    for (to, from) in block.iter_mut().skip(4).zip(checksum.to_le_bytes()) {
        *to = from;
    }
}

/// What a superblock says about a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The volume's UUID.
    pub uuid: Uuid,
    /// Bytes of the file system.
    pub size: u64,
    /// Number of inodes.
    pub inodes: u64,
}

/// Reads the superblock in an image's first block, if it is there and its checksum is right.
#[must_use]
pub fn summary(first_block: &[u8]) -> Option<Summary> {
    let mut block = first_block.get(SUPERBLOCK_OFFSET..usize_of(BLOCK))?.to_vec();
    let number =
        |at: usize, len: usize| block.get(at..at + len).map(|raw| raw.iter().rev().fold(0, |sum, &byte| (sum << 8) | u64::from(byte)));
    let (magic, checksum) = (number(0, 4)?, number(4, 4)?);
    let found = Summary { uuid: Uuid::from_slice(block.get(48..64)?).ok()?, size: number(36, 4)? * BLOCK, inodes: number(16, 8)? };
    block.get_mut(4..8)?.fill(0);
    (magic == u64::from(MAGIC) && checksum == u64::from(crc32c(&block))).then_some(found)
}

/// An inode without its extended attributes.
pub fn inode(inode: &Inode, number: u32, time: u32) -> Vec<u8> {
    let format = u16::from(inode.extended) | (inode.layout() as u16) << 1;
    let mode = inode.mode
        | match inode.content {
            Content::File(_) => 0o100_000,
            Content::Directory(_) => 0o040_000,
            Content::Symlink(_) => 0o120_000,
        };
    let xattr_count = match inode.xattrs.len() {
        0 => 0,
        len => u16::try_from((len - 12) / 4 + 1).unwrap_or(u16::MAX),
    };
    let mut bytes = Vec::with_capacity(usize_of(EXTENDED_INODE));
    bytes.extend(format.to_le_bytes());
    bytes.extend(xattr_count.to_le_bytes());
    bytes.extend(mode.to_le_bytes());
    if inode.extended {
        bytes.extend([0; 2]);
        bytes.extend(inode.size.to_le_bytes());
        bytes.extend(inode.block.to_le_bytes());
        bytes.extend(number.to_le_bytes());
        bytes.extend(inode.uid.to_le_bytes());
        bytes.extend(inode.gid.to_le_bytes());
        bytes.extend(u64::from(time).to_le_bytes());
        bytes.extend(0_u32.to_le_bytes()); // nanoseconds
        bytes.extend(inode.links.to_le_bytes());
        bytes.resize(usize_of(EXTENDED_INODE), 0);
    } else {
        // `extended` was chosen where one of these does not fit.
        let short = |number: u32| u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes();
        bytes.extend(short(inode.links));
        bytes.extend(u32::try_from(inode.size).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(inode.block.to_le_bytes());
        bytes.extend(number.to_le_bytes());
        bytes.extend(short(inode.uid));
        bytes.extend(short(inode.gid));
        bytes.extend([0; 4]);
    }
    bytes
}

/// CRC-32C as the kernel's `crc32c(~0, ...)`: without the final inversion. Only one block is ever summed.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_of_the_check_string() {
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }
}
