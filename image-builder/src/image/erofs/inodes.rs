//! From names in a tree to inodes: hard links are resolved, directories get their entries, sizes are known.

use std::collections::BTreeMap;

use super::directory::{self, Entry};
use super::format::{COMPACT_INODE, EXTENDED_INODE, FileType};
use super::xattrs;
use crate::image::ImageError;
use crate::tree::{Body, Kind, Node, Tree};

/// The longest name that the kernel reads (`EROFS_NAME_LEN`).
const MAX_NAME: usize = 255;
/// The longest target that the kernel reads (`PATH_MAX` with its NUL).
const MAX_TARGET: usize = 4095;

/// What an inode holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// The body of a file.
    File(Body),
    /// The entries of a directory, sorted, `.` and `..` among them.
    Directory(Vec<Entry>),
    /// The target of a symbolic link.
    Symlink(String),
}

/// A file, directory or link.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Its first path.
    pub path: String,
    /// What it holds.
    pub content: Content,
    /// Bytes of the content.
    pub size: u64,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names.
    pub links: u32,
    /// Encoded extended attributes.
    pub xattrs: Vec<u8>,
    /// Whether it needs the long form.
    pub extended: bool,
    /// Whether what does not fill a block lies behind it. Set when it is placed.
    pub inline_tail: bool,
    /// Where it lies. Set when it is placed.
    pub offset: u64,
    /// Its first data block. Set when it is placed.
    pub block: u32,
}

impl Inode {
    /// Bytes of the inode with its extended attributes.
    pub fn header_len(&self) -> u64 {
        (if self.extended { EXTENDED_INODE } else { COMPACT_INODE }) + self.xattrs.len() as u64
    }

    fn file_type(&self) -> FileType {
        match self.content {
            Content::File(_) => FileType::Regular,
            Content::Directory(_) => FileType::Directory,
            Content::Symlink(_) => FileType::Symlink,
        }
    }
}

/// All inodes of a tree in path order; the first is the root directory.
pub fn collect(tree: &Tree) -> Result<Vec<Inode>, ImageError> {
    let mut inodes: Vec<Inode> = Vec::with_capacity(tree.len());
    let mut index_of: BTreeMap<&str, usize> = BTreeMap::new();
    for (path, node) in tree.iter() {
        if !matches!(node.kind, Kind::HardLink(_)) {
            index_of.insert(path, inodes.len());
            inodes.push(inode(path, node)?);
        }
    }
    let mut entries: BTreeMap<usize, Vec<Entry>> = BTreeMap::new();
    for (path, node) in tree.iter().filter(|(path, _)| !path.is_empty()) {
        let index = match &node.kind {
            Kind::HardLink(target) => hard_link(path, target, &index_of, &mut inodes)?,
            _ => *index_of.get(path).ok_or_else(|| refuse(path, "it is gone"))?,
        };
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.len() > MAX_NAME {
            return Err(refuse(path, "its name is longer than 255 bytes"));
        }
        let parent = *index_of.get(parent).ok_or_else(|| refuse(path, "its parent is missing"))?;
        let file_type = inodes.get(index).map_or(FileType::Regular, Inode::file_type);
        entries.entry(parent).or_default().push(Entry { name: name.to_owned(), inode: index, file_type });
        if file_type == FileType::Directory {
            entries.entry(index).or_default().push(Entry { name: "..".to_owned(), inode: parent, file_type });
            add_link(&mut inodes, parent);
        }
    }
    // The root is its own parent.
    entries.entry(0).or_default().push(Entry { name: "..".to_owned(), inode: 0, file_type: FileType::Directory });
    for (index, mut list) in entries {
        let Some(inode) = inodes.get_mut(index) else { continue };
        if !matches!(inode.content, Content::Directory(_)) {
            return Err(refuse(&inode.path, "files lie below it, but it is no directory"));
        }
        list.push(Entry { name: ".".to_owned(), inode: index, file_type: FileType::Directory });
        list.sort_by(|a, b| a.name.cmp(&b.name));
        inode.size = directory::size(&list);
        inode.content = Content::Directory(list);
    }
    for inode in &mut inodes {
        let short = [inode.uid, inode.gid, inode.links].iter().all(|&number| number <= u32::from(u16::MAX));
        inode.extended = !short || inode.size > u64::from(u32::MAX);
    }
    Ok(inodes)
}

fn inode(path: &str, node: &Node) -> Result<Inode, ImageError> {
    let (content, size, links) = match &node.kind {
        Kind::File(body) => (Content::File(body.clone()), body.len(), 1),
        Kind::Symlink(target) if target.is_empty() || target.len() > MAX_TARGET => {
            return Err(refuse(path, "the target of the link is empty or longer than 4095 bytes"));
        }
        Kind::Symlink(target) => (Content::Symlink(target.clone()), target.len() as u64, 1),
        Kind::Directory => (Content::Directory(Vec::new()), 0, 2),
        Kind::HardLink(_) => return Err(refuse(path, "a hard link has no inode of its own")),
    };
    Ok(Inode {
        path: path.to_owned(),
        content,
        size,
        mode: node.mode & 0o7777,
        uid: node.uid,
        gid: node.gid,
        links,
        xattrs: xattrs::encode(&node.xattrs).map_err(|reason| refuse(path, &reason))?,
        extended: false,
        inline_tail: false,
        offset: 0,
        block: 0,
    })
}

fn hard_link(path: &str, target: &str, index_of: &BTreeMap<&str, usize>, inodes: &mut [Inode]) -> Result<usize, ImageError> {
    let index = index_of.get(target).copied();
    match index.and_then(|index| inodes.get(index)).map(|inode| &inode.content) {
        Some(Content::File(_)) => {}
        _ => return Err(refuse(path, &format!("it is a hard link to '/{target}', where there is no file"))),
    }
    let index = index.unwrap_or(0);
    add_link(inodes, index);
    Ok(index)
}

fn add_link(inodes: &mut [Inode], index: usize) {
    if let Some(inode) = inodes.get_mut(index) {
        inode.links += 1;
    }
}

fn refuse(path: &str, reason: &str) -> ImageError {
    ImageError::Node { path: path.to_owned(), reason: reason.to_owned() }
}
