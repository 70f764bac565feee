//! Putting an image into the other slot, in the one order that leaves something to boot at every moment:
//!
//! 1. the target slot's UKIs lose their first two bytes, so that the loader no longer takes them for programs;
//! 2. the slot is marked `_empty` in the partition table;
//! 3. its UKIs are removed;
//! 4. the root is written (by the caller, through [`Target`]) and flushed;
//! 5. it is read back from the medium, the hash tree is built from that, written, flushed and read back, and the root hash compared;
//! 6. labels and GUIDs: backup table, flush, primary, flush;
//! 7. the UKI is written without its first two bytes under a temporary name, flushed, read back, renamed to `+3`, flushed;
//! 8. its first two bytes are written: the commit, without a moment in between. It is read back as the firmware will.
//!
//! Each step looks at the disk and not at what an earlier run remembers, so running all of them again after a cut is always right.

use std::io::{self, Read};

use disk_layout::{SlotName, UkiName, VERITY_BLOCK_SIZE, VeritySuperblock, Version, hash_area_blocks};
use ring::digest::{Context, SHA256};
use thiserror::Error;
use uuid::Uuid;

use crate::esp::fat::{FatError, Volume};
use crate::esp::{EspFiles, HEAD, PART_SUFFIX, part_name, spent_name, trial_name};
use crate::slots::{Content, SlotError, Slots, mark_empty, mark_filled};
use crate::target::{Area, Target};
use crate::verity::{self, VerityError, hex};

/// Room on the ESP that is kept for the loader's own needs.
const ESP_MARGIN: u64 = 64 << 10;

/// What is known about a version's UKI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uki {
    /// Its version.
    pub version: Version,
    /// The root hash on its command line.
    pub root_hash: [u8; 32],
    /// Bytes.
    pub len: u64,
    /// Its digest.
    pub sha256: [u8; 32],
}

/// What is to be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The parameters of the root's hash tree.
    pub superblock: VeritySuperblock,
    /// Version, root hash and UKI.
    pub uki: Uki,
}

/// What this host runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// In which slot.
    pub slot: SlotName,
    /// Its version.
    pub version: Version,
    /// Its root hash.
    pub root_hash: [u8; 32],
}

/// Why an image was not committed. [`CommitError::kind`] is stable.
#[derive(Debug, Error)]
pub enum CommitError {
    /// Two slots with one root hash would have the same GUIDs.
    #[error("version {0} has the root hash of the version that runs: nothing to install")]
    SameRootHash(Version),
    /// A published version has one content for ever.
    #[error("version {0} runs already, with another root hash: a version must not be published twice")]
    SameVersion(Version),
    /// A partition is too small for the release.
    #[error("{area} has {has} bytes and version {version} needs {needs}")]
    TooLarge {
        /// The release.
        version: Version,
        /// The partition.
        area: Area,
        /// Bytes it has.
        has: u64,
        /// Bytes it needs.
        needs: u64,
    },
    /// No room for the UKI.
    #[error("the ESP has room for {has} bytes and the UKI of version {version} needs {needs}: remove what does not belong there")]
    EspFull {
        /// The release.
        version: Version,
        /// Bytes that are free or will be.
        has: u64,
        /// Bytes it needs.
        needs: u64,
    },
    /// The partition table.
    #[error(transparent)]
    Slots(#[from] SlotError),
    /// The slot's content.
    #[error(transparent)]
    Verity(#[from] VerityError),
    /// The ESP cannot be understood.
    #[error(transparent)]
    Fat(#[from] FatError),
    /// The ESP cannot be changed.
    #[error("the ESP: {act} {name}: {source}")]
    Esp {
        /// What was tried.
        act: &'static str,
        /// With which file.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// A write to the slot failed.
    #[error("{area}: {source}")]
    Write {
        /// Which partition.
        area: Area,
        /// Why.
        source: io::Error,
    },
    /// The UKI that we were given is not the release's.
    #[error("the UKI of version {version} has the SHA-256 {found} instead of {expected}")]
    UkiContent {
        /// The release.
        version: Version,
        /// By the metadata.
        expected: String,
        /// As found.
        found: String,
    },
    /// The ESP does not give back what was written.
    #[error("{name} on the ESP reads back as {found} instead of {expected}: the disk is not to be trusted")]
    UkiReadBack {
        /// The file.
        name: String,
        /// SHA-256 of what was written.
        expected: String,
        /// What was read.
        found: String,
    },
    /// The slot was changed by something else.
    #[error("slot {0} is not filled with the image that is to be committed")]
    NotFilled(SlotName),
}

impl CommitError {
    /// The error's stable name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::SameRootHash(_) => "same-root-hash",
            Self::SameVersion(_) => "same-version",
            Self::TooLarge { .. } => "slot-too-small",
            Self::EspFull { .. } => "esp-full",
            Self::Slots(_) => "partition-table",
            Self::Verity(VerityError::RootHash { .. }) => "root-hash-mismatch",
            Self::Verity(VerityError::ReadBack(_)) | Self::UkiReadBack { .. } => "read-back",
            Self::Verity(_) | Self::Write { .. } => "disk-write",
            Self::Fat(_) | Self::Esp { .. } => "esp",
            Self::UkiContent { .. } => "uki-mismatch",
            Self::NotFilled(_) => "slot-changed",
        }
    }
}

fn esp_error(act: &'static str, name: &str) -> impl Fn(io::Error) -> CommitError {
    move |source| CommitError::Esp { act, name: name.to_owned(), source }
}

/// The disk of this host and what is needed to change it.
pub struct Installer<'a> {
    /// The disk.
    pub target: &'a dyn Target,
    /// Its ESP.
    pub esp: &'a mut dyn EspFiles,
    /// Makes GUIDs that nobody else has.
    pub fresh: &'a mut dyn FnMut() -> Uuid,
    /// What must not be touched.
    pub running: Running,
}

/// How far the target slot is already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The slot is empty: write the root.
    Empty,
    /// The slot holds this very image, verified just now: only the UKI is missing, if that.
    Filled,
}

