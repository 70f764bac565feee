//! Patch packs as they are published, applied as a host does: with the old bytes, the table and the payloads, and chunks where there is no patch.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod borrowing;
#[path = "../common/mod.rs"]
mod common;
mod diffs;
mod world;

use std::fs;

use proptest::prelude::*;
use publisher::Expiries;
use publisher::parts::{PARTS_FILE, Parts};
use publisher::publish::{Context, Offer, publish};
use publisher::repository::Repository;
use release_format::{Digest, MAX_REQUESTS, ObjectKind};

use world::{Files, World, noise, now, program, tree};

/// An edit that a package update may do to a tree.
fn edit(files: &mut Files, step: u64) {
    let names: Vec<String> = files.keys().cloned().collect();
    let name = &names[step as usize * 7 % names.len()];
    match step % 5 {
        0 => drop(files.insert(format!("usr/lib/libnew.so.{step}"), program(step, 4096, 40_000))),
        1 => {
            let body = files.remove(name).unwrap();
            files.insert(format!("usr/libexec/moved-{step}"), body);
        }
        2 => {
            let body = files.get_mut(name).unwrap();
            let at = body.len() / 3;
            body.splice(at..at, noise(step, 700));
        }
        3 => drop(files.insert("usr/bin/dockerd".to_owned(), program(1, 4096 + step as u32 * 64, 900_000 + 1000 * step as usize))),
        _ => {
            let body = files.get_mut(name).unwrap();
            body.truncate(body.len() * 3 / 4);
            if let Some(byte) = body.first_mut() {
                *byte ^= 1;
            }
        }
    }
}

#[test]
fn in_a_chain_of_20_releases_each_leads_to_each_later_one() {
    let world = World::new();
    let mut files = tree();
    let (mut images, mut told) = (Vec::new(), Vec::new());
    for step in 0..20 {
        edit(&mut files, step);
        let kernel = program(99, step as u32 / 4, 300_000);
        let (image, published) = world.publish(&format!("1.{step}"), &files, &kernel, 3);
        let costs = published.costs.unwrap();
        let offered = costs.chunks_from.iter().filter(|from| from.patch.is_some()).count();
        assert!(step < 3 || offered >= 1, "version 1.{step} offers no patch");
        told.extend(costs.chunks_from.into_iter().map(|from| (from, step)));
        images.push(image);
    }
    // What is told is what is fetched, with the gaps that are read past.
    let borrowed: Vec<_> = told.iter().filter(|(from, _)| from.borrowed).collect();
    assert!(borrowed.len() > 5, "{}", borrowed.len());
    for (from, to) in borrowed {
        let start: usize = from.version[2..].parse().unwrap();
        let (_, bytes, requests) = world.update(&images[start], &from.version, &format!("1.{to}"));
        let most = bytes + 32_768 * requests as u64 + bytes / 4;
        assert!((bytes..=most).contains(&from.patch.unwrap()), "{} to 1.{to}: {bytes} {from:?}", from.version);
    }
    for (to, new) in images.iter().enumerate().skip(1) {
        for (from, old) in images.iter().enumerate().take(to) {
            let (made, bytes, requests) = world.update(old, &format!("1.{from}"), &format!("1.{to}"));
            assert!(made == *new, "1.{from} to 1.{to}");
            let full = (new.root.len() + new.uki.len()) as u64;
            assert!(requests <= MAX_REQUESTS && bytes < full, "1.{from} to 1.{to}: {bytes} bytes in {requests} requests");
        }
    }
}

#[test]
fn a_version_alone_costs_little_and_moved_code_less_than_its_chunks() {
    let world = World::new();
    let files = tree();
    let kernel = program(99, 0, 300_000);
    world.publish("1.0", &files, &kernel, 3);
    let (_, published) = world.publish("1.1", &files, &kernel, 3);
    let costs = published.costs.unwrap();
    assert!(costs.chunks_from[0].patch.is_some_and(|bytes| bytes < 2048), "{costs:?}");
    let mut moved = files.clone();
    moved.insert("usr/bin/dockerd".to_owned(), program(1, 8192, 900_000));
    let (_, published) = world.publish("1.2", &moved, &kernel, 3);
    let costs = published.costs.unwrap();
    let patch = costs.chunks_from[0].patch.unwrap();
    assert!(patch * 5 < costs.chunks_from[0].cost.bytes, "{costs:?}");
    assert_eq!(costs.chunks_from[0].way(&costs.full), "patch");
}

