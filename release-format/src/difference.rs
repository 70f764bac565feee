//! What a release's content map and pack index have beyond an earlier release's content map: the map, made of the earlier one, and entries
//! of the chunks that this one lacks. A host that runs the earlier release needs no more to fetch what it does not have.

use crate::container;
use crate::digest::Digest;
use crate::entries;
use crate::error::FormatError;
use crate::index::PackIndex;
use crate::limits::MAX_DIFFERENCE_BODY;
use crate::local::LocalChunks;
use crate::map::ContentMap;
use crate::map_patch::MapPatch;
use crate::object::ObjectRef;
use crate::reader::Reader;

const WHAT: &str = "difference";
const MAGIC: [u8; 8] = *b"GBDIFF\0\0";

/// The file for hosts that have `earlier`; `map_patch` makes `map` of it.
///
/// # Errors
/// When it would be larger than the format allows, or the index has no entry for a chunk that `earlier` lacks.
pub fn encode_difference(
    map_patch: &MapPatch,
    earlier: &ContentMap,
    map: &ContentMap,
    index: &PackIndex,
    level: i32,
) -> Result<Vec<u8>, FormatError> {
    let chunks = LocalChunks::of(earlier).lacking(map);
    let found = chunks.iter().map(|&chunk| index.entry(chunk).ok_or(FormatError::NoChunk(chunk))).collect::<Result<Vec<_>, _>>()?;
    let mut body = Vec::new();
    map_patch.put(&mut body);
    body.extend(index.packs().to_le_bytes());
    body.extend(u32::try_from(found.len()).unwrap_or(u32::MAX).to_le_bytes());
    entries::put(&mut body, index.packs(), found.iter().copied());
    container::wrap(WHAT, MAGIC, &body, MAX_DIFFERENCE_BODY, level)
}

/// The map and an index of what `earlier` lacks, for a release with this map and these packs. Check the file with
/// [`ObjectRef::verify`] first.
///
/// # Errors
/// When it is not one that the specification allows, was made for another earlier map, or makes another map.
pub fn decode_difference(
    bytes: &[u8],
    earlier: &ContentMap,
    map_body: &Digest,
    packs: &[ObjectRef],
) -> Result<(ContentMap, PackIndex), FormatError> {
    let body = container::unwrap(WHAT, MAGIC, bytes, MAX_DIFFERENCE_BODY)?;
    let mut reader = Reader::new(WHAT, &body);
    let map = MapPatch::read(&mut reader)?.apply(earlier, map_body)?;
    let found = reader.u16()?;
    if usize::from(found) != packs.len() {
        return Err(FormatError::PackCount { index: u64::from(found), release: packs.len() as u64 });
    }
    let chunks = LocalChunks::of(earlier).lacking(&map);
    let found = reader.u32()?;
    if found as usize != chunks.len() {
        return Err(FormatError::DifferenceChunks { found: u64::from(found), lacking: chunks.len() as u64 });
    }
    let entries = entries::read(&mut reader, &chunks, packs.len())?;
    reader.end()?;
    let index = PackIndex::partial(entries, &map, packs)?;
    Ok((map, index))
}

#[cfg(test)]
#[path = "difference_tests.rs"]
mod tests;
