//! GUID partition tables: read from either copy, changed in few ways, written back so that a power cut between any two
//! writes leaves one good copy. Parsing takes untrusted bytes and never panics.

use std::io;
use std::os::unix::fs::FileExt;

use thiserror::Error;
use uuid::Uuid;

const SIGNATURE: &[u8; 8] = b"EFI PART";
const HEADER_LEN: usize = 92;
const NAME_UNITS: usize = 36;
const MAX_ENTRIES: u32 = 1024;

/// Why a disk has no partition table that we can use.
#[derive(Debug, Error)]
pub enum GptError {
    /// Neither copy is whole.
    #[error("neither copy of the partition table is valid")]
    Invalid,
    /// The table cannot be made to fit.
    #[error("the partition table does not fit the disk")]
    DoesNotFit,
    /// Reading or writing failed.
    #[error("cannot access the partition table: {0}")]
    Io(#[from] io::Error),
}

/// One used entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// From 1.
    pub number: u32,
    /// Type GUID.
    pub kind: Uuid,
    /// Unique GUID.
    pub id: Uuid,
    /// First block.
    pub first: u64,
    /// Last block, inclusive.
    pub last: u64,
    /// The name in UTF-8.
    pub label: String,
}

/// Where a table lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a logical block.
    pub block_size: u64,
    /// Logical blocks of the disk.
    pub blocks: u64,
}

/// A table in memory. Entries keep their bytes, so attributes and unknown fields survive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpt {
    /// GUID of the disk.
    pub disk_id: Uuid,
    geometry: Geometry,
    first_usable: u64,
    last_usable: u64,
    entry_len: usize,
    entries: Vec<u8>,
    /// Whether the table, as it was read, ended at the last block of the disk, both copies being good.
    whole: bool,
}

struct Header {
    disk_id: Uuid,
    this: u64,
    first_usable: u64,
    last_usable: u64,
    entries_at: u64,
    entries: u32,
    entry_len: u32,
    entries_crc: u32,
    other: u64,
}

impl Gpt {
    /// Reads the table: the primary copy, or the backup at the end of the disk when the primary is bad.
    ///
    /// # Errors
    /// When neither copy is valid or the disk cannot be read.
    pub fn read(disk: &impl FileExt, geometry: Geometry) -> Result<Self, GptError> {
        let end = geometry.blocks.saturating_sub(1);
        let primary = Self::read_copy(disk, geometry, 1)?;
        let backup_at = primary.as_ref().map_or(end, |(header, _)| header.other);
        match primary {
            Some((header, entries)) => {
                // Only the header of the backup is looked at: its entries are rewritten with every change anyway.
                let backup = read_header(disk, geometry, backup_at)?;
                let whole = backup_at == end && backup.is_some();
                Self::build(&header, entries, geometry, whole).ok_or(GptError::Invalid)
            }
            None => {
                let (header, entries) = Self::read_copy(disk, geometry, end)?.ok_or(GptError::Invalid)?;
                Self::build(&header, entries, geometry, false).ok_or(GptError::Invalid)
            }
        }
    }

    fn read_copy(disk: &impl FileExt, geometry: Geometry, at: u64) -> Result<Option<(Header, Vec<u8>)>, GptError> {
        let Some(header) = read_header(disk, geometry, at)? else { return Ok(None) };
        let len = header.entries as usize * header.entry_len as usize;
        let Some(offset) = header.entries_at.checked_mul(geometry.block_size) else { return Ok(None) };
        let mut entries = vec![0; len];
        if read_or_none(disk, &mut entries, offset)?.is_none() || crc32fast::hash(&entries) != header.entries_crc {
            return Ok(None);
        }
        Ok(Some((header, entries)))
    }

    fn build(header: &Header, entries: Vec<u8>, geometry: Geometry, whole: bool) -> Option<Self> {
        (header.first_usable <= header.last_usable && header.last_usable < geometry.blocks).then_some(Self {
            disk_id: header.disk_id,
            geometry,
            first_usable: header.first_usable,
            last_usable: header.last_usable,
            entry_len: header.entry_len as usize,
            entries,
            whole,
        })
    }

