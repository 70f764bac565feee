//! A version's life on a host: found, installed, tried, kept, given up, gone back from.

use super::machine::{World, asked, borrowing_world, painted, patched_world, similar_world, update, world};
use crate::agent::Wish;
use crate::crash::boot::boot;
use crate::crash::disk::Disk;
use crate::crash::fat_esp::FatEsp;
use crate::crash::fixture::Release;
use crate::crash::long;
use crate::esp::fat::Volume;
use crate::slots::Slots;
use crate::status::AgentState;
use crate::target::{Area, Target};

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

/// What the firmware could not even load counts its tries all the same: that is the trace of it, whatever the file holds by now.
#[tokio::test]
async fn a_version_that_cannot_be_loaded_is_remembered_and_not_taken_again() {
    let world = world().await;
    update(&world).await.unwrap();
    for _ in 0..3 {
        assert_eq!(world.machine.reboot(), "1.1");
    }
    // Damaged behind its head, which is how it got as far as the loader.
    let volume = Volume::read(world.machine.disk).unwrap();
    let (name, cluster) = volume.ukis().find(|uki| uki.name().contains("1.1")).map(|uki| (uki.name().to_owned(), uki.chain[9])).unwrap();
    world.machine.disk.write(Area::Esp, volume.cluster_at(cluster), &[0; 512]).unwrap();
    assert_eq!(name, "garboard_1.1+0-3.efi");
    assert_eq!(world.machine.reboot(), "1.0");
    let mut agent = world.machine.agent(&world.server.url);
    assert!(agent.status.why.contains("did not come up in 3 starts"), "{}", agent.status.why);
    assert_eq!(agent.update(&asked()).await.unwrap(), None);
    assert_eq!(agent.status.wait.as_deref(), Some("failed-before"));
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
    assert_eq!(agent.rollback().await.unwrap_err().kind(), "no-rollback");
    agent.update(&asked()).await.unwrap();
    assert_eq!(world.machine.reboot(), "1.1");
    world.machine.bless(&world.new);
    let mut agent = world.machine.agent(&world.server.url);
    assert_eq!(agent.rollback().await.unwrap().as_str(), "1.0");
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

/// Where the device fails, and with it the agent, or the power.
async fn killed_anywhere(world: &World) {
    // What the agent remembers by then is what it starts from.
    let complete = world.machine_on(Disk::new(painted(&world.old)));
    complete.agent(&world.server.url).update(&asked()).await.unwrap();
    let writes = complete.disk.log.borrow().len() as u64;
    for budget in (0..writes).step_by(usize::try_from(writes).unwrap().div_ceil(if long() { 200 } else { 12 })) {
        let machine = world.machine_on(Disk::new(painted(&world.old)));
        let disk = machine.disk;
        let mut agent = machine.agent(&world.server.url);
        disk.budget.set(Some(budget));
        let _ = agent.update(&asked()).await;
        drop(agent);
        disk.budget.set(None);
        if budget % 2 == 1 {
            disk.lose_what_was_not_flushed();
        }
        assert_eq!(boot(disk, &machine.releases).unwrap().failures, 0, "{budget}");
        if machine.boots() == "1.0" {
            let mut agent = machine.agent(&world.server.url);
            agent.update(&asked()).await.unwrap();
        }
        assert_eq!(machine.boots(), "1.1", "{budget}");
        let way = machine.agent(&world.server.url).status.way.clone();
        assert_eq!(way.map(|came| came.version).as_deref(), Some("1.1"), "{budget}: what is there and how it came is known");
    }
}

#[tokio::test]
async fn wherever_the_agent_is_killed_it_goes_on() {
    killed_anywhere(&world().await).await;
}

#[tokio::test]
async fn wherever_the_agent_is_killed_it_goes_on_with_the_chunks_that_it_has() {
    killed_anywhere(&similar_world().await).await;
}

#[tokio::test]
async fn wherever_the_agent_is_killed_it_goes_on_with_the_patch() {
    killed_anywhere(&patched_world().await).await;
}

#[tokio::test]
async fn wherever_the_agent_is_killed_it_goes_on_with_the_patch_that_was_borrowed() {
    killed_anywhere(&borrowing_world().await).await;
}
