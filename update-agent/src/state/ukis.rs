//! Copies of both slots' UKIs, to repair the ESP from. One that is being downloaded is `VERSION.part` until its digest was found right.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use disk_layout::Version;
use release_format::Digest;
use serde::{Deserialize, Serialize};

use super::{State, StateError, io_error, write_whole};
use crate::commit::Uki;
use crate::recovery::Copies;

impl State {
    /// The path of a copy of a UKI.
    #[must_use]
    pub fn uki_path(&self, version: &Version) -> PathBuf {
        self.root.join("uki").join(format!("{version}.efi"))
    }

    /// Makes room for a UKI that is about to be downloaded, and gives the file for it, with what an earlier run left in it.
    ///
    /// # Errors
    /// When there is no room even without the reserve.
    pub fn stage_uki(&self, version: &Version, size: u64) -> Result<File, StateError> {
        let path = self.uki_path(version).with_extension("part");
        let allocate = || -> io::Result<File> {
            let file = File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size) {
                Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(size)?,
                result => result?,
            }
            file.set_len(size)?;
            Ok(file)
        };
        match allocate() {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && self.release_reserve() => allocate(),
            result => result,
        }
        .map_err(io_error(&path))
    }

    /// Keeps a staged UKI as the copy of its version, once its digest was found right.
    ///
    /// # Errors
    /// When it is not the one that it should be, or state cannot be written.
    pub fn keep_uki(&self, uki: &Uki) -> Result<(), StateError> {
        let path = self.uki_path(&uki.version);
        let part = path.with_extension("part");
        let file = File::open(&part).map_err(io_error(&part))?;
        file.sync_all().map_err(io_error(&part))?;
        if digest_of(&part).map_err(io_error(&part))? != uki.sha256 {
            return Err(io_error(&part)(io::Error::new(
                io::ErrorKind::InvalidData,
                "the staged UKI has another digest than the release says",
            )));
        }
        fs::rename(&part, &path).map_err(io_error(&path))?;
        let record = UkiRecord {
            version: uki.version.to_string(),
            root_hash: Digest::new(uki.root_hash),
            len: uki.len,
            sha256: Digest::new(uki.sha256),
        };
        self.save(&format!("uki/{}.json", uki.version), &record)
    }

    /// Keeps a copy of a UKI that came with the machine.
    ///
    /// # Errors
    /// When state cannot be written.
    pub fn adopt_uki(&self, uki: &Uki, content: &[u8]) -> Result<(), StateError> {
        let part = self.uki_path(&uki.version).with_extension("part");
        self.with_room(|| write_whole(&part, content)).map_err(io_error(&part))?;
        self.keep_uki(uki)
    }

    /// Whether there is a whole copy of a UKI.
    #[must_use]
    pub fn has_uki(&self, uki: &Uki) -> bool {
        self.known().contains(uki) && digest_of(&self.uki_path(&uki.version)).is_ok_and(|digest| digest == uki.sha256)
    }

    /// Removes copies of versions that are in no slot.
    pub fn prune_ukis(&self, keep: &[Version]) {
        for entry in fs::read_dir(self.root.join("uki")).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
            if !keep.iter().any(|version| version.as_str() == stem) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
struct UkiRecord {
    version: String,
    root_hash: Digest,
    len: u64,
    sha256: Digest,
}

/// SHA-256 of a file.
///
/// # Errors
/// When it cannot be read.
pub fn digest_of(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hasher = release_format::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(*hasher.finish().as_bytes());
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
    }
}

impl Copies for State {
    fn known(&self) -> Vec<Uki> {
        let entries = fs::read_dir(self.root.join("uki")).into_iter().flatten().flatten();
        let records = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.ends_with(".json").then(|| self.load::<UkiRecord>(&format!("uki/{name}")).ok().flatten())?
        });
        records
            .filter_map(|record| {
                let version = record.version.parse().ok()?;
                Some(Uki { version, root_hash: *record.root_hash.as_bytes(), len: record.len, sha256: *record.sha256.as_bytes() })
            })
            .collect()
    }

    fn open(&self, uki: &Uki) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(File::open(self.uki_path(&uki.version))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_uki_becomes_a_copy() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(&directory.path().join("update")).unwrap();
        let content = b"MZ uki".to_vec();
        let sha256 = *Digest::of(&content).as_bytes();
        let uki = Uki { version: "1.1".parse().unwrap(), root_hash: [1; 32], len: content.len() as u64, sha256 };
        let wrong = Uki { sha256: [0; 32], ..uki.clone() };
        assert!(state.adopt_uki(&wrong, &content).is_err());
        assert!(state.known().is_empty());
        state.adopt_uki(&uki, &content).unwrap();
        assert_eq!(state.known(), std::slice::from_ref(&uki));
        let mut back = Vec::new();
        state.open(&uki).unwrap().read_to_end(&mut back).unwrap();
        assert_eq!(back, content);
        state.prune_ukis(&[]);
        assert!(state.known().is_empty());
    }
}
