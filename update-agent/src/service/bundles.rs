//! Bundles: updates without a network.

use publisher::Expiries;

use super::machine::{Machine, asked, world};
use super::shop::Shop;
use crate::agent::Wish;
use crate::crash::fixture::Release;

#[tokio::test]
async fn a_bundle_is_installed_with_no_network_after_its_timestamp_has_expired() {
    let (shop, old, new) = (Shop::new(), Release::new("1.0"), Release::new("1.1"));
    shop.publish_expiring(&new, &Expiries { timestamp: 0, snapshot: 0, ..Expiries::default() });
    let bundle = shop.bundle();
    let mut machine = Machine::new(&shop, &old);
    machine.releases.push(new);
    let mut agent = machine.agent("");
    assert_eq!(agent.apply(&bundle, &asked()).await.unwrap().as_str(), "1.1");
    assert_eq!(machine.boots(), "1.1");
}

#[tokio::test]
async fn bundles_that_are_not_what_they_say_are_refused() {
    let (shop, old) = (Shop::new(), Release::new("1.0"));
    shop.publish(&Release::new("1.1"));
    let bundle = shop.bundle();
    let good = std::fs::read(&bundle).unwrap();
    let machine = Machine::new(&shop, &old);
    let pack = good.windows(8).rposition(|bytes| bytes == b"GBPACK\0\0").unwrap();
    let mut flipped = good.clone();
    flipped[pack + 5000] ^= 1;
    for (content, kind) in [
        (&b"no archive at all"[..], "bundle"),
        (&good[..1024], "not-found"),
        (&good[..pack + 60_000], "dropped"),
        (&flipped[..], "payload-digest"),
    ] {
        std::fs::write(&bundle, content).unwrap();
        let error = machine.agent("").apply(&bundle, &asked()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(machine.boots(), "1.0");
    }
    std::fs::write(&bundle, &good).unwrap();
    let mut agent = machine.agent("");
    agent.host.image = "docker".parse().unwrap();
    assert_eq!(agent.apply(&bundle, &asked()).await.unwrap_err().kind(), "no-channel");
    let stranger = Machine { root: Shop::new().root(), ..Machine::new(&shop, &old) };
    let error = stranger.agent("").apply(&bundle, &asked()).await.unwrap_err();
    assert!(error.kind() == "no-update-root" || error.kind() == "metadata-signature", "{error}");

    let late = Shop::new();
    late.publish_expiring(&Release::new("1.1"), &Expiries { targets: 0, ..Expiries::default() });
    let machine = Machine::new(&late, &old);
    assert_eq!(machine.agent("").apply(&late.bundle(), &asked()).await.unwrap_err().kind(), "metadata-expired");
}

#[tokio::test]
async fn an_older_version_needs_to_be_asked_for_and_is_then_what_boots() {
    let (shop, older) = (Shop::new(), Release::new("0.9"));
    shop.publish(&older);
    let bundle = shop.bundle();
    let mut machine = Machine::new(&shop, &Release::new("1.0"));
    machine.releases.push(older);
    let mut agent = machine.agent("");
    let writes = machine.disk.log.borrow().len();
    assert_eq!(agent.apply(&bundle, &asked()).await.unwrap_err().kind(), "downgrade");
    assert_eq!(machine.disk.log.borrow().len(), writes);
    let wish = Wish { downgrade: true, ..asked() };
    assert_eq!(agent.apply(&bundle, &wish).await.unwrap().as_str(), "0.9");
    assert_eq!(machine.boots(), "0.9");
}

#[tokio::test]
async fn the_newer_metadata_of_a_server_are_not_undone_by_an_old_bundle() {
    let world = world().await;
    let bundle = world.shop.bundle();
    world.shop.publish(&Release::new("1.2"));
    world.machine.agent(&world.server.url).check(true).await.unwrap();
    let error = world.machine.agent("").apply(&bundle, &asked()).await.unwrap_err();
    assert_eq!(error.kind(), "metadata-rolled-back", "{error}");
}
