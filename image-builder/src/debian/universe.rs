//! All packages that may be chosen: the indexes of the suites in use. As with apt, a name has one candidate: the newest
//! of the recipe's suite, its updates and its security updates, or what `from` takes from another suite.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::packages::{Index, Package};
use super::version;
use crate::digest::Sha256;

/// Which archive of a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Archive {
    /// The mirror itself.
    Debian,
    /// `debian-security` beside it.
    Security,
}

/// A suite with its packages.
#[derive(Debug)]
pub struct Suite {
    /// Its name, for example `trixie-updates`.
    pub name: String,
    /// Where it is.
    pub archive: Archive,
    /// Its release file's date.
    pub date: i64,
    /// Sum of its release file.
    pub inrelease: Sha256,
    /// Its packages.
    pub indexes: Vec<Index>,
    /// Whether only `from` may take packages from it.
    pub only_named: bool,
}

impl Suite {
    fn newest(&self, name: &str) -> Option<Package<'_>> {
        self.indexes.iter().filter_map(|index| index.newest(name)).max_by(|a, b| version::compare(a.version, b.version))
    }
}

/// The suites in use.
#[derive(Debug)]
pub struct Universe {
    /// In order of preference at equal versions.
    pub suites: Vec<Suite>,
    /// Package to suite.
    pub from: BTreeMap<String, String>,
}

/// A package and the number of its suite.
pub type Candidate<'a> = (Package<'a>, usize);

impl Universe {
    /// The package that a name stands for.
    #[must_use]
    pub fn candidate(&self, name: &str) -> Option<Candidate<'_>> {
        let from = self.from.get(name);
        let mut best: Option<Candidate<'_>> = None;
        for (number, suite) in self.suites.iter().enumerate() {
            let usable = from.map_or(!suite.only_named, |wanted| *wanted == suite.name);
            let Some(found) = usable.then(|| suite.newest(name)).flatten() else { continue };
            if best.as_ref().is_none_or(|(package, _)| version::compare(found.version, package.version).is_gt()) {
                best = Some((found, number));
            }
        }
        best
    }

    /// Candidates that provide a virtual name, the likeliest first: by priority, then by name.
    #[must_use]
    pub fn providers(&self, name: &str) -> Vec<Candidate<'_>> {
        let mut found: Vec<Candidate<'_>> = Vec::new();
        for (number, suite) in self.suites.iter().enumerate() {
            for package in suite.indexes.iter().flat_map(|index| index.providers(name)) {
                let is_candidate =
                    self.candidate(package.name).is_some_and(|(best, suite)| (best.version, suite) == (package.version, number));
                if is_candidate && !found.iter().any(|(there, _)| there.name == package.name) {
                    found.push((package, number));
                }
            }
        }
        found.sort_by_key(|(package, _)| (!package.essential, priority(package.priority), package.name));
        found
    }

    /// The suite's name of a candidate.
    #[must_use]
    pub fn suite_name(&self, number: usize) -> &str {
        self.suites.get(number).map_or("?", |suite| &suite.name)
    }

    /// Names of the suites in use, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        self.suites.iter().filter(|suite| !suite.only_named).map(|suite| suite.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Names that look like one that does not exist, the likeliest first.
    #[must_use]
    pub fn similar(&self, name: &str) -> Vec<String> {
        let names = self.suites.iter().flat_map(|suite| &suite.indexes).flat_map(Index::names);
        let mut scored: Vec<(u32, &str)> = names
            .filter(|other| other.len().abs_diff(name.len()) <= 3 || other.starts_with(name))
            .filter_map(|other| {
                // Swapped letters count once, as they do for a reader.
                let distance = if other.starts_with(name) { 2 } else { strsim::osa_distance(name, other) };
                let near = distance <= 1 + name.len() / 5;
                near.then(|| (u32::try_from(distance).unwrap_or(u32::MAX), other))
            })
            .collect();
        scored.sort_unstable();
        scored.dedup();
        scored.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
    }
}

fn priority(name: &str) -> u8 {
    match name {
        "required" => 0,
        "important" => 1,
        "standard" => 2,
        "optional" => 3,
        _ => 4,
    }
}
