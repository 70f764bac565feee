//! The questions, asked of every crash state.

use disk_layout::{SlotName, UkiName, Version};

use super::boot::{Boot, boot};
use super::disk::{Disk, Event, Image as DiskImage};
use super::fat_esp::FatEsp;
use super::fixture::{Memory, Release, install, shipped};
use super::long;
use super::replay::{Crash, crashes};
use crate::commit::set_aside;
use crate::esp::fat::{Volume, mend};
use crate::esp::{EspFiles, HEAD, rank};
use crate::recovery::{Standing, recover};
use crate::slots::{Content, Slots};
use crate::target::{Area, Target};

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

/// How many crash states of an operation are looked at in `cargo test`.
const SAMPLE: usize = 120;

/// What is done to a disk, and what must be true of it wherever that is cut.
struct Scenario<'a> {
    before: DiskImage,
    releases: Vec<Release>,
    /// What may boot after a cut, with 0 failed starts.
    may_boot: Vec<&'a str>,
    /// The operation.
    act: &'a (dyn Fn(&Disk) + Sync),
    /// What the next run does, told which version it runs.
    again: &'a (dyn Fn(&Disk, &Boot) + Sync),
    /// What must boot when the next run has ended.
    at_last: &'a str,
    standing: &'a (dyn Fn(&Version) -> Standing + Sync),
    subsets: usize,
    tears: usize,
}

impl Scenario<'_> {
    /// Runs it, cuts it everywhere, and returns how many distinct states there are; a sample of them is looked at unless [`long`].
    fn run(&self) -> usize {
        let disk = Disk::new(self.before.clone());
        (self.act)(&disk);
        assert_eq!(boot(&disk, &self.releases).unwrap().version, version(self.at_last), "without a cut");
        let log: Vec<Event> = disk.log.into_inner();
        let mut states = crashes(&self.before, &log, self.subsets, self.tears);
        let all = states.len();
        if !long() {
            // A sample that reaches every phase of the operation; `scripts/test-long` looks at all of them.
            let step = all.div_ceil(SAMPLE);
            states = states.into_iter().step_by(step).collect();
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let chunks = states.chunks(states.len().div_ceil(threads).max(1));
            let workers: Vec<_> = chunks.map(|chunk| scope.spawn(move || chunk.iter().for_each(|state| self.check(state)))).collect();
            for worker in workers {
                if let Err(panic) = worker.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        });
        all
    }

    fn check(&self, state: &Crash) {
        let disk = Disk::new(state.image.clone());
        let what = &state.what;
        let booted = boot(&disk, &self.releases).unwrap_or_else(|why| panic!("{what}: {why}"));
        assert!(self.may_boot.iter().any(|text| version(text) == booted.version), "{what}: boots {booted:?}");
        assert_eq!(booted.failures, 0, "{what}: {booted:?}");

        self.recover(&disk, &booted, what);
        let after = boot(&disk, &self.releases).unwrap_or_else(|why| panic!("{what}, recovered: {why}"));
        assert!(after.version >= booted.version || self.at_last != "1.1", "{what}: recovery goes back to {after:?}");
        assert_eq!(after.failures, 0, "{what}, recovered: {after:?}");
        (self.again)(&disk, &booted);
        let last = boot(&disk, &self.releases).unwrap_or_else(|why| panic!("{what}, next run: {why}"));
        assert_eq!((last.version, last.failures), (version(self.at_last), 0), "{what}: the next run does not finish");
        clean(&disk, what);
    }

    fn recover(&self, disk: &Disk, booted: &Boot, what: &str) {
        let running = self.releases.iter().find(|release| release.image.uki.version == booted.version).unwrap();
        let slot = Slots::read(disk).unwrap().find(&running.image.uki.root_hash).unwrap();
        let copies = Memory(self.releases.clone());
        recover(disk, &mut FatEsp(disk), &copies, &running.running(slot), self.standing)
            .unwrap_or_else(|why| panic!("{what}: recovery: {why}"));
        let again = recover(disk, &mut FatEsp(disk), &copies, &running.running(slot), self.standing).unwrap();
        assert_eq!(again, Vec::<String>::new(), "{what}: a second recovery has something to do");
    }
}

/// No file shares clusters, none is cut short, none has two names, nothing is half written.
fn clean(disk: &Disk, what: &str) {
    let volume = Volume::read(disk).unwrap();
    assert_eq!(mend(disk, &mut |_, file| (true, rank(file.name()))).unwrap(), Vec::<String>::new(), "{what}");
    let names: Vec<UkiName> = volume.ukis().map(|file| file.name().parse().unwrap_or_else(|_| panic!("{what}: {}", file.name()))).collect();
    for (at, name) in names.iter().enumerate() {
        assert!(names.iter().skip(at + 1).all(|other| other.version != name.version), "{what}: {names:?}");
    }
}

