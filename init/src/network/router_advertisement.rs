//! What routers say beside prefixes and routes: name servers, search domains, and whether DHCPv6 is to be asked.
//!
//! The kernel takes router advertisements in and makes addresses and routes of them; it hands on the options that it does not
//! use (RDNSS, DNSSL: RFC 8106) and the two flags. Pure. Promises: any bytes can be read without a panic.
#![deny(clippy::indexing_slicing)]

use std::net::Ipv6Addr;

const RDNSS: u8 = 25;
const DNSSL: u8 = 31;
/// A router that says more than this is not believed further.
const MOST: usize = 16;

/// What the routers of a link have said, each until its time in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertised {
    dns: Vec<(Ipv6Addr, u64)>,
    domains: Vec<(String, u64)>,
}

impl Advertised {
    /// Takes the options of one advertisement in; true when something has changed.
    pub fn hear(&mut self, options: &[u8], now: u64) -> bool {
        let before = (self.dns(), self.domains());
        for (kind, body) in walk(options) {
            let Some(lifetime) = body.get(2..6).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes) else { continue };
            let until = if lifetime == u32::MAX { u64::MAX } else { now.saturating_add(u64::from(lifetime) * 1000) };
            let rest = body.get(6..).unwrap_or_default();
            match kind {
                RDNSS => {
                    for chunk in rest.chunks_exact(16).filter_map(|chunk| <[u8; 16]>::try_from(chunk).ok()) {
                        renew(&mut self.dns, chunk.into(), until, lifetime);
                    }
                }
                DNSSL => domain_names(rest).into_iter().for_each(|name| renew(&mut self.domains, name, until, lifetime)),
                _ => {}
            }
        }
        (self.dns(), self.domains()) != before
    }

    /// Forgets what is over; true when something was.
    pub fn expire(&mut self, now: u64) -> bool {
        let before = self.dns.len() + self.domains.len();
        self.dns.retain(|(_, until)| *until > now);
        self.domains.retain(|(_, until)| *until > now);
        self.dns.len() + self.domains.len() != before
    }

    /// When something is over next.
    pub fn deadline(&self) -> Option<u64> {
        let times = self.dns.iter().map(|(_, until)| *until).chain(self.domains.iter().map(|(_, until)| *until));
        times.filter(|until| *until != u64::MAX).min()
    }

    /// Name servers.
    pub fn dns(&self) -> Vec<Ipv6Addr> {
        self.dns.iter().map(|(address, _)| *address).collect()
    }

    /// Search domains.
    pub fn domains(&self) -> Vec<String> {
        self.domains.iter().map(|(name, _)| name.clone()).collect()
    }
}

fn renew<T: PartialEq>(list: &mut Vec<(T, u64)>, value: T, until: u64, lifetime: u32) {
    let known = list.iter().position(|(known, _)| *known == value);
    match (known, lifetime) {
        (Some(at), 0) => drop(list.remove(at)),
        (Some(at), _) => {
            if let Some(entry) = list.get_mut(at) {
                entry.1 = until;
            }
        }
        (None, 0) => {}
        (None, _) if list.len() < MOST => list.push((value, until)),
        (None, _) => {}
    }
}

/// Kind and body (without kind and length) of each option.
fn walk(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (kind, length) = (*bytes.first()?, usize::from(*bytes.get(1)?) * 8);
        // A length of 0 would never end.
        let body = bytes.get(2..length).filter(|_| length > 0)?;
        bytes = bytes.get(length..)?;
        Some((kind, body))
    })
}

/// Names as DNS writes them, without compression; empty ones are padding, and what is no host's name is left out.
pub fn domain_names(mut bytes: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut labels: Vec<&str> = Vec::new();
    while let Some((length, rest)) = bytes.split_first() {
        let length = usize::from(*length);
        if length == 0 {
            let name = labels.join(".");
            if !name.is_empty() && name.len() <= 253 && names.len() < MOST {
                names.push(name);
            }
            labels.clear();
            bytes = rest;
            continue;
        }
        let label = rest.get(..length).filter(|_| length < 64).and_then(|label| std::str::from_utf8(label).ok());
        // It goes into resolv.conf: nothing but letters, digits, dashes and underscores.
        let Some(label) = label.filter(|label| label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))) else { break };
        labels.push(label);
        bytes = rest.get(length..).unwrap_or_default();
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rdnss(lifetime: u32, addresses: &[&str]) -> Vec<u8> {
        let mut out = vec![RDNSS, (1 + 2 * addresses.len()) as u8, 0, 0];
        out.extend(lifetime.to_be_bytes());
        out.extend(addresses.iter().flat_map(|address| address.parse::<Ipv6Addr>().unwrap().octets()));
        out
    }

    #[test]
    fn servers_come_are_renewed_and_go() {
        let mut heard = Advertised::default();
        let mut options = rdnss(60, &["2001:db8::53", "2001:db8::54"]);
        options.extend([DNSSL, 3, 0, 0, 0, 0, 0, 60]);
        options.extend(b"\x03lab\x07example\0\0\0\0\0");
        assert!(heard.hear(&options, 1000));
        assert!(!heard.hear(&options, 2000), "the same again");
        assert_eq!((heard.dns().len(), heard.domains()), (2, vec!["lab.example".to_owned()]));
        assert_eq!(heard.deadline(), Some(62_000));
        assert!(heard.hear(&rdnss(0, &["2001:db8::54"]), 3000), "a time of 0 takes it back");
        assert!(!heard.expire(61_000));
        assert!(heard.expire(62_000));
        assert_eq!(heard, Advertised::default());
    }

    #[test]
    fn a_name_that_would_write_a_second_line_is_left_out() {
        assert_eq!(domain_names(b"\x05a\nb c\0\x02ok\0"), Vec::<String>::new());
        assert_eq!(domain_names(b"\x02ok\0\x03two\x02xy\0"), ["ok", "two.xy"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            Advertised::default().hear(&bytes, 0);
            domain_names(&bytes);
        }
    }
}
