//! The dm-verity tree of a slot, built on the host from what its root partition holds: the payload never carries it. A level is
//! written while the one below is read, so memory does not grow with the image.

use std::io;

use disk_layout::{SlotName, VERITY_BLOCK_SIZE, VeritySuperblock, hash_area_blocks};
use ring::digest::{Context, SHA256};
use thiserror::Error;

use crate::target::{Area, Target};

const BLOCK: usize = VERITY_BLOCK_SIZE as usize;
const DIGEST: usize = 32;
const PER_BLOCK: u64 = VERITY_BLOCK_SIZE / DIGEST as u64;
/// Blocks that are read or written at once: 1 MiB.
const BATCH: usize = 256;

/// Why a slot does not hold what it should.
#[derive(Debug, Error)]
pub enum VerityError {
    /// The device failed.
    #[error("{area}: {source}")]
    Io {
        /// Where.
        area: Area,
        /// Why.
        source: io::Error,
    },
    /// What is on the disk is not the release.
    #[error("{area} holds the root hash {found} instead of {expected}: what was written is not what is on the disk")]
    RootHash {
        /// Where.
        area: Area,
        /// The release's.
        expected: String,
        /// As computed from the disk.
        found: String,
    },
    /// The tree that was read back is not the one that was written.
    #[error("{0} does not give back the hash tree that was written to it")]
    ReadBack(Area),
    /// The partition is too small.
    #[error("{area} has {has} bytes and needs {needs}")]
    TooSmall {
        /// Which.
        area: Area,
        /// Bytes it has.
        has: u64,
        /// Bytes it needs.
        needs: u64,
    },
}

fn io_error(area: Area) -> impl Fn(io::Error) -> VerityError {
    move |source| VerityError::Io { area, source }
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Hasher(Context);

impl Hasher {
    fn new(salt: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(salt);
        Self(context)
    }

    fn block(&self, block: &[u8]) -> [u8; DIGEST] {
        let mut context = self.0.clone();
        context.update(block);
        let mut digest = [0; DIGEST];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }
}

/// Blocks of each level, from the lowest to the top; none for a single data block, whose digest is the root hash.
fn levels(data_blocks: u64) -> Vec<u64> {
    let mut levels = Vec::new();
    let mut count = data_blocks;
    while count > 1 {
        count = count.div_ceil(PER_BLOCK);
        levels.push(count);
    }
    levels
}

/// The first block of each level in the hash area, from the lowest; the top level comes first on the disk.
fn level_starts(levels: &[u64]) -> Vec<u64> {
    let mut starts = vec![0; levels.len()];
    let mut at = 1;
    for (start, count) in starts.iter_mut().zip(levels).rev() {
        *start = at;
        at += count;
    }
    starts
}

/// Reads blocks of an area in batches and hands each to `each`.
fn for_blocks(target: &dyn Target, area: Area, first: u64, count: u64, each: &mut dyn FnMut(&[u8])) -> Result<(), VerityError> {
    let mut buffer = vec![0; BLOCK * BATCH.min(usize::try_from(count).unwrap_or(BATCH)).max(1)];
    let mut at = first;
    let end = first + count;
    while at < end {
        let blocks = ((end - at) as usize).min(BATCH);
        let (part, _) = buffer.split_at_mut(blocks * BLOCK);
        target.read(area, at * VERITY_BLOCK_SIZE, part).map_err(io_error(area))?;
        part.chunks_exact(BLOCK).for_each(&mut *each);
        at += blocks as u64;
    }
    Ok(())
}

/// Collects digests into hash blocks and writes those of one level, a batch at a time.
struct LevelWriter<'a> {
    target: Option<(&'a dyn Target, Area)>,
    at: u64,
    pending: Vec<u8>,
    hasher: &'a Hasher,
    /// Digests of the blocks of this level: the content of the level above.
    above: Vec<u8>,
}

impl LevelWriter<'_> {
    fn push(&mut self, digest: &[u8; DIGEST]) -> io::Result<()> {
        self.pending.extend_from_slice(digest);
        if self.pending.len() == BLOCK * BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.pending.resize(self.pending.len().next_multiple_of(BLOCK), 0);
        for block in self.pending.chunks_exact(BLOCK) {
            self.above.extend_from_slice(&self.hasher.block(block));
        }
        if let Some((target, area)) = self.target {
            target.write(area, self.at * VERITY_BLOCK_SIZE, &self.pending)?;
        }
        self.at += (self.pending.len() / BLOCK) as u64;
        self.pending.clear();
        Ok(())
    }
}

