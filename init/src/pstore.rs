//! `init pstore`: keeps what a crashed kernel left in the firmware's store, and makes room for the next crash.
//!
//! Each record becomes a file below `/var/lib/garboard/pstore`; only what is safely there is removed from the store. The newest
//! are kept, up to a bound: a machine that crashes over and over must not fill its disk with that.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Files that are kept.
const MOST: usize = 64;

/// Moves everything; what cannot be moved stays for the next boot.
pub fn main(_args: &[String]) -> ExitCode {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match harvest(Path::new("/sys/fs/pstore"), Path::new("/var/lib/garboard/pstore"), now) {
        Ok(kept) => {
            // One crash leaves many records, each with a piece of its last words.
            if let (Some(first), count) = (kept.first(), kept.len()) {
                eprintln!("<4>the kernel crashed before this boot: its last words are in {} ({count} files)", first.display());
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("<3>pstore: cannot keep what a crash has left: {why}");
            ExitCode::FAILURE
        }
    }
}

fn harvest(store: &Path, archive: &Path, now: u64) -> io::Result<Vec<PathBuf>> {
    let mut records: Vec<PathBuf> = fs::read_dir(store)?.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    records.sort();
    if records.is_empty() {
        return Ok(Vec::new());
    }
    fs::create_dir_all(archive)?;
    let mut kept = Vec::new();
    for record in records {
        let name = record.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = fs::read(&record)?;
        // In order of time by name; a second harvest in the same second finds the same record under the same name.
        let path = archive.join(format!("{now:012}-{name}"));
        let mut file = fs::File::create(&path)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::File::open(archive)?.sync_all()?;
        fs::remove_file(&record)?;
        kept.push(path);
    }
    let mut all: Vec<PathBuf> = fs::read_dir(archive)?.flatten().map(|entry| entry.path()).collect();
    all.sort();
    for old in all.iter().take(all.len().saturating_sub(MOST)) {
        fs::remove_file(old)?;
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_moved_and_the_oldest_make_room() {
        let root = tempfile::tempdir().unwrap();
        let (store, archive) = (root.path().join("pstore"), root.path().join("state/pstore"));
        fs::create_dir(&store).unwrap();
        assert_eq!(harvest(&store, &archive, 5).unwrap(), Vec::<PathBuf>::new());
        assert!(!archive.exists(), "nothing is made where there is nothing");
        for round in 0..MOST as u64 {
            fs::write(store.join("dmesg-efi-1"), format!("Oops {round}")).unwrap();
            fs::write(store.join("console-ramoops-0"), "last words").unwrap();
            assert_eq!(harvest(&store, &archive, round).unwrap().len(), 2);
        }
        assert_eq!(fs::read_dir(&store).unwrap().count(), 0);
        let names: Vec<_> = fs::read_dir(&archive).unwrap().collect();
        assert_eq!(names.len(), MOST);
        assert_eq!(fs::read_to_string(archive.join("000000000063-dmesg-efi-1")).unwrap(), "Oops 63");
    }

    #[test]
    fn what_cannot_be_kept_stays_in_the_store() {
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join("pstore");
        fs::create_dir(&store).unwrap();
        fs::write(store.join("dmesg-1"), "Oops").unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        assert!(harvest(&store, &root.path().join("file/below"), 1).is_err());
        assert!(store.join("dmesg-1").exists());
    }
}
