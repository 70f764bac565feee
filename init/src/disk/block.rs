//! The kernel's block devices, by `/sys`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::gpt::{Geometry, Gpt, GptError};

/// A whole disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The kernel's name, `vda`.
    pub name: String,
    sys: PathBuf,
}

impl Disk {
    /// All whole disks with a medium in them, sorted by name; what the kernel builds out of others (loop, device mapper, RAM) is left out.
    #[must_use]
    pub fn all(sys: &Path) -> Vec<Self> {
        let mut disks: Vec<Self> = fs::read_dir(sys.join("block"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| Self { name: entry.file_name().to_string_lossy().into_owned(), sys: entry.path() })
            .filter(|disk| !["loop", "ram", "dm-", "zram", "md", "nbd", "sr"].iter().any(|virtual_| disk.name.starts_with(virtual_)))
            .filter(|disk| disk.number("size").is_some_and(|size| size > 0))
            .collect();
        disks.sort_by(|a, b| a.name.cmp(&b.name));
        disks
    }

    /// The device node.
    #[must_use]
    pub fn node(&self) -> PathBuf {
        node(&self.name)
    }

    /// Block size and number of blocks.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        let block_size = self.number("queue/logical_block_size").filter(|size| size.is_power_of_two() && (512..=65_536).contains(size));
        let block_size = block_size.unwrap_or(512);
        Geometry { block_size, blocks: self.number("size").unwrap_or(0).saturating_mul(512) / block_size }
    }

    /// Reads the partition table.
    ///
    /// # Errors
    /// When the disk cannot be read or has none.
    pub fn read_gpt(&self) -> Result<Gpt, GptError> {
        Gpt::read(&File::open(self.node())?, self.geometry())
    }

    /// The kernel's device for the partition with a number, as its name (`vda2`), once it exists.
    #[must_use]
    pub fn partition_name(&self, number: u32) -> Option<String> {
        fs::read_dir(&self.sys).ok()?.flatten().find_map(|entry| {
            let text = fs::read_to_string(entry.path().join("partition")).ok()?;
            (text.trim().parse() == Ok(number)).then(|| entry.file_name().to_string_lossy().into_owned())
        })
    }

    fn number(&self, attribute: &str) -> Option<u64> {
        fs::read_to_string(self.sys.join(attribute)).ok()?.trim().parse().ok()
    }
}

/// The node of a device by the kernel's name for it, in which `!` stands for a slash.
#[must_use]
pub fn node(name: &str) -> PathBuf {
    Path::new("/dev").join(name.replace('!', "/"))
}

/// Makes what was written to a device durable.
///
/// # Errors
/// When the device reports a failed write.
pub fn flush(device: &File) -> io::Result<()> {
    device.sync_all()
}
