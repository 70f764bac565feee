//! What a module file says about itself: its aliases and what it depends on, from the `.modinfo` section.

use super::index::normal;

/// From one `.ko` file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// As in `modules.alias`.
    pub aliases: Vec<String>,
    /// Names of the modules whose symbols it uses.
    pub depends: Vec<String>,
}

impl Info {
    /// Reads a 64-bit little-endian ELF file; nothing is known of anything else (a compressed module).
    #[must_use]
    pub fn parse(file: &[u8]) -> Self {
        let mut info = Self::default();
        for entry in section(file, b".modinfo").unwrap_or_default().split(|&byte| byte == 0) {
            match std::str::from_utf8(entry).ok().and_then(|entry| entry.split_once('=')) {
                Some(("alias", alias)) => info.aliases.push(normal(alias)),
                Some(("depends", names)) => info.depends.extend(names.split(',').filter(|name| !name.is_empty()).map(normal)),
                _ => {}
            }
        }
        info
    }

    /// Whether it is the driver of some device, to be loaded when there is one.
    #[must_use]
    pub fn is_driver(&self) -> bool {
        self.aliases.iter().any(|alias| is_of_device(alias))
    }

    /// Whether it drives one of the devices.
    #[must_use]
    pub fn drives(&self, devices: &[String]) -> bool {
        self.aliases
            .iter()
            .filter(|alias| is_of_device(alias))
            .any(|alias| devices.iter().any(|device| crate::glob::matches(alias, &normal(device))))
    }
}

/// `pci:`, `virtio:`, `acpi*:` and their kin; not what processors, file systems and device numbers are called.
fn is_of_device(alias: &str) -> bool {
    alias.contains(':') && !["cpu:", "devname:", "dm_", "crypto_"].iter().any(|other| alias.starts_with(other))
}

/// The contents of a section of an ELF file.
fn section<'a>(file: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    const ELF64_LITTLE_ENDIAN: &[u8] = b"\x7fELF\x02\x01";
    if !file.starts_with(ELF64_LITTLE_ENDIAN) {
        return None;
    }
    let table = usize::try_from(number(file, 0x28, 8)?).ok()?;
    let (size, count, names) = (number(file, 0x3a, 2)?, number(file, 0x3c, 2)?, number(file, 0x3e, 2)?);
    let header = |index: u64| {
        let start = table.checked_add(usize::try_from(index.checked_mul(size)?).ok()?)?;
        file.get(start..start.checked_add(64)?)
    };
    let contents = |header: &[u8]| {
        let (start, len) = (usize::try_from(number(header, 0x18, 8)?).ok()?, usize::try_from(number(header, 0x20, 8)?).ok()?);
        file.get(start..start.checked_add(len)?)
    };
    let names = contents(header(names)?)?;
    (0..count).filter_map(header).find_map(|header| {
        let rest = names.get(usize::try_from(number(header, 0, 4)?).ok()?..)?;
        (rest.strip_prefix(name)?.first() == Some(&0)).then(|| contents(header))?
    })
}

fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    Some(bytes.get(at..at.checked_add(len)?)?.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with a section of names and one of module information.
    fn elf(modinfo: &[u8]) -> Vec<u8> {
        let names = b"\0.shstrtab\0.modinfo\0";
        let mut file = vec![0_u8; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let (names_at, info_at) = (64, 64 + names.len());
        let table = info_at + modinfo.len();
        file[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        file[0x3a..0x3c].copy_from_slice(&64_u16.to_le_bytes());
        file[0x3c..0x3e].copy_from_slice(&2_u16.to_le_bytes());
        file.extend_from_slice(names);
        file.extend_from_slice(modinfo);
        for (name, at, len) in [(1_u32, names_at, names.len()), (11, info_at, modinfo.len())] {
            let mut header = [0_u8; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(at as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(len as u64).to_le_bytes());
            file.extend_from_slice(&header);
        }
        file
    }

    #[test]
    fn aliases_and_dependencies_are_found() {
        let info = Info::parse(&elf(b"license=GPL\0alias=virtio:d00000002v*\0depends=virtio-ring,x\0depends=\0"));
        assert_eq!(info, Info { aliases: vec!["virtio:d00000002v*".to_owned()], depends: vec!["virtio_ring".to_owned(), "x".to_owned()] });
        assert!(info.is_driver() && info.drives(&["virtio:d00000002v00001AF4".to_owned()]));
        assert!(!info.drives(&["virtio:d00000003v00001AF4".to_owned()]));
    }

    #[test]
    fn file_systems_and_processor_code_are_no_drivers() {
        for alias in ["fs-erofs", "cpu:type:x86,ven*fam*mod*:feature:*0099*", "crypto-sha256", "devname:loop-control"] {
            let info = Info { aliases: vec![normal(alias)], depends: vec![] };
            assert!(!info.is_driver(), "{alias}");
        }
    }

    #[test]
    fn any_bytes_are_nothing_known() {
        let whole = elf(b"alias=pci:x\0");
        for len in 0..whole.len() {
            let _ = Info::parse(&whole[..len]);
        }
        let mut wild = whole;
        wild[0x28..0x40].fill(0xff);
        assert_eq!(Info::parse(&wild), Info::default());
    }
}
