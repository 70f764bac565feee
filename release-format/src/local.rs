//! Which chunks a host has already: those of the release that it runs, and where they are.

use std::collections::HashMap;

use crate::digest::Digest;
use crate::map::{ContentMap, Part};

/// Bytes of the running release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPlace {
    /// In its root image or its UKI.
    pub part: Part,
    /// Where.
    pub offset: u64,
}

/// The chunks of a release by their digests.
#[derive(Clone, Debug, Default)]
pub struct LocalChunks {
    places: HashMap<Digest, LocalPlace>,
}

impl LocalChunks {
    /// Those of a map. What the map says is not trusted: a chunk that is read by it has to be compared with its digest.
    #[must_use]
    pub fn of(map: &ContentMap) -> Self {
        let mut places = HashMap::with_capacity(map.chunk_count() as usize);
        for (_, chunk) in map.chunks() {
            places.entry(chunk.digest).or_insert(LocalPlace { part: chunk.part, offset: chunk.offset });
        }
        Self { places }
    }

    /// Where a chunk is; none when it has to be fetched.
    #[must_use]
    pub fn find(&self, digest: &Digest) -> Option<LocalPlace> {
        self.places.get(digest).copied()
    }

    /// Numbers of the chunks of a map that are not here, in order.
    #[must_use]
    pub fn lacking(&self, map: &ContentMap) -> Vec<u32> {
        map.chunks().filter(|(_, chunk)| !self.places.contains_key(&chunk.digest)).map(|(number, _)| number).collect()
    }
}
