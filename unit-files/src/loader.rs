//! Loading units: files, drop-ins, links and defaults put together into a [`Unit`].
//!
//! Nothing here fails: whatever is wrong with a unit is told in its load state and diagnostics, since a broken file must
//! never stop a boot.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};

use crate::defaults;
use crate::diagnostic::{Diagnostic, Location, Severity};
use crate::directives::{self, Effect, Input, Support};
use crate::index::{Index, UnitFile};
use crate::lexer;
use crate::name::{UnitKind, UnitName};
use crate::source::{OPERATOR_UNITS, UnitSource};
use crate::specifier::{HostFacts, SpecifierContext};
use crate::unit::{DependencyKind, LoadState, Unit};
use crate::validate;

/// Loads units of one source. Make a new one to see changes (`daemon-reload`).
#[derive(Debug)]
pub struct Loader<S> {
    source: S,
    facts: HostFacts,
    index: Index,
    /// What `[Install]` of the operator's units adds to other units.
    installed: HashMap<UnitName, Vec<(DependencyKind, UnitName)>>,
}

impl<S: UnitSource> Loader<S> {
    /// Reads the unit directories, and `[Install]` of the operator's units.
    pub fn new(source: S, facts: HostFacts) -> Self {
        let index = Index::read(&source);
        let mut loader = Self { source, facts, index, installed: HashMap::new() };
        loader.read_operator_installs();
        loader
    }

    /// The directories as read.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The source.
    #[must_use]
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Directories that could not be read.
    #[must_use]
    pub fn problems(&self) -> &[Diagnostic] {
        &self.index.problems
    }

    /// Every name that has a unit file, aliases included.
    pub fn names(&self) -> impl Iterator<Item = &UnitName> {
        self.index.names().map(|(name, _)| name)
    }

    /// The unit that a name finally means, links followed.
    #[must_use]
    pub fn resolve(&self, name: &UnitName) -> UnitName {
        self.index.resolve(name)
    }

    /// Units of the operator's directory count as enabled: what their `[Install]` says becomes dependencies.
    fn read_operator_installs(&mut self) {
        let prefix = format!("{OPERATOR_UNITS}/");
        let operator = self.index.names().filter(|(_, file)| matches!(file, UnitFile::Fragment(path) if path.starts_with(&prefix)));
        let names: Vec<UnitName> = operator.map(|(name, _)| name.clone()).collect();
        for name in names {
            for (dependency, owner, unit) in self.install_edges(&name) {
                self.installed.entry(owner).or_default().push((dependency, unit));
            }
        }
    }

    /// The dependencies that enabling a unit would make: kind, who gets it, on what.
    fn install_edges(&self, name: &UnitName) -> Vec<(DependencyKind, UnitName, UnitName)> {
        let mut unit = self.load_files(name);
        if unit.load_state != LoadState::Loaded {
            return Vec::new();
        }
        let install = std::mem::take(&mut unit.install);
        let target = match (name.is_template(), &install.default_instance) {
            (false, _) => Ok(name.clone()),
            (true, Some(instance)) => name.with_instance(instance),
            (true, None) => return Vec::new(),
        };
        let Ok(target) = target else { return Vec::new() };
        let lists = [
            (DependencyKind::Wants, &install.wanted_by),
            (DependencyKind::Requires, &install.required_by),
            (DependencyKind::Upholds, &install.upheld_by),
        ];
        let context = SpecifierContext { name: &target, fragment: unit.fragment.as_deref(), facts: &self.facts };
        let mut edges = Vec::new();
        for (kind, owners) in lists {
            for owner in owners {
                if let Some(owner) = context.expand(owner).ok().and_then(|owner| UnitName::parse(&owner).ok()) {
                    edges.push((kind, self.resolve(&owner), target.clone()));
                }
            }
        }
        edges
    }

    /// Loads a unit; an alias gives the unit that it means.
    #[must_use]
    pub fn load(&self, name: &UnitName) -> Unit {
        let name = self.resolve(name);
        let mut unit = self.load_files(&name);
        if unit.load_state == LoadState::Loaded {
            self.add_links(&mut unit);
            defaults::complete(&mut unit, &self.index);
        }
        unit
    }

    /// Checks one text as if it were the file of a unit, without any directory.
    #[must_use]
    pub fn load_text(name: &UnitName, path: &str, bytes: &[u8], facts: &HostFacts) -> Unit {
        let mut assembly = Assembly::new(name.clone(), facts);
        assembly.unit.fragment = Some(path.to_owned());
        assembly.apply_file(path, bytes);
        assembly.finish()
    }