/// The root hash of what a root partition holds; with `write`, the tree goes to the slot's hash partition.
fn compute(target: &dyn Target, slot: SlotName, superblock: &VeritySuperblock, write: bool) -> Result<[u8; DIGEST], VerityError> {
    let (root, verity) = (Area::Root(slot), Area::Verity(slot));
    let data_bytes = superblock.data_blocks.saturating_mul(VERITY_BLOCK_SIZE);
    let tree_bytes = hash_area_blocks(superblock.data_blocks).saturating_mul(VERITY_BLOCK_SIZE);
    for (area, needs) in [(root, data_bytes), (verity, tree_bytes)] {
        let has = target.len(area).map_err(io_error(area))?;
        if has < needs {
            return Err(VerityError::TooSmall { area, has, needs });
        }
    }
    let hasher = Hasher::new(&superblock.salt);
    let counts = levels(superblock.data_blocks);
    let starts = level_starts(&counts);
    let writer = |start: u64| LevelWriter {
        target: write.then_some((target, verity)),
        at: start,
        pending: Vec::new(),
        hasher: &hasher,
        above: Vec::new(),
    };
    let Some((&lowest, upper)) = starts.split_first() else {
        let mut top = [0; DIGEST];
        for_blocks(target, root, 0, superblock.data_blocks, &mut |block| top = hasher.block(block))?;
        return Ok(top);
    };
    let mut level = writer(lowest);
    let mut failed = Ok(());
    for_blocks(target, root, 0, superblock.data_blocks, &mut |block| {
        if failed.is_ok() {
            failed = level.push(&hasher.block(block));
        }
    })?;
    failed.and_then(|()| level.flush()).map_err(io_error(verity))?;
    let mut digests = level.above;
    for &start in upper {
        let mut level = writer(start);
        for digest in digests.as_chunks::<DIGEST>().0 {
            level.push(digest).map_err(io_error(verity))?;
        }
        level.flush().map_err(io_error(verity))?;
        digests = level.above;
    }
    let mut top = [0; DIGEST];
    top.copy_from_slice(digests.get(..DIGEST).unwrap_or(&[0; DIGEST]));
    Ok(top)
}

/// Reads the root back from the disk, writes the tree for it and makes it durable, reads that back too, and compares the root hash.
///
/// # Errors
/// When the disk fails, or does not hold the image with this root hash.
pub fn build(target: &dyn Target, slot: SlotName, superblock: &VeritySuperblock, root_hash: &[u8; 32]) -> Result<(), VerityError> {
    let verity = Area::Verity(slot);
    let found = compute(target, slot, superblock, true)?;
    if found != *root_hash {
        return Err(VerityError::RootHash { area: Area::Root(slot), expected: hex(root_hash), found: hex(&found) });
    }
    let mut first = superblock.to_bytes().to_vec();
    first.resize(BLOCK, 0);
    target.write(verity, 0, &first).map_err(io_error(verity))?;
    target.sync(verity).map_err(io_error(verity))?;
    if check_tree(target, slot, superblock, root_hash)? { Ok(()) } else { Err(VerityError::ReadBack(verity)) }
}

/// Whether the hash partition holds a tree whose root is `root_hash`. The data is not looked at.
fn check_tree(target: &dyn Target, slot: SlotName, superblock: &VeritySuperblock, root_hash: &[u8; 32]) -> Result<bool, VerityError> {
    let verity = Area::Verity(slot);
    let mut first = vec![0; BLOCK];
    target.read(verity, 0, &mut first).map_err(io_error(verity))?;
    if VeritySuperblock::parse(&first).as_ref() != Ok(superblock) {
        return Ok(false);
    }
    let hasher = Hasher::new(&superblock.salt);
    let counts = levels(superblock.data_blocks);
    let starts = level_starts(&counts);
    let mut expected: Vec<u8> = root_hash.to_vec();
    for (index, (&start, &count)) in starts.iter().zip(&counts).enumerate().rev() {
        let mut good = true;
        let mut below = Vec::new();
        let mut digests = expected.chunks_exact(DIGEST);
        for_blocks(target, verity, start, count, &mut |block| {
            good &= digests.next().is_some_and(|digest| digest == hasher.block(block));
            // The lowest level's digests are those of the data.
            if index > 0 {
                below.extend_from_slice(block);
            }
        })?;
        if !good {
            return Ok(false);
        }
        expected = below;
    }
    Ok(true)
}

/// Whether a slot would boot: its superblock, tree and data all belong to `root_hash`. Reads the whole slot.
///
/// # Errors
/// When the disk cannot be read.
pub fn verifies(target: &dyn Target, slot: SlotName, root_hash: &[u8; 32]) -> Result<bool, VerityError> {
    let verity = Area::Verity(slot);
    let mut first = vec![0; BLOCK];
    target.read(verity, 0, &mut first).map_err(io_error(verity))?;
    let Ok(superblock) = VeritySuperblock::parse(&first) else { return Ok(false) };
    if superblock.data_blocks.saturating_mul(VERITY_BLOCK_SIZE) > target.len(Area::Root(slot)).map_err(io_error(verity))?
        || hash_area_blocks(superblock.data_blocks).saturating_mul(VERITY_BLOCK_SIZE) > target.len(verity).map_err(io_error(verity))?
        || !check_tree(target, slot, &superblock, root_hash)?
    {
        return Ok(false);
    }
    Ok(compute(target, slot, &superblock, false)? == *root_hash)
}
