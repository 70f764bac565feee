//! qcow2, version 3, as QEMU's `docs/interop/qcow2.rst` describes it: a header, the two-level tables that map clusters of
//! the disk, reference counts, and then only those clusters of the disk that hold data. All places are known
//! before anything is written, so the file is written from start to end.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use super::Writer;
use crate::image::plan::DiskPlan;
use crate::image::source::Source;

const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Entries of eight bytes in a cluster: of the tables of either level, and of the refcount table.
const ENTRIES: u64 = CLUSTER / 8;
/// Reference counts of two bytes in a cluster.
const REFCOUNTS: u64 = CLUSTER / 2;
/// "This cluster is referenced exactly once."
const COPIED: u64 = 1 << 63;
const HEADER_LEN: u32 = 104;

pub struct Qcow2;

/// Clusters of the file, in their order: header, refcount table, refcounts, level 1, level 2, data.
struct Layout {
    refcount_table: u64,
    refcount_blocks: u64,
    level_1: u64,
    level_2: u64,
    data: u64,
}

impl Layout {
    fn new(disk_size: u64, level_2: u64, data: u64) -> Self {
        let level_1 = disk_size.div_ceil(CLUSTER).div_ceil(ENTRIES).div_ceil(ENTRIES).max(1);
        let (mut refcount_table, mut refcount_blocks) = (1, 1);
        // Reference counts count themselves.
        loop {
            let total = 1 + refcount_table + refcount_blocks + level_1 + level_2 + data;
            let blocks = total.div_ceil(REFCOUNTS);
            let table = blocks.div_ceil(ENTRIES);
            if (table, blocks) == (refcount_table, refcount_blocks) {
                return Self { refcount_table, refcount_blocks, level_1, level_2, data };
            }
            (refcount_table, refcount_blocks) = (table, blocks);
        }
    }

    fn refcount_blocks_at(&self) -> u64 {
        1 + self.refcount_table
    }

    fn level_1_at(&self) -> u64 {
        self.refcount_blocks_at() + self.refcount_blocks
    }

    fn level_2_at(&self) -> u64 {
        self.level_1_at() + self.level_1
    }

    fn data_at(&self) -> u64 {
        self.level_2_at() + self.level_2
    }

    fn total(&self) -> u64 {
        self.data_at() + self.data
    }
}

impl Writer for Qcow2 {
    fn write(&self, plan: &DiskPlan, output: &mut File, done: &(dyn Fn(u64) + Sync)) -> io::Result<()> {
        let ranges = plan.data_ranges(CLUSTER);
        // The clusters of the disk that have data, by the level 2 table that maps them.
        let used: Vec<u64> = ranges.iter().flat_map(|range| range.start / CLUSTER..range.end.div_ceil(CLUSTER)).collect();
        let level_1_entries = plan.size().div_ceil(CLUSTER).div_ceil(ENTRIES);
        let mut tables: Vec<u64> = used.iter().map(|cluster| cluster / ENTRIES).collect();
        tables.dedup();
        let layout = Layout::new(plan.size(), tables.len() as u64, used.len() as u64);

        let mut output = BufWriter::with_capacity(1 << 20, output);
        output.write_all(&header(plan.size(), level_1_entries, &layout))?;
        let blocks = (0..layout.refcount_blocks).map(|index| (layout.refcount_blocks_at() + index) * CLUSTER);
        write_entries(&mut output, blocks, layout.refcount_table * ENTRIES)?;
        for cluster in 0..layout.refcount_blocks * REFCOUNTS {
            output.write_all(&u16::from(cluster < layout.total()).to_be_bytes())?;
        }
        let mut places = (layout.level_2_at()..).zip(&tables).peekable();
        let level_1 = (0..level_1_entries).map(|index| match places.next_if(|&(_, &table)| table == index) {
            Some((place, _)) => (place * CLUSTER) | COPIED,
            None => 0,
        });
        write_entries(&mut output, level_1, layout.level_1 * ENTRIES)?;
        let mut places = (layout.data_at()..).zip(&used).peekable();
        for table in &tables {
            let level_2 = (table * ENTRIES..(table + 1) * ENTRIES).map(|index| match places.next_if(|&(_, &cluster)| cluster == index) {
                Some((place, _)) => (place * CLUSTER) | COPIED,
                None => 0,
            });
            write_entries(&mut output, level_2, ENTRIES)?;
        }
        let mut buffer = vec![0; 16 * CLUSTER as usize];
        for range in &ranges {
            let mut at = range.start;
            while at < range.end {
                let len = (range.end - at).min(buffer.len() as u64);
                let (part, _) = buffer.split_at_mut(len as usize);
                plan.read_at(part, at)?;
                output.write_all(part)?;
                done(plan.data_in(&(at..at + len)));
                at += len;
            }
            // The last cluster of the disk may be cut; that of the file may not.
            let padding = range.end.next_multiple_of(CLUSTER) - range.end;
            output.write_all(&vec![0; padding as usize])?;
        }
        output.flush()
    }
}

/// The header in a cluster of its own.
fn header(disk_size: u64, level_1_entries: u64, layout: &Layout) -> Vec<u8> {
    let short = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = Vec::with_capacity(CLUSTER as usize);
    bytes.extend(b"QFI\xfb");
    bytes.extend(3_u32.to_be_bytes());
    bytes.extend([0; 12]); // no backing file
    bytes.extend(CLUSTER_BITS.to_be_bytes());
    bytes.extend(disk_size.to_be_bytes());
    bytes.extend([0; 4]); // not encrypted
    bytes.extend(short(level_1_entries));
    bytes.extend((layout.level_1_at() * CLUSTER).to_be_bytes());
    bytes.extend(CLUSTER.to_be_bytes()); // refcount table
    bytes.extend(short(layout.refcount_table));
    bytes.extend([0; 12]); // no snapshots
    bytes.extend([0; 24]); // no features
    bytes.extend(4_u32.to_be_bytes()); // refcounts of 2^4 bits
    bytes.extend(HEADER_LEN.to_be_bytes());
    bytes.resize(CLUSTER as usize, 0); // no extensions
    bytes
}

/// Writes big-endian entries, and zeros up to `count`.
fn write_entries(output: &mut impl Write, entries: impl Iterator<Item = u64>, count: u64) -> io::Result<()> {
    let mut left = count;
    for entry in entries {
        output.write_all(&entry.to_be_bytes())?;
        left = left.saturating_sub(1);
    }
    for _ in 0..left {
        output.write_all(&[0; 8])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_counts_count_themselves() {
        for (level_2, data) in [(1, 1), (9, 9000), (10, REFCOUNTS - 14), (10, REFCOUNTS - 13), (500, 40 * REFCOUNTS)] {
            let layout = Layout::new(1 << 40, level_2, data);
            assert!(layout.refcount_blocks * REFCOUNTS >= layout.total(), "{data}");
            assert!(layout.refcount_table * ENTRIES >= layout.refcount_blocks, "{data}");
        }
    }
}
