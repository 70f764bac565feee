//! From package names to a tree of unpacked Debian packages, without a package manager and without privilege.
//!
//! [`Debian::lock`] asks the archive once: it verifies the signed release files, reads the indexes, chooses packages and
//! writes down the answer as a [`Lock`]. [`Debian::unpack`] works from a lock alone: it fetches what the cache lacks,
//! unpacks each package once, and puts them together. It promises that the same lock gives the same tree, that every
//! byte of it was verified by SHA-256, and that no maintainer script runs.
//!
//! Trust goes from the archive keys that are part of this program, over `InRelease`, the index and the lock, to each
//! package; the mirror is not part of it.

pub mod assemble;
pub mod cache;
mod date;
mod deb;
mod deb822;
mod dependency;
pub mod fetch;
pub mod lock;
pub mod mirror;
mod names;
mod packages;
pub mod release;
pub mod request;
pub mod resolve;
#[cfg(test)]
mod resolve_tests;
mod suites;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod transport;
pub mod universe;
pub mod unpack;
mod version;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use thiserror::Error;

use crate::progress::{Event, Phase, Progress};
use assemble::{AssembleError, Assembled};
use cache::{Cache, CacheError};
use fetch::{FetchError, Fetcher, Wanted};
use lock::{Lock, LockedPackage, LockedSuite};
use mirror::{Mirror, MirrorError};
use release::{Keyring, ReleaseError};
use request::PackageRequest;
use resolve::ResolveError;
use transport::Transport;
use universe::Archive;
use unpack::{UnpackError, Unpacked};

/// Everything that can go wrong here; each message is one line that says what to do.
#[derive(Debug, Error)]
pub enum DebianError {
    /// No mirror.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A download.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A release file.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// An index that is no text.
    #[error("the index of suite '{suite}' cannot be read: {reason}; use another mirror")]
    Index {
        /// Whose.
        suite: String,
        /// Why.
        reason: String,
    },
    /// A suite's release file is not to be had.
    #[error("the mirror has no suite '{suite}' ({url}); correct the recipe's suite, or use another mirror")]
    NoSuite {
        /// Which.
        suite: String,
        /// What was asked for.
        url: String,
    },
    /// The release file of a suite was never seen.
    #[error("suite '{suite}' is not in the package cache, and --offline forbids fetching it; run once without --offline")]
    OfflineSuite {
        /// Which.
        suite: String,
    },
    /// No set of packages.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A package cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// Packages do not fit together.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// A lock names the security archive, and the mirror has none beside it.
    #[error(
        "the lock has packages of the security archive, and there is none beside the mirror; use a mirror whose URL has a directory 'debian' with 'debian-security' beside it"
    )]
    NoSecurity,
}

/// How packages are had. The time comes in here: nothing below reads the clock.
#[derive(Clone, Debug)]
pub struct Debian {
    /// The mirror, or why there is none; only an error when it is needed.
    pub mirror: Option<Mirror>,
    /// Keys that may sign a suite.
    pub keyring: Keyring,
    /// The cache.
    pub cache: Cache,
    /// The network.
    pub transport: Transport,
    /// Whether the network may not be used.
    pub offline: bool,
    /// Suites that are used although they have expired.
    pub allow_expired: Vec<String>,
    /// Seconds since 1970.
    pub now: i64,
}

impl Debian {
    /// Asks the archive for a request's packages. The lock has no sums of maintainer scripts yet: see [`Debian::lock`].
    ///
    /// # Errors
    /// When a suite cannot be had or believed, or no set of packages satisfies the request.
    pub fn resolve(&self, request: &PackageRequest, progress: &dyn Progress) -> Result<Lock, DebianError> {
        progress.event(Event::Begin { phase: Phase::Resolve, total: None });
        let universe = self.universe(request, progress)?;
        let chosen = resolve::resolve(&universe, request)?;
        let mut packages = Vec::with_capacity(chosen.len());
        for resolve::Chosen { package, suite } in chosen {
            let suite = universe.suite_name(suite).to_owned();
            let sha256 = package
                .sha256
                .ok_or_else(|| DebianError::Index { suite: suite.clone(), reason: format!("{} has no SHA256", package.name) })?;
            packages.push(LockedPackage {
                name: package.name.to_owned(),
                version: package.version.to_owned(),
                architecture: package.architecture.to_owned(),
                suite,
                path: package.path.to_owned(),
                size: package.size,
                sha256,
                scripts: Default::default(),
            });
        }
        let suites = universe.suites.iter().map(|suite| LockedSuite {
            name: suite.name.clone(),
            archive: suite.archive,
            date: date::format(suite.date),
            inrelease: suite.inrelease,
        });
        let summary = format!("{} packages", packages.len());
        let lock = Lock::new(request.clone(), suites.collect(), packages);
        progress.event(Event::End { phase: Phase::Resolve, summary });
        Ok(lock)
    }

    /// Asks the archive, fetches and unpacks, so that the lock has the sums of all maintainer scripts. Ids that an
    /// earlier lock pinned are kept.
    ///
    /// # Errors
    /// As [`Debian::resolve`] and [`Debian::unpack`].
    pub fn lock(
        &self,
        request: &PackageRequest,
        earlier: Option<&Lock>,
        progress: &dyn Progress,
    ) -> Result<(Lock, Assembled), DebianError> {
        let mut lock = self.resolve(request, progress)?;
        if let Some(earlier) = earlier {
            lock.ids = earlier.ids.clone();
        }
        let mut assembled = self.unpack(&lock, progress)?;
        for (locked, package) in lock.packages.iter_mut().zip(&mut assembled.packages) {
            locked.scripts = package.scripts.iter().map(|(name, script)| (name.clone(), script.sha256)).collect();
            package.locked.scripts.clone_from(&locked.scripts);
        }
        Ok((lock, assembled))
    }

