//! The daemon dies between any two of lock, drain, reboot, boot, health and unlock; etcd is away.

use reboot_lock::store::Fault;
use reboot_lock::{Claim as EtcdClaim, Purpose};

use super::*;

/// Where the daemon dies for the first time.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    /// The lock is asked for and another host's.
    Asked,
    /// The lock is got, and nobody has heard of it.
    Granted,
    /// The lock is got, and a moment is waited for.
    Locked,
    /// Hooks run.
    Draining,
    /// PID 1 has been told.
    Told,
}

const DEATHS: [Death; 5] = [Death::Asked, Death::Granted, Death::Locked, Death::Draining, Death::Told];

fn actor() -> reboot_lock::audit::Actor {
    reboot_lock::audit::Actor { host: "x".into(), by: "test".into(), why: "test".into() }
}

fn claim_of(id: &str) -> EtcdClaim {
    EtcdClaim {
        id: id.into(),
        hostname: id.into(),
        boot_id: "one".into(),
        purpose: Purpose::Update,
        reason: "an update".into(),
        version: Some("1.1".into()),
    }
}

const ID: &str = "0123456789abcdef";

impl Machine {
    pub(super) fn slow_hook(&self, sleeps: bool) {
        let hook = self.paths.hooks().join("20-slow");
        fs::write(&hook, if sleeps { "#!/bin/sh\n[ $1 = cancelled ] || sleep 60\n" } else { "#!/bin/sh\n" }).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn delay(&self, asked: bool) {
        let path = self.paths.lasting().join("flush.json");
        fs::create_dir_all(self.paths.lasting()).unwrap();
        match asked {
            true => fs::write(path, r#"{"why": "flushing", "who": "db", "mode": "delay"}"#).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }

    pub(super) fn journal(&self) -> Journal {
        Journal::load(&self.paths.journal()).0
    }

    /// An update comes, and the daemon dies there.
    async fn dies(&self, death: Death) {
        self.is_healthy("1.0");
        self.settings(r#"{"strategy": "etcd-lock", "warn": 0, "inhibit_delay": "1h"}"#);
        let lock = self.lock();
        match death {
            Death::Asked | Death::Granted => drop(lock.try_lock(&claim_of("other"), &actor()).await.unwrap()),
            Death::Locked => self.delay(true),
            Death::Draining => self.slow_hook(true),
            Death::Told => {}
        }
        self.update("1.1");
        let daemon = self.start().await;
        let state = match death {
            Death::Asked | Death::Granted => "locking",
            Death::Locked => "locked",
            Death::Draining => "draining",
            Death::Told => "rebooting",
        };
        self.eventually(state, async || self.status().await.state == state && self.journal().phase.as_str() == state).await;
        let fence = self.journal().claimed.unwrap().fence;
        assert_eq!(fence.is_some(), !matches!(death, Death::Asked | Death::Granted), "noted before anything follows from it");
        killed(daemon).await;
        if matches!(death, Death::Asked | Death::Granted) {
            lock.unlock("other", None, &actor()).await.unwrap();
        }
        match death {
            Death::Granted => drop(lock.try_lock(&claim_of(ID), &actor()).await.unwrap()),
            Death::Locked => self.delay(false),
            Death::Draining => self.slow_hook(false),
            Death::Asked | Death::Told => {}
        }
        assert_eq!(self.told(), usize::from(death == Death::Told));
    }

    async fn ends_free(&self, death: Death) {
        self.eventually("all is given back", async || self.holders().await == 0).await;
        self.eventually("and forgotten", async || self.journal().claimed.is_none()).await;
        assert!(self.lock().quarantines().await.unwrap().is_empty() && self.status().await.lost.is_none(), "{death:?}");
    }
}

#[tokio::test]
async fn a_daemon_that_died_anywhere_goes_on_with_the_reboot() {
    for death in DEATHS {
        let machine = Machine::new();
        machine.dies(death).await;
        machine.told.lock().unwrap().clear();
        let daemon = machine.start().await;
        machine.is_told(true).await;
        assert_eq!(machine.holders().await, 1, "{death:?}");
        killed(daemon).await;
        machine.boots("two", "1.1");
        machine.is_healthy("1.1");
        let _daemon = machine.start().await;
        machine.ends_free(death).await;
    }
}

#[tokio::test]
async fn a_host_that_went_down_anywhere_and_comes_back_with_the_version_gives_the_lock_back_when_it_is_healthy() {
    for death in DEATHS {
        let machine = Machine::new();
        machine.dies(death).await;
        machine.boots("two", "1.1");
        // Dies once more before it is healthy, and once when it has just become so.
        let held = usize::from(death != Death::Asked);
        for healthy in [false, true, true] {
            if healthy {
                machine.is_healthy("1.1");
            }
            let daemon = machine.start().await;
            machine.eventually("it looks", async || machine.status().await.kept.is_some() || machine.holders().await == 0).await;
            assert!(healthy || machine.holders().await == held, "{death:?}");
            killed(daemon).await;
        }
        let _daemon = machine.start().await;
        machine.ends_free(death).await;
    }
}

#[tokio::test]
async fn a_host_that_went_down_anywhere_and_fell_back_keeps_what_it_had_and_quarantines_the_version() {
    for death in DEATHS {
        let machine = Machine::new();
        machine.dies(death).await;
        machine.boots("two", "1.0");
        fs::create_dir_all(machine.paths.verdict("1.1").parent().unwrap()).unwrap();
        fs::write(machine.paths.verdict("1.1"), r#"{"verdict": "failed", "reason": "docker is failed"}"#).unwrap();
        machine.is_healthy("1.0");
        // Dies while etcd does not answer.
        machine.store.set_down(true);
        let daemon = machine.start().await;
        assert_eq!(machine.status().await.quarantined, None);
        killed(daemon).await;
        machine.store.set_down(false);
        for _ in 0..2 {
            let daemon = machine.start().await;
            machine.eventually("quarantine", async || machine.status().await.quarantined.as_deref() == Some("1.1")).await;
            killed(daemon).await;
        }
        let quarantines = machine.lock().quarantines().await.unwrap();
        assert_eq!(quarantines.iter().map(|one| one.reason.as_str()).collect::<Vec<_>>(), ["docker is failed"], "{death:?}");
        assert_eq!(machine.holders().await, usize::from(death != Death::Asked), "{death:?}");
    }
}

impl Machine {
    /// Comes back with the old version, and says so; its daemon.
    async fn falls_back(&self, death: Death) -> Running {
        self.dies(death).await;
        self.boots("two", "1.0");
        self.is_healthy("1.0");
        let daemon = self.start().await;
        self.eventually("reported", async || self.journal().reported.is_some()).await;
        daemon
    }
}

/// The quarantine is cleared while the daemon runs, while it is dead, while etcd goes away, and where the answer to giving back is lost.
#[tokio::test]
async fn a_lock_kept_for_a_version_goes_back_when_that_is_cleared_whatever_fails_meanwhile() {
    for death in [Death::Granted, Death::Told] {
        for (dead, down, faults) in
            [(false, false, 0), (true, false, 0), (true, true, 0), (false, true, 0), (false, false, 1), (true, false, 2)]
        {
            let machine = Machine::new();
            let daemon = machine.falls_back(death).await;
            assert_eq!(machine.holders().await, 1);
            if dead {
                daemon.abort();
                tokio::task::yield_now().await;
            }
            assert!(machine.lock().clear_quarantine("1.1", &actor()).await.unwrap());
            machine.store.set_down(down);
            machine.store.inject([Fault::LostAnswer, Fault::LostRequest].into_iter().cycle().take(faults));
            let daemon = if dead { machine.start().await } else { daemon };
            tokio::time::sleep(Duration::from_millis(300)).await;
            machine.store.set_down(false);
            machine.ends_free(death).await;
            // Nothing of it comes back.
            killed(daemon).await;
            let _daemon = machine.start().await;
            machine.eventually("settled", async || machine.status().await.state == "idle").await;
            machine.ends_free(death).await;
        }
    }
}

/// What the journal does not know to be reported is reported again: a lock never goes back for a quarantine that only is not there yet.
#[tokio::test]
async fn a_daemon_that_died_while_it_reported_a_version_does_so_again() {
    let machine = Machine::new();
    killed(machine.falls_back(Death::Told).await).await;
    let mut journal = machine.journal();
    journal.reported = None;
    journal.store(&machine.paths.journal()).unwrap();
    machine.lock().clear_quarantine("1.1", &actor()).await.unwrap();
    let _daemon = machine.start().await;
    machine.eventually("again", async || machine.journal().reported.is_some()).await;
    assert_eq!((machine.lock().quarantines().await.unwrap().len(), machine.holders().await), (1, 1));
}

/// The same version once more, on purpose, after it was cleared: that it failed the first time is not taken for a report of the second.
#[tokio::test]
async fn a_version_that_fails_twice_is_quarantined_twice() {
    let machine = Machine::new();
    let daemon = machine.falls_back(Death::Told).await;
    machine.lock().clear_quarantine("1.1", &actor()).await.unwrap();
    machine.ends_free(Death::Told).await;
    machine.told.lock().unwrap().clear();
    machine.update("1.1");
    machine.is_told(true).await;
    killed(daemon).await;
    machine.boots("three", "1.0");
    machine.is_healthy("1.0");
    let _daemon = machine.start().await;
    machine.eventually("again", async || machine.lock().quarantines().await.unwrap().len() == 1).await;
    assert_eq!(machine.holders().await, 1);
}

#[tokio::test]
async fn a_host_whose_lock_expired_meanwhile_notices() {
    let machine = Machine::new();
    machine.dies(Death::Told).await;
    machine.lock().unlock(ID, None, &actor()).await.unwrap();
    machine.boots("two", "1.1");
    let _daemon = machine.start().await;
    machine.eventually("lost", async || machine.status().await.lost.is_some()).await;
    let status = machine.status().await;
    assert!(status.why().contains("Found when this host came back: the lock of group default"), "{}", status.why());
    assert!(status.metrics().contains("garboard_reboot_lock_lost 1\n"));
    machine.is_healthy("1.1");
    machine.eventually("forgotten", async || machine.journal().claimed.is_none()).await;
}

#[tokio::test]
async fn while_etcd_is_away_it_waits_or_goes_on_as_the_settings_say() {
    let machine = Machine::new();
    machine.is_healthy("1.0");
    machine.store.set_down(true);
    machine.update("1.1");
    let _daemon = machine.start().await;
    machine.eventually("waiting", async || machine.status().await.why().contains("waiting for it, as the settings say")).await;
    machine.is_told(false).await;
    machine.settings(r#"{"strategy": "etcd-lock", "warn": 0, "etcd_down": "proceed-after=1h"}"#);
    machine.eventually("later", async || machine.status().await.why().contains("going on without at ")).await;
    machine.is_told(false).await;
    machine.settings(r#"{"strategy": "etcd-lock", "warn": 0, "etcd_down": "proceed-after=1s"}"#);
    machine.is_told(true).await;
}

#[tokio::test]
async fn other_settings_leave_no_lock_behind() {
    let machine = Machine::new();
    machine.is_healthy("1.0");
    machine.delay(true);
    machine.settings(r#"{"strategy": "etcd-lock", "warn": 0, "inhibit_delay": "1h"}"#);
    machine.update("1.1");
    let _daemon = machine.start().await;
    machine.eventually("locked", async || machine.status().await.state == "locked" && machine.holders().await == 1).await;
    machine.settings(r#"{"strategy": "off", "warn": 0}"#);
    machine.eventually("given back", async || machine.holders().await == 0).await;
}
