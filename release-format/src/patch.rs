//! The table of a patch: how chunks that a release has and an earlier one has not are made of the earlier one's bytes. `docs/release-format.md`
//! has the bytes.
//!
//! An operation makes a run of chunks, which may be of several files, of a window of old bytes, which may be of several places. Windows are
//! bounded, and no chunk is made twice, so no table can make a decoder hold much, or go on for ever. Payloads lie in patch packs, which tables
//! share: what an operation needs is its old bytes, and other earlier releases may have those too, elsewhere.

use std::ops::Range;

use crate::container;
use crate::digest::PayloadDigest;
use crate::error::FormatError;
use crate::limits::{MAX_OPERATIONS, MAX_OUTPUT, MAX_PATCH_BODY, MAX_RUNS, MAX_SOURCE};
use crate::map::{ContentMap, Part};
use crate::map_patch::MapPatch;
use crate::object::ObjectRef;
use crate::operation::Operation;
use crate::reader::{Reader, put_signed, put_varint};

const WHAT: &str = "patch";
const MAGIC: [u8; 8] = *b"GBTABLE\0";

/// A run of bytes of the earlier release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRun {
    /// Of its root image or its UKI.
    pub part: Part,
    /// First byte.
    pub offset: u64,
    /// Bytes, at least 1.
    pub len: u64,
}

/// A run of chunks of the release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRun {
    /// Number of the first.
    pub first: u32,
    /// How many, at least 1.
    pub count: u32,
}

impl ChunkRun {
    /// Puts it behind other runs, as a part of the last one where it follows that directly.
    pub fn join(self, runs: &mut Vec<Self>) {
        match runs.last_mut().filter(|last| last.first + last.count == self.first) {
            Some(last) => last.count += self.count,
            None => runs.push(self),
        }
    }

    /// The numbers of its chunks.
    #[must_use]
    pub fn numbers(&self) -> Range<u32> {
        self.first..self.first.saturating_add(self.count)
    }
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchOperation {
    /// What to do.
    pub operation: Operation,
    /// The chunks that it makes, in order.
    pub chunks: Vec<ChunkRun>,
    /// The old bytes, one run after the other; none for operations without.
    pub sources: Vec<SourceRun>,
    /// First half of SHA-256 of all old bytes.
    pub source_digest: PayloadDigest,
    /// Number of the patch pack with the payload in the release's list; 0 without payload.
    pub pack: u16,
    /// Where in the pack the payload starts; 0 without payload.
    pub offset: u64,
    /// Bytes of the payload.
    pub len: u32,
    /// Of the payload.
    pub digest: PayloadDigest,
}

impl PatchOperation {
    /// Numbers of its chunks.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.chunks.iter().flat_map(ChunkRun::numbers)
    }

    /// Bytes of its window of old bytes.
    #[must_use]
    pub fn source_len(&self) -> u64 {
        self.sources.iter().fold(0, |sum: u64, run| sum.saturating_add(run.len))
    }

    /// Bytes that it makes.
    #[must_use]
    pub fn output_len(&self, map: &ContentMap) -> u64 {
        self.numbers().filter_map(|number| map.chunk(number)).map(|chunk| u64::from(chunk.len)).sum()
    }
}

/// How a release is made of an earlier one, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchTable {
    /// How the release's content map is made of the earlier one's.
    pub map: MapPatch,
    /// The operations, best by the places of their payloads.
    pub operations: Vec<PatchOperation>,
}

impl PatchTable {
    /// Reads a table of a release with these patch packs. Check it with [`ObjectRef::verify`] first.
    ///
    /// # Errors
    /// When it is not one that the specification allows.
    pub fn decode(bytes: &[u8], packs: &[ObjectRef]) -> Result<Self, FormatError> {
        let body = container::unwrap(WHAT, MAGIC, bytes, MAX_PATCH_BODY)?;
        let mut reader = Reader::new(WHAT, &body);
        let map = MapPatch::read(&mut reader)?;
        let count = reader.varint()?;
        let too_many = |things, found, limit| FormatError::TooMany { what: WHAT, things, found, limit };
        if count > MAX_OPERATIONS {
            return Err(too_many("operations", count, MAX_OPERATIONS));
        }
        let codes = reader.bytes(count)?.to_vec();
        let mut operations = Vec::with_capacity(codes.len());
        let (mut runs, mut next_chunk, mut ends, mut places) = (0_u64, 0_u64, [0_u64; 2], vec![0_u64; packs.len()]);
        for (number, code) in (0_u32..).zip(codes) {
            let operation = Operation::in_patch(code)?;
            let mut chunks = Vec::new();
            for _ in 0..bounded(reader.varint()?, &mut runs)? {
                let first = next_chunk.checked_add_signed(reader.signed()?);
                let count = reader.varint()?;
                if count == 0 {
                    return Err(FormatError::ChunksNone { operation: number });
                }
                let run = first.and_then(|first| u32::try_from(first).ok()).zip(u32::try_from(count).ok());
                let run = run.filter(|(first, count)| first.checked_add(*count).is_some());
                let (first, count) = run.ok_or(FormatError::ChunksRange { operation: number })?;
                next_chunk = u64::from(first) + u64::from(count);
                chunks.push(ChunkRun { first, count });
            }
            if chunks.is_empty() {
                return Err(FormatError::ChunksNone { operation: number });
            }
            let mut sources = Vec::new();
            for _ in 0..bounded(reader.varint()?, &mut runs)? {
                let coded = reader.varint()?;
                let (part, end) = if coded & 1 == 0 { (Part::Root, &mut ends[0]) } else { (Part::Uki, &mut ends[1]) };
                let len = coded >> 1;
                let offset = end.checked_add_signed(reader.signed()?).filter(|_| len > 0);
                let offset = offset.ok_or(FormatError::SourceRange { operation: number })?;
                *end = offset.checked_add(len).ok_or(FormatError::SourceRange { operation: number })?;
                sources.push(SourceRun { part, offset, len });
            }
            let none = PayloadDigest::new([0; 16]);
            let source_digest = if sources.is_empty() { none } else { PayloadDigest::new(reader.array16()?) };
            let (mut pack, mut offset, mut len, mut digest) = (0, 0, 0, none);
            if operation.has_payload() {
                let numbered = reader.varint()?;
                let moved = reader.signed()?;
                let long = reader.varint()?;
                let bad_payload = || FormatError::PatchPayload { operation: number, len: long };
                pack = u16::try_from(numbered).map_err(|_| bad_payload())?;
                let (place, object) = places.get_mut(usize::from(pack)).zip(packs.get(usize::from(pack))).ok_or_else(bad_payload)?;
                offset = place.checked_add_signed(moved).ok_or_else(bad_payload)?;
                *place = offset.checked_add(long).filter(|end| *end <= object.size).ok_or_else(bad_payload)?;
                len = u32::try_from(long).map_err(|_| bad_payload())?;
                digest = PayloadDigest::new(reader.array16()?);
            }
            operations.push(PatchOperation { operation, chunks, sources, source_digest, pack, offset, len, digest });
        }
        reader.end()?;
        Ok(Self { map, operations })
    }

