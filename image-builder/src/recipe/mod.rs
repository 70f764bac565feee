//! Recipes: what an image is made of, as TOML with inheritance. A recipe file is a [`fragment::Fragment`]; following
//! `extends` and filling in defaults makes a [`Recipe`], which everything after this relies on to be sound.

mod fragment;
mod load;
mod size;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use fragment::{Group, Link, Review, User};
pub use load::{RecipeError, load};
pub use size::Size;

/// A whole recipe.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// File name part of the outputs.
    pub name: String,
    /// The file that was named on the command line.
    pub path: PathBuf,
    /// Every file that was read, in order from the base to `path`.
    pub files: Vec<PathBuf>,
    /// Which packages.
    pub packages: Packages,
    /// Groups beside the packages'.
    pub groups: Vec<Group>,
    /// Users beside the packages'.
    pub users: Vec<User>,
    /// Files, directories and links in the order in which they are put into the tree; a later one wins.
    pub content: Vec<Content>,
    /// Alternative name to chosen path.
    pub alternatives: BTreeMap<String, String>,
    /// Patterns of what is removed.
    pub remove: Vec<String>,
    /// Kernel and initramfs.
    pub kernel: Kernel,
    /// Units to enable.
    pub enable: Vec<String>,
    /// Units to mask.
    pub mask: Vec<String>,
    /// Partition sizes.
    pub partitions: Partitions,
    /// The TUF root metadata that the image trusts.
    pub update_root: Option<PathBuf>,
    /// Output formats, as named.
    pub formats: Vec<String>,
    /// Further verdicts on maintainer scripts.
    pub review: BTreeMap<String, Review>,
}

/// Which packages, defaults filled in.
#[derive(Clone, Debug)]
pub struct Packages {
    /// Debian suite.
    pub suite: String,
    /// Archive areas.
    pub components: Vec<String>,
    /// Mirror of the recipe, if it names one.
    pub mirror: Option<String>,
    /// Whether security updates are used.
    pub security: bool,
    /// Suites that are used although their release files have expired.
    pub allow_expired: Vec<String>,
    /// Must be there.
    pub include: Vec<String>,
    /// Must not.
    pub exclude: Vec<String>,
    /// Whether `Recommends` are followed.
    pub recommends: bool,
    /// Preferred providers.
    pub prefer: BTreeMap<String, String>,
    /// Packages from another suite.
    pub from: BTreeMap<String, String>,
}

/// Kernel and initramfs.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The kernel's package.
    pub package: String,
    /// Words of the command line.
    pub cmdline: Vec<String>,
    /// Modules of the initramfs, without their dependencies.
    pub initramfs_modules: Vec<String>,
}

/// Partition sizes.
#[derive(Clone, Copy, Debug)]
pub struct Partitions {
    /// EFI system partition.
    pub esp: Size,
    /// Each slot's root.
    pub root: Size,
    /// State, in the image.
    pub state: Size,
}

/// Something that a recipe puts into the tree.
#[derive(Clone, Debug)]
pub struct Content {
    /// Path in the image, without a leading slash; empty for the root.
    pub path: String,
    /// What is put there.
    pub what: What,
    /// Permission bits, where the source does not say.
    pub mode: Option<u16>,
    /// Owner's name.
    pub owner: String,
    /// Group's name.
    pub group: String,
}

/// The kinds of [`Content`].
#[derive(Clone, Debug)]
pub enum What {
    /// A file with this text.
    Text(String),
    /// A copy of a file of the build host.
    Copy(PathBuf),
    /// A copy of a directory of the build host with all that is in it.
    CopyTree(PathBuf),
    /// An empty directory.
    Directory,
    /// A symbolic link.
    Link(String),
}
