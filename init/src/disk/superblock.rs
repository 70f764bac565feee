//! What a block device holds, told from its first bytes: file system, UUID, label. For `/dev/disk/by-*` and for the
//! state of our own partition. Reads untrusted bytes and never panics.

use uuid::Uuid;

/// Bytes from the start of a device that [`probe`] wants to see.
pub const PROBE_LEN: usize = 0x10400;

/// What was recognised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Superblock {
    /// `ext4`, `vfat`, `erofs`, ...
    pub kind: &'static str,
    /// As the tools print it.
    pub uuid: Option<String>,
    /// Volume name.
    pub label: Option<String>,
}

/// Whether an ext4 file system must be looked at by e2fsck before it is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtState {
    /// Unmounted cleanly, no errors noted.
    Clean,
    /// Its journal has to be replayed, or errors were noted.
    Dirty,
}

/// Looks for the file systems that the host may meet.
#[must_use]
pub fn probe(bytes: &[u8]) -> Option<Superblock> {
    ext(bytes)
        .or_else(|| erofs(bytes))
        .or_else(|| xfs(bytes))
        .or_else(|| squashfs(bytes))
        .or_else(|| swap(bytes))
        .or_else(|| btrfs(bytes))
        .or_else(|| iso9660(bytes))
        .or_else(|| vfat(bytes))
}

/// Reads the marks that say whether ext4 was left in order; `None` when there is no ext4.
#[must_use]
pub fn ext_state(bytes: &[u8]) -> Option<ExtState> {
    const NEEDS_RECOVERY: u32 = 4;
    ext(bytes)?;
    let state = le16(bytes, 1024 + 58)?;
    let incompat = le32(bytes, 1024 + 96)?;
    // Bit 0: cleanly unmounted; bit 1: errors seen.
    Some(if state & 3 == 1 && incompat & NEEDS_RECOVERY == 0 { ExtState::Clean } else { ExtState::Dirty })
}

/// Block size in bytes and number of blocks of an ext4.
#[must_use]
pub fn ext_size(bytes: &[u8]) -> Option<(u64, u64)> {
    const SIXTY_FOUR_BIT: u32 = 0x80;
    ext(bytes)?;
    let block_size = 1024_u64.checked_shl(le32(bytes, 1024 + 24)?)?;
    let high = if le32(bytes, 1024 + 96)? & SIXTY_FOUR_BIT != 0 { le32(bytes, 1024 + 0x150)? } else { 0 };
    Some((block_size, u64::from(high) << 32 | u64::from(le32(bytes, 1024 + 4)?)))
}

fn ext(bytes: &[u8]) -> Option<Superblock> {
    const EXTENTS: u32 = 0x40;
    const HAS_JOURNAL: u32 = 0x4;
    if le16(bytes, 1024 + 56)? != 0xef53 {
        return None;
    }
    let kind = match (le32(bytes, 1024 + 96)? & EXTENTS != 0, le32(bytes, 1024 + 92)? & HAS_JOURNAL != 0) {
        (true, _) => "ext4",
        (false, true) => "ext3",
        (false, false) => "ext2",
    };
    Some(Superblock { kind, uuid: uuid(bytes, 1024 + 104), label: text(bytes, 1024 + 120, 16) })
}

fn erofs(bytes: &[u8]) -> Option<Superblock> {
    (le32(bytes, 1024)? == 0xe0f5_e1e2).then(|| Superblock {
        kind: "erofs",
        uuid: uuid(bytes, 1024 + 48),
        label: text(bytes, 1024 + 64, 16),
    })
}

fn xfs(bytes: &[u8]) -> Option<Superblock> {
    (bytes.get(..4)? == b"XFSB").then(|| Superblock { kind: "xfs", uuid: uuid(bytes, 32), label: text(bytes, 108, 12) })
}

fn squashfs(bytes: &[u8]) -> Option<Superblock> {
    (bytes.get(..4)? == b"hsqs").then(|| Superblock { kind: "squashfs", ..Superblock::default() })
}

fn swap(bytes: &[u8]) -> Option<Superblock> {
    (bytes.get(4086..4096)? == b"SWAPSPACE2").then(|| Superblock { kind: "swap", uuid: uuid(bytes, 1036), label: text(bytes, 1052, 16) })
}

