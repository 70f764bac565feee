//! Reading recipe files, following `extends`, and merging: lists append, tables merge, scalars replace.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::fragment::{self, Fragment};
use super::{Content, Kernel, Packages, Partitions, Recipe, Size, What};

const MAX_DEPTH: usize = 16;

/// Why a recipe cannot be used. Every message says where, and what to do.
#[derive(Debug, Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("cannot read the recipe {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The text is not a recipe.
    #[error("{}:{line}: {message}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// `extends` leads in a circle.
    #[error("{}: 'extends' leads back to this file or goes deeper than {MAX_DEPTH} files: break the circle", path.display())]
    Circle {
        /// The file at which it was noticed.
        path: PathBuf,
    },
    /// Something is missing or contradicts itself.
    #[error("{}: {message}", path.display())]
    Unsound {
        /// The recipe that was named.
        path: PathBuf,
        /// What is wrong, and what to do.
        message: String,
    },
}

/// Reads a recipe and everything that it extends.
///
/// # Errors
/// When a file cannot be read, is not a recipe, or the whole is not sound.
pub fn load(path: &Path) -> Result<Recipe, RecipeError> {
    let mut chain = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        if chain.len() >= MAX_DEPTH || chain.iter().any(|(seen, _)| *seen == path) {
            return Err(RecipeError::Circle { path });
        }
        let fragment = read(&path)?;
        next = fragment.extends.as_ref().map(|base| directory_of(&path).join(base));
        chain.push((path, fragment));
    }
    chain.reverse();
    let mut merged = Merged::default();
    for (path, fragment) in chain {
        merged.take(path, fragment)?;
    }
    merged.finish(path)
}

fn directory_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

fn read(path: &Path) -> Result<Fragment, RecipeError> {
    let text = fs::read_to_string(path).map_err(|source| RecipeError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let line = text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1;
        RecipeError::Text { path: path.to_owned(), line, message: explain(error.message()) }
    })
}

/// Names the nearest valid key where the parser says "unknown field `x`, expected one of `a`, `b`".
fn explain(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    match quoted.next() {
        Some(unknown) if message.starts_with("unknown field") => {
            let unknown = unknown.to_owned();
            let nearest = quoted.max_by(|a, b| strsim::jaro_winkler(a, &unknown).total_cmp(&strsim::jaro_winkler(b, &unknown)));
            match nearest {
                Some(nearest) => format!("unknown key '{unknown}'; did you mean '{nearest}'?"),
                None => format!("unknown key '{unknown}'"),
            }
        }
        _ => message.replace('\n', " "),
    }
}

/// The fragments so far, merged.
#[derive(Default)]
struct Merged {
    files: Vec<PathBuf>,
    name: Option<String>,
    packages: fragment::Packages,
    groups: Vec<fragment::Group>,
    users: Vec<fragment::User>,
    content: Vec<Content>,
    alternatives: BTreeMap<String, String>,
    remove: Vec<String>,
    kernel: fragment::Kernel,
    units: fragment::Units,
    partitions: fragment::Partitions,
    update_root: Option<PathBuf>,
    formats: Option<Vec<String>>,
    review: BTreeMap<String, fragment::Review>,
}

fn replace<T>(old: &mut Option<T>, new: Option<T>) {
    if new.is_some() {
        *old = new;
    }
}

