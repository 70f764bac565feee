//! Unified kernel images: systemd's boot stub, a PE program, with kernel, initramfs, command line and os-release appended as
//! sections (<https://uapi-group.org/specifications/specs/unified_kernel_image/>), in the way `ukify` does it; and
//! the way back, for `inspect`.
//!
//! Only what the appended sections need is touched of the stub: the section table, and three sizes in its headers.

use thiserror::Error;

/// Why bytes are not a PE program that we can read or extend.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PeError {
    /// Wrong magic numbers, or cut short.
    #[error("the boot stub is not a 64-bit PE program ({0})")]
    NotPe(&'static str),
    /// Signed programs cannot be extended.
    #[error("the boot stub is signed, so that nothing can be added to it")]
    Signed,
    /// A section of that name is there already.
    #[error("the boot stub already has a section '{0}'")]
    Duplicate(String),
    /// The section table has no room.
    #[error("the headers of the boot stub have no room for the section '{0}'")]
    NoRoom(String),
    /// PE has 32-bit sizes.
    #[error("the section '{0}' makes the unified kernel image larger than 4 GiB")]
    TooLarge(String),
}

/// What is appended to the stub.
#[derive(Clone, Copy, Debug)]
pub struct UkiParts<'a> {
    /// The boot stub, `linuxx64.efi.stub`.
    pub stub: &'a [u8],
    /// os-release of the image.
    pub os_release: &'a str,
    /// Kernel command line.
    pub cmdline: &'a str,
    /// Kernel release, as in `/lib/modules/<release>`.
    pub release: &'a str,
    /// Initramfs, compressed or not.
    pub initrd: &'a [u8],
    /// The kernel, itself a PE program.
    pub kernel: &'a [u8],
}

/// The section with the initramfs.
pub const INITRD: &str = ".initrd";

/// Joins the parts.
///
/// # Errors
/// When the stub is no PE program, or has no room.
pub fn build(parts: &UkiParts<'_>) -> Result<Vec<u8>, PeError> {
    let mut image = parts.stub.to_vec();
    // The kernel last, so that a stub that runs it in place finds free address space behind it; its virtual size is what it needs when it runs.
    let kernel_size = Headers::parse(parts.kernel).map_or(0, |headers| headers.image_size);
    append(&mut image, ".osrel", parts.os_release.as_bytes(), 0, DATA)?;
    append(&mut image, ".cmdline", parts.cmdline.as_bytes(), 0, DATA)?;
    append(&mut image, ".uname", parts.release.as_bytes(), 0, DATA)?;
    append(&mut image, INITRD, parts.initrd, 0, DATA)?;
    append(&mut image, ".linux", parts.kernel, kernel_size, CODE)?;
    Ok(image)
}

/// A section of a PE program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// Name, at most eight bytes.
    pub name: &'a str,
    /// Contents without padding.
    pub data: &'a [u8],
}

/// All sections of a PE program in order.
///
/// # Errors
/// When the bytes are no PE program.
pub fn sections(image: &[u8]) -> Result<Vec<Section<'_>>, PeError> {
    let headers = Headers::parse(image)?;
    (0..headers.section_count)
        .map(|index| {
            let raw = headers.section(image, index)?;
            let name = image.get(raw.at..raw.at + 8).unwrap_or_default();
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            let start = raw.file_offset as usize;
            let len = raw.file_size.min(raw.virtual_size) as usize;
            let data = image.get(start..start.saturating_add(len)).ok_or(PeError::NotPe("a section lies outside of it"))?;
            let name = std::str::from_utf8(name).map_err(|_| PeError::NotPe("a section's name is not text"))?;
            Ok(Section { name, data })
        })
        .collect()
}

