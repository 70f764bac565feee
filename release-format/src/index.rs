//! The pack index: for each chunk of a content map, in its order, how and from where in which pack it comes.

use crate::container;
use crate::digest::PayloadDigest;
use crate::entries;
use crate::error::FormatError;
use crate::limits::{HEADER, MAX_CHUNKS, MAX_INDEX_BODY, MAX_PACKS};
use crate::map::ContentMap;
use crate::object::ObjectRef;
use crate::operation::Operation;
use crate::reader::Reader;

const WHAT: &str = "pack index";
const MAGIC: [u8; 8] = *b"GBINDEX\0";
const PACK_MAGIC: [u8; 8] = *b"GBPACK\0\0";

/// The first bytes of every pack. Payloads follow it without anything between; only an index tells where each begins.
#[must_use]
pub fn pack_header() -> [u8; HEADER] {
    container::header(PACK_MAGIC, 0)
}

/// Where a chunk comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// How.
    pub operation: Operation,
    /// Number of the pack in the release's list; 0 without payload.
    pub pack: u16,
    /// Where in the pack the payload starts; 0 without payload.
    pub offset: u64,
    /// Bytes of the payload; never more than of the chunk.
    pub len: u32,
    /// Of the payload.
    pub digest: PayloadDigest,
}

impl Entry {
    /// A chunk of zeros.
    #[must_use]
    pub fn zero() -> Self {
        Self { operation: Operation::Zero, pack: 0, offset: 0, len: 0, digest: PayloadDigest::new([0; 16]) }
    }
}

/// Entries for the chunks of a map: in the index of a release for each, in what a difference gives for those that an earlier release lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackIndex {
    /// By the number of the chunk.
    entries: Vec<Option<Entry>>,
    packs: u16,
}

impl PackIndex {
    /// An index of these entries, if it fits the map and the packs of a release.
    ///
    /// # Errors
    /// When an entry cannot be right; see [`PackIndex::decode`].
    pub fn new(entries: Vec<Entry>, map: &ContentMap, packs: &[ObjectRef]) -> Result<Self, FormatError> {
        if entries.len() as u64 != u64::from(map.chunk_count()) {
            return Err(FormatError::ChunkCount { index: entries.len() as u64, map: u64::from(map.chunk_count()) });
        }
        Self::partial((0..).zip(entries), map, packs)
    }

    /// The same with entries for some of the map's chunks only, told by their numbers.
    ///
    /// # Errors
    /// When there is no such chunk, or an entry cannot be right.
    pub fn partial(entries: impl IntoIterator<Item = (u32, Entry)>, map: &ContentMap, packs: &[ObjectRef]) -> Result<Self, FormatError> {
        let count = u16::try_from(packs.len()).ok().filter(|_| packs.len() <= MAX_PACKS);
        let too_many = FormatError::TooMany { what: "release", things: "packs", found: packs.len() as u64, limit: MAX_PACKS as u64 };
        let mut index = Self { entries: vec![None; map.chunk_count() as usize], packs: count.ok_or(too_many)? };
        for (chunk, entry) in entries {
            *index.entries.get_mut(chunk as usize).ok_or(FormatError::NoChunk(chunk))? = Some(entry);
        }
        index.check(map, packs)?;
        Ok(index)
    }

    /// Reads an index for a map and a release's packs. Check it with [`ObjectRef::verify`] first.
    ///
    /// # Errors
    /// When it is not one that the specification allows, or points outside of a pack, or at payloads that overlap.
    pub fn decode(bytes: &[u8], map: &ContentMap, packs: &[ObjectRef]) -> Result<Self, FormatError> {
        let body = container::unwrap(WHAT, MAGIC, bytes, MAX_INDEX_BODY)?;
        let mut reader = Reader::new(WHAT, &body);
        let pack_count = reader.u16()?;
        if usize::from(pack_count) != packs.len() {
            return Err(FormatError::PackCount { index: u64::from(pack_count), release: packs.len() as u64 });
        }
        let count = reader.u32()?;
        if u64::from(count) > MAX_CHUNKS || count != map.chunk_count() {
            return Err(FormatError::ChunkCount { index: u64::from(count), map: u64::from(map.chunk_count()) });
        }
        let chunks: Vec<u32> = (0..count).collect();
        let entries = entries::read(&mut reader, &chunks, packs.len())?;
        reader.end()?;
        Self::partial(entries, map, packs)
    }

    /// The file.
    ///
    /// # Errors
    /// When it would be larger than the format allows.
    pub fn encode(&self, level: i32) -> Result<Vec<u8>, FormatError> {
        let mut body = Vec::with_capacity(24 * self.entries.len());
        body.extend(self.packs.to_le_bytes());
        body.extend(u32::try_from(self.entries.len()).unwrap_or(u32::MAX).to_le_bytes());
        entries::put(&mut body, self.packs, self.entries.iter().flatten());
        container::wrap(WHAT, MAGIC, &body, MAX_INDEX_BODY, level)
    }

    /// The entry of a chunk.
    #[must_use]
    pub fn entry(&self, chunk: u32) -> Option<&Entry> {
        self.entries.get(chunk as usize)?.as_ref()
    }

    /// All entries with the numbers of their chunks, in order.
    pub fn entries(&self) -> impl Iterator<Item = (u32, &Entry)> {
        (0..).zip(&self.entries).filter_map(|(chunk, entry)| Some((chunk, entry.as_ref()?)))
    }

