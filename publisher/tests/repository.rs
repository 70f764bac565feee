//! Whole publications of small made-up images, read back as a host reads them: with `tough` and `release-format`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{parts, root_hash};
use jiff::Timestamp;
use publisher::keys::{Keys, Threshold};
use publisher::parts::{PARTS_FILE, ROOT_FILE, UKI_FILE};
use publisher::publish::{Context, Offer, Published, prune, publish, refresh, withdraw};
use publisher::repository::{Repository, read_as_client};
use publisher::{Expiries, PublishError, Role, bundle};
use release_format::{
    Channel, ChunkDecoder, ContentMap, Digest, FetchPlan, FormatError, Name, ObjectKind, ObjectRef, PackIndex, Part, PlanOptions,
    RangeDecoder, Release, Rollout, Wave, Write,
};

const NOW: &str = "2026-03-01T00:00:00Z";

/// A directory with keys, release parts and a repository.
struct World {
    directory: tempfile::TempDir,
    now: Timestamp,
}

/// An image of these files.
struct Image {
    root: Vec<u8>,
    uki: Vec<u8>,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

impl World {
    fn new() -> Self {
        let world = Self { directory: tempfile::tempdir().unwrap(), now: NOW.parse().unwrap() };
        Keys::init(&world.keys_path(), Threshold::ONE, &Expiries::default(), world.now).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn keys_path(&self) -> PathBuf {
        self.path("keys")
    }

    fn keys(&self) -> Keys {
        Keys::open(&self.keys_path()).unwrap()
    }

    /// Release parts as a build leaves them; `shift` is where in the file the root image begins.
    fn build(&self, out: &str, version: &str, files: &[(&str, &[u8])], kernel: &[u8]) -> Image {
        let mut root = version.as_bytes().to_vec();
        root.resize(8192, 1);
        let mut extents = vec![(String::new(), 8192)];
        for (path, body) in files {
            extents.push(((*path).to_owned(), body.len() as u64));
            root.extend(*body);
            root.resize(root.len().next_multiple_of(4096), 0);
        }
        let uki = [version.as_bytes(), kernel].concat();
        let directory = self.path(out).join(format!("tiny-{version}-x86_64.release"));
        fs::create_dir_all(&directory).unwrap();
        let shift = 5000;
        fs::write(directory.join(ROOT_FILE), [&vec![0xdd; shift], root.as_slice()].concat()).unwrap();
        fs::write(directory.join(UKI_FILE), &uki).unwrap();
        let parts = parts(version, &root, shift as u64, extents, &[(".osrel", version.len()), (".linux", kernel.len())]);
        fs::write(directory.join(PARTS_FILE), serde_json::to_vec(&parts).unwrap()).unwrap();
        Image { root, uki }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Context<'_>) -> Result<T, PublishError>) -> Result<T, PublishError> {
        let keys = self.keys();
        let mut repository = Repository::open(&self.path("repo"), &keys)?;
        act(&mut Context { repository: &mut repository, keys: &keys, expiries: &Expiries::default(), now: self.now })
    }

    fn offer(&self, out: &str, channel: &str, offer: &Offer) -> Result<Vec<Published>, PublishError> {
        self.with(|context| publish(context, &self.path(out), &name(channel), offer, 3, &root_hash))
    }

    fn publish(&self, out: &str) -> Result<Vec<Published>, PublishError> {
        self.offer(out, "stable", &Offer::default())
    }

    /// What a host reads that trusts the first root.
    fn read(&self, repo: &str) -> Result<BTreeMap<String, Channel>, String> {
        let root = fs::read(self.keys_path().join("1.root.json")).unwrap();
        let repo = self.path(repo);
        read_as_client(&root, &repo.join("metadata"), &repo.join("targets"))
    }

    fn stable(&self) -> Channel {
        self.read("repo").unwrap().remove("v1.stable.tiny.x86_64.json").unwrap()
    }

    /// Downloads a version: all of it, from packs alone.
    fn download(&self, repo: &str, channel: &Channel, version: &str) -> Image {
        let repo = self.path(repo);
        let object = |object: &ObjectRef, kind| {
            let bytes = fs::read(repo.join(object.path(kind))).unwrap();
            object.verify(&bytes).unwrap();
            bytes
        };
        let entry = channel.release(&version.parse().unwrap()).unwrap();
        let release = Release::decode(&object(&entry.release, ObjectKind::Release)).unwrap();
        release.expect(channel, entry).unwrap();
        let map = ContentMap::decode(&object(&release.map, ObjectKind::Map)).unwrap();
        release.expect_map(&map).unwrap();
        assert_eq!(Digest::of(&map.body()), release.map_body);
        let index = PackIndex::decode(&object(&release.index, ObjectKind::Index), &map, &release.packs).unwrap();
        let packs: Vec<Vec<u8>> = release.packs.iter().map(|pack| object(pack, ObjectKind::Pack)).collect();
        let mut image = Image { root: vec![0xee; map.root_size() as usize], uki: vec![0xee; map.uki_size() as usize] };
        let mut decoder = ChunkDecoder::new().unwrap();
        let mut put = |write: Write<'_>| {
            let to = if write.part == Part::Root { &mut image.root } else { &mut image.uki };
            to[write.offset as usize..][..write.data.len()].copy_from_slice(write.data);
            Ok::<(), FormatError>(())
        };
        let plan = FetchPlan::new(&map, &index, &PlanOptions::default(), |_, _| true);
        for &chunk in &plan.zeros {
            put(decoder.zero(&map, &index, chunk).unwrap()).unwrap();
        }
        for fetch in &plan.fetches {
            let bytes = &packs[usize::from(fetch.pack)][fetch.offset as usize..][..fetch.len as usize];
            let mut range = RangeDecoder::new(&map, &index, fetch, &mut decoder);
            range.push(bytes, &mut put).unwrap();
            range.finish().unwrap();
        }
        assert_eq!(Digest::of(&image.root), release.root_hash);
        assert_eq!(Digest::of(&image.uki), release.uki.sha256);
        image
    }
}

/// Bytes without pattern.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// All files of a directory with their contents.
fn snapshot(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(snapshot(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn two_releases_are_read_back_byte_for_byte() {
    let world = World::new();
    let (library, tool) = (noise(1, 700_000), noise(2, 90_000));
    let kernel = noise(3, 400_000);
    let zeros = vec![0; 300_000];
    let first = world.build("a", "1.0", &[("bin/tool", &tool), ("lib/library", &library), ("zeros", &zeros)], &kernel);
    let published = world.publish("a").unwrap();
    assert!(published[0].new_pack > 1_100_000 && !published[0].already);

    let changed = noise(4, 90_000);
    let second = world.build("b", "1.1", &[("bin/new", b"hello"), ("bin/tool", &changed), ("lib/library", &library)], &kernel);
    let published = world.publish("b").unwrap();
    // Only what is new: the tool, the small file, the metadata, the UKI's head.
    assert!(published[0].new_pack < 100_000, "{published:?}");
    let costs = published[0].costs.as_ref().unwrap();
    assert!(costs.full.bytes > 1_100_000 && costs.chunks_from[0].cost.bytes < 100_000, "{costs:?}");

    let channel = world.stable();
    assert_eq!(channel.releases.iter().map(|entry| entry.version.as_str()).collect::<Vec<_>>(), ["1.0", "1.1"]);
    for (version, image) in [("1.0", first), ("1.1", second)] {
        let found = world.download("repo", &channel, version);
        assert!(found.root == image.root && found.uki == image.uki, "{version}");
    }
}

#[test]
fn a_version_has_one_content_for_ever() {
    let world = World::new();
    world.build("a", "1.0", &[("a", b"one")], b"kernel");
    world.publish("a").unwrap();
    let before = snapshot(&world.path("repo/objects"));
    assert!(world.publish("a").unwrap()[0].already, "the same bytes are no error");
    assert_eq!(snapshot(&world.path("repo/objects")), before);
    world.build("b", "1.0", &[("a", b"two")], b"kernel");
    assert!(matches!(world.publish("b"), Err(PublishError::Republished { .. })));
    world.build("c", "1.0", &[("a", b"one")], b"another kernel");
    assert!(matches!(world.publish("c"), Err(PublishError::Republished { .. })));
    // Nor in another channel, where the same bytes are welcome.
    assert!(matches!(world.offer("b", "beta", &Offer::default()), Err(PublishError::Republished { .. })));
    assert!(world.offer("a", "beta", &Offer::default()).unwrap()[0].already);
    assert_eq!(world.read("repo").unwrap().len(), 2);
    assert_eq!(snapshot(&world.path("repo/objects")), before);
}

#[test]
fn an_image_that_was_changed_since_is_refused() {
    let world = World::new();
    world.build("a", "1.0", &[("a", b"one")], b"kernel");
    let path = world.path("a/tiny-1.0-x86_64.release").join(ROOT_FILE);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = world.publish("a").unwrap_err();
    assert!(matches!(error, PublishError::Changed { .. }), "{error}");
    assert!(!world.path("repo/metadata").exists());
    assert!(matches!(world.publish("nothing"), Err(PublishError::NoParts(_))));
}

/// Stops after every file that a publication adds: whatever is there, a host reads the old state or the new one, and the
/// next publication succeeds.
#[test]
fn an_interrupted_publication_leaves_the_old_state() {
    let world = World::new();
    world.build("a", "1.0", &[("a", &noise(1, 5000))], b"kernel");
    world.publish("a").unwrap();
    let old = snapshot(&world.path("repo"));
    let old_channel = world.stable();
    world.build("b", "1.1", &[("a", &noise(2, 5000))], b"kernel");
    world.publish("b").unwrap();
    let new = snapshot(&world.path("repo"));
    let new_channel = world.stable();
    let written: Vec<_> = new.iter().filter(|(path, bytes)| old.get(*path) != Some(bytes)).collect();
    let replaced: Vec<_> = written.iter().filter(|(path, _)| old.contains_key(*path)).map(|(path, _)| (*path).clone()).collect();
    assert_eq!(replaced, [world.path("repo/metadata/timestamp.json")], "one file is ever replaced");
    // Any subset of the new files without the timestamp is the old state.
    for mask in 0_u32..1 << (written.len() - 1) {
        fs::remove_dir_all(world.path("repo")).unwrap();
        let others = written.iter().filter(|(path, _)| **path != replaced[0]).enumerate();
        let some = others.filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, (path, bytes))| (*path, *bytes));
        for (path, bytes) in old.iter().chain(some) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        assert_eq!(world.stable(), old_channel, "{mask:b}");
    }
    world.publish("b").unwrap();
    assert_eq!(world.stable(), new_channel);
    world.download("repo", &new_channel, "1.1");
}

#[test]
fn roll_outs_change_and_releases_do_not() {
    let world = World::new();
    world.build("a", "1.0", &[("a", b"one")], b"kernel");
    let rollout = |start, percent| Rollout { start, waves: vec![Wave { percent, until: 60 }], paused: false };
    let offer = |start, percent| Offer { rollout: Some(rollout(start, percent)), stepping_stone: None, patches: 0 };
    world.offer("a", "stable", &offer(100, 10)).unwrap();
    let before = world.stable().releases[0].clone();
    world.offer("a", "stable", &offer(200, 50)).unwrap();
    let after = world.stable().releases[0].clone();
    assert_eq!((after.release, after.rollout), (before.release, Some(rollout(100, 50))), "hosts that had their turn keep it");
    // A build server that publishes again changes nothing.
    world.publish("a").unwrap();
    assert_eq!(world.stable().releases[0].rollout, Some(rollout(100, 50)));
    world.with(|context| withdraw(context, &name("stable"), None, &"1.0".parse().unwrap())).unwrap();
    assert!(world.stable().releases[0].withdrawn);
    // And does not bring back what was taken back.
    assert!(matches!(world.publish("a"), Err(PublishError::Withdrawn { .. })));
    let missing = world.with(|context| withdraw(context, &name("stable"), None, &"9".parse().unwrap()));
    assert!(matches!(missing, Err(PublishError::NoVersion { .. })));
}

#[test]
fn the_timestamp_key_alone_refreshes() {
    let mut world = World::new();
    world.build("a", "1.0", &[("a", b"one")], b"kernel");
    world.publish("a").unwrap();
    for key in ["root.pem", "targets.pem", "snapshot.pem"] {
        fs::rename(world.keys_path().join(key), world.path(key)).unwrap();
    }
    let channel = world.stable();
    world.now = "2026-03-10T00:00:00Z".parse().unwrap();
    let refreshed = world.with(refresh).unwrap();
    assert_eq!((refreshed.signed, refreshed.warnings), (vec![Role::Timestamp], Vec::<String>::new()));
    assert_eq!(refreshed.expires["timestamp"], "2026-03-24T00:00:00Z");
    assert_eq!(refreshed.expires["targets"], "2027-03-01T00:00:00Z");
    assert_eq!(world.stable(), channel);
    // A quarter before the end somebody is told.
    world.now = "2027-01-01T00:00:00Z".parse().unwrap();
    let refreshed = world.with(refresh).unwrap();
    assert!(refreshed.warnings.iter().any(|text| text.contains("targets metadata expire in 59 days")), "{refreshed:?}");
    world.build("b", "1.1", &[("a", b"two")], b"kernel");
    let error = world.publish("b").unwrap_err();
    assert!(matches!(error, PublishError::MissingKeys { role: Role::Targets, .. }), "{error}");
    assert_eq!(world.stable(), channel);
    // With the keys there it signs what is due.
    for key in ["targets.pem", "snapshot.pem"] {
        fs::rename(world.path(key), world.keys_path().join(key)).unwrap();
    }
    let refreshed = world.with(refresh).unwrap();
    assert_eq!(refreshed.signed, [Role::Targets, Role::Snapshot, Role::Timestamp]);
    assert_eq!(world.stable(), channel);
}

#[test]
fn hosts_follow_when_keys_are_replaced() {
    let world = World::new();
    world.build("a", "1.0", &[("a", b"one")], b"kernel");
    world.publish("a").unwrap();
    for roles in [&[Role::Timestamp][..], &[Role::Targets, Role::Snapshot], &[Role::Root], &Role::ALL] {
        world.keys().rotate(roles, None, &Expiries::default(), world.now).unwrap();
        world.with(refresh).unwrap();
        assert_eq!(world.stable().releases.len(), 1, "{roles:?}");
    }
    assert!(world.path("repo/metadata/5.root.json").exists());
    world.build("b", "1.1", &[("a", b"two")], b"kernel");
    world.publish("b").unwrap();
    assert_eq!(world.stable().releases.len(), 2);
}

#[test]
fn a_repository_of_other_keys_is_not_touched() {
    let world = World::new();
    world.build("a", "1.0", &[("a", b"one")], b"kernel");
    world.publish("a").unwrap();
    let before = snapshot(&world.path("repo"));
    fs::rename(world.keys_path(), world.path("other")).unwrap();
    Keys::init(&world.keys_path(), Threshold::ONE, &Expiries::default(), world.now).unwrap();
    world.build("b", "1.1", &[("a", b"two")], b"kernel");
    let error = world.publish("b").unwrap_err();
    assert!(matches!(error, PublishError::Metadata { .. }), "{error}");
    assert_eq!(snapshot(&world.path("repo")), before);
}

#[test]
fn one_publication_at_a_time() {
    let world = World::new();
    let keys = world.keys();
    let _held = Repository::open(&world.path("repo"), &keys).unwrap();
    assert!(matches!(Repository::open(&world.path("repo"), &keys), Err(PublishError::Locked(_))));
}

#[test]
fn pruning_leaves_what_is_needed() {
    let world = World::new();
    let shared = noise(9, 50_000);
    for number in 0..5 {
        let out = format!("out{number}");
        world.build(&out, &format!("1.{number}"), &[("shared", &shared), ("own", &noise(number, 40_000))], b"kernel");
        let stepping_stone = (number == 4).then(|| "1.1".parse().unwrap());
        world.offer(&out, "stable", &Offer { stepping_stone, ..Offer::default() }).unwrap();
    }
    fs::write(world.path("repo/objects/notes.txt"), "not ours").unwrap();
    fs::write(world.path("repo/objects/.new-abc"), "cut short").unwrap();
    let pruned = world.with(|context| prune(context, 2)).unwrap();
    assert_eq!(pruned.retired, ["stable/tiny/1.0", "stable/tiny/1.2"]);
    assert!(pruned.files > 6 && pruned.bytes > 40_000, "{pruned:?}");
    assert!(world.path("repo/objects/notes.txt").exists() && !world.path("repo/objects/.new-abc").exists());
    let channel = world.stable();
    // The pack of 1.0 stays: it has what all share.
    for version in ["1.1", "1.3", "1.4"] {
        world.download("repo", &channel, version);
    }
    let again = world.with(|context| prune(context, 2)).unwrap();
    assert_eq!((again.retired.len(), again.files), (0, 0), "{again:?}");
    // A retired version is not published again, with whatever bytes.
    assert!(matches!(world.publish("out0"), Err(PublishError::Republished { .. })));
}

#[test]
fn a_bundle_is_a_repository_of_one_release() {
    let world = World::new();
    for (out, version) in [("a", "1.0"), ("b", "1.1")] {
        world.build(out, version, &[("a", &noise(u64::from(version == "1.1"), 9000))], b"kernel");
        world.publish(out).unwrap();
    }
    let file = world.path("tiny.bundle");
    let make = |version: Option<&str>| {
        let version = version.map(|version| version.parse().unwrap());
        world.with(|context| bundle::bundle(context.repository, &name("stable"), None, version.as_ref(), &file))
    };
    assert_eq!(make(None).unwrap().version, "1.1");
    let bytes = fs::read(&file).unwrap();
    make(Some("1.1")).unwrap();
    assert!(fs::read(&file).unwrap() == bytes, "the same bytes each time");
    tar::Archive::new(bytes.as_slice()).unpack(world.path("unpacked")).unwrap();
    let channel = world.read("unpacked").unwrap().remove("v1.stable.tiny.x86_64.json").unwrap();
    world.download("unpacked", &channel, "1.1");
    let old = channel.release(&"1.0".parse().unwrap()).unwrap();
    assert!(!world.path("unpacked").join(old.release.path(ObjectKind::Release)).exists(), "one release only");
    // From a bundle all is read, so what leads from other versions is left out.
    let others = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "difference" || kind == "patch");
    assert_eq!(snapshot(&world.path("unpacked")).keys().filter(|path| others(path)).count(), 0);
    assert!(matches!(make(Some("2")), Err(PublishError::NoVersion { .. })));
}
