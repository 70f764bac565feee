//! From a root image and a UKI to content map, pack and index. A pack holds only chunks that no earlier release of the
//! repository has; the index points into earlier packs for the rest. Chunks are read, hashed and compressed on all cores, so
//! many at a time, so memory does not grow with the image.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use release_format::limits::{CHUNK, HEADER};
use release_format::{
    ContentMap, Digest, EncodedChunk, Entry, ExtentKind, Hasher, MapBuilder, ObjectKind, ObjectRef, Operation, PackIndex, Part,
    PayloadDigest, Release, encode_chunk, pack_header,
};

use crate::error::PublishError;
use crate::files;
use crate::parts::OpenParts;
use crate::repository::{OBJECTS, Repository};

/// Chunks that are in memory at once: 16 MiB of image and as much of payload at most.
const BATCH: usize = 64;
/// Packs that a release refers to. With one more, all of it goes into one pack (a rebase), so that older packs can be pruned and hosts need
/// few requests. The format's limit is 256.
const MAX_PACKS: usize = 16;
/// A release whose packs hold more than so many times the bytes that it needs of them is rebased as well,
const MAX_WASTE: u64 = 2;
/// unless they hold less than this.
const SMALL: u64 = 32 << 20;
/// zstd level of maps and indexes.
pub const SMALL_LEVEL: i32 = 19;

/// What earlier releases have.
#[derive(Default)]
pub struct Known {
    chunks: HashMap<Digest, (ObjectRef, Entry)>,
}

impl Known {
    /// Learns a release. To be called from the newest to the oldest.
    pub fn learn(&mut self, repository: &Repository, release: &Release) -> Result<ContentMap, PublishError> {
        let (map, index) = read_map(repository, release)?;
        for ((_, chunk), (_, entry)) in map.chunks().zip(index.entries()) {
            let Some(pack) = release.packs.get(usize::from(entry.pack)).filter(|_| entry.operation.has_payload()) else { continue };
            self.chunks.entry(chunk.digest).or_insert((*pack, *entry));
        }
        Ok(map)
    }
}

/// Reads the content map of a release.
pub fn read_content_map(repository: &Repository, release: &Release) -> Result<ContentMap, PublishError> {
    let path = release.map.path(ObjectKind::Map);
    let map = ContentMap::decode(&repository.read_object(&release.map, ObjectKind::Map)?).map_err(PublishError::format(&path))?;
    release.expect_map(&map).map_err(PublishError::format(&path))?;
    Ok(map)
}

/// Reads map and index of a release.
pub fn read_map(repository: &Repository, release: &Release) -> Result<(ContentMap, PackIndex), PublishError> {
    let map = read_content_map(repository, release)?;
    let path = release.index.path(ObjectKind::Index);
    let bytes = repository.read_object(&release.index, ObjectKind::Index)?;
    let index = PackIndex::decode(&bytes, &map, &release.packs).map_err(PublishError::format(&path))?;
    Ok((map, index))
}

/// Payloads in packs of earlier releases, whose files stay open.
pub struct EarlierPacks<'a> {
    repository: &'a Repository,
    files: Mutex<HashMap<ObjectRef, Arc<File>>>,
}

impl<'a> EarlierPacks<'a> {
    /// Of this repository; nothing is open yet.
    pub fn new(repository: &'a Repository) -> Self {
        Self { repository, files: Mutex::default() }
    }

    /// The payload of an entry as it lies in the pack. Whoever uses it compares it with its digest.
    pub fn payload(&self, pack: &ObjectRef, entry: &Entry) -> Result<Vec<u8>, PublishError> {
        let path = self.repository.object(pack, ObjectKind::Pack);
        let fail = || PublishError::file("read", &path);
        let file = {
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            match files.get(pack) {
                Some(file) => Arc::clone(file),
                None => {
                    let file = Arc::new(File::open(&path).map_err(fail())?);
                    files.insert(*pack, Arc::clone(&file));
                    file
                }
            }
        };
        let mut payload = vec![0; entry.len as usize];
        file.read_exact_at(&mut payload, entry.offset).map_err(fail())?;
        Ok(payload)
    }
}

