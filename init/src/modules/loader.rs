//! Loading modules with everything they need.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Command;

use thiserror::Error;

use super::config::Config;
use super::index::{Index, normal};
use super::insert;
use crate::cmdline::CommandLine;

/// Why a module was not loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// Neither a module nor an alias.
    #[error("no module or alias '{0}' in this kernel")]
    Unknown(String),
    /// The kernel refused.
    #[error("cannot load the module {name}: {error}")]
    Refused {
        /// The module.
        name: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// An `install` line's command failed.
    #[error("the install command of the module {0} failed")]
    InstallCommand(String),
}

/// One thing to do for a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Insert a module by name; failure of an optional one is passed over.
    Insert {
        /// The module.
        name: String,
        /// A soft dependency.
        optional: bool,
    },
    /// Run an `install` command instead.
    Run {
        /// The module.
        name: String,
        /// For `/bin/sh -c`.
        command: String,
    },
}

/// The index and configuration of the running kernel.
#[derive(Debug)]
pub struct Loader {
    /// What depmod knows.
    pub index: Index,
    config: Config,
    cmdline: CommandLine,
}

impl Loader {
    /// For a kernel release, with files below `root`.
    #[must_use]
    pub fn new(root: &Path, release: &str, cmdline: CommandLine) -> Self {
        Self { index: Index::read(root, release), config: Config::read(root, &cmdline), cmdline }
    }

    /// For the running kernel.
    #[must_use]
    pub fn of_kernel() -> Self {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        Self::new(Path::new("/"), &release, CommandLine::of_kernel())
    }

    /// The modules that a name or an alias stands for; an empty list when it is built in or switched off.
    ///
    /// # Errors
    /// When there is no such thing.
    pub fn resolve(&self, name: &str, use_blacklist: bool) -> Result<Vec<String>, LoadError> {
        let plain = normal(name);
        let configured = self.config.by_alias(&plain);
        let found: Vec<String> = if !configured.is_empty() {
            configured.into_iter().filter(|module| *module != "off").map(str::to_owned).collect()
        } else if self.index.module(&plain).is_some() || self.config.install_command(&plain).is_some() {
            if use_blacklist && self.config.is_blacklisted(&plain) {
                return Ok(Vec::new());
            }
            return Ok(vec![plain]);
        } else if self.index.is_builtin(&plain) {
            Vec::new()
        } else {
            let by_alias = self.index.by_alias(&plain);
            if by_alias.is_empty() {
                return Err(LoadError::Unknown(name.to_owned()));
            }
            by_alias.into_iter().map(str::to_owned).collect()
        };
        Ok(found.into_iter().filter(|module| !self.config.is_blacklisted(module)).collect())
    }

    /// Everything to do for one module, in order, each thing once.
    #[must_use]
    pub fn plan(&self, module: &str) -> Vec<Step> {
        let mut steps = Vec::new();
        self.plan_into(module, false, &mut HashSet::new(), &mut steps);
        steps
    }

    fn plan_into(&self, module: &str, optional: bool, seen: &mut HashSet<String>, steps: &mut Vec<Step>) {
        if !seen.insert(module.to_owned()) {
            return;
        }
        if let Some(command) = self.config.install_command(module) {
            steps.push(Step::Run { name: module.to_owned(), command: command.to_owned() });
            return;
        }
        let Some(known) = self.index.module(module) else { return };
        let soft = || [self.config.soft(module), self.index.soft(module)].into_iter().flatten();
        for before in soft().flat_map(|soft| &soft.before) {
            self.plan_soft(before, seen, steps);
        }
        for need in &known.needs {
            self.plan_into(need, optional, seen, steps);
        }
        steps.push(Step::Insert { name: module.to_owned(), optional });
        for after in soft().flat_map(|soft| &soft.after) {
            self.plan_soft(after, seen, steps);
        }
    }

    fn plan_soft(&self, name: &str, seen: &mut HashSet<String>, steps: &mut Vec<Step>) {
        for module in self.resolve(name, true).unwrap_or_default() {
            self.plan_into(&module, true, seen, steps);
        }
    }

