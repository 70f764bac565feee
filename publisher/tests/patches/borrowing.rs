//! Versions from which no patch was made: what they borrow of others, and what is made for them alone.

use std::fs;
use std::path::PathBuf;

use publisher::Expiries;
use publisher::publish::{Context, prune};
use publisher::repository::Repository;
use release_format::{Digest, LocalChunks, ObjectKind, ObjectRef, PatchInfo};

use crate::world::{Files, Image, World, now, program, tree};

/// 1.0, and versions after it that each change something more; each has a patch from the one before only. Gives the images.
fn published_one_after_the_other(world: &World, edits: &[fn(&mut Files)]) -> Vec<Image> {
    let mut files = tree();
    files.insert("usr/bin/containerd".to_owned(), program(3, 4096, 600_000));
    let kernel = program(99, 0, 300_000);
    let first: fn(&mut Files) = |_| ();
    let all = [&[first], edits].concat();
    let publish = |(step, edit): (usize, &fn(&mut Files))| {
        edit(&mut files);
        files.insert("etc/os-release".to_owned(), format!("VERSION=1.{step}").into_bytes());
        world.publish(&format!("1.{step}"), &files, &kernel, 1).0
    };
    all.iter().enumerate().map(publish).collect()
}

#[test]
fn hosts_for_whose_version_no_patch_was_made_borrow_operations_of_those_that_were() {
    let world = World::new();
    let dockerd = |files: &mut Files| drop(files.insert("usr/bin/dockerd".to_owned(), program(1, 8192, 900_000)));
    let containerd = |files: &mut Files| drop(files.insert("usr/bin/containerd".to_owned(), program(3, 8192, 600_000)));
    let images = published_one_after_the_other(&world, &[|_| (), dockerd, containerd, |_| ()]);
    let (last, map, index) = world.release("1.4");
    let starts: Vec<(Digest, bool)> = last.patches.iter().map(|info| (info.from, info.borrowed)).collect();
    // From 1.2 and 1.3 there is little to fetch but what the version changes.
    for (from, image) in images.iter().enumerate().take(4) {
        let (made, bytes, _) = world.update(image, &format!("1.{from}"), "1.4");
        assert!(made == images[4], "1.{from}");
        let (old, old_map, _) = world.release(&format!("1.{from}"));
        let local = LocalChunks::of(&old_map);
        let chunks: u64 = local.lacking(&map).iter().map(|number| u64::from(index.entry(*number).unwrap().len)).sum();
        if from < 3 {
            assert!(bytes * 4 < chunks || chunks < 5000, "1.{from}: {bytes} bytes, {chunks} of chunks");
        }
        assert!(from > 1 || starts.contains(&(old.root_hash, true)), "1.{from}: {starts:?}");
    }
    // Each pack is there once, however many tables count it, and stays as long as one does.
    let different: std::collections::HashSet<Digest> = last.patch_packs.iter().map(|pack| pack.sha256).collect();
    assert_eq!(different.len(), last.patch_packs.len());
    let mut repository = Repository::open(&world.repository(), &world.keys).unwrap();
    let mut context = Context { repository: &mut repository, keys: &world.keys, expiries: &Expiries::default(), now: now() };
    prune(&mut context, 1).unwrap();
    drop(repository);
    let left = fs::read_dir(world.repository().join("objects")).unwrap().map(|entry| entry.unwrap().path());
    let left: Vec<PathBuf> = left.filter(|path| path.extension().is_some_and(|kind| kind == "table")).collect();
    assert_eq!(left.len(), last.patches.len(), "tables of releases that are gone");
    let kept = |pack: &ObjectRef| world.repository().join(pack.path(ObjectKind::Patch)).exists();
    assert!(last.patch_packs.len() > 1 && last.patch_packs.iter().all(kept), "{:?}", last.patch_packs);
    let tables = |info: &PatchInfo| world.repository().join(info.table.path(ObjectKind::Table)).exists();
    assert!(last.patches.iter().all(tables), "{:?}", last.patches);
}

