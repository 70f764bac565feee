//! A version that keeps its state in a later layout: on trial, failed, kept, and updated from.

use super::machine::{World, asked, world_of};
use crate::crash::fat_esp::FatEsp;
use crate::crash::fixture::Release;
use crate::status::AgentState;

fn layouts(world: &World) -> Vec<String> {
    let entries = std::fs::read_dir(world.machine.directory.path().join("garboard")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.starts_with("update"));
    names.sort();
    names
}

/// 1.0 has layout 1 and has installed 1.1, which has layout 2 and runs on trial.
async fn on_trial() -> World {
    let world = world_of(Release::with_floor("1.0", 1, &[]), Release::with_floor("1.1", 2, &[])).await;
    let mut agent = world.machine.agent(&world.server.url);
    agent.pin(Some(&"1.1".parse().unwrap())).unwrap();
    agent.update(&asked()).await.unwrap();
    assert_eq!(world.machine.reboot(), "1.1");
    world.machine.layout.set(2);
    let agent = world.machine.agent(&world.server.url);
    assert_eq!((agent.status.state, agent.status.pin.as_deref()), (AgentState::Trial, Some("1.1")));
    assert_eq!(layouts(&world), ["update", "update.2"]);
    assert!(world.machine.directory.path().join("garboard/update.2/made-by-layout-2").exists());
    world
}

#[tokio::test]
async fn a_trial_works_on_a_copy_and_a_failed_one_leaves_the_old_state_as_it_was() {
    let mut world = on_trial().await;
    // What the new version does to its state meanwhile is not the old one's business.
    world.machine.agent(&world.server.url).pin(None).unwrap();
    world.machine.verdict(&world.new, "failed", "docker.service is failed");
    crate::commit::set_aside(&mut FatEsp(world.machine.disk), &world.new.image.uki.version).unwrap();
    assert_eq!(world.machine.reboot(), "1.0");
    world.machine.layout.set(1);
    let mut agent = world.machine.agent(&world.server.url);
    assert_eq!(agent.status.pin.as_deref(), Some("1.1"));
    assert!(agent.status.why.contains("docker.service is failed"), "{}", agent.status.why);
    assert_eq!(layouts(&world), ["update"]);
    // The next trial begins with what the old version knows by now.
    agent.pin(None).unwrap();
    let next = Release::with_floor("1.2", 2, &[]);
    world.shop.publish(&next);
    world.machine.releases.push(next);
    assert_eq!(agent.update(&asked()).await.unwrap().unwrap().as_str(), "1.2");
    assert_eq!(world.machine.reboot(), "1.2");
    world.machine.layout.set(2);
    let agent = world.machine.agent(&world.server.url);
    assert_eq!(agent.status.pin, None);
    let events: Vec<String> = agent.state.versions().unwrap().events.into_iter().map(|event| event.what).collect();
    assert_eq!(events, ["installed", "failed", "installed"]);
}

#[tokio::test]
async fn the_old_layout_stays_while_a_version_that_reads_it_could_be_fallen_back_to() {
    let mut world = on_trial().await;
    world.machine.bless(&world.new);
    let mut agent = world.machine.agent(&world.server.url);
    assert_eq!(agent.status.state, AgentState::Idle);
    // Nobody goes back to it on purpose; a damaged root would.
    assert_eq!(layouts(&world), ["update", "update.2"]);
    assert_eq!(agent.rollback().await.unwrap_err().kind(), "state-floor");
    agent.pin(None).unwrap();
    let next = Release::with_floor("1.2", 2, &[]);
    world.shop.publish(&next);
    world.machine.releases.push(next.clone());
    assert_eq!(agent.update(&asked()).await.unwrap().unwrap().as_str(), "1.2");
    assert_eq!(world.machine.reboot(), "1.2");
    assert_eq!(world.machine.agent(&world.server.url).status.state, AgentState::Trial);
    world.machine.bless(&next);
    world.machine.agent(&world.server.url);
    assert_eq!(layouts(&world), ["update.2"]);
    // A program that reads layout 1 only says so and changes nothing.
    let path = world.machine.directory.path().join("garboard/update");
    let error = crate::agent::AgentError::from(crate::state::State::open(&path).unwrap_err());
    assert_eq!(error.kind(), "state-layout", "{error}");
    assert_eq!(layouts(&world), ["update.2"]);
}
