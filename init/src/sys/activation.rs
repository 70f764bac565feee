//! Sockets that PID 1 opened for us (`LISTEN_FDS`).

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The descriptors that were passed to this process, with their names, in order. A second call gets none.
pub fn take_listen_fds() -> Vec<(String, OwnedFd)> {
    let for_us = std::env::var("LISTEN_PID").is_ok_and(|pid| pid.parse() == Ok(std::process::id()));
    if !for_us || TAKEN.swap(true, Ordering::SeqCst) {
        return Vec::new();
    }
    let count: RawFd = std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0);
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut fds = Vec::new();
    for raw in (3..).take(usize::try_from(count).unwrap_or(0)) {
        // SAFETY: by the socket activation protocol descriptors 3 to 3+LISTEN_FDS-1 were opened for this process and
        // belong to nobody else in it, and TAKEN makes sure that they are wrapped once.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let name = names.next().unwrap_or_default().to_owned();
        // Fails when the descriptor is not open, and then there is nothing to hand out (nor to close).
        if rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).is_ok() {
            fds.push((name, fd));
        } else {
            std::mem::forget(fd);
        }
    }
    fds
}
