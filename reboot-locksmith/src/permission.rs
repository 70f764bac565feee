//! The permission of others: the lock and the quorum's reservation, as one task that brings what is held in line with what is wanted.
//!
//! The daemon says what it wants ([`Target`]) and reads how it stands ([`News`]); outages, queues and retries stay in here. Whatever is
//! interrupted is put in order by the next target, since every act may be repeated.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use reboot_rules::Seconds;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use crate::policy::{LockFact, QuorumFact};
use crate::watch::uptime;

/// What a lock is wanted for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claim {
    /// The version that the next boot starts, where it is another one.
    pub version: Option<String>,
    /// Why.
    pub reason: String,
}

/// What the daemon wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Find out what an earlier life of this host holds, and give it back if its time has come.
    Settle,
    /// The lock and the reservation.
    Want(Claim),
    /// Nothing; what is held goes back, with this reason.
    GiveBack(String),
}

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The lock.
    pub lock: LockFact,
    /// The reservation.
    pub quorum: QuorumFact,
    /// The lock's fence.
    pub fence: Option<u64>,
    /// From when on, by [`uptime`], the lock's time may have passed; none where it has all the time.
    pub lapses: Option<Seconds>,
    /// Why the lock of an earlier life is kept.
    pub kept: Option<String>,
    /// How the lock of an earlier life was lost.
    pub lost: Option<String>,
    /// The version that this host has quarantined.
    pub quarantined: Option<String>,
    /// Whether the target is reached.
    pub settled: bool,
    /// Whether it is certain that nothing is held.
    pub free: bool,
}

impl Default for News {
    fn default() -> Self {
        Self {
            lock: LockFact::Unknown,
            quorum: QuorumFact::Unknown,
            fence: None,
            lapses: None,
            kept: None,
            lost: None,
            quarantined: None,
            settled: false,
            free: false,
        }
    }
}

/// What the rule about the lock of an earlier life looks at; it changes while the daemon runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostState {
    /// Whether this boot is healthy.
    pub healthy: bool,
    /// What failed on this host, and how, by version.
    pub failed: Option<(String, String)>,
}

/// What an earlier life of this host holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// Nothing.
    Nothing,
    /// A lock that goes back now.
    Release {
        /// Why.
        why: String,
    },
    /// A lock that stays.
    Keep {
        /// Why.
        why: String,
        /// The version it was taken for has failed.
        failed: Option<(String, String)>,
    },
    /// A lock that is gone: it expired, or somebody gave it back.
    Lost {
        /// How that is seen.
        why: String,
        /// The version it was taken for has failed.
        failed: Option<(String, String)>,
    },
}

/// Why an act was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The other side cannot be reached; it is tried again.
    Down(String),
    /// The version is quarantined.
    Quarantined(String),
    /// The answer was no.
    No(String),
}

/// A lock that hosts share.
#[async_trait]
pub trait Lock: Send + Sync {
    /// Waits for the lock, as long as it takes; its fence. `news` hears what it waits for. May be dropped at any time.
    async fn acquire(&self, claim: &Claim, news: &(dyn Fn(LockFact) + Send + Sync)) -> Result<Option<u64>, Refusal>;
    /// How long a lock is held at least once it is asked for, where its time runs out.
    fn lasts(&self) -> Option<Duration> {
        None
    }
    /// Since when the first of the hosts has had it that were last seen to have it.
    fn oldest_holder(&self) -> Option<Seconds> {
        None
    }
    /// Whether it is still held, and good for this version.
    async fn confirm(&self, claim: &Claim, fence: Option<u64>) -> Result<(), Refusal>;
    /// Ends what is under way, and says what is held and what is to become of it.
    async fn settle(&self, host: &HostState) -> Result<Earlier, Refusal>;
    /// Ends what is under way, and gives back what this boot holds.
    async fn give_back(&self, why: &str) -> Result<(), Refusal>;
    /// Says that a version has failed here.
    async fn quarantine(&self, version: &str, reason: &str) -> Result<(), Refusal>;
    /// Comes back when a refusal may have ended.
    async fn changed(&self);
    /// Comes back when somebody else has given back the lock that is kept; never where that cannot be known.
    async fn released(&self) {
        std::future::pending().await
    }
}

/// The quorum of the etcd cluster that this host is a member of.
#[async_trait]
pub trait Guard: Send + Sync {
    /// Reserves going down for this host, if the rest keeps quorum, and moves leadership away.
    async fn reserve(&self) -> QuorumFact;
    /// Looks again, right before the reboot.
    async fn confirm(&self) -> QuorumFact;
    /// Gives the reservation back.
    async fn give_back(&self) -> Result<(), Refusal>;
}

