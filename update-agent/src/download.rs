//! From the network onto the disk in one pass: each range is verified payload by payload as it comes, decompressed and written. No more
//! than one payload, one chunk and one piece of the network is in memory; how far it is durably on the disk is noted often
//! enough that an interruption costs 8 MiB at most, with what the connection's buffers hold.

use std::time::Duration;

use bytes::Bytes;
use release_format::{
    Channel, ChannelRelease, ChunkDecoder, ContentMap, Fetch, FetchPlan, FormatError, ObjectKind, PackIndex, Part, PlanOptions,
    RangeDecoder, Release, Write,
};
use thiserror::Error;
use tokio::time::sleep;

use crate::fetch::{Body, FetchError, Meter, Source};

/// After so many bytes it is noted how far it is. Besides these an interruption costs what the buffers of the connection held.
const CHECKPOINT: u64 = 4 << 20;
/// Ranges are cut so that one is at most a payload longer. The journal counts ranges: with another number here one that an older agent left is
/// misunderstood, which the root's hash finds out, and all is fetched anew.
const RANGE: u64 = 512 << 10;
/// Ranges that are so near are asked for together.
const NEAR: u64 = 32 << 10;
/// Reading past so much is better than asking again.
const SKIP: u64 = 256 << 10;
/// Failures in a row without a whole payload between them.
const ATTEMPTS: u32 = 8;
/// The same for answers that come too slowly, each of which has taken a minute to be found out.
const SLOW_ATTEMPTS: u32 = 2;
/// How often bytes that are wrong are fetched again: a proxy may have mangled them.
const WRONG: u32 = 2;
/// A server that wants to be left alone for longer ends this run.
const PATIENCE: Duration = Duration::from_secs(120);

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
    /// Makes durable what was written, then notes that so many fetches are done and so many bytes were received.
    ///
    /// # Errors
    /// When one of the two fails.
    fn checkpoint(&mut self, fetches: u64, received: u64) -> Result<(), SinkError>;
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

/// What is to be fetched for a release.
#[derive(Debug)]
pub struct Download {
    release: Release,
    map: ContentMap,
    index: PackIndex,
    plan: FetchPlan,
}

impl Download {
    /// Fetches map and index, and plans. `parts` says what is wanted.
    ///
    /// # Errors
    /// When they do not come, or are wrong.
    pub async fn prepare(source: &Source, release: Release, parts: &[Part]) -> Result<Self, DownloadError> {
        let bytes = source.get(&release.map.path(ObjectKind::Map), release.map.size).await?;
        release.map.verify(&bytes)?;
        let map = ContentMap::decode(&bytes)?;
        drop(bytes);
        release.expect_map(&map)?;
        let bytes = source.get(&release.index.path(ObjectKind::Index), release.index.size).await?;
        release.index.verify(&bytes)?;
        let index = PackIndex::decode(&bytes, &map, &release.packs)?;
        let plan =
            FetchPlan::new(&map, &index, &PlanOptions { max_len: RANGE, ..PlanOptions::default() }, |_, chunk| parts.contains(&chunk.part));
        Ok(Self { release, map, index, plan })
    }

