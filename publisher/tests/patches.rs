//! Patch packs as they are published, applied as a host does: with the old bytes, the table and the payloads, and chunks where there is no patch.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use common::{parts, root_hash};
use jiff::Timestamp;
use proptest::prelude::*;
use publisher::Expiries;
use publisher::keys::{Keys, Threshold};
use publisher::parts::{PARTS_FILE, Parts, ROOT_FILE, UKI_FILE};
use publisher::publish::{Context, Offer, Published, prune, publish, withdraw};
use publisher::repository::Repository;
use release_format::{
    ChunkDecoder, ContentMap, Digest, FetchPlan, FormatError, LocalChunks, MAX_REQUESTS, ObjectKind, ObjectRef, PackIndex, Part,
    PatchDecoder, PatchInfo, PatchTable, PlanOptions, RangeDecoder, Release, Write, decode_difference,
};

type Files = BTreeMap<String, Vec<u8>>;

struct World {
    directory: tempfile::TempDir,
    keys: Keys,
}

#[derive(Clone, PartialEq)]
struct Image {
    root: Vec<u8>,
    uki: Vec<u8>,
}

fn now() -> Timestamp {
    "2026-03-01T00:00:00Z".parse().unwrap()
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::init(&directory.path().join("keys"), Threshold::ONE, &Expiries::default(), now()).unwrap();
        Self { directory, keys }
    }

    fn repository(&self) -> PathBuf {
        self.directory.path().join("repo")
    }

    fn publish(&self, version: &str, files: &Files, kernel: &[u8], patches: usize) -> (Image, Published) {
        // Metadata name every file and its size, as those of a file system do.
        let mut metadata: Vec<u8> = version.as_bytes().to_vec();
        files.iter().for_each(|(path, body)| metadata.extend(format!("\n{path} {}", body.len()).bytes()));
        let mut extents = vec![(String::new(), metadata.len() as u64)];
        let mut root = metadata;
        root.resize(root.len().next_multiple_of(4096), 0);
        for (path, body) in files.iter().filter(|(_, body)| !body.is_empty()) {
            extents.push((path.clone(), body.len() as u64));
            root.extend(body);
            root.resize(root.len().next_multiple_of(4096), 0);
        }
        let uki = [version.as_bytes(), kernel].concat();
        let out = self.directory.path().join(format!("out-{version}"));
        let directory = out.join(format!("tiny-{version}-x86_64.release"));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(ROOT_FILE), &root).unwrap();
        fs::write(directory.join(UKI_FILE), &uki).unwrap();
        let parts = parts(version, &root, 0, extents, &[("", version.len()), (".linux", kernel.len())]);
        fs::write(directory.join(PARTS_FILE), serde_json::to_vec(&parts).unwrap()).unwrap();
        let mut repository = Repository::open(&self.repository(), &self.keys).unwrap();
        let mut context = Context { repository: &mut repository, keys: &self.keys, expiries: &Expiries::default(), now: now() };
        let offer = Offer { patches, ..Offer::default() };
        let published = publish(&mut context, &out, &"stable".parse().unwrap(), &offer, 3, &root_hash).unwrap();
        (Image { root, uki }, published.into_iter().next().unwrap())
    }

    fn withdraw(&self, version: &str) {
        let mut repository = Repository::open(&self.repository(), &self.keys).unwrap();
        let mut context = Context { repository: &mut repository, keys: &self.keys, expiries: &Expiries::default(), now: now() };
        withdraw(&mut context, &"stable".parse().unwrap(), None, &version.parse().unwrap()).unwrap();
    }

    fn release(&self, version: &str) -> (Release, ContentMap, PackIndex) {
        let repository = Repository::open(&self.repository(), &self.keys).unwrap();
        let channels = repository.channels();
        let entry = channels.values().next().unwrap().release(&version.parse().unwrap()).unwrap();
        let release = repository.read_release(&entry.release).unwrap();
        let map = ContentMap::decode(&repository.read_object(&release.map, ObjectKind::Map).unwrap()).unwrap();
        let index = PackIndex::decode(&repository.read_object(&release.index, ObjectKind::Index).unwrap(), &map, &release.packs).unwrap();
        (release, map, index)
    }

    fn object(&self, path: &str) -> Vec<u8> {
        fs::read(self.repository().join(path)).unwrap()
    }

    /// From one version to another as a host goes; gives what came out, how many bytes were fetched and in how many requests.
    fn update(&self, old: &Image, from: &str, to: &str) -> (Image, u64, usize) {
        let (old_release, old_map, _) = self.release(from);
        let (release, map, index) = self.release(to);
        let mut image = Image { root: vec![0xee; release.root_size as usize], uki: vec![0xee; release.uki.size as usize] };
        let mut chunks = ChunkDecoder::new().unwrap();
        let mut put = |write: Write<'_>| {
            let to = if write.part == Part::Root { &mut image.root } else { &mut image.uki };
            to[write.offset as usize..][..write.data.len()].copy_from_slice(write.data);
            Ok::<(), FormatError>(())
        };
        let mut read = |part: Part, offset: u64, buffer: &mut [u8]| {
            let from = if part == Part::Root { &old.root } else { &old.uki };
            buffer.copy_from_slice(&from[offset as usize..][..buffer.len()]);
            Ok::<(), FormatError>(())
        };
        let local = LocalChunks::of(&old_map);
        for (number, chunk) in map.chunks() {
            if let Some(place) = local.find(&chunk.digest) {
                put(chunks.local(&map, number, |buffer| read(place.part, place.offset, buffer)).unwrap()).unwrap();
            }
        }
        let (mut bytes, mut requests) = (0, 0);
        let mut lacking: BTreeSet<u32> = local.lacking(&map).into_iter().collect();
        if let Some(info) = release.patches.iter().find(|info| info.from == old_release.root_hash) {
            let object = info.table;
            let file = self.object(&object.path(ObjectKind::Table));
            object.verify(&file).unwrap();
            let packs: Vec<Vec<u8>> = release.patch_packs.iter().map(|pack| self.object(&pack.path(ObjectKind::Patch))).collect();
            release.patch_packs.iter().zip(&packs).for_each(|(object, pack)| object.verify(pack).unwrap());
            let table = PatchTable::decode(&file, &release.patch_packs).unwrap();
            assert_eq!(table.map.apply(&old_map, &release.map_body).unwrap(), map);
            table.check(&old_map, &map).unwrap();
            let mut decoder = PatchDecoder::default();
            (bytes, requests) = (object.size, 1);
            let mut end = None;
            for (number, operation) in (0..).zip(&table.operations) {
                let payload = match packs.get(usize::from(operation.pack)) {
                    Some(pack) => &pack[operation.offset as usize..][..operation.len as usize],
                    None => &[],
                };
                decoder.apply(&table, (number, payload), &map, &mut chunks, &mut read, &mut put).unwrap();
                lacking.retain(|lacking| operation.numbers().all(|number| number != *lacking));
                bytes += payload.len() as u64;
                if !payload.is_empty() {
                    let near = |(pack, end): (u16, u64)| pack == operation.pack && (end..=end + 32_768).contains(&operation.offset);
                    requests += usize::from(!end.is_some_and(near));
                    end = Some((operation.pack, operation.offset + u64::from(operation.len)));
                }
            }
            assert!(info.borrowed || lacking.is_empty());
        }
        if !lacking.is_empty() {
            let index = match release.differences.iter().find(|info| info.from == old_release.root_hash) {
                Some(info) => {
                    let file = self.object(&info.difference.path(ObjectKind::Difference));
                    info.difference.verify(&file).unwrap();
                    assert!(info.difference.size < release.map.size + release.index.size);
                    let (made, index) = decode_difference(&file, &old_map, &release.map_body, &release.packs).unwrap();
                    assert!(made == map);
                    bytes += info.difference.size;
                    index
                }
                None => index,
            };
            let want = |number, _: &release_format::Chunk| lacking.contains(&number);
            let plan = FetchPlan::within(&map, &index, &PlanOptions::default(), MAX_REQUESTS, want);
            for &number in &plan.zeros {
                put(chunks.zero(&map, &index, number).unwrap()).unwrap();
            }
            for fetch in &plan.fetches {
                let pack = self.object(&release.packs[usize::from(fetch.pack)].path(ObjectKind::Pack));
                let mut range = RangeDecoder::new(&map, &index, fetch, &mut chunks);
                range.push(&pack[fetch.offset as usize..][..fetch.len as usize], &mut put).unwrap();
                range.finish().unwrap();
            }
            bytes += plan.bytes();
            requests += plan.requests();
        }
        (image, bytes, requests)
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// What looks like a program: addresses in it move with `base`.
fn program(seed: u64, base: u32, len: usize) -> Vec<u8> {
    let mut code = noise(seed, len);
    for (number, call) in code.chunks_exact_mut(32).enumerate() {
        call[4..8].copy_from_slice(&(base + number as u32 * 16).to_le_bytes());
    }
    code
}

