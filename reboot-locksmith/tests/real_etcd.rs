//! The daemon as it is shipped, on three hosts that are the members of one real etcd cluster: one reboots after the other, each with quorum and
//! without the leadership, and what failed on one is taken by none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "all of this is test code")]

#[path = "../../reboot-lock/tests/etcd/lab.rs"]
#[allow(dead_code, reason = "the lab can more than is needed here")]
mod lab;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lab::{Lab, address};
use reboot_lock::quorum::Guard;
use reboot_lock::{Group, Options, RebootLock};
use reboot_locksmith::connect;
use reboot_locksmith::control::{self, Request};
use reboot_locksmith::daemon::Daemon;
use reboot_locksmith::paths::Paths;
use reboot_locksmith::status::Status;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::task::JoinHandle;

/// A host: its files, its PID 1 that only counts, and its daemon.
struct Host {
    _directory: tempfile::TempDir,
    paths: Paths,
    told: Arc<AtomicUsize>,
    daemon: Option<JoinHandle<std::io::Result<()>>>,
}

impl Host {
    fn new(lab: &Lab, member: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::below(directory.path());
        for path in [paths.machine_id(), paths.boot_id(), paths.boot(), paths.settings(), paths.needed(), paths.systemctl()] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        fs::create_dir_all(paths.proc().join("1")).unwrap();
        fs::write(paths.machine_id(), format!("host{member}\n")).unwrap();
        fs::write(paths.hostname(), format!("host{member}\n")).unwrap();
        fs::write(paths.environment(), format!("COREOS_PRIVATE_IPV4={}\n", address(member))).unwrap();
        fs::write(paths.systemctl(), "#!/bin/sh\n[ \"$1\" = is-enabled ]\n").unwrap();
        fs::set_permissions(paths.systemctl(), fs::Permissions::from_mode(0o755)).unwrap();
        let endpoints: Vec<String> = (0..lab.members.len()).map(|member| lab.url(member)).collect();
        let settings = serde_json::json!({ "garboard": { "reboot": { "endpoints": endpoints, "warn": 0 } } });
        fs::write(paths.settings(), settings.to_string()).unwrap();
        let told = Arc::new(AtomicUsize::new(0));
        let (listener, counter) = (tokio::net::UnixListener::bind(paths.init()).unwrap(), Arc::clone(&told));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let _ = stream.read_line(&mut String::new()).await;
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(b"{\"reply\":\"done\",\"warnings\":[]}\n").await;
            }
        });
        Self { _directory: directory, paths, told, daemon: None }
    }

    /// A boot into a version, healthy at once, and its daemon.
    async fn boots(&mut self, boot_id: &str, version: &str) {
        if let Some(daemon) = self.daemon.take() {
            daemon.abort();
            let _ = daemon.await;
        }
        let _ = fs::remove_file(self.paths.needed());
        fs::write(self.paths.boot_id(), boot_id).unwrap();
        fs::write(self.paths.boot(), format!(r#"{{"version": "{version}", "phases": {{"boot-complete": 9.0}}}}"#)).unwrap();
        let daemon = Daemon::new(self.paths.clone(), Box::new(connect::connect)).await.unwrap();
        self.daemon = Some(tokio::spawn(daemon.run()));
    }

    fn update(&self, version: &str) {
        let new = self.paths.needed().with_extension("new");
        fs::write(&new, format!(r#"{{"version": "{version}", "reason": "an update is in place"}}"#)).unwrap();
        fs::rename(new, self.paths.needed()).unwrap();
    }

    async fn status(&self) -> Status {
        for _ in 0..500 {
            if let Ok(Some(reply)) = control::ask(&self.paths.control(), &Request::Status).await {
                return reply.status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no daemon answers");
    }

    async fn waits_for(&self, words: &str) {
        let mut why = String::new();
        for _ in 0..600 {
            why = self.status().await.why();
            if why.contains(words) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("'{words}' is not in: {why}");
    }

    async fn is_told(&self) {
        for _ in 0..900 {
            if self.told.load(Ordering::SeqCst) == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("not told: {}", self.status().await.why());
    }
}

async fn leader(lab: &Lab) -> (u64, Vec<u64>) {
    let etcd = lab.etcd();
    let (mut members, mut leader) = (Vec::new(), 0);
    for member in 0..lab.members.len() {
        let health = etcd.health(&lab.url(member).parse().unwrap()).await.unwrap();
        members.push(health.member);
        leader = health.leader;
    }
    (leader, members)
}

async fn rolling(mut lab: Lab) {
    lab.start_all().await;
    let (first_leader, members) = leader(&lab).await;
    // The first host to reboot is the one whose member leads.
    let first = members.iter().position(|member| *member == first_leader).unwrap();
    let (second, third) = ((first + 1) % 3, (first + 2) % 3);
    let mut hosts: Vec<Host> = (0..3).map(|member| Host::new(&lab, member)).collect();
    for host in &mut hosts {
        host.boots("one", "1.0").await;
    }
    let lock = RebootLock::new(Arc::new(lab.etcd()), Group::default(), Options::default());
    let guard = Guard::new(Arc::new(lab.etcd()), reboot_lock::keys::DEFAULT_PREFIX);
    hosts[first].update("1.1");
    hosts[first].is_told().await;
    let (now, _) = leader(&lab).await;
    assert!(now != first_leader && now != 0, "the leadership moved away first");
    assert_eq!(guard.reservation().await.unwrap().0.unwrap().0.id, format!("host{first}"));
    hosts[second].update("1.1");
    hosts[second].waits_for(&format!("it is held by host{first}")).await;
    // The first comes back. A member is down by then: the second gets the lock, and nothing more.
    lab.kill(third);
    hosts[first].boots("two", "1.1").await;
    hosts[second].waits_for("this host has the lock of group default").await;
    hosts[second].waits_for(&format!("etcd member m{third} does not answer")).await;
    assert_eq!(hosts[second].told.load(Ordering::SeqCst), 0);
    lab.start(third);
    hosts[second].is_told().await;
    let status = lock.status().await.unwrap();
    assert_eq!(status.semaphore.holders.iter().map(|holder| holder.id.clone()).collect::<Vec<_>>(), [format!("host{second}")]);
    // It falls back.
    hosts[second].boots("two", "1.0").await;
    hosts[second].waits_for("Version 1.1 failed on this host").await;
    hosts[third].update("1.1");
    hosts[third].waits_for("version 1.1 is quarantined since it failed on").await;
    assert_eq!(lock.status().await.unwrap().semaphore.holders.len(), 1);
    // A newer release is taken by the host that kept its lock, and by the others after it.
    hosts[second].told.store(0, Ordering::SeqCst);
    hosts[second].update("1.2");
    hosts[second].is_told().await;
    hosts[second].boots("three", "1.2").await;
    hosts[third].update("1.2");
    hosts[third].is_told().await;
    hosts[third].boots("two", "1.2").await;
    for _ in 0..600 {
        if lock.status().await.unwrap().semaphore.holders.is_empty() && guard.reservation().await.unwrap().0.is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("something is still held: {}", hosts[third].status().await.render());
}

#[test]
fn three_members_update_one_after_the_other_and_none_takes_what_failed() {
    let Some(lab) = Lab::new(3, "http", &[]) else { return };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(rolling(lab));
}
