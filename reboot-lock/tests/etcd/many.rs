//! Thousands of hosts that all want one group's lock at once, against one real etcd. Prints the figures of docs/benchmarks.md.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reboot_lock::backoff::Backoff;
use reboot_lock::store::{Keys, Store};
use reboot_lock::{LockError, Options};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::lab::{Lab, address};
use super::{LOCK, Replay, actor, claim, lock, run};

const MAX: u32 = 100;
/// With the renewal itself.
const REQUESTS_OF_A_RENEWAL: u64 = 4;
/// How long a host is away: seconds where real ones take minutes, so that locks come and go faster than they ever would.
const AWAY: std::ops::Range<u64> = 2000..4000;
const HOSTS_AT_AN_ADDRESS: u32 = 100;
/// From one host that learns of the update to the next.
const ARRIVAL: Duration = Duration::from_millis(3);

/// Requests that etcd has answered since it started, streams included, by its own count and names.
fn requests() -> BTreeMap<String, u64> {
    let mut stream = TcpStream::connect((address(0), 2379)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("grpc_server_started_total")) {
        let method = line.split("grpc_method=\"").nth(1).unwrap().split('"').next().unwrap();
        *all.entry(method.to_owned()).or_default() += line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64;
    }
    all
}

/// Reads what happens to the lock after a revision, as long as it runs.
async fn read_all(store: Arc<dyn Store>, revision: i64, seen: Arc<Mutex<Replay>>) {
    let mut watch = store.watch(&Keys::Prefix(LOCK.to_owned()), revision + 1).await.unwrap();
    loop {
        for event in watch.next().await.unwrap() {
            seen.lock().unwrap().hear(event);
        }
    }
}

/// Again and again, as the daemon does while etcd has too much to do; whether the first try was enough.
async fn until_done<T, F: Future<Output = Result<T, LockError>>>(retries: &AtomicU32, act: impl Fn() -> F) -> (T, bool) {
    let mut first = true;
    let mut pauses = Backoff::outages();
    loop {
        match act().await {
            Ok(done) => return (done, first),
            Err(LockError::Store(error)) if error.passes() => {}
            Err(error) => panic!("{error}"),
        }
        first = false;
        retries.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(pauses.wait()).await;
    }
}

/// What one fleet did.
struct Outcome {
    /// From the call that gives a lock back to the next host that has it.
    waits: Vec<Duration>,
    /// By kind.
    requests: BTreeMap<String, u64>,
    /// Of all hosts together, for the lock.
    waited: Duration,
    /// Calls of hosts that failed and were tried again.
    retries: u32,
    most: usize,
    took: Duration,
}

impl Outcome {
    fn wait(&self, percent: usize) -> u128 {
        self.waits[(self.waits.len() - 1) * percent / 100].as_millis()
    }

    fn of(&self, kinds: &[&str]) -> u64 {
        kinds.iter().filter_map(|kind| self.requests.get(*kind)).sum()
    }

    fn all(&self) -> u64 {
        self.requests.values().sum()
    }

    /// What a host that waits does each time that it renews its lease: it looks who is before it and who has the lock, and watches again.
    fn while_waiting(&self) -> u64 {
        self.of(&["LeaseKeepAlive"]) * REQUESTS_OF_A_RENEWAL
    }

    /// What has to be done however long it takes.
    fn of_a_turn(&self) -> u64 {
        self.all() - self.while_waiting()
    }
}

