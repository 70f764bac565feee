//! What the agent remembers: files on the state partition, each written whole or not at all, and read again after any cut.
//!
//! | file | is |
//! |---|---|
//! | `journal.json` | the update that is under way or waits for its reboot |
//! | `versions.json` | what became of each version here, and what happened when |
//! | `policy.json` | the pin |
//! | `uki/<version>.efi`, `.json` | copies of both slots' UKIs, to repair the ESP from |
//! | `tuf/` | the metadata seen last, so that nobody can offer older ones |
//! | `reserve` | room, so that a full partition cannot stop an update |

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use disk_layout::Version;
use release_format::{Digest, ObjectRef};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::commit::Uki;
use crate::recovery::{Copies, Standing};
use crate::verity::hex;

/// Version of the layout of these files.
pub const LAYOUT: u32 = 1;
const RESERVE: u64 = 64 << 20;
const MAX_EVENTS: usize = 200;

/// Why something could not be remembered.
#[derive(Debug, Error)]
pub enum StateError {
    /// A file failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file was written by a later version of this program.
    #[error("{} has layout {found}, and this program reads {LAYOUT}: it was written by a newer version", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: u32,
    },
}

/// The directory of all that.
#[derive(Clone, Debug)]
pub struct State {
    root: PathBuf,
    verdicts: PathBuf,
}

/// An update from its beginning to the reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Of which version.
    pub version: String,
    /// Its root hash.
    pub root_hash: Digest,
    /// Its metadata.
    pub release: ObjectRef,
    /// Into which slot.
    pub slot: String,
    /// How far it is.
    pub phase: Phase,
    /// Fetches of the plan that are on the disk.
    pub fetches: u64,
    /// Bytes received in all, for the report.
    pub fetched: u64,
}

/// How far an update is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The root is being written.
    Writing,
    /// The root is whole and verified; the UKI is missing.
    Filled,
    /// The UKI is in place: the next boot is the trial.
    Committed,
}

/// What became of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fate {
    /// Its root hash; a version built again is another one.
    pub root_hash: String,
    /// `failed` or `set-aside`.
    pub fate: String,
    /// Why.
    pub reason: String,
    /// Seconds since 1970.
    pub time: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Seconds since 1970.
    pub time: u64,
    /// `installed`, `good`, `failed`, `rolled-back`, `replaced`.
    pub what: String,
    /// Which version.
    pub version: String,
    /// More, for people.
    pub detail: String,
}

/// `versions.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Versions that must not be taken, by version.
    pub fates: BTreeMap<String, Fate>,
    /// The latest events, oldest first.
    pub events: Vec<Event>,
}

/// `policy.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The only version that may be taken.
    pub pin: Option<String>,
}

/// What `init` says about a version; see its module `trial`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// Which version.
    pub version: String,
    /// Its root hash.
    pub root_hash: String,
    /// `good` or `failed`.
    pub verdict: String,
    /// Why it failed.
    pub reason: String,
    /// Seconds since 1970.
    pub time: u64,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    layout: u32,
    #[serde(flatten)]
    value: T,
}

#[derive(Deserialize)]
struct LayoutOnly {
    layout: u32,
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { path, source }
}

/// Writes a file whole or not at all, durably.
///
/// # Errors
/// When the file system refuses.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

