//! Disks that fail, lie or are damaged, and files that cannot be had: each has its name, nothing that boots is lost, and the next run on a
//! good disk finishes.

use std::cell::Cell;
use std::io::{self, Read};

use disk_layout::SlotName;
use disk_layout::gpt::Geometry;

use super::machine::{World, asked, update, world};
use crate::agent::{Agent, AgentError, Wish};
use crate::commit::Installer;
use crate::crash::disk::{Disk, Event};
use crate::crash::fat_esp::FatEsp;
use crate::crash::fixture::{Release, fresh};
use crate::esp::{EspFile, EspFiles, HEAD};
use crate::slots::{Content, Slots};
use crate::target::{Area, Target};

/// What is wrong with a medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It takes something else than it was given, and says nothing.
    Lies,
    /// It refuses.
    Refuses,
    /// It takes everything, and does not say that it is durable.
    DoesNotSync,
}

/// A disk with one bad area.
struct Faulty {
    disk: &'static Disk,
    area: Area,
    fault: Fault,
}

impl Target for Faulty {
    fn len(&self, area: Area) -> io::Result<u64> {
        self.disk.len(area)
    }

    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn read(&self, area: Area, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.read(area, offset, buffer)
    }

    fn write(&self, area: Area, offset: u64, data: &[u8]) -> io::Result<()> {
        match self.fault {
            Fault::Lies if area == self.area => {
                let mut other = data.to_vec();
                other[data.len() / 2] ^= 1;
                self.disk.write(area, offset, &other)
            }
            Fault::Refuses if area == self.area => Err(io::Error::other("the medium is worn out")),
            _ => self.disk.write(area, offset, data),
        }
    }

    fn sync(&self, area: Area) -> io::Result<()> {
        if self.fault == Fault::DoesNotSync && area == self.area {
            return Err(io::Error::other("the cache could not be flushed"));
        }
        self.disk.sync(area)
    }
}

/// The ESP on a medium that keeps something else than files were written with, or has no room although it said so.
struct BadEsp {
    files: FatEsp<'static>,
    fault: Fault,
}

struct Flipped<'a>(&'a mut dyn Read, Cell<bool>);

impl Read for Flipped<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        if count > 100 && !self.1.replace(true) {
            buffer[99] ^= 1;
        }
        Ok(count)
    }
}

impl EspFiles for BadEsp {
    fn list(&mut self) -> io::Result<Vec<EspFile>> {
        self.files.list()
    }

    fn create(&mut self, name: &str, content: &mut dyn Read) -> io::Result<()> {
        match self.fault {
            Fault::Refuses => Err(io::Error::other("the medium is worn out")),
            _ => self.files.create(name, &mut Flipped(content, Cell::new(false))),
        }
    }

    fn write_head(&mut self, name: &str, head: &[u8; HEAD]) -> io::Result<()> {
        self.files.write_head(name, head)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }

    fn free(&mut self) -> io::Result<u64> {
        self.files.free()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.files.finish()
    }
}

async fn fails(world: &World, kind: &str, change: impl FnOnce(&mut Agent)) {
    let mut agent = world.machine.agent(&world.server.url);
    change(&mut agent);
    let error = agent.update(&asked()).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
}

/// Whatever it was: the old version boots, and a good disk gets the new one.
pub(super) async fn recovers(world: &World) {
    assert_eq!(world.machine.boots(), "1.0");
    assert_eq!(update(world).await.unwrap().as_deref(), Some("1.1"));
    assert_eq!(world.machine.boots(), "1.1");
}

#[tokio::test]
async fn a_medium_that_keeps_other_bytes_than_it_was_given_is_found_out_before_the_commit() {
    let b = SlotName::B;
    for (area, kind) in [(Area::Root(b), "root-hash-mismatch"), (Area::Verity(b), "read-back")] {
        let world = world().await;
        fails(&world, kind, |agent| agent.target = Box::new(Faulty { disk: world.machine.disk, area, fault: Fault::Lies })).await;
        assert_eq!(Slots::read(world.machine.disk).unwrap().get(b), &Content::Empty, "{kind}");
        recovers(&world).await;
    }
    let world = world().await;
    fails(&world, "read-back", |agent| agent.esp = Box::new(BadEsp { files: FatEsp(world.machine.disk), fault: Fault::Lies })).await;
    recovers(&world).await;
}

#[tokio::test]
async fn a_medium_that_refuses_is_named() {
    let b = SlotName::B;
    for fault in [Fault::Refuses, Fault::DoesNotSync] {
        for area in [Area::Root(b), Area::Verity(b)] {
            let world = world().await;
            fails(&world, "disk-write", |agent| agent.target = Box::new(Faulty { disk: world.machine.disk, area, fault })).await;
            recovers(&world).await;
        }
        let world = world().await;
        let area = Area::Disk;
        fails(&world, "partition-table", |agent| agent.target = Box::new(Faulty { disk: world.machine.disk, area, fault })).await;
        recovers(&world).await;
    }
    let world = world().await;
    fails(&world, "esp", |agent| agent.esp = Box::new(BadEsp { files: FatEsp(world.machine.disk), fault: Fault::Refuses })).await;
    recovers(&world).await;
}

