//! How much is fetched twice when the agent is killed while it downloads: of a release with many more bytes than lie between two entries of
//! the journal.

use std::time::Duration;

use super::machine::{World, asked, opened, world_of};
use super::shop::Shop;
use crate::crash::fixture::{Release, noise};
use crate::download::Way;

const MIB: u64 = 1 << 20;
/// Of a root that does not compress: 36 MiB.
const BLOCKS: u64 = 9 * 1024;
/// The limit for each interruption.
const TWICE: u64 = 8 * MIB;

/// All but the first 8 MiB of the root are new.
async fn mostly_new(publish: impl FnOnce(&Shop, &Release)) -> World {
    let old = Release::of_blocks("1.0", BLOCKS);
    let new = old.changed("1.1", |root| {
        let kept = 8 * MIB as usize;
        let more = noise("1.1", root.len() - kept);
        root[kept..].copy_from_slice(&more);
    });
    let shop = Shop::new();
    shop.publish(&old);
    publish(&shop, &new);
    opened(shop, old, new).await
}

#[tokio::test]
async fn at_most_8_mib_are_fetched_twice_after_each_kill() {
    let world = world_of(Release::of_blocks("1.0", BLOCKS), Release::of_blocks("1.1", BLOCKS)).await;
    killed_often(&world, "pack", Way::Full, 0).await;
}

#[tokio::test]
async fn at_most_8_mib_are_fetched_twice_after_each_kill_by_chunks_whose_difference_goes() {
    let world = mostly_new(Shop::publish).await;
    killed_often(&world, "pack", Way::Chunks, 1).await;
}

#[tokio::test]
async fn at_most_8_mib_are_fetched_twice_after_each_kill_by_patch() {
    let world = mostly_new(Shop::publish_with_patch).await;
    killed_often(&world, "patch", Way::Patch, 0).await;
}

/// What is borrowed lies in two packs of 14 MiB each, and the head of the UKI comes by chunks.
#[tokio::test]
async fn at_most_8_mib_are_fetched_twice_after_each_kill_by_a_borrowed_patch() {
    let changed = |release: &Release, version: &str, from: u64| {
        release.changed(version, |root| {
            let from = (from * MIB) as usize;
            root[from..from + 14 * MIB as usize].copy_from_slice(&noise(version, 14 * MIB as usize));
        })
    };
    let old = Release::of_blocks("1.0", BLOCKS);
    let between = changed(&old, "1.0.5", 4);
    let new = changed(&between, "1.1", 20);
    let shop = Shop::new();
    shop.publish(&old);
    shop.publish_with_patch(&between);
    shop.publish_with_patch(&new);
    let world = opened(shop, old, new).await;
    killed_often(&world, "patch", Way::Patch, 1).await;
}

/// The agent is killed each time so many bytes have come, before, at and behind the places where the journal is written; then a new one
/// goes on. What lies in the buffers of a connection when that ends counts as fetched. After the second time there is no difference any
/// more: the place in a download is the same with the whole index.
async fn killed_often(world: &World, ending: &str, way: Way, fallbacks: u64) {
    let sizes = world.shop.objects(ending).iter().map(|path| path.metadata().unwrap().len()).collect::<Vec<_>>();
    // Of packs that of the new release: the old one's is larger.
    let whole = if ending == "pack" { *sizes.iter().min().unwrap() } else { sizes.iter().sum() };
    assert!(whole > 27 * MIB, "{whole}");
    let sent = || world.server.shared.lock().unwrap().sent;
    let mut wasted = Vec::new();
    for bytes in [2 * MIB, 8 * MIB - 1, 5 * MIB, 13 * MIB, 10 * MIB].into_iter().cycle() {
        assert!(wasted.len() < 12, "it does not come to an end: {wasted:?}");
        let mut agent = world.machine.agent(&world.server.url);
        let noted = || world.machine.state().journal().unwrap().map_or(0, |journal| journal.position.fetched);
        let (start, noted_before, wish) = (sent(), noted(), asked());
        tokio::select! {
            result = agent.update(&wish) => {
                assert_eq!(result.unwrap().unwrap().as_str(), "1.1");
                let taken = agent.status.way.clone().unwrap().taken;
                assert_eq!((taken.way, taken.fallbacks), (way, fallbacks), "{taken:?}");
                break;
            }
            () = async {
                while sent() < start + bytes {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            } => {}
        }
        drop(agent);
        // The server notices that nobody listens.
        tokio::time::sleep(Duration::from_millis(50)).await;
        wasted.push((sent() - start) - (noted() - noted_before));
        if wasted.len() == 2 {
            world.shop.objects("difference").iter().for_each(|path| std::fs::remove_file(path).unwrap());
        }
    }
    let (sent, kills) = (sent(), wasted.len() as u64);
    eprintln!("killed {kills} times, {sent} bytes sent for {whole}; of no use: {wasted:?}");
    assert!(kills >= 3, "{kills}");
    assert!(wasted.iter().all(|bytes| *bytes <= TWICE), "{wasted:?}");
    assert!(sent <= whole + kills * TWICE, "{sent} bytes for {whole} in {kills} kills");
    assert_eq!(world.machine.boots(), "1.1");
}