    /// The unit from its files alone: no links, no default dependencies.
    fn load_files(&self, name: &UnitName) -> Unit {
        let mut assembly = Assembly::new(name.clone(), &self.facts);
        assembly.unit.aliases = self.index.aliases(name);
        match self.index.file_or_template(name) {
            Some(UnitFile::Masked(path)) => return masked(assembly.unit, path),
            Some(UnitFile::Fragment(path) | UnitFile::Alias(path, _)) => match self.source.read(path) {
                Ok(Some(bytes)) if bytes.is_empty() => return masked(assembly.unit, path),
                Ok(Some(bytes)) => {
                    assembly.unit.fragment = Some(path.clone());
                    assembly.apply_file(path, &bytes);
                }
                // A link that leads nowhere.
                Ok(None) => return not_found(assembly.unit),
                Err(error) => {
                    assembly.unit.load_state = LoadState::Error;
                    assembly.unit.load_error = Some(error.to_string());
                    assembly.unit.fragment = Some(path.clone());
                    return assembly.unit;
                }
            },
            None if needs_file(name) => return not_found(assembly.unit),
            None => {}
        }
        self.apply_drop_ins(&mut assembly);
        assembly.finish()
    }

    fn apply_drop_ins(&self, assembly: &mut Assembly<'_>) {
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for directory in self.index.drop_in_directories(&assembly.unit.name, &assembly.unit.aliases) {
            match self.source.list(directory) {
                Ok(entries) => {
                    for entry in entries.into_iter().filter(|entry| entry.name.ends_with(".conf")) {
                        let path = format!("{directory}/{}", entry.name);
                        files.entry(entry.name).or_insert(path);
                    }
                }
                Err(error) => assembly.note(Severity::Warning, directory, 0, "", error.to_string()),
            }
        }
        for path in files.into_values() {
            let hidden = self.source.read_link(&path).is_ok_and(|target| target.is_some_and(|target| join(&path, &target) == "/dev/null"));
            if hidden {
                continue;
            }
            match self.source.read(&path) {
                Ok(Some(bytes)) => {
                    assembly.apply_file(&path, &bytes);
                    assembly.unit.drop_ins.push(path);
                }
                Ok(None) => {}
                // A drop-in may be what takes rights away.
                Err(error) => assembly.note(Severity::Refused, &path, 0, "", format!("the drop-in cannot be read: {error}")),
            }
        }
    }

    fn add_links(&self, unit: &mut Unit) {
        let mut owners = vec![unit.name.to_string()];
        owners.extend(unit.aliases.iter().map(ToString::to_string));
        owners.extend(unit.name.template().map(|template| template.to_string()));
        let mut seen: HashSet<(DependencyKind, UnitName)> = HashSet::new();
        for owner in owners {
            for link in self.index.links(&owner) {
                let target = if link.name.is_template() {
                    let Some(instance) = unit.name.instance().and_then(|instance| link.name.with_instance(instance).ok()) else { continue };
                    instance
                } else {
                    link.name.clone()
                };
                if !seen.insert((link.kind, target.clone())) || target == unit.name {
                    continue;
                }
                let hidden = self.source.read_link(&link.path).is_ok_and(|to| to.is_some_and(|to| join(&link.path, &to) == "/dev/null"));
                if !hidden {
                    unit.dependencies.add(link.kind, target);
                }
            }
        }
        for (kind, target) in self.installed.get(&unit.name).into_iter().flatten() {
            // `systemctl disable` of an operator's unit leaves a link to /dev/null, seen above.
            if seen.insert((*kind, target.clone())) && *target != unit.name {
                unit.dependencies.add(*kind, target.clone());
            }
        }
    }
}

fn join(path: &str, target: &str) -> String {
    crate::memory::join_link(path, target)
}

fn masked(mut unit: Unit, path: &str) -> Unit {
    unit.load_state = LoadState::Masked;
    unit.load_error = Some(format!("Unit {} is masked.", unit.name));
    unit.fragment = Some(path.to_owned());
    unit
}

fn not_found(mut unit: Unit) -> Unit {
    unit.load_state = LoadState::NotFound;
    unit.load_error = Some(format!("Unit {} not found.", unit.name));
    unit
}

/// Slices, scopes and devices exist without files.
fn needs_file(name: &UnitName) -> bool {
    !matches!(name.kind(), UnitKind::Slice | UnitKind::Scope | UnitKind::Device)
}

/// A unit while its files are applied.
struct Assembly<'a> {
    unit: Unit,
    facts: &'a HostFacts,
    /// Directives that were given a value.
    assigned: HashSet<&'static str>,
    /// What each directive that is not fully supported asks for in the end.
    effects: BTreeMap<&'static str, (Support, Effect, Location)>,
    unknown_sections: HashSet<String>,
}

impl<'a> Assembly<'a> {
    fn new(name: UnitName, facts: &'a HostFacts) -> Self {
        Self {
            unit: Unit::new(name, LoadState::Loaded),
            facts,
            assigned: HashSet::new(),
            effects: BTreeMap::new(),
            unknown_sections: HashSet::new(),
        }
    }