impl Installer<'_> {
    /// The slot that is not running.
    #[must_use]
    pub fn slot(&self) -> SlotName {
        self.running.slot.other()
    }

    /// Refuses what cannot be installed, before anything is changed.
    ///
    /// # Errors
    /// When the image does not fit, or is what runs.
    pub fn preflight(&mut self, image: &Image) -> Result<(), CommitError> {
        if image.uki.root_hash == self.running.root_hash {
            return Err(CommitError::SameRootHash(image.uki.version.clone()));
        }
        if image.uki.version == self.running.version {
            return Err(CommitError::SameVersion(image.uki.version.clone()));
        }
        let needs = [
            (Area::Root(self.slot()), image.superblock.data_blocks.saturating_mul(VERITY_BLOCK_SIZE)),
            (Area::Verity(self.slot()), hash_area_blocks(image.superblock.data_blocks).saturating_mul(VERITY_BLOCK_SIZE)),
        ];
        for (area, needs) in needs {
            let has = self.target.len(area).map_err(|source| CommitError::Write { area, source })?;
            if has < needs {
                return Err(CommitError::TooLarge { version: image.uki.version.clone(), area, has, needs });
            }
        }
        let volume = Volume::read(self.target)?;
        let (bytes, needs) = (
            volume.free() + volume.ukis().filter(|file| self.is_targets(file.name())).map(|file| u64::from(file.size)).sum::<u64>(),
            image.uki.len + ESP_MARGIN,
        );
        if bytes < needs {
            return Err(CommitError::EspFull { version: image.uki.version.clone(), has: bytes, needs });
        }
        Ok(())
    }

    /// Whether a file on the ESP belongs to the slot that we may overwrite.
    fn is_targets(&self, name: &str) -> bool {
        name.ends_with(PART_SUFFIX) || name.parse::<UkiName>().is_ok_and(|name| name.version != self.running.version)
    }

    /// Steps 1 to 3, unless the slot holds the image already.
    ///
    /// # Errors
    /// When the image is refused, or the disk fails.
    pub fn claim(&mut self, image: &Image) -> Result<Claim, CommitError> {
        self.preflight(image)?;
        let slot = self.slot();
        let content = Slots::read(self.target)?.get(slot).clone();
        let same = Content::Image { version: image.uki.version.clone(), root_hash: image.uki.root_hash };
        if content == same && verity::verifies(self.target, slot, &image.uki.root_hash)? {
            self.remove_ukis(&|name| name.parse::<UkiName>().is_ok_and(|name| name.version == image.uki.version))?;
            return Ok(Claim::Filled);
        }
        let names: Vec<String> =
            Volume::read(self.target)?.ukis().map(|file| file.name().to_owned()).filter(|name| self.is_targets(name)).collect();
        for name in names.iter().filter(|name| !name.ends_with(PART_SUFFIX)) {
            self.esp.write_head(name, &[0; HEAD]).map_err(esp_error("cannot make unbootable", name))?;
        }
        if content != Content::Empty {
            self.esp.finish().map_err(esp_error("cannot unmount", ""))?;
            mark_empty(self.target, slot, self.fresh)?;
        }
        self.remove_ukis(&|_| false)?;
        Ok(Claim::Empty)
    }

    /// Removes the target slot's UKIs, but those to keep.
    fn remove_ukis(&mut self, keep: &dyn Fn(&str) -> bool) -> Result<(), CommitError> {
        for file in self.esp.list().map_err(esp_error("cannot list", ""))? {
            if self.is_targets(&file.name) && !keep(&file.name) {
                self.esp.remove(&file.name).map_err(esp_error("cannot remove", &file.name))?;
            }
        }
        self.esp.finish().map_err(esp_error("cannot unmount", ""))
    }

    /// Steps 5 and 6, when the root has been written.
    ///
    /// # Errors
    /// When the disk fails, or does not hold the image.
    pub fn fill(&mut self, image: &Image) -> Result<(), CommitError> {
        let area = Area::Root(self.slot());
        self.target.sync(area).map_err(|source| CommitError::Write { area, source })?;
        verity::build(self.target, self.slot(), &image.superblock, &image.uki.root_hash)?;
        Ok(mark_filled(self.target, self.slot(), &image.uki.version, &image.uki.root_hash)?)
    }

    /// Steps 7 and 8: makes the image bootable, on trial. `content` is the UKI.
    ///
    /// # Errors
    /// When the content is not the release's, the ESP is full, or does not give back what was written.
    pub fn put_uki(&mut self, image: &Image, content: &mut dyn Read) -> Result<(), CommitError> {
        let slots = Slots::read(self.target)?;
        let content_of_slot = Content::Image { version: image.uki.version.clone(), root_hash: image.uki.root_hash };
        if *slots.get(self.slot()) != content_of_slot {
            return Err(CommitError::NotFilled(self.slot()));
        }
        write_uki(self.target, self.esp, &image.uki, content, &trial_name(&image.uki.version).to_string())
    }

    /// Takes a version out of the choice without calling it failed, for a rollback or downgrade: its name becomes `+0`.
    ///
    /// # Errors
    /// When the ESP cannot be changed.
    pub fn set_aside(&mut self, version: &Version) -> Result<(), CommitError> {
        set_aside(self.esp, version)
    }
}

