//! What became of an update, and the way back from one.

use disk_layout::{BootCounter, UkiName, Version};

use super::{Agent, AgentError, in_place};
use crate::commit::{CommitError, digest_on_disk, set_aside};
use crate::esp::fat::Volume;
use crate::recovery::{Copies, Standing};
use crate::slots::{Content, Slots};
use crate::state::{Fate, Phase};
use crate::status::AgentState;
use crate::verity::{self, hex};

impl Agent {
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
                self.say(AgentState::PendingReboot, Some(&version), in_place(&version));
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

    /// Goes back to the version in the other slot.
    ///
    /// # Errors
    /// When there is none, or it does not verify.
    pub async fn rollback(&mut self) -> Result<Version, AgentError> {
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
        // What never said what it reads is from before anything had to be said.
        if let Some(floor) = self.state.versions()?.floors.get(&hex(&root_hash)).cloned() {
            self.may_go_back(&version, &floor)?;
            self.save_etcd(&version, &floor).await?;
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
}