    /// Fetches all packages of a lock into the cache.
    ///
    /// # Errors
    /// When one cannot be had.
    pub fn fetch(&self, lock: &Lock, progress: &dyn Progress) -> Result<(), DebianError> {
        let wanted = self.wanted(lock, lock.packages.iter())?;
        self.fetch_all(&wanted, progress)
    }

    /// The tree of a lock's packages. What is unpacked already is only read.
    ///
    /// # Errors
    /// When a package cannot be had or unpacked, or the packages do not fit together.
    pub fn unpack(&self, lock: &Lock, progress: &dyn Progress) -> Result<Assembled, DebianError> {
        let mut loaded = parallel(&lock.packages, |package| unpack::load(&self.cache, &package.sha256))?;
        let missing: Vec<usize> = loaded.iter().enumerate().filter(|(_, unpacked)| unpacked.is_none()).map(|(at, _)| at).collect();
        if !missing.is_empty() {
            let packages: Vec<&LockedPackage> = missing.iter().filter_map(|&at| lock.packages.get(at)).collect();
            let wanted = self.wanted(lock, packages.iter().copied())?;
            self.fetch_all(&wanted, progress)?;
            progress.event(Event::Begin { phase: Phase::Unpack, total: Some(packages.iter().map(|package| package.size).sum()) });
            let mut jobs: Vec<(usize, (&LockedPackage, &Wanted))> = missing.into_iter().zip(packages.into_iter().zip(&wanted)).collect();
            // The kernel alone takes as long as most others together: large ones first keep all cores busy to the end.
            jobs.sort_by_key(|(at, (package, _))| (std::cmp::Reverse(package.size), *at));
            let unpacked = parallel(&jobs, |(_, (package, wanted))| self.unpack_one(package, wanted, progress))?;
            progress.event(Event::End { phase: Phase::Unpack, summary: format!("{} packages", jobs.len()) });
            for ((at, _), unpacked) in jobs.into_iter().zip(unpacked) {
                if let Some(slot) = loaded.get_mut(at) {
                    *slot = Some(unpacked);
                }
            }
        }
        let parts = lock.packages.iter().cloned().zip(loaded).filter_map(|(package, unpacked)| Some((package, unpacked?)));
        Ok(assemble::assemble(parts.collect())?)
    }

    fn unpack_one(&self, package: &LockedPackage, wanted: &Wanted, progress: &dyn Progress) -> Result<Unpacked, DebianError> {
        let name = format!("{} {}", package.name, package.version);
        let bytes = self.fetcher().read(wanted, progress)?;
        unpack::unpack(&self.cache, &name, &package.sha256, &bytes)?;
        progress.event(Event::Advance { bytes: package.size });
        let problem = || UnpackError::Member { package: name, path: String::new(), problem: "cannot be read back from the cache" };
        Ok(unpack::load(&self.cache, &package.sha256)?.ok_or_else(problem)?)
    }

    fn fetch_all(&self, wanted: &[Wanted], progress: &dyn Progress) -> Result<(), DebianError> {
        let total = wanted.iter().filter(|file| !self.cache.has_blob(&file.sha256, file.size)).map(|file| file.size).sum();
        if total == 0 {
            return Ok(());
        }
        progress.event(Event::Begin { phase: Phase::Fetch, total: Some(total) });
        self.fetcher().fetch(wanted, progress)?;
        progress.event(Event::End { phase: Phase::Fetch, summary: format!("{} MB", total / 1_000_000) });
        Ok(())
    }

    fn fetcher(&self) -> Fetcher<'_> {
        Fetcher { cache: &self.cache, transport: &self.transport, offline: self.offline }
    }

    fn wanted<'a>(&self, lock: &Lock, packages: impl Iterator<Item = &'a LockedPackage>) -> Result<Vec<Wanted>, DebianError> {
        packages
            .map(|package| {
                let name = format!("{} {}", package.name, package.version);
                let url = match self.archive(lock.archive(package)) {
                    Ok(mirror) => mirror.url(&package.path),
                    // Without the network no URL is needed, only what the cache has.
                    Err(_) if self.offline || self.cache.has_blob(&package.sha256, package.size) => package.path.clone(),
                    Err(error) => return Err(error),
                };
                Ok(Wanted { name, url, size: package.size, sha256: package.sha256 })
            })
            .collect()
    }

    fn archive(&self, archive: Archive) -> Result<Mirror, DebianError> {
        let mirror = self.mirror.clone().ok_or(MirrorError::None)?;
        match archive {
            Archive::Debian => Ok(mirror),
            Archive::Security => mirror.security().ok_or(DebianError::NoSecurity),
        }
    }
}

/// Does a job for each item on all cores and returns the results in order, or the first item's error.
fn parallel<T: Sync, R: Send, E: Send>(items: &[T], job: impl Fn(&T) -> Result<R, E> + Sync) -> Result<Vec<R>, E> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, Result<R, E>)>> = Mutex::new(Vec::with_capacity(items.len()));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { break };
                    let result = job(item);
                    if result.is_err() {
                        // No new items, but those that were begun are finished.
                        next.store(items.len(), Ordering::Relaxed);
                    }
                    results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
