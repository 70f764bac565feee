//! A directory of keys: `root.json`, which says whose signatures count and is put into images, every version of it
//! so far as `N.root.json`, and those private keys that are here. Which role a key belongs to is said by root.json alone;
//! a key that is kept elsewhere is simply a file that is missing here.

use std::collections::HashMap;
use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use tough::schema::{RoleKeys, Root, Signed};

use crate::error::PublishError;
use crate::files;
use crate::metadata::{self, Expiries, Role, SPEC_VERSION};
use crate::signer::Signer;

/// The newest root metadata.
pub const ROOT_FILE: &str = "root.json";
/// Where replaced private keys go.
const OLD_KEYS: &str = "old";

/// An opened directory of keys.
#[derive(Debug)]
pub struct Keys {
    directory: PathBuf,
    root: Signed<Root>,
    signers: Vec<Signer>,
}

/// How many keys a role gets, and how many must sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// Keys.
    pub keys: u64,
    /// Signatures.
    pub signatures: u64,
}

impl Threshold {
    /// One key.
    pub const ONE: Self = Self { keys: 1, signatures: 1 };
}

/// What `keys show` says of a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RoleReport {
    /// The role.
    pub role: Role,
    /// Signatures needed.
    pub threshold: u64,
    /// Its keys.
    pub keys: Vec<KeyReport>,
}

/// A key of a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyReport {
    /// Its name in metadata.
    pub id: String,
    /// Its file here, if it is.
    pub file: Option<PathBuf>,
}

/// What `keys show` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeysReport {
    /// Version of root.json.
    pub version: u64,
    /// When it expires.
    pub expires: String,
    /// The roles.
    pub roles: Vec<RoleReport>,
    /// Private keys here that root.json does not name.
    pub unused: Vec<PathBuf>,
    /// Private keys that others than their owner can read.
    pub exposed: Vec<PathBuf>,
}

impl Keys {
    /// Makes keys and the first root.json. A role for which there are `ROLE.signer.toml` or `ROLE-*.signer.toml` in the
    /// directory gets those; the others get new keys in files.
    ///
    /// # Errors
    /// When there are keys already, or files cannot be written.
    pub fn init(directory: &Path, root_keys: Threshold, expiries: &Expiries, now: Timestamp) -> Result<Self, PublishError> {
        files::make_directory(directory)?;
        if directory.join(ROOT_FILE).exists() {
            return Err(PublishError::KeysExist(directory.to_owned()));
        }
        let mut root = Root {
            spec_version: SPEC_VERSION.to_owned(),
            consistent_snapshot: true,
            version: NonZeroU64::MIN,
            expires: expiries.from(now, Role::Root),
            keys: HashMap::new(),
            roles: HashMap::new(),
            _extra: HashMap::new(),
        };
        for role in Role::ALL {
            let threshold = if role == Role::Root { root_keys } else { Threshold::ONE };
            set_role(&mut root, role, threshold, directory, &|_| true)?;
        }
        let signers = Signer::all(directory)?;
        let signed = metadata::sign(root.clone(), Role::Root, &root, &signers, directory)?;
        write_root(directory, &signed)?;
        Self::open(directory)
    }

    /// Opens a directory.
    ///
    /// # Errors
    /// When there is no root.json, or a key is not one.
    pub fn open(directory: &Path) -> Result<Self, PublishError> {
        let path = directory.join(ROOT_FILE);
        if !path.exists() {
            return Err(PublishError::NoKeys(directory.to_owned()));
        }
        let root = metadata::parse_root(&files::read(&path)?, &path)?;
        Ok(Self { directory: directory.to_owned(), root, signers: Signer::all(directory)? })
    }

