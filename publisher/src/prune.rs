//! What a repository no longer needs.

use std::collections::{BTreeMap, HashSet};
use std::fs;

use disk_layout::Version;
use release_format::{Channel, ObjectKind, PatchInfo};
use serde::Serialize;

use crate::error::PublishError;
use crate::files;
use crate::repository::{METADATA, OBJECTS, Repository, TARGETS};

/// Retired releases of a channel whose content maps stay: half a megabyte each.
const MAPS_KEPT: usize = 64;

/// What was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Versions that hosts can no longer take, as `channel/image/version`.
    pub retired: Vec<String>,
    /// Files deleted.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Marks all but the newest releases of each channel, and their stepping stones; says which.
pub fn retire(channels: &mut BTreeMap<String, Channel>, keep: usize) -> Vec<String> {
    let mut retired = Vec::new();
    for list in channels.values_mut() {
        let offered: Vec<Version> =
            list.releases.iter().rev().filter(|entry| entry.is_offered()).map(|entry| entry.version.clone()).collect();
        let mut needed: HashSet<Version> = offered.into_iter().take(keep.max(1)).collect();
        // Stepping stones may have stepping stones; releases are in order, so once from the newest down sees all.
        for entry in list.releases.iter().rev() {
            if let Some(stone) = entry.stepping_stone.as_ref().filter(|_| needed.contains(&entry.version)) {
                needed.insert(stone.clone());
            }
        }
        for entry in list.releases.iter_mut().filter(|entry| !entry.retired && !needed.contains(&entry.version)) {
            entry.retired = true;
            retired.push(format!("{}/{}/{}", list.channel, list.image, entry.version));
        }
    }
    retired
}

/// The objects that the channels refer to. What cannot be read may refer to any of them, so that nothing can be deleted: this is to be known
/// before anything is changed.
///
/// # Errors
/// When the metadata of a release that is not retired, or its list of patches from older releases, cannot be read.
pub fn needed(repository: &Repository, channels: &BTreeMap<String, Channel>) -> Result<HashSet<String>, PublishError> {
    let mut needed: HashSet<String> = HashSet::new();
    // With its map a host that still runs a retired release fetches what differs; without, everything.
    for list in channels.values() {
        for entry in list.releases.iter().rev().filter(|entry| entry.retired).take(MAPS_KEPT) {
            let Ok(release) = repository.read_release(&entry.release) else { continue };
            needed.insert(entry.release.path(ObjectKind::Release));
            needed.insert(release.map.path(ObjectKind::Map));
        }
    }
    for entry in channels.values().flat_map(|list| &list.releases).filter(|entry| !entry.retired) {
        let unknown = || |error| PublishError::Unprunable { version: entry.version.clone(), source: Box::new(error) };
        let release = repository.read_release(&entry.release).map_err(unknown())?;
        needed.insert(entry.release.path(ObjectKind::Release));
        needed.insert(release.map.path(ObjectKind::Map));
        needed.insert(release.index.path(ObjectKind::Index));
        needed.extend(release.packs.iter().map(|pack| pack.path(ObjectKind::Pack)));
        needed.extend(release.patch_packs.iter().map(|pack| pack.path(ObjectKind::Patch)));
        // Of format 1 it was the pack too, and agents that know that one alone still take it.
        let kind = |patch: &PatchInfo| if patch.format == 1 { ObjectKind::Patch } else { ObjectKind::Table };
        let older = repository.older_patches(&release).map_err(unknown())?;
        for patch in release.patches.iter().chain(&older) {
            needed.insert(patch.table.path(kind(patch)));
            needed.extend(patch.kernel.map(|kernel| kernel.path(ObjectKind::Kernel)));
        }
        needed.extend(release.older_patches.map(|older| older.path(ObjectKind::Older)));
        needed.extend(release.differences.iter().map(|info| info.difference.path(ObjectKind::Difference)));
    }
    Ok(needed)
}

/// Deletes all objects but those that are needed, and metadata. Of these, those of the state before are kept: a client may be reading them
/// right now.
pub fn delete(
    repository: &Repository,
    channels: &BTreeMap<String, Channel>,
    mut needed: HashSet<String>,
    retired: Vec<String>,
) -> Result<Pruned, PublishError> {
    for name in channels.keys() {
        needed.insert(format!("{TARGETS}/{}", repository.current_target(name)?));
    }
    let metadata = files::names(&repository.directory().join(METADATA))?;
    for kind in [".snapshot.json", ".targets.json"] {
        let mut versions: Vec<u64> = metadata.iter().filter_map(|name| name.strip_suffix(kind)?.parse().ok()).collect();
        versions.sort_unstable();
        needed.extend(versions.iter().rev().take(2).map(|version| format!("{METADATA}/{version}{kind}")));
    }
    let mut pruned = Pruned { retired, ..Pruned::default() };
    for (directory, endings) in [
        (OBJECTS, ObjectKind::ALL.iter().map(|kind| format!(".{}", kind.extension())).collect::<Vec<_>>()),
        (TARGETS, vec![".json".to_owned()]),
        (METADATA, vec![".snapshot.json".to_owned(), ".targets.json".to_owned()]),
    ] {
        let path = repository.directory().join(directory);
        for name in files::names(&path)? {
            // What we did not write is not ours to delete, but for the rest of a publication that was cut short.
            let ours = name.starts_with(".new-") || endings.iter().any(|ending| name.ends_with(ending));
            if !ours || needed.contains(&format!("{directory}/{name}")) {
                continue;
            }
            let file = path.join(&name);
            pruned.bytes += fs::metadata(&file).map_or(0, |found| found.len());
            pruned.files += 1;
            fs::remove_file(&file).map_err(PublishError::file("delete", &file))?;
        }
        if path.exists() {
            files::sync_directory(&path)?;
        }
    }
    Ok(pruned)
}
