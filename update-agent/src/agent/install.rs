//! From a release that was chosen to one that the next boot starts: download, read-back, commit, each step in the journal.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use disk_layout::{SlotName, Version};
use release_format::{Channel, ChannelRelease, ContentMap, Digest, LocalChunks, Part, Release, Write};

use super::{Agent, AgentError, Wish, in_place, random_id};
use crate::commit::{Claim, CommitError, Image, Installer, Uki};
use crate::download::{
    self, Beyond, Download, DownloadError, LocalSource, Patch, Position, Sink, SinkError, Taken, offered_patch, patch_from, unless_unusable,
};
use crate::fetch::Source;
use crate::fetch::bundle::Bundle;
use crate::recovery::{Copies, Standing};
use crate::slots::{Content, SlotError, Slots};
use crate::state::{Came, Fate, Journal, Phase, State, StateError};
use crate::status::{AgentState, Status};
use crate::target::{Area, Target};
use crate::trust::Wanted;
use crate::verity::{VerityError, hex};

impl Agent {
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
        let list = self.believe(&source, &wanted, true).await?;
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

    pub(super) async fn install(
        &mut self,
        source: &Source,
        list: &Channel,
        entry: &ChannelRelease,
        downgrade: bool,
    ) -> Result<(), AgentError> {
        let version = entry.version.clone();
        let older = version < self.host.running.version;
        if older && !downgrade {
            return Err(AgentError::Downgrade { version, running: self.host.running.version.clone() });
        }
        let release = download::release(source, list, entry).await?;
        if older {
            self.may_go_back(&version, &release.state)?;
        } else {
            self.may_go_on(&version, &release.state).await?;
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
            position: Position::default(),
        });
        self.say(AgentState::Downloading, Some(&version), format!("version {version} is being written into slot {}", journal.slot));
        let claim = {
            let _lock = self.lock()?;
            self.with_installer(|installer| installer.preflight(&image))?;
            if let Some(replaced) = before.filter(|before| before.phase == Phase::Committed && before.version != journal.version) {
                self.event("replaced", &replaced.version, &format!("by version {version}, before it was started"))?;
            }
            let untouched = resumed_slot(&*self.target, self.host.running.slot.other())?;
            if !untouched {
                journal.position = Position::default();
            }
            self.state.set_journal(Some(&journal))?;
            self.with_installer(|installer| installer.claim(&image))?
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
                journal.position = Position::default();
            }
            let before = journal.position.clone();
            let fetched = self.fetch(source, list, &release, &image, parts, &mut journal).await;
            if fetched.as_ref().is_err_and(AgentError::is_failed_answer) {
                // The metadata came, so the server is there: an object that it never gives must not hold up the update for ever.
                journal.position.stuck = journal.position.stuck_after(&before);
                self.state.set_journal(Some(&journal))?;
            }
            // Before the version can boot: should the power fail then, it is known all the same.
            let came = Came { version: version.to_string(), taken: fetched? };
            self.state.change_versions(|versions| versions.came = Some(came))?;
        }
        if claim == Claim::Empty {
            self.say(AgentState::Verifying, Some(&version), format!("version {version} is read back and verified"));
            let filled = self.with_installer(|installer| installer.fill(&image));
            if let Err(AgentError::Commit(CommitError::Verity(VerityError::RootHash { .. }))) = &filled {
                // What was written was not what was noted: all is fetched and written anew next time.
                journal.position = Position::full();
                self.state.set_journal(Some(&journal))?;
                eprintln!("update-agent: version {version} is fetched in full next time");
            }
            filled?;
        }
        journal.phase = Phase::Filled;
        self.state.set_journal(Some(&journal))?;
        self.save_etcd(&version, &release.state).await?;
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
        self.state.prune_maps(&[Digest::new(self.host.running.root_hash), release.root_hash]);
        self.state.keep_reserve()?;
        self.status.counters.updates += 1;
        self.status.way = self.state.versions()?.came;
        let came = self.status.way.as_ref().filter(|came| came.version == version.as_str()).map(|came| &came.taken);
        if let Some(taken) = came {
            eprintln!("update-agent: version {version} came {}", taken.render());
            self.status.counters.count(taken);
        }
        let way = came.map_or_else(String::new, |taken| format!(", {}", taken.render()));
        self.event("installed", version.as_str(), &format!("into slot {}, over version {running}{way}", journal.slot))?;
        self.say(AgentState::PendingReboot, Some(&version), in_place(&version));
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
        list: &Channel,
        release: &Release,
        image: &Image,
        parts: &[Part],
        journal: &mut Journal,
    ) -> Result<Taken, AgentError> {
        // A bundle is here as a whole: nothing is saved by reading less of it.
        let running_hash = Digest::new(self.host.running.root_hash);
        let running = match source {
            Source::Http(_) if !journal.position.full => self.running_map(source, list, &running_hash).await?,
            _ => None,
        };
        let stuck = journal.position.stuck;
        let gives_up = journal.position.gives_up();
        let patch = match &running {
            Some(_) if gives_up => {
                eprintln!("update-agent: {stuck} attempts in a row came no further, so the update comes by chunks and the pack index");
                Err(Unusable)
            }
            Some(running) => patch(source, release, running, &running_hash).await?,
            None => Ok(None),
        };
        let no_patch = patch.is_err();
        let patch = patch.ok().flatten();
        let from = running.as_ref().map(|_| running_hash);
        let digest = patch.as_ref().map(|(patch, _)| patch.info.table.sha256);
        if (journal.position.from, journal.position.patch) != (from, digest) {
            journal.position = Position { from, patch: digest, full: journal.position.full, stuck, ..Position::default() };
        }
        journal.position.no_patch = no_patch;
        let (patch, made) = patch.unzip();
        let table_len = patch.as_ref().map_or(0, |patch| patch.info.table.size);
        let difference = running.as_ref().filter(|_| !gives_up).and_then(|_| download::offered_difference(release, &running_hash));
        let (map, mut beyond) = match (made, &difference, &running) {
            (None, Some(info), Some(running)) => match download::difference_from(source, release, info, running).await? {
                Some((map, index)) => (Some(map), Beyond::Here(index)),
                None => {
                    journal.position.lost = true;
                    (None, Beyond::Nothing)
                }
            },
            (made, ..) => (made, Beyond::Nothing),
        };
        let map = match map {
            Some(map) => {
                self.keep_map(&release.root_hash, &map);
                map
            }
            None => self.map_of(source, release).await?,
        };
        let slot = self.host.running.slot;
        let local = RunningSlot { target: &*self.target, slot, uki: File::open(self.state.uki_path(&self.host.running.version)).ok() };
        let with_uki = parts.contains(&Part::Uki);
        let kernel = match (patch.as_ref().and_then(|patch| patch.info.kernel), &running) {
            (Some(kernel), Some(running)) if with_uki && journal.position.kernel.is_none() => {
                Some(self.rebuilt_kernel(source, &kernel, (running, &map), &local).await?)
            }
            _ => None,
        };
        let local_chunks = running.as_ref().map(LocalChunks::of).unwrap_or_default();
        if let (Some(_), Some(info), Some(running)) = (&patch, difference, running) {
            beyond = Beyond::There(info, running);
        }
        let download = Download::new(release.clone(), map, local_chunks, patch, parts).with_kernel(kernel).with_beyond(beyond);
        let uki = if with_uki { Some(self.state.stage_uki(&image.uki.version, image.uki.len)?) } else { None };
        let mut position = journal.position.clone();
        position.fetched += table_len;
        let mut writer = Writer {
            target: &*self.target,
            slot: slot.other(),
            uki,
            state: &self.state,
            journal: &mut *journal,
            status: &mut self.status,
            status_path: &self.paths.status,
            said: std::time::Instant::now(),
        };
        let taken = download.run(source, &local, &mut writer, position).await?;
        if with_uki && let Err(error) = self.state.keep_uki(&image.uki) {
            // What was written was not what was noted: all is fetched anew next time.
            journal.position = Position::full();
            self.state.set_journal(Some(&*journal))?;
            return Err(error.into());
        }
        Ok(taken)
    }

    /// The content map of the running version: kept since its installation, or from the server. Without one all is fetched, and the log says why.
    async fn running_map(&self, source: &Source, list: &Channel, root_hash: &Digest) -> Result<Option<ContentMap>, AgentError> {
        if let Some(map) = self.state.map(root_hash) {
            return Ok(Some(map));
        }
        let told = "there is no content map of the running version, so all is fetched";
        let Some(entry) = list.releases.iter().find(|entry| entry.root_hash == *root_hash) else {
            eprintln!("update-agent: {told}: the channel does not list it");
            return Ok(None);
        };
        // All may be much more than what a little patience saves.
        let map = unless_unusable(running_map_from(source, list, entry).await, told)?;
        if let Some(map) = &map {
            self.keep_map(root_hash, map);
        }
        Ok(map)
    }

    /// The content map of a release: kept since an attempt before, or from the server.
    async fn map_of(&self, source: &Source, release: &Release) -> Result<ContentMap, AgentError> {
        if let Some(map) = self.state.map(&release.root_hash).filter(|map| Digest::of(&map.body()) == release.map_body) {
            return Ok(map);
        }
        let map = download::map(source, release).await?;
        self.keep_map(&release.root_hash, &map);
        Ok(map)
    }

    /// What is lost without it is bytes of the next update.
    fn keep_map(&self, root_hash: &Digest, map: &ContentMap) {
        if let Err(error) = self.state.keep_map(root_hash, map) {
            eprintln!("update-agent: the content map cannot be kept: {error}");
        }
    }
}

