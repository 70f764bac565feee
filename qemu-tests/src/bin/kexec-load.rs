//! `kexec-load KERNEL INITRD CMDLINE`: what `kexec -l` does, for test machines, which have no such program.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or_else(|| std::io::Error::other("usage: kexec-load KERNEL INITRD CMDLINE"));
    let (kernel, initrd) = (File::open(next()?)?, File::open(next()?)?);
    let words = CString::new(next()?)?;
    // SAFETY: the descriptors are open and the text lives until the call returns; the kernel copies what it needs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initrd.as_raw_fd(),
            words.as_bytes_with_nul().len(),
            words.as_ptr(),
            0_u64,
        )
    };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
