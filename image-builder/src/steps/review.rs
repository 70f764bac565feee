//! The review of maintainer scripts: which of them a person has read, and what stands in for each. No script is ever
//! run, so one that nobody has read may mean something that the image lacks.
//!
//! Kernel packages have their version in their name and in their scripts. Their entry has `*` for it in its name, and its
//! hashes are those of the scripts with the same text replaced by `*`: a new kernel whose scripts are otherwise the same
//! needs no new review.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use thiserror::Error;

use super::PackageRecord;
use crate::digest::Sha256;

/// The shortest kernel version that is taken for one, as in `6.12`.
const MIN_VERSION: usize = 4;
/// What was read, shipped with the builder.
const TABLE: &str = include_str!("../../review.toml");
/// What runs when a package is installed for the first time. `prerm` and `postrm` never do: nothing is ever removed.
const RUN_AT_INSTALLATION: &[&str] = &["config", "preinst", "postinst", "triggers"];

/// The verdict on one package's scripts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Script name to `sha256:` and the hash of the text that was read.
    pub scripts: BTreeMap<String, String>,
    /// What they do, and what stands in for it or why nothing has to.
    pub verdict: String,
}

/// All verdicts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    #[serde(default)]
    common: Common,
    #[serde(default)]
    package: BTreeMap<String, Verdict>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Common {
    triggers: BTreeSet<String>,
}

/// The table that is shipped cannot be read: a mistake of ours, found by the tests.
#[derive(Debug, Error)]
#[error("the builder's own review.toml is broken: {0}")]
pub struct TableError(#[from] toml::de::Error);

/// A script that nobody has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The script.
    pub script: String,
    /// Name of the table's entry: the package's own, or a pattern.
    pub entry: String,
    /// Hash of the text that was read, if there is one.
    pub known: Option<String>,
    /// Hash of the text that is there, in hexadecimal, as the entry would have it.
    pub found: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { package, version, script, entry, .. } = self;
        let what = if self.known.is_some() { "has changed since it was reviewed" } else { "has not been reviewed" };
        write!(f, "the script {script} of {package} {version} {what}: it is not run, so read it and add [review.\"{entry}\"] to the recipe")
    }
}

/// The shipped table.
///
/// # Errors
/// When it is broken.
pub fn table() -> Result<Table, TableError> {
    Ok(toml::from_str(TABLE)?)
}

impl Table {
    /// Adds a recipe's own verdicts, which replace the shipped one of the same package.
    #[must_use]
    pub fn with(mut self, verdicts: impl IntoIterator<Item = (String, Verdict)>) -> Self {
        self.package.extend(verdicts);
        self
    }

    /// Everything that is new or has changed, by package.
    #[must_use]
    pub fn findings(&self, packages: &[PackageRecord]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for package in packages {
            let entry = self.entry(&package.name);
            for (script, text) in package.scripts.iter().filter(|(script, _)| RUN_AT_INSTALLATION.contains(&script.as_str())) {
                let found = hash(text, entry.as_ref().and_then(|entry| entry.version));
                let known = entry.as_ref().and_then(|entry| entry.verdict.scripts.get(script)).map(|hash| bare(hash).to_owned());
                let common = script == "triggers" && self.common.triggers.iter().any(|hash| bare(hash) == found);
                if known.as_ref() != Some(&found) && !common {
                    let (package, version) = (package.name.clone(), package.version.clone());
                    let entry = entry.as_ref().map_or(package.as_str(), |entry| entry.name).to_owned();
                    findings.push(Finding { package, version, script: script.clone(), entry, known, found });
                }
            }
        }
        findings
    }

    /// The entry for a package: under its name, or else the longest pattern that matches it.
    fn entry<'a>(&'a self, package: &'a str) -> Option<TableEntry<'a>> {
        if let Some((name, verdict)) = self.package.get_key_value(package) {
            return Some(TableEntry { name, verdict, version: None });
        }
        let matching = self.package.iter().filter_map(|(name, verdict)| {
            let version = version_in(name, package)?;
            Some(TableEntry { name, verdict, version: Some(version) })
        });
        matching.max_by_key(|entry| entry.name.len())
    }
}

/// What the table has for a package.
struct TableEntry<'a> {
    name: &'a str,
    verdict: &'a Verdict,
    /// What stands in the package's name for the `*` of the entry's.
    version: Option<&'a str>,
}

/// The part of a package's name that `*` stands for in a pattern. It has to begin with a digit, as versions do: anything
/// shorter or less special would be found in scripts where it means something else.
fn version_in<'a>(pattern: &str, package: &'a str) -> Option<&'a str> {
    let (before, after) = pattern.split_once('*')?;
    let version = package.strip_prefix(before)?.strip_suffix(after)?;
    (version.len() >= MIN_VERSION && version.starts_with(|c: char| c.is_ascii_digit())).then_some(version)
}

