//! The dm-verity superblock and the size of its hash tree, as cryptsetup's `veritysetup format` lays them out
//! (<https://gitlab.com/cryptsetup/cryptsetup/-/wikis/DMVerity>): hash type 1, SHA-256, 4 KiB blocks.

use thiserror::Error;
use uuid::Uuid;

/// Bytes of a data block and of a hash block.
pub const VERITY_BLOCK_SIZE: u64 = 4096;
/// Bytes of the superblock; the hash area starts at the next block.
pub const VERITY_SUPERBLOCK_LEN: usize = 512;

const SIGNATURE: &[u8; 8] = b"verity\0\0";
const DIGESTS_PER_BLOCK: u64 = VERITY_BLOCK_SIZE / 32;
const MAX_SALT: usize = 256;

/// The parameters of a hash tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VeritySuperblock {
    /// The UUID that tools print; nothing depends on it.
    pub uuid: Uuid,
    /// Number of 4 KiB data blocks that are covered.
    pub data_blocks: u64,
    /// Put before each block when it is hashed; at most 256 bytes.
    pub salt: Vec<u8>,
}

/// Why bytes are not a superblock that we can use.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SuperblockError {
    /// The first eight bytes are not `verity\0\0`.
    #[error("no verity superblock")]
    NoSignature,
    /// Fewer than [`VERITY_SUPERBLOCK_LEN`] bytes.
    #[error("the verity superblock is cut short")]
    Truncated,
    /// A parameter other than the ones we write.
    #[error("the verity superblock has an unsupported {0}")]
    Unsupported(&'static str),
}

impl VeritySuperblock {
    /// The 512 bytes on the disk.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; VERITY_SUPERBLOCK_LEN] {
        let mut bytes = [0; VERITY_SUPERBLOCK_LEN];
        let mut put = |offset: usize, data: &[u8]| {
            for (to, from) in bytes.iter_mut().skip(offset).zip(data) {
                *to = *from;
            }
        };
        put(0, SIGNATURE);
        put(8, &1_u32.to_le_bytes());
        put(12, &1_u32.to_le_bytes());
        put(16, self.uuid.as_bytes());
        put(32, b"sha256");
        put(64, &4096_u32.to_le_bytes());
        put(68, &4096_u32.to_le_bytes());
        put(72, &self.data_blocks.to_le_bytes());
        let salt_len = self.salt.len().min(MAX_SALT);
        put(80, &u16::try_from(salt_len).unwrap_or(0).to_le_bytes());
        put(88, self.salt.get(..salt_len).unwrap_or_default());
        bytes
    }

    /// Reads a superblock.
    ///
    /// # Errors
    /// When the bytes are no superblock, or one with other parameters than ours.
    pub fn parse(bytes: &[u8]) -> Result<Self, SuperblockError> {
        let field = |offset: usize, len: usize| bytes.get(offset..offset + len).ok_or(SuperblockError::Truncated);
        if field(0, 8)? != SIGNATURE {
            return Err(SuperblockError::NoSignature);
        }
        let u32_at = |offset| field(offset, 4).map(|raw| raw.iter().rev().fold(0_u32, |sum, &byte| sum << 8 | u32::from(byte)));
        for (offset, expected, name) in
            [(8, 1, "version"), (12, 1, "hash type"), (64, 4096, "data block size"), (68, 4096, "hash block size")]
        {
            if u32_at(offset)? != expected {
                return Err(SuperblockError::Unsupported(name));
            }
        }
        if field(32, 32)?.iter().copied().take_while(|&byte| byte != 0).ne(b"sha256".iter().copied()) {
            return Err(SuperblockError::Unsupported("hash algorithm"));
        }
        let data_blocks = field(72, 8)?.iter().rev().fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte));
        let salt_len = usize::try_from(u32_at(80)? & 0xffff).unwrap_or(usize::MAX);
        if salt_len > MAX_SALT {
            return Err(SuperblockError::Unsupported("salt length"));
        }
        let mut uuid = [0_u8; 16];
        uuid.copy_from_slice(field(16, 16)?);
        field(0, VERITY_SUPERBLOCK_LEN)?;
        Ok(Self { uuid: Uuid::from_bytes(uuid), data_blocks, salt: field(88, salt_len)?.to_vec() })
    }
}

/// Blocks of the hash partition for so many data blocks: the superblock's, and every level of the tree.
#[must_use]
pub fn hash_area_blocks(data_blocks: u64) -> u64 {
    let mut total = 1;
    let mut level = data_blocks;
    while level > 1 {
        level = level.div_ceil(DIGESTS_PER_BLOCK);
        total += level;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superblock_round_trips() {
        let superblock = VeritySuperblock { uuid: Uuid::from_bytes([7; 16]), data_blocks: 115_200, salt: vec![0xab; 32] };
        assert_eq!(VeritySuperblock::parse(&superblock.to_bytes()), Ok(superblock));
    }

    #[test]
    fn any_bytes_are_an_error_not_a_panic() {
        assert_eq!(VeritySuperblock::parse(&[0; 512]), Err(SuperblockError::NoSignature));
        assert_eq!(VeritySuperblock::parse(b"verity\0\0"), Err(SuperblockError::Truncated));
        let mut bytes = VeritySuperblock { uuid: Uuid::nil(), data_blocks: 1, salt: vec![] }.to_bytes();
        bytes[80] = 0xff;
        bytes[81] = 0xff;
        assert_eq!(VeritySuperblock::parse(&bytes), Err(SuperblockError::Unsupported("salt length")));
    }

    #[test]
    fn tree_sizes() {
        assert_eq!(hash_area_blocks(128), 2);
        assert_eq!(hash_area_blocks(129), 1 + 2 + 1);
        assert_eq!(hash_area_blocks(524_288), 1 + 4096 + 32 + 1);
    }
}
