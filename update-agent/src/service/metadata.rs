//! Attacks on the metadata, by name: each is refused, and nothing is written to the disk.

use std::path::{Path, PathBuf};

use publisher::keys::Threshold;
use publisher::{Expiries, Role};

use super::machine::{Machine, World, asked, world};
use super::server::Server;
use super::shop::Shop;
use crate::crash::fixture::Release;

#[tokio::test]
async fn metadata_attacks_have_names() {
    let world = world().await;
    let metadata = world.shop.repository().join("metadata");
    let timestamp = std::fs::read(metadata.join("timestamp.json")).unwrap();
    // Seen once, so that there is something to go back from.
    let mut agent = world.machine.agent(&world.server.url);
    agent.check(true).await.unwrap();
    let newer = Release::new("1.2");
    world.shop.publish(&newer);
    agent.check(true).await.unwrap();
    let good = std::fs::read(metadata.join("timestamp.json")).unwrap();
    let mut check = async |content: Option<&[u8]>, kind: &str| {
        match content {
            Some(content) => std::fs::write(metadata.join("timestamp.json"), content).unwrap(),
            None => std::fs::remove_file(metadata.join("timestamp.json")).unwrap(),
        }
        let error = agent.check(true).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(world.machine.boots(), "1.0");
    };
    check(Some(&timestamp), "metadata-rolled-back").await;
    check(Some(&good[..good.len() / 2]), "metadata-syntax").await;
    let text = String::from_utf8(good.clone()).unwrap();
    let forged = text.replacen("\"version\":", "\"version\": 9", 1);
    check(Some(forged.as_bytes()), "metadata-signature").await;
    check(Some(&vec![b' '; 1 << 20]), "metadata-too-large").await;
    check(None, "not-found").await;
    // Somebody else's keys.
    let other = Shop::new();
    other.publish(&newer);
    let foreign = std::fs::read(other.repository().join("metadata/timestamp.json")).unwrap();
    check(Some(&foreign), "metadata-signature").await;
    std::fs::write(metadata.join("timestamp.json"), &good).unwrap();
    agent.check(true).await.unwrap();
}

#[tokio::test]
async fn the_wrong_image_or_channel_is_refused() {
    let world = world().await;
    let mut agent = world.machine.agent(&world.server.url);
    agent.host.image = "docker".parse().unwrap();
    assert_eq!(agent.update(&asked()).await.unwrap_err().kind(), "no-channel");
    let mut agent = world.machine.agent(&world.server.url);
    agent.host.architecture = "aarch64".parse().unwrap();
    assert_eq!(agent.update(&asked()).await.unwrap_err().kind(), "no-channel");
    let mut agent = world.machine.agent("http://127.0.0.1:9/");
    assert_eq!(agent.update(&asked()).await.unwrap_err().kind(), "connect");
}

/// What a check says about a repository; the disk is as it was.
pub(super) async fn refused(world: &World, kind: &str) {
    let mut agent = world.machine.agent(&world.server.url);
    let writes = world.machine.disk.log.borrow().len();
    let error = agent.update(&asked()).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert_eq!(world.machine.disk.log.borrow().len(), writes, "{kind}");
}

fn file(directory: &Path, ending: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.to_str().unwrap().ends_with(ending));
    found.sort();
    found.pop().unwrap()
}

#[tokio::test]
async fn expired_metadata_is_refused() {
    for role in [Role::Timestamp, Role::Snapshot, Role::Targets] {
        let world = world().await;
        let mut expiries = Expiries::default();
        match role {
            Role::Timestamp => expiries.timestamp = 0,
            Role::Snapshot => expiries.snapshot = 0,
            _ => expiries.targets = 0,
        }
        world.shop.publish_expiring(&Release::new("1.2"), &expiries);
        refused(&world, "metadata-expired").await;
    }
    // The root of the image itself.
    let shop = Shop::with_keys(Threshold::ONE, &Expiries { root: 0, ..Expiries::default() });
    shop.publish(&Release::new("1.1"));
    let server = Server::start(shop.repository()).await;
    let machine = Machine::new(&shop, &Release::new("1.0"));
    assert_eq!(machine.agent(&server.url).check(true).await.unwrap_err().kind(), "metadata-expired");
}