/// An edit that a package update may do to a tree.
fn edit(files: &mut Files, step: u64) {
    let names: Vec<String> = files.keys().cloned().collect();
    let name = &names[step as usize * 7 % names.len()];
    match step % 5 {
        0 => drop(files.insert(format!("usr/lib/libnew.so.{step}"), program(step, 4096, 40_000))),
        1 => {
            let body = files.remove(name).unwrap();
            files.insert(format!("usr/libexec/moved-{step}"), body);
        }
        2 => {
            let body = files.get_mut(name).unwrap();
            let at = body.len() / 3;
            body.splice(at..at, noise(step, 700));
        }
        3 => drop(files.insert("usr/bin/dockerd".to_owned(), program(1, 4096 + step as u32 * 64, 900_000 + 1000 * step as usize))),
        _ => {
            let body = files.get_mut(name).unwrap();
            body.truncate(body.len() * 3 / 4);
            if let Some(byte) = body.first_mut() {
                *byte ^= 1;
            }
        }
    }
}

fn tree() -> Files {
    let mut files: Files =
        (0..12).map(|number| (format!("usr/lib/modules/6.12.1/m{number}.ko"), program(50 + number, 77, 20_000))).collect();
    files.insert("usr/bin/dockerd".to_owned(), program(1, 4096, 900_000));
    files.insert("etc/os-release".to_owned(), b"VERSION=1".to_vec());
    files
}

