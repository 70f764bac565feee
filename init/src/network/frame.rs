//! IPv4 and UDP headers for the packets that DHCP sends before there is an address to send from.
#![deny(clippy::indexing_slicing)]

use std::net::Ipv4Addr;

/// The client's port.
pub const CLIENT_PORT: u16 = 68;
/// The server's port.
pub const SERVER_PORT: u16 = 67;

/// Wraps `payload` into UDP and IPv4, from client to server port.
pub fn wrap(source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let udp_length = u16::try_from(payload.len() + 8).unwrap_or(u16::MAX);
    let mut pseudo = Vec::with_capacity(payload.len() + 20);
    pseudo.extend_from_slice(&source.octets());
    pseudo.extend_from_slice(&destination.octets());
    pseudo.extend_from_slice(&[0, 17]);
    pseudo.extend_from_slice(&udp_length.to_be_bytes());
    let mut udp = Vec::with_capacity(8);
    udp.extend_from_slice(&CLIENT_PORT.to_be_bytes());
    udp.extend_from_slice(&SERVER_PORT.to_be_bytes());
    udp.extend_from_slice(&udp_length.to_be_bytes());
    pseudo.extend_from_slice(&udp);
    pseudo.extend_from_slice(&[0, 0]);
    pseudo.extend_from_slice(payload);
    // A sum of 0 would mean "none".
    let sum = match checksum(&pseudo) {
        0 => 0xffff,
        sum => sum,
    };
    let mut header = vec![0x45, 0xc0];
    header.extend_from_slice(&udp_length.saturating_add(20).to_be_bytes());
    header.extend_from_slice(&[0, 0, 0x40, 0, 64, 17]);
    let mut tail = source.octets().to_vec();
    tail.extend_from_slice(&destination.octets());
    let header_sum = checksum(&[header.as_slice(), &[0, 0], tail.as_slice()].concat());
    let mut packet = header;
    packet.extend_from_slice(&header_sum.to_be_bytes());
    packet.extend_from_slice(&tail);
    packet.extend_from_slice(&udp);
    packet.extend_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// The payload of an IPv4 packet from a DHCP server to a client, or `None` when it is anything else. UDP's checksum is not
/// checked: between virtual machines of one host it is often not filled in.
pub fn unwrap(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let header_length = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header_length < 20 || checksum(packet.get(..header_length)?) != 0 {
        return None;
    }
    let total = usize::from(u16_at(packet, 2)?);
    let fragment = u16_at(packet, 6)? & 0x3fff;
    if *packet.get(9)? != 17 || fragment != 0 {
        return None;
    }
    let udp = packet.get(header_length..total)?;
    let length = usize::from(u16_at(udp, 4)?);
    (u16_at(udp, 0)? == SERVER_PORT && u16_at(udp, 2)? == CLIENT_PORT).then(|| udp.get(8..length))?
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        let (high, low) = (pair.first().copied().unwrap_or(0), pair.get(1).copied().unwrap_or(0));
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The packet as a server would send it back.
    fn swapped(mut packet: Vec<u8>) -> Vec<u8> {
        packet.swap(20, 22);
        packet.swap(21, 23);
        packet
    }

    #[test]
    fn a_servers_packet_is_unwrapped_and_our_own_kind_is_not() {
        let packet = wrap(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, b"payload");
        assert_eq!(unwrap(&packet), None);
        // Ethernet pads short frames: what follows the packet is not payload.
        let mut padded = swapped(packet);
        padded.extend_from_slice(&[0; 20]);
        assert_eq!(unwrap(&padded), Some(&b"payload"[..]));
        padded[8] ^= 1;
        assert_eq!(unwrap(&padded), None, "header checksum");
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            unwrap(&bytes);
            let mut packet = swapped(wrap(Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST, &bytes));
            prop_assert_eq!(unwrap(&packet), Some(&bytes[..]));
            packet.truncate(packet.len() / 2);
            prop_assert_eq!(unwrap(&packet), None);
        }
    }
}
