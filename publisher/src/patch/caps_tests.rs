//! Patches whose windows were cut under any caps, applied as a host does.

use std::cell::Cell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use release_format::limits::{BLOCK, CHUNK};
use release_format::{
    ChunkDecoder, Digest, ExtentKind, FormatError, LocalChunks, MapBuilder, MapPatch, ObjectRef, Part, PatchDecoder, PatchTable, Write,
};

use super::difference::noise;
use super::{Caps, ContentMap, cut, smallest, zstd};

/// A release, as bytes.
struct Tree {
    root: Vec<u8>,
    uki: Vec<u8>,
    map: ContentMap,
}

impl Tree {
    fn new(metadata: &[u8], files: &BTreeMap<String, Vec<u8>>, kernel: &[u8]) -> Self {
        let mut builder = MapBuilder::new();
        let mut root = Vec::new();
        let files =
            files.iter().filter(|(_, body)| !body.is_empty()).map(|(path, body)| (ExtentKind::File, path.as_str(), body.as_slice()));
        let all = [(ExtentKind::Metadata, "", metadata)].into_iter().chain(files).chain([(ExtentKind::Section, ".linux", kernel)]);
        for (kind, path, body) in all {
            builder.begin(kind, path, body.len() as u64).unwrap();
            body.chunks(CHUNK as usize).for_each(|chunk| builder.chunk(Digest::of(chunk)));
            if kind != ExtentKind::Section {
                root.extend(body);
                root.resize(root.len().next_multiple_of(BLOCK as usize), 0);
            }
        }
        let map = builder.finish(root.len() as u64, kernel.len() as u64).unwrap();
        Self { root, uki: kernel.to_vec(), map }
    }

    fn bytes(&self, part: Part, offset: u64, len: u64) -> &[u8] {
        let bytes = if part == Part::Root { &self.root } else { &self.uki };
        &bytes[offset as usize..][..len as usize]
    }
}

/// Makes a patch under these caps and applies it to `old`; what comes out must be `new`. Gives how many windows there were.
fn windows_that_lead(old: &Tree, new: &Tree, caps: &Caps) -> usize {
    let local = LocalChunks::of(&old.map);
    let missing = local.lacking(&new.map);
    let windows = cut(&old.map, &new.map, |number| missing.contains(&number), caps);
    let (mut operations, mut pack) = (Vec::new(), Vec::new());
    for window in &windows {
        let chunk = |number| new.map.chunk(number).unwrap();
        let output: Vec<u8> =
            window.numbers().map(chunk).flat_map(|chunk| new.bytes(chunk.part, chunk.offset, u64::from(chunk.len))).copied().collect();
        let source: Vec<u8> = window.sources.iter().flat_map(|run| old.bytes(run.part, run.offset, run.len)).copied().collect();
        assert!(output.len() as u64 <= caps.output && source.len() as u64 <= caps.source, "{caps:?}");
        operations.push(smallest(window, &source, &output, 1).unwrap().operation(window, 0, &mut pack));
    }
    let (before, body) = (old.map.body(), new.map.body());
    let map = MapPatch { source: Digest::of(&before), len: body.len() as u32, frame: zstd(&body, &before, 1).unwrap() };

    let file = PatchTable { map, operations }.encode(1).unwrap();
    let table = PatchTable::decode(&file, &[ObjectRef::of(&pack)]).unwrap();
    let map = table.map.apply(&old.map, &Digest::of(&body)).unwrap();
    table.check(&old.map, &map).unwrap();
    let mut made = [vec![0xee; new.root.len()], vec![0xee; new.uki.len()]];
    let mut put = |write: Write<'_>| {
        made[usize::from(write.part == Part::Uki)][write.offset as usize..][..write.data.len()].copy_from_slice(write.data);
        Ok::<(), FormatError>(())
    };
    let mut read = |part: Part, offset: u64, buffer: &mut [u8]| {
        buffer.copy_from_slice(old.bytes(part, offset, buffer.len() as u64));
        Ok::<(), FormatError>(())
    };
    let mut chunks = ChunkDecoder::new().unwrap();
    for (number, chunk) in map.chunks() {
        if let Some(place) = local.find(&chunk.digest) {
            put(chunks.local(&map, number, |buffer| read(place.part, place.offset, buffer)).unwrap()).unwrap();
        }
    }
    let mut decoder = PatchDecoder::default();
    for (number, operation) in (0..).zip(&table.operations) {
        let payload = &pack[operation.offset as usize..][..operation.len as usize];
        decoder.apply(&table, (number, payload), &map, &mut chunks, &mut read, &mut put).unwrap();
    }
    assert!(made == [new.root.clone(), new.uki.clone()], "{caps:?}");
    windows.len()
}

/// Two releases: a large file that is turned and grows, so many small ones of which each changes, and a kernel that is another.
fn pair(large: usize, turn: usize, small: usize) -> (Tree, Tree) {
    let files = |turn: usize, more: usize, change: u8| {
        let mut body = noise(1, large);
        body.rotate_left(turn);
        body.extend(noise(2, more));
        let small = (0..small).map(|number| {
            let mut body = noise(10 + number as u32, 60_000);
            body[number * 100] ^= change;
            (format!("usr/lib/m{number}.ko"), body)
        });
        small.chain([("usr/bin/large".to_owned(), body)]).collect::<BTreeMap<_, _>>()
    };
    let old = Tree::new(b"old", &files(0, 0, 0), &noise(3, 300_000));
    let new = Tree::new(b"new", &files(turn, 5000, 1), &[&noise(3, 200_000)[..], b"new", &noise(4, 150_000)].concat());
    (old, new)
}

#[test]
fn the_tightest_caps_cut_a_window_for_each_chunk_and_still_lead_there() {
    let (old, new) = pair(3 << 20, 1000, 9);
    let roomy = windows_that_lead(&old, &new, &Caps::default());
    let caps = Caps { output: CHUNK, source: CHUNK, margin: 0, together: true };
    // The metadata, 13 chunks of the large file, 2 of the kernel, and of the small files 4, 4 and 1.
    assert_eq!((roomy, windows_that_lead(&old, &new, &caps)), (4, 1 + 13 + 2 + 3));
    // Each cap binds by itself.
    assert!(windows_that_lead(&old, &new, &Caps { output: 1 << 20, ..Caps::default() }) > roomy);
    assert!(windows_that_lead(&old, &new, &Caps { source: 150_000, ..Caps::default() }) > roomy);
    assert!(windows_that_lead(&old, &new, &Caps { together: false, ..Caps::default() }) > roomy);
}

#[test]
fn under_every_cap_windows_lead_from_any_tree_to_another() {
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(6) });
    let bound = Cell::new(0);
    // Of new bytes at least a chunk, of old ones any number, so that less fits than is to be made as well.
    let caps = (1_u64..=16, 1_u64..=16 << 20, 0_u64..=2 << 20, any::<bool>()).prop_map(|(output, source, margin, together)| Caps {
        output: output * CHUNK,
        source,
        margin,
        together,
    });
    let trees = (300_000_usize..3_000_000, any::<prop::sample::Index>(), 0_usize..12);
    let led = runner.run(&(caps, trees), |(caps, (large, turn, small))| {
        let (old, new) = pair(large, turn.index(large), small);
        let windows = windows_that_lead(&old, &new, &caps);
        // More than the metadata, the large file, the small ones and the kernel make where nothing binds.
        bound.set(bound.get() + usize::from(windows > 3 + usize::from(small > 0)));
        Ok(())
    });
    led.unwrap();
    assert!(bound.get() > 0, "no cap ever bound");
}
