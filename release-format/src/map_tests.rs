use super::*;
use proptest::prelude::*;

/// A map with these files behind 8 KiB of metadata, and a UKI with these sections.
fn map(files: &[(&str, u64)], sections: &[(&str, u64)]) -> Result<ContentMap, FormatError> {
    let mut builder = MapBuilder::new();
    builder.begin(ExtentKind::Metadata, "", 8192)?;
    files.iter().try_for_each(|(path, len)| builder.begin(ExtentKind::File, path, *len))?;
    sections.iter().try_for_each(|(path, len)| builder.begin(ExtentKind::Section, path, *len))?;
    for number in 0..builder.expected {
        builder.chunk(Digest::of(&number.to_le_bytes()));
    }
    let root = 8192 + files.iter().map(|(_, len)| len.next_multiple_of(BLOCK)).sum::<u64>();
    builder.finish(root, sections.iter().map(|(_, len)| len).sum())
}

fn sample() -> ContentMap {
    map(&[("bin/a", 5), ("bin/ab", 2 * CHUNK + 1), ("é", 4096)], &[("", 512), (".linux", CHUNK)]).unwrap()
}

/// The sample as a file, after its body was changed.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Result<ContentMap, FormatError> {
    let mut body = sample().body();
    change(&mut body);
    ContentMap::decode(&container::wrap(WHAT, MAGIC, &body, MAX_MAP_BODY, 1).unwrap())
}

#[test]
fn chunks_lie_where_their_extent_says() {
    let map = sample();
    let places: Vec<_> = map.chunks().map(|(_, chunk)| (chunk.part, chunk.offset, chunk.len)).collect();
    let whole = CHUNK as u32;
    let expected = [
        (Part::Root, 0, 8192),
        (Part::Root, 8192, 5),
        (Part::Root, 12288, whole),
        (Part::Root, 12288 + CHUNK, whole),
        (Part::Root, 12288 + 2 * CHUNK, 1),
        (Part::Root, 16384 + 2 * CHUNK, 4096),
        (Part::Uki, 0, 512),
        (Part::Uki, 512, whole),
    ];
    assert_eq!(places, expected);
    assert_eq!(map.chunk(8), None);
    assert_eq!(map.root_size(), 16384 + 2 * CHUNK + 4096);
}

#[test]
fn a_file_of_another_kind_or_version_is_refused_by_name() {
    let good = sample().encode(3).unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        ContentMap::decode(&bytes).unwrap_err()
    };
    assert_eq!(with(0, b'X'), FormatError::Magic(WHAT));
    assert_eq!(with(8, 2), FormatError::Version { what: WHAT, found: 2, supported: 1 });
    assert_eq!(with(10, 1), FormatError::Flags { what: WHAT, flags: 1 });
    assert!(matches!(with(15, 0xff), FormatError::BodyTooLarge { .. }));
    // A size other than what the frame holds: smaller and larger.
    assert_eq!(with(12, good[12].wrapping_add(1)), FormatError::Compression(WHAT));
    assert_eq!(with(12, good[12].wrapping_sub(1)), FormatError::Bomb(WHAT.to_owned()));
    for len in 0..good.len() {
        assert!(ContentMap::decode(&good[..len]).is_err(), "cut at {len}");
    }
}

#[test]
fn an_archive_bomb_does_not_unfold() {
    // 16 MiB of zeros in a frame, in a file that states 100 bytes.
    let bomb = zstd::bulk::compress(&vec![0; 16 << 20], 19).unwrap();
    let mut bytes = container::header(MAGIC, 100).to_vec();
    bytes.extend(bomb);
    assert_eq!(ContentMap::decode(&bytes), Err(FormatError::Bomb(WHAT.to_owned())));
}

