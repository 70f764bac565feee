//! Files that are complete or not there, and stay so after a power cut.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::PublishError;

/// Reads a whole file.
pub fn read(path: &Path) -> Result<Vec<u8>, PublishError> {
    fs::read(path).map_err(PublishError::file("read", path))
}

/// Makes a directory and its parents.
pub fn make_directory(path: &Path) -> Result<(), PublishError> {
    fs::create_dir_all(path).map_err(PublishError::file("make the directory", path))
}

/// Writes, syncs and renames a file, and syncs its directory.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PublishError> {
    let fail = || PublishError::file("write", path);
    let mut file = temporary(directory_of(path), mode)?;
    file.write_all(bytes).map_err(fail())?;
    keep(file, path)
}

/// A file without a name yet, beside where it will be.
pub fn temporary(directory: &Path, mode: u32) -> Result<tempfile::NamedTempFile, PublishError> {
    let permissions = fs::Permissions::from_mode(mode);
    let made = tempfile::Builder::new().prefix(".new-").permissions(permissions).tempfile_in(directory);
    made.map_err(PublishError::file("write into", directory))
}

/// Gives a temporary file its name.
pub fn keep(file: tempfile::NamedTempFile, path: &Path) -> Result<(), PublishError> {
    file.as_file().sync_all().map_err(PublishError::file("sync", path))?;
    file.persist(path).map_err(|error| PublishError::File { act: "write", path: path.to_owned(), source: error.error })?;
    sync_directory(directory_of(path))
}

/// Makes renames and removals in a directory last.
pub fn sync_directory(path: &Path) -> Result<(), PublishError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(PublishError::file("sync", path))
}

/// Names of a directory's entries in order; none when it is not there.
pub fn names(directory: &Path) -> Result<Vec<String>, PublishError> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let fail = || PublishError::file("list", directory);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(fail())? {
        // What is not UTF-8 is none of ours.
        names.extend(entry.map_err(fail())?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Holds a repository for one publication at a time.
pub struct Lock(#[expect(dead_code, reason = "closing the file gives the lock back")] File);

impl Lock {
    /// Takes the lock without waiting.
    pub fn take(repository: &Path) -> Result<Self, PublishError> {
        make_directory(repository)?;
        let path: PathBuf = repository.join(".lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(PublishError::file("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(fs::TryLockError::WouldBlock) => Err(PublishError::Locked(repository.to_owned())),
            Err(fs::TryLockError::Error(source)) => Err(PublishError::File { act: "lock", path, source }),
        }
    }
}
