//! Publishing releases, withdrawing them, and keeping a repository's metadata fresh.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use disk_layout::{UkiName, VeritySuperblock, Version};
use jiff::Timestamp;
use release_format::{Channel, ChannelRelease, Digest, Name, ObjectKind, Release, Rollout, UkiInfo};
use serde::Serialize;

use crate::cost::{self, Costs};
use crate::earlier::{self, History};
use crate::error::PublishError;
use crate::keys::Keys;
use crate::metadata::{Expiries, Role};
use crate::pack;
use crate::parts::OpenParts;
use crate::prune;
use crate::repository::{Repository, Resign, empty_channel, target_of};
use crate::ways::{self, Ways};

/// zstd level of chunks: they are compressed once and downloaded often.
pub const DEFAULT_LEVEL: i32 = 19;

/// Computes the verity root hash of a run of a file: file, first byte, bytes, superblock.
pub type RootHash<'a> = &'a dyn Fn(&File, u64, u64, &VeritySuperblock) -> io::Result<[u8; 32]>;

/// How a release is offered.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// To whom when; to all at once when absent.
    pub rollout: Option<Rollout>,
    /// What older hosts take first.
    pub stepping_stone: Option<Version>,
    /// From how many versions before it patches are made; from others they are borrowed.
    pub patches: usize,
}

/// Where and when something is published.
pub struct Context<'a> {
    /// The repository.
    pub repository: &'a mut Repository,
    /// The keys.
    pub keys: &'a Keys,
    /// How long metadata are valid.
    pub expiries: &'a Expiries,
    /// The time.
    pub now: Timestamp,
}

/// What was done with one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Published {
    /// The image.
    pub image: String,
    /// The version.
    pub version: String,
    /// Whether it was there already, with the same bytes.
    pub already: bool,
    /// Bytes of the new pack.
    pub new_pack: u64,
    /// Whether all chunks went into the new pack, so that older packs can be pruned.
    pub rebased: bool,
    /// Bytes of the root image and the UKI.
    pub image_bytes: u64,
    /// What it costs; for versions published before, not computed again.
    pub costs: Option<Costs>,
}

/// What a refresh did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refreshed {
    /// Roles whose metadata were signed anew.
    pub signed: Vec<Role>,
    /// When each expires now.
    pub expires: BTreeMap<String, String>,
    /// What somebody has to do soon.
    pub warnings: Vec<String>,
}

/// Publishes all release parts of a directory in a channel.
///
/// # Errors
/// When one cannot be published; then none is.
pub fn publish(
    context: &mut Context<'_>,
    out: &Path,
    channel: &Name,
    offer: &Offer,
    level: i32,
    root_hash: RootHash<'_>,
) -> Result<Vec<Published>, PublishError> {
    let mut channels = context.repository.channels();
    let mut published = Vec::new();
    for parts in OpenParts::find(out)? {
        let empty = empty_channel(channel.clone(), parts.parts.image.clone(), parts.parts.architecture.clone());
        let target = target_of(&empty);
        let mut list = channels.get(&target).cloned().unwrap_or(empty);
        published.push(publish_one(context, &parts, &channels, &mut list, offer, level, root_hash)?);
        channels.insert(target, list);
    }
    let resign = if channels == context.repository.channels() { resign_for(context) } else { Resign::Targets };
    commit(context, &channels, resign)?;
    Ok(published)
}

