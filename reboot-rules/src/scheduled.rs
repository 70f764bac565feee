//! A shutdown that somebody has scheduled: `/run/garboard/shutdown-scheduled`. The process that waits for the time is named in it; the
//! file means nothing when that is gone.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Seconds;

/// What is scheduled. The field names are documented and stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    /// `reboot`, `poweroff`, `halt`.
    pub kind: String,
    /// When.
    pub at: Seconds,
    /// Who asked.
    pub who: String,
    /// What they said about it.
    pub message: String,
    /// The process that waits.
    pub pid: u32,
}

impl Scheduled {
    /// What is scheduled, if anything.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        let scheduled: Self = serde_json::from_slice(&crate::inhibitors::read_file(path).ok()?).ok()?;
        Path::new(&format!("/proc/{}", scheduled.pid)).exists().then_some(scheduled)
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        crate::file::write_whole(path, &serde_json::to_vec(self).map_err(std::io::Error::from)?, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_means_nothing_when_nobody_waits() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("scheduled");
        let mut scheduled = Scheduled { kind: "reboot".into(), at: 5, who: "root".into(), message: String::new(), pid: std::process::id() };
        scheduled.write(&path).unwrap();
        assert_eq!(Scheduled::read(&path), Some(scheduled.clone()));
        scheduled.pid = u32::MAX;
        scheduled.write(&path).unwrap();
        assert_eq!(Scheduled::read(&path), None);
    }
}