    /// The file.
    ///
    /// # Errors
    /// When it would be larger than the format allows.
    pub fn encode(&self, level: i32) -> Result<Vec<u8>, FormatError> {
        let mut body = Vec::new();
        self.map.put(&mut body);
        put_varint(&mut body, self.operations.len() as u64);
        body.extend(self.operations.iter().map(|operation| operation.operation.code()));
        let packs = self.operations.iter().map(|operation| usize::from(operation.pack) + 1).max().unwrap_or(0);
        let (mut next_chunk, mut ends, mut places) = (0_u64, [0_u64; 2], vec![0_u64; packs]);
        let moved = |to: u64, from: u64| to.cast_signed().wrapping_sub(from.cast_signed());
        for operation in &self.operations {
            put_varint(&mut body, operation.chunks.len() as u64);
            for run in &operation.chunks {
                put_signed(&mut body, moved(u64::from(run.first), next_chunk));
                put_varint(&mut body, u64::from(run.count));
                next_chunk = u64::from(run.first) + u64::from(run.count);
            }
            put_varint(&mut body, operation.sources.len() as u64);
            for run in &operation.sources {
                let (bit, end) = if run.part == Part::Root { (0, &mut ends[0]) } else { (1, &mut ends[1]) };
                put_varint(&mut body, run.len << 1 | bit);
                put_signed(&mut body, moved(run.offset, *end));
                *end = run.offset + run.len;
            }
            if !operation.sources.is_empty() {
                body.extend(operation.source_digest.as_bytes());
            }
            if let Some(place) = places.get_mut(usize::from(operation.pack)).filter(|_| operation.operation.has_payload()) {
                put_varint(&mut body, u64::from(operation.pack));
                put_signed(&mut body, moved(operation.offset, *place));
                *place = operation.offset.saturating_add(u64::from(operation.len));
                put_varint(&mut body, u64::from(operation.len));
                body.extend(operation.digest.as_bytes());
            }
        }
        container::wrap(WHAT, MAGIC, &body, MAX_PATCH_BODY, level)
    }

    /// Whether all operations are possible between these two maps. To be called before the first is applied.
    ///
    /// # Errors
    /// When one makes chunks that there are not or that another one makes, takes bytes that there are not, or has a window over the limit.
    pub fn check(&self, earlier: &ContentMap, map: &ContentMap) -> Result<(), FormatError> {
        let mut made = vec![false; map.chunk_count() as usize];
        for (number, operation) in (0_u32..).zip(&self.operations) {
            for chunk in operation.numbers() {
                let made = made.get_mut(chunk as usize).ok_or(FormatError::ChunksRange { operation: number })?;
                if std::mem::replace(made, true) {
                    return Err(FormatError::ChunksOverlap { operation: number, chunk });
                }
            }
            for run in &operation.sources {
                let size = if run.part == Part::Root { earlier.root_size() } else { earlier.uki_size() };
                if run.offset.checked_add(run.len).is_none_or(|end| end > size) {
                    return Err(FormatError::SourceRange { operation: number });
                }
            }
            let (source, output) = (operation.source_len(), operation.output_len(map));
            if source > MAX_SOURCE {
                return Err(FormatError::SourceWindow { operation: number, len: source });
            }
            if output > MAX_OUTPUT {
                return Err(FormatError::OutputWindow { operation: number, len: output });
            }
            let fits = match operation.operation {
                Operation::Copy => source == output,
                Operation::Raw => u64::from(operation.len) == output && source == 0,
                Operation::Zero => source == 0,
                Operation::Data => source == 0 && operation.len > 0 && u64::from(operation.len) <= output,
                Operation::Zpatch | Operation::Bsdiff => source > 0 && operation.len > 0 && u64::from(operation.len) <= output,
            };
            if !fits {
                return Err(FormatError::PatchPayload { operation: number, len: u64::from(operation.len) });
            }
        }
        Ok(())
    }
}

fn bounded(count: u64, runs: &mut u64) -> Result<u64, FormatError> {
    *runs = runs.saturating_add(count);
    if *runs > MAX_RUNS {
        return Err(FormatError::TooMany { what: WHAT, things: "runs", found: *runs, limit: MAX_RUNS });
    }
    Ok(count)
}

#[cfg(test)]
#[path = "patch_tests.rs"]
mod tests;
