//! A suite's package index: only the fields that resolving and fetching need are kept, as text, and a paragraph is
//! parsed when its package is looked at. The kept text is what the cache holds, so reading it back is the same code.

use std::cmp::Ordering;
use std::ops::Range;

use super::deb822;
use super::dependency::{Clause, Relation, clauses, relation};
use super::version;
use crate::digest::Sha256;

/// Fields that survive [`trim`].
const KEPT: [&str; 16] = [
    "Package",
    "Source",
    "Version",
    "Architecture",
    "Multi-Arch",
    "Essential",
    "Priority",
    "Pre-Depends",
    "Depends",
    "Recommends",
    "Provides",
    "Conflicts",
    "Breaks",
    "Filename",
    "Size",
    "SHA256",
];

/// Cuts an index down to the fields that are needed.
#[must_use]
pub fn trim(text: &str) -> String {
    let mut kept = String::with_capacity(text.len() / 2);
    for paragraph in deb822::paragraphs(text) {
        let mut rest = paragraph;
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest.as_bytes()).map_or(rest.len(), |at| at + 1);
            let Some((line, after)) = rest.split_at_checked(end) else { break };
            rest = after;
            if line.split_once(':').is_some_and(|(name, _)| KEPT.contains(&name)) {
                kept.push_str(line);
            }
        }
        kept.push('\n');
    }
    kept
}

/// One paragraph of an index.
#[derive(Clone, Copy, Debug, Default)]
pub struct Package<'a> {
    /// `Package`
    pub name: &'a str,
    /// `Version`
    pub version: &'a str,
    /// `Architecture`
    pub architecture: &'a str,
    /// `Multi-Arch: allowed`, so that `name:any` accepts it.
    pub any_allowed: bool,
    /// `Essential: yes`
    pub essential: bool,
    /// `Priority`
    pub priority: &'a str,
    /// `Source`, where it differs from the name.
    pub source: &'a str,
    /// `Filename`: path below the mirror.
    pub path: &'a str,
    /// `Size`
    pub size: u64,
    /// `SHA256`
    pub sha256: Option<Sha256>,
    pre_depends: &'a str,
    depends: &'a str,
    recommends: &'a str,
    provides: &'a str,
    conflicts: &'a str,
    breaks: &'a str,
}

impl<'a> Package<'a> {
    fn parse(paragraph: &'a str) -> Self {
        let mut package = Self::default();
        for (name, value) in deb822::fields(paragraph) {
            match name {
                "Package" => package.name = value,
                "Version" => package.version = value,
                "Architecture" => package.architecture = value,
                "Multi-Arch" => package.any_allowed = value == "allowed",
                "Essential" => package.essential = value == "yes",
                "Priority" => package.priority = value,
                "Source" => package.source = value,
                "Filename" => package.path = value,
                "Size" => package.size = value.parse().unwrap_or(0),
                "SHA256" => package.sha256 = value.parse().ok(),
                "Pre-Depends" => package.pre_depends = value,
                "Depends" => package.depends = value,
                "Recommends" => package.recommends = value,
                "Provides" => package.provides = value,
                "Conflicts" => package.conflicts = value,
                "Breaks" => package.breaks = value,
                _ => {}
            }
        }
        package
    }

    /// What must be installed with it: `Pre-Depends` and `Depends`.
    pub fn depends(&self, architecture: &str) -> impl Iterator<Item = Clause<'a>> {
        clauses(self.pre_depends, architecture).chain(clauses(self.depends, architecture))
    }

    /// What should be.
    pub fn recommends(&self, architecture: &str) -> impl Iterator<Item = Clause<'a>> {
        clauses(self.recommends, architecture)
    }

    /// What must not be: `Conflicts` and `Breaks`.
    pub fn conflicts(&self, architecture: &str) -> impl Iterator<Item = Relation<'a>> {
        clauses(self.conflicts, architecture).chain(clauses(self.breaks, architecture)).flatten()
    }

    /// Virtual names that it stands for, with the version for which it does.
    pub fn provides(&self) -> impl Iterator<Item = Relation<'a>> {
        self.provides.split(',').filter_map(|part| relation(part, ""))
    }

    /// Whether it satisfies a relation, under its own name or one that it provides.
    #[must_use]
    pub fn satisfies(&self, wanted: &Relation<'_>) -> bool {
        let qualified = match wanted.qualifier {
            None | Some("native") => true,
            Some("any") => self.any_allowed,
            Some(architecture) => architecture == self.architecture,
        };
        if !qualified {
            return false;
        }
        if self.name == wanted.name {
            return wanted.accepts(self.version);
        }
        self.provides().any(|provided| {
            provided.name == wanted.name
                && (wanted.version.is_none() || provided.version.is_some_and(|(_, version)| wanted.accepts(version)))
        })
    }
}

