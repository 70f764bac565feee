//! `RECIPE.lock`: the answer to a [`PackageRequest`], to be committed beside the recipe. A build that has one reads no
//! package index. TOML in a fixed order, one package after the other, so that a change reads well as a diff.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::request::PackageRequest;
use super::universe::Archive;
use crate::digest::Sha256;
use crate::whole_file;

/// The format of lock files that this program writes.
const SCHEMA: u32 = 1;

const HEADER: &str = "# Written by `garboard lock`; commit it beside the recipe. To take newer packages, run that again.\n\n";

/// Why a lock cannot be used.
#[derive(Debug, Error)]
pub enum LockError {
    /// It cannot be read or written.
    #[error("{act} {}: {source}", path.display())]
    Io {
        /// What failed.
        act: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a lock file.
    #[error("{} is not a lock file of this program: {reason}; run `garboard lock RECIPE` to write it anew", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The recipe asks for something else than when it was locked.
    #[error("{} does not fit the recipe: {}; run `garboard lock RECIPE`, or build without --locked", path.display(), differences.join(", "))]
    Drift {
        /// Which file.
        path: PathBuf,
        /// What is different.
        differences: Vec<String>,
    },
    /// There is none, and `--locked` wants one.
    #[error("{} is missing, and --locked needs it; run `garboard lock RECIPE`", .0.display())]
    Missing(PathBuf),
}

/// A lock file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    schema: u32,
    /// What was asked.
    pub request: PackageRequest,
    /// User and group ids that steps made up, pinned because state on hosts outlives an image.
    #[serde(default)]
    pub ids: Ids,
    /// The suites that answered.
    #[serde(rename = "suite", default)]
    pub suites: Vec<LockedSuite>,
    /// The packages, by name.
    #[serde(rename = "package", default)]
    pub packages: Vec<LockedPackage>,
}

/// Pinned ids by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ids {
    /// Users.
    #[serde(default)]
    pub users: BTreeMap<String, u32>,
    /// Groups.
    #[serde(default)]
    pub groups: BTreeMap<String, u32>,
}

/// A suite as it was when the lock was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedSuite {
    /// For example `trixie-updates`.
    pub name: String,
    /// Where it is.
    pub archive: Archive,
    /// Its release file's date.
    pub date: String,
    /// Sum of its signed release file.
    pub inrelease: Sha256,
}

/// A package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, which may be `all`.
    pub architecture: String,
    /// The suite it came from, one of [`Lock::suites`].
    pub suite: String,
    /// Path below the archive.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Sum.
    pub sha256: Sha256,
    /// Sums of its maintainer scripts and of its triggers file, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scripts: BTreeMap<String, Sha256>,
}

impl Lock {
    /// A new lock without ids.
    #[must_use]
    pub fn new(request: PackageRequest, suites: Vec<LockedSuite>, packages: Vec<LockedPackage>) -> Self {
        Self { schema: SCHEMA, request, ids: Ids::default(), suites, packages }
    }

    /// Where a recipe's lock is: `base.toml` has `base.lock`.
    #[must_use]
    pub fn path(recipe: &Path) -> PathBuf {
        recipe.with_extension("lock")
    }

