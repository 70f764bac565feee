//! The EFI system partition: FAT32 with systemd-boot, its configuration and one UKI. It is written into sparse
//! memory, so that its free space costs nothing.

use std::io::{self, Seek, SeekFrom, Write};

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions, format_volume};

use super::source::Source;
use super::sparse::SparseMemory;
use super::{ImageError, MIB};

/// How many UKIs must fit: the running one, the other slot's, and one that is being written.
const UKIS: u64 = 3;

/// FAT32 has at least this many clusters, or it would be read as FAT16; with some to spare.
const MIN_CLUSTERS: u64 = 65_525 + 16;

/// Where fatfs puts the root directory.
const ROOT_CLUSTER: u8 = 2;
/// Bytes of an entry in a directory.
const DIR_ENTRY: usize = 32;

const LOADER_CONF: &str = "# Which entry boots is decided by the names of the files in EFI/Linux alone.
timeout 0
editor no
reboot-on-error yes
";

/// What goes into the partition.
#[derive(Clone, Copy, Debug)]
pub struct EspContents<'a> {
    /// `systemd-bootx64.efi`
    pub systemd_boot: &'a [u8],
    /// File name of the UKI.
    pub uki_name: &'a str,
    /// The UKI.
    pub uki: &'a [u8],
}

/// Makes the file system.
///
/// # Errors
/// When the partition is too small for FAT32 or for three UKIs.
pub fn build(size: u64, volume_id: u32, contents: &EspContents<'_>) -> Result<SparseMemory, ImageError> {
    let not_possible = |reason| ImageError::PartitionSize { partition: "esp", size, reason };
    let cluster = [4096, 2048, 1024, 512].into_iter().find(|&cluster| size / u64::from(cluster) >= MIN_CLUSTERS + MIN_CLUSTERS / 64);
    let cluster = cluster.ok_or_else(|| not_possible("FAT32 needs at least 33 MiB"))?;
    let sectors = u32::try_from(size / 512).map_err(|_| not_possible("FAT32 has at most 2 TiB"))?;
    let mut memory = SparseMemory::new(size);
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .bytes_per_cluster(cluster)
        .total_sectors(sectors)
        .volume_id(volume_id)
        .volume_label(*b"GARBOARD   ");
    let fail = |path: &str| {
        let path = path.to_owned();
        move |error: io::Error| ImageError::Esp { path, error }
    };
    format_volume(&mut memory, options).map_err(fail("/"))?;
    memory.seek(SeekFrom::Start(0)).map_err(fail("/"))?;
    let uki_path = format!("EFI/Linux/{}", contents.uki_name);
    let files: [(&str, &[u8]); 4] = [
        ("EFI/BOOT/BOOTX64.EFI", contents.systemd_boot),
        (&uki_path, contents.uki),
        ("EFI/systemd/systemd-bootx64.efi", contents.systemd_boot),
        ("loader/loader.conf", LOADER_CONF.as_bytes()),
    ];
    let uki_len = contents.uki.len() as u64;
    if files.iter().map(|(_, data)| data.len() as u64).sum::<u64>() > size {
        return Err(too_small(size, uki_len, 0));
    }
    {
        let volume = FileSystem::new(&mut memory, FsOptions::new()).map_err(fail("/"))?;
        for directory in ["EFI", "EFI/BOOT", "EFI/Linux", "EFI/systemd", "loader"] {
            volume.root_dir().create_dir(directory).map_err(fail(directory))?;
        }
        volume.unmount().map_err(fail("/"))?;
    }
    mend_dot_entries(&mut memory).map_err(fail("/"))?;
    memory.seek(SeekFrom::Start(0)).map_err(fail("/"))?;
    let free_clusters = {
        let volume = FileSystem::new(&mut memory, FsOptions::new()).map_err(fail("/"))?;
        for (path, data) in files {
            let mut file = volume.root_dir().create_file(path).map_err(fail(path))?;
            file.write_all(data).and_then(|()| file.flush()).map_err(fail(path))?;
        }
        let free = u64::from(volume.stats().map_err(fail("/"))?.free_clusters());
        volume.unmount().map_err(fail("/"))?;
        free
    };
    let uki_clusters = uki_len.div_ceil(u64::from(cluster));
    let fits = 1 + free_clusters / uki_clusters.max(1);
    if fits < UKIS {
        return Err(too_small(size, uki_len, fits));
    }
    Ok(memory)
}

