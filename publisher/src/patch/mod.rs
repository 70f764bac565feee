//! Patches: a release made of an earlier one. Files are matched (`matching`), what is new of them is cut into windows (`windows`), and
//! for each window the smallest operation is taken (`encode`). Everything is applied once, as a host does, before it is published. Other
//! earlier releases borrow the operations (`borrow`), and for what nobody lends them there are more (`fill`).

pub mod borrow;
#[cfg(test)]
mod caps_tests;
mod difference;
mod encode;
mod fill;
mod kernel;
mod matching;
mod old;
mod windows;

use std::sync::Arc;

use rayon::prelude::*;
use release_format::{
    ChunkDecoder, ContentMap, Digest, Extent, FormatError, LocalChunks, ObjectRef, PatchDecoder, PatchInfo, PatchOperation, PatchTable,
    Release,
};

use crate::differences::map_patch;
use crate::error::PublishError;
use crate::pack::{SMALL_LEVEL, read_map};
use crate::parts::OpenParts;
use crate::repository::Repository;
use borrow::Lender;
use encode::Encoded;
use old::OldRelease;
use windows::Window;

pub use encode::{smallest, zstd};
pub use fill::fill;
pub use windows::{Caps, cut};

/// Windows that are worked on at the same time: each takes some 300 MiB.
const THREADS: usize = 3;

/// A patch, and the kernel patch beside it if there is one, which are written nowhere yet.
pub struct Made {
    /// What the release's metadata say of them.
    pub info: PatchInfo,
    /// The table.
    pub table: PatchTable,
    /// The table's file.
    pub file: Vec<u8>,
    /// The patch pack.
    pub pack: Vec<u8>,
    /// The content map of the earlier release.
    pub old_map: ContentMap,
    /// The kernel patch.
    pub kernel: Option<Vec<u8>>,
    /// Bytes of the pack that a host does not fetch when it takes the kernel patch.
    pub kernel_spares: u64,
}

impl Made {
    /// Bytes of table and pack: what a host fetches that does not take the kernel patch.
    #[must_use]
    pub fn size(&self) -> u64 {
        (self.file.len() + self.pack.len()) as u64
    }

    /// What others may borrow of it, for the release with this map and these patch packs.
    #[must_use]
    pub fn lend(self, map: &Arc<ContentMap>, packs: &[ObjectRef]) -> Lender {
        Lender { from: Arc::new(self.old_map), to: Arc::clone(map), table: self.table, packs: packs.to_vec(), kernel: self.info.kernel }
    }
}

/// Makes the patch from an earlier release; its pack is the one after `packs`.
///
/// # Errors
/// When the earlier release cannot be read.
pub fn make(
    parts: &OpenParts,
    map: &ContentMap,
    from: &Release,
    repository: &Repository,
    packs: &[ObjectRef],
    level: i32,
) -> Result<Made, PublishError> {
    let (old_map, index) = read_map(repository, from)?;
    let old = OldRelease::new(repository, from, &old_map, &index);
    let local = LocalChunks::of(&old_map);
    let windows = windows::cut(&old_map, map, |number| lacks(&local, map, number), &Caps::default());
    let windows_encoded = || encode_all(&windows, parts, map, &old, level);
    let (encoded, kernel) = pool()?.install(|| rayon::join(windows_encoded, || kernel::make(parts, map, &old, &old_map, level)));
    let (encoded, kernel) = (encoded?, kernel?);

    let failed = || PublishError::format(&format!("the patch from version {}", from.version));
    let map_patch = map_patch(&old_map, from, map).map_err(failed())?;
    let mut table = PatchTable { map: map_patch, operations: Vec::with_capacity(encoded.len()) };
    let mut pack = Vec::new();
    let number = u16::try_from(packs.len()).unwrap_or(u16::MAX);
    for (window, encoded) in windows.iter().zip(encoded) {
        table.operations.push(encoded.operation(window, number, &mut pack));
    }
    let file = table.encode(SMALL_LEVEL).map_err(failed())?;
    rehearse(&file, (packs, &pack), &old_map, map, &old).map_err(failed())?;

    let kernel_chunks = map.kernel().map_or(0..0, Extent::numbers);
    let only_kernel = |operation: &&PatchOperation| operation.numbers().all(|number| kernel_chunks.contains(&number));
    let kernel_spares = table.operations.iter().filter(only_kernel).map(|operation| u64::from(operation.len)).sum();
    // The patch always has the plain way, so a kernel patch that saves nothing is none.
    let kernel = kernel.filter(|kernel| (kernel.len() as u64) < kernel_spares);
    let info = PatchInfo {
        format: PatchInfo::FORMAT,
        from: from.root_hash,
        table: ObjectRef::of(&file),
        kernel: kernel.as_deref().map(ObjectRef::of),
        borrowed: false,
        lends: None,
    };
    Ok(Made { info, table, file, pack, old_map, kernel, kernel_spares })
}

