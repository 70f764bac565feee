//! Each operation on one member.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reboot_lock::Options;
use reboot_lock::audit::Act;
use reboot_lock::quarantine::Quarantine;
use reboot_lock::store::{Compare, Event, Keys, Store, StoreError, Write};

use super::lab::Lab;
use super::{LOCK, actor, claim, history, lock, run};

#[test]
fn every_operation_works_on_etcd_as_on_the_model_of_it() {
    let Some(mut lab) = Lab::new(1, "http", &[]) else { return };
    run(async {
        lab.start_all().await;
        let store: Arc<dyn Store> = Arc::new(lab.etcd());
        keys_and_leases(&store).await;
        let lock = lock(&store, Options { waiter_ttl: Duration::from_secs(3), ..Options::default() });
        let held = lock.try_lock(&claim("a"), &actor()).await.unwrap();
        assert_eq!(lock.try_lock(&claim("b"), &actor()).await.unwrap_err().kind(), "failed_lock_semaphore_full");
        assert_eq!(lock.try_lock(&claim("a"), &actor()).await.unwrap().holder.fence, held.holder.fence);

        // A host that died in the queue, and two that wait behind it for longer than their leases.
        let dead = tokio::time::timeout(Duration::from_millis(300), async { lock.acquire(&claim("dead"), &actor(), &|_| {}).await });
        assert!(dead.await.is_err());
        let waits = |id: &'static str| {
            let lock = lock.clone();
            tokio::spawn(async move { lock.acquire(&claim(id), &actor(), &|_| {}).await })
        };
        let b = waits("b");
        // Hosts that come at the same revision stand in the order of their ids.
        while lock.waiting().await.unwrap() < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let c = waits("c");
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!(lock.waiting().await.unwrap(), 2);
        let begun = Instant::now();
        lock.unlock("a", Some(held.holder.fence), &actor()).await.unwrap();
        let b = b.await.unwrap().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(3), "woken after {:?}", begun.elapsed());
        lock.unlock("b", Some(b.holder.fence), &actor()).await.unwrap();
        c.await.unwrap().unwrap();

        lock.quarantine(&Quarantine::new("1.1.0", "a", "a", "default", "failed", 1), &actor()).await.unwrap();
        lock.unlock("c", None, &actor()).await.unwrap();
        assert_eq!(lock.acquire(&claim("b"), &actor(), &|_| {}).await.unwrap_err().kind(), "version_quarantined");
        assert!(lock.clear_quarantine("1.1.0", &actor()).await.unwrap());
        assert_eq!(lock.settle("b").await.unwrap(), None);
        let (status, history) = (lock.status().await.unwrap(), history(&store).await);
        let ends = 3;
        assert_eq!(lock.audit().await.unwrap().len() as u64, status.semaphore.generation + ends);
        assert_eq!((history.changes, history.most), (status.semaphore.generation, 1));

        expiry(&store).await;
        foreign(&store).await;
        // Gone altogether.
        lab.kill(0);
        let error = lock.try_lock(&claim("a"), &actor()).await.unwrap_err();
        assert!(matches!(error.kind(), "etcd_unreachable" | "etcd_broken"), "{error}");
    });
}

async fn keys_and_leases(store: &Arc<dyn Store>) {
    let put = |key: &str, lease| Write::Put { key: key.to_owned(), value: vec![0, 255, b'"'], lease };
    let lease = store.grant_lease(Duration::from_secs(60)).await.unwrap();
    let begun =
        store.txn(&[Compare::CreateRevision("k/1".to_owned(), 0)], &[put("k/1", 0), put("k/2", lease), put("k0", 0)]).await.unwrap();
    assert!(begun.succeeded);
    assert!(!store.txn(&[Compare::ModRevision("k/1".to_owned(), 1)], &[put("k/3", 0)]).await.unwrap().succeeded);
    let page = store.range(&Keys::Prefix("k/".to_owned()), 1).await.unwrap();
    assert_eq!((page.count, page.entries.len(), page.entries[0].value.as_slice()), (2, 1, &[0, 255, b'"'][..]));
    let after = store.range(&Keys::After { key: "k/1".to_owned(), prefix: "k/".to_owned() }, 1).await.unwrap();
    assert_eq!(after.entries[0].key, "k/2");
    let mut watch = store.watch(&Keys::Prefix("k/".to_owned()), begun.revision + 1).await.unwrap();
    store.keep_alive(lease).await.unwrap();
    store.revoke_lease(lease).await.unwrap();
    store.revoke_lease(lease).await.unwrap();
    assert!(matches!(&watch.next().await.unwrap()[..], [Event::Delete { key, .. }] if key == "k/2"));
    assert_eq!(store.keep_alive(lease).await, Err(StoreError::LeaseGone));
    assert_eq!(store.txn(&[], &[put("k/4", lease)]).await, Err(StoreError::LeaseGone));
}

async fn expiry(store: &Arc<dyn Store>) {
    let lock = lock(store, Options { expire_after: Some(Duration::from_secs(2)), ..Options::default() });
    let vanished = lock.try_lock(&claim("vanished"), &actor()).await.unwrap();
    // Waits for nothing but the timer's end.
    let held = lock.acquire(&claim("b"), &actor(), &|_| {}).await.unwrap();
    assert_eq!(lock.verify("vanished", vanished.holder.fence, None).await.unwrap_err().kind(), "lock_lost");
    assert!(held.holder.fence > vanished.holder.fence);
    // Asked for again: the whole time again, on another lease.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    lock.try_lock(&claim("b"), &actor()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(lock.verify("b", held.holder.fence, None).await.is_ok());
    assert!(lock.unlock("b", Some(held.holder.fence), &actor()).await.unwrap());
    let trail = lock.audit().await.unwrap();
    let acts: Vec<Act> = trail.iter().rev().take(5).rev().map(|record| record.act).collect();
    assert_eq!(acts, [Act::Lock, Act::Expire, Act::Lock, Act::Relock, Act::Unlock]);
}

async fn foreign(store: &Arc<dyn Store>) {
    let value = br#"{"total_slots":5,"holders":[]}"#.to_vec();
    let semaphore = format!("{LOCK}semaphore");
    store.txn(&[], &[Write::Put { key: semaphore.clone(), value: value.clone(), lease: 0 }]).await.unwrap();
    let lock = lock(store, Options::default());
    assert_eq!(lock.try_lock(&claim("a"), &actor()).await.unwrap_err().kind(), "foreign_value");
    assert_eq!(store.range(&Keys::One(semaphore), 1).await.unwrap().entries[0].value, value);
}
