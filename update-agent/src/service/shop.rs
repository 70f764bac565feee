//! A publisher with its keys and its repository.

use std::path::{Path, PathBuf};

use publisher::keys::{Keys, Threshold};
use publisher::publish::{Context, Offer, publish};
use publisher::repository::{Repository, Resign};
use publisher::{Expiries, Role};
use release_format::{ContentMap, DifferenceInfo, Digest, ObjectKind};

use crate::crash::fixture::{GAP, Release};

/// A publisher with its repository.
pub struct Shop {
    pub directory: tempfile::TempDir,
    pub keys: Keys,
}

impl Shop {
    pub fn new() -> Self {
        Self::with_keys(Threshold::ONE, &Expiries::default())
    }

    pub fn with_keys(roots: Threshold, expiries: &Expiries) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::init(&directory.path().join("keys"), roots, expiries, now()).unwrap();
        Self { directory, keys }
    }

    pub fn rotate(&mut self, roles: &[Role]) {
        self.rotate_expiring(roles, &Expiries::default());
    }

    pub fn rotate_expiring(&mut self, roles: &[Role], expiries: &Expiries) {
        let keys = Keys::open(&self.directory.path().join("keys")).unwrap();
        self.keys = keys.rotate(roles, None, expiries, now()).unwrap();
    }

    /// A bundle of the newest release.
    pub fn bundle(&self) -> PathBuf {
        let out = self.directory.path().join("release.bundle");
        let repository = Repository::open(&self.repository(), &self.keys).unwrap();
        publisher::bundle::bundle(&repository, &"stable".parse().unwrap(), None, None, &out).unwrap();
        out
    }

    pub fn repository(&self) -> PathBuf {
        self.directory.path().join("repo")
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("keys/root.json")
    }

    pub fn publish(&self, release: &Release) {
        self.publish_expiring(release, &Expiries::default());
    }

    /// In a thread of its own: the publisher checks its work with a client that has a runtime of its own.
    pub fn publish_expiring(&self, release: &Release, expiries: &Expiries) {
        std::thread::scope(|scope| scope.spawn(|| self.publish_here(release, expiries, 0)).join().unwrap());
    }

    /// With a patch from the version before.
    pub fn publish_with_patch(&self, release: &Release) {
        std::thread::scope(|scope| scope.spawn(|| self.publish_here(release, &Expiries::default(), 1)).join().unwrap());
    }

    /// Puts other bytes in place of the newest release's difference, named and signed as if they were right.
    pub fn replace_difference(&self, bytes: &[u8], format: u32) {
        self.replace_release(|repository, release| {
            let difference = repository.write_object(bytes, ObjectKind::Difference).unwrap();
            release.differences[0] = DifferenceInfo { format, difference, ..release.differences[0] };
        });
    }

    /// Moves the newest release's patches to the list of those from older versions, which have no differences, or puts these bytes in its place.
    pub fn patches_in_a_list(&self, bytes: Option<&[u8]>) {
        self.replace_release(|repository, release| {
            let patches = std::mem::take(&mut release.patches);
            release.differences.clear();
            release.older_patches = Some(match bytes {
                Some(bytes) => repository.write_object(bytes, ObjectKind::Older).unwrap(),
                None => repository.write_older_patches(patches).unwrap(),
            });
        });
    }

    /// Changes the newest release's metadata, signed as if they were right.
    pub fn replace_release(&self, change: impl FnOnce(&Repository, &mut release_format::Release) + Send) {
        let replace = || {
            let mut repository = Repository::open(&self.repository(), &self.keys).unwrap();
            let mut channels = repository.channels();
            let entry = channels.values_mut().next().unwrap().releases.last_mut().unwrap();
            let mut release = repository.read_release(&entry.release).unwrap();
            change(&repository, &mut release);
            entry.release = repository.write_object(&release.encode().unwrap(), ObjectKind::Release).unwrap();
            repository.commit(&channels, Resign::Targets, &self.keys, &Expiries::default(), now()).unwrap();
        };
        std::thread::scope(|scope| scope.spawn(replace).join().unwrap());
    }

    /// The files of the repository with this ending.
    pub fn objects(&self, ending: &str) -> Vec<PathBuf> {
        let objects = std::fs::read_dir(self.repository().join("objects")).unwrap().map(|entry| entry.unwrap().path());
        objects.filter(|path| path.extension().is_some_and(|extension| extension == ending)).collect()
    }

    /// The content map of a release.
    pub fn map(&self, version: &str) -> ContentMap {
        let repository = Repository::open(&self.repository(), &self.keys).unwrap();
        let channels = repository.channels();
        let entry = channels.values().next().unwrap().release(&version.parse().unwrap()).unwrap();
        let release = repository.read_release(&entry.release).unwrap();
        ContentMap::decode(&repository.read_object(&release.map, ObjectKind::Map).unwrap()).unwrap()
    }

    fn publish_here(&self, release: &Release, expiries: &Expiries, patches: usize) {
        let out = self.directory.path().join(format!("out-{}", release.image.uki.version));
        write_parts(&out, release);
        let mut repository = Repository::open(&self.repository(), &self.keys).unwrap();
        let mut context = Context { repository: &mut repository, keys: &self.keys, expiries, now: now() };
        let hash = release.image.uki.root_hash;
        publish(&mut context, &out, &"stable".parse().unwrap(), &Offer { patches, ..Offer::default() }, 3, &|_, _, _, _| Ok(hash)).unwrap();
    }
}

pub fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

pub fn write_parts(out: &Path, release: &Release) {
    let uki = &release.image.uki;
    let directory = out.join(format!("tiny-{}-x86_64.release", uki.version));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("root.erofs"), &release.root).unwrap();
    std::fs::write(directory.join("uki.efi"), &release.uki).unwrap();
    let superblock = &release.image.superblock;
    let parts = serde_json::json!({
        "schema": 1,
        "image": "tiny",
        "version": uki.version.as_str(),
        "architecture": "x86_64",
        "root_hash": Digest::new(uki.root_hash),
        "verity_size": disk_layout::hash_area_blocks(superblock.data_blocks) * 4096,
        "verity_salt": crate::verity::hex(&superblock.salt),
        "verity_uuid": superblock.uuid,
        "root": {"file": "root.erofs", "offset": 0, "size": release.root.len()},
        "extents": [["", 8192], ["usr/bin/a", GAP.start - 8192], ["usr/bin/b", release.root.len() - GAP.end]],
        "sections": [["", 512], [".linux", release.uki.len() - 512]],
        "state": release.floor,
    });
    std::fs::write(directory.join("parts.json"), parts.to_string()).unwrap();
}
