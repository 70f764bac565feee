//! The agent: brings metadata, policy, download and commit together, and remembers.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use disk_layout::{BootCounter, SlotName, UkiName, Version};
use release_format::{Channel, ChannelRelease, Part, Release, Write};
use rustix::fs::FlockOperation;
use thiserror::Error;
use uuid::Uuid;

use crate::commit::{Claim, CommitError, Image, Installer, Uki, digest_on_disk, set_aside};
use crate::download::{self, Download, DownloadError, Sink, SinkError};
use crate::esp::fat::Volume;
use crate::esp::{EspFiles, is_spent};
use crate::fetch::bundle::Bundle;
use crate::fetch::http::Http;
use crate::fetch::{FetchError, Source};
use crate::host::{Host, HostError};
use crate::policy::{Decision, World, decide};
use crate::recovery::{Copies, Standing, recover};
use crate::settings::{RebootStrategy, Settings};
use crate::slots::{Content, SlotError, Slots};
use crate::state::{Event, Fate, Journal, LAYOUT, Phase, State, StateError};
use crate::status::{AgentState, Problem, Status};
use crate::target::{Area, Target};
use crate::trust::{Trust, TrustError, Wanted, channel};
use crate::verity::{self, VerityError, hex};

/// Held while the ESP is changed; `init` holds it too.
const ESP_LOCK: &str = "/run/garboard/esp.lock";

/// Why something asked for was not done. [`AgentError::kind`] is stable.
#[derive(Debug, Error)]
pub enum AgentError {
    /// This is no host that can be updated.
    #[error(transparent)]
    Host(#[from] HostError),
    /// State.
    #[error(transparent)]
    State(#[from] StateError),
    /// Metadata.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Fetching.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Download.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// Commit.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// No server is set.
    #[error("no update server is set: set garboard.update.server in the cloud-config")]
    NoServer,
    /// The version is older than the one that runs.
    #[error("version {version} is older than {running}, which runs: say --downgrade to go back")]
    Downgrade {
        /// The version.
        version: Version,
        /// What runs.
        running: Version,
    },
    /// What the newer version did to state cannot be undone.
    #[error("version {version} reads state layout {layout}, and this host's state has {LAYOUT}: going back is not possible")]
    StateFloor {
        /// The version.
        version: Version,
        /// What it reads.
        layout: u32,
    },
    /// It failed, or was set aside.
    #[error("version {version} is not taken: {reason}")]
    NotTaken {
        /// The version.
        version: Version,
        /// Why not.
        reason: String,
    },
    /// There is nothing to go back to.
    #[error("nothing to go back to: {0}")]
    NoRollback(String),
    /// The lock of the ESP.
    #[error("{ESP_LOCK}: {0}")]
    Lock(io::Error),
    /// The text is no version.
    #[error(transparent)]
    Version(#[from] disk_layout::VersionError),
}

impl AgentError {
    /// The stable name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Host(_) => "host",
            Self::State(StateError::Layout { .. }) => "state-layout",
            Self::State(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => "state-full",
            Self::State(_) => "state",
            Self::Trust(error) => error.kind(),
            Self::Fetch(error) | Self::Download(DownloadError::Fetch(error)) => error.kind(),
            Self::Download(DownloadError::Format(error)) => error.kind(),
            Self::Download(DownloadError::Sink(_)) => "disk-write",
            Self::Commit(error) => error.kind(),
            Self::NoServer => "no-server",
            Self::Downgrade { .. } => "downgrade",
            Self::StateFloor { .. } => "state-floor",
            Self::NotTaken { .. } => "not-taken",
            Self::NoRollback(_) => "no-rollback",
            Self::Lock(_) => "lock",
            Self::Version(_) => "version",
        }
    }

    /// How long the server asked to be left alone, in seconds.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Fetch(error) | Self::Download(DownloadError::Fetch(error)) => error.retry_after(),
            Self::Trust(TrustError::Fetch(error)) => error.retry_after(),
            Self::Trust(TrustError::Metadata { retry_after, .. }) => *retry_after,
            _ => None,
        }
        .map(|after| after.as_secs())
    }
}

