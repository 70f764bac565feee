//! A host with its disk in memory, its state, and the firmware and `init` beside it.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use release_format::Kernel;

use super::server::Server;
use super::shop::Shop;
use crate::agent::{Agent, AgentError, Paths, Wish};
use crate::crash::boot::boot;
use crate::crash::disk::{Disk, Image as DiskImage};
use crate::crash::fat_esp::FatEsp;
use crate::crash::fixture::{Release, shipped};
use crate::esp::EspFiles;
use crate::etcd::Etcd;
use crate::host::Host;
use crate::kernel::Rebuild;
use crate::settings::Settings;
use crate::slots::Slots;
use crate::state::{Migration, State};
use crate::status::Status;

const NOW: i64 = 1_800_000_000;

/// A host with its disk and state.
pub struct Machine {
    pub disk: &'static Disk,
    pub directory: tempfile::TempDir,
    pub root: PathBuf,
    pub releases: Vec<Release>,
    /// What the versions do that it runs, from when it is changed.
    pub layout: Cell<u32>,
}

/// A host without etcd.
pub struct NoEtcd;

#[async_trait(?Send)]
impl Etcd for NoEtcd {
    async fn runs(&self) -> Result<bool, String> {
        Ok(false)
    }

    async fn cluster(&self) -> Result<String, String> {
        Err("there is no etcd".to_owned())
    }

    async fn save(&self, _: &Path) -> Result<(), String> {
        Err("there is no etcd".to_owned())
    }
}

/// A host without the memory to rebuild kernels.
pub struct NoKernels;

#[async_trait(?Send)]
impl Rebuild for NoKernels {
    fn available(&self) -> u64 {
        0
    }

    async fn rebuild(&self, _: &[u8], _: &[u8]) -> Result<Vec<u8>, String> {
        Err("there is no memory".to_owned())
    }
}

/// A layout that does not exist yet: the pin is in another file.
fn to_layout_2(directory: &Path) -> std::io::Result<()> {
    std::fs::write(directory.join("made-by-layout-2"), std::fs::read(directory.join("versions.json"))?)
}

thread_local! {
    /// The last one made: a test that makes hundreds of machines has their common bytes once.
    static PAINTED: RefCell<Option<([u8; 32], DiskImage)>> = const { RefCell::new(None) };
}

/// As it is shipped, but for the other slot: what that held before must not shine through.
pub fn painted(installed: &Release) -> DiskImage {
    let key = installed.image.uki.root_hash;
    PAINTED.with_borrow_mut(|last| {
        if let Some((_, image)) = last.as_ref().filter(|(of, _)| *of == key) {
            return image.clone();
        }
        let mut image = shipped(installed);
        let slot = image.layout.roots[1].clone();
        let mut bytes = (*image.base).clone();
        bytes[slot.start as usize..slot.end as usize].fill(0xa5);
        image.base = Arc::new(bytes);
        *last = Some((key, image.clone()));
        image
    })
}

impl Machine {
    pub fn new(shop: &Shop, installed: &Release) -> Self {
        Self::on(Disk::new(painted(installed)), shop, installed)
    }

    /// With this disk. It stays in memory, since the agent's parts are of no lifetime.
    fn on(disk: Disk, shop: &Shop, installed: &Release) -> Self {
        let disk: &'static Disk = Box::leak(Box::new(disk));
        Self { disk, directory: tempfile::tempdir().unwrap(), root: shop.root(), releases: vec![installed.clone()], layout: Cell::new(1) }
    }

    pub fn state(&self) -> State {
        let migrations: [Migration; 1] = [to_layout_2];
        State::open_as(&self.directory.path().join("garboard/update"), self.layout.get(), &migrations).unwrap()
    }

    pub fn verdict(&self, release: &Release, verdict: &str, reason: &str) {
        let directory = self.directory.path().join("garboard/verdicts");
        std::fs::create_dir_all(&directory).unwrap();
        let uki = &release.image.uki;
        let text = serde_json::json!({"version": uki.version.as_str(), "root_hash": crate::verity::hex(&uki.root_hash), "verdict": verdict, "reason": reason, "time": NOW});
        std::fs::write(directory.join(format!("{}.json", uki.version)), text.to_string()).unwrap();
    }

