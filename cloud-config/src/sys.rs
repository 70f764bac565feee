//! The one system call that has no safe wrapper: asking an optical drive whether it holds a disc.
//!
//! Reading an empty drive would print a screenful of kernel errors on the console of every machine that has one.

use rustix::fd::AsFd;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
use std::ffi::c_void;

/// `CDROM_DRIVE_STATUS` of linux/cdrom.h.
const CDROM_DRIVE_STATUS: Opcode = 0x5326;
/// `CDSL_CURRENT`: the slot in use.
const CDSL_CURRENT: usize = i32::MAX as usize;
/// `CDS_NO_DISC` and `CDS_TRAY_OPEN`.
const NOTHING: [IoctlOutput; 2] = [1, 2];

struct DriveStatus;

// SAFETY: CDROM_DRIVE_STATUS takes an integer in place of a pointer and writes to no memory; its answer is the return value.
unsafe impl Ioctl for DriveStatus {
    type Output = IoctlOutput;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        CDROM_DRIVE_STATUS
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::without_provenance_mut(CDSL_CURRENT)
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<IoctlOutput> {
        Ok(out)
    }
}

/// Whether this is an optical drive that says that it is empty.
pub fn is_empty_drive(device: impl AsFd) -> bool {
    // SAFETY: the request is the one that DriveStatus describes; a device that does not know it answers ENOTTY.
    unsafe { rustix::ioctl::ioctl(device, DriveStatus) }.is_ok_and(|status| NOTHING.contains(&status))
}
