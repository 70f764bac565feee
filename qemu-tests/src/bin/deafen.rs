//! `deafen`: tells this processor's interrupt controller that no interrupt is urgent enough any more, behind the kernel's back: no timer and no
//! device is heard again, and the kernel hangs. For test machines whose kernel lets `/dev/mem` do it (`iomem=relaxed`).

use std::fs::File;
use std::io::Error;
use std::os::fd::AsRawFd;
use std::ptr;

/// Where the registers of the local APIC are, and the task priority register among them (Intel SDM, volume 3, 12.4.1).
const REGISTERS: i64 = 0xfee0_0000;
const TASK_PRIORITY: usize = 0x80;
const PAGE: usize = 4096;

fn main() -> std::io::Result<()> {
    let memory = File::options().read(true).write(true).open("/dev/mem")?;
    // SAFETY: a new mapping of one page, at an address that the kernel chooses.
    let page =
        unsafe { libc::mmap(ptr::null_mut(), PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, memory.as_raw_fd(), REGISTERS) };
    if page == libc::MAP_FAILED {
        return Err(Error::last_os_error());
    }
    // SAFETY: within the mapped page and aligned; registers are written as whole words.
    unsafe { ptr::write_volatile(page.cast::<u8>().add(TASK_PRIORITY).cast::<u32>(), 0xff) };
    Ok(())
}
