//! The smallest operation for a window.

use std::collections::HashSet;

use release_format::{Operation, PatchOperation, PayloadDigest, SourceRun};
use zstd::zstd_safe::{CCtx, CParameter, compress_bound};

use super::difference::difference;
use super::windows::Window;
use crate::error::PublishError;

/// A prefix of 16 MiB and 8 MiB behind it lie within one window of zstd.
const WINDOW_LOG: u32 = 25;

/// Windows of fewer new bytes are tried in all ways, which takes no time.
const SMALL: usize = 64 << 10;
/// A difference is short that is so many times smaller than what it makes.
const SHORT: usize = 32;

/// An operation with its payload.
pub struct Encoded {
    pub operation: Operation,
    pub sources: Vec<SourceRun>,
    pub source_digest: PayloadDigest,
    pub payload: Vec<u8>,
}

impl Encoded {
    /// The operation of a patch, whose payload is put behind others into the pack with this number.
    pub fn operation(self, window: &Window, pack: u16, payloads: &mut Vec<u8>) -> PatchOperation {
        let is_empty = self.payload.is_empty();
        let offset = payloads.len() as u64;
        payloads.extend(&self.payload);
        PatchOperation {
            operation: self.operation,
            chunks: window.chunks.clone(),
            source_digest: self.source_digest,
            sources: self.sources,
            pack: if is_empty { 0 } else { pack },
            offset: if is_empty { 0 } else { offset },
            len: u32::try_from(self.payload.len()).unwrap_or(u32::MAX),
            digest: PayloadDigest::of(&self.payload),
        }
    }
}

/// The smallest operation that makes `output` of `source`.
///
/// # Errors
/// When zstd fails, which is a lack of memory.
pub fn smallest(window: &Window, source: &[u8], output: &[u8], level: i32) -> Result<Encoded, PublishError> {
    let of = |operation: Operation, sources: &[SourceRun], source: &[u8], payload: Vec<u8>| Encoded {
        operation,
        sources: sources.to_vec(),
        source_digest: PayloadDigest::of(source),
        payload,
    };
    if output.iter().all(|&byte| byte == 0) {
        return Ok(of(Operation::Zero, &[], &[], Vec::new()));
    }
    if let [run] = window.sources.as_slice()
        && source.starts_with(output)
    {
        let run = SourceRun { len: output.len() as u64, ..*run };
        return Ok(of(Operation::Copy, &[run], output, Vec::new()));
    }
    let failed = || crate::metadata::encode("a patch", &"zstd has no memory");
    let mut best = of(Operation::Raw, &[], &[], output.to_vec());
    let mut offer = |operation: Operation, sources: &[SourceRun], source: &[u8], payload: Vec<u8>| {
        if payload.len() < best.payload.len() {
            best = of(operation, sources, source, payload);
        }
    };
    if source.is_empty() || is_foreign(source, output) {
        offer(Operation::Data, &[], &[], zstd(output, &[], level).ok_or_else(failed)?);
        return Ok(best);
    }
    let difference = difference(source, output).and_then(|difference| difference.encode(|stream| zstd(stream, &[], level)));
    // zstd with a prefix takes longest of all, and does not beat a difference that is as short as this by what is worth it.
    let is_short = output.len() >= SMALL && difference.as_ref().is_some_and(|payload| payload.len() <= output.len() / SHORT);
    if let Some(payload) = difference {
        offer(Operation::Bsdiff, &window.sources, source, payload);
    }
    if !is_short {
        offer(Operation::Zpatch, &window.sources, source, zstd(output, source, level).ok_or_else(failed)?);
    }
    // Where old bytes have made it half as long, it will not be shorter without them.
    if best.payload.len() > output.len() / 2 {
        let payload = zstd(output, &[], level).ok_or_else(failed)?;
        if payload.len() < best.payload.len() {
            best = of(Operation::Data, &[], &[], payload);
        }
    }
    Ok(best)
}

/// Whether old bytes are of no use: what is new is compressed already, and of `source` it has no 15 bytes in a row, but for one byte repeated.
/// Looking for the smallest operation takes seconds, and longest where there is nothing to find, as in the compressed part of a kernel.
fn is_foreign(source: &[u8], output: &[u8]) -> bool {
    let is_packed = || zstd(output, &[], 1).is_some_and(|frame| frame.len() > output.len() - output.len() / 64);
    if output.len() < SMALL || !is_packed() {
        return false;
    }
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or_default();
    let is_run = |word: &u64| *word == word.rotate_left(8);
    let known: HashSet<u64> = source.chunks_exact(8).map(word).filter(|word| !is_run(word)).collect();
    !output.windows(8).map(word).any(|word| known.contains(&word))
}

/// One zstd frame of `bytes`, with `prefix` before them.
pub fn zstd(bytes: &[u8], prefix: &[u8], level: i32) -> Option<Vec<u8>> {
    let mut context = CCtx::try_create()?;
    context.set_parameter(CParameter::CompressionLevel(level)).ok()?;
    if !prefix.is_empty() {
        context.set_parameter(CParameter::WindowLog(WINDOW_LOG)).ok()?;
        context.set_parameter(CParameter::EnableLongDistanceMatching(true)).ok()?;
        context.ref_prefix(prefix).ok()?;
    }
    let mut frame = Vec::with_capacity(compress_bound(bytes.len()));
    context.compress2(&mut frame, bytes).ok()?;
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::difference::noise;
    use release_format::Part;

    #[test]
    fn only_what_is_compressed_and_has_nothing_in_common_is_foreign() {
        let (old, new) = (noise(1, 300_000), noise(2, 200_000));
        assert!(is_foreign(&old, &new));
        let run = SourceRun { part: Part::Uki, offset: 0, len: old.len() as u64 };
        let made = smallest(&Window::of_bytes(run), &old, &new, 3).unwrap();
        assert_eq!((made.operation, made.sources.len()), (Operation::Raw, 0));
        // Zeros that both have are no reason.
        assert!(is_foreign(&[&old[..], &[0; 200]].concat(), &[&new[..], &[0; 100]].concat()));
        for at in 0..9 {
            let mut moved = new.clone();
            moved[99_000 + at..99_015 + at].copy_from_slice(&old[5000..5015]);
            assert!(!is_foreign(&old, &moved), "15 bytes in common at {at}");
        }
        assert!(!is_foreign(&old, &new[..SMALL - 1]), "little");
        assert!(!is_foreign(&old, &b"what compresses".repeat(20_000)), "not compressed");
    }
}
