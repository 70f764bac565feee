//! What goes into the journal, each before anything follows from it.

use super::{Daemon, say};
use crate::journal::Claimed;
use crate::machine::Phase;
use crate::permission::{Claim, News};
use crate::policy::LockFact;

impl Daemon {
    pub(super) fn set_phase(&mut self, phase: Phase) {
        if self.journal.phase != phase {
            self.journal.phase = phase;
            self.store_journal();
        }
    }

    pub(super) fn store_journal(&mut self) {
        if let Err(error) = self.journal.store(&self.paths.journal()) {
            let line = format!("{}: {error}", self.paths.journal().display());
            say(&line);
            if !self.status.warnings.contains(&line) {
                self.status.warnings.push(line);
            }
        }
    }

    /// Notes what the lock is asked for, before it is.
    pub(super) fn note_claim(&mut self) {
        let Some(wanted) = self.wanted() else { return };
        let claim = Claim { version: wanted.version, reason: wanted.reason };
        let (boot_id, strategy) = (self.identity.boot_id.clone(), self.strategy.as_str().to_owned());
        let fence = self.journal.claimed.as_ref().and_then(|noted| noted.fence);
        let claimed = Claimed { claim, boot_id, strategy, fence };
        if self.journal.claimed.as_ref() != Some(&claimed) {
            // Another claim's fence says nothing about this one.
            self.journal.claimed = Some(Claimed { fence: None, ..claimed });
            self.store_journal();
        }
    }

    /// Notes the fence of a lock before anything is done with it, that all is given back when it is, and what was reported before anything follows from
    /// that.
    pub(super) fn note(&mut self, news: &News) {
        let before = (self.journal.claimed.clone(), self.journal.reported.clone());
        self.journal.reported.clone_from(&news.reported);
        match &mut self.journal.claimed {
            claimed if news.free && !self.journal.phase.holds() => *claimed = None,
            Some(claimed) if news.lock == LockFact::Held => claimed.fence = news.fence,
            _ => {}
        }
        if before != (self.journal.claimed.clone(), self.journal.reported.clone()) {
            self.store_journal();
        }
    }
}
