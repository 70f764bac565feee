//! What a machine wrote to its disk and when it flushed: the log of QEMU's `blklogwrites` driver, and the disks that a power cut could have
//! left at any place of it.
//!
//! The format is that of Linux's dm-log-writes (`Documentation/admin-guide/device-mapper/log-writes.rst`,
//! `drivers/md/dm-log-writes.c`), all little-endian: a superblock in the first sector (magic, version, number of entries, bytes of a
//! sector), then for each entry a sector with its head (first sector, sectors, flags, bytes of a mark), and its data. Parsing takes any
//! bytes without panicking and looks only at heads, so a log may be large.

#![deny(clippy::indexing_slicing, clippy::panic)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::panic))]

use std::collections::BTreeMap;
use std::io;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const SUPERBLOCK: usize = 28;
const HEAD: usize = 32;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// One act. Offsets and lengths are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Bytes were written.
    Write {
        /// Where on the disk.
        offset: u64,
        /// How many.
        len: u64,
        /// Where the bytes lie in the log.
        data: u64,
        /// Whether they were on the medium before the disk answered.
        durable: bool,
    },
    /// Bytes are not needed any more: they read as zeros.
    Discard {
        /// Where on the disk.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// Everything before was made durable.
    Flush,
}

/// All acts, in the order in which the disk was done with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteLog {
    /// The acts.
    pub acts: Vec<Act>,
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

impl WriteLog {
    /// Reads the heads of a log. What was logged after the last flush may be missing at its end, since the number of entries is not
    /// written before.
    ///
    /// # Errors
    /// When it is no such log, or ends before its entries do.
    pub fn read(read: &mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>) -> io::Result<Self> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut superblock = [0; SUPERBLOCK];
        read(0, &mut superblock)?;
        let field = |at| number(&superblock, at).ok_or_else(|| bad("a short superblock"));
        if field(0)? != MAGIC || field(8)? != VERSION {
            return Err(bad("no dm-log-writes log of version 1"));
        }
        // The last field has 32 bits.
        let (entries, sector) = (field(16)?, field(20)? >> 32);
        if sector < SUPERBLOCK as u64 + 4 || !sector.is_power_of_two() {
            return Err(bad("a sector size that cannot be"));
        }
        let mut log = Self::default();
        let mut at = sector;
        for _ in 0..entries {
            let mut head = [0; HEAD];
            read(at, &mut head)?;
            let field = |at| number(&head, at).ok_or_else(|| bad("a short entry"));
            let bytes = |sectors: u64| sectors.checked_mul(sector).ok_or_else(|| bad("an entry beyond any disk"));
            let (offset, len, flags) = (bytes(field(0)?)?, bytes(field(8)?)?, field(16)?);
            at = at.checked_add(sector).ok_or_else(|| bad("an entry beyond any log"))?;
            // A write with this flag flushes first.
            if flags & FLUSH != 0 {
                log.acts.push(Act::Flush);
            }
            if flags & MARK != 0 || len == 0 {
                continue;
            }
            offset.checked_add(len).ok_or_else(|| bad("an entry beyond any disk"))?;
            if flags & DISCARD != 0 {
                log.acts.push(Act::Discard { offset, len });
                continue;
            }
            log.acts.push(Act::Write { offset, len, data: at, durable: flags & FUA != 0 });
            at = at.checked_add(len).ok_or_else(|| bad("an entry beyond any log"))?;
        }
        Ok(log)
    }

    /// What was written when the power went before act `end`: all that was flushed, and of the rest what `lost` does not take.
    #[must_use]
    pub fn cut(&self, end: usize, lost: &mut dyn FnMut(usize) -> bool) -> Written {
        let acts = self.acts.get(..end).unwrap_or(&self.acts);
        let flushed = acts.iter().rposition(|act| *act == Act::Flush).unwrap_or(0);
        let mut written = Written::default();
        for (number, act) in acts.iter().enumerate() {
            match *act {
                Act::Write { offset, len, data, durable } => {
                    if number < flushed || durable || !lost(number) {
                        written.put(offset, len, Some(data));
                    }
                }
                Act::Discard { offset, len } => {
                    if number < flushed || !lost(number) {
                        written.put(offset, len, None);
                    }
                }
                Act::Flush => {}
            }
        }
        written
    }
}

/// Which bytes of a disk were written, and where in the log their last content lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// By offset on the disk: length, and place in the log; no place where it reads as zeros. They do not overlap.
    pieces: BTreeMap<u64, (u64, Option<u64>)>,
}

/// A piece of a disk and where its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As before the log began: at this offset.
    Before(u64),
    /// In the log, at this offset.
    Log(u64),
    /// Zeros.
    Zeros,
}

impl Written {
    fn put(&mut self, offset: u64, len: u64, data: Option<u64>) {
        let end = offset + len;
        let before = self.pieces.range(..offset).next_back().map(|(start, piece)| (*start, *piece));
        let within = self.pieces.range(offset..end).map(|(start, piece)| (*start, *piece));
        let touched: Vec<_> = before.into_iter().chain(within).filter(|(start, (len, _))| start + len > offset).collect();
        for (start, (len, data)) in touched {
            self.pieces.remove(&start);
            if start < offset {
                self.pieces.insert(start, (offset - start, data));
            }
            if start + len > end {
                self.pieces.insert(end, (start + len - end, data.map(|data| data + (end - start))));
            }
        }
        self.pieces.insert(offset, (len, data));
    }

