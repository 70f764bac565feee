//! The writing side of the log store: appends, rotates, bounds its size, cuts a torn tail.
//!
//! Relies on being the only writer. Promises: nothing that was stored whole is ever cut, a failed write is counted and
//! reported in the log once writing works again, and the files together stay within the bound.
#![deny(clippy::indexing_slicing)]

use super::format::{self, BootId, Entry, Record, Records};
use super::segments::{self, Segment};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Entries are collected up to this many bytes before they are written even in the middle of a busy turn.
const BATCH: usize = 128 * 1024;

/// What can go wrong with the store's files.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store's directory.
    #[error("cannot use log directory {path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A segment file.
    #[error("cannot {act} log segment {path}: {source}")]
    Segment {
        /// What was tried.
        act: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// How large things may grow, and who may read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all segments together.
    pub total: u64,
    /// Bytes of one segment.
    pub segment: u64,
    /// The group that may read.
    pub group: Option<u32>,
}

/// The open store.
pub struct Store {
    directory: PathBuf,
    limits: Limits,
    boot: BootId,
    file: Arc<File>,
    number: u64,
    /// Bytes of the active segment that are whole records.
    length: u64,
    batch: Vec<u8>,
    batch_entries: u64,
    lost: u64,
    lost_reason: String,
    /// Written since the last call of [`Store::clean`].
    dirty: bool,
}

impl Store {
    /// Opens the store in `directory`, creating it where needed, and goes on behind the last whole record.
    pub fn open(directory: &Path, limits: Limits, boot: BootId) -> Result<Store, StoreError> {
        let directory_error = |source| StoreError::Directory { path: directory.into(), source };
        fs::create_dir_all(directory).map_err(directory_error)?;
        fs::set_permissions(directory, Permissions::from_mode(0o2750)).map_err(directory_error)?;
        give_to_group(directory, limits.group);
        let existing = segments::list(directory).map_err(directory_error)?;
        let newest = existing.last();
        let resumed = match newest {
            Some(segment) if segment.size < limits.segment => resume(segment)?,
            _ => None,
        };
        let mut store = match (resumed, newest) {
            (Some((file, length, last_boot)), Some(segment)) => {
                let mut store = Store::new(directory, limits, boot, file, segment.number, length);
                if last_boot != Some(boot) {
                    format::encode_boot(&mut store.batch, &boot);
                }
                store
            }
            _ => {
                let number = newest.map_or(1, |segment| segment.number + 1);
                let file = create(directory, number, limits.group)?;
                let mut store = Store::new(directory, limits, boot, file, number, 0);
                store.begin_segment();
                store
            }
        };
        store.flush();
        store.remove_oldest();
        Ok(store)
    }

    fn new(directory: &Path, limits: Limits, boot: BootId, file: File, number: u64, length: u64) -> Store {
        Store {
            directory: directory.into(),
            limits,
            boot,
            file: Arc::new(file),
            number,
            length,
            batch: Vec::with_capacity(BATCH + 4096),
            batch_entries: 0,
            lost: 0,
            lost_reason: String::new(),
            dirty: false,
        }
    }

    /// Adds an entry; it reaches the file with the next [`Store::flush`].
    pub fn append(&mut self, entry: &Entry<'_>) {
        if self.lost > 0 && self.batch.is_empty() {
            self.report_loss(entry);
        }
        format::encode_entry(&mut self.batch, entry);
        self.batch_entries += 1;
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    /// Writes what was appended. On failure it is dropped and counted: a full disk must not stop services.
    pub fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        match (&*self.file).write_all(&self.batch) {
            Ok(()) => {
                self.length += self.batch.len() as u64;
                self.dirty = true;
            }
            Err(error) => {
                self.lost += self.batch_entries;
                self.lost_reason = error.to_string();
                // A part may have been written: leave whole records only. If even this fails, readers step over it.
                let _ = self.file.set_len(self.length);
            }
        }
        self.batch.clear();
        self.batch_entries = 0;
        if self.length >= self.limits.segment {
            self.rotate();
        }
    }

    /// Whether something was written since [`Store::clean`].
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// The file to sync, if something was written.
    pub fn dirty_file(&self) -> Option<Arc<File>> {
        self.dirty.then(|| Arc::clone(&self.file))
    }

    /// Says that a sync was begun for all that is written.
    pub fn clean(&mut self) {
        self.dirty = false;
    }