/// See [`Installer::set_aside`].
///
/// # Errors
/// When the ESP cannot be changed.
pub fn set_aside(esp: &mut dyn EspFiles, version: &Version) -> Result<(), CommitError> {
    let spent = spent_name(version).to_string();
    for file in esp.list().map_err(esp_error("cannot list", ""))? {
        if file.name != spent && file.name.parse::<UkiName>().is_ok_and(|name| name.version == *version) {
            esp.rename(&file.name, &spent).map_err(esp_error("cannot rename", &file.name))?;
        }
    }
    esp.finish().map_err(esp_error("cannot unmount", ""))
}

/// Takes the first bytes away from what it hands on, and the SHA-256 of all of it.
struct Beheaded<'a> {
    content: &'a mut dyn Read,
    head: [u8; HEAD],
    seen: usize,
    digest: Context,
}

impl Read for Beheaded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        let data = buffer.get_mut(..count).unwrap_or_default();
        self.digest.update(data);
        for (to, from) in self.head.iter_mut().skip(self.seen).zip(data.iter_mut()) {
            *to = std::mem::take(from);
        }
        self.seen = self.seen.saturating_add(count);
        Ok(count)
    }
}

/// Gives a version its UKI under a name, so that the file is at any moment either whole or not to be taken for a UKI. What the version has
/// on the ESP already is kept when it is whole.
///
/// # Errors
/// When the content is not what is expected, or the ESP is full or does not give back what was written.
pub fn write_uki(target: &dyn Target, esp: &mut dyn EspFiles, uki: &Uki, content: &mut dyn Read, name: &str) -> Result<(), CommitError> {
    let part = part_name(&uki.version);
    let files = esp.list().map_err(esp_error("cannot list", ""))?;
    esp.finish().map_err(esp_error("cannot unmount", ""))?;
    let mut there: Option<String> = None;
    for file in files.into_iter().map(|file| file.name) {
        let ours = file.parse::<UkiName>().is_ok_and(|name| name.version == uki.version);
        if ours && digest_on_disk(target, &file, None)? == Some(uki.sha256) && there.is_none() {
            there = Some(file);
        } else if ours || file == part {
            if ours {
                esp.write_head(&file, &[0; HEAD]).map_err(esp_error("cannot make unbootable", &file))?;
            }
            esp.remove(&file).map_err(esp_error("cannot remove", &file))?;
            esp.finish().map_err(esp_error("cannot unmount", &file))?;
        }
    }
    if let Some(there) = there {
        if there != name {
            esp.rename(&there, name).map_err(esp_error("cannot rename", &there))?;
            esp.finish().map_err(esp_error("cannot unmount", name))?;
        }
        return Ok(());
    }
    let mut beheaded = Beheaded { content, head: [0; HEAD], seen: 0, digest: Context::new(&SHA256) };
    let written = esp.create(&part, &mut beheaded);
    let (head, found) = (beheaded.head, beheaded.digest.finish());
    if let Err(source) = written {
        let _ = esp.remove(&part);
        let _ = esp.finish();
        return Err(CommitError::Esp { act: "cannot write", name: part, source });
    }
    if found.as_ref() != uki.sha256 {
        let _ = esp.remove(&part);
        let _ = esp.finish();
        return Err(CommitError::UkiContent { version: uki.version.clone(), expected: hex(&uki.sha256), found: hex(found.as_ref()) });
    }
    esp.finish().map_err(esp_error("cannot unmount", &part))?;
    read_back(target, &part, Some(&head), uki)?;
    esp.rename(&part, name).map_err(esp_error("cannot rename", &part))?;
    esp.finish().map_err(esp_error("cannot unmount", name))?;
    read_back(target, name, Some(&head), uki)?;
    esp.write_head(name, &head).map_err(esp_error("cannot commit", name))?;
    esp.finish().map_err(esp_error("cannot unmount", name))?;
    read_back(target, name, None, uki)
}