impl State {
    /// Opens `root`, usually `/media/state/garboard/update`, beside which `init` leaves its verdicts.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(root: &Path) -> Result<Self, StateError> {
        for directory in [root.to_owned(), root.join("uki"), root.join("tuf")] {
            fs::create_dir_all(&directory).map_err(io_error(&directory))?;
        }
        let verdicts = root.parent().unwrap_or(Path::new("/")).join("verdicts");
        Ok(Self { root: root.to_owned(), verdicts })
    }

    /// Where `tough` keeps what it has seen.
    #[must_use]
    pub fn datastore(&self) -> PathBuf {
        self.root.join("tuf")
    }

    fn load<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let path = self.root.join(name);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(io_error(&path))?,
        };
        match serde_json::from_slice::<LayoutOnly>(&bytes) {
            Ok(LayoutOnly { layout }) if layout > LAYOUT => return Err(StateError::Layout { path, found: layout }),
            _ => {}
        }
        // What does not parse was damaged from outside: to begin anew is always right, since the disk is looked at.
        Ok(serde_json::from_slice::<Versioned<T>>(&bytes).ok().map(|versioned| versioned.value))
    }

    fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let path = self.root.join(name);
        let bytes = serde_json::to_vec_pretty(&Versioned { layout: LAYOUT, value }).map_err(io::Error::from).map_err(io_error(&path))?;
        self.with_room(|| write_whole(&path, &bytes)).map_err(io_error(&path))
    }

    /// Does something that needs room on the partition; when there is none, again without the reserve.
    fn with_room(&self, act: impl Fn() -> io::Result<()>) -> io::Result<()> {
        match act() {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && self.release_reserve() => act(),
            result => result,
        }
    }

    /// Gives the reserved room free; whether there was any.
    #[must_use]
    pub fn release_reserve(&self) -> bool {
        fs::remove_file(self.root.join("reserve")).is_ok()
    }

    /// Takes the reserve, when that leaves at least as much free; a small partition gets a small one.
    ///
    /// # Errors
    /// When the file system refuses for another reason than being full.
    pub fn keep_reserve(&self) -> Result<(), StateError> {
        let path = self.root.join("reserve");
        if path.exists() {
            return Ok(());
        }
        let stat = rustix::fs::statvfs(&self.root).map_err(|error| io_error(&path)(error.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let size = RESERVE.min(free / 4);
        if size < 1 << 20 {
            return Ok(());
        }
        let file = File::create(&path).map_err(io_error(&path))?;
        let allocated = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size);
        if let Err(error) = allocated {
            let _ = fs::remove_file(&path);
            if error != rustix::io::Errno::NOSPC && error != rustix::io::Errno::OPNOTSUPP {
                return Err(io_error(&path)(error.into()));
            }
        }
        Ok(())
    }

    /// The update under way.
    ///
    /// # Errors
    /// When it cannot be read, or was written by a later version.
    pub fn journal(&self) -> Result<Option<Journal>, StateError> {
        self.load("journal.json")
    }

    /// Notes how far it is; `None` when there is none any more.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_journal(&self, journal: Option<&Journal>) -> Result<(), StateError> {
        match journal {
            Some(journal) => self.save("journal.json", journal),
            None => {
                let path = self.root.join("journal.json");
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&path)(error)),
                    _ => Ok(()),
                }
            }
        }
    }

    /// What became of versions.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn versions(&self) -> Result<Versions, StateError> {
        Ok(self.load("versions.json")?.unwrap_or_default())
    }

    /// Changes that.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn change_versions(&self, change: impl FnOnce(&mut Versions)) -> Result<(), StateError> {
        let mut versions = self.versions()?;
        change(&mut versions);
        let extra = versions.events.len().saturating_sub(MAX_EVENTS);
        versions.events.drain(..extra);
        self.save("versions.json", &versions)
    }

    /// The pin.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn policy(&self) -> Result<Policy, StateError> {
        Ok(self.load("policy.json")?.unwrap_or_default())
    }

    /// Changes it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_policy(&self, policy: &Policy) -> Result<(), StateError> {
        self.save("policy.json", policy)
    }

    /// All verdicts of `init`.
    #[must_use]
    pub fn verdicts(&self) -> Vec<Verdict> {
        let entries = fs::read_dir(&self.verdicts).into_iter().flatten().flatten();
        let json = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json"));
        let mut verdicts: Vec<Verdict> = json.filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()).collect();
        verdicts.sort_by_key(|verdict| verdict.time);
        verdicts
    }

    /// Forgets that a version failed or was set aside, so that it is tried again.
    ///
    /// # Errors
    /// When state cannot be written.
    pub fn forgive(&self, version: &Version) -> Result<(), StateError> {
        let path = self.verdicts.join(format!("{version}.json"));
        if self.verdicts().iter().any(|verdict| verdict.version == version.as_str() && verdict.verdict == "failed") {
            fs::remove_file(&path).map_err(io_error(&path))?;
        }
        self.change_versions(|versions| {
            versions.fates.remove(version.as_str());
        })
    }

    /// What became of a version with a root hash: our own notes first, then what `init` says.
    ///
    /// # Errors
    /// When state cannot be read.
    pub fn standing(&self, version: &Version, root_hash: &[u8; 32]) -> Result<(Standing, String), StateError> {
        let hash = hex(root_hash);
        if let Some(fate) = self.versions()?.fates.get(version.as_str()).filter(|fate| fate.root_hash == hash) {
            let standing = if fate.fate == "set-aside" { Standing::SetAside } else { Standing::Failed };
            return Ok((standing, fate.reason.clone()));
        }
        let verdict = self.verdicts().into_iter().rev().find(|verdict| verdict.version == version.as_str() && verdict.root_hash == hash);
        Ok(match verdict {
            Some(verdict) if verdict.verdict == "good" => (Standing::Good, String::new()),
            Some(verdict) if verdict.verdict == "failed" => (Standing::Failed, verdict.reason),
            _ => (Standing::Untried, String::new()),
        })
    }

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

    fn state() -> (tempfile::TempDir, State) {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(&directory.path().join("update")).unwrap();
        (directory, state)
    }

    #[test]
    fn a_journal_comes_back_and_goes() {
        let (_directory, state) = state();
        assert_eq!(state.journal().unwrap(), None);
        let journal = Journal {
            version: "1.1".into(),
            root_hash: Digest::of(b"x"),
            release: ObjectRef::of(b"y"),
            slot: "b".into(),
            phase: Phase::Writing,
            fetches: 3,
            fetched: 99,
        };
        state.set_journal(Some(&journal)).unwrap();
        assert_eq!(state.journal().unwrap(), Some(journal));
        state.set_journal(None).unwrap();
        state.set_journal(None).unwrap();
        assert_eq!(state.journal().unwrap(), None);
    }

    #[test]
    fn damage_means_beginning_anew_and_a_later_layout_is_named() {
        let (directory, state) = state();
        let path = directory.path().join("update/journal.json");
        fs::write(&path, b"{\"lay").unwrap();
        assert_eq!(state.journal().unwrap(), None);
        fs::write(&path, b"{\"layout\": 2, \"steps\": []}").unwrap();
        assert!(matches!(state.journal(), Err(StateError::Layout { found: 2, .. })));
    }

    #[test]
    fn a_verdict_counts_for_its_root_hash_and_our_own_note_first() {
        let (directory, state) = state();
        let verdicts = directory.path().join("verdicts");
        fs::create_dir_all(&verdicts).unwrap();
        let hash = [0xab; 32];
        let text =
            format!(r#"{{"version":"1.1","root_hash":"{}","verdict":"failed","reason":"docker.service is failed","time":5}}"#, hex(&hash));
        fs::write(verdicts.join("1.1.json"), text).unwrap();
        let version = "1.1".parse().unwrap();
        assert_eq!(state.standing(&version, &hash).unwrap(), (Standing::Failed, "docker.service is failed".to_owned()));
        assert_eq!(state.standing(&version, &[0; 32]).unwrap().0, Standing::Untried, "built again");
        let fate = Fate { root_hash: hex(&hash), fate: "set-aside".into(), reason: "rolled back".into(), time: 6 };
        state.change_versions(|versions| drop(versions.fates.insert("1.1".into(), fate))).unwrap();
        assert_eq!(state.standing(&version, &hash).unwrap().0, Standing::SetAside);
        state.forgive(&version).unwrap();
        assert_eq!(state.standing(&version, &hash).unwrap().0, Standing::Untried);
    }

    #[test]
    fn only_the_right_uki_becomes_a_copy() {
        let (_directory, state) = state();
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

    #[test]
    fn events_are_bounded() {
        let (_directory, state) = state();
        let event = |time| Event { time, what: "installed".into(), version: "1".into(), detail: String::new() };
        state.change_versions(|versions| versions.events.extend((0..500).map(event))).unwrap();
        let events = state.versions().unwrap().events;
        assert_eq!((events.len(), events[0].time), (MAX_EVENTS, 300));
    }
}
