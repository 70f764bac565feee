//! Enabling, disabling, masking: what `systemctl` does to links.
//!
//! A planner: given a source of unit files it says which links to make and remove, in which order, and what to tell the
//! person; [`apply`] carries a plan out on a real file system. The messages are worded as `systemctl` does.

mod apply;
mod plan;
mod preset;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::index::{Index, LINK_DIRECTORIES, UnitFile};
use crate::loader::Loader;
use crate::memory::join_link;
use crate::name::{UnitKind, UnitName};
use crate::source::{EntryKind, OPERATOR_UNITS, UnitSource};
use crate::specifier::{HostFacts, SpecifierContext};
use crate::unit::{InstallInfo, LoadState};

pub use apply::{ApplyError, apply};
pub use plan::{InstallError, LinkOperation, Plan};
pub use state::UnitFileState;

/// Where links that last are made.
pub const PERSISTENT: &str = "/etc/systemd/system";
/// Where links until the next boot are made (`--runtime`).
pub const RUNTIME: &str = "/run/garboard/units";

/// How links are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InstallOptions {
    /// Until the next boot.
    pub runtime: bool,
    /// Replace what is in the way.
    pub force: bool,
}

/// Plans changes of links.
#[derive(Debug)]
pub struct Installer<'a, S> {
    loader: &'a Loader<S>,
    facts: &'a HostFacts,
    options: InstallOptions,
}

const NO_INSTALL: &str = "The unit files have no installation config (WantedBy=, RequiredBy=, UpheldBy=, Also= or Alias= in [Install], and \
     DefaultInstance= for templates), so there is nothing to enable or disable. Such units are started because others need them, or by hand.";

impl<'a, S: UnitSource> Installer<'a, S> {
    /// Over a loader's view of the unit directories.
    #[must_use]
    pub fn new(loader: &'a Loader<S>, facts: &'a HostFacts, options: InstallOptions) -> Self {
        Self { loader, facts, options }
    }

    fn index(&self) -> &Index {
        self.loader.index()
    }

    fn source(&self) -> &S {
        self.loader.source()
    }

