//! DHCPv4 messages (RFC 2131, 2132, 3396, 3397, 3442) to bytes and back, and what a lease says.
//!
//! Pure. Promises: any bytes can be decoded without a panic, and an option that cannot be read is left out without taking the
//! rest of the message with it: servers in the field send worse than the standards allow.
#![deny(clippy::indexing_slicing)]

use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Options that we know.
pub mod code {
    #![allow(missing_docs)]
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOSTNAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const MTU: u8 = 26;
    pub const NTP: u8 = 42;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const PARAMETERS: u8 = 55;
    pub const MAX_SIZE: u8 = 57;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const CLIENT_ID: u8 = 61;
    pub const DOMAIN_SEARCH: u8 = 119;
    pub const CLASSLESS_ROUTES: u8 = 121;
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Client looks for servers.
    Discover = 1,
    /// Server has an address.
    Offer = 2,
    /// Client wants it.
    Request = 3,
    /// Client refuses an address in use.
    Decline = 4,
    /// Server agrees.
    Ack = 5,
    /// Server refuses.
    Nak = 6,
    /// Client gives it back.
    Release = 7,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Whether a server sent it.
    pub reply: bool,
    /// Transaction.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// Answer by broadcast.
    pub broadcast: bool,
    /// The client's address, when it has one.
    pub ciaddr: Ipv4Addr,
    /// The address offered.
    pub yiaddr: Ipv4Addr,
    /// The client's hardware address.
    pub mac: [u8; 6],
    /// Options other than the message type, pieces of one joined.
    pub options: Vec<(u8, Vec<u8>)>,
}

/// A route: destination, prefix length, gateway (0.0.0.0: on the link).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Network.
    pub destination: Ipv4Addr,
    /// Its length.
    pub prefix: u8,
    /// Via.
    pub gateway: Ipv4Addr,
}

/// What a server gave, of what we use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Its prefix length.
    pub prefix: u8,
    /// The server.
    pub server: Ipv4Addr,
    /// Option 121's routes if there is one, else the default route by option 3.
    pub routes: Vec<Route>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Domains: the host's own first, then the search list.
    pub domains: Vec<String>,
    /// Time servers.
    pub ntp: Vec<Ipv4Addr>,
    /// The link's MTU.
    pub mtu: Option<u16>,
    /// A name for this host.
    pub hostname: Option<String>,
    /// Seconds that it holds; `u32::MAX` is for ever.
    pub seconds: u32,
    /// Seconds until it should be renewed.
    pub renew: u32,
    /// Seconds until any server is asked.
    pub rebind: u32,
}

const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Some old servers and relays drop anything shorter.
const SHORTEST: usize = 300;

impl Message {
    /// A message of a client.
    pub fn of_client(kind: Kind, xid: u32, mac: [u8; 6]) -> Message {
        let none = Ipv4Addr::UNSPECIFIED;
        Message { kind, reply: false, xid, secs: 0, broadcast: false, ciaddr: none, yiaddr: none, mac, options: Vec::new() }
    }