    /// How many packs the release has.
    pub(crate) fn packs(&self) -> u16 {
        self.packs
    }

    fn check(&self, map: &ContentMap, packs: &[ObjectRef]) -> Result<(), FormatError> {
        let mut places = Vec::with_capacity(self.entries.len());
        for (number, entry) in self.entries().filter(|(_, entry)| entry.operation.has_payload()) {
            let chunk = map.chunk(number).ok_or(FormatError::NoChunk(number))?;
            let len = u64::from(entry.len);
            let raw_differs = entry.operation == Operation::Raw && entry.len != chunk.len;
            if entry.len == 0 || entry.len > chunk.len || raw_differs {
                return Err(FormatError::PayloadLength { chunk: number, len });
            }
            let end = entry.offset.checked_add(len);
            let size = packs.get(usize::from(entry.pack)).map(|pack| pack.size);
            if entry.offset < HEADER as u64 || end.zip(size).is_none_or(|(end, size)| end > size) {
                return Err(FormatError::LocationRange { chunk: number });
            }
            places.push((entry.pack, entry.offset, entry.len, number));
        }
        places.sort_unstable();
        for (before, after) in places.iter().zip(places.iter().skip(1)) {
            let same_place = (before.0, before.1, before.2) == (after.0, after.1, after.2);
            if before.0 == after.0 && before.1 + u64::from(before.2) > after.1 && !same_place {
                return Err(FormatError::LocationOverlap { first: before.3, second: after.3 });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::*;

    /// An index for the sample's chunks (8192, 5, 6000 and 100 bytes) with these changes.
    fn with(change: impl FnOnce(&mut Vec<Entry>)) -> Result<PackIndex, FormatError> {
        let sample = testing::sample();
        let mut entries = sample.index.entries().map(|(_, entry)| *entry).collect();
        change(&mut entries);
        PackIndex::new(entries, &sample.map, &sample.packs)
    }

    #[test]
    fn each_kind_of_bad_entry_has_its_own_error() {
        assert!(with(|_| {}).is_ok());
        assert!(matches!(with(|entries| entries.truncate(3)), Err(FormatError::ChunkCount { .. })));
        assert_eq!(with(|entries| entries[0].pack = 9), Err(FormatError::LocationRange { chunk: 0 }));
        assert_eq!(with(|entries| entries[0].offset = 0), Err(FormatError::LocationRange { chunk: 0 }));
        assert_eq!(with(|entries| entries[0].offset = u64::MAX), Err(FormatError::LocationRange { chunk: 0 }));
        assert_eq!(with(|entries| entries[0].offset = 1 << 40), Err(FormatError::LocationRange { chunk: 0 }));
        assert_eq!(with(|entries| entries[0].len = 0), Err(FormatError::PayloadLength { chunk: 0, len: 0 }));
        assert_eq!(with(|entries| entries[0].len = 8193), Err(FormatError::PayloadLength { chunk: 0, len: 8193 }));
        let overlap = with(|entries| (entries[1].pack, entries[1].offset) = (0, entries[0].offset + 1));
        assert_eq!(overlap, Err(FormatError::LocationOverlap { first: 0, second: 1 }));
        let same = with(|entries| entries[1] = Entry { len: entries[1].len, ..entries[0] });
        assert!(matches!(same, Err(FormatError::LocationOverlap { .. })));
    }

    #[test]
    fn codes_that_do_not_belong_here_are_refused_by_name() {
        assert_eq!(Operation::in_index(4), Err(FormatError::OperationReserved("COPY")));
        assert_eq!(Operation::in_index(6), Err(FormatError::OperationReserved("BSDIFF")));
        assert_eq!(Operation::in_index(0), Err(FormatError::OperationUnknown(0)));
        assert_eq!(Operation::in_index(7), Err(FormatError::OperationUnknown(7)));
    }

    #[test]
    fn an_index_of_another_release_is_refused() {
        let sample = testing::sample();
        let bytes = sample.index.encode(1).unwrap();
        let error = PackIndex::decode(&bytes, &sample.map, &[]).unwrap_err();
        assert_eq!(error, FormatError::PackCount { index: 2, release: 0 });
        let other = testing::map_of(&[("other", b"x")], b"uki");
        assert!(matches!(PackIndex::decode(&bytes, &other, &sample.packs), Err(FormatError::ChunkCount { .. })));
    }

    #[test]
    fn indexes_round_trip() {
        let sample = testing::sample();
        let bytes = sample.index.encode(3).unwrap();
        assert_eq!(PackIndex::decode(&bytes, &sample.map, &sample.packs).unwrap(), sample.index);
        for len in 0..bytes.len() {
            assert!(PackIndex::decode(&bytes[..len], &sample.map, &sample.packs).is_err(), "cut at {len}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_value_or_an_error(at: prop::sample::Index, byte: u8) {
            let sample = testing::sample();
            let body = container::unwrap(WHAT, MAGIC, &sample.index.encode(1).unwrap(), MAX_INDEX_BODY).unwrap();
            let mut changed = body.clone();
            let at = at.index(changed.len());
            changed[at] = byte;
            let file = container::wrap(WHAT, MAGIC, &changed, MAX_INDEX_BODY, 1).unwrap();
            if let Ok(index) = PackIndex::decode(&file, &sample.map, &sample.packs) {
                let again = PackIndex::decode(&index.encode(1).unwrap(), &sample.map, &sample.packs);
                prop_assert_eq!(again, Ok(index));
            }
        }
    }
}
