//! The journal on the state partition: what must be known after a crash or a reboot. Written whole and synced, before what it tells of is done.

use std::path::{Path, PathBuf};
use std::{fs, io};

use reboot_rules::file::write_whole;
use reboot_rules::settings::Strategy;
use serde::{Deserialize, Serialize};

use crate::drain::{Occasion, Running};
use crate::drain_task::Undoing;
use crate::machine::Phase;
use crate::permission::{Claim, Report};
use crate::policy::Wanted;

const FORMAT: u32 = 1;

/// A lock that may be held: what it was asked for, noted before it is, and what is known of it since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claimed {
    /// What for.
    #[serde(flatten)]
    pub claim: Claim,
    /// The boot that asked.
    pub boot_id: String,
    /// Whose lock it is: the strategy's name.
    pub strategy: String,
    /// The etcd lock's fence, once it is got.
    pub fence: Option<u64>,
}

impl Claimed {
    /// What an earlier boot took by one of these strategies.
    #[must_use]
    pub fn earlier(noted: Option<&Self>, by: &[Strategy], boot_id: &str) -> Option<Self> {
        noted.filter(|noted| noted.boot_id != boot_id && by.iter().any(|strategy| strategy.as_str() == noted.strategy)).cloned()
    }
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Journal {
    /// Of this layout.
    pub format: u32,
    /// Where the daemon is.
    pub phase: Phase,
    /// In which boot that was.
    pub boot_id: String,
    /// What somebody asked for: an update is known from the update agent.
    pub wanted: Option<Wanted>,
    /// What may be held; none when all was given back.
    pub claimed: Option<Claimed>,
    /// The version that this host has quarantined, and after which try: once is enough for each, an operator may have cleared it.
    pub reported: Option<Report>,
    /// What hooks were told about a reboot that has not come yet.
    pub occasion: Occasion,
    /// Hooks that ran for it.
    pub hooks: Vec<PathBuf>,
    /// Containers that were stopped for a reboot that has not come yet.
    pub stopped: Vec<String>,
    /// Those of them that Docker does not start by itself after it.
    pub start_again: Vec<String>,
}

fn add<T: PartialEq>(list: &mut Vec<T>, items: impl IntoIterator<Item = T>) {
    for item in items {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

impl Journal {
    /// Reads it; a new one when there is none. A damaged one, or a newer version's, is said to be so and begun again, which the next
    /// [`Journal::store`] overwrites: what others hold for this host is asked of them anyway.
    #[must_use]
    pub fn load(path: &Path) -> (Self, Option<String>) {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (Self::default(), None),
            Err(error) => return (Self::default(), Some(format!("{}: {error}", path.display()))),
            Ok(bytes) => bytes,
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(journal) if journal.format <= FORMAT => (journal, None),
            Ok(journal) => (
                Self::default(),
                Some(format!("{}: written by a newer version (layout {}), and begun again", path.display(), journal.format)),
            ),
            Err(error) => (Self::default(), Some(format!("{}: damaged, and begun again: {error}", path.display()))),
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// When the state partition cannot be written.
    pub fn store(&mut self, path: &Path) -> io::Result<()> {
        self.format = FORMAT;
        write_whole(path, &serde_json::to_vec_pretty(self).map_err(io::Error::from)?, true)
    }

    /// Forgets what ended with the boot that asked for it.
    pub fn enter_boot(&mut self, boot_id: &str) {
        if self.boot_id != boot_id {
            self.boot_id = boot_id.to_owned();
            self.phase = Phase::Idle;
            self.wanted = None;
            self.forget_drain();
        }
    }

    /// Notes what is about to be done. What an earlier daemon has done of the same drain still has to be undone, too.
    pub fn note(&mut self, undoing: Undoing) {
        match undoing {
            Undoing::Hook(hook) => add(&mut self.hooks, [hook]),
            Undoing::Containers(Running { all, unless_stopped }) => {
                add(&mut self.stopped, all);
                add(&mut self.start_again, unless_stopped);
            }
        }
    }

    /// Forgets what would have to be undone if the reboot were called off.
    pub fn forget_drain(&mut self) {
        self.occasion = Occasion::default();
        self.hooks.clear();
        self.stopped.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_that_is_begun_again_is_undone_as_a_whole() {
        let mut journal = Journal { boot_id: "one".into(), ..Journal::default() };
        let containers = |all: &[&str], kept: &[&str]| {
            let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
            Undoing::Containers(Running { all: list(all), unless_stopped: list(kept) })
        };
        // One of them has stopped when the next daemon looks.
        for running in [&["a", "b"][..], &["b"]] {
            journal.note(Undoing::Hook("/x/10".into()));
            journal.note(containers(running, running));
        }
        assert_eq!((journal.hooks.as_slice(), journal.stopped.join(" ").as_str()), (["/x/10".into()].as_slice(), "a b"));
        journal.enter_boot("two");
        assert!(journal.hooks.is_empty() && journal.stopped.is_empty());
        assert_eq!(journal.start_again.join(" "), "a b", "Docker does not start them by itself");
    }

    #[test]
    fn it_comes_back_and_a_new_boot_forgets_what_ended_with_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/journal.json");
        assert_eq!(Journal::load(&path), (Journal::default(), None));
        let report = Report { version: "1.2".into(), boot_id: "zero".into() };
        let mut journal =
            Journal { phase: Phase::Draining { since: 5 }, boot_id: "one".into(), reported: Some(report.clone()), ..Journal::default() };
        journal.store(&path).unwrap();
        let (mut loaded, problem) = Journal::load(&path);
        assert_eq!((&loaded, problem), (&journal, None));
        loaded.enter_boot("one");
        assert_eq!(loaded, journal);
        loaded.enter_boot("two");
        assert_eq!((loaded.phase, &loaded.reported), (Phase::Idle, &Some(report)));
        // Earlier versions noted less beside the claim, or more.
        let claim = Claim { version: Some("1.2".into()), reason: "x".into() };
        let less = Claimed { claim: claim.clone(), ..Claimed::default() };
        let more = Claimed { claim, boot_id: "one".into(), strategy: "etcd-lock".into(), fence: Some(7) };
        let noted = [("", less), (r#", "boot_id": "one", "since": 5, "strategy": "etcd-lock", "fence": 7"#, more)];
        for (beside, claimed) in noted {
            fs::write(&path, format!(r#"{{"format": 1, "claimed": {{"version": "1.2", "reason": "x"{beside}}}}}"#)).unwrap();
            assert_eq!(Journal::load(&path), (Journal { format: 1, claimed: Some(claimed), ..Journal::default() }, None));
        }
        fs::write(&path, "{\"phase\": 3").unwrap();
        let (fresh, problem) = Journal::load(&path);
        assert!(fresh == Journal::default() && problem.unwrap().contains("damaged"));
    }
}
