//! When a host gives its lock back: the rule, without I/O. A host that fell back keeps its lock and says which version failed, until a person says
//! that the others may go on.

use disk_layout::Version;

use crate::semaphore::{Holder, Purpose};

/// What became of the version that the lock was taken for, as the update agent and init know it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing is known against it: it is waiting to be booted, or runs.
    Pending,
    /// It failed, with the reason.
    Failed(String),
    /// It failed, the host has said so, and a person has lifted the quarantine since: the others are to go on.
    Cleared,
}

/// The host as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host<'a> {
    /// This boot.
    pub boot_id: &'a str,
    /// The version that runs.
    pub running: &'a str,
    /// Its health gate has held in this boot, and it is no longer on trial.
    pub healthy: bool,
    /// What became of the version in its record.
    pub outcome: Outcome,
}

/// What to do with the lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Give it back.
    Release {
        /// For the log and the audit trail.
        why: String,
    },
    /// Keep it, for now or until a person comes.
    Keep {
        /// For `why`.
        why: String,
    },
    /// Keep it, and quarantine the version.
    FellBack {
        /// What failed.
        version: String,
        /// How.
        reason: String,
    },
}

/// Decides about the lock of this host, `record`.
#[must_use]
pub fn decide(record: &Holder, host: &Host<'_>) -> Decision {
    let keep = |why: &str| Decision::Keep { why: why.to_owned() };
    let release = |why: String| Decision::Release { why };
    let rebooted = record.boot_id != host.boot_id;
    match (record.purpose, record.version.as_deref()) {
        (Purpose::Manual, _) => keep("it was taken by hand: locksmithctl unlock gives it back"),
        (Purpose::FleetLock, _) => keep("it belongs to a FleetLock client"),
        (Purpose::Update, Some(wanted)) if host.running == wanted => {
            if host.healthy {
                release(format!("the host is healthy with version {wanted}"))
            } else {
                keep("the host is not healthy yet")
            }
        }
        (Purpose::Update, Some(wanted)) => match &host.outcome {
            Outcome::Failed(reason) => Decision::FellBack { version: wanted.to_owned(), reason: reason.clone() },
            Outcome::Cleared => release(format!("the quarantine of version {wanted}, which failed on this host, was cleared")),
            Outcome::Pending if !rebooted => keep("the reboot is still to come"),
            Outcome::Pending if !is_newer(host.running, wanted) => {
                Decision::FellBack { version: wanted.to_owned(), reason: format!("the host came back with {}", host.running) }
            }
            Outcome::Pending if !host.healthy => keep("the host is not healthy yet"),
            Outcome::Pending => release(format!("the host is healthy with version {}, newer than {wanted}", host.running)),
        },
        (Purpose::Update | Purpose::Reboot, _) if !rebooted => keep("the reboot is still to come"),
        (Purpose::Update | Purpose::Reboot, _) if !host.healthy => keep("the host is not healthy yet"),
        (Purpose::Update | Purpose::Reboot, _) => release("the host is healthy after its reboot".to_owned()),
    }
}

fn is_newer(running: &str, wanted: &str) -> bool {
    match (running.parse::<Version>(), wanted.parse::<Version>()) {
        (Ok(running), Ok(wanted)) => running > wanted,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(purpose: Purpose, version: Option<&str>) -> Holder {
        Holder {
            id: "a".to_owned(),
            hostname: "a".to_owned(),
            boot_id: "before".to_owned(),
            purpose,
            reason: String::new(),
            version: version.map(str::to_owned),
            since: 0,
            fence: 1,
            expires: false,
        }
    }

    fn decided(purpose: Purpose, version: Option<&str>, boot_id: &str, running: &str, healthy: bool, outcome: Outcome) -> &'static str {
        match decide(&record(purpose, version), &Host { boot_id, running, healthy, outcome }) {
            Decision::Release { .. } => "release",
            Decision::Keep { .. } => "keep",
            Decision::FellBack { .. } => "fell back",
        }
    }

    #[test]
    fn the_lock_goes_back_only_from_a_healthy_host_with_the_version_or_a_newer_one() {
        let update = |boot, running, healthy, outcome| decided(Purpose::Update, Some("1.10.0"), boot, running, healthy, outcome);
        let failed = || Outcome::Failed("etcd.service failed".to_owned());
        assert_eq!(update("before", "1.9.0", true, Outcome::Pending), "keep");
        assert_eq!(update("after", "1.10.0", false, Outcome::Pending), "keep");
        assert_eq!(update("after", "1.10.0", true, Outcome::Pending), "release");
        assert_eq!(update("after", "1.11.0", true, Outcome::Pending), "release");
        assert_eq!(update("after", "1.9.0", true, failed()), "fell back");
        assert_eq!(update("after", "1.9.0", false, failed()), "fell back");
        assert_eq!(update("after", "1.9.0", true, Outcome::Pending), "fell back");
        assert_eq!(update("after", "1.9.0", true, Outcome::Cleared), "release");
        assert_eq!(update("after", "1.9.0", false, Outcome::Cleared), "release");
        // A downgrade that was meant: the newer version runs until the reboot, and again after a fall back.
        assert_eq!(update("before", "1.11.0", true, Outcome::Pending), "keep");
        assert_eq!(update("after", "1.11.0", true, failed()), "fell back");
    }

    #[test]
    fn a_plain_reboot_is_over_when_the_host_is_healthy_in_another_boot() {
        for purpose in [Purpose::Reboot, Purpose::Update] {
            assert_eq!(decided(purpose, None, "before", "1.0.0", true, Outcome::Pending), "keep");
            assert_eq!(decided(purpose, None, "after", "1.0.0", false, Outcome::Pending), "keep");
            assert_eq!(decided(purpose, None, "after", "1.0.0", true, Outcome::Pending), "release");
        }
    }

    #[test]
    fn what_a_person_took_a_person_gives_back() {
        assert_eq!(decided(Purpose::Manual, Some("1.0.0"), "after", "1.0.0", true, Outcome::Pending), "keep");
        assert_eq!(decided(Purpose::FleetLock, None, "after", "1.0.0", true, Outcome::Pending), "keep");
    }
}
