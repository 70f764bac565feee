//! A small disk with real tables, real FAT32 and real hash trees, and releases for it.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use disk_layout::{
    PartitionLabel, PartitionRole, SlotName, VERITY_BLOCK_SIZE, VeritySuperblock, Version, hash_area_blocks, partition_type,
    partuuids_of_root_hash,
};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions, format_volume};
use release_format::StateFloor;
use ring::digest::{SHA256, digest};
use uuid::Uuid;

use super::disk::{Disk, Image as DiskImage, Layout, SECTOR};
use super::fat_esp::{FatEsp, Window};
use crate::commit::{CommitError, Image, Installer, Running, Uki};
use crate::esp::EspFiles;
use crate::recovery::Copies;
use crate::target::{Area, Target};

const MIB: u64 = 1 << 20;
/// Blocks of a root, where its size does not matter.
const BLOCKS: u64 = 24;
const UKI_LEN: usize = 20 * 1024;
/// Between two files: not in any chunk, and zeros all the same.
pub const GAP: std::ops::Range<usize> = 48_192..49_152;

/// An image with all its bytes.
#[derive(Clone, Debug)]
pub struct Release {
    pub image: Image,
    pub root: Vec<u8>,
    pub uki: Vec<u8>,
    /// What it does to state.
    pub floor: StateFloor,
}

/// Bytes that do not compress.
pub fn noise(seed: &str, len: usize) -> Vec<u8> {
    (0_u32..).flat_map(|block| digest(&SHA256, format!("{seed} {block}").as_bytes()).as_ref().to_vec()).take(len).collect()
}

impl Release {
    pub fn new(version: &str) -> Self {
        Self::of_blocks(version, BLOCKS)
    }

    /// With a root of so many blocks.
    pub fn of_blocks(version: &str, blocks: u64) -> Self {
        let mut root = noise(&format!("root {version}"), (blocks * VERITY_BLOCK_SIZE) as usize);
        root[GAP].fill(0);
        let mut uki = format!("MZ {version} ").into_bytes();
        uki.extend(noise(&format!("uki {version}"), UKI_LEN));
        Self::of(version, root, uki)
    }

    /// The next version, whose root differs by what `change` does, and its UKI by the version.
    pub fn changed(&self, version: &str, change: impl FnOnce(&mut [u8])) -> Self {
        let mut root = self.root.clone();
        change(&mut root);
        root[GAP].fill(0);
        let mut uki = format!("MZ {version} ").into_bytes();
        uki.extend_from_slice(&self.uki[uki.len()..]);
        Self::of(version, root, uki)
    }

    /// The same with another kernel in its UKI.
    pub fn with_kernel(&self, kernel: &[u8]) -> Self {
        let uki = [&self.uki[..512], kernel].concat();
        Self { floor: self.floor.clone(), ..Self::of(self.image.uki.version.as_str(), self.root.clone(), uki) }
    }

    fn of(version: &str, root: Vec<u8>, uki: Vec<u8>) -> Self {
        let blocks = root.len() as u64 / VERITY_BLOCK_SIZE;
        let superblock = VeritySuperblock { uuid: Uuid::from_u128(1), data_blocks: blocks, salt: vec![7; 32] };
        let hash = |data: &[u8]| digest(&SHA256, &[&superblock.salt, data].concat());
        let above = |level: &[u8]| -> Vec<u8> {
            level.chunks(VERITY_BLOCK_SIZE as usize).flat_map(|block| hash(block).as_ref().to_vec()).collect()
        };
        let mut level = above(&root);
        while level.len() > 32 {
            level.resize(level.len().next_multiple_of(VERITY_BLOCK_SIZE as usize), 0);
            level = above(&level);
        }
        let root_hash: [u8; 32] = level.as_slice().try_into().unwrap();
        let sha256 = digest(&SHA256, &uki).as_ref().try_into().unwrap();
        let record = Uki { version: version.parse().unwrap(), root_hash, len: uki.len() as u64, sha256 };
        let floor = StateFloor { layout: 1, components: BTreeMap::new() };
        Self { image: Image { superblock, uki: record }, root, uki, floor }
    }

    /// With other programs that keep state.
    pub fn with_floor(version: &str, layout: u32, components: &[(&str, &str)]) -> Self {
        let components = components.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect();
        Self { floor: StateFloor { layout, components }, ..Self::new(version) }
    }

    pub fn running(&self, slot: SlotName) -> Running {
        Running { slot, version: self.image.uki.version.clone(), root_hash: self.image.uki.root_hash }
    }
}

/// The version in a UKI, as the loader finds it; none when the file is no program.
pub fn uki_version(content: &[u8]) -> Option<Version> {
    let text = content.get(..64)?.strip_prefix(b"MZ ")?;
    let end = text.iter().position(|&byte| byte == b' ')?;
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}

/// The copies that the state partition would hold.
pub struct Memory(pub Vec<Release>);

impl Copies for Memory {
    fn known(&self) -> Vec<Uki> {
        self.0.iter().map(|release| release.image.uki.clone()).collect()
    }

    fn open(&self, uki: &Uki) -> io::Result<Box<dyn Read>> {
        let release = self.0.iter().find(|release| release.image.uki == *uki).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(io::Cursor::new(release.uki.clone())))
    }
}

/// GUIDs in a row.
pub fn fresh() -> impl FnMut() -> Uuid {
    let mut next = 0x1000_u128;
    move || {
        next += 1;
        Uuid::from_u128(next)
    }
}

