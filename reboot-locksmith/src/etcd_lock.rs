//! The lock in etcd, as [`crate::permission`] wants it: `reboot-lock`'s semaphore, its fair queue, its rule for giving back, its quarantine.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use reboot_lock::audit::Actor;
use reboot_lock::lock::RebootLock;
use reboot_lock::quarantine::Quarantine;
use reboot_lock::queue::{Holders, Progress};
use reboot_lock::release::{Decision, Host, Outcome, decide};
use reboot_lock::{Holder, LockError, Purpose};
use reboot_rules::inhibitors::clean;
use reboot_rules::settings::Strategy;
use reboot_rules::{Seconds, show_time, system_clock};

use crate::host::Identity;
use crate::journal::Claimed;
use crate::permission::{Claim, Earlier, Failure, HostState, Lock, Refusal, Report};
use crate::policy::LockFact;
use crate::watch::uptime;

/// How the audit trail calls us.
pub const BY: &str = "reboot-locksmith";

/// How often giving back is tried while etcd is away.
const AGAIN: Duration = Duration::from_secs(2);

/// The lock.
pub struct EtcdLock {
    lock: RebootLock,
    identity: Identity,
    /// What an earlier boot took.
    earlier: Option<Claimed>,
    /// The revision up to which we have looked, for [`Lock::changed`].
    seen: Mutex<i64>,
    /// Since when the first of the holders has had it that this host waits for.
    oldest: Mutex<Option<Seconds>>,
}

/// What is to become of a lock of an earlier boot.
enum Fate {
    /// It goes back.
    Release { why: String },
    /// It stays for now.
    Keep { why: String },
    /// The version it was taken for has failed: it stays until a person comes.
    Failed(Failure),
}

/// Who has the lock, and since when: one that does not come back shows by that.
fn held_by(holders: &Holders) -> String {
    let since = match (holders.since, holders.count) {
        (None, _) => return "free".to_owned(),
        (Some(since), 1) => format!("since {}", show_time(since)),
        (Some(since), _) => format!("the first of them since {}", show_time(since)),
    };
    format!("held by {}, {since}", clean(&holders.names))
}

impl EtcdLock {
    /// The lock for this host; `claimed`: what its journal knows of an earlier life.
    #[must_use]
    pub fn new(lock: RebootLock, identity: Identity, claimed: Option<&Claimed>) -> Self {
        let earlier = Claimed::earlier(claimed, &[Strategy::EtcdLock, Strategy::BestEffort], &identity.boot_id);
        Self { lock, identity, earlier, seen: Mutex::new(0), oldest: Mutex::new(None) }
    }

    fn note_oldest(&self, since: Option<Seconds>) {
        if let Ok(mut oldest) = self.oldest.lock() {
            *oldest = since;
        }
    }

    /// What is to become of a lock of an earlier boot. Where this host has quarantined the version that failed, and that is no more, a person has
    /// looked: clearing it is the word for the fleet to go on, which the lock must not be in the way of.
    async fn fate(&self, record: &Holder, host: &HostState) -> Result<Fate, LockError> {
        let (version, reason) = match decision(record, &self.identity, host, false) {
            Decision::Release { why } => return Ok(Fate::Release { why }),
            Decision::Keep { why } => return Ok(Fate::Keep { why }),
            Decision::FellBack { version, reason } => (version, reason),
        };
        let report = Report { version, boot_id: record.boot_id.clone() };
        if host.reported.as_ref() == Some(&report)
            && !self.lock.is_quarantined(&report.version).await?
            && let Decision::Release { why } = decision(record, &self.identity, host, true)
        {
            return Ok(Fate::Release { why });
        }
        Ok(Fate::Failed(Failure { report, reason }))
    }

