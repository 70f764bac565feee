//! The ways from earlier releases to a new one: differences, patches, and what others borrow of those.

use release_format::limits::MAX_PATCHES;
use release_format::{DifferenceInfo, ObjectKind, ObjectRef, PatchInfo};

use crate::cost::Costs;
use crate::differences;
use crate::earlier::Earlier;
use crate::error::PublishError;
use crate::pack::Packed;
use crate::parts::OpenParts;
use crate::patch;
use crate::patch::borrow::{self, Start};
use crate::repository::Repository;

/// What the release's metadata say of them.
pub struct Ways {
    /// Patches that the metadata list, those that were borrowed behind the others.
    pub patches: Vec<PatchInfo>,
    /// The list of more, from older releases.
    pub older_patches: Option<ObjectRef>,
    /// What their tables count.
    pub patch_packs: Vec<ObjectRef>,
    /// Differences.
    pub differences: Vec<DifferenceInfo>,
}

/// Makes and writes the ways from `earlier` releases, the newest first: patches from so many of those that are offered, as far as chunks do
/// not cost less. What each way costs goes into `costs`.
///
/// # Errors
/// When an earlier release cannot be read, or files cannot be written.
pub fn write(
    parts: &OpenParts,
    packed: &Packed,
    earlier: &[Earlier],
    count: usize,
    costs: &mut Costs,
    repository: &Repository,
    level: i32,
) -> Result<Ways, PublishError> {
    let small = packed.map_and_index();
    let differing = differences::write(packed, earlier, repository)?;
    for (from, (_, info)) in earlier.iter().zip(&differing) {
        if let Some(told) = costs.told(&from.release.version) {
            told.difference = info.as_ref().map(|info| info.difference.size);
        }
    }
    let (mut patches, mut patch_packs, mut lenders) = (Vec::new(), Vec::new(), Vec::new());
    for from in earlier.iter().filter(|from| from.is_offered).map(|from| &from.release).take(count.min(MAX_PATCHES)) {
        let Some(told) = costs.told(&from.version) else { continue };
        let made = patch::make(parts, &packed.map, from, repository, &patch_packs, level)?;
        // A host that takes a patch needs neither map nor index, nor the difference.
        if made.size() >= told.by_chunks(small) {
            told.refused_patch = Some(made.size());
            continue;
        }
        repository.write_object(&made.file, ObjectKind::Table)?;
        if !made.pack.is_empty() {
            patch_packs.push(repository.write_object(&made.pack, ObjectKind::Patch)?);
        }
        if let Some(kernel) = &made.kernel {
            repository.write_object(kernel, ObjectKind::Kernel)?;
            told.patch_with_kernel = Some(made.size() - made.kernel_spares + kernel.len() as u64);
        }
        told.patch = Some(made.size());
        patches.push(made.info.clone());
        lenders.push(made.lend(&packed.map, &patch_packs));
    }
    let (lending, lost) = borrow::lenders(earlier, repository);
    lenders.extend(lending);
    costs.lost_patches = lost;
    let (mut starts, mut differences) = (Vec::new(), Vec::new());
    for (from, (map_patch, info)) in earlier.iter().zip(differing) {
        if patches.iter().all(|patch| patch.from != from.release.root_hash) {
            let told = info.as_ref().map_or(small, |info| info.difference.size);
            starts.push(Start { from, map_patch, told });
        }
        differences.extend(info);
    }
    // Who wants no patches does without these too.
    let starts_of_fill = if count == 0 { &[] } else { starts.as_slice() };
    let filled = patch::fill(parts, packed, starts_of_fill, &lenders, &mut patch_packs, repository, level)?;
    costs.lost_starts = filled.lost;
    let (own, lending): (Vec<_>, Vec<_>) = filled.lenders.into_iter().unzip();
    lenders.extend(lending);
    for mut borrowed in borrow::write(packed, starts, &lenders, &mut patch_packs, repository)? {
        let from = earlier.iter().find(|from| from.release.root_hash == borrowed.info.from);
        if let Some(told) = from.and_then(|from| costs.told(&from.release.version)) {
            (told.patch, told.patch_with_kernel, told.borrowed) = (Some(borrowed.bytes), borrowed.with_kernel, true);
        }
        borrowed.info.lends = own.contains(&borrowed.info.from).then_some(filled.pack);
        patches.push(borrowed.info);
    }
    let older = patches.split_off(patches.len().min(MAX_PATCHES));
    let older_patches = if older.is_empty() { None } else { Some(repository.write_older_patches(older)?) };
    Ok(Ways { patches, older_patches, patch_packs, differences })
}
