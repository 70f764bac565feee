//! Tables of patches that somebody signed and that are wrong all the same: the update comes by chunks.

use release_format::limits::MAX_SOURCE;
use release_format::{ChunkRun, Digest, ObjectKind, Part, PatchTable, SourceRun};

use super::machine::patched_world;
use super::reuse::{after, requests};
use super::shop::Shop;
use crate::download::Way;

impl Shop {
    /// Changes the table of the newest release's patch, named and signed as if it were right.
    fn change_table(&self, change: fn(&mut PatchTable)) {
        self.replace_release(|repository, release| {
            let bytes = repository.read_object(&release.patches[0].table, ObjectKind::Table).unwrap();
            let mut table = PatchTable::decode(&bytes, &release.patch_packs).unwrap();
            change(&mut table);
            release.patches[0].table = repository.write_object(&table.encode(3).unwrap(), ObjectKind::Table).unwrap();
        });
    }
}

#[tokio::test]
async fn a_table_that_cannot_be_right_is_not_applied_and_the_update_comes_by_chunks() {
    type Change = fn(&mut PatchTable);
    let wrong: [(&str, Change); 7] = [
        ("for another release", |table| table.map.source = Digest::of(b"another release")),
        ("makes no map", |table| table.map.frame.truncate(table.map.frame.len() / 2)),
        ("old bytes that are not there", |table| {
            table.operations[0].sources = vec![SourceRun { part: Part::Root, offset: 1 << 40, len: 4096 }];
        }),
        ("a window over the limit", |table| {
            let run = SourceRun { part: Part::Root, offset: 0, len: 1 << 20 };
            table.operations[0].sources = vec![run; usize::try_from(MAX_SOURCE >> 20).unwrap() + 1];
        }),
        ("chunks that are not there", |table| table.operations[0].chunks = vec![ChunkRun { first: 9999, count: 1 }]),
        ("chunks made twice", |table| table.operations.push(table.operations[0].clone())),
        ("no chunks", |table| table.operations[0].chunks.clear()),
    ];
    for (what, change) in wrong {
        let world = patched_world().await;
        let (taken, _) = after(&world, |world| world.shop.change_table(change)).await;
        assert_eq!((taken.way, taken.fallbacks, requests(&world, ".patch")), (Way::Chunks, 1, 0), "{what}: {taken:?}");
        assert!(taken.received < taken.full, "{what}: {taken:?}");
    }
}

/// The place of an operation's payload in a pack is the publisher's word only: other bytes there mean chunks for what it makes.
#[tokio::test]
async fn a_payload_that_is_another_one_costs_its_chunks() {
    let world = patched_world().await;
    let (taken, _) = after(&world, |world| {
        world.shop.change_table(|table| {
            let operation = table.operations.iter_mut().find(|operation| operation.len > 1).unwrap();
            (operation.offset, operation.len) = (operation.offset + 1, operation.len - 1);
        });
    })
    .await;
    assert!(taken.fallbacks > 0 && taken.received < taken.full, "{taken:?}");
}