    fn directory(&self) -> &'static str {
        if self.options.runtime { RUNTIME } else { PERSISTENT }
    }

    /// `[Install]` of a unit and the path of its file.
    fn install_info(&self, name: &UnitName) -> Result<(String, InstallInfo), InstallError> {
        match self.index().file_or_template(name) {
            None => return Err(InstallError::NotFound(name.clone())),
            Some(UnitFile::Masked(_)) => return Err(InstallError::Masked(name.clone())),
            Some(UnitFile::Alias(..)) => return Err(InstallError::Alias(name.clone())),
            Some(UnitFile::Fragment(_)) => {}
        }
        let unit = self.loader.load(name);
        match (unit.load_state, unit.fragment) {
            (LoadState::Masked, _) => Err(InstallError::Masked(name.clone())),
            // A unit that cannot be started may still be enabled: it says what is wrong when it is started.
            (LoadState::Loaded | LoadState::BadSetting, Some(fragment)) => Ok((fragment, unit.install)),
            (LoadState::Error, _) => Err(InstallError::Bad(name.clone(), unit.load_error.unwrap_or_default())),
            _ => Err(InstallError::NotFound(name.clone())),
        }
    }

    /// The links that enabling a unit makes: path below the configuration directory and what it is called in messages.
    fn links(&self, name: &UnitName, fragment: &str, install: &InstallInfo) -> Result<Vec<String>, InstallError> {
        let expand = |key: &'static str, value: &str, of: &UnitName| {
            let context = SpecifierContext { name: of, fragment: Some(fragment), facts: self.facts };
            let failed = |why: String| InstallError::Install { unit: name.clone(), key, value: value.to_owned(), why };
            let text = context.expand(value).map_err(|error| failed(error.to_string()))?;
            UnitName::parse(&text).map_err(|error| failed(error.to_string()))
        };
        let mut paths = Vec::new();
        for alias in &install.alias {
            let alias_name = expand("Alias", alias, name)?;
            let failed = |why: &str| InstallError::Install { unit: name.clone(), key: "Alias", value: alias.clone(), why: why.to_owned() };
            if alias_name.kind() != name.kind() {
                return Err(failed("the alias is of another kind"));
            }
            if alias_name.is_template() && !name.is_template() && !name.is_instance() {
                return Err(failed("a template cannot be an alias of what is no template"));
            }
            if alias_name != *name {
                paths.push(alias_name.to_string());
            }
        }
        let lists = [
            ("WantedBy", "wants", &install.wanted_by),
            ("RequiredBy", "requires", &install.required_by),
            ("UpheldBy", "upholds", &install.upheld_by),
        ];
        if lists.iter().all(|(_, _, owners)| owners.is_empty()) {
            return Ok(paths);
        }
        let wanted = if name.is_template() {
            let instance = install.default_instance.as_deref();
            let none = || InstallError::NoInstance(name.clone(), name.prefix().to_owned(), name.kind());
            name.with_instance(instance.ok_or_else(none)?).map_err(|_| none())?
        } else {
            name.clone()
        };
        for (key, suffix, owners) in lists {
            for owner in owners {
                paths.push(format!("{}.{suffix}/{wanted}", expand(key, owner, &wanted)?));
            }
        }
        Ok(paths)
    }

    /// The units named, and those that their `Also=` names.
    fn with_also(
        &self,
        names: &[UnitName],
        plan: &mut Plan,
        forgiving: bool,
    ) -> Result<Vec<(UnitName, String, InstallInfo)>, InstallError> {
        let mut seen: BTreeSet<UnitName> = BTreeSet::new();
        let mut queue: Vec<(UnitName, bool)> = names.iter().rev().map(|name| (name.clone(), true)).collect();
        let mut out = Vec::new();
        while let Some((name, asked)) = queue.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let (fragment, install) = match self.install_info(&name) {
                Ok(found) => found,
                Err(error) if asked && !forgiving => return Err(error),
                Err(InstallError::NotFound(_)) if asked => (String::new(), InstallInfo::default()),
                Err(error) => {
                    plan.notes.push(format!("{error}, so it is passed over."));
                    continue;
                }
            };
            plan.carries_install_info |= !install.is_empty();
            for also in install.also.iter().rev() {
                let context = SpecifierContext { name: &name, fragment: Some(&fragment), facts: self.facts };
                if let Some(also) = context.expand(also).ok().and_then(|also| UnitName::parse(&also).ok()) {
                    queue.push((also, false));
                }
            }
            out.push((name, fragment, install));
        }
        Ok(out)
    }

    /// `systemctl enable`.
    ///
    /// # Errors
    /// When a unit does not exist, is masked or an alias, or something is in the way.
    pub fn enable(&self, names: &[UnitName]) -> Result<Plan, InstallError> {
        let mut plan = Plan::default();
        for (name, fragment, install) in self.with_also(names, &mut plan, false)? {
            for link in self.links(&name, &fragment, &install)? {
                let path = format!("{}/{link}", self.directory());
                self.plan_link(&mut plan, path, &fragment)?;
            }
        }
        if !plan.carries_install_info {
            plan.notes.push(NO_INSTALL.to_owned());
        }
        Ok(plan)
    }

    /// Makes a link unless it is there already.
    fn plan_link(&self, plan: &mut Plan, path: String, target: &str) -> Result<(), InstallError> {
        match self.source().read_link(&path)? {
            Some(there) if same_unit_file(&join_link(&path, &there), target) => return Ok(()),
            // What hides a link of lower rank gives way; so does anything in a `.wants/` directory, where the name is all.
            Some(there) if join_link(&path, &there) == "/dev/null" || is_in_link_directory(&path) || self.options.force => {}
            Some(there) => return Err(InstallError::LinkExists { path, target: there }),
            None if self.exists(&path)? => return Err(InstallError::FileExists(path)),
            None => {}
        }
        plan.create(path, target);
        Ok(())
    }

    fn exists(&self, path: &str) -> Result<bool, InstallError> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok(self.source().list(directory)?.iter().any(|entry| entry.name == name))
    }

    /// Every link below the configuration directories that enables a unit.
    fn existing_links(&self, name: &UnitName) -> Result<Vec<String>, InstallError> {
        let directories: &[&str] = if self.options.runtime { &[RUNTIME] } else { &[PERSISTENT, RUNTIME] };
        let means = |entry: &str| {
            entry == name.as_str()
                || (name.is_template() && UnitName::parse(entry).ok().and_then(|entry| entry.template()).as_ref() == Some(name))
        };
        let mut found = Vec::new();
        for directory in directories {
            let mut entries = self.source().list(directory)?;
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            for entry in entries {
                let path = format!("{directory}/{}", entry.name);
                if LINK_DIRECTORIES.iter().any(|(suffix, _)| entry.name.rsplit_once('.').is_some_and(|(_, last)| last == *suffix)) {
                    let mut links = self.source().list(&path)?;
                    links.sort_by(|a, b| a.name.cmp(&b.name));
                    for link in links.into_iter().filter(|link| means(&link.name)) {
                        let link = format!("{path}/{}", link.name);
                        if !self.leads_to_null(&link)? {
                            found.push(link);
                        }
                    }
                } else if entry.kind == EntryKind::Symlink
                    && let Some(target) = self.source().read_link(&path)?
                    && join_link(&path, &target) != "/dev/null"
                    && means(target.rsplit('/').next().unwrap_or_default())
                {
                    found.push(path);
                }
            }
        }
        Ok(found)
    }

    fn leads_to_null(&self, path: &str) -> Result<bool, InstallError> {
        Ok(self.source().read_link(path)?.is_some_and(|target| join_link(path, &target) == "/dev/null"))
    }

    /// `systemctl disable`. A unit of the operator's directory, which counts as enabled by itself, is disabled by links
    /// to `/dev/null` where its `[Install]` would have put it.
    ///
    /// # Errors
    /// When a unit is masked or an alias, or a directory cannot be read.
    pub fn disable(&self, names: &[UnitName]) -> Result<Plan, InstallError> {
        let mut plan = Plan::default();
        for (name, fragment, install) in self.with_also(names, &mut plan, true)? {
            let existing = self.existing_links(&name)?;
            if fragment.is_empty() && existing.is_empty() {
                return Err(InstallError::NotFound(name));
            }
            for path in existing {
                plan.remove(path);
            }
            if is_operators(&fragment) && !self.options.runtime {
                for link in self.links(&name, &fragment, &install)? {
                    let path = format!("{PERSISTENT}/{link}");
                    if is_in_link_directory(&path) && !self.leads_to_null(&path)? {
                        plan.operations.retain(|operation| *operation != LinkOperation::Remove { path: path.clone() });
                        plan.create(path, "/dev/null");
                    }
                }
            }
        }
        if plan.operations.is_empty() && !plan.carries_install_info {
            plan.notes.push(NO_INSTALL.to_owned());
        }
        Ok(plan)
    }

    /// `systemctl reenable`: what was there goes, what `[Install]` says now comes.
    ///
    /// # Errors
    /// As [`Installer::enable`].
    pub fn reenable(&self, names: &[UnitName]) -> Result<Plan, InstallError> {
        let mut plan = Plan::default();
        let units = self.with_also(names, &mut plan, false)?;
        for (name, ..) in &units {
            for path in self.existing_links(name)? {
                plan.remove(path);
            }
        }
        for (name, fragment, install) in units {
            for link in self.links(&name, &fragment, &install)? {
                plan.create(format!("{}/{link}", self.directory()), &fragment);
            }
        }
        Ok(plan)
    }

    /// `systemctl mask`.
    ///
    /// # Errors
    /// When a file is in the way.
    pub fn mask(&self, names: &[UnitName]) -> Result<Plan, InstallError> {
        let mut plan = Plan { carries_install_info: true, ..Plan::default() };
        for name in names {
            if self.index().file_or_template(name).is_none() {
                plan.notes.push(format!("Unit {name} does not exist, proceeding anyway."));
            }
            let path = format!("{}/{name}", self.directory());
            match self.source().read_link(&path)? {
                Some(target) if join_link(&path, &target) == "/dev/null" => continue,
                Some(target) if !self.options.force => return Err(InstallError::LinkExists { path, target }),
                Some(_) => {}
                None if self.exists(&path)? => return Err(InstallError::FileExists(path)),
                None => {}
            }
            plan.create(path, "/dev/null");
        }
        Ok(plan)
    }

    /// `systemctl unmask`.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn unmask(&self, names: &[UnitName]) -> Result<Plan, InstallError> {
        let mut plan = Plan { carries_install_info: true, ..Plan::default() };
        let directories: &[&str] = if self.options.runtime { &[RUNTIME] } else { &[PERSISTENT, RUNTIME] };
        for name in names {
            let before = plan.operations.len();
            for directory in directories {
                let path = format!("{directory}/{name}");
                if self.leads_to_null(&path)? {
                    plan.remove(path);
                }
            }
            if plan.operations.len() == before && self.index().file_or_template(name).is_none() {
                plan.notes.push(format!("Unit {name} does not exist, proceeding anyway."));
            }
        }
        Ok(plan)
    }

    /// `systemctl link`.
    ///
    /// # Errors
    /// When the path is no unit file, or something is in the way.
    pub fn link(&self, paths: &[String]) -> Result<Plan, InstallError> {
        let mut plan = Plan { carries_install_info: true, ..Plan::default() };
        for file in paths {
            let bad = || InstallError::NotAPath(file.clone());
            let (directory, base) = file.rsplit_once('/').filter(|_| file.starts_with('/')).ok_or_else(bad)?;
            let name = UnitName::parse(base).map_err(|_| bad())?;
            if self.source().read(file)?.is_none() {
                return Err(InstallError::NotFound(name));
            }
            if !self.source().search_path().iter().any(|known| known == directory) {
                self.plan_link(&mut plan, format!("{}/{name}", self.directory()), file)?;
            }
        }
        Ok(plan)
    }

    /// `systemctl add-wants TARGET UNIT...` and `add-requires`.
    ///
    /// # Errors
    /// When a unit does not exist or is masked.
    pub fn add_dependency(&self, owner: &UnitName, requires: bool, names: &[UnitName]) -> Result<Plan, InstallError> {
        let mut plan = Plan { carries_install_info: true, ..Plan::default() };
        self.install_info(owner)?;
        for name in names {
            let (fragment, _) = self.install_info(name)?;
            let suffix = if requires { "requires" } else { "wants" };
            self.plan_link(&mut plan, format!("{}/{owner}.{suffix}/{name}", self.directory()), &fragment)?;
        }
        Ok(plan)
    }

    /// `systemctl set-default`.
    ///
    /// # Errors
    /// When it is no target, or does not exist, or is masked.
    pub fn set_default(&self, name: &UnitName) -> Result<Plan, InstallError> {
        if name.kind() != UnitKind::Target {
            return Err(InstallError::NotATarget(name.clone()));
        }
        let (fragment, _) = self.install_info(&self.loader.resolve(name))?;
        let mut plan = Plan { carries_install_info: true, ..Plan::default() };
        let path = format!("{PERSISTENT}/default.target");
        if self.source().read_link(&path)?.is_some() {
            plan.remove(path.clone());
        } else if self.exists(&path)? {
            return Err(InstallError::FileExists(path));
        }
        plan.create(path, &fragment);
        Ok(plan)
    }

    /// `systemctl get-default`.
    #[must_use]
    pub fn get_default(&self) -> Option<UnitName> {
        let name = UnitName::parse("default.target").ok()?;
        self.index().file(&name)?;
        Some(self.loader.resolve(&name))
    }
}

fn is_operators(fragment: &str) -> bool {
    fragment.strip_prefix(OPERATOR_UNITS).is_some_and(|rest| rest.starts_with('/'))
}

fn is_in_link_directory(path: &str) -> bool {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    LINK_DIRECTORIES.iter().any(|(suffix, _)| directory.rsplit_once('.').is_some_and(|(_, last)| last == *suffix))
}

/// `/lib` and `/usr/lib` are the same directory on a merged host.
fn same_unit_file(a: &str, b: &str) -> bool {
    fn plain(path: &str) -> &str {
        path.strip_prefix("/usr").filter(|rest| rest.starts_with("/lib/")).unwrap_or(path)
    }
    plain(a) == plain(b)
}
