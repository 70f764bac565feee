//! From the running slot and the network onto the disk in one pass. Chunks that the running version has are copied from its slot, each compared
//! with its digest; others are made of its bytes by a patch, where there is one; the rest comes as ranges of packs, each verified
//! payload by payload as it comes, decompressed and written. In memory are two payloads, their chunks and one piece of the network at most;
//! while a patch is applied, one operation's windows and streams, up to 40 MiB. How far it is durably on the disk is noted often enough that
//! an interruption costs 8 MiB at most, with what the connection's buffers hold.

mod differing;
mod patching;
mod position;
mod reader;

use std::cell::Cell;
use std::io;
use std::time::Duration;

use release_format::{
    Channel, ChannelRelease, Chunk, ChunkDecoder, ContentMap, DifferenceInfo, Fetch, FetchPlan, FormatError, LocalChunks, LocalPlace,
    MAX_REQUESTS, ObjectKind, PackIndex, Part, PlanOptions, RangeDecoder, Release, Write,
};
use thiserror::Error;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::fetch::{FetchError, Source};

pub use differing::{difference_from, offered_difference};
pub use patching::{Patch, offered_patch, patch_from};
pub use position::{Position, Taken, Way};
use reader::{Reader, Span, Spans};

/// After so many bytes it is noted how far it is. Besides these an interruption costs what the buffers of the connection held.
const CHECKPOINT: u64 = 4 << 20;
/// The same for what is copied on the host, which costs no network.
const COPY_CHECKPOINT: u64 = 64 << 20;
/// Ranges are cut so that one is at most a payload longer. The journal counts ranges: with another number here one that an older agent left is
/// misunderstood, which the root's hash finds out, and all is fetched anew.
const RANGE: u64 = 512 << 10;
/// Failures in a row without a whole payload between them.
const ATTEMPTS: u32 = 8;
/// The same for answers that come too slowly, each of which has taken a minute to be found out.
const SLOW_ATTEMPTS: u32 = 2;
/// How often bytes that are wrong are fetched again: a proxy may have mangled them.
const WRONG: u32 = 2;
/// A server that wants to be left alone for longer ends this run.
const PATIENCE: Duration = Duration::from_secs(120);
/// With more bad chunks the running slot is no place to copy from.
const MAX_MISSING: usize = 1024;
/// So many bad chunks are named in the log.
const NAMED: usize = 10;

/// Why a release did not get onto the disk.
#[derive(Debug, Error)]
pub enum DownloadError {
    /// It did not come.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// What came is wrong.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It could not be written.
    #[error("{0}")]
    Sink(#[from] SinkError),
}

/// Nothing in place of what cannot be used where there is another way to the same, which `told` says in the log.
///
/// # Errors
/// When the server cannot be reached for now: later it may be had.
pub fn unless_unusable<T>(result: Result<T, DownloadError>, told: &str) -> Result<Option<T>, DownloadError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(DownloadError::Fetch(error)) if error.is_passing() => Err(error.into()),
        Err(error) => {
            eprintln!("update-agent: {told}: {error}");
            Ok(None)
        }
    }
}

/// Where verified bytes could not go.
#[derive(Debug, Error)]
#[error("cannot write {what}: {source}")]
pub struct SinkError {
    /// Which file or partition.
    pub what: String,
    /// Why.
    pub source: std::io::Error,
}

