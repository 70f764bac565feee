//! How much is fetched twice when the agent is killed while it downloads: of a release with many more bytes than lie between two entries of
//! the journal.

use std::time::Duration;

use super::machine::{asked, world_of};
use crate::crash::fixture::Release;

const MIB: u64 = 1 << 20;
/// Of a root that does not compress: 36 MiB.
const BLOCKS: u64 = 9 * 1024;
/// The limit for each interruption.
const TWICE: u64 = 8 * MIB;

/// The agent is killed each time so many bytes have come, before, at and behind the places where the journal is written; then a new one
/// goes on. What lies in the buffers of a connection when that ends counts as fetched.
#[tokio::test]
async fn at_most_8_mib_are_fetched_twice_after_each_kill() {
    let world = world_of(Release::of_blocks("1.0", BLOCKS), Release::of_blocks("1.1", BLOCKS)).await;
    let objects = std::fs::read_dir(world.shop.repository().join("objects")).unwrap();
    let packs = objects.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|extension| extension == "pack"));
    let whole: u64 = packs.map(|path| path.metadata().unwrap().len()).sum();
    assert!(whole > 36 * MIB, "{whole}");
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
    }
    let (sent, kills) = (sent(), wasted.len() as u64);
    eprintln!("killed {kills} times, {sent} bytes sent for {whole}; of no use: {wasted:?}");
    assert!(kills >= 3, "{kills}");
    assert!(wasted.iter().all(|bytes| *bytes <= TWICE), "{wasted:?}");
    assert!(sent <= whole + kills * TWICE, "{sent} bytes for {whole} in {kills} kills");
    assert_eq!(world.machine.boots(), "1.1");
}
