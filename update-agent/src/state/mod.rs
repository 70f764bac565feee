//! What the agent remembers: files on the state partition, each written whole or not at all, and read again after any cut.
//!
//! | file | is |
//! |---|---|
//! | `journal.json` | the update that is under way or waits for its reboot |
//! | `versions.json` | what became of each version here, and what happened when |
//! | `policy.json` | the pin |
//! | `uki/<version>.efi`, `.json` | copies of both slots' UKIs, to repair the ESP from |
//! | `map/<root hash>.map` | content maps of the running version and the next |
//! | `tuf/` | the metadata seen last, so that nobody can offer older ones |
//! | `reserve` | room, so that a full partition cannot stop an update |

mod layout;
mod maps;
mod records;
mod ukis;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use disk_layout::Version;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::recovery::Standing;
use crate::verity::hex;

pub use layout::Migration;
pub use records::{Came, Event, Fate, Journal, Phase, Policy, Verdict, Versions};
pub use ukis::digest_of;

/// Version of the layout of these files.
pub const LAYOUT: u32 = 1;
/// How older layouts become this one: the first brings layout 1 to 2, and so on.
const MIGRATIONS: &[Migration] = &[];
const _: () = assert!(MIGRATIONS.len() + 1 == LAYOUT as usize);
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
    #[error("{} has layout {found}, and this program reads {reads}: it was written by a newer version", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: u32,
        /// The layout of this program.
        reads: u32,
    },
}

impl StateError {
    /// As an error of input and output, with the same text and kind.
    #[must_use]
    pub fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::Io { source, .. } => source.kind(),
            Self::Layout { .. } => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, self.to_string())
    }
}

/// The directory of all that.
#[derive(Clone, Debug)]
pub struct State {
    /// The directory of layout 1.
    base: PathBuf,
    /// The directory of the own layout.
    root: PathBuf,
    layout: u32,
    verdicts: PathBuf,
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
    /// Opens `base`, usually `/media/state/garboard/update`, beside which `init` leaves its verdicts; or what a later layout has in its place.
    ///
    /// # Errors
    /// When it cannot be made, or only a later version can read what is there.
    pub fn open(base: &Path) -> Result<Self, StateError> {
        Self::open_as(base, LAYOUT, MIGRATIONS)
    }

    /// As a program of this layout.
    ///
    /// # Errors
    /// As [`State::open`].
    pub fn open_as(base: &Path, layout: u32, migrations: &[Migration]) -> Result<Self, StateError> {
        let (root, said) = layout::open(base, layout, migrations, &mut || Ok(()))?;
        for line in said {
            eprintln!("update-agent: {line}");
        }
        for directory in [root.clone(), root.join("uki"), root.join("map"), root.join("tuf")] {
            fs::create_dir_all(&directory).map_err(io_error(&directory))?;
        }
        let verdicts = base.parent().unwrap_or(Path::new("/")).join("verdicts");
        Ok(Self { base: base.to_owned(), root, layout, verdicts })
    }

    /// The own layout.
    #[must_use]
    pub fn layout(&self) -> u32 {
        self.layout
    }

    /// Removes what only versions older than this layout read.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn drop_layouts_below(&self, oldest: u32) -> Result<(), StateError> {
        layout::drop_below(&self.base, oldest.min(self.layout), &mut || Ok(()))
    }

    /// Where snapshots of etcd are kept.
    #[must_use]
    pub fn etcd_snapshots(&self) -> PathBuf {
        self.base.with_file_name("etcd")
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
            Ok(LayoutOnly { layout }) if layout > self.layout => {
                return Err(StateError::Layout { path, found: layout, reads: self.layout });
            }
            _ => {}
        }
        // What does not parse was damaged from outside: to begin anew is always right, since the disk is looked at.
        Ok(serde_json::from_slice::<Versioned<T>>(&bytes).ok().map(|versioned| versioned.value))
    }

    fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let path = self.root.join(name);
        let bytes =
            serde_json::to_vec_pretty(&Versioned { layout: self.layout, value }).map_err(io::Error::from).map_err(io_error(&path))?;
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
}

#[cfg(test)]
mod tests {
    use release_format::{Digest, ObjectRef};

    use super::*;
    use crate::download::Position;

    fn state() -> (tempfile::TempDir, State) {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(&directory.path().join("update")).unwrap();
        (directory, state)
    }

    #[test]
    fn a_journal_comes_back_and_goes() {
        let (directory, state) = state();
        assert_eq!(state.journal().unwrap(), None);
        let journal = Journal {
            version: "1.1".into(),
            root_hash: Digest::of(b"x"),
            release: ObjectRef::of(b"y"),
            slot: "b".into(),
            phase: Phase::Writing,
            position: Position { from: Some(Digest::of(b"old")), missing: vec![4, 7], fetches: 3, fetched: 99, ..Position::default() },
        };
        state.set_journal(Some(&journal)).unwrap();
        assert_eq!(state.journal().unwrap(), Some(journal));
        state.set_journal(None).unwrap();
        state.set_journal(None).unwrap();
        assert_eq!(state.journal().unwrap(), None);
        // As an agent wrote it that knew nothing of copying.
        let hash = Digest::of(b"x");
        let text = format!(
            r#"{{"layout": 1, "version": "1.1", "root_hash": "{hash}", "release": {{"sha256": "{hash}", "size": 1}}, "slot": "b", "phase": "writing", "fetches": 3, "fetched": 9}}"#
        );
        fs::write(directory.path().join("update/journal.json"), text).unwrap();
        assert_eq!(state.journal().unwrap().unwrap().position, Position { fetches: 3, fetched: 9, ..Position::default() });
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
    fn events_are_bounded() {
        let (_directory, state) = state();
        let event = |time| Event { time, what: "installed".into(), version: "1".into(), detail: String::new() };
        state.change_versions(|versions| versions.events.extend((0..500).map(event))).unwrap();
        let events = state.versions().unwrap().events;
        assert_eq!((events.len(), events[0].time), (MAX_EVENTS, 300));
    }
}
