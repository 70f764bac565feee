//! The release parts, of which `garboard publish` makes a release, and the root of trust that goes into the image.
//!
//! A build only writes down what it knows and the UKI; the root image stays where it is, inside the raw disk image, and
//! is written apart only when no raw disk image is.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use disk_layout::hash_area_blocks;
use publisher::parts::{ENDING, FileRange, PARTS_FILE, Parts, ROOT_FILE, UKI_FILE, state_floor};
use release_format::{Name, StateFloor};

use super::manifest::ManifestPackage;
use super::{ARCHITECTURE, BuildRequest};
use crate::digest::hex;
use crate::image::build::ImageResult;
use crate::image::output::Format;
use crate::progress::{Event, Progress};
use crate::recipe::Recipe;
use crate::steps::files::{Entry, What};
use crate::tree::{Body, Tree};
use crate::whole_file;

/// Where the update agent finds the root of trust.
pub const TRUSTED_ROOT: &str = "usr/share/garboard/update/root.json";

/// Where the update agent finds what the image's programs do to a host's state.
const STATE_FLOOR: &str = "usr/share/garboard/update/state.json";

fn entry(path: &str, bytes: Vec<u8>) -> Entry {
    Entry {
        path: path.to_owned(),
        what: What::File(Body::from_bytes(bytes)),
        mode: 0o644,
        owner: "root".to_owned(),
        group: "root".to_owned(),
    }
}

fn floor(packages: &[ManifestPackage]) -> StateFloor {
    state_floor(packages.iter().map(|package| (package.name.as_str(), package.version.as_str())))
}

/// The file that says what the image's programs do to a host's state: the same as the release will say.
pub fn state_floor_file(packages: &[ManifestPackage]) -> Result<Entry> {
    Ok(entry(STATE_FLOOR, serde_json::to_vec(&floor(packages))?))
}

/// The file that makes an image trust updates.
pub fn trusted_root(path: &Path) -> Result<Entry> {
    let bytes = fs::read(path).with_context(|| format!("cannot read the root of trust {}", path.display()))?;
    publisher::check_trusted_root(&bytes, path)?;
    Ok(entry(TRUSTED_ROOT, bytes))
}

/// Writes the release parts; says which files they are.
pub fn write(
    recipe: &Recipe,
    request: &BuildRequest,
    image: &ImageResult,
    (tree, packages): (&Tree, &[ManifestPackage]),
    base_name: &str,
    progress: &dyn Progress,
) -> Result<Vec<PathBuf>> {
    let Ok(name) = recipe.name.parse::<Name>() else {
        let text = format!("the image's name '{}' has other characters than a-z, 0-9, - and _, so it cannot be published", recipe.name);
        progress.event(Event::Warning { text });
        return Ok(Vec::new());
    };
    let directory = request.out.join(format!("{base_name}{ENDING}"));
    fs::create_dir_all(&directory).with_context(|| format!("cannot make the directory {}", directory.display()))?;
    let written = write_into(&directory, name, request, image, tree, packages);
    if written.is_err() {
        // Whatever was there before belonged to an image that is gone.
        let _ = fs::remove_dir_all(&directory);
    }
    written
}

fn write_into(
    directory: &Path,
    name: Name,
    request: &BuildRequest,
    image: &ImageResult,
    tree: &Tree,
    packages: &[ManifestPackage],
) -> Result<Vec<PathBuf>> {
    let raw = image.outputs.iter().find(|output| output.format == Format::Raw);
    let (file, offset) = match raw.and_then(|raw| raw.path.file_name()) {
        Some(raw) => (Path::new("..").join(raw), image.root_offset),
        None => {
            write_root(image, &directory.join(ROOT_FILE))?;
            (PathBuf::from(ROOT_FILE), 0)
        }
    };
    let parts = Parts {
        schema: Parts::SCHEMA,
        image: name,
        version: request.version.to_string(),
        architecture: ARCHITECTURE.parse()?,
        root_hash: image.root_hash_hex(),
        verity_size: hash_area_blocks(image.superblock.data_blocks) * disk_layout::VERITY_BLOCK_SIZE,
        verity_salt: hex(&image.superblock.salt),
        verity_uuid: image.superblock.uuid,
        root: FileRange { file, offset, size: image.root_size },
        extents: image.extents.iter().map(|extent| (extent.path.clone().unwrap_or_default(), extent.len)).collect(),
        owners: image.extents.iter().map(|extent| owner(tree, extent.path.as_deref())).collect(),
        sections: image.uki_layout.clone(),
        state: floor(packages),
    };
    let uki = directory.join(UKI_FILE);
    let whole = |path: &Path, bytes: &[u8]| whole_file::write(path, bytes).with_context(|| format!("cannot write {}", path.display()));
    whole(&uki, &image.uki)?;
    // Last: a directory with it is whole.
    let description = directory.join(PARTS_FILE);
    whole(&description, &serde_json::to_vec(&parts)?)?;
    Ok(vec![description, uki])
}

/// The package or build step that a file comes from.
fn owner(tree: &Tree, path: Option<&str>) -> String {
    path.and_then(|path| tree.get(path)).map_or_else(String::new, |node| node.origin.to_string())
}

fn write_root(image: &ImageResult, path: &Path) -> Result<()> {
    let write = || {
        let mut file = whole_file::begin(path)?;
        let mut writer = BufWriter::new(file.as_file_mut());
        image.root.write(&mut writer)?;
        writer.flush()?;
        drop(writer);
        whole_file::finish(file, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
