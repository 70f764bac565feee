//! The attacks of the TUF specification and the cases of its conformance suite that apply to a client without delegations: rollback,
//! fast-forward, freeze, mix-and-match, wrong roots, keys that count no longer, thresholds. Each is refused by name, with the disk as it was.
//! Those that need no keys, and endless data, are in `metadata`; slow retrieval is in `slow`.

use std::path::{Path, PathBuf};

use publisher::Role;
use publisher::keys::Threshold;
use publisher::{Expiries, signer::Signer};
use serde_json::{Value, json};

use super::forge::sign;
use super::machine::{Machine, World, asked, world};
use super::metadata::refused;
use super::server::Server;
use super::shop::Shop;
use crate::crash::fixture::Release;

fn untouched(_: Role, _: &mut Value) {}

/// The metadata as they are, to go back to.
struct Kept(Vec<(PathBuf, Vec<u8>)>);

fn keep(shop: &Shop) -> Kept {
    let files = std::fs::read_dir(shop.metadata()).unwrap().map(|entry| entry.unwrap().path());
    Kept(files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect())
}

impl Kept {
    fn restore(&self, shop: &Shop) {
        for entry in std::fs::read_dir(shop.metadata()).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        for (path, bytes) in &self.0 {
            std::fs::write(path, bytes).unwrap();
        }
    }
}

async fn check(machine: &Machine, server: &Server) -> Result<usize, String> {
    let result = machine.agent(&server.url).check(true).await;
    result.map(|(list, _)| list.releases.len()).map_err(|error| error.kind().to_owned())
}

async fn accepted(world: &World) {
    assert_eq!(check(&world.machine, &world.server).await, Ok(1));
}

/// Two publications with `rotate` between them, and the root of before it, which an image may have.
async fn rotated(mut shop: Shop, rotate: impl FnOnce(&mut Shop)) -> (Shop, Server, PathBuf) {
    shop.publish(&Release::new("1.1"));
    let server = Server::start(shop.repository()).await;
    let image_root = shop.directory.path().join("image-root.json");
    std::fs::copy(shop.root(), &image_root).unwrap();
    rotate(&mut shop);
    shop.publish(&Release::new("1.2"));
    (shop, server, image_root)
}

/// A host whose image has this root.
fn trusting(shop: &Shop, image_root: &Path) -> Machine {
    Machine { root: image_root.to_owned(), ..Machine::new(shop, &Release::new("1.0")) }
}

#[tokio::test]
async fn rollback_of_each_role_is_refused() {
    for role in [Role::Timestamp, Role::Snapshot, Role::Targets] {
        let world = world().await;
        // The forger's tools make what is accepted, so what follows is refused for what was changed in it.
        world.shop.forge(world.shop.keys.signers(), &untouched);
        accepted(&world).await;
        world.shop.forge(world.shop.keys.signers(), &|of, signed| {
            if of == role {
                signed["version"] = json!(1);
            }
        });
        refused(&world, "metadata-rolled-back").await;
    }
}

#[tokio::test]
async fn mixed_metadata_are_refused() {
    // A file says another version than the one that names it.
    for (role, below) in [(Role::Timestamp, "snapshot.json"), (Role::Snapshot, "targets.json")] {
        let world = world().await;
        accepted(&world).await;
        world.shop.forge(world.shop.keys.signers(), &|of, signed| {
            if of == role {
                signed["meta"][below]["version"] = json!(77);
            }
        });
        refused(&world, "metadata-mixed").await;
    }
    // A file that was listed must not vanish.
    let world = world().await;
    let list = |signed: &mut Value, there: bool| {
        let meta = signed["meta"].as_object_mut().unwrap();
        if there {
            meta.insert("more.json".to_owned(), json!({"version": 1}));
        } else {
            meta.remove("more.json");
        }
    };
    for there in [true, false] {
        world.shop.forge(world.shop.keys.signers(), &|of, signed| {
            if of == Role::Snapshot {
                list(signed, there);
            }
        });
        if there {
            accepted(&world).await;
        } else {
            refused(&world, "metadata-mixed").await;
        }
    }
    // Nor must the targets themselves.
    let world = self::world().await;
    let snapshot = json!({"_type": "snapshot", "spec_version": "1.0.0", "version": 9, "expires": "2099-01-01T00:00:00Z", "meta": {}});
    let empty = sign(&snapshot, Role::Snapshot, world.shop.keys.signers());
    world.shop.forge(world.shop.keys.signers(), &|of, signed| {
        if of == Role::Timestamp {
            signed["meta"]["snapshot.json"] =
                json!({"version": 9, "length": empty.len(), "hashes": {"sha256": release_format::Digest::of(&empty)}});
        }
    });
    std::fs::write(world.shop.metadata().join("9.snapshot.json"), &empty).unwrap();
    refused(&world, "metadata-mixed").await;
    // One role's file in the place of another's.
    let world = self::world().await;
    std::fs::copy(world.shop.metadata().join("1.snapshot.json"), world.shop.metadata().join("timestamp.json")).unwrap();
    refused(&world, "metadata-signature").await;
}

