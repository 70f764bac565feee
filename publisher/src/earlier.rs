//! The releases before a new one: what hosts run when it comes out.

use disk_layout::Version;
use release_format::limits::{MAX_OLDER, MAX_PATCHES};
use release_format::{ChannelRelease, ContentMap, Release};

use crate::error::PublishError;
use crate::pack::{Known, read_content_map};
use crate::repository::Repository;

/// Releases before the new one whose cost is told.
const TOLD: usize = 5;
/// From so many versions hosts come by ways of their own; from older ones they fetch chunks, or all.
const MAX_EARLIER: usize = MAX_PATCHES + MAX_OLDER;

/// A release that hosts come from.
pub struct Earlier {
    /// Its metadata.
    pub release: Release,
    /// Whether hosts are still offered it. They run it all the same when it was withdrawn, and are those that have to get away.
    pub is_offered: bool,
    /// Whether its chunks and patches are in the repository. Of a retired one only the map is, for a while.
    pub is_whole: bool,
}

/// What a new release can be made of, and is told beside.
#[derive(Default)]
pub struct History {
    /// What hosts come from, the newest first.
    pub earlier: Vec<Earlier>,
    /// Content maps of the releases whose cost is told.
    pub told: Vec<(Version, ContentMap)>,
    /// Chunks that need not be packed again.
    pub known: Known,
}

/// Reads what the repository has of an image, for a new version of which patches are made from so many offered ones.
///
/// # Errors
/// When a release that is not retired cannot be read.
pub fn history(entries: Vec<&ChannelRelease>, version: &Version, patches: usize, repository: &Repository) -> Result<History, PublishError> {
    let (mut history, mut offered) = (History::default(), 0);
    for entry in in_order(entries) {
        let is_before = entry.version < *version;
        let is_near = is_before && history.earlier.len() < MAX_EARLIER;
        if entry.retired {
            // What pruning has left of it is no loss when it is gone.
            let release = if is_near { repository.read_release(&entry.release).ok() } else { None };
            let release = release.filter(|release| read_content_map(repository, release).is_ok());
            history.earlier.extend(release.map(|release| Earlier { release, is_offered: false, is_whole: false }));
            continue;
        }
        let release = repository.read_release(&entry.release)?;
        let map = history.known.learn(repository, &release)?;
        if !is_before {
            continue;
        }
        let is_offered = entry.is_offered();
        if (is_offered && offered < patches) || history.told.len() < TOLD {
            history.told.push((entry.version.clone(), map));
        }
        offered += usize::from(is_offered);
        if is_near {
            history.earlier.push(Earlier { release, is_offered, is_whole: true });
        }
    }
    Ok(history)
}

/// Each version once, the newest first. What one channel still has counts for those that have it no more.
fn in_order(mut entries: Vec<&ChannelRelease>) -> Vec<&ChannelRelease> {
    entries.sort_by(|a, b| b.version.cmp(&a.version).then(a.retired.cmp(&b.retired)).then(a.withdrawn.cmp(&b.withdrawn)));
    entries.dedup_by(|a, b| a.version == b.version);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk_layout::hash_area_blocks;
    use jiff::Timestamp;
    use release_format::{Digest, ExtentKind, MapBuilder, ObjectKind, ObjectRef, StateFloor, UkiInfo};

    use crate::keys::{Keys, Threshold};
    use crate::metadata::Expiries;

    fn entry_of(version: &str, release: ObjectRef, retired: bool) -> ChannelRelease {
        let root_hash = Digest::of(b"root");
        let version = version.parse().unwrap();
        let format = Release::FORMAT;
        ChannelRelease { version, root_hash, release, format, stepping_stone: None, rollout: None, withdrawn: false, retired }
    }

    #[test]
    fn hosts_come_by_ways_of_their_own_from_256_releases_and_not_from_more() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::init(&directory.path().join("keys"), Threshold::ONE, &Expiries::default(), Timestamp::UNIX_EPOCH).unwrap();
        let repository = Repository::open(&directory.path().join("repo"), &keys).unwrap();
        let mut builder = MapBuilder::new();
        for (kind, path, len) in [(ExtentKind::Metadata, "", 4096), (ExtentKind::Section, ".linux", 100)] {
            builder.begin(kind, path, len).unwrap();
            builder.chunk(Digest::of(path.as_bytes()));
        }
        let map = builder.finish(4096, 100).unwrap();
        let map_object = repository.write_object(&map.encode(1).unwrap(), ObjectKind::Map).unwrap();
        let publish = |number: usize| {
            let version = format!("1.{number}");
            let release = Release {
                format: Release::FORMAT,
                image: "tiny".parse().unwrap(),
                architecture: "x86_64".parse().unwrap(),
                version: version.parse().unwrap(),
                root_hash: Digest::of(version.as_bytes()),
                root_size: 4096,
                verity_size: hash_area_blocks(1) * 4096,
                verity_salt: String::new(),
                verity_uuid: uuid::Uuid::nil(),
                uki: UkiInfo { name: format!("garboard_{version}.efi"), size: 100, sha256: Digest::of(b"uki") },
                map: map_object,
                map_body: Digest::of(&map.body()),
                index: ObjectRef::of(b"gone"),
                packs: Vec::new(),
                full_size: 0,
                patches: Vec::new(),
                older_patches: None,
                patch_packs: Vec::new(),
                differences: Vec::new(),
                state: StateFloor::default(),
            };
            let object = repository.write_object(&release.encode().unwrap(), ObjectKind::Release).unwrap();
            entry_of(&version, object, true)
        };
        let mut entries: Vec<ChannelRelease> = (0..MAX_EARLIER + 10).map(publish).collect();
        // What is no longer there, and what comes later than the new version, takes nobody's place.
        entries[250].release = ObjectRef::of(b"gone");
        let new = format!("1.{}", MAX_EARLIER + 8);
        let found = history(entries.iter().collect(), &new.parse().unwrap(), 3, &repository).unwrap();
        let found: Vec<String> = found.earlier.iter().map(|earlier| earlier.release.version.to_string()).collect();
        let expected: Vec<String> =
            (0..MAX_EARLIER + 8).rev().filter(|number| *number != 250).take(256).map(|number| format!("1.{number}")).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_version_is_there_once_as_the_channel_has_it_that_has_most_of_it() {
        let entry = |version: &str, withdrawn, retired| ChannelRelease { withdrawn, ..entry_of(version, ObjectRef::of(b""), retired) };
        let stable = [entry("1.2", false, true), entry("1.10", true, false)];
        let beta = [entry("1.9", false, true), entry("1.2", false, false), entry("1.10", false, false), entry("1.3", true, false)];
        let found = in_order(stable.iter().chain(&beta).collect());
        let found: Vec<(&str, bool, bool)> = found.iter().map(|entry| (entry.version.as_str(), entry.withdrawn, entry.retired)).collect();
        assert_eq!(found, [("1.10", false, false), ("1.9", false, true), ("1.3", true, false), ("1.2", false, false)]);
    }
}
