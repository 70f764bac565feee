//! Updates that copy what the running version has, and what happens when that is not what it should be.

use disk_layout::SlotName;

use super::machine::{World, asked, patched_world, similar_world};
use super::server::Behaviour;
use crate::agent::AgentError;
use crate::download::{Position, Taken, Way};
use crate::status::AgentState;
use crate::target::{Area, Target};

/// Installs 1.1 after `damage` to what runs, and says what that took and how many bytes of packs were sent.
pub async fn after(world: &World, damage: impl FnOnce(&World)) -> (Taken, u64) {
    let mut agent = world.machine.agent(&world.server.url);
    damage(world);
    agent.update(&asked()).await.unwrap();
    assert_eq!(world.machine.boots(), "1.1");
    let sent = world.server.shared.lock().unwrap().sent;
    (agent.status.way.clone().unwrap().taken, sent)
}

pub fn requests(world: &World, ending: &str) -> usize {
    world.server.shared.lock().unwrap().requests.iter().filter(|request| request.split(' ').next().unwrap().ends_with(ending)).count()
}

#[tokio::test]
async fn only_what_the_running_version_does_not_have_is_fetched() {
    let mut world = similar_world().await;
    let (taken, sent) = after(&world, |_| ()).await;
    assert_eq!((taken.way, taken.fallbacks), (Way::Chunks, 0));
    assert_eq!(taken.received, sent);
    // Two chunks, the metadata, and the head of the UKI.
    assert!(sent < 640 * 1024, "{sent}");
    assert!(taken.full > 4 << 20 && taken.saved() > 3 << 20 && taken.copied > 3 << 20, "{taken:?}");
    // The running version's map, which nobody has left on state; of the new one's map and index what is beyond it.
    assert_eq!((requests(&world, ".map"), requests(&world, ".difference"), requests(&world, ".index")), (1, 1, 0));
    let events = world.machine.state().versions().unwrap().events;
    assert!(events[0].detail.contains(" KiB received instead of 4."), "{}", events[0].detail);

    // The next one finds the map where the last one left it.
    world.machine.reboot();
    world.machine.bless(&world.new);
    let next = world.new.changed("1.2", |root| root[2 << 20] ^= 1);
    world.shop.publish(&next);
    world.machine.releases.push(next);
    world.server.behave(Behaviour::default());
    let mut agent = world.machine.agent(&world.server.url);
    assert_eq!(agent.update(&asked()).await.unwrap().unwrap().as_str(), "1.2");
    assert_eq!((agent.status.way.clone().unwrap().taken.way, requests(&world, ".map")), (Way::Chunks, 0));
    assert_eq!((requests(&world, ".difference"), requests(&world, ".index")), (1, 0));
    assert!(agent.status.metrics().contains("garboard_update_way_total{way=\"chunks\"} 1\n"));
    assert!(agent.status.render().contains("came:     1.2 by chunks"), "{}", agent.status.render());
    // The one that comes up after the reboot says so too.
    drop(agent);
    world.machine.reboot();
    let agent = world.machine.agent(&world.server.url);
    assert!(agent.status.render().contains("came:     1.2 by chunks"), "{}", agent.status.render());
    assert!(agent.status.metrics().contains("garboard_update_last_way{version=\"1.2\",way=\"chunks\"} 1\n"));
    let saved = format!("garboard_update_last_saved_bytes {}\n", agent.status.way.as_ref().unwrap().taken.saved());
    assert!(agent.status.metrics().contains(&saved), "{saved}");
    assert_eq!(world.machine.boots(), "1.2");
}

/// Flips a bit of what runs.
pub fn flip(world: &World, at: u64) {
    let (mut block, area) = (vec![0; 512], Area::Root(SlotName::A));
    world.machine.disk.read(area, at, &mut block).unwrap();
    block[7] ^= 0x10;
    world.machine.disk.write(area, at, &block).unwrap();
}

#[tokio::test]
async fn a_flipped_bit_in_the_running_slot_costs_one_chunk_and_is_told() {
    let world = similar_world().await;
    let (taken, sent) = after(&world, |world| flip(world, 2 << 20)).await;
    assert_eq!((taken.way, taken.fallbacks), (Way::Chunks, 1));
    assert!(sent < 920 * 1024, "{sent}");
    // The difference does not say where a chunk is that should be here.
    assert_eq!((requests(&world, ".difference"), requests(&world, ".index"), requests(&world, ".map")), (1, 1, 1));
    assert!(taken.render().contains("one piece"), "{}", taken.render());
}

#[tokio::test]
async fn without_the_copy_of_the_running_uki_its_chunks_are_fetched() {
    let world = similar_world().await;
    let (taken, _) = after(&world, |world| std::fs::remove_file(world.machine.state().uki_path(&"1.0".parse().unwrap())).unwrap()).await;
    assert_eq!((taken.way, taken.fallbacks), (Way::Chunks, 1));
}

#[tokio::test]
async fn a_map_that_is_gone_means_fetching_all_and_one_that_is_late_means_waiting() {
    let world = similar_world().await;
    let mut agent = world.machine.agent(&world.server.url);
    world.server.behave(Behaviour { everything: true, status: Some((503, Some(5), 0)), ..Behaviour::default() });
    let (list, _) = agent.check(true).await.unwrap();
    assert_eq!(agent.status.state, AgentState::Waiting);
    world.server.shared.lock().unwrap().behaviour.status = Some((503, Some(5), 99));
    assert_eq!(agent.update(&asked()).await.unwrap_err().retry_after(), Some(5));
    world.server.behave(Behaviour::default());
    let entry = list.releases.iter().find(|entry| entry.version.as_str() == "1.0").unwrap();
    std::fs::remove_file(world.shop.repository().join(entry.release.path(release_format::ObjectKind::Release))).unwrap();
    let (taken, sent) = after(&world, |_| ()).await;
    assert_eq!(taken.way, Way::Full);
    assert!(sent > 4 << 20, "{sent}");
}

