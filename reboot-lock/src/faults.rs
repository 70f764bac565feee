//! The lock on a store that loses, repeats, delays and forgets.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::audit::{Act, Actor};
use crate::error::LockError;
use crate::keys::{self, DEFAULT_PREFIX, Group};
use crate::lock::{Held, Options, RebootLock};
use crate::quarantine::Quarantine;
use crate::queue::{Place, Progress};
use crate::semaphore::{Claim, Purpose, Semaphore};
use crate::store::{Event, Fault, Keys, Memory, Store, StoreError, Write};

pub(crate) fn claim(id: &str) -> Claim {
    Claim {
        id: id.to_owned(),
        hostname: format!("host-{id}"),
        boot_id: "boot-1".to_owned(),
        purpose: Purpose::Update,
        reason: "update to 1.1.0".to_owned(),
        version: Some("1.1.0".to_owned()),
    }
}

fn actor() -> Actor {
    Actor { host: "test".to_owned(), by: "test".to_owned(), why: "to see".to_owned() }
}

fn on(store: &Memory, options: Options) -> RebootLock {
    RebootLock::new(Arc::new(store.clone()), Group::default(), options)
}

fn keys() -> keys::Keys {
    keys::Keys::new(DEFAULT_PREFIX, &Group::default())
}

/// A store, its lock, taken by `first`, and who gets it after that.
async fn taken() -> (Memory, RebootLock, Arc<Mutex<Vec<String>>>) {
    let store = Memory::default();
    let lock = on(&store, Options::default());
    lock.try_lock(&claim("first"), &actor()).await.unwrap();
    (store, lock, Arc::default())
}

async fn holders(lock: &RebootLock) -> Vec<String> {
    lock.status().await.unwrap().semaphore.holders.into_iter().map(|holder| holder.id).collect()
}

/// The most holders that were there at once, by the store's own history.
fn holders_written(store: &Memory) -> usize {
    let (mut there, mut most) = (HashSet::new(), 0);
    for (_, event) in store.history() {
        match event {
            Event::Put(entry) if entry.key.starts_with(&keys().holders()) => {
                there.insert(entry.key);
            }
            Event::Delete { key, .. } => {
                there.remove(&key);
            }
            Event::Put(_) => {}
        }
        most = most.max(there.len());
    }
    most
}

