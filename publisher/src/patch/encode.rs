//! The smallest operation for a window.

use release_format::{Operation, PayloadDigest, SourceRun};
use zstd::zstd_safe::{CCtx, CParameter, compress_bound};

use super::difference::difference;
use super::windows::Window;
use crate::error::PublishError;

/// A prefix of 16 MiB and 8 MiB behind it lie within one window of zstd.
const WINDOW_LOG: u32 = 25;

/// An operation with its payload.
pub struct Encoded {
    pub operation: Operation,
    pub sources: Vec<SourceRun>,
    pub source_digest: PayloadDigest,
    pub payload: Vec<u8>,
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
    if source.is_empty() {
        offer(Operation::Data, &[], &[], zstd(output, &[], level).ok_or_else(failed)?);
        return Ok(best);
    }
    if let Some(payload) = difference(source, output).and_then(|difference| difference.encode(|stream| zstd(stream, &[], level))) {
        offer(Operation::Bsdiff, &window.sources, source, payload);
    }
    offer(Operation::Zpatch, &window.sources, source, zstd(output, source, level).ok_or_else(failed)?);
    // Where old bytes have made it half as long, it will not be shorter without them.
    if best.payload.len() > output.len() / 2 {
        let payload = zstd(output, &[], level).ok_or_else(failed)?;
        if payload.len() < best.payload.len() {
            best = of(Operation::Data, &[], &[], payload);
        }
    }
    Ok(best)
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
