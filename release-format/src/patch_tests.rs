use super::*;
use crate::bsdiff::{Difference, Step};
use crate::chunk::ChunkDecoder;
use crate::digest::Digest;
use crate::frames::Misfit;
use crate::local::LocalChunks;
use crate::patch_apply::PatchDecoder;
use crate::testing::{self, Sample, prefixed};
use proptest::prelude::*;

/// A patch between two samples, with each kind of operation in turn, and its payloads, which lie in two packs in turn.
struct Made {
    table: PatchTable,
    payloads: Vec<Vec<u8>>,
    packs: Vec<ObjectRef>,
}

fn part_bytes(sample: &Sample, part: Part) -> &[u8] {
    if part == Part::Root { &sample.root } else { &sample.uki }
}

fn chunk_bytes(sample: &Sample, number: u32) -> &[u8] {
    let chunk = sample.map.chunk(number).unwrap();
    &part_bytes(sample, chunk.part)[chunk.offset as usize..][..chunk.len as usize]
}

fn make(old: &Sample, new: &Sample) -> Made {
    let local = LocalChunks::of(&old.map);
    let missing = new.map.chunks().filter(|(_, chunk)| local.find(&chunk.digest).is_none());
    let source = SourceRun { part: Part::Root, offset: 0, len: old.root.len() as u64 };
    let (mut operations, mut payloads, mut ends) = (Vec::new(), Vec::new(), [0, 0]);
    for (turn, (number, _)) in missing.enumerate() {
        let output = chunk_bytes(new, number);
        let add = output.len().min(old.root.len());
        let difference = Difference {
            steps: vec![Step { add: add as u64, insert: (output.len() - add) as u64, seek: 0 }],
            differences: output.iter().zip(&old.root).map(|(new, old)| new.wrapping_sub(*old)).collect(),
            new: output[add..].to_vec(),
        };
        let zstd = |bytes: &[u8]| Some(zstd::bulk::compress(bytes, 3).unwrap());
        let choices = [
            (Operation::Zpatch, prefixed(output, &old.root)),
            (Operation::Bsdiff, difference.encode(zstd).unwrap()),
            (Operation::Data, zstd(output).unwrap()),
        ];
        let (operation, payload) = choices.into_iter().cycle().nth(turn).unwrap();
        let raw = (Operation::Raw, output.to_vec());
        let (operation, payload) = if payload.len() > output.len() { raw } else { (operation, payload) };
        let with_source = matches!(operation, Operation::Zpatch | Operation::Bsdiff);
        operations.push(PatchOperation {
            operation,
            chunks: vec![ChunkRun { first: number, count: 1 }],
            sources: if with_source { vec![source] } else { Vec::new() },
            source_digest: if with_source { PayloadDigest::of(&old.root) } else { PayloadDigest::new([0; 16]) },
            pack: (turn % 2) as u16,
            offset: ends[turn % 2],
            len: payload.len() as u32,
            digest: PayloadDigest::of(&payload),
        });
        ends[turn % 2] += payload.len() as u64;
        payloads.push(payload);
    }
    let table = PatchTable { map: testing::map_patch(&old.map, &new.map), operations };
    // Bombs are larger than what they stand for.
    let packs = ends.map(|size| ObjectRef { sha256: Digest::of(b"pack"), size: size + 100_000 }).to_vec();
    Made { table, payloads, packs }
}

impl Made {
    fn decode(&self) -> Result<PatchTable, FormatError> {
        PatchTable::decode(&self.table.encode(3).unwrap(), &self.packs)
    }

    /// What a host does that has `old` and nothing else of `new`.
    fn apply(&self, old: &Sample, new: &Sample) -> Result<(Vec<u8>, Vec<u8>), FormatError> {
        let table = self.decode()?;
        let map = table.map.apply(&old.map, &Digest::of(&new.map.body()))?;
        table.check(&old.map, &map)?;
        let (mut root, mut uki) = (vec![0xee; map.root_size() as usize], vec![0xee; map.uki_size() as usize]);
        let mut put = |write: crate::Write<'_>| {
            let to = if write.part == Part::Root { &mut root } else { &mut uki };
            to[write.offset as usize..][..write.data.len()].copy_from_slice(write.data);
            Ok::<(), FormatError>(())
        };
        let mut read = |part: Part, offset: u64, buffer: &mut [u8]| {
            buffer.copy_from_slice(&part_bytes(old, part)[offset as usize..][..buffer.len()]);
            Ok(())
        };
        let mut chunks = ChunkDecoder::new()?;
        let local = LocalChunks::of(&old.map);
        for (number, chunk) in map.chunks() {
            if let Some(place) = local.find(&chunk.digest) {
                put(chunks.local(&map, number, |buffer| read(place.part, place.offset, buffer))?)?;
            }
        }
        let mut decoder = PatchDecoder::default();
        for (number, payload) in (0..).zip(&self.payloads) {
            decoder.apply(&table, (number, payload), &map, &mut chunks, &mut read, &mut put)?;
        }
        Ok((root, uki))
    }
}