/// Damages a place of the disk behind the agent's back, and puts it back afterwards. Nothing is written in between.
async fn damaged(kind: &str, places: &[(Area, u64, usize)]) {
    let world = world().await;
    let disk = world.machine.disk;
    let mut agent = world.machine.agent(&world.server.url);
    let before: Vec<Vec<u8>> = places
        .iter()
        .map(|&(area, offset, len)| {
            let mut bytes = vec![0; len];
            disk.read(area, offset, &mut bytes).unwrap();
            disk.write(area, offset, &vec![0xff; len]).unwrap();
            bytes
        })
        .collect();
    let writes = disk.log.borrow().len();
    let error = agent.update(&asked()).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    // Nor does the agent begin with it, nor go back.
    assert_eq!(agent.start().unwrap_err().kind(), kind);
    assert!(matches!(agent.rollback().await.unwrap_err().kind(), found if found == kind || found == "no-rollback"));
    let touched: Vec<_> = disk.log.borrow()[writes..].iter().filter(|event| matches!(event, Event::Write(..))).cloned().collect();
    assert!(touched.is_empty(), "{touched:?}");
    for (&(area, offset, _), bytes) in places.iter().zip(&before) {
        disk.write(area, offset, bytes).unwrap();
    }
    recovers(&world).await;
}

#[tokio::test]
async fn a_damaged_esp_is_an_error_before_anything_is_lost() {
    // Its boot sector; then what that says about its tables.
    damaged("esp", &[(Area::Esp, 0, 512)]).await;
    damaged("esp", &[(Area::Esp, 11, 30)]).await;
}

#[tokio::test]
async fn damaged_partition_tables_are_an_error_before_anything_is_lost() {
    let end = world().await.machine.disk.len(Area::Disk).unwrap();
    damaged("partition-table", &[(Area::Disk, 512, 512), (Area::Disk, end - 512, 512)]).await;
}

#[tokio::test]
async fn a_slot_that_changed_is_not_made_bootable() {
    let world = world().await;
    let (mut esp, mut fresh) = (FatEsp(world.machine.disk), fresh());
    let running = world.old.running(SlotName::A);
    let mut installer = Installer { target: world.machine.disk, esp: &mut esp, fresh: &mut fresh, running };
    installer.claim(&world.new.image).unwrap();
    let error = installer.put_uki(&world.new.image, &mut world.new.uki.as_slice()).unwrap_err();
    assert_eq!(error.kind(), "slot-changed", "{error}");
    recovers(&world).await;
}

#[tokio::test]
async fn a_full_state_is_named_after_the_reserve_was_given_up() {
    let world = world().await;
    let reserve = world.machine.directory.path().join("garboard/update/reserve");
    let mut agent = world.machine.agent(&world.server.url);
    assert!(reserve.exists());
    // Where the journal is written before it gets its name. Nothing is changed before it is there.
    let full = world.machine.directory.path().join("garboard/update/journal.new");
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    let error = agent.update(&asked()).await.unwrap_err();
    assert_eq!(error.kind(), "state-full", "{error}");
    assert!(!reserve.exists());
    assert!(world.machine.disk.log.borrow().is_empty());
    std::fs::remove_file(full).unwrap();
    recovers(&world).await;
    assert!(reserve.exists());
    // In the middle of a download it is the journal that cannot be written, or the copy of the UKI.
    let source = io::Error::from(io::ErrorKind::StorageFull);
    let sink = crate::download::SinkError { what: "the journal".to_owned(), source };
    assert_eq!(AgentError::Download(sink.into()).kind(), "state-full");
}

#[tokio::test]
async fn what_cannot_be_had_is_named() {
    let world = world().await;
    let nowhere = world.machine.directory.path().join("nowhere/file");
    fails(&world, "lock", |agent| agent.paths.esp_lock = Some(nowhere.clone())).await;
    fails(&world, "no-update-root", |agent| agent.paths.update_root = nowhere.clone()).await;
    fails(&world, "no-server", |agent| agent.settings.server = None).await;
    let mut agent = world.machine.agent(&world.server.url);
    assert_eq!(agent.apply(&nowhere, &asked()).await.unwrap_err().kind(), "bundle-read");
    let retry = |version: &str, downgrade| Wish { retry: Some(version.parse().unwrap()), downgrade, ..asked() };
    assert_eq!(agent.update(&retry("0.9", true)).await.unwrap_err().kind(), "not-taken");
    assert!(world.machine.disk.log.borrow().is_empty());
    recovers(&world).await;
}

#[tokio::test]
async fn a_bundle_of_a_version_that_failed_or_was_withdrawn_is_not_taken() {
    let world = world().await;
    let bundle = world.shop.bundle();
    let mut agent = world.machine.agent("");
    world.machine.verdict(&world.new, "failed", "docker.service is failed");
    let writes = world.machine.disk.log.borrow().len();
    let error = agent.apply(&bundle, &asked()).await.unwrap_err();
    assert_eq!(error.kind(), "not-taken");
    assert!(error.to_string().contains("docker.service is failed"), "{error}");
    assert_eq!(world.machine.disk.log.borrow().len(), writes);
    let retry = Wish { retry: Some("1.1".parse().unwrap()), ..asked() };
    assert_eq!(agent.apply(&bundle, &retry).await.unwrap().as_str(), "1.1");
    // On trial the version to fall back to stays whole.
    assert_eq!(world.machine.reboot(), "1.1");
    world.shop.publish(&Release::new("1.2"));
    let error = world.machine.agent("").apply(&world.shop.bundle(), &asked()).await.unwrap_err();
    assert_eq!(error.kind(), "not-taken");
    assert!(error.to_string().contains("trial"), "{error}");
}