    /// What to make of it that this host holds nothing. What was to go back went back, or will not be missed.
    async fn lost(&self, host: &HostState) -> Result<Earlier, LockError> {
        let Some(claimed) = &self.earlier else { return Ok(Earlier::Nothing) };
        let failed = match self.fate(&record_of(claimed, &self.identity), host).await? {
            Fate::Release { .. } => return Ok(Earlier::Nothing),
            Fate::Keep { .. } => None,
            Fate::Failed(failure) => Some(failure),
        };
        let group = self.lock.group();
        Ok(match (claimed.fence, failed) {
            (Some(fence), failed) => {
                let how = "it expired, or somebody gave it back";
                Earlier::Lost { why: format!("the lock of group {group} of the boot before (fence {fence}) is gone: {how}"), failed }
            }
            // The host went down while it waited, came up with the version that it waited for, and that failed.
            (None, Some(failed)) if host.failed.is_some() => {
                let version = &failed.report.version;
                let why = format!("version {version} failed on this host, which had not got the lock of group {group} for it");
                Earlier::Lost { why, failed: Some(failed) }
            }
            (None, _) => Earlier::Nothing,
        })
    }

    fn actor(&self, why: &str) -> Actor {
        Actor { host: self.identity.hostname.clone(), by: BY.to_owned(), why: why.to_owned() }
    }
}

/// What an error means to the policy.
pub fn refusal(error: &LockError) -> Refusal {
    match error {
        LockError::Store(error) if error.passes() => Refusal::Down(error.to_string()),
        LockError::Quarantined { .. } => {
            Refusal::Quarantined(format!("{error}; `locksmithctl quarantine clear` lifts that, as does a newer release"))
        }
        LockError::Contended { .. } => Refusal::Down(error.to_string()),
        error => Refusal::No(error.to_string()),
    }
}

fn purpose(claim: &Claim) -> Purpose {
    if claim.version.is_some() { Purpose::Update } else { Purpose::Reboot }
}

/// What an earlier boot took, as a record of the lock.
pub fn record_of(claimed: &Claimed, identity: &Identity) -> Holder {
    Holder {
        id: identity.machine_id.clone(),
        hostname: identity.hostname.clone(),
        boot_id: claimed.boot_id.clone(),
        purpose: purpose(&claimed.claim),
        reason: claimed.claim.reason.clone(),
        version: claimed.claim.version.clone(),
        since: 0,
        fence: claimed.fence.unwrap_or(0),
        expires: false,
    }
}

/// The rule about a lock of an earlier boot, asked about this host; `cleared`: whether a person has cleared what failed.
pub fn decision(record: &Holder, identity: &Identity, host: &HostState, cleared: bool) -> Decision {
    let failed = host.failed.as_ref().filter(|(version, _)| record.version.as_ref() == Some(version));
    let outcome = match (cleared, failed) {
        (true, _) => Outcome::Cleared,
        (false, Some((_, reason))) => Outcome::Failed(reason.clone()),
        (false, None) => Outcome::Pending,
    };
    decide(record, &Host { boot_id: &identity.boot_id, running: &identity.version, healthy: host.healthy, outcome })
}

#[async_trait]
impl Lock for EtcdLock {
    async fn acquire(&self, claim: &Claim, news: &(dyn Fn(LockFact) + Send + Sync)) -> Result<Option<u64>, Refusal> {
        let wanted = reboot_lock::Claim {
            id: self.identity.machine_id.clone(),
            hostname: self.identity.hostname.clone(),
            boot_id: self.identity.boot_id.clone(),
            purpose: purpose(claim),
            reason: claim.reason.clone(),
            version: claim.version.clone(),
        };
        if let Ok(status) = self.lock.status().await
            && let Ok(mut seen) = self.seen.lock()
        {
            *seen = status.revision;
        }
        let progress = |progress: Progress| {
            if let Progress::Queued { holders: Some(holders) } | Progress::First { holders } = &progress {
                self.note_oldest(holders.since);
            }
            news(match progress {
                Progress::Queued { holders: None } => LockFact::Waiting("other hosts wait before this one".to_owned()),
                Progress::Queued { holders: Some(holders) } => {
                    LockFact::Waiting(format!("it is {}, and other hosts wait before this one", held_by(&holders)))
                }
                Progress::First { holders } => LockFact::Waiting(format!("it is {}, and this host is next", held_by(&holders))),
                Progress::Trouble(error) => LockFact::Down { since: uptime(), why: error.to_string() },
            });
        };
        let actor = self.actor(&claim.reason);
        let quarantined = async {
            match &claim.version {
                Some(version) => self.lock.until_quarantined(version).await,
                None => std::future::pending().await,
            }
        };
        // Who waits behind others would hear of a quarantine only when its turn comes, and could not say why it waits.
        tokio::select! {
            held = self.lock.acquire(&wanted, &actor, &progress) => held.map(|held| Some(held.holder.fence)).map_err(|error| refusal(&error)),
            error = quarantined => {
                // The lock may just have been got.
                while self.give_back(&error.to_string()).await.is_err() {
                    tokio::time::sleep(AGAIN).await;
                }
                Err(refusal(&error))
            }
        }
    }

