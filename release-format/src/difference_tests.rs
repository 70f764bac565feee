use super::*;
use crate::index::Entry;
use crate::operation::Operation;
use crate::testing::{self, Sample};
use proptest::prelude::*;

/// Two releases that differ in a file and the UKI; one file more is zeros.
fn pair() -> (Sample, Sample) {
    let body = |seed: u32| (0..30_000_u32).map(|number| ((number * seed) >> 7) as u8).collect::<Vec<u8>>();
    let old = testing::release_of(&[("bin/a", &body(7)), ("bin/b", &body(77))], &[9; 5000]);
    let new = testing::release_of(&[("bin/a", &body(7)), ("bin/b", &body(99)), ("zeros", &[0; 9000])], &[8; 5000]);
    (old, new)
}

fn encode(old: &Sample, new: &Sample) -> Vec<u8> {
    encode_difference(&testing::map_patch(&old.map, &new.map), &old.map, &new.map, &new.index, 3).unwrap()
}

fn decode(bytes: &[u8], old: &Sample, new: &Sample) -> Result<(ContentMap, PackIndex), FormatError> {
    decode_difference(bytes, &old.map, &Digest::of(&new.map.body()), &new.packs)
}

/// The map is the release's, and the entries are those of its index, for what the old one lacks and for nothing else.
fn is_right(found: &(ContentMap, PackIndex), old: &Sample, new: &Sample) -> bool {
    let lacking = LocalChunks::of(&old.map).lacking(&new.map);
    let expected = new.index.entries().filter(|(chunk, _)| lacking.contains(chunk));
    found.0 == new.map && found.1.entries().eq(expected)
}

/// What a difference is written of.
struct Parts {
    map: MapPatch,
    packs: u16,
    count: u32,
    entries: Vec<Entry>,
    after: Vec<u8>,
}

/// What comes of a change to a difference that was right.
fn with(change: impl FnOnce(&mut Parts)) -> &'static str {
    let (old, new) = pair();
    let chunks = LocalChunks::of(&old.map).lacking(&new.map);
    let entries: Vec<Entry> = chunks.iter().map(|chunk| *new.index.entry(*chunk).unwrap()).collect();
    let map = testing::map_patch(&old.map, &new.map);
    let mut parts = Parts { map, packs: new.index.packs(), count: entries.len() as u32, entries, after: Vec::new() };
    change(&mut parts);
    let mut body = Vec::new();
    parts.map.put(&mut body);
    body.extend(parts.packs.to_le_bytes());
    body.extend(parts.count.to_le_bytes());
    entries::put(&mut body, u16::MAX, parts.entries.iter());
    body.extend(parts.after);
    let file = container::wrap(WHAT, MAGIC, &body, MAX_DIFFERENCE_BODY, 3).unwrap();
    decode(&file, &old, &new).map_or_else(|error| error.kind(), |found| if is_right(&found, &old, &new) { "right" } else { "other" })
}

