//! Carrying a plan out on a real file system.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use thiserror::Error;

use super::LinkOperation;

/// A change that failed; those before it were made.
#[derive(Debug, Error)]
#[error("{path}: {cause}")]
pub struct ApplyError {
    /// What was to be changed.
    pub path: String,
    /// Why it was not.
    #[source]
    pub cause: io::Error,
}

/// Changes links below `root`.
///
/// # Errors
/// At the first change that fails.
pub fn apply(root: &Path, operations: &[LinkOperation]) -> Result<(), ApplyError> {
    for operation in operations {
        let (LinkOperation::Create { path, .. } | LinkOperation::Remove { path }) = operation;
        let real = root.join(path.trim_start_matches('/'));
        let result = match operation {
            LinkOperation::Create { target, .. } => create(&real, target),
            LinkOperation::Remove { .. } => remove(&real),
        };
        result.map_err(|cause| ApplyError { path: path.clone(), cause })?;
    }
    Ok(())
}

/// The new link is made beside the old one and takes its place in one step, so that a crash leaves one of them.
fn create(path: &Path, target: &str) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other("is no file's path"));
    };
    fs::create_dir_all(parent)?;
    if fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.file_type().is_symlink()) {
        return Err(io::Error::other("is a file, and only links are replaced"));
    }
    let temporary = parent.join(format!(".#{}.new", name.to_string_lossy()));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(target, &temporary)?;
    fs::rename(&temporary, path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Only the directories made for links, and only when nothing is left in them.
    if let Some(parent) = path.parent()
        && parent.extension().is_some_and(|suffix| suffix == "wants" || suffix == "requires" || suffix == "upholds")
    {
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}
