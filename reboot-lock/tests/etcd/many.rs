//! Thousands of hosts that all want one group's lock at once, against one real etcd. Prints the figures of docs/benchmarks.md.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reboot_lock::store::{Event, Keys, Store};
use reboot_lock::{Options, Semaphore};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::lab::{Lab, address};
use super::{SEMAPHORE, actor, claim, lock, run};

const MAX: u32 = 100;
/// How long a host is away: seconds where real ones take minutes, so that locks come and go faster than they ever would.
const AWAY: std::ops::Range<u64> = 2000..4000;

/// Requests that etcd has answered since it started, streams included, by its own count.
fn requests() -> u64 {
    let mut stream = TcpStream::connect((address(0), 2379)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let counts = text.lines().filter(|line| line.starts_with("grpc_server_started_total"));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

/// What the semaphore has been, by what etcd tells of each of its revisions.
#[derive(Default)]
struct Seen {
    generation: u64,
    most: usize,
    turns: HashSet<String>,
}

/// Reads each value of the semaphore after a revision, as long as it runs.
async fn read_all(store: Arc<dyn Store>, revision: i64, seen: Arc<Mutex<Seen>>) {
    let mut watch = store.watch(&Keys::One(SEMAPHORE.to_owned()), revision + 1).await.unwrap();
    loop {
        for event in watch.next().await.unwrap() {
            let Event::Put(entry) = event else { panic!("the semaphore was deleted") };
            let value = Semaphore::decode(&entry.value).unwrap();
            let mut seen = seen.lock().unwrap();
            assert!(seen.generation == 0 || seen.generation + 1 == value.generation, "a change without its generation");
            seen.generation = value.generation;
            seen.most = seen.most.max(value.holders.len());
            seen.turns.extend(value.holders.into_iter().map(|holder| holder.id));
        }
    }
}

/// What one fleet did.
struct Outcome {
    /// From the call that gives a lock back to the next host that has it.
    waits: Vec<Duration>,
    requests: u64,
    took: Duration,
}

impl Outcome {
    fn wait(&self, percent: usize) -> u128 {
        self.waits[(self.waits.len() - 1) * percent / 100].as_millis()
    }
}

async fn fleet(lab: &Lab, hosts: u32) -> Outcome {
    let store: Arc<dyn Store> = Arc::new(lab.etcd());
    let options = Options::default();
    lock(&store, options.clone()).set_max(MAX, &actor()).await.unwrap();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let revision = lock(&store, options.clone()).status().await.unwrap().revision;
    let reader = tokio::spawn(read_all(Arc::new(lab.etcd()), revision, Arc::clone(&seen)));
    let before = requests();
    let begun = Instant::now();
    let (given_back, got) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let mut tasks = Vec::new();
    let mut own = Arc::clone(&store);
    for number in 0..hosts {
        // A process may have 20,000 connections; each watch has one of its own in any case.
        if number % 10 == 0 {
            own = Arc::new(lab.etcd());
        }
        let (lock, given_back, got) = (lock(&own, options.clone()), Arc::clone(&given_back), Arc::clone(&got));
        let away = AWAY.start + u64::from(number) * 7919 % (AWAY.end - AWAY.start);
        tasks.push(tokio::spawn(async move {
            let id = format!("h{number}");
            lock.settle(&id, &actor()).await.unwrap();
            let held = lock.acquire(&claim(&id), &actor(), &|_| {}).await.unwrap();
            got.lock().unwrap().push(Instant::now());
            tokio::time::sleep(Duration::from_millis(away)).await;
            given_back.lock().unwrap().push(Instant::now());
            assert!(lock.unlock(&id, Some(held.holder.fence), &actor()).await.unwrap(), "{id}");
        }));
        // As an update reaches them: not all in the same millisecond.
        if number % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    let took = begun.elapsed();
    let requests = requests() - before;
    let last = lock(&store, options).status().await.unwrap().semaphore;
    assert!(last.holders.is_empty());
    // etcd's own word for it: at no revision more than may, and everybody had a turn.
    while seen.lock().unwrap().generation < last.generation {
        assert!(!reader.is_finished(), "the reader has failed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    reader.abort();
    {
        let seen = seen.lock().unwrap();
        assert_eq!(seen.most, MAX as usize, "holders at once");
        assert_eq!(seen.turns.len(), hosts as usize, "hosts that had a turn");
    }
    let (given_back, got) = (given_back.lock().unwrap(), got.lock().unwrap());
    let mut waits: Vec<Duration> =
        given_back.iter().zip(&got[MAX as usize..]).map(|(back, got)| got.saturating_duration_since(*back)).collect();
    waits.sort_unstable();
    Outcome { waits, requests, took }
}

fn measure(hosts: u32) -> Option<Outcome> {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
    let mut lab = Lab::new(1, "http", &["--quota-backend-bytes=8000000000"])?;
    let mut outcome = None;
    run(async {
        lab.start_all().await;
        outcome = Some(fleet(&lab, hosts).await);
    });
    let outcome = outcome?;
    println!(
        "bench: {hosts} hosts, {MAX} at once: {:.0} s; from a lock given back to the next one taken {} ms in the median, {} ms at 95 %; {:.1} requests to etcd for each host",
        outcome.took.as_secs_f64(),
        outcome.wait(50),
        outcome.wait(95),
        outcome.requests as f64 / f64::from(hosts),
    );
    Some(outcome)
}

#[test]
#[ignore = "minutes: scripts/bench --only locks"]
fn ten_thousand_hosts_have_their_turns() {
    let Some(few) = measure(1000) else { return };
    let Some(many) = measure(10_000) else { return };
    assert!(many.wait(50) < 200, "{} ms", many.wait(50));
    let each = |outcome: &Outcome, hosts: u64| outcome.requests / hosts;
    assert!(
        each(&many, 10_000) <= each(&few, 1000) * 2,
        "{} requests for each of 10,000 hosts, {} of 1,000",
        each(&many, 10_000),
        each(&few, 1000)
    );
}