/// A daemon that dies when it first has to wait.
async fn dies<T>(act: impl Future<Output = T>) {
    let mut act = Box::pin(act);
    std::future::poll_fn(|context| {
        assert!(act.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
}

/// The first of the queue asks for its lock, which arrives later, and dies; its place.
async fn sends_a_late_lock(store: &Memory, lock: &RebootLock) -> Place {
    let place = lock.join("a").await.unwrap();
    store.inject([Fault::Late]);
    dies(lock.lock_from(lock.read().await.unwrap(), &claim("a"), &actor(), Some(&place))).await;
    place
}

/// Runs everything that can run.
async fn settle_down() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(30)).await;
}

fn waiting(lock: &RebootLock, id: &str, order: &Arc<Mutex<Vec<String>>>) -> tokio::task::JoinHandle<Result<Held, LockError>> {
    let (lock, order, id) = (lock.clone(), Arc::clone(order), id.to_owned());
    tokio::spawn(async move {
        let held = lock.acquire(&claim(&id), &actor(), &|_| {}).await?;
        order.lock().await.push(id);
        Ok(held)
    })
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_found() {
    let store = Memory::default();
    let lock = on(&store, Options::default());
    store.inject([Fault::LostAnswer]);
    let held = lock.try_lock(&claim("a"), &actor()).await.unwrap();
    assert_eq!(held.holder.fence, 1);
    assert_eq!(lock.verify("a", 1, Some("1.1.0")).await.unwrap().hostname, "host-a");
    store.inject([Fault::LostAnswer]);
    assert!(lock.unlock("a", Some(1), &actor()).await.unwrap());
    assert!(holders(&lock).await.is_empty());
    assert_eq!(lock.verify("a", 1, None).await.unwrap_err().kind(), "lock_lost");
}

/// Its lock is there and nobody told it, since the store went away right after. A host that stands before it must not stop both.
#[tokio::test]
async fn a_lock_whose_answer_was_lost_in_an_outage_is_found_before_its_host_sleeps_again() {
    let (store, lock, order) = taken().await;
    let host = waiting(&lock, "a", &order);
    settle_down().await;
    lock.unlock("first", None, &actor()).await.unwrap();
    store.inject([Fault::LostAnswer]);
    while holders(&lock).await.is_empty() {
        tokio::task::yield_now().await;
    }
    store.set_down(true);
    tokio::time::sleep(Duration::from_millis(60)).await;
    store.set_down(false);
    let before = Write::Put { key: lock.keys.place(0, "b"), value: b"b".to_vec(), lease: 0 };
    store.txn(&[], &[before]).await.unwrap();
    let held = tokio::time::timeout(Duration::from_secs(20), host).await.expect("it sleeps with its lock").unwrap().unwrap();
    assert_eq!(held.holder.id, "a");
}

#[tokio::test]
async fn conflicts_are_tried_again_and_given_up_at_last() {
    let store = Memory::default();
    let lock = on(&store, Options { attempts: 3, ..Options::default() });
    store.inject([Fault::Conflict, Fault::LostRequest, Fault::Duplicate]);
    lock.try_lock(&claim("a"), &actor()).await.unwrap();
    assert_eq!(lock.status().await.unwrap().semaphore.generation, 1);
    store.inject([Fault::Conflict; 9]);
    assert_eq!(lock.unlock("a", None, &actor()).await.unwrap_err().kind(), "contended");
}

#[tokio::test]
async fn a_lock_that_arrives_after_its_host_gave_up_is_refused() {
    let store = Memory::default();
    let lock = on(&store, Options::default());
    sends_a_late_lock(&store, &lock).await;
    assert_eq!(lock.settle("a").await.unwrap(), None);
    store.deliver_late();
    assert!(holders(&lock).await.is_empty());
}

#[tokio::test]
async fn a_lock_that_arrives_after_its_place_was_taken_over_is_refused() {
    let store = Memory::default();
    let lock = on(&store, Options::default());
    let place = sends_a_late_lock(&store, &lock).await;
    let again = lock.join("a").await.unwrap();
    assert_eq!(again.key, place.key);
    store.deliver_late();
    assert!(holders(&lock).await.is_empty());
    lock.lock_from(lock.read().await.unwrap(), &claim("a"), &actor(), Some(&again)).await.unwrap();
    assert_eq!(lock.waiting().await.unwrap(), 0);
}

#[tokio::test]
async fn an_unlock_that_arrives_late_does_not_end_a_lock_that_was_asked_for_again() {
    let store = Memory::default();
    let lock = on(&store, Options::default());
    lock.try_lock(&claim("a"), &actor()).await.unwrap();
    store.inject([Fault::Late]);
    dies(lock.unlock("a", None, &actor())).await;
    lock.try_lock(&claim("a"), &actor()).await.unwrap();
    store.deliver_late();
    assert_eq!(holders(&lock).await, ["a"]);
}

#[tokio::test]
async fn a_lock_asked_for_again_does_not_bring_back_one_that_was_just_given_back() {
    let store = Memory::default();
    let lock = on(&store, Options::default());
    let held = lock.try_lock(&claim("a"), &actor()).await.unwrap();
    let read = lock.read().await.unwrap();
    lock.unlock("a", None, &actor()).await.unwrap();
    let again = lock.lock_from(read, &claim("a"), &actor(), None).await.unwrap();
    assert!(again.holder.fence > held.holder.fence);
    assert_eq!(lock.unlock("a", Some(held.holder.fence), &actor()).await.unwrap_err().kind(), "lock_lost");
}

#[tokio::test]
async fn giving_back_collides_with_nobody() {
    let store = Memory::default();
    let lock = on(&store, Options { attempts: 0, ..Options::default() });
    lock.set_max(100, &actor()).await.unwrap();
    for number in 0..50 {
        lock.try_lock(&claim(&number.to_string()), &actor()).await.unwrap();
    }
    // Each reads while all others are at work.
    let unlocks: Vec<_> = (0..50)
        .map(|number| {
            let lock = lock.clone();
            tokio::spawn(async move { lock.unlock(&number.to_string(), None, &actor()).await })
        })
        .collect();
    let locked = lock.try_lock(&claim("b"), &actor()).await;
    for unlock in unlocks {
        assert_eq!(unlock.await.unwrap(), Ok(true));
    }
    assert!(locked.is_ok());
    assert_eq!(holders(&lock).await, ["b"]);
}

#[tokio::test]
async fn the_version_that_failed_is_locked_by_nobody_until_it_is_cleared() {
    let store = Memory::default();
    let lock = on(&store, Options::default());
    let held = lock.try_lock(&claim("a"), &actor()).await.unwrap();
    let record = Quarantine::new("1.1.0", "a", "host-a", "default", "docker.service failed", 7);
    lock.quarantine(&record, &actor()).await.unwrap();
    lock.quarantine(&Quarantine::new("1.1.0", "b", "host-b", "default", "me too", 8), &actor()).await.unwrap();
    assert_eq!(lock.status().await.unwrap().quarantines, [record]);
    assert_eq!(lock.verify("a", held.holder.fence, Some("1.1.0")).await.unwrap_err().kind(), "version_quarantined");
    // Also when somebody frees the slot, in any group, and whoever waits does not wait for ever.
    lock.unlock("a", None, &actor()).await.unwrap();
    assert_eq!(lock.try_lock(&claim("b"), &actor()).await.unwrap_err().kind(), "version_quarantined");
    let other = RebootLock::new(Arc::new(store.clone()), "other".parse().unwrap(), Options::default());
    assert_eq!(other.acquire(&claim("b"), &actor(), &|_| {}).await.unwrap_err().kind(), "version_quarantined");
    let newer = Claim { version: Some("1.1.1".to_owned()), ..claim("b") };
    lock.try_lock(&newer, &actor()).await.unwrap();
    lock.unlock("b", None, &actor()).await.unwrap();
    assert!(lock.clear_quarantine("1.1.0", &actor()).await.unwrap());
    assert!(!lock.clear_quarantine("1.1.0", &actor()).await.unwrap());
    lock.try_lock(&claim("b"), &actor()).await.unwrap();
}

#[tokio::test]
async fn a_quarantine_between_reading_and_writing_refuses_the_lock() {
    let store = Memory::default();
    let lock = on(&store, Options::default());
    let read = lock.read().await.unwrap();
    let record = Quarantine::new("1.1.0", "z", "z", "other", "failed", 7);
    store.txn(&[], &[Write::Put { key: keys().quarantine("1.1.0"), value: record.encode(), lease: 0 }]).await.unwrap();
    assert_eq!(lock.lock_from(read, &claim("a"), &actor(), None).await.unwrap_err().kind(), "version_quarantined");
    assert!(holders(&lock).await.is_empty());
}

#[tokio::test]
async fn a_foreign_value_is_reported_and_left_alone() {
    let store = Memory::default();
    let lock = on(&store, Options::default());
    let value = br#"{"semaphore":1,"max":1,"holders":null}"#.to_vec();
    store.txn(&[], &[Write::Put { key: keys().semaphore(), value: value.clone(), lease: 0 }]).await.unwrap();
    let errors = [
        lock.try_lock(&claim("a"), &actor()).await.unwrap_err(),
        lock.acquire(&claim("a"), &actor(), &|_| {}).await.unwrap_err(),
        lock.set_max(2, &actor()).await.unwrap_err(),
        lock.status().await.unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.kind() == "foreign_value"), "{errors:?}");
    assert!(errors[0].to_string().contains("lock/semaphore in etcd is not ours: its value has no format number"));
    assert_eq!(holders_written(&store), 0);
    let holder = Write::Put { key: keys().holder("a"), value: b"{}".to_vec(), lease: 0 };
    let other = Write::Put { key: keys().semaphore(), value: Semaphore::default().encode(), lease: 0 };
    store.txn(&[], &[holder, other]).await.unwrap();
    let before = store.history();
    let errors = [
        lock.try_lock(&claim("b"), &actor()).await.unwrap_err(),
        lock.unlock("a", None, &actor()).await.unwrap_err(),
        lock.settle("a").await.unwrap_err(),
        lock.verify("a", 1, None).await.unwrap_err(),
        lock.status().await.unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.kind() == "foreign_value"), "{errors:?}");
    assert_eq!(store.history(), before);
}

