//! The content map: which bytes of the root image, and of the UKI, belong to what, and the digest of every chunk of them.
//!
//! Extents have no offsets: each starts where the one before ends, rounded up to a block in the root image. So they
//! cannot overlap, leave gaps, or go backwards; they either cover exactly the image, or the map is refused.

use std::fmt;
use std::ops::Range;

use crate::container;
use crate::digest::Digest;
use crate::error::FormatError;
use crate::limits::{BLOCK, CHUNK, MAX_CHUNKS, MAX_EXTENTS, MAX_MAP_BODY, MAX_PATH, MAX_ROOT, MAX_UKI};
use crate::reader::{Reader, put_varint};

const WHAT: &str = "content map";
const MAGIC: [u8; 8] = *b"GBMAP\0\0\0";

/// The two files that an update writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The raw root image, for the slot's root partition.
    Root,
    /// The unified kernel image, for the ESP.
    Uki,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root image",
            Self::Uki => "UKI",
        })
    }
}

/// What the bytes of an extent are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExtentKind {
    /// The metadata of the file system; only in the root image.
    Metadata = 0,
    /// The body of a file; only in the root image.
    File = 1,
    /// Headers of the UKI, a section with its padding, or what lies between; only there.
    Section = 2,
}

/// A contiguous run of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// What it is.
    pub kind: ExtentKind,
    /// Path of the file without leading slash, or name of the section; empty for metadata and for headers.
    pub path: String,
    /// Where it starts in its part.
    pub offset: u64,
    /// Its bytes. In the root image zeros follow up to the next block.
    pub len: u64,
    /// Number of its first chunk. Chunks are counted through both parts, the root's first.
    pub first_chunk: u32,
}

impl Extent {
    /// How many chunks it has.
    #[must_use]
    pub fn chunk_count(&self) -> u32 {
        // The map's limit on chunks makes this fit.
        u32::try_from(self.len.div_ceil(CHUNK)).unwrap_or(u32::MAX)
    }

    /// The numbers of its chunks.
    #[must_use]
    pub fn numbers(&self) -> Range<u32> {
        self.first_chunk..self.first_chunk.saturating_add(self.chunk_count())
    }

    /// Its bytes, chunk by chunk.
    pub fn pieces<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = (u32, &'a [u8])> {
        self.numbers().zip(bytes.chunks(usize::try_from(CHUNK).unwrap_or(usize::MAX)))
    }

    /// Whether it is the kernel of a UKI.
    #[must_use]
    pub fn is_kernel(&self) -> bool {
        self.kind == ExtentKind::Section && self.path == ".linux"
    }
}

/// A piece of an extent: what is fetched, verified and written as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it goes.
    pub part: Part,
    /// Where in the part it starts; a multiple of a block in the root image.
    pub offset: u64,
    /// Its bytes, 1 to [`CHUNK`].
    pub len: u32,
    /// SHA-256 of its bytes, without padding.
    pub digest: Digest,
}

/// The extents and chunks of a root image and its UKI.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ContentMap {
    root: Vec<Extent>,
    uki: Vec<Extent>,
    root_size: u64,
    uki_size: u64,
    digests: Vec<Digest>,
}

