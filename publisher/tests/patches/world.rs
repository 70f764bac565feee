//! A publisher with releases of a few files, and hosts that update from one to another of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;
use publisher::keys::{Keys, Threshold};
use publisher::parts::{PARTS_FILE, ROOT_FILE, UKI_FILE};
use publisher::publish::{Context, Offer, Published, prune, publish, withdraw};
use publisher::repository::Repository;
use publisher::{Expiries, PublishError};
use release_format::{
    ChunkDecoder, ContentMap, Digest, FetchPlan, FormatError, LocalChunks, MAX_REQUESTS, ObjectKind, PackIndex, Part, PatchDecoder,
    PatchTable, PlanOptions, RangeDecoder, Release, Write, decode_difference,
};

use crate::common::{parts, root_hash};

pub type Files = BTreeMap<String, Vec<u8>>;

pub struct World {
    pub directory: tempfile::TempDir,
    pub keys: Keys,
}

#[derive(Clone, PartialEq)]
pub struct Image {
    pub root: Vec<u8>,
    pub uki: Vec<u8>,
}

pub fn now() -> Timestamp {
    "2026-03-01T00:00:00Z".parse().unwrap()
}

impl World {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::init(&directory.path().join("keys"), Threshold::ONE, &Expiries::default(), now()).unwrap();
        Self { directory, keys }
    }

    pub fn repository(&self) -> PathBuf {
        self.directory.path().join("repo")
    }

    pub fn publish(&self, version: &str, files: &Files, kernel: &[u8], patches: usize) -> (Image, Published) {
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

    pub fn withdraw(&self, version: &str) {
        let mut repository = Repository::open(&self.repository(), &self.keys).unwrap();
        let mut context = Context { repository: &mut repository, keys: &self.keys, expiries: &Expiries::default(), now: now() };
        withdraw(&mut context, &"stable".parse().unwrap(), None, &version.parse().unwrap()).unwrap();
    }

    pub fn prune(&self, keep: usize) {
        self.try_prune(keep).unwrap();
    }

    pub fn try_prune(&self, keep: usize) -> Result<(), PublishError> {
        let mut repository = Repository::open(&self.repository(), &self.keys).unwrap();
        let mut context = Context { repository: &mut repository, keys: &self.keys, expiries: &Expiries::default(), now: now() };
        prune(&mut context, keep).map(|_| ())
    }

    /// Digests of all files of the repository by their paths.
    pub fn files(&self) -> BTreeMap<PathBuf, Digest> {
        let mut files = BTreeMap::new();
        for directory in ["objects", "metadata", "targets"] {
            for entry in fs::read_dir(self.repository().join(directory)).unwrap() {
                let path = entry.unwrap().path();
                files.insert(path.clone(), Digest::of(&fs::read(&path).unwrap()));
            }
        }
        files
    }

    /// What is left of a release that was retired, too.
    pub fn metadata_and_map(&self, version: &str) -> (Release, ContentMap) {
        let repository = Repository::open(&self.repository(), &self.keys).unwrap();
        let channels = repository.channels();
        let entry = channels.values().next().unwrap().release(&version.parse().unwrap()).unwrap();
        let release = repository.read_release(&entry.release).unwrap();
        let map = ContentMap::decode(&repository.read_object(&release.map, ObjectKind::Map).unwrap()).unwrap();
        (release, map)
    }

    pub fn release(&self, version: &str) -> (Release, ContentMap, PackIndex) {
        let (release, map) = self.metadata_and_map(version);
        let index = PackIndex::decode(&self.object(&release.index.path(ObjectKind::Index)), &map, &release.packs).unwrap();
        (release, map, index)
    }

    pub fn object(&self, path: &str) -> Vec<u8> {
        fs::read(self.repository().join(path)).unwrap()
    }

    /// From one version to another as a host goes; gives what came out, how many bytes were fetched and in how many requests.
    pub fn update(&self, old: &Image, from: &str, to: &str) -> (Image, u64, usize) {
        let (old_release, old_map) = self.metadata_and_map(from);
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
        let older = Repository::open(&self.repository(), &self.keys).unwrap().older_patches(&release).unwrap();
        if let Some(info) = release.patches.iter().chain(&older).find(|info| info.from == old_release.root_hash) {
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
            let most = if bytes > 0 { MAX_REQUESTS / 2 } else { MAX_REQUESTS };
            let plan = FetchPlan::within(&map, &index, &PlanOptions::default(), most, want);
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

pub fn noise(seed: u64, len: usize) -> Vec<u8> {
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
pub fn program(seed: u64, base: u32, len: usize) -> Vec<u8> {
    let mut code = noise(seed, len);
    for (number, call) in code.chunks_exact_mut(32).enumerate() {
        call[4..8].copy_from_slice(&(base + number as u32 * 16).to_le_bytes());
    }
    code
}

pub fn tree() -> Files {
    let mut files: Files =
        (0..12).map(|number| (format!("usr/lib/modules/6.12.1/m{number}.ko"), program(50 + number, 77, 20_000))).collect();
    files.insert("usr/bin/dockerd".to_owned(), program(1, 4096, 900_000));
    files.insert("etc/os-release".to_owned(), b"VERSION=1".to_vec());
    files
}
