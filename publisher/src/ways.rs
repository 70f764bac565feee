//! The ways from earlier releases to a new one: differences, patches, and what others borrow of those.

use release_format::{DifferenceInfo, ObjectKind, ObjectRef, PatchInfo, Release};

use crate::cost::Costs;
use crate::differences;
use crate::error::PublishError;
use crate::pack::Packed;
use crate::parts::OpenParts;
use crate::patch::{self, borrow};
use crate::repository::Repository;

/// What the release's metadata say of them.
pub struct Ways {
    /// Patches, those that were borrowed behind the others.
    pub patches: Vec<PatchInfo>,
    /// What their tables count.
    pub patch_packs: Vec<ObjectRef>,
    /// Differences.
    pub differences: Vec<DifferenceInfo>,
}

/// Makes and writes the ways from `earlier` releases, the newest first: patches from so many of them, as far as chunks do not cost less. What
/// each way costs goes into `costs`.
///
/// # Errors
/// When an earlier release cannot be read, or files cannot be written.
pub fn write(
    parts: &OpenParts,
    packed: &Packed,
    earlier: &[Release],
    count: usize,
    costs: &mut Costs,
    repository: &Repository,
    level: i32,
) -> Result<Ways, PublishError> {
    let small = packed.map_and_index();
    let differing = differences::write(packed, earlier, repository)?;
    for (from, (_, info)) in earlier.iter().zip(&differing) {
        if let Some(told) = costs.told(&from.version) {
            told.difference = info.as_ref().map(|info| info.difference.size);
        }
    }
    let (mut patches, mut patch_packs, mut lenders) = (Vec::new(), Vec::new(), Vec::new());
    for from in earlier.iter().take(count) {
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
        if patches.iter().all(|patch| patch.from != from.root_hash) {
            starts.push((from, map_patch, info.as_ref().map_or(small, |info| info.difference.size)));
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
        let from = earlier.iter().find(|from| from.root_hash == borrowed.info.from);
        if let Some(told) = from.and_then(|from| costs.told(&from.version)) {
            (told.patch, told.patch_with_kernel, told.borrowed) = (Some(borrowed.bytes), borrowed.with_kernel, true);
        }
        borrowed.info.lends = own.contains(&borrowed.info.from).then_some(filled.pack);
        patches.push(borrowed.info);
    }
    Ok(Ways { patches, patch_packs, differences })
}