/// The file cut into its parts, as names and lengths: headers (without a name), then each section with its padding,
/// in the order of the file. All of it is covered, so the parts say where each byte belongs.
///
/// # Errors
/// When the bytes are no PE program.
pub fn layout(image: &[u8]) -> Result<Vec<(String, u64)>, PeError> {
    let headers = Headers::parse(image)?;
    let mut starts = vec![(0, String::new())];
    for (index, section) in sections(image)?.iter().enumerate() {
        let raw = headers.section(image, index)?;
        if raw.file_size > 0 {
            starts.push((u64::from(raw.file_offset), section.name.to_owned()));
        }
    }
    starts.sort();
    let ends = starts.iter().skip(1).map(|(start, _)| *start).chain([image.len() as u64]);
    let parts = starts.iter().zip(ends).map(|((start, name), end)| (name.clone(), end.saturating_sub(*start)));
    Ok(parts.filter(|(_, len)| *len > 0).collect())
}

/// `IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ`
const DATA: u32 = 0x4000_0040;
/// `IMAGE_SCN_CNT_CODE | IMAGE_SCN_MEM_READ`
const CODE: u32 = 0x4000_0020;

const SECTION_HEADER: usize = 40;
/// Offsets in the COFF header, which follows the four bytes of the PE signature.
const NUMBER_OF_SECTIONS: usize = 4 + 2;
const SIZE_OF_OPTIONAL_HEADER: usize = 4 + 16;
/// Offsets in the optional header of PE32+.
const OPTIONAL_HEADER: usize = 4 + 20;
const SIZE_OF_INITIALIZED_DATA: usize = OPTIONAL_HEADER + 8;
const SECTION_ALIGNMENT: usize = OPTIONAL_HEADER + 32;
const FILE_ALIGNMENT: usize = OPTIONAL_HEADER + 36;
const SIZE_OF_IMAGE: usize = OPTIONAL_HEADER + 56;
const SIZE_OF_HEADERS: usize = OPTIONAL_HEADER + 60;
const CHECKSUM: usize = OPTIONAL_HEADER + 64;
const SECURITY_DIRECTORY: usize = OPTIONAL_HEADER + 112 + 4 * 8;

/// The headers of a PE32+ program, as far as they matter here.
struct Headers {
    pe: usize,
    section_count: usize,
    section_table: usize,
    section_alignment: u32,
    file_alignment: u32,
    image_size: u32,
    headers_size: u32,
    signed: bool,
}

struct RawSection {
    at: usize,
    virtual_size: u32,
    address: u32,
    file_size: u32,
    file_offset: u32,
}

impl Headers {
    fn parse(image: &[u8]) -> Result<Self, PeError> {
        let cut = || PeError::NotPe("it is cut short");
        let word = |at: usize| u32_at(image, at).ok_or_else(cut);
        if image.get(..2) != Some(b"MZ") {
            return Err(PeError::NotPe("no MZ signature"));
        }
        let pe = word(0x3c)? as usize;
        if pe > image.len() || image.get(pe..pe + 4) != Some(b"PE\0\0") {
            return Err(PeError::NotPe("no PE signature"));
        }
        if u16_at(image, pe + OPTIONAL_HEADER) != Some(0x20b) {
            return Err(PeError::NotPe("not PE32+"));
        }
        let optional_len = u16_at(image, pe + SIZE_OF_OPTIONAL_HEADER).ok_or_else(cut)?;
        let headers = Self {
            pe,
            section_count: usize::from(u16_at(image, pe + NUMBER_OF_SECTIONS).ok_or_else(cut)?),
            section_table: pe + OPTIONAL_HEADER + usize::from(optional_len),
            section_alignment: word(pe + SECTION_ALIGNMENT)?,
            file_alignment: word(pe + FILE_ALIGNMENT)?,
            image_size: word(pe + SIZE_OF_IMAGE)?,
            headers_size: word(pe + SIZE_OF_HEADERS)?,
            signed: word(pe + SECURITY_DIRECTORY)? != 0,
        };
        let powers = headers.section_alignment.is_power_of_two() && headers.file_alignment.is_power_of_two();
        if powers { Ok(headers) } else { Err(PeError::NotPe("an alignment is no power of two")) }
    }

