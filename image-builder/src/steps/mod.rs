//! Steps from tree to tree. They stand in for the maintainer scripts that are never run, and put in what the recipe
//! asks for. Each is a function of its input alone; [`apply`] runs them in the one order that counts.
//!
//! The tree that comes in holds the unpacked packages and nothing else. What goes out is the root file system as it
//! will be written: accounts, configuration, links, units, module indices, caches, and an empty `/var`.

pub mod accounts;
pub mod alternatives;
pub mod ca;
pub mod check;
pub mod dpkg_status;
pub mod elf;
pub mod factory;
pub mod files;
pub mod ldconfig;
pub mod modes;
pub mod modinfo;
pub mod modules;
pub mod pam;
pub mod review;
pub mod subject_hash;
mod text;
mod unit_source;
pub mod units;
pub mod var;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::tree::{Tree, TreeError};
use accounts::{GroupSpec, Ids, UserSpec};
use factory::ImageIdentity;
use files::Entry;
use units::UnitSpec;

/// What the steps need to know beside the tree.
#[derive(Clone, Debug, Default)]
pub struct StepsInput {
    /// Name and version for os-release.
    pub image: ImageIdentity,
    /// The packages in the tree.
    pub packages: Vec<PackageRecord>,
    /// Groups that the recipe asks for.
    pub groups: Vec<GroupSpec>,
    /// Users that the recipe asks for.
    pub users: Vec<UserSpec>,
    /// Numbers pinned in the lock.
    pub ids: Ids,
    /// Files, directories and links of the recipe; a later one replaces an earlier one.
    pub entries: Vec<Entry>,
    /// Patterns of what does not stay: `*` within a name, `**` across names, `?` one character.
    pub remove: Vec<String>,
    /// Choices that replace the highest priority: name to path, as `update-alternatives` would take them.
    pub alternatives: BTreeMap<String, String>,
    /// Which units are enabled and masked.
    pub units: UnitSpec,
    /// Modules that the initramfs must load, without their dependencies.
    pub initramfs_modules: Vec<String>,
}

/// What is known of a package that was unpacked into the tree.
#[derive(Clone, Debug, Default)]
pub struct PackageRecord {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The paragraph of its control file.
    pub control: String,
    /// Each maintainer script and trigger file, by name (`postinst`, `triggers`).
    pub scripts: BTreeMap<String, Vec<u8>>,
}

/// What the steps found out.
#[derive(Clone, Debug, Default)]
pub struct StepsOutput {
    /// The numbers that are in use now, for the lock.
    pub ids: Ids,
    /// The release of the kernel whose modules are in the tree.
    pub kernel: Option<String>,
    /// Module files for the initramfs, in load order, as paths of the tree.
    pub initramfs_modules: Vec<String>,
    /// What a person should look at, one line each.
    pub warnings: Vec<String>,
}

/// Why a step cannot be done.
#[derive(Debug, Error)]
pub enum StepsError {
    /// The tree refuses a path.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A body cannot be read from the cache.
    #[error("cannot read '{path}' of the image: {source}")]
    Read {
        /// The path in the tree.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A text file of the image is not what it should be.
    #[error("'{path}' of the image, line {line}: {message}")]
    Text {
        /// The path in the tree.
        path: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// Something has no owner in the user database.
    #[error("'{path}' shall belong to {kind} '{name}', which the image does not have: add it to the recipe")]
    UnknownOwner {
        /// The path in the tree.
        path: String,
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// Two accounts want one number, or one account two.
    #[error("{kind} '{name}' cannot have number {id}: {reason}")]
    Account {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
        /// The number.
        id: u32,
        /// Why not.
        reason: String,
    },
    /// A unit cannot be enabled.
    #[error("cannot enable the unit '{unit}': {reason}")]
    Unit {
        /// The unit's name.
        unit: String,
        /// Why not.
        reason: String,
    },
    /// The recipe chooses an alternative that is not there.
    #[error("no package of the image offers '{path}' as {name}: correct [alternatives], or include the package")]
    Alternative {
        /// The generic name.
        name: String,
        /// The path that was chosen.
        path: String,
    },
    /// A library cannot be understood.
    #[error("'{path}' looks like a library, but is not one: {reason}")]
    Library {
        /// The path in the tree.
        path: String,
        /// Why.
        reason: String,
    },
    /// A certificate is not one.
    #[error("'{path}' is not a certificate in PEM: correct or remove it")]
    Certificate {
        /// The path in the tree.
        path: String,
    },
    /// A kernel module is not one.
    #[error("'{path}' is not a kernel module: {reason}")]
    Module {
        /// The path in the tree.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A kernel module is wanted and not there.
    #[error("the kernel {kernel} has no module '{name}', which {wanted_by} needs: correct the name or take it out of the recipe")]
    NoModule {
        /// The kernel's release.
        kernel: String,
        /// The module's name.
        name: String,
        /// Who wants it.
        wanted_by: String,
    },
}

/// Runs all steps on the tree, in order.
///
/// # Errors
/// When one of them cannot be done; the message names the path, account, unit or module.
pub fn apply(tree: &mut Tree, input: &StepsInput) -> Result<StepsOutput, StepsError> {
    let mut output = StepsOutput::default();
    let accounts = accounts::build(tree, &input.packages, &input.groups, &input.users, &input.ids)?;
    accounts.write(tree)?;
    factory::apply(tree, &input.image)?;
    pam::apply(tree)?;
    files::place(tree, &input.entries, &accounts)?;
    alternatives::apply(tree, &input.alternatives)?;
    ca::apply(tree)?;
    files::remove(tree, &input.remove);
    var::apply(tree, &accounts)?;
    units::apply(tree, &input.units)?;
    dpkg_status::apply(tree, &input.packages)?;
    output.warnings.extend(modes::apply(tree, &accounts)?);
    ldconfig::apply(tree)?;
    if let Some(kernel) = modules::kernel_release(tree) {
        let index = modules::Index::read(tree, &kernel)?;
        index.write(tree)?;
        output.initramfs_modules = index.load_order(&input.initramfs_modules)?;
        output.kernel = Some(kernel);
    }
    output.warnings.extend(check::problems(tree)?);
    output.ids = accounts.ids();
    Ok(output)
}

/// The name under which a step's own nodes appear in messages and the manifest.
fn origin(step: &str) -> Arc<str> {
    Arc::from(format!("garboard/{step}"))
}