/// An index with its lookup tables.
#[derive(Debug)]
pub struct Index {
    text: String,
    paragraphs: Vec<Range<usize>>,
    by_name: Vec<(Range<usize>, u32)>,
    by_provided: Vec<(Range<usize>, u32)>,
}

impl Index {
    /// Builds the tables over an index, trimmed or not.
    #[must_use]
    pub fn new(text: String) -> Self {
        let mut index = Self { text, paragraphs: Vec::new(), by_name: Vec::new(), by_provided: Vec::new() };
        let base = index.text.as_ptr() as usize;
        // All slices below are parts of `text`, so their addresses are offsets into it.
        let range = |part: &str| {
            let start = part.as_ptr() as usize - base;
            start..start + part.len()
        };
        for paragraph in deb822::paragraphs(&index.text) {
            let Ok(number) = u32::try_from(index.paragraphs.len()) else { break };
            for (name, value) in deb822::fields(paragraph) {
                match name {
                    "Package" => index.by_name.push((range(value), number)),
                    "Provides" => {
                        let provided = value.split(',').filter_map(|part| relation(part, ""));
                        index.by_provided.extend(provided.map(|provided| (range(provided.name), number)));
                    }
                    _ => {}
                }
            }
            index.paragraphs.push(range(paragraph));
        }
        let text = &index.text;
        let order =
            |a: &(Range<usize>, u32), b: &(Range<usize>, u32)| text.get(a.0.clone()).cmp(&text.get(b.0.clone())).then(a.1.cmp(&b.1));
        index.by_name.sort_unstable_by(order);
        index.by_provided.sort_unstable_by(order);
        index
    }

    /// The newest package of a name.
    #[must_use]
    pub fn newest(&self, name: &str) -> Option<Package<'_>> {
        self.lookup(&self.by_name, name).max_by(|a, b| version::compare(a.version, b.version))
    }

    /// Packages that provide a name.
    pub fn providers<'a>(&'a self, name: &str) -> impl Iterator<Item = Package<'a>> {
        self.lookup(&self.by_provided, name)
    }

    /// All package names, sorted, a name once for each version.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.iter().filter_map(|(range, _)| self.text.get(range.clone()))
    }

    /// Number of packages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.paragraphs.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paragraphs.is_empty()
    }

    fn lookup<'a>(&'a self, table: &'a [(Range<usize>, u32)], name: &str) -> impl Iterator<Item = Package<'a>> {
        let compare = |entry: &(Range<usize>, u32)| self.text.get(entry.0.clone()).unwrap_or_default().cmp(name);
        let start = table.partition_point(|entry| compare(entry) == Ordering::Less);
        let end = table.partition_point(|entry| compare(entry) != Ordering::Greater);
        table
            .get(start..end)
            .unwrap_or_default()
            .iter()
            .filter_map(|(_, number)| self.text.get(self.paragraphs.get(*number as usize)?.clone()))
            .map(Package::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Package: mawk\nVersion: 1.3\nArchitecture: amd64\nDescription: text\n more\nProvides: awk\nTag: a,\n b\n\n\
        Package: gawk\nVersion: 1:5\nArchitecture: amd64\nMulti-Arch: allowed\nProvides: awk (= 5), x\nDepends: libc6 (>= 2), a | b\n\n\
        Package: mawk\nVersion: 1.10\nArchitecture: amd64\n";

    #[test]
    fn trims_to_what_is_needed() {
        let kept = trim(TEXT);
        assert!(kept.contains("Provides: awk\n") && !kept.contains("Description") && !kept.contains("more") && !kept.contains("Tag"));
        assert_eq!(Index::new(kept).len(), 3);
    }

    #[test]
    fn finds_the_newest_and_the_providers() {
        let index = Index::new(trim(TEXT));
        assert_eq!(index.newest("mawk").unwrap().version, "1.10");
        assert!(index.newest("nawk").is_none());
        let providers: Vec<&str> = index.providers("awk").map(|package| package.name).collect();
        assert_eq!(providers, ["mawk", "gawk"]);
    }

    #[test]
    fn versioned_relations_need_versioned_provides() {
        let index = Index::new(trim(TEXT));
        let (gawk, mawk) = (index.newest("gawk").unwrap(), index.providers("awk").next().unwrap());
        let wanted = |text| relation(text, "amd64").unwrap();
        assert!(gawk.satisfies(&wanted("awk (>= 4)")) && gawk.satisfies(&wanted("gawk:any")));
        assert!(mawk.satisfies(&wanted("awk")) && !mawk.satisfies(&wanted("awk (>= 1)")) && !mawk.satisfies(&wanted("mawk:any")));
    }
}
