//! An EROFS writer: a [`Tree`] becomes a read-only file system that the kernel reads without unpacking anything.
//!
//! The format is the kernel's (<https://docs.kernel.org/filesystems/erofs.html>,
//! <https://erofs.docs.kernel.org/en/latest/core_ondisk.html>, `fs/erofs/erofs_fs.h`): uncompressed, 4 KiB blocks, one
//! device. The layout is made for small updates. All metadata comes first: the superblock, then each inode
//! in path order with the tail of a directory or the target of a link right behind it, then what of both needs blocks of its own.
//! File data follows in path order, each file contiguous from a block boundary, no tail inlined. So what one package
//! changes moves whole blocks only, and [`Extent`]s tell an updater which blocks are whose.
//!
//! [`plan`] lays everything out and reads no file body; the image is a [`Source`], which reads bodies on demand.

mod directory;
mod format;
mod inodes;
mod xattrs;

use std::io::{self, Write};

use uuid::Uuid;

pub use format::{Summary, summary};

use super::ImageError;
use super::seed::Seed;
use super::source::{Source, past_end};
use crate::tree::{Body, Tree};
use format::{Layout, Superblock};
use inodes::{Content, Inode};

/// Bytes of a block.
pub const BLOCK: u64 = 4096;

/// The inodes start with the second block, so that no inode has number 0, which tools take for "no file".
const INODES_START: u64 = BLOCK;

/// What is not in the tree.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the UUID is derived from, together with the metadata.
    pub seed: Seed,
    /// Volume label; the first 16 bytes are kept.
    pub label: String,
    /// Modification time of everything, in seconds since 1970.
    pub time: u32,
}

/// A contiguous part of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The file whose body it is, without leading slash; `None` for the metadata.
    pub path: Option<String>,
    /// Where it starts; always at a block.
    pub offset: u64,
    /// Length in bytes. Zeros follow up to the next block.
    pub len: u64,
}

/// A laid out file system.
#[derive(Clone, Debug)]
pub struct ErofsImage {
    metadata: Vec<u8>,
    files: Vec<FileData>,
    size: u64,
    uuid: Uuid,
}

#[derive(Clone, Debug)]
struct FileData {
    path: String,
    offset: u64,
    body: Body,
}

/// Lays out a tree.
///
/// # Errors
/// When a name, link or attribute cannot be expressed.
pub fn plan(tree: &Tree, options: &Options) -> Result<ErofsImage, ImageError> {
    let mut inodes = inodes::collect(tree)?;
    let inodes_end = place_inodes(&mut inodes);
    let metadata_end = place_metadata_blocks(&mut inodes, inodes_end.next_multiple_of(BLOCK));
    let (files, size) = place_files(&mut inodes, metadata_end)?;

    let mut metadata = vec![0; usize_of(metadata_end)];
    for (number, inode) in (1_u32..).zip(&inodes) {
        let data = match &inode.content {
            Content::Directory(entries) => directory::encode(entries, |index| inodes.get(index).map_or(0, Inode::nid)),
            Content::Symlink(target) => target.as_bytes().to_vec(),
            Content::File(_) => Vec::new(),
        };
        let in_blocks = if inode.inline_tail { data.len() / usize_of(BLOCK) * usize_of(BLOCK) } else { data.len() };
        let (blocks, inline) = data.split_at(in_blocks);
        put(&mut metadata, inode.offset, &format::inode(inode, number, options.time));
        put(&mut metadata, inode.offset + inode.header_len() - inode.xattrs.len() as u64, &inode.xattrs);
        put(&mut metadata, inode.offset + inode.header_len(), inline);
        put(&mut metadata, u64::from(inode.block) * BLOCK, blocks);
    }
    let uuid = options.seed.with(&metadata).uuid("erofs");
    let superblock = Superblock {
        root_nid: u16::try_from(inodes.first().map_or(0, Inode::nid)).unwrap_or(0),
        inodes: inodes.len() as u64,
        time: options.time,
        blocks: block_number(size)?,
        uuid,
        label: &options.label,
    };
    format::put_superblock(&mut metadata, &superblock);
    Ok(ErofsImage { metadata, files, size, uuid })
}

/// Gives every inode its place. What has something inline lies within one block, as the kernel requires of the inline
/// part.
fn place_inodes(inodes: &mut [Inode]) -> u64 {
    let mut at = INODES_START;
    for inode in inodes {
        let tail = match &inode.content {
            Content::File(_) => 0,
            Content::Directory(_) | Content::Symlink(_) => inode.size % BLOCK,
        };
        let header = inode.header_len();
        inode.inline_tail = tail > 0 && header + tail <= BLOCK;
        let len = header + if inode.inline_tail { tail } else { 0 };
        at = at.next_multiple_of(format::INODE_SLOT);
        if len <= BLOCK && at / BLOCK != (at + len - 1) / BLOCK {
            at = at.next_multiple_of(BLOCK);
        }
        inode.offset = at;
        at += len;
    }
    at
}

