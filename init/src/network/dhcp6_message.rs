//! DHCPv6 messages (RFC 8415), as far as a host needs them: to bytes and back.
//!
//! Pure. Promises: any bytes can be decoded without a panic, and what is longer than it may be is cut.
#![deny(clippy::indexing_slicing)]

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use super::router_advertisement::domain_names;

const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IA_ADDRESS: u16 = 5;
const OPTION_REQUEST: u16 = 6;
const ELAPSED: u16 = 8;
const STATUS: u16 = 13;
const RAPID_COMMIT: u16 = 14;
const DNS: u16 = 23;
const DOMAINS: u16 = 24;
const SNTP: u16 = 31;
const REFRESH: u16 = 32;
const NTP: u16 = 56;
/// Suboption of [`NTP`]: an address.
const NTP_ADDRESS: u16 = 1;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who is there?
    Solicit,
    /// A server offers.
    Advertise,
    /// The client takes the offer.
    Request,
    /// It asks its server for more time.
    Renew,
    /// It asks any server for more time.
    Rebind,
    /// A server's answer.
    Reply,
    /// It wants everything but an address.
    Information,
}

impl Kind {
    const ALL: [(Kind, u8); 7] = [
        (Kind::Solicit, 1),
        (Kind::Advertise, 2),
        (Kind::Request, 3),
        (Kind::Renew, 5),
        (Kind::Rebind, 6),
        (Kind::Reply, 7),
        (Kind::Information, 11),
    ];

    fn code(self) -> u8 {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, code)| *code)
    }

    fn from_code(code: u8) -> Option<Kind> {
        Self::ALL.iter().find(|(_, known)| *known == code).map(|(kind, _)| *kind)
    }
}

/// An address that a server gives, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The address.
    pub address: Ipv6Addr,
    /// How long it should be used for new connections.
    pub preferred: u32,
    /// How long it holds.
    pub valid: u32,
}

/// What a server says beside addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Information {
    /// Name servers.
    pub dns: Vec<Ipv6Addr>,
    /// Search domains.
    pub domains: Vec<String>,
    /// Time servers.
    pub ntp: Vec<Ipv6Addr>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message6 {
    /// What it is.
    pub kind: Kind,
    /// Which exchange it belongs to, 24 bits.
    pub transaction: u32,
    /// The client's DUID.
    pub client: Vec<u8>,
    /// The server's DUID, or empty.
    pub server: Vec<u8>,
    /// The number of the client's set of addresses, where the message has one.
    pub set: Option<u32>,
    /// T1 and T2 in seconds; 0 leaves them to the client.
    pub times: (u32, u32),
    /// Addresses in the set.
    pub addresses: Vec<Given>,
    /// Status of the message or of the set; 0 is success.
    pub status: u16,
    /// Two messages are enough.
    pub rapid: bool,
    /// Hundredths of a second since the client began.
    pub elapsed: u16,
    /// The rest.
    pub information: Information,
    /// When to ask again for the rest, in seconds.
    pub refresh: Option<u32>,
}