/// A way that is offered, and cannot be used.
struct Unusable;

/// The patch from the running version, if the release has one. When it cannot be used, chunks are what is left, and the log says why.
async fn patch(
    source: &Source,
    release: &Release,
    running: &ContentMap,
    running_hash: &Digest,
) -> Result<Result<Option<(Patch, ContentMap)>, Unusable>, AgentError> {
    let told = "what is said of patches from older versions cannot be used, so the update comes by chunks";
    let Some(info) = unless_unusable(offered_patch(source, release, running_hash).await, told)? else { return Ok(Err(Unusable)) };
    let Some(info) = info else { return Ok(Ok(None)) };
    let told = "the patch from the running version cannot be used, so the update comes by chunks";
    let patch = unless_unusable(patch_from(source, release, &info, running).await, told)?;
    Ok(patch.map(Some).ok_or(Unusable))
}

async fn running_map_from(source: &Source, list: &Channel, entry: &ChannelRelease) -> Result<ContentMap, DownloadError> {
    download::map(source, &download::release(source, list, entry).await?).await
}

/// What runs, as a source of chunks: its slot's raw partition, not what is mounted from it, where a damaged block would be a kernel's
/// concern; and the copy of its UKI.
struct RunningSlot<'a> {
    target: &'a dyn Target,
    slot: SlotName,
    uki: Option<File>,
}

