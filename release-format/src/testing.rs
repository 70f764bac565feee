//! Small releases for tests.

use crate::limits::{BLOCK, CHUNK};
use crate::{ContentMap, Digest, Entry, ExtentKind, MapBuilder, MapPatch, ObjectRef, Operation, PackIndex, encode_chunk, pack_header};

pub struct Sample {
    pub root: Vec<u8>,
    pub uki: Vec<u8>,
    pub map: ContentMap,
    pub index: PackIndex,
    pub packs: Vec<ObjectRef>,
    pub pack_bytes: Vec<Vec<u8>>,
}

pub fn map_of(files: &[(&str, &[u8])], uki: &[u8]) -> ContentMap {
    release_of(files, uki).map
}

/// A release of 8 KiB of metadata, these files and a UKI of one section; odd chunks in a second pack.
pub fn release_of(files: &[(&str, &[u8])], uki: &[u8]) -> Sample {
    let metadata = [7; 8192];
    let mut builder = MapBuilder::new();
    let mut root = Vec::new();
    let mut bodies: Vec<&[u8]> = Vec::new();
    let all = std::iter::once((ExtentKind::Metadata, "", &metadata[..]))
        .chain(files.iter().map(|(path, body)| (ExtentKind::File, *path, *body)))
        .chain(std::iter::once((ExtentKind::Section, ".linux", uki)));
    for (kind, path, body) in all {
        builder.begin(kind, path, body.len() as u64).unwrap();
        if kind != ExtentKind::Section {
            root.extend(body);
            root.resize(root.len().next_multiple_of(BLOCK as usize), 0);
        }
        bodies.extend(body.chunks(CHUNK as usize));
    }
    bodies.iter().for_each(|body| builder.chunk(Digest::of(body)));
    let map = builder.finish(root.len() as u64, uki.len() as u64).unwrap();

    let mut pack_bytes = vec![pack_header().to_vec(), pack_header().to_vec()];
    let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
    let mut entries: Vec<Entry> = Vec::new();
    for (number, body) in bodies.iter().enumerate() {
        let twin = bodies[..number].iter().position(|other| other == body);
        let chunk = encode_chunk(&mut compressor, body).unwrap();
        let entry = match (twin, chunk.operation) {
            (Some(twin), _) => entries[twin],
            (None, Operation::Zero) => Entry::zero(),
            (None, operation) => {
                let pack = number % 2;
                let offset = pack_bytes[pack].len() as u64;
                pack_bytes[pack].extend(&chunk.payload);
                Entry { operation, pack: pack as u16, offset, len: chunk.payload.len() as u32, digest: chunk.digest }
            }
        };
        entries.push(entry);
    }
    let packs: Vec<ObjectRef> = pack_bytes.iter().map(|bytes| ObjectRef::of(bytes)).collect();
    let index = PackIndex::new(entries, &map, &packs).unwrap();
    Sample { root, uki: uki.to_vec(), map, index, packs, pack_bytes }
}

/// Chunks 0 to 4: metadata, 5 bytes, 6000 bytes, 4096 zeros, the UKI's 100 bytes.
pub fn sample() -> Sample {
    let body: Vec<u8> = (0..6000_u32).map(|number| ((number * number) >> 7) as u8).collect();
    release_of(&[("bin/a", b"hello"), ("bin/b", &body), ("zeros", &[0; 4096])], &[9; 100])
}

/// One zstd frame of `bytes` with `prefix` before them.
pub fn prefixed(bytes: &[u8], prefix: &[u8]) -> Vec<u8> {
    let mut context = zstd::zstd_safe::CCtx::create();
    context.ref_prefix(prefix).unwrap();
    let mut frame = Vec::with_capacity(zstd::zstd_safe::compress_bound(bytes.len()));
    context.compress2(&mut frame, bytes).unwrap();
    frame
}

pub fn map_patch(old: &ContentMap, new: &ContentMap) -> MapPatch {
    let (old, new) = (old.body(), new.body());
    MapPatch { source: Digest::of(&old), len: new.len() as u32, frame: prefixed(&new, &old) }
}