impl From<SlotError> for AgentError {
    fn from(error: SlotError) -> Self {
        Self::Commit(error.into())
    }
}

impl From<VerityError> for AgentError {
    fn from(error: VerityError) -> Self {
        Self::Commit(error.into())
    }
}

/// Where everything is; another place in tests.
#[derive(Clone, Debug)]
pub struct Paths {
    /// `root.json` of the image.
    pub update_root: PathBuf,
    /// `status.json`.
    pub status: PathBuf,
    /// There while the machine should be rebooted.
    pub reboot_needed: PathBuf,
    /// The ESP's lock; none in tests.
    pub esp_lock: Option<PathBuf>,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            update_root: "/usr/share/garboard/update/root.json".into(),
            status: "/run/garboard/update/status.json".into(),
            reboot_needed: "/run/garboard/update/reboot-needed".into(),
            esp_lock: Some(ESP_LOCK.into()),
        }
    }
}

/// How an update is wanted.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Somebody asked: waves and windows do not count.
    pub asked: bool,
    /// This version, although it failed or was set aside.
    pub retry: Option<Version>,
    /// Older versions too.
    pub downgrade: bool,
}

/// Everything that the agent works with.
pub struct Agent {
    /// What this host is.
    pub host: Host,
    /// Settings.
    pub settings: Settings,
    /// Paths.
    pub paths: Paths,
    /// What is remembered.
    pub state: State,
    /// The disk.
    pub target: Box<dyn Target>,
    /// Its ESP.
    pub esp: Box<dyn EspFiles>,
    /// What it says about itself.
    pub status: Status,
    /// How long the server asked to be left alone, in seconds, by the last failure.
    pub retry_after: Option<u64>,
    /// Seconds since 1970.
    pub clock: fn() -> u64,
}

