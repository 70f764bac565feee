//! The part of rtnetlink that we speak: links, addresses, routes; to bytes and back.
//!
//! Pure; the socket is in [`super::netlink_socket`]. Written by hand because it is six messages: the crate for it would be the
//! largest dependency of the binary. Promises: any bytes can be parsed without a panic.
#![deny(clippy::indexing_slicing)]

use super::netlink_links::{self, VirtualLink};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
/// What the kernel does not use of a router advertisement.
const RTM_NEWNDUSEROPT: u16 = 68;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
const IFF_LOWER_UP: u32 = 0x10000;
const ARPHRD_ETHER: u16 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;
const IFA_F_TENTATIVE: u32 = 0x40;

/// Multicast groups: links, IPv4 and IPv6 addresses, IPv4 and IPv6 routes, and what routers say that the kernel does not use.
pub const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400 | 0x800 | 0x8_0000;

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Kernel's number of it.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Present hardware address, when it is Ethernet's.
    pub mac: Option<[u8; 6]>,
    /// The one it was made with.
    pub permanent_mac: Option<[u8; 6]>,
    /// MTU.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Has a carrier.
    pub carrier: bool,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// Whether it is Ethernet.
    pub ethernet: bool,
    /// What made it (`veth`, `bridge`, ...); hardware has none.
    pub kind: Option<String>,
    /// The bridge or bond that it belongs to.
    pub master: Option<u32>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// The interface.
    pub link: u32,
    /// The address.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix: u8,
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// The interface.
    pub link: u32,
    /// Destination network.
    pub destination: IpAddr,
    /// Its prefix length.
    pub prefix: u8,
    /// Via, if not on the link.
    pub gateway: Option<IpAddr>,
    /// Address to send from.
    pub source: Option<IpAddr>,
    /// Metric.
    pub metric: u32,
    /// Whether the gateway counts as reachable although no address of ours says so.
    pub onlink: bool,
}

/// What the kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A link is there or has changed.
    Link(Link),
    /// A link is gone.
    LinkGone(u32),
    /// An address is there; `true` while it is not yet known to be free.
    Address(Address, bool),
    /// An address is gone.
    AddressGone(Address),
    /// A route of the main table is there.
    Route(Route),
    /// A route is gone.
    RouteGone(Route),
    /// What routers say is to be asked of DHCPv6 on a link.
    RouterFlags {
        /// The link.
        link: u32,
        /// Addresses.
        managed: bool,
        /// Everything else.
        other: bool,
    },
    /// Options of a router advertisement that are left to us, as they came.
    RouterOptions {
        /// The link.
        link: u32,
        /// The options.
        options: Vec<u8>,
    },
    /// The end of a dump.
    Done,
    /// Answer to a request: 0 or an error number.
    Error(i32),
    /// Something else.
    Other,
}

/// What to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// All links.
    DumpLinks,
    /// What routers have said on all links.
    DumpRouterFlags,
    /// All addresses.
    DumpAddresses,
    /// All routes.
    DumpRoutes,
    /// Bring a link up, and set its MTU.
    SetLink {
        /// Which.
        index: u32,
        /// Up?
        up: bool,
        /// New MTU.
        mtu: Option<u32>,
    },
    /// Make a virtual link.
    CreateLink(VirtualLink),
    /// Put a link into a bridge or bond.
    SetMaster {
        /// Which.
        index: u32,
        /// The bridge or bond.
        master: u32,
    },
    /// Give a link another name, which it takes while it is down.
    Rename {
        /// Which.
        index: u32,
        /// The name.
        name: String,
    },
    /// Add or refresh an address; seconds it is valid, `None` for ever. The kernel's own prefix route is made too.
    AddAddress(Address, Option<u32>),
    /// Remove an address.
    RemoveAddress(Address),
    /// Add or replace a route.
    AddRoute(Route),
    /// Remove a route.
    RemoveRoute(Route),
}