    /// Bytes of all ranges.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.plan.bytes()
    }

    /// Fetches and writes all but the first `done` ranges.
    ///
    /// # Errors
    /// When a range does not come after several attempts, is wrong, or cannot be written.
    pub async fn run(&self, source: &Source, sink: &mut dyn Sink, done: u64) -> Result<(), DownloadError> {
        let mut decoder = ChunkDecoder::new()?;
        if done == 0 {
            for &chunk in &self.plan.zeros {
                sink.write(&decoder.zero(&self.map, &self.index, chunk)?)?;
            }
        }
        let before: u64 = self.plan.fetches.iter().take(usize::try_from(done).unwrap_or(usize::MAX)).map(|fetch| fetch.len).sum();
        let mut reader = Reader {
            source,
            download: self,
            body: None,
            rest: Bytes::new(),
            whole: false,
            received: before,
            of: self.bytes(),
            meter: source.meter(),
        };
        let mut since = 0;
        for (number, fetch) in (0_u64..).zip(&self.plan.fetches).skip(usize::try_from(done).unwrap_or(usize::MAX)) {
            if since + fetch.len > CHECKPOINT {
                sink.checkpoint(number, reader.received)?;
                since = 0;
            }
            self.fetch(number, fetch, &mut reader, &mut decoder, sink).await?;
            since += fetch.len;
        }
        Ok(sink.checkpoint(self.plan.fetches.len() as u64, reader.received)?)
    }

    async fn fetch(
        &self,
        number: u64,
        fetch: &Fetch,
        reader: &mut Reader<'_>,
        decoder: &mut ChunkDecoder,
        sink: &mut dyn Sink,
    ) -> Result<(), DownloadError> {
        let (mut failures, mut wrong, mut reached) = (0, 0, fetch.offset);
        'anew: loop {
            let mut range = RangeDecoder::new(&self.map, &self.index, fetch, &mut *decoder);
            let end = fetch.offset + fetch.len;
            loop {
                let at = range.position();
                if at >= end {
                    range.finish()?;
                    return Ok(());
                }
                let piece = match reader.piece(number, fetch, at).await {
                    Ok(piece) => piece,
                    Err(error) if error.is_passing() => {
                        // Only whole payloads count: what comes again and again is no progress.
                        let resumed = range.resume_at();
                        if resumed > reached {
                            (reached, failures) = (resumed, 0);
                        }
                        // With a little of it before each failure it would go on for years.
                        if failures == 0
                            && let Some((rate, least)) = reader.meter.too_slow()
                        {
                            return Err(FetchError::TooSlow { url: "the pack".to_owned(), rate, least }.into());
                        }
                        failures += 1;
                        let wait = error.retry_after().unwrap_or_else(|| reader.source.pause().saturating_mul(1 << (failures - 1).min(7)));
                        let attempts = if matches!(error, FetchError::TooSlow { .. }) { SLOW_ATTEMPTS } else { ATTEMPTS };
                        if failures >= attempts || wait > PATIENCE {
                            return Err(error.into());
                        }
                        sleep(wait).await;
                        if matches!(error, FetchError::Busy { .. }) {
                            reader.meter.restart();
                        }
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                let pushed = range.push(&piece, &mut |write: Write<'_>| Ok::<(), DownloadError>(sink.write(&write)?));
                match pushed {
                    Ok(()) => sink.progress(reader.received, reader.of),
                    Err(DownloadError::Format(error)) if wrong < WRONG => {
                        wrong += 1;
                        reader.forget();
                        let _ = error;
                        continue 'anew;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

/// Hands out the bytes of packs in order, over as few requests as will do.
struct Reader<'a> {
    source: &'a Source,
    download: &'a Download,
    /// The pack that it reads, and the answer.
    body: Option<(u16, Body)>,
    /// What came and was not handed out.
    rest: Bytes,
    /// The server does not do ranges, so asking again means starting at the first byte.
    whole: bool,
    received: u64,
    of: u64,
    /// Of all answers together.
    meter: Meter,
}

impl Reader<'_> {
    /// Some bytes of the pack from exactly `at` on, up to the end of the fetch.
    async fn piece(&mut self, number: u64, fetch: &Fetch, at: u64) -> Result<Bytes, FetchError> {
        let result = self.try_piece(number, fetch, at).await;
        if result.is_err() {
            self.forget();
        }
        result
    }

    async fn try_piece(&mut self, number: u64, fetch: &Fetch, at: u64) -> Result<Bytes, FetchError> {
        let end = fetch.offset + fetch.len;
        loop {
            let from = self.body.as_ref().filter(|(pack, _)| *pack == fetch.pack).map(|(_, body)| body.position() - self.rest.len() as u64);
            match from {
                Some(from) if from <= at && (at - from <= SKIP || self.whole) => {
                    // Of what was not asked for nothing is kept.
                    let skip = usize::try_from(at - from).unwrap_or(usize::MAX).min(self.rest.len());
                    let _ = self.rest.split_to(skip);
                    if !self.rest.is_empty() {
                        let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(self.rest.len());
                        return Ok(self.rest.split_to(wanted));
                    }
                    let Some((_, body)) = &mut self.body else { continue };
                    match body.next().await? {
                        Some(piece) => {
                            self.received += piece.len() as u64;
                            self.meter.add(piece.len() as u64);
                            self.rest = piece;
                        }
                        // The answer ended where it said it would; the rest has to be asked for.
                        None => self.forget(),
                    }
                }
                _ => self.open(number, fetch, at).await?,
            }
        }
    }

    async fn open(&mut self, number: u64, fetch: &Fetch, at: u64) -> Result<(), FetchError> {
        self.forget();
        let pack =
            self.download.release.packs.get(usize::from(fetch.pack)).ok_or_else(|| FetchError::NotFound(format!("pack {}", fetch.pack)))?;
        let mut end = fetch.offset + fetch.len;
        let later = self.download.plan.fetches.iter().skip(usize::try_from(number).unwrap_or(usize::MAX).saturating_add(1));
        for next in later.take_while(|next| next.pack == fetch.pack) {
            if next.offset > end + NEAR {
                break;
            }
            end = end.max(next.offset + next.len);
        }
        let body = self.source.open(&pack.path(ObjectKind::Pack), at, end, pack.size).await?;
        if body.position() > at {
            let got = format!("bytes from {}", body.position());
            return Err(FetchError::Range { url: pack.path(ObjectKind::Pack), asked: at, size: pack.size, got });
        }
        self.whole = body.position() < at;
        self.body = Some((fetch.pack, body));
        // A server without ranges sends all of it: what is before is read and thrown away.
        while let Some((_, body)) = &mut self.body {
            let before = at - body.position().min(at);
            if before == 0 {
                break;
            }
            let Some(mut piece) = body.next().await? else { break };
            self.meter.add(piece.len() as u64);
            if piece.len() as u64 > before {
                let _ = piece.split_to(usize::try_from(before).unwrap_or(usize::MAX));
                self.rest = piece;
                break;
            }
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.body = None;
        self.rest = Bytes::new();
    }
}