    fn lasts(&self) -> Option<Duration> {
        self.lock.expire_after()
    }

    fn oldest_holder(&self) -> Option<Seconds> {
        self.oldest.lock().ok().and_then(|oldest| *oldest)
    }

    async fn confirm(&self, claim: &Claim, fence: Option<u64>) -> Result<(), Refusal> {
        let Some(fence) = fence else { return Err(Refusal::No("the lock has no fence".to_owned())) };
        let verified = self.lock.verify(&self.identity.machine_id, fence, claim.version.as_deref()).await;
        verified.map(drop).map_err(|error| refusal(&error))
    }

    async fn settle(&self, host: &HostState) -> Result<Earlier, Refusal> {
        let held = self.lock.settle(&self.identity.machine_id).await.map_err(|error| refusal(&error))?;
        let Some(record) = held else { return self.lost(host).await.map_err(|error| refusal(&error)) };
        if record.boot_id == self.identity.boot_id && matches!(record.purpose, Purpose::Update | Purpose::Reboot) {
            let why = "the reboot daemon began again before the reboot".to_owned();
            return Ok(Earlier::Release { why });
        }
        Ok(match self.fate(&record, host).await.map_err(|error| refusal(&error))? {
            Fate::Release { why } => Earlier::Release { why },
            Fate::Keep { why } => Earlier::Keep { why, failed: None },
            Fate::Failed(failure) => {
                let (version, reason) = (&failure.report.version, &failure.reason);
                let ends = format!("`locksmithctl quarantine clear {version}` lets all go on, `locksmithctl unlock` frees the lock alone");
                Earlier::Keep { why: format!("version {version} failed on this host ({reason}): {ends}"), failed: Some(failure) }
            }
        })
    }

    async fn give_back(&self, why: &str) -> Result<(), Refusal> {
        let held = self.lock.settle(&self.identity.machine_id).await.map_err(|error| refusal(&error))?;
        // What a person or a FleetLock client took goes back by their hands.
        let Some(record) = held.filter(|record| matches!(record.purpose, Purpose::Update | Purpose::Reboot)) else { return Ok(()) };
        match self.lock.unlock(&self.identity.machine_id, Some(record.fence), &self.actor(why)).await {
            Ok(_) | Err(LockError::Lost { .. }) => Ok(()),
            Err(error) => Err(refusal(&error)),
        }
    }

    async fn quarantine(&self, version: &str, reason: &str) -> Result<(), Refusal> {
        let Identity { machine_id, hostname, .. } = &self.identity;
        let record = Quarantine::new(version, machine_id, hostname, self.lock.group().as_str(), reason, system_clock());
        self.lock.quarantine(&record, &self.actor(reason)).await.map_err(|error| refusal(&error))
    }