fn untried(_: &Version) -> Standing {
    Standing::Untried
}

/// `old` settled in slot a and `new` in slot b under a name with the given counter.
fn both(old: &Release, new: &Release, name: &str) -> DiskImage {
    let disk = Disk::new(shipped(old));
    install(&disk, &old.running(SlotName::A), new).unwrap();
    let mut esp = FatEsp(&disk);
    let trial = format!("garboard_{}+3.efi", new.image.uki.version);
    if trial != name {
        esp.rename(&trial, name).unwrap();
    }
    let mut image = disk.image.into_inner();
    image.flatten();
    image
}

#[test]
fn whole_updates_cut_anywhere_boot_old_or_new_and_finish() {
    let (old, new, newer) = (Release::new("1.0"), Release::new("1.1"), Release::new("1.2"));
    // Into the empty slot of a new machine.
    let first = Scenario {
        before: shipped(&old),
        releases: vec![old.clone(), new.clone()],
        may_boot: vec!["1.0", "1.1"],
        act: &|disk| install(disk, &old.running(SlotName::A), &new).unwrap(),
        again: &|disk, booted| {
            if booted.version == version("1.0") {
                install(disk, &old.running(SlotName::A), &new).unwrap();
            }
        },
        at_last: "1.1",
        standing: &untried,
        subsets: if long() { 12 } else { 1 },
        tears: if long() { 3 } else { 1 },
    }
    .run();
    // Over the version before.
    let second = Scenario {
        before: both(&old, &new, "garboard_1.1.efi"),
        releases: vec![old.clone(), new.clone(), newer.clone()],
        may_boot: vec!["1.1", "1.2"],
        act: &|disk| install(disk, &new.running(SlotName::B), &newer).unwrap(),
        again: &|disk, booted| {
            if booted.version == version("1.1") {
                install(disk, &new.running(SlotName::B), &newer).unwrap();
            }
        },
        at_last: "1.2",
        standing: &|version| if version.as_str() == "1.1" { Standing::Good } else { Standing::Untried },
        subsets: if long() { 12 } else { 1 },
        tears: if long() { 3 } else { 1 },
    }
    .run();
    println!("{first} + {second} distinct crash states");
    assert!(first + second >= if long() { 10_000 } else { 2000 }, "{first} + {second} distinct crash states");
}

#[test]
fn a_newer_release_replaces_a_pending_one_at_any_cut() {
    let (old, pending, newer) = (Release::new("1.0"), Release::new("1.1"), Release::new("1.2"));
    let scenario = Scenario {
        before: both(&old, &pending, "garboard_1.1+3.efi"),
        releases: vec![old.clone(), pending, newer.clone()],
        may_boot: vec!["1.0", "1.1", "1.2"],
        act: &|disk| install(disk, &old.running(SlotName::A), &newer).unwrap(),
        again: &|disk, booted| match booted.version.as_str() {
            "1.0" => install(disk, &old.running(SlotName::A), &newer).unwrap(),
            // The pending one came up after all: the newer goes over the old.
            "1.1" => install(disk, &Release::new("1.1").running(SlotName::B), &newer).unwrap(),
            _ => {}
        },
        at_last: "1.2",
        standing: &untried,
        subsets: 1,
        tears: 1,
    };
    assert!(scenario.run() > 1000);
}

#[test]
fn a_rollback_cut_anywhere_boots_one_of_the_two() {
    let (old, new) = (Release::new("1.0"), Release::new("1.1"));
    let scenario = Scenario {
        before: both(&old, &new, "garboard_1.1.efi"),
        releases: vec![old.clone(), new.clone()],
        may_boot: vec!["1.0", "1.1"],
        act: &|disk| set_aside(&mut FatEsp(disk), &version("1.1")).unwrap(),
        again: &|disk, _| set_aside(&mut FatEsp(disk), &version("1.1")).unwrap(),
        at_last: "1.0",
        standing: &|version| if version.as_str() == "1.1" { Standing::SetAside } else { Standing::Good },
        subsets: 40,
        tears: 40,
    };
    assert!(scenario.run() > 20);
}

