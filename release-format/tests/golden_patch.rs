//! A patch of format 2 with every operation, a difference of format 1, and a kernel patch with every operation, as they were written
//! when their formats were made. They must be read for ever. `GARBOARD_BLESS=1 cargo test --workspace --test golden_patch` writes them, for a new version of the format only.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::PathBuf;

use release_format::{
    ChunkDecoder, ChunkRun, ContentMap, Difference, Digest, Entry, ExtentKind, FormatError, Kernel, KernelPatch, LocalChunks, MapBuilder,
    MapPatch, ObjectRef, Operation, PackIndex, Part, PatchDecoder, PatchOperation, PatchTable, PayloadDigest, Piece, Recipe, SourceRun,
    Step, Write, decode_difference, encode_difference,
};
use zstd::zstd_safe::{CCtx, compress_bound};

/// Each chunk as it is, one after the other, in a pack of its part.
fn index(bodies: &Bodies) -> (PackIndex, Vec<ObjectRef>) {
    let mut ends = [16_u64; 2];
    let entries = bodies.iter().map(|(kind, _, body)| {
        let pack = usize::from(*kind == ExtentKind::Section);
        let offset = ends[pack];
        ends[pack] += body.len() as u64;
        let digest = PayloadDigest::of(body);
        Entry { operation: Operation::Raw, pack: pack as u16, offset, len: body.len() as u32, digest }
    });
    let entries = entries.collect();
    let packs = ends.map(|size| ObjectRef { sha256: Digest::of(b"pack"), size }).to_vec();
    (PackIndex::new(entries, &map(bodies), &packs).unwrap(), packs)
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Bytes that do not compress.
fn noise(seed: u32, len: u32) -> Vec<u8> {
    (0..len).map(|number| ((number ^ seed).wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

type Bodies = Vec<(ExtentKind, &'static str, Vec<u8>)>;

fn old() -> Bodies {
    vec![
        (ExtentKind::Metadata, "", b"metadata".repeat(512)),
        (ExtentKind::File, "usr/bin/kept", noise(1, 5000)),
        (ExtentKind::File, "usr/bin/moved", noise(2, 9000)),
        (ExtentKind::Section, ".linux", noise(3, 6000)),
    ]
}

/// Each file is made by another operation.
fn new() -> Bodies {
    let moved = noise(2, 9000);
    let shifted: Vec<u8> = moved.iter().enumerate().map(|(at, byte)| if at % 50 == 0 { byte.wrapping_add(1) } else { *byte }).collect();
    vec![
        (ExtentKind::Metadata, "", b"metadata".repeat(512)),
        (ExtentKind::File, "usr/bin/a-copy", moved[100..5100].to_vec()),
        (ExtentKind::File, "usr/bin/b-bsdiff", shifted),
        (ExtentKind::File, "usr/bin/c-data", b"data".repeat(900)),
        (ExtentKind::File, "usr/bin/d-raw", b"raw".to_vec()),
        (ExtentKind::File, "usr/bin/e-zero", vec![0; 4500]),
        (ExtentKind::File, "usr/bin/kept", noise(1, 5000)),
        (ExtentKind::Section, ".linux", [noise(3, 3000), b"new".to_vec(), noise(3, 6000)[3000..].to_vec()].concat()),
    ]
}

fn map(bodies: &Bodies) -> ContentMap {
    let mut builder = MapBuilder::new();
    for (kind, path, body) in bodies {
        builder.begin(*kind, path, body.len() as u64).unwrap();
        builder.chunk(Digest::of(body));
    }
    let [root, uki] = files(bodies);
    builder.finish(root.len() as u64, uki.len() as u64).unwrap()
}

fn files(bodies: &Bodies) -> [Vec<u8>; 2] {
    let mut files = [Vec::new(), Vec::new()];
    for (kind, _, body) in bodies {
        let uki = *kind == ExtentKind::Section;
        let to = &mut files[usize::from(uki)];
        to.extend(body);
        if !uki {
            to.resize(to.len().next_multiple_of(4096), 0);
        }
    }
    files
}

fn prefixed(bytes: &[u8], prefix: &[u8]) -> Vec<u8> {
    let mut context = CCtx::create();
    context.ref_prefix(prefix).unwrap();
    let mut frame = Vec::with_capacity(compress_bound(bytes.len()));
    context.compress2(&mut frame, bytes).unwrap();
    frame
}

/// The contents of a kernel and of a later one.
fn kernel_contents() -> (Vec<u8>, Vec<u8>) {
    let old = noise(4, 20_000);
    let shifted: Vec<u8> = old[5000..9000].iter().enumerate().map(|(at, byte)| byte.wrapping_add(u8::from(at % 50 == 0))).collect();
    let mixed = [&old[9000..11_000], b"new", &old[11_000..12_000]].concat();
    let new = [&old[..5000], &shifted[..], &mixed[..], b"raw", b"data".repeat(900).as_slice(), &[0; 3000]].concat();
    (old, new)
}

/// The kernels, as Debian compresses theirs: these bytes are part of the format as much as the patch's.
fn kernels() -> (Vec<u8>, Vec<u8>) {
    let (old, new) = kernel_contents();
    (Kernel::sample(&old, 3).unwrap(), Kernel::sample(&new, 4).unwrap())
}

fn kernel_patch() -> KernelPatch {
    let ((old, new), (contents, made)) = (kernels(), kernel_contents());
    let to = Kernel::open(&new).unwrap();
    let outside = to.outside(&new).unwrap();
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 19).ok();
    let difference = Difference {
        steps: vec![Step { add: 4000, insert: 0, seek: 0 }],
        differences: (0..4000).map(|at| u8::from(at % 50 == 0)).collect(),
        new: Vec::new(),
    };
    let piece = |operation, len, from, from_len, payload| Piece { operation, len, from, from_len, payload };
    KernelPatch {
        source: Digest::of(&old),
        result: Digest::of(&new),
        frame: to.frame as u64,
        len: new.len() as u64,
        recipe: Recipe::Zstd157,
        outside: piece(Operation::Data, outside.len() as u64, 0, 0, zstd(&outside).unwrap()),
        pieces: vec![
            piece(Operation::Copy, 5000, 0, 5000, Vec::new()),
            piece(Operation::Bsdiff, 4000, 5000, 4000, difference.encode(zstd).unwrap()),
            piece(Operation::Zpatch, 3003, 9000, 3000, prefixed(&made[9000..12_003], &contents[9000..12_000])),
            piece(Operation::Raw, 3, 0, 0, b"raw".to_vec()),
            piece(Operation::Data, 3600, 0, 0, zstd(&b"data".repeat(900)).unwrap()),
            piece(Operation::Zero, 3000, 0, 0, Vec::new()),
        ],
    }
}

#[test]
fn bless() {
    if std::env::var_os("GARBOARD_BLESS").is_none() {
        return;
    }
    let (old_map, new_map, bodies) = (map(&old()), map(&new()), new());
    let [root, uki] = files(&old());
    // The moved file begins in the fourth block: metadata has one, the kept file two.
    let moved = |offset: u64, len: u64| SourceRun { part: Part::Root, offset: 12_288 + offset, len };
    let kernel = SourceRun { part: Part::Uki, offset: 0, len: uki.len() as u64 };
    let difference = Difference {
        steps: vec![Step { add: 9000, insert: 0, seek: 0 }],
        differences: (0..9000).map(|at| u8::from(at % 50 == 0)).collect(),
        new: Vec::new(),
    };
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 19).ok();
    let made = [
        (Operation::Copy, 1, vec![moved(100, 5000)], Vec::new()),
        (Operation::Bsdiff, 2, vec![moved(0, 9000)], difference.encode(zstd).unwrap()),
        (Operation::Data, 3, vec![], zstd(&bodies[3].2).unwrap()),
        (Operation::Raw, 4, vec![], bodies[4].2.clone()),
        (Operation::Zero, 5, vec![], Vec::new()),
        (Operation::Zpatch, 7, vec![kernel], prefixed(&bodies[7].2, &uki)),
    ];
    let (mut operations, mut payloads) = (Vec::new(), Vec::<u8>::new());
    for (operation, first, sources, payload) in made {
        let bytes: Vec<u8> = sources
            .iter()
            .flat_map(|run: &SourceRun| {
                let file = if run.part == Part::Root { &root } else { &uki };
                file[run.offset as usize..][..run.len as usize].to_vec()
            })
            .collect();
        operations.push(PatchOperation {
            operation,
            chunks: vec![ChunkRun { first, count: 1 }],
            source_digest: PayloadDigest::of(&bytes),
            sources,
            pack: 0,
            offset: if operation.has_payload() { payloads.len() as u64 } else { 0 },
            len: payload.len() as u32,
            digest: PayloadDigest::of(&payload),
        });
        payloads.extend(payload);
    }
    let body = new_map.body();
    let map = MapPatch { source: Digest::of(&old_map.body()), len: body.len() as u32, frame: prefixed(&body, &old_map.body()) };
    let difference = encode_difference(&map, &old_map, &new_map, &index(&bodies).0, 19).unwrap();
    fs::write(file("v1.difference"), difference).unwrap();
    let table = PatchTable { map, operations };
    fs::write(file("v2.table"), table.encode(19).unwrap()).unwrap();
    fs::write(file("v2.patch"), payloads).unwrap();
    fs::write(file("v1.kernel"), kernel_patch().encode().unwrap()).unwrap();
}

#[test]
fn patches_of_format_2_are_applied() {
    let bytes = fs::read(file("v2.patch")).unwrap();
    let (old_map, new_map) = (map(&old()), map(&new()));
    let table = PatchTable::decode(&fs::read(file("v2.table")).unwrap(), &[ObjectRef::of(&bytes)]).unwrap();
    assert_eq!(table.map.apply(&old_map, &Digest::of(&new_map.body())).unwrap(), new_map);
    table.check(&old_map, &new_map).unwrap();
    let codes: Vec<u8> = table.operations.iter().map(|operation| operation.operation.code()).collect();
    assert_eq!(codes, [4, 6, 1, 2, 3, 5]);
    let olds = files(&old());
    let mut made = [vec![0xee; new_map.root_size() as usize], vec![0xee; new_map.uki_size() as usize]];
    let mut put = |write: Write<'_>| {
        made[usize::from(write.part == Part::Uki)][write.offset as usize..][..write.data.len()].copy_from_slice(write.data);
        Ok::<(), FormatError>(())
    };
    let mut read = |part: Part, offset: u64, buffer: &mut [u8]| {
        buffer.copy_from_slice(&olds[usize::from(part == Part::Uki)][offset as usize..][..buffer.len()]);
        Ok::<(), FormatError>(())
    };
    let mut chunks = ChunkDecoder::new().unwrap();
    let local = LocalChunks::of(&old_map);
    for (number, chunk) in new_map.chunks() {
        if let Some(place) = local.find(&chunk.digest) {
            put(chunks.local(&new_map, number, |buffer| read(place.part, place.offset, buffer)).unwrap()).unwrap();
        }
    }
    let mut decoder = PatchDecoder::default();
    for (number, operation) in (0..).zip(&table.operations) {
        let payload = &bytes[operation.offset as usize..][..operation.len as usize];
        decoder.apply(&table, (number, payload), &new_map, &mut chunks, &mut read, &mut put).unwrap();
    }
    assert!(made == files(&new()));
}

#[test]
fn differences_of_format_1_are_read() {
    let bytes = fs::read(file("v1.difference")).unwrap();
    let (old_map, new_map) = (map(&old()), map(&new()));
    let (whole, packs) = index(&new());
    let (made, index) = decode_difference(&bytes, &old_map, &Digest::of(&new_map.body()), &packs).unwrap();
    assert_eq!(made, new_map);
    // The metadata and the file that was kept are in the earlier release.
    assert_eq!(index.entries().map(|(chunk, _)| chunk).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 7]);
    assert!(index.entries().all(|(chunk, entry)| whole.entry(chunk) == Some(entry)));
    // What is compressed is exact to the byte behind the frame of the map, whose compression is zstd's.
    let body = zstd::bulk::decompress(&bytes[16..], 1 << 20).unwrap();
    let frame = usize::from(body[36] & 0x7f) | usize::from(body[37]) << 7;
    assert_eq!(&body[..32], Digest::of(&old_map.body()).as_bytes());
    assert_eq!(Digest::of(&body[38 + frame..]).to_string(), "3595a80f08fef826cfaab5d1254aaaa655d855db9c36a33825f733b2c716ce36");
}

#[test]
fn kernel_patches_of_version_1_are_applied() {
    let patch = KernelPatch::decode(&fs::read(file("v1.kernel")).unwrap()).unwrap();
    let (old, new) = kernels();
    let codes: Vec<u8> = patch.pieces.iter().map(|piece| piece.operation.code()).collect();
    assert_eq!(codes, [4, 6, 5, 2, 1, 3]);
    // The recipe's bytes, too, must never change: a host makes them, and compares them with what the patch says.
    assert_eq!(patch.source.to_string(), Digest::of(&old).to_string());
    assert!(patch.rebuild(&old).unwrap() == new);
    let lens: Vec<(u64, u64, u64)> = patch.pieces.iter().map(|piece| (piece.len, piece.from, piece.from_len)).collect();
    assert_eq!(lens, [(5000, 0, 5000), (4000, 5000, 4000), (3003, 9000, 3000), (3, 0, 0), (3600, 0, 0), (3000, 0, 0)]);
    assert_eq!((patch.frame, patch.len, patch.recipe), (1124, new.len() as u64, Recipe::Zstd157));
}
