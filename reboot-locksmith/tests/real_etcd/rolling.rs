//! Three hosts that are the members of one etcd cluster: one reboots after the other, each with quorum and without the leadership, and what failed on
//! one is taken by none.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reboot_lock::quorum::Guard;
use reboot_lock::{Group, Options, RebootLock};
use serde_json::json;

use super::host::Host;
use super::lab::Lab;
use super::run;

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
    let mut hosts: Vec<Host> = (0..3).map(|member| Host::new(&lab, member, &json!({}))).collect();
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
    run(rolling(lab));
}
