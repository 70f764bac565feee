//! Three members; hosts that lock and unlock all the time, some of which are killed, while members are killed, cut off and frozen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use reboot_lock::store::Store;
use reboot_lock::{Options, RebootLock};

use super::lab::Lab;
use super::{actor, claim, history, lock, run};

const MAX: u32 = 2;

#[derive(Default)]
struct Counts {
    inside: AtomicU32,
    most: AtomicU32,
    turns: AtomicU32,
}

/// One host: gets the lock, is away for a moment, gives it back; for ever. Each has its own connections.
async fn host(lock: RebootLock, id: String, counts: Arc<Counts>) {
    loop {
        // As the daemon does when it starts: it may have been killed with the lock, or on the way to it.
        let Ok(before) = lock.settle(&id).await else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        let fence = match before {
            Some(holder) => holder.fence,
            None => match lock.acquire(&claim(&id), &actor(), &|_| {}).await {
                Ok(held) => held.holder.fence,
                Err(error) => panic!("{id}: {error}"),
            },
        };
        let inside = counts.inside.fetch_add(1, Ordering::SeqCst) + 1;
        counts.most.fetch_max(inside, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        counts.inside.fetch_sub(1, Ordering::SeqCst);
        while let Err(error) = lock.unlock(&id, Some(fence), &actor()).await {
            assert!(error.kind().starts_with("etcd_") || error.kind() == "contended", "{id}: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        counts.turns.fetch_add(1, Ordering::SeqCst);
    }
}

/// Kills each of the hosts' daemons while it waits or holds, and starts it again, all the time.
async fn impatient(lock: RebootLock, id: String, turns: Arc<AtomicU32>) {
    for lived in [300_u64, 1700, 900, 2600, 500, 4000].into_iter().cycle() {
        let life = async {
            if let Ok(Some(holder)) = lock.settle(&id).await {
                let _ = lock.unlock(&id, Some(holder.fence), &actor()).await;
                turns.fetch_add(1, Ordering::SeqCst);
            }
            let _ = lock.acquire(&claim(&id), &actor(), &|_| {}).await;
            std::future::pending::<()>().await;
        };
        let _ = tokio::time::timeout(Duration::from_millis(lived), life).await;
    }
}

fn sweep(rounds: u32) {
    let Some(mut lab) = Lab::new(3, "http", &[]) else { return };
    run(async {
        lab.start_all().await;
        let store: Arc<dyn Store> = Arc::new(lab.etcd());
        let options = Options { waiter_ttl: Duration::from_secs(6), ..Options::default() };
        lock(&store, options.clone()).set_max(MAX, &actor()).await.unwrap();
        let counts = Arc::new(Counts::default());
        let killed_turns = Arc::new(AtomicU32::new(0));
        let mut hosts = Vec::new();
        for number in 0..8 {
            let own: Arc<dyn Store> = Arc::new(lab.etcd());
            let (lock, counts, id) = (lock(&own, options.clone()), Arc::clone(&counts), format!("h{number}"));
            hosts.push(match number {
                0..6 => tokio::spawn(host(lock, id, counts)),
                _ => tokio::spawn(impatient(lock, id, Arc::clone(&killed_turns))),
            });
        }
        let turns = || counts.turns.load(Ordering::SeqCst);
        for round in 0..rounds {
            for fault in 0..4 {
                let before = turns();
                let member = (round as usize + fault) % 3;
                match fault {
                    0 => lab.kill(member),
                    1 | 3 => lab.cut(member, true),
                    _ => lab.freeze(member, true),
                }
                tokio::time::sleep(Duration::from_millis(1500)).await;
                progress("with a member away", before, &turns).await;
                match fault {
                    0 => lab.start(member),
                    1 | 3 => lab.cut(member, false),
                    _ => lab.freeze(member, false),
                }
                lab.works().await;
            }
            // Two members away: nobody can lock. Then both are back.
            lab.cut(0, true);
            lab.kill(1);
            tokio::time::sleep(Duration::from_millis(2500)).await;
            lab.cut(0, false);
            lab.start(1);
            lab.works().await;
            let before = turns();
            progress("after an outage", before, &turns).await;
        }
        for host in &hosts {
            assert!(!host.is_finished(), "a host gave up");
            host.abort();
        }
        // Everybody settles, as after a power cut.
        let lock = lock(&store, options);
        for number in 0..8 {
            let id = format!("h{number}");
            if let Some(holder) = lock.settle(&id).await.unwrap() {
                lock.unlock(&id, Some(holder.fence), &actor()).await.unwrap();
            }
        }
        let last = lock.status().await.unwrap();
        assert!(last.semaphore.holders.is_empty(), "{:?}", last.semaphore);
        assert_eq!(last.waiting, 0);
        let most = history(&store).await.most;
        println!("{} turns, {} of killed hosts, {} changes", turns(), killed_turns.load(Ordering::SeqCst), last.semaphore.generation);
        assert!(most <= MAX as usize, "{most} holders");
        assert!(counts.most.load(Ordering::SeqCst) <= MAX, "{} hosts were away at once", counts.most.load(Ordering::SeqCst));
        assert!(rounds == 1 || killed_turns.load(Ordering::SeqCst) > 0);
    });
}

/// The hosts go on, or the test ends.
async fn progress(when: &str, before: u32, turns: &impl Fn() -> u32) {
    let begun = Instant::now();
    while turns() < before + 3 {
        assert!(begun.elapsed() < Duration::from_secs(30), "no host got the lock {when} within 30 s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn hosts_and_members_that_fail_lose_no_lock_and_give_none_away_twice() {
    sweep(1);
}

#[test]
#[ignore = "minutes"]
fn ten_rounds_of_faults() {
    sweep(10);
}