    /// An option's bytes.
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.iter().find(|(known, _)| *known == code).map(|(_, value)| value.as_slice())
    }

    /// An option that is an address.
    pub fn address_option(&self, code: u8) -> Option<Ipv4Addr> {
        addresses(self.option(code)?).first().copied()
    }

    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![if self.reply { 2 } else { 1 }, 1, 6, 0];
        out.extend_from_slice(&self.xid.to_be_bytes());
        out.extend_from_slice(&self.secs.to_be_bytes());
        out.extend_from_slice(&if self.broadcast { [0x80, 0] } else { [0, 0] });
        out.extend_from_slice(&self.ciaddr.octets());
        out.extend_from_slice(&self.yiaddr.octets());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.mac);
        out.resize(236, 0);
        out.extend_from_slice(&COOKIE);
        out.extend_from_slice(&[code::MESSAGE_TYPE, 1, self.kind as u8]);
        for (code, value) in &self.options {
            for piece in value.chunks(255) {
                out.push(*code);
                out.push(piece.len() as u8);
                out.extend_from_slice(piece);
            }
        }
        out.push(255);
        out.resize(out.len().max(SHORTEST), 0);
        out
    }

    /// The message in these bytes, or `None` when they are no DHCP message for Ethernet.
    pub fn decode(bytes: &[u8]) -> Option<Message> {
        let reply = match bytes.get(..3)? {
            [1, 1, 6] => false,
            [2, 1, 6] => true,
            _ => return None,
        };
        if bytes.get(236..240)? != COOKIE {
            return None;
        }
        let mut options = Vec::new();
        read_options(bytes.get(240..)?, &mut options);
        let overload = options.iter().find(|(code, _)| *code == code::OVERLOAD).and_then(|(_, value)| value.first()).copied().unwrap_or(0);
        if overload & 1 != 0 {
            read_options(bytes.get(108..236)?, &mut options);
        }
        if overload & 2 != 0 {
            read_options(bytes.get(44..108)?, &mut options);
        }
        let kind = match options.iter().find(|(code, _)| *code == code::MESSAGE_TYPE).and_then(|(_, value)| value.first())? {
            1 => Kind::Discover,
            2 => Kind::Offer,
            3 => Kind::Request,
            4 => Kind::Decline,
            5 => Kind::Ack,
            6 => Kind::Nak,
            7 => Kind::Release,
            _ => return None,
        };
        options.retain(|(code, _)| *code != code::MESSAGE_TYPE);
        Some(Message {
            kind,
            reply,
            xid: u32_at(bytes, 4)?,
            secs: u16_of(bytes.get(8..10)?)?,
            broadcast: *bytes.get(10)? & 0x80 != 0,
            ciaddr: address_at(bytes, 12)?,
            yiaddr: address_at(bytes, 16)?,
            mac: bytes.get(28..34)?.try_into().ok()?,
            options,
        })
    }

    /// What an offer or acknowledgement gives; `None` when no host could use it.
    pub fn lease(&self) -> Option<Lease> {
        let address = self.yiaddr;
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast() {
            return None;
        }
        let prefix = match self.option(code::SUBNET_MASK).and_then(|mask| u32_at(mask, 0)) {
            Some(mask) if mask.leading_ones() + mask.trailing_zeros() >= 32 && mask != 0 => mask.leading_ones() as u8,
            _ => class_prefix(address),
        };
        let number = |code| self.option(code).and_then(|value| u32_at(value, 0));
        let seconds = number(code::LEASE_TIME).unwrap_or(3600).max(10);
        let scaled = |part: u64| u32::try_from(u64::from(seconds) * part / 8).unwrap_or(seconds);
        let rebind = number(code::REBINDING_TIME).filter(|value| *value < seconds).unwrap_or(scaled(7));
        let renew = number(code::RENEWAL_TIME).filter(|value| *value < rebind).unwrap_or(scaled(4).min(rebind));
        let classless = self.option(code::CLASSLESS_ROUTES).map(classless_routes).unwrap_or_default();
        // RFC 3442: a client that gets option 121 must ignore option 3.
        let routes = if classless.is_empty() {
            let via = |gateway: &Ipv4Addr| Route { destination: Ipv4Addr::UNSPECIFIED, prefix: 0, gateway: *gateway };
            self.addresses(code::ROUTER).iter().filter(|gateway| !gateway.is_unspecified()).take(1).map(via).collect()
        } else {
            classless
        };
        let mut domains: Vec<String> = self.option(code::DOMAIN).and_then(text).filter(|name| is_domain(name)).into_iter().collect();
        for name in self.option(code::DOMAIN_SEARCH).map(search_list).unwrap_or_default() {
            if !domains.contains(&name) {
                domains.push(name);
            }
        }
        Some(Lease {
            address,
            prefix,
            server: self.address_option(code::SERVER_ID).unwrap_or(Ipv4Addr::UNSPECIFIED),
            routes,
            dns: self.addresses(code::DNS),
            domains,
            ntp: self.addresses(code::NTP),
            // RFC 2132 allows 68; less than 576 breaks more than it helps, and one byte of a bad server would do it.
            mtu: self.option(code::MTU).and_then(u16_of).filter(|mtu| *mtu >= 576),
            hostname: self.option(code::HOSTNAME).and_then(text).filter(|name| is_domain(name)),
            seconds,
            renew,
            rebind,
        })
    }

    fn addresses(&self, code: u8) -> Vec<Ipv4Addr> {
        self.option(code).map(addresses).unwrap_or_default()
    }
}