/// Two releases that differ in two files of four and the UKI.
fn pair() -> (Sample, Sample) {
    let body = |seed: u32| (0..30_000_u32).map(|number| ((number * seed) >> 7) as u8).collect::<Vec<u8>>();
    let (one, two, other, more) = (body(7), body(77), body(177), body(99));
    let mut changed = two.clone();
    changed[700] ^= 1;
    let old = testing::release_of(&[("bin/a", &one), ("bin/b", &two), ("bin/c", &other)], &[9; 5000]);
    let new = testing::release_of(&[("bin/a", &one), ("bin/b", &changed), ("bin/d", &more), ("zeros", &[0; 9000])], &[8; 5000]);
    (old, new)
}

/// What comes of a change to a table that was right.
fn with(change: impl FnOnce(&mut Made)) -> &'static str {
    let (old, new) = pair();
    let mut made = make(&old, &new);
    change(&mut made);
    made.apply(&old, &new).map_or_else(|error| error.kind(), |_| "applied")
}

fn repay(made: &mut Made, at: usize, payload: Vec<u8>) {
    made.table.operations[at].len = payload.len() as u32;
    made.table.operations[at].digest = PayloadDigest::of(&payload);
    made.payloads[at] = payload;
}

#[test]
fn a_release_is_made_of_the_one_before() {
    let (old, new) = pair();
    let (root, uki) = make(&old, &new).apply(&old, &new).unwrap();
    assert!(root == new.root && uki == new.uki);
}

#[test]
fn each_kind_of_bad_patch_has_its_own_error() {
    let far = SourceRun { part: Part::Root, offset: 1 << 40, len: 10 };
    let wide = |made: &mut Made| made.table.operations[0].sources = vec![SourceRun { part: Part::Root, offset: 0, len: 4096 }; 5000];
    assert_eq!(with(|_| ()), "applied");
    assert_eq!(with(|made| made.table.map.source = Digest::of(b"other")), "patch-source");
    assert_eq!(with(|made| made.table.map.len -= 1), "decompression-bomb");
    assert_eq!(with(|made| made.table.map.len += 1), "body-compression");
    assert_eq!(with(|made| made.table.map.len = u32::MAX), "body-too-large");
    assert_eq!(with(|made| made.table.map.frame = zstd::bulk::compress(&vec![0; made.table.map.len as usize], 3).unwrap()), "patch-map");
    assert_eq!(with(|made| made.table.operations[0].chunks[0].first = 999), "chunks-range");
    assert_eq!(with(|made| made.table.operations[0].chunks[0].count = 0), "chunks-none");
    assert_eq!(with(|made| made.table.operations[0].chunks.clear()), "chunks-none");
    assert_eq!(with(|made| made.table.operations[0].sources[0] = far), "source-range");
    assert_eq!(with(|made| made.table.operations[0].sources[0].len = 0), "source-range");
    assert_eq!(with(|made| made.table.operations[0].source_digest = PayloadDigest::of(b"other")), "source-digest");
    assert_eq!(with(wide), "source-window");
    assert_eq!(with(|made| made.table.operations[0].digest = PayloadDigest::of(b"other")), "patch-payload-digest");
    assert_eq!(with(|made| made.table.operations[0].len += 1), "patch-payload");
    assert_eq!(with(|made| made.payloads[0].push(0)), "patch-payload");
    assert_eq!(with(|made| made.packs[0].size = 5), "patch-payload");
    assert_eq!(with(|made| made.packs.truncate(1)), "patch-payload");
    assert_eq!(with(|made| made.table.operations[0].offset = u64::MAX), "patch-payload");
    assert_eq!(with(|made| made.table.operations[1].chunks = made.table.operations[0].chunks.clone()), "chunks-overlap");
    assert_eq!(with(|made| repay(made, 0, b"no zstd".to_vec())), "patch-payload");
    assert_eq!(with(|made| repay(made, 1, b"no streams".to_vec())), "patch-streams");
    let other = |made: &mut Made| repay(made, 2, zstd::bulk::compress(&[3; 3], 3).unwrap()[..].to_vec());
    assert!(matches!(with(other), "chunk-digest" | "patch-payload"));
}

#[test]
fn operations_may_come_in_any_order() {
    let (old, new) = pair();
    let mut made = make(&old, &new);
    made.table.operations.reverse();
    made.payloads.reverse();
    assert_eq!(made.decode().unwrap(), made.table);
    let (root, uki) = made.apply(&old, &new).unwrap();
    assert!(root == new.root && uki == new.uki);
}

