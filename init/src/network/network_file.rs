//! `.network` files in systemd-networkd's syntax, as far as a host of containers needs them, and which link they are for.
//!
//! Pure. What is not known is a complaint with file and line, never a reason to leave a host without its network: only an unknown
//! condition in `[Match]` makes a file match nothing, since guessing could configure the wrong link.

use super::file_syntax::{Prefix, assignments, boolean, prefix, size, words};
use super::link_match::Match;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
    /// `[IPv6AcceptRA]` and `[DHCPv6]`.
    pub ipv6: Ipv6Options,
    /// `VLAN=`: virtual links to be made on this one.
    pub vlans: Vec<String>,
    /// `Bridge=` or `Bond=`: what this link is put into.
    pub master: Option<String>,
}

/// `[IPv6AcceptRA]`, `[DHCPv6]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Options {
    /// Take name servers of router advertisements.
    pub use_dns: bool,
    /// Take domains of router advertisements.
    pub use_domains: bool,
    /// Ask DHCPv6 when routers say so.
    pub dhcp: bool,
    /// Take addresses of DHCPv6.
    pub dhcp_use_address: bool,
    /// Take name servers of DHCPv6.
    pub dhcp_use_dns: bool,
    /// Take domains of DHCPv6.
    pub dhcp_use_domains: bool,
    /// Take time servers of DHCPv6.
    pub dhcp_use_ntp: bool,
    /// `WithoutRA=solicit`: ask although no router has spoken.
    pub without_router: bool,
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
            ipv6: Ipv6Options {
                use_dns: true,
                use_domains: true,
                dhcp: true,
                dhcp_use_address: true,
                dhcp_use_dns: true,
                dhcp_use_domains: true,
                dhcp_use_ntp: true,
                without_router: false,
            },
            vlans: Vec::new(),
            master: None,
        }
    }

    /// Reads a file; the second part is what could not be used, one line each.
    #[cfg(test)]
    pub fn parse(name: &str, text: &str) -> (NetworkFile, Vec<String>) {
        Self::parse_with_drop_ins(name, &[(name.to_owned(), text.to_owned())])
    }

    /// Reads a file and its drop-ins: names and texts, in the order in which they count.
    pub fn parse_with_drop_ins(name: &str, texts: &[(String, String)]) -> (NetworkFile, Vec<String>) {
        let mut reader = Reader { file: NetworkFile { name: name.into(), dhcp: false, ..NetworkFile::fallback() }, route: None };
        let mut complaints = Vec::new();
        for (source, text) in texts {
            for (number, section, line) in assignments(text) {
                let result = line.and_then(|(key, value)| match key.as_str() {
                    "" if value.is_empty() => {
                        reader.begin_section(&section);
                        Ok(())
                    }
                    key => reader.set(&section, key, &value),
                });
                if let Err(problem) = result {
                    complaints.push(format!("{source}:{number}: {problem}"));
                }
            }
            reader.begin_section("");
        }
        (reader.file, complaints)
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
            ("Match", _) => return file.matching.set(key, value),
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
            ("Network", "VLAN") => words(&mut file.vlans, value),
            ("Network", "Bridge" | "Bond") => file.master = (!value.is_empty()).then(|| value.to_owned()),
            ("IPv6AcceptRA", "UseDNS") => file.ipv6.use_dns = flag()?,
            ("IPv6AcceptRA", "UseDomains") => file.ipv6.use_domains = value != "route" && flag()?,
            ("IPv6AcceptRA", "DHCPv6Client") => file.ipv6.dhcp = value == "always" || flag()?,
            ("DHCPv6", "UseAddress") => file.ipv6.dhcp_use_address = flag()?,
            ("DHCPv6", "UseDNS") => file.ipv6.dhcp_use_dns = flag()?,
            ("DHCPv6", "UseDomains") => file.ipv6.dhcp_use_domains = value != "route" && flag()?,
            ("DHCPv6", "UseNTP") => file.ipv6.dhcp_use_ntp = flag()?,
            ("DHCPv6", "WithoutRA") => {
                file.ipv6.without_router = match value {
                    "solicit" => true,
                    "no" => false,
                    _ => return Err(bad()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::netlink::Link;
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
            "[Match]\nPath=pci-0000:00:02.0\n[Network]\nAddress=300.0.0.1/24\nDHCP=perhaps\nMACVLAN=v1\nnonsense\n",
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
