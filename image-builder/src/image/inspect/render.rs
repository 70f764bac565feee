//! A report for people.

use std::fmt::{Formatter, Result};

use super::{Report, SlotReport, UkiReport};
use crate::image::MIB;

/// Writes a report.
pub fn report(report: &Report, f: &mut Formatter<'_>) -> Result {
    writeln!(f, "{}: {} image of a {} MiB disk, GUID {}", report.path.display(), report.format, report.size / MIB, report.guid)?;
    writeln!(f)?;
    let width = report.partitions.iter().map(|partition| partition.label.len()).max().unwrap_or(0).max(5);
    writeln!(f, " #  {:width$}  {:>10}  {:36}  use", "label", "size", "GUID")?;
    for partition in &report.partitions {
        let (number, label, size) = (partition.number, &partition.label, partition.size / MIB);
        writeln!(f, "{number:2}  {label:width$}  {size:6} MiB  {}  {}", partition.guid, partition.role.unwrap_or("?"))?;
    }
    writeln!(f)?;
    for item in &report.slots {
        slot(item, f)?;
    }
    writeln!(f, "state: {}", if report.state == "new" { "new, formatted at the first boot" } else { report.state })?;
    writeln!(f, "boot loader: {}", report.boot_loader.as_deref().unwrap_or("unknown"))?;
    for item in &report.ukis {
        uki(item, f)?;
    }
    match (report.problems.as_slice(), report.verified) {
        ([], true) => writeln!(f, "everything fits together, and every byte of the slots is what its root hash says"),
        ([], false) => writeln!(f, "everything fits together (--verify hashes the slots, too)"),
        (problems, _) => problems.iter().try_for_each(|problem| writeln!(f, "problem: {problem}")),
    }
}

fn slot(slot: &SlotReport, f: &mut Formatter<'_>) -> Result {
    let Some(version) = &slot.version else {
        return writeln!(f, "slot {}: empty", slot.slot);
    };
    write!(f, "slot {}: version {version}", slot.slot)?;
    if let Some(file_system) = &slot.file_system {
        let percent = file_system.size * 100 / slot.size.max(1);
        let (size, of) = (file_system.size.div_ceil(MIB), slot.size / MIB);
        write!(f, ", EROFS of {size} MiB ({percent} % of {of} MiB) with {} inodes", file_system.inodes)?;
    }
    match slot.intact {
        Some(true) => write!(f, ", intact")?,
        Some(false) => write!(f, ", DAMAGED")?,
        None => {}
    }
    writeln!(f)?;
    writeln!(f, "    root hash: {}", slot.root_hash.as_deref().unwrap_or("none"))
}

fn uki(uki: &UkiReport, f: &mut Formatter<'_>) -> Result {
    write!(f, "{}: version {}, {} KiB", uki.file, uki.version, uki.size.div_ceil(1024))?;
    match &uki.slot {
        Some(slot) => write!(f, ", boots slot {slot}")?,
        None => write!(f, ", boots no slot")?,
    }
    match uki.tries {
        Some(tries) => writeln!(f, ", on trial with {} tries left and {} taken", tries.left, tries.done)?,
        None => writeln!(f)?,
    }
    let lines = [
        ("system", uki.os_release.get("PRETTY_NAME").or_else(|| uki.os_release.get("ID"))),
        ("kernel", uki.kernel.as_ref()),
        ("command line", uki.cmdline.as_ref()),
    ];
    lines.into_iter().filter_map(|(name, value)| Some((name, value?))).try_for_each(|(name, value)| writeln!(f, "    {name}: {value}"))
}
