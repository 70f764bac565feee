//! `.network` files in systemd-networkd's syntax, as far as a host of containers needs them, and which link they are for.
//!
//! Pure. What is not known is a complaint with file and line, never a reason to leave a host without its network: only an unknown
//! condition in `[Match]` makes a file match nothing, since guessing could configure the wrong link.

use super::netlink::Link;
use crate::glob;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network with a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Address.
    pub address: IpAddr,
    /// Length.
    pub length: u8,
}

/// `[Match]`: each list that is not empty must have a member that matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    names: Vec<String>,
    macs: Vec<[u8; 6]>,
    permanent_macs: Vec<[u8; 6]>,
    types: Vec<String>,
    kinds: Vec<String>,
    drivers: Vec<String>,
    impossible: bool,
}

/// `[Route]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRoute {
    /// Where to.
    pub destination: Prefix,
    /// Via.
    pub gateway: Option<IpAddr>,
    /// Metric.
    pub metric: Option<u32>,
    /// `GatewayOnLink=`.
    pub onlink: bool,
}

/// `[DHCPv4]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpOptions {
    /// Take name servers.
    pub use_dns: bool,
    /// Take domains.
    pub use_domains: bool,
    /// Take time servers.
    pub use_ntp: bool,
    /// Take routes.
    pub use_routes: bool,
    /// Take the MTU.
    pub use_mtu: bool,
    /// Take a host name.
    pub use_hostname: bool,
    /// Send ours.
    pub send_hostname: bool,
    /// Which one to send instead of the host's.
    pub hostname: Option<String>,
    /// Metric of its routes.
    pub route_metric: Option<u32>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkFile {
    /// File name.
    pub name: String,
    /// Which links.
    pub matching: Match,
    /// `Unmanaged=`.
    pub unmanaged: bool,
    /// `MTUBytes=`.
    pub mtu: Option<u32>,
    /// `RequiredForOnline=`.
    pub required_for_online: bool,
    /// `DHCP=` is `yes` or `ipv4`.
    pub dhcp: bool,
    /// Static addresses.
    pub addresses: Vec<Prefix>,
    /// Routes, `Gateway=` among them.
    pub routes: Vec<StaticRoute>,
    /// `DNS=`.
    pub dns: Vec<IpAddr>,
    /// `Domains=`.
    pub domains: Vec<String>,
    /// `NTP=`.
    pub ntp: Vec<String>,
    /// `LinkLocalAddressing=` covers IPv6.
    pub link_local_ipv6: bool,
    /// `IPv6AcceptRA=`.
    pub accept_ra: bool,
    /// `[DHCPv4]`.
    pub dhcp_options: DhcpOptions,
}

impl NetworkFile {
    /// What a link gets that no file is for.
    pub fn fallback() -> NetworkFile {
        NetworkFile {
            name: String::new(),
            matching: Match::default(),
            unmanaged: false,
            mtu: None,
            required_for_online: true,
            dhcp: true,
            addresses: Vec::new(),
            routes: Vec::new(),
            dns: Vec::new(),
            domains: Vec::new(),
            ntp: Vec::new(),
            link_local_ipv6: true,
            accept_ra: true,
            dhcp_options: DhcpOptions {
                use_dns: true,
                use_domains: true,
                use_ntp: true,
                use_routes: true,
                use_mtu: true,
                use_hostname: true,
                send_hostname: true,
                hostname: None,
                route_metric: None,
            },
        }
    }

    /// Reads a file; the second part is what could not be used, one line each.
    pub fn parse(name: &str, text: &str) -> (NetworkFile, Vec<String>) {
        let mut reader = Reader { file: NetworkFile { name: name.into(), dhcp: false, ..NetworkFile::fallback() }, route: None };
        let mut complaints = Vec::new();
        let mut section = String::new();
        for (number, line) in logical_lines(text) {
            if let Some(header) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = header.to_owned();
                reader.begin_section(&section);
                continue;
            }
            let result = match line.split_once('=') {
                Some((key, value)) => reader.set(&section, key.trim(), value.trim()),
                None => Err("this is neither [Section] nor Key=Value".into()),
            };
            if let Err(problem) = result {
                complaints.push(format!("{name}:{number}: {problem}"));
            }
        }
        reader.begin_section("");
        (reader.file, complaints)
    }
}

