//! What became of a version on this machine: one file for each on state, written by `init`, read by the update agent.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::boot::BootRecord;

/// The directory of verdicts, `<version>.json` each.
const DIRECTORY: &str = "/media/state/garboard/verdicts";

/// Why a verdict could not be kept.
#[derive(Debug, Error)]
#[error("cannot store the verdict {}: {source}", path.display())]
pub struct VerdictError {
    path: PathBuf,
    source: io::Error,
}

/// The verdict about a version. The field names are documented and stable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// Of which version.
    pub version: String,
    /// Of which root hash: a version that was built again is another one.
    pub root_hash: String,
    /// In which slot it ran.
    pub slot: String,
    /// `good` or `failed`.
    pub verdict: String,
    /// Why it failed; empty when it is good.
    pub reason: String,
    /// Seconds since 1970, by a clock that may not have been set.
    pub time: u64,
}

impl Verdict {
    /// About this boot.
    #[must_use]
    pub fn new(record: &BootRecord, good: bool, reason: &str) -> Self {
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Self {
            version: record.version.clone(),
            root_hash: record.root_hash.clone(),
            slot: record.slot.clone(),
            verdict: if good { "good" } else { "failed" }.to_owned(),
            reason: reason.to_owned(),
            time,
        }
    }

    /// Whether it is on state already that this boot's version is good.
    #[must_use]
    pub fn is_good_already(record: &BootRecord) -> bool {
        let text = fs::read(Path::new(DIRECTORY).join(format!("{}.json", record.version))).unwrap_or_default();
        let kept: Self = serde_json::from_slice(&text).unwrap_or_default();
        kept.verdict == "good" && kept.root_hash == record.root_hash
    }

    /// Writes it, whole or not at all, durably.
    ///
    /// # Errors
    /// When state cannot be written.
    pub fn store(&self) -> Result<(), VerdictError> {
        self.store_in(Path::new(DIRECTORY))
    }

    fn store_in(&self, directory: &Path) -> Result<(), VerdictError> {
        let path = directory.join(format!("{}.json", self.version));
        let write = || -> io::Result<()> {
            fs::create_dir_all(directory)?;
            let temporary = directory.join(format!(".{}.new", self.version));
            let mut file = fs::File::create(&temporary)?;
            file.write_all(&serde_json::to_vec_pretty(self).map_err(io::Error::from)?)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            fs::File::open(directory)?.sync_all()
        };
        write().map_err(|source| VerdictError { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_verdict_replaces_an_earlier_one() {
        let directory = tempfile::tempdir().unwrap();
        let record = BootRecord { version: "1.1".into(), root_hash: "ab".into(), slot: "b".into(), ..Default::default() };
        Verdict::new(&record, false, "docker.service is failed").store_in(directory.path()).unwrap();
        Verdict::new(&record, true, "").store_in(directory.path()).unwrap();
        let names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["1.1.json"]);
        let kept: Verdict = serde_json::from_slice(&fs::read(directory.path().join("1.1.json")).unwrap()).unwrap();
        assert_eq!((kept.verdict.as_str(), kept.slot.as_str(), kept.reason.as_str()), ("good", "b", ""));
    }
}