    async fn released(&self, failed: Option<&Failure>) {
        let cleared = async {
            match failed {
                Some(failed) => self.lock.until_cleared(&failed.report.version).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.lock.until_released(&self.identity.machine_id) => {}
            () = cleared => {}
        }
    }

    async fn changed(&self) {
        let seen = self.seen.lock().map_or(0, |seen| *seen);
        match self.lock.watch_quarantines(seen).await {
            Ok(mut watch) => drop(watch.next().await),
            // The pause of who waits decides.
            Err(_) => tokio::time::sleep(Duration::from_secs(3600)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reboot_lock::Group;
    use reboot_lock::lock::Options;
    use reboot_lock::store::Memory;
    use std::sync::Arc;

    fn host(store: &Arc<Memory>, id: &str, boot: &str, version: &str) -> EtcdLock {
        let lock = RebootLock::new(Arc::<Memory>::clone(store), Group::default(), Options::default());
        let identity = Identity { machine_id: id.into(), boot_id: boot.into(), hostname: format!("host-{id}"), version: version.into() };
        EtcdLock::new(lock, identity, None)
    }

    /// A host that got the lock and went down, and what its journal knows of that.
    async fn went_down(store: &Arc<Memory>) -> (EtcdLock, Claimed) {
        let before = host(store, "a", "one", "1.0");
        let fence = before.acquire(&claim(), &|_| {}).await.unwrap();
        (before, Claimed { claim: claim(), boot_id: "one".into(), strategy: "etcd-lock".into(), fence })
    }

    /// The same host, up again.
    fn back(store: &Arc<Memory>, claimed: &Claimed, boot: &str, version: &str) -> EtcdLock {
        let EtcdLock { lock, identity, .. } = host(store, "a", boot, version);
        EtcdLock::new(lock, identity, Some(claimed))
    }

    fn claim() -> Claim {
        Claim { version: Some("1.1".into()), reason: "an update".into() }
    }

    #[tokio::test]
    async fn a_host_that_came_back_healthy_gives_the_lock_back_and_one_that_fell_back_keeps_it() {
        let store = Arc::new(Memory::default());
        let before = host(&store, "a", "one", "1.0");
        let fence = before.acquire(&claim(), &|_| {}).await.unwrap();
        assert_eq!(before.confirm(&claim(), fence).await, Ok(()));
        let starting = HostState::default();
        let healthy = HostState { healthy: true, ..HostState::default() };
        let new = host(&store, "a", "two", "1.1");
        assert!(matches!(new.settle(&starting).await, Ok(Earlier::Keep { failed: None, .. })));
        assert!(matches!(new.settle(&healthy).await, Ok(Earlier::Release { .. })));
        // It fell back instead: whatever its health, it keeps the lock and names the version.
        let old = host(&store, "a", "two", "1.0");
        for state in [&healthy, &HostState { healthy: true, failed: Some(("1.1".into(), "docker is failed".into())), reported: None }] {
            let Ok(Earlier::Keep { failed: Some(Failure { report, reason }), .. }) = old.settle(state).await else { panic!() };
            assert_eq!((report.version.as_str(), report.boot_id.as_str()), ("1.1", "one"));
            old.quarantine(&report.version, &reason).await.unwrap();
        }
        let other = host(&store, "b", "x", "1.0");
        assert!(matches!(other.acquire(&claim(), &|_| {}).await, Err(Refusal::Quarantined(_))));
        // Another version waits for the lock, which the first host still has.
        let next = Claim { version: Some("1.2".into()), ..claim() };
        let waiting = tokio::time::timeout(Duration::from_millis(200), other.acquire(&next, &|_| {})).await;
        assert!(waiting.is_err());
        other.give_back("enough").await.unwrap();
        // The host itself reuses it for the newer one.
        assert!(old.acquire(&next, &|_| {}).await.is_ok());
    }

    #[tokio::test]
    async fn a_lock_that_is_kept_and_given_back_by_somebody_is_no_longer_said_to_be_kept() {
        let store = Arc::new(Memory::default());
        let (before, claimed) = went_down(&store).await;
        let back = Arc::new(back(&store, &claimed, "two", "1.0"));
        let permission = crate::permission::Permission::start(Some(back), None, HostState { healthy: true, ..HostState::default() });
        let mut news = permission.subscribe();
        news.wait_for(|news| news.kept.is_some()).await.unwrap();
        before.lock.unlock("a", None, &before.actor("looked at")).await.unwrap();
        let gone = tokio::time::timeout(Duration::from_secs(20), news.wait_for(|news| news.kept.is_none())).await;
        let news = gone.expect("it hears of it").unwrap().clone();
        assert!(news.lost.as_deref().is_some_and(|why| why.contains("somebody gave it back")), "{news:?}");
    }

    #[tokio::test]
    async fn who_waits_behind_others_hears_of_a_quarantine() {
        let store = Arc::new(Memory::default());
        let (first, second) = (host(&store, "a", "one", "1.0"), Arc::new(host(&store, "b", "x", "1.0")));
        first.acquire(&claim(), &|_| {}).await.unwrap();
        let waits = Arc::clone(&second);
        let waiting = tokio::spawn(async move { waits.acquire(&claim(), &|_| {}).await });
        while second.lock.waiting().await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
        first.quarantine("1.1", "docker is failed").await.unwrap();
        let refused = waiting.await.unwrap();
        assert!(matches!(&refused, Err(Refusal::Quarantined(why)) if why.contains("docker is failed")), "{refused:?}");
        assert_eq!(second.lock.waiting().await.unwrap(), 0, "its place is gone");
    }

    #[tokio::test]
    async fn everybody_who_waits_knows_who_has_the_lock_and_since_when() {
        let store = Arc::new(Memory::default());
        let options = Options { clock: Arc::new(|| 1_795_368_600), ..Options::default() };
        let at_half_past = RebootLock::new(Arc::<Memory>::clone(&store), Group::default(), options);
        let gone = EtcdLock::new(at_half_past, host(&store, "gone", "one", "1.0").identity, None);
        gone.acquire(&claim(), &|_| {}).await.unwrap();
        let mut waiting = Vec::new();
        for (number, position) in ["this host is next", "other hosts wait before this one"].into_iter().enumerate() {
            let lock = Arc::new(host(&store, &format!("w{number}"), "one", "1.0"));
            let permission = crate::permission::Permission::start(Some(lock), None, HostState::default());
            permission.want(crate::permission::Target::Want(claim()));
            let waits = |news: &crate::permission::News| matches!(&news.lock, LockFact::Waiting(why) if why.contains(position));
            let mut news = permission.subscribe();
            let news = tokio::time::timeout(Duration::from_secs(20), news.wait_for(waits)).await.unwrap().unwrap().clone();
            let LockFact::Waiting(why) = news.lock else { panic!() };
            assert_eq!(why, format!("it is held by host-gone, since 2026-11-22 17:30 UTC, and {position}"));
            assert_eq!(permission.oldest_holder(), Some(1_795_368_600));
            waiting.push(permission);
        }
        let last = waiting.pop().unwrap();
        last.want(crate::permission::Target::GiveBack("x".into()));
        assert_eq!(last.oldest_holder(), None, "it waits for nobody");
    }

    #[tokio::test]
    async fn a_host_that_comes_back_notices_that_its_lock_is_gone() {
        let store = Arc::new(Memory::default());
        let (before, claimed) = went_down(&store).await;
        let (healthy, starting) = (HostState { healthy: true, ..HostState::default() }, HostState::default());
        let back = |boot: &str, version: &str| back(&store, &claimed, boot, version);
        assert!(matches!(back("two", "1.1").settle(&starting).await, Ok(Earlier::Keep { .. })));
        before.lock.unlock("a", None, &before.actor("by hand")).await.unwrap();
        assert_eq!(back("one", "1.0").settle(&starting).await, Ok(Earlier::Nothing), "no reboot has come of it");
        let Ok(Earlier::Lost { why, failed: None }) = back("two", "1.1").settle(&starting).await else { panic!() };
        assert!(why.contains("(fence 1) is gone"), "{why}");
        assert_eq!(back("two", "1.1").settle(&healthy).await, Ok(Earlier::Nothing), "it would have gone back");
        // What failed is said all the same.
        let Ok(Earlier::Lost { failed: Some(failure), .. }) = back("two", "1.0").settle(&healthy).await else { panic!() };
        assert_eq!(failure.report.version, "1.1");
        let not_got = Claimed { fence: None, ..claimed.clone() };
        assert_eq!(super::tests::back(&store, &not_got, "two", "1.0").settle(&healthy).await, Ok(Earlier::Nothing));
    }

    #[tokio::test]
    async fn a_daemon_that_begins_again_gives_back_what_it_forgot() {
        let store = Arc::new(Memory::default());
        let lock = host(&store, "a", "one", "1.0");
        lock.acquire(&claim(), &|_| {}).await.unwrap();
        let again = host(&store, "a", "one", "1.0");
        assert!(matches!(again.settle(&HostState::default()).await, Ok(Earlier::Release { .. })));
        again.give_back("begun again").await.unwrap();
        assert_eq!(again.settle(&HostState::default()).await, Ok(Earlier::Nothing));
        store.set_down(true);
        assert!(matches!(again.give_back("x").await, Err(Refusal::Down(_))));
    }
}
