//! The tree as the unit loader sees it, so that units are read here exactly as the host's PID 1 will read them.

use std::io;

use unit_files::source::{Entry, EntryKind, SourceError, UnitSource};

use crate::tree::{Kind, Tree};

/// The unit directories of an image.
#[derive(Debug)]
pub(super) struct TreeSource<'a> {
    tree: &'a Tree,
    search_path: Vec<String>,
}

impl<'a> TreeSource<'a> {
    pub(super) fn new(tree: &'a Tree) -> Self {
        Self { tree, search_path: unit_files::source::SEARCH_PATH.map(str::to_owned).to_vec() }
    }
}

fn inside(path: &str) -> &str {
    path.trim_matches('/')
}

impl UnitSource for TreeSource<'_> {
    fn search_path(&self) -> &[String] {
        &self.search_path
    }

    fn list(&self, directory: &str) -> Result<Vec<Entry>, SourceError> {
        let directory = inside(directory);
        let children = self.tree.below(directory).filter_map(|(path, node)| {
            let name = path.strip_prefix(directory)?.strip_prefix('/')?;
            let kind = match node.kind {
                Kind::Directory => EntryKind::Directory,
                Kind::File(_) | Kind::HardLink(_) => EntryKind::File,
                Kind::Symlink(_) => EntryKind::Symlink,
            };
            (!name.contains('/')).then(|| Entry { name: name.to_owned(), kind })
        });
        Ok(children.collect())
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let fail = |cause: io::Error| SourceError { path: path.to_owned(), cause };
        self.tree.file(inside(path)).map(|body| body.read().map_err(fail)).transpose()
    }

    fn read_link(&self, path: &str) -> Result<Option<String>, SourceError> {
        Ok(match self.tree.get(inside(path)).map(|node| &node.kind) {
            Some(Kind::Symlink(target)) => Some(target.clone()),
            _ => None,
        })
    }
}
