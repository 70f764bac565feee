//! The hardware watchdog's ioctl.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// `WDIOC_SETTIMEOUT`: read and write, 'W', 6, an int.
const SET_TIMEOUT: u64 = 0xc004_5706;

/// Sets the time in seconds after which the machine is reset; returns what the hardware took.
///
/// # Errors
/// As the driver says.
pub fn set_timeout(device: impl AsFd, seconds: i32) -> io::Result<i32> {
    let mut value: libc::c_int = seconds;
    // SAFETY: the ioctl reads and writes one int, which lives through the call.
    let result = unsafe { libc::ioctl(device.as_fd().as_raw_fd(), SET_TIMEOUT as _, &raw mut value) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}
