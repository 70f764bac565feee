//! Content maps of what is in the slots, so that the next update knows without looking what the running slot has. They save bytes and are
//! no more than that: what they say is compared with digests when it is used, and one that is lost is fetched again.

use std::fs;

use release_format::{ContentMap, Digest};

use super::{State, StateError, io_error, write_whole};

/// zstd level: digests do not compress, and paths do at any.
const LEVEL: i32 = 3;

impl State {
    fn map_path(&self, root_hash: &Digest) -> std::path::PathBuf {
        self.root.join("map").join(format!("{root_hash}.map"))
    }

    /// The map of a root, if there is one.
    #[must_use]
    pub fn map(&self, root_hash: &Digest) -> Option<ContentMap> {
        ContentMap::decode(&fs::read(self.map_path(root_hash)).ok()?).ok()
    }

    /// Keeps one.
    ///
    /// # Errors
    /// When there is no room.
    pub fn keep_map(&self, root_hash: &Digest, map: &ContentMap) -> Result<(), StateError> {
        let path = self.map_path(root_hash);
        let bytes = map.encode(LEVEL).map_err(|error| io_error(&path)(std::io::Error::other(error)))?;
        write_whole(&path, &bytes).map_err(io_error(&path))
    }

    /// Removes those of roots that are in no slot.
    pub fn prune_maps(&self, keep: &[Digest]) {
        for entry in fs::read_dir(self.root.join("map")).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if !keep.iter().any(|root_hash| name.to_str() == Some(&format!("{root_hash}.map"))) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