/// Whatever is put together wrongly, the hash tree finds it; the next run goes one level up.
#[tokio::test]
async fn what_was_put_together_wrongly_is_never_booted_and_fetched_in_full() {
    let world = similar_world().await;
    let mut agent = world.machine.agent(&world.server.url);
    // The journal says that more is done than is.
    world.server.behave(Behaviour { drop_after: Some((1000, 99)), ..Behaviour::default() });
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(2), agent.update(&asked())).await;
    assert!(stopped.is_err() || stopped.unwrap().is_err());
    drop(agent);
    let state = world.machine.state();
    let mut journal = state.journal().unwrap().unwrap();
    assert!(journal.position.from.is_some(), "{journal:?}");
    journal.position.fetches = 99;
    state.set_journal(Some(&journal)).unwrap();
    world.server.behave(Behaviour::default());
    let mut agent = world.machine.agent(&world.server.url);
    let error: AgentError = agent.update(&asked()).await.unwrap_err();
    assert!(matches!(error.kind(), "root-hash-mismatch" | "uki-mismatch" | "state"), "{error}");
    assert_eq!(world.machine.boots(), "1.0");
    assert_eq!(state.journal().unwrap().unwrap().position, Position::full());
    let (taken, _) = after(&world, |_| ()).await;
    assert_eq!(taken.way, Way::Full);
}

#[tokio::test]
async fn by_patch_only_what_changed_is_fetched_and_neither_map_nor_index() {
    let world = patched_world().await;
    let (taken, sent) = after(&world, |_| ()).await;
    assert_eq!((taken.way, taken.fallbacks), (Way::Patch, 0));
    // The new 60,000 bytes, and little more.
    assert!(sent < 66_000, "{sent}");
    assert_eq!(taken.received, sent, "the table too");
    // The running version's map, which an update by this agent would have left on state.
    assert_eq!((requests(&world, ".map"), requests(&world, ".index"), requests(&world, ".pack")), (1, 0, 0));
    let text = world.machine.agent(&world.server.url).state.versions().unwrap().events[0].detail.clone();
    assert!(text.contains("by patch: "), "{text}");
}

#[tokio::test]
async fn a_flipped_bit_among_the_old_bytes_fails_the_operation_and_its_chunks_are_fetched() {
    let world = patched_world().await;
    // In the old bytes of the changed chunk, and not in a chunk that is copied.
    let (taken, sent) = after(&world, |world| flip(world, (1 << 20) + 100_000)).await;
    assert!(taken.fallbacks > 0 && sent > 256 * 1024, "{taken:?} {sent}");
    assert_eq!(taken.way, Way::Patch);
    assert!(requests(&world, ".pack") > 0);
    // Where the chunks of an operation are the difference says.
    assert_eq!((requests(&world, ".difference"), requests(&world, ".index")), (1, 0));
}

#[tokio::test]
async fn a_patch_that_is_gone_or_not_what_it_should_be_means_chunks() {
    for (kind, damage, expected) in [
        ("table", None, Way::Chunks),
        ("table", Some(20), Way::Chunks),
        // The metadata's operation and the file's.
        ("patch", None, Way::Chunks),
        ("patch", Some(1000), Way::Patch),
    ] {
        let world = patched_world().await;
        let path = world.shop.objects(kind).remove(0);
        match damage {
            None => std::fs::remove_file(&path).unwrap(),
            Some(at) => {
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[at] ^= 1;
                std::fs::write(&path, &bytes).unwrap();
            }
        }
        let (taken, _) = after(&world, |_| ()).await;
        assert_eq!(taken.way, expected, "{kind} {damage:?}: {taken:?}");
        assert!(taken.fallbacks > 0 && taken.render().contains("another way"), "{kind} {damage:?}: {taken:?}");
    }
}

#[tokio::test]
async fn what_a_server_never_gives_does_not_hold_up_the_update_for_ever() {
    for kind in [".table", ".patch", ".difference"] {
        let world = if kind == ".difference" { super::differences::two_behind().await } else { patched_world().await };
        let started = || {
            let mut agent = world.machine.agent(&world.server.url);
            agent.settings.retry_pause = 1;
            agent
        };
        let mut agent = started();
        world.server.behave(Behaviour { only: Some(kind), status: Some((500, None, u32::MAX)), ..Behaviour::default() });
        // The first attempt comes further where the old chunks are copied before it needs this file.
        let attempts = if kind == ".patch" { 4 } else { 3 };
        for attempt in 0..attempts {
            let error = agent.update(&asked()).await.unwrap_err();
            assert!(error.to_string().contains("500"), "{kind} {attempt}: {error}");
            // What is noted outlives the agent.
            agent = started();
        }
        agent.update(&asked()).await.unwrap();
        assert_eq!(world.machine.boots(), world.new.image.uki.version.as_str(), "{kind}");
        let taken = agent.status.way.clone().unwrap().taken;
        assert_eq!(taken.way, Way::Chunks, "{kind}: {taken:?}");
        assert!(taken.fallbacks > 0 && taken.received < taken.full, "{kind}: {taken:?}");
        let metrics = agent.status.metrics();
        for (name, value) in [("fallbacks", taken.fallbacks), ("saved_bytes", taken.saved())] {
            assert!(metrics.contains(&format!("_{name}_total {value}\n")), "{kind}: {name} {value}: {metrics}");
        }
    }
}
