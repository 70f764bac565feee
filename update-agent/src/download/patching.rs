//! The way by patch: operations of a patch, one after the other, each of a window of the running version's bytes. A patch that borrows its
//! operations leaves chunks to be fetched.

use release_format::{
    ANSWER, ChunkDecoder, ContentMap, Digest, FormatError, ObjectKind, ObjectRef, OlderPatches, Part, PatchDecoder, PatchInfo, PatchTable,
    Release, Write,
};
use tokio::task::yield_now;

use super::reader::{Reader, Span, Spans};
use super::{CHECKPOINT, COPY_CHECKPOINT, Download, DownloadError, LocalError, LocalSource, Position, Sink, WRONG, pause};
use crate::fetch::{FetchError, Source};

/// After so many failed operations the rest comes by chunks.
pub const MAX_FAILED: u32 = 2;

/// Bytes of a payload between failures that count as progress.
const PROGRESS: usize = 256 << 10;

/// A patch that can be applied here.
pub struct Patch {
    /// What the release says of it.
    pub info: PatchInfo,
    /// Its table.
    pub table: PatchTable,
}

/// The patch from the running version, if the release has one that can be used: in its metadata, or in the list of those from older versions.
///
/// # Errors
/// When that list does not come, or is wrong.
pub async fn offered_patch(source: &Source, release: &Release, running: &Digest) -> Result<Option<PatchInfo>, DownloadError> {
    let known = |info: &&PatchInfo| info.format == PatchInfo::FORMAT && info.from == *running;
    let listed = release.patches.iter().find(known).cloned();
    // A version with a difference is among those of which the metadata list all that there is.
    let is_old = listed.is_none() && release.differences.iter().all(|info| info.from != *running);
    let Some(older) = release.older_patches.filter(|_| is_old) else { return Ok(listed) };
    let bytes = source.get(&older.path(ObjectKind::Older), older.size).await?;
    older.verify(&bytes)?;
    Ok(OlderPatches::decode(&bytes)?.patches.iter().find(known).cloned())
}

/// Fetches and checks the table of the patch from the running version, if the release has one, and makes the release's content map.
///
/// # Errors
/// When it does not come, or is wrong.
pub async fn patch_from(
    source: &Source,
    release: &Release,
    info: &PatchInfo,
    running: &ContentMap,
) -> Result<(Patch, ContentMap), DownloadError> {
    let bytes = whole(source, &info.table).await?;
    info.table.verify(&bytes)?;
    let table = PatchTable::decode(&bytes, &release.patch_packs)?;
    let map = table.map.apply(running, &release.map_body)?;
    release.expect_map(&map)?;
    table.check(running, &map)?;
    Ok((Patch { info: info.clone(), table }, map))
}

/// A table's bytes; what has come of them need not come again when the line drops.
async fn whole(source: &Source, object: &ObjectRef) -> Result<Vec<u8>, FetchError> {
    let (path, limit) = (object.path(ObjectKind::Table), release_format::limits::MAX_PATCH_BODY);
    if object.size > limit {
        return Err(FetchError::TooLarge { url: path, limit });
    }
    let span = Span { object: 0, offset: 0, len: object.size };
    let spans = Spans { objects: vec![(path, object.size)], spans: vec![span], max_gap: 0, answer: ANSWER };
    payload(&mut Reader::new(source, &spans, 0), &spans, 0).await
}