#[tokio::test]
async fn who_waits_gets_a_slot_in_turn_and_wakes_nobody_else() {
    let (store, lock, order) = taken().await;
    let names: Vec<String> = (0..20).map(|number| format!("w{number:02}")).collect();
    let mut tasks = Vec::new();
    for name in &names {
        tasks.push(waiting(&lock, name, &order));
        settle_down().await;
    }
    assert_eq!(lock.waiting().await.unwrap(), 20);
    let queued = store.requests();
    settle_down().await;
    assert_eq!(store.requests(), queued, "waiting costs requests");
    lock.unlock("first", None, &actor()).await.unwrap();
    for (task, name) in tasks.into_iter().zip(&names) {
        let held = task.await.unwrap().unwrap();
        assert_eq!(holders(&lock).await, std::slice::from_ref(name));
        lock.unlock(name, Some(held.holder.fence), &actor()).await.unwrap();
    }
    assert_eq!(*order.lock().await, names);
    assert_eq!(lock.waiting().await.unwrap(), 0);
    let each = (store.requests() - queued) / 20;
    assert!(each <= 14, "{each} requests for each host");
}

#[tokio::test]
async fn a_host_that_dies_in_the_queue_blocks_nobody_for_longer_than_its_lease() {
    let (store, lock, order) = taken().await;
    let dead = waiting(&lock, "dead", &order);
    settle_down().await;
    let next = waiting(&lock, "next", &order);
    settle_down().await;
    dead.abort();
    lock.unlock("first", None, &actor()).await.unwrap();
    settle_down().await;
    assert!(!next.is_finished());
    store.advance(Duration::from_secs(181));
    next.await.unwrap().unwrap();
    assert_eq!(holders(&lock).await, ["next"]);
}

