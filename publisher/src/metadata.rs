//! TUF metadata: the four roles, how long each is valid, and signing. The structures are `tough`'s.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU64;
use std::path::Path;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use release_format::Digest;
use serde::Serialize;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::{self, Hashes, Metafile, RoleType, Root, Signature, Signed};

use crate::error::PublishError;
use crate::signer::Signer;

/// The version of the TUF specification that metadata state.
pub const SPEC_VERSION: &str = "1.0.0";

/// The four roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Says which keys the others have. Kept offline.
    Root,
    /// Signs channels. Used at every publication.
    Targets,
    /// Signs which targets belong together. Used at every publication.
    Snapshot,
    /// Signs what is the newest, for a short time. Kept online, for refreshing.
    Timestamp,
}

impl Role {
    /// All roles, most trusted first.
    pub const ALL: [Self; 4] = [Self::Root, Self::Targets, Self::Snapshot, Self::Timestamp];

    pub(crate) fn tuf(self) -> RoleType {
        match self {
            Self::Root => RoleType::Root,
            Self::Targets => RoleType::Targets,
            Self::Snapshot => RoleType::Snapshot,
            Self::Timestamp => RoleType::Timestamp,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Targets => "targets",
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
        })
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.to_string() == text);
        found.ok_or_else(|| format!("'{text}' is not a role: root, targets, snapshot or timestamp"))
    }
}

/// For how many days each role's metadata are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiries {
    /// Of root.json.
    pub root: u32,
    /// Of targets, and so of bundles.
    pub targets: u32,
    /// Of the snapshot.
    pub snapshot: u32,
    /// Of the timestamp: how long somebody who holds back newer metadata goes unnoticed.
    pub timestamp: u32,
}

impl Default for Expiries {
    fn default() -> Self {
        Self { root: 730, targets: 365, snapshot: 365, timestamp: 14 }
    }
}

impl Expiries {
    /// Days of a role.
    #[must_use]
    pub fn days(&self, role: Role) -> u32 {
        match role {
            Role::Root => self.root,
            Role::Targets => self.targets,
            Role::Snapshot => self.snapshot,
            Role::Timestamp => self.timestamp,
        }
    }

    /// When what is signed now expires, in whole seconds.
    #[must_use]
    pub fn from(&self, now: Timestamp, role: Role) -> Timestamp {
        let seconds = i64::from(self.days(role)) * 86_400;
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
    }
}

/// Signs metadata with every key of the role that is here.
pub fn sign<T: schema::Role>(value: T, role: Role, root: &Root, signers: &[Signer], directory: &Path) -> Result<Signed<T>, PublishError> {
    let mut signed = Signed { signed: value, signatures: Vec::new() };
    add_signatures(&mut signed, role, root, signers)?;
    let need = root.roles.get(&role.tuf()).map_or(1, |keys| keys.threshold.get());
    let have = signed.signatures.len() as u64;
    if have < need {
        return Err(PublishError::MissingKeys { role, need, have, directory: directory.to_owned() });
    }
    Ok(signed)
}

/// Adds the signatures of those keys that `root` gives the role and that have not signed yet.
pub fn add_signatures<T: schema::Role>(signed: &mut Signed<T>, role: Role, root: &Root, signers: &[Signer]) -> Result<(), PublishError> {
    let message = schema::Role::canonical_form(&signed.signed).map_err(|error| encode("metadata", &error))?;
    let Some(keys) = root.roles.get(&role.tuf()) else { return Ok(()) };
    for signer in signers {
        let keyid = signer.key_id()?;
        let is_new = signed.signatures.iter().all(|signature| signature.keyid != keyid);
        if is_new && keys.keyids.contains(&keyid) {
            let sig = signer.sign(role, &message)?.into();
            signed.signatures.push(Signature { keyid, sig });
        }
    }
    Ok(())
}

/// Signed metadata as a file.
pub fn to_bytes<T: Serialize>(signed: &Signed<T>) -> Result<Vec<u8>, PublishError> {
    let mut bytes = serde_json::to_vec(signed).map_err(|error| encode("metadata", &error))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// How other metadata name this file.
pub fn metafile(bytes: &[u8], version: NonZeroU64) -> Metafile {
    Metafile { length: Some(bytes.len() as u64), hashes: Some(hashes(&Digest::of(bytes))), version, _extra: HashMap::new() }
}

pub fn hashes(digest: &Digest) -> Hashes {
    Hashes { sha256: hex(digest.as_bytes()), _extra: HashMap::new() }
}

pub fn hex(bytes: &[u8]) -> Decoded<Hex> {
    bytes.to_vec().into()
}

pub fn encode(what: &'static str, error: &dyn fmt::Display) -> PublishError {
    PublishError::Encode { what, reason: error.to_string() }
}

/// Reads a root.json and checks that it is signed by its own keys.
pub fn parse_root(bytes: &[u8], path: &Path) -> Result<Signed<Root>, PublishError> {
    let text = |reason: String| PublishError::Text { path: path.to_owned(), reason };
    let root: Signed<Root> = serde_json::from_slice(bytes).map_err(|error| text(format!("not TUF root metadata: {error}")))?;
    root.signed.verify_role(&root).map_err(|error| text(format!("not signed by its own keys: {error}")))?;
    Ok(root)
}

/// Whether a file is fit to be the root of trust in an image; says its version.
///
/// # Errors
/// When it is no root.json, or not signed by its own keys.
pub fn check_trusted_root(bytes: &[u8], path: &Path) -> Result<u64, PublishError> {
    parse_root(bytes, path).map(|root| root.signed.version.get())
}