impl ContentMap {
    /// Reads a map. Check it with [`ObjectRef::verify`](crate::ObjectRef::verify) first.
    ///
    /// # Errors
    /// When it is not one that the specification allows.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        Self::decode_body(&container::unwrap(WHAT, MAGIC, bytes, MAX_MAP_BODY)?)
    }

    /// The file.
    ///
    /// # Errors
    /// When it would be larger than the format allows.
    pub fn encode(&self, level: i32) -> Result<Vec<u8>, FormatError> {
        container::wrap(WHAT, MAGIC, &self.body(), MAX_MAP_BODY, level)
    }

    /// Bytes of the root image.
    #[must_use]
    pub fn root_size(&self) -> u64 {
        self.root_size
    }

    /// Bytes of the UKI.
    #[must_use]
    pub fn uki_size(&self) -> u64 {
        self.uki_size
    }

    /// The extents of a part in order.
    #[must_use]
    pub fn extents(&self, part: Part) -> &[Extent] {
        match part {
            Part::Root => &self.root,
            Part::Uki => &self.uki,
        }
    }

    /// Whether these bytes are the kernel of the UKI.
    ///
    /// # Errors
    /// When they are not.
    pub fn expect_kernel(&self, section: &[u8]) -> Result<(), FormatError> {
        let kernel = self.kernel().filter(|kernel| kernel.len == section.len() as u64).ok_or(FormatError::KernelResult)?;
        let wrong = |(number, bytes): &(u32, &[u8])| self.chunk(*number).is_none_or(|chunk| Digest::of(bytes) != chunk.digest);
        kernel.pieces(section).find(wrong).map_or(Ok(()), |(chunk, _)| Err(FormatError::ChunkDigest { chunk }))
    }

    /// The kernel of the UKI.
    #[must_use]
    pub fn kernel(&self) -> Option<&Extent> {
        self.extents(Part::Uki).iter().find(|extent| extent.is_kernel())
    }

    /// How many chunks there are, in both parts.
    #[must_use]
    pub fn chunk_count(&self) -> u32 {
        u32::try_from(self.digests.len()).unwrap_or(u32::MAX)
    }

    /// A chunk by its number.
    #[must_use]
    pub fn chunk(&self, number: u32) -> Option<Chunk> {
        let digest = *self.digests.get(number as usize)?;
        let in_uki = self.uki.first().is_some_and(|first| first.first_chunk <= number);
        let part = if in_uki { Part::Uki } else { Part::Root };
        let extents = self.extents(part);
        let after = extents.partition_point(|extent| extent.first_chunk <= number);
        let extent = extents.get(after.checked_sub(1)?)?;
        let start = u64::from(number - extent.first_chunk) * CHUNK;
        let len = extent.len.checked_sub(start)?.min(CHUNK);
        Some(Chunk { part, offset: extent.offset + start, len: u32::try_from(len).ok()?, digest })
    }

    /// The number of the chunk that a byte is of; none where there is only padding.
    #[must_use]
    pub fn chunk_at(&self, part: Part, offset: u64) -> Option<u32> {
        let extents = self.extents(part);
        let after = extents.partition_point(|extent| extent.offset <= offset);
        let extent = extents.get(after.checked_sub(1)?)?;
        let within = offset.checked_sub(extent.offset).filter(|within| *within < extent.len)?;
        extent.first_chunk.checked_add(u32::try_from(within / CHUNK).ok()?)
    }

    /// All chunks with their numbers, in order.
    pub fn chunks(&self) -> impl Iterator<Item = (u32, Chunk)> {
        (0..self.chunk_count()).filter_map(|number| Some((number, self.chunk(number)?)))
    }

    /// The bytes that are compressed in the file. Their digest names the map's content, however it was compressed.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(64 * (self.root.len() + self.uki.len()) + 32 * self.digests.len());
        body.extend((BLOCK as u32).to_le_bytes());
        body.extend((CHUNK as u32).to_le_bytes());
        body.extend(self.root_size.to_le_bytes());
        body.extend(self.uki_size.to_le_bytes());
        let all = || self.root.iter().chain(&self.uki);
        for extents in [&self.root, &self.uki] {
            put_varint(&mut body, extents.len() as u64);
        }
        body.extend(all().map(|extent| extent.kind as u8));
        all().for_each(|extent| put_varint(&mut body, extent.len));
        let mut previous = "";
        for extent in all() {
            let shared = shared_prefix(previous, &extent.path);
            let rest = extent.path.as_bytes().get(shared..).unwrap_or_default();
            put_varint(&mut body, shared as u64);
            put_varint(&mut body, rest.len() as u64);
            body.extend(rest);
            previous = &extent.path;
        }
        self.digests.iter().for_each(|digest| body.extend(digest.as_bytes()));
        body
    }

    pub(crate) fn decode_body(body: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(WHAT, body);
        for (what, supported) in [("blocks", BLOCK), ("chunks", CHUNK)] {
            let found = reader.u32()?;
            if u64::from(found) != supported {
                return Err(FormatError::Unit { what, found, supported });
            }
        }
        let sizes = [reader.u64()?, reader.u64()?];
        let counts = [reader.varint()?, reader.varint()?];
        let extents = counts[0].saturating_add(counts[1]);
        at_most("extents", extents, MAX_EXTENTS)?;
        let kinds = reader.bytes(extents)?;
        let mut builder = MapBuilder::new();
        let mut lens = Vec::with_capacity(kinds.len());
        for _ in kinds {
            lens.push(reader.varint()?);
        }
        let mut path = Vec::new();
        for (number, (kind, len)) in (0_u64..).zip(kinds.iter().zip(lens)) {
            let bad_path = FormatError::ExtentPath { extent: number };
            let shared = usize::try_from(reader.varint()?).ok().filter(|&shared| shared <= path.len()).ok_or(bad_path.clone())?;
            let rest = reader.varint()?;
            if rest.saturating_add(shared as u64) > MAX_PATH {
                return Err(bad_path);
            }
            path.truncate(shared);
            path.extend(reader.bytes(rest)?);
            let text = std::str::from_utf8(&path).map_err(|_| bad_path)?;
            let part = if number < counts[0] { Part::Root } else { Part::Uki };
            let kind = match (kind, part) {
                (0, Part::Root) => ExtentKind::Metadata,
                (1, Part::Root) => ExtentKind::File,
                (2, Part::Uki) => ExtentKind::Section,
                (&kind, _) => return Err(FormatError::ExtentKind { extent: number, kind }),
            };
            builder.begin(kind, text, len)?;
        }
        let chunks = builder.expected;
        let mut digests = Vec::with_capacity(usize::try_from(chunks).unwrap_or(0));
        for _ in 0..chunks {
            digests.push(Digest::new(reader.array32()?));
        }
        reader.end()?;
        builder.map.digests = digests;
        builder.finish(sizes[0], sizes[1])
    }
}

