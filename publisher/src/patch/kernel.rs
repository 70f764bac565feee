//! Kernel patches: what is compressed in the new kernel, made of what is compressed in the old one, in pieces as large as the operations of
//! patches may be. There is one only if the new kernel's compression can be repeated here, bit for bit, and what a host will do was
//! done once.

use rayon::prelude::*;
use release_format::{ContentMap, Digest, Extent, Kernel, KernelPatch, Part, Piece, SourceRun};

use super::encode::{Encoded, smallest};
use super::old::OldRelease;
use super::windows::{Caps, Window};
use crate::error::PublishError;
use crate::parts::OpenParts;

/// The kernel patch between two releases; none when the kernel is the same, or there cannot be one.
///
/// # Errors
/// When one of the two cannot be read, or zstd has no memory.
pub fn make(
    parts: &OpenParts,
    map: &ContentMap,
    old: &OldRelease<'_>,
    old_map: &ContentMap,
    level: i32,
) -> Result<Option<Vec<u8>>, PublishError> {
    let Some((before, after)) = old_map.kernel().zip(map.kernel()) else { return Ok(None) };
    let digests = |map: &ContentMap, kernel: &Extent| -> Vec<_> {
        kernel.numbers().filter_map(|number| map.chunk(number)).map(|chunk| chunk.digest).collect()
    };
    if digests(old_map, before) == digests(map, after) {
        return Ok(None);
    }
    let source = old.read(Part::Uki, before.offset, before.len)?;
    let mut target = Vec::new();
    for number in after.numbers() {
        target.extend(crate::pack::read_chunk(parts, map, number)?);
    }
    let Some((from, to)) = Kernel::open(&source).zip(Kernel::open(&target)) else { return Ok(None) };
    let Some(recipe) = to.recipe(&target) else { return Ok(None) };
    let around = [from.outside(&source), to.outside(&target)];
    let [Some(old_around), Some(new_around)] = &around else { return Ok(None) };
    let outside = piece(old_around, new_around, 0, new_around.len(), level)?;
    let caps = Caps::default();
    let step = usize::try_from(caps.output).unwrap_or(usize::MAX);
    let starts: Vec<usize> = (0..to.contents.len()).step_by(step).collect();
    let pieces = starts.par_iter().map(|start| piece(&from.contents, &to.contents, *start, step, level));
    let patch = KernelPatch {
        source: Digest::of(&source),
        result: Digest::of(&target),
        frame: to.frame as u64,
        len: target.len() as u64,
        recipe,
        outside,
        pieces: pieces.collect::<Result<_, _>>()?,
    };
    let failed = || PublishError::format("the kernel patch");
    let bytes = patch.encode().map_err(failed())?;
    // What is made is compared with what it must be; that it compresses to the frame was seen above.
    KernelPatch::decode(&bytes).and_then(|patch| patch.expect((&from, &source), (&to, &target))).map_err(failed())?;
    Ok(Some(bytes))
}

/// The bytes of `new` from `start` on, at most `len`, made of the old ones around the same place.
fn piece(old: &[u8], new: &[u8], start: usize, len: usize, level: i32) -> Result<Piece, PublishError> {
    let output = new.get(start..(start + len).min(new.len())).unwrap_or_default();
    let (from, from_len) = Caps::default().around(old.len() as u64, new.len() as u64, start as u64, output.len() as u64);
    let source = usize::try_from(from).ok().zip(usize::try_from(from + from_len).ok()).and_then(|(from, end)| old.get(from..end));
    let run = SourceRun { part: Part::Uki, offset: from, len: from_len };
    let window = Window::of_bytes(run);
    let Encoded { operation, sources, payload, .. } = smallest(&window, source.unwrap_or_default(), output, level)?;
    let (from, from_len) = sources.first().map_or((0, 0), |run| (run.offset, run.len));
    Ok(Piece { operation, len: output.len() as u64, from, from_len, payload })
}
