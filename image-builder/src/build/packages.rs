//! Which packages a recipe gets: by its lock where there is one that fits, otherwise asked of the archive.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use super::manifest::ManifestPackage;
use crate::debian::Debian;
use crate::debian::assemble::{Assembled, Package};
use crate::debian::cache::Cache;
use crate::debian::lock::{self, Lock, LockError};
use crate::debian::mirror::{self, Mirror};
use crate::debian::release::Keyring;
use crate::debian::request::PackageRequest;
use crate::debian::transport::Transport;
use crate::digest::Sha256;
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::steps::PackageRecord;
use crate::steps::accounts::Ids;
use crate::tree::{Body, Tree};

/// Debian's name of the architecture that images are built for.
const DEBIAN_ARCHITECTURE: &str = "amd64";

/// Where packages come from and are kept.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Mirror of the command line.
    pub mirror: Option<String>,
    /// Cache directory of the command line.
    pub cache: Option<PathBuf>,
    /// Whether the network is off limits.
    pub offline: bool,
}

/// The packages of a build: a lock that answers the recipe, and the way to have them.
pub(super) struct Chosen {
    debian: Debian,
    lock: Lock,
    path: PathBuf,
    /// Whether the lock differs from the file.
    changed: bool,
    /// Made on the way when the archive was asked.
    assembled: Option<Assembled>,
}

/// What the packages have brought.
pub(super) struct Unpacked {
    pub tree: Tree,
    pub records: Vec<PackageRecord>,
    pub manifest: Vec<ManifestPackage>,
}

/// Asks the archive and writes the lock; returns its path and the number of packages.
///
/// # Errors
/// When the archive cannot be had or believed, no set of packages fits, or the lock cannot be written.
pub fn lock(recipe: &Recipe, sources: &Sources, progress: &dyn Progress) -> Result<(PathBuf, usize)> {
    let path = Lock::path(&recipe.path);
    let request = PackageRequest::from_recipe(recipe, DEBIAN_ARCHITECTURE);
    // A lock that cannot be read must not be replaced unseen: the ids in it are those of running hosts.
    let earlier = Lock::read(&path)?;
    let (lock, _) = debian(recipe, sources)?.lock(&request, earlier.as_ref(), progress)?;
    lock.write(&path)?;
    Ok((path, lock.packages.len()))
}

/// The packages for a build. Without `locked`, a lock that is missing or does not fit is made anew.
///
/// # Errors
/// As [`lock`], and when `locked` and the lock does not answer the recipe.
pub(super) fn choose(recipe: &Recipe, sources: &Sources, locked: bool, progress: &dyn Progress) -> Result<Chosen> {
    let path = Lock::path(&recipe.path);
    let request = PackageRequest::from_recipe(recipe, DEBIAN_ARCHITECTURE);
    let earlier = Lock::read(&path)?;
    let debian = debian(recipe, sources)?;
    if locked {
        let lock = earlier.ok_or_else(|| LockError::Missing(path.clone()))?;
        lock.check(&request, &path)?;
        return Ok(Chosen { debian, lock, path, changed: false, assembled: None });
    }
    match earlier {
        Some(lock) if lock.check(&request, &path).is_ok() => Ok(Chosen { debian, lock, path, changed: false, assembled: None }),
        earlier => {
            let (lock, assembled) = debian.lock(&request, earlier.as_ref(), progress)?;
            Ok(Chosen { debian, lock, path, changed: true, assembled: Some(assembled) })
        }
    }
}

/// Fetches and unpacks what the cache lacks, and puts the packages together.
///
/// # Errors
/// When a package cannot be had, is not what the lock says, or packages do not fit together.
pub(super) fn unpack(chosen: &mut Chosen, progress: &dyn Progress) -> Result<Unpacked> {
    let assembled = match chosen.assembled.take() {
        Some(assembled) => assembled,
        None => chosen.debian.unpack(&chosen.lock, progress)?,
    };
    let manifest = assembled.packages.iter().map(|package| manifest_package(package, &assembled.tree)).collect::<Result<_>>()?;
    let records = assembled.packages.iter().map(record).collect();
    Ok(Unpacked { tree: assembled.tree, records, manifest })
}

impl Chosen {
    /// The numbers that the lock pins.
    pub fn ids(&self) -> Ids {
        Ids { users: self.lock.ids.users.clone(), groups: self.lock.ids.groups.clone() }
    }

    /// Takes the numbers that are in use now into the lock.
    ///
    /// # Errors
    /// When the lock may not change, and would.
    pub fn pin_ids(&mut self, ids: &Ids, locked: bool) -> Result<()> {
        let ids = lock::Ids { users: ids.users.clone(), groups: ids.groups.clone() };
        if ids == self.lock.ids {
            return Ok(());
        }
        if locked {
            bail!("{} does not fit the recipe: users or groups have changed; build once without --locked", self.path.display());
        }
        self.lock.ids = ids;
        self.changed = true;
        Ok(())
    }

    /// Writes the lock if it has changed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self) -> Result<()> {
        if self.changed {
            self.lock.write(&self.path)?;
        }
        Ok(())
    }
}

fn debian(recipe: &Recipe, sources: &Sources) -> Result<Debian> {
    let environment = std::env::var("GARBOARD_MIRROR").ok();
    let host = || mirror::host_sources(Path::new("/"));
    let mirror = Mirror::choose(sources.mirror.as_deref(), environment.as_deref(), recipe.packages.mirror.as_deref(), host);
    let mirror = match mirror {
        Err(mirror::MirrorError::None) => None,
        other => Some(other?),
    };
    let cache = match &sources.cache {
        Some(directory) => Cache::open(directory.clone())?,
        None => Cache::open_default()?,
    };
    Ok(Debian {
        mirror,
        keyring: Keyring::debian()?,
        cache,
        transport: Transport::new(),
        offline: sources.offline,
        allow_expired: recipe.packages.allow_expired.clone(),
        now: now(),
    })
}

/// Only for the expiry of release files; nothing of it reaches an output.
fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).map(|elapsed| elapsed.as_secs()).unwrap_or(0);
    i64::try_from(elapsed).unwrap_or(i64::MAX)
}

fn record(package: &Package) -> PackageRecord {
    let scripts: BTreeMap<String, Vec<u8>> = package.scripts.iter().map(|(name, script)| (name.clone(), script.bytes.clone())).collect();
    PackageRecord { name: package.locked.name.clone(), version: package.locked.version.clone(), control: package.control.clone(), scripts }
}

fn manifest_package(package: &Package, tree: &Tree) -> Result<ManifestPackage> {
    let locked = &package.locked;
    let licence = package.copyright.as_ref().and_then(|path| tree.file(path));
    let licence_sha256 = licence.map(Body::read).transpose().with_context(|| format!("cannot read the licence file of {}", locked.name))?;
    Ok(ManifestPackage {
        name: locked.name.clone(),
        version: locked.version.clone(),
        architecture: locked.architecture.clone(),
        sha256: locked.sha256.to_string(),
        path: locked.path.clone(),
        licence_file: package.copyright.clone(),
        licence_sha256: licence_sha256.map(|bytes| Sha256::of(&bytes).to_string()),
    })
}
