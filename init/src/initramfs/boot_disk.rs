//! Which disk this boot came from, and which of its partitions are ours.

use std::fs;
use std::time::Instant;

use disk_layout::{PartitionRole, SlotName, partition_type, partuuids_of_root_hash};
use uuid::Uuid;

use super::failure::Failure;
use super::load::Drivers;
use crate::disk::block::Disk;
use crate::disk::gpt::{Gpt, Partition};
use crate::sys::uevent::UeventSocket;

const LOADER_VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// The disk and the slot that was booted.
#[derive(Debug)]
pub(super) struct BootDisk {
    pub(super) disk: Disk,
    pub(super) gpt: Gpt,
    pub(super) slot: SlotName,
}

/// Loads drivers, then waits, until the disk of this boot is there with its partitions.
pub(super) fn find(root_hash: &[u8; 32], drivers: &mut Drivers, uevents: &UeventSocket, deadline: Instant) -> Result<BootDisk, Failure> {
    let esp = loader_variable("LoaderDevicePartUUID").and_then(|text| text.parse::<Uuid>().ok());
    let sys = std::path::Path::new("/sys");
    loop {
        let seen: Vec<(Disk, Gpt)> = Disk::all(sys).into_iter().filter_map(|disk| disk.read_gpt().ok().map(|gpt| (disk, gpt))).collect();
        let mut matching: Vec<(Disk, Gpt, SlotName)> =
            seen.into_iter().filter_map(|(disk, gpt)| select(&gpt.partitions(), root_hash, esp).map(|slot| (disk, gpt, slot))).collect();
        if matching.len() > 1 {
            let names: Vec<String> = matching.iter().map(|(disk, ..)| disk.node().display().to_string()).collect();
            return Err(Failure::AmbiguousDisk(names.join(" and ")));
        }
        if let Some((disk, gpt, slot)) = matching.pop() {
            return Ok(BootDisk { disk, gpt, slot });
        }
        if drivers.load_next() {
            continue;
        }
        if let Some(event) = uevents.next(deadline).map_err(Failure::Uevents)? {
            if let Some(alias) = event.get("MODALIAS") {
                drivers.appeared(alias);
            }
        } else {
            let wanted = match esp {
                Some(esp) => format!("the disk with the boot partition {esp} and the root {}", partuuids_of_root_hash(root_hash).root),
                None => format!("a disk with the root partition {}", partuuids_of_root_hash(root_hash).root),
            };
            let seen: Vec<String> = Disk::all(sys).into_iter().map(|disk| disk.name).collect();
            return Err(Failure::DiskMissing { wanted, seen: if seen.is_empty() { "none".to_owned() } else { seen.join(", ") } });
        }
    }
}

/// The slot of a partition table whose GUIDs are the halves of the root hash; none when the disk is another one.
fn select(partitions: &[Partition], root_hash: &[u8; 32], esp: Option<Uuid>) -> Option<SlotName> {
    if esp.is_some_and(|esp| !partitions.iter().any(|partition| partition.id == esp)) {
        return None;
    }
    let wanted = partuuids_of_root_hash(root_hash);
    [SlotName::A, SlotName::B].into_iter().find(|&slot| {
        let has = |role: PartitionRole, id: Uuid| {
            partitions
                .iter()
                .any(|partition| partition.number == role.number() && partition.id == id && partition.kind == partition_type(role))
        };
        has(PartitionRole::Root(slot), wanted.root) && has(PartitionRole::Verity(slot), wanted.verity)
    })
}

/// The UKI that was started, by its name on the ESP: as counted down by the loader when it is a trial.
pub(super) fn booted_uki() -> String {
    let path = loader_variable("LoaderBootCountPath").or_else(|| loader_variable("LoaderEntrySelected")).unwrap_or_default();
    path.rsplit(['\\', '/']).next().unwrap_or_default().to_owned()
}

/// A text variable of the boot loader interface.
fn loader_variable(name: &str) -> Option<String> {
    text_of_variable(&fs::read(format!("/sys/firmware/efi/efivars/{name}-{LOADER_VENDOR}")).ok()?)
}

/// Four bytes of attributes, then UTF-16 with a NUL.
fn text_of_variable(bytes: &[u8]) -> Option<String> {
    let units = bytes.get(4..)?.chunks_exact(2).filter_map(|pair| pair.try_into().ok().map(u16::from_le_bytes));
    let text: String = char::decode_utf16(units.take_while(|&unit| unit != 0)).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: u32, role: PartitionRole, id: Uuid) -> Partition {
        Partition { number, kind: partition_type(role), id, first: 0, last: 0, label: String::new() }
    }

    fn table(hash: &[u8; 32], slot: SlotName, esp: Uuid) -> Vec<Partition> {
        let ids = partuuids_of_root_hash(hash);
        let (root, verity) = (PartitionRole::Root(slot), PartitionRole::Verity(slot));
        vec![
            partition(1, PartitionRole::Esp, esp),
            partition(root.number(), root, ids.root),
            partition(verity.number(), verity, ids.verity),
        ]
    }

    #[test]
    fn the_slot_follows_from_the_root_hash() {
        let hash = [7; 32];
        let esp = Uuid::from_u128(1);
        for slot in [SlotName::A, SlotName::B] {
            assert_eq!(select(&table(&hash, slot, esp), &hash, Some(esp)), Some(slot));
            assert_eq!(select(&table(&hash, slot, esp), &hash, None), Some(slot));
        }
        assert_eq!(select(&table(&hash, SlotName::A, esp), &[8; 32], None), None);
    }

    #[test]
    fn a_copy_of_the_image_on_another_disk_is_not_taken() {
        let hash = [7; 32];
        assert_eq!(select(&table(&hash, SlotName::A, Uuid::from_u128(1)), &hash, Some(Uuid::from_u128(2))), None);
    }

    #[test]
    fn loader_variables_are_utf16_behind_attributes() {
        let bytes: Vec<u8> = [6, 0, 0, 0].into_iter().chain("AB\0x".encode_utf16().flat_map(u16::to_le_bytes)).collect();
        assert_eq!(text_of_variable(&bytes).as_deref(), Some("AB"));
        assert_eq!(text_of_variable(&[6, 0]), None);
    }
}
