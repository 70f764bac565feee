//! What the recipe puts into the image, from files of the build host to entries of the tree. Owners and modes come
//! from the recipe alone: whoever checked the files out, under whatever umask, gets the same image.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::recipe::{Content, Recipe, What};
use crate::steps::files::{self, Entry};
use crate::tree::Body;

/// Why a file beside the recipe cannot be taken.
#[derive(Debug, Error)]
pub enum ContentError {
    /// It cannot be read.
    #[error("cannot read {}, which the recipe puts into the image: {source}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is neither file, directory nor link, or its name is not UTF-8.
    #[error("{} cannot be put into the image: only files, directories and links with UTF-8 names can", path.display())]
    Kind {
        /// What it is.
        path: PathBuf,
    },
}

/// All entries of a recipe, in order.
///
/// # Errors
/// When a source cannot be read or is something that an image cannot hold.
pub fn entries(recipe: &Recipe) -> Result<Vec<Entry>, ContentError> {
    let mut entries = Vec::new();
    for content in &recipe.content {
        match &content.what {
            What::Text(text) => entries.push(entry(content, files::What::File(Body::from_bytes(text.as_bytes())), 0o644)),
            What::Copy(source) => entries.push(entry(content, files::What::File(read(source)?), mode_of(source)?)),
            What::Directory => entries.push(entry(content, files::What::Directory, 0o755)),
            What::Link(target) => entries.push(entry(content, files::What::Link(target.clone()), 0o777)),
            What::CopyTree(source) => copy_tree(content, source, &content.path, &mut entries)?,
        }
    }
    Ok(entries)
}

fn entry(content: &Content, what: files::What, mode: u16) -> Entry {
    Entry {
        path: content.path.clone(),
        what,
        mode: content.mode.unwrap_or(mode),
        owner: content.owner.clone(),
        group: content.group.clone(),
    }
}

/// Directories that the image already has keep their owner and mode, so only files and links are listed; missing
/// parents are made on the way.
fn copy_tree(content: &Content, source: &Path, path: &str, entries: &mut Vec<Entry>) -> Result<(), ContentError> {
    let fail = |error| ContentError::Read { path: source.to_owned(), source: error };
    let mut children = fs::read_dir(source).map_err(fail)?.collect::<Result<Vec<_>, _>>().map_err(fail)?;
    children.sort_by_key(fs::DirEntry::file_name);
    for child in children {
        let from = child.path();
        let name = child.file_name().into_string().map_err(|_| ContentError::Kind { path: from.clone() })?;
        let to = if path.is_empty() { name } else { format!("{path}/{name}") };
        let kind = child.file_type().map_err(fail)?;
        let (what, mode) = if kind.is_dir() {
            copy_tree(content, &from, &to, entries)?;
            continue;
        } else if kind.is_symlink() {
            let target = fs::read_link(&from).map_err(|source| ContentError::Read { path: from.clone(), source })?;
            let target = target.into_os_string().into_string().map_err(|_| ContentError::Kind { path: from.clone() })?;
            (files::What::Link(target), 0o777)
        } else if kind.is_file() {
            (files::What::File(read(&from)?), mode_of(&from)?)
        } else {
            return Err(ContentError::Kind { path: from });
        };
        entries.push(Entry { path: to, what, mode, owner: content.owner.clone(), group: content.group.clone() });
    }
    Ok(())
}

fn read(path: &Path) -> Result<Body, ContentError> {
    fs::read(path).map(Body::from_bytes).map_err(|source| ContentError::Read { path: path.to_owned(), source })
}

/// As git has it: executable or not.
fn mode_of(path: &Path) -> Result<u16, ContentError> {
    let metadata = fs::metadata(path).map_err(|source| ContentError::Read { path: path.to_owned(), source })?;
    Ok(if metadata.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_come_from_the_executable_bit_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("usr/bin")).unwrap();
        for (name, mode) in [("tool", 0o700), ("data", 0o600)] {
            let path = directory.path().join("usr/bin").join(name);
            fs::write(&path, name).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let content = Content {
            path: String::new(),
            what: What::CopyTree(directory.path().to_owned()),
            mode: None,
            owner: "root".into(),
            group: "root".into(),
        };
        let mut entries = Vec::new();
        copy_tree(&content, directory.path(), "", &mut entries).unwrap();
        let seen: Vec<(&str, u16)> = entries.iter().map(|entry| (entry.path.as_str(), entry.mode)).collect();
        assert_eq!(seen, [("usr/bin/data", 0o644), ("usr/bin/tool", 0o755)]);
    }
}
