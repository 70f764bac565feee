use super::machine::{Machine, asked, update, world};
use super::server::Behaviour;
use super::shop::Shop;
use crate::agent::Wish;
use crate::crash::boot::boot;
use crate::crash::disk::Disk;
use crate::crash::fat_esp::FatEsp;
use crate::crash::fixture::{Release, shipped};
use crate::crash::long;
use crate::slots::{Content, Slots};
use crate::status::AgentState;
use disk_layout::SlotName;

#[tokio::test]
async fn an_update_is_found_installed_tried_and_kept() {
    let world = world().await;
    let mut agent = world.machine.agent(&world.server.url);
    assert_eq!(agent.update(&asked()).await.unwrap().unwrap().as_str(), "1.1");
    assert_eq!((agent.status.state, agent.reboots()), (AgentState::PendingReboot, true));
    // Asked again: nothing is fetched again.
    assert_eq!(agent.update(&asked()).await.unwrap(), None);
    assert_eq!(agent.status.state, AgentState::PendingReboot);
    assert_eq!(world.machine.reboot(), "1.1");
    // On trial nothing is overwritten.
    world.shop.publish(&Release::new("1.2"));
    let mut agent = world.machine.agent(&world.server.url);
    assert_eq!(agent.update(&asked()).await.unwrap(), None);
    assert_eq!(agent.status.state, AgentState::Trial);
    world.machine.bless(&world.new);
    let agent = world.machine.agent(&world.server.url);
    let events: Vec<String> = agent.state.versions().unwrap().events.into_iter().map(|event| event.what).collect();
    assert_eq!(events, ["installed", "good"]);
    assert_eq!(world.machine.boots(), "1.1");
}

#[tokio::test]
async fn a_version_that_crashes_is_remembered_and_a_good_one_is_taken() {
    let mut world = world().await;
    update(&world).await.unwrap();
    // Three starts that crash; then the loader goes back by itself.
    for _ in 0..3 {
        assert_eq!(world.machine.reboot(), "1.1");
    }
    assert_eq!(world.machine.reboot(), "1.0");
    let mut agent = world.machine.agent(&world.server.url);
    assert!(agent.status.why.contains("did not come up in 3 starts"), "{}", agent.status.why);
    assert_eq!(agent.update(&asked()).await.unwrap(), None);
    assert_eq!((agent.status.state, agent.status.wait.as_deref()), (AgentState::Waiting, Some("failed-before")));
    let good = Release::new("1.2");
    world.shop.publish(&good);
    world.machine.releases.push(good);
    assert_eq!(update(&world).await.unwrap().as_deref(), Some("1.2"));
    assert_eq!(world.machine.boots(), "1.2");
}

#[tokio::test]
async fn a_failed_trial_is_told_in_words_and_tried_again_only_when_told() {
    let world = world().await;
    update(&world).await.unwrap();
    assert_eq!(world.machine.reboot(), "1.1");
    world.machine.verdict(&world.new, "failed", "docker.service is failed");
    crate::commit::set_aside(&mut FatEsp(world.machine.disk), &world.new.image.uki.version).unwrap();
    assert_eq!(world.machine.reboot(), "1.0");
    let mut agent = world.machine.agent(&world.server.url);
    assert_eq!(agent.update(&asked()).await.unwrap(), None);
    assert!(agent.status.why.contains("docker.service is failed"), "{}", agent.status.why);
    let retry = Wish { retry: Some("1.1".parse().unwrap()), ..asked() };
    assert_eq!(agent.update(&retry).await.unwrap().unwrap().as_str(), "1.1");
    assert_eq!(world.machine.boots(), "1.1");
}

#[tokio::test]
async fn rollback_goes_to_the_version_before_and_stays_there() {
    let world = world().await;
    let mut agent = world.machine.agent(&world.server.url);
    assert_eq!(agent.rollback().unwrap_err().kind(), "no-rollback");
    agent.update(&asked()).await.unwrap();
    assert_eq!(world.machine.reboot(), "1.1");
    world.machine.bless(&world.new);
    let mut agent = world.machine.agent(&world.server.url);
    assert_eq!(agent.rollback().unwrap().as_str(), "1.0");
    assert_eq!(world.machine.reboot(), "1.0");
    let mut agent = world.machine.agent(&world.server.url);
    assert_eq!(agent.update(&asked()).await.unwrap(), None);
    assert_eq!(agent.status.wait.as_deref(), Some("set-aside"));
    assert_eq!(world.machine.boots(), "1.0");
}

