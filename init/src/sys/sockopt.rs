//! Socket options that rustix has no name for.

use std::os::fd::{AsFd, AsRawFd};

/// Sets an option that is a number.
///
/// # Errors
/// As `setsockopt` says.
pub fn set_number(fd: impl AsFd, level: i32, option: i32, value: i32) -> std::io::Result<()> {
    set_bytes(fd, level, option, &value.to_ne_bytes())
}

/// Sets an option that is a text or a structure.
///
/// # Errors
/// As `setsockopt` says.
pub fn set_bytes(fd: impl AsFd, level: i32, option: i32, value: &[u8]) -> std::io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    // SAFETY: the fd is open for the length of the call, and pointer and length are those of one live slice.
    let done = unsafe { libc::setsockopt(fd.as_fd().as_raw_fd(), level, option, value.as_ptr().cast(), length) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