/// Gives directories, and targets of links, the blocks for what is not inline.
fn place_metadata_blocks(inodes: &mut [Inode], start: u64) -> u64 {
    let mut at = start;
    for inode in inodes.iter_mut().filter(|inode| !matches!(inode.content, Content::File(_))) {
        let blocks = if inode.inline_tail { inode.size / BLOCK } else { inode.size.div_ceil(BLOCK) };
        if blocks > 0 {
            inode.block = u32::try_from(at / BLOCK).unwrap_or(u32::MAX);
            at += blocks * BLOCK;
        }
    }
    at
}

fn place_files(inodes: &mut [Inode], start: u64) -> Result<(Vec<FileData>, u64), ImageError> {
    let mut at = start;
    let mut files = Vec::new();
    for inode in inodes.iter_mut() {
        let Content::File(body) = &inode.content else { continue };
        if body.is_empty() {
            continue;
        }
        inode.block = block_number(at)?;
        files.push(FileData { path: inode.path.clone(), offset: at, body: body.clone() });
        at += body.len().next_multiple_of(BLOCK);
    }
    Ok((files, at))
}

fn block_number(offset: u64) -> Result<u32, ImageError> {
    u32::try_from(offset / BLOCK)
        .map_err(|_| ImageError::Node { path: String::new(), reason: "the file system would be larger than 16 TiB".to_owned() })
}

fn put(image: &mut [u8], offset: u64, bytes: &[u8]) {
    let start = usize_of(offset);
    if let Some(to) = image.get_mut(start..start + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}

/// For numbers that are offsets in memory.
fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Inode {
    /// The number by which directories refer to it: its place in units of 32 bytes from the start of the image.
    fn nid(&self) -> u64 {
        self.offset / format::INODE_SLOT
    }

    fn layout(&self) -> Layout {
        if self.inline_tail { Layout::FlatInline } else { Layout::FlatPlain }
    }
}

impl ErofsImage {
    /// Bytes of all metadata, a multiple of the block size.
    #[must_use]
    pub fn metadata_len(&self) -> u64 {
        self.metadata.len() as u64
    }

    /// The file system's UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// All parts of the image in order: the metadata, then the body of each file that has one.
    #[must_use]
    pub fn extents(&self) -> Vec<Extent> {
        let metadata = Extent { path: None, offset: 0, len: self.metadata_len() };
        let file = |file: &FileData| Extent { path: Some(file.path.clone()), offset: file.offset, len: file.body.len() };
        std::iter::once(metadata).chain(self.files.iter().map(file)).collect()
    }

    /// Writes the whole image.
    ///
    /// # Errors
    /// When a body cannot be read or the output not be written.
    pub fn write(&self, output: &mut impl Write) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while at < self.size {
            let len = usize_of(self.size - at).min(buffer.len());
            let (part, _) = buffer.split_at_mut(len);
            self.read_at(part, at)?;
            output.write_all(part)?;
            at += len as u64;
        }
        Ok(())
    }
}

impl Source for ErofsImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|&end| end <= self.size).ok_or_else(past_end)?;
        let from_metadata = usize_of(self.metadata_len().saturating_sub(offset)).min(buffer.len());
        let (head, mut rest) = buffer.split_at_mut(from_metadata);
        if !head.is_empty() {
            self.metadata.read_at(head, offset)?;
        }
        let mut at = offset + from_metadata as u64;
        let first = self.files.partition_point(|file| file.offset + file.body.len().next_multiple_of(BLOCK) <= at);
        for file in self.files.iter().skip(first).take_while(|file| file.offset < end) {
            let inside = at - file.offset;
            let body = usize_of(file.body.len().saturating_sub(inside)).min(rest.len());
            let (data, later) = rest.split_at_mut(body);
            if !data.is_empty() {
                let named = |error: io::Error| io::Error::new(error.kind(), format!("body of '/{}': {error}", file.path));
                file.body.read_exact_at(data, inside).map_err(named)?;
            }
            let padded = file.offset + file.body.len().next_multiple_of(BLOCK);
            at += body as u64;
            let padding = usize_of(padded - at).min(later.len());
            let (zeros, later) = later.split_at_mut(padding);
            zeros.fill(0);
            at += padding as u64;
            rest = later;
        }
        Ok(())
    }
}