/// What was packed, written into the repository.
pub struct Packed {
    /// The map.
    pub map: Arc<ContentMap>,
    /// Digest of the map's body.
    pub map_body: Digest,
    /// The index.
    pub index: PackIndex,
    /// The map's file.
    pub map_object: ObjectRef,
    /// The index's file.
    pub index_object: ObjectRef,
    /// All packs.
    pub packs: Vec<ObjectRef>,
    /// The new one; none when there was no new chunk.
    pub new_pack: Option<ObjectRef>,
    /// Whether chunks that earlier releases have were put into the new pack too.
    pub rebased: bool,
}

/// Where a chunk's bytes are.
pub struct Piece {
    part: Part,
    offset: u64,
    len: usize,
}

/// A chunk, read.
struct Read {
    digest: Digest,
    /// Absent when it is known.
    encoded: Option<EncodedChunk>,
}

/// Packs a release and writes pack, map and index.
///
/// # Errors
/// When the parts cannot be read or do not fit the format, or files cannot be written.
pub fn pack(parts: &OpenParts, known: &Known, repository: &Repository, level: i32) -> Result<Packed, PublishError> {
    let (mut builder, pieces) = lay_out(parts).map_err(PublishError::format(&format!("version {}", parts.version)))?;
    let objects = repository.directory().join(OBJECTS);
    files::make_directory(&objects)?;
    let mut writer = PackWriter::new(&objects)?;
    // Entries of new chunks get the number of the new pack when all packs are known.
    let mut places: Vec<(Option<ObjectRef>, Entry)> = Vec::with_capacity(pieces.len());
    let mut seen: HashMap<Digest, Entry> = HashMap::new();
    for batch in pieces.chunks(BATCH) {
        let read = |compressor: &mut Result<zstd::bulk::Compressor<'static>, std::io::Error>, piece: &Piece| {
            let bytes = read_piece(parts, piece)?;
            let digest = Digest::of(&bytes);
            if known.chunks.contains_key(&digest) || seen.contains_key(&digest) {
                return Ok(Read { digest, encoded: None });
            }
            let compressor = compressor.as_mut().map_err(|error| crate::metadata::encode("a chunk", error))?;
            let encoded = encode_chunk(compressor, &bytes).map_err(PublishError::format("a chunk"))?;
            Ok(Read { digest, encoded: Some(encoded) })
        };
        let compressor = || zstd::bulk::Compressor::new(level);
        let chunks: Vec<Read> = batch.par_iter().map_init(compressor, read).collect::<Result<_, PublishError>>()?;
        for chunk in chunks {
            builder.chunk(chunk.digest);
            let earlier = known.chunks.get(&chunk.digest).map(|(pack, entry)| (Some(*pack), *entry));
            let twin = seen.get(&chunk.digest).map(|entry| (None, *entry));
            let place = match (earlier.or(twin), chunk.encoded) {
                (Some(place), _) => place,
                (None, Some(encoded)) => {
                    let entry = writer.append(&encoded)?;
                    seen.insert(chunk.digest, entry);
                    (None, entry)
                }
                // A chunk is not encoded only where it is known.
                (None, None) => (None, Entry::zero()),
            };
            places.push(place);
        }
    }
    let failed = || PublishError::format(&format!("version {}", parts.version));
    let map = builder.finish(parts.parts.root.size, parts.uki.len() as u64).map_err(failed())?;
    let rebased = is_scattered(&places);
    if rebased {
        rebase(&mut places, &mut writer, repository)?;
    }
    let new_pack = writer.finish(repository)?;

    let mut packs: Vec<ObjectRef> = new_pack.into_iter().collect();
    let mut entries = Vec::with_capacity(places.len());
    for (pack, entry) in places {
        let number = match pack.or(new_pack).filter(|_| entry.operation.has_payload()) {
            None => 0,
            Some(pack) => packs.iter().position(|other| *other == pack).unwrap_or_else(|| {
                packs.push(pack);
                packs.len() - 1
            }),
        };
        entries.push(Entry { pack: u16::try_from(number).unwrap_or(u16::MAX), ..entry });
    }
    let index = PackIndex::new(entries, &map, &packs).map_err(failed())?;
    let map_object = repository.write_object(&map.encode(SMALL_LEVEL).map_err(failed())?, ObjectKind::Map)?;
    let index_object = repository.write_object(&index.encode(SMALL_LEVEL).map_err(failed())?, ObjectKind::Index)?;
    let map_body = Digest::of(&map.body());
    Ok(Packed { map: Arc::new(map), map_body, index, map_object, index_object, packs, new_pack, rebased })
}

impl Packed {
    /// Bytes of content map and index together.
    #[must_use]
    pub fn map_and_index(&self) -> u64 {
        self.map_object.size + self.index_object.size
    }
}