impl Match {
    /// Whether a link is meant; `driver` is its driver's name.
    pub fn matches(&self, link: &Link, driver: Option<&str>) -> bool {
        if self.impossible || link.loopback {
            return false;
        }
        // Containers' interfaces come and go by the hundred: a file must name virtual ones to mean them.
        if link.kind.is_some() && self.kinds.is_empty() && !self.names.iter().any(|pattern| pattern != "*") {
            return false;
        }
        let kind = link.kind.as_deref().unwrap_or_default();
        let kind_of_link = if link.ethernet { "ether" } else { "none" };
        any_pattern(&self.names, &link.name)
            && (self.macs.is_empty() || link.mac.is_some_and(|mac| self.macs.contains(&mac)))
            && (self.permanent_macs.is_empty() || link.permanent_mac.or(link.mac).is_some_and(|mac| self.permanent_macs.contains(&mac)))
            && (any_pattern(&self.types, kind_of_link) || any_pattern(&self.types, kind))
            && any_pattern(&self.kinds, kind)
            && any_pattern(&self.drivers, driver.unwrap_or_default())
    }
}

/// A list of patterns; a leading `!` on the first turns the whole list round.
fn any_pattern(patterns: &[String], text: &str) -> bool {
    let Some(first) = patterns.first() else { return true };
    match first.strip_prefix('!') {
        Some(first) => {
            !std::iter::once(first).chain(patterns.iter().skip(1).map(String::as_str)).any(|pattern| glob::matches(pattern, text))
        }
        None => patterns.iter().any(|pattern| glob::matches(pattern, text)),
    }
}

struct Reader {
    file: NetworkFile,
    /// The `[Route]` being read.
    route: Option<RouteSection>,
}

#[derive(Default)]
struct RouteSection {
    destination: Option<Prefix>,
    gateway: Option<IpAddr>,
    metric: Option<u32>,
    onlink: bool,
}

impl Reader {
    fn begin_section(&mut self, section: &str) {
        if let Some(RouteSection { destination, gateway, metric, onlink }) = self.route.take()
            && (destination.is_some() || gateway.is_some())
        {
            let destination = destination.unwrap_or_else(|| default_of(gateway));
            self.file.routes.push(StaticRoute { destination, gateway, metric, onlink });
        }
        if section == "Route" {
            self.route = Some(RouteSection::default());
        }
    }