fn read_back(target: &dyn Target, name: &str, head: Option<&[u8; HEAD]>, uki: &Uki) -> Result<(), CommitError> {
    let found = digest_on_disk(target, name, head)?;
    if found == Some(uki.sha256) {
        return Ok(());
    }
    let found = found.map_or_else(|| "nothing".to_owned(), |digest| hex(&digest));
    Err(CommitError::UkiReadBack { name: name.to_owned(), expected: hex(&uki.sha256), found })
}

/// The SHA-256 of a UKI on the medium, with other first bytes when `head` is given; `None` when it is not there or not whole.
///
/// # Errors
/// When the ESP cannot be read.
pub fn digest_on_disk(target: &dyn Target, name: &str, head: Option<&[u8; HEAD]>) -> Result<Option<[u8; 32]>, FatError> {
    let volume = Volume::read(target)?;
    let Some(file) = volume.uki(name) else { return Ok(None) };
    if !file.whole {
        return Ok(None);
    }
    let mut digest = Context::new(&SHA256);
    let mut at = 0;
    volume.read_file(target, file, &mut |data| {
        let replaced = head.and_then(|head| head.get(at..)).unwrap_or_default();
        let replaced = replaced.get(..replaced.len().min(data.len())).unwrap_or_default();
        digest.update(replaced);
        digest.update(data.get(replaced.len()..).unwrap_or_default());
        at = at.saturating_add(data.len());
    })?;
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.finish().as_ref());
    Ok(Some(bytes))
}
