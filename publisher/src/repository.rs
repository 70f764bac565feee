//! A repository on the disk: what is published, and the one way in which that changes.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use release_format::{Channel, Digest, FormatError, Name, ObjectKind, ObjectRef, OlderPatches, PatchInfo, Release, channel_target};
use serde::de::DeserializeOwned;
use tough::schema::{self, Metafile, Signed, Snapshot, Target, Targets};
use tough::{ExpirationEnforcement, FilesystemTransport, IntoVec, RepositoryLoader, TargetName};
use url::Url;

use crate::error::PublishError;
use crate::files::{self, Lock};
use crate::keys::Keys;
use crate::metadata::{self, Expiries, Role, SPEC_VERSION};

/// Directory of the TUF metadata.
pub const METADATA: &str = "metadata";
/// Directory of the TUF targets, which are channels.
pub const TARGETS: &str = "targets";
/// Directory of everything else.
pub const OBJECTS: &str = "objects";
/// The file that says what is the newest.
pub const TIMESTAMP: &str = "timestamp.json";
const STAGING: &str = ".staging";

/// An opened repository, which nobody else changes meanwhile.
pub struct Repository {
    directory: PathBuf,
    state: Option<State>,
    _lock: Lock,
}

/// What is published.
#[derive(Clone, Debug)]
pub struct State {
    targets: Document<Targets>,
    snapshot: Document<Snapshot>,
    timestamp: Document<schema::Timestamp>,
    channels: BTreeMap<String, Channel>,
}

/// Signed metadata with the bytes of their file, which others have the digest of: written again they could come out
/// in another order.
#[derive(Clone, Debug)]
struct Document<T> {
    signed: Signed<T>,
    bytes: Vec<u8>,
}

impl<T: schema::Role> Document<T> {
    fn version(&self) -> NonZeroU64 {
        self.signed.signed.version()
    }

    fn expires(&self) -> Timestamp {
        self.signed.signed.expires()
    }

    /// The file's name in a repository with consistent snapshots.
    fn name(&self) -> String {
        self.signed.signed.filename(true)
    }

    fn metafile(&self) -> Metafile {
        metadata::metafile(&self.bytes, self.version())
    }
}

/// What to sign anew, beside the timestamp, which always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resign {
    /// Nothing more.
    Timestamp,
    /// The snapshot.
    Snapshot,
    /// Targets and snapshot.
    Targets,
}

