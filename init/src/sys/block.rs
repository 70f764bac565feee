//! Ioctls of block devices and of ext4.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `BLKPG`: changes the kernel's idea of one partition.
const BLKPG: libc::c_ulong = 0x1269;
const BLKPG_RESIZE_PARTITION: libc::c_int = 3;
/// `_IOW('f', 16, __u64)`.
const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;

#[repr(C)]
struct BlkpgPartition {
    start: libc::c_longlong,
    length: libc::c_longlong,
    pno: libc::c_int,
    devname: [libc::c_char; 64],
    volname: [libc::c_char; 64],
}

#[repr(C)]
struct BlkpgIoctlArg {
    op: libc::c_int,
    flags: libc::c_int,
    datalen: libc::c_int,
    data: *mut libc::c_void,
}

/// Tells the kernel the new size of a partition that may be in use. Start and length are in bytes.
///
/// # Errors
/// As the kernel says: EBUSY when it would overlap another, EINVAL when it does not fit.
pub fn resize_partition(disk: &File, number: u32, start: u64, length: u64) -> io::Result<()> {
    let number = libc::c_int::try_from(number).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let bytes = |value: u64| libc::c_longlong::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let mut partition = BlkpgPartition { start: bytes(start)?, length: bytes(length)?, pno: number, devname: [0; 64], volname: [0; 64] };
    let mut arg = BlkpgIoctlArg {
        op: BLKPG_RESIZE_PARTITION,
        flags: 0,
        datalen: libc::c_int::try_from(size_of::<BlkpgPartition>()).unwrap_or(0),
        data: (&raw mut partition).cast(),
    };
    // SAFETY: BLKPG reads a `blkpg_ioctl_arg` and the `blkpg_partition` behind its pointer; both live until the call returns.
    let result = unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG as _, &raw mut arg) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Grows a mounted ext4 to so many file system blocks. `mount` is any file in it.
///
/// # Errors
/// As the kernel says.
pub fn resize_ext4(mount: &File, blocks: u64) -> io::Result<()> {
    // SAFETY: the ioctl reads one u64, which lives until the call returns.
    let result = unsafe { libc::ioctl(mount.as_raw_fd(), EXT4_IOC_RESIZE_FS as _, &raw const blocks) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
