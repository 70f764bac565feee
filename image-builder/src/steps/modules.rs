//! Kernel modules without `depmod`: indexed in the text files that `modprobe` and coldplug read, and put into load order
//! for the initramfs. Modules are plain files here; packages' compressed ones are decompressed when they are unpacked.
//!
//! The indices say what kmod's say (`depmod` is the test's oracle): the same lines, only modules of one line that do not
//! depend on each other may be in another order. Its binary `.bin` forms and `modules.symbols` are left out, since
//! nothing on the host reads them.

use std::collections::{BTreeMap, BTreeSet};

use object::read::ReadCache;
use rayon::prelude::*;

use super::elf::Cursor;
use super::modinfo::{self, ModInfo, canonical};
use super::{StepsError, origin, text};
use crate::tree::{Body, Kind, Tree};

const ROOT: &str = "usr/lib/modules";

/// The release of the newest kernel whose modules are in the tree.
#[must_use]
pub fn kernel_release(tree: &Tree) -> Option<String> {
    let mut releases: Vec<&str> = tree
        .below(ROOT)
        .filter_map(|(path, _)| path.strip_prefix(ROOT)?.strip_prefix('/')?.split_once('/').map(|(release, _)| release))
        .collect();
    releases.dedup();
    let number = |release: &str| -> Vec<u64> { release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok()).collect() };
    releases.into_iter().max_by_key(|release| number(release)).map(str::to_owned)
}

/// One module file.
#[derive(Debug)]
struct Module {
    /// Name as the kernel writes it.
    name: String,
    /// Path below the release's directory.
    file: String,
    info: ModInfo,
    /// Direct dependencies, as positions.
    needs: Vec<usize>,
    /// Position in the order of dependencies: users first.
    order: usize,
}

/// What is known of all modules of one kernel.
#[derive(Debug)]
pub struct Index {
    release: String,
    /// In the order of `modules.order`.
    modules: Vec<Module>,
    by_name: BTreeMap<String, usize>,
    builtin: BTreeSet<String>,
}

impl Index {
    /// Reads every module of a kernel.
    ///
    /// # Errors
    /// When a file is not a module, or needs one that is not there.
    pub fn read(tree: &Tree, release: &str) -> Result<Self, StepsError> {
        let directory = format!("{ROOT}/{release}");
        let listed = text::read(tree, &format!("{directory}/modules.order"))?.unwrap_or_default();
        let place: BTreeMap<&str, usize> = listed.lines().enumerate().map(|(place, line)| (line, place)).collect();
        let mut files: Vec<(usize, &str, &Body)> = Vec::new();
        for (path, node) in tree.below(&directory) {
            if let (Kind::File(body), Some(file)) = (&node.kind, path.strip_prefix(&directory).and_then(|path| path.strip_prefix('/')))
                && file.ends_with(".ko")
            {
                files.push((place.get(file).copied().unwrap_or(usize::MAX), file, body));
            }
        }
        files.sort_by_key(|&(place, file, _)| (place, file));
        let mut modules = files
            .into_par_iter()
            .map(|(_, file, body)| {
                let path = format!("{directory}/{file}");
                let cache = ReadCache::new(Cursor { body, at: 0 });
                let info = modinfo::parse(&cache).map_err(|reason| StepsError::Module { path, reason })?;
                Ok(Module { name: name_of(file), file: file.to_owned(), info, needs: Vec::new(), order: 0 })
            })
            .collect::<Result<Vec<_>, StepsError>>()?;
        let by_name: BTreeMap<String, usize> = modules.iter().enumerate().map(|(at, module)| (module.name.clone(), at)).collect();
        let builtin_list = text::read(tree, &format!("{directory}/modules.builtin"))?.unwrap_or_default();
        let builtin: BTreeSet<String> = builtin_list.lines().map(name_of).collect();
        for module in &mut modules {
            for name in module.info.depends.iter().map(|name| canonical(name)) {
                match by_name.get(&name) {
                    Some(&at) => module.needs.push(at),
                    None if builtin.contains(&name) => {}
                    None => {
                        let wanted_by = format!("the module {}", module.name);
                        return Err(StepsError::NoModule { kernel: release.to_owned(), name, wanted_by });
                    }
                }
            }
        }
        let mut index = Self { release: release.to_owned(), modules, by_name, builtin };
        index.sort_by_dependency()?;
        Ok(index)
    }

    /// Numbers the modules so that users come before what they use, taking them off a stack as kmod does.
    fn sort_by_dependency(&mut self) -> Result<(), StepsError> {
        let mut users = vec![0_usize; self.modules.len()];
        for &needed in self.modules.iter().flat_map(|module| &module.needs) {
            users[needed] += 1;
        }
        let mut stack: Vec<usize> = (0..users.len()).filter(|&at| users[at] == 0).collect();
        let mut done = 0;
        while let Some(at) = stack.pop() {
            self.modules[at].order = done;
            done += 1;
            for needed in self.modules[at].needs.clone() {
                users[needed] -= 1;
                if users[needed] == 0 {
                    stack.push(needed);
                }
            }
        }
        if let Some(at) = users.iter().position(|&users| users > 0) {
            let module = &self.modules[at];
            let path = format!("{ROOT}/{}/{}", self.release, module.file);
            return Err(StepsError::Module { path, reason: "it depends on itself in a circle".to_owned() });
        }
        Ok(())
    }

