//! What is in the unit directories: which file each name means, where its drop-ins are, what is linked into
//! `.wants/` and its siblings. Read once, so that loading a unit opens only files that exist.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::diagnostic::{Diagnostic, Location, Severity};
use crate::memory::join_link;
use crate::name::UnitName;
use crate::source::{EntryKind, UnitSource};
use crate::unit::DependencyKind;

/// What a name's winning file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitFile {
    /// A file of its own, or a link to a file elsewhere.
    Fragment(String),
    /// A link to `/dev/null`: path of the link.
    Masked(String),
    /// A link to another unit: path of the link, and that unit.
    Alias(String, UnitName),
}

impl UnitFile {
    /// Where the file or link is.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Fragment(path) | Self::Masked(path) | Self::Alias(path, _) => path,
        }
    }
}

/// The directories that hang on a unit's name: suffix and the dependency that an entry means.
pub const LINK_DIRECTORIES: [(&str, DependencyKind); 3] =
    [("wants", DependencyKind::Wants), ("requires", DependencyKind::Requires), ("upholds", DependencyKind::Upholds)];

/// A link in a `.wants/` directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DependencyLink {
    /// The unit that it names.
    pub name: UnitName,
    /// Which dependency it makes.
    pub kind: DependencyKind,
    /// Where it is.
    pub path: String,
}

/// The unit directories, read once.
#[derive(Debug, Default)]
pub struct Index {
    units: BTreeMap<UnitName, UnitFile>,
    aliases: HashMap<UnitName, BTreeSet<UnitName>>,
    drop_in_directories: HashMap<String, Vec<String>>,
    links: HashMap<String, Vec<DependencyLink>>,
    /// Directories that could not be read.
    pub problems: Vec<Diagnostic>,
}

/// Longest chain of aliases.
const MAX_ALIASES: usize = 16;

impl Index {
    /// Reads all unit directories.
    pub fn read(source: &impl UnitSource) -> Self {
        let mut index = Self::default();
        let mut link_directories: Vec<(String, DependencyKind, String)> = Vec::new();
        for directory in source.search_path() {
            let mut entries = match source.list(directory) {
                Ok(entries) => entries,
                Err(error) => {
                    index.problem(directory, &error.to_string());
                    continue;
                }
            };
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            for entry in entries {
                let path = format!("{directory}/{}", entry.name);
                let (stem, suffix) = entry.name.rsplit_once('.').unwrap_or((&entry.name, ""));
                if suffix == "d" {
                    index.drop_in_directories.entry(stem.to_owned()).or_default().push(path);
                } else if let Some((_, kind)) = LINK_DIRECTORIES.iter().find(|(name, _)| *name == suffix) {
                    link_directories.push((stem.to_owned(), *kind, path));
                } else if matches!(entry.kind, EntryKind::File | EntryKind::Symlink)
                    && let Ok(name) = UnitName::parse(&entry.name)
                    && !index.units.contains_key(&name)
                {
                    let file = index.classify(source, &name, path, entry.kind);
                    index.units.insert(name, file);
                }
            }
        }
        for (stem, kind, path) in link_directories {
            index.read_links(source, stem, kind, &path);
        }
        index.collect_aliases();
        index
    }

    fn problem(&mut self, path: &str, message: &str) {
        let location = Location { path: path.to_owned(), line: 0 };
        let key = String::new();
        self.problems.push(Diagnostic { severity: Severity::Error, location: Some(location), key, message: message.to_owned() });
    }

    fn classify(&mut self, source: &impl UnitSource, name: &UnitName, path: String, kind: EntryKind) -> UnitFile {
        if kind != EntryKind::Symlink {
            return UnitFile::Fragment(path);
        }
        let target = match source.read_link(&path) {
            Ok(Some(target)) => target,
            Ok(None) => return UnitFile::Fragment(path),
            Err(error) => {
                self.problem(&path, &error.to_string());
                return UnitFile::Fragment(path);
            }
        };
        if join_link(&path, &target) == "/dev/null" {
            return UnitFile::Masked(path);
        }
        let base = target.rsplit('/').next().unwrap_or_default();
        match UnitName::parse(base) {
            Ok(other) if alias_fits(name, &other) => UnitFile::Alias(path, other),
            _ => UnitFile::Fragment(path),
        }
    }