    /// Reads a lock file; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or is no lock file.
    pub fn read(path: &Path) -> Result<Option<Self>, LockError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LockError::Io { act: "reading", path: path.to_owned(), source }),
        };
        Self::parse(&text).map(Some).map_err(|reason| LockError::Malformed { path: path.to_owned(), reason })
    }

    fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Versioned {
            schema: u32,
        }
        let one_line = |error: toml::de::Error| {
            let line = error.span().map(|span| text.get(..span.start).unwrap_or_default().lines().count().max(1));
            let line = line.map(|line| format!(" in line {line}")).unwrap_or_default();
            format!("{}{line}", error.message().replace('\n', " "))
        };
        // The schema first: a newer file must not be called malformed for a field that is new.
        let Versioned { schema } = toml::from_str(text).map_err(one_line)?;
        if schema != SCHEMA {
            return Err(format!("its schema is {schema}, this program knows {SCHEMA}"));
        }
        toml::from_str(text).map_err(one_line)
    }

    /// The file's text.
    ///
    /// # Errors
    /// Never for a lock that this program made.
    pub fn to_text(&self) -> Result<String, toml::ser::Error> {
        Ok(format!("{HEADER}{}", toml::to_string_pretty(self)?))
    }

    /// Writes the file at once.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), LockError> {
        let fail = |source| LockError::Io { act: "writing", path: path.to_owned(), source };
        let text = self.to_text().map_err(|error| fail(io::Error::other(error)))?;
        whole_file::write(path, text.as_bytes()).map_err(fail)
    }

    /// Whether it answers a request; otherwise what is different.
    ///
    /// # Errors
    /// With the differences.
    pub fn check(&self, request: &PackageRequest, path: &Path) -> Result<(), LockError> {
        if *request == self.request {
            return Ok(());
        }
        Err(LockError::Drift { path: path.to_owned(), differences: request.differences(&self.request) })
    }

    /// The archive that a package comes from.
    #[must_use]
    pub fn archive(&self, package: &LockedPackage) -> Archive {
        self.suites.iter().find(|suite| suite.name == package.suite).map_or(Archive::Debian, |suite| suite.archive)
    }

    /// A package by name.
    #[must_use]
    pub fn package(&self, name: &str) -> Option<&LockedPackage> {
        self.packages.iter().find(|package| package.name == name)
    }

    /// What is different from an older lock, one line a package: added, removed, or another version.
    #[must_use]
    pub fn changes(&self, old: &Self) -> Vec<String> {
        let mut names: Vec<&str> = self.packages.iter().chain(&old.packages).map(|package| package.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let change = |name: &str| match (old.package(name), self.package(name)) {
            (None, Some(new)) => Some(format!("{name} {} (new)", new.version)),
            (Some(old), None) => Some(format!("{name} {} (removed)", old.version)),
            (Some(old), Some(new)) if old.version != new.version => Some(format!("{name} {} -> {}", old.version, new.version)),
            (Some(old), Some(new)) if old.sha256 != new.sha256 => Some(format!("{name} {} (other bytes)", new.version)),
            _ => None,
        };
        names.into_iter().filter_map(change).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::request;
    use super::*;

    fn lock() -> Lock {
        let suite = LockedSuite {
            name: "trixie".to_owned(),
            archive: Archive::Debian,
            date: "2026-09-12T07:55:41Z".to_owned(),
            inrelease: Sha256::of(b"r"),
        };
        let package = LockedPackage {
            name: "bash".to_owned(),
            version: "5.2".to_owned(),
            architecture: "amd64".to_owned(),
            suite: "trixie".to_owned(),
            path: "pool/main/b/bash/bash_5.2_amd64.deb".to_owned(),
            size: 7,
            sha256: Sha256::of(b"deb"),
            scripts: BTreeMap::from([("postinst".to_owned(), Sha256::of(b"p"))]),
        };
        let mut lock = Lock::new(request(&["bash"]), vec![suite], vec![package]);
        lock.ids.users.insert("_ssh".to_owned(), 101);
        lock
    }

    #[test]
    fn reads_back_what_it_writes() {
        let directory = tempfile::tempdir().unwrap();
        let path = Lock::path(&directory.path().join("base.toml"));
        assert!(Lock::read(&path).unwrap().is_none());
        lock().write(&path).unwrap();
        assert_eq!(Lock::read(&path).unwrap(), Some(lock()));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# Written by") && text.contains("[[package]]\nname = \"bash\"\n"), "{text}");
    }

    #[test]
    fn drift_names_what_changed() {
        let error = lock().check(&request(&["bash", "vim"]), Path::new("base.lock")).unwrap_err().to_string();
        assert!(error.contains("include has 'vim' more") && error.contains("garboard lock"), "{error}");
        assert!(lock().check(&request(&["bash"]), Path::new("base.lock")).is_ok());
    }

    #[test]
    fn other_schemas_and_damage_are_refused_in_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.lock");
        for text in ["schema = 2\nfoo = 1\n", "schema = 1\n", "<<<<<<< HEAD\n"] {
            fs::write(&path, text).unwrap();
            let error = Lock::read(&path).unwrap_err().to_string();
            assert!(error.contains("garboard lock RECIPE") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn lists_changes_by_package() {
        let mut new = lock();
        new.packages[0].version = "5.3".to_owned();
        assert_eq!(new.changes(&lock()), ["bash 5.2 -> 5.3"]);
    }
}
