//! Wake-ups: the files that others leave for us, by inotify, and the clock, by one timer of the kernel that also fires when the clock is set.
//! While neither has anything to say nothing runs.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use reboot_rules::Seconds;
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
use rustix::time::{ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use tokio::io::unix::AsyncFd;

use crate::sys::readable;

/// Directories that are watched.
pub struct Files(AsyncFd<OwnedFd>);

impl Files {
    /// Watches for files that are written, put into or taken out of directories. A directory that is missing is made.
    ///
    /// # Errors
    /// When a directory cannot be made or watched.
    pub fn new(directories: &[PathBuf]) -> io::Result<Self> {
        let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        // The end of a held inhibitor's owner closes its file, which was open for writing.
        let flags = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        for directory in directories {
            std::fs::create_dir_all(directory)?;
            add_watch(&inotify, directory, flags)?;
        }
        Ok(Self(readable(inotify)?))
    }

    /// Comes back when something has changed; what, is for those to see who look.
    pub async fn changed(&self) {
        loop {
            let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
            let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(self.0.get_ref(), &mut buffer);
            let mut seen = false;
            let mut relevant = false;
            while let Ok(event) = reader.next() {
                seen = true;
                let name = event.file_name().map(|name| name.to_bytes().to_vec()).unwrap_or_default();
                // The update agent writes its status often; temporary files are not ready.
                relevant |= event.events().contains(ReadFlags::QUEUE_OVERFLOW)
                    || (name != b"status.json" && !name.ends_with(b".new") && !name.starts_with(b"."));
            }
            ready.clear_ready();
            if seen && relevant {
                return;
            }
        }
    }
}

/// Seconds since the machine was started, suspended ones too: a clock that nobody sets.
#[must_use]
pub fn uptime() -> reboot_rules::Seconds {
    reboot_rules::Seconds::try_from(rustix::time::clock_gettime(ClockId::Boottime).tv_sec).unwrap_or_default()
}

/// A timer by the wall clock.
pub struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    /// A timer that is not set.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self(readable(timer)?))
    }

    /// Comes back at a time, or when the clock is set; never without a time and with a clock that goes on.
    pub async fn wait(&self, at: Option<Seconds>) {
        // A timer in a year still fires when the clock is set.
        let at = at.unwrap_or_else(|| reboot_rules::system_clock().saturating_add(365 * 86_400)).max(1);
        let value = Timespec { tv_sec: i64::try_from(at).unwrap_or(i64::MAX), tv_nsec: 0 };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        if timerfd_settime(self.0.get_ref(), flags, &spec).is_err() {
            return tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        }
        loop {
            let Ok(mut ready) = self.0.readable().await else { return };
            let mut count = [0_u8; 8];
            match rustix::io::read(self.0.get_ref(), &mut count) {
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                // Fired, or the clock was set (ECANCELED).
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn files_and_times_wake_and_nothing_else_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        let files = Files::new(std::slice::from_ref(&path)).unwrap();
        let quiet = Duration::from_millis(50);
        assert!(tokio::time::timeout(quiet, files.changed()).await.is_err());
        std::fs::write(path.join("status.json"), "x").unwrap();
        assert!(tokio::time::timeout(quiet, files.changed()).await.is_err());
        std::fs::write(path.join("x"), "x").unwrap();
        tokio::time::timeout(Duration::from_secs(5), files.changed()).await.unwrap();
        // The owner of a held inhibitor ends.
        let held = std::fs::OpenOptions::new().write(true).open(path.join("x")).unwrap();
        assert!(tokio::time::timeout(quiet, files.changed()).await.is_err());
        drop(held);
        tokio::time::timeout(Duration::from_secs(5), files.changed()).await.unwrap();

        let alarm = Alarm::new().unwrap();
        assert!(tokio::time::timeout(quiet, alarm.wait(None)).await.is_err());
        tokio::time::timeout(Duration::from_secs(5), alarm.wait(Some(reboot_rules::system_clock() + 1))).await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), alarm.wait(Some(5))).await.unwrap();
    }
}