impl Message6 {
    /// An empty one.
    pub fn new(kind: Kind, transaction: u32) -> Message6 {
        Message6 {
            kind,
            transaction: transaction & 0xff_ffff,
            client: Vec::new(),
            server: Vec::new(),
            set: None,
            times: (0, 0),
            addresses: Vec::new(),
            status: 0,
            rapid: false,
            elapsed: 0,
            information: Information::default(),
            refresh: None,
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = (u32::from(self.kind.code()) << 24 | self.transaction & 0xff_ffff).to_be_bytes().to_vec();
        option(&mut out, CLIENT_ID, &self.client);
        if !self.server.is_empty() {
            option(&mut out, SERVER_ID, &self.server);
        }
        if let Some(set) = self.set {
            let mut body: Vec<u8> = [set, self.times.0, self.times.1].iter().flat_map(|word| word.to_be_bytes()).collect();
            for given in &self.addresses {
                let mut address = given.address.octets().to_vec();
                address.extend(given.preferred.to_be_bytes());
                address.extend(given.valid.to_be_bytes());
                option(&mut body, IA_ADDRESS, &address);
            }
            option(&mut out, IA_NA, &body);
        }
        if matches!(self.kind, Kind::Advertise | Kind::Reply) {
            self.encode_answer(&mut out);
        } else {
            option(&mut out, ELAPSED, &self.elapsed.to_be_bytes());
            let wanted: Vec<u8> = [DNS, DOMAINS, NTP, SNTP, REFRESH].iter().flat_map(|code| code.to_be_bytes()).collect();
            option(&mut out, OPTION_REQUEST, &wanted);
        }
        if self.rapid {
            option(&mut out, RAPID_COMMIT, &[]);
        }
        out
    }

    /// What only servers say, so that tests can be one.
    fn encode_answer(&self, out: &mut Vec<u8>) {
        if self.status != 0 {
            option(out, STATUS, &self.status.to_be_bytes());
        }
        let octets = |list: &[Ipv6Addr]| -> Vec<u8> { list.iter().flat_map(Ipv6Addr::octets).collect() };
        if !self.information.dns.is_empty() {
            option(out, DNS, &octets(&self.information.dns));
        }
        if !self.information.ntp.is_empty() {
            option(out, SNTP, &octets(&self.information.ntp));
        }
        if let Some(refresh) = self.refresh {
            option(out, REFRESH, &refresh.to_be_bytes());
        }
    }

    /// Reads one; `None` when it is not for a client.
    pub fn decode(bytes: &[u8]) -> Option<Message6> {
        let word = u32_at(bytes, 0)?;
        let mut message = Message6::new(Kind::from_code(u8::try_from(word >> 24).ok()?)?, word);
        for (code, value) in options(bytes.get(4..)?) {
            match code {
                CLIENT_ID => message.client = value.to_vec(),
                SERVER_ID => message.server = value.to_vec(),
                IA_NA if message.set.is_none() => message.read_set(value)?,
                STATUS => message.status = u16_at(value, 0)?,
                RAPID_COMMIT => message.rapid = true,
                ELAPSED => message.elapsed = u16_at(value, 0)?,
                DNS => message.information.dns = addresses(value),
                DOMAINS => message.information.domains = domain_names(value),
                SNTP if message.information.ntp.is_empty() => message.information.ntp = addresses(value),
                NTP => {
                    message.information.ntp =
                        options(value).filter(|(code, _)| *code == NTP_ADDRESS).flat_map(|(_, v)| addresses(v)).collect();
                }
                REFRESH => message.refresh = Some(u32_at(value, 0)?),
                _ => {}
            }
        }
        Some(message)
    }

    fn read_set(&mut self, value: &[u8]) -> Option<()> {
        self.set = Some(u32_at(value, 0)?);
        self.times = (u32_at(value, 4)?, u32_at(value, 8)?);
        for (code, value) in options(value.get(12..)?) {
            match code {
                IA_ADDRESS if self.addresses.len() < 8 => {
                    let octets: [u8; 16] = value.get(..16)?.try_into().ok()?;
                    self.addresses.push(Given { address: octets.into(), preferred: u32_at(value, 16)?, valid: u32_at(value, 20)? });
                }
                STATUS => self.status = u16_at(value, 0)?,
                _ => {}
            }
        }
        Some(())
    }
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend(code.to_be_bytes());
    out.extend((value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
}

fn options(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (code, length) = (u16_at(bytes, 0)?, usize::from(u16_at(bytes, 2)?));
        let value = bytes.get(4..4 + length)?;
        bytes = bytes.get(4 + length..)?;
        Some((code, value))
    })
}

/// At most eight: nobody asks more.
fn addresses(value: &[u8]) -> Vec<Ipv6Addr> {
    value.chunks_exact(16).take(8).filter_map(|chunk| <[u8; 16]>::try_from(chunk).ok()).map(Ipv6Addr::from).collect()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let address = Given { address: "2001:db8::5".parse().unwrap(), preferred: 100, valid: 200 };
        let message = Message6 {
            client: vec![0, 3, 0, 1, 2, 0, 0, 0, 0, 1],
            server: vec![9, 9],
            set: Some(7),
            times: (50, 80),
            addresses: vec![address],
            status: 2,
            rapid: true,
            information: Information { dns: vec!["2001:db8::53".parse().unwrap()], ..Information::default() },
            refresh: Some(600),
            ..Message6::new(Kind::Reply, 0x12_3456)
        };
        assert_eq!(Message6::decode(&message.encode()), Some(message));
        let solicit = Message6 { elapsed: 12, client: vec![1], set: Some(1), ..Message6::new(Kind::Solicit, 1) };
        assert_eq!(Message6::decode(&solicit.encode()), Some(solicit));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..12) {
            if let Some(first) = bytes.first_mut() { *first = kind; }
            if let Some(message) = Message6::decode(&bytes) { message.encode(); }
        }
    }
}
