//! One recipe file as it is written, before `extends` is followed. Every key that a recipe may have is here, with its
//! type; anything else is refused when the text is read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::size::Size;

/// A recipe file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fragment {
    /// File name part of the outputs; defaults to the file's own name.
    pub name: Option<String>,
    /// The recipe that this one builds upon, relative to this file.
    pub extends: Option<String>,
    /// Which packages.
    #[serde(default)]
    pub packages: Packages,
    /// Groups that the image needs beside its packages'.
    #[serde(default)]
    pub group: Vec<Group>,
    /// Users that the image needs beside its packages'.
    #[serde(default)]
    pub user: Vec<User>,
    /// Single files.
    #[serde(default)]
    pub file: Vec<File>,
    /// Whole directories beside the recipe.
    #[serde(default)]
    pub directory: Vec<Directory>,
    /// Symbolic links.
    #[serde(default)]
    pub link: Vec<Link>,
    /// Which provider an alternative's name leads to.
    #[serde(default)]
    pub alternatives: BTreeMap<String, String>,
    /// What the image does not keep.
    #[serde(default)]
    pub remove: Remove,
    /// Kernel, command line and initramfs.
    #[serde(default)]
    pub kernel: Kernel,
    /// Which units are enabled.
    #[serde(default)]
    pub units: Units,
    /// Sizes of the partitions.
    #[serde(default)]
    pub partitions: Partitions,
    /// Where updates of the image come from.
    #[serde(default)]
    pub update: Update,
    /// What is written.
    #[serde(default)]
    pub output: Output,
    /// Verdicts on maintainer scripts, by package, beside the builder's own table.
    #[serde(default)]
    pub review: BTreeMap<String, Review>,
}

/// `[update]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Update {
    /// The TUF root metadata that the image trusts, relative to the recipe: `root.json` of `garboard keys init`.
    pub root: Option<PathBuf>,
}

/// `[packages]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Packages {
    /// Debian suite, for example `trixie`.
    pub suite: Option<String>,
    /// Archive areas.
    pub components: Option<Vec<String>>,
    /// Where packages come from when neither the command line nor the environment says so.
    pub mirror: Option<String>,
    /// Whether the suite's security updates are used; default yes.
    pub security: Option<bool>,
    /// Suites whose release files may have expired. They are verified all the same; what is given up is the promise
    /// that no newer one was held back.
    #[serde(default)]
    pub allow_expired: Vec<String>,
    /// Packages that must be there.
    #[serde(default)]
    pub include: Vec<String>,
    /// Packages that are never installed; a dependency on one counts as satisfied.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Whether `Recommends` are followed; default no.
    pub recommends: Option<bool>,
    /// The provider of a virtual package, or the choice in an alternative.
    #[serde(default)]
    pub prefer: BTreeMap<String, String>,
    /// Single packages taken from another suite.
    #[serde(default)]
    pub from: BTreeMap<String, String>,
}

/// `[[group]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its number; pinned in the lock when left out.
    pub gid: Option<u32>,
}

/// `[[user]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its number; pinned in the lock when left out.
    pub uid: Option<u32>,
    /// Primary group; one of the user's own name when left out.
    pub group: Option<String>,
    /// Further groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Home directory; default `/`.
    pub home: Option<String>,
    /// Login shell; default `/usr/sbin/nologin`.
    pub shell: Option<String>,
    /// Full name.
    pub gecos: Option<String>,
}

/// `[[file]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    /// Where in the image.
    pub path: String,
    /// The text itself ...
    pub content: Option<String>,
    /// ... or a file beside the recipe.
    pub source: Option<String>,
    /// Octal permission bits, default 0644.
    pub mode: Option<String>,
    /// Owner, default root.
    pub owner: Option<String>,
    /// Group, default root.
    pub group: Option<String>,
}

/// `[[directory]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Directory {
    /// Where in the image.
    pub path: String,
    /// The directory beside the recipe; left out, an empty directory is made.
    pub source: Option<String>,
    /// Octal permission bits of an empty directory, default 0755.
    pub mode: Option<String>,
    /// Owner of an empty directory, default root.
    pub owner: Option<String>,
    /// Group of an empty directory, default root.
    pub group: Option<String>,
}

/// `[[link]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Link {
    /// Where in the image.
    pub path: String,
    /// What it leads to, as written into the link.
    pub target: String,
}

/// `[remove]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Remove {
    /// Patterns; `*` matches within a name, `**` across directories.
    #[serde(default)]
    pub paths: Vec<String>,
}

/// `[kernel]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Kernel {
    /// The kernel's package.
    pub package: Option<String>,
    /// Words of the command line, `roothash=` excepted.
    #[serde(default)]
    pub cmdline: Vec<String>,
    /// Modules that must be loaded before the root file system is there; their dependencies are added.
    #[serde(default)]
    pub initramfs_modules: Vec<String>,
}

/// `[units]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Units {
    /// Enabled by their `[Install]` section.
    #[serde(default)]
    pub enable: Vec<String>,
    /// Not enabled although the recipe below enables them.
    #[serde(default)]
    pub disable: Vec<String>,
    /// Linked to `/dev/null`.
    #[serde(default)]
    pub mask: Vec<String>,
}

/// `[partitions]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Partitions {
    /// EFI system partition.
    pub esp: Option<Size>,
    /// Each slot's root.
    pub root: Option<Size>,
    /// State in the image; it grows to the disk at boot.
    pub state: Option<Size>,
}

/// `[output]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Output {
    /// `raw`, `raw.zst`, `qcow2`.
    pub formats: Option<Vec<String>>,
}

/// `[review."package"]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Review {
    /// Hash of each script that was read, by its name (`postinst`).
    pub scripts: BTreeMap<String, String>,
    /// What they do and what stands in for it.
    pub verdict: String,
}