/// The request's bytes.
pub fn encode(request: &Request, sequence: u32) -> Vec<u8> {
    let mut out = vec![0; 16];
    let (kind, flags) = match request {
        Request::DumpLinks => {
            out.extend_from_slice(&[0; 16]);
            (RTM_GETLINK, NLM_F_DUMP)
        }
        Request::DumpRouterFlags => {
            out.push(AF_INET6);
            out.extend_from_slice(&[0; 15]);
            (RTM_GETLINK, NLM_F_DUMP)
        }
        Request::CreateLink(link) => {
            out.extend_from_slice(&[0; 16]);
            netlink_links::encode_virtual(&mut out, link);
            (RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
        }
        Request::SetMaster { index, master } => {
            encode_link_header(&mut out, *index, 0, 0);
            attribute(&mut out, 10, &master.to_ne_bytes());
            (RTM_NEWLINK, NLM_F_ACK)
        }
        Request::Rename { index, name } => {
            encode_link_header(&mut out, *index, 0, 0);
            attribute(&mut out, 3, &netlink_links::zero_ended(name));
            (RTM_NEWLINK, NLM_F_ACK)
        }
        Request::DumpAddresses => {
            out.extend_from_slice(&[0; 8]);
            (RTM_GETADDR, NLM_F_DUMP)
        }
        Request::DumpRoutes => {
            out.extend_from_slice(&[0; 12]);
            (RTM_GETROUTE, NLM_F_DUMP)
        }
        Request::SetLink { index, up, mtu } => {
            encode_link_header(&mut out, *index, if *up { IFF_UP } else { 0 }, IFF_UP);
            if let Some(mtu) = mtu {
                attribute(&mut out, 4, &mtu.to_ne_bytes());
            }
            (RTM_NEWLINK, NLM_F_ACK)
        }
        Request::AddAddress(address, seconds) => {
            encode_address(&mut out, address);
            if let (IpAddr::V4(four), true) = (address.address, address.prefix < 31) {
                let host_bits = u32::MAX.checked_shr(u32::from(address.prefix)).unwrap_or(0);
                attribute(&mut out, 4, &(four.to_bits() | host_bits).to_be_bytes());
            }
            if let Some(seconds) = seconds {
                // struct ifa_cacheinfo: preferred, valid, and two times of creation that the kernel fills in.
                let info: Vec<u8> = [*seconds, *seconds, 0, 0].iter().flat_map(|value| value.to_ne_bytes()).collect();
                attribute(&mut out, 6, &info);
            }
            (RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)
        }
        Request::RemoveAddress(address) => {
            encode_address(&mut out, address);
            (RTM_DELADDR, NLM_F_ACK)
        }
        Request::AddRoute(route) => {
            encode_route(&mut out, route);
            (RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)
        }
        Request::RemoveRoute(route) => {
            encode_route(&mut out, route);
            (RTM_DELROUTE, NLM_F_ACK)
        }
    };
    let mut header = (out.len() as u32).to_ne_bytes().to_vec();
    header.extend_from_slice(&kind.to_ne_bytes());
    header.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
    header.extend_from_slice(&sequence.to_ne_bytes());
    for (to, from) in out.iter_mut().zip(header) {
        *to = from;
    }
    out
}

/// Whether a request is answered by a dump rather than one acknowledgement.
pub fn is_dump(request: &Request) -> bool {
    matches!(request, Request::DumpLinks | Request::DumpRouterFlags | Request::DumpAddresses | Request::DumpRoutes)
}

/// The messages in one datagram, with their sequence numbers.
pub fn decode(mut bytes: &[u8]) -> Vec<(u32, Message)> {
    let mut messages = Vec::new();
    while let (Some(length), Some(kind), Some(sequence)) = (u32_at(bytes, 0), u16_at(bytes, 4), u32_at(bytes, 8)) {
        let Some(payload) = bytes.get(16..length as usize) else { break };
        messages.push((sequence, decode_one(kind, payload).unwrap_or(Message::Other)));
        bytes = bytes.get(align(length as usize)..).unwrap_or_default();
    }
    messages
}

fn decode_one(kind: u16, payload: &[u8]) -> Option<Message> {
    Some(match kind {
        2 => Message::Error(u32_at(payload, 0)?.cast_signed().saturating_neg()),
        3 => Message::Done,
        // The same message of the IPv6 family has only that family's part, and not what a link is.
        RTM_NEWLINK if payload.first() == Some(&AF_INET6) => netlink_links::decode_router_flags(payload)?,
        RTM_NEWNDUSEROPT => netlink_links::decode_router_options(payload)?,
        RTM_DELLINK if payload.first() == Some(&AF_INET6) => Message::Other,
        RTM_NEWLINK => Message::Link(decode_link(payload)?),
        RTM_DELLINK => Message::LinkGone(u32_at(payload, 4)?),
        RTM_NEWADDR => {
            let (address, tentative) = decode_address(payload)?;
            Message::Address(address, tentative)
        }
        RTM_DELADDR => Message::AddressGone(decode_address(payload)?.0),
        RTM_NEWROUTE => Message::Route(decode_route(payload)?),
        RTM_DELROUTE => Message::RouteGone(decode_route(payload)?),
        _ => Message::Other,
    })
}

fn decode_link(payload: &[u8]) -> Option<Link> {
    let flags = u32_at(payload, 8)?;
    let mut link = Link {
        index: u32_at(payload, 4)?,
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
        loopback: flags & IFF_LOOPBACK != 0,
        ethernet: u16_at(payload, 2)? == ARPHRD_ETHER,
        ..Link::default()
    };
    for (kind, value) in attributes(payload.get(16..)?) {
        match kind {
            1 => link.mac = value.try_into().ok(),
            54 => link.permanent_mac = value.try_into().ok(),
            3 => link.name = text(value),
            4 => link.mtu = u32_at(value, 0)?,
            10 => link.master = u32_at(value, 0),
            18 => link.kind = attributes(value).find(|(kind, _)| *kind == 1).map(|(_, name)| text(name)),
            _ => {}
        }
    }
    Some(link)
}

fn decode_address(payload: &[u8]) -> Option<(Address, bool)> {
    let family = *payload.first()?;
    let mut flags = u32::from(*payload.get(2)?);
    let (mut local, mut peer) = (None, None);
    for (kind, value) in attributes(payload.get(8..)?) {
        match kind {
            1 => peer = ip(family, value),
            2 => local = ip(family, value),
            8 => flags = u32_at(value, 0)?,
            _ => {}
        }
    }
    let address = Address { link: u32_at(payload, 4)?, address: local.or(peer)?, prefix: *payload.get(1)? };
    Some((address, flags & IFA_F_TENTATIVE != 0))
}

fn decode_route(payload: &[u8]) -> Option<Route> {
    let family = *payload.first()?;
    let (table, kind, flags) = (*payload.get(4)?, *payload.get(7)?, u32_at(payload, 8)?);
    if table != RT_TABLE_MAIN || kind != RTN_UNICAST {
        return None;
    }
    let unspecified = if family == AF_INET { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let mut route = Route {
        link: 0,
        destination: unspecified,
        prefix: *payload.get(1)?,
        gateway: None,
        source: None,
        metric: 0,
        onlink: flags & RTNH_F_ONLINK != 0,
    };
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            1 => route.destination = ip(family, value)?,
            4 => route.link = u32_at(value, 0)?,
            5 => route.gateway = ip(family, value),
            6 => route.metric = u32_at(value, 0)?,
            7 => route.source = ip(family, value),
            _ => {}
        }
    }
    Some(route)
}

