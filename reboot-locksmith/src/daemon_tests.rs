//! The whole daemon, on the files of a made-up host, with a PID 1 that only notes what it is told, and a lock in memory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use reboot_lock::Group;
use reboot_lock::lock::{Options, RebootLock};
use reboot_lock::store::Memory;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;

use super::*;
use crate::control::Request;
use crate::etcd_lock::EtcdLock;
use crate::permission::Claim;
use crate::policy::LockFact;

#[path = "daemon_fault_tests.rs"]
mod faults;

type Running = tokio::task::JoinHandle<std::io::Result<()>>;

/// Ends a daemon at whatever it does.
async fn killed(daemon: Running) {
    daemon.abort();
    let _ = daemon.await;
}

struct Machine {
    directory: tempfile::TempDir,
    store: Arc<Memory>,
    paths: Paths,
    told: Arc<Mutex<Vec<String>>>,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::below(directory.path());
        let told = Arc::new(Mutex::new(Vec::new()));
        for path in
            [paths.machine_id(), paths.boot_id(), paths.boot(), paths.settings(), paths.needed(), paths.proc().join("x"), paths.systemctl()]
        {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        fs::create_dir_all(paths.hooks()).unwrap();
        fs::write(paths.machine_id(), "0123456789abcdef\n").unwrap();
        let hook = paths.hooks().join("10-note");
        fs::write(&hook, format!("#!/bin/sh\necho $1 $GARBOARD_VERSION >> {}\n", directory.path().join("hooked").display())).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        let machine = Self { directory, store: Arc::new(Memory::default()), paths, told };
        machine.boots("one", "1.0");
        machine.settings(r#"{"strategy": "etcd-lock", "warn": 0}"#);
        machine.pid1();
        machine
    }

    /// A healthy one whose drain takes long.
    fn with_a_slow_hook() -> Self {
        let machine = Self::new();
        machine.is_healthy("1.0");
        machine.slow_hook(true);
        machine
    }

    fn boots(&self, boot_id: &str, version: &str) {
        fs::write(self.paths.boot_id(), boot_id).unwrap();
        fs::write(self.paths.boot(), format!(r#"{{"version": "{version}", "phases": {{}}}}"#)).unwrap();
        let _ = fs::remove_file(self.paths.needed());
    }

    fn is_healthy(&self, version: &str) {
        write_whole(&self.paths.boot(), format!(r#"{{"version": "{version}", "phases": {{"boot-complete": 9.0}}}}"#).as_bytes(), false)
            .unwrap();
    }

    fn settings(&self, reboot: &str) {
        write_whole(&self.paths.settings(), format!(r#"{{"garboard": {{"reboot": {reboot}}}}}"#).as_bytes(), false).unwrap();
    }

    fn update(&self, version: &str) {
        let text = format!(r#"{{"version": "{version}", "reason": "an update is in place"}}"#);
        write_whole(&self.paths.needed(), text.as_bytes(), false).unwrap();
    }

    fn pid1(&self) {
        let listener = UnixListener::bind(self.paths.init()).unwrap();
        let told = Arc::clone(&self.told);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                let _ = stream.read_line(&mut line).await;
                told.lock().unwrap().push(line);
                let _ = stream.write_all(b"{\"reply\":\"done\",\"warnings\":[]}\n").await;
            }
        });
    }

    fn lock(&self) -> RebootLock {
        RebootLock::new(Arc::<Memory>::clone(&self.store), Group::default(), Options::default())
    }

    async fn start(&self) -> Running {
        let lock = self.lock();
        let connect: Connect = Box::new(move |ask| {
            if ask.strategy == Strategy::FleetLock {
                return Err("there is no such server".to_owned());
            }
            let etcd = || EtcdLock::new(lock.clone(), ask.identity.clone(), ask.claimed);
            let lock = ask.strategy.uses_etcd().then(|| Arc::new(etcd()) as Arc<dyn Lock>);
            Ok(Others { lock, ..Others::default() })
        });
        let daemon = Daemon::new(self.paths.clone(), connect).await.unwrap();
        tokio::spawn(daemon.run())
    }

    async fn holders(&self) -> usize {
        self.lock().status().await.unwrap().semaphore.holders.len()
    }

    /// Asks, as often as it takes: a daemon that has just begun may not listen yet, and one that was ended no longer answers.
    async fn ask(&self, request: &Request) -> Reply {
        for _ in 0..500 {
            if let Ok(Some(reply)) = control::ask(&self.paths.control(), request).await {
                return reply;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no daemon answers");
    }

    async fn status(&self) -> Status {
        self.ask(&Request::Status).await.status
    }

    fn told(&self) -> usize {
        self.told.lock().unwrap().len()
    }

    /// Waits until PID 1 is told, or for a moment, to see that it is not.
    async fn is_told(&self, wanted: bool) {
        for _ in 0..(if wanted { 1000 } else { 30 }) {
            if self.told() > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let log = fs::read_to_string(self.paths.status()).unwrap_or_default();
        assert_eq!(self.told() > 0, wanted, "{log}");
    }

    async fn eventually(&self, what: &str, mut is: impl AsyncFnMut() -> bool) {
        for _ in 0..1000 {
            if is().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{what}: {}", fs::read_to_string(self.paths.status()).unwrap_or_default());
    }
}

#[tokio::test]
async fn an_update_takes_the_lock_and_the_healthy_new_version_gives_it_back() {
    let machine = Machine::new();
    machine.is_healthy("1.0");
    let daemon = machine.start().await;
    machine.is_told(false).await;
    machine.update("1.1");
    machine.is_told(true).await;
    assert_eq!(machine.holders().await, 1);
    assert_eq!(fs::read_to_string(machine.directory.path().join("hooked")).unwrap(), "pre-reboot 1.1\n");
    assert!(machine.told.lock().unwrap()[0].contains("\"action\":\"reboot\""));
    assert_eq!(machine.status().await.counters.get("locks"), Some(&1));
    daemon.abort();
    // The reboot; the new version is not known to be healthy at first.
    machine.boots("two", "1.1");
    let _daemon = machine.start().await;
    machine.eventually("the lock is kept", async || machine.status().await.kept.is_some()).await;
    assert_eq!(machine.holders().await, 1);
    machine.is_healthy("1.1");
    machine.eventually("the lock goes back", async || machine.holders().await == 0).await;
    assert_eq!(machine.told(), 1);
}

#[tokio::test]
async fn a_host_that_fell_back_keeps_the_lock_and_quarantines_the_version_once() {
    let machine = Machine::new();
    machine.is_healthy("1.0");
    let daemon = machine.start().await;
    machine.update("1.1");
    machine.is_told(true).await;
    daemon.abort();
    machine.boots("two", "1.0");
    machine.is_healthy("1.0");
    let daemon = machine.start().await;
    machine.eventually("quarantine", async || !machine.lock().quarantines().await.unwrap().is_empty()).await;
    assert_eq!(machine.holders().await, 1);
    let status = machine.status().await;
    assert!(status.why().contains("Version 1.1 failed on this host"), "{}", status.why());
    assert!(status.why().contains("`locksmithctl quarantine clear 1.1` lets all go on"), "{}", status.why());
    // Another host wants the version, and says why it does not get it.
    let host = |id: &str| Identity { machine_id: id.into(), boot_id: "x".into(), hostname: id.into(), version: "1.0".into() };
    let other = Arc::new(EtcdLock::new(machine.lock(), host("b"), None));
    let waits = Permission::start(Some(other), None, HostState::default());
    waits.want(Target::Want(Claim { version: Some("1.1".into()), reason: "an update".into() }));
    machine.eventually("refused", async || matches!(waits.news().lock, LockFact::Quarantined(_))).await;
    // An operator clears it, and nothing else: the lock goes back, and the other goes on. Beginning again does not bring the quarantine back.
    let actor = reboot_lock::audit::Actor { host: "x".into(), by: "test".into(), why: "looked".into() };
    machine.lock().clear_quarantine("1.1", &actor).await.unwrap();
    machine.eventually("the other goes on", async || waits.news().lock == LockFact::Held).await;
    machine.eventually("told", async || machine.status().await.kept.is_none()).await;
    let trail = machine.lock().audit().await.unwrap();
    let end = trail.iter().find(|record| record.act == reboot_lock::audit::Act::Unlock).unwrap();
    assert_eq!((end.subject.as_str(), end.by.as_str()), ("0123456789abcdef", "reboot-locksmith"));
    assert_eq!(end.why, "the quarantine of version 1.1, which failed on this host, was cleared");
    killed(daemon).await;
    let _daemon = machine.start().await;
    machine.eventually("settled", async || machine.status().await.state == "idle").await;
    assert!(machine.lock().quarantines().await.unwrap().is_empty() && machine.holders().await == 1);
}

#[tokio::test]
async fn inhibitors_windows_and_doubtful_settings_hold_it_back_without_a_lock() {
    let machine = Machine::new();
    machine.is_healthy("1.0");
    fs::create_dir_all(machine.paths.lasting()).unwrap();
    fs::write(machine.paths.lasting().join("move.json"), r#"{"why": "moving", "who": "ann"}"#).unwrap();
    machine.update("1.1");
    let _daemon = machine.start().await;
    machine.is_told(false).await;
    assert!(machine.status().await.why().contains("ann forbids it: moving"));
    machine.settings(r#"{"strategy": "etcd-lock", "warn": 0, "windows": ["25:00 for 1h"]}"#);
    machine.eventually("doubt", async || !machine.status().await.settings_problems.is_empty()).await;
    fs::remove_file(machine.paths.lasting().join("move.json")).unwrap();
    machine.is_told(false).await;
    machine.settings(r#"{"strategy": "etcd-lock", "warn": 0, "windows": ["2020-01-01 00:00 UTC for 1h"]}"#);
    machine.eventually("the window", async || machine.status().await.why().contains("NO window")).await;
    machine.is_told(false).await;
    assert_eq!(machine.holders().await, 0);
    machine.settings(r#"{"strategy": "etcd-lock", "warn": 0}"#);
    machine.is_told(true).await;
}

#[tokio::test]
async fn mistakes_are_seen_and_mended_beside_what_settings_name_and_cannot_have() {
    let machine = Machine::new();
    machine.is_healthy("1.0");
    let named = r#"{"strategy": "fleet-lock", "fleet_lock": "https://10.0.0.1", "warn": 0}"#;
    machine.settings(named);
    fs::write(machine.paths.needed(), "{").unwrap();
    let _daemon = machine.start().await;
    let says = async |words: &str| machine.status().await.settings_problems.iter().any(|problem| problem.contains(words));
    let unmet = "garboard.reboot: there is no such server";
    machine.eventually("unmet", async || says(unmet).await).await;
    assert!(machine.status().await.warnings.iter().any(|line| line.starts_with("update:")));
    machine.update("1.1");
    machine.eventually("the update is understood", async || machine.status().await.warnings.is_empty()).await;
    for _ in 0..2 {
        machine.settings("[]");
        machine.eventually("the mistake", async || says("must be a map").await && says(unmet).await).await;
        machine.settings(named);
        machine.eventually("mended", async || !says("must be a map").await).await;
        assert!(says(unmet).await);
        assert!(machine.status().await.why().contains(unmet), "{}", machine.status().await.why());
    }
    machine.is_told(false).await;
    machine.settings(r#"{"strategy": "reboot", "warn": 0}"#);
    machine.is_told(true).await;
}

#[tokio::test]
async fn a_reboot_that_is_called_off_is_announced_no_longer() {
    let machine = Machine::new();
    machine.is_healthy("1.0");
    fs::create_dir_all(machine.paths.lasting()).unwrap();
    fs::write(machine.paths.lasting().join("move.json"), r#"{"why": "moving", "who": "ann", "mode": "delay"}"#).unwrap();
    let (locks, off) = (r#"{"strategy": "etcd-lock", "warn": 0, "inhibit_delay": "1h"}"#, r#"{"strategy": "off", "warn": 0}"#);
    machine.settings(locks);
    machine.update("1.1");
    let daemon = machine.start().await;
    let is_announced = async || machine.paths.pending().exists();
    machine.eventually("announced", is_announced).await;
    machine.settings(off);
    machine.eventually("other settings", async || !machine.paths.pending().exists()).await;
    machine.settings(locks);
    machine.eventually("again", is_announced).await;
    // The next daemon finds it.
    killed(daemon).await;
    machine.settings(off);
    let _daemon = machine.start().await;
    machine.eventually("a new daemon", async || !machine.paths.pending().exists()).await;
    machine.is_told(false).await;
}

#[tokio::test]
async fn an_inhibitor_that_comes_while_draining_calls_it_off() {
    let machine = Machine::with_a_slow_hook();
    machine.update("1.1");
    let _daemon = machine.start().await;
    machine.eventually("draining", async || machine.status().await.state == "draining").await;
    assert_eq!(machine.holders().await, 1);
    let mine = inhibitors::Inhibitor { what: "shutdown".into(), who: "db".into(), why: "failing over".into(), ..Default::default() };
    let held = inhibitors::hold(&machine.paths.held(), &mine).unwrap();
    machine.eventually("the lock goes back", async || machine.holders().await == 0).await;
    machine.eventually("waiting", async || machine.status().await.state == "waiting").await;
    let hooked = fs::read_to_string(machine.directory.path().join("hooked")).unwrap();
    assert_eq!(hooked, "pre-reboot 1.1\ncancelled 1.1\n");
    drop(held);
    machine.eventually("again", async || machine.status().await.state == "draining").await;
    machine.is_told(false).await;
}

#[tokio::test]
async fn hooks_that_ran_are_told_by_the_next_daemon_that_the_reboot_is_called_off() {
    let machine = Machine::with_a_slow_hook();
    machine.update("1.1");
    let daemon = machine.start().await;
    let hooked = || fs::read_to_string(machine.directory.path().join("hooked")).unwrap_or_default();
    machine.eventually("the first hook runs", async || hooked() == "pre-reboot 1.1\n").await;
    killed(daemon).await;
    // Nobody wants it any more.
    fs::remove_file(machine.paths.needed()).unwrap();
    let daemon = machine.start().await;
    machine.eventually("hooks are told", async || hooked() == "pre-reboot 1.1\ncancelled 1.1\n").await;
    machine.eventually("the lock goes back", async || machine.holders().await == 0).await;
    machine.eventually("idle", async || machine.status().await.state == "idle").await;
    killed(daemon).await;
    let _daemon = machine.start().await;
    machine.is_told(false).await;
    assert_eq!(hooked(), "pre-reboot 1.1\ncancelled 1.1\n", "once is enough");
}

#[tokio::test]
async fn a_window_that_closes_while_the_hooks_run_calls_it_off_and_gives_the_lock_back() {
    let machine = Machine::with_a_slow_hook();
    // A window from the last full minute until some seconds from now.
    let now = system_clock();
    let window = format!("{} for {}s", show_time(now), now % 60 + 12);
    machine.settings(&format!(r#"{{"strategy": "etcd-lock", "warn": 0, "windows": ["{window}"]}}"#));
    machine.update("1.1");
    let _daemon = machine.start().await;
    machine.eventually("draining", async || machine.status().await.state == "draining").await;
    assert_eq!(machine.holders().await, 1);
    let why = machine.status().await.why();
    assert!(why.contains("NO drain: hooks run and containers stop since 20") && why.contains("for at most 10m"), "{why}");
    machine.eventually("the lock goes back", async || machine.holders().await == 0).await;
    assert!(system_clock() >= now + 12, "before the window was closed");
    machine.eventually("waiting", async || machine.status().await.state == "waiting").await;
    let status = machine.status().await;
    assert!(status.why().contains("NO window") && !status.window_open, "{}", status.why());
    assert_eq!(fs::read_to_string(machine.directory.path().join("hooked")).unwrap(), "pre-reboot 1.1\ncancelled 1.1\n");
    assert!(!machine.paths.pending().exists() && machine.journal().stopped.is_empty());
    machine.is_told(false).await;
}

#[tokio::test]
async fn what_is_asked_for_by_hand_is_done_and_forgotten() {
    let machine = Machine::new();
    machine.settings(r#"{"strategy": "off", "warn": 0}"#);
    machine.is_healthy("1.0");
    let daemon = machine.start().await;
    let ask = async |request: &Request| machine.ask(request).await;
    assert!(ask(&Request::Cancel).await.error.is_some());
    assert!(ask(&Request::Extend { seconds: 5 }).await.error.is_some());
    let reply = ask(&Request::NeedReboot { reason: "try".into(), by: "ann".into() }).await;
    assert!(reply.error.is_none() && reply.status.why().contains("wanted by ann"), "{}", reply.status.why());
    machine.is_told(false).await;
    assert!(machine.status().await.why().contains("NO strategy"));
    assert!(ask(&Request::Cancel).await.error.is_none());
    assert!(machine.status().await.wanted.is_none());
    ask(&Request::Reboot { reason: "try".into(), by: "ann".into() }).await;
    machine.is_told(true).await;
    daemon.abort();
    machine.boots("two", "1.0");
    machine.is_healthy("1.0");
    let _daemon = machine.start().await;
    machine.is_told(true).await;
    assert_eq!(machine.told(), 1, "what was asked for ended with that boot");
}

#[tokio::test]
async fn users_put_a_reboot_off_up_to_a_bound_and_what_they_were_told_outlives_the_daemon() {
    let machine = Machine::new();
    machine.settings(r#"{"strategy": "reboot", "warn": "1h", "warn_extend": "20m"}"#);
    machine.is_healthy("1.0");
    let shell = machine.paths.proc().join("500");
    fs::create_dir_all(&shell).unwrap();
    fs::write(shell.join("stat"), "500 (bash) S 499 500 500 34818 500 4194304").unwrap();
    let daemon = machine.start().await;
    machine.ask(&Request::NeedReboot { reason: "try".into(), by: "ann".into() }).await;
    let told = async || machine.status().await.gates.into_iter().find(|gate| gate.kind == "users")?.until;
    machine.eventually("users are warned", async || told().await.is_some()).await;
    let first = told().await.unwrap();
    let extend = async |minutes: u64| machine.ask(&Request::Extend { seconds: minutes * 60 }).await.error.unwrap_or_default();
    assert_eq!(extend(15).await, "");
    assert!(extend(15).await.ends_with("it can be put off by no more than 5min"));
    assert_eq!(extend(5).await, "");
    assert!(extend(1).await.ends_with("it was put off by 20min in all, which is the most"));
    // The clock's seconds do not begin with the uptime's.
    let holds = async |at: Option<u64>| at.is_some_and(|at| at.abs_diff(first + 1200) <= 1);
    assert!(holds(told().await).await);
    killed(daemon).await;
    let _daemon = machine.start().await;
    machine.eventually("as before", async || holds(told().await).await).await;
    fs::remove_file(shell.join("stat")).unwrap();
    machine.is_told(false).await;
}

#[tokio::test]
async fn nothing_wakes_it_while_nothing_changes() {
    let machine = Machine::new();
    machine.is_healthy("1.0");
    let _daemon = machine.start().await;
    machine.eventually("up", async || machine.paths.control().exists() && machine.paths.status().exists()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let count = |status: &Status| status.counters.get("evaluations").copied().unwrap_or(0);
    let before = count(&machine.status().await);
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Each question is an evaluation.
    assert_eq!(count(&machine.status().await), before + 1);
}