    /// Everything a module needs, directly or not, without itself; users before what they use.
    fn closure(&self, of: usize) -> Vec<usize> {
        let mut seen = BTreeSet::new();
        let mut pending = self.modules[of].needs.clone();
        while let Some(at) = pending.pop() {
            if seen.insert(at) {
                pending.extend(&self.modules[at].needs);
            }
        }
        let mut closure: Vec<usize> = seen.into_iter().collect();
        closure.sort_by_key(|&at| self.modules[at].order);
        closure
    }

    /// `modules.dep`: each file and everything that must be loaded before it, the first needed last.
    #[must_use]
    pub fn dep(&self) -> String {
        let mut text = String::new();
        for (at, module) in self.modules.iter().enumerate() {
            text.push_str(&module.file);
            text.push(':');
            for needed in self.closure(at) {
                text.push(' ');
                text.push_str(&self.modules[needed].file);
            }
            text.push('\n');
        }
        text
    }

    /// `modules.alias`.
    #[must_use]
    pub fn alias(&self) -> String {
        let lines =
            self.modules.iter().flat_map(|module| module.info.aliases.iter().map(|alias| format!("alias {alias} {}\n", module.name)));
        std::iter::once("# Aliases extracted from modules themselves.\n".to_owned()).chain(lines).collect()
    }

    /// `modules.softdep`.
    #[must_use]
    pub fn softdep(&self) -> String {
        let lines =
            self.modules.iter().flat_map(|module| module.info.softdeps.iter().map(|dep| format!("softdep {} {dep}\n", module.name)));
        std::iter::once("# Soft dependencies extracted from modules themselves.\n".to_owned()).chain(lines).collect()
    }

    /// `modules.devname`: device nodes that exist before their module is loaded, and load it when opened.
    #[must_use]
    pub fn devname(&self) -> String {
        let mut text = "# Device nodes to trigger on-demand module loading.\n".to_owned();
        for module in &self.modules {
            let name = module.info.aliases.iter().find_map(|alias| alias.strip_prefix("devname:"));
            let number = module.info.aliases.iter().find_map(|alias| {
                let (kind, rest) = alias
                    .strip_prefix("char-major-")
                    .map(|rest| ('c', rest))
                    .or_else(|| alias.strip_prefix("block-major-").map(|rest| ('b', rest)))?;
                let (major, minor) = rest.split_once('-')?;
                Some((kind, major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
            });
            if let (Some(name), Some((kind, major, minor))) = (name, number) {
                text.push_str(&format!("{} {name} {kind}{major}:{minor}\n", module.name));
            }
        }
        text
    }

    /// Writes the indices beside the modules.
    ///
    /// # Errors
    /// When the tree refuses a path.
    pub fn write(&self, tree: &mut Tree) -> Result<(), StepsError> {
        let origin = origin("modules");
        for (name, content) in [("dep", self.dep()), ("alias", self.alias()), ("softdep", self.softdep()), ("devname", self.devname())] {
            text::write(tree, &format!("{ROOT}/{}/modules.{name}", self.release), &content, 0o644, &origin)?;
        }
        Ok(())
    }

    /// The files of the named modules and of all they need, in an order in which each can be loaded, as paths of the
    /// tree. What is built into the kernel is left out; a name that ends in `?` may be missing.
    ///
    /// # Errors
    /// When the kernel has no such module.
    pub fn load_order(&self, names: &[String]) -> Result<Vec<String>, StepsError> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for wanted in names {
            let name = canonical(wanted.trim_end_matches('?'));
            match self.by_name.get(&name) {
                Some(&at) => self.visit(at, &mut seen, &mut order),
                None if self.builtin.contains(&name) || wanted.ends_with('?') => {}
                None => {
                    let (kernel, wanted_by) = (self.release.clone(), "the recipe's initramfs".to_owned());
                    return Err(StepsError::NoModule { kernel, name, wanted_by });
                }
            }
        }
        Ok(order.into_iter().map(|at: usize| format!("{ROOT}/{}/{}", self.release, self.modules[at].file)).collect())
    }

    /// Soft dependencies of the `pre:` kind, then hard ones, then the module, then `post:`. A circle of soft
    /// dependencies ends where it began.
    fn visit(&self, at: usize, seen: &mut BTreeSet<usize>, order: &mut Vec<usize>) {
        if !seen.insert(at) {
            return;
        }
        let module = &self.modules[at];
        let (before, after) = self.soft(&module.info);
        for &needed in before.iter().chain(&module.needs) {
            self.visit(needed, seen, order);
        }
        order.push(at);
        for later in after {
            self.visit(later, seen, order);
        }
    }

    fn soft(&self, info: &ModInfo) -> (Vec<usize>, Vec<usize>) {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for line in &info.softdeps {
            let mut list = &mut before;
            for word in line.split_whitespace() {
                match word {
                    "pre:" => list = &mut before,
                    "post:" => list = &mut after,
                    name => list.extend(self.lookup(name)),
                }
            }
        }
        (before, after)
    }

    /// A module by name, else all that have exactly this alias.
    fn lookup(&self, name: &str) -> Vec<usize> {
        let canonical_name = canonical(name);
        if let Some(&at) = self.by_name.get(&canonical_name) {
            return vec![at];
        }
        if self.builtin.contains(&canonical_name) {
            return Vec::new();
        }
        let aliased = |module: &&Module| module.info.aliases.iter().any(|alias| canonical(alias) == canonical_name);
        self.modules.iter().filter(aliased).filter_map(|module| self.by_name.get(&module.name).copied()).collect()
    }
}

fn name_of(file: &str) -> String {
    let name = file.rsplit_once('/').map_or(file, |(_, name)| name);
    canonical(name.split_once(".ko").map_or(name, |(name, _)| name))
}
