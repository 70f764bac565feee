//! Installing a system call filter.

/// Lays a filter on this thread, for good; programs it becomes have it too.
///
/// # Errors
/// As `seccomp` says: without `CAP_SYS_ADMIN` it needs no-new-privileges.
pub fn install(program: &[libc::sock_filter]) -> std::io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions from `filter`, which live until after the call, and copies them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
