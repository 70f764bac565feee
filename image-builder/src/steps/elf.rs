//! What the dynamic loader needs to know of an ELF file. Only the parts that are asked for are read, so that a look at
//! every program of an image takes no time.

use std::io::{self, Read, Seek, SeekFrom};

use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_SONAME, DT_STRTAB, ET_DYN, FileHeader64, PT_INTERP, PT_LOAD};
use object::read::ReadCache;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, ReadRef};

use crate::tree::Body;

/// The dynamic section of a program or library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dynamic {
    /// Whether it can be loaded as a library.
    pub shared: bool,
    /// `DT_SONAME`.
    pub soname: Option<String>,
    /// `DT_NEEDED`, in order.
    pub needed: Vec<String>,
    /// Directories of `DT_RUNPATH` or `DT_RPATH`.
    pub search: Vec<String>,
    /// The loader that the kernel starts for it.
    pub interpreter: Option<String>,
}

/// Reads a file's dynamic section; nothing when it is not a 64-bit ELF file.
///
/// # Errors
/// With the reason, when it is ELF but broken.
pub fn dynamic(body: &Body) -> Result<Option<Dynamic>, String> {
    let mut magic = [0_u8; 5];
    if body.len() < 64 || body.read_exact_at(&mut magic, 0).is_err() || magic != *b"\x7fELF\x02" {
        return Ok(None);
    }
    let cache = ReadCache::new(Cursor { body, at: 0 });
    read_dynamic(&cache).map(Some).map_err(|error| error.to_string())
}

fn read_dynamic<'data, R: ReadRef<'data>>(data: R) -> Result<Dynamic, object::Error> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, data)?;
    let mut found = Dynamic { shared: header.e_type.get(endian) == ET_DYN, ..Dynamic::default() };
    for segment in segments {
        if segment.p_type(endian) == PT_INTERP
            && let Ok(bytes) = segment.data(endian, data)
        {
            found.interpreter = Some(text(bytes));
        }
    }
    let Some(entries) = segments.iter().find_map(|segment| segment.dynamic(endian, data).transpose()).transpose()? else {
        return Ok(found);
    };
    let address = entries.iter().find(|entry| entry.tag(endian) == DT_STRTAB).map(|entry| entry.d_val(endian));
    let offset = address.and_then(|address| {
        let segment = segments.iter().find(|segment| {
            let start = segment.p_vaddr(endian);
            segment.p_type(endian) == PT_LOAD && (start..start.saturating_add(segment.p_filesz(endian))).contains(&address)
        })?;
        Some(address - segment.p_vaddr(endian) + segment.p_offset(endian))
    });
    let Some(offset) = offset else { return Ok(found) };
    let end = data.len().unwrap_or(u64::MAX);
    let string = |at: u64| {
        let start = offset.checked_add(at)?;
        data.read_bytes_at_until(start..end, 0).ok().map(text)
    };
    for entry in entries {
        let value = entry.d_val(endian);
        match entry.tag(endian) {
            DT_SONAME => found.soname = string(value),
            DT_NEEDED => found.needed.extend(string(value)),
            DT_RUNPATH | DT_RPATH => {
                let directories = string(value).unwrap_or_default();
                found.search.extend(directories.split(':').filter(|directory| !directory.is_empty()).map(str::to_owned));
            }
            _ => {}
        }
    }
    Ok(found)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

/// A body as a stream, for `object`'s cache.
pub(super) struct Cursor<'a> {
    pub(super) body: &'a Body,
    pub(super) at: u64,
}

impl Read for Cursor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.body.len().saturating_sub(self.at);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let (target, _) = buffer.split_at_mut(count);
        self.body.read_exact_at(target, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Cursor<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.body.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::sync::Arc;

    fn open(path: &str) -> Body {
        let file = File::open(path).unwrap();
        let len = file.metadata().unwrap().len();
        Body::Range { file: Arc::new(file), offset: 0, len }
    }

    #[test]
    fn reads_what_the_loader_reads() {
        let shell = dynamic(&open("/bin/bash")).unwrap().unwrap();
        assert!(shell.needed.iter().any(|name| name == "libc.so.6"), "{shell:?}");
        assert!(shell.interpreter.is_some());
        let libc = std::fs::canonicalize("/lib/x86_64-linux-gnu/libc.so.6");
        if let Ok(path) = libc {
            assert_eq!(dynamic(&open(path.to_str().unwrap())).unwrap().unwrap().soname.as_deref(), Some("libc.so.6"));
        }
        assert_eq!(dynamic(&Body::from_bytes(*b"#!/bin/sh\n")).unwrap(), None);
        let mut broken = vec![0_u8; 100];
        broken[..5].copy_from_slice(b"\x7fELF\x02");
        assert!(dynamic(&Body::from_bytes(broken)).is_err());
    }
}
