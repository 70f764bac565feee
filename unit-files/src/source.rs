//! Where unit files come from: the one interface through which this crate sees directories.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Where units are looked for on a host; the first wins. `/run/systemd/system` is not among them and must never exist:
/// it tells programs that systemd is PID 1.
pub const SEARCH_PATH: [&str; 5] =
    ["/etc/systemd/system", "/media/state/units", "/run/garboard/units", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"];

/// The directory whose units count as enabled by their own `[Install]`.
pub const OPERATOR_UNITS: &str = "/media/state/units";

/// A directory that could not be read, or a file.
#[derive(Debug, Error)]
#[error("{path}: {cause}")]
pub struct SourceError {
    /// What could not be read.
    pub path: String,
    /// Why.
    #[source]
    pub cause: io::Error,
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Anything else.
    Other,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it is; a link is not followed.
    pub kind: EntryKind,
}

/// A file system as the loader sees it. Paths are absolute, as on the host; an implementation may prefix a root.
pub trait UnitSource {
    /// The unit directories, first wins.
    fn search_path(&self) -> &[String];
    /// The entries of a directory in any order; empty when it does not exist.
    ///
    /// # Errors
    /// When it exists and cannot be read.
    fn list(&self, directory: &str) -> Result<Vec<Entry>, SourceError>;
    /// The bytes of a file, links followed; `None` when it does not exist.
    ///
    /// # Errors
    /// When it exists and cannot be read, or is larger than anyone's unit file.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, SourceError>;
    /// The target of a symbolic link as it is written; `None` when the path is no link.
    ///
    /// # Errors
    /// When it cannot be looked at.
    fn read_link(&self, path: &str) -> Result<Option<String>, SourceError>;
}

impl<T: UnitSource + ?Sized> UnitSource for &T {
    fn search_path(&self) -> &[String] {
        (**self).search_path()
    }

    fn list(&self, directory: &str) -> Result<Vec<Entry>, SourceError> {
        (**self).list(directory)
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, SourceError> {
        (**self).read(path)
    }

    fn read_link(&self, path: &str) -> Result<Option<String>, SourceError> {
        (**self).read_link(path)
    }
}

/// Largest unit file that is read.
pub const MAX_FILE: u64 = 4 * 1024 * 1024;
/// Longest chain of symbolic links.
const MAX_LINKS: usize = 40;

/// The real file system, below a root.
#[derive(Clone, Debug)]
pub struct FsSource {
    root: PathBuf,
    search_path: Vec<String>,
}

impl FsSource {
    /// The host's unit directories below `root`, which is `/` on the host itself.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self::with_search_path(root, SEARCH_PATH.map(str::to_owned).to_vec())
    }

    /// Other unit directories, as absolute paths below `root`.
    #[must_use]
    pub fn with_search_path(root: &Path, search_path: Vec<String>) -> Self {
        Self { root: root.to_owned(), search_path }
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The path with every link resolved below the root, so that an absolute link cannot lead outside of it.
    fn resolve(&self, path: &str) -> io::Result<PathBuf> {
        if self.root == Path::new("/") {
            return Ok(PathBuf::from(path));
        }
        let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut done: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(part),
            }
            let here = self.inside(&done.join("/"));
            match std::fs::read_link(&here) {
                Ok(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(io::Error::other("too many symbolic links"));
                    }
                    let target = target.to_string_lossy().into_owned();
                    done.pop();
                    if target.starts_with('/') {
                        done.clear();
                    }
                    todo.extend(target.split('/').rev().map(str::to_owned));
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.inside(&done.join("/")))
    }
}

fn not_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

impl UnitSource for FsSource {
    fn search_path(&self) -> &[String] {
        &self.search_path
    }

    fn list(&self, directory: &str) -> Result<Vec<Entry>, SourceError> {
        let failed = |cause| SourceError { path: directory.to_owned(), cause };
        let entries = match self.resolve(directory).and_then(std::fs::read_dir) {
            Ok(entries) => entries,
            Err(error) if not_there(&error) => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut out = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            // A name that is not UTF-8 is no unit's name.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let file_type = entry.file_type().map_err(failed)?;
            let kind = if file_type.is_file() {
                EntryKind::File
            } else if file_type.is_dir() {
                EntryKind::Directory
            } else if file_type.is_symlink() {
                EntryKind::Symlink
            } else {
                EntryKind::Other
            };
            out.push(Entry { name, kind });
        }
        Ok(out)
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let failed = |cause| SourceError { path: path.to_owned(), cause };
        let real = self.resolve(path).map_err(failed)?;
        // Looked at before it is opened: opening a FIFO would block PID 1.
        let metadata = match std::fs::metadata(&real) {
            Ok(metadata) => metadata,
            Err(error) if not_there(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if !metadata.is_file() {
            // Masked, by a link to a link.
            if std::fs::canonicalize(&real).is_ok_and(|path| path == Path::new("/dev/null")) {
                return Ok(Some(Vec::new()));
            }
            return Err(failed(io::Error::other("is not a regular file")));
        }
        if metadata.len() > MAX_FILE {
            return Err(failed(io::Error::other("is larger than 4 MiB")));
        }
        std::fs::read(&real).map(Some).map_err(failed)
    }

    fn read_link(&self, path: &str) -> Result<Option<String>, SourceError> {
        let failed = |cause| SourceError { path: path.to_owned(), cause };
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let real = self.resolve(directory).map_err(failed)?.join(name);
        match std::fs::read_link(&real) {
            Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
            Err(error) if not_there(&error) || error.kind() == io::ErrorKind::InvalidInput => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}
