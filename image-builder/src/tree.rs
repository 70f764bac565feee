//! The file tree of an image, in memory: names, owners, modes and extended attributes, with the bodies of files
//! left where they are (in the package cache) until an image is written. Building needs no privilege because
//! ownership is only data here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use thiserror::Error;

/// The bytes of a regular file.
#[derive(Clone, Debug)]
pub enum Body {
    /// Held in memory: what the builder made itself.
    Memory(Arc<[u8]>),
    /// A range of a file on the build host, usually an unpacked package in the cache.
    Range {
        /// The open file.
        file: Arc<File>,
        /// Where the body starts, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        len: u64,
    },
}

impl Body {
    /// A body from bytes.
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self::Memory(bytes.into())
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Range { len, .. } => *len,
        }
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` from `offset` of the body.
    ///
    /// # Errors
    /// When the range lies outside the body or the file cannot be read.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|&end| end <= self.len());
        let end = end.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        match self {
            Self::Memory(bytes) => {
                let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
                let source = range.and_then(|(start, end)| bytes.get(start..end));
                buffer.copy_from_slice(source.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
                Ok(())
            }
            Self::Range { file, offset: start, .. } => file.read_exact_at(buffer, start + offset),
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut bytes = vec![0; len];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Body),
    /// A symbolic link with its target.
    Symlink(String),
    /// Another name of the file at that path of the tree, which is always a `File`.
    HardLink(String),
}

/// One name in the tree with its attributes. Times are all the same in an image, so there are none here.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, `0o7777` at most.
    pub mode: u16,
    /// Extended attributes by full name, for example `security.capability`.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// The package or build step it came from, for messages and the manifest.
    pub origin: Arc<str>,
}

impl Node {
    /// A directory of root's with mode 0755.
    #[must_use]
    pub fn directory(origin: &Arc<str>) -> Self {
        Self::new(Kind::Directory, 0o755, origin)
    }

    /// A file of root's.
    pub fn file(bytes: impl Into<Arc<[u8]>>, mode: u16, origin: &Arc<str>) -> Self {
        Self::new(Kind::File(Body::from_bytes(bytes)), mode, origin)
    }

    /// A symbolic link of root's.
    pub fn symlink(target: impl Into<String>, origin: &Arc<str>) -> Self {
        Self::new(Kind::Symlink(target.into()), 0o777, origin)
    }

    /// A node of root's without extended attributes.
    #[must_use]
    pub fn new(kind: Kind, mode: u16, origin: &Arc<str>) -> Self {
        Self { kind, uid: 0, gid: 0, mode, xattrs: BTreeMap::new(), origin: Arc::clone(origin) }
    }
}

/// Why a path cannot be put into the tree.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TreeError {
    /// Not a clean relative path.
    #[error("'{0}' is not a path inside the image: no leading '/', no '.', '..' or empty component is allowed")]
    BadPath(String),
    /// A parent is there, but is not a directory.
    #[error("cannot put '{path}' into the image: '{parent}' is not a directory there")]
    ParentNotDirectory {
        /// What was to be added.
        path: String,
        /// Its parent.
        parent: String,
    },
    /// Something else already has that name.
    #[error("both {first} and {second} provide '{path}'")]
    Conflict {
        /// The name.
        path: String,
        /// Who had it.
        first: String,
        /// Who wants it too.
        second: String,
    },
}

/// All nodes of an image by path, without a leading slash; the root directory is the empty path. Iteration is in
/// byte order of the paths, so a directory comes before what is in it.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// A tree with only the root directory.
    #[must_use]
    pub fn new() -> Self {
        Self { nodes: BTreeMap::from([(String::new(), Node::directory(&Arc::from("image")))]) }
    }

    /// The node at a path. Symbolic links are not followed.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// The node at a path, to change it.
    pub fn get_mut(&mut self, path: &str) -> Option<&mut Node> {
        self.nodes.get_mut(path)
    }

    /// Whether the path is there.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.nodes.contains_key(path)
    }

    /// All nodes, parents before children.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// All nodes below a directory, which itself is not among them.
    pub fn below<'a>(&'a self, directory: &'a str) -> impl Iterator<Item = (&'a str, &'a Node)> {
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        self.nodes
            .range(prefix.clone()..)
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .filter(|(path, _)| !path.is_empty())
            .map(|(path, node)| (path.as_str(), node))
    }

    /// Number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never true: the root is always there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Puts a node at a path whatever was there, making missing parents as root's directories with mode 0755.
    ///
    /// # Errors
    /// When the path is not a clean relative one or a parent is not a directory.
    pub fn put(&mut self, path: &str, node: Node) -> Result<(), TreeError> {
        check_path(path)?;
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.make_directories(parent, &node.origin)
                .map_err(|parent| TreeError::ParentNotDirectory { path: path.to_owned(), parent })?;
        }
        self.nodes.insert(path.to_owned(), node);
        Ok(())
    }

    /// Like [`Tree::put`], but what is there already may only be a directory that stays one.
    ///
    /// # Errors
    /// As [`Tree::put`], and when the path is taken.
    pub fn add(&mut self, path: &str, node: Node) -> Result<(), TreeError> {
        if let Some(there) = self.nodes.get(path) {
            if matches!((&there.kind, &node.kind), (Kind::Directory, Kind::Directory)) {
                return Ok(());
            }
            return Err(TreeError::Conflict { path: path.to_owned(), first: there.origin.to_string(), second: node.origin.to_string() });
        }
        self.put(path, node)
    }

    /// Removes a path and everything below it; says whether it was there.
    pub fn remove(&mut self, path: &str) -> bool {
        let below: Vec<String> = self.below(path).map(|(path, _)| path.to_owned()).collect();
        for child in below {
            self.nodes.remove(&child);
        }
        self.nodes.remove(path).is_some()
    }

    /// Follows symbolic links inside the tree, as the booted system would, to the path of what is really there.
    /// `None` when nothing is there or there are too many links.
    #[must_use]
    pub fn resolve(&self, path: &str) -> Option<String> {
        let mut pending: Vec<String> = components(path);
        let mut at: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(next) = pending.pop() {
            match next.as_str() {
                "" | "." => continue,
                ".." => {
                    at.pop();
                    continue;
                }
                _ => at.push(next),
            }
            let here = at.join("/");
            if let Kind::Symlink(target) = &self.nodes.get(&here)?.kind {
                links += 1;
                if links > 40 {
                    return None;
                }
                at.pop();
                if target.starts_with('/') {
                    at.clear();
                }
                pending.extend(components(target));
            }
        }
        let path = at.join("/");
        self.nodes.contains_key(&path).then_some(path)
    }

    /// The body of the file at a path, symbolic and hard links followed.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&Body> {
        match &self.nodes.get(&self.resolve(path)?)?.kind {
            Kind::File(body) => Some(body),
            Kind::HardLink(target) => match &self.nodes.get(target)?.kind {
                Kind::File(body) => Some(body),
                _ => None,
            },
            _ => None,
        }
    }

    fn make_directories(&mut self, path: &str, origin: &Arc<str>) -> Result<(), String> {
        match self.nodes.get(path).map(|node| &node.kind) {
            Some(Kind::Directory) => return Ok(()),
            Some(_) => return Err(path.to_owned()),
            None => {}
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.make_directories(parent, origin)?;
        }
        self.nodes.insert(path.to_owned(), Node::directory(origin));
        Ok(())
    }
}

fn components(path: &str) -> Vec<String> {
    path.split('/').rev().map(str::to_owned).collect()
}

fn check_path(path: &str) -> Result<(), TreeError> {
    let clean = path.split('/').all(|part| !matches!(part, "" | "." | "..")) && !path.contains('\0');
    if clean { Ok(()) } else { Err(TreeError::BadPath(path.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[test]
    fn makes_parents_and_lists_in_order() {
        let mut tree = Tree::new();
        tree.put("usr/bin/x", Node::file(*b"x", 0o755, &origin("p"))).unwrap();
        let paths: Vec<&str> = tree.iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["", "usr", "usr/bin", "usr/bin/x"]);
        assert_eq!(tree.below("usr").count(), 2);
    }

    #[test]
    fn refuses_paths_that_leave_the_image() {
        let mut tree = Tree::new();
        for path in ["../x", "/x", "a//b", "a/./b", ""] {
            assert!(matches!(tree.put(path, Node::file(*b"", 0o644, &origin("p"))), Err(TreeError::BadPath(_))), "{path}");
        }
    }

    #[test]
    fn two_packages_may_not_own_one_file() {
        let mut tree = Tree::new();
        tree.add("a", Node::file(*b"1", 0o644, &origin("first"))).unwrap();
        let conflict = tree.add("a", Node::file(*b"2", 0o644, &origin("second"))).unwrap_err();
        assert_eq!(conflict.to_string(), "both first and second provide 'a'");
    }

    #[test]
    fn follows_links_as_the_host_would() {
        let mut tree = Tree::new();
        tree.put("lib", Node::symlink("usr/lib", &origin("p"))).unwrap();
        tree.put("usr/lib/a", Node::symlink("/usr/lib/../lib/b", &origin("p"))).unwrap();
        tree.put("usr/lib/b", Node::file(*b"body", 0o644, &origin("p"))).unwrap();
        assert_eq!(tree.resolve("lib/a").as_deref(), Some("usr/lib/b"));
        assert_eq!(tree.file("lib/a").unwrap().read().unwrap(), b"body");
        tree.put("loop", Node::symlink("loop", &origin("p"))).unwrap();
        assert_eq!(tree.resolve("loop"), None);
    }
}