/// Whether a release would keep too many packs alive, or too much in them that nobody needs.
fn is_scattered(places: &[(Option<ObjectRef>, Entry)]) -> bool {
    let stored = || places.iter().filter(|(_, entry)| entry.operation.has_payload());
    let packs: HashSet<ObjectRef> = stored().filter_map(|(pack, _)| *pack).collect();
    let payloads: HashSet<(Option<ObjectRef>, u64, u32)> = stored().map(|(pack, entry)| (*pack, entry.offset, entry.len)).collect();
    let needed: u64 = payloads.iter().map(|(_, _, len)| u64::from(*len)).sum();
    let held: u64 = packs.iter().map(|pack| pack.size).sum();
    packs.len() >= MAX_PACKS || held > needed.saturating_mul(MAX_WASTE).max(SMALL)
}

/// Copies the payloads of earlier packs into the new one, as they are.
fn rebase(places: &mut [(Option<ObjectRef>, Entry)], writer: &mut PackWriter, repository: &Repository) -> Result<(), PublishError> {
    let earlier = EarlierPacks::new(repository);
    let mut moved: HashMap<(ObjectRef, u64), Entry> = HashMap::new();
    for (of, entry) in places {
        let Some(pack) = of.filter(|_| entry.operation.has_payload()) else { continue };
        if let Some(there) = moved.get(&(pack, entry.offset)) {
            (*of, *entry) = (None, *there);
            continue;
        }
        let payload = earlier.payload(&pack, entry)?;
        if PayloadDigest::of(&payload) != entry.digest {
            let reason = "it does not hold what its index says: restore the repository from a copy".to_owned();
            return Err(PublishError::Text { path: repository.object(&pack, ObjectKind::Pack), reason });
        }
        let before = (pack, entry.offset);
        *entry = writer.append(&EncodedChunk { operation: entry.operation, payload, digest: entry.digest })?;
        *of = None;
        moved.insert(before, *entry);
    }
    Ok(())
}

/// The extents of both parts and where each chunk's bytes are.
pub fn lay_out(parts: &OpenParts) -> Result<(MapBuilder, Vec<Piece>), release_format::FormatError> {
    let mut builder = MapBuilder::new();
    let mut pieces = Vec::new();
    let root = parts.parts.extents.iter().map(|(path, len)| {
        let kind = if path.is_empty() { ExtentKind::Metadata } else { ExtentKind::File };
        (Part::Root, kind, path, *len)
    });
    let uki = parts.parts.sections.iter().map(|(name, len)| (Part::Uki, ExtentKind::Section, name, *len));
    let (mut root_end, mut uki_end) = (0_u64, 0_u64);
    for (part, kind, path, len) in root.chain(uki) {
        builder.begin(kind, path, len)?;
        // The builder has checked that these sums are small.
        let (start, end) = match part {
            Part::Root => (root_end.next_multiple_of(release_format::limits::BLOCK), &mut root_end),
            Part::Uki => (uki_end, &mut uki_end),
        };
        *end = start + len;
        let mut offset = start;
        while offset < start + len {
            let size = (start + len - offset).min(CHUNK);
            pieces.push(Piece { part, offset, len: usize::try_from(size).unwrap_or(0) });
            offset += size;
        }
    }
    Ok((builder, pieces))
}

/// The bytes of a chunk of the release that is being published.
pub fn read_chunk(parts: &OpenParts, map: &ContentMap, number: u32) -> Result<Vec<u8>, PublishError> {
    let missing = || PublishError::format("the content map")(release_format::FormatError::NoChunk(number));
    let chunk = map.chunk(number).ok_or_else(missing)?;
    read_piece(parts, &Piece { part: chunk.part, offset: chunk.offset, len: chunk.len as usize })
}

/// A run of bytes of a part.
pub fn read_part(parts: &OpenParts, part: Part, offset: u64, len: u64) -> Result<Vec<u8>, PublishError> {
    read_piece(parts, &Piece { part, offset, len: usize::try_from(len).unwrap_or(0) })
}

