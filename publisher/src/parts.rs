//! Release parts: what `garboard build` leaves beside the images so that a release can be made of them. The directory
//! `NAME-VERSION-ARCHITECTURE.release/` holds `parts.json` and the UKI; the root image is read from where `parts.json`
//! says, which is inside the raw disk image when there is one. Making them costs a build next to nothing: all hashing and
//! compressing is the publication's.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use disk_layout::{VeritySuperblock, Version};
use release_format::{Name, StateFloor};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::PublishError;
use crate::files;

/// The ending of the directories' names.
pub const ENDING: &str = ".release";
/// The description.
pub const PARTS_FILE: &str = "parts.json";
/// The UKI.
pub const UKI_FILE: &str = "uki.efi";
/// The root image, when no raw disk image holds it.
pub const ROOT_FILE: &str = "root.erofs";
/// Version of our own state's layout that images of this source tree have.
pub const STATE_LAYOUT: u32 = 1;
/// Packages whose programs change data on the state partition so that an older one cannot read them, and the names of
/// their components.
const STATEFUL: [(&str, &str); 2] = [("etcd-server", "etcd"), ("docker.io", "docker")];

/// `parts.json`. Not a public format: builder and publisher are one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// Version of this file.
    pub schema: u32,
    /// The image's name.
    pub image: Name,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub architecture: Name,
    /// Verity root hash, hexadecimal.
    pub root_hash: String,
    /// Bytes of the verity partition that are used.
    pub verity_size: u64,
    /// Salt of the verity tree, hexadecimal.
    pub verity_salt: String,
    /// UUID of the verity tree.
    pub verity_uuid: Uuid,
    /// The root image.
    pub root: FileRange,
    /// Its extents in order: path and length; the first one, without path, is the metadata.
    pub extents: Vec<(String, u64)>,
    /// The package or build step that each extent is of, for reports.
    #[serde(default)]
    pub owners: Vec<String>,
    /// Parts of the UKI in order: name of the section, or none, and length.
    pub sections: Vec<(String, u64)>,
    /// What must not go backwards.
    pub state: StateFloor,
}

/// A run of bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRange {
    /// The file, relative to the directory of `parts.json`.
    pub file: PathBuf,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// Release parts, opened.
#[derive(Debug)]
pub struct OpenParts {
    /// The description.
    pub parts: Parts,
    /// The version, parsed.
    pub version: Version,
    /// Where the root image is.
    pub root_path: PathBuf,
    /// The file that it is in.
    pub root: File,
    /// The UKI.
    pub uki: Vec<u8>,
}

impl Parts {
    /// The version of this file.
    pub const SCHEMA: u32 = 1;
}

impl OpenParts {
    /// All release parts in a directory, or the one that it is, by version.
    ///
    /// # Errors
    /// When there are none, or one cannot be read.
    pub fn find(out: &Path) -> Result<Vec<Self>, PublishError> {
        if out.join(PARTS_FILE).exists() {
            return Ok(vec![Self::open(out)?]);
        }
        let directories = files::names(out)?.into_iter().filter(|name| name.ends_with(ENDING)).map(|name| out.join(name));
        let mut found = directories.map(|directory| Self::open(&directory)).collect::<Result<Vec<_>, _>>()?;
        found.sort_by(|a, b| (&a.parts.image, &a.version).cmp(&(&b.parts.image, &b.version)));
        if found.is_empty() { Err(PublishError::NoParts(out.to_owned())) } else { Ok(found) }
    }

    fn open(directory: &Path) -> Result<Self, PublishError> {
        let path = directory.join(PARTS_FILE);
        let bad = |reason: String| PublishError::Text { path: path.clone(), reason };
        let parts: Parts = serde_json::from_slice(&files::read(&path)?).map_err(|error| bad(error.to_string()))?;
        if parts.schema != Parts::SCHEMA {
            return Err(bad(format!("written by another version of garboard (schema {}): build the version again", parts.schema)));
        }
        let version = parts.version.parse().map_err(|error: disk_layout::VersionError| bad(error.to_string()))?;
        let root_path = directory.join(&parts.root.file);
        let root = File::open(&root_path).map_err(PublishError::file("read the root image in", &root_path))?;
        let uki = files::read(&directory.join(UKI_FILE))?;
        Ok(Self { parts, version, root_path, root, uki })
    }

    /// The superblock of its verity tree.
    ///
    /// # Errors
    /// When the salt is not hexadecimal.
    pub fn superblock(&self) -> Result<VeritySuperblock, PublishError> {
        let text = self.parts.verity_salt.as_bytes();
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let salt: Option<Vec<u8>> = text.chunks(2).map(|pair| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?)).collect();
        let salt =
            salt.ok_or_else(|| PublishError::Text { path: self.root_path.clone(), reason: "the salt is not hexadecimal".to_owned() })?;
        Ok(VeritySuperblock { uuid: self.parts.verity_uuid, data_blocks: self.parts.root.size / disk_layout::VERITY_BLOCK_SIZE, salt })
    }
}

/// The state floor of an image with these packages: the minor versions of what keeps data on the state partition.
#[must_use]
pub fn state_floor<'a>(packages: impl Iterator<Item = (&'a str, &'a str)>) -> StateFloor {
    let mut components = BTreeMap::new();
    for (package, version) in packages {
        if let Some((_, component)) = STATEFUL.iter().find(|(name, _)| *name == package) {
            let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
            let mut numbers = upstream.split(|c: char| !c.is_ascii_digit());
            if let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) {
                components.insert((*component).to_owned(), format!("{major}.{minor}"));
            }
        }
    }
    StateFloor { layout: STATE_LAYOUT, components }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_versions_are_the_floor() {
        let floor = state_floor([("etcd-server", "3.5.16-4+b1"), ("docker.io", "1:26.1.5+dfsg1-9"), ("bash", "5.2-1")].into_iter());
        let expected = [("docker".to_owned(), "26.1".to_owned()), ("etcd".to_owned(), "3.5".to_owned())];
        assert_eq!(floor.components, expected.into());
    }
}
