//! FAT32 as it lies on the partition: found out without mounting it, and mended where a power cut left it inconsistent.
//!
//! Takes any bytes without panicking. Changes nothing outside `EFI/Linux` but clusters that belong to no file, and
//! those only when every directory could be read.

use std::collections::BTreeSet;
use std::io;

use thiserror::Error;

use super::UKI_DIR;
use crate::target::{Area, Target};

const ENTRY: usize = 32;
const DELETED: u8 = 0xe5;
const MASK: u32 = 0x0fff_ffff;
const BAD: u32 = 0x0fff_fff7;
const MAX_ENTRIES: usize = 65_536;
/// Where FAT32's boot sector notes that the file system is mounted, or was when the power went.
const STATE_BYTE: u64 = 65;

/// Why the file system cannot be understood.
#[derive(Debug, Error)]
pub enum FatError {
    /// The device failed.
    #[error("the ESP: {0}")]
    Io(#[from] io::Error),
    /// It is no FAT32 that we know.
    #[error("the ESP holds no FAT32 file system: {0}")]
    NotFat32(&'static str),
    /// A file is not there.
    #[error("the ESP has no file {0}")]
    Missing(String),
}

/// A file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FatFile {
    /// From the root, with `/`.
    pub path: String,
    /// Bytes, by its entry.
    pub size: u32,
    /// Its clusters in order.
    pub chain: Vec<u32>,
    /// Whether the chain ends as it should and is long enough.
    pub whole: bool,
    /// Where its directory entries lie on the partition, long name first.
    entries: Vec<u64>,
}

impl FatFile {
    /// The last part of the path.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// Whether it lies in [`UKI_DIR`].
    #[must_use]
    pub fn is_uki(&self) -> bool {
        self.path.rsplit_once('/').is_some_and(|(dir, _)| dir.eq_ignore_ascii_case(UKI_DIR))
    }
}

/// A file system as it was read.
#[derive(Debug)]
pub struct Volume {
    cluster_len: u64,
    fat_at: u64,
    fat_len: u64,
    fats: u64,
    data_at: u64,
    /// The first table as it is on the disk, without what no cluster has.
    fat: Vec<u8>,
    clusters: u32,
    fats_differ: bool,
    /// The state byte, when it says that the file system was not unmounted.
    dirty: Option<u8>,
    /// Whether every directory could be followed to its end.
    readable: bool,
    /// All files, in the order of the directories.
    pub files: Vec<FatFile>,
    directories: BTreeSet<u32>,
}

/// What [`mend`] has done, in words for the log; empty when there was nothing to do.
pub type Mended = Vec<String>;

struct Raw {
    name: String,
    attributes: u8,
    first: u32,
    size: u32,
    entries: Vec<u64>,
}

impl Volume {
    /// Reads the tables and all directories.
    ///
    /// # Errors
    /// When it is not FAT32 or the device fails.
    pub fn read(target: &dyn Target) -> Result<Self, FatError> {
        let mut boot = [0; 512];
        target.read(Area::Esp, 0, &mut boot)?;
        let (sector, per_cluster) = (u64::from(u16_at(&boot, 11)), u64::from(byte(&boot, 13)));
        let (reserved, fats) = (u64::from(u16_at(&boot, 14)), u64::from(byte(&boot, 16)));
        let (total, fat_sectors) = (u64::from(u32_at(&boot, 32)), u64::from(u32_at(&boot, 36)));
        if u16_at(&boot, 510) != 0xaa55 || !(512..=4096).contains(&sector) || !sector.is_power_of_two() || !per_cluster.is_power_of_two() {
            return Err(FatError::NotFat32("no boot sector"));
        }
        if u16_at(&boot, 22) != 0 || fat_sectors == 0 || !(1..=2).contains(&fats) || reserved == 0 {
            return Err(FatError::NotFat32("FAT12 or FAT16"));
        }
        let data_sectors =
            total.checked_sub(reserved + fats * fat_sectors).ok_or(FatError::NotFat32("tables larger than the file system"))?;
        let clusters = data_sectors / per_cluster;
        let fat_len = fat_sectors * sector;
        if clusters + 2 > fat_len / 4 || total * sector > target.len(Area::Esp)? || fat_len > 64 << 20 {
            return Err(FatError::NotFat32("sizes that do not fit"));
        }
        let fat_at = reserved * sector;
        let read_fat = |copy: u64| -> io::Result<Vec<u8>> {
            let mut bytes = vec![0; fat_len as usize];
            target.read(Area::Esp, fat_at + copy * fat_len, &mut bytes)?;
            Ok(bytes)
        };
        let fat = read_fat(0)?;
        let fats_differ = fats == 2 && read_fat(1)? != fat;
        let state = byte(&boot, STATE_BYTE as usize);
        let mut volume = Self {
            cluster_len: per_cluster * sector,
            fat_at,
            fat_len,
            fats,
            data_at: fat_at + fats * fat_len,
            fat,
            clusters: u32::try_from(clusters + 2).unwrap_or(u32::MAX),
            fats_differ,
            dirty: (state & 1 == 1).then_some(state),
            readable: true,
            files: Vec::new(),
            directories: BTreeSet::new(),
        };
        volume.walk(target, u32_at(&boot, 44))?;
        Ok(volume)
    }

