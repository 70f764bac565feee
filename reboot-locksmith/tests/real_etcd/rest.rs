//! What the real daemon takes while nothing changes. Prints figures of docs/benchmarks.md.

use std::sync::Arc;
use std::time::Duration;

use reboot_lock::audit::Actor;
use reboot_lock::{Claim, Group, Options, Purpose, RebootLock};
use serde_json::json;

use super::host::Host;
use super::lab::Lab;
use super::process::Process;
use super::run;

const RESIDENT_KIB: u64 = 8 * 1024;
/// Wake-ups for the two renewals of a place in the queue in two minutes, each of four requests: five for each, to send it, hear its answer in parts, and
/// close its connection when that is no longer of use.
const RENEWALS: u64 = 40;

/// Wake-ups of the daemon's one thread.
fn wakes(daemon: &Process) -> u64 {
    daemon.status("voluntary_ctxt_switches") + daemon.status("nonvoluntary_ctxt_switches")
}

async fn at_rest(mut lab: Lab) {
    lab.start_all().await;
    let lock = RebootLock::new(Arc::new(lab.etcd()), Group::default(), Options::default());
    let settings = json!({ "strategy": "etcd-lock", "quorum": false });
    let hosts: Vec<Host> = (0..2).map(|number| Host::new(&lab, number, &settings)).collect();
    for host in &hosts {
        host.has_programs();
        host.is_in("one", "1.0");
    }
    let actor = Actor { host: "x".into(), by: "test".into(), why: "in the way".into() };
    let (hostname, boot_id, reason) = (String::new(), String::new(), String::new());
    lock.try_lock(&Claim { id: "other".into(), hostname, boot_id, purpose: Purpose::Manual, reason, version: None }, &actor).await.unwrap();
    let [idle, waits] = [hosts[0].starts(), hosts[1].starts()];
    hosts[1].update("1.1");
    hosts[1].waits_for("and this host is next").await;
    // A connection that was of use is closed within a minute after. A place in the queue is renewed every minute.
    tokio::time::sleep(Duration::from_secs(90)).await;
    let before = [wakes(&idle), wakes(&waits)];
    tokio::time::sleep(Duration::from_secs(120)).await;
    let woke = [wakes(&idle) - before[0], wakes(&waits) - before[1]];
    let told = |what: &str, is: String, limit: String| println!("bench: `reboot-locksmith`, {what} | {is} | {limit}");
    let mut most = 0;
    for (what, daemon, woke, limit) in [("idle", &idle, woke[0], 0), ("waiting for the lock", &waits, woke[1], RENEWALS)] {
        let resident = daemon.status("VmRSS");
        told(&format!("{what}: resident"), format!("{:.1} MiB", resident as f64 / 1024.0), "8 MiB".to_owned());
        told(&format!("{what}: wake-ups in 2 minutes"), woke.to_string(), limit.to_string());
        assert!(woke <= limit, "{woke} wake-ups of a daemon that is {what}");
        most = most.max(resident);
    }
    assert!(most < RESIDENT_KIB, "{most} KiB resident");
    assert_eq!(hosts[1].told.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[test]
#[ignore = "four minutes: scripts/bench --only locks"]
fn the_daemon_at_rest() {
    let Some(lab) = Lab::new(1, "http", &[]) else { return };
    run(at_rest(lab));
}
