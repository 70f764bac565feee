//! What this host knows about itself: its identity, how this boot stands, which update waits, and what became of one.

use std::path::Path;

use reboot_rules::Seconds;
use serde::Deserialize;

use crate::paths::Paths;
use crate::policy::{Boot, Origin, Wanted};

/// Who this host is; fixed for a boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `/etc/machine-id`: what locks are held under.
    pub machine_id: String,
    /// The kernel's name for this boot.
    pub boot_id: String,
    /// For people.
    pub hostname: String,
    /// The version that runs.
    pub version: String,
}

/// Part of `boot.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BootRecord {
    version: String,
    rescue: String,
    phases: std::collections::BTreeMap<String, f64>,
}

/// Part of what `init` stores about a version.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Verdict {
    verdict: String,
    reason: String,
}

fn word(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn boot_record(paths: &Paths) -> BootRecord {
    std::fs::read(paths.boot()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

impl Identity {
    /// Reads it.
    ///
    /// # Errors
    /// When the host has no identity: no lock could be held under it.
    pub fn read(paths: &Paths) -> Result<Self, String> {
        let machine_id = word(&paths.machine_id());
        if machine_id.is_empty() {
            return Err(format!("{}: this host has no identity", paths.machine_id().display()));
        }
        let boot_id = word(&paths.boot_id()).replace('-', "");
        Ok(Self { machine_id, boot_id, hostname: word(&paths.hostname()), version: boot_record(paths).version })
    }

    /// This host's own number for a wanted reboot (FNV-1a).
    #[must_use]
    pub fn number(&self, wanted: Option<&Wanted>) -> u64 {
        let version = wanted.and_then(|wanted| wanted.version.as_deref()).unwrap_or_default();
        let bytes = self.machine_id.bytes().chain(version.bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }
}

/// How this boot stands.
#[must_use]
pub fn boot(paths: &Paths) -> Boot {
    let record = boot_record(paths);
    if !record.rescue.is_empty() {
        return Boot::Unhealthy(record.rescue);
    }
    let has = |phase: &str| record.phases.contains_key(phase);
    match (has("boot-complete"), has("boot-failed") || has("boot-degraded")) {
        (true, _) => Boot::Healthy,
        (_, true) => Boot::Unhealthy("its health gate has not held, see `systemctl --failed`".to_owned()),
        _ => Boot::Starting,
    }
}

/// The reboot that the update agent wants; an error says why what it left is not understood.
///
/// # Errors
/// One line.
pub fn update(paths: &Paths) -> Result<Option<Wanted>, String> {
    #[derive(Deserialize)]
    struct Needed {
        version: String,
        reason: String,
    }
    let path = paths.needed();
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
        Ok(bytes) => bytes,
    };
    let needed: Needed = serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    let since: Option<Seconds> = std::fs::metadata(&path)
        .and_then(|data| data.modified())
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .map(|since| since.as_secs());
    Ok(Some(Wanted {
        origin: Origin::Update,
        reason: format!("{} (version {})", needed.reason, needed.version),
        version: Some(needed.version),
        by: "update-agent".to_owned(),
        since: since.unwrap_or(0),
    }))
}

/// Why a version has failed on this host, if it has.
#[must_use]
pub fn failure(paths: &Paths, version: &str) -> Option<String> {
    if version.contains('/') {
        return None;
    }
    let verdict: Verdict = serde_json::from_slice(&std::fs::read(paths.verdict(version)).ok()?).ok()?;
    (verdict.verdict == "failed").then_some(verdict.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_this_host_knows_about_itself() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::below(directory.path());
        for path in ["etc", "run/garboard/update", "proc/sys/kernel/random", "media/state/garboard/verdicts"] {
            fs::create_dir_all(directory.path().join(path)).unwrap();
        }
        assert!(Identity::read(&paths).is_err());
        fs::write(paths.machine_id(), "0123\n").unwrap();
        fs::write(paths.boot_id(), "aa-bb\n").unwrap();
        fs::write(paths.boot(), r#"{"version": "1.0", "phases": {"early": 1.5}}"#).unwrap();
        let identity = Identity::read(&paths).unwrap();
        assert_eq!((identity.boot_id.as_str(), identity.version.as_str()), ("aabb", "1.0"));
        assert_eq!(boot(&paths), Boot::Starting);
        fs::write(paths.boot(), r#"{"phases": {"boot-complete": 9.5}}"#).unwrap();
        assert_eq!(boot(&paths), Boot::Healthy);
        fs::write(paths.boot(), r#"{"phases": {"boot-degraded": 9.5}}"#).unwrap();
        assert!(matches!(boot(&paths), Boot::Unhealthy(_)));
        assert_eq!(update(&paths), Ok(None));
        fs::write(paths.needed(), r#"{"version": "1.1", "reason": "an update is in place"}"#).unwrap();
        let wanted = update(&paths).unwrap().unwrap();
        assert_eq!((wanted.version.as_deref(), wanted.reason.as_str()), (Some("1.1"), "an update is in place (version 1.1)"));
        assert!(wanted.since > 1_000_000_000);
        fs::write(paths.needed(), "{").unwrap();
        assert!(update(&paths).is_err());
        assert_eq!(failure(&paths, "1.1"), None);
        fs::write(paths.verdict("1.1"), r#"{"verdict": "failed", "reason": "docker is failed"}"#).unwrap();
        assert_eq!(failure(&paths, "1.1").as_deref(), Some("docker is failed"));
    }
}