    fn section(&self, image: &[u8], index: usize) -> Result<RawSection, PeError> {
        let at = self.section_table + index * SECTION_HEADER;
        let word = |offset: usize| u32_at(image, at + offset).ok_or(PeError::NotPe("its section table is cut short"));
        Ok(RawSection { at, virtual_size: word(8)?, address: word(12)?, file_size: word(16)?, file_offset: word(20)? })
    }
}

/// Appends one section. `virtual_size` counts when it is more than the data.
fn append(image: &mut Vec<u8>, name: &str, data: &[u8], virtual_size: u32, flags: u32) -> Result<(), PeError> {
    let headers = Headers::parse(image)?;
    if headers.signed {
        return Err(PeError::Signed);
    }
    if sections(image)?.iter().any(|section| section.name == name) {
        return Err(PeError::Duplicate(name.to_owned()));
    }
    let table_end = headers.section_table + (headers.section_count + 1) * SECTION_HEADER;
    let mut room = headers.headers_size as usize;
    let mut address_end = headers.headers_size;
    for index in 0..headers.section_count {
        let section = headers.section(image, index)?;
        if section.file_size > 0 {
            room = room.min(section.file_offset as usize);
        }
        address_end = address_end.max(section.address.saturating_add(section.virtual_size.max(section.file_size)));
    }
    if table_end > room {
        return Err(PeError::NoRoom(name.to_owned()));
    }
    let too_large = || PeError::TooLarge(name.to_owned());
    let len = u32::try_from(data.len()).map_err(|_| too_large())?;
    let virtual_size = virtual_size.max(len);
    let address = address_end.checked_next_multiple_of(headers.section_alignment).ok_or_else(too_large)?;
    let image_size = address.checked_add(virtual_size).and_then(|end| end.checked_next_multiple_of(headers.section_alignment));
    let image_size = image_size.ok_or_else(too_large)?;
    let file_size = len.checked_next_multiple_of(headers.file_alignment).ok_or_else(too_large)?;
    image.resize(image.len().next_multiple_of(headers.file_alignment as usize), 0);
    let file_offset = u32::try_from(image.len()).map_err(|_| too_large())?;
    image.extend(data);
    image.resize(image.len().next_multiple_of(headers.file_alignment as usize), 0);

    let mut header = [0; SECTION_HEADER];
    put(&mut header, 0, name.as_bytes());
    for (at, value) in [(8, virtual_size), (12, address), (16, file_size), (20, file_offset), (36, flags)] {
        put(&mut header, at, &value.to_le_bytes());
    }
    put(image, table_end - SECTION_HEADER, &header);
    let count = u16::try_from(headers.section_count + 1).unwrap_or(u16::MAX);
    put(image, headers.pe + NUMBER_OF_SECTIONS, &count.to_le_bytes());
    let initialized = u32_at(image, headers.pe + SIZE_OF_INITIALIZED_DATA).unwrap_or(0);
    put(image, headers.pe + SIZE_OF_INITIALIZED_DATA, &initialized.saturating_add(virtual_size).to_le_bytes());
    put(image, headers.pe + SIZE_OF_IMAGE, &image_size.to_le_bytes());
    // UEFI does not look at the checksum; zero says that there is none.
    put(image, headers.pe + CHECKSUM, &[0; 4]);
    Ok(())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The smallest stub: headers with room for a few sections, and one section.
    pub(crate) fn tiny_stub() -> Vec<u8> {
        let mut stub = vec![0; 1536];
        let pe = 0x80;
        for (at, value) in [
            (0x3c, pe as u32),
            (pe + SECTION_ALIGNMENT, 4096),
            (pe + FILE_ALIGNMENT, 512),
            (pe + SIZE_OF_IMAGE, 8192),
            (pe + SIZE_OF_HEADERS, 1024),
            (pe + OPTIONAL_HEADER + 108, 16),
        ] {
            put(&mut stub, at, &value.to_le_bytes());
        }
        put(&mut stub, 0, b"MZ");
        put(&mut stub, pe, b"PE\0\0\x64\x86\x01\0");
        put(&mut stub, pe + SIZE_OF_OPTIONAL_HEADER, &[240, 0, 0x2e, 2, 0x0b, 2]);
        let table = pe + OPTIONAL_HEADER + 240;
        put(&mut stub, table, b".text");
        for (offset, value) in [(8, 5_u32), (12, 4096), (16, 512), (20, 1024), (36, 0x6000_0020)] {
            put(&mut stub, table + offset, &value.to_le_bytes());
        }
        put(&mut stub, 1024, b"hello");
        stub
    }

    fn parts(stub: &[u8]) -> UkiParts<'_> {
        UkiParts { stub, os_release: "ID=garboard\n", cmdline: "quiet", release: "6.12", initrd: &[1; 700], kernel: b"kernel" }
    }

    #[test]
    fn lists_back_what_was_added() {
        let stub = tiny_stub();
        let image = build(&parts(&stub)).unwrap();
        let names: Vec<&str> = sections(&image).unwrap().iter().map(|section| section.name).collect();
        assert_eq!(names, [".text", ".osrel", ".cmdline", ".uname", ".initrd", ".linux"]);
        let section = |name| sections(&image).unwrap().into_iter().find(|section| section.name == name).unwrap().data.to_vec();
        assert_eq!(section(".text"), b"hello");
        assert_eq!(section(".cmdline"), b"quiet");
        assert_eq!(section(".initrd"), [1; 700]);
        assert_eq!(section(".linux"), b"kernel");
        assert_eq!(Headers::parse(&image).unwrap().image_size, 7 * 4096);
    }

    #[test]
    fn every_byte_belongs_to_a_part() {
        let stub = tiny_stub();
        let image = build(&parts(&stub)).unwrap();
        let layout = layout(&image).unwrap();
        let expected =
            [("", 1024), (".text", 512), (".osrel", 512), (".cmdline", 512), (".uname", 512), (".initrd", 1024), (".linux", 512)];
        assert_eq!(layout.iter().map(|(name, len)| (name.as_str(), *len)).collect::<Vec<_>>(), expected);
        assert_eq!(layout.iter().map(|(_, len)| len).sum::<u64>(), image.len() as u64);
        let (name, start) = (".initrd", 1024 + 4 * 512);
        assert_eq!(&image[start..start + 700], sections(&image).unwrap().iter().find(|section| section.name == name).unwrap().data);
    }

    #[test]
    fn kernel_gets_the_address_space_that_it_needs() {
        let stub = tiny_stub();
        let image = build(&UkiParts { kernel: &stub, ..parts(&stub) }).unwrap();
        let headers = Headers::parse(&image).unwrap();
        assert_eq!(headers.section(&image, 5).unwrap().virtual_size, 8192);
        assert_eq!(headers.image_size, 8 * 4096);
    }

    #[test]
    fn refuses_what_cannot_be_extended() {
        let stub = tiny_stub();
        assert_eq!(build(&parts(b"\x7fELF")), Err(PeError::NotPe("no MZ signature")));
        for len in 0..1029 {
            assert!(build(&parts(&stub[..len])).is_err(), "{len}");
        }
        let once = build(&parts(&stub)).unwrap();
        assert_eq!(build(&parts(&once)), Err(PeError::Duplicate(".osrel".to_owned())));
        let mut signed = stub.clone();
        put(&mut signed, 0x80 + SECURITY_DIRECTORY, &[1]);
        assert_eq!(build(&parts(&signed)), Err(PeError::Signed));
        let mut full = stub;
        put(&mut full, 0x80 + SIZE_OF_HEADERS, &512_u32.to_le_bytes());
        assert_eq!(build(&parts(&full)), Err(PeError::NoRoom(".uname".to_owned())));
    }
}