#[test]
fn in_a_chain_of_20_releases_each_leads_to_each_later_one() {
    let world = World::new();
    let mut files = tree();
    let (mut images, mut told) = (Vec::new(), Vec::new());
    for step in 0..20 {
        edit(&mut files, step);
        let kernel = program(99, step as u32 / 4, 300_000);
        let (image, published) = world.publish(&format!("1.{step}"), &files, &kernel, 3);
        let costs = published.costs.unwrap();
        let offered = costs.chunks_from.iter().filter(|from| from.patch.is_some()).count();
        assert!(step < 3 || offered >= 1, "version 1.{step} offers no patch");
        told.extend(costs.chunks_from.into_iter().map(|from| (from, step)));
        images.push(image);
    }
    // What is told is what is fetched, with the gaps that are read past.
    let borrowed: Vec<_> = told.iter().filter(|(from, _)| from.borrowed).collect();
    assert!(borrowed.len() > 5, "{}", borrowed.len());
    for (from, to) in borrowed {
        let start: usize = from.version[2..].parse().unwrap();
        let (_, bytes, requests) = world.update(&images[start], &from.version, &format!("1.{to}"));
        let most = bytes + 32_768 * requests as u64 + bytes / 4;
        assert!((bytes..=most).contains(&from.patch.unwrap()), "{} to 1.{to}: {bytes} {from:?}", from.version);
    }
    for (to, new) in images.iter().enumerate().skip(1) {
        for (from, old) in images.iter().enumerate().take(to) {
            let (made, bytes, requests) = world.update(old, &format!("1.{from}"), &format!("1.{to}"));
            assert!(made == *new, "1.{from} to 1.{to}");
            let full = (new.root.len() + new.uki.len()) as u64;
            assert!(requests <= MAX_REQUESTS && bytes < full, "1.{from} to 1.{to}: {bytes} bytes in {requests} requests");
        }
    }
}