    fn set(&mut self, section: &str, key: &str, value: &str) -> Result<(), String> {
        let file = &mut self.file;
        let bad = || format!("cannot read '{value}' as a value of {key}=");
        let flag = || boolean(value).ok_or_else(bad);
        match (section, key) {
            ("Match", "Name") => words(&mut file.matching.names, value),
            ("Match", "Type") => words(&mut file.matching.types, value),
            ("Match", "Kind") => words(&mut file.matching.kinds, value),
            ("Match", "Driver") => words(&mut file.matching.drivers, value),
            ("Match", "MACAddress" | "PermanentMACAddress") => {
                let list = if key == "MACAddress" { &mut file.matching.macs } else { &mut file.matching.permanent_macs };
                for word in value.split_whitespace() {
                    match mac(word) {
                        Some(mac) => list.push(mac),
                        None => {
                            file.matching.impossible = true;
                            return Err(format!("'{word}' is no hardware address, so this file matches no link"));
                        }
                    }
                }
            }
            ("Match", _) => {
                file.matching.impossible = true;
                return Err(format!("{key}= in [Match] is not supported, so this file matches no link"));
            }
            ("Link", "MTUBytes") => file.mtu = Some(size(value).filter(|mtu| (68..=65536).contains(mtu)).ok_or_else(bad)?),
            ("Link", "Unmanaged") => file.unmanaged = flag()?,
            // An operational state such as `routable` means yes.
            ("Link", "RequiredForOnline") => {
                file.required_for_online = boolean(value.split(':').next().unwrap_or_default()).unwrap_or(true)
            }
            ("Network", "Description") | ("Link", "Description") => {}
            ("Network", "DHCP") => {
                file.dhcp = match value {
                    "ipv4" => true,
                    "ipv6" => false,
                    _ => flag()?,
                }
            }
            ("Network" | "Address", "Address") => {
                let prefix = prefix(value).ok_or_else(bad)?;
                if file.addresses.contains(&prefix) {
                    return Ok(());
                }
                file.addresses.push(prefix);
            }
            ("Network", "Gateway") => {
                let gateway: IpAddr = value.parse().map_err(|_| bad())?;
                file.routes.push(StaticRoute {
                    destination: default_of(Some(gateway)),
                    gateway: Some(gateway),
                    metric: None,
                    onlink: false,
                });
            }
            ("Network", "DNS") => {
                for word in value.split_whitespace() {
                    // ADDRESS[:PORT][%INTERFACE][#NAME]: only the address can be said in resolv.conf.
                    file.dns.push(word.split(['%', '#']).next().and_then(|word| word.parse().ok()).ok_or_else(bad)?);
                }
            }
            ("Network", "Domains") => file
                .domains
                .extend(value.split_whitespace().filter(|word| *word != "~.").map(|word| word.trim_start_matches('~').to_owned())),
            ("Network", "NTP") => file.ntp.extend(value.split_whitespace().map(str::to_owned)),
            ("Network", "LinkLocalAddressing") => {
                file.link_local_ipv6 = match value {
                    "ipv6" => true,
                    "ipv4" | "fallback" | "ipv4-fallback" => false,
                    _ => flag()?,
                }
            }
            ("Network", "IPv6AcceptRA") => file.accept_ra = flag()?,
            ("Route", _) => {
                let Some(RouteSection { destination, gateway, metric, onlink }) = &mut self.route else { return Ok(()) };
                match key {
                    "Destination" if value == "default" => {}
                    "Destination" => *destination = Some(prefix(value).ok_or_else(bad)?),
                    "Gateway" => *gateway = Some(value.parse().map_err(|_| bad())?),
                    "Metric" => *metric = Some(value.parse().map_err(|_| bad())?),
                    "GatewayOnLink" | "GatewayOnlink" => *onlink = flag()?,
                    "Scope" if value == "link" => {}
                    _ => return Err(format!("{key}= in [Route] is not supported and is ignored")),
                }
            }
            ("DHCPv4" | "DHCP", _) => set_dhcp(&mut file.dhcp_options, key, value, flag, bad)?,
            _ => return Err(format!("{key}= in [{section}] is not supported and is ignored")),
        }
        Ok(())
    }
}

fn set_dhcp(
    options: &mut DhcpOptions,
    key: &str,
    value: &str,
    flag: impl Fn() -> Result<bool, String>,
    bad: impl Fn() -> String,
) -> Result<(), String> {
    match key {
        "UseDNS" => options.use_dns = flag()?,
        "UseDomains" => options.use_domains = value != "route" && flag()?,
        "UseNTP" => options.use_ntp = flag()?,
        "UseRoutes" | "UseGateway" => options.use_routes = flag()?,
        "UseMTU" => options.use_mtu = flag()?,
        "UseHostname" => options.use_hostname = flag()?,
        "SendHostname" => options.send_hostname = flag()?,
        "Hostname" => options.hostname = Some(value.to_owned()),
        "RouteMetric" => options.route_metric = Some(value.parse().map_err(|_| bad())?),
        // Hardware address is what we send, and servers that know hosts by it are why.
        "ClientIdentifier" if value == "mac" => {}
        _ => return Err(format!("{key}= in [DHCPv4] is not supported and is ignored")),
    }
    Ok(())
}

fn default_of(gateway: Option<IpAddr>) -> Prefix {
    match gateway {
        Some(IpAddr::V6(_)) => Prefix { address: Ipv6Addr::UNSPECIFIED.into(), length: 0 },
        _ => Prefix { address: Ipv4Addr::UNSPECIFIED.into(), length: 0 },
    }
}

fn words(list: &mut Vec<String>, value: &str) {
    if value.is_empty() {
        list.clear();
    }
    list.extend(value.split_whitespace().map(str::to_owned));
}

/// `10.0.0.1/24`; without a length it is the address alone.
fn prefix(text: &str) -> Option<Prefix> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address.parse().ok()?, Some(length.parse().ok()?)),
        None => (text.parse().ok()?, None),
    };
    let longest = if matches!(address, IpAddr::V4(_)) { 32 } else { 128 };
    let length = length.unwrap_or(longest);
    (length <= longest).then_some(Prefix { address, length })
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next().filter(|part| part.len() == 2)?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

fn size(text: &str) -> Option<u32> {
    match text.strip_suffix('K') {
        Some(number) => number.parse::<u32>().ok()?.checked_mul(1024),
        None => text.parse().ok(),
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" | "1" | "y" | "t" => Some(true),
        "no" | "false" | "off" | "0" | "n" | "f" => Some(false),
        _ => None,
    }
}