#[test]
fn a_blessing_cut_anywhere_boots_one_of_the_two() {
    let (old, new) = (Release::new("1.0"), Release::new("1.1"));
    let bless = |disk: &Disk| {
        let mut esp = FatEsp(disk);
        if esp.list().unwrap().iter().any(|file| file.name == "garboard_1.1+2-1.efi") {
            esp.rename("garboard_1.1+2-1.efi", "garboard_1.1.efi").unwrap();
        }
    };
    let scenario = Scenario {
        before: both(&old, &new, "garboard_1.1+2-1.efi"),
        releases: vec![old.clone(), new.clone()],
        may_boot: vec!["1.0", "1.1"],
        act: &bless,
        again: &|disk, _| bless(disk),
        at_last: "1.1",
        standing: &|_| Standing::Good,
        subsets: 40,
        tears: 40,
    };
    assert!(scenario.run() > 20);
}

#[test]
fn a_device_that_fails_at_any_write_leaves_the_running_version() {
    let (old, new) = (Release::new("1.0"), Release::new("1.1"));
    let before = both(&Release::new("0.9"), &old, "garboard_1.0.efi");
    let complete = Disk::new(before.clone());
    install(&complete, &old.running(SlotName::B), &new).unwrap();
    let writes = complete.log.borrow().len() as u64;
    for budget in (0..writes).step_by(7) {
        let disk = Disk::new(before.clone());
        disk.budget.set(Some(budget));
        let result = install(&disk, &old.running(SlotName::B), &new);
        disk.budget.set(None);
        let booted = boot(&disk, &[Release::new("0.9"), old.clone(), new.clone()]).unwrap();
        assert_eq!(booted.failures, 0, "{budget}");
        // The very last writes come after the commit.
        assert!(result.is_err() || booted.version == version("1.1"), "{budget}: {booted:?}");
    }
}

#[test]
fn refused_before_anything_is_changed() {
    let (old, new) = (Release::new("1.0"), Release::new("1.1"));
    let check = |release: &Release, kind: &str| {
        let disk = Disk::new(shipped(&old));
        let error = install(&disk, &old.running(SlotName::A), release).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(disk.log.borrow().iter().all(|event| matches!(event, Event::Sync(_))), "{kind}: something was written");
    };
    check(&old, "same-root-hash");
    let mut republished = new.clone();
    republished.image.uki.version = version("1.0");
    check(&republished, "same-version");
    let mut large = new.clone();
    large.image.superblock.data_blocks = 1 << 20;
    check(&large, "slot-too-small");
    let mut fat = new.clone();
    fat.image.uki.len = 1 << 30;
    check(&fat, "esp-full");
}

#[test]
fn a_root_that_is_not_the_release_is_never_made_bootable() {
    let (old, mut new) = (Release::new("1.0"), Release::new("1.1"));
    new.root[70_000] ^= 1;
    let disk = Disk::new(shipped(&old));
    assert_eq!(install(&disk, &old.running(SlotName::A), &new).unwrap_err().kind(), "root-hash-mismatch");
    assert_eq!(Slots::read(&disk).unwrap().b, Content::Empty);
    let mut other = Release::new("1.1");
    other.uki[3000] ^= 1;
    assert_eq!(install(&disk, &old.running(SlotName::A), &other).unwrap_err().kind(), "uki-mismatch");
    assert_eq!(boot(&disk, &[old.clone(), Release::new("1.1")]).unwrap().version, version("1.0"));
}

#[test]
fn damaged_and_missing_ukis_come_back_from_their_copies() {
    let (old, new) = (Release::new("1.0"), Release::new("1.1"));
    let copies = Memory(vec![old.clone(), new.clone()]);
    for damage in [0, 1, 2] {
        let disk = Disk::new(both(&old, &new, "garboard_1.1.efi"));
        let mut esp = FatEsp(&disk);
        match damage {
            0 => esp.write_head("garboard_1.0.efi", &[0; HEAD]).unwrap(),
            1 => esp.remove("garboard_1.0.efi").unwrap(),
            _ => {
                // A bit of the running one's content, past its head.
                let volume = Volume::read(&disk).unwrap();
                let cluster = volume.uki("garboard_1.1.efi").unwrap().chain[9];
                let mut raw = [0; 512];
                let at = volume.cluster_at(cluster);
                disk.read(Area::Esp, at, &mut raw).unwrap();
                raw[100] ^= 4;
                disk.write(Area::Esp, at, &raw).unwrap();
            }
        }
        let said = recover(&disk, &mut FatEsp(&disk), &copies, &new.running(SlotName::B), &|_| Standing::Good).unwrap();
        assert_eq!(said.len(), 1, "{said:?}");
        let names: Vec<String> = FatEsp(&disk).list().unwrap().into_iter().map(|file| file.name).collect();
        assert!(names.contains(&"garboard_1.0.efi".to_owned()) && names.contains(&"garboard_1.1.efi".to_owned()), "{names:?}");
        clean(&disk, "repaired");
        assert_eq!(boot(&disk, &copies.0).unwrap().version, version("1.1"));
    }
}
