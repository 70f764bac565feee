//! The bytes of an earlier release, read back from the packs of the repository.

use release_format::{ChunkDecoder, ContentMap, Entry, Extent, FormatError, PackIndex, Part, Release};

use crate::error::PublishError;
use crate::pack::EarlierPacks;
use crate::repository::Repository;

/// An earlier release.
pub struct OldRelease<'a> {
    release: &'a Release,
    map: &'a ContentMap,
    index: &'a PackIndex,
    packs: EarlierPacks<'a>,
}

impl<'a> OldRelease<'a> {
    pub fn new(repository: &'a Repository, release: &'a Release, map: &'a ContentMap, index: &'a PackIndex) -> Self {
        Self { release, map, index, packs: EarlierPacks::new(repository) }
    }

    /// Some bytes of its root image or UKI.
    pub fn read(&self, part: Part, offset: u64, len: u64) -> Result<Vec<u8>, PublishError> {
        // What lies between extents is zeros.
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let end = offset + len;
        let extents: &[Extent] = self.map.extents(part);
        let first = extents.partition_point(|extent| extent.offset + extent.len <= offset);
        let mut decoder = ChunkDecoder::new().map_err(PublishError::format("a chunk"))?;
        for extent in extents.iter().skip(first).take_while(|extent| extent.offset < end) {
            for number in extent.numbers() {
                let missing = || PublishError::format("an earlier release")(FormatError::NoChunk(number));
                let (chunk, entry) = self.map.chunk(number).zip(self.index.entry(number)).ok_or_else(missing)?;
                let chunk_end = chunk.offset + u64::from(chunk.len);
                if chunk_end <= offset || chunk.offset >= end {
                    continue;
                }
                let payload = self.payload(entry)?;
                let write = decoder.decode(self.map, self.index, number, &payload).map_err(PublishError::format("an earlier release"))?;
                let (from, to) = (chunk.offset.max(offset), chunk_end.min(end));
                let source = usize::try_from(from - chunk.offset).ok().zip(usize::try_from(to - chunk.offset).ok());
                let target = usize::try_from(from - offset).ok().zip(usize::try_from(to - offset).ok());
                let source = source.and_then(|(from, to)| write.data.get(from..to)).ok_or_else(missing)?;
                target.and_then(|(from, to)| bytes.get_mut(from..to)).ok_or_else(missing)?.copy_from_slice(source);
            }
        }
        Ok(bytes)
    }

    fn payload(&self, entry: &Entry) -> Result<Vec<u8>, PublishError> {
        if !entry.operation.has_payload() {
            return Ok(Vec::new());
        }
        let missing = || PublishError::format("an earlier release")(FormatError::LocationRange { chunk: 0 });
        let pack = self.release.packs.get(usize::from(entry.pack)).ok_or_else(missing)?;
        self.packs.payload(pack, entry)
    }
}
