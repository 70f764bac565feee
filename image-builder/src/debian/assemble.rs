//! Puts unpacked packages together into one [`Tree`], the way dpkg would lay them on a disk: base-files first, then by
//! name; directories are shared, a path that leads through another package's link goes where the link goes, and a file
//! of two packages needs a `Replaces` that says who wins.

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use super::deb822;
use super::dependency::clauses;
use super::lock::LockedPackage;
use super::unpack::{Entry, EntryKind, Unpacked};
use crate::digest::Sha256;
use crate::tree::{Body, Kind, Node, Tree, TreeError};

/// The control files that are programs, or that make dpkg run some.
const SCRIPTS: [&str; 6] = ["preinst", "postinst", "prerm", "postrm", "config", "triggers"];

/// Why packages do not fit together.
#[derive(Debug, Error)]
pub enum AssembleError {
    /// Two packages have one file.
    #[error("{first} and {second} both have '/{path}', and neither replaces the other: exclude one of them in the recipe")]
    Conflict {
        /// Which file.
        path: String,
        /// Who had it.
        first: String,
        /// Who has it too.
        second: String,
    },
    /// A path that cannot be.
    #[error("{package}: {source}")]
    Tree {
        /// Whose.
        package: String,
        /// Why.
        source: TreeError,
    },
    /// A hard link to nothing.
    #[error("{package}: '/{path}' is another name of '/{target}', which is not a file of the package")]
    HardLink {
        /// Whose.
        package: String,
        /// Which name.
        path: String,
        /// Of what.
        target: String,
    },
    /// No control file, or without a field.
    #[error("{0} has no usable control file")]
    Control(String),
}

/// A maintainer script or a triggers file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its text.
    pub bytes: Vec<u8>,
    /// Its sum.
    pub sha256: Sha256,
}

/// What is known of a package that is in the tree.
#[derive(Clone, Debug)]
pub struct Package {
    /// The package as it was locked.
    pub locked: LockedPackage,
    /// Its control paragraph.
    pub control: String,
    /// Configuration files, as paths in the tree.
    pub conffiles: Vec<String>,
    /// Maintainer scripts and triggers by name.
    pub scripts: BTreeMap<String, Script>,
    /// Its `shlibs` file.
    pub shlibs: Option<String>,
    /// Path of its copyright file in the tree, if it has one.
    pub copyright: Option<String>,
}

impl Package {
    /// A field of the control paragraph.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        deb822::field(&self.control, name)
    }

    fn read(locked: &LockedPackage, unpacked: &Unpacked) -> Result<Self, AssembleError> {
        let file = |name: &str| unpacked.control.iter().find(|(found, ..)| found == name);
        let text = |name: &str| file(name).map(|(_, bytes, _)| String::from_utf8_lossy(bytes).into_owned());
        let control = text("control").filter(|control| deb822::field(control, "Package") == Some(&locked.name));
        let control = control.ok_or_else(|| AssembleError::Control(locked.name.clone()))?;
        let conffiles = text("conffiles").unwrap_or_default();
        // Lines with a flag, `remove-on-upgrade /path`, are files that are not there any more.
        let conffiles = conffiles.lines().filter_map(|line| line.trim().strip_prefix('/')).map(str::to_owned).collect();
        let scripts = SCRIPTS.iter().filter_map(|&name| {
            let (_, bytes, sha256) = file(name)?;
            Some((name.to_owned(), Script { bytes: bytes.clone(), sha256: *sha256 }))
        });
        Ok(Self { locked: locked.clone(), control, conffiles, scripts: scripts.collect(), shlibs: text("shlibs"), copyright: None })
    }

    /// Whether `Replaces` lets it take over files of another package.
    fn replaces(&self, other: &Self) -> bool {
        clauses(self.field("Replaces").unwrap_or_default(), &self.locked.architecture)
            .flatten()
            .any(|relation| relation.name == other.locked.name && relation.accepts(&other.locked.version))
    }
}

/// Packages put together.
#[derive(Clone, Debug)]
pub struct Assembled {
    /// Their files.
    pub tree: Tree,
    /// What is known of them, by name.
    pub packages: Vec<Package>,
}