    fn walk(&mut self, target: &dyn Target, root: u32) -> Result<(), FatError> {
        let mut pending = vec![(String::new(), root)];
        let mut seen = 0;
        while let Some((path, first)) = pending.pop() {
            let (chain, ends) = self.chain(first);
            self.readable &= ends && !chain.is_empty();
            if chain.iter().any(|cluster| !self.directories.insert(*cluster)) {
                self.readable = false;
                continue;
            }
            for raw in self.entries(target, &chain)? {
                seen += 1;
                if seen > MAX_ENTRIES {
                    self.readable = false;
                    return Ok(());
                }
                let path = if path.is_empty() { raw.name } else { format!("{path}/{}", raw.name) };
                if raw.attributes & 0x10 != 0 {
                    pending.push((path, raw.first));
                    continue;
                }
                let (chain, ends) = if raw.first == 0 { (Vec::new(), true) } else { self.chain(raw.first) };
                let whole = ends && chain.len() as u64 * self.cluster_len >= u64::from(raw.size) && (raw.first == 0) == (raw.size == 0);
                self.files.push(FatFile { path, size: raw.size, chain, whole, entries: raw.entries });
            }
        }
        Ok(())
    }

    /// The table's entry of a cluster.
    fn next(&self, cluster: u32) -> Option<u32> {
        (cluster < self.clusters).then(|| u32_at(&self.fat, cluster as usize * 4) & MASK)
    }

    fn table(&self) -> impl Iterator<Item = u32> {
        self.fat.as_chunks::<4>().0.iter().take(self.clusters as usize).map(|raw| u32::from_le_bytes(*raw) & MASK)
    }

    /// The clusters from `first` on, and whether the chain ends properly.
    fn chain(&self, first: u32) -> (Vec<u32>, bool) {
        let mut chain = Vec::new();
        let mut at = first;
        while let Some(next) = self.next(at).filter(|_| at >= 2) {
            if next == 0 || chain.len() > self.clusters as usize {
                return (chain, false);
            }
            chain.push(at);
            if next > BAD {
                return (chain, true);
            }
            at = next;
        }
        (chain, false)
    }

    pub(crate) fn cluster_at(&self, cluster: u32) -> u64 {
        self.data_at + u64::from(cluster.saturating_sub(2)) * self.cluster_len
    }