/// Adds the options of one field; pieces of the same option are joined (RFC 3396).
fn read_options(mut bytes: &[u8], options: &mut Vec<(u8, Vec<u8>)>) {
    while let Some((code, rest)) = bytes.split_first() {
        match code {
            0 => bytes = rest,
            255 => return,
            _ => {
                let Some((length, rest)) = rest.split_first() else { return };
                let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else { return };
                match options.iter_mut().find(|(known, _)| known == code) {
                    Some((_, known)) => known.extend_from_slice(value),
                    None => options.push((*code, value.to_vec())),
                }
                bytes = rest;
            }
        }
    }
}

fn addresses(bytes: &[u8]) -> Vec<Ipv4Addr> {
    bytes.chunks_exact(4).filter_map(|octets| address_at(octets, 0)).collect()
}

fn classless_routes(mut bytes: &[u8]) -> Vec<Route> {
    let mut routes = Vec::new();
    while let Some((prefix, rest)) = bytes.split_first() {
        let significant = usize::from(*prefix).div_ceil(8);
        let (Some(destination), Some(gateway)) = (rest.get(..significant), address_at(rest, significant)) else { break };
        if *prefix > 32 {
            break;
        }
        let mut octets = [0; 4];
        for (to, from) in octets.iter_mut().zip(destination) {
            *to = *from;
        }
        routes.push(Route { destination: network_of(octets.into(), *prefix), prefix: *prefix, gateway });
        bytes = rest.get(significant + 4..).unwrap_or_default();
    }
    routes
}

/// The address with all bits behind the prefix zero, as routes need it.
pub fn network_of(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

/// Names in DNS form, with compression within the option (RFC 3397).
fn search_list(bytes: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 0;
    while at < bytes.len() && names.len() < 32 {
        let Some((name, next)) = dns_name(bytes, at) else { break };
        at = next;
        if is_domain(&name) {
            names.push(name);
        }
    }
    names
}

fn dns_name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut at = start;
    let mut end = None;
    // A pointer loop ends here: a name has at most 127 labels.
    for _ in 0..256 {
        let length = *bytes.get(at)?;
        match length {
            0 => return Some((name, end.unwrap_or(at + 1))),
            1..=63 => {
                let label = std::str::from_utf8(bytes.get(at + 1..at + 1 + usize::from(length))?).ok()?;
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(label);
                at += 1 + usize::from(length);
            }
            0xc0.. => {
                let low = *bytes.get(at + 1)?;
                end = end.or(Some(at + 2));
                at = usize::from(length & 0x3f) << 8 | usize::from(low);
            }
            _ => return None,
        }
    }
    None
}

/// Servers' text goes into resolv.conf and the like: only what a name may hold is let through.
fn is_domain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        && !name.starts_with(['-', '.'])
}

fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0').trim_end_matches('.');
    Some(text.to_owned())
}

/// What a host assumed before there were masks.
fn class_prefix(address: Ipv4Addr) -> u8 {
    match address.octets() {
        [..=127, ..] => 8,
        [128..=191, ..] => 16,
        _ => 24,
    }
}