impl Repository {
    /// Opens a repository, or a directory that will become one, and checks what is there.
    ///
    /// # Errors
    /// When somebody else has it, or its metadata are not signed by these keys.
    pub fn open(directory: &Path, keys: &Keys) -> Result<Self, PublishError> {
        let lock = Lock::take(directory)?;
        let state = if directory.join(METADATA).join(TIMESTAMP).exists() { Some(State::read(directory, keys)?) } else { None };
        Ok(Self { directory: directory.to_owned(), state, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// All channels by the name of their target.
    #[must_use]
    pub fn channels(&self) -> BTreeMap<String, Channel> {
        self.state.as_ref().map(|state| state.channels.clone()).unwrap_or_default()
    }

    /// Whether anything was ever published.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.state.is_none()
    }

    /// When the metadata of a role expire; the root's are the keys'.
    #[must_use]
    pub fn expires(&self, role: Role) -> Option<Timestamp> {
        let state = self.state.as_ref()?;
        match role {
            Role::Root => None,
            Role::Targets => Some(state.targets.expires()),
            Role::Snapshot => Some(state.snapshot.expires()),
            Role::Timestamp => Some(state.timestamp.expires()),
        }
    }

    /// Whether the newest root still accepts the signatures on a role's metadata.
    #[must_use]
    pub fn is_signed_for(&self, role: Role, keys: &Keys) -> bool {
        let Some(state) = &self.state else { return false };
        let root = keys.root();
        match role {
            Role::Root => true,
            Role::Targets => root.verify_role(&state.targets.signed).is_ok(),
            Role::Snapshot => root.verify_role(&state.snapshot.signed).is_ok(),
            Role::Timestamp => root.verify_role(&state.timestamp.signed).is_ok(),
        }
    }

    /// File names of the metadata that a client reads, in the order in which it does: every root, then the newest of the rest.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn current_metadata(&self) -> Result<Vec<String>, PublishError> {
        let Some(state) = &self.state else { return Ok(Vec::new()) };
        let mut names = files::names(&self.directory.join(METADATA))?;
        names.retain(|name| name.ends_with(".root.json"));
        names.push(TIMESTAMP.to_owned());
        names.push(state.snapshot.name());
        names.push(state.targets.name());
        Ok(names)
    }

    /// File name of a channel's target.
    ///
    /// # Errors
    /// When there is no such channel.
    pub fn current_target(&self, name: &str) -> Result<String, PublishError> {
        let missing = || PublishError::NoChannel(format!("the repository has no channel file '{name}'"));
        let targets = self.state.iter().flat_map(|state| &state.targets.signed.signed.targets);
        let target = targets.filter(|(target, _)| target.raw() == name).map(|(_, target)| target).next().ok_or_else(missing)?;
        let digest = to_digest(&target.hashes.sha256).ok_or_else(missing)?;
        Ok(format!("{digest}.{name}"))
    }

    /// Path of an object.
    #[must_use]
    pub fn object(&self, object: &ObjectRef, kind: ObjectKind) -> PathBuf {
        self.directory.join(object.path(kind))
    }

    /// Reads an object and checks it.
    ///
    /// # Errors
    /// When it cannot be read or is not what its name says.
    pub fn read_object(&self, object: &ObjectRef, kind: ObjectKind) -> Result<Vec<u8>, PublishError> {
        let path = self.object(object, kind);
        let bytes = files::read(&path)?;
        object.verify(&bytes).map_err(PublishError::format(&path.display().to_string()))?;
        Ok(bytes)
    }

    /// Reads a release's metadata.
    ///
    /// # Errors
    /// As [`Repository::read_object`], and when it is no release.
    pub fn read_release(&self, object: &ObjectRef) -> Result<Release, PublishError> {
        let bytes = self.read_object(object, ObjectKind::Release)?;
        Release::decode(&bytes).map_err(PublishError::format(&object.path(ObjectKind::Release)))
    }

    /// Reads a release's patches from older releases than its metadata list; none when it has no such list.
    ///
    /// # Errors
    /// As [`Repository::read_object`], and when it is no list of patches.
    pub fn older_patches(&self, release: &Release) -> Result<Vec<PatchInfo>, PublishError> {
        let Some(object) = &release.older_patches else { return Ok(Vec::new()) };
        let bytes = self.read_object(object, ObjectKind::Older)?;
        let list = OlderPatches::decode(&bytes).map_err(PublishError::format(&object.path(ObjectKind::Older)))?;
        Ok(list.patches)
    }

    /// Writes a list of patches from older releases.
    ///
    /// # Errors
    /// When there are too many, or it cannot be written.
    pub fn write_older_patches(&self, patches: Vec<PatchInfo>) -> Result<ObjectRef, PublishError> {
        let list = OlderPatches { format: OlderPatches::FORMAT, patches };
        let bytes = list.encode().map_err(PublishError::format("the patches from older releases"))?;
        self.write_object(&bytes, ObjectKind::Older)
    }

    /// Writes an object, unless it is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_object(&self, bytes: &[u8], kind: ObjectKind) -> Result<ObjectRef, PublishError> {
        let object = ObjectRef::of(bytes);
        files::make_directory(&self.directory.join(OBJECTS))?;
        if self.expect_object(&object, kind).is_err() {
            files::replace(&self.object(&object, kind), bytes, 0o644)?;
        }
        Ok(object)
    }

    /// Whether an object is there, as far as its length tells.
    ///
    /// # Errors
    /// When it is not, or is shorter or longer.
    pub fn expect_object(&self, object: &ObjectRef, kind: ObjectKind) -> Result<(), PublishError> {
        let path = self.object(object, kind);
        let found = fs::metadata(&path).map_err(PublishError::file("read", &path))?.len();
        let error = FormatError::ObjectLength { object: object.sha256, expected: object.size, found };
        if found == object.size { Ok(()) } else { Err(PublishError::format(&object.path(kind))(error)) }
    }