#[test]
fn a_version_alone_costs_little_and_moved_code_less_than_its_chunks() {
    let world = World::new();
    let files = tree();
    let kernel = program(99, 0, 300_000);
    world.publish("1.0", &files, &kernel, 3);
    let (_, published) = world.publish("1.1", &files, &kernel, 3);
    let costs = published.costs.unwrap();
    assert!(costs.chunks_from[0].patch.is_some_and(|bytes| bytes < 2048), "{costs:?}");
    let mut moved = files.clone();
    moved.insert("usr/bin/dockerd".to_owned(), program(1, 8192, 900_000));
    let (_, published) = world.publish("1.2", &moved, &kernel, 3);
    let costs = published.costs.unwrap();
    let patch = costs.chunks_from[0].patch.unwrap();
    assert!(patch * 5 < costs.chunks_from[0].cost.bytes, "{costs:?}");
    assert_eq!(costs.chunks_from[0].way(&costs.full), "patch");
}

/// 1.0, and versions after it that each change something more; each has a patch from the one before only. Gives the images.
fn published_one_after_the_other(world: &World, edits: &[fn(&mut Files)]) -> Vec<Image> {
    let mut files = tree();
    files.insert("usr/bin/containerd".to_owned(), program(3, 4096, 600_000));
    let kernel = program(99, 0, 300_000);
    let first: fn(&mut Files) = |_| ();
    let all = [&[first], edits].concat();
    let publish = |(step, edit): (usize, &fn(&mut Files))| {
        edit(&mut files);
        files.insert("etc/os-release".to_owned(), format!("VERSION=1.{step}").into_bytes());
        world.publish(&format!("1.{step}"), &files, &kernel, 1).0
    };
    all.iter().enumerate().map(publish).collect()
}

#[test]
fn hosts_for_whose_version_no_patch_was_made_borrow_operations_of_those_that_were() {
    let world = World::new();
    let dockerd = |files: &mut Files| drop(files.insert("usr/bin/dockerd".to_owned(), program(1, 8192, 900_000)));
    let containerd = |files: &mut Files| drop(files.insert("usr/bin/containerd".to_owned(), program(3, 8192, 600_000)));
    let images = published_one_after_the_other(&world, &[|_| (), dockerd, containerd, |_| ()]);
    let (last, map, index) = world.release("1.4");
    let starts: Vec<(Digest, bool)> = last.patches.iter().map(|info| (info.from, info.borrowed)).collect();
    // From 1.2 and 1.3 there is little to fetch but what the version changes.
    for (from, image) in images.iter().enumerate().take(4) {
        let (made, bytes, _) = world.update(image, &format!("1.{from}"), "1.4");
        assert!(made == images[4], "1.{from}");
        let (old, old_map, _) = world.release(&format!("1.{from}"));
        let local = LocalChunks::of(&old_map);
        let chunks: u64 = local.lacking(&map).iter().map(|number| u64::from(index.entry(*number).unwrap().len)).sum();
        if from < 3 {
            assert!(bytes * 4 < chunks || chunks < 5000, "1.{from}: {bytes} bytes, {chunks} of chunks");
        }
        assert!(from > 1 || starts.contains(&(old.root_hash, true)), "1.{from}: {starts:?}");
    }
    // Each pack is there once, however many tables count it, and stays as long as one does.
    let different: std::collections::HashSet<Digest> = last.patch_packs.iter().map(|pack| pack.sha256).collect();
    assert_eq!(different.len(), last.patch_packs.len());
    let mut repository = Repository::open(&world.repository(), &world.keys).unwrap();
    let mut context = Context { repository: &mut repository, keys: &world.keys, expiries: &Expiries::default(), now: now() };
    prune(&mut context, 1).unwrap();
    drop(repository);
    let left = fs::read_dir(world.repository().join("objects")).unwrap().map(|entry| entry.unwrap().path());
    let left: Vec<PathBuf> = left.filter(|path| path.extension().is_some_and(|kind| kind == "table")).collect();
    assert_eq!(left.len(), last.patches.len(), "tables of releases that are gone");
    let kept = |pack: &ObjectRef| world.repository().join(pack.path(ObjectKind::Patch)).exists();
    assert!(last.patch_packs.len() > 1 && last.patch_packs.iter().all(kept), "{:?}", last.patch_packs);
    let tables = |info: &PatchInfo| world.repository().join(info.table.path(ObjectKind::Table)).exists();
    assert!(last.patches.iter().all(tables), "{:?}", last.patches);
}

