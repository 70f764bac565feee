//! A version that failed on one host of three, and whose quarantine a person clears: that alone lets the fleet go on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reboot_lock::audit::{Act, Actor};
use reboot_lock::store::Store;
use reboot_lock::{Group, Options, RebootLock};
use reboot_locksmith::etcd_lock::EtcdLock;
use reboot_locksmith::host::Identity;
use reboot_locksmith::permission::{Claim, Lock, Refusal};
use serde_json::json;

use super::host::Host;
use super::lab::Lab;
use super::replay::history;
use super::run;

async fn goes_on(mut lab: Lab) {
    lab.start_all().await;
    let store: Arc<dyn Store> = Arc::new(lab.etcd());
    let lock = RebootLock::new(Arc::clone(&store), Group::default(), Options::default());
    let settings = json!({ "strategy": "etcd-lock", "quorum": false });
    let mut hosts: Vec<Host> = (0..3).map(|number| Host::new(&lab, number, &settings)).collect();
    for host in &mut hosts {
        host.boots("one", "1.0").await;
    }
    hosts[0].update("1.1");
    hosts[0].is_told().await;
    hosts[0].boots("two", "1.0").await;
    hosts[0].waits_for("Version 1.1 failed on this host").await;
    for host in &hosts[1..] {
        host.update("1.1");
        host.waits_for("version 1.1 is quarantined since it failed on host0").await;
    }

    // What a host that was refused waits for: nothing comes while nothing changes, and it comes at once when the quarantine goes.
    let identity = Identity { machine_id: "other".into(), boot_id: "x".into(), hostname: "other".into(), version: "1.0".into() };
    let other = EtcdLock::new(lock.clone(), identity, None);
    let claim = Claim { version: Some("1.1".into()), reason: "an update".into() };
    assert!(matches!(other.acquire(&claim, &|_| {}).await, Err(Refusal::Quarantined(_))));
    let changed = tokio::spawn(async move { other.changed().await });
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!changed.is_finished(), "it wakes although nothing has changed");
    assert_eq!(lock.status().await.unwrap().semaphore.holders[0].id, "host0");
    let actor = Actor { host: "x".into(), by: "test".into(), why: "looked".into() };
    assert!(lock.clear_quarantine("1.1", &actor).await.unwrap());
    tokio::time::timeout(Duration::from_secs(2), changed).await.expect("its watch tells of it").unwrap();

    // Each of the others has its turn; nobody has unlocked anything.
    let told = |host: &Host| host.told.load(Ordering::SeqCst) == 1;
    for _ in 0..2 {
        let mut next = None;
        for _ in 0..600 {
            next = (1..3).find(|number| told(&hosts[*number]));
            if next.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let next = next.unwrap_or_else(|| panic!("nobody goes on"));
        hosts[next].told.store(0, Ordering::SeqCst);
        hosts[next].boots("two", "1.1").await;
    }
    for _ in 0..300 {
        if lock.status().await.unwrap().semaphore.holders.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let history = history(&store).await;
    assert_eq!((history.most, history.turns.len(), history.holders.len()), (1, 3, 0));
    let trail = lock.audit().await.unwrap();
    let acts: Vec<Act> = trail.iter().map(|record| record.act).collect();
    let turn = [Act::Lock, Act::Unlock];
    let expected = [&[Act::Lock, Act::Quarantine, Act::ClearQuarantine, Act::Unlock][..], &turn, &turn].concat();
    assert_eq!(acts, expected);
    assert_eq!((trail[3].subject.as_str(), trail[3].by.as_str()), ("host0", "reboot-locksmith"));
    assert_eq!(trail[3].why, "the quarantine of version 1.1, which failed on this host, was cleared");
    assert!(lock.quarantines().await.unwrap().is_empty());
}

#[test]
fn clearing_a_quarantine_alone_lets_the_fleet_go_on() {
    let Some(lab) = Lab::new(1, "http", &[]) else { return };
    run(goes_on(lab));
}
