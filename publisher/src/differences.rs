//! Differences: what a host that runs an earlier release needs to know to fetch the chunks it lacks, in place of content map and pack index.

use rayon::prelude::*;
use release_format::limits::MAX_DIFFERENCES;
use release_format::{ContentMap, DifferenceInfo, FormatError, MapPatch, ObjectKind, Release, decode_difference, encode_difference};

use crate::earlier::Earlier;
use crate::error::PublishError;
use crate::pack::{Packed, SMALL_LEVEL, read_content_map};
use crate::patch::zstd;
use crate::repository::Repository;

/// How a content map is made of an earlier one.
///
/// # Errors
/// When zstd has no memory.
pub fn map_patch(earlier: &ContentMap, from: &Release, map: &ContentMap) -> Result<MapPatch, FormatError> {
    let body = map.body();
    let frame = zstd(&body, &earlier.body(), SMALL_LEVEL).ok_or(FormatError::PatchMap)?;
    Ok(MapPatch { source: from.map_body, len: u32::try_from(body.len()).unwrap_or(u32::MAX), frame })
}

/// Writes the differences from earlier releases, as many as the release lists, to one that was packed, and gives them with how its map is made
/// of each earlier one's. One that is not smaller than map and index is none.
///
/// # Errors
/// When an earlier release cannot be read, or files cannot be written.
pub fn write(
    packed: &Packed,
    earlier: &[Earlier],
    repository: &Repository,
) -> Result<Vec<(MapPatch, Option<DifferenceInfo>)>, PublishError> {
    let make = |(place, from): (usize, &Earlier)| make(packed, &from.release, repository, place < MAX_DIFFERENCES);
    let made = earlier.par_iter().enumerate().map(make).collect::<Result<Vec<_>, PublishError>>()?;
    let mut differences = Vec::new();
    for (from, (map_patch, bytes)) in earlier.iter().zip(made) {
        let mut info = None;
        if let Some(bytes) = bytes.filter(|bytes| (bytes.len() as u64) < packed.map_and_index()) {
            let difference = repository.write_object(&bytes, ObjectKind::Difference)?;
            info = Some(DifferenceInfo { format: DifferenceInfo::FORMAT, from: from.release.root_hash, difference });
        }
        differences.push((map_patch, info));
    }
    Ok(differences)
}

/// Makes the map's part of one, and if it is wanted all of it, which is read as a host does.
fn make(packed: &Packed, from: &Release, repository: &Repository, is_wanted: bool) -> Result<(MapPatch, Option<Vec<u8>>), PublishError> {
    let earlier = read_content_map(repository, from)?;
    let encode = || -> Result<(MapPatch, Option<Vec<u8>>), FormatError> {
        let map_patch = map_patch(&earlier, from, &packed.map)?;
        if !is_wanted {
            return Ok((map_patch, None));
        }
        let bytes = encode_difference(&map_patch, &earlier, &packed.map, &packed.index, SMALL_LEVEL)?;
        let (_, index) = decode_difference(&bytes, &earlier, &packed.map_body, &packed.packs)?;
        let other = index.entries().find(|(chunk, entry)| packed.index.entry(*chunk) != Some(entry));
        other.map_or(Ok((map_patch, Some(bytes))), |(chunk, _)| Err(FormatError::LocationRange { chunk }))
    };
    encode().map_err(PublishError::format(&format!("the difference from version {}", from.version)))
}
