//! The socket of one link's DHCPv6 client, open while it runs.

use super::dhcp6_message::Message6;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};
use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;
/// All servers and relays of a link.
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// All routers of a link.
const ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// The way to the servers.
#[derive(Default)]
pub struct Transport6 {
    socket: Option<OwnedFd>,
}

impl Transport6 {
    /// What to wait on.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(OwnedFd::as_fd)
    }

    /// Sends to all servers, from the link's own address.
    pub fn send(&mut self, link: u32, source: Ipv6Addr, message: &Message6) -> io::Result<()> {
        let socket = match &self.socket {
            Some(socket) => socket,
            None => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let socket = net::socket_with(AddressFamily::INET6, SocketType::DGRAM, flags, None)?;
                net::sockopt::set_socket_reuseaddr(&socket, true)?;
                net::sockopt::set_ipv6_v6only(&socket, true)?;
                net::bind(&socket, &SocketAddrV6::new(source, CLIENT_PORT, 0, link))?;
                self.socket.insert(socket)
            }
        };
        net::sendto(socket, &message.encode(), SendFlags::empty(), &SocketAddrV6::new(SERVERS, SERVER_PORT, 0, link))?;
        Ok(())
    }

    /// Closes it: the link's address may be another one next time.
    pub fn close(&mut self) {
        self.socket = None;
    }

    /// A message that has come in: `None` when there is none, `Some(None)` when it is not for us.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Option<Option<Message6>> {
        let (_, length) = net::recv(self.socket.as_ref()?, &mut *buffer, RecvFlags::DONTWAIT).ok()?;
        Some(buffer.get(..length).and_then(Message6::decode))
    }
}

/// Asks the routers of a link to speak, since what they said before we listened is lost.
pub fn solicit_routers(link: u32) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::INET6, SocketType::RAW, flags, Some(ipproto::ICMPV6))?;
    net::sockopt::set_ipv6_multicast_hops(&socket, 255)?;
    // Type 133; the kernel fills the checksum in.
    net::sendto(&socket, &[133, 0, 0, 0, 0, 0, 0, 0], SendFlags::empty(), &SocketAddrV6::new(ROUTERS, 0, 0, link))?;
    Ok(())
}
