//! The cache that all builds of a user share: downloads by their SHA-256, unpacked packages, and the last signed
//! release file of each suite. Processes may use it at the same time: a file appears under its final name only when it
//! is whole, and a download in progress is locked. What is found damaged is dropped, so that it is fetched again.
//!
//! ```text
//! blobs/ab/abcd…            a download, named by its sum
//! partial/abcd….part        the beginning of one
//! indexes/abcd….<format>    a package index cut down to what resolving needs
//! releases/<sum of URL>     the last verified InRelease from there, for --offline
//! unpacked/<format>/ab/…    see `unpack`
//! ```

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

use crate::digest::Sha256;

/// Why the cache cannot be used.
#[derive(Debug, Error)]
pub enum CacheError {
    /// No place for it.
    #[error("there is no place for the package cache: set GARBOARD_CACHE to a directory that can be written")]
    NoPlace,
    /// A file or directory of it cannot be used.
    #[error("the package cache cannot be used: {act} {}: {source}; free space or permissions, or set GARBOARD_CACHE to another directory", path.display())]
    Io {
        /// What failed, as a gerund.
        act: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl CacheError {
    /// For `map_err`.
    pub(super) fn at(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { act, path: path.to_owned(), source }
    }
}

/// The cache's directory.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the cache at `$GARBOARD_CACHE`, `$XDG_CACHE_HOME/garboard` or `~/.cache/garboard`.
    ///
    /// # Errors
    /// When there is no such place or it cannot be written.
    pub fn open_default() -> Result<Self, CacheError> {
        Self::open(place(|name| env::var_os(name)).ok_or(CacheError::NoPlace)?)
    }

    /// Opens the cache at a directory, which is made if needed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(root: PathBuf) -> Result<Self, CacheError> {
        for directory in ["blobs", "partial", "indexes", "releases", "unpacked"] {
            let path = root.join(directory);
            fs::create_dir_all(&path).map_err(CacheError::at("making", &path))?;
        }
        // A read-only cache must fail here, in one line, and not in the middle of a download.
        let partial = root.join("partial");
        tempfile::tempfile_in(&partial).map_err(CacheError::at("writing to", &partial))?;
        Ok(Self { root })
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn blob_path(&self, sum: &Sha256) -> PathBuf {
        let name = sum.to_string();
        self.root.join("blobs").join(name.get(..2).unwrap_or_default()).join(name)
    }

    /// Whether a blob of the right length is there; its content is checked when it is read.
    #[must_use]
    pub fn has_blob(&self, sum: &Sha256, size: u64) -> bool {
        fs::metadata(self.blob_path(sum)).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
    }

    /// A blob's bytes, verified. `None` when it is not there; a damaged one is removed first.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read_blob(&self, sum: &Sha256) -> Result<Option<Vec<u8>>, CacheError> {
        let path = self.blob_path(sum);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CacheError::at("reading", &path)(error)),
        };
        if Sha256::of(&bytes) == *sum {
            return Ok(Some(bytes));
        }
        fs::remove_file(&path).map_err(CacheError::at("removing the damaged", &path))?;
        Ok(None)
    }

    /// Removes a blob.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn drop_blob(&self, sum: &Sha256) -> Result<(), CacheError> {
        let path = self.blob_path(sum);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CacheError::at("removing", &path)(error)),
            _ => Ok(()),
        }
    }

    /// The file in which a download is collected, locked against other processes until it is dropped.
    ///
    /// # Errors
    /// When it cannot be made or locked.
    pub fn partial(&self, sum: &Sha256) -> Result<Partial, CacheError> {
        let path = self.root.join("partial").join(format!("{sum}.part"));
        loop {
            let open = OpenOptions::new().read(true).append(true).create(true).open(&path);
            let file = open.map_err(CacheError::at("opening", &path))?;
            flock(&file, FlockOperation::LockExclusive).map_err(io::Error::from).map_err(CacheError::at("locking", &path))?;
            // The holder before us may have finished and renamed it away, and then our lock is on its blob.
            if same_file(&file, &path) {
                return Ok(Partial { file, path, target: self.blob_path(sum) });
            }
        }
    }

    /// Reads a small named file, for example `releases/…`. `None` when it is not there.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, CacheError> {
        let path = self.root.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CacheError::at("reading", &path)(error)),
        }
    }

    /// Writes a named file at once: a reader sees the old or the new one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CacheError> {
        let mut file = self.temporary()?;
        file.write_all(bytes).map_err(CacheError::at("writing", file.path()))?;
        self.publish(file, name)
    }

    /// A file without a final name yet, on the same file system as the cache.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn temporary(&self) -> Result<tempfile::NamedTempFile, CacheError> {
        let directory = self.root.join("partial");
        tempfile::NamedTempFile::new_in(&directory).map_err(CacheError::at("writing to", &directory))
    }

    /// Gives a temporary file its name.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn publish(&self, file: tempfile::NamedTempFile, name: &str) -> Result<(), CacheError> {
        let path = self.root.join(name);
        make_parent(&path)?;
        file.persist(&path).map_err(|error| CacheError::at("writing", &path)(error.error))?;
        Ok(())
    }
}

