//! Going over to other programs that keep state: what cannot be gone back to is refused, and etcd's data are saved before another etcd gets
//! them.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use async_trait::async_trait;

use super::machine::{Machine, World, asked, opened, world_of};
use super::shop::Shop;
use crate::agent::Wish;
use crate::crash::fixture::Release;
use crate::etcd::Etcd;
use crate::status::AgentState;

/// An etcd that runs, or does not, and whose snapshots succeed, or do not.
#[derive(Clone, Default)]
struct Fake {
    runs: bool,
    fails: bool,
    /// What its members have agreed on; nobody can ask where it is empty.
    cluster: Rc<RefCell<&'static str>>,
    saved: Rc<RefCell<Vec<PathBuf>>>,
}

#[async_trait(?Send)]
impl Etcd for Fake {
    async fn runs(&self) -> Result<bool, String> {
        Ok(self.runs)
    }

    async fn cluster(&self) -> Result<String, String> {
        match *self.cluster.borrow() {
            "" => Err("connection refused".to_owned()),
            version => Ok(version.to_owned()),
        }
    }

    async fn save(&self, file: &Path) -> Result<(), String> {
        if self.fails {
            return Err("etcdctl: context deadline exceeded".to_owned());
        }
        self.saved.borrow_mut().push(file.to_owned());
        std::fs::write(file, "snapshot").map_err(|error| error.to_string())
    }
}

/// One whose cluster is at a version.
fn running(cluster: &'static str) -> Fake {
    Fake { runs: true, cluster: Rc::new(RefCell::new(cluster)), ..Fake::default() }
}

fn downgrade(version: &str) -> Wish {
    Wish { downgrade: true, retry: Some(version.parse().unwrap()), ..asked() }
}

/// 1.1 runs, 1.0 is published and in a bundle: what somebody who wants to go back to it hears, with nothing changed.
async fn going_back(running: &[(&str, &str)], layout: u32, to: &[(&str, &str)]) -> Result<(), &'static str> {
    let (old, new) = (Release::with_floor("1.0", layout, to), Release::with_floor("1.1", 1, running));
    let world = world_of(new, old).await;
    let bundle = world.shop.bundle();
    let writes = world.machine.disk.log.borrow().len();
    let mut agent = world.machine.agent("");
    let by_bundle = agent.apply(&bundle, &Wish { downgrade: true, ..asked() }).await.map(drop).map_err(|error| error.kind());
    if by_bundle.is_err() {
        let mut agent = world.machine.agent(&world.server.url);
        let by_server = agent.update(&downgrade("1.0")).await.map(drop).map_err(|error| error.kind());
        assert_eq!(by_server, by_bundle);
        assert_eq!(world.machine.disk.log.borrow().len(), writes);
        assert_eq!(world.machine.boots(), "1.1");
    }
    by_bundle
}

#[tokio::test]
async fn a_release_whose_programs_could_not_read_the_state_is_not_gone_back_to() {
    assert_eq!(going_back(&[("etcd", "3.10")], 1, &[("etcd", "3.9")]).await, Err("state-floor"));
    assert_eq!(going_back(&[("docker", "26.1"), ("etcd", "3.5")], 1, &[("docker", "20.10"), ("etcd", "3.5")]).await, Err("state-floor"));
    assert_eq!(going_back(&[("etcd", "3.5")], 1, &[("etcd", "3.5")]).await, Ok(()));
    assert_eq!(going_back(&[("etcd", "3.5")], 0, &[]).await, Ok(()), "it leaves etcd's data alone");
}

#[tokio::test]
async fn nor_is_one_that_could_not_read_our_own_state() {
    let (old, new) = (Release::with_floor("1.0", 1, &[]), Release::with_floor("1.1", 2, &[]));
    let world = world_of(new, old).await;
    world.machine.layout.set(2);
    let mut agent = world.machine.agent(&world.server.url);
    let error = agent.update(&downgrade("1.0")).await.unwrap_err();
    assert_eq!(error.kind(), "state-floor");
    assert!(error.to_string().contains("layout 1") && error.to_string().contains('2'), "{error}");
    assert_eq!(world.machine.boots(), "1.1");
}

