//! From parts to image files, in the order in which they depend on each other: root file system, its hash tree, the
//! UKI that carries the root hash, the ESP that carries the UKI, the partition table that carries both halves of the
//! hash, and then every output format.

use std::path::PathBuf;
use std::sync::Arc;

use disk_layout::{PartitionRole, SlotName, UkiName, VERITY_BLOCK_SIZE, VeritySuperblock, Version, partuuids_of_root_hash};

use super::erofs::{self, Extent};
use super::esp::{self, EspContents};
use super::gpt::{self, DiskLayout, PartitionSizes};
use super::initramfs::{self, Initramfs};
use super::output::{self, Format, Output};
use super::plan::DiskPlan;
use super::seed::Seed;
use super::source::Source;
use super::uki::{self, UkiParts};
use super::{FIXED_TIME, ImageError, MIB, verity};
use crate::digest::hex;
use crate::progress::{Event, Phase, Progress};
use crate::tree::{Body, Tree};

/// How much of its slot the root file system may fill, in percent.
const MAX_ROOT_PERCENT: u64 = 75;

/// All that an image is made of.
#[derive(Clone, Debug)]
pub struct ImageInput<'a> {
    /// The root file system.
    pub tree: &'a Tree,
    /// The image's version.
    pub version: Version,
    /// The kernel, `vmlinuz`.
    pub kernel: Body,
    /// Its release, as in `/usr/lib/modules/<release>`.
    pub kernel_release: &'a str,
    /// The files of the initramfs.
    pub initramfs: &'a Tree,
    /// systemd's `linuxx64.efi.stub`.
    pub stub: Body,
    /// systemd's `systemd-bootx64.efi`.
    pub systemd_boot: Body,
    /// The os-release that the UKI shows to the boot loader; it has to have `IMAGE_VERSION`.
    pub os_release: &'a str,
    /// Words of the kernel command line; `roothash=` and, unless given, `panic=10` are put before them.
    pub cmdline: &'a [String],
    /// Sizes of the partitions.
    pub sizes: PartitionSizes,
    /// What all ids are derived from.
    pub seed: Seed,
    /// What to write.
    pub formats: &'a [Format],
    /// Where to write it.
    pub directory: PathBuf,
    /// File name of the outputs without the ending.
    pub base_name: &'a str,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct ImageResult {
    /// Root hash of the verity tree.
    pub root_hash: [u8; 32],
    /// Bytes of the root file system.
    pub root_size: u64,
    /// Bytes of its slot.
    pub slot_size: u64,
    /// The parts of the root file system, in order.
    pub extents: Vec<Extent>,
    /// Bytes of the superblock and hash tree.
    pub verity_size: u64,
    /// What the tree was made with.
    pub superblock: VeritySuperblock,
    /// The root file system itself.
    pub root: Arc<erofs::ErofsImage>,
    /// Where on the disk it is.
    pub root_offset: u64,
    /// The kernel command line.
    pub cmdline: String,
    /// Of what parts the UKI is, in order: headers (without a name), sections, and within the initramfs its files (`.initrd/PATH`).
    pub uki_layout: Vec<(String, u64)>,
    /// The unified kernel image.
    pub uki: Vec<u8>,
    /// Its file name.
    pub uki_name: UkiName,
    /// Bytes of the disk.
    pub disk_size: u64,
    /// The files.
    pub outputs: Vec<Output>,
}

impl ImageResult {
    /// The root hash as it stands on the kernel command line.
    #[must_use]
    pub fn root_hash_hex(&self) -> String {
        hex(&self.root_hash)
    }
}