    /// Makes these channels what is published. The order is what makes it safe to stop at any moment: files with new names
    /// first, then new root metadata, and the timestamp last, after a client has accepted all of it.
    ///
    /// # Errors
    /// When keys are missing, files cannot be written, or the result would not be accepted.
    pub fn commit(
        &mut self,
        channels: &BTreeMap<String, Channel>,
        resign: Resign,
        keys: &Keys,
        expiries: &Expiries,
        now: Timestamp,
    ) -> Result<(), PublishError> {
        let metadata = self.directory.join(METADATA);
        for directory in [&metadata, &self.directory.join(TARGETS), &self.directory.join(OBJECTS)] {
            files::make_directory(directory)?;
        }
        let sign = Signing { keys };
        let before = self.state.as_ref();
        let targets = match before.filter(|_| resign != Resign::Targets) {
            Some(state) => state.targets.clone(),
            None => {
                let mut targets = Targets::new(SPEC_VERSION.to_owned(), next(before.map(|state| state.targets.version())), Timestamp::MAX);
                for (name, channel) in channels {
                    let bytes = channel.encode().map_err(PublishError::format(name))?;
                    let digest = Digest::of(&bytes);
                    let name = TargetName::new(name).map_err(|error| metadata::encode("a channel", &error))?;
                    let path = self.directory.join(TARGETS).join(format!("{digest}.{}", name.raw()));
                    files::replace(&path, &bytes, 0o644)?;
                    let target = Target {
                        length: bytes.len() as u64,
                        hashes: metadata::hashes(&digest),
                        custom: HashMap::new(),
                        _extra: HashMap::new(),
                    };
                    targets.targets.insert(name, target);
                }
                targets.expires = expiries.from(now, Role::Targets);
                sign.sign(targets, Role::Targets)?
            }
        };
        let snapshot = match before.filter(|_| resign == Resign::Timestamp) {
            Some(state) => state.snapshot.clone(),
            None => {
                let version = next(before.map(|state| state.snapshot.version()));
                let mut snapshot = Snapshot::new(SPEC_VERSION.to_owned(), version, expiries.from(now, Role::Snapshot));
                snapshot.meta.insert("targets.json".to_owned(), targets.metafile());
                sign.sign(snapshot, Role::Snapshot)?
            }
        };
        let version = next(before.map(|state| state.timestamp.version()));
        let mut timestamp = schema::Timestamp::new(SPEC_VERSION.to_owned(), version, expiries.from(now, Role::Timestamp));
        timestamp.meta.insert("snapshot.json".to_owned(), snapshot.metafile());
        let timestamp = sign.sign(timestamp, Role::Timestamp)?;

        // What is published has these very bytes; what a publication that was cut short left behind may have others.
        for (name, bytes) in [(targets.name(), &targets.bytes), (snapshot.name(), &snapshot.bytes)] {
            let path = metadata.join(name);
            if !path.exists() || files::read(&path)? != *bytes {
                files::replace(&path, bytes, 0o644)?;
            }
        }
        self.rehearse(keys, &[&targets.name(), &snapshot.name()], &timestamp.bytes, channels)?;
        for (version, bytes) in keys.roots()? {
            let path = metadata.join(format!("{version}.root.json"));
            if !path.exists() {
                files::replace(&path, &bytes, 0o644)?;
            } else if files::read(&path)? != bytes {
                let reason = format!("its root metadata version {version} are not those of {}", keys.directory().display());
                return Err(PublishError::Metadata { path: self.directory.clone(), reason });
            }
        }
        files::replace(&metadata.join(TIMESTAMP), &timestamp.bytes, 0o644)?;
        self.state = Some(State { targets, snapshot, timestamp, channels: channels.clone() });
        Ok(())
    }

    /// Lets a client that trusts the first root read the new state, from a directory of links.
    fn rehearse(&self, keys: &Keys, names: &[&str], timestamp: &[u8], channels: &BTreeMap<String, Channel>) -> Result<(), PublishError> {
        let staging = self.directory.join(STAGING);
        let _ = fs::remove_dir_all(&staging);
        files::make_directory(&staging)?;
        for name in names {
            let link = fs::hard_link(self.directory.join(METADATA).join(name), staging.join(name));
            link.map_err(PublishError::file("link into", &staging))?;
        }
        let roots = keys.roots()?;
        for (version, bytes) in &roots {
            files::replace(&staging.join(format!("{version}.root.json")), bytes, 0o644)?;
        }
        files::replace(&staging.join(TIMESTAMP), timestamp, 0o644)?;
        let first = roots.first().map(|(_, bytes)| bytes.clone()).unwrap_or_default();
        let read = read_as_client(&first, &staging, &self.directory.join(TARGETS))
            .map_err(|reason| PublishError::Metadata { path: self.directory.clone(), reason })?;
        if read != *channels {
            let reason = "a client reads other channels than were written; run 'garboard publish' again".to_owned();
            return Err(PublishError::Metadata { path: self.directory.clone(), reason });
        }
        fs::remove_dir_all(&staging).map_err(PublishError::file("remove", &staging))
    }
}

/// Signs and writes down.
struct Signing<'a> {
    keys: &'a Keys,
}

impl Signing<'_> {
    fn sign<T: schema::Role>(&self, value: T, role: Role) -> Result<Document<T>, PublishError> {
        let signed = metadata::sign(value, role, self.keys.root(), self.keys.signers(), self.keys.directory())?;
        let bytes = metadata::to_bytes(&signed)?;
        Ok(Document { signed, bytes })
    }
}

fn next(version: Option<NonZeroU64>) -> NonZeroU64 {
    version.map_or(NonZeroU64::MIN, |version| version.saturating_add(1))
}

