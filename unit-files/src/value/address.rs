//! Ranges of IP addresses, as `IPAddressAllow=` and `IPAddressDeny=` have them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{ValueError, expected};

/// An address and how many of its first bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRange {
    /// The address.
    pub address: IpAddr,
    /// At most 32 for IPv4, 128 for IPv6.
    pub bits: u8,
}

/// A word of `IPAddressAllow=`: an address with or without a length, or one of systemd's names for ranges
/// (`systemd.resource-control(5)`).
///
/// # Errors
/// When it is neither.
pub fn parse_address_ranges(word: &str) -> Result<Vec<AddressRange>, ValueError> {
    let v4 = |a, b, c, d, bits| AddressRange { address: Ipv4Addr::new(a, b, c, d).into(), bits };
    let v6 = |first, last, bits| AddressRange { address: Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last).into(), bits };
    Ok(match word {
        "any" => vec![v4(0, 0, 0, 0, 0), v6(0, 0, 0)],
        "localhost" => vec![v4(127, 0, 0, 0, 8), v6(0, 1, 128)],
        "link-local" => vec![v4(169, 254, 0, 0, 16), v6(0xfe80, 0, 64)],
        "multicast" => vec![v4(224, 0, 0, 0, 4), v6(0xff00, 0, 8)],
        _ => vec![
            parse_range(word).ok_or_else(|| expected(word, "an IP address, ADDRESS/LENGTH, any, localhost, link-local or multicast"))?,
        ],
    })
}

fn parse_range(word: &str) -> Option<AddressRange> {
    let (address, length) = word.split_once('/').map_or((word, None), |(address, length)| (address, Some(length)));
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = length.map_or(Some(most), |length| length.parse().ok().filter(|bits| *bits <= most))?;
    Some(AddressRange { address, bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_ranges_and_names_are_taken_and_nothing_else() {
        let one =
            |word: &str| parse_address_ranges(word).unwrap().into_iter().map(|r| format!("{}/{}", r.address, r.bits)).collect::<Vec<_>>();
        assert_eq!(one("10.1.2.3"), ["10.1.2.3/32"]);
        assert_eq!(one("10.0.0.0/8"), ["10.0.0.0/8"]);
        assert_eq!(one("2001:db8::/32"), ["2001:db8::/32"]);
        assert_eq!(one("any"), ["0.0.0.0/0", "::/0"]);
        assert_eq!(one("localhost"), ["127.0.0.0/8", "::1/128"]);
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0", "example.org", "10.0.0.0/", "localhost/8"] {
            assert!(parse_address_ranges(bad).is_err(), "{bad}");
        }
    }
}
