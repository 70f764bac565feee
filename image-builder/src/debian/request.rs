//! What a recipe asks of the archive, as data: the part of a recipe that a lock answers.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::recipe::Recipe;

/// Which packages, from where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageRequest {
    /// Debian architecture, for example `amd64`.
    pub architecture: String,
    /// Suite, for example `trixie`; its `-updates` are used too where there are any.
    pub suite: String,
    /// Archive areas.
    pub components: Vec<String>,
    /// Whether the suite's security updates are used where the mirror has them.
    pub security: bool,
    /// Whether `Recommends` are followed.
    pub recommends: bool,
    /// Packages to install, sorted.
    pub include: Vec<String>,
    /// Packages that are never installed; a dependency on one counts as satisfied. `*` stands for any text. Sorted.
    pub exclude: Vec<String>,
    /// Preferred provider by virtual name or alternative.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prefer: BTreeMap<String, String>,
    /// Single packages from another suite.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub from: BTreeMap<String, String>,
}

impl PackageRequest {
    /// What a recipe asks for, its kernel included.
    #[must_use]
    pub fn from_recipe(recipe: &Recipe, architecture: &str) -> Self {
        let packages = &recipe.packages;
        let kernel = Some(&recipe.kernel.package).filter(|name| !name.is_empty());
        let mut request = Self {
            architecture: architecture.to_owned(),
            suite: packages.suite.clone(),
            components: packages.components.clone(),
            security: packages.security,
            recommends: packages.recommends,
            include: packages.include.iter().chain(kernel).cloned().collect(),
            exclude: packages.exclude.clone(),
            prefer: packages.prefer.clone(),
            from: packages.from.clone(),
        };
        request.normalize();
        request
    }

    /// Sorts what has no order, so that a lock does not depend on how a recipe is written.
    pub fn normalize(&mut self) {
        for list in [&mut self.include, &mut self.exclude] {
            list.sort();
            list.dedup();
        }
    }

    /// A sum over the request, for keys of caches.
    #[must_use]
    pub fn digest(&self) -> Sha256 {
        // Field order and sorted maps make the text the same for the same request.
        Sha256::of(serde_json::to_string(self).unwrap_or_default().as_bytes())
    }

    /// Whether a package may never be installed.
    #[must_use]
    pub fn excludes(&self, name: &str) -> bool {
        self.exclude.iter().any(|pattern| matches(pattern, name))
    }

    /// How `self` differs from an older request, in words.
    #[must_use]
    pub fn differences(&self, old: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let mut value = |what: &str, new: &dyn Debug, old: &dyn Debug| {
            let (new, old) = (format!("{new:?}"), format!("{old:?}"));
            if new != old {
                differences.push(format!("{what} was {old} and is {new}"));
            }
        };
        value("architecture", &self.architecture, &old.architecture);
        value("suite", &self.suite, &old.suite);
        value("components", &self.components, &old.components);
        value("security", &self.security, &old.security);
        value("recommends", &self.recommends, &old.recommends);
        value("prefer", &self.prefer, &old.prefer);
        value("from", &self.from, &old.from);
        for (what, new, old) in [("include", &self.include, &old.include), ("exclude", &self.exclude, &old.exclude)] {
            differences.extend(new.iter().filter(|name| !old.contains(name)).map(|name| format!("{what} has '{name}' more")));
            differences.extend(old.iter().filter(|name| !new.contains(name)).map(|name| format!("{what} has '{name}' no more")));
        }
        differences
    }
}

/// Whether a name matches a pattern in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| name.get(at..).is_some_and(|tail| matches(rest, tail)))
        }),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn request(include: &[&str]) -> PackageRequest {
        PackageRequest {
            architecture: "amd64".to_owned(),
            suite: "trixie".to_owned(),
            components: vec!["main".to_owned()],
            security: false,
            recommends: false,
            include: include.iter().map(|&name| name.to_owned()).collect(),
            exclude: Vec::new(),
            prefer: BTreeMap::new(),
            from: BTreeMap::new(),
        }
    }

    #[test]
    fn patterns() {
        assert!(matches("perl*", "perl-base") && matches("perl*", "perl") && !matches("perl*", "libperl"));
        assert!(matches("lib*-perl", "libfoo-perl") && !matches("lib*-perl", "libfoo") && matches("a", "a"));
    }

    #[test]
    fn says_what_changed() {
        let (old, mut new) = (request(&["bash", "sudo"]), request(&["bash", "vim"]));
        new.suite = "forky".to_owned();
        assert_eq!(
            new.differences(&old),
            ["suite was \"trixie\" and is \"forky\"", "include has 'vim' more", "include has 'sudo' no more"]
        );
        assert_ne!(new.digest(), old.digest());
    }
}