fn layout(blocks: u64) -> Layout {
    let root = (blocks * VERITY_BLOCK_SIZE).max(MIB / 4);
    let verity = (hash_area_blocks(blocks) * VERITY_BLOCK_SIZE).max(64 * 1024);
    let esp = MIB..35 * MIB;
    let a = esp.end..esp.end + root;
    let verity_a = a.end..a.end + verity;
    let b = verity_a.end..verity_a.end + root;
    let verity_b = b.end..b.end + verity;
    let state = verity_b.end..verity_b.end + 64 * 1024;
    let size = state.end + 64 * 1024;
    Layout { esp, roots: [a, b], verities: [verity_a, verity_b], state, size }
}

struct Whole<'a>(&'a Disk, u64);

impl std::fmt::Debug for Whole<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("disk")
    }
}

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(Area::Disk, self.1, buffer)?;
        self.1 += buffer.len() as u64;
        Ok(buffer.len())
    }
}

impl Write for Whole<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(Area::Disk, self.1, data)?;
        self.1 += data.len() as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Whole<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.1 = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.1.wrapping_add_signed(by),
            SeekFrom::End(by) => self.0.len(Area::Disk)?.wrapping_add_signed(by),
        };
        Ok(self.1)
    }
}

/// A host's disk as it was shipped: `release` in slot a, settled.
pub fn shipped(release: &Release) -> DiskImage {
    let layout = layout(release.image.superblock.data_blocks);
    let disk = Disk::new(DiskImage::new(layout.clone()));
    {
        let sectors = u32::try_from(layout.size / SECTOR - 1).unwrap();
        let mut whole = Whole(&disk, 0);
        gpt::mbr::ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(&mut whole).unwrap();
        let config = gpt::GptConfig::new().writable(true).logical_block_size(gpt::disk::LogicalBlockSize::Lb512);
        let mut table = config.create_from_device(whole, Some(Uuid::from_u128(99))).unwrap();
        let ids = partuuids_of_root_hash(&release.image.uki.root_hash);
        let version = &release.image.uki.version;
        let partitions = PartitionRole::ALL.into_iter().map(|role| {
            let (range, name, id) = match role {
                PartitionRole::Esp => (&layout.esp, "esp".to_owned(), Uuid::from_u128(1)),
                PartitionRole::Root(SlotName::A) => (&layout.roots[0], PartitionLabel::Root(version.clone()).to_string(), ids.root),
                PartitionRole::Verity(SlotName::A) => {
                    (&layout.verities[0], PartitionLabel::Verity(version.clone()).to_string(), ids.verity)
                }
                PartitionRole::Root(SlotName::B) => (&layout.roots[1], "_empty".to_owned(), Uuid::from_u128(2)),
                PartitionRole::Verity(SlotName::B) => (&layout.verities[1], "_empty".to_owned(), Uuid::from_u128(3)),
                PartitionRole::State => (&layout.state, "state".to_owned(), Uuid::from_u128(4)),
            };
            let partition = gpt::partition::Partition {
                part_type_guid: gpt::partition_types::Type { guid: partition_type(role), os: gpt::partition_types::OperatingSystem::Linux },
                part_guid: id,
                first_lba: range.start / SECTOR,
                last_lba: range.end / SECTOR - 1,
                flags: 0,
                name,
            };
            (role.number(), partition)
        });
        table.update_partitions(partitions.collect()).unwrap();
        table.write().unwrap();
    }
    let sectors = ((layout.esp.end - layout.esp.start) / SECTOR) as u32;
    let options = FormatVolumeOptions::new().fat_type(FatType::Fat32).bytes_per_cluster(512).total_sectors(sectors);
    format_volume(Window::new(&disk), options).unwrap();
    {
        let volume = FileSystem::new(Window::new(&disk), FsOptions::new()).unwrap();
        for directory in ["EFI", "EFI/BOOT", "EFI/Linux", "loader"] {
            volume.root_dir().create_dir(directory).unwrap();
        }
        volume.root_dir().create_file("EFI/BOOT/BOOTX64.EFI").unwrap().write_all(&noise("loader", 9000)).unwrap();
        volume.root_dir().create_file("loader/loader.conf").unwrap().write_all(b"timeout 0\n").unwrap();
    }
    disk.write(Area::Root(SlotName::A), 0, &release.root).unwrap();
    crate::verity::build(&disk, SlotName::A, &release.image.superblock, &release.image.uki.root_hash).unwrap();
    FatEsp(&disk).create(&format!("garboard_{}.efi", release.image.uki.version), &mut release.uki.as_slice()).unwrap();
    let mut image = disk.image.into_inner();
    image.flatten();
    image
}

/// The whole update, as the agent does it.
pub fn install(disk: &Disk, running: &Running, release: &Release) -> Result<(), CommitError> {
    let (mut esp, mut fresh) = (FatEsp(disk), fresh());
    let mut installer = Installer { target: disk, esp: &mut esp, fresh: &mut fresh, running: running.clone() };
    if installer.claim(&release.image)? == crate::commit::Claim::Empty {
        let area = Area::Root(installer.slot());
        for (index, part) in release.root.chunks(16 * 1024).enumerate() {
            disk.write(area, index as u64 * 16 * 1024, part).map_err(|source| CommitError::Write { area, source })?;
        }
        installer.fill(&release.image)?;
    }
    installer.put_uki(&release.image, &mut release.uki.as_slice())
}