/// `struct ifinfomsg`: which link, its flags, and which of them are meant.
fn encode_link_header(out: &mut Vec<u8>, index: u32, flags: u32, mask: u32) {
    out.extend_from_slice(&[0; 4]);
    for word in [index, flags, mask] {
        out.extend_from_slice(&word.to_ne_bytes());
    }
}

fn encode_address(out: &mut Vec<u8>, address: &Address) {
    out.extend_from_slice(&[family_of(address.address), address.prefix, 0, RT_SCOPE_UNIVERSE]);
    out.extend_from_slice(&address.link.to_ne_bytes());
    let octets = octets(address.address);
    attribute(out, 2, &octets);
    attribute(out, 1, &octets);
}

fn encode_route(out: &mut Vec<u8>, route: &Route) {
    let scope = if route.gateway.is_none() && route.destination.is_ipv4() { RT_SCOPE_LINK } else { RT_SCOPE_UNIVERSE };
    // RTPROT_STATIC would say that a person made it; RTPROT_DHCP (16) says that a daemon looks after it.
    out.extend_from_slice(&[family_of(route.destination), route.prefix, 0, 0, RT_TABLE_MAIN, 16, scope, RTN_UNICAST]);
    out.extend_from_slice(&if route.onlink { RTNH_F_ONLINK } else { 0 }.to_ne_bytes());
    if route.prefix > 0 {
        attribute(out, 1, &octets(route.destination));
    }
    attribute(out, 4, &route.link.to_ne_bytes());
    if let Some(gateway) = route.gateway {
        attribute(out, 5, &octets(gateway));
    }
    if let Some(source) = route.source {
        attribute(out, 7, &octets(source));
    }
    if route.metric > 0 {
        attribute(out, 6, &route.metric.to_ne_bytes());
    }
}

pub(super) fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(align(out.len()), 0);
}

/// Kind and value of each attribute.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(u16_at(bytes, 0)?), u16_at(bytes, 2)?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        // The two highest bits are flags (nested, network byte order).
        Some((kind & 0x3fff, value))
    })
}

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn family_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    }
}

fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => <[u8; 4]>::try_from(value).ok().map(|octets| Ipv4Addr::from(octets).into()),
        AF_INET6 => <[u8; 16]>::try_from(value).ok().map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_asked_for_is_what_the_kernel_would_say() {
        let address = Address { link: 3, address: "10.0.2.15".parse().unwrap(), prefix: 24 };
        let route = Route {
            link: 3,
            destination: "0.0.0.0".parse().unwrap(),
            prefix: 0,
            gateway: Some("10.0.2.2".parse().unwrap()),
            source: Some("10.0.2.15".parse().unwrap()),
            metric: 1024,
            onlink: true,
        };
        let mut bytes = encode(&Request::AddAddress(address, Some(60)), 7);
        bytes.extend(encode(&Request::AddRoute(route), 8));
        bytes.extend(encode(&Request::SetLink { index: 4, up: true, mtu: Some(1400) }, 9));
        let link = Link { index: 4, up: true, mtu: 1400, ..Link::default() };
        assert_eq!(decode(&bytes), [(7, Message::Address(address, false)), (8, Message::Route(route)), (9, Message::Link(link))]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(mut bytes in proptest::collection::vec(any::<u8>(), 16..300), kind in prop::sample::select(vec![2u16, 3, 16, 17, 20, 21, 24, 25])) {
            decode(&bytes);
            let length = bytes.len() as u32;
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            prop_assert_eq!(decode(&bytes).len(), 1);
        }
    }
}
