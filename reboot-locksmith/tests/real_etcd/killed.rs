//! Hosts whose real daemons are killed with SIGKILL at any moment, and started again: never more than one has the lock, and everybody has all its turns.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reboot_lock::store::Store;
use reboot_lock::{Group, Options, RebootLock};
use reboot_locksmith::journal::Journal;
use serde_json::json;

use super::host::Host;
use super::lab::Lab;
use super::replay::history;
use super::run;

/// How often a daemon is killed on the way to one reboot.
const KILLS: u32 = 4;

/// What all hosts have seen.
#[derive(Default)]
struct Seen {
    down: AtomicU32,
    most_down: AtomicU32,
    /// How often a daemon was killed, by the state that its journal had.
    killed: Mutex<BTreeMap<&'static str, u32>>,
}

/// Numbers that are different in each run (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

fn journal(host: &Host) -> Journal {
    let (journal, problem) = Journal::load(&host.paths.journal());
    assert_eq!(problem, None, "the journal is whole whenever its daemon dies");
    journal
}

/// One host: as many updates, each with its reboot.
async fn lives(host: Host, turns: u32, mut chance: Chance, seen: Arc<Seen>) -> Host {
    let told = || host.told.load(Ordering::SeqCst) > 0;
    host.is_in("boot0", "1.0");
    let mut daemon = host.starts();
    for turn in 1..=turns {
        // It may still be at giving back the lock of the turn before.
        tokio::time::sleep(Duration::from_millis(chance.below(800))).await;
        host.update(&format!("1.{turn}"));
        let begun = Instant::now();
        let mut kills = KILLS;
        while !told() {
            assert!(begun.elapsed() < Duration::from_secs(90), "no turn for {}: {}", host.directory.path().display(), host.log());
            let until = Instant::now() + Duration::from_millis(chance.below(1500));
            while !told() && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if !told() && kills > 0 {
                kills -= 1;
                daemon.kill();
                *seen.killed.lock().unwrap().entry(journal(&host).phase.as_str()).or_default() += 1;
                daemon = host.starts();
            }
        }
        // The machine goes down, and comes up with the new version.
        seen.most_down.fetch_max(seen.down.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        daemon.kill();
        assert_eq!(host.told.swap(0, Ordering::SeqCst), 1);
        tokio::time::sleep(Duration::from_millis(200)).await;
        seen.down.fetch_sub(1, Ordering::SeqCst);
        host.is_in(&format!("boot{turn}"), &format!("1.{turn}"));
        daemon = host.starts();
        // Once more, where it finds its lock and gives it back.
        tokio::time::sleep(Duration::from_millis(chance.below(150))).await;
        daemon.kill();
        *seen.killed.lock().unwrap().entry("back").or_default() += 1;
        daemon = host.starts();
    }
    let begun = Instant::now();
    while journal(&host).claimed.is_some() {
        assert!(begun.elapsed() < Duration::from_secs(30), "something is still held: {}", host.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    daemon.kill();
    host
}

async fn killed(mut lab: Lab, turns: u32) {
    lab.start_all().await;
    let store: Arc<dyn Store> = Arc::new(lab.etcd());
    let lock = RebootLock::new(Arc::clone(&store), Group::default(), Options::default());
    let seen = Arc::new(Seen::default());
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}");
    let settings = json!({ "strategy": "etcd-lock", "quorum": false });
    let lives = (0..3).map(|number| {
        let host = Host::new(&lab, number, &settings);
        host.has_programs();
        host.hook("sleep 0.4");
        tokio::spawn(lives(host, turns, Chance(seed.wrapping_mul(2 * number as u64 + 1)), Arc::clone(&seen)))
    });
    let lives: Vec<_> = lives.collect();
    for life in lives {
        life.await.unwrap();
    }
    let status = lock.status().await.unwrap();
    assert!(status.semaphore.holders.is_empty() && status.quarantines.is_empty(), "{status:?}");
    assert_eq!(status.waiting, 0, "a place in the queue is left");
    let history = history(&store).await;
    println!("{} changes, killed: {:?}", history.changes, seen.killed.lock().unwrap());
    assert_eq!((history.most, history.turns.len(), history.holders.len()), (1, 3, 0));
    assert_eq!(seen.most_down.load(Ordering::SeqCst), 1, "hosts down at once");
    if turns > 1 {
        let killed = seen.killed.lock().unwrap();
        // With the lock before and in the drain, and without it.
        assert!(["locking", "draining", "back"].iter().all(|state| killed.contains_key(state)), "not killed everywhere: {killed:?}");
    }
}

#[test]
fn daemons_that_are_killed_lose_no_lock_and_no_turn() {
    let Some(lab) = Lab::new(1, "http", &[]) else { return };
    run(killed(lab, 1));
}

#[test]
#[ignore = "minutes: scripts/test-long locks"]
fn daemons_that_are_killed_for_ten_turns_lose_no_lock_and_no_turn() {
    let Some(lab) = Lab::new(1, "http", &[]) else { return };
    run(killed(lab, 10));
}
