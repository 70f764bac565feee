//! From a recipe to image files: the whole pipeline, each stage's work done elsewhere.
//!
//! lock -> fetch -> unpack -> steps -> image -> manifest. What a stage needs of an earlier one is data, so a stage can be
//! read and tested alone.

mod content;
mod initramfs;
mod manifest;
mod packages;
mod programs;
mod release;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use disk_layout::Version;
use serde::Serialize;

use crate::digest::Sha256;
use crate::image::build::{ImageInput, ImageResult, assemble};
use crate::image::gpt::PartitionSizes;
use crate::image::output::Format;
use crate::image::seed::Seed;
use crate::progress::{Event, Phase, Progress};
use crate::recipe::Recipe;
use crate::steps::accounts::{GroupSpec, UserSpec};
use crate::steps::factory::ImageIdentity;
use crate::steps::review::{self, Verdict};
use crate::steps::units::UnitSpec;
use crate::steps::{self, PackageRecord, StepsInput, StepsOutput};
use crate::tree::{Body, Tree};
use crate::whole_file;
use manifest::{Manifest, ManifestPackage, Unreviewed};

pub use packages::{Sources, lock};

/// The architecture in file names and the manifest.
const ARCHITECTURE: &str = "x86_64";
/// Where systemd-boot and the stub lie in their package.
const BOOT_DIRECTORY: &str = "usr/lib/systemd/boot";

/// What is wanted of a build beside the recipe.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The image's version.
    pub version: Version,
    /// Where the files go.
    pub out: PathBuf,
    /// Which files.
    pub formats: Vec<Format>,
    /// Whether the lock must be there and fit.
    pub locked: bool,
    /// Whether unreviewed maintainer scripts are an error.
    pub strict: bool,
    /// The TUF root metadata that the image trusts, instead of the recipe's.
    pub update_root: Option<PathBuf>,
    /// Directory of our own programs.
    pub programs: Option<PathBuf>,
    /// Where packages come from.
    pub sources: Sources,
}

/// What was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// All files, images first.
    pub files: Vec<PathBuf>,
    /// Root hash of the verity tree, hexadecimal.
    pub root_hash: String,
    /// The image's version.
    pub version: Version,
}

/// [`Built`] as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct BuildSummary {
    files: Vec<PathBuf>,
    root_hash: String,
    version: String,
}

impl Built {
    /// For `--json`.
    #[must_use]
    pub fn summary(&self) -> BuildSummary {
        BuildSummary { files: self.files.clone(), root_hash: self.root_hash.clone(), version: self.version.to_string() }
    }
}