fn publish_one(
    context: &Context<'_>,
    parts: &OpenParts,
    channels: &BTreeMap<String, Channel>,
    list: &mut Channel,
    offer: &Offer,
    level: i32,
    root_hash: RootHash<'_>,
) -> Result<Published, PublishError> {
    let version = &parts.version;
    let expected: Digest = parts.parts.root_hash.parse().map_err(|reason| PublishError::Text { path: parts.root_path.clone(), reason })?;
    let image_bytes = parts.parts.root.size + parts.uki.len() as u64;
    let mut report = Published {
        image: parts.parts.image.to_string(),
        version: version.to_string(),
        already: true,
        new_pack: 0,
        rebased: false,
        image_bytes,
        costs: None,
    };
    // In any channel: what was tested as beta must be what becomes stable.
    let same_image = |other: &&Channel| other.image == list.image && other.architecture == list.architecture;
    let others: Vec<&Channel> = channels.values().filter(same_image).collect();
    let before = others.iter().find_map(|other| other.release(version));
    if let Some(entry) = before {
        if let Some(other) = others.iter().find(|other| other.release(version).is_some_and(|entry| entry.withdrawn)) {
            return Err(PublishError::Withdrawn { version: version.clone(), channel: other.channel.to_string() });
        }
        let same = entry.root_hash == expected && !entry.retired && {
            let release = context.repository.read_release(&entry.release)?;
            release.uki.sha256 == Digest::of(&parts.uki)
        };
        if !same {
            return Err(PublishError::Republished { version: version.clone() });
        }
        let here = list.release(version).cloned();
        let entry = here.unwrap_or_else(|| ChannelRelease { rollout: None, stepping_stone: None, ..entry.clone() });
        insert(list, entry, offer);
        return Ok(report);
    }

    let superblock = parts.superblock()?;
    let range = &parts.parts.root;
    let found = root_hash(&parts.root, range.offset, range.size, &superblock);
    let found = Digest::new(found.map_err(PublishError::file("read the root image in", &parts.root_path))?);
    if found != expected {
        let (expected, found) = (expected.to_string(), found.to_string());
        return Err(PublishError::Changed { path: parts.root_path.clone(), expected, found });
    }
    let entries = others.iter().flat_map(|other| &other.releases).collect();
    let History { earlier, told, known } = earlier::history(entries, version, offer.patches, context.repository)?;
    let packed = pack::pack(parts, &known, context.repository, level)?;
    drop(known);
    let mut costs = cost::costs(&packed.map, &packed.index, &told, packed.map_and_index());
    let Ways { patches, older_patches, patch_packs, differences } =
        ways::write(parts, &packed, &earlier, offer.patches, &mut costs, context.repository, level)?;
    let release = Release {
        format: Release::FORMAT,
        image: parts.parts.image.clone(),
        architecture: parts.parts.architecture.clone(),
        version: version.clone(),
        root_hash: expected,
        root_size: range.size,
        verity_size: parts.parts.verity_size,
        verity_salt: parts.parts.verity_salt.clone(),
        verity_uuid: parts.parts.verity_uuid,
        uki: UkiInfo { name: UkiName::settled(version.clone()).to_string(), size: parts.uki.len() as u64, sha256: Digest::of(&parts.uki) },
        map: packed.map_object,
        map_body: packed.map_body,
        index: packed.index_object,
        packs: packed.packs,
        full_size: costs.full.bytes,
        patches,
        older_patches,
        patch_packs,
        differences,
        state: parts.parts.state.clone(),
    };
    let bytes = release.encode().map_err(PublishError::format(&format!("version {version}")))?;
    let object = context.repository.write_object(&bytes, ObjectKind::Release)?;
    let entry = ChannelRelease {
        version: version.clone(),
        root_hash: expected,
        release: object,
        format: Release::FORMAT,
        stepping_stone: None,
        rollout: None,
        withdrawn: false,
        retired: false,
    };
    insert(list, entry, offer);
    report.already = false;
    report.rebased = packed.rebased;
    report.new_pack = packed.new_pack.map_or(0, |pack| pack.size);
    report.costs = Some(costs);
    Ok(report)
}

/// Puts an entry where its version belongs, in place of one of the same version. What the offer does not say stays, and
/// so does the start of a roll-out: hosts that had their turn keep it.
fn insert(list: &mut Channel, mut entry: ChannelRelease, offer: &Offer) {
    if let Some(rollout) = &offer.rollout {
        let start = entry.rollout.as_ref().filter(|before| !before.waves.is_empty()).map_or(rollout.start, |before| before.start);
        entry.rollout = Some(Rollout { start, ..rollout.clone() });
    }
    if offer.stepping_stone.is_some() {
        entry.stepping_stone.clone_from(&offer.stepping_stone);
    }
    let at = list.releases.partition_point(|other| other.version < entry.version);
    match list.releases.get_mut(at).filter(|other| other.version == entry.version) {
        Some(same) => *same = entry,
        None => list.releases.insert(at, entry),
    }
}

/// Takes a version back: no host takes it any more. Hosts that run it go on.
///
/// # Errors
/// When the channel has no such version.
pub fn withdraw(context: &mut Context<'_>, channel: &Name, image: Option<&Name>, version: &Version) -> Result<(), PublishError> {
    let mut channels = context.repository.channels();
    let target = choose(&channels, channel, image)?;
    let missing = || PublishError::NoVersion { channel: channel.to_string(), version: version.clone() };
    let list = channels.get_mut(&target).ok_or_else(missing)?;
    let entry = list.releases.iter_mut().find(|entry| entry.version == *version).ok_or_else(missing)?;
    entry.withdrawn = true;
    commit(context, &channels, Resign::Targets)
}