impl Merged {
    fn take(&mut self, path: PathBuf, fragment: Fragment) -> Result<(), RecipeError> {
        let directory = directory_of(&path);
        self.name = fragment.name.or_else(|| path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
        let packages = fragment.packages;
        replace(&mut self.packages.suite, packages.suite);
        replace(&mut self.packages.components, packages.components);
        replace(&mut self.packages.mirror, packages.mirror);
        replace(&mut self.packages.security, packages.security);
        replace(&mut self.packages.recommends, packages.recommends);
        // A recipe may include what its base excludes, and the other way round: the later word counts.
        self.packages.exclude.retain(|name| !packages.include.contains(name));
        self.packages.include.retain(|name| !packages.exclude.contains(name));
        self.packages.include.extend(packages.include);
        self.packages.exclude.extend(packages.exclude);
        self.packages.allow_expired.extend(packages.allow_expired);
        self.packages.prefer.extend(packages.prefer);
        self.packages.from.extend(packages.from);
        self.groups.extend(fragment.group);
        self.users.extend(fragment.user);
        let unsound = |message| RecipeError::Unsound { path: path.clone(), message };
        for item in fragment.directory {
            self.content.push(directory_content(item, &directory).map_err(unsound)?);
        }
        for item in fragment.file {
            self.content.push(file_content(item, &directory).map_err(unsound)?);
        }
        for link in fragment.link {
            self.content.push(content(&link.path, What::Link(link.target), None, None, None).map_err(unsound)?);
        }
        self.alternatives.extend(fragment.alternatives);
        self.remove.extend(fragment.remove.paths);
        replace(&mut self.kernel.package, fragment.kernel.package);
        self.kernel.cmdline.extend(fragment.kernel.cmdline);
        self.kernel.initramfs_modules.extend(fragment.kernel.initramfs_modules);
        self.units.enable.retain(|unit| !fragment.units.disable.contains(unit) && !fragment.units.mask.contains(unit));
        self.units.mask.retain(|unit| !fragment.units.enable.contains(unit));
        self.units.enable.extend(fragment.units.enable);
        self.units.mask.extend(fragment.units.mask);
        replace(&mut self.partitions.esp, fragment.partitions.esp);
        replace(&mut self.partitions.root, fragment.partitions.root);
        replace(&mut self.partitions.state, fragment.partitions.state);
        replace(&mut self.update_root, fragment.update.root.map(|root| directory.join(root)));
        replace(&mut self.formats, fragment.output.formats);
        self.review.extend(fragment.review);
        self.files.push(path);
        Ok(())
    }

    fn finish(self, path: &Path) -> Result<Recipe, RecipeError> {
        let unsound = |message: String| RecipeError::Unsound { path: path.to_owned(), message };
        let missing = |key: &str, example: &str| unsound(format!("no {key} is given: add {example}, or extend a recipe that has one"));
        let name = self.name.unwrap_or_default();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || !name.chars().all(allowed) || name.starts_with('.') {
            return Err(unsound(format!("the name '{name}' cannot be part of a file name: use letters, digits, '-', '_' and '.'")));
        }
        let packages = self.packages;
        let include = unique(packages.include);
        Ok(Recipe {
            name,
            path: path.to_owned(),
            files: self.files,
            packages: Packages {
                suite: packages.suite.ok_or_else(|| missing("suite", "suite = \"trixie\" under [packages]"))?,
                components: packages.components.unwrap_or_else(|| vec!["main".to_owned()]),
                mirror: packages.mirror,
                security: packages.security.unwrap_or(true),
                allow_expired: unique(packages.allow_expired),
                include,
                exclude: unique(packages.exclude),
                recommends: packages.recommends.unwrap_or(false),
                prefer: packages.prefer,
                from: packages.from,
            },
            groups: self.groups,
            users: self.users,
            content: self.content,
            alternatives: self.alternatives,
            remove: unique(self.remove),
            kernel: Kernel {
                package: self.kernel.package.ok_or_else(|| missing("kernel", "package = \"linux-image-cloud-amd64\" under [kernel]"))?,
                cmdline: self.kernel.cmdline,
                initramfs_modules: unique(self.kernel.initramfs_modules),
            },
            enable: unique(self.units.enable),
            mask: unique(self.units.mask),
            partitions: Partitions {
                esp: self.partitions.esp.unwrap_or(Size::mib(512)),
                root: self.partitions.root.unwrap_or(Size::mib(2048)),
                state: self.partitions.state.unwrap_or(Size::mib(64)),
            },
            update_root: self.update_root,
            formats: self.formats.unwrap_or_else(|| vec!["raw".to_owned()]),
            review: self.review,
        })
    }
}

/// Keeps the first of equal entries, in order.
fn unique(mut list: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|item| seen.insert(item.clone()));
    list
}

fn directory_content(item: fragment::Directory, base: &Path) -> Result<Content, String> {
    let what = item.source.map_or(What::Directory, |source| What::CopyTree(base.join(source)));
    content(&item.path, what, item.mode, item.owner, item.group)
}

fn file_content(item: fragment::File, base: &Path) -> Result<Content, String> {
    let what = match (item.content, item.source) {
        (Some(text), None) => What::Text(text),
        (None, Some(source)) => What::Copy(base.join(source)),
        _ => return Err(format!("the file '{}' needs either 'content' or 'source', not both", item.path)),
    };
    content(&item.path, what, item.mode, item.owner, item.group)
}

