//! Files written whole or not at all: a temporary file beside it, synced, renamed. What is right already is not touched.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Permission bits and owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits.
    pub mode: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: cannot {act}: {source}", path = path.display())]
pub struct FileError {
    act: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn failed(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { act, path, source }
}

/// Writes a file; returns whether anything changed. A symbolic link in its place is replaced, not followed.
pub fn write_atomic(path: &Path, content: &[u8], meta: Meta) -> Result<bool, FileError> {
    if let Ok(now) = fs::symlink_metadata(path) {
        if now.is_dir() {
            return Err(failed("write", path)(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        let same_meta = now.is_file() && now.mode() & 0o7777 == meta.mode && has_owner(&now, meta);
        if same_meta && now.len() == content.len() as u64 && fs::read(path).is_ok_and(|c| c == content) {
            return Ok(false);
        }
    }
    make_parents(path, meta)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{}.cloud-config~", name.chars().take(200).collect::<String>()));
    let written =
        write_new(&temporary, content, meta).and_then(|()| fs::rename(&temporary, path).map_err(failed("rename into place", path)));
    if written.is_err() {
        // Nothing half-written stays; why it failed is already being reported.
        let _ = fs::remove_file(&temporary);
    }
    written.map(|()| true)
}

fn write_new(path: &Path, content: &[u8], meta: Meta) -> Result<(), FileError> {
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed("create", path))?;
    file.write_all(content).map_err(failed("write", path))?;
    own(&file, path, meta)?;
    // After chown, which takes setuid and setgid away.
    file.set_permissions(fs::Permissions::from_mode(meta.mode)).map_err(failed("set permissions of", path))?;
    file.sync_all().map_err(failed("sync", path))
}

fn own(file: &fs::File, path: &Path, meta: Meta) -> Result<(), FileError> {
    let now = file.metadata().map_err(failed("look at", path))?;
    if has_owner(&now, meta) {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(meta.uid), Some(meta.gid)).map_err(failed("set the owner of", path))
}

/// Whether a file is whose it should be. Nobody but root can give a file away, so below another root directory, as another
/// user, everything is the caller's.
pub fn has_owner(now: &fs::Metadata, meta: Meta) -> bool {
    (now.uid(), now.gid()) == (meta.uid, meta.gid) || !rustix::process::geteuid().is_root()
}

/// Writes to a file of /proc, /sys or /dev, where nothing can be renamed.
pub fn write_in_place(path: &Path, content: &[u8]) -> Result<bool, FileError> {
    let mut file = fs::OpenOptions::new().write(true).open(path).map_err(failed("open", path))?;
    file.write_all(content).map_err(failed("write", path)).map(|()| true)
}

/// Makes the directories above a file, 0755. Below a directory of the file's owner they are the owner's too, so that
/// `~/.config/x` does not leave a directory in the home that its user cannot write.
pub fn make_parents(path: &Path, meta: Meta) -> Result<(), FileError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let mut missing = Vec::new();
    let mut existing = parent;
    while !existing.exists() {
        missing.push(existing);
        match existing.parent() {
            Some(up) => existing = up,
            None => break,
        }
    }
    let inherits = fs::metadata(existing).is_ok_and(|m| m.uid() == meta.uid);
    for dir in missing.into_iter().rev() {
        let owner = if inherits { meta } else { Meta { uid: 0, gid: 0, ..meta } };
        make_directory(dir, Meta { mode: 0o755, ..owner })?;
    }
    Ok(())
}

/// Makes one directory unless it exists; whether it was made.
pub fn make_directory(path: &Path, meta: Meta) -> Result<bool, FileError> {
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(false),
        Err(error) => return Err(failed("make the directory", path)(error)),
    }
    let dir = fs::File::open(path).map_err(failed("open", path))?;
    own(&dir, path, meta)?;
    dir.set_permissions(fs::Permissions::from_mode(meta.mode)).map_err(failed("set permissions of", path))?;
    Ok(true)
}

/// Makes a symbolic link, replacing a link or file; whether anything changed.
pub fn make_link(path: &Path, target: &str) -> Result<bool, FileError> {
    if fs::read_link(path).is_ok_and(|now| now == Path::new(target)) {
        return Ok(false);
    }
    make_parents(path, Meta { mode: 0o755, uid: 0, gid: 0 })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.cloud-config~"));
    let _ = fs::remove_file(&temporary);
    std::os::unix::fs::symlink(target, &temporary).map_err(failed("link", path))?;
    fs::rename(&temporary, path).map_err(failed("rename into place", path))?;
    Ok(true)
}

/// Copies a directory of defaults into a new home: files, directories and links, nothing else.
pub fn copy_skeleton(from: &Path, to: &Path, meta: Meta) -> Result<(), FileError> {
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    for entry in entries.flatten() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            make_directory(&target, Meta { mode: 0o755, ..meta })?;
            copy_skeleton(&source, &target, meta)?;
        } else if kind.is_file() && !target.exists() {
            let content = fs::read(&source).map_err(failed("read", &source))?;
            write_atomic(&target, &content, Meta { mode: 0o644, ..meta })?;
        }
    }
    Ok(())
}

/// Takes a link to /dev/null away; anything else stays.
pub fn remove_mask(path: &Path) -> Result<bool, FileError> {
    if fs::read_link(path).is_ok_and(|t| t == Path::new("/dev/null")) {
        fs::remove_file(path).map_err(failed("remove", path))?;
        return Ok(true);
    }
    Ok(false)
}