/// Signs anew what the keys here can sign: the timestamp always, the others when a key was replaced or half of their
/// time is over.
///
/// # Errors
/// When nothing was published yet, or the timestamp key is missing.
pub fn refresh(context: &mut Context<'_>) -> Result<Refreshed, PublishError> {
    if context.repository.is_new() {
        return Err(PublishError::NoRepository(context.repository.directory().to_owned()));
    }
    let resign = resign_for(context);
    let channels = context.repository.channels();
    commit(context, &channels, resign)?;
    let signed = match resign {
        Resign::Timestamp => vec![Role::Timestamp],
        Resign::Snapshot => vec![Role::Snapshot, Role::Timestamp],
        Resign::Targets => vec![Role::Targets, Role::Snapshot, Role::Timestamp],
    };
    let mut refreshed = Refreshed { signed, expires: BTreeMap::new(), warnings: Vec::new() };
    for role in Role::ALL {
        let expires = context.repository.expires(role).unwrap_or(context.keys.root().expires);
        refreshed.expires.insert(role.to_string(), expires.to_string());
        let days = (expires.as_second() - context.now.as_second()) / 86_400;
        // What is not refreshed in time stops all updates.
        if days * 4 < i64::from(context.expiries.days(role)) && role != Role::Timestamp {
            let act = if role == Role::Root { "run 'garboard keys rotate'" } else { "run 'garboard publish --refresh' with its key" };
            refreshed.warnings.push(format!("{role} metadata expire in {days} days, at {expires}: {act}"));
        }
    }
    Ok(refreshed)
}

/// Drops what no supported version needs: all but the newest `keep` releases of each channel, and the stepping stones of
/// those, become `retired`, and what nothing refers to any more is deleted. Says what was deleted, in bytes.
///
/// # Errors
/// When nothing was published yet, what a release needs cannot be read, keys are missing or files cannot be deleted.
pub fn prune(context: &mut Context<'_>, keep: usize) -> Result<prune::Pruned, PublishError> {
    if context.repository.is_new() {
        return Err(PublishError::NoRepository(context.repository.directory().to_owned()));
    }
    let mut channels = context.repository.channels();
    let retired = prune::retire(&mut channels, keep);
    let needed = prune::needed(context.repository, &channels)?;
    let resign = if retired.is_empty() { resign_for(context) } else { Resign::Targets };
    commit(context, &channels, resign)?;
    prune::delete(context.repository, &channels, needed, retired)
}

/// The target of the channel that is meant.
///
/// # Errors
/// When there is none, or it is not clear which.
pub fn choose(channels: &BTreeMap<String, Channel>, channel: &Name, image: Option<&Name>) -> Result<String, PublishError> {
    let meant = |list: &&Channel| list.channel == *channel && image.is_none_or(|image| list.image == *image);
    let found: Vec<&Channel> = channels.values().filter(meant).collect();
    match found.as_slice() {
        [one] => Ok(target_of(one)),
        [] => Err(PublishError::NoChannel(format!("the repository has no channel '{channel}' of that image"))),
        several => {
            let images: Vec<String> = several.iter().map(|list| list.image.to_string()).collect();
            Err(PublishError::NoChannel(format!("channel '{channel}' is there for {}: say --image", images.join(", "))))
        }
    }
}

/// What is due and can be done beside the timestamp.
fn resign_for(context: &Context<'_>) -> Resign {
    let due = |role: Role| {
        let half = i64::from(context.expiries.days(role)) * 86_400 / 2;
        let expires = context.repository.expires(role).map_or(0, |expires| expires.as_second());
        !context.repository.is_signed_for(role, context.keys) || expires - context.now.as_second() < half
    };
    let can = |role: Role| context.keys.can_sign(role);
    if due(Role::Targets) && can(Role::Targets) && can(Role::Snapshot) {
        Resign::Targets
    } else if due(Role::Snapshot) && can(Role::Snapshot) {
        Resign::Snapshot
    } else {
        Resign::Timestamp
    }
}

fn commit(context: &mut Context<'_>, channels: &BTreeMap<String, Channel>, resign: Resign) -> Result<(), PublishError> {
    context.repository.commit(channels, resign, context.keys, context.expiries, context.now)
}