fn address_at(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from_bits(u32_at(bytes, at)?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u16_of(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ack(options: &[(u8, &[u8])]) -> Message {
        Message {
            reply: true,
            yiaddr: Ipv4Addr::new(10, 0, 2, 15),
            options: options.iter().map(|(code, value)| (*code, value.to_vec())).collect(),
            ..Message::of_client(Kind::Ack, 1, [2, 0, 0, 0, 0, 1])
        }
    }

    #[test]
    fn a_lease_is_read_whole() {
        let message = ack(&[
            (code::SUBNET_MASK, &[255, 255, 255, 0]),
            (code::ROUTER, &[10, 0, 2, 2]),
            (code::DNS, &[10, 0, 2, 3, 1, 1, 1, 1, 9]),
            (code::DOMAIN, b"example.org"),
            (code::DOMAIN_SEARCH, b"\x03eng\x05apple\x03com\x00\x09marketing\xc0\x04"),
            (code::NTP, &[10, 0, 2, 4]),
            (code::MTU, &[5, 180]),
            (code::HOSTNAME, b"node1\0"),
            (code::LEASE_TIME, &[0, 0, 14, 16]),
            (code::SERVER_ID, &[10, 0, 2, 2]),
        ]);
        let lease = Message::decode(&message.encode()).unwrap().lease().unwrap();
        assert_eq!((lease.prefix, lease.mtu, lease.hostname.as_deref()), (24, Some(1460), Some("node1")));
        assert_eq!(lease.routes, [Route { destination: Ipv4Addr::UNSPECIFIED, prefix: 0, gateway: Ipv4Addr::new(10, 0, 2, 2) }]);
        assert_eq!(lease.dns, [Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(1, 1, 1, 1)]);
        assert_eq!(lease.domains, ["example.org", "eng.apple.com", "marketing.apple.com"]);
        assert_eq!((lease.seconds, lease.renew, lease.rebind), (3600, 1800, 3150));
    }

    #[test]
    fn classless_routes_replace_the_router() {
        let message = ack(&[
            (code::SUBNET_MASK, &[255, 255, 255, 255]),
            (code::ROUTER, &[10, 9, 9, 9]),
            (code::CLASSLESS_ROUTES, &[32, 169, 254, 0, 1, 0, 0, 0, 0, 0, 169, 254, 0, 1, 12, 172, 31, 10, 0, 2, 7]),
        ]);
        let lease = message.lease().unwrap();
        assert_eq!(lease.prefix, 32);
        let gateway = Ipv4Addr::new(169, 254, 0, 1);
        assert_eq!(
            lease.routes,
            [
                Route { destination: gateway, prefix: 32, gateway: Ipv4Addr::UNSPECIFIED },
                Route { destination: Ipv4Addr::UNSPECIFIED, prefix: 0, gateway },
                Route { destination: Ipv4Addr::new(172, 16, 0, 0), prefix: 12, gateway: Ipv4Addr::new(10, 0, 2, 7) },
            ]
        );
    }

    #[test]
    fn what_a_server_must_not_say_is_left_out() {
        let message = ack(&[
            (code::DOMAIN, b"evil.org\nnameserver 6.6.6.6"),
            (code::HOSTNAME, b"$(reboot)"),
            (code::MTU, &[0, 68]),
            (code::CLASSLESS_ROUTES, &[200, 1, 2, 3]),
            (code::ROUTER, &[10, 0, 2, 2]),
            (code::RENEWAL_TIME, &[0xff; 4]),
            (code::DOMAIN_SEARCH, &[0xc0, 0x00]),
        ]);
        let lease = message.lease().unwrap();
        assert_eq!((lease.domains.len(), lease.hostname, lease.mtu, lease.routes.len()), (0, None, None, 1));
        assert!(lease.renew <= lease.rebind && lease.rebind <= lease.seconds);
        for bad in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, Ipv4Addr::LOCALHOST, Ipv4Addr::new(224, 0, 0, 1)] {
            assert_eq!(Message { yiaddr: bad, ..ack(&[]) }.lease(), None);
        }
    }

    #[test]
    fn options_in_the_name_fields_are_read_too() {
        let mut bytes = ack(&[(code::OVERLOAD, &[3])]).encode();
        bytes[44..51].copy_from_slice(&[code::ROUTER, 4, 10, 0, 2, 2, 255]);
        bytes[108..115].copy_from_slice(&[code::DNS, 4, 10, 0, 2, 3, 255]);
        let lease = Message::decode(&bytes).unwrap().lease().unwrap();
        assert_eq!((lease.routes.len(), lease.dns.len()), (1, 1));
    }

    #[test]
    fn long_options_are_split_and_joined() {
        let long = vec![7; 700];
        let message = ack(&[(200, &long)]);
        assert_eq!(Message::decode(&message.encode()).unwrap().option(200), Some(&long[..]));
    }

    proptest! {
        #[test]
        fn any_options_give_a_lease_or_none(options in proptest::collection::vec(any::<u8>(), 0..300), overload in 0u8..4) {
            let mut bytes = ack(&[(code::OVERLOAD, &[overload])]).encode();
            bytes.truncate(246);
            bytes.extend_from_slice(&options);
            for (at, byte) in bytes.iter_mut().enumerate().take(236).skip(44) { *byte = options.get(at).copied().unwrap_or(at as u8); }
            if let Some(lease) = Message::decode(&bytes).and_then(|message| message.lease()) {
                prop_assert!(lease.prefix <= 32 && lease.renew <= lease.rebind && lease.rebind <= lease.seconds);
                prop_assert!(lease.routes.iter().all(|route| route.prefix <= 32));
                prop_assert!(lease.domains.iter().chain(&lease.hostname).all(|name| is_domain(name)));
            }
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            Message::decode(&bytes);
            search_list(&bytes);
            classless_routes(&bytes);
        }
    }
}