#[tokio::test]
async fn a_newer_release_replaces_a_pending_one() {
    let mut world = world().await;
    let mut agent = world.machine.agent(&world.server.url);
    agent.update(&asked()).await.unwrap();
    let newer = Release::new("1.2");
    world.shop.publish(&newer);
    world.machine.releases.push(newer);
    assert_eq!(agent.update(&asked()).await.unwrap().unwrap().as_str(), "1.2");
    let events: Vec<String> = agent.state.versions().unwrap().events.into_iter().map(|event| event.what).collect();
    assert_eq!(events, ["installed", "replaced", "installed"]);
    assert_eq!(world.machine.boots(), "1.2");
    assert_eq!(Slots::read(world.machine.disk).unwrap().find_version(&"1.1".parse().unwrap()), None);
}

#[tokio::test]
async fn a_pin_is_kept() {
    let world = world().await;
    let mut agent = world.machine.agent(&world.server.url);
    agent.pin(Some(&"1.0".parse().unwrap())).unwrap();
    assert_eq!(agent.update(&asked()).await.unwrap(), None);
    assert_eq!(agent.status.wait.as_deref(), Some("pinned"));
    agent.pin(None).unwrap();
    assert!(agent.update(&asked()).await.unwrap().is_some());
}

#[tokio::test]
async fn bad_servers_each_have_their_name_and_change_nothing_that_boots() {
    let world = world().await;
    let cases = [
        ("redirects", Behaviour { redirect: true, ..Behaviour::default() }),
        ("length", Behaviour { page: Some("<html>no</html>"), ..Behaviour::default() }),
        ("http-status", Behaviour { status: Some((400, None, 99)), ..Behaviour::default() }),
        ("not-found", Behaviour { status: Some((404, None, 99)), ..Behaviour::default() }),
        ("server-busy", Behaviour { status: Some((429, Some(9999), 99)), ..Behaviour::default() }),
        ("server-busy", Behaviour { status: Some((503, Some(9999), 99)), ..Behaviour::default() }),
        ("length", Behaviour { lie: 5, ..Behaviour::default() }),
        ("payload-digest", Behaviour { flip: 99, ..Behaviour::default() }),
    ];
    for (kind, behaviour) in cases {
        world.server.behave(behaviour.clone());
        let error = update(&world).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{behaviour:?}: {error}");
        assert_eq!(world.machine.boots(), "1.0");
    }
    world.server.behave(Behaviour { status: Some((429, Some(9999), 99)), ..Behaviour::default() });
    let error = update(&world).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(9999));
    world.server.behave(Behaviour::default());
    assert_eq!(update(&world).await.unwrap().as_deref(), Some("1.1"));
}

