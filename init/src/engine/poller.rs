//! The one place where the engine waits: epoll, and what each fd means.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{Timespec, epoll};

use super::graph::UnitId;

/// What an fd in the event loop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// signalfd.
    Signals,
    /// Notify socket.
    Notify,
    /// Control socket, for new connections.
    ControlListener,
    /// A connection to the control socket.
    ControlClient(u32),
    /// inotify on control groups and paths.
    Inotify,
    /// The pipe of an exec helper, by its pid.
    ExecPipe(i32),
    /// A listening socket of a unit.
    Socket(UnitId, u32),
    /// Becomes readable when the wall clock is set.
    ClockChange,
    /// inotify of a path unit.
    Path(UnitId),
    /// The power button.
    PowerButton,
    /// `/proc/self/mountinfo`.
    Mounts,
}

/// epoll with names.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    sources: BTreeMap<u64, Source>,
    keys: BTreeMap<Source, u64>,
    last: u64,
}

/// What became of an fd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// Which.
    pub source: Source,
    /// It can be written to.
    pub writable: bool,
    /// The other side is gone.
    pub hangup: bool,
}

impl Poller {
    /// Makes one.
    ///
    /// # Errors
    /// As `epoll_create1` says.
    pub fn new() -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, sources: BTreeMap::new(), keys: BTreeMap::new(), last: 0 })
    }

    /// Waits for an fd to be readable (or, with `EPOLLPRI` sources, changed).
    ///
    /// # Errors
    /// As `epoll_ctl` says.
    pub fn add(&mut self, fd: impl AsFd, source: Source) -> std::io::Result<()> {
        let flags = if source == Source::Mounts { epoll::EventFlags::PRI | epoll::EventFlags::ERR } else { epoll::EventFlags::IN };
        self.last += 1;
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(self.last), flags)?;
        self.sources.insert(self.last, source);
        self.keys.insert(source, self.last);
        Ok(())
    }

    /// Waits for it to be writable too, or no more.
    pub fn set_writable(&mut self, fd: impl AsFd, source: Source, writable: bool) {
        let Some(key) = self.keys.get(&source) else { return };
        let flags = if writable { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
        let _ = epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(*key), flags);
    }

    /// Stops waiting for it. To be called before the fd is closed.
    pub fn remove(&mut self, fd: impl AsFd, source: Source) {
        let _ = epoll::delete(&self.epoll, fd);
        if let Some(key) = self.keys.remove(&source) {
            self.sources.remove(&key);
        }
    }

    /// Whether it is waited for.
    #[must_use]
    pub fn has(&self, source: Source) -> bool {
        self.keys.contains_key(&source)
    }

    /// Waits at most so many microseconds; `None` for ever.
    pub fn wait(&mut self, timeout: Option<u64>) -> Vec<Ready> {
        let timeout = timeout.map(|usec| Timespec {
            tv_sec: i64::try_from(usec / 1_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(usec % 1_000_000 * 1000).unwrap_or(0),
        });
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => {
                // Cannot happen with a valid epoll fd; waiting a little keeps it from becoming a busy loop.
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
        events
            .iter()
            .filter_map(|event| {
                let key = event.data.u64();
                let flags = event.flags;
                let source = *self.sources.get(&key)?;
                let hangup = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
                Some(Ready { source, writable: flags.contains(epoll::EventFlags::OUT), hangup })
            })
            .collect()
    }
}
