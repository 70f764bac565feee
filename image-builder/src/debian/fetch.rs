//! Downloads files whose sum is known into the cache: a few at a time, resuming what an earlier try began, trying again
//! when a connection breaks, and believing nothing but the sum.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use thiserror::Error;

use super::cache::{Cache, CacheError, Partial};
use super::transport::{Transport, TransportError};
use crate::digest::Sha256;
use crate::progress::{Event, Progress};

/// Connections at a time.
const THREADS: usize = 4;
/// Tries for each file.
const TRIES: u32 = 4;

/// A file to have in the cache.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What it is, for messages, for example `bash 5.2.37-2`.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Its bytes.
    pub size: u64,
    /// Its sum.
    pub sha256: Sha256,
}

/// Why a file is not in the cache.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The mirror does not have it any more.
    #[error(
        "{name} is gone from the mirror ({url}): the archive has moved on; run `garboard lock RECIPE` to lock today's versions, or use a snapshot mirror"
    )]
    Gone {
        /// What.
        name: String,
        /// Where it was.
        url: String,
    },
    /// It cannot be downloaded.
    #[error("cannot fetch {name}: {source}")]
    Transport {
        /// What.
        name: String,
        /// Why.
        source: TransportError,
    },
    /// It is not what the signed index or the lock says.
    #[error(
        "{name} from {url} is not what was signed: its SHA-256 is {found}, expected {expected}; the mirror is damaged or has been tampered with: use another mirror"
    )]
    Tampered {
        /// What.
        name: String,
        /// From where.
        url: String,
        /// What was expected.
        expected: Sha256,
        /// What came.
        found: Sha256,
    },
    /// Not in the cache, and the network may not be used.
    #[error(
        "{name} is not in the package cache, and --offline forbids fetching it; run once without --offline ({missing} of {total} files are missing)"
    )]
    Offline {
        /// The first one.
        name: String,
        /// How many.
        missing: usize,
        /// Of how many.
        total: usize,
    },
}

/// How files get into the cache.
#[derive(Clone, Copy)]
pub struct Fetcher<'a> {
    /// Where they go.
    pub cache: &'a Cache,
    /// How they come.
    pub transport: &'a Transport,
    /// Whether the network may not be used.
    pub offline: bool,
}

impl Fetcher<'_> {
    /// Fetches what the cache lacks; returns how many bytes were to be fetched.
    ///
    /// # Errors
    /// The first file's that cannot be had, in the order given.
    pub fn fetch(&self, wanted: &[Wanted], progress: &dyn Progress) -> Result<u64, FetchError> {
        let mut missing: Vec<(usize, &Wanted)> =
            wanted.iter().enumerate().filter(|(_, file)| !self.cache.has_blob(&file.sha256, file.size)).collect();
        let total = missing.iter().map(|(_, file)| file.size).sum();
        if self.offline
            && let Some((_, first)) = missing.first()
        {
            return Err(FetchError::Offline { name: first.name.clone(), missing: missing.len(), total: wanted.len() });
        }
        // Large files first, so that no long one is left for the end.
        missing.sort_by_key(|(_, file)| std::cmp::Reverse(file.size));
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let failed: Mutex<Option<(usize, FetchError)>> = Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..THREADS.min(missing.len()) {
                scope.spawn(|| {
                    while let Some((order, file)) = missing.get(next.fetch_add(1, Ordering::Relaxed))
                        && !stop.load(Ordering::Relaxed)
                    {
                        if let Err(error) = self.fetch_one(file, progress) {
                            stop.store(true, Ordering::Relaxed);
                            let mut first = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                            if first.as_ref().is_none_or(|(earlier, _)| order < earlier) {
                                *first = Some((*order, error));
                            }
                        }
                    }
                });
            }
        });
        match failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(total),
        }
    }

    /// A file's bytes, fetched if needed.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn read(&self, file: &Wanted, progress: &dyn Progress) -> Result<Vec<u8>, FetchError> {
        // A blob may turn out damaged when it is read, and is then fetched once more.
        for _ in 0..2 {
            self.fetch(std::slice::from_ref(file), progress)?;
            if let Some(bytes) = self.cache.read_blob(&file.sha256)? {
                return Ok(bytes);
            }
        }
        Err(FetchError::Transport {
            name: file.name.clone(),
            source: TransportError::Io { url: file.url.clone(), source: io::Error::other("the cache damages what is written to it") },
        })
    }

    fn fetch_one(&self, file: &Wanted, progress: &dyn Progress) -> Result<(), FetchError> {
        let mut partial = self.cache.partial(&file.sha256)?;
        if partial.is_finished(file.size) {
            progress.event(Event::Advance { bytes: file.size });
            partial.discard()?;
            return Ok(());
        }
        let mut seen = 0;
        for attempt in 0.. {
            match self.try_once(file, &mut partial, &mut seen, progress) {
                Ok(()) => break,
                Err(FetchError::Transport { source, .. }) if source.is_passing() && attempt + 1 < TRIES => {
                    thread::sleep(Duration::from_millis(200 << (2 * attempt)));
                }
                Err(error) => return Err(error),
            }
        }
        partial.finish()?;
        Ok(())
    }

    /// Appends what is missing and checks the sum. `seen` is how much was reported as progress.
    fn try_once(&self, file: &Wanted, partial: &mut Partial, seen: &mut u64, progress: &dyn Progress) -> Result<(), FetchError> {
        let transport = |source: TransportError| match source {
            TransportError::NotFound { url } => FetchError::Gone { name: file.name.clone(), url },
            source => FetchError::Transport { name: file.name.clone(), source },
        };
        let broken = |source: io::Error| transport(TransportError::Io { url: file.url.clone(), source });
        let path = partial.path().to_owned();
        let mut have = partial.file().metadata().map_err(CacheError::at("reading", &path))?.len();
        if have > file.size {
            partial.restart()?;
            have = 0;
        }
        let resumed = have > 0;
        if have < file.size {
            // At least 20 kB/s, or it is better to connect anew.
            let limit = Duration::from_secs(60 + (file.size - have) / 20_000);
            let opened = self.transport.open(&file.url, have, limit).map_err(transport)?;
            if opened.offset != have {
                partial.restart()?;
                have = 0;
            }
            advance(progress, seen, have);
            let mut body = opened.body.take(file.size - have + 1);
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let count = match body.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(broken(error)),
                };
                let bytes = buffer.get(..count).unwrap_or_default();
                partial.file().write_all(bytes).map_err(CacheError::at("writing", &path))?;
                have += count as u64;
                advance(progress, seen, have);
            }
            if have < file.size {
                return Err(broken(io::Error::new(io::ErrorKind::UnexpectedEof, format!("only {have} of {} bytes came", file.size))));
            }
        }
        let opened = File::open(&path).map_err(CacheError::at("reading", &path))?;
        let (found, _) = Sha256::of_reader(opened).map_err(CacheError::at("reading", &path))?;
        if found == file.sha256 {
            return Ok(());
        }
        partial.restart()?;
        if resumed {
            // The earlier part may be at fault, so the whole is fetched once before anyone is accused.
            return self.try_once(file, partial, seen, progress);
        }
        Err(FetchError::Tampered { name: file.name.clone(), url: file.url.clone(), expected: file.sha256, found })
    }
}

fn advance(progress: &dyn Progress, seen: &mut u64, have: u64) {
    if have > *seen {
        progress.event(Event::Advance { bytes: have - *seen });
        *seen = have;
    }
}
