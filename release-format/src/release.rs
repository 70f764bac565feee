//! A release's metadata: what a version consists of, for ever.

use std::collections::BTreeMap;

use disk_layout::{UkiName, VERITY_BLOCK_SIZE, VeritySuperblock, Version, hash_area_blocks};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::channel::{Channel, ChannelRelease, expect, parse, print};
use crate::digest::Digest;
use crate::error::FormatError;
use crate::limits::{MAX_DIFFERENCES, MAX_PACKS, MAX_PATCHES, MAX_RELEASE, MAX_ROOT, MAX_UKI};
use crate::map::{ContentMap, Part};
use crate::names::Name;
use crate::object::ObjectRef;
use crate::text;

const WHAT: &str = "release";
/// Bytes of the longest salt of a verity tree.
const MAX_SALT: usize = 256;

/// A version of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Version of this format: [`Release::FORMAT`].
    pub format: u32,
    /// The image's name.
    pub image: Name,
    /// For example `x86_64`.
    pub architecture: Name,
    /// Its version.
    #[serde(with = "text")]
    pub version: Version,
    /// Root hash of the verity tree over the root image.
    pub root_hash: Digest,
    /// Bytes of the root image.
    pub root_size: u64,
    /// Bytes of verity superblock and hash tree together, which a host makes itself.
    pub verity_size: u64,
    /// Salt of the tree, hexadecimal.
    pub verity_salt: String,
    /// UUID in the verity superblock.
    pub verity_uuid: Uuid,
    /// The unified kernel image.
    pub uki: UkiInfo,
    /// The content map.
    pub map: ObjectRef,
    /// SHA-256 of the content map's body, which does not depend on how it was compressed.
    pub map_body: Digest,
    /// The pack index.
    pub index: ObjectRef,
    /// The packs that the index counts.
    pub packs: Vec<ObjectRef>,
    /// Bytes of all ranges that a host with nothing fetches, small gaps between payloads included. 0 when it was not noted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub full_size: u64,
    /// Ways from earlier releases; an agent passes over those whose format it does not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<PatchInfo>,
    /// Patches from older releases than those: a list of its own, since every host reads this one ([`crate::OlderPatches`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_patches: Option<ObjectRef>,
    /// The patch packs that their tables count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patch_packs: Vec<ObjectRef>,
    /// For hosts that run earlier releases and have no patch that makes all: what map and index have beyond the earlier map; an agent passes
    /// over those whose format it does not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<DifferenceInfo>,
    /// What must not go backwards.
    #[serde(default)]
    pub state: StateFloor,
}

/// The unified kernel image of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UkiInfo {
    /// Its name when it is not on trial, `garboard_<version>.efi`.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// SHA-256 of all of it.
    pub sha256: Digest,
}

/// A patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchInfo {
    /// Version of the patch format.
    pub format: u32,
    /// Root hash of the release that it starts from.
    pub from: Digest,
    /// The table, which a host reads and verifies first. Agents that know format 1 alone look for `patch` before they pass over another
    /// format; it was the table and its payloads in one file.
    #[serde(rename = "patch")]
    pub table: ObjectRef,
    /// The kernel patch that goes with it, for hosts with the memory that it takes: what it makes comes by operations or chunks too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<ObjectRef>,
    /// Made of operations of other patches, so that it need not make all that is new.
    #[serde(default, skip_serializing_if = "is_false")]
    pub borrowed: bool,
    /// The number of the patch pack with operations that were made for it, beside those that it borrows. Later releases may borrow these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lends: Option<u16>,
}

impl PatchInfo {
    /// The version of the format of patches. Those of format 1 had their table and their payloads in one file, and nobody could borrow.
    pub const FORMAT: u32 = 2;
}

/// What map and index have beyond an earlier release's map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferenceInfo {
    /// Version of the format of differences.
    pub format: u32,
    /// Root hash of the earlier release.
    pub from: Digest,
    /// The file.
    pub difference: ObjectRef,
}

impl DifferenceInfo {
    /// The version of the format of differences.
    pub const FORMAT: u32 = 1;
}