#[test]
fn bombs_do_not_unfold() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    assert_eq!(with(|made| repay(made, 0, bomb.clone())), "decompression-bomb");
    // Each of the three streams has bytes, so that each can be the bomb; with none of them it is but another file that comes out.
    let steps = vec![Step { add: 20_000, insert: 10_000, seek: 0 }];
    let streams = Difference { steps, differences: vec![0; 20_000], new: vec![1; 10_000] };
    for (bombed, kind) in [(0, "decompression-bomb"), (1, "decompression-bomb"), (2, "decompression-bomb"), (3, "chunk-digest")] {
        let mut stream = 0..;
        let compress = |bytes: &[u8]| if stream.next() == Some(bombed) { Some(bomb.clone()) } else { zstd::bulk::compress(bytes, 3).ok() };
        let payload = streams.encode(compress).unwrap();
        assert_eq!(with(|made| repay(made, 1, payload)), kind, "{bombed}");
    }
}

#[test]
fn a_window_of_new_bytes_over_the_limit_is_refused() {
    let large: Vec<u8> = (0..9_u32 << 20).map(|at| (at >> 12) as u8).collect();
    let (old, new) = (testing::release_of(&[("a", b"old")], b"uki"), testing::release_of(&[("a", &large)], b"uki"));
    let mut made = make(&old, &new);
    made.table.operations.truncate(1);
    made.payloads.truncate(1);
    made.table.operations[0].chunks[0].count = 36;
    assert_eq!(made.apply(&old, &new).unwrap_err().kind(), "output-window");
}

#[test]
fn differences_that_reach_out_of_the_old_bytes_are_refused() {
    for step in [
        Step { add: 30_000, insert: 0, seek: 0 },
        Step { add: 29_999, insert: 1, seek: 1 << 40 },
        Step { add: u64::MAX, insert: 2, seek: -5 },
    ] {
        let (differences, new) = (vec![1; step.add.min(30_000) as usize], vec![1; step.insert as usize]);
        let streams = Difference { steps: vec![step, Step { add: 0, insert: 0, seek: 0 }], differences, new };
        let payload = streams.encode(|bytes| zstd::bulk::compress(bytes, 3).ok()).unwrap();
        let mut output = vec![0; 30_000];
        assert_eq!(crate::bsdiff::apply(&[1; 100], &payload, &mut output), Err(Misfit::Wrong), "{step:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_tree_is_made_of_any_other(
        old in proptest::collection::vec(proptest::collection::vec(0_u8..4, 1..6000), 0..6),
        new in proptest::collection::vec(proptest::collection::vec(0_u8..4, 1..6000), 0..6),
        shared in proptest::collection::vec(any::<u8>(), 1..300_000),
        edit: prop::sample::Index,
    ) {
        let named = |bodies: &[Vec<u8>]| (0..).zip(bodies.to_vec()).map(|(n, body)| (format!("f{n}"), body)).collect::<Vec<(String, Vec<u8>)>>();
        let (mut old, mut new) = (named(&old), named(&new));
        let mut edited = shared.clone();
        let at = edit.index(edited.len());
        edited[at] ^= 0x55;
        old.push(("shared".to_owned(), shared.clone()));
        new.push(("shared".to_owned(), edited));
        let old = testing::release_of(&old.iter().map(|(path, body)| (path.as_str(), body.as_slice())).collect::<Vec<_>>(), b"old kernel");
        let new = testing::release_of(&new.iter().map(|(path, body)| (path.as_str(), body.as_slice())).collect::<Vec<_>>(), b"new kernel");
        let (root, uki) = make(&old, &new).apply(&old, &new).unwrap();
        prop_assert!(root == new.root && uki == new.uki);
    }

    #[test]
    fn any_table_is_a_value_or_an_error(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let (old, new) = pair();
        let made = make(&old, &new);
        let body = container::unwrap(WHAT, MAGIC, &made.table.encode(1).unwrap(), MAX_PATCH_BODY).unwrap();
        let mut changed = body.clone();
        let at = at.index(changed.len());
        changed[at] = byte;
        for body in [&changed[..], &body[..cut.index(body.len())]] {
            let head = container::wrap(WHAT, MAGIC, body, MAX_PATCH_BODY, 1).unwrap();
            let Ok(table) = PatchTable::decode(&head, &made.packs) else { continue };
            let Ok(map) = table.map.apply(&old.map, &Digest::of(&new.map.body())) else { continue };
            if table.check(&old.map, &map).is_err() {
                continue;
            }
            let changed = Made { table, payloads: made.payloads.clone(), packs: made.packs.clone() };
            // Whatever it does, it is not other bytes.
            if let Ok((root, uki)) = changed.apply(&old, &new) {
                prop_assert!(root == new.root && uki == new.uki);
            }
        }
    }

    #[test]
    fn any_streams_are_applied_or_refused(payload in proptest::collection::vec(any::<u8>(), 0..200), len in 0_usize..5000) {
        let mut output = vec![0; len];
        let _ = crate::bsdiff::apply(&[7; 1000], &payload, &mut output);
    }
}