/// 1.0 ran before 1.1, which is good by now.
async fn updated(old: &[(&str, &str)], new: &[(&str, &str)], etcd: &Fake) -> World {
    let world = world_of(Release::with_floor("1.0", 1, old), Release::with_floor("1.1", 1, new)).await;
    let mut agent = world.machine.agent(&world.server.url);
    agent.etcd = Box::new(etcd.clone());
    agent.update(&asked()).await.unwrap();
    assert_eq!(world.machine.reboot(), "1.1");
    world.machine.bless(&world.new);
    world
}

#[tokio::test]
async fn a_rollback_minds_the_state_too() {
    let world = updated(&[("docker", "26.1")], &[("docker", "27.0")], &Fake::default()).await;
    let mut agent = world.machine.agent(&world.server.url);
    assert_eq!(agent.rollback().await.unwrap_err().kind(), "state-floor");
    assert_eq!(world.machine.boots(), "1.1");
    assert!(agent.state.versions().unwrap().fates.is_empty(), "it is not set aside");
    let world = updated(&[("docker", "26.1")], &[("docker", "26.1")], &Fake::default()).await;
    assert_eq!(world.machine.agent(&world.server.url).rollback().await.unwrap().as_str(), "1.0");
    assert_eq!(world.machine.boots(), "1.0");
}

#[tokio::test]
async fn etcd_is_saved_before_another_one_gets_its_data() {
    let etcd = running("3.4");
    let world = updated(&[("etcd", "3.4")], &[("etcd", "3.5")], &etcd).await;
    let snapshot = world.machine.directory.path().join("garboard/etcd/1.0-to-1.1.db");
    assert_eq!(std::fs::read_to_string(snapshot).unwrap(), "snapshot");
    let events: Vec<String> = world.machine.state().versions().unwrap().events.into_iter().map(|event| event.what).collect();
    assert_eq!(events, ["etcd-snapshot", "installed"]);
    // What nothing changes, and what does not run, is not saved.
    for (old, new, runs) in [("3.5", "3.5", true), ("3.4", "3.5", false)] {
        let etcd = Fake { runs, ..running("3.5") };
        let world = updated(&[("etcd", old)], &[("etcd", new)], &etcd).await;
        assert!(etcd.saved.borrow().is_empty() && !world.machine.directory.path().join("garboard/etcd").exists());
    }
    // Nobody knows what the running image has: better once too often.
    let etcd = running("3.4");
    updated(&[], &[("etcd", "3.5")], &etcd).await;
    assert_eq!(etcd.saved.borrow().len(), 1);
    let etcd = running("3.4");
    updated(&[("etcd", "3.5")], &[], &etcd).await;
    assert!(etcd.saved.borrow().is_empty(), "the release has no etcd");
}

#[tokio::test]
async fn without_a_snapshot_of_a_running_etcd_the_update_waits() {
    let world = world_of(Release::with_floor("1.0", 1, &[("etcd", "3.4")]), Release::with_floor("1.1", 1, &[("etcd", "3.5")])).await;
    let mut agent = world.machine.agent(&world.server.url);
    agent.etcd = Box::new(Fake { fails: true, ..running("3.4") });
    let error = agent.update(&asked()).await.unwrap_err();
    assert_eq!(error.kind(), "etcd-snapshot");
    assert!(error.to_string().contains("deadline"), "{error}");
    assert_eq!((world.machine.boots(), agent.reboots()), ("1.0".to_owned(), false));
    // When etcd answers again, the rest is done, and nothing is fetched again.
    let sent = world.server.shared.lock().unwrap().sent;
    agent.etcd = Box::new(running("3.4"));
    assert_eq!(agent.update(&asked()).await.unwrap().unwrap().as_str(), "1.1");
    assert_eq!(world.server.shared.lock().unwrap().sent, sent);
    assert_eq!(world.machine.boots(), "1.1");
}

