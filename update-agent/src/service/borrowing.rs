//! Updates of a host for whose version no patch was made, by operations of the patches between it and the new one.

use super::machine::{World, borrowing_world};
use super::reuse::{after, flip, requests};
use crate::download::Way;

fn asked_for(world: &World) -> [usize; 5] {
    [".table", ".patch", ".difference", ".pack", ".index"].map(|ending| requests(world, ending))
}

#[tokio::test]
async fn a_host_two_releases_behind_borrows_what_both_changed_and_fetches_chunks_only_of_the_rest() {
    let world = borrowing_world().await;
    let (taken, sent) = after(&world, |_| ()).await;
    assert_eq!((taken.way, taken.fallbacks), (Way::Patch, 0), "{taken:?}");
    // One table, two packs, and what neither makes of 1.0's bytes: the metadata, which both changed, and the head of the UKI.
    assert_eq!(asked_for(&world), [1, 2, 1, 2, 0]);
    // The new 65,000 bytes, two chunks of 8 KiB and 512 bytes, and little more.
    assert!((65_000..65_000 + 8192 + 512 + 2000).contains(&sent), "{sent}");
}

#[tokio::test]
async fn whatever_is_wrong_with_what_is_borrowed_its_chunks_are_fetched() {
    type Damage = fn(&World);
    let damages: [(&str, Damage, Way, u64); 4] = [
        (
            "the packs are gone",
            |world| world.shop.objects("patch").iter().for_each(|path| std::fs::remove_file(path).unwrap()),
            Way::Chunks,
            2,
        ),
        (
            "the tables are gone",
            |world| world.shop.objects("table").iter().for_each(|path| std::fs::remove_file(path).unwrap()),
            Way::Chunks,
            1,
        ),
        ("an old byte is wrong", |world| flip(world, (1 << 20) + 100_000), Way::Patch, 2),
        (
            "the packs are damaged",
            |world| {
                for path in world.shop.objects("patch") {
                    let mut bytes = std::fs::read(&path).unwrap();
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    std::fs::write(path, bytes).unwrap();
                }
            },
            Way::Chunks,
            2,
        ),
    ];
    for (what, damage, way, fallbacks) in damages {
        let world = borrowing_world().await;
        let (taken, _) = after(&world, damage).await;
        assert_eq!(taken.way, way, "{what}: {taken:?}");
        assert!(taken.fallbacks >= fallbacks && taken.received < taken.full, "{what}: {taken:?}");
    }
}

#[tokio::test]
async fn a_host_that_is_far_behind_finds_its_patch_in_the_list_for_such() {
    let world = borrowing_world().await;
    let (taken, sent) = after(&world, |world| world.shop.patches_in_a_list(None)).await;
    assert_eq!((taken.way, taken.fallbacks), (Way::Patch, 0), "{taken:?}");
    assert_eq!((requests(&world, ".older.json"), asked_for(&world)), (1, [1, 2, 0, 2, 1]));
    assert!(sent < 65_000 + 8192 + 512 + 2000, "{sent}");
}

#[tokio::test]
async fn without_that_list_it_fetches_chunks() {
    let lists = |world: &World| {
        world.shop.patches_in_a_list(None);
        let lists: Vec<_> = world.shop.objects("json").into_iter().filter(|path| path.to_string_lossy().ends_with("older.json")).collect();
        assert!(!lists.is_empty());
        lists
    };
    let damages: [&dyn Fn(&World); 4] = [
        &|world| world.shop.patches_in_a_list(Some(b"{\"format\": 2}")),
        &|world| world.shop.patches_in_a_list(Some(b"no list")),
        &|world| lists(world).iter().for_each(|path| std::fs::remove_file(path).unwrap()),
        // What it should be, but for one byte.
        &|world| {
            for path in lists(world) {
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[20] ^= 1;
                std::fs::write(path, bytes).unwrap();
            }
        },
    ];
    for damage in damages {
        let world = borrowing_world().await;
        let (taken, _) = after(&world, damage).await;
        assert_eq!((taken.way, taken.fallbacks, requests(&world, ".table")), (Way::Chunks, 1, 0), "{taken:?}");
        assert!(taken.received < taken.full, "{taken:?}");
    }
}
