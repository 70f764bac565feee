//! What a kernel module says of itself: the `.modinfo` section of its ELF file, `key=value` strings with NULs between.

use object::elf::FileHeader64;
use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, ReadRef};

/// The parts of `.modinfo` that loading needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModInfo {
    /// `alias`: what hardware or protocol asks for it, in the file's order.
    pub aliases: Vec<String>,
    /// `depends`: modules whose symbols it uses.
    pub depends: Vec<String>,
    /// `softdep`: as written, for example `pre: crc32c`.
    pub softdeps: Vec<String>,
    /// `weakdep`: modules that it may ask for later.
    pub weakdeps: Vec<String>,
    /// `firmware`: files that it may ask for.
    pub firmware: Vec<String>,
}

/// Reads a module's file.
///
/// # Errors
/// With the reason, when it is not a 64-bit ELF file with a `.modinfo` section.
pub fn parse<'data>(data: impl ReadRef<'data>) -> Result<ModInfo, String> {
    let section = modinfo_section(data).map_err(|error| error.to_string())?;
    Ok(parse_strings(section.ok_or("it has no .modinfo section")?))
}

fn modinfo_section<'data>(data: impl ReadRef<'data>) -> Result<Option<&'data [u8]>, object::Error> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    match sections.section_by_name(endian, b".modinfo") {
        Some((_, section)) => section.data(endian, data).map(Some),
        None => Ok(None),
    }
}

/// Reads the strings themselves.
#[must_use]
pub fn parse_strings(section: &[u8]) -> ModInfo {
    let mut info = ModInfo::default();
    for string in section.split(|&byte| byte == 0) {
        let Some((key, value)) = std::str::from_utf8(string).ok().and_then(|string| string.split_once('=')) else { continue };
        match key {
            "alias" => info.aliases.push(value.to_owned()),
            "depends" => info.depends.extend(value.split(',').filter(|name| !name.is_empty()).map(str::to_owned)),
            "softdep" => info.softdeps.push(value.to_owned()),
            "weakdep" => info.weakdeps.push(value.to_owned()),
            "firmware" => info.firmware.push(value.to_owned()),
            _ => {}
        }
    }
    info
}

/// A module's name as the kernel writes it: `-` and `_` are the same to it.
#[must_use]
pub fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_sorted_by_key() {
        let info = parse_strings(b"license=GPL\0alias=pci:v*\0\0alias=fs-x\0depends=a,b-c\0softdep=pre: q\0depends=\0odd\0");
        assert_eq!(info.aliases, ["pci:v*", "fs-x"]);
        assert_eq!(info.depends, ["a", "b-c"]);
        assert_eq!(info.softdeps, ["pre: q"]);
    }

    #[test]
    fn what_is_no_module_is_refused() {
        assert!(parse(&b"not ELF"[..]).is_err());
        let program = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(parse(program.as_slice()).unwrap_err(), "it has no .modinfo section");
    }
}