fn btrfs(bytes: &[u8]) -> Option<Superblock> {
    (bytes.get(0x10040..0x10048)? == b"_BHRfS_M").then(|| Superblock {
        kind: "btrfs",
        uuid: uuid(bytes, 0x10020),
        label: text(bytes, 0x1012b, 256),
    })
}

fn iso9660(bytes: &[u8]) -> Option<Superblock> {
    const AT: usize = 0x8000;
    if bytes.get(AT..AT + 6)? != b"\x01CD001" {
        return None;
    }
    // Modification, else creation time: `2026010112000000` is shown as 2026-01-01-12-00-00-00.
    let stamp = [AT + 830, AT + 813].into_iter().find_map(|at| bytes.get(at..at + 16).filter(|raw| raw.iter().all(u8::is_ascii_digit)));
    let uuid = stamp.and_then(|raw| std::str::from_utf8(raw).ok()).map(|digits| {
        let (year, rest) = digits.split_at(4);
        let pairs: Vec<String> = rest.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).into_owned()).collect();
        format!("{year}-{}", pairs.join("-"))
    });
    Some(Superblock { kind: "iso9660", uuid, label: text(bytes, AT + 40, 32) })
}

fn vfat(bytes: &[u8]) -> Option<Superblock> {
    if bytes.get(510..512)? != [0x55, 0xaa] {
        return None;
    }
    let at = if bytes.get(82..87)? == b"FAT32" {
        67
    } else if bytes.get(54..57)? == b"FAT" {
        39
    } else {
        return None;
    };
    let serial = le32(bytes, at)?;
    let label = text(bytes, at + 4, 11).filter(|label| label != "NO NAME");
    Some(Superblock { kind: "vfat", uuid: Some(format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff)), label })
}

fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn uuid(bytes: &[u8], at: usize) -> Option<String> {
    let raw: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
    (raw != [0; 16]).then(|| Uuid::from_bytes(raw).to_string())
}

fn text(bytes: &[u8], at: usize, len: usize) -> Option<String> {
    let raw = bytes.get(at..at + len)?;
    let end = raw.iter().position(|&b| b == 0).unwrap_or(len);
    let text = String::from_utf8_lossy(raw.get(..end)?).trim_end().to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn made_by(program: &str, args: &[&str], size: u64) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        let status = Command::new(program).args(args).arg(file.path()).output().unwrap().status;
        assert!(status.success(), "{program}");
        let mut bytes = std::fs::read(file.path()).unwrap();
        bytes.resize(PROBE_LEN, 0);
        bytes
    }

    #[test]
    fn recognises_what_the_tools_make() {
        let id = "11223344-5566-7788-99aa-bbccddeeff00";
        let found = probe(&made_by("mkfs.ext4", &["-q", "-U", id, "-L", "state"], 8 << 20)).unwrap();
        assert_eq!(found, Superblock { kind: "ext4", uuid: Some(id.into()), label: Some("state".into()) });
        let found = probe(&made_by("mkfs.vfat", &["-F", "32", "-i", "1234abcd", "-n", "ESP"], 64 << 20)).unwrap();
        assert_eq!(found, Superblock { kind: "vfat", uuid: Some("1234-ABCD".into()), label: Some("ESP".into()) });
        let found = probe(&made_by("mkswap", &["-U", id, "-L", "sw"], 8 << 20)).unwrap();
        assert_eq!(found, Superblock { kind: "swap", uuid: Some(id.into()), label: Some("sw".into()) });
    }

    #[test]
    fn a_new_ext4_is_clean_and_a_marked_one_is_not() {
        let mut bytes = made_by("mkfs.ext4", &["-q"], 8 << 20);
        assert_eq!(ext_state(&bytes), Some(ExtState::Clean));
        assert_eq!(ext_size(&bytes), Some((1024, 8192)));
        bytes[1024 + 58] = 0;
        assert_eq!(ext_state(&bytes), Some(ExtState::Dirty));
        assert_eq!(ext_state(&[0; 4096]), None);
    }

    #[test]
    fn short_and_empty_devices_hold_nothing() {
        for len in [0, 1, 512, 1100, PROBE_LEN] {
            assert_eq!(probe(&vec![0; len]), None);
        }
    }
}
