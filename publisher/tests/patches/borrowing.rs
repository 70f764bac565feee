//! Versions from which no patch was made: what they borrow of others, and what is made for them alone.

use std::fs;
use std::path::PathBuf;

use publisher::repository::Repository;
use release_format::limits::MAX_PATCHES;
use release_format::{Digest, LocalChunks, ObjectKind, ObjectRef, PatchInfo, Release};

use crate::world::{Files, Image, World, program, tree};

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
    world.prune(1);
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
fn hosts_of_a_withdrawn_version_get_away_by_a_patch() {
    let world = World::new();
    let mut files = tree();
    let mut publish = |version: &str, base: u32| {
        files.insert("usr/bin/dockerd".to_owned(), program(1, base, 900_000));
        world.publish(version, &files, &program(99, 0, 300_000), 1).0
    };
    let images = [publish("1.0", 4096), publish("1.1", 8192)];
    world.withdraw("1.1");
    let repaired = publish("1.2", 12_288);
    for (from, image) in ["1.0", "1.1"].into_iter().zip(&images) {
        let (made, bytes, _) = world.update(image, from, "1.2");
        assert!(made == repaired && bytes < 60_000, "{from}: {bytes}");
    }
    // The patch that is made in full is for the hosts that will take the release, not for the few that run what was withdrawn.
    let made: Vec<Digest> = world.release("1.2").0.patches.iter().filter(|info| !info.borrowed).map(|info| info.from).collect();
    assert_eq!(made, [world.release("1.0").0.root_hash]);
}

#[test]
fn hosts_of_a_retired_version_borrow_as_long_as_its_map_is_there() {
    let world = World::new();
    let images = published_one_after_the_other(&world, &[|_| (), |_| ()]);
    world.prune(1);
    let mut files = tree();
    files.insert("usr/bin/containerd".to_owned(), program(3, 4096, 600_000));
    files.insert("usr/bin/dockerd".to_owned(), program(1, 8192, 900_000));
    let (repaired, published) = world.publish("1.3", &files, &program(99, 0, 300_000), 1);
    let costs = published.costs.unwrap();
    assert!(costs.lost_patches.is_empty() && costs.lost_starts.is_empty(), "{costs:?}");
    for from in [0, 1] {
        let (made, bytes, _) = world.update(&images[from], &format!("1.{from}"), "1.3");
        assert!(made == repaired && bytes < 60_000, "1.{from}: {bytes}");
    }
    let (gone, _) = world.metadata_and_map("1.0");
    fs::remove_file(world.repository().join(gone.map.path(ObjectKind::Map))).unwrap();
    world.publish("1.4", &files, &program(99, 0, 300_000), 1);
    let from: Vec<Digest> = world.release("1.4").0.differences.iter().map(|info| info.from).collect();
    assert_eq!(from, ["1.3", "1.2", "1.1"].map(|version| world.metadata_and_map(version).0.root_hash));
}

#[test]
fn hosts_further_behind_than_the_metadata_list_find_their_patches_in_a_list_of_their_own() {
    let world = World::new();
    let last = MAX_PATCHES as u32 + 3;
    let files = |base: u32| Files::from([("usr/bin/dockerd".to_owned(), program(1, base, 200_000))]);
    let kernel = program(99, 0, 30_000);
    let publish = |number: u32, base, patches| world.publish(&format!("1.{number}"), &files(base), &kernel, patches).0;
    // The first has other bytes than the rest, so that nobody lends it anything.
    let mut images: Vec<Image> = (0..last).map(|number| publish(number, if number == 0 { 2048 } else { 4096 }, 0)).collect();
    images.push(publish(last, 8192, 1));
    let name = format!("1.{last}");
    let (release, ..) = world.release(&name);
    let hash = |number: u32| world.release(&format!("1.{number}")).0.root_hash;
    let listed: Vec<Digest> = release.patches.iter().map(|info| info.from).collect();
    assert_eq!(listed, (3..last).rev().map(hash).collect::<Vec<_>>());
    let object = release.older_patches.unwrap();
    let older = |release: &Release| {
        let listed = Repository::open(&world.repository(), &world.keys).unwrap().older_patches(release).unwrap();
        listed.into_iter().map(|info| (info.from, info.lends.is_some(), info.table)).collect::<Vec<_>>()
    };
    let lends = |release: &Release| older(release).into_iter().map(|(from, lends, _)| (from, lends)).collect::<Vec<_>>();
    assert_eq!(lends(&release), [(hash(2), false), (hash(1), false), (hash(0), true)]);
    for from in [0, 2, 3, last - 1] {
        let (made, bytes, _) = world.update(&images[from as usize], &format!("1.{from}"), &name);
        assert!(made == images[last as usize] && bytes < 20_000, "1.{from}: {bytes}");
    }
    // What was made for the first alone is borrowed by the next release.
    let next = publish(last + 1, 8192, 1);
    let (made, bytes, _) = world.update(&images[0], "1.0", &format!("1.{}", last + 1));
    assert!(made == next && bytes < 20_000, "{bytes}");
    assert_eq!(lends(&world.release(&format!("1.{}", last + 1)).0).last(), Some(&(hash(0), false)));
    // With a list that is damaged or gone nothing is deleted, and nothing is retired: what it names may be needed when it is restored.
    let list = world.repository().join(object.path(ObjectKind::Older));
    let whole = fs::read(&list).unwrap();
    for damage in [&|| fs::write(&list, b"short").unwrap(), &|| fs::remove_file(&list).unwrap()] as [&dyn Fn(); 2] {
        damage();
        let before = world.files();
        let error = world.try_prune(2).unwrap_err().to_string();
        let says = format!("nothing is deleted, since what version {name} needs is not known: ");
        assert!(error.starts_with(&says) && error.contains(".older") && error.lines().count() == 1, "{error}");
        assert!(error.ends_with("; restore the repository from a copy"), "{error}");
        assert_eq!(world.files(), before);
    }
    fs::write(&list, whole).unwrap();
    world.prune(2);
    assert!(list.exists());
    assert!(older(&release).iter().all(|(.., table)| world.repository().join(table.path(ObjectKind::Table)).exists()));
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