/// What of the state partition a release's programs may have changed for good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFloor {
    /// Version of the layout of our own state.
    #[serde(default)]
    pub layout: u32,
    /// Versions of the components that keep data there, such as `etcd` -> `3.5`: a host does not go back to a release
    /// with an older one.
    #[serde(default)]
    pub components: BTreeMap<String, String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Release {
    /// The version of this format.
    pub const FORMAT: u32 = 1;

    /// Reads a release. Check it with [`ObjectRef::verify`] first.
    ///
    /// # Errors
    /// When it is not one that the specification allows, or of a later format.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let release: Self = parse(WHAT, bytes, MAX_RELEASE, Self::FORMAT)?;
        release.check()?;
        Ok(release)
    }

    /// The file.
    ///
    /// # Errors
    /// When it is not one that [`Release::decode`] takes.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        self.check()?;
        print(WHAT, self, MAX_RELEASE)
    }

    /// The superblock of the verity tree that a host is to make.
    ///
    /// # Errors
    /// When the salt is not hexadecimal.
    pub fn verity_superblock(&self) -> Result<VeritySuperblock, FormatError> {
        Ok(VeritySuperblock { uuid: self.verity_uuid, data_blocks: self.root_size / VERITY_BLOCK_SIZE, salt: self.salt()? })
    }

    /// Whether it is what a channel's entry says.
    ///
    /// # Errors
    /// When it is of another image, architecture, version or root hash.
    pub fn expect(&self, channel: &Channel, entry: &ChannelRelease) -> Result<(), FormatError> {
        expect("image", &self.image, &channel.image)?;
        expect("architecture", &self.architecture, &channel.architecture)?;
        expect("version", &self.version, &entry.version)?;
        expect("root-hash", &self.root_hash, &entry.root_hash)
    }

    /// Whether a content map is of this release's root image and UKI.
    ///
    /// # Errors
    /// When a size differs.
    pub fn expect_map(&self, map: &ContentMap) -> Result<(), FormatError> {
        for (part, map, release) in [(Part::Root, map.root_size(), self.root_size), (Part::Uki, map.uki_size(), self.uki.size)] {
            if map != release {
                return Err(FormatError::MapOfOtherRelease { part, map, release });
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), FormatError> {
        let bad = |reason: &str| Err(FormatError::Syntax { what: WHAT, reason: reason.to_owned() });
        if self.root_size == 0 || !self.root_size.is_multiple_of(VERITY_BLOCK_SIZE) || self.root_size > MAX_ROOT {
            return bad("root_size is not a number of blocks that a slot could have");
        }
        if self.verity_size != hash_area_blocks(self.root_size / VERITY_BLOCK_SIZE) * VERITY_BLOCK_SIZE {
            return bad("verity_size is not what a tree over root_size has");
        }
        self.salt()?;
        if self.uki.size == 0 || self.uki.size > MAX_UKI {
            return bad("the UKI has an impossible size");
        }
        if self.uki.name != UkiName::settled(self.version.clone()).to_string() {
            return bad("the UKI's name is not that of this version");
        }
        for (things, found, limit) in [
            ("packs", self.packs.len(), MAX_PACKS),
            ("patches", self.patches.len(), MAX_PATCHES),
            ("patch packs", self.patch_packs.len(), MAX_PACKS),
            ("differences", self.differences.len(), MAX_DIFFERENCES),
        ] {
            if found > limit {
                return Err(FormatError::TooMany { what: WHAT, things, found: found as u64, limit: limit as u64 });
            }
        }
        Ok(())
    }

    fn salt(&self) -> Result<Vec<u8>, FormatError> {
        let bad = || FormatError::Syntax { what: WHAT, reason: "verity_salt is not hexadecimal of at most 256 bytes".to_owned() };
        let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|value| value as u8);
        let text = self.verity_salt.as_bytes();
        if !text.len().is_multiple_of(2) || text.len() > 2 * MAX_SALT {
            return Err(bad());
        }
        let byte = |pair: &[u8]| Some(pair.first().and_then(digit)? << 4 | pair.last().and_then(digit)?);
        text.chunks_exact(2).map(byte).collect::<Option<_>>().ok_or_else(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release() -> Release {
        let object = ObjectRef::of(b"x");
        Release {
            format: 1,
            image: "tiny".parse().unwrap(),
            architecture: "x86_64".parse().unwrap(),
            version: "1.1".parse().unwrap(),
            root_hash: Digest::of(b"root"),
            root_size: 129 * 4096,
            verity_size: 4 * 4096,
            verity_salt: "00ff".to_owned(),
            verity_uuid: Uuid::from_bytes([7; 16]),
            uki: UkiInfo { name: "garboard_1.1.efi".to_owned(), size: 100, sha256: Digest::of(b"uki") },
            map: object,
            map_body: Digest::of(b"map"),
            index: object,
            packs: vec![object],
            full_size: 0,
            patches: Vec::new(),
            older_patches: None,
            patch_packs: Vec::new(),
            differences: Vec::new(),
            state: StateFloor { layout: 1, components: [("etcd".to_owned(), "3.5".to_owned())].into() },
        }
    }

    #[test]
    fn releases_round_trip() {
        let release = release();
        assert_eq!(Release::decode(&release.encode().unwrap()), Ok(release.clone()));
        let superblock = release.verity_superblock().unwrap();
        assert_eq!((superblock.data_blocks, superblock.salt), (129, vec![0, 0xff]));
    }

    #[test]
    fn agents_that_know_format_1_alone_pass_over_patches_of_format_2() {
        #[derive(Debug, Deserialize)]
        struct First {
            format: u32,
            patch: ObjectRef,
            table: Option<ObjectRef>,
        }
        let info = PatchInfo {
            format: PatchInfo::FORMAT,
            from: Digest::of(b"old"),
            table: ObjectRef::of(b"table"),
            kernel: None,
            borrowed: true,
            lends: None,
        };
        let text = serde_json::to_string(&info).unwrap();
        let first: First = serde_json::from_str(&text).unwrap();
        assert_eq!((first.format, first.patch, first.table), (2, info.table, None));
        assert_eq!(serde_json::from_str::<PatchInfo>(&text).unwrap(), info);
    }

    #[test]
    fn what_a_later_program_adds_is_passed_over() {
        let text = String::from_utf8(release().encode().unwrap()).unwrap();
        let more = text.replacen('{', r#"{"colour": "red", "#, 1);
        assert_eq!(Release::decode(more.as_bytes()), Ok(release()));
        let error = Release::decode(text.replacen("\"format\":1", "\"format\":2", 1).as_bytes()).unwrap_err();
        assert_eq!(error.kind(), "format-version");
    }

    #[test]
    fn releases_that_cannot_be_are_refused() {
        let refused = |change: fn(&mut Release)| {
            let mut release = release();
            change(&mut release);
            release.encode().unwrap_err().kind()
        };
        assert_eq!(refused(|release| release.root_size += 1), "metadata-syntax");
        assert_eq!(refused(|release| release.verity_size += 4096), "metadata-syntax");
        assert_eq!(refused(|release| release.verity_salt.push('0')), "metadata-syntax");
        assert_eq!(refused(|release| release.verity_salt = "+f".to_owned()), "metadata-syntax");
        assert_eq!(refused(|release| release.uki.name = "../../x.efi".to_owned()), "metadata-syntax");
        assert_eq!(refused(|release| release.uki.size = u64::MAX), "metadata-syntax");
        assert_eq!(refused(|release| release.packs = vec![ObjectRef::of(b""); 257]), "format-too-many");
        let difference = DifferenceInfo { format: 1, from: Digest::of(b"old"), difference: ObjectRef::of(b"") };
        let full = Release { differences: vec![difference; 64], ..release() };
        assert!(full.encode().unwrap().len() < 32 << 10);
        let over = Release { differences: vec![full.differences[0].clone(); 65], ..release() };
        assert_eq!(over.encode().unwrap_err().kind(), "format-too-many");
    }

    #[test]
    fn a_release_of_something_else_is_named() {
        let release = release();
        let entry = ChannelRelease {
            version: "1.1".parse().unwrap(),
            root_hash: release.root_hash,
            release: ObjectRef::of(b""),
            format: 1,
            stepping_stone: None,
            rollout: None,
            withdrawn: false,
            retired: false,
        };
        let channel = Channel {
            format: 1,
            channel: "stable".parse().unwrap(),
            image: "tiny".parse().unwrap(),
            architecture: "x86_64".parse().unwrap(),
            releases: vec![entry.clone()],
        };
        assert_eq!(release.expect(&channel, &entry), Ok(()));
        let kind = |release: &Release| release.expect(&channel, &entry).unwrap_err().kind();
        assert_eq!(kind(&Release { image: "docker".parse().unwrap(), ..release.clone() }), "other-image");
        assert_eq!(kind(&Release { architecture: "aarch64".parse().unwrap(), ..release.clone() }), "other-architecture");
        assert_eq!(kind(&Release { version: "1.2".parse().unwrap(), ..release.clone() }), "other-version");
        assert_eq!(kind(&Release { root_hash: Digest::of(b"other"), ..release.clone() }), "other-root-hash");
    }
}