#[test]
fn an_earlier_patch_that_is_damaged_or_gone_is_told_and_nothing_is_borrowed_of_it() {
    for kind in ["table", "patch"] {
        let world = World::new();
        let dockerd = |files: &mut Files| drop(files.insert("usr/bin/dockerd".to_owned(), program(1, 8192, 900_000)));
        published_one_after_the_other(&world, &[dockerd]);
        let objects = fs::read_dir(world.repository().join("objects")).unwrap().map(|entry| entry.unwrap().path());
        for path in objects.filter(|path| path.extension().is_some_and(|extension| extension == kind)) {
            if kind == "table" { fs::remove_file(path).unwrap() } else { fs::write(path, b"short").unwrap() }
        }
        let (_, published) = world.publish("1.9", &tree(), &program(99, 0, 300_000), 0);
        let costs = published.costs.unwrap();
        assert!(costs.lost_patches.len() == 1 && costs.lost_patches[0].starts_with("from 1.0 to 1.1: "), "{:?}", costs.lost_patches);
        assert!(costs.chunks_from.iter().all(|from| !from.borrowed));
    }
}

#[test]
fn what_changed_twice_is_made_of_each_versions_own_bytes_and_later_releases_borrow_that() {
    let world = World::new();
    let edits: [fn(&mut Files); 4] = [
        |files| drop(files.insert("usr/bin/dockerd".to_owned(), program(1, 8192, 900_000))),
        |files| drop(files.insert("usr/bin/dockerd".to_owned(), program(1, 12_288, 900_000))),
        |files| drop(files.insert("usr/bin/containerd".to_owned(), program(3, 8192, 600_000))),
        |files| drop(files.insert("usr/bin/dockerd".to_owned(), program(1, 16_384, 900_000))),
    ];
    let images = published_one_after_the_other(&world, &edits);
    let lends = |version: &str| world.release(version).0.patches.iter().map(|info| info.lends).collect::<Vec<_>>();
    for (to, most) in [(2, 60_000), (3, 60_000), (4, 60_000)] {
        for (from, image) in images.iter().enumerate().take(to) {
            let (made, bytes, _) = world.update(image, &format!("1.{from}"), &format!("1.{to}"));
            assert!(made == images[to] && bytes < most, "1.{from} to 1.{to}: {bytes}");
        }
    }
    // From 1.1 and 1.0 to 1.3 it is borrowed of what 1.2 was published with; 1.4 has another dockerd, of three versions' bytes.
    assert_eq!([lends("1.2"), lends("1.3")].map(|lends| lends.into_iter().filter(|lends| *lends).count()), [1, 0]);
    assert_eq!(lends("1.4").into_iter().filter(|lends| *lends).count(), 2);
    let packs = |version: &str| world.release(version).0.patch_packs;
    assert!(packs("1.3").iter().filter(|pack| packs("1.2").contains(pack)).count() == 2, "{:?}", packs("1.3"));
}