impl LocalSource for RunningSlot<'_> {
    fn read(&self, part: Part, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match (part, &self.uki) {
            (Part::Root, _) => self.target.read(Area::Root(self.slot), offset, buffer),
            (Part::Uki, Some(uki)) => uki.read_exact_at(buffer, offset),
            (Part::Uki, None) => Err(io::Error::new(io::ErrorKind::NotFound, "there is no copy of the running version's UKI")),
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

    fn checkpoint(&mut self, position: &Position) -> Result<(), SinkError> {
        let area = Area::Root(self.slot);
        self.target.sync(area).map_err(|source| SinkError { what: area.to_string(), source })?;
        self.uki.as_ref().map_or(Ok(()), File::sync_data).map_err(copy_error)?;
        self.status.counters.received += position.fetched.saturating_sub(self.journal.position.fetched);
        self.journal.position.clone_from(position);
        self.state.set_journal(Some(&*self.journal)).map_err(|error| SinkError { what: "the journal".to_owned(), source: error.into_io() })
    }

    fn progress(&mut self, received: u64, of: u64) {
        self.status.progress = Some((received, of));
        if self.said.elapsed().as_millis() >= 500 {
            self.said = std::time::Instant::now();
            let _ = self.status.store(self.status_path);
        }
    }
}
