//! The one interface through which a disk is read and changed.
//!
//! The host's disk stands behind it in service (`host_disk`); in the crash tests a recorder does, which replays every
//! cut. So it is narrow: four calls, and nothing is durable before [`Target::sync`] has returned.

use std::fmt;
use std::io;
use std::os::unix::fs::FileExt;

use disk_layout::SlotName;
use disk_layout::gpt::{Geometry, Gpt, GptError};

/// A part of the disk that is written by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Area {
    /// The whole disk: only its partition tables are touched.
    Disk,
    /// The EFI system partition, while it is not mounted.
    Esp,
    /// A slot's root.
    Root(SlotName),
    /// A slot's hash tree.
    Verity(SlotName),
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk => f.write_str("the disk"),
            Self::Esp => f.write_str("the ESP"),
            Self::Root(slot) => write!(f, "root-{slot}"),
            Self::Verity(slot) => write!(f, "verity-{slot}"),
        }
    }
}

/// A disk.
pub trait Target {
    /// Bytes of an area.
    ///
    /// # Errors
    /// When the area is not there.
    fn len(&self, area: Area) -> io::Result<u64>;

    /// Block size and number of blocks of the disk.
    fn geometry(&self) -> Geometry;

    /// Fills `buffer` with what the medium holds, past any cache of ours.
    ///
    /// # Errors
    /// When the medium cannot be read, or ends before.
    fn read(&self, area: Area, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes; in any order with other writes until the next [`Target::sync`] of the area.
    ///
    /// # Errors
    /// When the device refuses, or ends before.
    fn write(&self, area: Area, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes everything durable that was written to the area.
    ///
    /// # Errors
    /// When a write has failed since; nothing is known then about what is on the medium.
    fn sync(&self, area: Area) -> io::Result<()>;
}

impl<T: Target + ?Sized> Target for &T {
    fn len(&self, area: Area) -> io::Result<u64> {
        (**self).len(area)
    }

    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }

    fn read(&self, area: Area, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read(area, offset, buffer)
    }

    fn write(&self, area: Area, offset: u64, data: &[u8]) -> io::Result<()> {
        (**self).write(area, offset, data)
    }

    fn sync(&self, area: Area) -> io::Result<()> {
        (**self).sync(area)
    }
}

/// The disk's partition table through [`FileExt`], as `disk_layout::gpt` wants it.
struct Whole<'a>(&'a dyn Target);

impl FileExt for Whole<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read(Area::Disk, offset, buffer).map(|()| buffer.len())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write(Area::Disk, offset, data).map(|()| data.len())
    }
}

/// Reads the partition table.
///
/// # Errors
/// When neither copy is valid.
pub fn read_table(target: &dyn Target) -> Result<Gpt, GptError> {
    Gpt::read(&Whole(target), target.geometry())
}

/// Writes it: the backup, flush, the primary, flush.
///
/// # Errors
/// When a write fails; one of the copies is still whole.
pub fn write_table(target: &dyn Target, table: &mut Gpt) -> Result<(), GptError> {
    table.write(&Whole(target), || target.sync(Area::Disk))
}