/// The system's clock.
#[must_use]
pub fn system_clock() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn random_id() -> Uuid {
    let mut bytes = [0; 16];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

impl Agent {
    fn lock(&self) -> Result<Option<File>, AgentError> {
        let Some(path) = &self.paths.esp_lock else { return Ok(None) };
        let file = File::create(path).map_err(AgentError::Lock)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|error| AgentError::Lock(error.into()))?;
        Ok(Some(file))
    }

    /// Says what it is doing, to the status file too.
    pub fn say(&mut self, state: AgentState, target: Option<&Version>, why: impl Into<String>) {
        self.status.state = state;
        self.status.why = why.into();
        self.status.target = target.map(ToString::to_string);
        if state != AgentState::Waiting {
            self.status.wait = None;
            self.status.wait_until = None;
        }
        if !matches!(state, AgentState::Downloading | AgentState::Verifying) {
            self.status.progress = None;
        }
        self.publish();
    }

    /// Writes the status file. Losing it is no reason to stop.
    pub fn publish(&self) {
        if let Err(error) = self.status.store(&self.paths.status) {
            eprintln!("update-agent: cannot write {}: {error}", self.paths.status.display());
        }
    }

    fn standing(&self, version: &Version, root_hash: &[u8; 32]) -> (Standing, String) {
        self.state.standing(version, root_hash).unwrap_or((Standing::Untried, String::new()))
    }

    fn event(&self, what: &str, version: &str, detail: &str) -> Result<(), AgentError> {
        let event = Event { time: (self.clock)(), what: what.to_owned(), version: version.to_owned(), detail: detail.to_owned() };
        Ok(self.state.change_versions(|versions| versions.events.push(event))?)
    }

    /// To be called first: brings the disk into order, keeps copies of the UKIs, and finds out what became of the last update.
    ///
    /// # Errors
    /// When the disk or state cannot be used.
    pub fn start(&mut self) -> Result<(), AgentError> {
        let lock = self.lock()?;
        self.status.version = self.host.running.version.to_string();
        self.status.slot = self.host.running.slot.to_string();
        self.status.channel = self.settings.channel.to_string();
        self.status.server = self.settings.server.as_ref().map_or_else(String::new, ToString::to_string);
        self.status.settings_problems = self.settings.problems.clone();
        self.status.pin = self.state.policy()?.pin;
        let slots = Slots::read(&*self.target)?;
        let hash_of = |version: &Version| {
            [SlotName::A, SlotName::B].into_iter().find_map(|slot| match slots.get(slot) {
                Content::Image { version: of, root_hash } if of == version => Some(*root_hash),
                _ => None,
            })
        };
        let state = self.state.clone();
        let standing = |version: &Version| match hash_of(version).map(|hash| state.standing(version, &hash)) {
            Some(Ok((standing, _))) => standing,
            _ => Standing::Untried,
        };
        self.status.repaired = recover(&*self.target, &mut *self.esp, &self.state, &self.host.running, &standing)?;
        for line in &self.status.repaired {
            eprintln!("update-agent: {line}");
        }
        self.adopt()?;
        drop(lock);
        self.state.keep_reserve()?;
        self.note_outcome()?;
        self.publish();
        Ok(())
    }

    /// Keeps a copy of the running version's UKI, if there is none.
    fn adopt(&self) -> Result<(), AgentError> {
        let running = &self.host.running;
        if self.state.known().iter().any(|uki| uki.root_hash == running.root_hash) {
            return Ok(());
        }
        let volume = Volume::read(&*self.target).map_err(CommitError::from)?;
        let file = volume.ukis().find(|file| file.name().parse::<UkiName>().is_ok_and(|name| name.version == running.version));
        let Some(file) = file else { return Ok(()) };
        let mut content = Vec::new();
        volume.read_file(&*self.target, file, &mut |piece| content.extend_from_slice(piece)).map_err(CommitError::from)?;
        let sha256 = *release_format::Digest::of(&content).as_bytes();
        let uki = Uki { version: running.version.clone(), root_hash: running.root_hash, len: content.len() as u64, sha256 };
        Ok(self.state.adopt_uki(&uki, &content)?)
    }

    /// What became of the update that was put in place before this boot.
    ///
    /// # Errors
    /// When the disk or state cannot be used.
    pub fn note_outcome(&mut self) -> Result<(), AgentError> {
        let Some(mut journal) = self.state.journal()?.filter(|journal| journal.phase == Phase::Committed) else { return Ok(()) };
        let version: Version = journal.version.parse()?;
        let hash = *journal.root_hash.as_bytes();
        let (standing, reason) = self.standing(&version, &hash);
        let running = self.host.running.root_hash == hash;
        if running {
            if standing == Standing::Good {
                self.event("good", version.as_str(), "it passed its health gate")?;
                self.state.set_journal(None)?;
                self.say(AgentState::Idle, None, format!("version {version} was installed and is good"));
            } else {
                self.say(AgentState::Trial, Some(&version), format!("version {version} runs on trial until its health gate is decided"));
            }
            return Ok(());
        }
        let volume = Volume::read(&*self.target).map_err(CommitError::from)?;
        let name = volume.ukis().find_map(|file| file.name().parse::<UkiName>().ok().filter(|name| name.version == version));
        let why = match name.and_then(|name| name.counter) {
            Some(BootCounter { left: 0, done }) if done > 0 => format!("it did not come up in {done} starts"),
            Some(BootCounter { left: 0, .. }) if reason.is_empty() => "it was given up".to_owned(),
            Some(BootCounter { left: 0, .. }) => reason,
            // Not started yet.
            Some(_) => {
                self.say(AgentState::PendingReboot, Some(&version), format!("version {version} is in place; the next boot starts it"));
                return Ok(());
            }
            None if standing == Standing::Failed => reason,
            None => {
                // The commit was lost with the power; it is done again.
                journal.phase = Phase::Filled;
                self.state.set_journal(Some(&journal))?;
                return Ok(());
            }
        };
        let _lock = self.lock()?;
        set_aside(&mut *self.esp, &version)?;
        let fate = Fate { root_hash: hex(&hash), fate: "failed".to_owned(), reason: why.clone(), time: (self.clock)() };
        self.state.change_versions(|versions| {
            versions.fates.insert(version.to_string(), fate);
        })?;
        self.event("failed", version.as_str(), &why)?;
        self.state.set_journal(None)?;
        eprintln!("update-agent: version {version} failed and is not tried again: {why}");
        self.say(AgentState::Idle, None, format!("version {version} failed and is not tried again: {why}"));
        Ok(())
    }

    fn source(&self) -> Result<Source, AgentError> {
        let server = self.settings.server.as_ref().ok_or(AgentError::NoServer)?;
        Ok(Source::Http(Http::new(server, &self.settings)?))
    }

    fn trust(&self) -> Trust {
        Trust { root: self.paths.update_root.clone(), datastore: self.state.datastore() }
    }

    fn decision(&self, channel: &Channel, asked: bool) -> Result<Decision, AgentError> {
        let pin: Option<Version> = self.state.policy()?.pin.and_then(|pin| pin.parse().ok());
        let pending = self.state.journal()?.filter(|journal| journal.phase == Phase::Committed);
        let pending: Option<Version> = pending.and_then(|journal| journal.version.parse().ok());
        let world = World {
            now: (self.clock)(),
            running: &self.host.running.version,
            pending: pending.as_ref(),
            pin: pin.as_ref(),
            machine_id: &self.host.machine_id,
            asked,
            windows: &self.settings.windows,
        };
        Ok(decide(&world, channel, &|release: &ChannelRelease| self.standing(&release.version, release.root_hash.as_bytes())))
    }

    /// Fetches the metadata and decides; says what follows.
    ///
    /// # Errors
    /// When the metadata does not come or is not to be believed.
    pub async fn check(&mut self, asked: bool) -> Result<(Channel, Decision), AgentError> {
        self.status.counters.checks += 1;
        let source = self.source()?;
        let waiting = self.status.state;
        if !matches!(waiting, AgentState::PendingReboot | AgentState::Trial) {
            self.say(AgentState::Checking, None, "fetching metadata");
        }
        let wanted =
            Wanted { channel: self.settings.channel.clone(), image: self.host.image.clone(), architecture: self.host.architecture.clone() };
        let list = channel(&source, &self.trust(), &wanted, false, (self.clock)()).await?;
        self.status.checked = Some((self.clock)());
        self.status.error = None;
        let decision = self.decision(&list, asked)?;
        match &decision {
            Decision::UpToDate => self.say(AgentState::Idle, None, "nothing newer is offered to this host"),
            Decision::Pending(version) => {
                self.say(AgentState::PendingReboot, Some(version), format!("version {version} is in place; the next boot starts it"));
            }
            Decision::Take(release) => {
                self.say(AgentState::Waiting, Some(&release.version), format!("version {} can be installed", release.version));
            }
            Decision::Wait { version, why } => {
                self.say(AgentState::Waiting, Some(version), why.explain(version));
                self.status.wait = Some(why.kind().to_owned());
                self.status.wait_until = why.until();
                self.publish();
            }
        }
        Ok((list, decision))
    }

    /// Checks, and installs what is to be installed. Returns the version that was put in place.
    ///
    /// # Errors
    /// When a step fails; what it did so far is kept for the next run.
    pub async fn update(&mut self, wish: &Wish) -> Result<Option<Version>, AgentError> {
        if let Some(version) = &wish.retry {
            self.state.forgive(version)?;
        }
        let (list, decision) = self.check(wish.asked).await?;
        // A trial is neither good nor bad: what it could fall back to must not be overwritten.
        if self.status.state == AgentState::Trial || self.on_trial() {
            let version = self.host.running.version.clone();
            self.say(AgentState::Trial, Some(&version), format!("version {version} runs on trial until its health gate is decided"));
            return Ok(None);
        }
        let entry = match (decision, &wish.retry) {
            (Decision::Take(entry), _) => *entry,
            (_, Some(version)) if wish.downgrade => match list.release(version) {
                Some(entry) if entry.is_offered() && *version != self.host.running.version => entry.clone(),
                _ => return Err(AgentError::NotTaken { version: version.clone(), reason: "the channel does not offer it".to_owned() }),
            },
            _ => return Ok(None),
        };
        let source = self.source()?;
        self.install(&source, &list, &entry, wish.downgrade).await?;
        Ok(Some(entry.version))
    }

    fn on_trial(&self) -> bool {
        let counted = self.host.uki.parse::<UkiName>().is_ok_and(|name| name.counter.is_some() && !is_spent(&name));
        counted && self.standing(&self.host.running.version, &self.host.running.root_hash).0 != Standing::Good
    }

    /// Installs from a bundle, with no network.
    ///
    /// # Errors
    /// When it is not to be believed, or is not for this host.
    pub async fn apply(&mut self, file: &Path, wish: &Wish) -> Result<Version, AgentError> {
        let bundle = Bundle::open_file(file)?;
        let wanted = Wanted {
            channel: bundle.header().channel.clone(),
            image: self.host.image.clone(),
            architecture: self.host.architecture.clone(),
        };
        let version: Version = bundle.header().version.parse()?;
        let source = Source::Bundle(bundle);
        self.say(AgentState::Checking, Some(&version), "verifying the bundle");
        eprintln!("update-agent: the expiry of timestamp and snapshot does not count for a bundle; signatures, versions and all else do");
        let list = channel(&source, &self.trust(), &wanted, true, (self.clock)()).await?;
        let reason = |reason: &str| AgentError::NotTaken { version: version.clone(), reason: reason.to_owned() };
        let entry = list.release(&version).ok_or_else(|| reason("the bundle's channel does not list it"))?.clone();
        if !entry.is_offered() {
            return Err(reason("it was withdrawn"));
        }
        if wish.retry.as_ref() == Some(&version) {
            self.state.forgive(&version)?;
        }
        match self.standing(&version, entry.root_hash.as_bytes()) {
            (Standing::Failed, why) => return Err(reason(&format!("it failed here: {why} (say --retry)"))),
            (Standing::SetAside, why) => return Err(reason(&format!("it was set aside: {why} (say --retry)"))),
            _ => {}
        }
        if self.on_trial() {
            return Err(reason("the running version is still on trial"));
        }
        self.install(&source, &list, &entry, wish.downgrade).await?;
        Ok(version)
    }

    async fn install(&mut self, source: &Source, list: &Channel, entry: &ChannelRelease, downgrade: bool) -> Result<(), AgentError> {
        let version = entry.version.clone();
        let older = version < self.host.running.version;
        if older && !downgrade {
            return Err(AgentError::Downgrade { version, running: self.host.running.version.clone() });
        }
        let release = download::release(source, list, entry).await?;
        if older && release.state.layout != 0 && release.state.layout < LAYOUT {
            return Err(AgentError::StateFloor { version, layout: release.state.layout });
        }
        let image = image_of(&release)?;
        let before = self.state.journal()?;
        let resumed = before.as_ref().filter(|journal| journal.root_hash == release.root_hash && journal.phase == Phase::Writing);
        let mut journal = resumed.cloned().unwrap_or_else(|| Journal {
            version: version.to_string(),
            root_hash: release.root_hash,
            release: entry.release,
            slot: self.host.running.slot.other().to_string(),
            phase: Phase::Writing,
            fetches: 0,
            fetched: 0,
        });
        self.say(AgentState::Downloading, Some(&version), format!("version {version} is being written into slot {}", journal.slot));
        let claim = {
            let _lock = self.lock()?;
            let mut fresh = random_id;
            let mut installer =
                Installer { target: &*self.target, esp: &mut *self.esp, fresh: &mut fresh, running: self.host.running.clone() };
            installer.preflight(&image)?;
            if let Some(replaced) = before.filter(|before| before.phase == Phase::Committed && before.version != journal.version) {
                self.event("replaced", &replaced.version, &format!("by version {version}, before it was started"))?;
            }
            let untouched = resumed_slot(&*self.target, self.host.running.slot.other())?;
            if !untouched {
                journal.fetches = 0;
            }
            self.state.set_journal(Some(&journal))?;
            let mut fresh = random_id;
            let mut installer =
                Installer { target: &*self.target, esp: &mut *self.esp, fresh: &mut fresh, running: self.host.running.clone() };
            installer.claim(&image)?
        };
        // What the journal counts are the fetches of one choice of parts. It changes from both to the root alone only when the UKI has been
        // kept, which is when all fetches are done; should a copy be lost, the root's hash finds the mistake, and all is fetched anew.
        let parts: &[Part] = match (claim, self.state.has_uki(&image.uki)) {
            (Claim::Filled, true) => &[],
            (Claim::Filled, false) => &[Part::Uki],
            (Claim::Empty, true) => &[Part::Root],
            (Claim::Empty, false) => &[Part::Root, Part::Uki],
        };
        if !parts.is_empty() {
            if claim == Claim::Filled {
                journal.fetches = 0;
            }
            self.fetch(source, &release, &image, parts, &mut journal).await?;
        }
        if claim == Claim::Empty {
            self.say(AgentState::Verifying, Some(&version), format!("version {version} is read back and verified"));
            let filled = self.with_installer(|installer| installer.fill(&image));
            if let Err(AgentError::Commit(CommitError::Verity(VerityError::RootHash { .. }))) = &filled {
                // What an earlier run left was not what it noted: everything is written anew next time.
                journal.fetches = 0;
                self.state.set_journal(Some(&journal))?;
            }
            filled?;
        }
        journal.phase = Phase::Filled;
        self.state.set_journal(Some(&journal))?;
        self.say(AgentState::Committing, Some(&version), format!("version {version} is made bootable"));
        if older {
            let fate = Fate {
                root_hash: hex(&self.host.running.root_hash),
                fate: "set-aside".to_owned(),
                reason: format!("somebody went back to version {version}"),
                time: (self.clock)(),
            };
            let running = self.host.running.version.to_string();
            self.state.change_versions(|versions| {
                versions.fates.insert(running, fate);
            })?;
        }
        let mut content = self.state.open(&image.uki).map_err(|source| StateError::Io { path: self.state.uki_path(&version), source })?;
        let running = self.host.running.version.clone();
        {
            let _lock = self.lock()?;
            self.with_installer(|installer| {
                installer.put_uki(&image, &mut content)?;
                if older { installer.set_aside(&running) } else { Ok(()) }
            })?;
        }
        journal.phase = Phase::Committed;
        self.state.set_journal(Some(&journal))?;
        self.state.prune_ukis(&[running.clone(), version.clone()]);
        self.state.keep_reserve()?;
        self.status.counters.updates += 1;
        self.event("installed", version.as_str(), &format!("into slot {}, over version {running}", journal.slot))?;
        self.say(AgentState::PendingReboot, Some(&version), format!("version {version} is in place; the next boot starts it"));
        self.need_reboot(&version);
        Ok(())
    }

    fn with_installer<T>(&mut self, act: impl FnOnce(&mut Installer<'_>) -> Result<T, CommitError>) -> Result<T, AgentError> {
        let mut fresh = random_id;
        let mut installer = Installer { target: &*self.target, esp: &mut *self.esp, fresh: &mut fresh, running: self.host.running.clone() };
        Ok(act(&mut installer)?)
    }

    async fn fetch(
        &mut self,
        source: &Source,
        release: &Release,
        image: &Image,
        parts: &[Part],
        journal: &mut Journal,
    ) -> Result<(), AgentError> {
        let download = Download::prepare(source, release.clone(), parts).await?;
        let with_uki = parts.contains(&Part::Uki);
        let uki = if with_uki { Some(self.state.stage_uki(&image.uki.version, image.uki.len)?) } else { None };
        let done = journal.fetches;
        let mut writer = Writer {
            target: &*self.target,
            slot: self.host.running.slot.other(),
            uki,
            state: &self.state,
            journal: &mut *journal,
            status: &mut self.status,
            status_path: &self.paths.status,
            said: std::time::Instant::now(),
        };
        download.run(source, &mut writer, done).await?;
        if with_uki && let Err(error) = self.state.keep_uki(&image.uki) {
            // What an earlier run left was not what it noted: everything is fetched anew next time.
            journal.fetches = 0;
            self.state.set_journal(Some(&*journal))?;
            return Err(error.into());
        }
        Ok(())
    }

    /// Goes back to the version in the other slot.
    ///
    /// # Errors
    /// When there is none, or it does not verify.
    pub fn rollback(&mut self) -> Result<Version, AgentError> {
        let nothing = |reason: String| AgentError::NoRollback(reason);
        let slot = self.host.running.slot.other();
        let Content::Image { version, root_hash } = Slots::read(&*self.target)?.get(slot).clone() else {
            return Err(nothing(format!("slot {slot} is empty")));
        };
        match self.standing(&version, &root_hash) {
            (Standing::Good, _) => {}
            (Standing::Failed, reason) => return Err(nothing(format!("version {version} in slot {slot} failed: {reason}"))),
            (Standing::SetAside, reason) => return Err(nothing(format!("version {version} in slot {slot} was set aside: {reason}"))),
            (Standing::Untried, _) => return Err(nothing(format!("version {version} in slot {slot} was never started"))),
        }
        if !verity::verifies(&*self.target, slot, &root_hash)? {
            return Err(nothing(format!("version {version} in slot {slot} is damaged")));
        }
        let known = self.state.known().into_iter().find(|uki| uki.root_hash == root_hash);
        let volume = Volume::read(&*self.target).map_err(CommitError::from)?;
        let name =
            volume.ukis().map(|file| file.name().to_owned()).find(|name| name.parse::<UkiName>().is_ok_and(|name| name.version == version));
        let name = name.ok_or_else(|| nothing(format!("version {version} has no UKI")))?;
        if let Some(uki) = &known
            && digest_on_disk(&*self.target, &name, None).map_err(CommitError::from)? != Some(uki.sha256)
        {
            return Err(nothing(format!("the UKI of version {version} is damaged")));
        }
        let running = self.host.running.clone();
        let reason = format!("somebody went back to version {version}");
        let fate = Fate { root_hash: hex(&running.root_hash), fate: "set-aside".to_owned(), reason, time: (self.clock)() };
        self.state.change_versions(|versions| {
            versions.fates.insert(running.version.to_string(), fate);
        })?;
        self.state.set_journal(None)?;
        {
            let _lock = self.lock()?;
            // With the one that runs out of the way, the other is chosen, be it older or newer.
            set_aside(&mut *self.esp, &running.version)?;
        }
        self.event("rolled-back", version.as_str(), &format!("from version {}", running.version))?;
        self.say(AgentState::PendingReboot, Some(&version), format!("the next boot goes back to version {version}"));
        self.need_reboot(&version);
        Ok(version)
    }

    /// Sets or clears the pin.
    ///
    /// # Errors
    /// When state cannot be written.
    pub fn pin(&mut self, version: Option<&Version>) -> Result<(), AgentError> {
        let mut policy = self.state.policy()?;
        policy.pin = version.map(ToString::to_string);
        self.state.set_policy(&policy)?;
        self.status.pin = policy.pin;
        self.publish();
        Ok(())
    }

    /// Leaves word for whoever reboots.
    fn need_reboot(&self, version: &Version) {
        let text = serde_json::json!({"version": version.as_str(), "reason": "an update is in place"}).to_string();
        if let Err(error) = std::fs::write(&self.paths.reboot_needed, text) {
            eprintln!("update-agent: {}: {error}", self.paths.reboot_needed.display());
        }
    }

    /// Whether this program itself reboots now.
    #[must_use]
    pub fn reboots(&self) -> bool {
        self.status.state == AgentState::PendingReboot
            && self.settings.reboot == RebootStrategy::Reboot
            && self.paths.reboot_needed.exists()
    }

    /// Notes a failure.
    pub fn failed(&mut self, error: &AgentError) {
        self.status.counters.failures += 1;
        self.retry_after = error.retry_after();
        self.status.error = Some(Problem { kind: error.kind().to_owned(), message: error.to_string() });
        if matches!(self.status.state, AgentState::PendingReboot | AgentState::Trial) {
            self.publish();
        } else {
            let target = self.status.target.as_ref().and_then(|target| target.parse().ok());
            self.say(AgentState::Error, target.as_ref(), error.to_string());
        }
    }
}

/// Whether the slot is still as an interrupted run left it.
fn resumed_slot(target: &dyn Target, slot: SlotName) -> Result<bool, SlotError> {
    Ok(*Slots::read(target)?.get(slot) == Content::Empty)
}

fn image_of(release: &Release) -> Result<Image, AgentError> {
    let superblock = release.verity_superblock().map_err(DownloadError::from)?;
    let uki = Uki {
        version: release.version.clone(),
        root_hash: *release.root_hash.as_bytes(),
        len: release.uki.size,
        sha256: *release.uki.sha256.as_bytes(),
    };
    Ok(Image { superblock, uki })
}

fn copy_error(source: io::Error) -> SinkError {
    SinkError { what: "the copy of the UKI".to_owned(), source }
}

/// Writes the root into its slot and the UKI into its copy, and notes how far it is.
struct Writer<'a> {
    target: &'a dyn Target,
    slot: SlotName,
    /// The copy of the UKI, when that is fetched too.
    uki: Option<File>,
    state: &'a State,
    journal: &'a mut Journal,
    status: &'a mut Status,
    status_path: &'a Path,
    said: std::time::Instant,
}