#[tokio::test]
async fn metadata_that_does_not_come_has_names_too() {
    let world = world().await;
    let all = |behaviour: Behaviour| Behaviour { everything: true, ..behaviour };
    for (kind, behaviour) in [
        ("redirects", all(Behaviour { redirect: true, ..Behaviour::default() })),
        ("http-status", all(Behaviour { status: Some((500, None, 99)), ..Behaviour::default() })),
        ("stalled", all(Behaviour { stall_after: Some(10), ..Behaviour::default() })),
        ("dropped", all(Behaviour { drop_after: Some((10, 99)), ..Behaviour::default() })),
        ("metadata-syntax", all(Behaviour { page: Some("<html>no</html>"), ..Behaviour::default() })),
    ] {
        world.server.behave(behaviour);
        let mut agent = world.machine.agent(&world.server.url);
        let error = agent.update(&asked()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(Slots::read(world.machine.disk).unwrap().get(SlotName::B), &Content::Empty);
    }
}

#[tokio::test]
async fn servers_without_ranges_and_with_passing_faults_serve() {
    for behaviour in [
        Behaviour { no_ranges: true, ..Behaviour::default() },
        Behaviour { status: Some((503, Some(0), 2)), ..Behaviour::default() },
        Behaviour { flip: 1, ..Behaviour::default() },
        Behaviour { trickle: Some((997, 0)), ..Behaviour::default() },
        Behaviour { no_ranges: true, drop_after: Some((50_000, 1)), ..Behaviour::default() },
    ] {
        let world = world().await;
        world.server.behave(behaviour.clone());
        let result = update(&world).await;
        assert_eq!(result.unwrap().as_deref(), Some("1.1"), "{behaviour:?}");
        assert_eq!(world.machine.boots(), "1.1");
    }
}

#[tokio::test]
async fn a_line_that_drops_at_every_percent_is_taken_up_where_it_broke() {
    let first = world().await;
    first.server.behave(Behaviour::default());
    update(&first).await.unwrap();
    let whole = first.server.shared.lock().unwrap().sent;
    assert!(whole > 50_000, "{whole}");
    for percent in (0..100).step_by(if long() { 1 } else { 10 }) {
        let world = world().await;
        let at = whole * percent / 100;
        world.server.behave(Behaviour { drop_after: Some((at, 1)), ..Behaviour::default() });
        assert_eq!(update(&world).await.unwrap().as_deref(), Some("1.1"), "{percent} %");
        let sent = world.server.shared.lock().unwrap().sent;
        // No more than the payload that was cut, of at most a chunk, comes twice.
        assert!(sent <= whole + 256 * 1024, "{percent} %: {sent} of {whole}");
        assert_eq!(world.machine.boots(), "1.1");
    }
}

#[tokio::test]
async fn metadata_attacks_have_names() {
    let world = world().await;
    let metadata = world.shop.repository().join("metadata");
    let timestamp = std::fs::read(metadata.join("timestamp.json")).unwrap();
    // Seen once, so that there is something to go back from.
    let mut agent = world.machine.agent(&world.server.url);
    agent.check(true).await.unwrap();
    let newer = Release::new("1.2");
    world.shop.publish(&newer);
    agent.check(true).await.unwrap();
    let good = std::fs::read(metadata.join("timestamp.json")).unwrap();
    let mut check = async |content: Option<&[u8]>, kind: &str| {
        match content {
            Some(content) => std::fs::write(metadata.join("timestamp.json"), content).unwrap(),
            None => std::fs::remove_file(metadata.join("timestamp.json")).unwrap(),
        }
        let error = agent.check(true).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(world.machine.boots(), "1.0");
    };
    check(Some(&timestamp), "metadata-rolled-back").await;
    check(Some(&good[..good.len() / 2]), "metadata-syntax").await;
    let text = String::from_utf8(good.clone()).unwrap();
    let forged = text.replacen("\"version\":", "\"version\": 9", 1);
    check(Some(forged.as_bytes()), "metadata-signature").await;
    check(Some(&vec![b' '; 1 << 20]), "metadata-too-large").await;
    check(None, "not-found").await;
    // Somebody else's keys.
    let other = Shop::new();
    other.publish(&newer);
    let foreign = std::fs::read(other.repository().join("metadata/timestamp.json")).unwrap();
    check(Some(&foreign), "metadata-signature").await;
    std::fs::write(metadata.join("timestamp.json"), &good).unwrap();
    agent.check(true).await.unwrap();
}

#[tokio::test]
async fn the_wrong_image_or_channel_is_refused() {
    let world = world().await;
    let mut agent = world.machine.agent(&world.server.url);
    agent.host.image = "docker".parse().unwrap();
    assert_eq!(agent.update(&asked()).await.unwrap_err().kind(), "no-channel");
    let mut agent = world.machine.agent(&world.server.url);
    agent.host.architecture = "aarch64".parse().unwrap();
    assert_eq!(agent.update(&asked()).await.unwrap_err().kind(), "no-channel");
    let mut agent = world.machine.agent("http://127.0.0.1:9/");
    assert_eq!(agent.update(&asked()).await.unwrap_err().kind(), "connect");
}

#[tokio::test]
async fn wherever_the_agent_is_killed_it_goes_on() {
    let world = world().await;
    // The device fails at some write: what the agent remembers by then is what it starts from.
    let complete = Machine { disk: Box::leak(Box::new(Disk::new(shipped(&world.old)))), ..Machine::new(&world.shop, &world.old) };
    complete.verdict(&world.old, "good", "");
    complete.agent(&world.server.url).update(&asked()).await.unwrap();
    let writes = complete.disk.log.borrow().len() as u64;
    for budget in (0..writes).step_by(usize::try_from(writes).unwrap().div_ceil(if long() { 200 } else { 12 })) {
        let disk: &'static Disk = Box::leak(Box::new(Disk::new(shipped(&world.old))));
        let machine = Machine { disk, releases: world.machine.releases.clone(), ..Machine::new(&world.shop, &world.old) };
        machine.verdict(&world.old, "good", "");
        let mut agent = machine.agent(&world.server.url);
        disk.budget.set(Some(budget));
        let _ = agent.update(&asked()).await;
        drop(agent);
        disk.budget.set(None);
        assert_eq!(boot(disk, &machine.releases).unwrap().failures, 0, "{budget}");
        if machine.boots() == "1.0" {
            let mut agent = machine.agent(&world.server.url);
            agent.update(&asked()).await.unwrap();
        }
        assert_eq!(machine.boots(), "1.1", "{budget}");
    }
}