    /// Makes the next root.json: with new keys for `roles` (for none: with a later expiry only), signed by the old and the
    /// new root keys. Replaced private keys are moved to `old/`.
    ///
    /// # Errors
    /// When too few root keys are here, or files cannot be written.
    pub fn rotate(self, roles: &[Role], threshold: Option<Threshold>, expiries: &Expiries, now: Timestamp) -> Result<Self, PublishError> {
        let old = &self.root.signed;
        let mut root = old.clone();
        root.version = old.version.saturating_add(1);
        root.expires = expiries.from(now, Role::Root);
        let replaced: Vec<_> = roles.iter().filter_map(|role| old.roles.get(&role.tuf())).flat_map(|keys| keys.keyids.clone()).collect();
        for &role in roles {
            let as_before = old
                .roles
                .get(&role.tuf())
                .map_or(Threshold::ONE, |keys| Threshold { keys: keys.keyids.len() as u64, signatures: keys.threshold.get() });
            let is_new = |signer: &Signer| signer.key_id().is_ok_and(|id| !old.keys.contains_key(&id));
            set_role(&mut root, role, threshold.unwrap_or(as_before), &self.directory, &is_new)?;
        }
        let in_use: Vec<_> = root.roles.values().flat_map(|keys| keys.keyids.clone()).collect();
        root.keys.retain(|id, _| in_use.contains(id));
        let signers = Signer::all(&self.directory)?;
        // Hosts that trust the old keys and hosts that trust the new ones must both take it.
        let mut signed = metadata::sign(root.clone(), Role::Root, old, &signers, &self.directory)?;
        metadata::add_signatures(&mut signed, Role::Root, &root, &signers)?;
        root.verify_role(&signed).map_err(|error| metadata::encode("root.json", &error))?;
        write_root(&self.directory, &signed)?;
        let gone = |signer: &&Signer| signer.key_id().is_ok_and(|id| replaced.contains(&id) && !in_use.contains(&id));
        for signer in signers.iter().filter(gone) {
            let to = self.directory.join(OLD_KEYS);
            files::make_directory(&to)?;
            let name = signer.path().file_name().unwrap_or_default();
            fs::rename(signer.path(), to.join(name)).map_err(PublishError::file("move", signer.path()))?;
        }
        files::sync_directory(&self.directory)?;
        Self::open(&self.directory)
    }

    /// The newest root metadata.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root.signed
    }

    /// Where the keys are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// All that can sign here.
    #[must_use]
    pub fn signers(&self) -> &[Signer] {
        &self.signers
    }

    /// Every version of root.json, oldest first, as the files that are published.
    ///
    /// # Errors
    /// When one is missing: hosts with an older one could not follow.
    pub fn roots(&self) -> Result<Vec<(u64, Vec<u8>)>, PublishError> {
        (1..=self.root.signed.version.get()).map(|version| Ok((version, files::read(&root_path(&self.directory, version))?))).collect()
    }

    /// Whether enough keys of a role are here.
    #[must_use]
    pub fn can_sign(&self, role: Role) -> bool {
        let Some(keys) = self.root().roles.get(&role.tuf()) else { return false };
        let have = self.signers.iter().filter(|signer| signer.key_id().is_ok_and(|id| keys.keyids.contains(&id)));
        have.count() as u64 >= keys.threshold.get()
    }

    /// What there is.
    #[must_use]
    pub fn report(&self) -> KeysReport {
        let here: Vec<(String, PathBuf)> =
            self.signers.iter().filter_map(|signer| Some((to_text(&signer.key_id().ok()?), signer.path().to_owned()))).collect();
        let mut roles = Vec::new();
        for role in Role::ALL {
            let Some(keys) = self.root().roles.get(&role.tuf()) else { continue };
            let report = |id: String| {
                let file = here.iter().find(|(other, _)| *other == id).map(|(_, path)| path.clone());
                KeyReport { id, file }
            };
            let keys_of_role = keys.keyids.iter().map(|id| report(to_text(id))).collect();
            roles.push(RoleReport { role, threshold: keys.threshold.get(), keys: keys_of_role });
        }
        let named = |id: &String| roles.iter().any(|role| role.keys.iter().any(|key| key.id == *id));
        let unused = here.iter().filter(|(id, _)| !named(id)).map(|(_, path)| path.clone()).collect();
        let exposed = self.signers.iter().filter(|signer| signer.is_exposed()).map(|signer| signer.path().to_owned()).collect();
        KeysReport { version: self.root().version.get(), expires: self.root().expires.to_string(), roles, unused, exposed }
    }
}

