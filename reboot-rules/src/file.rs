//! Files that are there whole or not at all, whoever reads them and whenever power goes.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Writes a file whole or not at all, and its directory where that is missing; `sync`: also through a loss of power. Until it is whole it has
/// a hidden name, which those who list or watch the directory pass over.
///
/// # Errors
/// When its directory cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    let mut hidden = OsString::from(".");
    hidden.push(path.file_name().unwrap_or_default());
    hidden.push(".new");
    let temporary = directory.join(hidden);
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    if sync {
        file.sync_all()?;
    }
    fs::rename(&temporary, path)?;
    if sync { File::open(directory)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_the_place_of_the_old_one_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/journal.json");
        for (text, sync) in [("one, and longer", true), ("two", false)] {
            write_whole(&path, text.as_bytes(), sync).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        }
        // What a loss of power left half-way is no inhibitor, and does not last.
        let half = path.with_file_name(".journal.json.new");
        fs::write(&half, "half").unwrap();
        assert_eq!(crate::inhibitors::files(path.parent().unwrap()).len(), 1);
        write_whole(&path, b"three", true).unwrap();
        assert!(!half.exists());
    }
}