impl State {
    /// Metadata may have been signed under any root so far: after a rotation the old ones are still there to be read.
    fn read(directory: &Path, keys: &Keys) -> Result<Self, PublishError> {
        let roots = keys.roots()?;
        let mut trusted = Vec::new();
        for (version, bytes) in roots.iter().rev() {
            trusted.push(metadata::parse_root(bytes, &keys.directory().join(format!("{version}.root.json")))?.signed);
        }
        let bad = |reason: String| PublishError::Metadata { path: directory.to_owned(), reason };
        let metadata = directory.join(METADATA);
        let timestamp: Document<schema::Timestamp> = parse(&metadata.join(TIMESTAMP), None, &bad)?;
        let file = timestamp.signed.signed.meta.get("snapshot.json").ok_or_else(|| bad("its timestamp names no snapshot".to_owned()))?;
        let snapshot: Document<Snapshot> = parse(&metadata.join(format!("{}.snapshot.json", file.version)), Some(file), &bad)?;
        let file = snapshot.signed.signed.meta.get("targets.json").ok_or_else(|| bad("its snapshot names no targets".to_owned()))?;
        let targets: Document<Targets> = parse(&metadata.join(format!("{}.targets.json", file.version)), Some(file), &bad)?;
        let signed = [
            (Role::Timestamp, trusted.iter().any(|root| root.verify_role(&timestamp.signed).is_ok())),
            (Role::Snapshot, trusted.iter().any(|root| root.verify_role(&snapshot.signed).is_ok())),
            (Role::Targets, trusted.iter().any(|root| root.verify_role(&targets.signed).is_ok())),
        ];
        if let Some((role, _)) = signed.iter().find(|(_, valid)| !valid) {
            return Err(bad(format!("its {role} metadata are not signed by them")));
        }
        let mut channels = BTreeMap::new();
        for (name, target) in &targets.signed.signed.targets {
            let sha256: Digest =
                to_digest(&target.hashes.sha256).ok_or_else(|| bad("a target has a digest of no known kind".to_owned()))?;
            let path = directory.join(TARGETS).join(format!("{sha256}.{}", name.raw()));
            let bytes = files::read(&path)?;
            let object = ObjectRef { sha256, size: target.length };
            object.verify(&bytes).map_err(PublishError::format(&path.display().to_string()))?;
            let channel = Channel::decode(&bytes).map_err(PublishError::format(&path.display().to_string()))?;
            channels.insert(name.raw().to_owned(), channel);
        }
        Ok(Self { targets, snapshot, timestamp, channels })
    }
}

fn to_digest(bytes: &[u8]) -> Option<Digest> {
    bytes.first_chunk().filter(|_| bytes.len() == 32).map(|bytes| Digest::new(*bytes))
}

fn parse<T: DeserializeOwned>(
    path: &Path,
    expected: Option<&Metafile>,
    bad: &dyn Fn(String) -> PublishError,
) -> Result<Document<T>, PublishError> {
    let bytes = files::read(path)?;
    let digest = expected.and_then(|file| file.hashes.as_ref());
    if digest.is_some_and(|hashes| to_digest(&hashes.sha256) != Some(Digest::of(&bytes))) {
        return Err(bad(format!("{} is not the file that was signed", path.display())));
    }
    let signed = serde_json::from_slice(&bytes).map_err(|error| bad(format!("{}: {error}", path.display())))?;
    Ok(Document { signed, bytes })
}

/// The channel that a publication is for.
#[must_use]
pub fn target_of(channel: &Channel) -> String {
    channel_target(&channel.channel, &channel.image, &channel.architecture)
}

/// An empty channel.
#[must_use]
pub fn empty_channel(channel: Name, image: Name, architecture: Name) -> Channel {
    Channel { format: Channel::FORMAT, channel, image, architecture, releases: Vec::new() }
}

/// Reads all channels of a repository as a host does that trusts `root`, but for expiry, which is not what is in question
/// here.
///
/// # Errors
/// What the client says.
pub fn read_as_client(root: &[u8], metadata: &Path, targets: &Path) -> Result<BTreeMap<String, Channel>, String> {
    let url = |path: &Path| {
        let absolute = fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Url::from_directory_path(&absolute).map_err(|()| format!("{} cannot be written as a URL", absolute.display()))
    };
    let (metadata, targets) = (url(metadata)?, url(targets)?);
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let repository = RepositoryLoader::new(&root, metadata, targets)
            .transport(FilesystemTransport)
            .expiration_enforcement(ExpirationEnforcement::Unsafe)
            .load()
            .await
            .map_err(|error| error.to_string())?;
        let mut channels = BTreeMap::new();
        for name in repository.targets().signed.targets.keys() {
            let stream = repository.read_target(name).await.map_err(|error| error.to_string())?;
            let stream = stream.ok_or_else(|| format!("{} is listed and not there", name.raw()))?;
            let bytes = stream.into_vec().await.map_err(|error| error.to_string())?;
            channels.insert(name.raw().to_owned(), Channel::decode(&bytes).map_err(|error| error.to_string())?);
        }
        Ok(channels)
    })
}