/// fatfs 0.3.6 gives `.` and `..` long names, which take the places where both must be, so that `fsck.fat` finds every directory
/// broken (<https://github.com/rafalh/rust-fatfs/issues/117>); and it has `..` lead to the root directory by number, where FAT wants a 0.
/// Puts both right and leaves the other two places deleted. Nothing but empty directories may be in the file system yet, since they are found by their look.
fn mend_dot_entries(memory: &mut SparseMemory) -> io::Result<()> {
    for extent in memory.extents() {
        for at in extent.step_by(512) {
            let mut entries = [0; 4 * DIR_ENTRY];
            memory.read_at(&mut entries, at)?;
            let (long_dot, rest) = entries.split_at(DIR_ENTRY);
            let (dot, rest) = rest.split_at(DIR_ENTRY);
            let (_, dot_dot) = rest.split_at(DIR_ENTRY);
            if long_dot.starts_with(b"A.\0") && dot.starts_with(b".          ") && dot_dot.starts_with(b"..         ") {
                let mut deleted = [0; DIR_ENTRY];
                deleted[0] = 0xe5;
                let mut mended = [dot, dot_dot, &deleted, &deleted].concat();
                if let Some(cluster @ [ROOT_CLUSTER, 0]) = mended.get_mut(DIR_ENTRY + 26..DIR_ENTRY + 28) {
                    cluster.fill(0);
                }
                memory.seek(SeekFrom::Start(at))?;
                memory.write_all(&mended)?;
            }
        }
    }
    Ok(())
}

fn too_small(size: u64, uki: u64, fits: u64) -> ImageError {
    ImageError::EspTooSmall { esp: size / MIB, uki: uki.div_ceil(1024), fits }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn contents(uki: &[u8]) -> EspContents<'_> {
        EspContents { systemd_boot: b"boot", uki_name: "garboard_1.0.efi", uki }
    }

    #[test]
    fn reads_back() {
        let uki = vec![5; 3_000_001];
        let mut memory = build(512 * MIB, 0x1234_5678, &contents(&uki)).unwrap();
        memory.seek(SeekFrom::Start(0)).unwrap();
        let volume = FileSystem::new(&mut memory, FsOptions::new()).unwrap();
        assert_eq!((volume.volume_id(), volume.fat_type()), (0x1234_5678, FatType::Fat32));
        let mut back = Vec::new();
        volume.root_dir().open_file("EFI/Linux/garboard_1.0.efi").unwrap().read_to_end(&mut back).unwrap();
        assert_eq!(back, uki);
        let mut conf = String::new();
        volume.root_dir().open_file("loader/loader.conf").unwrap().read_to_string(&mut conf).unwrap();
        assert!(conf.lines().any(|line| line == "reboot-on-error yes"));
    }

    #[test]
    fn free_space_costs_nothing() {
        let memory = build(512 * MIB, 1, &contents(b"uki")).unwrap();
        let data: u64 = memory.extents().iter().map(|extent| extent.end - extent.start).sum();
        assert!(data < 64 * 1024, "{data}");
    }

    #[test]
    fn three_ukis_must_fit() {
        let uki = vec![5; 14 << 20];
        build(48 * MIB, 1, &contents(&uki)).unwrap();
        let error = build(40 * MIB, 1, &contents(&uki)).unwrap_err().to_string();
        assert_eq!(error, "the ESP of 40 MiB holds 2 unified kernel images of 14336 KiB, and must hold 3: enlarge [partitions] esp");
        assert!(matches!(build(40 * MIB, 1, &contents(&vec![5; 50 << 20])), Err(ImageError::EspTooSmall { fits: 0, .. })));
        assert!(matches!(build(30 * MIB, 1, &contents(b"x")), Err(ImageError::PartitionSize { .. })));
    }
}
