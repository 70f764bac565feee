//! A floor for the clock: a machine without a battery wakes up in 1970 or in its past, where no certificate is valid yet.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

/// Touched at shutdown, and by whoever knows the time.
const LAST_KNOWN: &str = "/var/lib/garboard/clock";
/// As old as the image.
const BUILT: &str = "/usr/lib/os-release";

/// Steps the clock forward to the newest time that is certainly past.
pub(super) fn raise_to_floor() -> io::Result<()> {
    let now = clock_gettime(ClockId::Realtime).tv_sec;
    let floor = [LAST_KNOWN, BUILT].iter().filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.mtime()).max();
    match floor {
        Some(floor) if floor > now => {
            crate::kmsg::warn(&format!("the clock is {} s behind the last known time; set forward", floor - now));
            clock_settime(ClockId::Realtime, Timespec { tv_sec: floor, tv_nsec: 0 }).map_err(Into::into)
        }
        _ => Ok(()),
    }
}

/// Remembers the present time on state.
pub(super) fn note() -> io::Result<()> {
    let path = Path::new(LAST_KNOWN);
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    fs::write(path, "")
}