#[test]
fn versions_that_were_taken_back_do_not_stand_before_the_one_that_a_patch_starts_from() {
    let world = World::new();
    let files: Files = [("etc/os-release".to_owned(), noise(1, 9000))].into();
    world.publish("1.0", &files, b"kernel", 0);
    for step in 1..=6 {
        world.publish(&format!("1.{step}"), &files, b"kernel", 0);
        world.withdraw(&format!("1.{step}"));
    }
    let (_, published) = world.publish("1.7", &files, b"kernel", 1);
    let costs = published.costs.unwrap();
    // Chunks and a difference cost less than such a patch, which is made all the same.
    let made = |from: &publisher::cost::CostFrom| from.patch.or(from.refused_patch).is_some();
    let told: Vec<_> = costs.chunks_from.iter().map(|from| (from.version.as_str(), made(from))).collect();
    assert_eq!(told, [("1.6", false), ("1.5", false), ("1.4", false), ("1.3", false), ("1.2", false), ("1.0", true)]);
}

/// Names of the differences that are there.
fn differences(world: &World) -> Vec<String> {
    let names = fs::read_dir(world.repository().join("objects")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".difference")).map(|name| format!("objects/{name}")).collect();
    names.sort();
    names
}

#[test]
fn a_release_has_differences_from_earlier_ones_and_pruning_keeps_those_of_live_ones() {
    let world = World::new();
    let mut files = tree();
    let mut images = Vec::new();
    for step in 0..5 {
        files.insert("etc/os-release".to_owned(), format!("VERSION=1.{step}").into_bytes());
        if step == 3 {
            world.withdraw("1.2");
        }
        let (image, published) = world.publish(&format!("1.{step}"), &files, &program(99, 0, 300_000), 0);
        let costs = published.costs.unwrap();
        for from in &costs.chunks_from {
            // The metadata, the release's name, the head of the UKI, and what says where they are.
            assert!(from.difference.is_some() && from.by_chunks(costs.map_and_index) < 1500, "1.{step}: {from:?}");
        }
        images.push(image);
    }
    let (last, ..) = world.release("1.4");
    let hashes: Vec<Digest> = ["1.3", "1.2", "1.1", "1.0"].iter().map(|version| world.release(version).0.root_hash).collect();
    assert_eq!(last.differences.iter().map(|info| info.from).collect::<Vec<_>>(), hashes);
    let both = last.map.size + last.index.size;
    assert!(last.differences.iter().all(|info| info.difference.size * 3 < both), "{:?} {both}", last.differences);
    // 1.2 was withdrawn, and its hosts have to get away.
    for from in [0, 1, 2, 3] {
        let (made, bytes, _) = world.update(&images[from], &format!("1.{from}"), "1.4");
        assert!(made == images[4] && bytes < 1500, "1.{from}: {bytes}");
    }
    assert_eq!(differences(&world).len(), 1 + 2 + 3 + 4);
    world.prune(2);
    let mut live: Vec<String> = ["1.3", "1.4"]
        .iter()
        .flat_map(|version| world.release(version).0.differences)
        .map(|info| info.difference.path(ObjectKind::Difference))
        .collect();
    live.sort();
    assert_eq!(differences(&world), live);
}

#[test]
fn a_patch_that_costs_more_than_chunks_is_told_and_not_kept() {
    let world = World::new();
    world.publish("1.0", &[("a".to_owned(), noise(1, 9000))].into(), b"kernel", 1);
    // The same chunks twice: one payload in a pack, and one in each of a patch's windows.
    let big = noise(2, 4 << 20);
    let (_, published) = world.publish("1.1", &[("big".to_owned(), big.clone()), ("twin".to_owned(), big)].into(), b"kernel", 1);
    let costs = published.costs.unwrap();
    assert!(costs.chunks_from[0].patch.is_none() && costs.chunks_from[0].refused_patch.is_some(), "{costs:?}");
    let objects = fs::read_dir(world.repository().join("objects")).unwrap();
    assert!(!objects.map(|entry| entry.unwrap().path()).any(|path| path.extension().is_some_and(|kind| kind == "patch")));
}