fn content(path: &str, what: What, mode: Option<String>, owner: Option<String>, group: Option<String>) -> Result<Content, String> {
    let root = || "root".to_owned();
    Ok(Content {
        path: image_path(path, matches!(what, What::CopyTree(_)))?,
        what,
        mode: mode.as_deref().map(octal).transpose()?,
        owner: owner.unwrap_or_else(root),
        group: group.unwrap_or_else(root),
    })
}

fn octal(text: &str) -> Result<u16, String> {
    let value = u16::from_str_radix(text, 8).ok().filter(|&mode| mode <= 0o7777);
    value.ok_or_else(|| format!("'{text}' is not a mode: write it in octal, such as \"0644\""))
}

/// A path of the image without its leading slash.
fn image_path(text: &str, may_be_root: bool) -> Result<String, String> {
    let problem = || format!("'{text}' is not a path in the image: it must begin with '/' and have no '.', '..' or empty part");
    let path = text.strip_prefix('/').ok_or_else(problem)?.trim_end_matches('/');
    let clean = !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if clean || (may_be_root && path.is_empty()) { Ok(path.to_owned()) } else { Err(problem()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_texts(texts: &[(&str, &str)]) -> Result<Recipe, String> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in texts {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let prefix = format!("{}/", directory.path().display());
        load(&directory.path().join(texts[0].0)).map_err(|error| error.to_string().replace(&prefix, ""))
    }

    const BASE: &str = "[packages]\nsuite = 'trixie'\ninclude = ['a', 'b']\nexclude = ['c']\n[kernel]\npackage = 'linux'\ncmdline = ['x']\n[units]\nenable = ['u.service']\n[partitions]\nroot = '2GiB'\n";

    #[test]
    fn lists_append_scalars_replace_and_the_later_word_counts() {
        let child = "extends = 'base.toml'\n[packages]\ninclude = ['c', 'a']\nexclude = ['b']\n[kernel]\ncmdline = ['y']\n[units]\ndisable = ['u.service']\n[partitions]\nroot = '1GiB'\n";
        let recipe = load_texts(&[("child.toml", child), ("base.toml", BASE)]).unwrap();
        assert_eq!(recipe.name, "child");
        assert_eq!(recipe.packages.include, ["a", "c"]);
        assert_eq!(recipe.packages.exclude, ["b"]);
        assert_eq!(recipe.kernel.cmdline, ["x", "y"]);
        assert!(recipe.enable.is_empty());
        assert_eq!(recipe.partitions.root, Size::mib(1024));
        assert_eq!(recipe.files.len(), 2);
    }

    #[test]
    fn unknown_keys_are_named_with_line_and_nearest_key() {
        let error = load_texts(&[("r.toml", "name = 'r'\n[packages]\nsuit = 'trixie'\n")]).unwrap_err();
        assert_eq!(error, "r.toml:3: unknown key 'suit'; did you mean 'suite'?");
        let error = load_texts(&[("r.toml", "name = 'r'\n\n[kernels]\n")]).unwrap_err();
        assert_eq!(error, "r.toml:3: unknown key 'kernels'; did you mean 'kernel'?");
    }

    #[test]
    fn broken_recipes_get_one_clear_line() {
        for (text, expected) in [
            ("name = ", "r.toml:1: "),
            ("[packages]\nsuite = 5\n", "r.toml:2: invalid type"),
            ("extends = 'r.toml'", "r.toml: 'extends' leads back"),
            ("extends = 'gone.toml'", "cannot read the recipe gone.toml"),
            ("name = 'a/b'", "r.toml: the name 'a/b'"),
            ("name = 'a'", "r.toml: no suite is given"),
            ("[[file]]\npath = 'etc/x'\ncontent = ''", "r.toml: 'etc/x' is not a path"),
            ("[[file]]\npath = '/etc/x'", "r.toml: the file '/etc/x' needs either"),
            ("[[file]]\npath = '/etc/x'\ncontent = ''\nmode = '9'", "r.toml: '9' is not a mode"),
            ("[partitions]\nroot = '2G'", "r.toml:2: '2G' is not a size"),
        ] {
            let error = load_texts(&[("r.toml", text)]).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
