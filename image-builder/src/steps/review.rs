//! The review of maintainer scripts: which of them a person has read, and what stands in for each. No script is ever
//! run, so one that nobody has read may mean something that the image lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use thiserror::Error;

use super::PackageRecord;
use super::files::matches;

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
    /// Hash of the text that was read, if there is one.
    pub known: Option<String>,
    /// Hash of the text that is there, in hexadecimal.
    pub found: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { package, version, script, .. } = self;
        let what = if self.known.is_some() { "has changed since it was reviewed" } else { "has not been reviewed" };
        write!(
            f,
            "the script {script} of {package} {version} {what}: it is not run, so read it and add [review.\"{package}\"] to the recipe"
        )
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
            for (script, found) in package.scripts.iter().filter(|(script, _)| RUN_AT_INSTALLATION.contains(&script.as_str())) {
                let found = bare(found);
                let known = self.verdict(&package.name).and_then(|verdict| verdict.scripts.get(script)).map(|hash| bare(hash).to_owned());
                let common = script == "triggers" && self.common.triggers.iter().any(|hash| bare(hash) == found);
                if known.as_deref() != Some(found) && !common {
                    let (package, version) = (package.name.clone(), package.version.clone());
                    findings.push(Finding { package, version, script: script.clone(), known, found: found.to_owned() });
                }
            }
        }
        findings
    }

    /// The verdict on a package: under its name, or under a pattern that matches it.
    #[must_use]
    pub fn verdict(&self, package: &str) -> Option<&Verdict> {
        let pattern = || self.package.iter().find(|(name, _)| name.contains('*') && matches(name, package)).map(|(_, verdict)| verdict);
        self.package.get(package).or_else(pattern)
    }
}

/// Recipe text that accepts the findings, with the verdicts left to be written.
#[must_use]
pub fn suggestion(findings: &[Finding]) -> String {
    let mut by_package: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for finding in findings {
        by_package.entry(&finding.package).or_default().push(format!("{} = \"sha256:{}\"", finding.script, finding.found));
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
        let scripts = scripts.iter().map(|&(name, hash)| (name.to_owned(), hash.to_owned())).collect();
        PackageRecord { name: name.into(), version: "1".into(), scripts, ..PackageRecord::default() }
    }

    fn small() -> Table {
        let text = "[common]\ntriggers = ['sha256:t']\n[package.a]\nscripts = { postinst = 'sha256:1' }\nverdict = 'v'\n\
                    [package.'linux-*']\nscripts = { postinst = 'sha256:2' }\nverdict = 'v'\n";
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_was_read_is_no_finding() {
        let packages = [package("a", &[("postinst", "1"), ("postrm", "9"), ("triggers", "t")]), package("linux-6", &[("postinst", "2")])];
        assert_eq!(small().findings(&packages), []);
    }

    #[test]
    fn new_and_changed_scripts_are_named_with_a_suggestion() {
        let packages = [package("a", &[("postinst", "3"), ("preinst", "4")]), package("b", &[("triggers", "5")])];
        let findings = small().findings(&packages);
        let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(text[0].starts_with("the script postinst of a 1 has changed"), "{text:?}");
        assert!(text[1].starts_with("the script preinst of a 1 has not been"), "{text:?}");
        let suggested = suggestion(&findings);
        assert!(suggested.contains("[review.\"a\"]\nscripts = { postinst = \"sha256:3\", preinst = \"sha256:4\" }\n"), "{suggested}");
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