#[test]
fn each_kind_of_bad_map_has_its_own_error() {
    // Layout of the body: units 0..8, sizes 8..24, counts 24 and 25, kinds 26..32.
    assert!(matches!(changed(|body| body[0] = 1), Err(FormatError::Unit { what: "blocks", .. })));
    assert!(matches!(changed(|body| body[6] = 1), Err(FormatError::Unit { what: "chunks", .. })));
    assert!(matches!(changed(|body| body[9] ^= 0x10), Err(FormatError::Coverage { part: Part::Root, .. })));
    assert!(matches!(changed(|body| body[16] ^= 1), Err(FormatError::Coverage { part: Part::Uki, .. })));
    assert!(matches!(changed(|body| body[26] = 9), Err(FormatError::ExtentKind { extent: 0, kind: 9 })));
    assert!(matches!(changed(|body| body[26] = 2), Err(FormatError::ExtentKind { extent: 0, kind: 2 })));
    assert!(matches!(changed(|body| body.truncate(body.len() - 1)), Err(FormatError::Truncated(_))));
    assert!(matches!(changed(|body| body.push(0)), Err(FormatError::Trailing { len: 1, .. })));
    let many = |body: &mut Vec<u8>| {
        let mut count = Vec::new();
        put_varint(&mut count, MAX_EXTENTS + 1);
        body.splice(24..25, count);
    };
    assert!(matches!(changed(many), Err(FormatError::TooMany { things: "extents", .. })));
    // The first file's length, after the metadata's two bytes, becomes 0.
    assert!(matches!(changed(|body| body[34] = 0), Err(FormatError::ExtentLength { extent: 1, len: 0 })));
}

#[test]
fn paths_stay_inside() {
    for path in ["", "/bin", "../etc", "a/../b", "a//b", "a/", ".", "a\0", &"a".repeat(5000)] {
        assert_eq!(map(&[(path, 1)], &[("", 1)]), Err(FormatError::ExtentPath { extent: 1 }), "{path:?}");
    }
    // In the bytes, too: the first file's path begins after two numbers.
    let at = sample().body().windows(5).position(|window| window == b"bin/a").unwrap();
    assert_eq!(changed(|body| body[at] = b'/'), Err(FormatError::ExtentPath { extent: 1 }));
    assert_eq!(changed(|body| body[at] = 0xff), Err(FormatError::ExtentPath { extent: 1 }));
    // More shared bytes than the path before has.
    assert_eq!(changed(|body| body[at - 2] = 1), Err(FormatError::ExtentPath { extent: 1 }));
}

#[test]
fn what_cannot_be_counted_is_refused() {
    assert!(matches!(map(&[("a", u64::MAX)], &[("", 1)]), Err(FormatError::ExtentLength { .. })));
    assert!(matches!(map(&[("a", MAX_ROOT)], &[("", 1)]), Err(FormatError::ExtentLength { .. })));
    assert!(matches!(map(&[("a", MAX_ROOT - 8192)], &[("", 1)]), Err(FormatError::TooMany { things: "chunks", .. })));
    assert!(matches!(map(&[], &[("", MAX_UKI + 1)]), Err(FormatError::ExtentLength { .. })));
    assert!(matches!(map(&[], &[]), Err(FormatError::Coverage { part: Part::Uki, .. })));
}

proptest! {
    #[test]
    fn maps_round_trip(
        files in proptest::collection::vec(("[a-zé]{1,6}(/[a-z.]{2}[a-z]{1,4}){0,3}", 1_u64..3 * CHUNK), 0..20),
        sections in proptest::collection::vec(("\\.[a-z]{1,7}", 1_u64..2 * CHUNK), 1..8),
    ) {
        let borrow = |list: &[(String, u64)]| -> Vec<(String, u64)> { list.to_vec() };
        let (files, sections) = (borrow(&files), borrow(&sections));
        let files: Vec<(&str, u64)> = files.iter().map(|(path, len)| (path.as_str(), *len)).collect();
        let sections: Vec<(&str, u64)> = sections.iter().map(|(path, len)| (path.as_str(), *len)).collect();
        prop_assume!(files.iter().all(|(path, _)| is_relative(path)));
        let map = map(&files, &sections).unwrap();
        prop_assert_eq!(&ContentMap::decode(&map.encode(1).unwrap()).unwrap(), &map);
        // The chunks cover each part without gap: each begins where the one before ended, or at the next block.
        for part in [Part::Root, Part::Uki] {
            let mut at = 0;
            for (_, chunk) in map.chunks().filter(|(_, chunk)| chunk.part == part) {
                let align = if part == Part::Root { BLOCK } else { 1 };
                prop_assert_eq!(chunk.offset, at);
                at = (chunk.offset + u64::from(chunk.len)).next_multiple_of(align);
            }
            prop_assert_eq!(at, if part == Part::Root { map.root_size() } else { map.uki_size() });
        }
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let body = sample().body();
        let _ = changed(|body| { let at = at.index(body.len()); body[at] = byte; });
        let _ = changed(|body| body.truncate(cut.index(body.len())));
        let mut file = sample().encode(1).unwrap();
        let at = at.index(file.len());
        file[at] = byte;
        if let Ok(found) = ContentMap::decode(&file) {
            prop_assert!(found.body().len() == body.len());
        }
    }
}