#[tokio::test]
async fn a_daemon_that_starts_again_keeps_its_place() {
    let (store, lock, order) = taken().await;
    let earlier = waiting(&lock, "a", &order);
    settle_down().await;
    let behind = waiting(&lock, "b", &order);
    settle_down().await;
    earlier.abort();
    let again = waiting(&lock, "a", &order);
    settle_down().await;
    assert_eq!(lock.waiting().await.unwrap(), 2);
    // The lease of the earlier life ends, and takes nothing along.
    store.advance(Duration::from_secs(100));
    lock.unlock("first", None, &actor()).await.unwrap();
    let held = again.await.unwrap().unwrap();
    lock.unlock("a", Some(held.holder.fence), &actor()).await.unwrap();
    behind.await.unwrap().unwrap();
    assert_eq!(*order.lock().await, ["a", "b"]);
}

#[tokio::test]
async fn leaving_the_queue_wakes_the_next() {
    let (_, lock, order) = taken().await;
    let gives_up = waiting(&lock, "a", &order);
    settle_down().await;
    let next = waiting(&lock, "b", &order);
    settle_down().await;
    gives_up.abort();
    assert_eq!(lock.settle("a").await.unwrap(), None);
    lock.unlock("first", None, &actor()).await.unwrap();
    next.await.unwrap().unwrap();
}

#[tokio::test]
async fn waiting_outlives_an_outage_and_says_so() {
    let store = Memory::default();
    let lock = on(&store, Options::default());
    lock.try_lock(&claim("first"), &actor()).await.unwrap();
    let said = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (waits, says) = (lock.clone(), Arc::clone(&said));
    let task = tokio::spawn(async move { waits.acquire(&claim("a"), &actor(), &|progress| says.lock().unwrap().push(progress)).await });
    settle_down().await;
    store.set_down(true);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // Its place is gone by now.
    store.advance(Duration::from_secs(600));
    store.set_down(false);
    lock.unlock("first", None, &actor()).await.unwrap();
    task.await.unwrap().unwrap();
    let said = said.lock().unwrap();
    let first = |progress: &Progress| matches!(progress, Progress::First { holders } if holders.names == "host-first");
    assert!(said.iter().any(first), "{said:?}");
    assert!(said.iter().any(|progress| matches!(progress, Progress::Trouble(StoreError::Unreachable { .. }))), "{said:?}");
    assert!(said.len() < 10, "{} attempts in 1.5 s", said.len());
}

