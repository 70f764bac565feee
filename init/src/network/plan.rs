//! What a link should have, from its file and its lease, and how to get there from what it has.
//!
//! Pure. Only what we put there ourselves is ever taken away: other programs' addresses and routes are theirs.

use super::dhcp_message::{Lease, network_of};
use super::netlink::{Address, Request, Route};
use super::network_file::NetworkFile;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// Metric of routes for which none is set; the number of the link is added, so that the first one wins.
pub const DEFAULT_METRIC: u32 = 1024;

/// What a link has of ours, or should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Addresses.
    pub addresses: BTreeSet<Address>,
    /// Routes.
    pub routes: BTreeSet<Route>,
}

/// What is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Addresses and routes.
    pub state: LinkState,
    /// The addresses that servers give, and the seconds that they hold.
    pub leased: Vec<(IpAddr, Option<u32>)>,
    /// MTU, where one is set.
    pub mtu: Option<u32>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub domains: Vec<String>,
    /// Time servers.
    pub ntp: Vec<String>,
}

/// What the link number `link` should have.
pub fn desired(link: u32, file: &NetworkFile, lease: Option<&Lease>) -> Desired {
    let mut wanted =
        Desired { mtu: file.mtu, dns: file.dns.clone(), domains: file.domains.clone(), ntp: file.ntp.clone(), ..Desired::default() };
    for prefix in &file.addresses {
        wanted.state.addresses.insert(Address { link, address: prefix.address, prefix: prefix.length });
    }
    let metric = DEFAULT_METRIC + link;
    for route in &file.routes {
        let destination = masked(route.destination.address, route.destination.length);
        let reachable = route.gateway.is_none_or(|gateway| gateway.is_ipv6() || wanted.reaches(gateway));
        wanted.state.routes.insert(Route {
            link,
            destination,
            prefix: route.destination.length,
            gateway: route.gateway,
            source: None,
            metric: route.metric.unwrap_or(if route.destination.length == 0 { metric } else { 0 }),
            onlink: route.onlink || !reachable,
        });
    }
    if let Some(lease) = lease.filter(|_| file.dhcp) {
        wanted.add_lease(link, file, lease);
    }
    wanted
}

impl Desired {
    fn add_lease(&mut self, link: u32, file: &NetworkFile, lease: &Lease) {
        let options = &file.dhcp_options;
        self.state.addresses.insert(Address { link, address: lease.address.into(), prefix: lease.prefix });
        self.leased.push((lease.address.into(), (lease.seconds != u32::MAX).then_some(lease.seconds)));
        if options.use_mtu {
            self.mtu = self.mtu.or(lease.mtu.map(u32::from));
        }
        for route in lease.routes.iter().filter(|_| options.use_routes) {
            let gateway = (!route.gateway.is_unspecified()).then_some(IpAddr::V4(route.gateway));
            let route = Route {
                link,
                destination: route.destination.into(),
                prefix: route.prefix,
                gateway,
                source: Some(lease.address.into()),
                metric: options.route_metric.unwrap_or(DEFAULT_METRIC + link),
                // Clouds hand out /32 addresses with a gateway outside of them.
                onlink: gateway.is_some_and(|gateway| !self.reaches(gateway)),
            };
            self.state.routes.insert(route);
        }
        if options.use_dns {
            self.dns.extend(lease.dns.iter().map(|address| IpAddr::V4(*address)));
        }
        if options.use_domains {
            self.domains.extend(lease.domains.iter().cloned());
        }
        if options.use_ntp {
            self.ntp.extend(lease.ntp.iter().map(Ipv4Addr::to_string));
        }
    }

    /// Whether an address of ours says that the gateway is on the link.
    fn reaches(&self, gateway: IpAddr) -> bool {
        self.state.addresses.iter().any(|address| masked(address.address, address.prefix) == masked(gateway, address.prefix))
    }
}