    /// Loads what a name or alias stands for. With several modules for one alias, one that loads is enough.
    ///
    /// # Errors
    /// When nothing has that name, or the kernel refused.
    pub fn load(&self, name: &str, use_blacklist: bool, parameters: &str) -> Result<(), LoadError> {
        let modules = self.resolve(name, use_blacklist)?;
        let mut failed = None;
        let mut any = modules.is_empty();
        for module in &modules {
            match self.load_module(module, parameters) {
                Ok(()) => any = true,
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if !any => Err(error),
            _ => Ok(()),
        }
    }

    fn load_module(&self, module: &str, parameters: &str) -> Result<(), LoadError> {
        if insert::is_loaded(module) {
            return Ok(());
        }
        for step in self.plan(module) {
            match step {
                Step::Insert { name, optional } => {
                    let extra = if name == module { parameters } else { "" };
                    match self.insert(&name, extra) {
                        Err(error) if !optional => return Err(error),
                        _ => {}
                    }
                }
                Step::Run { name, command } => run(&name, &command)?,
            }
        }
        Ok(())
    }

    fn insert(&self, name: &str, extra: &str) -> Result<(), LoadError> {
        let Some(module) = self.index.module(name).filter(|_| !insert::is_loaded(name)) else { return Ok(()) };
        let parameters = [self.config.parameters(name, &self.cmdline).as_str(), extra].join(" ");
        File::open(self.index.file(module))
            .and_then(|file| insert::insert(&file, &module.path, parameters.trim()))
            .map_err(|error| LoadError::Refused { name: name.to_owned(), error })
    }
}

fn run(module: &str, command: &str) -> Result<(), LoadError> {
    let failed = || LoadError::InstallCommand(module.to_owned());
    match command {
        "/bin/true" | "/usr/bin/true" | ":" => Ok(()),
        "/bin/false" | "/usr/bin/false" => Err(failed()),
        command => match Command::new("/bin/sh").arg("-c").arg(command).env("MODPROBE_MODULE", module).status() {
            Ok(status) if status.success() => Ok(()),
            _ => Err(failed()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loader(config: &str) -> Loader {
        let mut parsed = Config::default();
        parsed.add(config);
        let index = Index::parse(
            "k/a.ko: k/c.ko k/b.ko\nk/b.ko:\nk/c.ko: k/b.ko\nk/d.ko:\nk/e.ko:\n",
            "alias pci:v1* a\nalias pci:v1* d\n",
            "softdep a pre: d nothere post: e\n",
            "k/built.ko\n",
        );
        Loader { index, config: parsed, cmdline: CommandLine::default() }
    }

    fn names(steps: &[Step]) -> Vec<&str> {
        steps
            .iter()
            .map(|step| match step {
                Step::Insert { name, .. } | Step::Run { name, .. } => name.as_str(),
            })
            .collect()
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        assert_eq!(names(&loader("").plan("a")), ["d", "b", "c", "a", "e"]);
    }

    #[test]
    fn a_loop_of_soft_dependencies_ends() {
        assert_eq!(names(&loader("softdep d pre: a\n").plan("d")), ["b", "c", "a", "e", "d"]);
    }

    #[test]
    fn blacklists_stop_aliases_but_not_names() {
        let loader = loader("blacklist a\n");
        assert_eq!(loader.resolve("pci:v1x", false).unwrap(), ["d"]);
        assert_eq!(loader.resolve("a", false).unwrap(), ["a"]);
        assert!(loader.resolve("a", true).unwrap().is_empty());
    }

    #[test]
    fn built_in_is_nothing_to_do_and_unknown_is_an_error() {
        let loader = loader("alias net-pf-3 off\n");
        assert!(loader.resolve("built", false).unwrap().is_empty());
        assert!(loader.resolve("net-pf-3", false).unwrap().is_empty());
        assert!(matches!(loader.resolve("zzz", false), Err(LoadError::Unknown(_))));
    }

    #[test]
    fn install_lines_replace_loading() {
        let plan = loader("install c /bin/false\n").plan("a");
        assert!(plan.contains(&Step::Run { name: "c".to_owned(), command: "/bin/false".to_owned() }), "{plan:?}");
        assert!(run("c", "/bin/false").is_err());
    }
}