    fn note(&mut self, severity: Severity, path: &str, line: u32, key: &str, message: String) {
        let location = Some(Location { path: path.to_owned(), line });
        self.unit.diagnostics.push(Diagnostic { severity, location, key: key.to_owned(), message });
    }

    fn apply_file(&mut self, path: &str, bytes: &[u8]) {
        let parsed = lexer::parse(bytes);
        for problem in parsed.problems {
            let lost = directives::takes_rights_away(&problem.key);
            let severity = if lost { Severity::Refused } else { Severity::Warning };
            self.note(severity, path, problem.line, &problem.key, problem.kind.to_string());
        }
        for assignment in parsed.assignments {
            if assignment.section.starts_with("X-") {
                continue;
            }
            if !directives::knows_section(self.unit.kind, &assignment.section) {
                if self.unknown_sections.insert(assignment.section.clone()) {
                    let message = format!("section [{}] means nothing in a {} unit, so it is ignored", assignment.section, self.unit.kind);
                    self.note(Severity::Warning, path, assignment.line, "", message);
                }
                continue;
            }
            self.apply(path, &assignment);
        }
    }

    fn apply(&mut self, path: &str, assignment: &lexer::Assignment) {
        let name = self.unit.name.clone();
        let fragment = self.unit.fragment.clone();
        let context = SpecifierContext { name: &name, fragment: fragment.as_deref(), facts: self.facts };
        let input = Input { value: &assignment.value, context, notes: RefCell::new(Vec::new()) };
        let Some(applied) = directives::apply(&mut self.unit, &assignment.section, &assignment.key, &input) else {
            if !assignment.key.starts_with("X-") {
                let message = format!("{}= is not known in [{}], so it is ignored", assignment.key, assignment.section);
                self.note(Severity::Warning, path, assignment.line, &assignment.key, message);
            }
            return;
        };
        let key = applied.key;
        let takes_rights_away = directives::takes_rights_away(key);
        for note in input.notes.into_inner() {
            // A word of a restriction that is lost is a restriction that is lost.
            let severity = if takes_rights_away { Severity::Refused } else { Severity::Warning };
            self.note(severity, path, assignment.line, key, format!("{key}=: {note}"));
        }
        match applied.outcome {
            Ok(effect) => {
                if !assignment.value.is_empty() {
                    self.assigned.insert(key);
                }
                if matches!(applied.support, Support::Warned | Support::Refused) {
                    let location = Location { path: path.to_owned(), line: assignment.line };
                    self.effects.insert(key, (applied.support, effect, location));
                }
            }
            // What would run something else, or somewhere else, than was meant.
            Err(error) if (key.starts_with("Exec") && key != "ExecSearchPath") || key == "WorkingDirectory" => {
                self.note(Severity::Error, path, assignment.line, key, format!("{key}=: {error}"));
            }
            Err(error) if takes_rights_away => {
                self.note(Severity::Refused, path, assignment.line, key, format!("{key}=: {error}, so the restriction would be lost"));
            }
            Err(error) => {
                self.note(Severity::Warning, path, assignment.line, key, format!("{key}=: {error}, so the line is ignored"));
            }
        }
    }

    /// Weighs what is not supported, checks the whole.
    fn finish(mut self) -> Unit {
        for (key, (support, effect, location)) in std::mem::take(&mut self.effects) {
            if effect == Effect::None {
                continue;
            }
            let (severity, message) = match support {
                Support::Refused => {
                    (Severity::Refused, format!("{key}= is not supported, and without it the unit would have more rights than written"))
                }
                _ => (Severity::Warning, format!("{key}= is not supported and has no effect")),
            };
            self.unit.diagnostics.push(Diagnostic { severity, location: Some(location), key: key.to_owned(), message });
        }
        if self.unit.kind == UnitKind::Service {
            validate::infer_service_defaults(&mut self.unit, &self.assigned);
        }
        validate::check(&mut self.unit, &self.assigned);
        let allowed = std::mem::take(&mut self.unit.allow_unsupported);
        let all = allowed.iter().any(|word| matches!(word.as_str(), "yes" | "true" | "all"));
        for diagnostic in &mut self.unit.diagnostics {
            let named = !diagnostic.key.is_empty() && allowed.contains(&diagnostic.key);
            if diagnostic.severity == Severity::Refused && (all || named) {
                diagnostic.severity = Severity::Warning;
                diagnostic.message.push_str(" (allowed by X-Init-Allow-Unsupported=)");
            }
        }
        self.unit.allow_unsupported = allowed;
        if let Some(error) = self.unit.diagnostics.iter().find(|diagnostic| diagnostic.severity == Severity::Error) {
            self.unit.load_state = LoadState::BadSetting;
            self.unit.load_error = Some(error.to_string());
        }
        self.unit
    }
}
