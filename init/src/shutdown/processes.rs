//! Ending every process that is still there.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};

use crate::kmsg;
use crate::sys::power::signal_all;

const PATIENCE: Duration = Duration::from_secs(5);

/// Asks politely, waits, kills, waits. Orphans become children of PID 1, so "no child" means "nobody left".
pub(super) fn end_all() {
    let _ = signal_all(libc::SIGTERM);
    let _ = signal_all(libc::SIGCONT);
    if reap_until(Instant::now() + PATIENCE) {
        return;
    }
    let _ = signal_all(libc::SIGKILL);
    if !reap_until(Instant::now() + PATIENCE) {
        kmsg::warn("some processes did not die of SIGKILL; their file systems may stay busy");
    }
}

fn reap_until(deadline: Instant) -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Err(Errno::CHILD) => return true,
            Ok(Some(_)) | Err(Errno::INTR) => {}
            _ if Instant::now() >= deadline => return false,
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