#[test]
fn a_publisher_that_wants_no_patches_makes_none_for_what_changed_twice_either() {
    let world = World::new();
    let mut files = tree();
    for step in 0..3_u32 {
        files.insert("usr/bin/dockerd".to_owned(), program(1, 4096 * (step + 1), 900_000));
        world.publish(&format!("1.{step}"), &files, &program(99, 0, 300_000), 0);
    }
    let (last, ..) = world.release("1.2");
    assert!(last.patches.is_empty() && last.patch_packs.is_empty(), "{last:?}");
}

#[test]
fn versions_that_were_taken_back_do_not_stand_before_the_one_that_a_patch_starts_from() {
    let world = World::new();
    let files: Files = [("etc/os-release".to_owned(), noise(1, 9000))].into();
    world.publish("1.0", &files, b"kernel", 0);
    for step in 1..=6 {
        world.publish(&format!("1.{step}"), &files, b"kernel", 0);
        world.withdraw(&format!("1.{step}"));
    }
    let (_, published) = world.publish("1.7", &files, b"kernel", 1);
    let costs = published.costs.unwrap();
    // Chunks and a difference cost less than such a patch, which is made all the same.
    let made = |from: &publisher::cost::CostFrom| from.patch.or(from.refused_patch).is_some();
    let told: Vec<_> = costs.chunks_from.iter().map(|from| (from.version.as_str(), made(from))).collect();
    assert_eq!(told, [("1.6", false), ("1.5", false), ("1.4", false), ("1.3", false), ("1.2", false), ("1.0", true)]);
}

/// Names of the differences that are there.
fn differences(world: &World) -> Vec<String> {
    let names = fs::read_dir(world.repository().join("objects")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".difference")).map(|name| format!("objects/{name}")).collect();
    names.sort();
    names
}

#[test]
fn a_release_has_differences_from_earlier_ones_that_are_offered_and_pruning_keeps_those_of_live_ones() {
    let world = World::new();
    let mut files = tree();
    let mut images = Vec::new();
    for step in 0..5 {
        files.insert("etc/os-release".to_owned(), format!("VERSION=1.{step}").into_bytes());
        if step == 3 {
            world.withdraw("1.2");
        }
        let (image, published) = world.publish(&format!("1.{step}"), &files, &program(99, 0, 300_000), 0);
        let costs = published.costs.unwrap();
        for from in &costs.chunks_from {
            let difference = from.difference.filter(|_| from.version != "1.2" || step < 3);
            assert_eq!(difference.is_some(), from.version != "1.2" || step < 3, "1.{step}: {from:?}");
            // The metadata, the release's name, the head of the UKI, and what says where they are.
            assert!(from.by_chunks(costs.map_and_index) < 1500 || difference.is_none(), "{costs:?}");
        }
        images.push(image);
    }
    let (last, ..) = world.release("1.4");
    let hashes: Vec<Digest> = ["1.3", "1.1", "1.0"].iter().map(|version| world.release(version).0.root_hash).collect();
    assert_eq!(last.differences.iter().map(|info| info.from).collect::<Vec<_>>(), hashes);
    let both = last.map.size + last.index.size;
    assert!(last.differences.iter().all(|info| info.difference.size * 3 < both), "{:?} {both}", last.differences);
    for from in [0, 1, 3] {
        let (made, bytes, _) = world.update(&images[from], &format!("1.{from}"), "1.4");
        assert!(made == images[4] && bytes < 1500, "1.{from}: {bytes}");
    }
    assert_eq!(differences(&world).len(), 1 + 2 + 2 + 3);
    let mut repository = Repository::open(&world.repository(), &world.keys).unwrap();
    let mut context = Context { repository: &mut repository, keys: &world.keys, expiries: &Expiries::default(), now: now() };
    prune(&mut context, 2).unwrap();
    drop(repository);
    let mut live: Vec<String> = ["1.3", "1.4"]
        .iter()
        .flat_map(|version| world.release(version).0.differences)
        .map(|info| info.difference.path(ObjectKind::Difference))
        .collect();
    live.sort();
    assert_eq!(differences(&world), live);
}