#[tokio::test]
async fn a_release_that_skips_a_minor_version_of_etcd_is_not_taken_where_one_runs() {
    for (runs, expected) in [(true, Err("etcd-skip")), (false, Ok(()))] {
        let world = world_of(Release::with_floor("1.0", 1, &[("etcd", "3.5")]), Release::with_floor("1.1", 1, &[("etcd", "3.7")])).await;
        let writes = world.machine.disk.log.borrow().len();
        let mut agent = world.machine.agent(&world.server.url);
        agent.etcd = Box::new(Fake { runs, ..running("3.5") });
        let updated = agent.update(&asked()).await;
        if let Err(error) = &updated {
            assert!(error.to_string().contains("a release with etcd 3.6 comes first"), "{error}");
            assert_eq!((world.machine.boots().as_str(), world.machine.disk.log.borrow().len()), ("1.0", writes));
        }
        assert_eq!(updated.map(drop).map_err(|error| error.kind()), expected);
    }
}

#[tokio::test]
async fn the_next_etcd_waits_until_all_members_of_the_cluster_have_reached_the_one_that_runs() {
    let world = world_of(Release::with_floor("1.0", 1, &[("etcd", "3.5")]), Release::with_floor("1.1", 1, &[("etcd", "3.6")])).await;
    let writes = world.machine.disk.log.borrow().len();
    let mut agent = world.machine.agent(&world.server.url);
    let etcd = running("3.4.0");
    agent.etcd = Box::new(etcd.clone());
    // Another member is still at 3.4; then nobody answers, and it may be anywhere.
    for (cluster, why) in [("3.4.0", "not all of them run etcd 3.5 yet"), ("", "connection refused")] {
        *etcd.cluster.borrow_mut() = cluster;
        for asked in [true, false] {
            assert_eq!(agent.update(&Wish { asked, ..Wish::default() }).await.unwrap(), None);
            assert_eq!((agent.status.state, agent.status.wait.as_deref()), (AgentState::Waiting, Some("etcd-members")));
            assert!(agent.status.why.contains(why), "{}", agent.status.why);
        }
        assert_eq!(agent.apply(&world.shop.bundle(), &asked()).await.unwrap_err().kind(), "etcd-members");
    }
    assert_eq!((agent.status.counters.failures, &agent.status.error, world.machine.disk.log.borrow().len()), (0, &None, writes));
    // It goes on by itself when they are there, and the version has not failed meanwhile.
    *etcd.cluster.borrow_mut() = "3.5.0";
    assert_eq!(agent.update(&Wish::default()).await.unwrap().unwrap().as_str(), "1.1");
    assert_eq!((world.machine.boots().as_str(), agent.status.wait.as_deref()), ("1.1", None));
}

/// 1.0 runs; 1.1 and 1.2 are published, with these versions of etcd.
async fn two_behind(etcds: [&str; 3]) -> World {
    let of = |version: &str, etcd: &str| Release::with_floor(version, 1, &[("etcd", etcd)]);
    let (between, newest) = (of("1.1", etcds[1]), of("1.2", etcds[2]));
    let shop = Shop::new();
    shop.publish(&between);
    shop.publish(&newest);
    let mut world = opened(shop, of("1.0", etcds[0]), between).await;
    world.machine.releases.push(newest);
    world
}

#[tokio::test]
async fn a_member_that_is_left_behind_takes_the_release_for_which_the_others_wait() {
    let world = two_behind(["3.4", "3.5", "3.6"]).await;
    let etcd = running("3.4.0");
    let mut agent = world.machine.agent(&world.server.url);
    agent.etcd = Box::new(etcd.clone());
    // Who names a version hears why it is not that.
    let named = Wish { retry: Some("1.2".parse().unwrap()), ..asked() };
    assert_eq!(agent.update(&named).await.unwrap_err().kind(), "etcd-skip");
    assert_eq!(agent.update(&Wish::default()).await.unwrap().unwrap().as_str(), "1.1");
    // It stays until the reboot.
    assert_eq!(agent.update(&Wish::default()).await.unwrap(), None);
    assert_eq!((agent.status.state, agent.status.target.as_deref()), (AgentState::PendingReboot, Some("1.1")));
    assert_eq!(world.machine.reboot(), "1.1");
    world.machine.bless(&world.new);
    let mut agent = world.machine.agent(&world.server.url);
    agent.etcd = Box::new(etcd.clone());
    assert_eq!(agent.update(&Wish::default()).await.unwrap(), None);
    assert_eq!(agent.status.wait.as_deref(), Some("etcd-members"));
    *etcd.cluster.borrow_mut() = "3.5.0";
    assert_eq!(agent.update(&Wish::default()).await.unwrap().unwrap().as_str(), "1.2");
}