fn at_most(things: &'static str, found: u64, limit: u64) -> Result<(), FormatError> {
    if found > limit { Err(FormatError::TooMany { what: WHAT, things, found, limit }) } else { Ok(()) }
}

/// Bytes that two paths have in common at their start. May end within a character: paths are joined as bytes.
fn shared_prefix(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

/// Makes a map, extent by extent: all of the root image, then all of the UKI.
#[derive(Debug, Default)]
pub struct MapBuilder {
    map: ContentMap,
    /// Chunks of all extents begun.
    expected: u64,
}

impl MapBuilder {
    /// No extent yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an extent behind the last one of its part.
    ///
    /// # Errors
    /// When it cannot be, or is one too many.
    pub fn begin(&mut self, kind: ExtentKind, path: &str, len: u64) -> Result<(), FormatError> {
        let number = (self.map.root.len() + self.map.uki.len()) as u64;
        at_most("extents", number + 1, MAX_EXTENTS)?;
        let (extents, align, limit) = match kind {
            ExtentKind::Section => (&mut self.map.uki, 1, MAX_UKI),
            // The root's chunks have the lower numbers, so it has to be complete first.
            ExtentKind::Metadata | ExtentKind::File if !self.map.uki.is_empty() => {
                return Err(FormatError::ExtentKind { extent: number, kind: kind as u8 });
            }
            ExtentKind::Metadata | ExtentKind::File => (&mut self.map.root, BLOCK, MAX_ROOT),
        };
        let named = kind == ExtentKind::File;
        if (named && !is_relative(path)) || (kind == ExtentKind::Metadata && !path.is_empty()) || path.len() as u64 > MAX_PATH {
            return Err(FormatError::ExtentPath { extent: number });
        }
        let offset = extents.last().map_or(0, |last| (last.offset + last.len).next_multiple_of(align));
        if len == 0 || len > limit || offset + len > limit {
            return Err(FormatError::ExtentLength { extent: number, len });
        }
        let first_chunk = self.expected;
        self.expected += len.div_ceil(CHUNK);
        at_most("chunks", self.expected, MAX_CHUNKS)?;
        let first_chunk = u32::try_from(first_chunk).unwrap_or(u32::MAX);
        extents.push(Extent { kind, path: path.to_owned(), offset, len, first_chunk });
        Ok(())
    }

    /// Adds the digest of the next chunk. Chunks are counted through all extents.
    pub fn chunk(&mut self, digest: Digest) {
        self.map.digests.push(digest);
    }

    /// The map, if it covers exactly so many bytes of root image and UKI, and has a digest for each chunk.
    ///
    /// # Errors
    /// When it does not.
    pub fn finish(mut self, root_size: u64, uki_size: u64) -> Result<ContentMap, FormatError> {
        let end = |extents: &[Extent], align| extents.last().map_or(0, |last| (last.offset + last.len).next_multiple_of(align));
        for (part, covered, size) in [(Part::Root, end(&self.map.root, BLOCK), root_size), (Part::Uki, end(&self.map.uki, 1), uki_size)] {
            if covered != size || size == 0 {
                return Err(FormatError::Coverage { part, covered, size });
            }
        }
        if self.map.digests.len() as u64 != self.expected {
            return Err(FormatError::ChunkCount { index: self.map.digests.len() as u64, map: self.expected });
        }
        self.map.root_size = root_size;
        self.map.uki_size = uki_size;
        Ok(self.map)
    }
}

/// No empty component, `.` or `..`, no slash at either end, no NUL.
fn is_relative(path: &str) -> bool {
    !path.contains('\0') && path.split('/').all(|component| !matches!(component, "" | "." | ".."))
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