#[test]
fn a_patch_that_costs_more_than_chunks_is_told_and_not_kept() {
    let world = World::new();
    world.publish("1.0", &[("a".to_owned(), noise(1, 9000))].into(), b"kernel", 1);
    // The same chunks twice: one payload in a pack, and one in each of a patch's windows.
    let big = noise(2, 4 << 20);
    let (_, published) = world.publish("1.1", &[("big".to_owned(), big.clone()), ("twin".to_owned(), big)].into(), b"kernel", 1);
    let costs = published.costs.unwrap();
    assert!(costs.chunks_from[0].patch.is_none() && costs.chunks_from[0].refused_patch.is_some(), "{costs:?}");
    let objects = fs::read_dir(world.repository().join("objects")).unwrap();
    assert!(!objects.map(|entry| entry.unwrap().path()).any(|path| path.extension().is_some_and(|kind| kind == "patch")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_tree_leads_to_any_other(
        old in proptest::collection::btree_map("[a-d]{1,2}", proptest::collection::vec(0_u8..5, 0..9000), 0..8),
        new in proptest::collection::btree_map("[a-d]{1,2}", proptest::collection::vec(0_u8..5, 0..9000), 0..8),
        big in 1_usize..700_000, cut: prop::sample::Index, kernel in proptest::collection::vec(any::<u8>(), 1..4000),
    ) {
        let world = World::new();
        let (mut old, mut new) = (old, new);
        let body = noise(7, big);
        let mut turned = body.clone();
        turned.rotate_left(cut.index(big));
        old.insert("big".to_owned(), body);
        new.insert("big".to_owned(), turned);
        let (before, _) = world.publish("1.0", &old, &kernel, 1);
        let (after, _) = world.publish("1.1", &new, &kernel[..kernel.len() / 2 + 1], 1);
        let (made, ..) = world.update(&before, "1.0", "1.1");
        prop_assert!(made == after);
    }
}

/// What real releases cost: `GARBOARD_RELEASES` names directories with release parts, oldest first, separated by colons.
#[test]
#[ignore = "needs images that were built; docs/benchmarks.md"]
fn costs_of_real_releases() {
    let world = World::new();
    let mut repository = Repository::open(&world.repository(), &world.keys).unwrap();
    // What the first costs is of no interest here.
    for (out, level) in
        std::env::split_paths(&std::env::var_os("GARBOARD_RELEASES").unwrap()).zip([1].into_iter().chain(std::iter::repeat(19)))
    {
        let began = std::time::Instant::now();
        let mut context = Context { repository: &mut repository, keys: &world.keys, expiries: &Expiries::default(), now: now() };
        let offer = Offer { patches: 1, ..Offer::default() };
        let built = |parts: &[u8]| serde_json::from_slice::<Parts>(parts).unwrap().root_hash.parse::<Digest>().unwrap();
        let directory = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.join(PARTS_FILE).exists()).unwrap();
        let hash = *built(&fs::read(directory.join(PARTS_FILE)).unwrap()).as_bytes();
        let published = publish(&mut context, &out, &"stable".parse().unwrap(), &offer, level, &|_, _, _, _| Ok(hash)).unwrap();
        let memory = fs::read_to_string("/proc/self/status").unwrap();
        let peak = memory.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned();
        println!("{} s, {peak}: {}", began.elapsed().as_secs(), serde_json::to_string_pretty(&published).unwrap());
    }
}
