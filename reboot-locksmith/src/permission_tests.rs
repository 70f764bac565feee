use std::sync::Mutex;

use super::*;

/// A lock and a guard whose answers the test decides; they note what is asked.
#[derive(Default)]
struct Others {
    asked: Mutex<Vec<String>>,
    held: Mutex<bool>,
    down: Mutex<bool>,
    earlier: Mutex<Option<Earlier>>,
    lasts: Option<Duration>,
    free: tokio::sync::Notify,
    /// A person does something about what is kept.
    cleared: tokio::sync::Notify,
}

impl Others {
    fn note(&self, what: &str) -> Result<(), Refusal> {
        self.asked.lock().unwrap().push(what.to_owned());
        if *self.down.lock().unwrap() { Err(Refusal::Down("refused".into())) } else { Ok(()) }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

#[async_trait]
impl Lock for Others {
    async fn acquire(&self, _: &Claim, news: &(dyn Fn(LockFact) + Send + Sync)) -> Result<Option<u64>, Refusal> {
        self.note("acquire")?;
        news(LockFact::Waiting("others".into()));
        self.free.notified().await;
        *self.held.lock().unwrap() = true;
        Ok(Some(7))
    }
    fn lasts(&self) -> Option<Duration> {
        self.lasts
    }
    async fn confirm(&self, _: &Claim, fence: Option<u64>) -> Result<(), Refusal> {
        self.note("confirm")?;
        if *self.held.lock().unwrap() && fence == Some(7) { Ok(()) } else { Err(Refusal::No("freed by somebody".into())) }
    }
    async fn settle(&self, host: &HostState) -> Result<Earlier, Refusal> {
        self.note("settle")?;
        match &*self.earlier.lock().unwrap() {
            None => Ok(Earlier::Nothing),
            Some(Earlier::Keep { .. }) if host.healthy => Ok(Earlier::Release { why: "healthy".into() }),
            Some(earlier) => Ok(earlier.clone()),
        }
    }
    async fn give_back(&self, why: &str) -> Result<(), Refusal> {
        self.note(&format!("give back: {why}"))?;
        *self.held.lock().unwrap() = false;
        *self.earlier.lock().unwrap() = None;
        Ok(())
    }
    async fn quarantine(&self, version: &str, _: &str) -> Result<(), Refusal> {
        self.note(&format!("quarantine {version}"))
    }
    async fn changed(&self) {
        std::future::pending().await
    }
    async fn released(&self, failed: Option<&Failure>) {
        let what = failed.map_or("it".to_owned(), |failed| format!("it and {}", failed.report.version));
        let _ = self.note(&format!("watch {what}"));
        self.cleared.notified().await;
    }
}

#[async_trait]
impl Guard for Others {
    async fn reserve(&self) -> QuorumFact {
        let _ = self.note("reserve");
        QuorumFact::Reserved(None)
    }
    async fn confirm(&self) -> QuorumFact {
        QuorumFact::Refused("a member is down".into())
    }
    async fn give_back(&self) -> Result<(), Refusal> {
        self.note("unreserve")
    }
}

fn claim() -> Claim {
    Claim { version: Some("1.2".into()), reason: "an update".into() }
}

fn failure(version: &str) -> Failure {
    Failure { report: Report { version: version.into(), boot_id: "one".into() }, reason: "no".into() }
}

async fn until(permission: &Permission, what: impl Fn(&News) -> bool) -> News {
    let mut news = permission.subscribe();
    for _ in 0..1000 {
        if what(&permission.news()) {
            return permission.news();
        }
        let _ = tokio::time::timeout(Duration::from_secs(3600), news.changed()).await;
    }
    panic!("{:?}", permission.news())
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_is_waited_for_and_what_is_not_goes_back() {
    let others = Arc::new(Others::default());
    let permission = Permission::start(Some(others.clone()), Some(others.clone()), HostState::default());
    until(&permission, |news| news.settled).await;
    permission.want(Target::Want(claim()));
    let news = until(&permission, |news| matches!(news.lock, LockFact::Waiting(_))).await;
    assert_eq!(news.quorum, QuorumFact::Unknown, "no reservation is held while waiting for the lock");
    // The window closes while it waits.
    permission.want(Target::GiveBack("the window is closed".into()));
    assert_eq!(permission.news().lock, LockFact::Unknown);
    until(&permission, |news| news.settled).await;
    assert_eq!(others.asked(), ["settle", "acquire", "give back: the window is closed", "unreserve"]);
    permission.want(Target::Want(claim()));
    others.free.notify_one();
    let news = until(&permission, |news| news.settled && news.lock == LockFact::Held).await;
    assert_eq!((news.fence, news.quorum), (Some(7), QuorumFact::Reserved(None)));
    // Right before the reboot: another member of the cluster has died.
    assert!(matches!(permission.confirm().await.quorum, QuorumFact::Refused(_)));
    *others.held.lock().unwrap() = false;
    assert!(matches!(permission.confirm().await.lock, LockFact::Refused(_)));
    *others.down.lock().unwrap() = true;
    assert_eq!(permission.confirm().await.lock, LockFact::Held, "an outage frees no lock");
    permission.want(Target::GiveBack("x".into()));
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(!permission.news().settled);
    *others.down.lock().unwrap() = false;
    until(&permission, |news| news.settled).await;
}

#[tokio::test(start_paused = true)]
async fn the_lock_of_an_earlier_life_goes_back_when_the_host_is_healthy() {
    let others = Arc::new(Others::default());
    *others.earlier.lock().unwrap() = Some(Earlier::Keep { why: "not healthy yet".into(), failed: None });
    let permission = Permission::start(Some(others.clone()), None, HostState::default());
    let news = until(&permission, |news| news.settled).await;
    assert_eq!(news.kept.as_deref(), Some("not healthy yet"));
    permission.host(HostState { healthy: true, ..HostState::default() });
    until(&permission, |news| news.kept.is_none()).await;
    assert_eq!(others.asked(), ["settle", "watch it", "settle", "give back: healthy", "settle"]);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_failed_is_quarantined_once_and_its_lock_stays() {
    for reported in [None, Some(Report { version: "1.2".into(), boot_id: "before".into() }), Some(failure("1.2").report)] {
        let others = Arc::new(Others::default());
        *others.earlier.lock().unwrap() = Some(Earlier::Keep { why: "1.2 failed".into(), failed: Some(failure("1.2")) });
        *others.down.lock().unwrap() = true;
        let state = HostState { reported: reported.clone(), ..HostState::default() };
        let permission = Permission::start(Some(others.clone()), None, state);
        tokio::time::sleep(Duration::from_secs(5)).await;
        *others.down.lock().unwrap() = false;
        others.asked();
        let news = until(&permission, |news| news.settled).await;
        assert_eq!(news.reported, Some(failure("1.2").report));
        // Another try of the same version that fails is said again.
        let known = reported == Some(failure("1.2").report);
        let expected: &[&str] = if known { &["settle", "watch it and 1.2"] } else { &["settle", "quarantine 1.2", "watch it"] };
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(others.asked(), expected);
        // A newer version is wanted, and then not: the lock still stays.
        permission.want(Target::Want(claim()));
        until(&permission, |news| matches!(news.lock, LockFact::Waiting(_))).await;
        permission.want(Target::GiveBack("the window is closed".into()));
        until(&permission, |news| news.settled).await;
        assert!(others.asked().iter().all(|asked| !asked.starts_with("give back")));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_watched_once_the_journal_knows_why_and_goes_back_when_the_version_is_cleared() {
    let others = Arc::new(Others::default());
    let failed = failure("1.2");
    *others.earlier.lock().unwrap() = Some(Earlier::Keep { why: "1.2 failed".into(), failed: Some(failed.clone()) });
    let permission = Permission::start(Some(others.clone()), None, HostState::default());
    until(&permission, |news| news.reported.is_some()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(others.asked(), ["settle", "quarantine 1.2", "watch it"]);
    permission.host(HostState { reported: Some(failed.report), ..HostState::default() });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(others.asked(), ["settle", "watch it and 1.2"]);
    // A reboot is wanted for something else, and called off.
    permission.want(Target::Want(claim()));
    until(&permission, |news| matches!(news.lock, LockFact::Waiting(_))).await;
    permission.want(Target::GiveBack("the window is closed".into()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(others.asked(), ["acquire", "settle", "watch it and 1.2"]);
    assert!(permission.news().kept.is_some() && !permission.news().free);
    *others.earlier.lock().unwrap() = Some(Earlier::Release { why: "1.2 was cleared".into() });
    others.cleared.notify_one();
    until(&permission, |news| news.kept.is_none() && news.free).await;
    assert_eq!(others.asked(), ["settle", "give back: 1.2 was cleared", "settle"]);
}

#[tokio::test(start_paused = true)]
async fn while_the_lock_cannot_be_asked_for_the_quorum_is_and_nobody_waits_in_a_queue_with_a_reservation() {
    let others = Arc::new(Others::default());
    let permission = Permission::start(Some(others.clone()), Some(others.clone()), HostState::default());
    until(&permission, |news| news.settled).await;
    *others.down.lock().unwrap() = true;
    permission.want(Target::Want(claim()));
    let news = until(&permission, |news| news.quorum == QuorumFact::Reserved(None)).await;
    assert!(matches!(news.lock, LockFact::Down { .. }));
    *others.down.lock().unwrap() = false;
    let news = until(&permission, |news| news.quorum == QuorumFact::Unknown).await;
    assert!(matches!(news.lock, LockFact::Waiting(_)) && others.asked().contains(&"unreserve".to_owned()));
    others.free.notify_one();
    until(&permission, |news| news.settled && news.lock == LockFact::Held && news.quorum == QuorumFact::Reserved(None)).await;
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_gone_is_told_and_its_version_quarantined() {
    let others = Arc::new(Others::default());
    *others.earlier.lock().unwrap() = Some(Earlier::Lost { why: "it expired".into(), failed: Some(failure("1.2")) });
    let permission = Permission::start(Some(others.clone()), None, HostState::default());
    let news = until(&permission, |news| news.settled).await;
    assert_eq!((news.lost.as_deref(), news.kept, news.free), (Some("it expired"), None, false));
    assert_eq!(others.asked(), ["settle", "quarantine 1.2", "watch it"]);
    *others.earlier.lock().unwrap() = None;
    permission.host(HostState { healthy: true, ..HostState::default() });
    let news = until(&permission, |news| news.free).await;
    assert!(news.lost.is_some(), "it is told until the next lock");
    let mut permission = permission;
    permission.want(Target::Want(claim()));
    until(&permission, |news| matches!(news.lock, LockFact::Waiting(_)) && news.lost.is_none()).await;
    permission.leave("other settings").await;
    assert_eq!(others.asked(), ["settle", "acquire", "give back: other settings"]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_has_passed_is_none_when_the_lock_is_wanted() {
    let others = Arc::new(Others::default());
    *others.down.lock().unwrap() = true;
    let permission = Permission::start(Some(others.clone()), None, HostState::default());
    tokio::time::sleep(Duration::from_secs(60)).await;
    *others.down.lock().unwrap() = false;
    until(&permission, |news| news.settled).await;
    permission.want(Target::Want(claim()));
    assert_eq!(permission.news().lock, LockFact::Unknown);
    until(&permission, |news| matches!(news.lock, LockFact::Waiting(_))).await;
    // A new one counts.
    *others.down.lock().unwrap() = true;
    permission.want(Target::GiveBack("x".into()));
    permission.want(Target::Want(claim()));
    until(&permission, |news| matches!(news.lock, LockFact::Down { .. })).await;
}

#[tokio::test(start_paused = true)]
async fn a_lock_whose_time_may_have_passed_counts_no_more_when_it_cannot_be_asked_for() {
    for (lasts, counts) in [(None, true), (Some(Duration::from_secs(3600)), true), (Some(Duration::ZERO), false)] {
        let others = Arc::new(Others { lasts, ..Others::default() });
        let permission = Permission::start(Some(others.clone()), None, HostState::default());
        permission.want(Target::Want(claim()));
        others.free.notify_one();
        until(&permission, |news| news.settled && news.lock == LockFact::Held).await;
        assert_eq!(permission.confirm().await.lock, LockFact::Held, "its record is there: {lasts:?}");
        *others.down.lock().unwrap() = true;
        let lock = permission.confirm().await.lock;
        assert_eq!(lock == LockFact::Held, counts, "{lasts:?}: {lock:?}");
        assert!(counts || matches!(&lock, LockFact::Down { why, .. } if why.contains("may have passed")), "{lock:?}");
    }
}