/// Where verified bytes go.
pub trait Sink {
    /// Writes.
    ///
    /// # Errors
    /// When the device refuses.
    fn write(&mut self, write: &Write<'_>) -> Result<(), SinkError>;
    /// Makes durable what was written, then notes how far it is.
    ///
    /// # Errors
    /// When one of the two fails.
    fn checkpoint(&mut self, position: &Position) -> Result<(), SinkError>;
    /// Hears how many bytes of how many were received, often.
    fn progress(&mut self, received: u64, of: u64);
}

/// The metadata of a release that the channel lists.
///
/// # Errors
/// When it does not come or is not what the channel says.
pub async fn release(source: &Source, channel: &Channel, entry: &ChannelRelease) -> Result<Release, DownloadError> {
    let bytes = source.get(&entry.release.path(ObjectKind::Release), entry.release.size).await?;
    entry.release.verify(&bytes)?;
    let release = Release::decode(&bytes)?;
    release.expect(channel, entry)?;
    Ok(release)
}

/// The content map of a release.
///
/// # Errors
/// When it does not come or is not what the release says.
pub async fn map(source: &Source, release: &Release) -> Result<ContentMap, DownloadError> {
    let bytes = source.get(&release.map.path(ObjectKind::Map), release.map.size).await?;
    release.map.verify(&bytes)?;
    let map = ContentMap::decode(&bytes)?;
    release.expect_map(&map)?;
    Ok(map)
}

/// Where the bytes of the running version are.
pub trait LocalSource {
    /// Fills `buffer`.
    ///
    /// # Errors
    /// When they cannot be read.
    fn read(&self, part: Part, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// What is to be put together for a release.
pub struct Download {
    release: Release,
    map: ContentMap,
    local: LocalChunks,
    patch: Option<Patch>,
    beyond: Cell<Beyond>,
    kernel: Cell<Option<RebuiltKernel>>,
    parts: Vec<Part>,
}

/// Where entries of the chunks that the running version lacks come from, if not from the pack index.
#[derive(Debug, Default)]
pub enum Beyond {
    /// From nowhere else.
    #[default]
    Nothing,
    /// A difference that was read.
    Here(PackIndex),
    /// A difference that is fetched if a patch leaves chunks to be fetched, with the map of the running version.
    There(DifferenceInfo, ContentMap),
}

/// What became of a kernel patch.
#[derive(Debug, Default)]
pub struct RebuiltKernel {
    /// The new kernel, which is the one of the content map; none when operations or chunks have to make it.
    pub section: Option<Vec<u8>>,
    /// Bytes received for it.
    pub received: u64,
    /// It was tried and came to nothing.
    pub failed: bool,
}

impl Download {
    /// `parts` says what is wanted, `local` are the chunks of the running version, none if all is fetched.
    #[must_use]
    pub fn new(release: Release, map: ContentMap, local: LocalChunks, patch: Option<Patch>, parts: &[Part]) -> Self {
        Self { release, map, local, patch, beyond: Cell::default(), kernel: Cell::default(), parts: parts.to_vec() }
    }

    /// The same, with a kernel that was rebuilt, or could not be.
    #[must_use]
    pub fn with_kernel(self, kernel: Option<RebuiltKernel>) -> Self {
        Self { kernel: Cell::new(kernel), ..self }
    }

    /// The same, with what a difference says or may say.
    #[must_use]
    pub fn with_beyond(self, beyond: Beyond) -> Self {
        Self { beyond: Cell::new(beyond), ..self }
    }

    /// An index with an entry for each chunk that is wanted. A difference has none for those that should be on this host already. It says the
    /// same of the others, so a plan and a position in it do not depend on where the entries come from.
    async fn index_of(&self, source: &Source, wanted: &[bool], position: &mut Position) -> Result<PackIndex, DownloadError> {
        let known = match self.beyond.take() {
            _ if position.full => None,
            Beyond::Nothing => None,
            Beyond::Here(index) => Some(index),
            Beyond::There(info, running) => {
                let found = difference_from(source, &self.release, &info, &running).await?;
                position.lost |= found.is_none();
                found.map(|(_, index)| index)
            }
        };
        let Some(index) = known else { return self.index(source).await };
        let unsaid = (0..).zip(wanted).filter(|(chunk, wanted)| **wanted && index.entry(*chunk).is_none()).count();
        if unsaid == 0 {
            return Ok(index);
        }
        eprintln!("update-agent: of {unsaid} chunks the difference does not say where they are, so the pack index is fetched");
        self.index(source).await
    }

    async fn index(&self, source: &Source) -> Result<PackIndex, DownloadError> {
        let bytes = source.get(&self.release.index.path(ObjectKind::Index), self.release.index.size).await?;
        self.release.index.verify(&bytes)?;
        Ok(PackIndex::decode(&bytes, &self.map, &self.release.packs)?)
    }

    /// Puts all together from `position` on, and says how far that came.
    ///
    /// # Errors
    /// When a range does not come after several attempts, is wrong, or cannot be written.
    pub async fn run(
        &self,
        source: &Source,
        running: &dyn LocalSource,
        sink: &mut dyn Sink,
        mut position: Position,
    ) -> Result<Taken, DownloadError> {
        let mut decoder = ChunkDecoder::new()?;
        self.put_kernel(sink, &mut decoder, &mut position)?;
        self.copy(running, sink, &mut decoder, &mut position).await?;
        self.patch(source, running, sink, &mut decoder, &mut position).await?;
        let wanted = self.wanted(&position);
        if !wanted.contains(&true) {
            return Ok(self.taken(&position, None));
        }
        let index = self.index_of(source, &wanted, &mut position).await?;
        let options = PlanOptions { max_len: RANGE, ..PlanOptions::default() };
        let want = |number: u32, _: &Chunk| wanted.get(number as usize).is_some_and(|wanted| *wanted);
        // A patch that leaves chunks takes its part of the requests. The same position leads to the same plan.
        let most = if self.patch.is_some() { MAX_REQUESTS / 2 } else { MAX_REQUESTS };
        let plan = FetchPlan::within(&self.map, &index, &options, most, want);
        if position.fetches == 0 {
            for &chunk in &plan.zeros {
                sink.write(&decoder.zero(&self.map, &index, chunk)?)?;
            }
        }
        let done = usize::try_from(position.fetches).unwrap_or(usize::MAX);
        let objects = self.release.packs.iter().map(|pack| (pack.path(ObjectKind::Pack), pack.size)).collect();
        let span = |fetch: &Fetch| Span { object: usize::from(fetch.pack), offset: fetch.offset, len: fetch.len };
        let spans = Spans { objects, spans: plan.fetches.iter().map(span).collect(), max_gap: plan.max_gap, answer: plan.answer() };
        let mut reader = Reader::new(source, &spans, position.fetched);
        let of = position.fetched + plan.fetches.iter().skip(done).map(|fetch| fetch.len).sum::<u64>();
        let mut since = 0;
        for (number, fetch) in plan.fetches.iter().enumerate().skip(done) {
            if since + fetch.len > CHECKPOINT {
                (position.fetches, position.fetched) = (number as u64, reader.received);
                sink.checkpoint(&position)?;
                since = 0;
            }
            self.fetch(&index, (number, fetch), of, &mut reader, &mut decoder, sink).await?;
            since += fetch.len;
        }
        (position.fetches, position.fetched) = (plan.fetches.len() as u64, reader.received);
        sink.checkpoint(&position)?;
        Ok(self.taken(&position, Some(&index)))
    }

    /// Writes the kernel that was rebuilt, and gives its memory back before windows of the patch need theirs.
    fn put_kernel(&self, sink: &mut dyn Sink, decoder: &mut ChunkDecoder, position: &mut Position) -> Result<(), DownloadError> {
        let Some(kernel) = self.kernel.take() else { return Ok(()) };
        position.fetched += kernel.received;
        if let (Some(section), Some(extent)) = (&kernel.section, self.map.kernel()) {
            for (number, bytes) in extent.pieces(section) {
                sink.write(&decoder.put(&self.map, number, bytes)?)?;
            }
        }
        position.kernel = Some(kernel.section.is_some());
        position.no_kernel = kernel.failed;
        Ok(sink.checkpoint(position)?)
    }

    /// Whether a chunk is of a kernel that was rebuilt.
    fn is_rebuilt(&self, number: u32, position: &Position) -> bool {
        position.kernel == Some(true) && self.map.kernel().is_some_and(|kernel| kernel.numbers().contains(&number))
    }

    /// Chunks of the wanted parts that the running version has, and where.
    fn local_chunks(&self) -> impl Iterator<Item = (u32, Chunk, LocalPlace)> {
        let wanted = self.map.chunks().filter(|(_, chunk)| self.parts.contains(&chunk.part));
        wanted.filter_map(|(number, chunk)| Some((number, chunk, self.local.find(&chunk.digest)?)))
    }

    /// Copies what the running version has. What cannot be read there, or is not what it should be, is noted as missing and fetched later.
    async fn copy(
        &self,
        running: &dyn LocalSource,
        sink: &mut dyn Sink,
        decoder: &mut ChunkDecoder,
        position: &mut Position,
    ) -> Result<(), DownloadError> {
        if position.full || position.from.is_none() {
            return Ok(());
        }
        let mut since = 0;
        let mut damage = None;
        let first = position.copied;
        for (number, chunk, place) in self.local_chunks().filter(|(number, ..)| *number >= first) {
            let read = |buffer: &mut [u8]| running.read(place.part, place.offset, buffer).map_err(LocalError::Read);
            match decoder.local(&self.map, number, read) {
                Ok(write) => sink.write(&write)?,
                Err(error) if position.missing.len() < MAX_MISSING => {
                    if position.missing.len() < NAMED {
                        let part = place.part;
                        eprintln!("update-agent: {part} of the running version, byte {}: {error}; this is fetched instead", place.offset);
                    }
                    position.missing.push(number);
                }
                Err(error) => {
                    damage = Some(error);
                    break;
                }
            }
            since += u64::from(chunk.len);
            if since >= COPY_CHECKPOINT {
                position.copied = number + 1;
                sink.checkpoint(position)?;
                since = 0;
            }
            yield_now().await;
        }
        if let Some(error) = damage {
            eprintln!("update-agent: more than {MAX_MISSING} chunks of the running version are damaged, the last: {error}; all is fetched");
            *position = Position { full: true, fetched: position.fetched, ..Position::default() };
        } else if position.copied < self.map.chunk_count() {
            position.copied = self.map.chunk_count();
        } else {
            return Ok(());
        }
        Ok(sink.checkpoint(position)?)
    }

    /// Which chunks have to be fetched, once it is known what could not be copied or made.
    fn wanted(&self, position: &Position) -> Vec<bool> {
        let copied = !position.full && position.from.is_some();
        let made = self.patched(position);
        let wanted = self.map.chunks().zip(made).map(|((number, chunk), made)| {
            let here = copied && self.local.find(&chunk.digest).is_some() && position.missing.binary_search(&number).is_err();
            self.parts.contains(&chunk.part) && !here && !made && !self.is_rebuilt(number, position)
        });
        wanted.collect()
    }

    fn taken(&self, position: &Position, index: Option<&PackIndex>) -> Taken {
        let way = match (&self.patch, position.full || position.from.is_none()) {
            (_, true) => Way::Full,
            (Some(_), false) if position.failed < patching::MAX_FAILED => Way::Patch,
            (_, false) => Way::Chunks,
        };
        let copied = if way == Way::Full { 0 } else { self.local_chunks().map(|(_, chunk, _)| u64::from(chunk.len)).sum() };
        let full = match (self.release.full_size, index) {
            // The publisher has not noted it, and so is one that makes no differences: the index has all chunks.
            (0, Some(index)) => FetchPlan::new(&self.map, index, &PlanOptions::default(), |_, _| true).bytes(),
            (noted, _) => noted,
        };
        let kernel = position.kernel == Some(true);
        Taken { way, received: position.fetched, full, copied, kernel, fallbacks: position.missing.len() as u64 + position.unused() }
    }

    async fn fetch(
        &self,
        index: &PackIndex,
        (number, fetch): (usize, &Fetch),
        of: u64,
        reader: &mut Reader<'_>,
        decoder: &mut ChunkDecoder,
        sink: &mut dyn Sink,
    ) -> Result<(), DownloadError> {
        let (mut failures, mut wrong, mut reached) = (0, 0, fetch.offset);
        'anew: loop {
            let mut range = RangeDecoder::new(&self.map, index, fetch, &mut *decoder);
            let end = fetch.offset + fetch.len;
            loop {
                let at = range.position();
                if at >= end {
                    range.finish()?;
                    return Ok(());
                }
                let piece = match reader.piece(number, at).await {
                    Ok(piece) => piece,
                    Err(error) if error.is_passing() => {
                        // Only whole payloads count: what comes again and again is no progress.
                        let resumed = range.resume_at();
                        if resumed > reached {
                            (reached, failures) = (resumed, 0);
                        }
                        pause(reader, error, &mut failures).await?;
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                let pushed = range.push(&piece, &mut |write: Write<'_>| Ok::<(), DownloadError>(sink.write(&write)?));
                match pushed {
                    Ok(()) => sink.progress(reader.received, of),
                    Err(DownloadError::Format(_)) if wrong < WRONG => {
                        wrong += 1;
                        reader.forget();
                        continue 'anew;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

/// Waits before the next attempt; gives up after the last, when it comes too slowly, or when the server wants to be left alone for too long.
async fn pause(reader: &mut Reader<'_>, error: FetchError, failures: &mut u32) -> Result<(), FetchError> {
    // With a little of it before each failure it would go on for years.
    if *failures == 0
        && let Some((rate, least)) = reader.meter.too_slow()
    {
        return Err(FetchError::TooSlow { url: "the pack".to_owned(), rate, least });
    }
    *failures += 1;
    let wait = error.retry_after().unwrap_or_else(|| reader.source.pause().saturating_mul(1 << (*failures - 1).min(7)));
    let attempts = if matches!(error, FetchError::TooSlow { .. }) { SLOW_ATTEMPTS } else { ATTEMPTS };
    if *failures >= attempts || wait > PATIENCE {
        return Err(error);
    }
    sleep(wait).await;
    if matches!(error, FetchError::Busy { .. }) {
        reader.meter.restart();
    }
    Ok(())
}

/// Why bytes of the running version were not used.
#[derive(Debug, Error)]
enum LocalError {
    #[error("cannot be read: {0}")]
    Read(io::Error),
    #[error(transparent)]
    Format(#[from] FormatError),
    /// What makes something of them did not come.
    #[error(transparent)]
    Fetch(FetchError),
    /// They were right; what was made of them could not be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
}
