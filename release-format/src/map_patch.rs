//! A content map made of an earlier one: two versions of an image have most of theirs in common. Tables of patches and differences begin with it.

use crate::container;
use crate::digest::Digest;
use crate::error::FormatError;
use crate::limits::MAX_MAP_BODY;
use crate::map::ContentMap;
use crate::reader::{Reader, put_varint};

/// How a content map is made of an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapPatch {
    /// Digest of the body of the earlier map.
    pub source: Digest,
    /// Bytes of the new body.
    pub len: u32,
    /// A zstd frame of the new body with the earlier one as its prefix.
    pub frame: Vec<u8>,
}

impl MapPatch {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let source = Digest::new(reader.array32()?);
        let len = reader.u32()?;
        let frame_len = reader.varint()?;
        Ok(Self { source, len, frame: reader.bytes(frame_len)?.to_vec() })
    }

    pub(crate) fn put(&self, body: &mut Vec<u8>) {
        body.extend(self.source.as_bytes());
        body.extend(self.len.to_le_bytes());
        put_varint(body, self.frame.len() as u64);
        body.extend(&self.frame);
    }

    /// The map with the body of digest `map_body`.
    ///
    /// # Errors
    /// When the earlier map is not the one that this was made for, or another map comes out.
    pub fn apply(&self, earlier: &ContentMap, map_body: &Digest) -> Result<ContentMap, FormatError> {
        let old = earlier.body();
        if Digest::of(&old) != self.source {
            return Err(FormatError::PatchSource);
        }
        let map = container::unpatch("content map", &old, &self.frame, self.len, MAX_MAP_BODY)?;
        if Digest::of(&map) != *map_body {
            return Err(FormatError::PatchMap);
        }
        ContentMap::decode_body(&map)
    }
}
