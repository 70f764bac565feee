//! Reads a qcow2 file, version 2 or 3, as far as machines need that run from one: no backing file, no encryption, no
//! compressed cluster.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::image::source::{Source, past_end};

/// Bits 9 to 55 of an entry: where the cluster is.
const PLACE: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
/// "Reads as zeros", in version 3.
const ZERO: u64 = 1;
/// Larger level 1 tables are of disks that we never make.
const MAX_LEVEL_1: u32 = 1 << 22;

/// The disk in a qcow2 file.
pub struct Qcow2Disk {
    file: File,
    cluster_bits: u32,
    size: u64,
    level_1: Vec<u64>,
}

impl Qcow2Disk {
    /// Reads header and level 1 table. The inner error is a feature that is in the way.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(file: File) -> io::Result<Result<Self, &'static str>> {
        let mut header = [0; 104];
        file.read_exact_at(&mut header, 0)?;
        let word = |at: usize| header.get(at..at + 4).map_or(0, |bytes| bytes.iter().fold(0, |sum, &byte| sum << 8 | u32::from(byte)));
        let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
        let version = word(4);
        let feature = match () {
            () if !(2..=3).contains(&version) => "an unknown version",
            () if long(8) != 0 => "a backing file",
            () if !(9..=21).contains(&word(20)) => "an impossible cluster size",
            () if word(32) != 0 => "encryption",
            () if word(36) > MAX_LEVEL_1 => "an impossible size",
            // "Dirty" is about reference counts, which nothing here needs.
            () if version == 3 && long(72) & !1 != 0 => "incompatible features",
            () => "",
        };
        if !feature.is_empty() {
            return Ok(Err(feature));
        }
        let mut table = vec![0; word(36) as usize * 8];
        file.read_exact_at(&mut table, long(40))?;
        let level_1 = table.chunks(8).map(|bytes| bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte))).collect();
        Ok(Ok(Self { file, cluster_bits: word(20), size: long(24), level_1 }))
    }

    /// Where the cluster that holds `offset` is in the file, or nothing for zeros.
    fn place(&self, offset: u64) -> io::Result<Option<u64>> {
        let table_bits = self.cluster_bits - 3;
        let cluster = offset >> self.cluster_bits;
        let index = usize::try_from(cluster >> table_bits).map_err(|_| past_end())?;
        let table = self.level_1.get(index).copied().unwrap_or(0) & PLACE;
        if table == 0 {
            return Ok(None);
        }
        let mut entry = [0; 8];
        self.file.read_exact_at(&mut entry, table + (cluster & ((1 << table_bits) - 1)) * 8)?;
        let entry = u64::from_be_bytes(entry);
        if entry & COMPRESSED != 0 {
            return Err(io::Error::other("compressed qcow2 clusters are not supported: convert it with 'qemu-img convert -O raw'"));
        }
        Ok(Some(entry & PLACE).filter(|&place| place != 0 && entry & ZERO == 0))
    }
}

impl Source for Qcow2Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.size) {
            return Err(past_end());
        }
        let cluster = 1_u64 << self.cluster_bits;
        let (mut rest, mut at) = (buffer, offset);
        while !rest.is_empty() {
            let inside = at % cluster;
            let len = usize::try_from(cluster - inside).unwrap_or(usize::MAX).min(rest.len());
            let (part, later) = rest.split_at_mut(len);
            match self.place(at)? {
                Some(place) => self.file.read_exact_at(part, place + inside)?,
                None => part.fill(0),
            }
            at += len as u64;
            rest = later;
        }
        Ok(())
    }
}
