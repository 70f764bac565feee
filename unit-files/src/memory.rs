//! A file system in memory: for tests, and for trees that exist only as data.

use std::collections::BTreeMap;

use crate::source::{Entry, EntryKind, SEARCH_PATH, SourceError, UnitSource};

/// A file or a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryNode {
    /// A regular file.
    File(Vec<u8>),
    /// A symbolic link.
    Link(String),
}

/// Files by absolute path; directories are implied by them.
#[derive(Clone, Debug)]
pub struct MemorySource {
    nodes: BTreeMap<String, MemoryNode>,
    search_path: Vec<String>,
}

impl Default for MemorySource {
    fn default() -> Self {
        Self { nodes: BTreeMap::new(), search_path: SEARCH_PATH.map(str::to_owned).to_vec() }
    }
}

impl MemorySource {
    /// Adds a file.
    #[must_use]
    pub fn file(mut self, path: &str, text: impl Into<Vec<u8>>) -> Self {
        self.nodes.insert(path.to_owned(), MemoryNode::File(text.into()));
        self
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.nodes.insert(path.to_owned(), MemoryNode::Link(target.to_owned()));
        self
    }

    /// Adds or replaces a node.
    pub fn put(&mut self, path: &str, node: MemoryNode) {
        self.nodes.insert(path.to_owned(), node);
    }

    /// Removes a node.
    pub fn remove(&mut self, path: &str) {
        self.nodes.remove(path);
    }

    /// The node at a path, links not followed.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&MemoryNode> {
        self.nodes.get(path)
    }
}

impl UnitSource for MemorySource {
    fn search_path(&self) -> &[String] {
        &self.search_path
    }

    fn list(&self, directory: &str) -> Result<Vec<Entry>, SourceError> {
        let prefix = format!("{directory}/");
        let mut out: Vec<Entry> = Vec::new();
        for (path, node) in self.nodes.range(prefix.clone()..) {
            let Some(rest) = path.strip_prefix(&prefix) else { break };
            let (name, kind) = match rest.split_once('/') {
                Some((name, _)) => (name, EntryKind::Directory),
                None if matches!(node, MemoryNode::Link(_)) => (rest, EntryKind::Symlink),
                None => (rest, EntryKind::File),
            };
            if !out.iter().any(|entry| entry.name == name) {
                out.push(Entry { name: name.to_owned(), kind });
            }
        }
        Ok(out)
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let mut path = path.to_owned();
        for _ in 0..40 {
            match self.nodes.get(&path) {
                None => return Ok(None),
                Some(MemoryNode::File(bytes)) => return Ok(Some(bytes.clone())),
                Some(MemoryNode::Link(target)) => path = join_link(&path, target),
            }
        }
        Ok(None)
    }

    fn read_link(&self, path: &str) -> Result<Option<String>, SourceError> {
        Ok(match self.nodes.get(path) {
            Some(MemoryNode::Link(target)) => Some(target.clone()),
            _ => None,
        })
    }
}

/// Where a link at `path` leads, `..` taken out by text.
#[must_use]
pub fn join_link(path: &str, target: &str) -> String {
    let directory = if target.starts_with('/') { "" } else { path.rsplit_once('/').map_or("", |(directory, _)| directory) };
    let mut parts: Vec<&str> = Vec::new();
    for part in directory.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