/// A store with more hosts than it can serve answers the first calls of each, and no more: were that enough to ask again at once, it would never end.
#[tokio::test(start_paused = true)]
async fn a_host_that_is_answered_in_part_asks_less_and_less() {
    let (store, lock, order) = taken().await;
    store.set_no_watches(true);
    let (_first, _second) = (waiting(&lock, "a", &order), waiting(&lock, "b", &order));
    tokio::time::sleep(Duration::from_secs(600)).await;
    let before = store.requests();
    tokio::time::sleep(Duration::from_secs(600)).await;
    // Three or four calls each time, every 15 to 30 seconds.
    let asked = store.requests() - before;
    assert!((100..=400).contains(&asked), "{asked} calls of two hosts in ten minutes");

    store.set_no_watches(false);
    lock.unlock("first", None, &actor()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(*order.lock().await, ["a"], "one slot, and who waited longest");
}

#[tokio::test]
async fn a_vanished_holder_is_removed_after_its_time_and_notices() {
    let store = Memory::default();
    let expiring = Options { expire_after: Some(Duration::from_secs(3600)), ..Options::default() };
    let lock = on(&store, expiring);
    let vanished = lock.try_lock(&claim("vanished"), &actor()).await.unwrap();
    assert!(vanished.holder.expires);
    store.advance(Duration::from_secs(3000));
    assert_eq!(lock.try_lock(&claim("b"), &actor()).await.unwrap_err().kind(), "failed_lock_semaphore_full");
    let order = Arc::new(Mutex::new(Vec::new()));
    let task = waiting(&lock, "b", &order);
    settle_down().await;
    // Its place is kept alive by hand: this clock runs faster than the daemon's.
    for _ in 0..7 {
        store.advance(Duration::from_secs(100));
        settle_down().await;
    }
    assert_eq!(holders(&lock).await, ["b"]);
    task.await.unwrap().unwrap();
    assert_eq!(lock.verify("vanished", vanished.holder.fence, None).await.unwrap_err().kind(), "lock_lost");
    assert_eq!(lock.unlock("vanished", Some(vanished.holder.fence), &actor()).await, Ok(false));
    assert!(lock.audit().await.unwrap().iter().any(|record| record.act == Act::Expire && record.subject == "vanished"));
}

/// What whoever looks next notes; the ids.
async fn note_expired(lock: &RebootLock) -> Vec<String> {
    let read = lock.read().await.unwrap();
    lock.note_ran_out(&read, &actor()).await.unwrap();
    read.ran_out.into_iter().map(|ended| ended.id).collect()
}

#[tokio::test]
async fn a_holder_that_asks_again_gets_its_whole_time_again() {
    let store = Memory::default();
    let lock = on(&store, Options { expire_after: Some(Duration::from_secs(100)), ..Options::default() });
    let first = lock.try_lock(&claim("a"), &actor()).await.unwrap();
    store.advance(Duration::from_secs(90));
    lock.try_lock(&claim("a"), &actor()).await.unwrap();
    store.advance(Duration::from_secs(90));
    assert!(note_expired(&lock).await.is_empty());
    assert!(lock.verify("a", first.holder.fence, None).await.is_ok());
    store.advance(Duration::from_secs(11));
    assert_eq!(lock.verify("a", first.holder.fence, None).await.unwrap_err().kind(), "lock_lost");
    assert_eq!(note_expired(&lock).await, ["a"]);
    assert!(note_expired(&lock).await.is_empty());
    // One that is given back in time is not said to have run out.
    lock.try_lock(&claim("a"), &actor()).await.unwrap();
    lock.unlock("a", None, &actor()).await.unwrap();
    store.advance(Duration::from_secs(101));
    assert!(note_expired(&lock).await.is_empty());
    let acts: Vec<Act> = lock.audit().await.unwrap().iter().map(|record| record.act).collect();
    assert_eq!(acts, [Act::Lock, Act::Relock, Act::Expire, Act::Lock, Act::Unlock]);
}

#[tokio::test]
async fn the_audit_trail_tells_all_and_is_bounded() {
    let store = Memory::default();
    let lock = on(&store, Options { clock: Arc::new(|| 1_700_000_000), ..Options::default() });
    for _ in 0..300 {
        lock.try_lock(&claim("a"), &actor()).await.unwrap();
        lock.unlock("a", None, &actor()).await.unwrap();
    }
    let records = lock.audit().await.unwrap();
    assert_eq!(records.len(), 512);
    assert!(records.chunks(2).all(|two| two[0].generation == two[1].generation && two[0].act == Act::Lock && two[1].act == Act::Unlock));
    assert!(records.chunks(2).zip(45..).all(|(two, generation)| two[0].generation == generation));
    let last = records.last().unwrap();
    assert_eq!((last.generation, last.act, last.subject.as_str(), last.time), (300, Act::Unlock, "a", 1_700_000_000));
    assert_eq!(store.range(&Keys::Prefix(keys().audits()), 0).await.unwrap().count, 600);
    assert_eq!((last.host.as_str(), last.by.as_str(), last.why.as_str()), ("test", "test", "to see"));
}

#[tokio::test]
async fn many_hosts_on_a_bad_network_never_hold_more_than_the_slots() {
    let store = Memory::default();
    let lock = on(&store, Options::default());
    lock.set_max(3, &actor()).await.unwrap();
    let faults = [Fault::LostAnswer, Fault::Conflict, Fault::LostRequest, Fault::Duplicate, Fault::Late];
    store.inject(faults.into_iter().cycle().take(60));
    let mut tasks = Vec::new();
    for number in 0..60 {
        let lock = lock.clone();
        tasks.push(tokio::spawn(async move {
            let id = format!("h{number}");
            let held = lock.acquire(&claim(&id), &actor(), &|_| {}).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
            assert!(lock.verify(&id, held.holder.fence, None).await.is_ok());
            while lock.unlock(&id, Some(held.holder.fence), &actor()).await.is_err() {}
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    store.deliver_late();
    assert_eq!(holders_written(&store), 3);
    assert!(holders(&lock).await.is_empty());
    assert_eq!(lock.waiting().await.unwrap(), 0);
}