    /// The agent as it starts on whatever would boot.
    pub fn agent(&self, server: &str) -> Agent {
        let booted = boot(self.disk, &self.releases).unwrap();
        let release = self.releases.iter().find(|release| release.image.uki.version == booted.version).unwrap();
        let slot = Slots::read(self.disk).unwrap().find(&release.image.uki.root_hash).unwrap();
        let settings = format!(r#"{{"garboard": {{"update": {{"server": "{server}", "stall-timeout": 1}}}}}}"#);
        let run = self.directory.path().join("run");
        std::fs::create_dir_all(&run).unwrap();
        let mut agent = Agent {
            host: Host {
                running: release.running(slot),
                disk: "/dev/none".into(),
                uki: booted.name,
                machine_id: "0123456789abcdef0123456789abcdef".into(),
                image: "tiny".parse().unwrap(),
                architecture: "x86_64".parse().unwrap(),
                floor: release.floor.clone(),
            },
            settings: Settings::parse(settings.as_bytes()),
            paths: Paths {
                update_root: self.root.clone(),
                status: run.join("status.json"),
                reboot_needed: run.join("reboot-needed"),
                locksmith: run.join("no-reboot-daemon"),
                esp_lock: None,
                control: run.join("control"),
                metrics: run.join("metrics"),
            },
            state: self.state(),
            target: Box::new(self.disk),
            esp: Box::new(FatEsp(self.disk)),
            etcd: Box::new(NoEtcd),
            kernels: Box::new(NoKernels),
            status: Status::default(),
            retry_after: None,
            clock: crate::agent::system_clock,
        };
        agent.start().unwrap();
        agent
    }

    pub fn boots(&self) -> String {
        boot(self.disk, &self.releases).unwrap().version.to_string()
    }

    /// The firmware starts what is chosen, and takes one try off.
    pub fn reboot(&self) -> String {
        let booted = boot(self.disk, &self.releases).unwrap();
        if let Ok(mut name) = booted.name.parse::<disk_layout::UkiName>()
            && let Some(counter) = &mut name.counter
            && counter.left > 0
        {
            (counter.left, counter.done) = (counter.left - 1, counter.done + 1);
            FatEsp(self.disk).rename(&booted.name, &name.to_string()).unwrap();
        }
        booted.version.to_string()
    }

    pub fn bless(&self, release: &Release) {
        self.verdict(release, "good", "");
        let version = &release.image.uki.version;
        let mut esp = FatEsp(self.disk);
        let name = esp.list().unwrap().into_iter().map(|file| file.name).find(|name| name.starts_with(&format!("garboard_{version}+")));
        if let Some(name) = name {
            esp.rename(&name, &format!("garboard_{version}.efi")).unwrap();
        }
    }
}

pub fn asked() -> Wish {
    Wish { asked: true, ..Wish::default() }
}

pub struct World {
    pub shop: Shop,
    pub server: Server,
    pub machine: Machine,
    pub old: Release,
    pub new: Release,
}

impl World {
    /// Another machine of this world, on whose disk the old version is good, and something may have happened.
    pub fn machine_on(&self, disk: Disk) -> Machine {
        let machine = Machine { releases: self.machine.releases.clone(), ..Machine::on(disk, &self.shop, &self.old) };
        machine.verdict(&self.old, "good", "");
        machine
    }
}

/// 1.0 runs, 1.1 is published.
pub async fn world() -> World {
    world_of(Release::new("1.0"), Release::new("1.1")).await
}

pub async fn world_of(old: Release, new: Release) -> World {
    let shop = Shop::new();
    shop.publish(&new);
    opened(shop, old, new).await
}

/// What a shop has published is served, and `old` runs.
pub async fn opened(shop: Shop, old: Release, new: Release) -> World {
    let server = Server::start(shop.repository()).await;
    let mut machine = Machine::new(&shop, &old);
    machine.verdict(&old, "good", "");
    machine.releases.push(new.clone());
    World { shop, server, machine, old, new }
}

/// 1.0 runs and was published, and 1.1 differs from it in two of its 20 chunks and in the UKI: most of it is copied.
pub async fn similar_world() -> World {
    similar(false).await
}

/// The same, with a patch.
pub async fn patched_world() -> World {
    similar(true).await
}

/// 1.0 runs, and 1.1 has a patch from 1.0.5 only, which has one from 1.0. Each changed another of the two files, and both the metadata.
pub async fn borrowing_world() -> World {
    let noise = crate::crash::fixture::noise;
    let old = Release::of_blocks("1.0", 1024);
    let between = old.changed("1.0.5", |root| {
        root[300] ^= 0xff;
        root[10_000..15_000].copy_from_slice(&noise("a", 5000));
    });
    let new = between.changed("1.1", |root| {
        root[300] ^= 0xf0;
        root[1 << 20..(1 << 20) + 60_000].copy_from_slice(&noise("b", 60_000));
    });
    let shop = Shop::new();
    shop.publish(&old);
    shop.publish_with_patch(&between);
    shop.publish_with_patch(&new);
    opened(shop, old, new).await
}

/// 1.0 runs, and 1.1 has a patch, with kernels that are nearly the same, under their compression.
pub async fn world_of_kernels() -> World {
    kernels(false).await
}

/// The same with a version between that has the old kernel, and was the one that the patch was made from.
pub async fn world_of_kernels_behind() -> World {
    kernels(true).await
}

async fn kernels(behind: bool) -> World {
    let contents = |change: u8| {
        // Some bytes are more frequent than others, and what is moved falls into other blocks: no compressed byte stays what it was.
        let mut contents = vec![change; 333 * usize::from(change)];
        contents.extend(crate::crash::fixture::noise("kernel", 600_000).iter().map(|byte| byte & byte.rotate_left(3)));
        contents
    };
    // Compressing them takes long.
    static KERNELS: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let [old, new] = KERNELS.get_or_init(|| [1, 2].map(|change| Kernel::sample(&contents(change), change).unwrap()));
    let old = Release::of_blocks("1.0", 1024).with_kernel(old);
    let between = old.changed("1.0.5", |root| root[200] ^= 0xff);
    let new = old.changed("1.1", |root| root[300] ^= 0xff).with_kernel(new);
    let shop = Shop::new();
    shop.publish(&old);
    if behind {
        shop.publish(&between);
    }
    shop.publish_with_patch(&new);
    opened(shop, old, new).await
}

async fn similar(patch: bool) -> World {
    let old = Release::of_blocks("1.0", 1024);
    let new = old.changed("1.1", |root| {
        root[300] ^= 0xff;
        // Noise, so that the line has something to carry.
        let more = crate::crash::fixture::noise("1.1", 60_000);
        root[1 << 20..(1 << 20) + more.len()].copy_from_slice(&more);
    });
    let shop = Shop::new();
    shop.publish(&old);
    if patch {
        shop.publish_with_patch(&new);
    } else {
        shop.publish(&new);
    }
    opened(shop, old, new).await
}

pub async fn update(world: &World) -> Result<Option<String>, AgentError> {
    let mut agent = world.machine.agent(&world.server.url);
    Ok(agent.update(&asked()).await?.map(|version| version.to_string()))
}