    fn entries(&self, target: &dyn Target, chain: &[u32]) -> Result<Vec<Raw>, FatError> {
        let mut found = Vec::new();
        let mut long = LongName::default();
        let mut buffer = vec![0; self.cluster_len as usize];
        for &cluster in chain {
            let at = self.cluster_at(cluster);
            target.read(Area::Esp, at, &mut buffer)?;
            for (index, entry) in buffer.as_chunks::<ENTRY>().0.iter().enumerate() {
                let offset = at + (index * ENTRY) as u64;
                let (first, attributes) = (byte(entry, 0), byte(entry, 11));
                match first {
                    0 => return Ok(found),
                    DELETED => long = LongName::default(),
                    _ if attributes & 0x3f == 0x0f => long.push(entry, offset),
                    _ => {
                        let (name, mut entries) = std::mem::take(&mut long).finish(entry);
                        entries.push(offset);
                        if attributes & 0x08 == 0 && first != b'.' {
                            let first = u32::from(u16_at(entry, 20)) << 16 | u32::from(u16_at(entry, 26));
                            found.push(Raw { name, attributes, first, size: u32_at(entry, 28), entries });
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    /// The file with a name in [`UKI_DIR`].
    #[must_use]
    pub fn uki(&self, name: &str) -> Option<&FatFile> {
        self.files.iter().find(|file| file.is_uki() && file.name() == name)
    }

    /// All files of [`UKI_DIR`].
    pub fn ukis(&self) -> impl Iterator<Item = &FatFile> {
        self.files.iter().filter(|file| file.is_uki())
    }

    /// Bytes in free clusters.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.table().skip(2).filter(|&entry| entry == 0).count() as u64 * self.cluster_len
    }

    /// Hands the content of a file to `each`, piece by piece.
    ///
    /// # Errors
    /// When the device fails, or the file's chain is shorter than the file.
    pub fn read_file(&self, target: &dyn Target, file: &FatFile, each: &mut dyn FnMut(&[u8])) -> Result<(), FatError> {
        if !file.whole {
            return Err(FatError::Missing(file.path.clone()));
        }
        let mut left = u64::from(file.size);
        let mut clusters = file.chain.iter().copied().peekable();
        let mut buffer = Vec::new();
        while let Some(first) = clusters.next().filter(|_| left > 0) {
            // Neighbours are read together, up to 1 MiB.
            let mut count = 1;
            while count * self.cluster_len < 1 << 20 && clusters.next_if_eq(&(first + count as u32)).is_some() {
                count += 1;
            }
            buffer.resize((count * self.cluster_len) as usize, 0);
            target.read(Area::Esp, self.cluster_at(first), &mut buffer)?;
            let used = left.min(buffer.len() as u64);
            each(buffer.get(..used as usize).unwrap_or_default());
            left -= used;
        }
        Ok(())
    }

    /// Pairs of files that share clusters, by their index.
    fn shared(&self) -> Vec<(usize, usize)> {
        let mut owner = vec![0_u32; self.clusters as usize];
        let mut pairs = BTreeSet::new();
        for (index, file) in self.files.iter().enumerate() {
            for &cluster in &file.chain {
                let Some(owner) = owner.get_mut(cluster as usize) else { continue };
                if *owner > 0 {
                    pairs.insert((*owner as usize - 1, index));
                }
                *owner = index as u32 + 1;
            }
        }
        pairs.into_iter().collect()
    }

    fn lost(&self) -> Vec<u32> {
        let mut used: Vec<bool> = self.table().map(|entry| entry == 0 || entry == BAD).collect();
        for &cluster in self.directories.iter().chain(self.files.iter().flat_map(|file| &file.chain)) {
            if let Some(used) = used.get_mut(cluster as usize) {
                *used = true;
            }
        }
        used.iter().enumerate().skip(2).filter(|(_, used)| !**used).map(|(cluster, _)| cluster as u32).collect()
    }
}

#[derive(Default)]
struct LongName {
    units: Vec<[u16; 13]>,
    offsets: Vec<u64>,
    checksum: u8,
    expected: u8,
}

impl LongName {
    fn push(&mut self, entry: &[u8; ENTRY], offset: u64) {
        let order = byte(entry, 0);
        if order & 0x40 != 0 {
            *self = Self { checksum: byte(entry, 13), expected: order & 0x3f, ..Self::default() };
        }
        self.offsets.push(offset);
        if order & 0x3f != self.expected || byte(entry, 13) != self.checksum || self.expected == 0 {
            self.expected = 0;
            self.units.clear();
            return;
        }
        self.expected -= 1;
        let mut units = [0; 13];
        for (unit, at) in units.iter_mut().zip((1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2))) {
            *unit = u16_at(entry, at);
        }
        self.units.insert(0, units);
    }

    /// The name, and where the entries of the long name are, when they belong to this short entry.
    fn finish(self, short: &[u8; ENTRY]) -> (String, Vec<u64>) {
        let sum = short.iter().take(11).fold(0_u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte));
        if !self.units.is_empty() && self.expected == 0 && sum == self.checksum {
            let units = self.units.into_iter().flatten().take_while(|&unit| unit != 0 && unit != 0xffff);
            let name = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
            return (name, self.offsets);
        }
        let part = |range: std::ops::Range<usize>, lower: bool| {
            let text: String = short.get(range).unwrap_or_default().iter().map(|&byte| char::from(byte)).collect();
            let text = text.trim_end().to_owned();
            if lower { text.to_ascii_lowercase() } else { text }
        };
        let case = byte(short, 12);
        let (stem, extension) = (part(0..8, case & 0x08 != 0), part(8..11, case & 0x10 != 0));
        (if extension.is_empty() { stem } else { format!("{stem}.{extension}") }, Vec::new())
    }
}

/// Makes the file system consistent, as far as `EFI/Linux` and lost clusters go. Of files that share clusters, the one with the
/// higher `score` stays; those that are cut short go. Must not be mounted.
///
/// # Errors
/// When it is no FAT32 or the device fails.
pub fn mend<S: Ord>(target: &dyn Target, score: &mut dyn FnMut(&Volume, &FatFile) -> S) -> Result<Mended, FatError> {
    let mut said = Vec::new();
    // Each round drops one file at least.
    loop {
        let volume = Volume::read(target)?;
        let mut doomed: BTreeSet<usize> = volume
            .files
            .iter()
            .enumerate()
            .filter(|(_, file)| file.is_uki() && (!file.whole || file.size == 0))
            .map(|(index, _)| index)
            .collect();
        for (a, b) in volume.shared() {
            if doomed.contains(&a) || doomed.contains(&b) {
                continue;
            }
            let (Some(first), Some(second)) = (volume.files.get(a), volume.files.get(b)) else { continue };
            match (first.is_uki(), second.is_uki()) {
                (true, true) if score(&volume, first) >= score(&volume, second) => doomed.insert(b),
                (true, _) => doomed.insert(a),
                (false, true) => doomed.insert(b),
                (false, false) => {
                    said.push(format!("{} and {} share clusters: left as they are", first.path, second.path));
                    false
                }
            };
        }
        if doomed.is_empty() {
            mend_tables(target, &volume, &mut said)?;
            return Ok(said);
        }
        for file in doomed.into_iter().filter_map(|index| volume.files.get(index)) {
            said.push(format!("dropped {}, which a power cut left {}", file.path, if file.whole { "twice" } else { "incomplete" }));
            for &at in &file.entries {
                target.write(Area::Esp, at, &[DELETED])?;
            }
        }
        target.sync(Area::Esp)?;
    }
}

fn mend_tables(target: &dyn Target, volume: &Volume, said: &mut Mended) -> Result<(), FatError> {
    let lost = if volume.readable { volume.lost() } else { Vec::new() };
    if !lost.is_empty() {
        said.push(format!("freed {} clusters that belonged to no file", lost.len()));
        for &cluster in &lost {
            target.write(Area::Esp, volume.fat_at + u64::from(cluster) * 4, &[0; 4])?;
        }
        target.sync(Area::Esp)?;
    }
    if volume.fats == 2 && (volume.fats_differ || !lost.is_empty()) {
        let mut bytes = vec![0; volume.fat_len as usize];
        target.read(Area::Esp, volume.fat_at, &mut bytes)?;
        target.write(Area::Esp, volume.fat_at + volume.fat_len, &bytes)?;
        target.sync(Area::Esp)?;
        if volume.fats_differ {
            said.push("made the second allocation table equal to the first".to_owned());
        }
    }
    if let Some(state) = volume.dirty {
        target.write(Area::Esp, STATE_BYTE, &[state & !1])?;
        target.sync(Area::Esp)?;
    }
    Ok(())
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from(byte(bytes, at)) | u16::from(byte(bytes, at + 1)) << 8
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}