    /// The kernel sequence number stored last in this boot.
    pub fn last_kernel_sequence(&self) -> Option<u64> {
        let mut segments = segments::list(&self.directory).ok()?;
        while let Some(segment) = segments.pop() {
            let bytes = segments::read(&segment).ok()?;
            let Some(start) = format::decode_segment_header(&bytes) else { continue };
            let mut last = None;
            let (mut any_of_boot, mut of_boot) = (false, false);
            for (_, record) in Records::new(&bytes, start) {
                match record {
                    Record::Boot(id) => of_boot = id == self.boot,
                    Record::Entry(entry) if of_boot && entry.kernel_sequence.is_some() => last = entry.kernel_sequence,
                    _ => {}
                }
                any_of_boot |= of_boot;
            }
            if last.is_some() || !any_of_boot {
                return last;
            }
        }
        None
    }

    fn begin_segment(&mut self) {
        self.batch.extend_from_slice(&format::encode_segment_header(self.number));
        format::encode_boot(&mut self.batch, &self.boot);
    }

    fn rotate(&mut self) {
        let number = self.number + 1;
        match create(&self.directory, number, self.limits.group) {
            Ok(file) => {
                // What was written last must not be lost with the handle.
                let old = std::mem::replace(&mut self.file, Arc::new(file));
                std::thread::spawn(move || old.sync_data());
                self.number = number;
                self.length = 0;
                self.begin_segment();
                self.flush();
                self.remove_oldest();
            }
            // The old segment goes on growing; the next flush tries again.
            Err(error) => self.lost_reason = error.to_string(),
        }
    }

    fn remove_oldest(&self) {
        let Ok(segments) = segments::list(&self.directory) else { return };
        let mut total: u64 = segments.iter().map(|segment| segment.size).sum();
        for segment in segments {
            // Room for the active one to fill up is part of the bound.
            if total + self.limits.segment.saturating_sub(self.length) <= self.limits.total || segment.number == self.number {
                return;
            }
            if fs::remove_file(&segment.path).is_ok() {
                total -= segment.size;
            }
        }
    }

    fn report_loss(&mut self, next: &Entry<'_>) {
        let text = format!("{} messages were lost: cannot write to {}: {}", self.lost, self.directory.display(), self.lost_reason);
        let entry = Entry {
            pid: std::process::id(),
            uid: Some(0),
            priority: 4,
            source: format::Source::Daemon,
            unit: "garboard-log.service",
            identifier: "log-daemon",
            message: text.as_bytes(),
            kernel_sequence: None,
            invocation: "",
            ..*next
        };
        format::encode_entry(&mut self.batch, &entry);
        match (&*self.file).write_all(&self.batch) {
            Ok(()) => {
                self.length += self.batch.len() as u64;
                self.lost = 0;
                self.dirty = true;
            }
            Err(_) => drop(self.file.set_len(self.length)),
        }
        self.batch.clear();
    }
}

/// Opens a segment for appending behind its last whole record; `None` when it is no segment that we can write to.
fn resume(segment: &Segment) -> Result<Option<(File, u64, Option<BootId>)>, StoreError> {
    let error = |act| move |source| StoreError::Segment { act, path: segment.path.clone(), source };
    let bytes = fs::read(&segment.path).map_err(error("read"))?;
    let Some(start) = format::decode_segment_header(&bytes) else { return Ok(None) };
    let mut records = Records::new(&bytes, start);
    let boot = records.by_ref().filter_map(|(_, record)| if let Record::Boot(id) = record { Some(id) } else { None }).last();
    let end = records.position();
    let file = OpenOptions::new().append(true).open(&segment.path).map_err(error("open"))?;
    if end < bytes.len() {
        file.set_len(end as u64).map_err(error("cut the torn tail of"))?;
    }
    Ok(Some((file, end as u64, boot)))
}

fn create(directory: &Path, number: u64, group: Option<u32>) -> Result<File, StoreError> {
    let path = directory.join(segments::file_name(number));
    let opened = OpenOptions::new().append(true).create_new(true).mode(0o640).open(&path);
    let file = opened.map_err(|source| StoreError::Segment { act: "create", path: path.clone(), source })?;
    give_to_group(&path, group);
    Ok(file)
}