#[test]
fn a_release_that_would_need_too_many_packs_is_rebased_and_pruning_leaves_what_two_releases_need() {
    let world = World::new();
    let (mut files, mut images, mut rebased) = (Files::new(), Vec::new(), Vec::new());
    let last = 19_u64;
    for step in 0..=last {
        // Each version's pack has a file that all later ones have as well, and one that the next has no more.
        files.insert(format!("usr/lib/lib{step}.so"), noise(step + 1, 20_000));
        files.insert("usr/bin/daemon".to_owned(), noise(100 + step, 200_000));
        let (image, published) = world.publish(&format!("1.{step}"), &files, b"kernel", 0);
        images.push(image);
        rebased.extend(published.rebased.then_some(step));
        let (release, ..) = world.release(&format!("1.{step}"));
        assert!(release.packs.len() as u64 == if step < 16 { step + 1 } else { step - 15 }, "1.{step}: {}", release.packs.len());
    }
    // 1.16 would have been in 17 packs. What is copied then is what the release needs, and nothing else.
    assert_eq!(rebased, [16]);
    let whole = |step: u64| (images[step as usize].root.len() + images[step as usize].uki.len()) as u64;
    let (release, ..) = world.release("1.16");
    assert!(release.packs[0].size < whole(16), "{:?}", release.packs);
    // Hosts of the version before fetch no more of it than they would have.
    for from in [0, 15] {
        let (made, bytes, _) = world.update(&images[from as usize], &format!("1.{from}"), "1.16");
        assert!(made == images[16] && bytes < 200_000 + (16 - from) * 20_000 + 40_000, "1.{from}: {bytes}");
    }
    let held = || -> u64 {
        let objects = fs::read_dir(world.repository().join("objects")).unwrap();
        objects.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    };
    let before = held();
    world.prune(2);
    let (made, ..) = world.update(&images[last as usize - 1], &format!("1.{}", last - 1), &format!("1.{last}"));
    assert!(made == images[last as usize]);
    // The packs from the rebase on, of which the two releases need all but two versions of one file; and small files.
    let most = whole(last) + 3 * 200_000 + 100_000;
    assert!(held() < most && before > 20 * 200_000, "{before} bytes before, {} of at most {most} after", held());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_tree_leads_to_any_other(
        old in proptest::collection::btree_map("[a-d]{1,2}", proptest::collection::vec(0_u8..5, 0..9000), 0..8),
        new in proptest::collection::btree_map("[a-d]{1,2}", proptest::collection::vec(0_u8..5, 0..9000), 0..8),
        big in 1_usize..700_000, cut: prop::sample::Index, kernel in proptest::collection::vec(any::<u8>(), 1..4000),
    ) {
        let world = World::new();
        let (mut old, mut new) = (old, new);
        let body = noise(7, big);
        let mut turned = body.clone();
        turned.rotate_left(cut.index(big));
        old.insert("big".to_owned(), body);
        new.insert("big".to_owned(), turned);
        let (before, _) = world.publish("1.0", &old, &kernel, 1);
        let (after, _) = world.publish("1.1", &new, &kernel[..kernel.len() / 2 + 1], 1);
        let (made, ..) = world.update(&before, "1.0", "1.1");
        prop_assert!(made == after);
    }
}

/// What real releases cost: `GARBOARD_RELEASES` names directories with release parts, oldest first, separated by colons.
#[test]
#[ignore = "needs images that were built; docs/benchmarks.md"]
fn costs_of_real_releases() {
    let world = World::new();
    let mut repository = Repository::open(&world.repository(), &world.keys).unwrap();
    // What the first costs is of no interest here.
    for (out, level) in
        std::env::split_paths(&std::env::var_os("GARBOARD_RELEASES").unwrap()).zip([1].into_iter().chain(std::iter::repeat(19)))
    {
        let began = std::time::Instant::now();
        let mut context = Context { repository: &mut repository, keys: &world.keys, expiries: &Expiries::default(), now: now() };
        let offer = Offer { patches: 1, ..Offer::default() };
        let built = |parts: &[u8]| serde_json::from_slice::<Parts>(parts).unwrap().root_hash.parse::<Digest>().unwrap();
        let directory = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.join(PARTS_FILE).exists()).unwrap();
        let hash = *built(&fs::read(directory.join(PARTS_FILE)).unwrap()).as_bytes();
        let published = publish(&mut context, &out, &"stable".parse().unwrap(), &offer, level, &|_, _, _, _| Ok(hash)).unwrap();
        let memory = fs::read_to_string("/proc/self/status").unwrap();
        let peak = memory.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned();
        println!("{} s, {peak}: {}", began.elapsed().as_secs(), serde_json::to_string_pretty(&published).unwrap());
    }
}
