//! Every disk that a power cut during an update can leave, for each way in which updates come: the old or the new version boots from it at
//! once, and an agent that has lost its journal too finishes the update.

use super::machine::{World, asked, opened, painted};
use super::shop::Shop;
use crate::crash::boot::boot;
use crate::crash::disk::{Disk, Event};
use crate::crash::fixture::{Release, noise};
use crate::crash::long;
use crate::crash::replay::crashes;
use crate::download::Way;

/// From how many of them the update is finished in `cargo test`.
const SAMPLE: usize = 40;

/// 1.0 runs; `between` and 1.1 changed another of its two files each, and all of them the metadata.
async fn world(publish: impl FnOnce(&Shop, [&Release; 3])) -> World {
    let changed = |release: &Release, version: &str, from: usize| {
        release.changed(version, |root| {
            root[300] ^= version.len() as u8;
            root[from..from + 12_000].copy_from_slice(&noise(version, 12_000));
        })
    };
    let old = Release::new("1.0");
    let between = changed(&old, "1.0.5", 10_000);
    let new = changed(&between, "1.1", 60_000);
    let shop = Shop::new();
    publish(&shop, [&old, &between, &new]);
    opened(shop, old, new).await
}

async fn cut_anywhere(world: &World, way: Way) {
    let whole = world.machine_on(Disk::new(painted(&world.old)));
    let mut agent = whole.agent(&world.server.url);
    agent.update(&asked()).await.unwrap();
    assert_eq!(agent.status.way.clone().unwrap().taken.way, way);
    let log: Vec<Event> = whole.disk.log.take();
    let (subsets, tears) = if long() { (2, 2) } else { (1, 1) };
    let states = crashes(&painted(&world.old), &log, subsets, tears);
    let all = states.len();
    assert!(all > 500, "{all} distinct crash states");
    let step = if long() { 1 } else { all.div_ceil(SAMPLE) };
    let (mut old, mut new) = (0, 0);
    for (number, state) in states.into_iter().enumerate() {
        let disk = Disk::new(state.image);
        let booted = boot(&disk, &world.machine.releases).unwrap_or_else(|why| panic!("{}: {why}", state.what));
        assert_eq!(booted.failures, 0, "{}", state.what);
        if booted.version.as_str() == "1.1" {
            new += 1;
            continue;
        }
        old += 1;
        // Machines stay in memory.
        if number.is_multiple_of(step) {
            let machine = world.machine_on(disk);
            machine.agent(&world.server.url).update(&asked()).await.unwrap_or_else(|error| panic!("{}: {error}", state.what));
            assert_eq!(machine.boots(), "1.1", "{}", state.what);
        }
    }
    println!("{all} distinct crash states: {old} boot the old version, {new} the new one");
    assert!(old > 0 && new > 0);
}

#[tokio::test]
async fn an_update_in_full_that_is_cut_anywhere_boots_old_or_new_and_is_finished() {
    cut_anywhere(&world(|shop, [_, _, new]| shop.publish(new)).await, Way::Full).await;
}

#[tokio::test]
async fn an_update_by_chunks_that_is_cut_anywhere_boots_old_or_new_and_is_finished() {
    cut_anywhere(&world(|shop, releases| releases.into_iter().for_each(|release| shop.publish(release))).await, Way::Chunks).await;
}

#[tokio::test]
async fn an_update_by_patch_that_is_cut_anywhere_boots_old_or_new_and_is_finished() {
    let world = world(|shop, [old, _, new]| {
        shop.publish(old);
        shop.publish_with_patch(new);
    });
    cut_anywhere(&world.await, Way::Patch).await;
}

#[tokio::test]
async fn an_update_by_a_borrowed_patch_that_is_cut_anywhere_boots_old_or_new_and_is_finished() {
    let world = world(|shop, [old, between, new]| {
        shop.publish(old);
        shop.publish_with_patch(between);
        shop.publish_with_patch(new);
    });
    cut_anywhere(&world.await, Way::Patch).await;
}
