//! Operations of patches: from a payload and old bytes to verified chunks.

use crate::bsdiff;
use crate::chunk::{ChunkDecoder, Write};
use crate::digest::{Digest, PayloadDigest};
use crate::error::FormatError;
use crate::frames::{Misfit, unzstd, unzstd_after};
use crate::limits::{MAX_OUTPUT, MAX_SOURCE};
use crate::map::{ContentMap, Part};
use crate::operation::Operation;
use crate::patch::PatchTable;

/// Fills a buffer with bytes of the earlier release.
pub type ReadOld<'a, E> = dyn FnMut(Part, u64, &mut [u8]) -> Result<(), E> + 'a;
/// Takes a chunk of the release.
pub type WriteNew<'a, E> = dyn FnMut(Write<'_>) -> Result<(), E> + 'a;

/// Applies operations one by one. Holds one window of old bytes, one of new bytes and a payload's streams: at most 40 MiB.
#[derive(Default)]
pub struct PatchDecoder {
    source: Vec<u8>,
    output: Vec<u8>,
}

impl PatchDecoder {
    /// Applies an operation of a table that was checked with [`PatchTable::check`]. `read` gives old bytes, `write` gets the chunks.
    /// Nothing is written before all chunks of the operation are known to be right.
    ///
    /// # Errors
    /// When the payload, the old bytes or the result are not those that table and map name, or `read` or `write` fails.
    pub fn apply<E: From<FormatError>>(
        &mut self,
        table: &PatchTable,
        (number, payload): (u32, &[u8]),
        map: &ContentMap,
        decoder: &mut ChunkDecoder,
        read: &mut ReadOld<'_, E>,
        write: &mut WriteNew<'_, E>,
    ) -> Result<(), E> {
        let operation = table.operations.get(number as usize).ok_or(FormatError::ChunksNone { operation: number })?;
        let wrong_payload = || FormatError::PatchPayload { operation: number, len: payload.len() as u64 };
        if payload.len() != operation.len as usize {
            return Err(wrong_payload().into());
        }
        if operation.operation.has_payload() && PayloadDigest::of(payload) != operation.digest {
            return Err(FormatError::PatchPayloadDigest { operation: number }.into());
        }
        let source_len = operation.source_len();
        if source_len > MAX_SOURCE {
            return Err(FormatError::SourceWindow { operation: number, len: source_len }.into());
        }
        let output_len = operation.output_len(map);
        if output_len > MAX_OUTPUT {
            return Err(FormatError::OutputWindow { operation: number, len: output_len }.into());
        }
        self.source.clear();
        self.source.resize(usize::try_from(source_len).unwrap_or(0), 0);
        let mut rest = self.source.as_mut_slice();
        for run in &operation.sources {
            let (to, later) = rest.split_at_mut_checked(usize::try_from(run.len).unwrap_or(0)).ok_or_else(wrong_payload)?;
            read(run.part, run.offset, to)?;
            rest = later;
        }
        if !operation.sources.is_empty() && PayloadDigest::of(&self.source) != operation.source_digest {
            return Err(FormatError::SourceDigest { operation: number }.into());
        }
        self.output.clear();
        self.output.resize(usize::try_from(output_len).unwrap_or(0), 0);
        make(operation.operation, &self.source, payload, &mut self.output).map_err(|misfit| {
            let wrong = match operation.operation {
                Operation::Bsdiff => FormatError::PatchStreams { operation: number },
                _ => wrong_payload(),
            };
            misfit.error(|| format!("the payload of operation {number} of the patch"), wrong)
        })?;
        let mut rest = self.output.as_slice();
        let mut right = Vec::new();
        for chunk in operation.numbers() {
            let place = map.chunk(chunk).ok_or(FormatError::NoChunk(chunk))?;
            let (bytes, later) = rest.split_at_checked(place.len as usize).ok_or(FormatError::NoChunk(chunk))?;
            if Digest::of(bytes) != place.digest {
                return Err(FormatError::ChunkDigest { chunk }.into());
            }
            right.push((chunk, bytes));
            rest = later;
        }
        for (chunk, bytes) in right {
            write(decoder.put(map, chunk, bytes)?)?;
        }
        Ok(())
    }
}

/// Does one operation into memory of exactly the size of what it makes.
pub fn make(operation: Operation, source: &[u8], payload: &[u8], output: &mut [u8]) -> Result<(), Misfit> {
    match operation {
        Operation::Zero => {
            output.fill(0);
            Ok(())
        }
        Operation::Copy | Operation::Raw => {
            let from = if operation == Operation::Copy { source } else { payload };
            (from.len() == output.len()).then(|| output.copy_from_slice(from)).ok_or(Misfit::Wrong)
        }
        Operation::Data => unzstd(output, payload),
        Operation::Zpatch => unzstd_after(source, output, payload),
        Operation::Bsdiff => bsdiff::apply(source, payload, output),
    }
}