#[test]
fn an_earlier_patch_that_is_damaged_or_gone_is_told_and_nothing_is_borrowed_of_it() {
    for kind in ["table", "patch"] {
        let world = World::new();
        let dockerd = |files: &mut Files| drop(files.insert("usr/bin/dockerd".to_owned(), program(1, 8192, 900_000)));
        published_one_after_the_other(&world, &[dockerd]);
        let objects = fs::read_dir(world.repository().join("objects")).unwrap().map(|entry| entry.unwrap().path());
        for path in objects.filter(|path| path.extension().is_some_and(|extension| extension == kind)) {
            if kind == "table" { fs::remove_file(path).unwrap() } else { fs::write(path, b"short").unwrap() }
        }
        let (_, published) = world.publish("1.9", &tree(), &program(99, 0, 300_000), 0);
        let costs = published.costs.unwrap();
        assert!(costs.lost_patches.len() == 1 && costs.lost_patches[0].starts_with("from 1.0 to 1.1: "), "{:?}", costs.lost_patches);
        assert!(costs.chunks_from.iter().all(|from| !from.borrowed));
    }
}

#[test]
fn what_changed_twice_is_made_of_each_versions_own_bytes_and_later_releases_borrow_that() {
    let world = World::new();
    let edits: [fn(&mut Files); 4] = [
        |files| drop(files.insert("usr/bin/dockerd".to_owned(), program(1, 8192, 900_000))),
        |files| drop(files.insert("usr/bin/dockerd".to_owned(), program(1, 12_288, 900_000))),
        |files| drop(files.insert("usr/bin/containerd".to_owned(), program(3, 8192, 600_000))),
        |files| drop(files.insert("usr/bin/dockerd".to_owned(), program(1, 16_384, 900_000))),
    ];
    let images = published_one_after_the_other(&world, &edits);
    let lends = |version: &str| world.release(version).0.patches.iter().map(|info| info.lends.is_some()).collect::<Vec<_>>();
    for to in 2..5 {
        for (from, image) in images.iter().enumerate().take(to) {
            let (made, bytes, _) = world.update(image, &format!("1.{from}"), &format!("1.{to}"));
            assert!(made == images[to] && bytes < 60_000, "1.{from} to 1.{to}: {bytes}");
        }
    }
    // From 1.1 and 1.0 to 1.3 it is borrowed of what 1.2 was published with; 1.4 has another dockerd, of three versions' bytes.
    assert_eq!([lends("1.2"), lends("1.3")].map(|lends| lends.into_iter().filter(|lends| *lends).count()), [1, 0]);
    assert_eq!(lends("1.4").into_iter().filter(|lends| *lends).count(), 2);
    let packs = |version: &str| world.release(version).0.patch_packs;
    assert!(packs("1.3").iter().filter(|pack| packs("1.2").contains(pack)).count() == 2, "{:?}", packs("1.3"));
}

#[test]
fn a_version_whose_bytes_are_gone_is_told_and_others_have_their_patches_all_the_same() {
    let world = World::new();
    let edits: [fn(&mut Files); 2] = [
        |files| drop(files.insert("usr/bin/dockerd".to_owned(), program(1, 8192, 900_000))),
        |files| drop(files.insert("usr/bin/dockerd".to_owned(), program(1, 12_288, 900_000))),
    ];
    published_one_after_the_other(&world, &edits);
    let (first, ..) = world.release("1.0");
    fs::write(world.repository().join(first.packs[0].path(ObjectKind::Pack)), b"short").unwrap();
    let mut files = tree();
    files.insert("usr/bin/dockerd".to_owned(), program(1, 16_384, 900_000));
    files.insert("usr/bin/containerd".to_owned(), program(3, 4096, 600_000));
    let (_, published) = world.publish("1.3", &files, &program(99, 0, 300_000), 1);
    let costs = published.costs.unwrap();
    assert!(costs.lost_starts.len() == 1 && costs.lost_starts[0].starts_with("from 1.0: "), "{:?}", costs.lost_starts);
    let way = |version: &str| costs.chunks_from.iter().find(|from| from.version == version).unwrap().way(&costs.full);
    assert_eq!(["1.2", "1.1"].map(way), ["patch", "patch"]);
}

#[test]
fn a_publisher_that_wants_no_patches_makes_none_for_what_changed_twice_either() {
    let world = World::new();
    let mut files = tree();
    for step in 0..3_u32 {
        files.insert("usr/bin/dockerd".to_owned(), program(1, 4096 * (step + 1), 900_000));
        world.publish(&format!("1.{step}"), &files, &program(99, 0, 300_000), 0);
    }
    let (last, ..) = world.release("1.2");
    assert!(last.patches.is_empty() && last.patch_packs.is_empty(), "{last:?}");
}