    /// The used entries, by number.
    #[must_use]
    pub fn partitions(&self) -> Vec<Partition> {
        self.entries.chunks_exact(self.entry_len).zip(1_u32..).filter_map(|(entry, number)| parse_entry(entry, number)).collect()
    }

    /// The partition with a number.
    #[must_use]
    pub fn partition(&self, number: u32) -> Option<Partition> {
        self.partitions().into_iter().find(|partition| partition.number == number)
    }

    /// Whether the backup copy is where it belongs.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Gives a partition another label.
    pub fn set_label(&mut self, number: u32, label: &str) {
        let mut name = [0_u8; NAME_UNITS * 2];
        for (to, unit) in name.chunks_exact_mut(2).zip(label.encode_utf16()) {
            to.copy_from_slice(&unit.to_le_bytes());
        }
        self.patch(number, 56, &name);
    }

    /// Gives a partition another unique GUID.
    pub fn set_id(&mut self, number: u32, id: Uuid) {
        self.patch(number, 16, &id.to_bytes_le());
    }

    /// Moves the table's end to the end of the disk and lets the partition use what is free behind it, when it is the
    /// last one on the disk. Ends are aligned to 1 MiB. Returns whether anything changed.
    pub fn grow_last(&mut self, number: u32) -> bool {
        let table = (self.entries.len() as u64).div_ceil(self.geometry.block_size);
        let Some(last_usable) = self.geometry.blocks.checked_sub(table + 2) else { return false };
        let Some(partition) = self.partition(number) else { return false };
        if self.partitions().iter().any(|other| other.number != number && other.last > partition.first) || last_usable < partition.last {
            return false;
        }
        let mut changed = last_usable != self.last_usable || !self.whole;
        self.last_usable = last_usable;
        let unit = (1024 * 1024 / self.geometry.block_size).max(1);
        let end = ((last_usable + 1) / unit * unit).saturating_sub(1);
        if end > partition.last {
            self.patch(number, 40, &end.to_le_bytes());
            changed = true;
        }
        changed
    }

    /// Writes both copies: the backup, flush, the primary, flush. `flush` makes what was written durable.
    ///
    /// # Errors
    /// When the table does not fit or a write fails; one of the copies is then still whole.
    pub fn write(&mut self, disk: &impl FileExt, flush: impl Fn() -> io::Result<()>) -> Result<(), GptError> {
        let size = self.geometry.block_size;
        let table = (self.entries.len() as u64).div_ceil(size);
        let end = self.geometry.blocks.checked_sub(1).ok_or(GptError::DoesNotFit)?;
        let backup_entries = end.checked_sub(table).ok_or(GptError::DoesNotFit)?;
        if self.first_usable < 2 + table || self.last_usable >= backup_entries {
            return Err(GptError::DoesNotFit);
        }
        disk.write_all_at(&self.entries, backup_entries * size)?;
        disk.write_all_at(&self.header(end, 1, backup_entries), end * size)?;
        flush()?;
        disk.write_all_at(&self.entries, 2 * size)?;
        disk.write_all_at(&self.header(1, end, 2), size)?;
        self.write_protective_size(disk, end)?;
        flush()?;
        self.whole = true;
        Ok(())
    }

    /// The protective MBR tells the size of the disk; old tools compare.
    fn write_protective_size(&self, disk: &impl FileExt, end: u64) -> io::Result<()> {
        let mut kind = [0_u8; 1];
        disk.read_exact_at(&mut kind, 446 + 4)?;
        if kind == [0xee] {
            disk.write_all_at(&u32::try_from(end).unwrap_or(u32::MAX).to_le_bytes(), 446 + 12)?;
        }
        Ok(())
    }