/// For windows, each of which takes some 300 MiB.
fn pool() -> Result<rayon::ThreadPool, PublishError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|error| crate::metadata::encode("a patch", &error))
}

/// The smallest operation for each window.
fn encode_all(
    windows: &[Window],
    parts: &OpenParts,
    map: &ContentMap,
    old: &OldRelease<'_>,
    level: i32,
) -> Result<Vec<Encoded>, PublishError> {
    let encode = |window: &Window| {
        let mut output = Vec::new();
        for number in window.numbers() {
            output.extend(crate::pack::read_chunk(parts, map, number)?);
        }
        let mut source = Vec::new();
        for run in &window.sources {
            source.extend(old.read(run.part, run.offset, run.len)?);
        }
        smallest(window, &source, &output, level)
    };
    windows.par_iter().map(encode).collect()
}

/// Does what a host does with it: what comes out must be the chunks that the map names, and with those both have, all of them.
fn rehearse(
    file: &[u8],
    (packs, pack): (&[ObjectRef], &[u8]),
    old_map: &ContentMap,
    map: &ContentMap,
    old: &OldRelease<'_>,
) -> Result<(), FormatError> {
    let table = PatchTable::decode(file, &[packs, &[ObjectRef::of(pack)]].concat())?;
    table.map.apply(old_map, &Digest::of(&map.body()))?;
    table.check(old_map, map)?;
    apply_all(&table, pack, map, old)
}

/// Applies all operations of a table, whose payloads are in this pack: what they make must be the chunks that the map names.
fn apply_all(table: &PatchTable, pack: &[u8], map: &ContentMap, old: &OldRelease<'_>) -> Result<(), FormatError> {
    let numbered = (0_u32..).zip(&table.operations).collect::<Vec<_>>();
    numbered.par_iter().try_for_each_init(PatchDecoder::default, |decoder, (number, operation)| {
        let mut chunks = ChunkDecoder::new()?;
        let mut read = |part, offset, buffer: &mut [u8]| {
            let bytes = old.read(part, offset, buffer.len() as u64).map_err(|_| FormatError::PatchSource)?;
            buffer.copy_from_slice(&bytes);
            Ok(())
        };
        let start = usize::try_from(operation.offset).unwrap_or(usize::MAX);
        let payload = start.checked_add(operation.len as usize).and_then(|end| pack.get(start..end));
        let payload = payload.ok_or(FormatError::PatchPayload { operation: *number, len: u64::from(operation.len) })?;
        decoder.apply(table, (*number, payload), map, &mut chunks, &mut read, &mut |_| Ok(()))
    })
}

/// Whether a chunk of a map is not among these.
fn lacks(local: &LocalChunks, map: &ContentMap, number: u32) -> bool {
    map.chunk(number).is_some_and(|chunk| local.find(&chunk.digest).is_none())
}