#[test]
fn a_difference_gives_the_map_and_the_entries_that_are_lacking() {
    let (old, new) = pair();
    let file = encode(&old, &new);
    let (map, index) = decode(&file, &old, &new).unwrap();
    assert!(is_right(&(map, index.clone()), &old, &new));
    // The file, the zeros and the UKI; not the metadata and the other file.
    assert_eq!(index.entries().map(|(chunk, _)| chunk).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!((index.entry(0), index.entry(99)), (None, None));
    for len in 0..file.len() {
        assert!(decode(&file[..len], &old, &new).is_err(), "cut at {len}");
    }
}

#[test]
fn each_kind_of_bad_difference_has_its_own_error() {
    assert_eq!(with(|_| ()), "right");
    assert_eq!(with(|parts| parts.map.source = Digest::of(b"other")), "patch-source");
    assert_eq!(with(|parts| parts.map.len -= 1), "decompression-bomb");
    assert_eq!(with(|parts| parts.map.len += 1), "body-compression");
    assert_eq!(with(|parts| parts.map.len = u32::MAX), "body-too-large");
    assert_eq!(with(|parts| parts.map.frame = zstd::bulk::compress(&vec![0; parts.map.len as usize], 3).unwrap()), "patch-map");
    assert_eq!(with(|parts| parts.map.frame.truncate(7)), "body-compression");
    assert_eq!(with(|parts| parts.packs += 1), "index-pack-count");
    assert_eq!(with(|parts| parts.count += 1), "difference-chunks");
    assert_eq!(with(|parts| parts.count = u32::MAX), "difference-chunks");
    assert_eq!(with(|parts| parts.entries.clear()), "format-truncated");
    assert_eq!(with(|parts| parts.after.push(0)), "format-trailing");
    assert_eq!(with(|parts| parts.entries[0].operation = Operation::Copy), "operation-reserved");
    assert_eq!(with(|parts| parts.entries[0].pack = 9), "location-range");
    assert_eq!(with(|parts| parts.entries[0].offset = 3), "location-range");
    assert_eq!(with(|parts| parts.entries[0].offset = 1 << 40), "location-range");
    assert_eq!(with(|parts| parts.entries[0].len = 0), "payload-length");
    assert_eq!(with(|parts| parts.entries[0].len = 300_000), "payload-length");
    let overlap = |parts: &mut Parts| parts.entries[2] = Entry { len: 1, offset: parts.entries[0].offset + 1, ..parts.entries[0] };
    assert_eq!(with(overlap), "location-overlap");
}

#[test]
fn the_frame_of_a_difference_is_looked_at_first() {
    let (old, new) = pair();
    let kind = |bytes: &[u8]| decode(bytes, &old, &new).unwrap_err().kind();
    let changed = |at: usize| {
        let mut file = encode(&old, &new);
        file[at] ^= 1;
        kind(&file)
    };
    assert_eq!((changed(0), changed(8), changed(10), changed(12)), ("format-magic", "format-version", "format-flags", "body-compression"));
    let mut large = encode(&old, &new);
    large[12..16].copy_from_slice(&(MAX_DIFFERENCE_BODY as u32 + 1).to_le_bytes());
    assert_eq!(kind(&large), "body-too-large");
    assert_eq!(kind(&new.index.encode(3).unwrap()), "format-magic");
    // Numbers of packs are spelled as short as can be.
    let mut body = Vec::new();
    testing::map_patch(&old.map, &new.map).put(&mut body);
    body.extend([2, 0, 3, 0, 0, 0, 1, 3, 1, 0x80, 0]);
    let file = container::wrap(WHAT, MAGIC, &body, MAX_DIFFERENCE_BODY, 3).unwrap();
    assert_eq!(kind(&file), "format-number");
}

#[test]
fn a_difference_that_does_not_belong_to_both_releases_is_refused() {
    let (old, new) = pair();
    let file = encode(&old, &new);
    let (map_body, other) = (Digest::of(&new.map.body()), Digest::of(b"other"));
    let kind = |earlier: &ContentMap, map_body, packs: &[ObjectRef]| decode_difference(&file, earlier, map_body, packs).unwrap_err().kind();
    assert_eq!(kind(&new.map, &map_body, &new.packs), "patch-source");
    assert_eq!(kind(&old.map, &other, &new.packs), "patch-map");
    assert_eq!(kind(&old.map, &map_body, &new.packs[..1]), "index-pack-count");
    let none = PackIndex::partial([], &new.map, &new.packs).unwrap();
    let made = encode_difference(&testing::map_patch(&old.map, &new.map), &old.map, &new.map, &none, 3);
    assert_eq!(made.unwrap_err(), FormatError::NoChunk(2));
}

#[test]
fn bombs_do_not_unfold() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    assert_eq!(with(|parts| parts.map.frame = bomb.clone()), "decompression-bomb");
    let mut file = container::header(MAGIC, 1000).to_vec();
    file.extend(bomb);
    let (old, new) = pair();
    assert_eq!(decode(&file, &old, &new).unwrap_err().kind(), "decompression-bomb");
}

/// Files of few different bodies, so that releases have some in common.
fn bodies() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let body = prop_oneof![
        (0_u8..6, 1_usize..4).prop_map(|(seed, len)| (0..len * 3000).map(|at| (at * at) as u8 ^ seed).collect::<Vec<u8>>()),
        Just(vec![0; 5000]),
        (0_u8..3).prop_map(|seed| (0..300_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed).collect()),
    ];
    proptest::collection::btree_map("[a-f]", body, 0..6).prop_map(|files| files.into_iter().collect())
}

fn release(files: &[(String, Vec<u8>)], uki: &[u8]) -> Sample {
    testing::release_of(&files.iter().map(|(path, body)| (path.as_str(), body.as_slice())).collect::<Vec<_>>(), uki)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_map_comes_of_any_other_with_the_entries_of_the_index(old in bodies(), new in bodies(), same_kernel: bool) {
        let (old, new) = (release(&old, b"kernel"), release(&new, if same_kernel { b"kernel" } else { b"another" }));
        let found = decode(&encode(&old, &new), &old, &new).unwrap();
        prop_assert!(is_right(&found, &old, &new));
        let again = encode_difference(&testing::map_patch(&old.map, &new.map), &old.map, &new.map, &found.1, 3);
        prop_assert_eq!(again.unwrap(), encode(&old, &new));
    }

    #[test]
    fn any_change_is_a_value_or_an_error(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let (old, new) = pair();
        let body = container::unwrap(WHAT, MAGIC, &encode(&old, &new), MAX_DIFFERENCE_BODY).unwrap();
        let mut changed = body.clone();
        let at = at.index(changed.len());
        changed[at] = byte;
        for body in [&changed[..], &body[..cut.index(body.len())]] {
            let file = container::wrap(WHAT, MAGIC, body, MAX_DIFFERENCE_BODY, 1).unwrap();
            // Whatever its entries are, the map is the release's.
            if let Ok((map, _)) = decode(&file, &old, &new) {
                prop_assert!(map == new.map);
            }
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), headed: bool) {
        let (old, new) = pair();
        let mut file = if headed { container::header(MAGIC, bytes.len() as u32).to_vec() } else { Vec::new() };
        file.extend(&bytes);
        prop_assert!(decode(&file, &old, &new).is_err());
        let wrapped = container::wrap(WHAT, MAGIC, &bytes, MAX_DIFFERENCE_BODY, 1).unwrap();
        prop_assert!(decode(&wrapped, &old, &new).is_err());
    }
}
