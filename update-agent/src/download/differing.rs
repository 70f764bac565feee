//! What the release has beyond the running version, in place of content map and pack index.

use release_format::{ContentMap, DifferenceInfo, Digest, ObjectKind, PackIndex, Release, decode_difference};

use super::{DownloadError, unless_unusable};
use crate::fetch::Source;

/// The difference from the running version, if the release has one that can be used and costs less than map and index.
#[must_use]
pub fn offered_difference(release: &Release, running: &Digest) -> Option<DifferenceInfo> {
    let most = release.map.size.saturating_add(release.index.size);
    let known = |info: &&DifferenceInfo| info.format == DifferenceInfo::FORMAT && info.from == *running && info.difference.size < most;
    release.differences.iter().find(known).cloned()
}

/// Fetches and checks a difference; gives the release's content map, and the index of the chunks that `running` lacks. None, and the log says
/// why, when it cannot be used: all that it says is in map and index too.
///
/// # Errors
/// When the server cannot be reached for now.
pub async fn difference_from(
    source: &Source,
    release: &Release,
    info: &DifferenceInfo,
    running: &ContentMap,
) -> Result<Option<(ContentMap, PackIndex)>, DownloadError> {
    let told = "the difference from the running version cannot be used, so content map and pack index are";
    unless_unusable(fetch(source, release, info, running).await, told)
}

async fn fetch(
    source: &Source,
    release: &Release,
    info: &DifferenceInfo,
    running: &ContentMap,
) -> Result<(ContentMap, PackIndex), DownloadError> {
    let bytes = source.get(&info.difference.path(ObjectKind::Difference), info.difference.size).await?;
    info.difference.verify(&bytes)?;
    let (map, index) = decode_difference(&bytes, running, &release.map_body, &release.packs)?;
    release.expect_map(&map)?;
    Ok((map, index))
}