/// The daemon's end.
pub struct Permission {
    target: watch::Sender<Target>,
    host: watch::Sender<HostState>,
    news: watch::Receiver<News>,
    lock: Option<Arc<dyn Lock>>,
    guard: Option<Arc<dyn Guard>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Permission {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Says something, and wakes the other end only if it is new.
fn tell<T: PartialEq>(to: &watch::Sender<T>, value: T) {
    to.send_if_modified(|now| {
        let changed = *now != value;
        *now = value;
        changed
    });
}

impl Permission {
    /// Begins by settling what an earlier life left. `quarantined`: the version that this host has quarantined already.
    #[must_use]
    pub fn start(lock: Option<Arc<dyn Lock>>, guard: Option<Arc<dyn Guard>>, host: HostState, quarantined: Option<String>) -> Self {
        let (target, target_end) = watch::channel(Target::Settle);
        let (host, host_end) = watch::channel(host);
        let (news_end, news) = watch::channel(News { quarantined, ..News::default() });
        let worker = Worker { lock: lock.clone(), guard: guard.clone(), target: target_end, host: host_end, news: news_end };
        Self { target, host, news, lock, guard, task: tokio::spawn(worker.run()) }
    }

    /// Wants something; saying it twice changes nothing.
    pub fn want(&self, target: Target) {
        tell(&self.target, target);
    }

    /// Says how the host stands.
    pub fn host(&self, state: HostState) {
        tell(&self.host, state);
    }

    /// How it stands.
    #[must_use]
    pub fn news(&self) -> News {
        let news = self.news.borrow().clone();
        // What was true for another target is not known for this one.
        match &*self.target.borrow() {
            Target::Want(_) => news,
            _ => News { lock: LockFact::Unknown, quorum: self.unasked(), ..news },
        }
    }

    /// While it waits for others: since when the first of them has had the lock, by its own clock.
    #[must_use]
    pub fn oldest_holder(&self) -> Option<Seconds> {
        let lock = self.lock.as_ref().filter(|_| matches!(self.news().lock, LockFact::Waiting(_)))?;
        lock.oldest_holder()
    }

    /// Ends all that goes on, and gives back what is held, as long as that takes.
    pub async fn leave(&mut self, why: &str) {
        self.task.abort();
        let _ = (&mut self.task).await;
        let news = watch::Sender::new(self.news());
        give_back(&self.lock, &self.guard, why, &news).await;
    }

    fn unasked(&self) -> QuorumFact {
        if self.guard.is_some() { QuorumFact::Unknown } else { QuorumFact::NotMember }
    }

    /// A receiver that changes with the news.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<News> {
        self.news.clone()
    }

    /// Asks others once more, right before the reboot. What cannot be asked stays as it was, but a lock whose time may have passed: another host may
    /// have it by now.
    pub async fn confirm(&self) -> News {
        let mut news = self.news();
        let Target::Want(claim) = self.target.borrow().clone() else { return news };
        if let (Some(lock), LockFact::Held) = (&self.lock, &news.lock) {
            match lock.confirm(&claim, news.fence).await {
                Err(Refusal::Down(why)) if news.lapses.is_some_and(|at| uptime() >= at) => {
                    news.lock = LockFact::Down { since: uptime(), why: format!("{why}; the lock's time may have passed meanwhile") };
                }
                Ok(()) | Err(Refusal::Down(_)) => {}
                Err(Refusal::Quarantined(why)) => news.lock = LockFact::Quarantined(why),
                Err(Refusal::No(why)) => news.lock = LockFact::Refused(why),
            }
        }
        if let (Some(guard), QuorumFact::Reserved(_)) = (&self.guard, &news.quorum) {
            news.quorum = guard.confirm().await;
        }
        news
    }
}

struct Worker {
    lock: Option<Arc<dyn Lock>>,
    guard: Option<Arc<dyn Guard>>,
    target: watch::Receiver<Target>,
    host: watch::Receiver<HostState>,
    news: watch::Sender<News>,
}

/// Pauses between attempts: doubling, to half an hour.
struct Pauses(u64);

impl Pauses {
    async fn wait(&mut self) {
        // Spread by a quarter, by a number that needs no source of randomness.
        let spread = u64::from(std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_millis())) % 250;
        tokio::time::sleep(Duration::from_millis(self.0 * (1000 + spread))).await;
        self.0 = (self.0 * 2).min(1800);
    }
}