    fn header(&self, this: u64, other: u64, entries_at: u64) -> Vec<u8> {
        let count = self.entries.len() / self.entry_len.max(1);
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(SIGNATURE);
        out.extend_from_slice(&0x0001_0000_u32.to_le_bytes());
        out.extend_from_slice(&(HEADER_LEN as u32).to_le_bytes());
        let crc_at = out.len();
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&this.to_le_bytes());
        out.extend_from_slice(&other.to_le_bytes());
        out.extend_from_slice(&self.first_usable.to_le_bytes());
        out.extend_from_slice(&self.last_usable.to_le_bytes());
        out.extend_from_slice(&self.disk_id.to_bytes_le());
        out.extend_from_slice(&entries_at.to_le_bytes());
        out.extend_from_slice(&u32::try_from(count).unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.entry_len).unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&self.entries).to_le_bytes());
        let crc = crc32fast::hash(&out).to_le_bytes();
        for (to, from) in out.iter_mut().skip(crc_at).zip(crc) {
            *to = from;
        }
        out.resize(usize::try_from(self.geometry.block_size).unwrap_or(512), 0);
        out
    }

    fn patch(&mut self, number: u32, offset: usize, bytes: &[u8]) {
        let start = (number as usize).saturating_sub(1).saturating_mul(self.entry_len).saturating_add(offset);
        for (to, from) in self.entries.iter_mut().skip(start).zip(bytes) {
            *to = *from;
        }
    }
}