#[tokio::test]
async fn a_role_does_not_sign_for_another_and_no_key_counts_twice() {
    for role in [Role::Timestamp, Role::Snapshot, Role::Targets] {
        let world = world().await;
        let others: Vec<Signer> = Signer::all(world.shop.keys.directory()).unwrap();
        let others: Vec<Signer> = others.into_iter().filter(|signer| !signer.path().ends_with(format!("{role}.pem"))).collect();
        assert_eq!(others.len(), 3);
        world.shop.forge(&others, &untouched);
        refused(&world, "metadata-signature").await;
    }
    let world = world().await;
    let path = world.shop.metadata().join("timestamp.json");
    let mut twice: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let signature = twice["signatures"][0].clone();
    twice["signatures"].as_array_mut().unwrap().push(signature);
    std::fs::write(&path, twice.to_string()).unwrap();
    refused(&world, "metadata-signature").await;
}

#[tokio::test]
async fn a_threshold_is_of_keys_and_not_of_signatures() {
    // Three root keys, of which two must sign.
    let shop = Shop::with_keys(Threshold { keys: 3, signatures: 2 }, &Expiries::default());
    let (shop, server, image_root) = rotated(shop, |shop| shop.rotate(&[Role::Root, Role::Timestamp])).await;
    let path = shop.metadata().join("2.root.json");
    let good: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let all = good["signatures"].as_array().unwrap().clone();
    let renamed = |of: usize, with: usize| json!({"keyid": all[with]["keyid"], "sig": all[of]["sig"]});
    let machine = || trusting(&shop, &image_root);
    // Three old keys and three new ones. One twice, in the same words or under another's name, is one.
    let one = || vec![all[0].clone(), all[3].clone()];
    for more in [vec![all[0].clone(), all[3].clone()], vec![renamed(0, 1), renamed(3, 4)], vec![renamed(0, 3), renamed(3, 0)]] {
        let mut few = good.clone();
        few["signatures"] = Value::Array([one(), more.clone()].concat());
        std::fs::write(&path, few.to_string()).unwrap();
        assert_eq!(check(&machine(), &server).await, Err("metadata-signature".to_owned()), "{more:?}");
    }
    let mut enough = good.clone();
    enough["signatures"] = Value::Array([one(), vec![all[1].clone(), all[4].clone()]].concat());
    std::fs::write(&path, enough.to_string()).unwrap();
    assert_eq!(check(&machine(), &server).await, Ok(2));
}

#[tokio::test]
async fn roots_follow_one_another_without_a_gap() {
    let (shop, server, image_root) = rotated(Shop::new(), |shop| shop.rotate(&[Role::Timestamp])).await;
    let machine = || trusting(&shop, &image_root);
    let path = shop.metadata().join("2.root.json");
    let good = std::fs::read(&path).unwrap();
    for version in [1, 3, u64::MAX] {
        let mut signed = shop.signed("2.root.json");
        signed["version"] = json!(version);
        std::fs::write(&path, sign(&signed, Role::Root, shop.keys.signers())).unwrap();
        assert_eq!(check(&machine(), &server).await, Err("metadata-rolled-back".to_owned()), "{version}");
        std::fs::write(&path, &good).unwrap();
    }
    // One that its own keys have not signed, and one that is no root.
    let mut signed = shop.signed("2.root.json");
    signed["version"] = json!(2);
    signed["roles"]["root"]["keyids"] = signed["roles"]["targets"]["keyids"].clone();
    let root_key: Vec<Signer> =
        Signer::all(shop.keys.directory()).unwrap().into_iter().filter(|one| one.path().ends_with("root.pem")).collect();
    std::fs::write(&path, sign(&signed, Role::Root, &root_key)).unwrap();
    assert_eq!(check(&machine(), &server).await, Err("metadata-signature".to_owned()));
    std::fs::copy(shop.metadata().join("1.targets.json"), &path).unwrap();
    assert_eq!(check(&machine(), &server).await, Err("metadata-syntax".to_owned()));
    std::fs::write(&path, &good).unwrap();
    assert_eq!(check(&machine(), &server).await, Ok(2));
}

