//! What the daemon writes for others: `resolv.conf`, `network.json`, `environment`, chrony's servers.
//!
//! Rendering is pure; writing replaces each file whole, so that a reader never sees half of one.

use super::dhcp_message::Lease;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// A C library reads no more name servers than this.
const MAX_DNS: usize = 3;

/// `/run/garboard/network.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Whether a link that counts has an address and a default route.
    pub online: bool,
    /// Name servers in the order in which they are asked.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub domains: Vec<String>,
    /// Time servers.
    pub ntp: Vec<String>,
    /// The host's address inside.
    pub private_ipv4: Option<Ipv4Addr>,
    /// The host's address that everybody can reach, else the private one.
    pub public_ipv4: Option<Ipv4Addr>,
    /// Links that we look after.
    pub links: Vec<LinkStatus>,
    /// What could not be done, one line each.
    pub problems: Vec<String>,
}

/// One link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Name.
    pub name: String,
    /// Kernel's number.
    pub index: u32,
    /// Hardware address.
    pub mac: String,
    /// MTU.
    pub mtu: u32,
    /// Whether there is a carrier.
    pub carrier: bool,
    /// The `.network` file, or empty.
    pub file: String,
    /// `RequiredForOnline=`.
    pub required_for_online: bool,
    /// All addresses, ours or not: `10.0.2.15/24`.
    pub addresses: Vec<String>,
    /// What we have set.
    pub configured: Configured,
    /// The DHCP lease.
    pub lease: Option<Lease>,
    /// Seconds since 1970 when it was given.
    pub leased_at: Option<u64>,
    /// Milliseconds from carrier to configured address.
    pub configured_after_ms: Option<u64>,
    /// Addresses by DHCPv6.
    #[serde(default)]
    pub dhcp6: Vec<super::dhcp6_message::Given>,
    /// Milliseconds from the router's word to the address by DHCPv6.
    #[serde(default)]
    pub dhcp6_after_ms: Option<u64>,
}

/// What we have set on a link, in words that outlive the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    /// `10.0.2.15/24`
    pub addresses: Vec<String>,
    /// Routes.
    pub routes: Vec<RouteStatus>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// `0.0.0.0/0`
    pub destination: String,
    /// Via.
    pub gateway: Option<IpAddr>,
    /// Address to send from.
    pub source: Option<IpAddr>,
    /// Metric.
    pub metric: u32,
    /// Whether the gateway was declared to be on the link.
    pub onlink: bool,
}

/// `resolv.conf`'s text.
pub fn resolv_conf(status: &NetworkStatus) -> String {
    let mut text = String::from("# Written by the network daemon; set DNS= and Domains= in /etc/systemd/network/*.network.\n");
    for address in status.dns.iter().take(MAX_DNS) {
        text.push_str(&format!("nameserver {address}\n"));
    }
    if !status.domains.is_empty() {
        text.push_str(&format!("search {}\n", status.domains.join(" ")));
    }
    // Containers copy this file; IPv6 lookups of a slow server must not double every wait.
    text.push_str("options edns0 trust-ad\n");
    text
}

/// `/etc/environment`'s text: always there, with what is known so far.
pub fn environment(status: &NetworkStatus) -> String {
    let mut text = String::from("# Written by the network daemon.\n");
    for (name, address) in [("PRIVATE_IPV4", status.private_ipv4), ("PUBLIC_IPV4", status.public_ipv4)] {
        let value = address.map(|address| address.to_string()).unwrap_or_default();
        text.push_str(&format!("COREOS_{name}={value}\nGARBOARD_{name}={value}\n"));
    }
    text
}

/// The sources that chrony reads from `/run/chrony-dhcp`.
pub fn chrony_sources(status: &NetworkStatus) -> String {
    status.ntp.iter().map(|server| format!("server {server} iburst\n")).collect()
}

/// Chooses the addresses that others are told: of all IPv4 addresses, best link first.
pub fn choose_addresses(addresses: &[Ipv4Addr]) -> (Option<Ipv4Addr>, Option<Ipv4Addr>) {
    let usable = || addresses.iter().copied().filter(|address| !address.is_loopback() && !address.is_link_local());
    let carrier_grade = |address: &Ipv4Addr| matches!(address.octets(), [100, 64..=127, ..]);
    let private = usable().find(|address| address.is_private() || carrier_grade(address)).or_else(|| usable().next());
    let public = usable().find(|address| !address.is_private() && !carrier_grade(address)).or(private);
    (private, public)
}

/// Replaces `path` with `text`, atomically, unless it says so already. True when it was written.
pub fn write_whole(path: &Path, text: &str) -> io::Result<bool> {
    if std::fs::read_to_string(path).is_ok_and(|known| known == text) {
        return Ok(false);
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory)?;
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let temporary = directory.join(name);
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn the_private_and_the_public_address() {
        let all = [address("169.254.1.1"), address("10.0.2.15"), address("203.0.113.9")];
        assert_eq!(choose_addresses(&all), (Some(all[1]), Some(all[2])));
        assert_eq!(choose_addresses(&all[..2]), (Some(all[1]), Some(all[1])));
        assert_eq!(choose_addresses(&all[2..]), (Some(all[2]), Some(all[2])));
        assert_eq!(choose_addresses(&[]), (None, None));
    }

    #[test]
    fn the_files_say_what_is_known_and_are_there_before_anything_is() {
        let status = NetworkStatus {
            dns: ["10.0.2.3", "2001:db8::1", "1.1.1.1", "9.9.9.9"].map(|text| text.parse().unwrap()).to_vec(),
            domains: vec!["example.org".into(), "corp".into()],
            private_ipv4: Some(address("10.0.2.15")),
            public_ipv4: Some(address("10.0.2.15")),
            ntp: vec!["10.0.2.4".into()],
            ..NetworkStatus::default()
        };
        let text = resolv_conf(&status);
        assert!(text.contains("nameserver 10.0.2.3\nnameserver 2001:db8::1\nnameserver 1.1.1.1\nsearch example.org corp\n"), "{text}");
        assert!(environment(&status).contains("COREOS_PRIVATE_IPV4=10.0.2.15\n"));
        assert!(environment(&NetworkStatus::default()).contains("COREOS_PUBLIC_IPV4=\n"));
        assert_eq!(chrony_sources(&status), "server 10.0.2.4 iburst\n");
    }
}
