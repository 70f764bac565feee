//! Unpacks a package once into the cache: all bodies one after the other in a data file, and an index of what they
//! are. Later builds read only the index. Kernel modules are decompressed on the way, since an image holds them plain,
//! and names below the old `/bin`, `/lib`, `/sbin` get their place below `/usr`.
//!
//! The index and the data file carry a CRC-32 each, checked at every load: the bytes were verified by SHA-256 when they
//! were unpacked, and what is left to find is a damaged disk.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::cache::{Cache, CacheError};
use super::deb::{Deb, DebError, decompress};
use crate::digest::Sha256;

/// Changes whenever unpacked packages of older programs cannot be used.
const FORMAT: u32 = 1;

/// Control files that nothing here needs and that are large.
const UNUSED_CONTROL: [&str; 3] = ["md5sums", "templates", "symbols"];

/// Why a package cannot be unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The package is broken.
    #[error("cannot unpack {package}: {source}")]
    Deb {
        /// Which.
        package: String,
        /// Why.
        source: DebError,
    },
    /// A member that has no place in an image.
    #[error("cannot unpack {package}: '{path}' {problem}")]
    Member {
        /// Which package.
        package: String,
        /// Which member.
        path: String,
        /// What is wrong.
        problem: &'static str,
    },
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A directory.
    Dir,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// Another name of a file of the same package.
    Hard,
}

/// One member of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Path in the image.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uid: u32,
    /// Group.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gid: u32,
    /// Where a file's body starts in the data file.
    #[serde(default, skip_serializing_if = "is_zero_long")]
    pub offset: u64,
    /// Its length.
    #[serde(default, skip_serializing_if = "is_zero_long")]
    pub len: u64,
    /// Where a link leads.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Extended attributes, rarely any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<(String, Vec<u8>)>,
}

// serde asks for references.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero_long(value: &u64) -> bool {
    *value == 0
}

/// One file of the control archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ControlFile {
    name: String,
    offset: u64,
    len: u64,
    sha256: Sha256,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Contents {
    data_len: u64,
    data_crc: u32,
    control: Vec<ControlFile>,
    entries: Vec<Entry>,
}

/// A package as it lies in the cache.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// The data file.
    pub data: Arc<File>,
    /// Members in the package's order.
    pub entries: Arc<[Entry]>,
    /// Files of the control archive: name, bytes, sum.
    pub control: Vec<(String, Vec<u8>, Sha256)>,
}

fn names(sum: &Sha256) -> (String, String) {
    let hex = sum.to_string();
    let stem = format!("unpacked/{FORMAT}/{}/{hex}", hex.get(..2).unwrap_or_default());
    (format!("{stem}.index"), format!("{stem}.data"))
}

/// The unpacked form of a package, if the cache has it whole. A damaged one counts as missing.
///
/// # Errors
/// When it is there and cannot be read.
pub fn load(cache: &Cache, sum: &Sha256) -> Result<Option<Unpacked>, CacheError> {
    let (index_name, data_name) = names(sum);
    let Some(index) = cache.read(&index_name)? else { return Ok(None) };
    let path = cache.root().join(&data_name);
    let data = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CacheError::at("reading", &path)(error)),
    };
    let Some(contents) = parse_index(&index) else { return Ok(None) };
    let (crc, len) = crc_of(&data).map_err(CacheError::at("reading", &path))?;
    if (crc, len) != (contents.data_crc, contents.data_len) {
        return Ok(None);
    }
    let mut control = Vec::with_capacity(contents.control.len());
    for file in contents.control {
        let Ok(len) = usize::try_from(file.len) else { return Ok(None) };
        let mut bytes = vec![0; len];
        data.read_exact_at(&mut bytes, file.offset).map_err(CacheError::at("reading", &path))?;
        control.push((file.name, bytes, file.sha256));
    }
    Ok(Some(Unpacked { data: Arc::new(data), entries: contents.entries.into(), control }))
}

/// The index: a line with its CRC-32, then JSON.
fn parse_index(bytes: &[u8]) -> Option<Contents> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let (crc, json) = bytes.split_at_checked(end + 1)?;
    let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?.trim(), 16).ok()?;
    (crc32fast::hash(json) == crc).then(|| serde_json::from_slice(json).ok())?
}