    fn read_links(&mut self, source: &impl UnitSource, stem: String, kind: DependencyKind, path: &str) {
        let entries = match source.list(path) {
            Ok(entries) => entries,
            Err(error) => return self.problem(path, &error.to_string()),
        };
        let links = self.links.entry(stem).or_default();
        for entry in entries {
            if let Ok(name) = UnitName::parse(&entry.name)
                // The same link in a directory of higher rank decides, even when it leads to /dev/null.
                && !links.iter().any(|link| link.name == name && link.kind == kind)
            {
                links.push(DependencyLink { name, kind, path: format!("{path}/{}", entry.name) });
            }
        }
    }

    fn collect_aliases(&mut self) {
        let names: Vec<UnitName> =
            self.units.iter().filter(|(_, file)| matches!(file, UnitFile::Alias(..))).map(|(name, _)| name.clone()).collect();
        for name in names {
            let target = self.resolve(&name);
            if target != name {
                self.aliases.entry(target).or_default().insert(name);
            }
        }
    }

    /// The file of exactly this name.
    #[must_use]
    pub fn file(&self, name: &UnitName) -> Option<&UnitFile> {
        self.units.get(name)
    }

    /// The file of this name, or of its template.
    #[must_use]
    pub fn file_or_template(&self, name: &UnitName) -> Option<&UnitFile> {
        self.units.get(name).or_else(|| self.units.get(&name.template()?))
    }

    /// Every name that has a file.
    pub fn names(&self) -> impl Iterator<Item = (&UnitName, &UnitFile)> {
        self.units.iter()
    }

    /// The unit that a name finally means.
    #[must_use]
    pub fn resolve(&self, name: &UnitName) -> UnitName {
        let mut current = name.clone();
        for _ in 0..MAX_ALIASES {
            let Some(UnitFile::Alias(_, target)) = self.file_or_template(&current) else { break };
            let next = match current.instance() {
                Some(instance) if target.is_template() && !instance.is_empty() => target.with_instance(instance).ok(),
                _ => Some(target.clone()),
            };
            match next {
                // An alias to nothing: the link itself is all there is.
                Some(next) if self.file_or_template(&next).is_some() => current = next,
                _ => break,
            }
        }
        current
    }

    /// Names that lead to this unit by links.
    #[must_use]
    pub fn aliases(&self, name: &UnitName) -> BTreeSet<UnitName> {
        let mut aliases = self.aliases.get(name).cloned().unwrap_or_default();
        if let (Some(template), Some(instance)) = (name.template(), name.instance()) {
            let of_template = self.aliases.get(&template).into_iter().flatten();
            aliases.extend(of_template.filter_map(|alias| alias.with_instance(instance).ok()));
        }
        aliases
    }

    /// What is linked into the `.wants/` directories (and siblings) of exactly this name.
    pub fn links(&self, name: &str) -> impl Iterator<Item = &DependencyLink> {
        self.links.get(name).into_iter().flatten()
    }

    /// Every name that has such directories.
    pub fn link_owners(&self) -> impl Iterator<Item = (&str, &[DependencyLink])> {
        self.links.iter().map(|(owner, links)| (owner.as_str(), links.as_slice()))
    }

    /// The drop-in directories of a unit, the one that wins first.
    #[must_use]
    pub fn drop_in_directories(&self, name: &UnitName, aliases: &BTreeSet<UnitName>) -> Vec<&str> {
        let mut names: Vec<String> = Vec::new();
        for name in std::iter::once(name).chain(aliases) {
            names.push(name.to_string());
            names.extend(name.template().map(|template| template.to_string()));
        }
        for name in std::iter::once(name).chain(aliases) {
            let mut prefix = name.prefix();
            while let Some((shorter, _)) = prefix.rsplit_once('-') {
                if shorter.is_empty() {
                    break;
                }
                if let Some(instance) = name.instance() {
                    names.push(format!("{shorter}-@{instance}.{}", name.kind()));
                    names.push(format!("{shorter}-@.{}", name.kind()));
                }
                names.push(format!("{shorter}-.{}", name.kind()));
                prefix = shorter;
            }
        }
        names.push(name.kind().suffix().to_owned());
        let mut directories: Vec<&str> = Vec::new();
        for name in names {
            for directory in self.drop_in_directories.get(&name).into_iter().flatten() {
                if !directories.contains(&directory.as_str()) {
                    directories.push(directory);
                }
            }
        }
        directories
    }
}

/// Whether a link from one name to another makes an alias: the same kind, another name, and templates only for
/// templates (an instance may also stand for a plain unit).
fn alias_fits(name: &UnitName, target: &UnitName) -> bool {
    if name == target || name.kind() != target.kind() || name.template().as_ref() == Some(target) {
        return false;
    }
    name.is_template() == target.is_template() || (name.is_instance() && target.is_template())
}
