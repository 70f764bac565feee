//! What nobody lends. A file that changed in several releases since a host's version is made by no operation of theirs from what the host has,
//! and would come by chunks. Operations are made for such files from each version's own bytes, as far as that is worth the time; other
//! versions with the same bytes, and later releases, borrow them.

use std::sync::Arc;

use release_format::{ContentMap, Digest, Extent, ObjectKind, ObjectRef, PatchTable};

use super::borrow::{Lender, Needs, Start, counted, loans};
use super::old::OldRelease;
use super::windows::{Caps, Window, cut};
use super::{apply_all, encode_all, pool};
use crate::error::PublishError;
use crate::pack::{Packed, read_map};
use crate::parts::OpenParts;
use crate::repository::Repository;

/// New bytes for which operations are made at most, from all versions together: half a minute of two cores.
const BUDGET: u64 = 64 << 20;
/// Bytes of chunks that are worth an operation.
const LEAST: u64 = 16 << 10;
/// Chunks that take less than this part of what they make are small already: those of kernel modules, of which there are too many, and of
/// the metadata of file systems, which always change.
const DENSE: u64 = 4;

/// What was made.
pub struct Filled {
    /// The number of its pack.
    pub pack: u16,
    /// What can be borrowed now, with the root hashes of the versions of whose bytes it is made.
    pub lenders: Vec<(Digest, Lender)>,
    /// From which versions nothing could be made, and why: their bytes are damaged or gone. They come by chunks.
    pub lost: Vec<String>,
}

/// Makes operations from the versions of `starts` for what `lenders` leave of them, and writes their pack, which becomes one of `packs`.
///
/// # Errors
/// When the pack cannot be written.
pub fn fill(
    parts: &OpenParts,
    packed: &Packed,
    starts: &[Start<'_>],
    lenders: &[Lender],
    packs: &mut Vec<ObjectRef>,
    repository: &Repository,
    level: i32,
) -> Result<Filled, PublishError> {
    let lent = loans(lenders, &packed.map);
    let number = u16::try_from(packs.len()).unwrap_or(u16::MAX);
    // What the pack is called is known when it is whole.
    let with_new = [packs.as_slice(), &[ObjectRef::of(&[])]].concat();
    let counted = counted(&with_new, &lent);
    let (mut roots, mut made, mut pack, mut budget) = (Vec::new(), Vec::<Lender>::new(), Vec::new(), BUDGET);
    let mut filled = Filled { pack: number, lenders: Vec::new(), lost: Vec::new() };
    for Start { from, map_patch, .. } in starts.iter().filter(|start| start.from.is_whole) {
        let from = &from.release;
        let before = pack.len();
        let mut fill_one = || -> Result<(ContentMap, PatchTable), PublishError> {
            let (old_map, index) = read_map(repository, from)?;
            let mut needs = Needs::new(packed, &old_map);
            needs.take(&lent, &counted);
            needs.take(&loans(&made, &packed.map), &counted);
            let windows = cut(&old_map, &packed.map, |number| needs.by_chunk(number) > 0, &Caps::default());
            let by_chunks = |window: &Window| window.numbers().map(|number| needs.by_chunk(number)).sum();
            let windows = worthwhile(windows, &packed.map, by_chunks, &mut budget);
            let mut table = PatchTable { map: map_patch.clone(), operations: Vec::new() };
            if windows.is_empty() {
                return Ok((old_map, table));
            }
            let old = OldRelease::new(repository, from, &old_map, &index);
            let encoded = pool()?.install(|| encode_all(&windows, parts, &packed.map, &old, level))?;
            for (window, encoded) in windows.iter().zip(encoded) {
                // What spares a quarter is worth its place in the repository.
                if encoded.payload.len() as u64 <= by_chunks(window) / 4 * 3 {
                    table.operations.push(encoded.operation(window, number, &mut pack));
                }
            }
            let failed = PublishError::format(&format!("what is made of version {}", from.version));
            apply_all(&table, &pack, &packed.map, &old).map_err(failed)?;
            Ok((old_map, table))
        };
        match fill_one() {
            Ok((old_map, table)) if !table.operations.is_empty() => {
                roots.push(from.root_hash);
                made.push(Lender { from: Arc::new(old_map), to: Arc::clone(&packed.map), table, packs: with_new.clone(), kernel: None });
            }
            Ok(_) => (),
            Err(error) => {
                pack.truncate(before);
                filled.lost.push(format!("from {}: {error}", from.version));
            }
        }
    }
    if !pack.is_empty() {
        packs.push(repository.write_object(&pack, ObjectKind::Patch)?);
        made.iter_mut().for_each(|lender| lender.packs.clone_from(packs));
    }
    filled.lenders = roots.into_iter().zip(made).collect();
    Ok(filled)
}

/// Those windows for which operations are to be made; what they make is taken off the budget.
fn worthwhile(windows: Vec<Window>, map: &ContentMap, by_chunks: impl Fn(&Window) -> u64, budget: &mut u64) -> Vec<Window> {
    // Two kernels have no bytes in common.
    let kernel = map.kernel().map_or(0..0, Extent::numbers);
    let is_worthwhile = |window: &Window| {
        let chunks = by_chunks(window);
        let dense = chunks >= LEAST && chunks >= window.output / DENSE;
        let wanted = dense && !window.sources.is_empty() && !window.numbers().any(|number| kernel.contains(&number));
        let left = budget.checked_sub(window.output).filter(|_| wanted);
        *budget = left.unwrap_or(*budget);
        left.is_some()
    };
    let mut windows = windows;
    windows.retain(is_worthwhile);
    windows
}

#[cfg(test)]
mod tests {
    use super::*;
    use release_format::{ExtentKind, LocalChunks, MapBuilder, limits::CHUNK};

    fn map(age: u8) -> ContentMap {
        let mut builder = MapBuilder::new();
        let mut begin = |kind, path: &str, chunks: u64| {
            builder.begin(kind, path, chunks * CHUNK).unwrap();
            (0..chunks).for_each(|chunk| builder.chunk(Digest::of(format!("{path} {chunk} {age}").as_bytes())));
        };
        begin(ExtentKind::Metadata, "", 1);
        ["dense", "small", "thin"].into_iter().for_each(|path| begin(ExtentKind::File, path, 4));
        begin(ExtentKind::Section, ".linux", 40);
        builder.finish(13 * CHUNK, 40 * CHUNK).unwrap()
    }

    #[test]
    fn what_chunks_make_dear_is_chosen_but_the_kernel_as_far_as_the_budget_goes() {
        let (old, new) = (map(1), map(2));
        let missing = LocalChunks::of(&old).lacking(&new);
        let windows = cut(&old, &new, |number| missing.contains(&number), &Caps::default());
        let by_chunks = |window: &Window| match window.numbers().next().unwrap() {
            1..5 => window.output / DENSE,
            5..9 => LEAST - 1,
            9..13 => window.output / DENSE - 1,
            _ => window.output,
        };
        let chosen = |mut budget: u64| {
            let windows = worthwhile(windows.clone(), &new, by_chunks, &mut budget);
            (windows.iter().map(|window| window.numbers().next().unwrap()).collect::<Vec<_>>(), budget)
        };
        assert_eq!(chosen(5 * CHUNK), (vec![0, 1], 0));
        assert_eq!(chosen(6 * CHUNK), (vec![0, 1], CHUNK));
        assert_eq!(chosen(4 * CHUNK), (vec![0], 3 * CHUNK));
    }
}