/// Makes an image and writes it in all formats asked for.
///
/// # Errors
/// When the parts do not fit, cannot be read, or the output cannot be written.
pub fn assemble(input: &ImageInput<'_>, progress: &dyn Progress) -> Result<ImageResult, ImageError> {
    let layout = DiskLayout::new(&input.sizes);
    let slot = layout.range(PartitionRole::Root(SlotName::A));
    let slot_size = slot.end - slot.start;

    let options = erofs::Options { seed: input.seed, label: disk_layout::IMAGE_ID.to_owned(), time: FIXED_TIME };
    let root = Arc::new(erofs::plan(input.tree, &options)?);
    check_root_size(root.size(), slot_size)?;
    progress.event(Event::Begin { phase: Phase::Root, total: Some(root.size()) });
    let superblock = VeritySuperblock {
        uuid: input.seed.uuid("verity"),
        data_blocks: root.size() / VERITY_BLOCK_SIZE,
        salt: input.seed.bytes("verity salt").to_vec(),
    };
    let done = |bytes| progress.event(Event::Advance { bytes });
    let tree = verity::hash_tree(&*root, &superblock, &done).map_err(ImageError::read("the files of the root file system"))?;
    let root_hash = tree.root_hash;
    let summary = format!("{} MiB, root hash {}", root.size().div_ceil(MIB), hex(&root_hash));
    progress.event(Event::End { phase: Phase::Root, summary });

    progress.event(Event::Begin { phase: Phase::Boot, total: None });
    let cmdline = command_line(&root_hash, input.cmdline);
    let initramfs = initramfs::build(input.initramfs)?;
    let read = |body: &Body, what: &str| body.read().map_err(ImageError::read(what));
    let uki = uki::build(&UkiParts {
        stub: &read(&input.stub, "the boot stub")?,
        os_release: input.os_release,
        cmdline: &cmdline,
        release: input.kernel_release,
        initrd: &initramfs.bytes,
        kernel: &read(&input.kernel, "the kernel")?,
    })?;
    let uki_name = UkiName::settled(input.version.clone());
    let esp_range = layout.range(PartitionRole::Esp);
    let contents = EspContents { systemd_boot: &read(&input.systemd_boot, "systemd-boot")?, uki_name: &uki_name.to_string(), uki: &uki };
    let esp = esp::build(esp_range.end - esp_range.start, input.seed.u32("esp"), &contents)?;
    let summary = format!("UKI {} KiB, initramfs {} KiB", uki.len().div_ceil(1024), initramfs.bytes.len().div_ceil(1024));
    progress.event(Event::End { phase: Phase::Boot, summary });

    let table = gpt::build(&layout, &input.version, partuuids_of_root_hash(&root_hash), &input.seed)?;
    let verity_size = tree.bytes.len() as u64;
    let mut plan = DiskPlan::new(layout.size());
    plan.place_sparse(0, table)?;
    plan.place_sparse(esp_range.start, esp)?;
    plan.place(slot.start, Arc::<erofs::ErofsImage>::clone(&root))?;
    plan.place(layout.range(PartitionRole::Verity(SlotName::A)).start, Arc::new(tree.bytes))?;

    let write = |&format| output::write(&plan, format, &input.directory, input.base_name, progress);
    let outputs = input.formats.iter().map(write).collect::<Result<_, _>>()?;
    Ok(ImageResult {
        root_hash,
        root_size: root.size(),
        slot_size,
        extents: root.extents(),
        verity_size,
        superblock,
        root,
        root_offset: slot.start,
        cmdline,
        uki_layout: uki_layout(&uki, &initramfs)?,
        uki,
        uki_name,
        disk_size: layout.size(),
        outputs,
    })
}

/// The layout of a UKI with that of its initramfs in it. What the section is padded with belongs to the last part.
fn uki_layout(uki: &[u8], initramfs: &Initramfs) -> Result<Vec<(String, u64)>, ImageError> {
    let mut layout = Vec::new();
    for (section, len) in uki::layout(uki)? {
        if section != uki::INITRD {
            layout.push((section, len));
            continue;
        }
        let named = |path: &str| if path.is_empty() { section.clone() } else { format!("{section}/{path}") };
        layout.extend(initramfs.layout.iter().map(|(path, len)| (named(path), *len)));
        if let Some((_, last)) = layout.last_mut() {
            *last += len.saturating_sub(initramfs.bytes.len() as u64);
        }
    }
    Ok(layout)
}

/// A later version is never smaller; a slot that is almost full today cannot be updated tomorrow.
fn check_root_size(needed: u64, slot: u64) -> Result<(), ImageError> {
    if needed.saturating_mul(100) <= slot.saturating_mul(MAX_ROOT_PERCENT) {
        return Ok(());
    }
    Err(ImageError::RootTooLarge { needed: needed.div_ceil(MIB), slot: slot / MIB, percent: (needed * 100).div_ceil(slot.max(1)) })
}

fn command_line(root_hash: &[u8; 32], words: &[String]) -> String {
    let mut line = format!("roothash={}", hex(root_hash));
    if !words.iter().any(|word| word.starts_with("panic=")) {
        line.push_str(" panic=10");
    }
    for word in words {
        line.push(' ');
        line.push_str(word);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_must_keep_a_quarter_free() {
        check_root_size(75 * MIB, 100 * MIB).unwrap();
        let error = check_root_size(75 * MIB + 4096, 100 * MIB).unwrap_err().to_string();
        assert_eq!(
            error,
            "the root file system needs 76 MiB, which is 76 % of its 100 MiB slot; at most 75 % may be used: \
             remove packages or enlarge [partitions] root"
        );
    }

    #[test]
    fn a_host_that_panics_always_starts_again() {
        let words = |line: &[&str]| line.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert!(command_line(&[0xab; 32], &words(&["quiet"])).ends_with("abab panic=10 quiet"));
        assert!(command_line(&[0xab; 32], &words(&["panic=1"])).ends_with("abab panic=1"));
    }
}
