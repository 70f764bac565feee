//! The rarer messages of rtnetlink: virtual links to be made, and what routers have said on a link; to bytes and back.
//!
//! Pure. Promises: any bytes can be parsed without a panic.
#![deny(clippy::indexing_slicing)]

use super::netlink::{Message, attribute, attributes, u16_at, u32_at};

/// `IF_RA_MANAGED`, `IF_RA_OTHERCONF` of the kernel.
const MANAGED: u32 = 0x40;
const OTHER: u32 = 0x80;

/// A kind of virtual link with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IEEE 802.1Q on another link: its number, the other link's number.
    Vlan(u16, u32),
    /// A bridge; whether it speaks STP.
    Bridge(bool),
    /// A bond: its mode by the kernel's number, milliseconds between looks at the carriers.
    Bond(u8, u32),
    /// A link to nowhere.
    Dummy,
}

/// A link to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualLink {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// MTU, where one is set.
    pub mtu: Option<u32>,
    /// Hardware address, where one is set.
    pub mac: Option<[u8; 6]>,
}

/// A text with the zero byte that the kernel wants.
pub fn zero_ended(text: &str) -> Vec<u8> {
    text.bytes().chain(std::iter::once(0)).collect()
}

/// Adds a link's attributes.
pub fn encode_virtual(out: &mut Vec<u8>, link: &VirtualLink) {
    attribute(out, 3, &zero_ended(&link.name));
    if let Some(mac) = link.mac {
        attribute(out, 1, &mac);
    }
    if let Some(mtu) = link.mtu {
        attribute(out, 4, &mtu.to_ne_bytes());
    }
    let mut data = Vec::new();
    let name = match &link.kind {
        Kind::Vlan(number, parent) => {
            attribute(out, 5, &parent.to_ne_bytes());
            attribute(&mut data, 1, &number.to_ne_bytes());
            "vlan"
        }
        Kind::Bridge(stp) => {
            attribute(&mut data, 5, &u32::from(*stp).to_ne_bytes());
            "bridge"
        }
        Kind::Bond(mode, monitor) => {
            attribute(&mut data, 1, &[*mode]);
            attribute(&mut data, 3, &monitor.to_ne_bytes());
            "bond"
        }
        Kind::Dummy => "dummy",
    };
    let mut information = Vec::new();
    attribute(&mut information, 1, name.as_bytes());
    if !data.is_empty() {
        attribute(&mut information, 2, &data);
    }
    attribute(out, 18, &information);
}

/// A link message of the IPv6 family.
pub fn decode_router_flags(payload: &[u8]) -> Option<Message> {
    let link = u32_at(payload, 4)?;
    let (_, six) = attributes(payload.get(16..)?).find(|(kind, _)| *kind == 12)?;
    let (_, flags) = attributes(six).find(|(kind, _)| *kind == 1)?;
    let flags = u32_at(flags, 0)?;
    Some(Message::RouterFlags { link, managed: flags & MANAGED != 0, other: flags & OTHER != 0 })
}

/// `struct nduseroptmsg` and the options behind it.
pub fn decode_router_options(payload: &[u8]) -> Option<Message> {
    let length = usize::from(u16_at(payload, 2)?);
    let options = payload.get(16..16 + length)?.to_vec();
    Some(Message::RouterOptions { link: u32_at(payload, 4)?, options })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vlan_names_its_number_its_kind_and_the_link_below() {
        let link = VirtualLink { name: "seven".into(), kind: Kind::Vlan(7, 3), mtu: Some(1400), mac: None };
        let mut bytes = Vec::new();
        encode_virtual(&mut bytes, &link);
        let all: Vec<(u16, &[u8])> = attributes(&bytes).collect();
        let find = |kind: u16| all.iter().find(|(have, _)| *have == kind).map(|(_, value)| *value).unwrap();
        assert_eq!((find(3), u32_at(find(4), 0), u32_at(find(5), 0)), (&b"seven\0"[..], Some(1400), Some(3)));
        let information: Vec<(u16, &[u8])> = attributes(find(18)).collect();
        assert_eq!(information[0], (1, &b"vlan"[..]));
        assert_eq!(attributes(information[1].1).collect::<Vec<_>>(), [(1, &7_u16.to_ne_bytes()[..])]);
    }

    #[test]
    fn what_routers_say_is_read_from_the_kernels_bytes() {
        let mut bytes = vec![10, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut six = Vec::new();
        attribute(&mut six, 1, &(MANAGED | 0x20).to_ne_bytes());
        attribute(&mut bytes, 12, &six);
        assert_eq!(decode_router_flags(&bytes), Some(Message::RouterFlags { link: 5, managed: true, other: false }));
        let mut bytes = vec![10, 0, 8, 0, 5, 0, 0, 0, 134, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend([25, 1, 0, 0, 0, 0, 0, 60]);
        assert_eq!(decode_router_options(&bytes), Some(Message::RouterOptions { link: 5, options: vec![25, 1, 0, 0, 0, 0, 0, 60] }));
        assert_eq!(decode_router_options(&bytes[..20]), None);
    }
}
