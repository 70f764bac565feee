//! Carrying out one line. Links are never followed at the end of a path, and a link that a user other than root made is
//! never followed on the way, so that nobody can have root change a file of their choice.

use std::fs::{self, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use super::line::{Kind, Line};
use crate::accounts;
use crate::glob;

/// Carries lines out below a root directory.
#[derive(Debug)]
pub(super) struct Applier {
    root: PathBuf,
}

impl Applier {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Does what one line asks for; a second time it finds nothing left to do.
    pub(super) fn apply(&self, line: &Line) -> io::Result<()> {
        let path = self.path(&line.path);
        match line.kind {
            Kind::ExistingDirectory | Kind::Adjust | Kind::AdjustTree | Kind::Remove | Kind::RemoveTree | Kind::Write => {
                let paths = self.expand(&line.path);
                paths.iter().try_for_each(|path| self.apply_existing(line, path))
            }
            _ => {
                self.make_parents(&line.path)?;
                self.make(line, &path)
            }
        }
    }

    fn make(&self, line: &Line, path: &Path) -> io::Result<()> {
        let existing = metadata(path)?;
        match line.kind {
            Kind::Directory | Kind::EmptyDirectory => {
                let is_new = match &existing {
                    None => {
                        fs::create_dir(path)?;
                        true
                    }
                    Some(metadata) if metadata.is_dir() => {
                        if line.kind == Kind::EmptyDirectory {
                            empty(path)?;
                        }
                        false
                    }
                    // A link to a directory, as /var/run is one.
                    Some(metadata) if metadata.is_symlink() && path.is_dir() => return Ok(()),
                    Some(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "exists and is no directory")),
                };
                self.adjust(line, path, is_new, Some(0o755))
            }
            Kind::File { truncate } => {
                match &existing {
                    Some(metadata) if !metadata.is_file() => {
                        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "exists and is no file"));
                    }
                    Some(_) if !truncate => {}
                    _ => {
                        let mut file = OpenOptions::new()
                            .write(true)
                            .create(true)
                            .truncate(true)
                            .mode(0o600)
                            .custom_flags(libc::O_NOFOLLOW)
                            .open(path)?;
                        file.write_all(line.argument.as_deref().unwrap_or_default().as_bytes())?;
                    }
                }
                self.adjust(line, path, existing.is_none(), Some(0o644))
            }
            Kind::Link { replace } => {
                let factory = || Path::new("/usr/share/factory").join(line.path.trim_start_matches('/'));
                let target = line.argument.as_ref().map_or_else(factory, PathBuf::from);
                if fs::read_link(path).is_ok_and(|present| present == target) {
                    return Ok(());
                }
                match existing {
                    Some(_) if !replace => return Ok(()),
                    Some(metadata) if metadata.is_dir() => fs::remove_dir_all(path)?,
                    Some(_) => fs::remove_file(path)?,
                    None => {}
                }
                symlink(target, path)?;
                self.own(line, path)
            }
            Kind::Copy => {
                if existing.is_some() {
                    return Ok(());
                }
                let factory = || format!("/usr/share/factory{}", line.path);
                let source = self.path(&line.argument.clone().unwrap_or_else(factory));
                if !source.exists() {
                    return Ok(());
                }
                copy(&source, path)?;
                self.adjust(line, path, true, None)
            }
            Kind::Pipe => {
                if existing.is_none() {
                    rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::from_raw_mode(0o600))?;
                }
                self.adjust(line, path, existing.is_none(), Some(0o644))
            }
            _ => Ok(()),
        }
    }

    fn apply_existing(&self, line: &Line, path: &Path) -> io::Result<()> {
        let Some(existing) = metadata(path)? else { return Ok(()) };
        match line.kind {
            Kind::Remove if existing.is_dir() => ignore_not_empty(fs::remove_dir(path)),
            Kind::Remove => fs::remove_file(path),
            Kind::RemoveTree if existing.is_dir() => fs::remove_dir_all(path),
            Kind::RemoveTree => fs::remove_file(path),
            Kind::Write => {
                let mut file = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
                file.write_all(line.argument.as_deref().unwrap_or_default().as_bytes())
            }
            Kind::ExistingDirectory if !existing.is_dir() => Ok(()),
            Kind::AdjustTree => self.adjust_tree(line, path),
            _ => self.adjust(line, path, false, None),
        }
    }

    fn adjust_tree(&self, line: &Line, path: &Path) -> io::Result<()> {
        self.adjust(line, path, false, None)?;
        if fs::symlink_metadata(path)?.is_dir() {
            for entry in fs::read_dir(path)? {
                self.adjust_tree(line, &entry?.path())?;
            }
        }
        Ok(())
    }

    /// Owner and mode. `default` is the mode of what was made now and has none in its line.
    fn adjust(&self, line: &Line, path: &Path, is_new: bool, default: Option<u32>) -> io::Result<()> {
        self.own(line, path)?;
        let present = fs::symlink_metadata(path)?;
        if present.is_symlink() {
            return Ok(());
        }
        let bits = match line.mode {
            Some(mode) if mode.only_new && !is_new => None,
            Some(mode) if mode.masked => Some(masked(mode.bits, &present)),
            Some(mode) => Some(mode.bits),
            None if is_new => default,
            None => None,
        };
        match bits {
            Some(bits) if present.mode() & 0o7777 != bits => fs::set_permissions(path, Permissions::from_mode(bits)),
            _ => Ok(()),
        }
    }

    fn own(&self, line: &Line, path: &Path) -> io::Result<()> {
        let unknown = |what: &str, name: &str| io::Error::new(io::ErrorKind::NotFound, format!("there is no {what} '{name}'"));
        let user = line.user.as_ref().map(|name| accounts::user_id(&self.root, name).ok_or_else(|| unknown("user", name))).transpose()?;
        let group =
            line.group.as_ref().map(|name| accounts::group_id(&self.root, name).ok_or_else(|| unknown("group", name))).transpose()?;
        let present = fs::symlink_metadata(path)?;
        let changes = user.is_some_and(|user| user != present.uid()) || group.is_some_and(|group| group != present.gid());
        if changes { lchown(path, user, group) } else { Ok(()) }
    }

    /// Makes the directories above a path, and refuses the path when a user could have planted a link in it.
    fn make_parents(&self, path: &str) -> io::Result<()> {
        let mut above = self.root.clone();
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        parts.pop();
        for part in parts {
            above.push(part);
            match metadata(&above)? {
                None => {
                    fs::create_dir(&above)?;
                    fs::set_permissions(&above, Permissions::from_mode(0o755))?;
                }
                Some(metadata) if metadata.is_symlink() && metadata.uid() != 0 => {
                    return Err(io::Error::new(
                        io::ErrorKind::PermissionDenied,
                        format!("{} is a link that root did not make", above.display()),
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The paths that match, component by component; without wild cards the path itself.
    fn expand(&self, pattern: &str) -> Vec<PathBuf> {
        let mut found = vec![self.root.clone()];
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            found = if part.contains(['*', '?', '[']) {
                let matching = |directory: PathBuf| -> Vec<PathBuf> {
                    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
                    entries.filter(|entry| is_match(part, &entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
                };
                found.into_iter().flat_map(matching).collect()
            } else {
                found.into_iter().map(|directory| directory.join(part)).collect()
            };
        }
        found.sort();
        found
    }
}

/// As in a shell: a star does not stand for a leading dot.
fn is_match(pattern: &str, name: &str) -> bool {
    (!name.starts_with('.') || pattern.starts_with('.')) && glob::matches(pattern, name)
}

fn metadata(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Execute bits only where there are some, set-id bits only for directories.
fn masked(bits: u32, present: &Metadata) -> u32 {
    let mut bits = bits;
    for (any, who) in [(0o111, 0o111), (0o222, 0o222), (0o444, 0o444)] {
        if present.mode() & any == 0 {
            bits &= !who;
        }
    }
    if present.is_dir() { bits } else { bits & 0o777 }
}

fn empty(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

fn ignore_not_empty(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => other,
    }
}

fn copy(source: &Path, target: &Path) -> io::Result<()> {
    let like = fs::symlink_metadata(source)?;
    if like.is_symlink() {
        symlink(fs::read_link(source)?, target)?;
        return lchown(target, Some(like.uid()), Some(like.gid()));
    }
    if like.is_dir() {
        fs::create_dir(target)?;
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            copy(&entry.path(), &target.join(entry.file_name()))?;
        }
    } else {
        fs::copy(source, target)?;
    }
    lchown(target, Some(like.uid()), Some(like.gid()))?;
    fs::set_permissions(target, like.permissions())
}

#[cfg(test)]
mod tests {
    use super::super::line::{Specifiers, parse};
    use super::*;

    fn run(root: &Path, text: &str) -> io::Result<()> {
        let applier = Applier::new(root);
        text.lines().filter_map(|line| parse(line, &Specifiers::default()).unwrap()).try_for_each(|line| applier.apply(&line))
    }

    #[test]
    fn makes_each_kind_once() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("source"), "s").unwrap();
        let text = "d /var/a 0700\nf /var/a/f 0600 - - - text\nL /var/run - - - - /run\nC /var/c 0640 - - - /source\np /var/p\n";
        run(root.path(), text).unwrap();
        run(root.path(), text).unwrap();
        let path = |name: &str| root.path().join(name);
        assert_eq!(fs::metadata(path("var/a")).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(fs::read_to_string(path("var/a/f")).unwrap(), "text");
        assert_eq!(fs::read_link(path("var/run")).unwrap(), Path::new("/run"));
        assert_eq!(fs::metadata(path("var/c")).unwrap().mode() & 0o7777, 0o640);
    }

    #[test]
    fn what_exists_keeps_its_content() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("f"), "mine").unwrap();
        run(root.path(), "f /f 0644 - - - theirs\nL /f - - - - x\nC /f - - - - /nothing\n").unwrap();
        assert_eq!(fs::read_to_string(root.path().join("f")).unwrap(), "mine");
        run(root.path(), "L+ /f - - - - x\n").unwrap();
        assert_eq!(fs::read_link(root.path().join("f")).unwrap(), Path::new("x"));
    }

    #[test]
    fn removes_and_adjusts_what_matches() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a.pid", "b.pid", "keep", ".c.pid"] {
            fs::write(root.path().join(name), "").unwrap();
        }
        run(root.path(), "r /*.pid\nz /keep 0600\nD /d\n").unwrap();
        let mut names: Vec<String> =
            fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        assert_eq!(names, [".c.pid", "d", "keep"]);
        assert_eq!(fs::metadata(root.path().join("keep")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("target")).unwrap();
        fs::write(root.path().join("victim"), "v").unwrap();
        symlink("victim", root.path().join("link")).unwrap();
        assert!(run(root.path(), "F /link 0666 - - - x").is_err());
        assert_eq!(fs::read_to_string(root.path().join("victim")).unwrap(), "v");
        if rustix::process::geteuid().is_root() {
            symlink("target", root.path().join("way")).unwrap();
            lchown(root.path().join("way"), Some(1000), None).unwrap();
            assert!(run(root.path(), "d /way/in").is_err());
        }
    }

    #[test]
    fn an_unknown_owner_is_named() {
        let root = tempfile::tempdir().unwrap();
        let error = run(root.path(), "d /x 0755 ghost").unwrap_err();
        assert!(error.to_string().contains("ghost"));
    }
}