impl Download {
    /// Applies the operations from `position` on. One that fails is left out, and its chunks are fetched later; after two, the rest is.
    pub(super) async fn patch(
        &self,
        source: &Source,
        running: &dyn LocalSource,
        sink: &mut dyn Sink,
        chunks: &mut ChunkDecoder,
        position: &mut Position,
    ) -> Result<(), DownloadError> {
        let Some(patch) = self.patch.as_ref().filter(|_| !position.full && position.from.is_some()) else { return Ok(()) };
        let operations = &patch.table.operations;
        if position.operations as usize >= operations.len() || position.failed >= MAX_FAILED {
            return Ok(());
        }
        let wanted: Vec<u32> = (position.operations..)
            .zip(operations.iter().skip(position.operations as usize))
            .filter(|(_, operation)| {
                let mut numbers = operation.numbers().filter(|number| !self.is_rebuilt(*number, position));
                numbers.any(|number| self.map.chunk(number).is_some_and(|chunk| self.parts.contains(&chunk.part)))
            })
            .map(|(number, _)| number)
            .collect();
        let at = |number: u32| operations.get(number as usize);
        let spans = wanted.iter().filter_map(|number| at(*number)).map(|operation| Span {
            object: usize::from(operation.pack),
            offset: operation.offset,
            len: u64::from(operation.len),
        });
        let spans = Spans {
            objects: self.release.patch_packs.iter().map(|pack| (pack.path(ObjectKind::Patch), pack.size)).collect(),
            spans: spans.collect(),
            max_gap: 0,
            answer: ANSWER,
        };
        let of = position.fetched + spans.spans.iter().map(|span| span.len).sum::<u64>();
        let mut reader = Reader::new(source, &spans, position.fetched);
        let mut decoder = PatchDecoder::default();
        let (mut fetched, mut made) = (0_u64, 0_u64);
        for (place, number) in wanted.into_iter().enumerate() {
            let Some(operation) = at(number) else { break };
            if position.failed >= MAX_FAILED {
                break;
            }
            if fetched + u64::from(operation.len) > CHECKPOINT || made > COPY_CHECKPOINT {
                position.fetched = reader.received;
                sink.checkpoint(position)?;
                (fetched, made) = (0, 0);
            }
            let mut wrong = 0;
            let failure = loop {
                let payload = match payload(&mut reader, &spans, place).await {
                    Ok(payload) => payload,
                    Err(error) if error.is_passing() => return Err(error.into()),
                    // The pack is gone, or is not what it was.
                    Err(error) => break Some(LocalError::Fetch(error)),
                };
                sink.progress(reader.received, of);
                let mut read = |part: Part, offset: u64, buffer: &mut [u8]| running.read(part, offset, buffer).map_err(LocalError::Read);
                let mut write = |write: Write<'_>| Ok(sink.write(&write)?);
                match decoder.apply(&patch.table, (number, &payload), &self.map, chunks, &mut read, &mut write) {
                    Ok(()) => break None,
                    Err(LocalError::Sink(error)) => return Err(error.into()),
                    // A proxy may have mangled it.
                    Err(LocalError::Format(FormatError::PatchPayloadDigest { .. })) if wrong < WRONG => {
                        wrong += 1;
                        reader.forget();
                    }
                    Err(error) => break Some(error),
                }
            };
            fetched += u64::from(operation.len);
            made += operation.output_len(&self.map);
            if let Some(error) = failure {
                position.failed += 1;
                let next = if position.failed < MAX_FAILED { "its chunks are" } else { "this and what is left is" };
                eprintln!("update-agent: {error}; {next} fetched instead");
                // A borrowed operation may make chunks that are here.
                let lacks = |number: &u32| self.map.chunk(*number).is_some_and(|chunk| self.local.find(&chunk.digest).is_none());
                position.missing.extend(operation.numbers().filter(lacks));
                position.missing.sort_unstable();
                position.missing.dedup();
            }
            position.operations = number + 1;
            yield_now().await;
        }
        if position.failed < MAX_FAILED {
            position.operations = u32::try_from(operations.len()).unwrap_or(u32::MAX);
        }
        position.fetched = reader.received;
        Ok(sink.checkpoint(position)?)
    }

    /// Whether each chunk was made by an operation, as far as `position` is.
    pub(super) fn patched(&self, position: &Position) -> Vec<bool> {
        let mut made = vec![false; self.map.chunk_count() as usize];
        let operations = self.patch.iter().filter(|_| !position.full && position.from.is_some()).flat_map(|patch| &patch.table.operations);
        for number in operations.take(position.operations as usize).flat_map(|operation| operation.numbers()) {
            if let Some(made) = made.get_mut(number as usize) {
                *made = position.missing.binary_search(&number).is_err();
            }
        }
        made
    }
}

/// The payload of a span, whole.
async fn payload(reader: &mut Reader<'_>, spans: &Spans, place: usize) -> Result<Vec<u8>, FetchError> {
    let Some(&span) = spans.spans.get(place) else { return Ok(Vec::new()) };
    let mut payload = Vec::with_capacity(usize::try_from(span.len).unwrap_or(0));
    let (mut failures, mut reached) = (0, 0);
    while (payload.len() as u64) < span.len {
        match reader.piece(place, span.offset + payload.len() as u64).await {
            Ok(piece) => payload.extend_from_slice(&piece),
            Err(error) if error.is_passing() => {
                // What came of it stays; so much of it is progress.
                if payload.len() >= reached + PROGRESS {
                    (reached, failures) = (payload.len(), 0);
                }
                pause(reader, error, &mut failures).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(payload)
}