impl Worker {
    async fn run(mut self) {
        loop {
            let target = self.target.borrow_and_update().clone();
            let work = async {
                match &target {
                    Target::Settle => {
                        let reservation = settle_reservation(&self.guard, self.host.clone());
                        tokio::join!(settle(&self.lock, self.host.clone(), &self.news), reservation);
                    }
                    Target::Want(claim) => want(&self.lock, &self.guard, claim, &self.news).await,
                    Target::GiveBack(why) => give_back(&self.lock, &self.guard, why, &self.news).await,
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = work => {}
                changed = self.target.changed() => if changed.is_err() { return },
            }
        }
    }
}

async fn settle(lock: &Option<Arc<dyn Lock>>, mut host: watch::Receiver<HostState>, news: &watch::Sender<News>) {
    let Some(lock) = lock else { return news.send_modify(|news| (news.settled, news.free) = (true, true)) };
    let mut pauses = Pauses(1);
    loop {
        let state = host.borrow_and_update().clone();
        let settled = lock.settle(&state).await;
        if settled.is_ok() {
            // It answers: an outage until now is over, and must not count as one that goes on when the lock is wanted.
            set_lock(news, LockFact::Unknown);
        }
        let result = match settled {
            Ok(Earlier::Nothing) => {
                news.send_modify(|news| (news.kept, news.settled, news.free) = (None, true, true));
                return;
            }
            Ok(Earlier::Release { why }) => lock.give_back(&why).await.map(|()| true),
            Ok(Earlier::Keep { why, failed }) => {
                let result = quarantine(lock.as_ref(), failed, news).await;
                news.send_modify(|news| (news.kept, news.settled) = (Some(why), true));
                result.map(|()| false)
            }
            // The version has failed all the same, and nobody else will say so.
            Ok(Earlier::Lost { why, failed }) => {
                let result = quarantine(lock.as_ref(), failed, news).await;
                news.send_modify(|news| (news.kept, news.lost, news.settled) = (None, Some(why), true));
                result.map(|()| false)
            }
            Err(refusal) => Err(refusal),
        };
        match result {
            // Once more, to see that it is gone.
            Ok(true) => {}
            Ok(false) => {
                tokio::select! {
                    changed = host.changed() => if changed.is_err() { return },
                    () = lock.released() => {}
                }
            }
            Err(Refusal::Down(why) | Refusal::No(why) | Refusal::Quarantined(why)) => {
                set_lock(news, LockFact::Down { since: uptime(), why });
                pauses.wait().await;
            }
        }
    }
}

/// Says that a version has failed here, once: an operator may have cleared it since.
async fn quarantine(lock: &dyn Lock, failed: Option<(String, String)>, news: &watch::Sender<News>) -> Result<(), Refusal> {
    let again = news.borrow().quarantined.clone();
    let Some((version, reason)) = failed.filter(|(version, _)| again.as_ref() != Some(version)) else { return Ok(()) };
    lock.quarantine(&version, &reason).await?;
    news.send_modify(|news| news.quarantined = Some(version));
    Ok(())
}

/// The reservation of an earlier life goes back when the host is healthy, its etcd member with it.
async fn settle_reservation(guard: &Option<Arc<dyn Guard>>, mut host: watch::Receiver<HostState>) {
    let Some(guard) = guard else { return };
    let mut pauses = Pauses(1);
    while !host.borrow_and_update().healthy {
        if host.changed().await.is_err() {
            return;
        }
    }
    while guard.give_back().await.is_err() {
        pauses.wait().await;
    }
}

fn set_lock(news: &watch::Sender<News>, fact: LockFact) {
    news.send_if_modified(|news| {
        // An outage is one from its beginning on, whatever is said about it.
        let fact = match (&news.lock, fact) {
            (LockFact::Down { since, .. }, LockFact::Down { why, .. }) => LockFact::Down { since: *since, why },
            (_, fact) => fact,
        };
        let changed = news.lock != fact;
        news.lock = fact;
        changed
    });
}

fn set_quorum(news: &watch::Sender<News>, fact: QuorumFact) {
    news.send_if_modified(|news| {
        let fact = match (&news.quorum, fact) {
            (QuorumFact::Down { since, .. }, QuorumFact::Down { why, .. }) => QuorumFact::Down { since: *since, why },
            (_, fact) => fact,
        };
        let changed = news.quorum != fact;
        news.quorum = fact;
        changed
    });
}

async fn want(lock: &Option<Arc<dyn Lock>>, guard: &Option<Arc<dyn Guard>>, claim: &Claim, news: &watch::Sender<News>) {
    news.send_modify(|news| (news.settled, news.free, news.lost) = (false, false, None));
    if guard.is_none() {
        set_quorum(news, QuorumFact::NotMember);
    }
    if let Some(lock) = lock {
        let heard = Notify::new();
        tokio::select! {
            () = acquire(lock.as_ref(), claim, news, &heard) => {}
            never = without_lock(guard.as_deref(), news, &heard) => match never {},
        }
    }
    if let Some(guard) = guard {
        let mut pauses = Pauses(5);
        loop {
            let fact = guard.reserve().await;
            let reserved = matches!(fact, QuorumFact::Reserved(_) | QuorumFact::NotMember);
            set_quorum(news, fact);
            if reserved {
                break;
            }
            pauses.0 = pauses.0.min(60);
            pauses.wait().await;
        }
    }
    news.send_modify(|news| news.settled = true);
}

/// Gets the lock, as long as it takes; `heard` is told each time that something is known about it.
async fn acquire(lock: &dyn Lock, claim: &Claim, news: &watch::Sender<News>, heard: &Notify) {
    // The lock's time runs from a moment before it is got: it was certainly not got before this host last heard that it has to wait.
    let asked = AtomicU64::new(uptime());
    let hear = |fact| {
        asked.store(uptime(), Ordering::Relaxed);
        set_lock(news, fact);
        heard.notify_one();
    };
    let mut pauses = Pauses(2);
    loop {
        asked.store(uptime(), Ordering::Relaxed);
        match lock.acquire(claim, &hear).await {
            Ok(fence) => {
                let lapses = lock.lasts().map(|lasts| asked.load(Ordering::Relaxed).saturating_add(lasts.as_secs()));
                news.send_modify(|news| (news.lock, news.fence, news.lapses, news.kept) = (LockFact::Held, fence, lapses, None));
                return;
            }
            Err(Refusal::Down(why)) => hear(LockFact::Down { since: uptime(), why }),
            Err(Refusal::Quarantined(why)) => hear(LockFact::Quarantined(why)),
            Err(Refusal::No(why)) => hear(LockFact::Refused(why)),
        }
        tokio::select! {
            () = pauses.wait() => {}
            () = lock.changed() => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

/// The reservation comes after the lock: who has it waits for nobody. Only while the lock cannot be asked for is it asked for alone, since settings
/// may say to go on without the lock, and then quorum counts all the more; and it goes back as soon as the lock's turn is waited for.
async fn without_lock(guard: Option<&dyn Guard>, news: &watch::Sender<News>, heard: &Notify) -> Infallible {
    let Some(guard) = guard else { return std::future::pending().await };
    let mut asked = false;
    loop {
        heard.notified().await;
        let down = matches!(news.borrow().lock, LockFact::Down { .. });
        let reserved = matches!(news.borrow().quorum, QuorumFact::Reserved(_));
        if down && !reserved {
            asked = true;
            set_quorum(news, guard.reserve().await);
        } else if !down && asked {
            asked = guard.give_back().await.is_err();
            set_quorum(news, QuorumFact::Unknown);
        }
    }
}

async fn give_back(lock: &Option<Arc<dyn Lock>>, guard: &Option<Arc<dyn Guard>>, why: &str, news: &watch::Sender<News>) {
    news.send_modify(|news| (news.lock, news.quorum, news.settled) = (LockFact::Unknown, QuorumFact::Unknown, false));
    let mut pauses = Pauses(1);
    loop {
        let kept = news.borrow().kept.is_some();
        let lock_back = match lock {
            // What an earlier life took for a version that failed stays taken.
            Some(lock) if !kept => lock.give_back(why).await,
            _ => Ok(()),
        };
        let reservation_back = match guard {
            Some(guard) => guard.give_back().await,
            None => Ok(()),
        };
        match lock_back.and(reservation_back) {
            Ok(()) => {
                news.send_modify(|news| (news.fence, news.settled, news.free) = (None, true, !kept));
                return;
            }
            Err(refusal) => {
                eprintln!("reboot-locksmith: cannot give back yet: {refusal:?}");
                pauses.wait().await;
            }
        }
    }
}

#[cfg(test)]
#[path = "permission_tests.rs"]
mod tests;
