//! Power cuts at and between the flushes of a real update: a machine's writes are logged by QEMU while it updates itself and starts the new
//! version, the kernel's own vfat and ext4 writes among them; then the log is cut at many places, and each disk is asked what it boots.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use disk_layout::gpt::{Geometry, Gpt};
use disk_layout::{BootCounter, PartitionRole, SlotName, UkiName, Version};
use qemu_tests::write_log::{Act, Piece, WriteLog, Written};
use qemu_tests::{Guest, Setup, Shop, Way, Web};
use update_agent::esp::fat::Volume;
use update_agent::slots::Slots;
use update_agent::target::{Area, Target};
use update_agent::verity;

use super::update::came;

/// Disks that are looked at.
const STATES: usize = 240;
const SECTOR: u64 = 512;
const DISK_GIB: u32 = 8;

/// A version with all its bytes.
struct Release {
    version: Version,
    root_hash: [u8; 32],
    uki: Vec<u8>,
}

impl Release {
    fn read(shop: &Shop, version: &str) -> Self {
        let directory = shop.path(&format!("out-{version}/tiny-{version}-x86_64.release"));
        let parts: serde_json::Value = serde_json::from_slice(&std::fs::read(format!("{directory}/parts.json")).unwrap()).unwrap();
        let hex = parts["root_hash"].as_str().unwrap();
        let root_hash = std::array::from_fn(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap());
        Self { version: version.parse().unwrap(), root_hash, uki: std::fs::read(format!("{directory}/uki.efi")).unwrap() }
    }
}

/// A disk that a power cut left: the image as it was, and over it what reached the medium.
struct CutDisk<'a> {
    image: &'a File,
    image_len: u64,
    log: &'a File,
    written: Written,
    partitions: &'a HashMap<u32, Range<u64>>,
}

impl CutDisk<'_> {
    fn range(&self, area: Area) -> Range<u64> {
        let role = match area {
            Area::Disk => return 0..u64::from(DISK_GIB) << 30,
            Area::Esp => PartitionRole::Esp,
            Area::Root(slot) => PartitionRole::Root(slot),
            Area::Verity(slot) => PartitionRole::Verity(slot),
        };
        self.partitions[&role.number()].clone()
    }

    /// The image ends before the disk does.
    fn before(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(self.image_len.saturating_sub(offset)).unwrap().min(buffer.len());
        let (there, beyond) = buffer.split_at_mut(there);
        beyond.fill(0);
        self.image.read_exact_at(there, offset)
    }

    /// The whole disk as a file.
    fn write_to(&self, path: &Path, image: &Path) {
        std::fs::copy(image, path).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_len(u64::from(DISK_GIB) << 30).unwrap();
        for (offset, piece, len) in self.written.all() {
            let mut done = 0;
            while done < len {
                let mut buffer = vec![0; usize::try_from((len - done).min(1 << 20)).unwrap()];
                match piece {
                    Piece::Log(at) => self.log.read_exact_at(&mut buffer, at + done).unwrap(),
                    // Beyond the image there are zeros already.
                    _ if offset + done >= self.image_len => {
                        done += buffer.len() as u64;
                        continue;
                    }
                    _ => {}
                }
                file.write_all_at(&buffer, offset + done).unwrap();
                done += buffer.len() as u64;
            }
        }
    }
}

impl Target for CutDisk<'_> {
    fn len(&self, area: Area) -> io::Result<u64> {
        let range = self.range(area);
        Ok(range.end - range.start)
    }

    fn geometry(&self) -> Geometry {
        Geometry { block_size: SECTOR, blocks: (u64::from(DISK_GIB) << 30) / SECTOR }
    }

    fn read(&self, area: Area, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let range = self.range(area);
        let start = range.start + offset;
        if start + buffer.len() as u64 > range.end {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = buffer;
        for (piece, len) in self.written.pieces(start, rest.len() as u64) {
            let (part, behind) = rest.split_at_mut(usize::try_from(len).unwrap());
            match piece {
                Piece::Before(at) => self.before(at, part)?,
                Piece::Log(at) => self.log.read_exact_at(part, at)?,
                Piece::Zeros => part.fill(0),
            }
            rest = behind;
        }
        Ok(())
    }

    fn write(&self, _: Area, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self, _: Area) -> io::Result<()> {
        Ok(())
    }
}

