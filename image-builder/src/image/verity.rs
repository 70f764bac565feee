//! The dm-verity hash tree, as `veritysetup format` lays it out (`lib/verity/verity_hash.c` in cryptsetup): superblock
//! block, then the levels from the top down, each hash block 128 SHA-256 digests. `salt ‖ block` is what is hashed.
//!
//! Whole image in, one hash out: hashing is the longest computation on a root file system, so the lowest level
//! is shared between threads.

use std::io;
use std::sync::Mutex;
use std::thread;

use disk_layout::{VERITY_BLOCK_SIZE, VeritySuperblock, hash_area_blocks};
use ring::digest;

use super::source::Source;

const BLOCK: usize = VERITY_BLOCK_SIZE as usize;
const DIGEST: usize = 32;
/// Data blocks that a thread reads at once; a multiple of the digests in a hash block.
const BATCH_BLOCKS: usize = 256;
const MAX_THREADS: usize = 8;

/// A hash tree.
#[derive(Clone, Debug)]
pub struct HashTree {
    /// What the kernel must be told to trust the data.
    pub root_hash: [u8; DIGEST],
    /// What goes onto the verity partition.
    pub bytes: Vec<u8>,
}

/// Hashes `data`, whose size is a multiple of 4 KiB. `done` hears of every so many bytes, from several threads.
///
/// # Errors
/// When the data cannot be read.
pub fn hash_tree(data: &dyn Source, superblock: &VeritySuperblock, done: &(dyn Fn(u64) + Sync)) -> io::Result<HashTree> {
    let hasher = Hasher::new(&superblock.salt);
    let blocks = usize::try_from(data.size() / VERITY_BLOCK_SIZE).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut levels = vec![hash_data(data, blocks, &hasher, done)?];
    while let Some(below) = levels.last().filter(|level| level.len() > DIGEST) {
        let above = below.chunks(BLOCK).flat_map(|block| hasher.padded(block)).collect();
        levels.push(above);
    }
    // The top is one digest: not a level, but the root hash.
    let mut root_hash = [0; DIGEST];
    if let Some(top) = levels.pop().filter(|top| top.len() == DIGEST) {
        root_hash.copy_from_slice(&top);
    }
    let mut bytes = superblock.to_bytes().to_vec();
    bytes.resize(BLOCK, 0);
    for level in levels.iter().rev() {
        bytes.extend(level);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    debug_assert_eq!(bytes.len() as u64, hash_area_blocks(blocks as u64) * VERITY_BLOCK_SIZE);
    Ok(HashTree { root_hash, bytes })
}

/// The digests of all data blocks.
fn hash_data(data: &dyn Source, blocks: usize, hasher: &Hasher, done: &(dyn Fn(u64) + Sync)) -> io::Result<Vec<u8>> {
    let mut digests = vec![0; blocks * DIGEST];
    let queue = Mutex::new(digests.chunks_mut(BATCH_BLOCKS * DIGEST).enumerate());
    let worker = || -> io::Result<()> {
        let mut buffer = vec![0; BATCH_BLOCKS * BLOCK];
        loop {
            let next = queue.lock().map_err(|_| io::Error::other("a hashing thread failed"))?.next();
            let Some((batch, digests)) = next else { return Ok(()) };
            let (part, _) = buffer.split_at_mut(digests.len() / DIGEST * BLOCK);
            data.read_at(part, (batch * BATCH_BLOCKS * BLOCK) as u64)?;
            for (to, block) in digests.chunks_mut(DIGEST).zip(part.chunks(BLOCK)) {
                to.copy_from_slice(hasher.block(block).as_ref());
            }
            done(part.len() as u64);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| io::Error::other("a hashing thread failed"))?)
    })?;
    Ok(digests)
}

/// SHA-256 that has seen the salt.
struct Hasher(digest::Context);

impl Hasher {
    fn new(salt: &[u8]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(salt);
        Self(context)
    }

    fn block(&self, block: &[u8]) -> digest::Digest {
        let mut context = self.0.clone();
        context.update(block);
        context.finish()
    }

    /// The digest of a hash block, of which only the used part is given.
    fn padded(&self, used: &[u8]) -> Vec<u8> {
        let mut block = used.to_vec();
        block.resize(BLOCK, 0);
        self.block(&block).as_ref().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn tree_of(blocks: usize) -> HashTree {
        let data: Vec<u8> = (0..blocks * BLOCK).map(|at| (at / 61) as u8).collect();
        let superblock = VeritySuperblock { uuid: Uuid::nil(), data_blocks: blocks as u64, salt: vec![0xab; 32] };
        hash_tree(&data, &superblock, &|_| ()).unwrap()
    }

    #[test]
    fn one_block_is_its_own_tree() {
        let mut data = vec![0xab; 32];
        data.extend((0..BLOCK).map(|at| (at / 61) as u8));
        let expected = digest::digest(&digest::SHA256, &data);
        assert_eq!(tree_of(1).root_hash, expected.as_ref());
        assert_eq!(tree_of(1).bytes.len(), BLOCK);
    }

    #[test]
    fn the_root_is_the_hash_of_the_first_hash_block() {
        for blocks in [2, 128, 129, 300] {
            let tree = tree_of(blocks);
            let mut top = vec![0xab; 32];
            top.extend(&tree.bytes[BLOCK..2 * BLOCK]);
            assert_eq!(tree.root_hash, digest::digest(&digest::SHA256, &top).as_ref(), "{blocks}");
            assert_eq!(tree.bytes.len() as u64, hash_area_blocks(blocks as u64) * VERITY_BLOCK_SIZE, "{blocks}");
        }
    }
}
