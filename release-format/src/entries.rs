//! Entries of chunks as the pack index and differences have them: one kind of thing after the other, which compresses better than one entry
//! after the other.

use crate::digest::PayloadDigest;
use crate::error::FormatError;
use crate::index::Entry;
use crate::limits::HEADER;
use crate::operation::Operation;
use crate::reader::{Reader, put_signed, put_varint};

/// Writes entries for a release with so many packs.
pub fn put<'a>(body: &mut Vec<u8>, packs: u16, entries: impl Iterator<Item = &'a Entry> + Clone) {
    body.extend(entries.clone().map(|entry| entry.operation.code()));
    let stored = || entries.clone().filter(|entry| entry.operation.has_payload());
    stored().for_each(|entry| put_varint(body, u64::from(entry.pack)));
    stored().for_each(|entry| put_varint(body, u64::from(entry.len)));
    let mut ends = vec![HEADER as u64; usize::from(packs)];
    for entry in stored() {
        let Some(end) = ends.get_mut(usize::from(entry.pack)) else { continue };
        put_signed(body, entry.offset.cast_signed().wrapping_sub(end.cast_signed()));
        *end = entry.offset + u64::from(entry.len);
    }
    stored().for_each(|entry| body.extend(entry.digest.as_bytes()));
}

/// Reads the entries of chunks with these numbers, of a release with so many packs. Whether they lie within these packs is not checked.
pub fn read(reader: &mut Reader<'_>, chunks: &[u32], packs: usize) -> Result<Vec<(u32, Entry)>, FormatError> {
    let codes = reader.bytes(chunks.len() as u64)?;
    let operations = codes.iter().map(|&code| Operation::in_index(code)).collect::<Result<Vec<_>, _>>()?;
    let zeros = operations.into_iter().map(|operation| Entry { operation, ..Entry::zero() });
    let mut entries: Vec<(u32, Entry)> = chunks.iter().copied().zip(zeros).collect();
    let stored = |entries: &mut Vec<(u32, Entry)>, set: &mut dyn FnMut(u32, &mut Entry) -> Result<(), FormatError>| {
        entries.iter_mut().filter(|(_, entry)| entry.operation.has_payload()).try_for_each(|(chunk, entry)| set(*chunk, entry))
    };
    stored(&mut entries, &mut |chunk, entry| {
        entry.pack = u16::try_from(reader.varint()?).map_err(|_| FormatError::LocationRange { chunk })?;
        Ok(())
    })?;
    stored(&mut entries, &mut |chunk, entry| {
        let len = reader.varint()?;
        entry.len = u32::try_from(len).map_err(|_| FormatError::PayloadLength { chunk, len })?;
        Ok(())
    })?;
    let mut ends = vec![HEADER as u64; packs];
    stored(&mut entries, &mut |chunk, entry| {
        let end = ends.get_mut(usize::from(entry.pack)).ok_or(FormatError::LocationRange { chunk })?;
        entry.offset = end.checked_add_signed(reader.signed()?).ok_or(FormatError::LocationRange { chunk })?;
        *end = entry.offset.saturating_add(u64::from(entry.len));
        Ok(())
    })?;
    stored(&mut entries, &mut |_, entry| {
        entry.digest = PayloadDigest::new(reader.array16()?);
        Ok(())
    })?;
    Ok(entries)
}
