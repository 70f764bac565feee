//! Files that are there whole or not at all: written under a temporary name beside the final one, synced, renamed, and the
//! directory synced. Whatever goes wrong, a power cut included, nobody finds half a file under the final name. What the
//! cache keeps needs none of this: its sums are checked whenever it is read.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

/// A new, empty file in the directory of `path`, with a name of its own. It removes itself when it is dropped.
///
/// # Errors
/// When it cannot be made.
pub fn begin(path: &Path) -> io::Result<NamedTempFile> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // 0644 less the umask, as any program's files.
    Builder::new().prefix(&format!(".{name}.")).permissions(Permissions::from_mode(0o644)).tempfile_in(directory_of(path))
}

/// Makes the bytes durable and gives the file its name.
///
/// # Errors
/// When that fails; the file is removed then.
pub fn finish(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory_of(path))?.sync_all()
}

/// Writes a whole file.
///
/// # Errors
/// When that fails; what was there stays.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = begin(path)?;
    file.write_all(bytes)?;
    finish(file, path)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn replaces_at_once_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let mut half = begin(&path).unwrap();
        half.write_all(b"th").unwrap();
        drop(half);
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        assert!(write(&directory.path().join("none/file"), b"").is_err());
    }
}