struct Entry {
    version: Version,
    counter: Option<BootCounter>,
    content: Vec<u8>,
    name: String,
}

fn left(counter: Option<BootCounter>) -> u32 {
    counter.map_or(u32::MAX, |counter| counter.left)
}

/// What comes up, by the rules of systemd-boot: entries without tries last, then the newest version, then more tries; every start that fails
/// takes one try. An error is a machine that does not come up.
fn boots(disk: &CutDisk<'_>, releases: &[Release]) -> Result<Version, String> {
    let volume = Volume::read(disk).map_err(|error| error.to_string())?;
    let slots = Slots::read(disk).map_err(|error| error.to_string())?;
    let mut entries = Vec::new();
    for file in volume.ukis().filter(|file| file.name().to_ascii_lowercase().ends_with(".efi")) {
        let mut content = Vec::new();
        // A file that ends early is still a file to the firmware.
        let _ = volume.read_file(disk, file, &mut |data| content.extend_from_slice(data));
        if content.starts_with(b"MZ") {
            let name: UkiName = file.name().parse().map_err(|_| format!("strange name {}", file.name()))?;
            entries.push(Entry { version: name.version, counter: name.counter, content, name: file.name().to_owned() });
        }
    }
    for _ in 0..8 {
        entries.sort_by_key(|entry| {
            (left(entry.counter) == 0, Reverse(entry.version.clone()), Reverse(left(entry.counter)), entry.name.clone())
        });
        let entry = entries.first_mut().ok_or("nothing to boot")?;
        if let Some(counter) = entry.counter.as_mut().filter(|counter| counter.left > 0) {
            *counter = BootCounter { left: counter.left - 1, done: counter.done + 1 };
        }
        let release = releases.iter().find(|release| release.uki == entry.content);
        let slot = release.and_then(|release| slots.find(&release.root_hash));
        if let (Some(release), Some(slot)) = (release, slot)
            && verity::verifies(disk, slot, &release.root_hash).map_err(|error| error.to_string())?
        {
            return Ok(release.version.clone());
        }
        if entry.counter.is_none() {
            return Err(format!("the settled entry {} does not start", entry.name));
        }
    }
    Err("no start succeeds".to_owned())
}

/// A small generator, so that failures can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn pick(&mut self, from: &[usize]) -> usize {
        from[usize::try_from(self.next() % from.len() as u64).unwrap()]
    }
}

fn read_log(path: &Path) -> WriteLog {
    let file = File::open(path).unwrap();
    WriteLog::read(&mut |at, buffer| file.read_exact_at(buffer, at)).unwrap()
}

fn partitions(image: &File, len: u64) -> HashMap<u32, Range<u64>> {
    let table = Gpt::read(image, Geometry { block_size: SECTOR, blocks: len / SECTOR }).unwrap();
    table.partitions().into_iter().map(|part| (part.number, part.first * SECTOR..(part.last + 1) * SECTOR)).collect()
}

fn wait_for_boot_of(host: &mut Guest, version: &str, slot: SlotName) {
    host.wait_for(&format!("garboard: boot-complete version={version} slot={slot}"));
}

#[test]
#[ignore = "many states: scripts/test-long"]
fn every_cut_of_a_real_update_in_full_boots_the_old_or_the_new_version() {
    every_cut_boots_the_old_or_the_new_version(Way::Full);
}

#[test]
#[ignore = "many states: scripts/test-long"]
fn every_cut_of_a_real_update_by_chunks_boots_the_old_or_the_new_version() {
    every_cut_boots_the_old_or_the_new_version(Way::Chunks);
}

#[test]
#[ignore = "many states: scripts/test-long"]
fn every_cut_of_a_real_update_by_patch_boots_the_old_or_the_new_version() {
    every_cut_boots_the_old_or_the_new_version(Way::Patch);
}

