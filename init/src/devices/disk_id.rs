//! What a disk calls itself, and where it is plugged in, from `/sys`; named as udev names it.

use std::fs;
use std::path::Path;

/// The names below `/dev/disk/by-id` of a whole disk, given by its real directory below `/sys/devices`.
pub(super) fn by_id(disk: &Path) -> Vec<String> {
    let read = |attribute: &str| {
        let text = fs::read_to_string(disk.join(attribute)).ok()?;
        let text = squeeze(&text);
        (!text.is_empty()).then_some(text)
    };
    let name = disk.file_name().unwrap_or_default().to_string_lossy();
    let mut ids = Vec::new();
    if name.starts_with("vd") {
        ids.extend(read("serial").map(|serial| format!("virtio-{serial}")));
    } else if name.starts_with("nvme") {
        if let (Some(model), Some(serial)) = (read("device/model"), read("device/serial")) {
            ids.push(format!("nvme-{model}_{serial}"));
        }
        ids.extend(read("wwid").map(|wwid| format!("nvme-{wwid}")));
    } else {
        let page = fs::read(disk.join("device/vpd_pg83")).unwrap_or_default();
        ids.extend(scsi_ids(&page));
    }
    ids
}

/// The designators of a SCSI device: by T10 vendor, and by world wide name.
fn scsi_ids(page: &[u8]) -> Vec<String> {
    const T10_VENDOR: u8 = 1;
    const NAA: u8 = 3;
    let mut ids = Vec::new();
    let mut rest = page.get(4..).unwrap_or_default();
    while let [code_set, kind, _, len, tail @ ..] = rest {
        let Some(value) = tail.get(..usize::from(*len)) else { break };
        // Bits 4 and 5: of the device itself rather than of its port.
        if kind & 0x30 == 0 {
            let hex = || value.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            match (kind & 0x0f, code_set & 0x0f) {
                (T10_VENDOR, 2 | 3) => ids.push(format!("scsi-0{}", squeeze(&String::from_utf8_lossy(value)))),
                (NAA, 1) => ids.extend([format!("wwn-0x{}", hex()), format!("scsi-3{}", hex())]),
                _ => {}
            }
        }
        rest = tail.get(usize::from(*len)..).unwrap_or_default();
    }
    ids
}

/// The names below `/dev/disk/by-path`.
pub(super) fn by_path(disk: &Path) -> Vec<String> {
    let parts: Vec<String> = disk.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let Some((at, pci)) = parts.iter().enumerate().rev().find(|(_, part)| is_pci_address(part)) else { return Vec::new() };
    let below = parts.get(at + 1..).unwrap_or_default();
    let suffix = below.iter().find_map(|part| {
        if is_scsi_address(part) {
            Some(format!("-scsi-{part}"))
        } else {
            let namespace = part.strip_prefix("nvme")?.split_once('n')?.1;
            namespace.parse::<u32>().ok().map(|number| format!("-nvme-{number}"))
        }
    });
    let suffix = suffix.unwrap_or_default();
    let mut paths = vec![format!("pci-{pci}{suffix}")];
    if below.iter().any(|part| part.strip_prefix("virtio").is_some_and(|number| number.parse::<u32>().is_ok())) {
        paths.push(format!("virtio-pci-{pci}{suffix}"));
    }
    paths
}

/// `0000:00:05.0`
fn is_pci_address(part: &str) -> bool {
    let fields: Vec<&str> = part.split([':', '.']).collect();
    matches!(fields.as_slice(), [domain, bus, device, function] if (domain.len(), bus.len(), device.len(), function.len()) == (4, 2, 2, 1))
        && part.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, ':' | '.'))
}

/// `2:0:0:1`
fn is_scsi_address(part: &str) -> bool {
    part.split(':').count() == 4 && part.split(':').all(|field| field.parse::<u32>().is_ok())
}

/// White space at the ends goes, in between it becomes one underscore; slashes would make directories.
fn squeeze(text: &str) -> String {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0').split_whitespace().collect::<Vec<_>>().join("_").replace('/', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_by_bus() {
        let path = |text: &str| by_path(Path::new(text));
        assert_eq!(path("/sys/devices/pci0000:00/0000:00:04.0/virtio1/block/vda"), ["pci-0000:00:04.0", "virtio-pci-0000:00:04.0"]);
        assert_eq!(path("/sys/devices/pci0000:00/0000:00:05.0/nvme/nvme0/nvme0n1"), ["pci-0000:00:05.0-nvme-1"]);
        assert_eq!(
            path("/sys/devices/pci0000:00/0000:00:06.0/virtio2/host0/target0:0:1/0:0:1:0/block/sda"),
            ["pci-0000:00:06.0-scsi-0:0:1:0", "virtio-pci-0000:00:06.0-scsi-0:0:1:0"]
        );
        assert!(path("/sys/devices/virtual/block/loop0").is_empty());
    }

    #[test]
    fn scsi_designators() {
        let mut page = vec![0, 0x83, 0, 0];
        page.extend([2, 1, 0, 12]);
        page.extend(b"Google  disk");
        page.extend([1, 3, 0, 2, 0x50, 0x01]);
        page.extend([1, 0x13, 0, 1, 9]);
        assert_eq!(scsi_ids(&page), ["scsi-0Google_disk", "wwn-0x5001", "scsi-35001"]);
        assert!(scsi_ids(&[0, 0x83, 0, 9, 1, 3, 0, 200]).is_empty());
    }

    #[test]
    fn ids_of_virtio_and_nvme() {
        let sys = tempfile::tempdir().unwrap();
        for (disk, file, text) in
            [("vda", "serial", "abc 1\n"), ("nvme0n1", "device/model", "QEMU NVMe  Ctrl\n"), ("nvme0n1", "device/serial", "s/1 \n")]
        {
            let path = sys.path().join(disk).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(by_id(&sys.path().join("vda")), ["virtio-abc_1"]);
        assert_eq!(by_id(&sys.path().join("nvme0n1")), ["nvme-QEMU_NVMe_Ctrl_s_1"]);
    }
}