/// Lines with their numbers: comments and empty ones dropped, those that end in `\` joined.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (at, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.starts_with(['#', ';']) || (trimmed.is_empty() && !open) {
            continue;
        }
        let (part, continues) = match trimmed.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (trimmed, false),
        };
        match lines.last_mut().filter(|_| open) {
            Some((_, known)) => {
                known.push(' ');
                known.push_str(part);
            }
            None => lines.push((at + 1, part.to_owned())),
        }
        open = continues;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STATIC: &str = "\
# the uplink
[Match]
Name=en* eth0
MACAddress=02:00:00:00:00:01

[Link]
MTUBytes=1400
RequiredForOnline=routable

[Network]
Address=192.0.2.10/24
Gateway=192.0.2.1
DNS=192.0.2.53 \\
    2001:db8::53
Domains=example.org ~corp.example
NTP=time.example.org
IPv6AcceptRA=no

[Address]
Address=192.0.2.11/24

[Route]
Destination=10.0.0.0/8
Gateway=192.0.2.2
Metric=50

[Route]
Gateway=198.51.100.1
GatewayOnLink=yes
";

    fn link(name: &str) -> Link {
        Link { index: 2, name: name.into(), mac: Some([2, 0, 0, 0, 0, 1]), ethernet: true, ..Link::default() }
    }

    #[test]
    fn a_static_configuration() {
        let (file, complaints) = NetworkFile::parse("10-up.network", STATIC);
        assert_eq!(complaints, Vec::<String>::new());
        assert!(!file.dhcp && !file.accept_ra && file.required_for_online);
        assert_eq!((file.mtu, file.addresses.len(), file.dns.len()), (Some(1400), 2, 2));
        assert_eq!(file.domains, ["example.org", "corp.example"]);
        let gateways: Vec<_> = file.routes.iter().map(|route| (route.destination.length, route.metric, route.onlink)).collect();
        assert_eq!(gateways, [(0, None, false), (8, Some(50), false), (0, None, true)]);
    }

    #[test]
    fn links_are_matched_by_every_condition() {
        let (file, _) = NetworkFile::parse("a", STATIC);
        assert!(file.matching.matches(&link("ens3"), None));
        assert!(file.matching.matches(&link("eth0"), None));
        assert!(!file.matching.matches(&link("eth1"), None));
        assert!(!file.matching.matches(&Link { mac: None, ..link("ens3") }, None));
        let (by_driver, _) = NetworkFile::parse("a", "[Match]\nDriver=virtio*\nType=ether\n");
        assert!(by_driver.matching.matches(&link("x"), Some("virtio_net")));
        assert!(!by_driver.matching.matches(&link("x"), Some("e1000")));
        let (negated, _) = NetworkFile::parse("a", "[Match]\nName=!eth* docker0\n");
        assert!(!negated.matching.matches(&link("eth0"), None) && negated.matching.matches(&link("ens3"), None));
    }

    #[test]
    fn containers_links_are_not_meant_by_a_wildcard() {
        let veth = Link { kind: Some("veth".into()), ..link("veth12ab") };
        let (all, _) = NetworkFile::parse("a", "[Match]\nName=*\n[Network]\nDHCP=yes\n");
        assert!(!all.matching.matches(&veth, None));
        let (named, _) = NetworkFile::parse("a", "[Match]\nName=veth12*\n");
        assert!(named.matching.matches(&veth, None));
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_line() {
        let (file, complaints) = NetworkFile::parse(
            "20-x.network",
            "[Match]\nPath=pci-0000:00:02.0\n[Network]\nAddress=300.0.0.1/24\nDHCP=perhaps\nVLAN=v1\nnonsense\n",
        );
        assert_eq!(complaints.len(), 5, "{complaints:?}");
        assert!(complaints[0].starts_with("20-x.network:2: Path= in [Match]"));
        assert!(complaints[1].contains("300.0.0.1/24"));
        assert!(!file.matching.matches(&link("eth0"), None));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "(\\[(Match|Network|Route|DHCPv4)\\]\n|[A-Za-z]{1,8}=[a-z0-9./:%# ]{0,20}\\\\?\n|.{0,10}\n){0,12}") {
            NetworkFile::parse("x", &text);
        }
    }
}