#[tokio::test]
async fn files_that_do_not_belong_together_are_refused() {
    let world = world().await;
    let metadata = world.shop.repository().join("metadata");
    let before = std::fs::read(file(&metadata, ".snapshot.json")).unwrap();
    world.shop.publish(&Release::new("1.2"));
    for ending in [".snapshot.json", ".targets.json"] {
        let path = file(&metadata, ending);
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, &before).unwrap();
        refused(&world, "metadata-digest").await;
        std::fs::write(&path, [&good[..], b" "].concat()).unwrap();
        refused(&world, "metadata-too-large").await;
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        refused(&world, "metadata-digest").await;
        std::fs::write(&path, &good).unwrap();
    }
}

#[tokio::test]
async fn a_target_of_the_wrong_length_or_content_is_refused() {
    let world = world().await;
    let path = file(&world.shop.repository().join("targets"), ".json");
    let good = std::fs::read(&path).unwrap();
    let mut other = good.clone();
    *other.last_mut().unwrap() ^= 1;
    for (content, kind) in [
        (other, "metadata-digest"),
        ([&good[..], b"}"].concat(), "metadata-too-large"),
        (good[..good.len() - 1].to_vec(), "metadata-digest"),
    ] {
        std::fs::write(&path, content).unwrap();
        refused(&world, kind).await;
    }
}

#[tokio::test]
async fn objects_that_are_not_what_the_channel_says_are_refused() {
    for (ending, flipped, cut) in [(".release.json", "object-digest", "object-length"), (".map", "object-digest", "object-length")] {
        let world = world().await;
        let path = file(&world.shop.repository().join("objects"), ending);
        let good = std::fs::read(&path).unwrap();
        let mut other = good.clone();
        other[good.len() / 2] ^= 1;
        let longer = [&good[..], b" "].concat();
        for (content, kind) in [(&other[..], flipped), (&good[..good.len() - 1], cut), (&longer[..], "too-large")] {
            std::fs::write(&path, content).unwrap();
            let mut agent = world.machine.agent(&world.server.url);
            let error = agent.update(&asked()).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{ending}: {error}");
            assert_eq!(world.machine.boots(), "1.0");
        }
    }
}

#[tokio::test]
async fn new_root_keys_are_followed_and_too_few_signatures_are_not() {
    let mut shop = Shop::with_keys(Threshold { keys: 3, signatures: 2 }, &Expiries::default());
    shop.publish(&Release::new("1.1"));
    let server = Server::start(shop.repository()).await;
    // What the image holds, before the rotation.
    let image_root = shop.directory.path().join("image-root.json");
    std::fs::copy(shop.root(), &image_root).unwrap();
    shop.rotate(&[Role::Root, Role::Targets, Role::Snapshot, Role::Timestamp]);
    shop.publish(&Release::new("1.2"));
    let machine = || Machine { root: image_root.clone(), ..Machine::new(&shop, &Release::new("1.0")) };
    let path = shop.repository().join("metadata/2.root.json");
    let good: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let signatures = good["signatures"].as_array().unwrap().clone();
    // Three old keys and three new ones have signed; two of each are enough, one is not.
    assert_eq!(signatures.len(), 6, "{signatures:?}");
    for kept in [vec![0], vec![0, 1, 2], vec![3, 4, 5], vec![]] {
        let mut few = good.clone();
        few["signatures"] = kept.iter().map(|&at: &usize| signatures[at].clone()).collect();
        std::fs::write(&path, few.to_string()).unwrap();
        let error = machine().agent(&server.url).check(true).await.unwrap_err();
        assert_eq!(error.kind(), "metadata-signature", "{kept:?}: {error}");
    }
    std::fs::write(&path, good.to_string()).unwrap();
    let (list, _) = machine().agent(&server.url).check(true).await.unwrap();
    assert_eq!(list.releases.len(), 2);
}
