//! The agent: brings metadata, policy, download and commit together, and remembers.

mod crossing;
mod error;
mod install;
mod kernel;
mod outcome;

use std::fs::File;
use std::path::PathBuf;

use disk_layout::{SlotName, UkiName, Version};
use release_format::{Channel, ChannelRelease};
use rustix::fs::FlockOperation;
use uuid::Uuid;

use crate::commit::{CommitError, Uki};
use crate::esp::fat::Volume;
use crate::esp::{EspFiles, is_spent};
use crate::etcd::Etcd;
use crate::fetch::Source;
use crate::fetch::http::Http;
use crate::host::Host;
use crate::kernel::Rebuild;
use crate::policy::{Decision, World, decide};
use crate::recovery::{Copies, Standing, recover};
use crate::settings::{RebootStrategy, Settings};
use crate::slots::{Content, Slots};
use crate::state::{Event, Phase, State};
use crate::status::{AgentState, Problem, Status};
use crate::target::Target;
use crate::trust::{STATE_FULL, Trust, Wanted, channel};

pub use error::AgentError;

/// Held while the ESP is changed; `init` holds it too.
const ESP_LOCK: &str = "/run/garboard/esp.lock";

/// Where everything is; another place in tests.
#[derive(Clone, Debug)]
pub struct Paths {
    /// `root.json` of the image.
    pub update_root: PathBuf,
    /// `status.json`.
    pub status: PathBuf,
    /// There while the machine should be rebooted.
    pub reboot_needed: PathBuf,
    /// The reboot daemon: where the image has it, only it reboots.
    pub locksmith: PathBuf,
    /// The ESP's lock; none in tests.
    pub esp_lock: Option<PathBuf>,
    /// The socket that the command line uses.
    pub control: PathBuf,
    /// The socket for Prometheus: HTTP.
    pub metrics: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            update_root: "/usr/share/garboard/update/root.json".into(),
            status: "/run/garboard/update/status.json".into(),
            reboot_needed: "/run/garboard/update/reboot-needed".into(),
            locksmith: "/usr/bin/reboot-locksmith".into(),
            esp_lock: Some(ESP_LOCK.into()),
            control: "/run/garboard/update/control".into(),
            metrics: "/run/garboard/update/metrics".into(),
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
    /// The etcd of this host.
    pub etcd: Box<dyn Etcd>,
    /// Who rebuilds kernels here.
    pub kernels: Box<dyn Rebuild>,
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

fn in_place(version: &Version) -> String {
    format!("version {version} is in place; the next boot starts it")
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

    /// Says that a version is there and not taken; what the next boot starts is not hidden by it.
    fn offers(&mut self, list: &Channel, version: &Version, why: &str) {
        match self.pending().ok().flatten().filter(|pending| list.release(pending).is_some_and(ChannelRelease::is_offered)) {
            Some(pending) if pending != self.host.running.version => {
                self.say(AgentState::PendingReboot, Some(&pending), format!("{}; {why}", in_place(&pending)));
            }
            _ => self.say(AgentState::Waiting, Some(version), why),
        }
    }

    /// The same, and what it waits for.
    fn waits(&mut self, list: &Channel, version: &Version, why: &str, kind: &str, until: Option<u64>) {
        self.offers(list, version, why);
        self.status.wait = Some(kind.to_owned());
        self.status.wait_until = until;
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
        self.status.way = self.state.versions()?.came;
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
        self.note_floors(&slots)?;
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

    fn source(&self) -> Result<Source, AgentError> {
        let server = self.settings.server.as_ref().ok_or(AgentError::NoServer)?;
        Ok(Source::Http(Http::new(server, &self.settings)?))
    }

    fn trust(&self) -> Trust {
        Trust { root: self.paths.update_root.clone(), datastore: self.state.datastore() }
    }

    /// Fetches and verifies the channel; when there is no room to remember what was seen, again without the reserve.
    async fn believe(&self, source: &Source, wanted: &Wanted, waive_expiry: bool) -> Result<Channel, AgentError> {
        let now = (self.clock)();
        match channel(source, &self.trust(), wanted, waive_expiry, now).await {
            Err(error) if error.kind() == STATE_FULL && self.state.release_reserve() => {
                Ok(channel(source, &self.trust(), wanted, waive_expiry, now).await?)
            }
            result => Ok(result?),
        }
    }

    /// The version that was put in place, until it is known to be good or not.
    fn pending(&self) -> Result<Option<Version>, AgentError> {
        let journal = self.state.journal()?.filter(|journal| journal.phase == Phase::Committed);
        Ok(journal.and_then(|journal| journal.version.parse().ok()))
    }

    fn decision(&self, channel: &Channel, asked: bool) -> Result<Decision, AgentError> {
        let pin: Option<Version> = self.state.policy()?.pin.and_then(|pin| pin.parse().ok());
        let pending = self.pending()?;
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
        let list = self.believe(&source, &wanted, false).await?;
        self.status.checked = Some((self.clock)());
        self.status.error = None;
        let decision = self.decision(&list, asked)?;
        match &decision {
            Decision::UpToDate => self.say(AgentState::Idle, None, "nothing newer is offered to this host"),
            Decision::Pending(version) => {
                self.say(AgentState::PendingReboot, Some(version), in_place(version));
            }
            Decision::Take(release) => {
                self.offers(&list, &release.version, &format!("version {} can be installed", release.version));
            }
            Decision::Wait { version, why } => {
                self.waits(&list, version, &why.explain(version), why.kind(), why.until());
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
            // Who names an older version does not want a newer one.
            (_, Some(version)) if wish.downgrade => match list.release(version) {
                Some(entry) if entry.is_offered() && *version != self.host.running.version => entry.clone(),
                _ => return Err(AgentError::NotTaken { version: version.clone(), reason: "the channel does not offer it".to_owned() }),
            },
            (Decision::Take(entry), _) => *entry,
            _ => return Ok(None),
        };
        let source = self.source()?;
        match self.install_or_earlier(&source, &list, entry, wish).await {
            // Nothing has failed: the others need time.
            Err(ref error @ AgentError::EtcdMembers { ref version, .. }) => {
                self.waits(&list, version, &error.to_string(), error.kind(), None);
                Ok(None)
            }
            installed => installed,
        }
    }

    fn on_trial(&self) -> bool {
        let counted = self.host.uki.parse::<UkiName>().is_ok_and(|name| name.counter.is_some() && !is_spent(&name));
        counted && self.standing(&self.host.running.version, &self.host.running.root_hash).0 != Standing::Good
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
        // The reboot daemon may be reading it.
        if let Err(error) = crate::state::write_whole(&self.paths.reboot_needed, text.as_bytes()) {
            eprintln!("update-agent: {}: {error}", self.paths.reboot_needed.display());
        }
    }

    /// Whether this program itself reboots now: not where the reboot daemon does it, which knows windows, locks and inhibitors.
    #[must_use]
    pub fn reboots(&self) -> bool {
        self.status.state == AgentState::PendingReboot
            && self.settings.reboot == RebootStrategy::Reboot
            && self.paths.reboot_needed.exists()
            && !self.paths.locksmith.exists()
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
