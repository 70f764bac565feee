//! Hosts that lock and unlock all the time, each with connections and a clock of its own; two of them are killed all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use reboot_lock::audit::Record;
use reboot_lock::queue::Progress;
use reboot_lock::store::Store;
use reboot_lock::{Options, RebootLock};
use tokio::task::JoinHandle;

use super::lab::Lab;
use super::{actor, claim, history, lock};

/// How long a place in the queue lasts that is not renewed.
pub const WAITER_TTL: Duration = Duration::from_secs(6);
/// Slots of the group.
const MAX: u32 = 2;
const HOSTS: u32 = 8;
/// The first of them are never killed.
const PATIENT: u32 = 6;

#[derive(Default)]
struct Seen {
    inside: AtomicU32,
    most: AtomicU32,
    turns: AtomicU32,
    turns_of_killed: AtomicU32,
    /// Who of those that are never killed had a turn.
    served: Mutex<BTreeSet<String>>,
    /// Seconds by which the clocks of even hosts are fast and those of odd ones slow.
    jump: AtomicI64,
    /// What etcd's trouble was for hosts that waited, and how often.
    trouble: Mutex<BTreeMap<&'static str, u32>>,
}

/// The hosts of one cluster.
pub struct Hosts {
    seen: Arc<Seen>,
    tasks: Vec<JoinHandle<()>>,
    store: Arc<dyn Store>,
    options: Options,
}

fn id(number: u32) -> String {
    format!("h{number}")
}

/// One host: gets the lock, is away for a moment, gives it back; for ever.
async fn host(lock: RebootLock, id: String, seen: Arc<Seen>) {
    let news = |progress| {
        if let Progress::Trouble(error) = progress {
            *seen.trouble.lock().unwrap().entry(error.kind()).or_default() += 1;
        }
    };
    loop {
        // As the daemon does when it starts: it may have been killed with the lock, or on the way to it.
        let Ok(before) = lock.settle(&id).await else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        let fence = match before {
            Some(holder) => holder.fence,
            None => match lock.acquire(&claim(&id), &actor(), &news).await {
                Ok(held) => held.holder.fence,
                Err(error) => panic!("{id}: {error}"),
            },
        };
        let inside = seen.inside.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most.fetch_max(inside, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        seen.inside.fetch_sub(1, Ordering::SeqCst);
        while let Err(error) = lock.unlock(&id, Some(fence), &actor()).await {
            assert!(error.kind().starts_with("etcd_") || error.kind() == "contended", "{id}: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        seen.turns.fetch_add(1, Ordering::SeqCst);
        seen.served.lock().unwrap().insert(id.clone());
    }
}

/// Kills each of the hosts' daemons while it waits or holds, and starts it again, all the time.
async fn impatient(lock: RebootLock, id: String, seen: Arc<Seen>) {
    for lived in [300_u64, 1700, 900, 2600, 500, 4000].into_iter().cycle() {
        let life = async {
            if let Ok(Some(holder)) = lock.settle(&id).await {
                let _ = lock.unlock(&id, Some(holder.fence), &actor()).await;
                seen.turns_of_killed.fetch_add(1, Ordering::SeqCst);
            }
            let _ = lock.acquire(&claim(&id), &actor(), &|_| {}).await;
            std::future::pending::<()>().await;
        };
        let _ = tokio::time::timeout(Duration::from_millis(lived), life).await;
    }
}

impl Hosts {
    /// Starts them all.
    pub async fn start(lab: &Lab, expire_after: Option<Duration>) -> Self {
        let store: Arc<dyn Store> = Arc::new(lab.etcd());
        let options = Options { waiter_ttl: WAITER_TTL, expire_after, ..Options::default() };
        lock(&store, options.clone()).set_max(MAX, &actor()).await.unwrap();
        let seen = Arc::new(Seen::default());
        let start = |number: u32| {
            let own: Arc<dyn Store> = Arc::new(lab.etcd());
            let (seen, clock) = (Arc::clone(&seen), Arc::clone(&seen));
            let sign = if number.is_multiple_of(2) { 1 } else { -1 };
            let clock = move || {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
                now.saturating_add_signed(sign * clock.jump.load(Ordering::SeqCst))
            };
            let lock = lock(&own, Options { clock: Arc::new(clock), ..options.clone() });
            match number {
                0..PATIENT => tokio::spawn(host(lock, id(number), seen)),
                _ => tokio::spawn(impatient(lock, id(number), seen)),
            }
        };
        let tasks = (0..HOSTS).map(start).collect();
        Self { seen, tasks, store, options }
    }

    /// Sets the clocks of half of the hosts fast by so many seconds, and those of the others slow.
    pub fn jump(&self, seconds: i64) {
        self.seen.jump.store(seconds, Ordering::SeqCst);
    }

    /// The hosts go on, or the test ends.
    pub async fn progress(&self, when: &str) {
        let (begun, before) = (Instant::now(), self.seen.turns.load(Ordering::SeqCst));
        while self.seen.turns.load(Ordering::SeqCst) < before + 3 {
            assert!(begun.elapsed() < Duration::from_secs(30), "no host got the lock {when} within 30 s");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Forgets what the hosts said, and waits until one says that it is etcd that it waits for.
    pub async fn say_that_etcd_fails(&self) {
        self.seen.trouble.lock().unwrap().clear();
        let begun = Instant::now();
        while self.seen.trouble.lock().unwrap().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(30), "no host says why it waits");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("the hosts wait: {:?}", self.seen.trouble.lock().unwrap());
    }

    /// Waits until everybody had a turn, one of those that are killed too, ends them, lets all settle as after a power cut, and looks at etcd's history. The audit trail.
    pub async fn finish(self) -> Vec<Record> {
        let Self { seen, tasks, store, options } = self;
        let begun = Instant::now();
        let killed = || seen.turns_of_killed.load(Ordering::SeqCst);
        while seen.served.lock().unwrap().len() < PATIENT as usize || killed() == 0 {
            let served = seen.served.lock().unwrap().clone();
            assert!(begun.elapsed() < Duration::from_secs(30), "only these had a turn: {served:?}, and {} killed ones", killed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for task in &tasks {
            assert!(!task.is_finished(), "a host gave up");
            task.abort();
        }
        let lock = lock(&store, options);
        for id in (0..HOSTS).map(id) {
            if let Some(holder) = lock.settle(&id).await.unwrap() {
                lock.unlock(&id, Some(holder.fence), &actor()).await.unwrap();
            }
        }
        let last = lock.status().await.unwrap();
        assert!(last.semaphore.holders.is_empty(), "{:?}", last.semaphore);
        assert_eq!(last.waiting, 0);
        let history = history(&store).await;
        let [turns, killed, most] = [&seen.turns, &seen.turns_of_killed, &seen.most].map(|count| count.load(Ordering::SeqCst));
        println!("{turns} turns, {killed} of killed hosts, {} changes", last.semaphore.generation);
        assert!(history.most <= MAX as usize, "{} holders", history.most);
        assert!(most <= MAX, "{most} hosts were away at once");
        assert!(seen.served.lock().unwrap().is_subset(&history.turns), "etcd knows only of {:?}", history.turns);
        assert_eq!(history.expired, 0, "a lock expired early");
        lock.audit().await.unwrap()
    }
}