#[tokio::test]
async fn where_every_release_skips_a_minor_version_of_etcd_the_newest_says_so() {
    let world = two_behind(["3.4", "3.6", "3.7"]).await;
    let mut agent = world.machine.agent(&world.server.url);
    agent.etcd = Box::new(running("3.4.0"));
    let error = agent.update(&asked()).await.unwrap_err();
    assert!(error.kind() == "etcd-skip" && error.to_string().contains("version 1.2 skips"), "{error}");
    assert_eq!(world.machine.boots(), "1.0");
}

#[tokio::test]
async fn a_release_that_waits_for_the_members_hides_none_that_waits_for_the_reboot() {
    let of = |version: &str, etcd: &str| Release::with_floor(version, 1, &[("etcd", etcd)]);
    let world = world_of(of("1.0", "3.5"), of("1.1", "3.5")).await;
    let mut agent = world.machine.agent(&world.server.url);
    agent.etcd = Box::new(running("3.4.0"));
    assert_eq!(agent.update(&Wish::default()).await.unwrap().unwrap().as_str(), "1.1");
    world.shop.publish(&of("1.2", "3.6"));
    agent.check(false).await.unwrap();
    let pending = (AgentState::PendingReboot, Some("1.1"), true);
    assert_eq!((agent.status.state, agent.status.target.as_deref(), agent.reboots()), pending);
    for _ in 0..2 {
        assert_eq!(agent.update(&Wish::default()).await.unwrap(), None);
        assert_eq!((agent.status.state, agent.status.target.as_deref(), agent.reboots()), pending);
        assert_eq!(agent.status.wait.as_deref(), Some("etcd-members"));
        let why = &agent.status.why;
        assert!(why.starts_with("version 1.1 is in place") && why.contains("version 1.2 brings the next etcd and waits"), "{why}");
    }
    assert_eq!((world.machine.boots().as_str(), agent.status.counters.failures), ("1.1", 0));
}

#[tokio::test]
async fn a_release_with_the_same_minor_version_of_etcd_asks_nobody() {
    for (old, new) in [("3.5", "3.5"), ("3.5.15", "3.5.16")] {
        updated(&[("etcd", old)], &[("etcd", new)], &running("")).await;
    }
    updated(&[("etcd", "3.5")], &[], &running("")).await;
    updated(&[("etcd", "3.4")], &[("etcd", "3.5")], &Fake::default()).await;
    // Nobody knows what the running image has: the members do.
    let world = world_of(Release::with_floor("1.0", 1, &[]), Release::with_floor("1.1", 1, &[("etcd", "3.6")])).await;
    let mut agent = world.machine.agent(&world.server.url);
    agent.etcd = Box::new(running("3.4.0"));
    assert_eq!(agent.update(&asked()).await.unwrap(), None);
}

#[tokio::test]
async fn a_downgrade_that_changes_etcd_saves_it_too() {
    // An older image with a newer etcd: unusual, and its data are changed all the same.
    let shop = Shop::new();
    let older = Release::with_floor("0.9", 1, &[("etcd", "3.6")]);
    shop.publish(&older);
    let mut machine = Machine::new(&shop, &Release::with_floor("1.0", 1, &[("etcd", "3.5")]));
    machine.releases.push(older);
    let mut agent = machine.agent("");
    let etcd = running("3.4");
    agent.etcd = Box::new(etcd.clone());
    agent.apply(&shop.bundle(), &Wish { downgrade: true, ..asked() }).await.unwrap();
    assert_eq!(etcd.saved.borrow().len(), 1);
    assert_eq!(machine.boots(), "0.9");
}
