//! What a release costs the hosts that take it, computed as they will: with the fetch plan of `release-format`.

use disk_layout::Version;
use release_format::{ContentMap, FetchPlan, LocalChunks, MAX_REQUESTS, PackIndex, PlanOptions};
use serde::Serialize;

/// What one way to a release costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Bytes of payload and of gaps that are fetched with it.
    pub bytes: u64,
    /// Ranges asked for.
    pub requests: u64,
}

/// What a release costs in full, and from earlier releases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Costs {
    /// For a host that has nothing.
    pub full: Cost,
    /// From each earlier release, by chunks.
    pub chunks_from: Vec<CostFrom>,
    /// Bytes of content map and pack index, which come on top, but for hosts that have a patch or a difference.
    pub map_and_index: u64,
    /// Patches of earlier releases of which nothing could be borrowed, since they are damaged or gone: from and to which version, and why.
    pub lost_patches: Vec<String>,
    /// Versions of whose bytes nothing could be made, since they are damaged or gone, and why.
    pub lost_starts: Vec<String>,
}

/// What a release costs from another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CostFrom {
    /// The other one.
    pub version: String,
    /// The cost.
    pub cost: Cost,
    /// Bytes of the difference that takes the place of content map and pack index, where there is one.
    pub difference: Option<u64>,
    /// Bytes of all that comes by patch, where one is offered.
    pub patch: Option<u64>,
    /// Bytes of what a host fetches that takes the kernel patch with it, where there is one.
    pub patch_with_kernel: Option<u64>,
    /// Whether the patch has operations of other patches, and what they do not make comes by chunks.
    pub borrowed: bool,
    /// Bytes of a patch that was made and is not offered, since chunks cost less.
    pub refused_patch: Option<u64>,
}

impl Costs {
    /// What it costs from this version, if that is told.
    pub fn told(&mut self, version: &Version) -> Option<&mut CostFrom> {
        let version = version.to_string();
        self.chunks_from.iter_mut().find(|told| told.version == version)
    }
}

impl CostFrom {
    /// Bytes of all that comes by chunks.
    #[must_use]
    pub fn by_chunks(&self, map_and_index: u64) -> u64 {
        self.cost.bytes + self.difference.unwrap_or(map_and_index)
    }

    /// The way that a host takes which has that version: `patch`, `chunks`, or `full`.
    #[must_use]
    pub fn way(&self, full: &Cost) -> &'static str {
        match self.patch {
            Some(_) => "patch",
            None if self.cost.bytes < full.bytes => "chunks",
            None => "full",
        }
    }
}

/// The cost for a host that has all of `before`'s chunks.
#[must_use]
pub fn cost(map: &ContentMap, index: &PackIndex, before: Option<&ContentMap>) -> Cost {
    let have = before.map(LocalChunks::of).unwrap_or_default();
    let plan = FetchPlan::within(map, index, &PlanOptions::default(), MAX_REQUESTS, |_, chunk| have.find(&chunk.digest).is_none());
    Cost { bytes: plan.bytes(), requests: plan.requests() as u64 }
}

/// All costs of a release.
#[must_use]
pub fn costs(map: &ContentMap, index: &PackIndex, earlier: &[(Version, ContentMap)], map_and_index: u64) -> Costs {
    let from = |(version, before): &(Version, ContentMap)| CostFrom {
        version: version.to_string(),
        cost: cost(map, index, Some(before)),
        difference: None,
        patch: None,
        patch_with_kernel: None,
        borrowed: false,
        refused_patch: None,
    };
    Costs {
        full: cost(map, index, None),
        chunks_from: earlier.iter().map(from).collect(),
        map_and_index,
        lost_patches: Vec::new(),
        lost_starts: Vec::new(),
    }
}