fn read_or_none(disk: &impl FileExt, buffer: &mut [u8], offset: u64) -> io::Result<Option<()>> {
    match disk.read_exact_at(buffer, offset) {
        Ok(()) => Ok(Some(())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_header(disk: &impl FileExt, geometry: Geometry, at: u64) -> io::Result<Option<Header>> {
    if at == 0 || at >= geometry.blocks {
        return Ok(None);
    }
    let mut block = vec![0; usize::try_from(geometry.block_size).unwrap_or(512)];
    if read_or_none(disk, &mut block, at * geometry.block_size)?.is_none() {
        return Ok(None);
    }
    Ok(parse_header(&block).filter(|header| header.this == at))
}

fn parse_header(block: &[u8]) -> Option<Header> {
    let len = usize::try_from(u32_at(block, 12)?).ok()?;
    if block.get(..8)? != SIGNATURE || len < HEADER_LEN {
        return None;
    }
    let mut checked = block.get(..len)?.to_vec();
    checked.get_mut(16..20)?.fill(0);
    if crc32fast::hash(&checked) != u32_at(block, 16)? {
        return None;
    }
    let header = Header {
        this: u64_at(block, 24)?,
        other: u64_at(block, 32)?,
        first_usable: u64_at(block, 40)?,
        last_usable: u64_at(block, 48)?,
        disk_id: guid_at(block, 56)?,
        entries_at: u64_at(block, 72)?,
        entries: u32_at(block, 80)?,
        entry_len: u32_at(block, 84)?,
        entries_crc: u32_at(block, 88)?,
    };
    (header.entries <= MAX_ENTRIES && header.entries > 0 && (128..=4096).contains(&header.entry_len)).then_some(header)
}

fn parse_entry(entry: &[u8], number: u32) -> Option<Partition> {
    let kind = guid_at(entry, 0)?;
    if kind.is_nil() {
        return None;
    }
    let units =
        entry.get(56..56 + NAME_UNITS * 2)?.chunks_exact(2).map(|pair| pair.iter().rev().fold(0_u16, |sum, &b| sum << 8 | u16::from(b)));
    let label = char::decode_utf16(units.take_while(|&unit| unit != 0)).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    Some(Partition { number, kind, id: guid_at(entry, 16)?, first: u64_at(entry, 32)?, last: u64_at(entry, 40)?, label })
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..offset + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..offset + 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn guid_at(bytes: &[u8], offset: usize) -> Option<Uuid> {
    bytes.get(offset..offset + 16)?.try_into().ok().map(Uuid::from_bytes_le)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::process::Command;

    fn disk(blocks: u64) -> (tempfile::NamedTempFile, Geometry) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(blocks * 512).unwrap();
        (file, Geometry { block_size: 512, blocks })
    }

    fn sgdisk(file: &tempfile::NamedTempFile, args: &[&str]) -> String {
        let out = Command::new("sgdisk").args(args).arg(file.path()).output().expect("sgdisk, from the package gdisk, is needed here");
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
    }

    fn sample() -> (tempfile::NamedTempFile, Geometry) {
        let (file, geometry) = disk(65_536);
        sgdisk(&file, &["-n", "1:2048:+4M", "-c", "1:esp", "-n", "6:0:+8M", "-c", "6:state-new"]);
        (file, geometry)
    }

    fn open(file: &tempfile::NamedTempFile) -> File {
        file.reopen().unwrap()
    }

    #[test]
    fn reads_what_sgdisk_wrote() {
        let (file, geometry) = sample();
        let gpt = Gpt::read(&open(&file), geometry).unwrap();
        let parts = gpt.partitions();
        assert_eq!(parts.iter().map(|p| (p.number, p.label.as_str())).collect::<Vec<_>>(), [(1, "esp"), (6, "state-new")]);
        assert_eq!((parts[0].first, parts[0].last), (2048, 2048 + 8191));
        assert!(gpt.is_whole());
    }

    #[test]
    fn a_grown_disk_gets_its_backup_moved_and_sgdisk_agrees() {
        let (file, _) = sample();
        file.as_file().set_len(131_072 * 512).unwrap();
        let geometry = Geometry { block_size: 512, blocks: 131_072 };
        let disk = open(&file);
        let mut gpt = Gpt::read(&disk, geometry).unwrap();
        assert!(!gpt.is_whole());
        assert!(gpt.grow_last(6));
        let id = Uuid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_def0);
        gpt.set_id(6, id);
        gpt.set_label(6, "state");
        gpt.write(&disk, || Ok(())).unwrap();
        let report = sgdisk(&file, &["-v"]);
        assert!(report.contains("No problems found"), "{report}");
        let again = Gpt::read(&disk, geometry).unwrap();
        let state = again.partition(6).unwrap();
        assert_eq!((state.label.as_str(), state.id, (state.last + 1) % 2048), ("state", id, 0));
        assert!(state.last > 128_000);
        assert!(!again.clone().grow_last(6), "growing twice changes nothing");
    }

    #[test]
    fn the_backup_serves_when_the_primary_is_gone() {
        let (file, geometry) = sample();
        let disk = open(&file);
        disk.write_all_at(&[0; 512], 512).unwrap();
        let mut gpt = Gpt::read(&disk, geometry).unwrap();
        assert_eq!(gpt.partitions().len(), 2);
        gpt.write(&disk, || Ok(())).unwrap();
        let report = sgdisk(&file, &["-v"]);
        assert!(report.contains("No problems found"), "{report}");
    }

    #[test]
    fn a_cut_between_the_copies_leaves_a_readable_table() {
        let (file, geometry) = sample();
        let disk = open(&file);
        let mut gpt = Gpt::read(&disk, geometry).unwrap();
        gpt.set_label(6, "state");
        let cut = gpt.clone().write(&disk, || Err(io::Error::other("power cut")));
        assert!(cut.is_err());
        assert_eq!(Gpt::read(&disk, geometry).unwrap().partition(6).unwrap().label, "state-new");
    }

    #[test]
    fn only_the_last_partition_grows() {
        let (file, geometry) = sample();
        let mut gpt = Gpt::read(&open(&file), geometry).unwrap();
        assert!(!gpt.grow_last(1));
    }

    #[test]
    fn noise_is_an_error() {
        let (file, geometry) = disk(2048);
        file.as_file().write_all_at(&vec![0xa5; 1024 * 1024], 0).unwrap();
        assert!(matches!(Gpt::read(&open(&file), geometry), Err(GptError::Invalid)));
    }
}