fn crc_of(file: &File) -> io::Result<(u32, u64)> {
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 512 * 1024];
    let mut at = 0;
    loop {
        match file.read_at(&mut buffer, at) {
            Ok(0) => return Ok((hasher.finalize(), at)),
            Ok(count) => {
                hasher.update(buffer.get(..count).unwrap_or_default());
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Unpacks a package, whose bytes the caller has verified, into the cache.
///
/// # Errors
/// When the package is broken, has members that have no place in an image, or the cache cannot be written.
pub fn unpack(cache: &Cache, package: &str, sum: &Sha256, bytes: &[u8]) -> Result<(), UnpackError> {
    let deb_error = |source: DebError| UnpackError::Deb { package: package.to_owned(), source };
    let (index_name, data_name) = names(sum);
    let deb = Deb::parse(bytes).map_err(deb_error)?;
    let file = cache.temporary()?;
    let path = file.path().to_owned();
    let mut sink = Sink { out: BufWriter::with_capacity(256 * 1024, file), crc: crc32fast::Hasher::new(), len: 0, path };
    let mut contents = Contents::default();

    let mut control = tar::Archive::new(deb.control().map_err(deb_error)?);
    let damaged = |member: &'static str| move |source: io::Error| deb_error(DebError::Damaged { member, source });
    for entry in control.entries().map_err(damaged("control.tar"))? {
        let mut entry = entry.map_err(damaged("control.tar"))?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        if UNUSED_CONTROL.contains(&name.as_str()) {
            continue;
        }
        let mut body = Vec::new();
        entry.read_to_end(&mut body).map_err(damaged("control.tar"))?;
        let offset = sink.add(&body)?;
        contents.control.push(ControlFile { name, offset, len: body.len() as u64, sha256: Sha256::of(&body) });
    }

    let mut data = tar::Archive::new(deb.data().map_err(deb_error)?);
    for entry in data.entries().map_err(damaged("data.tar"))? {
        let mut entry = entry.map_err(damaged("data.tar"))?;
        if let Some(entry) = member(package, &mut entry, &mut sink)? {
            contents.entries.push(entry);
        }
    }

    (contents.data_crc, contents.data_len) = (sink.crc.clone().finalize(), sink.len);
    let path = sink.path.clone();
    let file = sink.out.into_inner().map_err(|error| CacheError::at("writing", &path)(error.into_error()))?;
    let json = serde_json::to_vec(&contents).map_err(|error| CacheError::at("writing", &path)(error.into()))?;
    let mut index = format!("{:08x}\n", crc32fast::hash(&json)).into_bytes();
    index.extend(json);
    // The data first: an index without data would be dropped, data without index is only space.
    cache.publish(file, &data_name)?;
    cache.write(&index_name, &index)?;
    Ok(())
}

/// Removes a package's unpacked form.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn forget(cache: &Cache, sum: &Sha256) -> Result<(), CacheError> {
    let (index, data) = names(sum);
    for path in [index, data].map(|name| cache.root().join(name)) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(CacheError::at("removing", &path)(error)),
            _ => {}
        }
    }
    Ok(())
}

struct Sink {
    out: BufWriter<tempfile::NamedTempFile>,
    crc: crc32fast::Hasher,
    len: u64,
    path: PathBuf,
}

impl Sink {
    fn add(&mut self, bytes: &[u8]) -> Result<u64, CacheError> {
        let offset = self.len;
        self.out.write_all(bytes).map_err(CacheError::at("writing", &self.path))?;
        self.crc.update(bytes);
        self.len += bytes.len() as u64;
        Ok(offset)
    }
}