/// Builds an image.
///
/// # Errors
/// When any stage fails; nothing is left under a final name that is not complete.
pub fn build(recipe: &Recipe, request: &BuildRequest, progress: &dyn Progress) -> Result<Built> {
    fs::create_dir_all(&request.out).with_context(|| format!("cannot make the output directory {}", request.out.display()))?;
    let Root { mut tree, chosen, input, output, init, manifest } = root(recipe, request, progress)?;
    let unreviewed = unreviewed_scripts(recipe, &input.packages, request.strict, progress)?;
    let boot = take_boot_parts(&mut tree, &output)?;
    let initramfs = initramfs::tree(&tree, init, &output.initramfs_modules)?;
    let summary = format!("{} files from {} packages", tree.len(), input.packages.len());
    progress.event(Event::End { phase: Phase::Tree, summary });

    let name = format!("{}-{}-{ARCHITECTURE}", recipe.name, request.version);
    let os_release = read_text(&tree, "usr/lib/os-release")?;
    let image = assemble(
        &ImageInput {
            tree: &tree,
            version: request.version.clone(),
            kernel: boot.kernel,
            kernel_release: &boot.release,
            initramfs: &initramfs,
            stub: boot.stub,
            systemd_boot: boot.systemd_boot,
            os_release: &os_release,
            cmdline: &recipe.kernel.cmdline,
            sizes: PartitionSizes { esp: recipe.partitions.esp.0, root: recipe.partitions.root.0, state: recipe.partitions.state.0 },
            seed: Seed::from_content(name.as_bytes()),
            formats: &request.formats,
            directory: request.out.clone(),
            base_name: &name,
        },
        progress,
    )?;
    let parts = release::write(recipe, request, &image, (&tree, &manifest), &name, progress)?;
    let manifest = manifest_of(recipe, request, &image, &boot.release, manifest, unreviewed, &tree)?;
    let mut files: Vec<PathBuf> = image.outputs.iter().map(|output| output.path.clone()).collect();
    for (ending, text) in [("manifest.json", manifest.to_json()), ("spdx.json", manifest.to_spdx())] {
        let path = request.out.join(format!("{name}.{ending}"));
        whole_file::write(&path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
        files.push(path);
    }
    files.extend(parts);
    chosen.save()?;
    Ok(Built { files, root_hash: image.root_hash_hex(), version: request.version.clone() })
}

/// The root file system of an image before anything is taken out of it for the boot partition.
struct Root {
    tree: Tree,
    chosen: packages::Chosen,
    input: StepsInput,
    output: StepsOutput,
    init: Body,
    manifest: Vec<ManifestPackage>,
}

fn root(recipe: &Recipe, request: &BuildRequest, progress: &dyn Progress) -> Result<Root> {
    let mut chosen = packages::choose(recipe, &request.sources, request.locked, progress)?;
    let unpacked = packages::unpack(&mut chosen, progress)?;
    let mut tree = unpacked.tree;
    progress.event(Event::Begin { phase: Phase::Tree, total: None });
    let init = programs::place(&mut tree, &programs::directory(request.programs.as_deref()))?;
    let mut input = steps_input(recipe, request, unpacked.records, chosen.ids())?;
    if let Some(root) = request.update_root.as_deref().or(recipe.update_root.as_deref()) {
        input.entries.push(release::trusted_root(root)?);
    }
    input.entries.push(release::state_floor_file(&unpacked.manifest)?);
    let output = steps::apply(&mut tree, &input)?;
    for text in &output.warnings {
        progress.event(Event::Warning { text: text.clone() });
    }
    chosen.pin_ids(&output.ids, request.locked)?;
    Ok(Root { tree, chosen, input, output, init, manifest: unpacked.manifest })
}

/// The root file system of a recipe's image after all steps, with what they were given and found, for tests that hold it
/// against other tools.
///
/// # Errors
/// As [`build`].
pub fn root_tree(recipe: &Recipe, request: &BuildRequest, progress: &dyn Progress) -> Result<(Tree, StepsInput, StepsOutput)> {
    let root = root(recipe, request, progress)?;
    Ok((root.tree, root.input, root.output))
}

fn steps_input(recipe: &Recipe, request: &BuildRequest, packages: Vec<PackageRecord>, ids: steps::accounts::Ids) -> Result<StepsInput> {
    let groups = recipe.groups.iter().map(|group| GroupSpec { name: group.name.clone(), gid: group.gid });
    let users = recipe.users.iter().map(|user| UserSpec {
        name: user.name.clone(),
        uid: user.uid,
        group: user.group.clone(),
        groups: user.groups.clone(),
        home: user.home.clone(),
        shell: user.shell.clone(),
        gecos: user.gecos.clone(),
    });
    Ok(StepsInput {
        image: ImageIdentity { variant: recipe.name.clone(), name: disk_layout::IMAGE_ID.to_owned(), version: request.version.to_string() },
        packages,
        groups: groups.collect(),
        users: users.collect(),
        ids,
        entries: content::entries(recipe)?,
        remove: recipe.remove.clone(),
        alternatives: recipe.alternatives.clone(),
        units: UnitSpec { enable: recipe.enable.clone(), mask: recipe.mask.clone() },
        initramfs_modules: recipe.kernel.initramfs_modules.clone(),
    })
}

/// Maintainer scripts that are not what was reviewed: named in the output and the manifest, fatal with `--strict`.
fn unreviewed_scripts(recipe: &Recipe, packages: &[PackageRecord], strict: bool, progress: &dyn Progress) -> Result<Vec<Unreviewed>> {
    let own = recipe.review.iter().map(|(package, review)| {
        let verdict = Verdict { scripts: review.scripts.clone(), verdict: review.verdict.clone() };
        (package.clone(), verdict)
    });
    let findings = review::table()?.with(own).findings(packages);
    for finding in &findings {
        progress.event(Event::Warning { text: finding.to_string() });
    }
    if strict && !findings.is_empty() {
        bail!(
            "--strict: {} maintainer scripts are not reviewed; when you have read them, add to the recipe: {}",
            findings.len(),
            review::suggestion(&findings)
        );
    }
    Ok(findings.into_iter().map(|finding| Unreviewed { package: finding.package, script: finding.script, sha256: finding.found }).collect())
}

/// What goes into the UKI and onto the ESP, and so leaves the root file system.
struct BootParts {
    kernel: Body,
    release: String,
    stub: Body,
    systemd_boot: Body,
}

fn take_boot_parts(tree: &mut Tree, output: &StepsOutput) -> Result<BootParts> {
    let release = output.kernel.clone().ok_or_else(|| anyhow!("no kernel is in the image: [kernel] package must name one"))?;
    let file = |path: &str, package: &str| {
        tree.file(path).cloned().ok_or_else(|| anyhow!("'{path}' is not in the image: add the package {package} to the recipe"))
    };
    let parts = BootParts {
        kernel: file(&format!("boot/vmlinuz-{release}"), "of [kernel]")?,
        stub: file(&format!("{BOOT_DIRECTORY}/efi/linuxx64.efi.stub"), "systemd-boot-efi")?,
        systemd_boot: file(&format!("{BOOT_DIRECTORY}/efi/systemd-bootx64.efi"), "systemd-boot-efi")?,
        release,
    };
    tree.remove(BOOT_DIRECTORY);
    let boot: Vec<String> = tree.below("boot").map(|(path, _)| path.to_owned()).collect();
    for path in boot {
        tree.remove(&path);
    }
    Ok(parts)
}

fn read_text(tree: &Tree, path: &str) -> Result<String> {
    let body = tree.file(path).ok_or_else(|| anyhow!("'{path}' is not in the image"))?;
    let bytes = body.read().with_context(|| format!("cannot read '{path}' of the image"))?;
    String::from_utf8(bytes).map_err(|_| anyhow!("'{path}' of the image is not text"))
}

fn manifest_of(
    recipe: &Recipe,
    request: &BuildRequest,
    image: &ImageResult,
    kernel: &str,
    packages: Vec<ManifestPackage>,
    unreviewed_scripts: Vec<Unreviewed>,
    tree: &Tree,
) -> Result<Manifest> {
    let mut hashes = BTreeMap::new();
    for path in programs::paths() {
        let bytes = tree.file(path).map(Body::read).transpose().with_context(|| format!("cannot read '{path}' of the image"))?;
        hashes.insert(path.to_owned(), Sha256::of(&bytes.unwrap_or_default()).to_string());
    }
    Ok(Manifest {
        schema: 1,
        name: recipe.name.clone(),
        version: request.version.to_string(),
        architecture: ARCHITECTURE.to_owned(),
        builder: env!("CARGO_PKG_VERSION").to_owned(),
        root_hash: image.root_hash_hex(),
        kernel: kernel.to_owned(),
        cmdline: image.cmdline.clone(),
        root_bytes: image.root_size,
        slot_bytes: image.slot_size,
        uki: image.uki_name.to_string(),
        uki_sha256: Sha256::of(&image.uki).to_string(),
        programs: hashes,
        packages,
        unreviewed_scripts,
    })
}
