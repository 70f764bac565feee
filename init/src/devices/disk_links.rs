//! `/dev/disk/by-*` and `/dev/mapper`: what leads to a block device by what is on it, by its partition table, by its serial number
//! and by where it is plugged in.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use super::disk_id;
use super::links::{Change, Links};
use crate::disk::block::{self, Disk};
use crate::disk::gpt::Partition;
use crate::disk::superblock::{PROBE_LEN, Superblock, probe};

/// Keeps the links of all block devices.
#[derive(Debug)]
pub(super) struct DiskLinks {
    root: PathBuf,
    links: Links,
    /// Partition tables by disk, read once per sweep or change of the disk.
    tables: HashMap<String, Vec<Partition>>,
}

impl DiskLinks {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), links: Links::default(), tables: HashMap::new() }
    }

    /// Looks at every block device.
    pub(super) fn sweep(&mut self) {
        self.tables.clear();
        let mut names: Vec<String> = fs::read_dir(self.root.join("sys/class/block"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        for name in names {
            self.look_at(&name);
        }
    }

    /// Looks at one, by the kernel's name.
    pub(super) fn look_at(&mut self, name: &str) {
        let sys = self.root.join("sys/class/block").join(name);
        let read = |attribute: &str| fs::read_to_string(sys.join(attribute)).ok().map(|text| text.trim().to_owned());
        if read("size").is_none_or(|size| size == "0") || name.starts_with("ram") {
            self.forget(name);
            return;
        }
        let mut links = Vec::new();
        if let Some(mapped) = read("dm/name") {
            links.push(format!("mapper/{mapped}"));
            links.push(format!("disk/by-id/dm-name-{}", encode(&mapped)));
        }
        let partition = read("partition").and_then(|number| number.parse::<u32>().ok());
        let Some(target) = fs::canonicalize(&sys).ok() else { return };
        let whole = if partition.is_some() { target.parent().map(Path::to_owned) } else { Some(target) };
        if let Some(whole) = whole {
            let part = partition.map_or_else(String::new, |number| format!("-part{number}"));
            links.extend(disk_id::by_id(&whole).iter().map(|id| format!("disk/by-id/{}{part}", encode(id))));
            links.extend(disk_id::by_path(&whole).iter().map(|path| format!("disk/by-path/{path}{part}")));
            let disk = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match partition {
                Some(number) => links.extend(self.by_table(&disk, number)),
                None => {
                    self.tables.remove(&disk);
                }
            }
        }
        links.extend(read_superblock(name).iter().flat_map(by_superblock));
        let changes = self.links.set(name, &links);
        self.carry_out(&changes);
    }

    /// Takes away the links of a device that is gone.
    pub(super) fn forget(&mut self, name: &str) {
        self.tables.remove(name);
        let changes = self.links.set(name, &[]);
        self.carry_out(&changes);
    }

    fn by_table(&mut self, disk: &str, number: u32) -> Vec<String> {
        let sys = self.root.join("sys");
        let table = self.tables.entry(disk.to_owned()).or_insert_with(|| {
            let disk = Disk::all(&sys).into_iter().find(|known| known.name == disk);
            disk.and_then(|disk| disk.read_gpt().ok()).map(|gpt| gpt.partitions()).unwrap_or_default()
        });
        let Some(partition) = table.iter().find(|partition| partition.number == number) else { return Vec::new() };
        let mut links = vec![format!("disk/by-partuuid/{}", partition.id)];
        if !partition.label.is_empty() {
            links.push(format!("disk/by-partlabel/{}", encode(&partition.label)));
        }
        links
    }

    fn carry_out(&self, changes: &[Change]) {
        for change in changes {
            let result = match change {
                Change::Point { link, device } => self.point(link, device),
                Change::Remove { link } => fs::remove_file(self.root.join("dev").join(link)),
            };
            if let Err(error) = result {
                eprintln!("coldplug: {change:?}: {error}");
            }
        }
    }

    fn point(&self, link: &str, device: &str) -> std::io::Result<()> {
        let path = self.root.join("dev").join(link);
        if let Some(above) = path.parent() {
            fs::create_dir_all(above)?;
        }
        let up = "../".repeat(link.matches('/').count());
        let target = format!("{up}{}", device.replace('!', "/"));
        let temporary = path.with_file_name(format!(".{device}.new"));
        let _ = fs::remove_file(&temporary);
        symlink(target, &temporary)?;
        fs::rename(&temporary, &path)
    }
}

fn read_superblock(name: &str) -> Option<Superblock> {
    let device = File::open(block::node(name)).ok()?;
    let mut bytes = vec![0; PROBE_LEN];
    let mut len = 0;
    while let Some(rest) = bytes.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match device.read_at(rest, len as u64) {
            Ok(0) | Err(_) => break,
            Ok(read) => len += read,
        }
    }
    probe(bytes.get(..len)?)
}

fn by_superblock(superblock: &Superblock) -> Vec<String> {
    let uuid = superblock.uuid.iter().map(|uuid| format!("disk/by-uuid/{uuid}"));
    let label = superblock.label.iter().map(|label| format!("disk/by-label/{}", encode(label)));
    uuid.chain(label).collect()
}

/// As udev writes names: everything but letters, digits and `#+-.:=@_` becomes `\xNN`.
fn encode(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() || "#+-.:=@_".contains(c) || !c.is_ascii() => c.to_string(),
            c => format!("\\x{:02x}", u32::from(c)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_udev_does() {
        assert_eq!(encode("EFI System/x"), "EFI\\x20System\\x2fx");
        let superblock = Superblock { kind: "ext4", uuid: Some("u".to_owned()), label: Some("a b".to_owned()) };
        assert_eq!(by_superblock(&superblock), ["disk/by-uuid/u", "disk/by-label/a\\x20b"]);
    }

    #[test]
    fn links_lead_up_to_dev() {
        let root = tempfile::tempdir().unwrap();
        let links = DiskLinks::new(root.path());
        links.point("disk/by-label/x", "vda1").unwrap();
        links.point("mapper/root", "dm-0").unwrap();
        links.point("disk/by-label/x", "vdb1").unwrap();
        assert_eq!(fs::read_link(root.path().join("dev/disk/by-label/x")).unwrap(), Path::new("../../vdb1"));
        assert_eq!(fs::read_link(root.path().join("dev/mapper/root")).unwrap(), Path::new("../dm-0"));
    }
}
