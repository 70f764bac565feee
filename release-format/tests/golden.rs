//! Files of version 1 as they were written when it was made. They must be read for ever; what is read from them must not
//! change. `GARBOARD_BLESS=1 cargo test --workspace --test golden` writes them, for a new version of the format only.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::PathBuf;

use release_format::{
    Channel, ChannelRelease, ChunkDecoder, ContentMap, DifferenceInfo, Digest, Entry, ExtentKind, FetchPlan, FormatError, MapBuilder,
    ObjectRef, OlderPatches, Operation, PackIndex, Part, PatchInfo, PlanOptions, RangeDecoder, Release, Rollout, StateFloor, UkiInfo, Wave,
    Write, encode_chunk, pack_header,
};

const CHUNK: usize = 256 * 1024;

/// The image: 4096 bytes of metadata, a text, a file of 262,149 bytes, zeros, and a file like the text.
fn bodies() -> Vec<(ExtentKind, &'static str, Vec<u8>)> {
    let long = (0..(CHUNK as u32 + 5)).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    vec![
        (ExtentKind::Metadata, "", b"metadata".repeat(512)),
        (ExtentKind::File, "usr/bin/text", b"garboard ".repeat(100)),
        (ExtentKind::File, "usr/lib/long", long),
        (ExtentKind::File, "usr/lib/zeros", vec![0; 5000]),
        (ExtentKind::File, "usr/share/text", b"garboard ".repeat(100)),
        (ExtentKind::Section, "", b"MZ".repeat(256)),
        (ExtentKind::Section, ".linux", b"kernel".repeat(1000)),
    ]
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn map() -> ContentMap {
    let mut builder = MapBuilder::new();
    let (mut root, mut uki) = (0, 0);
    for (kind, path, body) in bodies() {
        builder.begin(kind, path, body.len() as u64).unwrap();
        body.chunks(CHUNK).for_each(|chunk| builder.chunk(Digest::of(chunk)));
        if kind == ExtentKind::Section { uki += body.len() } else { root += body.len().next_multiple_of(4096) }
    }
    builder.finish(root as u64, uki as u64).unwrap()
}

fn release(map: &[u8], index: &[u8], pack: &[u8], map_body: Digest) -> Release {
    Release {
        format: 1,
        image: "golden".parse().unwrap(),
        architecture: "x86_64".parse().unwrap(),
        version: "1.0".parse().unwrap(),
        root_hash: Digest::of(b"root"),
        root_size: 282_624,
        verity_size: 8192,
        verity_salt: "0123456789abcdef".to_owned(),
        verity_uuid: uuid::Uuid::from_bytes([0x42; 16]),
        uki: UkiInfo { name: "garboard_1.0.efi".to_owned(), size: 6512, sha256: Digest::of(b"uki") },
        map: ObjectRef::of(map),
        map_body,
        index: ObjectRef::of(index),
        packs: vec![ObjectRef::of(pack)],
        full_size: 0,
        patches: Vec::new(),
        older_patches: None,
        patch_packs: Vec::new(),
        differences: Vec::new(),
        state: StateFloor { layout: 1, components: [("etcd".to_owned(), "3.5".to_owned())].into() },
    }
}

/// Patches with all that one can have, and with nothing that can be left out.
fn patches(of: &str) -> Vec<PatchInfo> {
    let object = |kind: &str| ObjectRef::of(format!("{kind} of {of}").as_bytes());
    let from = |version: &str| Digest::of(format!("{version} before {of}").as_bytes());
    let plain = PatchInfo { format: 2, from: from("0.9"), table: object("table"), kernel: None, borrowed: false, lends: None };
    let full = PatchInfo { from: from("0.8"), kernel: Some(object("kernel")), borrowed: true, lends: Some(1), ..plain.clone() };
    vec![plain, full]
}

fn older() -> OlderPatches {
    OlderPatches { format: 1, patches: patches("older releases") }
}

/// A release with all ways from earlier ones.
fn release_with_ways(older: &[u8]) -> Release {
    let object = |kind: &str| ObjectRef::of(kind.as_bytes());
    let difference = |version: &str| DifferenceInfo { format: 1, from: Digest::of(version.as_bytes()), difference: object(version) };
    Release {
        full_size: 268_000,
        patches: patches("the release"),
        older_patches: Some(ObjectRef::of(older)),
        patch_packs: vec![object("patch pack"), object("another patch pack")],
        differences: vec![difference("0.9"), difference("0.8")],
        ..release(b"map", b"index", b"pack", Digest::of(b"map body"))
    }
}

fn channel(release: &[u8]) -> Channel {
    let entry = |version: &str| ChannelRelease {
        version: version.parse().unwrap(),
        root_hash: Digest::of(b"root"),
        release: ObjectRef::of(release),
        format: 1,
        stepping_stone: None,
        rollout: None,
        withdrawn: false,
        retired: false,
    };
    let waves = vec![Wave { percent: 1, until: 3600 }, Wave { percent: 100, until: 86_400 }];
    let rollout = Some(Rollout { start: 1_767_225_600, waves, paused: false });
    let releases = vec![
        ChannelRelease { retired: true, ..entry("0.9") },
        entry("1.0"),
        ChannelRelease { withdrawn: true, stepping_stone: Some("1.0".parse().unwrap()), rollout, ..entry("2.0") },
    ];
    Channel {
        format: 1,
        channel: "stable".parse().unwrap(),
        image: "golden".parse().unwrap(),
        architecture: "x86_64".parse().unwrap(),
        releases,
    }
}

#[test]
fn bless() {
    if std::env::var_os("GARBOARD_BLESS").is_none() {
        return;
    }
    let map = map();
    let mut pack = pack_header().to_vec();
    let mut compressor = zstd::bulk::Compressor::new(19).unwrap();
    let mut entries: Vec<Entry> = Vec::new();
    let bodies = bodies();
    let chunks: Vec<&[u8]> = bodies.iter().flat_map(|(_, _, body)| body.chunks(CHUNK)).collect();
    for (number, chunk) in chunks.iter().enumerate() {
        let twin = chunks.iter().take(number).position(|other| other == chunk);
        let encoded = encode_chunk(&mut compressor, chunk).unwrap();
        entries.push(match (twin, encoded.operation) {
            (Some(twin), _) => entries[twin],
            (None, Operation::Zero) => Entry::zero(),
            (None, operation) => {
                let offset = pack.len() as u64;
                pack.extend(&encoded.payload);
                Entry { operation, pack: 0, offset, len: encoded.payload.len() as u32, digest: encoded.digest }
            }
        });
    }
    let index = PackIndex::new(entries, &map, &[ObjectRef::of(&pack)]).unwrap();
    let (map_file, index_file) = (map.encode(19).unwrap(), index.encode(19).unwrap());
    let release = release(&map_file, &index_file, &pack, Digest::of(&map.body())).encode().unwrap();
    let channel = channel(&release).encode().unwrap();
    let older = older().encode().unwrap();
    let ways = release_with_ways(&older).encode().unwrap();
    fs::create_dir_all(path("")).unwrap();
    for (name, bytes) in [
        ("v1.map", &map_file),
        ("v1.index", &index_file),
        ("v1.pack", &pack),
        ("v1.release.json", &release),
        ("v1.channel.json", &channel),
        ("v1.older.json", &older),
        ("v1.ways.release.json", &ways),
    ] {
        fs::write(path(name), bytes).unwrap();
    }
}

#[test]
fn maps_of_version_1_are_read() {
    let found = ContentMap::decode(&golden("v1.map")).unwrap();
    assert_eq!(found, map());
    // What is compressed is exact to the byte; how it is compressed is zstd's.
    assert_eq!(zstd::bulk::decompress(&golden("v1.map")[16..], 1 << 20).unwrap(), found.body());
    assert_eq!(Digest::of(&found.body()).to_string(), "8746af3def04bd5f4115a1bee589ac07e98475cc7387ccc6cb53be5405b090f2");
}

#[test]
fn packs_of_version_1_are_read() {
    let (map, pack) = (map(), golden("v1.pack"));
    let index = PackIndex::decode(&golden("v1.index"), &map, &[ObjectRef::of(&pack)]).unwrap();
    let operations: Vec<u8> = index.entries().map(|(_, entry)| entry.operation.code()).collect();
    assert_eq!(operations, [1, 1, 1, 2, 3, 1, 1, 1]);
    let mut files = [vec![0xee_u8; map.root_size() as usize], vec![0xee; map.uki_size() as usize]];
    let mut put = |write: Write<'_>| {
        files[usize::from(write.part == Part::Uki)][write.offset as usize..][..write.data.len()].copy_from_slice(write.data);
        Ok::<(), FormatError>(())
    };
    let mut decoder = ChunkDecoder::new().unwrap();
    let plan = FetchPlan::new(&map, &index, &PlanOptions::default(), |_, _| true);
    for &chunk in &plan.zeros {
        put(decoder.zero(&map, &index, chunk).unwrap()).unwrap();
    }
    for fetch in &plan.fetches {
        let mut range = RangeDecoder::new(&map, &index, fetch, &mut decoder);
        range.push(&pack[fetch.offset as usize..][..fetch.len as usize], &mut put).unwrap();
        range.finish().unwrap();
    }
    let mut expected = [Vec::new(), Vec::new()];
    for (kind, _, body) in bodies() {
        let uki = kind == ExtentKind::Section;
        expected[usize::from(uki)].extend(body);
        if !uki {
            let len = expected[0].len().next_multiple_of(4096);
            expected[0].resize(len, 0);
        }
    }
    assert!(files == expected);
}

#[test]
fn metadata_of_version_1_is_read_and_written() {
    let bytes = golden("v1.release.json");
    let found = Release::decode(&bytes).unwrap();
    assert_eq!(found, release(&golden("v1.map"), &golden("v1.index"), &golden("v1.pack"), Digest::of(&map().body())));
    assert_eq!(found.encode().unwrap(), bytes);
    let listed = golden("v1.channel.json");
    let found = Channel::decode(&listed).unwrap();
    assert_eq!(found, channel(&bytes));
    assert_eq!(found.encode().unwrap(), listed);
}

#[test]
fn the_ways_from_earlier_releases_of_version_1_are_read_and_written() {
    let bytes = golden("v1.older.json");
    let found = OlderPatches::decode(&bytes).unwrap();
    assert_eq!(found, older());
    assert_eq!(found.encode().unwrap(), bytes);
    let listed = golden("v1.ways.release.json");
    let found = Release::decode(&listed).unwrap();
    assert_eq!(found, release_with_ways(&bytes));
    assert_eq!(found.encode().unwrap(), listed);
}
