//! The frame of maps and indexes: a header of 16 bytes, then one zstd frame.
//!
//! | offset | bytes | is |
//! |---|---|---|
//! | 0 | 8 | magic |
//! | 8 | 2 | version |
//! | 10 | 2 | flags, 0 |
//! | 12 | 4 | bytes of the body, uncompressed |

use crate::frames::{unzstd, unzstd_after};
use crate::reader::Reader;
use crate::{FormatError, limits};

/// The one version of maps, indexes and packs that there is.
pub const VERSION: u16 = 1;

/// The header of a file.
pub fn header(magic: [u8; 8], body_len: u32) -> [u8; limits::HEADER] {
    let mut bytes = [0; limits::HEADER];
    let fields = magic.into_iter().chain(VERSION.to_le_bytes()).chain(0_u16.to_le_bytes()).chain(body_len.to_le_bytes());
    for (to, from) in bytes.iter_mut().zip(fields) {
        *to = from;
    }
    bytes
}

/// Compresses a body.
pub fn wrap(what: &'static str, magic: [u8; 8], body: &[u8], limit: u64, level: i32) -> Result<Vec<u8>, FormatError> {
    let len = u32::try_from(body.len()).ok().filter(|&len| u64::from(len) <= limit);
    let len = len.ok_or(FormatError::BodyTooLarge { what, len: body.len() as u64, limit })?;
    let mut bytes = header(magic, len).to_vec();
    let frame = zstd::bulk::compress(body, level).map_err(|_| FormatError::Compression(what))?;
    bytes.extend(frame);
    Ok(bytes)
}

/// The body of a file.
pub fn unwrap(what: &'static str, magic: [u8; 8], bytes: &[u8], limit: u64) -> Result<Vec<u8>, FormatError> {
    let mut reader = Reader::new(what, bytes);
    if reader.bytes(8).ok() != Some(&magic[..]) {
        return Err(FormatError::Magic(what));
    }
    let version = reader.u16()?;
    if version != VERSION {
        return Err(FormatError::Version { what, found: u32::from(version), supported: u32::from(VERSION) });
    }
    let flags = reader.u16()?;
    if flags != 0 {
        return Err(FormatError::Flags { what, flags });
    }
    let len = reader.u32()?;
    if u64::from(len) > limit {
        return Err(FormatError::BodyTooLarge { what, len: u64::from(len), limit });
    }
    let frame = bytes.get(limits::HEADER..).unwrap_or_default();
    let mut body = vec![0; len as usize];
    unzstd(&mut body, frame).map_err(|misfit| misfit.error(|| what.to_owned(), FormatError::Compression(what)))?;
    Ok(body)
}

/// A body that was compressed with an earlier one as its prefix.
pub fn unpatch(what: &'static str, earlier: &[u8], frame: &[u8], len: u32, limit: u64) -> Result<Vec<u8>, FormatError> {
    if u64::from(len) > limit {
        return Err(FormatError::BodyTooLarge { what, len: u64::from(len), limit });
    }
    let mut body = vec![0; len as usize];
    unzstd_after(earlier, &mut body, frame).map_err(|misfit| misfit.error(|| what.to_owned(), FormatError::Compression(what)))?;
    Ok(body)
}