/// The requests that lead from what is there of ours to what is wanted: first what goes, then addresses, then routes on the link,
/// then routes that need those.
pub fn changes(have: &LinkState, wanted: &Desired) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    requests.extend(have.routes.difference(&wanted.state.routes).map(|route| Request::RemoveRoute(*route)));
    requests.extend(have.addresses.difference(&wanted.state.addresses).map(|address| Request::RemoveAddress(*address)));
    for address in &wanted.state.addresses {
        let seconds = wanted.leased.iter().find(|(leased, _)| address.address == *leased).and_then(|(_, seconds)| *seconds);
        // A lease's time runs anew with each renewal.
        if seconds.is_some() || !have.addresses.contains(address) {
            requests.push(Request::AddAddress(*address, seconds));
        }
    }
    // Removing an address takes its routes along, so they are all set again; that changes nothing where they are there.
    let (direct, via): (Vec<&Route>, Vec<&Route>) = wanted.state.routes.iter().partition(|route| route.gateway.is_none());
    requests.extend(direct.into_iter().chain(via).map(|route| Request::AddRoute(*route)));
    requests
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(four) => network_of(four, prefix).into(),
        IpAddr::V6(six) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            std::net::Ipv6Addr::from_bits(six.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::dhcp_message;

    fn lease(address: &str, prefix: u8, routes: &[(&str, u8, &str)]) -> Lease {
        let route = |(destination, prefix, gateway): &(&str, u8, &str)| dhcp_message::Route {
            destination: destination.parse().unwrap(),
            prefix: *prefix,
            gateway: gateway.parse().unwrap(),
        };
        Lease {
            address: address.parse().unwrap(),
            prefix,
            server: "10.0.2.2".parse().unwrap(),
            routes: routes.iter().map(route).collect(),
            dns: vec!["10.0.2.3".parse().unwrap()],
            domains: vec!["example.org".into()],
            ntp: Vec::new(),
            mtu: Some(1460),
            hostname: None,
            seconds: 3600,
            renew: 1800,
            rebind: 3150,
        }
    }

    #[test]
    fn a_slash_32_lease_gets_its_gateway_on_the_link() {
        let wanted = desired(2, &NetworkFile::fallback(), Some(&lease("10.128.0.5", 32, &[("0.0.0.0", 0, "10.128.0.1")])));
        let route = wanted.state.routes.first().unwrap();
        assert!(route.onlink);
        assert_eq!((route.metric, wanted.mtu), (1026, Some(1460)));
        let wanted = desired(2, &NetworkFile::fallback(), Some(&lease("10.0.2.15", 24, &[("0.0.0.0", 0, "10.0.2.2")])));
        assert!(!wanted.state.routes.first().unwrap().onlink);
    }

    #[test]
    fn link_routes_are_set_before_those_through_them() {
        let lease = lease("10.0.0.5", 32, &[("0.0.0.0", 0, "169.254.0.1"), ("169.254.0.1", 32, "0.0.0.0")]);
        let requests = changes(&LinkState::default(), &desired(2, &NetworkFile::fallback(), Some(&lease)));
        let routes: Vec<bool> =
            requests.iter().filter_map(|r| if let Request::AddRoute(route) = r { Some(route.gateway.is_none()) } else { None }).collect();
        assert_eq!(routes, [true, false]);
        assert!(matches!(requests[0], Request::AddAddress(_, Some(3600))));
    }

    #[test]
    fn a_new_lease_takes_the_old_away_and_leaves_the_static_addresses() {
        let (file, _) = NetworkFile::parse("x", "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nAddress=192.0.2.1/24\n");
        let before = desired(2, &file, Some(&lease("10.0.2.15", 24, &[("0.0.0.0", 0, "10.0.2.2")])));
        let after = desired(2, &file, Some(&lease("10.0.3.15", 24, &[("0.0.0.0", 0, "10.0.3.2")])));
        let requests = changes(&before.state, &after);
        assert_eq!(requests.iter().filter(|r| matches!(r, Request::RemoveAddress(_))).count(), 1);
        assert_eq!(requests.iter().filter(|r| matches!(r, Request::RemoveRoute(_))).count(), 1);
        assert!(!requests.iter().any(|r| matches!(r, Request::AddAddress(a, _) if a.address.to_string() == "192.0.2.1")));
        // Nothing but the address's time and the route is said again when nothing changes.
        assert_eq!(changes(&after.state, &after).len(), 2);
    }

    #[test]
    fn a_file_may_refuse_parts_of_a_lease() {
        let (file, complaints) =
            NetworkFile::parse("x", "[Network]\nDHCP=yes\nDNS=9.9.9.9\n[DHCPv4]\nUseDNS=no\nUseRoutes=no\nUseMTU=no\nUseDomains=no\n");
        assert!(complaints.is_empty());
        let wanted = desired(2, &file, Some(&lease("10.0.2.15", 24, &[("0.0.0.0", 0, "10.0.2.2")])));
        assert_eq!((wanted.state.routes.len(), wanted.dns.len(), wanted.mtu, wanted.domains.len()), (0, 1, None, 0));
    }
}
