//! The host: its disk behind [`Target`], and what it is.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use disk_layout::gpt::Geometry;
use disk_layout::{PartitionRole, SlotName, Version};
use release_format::{Name, StateFloor};
use serde::Deserialize;
use thiserror::Error;

use crate::commit::Running;
use crate::target::{Area, Target};

const BOOT: &str = "/run/garboard/boot.json";
/// What the image's programs do to state, as its builder has noted.
const FLOOR: &str = "/usr/share/garboard/update/state.json";
/// Buffers and places of direct reads are multiples of this.
const ALIGN: u64 = 4096;
const BOUNCE: usize = 1 << 20;
/// Writes of so many bytes and more are begun at once.
const WRITE_EARLY: u64 = 64 << 10;

/// Why this host cannot be updated.
#[derive(Debug, Error)]
pub enum HostError {
    /// A file does not say what it must.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A device cannot be opened.
    #[error("{}: {source}", path.display())]
    Device {
        /// The device.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// `boot.json`, as far as it matters here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct BootRecord {
    version: String,
    slot: String,
    root_hash: String,
    disk: String,
    uki: String,
}

/// What this host is.
#[derive(Clone, Debug)]
pub struct Host {
    /// Version, slot, root hash.
    pub running: Running,
    /// The disk, `/dev/vda`.
    pub disk: PathBuf,
    /// The name of the UKI that was booted.
    pub uki: String,
    /// Identifies the host in waves.
    pub machine_id: String,
    /// The image, by os-release.
    pub image: Name,
    /// The architecture.
    pub architecture: Name,
    /// What the running image's programs do to state, as its builder has noted.
    pub floor: StateFloor,
}

impl Host {
    /// Finds out.
    ///
    /// # Errors
    /// When the boot record or os-release is missing or strange: this is no Garboard host.
    pub fn read() -> Result<Self, HostError> {
        let bad = |path: &str, reason: String| HostError::File { path: path.into(), reason };
        let text = fs::read(BOOT).map_err(|error| bad(BOOT, error.to_string()))?;
        let record: BootRecord = serde_json::from_slice(&text).map_err(|error| bad(BOOT, error.to_string()))?;
        let version: Version = record.version.parse().map_err(|error: disk_layout::VersionError| bad(BOOT, error.to_string()))?;
        let slot = match record.slot.as_str() {
            "a" => SlotName::A,
            "b" => SlotName::B,
            other => return Err(bad(BOOT, format!("'{other}' is no slot: this system was not booted from one"))),
        };
        let digest: release_format::Digest = record.root_hash.parse().map_err(|error: String| bad(BOOT, error))?;
        let release = "/usr/lib/os-release";
        let text = fs::read_to_string(release).map_err(|error| bad(release, error.to_string()))?;
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.map(|value| value.trim_matches(['"', '\'']).to_owned())
        };
        let image = value("VARIANT_ID").or_else(|| value("IMAGE_ID")).unwrap_or_default();
        let image = image.parse().map_err(|error: release_format::NameError| bad(release, format!("VARIANT_ID: {error}")))?;
        let architecture = std::env::consts::ARCH.parse().map_err(|error: release_format::NameError| bad(release, error.to_string()))?;
        let machine_id = fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned();
        let running = Running { slot, version, root_hash: *digest.as_bytes() };
        let floor = read_floor(Path::new(FLOOR))?;
        Ok(Self { running, disk: record.disk.into(), uki: record.uki, machine_id, image, architecture, floor })
    }

    /// The device of a partition, by its number.
    ///
    /// # Errors
    /// When the kernel does not know it.
    pub fn partition(&self, role: PartitionRole) -> Result<PathBuf, HostError> {
        let name = self.disk.file_name().unwrap_or_default();
        let sys = Path::new("/sys/class/block").join(name);
        let found = fs::read_dir(&sys).into_iter().flatten().flatten().find(|entry| {
            let number = fs::read_to_string(entry.path().join("partition")).unwrap_or_default();
            number.trim().parse() == Ok(role.number())
        });
        let entry = found.ok_or_else(|| HostError::File { path: sys, reason: format!("no partition {}", role.number()) })?;
        Ok(Path::new("/dev").join(entry.file_name()))
    }
}

/// An image from before there was such a file says nothing.
fn read_floor(path: &Path) -> Result<StateFloor, HostError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(StateFloor::default()),
        Err(error) => Err(HostError::File { path: path.to_owned(), reason: error.to_string() }),
        Ok(text) => serde_json::from_slice(&text).map_err(|error| HostError::File { path: path.to_owned(), reason: error.to_string() }),
    }
}

/// A device, opened twice: for writes through the cache, and for reads past it.
#[derive(Debug)]
struct Device {
    buffered: File,
    direct: Option<File>,
    /// Where it begins in its file: 0 but where a file stands for a whole disk.
    start: u64,
    len: u64,
}

