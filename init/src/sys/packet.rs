//! Sockets that DHCP needs and `rustix` does not know: packets below IP, and sockets of one interface.

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// An interface on the level of Ethernet, and who is meant on it.
pub struct LinkAddress {
    index: i32,
    mac: [u8; 6],
}

const BROADCAST: [u8; 6] = [0xff; 6];
const ETHERTYPE_IPV4: u16 = 0x0800;

// SAFETY: the closure gets a pointer to a whole `sockaddr_ll` that lives until it returns, and its true size.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(self.mac) {
            *to = from;
        }
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: ETHERTYPE_IPV4.to_be(),
            sll_ifindex: self.index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: bytes,
        };
        f((&raw const address).cast(), size_of::<libc::sockaddr_ll>() as SocketAddrLen)
    }
}

/// A socket for IPv4 packets of one interface that hears only UDP to port 68, whoever it is addressed to.
pub fn dhcp_packet_socket(index: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // No protocol yet: nothing is received before the filter is there.
    let socket = net::socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, None)?;
    // Offsets are from the IP header: protocol is UDP, no fragment, X = header length, destination port is 68.
    let filter = [
        instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, 9),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 6, 17),
        instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, 6),
        instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 4, 0, 0x1fff),
        instruction(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 0),
        instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 0, 0, 2),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, 68),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0xffff),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: `program` points to `filter`, which lives until after the call; the kernel copies and only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    net::bind(&socket, &LinkAddress { index: index.cast_signed(), mac: BROADCAST })?;
    Ok(socket)
}

/// Sends an IPv4 packet to everybody on the interface.
pub fn broadcast(socket: impl AsFd, index: u32, packet: &[u8]) -> io::Result<()> {
    let to = LinkAddress { index: index.cast_signed(), mac: BROADCAST };
    net::sendto(socket, packet, net::SendFlags::empty(), &to)?;
    Ok(())
}

/// Ties a socket to one interface.
pub fn bind_to_device(socket: impl AsFd, name: &str) -> io::Result<()> {
    // SAFETY: the kernel reads `name.len()` bytes from a live string.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            name.as_ptr().cast(),
            name.len() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn instruction(code: u32, when_true: u8, when_false: u8, value: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: when_true, jf: when_false, k: value }
}