async fn fleet(lab: &Lab, hosts: u32) -> Outcome {
    let store: Arc<dyn Store> = Arc::new(lab.etcd());
    let options = Options::default();
    lock(&store, options.clone()).set_max(MAX, &actor()).await.unwrap();
    let seen = Arc::new(Mutex::new(Replay::default()));
    let revision = lock(&store, options.clone()).status().await.unwrap().revision;
    let reader = tokio::spawn(read_all(Arc::new(lab.etcd()), revision, Arc::clone(&seen)));
    let before = requests();
    let begun = Instant::now();
    let retries = Arc::new(AtomicU32::new(0));
    let (given_back, got) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let waited = Arc::new(Mutex::new(Duration::ZERO));
    let mut tasks = Vec::new();
    let mut own = Arc::clone(&store);
    for number in 0..hosts {
        // A process may have 20,000 connections here. Each watch has one of its own in any case, and a host that waits has two watches.
        if number % HOSTS_AT_AN_ADDRESS == 0 {
            own = Arc::new(lab.etcd_at(u8::try_from(number / HOSTS_AT_AN_ADDRESS).unwrap()));
        }
        let (lock, given_back, got) = (lock(&own, options.clone()), Arc::clone(&given_back), Arc::clone(&got));
        let (retries, waited) = (Arc::clone(&retries), Arc::clone(&waited));
        let away = AWAY.start + u64::from(number) * 7919 % (AWAY.end - AWAY.start);
        tasks.push(tokio::spawn(async move {
            let id = format!("h{number}");
            until_done(&retries, || lock.settle(&id)).await;
            // As the daemon asks: it looks at the group first, and hears of a quarantine while it waits.
            until_done(&retries, || lock.status()).await;
            let (claim, actor, asked) = (claim(&id), actor(), Instant::now());
            let held = tokio::select! {
                held = lock.acquire(&claim, &actor, &|_| {}) => held.unwrap(),
                refusal = lock.until_quarantined(claim.version.as_deref().unwrap()) => panic!("{id}: {refusal}"),
            };
            got.lock().unwrap().push(Instant::now());
            *waited.lock().unwrap() += asked.elapsed();
            tokio::time::sleep(Duration::from_millis(away)).await;
            given_back.lock().unwrap().push(Instant::now());
            let fence = Some(held.holder.fence);
            let (had, first) = until_done(&retries, || lock.unlock(&id, fence, &actor)).await;
            assert!(had || !first, "{id}");
        }));
        // As an update reaches them: over half a minute, 10,000 of them.
        tokio::time::sleep_until((begun + ARRIVAL * number).into()).await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    let took = begun.elapsed();
    let mut requests = requests();
    before.iter().for_each(|(kind, before)| *requests.get_mut(kind).unwrap() -= before);
    let waited = *waited.lock().unwrap();
    let last = lock(&store, options).status().await.unwrap();
    assert!(last.semaphore.holders.is_empty());
    // etcd's own word for it: at no revision more than may, and everybody had a turn.
    while !seen.lock().unwrap().holders.is_empty() || seen.lock().unwrap().generation < last.semaphore.generation {
        assert!(!reader.is_finished(), "the reader has failed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    reader.abort();
    let most = seen.lock().unwrap().most;
    assert_eq!(most, MAX as usize, "holders at once");
    assert_eq!(seen.lock().unwrap().turns.len(), hosts as usize, "hosts that had a turn");
    let (given_back, got) = (given_back.lock().unwrap(), got.lock().unwrap());
    let mut waits: Vec<Duration> =
        given_back.iter().zip(&got[MAX as usize..]).map(|(back, got)| got.saturating_duration_since(*back)).collect();
    waits.sort_unstable();
    Outcome { waits, requests, waited, retries: retries.load(Ordering::SeqCst), most, took }
}

fn measure(hosts: u32) -> Option<Outcome> {
    let mut lab = Lab::new(1, "http", &["--quota-backend-bytes=8000000000", "--listen-client-urls=http://0.0.0.0:2379"])?;
    lab.add_addresses();
    // Connections of this process and of the member that it starts; and ports for them, also while closed ones linger.
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65000").unwrap();
    let mut outcome = None;
    run(async {
        lab.start_all().await;
        outcome = Some(fleet(&lab, hosts).await);
    });
    let outcome = outcome?;
    let each = |requests: u64| format!("{:.1}", requests as f64 / f64::from(hosts));
    let away = format!("{} to {} s", AWAY.start / 1000, AWAY.end / 1000);
    let told = |what: &str, is: String, limit: &str| println!("bench: {hosts} hosts, {MAX} at once: {what} | {is} | {limit}");
    let all = format!("{:.0} s", f64::from(hosts) * (AWAY.start + AWAY.end) as f64 / 2000.0 / f64::from(MAX));
    told(
        &format!("until all were away for {away}"),
        format!("{:.0} s", outcome.took.as_secs_f64()),
        &format!("{all} if locks cost no time"),
    );
    told("from a lock given back to the next one taken, median", format!("{} ms", outcome.wait(50)), "200 ms");
    told("the same, at 95 %", format!("{} ms", outcome.wait(95)), "");
    told("requests to etcd for each host", each(outcome.all()), "no more than twice with ten times the hosts");
    told("of these: reads", each(outcome.of(&["Range"])), "");
    told("of these: transactions", each(outcome.of(&["Txn"])), "");
    told("of these: watches", each(outcome.of(&["Watch"])), "");
    told("of these: leases made and ended", each(outcome.of(&["LeaseGrant", "LeaseRevoke"])), "");
    told("of these: renewals of leases", each(outcome.of(&["LeaseKeepAlive"])), "");
    told("all that does not hang on the time waited", each(outcome.of_a_turn()), "the same with ten times the hosts, and a quarter more");
    let minutes = outcome.waited.as_secs_f64() / 60.0;
    told("minutes waited, of each host", format!("{:.1}", minutes / f64::from(hosts)), "");
    told(
        "requests for each minute waited",
        format!("{:.1}", outcome.while_waiting() as f64 / minutes),
        &format!("{REQUESTS_OF_A_RENEWAL}: one renewal a minute"),
    );
    told("calls that were tried again", outcome.retries.to_string(), "");
    told("holders at once, by etcd's own history", outcome.most.to_string(), &MAX.to_string());
    Some(outcome)
}

#[test]
#[ignore = "a minute: scripts/test-long locks"]
fn a_thousand_hosts_have_their_turns() {
    let Some(outcome) = measure(1000) else { return };
    // How fast is for the bench to say, on a machine that does nothing else.
    let each = outcome.all() / 1000;
    assert!(each <= 25, "{each} requests for each host");
}

#[test]
#[ignore = "minutes: scripts/bench --only locks"]
fn ten_thousand_hosts_have_their_turns() {
    let Some(few) = measure(1000) else { return };
    let Some(many) = measure(10_000) else { return };
    assert!(many.wait(50) < 200, "{} ms", many.wait(50));
    let each = |outcome: &Outcome, hosts: u64| outcome.all() / hosts;
    assert!(
        each(&many, 10_000) <= each(&few, 1000) * 2,
        "{} requests for each of 10,000 hosts, {} of 1,000",
        each(&many, 10_000),
        each(&few, 1000)
    );
    // Linear: so much for a turn, however many hosts there are, and so much for each minute that a host waits.
    let (of_many, of_few) = (many.of_a_turn() as f64 / 10_000.0, few.of_a_turn() as f64 / 1000.0);
    assert!(of_many <= of_few * 1.25, "{of_many} requests for a turn of each of 10,000 hosts, {of_few} of 1,000");
    for outcome in [&few, &many] {
        let minutes = outcome.waited.as_secs_f64() / 60.0;
        assert!(outcome.of(&["LeaseKeepAlive"]) as f64 <= minutes, "more than one renewal a minute");
    }
}
