//! Updates by chunks with a difference in place of content map and pack index, and without it where it cannot be used.

use release_format::Digest;

use super::machine::{World, asked, opened, patched_world, similar_world};
use super::reuse::{after, flip, requests};
use super::shop::Shop;
use crate::crash::fixture::{Release, noise};
use crate::download::Way;

/// How often differences, maps and indexes were asked for.
fn asked_for(world: &World) -> [usize; 3] {
    [".difference", ".map", ".index"].map(|ending| requests(world, ending))
}

/// What an update of this version's agent would have left.
fn keep_map(world: &World, of: &str) {
    world.machine.state().keep_map(&Digest::new(world.old.image.uki.root_hash), &world.shop.map(of)).unwrap();
}

/// 1.0 runs, and 1.2 was published without patches.
pub async fn two_behind() -> World {
    let old = Release::of_blocks("1.0", 1024);
    let change = |release: &Release, version: &str, at: usize| {
        release.changed(version, |root| root[at..at + 60_000].copy_from_slice(&noise(version, 60_000)))
    };
    let between = change(&old, "1.1", 1 << 20);
    let new = change(&between, "1.2", 2 << 20);
    let shop = Shop::new();
    shop.publish(&old);
    shop.publish(&between);
    shop.publish(&new);
    opened(shop, old, new).await
}

#[tokio::test]
async fn a_host_two_releases_behind_fetches_the_difference_and_neither_map_nor_index() {
    let world = two_behind().await;
    keep_map(&world, "1.0");
    let mut agent = world.machine.agent(&world.server.url);
    assert_eq!(agent.update(&asked()).await.unwrap().unwrap().as_str(), "1.2");
    assert_eq!(world.machine.boots(), "1.2");
    let taken = agent.status.way.clone().unwrap().taken;
    assert_eq!((taken.way, taken.fallbacks, asked_for(&world)), (Way::Chunks, 0, [1, 0, 0]), "{taken:?}");
    // Four chunks of the root and the head of the UKI.
    let sent = world.server.shared.lock().unwrap().sent;
    assert!(taken.received == sent && (1 << 20..(1 << 20) + 1024).contains(&sent), "{sent} {taken:?}");
    assert_eq!(requests(&world, ".patch"), 0);
    // The one from 1.0 and the ones from 1.1, which were not asked for.
    let fetched: Vec<u64> = world.shop.objects("difference").iter().map(|path| path.metadata().unwrap().len()).collect();
    assert!(fetched.iter().all(|len| *len < 500), "{fetched:?}");
}

#[tokio::test]
async fn a_difference_that_is_gone_or_wrong_means_map_and_index_and_is_told() {
    type Damage = fn(&World);
    let damages: [(&str, Damage); 4] = [
        ("gone", |world| world.shop.objects("difference").iter().for_each(|path| std::fs::remove_file(path).unwrap())),
        ("damaged", |world| {
            let path = world.shop.objects("difference").remove(0);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[40] ^= 1;
            std::fs::write(path, bytes).unwrap();
        }),
        ("cut short", |world| {
            let path = world.shop.objects("difference").remove(0);
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(path, &bytes[..50]).unwrap();
        }),
        ("signed, but no difference", |world| world.shop.replace_difference(b"GBDIFF\0\0\x01\0\0\0\xff\xff\xff\0", 1)),
    ];
    for (what, damage) in damages {
        let world = similar_world().await;
        keep_map(&world, "1.0");
        let (taken, sent) = after(&world, damage).await;
        assert_eq!((taken.way, taken.fallbacks, asked_for(&world)), (Way::Chunks, 1, [1, 1, 1]), "{what}: {taken:?}");
        // As with it.
        assert!(sent < 640 * 1024 && taken.received == sent, "{what}: {sent}");
        assert!(taken.render().contains("one piece"), "{what}: {}", taken.render());
        let text = world.machine.agent(&world.server.url).state.versions().unwrap().events[0].detail.clone();
        assert!(text.contains("by chunks") && text.contains("one piece"), "{what}: {text}");
    }
}

#[tokio::test]
async fn a_difference_of_a_later_format_or_larger_than_map_and_index_is_passed_over() {
    for (bytes, format) in [(&[7; 5000][..], 1), (b"later", 2)] {
        let world = similar_world().await;
        keep_map(&world, "1.0");
        let (taken, _) = after(&world, |world| world.shop.replace_difference(bytes, format)).await;
        assert_eq!((taken.way, taken.fallbacks, asked_for(&world)), (Way::Chunks, 0, [0, 1, 1]), "{format}: {taken:?}");
    }
}

#[tokio::test]
async fn a_difference_from_another_map_than_the_one_on_state_is_not_used() {
    let world = similar_world().await;
    // Of the new release: what it says of the running slot is compared with what is there.
    keep_map(&world, "1.1");
    let (taken, _) = after(&world, |_| ()).await;
    assert_eq!((taken.way, asked_for(&world)), (Way::Chunks, [1, 1, 1]), "{taken:?}");
    assert!(taken.fallbacks > 1, "{taken:?}");
}

#[tokio::test]
async fn without_the_map_of_the_running_version_that_is_fetched_and_the_difference_still_used() {
    let world = two_behind().await;
    let mut agent = world.machine.agent(&world.server.url);
    agent.update(&asked()).await.unwrap();
    assert_eq!(asked_for(&world), [1, 1, 0]);
    assert_eq!(world.machine.boots(), "1.2");
}

#[tokio::test]
async fn a_patch_that_fails_and_a_difference_that_is_gone_mean_the_index() {
    let world = patched_world().await;
    let (taken, _) = after(&world, |world| {
        flip(world, (1 << 20) + 100_000);
        world.shop.objects("difference").iter().for_each(|path| std::fs::remove_file(path).unwrap());
    })
    .await;
    // The operation's chunks and the difference.
    assert_eq!((taken.way, asked_for(&world)), (Way::Patch, [1, 1, 1]), "{taken:?}");
    assert!(taken.fallbacks > 1, "{taken:?}");
}