    /// The pieces of a range of the disk, in order and without gaps: where the bytes are, and how many.
    #[must_use]
    pub fn pieces(&self, offset: u64, len: u64) -> Vec<(Piece, u64)> {
        let end = offset.saturating_add(len);
        let mut pieces = Vec::new();
        let mut at = offset;
        let before = self.pieces.range(..offset).next_back();
        for (&start, &(len, data)) in before.into_iter().chain(self.pieces.range(offset..end)) {
            if start + len <= at {
                continue;
            }
            if start > at {
                pieces.push((Piece::Before(at), start - at));
                at = start;
            }
            let stop = (start + len).min(end);
            pieces.push((data.map_or(Piece::Zeros, |data| Piece::Log(data + (at - start))), stop - at));
            at = stop;
        }
        if at < end {
            pieces.push((Piece::Before(at), end - at));
        }
        pieces
    }

    /// All that was written: offset, place of the bytes, length.
    pub fn all(&self) -> impl Iterator<Item = (u64, Piece, u64)> {
        self.pieces.iter().map(|(&offset, &(len, data))| (offset, data.map_or(Piece::Zeros, Piece::Log), len))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn parse(bytes: &[u8]) -> io::Result<WriteLog> {
        WriteLog::read(&mut |at, buffer| {
            let from = usize::try_from(at).ok().and_then(|at| bytes.get(at..at.checked_add(buffer.len())?));
            buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write(offset: u64, len: u64, data: u64) -> Act {
        Act::Write { offset, len, data, durable: false }
    }

    #[test]
    fn a_log_that_qemu_wrote_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        std::fs::File::create(path("disk")).unwrap().set_len(1 << 20).unwrap();
        std::fs::write(path("log"), "").unwrap();
        let file = |role: &str| {
            format!("{role}.driver=raw,{role}.file.driver=file,{role}.file.filename={}", path(if role == "log" { "log" } else { "disk" }))
        };
        let image = format!("driver=blklogwrites,{},{}", file("file"), file("log"));
        let acts = ["write -P 0x11 0 4096", "flush", "write -P 0x22 8192 512", "discard 65536 65536", "write -z 131072 4096"];
        let commands = acts.into_iter().flat_map(|act| ["-c", act]);
        let done = Command::new("qemu-io").args(["--image-opts", &image]).args(commands).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let bytes = std::fs::read(path("log")).unwrap();
        let acts = parse(&bytes).unwrap().acts;
        let expected = [
            write(0, 4096, 1024),
            Act::Flush,
            write(8192, 512, 1024 + 4096 + 1024),
            Act::Discard { offset: 65536, len: 65536 },
            write(131_072, 4096, 1024 + 4096 + 1024 + 512 + 1024),
        ];
        assert_eq!(acts[..5], expected);
        assert!(acts[5..].iter().all(|act| *act == Act::Flush), "{acts:?}");
        assert!(bytes[1024..][..4096].iter().all(|byte| *byte == 0x11));
        assert!(bytes[6144..][..512].iter().all(|byte| *byte == 0x22));
    }

    #[test]
    fn what_is_no_log_is_an_error() {
        let mut log = vec![0; 1024];
        log[..8].copy_from_slice(&MAGIC.to_le_bytes());
        log[8] = 1;
        log[24..28].copy_from_slice(&512_u32.to_le_bytes());
        assert_eq!(parse(&log).unwrap(), WriteLog::default());
        log[16] = 2;
        assert_eq!(parse(&log).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let changed = |at: usize, byte: u8| {
            let mut log = log.clone();
            log[at] = byte;
            parse(&log).unwrap_err().kind()
        };
        // Magic, version, bytes of a sector, an entry without end.
        for (at, byte) in [(0, 0), (8, 2), (25, 3), (24, 1), (527, 0xff)] {
            assert_eq!(changed(at, byte), io::ErrorKind::InvalidData, "{at}");
        }
        assert!(parse(&log[..20]).is_err());
    }

    #[test]
    fn a_cut_keeps_what_was_flushed_and_loses_of_the_rest_what_it_is_told() {
        let acts = vec![
            write(0, 4096, 1000),
            Act::Flush,
            write(1024, 1024, 6000),
            Act::Write { offset: 2048, len: 512, data: 8000, durable: true },
            Act::Discard { offset: 3584, len: 1024 },
        ];
        let log = WriteLog { acts };
        let old = (Piece::Log(1000), 4096);
        assert_eq!(log.cut(2, &mut |_| true).pieces(0, 4096), [old]);
        assert_eq!(log.cut(1, &mut |_| true).pieces(0, 4096), [(Piece::Before(0), 4096)]);
        let fua_alone = [(Piece::Log(1000), 2048), (Piece::Log(8000), 512), (Piece::Log(3560), 1536)];
        assert_eq!(log.cut(5, &mut |_| true).pieces(0, 4096), fua_alone);
        let all = [
            (Piece::Log(1000), 1024),
            (Piece::Log(6000), 1024),
            (Piece::Log(8000), 512),
            (Piece::Log(3560), 1024),
            (Piece::Zeros, 1024),
            (Piece::Before(4608), 100),
        ];
        assert_eq!(log.cut(5, &mut |_| false).pieces(0, 4708), all);
        assert_eq!(log.cut(5, &mut |_| false).pieces(1500, 600), [(Piece::Log(6476), 548), (Piece::Log(8000), 52)]);
        assert_eq!(log.cut(5, &mut |number| number == 2).pieces(0, 4096).len(), 4);
    }
}
