//! What only the end of a machine needs.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `LOOP_CLR_FD`.
const LOOP_CLR_FD: libc::c_ulong = 0x4c01;

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a signal to every process but PID 1 (and but the caller).
///
/// # Errors
/// ESRCH when there is none.
pub fn signal_all(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: kill(2) touches no memory of ours.
    check(unsafe { libc::kill(-1, signal) })
}

/// Sends a signal by its number, real-time ones included.
///
/// # Errors
/// As kill(2).
pub fn signal_process(pid: i32, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: kill(2) touches no memory of ours.
    check(unsafe { libc::kill(pid, signal) })
}

/// The first real-time signal that programs may use.
#[must_use]
pub fn sigrtmin() -> libc::c_int {
    libc::SIGRTMIN()
}

/// Stops swapping to a device or file.
///
/// # Errors
/// As swapoff(2).
pub fn swap_off(path: &CStr) -> io::Result<()> {
    // SAFETY: the path is a NUL-terminated string that lives until the call returns.
    check(unsafe { libc::swapoff(path.as_ptr()) })
}

/// Takes the file off a loop device.
///
/// # Errors
/// As the kernel says.
pub fn detach_loop(device: &File) -> io::Result<()> {
    // SAFETY: the ioctl takes no argument.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD as _) })
}

/// Closes every descriptor but the standard ones, since open files keep file systems busy. To be called only by a
/// program that uses none of them again and never returns into code that owns one.
pub fn close_all_descriptors() {
    // SAFETY: the callers promise not to use what is closed; a failure changes nothing.
    let _ = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}