impl Sink for Writer<'_> {
    fn write(&mut self, write: &Write<'_>) -> Result<(), SinkError> {
        let area = Area::Root(self.slot);
        match write.part {
            Part::Root => self.target.write(area, write.offset, write.data).map_err(|source| SinkError { what: area.to_string(), source }),
            Part::Uki => self.uki.as_ref().map_or(Ok(()), |uki| uki.write_all_at(write.data, write.offset)).map_err(copy_error),
        }
    }

    fn checkpoint(&mut self, fetches: u64, received: u64) -> Result<(), SinkError> {
        let area = Area::Root(self.slot);
        self.target.sync(area).map_err(|source| SinkError { what: area.to_string(), source })?;
        self.uki.as_ref().map_or(Ok(()), File::sync_data).map_err(copy_error)?;
        self.journal.fetches = fetches;
        self.status.counters.received += received.saturating_sub(self.journal.fetched);
        self.journal.fetched = received;
        self.state
            .set_journal(Some(&*self.journal))
            .map_err(|error| SinkError { what: "the journal".to_owned(), source: io::Error::other(error.to_string()) })
    }

    fn progress(&mut self, received: u64, of: u64) {
        self.status.progress = Some((received, of));
        if self.said.elapsed().as_millis() >= 500 {
            self.said = std::time::Instant::now();
            let _ = self.status.store(self.status_path);
        }
    }
}
