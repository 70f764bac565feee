//! Generic netlink, as far as a listener of one multicast group needs it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::netlink::{GENERIC, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
/// Lengths of the netlink and the generic netlink header.
const HEADERS: usize = 16 + 4;

/// A non-blocking socket that hears a family's multicast group.
///
/// # Errors
/// When the kernel has no such family or group.
pub fn listen(family: &str, group: &str) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(GENERIC))?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    send(&socket, &family_request(family), SendFlags::empty())?;
    let mut reply = vec![0; 8192];
    let (len, _) = recv(&socket, reply.as_mut_slice(), RecvFlags::empty())?;
    let id = reply.get(HEADERS..len).and_then(|attributes| group_id(attributes, group)).ok_or(io::ErrorKind::NotFound)?;
    let id = libc::c_int::try_from(id).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the option's value is an int that lives until the call returns, and its length is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_ADD_MEMBERSHIP,
            (&raw const id).cast(),
            libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

/// The attributes of one generic netlink message, or of a nest within one.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The attributes of a datagram's only message.
#[must_use]
pub fn payload(datagram: &[u8]) -> &[u8] {
    datagram.get(HEADERS..).unwrap_or_default()
}

fn family_request(family: &str) -> Vec<u8> {
    let value_len = family.len() + 1;
    let total = HEADERS + (4 + value_len).next_multiple_of(4);
    let mut bytes = Vec::with_capacity(total);
    bytes.extend_from_slice(&u32::try_from(total).unwrap_or(0).to_ne_bytes());
    bytes.extend_from_slice(&GENL_ID_CTRL.to_ne_bytes());
    bytes.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[CTRL_CMD_GETFAMILY, 1, 0, 0]);
    bytes.extend_from_slice(&u16::try_from(4 + value_len).unwrap_or(0).to_ne_bytes());
    bytes.extend_from_slice(&CTRL_ATTR_FAMILY_NAME.to_ne_bytes());
    bytes.extend_from_slice(family.as_bytes());
    bytes.resize(total, 0);
    bytes
}

fn group_id(attributes_of_family: &[u8], group: &str) -> Option<u32> {
    let groups = attributes(attributes_of_family).find(|(kind, _)| *kind == CTRL_ATTR_MCAST_GROUPS)?.1;
    attributes(groups).find_map(|(_, one)| {
        let field = |wanted: u16| attributes(one).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let name = field(CTRL_ATTR_MCAST_GRP_NAME)?;
        (name.strip_suffix(&[0]) == Some(group.as_bytes())).then(|| field(CTRL_ATTR_MCAST_GRP_ID))??.try_into().ok().map(u32::from_ne_bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_end_at_nonsense() {
        let bytes = [8, 0, 1, 0, 1, 2, 3, 4, 5, 0, 2, 0, 9, 0, 0, 0, 200, 0, 3, 0];
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), [(1, &[1, 2, 3, 4][..]), (2, &[9][..])]);
        assert_eq!(attributes(&[0; 8]).count(), 0);
    }

    #[test]
    fn the_kernel_knows_its_own_control_family() {
        // Needs no privilege: joining `notify` of `nlctrl` is open to everyone.
        assert!(listen("nlctrl", "notify").is_ok());
        assert!(listen("nlctrl", "no-such-group").is_err());
    }
}