/// Best effort: as an ordinary user (in tests) it cannot be done, and root reads anyway.
fn give_to_group(path: &Path, group: Option<u32>) {
    if let Some(gid) = group {
        let _ = std::os::unix::fs::chown(path, None, Some(gid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::format::Source;

    const BOOT: BootId = [7; 16];
    const LIMITS: Limits = Limits { total: 1 << 20, segment: 64 << 10, group: None };

    fn entry(message: &[u8]) -> Entry<'_> {
        Entry {
            realtime: 1,
            monotonic: 1,
            pid: 1,
            uid: None,
            priority: 6,
            source: Source::Native,
            unit: "a.service",
            identifier: "a",
            message,
            kernel_sequence: None,
            invocation: "",
        }
    }

    fn messages(directory: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for segment in segments::list(directory).unwrap() {
            let bytes = segments::read(&segment).unwrap();
            for (_, record) in Records::new(&bytes, format::decode_segment_header(&bytes).unwrap()) {
                if let Record::Entry(entry) = record {
                    found.push(String::from_utf8_lossy(entry.message).into_owned());
                }
            }
        }
        found
    }

    #[test]
    fn a_store_cut_anywhere_opens_again_and_keeps_every_whole_record() {
        let original = tempfile::tempdir().unwrap();
        let mut store = Store::open(original.path(), LIMITS, BOOT).unwrap();
        let mut ends = Vec::new();
        for n in 0..5 {
            store.append(&entry(format!("line {n}").as_bytes()));
            store.flush();
            ends.push(store.length as usize);
        }
        let bytes = fs::read(original.path().join(segments::file_name(1))).unwrap();
        for cut in 0..bytes.len() {
            let copy = tempfile::tempdir().unwrap();
            fs::write(copy.path().join(segments::file_name(1)), &bytes[..cut]).unwrap();
            let mut store = Store::open(copy.path(), LIMITS, BOOT).unwrap();
            store.append(&entry(b"after"));
            store.flush();
            drop(store);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let readable: Vec<String> = segments::list(copy.path())
                .unwrap()
                .iter()
                .filter_map(|s| segments::read(s).ok())
                .filter_map(|b| {
                    let start = format::decode_segment_header(&b)?;
                    let texts = Records::new(&b, start).filter_map(|(_, r)| match r {
                        Record::Entry(e) => Some(String::from_utf8_lossy(e.message).into_owned()),
                        _ => None,
                    });
                    Some(texts.collect::<Vec<_>>())
                })
                .flatten()
                .collect();
            let mut expected: Vec<String> = (0..whole).map(|n| format!("line {n}")).collect();
            expected.push("after".into());
            assert_eq!(readable, expected, "cut at {cut}");
        }
    }

    #[test]
    fn records_behind_damage_survive_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path(), LIMITS, BOOT).unwrap();
        store.append(&entry(b"first"));
        store.flush();
        let hole = store.length as usize;
        store.append(&entry(b"second"));
        store.append(&entry(b"third"));
        store.flush();
        drop(store);
        let path = directory.path().join(segments::file_name(1));
        let mut bytes = fs::read(&path).unwrap();
        bytes[hole + 15] ^= 1;
        fs::write(&path, bytes).unwrap();
        let mut store = Store::open(directory.path(), LIMITS, BOOT).unwrap();
        store.append(&entry(b"fourth"));
        store.flush();
        assert_eq!(messages(directory.path()), ["first", "third", "fourth"]);
    }

    #[test]
    fn the_bound_holds_and_the_oldest_goes_first() {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { total: 256 << 10, segment: 32 << 10, group: None };
        let mut store = Store::open(directory.path(), limits, BOOT).unwrap();
        let text = "x".repeat(1000);
        for n in 0..2000 {
            store.append(&entry(format!("{n} {text}").as_bytes()));
            store.flush();
            let total: u64 = segments::list(directory.path()).unwrap().iter().map(|s| s.size).sum();
            assert!(total <= limits.total, "{total} after {n}");
        }
        let left = messages(directory.path());
        assert!(left.last().unwrap().starts_with("1999 "));
        assert!(left.len() > 200, "{} left", left.len());
    }

    #[test]
    fn the_last_kernel_sequence_is_of_this_boot_only() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path(), LIMITS, BOOT).unwrap();
        store.append(&Entry { kernel_sequence: Some(900), ..entry(b"old boot") });
        store.flush();
        drop(store);
        let mut store = Store::open(directory.path(), LIMITS, [8; 16]).unwrap();
        assert_eq!(store.last_kernel_sequence(), None);
        store.append(&Entry { kernel_sequence: Some(3), ..entry(b"new boot") });
        store.flush();
        assert_eq!(store.last_kernel_sequence(), Some(3));
    }

    #[test]
    fn a_full_disk_loses_lines_and_says_how_many() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path(), LIMITS, BOOT).unwrap();
        let good = Arc::clone(&store.file);
        store.file = Arc::new(OpenOptions::new().write(true).open("/dev/full").unwrap());
        store.append(&entry(b"lost"));
        store.flush();
        store.file = good;
        store.append(&entry(b"kept"));
        store.flush();
        let found = messages(directory.path());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("1 messages were lost"), "{found:?}");
        assert_eq!(found[1], "kept");
    }
}