/// Hash of a script, with a version in it replaced by `*`.
fn hash(script: &[u8], version: Option<&str>) -> String {
    let Some(version) = version.filter(|version| !version.is_empty()) else { return Sha256::of(script).to_string() };
    let mut text = Vec::with_capacity(script.len());
    let mut rest = script;
    while let Some(at) = memchr::memmem::find(rest, version.as_bytes()) {
        let (before, after) = rest.split_at(at);
        text.extend_from_slice(before);
        text.push(b'*');
        rest = after.get(version.len()..).unwrap_or_default();
    }
    text.extend_from_slice(rest);
    Sha256::of(&text).to_string()
}

/// Recipe text that accepts the findings, with the verdicts left to be written.
#[must_use]
pub fn suggestion(findings: &[Finding]) -> String {
    let mut by_package: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for finding in findings {
        by_package.entry(&finding.entry).or_default().push(format!("{} = \"sha256:{}\"", finding.script, finding.found));
    }
    let entry = |(package, scripts): (&str, Vec<String>)| {
        format!("[review.\"{package}\"]\nscripts = {{ {} }}\nverdict = \"\"\n", scripts.join(", "))
    };
    by_package.into_iter().map(entry).collect::<Vec<_>>().join("\n")
}

fn bare(hash: &str) -> &str {
    hash.strip_prefix("sha256:").unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, scripts: &[(&str, &str)]) -> PackageRecord {
        let scripts = scripts.iter().map(|&(name, text)| (name.to_owned(), text.as_bytes().to_vec())).collect();
        PackageRecord { name: name.into(), version: "1".into(), scripts, ..PackageRecord::default() }
    }

    fn small() -> Table {
        let sum = |text: &str| Sha256::of(text.as_bytes());
        let text = format!(
            "[common]\ntriggers = ['sha256:{}']\n[package.a]\nscripts = {{ postinst = 'sha256:{}' }}\nverdict = 'v'\n\
             [package.'linux-*-cloud']\nscripts = {{ postinst = 'sha256:{}' }}\nverdict = 'v'\n",
            sum("activate ldconfig\n"),
            sum("enable a\n"),
            sum("version=*-cloud\ndepmod *-cloud\n"),
        );
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn what_was_read_is_no_finding() {
        let packages = [package("a", &[("postinst", "enable a\n"), ("postrm", "rm -rf /\n"), ("triggers", "activate ldconfig\n")])];
        assert_eq!(small().findings(&packages), []);
    }

    #[test]
    fn a_new_kernel_with_the_same_scripts_needs_no_review_and_a_changed_script_does() {
        let kernel = |version: &str, more: &str| {
            package(&format!("linux-{version}-cloud"), &[("postinst", &format!("version={version}-cloud\ndepmod {version}-cloud\n{more}"))])
        };
        assert_eq!(small().findings(&[kernel("6.12.57+deb13", ""), kernel("6.12.117+deb13", ""), kernel("7.0.1", "")]), []);
        let changed = small().findings(&[kernel("6.12.117+deb13", "curl evil\n")]);
        assert_eq!((changed.len(), changed[0].entry.as_str()), (1, "linux-*-cloud"));
        assert!(suggestion(&changed).starts_with("[review.\"linux-*-cloud\"]\n"));
        // What another version's script says is not hidden by this one's placeholder, and a name is not a version.
        assert_eq!(
            small().findings(&[package("linux-6.12.57-cloud", &[("postinst", "version=6.12.58-cloud\ndepmod 6.12.58-cloud\n")])]).len(),
            1
        );
        assert_eq!(
            small().findings(&[package("linux-depmod-cloud", &[("postinst", "version=depmod-cloud\ndepmod depmod-cloud\n")])]).len(),
            1
        );
    }

    #[test]
    fn new_and_changed_scripts_are_named_with_a_suggestion() {
        let packages = [package("a", &[("postinst", "3"), ("preinst", "4")]), package("b", &[("triggers", "5")])];
        let findings = small().findings(&packages);
        let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(text[0].starts_with("the script postinst of a 1 has changed"), "{text:?}");
        assert!(text[1].starts_with("the script preinst of a 1 has not been"), "{text:?}");
        let suggested = suggestion(&findings);
        let expected = format!(
            "[review.\"a\"]\nscripts = {{ postinst = \"sha256:{}\", preinst = \"sha256:{}\" }}\n",
            Sha256::of(b"3"),
            Sha256::of(b"4")
        );
        assert!(suggested.contains(&expected), "{suggested}");
        #[derive(Deserialize)]
        struct Recipe {
            review: BTreeMap<String, Verdict>,
        }
        let recipe: Recipe = toml::from_str(&suggested).unwrap();
        assert_eq!(small().with(recipe.review).findings(&packages), []);
    }

    #[test]
    fn the_shipped_table_has_a_verdict_for_each_entry() {
        let table = table().unwrap();
        assert!(table.package.len() > 40);
        for (name, verdict) in &table.package {
            assert!(!verdict.verdict.is_empty() && !verdict.scripts.is_empty(), "{name}");
            assert!(verdict.scripts.values().all(|hash| hash.len() == 7 + 64 && hash.starts_with("sha256:")), "{name}");
            assert!(verdict.scripts.keys().all(|script| RUN_AT_INSTALLATION.contains(&script.as_str())), "{name}");
        }
    }
}
