//! The task behind a [`Permission`](super::Permission): it brings what is held in line with what is wanted, as long as that takes.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::{Claim, Earlier, Failure, Guard, HostState, Lock, News, Refusal, Target};
use crate::policy::{LockFact, QuorumFact};
use crate::watch::uptime;

pub(super) struct Worker {
    pub(super) lock: Option<Arc<dyn Lock>>,
    pub(super) guard: Option<Arc<dyn Guard>>,
    pub(super) target: watch::Receiver<Target>,
    pub(super) host: watch::Receiver<HostState>,
    pub(super) news: watch::Sender<News>,
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
    pub(super) async fn run(mut self) {
        loop {
            let target = self.target.borrow_and_update().clone();
            let work = async {
                match &target {
                    Target::Settle => {
                        let reservation = settle_reservation(&self.guard, self.host.clone());
                        tokio::join!(settle(&self.lock, self.host.clone(), &self.news), reservation);
                    }
                    Target::Want(claim) => want(&self.lock, &self.guard, claim, &self.news).await,
                    Target::GiveBack(why) => {
                        give_back(&self.lock, &self.guard, why, &self.news).await;
                        if self.news.borrow().kept.is_some() {
                            // That a reboot is no longer wanted changes nothing about what is kept: it goes back when its time has come.
                            settle(&self.lock, self.host.clone(), &self.news).await;
                        }
                    }
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
            Ok(Earlier::Release { why }) => lock.give_back(&why).await.map(|()| None),
            Ok(Earlier::Keep { why, failed }) => {
                let result = quarantine(lock.as_ref(), failed.as_ref(), news).await;
                news.send_modify(|news| (news.kept, news.settled) = (Some(why), true));
                result.map(|()| Some(failed))
            }
            // The version has failed all the same, and nobody else will say so.
            Ok(Earlier::Lost { why, failed }) => {
                let result = quarantine(lock.as_ref(), failed.as_ref(), news).await;
                news.send_modify(|news| (news.kept, news.lost, news.settled) = (None, Some(why), true));
                result.map(|()| Some(failed))
            }
            Err(refusal) => Err(refusal),
        };
        match result {
            // Once more, to see that it is gone.
            Ok(None) => {}
            Ok(Some(failed)) => {
                // What follows from a quarantine that was lifted is decided by what the journal knows: it has to know of the report first.
                let noted = state.reported == news.borrow().reported;
                tokio::select! {
                    changed = host.changed() => if changed.is_err() { return },
                    () = lock.released(failed.as_ref().filter(|_| noted)) => {}
                }
            }
            Err(Refusal::Down(why) | Refusal::No(why) | Refusal::Quarantined(why)) => {
                set_lock(news, LockFact::Down { since: uptime(), why });
                pauses.wait().await;
            }
        }
    }
}

/// Says that a version has failed here, once for each try: an operator may have cleared it since.
async fn quarantine(lock: &dyn Lock, failed: Option<&Failure>, news: &watch::Sender<News>) -> Result<(), Refusal> {
    let reported = news.borrow().reported.clone();
    let Some(Failure { report, reason }) = failed.filter(|failed| reported.as_ref() != Some(&failed.report)) else { return Ok(()) };
    lock.quarantine(&report.version, reason).await?;
    news.send_modify(|news| news.reported = Some(report.clone()));
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

pub(super) async fn give_back(lock: &Option<Arc<dyn Lock>>, guard: &Option<Arc<dyn Guard>>, why: &str, news: &watch::Sender<News>) {
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
