//! The sockets to the kernel's routing: one to ask and be answered, one that hears what changes.

use super::netlink::{self, Message, Request};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

const BUFFER: usize = 64 * 1024;

/// Both sockets.
pub struct Netlink {
    requests: OwnedFd,
    events: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens them.
    pub fn open() -> io::Result<Netlink> {
        let requests = open(0)?;
        // The kernel answers at once; if it ever does not, we report rather than hang.
        net::sockopt::set_socket_timeout(&requests, net::sockopt::Timeout::Recv, Some(Duration::from_secs(5)))?;
        let events = open(netlink::GROUPS)?;
        rustix::io::ioctl_fionbio(&events, true)?;
        // Docker brings links by the hundred; overflow is handled, but costs a dump.
        let _ = net::sockopt::set_socket_recv_buffer_size_force(&events, 4 << 20);
        Ok(Netlink { requests, events, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Becomes readable when something has changed.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// What has changed; `None` when messages were lost and all must be asked for anew.
    pub fn changes(&mut self) -> Option<Vec<Message>> {
        let mut changes = Vec::new();
        loop {
            match net::recv(&self.events, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((_, length)) => {
                    changes.extend(netlink::decode(self.buffer.get(..length).unwrap_or_default()).into_iter().map(|(_, message)| message));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::NOBUFS) => return None,
                Err(_) => return Some(changes),
            }
        }
    }

    /// Sends a request and collects the answer.
    pub fn request(&mut self, request: &Request) -> io::Result<Vec<Message>> {
        self.sequence += 1;
        net::send(&self.requests, &netlink::encode(request, self.sequence), SendFlags::empty())?;
        let mut answer = Vec::new();
        loop {
            let length = match net::recv(&self.requests, self.buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((_, length)) => length,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for (sequence, message) in netlink::decode(self.buffer.get(..length).unwrap_or_default()) {
                // What answers an earlier request that timed out is stale.
                if sequence != self.sequence {
                    continue;
                }
                match message {
                    Message::Done | Message::Error(0) => return Ok(answer),
                    Message::Error(number) => return Err(io::Error::from_raw_os_error(number)),
                    other if netlink::is_dump(request) => answer.push(other),
                    _ => {}
                }
            }
        }
    }
}

fn open(groups: u32) -> io::Result<OwnedFd> {
    // Protocol 0 is NETLINK_ROUTE.
    let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}