impl Device {
    fn open(path: &Path, writable: bool) -> Result<Self, HostError> {
        let error = |source| HostError::Device { path: path.to_owned(), source };
        let buffered = OpenOptions::new().read(true).write(writable).open(path).map_err(error)?;
        let len = rustix::fs::seek(&buffered, rustix::fs::SeekFrom::End(0)).map_err(|errno| error(errno.into()))?;
        let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0);
        let direct = OpenOptions::new().read(true).custom_flags(flags).open(path).ok();
        Ok(Self { buffered, direct, start: 0, len })
    }

    /// Reads through an aligned buffer from the medium; what is still in the cache is written out first by the kernel.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let Some(direct) = &self.direct else { return self.buffered.read_exact_at(buffer, self.start + offset) };
        let before = ((self.start + offset) % ALIGN) as usize;
        let size = (before + buffer.len()).next_multiple_of(ALIGN as usize).min(BOUNCE);
        let mut bounce = vec![0_u8; size + ALIGN as usize];
        let skip = bounce.as_ptr().align_offset(ALIGN as usize);
        let bounce = bounce.get_mut(skip..skip + size).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut done = 0;
        while done < buffer.len() {
            let at = self.start + offset + done as u64;
            let start = at / ALIGN * ALIGN;
            let wanted = ((at - start) as usize + buffer.len() - done).next_multiple_of(ALIGN as usize).min(size);
            let part = bounce.get_mut(..wanted).ok_or(io::ErrorKind::InvalidInput)?;
            let got = direct.read_at(part, start)?;
            let fresh = part.get((at - start) as usize..got).filter(|fresh| !fresh.is_empty()).ok_or(io::ErrorKind::UnexpectedEof)?;
            let rest = buffer.get_mut(done..).unwrap_or_default();
            let count = fresh.len().min(rest.len());
            for (to, from) in rest.chunks_mut(count).zip(fresh.chunks(count)).take(1) {
                to.copy_from_slice(from);
            }
            done += count;
        }
        Ok(())
    }
}

/// The disk of this host.
#[derive(Debug)]
pub struct HostDisk {
    geometry: Geometry,
    disk: Device,
    esp: Device,
    roots: [Device; 2],
    verities: [Device; 2],
}

impl HostDisk {
    /// Opens the disk and its partitions.
    ///
    /// # Errors
    /// When one is missing.
    pub fn open(host: &Host) -> Result<Self, HostError> {
        // What runs is not even opened for writing.
        let writable = |role| !matches!(role, PartitionRole::Root(slot) | PartitionRole::Verity(slot) if slot == host.running.slot);
        let partition = |role| Device::open(&host.partition(role)?, writable(role));
        let disk = Device::open(&host.disk, true)?;
        let name = host.disk.file_name().unwrap_or_default();
        let size = fs::read_to_string(Path::new("/sys/class/block").join(name).join("queue/logical_block_size")).unwrap_or_default();
        let block_size = size.trim().parse().unwrap_or(512);
        let both = |role: fn(SlotName) -> PartitionRole| Ok::<_, HostError>([partition(role(SlotName::A))?, partition(role(SlotName::B))?]);
        Ok(Self {
            geometry: Geometry { block_size, blocks: disk.len / block_size },
            esp: partition(PartitionRole::Esp)?,
            roots: both(PartitionRole::Root)?,
            verities: both(PartitionRole::Verity)?,
            disk,
        })
    }

    /// A file that holds a whole disk.
    #[cfg(test)]
    pub fn of_file(path: &Path) -> Self {
        let disk = Device::open(path, true).unwrap();
        let geometry = Geometry { block_size: 512, blocks: disk.len / 512 };
        let table = disk_layout::gpt::Gpt::read(&disk.buffered, geometry).unwrap();
        let part = |role: PartitionRole| {
            let range = table.partition(role.number()).unwrap();
            Device { start: range.first * 512, len: (range.last + 1 - range.first) * 512, ..Device::open(path, true).unwrap() }
        };
        let both = |role: fn(SlotName) -> PartitionRole| [part(role(SlotName::A)), part(role(SlotName::B))];
        Self { geometry, esp: part(PartitionRole::Esp), roots: both(PartitionRole::Root), verities: both(PartitionRole::Verity), disk }
    }

    fn device(&self, area: Area) -> &Device {
        let pick = |pair: &'static str, slot: SlotName| match (pair, slot) {
            ("root", SlotName::A) => &self.roots[0],
            ("root", SlotName::B) => &self.roots[1],
            (_, SlotName::A) => &self.verities[0],
            (_, SlotName::B) => &self.verities[1],
        };
        match area {
            Area::Disk => &self.disk,
            Area::Esp => &self.esp,
            Area::Root(slot) => pick("root", slot),
            Area::Verity(slot) => pick("verity", slot),
        }
    }
}

impl Target for HostDisk {
    fn len(&self, area: Area) -> io::Result<u64> {
        Ok(self.device(area).len)
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read(&self, area: Area, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.device(area).read(offset, buffer)
    }

    fn write(&self, area: Area, offset: u64, data: &[u8]) -> io::Result<()> {
        let device = self.device(area);
        device.buffered.write_all_at(data, device.start + offset)?;
        if let Some(len) = std::num::NonZeroU64::new(data.len() as u64).filter(|len| len.get() >= WRITE_EARLY) {
            // Begins to write them to the medium, so that little is left to wait for at the next sync, and the host's cache is not
            // filled with what nobody reads. A hint: without it all is as durable, and later.
            let _ = rustix::fs::fadvise(&device.buffered, device.start + offset, Some(len), rustix::fs::Advice::DontNeed);
        }
        Ok(())
    }

    fn sync(&self, area: Area) -> io::Result<()> {
        self.device(area).buffered.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_at_any_place_and_length() {
        let mut file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        let content: Vec<u8> = (0..3 * BOUNCE + 8192).map(|at| (at / 7) as u8).collect();
        io::Write::write_all(&mut file, &content).unwrap();
        let device = Device::open(file.path(), false).unwrap();
        for (offset, len) in [(0, 512), (446, 1), (513, 4096), (4095, 2), (100, 2 * BOUNCE + 77), (content.len() - 3, 3)] {
            let mut buffer = vec![0; len];
            device.read(offset as u64, &mut buffer).unwrap();
            assert_eq!(buffer, content[offset..offset + len], "{offset} {len}");
        }
        assert!(device.read(content.len() as u64 - 1, &mut [0; 2]).is_err());
    }
}