fn every_cut_boots_the_old_or_the_new_version(way: Way) {
    let shop = Shop::new();
    let image_path = shop.two_releases(way);
    let releases = ["1.0", "1.1"].map(|version| Release::read(&shop, version));
    let web = Web::serve(Path::new(&shop.path("repo")));
    let data = web.user_data("");
    let log_path = Path::new(&shop.path("writes.log")).to_owned();

    let mut host = Setup::of_image(&image_path).disk_gib(DISK_GIB).user_data(&data).write_log(&log_path).start();
    wait_for_boot_of(&mut host, "1.0", SlotName::A);
    let begin = read_log(&log_path).acts.len();
    wait_for_boot_of(&mut host, "1.1", SlotName::B);
    host.wait_for_ssh();
    host.eventually("sudo update-agent history | grep -q 'good.*1.1'");
    came(&host, "1.1", way);
    host.ok("sync");
    host.cut_power();

    let log = read_log(&log_path);
    let (image, writes) = (File::open(&image_path).unwrap(), File::open(&log_path).unwrap());
    let image_len = image.metadata().unwrap().len();
    let partitions = partitions(&image, image_len);
    let disk = |written| CutDisk { image: &image, image_len, log: &writes, written, partitions: &partitions };
    let kept = |end: usize| disk(log.cut(end, &mut |_| false));
    assert_eq!(boots(&kept(begin), &releases).unwrap().as_str(), "1.0");
    assert_eq!(boots(&kept(log.acts.len()), &releases).unwrap().as_str(), "1.1");

    let flushes: Vec<usize> = (begin..log.acts.len()).filter(|&at| log.acts[at] == Act::Flush).collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    // At flushes; between them with everything, nothing, or a part of what came since; and most of all where the ESP is written.
    let on_esp = |act: &Act| matches!(act, Act::Write { offset, .. } if partitions[&PartitionRole::Esp.number()].contains(offset));
    let esp: Vec<usize> = (begin..log.acts.len()).filter(|&at| on_esp(&log.acts[at])).collect();
    assert!(flushes.len() > 20 && esp.len() > 20, "{} flushes, {} writes to the ESP", flushes.len(), esp.len());
    let everywhere: Vec<usize> = (begin..log.acts.len()).collect();
    let mut cuts: Vec<usize> = flushes.iter().step_by(flushes.len().div_ceil(STATES / 3)).copied().collect();
    cuts.extend((0..STATES / 3).map(|_| random.pick(&esp) + 1));
    cuts.extend((0..STATES / 3).map(|_| random.pick(&everywhere) + 1));
    cuts.sort_unstable();

    // While the firmware renames the entry that it starts, in many writes, there may be none of that name: the old version starts, and its
    // agent puts the entry back.
    let (mut new, mut wrong, mut hidden) = (0, Vec::new(), Vec::new());
    let mut committed = false;
    for (number, &end) in cuts.iter().enumerate() {
        match boots(&kept(end), &releases) {
            Ok(version) if version.as_str() == "1.1" => (new, committed) = (new + 1, true),
            Ok(_) if committed => hidden.push(end),
            Ok(_) => {}
            Err(error) => wrong.push(format!("cut at {end}: {error}")),
        }
        let odds = [0, 16, 128, 240, 256][number % 5];
        let lossy = disk(log.cut(end, &mut |_| random.next() % 256 < odds));
        if let Err(error) = boots(&lossy, &releases) {
            wrong.push(format!("cut at {end}, of what was not flushed {odds} of 256 lost: {error}"));
        }
    }
    eprintln!(
        "{} cuts, each with and without losses: {new} boot 1.1, {} boot 1.0 again, {} are wrong",
        cuts.len(),
        hidden.len(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(new > 0 && new < cuts.len());

    // Some are started: the model is right about them, and the update is finished.
    let chosen = [esp[esp.len() / 4], esp[esp.len() / 2], random.pick(&everywhere)];
    for (end, lossy) in chosen.map(|end| (end, true)).into_iter().chain(hidden.first().map(|&end| (end, false))) {
        let cut = disk(log.cut(end, &mut |_| lossy && random.next().is_multiple_of(2)));
        let expected = boots(&cut, &releases).unwrap();
        let path = Path::new(&shop.path("cut.raw")).to_owned();
        cut.write_to(&path, &image_path);
        let mut host = Setup::of_image(&path).disk_gib(DISK_GIB).user_data(&data).start();
        let slot = if expected.as_str() == "1.0" { SlotName::A } else { SlotName::B };
        wait_for_boot_of(&mut host, expected.as_str(), slot);
        wait_for_boot_of(&mut host, "1.1", SlotName::B);
        host.cut_power();
    }
}
