//! The kernel's own device events. (All calls have safe wrappers; it is here because of what it belongs to.)

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// A socket that hears of every device that appears, changes or goes.
#[derive(Debug)]
pub struct UeventSocket {
    socket: OwnedFd,
}

/// One event: `ACTION`, `DEVPATH`, `SUBSYSTEM` and the rest, in the kernel's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uevent {
    fields: Vec<(String, String)>,
}

impl Uevent {
    /// The fields of a datagram from the kernel; `None` for what udev and its like send.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let mut parts = datagram.split(|&byte| byte == 0).map(String::from_utf8_lossy);
        parts.next().filter(|head| head.contains('@'))?;
        Some(Self {
            fields: parts.filter_map(|part| part.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))).collect(),
        })
    }

    /// A field by name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

impl UeventSocket {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the kernel has no such events, as in some containers.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
        // A burst at coldplug must not be lost; the kernel caps what it does not want to give.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20);
        bind(&socket, &SocketAddrNetlink::new(0, 1))?;
        Ok(Self { socket })
    }

    /// Waits for the next event until the deadline; `None` at the deadline. Lost events (a full buffer) count as an
    /// empty event, so that the caller looks again.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn next(&self, deadline: Instant) -> io::Result<Option<Uevent>> {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((len, _)) => match Uevent::parse(buffer.get(..len).unwrap_or_default()) {
                    Some(event) => return Ok(Some(event)),
                    None => continue,
                },
                Err(rustix::io::Errno::NOBUFS) => return Ok(Some(Uevent::default())),
                Err(rustix::io::Errno::AGAIN) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Ok(None);
            }
            let timeout = Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for UeventSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_events_are_read_and_udev_s_are_not() {
        let event = Uevent::parse(b"add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM=block\0").unwrap();
        assert_eq!((event.get("ACTION"), event.get("SUBSYSTEM")), (Some("add"), Some("block")));
        assert_eq!(Uevent::parse(b"libudev\0\xfe\xed\xca\xfe"), None);
    }
}