fn member<R: Read>(package: &str, entry: &mut tar::Entry<'_, R>, sink: &mut Sink) -> Result<Option<Entry>, UnpackError> {
    let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let bad = |problem: &'static str| UnpackError::Member { package: package.to_owned(), path: shown.clone(), problem };
    let damaged =
        |source: io::Error| UnpackError::Deb { package: package.to_owned(), source: DebError::Damaged { member: "data.tar", source } };
    let raw = entry.path_bytes();
    let Some(mut path) = clean(std::str::from_utf8(&raw).map_err(|_| bad("is not UTF-8"))?).map_err(&bad)? else { return Ok(None) };
    drop(raw);
    let link = match entry.link_name_bytes() {
        Some(bytes) => Some(String::from_utf8(bytes.into_owned()).map_err(|_| bad("leads to a name that is not UTF-8"))?),
        None => None,
    };
    let header = entry.header();
    let kind = match header.entry_type() {
        tar::EntryType::Directory => EntryKind::Dir,
        tar::EntryType::Regular | tar::EntryType::Continuous => EntryKind::File,
        tar::EntryType::Symlink => EntryKind::Link,
        tar::EntryType::Link => EntryKind::Hard,
        _ => return Err(bad("is a device or another kind that an image does not take from a package")),
    };
    let mode = u16::try_from(header.mode().map_err(damaged)? & 0o7777).unwrap_or(0);
    let id = |value: io::Result<u64>| u32::try_from(value.map_err(damaged)?).map_err(|_| bad("has an owner out of range"));
    let (uid, gid) = (id(header.uid())?, id(header.gid())?);
    // Only base-files ships the links themselves; everybody else's files go where they lead.
    if kind != EntryKind::Link || path.contains('/') {
        path = merge_usr(path);
    }
    let target = match kind {
        EntryKind::Link => link.filter(|target| !target.is_empty()).ok_or_else(|| bad("is a link to nothing"))?,
        EntryKind::Hard => clean(&link.unwrap_or_default()).map_err(&bad)?.map(merge_usr).ok_or_else(|| bad("is a link to nothing"))?,
        _ => String::new(),
    };
    let mut xattrs = Vec::new();
    if let Some(extensions) = entry.pax_extensions().map_err(damaged)? {
        for extension in extensions.flatten() {
            if let Ok(Some(name)) = extension.key().map(|key| key.strip_prefix("SCHILY.xattr.")) {
                xattrs.push((name.to_owned(), extension.value_bytes().to_vec()));
            }
        }
    }
    let (mut offset, mut len) = (0, 0);
    if kind == EntryKind::File {
        let mut body = Vec::with_capacity(usize::try_from(entry.size()).unwrap_or(0).min(64 << 20));
        entry.read_to_end(&mut body).map_err(damaged)?;
        if let Some((plain, ending)) = module_name(&path) {
            let mut decoded = Vec::with_capacity(body.len() * 4);
            decompress(ending, &body)
                .and_then(|mut reader| {
                    reader.read_to_end(&mut decoded).map_err(|source| DebError::Damaged { member: "kernel module", source })
                })
                .map_err(|source| UnpackError::Deb { package: package.to_owned(), source })?;
            (path, body) = (plain, decoded);
        }
        offset = sink.add(&body)?;
        len = body.len() as u64;
    }
    Ok(Some(Entry { path, kind, mode, uid, gid, offset, len, target, xattrs }))
}

/// A compressed kernel module's plain name, and the ending that says how it is compressed.
fn module_name(path: &str) -> Option<(String, &'static str)> {
    if !path.starts_with("usr/lib/modules/") {
        return None;
    }
    [".xz", ".zst", ".gz"].into_iter().find_map(|ending| {
        let plain = path.strip_suffix(ending).filter(|plain| plain.ends_with(".ko"))?;
        Some((plain.to_owned(), ending))
    })
}

/// A member's path in the image; `None` for the root itself.
fn clean(path: &str) -> Result<Option<String>, &'static str> {
    if path.starts_with('/') {
        return Err("is an absolute path");
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err("leaves the image"),
            part => parts.push(part),
        }
    }
    Ok((!parts.is_empty()).then(|| parts.join("/")))
}

/// Moves a path below the links that base-files ships to where they lead.
fn merge_usr(path: String) -> String {
    let first = path.split('/').next().unwrap_or_default();
    if matches!(first, "bin" | "sbin" | "lib" | "lib32" | "lib64" | "libx32") { format!("usr/{path}") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_the_image() {
        assert_eq!(clean("./usr/./bin//x/"), Ok(Some("usr/bin/x".to_owned())));
        assert_eq!(clean("./"), Ok(None));
        assert!(clean("/etc/passwd").is_err() && clean("./usr/../../x").is_err());
    }

    #[test]
    fn old_top_directories_lead_into_usr() {
        assert_eq!(merge_usr("lib/x86_64-linux-gnu/libc.so.6".to_owned()), "usr/lib/x86_64-linux-gnu/libc.so.6");
        assert_eq!(merge_usr("library/x".to_owned()), "library/x");
    }

    #[test]
    fn only_modules_are_decompressed() {
        assert_eq!(module_name("usr/lib/modules/6.12/kernel/a.ko.xz"), Some(("usr/lib/modules/6.12/kernel/a.ko".to_owned(), ".xz")));
        assert_eq!(module_name("usr/lib/modules/6.12/x.xz"), None);
        assert_eq!(module_name("usr/share/a.ko.xz"), None);
    }
}
