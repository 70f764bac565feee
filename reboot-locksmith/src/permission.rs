//! The permission of others: the lock and the quorum's reservation, as one task that brings what is held in line with what is wanted.
//!
//! The daemon says what it wants ([`Target`]) and reads how it stands ([`News`]); outages, queues and retries stay in here. Whatever is
//! interrupted is put in order by the next target, since every act may be repeated.

mod worker;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reboot_rules::Seconds;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use worker::Worker;

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
    /// The failed try that this host has reported.
    pub reported: Option<Report>,
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
            reported: None,
            settled: false,
            free: false,
        }
    }
}

/// That this host has quarantined a version, and after which try of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The version.
    pub version: String,
    /// The boot that took the lock for it. Another try that fails is reported again.
    pub boot_id: String,
}

/// A version that failed here after this host had asked for the lock for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What is to be reported.
    pub report: Report,
    /// How it failed.
    pub reason: String,
}

/// What the rule about the lock of an earlier life looks at; it changes while the daemon runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostState {
    /// Whether this boot is healthy.
    pub healthy: bool,
    /// What failed on this host, and how, by version.
    pub failed: Option<(String, String)>,
    /// What the journal knows to be reported. Where a quarantine that this host reported is gone, a person has cleared it.
    pub reported: Option<Report>,
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
        failed: Option<Failure>,
    },
    /// A lock that is gone: it expired, or somebody gave it back.
    Lost {
        /// How that is seen.
        why: String,
        /// The version it was taken for has failed.
        failed: Option<Failure>,
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
    /// Comes back when somebody else has given back the lock that is kept, or lifted the quarantine of the version that failed; never where that cannot
    /// be known.
    async fn released(&self, _failed: Option<&Failure>) {
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
    /// Begins by settling what an earlier life left.
    #[must_use]
    pub fn start(lock: Option<Arc<dyn Lock>>, guard: Option<Arc<dyn Guard>>, host: HostState) -> Self {
        let (target, target_end) = watch::channel(Target::Settle);
        let (news_end, news) = watch::channel(News { reported: host.reported.clone(), ..News::default() });
        let (host, host_end) = watch::channel(host);
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
        worker::give_back(&self.lock, &self.guard, why, &news).await;
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

#[cfg(test)]
#[path = "permission_tests.rs"]
mod tests;