/// A download in progress.
#[derive(Debug)]
pub struct Partial {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

impl Partial {
    /// Whether another process finished it while this one waited.
    #[must_use]
    pub fn is_finished(&self, size: u64) -> bool {
        fs::metadata(&self.target).is_ok_and(|metadata| metadata.len() == size)
    }

    /// The file, positioned for appending.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// The file's path, for messages and for reading it again.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Empties it.
    ///
    /// # Errors
    /// When that fails.
    pub fn restart(&mut self) -> Result<(), CacheError> {
        self.file.set_len(0).map_err(CacheError::at("truncating", &self.path))
    }

    /// Removes it.
    ///
    /// # Errors
    /// When that fails.
    pub fn discard(self) -> Result<(), CacheError> {
        fs::remove_file(&self.path).map_err(CacheError::at("removing", &self.path))
    }

    /// Makes it a blob; the caller has checked its sum.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn finish(self) -> Result<(), CacheError> {
        make_parent(&self.target)?;
        fs::rename(&self.path, &self.target).map_err(CacheError::at("writing", &self.target))
    }
}

fn make_parent(path: &Path) -> Result<(), CacheError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(CacheError::at("making", parent))
}

fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn place(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("GARBOARD_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").filter(|path| path.is_absolute()).map(|path| path.join("garboard")))
        .or_else(|| set("HOME").map(|path| path.join(".cache/garboard")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_the_first_that_is_set() {
        let with = |set: &[(&str, &str)]| place(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value)));
        assert_eq!(with(&[("GARBOARD_CACHE", "/c"), ("HOME", "/h")]), Some(PathBuf::from("/c")));
        assert_eq!(with(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]), Some(PathBuf::from("/x/garboard")));
        assert_eq!(
            with(&[("GARBOARD_CACHE", ""), ("XDG_CACHE_HOME", "relative"), ("HOME", "/h")]),
            Some(PathBuf::from("/h/.cache/garboard"))
        );
        assert_eq!(with(&[]), None);
    }

    #[test]
    fn a_damaged_blob_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path().join("cache")).unwrap();
        let sum = Sha256::of(b"body");
        let mut partial = cache.partial(&sum).unwrap();
        partial.file().write_all(b"body").unwrap();
        partial.finish().unwrap();
        assert_eq!(cache.read_blob(&sum).unwrap().as_deref(), Some(&b"body"[..]));
        fs::write(cache.blob_path(&sum), b"bady").unwrap();
        assert_eq!(cache.read_blob(&sum).unwrap(), None);
        assert!(!cache.has_blob(&sum, 4));
    }

    #[test]
    fn an_unusable_cache_is_one_clear_line() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), b"").unwrap();
        let error = Cache::open(directory.path().join("file")).unwrap_err().to_string();
        assert!(
            error.contains("making") && error.contains("file/blobs") && error.contains("GARBOARD_CACHE") && !error.contains('\n'),
            "{error}"
        );
    }
}