#[tokio::test]
async fn an_expired_root_on_the_way_does_not_matter_and_the_last_one_does() {
    let expired = Expiries { root: 0, ..Expiries::default() };
    let (mut shop, server, image_root) = rotated(Shop::new(), |shop| shop.rotate_expiring(&[Role::Timestamp], &expired)).await;
    let (first, second) = (trusting(&shop, &image_root), trusting(&shop, &image_root));
    assert_eq!(check(&first, &server).await, Err("metadata-expired".to_owned()));
    shop.rotate(&[]);
    shop.publish(&Release::new("1.3"));
    assert_eq!(check(&second, &server).await, Ok(3));
    assert_eq!(check(&first, &server).await, Ok(3), "one that has stopped at it goes on too");
}

#[tokio::test]
async fn a_replaced_key_counts_no_more_even_when_new_roots_are_held_back() {
    let mut world = world().await;
    accepted(&world).await;
    let image_root = world.machine.directory.path().join("image-root.json");
    std::fs::copy(world.shop.root(), &image_root).unwrap();
    world.machine.root = image_root;
    let before = keep(&world.shop);
    world.shop.rotate(&[Role::Timestamp, Role::Snapshot, Role::Targets]);
    world.shop.publish(&Release::new("1.2"));
    let after = keep(&world.shop);
    // The thief of the old keys, before the host has heard of the new ones: nobody can know.
    let old = world.shop.old_signers();
    assert_eq!(old.len(), 3);
    assert_eq!(check(&world.machine, &world.server).await, Ok(2));
    // And after: with the new root in place, and held back.
    world.shop.forge(&old, &untouched);
    refused(&world, "metadata-signature").await;
    before.restore(&world.shop);
    world.shop.forge(&old, &untouched);
    assert!(!world.shop.metadata().join("2.root.json").exists());
    refused(&world, "metadata-signature").await;
    // Versions that were seen under the new keys are not forgotten at the next check.
    after.restore(&world.shop);
    world.shop.publish(&Release::new("1.3"));
    assert_eq!(check(&world.machine, &world.server).await, Ok(3));
    after.restore(&world.shop);
    refused(&world, "metadata-rolled-back").await;
    // A damaged copy of the root is fetched again.
    let copy = world.machine.state().datastore().join("roots/2.root.json");
    std::fs::write(&copy, b"{").unwrap();
    world.shop.publish(&Release::new("1.4"));
    assert_eq!(check(&world.machine, &world.server).await, Ok(3));
    assert!(std::fs::metadata(&copy).unwrap().len() > 100);
}

#[tokio::test]
async fn new_keys_recover_from_versions_that_a_thief_drove_up() {
    let mut world = world().await;
    let image_root = world.machine.directory.path().join("image-root.json");
    std::fs::copy(world.shop.root(), &image_root).unwrap();
    world.machine.root = image_root;
    let good = keep(&world.shop);
    world.shop.forge(world.shop.keys.signers(), &|_, signed| signed["version"] = json!(1_000_000));
    accepted(&world).await;
    good.restore(&world.shop);
    world.shop.publish(&Release::new("1.2"));
    refused(&world, "metadata-rolled-back").await;
    world.shop.rotate(&[Role::Timestamp, Role::Snapshot, Role::Targets]);
    world.shop.publish(&Release::new("1.3"));
    assert_eq!(check(&world.machine, &world.server).await, Ok(3));
}

#[tokio::test]
async fn names_that_lead_out_of_the_repository_are_refused() {
    for name in ["../../etc/passwd", "a/../../b", "/etc/passwd", "sub/file"] {
        let world = world().await;
        world.shop.forge(world.shop.keys.signers(), &|of, signed| {
            if of == Role::Targets {
                let target = signed["targets"].as_object().unwrap().values().next().unwrap().clone();
                signed["targets"][name] = target;
            }
        });
        refused(&world, "metadata-path").await;
    }
}

#[tokio::test]
async fn an_honest_update_passes_all_of_this() {
    let world = world().await;
    world.shop.forge(world.shop.keys.signers(), &untouched);
    let mut agent = world.machine.agent(&world.server.url);
    assert_eq!(agent.update(&asked()).await.unwrap().unwrap().as_str(), "1.1");
}
