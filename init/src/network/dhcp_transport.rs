//! The sockets of one link's DHCP client, open only while they are needed.

use super::dhcp_message::Message;
use super::frame;
use crate::sys::packet;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Both ways to the servers of a link.
pub struct Transport {
    index: u32,
    name: String,
    /// Below IP: works without an address.
    packets: Option<OwnedFd>,
    /// From our own address, for renewals.
    udp: Option<OwnedFd>,
}

impl Transport {
    /// None is open yet.
    pub fn new(index: u32, name: String) -> Transport {
        Transport { index, name, packets: None, udp: None }
    }

    /// The link's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What to wait on.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.packets.iter().chain(&self.udp).map(OwnedFd::as_fd)
    }

    /// Sends to everybody on the link.
    pub fn broadcast(&mut self, source: Option<Ipv4Addr>, message: &Message) -> io::Result<()> {
        let socket = match &self.packets {
            Some(socket) => socket,
            None => self.packets.insert(packet::dhcp_packet_socket(self.index)?),
        };
        let packet = frame::wrap(source.unwrap_or(Ipv4Addr::UNSPECIFIED), Ipv4Addr::BROADCAST, &message.encode());
        packet::broadcast(socket, self.index, &packet)
    }

    /// Sends to one server.
    pub fn unicast(&mut self, source: Ipv4Addr, server: Ipv4Addr, message: &Message) -> io::Result<()> {
        let socket = match &self.udp {
            Some(socket) => socket,
            None => self.udp.insert(udp_socket(&self.name, source)?),
        };
        net::sendto(socket, &message.encode(), SendFlags::empty(), &SocketAddrV4::new(server, frame::SERVER_PORT))?;
        Ok(())
    }

    /// Closes what is not needed: `listens` says whether answers below IP are awaited.
    pub fn keep(&mut self, listens: bool, source: Option<Ipv4Addr>) {
        if !listens {
            self.packets = None;
        }
        if listens || source.is_none() {
            self.udp = None;
        }
    }

    /// A message that has come in: `None` when there is none, `Some(None)` when it is not for us.
    pub fn receive<'a>(&mut self, buffer: &'a mut [u8]) -> Option<Option<&'a [u8]>> {
        if let Some(socket) = &self.packets
            && let Ok((_, length)) = net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT)
        {
            return Some(buffer.get(..length).and_then(frame::unwrap));
        }
        if let Some(socket) = &self.udp
            && let Ok((_, length)) = net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT)
        {
            return Some(buffer.get(..length));
        }
        None
    }
}

fn udp_socket(link: &str, source: Ipv4Addr) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    net::sockopt::set_socket_reuseaddr(&socket, true)?;
    packet::bind_to_device(&socket, link)?;
    net::bind(&socket, &SocketAddrV4::new(source, frame::CLIENT_PORT))?;
    Ok(socket)
}