/// Puts packages together. The result does not depend on the order in which they come.
///
/// # Errors
/// When two have the same file, or a path cannot be.
pub fn assemble(mut parts: Vec<(LockedPackage, Unpacked)>) -> Result<Assembled, AssembleError> {
    parts.sort_by(|(a, _), (b, _)| (a.name != "base-files", &a.name).cmp(&(b.name != "base-files", &b.name)));
    let mut packages: Vec<Package> = parts.iter().map(|(locked, unpacked)| Package::read(locked, unpacked)).collect::<Result<_, _>>()?;
    let mut tree = Tree::new();
    for (package, (_, unpacked)) in packages.iter().zip(&parts) {
        let origin: Arc<str> = Arc::from(package.locked.name.as_str());
        for entry in unpacked.entries.iter() {
            add(&mut tree, entry, unpacked, package, &packages, &origin)?;
        }
    }
    for package in &mut packages {
        // Often the directory is a link to that of another package of the same source.
        package.copyright = tree.resolve(&format!("usr/share/doc/{}/copyright", package.locked.name));
    }
    packages.sort_by(|a, b| a.locked.name.cmp(&b.locked.name));
    Ok(Assembled { tree, packages })
}

fn add(
    tree: &mut Tree,
    entry: &Entry,
    unpacked: &Unpacked,
    package: &Package,
    packages: &[Package],
    origin: &Arc<str>,
) -> Result<(), AssembleError> {
    let path = through_links(tree, &entry.path);
    let kind = match entry.kind {
        EntryKind::Dir => Kind::Directory,
        EntryKind::File => Kind::File(Body::Range { file: Arc::clone(&unpacked.data), offset: entry.offset, len: entry.len }),
        EntryKind::Link => Kind::Symlink(entry.target.clone()),
        EntryKind::Hard => {
            let target = through_links(tree, &entry.target);
            let wrong = || AssembleError::HardLink { package: package.locked.name.clone(), path: path.clone(), target: target.clone() };
            match tree.get(&target).map(|node| &node.kind) {
                Some(Kind::File(_)) => Kind::HardLink(target),
                // A link to a link leads to the file itself.
                Some(Kind::HardLink(first)) => Kind::HardLink(first.clone()),
                _ => return Err(wrong()),
            }
        }
    };
    let mut node = Node::new(kind, entry.mode, origin);
    (node.uid, node.gid) = (entry.uid, entry.gid);
    node.xattrs.extend(entry.xattrs.iter().cloned());
    if let Some(there) = tree.get(&path) {
        match (&there.kind, &node.kind) {
            // As dpkg does: a directory stays what it is, whoever else ships it, even as a link to one.
            (Kind::Directory, Kind::Directory | Kind::Symlink(_)) => return Ok(()),
            (Kind::Symlink(_), Kind::Directory) if is_directory(tree, &path) => return Ok(()),
            _ => {}
        }
        let first = packages.iter().find(|other| *other.locked.name == *there.origin && *other.locked.name != package.locked.name);
        match first {
            Some(first) if package.replaces(first) => {}
            Some(first) if first.replaces(package) => return Ok(()),
            _ => {
                let (first, second) = (there.origin.to_string(), package.locked.name.clone());
                return Err(AssembleError::Conflict { path, first, second });
            }
        }
    }
    tree.put(&path, node).map_err(|source| AssembleError::Tree { package: package.locked.name.clone(), source })
}

/// The path with its directory's links followed, as far as the directory is there.
fn through_links(tree: &Tree, path: &str) -> String {
    let Some((parent, name)) = path.rsplit_once('/') else { return path.to_owned() };
    match tree.get(parent).map(|node| &node.kind) {
        Some(Kind::Directory) => path.to_owned(),
        _ => match tree.resolve(parent) {
            Some(real) if real.is_empty() => name.to_owned(),
            Some(real) => format!("{real}/{name}"),
            None => path.to_owned(),
        },
    }
}

fn is_directory(tree: &Tree, path: &str) -> bool {
    tree.resolve(path).and_then(|real| tree.get(&real)).is_some_and(|node| matches!(node.kind, Kind::Directory))
}