fn to_text(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn root_path(directory: &Path, version: u64) -> PathBuf {
    directory.join(format!("{version}.{ROOT_FILE}"))
}

/// The numbered file first: root.json never names a version that is not there.
fn write_root(directory: &Path, signed: &Signed<Root>) -> Result<(), PublishError> {
    let bytes = metadata::to_bytes(signed)?;
    files::replace(&root_path(directory, signed.signed.version.get()), &bytes, 0o644)?;
    files::replace(&directory.join(ROOT_FILE), &bytes, 0o644)
}

/// Gives a role its keys: those that people put there for it and that `usable` takes, else new ones.
fn set_role(
    root: &mut Root,
    role: Role,
    threshold: Threshold,
    directory: &Path,
    usable: &dyn Fn(&Signer) -> bool,
) -> Result<(), PublishError> {
    let bad = |reason: String| PublishError::Text { path: directory.to_owned(), reason };
    let belongs = |signer: &Signer| {
        let stem = signer.stem();
        stem == role.to_string() || stem.starts_with(&format!("{role}-"))
    };
    let mut signers: Vec<Signer> = Signer::all(directory)?.into_iter().filter(|signer| belongs(signer) && usable(signer)).collect();
    if signers.is_empty() {
        let base = if root.version.get() == 1 { role.to_string() } else { format!("{role}-v{}", root.version) };
        for number in 1..=threshold.keys {
            let name = if threshold.keys == 1 { base.clone() } else { format!("{base}-{number}") };
            signers.push(Signer::generate(directory, &name)?);
        }
    }
    let need = NonZeroU64::new(threshold.signatures).filter(|need| need.get() <= signers.len() as u64);
    let need = need.ok_or_else(|| bad(format!("{role}: {} signatures of {} keys cannot be", threshold.signatures, signers.len())))?;
    let mut keyids = Vec::new();
    for signer in &signers {
        keyids.push(signer.key_id()?);
        root.keys.insert(signer.key_id()?, signer.key());
    }
    root.roles.insert(role.tuf(), RoleKeys { keyids, threshold: need, _extra: HashMap::new() });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn init(directory: &Path, threshold: Threshold) -> Keys {
        Keys::init(directory, threshold, &Expiries::default(), now()).unwrap()
    }

    #[test]
    fn new_keys_can_sign_for_every_role() {
        let directory = tempfile::tempdir().unwrap();
        let keys = init(directory.path(), Threshold { keys: 3, signatures: 2 });
        assert!(Role::ALL.into_iter().all(|role| keys.can_sign(role)));
        let report = keys.report();
        assert_eq!((report.version, report.expires.as_str()), (1, "2028-01-01T00:00:00Z"));
        assert_eq!((report.roles[0].keys.len(), report.roles[0].threshold, report.roles[1].keys.len()), (3, 2, 1));
        assert!(report.unused.is_empty() && report.exposed.is_empty());
        let again = Keys::init(directory.path(), Threshold::ONE, &Expiries::default(), now());
        assert!(matches!(again, Err(PublishError::KeysExist(_))));
    }

    #[test]
    fn a_key_that_is_elsewhere_cannot_sign() {
        let directory = tempfile::tempdir().unwrap();
        init(directory.path(), Threshold::ONE);
        fs::rename(directory.path().join("root.pem"), directory.path().join("root.pem.away")).unwrap();
        let keys = Keys::open(directory.path()).unwrap();
        assert!(!keys.can_sign(Role::Root) && keys.can_sign(Role::Timestamp));
        let error = keys.rotate(&[Role::Targets], None, &Expiries::default(), now()).unwrap_err();
        assert!(matches!(error, PublishError::MissingKeys { role: Role::Root, need: 1, have: 0, .. }), "{error}");
        // Nothing has changed.
        assert_eq!(Keys::open(directory.path()).unwrap().root().version.get(), 1);
    }

    #[test]
    fn each_root_is_signed_by_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let first = init(directory.path(), Threshold::ONE);
        let first_root = first.root().clone();
        let second = first.rotate(&[Role::Root, Role::Timestamp], None, &Expiries::default(), now()).unwrap();
        first_root.verify_role(&second.root).unwrap();
        second.root().verify_role(&second.root).unwrap();
        assert_ne!(first_root.roles.get(&Role::Root.tuf()), second.root().roles.get(&Role::Root.tuf()));
        assert_eq!(first_root.roles.get(&Role::Targets.tuf()), second.root().roles.get(&Role::Targets.tuf()));
        assert_eq!(second.root().keys.len(), 4);
        assert!(directory.path().join("old/timestamp.pem").exists() && Role::ALL.into_iter().all(|role| second.can_sign(role)));
        let third = second.rotate(&[], None, &Expiries { root: 10, ..Expiries::default() }, now()).unwrap();
        assert_eq!(third.report().expires, "2026-01-11T00:00:00Z");
        assert_eq!(third.roots().unwrap().len(), 3);
    }

    #[test]
    fn a_signer_that_people_put_there_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let public = "11".repeat(32);
        fs::write(directory.path().join("targets.signer.toml"), format!("public = '{public}'\ncommand = ['false']")).unwrap();
        let keys = init(directory.path(), Threshold::ONE);
        assert!(!directory.path().join("targets.pem").exists());
        assert!(keys.report().roles[1].keys[0].file.as_ref().unwrap().ends_with("targets.signer.toml"));
    }
}