/// The bytes of a piece.
pub fn read_piece(parts: &OpenParts, piece: &Piece) -> Result<Vec<u8>, PublishError> {
    let mut bytes = vec![0; piece.len];
    match piece.part {
        Part::Root => {
            let at = parts.parts.root.offset.saturating_add(piece.offset);
            parts.root.read_exact_at(&mut bytes, at).map_err(PublishError::file("read the root image in", &parts.root_path))?;
        }
        Part::Uki => {
            let start = usize::try_from(piece.offset).unwrap_or(usize::MAX);
            let from = start.checked_add(piece.len).and_then(|end| parts.uki.get(start..end));
            let too_short = || PublishError::Text {
                path: parts.root_path.clone(),
                reason: "its UKI is shorter than parts.json says: build the version again".to_owned(),
            };
            bytes.copy_from_slice(from.ok_or_else(too_short)?);
        }
    }
    Ok(bytes)
}

/// A pack that grows, without a name until it is whole.
struct PackWriter {
    file: tempfile::NamedTempFile,
    hasher: Hasher,
    len: u64,
}

impl PackWriter {
    fn new(objects: &Path) -> Result<Self, PublishError> {
        let mut writer = Self { file: files::temporary(objects, 0o644)?, hasher: Hasher::new(), len: 0 };
        writer.write(&pack_header())?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), PublishError> {
        let fail = PublishError::file("write", self.file.path());
        let file: &mut File = self.file.as_file_mut();
        file.write_all(bytes).map_err(fail)?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn append(&mut self, chunk: &EncodedChunk) -> Result<Entry, PublishError> {
        if chunk.operation == Operation::Zero {
            return Ok(Entry::zero());
        }
        let offset = self.len;
        self.write(&chunk.payload)?;
        let len = u32::try_from(chunk.payload.len()).unwrap_or(u32::MAX);
        Ok(Entry { operation: chunk.operation, pack: 0, offset, len, digest: chunk.digest })
    }

    /// Gives it its name, if there is anything in it.
    fn finish(self, repository: &Repository) -> Result<Option<ObjectRef>, PublishError> {
        if self.len <= HEADER as u64 {
            return Ok(None);
        }
        let object = ObjectRef { sha256: self.hasher.finish(), size: self.len };
        files::keep(self.file, &repository.object(&object, ObjectKind::Pack))?;
        Ok(Some(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Places of chunks: the pack of each, where it lies there and how long it is. Packs have so many bytes.
    fn places(packs: &[u64], chunks: &[(usize, u64, u32)]) -> Vec<(Option<ObjectRef>, Entry)> {
        let packs: Vec<ObjectRef> =
            (0_u64..).zip(packs).map(|(number, size)| ObjectRef { sha256: Digest::of(&number.to_le_bytes()), size: *size }).collect();
        let entry = |offset, len| Entry { operation: Operation::Raw, pack: 0, offset, len, digest: PayloadDigest::of(b"") };
        chunks.iter().map(|&(pack, offset, len)| (packs.get(pack).copied(), entry(offset, len))).collect()
    }

    #[test]
    fn a_release_is_rebased_when_its_packs_hold_more_than_twice_what_it_needs_and_are_not_small() {
        let half = u32::try_from(SMALL / 2).unwrap();
        let needs = |pack: u64, len| is_scattered(&places(&[pack], &[(0, 16, len)]));
        // Little is not worth it, however much of it is waste.
        assert!(!needs(SMALL, 1));
        assert!(needs(SMALL + 1, 1) && needs(SMALL + 1, half - 1));
        assert!(!needs(SMALL, half));
        // Twice of it is no waste yet.
        assert!(!needs(4 * SMALL, 4 * half) && needs(4 * SMALL + 1, 4 * half));
        // What several chunks share is needed once, what lies in the new pack is no waste, and zeros are nowhere.
        let twins = [(0, 16, half), (0, 16, half), (0, 16, half)];
        assert!(is_scattered(&places(&[SMALL + 1], &twins[..1])) && is_scattered(&places(&[SMALL + 1], &twins)));
        let with_new = [twins[0], (9, 16, 1)];
        assert!(!is_scattered(&places(&[SMALL + 2], &with_new)) && is_scattered(&places(&[SMALL + 3], &with_new)));
        let mut zeros = places(&[SMALL + 1], &twins[..1]);
        zeros[0].1 = Entry::zero();
        assert!(!is_scattered(&zeros));
    }

    #[test]
    fn a_release_is_rebased_when_the_new_pack_would_be_the_seventeenth() {
        let of = |count: usize| is_scattered(&places(&vec![1000; count], &(0..count).map(|pack| (pack, 16, 900)).collect::<Vec<_>>()));
        assert!(!of(MAX_PACKS - 1) && of(MAX_PACKS));
    }
}
